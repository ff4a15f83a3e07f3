"""For each law of steppers, steppers that break it, which it must catch, beside one that keeps them all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from kofn.core import checks
from kofn.core.checks import BrokenPlanError, InputError
from kofn.core.plans import Selection
from kofn.core.stepper import Event, Exact, Example, Share, Stepper, held_keys, new_keys, stepper
from kofn.laws.case import LawBroken
from kofn.laws.steppers import LAWS
from kofn.selection import DynamicSelection
from kofn.selection.streams import _examples

COUNTER = itertools.count()


class Braggart(Stepper[Selection]):
    """Calls its plan optimal, and its draws tell no optimum to hold that against."""

    state: ClassVar = {"numbers": "items"}

    def __init__(self) -> None:
        super().__init__()
        self._numbers = np.empty(0)

    def insert(self, ids: Any, X: Any) -> None:
        self._numbers = np.concatenate([self._numbers, np.asarray(X)[:, 0]])

    def _plan(self) -> Selection:
        n = len(self._numbers)
        return Selection(
            n=n,
            indices=np.arange(min(n, 1)),
            gains=self._numbers[:1],
            value=float(self._numbers[:1].sum()),
            bound=float(self._numbers[:1].sum()),
            status="optimal",
            ids=np.array([f"item {i}" for i in range(n)], object),
        )


class Highest(Stepper[Selection]):
    """Keep the k highest numbers of a pool."""

    promise = Exact()
    state: ClassVar = {"ids": "items", "numbers": "items", "inserted": ""}

    def __init__(self, k: int, *, password: str = "", seed: int | None = None) -> None:
        self.k = checks.count(k)
        super().__init__(k=self.k, password=password, seed=checks.entropy(seed))
        self._ids: list[Any] = []
        self._numbers = np.empty(0)
        self.inserted = 0

    def insert(self, ids: Any, X: Any) -> None:
        rows = checks.matrix(X).astype(np.float64)
        keys = new_keys(ids, self._ids)
        checks.same_length(len(rows), "X", "ids", len(keys))
        if rows.shape[1] != 1:
            raise InputError(f"X has {rows.shape[1]} columns; give one")
        self._ids += keys
        self._numbers = np.concatenate([self._numbers, rows[:, 0]])
        self.inserted += len(keys)

    def delete(self, ids: Any) -> None:
        gone = held_keys(ids, self._ids)
        kept = [i for i, key in enumerate(self._ids) if key not in gone]
        self._ids, self._numbers = [self._ids[i] for i in kept], self._numbers[kept]

    def _plan(self) -> Selection:
        picks = self._picked()
        gains = self._numbers[picks]
        return Selection(
            n=len(self._ids), indices=picks, gains=gains, value=float(gains.sum()), ids=np.array(self._ids, object)
        )

    def _picked(self) -> Any:
        return np.argsort(-self._numbers, kind="stable")[: self.k].astype(np.int64)


def registered(cls: Any, **options: Any) -> Any:
    """The class as its author would register it."""

    def draws(rng: np.random.Generator) -> Example:
        k = int(rng.integers(1, 4))
        rows: Callable[..., Any] = lambda rng, m: rng.integers(0, 5, (m, 1)).astype(np.float64)  # noqa: E731
        return Example(lambda seed: cls(k, seed=seed), rows=rows, worth=lambda X: float(X.sum()))

    words = {"paper": "a planted violator", "cost": "", "exact": "", "events": ("insert", "delete"), "draws": draws}
    return stepper("select", **{**words, **options})(cls)


class Lowest(Highest):
    """Keeps the lowest."""

    def _picked(self) -> Any:
        return np.argsort(self._numbers, kind="stable")[: self.k].astype(np.int64)


class Ghosts(Highest):
    """Goes on offering what was deleted."""

    def delete(self, ids: Any) -> None:
        held_keys(ids, self._ids)


class Boaster(Highest):
    """States more than the picks are worth."""

    def _plan(self) -> Selection:
        plan = super()._plan()
        return Selection(n=plan.n, indices=plan.indices, gains=plan.gains, value=plan.value + 1, ids=plan.ids)


class Lowballer(Highest):
    """Its bound lies below the optimum."""

    def _plan(self) -> Selection:
        plan = super()._plan()
        low = plan.value - 1
        return Selection(n=plan.n, indices=plan.indices, gains=plan.gains, value=plan.value, bound=low, ids=plan.ids)


class Silent(Highest):
    """States no value and does not say so."""

    def _plan(self) -> Selection:
        plan = super()._plan()
        return Selection(n=plan.n, indices=plan.indices, gains=plan.gains, ids=plan.ids)


class Forgetful(Highest):
    """Leaves a counter out of its state."""

    state: ClassVar = {"ids": "items", "numbers": "items"}

    def _plan(self) -> Selection:
        self.oracle_calls = self.inserted
        return super()._plan()


class Shared(Highest):
    """Hands out its own arrays."""

    def _get_state(self) -> dict[str, Any]:
        return {"ids": self._ids, "numbers": self._numbers, "inserted": self.inserted}


class Trusting(Highest):
    """Takes the state of any settings."""

    def _compare_settings(self, theirs: Any) -> None:
        pass


class Shapeless(Highest):
    """Takes arrays of any shape."""

    def _check_shapes(self, state: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        pass


class Rash(Highest):
    """Overwrites itself before it looks."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if isinstance(state, Mapping):
            self.inserted = state.get("inserted", -1)
        super().load_state_dict(state)


