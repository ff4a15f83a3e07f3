"""k-means by its semidefinite relaxation, with a proven lower bound and no initialisation."""

from __future__ import annotations

from typing import Any

from kofn.assignment.means import _gaussian
from kofn.assignment.means._relaxation import grouped, prepared, refuse_memory, relaxed
from kofn.core import checks
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress


@method(
    "assign",
    traits=("sandwich",),
    refuse_ahead=lambda ahead: refuse_memory(ahead.n, 1, ahead.max_memory),
    cost="O(n^3) a step, up to max_iter steps; O(n^2) memory",
    exact="the bound is proven; where it meets the value the partition is the best of all",
    paper="peng2007",
)
def sdp_kmeans(
    X: Any,
    *,
    k: int,
    max_iter: int = 500,
    tol: float = 1e-6,
    max_memory: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
) -> Assignment:
    """k-means by its semidefinite relaxation, with a proven lower bound and no initialisation.

    Args:
        X: vectors (n, d); some hundred rows, or a sample.
        k: how many groups.
        max_iter: most splitting steps, each an n x n eigendecomposition.
        tol: relative residual at which the splitting ends.
        max_memory: bytes for the n x n matrices, default 1 GiB.
        time_limit: seconds.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        An `Assignment`: `labels` (every group holds a row), `centers` (k, d), `value` = summed squared distances to the
        group's mean, `bound` = a lower bound on the value of every partition into k groups. `status` is "optimal" where
        they meet, "stopped" at the time limit, else "heuristic". `info`: steps, residual, rank (of the memberships).

    Raises:
        InputError: k > n, max_iter < 1, tol that is no number >= 0, or matrices beyond max_memory.

    Cost: O(n^3) time a step, O(n^2) memory.

    Guarantee: `bound` is valid whenever the search ends: it needs only multipliers of Z >= 0, and allows for rounding.
    Sufficiently separated Gaussians are recovered exactly (Chen & Yang 2021), and the bound proves it.

    References:
        Peng & Wei 2007, SIAM Journal on Optimization 18. Chen & Yang 2021, arXiv 2001.06574.

    Examples:
        >>> from kofn.assignment import sdp_kmeans
        >>> plan = sdp_kmeans([[0.0], [1.0], [2.0], [9.0], [10.0], [11.0]], k=2)
        >>> plan.labels.tolist(), plan.value, plan.status
        ([0, 0, 0, 1, 1, 1], 4.0, 'optimal')
    """
    points = prepared(X, k, 1, max_memory)
    checks.count(max_iter, "max_iter")
    tol = checks.number(tol, "tol")
    info: dict[str, Any] = {"steps": 0, "residual": 0.0, "rank": k}
    with Control(time_limit=time_limit, progress=progress, title="steps", total=max_iter) as control:
        labels, bound = relaxed(points, k, max_iter, tol, control, info)
    cut = not info.pop("done", True) and info["steps"] < max_iter
    value = _gaussian.squares(points, labels)
    if bound is None or value <= bound * (1 + 1e-9):
        return grouped(X, labels, k, "within_group_squares", value, "min", "optimal", value, info)
    status = "stopped" if cut else "heuristic"
    return grouped(X, labels, k, "within_group_squares", value, "min", status, bound, info)
