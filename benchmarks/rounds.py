"""Labelling in rounds: does it pay to ask a model what it is unsure of, and on which data?

Five rounds of 2 rows a class each, from a pool of 2,000 rows, against the same 10 rows a class picked at once, against
random rows, and against scikit-activeml's strategies; sets, pools, judges and points over random rows are those of
`usefulness`. All that learn from labels begin with the same first batch (facility location's, or TypiClust's where they
say so) and see the same vectors and the same classifier (logistic regression on them). Judges see other features. A
second judge is that classifier itself: what is gained where the model that asks is the model that is kept.

The sets that choose the defaults of `usefulness` choose here too: of `kofn select --label` filled in part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from benchmarks.labelled_sets import QUICK, SETS, Labelled
from benchmarks.usefulness import DRAWS, TEST, means
from kofn.selection.labels._accuracy import accuracy, half_width

ROUNDS, A_CLASS, SIZE, POOLS = 5, 10, 2_000, 5
AT_ONCE, TYPICAL_AT_ONCE = "facility location, at once", "TypiClust, at once"

select: Any = kofn.select
# (vectors, labels with -1 where there is none, metric, how many, seed) -> rows
Pick = Callable[[NDArray[Any], NDArray[np.int64], str, int, int], NDArray[np.int64]]


@dataclass(frozen=True)
class Contender:
    """How to pick the next rows, and whose first batch to begin with; None: its own. `at_once`: all in one round."""

    pick: Pick
    first: str | None = AT_ONCE
    at_once: bool = False
    peer: bool = False


def _herding(**options: Any) -> Pick:
    def pick(X: NDArray[Any], y: NDArray[np.int64], metric: str, k: int, seed: int) -> NDArray[np.int64]:
        del metric
        more = {"bandwidth": _between(X[y >= 0])} if options.get("bandwidth") == "labelled" else {}
        plan = select(X, y=y, k=k, method="uncertainty_herding", seed=seed, options={**options, **more})
        return np.asarray(plan.indices)

    return pick


def _between(rows: NDArray[Any]) -> float | None:
    """The paper's radius, the least distance above 0 of two labelled rows, as a bandwidth."""
    from scipy.spatial.distance import pdist

    apart = pdist(rows)
    return float(apart[apart > 0].min() / np.sqrt(2)) if len(rows) > 1 else None


def _covering(**how: Any) -> Pick:
    """A method that begins from the labelled rows."""

    def pick(X: NDArray[Any], y: NDArray[np.int64], metric: str, k: int, seed: int) -> NDArray[np.int64]:
        known = np.flatnonzero(y >= 0)
        given = {"metric": metric, **how, **({"seed": seed} if "method" in how else {})}
        plan = select(X, k=len(known) + k, start=known, **given)
        return np.asarray(plan.indices[len(known) :])

    return pick


def _most_unsure(X: NDArray[Any], y: NDArray[np.int64], metric: str, k: int, seed: int) -> NDArray[np.int64]:
    """The rows of the smallest margins, whatever they have in common."""
    plan = select(X, y=y, k=1, method="uncertainty_herding", seed=seed)
    del metric
    doubt = np.where(y < 0, plan.info["uncertainty"], -1.0)
    return np.argsort(-doubt, kind="stable")[:k]


def _activeml(name: str, **how: Any) -> Pick:
    def pick(X: NDArray[Any], y: NDArray[np.int64], metric: str, k: int, seed: int) -> NDArray[np.int64]:
        from skactiveml import pool
        from skactiveml.classifier import SklearnClassifier

        del metric
        points = scaled(X)
        labels = np.where(y >= 0, y, np.nan)
        strategy = getattr(pool, name)(random_state=seed, **how)
        more: dict[str, Any] = {}
        if name not in ("TypiClust", "ProbCover", "MaxHerding"):
            more["clf"] = SklearnClassifier(logistic(), classes=np.arange(int(np.nanmax(labels)) + 1))
        return np.asarray(strategy.query(points, labels, batch_size=k, **more))

    return pick


