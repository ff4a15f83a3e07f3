"""The laws of steppers over drawn events: guarantees, resumable states, refusals, complete plans.

`LAWS[name](cls, seed)` draws a stepper and its events as the class declares (`@stepper(draws=...)`). It raises
`LawBroken`, or returns how much there was to check. No stepper is named here.

>>> from kofn.selection import SieveStreaming
>>> LAWS["promise"](SieveStreaming, 0) > 0
True
"""

from __future__ import annotations

import functools
import itertools
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from kofn._index import everything
from kofn.core.arrays import Array
from kofn.core.checks import InputError, KofnError
from kofn.core.plans import Plan, Selection
from kofn.core.stepper import KINDS, Event, Example, Stepper
from kofn.laws.case import LawBroken

Law = Callable[[type[Stepper[Any]], int], int]
LAWS: dict[str, Law] = {}
# Up to this many items all subsets are enumerated.
MOST_ITEMS = 10
_FRAME = ("schema", "class", "settings", "problem", "oracle_calls")


def registered() -> list[type[Stepper[Any]]]:
    """Every stepper of the index."""
    loaded: list[Any] = [entry.load() for entry in everything() if entry.form == "stepper"]
    return loaded


def law(name: str) -> Callable[[Law], Law]:
    """Register a law."""

    def add(check: Law) -> Law:
        LAWS[name] = check
        return check

    return add


def broken(cls: type[Stepper[Any]], name: str, seen: str) -> LawBroken:
    """The error that a law raises."""
    return LawBroken(f"{cls.__name__} breaks {name!r}: {seen}")


class Play:
    """A stepper driven by drawn events, with a record of the events and the live items."""

    def __init__(self, cls: type[Stepper[Any]], seed: int, most: int = MOST_ITEMS) -> None:
        draws = cls.__kofn_stepper__.draws
        if draws is None:
            raise LawBroken(f"{cls.__name__} declares no draws; say how to make one: @stepper(draws=...)")
        self.cls = cls
        self.rng = np.random.default_rng(seed)
        self.example: Example = draws(self.rng)
        self.seed = int(self.rng.integers(2**31))
        self.stepper: Stepper[Any] = self.example.make(self.seed)
        self.taken: list[Event] = []
        self.live: dict[Any, Array] = {}
        self._most = most

    def events(self) -> Iterator[Event]:
        """The remaining events; the caller must feed each one before the next is drawn."""
        for _ in range(self.example.events):
            event = self._pool_event() if self.example.rows else self._drawn_event()
            if event is None:
                return
            yield event

    def feed(self, event: Event) -> Any:
        """Apply an event to the stepper, record it and return the answer."""
        answer = event.feed(self.stepper)
        self.taken.append(event)
        if event.name == "insert" and self.example.rows:
            self.live.update(zip(*event.arguments, strict=True))
        elif event.name == "delete":
            for key in event.arguments[0]:
                del self.live[key]
        return answer

    def _drawn_event(self) -> Event:
        if self.example.event is None:
            raise LawBroken(f"{self.cls.__name__}: its draws give neither rows nor event")
        return self.example.event(self.stepper, self.rng)

    def _pool_event(self) -> Event | None:
        """One to three items come or go; half of those that go were picked."""
        assert self.example.rows is not None
        deletes = "delete" in self.cls.__kofn_stepper__.events
        size = int(self.rng.integers(1, 4))
        room = self._most - len(self.live)
        if deletes and (room < size or (self.live and self.rng.random() < 0.45)):
            plan = answer_of(self.stepper)
            picked = [] if plan is None else plan.keys(plan.indices).tolist()
            source = picked if picked and self.rng.random() < 0.5 else list(self.live)
            return Event("delete", ([source[i] for i in self.rng.permutation(len(source))[:size]],))
        if room < size:
            return None
        count = sum(len(event.arguments[0]) for event in self.taken if event.name == "insert")
        return Event("insert", ([f"item {count + i}" for i in range(size)], self.example.rows(self.rng, size)))


