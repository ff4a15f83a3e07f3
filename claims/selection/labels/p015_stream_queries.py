"""Labels bought from a stream: 10% of the rows, an online logistic regression, each row predicted before it is learned.

Real: the digits as they come in a shuffled order. Synthetic: four Gaussians of which two swap their places halfway, far
from where the classifier is in doubt. The rule sees the probabilities of five rows at a time and says which to label.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import digits, halves, shuffled
from claims.harness.learners import one_hot, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.selection import StreamQuery

BUDGET, ARRIVING, AFTER = 0.1, 5, 300
ROWS = {"digits": 1200, "drift": 3000}
# Random querying has no number of its own: the learner's rate is chosen for it, and the others take that rate.
RATES = (0.1, 0.3, 1.0)
TUNING: dict[str, tuple[dict[str, float], ...]] = {
    "fixed": ({"threshold": 0.9}, {"threshold": 0.99}, {"threshold": 0.999}),
    "variable": ({"step": 0.01}, {"step": 0.03}, {"step": 0.1}),
    "randomized_variable": ({"deviation": 0.1}, {"deviation": 0.3}, {"deviation": 1.0}),
}
# A step by which the threshold hardly moves.
STILL = 1e-9
# How much more accurate in prequential accuracy the variable threshold must surely be than each.
ABOVE = {"digits": {"random": 0.02, "fixed": 0.0}, "drift": {"random": -0.005, "fixed": -0.005}}

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """Rows in the order they come."""

    X: Floats
    y: Ints
    classes: int


class Run(NamedTuple):
    """Share of rows predicted rightly, of those just after the middle, and labels bought of those that may be."""

    accuracy: float
    recovery: float
    spent: float


@claim(
    paper=15,
    says="Within a label budget of 10% that it spends to 1%, variable-threshold uncertainty is more accurate in "
    "prequential accuracy on digits than random querying, by over two points, and than a tuned fixed threshold; on "
    "Gaussians that drift it is not half a point less accurate; its randomised form spends as exactly",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Zliobaite's strategies against random querying and a fixed threshold; broken: the threshold stays."""
    runs = 32 if scale == "small" else 80
    measured: Figures = {}
    met = []
    for kind in ROWS:
        work = functools.partial(_trial, kind=kind, cut=seed, broken=broken)
        rate, options = _tune(functools.partial(work, part="tune"), derive(seed, 6, stream=1))
        rules = {name: (rate, option) for name, option in options.items()}
        trials = spread(functools.partial(work, part="test", rules=rules), derive(seed, runs))
        measured[kind], holds = _compare(trials, kind)
        measured[f"{kind}, chosen"] = {"rate": rate, **{name: str(options[name]) for name in TUNING}}
        met.append(holds)
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="each run of variable, randomised and random spends 0.99 to 1.01 of its budget; lower 95% limits of "
        "paired differences in prequential accuracy: on digits variable - random > 0.02 and variable - fixed > 0; "
        "under drift both > -0.005. The randomised form's accuracy and the 300 rows after the drift are shown, not "
        "judged",
        baseline="random querying at the same rate of labels, with the learner's rate chosen for it; a fixed "
        "threshold; three configurations each, as ours has, chosen on other streams",
        kind="reduced",
    )


def _compare(trials: list[dict[str, Run]], kind: str) -> tuple[Figures, bool]:
    def of(rule: str, name: str) -> NDArray[np.float64]:
        return np.array([getattr(trial[rule], name) for trial in trials])

    rules = list(trials[0])
    figures: Figures = {
        name: {rule: round(float(of(rule, name).mean()), 4) for rule in rules} for name in ("accuracy", "spent")
    }
    gaps = {rule: difference(of("variable", "accuracy"), of(rule, "accuracy")) for rule in ABOVE[kind]}
    figures |= {f"variable - {rule}": gap.figures() for rule, gap in gaps.items()}
    figures["randomised - random"] = difference(
        of("randomized_variable", "accuracy"), of("random", "accuracy")
    ).figures()
    if kind == "drift":
        figures["after the drift"] = {rule: round(float(of(rule, "recovery").mean()), 4) for rule in rules}
        for rule in ("fixed", "variable"):
            gap = difference(of("randomized_variable", "recovery"), of(rule, "recovery"))
            figures[f"after the drift, randomised - {rule}"] = gap.figures()
    spends = np.concatenate([of(rule, "spent") for rule in ("random", "variable", "randomized_variable")])
    figures["least and most spent of the budget"] = [round(float(spends.min()), 4), round(float(spends.max()), 4)]
    holds = spends.min() >= 0.99 and spends.max() <= 1.01
    holds = holds and all(gaps[rule].above(effect) for rule, effect in ABOVE[kind].items())
    return figures, bool(holds)


