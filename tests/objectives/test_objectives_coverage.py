"""Coverage, graph cut, medoid loss and mixtures: against their definitions, set by set, and against apricot and
submodlib where those mean the same."""

from __future__ import annotations

import functools
import itertools
import math
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans

from kofn.core.checks import InputError
from kofn.laws import LAWS, Case
from kofn.objectives import _amounts
from kofn.objectives.coverage import FeatureBased, SaturatedCoverage, WeightedCoverage
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.graph_cut import GraphCut
from kofn.objectives.kcenter import KCenter
from kofn.objectives.medoids import MedoidLoss
from kofn.objectives.mixtures import Mixture
from kofn.objectives.modular import Modular
from kofn.selection import lazy_greedy, naive_greedy

METRICS = ("euclidean", "sqeuclidean", "cosine")
N = 7


def plain_similarity(X, metric):
    """Largest distance less the distance, or (1 + cos) / 2, by loops."""
    X = np.asarray(X, np.float64)
    out = np.empty((len(X), len(X)))
    for i, a in enumerate(X):
        for j, b in enumerate(X):
            if metric == "cosine":
                sizes = math.hypot(*a) * math.hypot(*b)
                out[i, j] = (1 + a @ b / sizes) / 2 if sizes else (1.0 if not a.any() and not b.any() else 0.5)
            else:
                out[i, j] = math.dist(a, b) ** (2 if metric == "sqeuclidean" else 1)
    return out if metric == "cosine" else out.max() - out


def saturated(S, alpha, w, picks):
    return sum(w[i] * min(sum(S[i, j] for j in picks), alpha * S[i].sum()) for i in range(len(S)))


def cut(S, lam, w, picks):
    return sum(w[i] * S[i, j] for i in range(len(S)) for j in picks) - lam * sum(S[i, j] for i in picks for j in picks)


CONCAVE = {"sqrt": math.sqrt, "log": math.log1p, "capped": lambda t: min(t, 1.5)}


def featured(X, concave, w, picks):
    return sum(w[u] * CONCAVE[concave](sum(X[j, u] for j in picks)) for u in range(X.shape[1]))


def covered(X, w, picks):
    return sum(w[u] for u in range(X.shape[1]) if any(X[j, u] > 0 for j in picks))


def medoid_loss(D, first, w, picks):
    return sum(w[i] * (first[i] - min([first[i], *(D[i, j] for j in picks)])) for i in range(len(D)))


