"""Cluster rows from Gaussians of different covariances by an iterated semidefinite program that needs no means."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.assignment.means import _gaussian, _sdp
from kofn.assignment.means._relaxation import grouped, prepared, refuse_memory, relaxed
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress

_INITS = ("sdp", "kmeans", "random")
_RESTARTS = 10


@method(
    "assign",
    refuse_ahead=lambda ahead: refuse_memory(ahead.n, ahead.words["k"], ahead.max_memory),
    draws=Draw(log_value=True),
    cost="O(k n^3) a step, up to max_iter steps a round; O(k n^2) memory",
    exact="nothing; each round's relaxation is convex, the rounds are an alternation",
    paper=22,
)
def ila_sdp(
    X: Any,
    *,
    k: int,
    init: Any = "sdp",
    max_rounds: int = 10,
    max_iter: int = 300,
    tol: float = 1e-3,
    ridge: float = 1e-3,
    seed: int | None = None,
    max_memory: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
) -> Assignment:
    """Cluster rows from Gaussians of different covariances by an iterated semidefinite program that needs no means.

    Each round solves one semidefinite program for membership matrices Z_k, one per group, given the covariances; then
    each group's covariance becomes the weighted scatter of its pairs of rows, in which no mean occurs.

    Args:
        X: vectors (n, d); some hundred rows, or a sample.
        k: how many groups.
        init: the partition that gives the initial covariances: "sdp" (default; `sdp_kmeans`, draws nothing), "kmeans"
            (the best of 10 from k-means++), "random" (around k rows), or labels (n,) in 0..k-1.
        max_rounds: updates of the covariances.
        max_iter: most splitting steps per program.
        tol: relative residual at which the splitting ends.
        ridge: added to every covariance, in units of the mean variance of X's columns; without it the
            likelihood of a group of few rows is unbounded.
        seed: for "kmeans" and "random".
        max_memory: bytes for the k matrices n x n, default 1 GiB.
        time_limit: seconds.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        An `Assignment`: `labels` (every group holds a row), `centers` (k, d), `value` = the
        log-likelihood of the rows, each under its group's Gaussian (mean, covariance with the ridge), the highest of
        all rounds. `info`: rounds, steps, residual, sizes, and from_blocks, the distance of the last memberships from
        those of the partition (0 where the relaxation is exact).

    Raises:
        InputError: k > n, labels that are not 0..k-1, ridge not > 0, or matrices beyond max_memory.

    Cost: O(k n^3) time a step, O(k n^2) memory.

    Guarantee: none for the result. With the true covariances and centres far enough apart the program's solution is the
    true partition's, as the paper proves.

    References:
        Zhuang, Chen & Yang 2023, ICML, arXiv 2209.15097.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import ila_sdp
        >>> shapes = np.repeat([[3.0, 0.2], [0.2, 3.0]], 15, axis=0)
        >>> X = np.random.default_rng(0).normal(size=(30, 2)) * shapes + np.repeat([[0.0, 0.0], [7.0, 0.0]], 15, axis=0)
        >>> np.bincount(ila_sdp(X, k=2).labels).tolist()
        [15, 15]
    """
    points = prepared(X, k, k, max_memory)
    for name, count in (("max_rounds", max_rounds), ("max_iter", max_iter)):
        checks.count(count, name)
    tol, ridge = checks.number(tol, "tol"), checks.number(ridge, "ridge")
    if not ridge > 0:
        raise InputError(f"ridge={ridge!r}: it must be > 0, or a group of few rows has an infinite likelihood")
    floor = ridge * _gaussian.unit_of(points)
    n = len(points)
    info: dict[str, Any] = {
        "rounds": 0,
        "steps": 0,
        "residual": 0.0,
        "from_blocks": 0.0,
    }
    with Control(time_limit=time_limit, progress=progress, title="rounds", total=max_rounds) as control:
        labels = _begin(points, k, init, seed, max_iter, control)
        value = _gaussian.log_likelihood(points, labels, floor)
        same = False
        if 1 < k < n:
            covers = _covers(points, labels, k, floor)
            allowance = _sdp.Allowance(control, n, k)
            state, previous = _sdp.Memberships.of(labels, k), labels
            while info["rounds"] < max_rounds and not same and not allowance.used_up():
                steps, residual = _sdp.memberships(
                    _gains(points, covers), state, most=max_iter, tol=tol, stopped=allowance.used_up
                )
                likelihood, partition = _likeliest(points, state.positive, k, floor)
                if likelihood > value:
                    labels, value = partition, likelihood
                same = np.array_equal(partition, previous) and info["rounds"] > 0
                previous = partition
                covers = _scatters(points, state.positive, covers, floor)
                info["rounds"] += 1
                info["steps"] += steps
                info["residual"] = residual
                info["from_blocks"] = _sdp.from_blocks(state.positive, partition)
                control.step(info["rounds"])
    sole = k in (1, n)
    cut = not sole and not same and info["rounds"] < max_rounds
    info["sizes"] = np.bincount(labels, minlength=k)
    status = "optimal" if sole else "stopped" if cut else "heuristic"
    return grouped(X, labels, k, "group_log_likelihood", value, "max", status, value if sole else None, info)


def _begin(points: Floats, k: int, init: Any, seed: int | None, max_iter: int, control: Control) -> Ints:
    """The initial partition."""
    n = len(points)
    if not isinstance(init, str):
        labels = checks.as_array(init, "init")
        if labels.shape != (n,) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= k:
            raise InputError(f"init has shape {labels.shape}; give one label an item, whole numbers 0..{k - 1}")
        return _gaussian.filled(points, labels.astype(np.int64), k)
    kind = checks.choice(init, "init", _INITS)
    if kind == "sdp":
        return relaxed(points, k, max_iter, 1e-4, control, {})[0]
    rng = np.random.default_rng(seed)
    if kind == "random":
        centers = points[rng.choice(n, k, replace=False)]
        return _gaussian.filled(points, _gaussian.nearest(points, centers)[0], k)
    runs = [_gaussian.lloyd(points, _gaussian.spread_out(points, k, rng), k) for _ in range(_RESTARTS)]
    return min(runs, key=lambda labels: _gaussian.squares(points, labels))


def _likeliest(points: Floats, Z: Floats, k: int, floor: float) -> tuple[float, Ints]:
    """The likelier of two roundings of the memberships: group by group, or by their sum.

    Groups of equal covariance may share their memberships, in which case only the sum separates them.
    """
    smooth = Z.sum(axis=0) @ points
    rounded = [
        _gaussian.filled(points, Z.sum(axis=2).argmax(axis=0), k),
        _gaussian.filled(points, _gaussian.lloyd(smooth, _gaussian.spread_out(smooth, k, None), k), k),
    ]
    rated = [(_gaussian.log_likelihood(points, labels, floor), labels) for labels in rounded]
    return max(rated, key=lambda rating: rating[0])


def _covers(points: Floats, labels: Ints, k: int, floor: float) -> Floats:
    """(k, d, d) covariance of each group."""
    d = points.shape[1]
    out = np.empty((k, d, d))
    for group in range(k):
        rows = points[labels == group]
        gap = rows - rows.mean(axis=0)
        out[group] = gap.T @ gap / len(rows) + floor * np.eye(d)
    return out


def _scatters(points: Floats, Z: Floats, before: Floats, floor: float) -> Floats:
    """(k, d, d) maximum-likelihood covariances given the memberships: half the mean scatter of the pairs."""
    out = before.copy()
    for group, table in enumerate(Z):
        table = (table + table.T) / 2
        mass = table.sum(axis=0)
        if mass.sum() > 0.5:
            # With entries >= 0 this is a sum of positive semidefinite terms, so rounding cannot make it indefinite.
            scatter = (points.T * mass) @ points - points.T @ table @ points
            out[group] = (scatter + scatter.T) / (2 * mass.sum()) + floor * np.eye(points.shape[1])
    return out


def _gains(points: Floats, covers: Floats) -> Floats:
    """(k, n, n) contribution of each pair to the log-likelihood when it shares a group, times the group's size."""
    out = np.empty((len(covers), len(points), len(points)))
    for group, cover in enumerate(covers):
        factor = np.linalg.cholesky(cover)
        white = np.linalg.solve(factor, points.T).T
        norms = (white * white).sum(axis=1)
        logdet = 2 * float(np.log(np.diag(factor)).sum())
        out[group] = -0.5 * logdet - 0.25 * np.maximum(norms[:, None] + norms[None, :] - 2 * white @ white.T, 0.0)
    return out
