"""k-medoids on Manhattan and Jaccard dissimilarities, drawn and real: PAM against its fast and its eager form.

Swaps are followed one by one from the same start, beside a few lines of NumPy that try every swap. Work is counted in
points looked at while swaps are judged; seconds are shown.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.medoids import growth, same_swaps
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

KINDS = ("Manhattan, mixture", "Manhattan, digits", "Jaccard, topics", "Jaccard, verses")
SAME_N, SAME_K = 90, (2, 12)
PASS_K = (2, 10, 50, 100)
EAGER_N, EAGER_K = 300, (10, 40)
STARTS = ("build", "random")
# Classic CLARANS gives up after this share of all k (n - k) pairs, and no fewer than so many.
RANS_N, RANS_K, RANS_SHARE, RANS_LEAST = 700, 15, 0.0125, 250

Floats = NDArray[np.float64]
Figures = dict[str, Any]


@claim(
    paper=67,
    says="On Manhattan and Jaccard dissimilarities FastPAM1 makes PAM's swaps one by one for 1/k of its work; "
    "eager swapping stays within 1% of PAM's loss in fewer rounds; CLARANS that judges all k swaps of a candidate at "
    "once finds a lower loss",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """FastPAM1, FasterPAM and FastCLARANS; broken: swaps are judged one by one, without what FastPAM keeps."""
    same_runs, runs, n = (20, 12, 800) if scale == "small" else (20, 60, 1600)
    fast, eager = ("pam", "pam") if broken else ("fastpam1", "fasterpam")
    measured: Figures = {}
    met = []
    for at, kind in enumerate(KINDS):
        same = spread(functools.partial(_same, kind=kind, fast=fast), derive(seed, same_runs, stream=4 * at))
        equal = {
            "swaps followed": sum(one["swaps"] for one in same),
            "swaps that differ": sum(one["differ"] for one in same),
            "largest relative difference of the final loss": max(one["gap"] for one in same),
        }
        met.append(all(one["differ"] == 0 and one["gap"] <= 1e-9 for one in same))
        passes, holds = _passes(kind, n, fast, derive(seed, 1, stream=4 * at + 1)[0])
        met.append(holds)
        trials = spread(functools.partial(_trial, kind=kind, eager=eager), derive(seed, runs, stream=4 * at + 2))
        eagerly = {}
        for k in EAGER_K:
            for start in STARTS:
                figures, holds = _eager([trial[start, k] for trial in trials], built=start == "build")
                eagerly[f"k={k}, {start} start"] = figures
                met.append(holds)
        pairs = spread(functools.partial(_clarans, kind=kind, broken=broken), derive(seed, 10, stream=4 * at + 3))
        sampled = difference([one["FastCLARANS"] / one["CLARANS"] for one in pairs], np.ones(len(pairs)))
        met.append(sampled.high < 0)
        measured[kind] = {
            f"n={SAME_N}": equal,
            f"a pass, n={n}": passes,
            f"FasterPAM, n={EAGER_N}": eagerly,
            f"sampled swaps, n={RANS_N}, k={RANS_K}": {
                "FastCLARANS' loss over CLARANS', less 1": sampled.figures(),
                "its points looked at over CLARANS'": round(
                    float(np.mean([one["fast work"] / one["work"] for one in pairs])), 2
                ),
            },
        }
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="every swap and the final loss (1e-9) as PAM's; PAM's work a pass over FastPAM1's: log-log slope in k "
        f"over {', '.join(map(str, PASS_K))} within 0.9 to 1.1, and > 20 at k=100; FasterPAM's loss over PAM's: upper "
        "95% limit of the mean < 1.01, rounds fewer in the mean (from BUILD: no more); FastCLARANS' loss over "
        "CLARANS': upper limit < 1",
        baseline="PAM as written (its swaps checked against a plain NumPy search over all swaps), same starts; "
        "CLARANS as published, two descents from random medoids on both sides",
        kind="reduced",
    )


def _dissimilarities(kind: str, n: int, rng: np.random.Generator) -> Floats:
    """(n, n) Manhattan distances between rows, or Jaccard distances between sets."""
    from scipy.spatial.distance import cdist

    if kind == "Manhattan, mixture":
        middles = rng.normal(size=(25, 8))
        rows: Any = middles[rng.integers(25, size=n)] + 0.4 * rng.laplace(size=(n, 8))
        return np.asarray(cdist(rows, rows, "cityblock"), np.float64)
    if kind == "Manhattan, digits":
        rows = digits().X[rng.permutation(len(digits()))[:n]].astype(np.float64)
        return np.asarray(cdist(rows, rows, "cityblock"), np.float64)
    if kind == "Jaccard, topics":
        # Each of 25 topics prefers its own of 120 words.
        likely = 0.02 + 0.5 * (rng.random((25, 120)) < 0.1)
        sets = rng.random((n, 120)) < likely[rng.integers(25, size=n)]
    else:
        verses = _verses()
        sets = _words([verses[row] for row in rng.permutation(len(verses))[:n].tolist()])
    both = sets.astype(np.float64) @ sets.T.astype(np.float64)
    sizes = sets.sum(axis=1)
    either = sizes[:, None] + sizes - both
    apart = 1 - np.divide(both, either, out=np.ones_like(both), where=either > 0)
    np.fill_diagonal(apart, 0)
    return np.asarray(apart, np.float64)


@functools.cache
def _verses() -> list[frozenset[str]]:
    """The words of each verse."""
    texts = kofn.datasets.load("verses").texts
    assert texts is not None
    return [frozenset(re.findall("[a-z]+", text.lower())) for text in texts]


def _words(texts: list[frozenset[str]]) -> NDArray[np.bool_]:
    place = {word: at for at, word in enumerate(sorted(frozenset().union(*texts)))}
    out = np.zeros((len(texts), len(place)), bool)
    for row, text in enumerate(texts):
        out[row, [place[word] for word in text]] = True
    return out


def _same(seed: int, *, kind: str, fast: str) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, SAME_N, rng)
    return same_swaps(D, [rng.choice(SAME_N, k, replace=False) for k in SAME_K], fast)


def _passes(kind: str, n: int, fast: str, seed: int) -> tuple[Figures, bool]:
    """PAM's work a pass over FastPAM1's, as k grows."""
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, n, rng)
    work, seconds = growth(D, [rng.choice(n, k, replace=False) for k in PASS_K], fast)
    ratios = np.array(work["PAM"]) / np.array(work["FastPAM1"])
    slope = float(np.polyfit(np.log(PASS_K), np.log(ratios), 1)[0])
    figures = {
        "k": list(PASS_K),
        "PAM's points looked at over FastPAM1's": [round(float(ratio), 2) for ratio in ratios],
        "slope in k": round(slope, 3),
        "PAM's seconds over FastPAM1's": [
            round(slow / quick, 1) for slow, quick in zip(seconds["PAM"], seconds["FastPAM1"], strict=True)
        ],
    }
    return figures, 0.9 <= slope <= 1.1 and bool(ratios[-1] > 20)


def _trial(seed: int, *, kind: str, eager: Any) -> dict[tuple[str, int], dict[str, float]]:
    """FasterPAM and PAM's swaps from the same medoids, to the end."""
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, EAGER_N, rng)
    out = {}
    for k in EAGER_K:
        for name in STARTS:
            fast, slow = (
                kofn.assign(distances=D, k=k, method=method, seed=seed, options={"init": name})
                for method in (eager, "fastpam1")
            )
            out[name, k] = {
                "loss": fast.value / slow.value,
                "rounds": fast.info["rounds"],
                "PAM's rounds": slow.info["rounds"],
            }
    return out


