"""Semidefinite programs for clustering, solved by operator splitting, with a proven bound."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.runtime import Control

# Steps between evaluations of the bound, each of which costs an eigendecomposition.
_LOOK = 20
# Rounding error allowed for in the bound: this many eps of the matrix's norm per row.
_ROUNDING = 16
# Rows of the matrix whose eigenvalues tell how long others take, and how many times as long a step takes.
_PROBE, _STEP = 384, 4
# Over-relaxation factor; it saves a third of the steps.
_RELAX = 1.6


class Allowance:
    """What the time limit has room for: a step is an eigendecomposition, which cannot be stopped midway.

    Args:
        control: the limit.
        n: rows of the matrices.
        matrices: matrices of a step.
    """

    def __init__(self, control: Control, n: int, matrices: int = 1) -> None:
        self._control = control
        self._seconds = 0.0
        if n > _PROBE and control.left() < math.inf:
            probe = np.random.default_rng(0).normal(size=(_PROBE, _PROBE))
            began = time.perf_counter()
            np.linalg.eigvalsh(probe + probe.T)
            self._seconds = (time.perf_counter() - began) * matrices * (n / _PROBE) ** 3

    def bound(self) -> bool:
        """Whether a bound, eigenvalues alone, can be had in time."""
        return self._control.left() >= self._seconds

    def used_up(self) -> bool:
        """Whether another step would end beyond the limit."""
        return self._control.stopped() or self._control.left() < _STEP * self._seconds


@dataclass(frozen=True)
class Solution:
    """The membership matrix, a lower bound on the cost of any partition, and how the search ended."""

    Z: Floats
    bound: float
    steps: int
    residual: float
    done: bool


def kmeans(
    gram: Floats, k: int, *, most: int, tol: float, stopped: Callable[[], bool], value: Callable[[Floats], float]
) -> Solution:
    """Least within-group squares over Z >= 0, positive semidefinite, Z 1 = 1, trace k (Peng & Wei 2007).

    Alternating directions between the two halves of the constraints: the spectral ones, which one eigendecomposition
    projects on, and Z >= 0. Any multipliers N >= 0 of the latter give a bound: every partition's Z is 11'/n plus k - 1
    directions at right angles to it with eigenvalues in [0, 1], so that <C, Z> >= <C - N, Z> is at least
    1'(C - N)1 / n plus the k - 1 smallest eigenvalues of C - N there.

    Args:
        gram: (n, n) inner products of the centred rows.
        k: groups, 2 <= k < n.
        most: largest number of steps.
        tol: ends once the two copies of Z differ by less than this, relatively, or the bound meets `value`.
        stopped: called before each step; True ends the search.
        value: cost of the partition that a Z rounds to; evaluated together with the bound.
    """
    n, scatter = len(gram), float(np.trace(gram))
    turn = _householder(n)
    size = float(np.linalg.norm(gram))
    rho = size / np.sqrt(k)
    Y = np.full((n, n), 1.0 / n)
    U = np.zeros((n, n))
    bound, best, residual, done, step = 0.0, np.inf, np.inf, False, 0
    while step < most and not done and not stopped():
        Z = _spectral(Y - U + gram / rho, k, turn)
        before, Y = Y, np.maximum(Z + U, 0.0)
        U += Z - Y
        step += 1
        primal, dual = float(np.linalg.norm(Z - Y)), rho * float(np.linalg.norm(Y - before))
        residual = max(primal / np.sqrt(k), dual / size)
        if step % _LOOK == 0 or step == most:
            bound = max(bound, _bound(gram, -rho * U, k, turn, scatter))
            best = min(best, value(Y))
            done = best <= bound * (1 + 1e-10) or residual < tol
            if step <= most // 2:
                # The penalty balances the two residuals; late changes would restart the convergence.
                factor = float(np.clip(np.sqrt(max(primal * size, 1e-300) / max(dual * np.sqrt(k), 1e-300)), 0.5, 2))
                rho *= factor
                U /= factor
    return Solution(Y, bound, step, residual, done)


def _householder(n: int) -> Floats:
    """The vector v of the reflection I - vv' that maps the constant unit vector onto the first axis."""
    v = np.full(n, 1 / np.sqrt(n))
    v[0] += 1
    return np.asarray(v * np.sqrt(2 / (v @ v)))


