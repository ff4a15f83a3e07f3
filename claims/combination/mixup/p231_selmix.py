"""SelMix: a head fine-tuned on features of those pairs of classes whose mixing helps the worst recall most.

A network is trained on long-tailed classes; its head is then fine-tuned on its features, in as many steps for every
arm. SelMix draws pairs of classes by their gains, which each round's confusion matrix of validation rows gives anew.
Every arm has six settings, rates or rates and temperatures, and takes the one with which the validation rows' worst
recall is best; the test rows are seen at the end.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, diamonds, digits
from claims.harness.learners import Network, one_hot, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import mix_pairs, mixup_gains, pair_chances

ROUNDS, STEPS, BATCH = 10, 30, 64
RATES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
LAW = ("uniform", 0.6, 1.0)
# SelMix's inverse temperatures, in units of the spread of the gains, which grows with the features' norms. Each is
# tried with every other rate, so that all arms have as many settings.
SHARP = (1.0, 10.0)
ALIKE = 0.7
BASELINES = ("plain", "mixup", "even classes", "even classes mixed")

Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Figures = dict[str, Any]
Head = tuple[Singles, Singles]


@claim(
    paper=231,
    says="Fine-tuning a head on pairs of classes drawn by SelMix's gains raises the worst class's recall over plain "
    "fine-tuning, mixup of random pairs, and even classes, plain and mixed; the gains go with what single steps do",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """SelMix against other draws of pairs; broken: it draws random pairs, whatever their gains."""
    runs = 16 if scale == "small" else 40
    measured: Figures = {}
    criteria: dict[str, bool] = {}
    for kind in ("digits", "diamonds"):
        trials = spread(functools.partial(_trial, kind=kind, broken=broken), derive(seed, runs))
        worst = {arm: np.array([trial[arm][0] for trial in trials]) for arm in (*BASELINES, "selmix", "before")}
        mean = {arm: np.array([trial[arm][1] for trial in trials]) for arm in worst}
        gaps = {arm: difference(worst["selmix"], worst[arm]) for arm in BASELINES}
        agreement = float(np.mean([trial["agreement"] for trial in trials]))
        measured[kind] = {
            "worst recall": {arm: round(float(values.mean()), 4) for arm, values in worst.items()},
            "mean recall": {arm: round(float(values.mean()), 4) for arm, values in mean.items()},
            **{f"selmix - {arm}": gap.figures() for arm, gap in gaps.items()},
            "correlation of gains and steps, mean": round(agreement, 3),
        }
        criteria |= {f"{kind}: better worst recall than {arm}": gap.above(0) for arm, gap in gaps.items()}
        criteria[f"{kind}: gains go with steps"] = agreement > ALIKE
    return Evidence(
        holds=all(criteria.values()),
        measured=measured,
        criteria=criteria,
        expected="lower 95% limits of paired differences in the worst recall on test rows, SelMix - each other draw, "
        "> 0; mean correlation over pairs of classes between gains and the change by one small step on real rows > 0.7",
        baseline="plain fine-tuning, mixup of random pairs, classes drawn evenly, pairs of classes drawn evenly and "
        "mixed: as many steps, the best of as many settings by the worst recall of the same validation rows",
        kind="reduced",
    )


def _trial(seed: int, *, kind: str, broken: bool) -> dict[str, Any]:
    """Worst and mean recall of every arm on the test rows, and how gains agree with steps."""
    rng = np.random.default_rng(seed)
    train, valid, test = _rows(kind, rng)
    network = Network(steps=300).fit(train.X, train.y, train.classes, seed)
    parts = [Labelled(_features(network, part.X), part.y, part.classes) for part in (train, valid, test)]
    start = (network.weights[-1].copy(), network.biases[-1].copy())
    out: dict[str, Any] = {"before": _scores(start, parts[2]), "agreement": _agreement(start, parts[0], parts[1], rng)}
    draws = int(rng.integers(2**32))
    for arm in (*BASELINES, "selmix"):
        settings = [(rate, sharp) for rate in RATES[1::2] for sharp in SHARP] if arm == "selmix" else RATES
        heads = [_tuned(start, parts[0], parts[1], arm, setting, draws, broken) for setting in settings]
        best = max(heads, key=lambda head: _scores(head, parts[1]))
        out[arm] = _scores(best, parts[2])
    return out


def _tuned(start: Head, train: Labelled, valid: Labelled, arm: str, setting: Any, seed: int, broken: bool) -> Head:
    """The head after its rounds of gradient steps on drawn pairs; the setting is a rate, of SelMix with its s."""
    rate, sharp = setting if arm == "selmix" else (setting, 0.0)
    weight, bias = start[0].copy(), start[1].copy()
    k = train.classes
    for number in range(ROUNDS):
        stages: dict[str, Any] = {"pairs": "random", "ratio": LAW}
        if arm == "selmix" and not broken:
            stages["pairs"] = _chances((weight, bias), train, valid, sharp)
        elif arm == "even classes mixed":
            stages["pairs"] = np.full((k, k), 1 / k**2)
        elif arm == "even classes":
            stages |= {"pairs": np.eye(k) / k, "ratio": 1.0}
        elif arm == "plain":
            stages["ratio"] = 1.0
        mixed = mix_pairs(
            train.X, train.y, labels="first", classes=k, draws=STEPS * BATCH, seed=seed + number, **stages
        )
        step = np.float32(rate / BATCH)
        for begin in range(0, STEPS * BATCH, BATCH):
            X = mixed.X[begin : begin + BATCH]
            residual = mixed.labels[begin : begin + BATCH].astype(np.float32) - softmax(X @ weight + bias)
            weight += step * (X.T @ residual)
            bias += step * residual.sum(axis=0)
    return weight, bias


def _gains(head: Head, train: Labelled, valid: Labelled) -> NDArray[np.float64]:
    guess = (valid.X @ head[0] + head[1]).argmax(axis=1)
    confusion = np.zeros((valid.classes, valid.classes))
    np.add.at(confusion, (valid.y, guess), 1)
    prototypes = [train.X[train.y == label].mean(axis=0) for label in range(train.classes)]
    return mixup_gains(confusion, prototypes, head[0].T, head[1], ratio=LAW)


def _chances(head: Head, train: Labelled, valid: Labelled, sharp: float) -> NDArray[np.float64]:
    gains = _gains(head, train, valid)
    return pair_chances(gains, s=sharp / float(np.ptp(gains)))


def _agreement(head: Head, train: Labelled, valid: Labelled, rng: np.random.Generator) -> float:
    """Correlation, over pairs of classes, of gains and the change of the weighted recall by one small step."""
    gains, k = _gains(head, train, valid), train.classes
    recalls = _recalls(head, valid)
    weights = np.exp(-20.0 * (recalls - recalls.min()))
    weights /= weights.sum()

    def smooth(weight: Singles, bias: Singles) -> float:
        chances = softmax((valid.X @ weight + bias).astype(np.float64))[np.arange(len(valid)), valid.y]
        means = np.bincount(valid.y, chances, k) / np.bincount(valid.y, minlength=k)
        return float(means @ weights)

    before, changes = smooth(*head), np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            chances = np.zeros((k, k))
            chances[i, j] = 1
            words: dict[str, Any] = {"ratio": LAW, "labels": "first", "classes": k, "draws": BATCH}
            mixed = mix_pairs(train.X, train.y, pairs=chances, seed=int(rng.integers(2**32)), **words)
            residual = one_hot(np.full(BATCH, i), k) - softmax(mixed.X @ head[0] + head[1])
            step = np.float32(1e-3 / BATCH)
            changes[i, j] = smooth(head[0] + step * (mixed.X.T @ residual), head[1] + step * residual.sum(axis=0))
    return float(np.corrcoef(gains.ravel(), (changes - before).ravel())[0, 1])


def _recalls(head: Head, rows: Labelled) -> NDArray[np.float64]:
    right = (rows.X @ head[0] + head[1]).argmax(axis=1) == rows.y
    return np.bincount(rows.y, right, rows.classes) / np.bincount(rows.y, minlength=rows.classes)


def _scores(head: Head, rows: Labelled) -> tuple[float, float]:
    recalls = _recalls(head, rows)
    return float(recalls.min()), float(recalls.mean())


def _features(network: Network, X: Singles) -> Singles:
    out: Singles = np.maximum(X @ network.weights[0] + network.biases[0], 0)
    return out


def _rows(kind: str, rng: np.random.Generator) -> tuple[Labelled, Labelled, Labelled]:
    """Long-tailed training rows, the classes' order drawn, and validation and test rows with as many of each class."""
    rows = digits() if kind == "digits" else diamonds(5)
    most, least, checked, tested = (70, 4, 25, 75) if kind == "digits" else (1500, 75, 100, 1000)
    sizes = np.geomspace(most, least, rows.classes).round().astype(int)
    parts: list[list[Ints]] = [[], [], []]
    for size, label in zip(sizes, rng.permutation(rows.classes), strict=True):
        order = rng.permutation(np.flatnonzero(rows.y == label))
        for part, piece in zip(parts, np.split(order[: size + checked + tested], [size, size + checked]), strict=True):
            part.append(piece)
    train, valid, test = (rows.take(np.concatenate(part)) for part in parts)
    return train, valid, test
