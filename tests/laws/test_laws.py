"""Every law that a method declares, on problems drawn from the arguments it takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import time_budget
from hypothesis import given, seed, settings
from law_runs import ENTRIES, PAIRS, PROFILE, enough_of, holds, load_compiled

from kofn.core.registry import Entry
from kofn.laws import LAWS, Case
from kofn.laws.generators import calls

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("entry", "name"), [pytest.param(*pair, id=f"{pair[0].name}-{pair[1]}") for pair in PAIRS])
def test_law(entry: Entry, name: str) -> None:
    checked = holds(entry, name)
    if name in entry.draws.silent_laws:
        assert checked == 0, f"{name!r} is declared silent and found something to check"
    else:
        enough = enough_of(entry, name) // (2 if name in entry.traits else 1)
        assert checked >= enough, (
            f"{name!r} had something to check in {checked} calls, not in {enough}; the draw must reach it "
            f"(draws=Draw(...) of {entry.name}), or is declared without: silent=({name!r},), states_no_value=True"
        )


TIMED = [pytest.param(entry, id=entry.name) for entry in ENTRIES if "time_limit" in entry.accepted]


@pytest.mark.parametrize("entry", TIMED)
def test_what_is_valid_when_time_is_up_keeps_the_laws(entry: Entry) -> None:
    stopped = 0
    most = time_budget.law_calls(PAIRS.index((entry, "feasible")), len(PAIRS))

    def hold(call: Any) -> None:
        nonlocal stopped
        case = Case.of(entry.verb, entry.name, {**call.given, "time_limit": 1e-9}, call.options)
        stopped += case.plan.status == "stopped"
        for name in ("fields", "feasible", "recount", *({"sandwich", "duality"} & set(entry.traits))):
            LAWS[name](case)

    # Small calls may end before the first look at the clock: then batches of other seeds follow.
    for attempt in range(20):
        settings(PROFILE, max_examples=most)(seed(time_budget.DEEP_SEED + attempt)(given(call=calls(entry))(hold)))()
        if stopped:
            break
    assert stopped


COMPILED = [
    pytest.param(entry, name, id=f"{entry.name}-{name}")
    for entry in ENTRIES
    if entry.draws.compiled
    for name in ("recount", *entry.traits)
]


@pytest.mark.parametrize(("entry", "name"), COMPILED)
def test_law_of_compiled_code(entry: Entry, name: str) -> None:
    load_compiled()
    assert holds(entry, name) >= time_budget.FEWEST


def test_every_method_with_threads_is_run_at_size() -> None:
    texts = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    called = set(re.findall(r'keeps_laws_(?:at_size|in_tasks)\(\s*"(\w+)"', texts))
    missing = sorted({entry.name for entry in ENTRIES if "n_threads" in entry.accepted} - called)
    assert not missing, f"no test of their families calls law_runs.keeps_laws_at_size(name, ...) of {missing}"
