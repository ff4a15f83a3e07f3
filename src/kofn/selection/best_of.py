"""Best of n: which candidate to keep when the judges err, and what the best of k is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InfeasibleError, InputError
from kofn.plans import Selection
from kofn.registry import method

HEURISTICS = ("codet", "mbr_exec", "max_pass")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@method(
    "select",
    traits=("sandwich",),
    cost="O(judges n) and a sort of the verdict rows; O(judges n) memory",
    exact="the best-scored groups exactly; the score approximates the posterior, within how wrong the priors are",
    paper="Chen et al. 2024, B4: Towards Optimal Assessment of Plausible Code Solutions with Plausible Tests (ASE)",
)
def b4(
    rankings: Any,
    *,
    k: int = 1,
    heuristic: str | None = None,
    prior_x: Any = (1e3, 1.0),
    prior_y: Any = (1e3, 1.0),
    prior_1: Any = (1.0, 1.0),
    prior_0: Any = (1.0, 1e4),
    judges: Any = None,
) -> Selection:
    """Pick the candidate most likely right from 0/1 verdicts, when candidates and judges may both be wrong.

    Candidates that pass the same tests form a group. A group is scored by the log-posterior that just its members and
    the tests they pass are right: a right candidate passes the right tests and no other; a wrong one passes right tests
    at rate theta_1 and wrong tests at rate theta_0. These rates, and the shares of right candidates and right tests,
    are integrated out under Beta priors, which leaves a product of four Beta functions.

    Args:
        rankings: (judges, n) verdicts: 1 passed, 0 failed, NaN not run. A row is a judge (a test), a column a candidate
            (a program).
        k: how many candidates.
        heuristic: score by a rule of thumb instead: "codet" (tests passed times the root of the group's size),
            "mbr_exec" (the group's size) or "max_pass" (tests passed).
        prior_x: (a, b) of the Beta prior of the share of right candidates. Large a favours large groups.
        prior_y: (a, b) of the share of right tests.
        prior_1: (a, b) of theta_1, the rate at which wrong candidates pass right tests.
        prior_0: (a, b) of theta_0, the rate at which they pass wrong tests; large b says seldom.
        judges: (judges,) names of the rows; rows of one judge are merged, and refused where they contradict each other.

    Returns:
        Selection, best first, ties to the lowest column; `gains` are the scores, `value` is their sum, and
        `info["groups"]` (n,) numbers the groups by their first member.

    Raises:
        InputError: a verdict that is not 0, 1 or NaN, a judge that contradicts itself, a prior that is not positive.
        InfeasibleError: k above n.

    Costs O(judges n) time beside the sort that finds equal columns, O(judges n) memory. The picks maximise the score
    exactly. The score considers whole groups only; with priors near the truth that is nearly always the posterior's
    maximum.

    References:
        Chen, Liu, Tao, Hong, Lo, Xia, Sun, "B4: Towards Optimal Assessment of Plausible Code Solutions with Plausible
        Tests", ASE 2024. The defaults are those of its experiments on generated code.

    Examples:
        >>> from kofn.selection import b4
        >>> verdicts = [[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0]]
        >>> b4(verdicts, k=1).indices.tolist()
        [0]
    """
    if heuristic is not None:
        checks.choice(heuristic, "heuristic", HEURISTICS)
    priors = Priors.of(prior_x=prior_x, prior_y=prior_y, prior_1=prior_1, prior_0=prior_0)
    _refuse_no_verdict(rankings)
    table = rankings if judges is None else _one_row_a_judge(rankings, judges)
    n = table.shape[1]
    if k > n:
        raise InfeasibleError(f"k={k} of {n} candidates: there are only {n} to choose from; ask for k <= {n}")
    groups, scores = _scores(table, heuristic, priors)
    picks = np.argsort(-scores, kind="stable")[:k].astype(np.int64)
    gains = scores[picks]
    value = math.fsum(gains.tolist())
    return Selection(
        n=n,
        indices=picks,
        gains=gains,
        value=value,
        bound=value,
        status="optimal",
        used={"k": k},
        budget={"k": k},
        info={"objective": heuristic or "b4", "oracle_calls": int(groups.max()) + 1, "groups": groups},
    )


@dataclass(frozen=True)
class Priors:
    """(a, b) of the four Beta priors, in the paper's letters."""

    x: tuple[float, float]
    y: tuple[float, float]
    one: tuple[float, float]
    zero: tuple[float, float]

    @classmethod
    def of(cls, **given: Any) -> Priors:
        """Checked under the names of the options."""
        return cls(*(_prior(value, name) for name, value in given.items()))


def _prior(value: Any, name: str) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, list | tuple | np.ndarray) else ()
    if len(pair) != 2 or not all(checks.is_number(part) and 0 < part < math.inf for part in pair):
        raise InputError(f"{name}={value!r}: give (a, b) of a Beta distribution, both positive")
    return float(pair[0]), float(pair[1])


def _refuse_no_verdict(table: Floats) -> None:
    bad = ~(np.isnan(table) | (table == 0) | (table == 1))
    if bad.any():
        judge, item = np.argwhere(bad)[0]
        raise InputError(
            f"rankings at row {judge}, column {item} is {table[judge, item]:g}; a verdict is 1 (passed), 0 (failed) or "
            "NaN (not run)"
        )


def _one_row_a_judge(table: Floats, judges: Any) -> Floats:
    """Rows of the same judge merged; refuses two verdicts of one judge on one candidate."""
    names = checks.groups(judges, "judges")
    if len(names) != len(table):
        raise InputError(f"judges has {len(names)} names, rankings has {len(table)} rows; give one a row")
    first: dict[Any, int] = {}
    rows = table.copy()
    for row, name in enumerate(names.tolist()):
        home = first.setdefault(name, row)
        clash = np.flatnonzero(np.abs(rows[home] - table[row]) > 0)
        if len(clash):
            said = [f"{value:g}" for value in (rows[home, clash[0]], table[row, clash[0]])]
            raise InputError(
                f"judge {name!r} contradicts itself: at column {clash[0]} it says {said[0]} and, at row {row}, "
                f"{said[1]}; keep one of them or leave both out as NaN"
            )
        rows[home] = np.where(np.isnan(rows[home]), table[row], rows[home])
    return rows[sorted(first.values())]


def _scores(table: Floats, heuristic: str | None, priors: Priors) -> tuple[Ints, Floats]:
    """(n,) the group of each candidate, numbered by first members, and the score of its group."""
    from scipy.special import betaln

    # One byte a verdict: equal candidates are equal bytes, with "not run" a verdict of its own.
    verdicts = np.ascontiguousarray(np.where(np.isnan(table), 2, table).T.astype(np.uint8))
    _, first, back = np.unique(verdicts, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    groups = rank[back.reshape(-1)]
    patterns = verdicts[np.sort(first)]
    n = len(verdicts)
    size = np.bincount(groups).astype(np.float64)
    passed, failed = (patterns == 1).astype(np.float64), (patterns == 0).astype(np.float64)
    right = passed.sum(axis=1)
    if heuristic == "codet":
        return groups, (right * np.sqrt(size))[groups]
    if heuristic == "mbr_exec":
        return groups, size[groups]
    if heuristic == "max_pass":
        return groups, right[groups]
    wrong = failed.sum(axis=1)
    passes, runs = (verdicts == 1).sum(axis=0).astype(np.float64), (verdicts != 2).sum(axis=0).astype(np.float64)
    # What all candidates did on a group's tests, less what its own members did: they pass the right ones, fail the rest
    n_1, of_1 = passed @ passes - size * right, passed @ runs - size * right
    n_0, of_0 = failed @ passes, failed @ runs - size * wrong
    score: Floats = (
        _log_beta(betaln, size, np.full_like(size, n), priors.x)
        + _log_beta(betaln, right, right + wrong, priors.y)
        + _log_beta(betaln, n_1, of_1, priors.one)
        + _log_beta(betaln, n_0, of_0, priors.zero)
    )
    return groups, score[groups]


def _log_beta(betaln: Any, hits: Floats, of: Floats, prior: tuple[float, float]) -> Floats:
    """log of the chance of these hits in this order, the rate integrated out, up to a constant."""
    out: Floats = betaln(hits + prior[0], of - hits + prior[1])
    return out


def best_of_k(scores: Any, k: Any) -> Any:
    """What the best of k samples is worth on average, estimated from n >= k samples: pass@k and eff@k.

    Averages the maximum over all subsets of size k at once: the r-th smallest score is the largest of C(r-1, k-1) of
    the C(n, k) subsets. That is unbiased, and of all unbiased estimates from the same unordered sample it varies least.

    Args:
        scores: (n,) score of each sample (0/1 for pass@k, an efficiency for eff@k), or (tasks, n), one row a task.
        k: how many are drawn, or several counts, each between 1 and n.

    Returns:
        A float for one task and one k; else an array of shape (tasks,), (counts,) or (tasks, counts).

    Raises:
        InputError: scores that are not finite numbers, a k that is no whole number or is below 1 or above n.

    Costs O(n log n) time for a task and O(n) more for each k. The weights come from a product of ratios below 1, so
    that nothing overflows: they sum to one for any n.

    References:
        Qiu, Zeng, Ezick, Lott, Tong, "How Efficient is LLM-Generated Code? A Rigorous & High-Standard Benchmark", ICLR
        2025 (eff@k, Rao-Blackwellised). Chen et al., "Evaluating Large Language Models Trained on Code", 2021 (pass@k).

    Examples:
        >>> from kofn.selection import best_of_k
        >>> best_of_k([0, 0, 1, 1], 2)
        0.8333333333333334
        >>> best_of_k([0.1, 0.4, 0.9], [1, 3]).round(6).tolist()
        [0.466667, 0.9]
    """
    try:
        flat = np.ndim(scores) != 2
    except ValueError:
        raise InputError("scores is ragged: its tasks have different numbers of samples; call once a task") from None
    table = checks.vector(scores, "scores")[None] if flat else checks.matrix(scores, "scores")
    many = np.ndim(k) > 0
    counts = [checks.count(count) for count in (np.asarray(k).tolist() if many else [k])]
    n = table.shape[1]
    if not counts:
        raise InputError("k is empty; give at least one count")
    if max(counts) > n:
        raise InputError(f"k={max(counts)} of {n} samples: the best of k needs n >= k; draw more or ask for less")
    ranked = np.sort(table.astype(np.float64), axis=1)[:, ::-1]
    out = np.stack([ranked @ best_of_weights(n, count) for count in counts], axis=-1)
    if not many:
        out = out[..., 0]
    out = out[0] if flat else out
    return float(out) if np.ndim(out) == 0 else out


def best_of_weights(n: int, k: int) -> Floats:
    """(n,) the share of the subsets of size k in which the item of each rank, best first, is the best.

    Args:
        n: samples.
        k: size of the subsets.

    Examples:
        >>> from kofn.selection.best_of import best_of_weights
        >>> best_of_weights(4, 2).round(6).tolist()
        [0.5, 0.333333, 0.166667, 0.0]
    """
    above = np.arange(n - 1, 0, -1)  # how many rank below each of the first n - 1
    steps = np.maximum(1 - (k - 1) / above, 0.0)
    return (k / n) * np.concatenate([[1.0], np.cumprod(steps)])


def efficiency(times: Any, reference: Any, *, hardness: Any = None, factor: float = 2.0) -> Floats:
    """How efficient each sample is beside a reference, from times that may be cut off at a limit.

    Args:
        times: (n, levels) the longest time of each sample at each level, any unit; inf or NaN where it was cut off or
            not run. What is cut off at one level counts as cut off at all later ones.
        reference: (levels,) the reference's longest time at each level, positive.
        hardness: (levels,) weight of each level, default equal.
        factor: the limit is this many times the reference's longest time, above 1.

    Returns:
        (n,) weighted mean over the levels of max(0, limit - time) / (limit - reference): 0 at the limit or past it, 1
        for the reference, above 1 for what is faster. A wrong sample's score is 0: set it so.

    Raises:
        InputError: times below zero, shapes that do not fit, a factor of 1 or less.

    References:
        Qiu, Zeng, Ezick, Lott, Tong, "How Efficient is LLM-Generated Code?", ICLR 2025.

    Examples:
        >>> from kofn.selection.best_of import efficiency
        >>> efficiency([[1.0, 2.0], [1.0, 3.0], [2.0, float("inf")]], [1.0, 2.0]).round(3).tolist()
        [1.0, 0.75, 0.333]
    """
    expert = checks.vector(reference, "reference").astype(np.float64)
    table = np.asarray(times, np.float64)
    if table.ndim != 2 or table.shape[1] != len(expert):
        raise InputError(f"times has shape {table.shape}; give (n, {len(expert)}), one column a level of reference")
    if (table < 0).any():
        row, level = np.argwhere(table < 0)[0]
        raise InputError(f"times at row {row}, column {level} is {table[row, level]:g}; times must be >= 0")
    if expert.min() <= 0:
        raise InputError(f"reference at row {int(expert.argmin())} is {expert.min():g}; times must be positive")
    if not checks.is_number(factor) or not 1 < factor < math.inf:
        raise InputError(f"factor={factor!r}: give a number above 1")
    levels = np.ones(len(expert)) if hardness is None else checks.weights(hardness, "hardness").astype(np.float64)
    if len(levels) != len(expert):
        raise InputError(f"hardness has {len(levels)} values, reference has {len(expert)} levels; give one a level")
    limit = factor * expert.max()
    within = np.logical_and.accumulate(table < limit, axis=1)
    share = np.where(within, limit - np.where(within, table, limit), 0.0) / (limit - expert)
    out: Floats = share @ levels / levels.sum()
    return out
