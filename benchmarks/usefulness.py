"""Does it help to pick which rows to label? Real labelled sets, against random draws and the other ways to pick.

From a pool of 2,000 rows (and of 10,000 where the set has them) k = 1, 3 and 10 rows a class are picked without a look
at the labels, from the vectors that `kofn select` makes of such rows: TF-IDF reduced to 64 dimensions for text, pixels,
scaled columns. Two classifiers learn from the picked rows alone, on features that the picking did not see (character
n-grams, gradient histograms, ranks), and are judged on up to 1,000 held-out rows. Figures are points of accuracy over
the mean of 20 random draws of the same size from the same pool, averaged over pools, judges and then over sets:
intervals are Student's t over the sets' means, as pools of one set are no independent witnesses. Every contender is
given the same pools.

Half of the sets choose the defaults; the other half only judge them. `decided` is the rule, and what `kofn select`
does and says of rows to label follows from it: `python -m benchmarks.usefulness` writes
`src/kofn/tables/labelling.json` from `benchmarks/usefulness.json`.
"""

from __future__ import annotations

import itertools
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from benchmarks.contenders import CONTENDERS, Contender, picks_of
from benchmarks.labelled_sets import QUICK, SETS, Labelled
from benchmarks.shortfall import shortfall, table
from kofn.selection.labels._accuracy import accuracy as judged
from kofn.selection.labels._accuracy import beaten as share_beaten
from kofn.selection.labels._accuracy import half_width

POOLS, DRAWS, TEST = 5, 20, 1_000
SIZES = (2_000, 10_000)
ROWS_A_CLASS = (1, 3, 10)
# Slow contenders hold n x n tables, or take several times as long with all pairs as plain facility location: minutes a
# pool beyond this.
SLOW_UP_TO = 2_000

# Kinds of data that a default is decided for; of vectors `kofn select` does not know more than that they are any.
KINDS = ("text", "table", "any")
# Sets of a kind that can overrule those of all kinds; of two, an interval says little.
ENOUGH = 3
FIGURES = Path(__file__).with_suffix(".json")
LABELLING = Path(__file__).resolve().parents[1] / "src/kofn/tables/labelling.json"


def measure(data: Labelled, size: int, pools: int, draws: int, asked: dict[str, Contender]) -> dict[str, Any]:
    """For each contender and number of rows a class: points over random by pool, and the share of draws beaten."""
    ks = [data.classes * rows for rows in ROWS_A_CLASS]
    points: dict[str, list[list[float]]] = {name: [] for name in asked}
    beaten: dict[str, list[list[float]]] = {name: [] for name in asked}
    reached: list[list[float]] = []
    seconds = dict.fromkeys(asked, 0.0)
    for pool in range(pools):
        rng = np.random.default_rng(1_000 + pool)
        order = rng.permutation(len(data.y))
        rows, test = order[:size], order[size : size + TEST]

        def accuracy(picks: NDArray[np.int64], rows: NDArray[np.int64] = rows, test: NDArray[np.int64] = test) -> float:
            return judged(data.judges, rows[picks], test)

        drawn = [rng.permutation(size) for _ in range(draws)]
        random = np.array([[accuracy(order[:k]) for order in drawn] for k in ks])
        reached.append(random.mean(axis=1).tolist())
        X = data.vectors(rows)
        for name, contender in asked.items():
            began = time.perf_counter()
            picks = picks_of(contender, X, data.metric, ks, pool)
            seconds[name] += time.perf_counter() - began
            got = np.array([accuracy(chosen) for chosen in picks])
            points[name].append((got - random.mean(axis=1)).tolist())
            beaten[name].append([share_beaten(g, r) for g, r in zip(got, random, strict=True)])
    return {
        "classes": data.classes,
        "random": np.mean(reached, axis=0).round(2).tolist(),
        "points": means(points),
        "beaten": means(beaten, 3),
        "seconds": {name: round(spent, 2) for name, spent in seconds.items()},
    }


def means(figures: dict[str, list[list[float]]], digits: int = 2) -> dict[str, list[float]]:
    """Of each contender: the mean over pools."""
    return {name: np.mean(rows, axis=0).round(digits).tolist() for name, rows in figures.items()}


