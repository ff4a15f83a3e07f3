"""How a law is held over drawn calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from kofn.core.registry import Entry
from kofn.laws import LAWS, Case
from kofn.laws.generators import calls

LEAST = 50
# More examples, and other ones every time: KOFN_EXAMPLES=2000 pytest tests/test_laws.py
EXAMPLES = int(os.environ.get("KOFN_EXAMPLES", "0"))

PROFILE = settings(
    max_examples=EXAMPLES or LEAST + 10,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def holds(entry: Entry, name: str, method: Any = None, usable: Callable[[Any], bool] = lambda call: True) -> int:
    """Hold a law over drawn calls; returns on how many of them there was something to check.

    Runs with other seeds follow until that is enough, since some laws find nothing to check in most calls.
    """
    # What a method declares is looked at more closely than what holds of every plan.
    enough = EXAMPLES or (2 * LEAST if name in entry.traits else LEAST)
    checked = 0
    for attempt in range(20):

        @PROFILE
        @given(call=calls(entry, law=name))
        def hold(call: Any) -> None:
            nonlocal checked
            if usable(call):
                checked += LAWS[name](Case.of(entry.verb, method or entry.name, call.given, call.options))

        (hold if EXAMPLES else seed(attempt)(hold))()
        if checked >= enough or (attempt and not checked):
            break
    return checked
