"""Ways to pick the rows to label, of kofn and of its peers: the contenders of `python -m benchmarks usefulness`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn

# As `Any`, it may be called with words that are only known when it runs.
select: Any = kofn.select


@dataclass(frozen=True)
class Contender:
    """How to pick.

    Args:
        pick: the picks, from vectors, metric, k and seed.
        nested: picks are made once, for the largest k, and cut.
        peer: the package of another library.
        slow: it looks at all pairs for each k, or holds them, and sits out the large pools.
        name: its method or objective, where `kofn select` says what to expect of such picks.
        default: it can be one.
    """

    pick: Callable[[NDArray[Any], str, int, int], NDArray[np.int64]]
    nested: bool = False
    peer: str | None = None
    slow: bool = False
    name: str | None = None
    default: bool = False


def _kofn(**how: Any) -> Callable[[NDArray[Any], str, int, int], NDArray[np.int64]]:
    def pick(X: NDArray[Any], metric: str, k: int, seed: int) -> NDArray[np.int64]:
        given: dict[str, Any] = {"metric": metric, **how}
        if how.get("method") in ("typiclust", "probability_cover"):
            given["seed"] = seed
        plan: kofn.Selection = select(X, k=k, **given)
        return plan.indices

    return pick


def _means(X: NDArray[Any], metric: str, k: int, seed: int) -> NDArray[np.int64]:
    """The row nearest to each centre of k-means; rows of unit length already where the metric is cosine."""
    from sklearn.cluster import KMeans

    del metric
    means = KMeans(k, n_init=1, random_state=seed, max_iter=30).fit(X)
    away = means.transform(X)
    picks: list[int] = []
    for cluster in range(k):
        order = np.argsort(away[:, cluster], kind="stable")
        picks.append(next(int(row) for row in order if int(row) not in picks))
    return np.array(picks)


def _balls(X: NDArray[Any], metric: str, k: int, seed: int) -> NDArray[np.int64]:
    """ProbCover with a ball that holds n / k rows, as the median sampled row has it."""
    from kofn.objectives.similarity import pairwise_distances

    rows = np.random.default_rng(seed).choice(len(X), min(1_000, len(X)), replace=False)
    away = np.sort(pairwise_distances(X[rows], metric), axis=1)
    radius = float(np.median(away[:, min(len(rows) - 1, max(1, len(rows) // k))]))
    plan: kofn.Selection = select(X, k=k, method="probability_cover", metric=metric, options={"radius": radius})
    return plan.indices


def _apricot(X: NDArray[Any], metric: str, k: int, seed: int) -> NDArray[np.int64]:
    from apricot import FacilityLocationSelection

    del seed
    return FacilityLocationSelection(k, metric=metric).fit(X.astype(np.float64)).ranking


def _activeml(name: str) -> Callable[[NDArray[Any], str, int, int], NDArray[np.int64]]:
    def pick(X: NDArray[Any], metric: str, k: int, seed: int) -> NDArray[np.int64]:
        from skactiveml import pool

        del metric
        strategy = getattr(pool, name)(random_state=seed)
        return np.asarray(strategy.query(X, np.full(len(X), np.nan), batch_size=k))

    return pick


CONTENDERS: dict[str, Contender] = {
    "facility location": Contender(_kofn(), nested=True, name="facility_location", default=True),
    "facility location, squared distances": Contender(_kofn(metric="sqeuclidean"), nested=True, slow=True),
    "facility location, rbf": Contender(_kofn(metric="rbf"), nested=True, slow=True, name="facility_location rbf"),
    "TypiClust": Contender(_kofn(method="typiclust"), name="typiclust", default=True),
    "TypiClust, 5 neighbors": Contender(_kofn(method="typiclust", options={"neighbors": 5})),
    "ProbCover": Contender(_kofn(method="probability_cover"), slow=True, name="probability_cover", default=True),
    "ProbCover, n/k rows a ball": Contender(_balls, slow=True),
    "k-means, nearest rows": Contender(_means),
    "farthest first": Contender(_kofn(method="farthest_first"), nested=True, name="farthest_first", default=True),
    "log-determinant": Contender(_kofn(objective="log_determinant"), nested=True, name="log_determinant"),
    "apricot, facility location": Contender(_apricot, nested=True, peer="apricot", slow=True),
    "scikit-activeml, TypiClust": Contender(_activeml("TypiClust"), peer="skactiveml"),
    "scikit-activeml, ProbCover": Contender(_activeml("ProbCover"), nested=True, peer="skactiveml", slow=True),
}


def picks_of(contender: Contender, X: NDArray[Any], metric: str, ks: list[int], seed: int) -> list[NDArray[np.int64]]:
    """The picks for each k."""
    if contender.nested:
        order = contender.pick(X, metric, ks[-1], seed)
        return [order[:k] for k in ks]
    return [contender.pick(X, metric, k, seed) for k in ks]
