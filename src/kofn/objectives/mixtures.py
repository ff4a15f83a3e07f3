"""Mixtures: a weighted sum of objectives, the user's own among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.objectives.base import Objective

# Candidates asked for between two looks at the clock, where a part does not look itself.
_AT_ONCE = 1 << 14


class Mixture:
    """f(S) = sum_p c_p f_p(S) with c_p >= 0: submodular, and monotone, where every part with c_p > 0 is.

    Parts are not scaled: a sum over n items is n times as large as a mean, so weights mean what they say only for parts
    that are worth about the same (divide by `part.value` of some good set, for one).

    Args:
        parts: pairs (weight, objective), each objective fresh: this mixture makes its picks. An objective is anything
            with `gains`, `add` and `value` (`kofn.objectives.base.Objective`).

    Attributes:
        parts, weights: the objectives and their weights.
        tolerance: the largest error of `gains` now, against `exact_gains`: that of the parts, weighted.
        calls, distance_evals: those of the parts together.
        eager: whether all parts are.
        poll: called now and then within `gains`, None by default; it may raise to stop, and nothing is lost by that.

    Raises:
        InputError: no parts, a weight < 0, all weights 0, parts of different sizes, one objective twice, or an object
            without the three methods.

    Costs: those of the parts. Parts of weight 0 are not asked at all.

    Examples:
        >>> from kofn.objectives.coverage import WeightedCoverage
        >>> from kofn.objectives.modular import Modular
        >>> f = Mixture([(1.0, WeightedCoverage([[1, 1], [1, 0]])), (0.5, Modular([0.0, 4.0]))])
        >>> f.gains([0, 1]).tolist(), f.add(0), f.gains([1]).tolist()
        ([2.0, 3.0], 2.0, [2.0])
    """

    name = "mixture"
    sense = "max"

    def __init__(self, parts: Iterable[tuple[float, Objective]]) -> None:
        pairs = list(parts)
        if not pairs:
            raise InputError("a mixture needs parts; give pairs (weight, objective)")
        for place, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError(
                    f"part {place} of the mixture is {type(pair).__name__}; give pairs (weight, objective)"
                )
            missing = [name for name in ("gains", "add", "value") if not callable(getattr(pair[1], name, None))]
            if missing:
                raise InputError(
                    f"part {place} of the mixture ({type(pair[1]).__name__}) lacks {', '.join(missing)}; an objective "
                    "has gains(candidates), add(item) and value(indices)"
                )
        weights = [float(checks.number(pair[0], f"the weight of part {place}")) for place, pair in enumerate(pairs)]
        if not any(weights):
            raise InputError("the weights of the mixture are all zero; give at least one positive weight")
        if len({id(pair[1]) for pair in pairs}) < len(pairs):
            raise InputError("the mixture has one objective twice, which would count each pick twice; add its weights")
        kept = [place for place, weight in enumerate(weights) if weight > 0]
        self.parts: list[Any] = [pairs[place][1] for place in kept]
        self.weights = [weights[place] for place in kept]
        sizes = {int(part.n) for part in self.parts if hasattr(part, "n")}
        if len(sizes) > 1:
            raise InputError(
                f"the parts of the mixture have {' and '.join(map(str, sorted(sizes)))} items; give one pool"
            )
        if sizes:
            self.n = sizes.pop()
        self._poll: Callable[[], None] | None = None
        self._largest = 0.0

    @property
    def submodular(self) -> bool:
        """Whether every part is; an objective that does not say is not."""
        return all(bool(getattr(part, "submodular", False)) for part in self.parts)

    @property
    def monotone(self) -> bool:
        """Whether every part is; an objective that does not say is not."""
        return all(bool(getattr(part, "monotone", False)) for part in self.parts)

    @property
    def eager(self) -> bool:
        """Whether all parts bring all gains up to date for little more than a few."""
        return all(bool(getattr(part, "eager", False)) for part in self.parts)

    @property
    def poll(self) -> Callable[[], None] | None:
        """Called now and then within `gains`, None by default; it may raise to stop, and nothing is lost by that."""
        return self._poll

    @poll.setter
    def poll(self, poll: Callable[[], None] | None) -> None:
        self._poll = poll
        for part in self.parts:
            if hasattr(part, "poll"):
                part.poll = poll

    @property
    def calls(self) -> int:
        """Gains asked for so far, as far as the parts count them."""
        return sum(int(getattr(part, "calls", 0)) for part in self.parts)

    @property
    def distance_evals(self) -> int:
        """Distances looked at so far, as far as the parts count them."""
        return sum(int(getattr(part, "distance_evals", 0)) for part in self.parts)

    @property
    def offset(self) -> float | None:
        """c of the parts whose similarity is c - distance, where that c is free; None where they have no single one."""
        found = {getattr(part, "offset", None) for part in self.parts} - {None}
        return found.pop() if len(found) == 1 else None

    @property
    def tolerance(self) -> float:
        """The largest error of any gain returned now, against `exact_gains`."""
        error = math.fsum(
            weight * float(getattr(part, "tolerance", 0.0))
            for weight, part in zip(self.weights, self.parts, strict=True)
        )
        # Sums of rounded gains round differently from sums of exact ones.
        return error + (4 * len(self.parts) * 2.0**-53 * (self._largest + error) if error else 0.0)

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of some candidates given the picks so far, within `tolerance`."""
        candidates = np.asarray(candidates, np.int64)
        out = np.zeros(len(candidates))
        size = np.zeros(len(candidates))
        for weight, part in zip(self.weights, self.parts, strict=True):
            terms = weight * self._asked(part, candidates)
            out += terms
            size += np.abs(terms)
        self._largest = max(self._largest, float(size.max(initial=0.0)))
        return out

    def exact_gains(self, candidates: Any) -> Floats:
        """Marginal gains, each part's by its own `exact_gains` where it has them."""
        candidates = np.asarray(candidates, np.int64)
        out = np.zeros(len(candidates))
        for weight, part in zip(self.weights, self.parts, strict=True):
            out += weight * np.asarray(getattr(part, "exact_gains", part.gains)(candidates), np.float64)
        return out

    def add(self, item: int) -> float:
        """Commit a pick in every part; returns its gain."""
        gains = [float(part.add(int(item))) for part in self.parts]
        return math.fsum(weight * gain for weight, gain in zip(self.weights, gains, strict=True))

    def value(self, indices: Any) -> float:
        """f of a set from scratch."""
        return math.fsum(
            weight * float(part.value(indices)) for weight, part in zip(self.weights, self.parts, strict=True)
        )

    def _asked(self, part: Any, candidates: Ints) -> Floats:
        if self._poll is None or hasattr(part, "poll"):
            return np.asarray(part.gains(candidates), np.float64)
        found = np.empty(len(candidates))
        for low in range(0, len(candidates), _AT_ONCE):
            self._poll()
            found[low : low + _AT_ONCE] = part.gains(candidates[low : low + _AT_ONCE])
        return found
