"""Argument bundles shared by the medoid methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from numpy.typing import ArrayLike

from kofn.core.words import Metric, Runtime

Init = Literal["lab", "build", "random"]


class Pairs(Runtime, total=False):
    """Metric, weights and runtime words."""

    metric: Annotated[Metric, '"euclidean", "sqeuclidean" or "cosine" (1 - cos), for X.', "euclidean"]
    weights: Annotated[ArrayLike | None, "How much each item counts, (n,), >= 0, default 1."]


class KMedoids(Pairs, total=False):
    """`Pairs`, and the start of the search."""

    start: Annotated[Any, "Medoids to begin from: row numbers (or ids), or an earlier plan."]
