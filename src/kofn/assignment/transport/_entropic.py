"""The numerical core of `sinkhorn_newton_sparse`: entropic transport between positive totals that sum to one.

A plan is exp((scores - u - v) / reg). It is kept as a fixed kernel, normalised in the log domain, times exponentials of
what the potentials have moved since (`Scaled`), so that a sweep is two products with the kernel and no exponential of
the table. The rows are always satisfied exactly; what is solved for is `y`, the columns' move in units of `reg`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kofn.core.arrays import Floats

# Ratio of successive regularisations; at the first, the scores span this many multiples of it.
_FACTOR, _WIDEST = 4.0, 40.0
# Tolerance of intermediate regularisations, as a share of the mass.
_ROUGH = 1e-2
# Largest move of the potentials before the kernel is recomputed, and in one step.
_FURTHEST, _STRIDE = 50.0, 20.0
# Entries that sum to less than this share of the error are left out of the Hessian.
_NEGLIGIBLE = 0.1
_MOST_CONJUGATE, _MOST_HALVINGS = 500, 12
# A stopped run completes and values its plan in the time of about so many kernels, which is left for that.
_COMPLETION = 3.0


@dataclass
class Counts:
    """Counters of a solve: steps of each kind, kernels, the share of entries in each Hessian, and decreases of the dual
    (none, up to rounding)."""

    sweeps: int = 0
    newton: int = 0
    conjugate: int = 0
    kernels: int = 0
    kept: list[float] = field(default_factory=list)
    falls: int = 0


@dataclass
class Point:
    """The plan at one `y`: rows exact, column totals off by `off` in all."""

    y: Floats
    b: Floats
    sums: Floats
    a: Floats
    totals: Floats
    off: float
    height: float


class Scaled:
    """The kernel at fixed potentials, and the plan at moves away from them."""

    def __init__(self, scores: Floats, r: Floats, c: Floats, reg: float, v: Floats) -> None:
        self.scores, self.r, self.c, self.reg = scores, r, c, reg
        self.u, self.v, self.kernel = _kernel(scores, r, c, reg, v)

    def point_at(self, y: Floats) -> Point | None:
        """The plan at a move y of the columns; None where it overflows."""
        b = np.exp(y)
        sums = self.kernel @ b
        a = self.r / sums
        totals = b * (a @ self.kernel)
        # The convex dual with the rows eliminated; a Sinkhorn step and a Newton step both lower it.
        height = float(self.r @ np.log(sums) - self.c @ y)
        off = float(np.abs(totals - self.c).sum())
        return Point(y, b, sums, a, totals, off, height) if math.isfinite(off + height) else None

    def moved(self, point: Point) -> tuple[Floats, Floats]:
        """The potentials of a point."""
        return self.u - self.reg * np.log(point.a), self.v - self.reg * point.y

    def far(self, point: Point) -> bool:
        """Whether the kernel's small entries may have underflowed at this distance."""
        return bool(np.abs(point.y).max() > _FURTHEST or np.abs(np.log(point.a)).max() > _FURTHEST)

    def plan(self, point: Point) -> Floats:
        """(n, m) the plan itself."""
        out = self.kernel * point.b
        out *= point.a[:, None]
        return np.asarray(out)


