"""Calls of everything public with a hostile value in one place, and what may become of them.

Drawn from valid calls, so that everything is reached: methods from what the laws draw, steppers from their own draws,
objectives from one small pool.
"""

from __future__ import annotations

import inspect
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from documented_calls import Documented, called, calls_of, documented
from hostile_values import VALUES
from hypothesis import HealthCheck, Phase, given, seed, settings

import kofn
from kofn._index import everything
from kofn.core.auto import AUTO
from kofn.core.checks import KofnError
from kofn.core.registry import Entry
from kofn.core.stepper import Event
from kofn.laws import generators
from kofn.laws.steppers import Play, registered
from kofn.objectives import base

# Seconds that a call of a few items may take.
SECONDS = 10
SOURCES = Path(kofn.__file__).parent
# Amounts of work that somebody may ask for, and then waits.
WORK = ("10^12", "2^63", "long range")
# What is called, and then fails or not as the caller's own code does.
_CALLED = ("class", "module", "function", "everything")


@dataclass(frozen=True)
class Try:
    """One call with a hostile value of this kind in one place."""

    subject: str
    place: str
    kind: str
    run: Callable[[], Any] = field(repr=False)


# How many times its processor time a call may wait, and how many times as much it gets to compile what it runs.
_WAITS, _AGAIN = 20, 3


class _TooLong(BaseException):
    """A call that does not come back."""


@contextmanager
def _limited(most: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLong

    # Processor time, so that what else the machine does is no fault; and far more of any time, for what only waits.
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, most), (signal.ITIMER_REAL, signal.SIGALRM, _WAITS * most))
    before = [signal.signal(number, stop) for _, number, _ in timers]
    for timer, _, seconds in timers:
        # Again and again: what is raised in a callback of the garbage collector is lost.
        signal.setitimer(timer, seconds, 1)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def fault(tried: Try) -> str | None:
    """What is wrong with what became of a call: None for an answer, and for a refusal in one line."""
    try:
        _come_back(tried)
    except KofnError as error:
        message = str(error)
        if "\n" in message or len(message) > 2100 or not message:
            return f"{tried}: the message has {len(message)} characters, {message.count(chr(10))} line ends"
    except _TooLong:
        return None if tried.kind in WORK else f"{tried}: takes more than {SECONDS} s"
    except Exception as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if SOURCES in Path(frame.filename).parents]
        if ours and "laws" in Path(ours[-1].filename).relative_to(SOURCES).parts:
            return None  # the caller's own callable, which a drawn call brings along
        where = f"{Path(ours[-1].filename).relative_to(SOURCES)}:{ours[-1].lineno}" if ours else "the test"
        return f"{tried}: {type(error).__name__} in {where}: {error}"[:500]
    return None


def _come_back(tried: Try) -> None:
    """Make a call; where it does not come back in time it may compile what it runs, and then it is called again.

    Raises:
        _TooLong: it does not come back in time, compiled or not.
    """
    try:
        _called(tried, SECONDS)
    except _TooLong:
        # Amounts of work may wait.
        if tried.kind in WORK:
            raise
        with suppress(Exception):
            _called(tried, _AGAIN * SECONDS)
        _called(tried, SECONDS)


def _called(tried: Try, most: float) -> None:
    with warnings.catch_warnings(), _limited(most):
        warnings.simplefilter("ignore")
        tried.run()


