"""Clustering schemes under maps of metric spaces: which of them never take apart what a map brings closer.

Drawn spaces and maps from `kofn.laws.schemes`, and digits under maps that take no distance up: orthogonal projections
onto their principal directions, and further digits beside them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.runs import derive, spread
from kofn.laws.schemes import SchemeBroken, clique, functorial, represented, together, violations

SCALE, GROUPS = 0.8, 3
STOPS = ("single linkage, scale", "single linkage, k", "single linkage, share")
KLEINBERG = ("scale-invariant", "consistent", "rich")
ITEMS, REAL_GROUPS = 120, 10
Floats = NDArray[np.float64]
Scheme = Callable[[Floats], Any]
Figures = dict[str, Any]


@claim(
    paper=299,
    says="Single linkage at a fixed scale never takes items apart under a map that takes no distance up, and each of "
    "its groups alone is one group; cliques of three do so under one-to-one maps only, average and complete linkage, "
    "k-means, k-medoids and DBSCAN do not; each way to stop single linkage breaks just one of Kleinberg's axioms",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Count violations; broken: average linkage stands in for single linkage."""
    times = 1 if scale == "small" else 5
    jobs = [("single linkage, scale", "non-expanding", 1000 * times)]
    jobs += [("single linkage, scale", axiom, 300 * times) for axiom in ("isometric", "injective", "excisive")]
    jobs += [("cliques of three", axiom, 100 * times) for axiom in ("injective", "excisive")]
    jobs += [("cliques of three", "non-expanding", 100 * times)]
    jobs += [(name, axiom, 100 * times) for name in STOPS for axiom in KLEINBERG]
    jobs += [(name, "non-expanding", 100 * times) for name in ("average linkage", "complete linkage", "k-medoids")]
    jobs += [("DBSCAN", "non-expanding", 100 * times), ("k-means", "non-expanding", 15 * times)]
    counts = spread(functools.partial(_count, broken=broken), list(zip(jobs, derive(seed, len(jobs)), strict=True)))
    seen: dict[str, Figures] = {}
    for (name, axiom, trials), count in zip(jobs, counts, strict=True):
        seen.setdefault(name, {})[axiom] = {"violations": count, "trials": trials}
    fallen = [name for name in ("single linkage, scale", "cliques of three", "DBSCAN") if _falls(name, broken)]
    whole = _bad(seen, "single linkage, scale")
    met = [
        not whole & {"isometric", "injective", "non-expanding", "excisive"},
        # Few drawn maps merge just the items that density rests on, so these two are judged on three items and a map.
        not _bad(seen, "cliques of three") & {"injective", "excisive"},
        fallen == ["cliques of three", "DBSCAN"],
        all("non-expanding" in _bad(seen, name) for name in ("average linkage", "complete linkage")),
        all("non-expanding" in _bad(seen, name) for name in ("k-medoids", "k-means")),
        whole & set(KLEINBERG) == {"scale-invariant"},
        _bad(seen, "single linkage, k") == {"rich"},
        _bad(seen, "single linkage, share") == {"consistent"},
    ]
    real = spread(functools.partial(_digits, broken=broken), derive(seed, 10 if scale == "small" else 30, stream=1))
    apart = {name: int(sum(one[name] for one in real)) for name in real[0]}
    met += [apart["single linkage"] == 0, *[count > 0 for name, count in apart.items() if name != "single linkage"]]
    return Evidence(
        holds=all(met),
        measured={
            **seen,
            "fall apart when two of three near items become one": fallen,
            f"digits, {len(real)} samples of {ITEMS}: pairs taken apart by four maps that take no distance up": apart,
        },
        expected="no violation where the theorem says so, at least one of every other scheme; Kleinberg's axioms: only "
        "scale invariance is broken at a scale, only richness at k groups, only consistency at a share of the "
        "diameter; the same on digits",
        baseline="average and complete linkage, DBSCAN at the same scale (3 neighbours), k-means (scikit-learn, 5 "
        "starts, on the coordinates of classical scaling) and k-medoids (FasterPAM) at 3 groups, 10 on digits",
        kind="measured",
    )


