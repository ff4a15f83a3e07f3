"""The last-layer features of networks trained with mixup, against the optimum of free features and against lines.

Simulated: free features of mixed rows under a fixed simplex frame, minimised numerically. Real: a network on three
classes of digits or of diamonds, trained with mixup under cross-entropy and under squares. A fresh set of mixed rows is
looked at, at nine ratios for every pair of classes.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, diamonds, digits, halves
from claims.harness.learners import softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import mix_pairs, mixup_features, simplex_frame

Floats = NDArray[np.float64]
CLASSES, WIDTH, EPOCHS, BATCH = 3, 64, 80, 64
RATIOS = np.linspace(0.1, 0.9, 9)
PENALTIES = np.geomspace(1e-6, 1.0, 61)
LOSSES = ("cross_entropy", "squares")
BINS = 10


@claim(
    paper=264,
    says="Trained with mixup, a network's features of rows mixed within a class align with the classifier, and those "
    "of rows mixed between classes lie as the optimum of free features and off the line between the classes' means",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Features of fresh mixed rows by ratio; broken: the network is trained on rows that are not mixed."""
    runs = 10 if scale == "small" else 30
    off = max(spread(_free, derive(seed, runs, stream=2)))
    criteria = {"free features: the closed form is the minimum to a thousandth": off < 1e-3}
    measured: dict[str, Any] = {"free features: largest relative distance from the minimum": float(f"{off:.2g}")}
    for kind in ("digits", "diamonds"):
        rows = spread(functools.partial(_run, kind=kind, broken=broken), derive(seed, runs))
        same = difference([row["cross_entropy"]["same"] for row in rows], [0.0] * runs)
        nearer = difference(
            [row["cross_entropy"]["line"] for row in rows], [row["cross_entropy"]["optimum"] for row in rows]
        )
        bent = difference([row["cross_entropy"]["bend"] for row in rows], [row["squares"]["bend"] for row in rows])
        calmer = difference([row["plain"] for row in rows], [row["cross_entropy"]["calibration"] for row in rows])
        criteria |= {
            f"{kind}: rows of one class align with the classifier": same.low > 0.9,
            f"{kind}: rows of two classes lie nearer to the optimum than to a line": nearer.above(0),
            f"{kind}: further off the line than under squares": bent.above(0),
            f"{kind}: better calibrated than without mixup": calmer.above(0),
        }
        measured[kind] = {
            loss: {name: round(float(np.mean([row[loss][name] for row in rows])), 4) for name in rows[0][loss]}
            for loss in LOSSES
        } | {
            "line less optimum": nearer.figures(),
            "bend less that of squares": bent.figures(),
            "calibration error without mixup less with": calmer.figures(),
        }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="a relative distance below 0.001 from the numerical minimum; a paired lower 95% limit of the cosine "
        "above 0.9; lower limits of the distance from the fitted line less that from the fitted optimum, of the bend "
        "less that under squares, and of the calibration error saved above 0",
        baseline="the line between the classes' mean features, with a scale of its own where the optimum has a penalty "
        "and a scale; the same network under squares; the same network on rows that are not mixed",
        kind="reduced",
    )


