"""A few labels on scanned digits and on Gaussians: nearest prototype, seeded k-means, and the graph of neighbours.

Where a class is one round Gaussian, k-means is the right model and the graph can add nothing: there only the gain of
k-means is asked for, and what the graph does is shown. Where a class is three unequal Gaussians a mean cannot tell all
of it, and the graph is asked for more.

Episodes of five classes, 1 or 5 labelled rows a class and 15 others, in the principal components of rows that are never
tested on. Every rule has as many configurations, chosen by its mean accuracy over episodes of those same rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import Labelled, digits, halves, mixture
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.assignment import laplacian_shot

WAYS, QUERIES = 5, 15


@dataclass(frozen=True)
class Setting:
    """Labelled rows a class, episodes to choose on and to test on at small scale, and the least gains of k-means over
    nearest prototypes and of the graph over k-means."""

    kind: str
    shots: int
    tries: int
    runs: int
    seeded: float | None
    smooth: float | None


SETTINGS = (
    Setting("digits", 1, 60, 250, 0.03, 0.0),
    Setting("digits", 5, 20, 100, -0.01, 0.005),
    Setting("round Gaussians", 1, 20, 50, 0.03, None),
    Setting("threefold Gaussians", 5, 20, 50, None, 0.02),
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Config = tuple[Any, ...]

_DIMS = (8, 12, 16, 24, 32, 64)
CONFIGS: dict[str, tuple[Config, ...]] = {
    "nearest prototype": tuple((d, unit) for d in _DIMS for unit in (True, False)),
    "k-means": tuple((d, unit) for d in _DIMS for unit in (True, False)),
    "soft k-means": tuple((d, warm) for d in (16, 32, 48) for warm in (0.05, 0.15, 0.3, 0.6)),
    "Laplacian": tuple((warm, lam, near) for warm in (0.3, 0.6) for lam in (0.3, 0.6, 1.0) for near in (3, 5)),
}


@claim(
    paper=4,
    says="Labels that spread over the graph of neighbours, by a bound optimiser that never goes up, beat k-means "
    "seeded from the labelled rows, which beat nearest prototypes where there is one label a class",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """All rules on the same episodes; broken: the neighbours count for nothing."""
    more = 1 if scale == "small" else 4
    measured: dict[str, Any] = {}
    met = []
    for at, setting in enumerate(SETTINGS):
        work = functools.partial(_episode, kind=setting.kind, shots=setting.shots, broken=broken)
        tuned = spread(
            functools.partial(work, configs=CONFIGS, tested=False), derive(seed, setting.tries * more, stream=2 * at)
        )
        chosen = {
            name: (configs[int(np.mean([one[name] for one in tuned], axis=0).argmax())],)
            for name, configs in CONFIGS.items()
        }
        episodes = derive(seed, setting.runs * more, stream=2 * at + 1)
        tests = spread(functools.partial(work, configs=chosen, tested=True), episodes)
        accuracy = {name: np.array([one[name][0] for one in tests]) for name in CONFIGS}
        # The better of the two kinds of k-means on the episodes that it was tuned on.
        best = max(("k-means", "soft k-means"), key=lambda name: _tuned_to(tuned, name))
        seeded = difference(accuracy[best], accuracy["nearest prototype"])
        smooth = difference(accuracy["Laplacian"], accuracy[best])
        rise = max(one["rise"][0] for one in tests)
        measured[f"{setting.kind}, {setting.shots} labelled"] = {
            "accuracy": {name: round(float(values.mean()), 4) for name, values in accuracy.items()},
            "chosen": {name: list(configs[0]) for name, configs in chosen.items()},
            f"{best} less nearest prototype": seeded.figures(),
            f"Laplacian less {best}": smooth.figures(),
            "largest relative rise of the objective at any step": rise,
        }
        met.append(rise <= 1e-9)
        if setting.seeded is not None:
            met.append(seeded.above(setting.seeded))
        if setting.smooth is not None:
            met.append(smooth.above(setting.smooth))
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="lower 95% limits of the gain in accuracy: k-means over nearest prototypes > 0.03 with 1 labelled row "
        "a class, > -0.01 with 5 (digits); Laplacian over the better k-means > 0 on digits with 1, > 0.005 with 5, "
        "> 0.02 on threefold Gaussians with 5; the objective never rises, at any step of assignments or prototypes",
        baseline="nearest prototypes and k-means from them, hard and soft, labelled rows held, each with as many "
        "configurations (components, length, temperature) chosen on other rows; paired over episodes",
        kind="reduced",
    )


def _tuned_to(tuned: list[dict[str, list[float]]], name: str) -> float:
    return float(np.mean([one[name] for one in tuned], axis=0).max())


@functools.cache
def _data(kind: str) -> tuple[Labelled, Labelled, Floats, Floats]:
    """Rows to choose on, rows to test on, and the mean and principal axes of the former."""
    if kind == "digits":
        data = digits()
    else:
        modes, d, width = (1, 20, 1.2) if kind == "round Gaussians" else (3, 64, 0.8)
        data = mixture(np.random.default_rng(4), 3000, classes=10, modes=modes, d=d, spread=width)
    known, others = halves(data, 0.5, seed=4)
    middle = known.X.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(known.X - middle, full_matrices=False)
    return known, others, middle, axes


def _episode(
    seed: int, *, kind: str, shots: int, broken: bool, configs: dict[str, tuple[Config, ...]], tested: bool
) -> dict[str, list[float]]:
    """Accuracy on the unlabelled rows of one episode, of every rule with every configuration."""
    known, others, middle, axes = _data(kind)
    data = others if tested else known
    rng = np.random.default_rng(seed)
    able = np.flatnonzero(np.bincount(data.y, minlength=data.classes) >= shots + QUERIES)
    held: list[Ints] = []
    asked: list[Ints] = []
    for label in rng.choice(able, WAYS, replace=False):
        rows = rng.permutation(np.flatnonzero(data.y == label))[: shots + QUERIES]
        held.append(rows[:shots])
        asked.append(rows[shots:])
    rows = np.concatenate(held + asked)
    truth = data.y[rows]
    y = truth.copy()
    y[WAYS * shots :] = -1
    whole = (data.X[rows] - middle) @ axes.T
    rises: list[float] = []
    rules: dict[str, Callable[..., Ints]] = {
        "nearest prototype": functools.partial(_k_means, whole, y, 0),
        "k-means": functools.partial(_k_means, whole, y, 100),
        "soft k-means": lambda d, warm: _smooth(whole, y, rises, d, warm, 0.0, 3),
        "Laplacian": lambda warm, lam, near: _smooth(whole, y, rises, 32, warm, 0.0 if broken else lam, near),
    }
    asked_from = WAYS * shots
    out = {
        name: [float((rules[name](*config)[asked_from:] == truth[asked_from:]).mean()) for config in configs[name]]
        for name in rules
    }
    return {**out, "rise": [max(rises)]}


def _embed(whole: Floats, d: int, unit: bool) -> Floats:
    rows = whole[:, :d]
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True)) if unit else rows


def _k_means(whole: Floats, y: Ints, rounds: int, d: int, unit: bool) -> Ints:
    """Lloyd's rounds from the means of the labelled rows, which keep their labels; none is nearest prototype."""
    rows, held = _embed(whole, d, unit), y >= 0
    classes = np.unique(y[held])
    own = np.searchsorted(classes, y[held])
    means = np.array([rows[y == label].mean(axis=0) for label in classes])
    labels = ((rows[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    for _ in range(rounds):
        labels[held] = own
        means = np.array([rows[labels == j].mean(axis=0) for j in range(len(classes))])
        after = ((rows[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        after[held] = own
        if (after == labels).all():
            break
        labels = after
    return np.asarray(classes[labels])


def _smooth(whole: Floats, y: Ints, rises: list[float], d: int, warm: float, lam: float, near: int) -> Ints:
    plan = laplacian_shot(_embed(whole, d, True), y=y, temperature=warm, lam=lam, n_neighbors=near)
    trace = np.array(plan.info["trace"])
    rises.append(float(np.diff(trace).max(initial=0.0) / np.abs(trace).max()))
    return np.array(plan.info["classes"])[plan.labels]