def answer_of(stepper: Stepper[Any]) -> Any:
    """The current plan, or None if the stepper has none yet."""
    try:
        return stepper.plan
    except InputError:
        return None


@law("promise")
def promise(cls: type[Stepper[Any]], seed: int) -> int:
    """After every event: live items only, the value recounted, promise and bound held against a fresh optimum."""
    play = Play(cls, seed)
    checked = 0
    for event in play.events():
        play.feed(event)
        plan = answer_of(play.stepper)
        if plan is not None:
            checked += _hold_promise(play, plan, f"after {len(play.taken)} events of seed {seed}")
    return checked


def _hold_promise(play: Play, plan: Plan, where: str) -> int:
    cls, example = play.cls, play.example
    value = plan.value
    if math.isnan(value) and not cls.states_no_value:
        raise broken(cls, "promise", f"{where} value is NaN, and states_no_value is not declared")
    if example.rows is not None and isinstance(plan, Selection):
        value = _recounted(play, plan, where)
    best = _optimum(play)
    if best is None:
        if play.stepper.promise.share > 0:
            raise broken(cls, "promise", f"it promises {play.stepper.promise}, and its draws give no worth or optimum")
        if plan.status == "optimal" or plan.bound is not None:
            raise broken(
                cls,
                "promise",
                f"{where} status is {plan.status!r} and bound {plan.bound!r}, and its draws give no worth or optimum",
            )
        return int(example.rows is not None)
    slack = 1e-9 * (1 + abs(best))
    share = 1.0 if plan.status == "optimal" else None
    if share and abs(value - best) > slack:
        raise broken(cls, "promise", f"{where} status is 'optimal', value {value!r} of {best!r}")
    if play.stepper.promise.share > 0 and not play.stepper.promise.keeps(value, best, plan.sense):
        raise broken(cls, "promise", f"{where} value is {value!r} of {best!r}, it promises {play.stepper.promise}")
    if plan.bound is not None and (plan.bound - best if plan.sense == "max" else best - plan.bound) < -slack:
        raise broken(cls, "promise", f"{where} bound is {plan.bound!r}, the optimum {best!r}")
    return 1


def _recounted(play: Play, plan: Selection, where: str) -> float:
    """The worth of the picks, after looking at which items they are."""
    cls, live = play.cls, play.live
    keys = plan.keys(plan.indices).tolist()
    if plan.ids is None or plan.n != len(live) or set(plan.ids.tolist()) != set(live):
        raise broken(cls, "promise", f"{where} the plan knows {plan.n} items, {len(live)} are live")
    if not set(keys) <= set(live):
        raise broken(cls, "promise", f"{where} the picks are {keys}")
    k = play.stepper.settings.get("k")
    if k is not None and plan.short != k - len(keys):
        raise broken(cls, "promise", f"{where} there are {len(keys)} picks of k={k}, short is {plan.short}")
    if play.example.worth is None:
        return plan.value
    worth = play.example.worth(np.array([live[key] for key in keys])) if keys else 0.0
    if not cls.states_no_value and not math.isclose(worth, plan.value, rel_tol=1e-9, abs_tol=1e-9):
        raise broken(cls, "promise", f"{where} value is {plan.value!r}, the picks are worth {worth!r}")
    return worth


def _optimum(play: Play) -> float | None:
    """The current optimum, as given by the draws or by exhaustive search."""
    if play.example.optimum is not None:
        return play.example.optimum(play.taken)
    if play.example.worth is None or play.example.rows is None:
        return None
    k = min(play.stepper.settings["k"], len(play.live))
    sets = itertools.combinations(play.live.values(), k)
    return max((play.example.worth(np.array(rows)) for rows in sets if rows), default=0.0)


