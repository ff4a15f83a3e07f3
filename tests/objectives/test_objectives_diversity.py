"""Log-determinants, dispersion, query-targeted objectives and gist against enumeration and submodlib."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.objectives.determinantal import LogDeterminant
from kofn.objectives.dispersion import Dispersion
from kofn.objectives.information import (
    FacilityLocationConditionalGain,
    FacilityLocationMutualInformation,
    GraphCutMutualInformation,
    LogDeterminantConditionalGain,
    LogDeterminantMutualInformation,
)
from kofn.selection import gist

N = 6


def pool(seed: int, n: int = N, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    X[-1] = X[0]
    return X


def plain_kernel(X: np.ndarray, kernel: str, scale: float = 1.3) -> np.ndarray:
    if kernel == "linear":
        return X @ X.T
    if kernel == "cosine":
        unit = X / np.linalg.norm(X, axis=1, keepdims=True)
        L = (1 + unit @ unit.T) / 2
        np.fill_diagonal(L, 1.0)
        return L
    return np.exp(-((X[:, None] - X[None]) ** 2).sum(axis=-1) / (2 * scale**2))


def plain_logdet(L: np.ndarray, picks: list[int], shift: float) -> float:
    return float(np.log(np.linalg.det(L[np.ix_(picks, picks)] + shift * np.eye(len(picks))))) if picks else 0.0


def every_set(n: int) -> list[list[int]]:
    return [list(c) for size in range(n + 1) for c in itertools.combinations(range(n), size)]


def check_protocol(make: Any, n: int, *, submodular: bool, monotone: bool, atol: float = 1e-9) -> None:
    """Gains along every path are differences of `value`, and what it declares holds for every pair of sets."""
    values = {frozenset(picks): make().value(np.array(picks, np.int64)) for picks in every_set(n)}
    assert values[frozenset()] == 0
    everyone = np.arange(n)
    for order in itertools.permutations(range(n), 3):
        f = make()
        for t, item in enumerate(order):
            before = frozenset(order[:t])
            left = np.array([i for i in everyone if i not in before])
            expected = np.array([values[before | {i}] - values[before] for i in left])
            assert np.allclose(f.gains(left), expected, atol=atol)
            assert f.add(item) == pytest.approx(values[before | {item}] - values[before], abs=atol)
    rises = falls = 0
    for small in every_set(n):
        for item in set(range(n)) - set(small):
            gain = values[frozenset(small) | {item}] - values[frozenset(small)]
            rises += gain < -atol
            for other in set(range(n)) - set(small) - {item}:
                larger = frozenset([*small, other])
                falls += values[larger | {item}] - values[larger] > gain + atol
    f = make()
    assert f.submodular == submodular
    assert f.monotone == monotone
    assert not (submodular and falls)
    assert not (monotone and rises)


KERNELS: list[dict[str, Any]] = [{"kernel": "linear"}, {"kernel": "cosine"}, {"kernel": "rbf", "scale": 1.3}]


@pytest.mark.parametrize("options", KERNELS)
@pytest.mark.parametrize("shift", [1.0, 2.5, 0.3])
def test_log_determinant_is_its_definition(options: dict[str, Any], shift: float) -> None:
    X = pool(0)
    L = plain_kernel(X, options["kernel"])
    for picks in every_set(N):
        value = LogDeterminant(X, shift=shift, **options).value(np.array(picks, np.int64))
        assert value == pytest.approx(plain_logdet(L, picks, shift), abs=1e-10)
    check_protocol(lambda: LogDeterminant(X, shift=shift, **options), N, submodular=True, monotone=shift >= 1)
    given = LogDeterminant(similarity=L, shift=shift)
    assert given.value(np.array([0, 2, 4])) == pytest.approx(plain_logdet(L, [0, 2, 4], shift))


def plain_greedy(L: np.ndarray, k: int, shift: float) -> list[int]:
    """Chen, Zhang, Zhou 2018, every row brought up to date at every step."""
    rows, residual, picks = np.zeros((k, len(L))), L.diagonal() + shift, []
    for t in range(k):
        item = int(np.argmax(np.where(np.isin(np.arange(len(L)), picks), -np.inf, residual)))
        rows[t] = (L[item] - rows[:t, item] @ rows[:t]) / np.sqrt(residual[item])
        picks.append(item)
        residual = residual - rows[t] ** 2
    return picks


@pytest.mark.parametrize("options", [{"kernel": "linear"}, {"kernel": "cosine"}, {"kernel": "rbf", "scale": 4.0}])
@pytest.mark.parametrize("n", [60, 4000])
def test_log_determinant_greedy_is_the_plain_loop_and_looks_at_less(options: dict[str, Any], n: int) -> None:
    X = np.random.default_rng(n).normal(size=(n, 12)) * 2
    k = 30
    expected = plain_greedy(plain_kernel(X, options["kernel"], 4.0), k, 1.0)
    plan = kofn.select(X, k=k, method="lazy_greedy", objective=LogDeterminant(X, **options))
    assert plan.indices.tolist() == expected
    f, open_items = LogDeterminant(X, **options), np.ones(n, bool)
    for item in expected:
        assert f.best(open_items) == item
        open_items[item] = False
        f.add(item)
    assert n == 60 or f.calls < 0.7 * n * k
    # Bounds of all gains without a further look, and those enclose them.
    calls, ceilings = f.calls, f.ceilings()
    assert f.calls == calls
    assert (ceilings >= LogDeterminant.gains(f, np.arange(n)) - 1e-12).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
@pytest.mark.parametrize("shift", [1.0, 1e-3, 0.0])
def test_ties_go_to_the_lowest_index_and_duplicates_tie(scale: float, shift: float) -> None:
    rng = np.random.default_rng(3)
    X = np.repeat(rng.normal(size=(40, 5)) * scale, 30, axis=0)[rng.permutation(1200)]
    _, group = np.unique(X, axis=0, return_inverse=True)
    f, open_items = LogDeterminant(X, shift=shift), np.ones(len(X), bool)
    for _ in range(5):
        item = f.best(open_items)
        assert item == np.flatnonzero((group == group[item]) & open_items)[0]
        gains = f.exact_gains(np.arange(len(X)))
        assert all(len(set(gains[group == one].tolist())) == 1 for one in range(40))
        assert gains[item] == gains[open_items].max()
        open_items[item] = False
        f.add(item)


def test_beyond_the_rank_gains_are_minus_infinity_and_never_nan() -> None:
    X = np.random.default_rng(0).normal(size=(12, 3)) * 100
    for options in ({}, {"kernel": "rbf", "scale": 1e9}):
        plan = kofn.select(X, k=8, method="lazy_greedy", objective=LogDeterminant(X, shift=0.0, **options))
        assert not np.isnan(plan.gains).any()
        rank = 3 if not options else int(np.isfinite(plan.gains).sum())
        assert np.isfinite(plan.gains[:rank]).all()
        assert (plan.gains[rank:] == -np.inf).all()
        assert plan.value == -np.inf
    shifted = kofn.select(X, k=8, method="lazy_greedy", objective=LogDeterminant(X))
    assert np.isfinite(shifted.gains).all()
    assert (shifted.gains >= 0).all()
    assert shifted.value == pytest.approx(LogDeterminant(X).value(shifted.indices), rel=1e-12)
    assert LogDeterminant(np.zeros((3, 2)), shift=0.0).gains(np.arange(3)).tolist() == [-np.inf] * 3


def test_steep_kernels_keep_their_digits() -> None:
    X = np.random.default_rng(1).integers(-3, 4, (40, 6)) * 1e4
    f = LogDeterminant(X.astype(float))
    total, picks = 0.0, []
    for item in range(0, 40, 2):
        total += f.add(item)
        picks.append(item)
    # Singular values, as the determinant's logarithm needs no cancellation there.
    exact = np.log1p(np.linalg.svd(X[picks], compute_uv=False) ** 2).sum()
    assert total == pytest.approx(exact, abs=1e-9)
    assert f.value(np.array(picks)) == pytest.approx(exact, abs=1e-9)


def test_log_determinant_refuses() -> None:
    X = pool(0)
    with pytest.raises(InputError, match="X or similarity"):
        LogDeterminant()
    with pytest.raises(InputError, match=r"kernel='rfb'.*rbf"):
        LogDeterminant(X, kernel="rfb")
    with pytest.raises(InputError, match="scale=0"):
        LogDeterminant(X, kernel="rbf", scale=0.0)
    with pytest.raises(InputError, match="leave it out"):
        LogDeterminant(X, scale=2.0)
    with pytest.raises(InputError, match="shift=-1"):
        LogDeterminant(X, shift=-1.0)
    with pytest.raises(InputError, match="not symmetric"):
        LogDeterminant(similarity=np.array([[1.0, 0.5], [0.1, 1.0]]))
    with pytest.raises(InputError, match=r"not positive semi-definite.*-1"):
        LogDeterminant(similarity=np.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(InputError, match="diagonal >= 0"):
        LogDeterminant(similarity=np.array([[-1.0, 0.0], [0.0, 1.0]]))


def test_a_large_indefinite_matrix_is_found_out_by_the_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.objectives import _determinantal_kernels as kernels

    monkeypatch.setattr(kernels, "_FACTORISED", 1)
    f = LogDeterminant(similarity=np.array([[1.0, 3.0], [3.0, 1.0]]), shift=1.0)
    f.add(0)
    with pytest.raises(InputError, match="not positive semi-definite"):
        f.gains(np.array([1]))


def test_sparse_similarity_is_the_dense_one() -> None:
    from scipy import sparse

    L = plain_kernel(np.random.default_rng(4).normal(size=(50, 3)), "rbf")
    L[L < 0.01] = 0
    L += np.eye(50)
    plans = [
        kofn.select(similarity=S, k=8, method="lazy_greedy", objective=LogDeterminant(similarity=S))
        for S in (L, sparse.csr_array(L))
    ]
    assert plans[0].indices.tolist() == plans[1].indices.tolist() == plain_greedy(L, 8, 1.0)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", ["sum", "min"])
def test_dispersion_is_its_definition_and_greedy_keeps_its_share(kind: str, metric: str) -> None:
    X = pool(5)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    squares = ((X[:, None] - X[None]) ** 2).sum(axis=-1)
    apart = {"euclidean": np.sqrt(squares), "sqeuclidean": squares, "cosine": 1 - unit @ unit.T}[metric]
    join = sum if kind == "sum" else min
    for picks in every_set(N):
        pairs = [apart[i, j] for i, j in itertools.combinations(picks, 2)]
        value = Dispersion(X, metric=metric, kind=kind).value(np.array(picks, np.int64))
        assert value == pytest.approx(join(pairs) if pairs else 0.0, abs=1e-9)
    check_protocol(lambda: Dispersion(X, metric=metric, kind=kind), N, submodular=False, monotone=kind == "sum")
    by_table = Dispersion(distances=np.maximum(apart, 0), kind=kind)
    assert by_table.value(np.array([1, 2, 4])) == pytest.approx(
        Dispersion(X, metric=metric, kind=kind).value([1, 2, 4])
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["sum", "min"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_greedy_dispersion_is_within_its_guarantee(kind: str, metric: str, seed: int) -> None:
    X = np.random.default_rng(seed).normal(size=(10, 2)) ** 3
    for k in (2, 3, 5):
        f = Dispersion(X, metric=metric, kind=kind)
        plan = kofn.select(X, k=k, method="naive_greedy", objective=f)
        best = max(f.value(np.array(picks)) for picks in itertools.combinations(range(10), k))
        assert f.guarantee is None or plan.value >= f.guarantee * best - 1e-12
    with pytest.raises(InputError, match="not submodular"):
        kofn.select(X, k=2, method="lazy_greedy", objective=Dispersion(X, kind=kind))
    assert Dispersion(X, metric="sqeuclidean", kind="sum").guarantee is None


def test_dispersion_refuses() -> None:
    with pytest.raises(InputError, match="X or distances"):
        Dispersion()
    with pytest.raises(InputError, match="kind='max'"):
        Dispersion(np.zeros((2, 1)), kind="max")


def cosine_parts(X: np.ndarray, *sets: np.ndarray) -> np.ndarray:
    return plain_kernel(np.concatenate([X, *sets]), "cosine")


@pytest.mark.parametrize("seed", range(2))
def test_targeted_objectives_keep_what_they_declare(seed: int) -> None:
    X, Q, P = pool(seed), pool(seed + 10, 2), pool(seed + 20, 3)
    for kernel in ({"kernel": "cosine"}, {"kernel": "rbf"}):
        for made, submodular in (
            (lambda o=kernel: FacilityLocationMutualInformation(X, queries=Q, eta=0.9, **o), True),
            (lambda o=kernel: FacilityLocationMutualInformation(X, queries=Q, private=P, nu=0.4, **o), True),
            (lambda o=kernel: FacilityLocationConditionalGain(X, private=P, nu=0.8, **o), True),
            (lambda o=kernel: GraphCutMutualInformation(X, queries=Q, **o), True),
            (lambda o=kernel: LogDeterminantConditionalGain(X, private=P, nu=0.7, **o), True),
            (lambda o=kernel: LogDeterminantMutualInformation(X, queries=Q, eta=0.7, **o), False),
        ):
            check_protocol(made, N, submodular=submodular, monotone=True)


def test_log_determinant_mutual_information_is_not_submodular() -> None:
    # The query is the sum of two items: neither alone tells it, both together do.
    X, Q = np.array([[3.0, 0.0], [0.0, 3.0]]), np.array([[10.0, 10.0]])
    f = LogDeterminantMutualInformation(X, queries=Q, shift=0.01)
    alone, after = f.value(np.array([1])), f.value(np.array([0, 1])) - f.value(np.array([0]))
    assert after > alone + 0.1


def test_conditional_gain_and_information_are_the_identities_at_one() -> None:
    X, Q = pool(7), pool(8, 2)
    both = np.concatenate([X, Q])
    whole = LogDeterminant(both)
    queries = np.arange(N, N + 2)
    gain = LogDeterminantConditionalGain(X, private=Q)
    information = LogDeterminantMutualInformation(X, queries=Q)
    for picks in every_set(N):
        A = np.array(picks, np.int64)
        joint = whole.value(np.concatenate([A, queries]))
        assert gain.value(A) == pytest.approx(joint - whole.value(queries), abs=1e-9)
        assert information.value(A) == pytest.approx(whole.value(A) + whole.value(queries) - joint, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_submodlib_agrees(seed: int) -> None:
    submodlib = pytest.importorskip("submodlib")
    X, Q, P = pool(seed, 9), pool(seed + 10, 3), pool(seed + 20, 2)
    n, q, p = 9, 3, 2
    S = cosine_parts(X, Q, P)
    data, query, private = S[:n, :n], S[:n, n : n + q], S[:n, n + q :]
    eta, nu = 0.8, 0.6
    sets = [set(c) for size in (1, 2, 4) for c in itertools.combinations(range(n), size)]
    pairs: list[tuple[Any, Any]] = [
        (
            FacilityLocationMutualInformation(X, queries=Q, eta=eta),
            submodlib.FacilityLocationMutualInformationFunction(
                n=n, num_queries=q, data_sijs=data, query_sijs=query, magnificationEta=eta
            ),
        ),
        (
            FacilityLocationConditionalGain(X, private=P, nu=nu),
            submodlib.FacilityLocationConditionalGainFunction(
                n=n, num_privates=p, data_sijs=data, private_sijs=private, privacyHardness=nu
            ),
        ),
        (
            FacilityLocationMutualInformation(X, queries=Q, private=P, eta=eta, nu=nu),
            submodlib.FacilityLocationConditionalMutualInformationFunction(
                n=n,
                num_queries=q,
                num_privates=p,
                data_sijs=data,
                query_sijs=query,
                private_sijs=private,
                magnificationEta=eta,
                privacyHardness=nu,
            ),
        ),
        (
            GraphCutMutualInformation(X, queries=Q, lam=0.5),
            submodlib.GraphCutMutualInformationFunction(n=n, num_queries=q, query_sijs=query),
        ),
        (
            LogDeterminantConditionalGain(X, private=P, nu=nu, kernel="cosine"),
            submodlib.LogDeterminantConditionalGainFunction(
                n=n,
                num_privates=p,
                lambdaVal=1,
                data_sijs=data,
                private_sijs=private,
                private_private_sijs=S[n + q :, n + q :],
                privacyHardness=nu,
            ),
        ),
        (
            LogDeterminantMutualInformation(X, queries=Q, eta=eta, kernel="cosine"),
            submodlib.LogDeterminantMutualInformationFunction(
                n=n,
                num_queries=q,
                lambdaVal=1,
                data_sijs=data,
                query_sijs=query,
                query_query_sijs=S[n : n + q, n : n + q],
                magnificationEta=eta,
            ),
        ),
    ]
    for ours, theirs in pairs:
        for picks in sets:
            # submodlib computes in float32.
            assert ours.value(np.array(sorted(picks))) == pytest.approx(theirs.evaluate(picks), abs=2e-5, rel=2e-5)


def test_targeted_objectives_refuse() -> None:
    X = pool(0)
    with pytest.raises(InputError, match="needs queries"):
        FacilityLocationMutualInformation(X)
    with pytest.raises(InputError, match="needs private"):
        LogDeterminantConditionalGain(X)
    with pytest.raises(InputError, match="2 features, X has 3"):
        GraphCutMutualInformation(X, queries=np.ones((1, 2)))
    with pytest.raises(InputError, match="kernel='linear'"):
        FacilityLocationConditionalGain(X, private=X[:1], kernel="linear")
    with pytest.raises(InputError, match="between 0 and 1"):
        LogDeterminantMutualInformation(X, queries=X[:1], eta=1.5)
    with pytest.raises(InputError, match="shift=0"):
        LogDeterminantConditionalGain(X, private=X[:1], shift=0.0)
    with pytest.raises(InputError, match="queries at row 0"):
        FacilityLocationMutualInformation(X, queries=np.full((1, 3), np.nan))


def test_greedy_with_queries_picks_what_they_are_about() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4) * 6
    y = np.repeat(np.arange(4), 50)
    X = centres[y] + rng.normal(size=(200, 4))
    queries = centres[2] + rng.normal(size=(5, 4))
    for f in (
        FacilityLocationMutualInformation(X, queries=queries, eta=1.0, kernel="rbf", scale=2.0),
        GraphCutMutualInformation(X, queries=queries),
        LogDeterminantMutualInformation(X, queries=queries, kernel="rbf", scale=2.0),
    ):
        plan = kofn.select(X, k=4, method="naive_greedy", objective=f)
        assert (y[plan.indices] == 2).all(), f.name
    owned = X[y != 1]
    for f in (
        FacilityLocationConditionalGain(X, private=owned, kernel="rbf", scale=2.0),
        LogDeterminantConditionalGain(X, private=owned, kernel="rbf", scale=2.0),
    ):
        plan = kofn.select(X, k=4, method="lazy_greedy", objective=f)
        assert (y[plan.indices] == 1).all(), f.name


def best_of_all(X: np.ndarray, worth: Any, k: int, lam: float, apart: np.ndarray) -> float:
    def least(picks: tuple[int, ...]) -> float:
        return min((apart[i, j] for i, j in itertools.combinations(picks, 2)), default=apart.max())

    sets = (c for size in range(1, k + 1) for c in itertools.combinations(range(len(X)), size))
    return max(worth(np.array(picks)) + lam * least(picks) for picks in sets)


@pytest.mark.parametrize("seed", range(24))
def test_gist_is_within_its_guarantees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(9, 2)) * rng.choice([0.2, 1.0, 4.0], size=(9, 1))
    scores = rng.exponential(size=9)
    apart = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))
    k, lam, eps = int(rng.integers(1, 6)), float(rng.choice([0.1, 0.5, 2.0])), 0.05
    plan = gist(X, scores=scores, k=k, lam=lam, eps=eps)
    best = best_of_all(X, lambda picks: scores[picks].sum(), k, lam, apart)
    assert len(plan.indices) <= k
    assert best * (2 / 3 - eps) <= plan.value <= best + 1e-9 <= plan.bound + 2e-9
    assert plan.info["diameter"] == pytest.approx(apart.max())
    same = gist(distances=apart, scores=scores, k=k, lam=lam, eps=eps)
    assert same.value == pytest.approx(plan.value)
    served = gist(X, k=k, lam=lam, eps=eps)
    f = kofn.objectives.FacilityLocation(X)
    best = best_of_all(X, f.value, k, lam, apart)
    assert best * (1 / 2 - eps) <= served.value <= best + 1e-9 <= served.bound + 2e-9


def plain_gist(scores: np.ndarray, apart: np.ndarray, k: int, lam: float, eps: float) -> float:
    """Algorithm 1 of the paper for a sum of scores, line by line."""
    n = len(scores)

    def f(picks: list[int]) -> float:
        least = min((apart[i, j] for i, j in itertools.combinations(picks, 2)), default=apart.max())
        return scores[picks].sum() + lam * least

    def independent(d: float) -> list[int]:
        picks: list[int] = []
        while len(picks) < k:
            left = [v for v in range(n) if v not in picks and all(apart[v, u] >= d for u in picks)]
            if not left:
                break
            picks.append(max(left, key=lambda v: (scores[v], -v)))
        return picks

    tried = [independent(0.0)]
    if k >= 2:
        tried.append([int(v) for v in np.unravel_index(apart.argmax(), apart.shape)])
    i = 0
    while (1 + eps) ** i <= 2 / eps:
        tried.append(independent((1 + eps) ** i * eps * apart.max() / 2))
        i += 1
    return max(map(f, tried))


@pytest.mark.parametrize("seed", range(10))
def test_gist_is_the_papers_algorithm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X, scores = rng.normal(size=(40, 3)), rng.exponential(size=40)
    apart = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=-1))
    for lam, eps in ((0.3, 0.1), (3.0, 0.3)):
        assert gist(X, scores=scores, k=7, lam=lam, eps=eps).value == pytest.approx(
            plain_gist(scores, apart, 7, lam, eps)
        )


def test_gist_trades_worth_for_distance() -> None:
    X, scores = [[0.0], [0.1], [0.2], [5.0], [9.0]], [3.0, 3.0, 3.0, 1.0, 1.0]
    greedy = gist(X, scores=scores, k=3, lam=0.0)
    spread = gist(X, scores=scores, k=3, lam=10.0)
    assert sorted(greedy.indices.tolist()) == [0, 1, 2]
    assert sorted(spread.indices.tolist()) == [0, 4]
    assert kofn.select(X, scores=scores, k=3, method="gist", options={"lam": 10.0}).indices.tolist() == [0, 4]
    assert 0 not in gist(X, scores=scores, k=3, exclude=[0], lam=1.0).indices


def test_gist_refuses() -> None:
    X = pool(0)
    with pytest.raises(InputError, match="row 1 is -1"):
        gist(X, scores=[1.0, -1, 1, 1, 1, 1], k=2)
    with pytest.raises(InputError, match="eps=0"):
        gist(X, k=2, eps=0)
    with pytest.raises(InputError, match="not monotone and submodular"):
        gist(X, k=2, utility="graph_cut(lam=5.0)")
    with pytest.raises(InputError, match="no use for scores"):
        gist(X, scores=np.ones(N), k=2, utility="facility_location")
    with pytest.raises(InfeasibleError, match="5 of 6 items are open"):
        gist(X, k=6, exclude=[0])
    # What is no metric has no promise.
    assert gist(X, k=2, metric="sqeuclidean").bound is None
    assert gist(distances=[[0, 1, 9], [1, 0, 1], [9, 1, 0]], scores=[1.0, 1, 1], k=2).bound is None
