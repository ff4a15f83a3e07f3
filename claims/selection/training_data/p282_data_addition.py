"""The data addition dilemma: rows of other sources help a small target set, or hurt it; shift says which come first.

A classifier learns from a few rows of the target and whole sources of other rows. Sources are added one by one, the
rating of each prefix is its accuracy on a few rows of the target set aside for that, and the best prefix is kept. Only
the order differs: by shift, by size, at random. On real data the sources are diamonds of the eight grades of clarity,
which no rule sees as a column, the target one of the grades, and the class the price's third.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

OWN, ASIDE, TEST, ORDERS = 50, 60, 1200, 3
SIZES = (150, 200, 250, 300, 350, 400, 450, 500)
RULES = ("by shift", "by size", "random order", "all pooled", "target only")
AHEAD, NEAR, FOLLOWS = 0.0, -0.01, {"synthetic": -0.5, "diamonds": -0.3}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Figures = dict[str, Any]


@claim(
    paper=282,
    says="The shift of a source, measured beforehand, orders sources by what they bring; the best prefix of that order "
    "is more accurate than all sources pooled, the target alone, and the best prefix by size or in random order; and "
    "some source lowers the accuracy of the worst group",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Order by shift against other orders with the same rating; broken: the order is drawn at random."""
    runs = 20 if scale == "small" else 60
    measured: Figures = {}
    met = []
    for kind in ("synthetic", "diamonds"):
        trials = spread(functools.partial(_trial, kind=kind, broken=broken), derive(seed, runs))
        accuracy = {name: np.array([trial["accuracy"][name] for trial in trials]) for name in RULES}
        gaps = {name: difference(accuracy["by shift"], accuracy[name]) for name in RULES[1:]}
        follows = difference([trial["follows"] for trial in trials], np.zeros(runs))
        changes = np.array([trial["worst"] for trial in trials])
        # The source that comes k-th by true distance from the target, over the runs.
        harm = [difference(np.zeros(runs), changes[:, place]) for place in range(changes.shape[1])]
        worst = max(harm, key=lambda gap: gap.low)
        for name, gap in gaps.items():
            met.append(gap.above(NEAR if (kind, name) == ("diamonds", "by size") else AHEAD))
        met += [follows.high < FOLLOWS[kind], worst.above(0)]
        measured[kind] = {
            "accuracy": {name: round(float(values.mean()), 4) for name, values in accuracy.items()},
            **{f"accuracy, by shift - {name}": gap.figures() for name, gap in gaps.items()},
            "rank correlation of shift and change in accuracy": follows.figures(),
            "change of the worst group's accuracy by each source alone": changes.mean(axis=0).round(4).tolist(),
            "most that a source lowers it": worst.figures(),
            "sources added": round(float(np.mean([trial["added"] for trial in trials])), 2),
        }
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="on both sets, lower 95% limits of paired differences in accuracy by shift - any other rule > 0 (by "
        "size on diamonds > -0.01); upper limit of the rank correlation of shift and change in accuracy < -0.5 on the "
        "synthetic set, < -0.3 on diamonds; some source lowers the worst group's accuracy, lower limit > 0",
        baseline="all pooled, target only, and the best prefix, rated on the same rows as often, of the order by size "
        "and of random orders (their mean)",
        kind="reduced",
    )


