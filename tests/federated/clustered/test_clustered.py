"""Mixtures over clients against a plain pooled EM and other libraries; coalitions against every partition; errors."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from refusals import refused, untested
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture

import kofn
from kofn.core.plans import Plan
from kofn.engines.local import Local
from kofn.federated import FederatedMixture, client_distances, fedcollab, federated_mixture
from kofn.federated.clustered import _client_distances, _fedcollab, _federated_mixture, _messages, _mixture
from kofn.laws.brute import partitions
from kofn.laws.engines import Shuffled

KINDS = [("none", None), ("classes", None), ("classes", 2), ("amounts", None), ("amounts", 3)]


def clients(seed: int, task: str, n: int = 90, d: int = 3) -> tuple[Any, Any, Any]:
    """Rows of three clients with weights of their own, and labels or amounts that depend on the component."""
    rng = np.random.default_rng(seed)
    own = np.repeat(["a", "b", "c"], [n // 2, n // 3, n - n // 2 - n // 3])
    share = dict(zip("abc", rng.dirichlet(np.ones(3), 3), strict=True))
    part = np.array([rng.choice(3, p=share[one]) for one in own])
    X = 100 + 7 * (rng.normal(size=(3, d))[part] * 2 + rng.normal(size=(n, d)))
    told = (X * rng.normal(size=(3, d))[part]).sum(axis=1)
    y: Any = None
    if task == "classes":
        y = np.array(["no", "yes", "what"])[np.digitize(told, np.quantile(told, [0.4, 0.8]))]
    elif task == "amounts":
        y = 1e3 + 5 * told + rng.normal(size=n)
    return X, y, own


def begun(
    seed: int, task: str, predictors: int | None, k: int = 3, pull: float = 0.0
) -> tuple[FederatedMixture, Any, Any, Any]:
    X, y, own = clients(seed, task)
    model = FederatedMixture(k, task=task, predictors=predictors, pull=pull, seed=seed)
    model.begin({one: model.sketch(X[own == one], None if y is None else y[own == one]) for one in "abc"})
    return model, X, y, own


def parted(model: FederatedMixture, X: Any, y: Any, own: Any, rng: np.random.Generator) -> dict[str, Any]:
    """The sums over all rows, from parts of each client's rows in any order and nesting."""
    told = []
    for one in "abc":
        rows = rng.permutation(np.flatnonzero(own == one))
        for part in np.array_split(rows, rng.integers(1, 5)):
            if len(part):
                told.append(model.statistics(X[part], None if y is None else y[part], client=one))
    told = [told[i] for i in rng.permutation(len(told))]
    while len(told) > 1:
        cut = int(rng.integers(2, len(told) + 1))
        told = [*told[cut:], model.merge(told[:cut])]
    return told[0]