def summary(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per kind of data and of any kind, size of pool, part of the sets and rows a class: each contender's points."""
    out = []
    every = [*measured, *({**row, "kind": "any"} for row in measured)]
    for kind, size in dict.fromkeys((row["kind"], row["size"]) for row in every):
        for part in ("chooses", "judges", "all"):
            rows = [r for r in every if (r["kind"], r["size"]) == (kind, size) and part in ("all", r["part"])]
            for name in dict.fromkeys(name for row in rows for name in row["points"]):
                held = np.array([row["points"][name] for row in rows if name in row["points"]])
                beaten = np.mean([row["beaten"][name] for row in rows if name in row["beaten"]], axis=0)
                wide = [half_width(held[:, at]) for at in range(held.shape[1])]
                out.append(
                    {
                        "kind": kind,
                        "size": size,
                        "part": part,
                        "contender": name,
                        "sets": len(held),
                        "points": held.mean(axis=0).round(1).tolist(),
                        "interval": [None if np.isinf(w) else round(w, 1) for w in wide],
                        "lowest": held.min(axis=0).round(1).tolist(),
                        "highest": held.max(axis=0).round(1).tolist(),
                        "beaten": beaten.round(2).tolist(),
                    }
                )
    return out


def by_set(
    measured: list[dict[str, Any]], kind: str, part: str, size: int, figure: str = "points"
) -> dict[str, NDArray[np.float64]]:
    """Of each contender that was given all of these sets: its points or the share it beat, (sets, rows a class)."""
    rows = [
        row for row in measured if kind in ("any", row["kind"]) and part in ("all", row["part"]) and row["size"] == size
    ]
    names = [name for name in CONTENDERS if rows and all(name in row["points"] for row in rows)]
    return {name: np.array([row[figure][name] for row in rows]) for name in names}


def decided(measured: list[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """The default contender for each kind of data and number of rows a class, by the sets that choose.

    It is the one that beats the largest share of random draws over the sets of any kind (points would count the sets
    most whose points are cheap); where another one leads on the kind's own sets, three at least, and the paired
    interval of its lead is above 0, that one.
    """
    out = {}
    small = min(row["size"] for row in measured)
    every = by_set(measured, "any", "chooses", small, "beaten")
    own = [name for name in every if CONTENDERS[name].default]
    for at, a_class in enumerate(ROWS_A_CLASS):
        usual = max(own, key=lambda name: every[name][:, at].mean())
        for kind in KINDS:
            here = by_set(measured, kind, "chooses", small, "beaten")
            out[kind, a_class] = usual
            if len(here.get(usual, ())) >= ENOUGH:
                best = max(own, key=lambda name: here[name][:, at].mean())
                lead = here[best][:, at] - here[usual][:, at]
                out[kind, a_class] = best if lead.mean() > half_width(lead) else usual
    return out


def verdicts(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the judging sets say of the defaults: their points, the best contender's, and the paired difference."""
    out = []
    default = decided(measured)
    for kind, size in itertools.product(KINDS, dict.fromkeys(row["size"] for row in measured)):
        here = by_set(measured, kind, "judges", size)
        if not here:
            continue
        for at, a_class in enumerate(ROWS_A_CLASS):
            chosen = default[kind, a_class]
            best = max(here, key=lambda name: here[name][:, at].mean())
            behind = here[best][:, at] - here[chosen][:, at]
            wide = half_width(behind)
            out.append(
                {
                    "kind": kind,
                    "size": size,
                    "rows a class": a_class,
                    "default": chosen,
                    "points": round(float(here[chosen][:, at].mean()), 1),
                    "best": best,
                    "its points": round(float(here[best][:, at].mean()), 1),
                    "behind by": round(float(behind.mean()), 1),
                    "interval": None if np.isinf(wide) else round(wide, 1),
                }
            )
    return out


def shortfalls(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far each default is behind the best contender, on the sets that chose it and on those that judge it."""
    out = []
    default = decided(measured)
    sizes = list(dict.fromkeys(row["size"] for row in measured))
    for kind, size, part in itertools.product(KINDS, sizes, ("chooses", "judges")):
        here = by_set(measured, kind, part, size)
        for at, a_class in enumerate(ROWS_A_CLASS) if here else ():
            chosen = default[kind, a_class]
            others = {name: points[:, at] for name, points in here.items() if name != chosen}
            row = {"kind": kind, "size": size, "part": part, "rows a class": a_class, "default": chosen}
            out.append(row | shortfall(here[chosen][:, at], others))
    return out


def expected(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `kofn select` does with rows to label, and what it says: over all sets, as they are few.

    `points` of a method are the mean over random rows, half the width of its interval, the lowest and the highest set.
    """
    out = []
    for (kind, a_class), default in decided(measured).items():
        at = ROWS_A_CLASS.index(a_class)
        for size in dict.fromkeys(row["size"] for row in measured):
            here = by_set(measured, kind, "all", size)
            points = {}
            for name, of_sets in here.items():
                called, values = CONTENDERS[name].name, of_sets[:, at]
                if called and len(values) > 1:
                    figures = (values.mean(), half_width(values), values.min(), values.max())
                    points[called] = [round(float(figure), 1) for figure in figures]
            if points:
                sets = len(next(iter(here.values())))
                row = {"kind": kind, "rows": size, "rows_a_class": a_class, "sets": sets}
                out.append({**row, "default": CONTENDERS[default].name, "points": points})
    return out


# README's table: a row for each contender, under what one types.
SHOWN = {
    "`typiclust` (`--classes`)": "TypiClust",
    "facility location (`auto`)": "facility location",
    "facility location, `--metric rbf`": "facility location, rbf",
    "k-means, nearest rows": "k-means, nearest rows",
    "`probability_cover`": "ProbCover",
    "`farthest_first`": "farthest first",
    "log-determinant": "log-determinant",
    "scikit-activeml, TypiClust": "scikit-activeml, TypiClust",
    "scikit-activeml, ProbCover": "scikit-activeml, ProbCover",
    "apricot, facility location": "apricot, facility location",
}


def markdown(measured: list[dict[str, Any]]) -> str:
    """README's table."""
    parts = [("any", "all", SIZES[0]), ("any", "judges", SIZES[0])]
    parts += [(kind, "all", SIZES[0]) for kind in ("text", "table", "image")] + [("any", "all", SIZES[1])]
    columns = [by_set(measured, *part) for part in parts]
    (sets, judging, *kinds, large) = (len(next(iter(column.values()))) for column in columns)
    heads = [f"{a_class} a class" for a_class in ROWS_A_CLASS]
    heads += [
        f"{judging} that judge",
        *(f"{m} {kind}" for m, kind in zip(kinds, ("texts", "tables", "images"), strict=True)),
    ]
    heads.append(f"{large} pools of {SIZES[1]:,}")
    lines = [f"| {sets} sets, points over random | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for shown, name in SHOWN.items():
        whole = columns[0][name]
        cells = [f"{whole[:, at].mean():+.1f} ±{half_width(whole[:, at]):.1f}" for at in range(len(ROWS_A_CLASS))]
        for column in columns[1:]:
            given = column.get(name)
            cells.append("" if given is None else " ".join(f"{mean:+.1f}" for mean in given.mean(axis=0)))
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(rows: list[dict[str, Any]]) -> str:
    """The text of `labelling.json`: one row a line."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    del rounds
    pools, draws, sizes = (1, 5, (600,)) if quick else (POOLS, DRAWS, SIZES)
    asked = {name: c for name, c in CONTENDERS.items() if c.peer is None or (find_spec(c.peer) and not quick)}
    for name in CONTENDERS.keys() - asked.keys():
        print(f"{name}: left out{'' if quick else ', its package is not installed'}")
    measured: list[dict[str, Any]] = []
    print(
        f"\npoints of accuracy over random: {pools} pools a set, {draws} draws a pool; k = {ROWS_A_CLASS} rows a class"
    )
    for name in QUICK if quick else SETS:
        kind, chooses, read = SETS[name]
        began = time.perf_counter()
        try:
            data = read()
        except (ImportError, kofn.InputError) as error:
            print(f"{name}: left out, {error}")
            continue
        for size in sizes:
            fits = len(data.y) >= size + TEST // 2
            if not fits and size != sizes[0]:
                continue
            # A small set gives half of its rows as the pool and the rest as judges.
            here = size if fits else max(len(data.y) // 2, len(data.y) - TEST)
            contenders = {n: c for n, c in asked.items() if size <= SLOW_UP_TO or not c.slow}
            row = measure(data, here, pools, draws, contenders)
            measured.append(
                {
                    "set": name,
                    "kind": kind,
                    "part": "chooses" if chooses else "judges",
                    "size": size,
                    "pool": here,
                    **row,
                }
            )
            best = " ".join(f"{value:+.1f}" for value in row["points"]["facility location"])
            print(
                f"{name} ({kind}, {measured[-1]['part']}), pool {here:,}, {data.classes} classes, "
                f"random {row['random']}: facility location {best}  [{time.perf_counter() - began:.0f} s]",
                flush=True,
            )
    rows = summary(measured)
    for row in rows:
        if row["part"] == "all":
            cells = [
                f"{p:+5.1f} ±{'?' if w is None else w:<4} [{low:+.1f}, {high:+.1f}] {b:.0%}"
                for p, w, low, high, b in zip(
                    *(row[key] for key in ("points", "interval", "lowest", "highest", "beaten")), strict=True
                )
            ]
            print(f"{row['kind']:6}{row['size']:>7,} {row['contender']:37} {row['sets']} sets  " + "   ".join(cells))
    judged = verdicts(measured)
    for row in judged:
        wide = "?" if row["interval"] is None else row["interval"]
        print(
            f"{row['kind']}, {row['size']:,} rows, {row['rows a class']} a class: by default {row['default']}, "
            f"{row['points']:+}; best of the judging sets {row['best']}, {row['its points']:+}, "
            f"ahead by {row['behind by']} ±{wide}"
        )
    behind = shortfalls(measured)
    print(f"\nbehind the best contender, and what the best is ahead by where none is better\n{table(behind)}")
    return {"sets": measured, "summary": rows, "verdicts": judged, "shortfalls": behind}


if __name__ == "__main__":
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))["usefulness"]
    LABELLING.write_text(written(expected(figures["sets"])), encoding="utf-8")
    print(f"what to expect of rows to label -> {LABELLING}\n\n{markdown(figures['sets'])}")
    print(f"\n{table(shortfalls(figures['sets']))}")