def _free(seed: int) -> float:
    """How far the closed form is from what a general minimiser of all features together finds, relative to it."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    rng = np.random.default_rng(seed)
    frame = simplex_frame(CLASSES, scale=float(rng.uniform(0.5, 3)))
    penalty = float(np.exp(rng.uniform(np.log(1e-3), np.log(0.1))))
    mixed = mix_pairs(np.eye(CLASSES), np.arange(CLASSES), draws=30, seed=seed)

    def value(flat: Floats) -> tuple[float, Floats]:
        features = flat.reshape(-1, CLASSES)
        logs = log_softmax(features @ frame.T, axis=1)
        total = -(mixed.labels * logs).sum() + penalty / 2 * np.square(features).sum()
        return float(total), ((np.exp(logs) - mixed.labels) @ frame + penalty * features).ravel()

    start = np.zeros(30 * CLASSES)
    found = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-10, "ftol": 0})
    closed = mixup_features(mixed.labels, frame, penalty=penalty)
    return float(np.linalg.norm(found.x - closed.ravel()) / np.linalg.norm(closed))


def _data(kind: str, rng: np.random.Generator) -> tuple[Labelled, Labelled]:
    whole = digits() if kind == "digits" else diamonds(CLASSES)
    chosen = rng.choice(whole.classes, CLASSES, replace=False)
    rows = np.flatnonzero(np.isin(whole.y, chosen))
    rows = rng.permutation(rows)[:900]
    y = np.argmax(whole.y[rows][:, None] == chosen, axis=1)
    X = whole.X[rows].astype(np.float32)
    X = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-3)
    train, test = halves(Labelled(X, y, CLASSES), 0.6, int(rng.integers(2**31)))
    return train, test


def _trained(train: Labelled, loss: str, seed: int, *, mixed: bool) -> Any:
    """A network of two hidden layers and its head, trained by Adam with decay of the weights."""
    import torch

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    width = train.X.shape[1]
    body = torch.nn.Sequential(torch.nn.Linear(width, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH))
    head = torch.nn.Linear(WIDTH, CLASSES, bias=False)
    steps = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=3e-3, weight_decay=1e-4)
    rng = np.random.default_rng(seed)
    for epoch in range(EPOCHS):
        for group in steps.param_groups:
            group["lr"] = 3e-3 * (1 - epoch / EPOCHS)
        ratio: Any = ("beta", 1.0) if mixed else 1.0
        rows = mix_pairs(train.X, train.y, ratio=ratio, classes=CLASSES, seed=int(rng.integers(2**31)))
        X, labels = torch.from_numpy(rows.X), torch.from_numpy(rows.labels.astype(np.float32))
        for part in torch.randperm(len(X)).split(BATCH):
            odds = head(body(X[part]))
            if loss == "cross_entropy":
                fit = torch.nn.functional.cross_entropy(odds, labels[part])
            else:
                fit = (odds - labels[part]).square().sum(dim=1).mean()
            steps.zero_grad()
            fit.backward()
            steps.step()

    def applied(X: NDArray[np.float32]) -> Floats:
        with torch.no_grad():
            return np.asarray(body(torch.from_numpy(np.ascontiguousarray(X))), np.float64)

    return applied, np.asarray(head.weight.detach(), np.float64)


def _run(seed: int, *, kind: str, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    train, test = _data(kind, rng)
    out: dict[str, Any] = {}
    for loss in LOSSES:
        applied, head = _trained(train, loss, seed, mixed=not broken)
        out[loss] = _geometry(applied, head, train, rng)
        out[loss]["calibration"] = _calibration(applied(test.X) @ head.T, test.y)
    applied, head = _trained(train, "cross_entropy", seed, mixed=False)
    out["plain"] = _calibration(applied(test.X) @ head.T, test.y)
    return out


def _geometry(applied: Any, head: Floats, train: Labelled, rng: np.random.Generator) -> dict[str, float]:
    """How mixed rows' features lie: within a class by their cosine, between classes by distances of their means."""
    groups = [np.flatnonzero(train.y == label) for label in range(CLASSES)]

    def mixed(i: int, j: int, ratio: float) -> Floats:
        first, second = (train.X[rng.choice(groups[label], 200)] for label in (i, j))
        return np.asarray(applied((ratio * first + (1 - ratio) * second).astype(np.float32)))

    cosines, about = [], []
    means, targets, lines = [], [], []
    centres = np.array([applied(train.X[rows]).mean(axis=0) for rows in groups])
    for label in range(CLASSES):
        features = mixed(label, label, float(rng.uniform(0.1, 0.9)))
        cosines.append(_cosine(features, head[label]))
        about.append(_cosine(features - centres.mean(axis=0), head[label]))
    for i in range(CLASSES):
        for j in range(i):
            for ratio in RATIOS.tolist():
                means.append(mixed(i, j, ratio).mean(axis=0))
                targets.append(ratio * np.eye(CLASSES)[i] + (1 - ratio) * np.eye(CLASSES)[j])
                lines.append(ratio * centres[i] + (1 - ratio) * centres[j])
    seen, masses, between = np.array(means), np.array(targets), np.array(lines)
    # Both are compared as logits, centred: the classifier's own coordinates, whatever its rotation.
    logits, line = (_centred(part @ head.T) for part in (seen, between))
    frame = simplex_frame(CLASSES)
    shapes = [mixup_features(masses, frame, penalty=float(penalty)) @ frame.T for penalty in PENALTIES]
    return {
        "same": float(np.mean(cosines)),
        "same, about the classes' mean": float(np.mean(about)),
        "optimum": min(_distance(logits, _centred(shape)) for shape in shapes),
        "line": _distance(logits, line),
        "bend": float(np.linalg.norm(seen - between) / np.linalg.norm(seen)),
    }


def _cosine(features: Floats, vector: Floats) -> float:
    return float(np.mean(features @ vector / (np.linalg.norm(features, axis=1) * np.linalg.norm(vector))))


def _centred(logits: Floats) -> Floats:
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def _distance(logits: Floats, shape: Floats) -> float:
    """Of the logits from a shape, scaled as fits best, relative to them."""
    factor = (logits * shape).sum() / np.square(shape).sum()
    return float(np.linalg.norm(logits - factor * shape) / np.linalg.norm(logits))


def _calibration(logits: Floats, y: Any) -> float:
    """Expected calibration error, in bins of confidence."""
    chances = softmax(logits.astype(np.float32))
    sure = chances.max(axis=1)
    right = chances.argmax(axis=1) == y
    number = np.minimum((sure * BINS).astype(int), BINS - 1)
    return float(sum(abs(np.sum(right[number == b] - sure[number == b])) for b in range(BINS)) / len(y))
