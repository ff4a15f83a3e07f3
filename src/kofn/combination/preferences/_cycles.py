"""What held-out votes say of cycles, in sentences for the command and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def cycle_sentences(cycles: Mapping[str, Any], name_of: Callable[[int], str]) -> list[str]:
    """Whether cycles are supported, and the strongest where they are, without capital or full stop.

    Args:
        cycles: `info["cycles"]` of `general_preference`.
        name_of: what an alternative is called.
    """
    if cycles["gain"] is None:
        return ["cycles were not held against Bradley and Terry's model: too few votes or judges to hold some out"]
    verdict = "supported" if cycles["supported"] else "not supported"
    sign = "more" if cycles["gain"] >= 0 else "less"
    out = [
        f"cycles are {verdict}: a held-out vote is {abs(cycles['gain']):.3g} nats (standard error "
        f"{cycles['error']:.1g}) {sign} likely than under Bradley and Terry's model"
    ]
    if cycles["supported"] and cycles["strongest"] is not None:
        names = [name_of(int(item)) for item in cycles["strongest"]]
        out.append(
            f"strongest cycle: {' > '.join([*names, names[0]])}, each preferred to the next in {cycles['each']:.0%} or "
            "more"
        )
    return out
