"""The k-medoids loss reduction relative to a phantom exemplar, as a submodular objective."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.objectives._sources import Rows, Source, Table
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.kcenter import distances_to
from kofn.objectives.similarity import geometry


class MedoidLoss(FacilityLocation):
    """f(S) = L({e0}) - L(S + {e0}), L(S) = sum_i w_i min_{j in S} d(i, j): monotone and submodular for any e0.

    L is the loss of k-medoids (not divided by n), e0 a phantom exemplar that initially represents every item. An item
    nearer to e0 than to a pick gains nothing from that pick. It is facility location with the similarity
    max(0, d(i, e0) - d(i, j)), and is computed like it: distances are not stored.

    Args:
        X: vectors (n, d), float32 or float64.
        distances: (n, n), symmetric. Instead of X.
        metric: "euclidean" (default), "sqeuclidean" as in the papers, "cosine" (1 - cos); "precomputed" reads X as
            `distances`.
        weights: (n,) how much each item counts, >= 0, default 1.
        phantom: where e0 is: a point (d,), or one distance that it has to every item. Default is the origin, as in the
            papers, which makes sense where that is in the middle of the pool; from `distances`, the largest of them.
            Where f should fall with the loss of S alone, give a distance that no two items exceed.
        max_memory: bytes of scratch beside the input; too little is refused, not exceeded.
        n_threads: default all cores; nothing but time depends on it.

    Attributes:
        phantom_loss: L({e0}); the loss of the picks and e0 is this less f.
        tolerance, nearest, distance_evals, calls, poll: as in `FacilityLocation`; `nearest` is -1 where e0 is nearest.

    Raises:
        InputError: not exactly one of X and distances, bad values, a phantom that is no point and no distance, or
            `max_memory` too small.

    Costs and what is exact: as `FacilityLocation`.

    References:
        Krause, Gomes, "Budgeted nonparametric learning from data streams", ICML 2010.
        Badanidiyuru, Mirzasoleiman, Karbasi, Krause, "Streaming submodular maximization", KDD 2014.

    Examples:
        >>> f = MedoidLoss(np.array([[1.0], [2.0], [-3.0]]))
        >>> f.exact_gains([0, 1, 2]).tolist()
        [2.0, 2.0, 3.0]
        >>> f.add(2), f.add(1), f.phantom_loss - f.value([1, 2])
        (3.0, 2.0, 1.0)
    """

    name = "medoid_loss"

    def __init__(
        self,
        X: Any = None,
        *,
        distances: Any = None,
        metric: str = "euclidean",
        weights: Any = None,
        phantom: Any = None,
        max_memory: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        if (X is None) == (distances is None):
            raise InputError("the medoid loss needs X or distances, one of them; give vectors or an (n, n) matrix")
        if metric == "rbf":
            raise InputError("metric='rbf' is a similarity and no distance; use objective='facility_location'")
        if metric == "precomputed" and distances is None:
            X, distances = None, X
        if distances is not None:
            # Distances are a table of costs, where facility location has a table of similarities.
            distances = checks.distances(distances)
            if weights is not None:
                checks.same_length(len(distances), "distances", "weights", len(checks.weights(weights)))
        super().__init__(
            X, similarity=distances, metric=metric, weights=weights, max_memory=max_memory, n_threads=n_threads
        )
        if self._from_rows and metric == "cosine":
            self._unit = 0.5  # of the squared chord
        with np.errstate(over="ignore"):
            self._start = self._phantom_distances(phantom)
            loss = float((self._weights * self._start / min(self._unit, 1.0)).sum())
        if not np.isfinite(loss):
            raise InputError(
                f"phantom={checks.shown(phantom)} is so far from the items that its loss is no number; give a nearer "
                "one"
            )
        self._cost = self._start / self._unit
        self._total = self._cost_in_total()
        self._open = len(self._open_items())

    def _costs(self, max_memory: int | None, n_threads: int | None) -> Source:
        if self._from_rows:
            return super()._costs(max_memory, n_threads)
        return Table(self._given, 1, float(self._given.max()), n_threads)

    def _phantom_distances(self, phantom: Any) -> Floats:
        """(n,) distance of each item to e0."""
        if phantom is None and not self._from_rows:
            phantom = float(self._given.max())
        if checks.is_number(phantom):
            return np.full(self.n, float(checks.number(phantom, "phantom")))
        if not self._from_rows:
            raise InputError("phantom: from distances there are no points; give one distance to every item")
        d = self._given.shape[1]
        point = np.zeros(d) if phantom is None else checks.vector(phantom, "phantom").astype(np.float64)
        if len(point) != d:
            raise InputError(f"phantom has {len(point)} values, X has {d} columns; give a point (d,) or one distance")
        if self.metric == "cosine":
            return distances_to(self._given, point, "cosine")
        # In the same steps as the distances between rows, so that an item at e0 is as far from the others as e0 is.
        space = self._source.space if isinstance(self._source, Rows) else geometry(self._given, self.metric)
        scale = space.scale[0] if len(space.scale) else 1.0
        return space.unit * space.distances(point * scale)

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain. O(n d)."""
        gain = super().add(item)
        if self._picks == 1:
            # Unlike the first pick alone, the phantom is there already.
            self.nearest[self._cost >= self._start / self._unit] = -1
        return gain

    @property
    def offset(self) -> None:
        """f has no arbitrary constant."""
        return

    @property
    def phantom_loss(self) -> float:
        """L({e0})."""
        return math.fsum((self._weights * self._start).tolist())

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing nothing with the other methods but d(i, e0)."""
        near = self._start.copy()
        for j in np.unique(np.asarray(indices, np.int64)).tolist():
            column = (
                distances_to(self._given, self._given[j], self.metric)
                if self._from_rows
                else self._given[:, j].astype(np.float64)
            )
            np.minimum(near, column, out=near)
        return math.fsum((self._weights * (self._start - near)).tolist())