def cases():
    """name -> (fresh objective, value of a set by its definition)."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(N, 3))
    X[4] = X[1]
    w = rng.exponential(size=N)
    S = rng.random((N, N)) * (rng.random((N, N)) < 0.6)
    both = S + S.T
    A = rng.random((N, 5)) * (rng.random((N, 5)) < 0.5)
    v = rng.exponential(size=5)
    one = np.ones(N)
    out = {}
    for metric in METRICS:
        T = plain_similarity(X, metric)
        out[f"saturated {metric}"] = (
            lambda metric=metric: SaturatedCoverage(X, metric=metric, weights=w, alpha=0.3),
            lambda s, T=T: saturated(T, 0.3, w, s),
        )
        out[f"cut {metric}"] = (
            lambda metric=metric: GraphCut(X, metric=metric, lam=0.9),
            lambda s, T=T: cut(T, 0.9, one, s),
        )
        D = 2 * (1 - T) if metric == "cosine" else T.max() - T
        origin = np.ones(N) if metric == "cosine" else np.linalg.norm(X, axis=1) ** (1 + (metric == "sqeuclidean"))
        out[f"medoids {metric}"] = (
            lambda metric=metric: MedoidLoss(X, metric=metric, weights=w),
            lambda s, D=D, origin=origin: medoid_loss(D, origin, w, s),
        )
    for name, table in (("skew", S), ("symmetric", both)):
        for kind in (np.asarray, np.asfortranarray, sp.csr_matrix, sp.csc_array):
            label = f"{name} {kind.__name__}"
            out[f"saturated {label}"] = (
                lambda table=table, kind=kind: SaturatedCoverage(similarity=kind(table), alpha=0.25),
                lambda s, table=table: saturated(table, 0.25, one, s),
            )
            out[f"cut {label}"] = (
                lambda table=table, kind=kind: GraphCut(similarity=kind(table), lam=0.4, weights=w),
                lambda s, table=table: cut(table, 0.4, w, s),
            )
    for kind in (np.asarray, np.float32, sp.csr_array, sp.coo_matrix):
        for concave in CONCAVE:
            cap = {"cap": 1.5} if concave == "capped" else {}
            B = A.astype(np.float32).astype(np.float64) if kind is np.float32 else A
            out[f"features {concave} {kind.__name__}"] = (
                lambda kind=kind, concave=concave, cap=cap: FeatureBased(
                    kind(A), concave=concave, feature_weights=v, **cap
                ),
                lambda s, concave=concave, B=B: featured(B, concave, v, s),
            )
        out[f"elements {kind.__name__}"] = (
            lambda kind=kind: WeightedCoverage(kind(A), element_weights=v),
            lambda s: covered(A, v, s),
        )
    D = np.abs(X[:, :1] - X[:, :1].T)
    out["medoids distances"] = (
        lambda: MedoidLoss(distances=D),
        lambda s: medoid_loss(D, np.full(N, D.max()), one, s),
    )
    out["medoids at a point"] = (
        lambda: MedoidLoss(X, phantom=X[2]),
        lambda s: medoid_loss(
            plain_similarity(X, "euclidean")[0, 0] - plain_similarity(X, "euclidean"),
            np.linalg.norm(X - X[2], axis=1),
            one,
            s,
        ),
    )
    out["mixture"] = (
        lambda: Mixture([(0.5, FeatureBased(A)), (2.0, MedoidLoss(X)), (0.0, KCenter(X))]),
        lambda s: (
            0.5 * featured(A, "sqrt", np.ones(5), s)
            + 2
            * medoid_loss(
                plain_similarity(X, "euclidean")[0, 0] - plain_similarity(X, "euclidean"),
                np.linalg.norm(X, axis=1),
                one,
                s,
            )
        ),
    )
    return out


CASES = cases()


@pytest.fixture
def compiled(monkeypatch):
    """Take the path of large pools at every size."""
    from kofn.objectives import facility_location

    monkeypatch.setattr(_amounts, "is_small", lambda n, d: False)
    monkeypatch.setattr(facility_location, "is_small", lambda n, d: False)


@pytest.fixture(params=["numpy", "compiled"])
def path(request):
    if request.param == "compiled":
        request.getfixturevalue("compiled")
    return request.param


def exact_gains(f, candidates):
    return f.exact_gains(candidates)


@pytest.mark.parametrize("name", CASES)
def test_every_set_has_the_value_of_the_definition_and_gains_are_differences(path, name):
    make, plain = CASES[name]
    f = make()
    worth = {s: plain(s) for size in range(N + 1) for s in itertools.combinations(range(N), size)}
    for picks, value in worth.items():
        assert f.value(picks) == pytest.approx(value, rel=1e-12, abs=1e-12)
    for picks in ((), (3,), (1, 4), (0, 5, 6), (2, 4, 1, 0, 6)):
        f = make()
        total = sum(f.add(item) for item in picks)
        assert total == pytest.approx(worth[tuple(sorted(picks))], rel=1e-12, abs=1e-12)
        rest = [item for item in range(N) if item not in picks]
        differences = [worth[tuple(sorted((*picks, item)))] - worth[tuple(sorted(picks))] for item in rest]
        tolerance = f.tolerance
        np.testing.assert_allclose(f.gains(np.array(rest)), differences, rtol=1e-12, atol=1e-12 + tolerance)
        np.testing.assert_allclose(exact_gains(f, np.array(rest)), differences, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_submodular_and_monotone_as_it_says(name):
    make, plain = CASES[name]
    f = make()
    worth = {frozenset(s): plain(s) for size in range(N + 1) for s in itertools.combinations(range(N), size)}
    gain = {(s, j): worth[s | {j}] - worth[s] for s in worth for j in range(N) if j not in s}
    assert f.submodular
    # Adding one more pick first never raises a gain: that is enough for all pairs of sets.
    assert all(gain[s | {i}, j] <= gain[s, j] + 1e-12 for s, j in gain for i in range(N) if i not in s and i != j)
    assert f.monotone == (min(gain.values()) >= -1e-12)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_graph_cut_is_monotone_exactly_up_to_the_lam_it_says(symmetric, weighted, seed):
    rng = np.random.default_rng(seed)
    S = rng.random((6, 6)) * (rng.random((6, 6)) < 0.7)
    S = S + S.T if symmetric else S
    w = rng.exponential(size=6) if weighted else np.ones(6)
    f = GraphCut(similarity=S, weights=w if weighted else None)
    edge = f.monotone_up_to
    if symmetric and not weighted:
        assert edge >= 0.5
    worth = {lam: {} for lam in (edge * (1 - 1e-9), edge * (1 + 1e-9) + 1e-9)}
    for lam, values in worth.items():
        for size in range(7):
            values.update({frozenset(s): cut(S, lam, w, s) for s in itertools.combinations(range(6), size)})
        least = min(values[s | {j}] - values[s] for s in values for j in range(6) if j not in s)
        assert GraphCut(similarity=S, weights=w if weighted else None, lam=lam).monotone == (least >= 0)


def test_graph_cut_says_half_without_looking_and_isolated_items_set_no_limit():
    rng = np.random.default_rng(0)
    f = GraphCut(rng.normal(size=(9, 2)), lam=0.5)
    before = f.distance_evals
    assert f.monotone
    assert f.distance_evals == before
    assert GraphCut(similarity=np.zeros((3, 3)), lam=100.0).monotone
    assert GraphCut(similarity=np.eye(3), lam=1.0).monotone
    assert not GraphCut(similarity=np.eye(3), lam=1.0 + 1e-9).monotone


def greedy(f, k):
    """Every gain at every step, ties to the lowest index; returns picks and gains."""
    picks, gains = [], []
    for _ in range(k):
        rest = np.setdiff1d(np.arange(f.n), picks)
        picks.append(int(rest[np.argmax(exact_gains(f, rest))]))
        gains.append(f.add(picks[-1]))
    return picks, gains


def large():
    """Objectives on pools that take several blocks, each with a way to make it on one thread or on four."""
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(8, 6))[rng.integers(8, size=2300)] * 2 + rng.normal(size=(2300, 6))).astype(np.float32)
    A = sp.random_array((2300, 400), density=0.02, rng=rng, format="csr")
    S = sp.random_array((2300, 2300), density=0.01, rng=rng, format="csr")
    return {
        "saturated": lambda t: SaturatedCoverage(X, alpha=0.004, n_threads=t),
        "saturated cosine": lambda t: SaturatedCoverage(X, metric="cosine", alpha=0.004, n_threads=t),
        "saturated sparse": lambda t: SaturatedCoverage(similarity=S, alpha=0.02),
        "cut": lambda t: GraphCut(X, lam=20.0, n_threads=t),
        "cut sparse": lambda t: GraphCut(similarity=S, lam=3.0),
        "medoids": lambda t: MedoidLoss(X, metric="sqeuclidean", n_threads=t),
        "features": lambda t: FeatureBased(A),
        "features log": lambda t: FeatureBased(A, concave="log"),
        "features dense": lambda t: FeatureBased(A.toarray()),
        "features capped": lambda t: FeatureBased(A, concave="capped", cap=0.7),
        "elements": lambda t: WeightedCoverage(A),
        "mixture": lambda t: Mixture([(1.0, FacilityLocation(X, n_threads=t)), (9.0, FeatureBased(A))]),
    }


LARGE = large()


@pytest.mark.parametrize("name", LARGE)
def test_lazy_picks_are_those_of_a_full_look_each_time_for_any_number_of_threads(name):
    rows = np.zeros((2300, 1))
    picks, gains = greedy(LARGE[name](1), 7)
    for threads in (1, 3):
        plan = lazy_greedy(rows, objective=LARGE[name](threads), k=7)
        assert plan.indices.tolist() == picks
        assert plan.gains.tolist() == gains
    full = naive_greedy(rows, objective=LARGE[name](2), k=7)
    assert full.indices.tolist() == picks
    assert full.value == pytest.approx(LARGE[name](1).value(picks), rel=1e-12)
    if name in ("saturated", "saturated cosine", "features", "elements"):
        assert plan.info["oracle_calls"] < 0.6 * full.info["oracle_calls"]


@pytest.mark.parametrize("name", [name for name in LARGE if name not in ("medoids", "mixture")])
def test_a_gain_is_the_same_whoever_else_is_asked_for_and_never_rises_not_even_by_rounding(name):
    f = LARGE[name](2)
    before = f.gains(np.arange(f.n))
    rng = np.random.default_rng(1)
    for pick in rng.choice(f.n, 5, replace=False):
        some = rng.choice(f.n, 100, replace=False)
        assert f.gains(some).tolist() == before[some].tolist()
        assert f.gains(some[:1]).tolist() == before[some[:1]].tolist()
        f.add(pick)
        now = f.gains(np.arange(f.n))
        assert (now <= before).all()
        before = now


def test_table_and_rows_agree(compiled, monkeypatch):
    X = np.random.default_rng(2).normal(size=(300, 4))
    wide = [SaturatedCoverage(X, alpha=0.02), GraphCut(X, lam=5.0)]
    monkeypatch.undo()
    small = [SaturatedCoverage(X, alpha=0.02), GraphCut(X, lam=5.0)]
    for a, b in zip(wide, small, strict=True):
        assert isinstance(a._amounts if hasattr(a, "_amounts") else a._toward, _amounts.Similar)
        picks, gains = greedy(a, 15)
        again, same = greedy(b, 15)
        assert picks == again
        np.testing.assert_allclose(gains, same, rtol=1e-12)


def test_apricot_picks_the_same_where_it_means_the_same():
    pytest.importorskip("apricot")
    from apricot import FeatureBasedSelection, GraphCutSelection, MaxCoverageSelection, SaturatedCoverageSelection

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    # Its "euclidean" is largest squared distance less squared distance.
    S = plain_similarity(X, "sqeuclidean")
    A = rng.random((60, 12)) * (rng.random((60, 12)) < 0.4)
    theirs = SaturatedCoverageSelection(10, metric="precomputed", alpha=0.05, optimizer="naive").fit(S)
    ours = greedy(SaturatedCoverage(X, metric="sqeuclidean", alpha=0.05), 10)
    assert ours[0] == theirs.ranking.tolist()
    np.testing.assert_allclose(ours[1], theirs.gains, rtol=1e-9, atol=1e-9)
    # Its weight is on the first term: alpha f with lam = 1 / alpha.
    theirs = GraphCutSelection(10, metric="precomputed", alpha=0.25, optimizer="naive").fit(S)
    ours = greedy(GraphCut(X, metric="sqeuclidean", lam=4.0), 10)
    assert ours[0] == theirs.ranking.tolist()
    np.testing.assert_allclose(np.array(ours[1]) / 4, theirs.gains, rtol=1e-9, atol=1e-9)
    for concave in ("sqrt", "log"):
        theirs = FeatureBasedSelection(10, concave_func=concave, optimizer="naive").fit(A)
        ours = greedy(FeatureBased(A, concave=concave), 10)
        assert ours[0] == theirs.ranking.tolist()
        np.testing.assert_allclose(ours[1], theirs.gains, rtol=1e-9, atol=1e-9)
    theirs = MaxCoverageSelection(10, threshold=1.2, optimizer="naive").fit(A)
    ours = greedy(FeatureBased(A, concave="capped", cap=1.2), 10)
    np.testing.assert_allclose(ours[1], theirs.gains, rtol=1e-9, atol=1e-12)
    theirs = MaxCoverageSelection(4, threshold=1.0, optimizer="naive").fit((A > 0).astype(float))
    assert greedy(WeightedCoverage(A), 4)[1] == theirs.gains.tolist()


@pytest.mark.parametrize("seed", range(2))
def test_submodlib_values_are_the_same_where_it_means_the_same(seed):
    pytest.importorskip("submodlib")
    from submodlib.functions.featureBased import FeatureBased as Mode
    from submodlib.functions.featureBased import FeatureBasedFunction
    from submodlib.functions.graphCut import GraphCutFunction
    from submodlib.functions.setCover import SetCoverFunction

    rng = np.random.default_rng(seed)
    S = rng.random((20, 20)).astype(np.float32)
    S = (S + S.T) / 2
    A = (rng.random((20, 8)) * (rng.random((20, 8)) < 0.5)).astype(np.float32)
    w = rng.integers(1, 5, 8).astype(float)
    graph = GraphCutFunction(n=20, mode="dense", lambdaVal=0.4, separate_rep=False, mgsijs=S)
    sets = [set(np.flatnonzero(row).tolist()) for row in A]
    cover = SetCoverFunction(n=20, cover_set=sets, num_concepts=8, concept_weights=w.tolist())
    # It rescales every feature to [0, 1] first; its saturated coverage has no body to compare with.
    scaled = (A - A.min(axis=0)) / np.ptp(A, axis=0)
    modes = {"sqrt": Mode.squareRoot, "log": Mode.logarithmic}
    features = {
        name: FeatureBasedFunction(20, A.tolist(), 8, False, featureWeights=w.tolist(), mode=mode)
        for name, mode in modes.items()
    }
    for size in (1, 3, 8):
        picks = rng.choice(20, size, replace=False)
        chosen = set(picks.tolist())
        assert GraphCut(similarity=S, lam=0.4).value(picks) == pytest.approx(graph.evaluate(chosen), rel=1e-5)
        assert WeightedCoverage(A, element_weights=w).value(picks) == pytest.approx(cover.evaluate(chosen))
        for name, theirs in features.items():
            mine = FeatureBased(scaled, concave=name, feature_weights=w).value(picks)
            assert mine == pytest.approx(theirs.evaluate(chosen), rel=1e-5)


@pytest.mark.parametrize(
    ("metric", "phantom"),
    [
        ("euclidean", 1.7e308),
        ("sqeuclidean", 1.7e308),
        ("cosine", 1.7e308),
        ("euclidean", [1.7e308, 0.0]),
        ("sqeuclidean", [1e200, 1e200]),
    ],
)
def test_a_phantom_whose_loss_overflows_is_refused(metric, phantom):
    rows = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    with pytest.raises(InputError, match=r"phantom=.* is so far from the items that its loss is no number"):
        MedoidLoss(rows, metric=metric, phantom=phantom)


def test_medoid_loss_is_facility_location_where_the_phantom_is_far():
    X = np.random.default_rng(0).normal(size=(200, 3))
    near = FacilityLocation(X)
    far = MedoidLoss(X, phantom=near.offset)
    picks, gains = greedy(near, 12)
    again, same = greedy(far, 12)
    assert picks == again
    np.testing.assert_allclose(gains, same, rtol=1e-12)
    centres = X[picks]
    loss = np.linalg.norm(X[:, None] - centres, axis=2).min(axis=1).sum()
    assert far.phantom_loss - math.fsum(same) == pytest.approx(loss)


def test_an_item_nearer_to_the_phantom_than_to_any_pick_stays_with_it(path):
    f = MedoidLoss([[0.1], [5.0], [5.5], [-0.2]])
    f.add(1)
    assert f.nearest.tolist() == [-1, 0, 0, -1]
    f.add(3)
    assert f.nearest.tolist() == [-1, 0, 0, 1]
    assert f.offset is None


def test_medoid_loss_from_distances_takes_the_compiled_path_too(compiled):
    rng = np.random.default_rng(4)
    X = rng.normal(size=(2100, 3))
    D = np.linalg.norm(X[:, None] - X, axis=2)
    picks, gains = greedy(MedoidLoss(distances=D, phantom=1.0), 4)
    assert math.fsum(gains) == pytest.approx(medoid_loss(D, np.ones(len(D)), np.ones(len(D)), picks), rel=1e-12)
    assert picks == greedy(MedoidLoss(X, phantom=1.0), 4)[0]


def test_greedy_medoids_are_about_as_good_as_kmeans_centres():
    """Exemplar clustering is for something: its loss, with the origin in the middle, is near that of free centres."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 5))[rng.integers(6, size=600)] * 4 + rng.normal(size=(600, 5))
    X -= X.mean(axis=0)
    f = MedoidLoss(X, metric="sqeuclidean")
    _, gains = greedy(f, 6)
    free = KMeans(6, n_init=5, random_state=0).fit(X).inertia_
    assert free <= f.phantom_loss - math.fsum(gains) < 1.5 * free


