"""What a search asks of the set function that it maximises, and how a user's own object comes to answer it."""

from __future__ import annotations

import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import InputError
from kofn.core.signatures import annotation_text, bind
from kofn.core.vocabulary import VOCABULARY, argument

# What an object must be able to do to be an objective; everything else has a default.
METHODS = ("gains", "add", "value")


class Objective(ABC):
    """A set function over a pool of items, to be maximised one pick at a time.

    A subclass defines `gains`, `add` and `value` and declares what it promises. Whatever else a search reads has a
    default here. What never changes is overridden by a class attribute (`submodular = True`, or `calls = 0` to count
    from), what depends on the picks by a property.

    Attributes:
        name: what a plan calls the objective.
        sense: "max", or "min" for a value that is better when small.
        n: how many items the pool has, None where the objective does not know.
        poll: what `bind` was given last.
        submodular: whether returns diminish: no item ever gains more when more is picked.
        monotone: whether no item ever lowers the value.

    Examples:
        >>> class Squares(Objective):
        ...     submodular = monotone = True
        ...
        ...     def gains(self, candidates):
        ...         return np.asarray(candidates, np.float64) ** 2
        ...
        ...     def add(self, item):
        ...         return item**2.0
        ...
        ...     def value(self, indices):
        ...         return float((np.asarray(indices) ** 2.0).sum())
        >>> from kofn.selection import lazy_greedy
        >>> lazy_greedy([[0.0], [0.0], [0.0]], k=2, objective=Squares()).indices.tolist()
        [2, 1]
    """

    name: str = ""
    sense: str = "max"
    n: int | None = None
    poll: Callable[[], None] | None = None
    # Proven or not. As `Any`, both a class attribute and a property of a subclass are right to type checkers.
    submodular: Any = False
    monotone: Any = False

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Read what an objective of ours is made with as a method's words and options are read."""
        super().__init_subclass__(**arguments)
        if "__init__" in vars(cls) and cls.__module__.startswith("kofn.objectives."):
            cls.__init__ = _read_arguments(cls.__init__)  # type: ignore[method-assign]

    @abstractmethod
    def gains(self, candidates: Ints) -> Floats:
        """Marginal gain of each candidate given the picks so far, within `tolerance`."""

    @abstractmethod
    def add(self, item: int) -> float:
        """Commit a pick; returns its gain, exactly."""

    @abstractmethod
    def value(self, indices: Ints) -> float:
        """The value of a set from scratch, in float64, sharing no state with `gains` and `add`."""

    # What is proven of it.

    @property
    def guarantee(self) -> float | None:
        """The share of the optimum proven for plain greedy under k alone, where that does not follow from the above."""
        return None

    @property
    def order(self) -> Ints | None:
        """An order of the items along which returns diminish, for an objective that is not submodular."""
        return None

    def keeps(self, order: Ints) -> bool:  # noqa: ARG002
        """Whether returns diminish along this order for certain."""
        return False

    # How exact it is.

    @property
    def tolerance(self) -> float:
        """The largest error of `gains` now, against `exact_gains`; near-ties within it are settled by those."""
        return 0.0

    def exact_gains(self, candidates: Ints) -> Floats:
        """Marginal gains as `add` would return them."""
        return self.gains(candidates)

    # What it does for less work than the search would need.

    @property
    def eager(self) -> bool:
        """Whether a pick brings all gains up to date for little more than a few, so that laziness saves nothing."""
        return False

    @property
    def finds_best(self) -> bool:
        """Whether `best` and `ceilings` take less work than the gains of all items."""
        return False

    def best(self, open_items: Mask) -> int:
        """The open item with the largest exact gain, the lowest index in a tie. Items once closed stay closed."""
        items = np.flatnonzero(open_items)
        return int(items[np.argmax(self.exact_gains(items))])

    def ceilings(self) -> Floats:
        """Upper bounds on all gains now: (n,), or one for all items."""
        return np.array([np.inf])

    def filling(self, picks: Ints, open_items: Mask, count: int) -> Ints | None:  # noqa: ARG002
        """About `count` open items, the best first, that complete the picks of a search without time, by a look at a
        sample; None where that would take more than a second."""
        return None

    @classmethod  # noqa: B027 (most refuse nothing)
    def refuse_ahead(cls, ahead: CallAhead) -> None:
        """Refuse, before the rows are read, a `max_memory` that it would refuse when it is built.

        Raises:
            InputError: it holds more.
        """

    # What it counts and reports.

    @property
    def calls(self) -> int:
        """How many gains were evaluated so far."""
        return 0

    @property
    def distance_evals(self) -> int:
        """How many distances or similarities were looked at so far."""
        return 0

    @property
    def offset(self) -> float | None:
        """c of a similarity c - distance, without which the value cannot be recounted; None where there is none."""
        return None

    def in_distances(self, value: float, bound: float | None) -> dict[str, float | None]:  # noqa: ARG002
        """What a plan's `info` says of value and bound in the unit of distances, `offset` first."""
        return {} if self.offset is None else {"offset": self.offset}

    # How it is stopped.

    @property
    def polls(self) -> bool:
        """Whether `gains` calls `poll` now and then by itself, and so may be asked for a whole pool at once."""
        return False

    def bind(self, poll: Callable[[], None] | None) -> None:
        """Take what `gains` is to call now and then, or None. It may raise to stop; nothing is lost by that."""
        self.poll = poll