def _trial(seed: int, *, kind: str, broken: bool) -> Figures:
    rng = np.random.default_rng(seed)
    X, y, source, group, target = _synthetic(rng) if kind == "synthetic" else _diamonds(rng)
    own = rng.permutation(np.flatnonzero(source == target))
    aside, test = own[OWN : OWN + ASIDE], own[OWN + ASIDE : OWN + ASIDE + TEST]
    others = [int(name) for name in rng.permutation(np.unique(source[source != target]))]
    rows = {name: rng.permutation(np.flatnonzero(source == name))[: SIZES[i]] for i, name in enumerate(others)}
    kept = np.concatenate([own[:OWN], *rows.values()])
    pool, labels, groups = X[kept], y[kept], source[kept]

    def accuracy(picked: Any, at: Ints) -> float:
        return float((_fitted(pool[picked], labels[picked]).predict(X[at]) == y[at]).mean())

    plan = kofn.select(
        pool,
        groups=groups,
        y=labels,
        score=lambda picked: accuracy(picked, aside),
        seed=seed,
        method="sources_by_shift",
        target=target,
        patience=len(others),
    )
    mine = np.flatnonzero(groups == target)

    def best_prefix(order: list[int]) -> Ints:
        picked, best, top = mine, mine, accuracy(mine, aside)
        for name in order:
            picked = np.concatenate([picked, np.flatnonzero(groups == name)])
            if (rating := accuracy(picked, aside)) > top:
                best, top = picked, rating
        return best

    shift, picked = plan.info["shift"], plan.indices
    if broken:
        drawn = [int(name) for name in np.random.default_rng([seed, 1]).permutation(others)]
        shift, picked = {str(name): place for place, name in enumerate(drawn)}, best_prefix(drawn)
    chosen = {
        "by shift": picked,
        "by size": best_prefix(sorted(others, key=lambda name: -len(rows[name]))),
        "all pooled": np.arange(len(kept)),
        "target only": mine,
    }
    told_of = {name: accuracy(picked, test) for name, picked in chosen.items()}
    orders = [[int(name) for name in rng.permutation(others)] for _ in range(ORDERS)]
    told_of["random order"] = float(np.mean([accuracy(best_prefix(order), test) for order in orders]))
    # What each source alone changes, in the order of the sources' names: graded by their distance from the target.
    before = _by_group(pool, labels, mine, X, y, group, test)
    alone, worst = [], []
    for name in sorted(others, key=lambda name: (abs(name - target), name)):
        after = _by_group(pool, labels, np.concatenate([mine, np.flatnonzero(groups == name)]), X, y, group, test)
        alone.append(after[0] - before[0])
        worst.append(after[1] - before[1])
    told = [shift[str(name)] for name in sorted(others, key=lambda name: (abs(name - target), name))]
    return {
        "accuracy": told_of,
        "follows": _rank_correlation(told, alone),
        "worst": worst,
        "added": len(plan.info["sources"]) - 1,
    }


def _fitted(X: Floats, y: Ints) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=3.0, max_iter=300).fit(X, y)


def _by_group(
    pool: Floats, labels: Ints, picked: Ints, X: Floats, y: Ints, group: Ints, test: Ints
) -> tuple[float, float]:
    """Accuracy on the test rows, and that of the group which fares worst."""
    right = _fitted(pool[picked], labels[picked]).predict(X[test]) == y[test]
    return float(right.mean()), min(float(right[group[test] == one].mean()) for one in np.unique(group[test]))


def _rank_correlation(a: list[float], b: list[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def _synthetic(rng: np.random.Generator) -> tuple[Floats, Ints, Ints, Ints, int]:
    """Source s, 0 the target: rows shifted and the classes' direction turned by s eighths."""
    d, n = 12, OWN + ASIDE + TEST
    base, other = rng.normal(size=(2, d))
    base /= np.linalg.norm(base)
    other -= other @ base * base
    other /= np.linalg.norm(other)
    away = rng.normal(size=d)
    away /= np.linalg.norm(away)
    source = np.concatenate([np.zeros(n, np.int64), np.repeat(np.arange(1, len(SIZES) + 1), max(SIZES))])
    grade = source / len(SIZES)
    X = rng.normal(size=(len(source), d)) + 1.5 * grade[:, None] * away
    angle = grade * 1.2
    direction = np.cos(angle)[:, None] * base + np.sin(angle)[:, None] * other
    odds = 4 * ((X - 1.5 * grade[:, None] * away) * direction).sum(axis=1)
    y = (rng.random(len(source)) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    return X, y, source, (X @ other > 0).astype(np.int64), 0


@functools.cache
def _stones() -> tuple[Floats, Ints, Ints, Ints]:
    """Carat, measures, cut and colour; the price's third; the clarity's grade; and whether the cut is ideal."""
    from kofn import datasets

    frame = datasets.load("diamonds").frame
    assert frame is not None
    numbers = np.stack([frame[name].to_numpy().astype(float) for name in ("carat", "depth", "table", "x", "y", "z")], 1)
    numbers = np.concatenate([numbers, np.log(numbers[:, :1])], axis=1)
    parts = [(numbers - numbers.mean(axis=0)) / numbers.std(axis=0)]
    for name in ("cut", "color"):
        _, code = np.unique(frame[name].to_numpy().astype(str), return_inverse=True)
        parts.append(np.eye(code.max() + 1)[code])
    price = frame["price"].to_numpy()
    grades = ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"]
    clarity = np.array([grades.index(str(name)) for name in frame["clarity"].to_list()])
    ideal = np.array([str(name) == "Ideal" for name in frame["cut"].to_list()], np.int64)
    return np.hstack(parts), np.searchsorted(np.quantile(price, [1 / 3, 2 / 3]), price), clarity, ideal


def _diamonds(rng: np.random.Generator) -> tuple[Floats, Ints, Ints, Ints, int]:
    X, y, clarity, ideal = _stones()
    # Grades with rows enough to test on, at either end of the scale.
    target = int(rng.choice([1, 7]))
    return X, y.astype(np.int64), clarity.astype(np.int64), ideal, target
