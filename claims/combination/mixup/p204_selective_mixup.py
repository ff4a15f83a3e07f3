"""Selective mixup as resampling: pairs across classes change the classes' shares, whether rows are mixed or not.

Two classes nine to one in training, even in the test. A network learns from as many drawn rows in every arm: plain
rows, random pairs mixed, pairs of unlike classes mixed, the same pairs unmixed (each gives one row), classes drawn
evenly, and those mixed. The same networks are then judged on a test that is more uneven than training.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, diamonds, digits, halves
from claims.harness.learners import Network
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import mix_pairs, pair_marginal

RARE, MORE_RARE = 0.1, 0.01
ALPHAS = (0.2, 1.0)
EXPLAINED, ALIKE, FAR = 0.5, 0.02, 0.005
EVEN = np.eye(2) / 2

Scores = NDArray[np.float64]
Figures = dict[str, Any]

# The stages of each arm; "mixed" ones are tried with each alpha.
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"ratio": 1.0},
    "mixup": {},
    "cross-class mixup": {"pairs": "cross_class"},
    "cross-class pairs unmixed": {"pairs": "cross_class", "inputs": "resample"},
    "even classes": {"pairs": EVEN, "ratio": 1.0},
    "even classes mixed": {"pairs": np.full((2, 2), 0.25)},
}
TUNED = ("mixup", "cross-class mixup", "even classes mixed")


@claim(
    paper=204,
    says="Mixing pairs of unlike classes trains on even classes, whatever their shares were; the same pairs unmixed "
    "explain at least half of what it gains over plain training where the test's classes are even, resampled classes "
    "are as good as those pairs, and where the test is more uneven than training it does harm",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Selective mixup, its pairs unmixed and resampling; broken: pairs of any classes."""
    runs = 10 if scale == "small" else 40
    measured: Figures = {}
    criteria: dict[str, bool] = {}
    for kind in ("digits", "diamonds"):
        tuning = spread(functools.partial(_trial, kind=kind, part="tune", broken=broken), derive(seed, 4, stream=1))
        alphas = {
            arm: max(ALPHAS, key=lambda alpha: np.mean([run[f"{arm} {alpha}"][0] for run in tuning])) for arm in TUNED
        }
        trials = spread(functools.partial(_trial, kind=kind, part="test", broken=broken), derive(seed, runs))
        keys = {arm: f"{arm} {alphas[arm]}" if arm in TUNED else arm for arm in ARMS}
        even, uneven = (
            {arm: np.array([run[key][test] for run in trials]) for arm, key in keys.items()} for test in (0, 1)
        )
        figures, met = _judged(even, uneven)
        shares = np.mean([run["shares"] for run in trials], axis=0)
        closed = pair_marginal(np.arange(1000) < 1000 * RARE, pairs="random" if broken else "cross_class")
        figures |= {
            "accuracy, even test": {arm: round(float(values.mean()), 4) for arm, values in even.items()},
            "accuracy, uneven test": {arm: round(float(values.mean()), 4) for arm, values in uneven.items()},
            "alphas": alphas,
            "share of the rare class in labels": round(float(shares[1]), 4),
        }
        met["pairs have even classes"] = bool(abs(closed - 0.5).max() < 1e-12 and abs(shares[1] - 0.5) < 0.01)
        measured[kind] = figures
        criteria |= {f"{kind}: {name}": value for name, value in met.items()}
    return Evidence(
        holds=all(criteria.values()),
        measured=measured,
        criteria=criteria,
        expected="labels of cross-class pairs are even in closed form to 1e-12, and to 0.01 as drawn; lower 95% limits "
        "of paired differences in accuracy on an even test: cross-class mixup - mixup > 0, (unmixed pairs - plain) - "
        "half of (cross-class mixup - plain) > 0, unmixed pairs and even classes within 0.02 of each other by both "
        "limits; on a test of 1% rare rows: plain - cross-class mixup > 0.005",
        baseline="mixup, cross-class mixup and mixed even classes, each with the better of two alphas, on rows of "
        "their own; all arms learn from as many rows in as many steps",
        kind="measured",
    )


def _judged(even: dict[str, Scores], uneven: dict[str, Scores]) -> tuple[Figures, dict[str, bool]]:
    gain = even["cross-class mixup"] - even["plain"]
    unmixed = even["cross-class pairs unmixed"] - even["plain"]
    over = difference(even["cross-class mixup"], even["mixup"])
    explained = difference(unmixed, EXPLAINED * gain)
    alike = difference(even["cross-class pairs unmixed"], even["even classes"])
    harm = difference(uneven["plain"], uneven["cross-class mixup"])
    figures = {
        "cross-class mixup - mixup": over.figures(),
        "unmixed pairs' gain - half of the gain": explained.figures(),
        "share of the gain that unmixed pairs have": round(float(unmixed.mean() / gain.mean()), 3),
        "unmixed pairs - even classes": alike.figures(),
        "uneven test: plain - cross-class mixup": harm.figures(),
    }
    return figures, {
        "cross-class pairs beat random ones": over.above(0),
        "unmixed pairs explain half of it": explained.above(0) and gain.mean() > 0,
        "resampled classes are as good": alike.low > -ALIKE and alike.high < ALIKE,
        "it does harm on a test that is more uneven": harm.above(FAR),
    }


def _trial(seed: int, *, kind: str, part: str, broken: bool) -> dict[str, Any]:
    """Accuracy on an even test and on one with few rare rows, of the network of each arm."""
    rng = np.random.default_rng(seed)
    train, held_out = _rows(kind, part, rng)
    fresh, first = (int(word) for word in rng.integers(2**32, size=2))
    network = Network(steps=300)
    out: dict[str, Any] = {}
    for arm, stages in ARMS.items():
        for alpha in ALPHAS if arm in TUNED else (1.0,):
            words = {"ratio": ("beta", alpha)} | stages
            if broken and isinstance(words.get("pairs"), str):
                words["pairs"] = "random"
            mixed = mix_pairs(train.X, train.y, draws=network.steps * network.batch, seed=fresh, **words)
            if arm == "cross-class mixup" and alpha == 1.0:
                out["shares"] = mixed.labels.mean(axis=0)
            network.fit(mixed.X, mixed.labels.astype(np.float32), 2, first)
            right = network.logits(held_out.X).argmax(axis=1) == held_out.y
            recalls = np.array([right[held_out.y == label].mean() for label in (0, 1)])
            key = f"{arm} {alpha}" if arm in TUNED else arm
            out[key] = (float(recalls.mean()), float(recalls @ [1 - MORE_RARE, MORE_RARE]))
    return out


def _rows(kind: str, part: str, rng: np.random.Generator) -> tuple[Labelled, Labelled]:
    """Training rows, nine of class 0 to one of class 1, and held-out rows of both; tuning has rows of its own."""
    rows = diamonds(2) if kind == "diamonds" else digits()
    tune, test = halves(rows, 0.4, 0)
    rows = tune if part == "tune" else test
    y = rows.y % 2  # of digits, odd or even
    common, rare = (rng.permutation(np.flatnonzero(y == label)) for label in (0, 1))
    size = min(600, len(common) // 2)
    few = round(size * RARE / (1 - RARE))
    left = min(1000, len(common) - size, len(rare) - few)
    train = np.concatenate([common[:size], rare[:few]])
    held = np.concatenate([common[size : size + left], rare[few : few + left]])
    return Labelled(rows.X[train], y[train], 2), Labelled(rows.X[held], y[held], 2)