def _made(kind: str, valid: Any) -> Any:
    """The hostile value, and whether it could be made of the valid one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return VALUES[kind](valid), True
    except Exception:
        return None, False


def drawn_calls(entry: Entry, number: int, count: int = 12) -> list[Any]:
    """Valid calls of a method."""
    made: list[Any] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @seed(number)
    @given(call=generators.calls(entry))
    def keep(call: Any) -> None:
        made.append(call)

    keep()
    return made


def of_method(
    entry: Entry,
    rng: np.random.Generator,
    each: int,
    number: int,
    calls: int = 12,
    *,
    named: bool = True,
    places: Sequence[str] = (),
    kinds: Sequence[str] = tuple(VALUES),
) -> Iterator[Try]:
    """`each` hostile values of these kinds for every word and option of a method, or these, from as many drawn calls.

    Not `named`, the method is left to be chosen.
    """
    drawn = drawn_calls(entry, number, calls)
    verb = getattr(kofn, entry.verb)
    for place in places or (*entry.accepted, *entry.options, "ids"):
        callable_place = place in ("score", "record")
        for kind in rng.choice(list(kinds), min(each, len(kinds)), replace=False).tolist():
            call = drawn[rng.integers(len(drawn))]
            words = {**call.given, **call.options}
            value, could = _made(kind, words.get(place, 1))
            if could and not (callable_place and kind in _CALLED):
                words[place] = value
                method = {"method": entry.name} if named else {}
                yield Try(entry.name, place, kind, lambda words=words, method=method: verb(**words, **method))


def of_function(
    helper: Documented, rng: np.random.Generator, each: int, kinds: Sequence[str] = tuple(VALUES)
) -> Iterator[Try]:
    """`each` hostile values for every argument of a public function that is no method, from its example's calls."""
    calls = calls_of(helper)
    for place, parameter in inspect.signature(helper.function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD or not calls:
            continue
        callable_place = "Callable" in str(parameter.annotation)
        for kind in rng.choice(list(kinds), min(each, len(kinds)), replace=False).tolist():
            words = calls[rng.integers(len(calls))]
            value, could = _made(kind, words.get(place, 1))
            if could and not (callable_place and kind in _CALLED):
                odd = {**words, place: (value,) if parameter.kind is parameter.VAR_POSITIONAL else value}
                yield Try(helper.name, place, kind, lambda odd=odd: called(helper, odd))


def of_stepper(cls: Any, rng: np.random.Generator, each: int) -> Iterator[Try]:
    """`each` hostile values for every setting, every argument of an event and every entry of a state."""
    with mock.patch.object(cls, "__init__", autospec=True, side_effect=cls.__init__) as init:
        play = Play(cls, int(rng.integers(2**31)))
        bound = inspect.signature(cls).bind(*init.call_args.args[1:], **init.call_args.kwargs)
    kinds = list(VALUES)
    for place in inspect.signature(cls).parameters:
        for kind in rng.choice(kinds, min(each, len(kinds)), replace=False).tolist():
            value, could = _made(kind, bound.arguments.get(place, 1))
            if could and not (place == "objective" and kind in _CALLED):
                made = {**bound.arguments, place: value}
                yield Try(cls.__name__, place, kind, lambda made=made: cls(**made))
    taken = []
    for event in play.events():
        play.feed(event)
        taken.append(event)
        if len(taken) == 4:
            break
    event = taken[-1]
    before = _after(play, taken[:-1]).state_dict()
    for place in range(len(event.arguments)):
        for kind in rng.choice(kinds, min(each, len(kinds)), replace=False).tolist():
            value, could = _made(kind, event.arguments[place])
            if could:
                arguments = (*event.arguments[:place], value, *event.arguments[place + 1 :])
                odd = Event(event.name, arguments, event.options)
                yield Try(cls.__name__, f"{event.name} {place}", kind, lambda odd=odd: _feed(play, before, odd))
    state = play.stepper.state_dict()
    for place in state:
        for kind in rng.choice(kinds, min(each, len(kinds)), replace=False).tolist():
            value, could = _made(kind, state[place])
            if could:
                changed = {**state, place: value}
                yield Try(cls.__name__, f"state {place}", kind, lambda changed=changed: _load(play, changed))


def _after(play: Play, events: list[Event]) -> Any:
    fresh = play.example.make(play.seed)
    for event in events:
        event.feed(fresh)
    return fresh


def _feed(play: Play, state: Any, event: Event) -> None:
    fresh = play.example.make(play.seed)
    fresh.load_state_dict(state)
    event.feed(fresh)
    _ = fresh.plan


def _load(play: Play, state: Any) -> None:
    fresh = play.example.make(play.seed)
    fresh.load_state_dict(state)
    _ = fresh.plan


ROWS = np.random.default_rng(0).integers(0, 4, (6, 2)).astype(np.float64)


def of_objective(name: str, rng: np.random.Generator, each: int) -> Iterator[Try]:
    """`each` hostile values for every parameter of an objective, by its class and through `select`."""
    maker = base.load(base.OBJECTIVES[name].maker)
    source = base.OBJECTIVES[name].sources[0]
    inputs = {source: ROWS if source == "X" else ROWS[:, 0]}
    needed = {word: ROWS[:2] for word in ("queries", "private") if word in inspect.signature(maker).parameters}
    for place in inspect.signature(maker).parameters:
        for kind in rng.choice(list(VALUES), min(each, len(VALUES)), replace=False).tolist():
            value, could = _made(kind, {**inputs, **needed}.get(place, 1))
            if could:
                odd = {**inputs, **needed, place: value}
                yield Try(name, place, kind, lambda odd=odd: maker(**odd))
                through = {**odd, "objective": name, "k": 2, "method": "naive_greedy"}
                yield Try(f"select {name}", place, kind, lambda through=through: kofn.select(**through))


STEPPERS = registered()
FUNCTIONS = list(documented())
METHODS = [entry for entry in everything() if entry.callable_by_verb]
# What is chosen where no method is named.
CHOSEN = [entry for entry in METHODS if entry.name in {name for rows in AUTO.values() for name, _ in rows}]


def all_tries(number: int, each: int) -> Iterator[Try]:
    """Hostile calls of every method, stepper and objective."""
    rng = np.random.default_rng(number)
    for entry in METHODS:
        yield from of_method(entry, rng, each, number)
    for cls in STEPPERS:
        yield from of_stepper(cls, rng, each)
    for name in base.OBJECTIVES:
        yield from of_objective(name, rng, each)
    for helper in FUNCTIONS:
        yield from of_function(helper, rng, each)
    for entry in CHOSEN:
        yield from of_method(entry, rng, each, number, named=False)