def solve(
    scores: Floats,
    r: Floats,
    c: Floats,
    reg: float,
    *,
    tol: float,
    sweeps: int,
    density: float | None,
    newton: bool,
    most: int,
    left: Callable[[], float],
    first: float | None = None,
    start: Floats | None = None,
) -> tuple[Floats, Floats, Floats, float, Counts]:
    """u, v, the plan, how far its columns are off in total, and the counts; rows are exact up to rounding.

    `left` says how many seconds there are, `first` is the regularisation to descend from, and `start` the columns'
    potentials there.
    """
    completion = 0.0

    def stopped() -> bool:
        return left() <= completion

    # Overflow needs no warning: `point_at` returns None for a point that is not finite.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        counts = Counts()
        v = np.zeros(len(c)) if start is None else start
        levels = _levels(scores, reg, first)
        for level in levels:
            last = level == reg
            if not last and stopped():
                break
            began = time.monotonic()
            state = Scaled(scores, r, c, level, v)
            completion = _COMPLETION * (time.monotonic() - began)
            counts.kernels += 1
            state, point = _sinkhorn_newton(
                state,
                tol if last else max(tol, _ROUGH),
                counts,
                sweeps=sweeps,
                density=density,
                # Sinkhorn alone runs `sweeps` sweeps at the intermediate levels and up to `most` at the last.
                newton=newton,
                most=most if last or newton else sweeps,
                stopped=stopped,
            )
            if last and newton and point.off <= tol:
                # Near the end errors are squared: one step more makes bound and value meet.
                closer = _newton(state, point, counts, density, stopped, 1e-4)
                point = point if closer is None or closer.off > point.off else closer
            u, v = state.moved(point)
            if stopped():
                break
        if not last:
            # Stopped before the last level: make the rows exact at the requested regularisation.
            state = Scaled(scores, r, c, reg, v)
            point = _point(state, np.zeros(len(c)))
            u, v = state.moved(point)
        return u, v, state.plan(point), point.off, counts


def _levels(scores: Floats, reg: float, first: float | None) -> list[float]:
    """Decreasing regularisations, each a warm start for the next."""
    if first is None:
        first = range_of(scores) / _WIDEST
    if first <= reg:
        return [reg]
    steps = math.ceil(math.log(first / reg) / math.log(_FACTOR))
    return [reg * (first / reg) ** (i / steps) for i in range(steps, 0, -1)] + [reg]


def range_of(scores: Floats) -> float:
    """Largest listed score less the smallest; 0 where nothing is listed."""
    high, low = float(scores.max()), float(scores.min())
    if low == -math.inf < high:
        low = float(scores.min(where=scores > -np.inf, initial=high))
    return high - low if high > -math.inf else 0.0


def _kernel(scores: Floats, r: Floats, c: Floats, reg: float, v: Floats) -> tuple[Floats, Floats, Floats]:
    """Potentials near v and the kernel there, rows exact and no column lost: Sinkhorn steps in the log domain."""
    for _ in range(_MOST_HALVINGS):
        table = (scores - v) / reg
        top = table.max(axis=1)
        table -= top[:, None]
        np.exp(table, out=table)
        sums = table.sum(axis=1)
        u = reg * (top + np.log(sums / r))
        table *= (r / sums)[:, None]
        if table.sum(axis=0).min() > 1e-200:
            break
        high = (scores - u[:, None]) / reg
        peak = high.max(axis=0)
        v = reg * (peak + np.log(np.exp(high - peak).sum(axis=0) / c))
    return u, v, np.ascontiguousarray(table)


def _point(state: Scaled, y: Floats) -> Point:
    point = state.point_at(y)
    if point is None:
        # Some column has underflowed, so no step can start from here.
        raise FloatingPointError("the kernel lost a column")
    return point


def _sinkhorn_newton(
    state: Scaled,
    goal: float,
    counts: Counts,
    *,
    sweeps: int,
    density: float | None,
    newton: bool,
    most: int,
    stopped: Callable[[], bool],
) -> tuple[Scaled, Point]:
    """Sinkhorn sweeps, then Newton steps, until the columns are off by no more than `goal`."""
    point = _point(state, np.zeros(len(state.c)))
    done = 0
    while point.off > goal and done < most and not stopped():
        for _ in range(sweeps if newton else most):
            following = state.point_at(point.y + np.log(state.c / point.totals))
            if following is None:
                break
            counts.sweeps += 1
            counts.falls += _fell(point, following)
            point = following
            if point.off <= goal or stopped():
                break
            if state.far(point):
                state, point = _again(state, point, counts)
        if not newton:
            break
        while point.off > goal and done < most and not stopped():
            if state.far(point):
                state, point = _again(state, point, counts)
            moved = _newton(state, point, counts, density, stopped)
            done += 1
            if moved is None:  # sweeps take over, and bring the Hessian back in reach
                break
            counts.falls += _fell(point, moved)
            point = moved
    return state, point