class Sloppy(Highest):
    """Takes what it has already."""

    def insert(self, ids: Any, X: Any) -> None:
        fresh = [i for i, key in enumerate(ids) if key not in self._ids]
        super().insert([ids[i] for i in fresh], np.asarray(X)[fresh])


class Mumbler(Highest):
    """Refuses without saying what."""

    def insert(self, ids: Any, X: Any) -> None:
        try:
            super().insert(ids, X)
        except InputError:
            raise InputError("that is wrong") from None


class Careless(Highest):
    """Counts before it looks."""

    def insert(self, ids: Any, X: Any) -> None:
        self.inserted += 1
        super().insert(ids, X)


class Rude(Highest):
    """Lets NumPy speak."""

    def insert(self, ids: Any, X: Any) -> None:
        self._numbers + np.asarray(X, np.float64).sum()
        super().insert(ids, X)


class Credulous(Highest):
    """Takes NaN for a number."""

    def insert(self, ids: Any, X: Any) -> None:
        super().insert(ids, np.nan_to_num(checks.as_float(checks.as_array(X, "X"), "X")))


class Bare(Highest):
    """Gives its plan past the base."""

    @property
    def plan(self) -> Selection:
        return self._plan()


class Moody(Highest):
    """Answers otherwise every time."""

    def _picked(self) -> Any:
        return np.roll(np.arange(len(self._ids)), next(COUNTER))[: self.k]


class Telltale(Highest):
    """Declares a secret and tells it."""

    secret = ("password",)

    @property
    def plan(self) -> Selection:
        plan = super().plan
        plan.options["password"] = self.settings["password"]
        return plan


class Boundless(Highest):
    """Promises without a way to judge it."""


def unjudged(rng: np.random.Generator) -> Example:
    return Example(lambda seed: Boundless(2, seed=seed), rows=lambda rng, m: rng.random((m, 1)))


def unjudged_optimum(rng: np.random.Generator) -> Example:
    return Example(lambda _seed: Braggart(), rows=lambda rng, m: rng.random((m, 1)))


VIOLATORS = {
    "promise": (Lowest, Ghosts, Boaster, Lowballer, Silent),
    "resume": (Forgetful, Shared),
    "wrong-state": (Trusting, Shapeless, Rash),
    "refusals": (Sloppy, Mumbler, Careless),
    "hostile": (Rude, Credulous, Careless),
    "complete": (Bare, Moody, Telltale),
}


def caught(cls: type[Stepper[Any]], name: str) -> bool:
    for seed in range(12):
        try:
            LAWS[name](cls, seed)
        except LawBroken:
            return True
    return False


@pytest.mark.parametrize("name", LAWS)
def test_each_law_catches_its_violators_and_nothing_else(name: str) -> None:
    assert not caught(registered(Highest), name)
    assert [cls.__name__ for cls in VIOLATORS[name] if not caught(registered(cls), name)] == []


def test_a_promise_that_cannot_be_judged_is_no_promise() -> None:
    assert caught(registered(Boundless, draws=unjudged), "promise")


def test_an_optimum_that_cannot_be_judged_is_none() -> None:
    assert caught(registered(Braggart, draws=unjudged_optimum, events=("insert",)), "promise")


