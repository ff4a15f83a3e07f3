"""How a small class becomes a stepper: it takes events, and after each of them a complete plan is at hand.

A stepper is for what arrives over time: streams, pools that change, bandits, rounds. `@stepper` registers the class
and watches its events; `Stepper` completes and audits the plan, and saves and checks the state. What the laws hold it
to follows from its promise.

Examples:
    >>> import numpy as np
    >>> from kofn.core.plans import Selection
    >>> @stepper("select", paper="written for this page", cost="O(1) an item", exact="the last k", events=("insert",))
    ... class Latest(Stepper[Selection]):
    ...     '''Keep the k items that came last.'''
    ...
    ...     state: ClassVar = {"seen": ""}
    ...     states_no_value = True
    ...
    ...     def __init__(self, k):
    ...         super().__init__(k=k)
    ...         self.k, self.seen = k, 0
    ...
    ...     def insert(self, ids, X):
    ...         self.seen += len(ids)
    ...
    ...     def _plan(self):
    ...         picks = np.arange(max(0, self.seen - self.k), self.seen)
    ...         return Selection(n=self.seen, indices=picks, gains=np.full(len(picks), np.nan))
    >>> latest = Latest(2)
    >>> latest.insert(["a", "b", "c"], [[0.0], [1.0], [2.0]])
    >>> latest.plan.indices.tolist(), latest.plan.method, latest.state_dict()["seen"]
    ([1, 2], 'Latest', 3)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from kofn._version import __version__
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.bibliography import cite, keys_of
from kofn.core.checks import InputError, KofnError, shown
from kofn.core.digests import digest
from kofn.core.plans import Plan, Selection
from kofn.core.problems import Problem
from kofn.core.registry import REQUIRED, VERBS, Entry, Paper
from kofn.core.signatures import annotation_text, bind, described
from kofn.core.stepper_values import DIGEST, as_text, check_kind, content, listed_once, refuse_objects, saved, setting

P = TypeVar("P", bound=Plan)
C = TypeVar("C", bound="type[Stepper[Any]]")

# The kinds of events: items that come and go, a question and its answer, a round.
KINDS = (("insert", "delete"), ("ask", "tell"), ("step",))
# Settings that the audit holds a plan to.
_AUDITED = ("k", "per_item", "capacity")


@dataclass(frozen=True)
class Share:
    """After every event the plan is worth at least this share of a fresh optimum (a cost: at most optimum / share)."""

    share: float

    def keeps(self, value: float, optimum: float, sense: str = "max") -> bool:
        """Whether a value keeps the promise, rounding aside."""
        slack = 1e-9 * (1 + abs(optimum))
        if sense == "min":
            return self.share * value <= optimum + slack
        return value >= self.share * optimum - slack


@dataclass(frozen=True)
class Exact(Share):
    """After every event the plan is a fresh optimum."""

    share: float = 1.0


@dataclass(frozen=True)
class Heuristic(Share):
    """Nothing is promised of a plan but that it is valid."""

    share: float = 0.0


@dataclass(frozen=True)
class Event:
    """One event as data: the name of a method and its arguments."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def feed(self, stepper: Any) -> Any:
        """Give it to a stepper; returns the answer."""
        return getattr(stepper, self.name)(*self.arguments, **self.options)


@dataclass(frozen=True)
class Example:
    """How the laws draw one stepper and its events; `@stepper(draws=...)` is given the function that makes it.

    Args:
        make: a fresh stepper with this seed; the settings are the same at every call.
        rows: draws m rows, with ties among them, for a stepper whose events are "insert" and "delete".
        event: draws the next event of any other stepper, given the stepper as it stands.
        events: at most as many events are drawn.
        refused: events that a fresh stepper must refuse, each with a text that the message must contain.
        worth: the value of a set of rows, written out plainly; without it a plan's value is not recounted.
        optimum: the fresh optimum after these events, where it is not that of k rows under `worth`.
    """

    make: Callable[[int], Stepper[Any]]
    rows: Callable[[np.random.Generator, int], Array] | None = None
    event: Callable[[Any, np.random.Generator], Event] | None = None
    events: int = 20
    refused: Sequence[tuple[Event, str]] = ()
    worth: Callable[[Array], float] | None = None
    optimum: Callable[[Sequence[Event]], float] | None = None


Draws = Callable[[np.random.Generator], Example]


