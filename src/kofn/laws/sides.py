"""What an allocation must keep beside its budget, drawn around a witness that keeps it all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Ints, Mask
from kofn.laws.inputs import Draw


def draw_sides(
    draw: Draw,
    given: dict[str, Any],
    options: dict[str, Any],
    levels: NDArray[Any],
    costs: NDArray[Any],
    allowed: Mask,
) -> None:
    """Ties, quotas, k, resources and pairs, and a budget that is enough for the witness."""
    n, width = costs.shape
    tied = draw(st.lists(st.integers(0, n), min_size=n, max_size=n)) if draw(st.integers(0, 2)) == 0 else list(range(n))
    column = _witness(draw, np.array(tied), allowed)
    if column is None:
        tied = list(range(n))
        column = _witness(draw, np.array(tied), allowed)
        assert column is not None
    if tied != list(range(n)):
        options["tied"] = [f"t{label}" for label in tied]
    rows = np.arange(n)
    spent, amounts = costs[rows, column], levels[rows, column]
    if draw(st.integers(0, 1)):
        codes = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
        quotas = {}
        for code in np.unique(codes).tolist():
            total = spent[codes == code].sum()
            least, most = math.floor(total), math.ceil(total)
            ends = draw(st.sampled_from(((None, most), (least, None), (least, most), (None, None))))
            if ends != (None, None):
                quotas[f"g{code}"] = ends
        if quotas:
            given["groups"], given["quotas"] = [f"g{code}" for code in codes.tolist()], quotas
    if draw(st.integers(0, 2)) == 0:
        given["k"] = max(int((amounts > 0).sum()), 1)
    if draw(st.integers(0, 2)) == 0:
        table = np.array(draw(st.lists(st.integers(0, 5), min_size=n * width, max_size=n * width))).reshape(n, width)
        options["resources"] = {"ms": table}
        options["limits"] = {"ms": int(table[rows, column].sum())}
    _pairs(draw, amounts, options)
    enough = float(spent.sum()) if spent.dtype.kind == "f" else int(spent.sum())
    if "budget" in given:
        given["budget"] = max(given["budget"], enough)
    else:
        given["budget"] = max(enough, 1)
        del options["mean_budget"]


def _witness(draw: Draw, tied: Ints, allowed: Mask) -> Ints | None:
    """A level for each item that it may have, the same for those that are tied; None where these have none."""
    column = np.zeros(len(tied), np.int64)
    for label in np.unique(tied).tolist():
        common = np.flatnonzero(allowed[tied == label].all(axis=0))
        if not len(common):
            return None
        column[tied == label] = draw(st.sampled_from(common.tolist()))
    return column


def _pairs(draw: Draw, amounts: NDArray[Any], options: dict[str, Any]) -> None:
    n = len(amounts)
    if n < 2 or draw(st.integers(0, 2)):
        return
    pairs = [tuple(draw(st.permutations(range(n)))[:2]) for _ in range(draw(st.integers(1, 2)))]
    needs = [(a, b) for a, b in pairs if amounts[a] > 0 or amounts[b] == 0]
    apart = [(a, b) for a, b in pairs if amounts[a] == 0 or amounts[b] == 0]
    if needs:
        options["precedence"] = needs
    if apart and draw(st.booleans()):
        options["exclusions"] = apart


def keeps_sides(words: Any, options: Any, columns: Ints, levels: NDArray[Any], costs: NDArray[Any]) -> list[str]:
    """What these columns break of what was asked beside the budget."""
    rows = np.arange(len(columns))
    amounts, spent, wrong = levels[rows, columns], costs[rows, columns], []
    if "quotas" in words:
        for group, (least, most) in words["quotas"].items():
            total = spent[np.asarray(words["groups"]).astype(str) == group].sum()
            slack = 1e-9 * abs(total) if total != round(total) else 0.0
            if total < (least or 0) - slack or (most is not None and total > most + slack):
                wrong.append(f"group {group} costs {total}, its quota is ({least}, {most})")
    if "k" in words and (amounts > 0).sum() > words["k"]:
        wrong.append(f"{(amounts > 0).sum()} items above zero")
    for name, limit in options.get("limits", {}).items():
        total = np.asarray(options["resources"][name])[rows, columns].sum()
        if total > limit:
            wrong.append(f"{total} of {limit} {name}")
    labels = np.asarray(options.get("tied", rows))
    wrong += [f"{label} is not tied" for label in np.unique(labels) if len(set(columns[labels == label].tolist())) > 1]
    wrong += [f"{b} without {a}" for a, b in options.get("precedence", ()) if amounts[b] > 0 and amounts[a] == 0]
    wrong += [f"{a} and {b}" for a, b in options.get("exclusions", ()) if amounts[b] > 0 and amounts[a] > 0]
    return wrong