def test_an_exact_stepper_that_asks_is_judged_by_the_optimum_of_its_events() -> None:
    class Best(Stepper[Selection]):
        """Keep the best answer so far."""

        promise = Share(1.0)
        state: ClassVar = {"values": "answers", "open": ""}

        def __init__(self, worst: bool = False) -> None:
            super().__init__(worst=worst)
            self.worst, self._values, self._open = worst, np.empty(0), False

        def ask(self) -> int:
            self._open = True
            return len(self._values)

        def tell(self, value: Any) -> None:
            if not self._open:
                raise InputError("tell: nothing was asked")
            self._values = np.append(self._values, float(checks.number(value, "value")))
            self._open = False

        def _plan(self) -> Selection:
            if not len(self._values):
                raise InputError("plan: nothing was told yet")
            pick = int(self._values.argmin() if self.worst else self._values.argmax())
            value = float(self._values[pick])
            return Selection(
                n=len(self._values), indices=np.array([pick]), gains=np.array([value]), value=value, used={"k": 1}
            )

    def draws(worst: bool) -> Callable[[np.random.Generator], Example]:
        def event(best: Best, rng: np.random.Generator) -> Event:
            return Event("tell", (int(rng.integers(9)),)) if best._open else Event("ask")

        def optimum(events: Any) -> float:
            return float(max((event.arguments[0] for event in events if event.name == "tell"), default=0))

        return lambda rng: Example(
            lambda seed: Best(worst),
            event=event,
            optimum=optimum,
            refused=((Event("tell", (1,)), "nothing was asked"),),
        )

    registered(Best, events=("ask", "tell"), draws=draws(False))
    assert all(LAWS[name](Best, seed) for name in LAWS for seed in range(3))
    assert caught(registered(Best, events=("ask", "tell"), draws=draws(True)), "promise")


def test_the_base_audits_every_plan() -> None:
    class Greedy(Highest):
        def _picked(self) -> Any:
            return np.arange(len(self._ids))

    pool = registered(Greedy)(2)
    pool.insert([1, 2, 3], [[1.0], [2.0], [3.0]])
    with pytest.raises(BrokenPlanError, match="3 picks, k=2"):
        _ = pool.plan

    class Spender(Highest):
        def _plan(self) -> Selection:
            return Selection(
                n=0, indices=np.empty(0, np.int64), gains=np.empty(0), used={"labels": 3}, budget={"labels": 2}
            )

    with pytest.raises(BrokenPlanError, match="labels: used 3 over the budget 2"):
        _ = registered(Spender)(2).plan


def test_what_is_declared_wrongly_is_refused_when_it_is_registered() -> None:
    with pytest.raises(TypeError, match="select, assign"):
        stepper("choose", paper="none at all", cost="", exact="", events=("insert",))(Highest)
    with pytest.raises(TypeError, match="has none of insert, delete, ask, tell, step"):
        registered(Highest, events=("begin",))
    with pytest.raises(TypeError, match="has no method 'tell'"):
        registered(Highest, events=("ask", "tell") if hasattr(Highest, "ask") else ("insert", "tell"))

    class Plain(Stepper[Selection]):
        def _plan(self) -> Selection:
            raise NotImplementedError

    with pytest.raises(TypeError, match="Plain is not registered; put @stepper"):
        Plain()


class Idle(DynamicSelection):
    """Never looks at a newcomer once it has k picks, and never redraws."""

    def _choose(self, live: Any) -> None:
        whole = [slot for slot in self._picks if self._alive[slot]]
        spare = [slot for slot in live.tolist() if slot not in whole]
        self._picks = (whole + spare)[: self.k]
        self._gains = self._sequence(self._picks)

    def _rebuild(self, guess: Any) -> None:
        guess.picks, guess.marginals = [], []


class Modest(DynamicSelection):
    """Its bound is what it reached."""

    def _refresh(self) -> None:
        super()._refresh()
        self._bound = sum(self._gains)


@pytest.mark.parametrize("kind", [Idle, Modest])
def test_a_broken_part_of_a_real_stepper_is_caught(kind: type[DynamicSelection]) -> None:
    pool = next(pool for pool in _examples.pools() if pool.worth is _examples.covered)

    def draws(rng: np.random.Generator) -> Example:
        k = int(rng.integers(1, 5))
        made = lambda seed: kind(k, seed=seed, greedy_fill=False, **pool.arguments)  # noqa: E731
        return Example(made, rows=pool.rows, worth=pool.worth)

    wrong = registered(kind, draws=draws)
    assert any(_breaks(wrong, seed) for seed in range(60))


def _breaks(cls: type[Stepper[Any]], seed: int) -> bool:
    try:
        LAWS["promise"](cls, seed)
    except LawBroken:
        return True
    return False