def plain_round(state: dict[str, Any], X: Any, y: Any, own: Any) -> dict[str, Any]:
    """One round of EM on the pooled rows, in loops and with scipy's densities."""
    Z = (X - state["origin"]) / state["scale"]
    rows = np.column_stack([np.ones(len(Z)), Z])
    weights = dict(zip(state["clients"], state["weights"], strict=True))
    W, noise, shrink, ridge = (
        state["coefficients"],
        state["noise"],
        state["settings"]["shrink"],
        state["settings"]["ridge"],
    )
    pairs = list(zip(state["gaussian"].tolist(), state["predictor"].tolist(), strict=True))
    k, p, c = len(state["means"]), len(W), W.shape[2]
    chance = np.exp(rows @ W) / np.exp(rows @ W).sum(axis=2, keepdims=True) if c else None
    if state["settings"]["task"] == "classes":
        Y = (np.asarray(y)[:, None] == state["classes"]).astype(float)
    elif state["settings"]["task"] == "amounts":
        Y = ((y - state["y_origin"]) / state["y_scale"])[:, None]
    held = np.zeros((len(Z), len(pairs)))
    for at, (a, q) in enumerate(pairs):
        held[:, at] = [weights[one][at] for one in own]
        held[:, at] *= multivariate_normal(state["means"][a], state["covariances"][a]).pdf(Z)
        if state["settings"]["task"] == "classes":
            held[:, at] *= (chance[q] * Y).sum(axis=1)
        elif state["settings"]["task"] == "amounts":
            held[:, at] *= norm(rows @ W[q, :, 0], math.sqrt(noise[q])).pdf(Y[:, 0])
    units = state["scale"] ** X.shape[1] * (state["y_scale"] if state["settings"]["task"] == "amounts" else 1.0)
    likelihood = float(np.log(held.sum(axis=1) / units).sum())
    held /= held.sum(axis=1, keepdims=True)
    after = {**state, "likelihood": likelihood}
    massed = np.array(
        [held[own == one].sum(axis=0) + state["settings"]["pull"] / len(pairs) for one in state["clients"]]
    )
    after["weights"] = massed / massed.sum(axis=1, keepdims=True)
    after["means"], after["covariances"] = state["means"].copy(), state["covariances"].copy()
    after["coefficients"], after["noise"] = W.copy(), noise.copy()
    for a in range(k):
        mine = held[:, [at for at, pair in enumerate(pairs) if pair[0] == a]].sum(axis=1)
        mean = mine @ Z / mine.sum()
        scatter = sum(r * np.outer(z - mean, z - mean) for r, z in zip(mine, Z, strict=True))
        after["means"][a] = mean
        after["covariances"][a] = (scatter + shrink * np.eye(len(mean))) / (mine.sum() + shrink)
    free = np.diag([0.0] + [ridge] * Z.shape[1])
    for q in range(p if c else 0):
        mine = held[:, [at for at, pair in enumerate(pairs) if pair[1] == q]].sum(axis=1)
        gram = sum(r * np.outer(x, x) for r, x in zip(mine, rows, strict=True))
        if state["settings"]["task"] == "classes":
            slope = sum(r * np.outer(x, e) for r, x, e in zip(mine, rows, Y - chance[q], strict=True))
            after["coefficients"][q] = W[q] + np.linalg.inv(gram / 2 + free) @ (slope - free @ W[q])
        else:
            found = np.linalg.inv(gram + free) @ (rows.T @ (mine * Y[:, 0]))
            off = float(mine @ (Y[:, 0] - rows @ found) ** 2)
            after["coefficients"][q] = found[:, None]
            after["noise"][q] = (off + ridge * float(found[1:] @ found[1:]) + shrink) / (mine.sum() + shrink)
    return after