def _eager(trials: list[dict[str, float]], *, built: bool) -> tuple[Figures, bool]:
    """The eager form's loss and rounds against PAM's; from BUILD there may be no swap left to make."""
    loss = difference([trial["loss"] for trial in trials], np.ones(len(trials)))
    rounds = {name: float(np.mean([trial[name] for trial in trials])) for name in ("rounds", "PAM's rounds")}
    figures: Figures = {"its loss over PAM's, less 1": loss.figures()}
    figures |= {name: round(count, 1) for name, count in rounds.items()}
    fewer = rounds["rounds"] < rounds["PAM's rounds"] or (built and rounds["rounds"] == rounds["PAM's rounds"])
    return figures, loss.high < 0.01 and fewer


def _clarans(seed: int, *, kind: str, broken: bool) -> dict[str, float]:
    """Both forms of CLARANS on the same matrix; broken: the classic one on both sides."""
    rng = np.random.default_rng(seed)
    D = _dissimilarities(kind, RANS_N, rng)
    loss, work = _classic(D, RANS_K, rng)
    if broken:
        again, more = _classic(D, RANS_K, rng)
        return {"CLARANS": loss, "work": work, "FastCLARANS": again, "fast work": more}
    plan = kofn.assign(distances=D, k=RANS_K, method="fastclarans", seed=seed)
    return {"CLARANS": loss, "work": work, "FastCLARANS": plan.value, "fast work": plan.info["swap_evaluations"]}


def _classic(D: Floats, k: int, rng: np.random.Generator) -> tuple[float, float]:
    """CLARANS: pairs of a medoid and another item at random, swapped where that helps. Its loss, points looked at."""
    n = len(D)
    limit = max(RANS_LEAST, math.ceil(RANS_SHARE * k * (n - k)))
    best, looked = math.inf, 0
    for _ in range(2):
        medoids = rng.choice(n, k, replace=False)
        near = D[:, medoids]
        loss, failures = float(near.min(axis=1).sum()), 0
        while failures < limit:
            place, candidate = int(rng.integers(k)), int(rng.integers(n))
            if candidate in medoids:
                continue
            looked += n
            kept = near[:, place].copy()
            near[:, place] = D[:, candidate]
            after = float(near.min(axis=1).sum())
            if after < loss * (1 - 1e-10):
                medoids[place], loss, failures = candidate, after, 0
            else:
                near[:, place] = kept
                failures += 1
        best = min(best, loss)
    return best, looked
