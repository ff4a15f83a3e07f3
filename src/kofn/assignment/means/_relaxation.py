"""Shared parts of the semidefinite relaxations of k-means: input checks, rounding and the plan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.assignment.means import _gaussian, _sdp
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.plans import Assignment
from kofn.core.runtime import Control
from kofn.objectives.similarity import refuse_extremes

_DEFAULT_MEMORY = 2**30
# Number of (n, n) float64 arrays that a splitting keeps at once: per group, and in addition.
_COPIES = 8


def prepared(X: Any, k: int, copies: int, max_memory: int | None) -> Floats:
    """Centred rows in float64, after checking k, the memory, and that squares of the rows are within float64."""
    n = len(X)
    if k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to group; ask for k <= {n}")
    refuse_memory(n, copies, max_memory)
    refuse_extremes(X)
    points = np.asarray(X, np.float64)
    return points - points.mean(axis=0)


def refuse_memory(n: int, copies: int, max_memory: int | None) -> None:
    """Refuse memberships of n rows beyond the memory for them.

    Args:
        n: rows.
        copies: for how many groups memberships are kept by themselves.
        max_memory: the bytes allowed; None for the default.

    Raises:
        InputError: they take more.
    """
    needed, room = _COPIES * copies * 8 * n * n, max_memory or _DEFAULT_MEMORY
    if needed > room:
        raise InputError(
            f"X has {n} rows, whose membership matrices take {needed:,} bytes, max_memory is {room:,}; "
            "give a sample of the rows, or raise max_memory"
        )


def relaxed(
    points: Floats, k: int, max_iter: int, tol: float, control: Control, info: dict[str, Any]
) -> tuple[Ints, float | None]:
    """The rounded partition and the relaxation's lower bound (None if only one partition exists)."""
    n = len(points)
    if k in (1, n):
        return np.arange(n) % k, None
    # In units of the largest entry, by a power of two, which rounds nothing: squares of products stay within float64.
    unit = math.ldexp(1.0, math.frexp(float(np.abs(points).max()))[1])
    points = points / unit
    best: list[Any] = [math.inf, None]

    def rounded(Z: Floats) -> float:
        # All rows of a group have the same row of Z, hence the same mean.
        labels = _gaussian.lloyd(points, _gaussian.spread_out(Z @ points, k, None), k)
        cost = _gaussian.squares(points, labels)
        if cost < best[0]:
            best[:] = [cost, labels]
        return float(best[0])

    rounded(np.eye(n))
    if best[0] == 0:
        return best[1], 0.0
    gram = points @ points.T
    allowance = _sdp.Allowance(control, n)
    bound = max(0.0, _sdp.certified(gram, best[1], k)) if allowance.bound() else 0.0
    if best[0] <= bound * (1 + 1e-9):
        return best[1], bound * unit**2
    solved = _sdp.kmeans(gram, k, most=max_iter, tol=tol, stopped=allowance.used_up, value=rounded)
    info |= {"steps": solved.steps, "residual": solved.residual, "rank": None, "done": solved.done}
    bound = max(bound, solved.bound)
    if allowance.bound():
        info["rank"] = int((np.linalg.eigvalsh(solved.Z) > 1e-3).sum())
    if allowance.bound():
        bound = max(bound, _sdp.certified(gram, best[1], k))
    return best[1], bound * unit**2


def grouped(
    X: Any,
    labels: Ints,
    k: int,
    objective: str,
    value: float,
    sense: str,
    status: str,
    bound: float | None,
    info: dict[str, Any],
) -> Assignment:
    """The plan, with groups numbered by their first row."""
    labels = _gaussian.renamed(labels)
    return Assignment.from_labels(
        labels,
        k,
        centers=_gaussian.means(np.asarray(X, np.float64), labels, k),
        value=value,
        sense=sense,
        status=status,
        bound=bound,
        objective=objective,
        info=info,
    )