@pytest.mark.parametrize(("task", "predictors"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_rounds_over_any_parts_are_those_of_pooled_em(seed: int, task: str, predictors: int | None) -> None:
    model, X, y, own = begun(seed, task, predictors, pull=4.0 * (seed == 1))
    rng = np.random.default_rng(seed)
    for _ in range(8):
        expected = plain_round(model.state_dict(), X, y, own)
        model.tell([parted(model, X, y, own, rng)])
        told = model.state_dict()
        assert model.log_likelihood == pytest.approx(expected["likelihood"], rel=1e-10)
        for name in ("means", "covariances", "coefficients", "noise", "weights"):
            np.testing.assert_allclose(told[name], expected[name], rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(("task", "predictors"), KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_the_objective_never_falls(seed: int, task: str, predictors: int | None) -> None:
    model, X, y, own = begun(seed, task, predictors, k=4, pull=4.0 * (seed % 2))
    rng = np.random.default_rng(seed)
    trace = []
    for _ in range(30):
        model.tell([parted(model, X, y, own, rng)])
        trace.append(model.objective)
    assert min(np.diff(trace)) >= -1e-9 * abs(trace[-1])
    assert trace[-1] > trace[0]


def test_averaging_the_clients_own_parameters_is_not_em() -> None:
    model, X, _, own = begun(0, "none", None)
    alone = []
    for one in "abc":
        other = FederatedMixture(3)
        other.load_state_dict(model.state_dict())
        other.tell([model.statistics(X[own == one], client=one)])
        alone.append(other.covariances)
    model.tell([model.statistics(X[own == one], client=one) for one in "abc"])
    sizes = np.array([(own == one).mean() for one in "abc"])
    averaged = np.tensordot(sizes, alone, axes=1)
    assert np.abs(averaged - model.covariances).max() > 0.1 * np.abs(model.covariances).max()


def test_one_client_is_scikit_learns_mixture() -> None:
    X = clients(5, "none")[0]
    model = FederatedMixture(3, shrink=1e-10)
    model.begin({"all": model.sketch(X)})
    other = GaussianMixture(
        3,
        weights_init=model.weights("all")[:, 0],
        means_init=model.means,
        precisions_init=np.linalg.inv(model.covariances),
        max_iter=12,
        reg_covar=0,
        tol=0,
    )
    with pytest.warns(match="converge"):
        other.fit(X)
    for _ in range(12):
        model.tell([model.statistics(X, client="all")])
    np.testing.assert_allclose(model.means, other.means_, rtol=1e-8)
    np.testing.assert_allclose(model.covariances, other.covariances_, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.weights("all")[:, 0], other.weights_, rtol=1e-8)
    np.testing.assert_allclose(model.log_density(X), other.score_samples(X), rtol=1e-8)
    np.testing.assert_allclose(model.responsibilities(X, client="all"), other.predict_proba(X), atol=1e-8)


def test_one_component_is_ridge_and_logistic_regression() -> None:
    for task, ours, theirs in (("amounts", 2, Ridge(0.5)), ("classes", 400, LogisticRegression(C=2.0, tol=1e-10))):
        X, y, own = clients(7, task)
        model = FederatedMixture(1, task=task, ridge=0.5)
        model.begin({one: model.sketch(X[own == one], y[own == one]) for one in "abc"})
        for _ in range(ours):
            model.tell([model.statistics(X[own == one], y[own == one], client=one) for one in "abc"])
        Z = (X - model.state_dict()["origin"]) / model.state_dict()["scale"]
        if task == "amounts":
            state = model.state_dict()
            theirs.fit(Z, (y - state["y_origin"]) / state["y_scale"])
            expected = theirs.predict(Z) * state["y_scale"] + state["y_origin"]
        else:
            expected = theirs.fit(Z, y).predict_proba(Z)
            assert model.classes.tolist() == theirs.classes_.tolist()
        np.testing.assert_allclose(model.predict(X, client="a"), expected, rtol=1e-4, atol=1e-6)


def test_a_new_client_gets_the_likeliest_weights_and_nothing_else_moves() -> None:
    model, X, y, own = begun(3, "classes", 2)
    for _ in range(30):
        model.tell([model.statistics(X[own == one], y[own == one], client=one) for one in "abc"])
    before = model.state_dict()
    rows = np.flatnonzero(own == "a")[::2]
    found = model.adapt(X[rows], y[rows], client="new")
    assert found.shape == (3, 2)
    assert found.sum() == pytest.approx(1)
    after = model.state_dict()
    for name in ("means", "covariances", "coefficients", "noise"):
        np.testing.assert_array_equal(after[name], before[name])
    np.testing.assert_array_equal(after["weights"][:3], before["weights"])
    assert model.clients == ["a", "b", "c", "new"]
    assert model.plan.n == 4

    def lost(free: Any) -> float:
        other = FederatedMixture(3, task="classes", predictors=2)
        share = np.exp(free) / np.exp(free).sum()
        other.load_state_dict({**after, "weights": np.vstack([before["weights"], share])})
        return -float(other.log_density(X[rows], y[rows], client="new").mean())

    best = min(minimize(lost, start).fun for start in np.random.default_rng(0).normal(size=(3, 6)))
    assert -model.log_density(X[rows], y[rows], client="new").mean() <= best + 1e-6


def test_the_likelihood_of_rows_from_elsewhere_is_low() -> None:
    model, X, _, own = begun(1, "none", None)
    for _ in range(20):
        model.tell([model.statistics(X[own == one], client=one) for one in "abc"])
    assert model.log_density(X + 200).max() < model.log_density(X).min()
    # Pooled weights are those of the rows.
    shares = np.array([model.weights(one)[:, 0] * (own == one).mean() for one in "abc"]).sum(axis=0)
    densities = [
        multivariate_normal(mean, covariance).pdf(X)
        for mean, covariance in zip(model.means, model.covariances, strict=True)
    ]
    np.testing.assert_allclose(model.log_density(X), np.log(shares @ np.array(densities)), rtol=1e-9)


@pytest.mark.parametrize(("task", "predictors"), KINDS)
def test_a_state_goes_on_bit_for_bit(task: str, predictors: int | None) -> None:
    model, X, y, own = begun(2, task, predictors)

    def turn(one: FederatedMixture) -> None:
        one.tell([one.statistics(X[own == c], None if y is None else y[own == c], client=c) for c in "abc"])

    turn(model)
    state = pickle.loads(pickle.dumps(model.state_dict()))
    other = FederatedMixture(3, task=task, predictors=predictors)
    other.load_state_dict(state)
    for _ in range(3):
        turn(model)
        turn(other)
    assert other.plan.equals(model.plan)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], value, err_msg=name)
    # The state that was handed out did not move.
    assert int(state["rounds"]) == 1


def test_a_client_that_sits_out_keeps_its_weights() -> None:
    model, X, _, own = begun(0, "none", None)
    before = model.weights("c")
    model.tell([model.statistics(X[own == one], client=one) for one in "ab"])
    np.testing.assert_array_equal(model.weights("c"), before)
    assert not np.array_equal(model.weights("a"), before)


def test_the_plan_is_of_clients_and_keeps(tmp_path: Any) -> None:
    model, X, y, own = begun(0, "classes", 2)
    model.tell([model.statistics(X[own == one], y[own == one], client=one) for one in "abc"])
    plan = model.plan
    assert (plan.n, plan.k, plan.ids.tolist()) == (3, 6, ["a", "b", "c"])
    np.testing.assert_allclose(plan.row_margin, 1)
    table = np.zeros((3, 6))
    table[np.repeat(np.arange(3), np.diff(plan.indptr)), plan.bins] = plan.weights
    for client, row in zip("abc", table, strict=True):
        np.testing.assert_array_equal(row.reshape(3, 2), model.weights(client))
    assert Plan.load(plan.save(tmp_path / "plan.npz")).equals(plan)


@pytest.mark.parametrize("task", ["none", "classes", "amounts"])
def test_clients_that_work_elsewhere_send_the_same(task: str) -> None:
    X, y, own = clients(2, task)
    words: dict[str, Any] = {"k": 3, "y": y, "groups": own, "seed": 1, "max_iter": 20}
    words |= {} if task == "none" else {"task": task}
    here = federated_mixture(X, **words)
    for engine in (Local(2), Shuffled(3)):
        assert federated_mixture(X, engine=engine, **words).equals(here)
        assert engine.tasks == 3 * (here.info["rounds"] + 2)


@pytest.mark.parametrize("task", ["classes", "amounts"])
def test_the_function_is_the_rounds_of_the_stepper(task: str) -> None:
    X, y, own = clients(4, task)
    plan = kofn.assign(X, k=3, y=y, groups=own, method="federated_mixture", seed=1, options={"task": task})
    model = FederatedMixture(3, task=task)
    model.load_state_dict(plan.info["state"])
    told = model.statistics(X[own == "a"], y[own == "a"], client="a")
    model.tell([told, *(model.statistics(X[own == c], y[own == c], client=c) for c in "bc")])
    assert model.objective == pytest.approx(plan.value, rel=1e-12)
    assert plan.status == "local"
    assert plan.info["clients"] == ["a", "b", "c"]
    np.testing.assert_allclose(plan.row_margin, 1)
    again = federated_mixture(X, k=3, y=y, groups=own, seed=1, task=task, restarts=3)
    assert again.value >= plan.value
    stopped = federated_mixture(X, k=3, y=y, groups=own, seed=1, task=task, max_iter=1)
    assert stopped.status == "stopped"
    assert stopped.value < plan.value


def test_models_of_y_that_are_shared_by_gaussians_find_who_labels_how() -> None:
    # Two of four clients turn the labels round; where the rows are says nothing of it.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 2))
    own = np.repeat([0, 1, 2, 3], 200)
    y = (X[:, 0] > 0) ^ (own % 2 == 1)
    plan = federated_mixture(X, k=1, y=y, groups=own, predictors=2, seed=0)
    leaning = plan.info["client_weights"][:, 0].argmax(axis=1)
    assert leaning[0] == leaning[2] != leaning[1] == leaning[3]
    assert plan.info["client_weights"][:, 0].max(axis=1).min() > 0.95


# Coalitions.


def drawn(seed: int, n: int) -> tuple[Any, Any, float]:
    rng = np.random.default_rng(seed)
    kind = seed % 3
    if kind == 0:
        upper = np.triu(rng.random((n, n)), 1)
        apart = upper + upper.T
    else:
        X = rng.normal(size=(n, 2)) + 3 * rng.normal(size=(3, 2))[rng.integers(0, 3, n)]
        apart = 1 - np.exp(-np.sqrt(((X[:, None] - X) ** 2).sum(axis=2)) / 2)
    rows = np.ceil(np.exp(rng.normal(4, 1, n))) if kind < 2 else np.full(n, 50.0)
    return apart, rows, float(rng.choice([0.5, 2.0, 5.0, 10.0]))


def total(apart: Any, rows: Any, C: float, labels: Any) -> float:
    out = 0.0
    for i, label in enumerate(labels):
        mates = [j for j, other in enumerate(labels) if other == label]
        held = sum(rows[j] for j in mates)
        out += C / math.sqrt(held) + sum(rows[j] * apart[i][j] for j in mates) / held
    return out


def test_small_coalitions_are_the_best_of_all_partitions() -> None:
    met, moved, single = 0, 0, 0.0
    for seed in range(30, 60):
        apart, rows, C = drawn(seed, 4 + seed % 4)
        best = min(total(apart, rows, C, labels) for labels in partitions(len(rows)))
        plan = fedcollab(apart, weights=rows, C=C, seed=0)
        assert plan.value == pytest.approx(total(apart, rows, C, plan.labels))
        assert plan.bound <= best * (1 + 1e-12) <= plan.value * (1 + 2e-12)
        met += plan.value <= best * (1 + 1e-9)
        alone = fedcollab(apart, weights=rows, C=C, seed=0, unions=False)
        moved += alone.value <= best * (1 + 1e-9)
        single = max(single, alone.value / best - 1)
        assert plan.value <= alone.value * (1 + 1e-12)
    # Moves of single clients alone, as the paper has them, miss some; with unions none of these is missed.
    assert met == 30
    assert moved < 30
    assert single < 0.1


def test_neither_moves_nor_unions_lower_a_larger_one() -> None:
    for seed in range(4):
        apart, rows, C = drawn(seed, 25)
        plan = fedcollab(apart, weights=rows, C=C, seed=0, restarts=5)
        labels = plan.labels.tolist()
        for client, to in itertools.product(range(25), range(plan.k + 1)):
            moved = [to if i == client else label for i, label in enumerate(labels)]
            assert total(apart, rows, C, moved) >= plan.value * (1 - 1e-10)
        for a, b in itertools.combinations(range(plan.k), 2):
            united = [a if label == b else label for label in labels]
            assert total(apart, rows, C, united) >= plan.value * (1 - 1e-10)


def test_few_rows_unite_and_many_part() -> None:
    apart, _, _ = drawn(1, 12)
    sizes = [fedcollab(apart, weights=np.full(12, rows), seed=0).k for rows in (1.0, 30.0, 1e3, 1e6)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 12)
    together = fedcollab(apart, weights=np.full(12, 1.0), seed=0)
    assert together.value == together.info["together"]
    # No client has anything to gain from others: proven.
    assert fedcollab(apart, C=0.0, seed=0).status == "optimal"
    assert fedcollab(np.zeros((5, 5)), seed=0).labels.tolist() == [0] * 5


def test_coalitions_are_numbered_by_their_first_client_and_say_what_each_gets() -> None:
    apart, rows, _ = drawn(2, 14)
    plan = fedcollab(apart, weights=rows, seed=3)
    labels = plan.labels.tolist()
    assert [labels.index(one) for one in range(plan.k)] == sorted(labels.index(one) for one in range(plan.k))
    assert sum(plan.info["client_bounds"]) == pytest.approx(plan.value)
    assert plan.value <= min(plan.info["alone"], plan.info["together"])


def test_a_client_alone_and_a_time_limit() -> None:
    assert fedcollab([[0.0]], weights=[7], C=2.0).value == pytest.approx(2 / math.sqrt(7))
    apart, rows, C = drawn(0, 20)
    plan = fedcollab(apart, weights=rows, C=C, seed=0, time_limit=1e-9)
    assert plan.status == "stopped"
    assert plan.value <= plan.info["alone"]


def test_distances_see_rows_and_with_y_also_who_labels_how() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3))
    own = np.repeat(["same", "too", "turned", "away"], 150)
    X[own == "away"] += 3
    y = np.where((X[:, 0] > 0) ^ (own == "turned"), "p", "q")
    blind, rows, names = client_distances(X, groups=own)
    seeing, _, _ = client_distances(X, groups=own, y=y)
    assert names == ["away", "same", "too", "turned"]
    assert rows.tolist() == [150] * 4
    for apart in (blind, seeing):
        np.testing.assert_array_equal(apart, apart.T)
        assert apart.min() >= 0
        assert np.diag(apart).max() == 0
        assert apart[0, 1:].min() > 0.9
        assert apart[1, 2] < 0.15
    assert blind[1:, 3][:2].max() < 0.2
    assert seeing[1:3, 3].min() > 0.75
    plan = fedcollab(seeing, weights=rows, C=1.0)
    assert plan.labels.tolist() == [0, 1, 1, 2]


