"""No call of anything public, with a hostile value in any one place, ends in an error that is not kofn's own."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attack
import numpy as np
import pytest
import time_budget
from documented_calls import Documented, calls_of
from hostile_calls import (
    CHOSEN,
    FUNCTIONS,
    METHODS,
    STEPPERS,
    WORK,
    Try,
    fault,
    of_function,
    of_method,
    of_objective,
    of_stepper,
)
from hostile_values import VALUES

import kofn
from kofn.core.registry import Entry
from kofn.objectives.base import OBJECTIVES

# Values for each place: always the same two, or more, from calls of another seed, in `make test-deep`.
EACH = min(len(VALUES), attack.scaled(8, 2))
NUMBER = time_budget.DEEP_SEED


@pytest.fixture(autouse=True)
def _few_files_and_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any text is a path somewhere, and what asks for terabytes must not get them."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":  # elsewhere there is no such limit
        resource.setrlimit(resource.RLIMIT_AS, (2**34, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _faults(tries: Iterator[Try]) -> list[str]:
    faults = []
    for tried in tries:
        attack.count("hostile calls")
        if found := fault(tried):
            attack.count("tracebacks")
            faults.append(found)
    return faults


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_methods(entry: Entry) -> None:
    assert _faults(of_method(entry, np.random.default_rng(NUMBER), EACH, NUMBER, calls=4)) == []


# Kinds that checks written for a single method miss.
ODD = ("unequal", "list of unequal", "2^63", "everything")


@pytest.mark.parametrize("entry", METHODS, ids=lambda entry: entry.name)
def test_own_options(entry: Entry) -> None:
    places = [*entry.options, *({"score", "target", "sizes"} & set(entry.accepted))]
    if places:
        tries = of_method(entry, np.random.default_rng(0), len(ODD), 0, calls=4, places=places, kinds=ODD)
        assert _faults(tries) == []


@pytest.mark.parametrize("entry", CHOSEN, ids=lambda entry: entry.name)
def test_methods_that_are_chosen(entry: Entry) -> None:
    tries = of_method(entry, np.random.default_rng(NUMBER + 1), 2 * EACH, NUMBER, calls=4, named=False)
    assert _faults(tries) == []


@pytest.mark.parametrize("cls", STEPPERS, ids=lambda cls: cls.__name__)
def test_steppers(cls: type) -> None:
    assert _faults(of_stepper(cls, np.random.default_rng(NUMBER), EACH)) == []


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(name: str) -> None:
    assert _faults(of_objective(name, np.random.default_rng(NUMBER), EACH)) == []


@pytest.mark.parametrize("helper", FUNCTIONS, ids=lambda helper: helper.name)
def test_functions(helper: Documented, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert calls_of(helper), "its example calls it nowhere, or fails"
    # Amounts of work that somebody waits for are left to deep runs.
    kinds = [kind for kind in VALUES if time_budget.DEEP or kind not in WORK]
    tries = of_function(helper, np.random.default_rng(NUMBER), attack.scaled(8, 1), kinds)
    assert _faults(tries) == []


def test_public_functions_read_their_arguments_by_their_types() -> None:
    plain = [helper.name for helper in FUNCTIONS if not hasattr(helper.function, "__kofn_helper__")]
    # It reads its own, as `kofn` must be imported without all that reads arguments.
    assert plain == ["methods"]
    assert len(FUNCTIONS) > 40


def test_what_the_callers_own_code_raises_passes_through() -> None:
    class Broken:
        submodular = True

        def gains(self, candidates: object) -> object:
            raise ZeroDivisionError("mine")

        add = value = gains

    def own(X: object, k: int) -> object:
        raise OverflowError("mine too")

    rows = [[1e200], [2e200], [3e200]]
    with pytest.raises(ZeroDivisionError, match="mine"):
        kofn.select(rows, k=2, objective=Broken())
    with pytest.raises(OverflowError, match="mine too"):
        kofn.select(rows, k=2, method=own)


def test_a_fault_of_ours_stays_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("kofn.selection.basics._random_sample.Selection", faulty)
    with pytest.raises(ValueError, match=r"^a fault of ours$") as caught:
        kofn.select([[1.0], [2.0]], k=1, method="random_sample")
    assert not isinstance(caught.value, kofn.core.checks.KofnError)


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def traceback() -> None:
        raise TypeError("a traceback")

    def lines() -> None:
        error = kofn.core.checks.KofnError("two\nlines")
        raise error

    def for_ever() -> None:
        while True:
            pass

    def busy() -> None:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass

    tried = [0]

    def compiles() -> None:
        tried[0] += 1
        if tried[0] == 1:
            for_ever()

    monkeypatch.setattr("hostile_calls.SECONDS", 0.2)
    assert "takes more than" in (fault(Try("own", "X", "text", for_ever)) or "")
    assert fault(Try("own", "X", "text", compiles)) is None
    # What takes longer each time is too long, whatever it is given to compile.
    assert "takes more than 0.2 s" in (fault(Try("own", "X", "text", busy)) or "")
    assert "TypeError" in (fault(Try("own", "X", "text", traceback)) or "")
    assert "line ends" in (fault(Try("own", "X", "text", lines)) or "")
    assert fault(Try("own", "X", "text", lambda: kofn.select([[1.0]], k=2))) is None
