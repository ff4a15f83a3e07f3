"""Coalitions of clients on digits under label codes and on Gaussians under linear models, some codes nearly alike.

Clients have from a dozen to 160 rows. A coalition learns one softmax model on its members' rows, what federated
averaging within it tends to; a client counts by the accuracy on held-out rows that are labelled as its own are. Every
way to group has four configurations, chosen by mean accuracy on other draws. Clusters by loss, which learn a model for
each of a number of clusters over and over, are told that number by the tuning; they, k-means of local models and
linkage are shown and not judged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.federated import client_distances, fedcollab
from kofn.laws.brute import partitions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CLIENTS, TESTED = 14, 300
WORLDS = ("Gaussians", "digits")
# What each way to group is tuned by.
CONFIGS: dict[str, tuple[float, ...]] = {
    "FedCollab": (0.5, 1.0, 2.0, 4.0),
    "everybody in one": (1,),
    "each alone": (1,),
    "k-means of local models": (2, 3, 4, 6),
    "clusters by loss": (2, 3, 4, 6),
    "linkage of the same distances": (0.1, 0.2, 0.4, 0.6),
}
# The least that is to be gained in the mean client's accuracy; the other ways to group are shown.
LEAST = {"everybody in one": 0.05, "each alone": 0.01}


@dataclass(frozen=True)
class World:
    """Rows learnt from, labels and clients; of each client rows to test on; the true kind of each client."""

    X: Floats
    y: Ints
    own: Ints
    tests: list[tuple[Floats, Ints]]
    kind: Ints

    @property
    def rows(self) -> Ints:
        """Rows of each client."""
        return np.bincount(self.own, minlength=CLIENTS)


@claim(
    paper=197,
    says="Coalitions that minimise a bound of rows and distances gain over one model for all and over local ones, "
    "without being told how many, are the best partition of small problems, and shrink as data grow",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """All ways to group on the same draws; broken: all clients are equally far apart, so that rows alone count."""
    runs = 10 if scale == "small" else 40
    measured: dict[str, Any] = {}
    met = []
    ahead: dict[str, bool] = {}
    for at, kind in enumerate(WORLDS):
        tuned = spread(functools.partial(_tuning, kind=kind, broken=broken), derive(seed, 2, stream=2 * at))
        chosen = {
            name: configs[int(np.mean([one[name] for one in tuned], axis=0).argmax())]
            for name, configs in CONFIGS.items()
        }
        work = functools.partial(_trial, kind=kind, chosen=chosen, broken=broken)
        trials = spread(work, derive(seed, runs, stream=2 * at + 1))
        means = {name: float(np.mean([one[name] for one in trials])) for name in trials[0]}
        figures: dict[str, Any] = {
            "means": {name: round(value, 4) for name, value in means.items()},
            "chosen": chosen,
        }
        for name in CONFIGS:
            if name != "FedCollab":
                gain = difference([one["FedCollab"] for one in trials], [one[name] for one in trials])
                figures[f"accuracy, FedCollab less {name}"] = gain.figures()
                if name in LEAST:
                    met.append(gain.above(LEAST[name]))
                else:
                    ahead[f"{kind}: ahead of {name}"] = gain.above(0.0)
        met += [
            max(one["optimum of eight clients missed by"] for one in trials) < 1e-9,
            max(one["above the best of alone and together"] for one in trials) == 0,
        ]
        sizes = [means[f"mean coalition, rows x {times}"] for times in (1, 10, 100)]
        met.append(sizes[0] > sizes[1] > sizes[2])
        measured[kind] = figures
    criteria = {"ahead of one model for all and of local ones; optimal on small problems": all(met), **ahead}
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="in both worlds: lower 95% limit of the mean client's accuracy gained over one model for all > 0.05, "
        "over local ones > 0.01; the best of all partitions of eight of the clients is met in every run; the value is "
        "never above that of all alone or all together; the mean coalition shrinks as all clients have 10 and 100 "
        "times the rows; and ahead of every other way to group (lower limits > 0)",
        baseline="one model for all and one each; told by their tuning how many clusters there are or how far is far: "
        "k-means of the local models' weights, clusters by loss (IFCA, the best of five starts by "
        "training loss) and average linkage of the same distances, four configurations each, as many as C has, chosen "
        "on other draws",
        kind="reduced",
    )


def _world(seed: int, kind: str) -> World:
    rng = np.random.default_rng(seed)
    rows = np.round(np.exp(rng.uniform(np.log(12), np.log(160), CLIENTS))).astype(np.int64)
    own = np.repeat(np.arange(CLIENTS), rows)
    group = rng.integers(0, 4, CLIENTS)
    if kind == "digits":
        data = digits()
        order = rng.permutation(len(data))
        learnt, asked = order[: len(order) - TESTED], order[len(order) - TESTED :]
        middle = data.X[learnt].mean(axis=0)
        _, _, axes = np.linalg.svd(data.X[learnt] - middle, full_matrices=False)
        Z = ((data.X - middle) @ axes[:16].T).astype(np.float64)
        taken = learnt[np.arange(len(own)) % len(learnt)]
        codes = np.array([_code(one) for one in range(4)])
        tests = [(Z[asked], codes[one][data.y[asked]]) for one in group]
        return World(Z[taken], codes[group[own], data.y[taken]], own, tests, group)
    d = 10
    # Two pairs of models, alike within a pair.
    slopes = np.repeat(rng.normal(size=(2, d)), 2, axis=0) + 0.35 * rng.normal(size=(4, d))

    def draw(client: int, n: int) -> tuple[Floats, Ints]:
        X = rng.normal(size=(n, d))
        return X, (X @ slopes[group[client]] + 0.3 * rng.logistic(size=n) > 0).astype(np.int64)

    parts = [draw(client, int(count)) for client, count in enumerate(rows)]
    tests = [draw(client, TESTED) for client in range(CLIENTS)]
    return World(np.vstack([X for X, _ in parts]), np.concatenate([y for _, y in parts]), own, tests, group)


def _code(kind: int) -> Ints:
    """Labels of the ten digits: two codes, and for each one that swaps two digits only."""
    code = (np.arange(10) + 5 * (kind // 2)) % 10
    if kind % 2:
        code[[3, 8]] = code[[8, 3]]
    return code


def _model(X: Floats, y: Ints) -> Any:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    return (LogisticRegression(max_iter=500) if len(np.unique(y)) > 1 else DummyClassifier()).fit(X, y)


def _accuracy(world: World, labels: Any) -> float:
    """Mean over the clients of the accuracy of their coalition's model."""
    labels, told = np.asarray(labels), np.zeros(CLIENTS)
    for one in np.unique(labels):
        rows = np.isin(world.own, np.flatnonzero(labels == one))
        model = _model(world.X[rows], world.y[rows])
        for client in np.flatnonzero(labels == one):
            X, y = world.tests[client]
            told[client] = (model.predict(X) == y).mean()
    return float(told.mean())