@dataclass(frozen=True, kw_only=True)
class StepperSpec:
    """What `@stepper` knows of a class; `entry()` turns it into a row of the index."""

    cls: type[Stepper[Any]] = field(repr=False)
    verb: str
    paper: Paper
    cost: str
    exact: str
    events: tuple[str, ...]
    traits: frozenset[str] = frozenset()
    extra: str | None = None
    aliases: tuple[str, ...] = ()
    draws: Draws | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The stepper's name is its class's."""
        return self.cls.__name__

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n", 1)[0]

    @property
    def promise(self) -> Share | None:
        """What is promised whatever the settings are; None where `exact` alone says it."""
        return self.cls.promise if "promise" in vars(self.cls) else None

    def entry(self) -> Entry:
        """The row of the index; the options are the arguments of the constructor."""
        parameters = list(inspect.signature(self.cls.__init__).parameters.values())[1:]
        sentences = described(inspect.getdoc(self.cls) or "")
        return Entry(
            name=self.name,
            verb=self.verb,
            path=f"{self.cls.__module__}:{self.name}",
            summary=self.summary,
            form="stepper",
            options={p.name: REQUIRED if p.default is p.empty else repr(p.default) for p in parameters},
            types={p.name: annotation_text(p) for p in parameters},
            docs={p.name: sentences[p.name] for p in parameters if p.name in sentences},
            traits=tuple(sorted(self.traits)),
            cost=self.cost,
            exact=self.exact,
            paper="; ".join(cite(key) for key in keys_of(self.paper)),
            papers=tuple(map(str, keys_of(self.paper))),
            extra=self.extra,
            aliases=self.aliases,
        )


class Stepper(ABC, Generic[P]):
    """The base of every stepper.

    A subclass calls `super().__init__(k=..., eps=...)` with its checked settings, which are arguments of its own
    constructor, defines the methods that are its events, and `_plan()`. It must carry `@stepper`.

    Attributes:
        settings: what the stepper was made with; arrays and objects of the user's are named by digest or type.
        seed: the setting of that name, 0 where there is none.
        promise: what holds of `plan` after every event; the constructor sets it where it depends on a setting.
        oracle_calls: evaluations of the objective so far, where the subclass counts them.
        plan: the answer now.

    Class attributes:
        state: what changes, as attribute name (an underscore before it is left out) -> shape. A shape is a text of
            dimensions, "" for what has none: a number; the name of a whole-number attribute or of an entry of the
            state; any other name, which stands for one length throughout. A shape that ends in "?" may be None.
        schema: counted up when the state's meaning changes.
        secret: settings that no plan may tell.
        states_no_value: True where the plan's value may be NaN by design.
    """

    __kofn_stepper__: ClassVar[StepperSpec]
    schema: ClassVar[int] = 1
    state: ClassVar[Mapping[str, str]] = {}
    secret: ClassVar[tuple[str, ...]] = ()
    states_no_value: ClassVar[bool] = False
    promise: Share = Heuristic()

    def __init__(self, **settings: Any) -> None:
        if not hasattr(type(self), "__kofn_stepper__"):
            raise TypeError(f"{type(self).__name__} is not registered; put @stepper(...) above the class")
        self.settings: dict[str, Any] = {name: setting(value) for name, value in settings.items()}
        self.seed: int = settings.get("seed", 0)
        self.oracle_calls = 0
        public = {name: value for name, value in self.settings.items() if name not in self.secret}
        self._digest = digest(
            {"stepper": as_text(type(self).__name__), "settings": as_text(repr(sorted(public.items())))}
        )
        self._seconds = 0.0
        self._loaded = False
        self._current: P | None = None

    @abstractmethod
    def _plan(self) -> P:
        """The answer now, with what only the stepper knows; the base adds the rest."""

    @property
    def plan(self) -> P:
        """The answer now, complete and audited.

        Raises:
            InputError: there is nothing to answer yet.
        """
        if self._current is None:
            began = time.perf_counter()
            with self._held_to_its_state():
                self._current = self._completed(self._plan(), began)
        return self._current

    @contextmanager
    def _held_to_its_state(self) -> Iterator[None]:
        """Name the state that was loaded where it is what fails: its shapes are checked, all it means cannot be."""
        try:
            yield
        except KofnError:
            raise
        except Exception as error:
            if not self._loaded or checks.in_callers_code(error):
                raise
            raise InputError(
                f"the state that was loaded is damaged ({shown(error)}); give what state_dict() returned"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on bit for bit takes: arrays, numbers, texts, and lists and dictionaries of them.

        Load it into a stepper that was made alike: settings are compared, and arrays among them are not in it.
        """
        return {
            "schema": self.schema,
            "class": type(self).__name__,
            "settings": dict(self.settings),
            "problem": self._digest,
            "oracle_calls": self.oracle_calls,
            **self._get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken; the seed is taken over, all other settings must agree.

        Raises:
            InputError: a state of another schema, class or settings, one that lacks something, or arrays of other
                shapes. The stepper is then as it was.
        """
        if not isinstance(state, Mapping):
            raise InputError(f"state is {type(state).__name__}; give what state_dict() returned")
        before = self.state_dict()
        for name in before:
            if name not in state:
                raise InputError(f"state lacks {name!r}; give what state_dict() returned")
        for name in state:
            if name not in before:
                raise InputError(
                    f"state has {name!r}, which a {type(self).__name__} has not; give what state_dict() gave"
                )
        for name, value in state.items():
            with checks.reading(f"state[{name!r}]", value, "what state_dict() returned"):
                refuse_objects(value, name)
        schema, kind = state["schema"], state["class"]
        if not isinstance(schema, int) or schema != self.schema:
            raise InputError(f"state has schema {shown(schema)}, this kofn reads {self.schema}; make it again")
        if not isinstance(kind, str) or kind != type(self).__name__:
            raise InputError(f"state is of class {shown(kind)}, this is a {type(self).__name__}; load it into its own")
        if not isinstance(state["problem"], str):
            raise InputError(f"state['problem'] is {shown(state['problem'])}; give what state_dict() returned")
        self._compare_settings(state["settings"])
        self._check_shapes(state, before)
        own = {name: value for name, value in state.items() if name not in _FRAME}
        try:
            self._set_state(own)
            self.oracle_calls = checks.count(state["oracle_calls"], "state['oracle_calls']", least=0)
        except Exception as error:
            self._set_state({name: value for name, value in before.items() if name not in _FRAME})
            if isinstance(error, InputError):
                raise
            raise InputError(f"state cannot be read ({shown(error)}); give what state_dict() returned") from error
        self._loaded = True
        if "seed" in self.settings:
            self.seed = self.settings["seed"] = state["settings"]["seed"]
        self._digest, self._seconds, self._current = state["problem"], 0.0, None

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """A stepper with the settings of a state, loaded from it.

        Raises:
            InputError: a setting is an array, of which the state holds a digest only, or the state is damaged.
        """
        settings = state.get("settings") if isinstance(state, Mapping) else None
        if not isinstance(settings, Mapping):
            raise InputError("state lacks 'settings'; give what state_dict() returned")
        for name, value in settings.items():
            if str(value).startswith(DIGEST):
                raise InputError(
                    f"state does not hold {name}; make a {cls.__name__} with it, then load_state_dict(state)"
                )
        made = cls(**settings)
        made.load_state_dict(state)
        return made

    def _get_state(self) -> dict[str, Any]:
        """What `state` names. A subclass whose state is more than attributes overrides both this and `_set_state`."""
        return {name: saved(getattr(self, self._attribute(name))) for name in self.state}

    def _set_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `_get_state` gave."""
        for name in self.state:
            attribute, value = self._attribute(name), state[name]
            current = getattr(self, attribute)
            if isinstance(current, np.random.Generator):
                current.bit_generator.state = value
            else:
                setattr(self, attribute, saved(value))

    def _attribute(self, name: str) -> str:
        return f"_{name}" if f"_{name}" in vars(self) else name

    def _compare_settings(self, theirs: Any) -> None:
        if not isinstance(theirs, Mapping):
            raise InputError(f"state['settings'] is {type(theirs).__name__}; give what state_dict() returned")
        for name, value in self.settings.items():
            if name != "seed" and (name not in theirs or theirs[name] != value):
                difference = f"{name}={theirs.get(name)!r}, here it is {value!r}"
                if str(value).startswith(DIGEST):
                    difference = f"another {name}"
                raise InputError(f"state was made with {difference}; load it into a stepper that was made alike")
        if "seed" in self.settings and not isinstance(theirs.get("seed"), int):
            raise InputError(f"state was made with seed={theirs.get('seed')!r}; give what state_dict() returned")

    def _check_shapes(self, state: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        """Hold what `state` names against the declared shapes, and its kinds against those of the state now."""
        lengths: dict[str, tuple[int, str]] = {}
        for name, declared in self.state.items():
            value = state[name]
            if value is None and declared.endswith("?"):
                continue
            dimensions = declared.rstrip("?").split()
            if dimensions:
                self._check_array(name, value, dimensions, lengths, state)
            check_kind(name, value, before[name])

    def _check_array(
        self,
        name: str,
        value: Any,
        dimensions: list[str],
        lengths: dict[str, tuple[int, str]],
        state: Mapping[str, Any],
    ) -> None:
        if not isinstance(value, np.ndarray | list | tuple | dict):
            raise InputError(f"state[{name!r}] is {type(value).__name__}, not {len(dimensions)}-dimensional")
        shape = value.shape if isinstance(value, np.ndarray) else (len(value),)
        if len(shape) != len(dimensions):
            raise InputError(f"state[{name!r}] has shape {shape}; it must be ({', '.join(dimensions)})")
        for length, dimension in zip(shape, dimensions, strict=True):
            expected, source = self._length(dimension, lengths, state)
            if expected is None:
                lengths[dimension] = (length, f"the length of state[{name!r}]")
            elif length != expected:
                raise InputError(
                    f"state[{name!r}] has shape {shape}; it must be ({', '.join(dimensions)}), and {dimension} is "
                    f"{expected}{source and f', {source}'}"
                )

    def _length(
        self, dimension: str, lengths: Mapping[str, tuple[int, str]], state: Mapping[str, Any]
    ) -> tuple[int | None, str]:
        """What a dimension must be, and who says so; None where this is the first array that has it."""
        if dimension.isdigit():
            return int(dimension), ""
        if isinstance(state.get(dimension), int):
            return state[dimension], ""
        if isinstance(own := vars(self).get(dimension), int):
            return own, "as this stepper was made"
        return lengths.get(dimension, (None, ""))

    def _limits(self, plan: P) -> dict[str, Any]:
        """The words of the vocabulary that bind the plan now; the audit recounts them.

        By default the settings "k" (or as many items as there are), "per_item" and "capacity".
        """
        limits = {name: self.settings[name] for name in _AUDITED if self.settings.get(name) is not None}
        if "k" in limits:
            limits["k"] = min(limits["k"], plan.n)
        return limits

    def _completed(self, plan: P, began: float) -> P:
        added: dict[str, Any] = {}
        if plan.guarantee is None and self.promise.share > 0:
            added["guarantee"] = self.promise.share
        k = self.settings.get("k")
        if isinstance(plan, Selection) and k is not None:
            added |= {"short": k - len(plan.indices)}
            added |= {"used": {"k": len(plan.indices), **plan.used}, "budget": {"k": k, **plan.budget}}
        complete = dataclasses.replace(
            plan,
            method=type(self).__name__,
            options={
                name: "withheld" if name in self.secret else value
                for name, value in self.settings.items()
                if name != "seed"
            },
            seed=str(self.seed) if "seed" in self.settings and "seed" not in self.secret else None,
            problem=self._digest,
            traits=self.__kofn_stepper__.traits,
            info={"oracle_calls": self.oracle_calls, "exact": plan.status == "optimal", **plan.info},
            **added,
        )
        problem = Problem(self.__kofn_stepper__.verb, plan.n, self._limits(complete), plan.ids, self._digest)
        complete.verify(_Audit(problem))
        self._seconds += time.perf_counter() - began
        return dataclasses.replace(complete, info={**complete.info, "seconds": self._seconds, "version": __version__})

    def _record(self, event: str, arguments: Sequence[Any], options: Mapping[str, Any], began: float) -> None:
        """An event was taken: the problem is one event longer, and the plan is another."""
        asked = {str(i): value for i, value in enumerate(arguments)} | dict(options)
        contents = {name: content(value) for name, value in asked.items()}
        self._digest = digest({"before": as_text(self._digest), "event": as_text(event), **contents})
        self._seconds += time.perf_counter() - began
        self._current = None


# What the base keeps in a state beside the subclass's own.
_FRAME = ("schema", "class", "settings", "problem", "oracle_calls")


@dataclass(frozen=True)
class _Audit:
    """The audit of the plan's problem, and that nothing is used beyond its budget."""

    problem: Problem

    def audit(self, plan: Plan) -> list[str]:
        over = [
            f"{name}: used {plan.used[name]!r} over the budget {limit!r}"
            for name, limit in plan.budget.items()
            if checks.is_number(limit) and checks.is_number(plan.used.get(name)) and plan.used[name] > limit
        ]
        return self.problem.audit(plan) + over


def stepper(
    verb: str,
    *,
    paper: Paper,
    cost: str,
    exact: str,
    events: tuple[str, ...],
    traits: tuple[str, ...] = (),
    extra: str | None = None,
    aliases: tuple[str, ...] = (),
    draws: Draws | None = None,
) -> Callable[[C], C]:
    """Register a class as a stepper of `verb`.

    Args:
        verb: "select", "assign", "allocate" or "combine", after the kind of its plan.
        paper: the reference: its key in `papers.toml`, several keys, or a text.
        cost: time of an event and memory.
        exact: what is exact and what is promised, in half a line.
        events: the methods that change the stepper; "insert" and "delete", "ask" and "tell", or "step" among them.
        traits: the laws that every plan of it keeps, by name (`kofn.laws`).
        extra: the optional dependency group it needs.
        aliases: other names that people look for, read by `kofn find`.
        draws: `draws(rng)` makes an `Example`, by which the laws draw a stepper and its events.
    """

    def register(cls: C) -> C:
        if verb not in VERBS:
            raise TypeError(f"@stepper({verb!r}) above {cls.__name__}: one of {', '.join(VERBS)}")
        if not any(name in kind for kind in KINDS for name in events):
            raise TypeError(f"{cls.__name__}: events={events!r} has none of {', '.join(sum(KINDS, ()))}")
        for name in events:
            function = getattr(cls, name, None)
            if not callable(function):
                raise TypeError(f"{cls.__name__} has no method {name!r}, which events= names")
            if not getattr(function, "is_event", False):
                setattr(cls, name, _event(function))
        cls.__init__ = _read_settings(cls.__init__)  # type: ignore[method-assign]
        cls.__kofn_stepper__ = StepperSpec(
            cls=cls,
            verb=verb,
            paper=paper,
            cost=cost,
            exact=exact,
            events=events,
            traits=frozenset(traits),
            extra=extra,
            aliases=aliases,
            draws=draws,
        )
        return cls

    return register


def new_keys(ids: Any, known: Container[Hashable]) -> list[Hashable]:
    """The ids of items that come, checked.

    Raises:
        InputError: an id twice, or one that is known already; the first three are named.
    """
    keys: list[Hashable] = checks.ids(ids).tolist()
    if there := [key for key in keys if key in known]:
        raise InputError(f"ids names {_listed(there)}, which is there already; give each item once")
    return keys


def held_keys(ids: Any, held: Container[Hashable]) -> list[Hashable]:
    """The ids of items that go, checked.

    Raises:
        InputError: an id twice, or one that is not held; the first three are named.
    """
    keys: list[Hashable] = checks.ids(ids).tolist()
    if strange := [key for key in keys if key not in held]:
        raise InputError(f"ids names {_listed(strange)}, which is not there: never inserted, or deleted before")
    return keys


def _listed(keys: Sequence[Hashable]) -> str:
    shown = ", ".join(repr(key) for key in keys[:3])
    return shown + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _read_settings(init: Callable[..., None]) -> Callable[..., None]:
    """The constructor, its arguments read by their types as a method's options are."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def make(*arguments: Any, **options: Any) -> None:
        bound = bind(init.__qualname__.partition(".")[0], signature, arguments, options)
        for name, value in list(bound.arguments.items())[1:]:
            parameter = signature.parameters[name]
            if value is not parameter.default and name != "seed" and parameter.kind is not parameter.VAR_KEYWORD:
                bound.arguments[name] = checks.option(name, value, annotation_text(parameter))
        with checks.explained(init.__qualname__.partition(".")[0], dict(list(bound.arguments.items())[1:])):
            init(*bound.args, **bound.kwargs)

    return make


def _event(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(self: Stepper[Any], *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        # What can be read only once is read here, so that it can be digested as well.
        arguments = tuple(listed_once(value, function.__name__) for value in arguments)
        options = {name: listed_once(value, name) for name, value in options.items()}
        with self._held_to_its_state():
            answer = function(self, *arguments, **options)
        self._record(function.__name__, arguments, options, began)
        # A plan that an event gives is complete, as `plan` is.
        return self.plan if isinstance(answer, Plan) else answer

    run.is_event = True  # type: ignore[attr-defined]
    return run
