"""Every law that a method declares, on problems drawn from the arguments it takes."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from kofn import dispatch
from kofn.laws import LAWS, Case, laws_of
from kofn.laws.generators import calls
from kofn.registry import VERBS, Entry

LEAST = 50
# More examples, and other ones every time: KOFN_EXAMPLES=2000 pytest tests/test_laws.py
EXAMPLES = int(os.environ.get("KOFN_EXAMPLES", "0"))
ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]
PAIRS = [pytest.param(entry, name, id=f"{entry.name}-{name}") for entry in ENTRIES for name in laws_of(entry)]

PROFILE = settings(
    max_examples=max(EXAMPLES, 8 * LEAST),
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize(("entry", "name"), PAIRS)
def test_law(entry: Entry, name: str) -> None:
    enough = EXAMPLES or LEAST + 10
    seen = {"checked": 0, "broken": False}

    @PROFILE
    @given(call=calls(entry, law=name))
    def hold(call):
        if seen["checked"] >= enough and not seen["broken"]:
            return
        try:
            case = Case.of(entry.verb, entry.name, call.given, call.options)
            seen["checked"] += LAWS[name](case)
        except Exception:
            seen["broken"] = True
            raise

    hold()
    if name not in VACUOUS.get(entry.name, ()):
        assert seen["checked"] >= min(enough, LEAST), f"only {seen['checked']} examples were not vacuous"


# Laws of every plan that have nothing to hold for a method that states no value.
VACUOUS = dict.fromkeys(("ccs", "random_sample"), ("recount",))