def _distances(world: World, broken: bool, seed: int) -> Floats:
    from sklearn.linear_model import LogisticRegression

    apart, _, _ = client_distances(
        world.X, groups=world.own, y=world.y, classifier=LogisticRegression(C=0.1), seed=seed % 2**32
    )
    if broken:
        return np.where(np.eye(CLIENTS) > 0, 0.0, apart.sum() / (CLIENTS * (CLIENTS - 1)))
    return apart


def _collab(apart: Floats, rows: Ints, C: float) -> Any:
    return kofn.assign(distances=apart, weights=rows, method="fedcollab", seed=0, C=C, restarts=30)


def _ways(world: World, apart: Floats, seed: int) -> dict[str, Callable[[float], Any]]:
    from sklearn.cluster import AgglomerativeClustering

    return {
        "FedCollab": lambda C: _collab(apart, world.rows, C).labels,
        "everybody in one": lambda _: np.zeros(CLIENTS, int),
        "each alone": lambda _: np.arange(CLIENTS),
        "k-means of local models": lambda k: _by_weights(world, int(k), seed),
        "clusters by loss": lambda k: _by_loss(world, int(k), seed),
        "linkage of the same distances": lambda far: AgglomerativeClustering(
            None, metric="precomputed", linkage="average", distance_threshold=far
        ).fit_predict(apart),
    }