def _tune(work: Any, seeds: list[int]) -> tuple[float, dict[str, dict[str, float]]]:
    """The rate that is best for random querying, then each strategy's number that is best with it."""
    rates = spread(functools.partial(work, rules={f"random {rate}": (rate, {}) for rate in RATES}), seeds)
    rate = max(RATES, key=lambda r: float(np.mean([t[f"random {r}"].accuracy for t in rates])))
    rules = {f"{name} {place}": (rate, opts) for name, many in TUNING.items() for place, opts in enumerate(many)}
    trials = spread(functools.partial(work, rules=rules), seeds)
    best: dict[str, dict[str, float]] = {"random": {}}
    for name, many in TUNING.items():
        means = [float(np.mean([t[f"{name} {place}"].accuracy for t in trials])) for place in range(len(many))]
        best[name] = many[int(np.argmax(means))]
    return rate, best


def _trial(
    seed: int, *, kind: str, cut: int, broken: bool, part: str, rules: dict[str, tuple[float, dict[str, float]]]
) -> dict[str, Run]:
    """Every rule on one stream; the rule's name may carry the place of its configuration."""
    rng = np.random.default_rng(seed)
    stream = _stream(kind, part, cut, rng)
    return {name: _run(stream, name.split()[0], rate, options, seed, broken) for name, (rate, options) in rules.items()}


def _stream(kind: str, part: str, cut: int, rng: np.random.Generator) -> Stream:
    if kind == "digits":
        # The rows to tune on and those to test on are cut once for the claim's run and never mix.
        tune, test = halves(digits(), 1 / 3, cut)
        data = shuffled(tune if part == "tune" else test, rng)
        return Stream(data.X[: ROWS[kind]], data.y[: ROWS[kind]], data.classes)
    n, d = ROWS[kind], 8
    centres = 1.2 * rng.normal(size=(4, d))
    y = rng.integers(0, 4, n)
    swapped = np.array([1, 0, 2, 3])
    place = np.where(np.arange(n) < n // 2, y, swapped[y])
    return Stream((centres[place] + 0.5 * rng.normal(size=(n, d))).astype(np.float32), y, 4)


def _run(stream: Stream, strategy: str, rate: float, options: dict[str, float], seed: int, broken: bool) -> Run:
    if broken and strategy == "variable":
        options = {"step": STILL}
    query = StreamQuery(BUDGET, strategy=strategy, seed=seed, **options)  # type: ignore[arg-type]
    X = np.hstack([stream.X, np.ones((len(stream.X), 1), np.float32)])
    targets = one_hot(stream.y, stream.classes)
    weights = np.zeros((X.shape[1], stream.classes), np.float32)
    right = np.zeros(len(X), bool)
    for low in range(0, len(X), ARRIVING):
        rows = slice(low, low + ARRIVING)
        probable = softmax(X[rows] @ weights)
        right[rows] = probable.argmax(axis=1) == stream.y[rows]
        asked = query.ask(probable)
        for row in low + np.flatnonzero(asked):
            # Each label is learned from the weights that the one before it left.
            weights -= np.float32(rate) * np.outer(X[row], softmax(X[row] @ weights) - targets[row])
    middle = len(X) // 2
    return Run(float(right.mean()), float(right[middle : middle + AFTER].mean()), query.spent / (BUDGET * len(X)))