@law("resume")
def resume(cls: type[Stepper[Any]], seed: int) -> int:
    """A state saved at any point and loaded elsewhere resumes bit for bit: answers, plans, calls and state."""
    play = Play(cls, seed, most=4 * MOST_ITEMS)
    moment = int(play.rng.integers(play.example.events))
    other: Stepper[Any] | None = None
    kept: Any = None
    checked = 0
    for event in play.events():
        if other is None and len(play.taken) >= min(moment, play.example.events // 2):
            # Asking for a plan is part of what happened, so it comes before the state is saved.
            answer_of(play.stepper)
            other = play.example.make(play.seed + 1)
            kept = play.stepper.state_dict()
            other.load_state_dict(pickle.loads(pickle.dumps(kept)))
            kept = (kept, pickle.loads(pickle.dumps(kept)))
            if (difference := first_difference(kept[1], other.state_dict())) is not None:
                raise broken(cls, "resume", f"{difference!r} of the state is another once it was loaded, seed {seed}")
        answer = play.feed(event)
        if other is not None:
            where = f"event {len(play.taken)} ({event.name}) of seed {seed}"
            if not same(event.feed(other), answer):
                raise broken(cls, "resume", f"{where} is answered otherwise")
            _compare(play, other, where)
            checked += 1
    if other is None:
        return 0
    if not same(*kept):
        raise broken(
            cls, "resume", "the state that was handed out has changed since: it shares arrays with the stepper"
        )
    if (difference := first_difference(play.stepper.state_dict(), other.state_dict())) is not None:
        raise broken(cls, "resume", f"after seed {seed} the states differ in {difference!r}")
    return checked


def _compare(play: Play, other: Stepper[Any], where: str) -> None:
    mine, theirs = answer_of(play.stepper), answer_of(other)
    if (mine is None) != (theirs is None) or (mine is not None and not mine.equals(theirs)):
        raise broken(play.cls, "resume", f"{where}: {mine!r} became {theirs!r}")
    if play.stepper.oracle_calls != other.oracle_calls:
        raise broken(
            play.cls, "resume", f"{where}: {play.stepper.oracle_calls} oracle calls became {other.oracle_calls}"
        )


@law("wrong-state")
def wrong_state(cls: type[Stepper[Any]], seed: int) -> int:
    """A state of another schema, class or settings, with a key missing or too many, or with another shape is refused.

    The stepper is then as it was.
    """
    play = Play(cls, seed)
    for event in itertools.islice(play.events(), 5):
        play.feed(event)
        answer_of(play.stepper)
    state = play.stepper.state_dict()
    other = play.example.make(play.seed)
    before = pickle.dumps(other.state_dict())
    checked = 0
    for change, wrong in _wrong_states(cls, state):
        try:
            other.load_state_dict(wrong)
        except InputError:
            pass
        except Exception as error:
            raise broken(cls, "wrong-state", f"{change} raises {error!r}, not an InputError") from error
        else:
            raise broken(cls, "wrong-state", f"{change} was taken")
        if not same(pickle.loads(before), other.state_dict()):
            raise broken(cls, "wrong-state", f"refusing {change} changed the stepper")
        checked += 1
    return checked


def _wrong_states(cls: type[Stepper[Any]], state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "a list", [state]
    yield "another schema", {**state, "schema": state["schema"] + 1}
    yield "another class", {**state, "class": "Another"}
    yield "an entry too many", {**state, "another": 1}
    for name in state:
        yield f"no {name!r}", {key: value for key, value in state.items() if key != name}
    for name in state["settings"]:
        if name != "seed":
            yield f"another {name!r}", {**state, "settings": {**state["settings"], name: "another"}}
    for name, shape in cls.state.items():
        value = state[name]
        if isinstance(value, np.ndarray) and shape.strip("?"):
            longer = np.concatenate([value, value[:1] if len(value) else np.zeros((1, *value.shape[1:]), value.dtype)])
            if len(value) and _is_fixed(cls, shape, state):
                yield f"a longer {name!r}", {**state, name: longer}
            yield f"{name!r} with one dimension more", {**state, name: value[None]}
            yield f"{name!r} as text", {**state, name: "text"}
        elif isinstance(value, int | float) and not shape:
            yield f"{name!r} as text", {**state, name: "text"}


def _is_fixed(cls: type[Stepper[Any]], shape: str, state: Mapping[str, Any]) -> bool:
    """Whether the first dimension is told by another entry: a setting, a number, or an array that shares it."""
    first = shape.strip("?").split()[0]
    if first in state["settings"] or first in state or first.isdigit():
        return True
    sharing = [
        name for name, other in cls.state.items() if first in other.strip("?").split() and state[name] is not None
    ]
    return len(sharing) > 1


@law("refusals")
def refusals(cls: type[Stepper[Any]], seed: int) -> int:
    """What must be refused is refused in words that name it, and nothing changes: what the draws say of a fresh
    stepper, an id that is there already, an id that is not there."""
    play = Play(cls, seed)
    checked = 0
    for event, named in play.example.refused:
        checked += _refused(cls, play.example.make(play.seed), event, named)
    if play.example.rows is None:
        return checked
    rows = play.example.rows(play.rng, 4)
    stepper = play.example.make(play.seed)
    Event("insert", (["first", "second"], rows[:2])).feed(stepper)
    attempts = [
        (Event("insert", (["third", "second"], rows[2:])), "second"),
        (Event("insert", (["third", "third"], rows[2:])), "third"),
        (Event("insert", (["third"], rows[2:])), "2"),
    ]
    if play.example.worth is not None:
        attempts.append((Event("insert", (["third", "fourth"], np.hstack([rows[2:], rows[2:]]))), "columns"))
    if "delete" in cls.__kofn_stepper__.events:
        attempts += [
            (Event("delete", (["first", "fourth"],)), "fourth"),
            (Event("delete", (["first", "first"],)), "first"),
        ]
    for event, named in attempts:
        checked += _refused(cls, stepper, event, named)
    return checked


def _refused(cls: type[Stepper[Any]], stepper: Stepper[Any], event: Event, named: str) -> int:
    before = pickle.dumps(stepper.state_dict())
    try:
        event.feed(stepper)
    except InputError as error:
        if named not in str(error):
            raise broken(cls, "refusals", f"refusing {event} does not name {named!r}: {error}") from None
    except Exception as error:
        raise broken(cls, "refusals", f"{event} raises {error!r}, not an InputError") from error
    else:
        raise broken(cls, "refusals", f"{event} was taken; it must be refused, naming {named!r}")
    if not same(pickle.loads(before), stepper.state_dict()):
        raise broken(cls, "refusals", f"refusing {event} changed the state")
    return 1


@law("hostile")
def hostile(cls: type[Stepper[Any]], seed: int) -> int:
    """An event with a damaged argument is accepted or refused with an InputError; accepting NaN, or changing the state
    on a refusal, always breaks the law."""
    play = Play(cls, seed)
    checked = 0
    for event in itertools.islice(play.events(), 6):
        state = pickle.dumps(play.stepper.state_dict())
        for damaged, must in _damaged(event):
            stepper = play.example.make(play.seed)
            stepper.load_state_dict(pickle.loads(state))
            before = pickle.dumps(stepper.state_dict())
            try:
                damaged.feed(stepper)
            except KofnError:
                if not same(pickle.loads(before), stepper.state_dict()):
                    raise broken(cls, "hostile", f"refusing {damaged} changed the state") from None
            except Exception as error:
                raise broken(cls, "hostile", f"{damaged} raises {error!r}, not an InputError") from error
            else:
                if must:
                    raise broken(cls, "hostile", f"{damaged} was taken")
            checked += 1
        play.feed(event)
    return checked


def _damaged(event: Event) -> Iterator[tuple[Event, bool]]:
    """The event with one argument replaced, and whether it must be refused."""
    for position, value in enumerate(event.arguments):
        for bad, must in _bad_values(value):
            arguments = (*event.arguments[:position], bad, *event.arguments[position + 1 :])
            yield Event(event.name, arguments, event.options), must
    for name, value in event.options.items():
        for bad, must in _bad_values(value):
            yield Event(event.name, event.arguments, {**event.options, name: bad}), must


def _bad_values(value: Any) -> Iterator[tuple[Any, bool]]:
    for bad in (None, "text", object(), -1, math.nan, [], {}, [None], [[1.0], [1.0, 2.0]]):
        yield bad, False
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
        spoiled = value.copy()
        spoiled.flat[-1] = math.nan
        yield spoiled, True
        yield value[None], False
        yield np.concatenate([value, value]), False
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield [{}], False
        yield [dict.fromkeys(value[0])], False
    if isinstance(value, Mapping) and value:
        yield dict.fromkeys(value), False


@law("complete")
def complete(cls: type[Stepper[Any]], seed: int) -> int:
    """Every plan says who made it with which settings and seed, of which problem, in what time; no secret is told.

    Its problem is another one after every event, and the same one where the same events came.
    """
    play = Play(cls, seed)
    twin = play.example.make(play.seed)
    problems = {""}
    checked = 0
    for event in play.events():
        play.feed(event)
        plan = answer_of(play.stepper)
        event.feed(twin)
        again = answer_of(twin)
        if plan is None:
            continue
        _hold_complete(play, plan)
        if not plan.equals(again):
            raise broken(cls, "complete", f"the same events and seed gave {plan!r} and {again!r}")
        if plan.problem in problems:
            raise broken(cls, "complete", f"{event.name} did not change the plan's problem {plan.problem!r}")
        problems.add(plan.problem)
        checked += 1
    return checked


def _hold_complete(play: Play, plan: Plan) -> None:
    cls, settings = play.cls, play.stepper.settings
    fields = {
        "method": (plan.method, cls.__name__),
        "traits": (plan.traits, cls.__kofn_stepper__.traits),
        "seed": (plan.seed, str(play.stepper.seed) if "seed" in settings and "seed" not in cls.secret else None),
        "options": (set(plan.options), set(settings) - {"seed"}),
        "secrets": ({plan.options[name] for name in cls.secret if name in plan.options} - {"withheld"}, set()),
        "version": (bool(plan.info.get("version")), True),
        "seconds": (plan.info.get("seconds", -1) >= 0, True),
        "oracle_calls": (plan.info.get("oracle_calls"), play.stepper.oracle_calls),
    }
    for name, (actual, expected) in fields.items():
        if actual != expected:
            raise broken(cls, "complete", f"{name} of the plan is {actual!r}, not {expected!r}")
    if not any(name in kind for kind in KINDS for name in cls.__kofn_stepper__.events):
        raise broken(cls, "complete", f"events={cls.__kofn_stepper__.events!r} are of no kind")


def applies(cls: type[Stepper[Any]], name: str) -> bool:
    """Whether a law applies to a stepper."""
    if name == "promise":
        return any(_has_promise(cls, seed) for seed in range(8))
    return True


@functools.cache
def _has_promise(cls: type[Stepper[Any]], seed: int) -> bool:
    play = Play(cls, seed)
    return play.example.rows is not None or play.example.optimum is not None or play.stepper.promise.share > 0


def same(a: Any, b: Any) -> bool:
    """Equal in value, kind and structure; NaN equals NaN."""
    if isinstance(a, Plan):
        return isinstance(b, Plan) and a.equals(b)
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        if not isinstance(b, np.ndarray) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return same(a.tolist(), b.tolist()) if a.dtype.kind == "O" else a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (a != a and b != b)
    return type(a) is type(b) and bool(a == b)


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """The first entry of two states that is not the same in both."""
    return next((name for name in {**a, **b} if name not in a or name not in b or not same(a[name], b[name])), None)