def _across(matrix: Floats, turn: Floats) -> Floats:
    """(n - 1, n - 1) the matrix restricted to the complement of the constant vector."""
    left = matrix - np.outer(turn, turn @ matrix)
    out = left - np.outer(left @ turn, turn)
    return np.asarray(out[1:, 1:] + out[1:, 1:].T) / 2


def _spectral(matrix: Floats, k: int, turn: Floats) -> Floats:
    """The nearest Z with Z 1 = 1, trace k and eigenvalues in [0, 1]."""
    n = len(matrix)
    values, vectors = np.linalg.eigh(_across(matrix, turn))
    values = capped_simplex(values, k - 1)
    positive = values > 0
    root = np.zeros((n, int(positive.sum())))
    root[1:] = vectors[:, positive] * np.sqrt(values[positive])
    root -= np.outer(turn, turn @ root)
    return np.asarray(root @ root.T + 1.0 / n)


def capped_simplex(values: Floats, total: float) -> Floats:
    """Project onto the entries in [0, 1] that sum to `total` (at most their number)."""
    ranked = np.sort(values)
    sums = np.concatenate([[0.0], np.cumsum(ranked)])

    def above(points: Floats) -> Floats:
        """For each point, the sum of max(entry - point, 0) over the entries."""
        below = np.searchsorted(ranked, points)
        return np.asarray(sums[-1] - sums[below] - (len(ranked) - below) * points)

    points = np.sort(np.concatenate([ranked, ranked - 1]))
    clipped = above(points) - above(points + 1)
    # `held` falls from the number of entries to 0, in straight pieces between the points.
    piece = int(np.clip(np.searchsorted(-clipped, -total), 1, len(points) - 1))
    drop = clipped[piece - 1] - clipped[piece]
    share = (clipped[piece - 1] - total) / drop if drop > 0 else 0.0
    shift = points[piece - 1] + share * (points[piece] - points[piece - 1])
    return np.clip(values - shift, 0.0, 1.0)


def certified(gram: Floats, labels: NDArray[np.int64], k: int) -> float:
    """The bound from the dual certificate that would prove this partition optimal.

    They are of rank one between two groups, with the row and column sums that make the groups null vectors of the dual
    slack, as large as N >= 0 allows (after Iguchi, Mixon, Peterson & Villar 2017). Any N >= 0 gives a bound; where the
    groups stand apart this one meets the partition's value.
    """
    n = len(gram)
    norms = np.diag(gram)
    costs = (norms[:, None] + norms[None, :]) / 2 - gram
    member = (labels[:, None] == np.arange(k)).astype(np.float64)
    sizes = member.sum(axis=0)
    to_group = costs @ member
    own = to_group[np.arange(n), labels]
    inside = member.T @ own
    alpha = (inside[labels] / sizes[labels] - 2 * own) / sizes[labels]
    sums = to_group + (alpha[:, None] * sizes + (alpha @ member)) / 2
    falls = (sizes[None, :] / sizes[labels][:, None] + 1) / 2
    other = member == 0
    beta = float((sums[other] / falls[other]).min())
    sums = np.where(other, np.maximum(sums - beta * falls, 0.0), 0.0)
    totals = member.T @ sums
    N = np.zeros((n, n))
    groups = [np.flatnonzero(labels == group) for group in range(k)]
    for a in range(k):
        for b in range(k):
            if a != b and totals[a, b] > 0:
                N[np.ix_(groups[a], groups[b])] = np.outer(sums[groups[a], b], sums[groups[b], a]) / totals[a, b]
    return _bound(gram, N, k, _householder(n), float(norms.sum()))