def _read_arguments(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def make(*arguments: Any, **options: Any) -> None:
        bound = bind(init.__qualname__.partition(".")[0], signature, arguments, options)
        for name, value in list(bound.arguments.items())[1:]:
            parameter = signature.parameters[name]
            if value is parameter.default or parameter.kind is parameter.VAR_KEYWORD:
                continue
            if name not in VOCABULARY:
                bound.arguments[name] = checks.option(name, value, annotation_text(parameter))
            elif value is not None and not _is_checked(name, value):
                bound.arguments[name] = argument(name, value)
        with checks.explained(init.__qualname__.partition(".")[0], bound.arguments):
            init(*bound.args, **bound.kwargs)

    return make


def _is_checked(name: str, value: Any) -> bool:
    """Whether it is what the check of the word gives, which is not made twice of a large array."""
    if name not in ("X", "distances", "similarity", "scores"):
        return False
    if checks.is_sparse(value):
        return name in ("X", "similarity") and value.ndim == 2
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == 1 + (name != "scores")


class _Adapted(Objective):
    """A user's own object with `gains`, `add` and `value`. Only here is it asked what else it has."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self.name = type(own).__name__
        n = getattr(own, "n", None)
        self.n = None if n is None else int(n)

    def gains(self, candidates: Ints) -> Floats:
        return self._checked(self.own.gains(candidates), candidates, "gains")

    def add(self, item: int) -> float:
        return self._number(self.own.add(item), f"add({item})", "the gain of the item")

    def value(self, indices: Ints) -> float:
        return self._number(self.own.value(indices), "value", "the value of the set")

    def _number(self, given: Any, call: str, meaning: str) -> float:
        try:
            return float(given)
        except (TypeError, ValueError):
            raise InputError(
                f"objective={self.name}: {call} returned {checks.shown(given)}; return {meaning}, a number"
            ) from None

    def exact_gains(self, candidates: Ints) -> Floats:
        exact = getattr(self.own, "exact_gains", None)
        return self.gains(candidates) if exact is None else self._checked(exact(candidates), candidates, "exact_gains")

    def _checked(self, gains: Any, candidates: Ints, method: str) -> Floats:
        array = np.asarray(gains, np.float64)
        if array.shape != np.shape(candidates):
            raise InputError(
                f"objective={self.name}: {method} of {len(candidates)} candidates has shape {array.shape}; "
                "return one gain a candidate"
            )
        if np.isnan(array).any():
            item = int(np.asarray(candidates)[np.flatnonzero(np.isnan(array))[0]])
            raise InputError(f"objective={self.name}: {method} of item {item} is NaN; return a number")
        return array

    @property
    def submodular(self) -> bool:
        return bool(getattr(self.own, "submodular", False))

    @property
    def monotone(self) -> bool:
        return bool(getattr(self.own, "monotone", False))

    @property
    def guarantee(self) -> float | None:
        return getattr(self.own, "guarantee", None)

    @property
    def order(self) -> Ints | None:
        own = getattr(self.own, "order", None)
        return None if own is None else np.asarray(own, np.int64)

    def keeps(self, order: Ints) -> bool:
        own = getattr(self.own, "keeps", None)
        return own is not None and bool(own(order))

    @property
    def tolerance(self) -> float:
        return float(getattr(self.own, "tolerance", 0.0))

    @property
    def eager(self) -> bool:
        return bool(getattr(self.own, "eager", False))

    @property
    def finds_best(self) -> bool:
        return bool(getattr(self.own, "finds_best", False))

    def best(self, open_items: Mask) -> int:
        own = getattr(self.own, "best", None)
        return super().best(open_items) if own is None else int(own(open_items))

    def ceilings(self) -> Floats:
        own = getattr(self.own, "ceilings", None)
        return super().ceilings() if own is None else np.asarray(own(), np.float64)

    @property
    def calls(self) -> int:
        return int(getattr(self.own, "calls", 0))

    @property
    def distance_evals(self) -> int:
        return int(getattr(self.own, "distance_evals", 0))

    @property
    def offset(self) -> float | None:
        return getattr(self.own, "offset", None)

    @property
    def polls(self) -> bool:
        return hasattr(self.own, "poll")

    def bind(self, poll: Callable[[], None] | None) -> None:
        super().bind(poll)
        if self.polls:
            self.own.poll = poll


def best_of_rivals(rivals: Ints, high: Floats, measure: Callable[[Ints], Floats]) -> int:
    """The rival of the largest exact value, the lowest index in a tie.

    Args:
        rivals: items.
        high: a value that each of them does not exceed.
        measure: exact values of some items, asked for the most promising first and for no more than it takes.
    """
    order = np.lexsort((rivals, -high))
    rivals, high = rivals[order], high[order]
    best, best_value, step = -1, -math.inf, 1
    while len(rivals) and high[0] >= best_value:
        batch = np.sort(rivals[:step])
        values = measure(batch)
        top = int(np.argmax(values))
        if values[top] > best_value or (values[top] == best_value and batch[top] < best):
            best, best_value = int(batch[top]), float(values[top])
        # Rivals whose own ceiling is reached already, at a higher index, cannot win any more.
        rivals, high = rivals[step:], high[step:]
        step = min(64, step * 2)
        able = (high > best_value) | ((high == best_value) & (rivals < best))
        rivals, high = rivals[able], high[able]
    return best


def as_objective(given: Any, label: str = "objective") -> Objective:
    """An objective as it is, or a user's own object wrapped into one.

    Args:
        given: an `Objective`, or an object with `gains`, `add` and `value`. Any further attribute of `Objective` that
            it has (`submodular`, `tolerance`, `poll`, ...) is used as well.
        label: what an error calls it.

    Raises:
        InputError: an object without the three methods, or a class instead of an object.

    Examples:
        >>> class Count:
        ...     def gains(self, candidates):
        ...         return [1] * len(candidates)
        ...
        ...     def add(self, item):
        ...         return 1
        ...
        ...     def value(self, indices):
        ...         return len(indices)
        >>> f = as_objective(Count())
        >>> f.gains(np.arange(2)).tolist(), f.submodular, f.tolerance
        ([1.0, 1.0], False, 0.0)
    """
    if isinstance(given, Objective):
        return given
    missing = [name for name in METHODS if not callable(getattr(given, name, None))]
    if missing:
        raise InputError(
            f"{label}={type(given).__name__} lacks {', '.join(missing)}; an objective has gains(candidates), add(item) "
            "and value(indices)"
        )
    if isinstance(given, type):
        raise InputError(f"{label}={given.__name__} is a class; give an object of it, ready for its first pick")
    return _Adapted(given)
