"""Every stepper under the laws of steppers, and a planted violator for each law."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kofn.laws import steppers
from kofn.laws.case import LawBroken
from kofn.laws.steppers import STEPPERS
from kofn.selection.streams._dynamic_selection import DynamicSelection

K, SEEDS = st.integers(1, 4), st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", STEPPERS)
def test_refresh(name: str) -> None:
    choices = 0

    @settings(max_examples=25, deadline=None)
    @given(K, SEEDS)
    def run(k: int, seed: int) -> None:
        nonlocal choices
        choices += steppers.refresh(STEPPERS[name], k, seed)

    run()
    assert choices >= 50


@pytest.mark.parametrize("name", STEPPERS)
@settings(max_examples=10, deadline=None)
@given(k=K, seed=SEEDS)
def test_resume(name: str, k: int, seed: int) -> None:
    steppers.resume(STEPPERS[name], k, seed)


@pytest.mark.parametrize("name", STEPPERS)
def test_refuse(name: str) -> None:
    steppers.refuse(STEPPERS[name], 2, 0)


class Ghosts(DynamicSelection):
    """Goes on counting what is deleted."""

    def delete(self, ids: Any) -> None:
        held = {key: self._slots[key] for key in ids}
        super().delete(ids)
        self._slots.update(held)
        self._alive[list(held.values())] = True


class Idle(DynamicSelection):
    """Never looks at a newcomer once it has k picks, and never redraws."""

    def _choose(self, live: Any) -> None:
        whole = [slot for slot in self._picks if self._alive[slot]]
        spare = [slot for slot in live.tolist() if slot not in whole]
        self._picks = (whole + spare)[: self.k]
        self._gains = self._sequence(self._picks)

    def _rebuild(self, one: Any) -> None:
        one.picks, one.marginals = [], []


class Lowballer(DynamicSelection):
    """Its bound is what it reached."""

    def _refresh(self) -> None:
        super()._refresh()
        self._bound = sum(self._gains)


class Forgetful(DynamicSelection):
    """Loads a state without its random numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._rng = np.random.default_rng(99)
        self._picks, self._gains = self._picks[:1], self._gains[:1]
        self.oracle_calls -= 1


class Sloppy(DynamicSelection):
    """Takes what it already has."""

    def insert(self, ids: Any, X: Any) -> None:
        fresh = [i for i, key in enumerate(ids) if key not in self]
        super().insert([ids[i] for i in fresh], np.asarray(X)[fresh])


def caught(law: Any, kind: type[DynamicSelection]) -> bool:
    base = STEPPERS["dynamic sets alone"]
    options = {"objective": "coverage", "weights": steppers._WEIGHTS, "greedy_fill": False}
    wrong = dataclasses.replace(base, make=lambda k, seed: kind(k, seed=seed, **options))
    for seed in range(60):
        try:
            law(wrong, 1 + seed % 4, seed)
        except LawBroken:
            return True
    return False


@pytest.mark.parametrize("kind", [Ghosts, Idle, Lowballer])
def test_refresh_catches(kind: type[DynamicSelection]) -> None:
    assert caught(steppers.refresh, kind)
    assert not caught(steppers.refresh, DynamicSelection)


def test_resume_and_refuse_catch() -> None:
    assert caught(steppers.resume, Forgetful)
    assert caught(steppers.refuse, Sloppy)