def test_distances_take_any_classifier_and_weigh_clients_alike() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(1)
    X = rng.normal(size=(330, 2))
    own = np.repeat([0, 1], [300, 30])
    # A classifier that only ever says the larger client tells nothing apart.
    assert client_distances(X, groups=own)[0][0, 1] < 0.35
    X[:, 0] = np.where(own == 0, X[:, 0], np.abs(X[:, 0]) + 1)
    X[:, 1] = np.where(own == 0, X[:, 1], X[:, 1] + 1)
    for classifier in (RandomForestClassifier(30, random_state=0), KNeighborsClassifier(3)):
        apart = client_distances(X, groups=own, classifier=classifier, folds=3)[0]
        assert 0.3 < apart[0, 1] <= 1
    np.testing.assert_array_equal(client_distances(X, groups=own)[0], client_distances(X, groups=own)[0])


REACHED: set[tuple[str, int]] = set()
X4 = np.arange(8.0).reshape(4, 2)


def ready(task: str = "classes", **options: Any) -> FederatedMixture:
    model = FederatedMixture(2, task=task, **options)
    y = {"none": None, "classes": list("abab"), "amounts": [1.0, 2.0, 3.0, 4.0]}[task]
    model.begin({"c": model.sketch(X4, y)})
    return model


def other_round() -> None:
    model = ready("none")
    told = model.statistics(X4, client="c")
    model.tell([told])
    model.tell([told])