def _bound(gram: Floats, multipliers: Floats, k: int, turn: Floats, scatter: float) -> float:
    """The lower bound that these multipliers prove, minus an allowance for rounding."""
    n = len(gram)
    N = np.maximum((multipliers + multipliers.T) / 2, 0.0)
    matrix = -gram - N
    least = np.linalg.eigvalsh(_across(matrix, turn))[: k - 1]
    rounding = _ROUNDING * n * float(np.finfo(np.float64).eps) * (float(np.linalg.norm(matrix)) + scatter)
    return scatter + float(matrix.sum()) / n + float(least.sum()) - rounding


@dataclass
class Memberships:
    """State of the splitting for group-specific memberships, kept for warm starts when the covariances change."""

    spectral: Floats
    positive: Floats
    dual_spectral: Floats
    dual_positive: Floats

    @classmethod
    def of(cls, labels: NDArray[np.int64], k: int) -> Memberships:
        """The state of a partition."""
        Z = np.zeros((k, len(labels), len(labels)))
        for group in range(k):
            members = np.flatnonzero(labels == group)
            Z[group][np.ix_(members, members)] = 1 / max(len(members), 1)
        return cls(Z, Z.copy(), np.zeros_like(Z), np.zeros_like(Z))


def memberships(
    gains: Floats, state: Memberships, *, most: int, tol: float, stopped: Callable[[], bool]
) -> tuple[int, float]:
    """Maximise the sum of <gains_k, Z_k> over Z_k >= 0, positive semidefinite, trace 1 each, sum of Z_k 1 = 1.

    `state.positive` holds the answer. Returns the steps taken and the last residual.
    """
    k = len(gains)
    # Row and column means shared by all groups do not affect the optimum; removing them improves the conditioning.
    mean = gains.mean(axis=0)
    rows = mean.mean(axis=1)
    gains = gains - (rows[:, None] + rows[None, :] - rows.mean())
    size = float(np.linalg.norm(gains))
    if size == 0:
        return 0, 0.0
    rho = size / np.sqrt(k)
    push = gains / (2 * rho)
    residual, step = np.inf, 0
    while step < most and residual > tol and not stopped():
        W = _affine((state.spectral - state.dual_spectral + state.positive - state.dual_positive) / 2 + push)
        before = state.positive
        past = _RELAX * W + (1 - _RELAX) * state.spectral + state.dual_spectral
        state.spectral = _psd(past)
        state.dual_spectral = past - state.spectral
        past = _RELAX * W + (1 - _RELAX) * before + state.dual_positive
        state.positive = np.maximum(past, 0.0)
        state.dual_positive = past - state.positive
        apart = np.linalg.norm(W - state.positive) + np.linalg.norm(W - state.spectral)
        residual = float(max(apart, np.linalg.norm(state.positive - before))) / np.sqrt(k)
        step += 1
    return step, residual


def from_blocks(Z: Floats, labels: NDArray[np.int64]) -> float:
    """Distance of the summed memberships from the partition's; 0 where the relaxation is exact."""
    k = len(Z)
    return float(np.linalg.norm(Z.sum(axis=0) - Memberships.of(labels, k).positive.sum(axis=0))) / float(np.sqrt(k))


def _affine(V: Floats) -> Floats:
    """Project onto the symmetric matrices of trace 1 whose sum has unit row sums."""
    k, n, _ = V.shape
    if n == 1:
        return np.full_like(V, 1.0 / k)
    traces = np.trace(V, axis1=1, axis2=2)
    missing = 1 - V.sum(axis=(0, 2))
    total = (missing.sum() - k + traces.sum()) / (k * (n - 1))
    lifts = (1 - traces - total) / n
    rows = 2 * (missing - lifts.sum()) / (k * n) - total / n
    out = V + (rows[:, None] + rows[None, :]) / 2
    diagonal = np.arange(n)
    out[:, diagonal, diagonal] += lifts[:, None]
    return np.asarray(out)


def _psd(V: Floats) -> Floats:
    values, vectors = np.linalg.eigh(V)
    out = np.empty_like(V)
    for group in range(len(V)):
        positive = values[group] > 0
        root = vectors[group][:, positive] * np.sqrt(values[group][positive])
        out[group] = root @ root.T
    return out
