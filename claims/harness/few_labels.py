"""Few labels of a pool: which rows teach a classifier most, picked before any label is known.

Two judges, averaged: ridge regression on the classes and the nearest labelled row, as papers on few labels have them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims.harness.data import Labelled, digits, shuffled
from claims.harness.paired import Difference, difference

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# Picks some of the pool's rows: the pool as it may be seen, how many, a seed. Labels are read of picked rows alone.
Rule = Callable[[Labelled, int, int], Ints]

select: Any = kofn.select
DRAWS = 20


@functools.cache
def breast_cancer() -> Labelled:
    """569 tumours of two kinds, 30 measures, each of variance 1."""
    from kofn import datasets

    data = datasets.load("breast_cancer")
    assert data.X is not None
    assert data.y is not None
    X = (data.X - data.X.mean(axis=0)) / data.X.std(axis=0)
    return Labelled(X.astype(np.float32), data.y.astype(np.int64), 2)


SETS: Mapping[str, Callable[[], Labelled]] = {"digits": digits, "breast cancer": breast_cancer}


def accuracy(train: Labelled, test: Labelled) -> float:
    """Mean accuracy of the two judges."""
    A, B = train.X.astype(np.float64), test.X.astype(np.float64)
    ridge = scores(train, B).argmax(axis=1)
    gaps = (A * A).sum(axis=1)[None, :] - 2 * B @ A.T
    nearest = train.y[gaps.argmin(axis=1)]
    return float(((ridge == test.y).mean() + (nearest == test.y).mean()) / 2)


def scores(train: Labelled, X: NDArray[Any]) -> Floats:
    """Ridge regression on the classes, in the dual: (n, classes)."""
    A = train.X.astype(np.float64)
    centre = A.mean(axis=0)
    inner = (A - centre) @ (A - centre).T
    targets = np.where(train.y[:, None] == np.arange(train.classes), 1.0, -1.0)
    usual = targets.mean(axis=0)
    shrink = 0.1 * np.trace(inner) / len(A) + 1e-9
    alpha = np.linalg.solve(inner + shrink * np.eye(len(A)), targets - usual)
    out: Floats = (X - centre) @ ((A - centre).T @ alpha) + usual
    return out


def trial(seed: int, *, settings: Sequence[tuple[str, int]], rules: Mapping[str, Rule]) -> dict[str, dict[str, float]]:
    """Each rule's accuracy on a new pool for each set and number of rows a class: `set, rows` -> rule -> accuracy.

    "random" is the mean of 20 draws.
    """
    rng = np.random.default_rng(seed)
    out: dict[str, dict[str, float]] = {}
    for name, rows in settings:
        data = shuffled(SETS[name](), rng)
        half = len(data) // 2
        pool, test = data.take(np.arange(half)), data.take(np.arange(half, len(data)))
        k = rows * data.classes
        drawn = [accuracy(pool.take(rng.permutation(half)[:k]), test) for _ in range(DRAWS)]
        reached = {"random": float(np.mean(drawn))}
        for rule, pick in rules.items():
            reached[rule] = accuracy(pool.take(pick(pool, k, seed)), test)
        out[f"{name}, {rows}"] = reached
    return out


def mean_over(trials: Sequence[Mapping[str, Mapping[str, float]]], rule: str, where: str = "") -> Floats:
    """Of each trial: the mean accuracy of a rule over the settings whose name holds `where`."""
    return np.array([np.mean([reached[rule] for name, reached in t.items() if where in name]) for t in trials])


def ahead(trials: Sequence[Mapping[str, Mapping[str, float]]], ours: str, theirs: str, where: str = "") -> Difference:
    """Our rule less theirs, paired over trials."""
    return difference(mean_over(trials, ours, where), mean_over(trials, theirs, where))


def figures(trials: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean accuracies by setting and rule."""
    return {
        name: {rule: round(float(np.mean([t[name][rule] for t in trials])), 4) for rule in trials[0][name]}
        for name in trials[0]
    }


def typiclust(pool: Labelled, k: int, seed: int) -> Ints:
    """TypiClust with the paper's 20 neighbours."""
    picks: Ints = select(pool.X, k=k, method="typiclust", neighbors=20, seed=seed).indices
    return picks


def max_herding(pool: Labelled, k: int, seed: int, bandwidth: float | None = None) -> Ints:
    """Greedy facility location with a Gaussian kernel."""
    del seed
    width = {} if bandwidth is None else {"bandwidth": bandwidth}
    picks: Ints = select(pool.X, k=k, metric="rbf", objective="facility_location", **width).indices
    return picks


def probability_cover(pool: Labelled, k: int, seed: int, radius: float | None = None) -> Ints:
    """ProbCover; without a radius that at which 95% of balls are pure, by as many clusters as there are classes."""
    options = {"clusters": pool.classes} if radius is None else {"radius": radius}
    picks: Ints = select(pool.X, k=k, method="probability_cover", seed=seed, **options).indices
    return picks


def farthest_first(pool: Labelled, k: int, seed: int) -> Ints:
    """Coreset: each row the farthest from those before."""
    del seed
    picks: Ints = select(pool.X, k=k, method="farthest_first").indices
    return picks


def uncertain(pool: Labelled, k: int, seed: int) -> Ints:
    """A third at random, then twice the rows whose two best classes are nearest to each other."""
    step = k // 3
    picks = np.random.default_rng(seed).permutation(len(pool))[: k - 2 * step]
    for _ in range(2 if step else 0):
        best = np.sort(scores(pool.take(picks), pool.X), axis=1)
        doubt = best[:, -2] - best[:, -1]
        added = kofn.select(scores=doubt, k=step, exclude=picks, method="top_k").indices
        picks = np.concatenate([picks, added])
    return picks


def near_means(pool: Labelled, k: int, seed: int) -> Ints:
    """The row nearest to each of k-means' centres."""
    away = _means(pool, k, seed).transform(pool.X)
    picks: list[int] = []
    for cluster in range(k):
        picks.append(next(int(row) for row in np.argsort(away[:, cluster], kind="stable") if int(row) not in picks))
    return np.array(picks)


def in_means(pool: Labelled, k: int, seed: int) -> Ints:
    """A random row of each of k-means' clusters."""
    labels, rng = _means(pool, k, seed).labels_, np.random.default_rng(seed)
    return np.array([rng.choice(np.flatnonzero(labels == cluster)) for cluster in range(k)])


def _means(pool: Labelled, k: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=1, random_state=seed % 2**31).fit(pool.X)