def two_rounds() -> None:
    model = ready("none")
    told = model.statistics(X4, client="c")
    model.tell([told])
    model.tell([told, model.statistics(X4, client="c")])


def damaged_sketch(name: str, value: Any) -> None:
    FederatedMixture(2).begin({"c": {**ready("none").sketch(X4), name: value}})


def damaged_statistics(name: str, value: Any) -> None:
    model = ready("none")
    model.tell([{**model.statistics(X4, client="c"), name: value}])


BAD = {
    "k": (lambda: FederatedMixture(0), "k=0: ask for at least 1"),
    "task": (lambda: FederatedMixture(2, task="class"), "task='class': choose one of none, classes, amounts"),
    "predictors of nothing": (lambda: FederatedMixture(2, predictors=2), "predictors=2: there is no y to predict"),
    "shrink": (lambda: FederatedMixture(2, shrink=0), "shrink=0: it must be above 0"),
    "ridge": (lambda: FederatedMixture(2, ridge=-1), "ridge=-1: it must be >= 0"),
    "pull": (lambda: FederatedMixture(2, pull=-1), "pull=-1: it must be >= 0"),
    "not begun": (
        lambda: FederatedMixture(2).statistics(X4, client=0),
        "the mixture has no parameters yet; call begin({client: sketch(X, y)}) first",
    ),
    "no sketch": (lambda: FederatedMixture(2).begin({}), "sketches is empty"),
    "columns of sketches": (
        lambda: FederatedMixture(2).begin({"a": ready("none").sketch(X4), "b": ready("none").sketch(X4[:, :1])}),
        "sketches: client 'b' has 1 columns, client 'a' 2",
    ),
    "columns": (lambda: ready().predict(X4[:, :1], client="c"), "X has 1 columns, the mixture has 2"),
    "client": (lambda: ready().predict(X4, client="d"), "client='d' has no weights yet; call adapt(X, y, client='d')"),
    "y to no task": (lambda: ready("none").statistics(X4, list("abab"), client="c"), "y is given to a mixture of task"),
    "no y in a sketch": (lambda: ready().sketch(X4), "y is missing; task='classes' learns from it"),
    "no y": (lambda: ready().statistics(X4, client="c"), "y is missing; task='classes' learns from it"),
    "y of another length": (lambda: ready().statistics(X4, ["a"], client="c"), "y has 1 values, X has 4 rows"),
    "a new class": (
        lambda: ready().statistics(X4, list("abaz"), client="c"),
        "y at row 3 is 'z', a class that no client had at the start",
    ),
    "amounts": (lambda: ready("amounts").sketch(X4, list("abab")), "y has dtype <U1; give numbers"),
    "nothing told": (lambda: ready("none").tell([]), "statistics is empty"),
    "nothing to merge": (lambda: FederatedMixture.merge([]), "statistics is empty: give at least one"),
    "another round": (other_round, "statistics are of round 0, the model is at round 1"),
    "a client without a name": (lambda: ready("none").adapt(X4, client=[]), "client=[]: give a name or a number"),
    "a sketch that is none": (lambda: FederatedMixture(2).begin({"c": 1}), "sketches['c'] is int; give the mapping"),
    "half a sketch": (lambda: FederatedMixture(2).begin({"c": {"rows": 1}}), "sketches['c'] lacks 'mean'"),
    "a sketch of other variances": (
        lambda: damaged_sketch("variance", [1.0]),
        "sketches['c']['variance'] has shape (1,); it must be (2,)",
    ),
    "statistics of no number": (
        lambda: damaged_statistics("log_likelihood", "many"),
        "statistics[0]['log_likelihood'] is 'many'; give a number",
    ),
    "statistics of another shape": (
        lambda: damaged_statistics("clients", {"c": [1.0]}),
        "statistics[0]['clients']['c'] has shape (1,); the parameters of this round ask for (2,)",
    ),
    "two rounds": (two_rounds, "statistics are of rounds [0, 1]; merge those of one round"),
    "nothing to predict": (lambda: ready("none").predict(X4, client="c"), "predict: task='none' has no model of y"),
    "state of another k": (
        lambda: FederatedMixture(3, task="classes").load_state_dict(ready().state_dict()),
        "state was made with k=2, here it is 3",
    ),
    "state of another task": (
        lambda: FederatedMixture(2).load_state_dict(ready().state_dict()),
        "state was made with task='classes', here it is 'none'",
    ),
    "max_iter": (lambda: ready().adapt(X4, client="c", max_iter=0), "max_iter=0: ask for at least 1"),
    "k above the rows": (lambda: federated_mixture(X4, k=5), "k=5 Gaussians for 4 rows; lower k"),
    "a client without rows": (
        lambda: fedcollab(np.zeros((3, 3)), weights=[1, 0, 2]),
        "weights at row 1 is 0; leave out clients that have no rows",
    ),
    "C": (lambda: fedcollab(np.zeros((3, 3)), C=-1), "C=-1: it must be >= 0"),
    "unions": (lambda: fedcollab(np.zeros((3, 3)), unions="yes"), "unions='yes': give True or False"),
    "one client": (lambda: client_distances(X4, groups=[1] * 4), "groups hold one client, 1; give two or more"),
    "a row alone": (
        lambda: client_distances(X4, groups=list("aaab")),
        "groups: client 'b' has 1 rows, folds=2; lower folds",
    ),
    "no classifier": (
        lambda: client_distances(X4, groups=list("aabb"), classifier="svm"),
        "classifier='svm': give a scikit-learn classifier",
    ),
    "groups": (lambda: client_distances(X4, groups=list("aab")), "groups has 3 values, X has 4 rows"),
}


@pytest.mark.parametrize(("bad", "says"), BAD.values(), ids=BAD)
def test_is_refused(bad: Any, says: str) -> None:
    REACHED.add(refused(bad, says))


def test_every_refusal_is_tested() -> None:
    for bad, says in BAD.values():
        REACHED.add(refused(bad, says))
    assert untested(_mixture, REACHED) == []
    assert untested([_client_distances, _fedcollab, _federated_mixture, _messages], REACHED) == []
