"""Which rows to label first: typical rows of clusters where few labels can be paid for, uncertain ones where many can.

Real: scanned digits and tumours, half of the rows as the pool, the others to judge on; one and three labels a class
are few, twenty of the digits' ninety are many.
"""

from __future__ import annotations

import functools

from claims import Evidence, claim
from claims.harness import few_labels
from claims.harness.data import Labelled
from claims.harness.few_labels import Ints, ahead, figures
from claims.harness.runs import derive, spread

FEW = (("digits", 1), ("digits", 3), ("breast cancer", 1), ("breast cancer", 3))
MANY = (("digits", 20),)
RULES = {
    "typiclust": few_labels.typiclust,
    "uncertain": few_labels.uncertain,
    "farthest first": few_labels.farthest_first,
    "random row of each cluster": few_labels.in_means,
    "k-means, nearest rows": few_labels.near_means,
}
# By how much TypiClust must surely be ahead in accuracy, over the settings with few labels.
AHEAD = {
    "random": 0.05,
    "uncertain": 0.05,
    "farthest first": 0.05,
    "random row of each cluster": 0.03,
    "k-means, nearest rows": 0.0,
}


@claim(
    paper=1002,
    says="With one to three labels a class TypiClust's rows teach a classifier more than random, uncertain or farthest "
    "rows by over five points, than a random row of each cluster by three, and more than the rows nearest to k-means' "
    "centres; with twenty a class uncertain rows teach more than typical ones",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """TypiClust against others with few labels and with many; broken: any row of a cluster, typical or not."""
    runs = 12 if scale == "small" else 60
    rules = {**RULES, "typiclust": _any_of_each} if broken else RULES
    few = spread(functools.partial(few_labels.trial, settings=FEW, rules=rules), derive(seed, runs))
    two = {name: rules[name] for name in ("typiclust", "uncertain")}
    many = spread(functools.partial(few_labels.trial, settings=MANY, rules=two), derive(seed, runs, stream=1))
    gaps = {rule: ahead(few, "typiclust", rule) for rule in AHEAD}
    turned = ahead(many, "uncertain", "typiclust")
    criteria = {f"few labels, above {rule}": gaps[rule].above(effect) for rule, effect in AHEAD.items()}
    criteria["many labels, uncertain rows above"] = turned.above(0.0)
    return Evidence(
        holds=all(criteria.values()),
        measured={
            "accuracy, set and rows a class": figures(few) | figures(many),
            **{f"few labels, typiclust - {rule}": gap.figures() for rule, gap in gaps.items()},
            "many labels, uncertain - typiclust": turned.figures(),
        },
        expected="lower 95% limits of paired differences in accuracy, over sets and rows a class: few labels "
        + ", ".join(f"typiclust - {rule} > {effect}" for rule, effect in AHEAD.items())
        + "; many labels uncertain - typiclust > 0",
        baseline="20 random draws a pool; margins of a ridge regression on a third drawn at random, in two rounds; "
        "farthest first (coreset); a random row, and the nearest row to the centre, of each of scikit-learn's k-means "
        "clusters",
        kind="reduced",
        criteria=criteria,
    )


def _any_of_each(pool: Labelled, k: int, seed: int) -> Ints:
    return few_labels.in_means(pool, k, seed + 1)
