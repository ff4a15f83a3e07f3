"""Coverage functions: sums over units of a concave function of the picks' total amounts; monotone submodular."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import InputError
from kofn.core.objective import Objective
from kofn.objectives._amounts import Dense, Entries, refuse_memory, similarities
from kofn.objectives._sparse_rows import distances_from
from kofn.objectives._units import Amounts, Units
from kofn.objectives.similarity import add_exactly


class _Coverage(Objective):
    """f(S) = sum_u h_u(sum_{j in S} a_ju) with every h_u concave, rising and 0 at 0.

    Subclasses define `_worth`, the increase of h_u when amounts are added to the current totals, computed so that in
    float64 it never increases with the total. `gains` sums it as is fastest, `exact_gains` as if rounded once.
    """

    n: int
    submodular = True
    monotone = True
    polls = True
    calls = 0

    def __init__(self, amounts: Amounts) -> None:
        self._amounts = amounts
        self.n = amounts.n
        # In two floats, so that the order of the picks breaks no tie.
        self._total, self._rest = np.zeros(amounts.units), np.zeros(amounts.units)
        # The largest gain since the last pick, by which `gains` may be off.
        self._largest = 0.0

    @property
    def tolerance(self) -> float:
        """The largest error of `gains` now, against `exact_gains`."""
        return (self._amounts.longest + 8) * 2.0**-53 * self._largest

    def _worth(self, amounts: Floats, units: Units) -> Floats:
        raise NotImplementedError

    def bind(self, poll: Callable[[], None] | None) -> None:
        """Set the callback that `gains` polls."""
        super().bind(poll)
        self._amounts.poll = poll

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far, within `tolerance`."""
        candidates = np.asarray(candidates, np.int64)
        self.calls += len(candidates)
        gains = self._amounts.sums(candidates, self._worth)
        self._largest = max(self._largest, float(gains.max(initial=0.0)))
        return gains

    def exact_gains(self, candidates: Any) -> Floats:
        """Gains summed as if rounded once: the same in whatever order, dense or sparse, a candidate has its amounts."""
        out: list[float] = []
        # Rivals are often rows that repeat each other.
        known: dict[bytes, float] = {}
        for item in np.asarray(candidates).tolist():
            if out and self.poll is not None:
                self.poll()
            units, amounts = self._amounts.own(item)
            terms = self._worth(amounts, units)
            key = terms.tobytes()
            if key not in known:
                known[key] = math.fsum(terms.tolist())
            out.append(known[key])
        return np.array(out, np.float64)

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain."""
        units, amounts = self._amounts.own(int(item))
        gain = math.fsum(self._worth(amounts, units).tolist())
        # A row names each of its units once.
        add_exactly(self._total, self._rest, amounts, units)
        self._largest = 0.0
        return gain


class FeatureBased(_Coverage):
    """f(S) = sum_u w_u g(sum_{j in S} x_ju) with g concave: feature-based, with diminishing returns per feature.

    Args:
        X: features (n, m) >= 0 such as counts, probabilities or activations, dense or SciPy-sparse.
        concave: g: "sqrt"; "log" is log(1 + t); "capped" is min(t, cap).
        feature_weights: (m,) w_u >= 0, default 1.
        cap: for "capped": where a feature is full, one number or (m,), default 1.

    Attributes:
        calls: gains evaluated so far.
        tolerance: the largest error of `gains` now, against `exact_gains`.

    Raises:
        InputError: negative or non-finite features, an unknown g, a cap <= 0 or where none is used, or weights of
            another length than a row.

    Costs: O(m) a gain, O(entries of the row) where X is sparse; a sparse X is never made dense. X is not copied.

    What is exact: a candidate's gain does not depend on the other candidates evaluated, and never increases from
    pick to pick, even by rounding (for "log" as far as the system's log1p keeps order). Near-ties are settled by
    `exact_gains`, each unit's rise rounded once and their sum once, so that rows of the same rises tie exactly.

    References:
        Wei, Iyer, Bilmes, "Fast multi-stage submodular maximization", ICML 2014.

    Examples:
        >>> f = FeatureBased([[4.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
        >>> f.gains([0, 1, 2]).round(3).tolist()
        [2.0, 2.236, 1.0]
        >>> f.add(0), f.gains([1, 2]).tolist()  # sqrt(9) - 2 for more of the same, 1 for something new
        (2.0, [1.0, 1.0])
    """

    name = "feature_based"

    def __init__(self, X: Any = None, *, concave: str = "sqrt", feature_weights: Any = None, cap: Any = None) -> None:
        self._given = _features(X, "feature_based")
        sparse = checks.is_sparse(self._given)
        super().__init__(Entries(self._given) if sparse else Dense(self._given))
        m = self._amounts.units
        self.concave = checks.choice(concave, "concave", tuple(_CONCAVE))
        if cap is not None and concave != "capped":
            raise InputError(f"cap={checks.shown(cap)}: concave={concave!r} has no cap; use concave='capped'")
        self._cap = _per_unit(1.0 if cap is None else cap, "cap", m)
        if self._cap.min() <= 0:
            raise InputError(f"cap of feature {int(self._cap.argmin())} is {self._cap.min():g}; give caps > 0")
        self._weights = _unit_weights(feature_weights, "feature_weights", m)
        self._rise, self._concave = _CONCAVE[concave]

    def _worth(self, amounts: Floats, units: Units) -> Floats:
        return self._weights[units] * self._rise(self._total[units], amounts, self._cap[units])

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing nothing with the other methods."""
        picks = np.unique(np.asarray(indices, np.int64))
        brought = np.asarray(self._given[picks].astype(np.float64).sum(axis=0)).ravel()
        return math.fsum((self._weights * self._concave(brought, self._cap)).tolist())


class WeightedCoverage(_Coverage):
    """f(S) = total weight of the elements covered by some pick: weighted maximum coverage.

    Args:
        X: (n, m), dense or SciPy-sparse: item j covers element u where x_ju > 0; the magnitude does not matter.
        element_weights: (m,) w_u >= 0, default 1.

    Attributes:
        calls: gains evaluated so far.
        tolerance: the largest error of `gains` now, against `exact_gains`.

    Raises:
        InputError: negative or non-finite entries, or weights of another length than a row.

    Costs: O(elements of the item) a gain; memory is that of the entries > 0, which are copied.

    What is exact: with weights that are whole numbers (below 2^53 in all) everything. Otherwise, gains are float64
    sums in the order of the elements, independent of the other candidates, and they never increase from pick to pick;
    near-ties are settled by `exact_gains`, sums that are rounded once.

    References:
        Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular set functions", 1978.
        Khuller, Moss, Naor, "The budgeted maximum coverage problem", Information Processing Letters 1999.

    Examples:
        >>> f = WeightedCoverage([[1, 1, 0], [0, 1, 0], [0, 0, 1]], element_weights=[1.0, 1.0, 5.0])
        >>> f.gains([0, 1, 2]).tolist()
        [2.0, 1.0, 5.0]
        >>> f.add(0), f.gains([1]).tolist()
        (2.0, [0.0])
    """

    name = "weighted_coverage"

    def __init__(self, X: Any = None, *, element_weights: Any = None) -> None:
        self._sets = _memberships(_features(X, "weighted_coverage"))
        super().__init__(Entries(self._sets))
        self._weights = _unit_weights(element_weights, "element_weights", self._amounts.units)
        self._whole = bool((self._weights % 1 == 0).all()) and float(self._weights.sum()) < 2**53

    @property
    def tolerance(self) -> float:
        """The largest error of `gains` now, against `exact_gains`: none of weights that are whole numbers."""
        return 0.0 if self._whole else super().tolerance

    def _worth(self, amounts: Floats, units: Units) -> Floats:  # noqa: ARG002 (a membership is one)
        return self._weights[units] * (self._total[units] == 0)

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing nothing with the other methods."""
        covered = np.unique(self._sets[np.asarray(indices, np.int64)].indices)
        return math.fsum(self._weights[covered].tolist())


class SaturatedCoverage(_Coverage):
    """f(S) = sum_i w_i min(C_i(S), alpha C_i(V)), C_i(S) = sum_{j in S} s_ij: saturated coverage.

    An item is saturated at the share `alpha` of its total similarity to the pool: the smaller alpha, the sooner
    well-served items stop contributing. For k of n picks choose alpha near k/n: far above it nothing saturates, and the
    items most similar to all others win. alpha = 1 is modular.

    Similarity s from rows of X: `euclidean` is c - distance with c the largest distance of the pool, `sqeuclidean`
    c - distance^2 likewise, `cosine` is (1 + cos) / 2. Or `similarity` as given: row i is the item that is served,
    column j the candidate that would serve it; it need not be symmetric.

    Args:
        X: vectors (n, d), float32 or float64; with "cosine" SciPy-sparse rows too, which are never made dense.
        similarity: (n, n) >= 0, dense or SciPy-sparse, missing entries 0. Instead of X.
        metric: "euclidean" (default), "sqeuclidean", "cosine"; "precomputed" reads X as `similarity`.
        weights: (n,) how much each item counts, >= 0, default 1.
        alpha: in (0, 1], the share at which an item is saturated.
        max_memory: bytes of scratch beside the input; too little is refused, not exceeded.
        n_threads: default all cores; the result does not depend on it.

    Attributes:
        calls: gains evaluated so far.
        tolerance: the largest error of `gains` now, against `exact_gains`.
        distance_evals: similarities evaluated so far.

    Raises:
        InputError: not exactly one of X and similarity, negative similarities, alpha outside (0, 1], or `max_memory`
            too small.

    Costs: O(n d) a gain from X and one pass over all pairs for C_i(V), when it is first needed; O(n d) memory, only
    pools so small that NumPy outruns compiled code are held as a table. From a sparse similarity, O(entries of the
    column) a gain.

    What is exact: distances are float64 differences. The gains of a candidate are the same whoever else is asked for
    and for any number of threads, and from pick to pick they never rise, not by rounding either. Near-ties are settled
    by `exact_gains`, sums that are rounded once.

    References:
        Lin, Bilmes, "A class of submodular functions for document summarization", ACL 2011.

    Examples:
        >>> f = SaturatedCoverage(similarity=np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]]), alpha=0.5)
        >>> f.gains([0, 1, 2]).round(3).tolist()
        [1.7, 1.7, 0.5]
        >>> gain = f.add(0)
        >>> f.gains([1, 2]).round(3).tolist()
        [0.1, 0.5]
    """

    name = "saturated_coverage"
    label = "saturated coverage"

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
        alpha: float = 0.1,
        max_memory: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self.alpha = checks.fraction(alpha, "alpha")
        if not self.alpha > 0:
            raise InputError(f"alpha={alpha!r}: items must be served something; give a share in (0, 1]")
        toward, _, self._given = similarities(X, similarity, metric, max_memory, n_threads, self.label)
        super().__init__(toward)
        self._from_rows = similarity is None and metric != "precomputed"
        self.metric = metric
        self._weights = np.ones(self.n) if weights is None else checks.weights(weights).astype(np.float64)
        checks.same_length(self.n, "X" if self._from_rows else "similarity", "weights", len(self._weights))
        self._known: Floats | None = None
        self._left = np.zeros(self.n)

    @property
    def distance_evals(self) -> int:
        """Similarities evaluated so far."""
        return self._amounts.pairs

    @property
    def _cap(self) -> Floats:
        """The saturation level of each item."""
        if self._known is None:
            self._known = self.alpha * self._amounts.totals()
        return self._known

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of the candidates given the picks so far, within `tolerance`."""
        self._left = self._left_to_reach()
        return super().gains(candidates)

    def exact_gains(self, candidates: Any) -> Floats:
        """Gains summed as if rounded once, whose bits do not depend on the order of the items."""
        self._left = self._left_to_reach()
        return super().exact_gains(candidates)

    def add(self, item: int) -> float:
        """Commit a pick; returns its gain."""
        self._left = self._left_to_reach()
        return super().add(item)

    def _left_to_reach(self) -> Floats:
        return np.maximum(self._cap - self._total, 0.0)

    def _worth(self, amounts: Floats, units: Units) -> Floats:
        return self._weights[units] * np.minimum(amounts, self._left[units])

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing only the saturation levels with the other methods."""
        picks = np.unique(np.asarray(indices, np.int64))
        served = np.zeros(self.n)
        if self._from_rows:
            # Every item is as similar to itself as any can be.
            top = float(self._amounts.own(0)[1][0])
            away = distances_from(self._given, self.metric)
            for j in picks.tolist():
                apart = away(j)
                served += np.maximum(top - (apart / 2 if self.metric == "cosine" else apart), 0.0)
        else:
            served += np.asarray(self._given[:, picks].astype(np.float64).sum(axis=1)).ravel()
        return math.fsum((self._weights * np.minimum(served, self._cap)).tolist())


def _sqrt_rise(total: Floats, amounts: Floats, cap: Floats) -> Floats:  # noqa: ARG001
    # sqrt(t + a) - sqrt(t) without cancellation, so that it falls with t in float64 too.
    roots = np.sqrt(total + amounts) + np.sqrt(total)
    return np.divide(amounts, roots, out=np.zeros_like(roots), where=roots > 0)


def _log_rise(total: Floats, amounts: Floats, cap: Floats) -> Floats:  # noqa: ARG001
    return np.log1p(amounts / (1 + total))


def _capped_rise(total: Floats, amounts: Floats, cap: Floats) -> Floats:
    return np.minimum(amounts, np.maximum(cap - total, 0.0))


Rise = Callable[[Floats, Floats, Floats], Floats]
# How much g rises when an amount comes on top of a total, and g itself.
_CONCAVE: dict[str, tuple[Rise, Callable[[Floats, Floats], Floats]]] = {
    "sqrt": (_sqrt_rise, lambda t, _: np.sqrt(t)),
    "log": (_log_rise, lambda t, _: np.log1p(t)),
    "capped": (_capped_rise, np.minimum),
}


def _features(X: Any, name: str) -> Any:
    """Check features >= 0: a dense matrix, or CSR without duplicate entries."""
    if X is None:
        raise InputError(f"{name} needs X, features >= 0 of shape (n, m), dense or SciPy-sparse")
    if not checks.is_sparse(X):
        dense = checks.matrix(X)
        if dense.min() < 0:
            row, column = divmod(int(dense.argmin()), dense.shape[1])
            raise _negative(name, row, column, dense[row, column])
        return dense
    if X.ndim != 2 or 0 in X.shape:
        raise InputError(f"X has shape {tuple(X.shape)}; give (n, m) with at least one row and one column")
    from scipy import sparse

    rows = sparse.csr_array(checks.sound_sparse(X, "X"))
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float64)
    bad = ~np.isfinite(rows.data) | (rows.data < 0)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        row = int(np.searchsorted(rows.indptr, first, side="right") - 1)
        if not np.isfinite(rows.data[first]):
            raise InputError(
                f"X at row {row}, column {rows.indices[first]} is {rows.data[first]:g}; give finite features"
            )
        raise _negative(name, row, int(rows.indices[first]), rows.data[first])
    return rows


def _negative(name: str, row: int, column: int, value: float) -> InputError:
    return InputError(
        f"X at row {row}, column {column} is {value:g}; {name} takes features >= 0 "
        "(split a signed feature in two: max(x, 0) and max(-x, 0))"
    )


def _memberships(features: Any) -> Any:
    """Which elements each item covers, as a sparse matrix of ones."""
    from scipy import sparse

    if checks.is_sparse(features):
        sets = features.copy()
        sets.data = (sets.data > 0).astype(np.float64)
        sets.eliminate_zeros()
        return sets
    return sparse.csr_array(features > 0).astype(np.float64)


def _per_unit(value: Any, name: str, m: int) -> Floats:
    if checks.is_number(value):
        return np.full(m, float(checks.number(value, name)))
    given = checks.vector(value, name).astype(np.float64)
    if len(given) != m:
        raise InputError(f"{name} has {len(given)} values, X has {m} columns; give one a column")
    return given


def _unit_weights(value: Any, name: str, m: int) -> Floats:
    return np.ones(m) if value is None else _per_unit(checks.weights(value, name), name, m)
