"""The laws of steppers: after any events the plan is what a fresh look at the pool allows, and a saved state goes on.

`STEPPERS` holds what the laws need to know of each stepper; the others register theirs in their own tests.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.plans import Selection
from kofn.laws.case import LawBroken
from kofn.selection.streams._dynamic_selection import DynamicSelection
from kofn.selection.streams._sieve_streaming import SieveStreaming

MOST_ITEMS = 10
_REFERENCE = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0], [2.0, 2.0], [-1.0, 1.0], [4.0, 1.0]])
_WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.0, 1.5])


@dataclass(frozen=True)
class Stepper:
    """One stepper for the laws.

    `make(k, seed)` is a fresh one; `rows(rng, m)` draws items with ties among them; `worth(X)` is the value of a set of
    rows written out plainly; `deletes` says whether items can be taken out again.
    """

    name: str
    make: Callable[[int, int], Any]
    rows: Callable[[np.random.Generator, int], Array]
    worth: Callable[[Array], float]
    deletes: bool = True


@dataclass(frozen=True)
class Event:
    """One event: rows that come under these ids, or ids that go (no rows)."""

    ids: list[Any]
    X: Array | None


def broken(stepper: Stepper, law: str, what: str) -> LawBroken:
    """The error that a law raises."""
    return LawBroken(f"stepper {stepper.name} breaks {law!r}: {what}")


class Pool:
    """What is live, kept beside the stepper, and the events that lead there."""

    def __init__(self, stepper: Stepper, seed: int, most: int = MOST_ITEMS) -> None:
        self._stepper, self._most = stepper, most
        self._rng = np.random.default_rng(seed)
        self._next = 0
        self.live: dict[Any, Array] = {}

    def event(self, plan: Selection) -> Event:
        """The next event: one to three items come or go; half of those that go were picked."""
        size = int(self._rng.integers(1, 4))
        room = self._most - len(self.live)
        if self._stepper.deletes and (room < size or (self.live and self._rng.random() < 0.45)):
            picked = plan.keys(plan.indices).tolist()
            source = picked if picked and self._rng.random() < 0.5 else list(self.live)
            ids = [source[i] for i in self._rng.permutation(len(source))[:size]]
            for key in ids:
                del self.live[key]
            return Event(ids, None)
        ids = [f"item {self._next + i}" for i in range(size)]
        self._next += size
        X = self._stepper.rows(self._rng, size)
        self.live.update(zip(ids, X, strict=True))
        return Event(ids, X)

    def full(self) -> bool:
        """Whether a stepper that never forgets has seen as much as can be looked at."""
        return not self._stepper.deletes and len(self.live) > self._most - 3


def feed(made: Any, event: Event) -> None:
    """Give a stepper its event."""
    if event.X is None:
        made.delete(event.ids)
    else:
        made.insert(event.ids, event.X)


def refresh(stepper: Stepper, k: int, seed: int, events: int = 20) -> int:
    """After every event: a valid plan, its value recounted, its promise and its bound against a fresh optimum.

    Returns:
        How many plans were not forced, for having more live items than k.
    """
    made, pool = stepper.make(k, seed), Pool(stepper, seed)
    choices = 0
    plan = made.plan
    for step in range(events):
        if pool.full():
            break
        feed(made, pool.event(plan))
        plan = made.plan
        _hold(stepper, plan, pool.live, k, f"after event {step} of seed {seed}, k={k}")
        choices += len(pool.live) > k
    return choices


def _hold(stepper: Stepper, plan: Selection, live: dict[Any, Array], k: int, where: str) -> None:
    keys = plan.keys(plan.indices).tolist()
    if plan.n != len(live) or (plan.n and set(plan.ids.tolist() if plan.ids is not None else ()) != set(live)):
        raise broken(stepper, "refresh", f"{where} the plan knows {plan.n} items, {len(live)} are live")
    if len(set(keys)) < len(keys) or not set(keys) <= set(live):
        raise broken(stepper, "refresh", f"{where} the picks are {keys}")
    if len(keys) != min(k, len(live)) or plan.short != k - len(keys):
        raise broken(stepper, "refresh", f"{where} there are {len(keys)} picks, short={plan.short}")
    worth = stepper.worth(np.array([live[key] for key in keys])) if keys else 0.0
    if not math.isclose(worth, plan.value, rel_tol=1e-9, abs_tol=1e-9):
        raise broken(stepper, "refresh", f"{where} value is {plan.value!r}, the picks are worth {worth!r}")
    sets = itertools.combinations(live.values(), min(k, len(live)))
    best = max(stepper.worth(np.array(rows)) for rows in sets) if live else 0.0
    least = (1.0 if plan.status == "optimal" else plan.guarantee) * best
    if plan.value < least - 1e-9 * (1 + best):
        raise broken(stepper, "refresh", f"{where} value is {plan.value!r}, the promise is {least!r} of {best!r}")
    if plan.bound is not None and plan.bound < best - 1e-9 * (1 + best):
        raise broken(stepper, "refresh", f"{where} bound is {plan.bound!r}, the optimum {best!r}")


def resume(stepper: Stepper, k: int, seed: int, events: int = 16) -> None:
    """A state that was saved half-way and loaded elsewhere goes on bit for bit, calls and all."""
    made, pool = stepper.make(k, seed), Pool(stepper, seed, 4 * MOST_ITEMS)
    other = None
    for step in range(events):
        if pool.full():
            break
        # Asking for a plan is part of what happened, so it comes before the state is saved.
        event = pool.event(made.plan)
        if step == events // 2:
            other = stepper.make(k, seed + 1)
            other.load_state_dict(pickle.loads(pickle.dumps(made.state_dict())))
        feed(made, event)
        if other is not None:
            feed(other, event)
            same = made.plan.value == other.plan.value and (made.plan.indices == other.plan.indices).all()
            if not same or made.plan.bound != other.plan.bound or made.oracle_calls != other.oracle_calls:
                raise broken(stepper, "resume", f"event {step} of seed {seed}: {made.plan!r} became {other.plan!r}")


def refuse(stepper: Stepper, k: int, seed: int) -> None:
    """An id that is there cannot come, one that is not there cannot go: both are named, and nothing changes."""
    made, rng = stepper.make(k, seed), np.random.default_rng(seed)
    made.insert(["first", "second"], stepper.rows(rng, 2))
    before = pickle.dumps(made.state_dict())
    attempts: list[tuple[str, Callable[[], None]]] = [
        ("'second'", lambda: made.insert(["third", "second"], stepper.rows(rng, 2))),
        ("'third'", lambda: made.insert(["third", "third"], stepper.rows(rng, 2))),
    ]
    if stepper.deletes:
        attempts += [
            ("'fourth'", lambda: made.delete(["first", "fourth"])),
            ("'first'", lambda: made.delete(["first", "first"])),
        ]
    for named, attempt in attempts:
        try:
            attempt()
        except InputError as error:
            if named not in str(error):
                raise broken(stepper, "refuse", f"the message does not name {named}: {error}") from None
        else:
            raise broken(stepper, "refuse", f"{named} was taken")
        if pickle.dumps(made.state_dict()) != before:
            raise broken(stepper, "refuse", f"refusing {named} changed the state")


def _points(rng: np.random.Generator, m: int) -> Array:
    return rng.integers(-2, 5, (m, 2)).astype(np.float64)


def _sets(rng: np.random.Generator, m: int) -> Array:
    return (rng.random((m, 8)) < rng.choice([0.1, 0.3, 0.6])).astype(np.float64)


def _saved(metric: str) -> Callable[[Array], float]:
    def worth(X: Array) -> float:
        total = 0.0
        for target in _REFERENCE:
            if metric == "cosine":
                sizes = np.linalg.norm(X, axis=1) * np.linalg.norm(target)
                total += float(((1 + X @ target / np.where(sizes > 0, sizes, 1)) / 2).max())
            else:
                start = float(np.linalg.norm(_REFERENCE.mean(axis=0) - target))
                total += max(0.0, start - float(np.linalg.norm(X - target, axis=1).min()))
        return total

    return worth


def _covered(X: Array) -> float:
    return float(_WEIGHTS[(X != 0).any(axis=0)].sum())


def _spread(X: Array) -> float:
    """A function of one's own: how many different rows, with falling worth."""
    return math.sqrt(len(np.unique(X, axis=0))) if len(X) else 0.0