def _bad(seen: dict[str, Figures], name: str) -> set[str]:
    return {axiom for axiom, one in seen[name].items() if one["violations"]}


def _falls(name: str, broken: bool) -> bool:
    """Whether a group of three is lost where two of its items are taken to one: the other two stay as near."""
    near = 0.5 * SCALE
    try:
        functorial(_schemes(SCALE, GROUPS, broken)[name], clique(3, near), (clique(2, near), np.array([0, 0, 1])))
    except SchemeBroken:
        return True
    return False


def _single(D: Floats, threshold: float) -> Any:
    return kofn.assign(distances=D, method="single_linkage", threshold=threshold).labels


def _hierarchy(D: Floats, kind: Literal["average", "complete"], threshold: float) -> Any:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(D) == 1:
        return np.zeros(1, np.int64)
    return fcluster(linkage(squareform(D, checks=False), kind), threshold, "distance")


def _dbscan(D: Floats, threshold: float) -> Any:
    from sklearn.cluster import DBSCAN

    return DBSCAN(eps=threshold, min_samples=3, metric="precomputed").fit_predict(D)


def _kmeans(D: Floats, k: int) -> Any:
    from sklearn.cluster import KMeans

    n = len(D)
    middle = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * middle @ (D * D) @ middle)
    points = vectors * np.sqrt(np.maximum(values, 0))
    return KMeans(min(k, n), n_init=5, random_state=0).fit_predict(points)


def _schemes(threshold: float, k: int, broken: bool) -> dict[str, Scheme]:
    average: Scheme = functools.partial(_hierarchy, kind="average", threshold=threshold)
    return {
        "single linkage, scale": average if broken else functools.partial(_single, threshold=threshold),
        "single linkage, k": lambda D: kofn.assign(distances=D, method="single_linkage", k=min(k, len(D))).labels,
        "single linkage, share": lambda D: _single(D, 0.5 * float(D.max())),
        "cliques of three": represented([clique(3, threshold)]),
        "average linkage": average,
        "complete linkage": functools.partial(_hierarchy, kind="complete", threshold=threshold),
        "DBSCAN": functools.partial(_dbscan, threshold=threshold),
        "k-means": functools.partial(_kmeans, k=k),
        "k-medoids": lambda D: kofn.assign(distances=D, k=min(k, len(D)), method="fasterpam", seed=0).labels,
    }


def _count(job: tuple[tuple[str, str, int], int], *, broken: bool) -> int:
    (name, axiom, trials), seed = job
    scheme = _schemes(SCALE, GROUPS, broken)[name]
    # Cliques try every map; the others see spaces of up to 30 items.
    return violations(scheme, axiom, trials=trials, seed=seed, most=9 if name == "cliques of three" else 30)


def _digits(seed: int, *, broken: bool) -> dict[str, int]:
    """Pairs together before a map and apart after it, summed over projections and an inclusion."""
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(seed)
    rows = digits().X[rng.permutation(len(digits().X))[:ITEMS]].astype(np.float64)
    rows = rows - rows.mean(axis=0)
    few = ITEMS * 3 // 4
    D = cdist(rows, rows)
    # Where about half of the digits have their nearest neighbour.
    threshold = float(np.quantile((D + np.where(np.eye(ITEMS) > 0, np.inf, 0)).min(axis=1), 0.5)) * (1 + 1e-9)
    axes = np.linalg.svd(rows, full_matrices=False)[2].T
    pairs = [(D, cdist(rows @ axes[:, :m], rows @ axes[:, :m])) for m in (4, 10, 25)]
    pairs.append((D[:few, :few], D))
    schemes = _schemes(threshold, REAL_GROUPS, broken)
    out = {}
    for name in ("single linkage, scale", "average linkage", "complete linkage", "k-medoids"):
        lost = [together(schemes[name](a)) & ~together(schemes[name](b))[: len(a), : len(a)] for a, b in pairs]
        out[name.removesuffix(", scale")] = int(sum(one.sum() // 2 for one in lost))
    return out
