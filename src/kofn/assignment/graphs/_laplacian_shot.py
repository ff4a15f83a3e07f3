"""A few labels spread over all items: clustering around prototypes, smooth over the graph of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.objectives.similarity import geometry


@method(
    "assign",
    draws=Draw(plain={"y": ["a", "-1", "-1", "b", "-1", "-1"]}, options={"n_neighbors": (1, 2)}),
    cost="O(n k d) a round and O(n k n_neighbors) a step; the graph O(n^2 d), about O(n log n d) above 16,384 rows; "
    "memory O(n (k + n_neighbors))",
    exact="labels held; the relaxed objective falls at every step; a stationary point of it",
    paper=4,
)
def laplacian_shot(
    X: Any,
    *,
    y: Any,
    time_limit: float | None = None,
    progress: bool | None = None,
    unlabelled: Any = -1,
    lam: float = 1.0,
    n_neighbors: int = 5,
    temperature: float | None = None,
    update_prototypes: bool = True,
    max_iter: int = 100,
    tol: float = 1e-6,
    unreached: str = "prototypes",
) -> Assignment:
    """Spread a few labels over all items: near the class's prototype, and with the same label as the neighbours.

    Minimises over soft assignments s and prototypes m, the labelled rows held at their labels,

        sum_ic s_ic ||x_i - m_c||^2 / temperature + sum_ic s_ic log s_ic - lam / 2 sum_ij w_ij <s_i, s_j>

    by turns: each row's assignment becomes the softmax of minus its prototype costs plus lam times the sum of its
    neighbours' assignments, all rows at once, until that settles; then the prototypes are averaged anew. W joins each
    row with its nearest ones, (A + A') / 2 of their 0/1 graph.

    Args:
        X: vectors (n, d), labelled rows and others. The paper centres them and brings each to length one.
        y: (n,) labels; rows without one hold `unlabelled`. Every class needs a labelled row.
        time_limit: seconds.
        progress: show progress on a terminal.
        unlabelled: what stands in y where there is no label.
        lam: how much a neighbour counts; 0 is soft k-means from the labelled rows.
        n_neighbors: neighbours of a row, at most n - 1.
        temperature: what a squared distance is divided by; None takes the mean squared distance of the rows to the
            nearest mean of labelled rows. Lower ones make assignments harder; the paper has 1 for rows of length one.
        update_prototypes: False keeps the prototypes at the means of the labelled rows (LaplacianShot, 2020).
        max_iter: rounds of prototypes, and steps of assignments in each.
        tol: a round, or the steps in one, end once the objective falls by no more than this share of itself.
        unreached: what becomes of rows in a part of the graph that holds no labelled row, so that no label can spread
            to them: they go by the "prototypes" and each other (counted in `info["unreached"]`), or are an "error".

    Returns:
        An `Assignment`, bin c for the c-th class of `info["classes"]`: each row's soft assignment as `weights`,
        `labels` the largest, `centers` the prototypes, `value` the objective. `info["trace"]` is the objective after
        every step, `info["parts"]` how many connected parts the graph has. `status` is "local" once a round lowers it
        by no more than `tol`, else "stopped".

    Raises:
        InputError: no row with a label, none without, options that are not numbers in range, or, with
            `unreached="error"`, a part of the graph without a labelled row.

    Cost: the graph once; then O(n k d) for each round and O(n k n_neighbors) for each step.

    Guarantee: the objective never rises. The paper's step alone promises that only where W has no negative eigenvalue,
    which graphs of neighbours do have; where lam times a row's degree is above 2, its step is therefore damped by so
    much, geometrically, that the bound holds for any graph. Fixed points are those of the paper's step.

    References:
        Ziko et al. 2021, arXiv 2106.09516; Ziko, Dolz, Granger & Ben Ayed 2020, Laplacian Regularized Few-Shot
        Learning (ICML, arXiv 2006.15486).

    Examples:
        >>> from kofn.assignment import laplacian_shot
        >>> X = [[0.0], [1.0], [2.0], [3.0], [7.0], [8.0], [9.0]]
        >>> plan = laplacian_shot(X, y=[0, -1, -1, -1, -1, -1, 1], n_neighbors=2)
        >>> plan.labels.tolist(), plan.status
        ([0, 0, 0, 0, 1, 1, 1], 'local')
    """
    for name, number in (("lam", lam), ("tol", tol), ("temperature", 1.0 if temperature is None else temperature)):
        checks.number(number, name)
    if temperature == 0:
        raise InputError("temperature=0: give a positive number, or None")
    checks.count(n_neighbors, "n_neighbors")
    checks.count(max_iter, "max_iter")
    checks.flag(update_prototypes, "update_prototypes")
    checks.choice(unreached, "unreached", ("prototypes", "error"))
    n = len(X)
    missing = y == str(unlabelled) if y.dtype.kind in "US" else y == unlabelled
    labelled = ~np.broadcast_to(np.asarray(missing, bool), y.shape)
    if labelled.all():
        raise InputError(f"y: all {n} rows are labelled, none holds unlabelled={unlabelled!r}; nothing is left to do")
    if not labelled.any():
        raise InputError(f"y: no row is labelled, all hold unlabelled={unlabelled!r}; give every class a labelled row")
    classes, codes = np.unique(y[labelled], return_inverse=True)
    k = len(classes)
    space = geometry(X, "sqeuclidean")
    points = space.points(slice(None))
    scale = float(space.scale[0]) if len(space.scale) else 1.0
    held = np.zeros((n, k))
    held[np.flatnonzero(labelled), codes] = 1.0
    graph = _neighbour_graph(X, min(n_neighbors, n - 1))
    parts, alone = _unreached(graph, labelled)
    if unreached == "error" and len(alone):
        raise InputError(
            f"the graph of {n_neighbors} neighbours falls into {parts} parts, and {len(alone)} rows (row {alone[0]} is "
            "one) lie in parts without a labelled row; raise n_neighbors, or label a row there"
        )
    centers = held.T @ points / held.sum(axis=0)[:, None]
    costs = _squares(points, centers)
    usual = float(costs.min(axis=1).mean()) or 1.0
    warm = usual if temperature is None else float(temperature) / space.unit
    costs /= warm
    # What the neighbours' term may bend up against the entropy's bend down: at most lam times the degree.
    damp = np.maximum(0.0, (lam * graph.sum(axis=1) / 2 - 1) / 2)[:, None]
    logits = -costs
    soft = np.where(labelled[:, None], held, _softmax(logits))
    around = graph @ soft
    trace = [_relaxed(soft, costs, around, lam)]
    status, steps, rounds = "stopped", 0, 0
    with Control(time_limit=time_limit, progress=progress, title="rounds") as control:
        while rounds < max_iter and not control.stopped():
            rounds, before = rounds + 1, trace[-1]
            for _ in range(max_iter):
                steps += 1
                logits = (damp * logits - costs + lam * around) / (1 + damp)
                soft = np.where(labelled[:, None], held, _softmax(logits))
                around = graph @ soft
                trace.append(_relaxed(soft, costs, around, lam))
                if trace[-2] - trace[-1] <= tol * abs(trace[-1]) or control.stopped():
                    break
            if update_prototypes:
                centers = soft.T @ points / soft.sum(axis=0)[:, None]
                costs = _squares(points, centers) / warm
                trace.append(_relaxed(soft, costs, around, lam))
            control.step(rounds)
            if before - trace[-1] <= tol * abs(trace[-1]):
                status = "local"
                break
    rows, columns = np.nonzero(soft > 0)
    return Assignment.from_pairs(
        rows,
        columns,
        soft[rows, columns],
        n=n,
        k=k,
        centers=centers / scale,
        value=trace[-1],
        sense="min",
        status=status,
        objective="laplacian_clustering",
        info={
            "classes": classes.tolist(),
            "temperature": warm * space.unit,
            "trace": trace,
            "rounds": rounds,
            "steps": steps,
            "parts": parts,
            "unreached": len(alone),
            "distance_evals": (rounds + 1) * n * k,
        },
    )


def _neighbour_graph(X: Any, count: int) -> Any:
    """(n, n) CSR, 1 where two rows are among each other's nearest, 1/2 where only one is."""
    from scipy.sparse import csr_array

    if count < 1:
        return csr_array((len(X), len(X)))
    from kofn.neighbors import knn_graph

    near = knn_graph(X, count).indices
    n, width = near.shape
    half = csr_array((np.full(near.size, 0.5), near.ravel(), np.arange(0, near.size + 1, width)), shape=(n, n))
    return (half + half.T).tocsr()


def _unreached(graph: Any, labelled: NDArray[np.bool_]) -> tuple[int, NDArray[np.int64]]:
    """How many connected parts the graph has, and the rows of those that hold no labelled row."""
    from scipy.sparse.csgraph import connected_components

    parts, part = connected_components(graph, directed=False)
    holds = np.bincount(part, labelled, parts) > 0
    return int(parts), np.flatnonzero(~holds[part])


def _softmax(logits: Floats) -> Floats:
    out = np.exp(logits - logits.max(axis=1, keepdims=True))
    out /= out.sum(axis=1, keepdims=True)
    return out


def _relaxed(soft: Floats, costs: Floats, around: Floats, lam: float) -> float:
    """The objective; s log s is 0 where s is."""
    logs = np.log(np.where(soft > 0, soft, 1.0))
    return float((soft * (costs + logs - lam / 2 * around)).sum())


def _squares(points: Floats, centers: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    out: Floats = cdist(points, centers, "sqeuclidean")
    return out
