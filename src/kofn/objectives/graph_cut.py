"""Graph cut: similarity of the picks to the pool, minus the similarity among the picks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.calls_ahead import CallAhead
from kofn.core.objective import Objective
from kofn.objectives._amounts import refuse_memory, similarities
from kofn.objectives._sparse_rows import distances_from
from kofn.objectives._units import Units
from kofn.objectives.similarity import add_exactly, exact_pair

_EPS = 2.0**-53


class GraphCut(Objective):
    """f(S) = sum_{i in V} sum_{j in S} w_i s_ij - lam sum_{i, j in S} s_ij, the pairs (j, j) included: submodular.

    Monotone exactly for lam <= min_j C_j / (C_j + R_j - s_jj), with C_j what j is to the pool (sum_i w_i s_ij, for the
    first C_j) and R_j = sum_i s_ji; items with nothing in the denominator do not count. For a symmetric similarity and
    no weights this is C_j / (2 C_j - s_jj), at least 1/2: every lam <= 1/2 is monotone, whatever the pool, and hardly
    any larger lam where the pool is large. Beyond it, a greedy pick may have a negative gain, and guarantees that rest
    on monotonicity do not hold: then `monotone` is False.

    Similarity s from rows of X: `euclidean` is c - distance with c the largest distance of the pool, `sqeuclidean`
    c - distance^2 likewise, `cosine` is (1 + cos) / 2. Or `similarity` as given; it need not be symmetric.

    Args:
        X: vectors (n, d), float32 or float64; with "cosine" SciPy-sparse rows too, which are never made dense.
        similarity: (n, n) >= 0, dense or SciPy-sparse, missing entries 0. Instead of X.
        metric: "euclidean" (default), "sqeuclidean", "cosine"; "precomputed" reads X as `similarity`.
        weights: (n,) weight of the similarity to each item, >= 0, default 1.
        lam: >= 0, penalty on the similarity among the picks, default 1/2.
        max_memory: bytes of scratch beside the input; too little is refused, not exceeded.
        n_threads: default all cores; the result does not depend on it.

    Attributes:
        monotone: whether adding an item never lowers f, on this pool.
        monotone_up_to: the largest lam that is monotone on this pool.
        calls: gains evaluated so far.
        distance_evals: similarities evaluated so far.
        tolerance: the largest error of `gains` now, against `exact_gains`.

    Raises:
        InputError: not exactly one of X and similarity, negative similarities, lam < 0, or `max_memory` too small.

    Costs: one pass over all pairs, O(n^2 d) from X, when gains are first asked for; then O(n d) a pick, O(1) a gain and
    O(n d) once for each item that was ever in a near-tie.
    O(n d) memory from X, only pools so small that NumPy outruns compiled code are held as a table. From a sparse
    similarity, O(entries), and O(entries of its row and column) a pick.

    What is exact: distances are float64 differences; gains do not depend on the other candidates or on the number of
    threads, and never increase from pick to pick, even by rounding. Near-ties are settled by `exact_gains`, sums that
    are rounded once: the order of rows and of picks breaks no tie.

    References:
        Lin, Bilmes, "Multi-document summarization via budgeted maximization of submodular functions", NAACL 2010.
        Iyer, Khargonkar, Bilmes, Asnani, "Submodular combinatorial information measures", ALT 2021 (this form).

    Examples:
        >>> f = GraphCut(similarity=np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]]), lam=0.5)
        >>> f.gains([0, 1, 2]).tolist(), f.monotone
        ([1.3, 1.3, 0.5], True)
        >>> gain = f.add(0)
        >>> f.gains([1, 2]).tolist()
        [0.5, 0.5]
    """

    name = "graph_cut"
    label = "graph cut"
    n: int
    submodular = True
    # Each pick brings all gains up to date.
    eager = True
    polls = True
    calls = 0

    @classmethod
    def refuse_ahead(cls, ahead: CallAhead) -> None:
        """Refuse a `max_memory` that this would not keep on rows that are yet to be read."""
        refuse_memory(ahead.n, ahead.width, ahead.itemsize, ahead.max_memory, ahead.n_threads, cls.label)

    def __init__(
        self,
        X: Any = None,
        *,
        similarity: Any = None,
        metric: str = "euclidean",
        weights: Any = None,
        lam: float = 0.5,
        max_memory: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.lam = float(checks.number(lam, "lam"))
        self._toward, self._back, self._given = similarities(X, similarity, metric, max_memory, n_threads, self.label)
        self.n = self._toward.n
        self._from_rows = similarity is None and metric != "precomputed"
        self.metric = metric
        self._weights = None if weights is None else checks.weights(weights).astype(np.float64)
        if self._weights is not None:
            checks.same_length(self.n, "X" if self._from_rows else "similarity", "weights", len(self._weights))
        self._known: tuple[Floats, Floats, Floats] | None = None
        # lam times what a candidate has in common with the picks, both ways, and what its rounding left out.
        self._shared, self._shared_rest = np.zeros(self.n), np.zeros(self.n)
        # What items that were rivals are to the pool, exactly; and the row that was looked at last.
        self._worths: dict[int, tuple[float, float]] = {}
        self._last: tuple[int, Units, Floats] | None = None

    def bind(self, poll: Callable[[], None] | None) -> None:
        """Set the callback that `gains` polls."""
        super().bind(poll)
        self._toward.poll = self._back.poll = poll

    @property
    def distance_evals(self) -> int:
        """Similarities evaluated so far."""
        return self._toward.pairs + (0 if self._back is self._toward else self._back.pairs)

    @property
    def monotone(self) -> bool:
        """Whether adding an item never lowers f, on this pool. Known at once for lam <= 1/2 where that is enough."""
        symmetric = self._back is self._toward and self._weights is None
        return (symmetric and self.lam <= 0.5) or self.lam <= self.monotone_up_to

    @property
    def monotone_up_to(self) -> float:
        """The largest lam for which f is monotone on this pool."""
        # At the end of all picks but j: what j is to the pool against what it shares with everyone, itself once.
        worth, _, shared = self._pool()
        return float(np.divide(worth, shared, out=np.full(self.n, np.inf), where=shared > 0).min())

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far, within `tolerance`."""
        candidates = np.asarray(candidates, np.int64)
        self.calls += len(candidates)
        worth, itself, _ = self._pool()
        gains: Floats = worth[candidates] - (self.lam * itself[candidates] + self._shared[candidates])
        return gains

    @property
    def tolerance(self) -> float:
        """The largest error of `gains` now, against `exact_gains`."""
        worth, itself, _ = self._pool()
        everyone = float(self.n) if self._weights is None else math.fsum(self._weights.tolist())
        summed = (self._toward.longest + 8) * _EPS * float(worth.max()) + everyone * self._toward.rounding
        return summed + 8 * _EPS * float(worth.max() + self.lam * itself.max() + self._shared.max())

    def exact_gains(self, candidates: Any) -> Floats:
        """Gains summed as if rounded once, whose bits do not depend on the order of items or picks. O(n d) at first."""
        out: list[float] = []
        for item in np.asarray(candidates).tolist():
            if out and self.poll is not None:
                self.poll()
            out.append(self._exact(int(item)))
        return np.array(out, np.float64)

    def _exact(self, item: int) -> float:
        itself = self._pool()[1][item]
        if item not in self._worths:
            units, amounts = self._row(item)
            self._worths[item] = exact_pair(amounts if self._weights is None else amounts * self._weights[units])
        return math.fsum((*self._worths[item], -self.lam * itself, -self._shared[item], -self._shared_rest[item]))

    def _row(self, item: int) -> tuple[Units, Floats]:
        """The units that an item contributes to and its amounts; asked for again by `add`, as a rule of the same."""
        if self._last is None or self._last[0] != item:
            self._last = item, *self._toward.own(item)
        return self._last[1:]

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain."""
        item = int(item)
        gain = self._exact(item)
        units, amounts = self._row(item)
        add_exactly(self._shared, self._shared_rest, self.lam * amounts, units)
        if self._back is not self._toward:
            units, amounts = self._back.own(item)
        add_exactly(self._shared, self._shared_rest, self.lam * amounts, units)
        return gain

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing nothing with the other methods but c."""
        picks = np.unique(np.asarray(indices, np.int64))
        if not len(picks):
            return 0.0
        if self._from_rows:
            away = distances_from(self._given, self.metric)
            apart = np.array([away(j) for j in picks.tolist()]).T
            columns = np.maximum(self._top() - (apart / 2 if self.metric == "cosine" else apart), 0.0)
        else:
            given: Any = self._given[:, picks]
            columns = (given.toarray() if checks.is_sparse(given) else given).astype(np.float64)
        inside = math.fsum(columns[picks].ravel().tolist())
        served = columns.sum(axis=1) if self._weights is None else columns.sum(axis=1) * self._weights
        return math.fsum(served.tolist()) - self.lam * inside

    def _pool(self) -> tuple[Floats, Floats, Floats]:
        """Per item: weighted similarity to the pool, self-similarity, and total similarity both ways (itself once)."""
        if self._known is None:
            # The expensive, interruptible part comes first.
            worth = self._back.totals(self._weights)
            inward = worth if self._weights is None else self._back.totals()
            outward = inward if self._back is self._toward else self._toward.totals()
            if self._from_rows:
                itself = np.full(self.n, self._top())
            else:
                itself = np.asarray(self._given.diagonal()).astype(np.float64)
            self._known = worth, itself, inward + outward - itself
        return self._known

    def _top(self) -> float:
        """c: every item is as similar to itself as any can be."""
        return float(self._toward.own(0)[1][0])