def _dynamic(**options: Any) -> Callable[[int, int], Any]:
    return lambda k, seed: DynamicSelection(k, seed=seed, **options)


def _sieve(**options: Any) -> Callable[[int, int], Any]:
    return lambda k, _seed: SieveStreaming(k, **options)


_LOCATION = {"reference": _REFERENCE}
_COVER = {"objective": "coverage", "weights": _WEIGHTS}
STEPPERS: dict[str, Stepper] = {
    one.name: one
    for one in (
        Stepper("dynamic location", _dynamic(**_LOCATION), _points, _saved("euclidean")),
        Stepper("dynamic cosine", _dynamic(**_LOCATION, metric="cosine", eps=0.3), _points, _saved("cosine")),
        Stepper("dynamic coverage", _dynamic(**_COVER), _sets, _covered),
        Stepper("dynamic sets alone", _dynamic(**_COVER, greedy_fill=False), _sets, _covered),
        Stepper("dynamic points alone", _dynamic(**_LOCATION, greedy_fill=False), _points, _saved("euclidean")),
        Stepper("dynamic own", _dynamic(objective=_spread, eps=0.2), _points, _spread),
        Stepper("sieve++ location", _sieve(**_LOCATION), _points, _saved("euclidean"), deletes=False),
        Stepper("sieve++ alone", _sieve(**_COVER, greedy_fill=False), _sets, _covered, deletes=False),
        Stepper("sieve coverage", _sieve(**_COVER, variant="sieve"), _sets, _covered, deletes=False),
        Stepper(
            "sieve alone",
            _sieve(**_LOCATION, variant="sieve", greedy_fill=False),
            _points,
            _saved("euclidean"),
            deletes=False,
        ),
    )
}
