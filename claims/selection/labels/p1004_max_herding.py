"""A smooth cover in place of balls: greedy facility location with a Gaussian kernel, whose width matters less.

Real: scanned digits and tumours, half of the rows as the pool, the others to judge on; one and three labels a class.
"""

from __future__ import annotations

import functools

import kofn
from claims import Evidence, claim
from claims.harness import few_labels
from claims.harness.data import Labelled
from claims.harness.few_labels import Ints, ahead, figures, mean_over
from claims.harness.runs import derive, spread

SETTINGS = (("digits", 1), ("digits", 3), ("breast cancer", 1), ("breast cancer", 3))
RULES = {
    "max herding": few_labels.max_herding,
    "probcover": few_labels.probability_cover,
    "typiclust": few_labels.typiclust,
    "k-means, nearest rows": few_labels.near_means,
    "farthest first": few_labels.farthest_first,
}
# By how much MaxHerding must surely be ahead in accuracy.
AHEAD = {"random": 0.05, "probcover": 0.05, "farthest first": 0.05, "typiclust": 0.0, "k-means, nearest rows": 0.0}
# Both rules' own width, times these.
TIMES = (0.25, 1.0, 4.0)
WORST_AHEAD = 0.0
# A width at which a row is like itself alone.
NOTHING = 1e-6


@claim(
    paper=1004,
    says="With one to three labels a class MaxHerding's rows teach a classifier more than random, farthest and "
    "ProbCover's rows by over five points and more than TypiClust's and k-means' nearest rows; of a quarter of the "
    "usual width, the width and four times as much its worst accuracy is above ProbCover's worst",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """MaxHerding against others, and both covers over their widths; broken: no row is like another."""
    runs = 8 if scale == "small" else 60
    seeds = derive(seed, runs)
    rules: dict[str, few_labels.Rule] = dict(RULES)
    if broken:
        rules["max herding"] = functools.partial(few_labels.max_herding, bandwidth=NOTHING)
    trials = spread(functools.partial(few_labels.trial, settings=SETTINGS, rules=rules), seeds)
    widths = {
        f"{name}, {times:g} times": functools.partial(
            rule, times=times * (NOTHING if broken and rule is _herding else 1)
        )
        for name, rule in (("max herding", _herding), ("probcover", _cover))
        for times in TIMES
    }
    digits = tuple(setting for setting in SETTINGS if setting[0] == "digits")
    varied = spread(functools.partial(few_labels.trial, settings=digits, rules=widths), derive(seed, runs, stream=1))
    # Each one's width that is worst on average; the two are paired over pools.
    ours, theirs = (
        min((rule for rule in widths if name in rule), key=lambda rule: float(mean_over(varied, rule).mean()))
        for name in ("max herding", "probcover")
    )
    gap = ahead(varied, ours, theirs)
    gaps = {rule: ahead(trials, "max herding", rule) for rule in AHEAD}
    criteria = {f"above {rule}": gaps[rule].above(effect) for rule, effect in AHEAD.items()}
    criteria["its worst width above"] = gap.above(WORST_AHEAD)
    return Evidence(
        holds=all(criteria.values()),
        measured={
            "accuracy, set and rows a class": figures(trials),
            **{f"max herding - {rule}": found.figures() for rule, found in gaps.items()},
            "accuracy on digits by width": figures(varied),
            f"{ours} - {theirs}": gap.figures(),
        },
        expected="lower 95% limits of paired differences in accuracy, over sets and rows a class: "
        + ", ".join(f"max herding - {rule} > {effect}" for rule, effect in AHEAD.items())
        + f"; on digits at each one's worst width max herding - probcover > {WORST_AHEAD}",
        baseline="20 random draws a pool; ProbCover with its paper's radius; TypiClust with its paper's settings; "
        "farthest first; scikit-learn's k-means. MaxHerding's width is the median distance to the 20th neighbour, "
        "chosen on nothing",
        kind="reduced",
        criteria=criteria,
    )


def _herding(pool: Labelled, k: int, seed: int, *, times: float) -> Ints:
    usual = kofn.select(pool.X, k=1, metric="rbf", objective="facility_location").info["bandwidth"]
    return few_labels.max_herding(pool, k, seed, bandwidth=times * usual)


def _cover(pool: Labelled, k: int, seed: int, *, times: float) -> Ints:
    plan = kofn.select(pool.X, k=1, method="probability_cover", clusters=pool.classes, seed=seed)
    return few_labels.probability_cover(pool, k, seed, radius=times * plan.info["radius"])
