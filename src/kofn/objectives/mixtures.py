"""Mixtures: weighted sums of objectives, including user-defined ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.objective import Objective, as_objective

# Candidates asked for between two looks at the clock, where a part does not look itself.
_AT_ONCE = 1 << 14


class Mixture(Objective):
    """f(S) = sum_p c_p f_p(S) with c_p >= 0: submodular, and monotone, where every part with c_p > 0 is.

    Parts are not normalised: a sum over n items is n times as large as a mean, so weights are comparable only for parts
    of similar magnitude (for example, divide by `part.value` of a good set).

    Args:
        parts: pairs (weight, objective), each without picks; the mixture makes its picks. An objective is any object
            with `gains`, `add` and `value` (`kofn.core.objective.Objective`).

    Attributes:
        parts, weights: the objectives and their weights.
        tolerance: the largest error of `gains` now, against `exact_gains`: that of the parts, weighted.
        calls, distance_evals: those of the parts together.
        eager: whether all parts are.

    Raises:
        InputError: no parts, a weight < 0, all weights 0, parts of different sizes, one objective twice, or an object
            without the three methods.

    Costs: those of the parts. Parts of weight 0 are not evaluated.

    Examples:
        >>> from kofn.objectives.coverage import WeightedCoverage
        >>> from kofn.objectives.modular import Modular
        >>> f = Mixture([(1.0, WeightedCoverage([[1, 1], [1, 0]])), (0.5, Modular([0.0, 4.0]))])
        >>> f.gains([0, 1]).tolist(), f.add(0), f.gains([1]).tolist()
        ([2.0, 3.0], 2.0, [2.0])
    """

    name = "mixture"
    # Parts that do not poll are asked for blocks of candidates.
    polls = True

    def __init__(self, parts: Iterable[tuple[float, Any]]) -> None:
        pairs = list(parts)
        if not pairs:
            raise InputError("a mixture needs parts; give pairs (weight, objective)")
        objectives: list[Objective] = []
        for i, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError(f"part {i} of the mixture is {type(pair).__name__}; give pairs (weight, objective)")
            objectives.append(as_objective(pair[1], f"the objective of part {i}"))
        weights = [float(checks.number(weight, f"the weight of part {i}")) for i, (weight, _) in enumerate(pairs)]
        if not any(weights):
            raise InputError("the weights of the mixture are all zero; give at least one positive weight")
        if len({id(given) for _, given in pairs}) < len(pairs):
            raise InputError("the mixture has one objective twice, which would count each pick twice; add its weights")
        self.parts = [objective for objective, weight in zip(objectives, weights, strict=True) if weight > 0]
        self.weights = [weight for weight in weights if weight > 0]
        sizes = {part.n for part in self.parts if part.n is not None}
        if len(sizes) > 1:
            raise InputError(
                f"the parts of the mixture have {' and '.join(map(str, sorted(sizes)))} items; give one pool"
            )
        self.n = sizes.pop() if sizes else None
        self._largest = 0.0

    @property
    def submodular(self) -> bool:
        """Whether every part is."""
        return all(part.submodular for part in self.parts)

    @property
    def monotone(self) -> bool:
        """Whether every part is."""
        return all(part.monotone for part in self.parts)

    @property
    def eager(self) -> bool:
        """Whether all parts bring all gains up to date for little more than a few."""
        return all(part.eager for part in self.parts)

    def bind(self, poll: Callable[[], None] | None) -> None:
        """Set the polling callback of all parts; parts that do not poll are evaluated in blocks between polls."""
        super().bind(poll)
        for part in self.parts:
            part.bind(poll)

    @property
    def calls(self) -> int:
        """Gains evaluated so far, as counted by the parts."""
        return sum(part.calls for part in self.parts)

    @property
    def distance_evals(self) -> int:
        """Distances evaluated so far, as counted by the parts."""
        return sum(part.distance_evals for part in self.parts)

    @property
    def offset(self) -> float | None:
        """c of the parts whose similarity is c - distance, where that c is free; None where they have no single one."""
        offsets = {part.offset for part in self.parts} - {None}
        return offsets.pop() if len(offsets) == 1 else None

    @property
    def tolerance(self) -> float:
        """The largest error of any gain returned now, against `exact_gains`."""
        error = math.fsum(weight * part.tolerance for weight, part in zip(self.weights, self.parts, strict=True))
        # Sums of rounded gains round differently from sums of exact ones.
        return error + (4 * len(self.parts) * 2.0**-53 * (self._largest + error) if error else 0.0)

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far, within `tolerance`."""
        candidates = np.asarray(candidates, np.int64)
        out = np.zeros(len(candidates))
        size = np.zeros(len(candidates))
        for weight, part in zip(self.weights, self.parts, strict=True):
            terms = weight * self._gains_of(part, candidates)
            out += terms
            size += np.abs(terms)
        self._largest = max(self._largest, float(size.max(initial=0.0)))
        return out

    def exact_gains(self, candidates: Any) -> Floats:
        """Marginal gains, each part's by its own `exact_gains`."""
        candidates = np.asarray(candidates, np.int64)
        out = np.zeros(len(candidates))
        for weight, part in zip(self.weights, self.parts, strict=True):
            out += weight * part.exact_gains(candidates)
        return out

    def add(self, item: int) -> float:
        """Commit a pick in every part; returns its gain."""
        gains = [part.add(int(item)) for part in self.parts]
        return math.fsum(weight * gain for weight, gain in zip(self.weights, gains, strict=True))

    def value(self, indices: Any) -> float:
        """f of a set from scratch."""
        return math.fsum(weight * part.value(indices) for weight, part in zip(self.weights, self.parts, strict=True))

    def _gains_of(self, part: Objective, candidates: Ints) -> Floats:
        if self.poll is None or part.polls:
            return part.gains(candidates)
        gains = np.empty(len(candidates))
        for low in range(0, len(candidates), _AT_ONCE):
            self.poll()
            gains[low : low + _AT_ONCE] = part.gains(candidates[low : low + _AT_ONCE])
        return gains
