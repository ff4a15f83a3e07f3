"""Submodular information measures: mutual information with a query set, conditional gain over a private set.

With f the function of the same name, A the picks, Q the queries and P the private (or already owned) set:

    mutual information              I(A; Q)     = f(A) + f(Q) - f(A u Q)
    conditional gain                f(A | P)    = f(A u P) - f(P)
    conditional mutual information  I(A; Q | P) = f(A | P) - f(A | Q u P)

`eta` and `nu` say how much queries and private points weigh, as in PRISM; 1 is the identity above. For facility
location the pool alone is what has to be served, and for graph cut mutual information is a plain retrieval score.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.objective import Objective
from kofn.objectives._determinantal_kernels import Kernel, conditioned, kernel_of
from kofn.objectives.determinantal import LogDeterminant
from kofn.objectives.similarity import add_exactly, exact_sum

# These objectives cap one similarity by another, so the kernel must lie in [0, 1].
SIMILARITIES = ("cosine", "rbf")
# Entries of a block of similarities (items served x candidates).
_BLOCK = 1 << 20


def _points(value: Any, name: str, label: str) -> NDArray[Any]:
    if value is None:
        raise InputError(f"{label} needs {name}, vectors (m, d) with the features of X")
    return checks.matrix(value, name)


def _pool(X: Any, kernel: str, scale: float | None) -> Kernel:
    return kernel_of(X, None, checks.choice(kernel, "kernel", SIMILARITIES), scale)


class _ClippedLocation(Objective):
    """f(A) = sum_i w_i max(0, min(max_{j in A} s_ij, high_i) - low_i): facility location between two levels.

    It is a concave function of each item's maximum, hence monotone and submodular.
    """

    n: int
    submodular = True
    monotone = True
    polls = True
    calls = 0

    def _start(self, kernel: Kernel, low: Floats, high: Floats, weights: Any) -> None:
        self.kernel = kernel
        self.n = kernel.n
        self._weights = np.ones(self.n) if weights is None else checks.weights(weights).astype(np.float64)
        checks.same_length(self.n, "X", "weights", len(self._weights))
        self._low, self._high = low, high
        self._level = low.copy()
        self._open = self._still_open()

    def _still_open(self) -> Ints:
        """Items that a further pick could still serve better."""
        return np.flatnonzero((self._weights > 0) & (self._high > self._level) & (self._level < 1))

    @property
    def tolerance(self) -> float:
        """The largest error of `gains`, against `exact_gains`."""
        summed = (len(self._open) + 8) * 2.0**-53
        return (self.kernel.rounding + summed) * float(self._weights[self._open].sum())

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far, within `tolerance`."""
        candidates = np.asarray(candidates, np.int64)
        self.calls += len(candidates)
        out = np.zeros(len(candidates))
        rows = self._open
        level, high, weights = (part[rows] for part in (self._level, self._high, self._weights))
        step = max(1, _BLOCK // max(1, len(rows)))
        for low in range(0, len(candidates) if len(rows) else 0, step):
            if low and self.poll is not None:
                self.poll()
            block = self.kernel.block(candidates[low : low + step], rows)
            np.minimum(block, high, out=block)
            block -= level
            np.maximum(block, 0.0, out=block)
            out[low : low + step] = block @ weights
        return out

    def exact_gains(self, candidates: Any) -> Floats:
        """Gains summed as if rounded once, whose bits depend on the candidate's own entries alone. O(n d) each."""
        out: list[float] = []
        for item in np.asarray(candidates).tolist():
            if out and self.poll is not None:
                self.poll()
            out.append(self._exact(int(item))[0])
        return np.array(out, np.float64)

    def _exact(self, item: int) -> tuple[float, Floats]:
        rows = self._open
        reached = np.maximum(np.minimum(self.kernel.entries(item, rows), self._high[rows]), self._level[rows])
        return exact_sum(self._weights[rows] * (reached - self._level[rows])), reached

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain. O(n d)."""
        gain, reached = self._exact(int(item))
        self._level[self._open] = reached
        self._open = self._still_open()
        return gain

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64. O(n d) for each index."""
        best = np.zeros(self.n)
        everyone = np.arange(self.n)
        for item in np.asarray(indices, np.int64).tolist():
            np.maximum(best, self.kernel.entries(item, everyone), out=best)
        served = np.maximum(np.minimum(best, self._high) - self._low, 0.0)
        return math.fsum((self._weights * served).tolist())


class FacilityLocationMutualInformation(_ClippedLocation):
    """f(A) = sum_i w_i min(max_{j in A} s_ij, eta max_{q in Q} s_iq): facility location mutual information.

    Monotone and submodular. An item far from all queries counts for little however well it is served; once what the
    queries reach is reached, nothing more is gained.

    Args:
        X: vectors (n, d).
        queries: (q, d) query vectors that the picks should match.
        eta: >= 0; the larger, the more relevance and the less cover of the queries counts.
        private: (p, d) vectors known already: the conditional mutual information, what was gained above
            `nu max_{p in P} s_ip`.
        nu: >= 0, how much of the private set's service is taken off.
        kernel: "cosine" ((1 + cos) / 2) or "rbf" (exp(-|x - y|^2 / (2 scale^2))).
        scale: the width of "rbf", default the root mean squared distance between two rows.
        weights: (n,) how much each item of the pool counts.

    Raises:
        InputError: bad values, no queries, or other features than X.

    Costs O(n d) a gain, in blocks of matrix products over the items that can still gain; O(n d) memory.

    References:
        Kothawade, Kaushal, Ramakrishnan, Bilmes, Iyer, "PRISM: A rich class of parameterized submodular information
        measures for guided data subset selection", AAAI 2022.
        Iyer, Khargonkar, Bilmes, Asnani, "Submodular combinatorial information measures", ALT 2021.

    Examples:
        >>> X = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> f = FacilityLocationMutualInformation(X, queries=np.array([[0.0, 1.0]]))
        >>> int(f.gains(np.arange(3)).argmax())
        2
    """

    name = "facility_location_mutual_information"

    def __init__(
        self,
        X: Any = None,
        *,
        queries: Any = None,
        private: Any = None,
        weights: Any = None,
        eta: float = 1.0,
        nu: float = 1.0,
        kernel: str = "cosine",
        scale: float | None = None,
    ) -> None:
        pool = _pool(X, kernel, scale)
        near = pool.cross(_points(queries, "queries", "mutual information"))[0].max(axis=1)
        known = np.zeros(pool.n)
        if private is not None:
            known = float(checks.number(nu, "nu")) * pool.cross(checks.matrix(private, "private"))[0].max(axis=1)
        self._start(pool, np.maximum(known, 0.0), float(checks.number(eta, "eta")) * near, weights)


class FacilityLocationConditionalGain(_ClippedLocation):
    """f(A) = sum_i w_i max(0, max_{j in A} s_ij - nu max_{p in P} s_ip): facility location conditional gain.

    Monotone and submodular: represents the part of the pool that the private (or already owned) set does not.

    Args:
        X: vectors (n, d).
        private: (p, d) vectors that are owned already or must not be revealed.
        nu: >= 0; the larger, the stricter.
        kernel: "cosine" ((1 + cos) / 2) or "rbf" (exp(-|x - y|^2 / (2 scale^2))).
        scale: the width of "rbf", default the root mean squared distance between two rows.
        weights: (n,) how much each item of the pool counts.

    Raises:
        InputError: bad values, no private set, or other features than X.

    Costs O(n d) a gain, in blocks of matrix products over the items that can still gain; O(n d) memory.

    References:
        Kothawade et al., "PRISM", AAAI 2022.

    Examples:
        >>> X = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> f = FacilityLocationConditionalGain(X, private=np.array([[0.0, 1.0]]))
        >>> int(f.gains(np.arange(3)).argmin())
        2
    """

    name = "facility_location_conditional_gain"

    def __init__(
        self,
        X: Any = None,
        *,
        private: Any = None,
        weights: Any = None,
        nu: float = 1.0,
        kernel: str = "cosine",
        scale: float | None = None,
    ) -> None:
        pool = _pool(X, kernel, scale)
        known = pool.cross(_points(private, "private", "conditional gain"))[0].max(axis=1)
        low = np.maximum(float(checks.number(nu, "nu")) * known, 0.0)
        self._start(pool, low, np.full(pool.n, np.inf), weights)


class GraphCutMutualInformation(Objective):
    """f(A) = 2 lam sum_{j in A} sum_{q in Q} s_jq: summed similarity to the queries, a modular function.

    Greedy is exact for it; near copies of one relevant item are all as good as it.

    Args:
        X: vectors (n, d).
        queries: (q, d) query vectors that the picks should match.
        lam: >= 0, graph cut's own.
        kernel: "cosine" ((1 + cos) / 2) or "rbf" (exp(-|x - y|^2 / (2 scale^2))).
        scale: the width of "rbf", default the root mean squared distance between two rows.

    Raises:
        InputError: bad values, no queries, or other features than X.

    Costs O(n q d) time once, O(n (q + d)) memory.

    References:
        Kothawade et al., "PRISM", AAAI 2022.

    Examples:
        >>> f = GraphCutMutualInformation(np.array([[1.0, 0.0], [0.0, 1.0]]), queries=np.array([[0.0, 2.0]]))
        >>> f.gains(np.arange(2)).round(6).tolist()
        [0.5, 1.0]
    """

    name = "graph_cut_mutual_information"
    n: int
    submodular = True
    monotone = True
    calls = 0

    def __init__(
        self,
        X: Any = None,
        *,
        queries: Any = None,
        lam: float = 0.5,
        kernel: str = "cosine",
        scale: float | None = None,
    ) -> None:
        pool = _pool(X, kernel, scale)
        cross = pool.cross(_points(queries, "queries", "mutual information"))[0]
        # Rounding must not make a similarity of zero negative, nor the order of the queries break a tie.
        summed, rest = np.zeros(pool.n), np.zeros(pool.n)
        for toward in np.maximum(cross, 0.0).T:
            add_exactly(summed, rest, toward)
        self._scores = 2 * float(checks.number(lam, "lam")) * summed
        self.n = pool.n

    def gains(self, candidates: Any) -> Floats:
        """The candidates' own scores, independent of the picks."""
        self.calls += len(candidates)
        out: Floats = self._scores[np.asarray(candidates, np.int64)]
        return out

    def add(self, item: int) -> float:
        """Commit a pick; returns its score."""
        return float(self._scores[item])

    def value(self, indices: Any) -> float:
        """Sum of the scores, correctly rounded."""
        return math.fsum(self._scores[np.asarray(indices, np.int64)].tolist())


class LogDeterminantConditionalGain(LogDeterminant):
    """f(A) = log det(M_A - nu^2 M_AP M_P^-1 M_PA), with M = L + shift I: log-determinant conditional gain.

    Submodular; monotone from shift 1 on, as the log-determinant itself. nu = 1 is log det(M_{A u P}) - log det(M_P).

    Args:
        X: vectors (n, d).
        private: (p, d) vectors that are owned already or must not be revealed.
        nu: 0 to 1; above 1 the conditioned kernel need not be positive semi-definite.
        kernel: "linear", "rbf" or "cosine", as in `LogDeterminant`.
        scale: the width of "rbf", default the root mean squared distance between two rows of X.
        shift: added to the diagonal, > 0.

    Raises:
        InputError: bad values, no private set, or other features than X.

    Costs O(n p (p + d)) time once and O(n (p + k)) memory, or O(n p d) and O(n d) with "linear" and "cosine", then as
    `LogDeterminant`.

    References:
        Kothawade et al., "PRISM", AAAI 2022.

    Examples:
        >>> X = np.array([[3.0, 0.0], [0.0, 2.0]])
        >>> f = LogDeterminantConditionalGain(X, private=np.array([[5.0, 0.0]]))
        >>> int(f.gains(np.arange(2)).argmax())
        1
    """

    name = "log_determinant_conditional_gain"

    def __init__(
        self,
        X: Any = None,
        *,
        private: Any = None,
        nu: float = 1.0,
        kernel: str = "linear",
        scale: float | None = None,
        shift: float = 1.0,
    ) -> None:
        pool, shift = kernel_of(X, None, kernel, scale), _positive(shift)
        known = _points(private, "private", "conditional gain")
        self._start(conditioned(pool, known, checks.fraction(nu, "nu"), shift), shift)


class LogDeterminantMutualInformation(Objective):
    """f(A) = log det(M_A) - log det(M_A - eta^2 M_AQ M_Q^-1 M_QA), with M = L + shift I: information of A about Q.

    Monotone, but not submodular: two picks together can be informative when neither is alone. So `lazy_greedy` refuses
    it and no guarantee is known; `naive_greedy` accepts it.

    Args:
        X: vectors (n, d).
        queries: (q, d) query vectors that the picks should match.
        eta: 0 to 1; above 1 the conditioned kernel need not be positive semi-definite.
        kernel: "linear", "rbf" or "cosine", as in `LogDeterminant`.
        scale: the width of "rbf", default the root mean squared distance between two rows of X.
        shift: added to the diagonal, > 0.

    Raises:
        InputError: bad values, no queries, or other features than X.

    Costs O(n q (q + d)) time once, then two log-determinants.

    References:
        Kothawade et al., "PRISM", AAAI 2022.

    Examples:
        >>> X = np.array([[3.0, 0.0], [0.0, 2.0]])
        >>> f = LogDeterminantMutualInformation(X, queries=np.array([[5.0, 0.0]]))
        >>> int(f.gains(np.arange(2)).argmax())
        0
    """

    name = "log_determinant_mutual_information"
    monotone = True

    def __init__(
        self,
        X: Any = None,
        *,
        queries: Any = None,
        eta: float = 1.0,
        kernel: str = "linear",
        scale: float | None = None,
        shift: float = 1.0,
    ) -> None:
        queries, shift = _points(queries, "queries", "mutual information"), _positive(shift)
        self._alone = LogDeterminant(X, kernel=kernel, scale=scale, shift=shift)
        self._given = LogDeterminantConditionalGain(
            X, private=queries, nu=checks.fraction(eta, "eta"), kernel=kernel, scale=scale, shift=shift
        )
        self.n = self._alone.n

    @property
    def calls(self) -> int:
        """Residual updates so far."""
        return self._alone.calls + self._given.calls

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far, never negative."""
        return np.maximum(self._alone.gains(candidates) - self._given.gains(candidates), 0.0)

    def add(self, item: int) -> float:
        """Commit a pick; returns its gain."""
        return max(self._alone.add(item) - self._given.add(item), 0.0)

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64."""
        return self._alone.value(indices) - self._given.value(indices)


def _positive(shift: Any) -> float:
    shift = float(checks.number(shift, "shift"))
    if shift == 0:
        raise InputError("shift=0: with a query or private set the kernel must be invertible; give shift > 0")
    return shift