def _fell(before: Point, after: Point) -> bool:
    """Whether the dual, which is the height's negative, fell by more than the rounding of its sums."""
    return after.height > before.height + 1e-12 * (1 + abs(before.height) + float(np.abs(after.y).max()))


def _again(state: Scaled, point: Point, counts: Counts) -> tuple[Scaled, Point]:
    """Recompute the kernel at the current potentials."""
    counts.kernels += 1
    fresh = Scaled(state.scores, state.r, state.c, state.reg, state.moved(point)[1])
    return fresh, _point(fresh, np.zeros(len(state.c)))


def _newton(
    state: Scaled,
    point: Point,
    counts: Counts,
    density: float | None,
    stopped: Callable[[], bool],
    share: float | None = None,
) -> Point | None:
    """One step along the direction of the sparse Hessian; None where no part of it lowers the dual."""
    plan = state.plan(point)
    kept = _sparse(plan, _NEGLIGIBLE * point.off / plan.size, density)
    counts.kept.append(kept.nnz / plan.size)
    gradient = state.c - point.totals
    # Solve the step only as well as the quadratic model deserves: the tolerance falls with the error.
    share = min(0.1, max(point.off, 1e-3)) if share is None else share
    step, took = _conjugate(kept, state.r, point.totals, gradient, share, stopped)
    counts.conjugate += took
    counts.newton += 1
    step -= step.mean()
    furthest, slope = float(np.abs(step).max()), float(gradient @ step)
    # On a matrix that is singular up to rounding, conjugate gradients may fail; Sinkhorn sweeps then take over.
    if not math.isfinite(furthest) or not slope > 0:
        return None
    length = min(1.0, _STRIDE / furthest)
    for _ in range(_MOST_HALVINGS):
        trial = state.point_at(point.y + length * step)
        # Near the end the dual's own rounding hides a descent that the error still shows.
        if trial is not None and (
            trial.height <= point.height - 1e-4 * length * slope
            or (trial.off <= 0.5 * point.off and not _fell(point, trial))
        ):
            return trial
        length /= 2
    return None


def _sparse(plan: Floats, least: float, density: float | None) -> Any:
    """The entries above `least` as a sparse matrix, at most a share `density` of them."""
    from scipy.sparse import csr_array

    if density is not None:
        room = max(1, int(density * plan.size))
        if room < plan.size:
            least = max(least, float(np.partition(plan, -room, axis=None)[-room]))
    entries = np.flatnonzero(plan >= max(least, np.finfo(np.float64).tiny))
    indptr = np.searchsorted(entries, np.arange(len(plan) + 1) * plan.shape[1])
    return csr_array((plan.ravel()[entries], entries % plan.shape[1], indptr), shape=plan.shape)


def _conjugate(
    kept: Any, r: Floats, totals: Floats, gradient: Floats, share: float, stopped: Callable[[], bool]
) -> tuple[Floats, int]:
    """Solve (diag(totals) - P' diag(1/r) P) x = gradient to a share of it, and the steps that took.

    This is the Hessian with the rows eliminated. The diagonals are those of the whole plan and only P is sparse, so
    that the matrix stays positive semidefinite whatever was left out.
    """
    back = kept.T.tocsr()
    squares = kept.copy()
    squares.data = kept.data**2
    scale = np.maximum(totals - squares.T @ (1 / r), 1e-15 * totals)
    x, residual = np.zeros_like(gradient), gradient.copy()
    z = residual / scale
    direction, inner = z.copy(), float(residual @ z)
    goal, steps = share * float(np.abs(gradient).sum()), 0
    while steps < _MOST_CONJUGATE:
        steps += 1
        image = totals * direction - back @ ((kept @ direction) / r)
        curve = float(direction @ image)
        if not curve > 0:
            break
        x += inner / curve * direction
        residual -= inner / curve * image
        if np.abs(residual).sum() <= goal or stopped():
            break
        z = residual / scale
        inner, before = float(residual @ z), inner
        direction = z + inner / before * direction
    return x, steps
