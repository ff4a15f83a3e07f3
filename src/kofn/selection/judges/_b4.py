"""Pick the candidate most likely right from 0/1 verdicts, when candidates and judges may both be wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method


@method(
    "select",
    traits=("sandwich",),
    draws=Draw(
        plain={"rankings": [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]}, silent=("units",)
    ),
    cost="O(judges n) and a sort of the verdict rows; O(judges n) memory",
    exact="the best-scored groups exactly; the score approximates the posterior, within how wrong the priors are",
    paper=54,
)
def b4(
    rankings: Any,
    *,
    k: int = 1,
    heuristic: Literal["codet", "mbr_exec", "max_pass"] | None = None,
    prior_x: tuple[float, float] = (1e3, 1.0),
    prior_y: tuple[float, float] = (1e3, 1.0),
    prior_1: tuple[float, float] = (1.0, 1.0),
    prior_0: tuple[float, float] = (1.0, 1e4),
    judges: ArrayLike | None = None,
) -> Selection:
    """Pick the candidate most likely right from 0/1 verdicts, when candidates and judges may both be wrong.

    Candidates that pass the same tests form a group. A group is scored by the log-posterior that just its members and
    the tests they pass are right: a right candidate passes the right tests and no other; a wrong one passes right tests
    at rate theta_1 and wrong tests at rate theta_0. These rates, and the shares of right candidates and right tests,
    are integrated out under Beta priors, which leaves a product of four Beta functions.

    Args:
        rankings: (n, judges) verdicts: 1 passed, 0 failed, NaN not run. A row is a candidate (a program), a column a
            judge (a test).
        k: how many candidates to pick, default 1.
        heuristic: score by a rule of thumb instead: "codet" (tests passed times the root of the group's size),
            "mbr_exec" (the group's size) or "max_pass" (tests passed).
        prior_x: (a, b) of the Beta prior of the share of right candidates. Large a favours large groups.
        prior_y: (a, b) of the share of right tests.
        prior_1: (a, b) of theta_1, the rate at which wrong candidates pass right tests.
        prior_0: (a, b) of theta_0, the rate at which they pass wrong tests; a large b makes it rare.
        judges: (judges,) names of the columns; columns of one judge are merged, and refused where they
            contradict each other.

    Returns:
        Selection, best first, ties to the lowest row; `gains` are the scores, `value` is their sum, and
        `info["groups"]` (n,) numbers the groups by their first member.

    Raises:
        InputError: a verdict that is not 0, 1 or NaN, a judge that contradicts itself, a prior that is not positive.
        InfeasibleError: k above n.

    Costs O(judges n) time beside the sort that finds equal rows, O(judges n) memory. The picks maximise the score
    exactly. The score considers whole groups only; with priors near the truth that is nearly always the posterior's
    maximum.

    References:
        Chen, Liu, Tao, Hong, Lo, Xia, Sun, "B4: Towards Optimal Assessment of Plausible Code Solutions with Plausible
        Tests", ASE 2024. The defaults are those of its experiments on generated code.

    Examples:
        >>> from kofn.selection import b4
        >>> verdicts = [[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]]
        >>> b4(verdicts, k=1).indices.tolist()
        [0]
    """
    priors = Priors.of(prior_x=prior_x, prior_y=prior_y, prior_1=prior_1, prior_0=prior_0)
    _refuse_other_than_verdicts(rankings)
    table = rankings if judges is None else _one_column_a_judge(rankings, judges)
    n = len(table)
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
        objective=heuristic or "b4",
        info={"oracle_calls": int(groups.max()) + 1, "groups": groups},
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
        """Check each prior under its option's name."""
        return cls(*(_prior(value, name) for name, value in given.items()))


def _prior(value: Any, name: str) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, list | tuple | np.ndarray) else ()
    if len(pair) != 2 or not all(checks.is_number(part) and 0 < part < math.inf for part in pair):
        raise InputError(f"{name}={checks.shown(value)}: give (a, b) of a Beta distribution, both positive")
    return float(pair[0]), float(pair[1])


def _refuse_other_than_verdicts(table: Floats) -> None:
    bad = ~(np.isnan(table) | (table == 0) | (table == 1))
    if bad.any():
        item, judge = np.argwhere(bad)[0]
        raise InputError(
            f"rankings at row {item}, column {judge} is {table[item, judge]:g}; a verdict is 1 (passed), 0 (failed) or "
            "NaN (not run)"
        )


def _one_column_a_judge(table: Floats, judges: Any) -> Floats:
    """Merge the columns of each judge; refuse a judge with two different verdicts on one candidate."""
    names = checks.groups(judges, "judges")
    if len(names) != table.shape[1]:
        raise InputError(f"judges has {len(names)} names, rankings has {table.shape[1]} columns; give one a column")
    column_of: dict[Any, int] = {}
    ballots = table.T.copy()
    for column, (name, ballot) in enumerate(zip(names.tolist(), table.T, strict=True)):
        kept = column_of.setdefault(name, column)
        clash = np.flatnonzero(np.abs(ballots[kept] - ballot) > 0)
        if len(clash):
            verdicts = [f"{value:g}" for value in (ballots[kept, clash[0]], ballot[clash[0]])]
            raise InputError(
                f"judge {name!r} contradicts itself: at row {clash[0]} it says {verdicts[0]} and, in column {column}, "
                f"{verdicts[1]}; keep one of them or leave both out as NaN"
            )
        ballots[kept] = np.where(np.isnan(ballots[kept]), ballot, ballots[kept])
    return ballots[sorted(column_of.values())].T


def _scores(table: Floats, heuristic: str | None, priors: Priors) -> tuple[Ints, Floats]:
    """(n,) the group of each candidate, groups numbered by their first member, and the score of its group."""
    from scipy.special import betaln

    # One byte a verdict: equal candidates are equal bytes, with "not run" a verdict of its own.
    verdicts = np.ascontiguousarray(np.where(np.isnan(table), 2, table).astype(np.uint8))
    _, first_member, pattern = np.unique(verdicts, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first_member), np.int64)
    rank[np.argsort(first_member)] = np.arange(len(first_member))
    groups = rank[pattern.reshape(-1)]
    patterns = verdicts[np.sort(first_member)]
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
    # Verdicts of the candidates outside a group on the tests it passes and on those it fails; its own members pass all
    # of the former and fail all of the latter.
    n_1, of_1 = passed @ passes - size * right, passed @ runs - size * right
    n_0, of_0 = failed @ passes, failed @ runs - size * wrong
    score: Floats = (
        _log_beta(betaln, size, np.full_like(size, n), priors.x)
        + _log_beta(betaln, right, right + wrong, priors.y)
        + _log_beta(betaln, n_1, of_1, priors.one)
        + _log_beta(betaln, n_0, of_0, priors.zero)
    )
    return groups, score[groups]


def _log_beta(betaln: Any, hits: Floats, trials: Floats, prior: tuple[float, float]) -> Floats:
    """Log-probability of `hits` among `trials`, the rate integrated out under the prior, up to a constant."""
    out: Floats = betaln(hits + prior[0], trials - hits + prior[1])
    return out
