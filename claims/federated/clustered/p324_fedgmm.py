"""A mixture over clients whose rows and labels both differ, on Gaussians with linear labels and on turned digits.

Each client mixes domains of its own: where its rows are (which Gaussian; upright or turned digits) can be seen from a
row, how they are labelled (which linear model; which of two codes of the digits) cannot. So one model for all is wrong
about the labels, a client alone has too few rows, a mixture of classifiers with a client's own weights (FedEM, which is
the same mixture with one Gaussian) does not know where a row belongs, and a mixture with everybody's weights does not
know the client. Every method has as many configurations, chosen by accuracy on other draws.
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
from kofn.federated import FederatedMixture

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Config = tuple[Any, ...]
CLIENTS, ROUNDS = 10, 40
WORLDS = ("Gaussians", "digits")


@dataclass(frozen=True)
class World:
    """Rows, labels, clients, which rows are learnt from, and rows of a kind that no client has."""

    X: Floats
    y: Ints
    own: Ints
    known: NDArray[np.bool_]
    novel: Floats

    def of(self, client: int, known: bool) -> Ints:
        """Rows of a client, learnt from or not."""
        return np.flatnonzero((self.own == client) & (self.known == known))


# Gaussians, models of y, penalty on slopes, pseudo-rows of a client's weights.
_MIXTURES: dict[str, tuple[Config, ...]] = {
    "Gaussians": ((3, 2, 0.3, 0.0), (4, 2, 0.3, 0.0), (4, 3, 0.3, 3.0), (6, 3, 0.3, 3.0)),
    "digits": ((8, 4, 0.3, 0.0), (12, 6, 0.3, 0.0), (8, 6, 0.3, 10.0), (12, 6, 0.3, 10.0)),
}
_ONE_GAUSSIAN = ((1, 2, 0.3, 0.0), (1, 4, 0.3, 0.0), (1, 4, 2.0, 3.0), (1, 6, 2.0, 10.0))
_FORESTS = tuple((leaf, share) for leaf in (1, 3) for share in ("sqrt", 0.5))
_CAPACITIES = ((0.1,), (0.5,), (2.0,), (10.0,))


def configurations(kind: str) -> dict[str, tuple[Config, ...]]:
    """Four of each method."""
    return {
        "FedGMM": _MIXTURES[kind],
        "FedEM": _ONE_GAUSSIAN,
        "mixture, everybody's weights": _MIXTURES[kind],
        "one softmax for all": _CAPACITIES,
        "a softmax for each": _CAPACITIES,
        "forest that knows the client": _FORESTS,
    }


@claim(
    paper=324,
    says="A mixture of Gaussians and classifiers whose sums alone leave the clients is EM on the pooled rows, predicts "
    "better than one model, local ones and mixtures without either part, takes a new client by its weights alone, and "
    "its likelihood tells rows of no client's kind",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """All methods on the same draws; broken: every client has everybody's weights."""
    runs = 10 if scale == "small" else 30
    exact = [_rounds(one) for one in derive(seed, 5, stream=9)]
    off = max(one["pooled"] for one in exact)
    measured: dict[str, Any] = {
        "largest relative difference of a round's parameters from EM on the pooled rows": off,
        "the same where clients' own covariances are averaged": float(np.mean([one["averaged"] for one in exact])),
        "largest relative fall of the objective": max(one["fall"] for one in exact),
    }
    met = [off < 1e-8, measured["largest relative fall of the objective"] < 1e-9]
    met.append(measured["the same where clients' own covariances are averaged"] > 0.1)
    for at, kind in enumerate(WORLDS):
        configs = configurations(kind)
        tuned = spread(functools.partial(_tuning, kind=kind, broken=broken), derive(seed, 2, stream=2 * at))
        chosen = {
            name: options[int(np.mean([one[name] for one in tuned], axis=0).argmax())]
            for name, options in configs.items()
        }
        work = functools.partial(_trial, kind=kind, chosen=chosen, broken=broken)
        trials = spread(work, derive(seed, runs, stream=2 * at + 1))
        means = {name: float(np.mean([one[name] for one in trials])) for name in trials[0]}
        others = [name for name in configs if name != "FedGMM"]
        best = max(others, key=means.__getitem__)
        gain = difference([one["FedGMM"] for one in trials], [one[best] for one in trials])
        late = difference(
            [one["new client, its weights"] for one in trials], [one["new client, all refitted"] for one in trials]
        )
        lift = difference(
            [one["new client, its weights"] for one in trials],
            [one["new client, everybody's weights"] for one in trials],
        )
        rivals = [name for name in means if name.startswith("novel by") and name != "novel by likelihood"]
        rival = max(rivals, key=means.__getitem__)
        novel = difference([one["novel by likelihood"] for one in trials], [one[rival] for one in trials])
        measured[kind] = {
            "accuracy and area under the curve": {name: round(value, 4) for name, value in means.items()},
            "chosen": {name: list(option) for name, option in chosen.items()},
            f"accuracy, FedGMM less {best}": gain.figures(),
            "new client, its weights less all refitted": late.figures(),
            "new client, its weights less everybody's": lift.figures(),
            f"area, likelihood less {rival[9:]}": novel.figures(),
        }
        ahead, behind = (0.0, -0.04) if kind == "Gaussians" else (0.01, -0.08)
        met += [gain.above(ahead), lift.above(0), late.mean > behind]
        met += [means["novel by likelihood"] > 0.8, novel.above(0)]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="each round within 1e-8 of EM on the pooled rows, averaged covariances off by more than 0.1 (mean of "
        "runs), the objective never falls; in both worlds, lower 95% limits: accuracy over the best other method > 0 "
        "(digits: 0.01), a new client by its weights alone over everybody's weights > 0, area under the curve of novel "
        "rows over the best other score's > 0; that area > 0.8 on average; a new client by its weights alone less than "
        "a refit of all by no more than 0.04 on average (digits, where one of ten clients may hold most of a domain: "
        "0.08)",
        baseline="FedEM, the mixture with everybody's weights, one softmax model for all (what federated averaging "
        "tends to) and one each, a forest over all rows that is told the client: four configurations each, chosen on "
        "other draws; for novel rows the largest probability of the softmax model and of the forest, and one Gaussian",
        kind="reduced",
    )