def _weights(model: Any, classes: Ints) -> Floats:
    """Slopes and intercepts of every class, 0 of those that the client never saw."""
    out = np.zeros((len(classes), 0))
    if not hasattr(model, "coef_"):
        return out
    table = np.column_stack([model.coef_, model.intercept_])
    if len(table) == 1:
        table = np.vstack([-table, table]) / 2
    out = np.zeros((len(classes), table.shape[1]))
    out[np.searchsorted(classes, model.classes_)] = table
    return out


def _by_weights(world: World, k: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    classes = np.unique(world.y)
    width = len(classes) * (world.X.shape[1] + 1)
    rows = np.zeros((CLIENTS, width))
    for client in range(CLIENTS):
        mine = world.own == client
        flat = _weights(_model(world.X[mine], world.y[mine]), classes).ravel()
        rows[client, : len(flat)] = flat
    return KMeans(k, n_init=10, random_state=seed % 2**32).fit_predict(rows)


def _by_loss(world: World, k: int, seed: int) -> Any:
    """Clients go to the cluster whose model has the least loss on their rows, clusters learn again, by turns."""
    rng = np.random.default_rng(seed)
    best, least = np.zeros(CLIENTS, int), np.inf
    classes = np.unique(world.y)
    for _ in range(5):
        labels = rng.integers(0, k, CLIENTS)
        for _ in range(6):
            models = {}
            for one in np.unique(labels):
                rows = np.isin(world.own, np.flatnonzero(labels == one))
                models[one] = _model(world.X[rows], world.y[rows])
            loss = np.full((CLIENTS, k), np.inf)
            for one, model in models.items():
                chance = np.full((len(world.X), len(classes)), 1e-6)
                chance[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(world.X)
                told = -np.log(np.maximum(chance[np.arange(len(world.y)), np.searchsorted(classes, world.y)], 1e-6))
                loss[:, one] = np.bincount(world.own, told, CLIENTS)
            after = loss.argmin(axis=1)
            if (after == labels).all():
                break
            labels = after
        if (total := float(loss.min(axis=1).sum())) < least:
            best, least = labels, total
    return best


def _tuning(seed: int, *, kind: str, broken: bool) -> dict[str, list[float]]:
    world = _world(seed, kind)
    ways = _ways(world, _distances(world, broken, seed), seed)
    return {name: [_accuracy(world, ways[name](option)) for option in options] for name, options in CONFIGS.items()}


def _trial(seed: int, *, kind: str, chosen: dict[str, float], broken: bool) -> dict[str, float]:
    world = _world(seed, kind)
    apart = _distances(world, broken, seed)
    ways = _ways(world, apart, seed)
    out = {name: _accuracy(world, ways[name](option)) for name, option in chosen.items()}
    C = chosen["FedCollab"]
    plan = _collab(apart, world.rows, C)
    out["true kinds"] = _accuracy(world, world.kind)
    out["coalitions"] = plan.k
    out["bound over its floor"] = plan.value / plan.bound
    out["above the best of alone and together"] = float(
        plan.value > min(plan.info["alone"], plan.info["together"]) * (1 + 1e-12)
    )
    few = np.random.default_rng(seed).permutation(CLIENTS)[:8]
    small = _collab(apart[np.ix_(few, few)], world.rows[few], C)
    best = min(_bound(apart[np.ix_(few, few)], world.rows[few], C, labels) for labels in partitions(8))
    out["optimum of eight clients missed by"] = small.value / best - 1
    moves = fedcollab(apart, weights=world.rows, C=C, seed=0, restarts=30, unions=False)
    out["moves alone, value over that with unions less 1"] = moves.value / plan.value - 1
    for times in (1, 10, 100):
        out[f"mean coalition, rows x {times}"] = CLIENTS / _collab(apart, world.rows * times, C).k
    return out


def _bound(apart: Floats, rows: Ints, C: float, labels: list[int]) -> float:
    alike = (np.array(labels)[:, None] == labels) * rows
    held = alike.sum(axis=1)
    return float((C / np.sqrt(held) + (alike * apart).sum(axis=1) / held).sum())