def logistic() -> Any:
    """The classifier of all that learn from labels."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1_000)


def scaled(X: NDArray[Any]) -> NDArray[np.float64]:
    """Rows around their mean, in units of their mean distance to it."""
    points = np.asarray(X, np.float64) - np.mean(X, axis=0, dtype=np.float64)
    return np.asarray(points / np.sqrt((points * points).mean()))


CONTENDERS: dict[str, Contender] = {
    AT_ONCE: Contender(_covering(), at_once=True),
    "facility location rbf, at once": Contender(_covering(metric="rbf"), at_once=True),
    TYPICAL_AT_ONCE: Contender(_covering(method="typiclust"), at_once=True),
    "TypiClust, rounds": Contender(_covering(method="typiclust"), first=None),
    "herding without a model, rounds": Contender(_herding(model="none")),
    "uncertainty herding": Contender(_herding()),
    "TypiClust, then uncertainty herding": Contender(_herding(), first="TypiClust, rounds"),
    "uncertainty herding, entropy": Contender(_herding(kind="entropy")),
    "uncertainty herding, the paper's radius": Contender(_herding(bandwidth="labelled")),
    "smallest margins": Contender(_most_unsure),
    "scikit-activeml, margins": Contender(_activeml("UncertaintySampling", method="margin_sampling"), peer=True),
    "scikit-activeml, BADGE": Contender(_activeml("Badge"), peer=True),
    "scikit-activeml, DropQuery": Contender(_activeml("DropQuery"), peer=True),
    "scikit-activeml, Falcun": Contender(_activeml("Falcun"), peer=True),
    "scikit-activeml, TypiClust": Contender(_activeml("TypiClust"), first=None, peer=True),
    "TypiClust, then scikit-activeml's margins": Contender(
        _activeml("UncertaintySampling", method="margin_sampling"), first="TypiClust, rounds", peer=True
    ),
}


def chosen(
    contender: Contender, X: NDArray[Any], y: NDArray[np.int64], metric: str, batch: int, seed: int
) -> NDArray[np.int64]:
    """The labelled rows after all rounds, in order."""
    unknown = np.full(len(X), -1)
    if contender.at_once:
        return contender.pick(X, unknown, metric, ROUNDS * batch, seed)
    first = contender if contender.first is None else CONTENDERS[contender.first]
    picks = first.pick(X, unknown, metric, batch, seed)
    while len(picks) < ROUNDS * batch:
        known = np.full(len(X), -1)
        known[picks] = y[picks]
        picks = np.concatenate([picks, contender.pick(X, known, metric, batch, seed + len(picks))])
    return picks


def measure(data: Labelled, size: int, pools: int, draws: int, asked: dict[str, Contender]) -> dict[str, Any]:
    """Each contender's points over random after each round, by the judges and by the model that asked, and seconds."""
    batch = data.classes * A_CLASS // ROUNDS
    points: dict[str, list[list[float]]] = {name: [] for name in asked}
    own: dict[str, list[list[float]]] = {name: [] for name in asked}
    seconds = dict.fromkeys(asked, 0.0)
    reached = []
    for pool in range(pools):
        rng = np.random.default_rng(1_000 + pool)
        order = rng.permutation(len(data.y))
        rows, test = order[:size], order[size : size + TEST]
        every = scaled(data.vectors(order[: size + TEST]))
        y = data.y[rows]

        def judged(
            picks: NDArray[np.int64], rows: Any = rows, test: Any = test, every: Any = every
        ) -> tuple[float, float]:
            reached = accuracy(data.judges, rows[picks], test)
            if len(np.unique(data.y[rows[picks]])) < 2:
                return reached, 100 * float(np.mean(data.y[test] == data.y[rows[picks[0]]]))
            model = logistic().fit(every[picks], data.y[rows[picks]])
            return reached, 100 * float(model.score(every[len(rows) :], data.y[test]))

        ends = [batch * number for number in range(1, ROUNDS + 1)]
        drawn = [rng.permutation(size) for _ in range(draws)]
        random = np.array([[judged(order[:end]) for end in ends] for order in drawn]).mean(axis=0)
        reached.append(random[-1].tolist())
        X = data.vectors(rows)
        for name, contender in asked.items():
            began = time.perf_counter()
            picks = chosen(contender, X, y, data.metric, batch, pool)
            seconds[name] += time.perf_counter() - began
            got = np.array([judged(picks[:end]) for end in ends]) - random
            points[name].append(got[:, 0].tolist())
            own[name].append(got[:, 1].tolist())
    return {
        "classes": data.classes,
        "random": np.mean(reached, axis=0).round(2).tolist(),
        "points": means(points),
        "own": means(own),
        "seconds": {name: round(spent, 2) for name, spent in seconds.items()},
    }


