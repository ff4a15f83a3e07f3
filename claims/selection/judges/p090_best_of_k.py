"""The best of k from n samples: a known law, and sorting programs on real columns, cut off past twice an expert's work.

The programs are random draws of shell, comb, quick, merge, heap and insertion sorts with random settings, some of them
wrong; what counts as time is the comparisons they make on diamond prices and flight delays at three sizes, stopped at
twice the most that the expert (binary insertion) makes. Nothing is timed, so the same seed gives the same scores.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.runs import derive, spread
from kofn import datasets
from kofn.selection import best_of_k
from kofn.selection.judges._best_of_k import best_of_weights, efficiency

SAMPLES, LARGE = 20, 100_000
COUNTS = tuple(range(1, 11))
SIZES, HARDNESS = (60, 200, 600), (3.0, 3.0, 4.0)
PROGRAMS = 160
# In standard errors, so that not one of the forty comparisons of a run fails by chance more than once in 400 runs.
NEAR = 4.0

Floats = NDArray[np.float64]
Less = Callable[[float, float], bool]


@claim(
    paper=90,
    says="Averaged over all subsets, the best-of-k estimate from 20 samples is off by no more than its noise at k = 1 "
    "to 10 and varies at most k/n as much as the best of one random subset, on a known law and on the efficiency of "
    "sorting programs; it is pass@k on verdicts, and its weights sum to one at n = 100,000",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Bias and variance against the truth; broken: the samples' own law drawn from with replacement."""
    repeats = 5_000 if scale == "small" else 50_000
    measured: dict[str, Any] = {}
    met = []
    for name, draw, truth in (_law(seed), *_programs(seed)):
        rng = np.random.default_rng(derive(seed, 1, stream=len(measured) + 1))
        table = draw(rng, repeats)
        told = _with_replacement(table) if broken else best_of_k(table, COUNTS)
        single = np.column_stack([table[:, :k].max(axis=1) for k in COUNTS])
        off = (told.mean(axis=0) - truth) / (told.std(axis=0, ddof=1) / math.sqrt(repeats))
        share = told.var(axis=0, ddof=1) / single.var(axis=0, ddof=1)
        allowed = np.array(COUNTS) / SAMPLES
        met += [bool(np.abs(off).max() <= NEAR), bool((share <= 1.1 * allowed).all())]
        measured[name] = {
            "truth": {k: round(float(truth[k - 1]), 4) for k in (1, 5, 10)},
            "bias in standard errors": [round(float(x), 2) for x in off],
            "bias at k=10": round(float(told[:, -1].mean() - truth[-1]), 5),
            "variance over that of one subset": [round(float(x), 4) for x in share],
        }
    exact = _verdicts(broken)
    weights = {k: best_of_weights(LARGE, k) for k in (1, 10, LARGE // 2, LARGE)}
    whole = max(abs(math.fsum(w.tolist()) - 1) for w in weights.values())
    finite = all(bool(np.isfinite(w).all()) for w in weights.values())
    measured["largest difference from pass@k"] = exact
    measured["weights at n = 100,000 sum to one within"] = whole
    met += [exact < 1e-12, whole < 1e-10, finite]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected=f"bias within {NEAR:g} standard errors at each k, variance at most 1.1 k/n of one subset's; pass@k to "
        "1e-12, weights finite, their sum 1 to 1e-10",
        baseline="the best of one random subset of the same samples; pass@k by binomial coefficients in whole numbers",
        kind="reduced",
    )


def _with_replacement(table: Floats) -> Floats:
    """The plug-in estimate: the expected best of k draws from the samples' own law."""
    ranked = np.sort(table, axis=1)
    steps = np.arange(SAMPLES + 1) / SAMPLES
    return np.column_stack([ranked @ np.diff(steps**k) for k in COUNTS])


def _verdicts(broken: bool) -> float:
    """The largest difference from pass@k in exact whole numbers."""
    worst = 0.0
    for right in range(SAMPLES + 1):
        scores = (np.arange(SAMPLES) < right).astype(np.float64)
        told = _with_replacement(scores[None])[0] if broken else best_of_k(scores, COUNTS)
        for k, value in zip(COUNTS, told, strict=True):
            worst = max(worst, abs(value - (1 - math.comb(SAMPLES - right, k) / math.comb(SAMPLES, k))))
    return worst


Drawn = tuple[str, Callable[[np.random.Generator, int], Floats], Floats]


def _law(seed: int) -> Drawn:
    """Scores of which many are zero, on a grid: the expected best of k follows from the distribution function."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([[0.0], np.sort(rng.random(40))])
    chance = np.concatenate([[0.5], 0.5 * rng.dirichlet(np.linspace(1.5, 0.05, 40))])
    below = np.concatenate([[0.0], np.cumsum(chance)])
    truth = np.array([values @ np.diff(below**k) for k in COUNTS])
    return "a known law", lambda rng, count: rng.choice(values, (count, SAMPLES), p=chance), truth


def _programs(seed: int) -> list[Drawn]:
    """Programs on two real columns; a sample is drawn without replacement from all that were run."""
    found: list[Drawn] = []
    for name, scores in zip(
        ("diamond prices", "flight delays"), spread(_scored, [("diamonds", seed), ("flights", seed)]), strict=True
    ):

        def draw(rng: np.random.Generator, count: int, scores: Floats = scores) -> Floats:
            return scores[rng.random((count, len(scores))).argpartition(SAMPLES, axis=1)[:, :SAMPLES]]

        ranked = sorted(scores.tolist())
        truth = [
            math.fsum(math.comb(r, k - 1) * score for r, score in enumerate(ranked)) / math.comb(len(ranked), k)
            for k in COUNTS
        ]
        found.append((f"sorting programs, {name}", draw, np.array(truth)))
    return found


def _scored(task: tuple[str, int]) -> Floats:
    """(programs,) the efficiency of each program, 0 where it sorts wrongly."""
    name, seed = task
    frame = datasets.load(name).frame
    assert frame is not None
    column = frame["price" if name == "diamonds" else "arr_delay"].drop_nulls().to_numpy().astype(np.float64)
    rng = np.random.default_rng(derive(seed, 1, stream=7))
    levels = [[rng.choice(column, size).tolist() for _ in range(2)] for size in SIZES]
    expert = np.array([max(_run(_insertion, rows, math.inf)[0] for rows in level) for level in levels])
    scores = np.zeros(PROGRAMS)
    for place in range(PROGRAMS):
        program = _draw_program(rng)
        times, right = [], True
        for level in levels:
            runs = [_run(program, rows, 2 * expert.max()) for rows in level]
            times.append(max(cost for cost, _ in runs))
            right &= all(fine for _, fine in runs)
        scores[place] = efficiency([times], expert, hardness=HARDNESS)[0] if right else 0.0
    return scores


class _CutOff(Exception):
    """More comparisons than the limit."""


def _run(program: Callable[[list[float], Less], list[float]], rows: list[float], limit: float) -> tuple[float, bool]:
    """Comparisons made, infinite where cut off, and whether the rows came out in order."""
    made = 0

    def less(a: float, b: float) -> bool:
        nonlocal made
        made += 1
        if made > limit:
            raise _CutOff
        return a < b

    try:
        out = program(list(rows), less)
    except _CutOff:
        return math.inf, True
    return float(made), out == sorted(rows)


def _draw_program(rng: np.random.Generator) -> Callable[[list[float], Less], list[float]]:
    kind = int(rng.integers(6))
    number = float(rng.random())
    program: Callable[[list[float], Less], list[float]]
    if kind == 0:
        program = functools.partial(_gapped, shrink=1.3 + 2 * number, comb=False)
    elif kind == 1:
        program = functools.partial(_gapped, shrink=1.15 + number / 2, comb=True)
    elif kind == 2:
        program = functools.partial(_quick, pivot=int(rng.integers(3)), cutoff=int(1 + 30 * number))
    elif kind == 3:
        program = functools.partial(_merge, run=int(1 + 30 * number))
    elif kind == 4:
        program = _heap
    else:
        program = functools.partial(_insertion, binary=number < 0.5)
    return functools.partial(_wrong, program=program) if rng.random() < 0.25 else program


def _wrong(rows: list[float], less: Less, program: Callable[[list[float], Less], list[float]]) -> list[float]:
    """Forgets the last element."""
    return [*program(rows[:-1], less), rows[-1]]


def _insertion(rows: list[float], less: Less, binary: bool = True) -> list[float]:
    out: list[float] = []
    for value in rows:
        low, high = 0, len(out)
        while low < high:
            middle = (low + high) // 2 if binary else high - 1
            if less(value, out[middle]):
                high = middle
            else:
                low = middle + 1
        out.insert(low, value)
    return out


def _gapped(rows: list[float], less: Less, shrink: float, comb: bool) -> list[float]:
    gap = len(rows)
    while gap > 1:
        gap = max(1, int(gap / shrink))
        for start in range(gap, len(rows)):
            place = start
            while place >= gap and less(rows[place], rows[place - gap]):
                rows[place], rows[place - gap] = rows[place - gap], rows[place]
                place = -1 if comb else place - gap
    swapped = comb
    while swapped:
        swapped = False
        for place in range(1, len(rows)):
            if less(rows[place], rows[place - 1]):
                rows[place], rows[place - 1] = rows[place - 1], rows[place]
                swapped = True
    return rows


def _quick(rows: list[float], less: Less, pivot: int, cutoff: int) -> list[float]:
    if len(rows) <= cutoff:
        return _insertion(rows, less, binary=False)
    ends = [rows[0], rows[len(rows) // 2], rows[-1]]
    value = ends[pivot] if pivot < 2 else _insertion(ends, less)[1]
    low = [row for row in rows if less(row, value)]
    rest = [row for row in rows if not less(row, value)]
    level = [row for row in rest if row == value]
    high = [row for row in rest if row != value]
    return [*_quick(low, less, pivot, cutoff), *level, *_quick(high, less, pivot, cutoff)]


def _merge(rows: list[float], less: Less, run: int) -> list[float]:
    if len(rows) <= run:
        return _insertion(rows, less, binary=False)
    half = len(rows) // 2
    left, right = _merge(rows[:half], less, run), _merge(rows[half:], less, run)
    out, a, b = [], 0, 0
    while a < len(left) and b < len(right):
        if less(right[b], left[a]):
            out.append(right[b])
            b += 1
        else:
            out.append(left[a])
            a += 1
    return [*out, *left[a:], *right[b:]]


class _Key:
    def __init__(self, value: float, less: Less) -> None:
        self.value, self.less = value, less

    def __lt__(self, other: _Key) -> bool:
        return self.less(self.value, other.value)


def _heap(rows: list[float], less: Less) -> list[float]:
    keys = [_Key(value, less) for value in rows]
    heapq.heapify(keys)
    return [heapq.heappop(keys).value for _ in range(len(rows))]
