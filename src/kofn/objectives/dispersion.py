"""Dispersion (diversity) objectives: the sum or the minimum of the distances among the picks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.core import checks, vocabulary
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.objective import Objective
from kofn.objectives.kcenter import distances_to
from kofn.objectives.similarity import add_exactly

KINDS = ("sum", "min")


class Dispersion(Objective):
    """f(S) = the sum ("sum") or the minimum ("min") of the distances among the picks; 0 for fewer than two.

    Not submodular: a sum's gains grow with the picks, and a least distance jumps up with the second pick and then only
    falls. Greedy has a guarantee all the same where distances obey the triangle inequality, from any first pick and
    under k alone: half of the largest sum (Birnbaum and Goldman) and half of the largest least distance (Tamir: of k
    items pairwise r apart, one is at least r/2 from fewer than k picks). `sqeuclidean` and `cosine` (1 - cos) are
    squares of such distances, so that a quarter is left for "min" and nothing is proven for "sum".

    Args:
        X: vectors (n, d), float32 or float64.
        distances: (n, n) symmetric, instead of X.
        metric: "euclidean" (default), "sqeuclidean" or "cosine" (1 - cos); "precomputed" reads X as `distances`.
        kind: "sum" or "min".

    Attributes:
        guarantee: the share of the optimum proven for greedy under k alone, None if unknown. Given distances
            are assumed to obey the triangle inequality.
        monotone: True for "sum".
        calls: gains evaluated so far.

    Raises:
        InputError: not exactly one of X and distances, bad values, an unknown kind.

    Costs O(n d) for each pick, O(n) memory; gains are looked up.

    References:
        Ravi, Rosenkrantz, Tayi, "Heuristic and special case algorithms for dispersion problems", 1994.
        Tamir, "Obnoxious facility location on graphs", 1991.
        Birnbaum, Goldman, "An improved analysis for a greedy remote-clique algorithm using factor-revealing LPs", 2009.

    Examples:
        >>> f = Dispersion(np.array([[0.0], [1.0], [5.0]]), kind="sum")
        >>> gain = f.add(0)
        >>> f.gains(np.array([1, 2])).tolist(), f.value(np.array([0, 1, 2]))
        ([1.0, 5.0], 10.0)
    """

    name = "dispersion"
    n: int
    # One distance row a pick brings all gains up to date.
    eager = True
    calls = 0

    def __init__(self, X: Any = None, *, distances: Any = None, metric: str = "euclidean", kind: str = "sum") -> None:
        vocabulary.metric(metric)
        if metric == "rbf":
            raise InputError("metric='rbf' is a similarity and no distance; use objective='facility_location'")
        if (X is None) == (distances is None):
            raise InputError("dispersion needs X or distances, one of them; give vectors or an (n, n) matrix")
        if metric == "precomputed" and distances is None:
            X, distances = None, X
        self.kind = checks.choice(kind, "kind", KINDS)
        self.metric = metric
        self._rows = None if X is None else checks.matrix(X)
        self._table = None if distances is None else checks.distances(distances)
        self.n = len(self._rows if self._rows is not None else self._table)  # type: ignore[arg-type]
        self._picks = 0
        # Each item's summed distance to the picks, in two floats so that the picks' order breaks no tie, or its least.
        self._apart, self._rest = np.zeros(self.n), np.zeros(self.n)
        self._least = math.inf

    @property
    def monotone(self) -> bool:
        """Whether no item ever lowers f: a sum only grows."""
        return self.kind == "sum"

    @property
    def guarantee(self) -> float | None:
        """The share of the optimum proven for greedy under k alone."""
        if self._table is not None or self.metric == "euclidean":
            return 0.5
        return 0.25 if self.kind == "min" else None

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far."""
        candidates = np.asarray(candidates, np.int64)
        self.calls += len(candidates)
        return self._gains(candidates)

    def _gains(self, candidates: Ints) -> Floats:
        out: Floats = self._apart[candidates]
        if self.kind == "sum" or self._picks == 0:
            return out
        return out if self._picks == 1 else np.minimum(out, self._least) - self._least

    def add(self, item: int) -> float:
        """Commit a pick; returns its gain. O(n d)."""
        item = int(item)
        gain = float(self._gains(np.array([item], np.int64))[0])
        row = self._row(item)
        if self.kind == "sum":
            add_exactly(self._apart, self._rest, row)
        else:
            if self._picks:
                self._least = min(self._least, float(self._apart[item]))
            self._apart = row if self._picks == 0 else np.minimum(self._apart, row)
        self._picks += 1
        return gain

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64."""
        picks = np.asarray(indices, np.int64)
        if len(picks) < 2:
            return 0.0
        pairs = [float(self._row(int(j))[i]) for position, j in enumerate(picks) for i in picks[:position]]
        return math.fsum(pairs) if self.kind == "sum" else min(pairs)

    def _row(self, item: int) -> Floats:
        if self._table is not None:
            return self._table[item].astype(np.float64)
        assert self._rows is not None
        return distances_to(self._rows, self._rows[item], self.metric)
