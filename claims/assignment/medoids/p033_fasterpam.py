"""k-medoids on dissimilarities that obey no geometry, and on scanned digits: PAM, FastPAM1 and FasterPAM.

Swaps are followed one by one from the same start, by the library and by a few lines of NumPy that try every swap. Work
is counted in points looked at while swaps are judged; seconds are shown.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.medoids import cluster, growth, same_swaps
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

KINDS = ("random", "digits")
SAME_N, SAME_K = 150, (3, 10, 25)
PASS_K = (5, 20, 50, 100)
# PAM itself runs to the end on a few of the starts; on the others FastPAM1, whose swaps are the same, stands for it.
SLOW_RUNS = 3
LOSS_N, LOSS_K = 400, (20, 50)
# Local optima of random numbers differ by several percent, so that a mean to 2% takes many starts.
LOSS_RUNS = {"random": 120, "digits": 40}

Floats = NDArray[np.float64]
Figures = dict[str, Any]


@claim(
    paper=33,
    says="FastPAM1 makes PAM's swaps and reaches its loss, at a work a pass that does not grow with k as PAM's does; "
    "FasterPAM's loss is within 2% of PAM's from the same random start, for less than a k-th of its work",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """FastPAM1 and FasterPAM against PAM; broken: removals are judged one by one, as PAM does."""
    runs, n = (10, 800) if scale == "small" else (20, 1797)
    fast, eager = ("pam", "pam") if broken else ("fastpam1", "fasterpam")
    measured: Figures = {}
    met = []
    for kind in KINDS:
        same = spread(functools.partial(_same_swaps, kind=kind, fast=fast), derive(seed, runs, stream=1))
        measured[f"{kind}, n={SAME_N}"] = {
            "swaps followed": sum(one["swaps"] for one in same),
            "swaps that differ": sum(one["differ"] for one in same),
            "largest relative difference of the final loss": max(one["gap"] for one in same),
        }
        met.append(all(one["differ"] == 0 and one["gap"] <= 1e-9 for one in same))
        figures, holds = _growth(kind, n, fast, derive(seed, 1, stream=2)[0])
        measured[f"{kind}, n={n}, a pass"] = figures
        met.append(holds)
        # Broken, PAM itself is on both sides: a few of its slow runs show that it saves itself nothing.
        count = SLOW_RUNS if broken else LOSS_RUNS[kind] * (1 if scale == "small" else 2)
        starts = derive(seed, count, stream=3)
        trials = spread(functools.partial(_from_random, kind=kind, eager=eager), list(enumerate(starts)))
        for k in LOSS_K:
            figures, holds = _quality([trial[k] for trial in trials], k)
            measured[f"{kind}, n={LOSS_N}, k={k}, random start"] = figures
            met.append(holds)
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="every swap and the final loss (1e-9) as PAM's; log-log slope of the work a pass over k = "
        f"{', '.join(map(str, PASS_K))}: PAM's > 0.9, FastPAM1's < 0.1; FasterPAM's loss over PAM's: upper 95% limit "
        "of the mean < 1.02; PAM's work over FasterPAM's > k",
        baseline="PAM as written (its swaps checked against a plain NumPy search over all swaps), from the same starts",
        kind="reduced",
    )


def _dissimilarities(kind: str, n: int, rng: np.random.Generator) -> Floats:
    """(n, n) symmetric: uniform numbers, or Euclidean distances between digits."""
    if kind == "random":
        upper = np.triu(rng.random((n, n)), 1)
        return np.asarray(upper + upper.T, np.float64)
    from scipy.spatial.distance import cdist

    X = digits().X
    rows = X[rng.permutation(len(X))[:n]]
    return np.asarray(cdist(rows, rows), np.float64)


def _same_swaps(seed: int, *, kind: str, fast: str) -> dict[str, float]:
    """Follow the fast search swap by swap, with a search over all swaps beside it."""
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, SAME_N, rng)
    return same_swaps(D, [rng.choice(SAME_N, k, replace=False) for k in SAME_K], fast)


def _growth(kind: str, n: int, fast: str, seed: int) -> tuple[Figures, bool]:
    """Work of one pass over all swaps, as k grows."""
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, n, rng)
    work, seconds = growth(D, [rng.choice(n, k, replace=False) for k in PASS_K], fast)
    slopes = {name: float(np.polyfit(np.log(PASS_K), np.log(counts), 1)[0]) for name, counts in work.items()}
    figures = {
        name: {
            "points looked at": [round(count) for count in work[name]],
            "slope in k": round(slopes[name], 3),
            "seconds": [round(took, 4) for took in seconds[name]],
        }
        for name in work
    }
    return figures, slopes["PAM"] > 0.9 and slopes["FastPAM1"] < 0.1


def _from_random(turn: tuple[int, int], *, kind: str, eager: str) -> dict[int, dict[str, float]]:
    """PAM and FasterPAM from the same random start, to the end."""
    number, seed = turn
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, LOSS_N, rng)
    out = {}
    for k in LOSS_K:
        start = rng.choice(LOSS_N, k, replace=False)
        fast, same = cluster(eager, D, start), cluster("fastpam1", D, start)
        out[k] = {"loss": fast.value, "PAM's loss": same.value, "work": fast.info["swap_evaluations"]}
        if number < SLOW_RUNS:
            slow = cluster("pam", D, start)
            out[k] |= {"PAM's loss": slow.value, "PAM's work": slow.info["swap_evaluations"]}
            out[k] |= {"PAM's seconds": slow.info["seconds"], "seconds": fast.info["seconds"]}
    return out


def _quality(trials: list[dict[str, float]], k: int) -> tuple[Figures, bool]:
    ratio = difference([trial["loss"] / trial["PAM's loss"] for trial in trials], np.ones(len(trials)))
    slow = trials[:SLOW_RUNS]
    saved = min(trial["PAM's work"] / trial["work"] for trial in slow)
    seconds = sum(trial["PAM's seconds"] for trial in slow) / sum(trial["seconds"] for trial in slow)
    figures: Figures = {
        "FasterPAM's loss over PAM's, less 1": ratio.figures(),
        "PAM's work over FasterPAM's, the least": round(saved, 1),
        "PAM's seconds over FasterPAM's": round(seconds, 1),
    }
    return figures, ratio.high < 0.02 and saved > k
