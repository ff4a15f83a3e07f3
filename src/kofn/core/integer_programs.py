"""Mixed-integer programs by HiGHS, without the lines that it prints on standard output whatever it is told."""

from __future__ import annotations

import re
from typing import Any

from kofn.core.held_output import HeldOutput

_HELD = HeldOutput(1, re.compile(rb"^Highs\w+::[^\n]*\n?", re.MULTILINE))


def milp(c: Any, **program: Any) -> Any:
    """`scipy.optimize.milp`, silent.

    Args:
        c: (n,) costs.
        program: the other words of SciPy's function.
    """
    from scipy import optimize

    with _HELD.holding():
        return optimize.milp(c, **program)