def summary(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over sets, for each kind of data and part of the sets: points after the last round, and the paired difference
    to the one-shot picks."""
    out = []
    every = [*measured, *({**row, "kind": "any"} for row in measured)]
    for kind in dict.fromkeys(row["kind"] for row in every):
        for part in ("chooses", "judges", "all"):
            rows = [r for r in every if r["kind"] == kind and part in ("all", r["part"])]
            for name in dict.fromkeys(name for row in rows for name in row["points"]):
                for judge in ("points", "own"):
                    last = np.array([row[judge][name][-1] for row in rows])
                    ahead = last - np.array([row[judge][AT_ONCE][-1] for row in rows])
                    wide = [half_width(last), half_width(ahead)]
                    out.append(
                        {
                            "kind": kind,
                            "part": part,
                            "contender": name,
                            "judge": judge,
                            "sets": len(rows),
                            "points": round(float(last.mean()), 1),
                            "over at once": round(float(ahead.mean()), 1),
                            "intervals": [None if np.isinf(w) else round(w, 1) for w in wide],
                            "lowest": round(float(ahead.min()), 1),
                            "highest": round(float(ahead.max()), 1),
                        }
                    )
    return out


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    del rounds
    pools, draws, size = (1, 3, 300) if quick else (POOLS, DRAWS, SIZE)
    asked = {n: c for n, c in CONTENDERS.items() if not c.peer or (find_spec("skactiveml") and not quick)}
    for name in CONTENDERS.keys() - asked.keys():
        print(f"{name}: left out{'' if quick else ', its package is not installed'}")
    measured: list[dict[str, Any]] = []
    print(f"\npoints over random after {ROUNDS} rounds of {A_CLASS // ROUNDS} rows a class: {pools} pools a set")
    for name in QUICK if quick else SETS:
        kind, chooses, read = SETS[name]
        began = time.perf_counter()
        try:
            data = read()
        except (ImportError, kofn.InputError) as error:
            print(f"{name}: left out, {error}")
            continue
        here = size if len(data.y) >= size + TEST // 2 else max(len(data.y) // 2, len(data.y) - TEST)
        row = measure(data, here, pools, draws, asked)
        part = "chooses" if chooses else "judges"
        measured.append({"set": name, "kind": kind, "part": part, "pool": here, **row})
        told = ", ".join(
            f"{what} {row['points'][what][-1]:+.1f} (own {row['own'][what][-1]:+.1f})"
            for what in (AT_ONCE, "TypiClust, rounds", "uncertainty herding")
        )
        print(
            f"{name} ({kind}, {part}), {here:,} rows, {data.classes} classes, random {row['random'][0]:.1f}: {told}  "
            f"[{time.perf_counter() - began:.0f} s]",
            flush=True,
        )
    rows = summary(measured)
    for row in rows:
        wide = ["?" if w is None else w for w in row["intervals"]]
        judge = "judges" if row["judge"] == "points" else "its own model"
        print(
            f"{row['kind']:6}{row['part']:8}{row['contender']:40}{judge:14}{row['sets']:3} sets  {row['points']:+5.1f} "
            f"±{wide[0]:<5} over at once {row['over at once']:+5.1f} ±{wide[1]:<5} [{row['lowest']:+.1f}, "
            f"{row['highest']:+.1f}]"
        )
    return {"sets": measured, "summary": rows}