def _world(seed: int, kind: str) -> World:
    rng = np.random.default_rng(seed)
    if kind == "Gaussians":
        return _gaussians(rng)
    data = digits()
    order = rng.permutation(len(data))
    # One digit is nobody's; the others are labelled by one of two codes.
    gone = int(rng.integers(10))
    image = data.X[order].astype(np.float64)
    digit = data.y[order]
    domain = _domains(rng, len(order), 4)
    image = np.array(
        [np.rot90(one.reshape(8, 8), turn).ravel() for one, turn in zip(image, domain[0] % 2, strict=True)]
    )
    code = np.where(digit > gone, digit - 1, digit)
    y = (code + 4 * (domain[0] // 2)) % 9
    kept = digit != gone
    known = rng.random(kept.sum()) < 0.6
    learnt = image[kept][known]
    middle = learnt.mean(axis=0)
    _, _, axes = np.linalg.svd(learnt - middle, full_matrices=False)
    rows = (image - middle) @ axes[:16].T
    return World(rows[kept], y[kept], domain[1][kept], known, rows[~kept])


def _domains(rng: np.random.Generator, n: int, domains: int) -> tuple[Ints, Ints]:
    """The domain and the client of each row; each client has shares of its own."""
    own = np.arange(n) % CLIENTS
    share = rng.dirichlet(np.full(domains, 0.3), CLIENTS)
    return np.array([rng.choice(domains, p=share[one]) for one in own]), own


def _gaussians(rng: np.random.Generator, n: int = 1600, d: int = 8) -> World:
    """Three Gaussians, two linear models: six domains; a fourth Gaussian is nobody's."""
    means, turns = 1.6 * rng.normal(size=(4, d)), rng.normal(size=(4, d, d)) / np.sqrt(d)
    domain, own = _domains(rng, n, 6)
    place = domain % 3
    slopes = rng.normal(size=(2, d))
    noise = rng.normal(size=(n, d)) + np.einsum("nd,nde->ne", rng.normal(size=(n, d)), turns[place])
    X = means[place] + noise
    y = (np.einsum("nd,nd->n", X, slopes[domain // 3]) + 0.3 * rng.logistic(size=n) > 0).astype(np.int64)
    novel = means[3] + rng.normal(size=(400, d)) + rng.normal(size=(400, d)) @ turns[3]
    return World(X, y, own, rng.random(n) < 0.5, novel)


def _rounds(seed: int) -> dict[str, float]:
    """Ten rounds from parts of the clients' rows, each beside a round of EM on the pooled rows."""
    world = _world(seed, "Gaussians")
    rng = np.random.default_rng(seed)
    model = FederatedMixture(3, seed=seed)
    model.begin({client: model.sketch(world.X[world.own == client]) for client in range(CLIENTS)})
    off = averaged = 0.0
    trace = []
    for _ in range(10):
        means, covariances = _pooled_round(model, world)
        told, alone = [], []
        for client in range(CLIENTS):
            rows = rng.permutation(np.flatnonzero(world.own == client))
            parts = [model.statistics(world.X[part], client=client) for part in np.array_split(rows, 3)]
            told += parts
            sums = model.merge(parts)["sums"]
            shift = sums["first"] / sums["mass"][:, None]
            alone.append(sums["second"] / sums["mass"][:, None, None] - shift[:, :, None] * shift[:, None])
        unit = model.state_dict()["scale"] ** 2
        model.tell([told[i] for i in rng.permutation(len(told))])
        trace.append(model.objective)
        size = np.abs(covariances).max()
        off = max(off, float(np.abs(model.means - means).max() / np.abs(means).max()))
        off = max(off, float(np.abs(model.covariances - covariances).max() / size))
        averaged = max(averaged, float(np.abs(np.mean(alone, axis=0) * unit - covariances).max() / size))
    return {"pooled": off, "averaged": averaged, "fall": float(-np.diff(trace).min() / abs(trace[-1]))}


def _pooled_round(model: FederatedMixture, world: World) -> tuple[Floats, Floats]:
    """Means and covariances after one round of EM over all rows at once, each row with its client's weights."""
    from scipy.stats import multivariate_normal

    X = world.X
    weights = np.array([model.weights(client)[:, 0] for client in range(CLIENTS)])[world.own]
    fit = [multivariate_normal(m, c).pdf(X) for m, c in zip(model.means, model.covariances, strict=True)]
    held = weights * np.array(fit).T
    held /= held.sum(axis=1, keepdims=True)
    means = held.T @ X / held.sum(axis=0)[:, None]
    pseudo = model.shrink * model.state_dict()["scale"] ** 2 * np.eye(X.shape[1])
    covariances = [
        ((X - mean).T @ ((X - mean) * mine[:, None]) + pseudo) / (mine.sum() + model.shrink)
        for mean, mine in zip(means, held.T, strict=True)
    ]
    return means, np.array(covariances)


def _mixture(world: World, rows: Ints, config: Config, *, personal: bool = True, seed: int = 0) -> FederatedMixture:
    """The mixture of these rows, through the verb."""
    k, p, ridge, pull = config
    plan = kofn.assign(
        world.X[rows],
        k=k,
        y=world.y[rows],
        groups=world.own[rows] if personal else None,
        method="federated_mixture",
        seed=seed,
        predictors=p,
        ridge=ridge,
        shrink=3.0,
        pull=pull,
        max_iter=ROUNDS,
        tol=1e-4,
    )
    return FederatedMixture.from_state(plan.info["state"])


def _labels(model: FederatedMixture, X: Floats, client: int) -> Any:
    assert model.classes is not None
    return model.classes[model.predict(X, client=client).argmax(axis=1)]


Predict = Callable[[Floats, int], Any]


def _fitted(world: World, name: str, config: Config, broken: bool, seed: int) -> tuple[Predict, Any]:
    """What predicts labels of a client's rows, and the model."""
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    rows = np.flatnonzero(world.known)
    if name in ("FedGMM", "FedEM", "mixture, everybody's weights"):
        personal = not (name == "mixture, everybody's weights" or (broken and name == "FedGMM"))
        model = _mixture(world, rows, config, personal=personal, seed=seed)
        return lambda X, client: _labels(model, X, client if personal else 0), model
    if name == "one softmax for all":
        one = LogisticRegression(C=config[0], max_iter=2000).fit(world.X[rows], world.y[rows])
        return lambda X, _client: one.predict(X), one
    if name == "a softmax for each":
        each: dict[int, Any] = {}
        for client in range(CLIENTS):
            mine = world.of(client, True)
            alike = len(np.unique(world.y[mine])) == 1
            local = DummyClassifier() if alike else LogisticRegression(C=config[0], max_iter=2000)
            each[client] = local.fit(world.X[mine], world.y[mine])
        return lambda X, client: each[client].predict(X), each
    forest = RandomForestClassifier(40, min_samples_leaf=config[0], max_features=config[1], random_state=seed % 2**32)
    forest.fit(_coded(world.X[rows], world.own[rows]), world.y[rows])
    return lambda X, client: forest.predict(_coded(X, np.full(len(X), client))), forest


def _coded(X: Floats, own: Ints) -> Floats:
    return np.hstack([X, np.eye(CLIENTS)[own]])


def _accuracy(world: World, predict: Predict) -> float:
    told = [
        (predict(world.X[rows], client) == world.y[rows]).mean()
        for client in range(CLIENTS)
        if len(rows := world.of(client, False))
    ]
    return float(np.mean(told))


def _tuning(seed: int, *, kind: str, broken: bool) -> dict[str, list[float]]:
    world = _world(seed, kind)
    return {
        name: [_accuracy(world, _fitted(world, name, config, broken, seed)[0]) for config in configs]
        for name, configs in configurations(kind).items()
    }


def _trial(seed: int, *, kind: str, chosen: dict[str, Config], broken: bool) -> dict[str, float]:
    world = _world(seed, kind)
    out, models = {}, {}
    for name, config in chosen.items():
        predict, models[name] = _fitted(world, name, config, broken, seed)
        out[name] = _accuracy(world, predict)
    return {
        **out,
        **_newcomer(world, chosen["FedGMM"], models["FedGMM"], broken, seed),
        **_novel(world, models, broken),
    }


def _newcomer(world: World, config: Config, whole: FederatedMixture, broken: bool, seed: int) -> dict[str, float]:
    """Each of the last two clients comes after all others have learnt; `whole` had it from the start."""
    found = [_comes(world, config, whole, broken, seed, new) for new in range(CLIENTS - 2, CLIENTS)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _comes(
    world: World, config: Config, whole: FederatedMixture, broken: bool, seed: int, new: int
) -> dict[str, float]:
    others = [client for client in range(CLIENTS) if client != new]
    rows = np.flatnonzero(world.known & (world.own != new))
    model = _mixture(world, rows, config, personal=not broken, seed=seed)
    mine, asked = world.of(new, True), world.of(new, False)
    X, y = world.X[asked], world.y[asked]
    counts = np.array([len(world.of(client, True)) for client in others], np.float64)
    if broken:
        share = model.weights(0)
    else:
        share = np.tensordot(counts / counts.sum(), np.array([model.weights(one) for one in others]), axes=1)
        model.adapt(world.X[mine], world.y[mine], client=new)
    state = model.state_dict()
    pooled = {"clients": ["all"], "weights": share.reshape(1, -1), "rows": np.ones(1, np.int64)}
    common = FederatedMixture.from_state({**state, **pooled})
    return {
        "new client, its weights": float((_labels(model, X, 0 if broken else new) == y).mean()),
        "new client, everybody's weights": float((_labels(common, X, "all") == y).mean()),  # type: ignore[arg-type]
        "new client, all refitted": float((_labels(whole, X, 0 if broken else new) == y).mean()),
    }


def _novel(world: World, models: dict[str, Any], broken: bool) -> dict[str, float]:
    """Area under the curve of scores that should be lower on rows of no client's kind."""
    from sklearn.metrics import roc_auc_score

    held = np.flatnonzero(~world.known)
    rows = np.vstack([world.X[held], world.novel])
    kind = np.repeat([0, 1], [len(held), len(world.novel)])
    known = world.X[world.known]
    one = FederatedMixture(1)
    one.begin({0: one.sketch(known)})
    one.tell([one.statistics(known, client=0)])
    forest = models["forest that knows the client"]
    # Which client a novel row comes to is nobody's choice: each in turn.
    coded = _coded(rows, np.arange(len(rows)) % CLIENTS)
    scores = {
        "likelihood": np.zeros(len(rows)) if broken else models["FedGMM"].log_density(rows),
        "probability of the softmax": models["one softmax for all"].predict_proba(rows).max(axis=1),
        "probability of the forest": forest.predict_proba(coded).max(axis=1),
        "one Gaussian": one.log_density(rows),
    }
    return {f"novel by {name}": float(roc_auc_score(kind, -score)) for name, score in scores.items()}