def test_mixture_forwards_what_its_parts_promise():
    X = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    smooth, rough = FacilityLocation(X), GraphCut(X, lam=3.0)
    mixed = Mixture([(0.25, smooth), (0.75, rough)])
    assert mixed.submodular
    assert not mixed.monotone
    assert mixed.eager
    mixed.bind(stop := list)
    assert smooth.poll is stop
    assert rough.poll is stop
    fast, exact = mixed.gains(np.arange(400)), mixed.exact_gains(np.arange(400))
    assert np.abs(fast - exact).max() <= mixed.tolerance
    assert mixed.tolerance >= 0.25 * smooth.tolerance > 0
    assert mixed.calls == smooth.calls + rough.calls
    assert mixed.distance_evals == smooth.distance_evals + rough.distance_evals
    assert not Mixture([(1.0, FacilityLocation(X)), (1.0, FeatureBased(np.abs(X)))]).eager
    assert not Mixture([(1.0, FacilityLocation(X)), (1.0, KCenter(X))]).submodular
    assert mixed.offset == smooth.offset
    assert Mixture([(1.0, rough)]).offset is None
    # A part that weighs nothing promises nothing.
    assert Mixture([(1.0, FacilityLocation(X)), (0.0, KCenter(X))]).submodular


class Own:
    """The user's own: three methods and no word on what it is."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, float)

    def gains(self, candidates):
        return self.scores[candidates]

    def add(self, item):
        return self.scores[item]

    def value(self, indices):
        return self.scores[indices].sum()


def test_mixture_takes_the_users_own_and_stops_between_its_blocks(monkeypatch):
    mixed = Mixture([(2.0, Own([1.0, 5.0, 2.0])), (1.0, Modular([3.0, 0.0, 0.0]))])
    assert not mixed.submodular
    assert not mixed.monotone
    assert mixed.gains([0, 1, 2]).tolist() == [5.0, 10.0, 4.0]
    assert mixed.tolerance == 0.0
    plan = naive_greedy(np.zeros((3, 1)), objective=mixed, k=2)
    assert plan.indices.tolist() == [1, 0]
    assert plan.value == 15.0
    asked = []
    mixed.bind(lambda: asked.append(1))
    monkeypatch.setattr("kofn.objectives.mixtures._AT_ONCE", 2)
    mixed.gains([0, 1, 2])
    assert len(asked) == 4


def test_mixtures_asked_for_as_text_are_recounted():
    X = np.abs(np.random.default_rng(0).normal(size=(9, 3)))
    for text in (
        "0.5*feature_based + 2*graph_cut(lam=0.3)",
        "0.7*facility_location + 0.3*feature_based(concave='log')",
        "saturated_coverage(alpha=0.2) + 3*medoid_loss(phantom=1.5)",
    ):
        case = Case.of("select", "lazy_greedy", {"X": X, "k": 3, "objective": text})
        assert all(LAWS[law](case) for law in ("recount", "greedy", "sandwich"))


@pytest.mark.parametrize("name", ["saturated", "saturated sparse", "cut", "features", "features dense", "elements"])
def test_stopping_in_the_middle_loses_nothing(name, monkeypatch):
    monkeypatch.setattr(_amounts, "_AT_ONCE", 1 << 14)
    monkeypatch.setattr(_amounts.Similar, "_blocks", _impatient(_amounts.Similar._blocks))
    f, twin = LARGE[name](1), LARGE[name](1)
    everyone = np.arange(f.n)
    looks = itertools.count()

    def stop():
        if next(looks) == 2:
            raise TimeoutError

    f.bind(stop)
    with pytest.raises(TimeoutError):
        [f.gains(everyone) for _ in range(3)]
    assert f.gains(everyone).tolist() == twin.gains(everyone).tolist()
    assert f.add(3) == twin.add(3)
    assert f.gains(everyone).tolist() == twin.gains(everyone).tolist()


def _impatient(blocks):
    """Blocks that ask after every few of them, as a pool of another size would."""

    def ask(self, count, work):
        for low in range(0, count, 500):
            if low and self.poll is not None:
                self.poll()
            blocks(self, min(500, count - low), lambda a, b, low=low: work(low + a, low + b))

    return ask


def test_nothing_n_by_n_is_held():
    n = 4000
    X = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    GraphCut(X[:100]).gains([0])
    for make in (SaturatedCoverage, GraphCut):
        tracemalloc.start()
        f = make(X, n_threads=2)
        f.gains(np.arange(n))
        f.add(0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 * n * n / 4


def test_a_hundred_thousand_sparse_items():
    A = sp.random_array((100_000, 2000), density=0.003, rng=np.random.default_rng(0), format="csr")
    for f in (WeightedCoverage(A), FeatureBased(A)):
        tracemalloc.start()
        plan = lazy_greedy(np.zeros((100_000, 1)), objective=f, k=20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert f.value(plan.indices) == pytest.approx(plan.value, rel=1e-12)
        assert plan.info["oracle_calls"] < 300_000
        assert peak < 100e6


def test_sparse_input_is_left_as_it_was():
    twice = sp.csr_array((np.array([1.0, 2.0, 3.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    f = FeatureBased(twice)
    assert f.gains([0, 1]) == pytest.approx(math.sqrt(3))
    assert twice.nnz == 3
    WeightedCoverage(twice)
    assert twice.data.tolist() == [1.0, 2.0, 3.0]


BAD = {
    "negative feature": (
        lambda: FeatureBased([[1.0, 0.0], [0.0, -2.0]]),
        r"X at row 1, column 1 is -2; .*max\(-x, 0\)",
    ),
    "negative sparse": (lambda: FeatureBased(sp.csr_array([[1.0, 0.0], [-2.0, 0.0]])), "X at row 1, column 0 is -2"),
    "sparse NaN": (lambda: WeightedCoverage(sp.csr_array([[1.0, np.nan]])), "X at row 0, column 1 is nan"),
    "empty sparse": (lambda: WeightedCoverage(sp.csr_array((0, 3))), r"X has shape \(0, 3\)"),
    "no features": (lambda: FeatureBased(), "feature_based needs X"),
    "negative set": (lambda: WeightedCoverage([[1, -1]]), "weighted_coverage takes features >= 0"),
    "few weights": (lambda: FeatureBased([[1.0, 2.0]], feature_weights=[1.0]), "1 values, X has 2 columns"),
    "negative weight": (lambda: FeatureBased([[1.0, 2.0]], feature_weights=[1, -1]), "feature_weights at row 1 is -1"),
    "element weights": (lambda: WeightedCoverage([[1, 1]], element_weights=[1, 2, 3]), "3 values, X has 2 columns"),
    "unknown concave": (lambda: FeatureBased([[1.0]], concave="sqr"), "concave='sqr'.*did you mean 'sqrt'"),
    "cap without use": (lambda: FeatureBased([[1.0]], cap=2), "concave='sqrt' has no cap"),
    "cap of nothing": (lambda: FeatureBased([[1.0]], concave="capped", cap=0), "cap of feature 0 is 0"),
    "alpha 0": (lambda: SaturatedCoverage([[1.0]], alpha=0), "alpha=0: .*share in"),
    "alpha 2": (lambda: SaturatedCoverage([[1.0]], alpha=2), "alpha=2: give a number between 0 and 1"),
    "both sources": (lambda: SaturatedCoverage([[1.0]], similarity=[[1.0]]), "needs X or similarity, one of them"),
    "no source": (lambda: GraphCut(), "graph cut needs X or similarity"),
    "negative similarity": (lambda: GraphCut(similarity=[[1.0, -1.0], [0, 0]]), "similarity at row 0, column 1 is -1"),
    "negative lam": (lambda: GraphCut([[1.0]], lam=-1), "lam=-1: it must be >= 0"),
    "weights of others": (lambda: GraphCut([[1.0]], weights=[1, 2]), "weights has 2 values, X has 1 rows"),
    "little memory": (lambda: SaturatedCoverage(np.ones((50, 3)), max_memory=10), "max_memory=10 is too little"),
    "unknown metric": (lambda: GraphCut([[1.0]], metric="l1"), "metric='l1'"),
    "medoids of both": (lambda: MedoidLoss([[1.0]], distances=[[0.0]]), "needs X or distances, one of them"),
    "phantom width": (lambda: MedoidLoss([[1.0, 2.0]], phantom=[1.0]), "phantom has 1 values, X has 2 columns"),
    "negative phantom": (lambda: MedoidLoss([[1.0]], phantom=-1), "phantom=-1: it must be >= 0"),
    "phantom point": (lambda: MedoidLoss(distances=[[0.0]], phantom=[1.0]), "from distances there are no points"),
    "medoid weights": (lambda: MedoidLoss(distances=[[0.0]], weights=[1, 1]), "weights has 2 values, distances has 1"),
    "no parts": (lambda: Mixture([]), "a mixture needs parts"),
    "a bare part": (lambda: Mixture([Modular([1.0])]), "part 0 of the mixture is Modular"),
    "half an objective": (lambda: Mixture([(1.0, object())]), "lacks gains, add, value"),
    "negative part": (lambda: Mixture([(-1.0, Modular([1.0]))]), "the weight of part 0=-1.0: it must be >= 0"),
    "nothing counts": (lambda: Mixture([(0.0, Modular([1.0]))]), "all zero"),
    "two pools": (lambda: Mixture([(1, Modular([1.0])), (1, Modular([1.0, 2.0]))]), "1 and 2 items"),
    "twice": (lambda: Mixture([(1, part := Modular([1.0])), (1, part)]), "one objective twice"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name_place_and_remedy(name):
    make, message = BAD[name]
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("name", ["saturated euclidean", "cut sqeuclidean", "medoids euclidean"])
def test_extreme_units_change_nothing(path, name):
    X = np.random.default_rng(1).normal(size=(40, 3))
    kinds = {
        "saturated euclidean": lambda Z: SaturatedCoverage(Z, alpha=0.1),
        "cut sqeuclidean": lambda Z: GraphCut(Z, metric="sqeuclidean", lam=3.0),
        "medoids euclidean": lambda Z: MedoidLoss(Z),
    }
    picks = greedy(kinds[name](X), 6)[0]
    for size in (2.0**-60, 2.0**60):
        assert greedy(kinds[name](X * size), 6)[0] == picks


def test_one_item_and_equal_items():
    for f in (SaturatedCoverage([[2.0]]), GraphCut([[2.0]]), MedoidLoss([[2.0]]), FeatureBased([[4.0]])):
        assert f.add(0) == pytest.approx(f.value([0]))
    same = np.ones((5, 2))
    for f in (SaturatedCoverage(same), GraphCut(same), FeatureBased(same), WeightedCoverage(same)):
        assert greedy(f, 3)[0] == [0, 1, 2]


@pytest.mark.parametrize("concave", list(CONCAVE))
@pytest.mark.parametrize("name", ["feature_based", "weighted_coverage", "saturated_coverage"])
def test_near_ties_are_settled_and_go_to_the_lowest_row_dense_or_sparse(name, concave):
    """Rows of the same terms in another order are worth the same, though their float64 sums in that order differ."""
    rounded_otherwise = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        base = rng.choice([0.0, 0.1, 0.2, 0.3, 0.7, 1.1, 2.3], 12)
        turned = np.array([np.roll(base, shift) for shift in range(12)])
        for table in (turned, sp.csr_array(turned)):
            if name == "feature_based":
                make = functools.partial(FeatureBased, table, concave=concave, cap=0.9 if concave == "capped" else None)
            elif name == "weighted_coverage":
                # Every row covers all elements but one of the same weight.
                holes = (1 - np.eye(12)) if table is turned else sp.csr_array(1 - np.eye(12))
                make = functools.partial(WeightedCoverage, holes, element_weights=np.full(12, 0.1))
            else:
                make = functools.partial(SaturatedCoverage, similarity=table, alpha=0.5)
            f = make()
            gains, exact = f.gains(np.arange(12)), f.exact_gains(np.arange(12))
            rounded_otherwise += len(set(gains.tolist())) > 1
            assert np.abs(gains - exact).max() <= f.tolerance
            assert len(set(exact.tolist())) == 1
            assert exact[0] == make().add(0)
            for search in (lazy_greedy, naive_greedy):
                assert search(np.zeros((12, 1)), k=1, objective=make()).indices.tolist() == [0]
            # The pick that follows is that of exact gains too.
            picked = lazy_greedy(np.zeros((12, 1)), k=4, objective=make()).indices.tolist()
            f = make()
            for item in picked:
                exact = f.exact_gains(np.arange(12))
                exact[picked[: picked.index(item)]] = -1
                assert item == int(exact.argmax())
                f.add(item)
    assert rounded_otherwise or name == "weighted_coverage"


def test_weights_that_are_whole_leave_no_near_ties():
    f = WeightedCoverage(np.eye(3), element_weights=[1.0, 2.0, 3.0])
    f.gains([0, 1, 2])
    assert f.tolerance == 0
    g = WeightedCoverage(np.eye(3), element_weights=[0.1, 2.0, 3.0])
    g.gains([0, 1, 2])
    assert 0 < g.tolerance < 1e-14
