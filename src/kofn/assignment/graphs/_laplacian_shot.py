"""LaplacianShot: propagate a few labels to all items by prototype clustering with a graph-Laplacian penalty."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Mask
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control, Stopped
from kofn.core.words import Limits
from kofn.objectives.similarity import geometry

# The graph of so many rows takes milliseconds, and is made however little time there is.
_FEW_ROWS = 2_000


@method(
    "assign",
    draws=Draw(plain={"y": ["a", "-1", "-1", "b", "-1", "-1"]}, options={"n_neighbors": (1, 2)}),
    cost="O(n k d) a round and O(n k n_neighbors) a step; the graph O(n^2 d), about O(n log n d) above 16,384 rows; "
    "memory O(n (k + n_neighbors))",
    exact="labels kept; the relaxed objective falls at every step; a stationary point of it",
    paper=4,
)
def laplacian_shot(
    X: Any,
    *,
    y: Any,
    unlabelled: Hashable = -1,
    lam: float = 1.0,
    n_neighbors: int = 5,
    temperature: float | None = None,
    update_prototypes: bool = True,
    max_iter: int = 100,
    tol: float = 1e-6,
    unreached: Literal["prototypes", "error"] = "prototypes",
    **limits: Unpack[Limits],
) -> Assignment:
    """Propagate a few labels to all items by prototype distance and agreement with graph neighbours (LaplacianShot).

    Minimises over soft assignments s and prototypes m, with labelled rows fixed at their labels,

        sum_ic s_ic ||x_i - m_c||^2 / temperature + sum_ic s_ic log s_ic - lam / 2 sum_ij w_ij <s_i, s_j>

    by alternating updates: each row's assignment becomes the softmax of minus its prototype costs plus lam times the
    sum of its neighbours' assignments, all rows at once, until convergence; then the prototypes are recomputed as
    means. W joins each row with its nearest neighbours: (A + A') / 2 for their 0/1 adjacency A.

    Args:
        X: vectors (n, d), labelled rows and others. The paper centres them and brings each to length one.
        y: (n,) labels, `unlabelled` where a row has none. Every class needs a labelled row.
        unlabelled: the value in y of rows without a label.
        lam: weight of the neighbours; 0 is soft k-means from the labelled rows.
        n_neighbors: neighbours of a row, at most n - 1.
        temperature: divisor of the squared distances; None takes the mean squared distance of the rows to the
            nearest mean of labelled rows, or to all of them where each is at one. Lower values make assignments
            harder; the paper uses 1 for unit-length rows.
        update_prototypes: False keeps the prototypes at the means of the labelled rows (LaplacianShot, 2020).
        max_iter: the most rounds of prototypes, and the most steps of assignments in a round.
        tol: relative decrease of the objective at which a round, or the steps within one, are considered converged.
        unreached: how to treat rows in a connected component without a labelled row, which no label can reach:
            "prototypes" assigns them by the prototypes and their neighbours (`info["unreached"]` counts them), "error"
            refuses them.

    Returns:
        An `Assignment`, bin c for the c-th class of `info["classes"]`: each row's soft assignment as `weights`,
        `labels` the largest, `centers` the prototypes, `value` the objective. `info["trace"]` is the objective after
        every step, `info["parts"]` how many connected parts the graph has. `status` is "local" once a round lowers it
        by no more than `tol`, else "stopped".

    Raises:
        InputError: no row with a label, no row without, options out of range, or, with
            `unreached="error"`, a part of the graph without a labelled row.

    Cost: the graph once; then O(n k d) for each round and O(n k n_neighbors) for each step.

    Guarantee: the objective never increases. The paper's step alone guarantees this only where W is positive
    semidefinite, which neighbour graphs generally are not; where lam times a row's degree is above 2, its step is
    therefore damped geometrically, just enough for the bound to hold on any graph. The fixed points are those of the
    paper's step.

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
    n_neighbors, max_iter = checks.count(n_neighbors, "n_neighbors"), checks.count(max_iter, "max_iter")
    n = len(X)
    labelled = _labelled(y, unlabelled)
    classes, codes = np.unique(y[labelled], return_inverse=True)
    fixed = np.zeros((n, len(classes)))
    fixed[np.flatnonzero(labelled), codes] = 1.0
    space = geometry(X, "sqeuclidean")
    with Control(**limits, title="rounds") as control:
        graph = _neighbour_graph(X, min(n_neighbors, n - 1), control)
        valued = graph is not None
        if graph is None:
            graph = _no_edges(n)
        parts, isolated = _unreached(graph, labelled)
        if unreached == "error" and len(isolated) and not control.stopped():
            raise InputError(
                f"the graph of {n_neighbors} neighbours falls into {parts} parts, and {len(isolated)} rows (row "
                f"{isolated[0]} is one) lie in parts without a labelled row; raise n_neighbors, or label a row there"
            )
        warmth = None if temperature is None else float(temperature) / space.unit
        state = _State(space.points(slice(None)), fixed, graph, lam, warmth)
        rounds, converged = _run(state, control, max_iter, tol, update_prototypes)
    rows, columns = np.nonzero(state.soft > 0)
    return Assignment.from_pairs(
        rows,
        columns,
        state.soft[rows, columns],
        n=n,
        k=len(classes),
        centers=state.prototypes / (float(space.scale[0]) if len(space.scale) else 1.0),
        value=state.trace[-1] if valued else math.nan,
        sense="min",
        status="local" if converged else "stopped",
        objective="laplacian_clustering",
        info={
            "classes": classes.tolist(),
            "temperature": state.temperature * space.unit,
            "trace": state.trace,
            "rounds": rounds,
            "steps": state.steps,
            "parts": parts,
            "unreached": len(isolated),
            "distance_evals": (rounds + 1) * n * len(classes),
        },
    )


def _labelled(y: NDArray[Any], unlabelled: Hashable) -> Mask:
    """(n,) mask of labelled rows; refuse data that is entirely labelled or entirely unlabelled."""
    missing = y == str(unlabelled) if y.dtype.kind in "US" else y == unlabelled
    labelled = ~np.broadcast_to(np.asarray(missing, bool), y.shape)
    if labelled.all():
        raise InputError(
            f"y: all {len(y)} rows are labelled, none holds unlabelled={checks.shown(unlabelled)}; nothing "
            "is left to do"
        )
    if not labelled.any():
        raise InputError(
            f"y: no row is labelled, all hold unlabelled={checks.shown(unlabelled)}; give every class a labelled row"
        )
    return labelled


class _State:
    """Soft assignments and prototypes; `trace` records the objective after every update."""

    def __init__(self, points: Floats, fixed: Floats, graph: Any, lam: float, temperature: float | None) -> None:
        self.points, self.fixed, self.graph, self.lam = points, fixed, graph, lam
        self.labelled = fixed.sum(axis=1, keepdims=True) > 0
        self.prototypes = fixed.T @ points / fixed.sum(axis=0)[:, None]
        squares = _squares(points, self.prototypes)
        if temperature is None:
            # Where all rows are at their prototypes a number would have a unit that the rows have not.
            temperature = float(squares.min(axis=1).mean()) or float(squares.mean()) or 1.0
        self.temperature = temperature
        self.costs = squares / self.temperature
        # The neighbours' term is at most lam times the degree more convex than the entropy term is concave.
        self.damp = np.maximum(0.0, (lam * graph.sum(axis=1) / 2 - 1) / 2)[:, None]
        self.steps = 0
        self.trace: list[float] = []
        self._assign(-self.costs)

    def step(self) -> None:
        """Update all assignments once, with the prototypes fixed."""
        self.steps += 1
        self._assign((self.damp * self.logits - self.costs + self.lam * self.neighbours) / (1 + self.damp))

    def update_prototypes(self) -> None:
        """Recompute the prototypes as the means of the rows, weighted by their assignments."""
        self.prototypes = self.soft.T @ self.points / self.soft.sum(axis=0)[:, None]
        self.costs = _squares(self.points, self.prototypes) / self.temperature
        self._record()

    def _assign(self, logits: Floats) -> None:
        self.logits = logits
        self.soft = np.where(self.labelled, self.fixed, _softmax(logits))
        self.neighbours = self.graph @ self.soft
        self._record()

    def _record(self) -> None:
        self.trace.append(_relaxed(self.soft, self.costs, self.neighbours, self.lam))


def _run(state: _State, control: Control, max_iter: int, tol: float, update_prototypes: bool) -> tuple[int, bool]:
    """Alternate assignment and prototype updates; return the number of rounds and whether the last one converged."""
    trace = state.trace
    for rounds in range(1, max_iter + 1):
        if control.stopped():
            return rounds - 1, False
        before = trace[-1]
        for _ in range(max_iter):
            state.step()
            if trace[-2] - trace[-1] <= tol * abs(trace[-1]) or control.stopped():
                break
        if update_prototypes:
            state.update_prototypes()
        control.step(rounds)
        if before - trace[-1] <= tol * abs(trace[-1]):
            return rounds, True
    return max_iter, False


def _no_edges(n: int) -> Any:
    from scipy.sparse import csr_array

    return csr_array((n, n))


def _neighbour_graph(X: Any, count: int, control: Control) -> Any:
    """(n, n) CSR, weight 1 where two rows are mutual nearest neighbours, 1/2 where only one lists the other.

    None where the time ends first; graphs of few rows are made in any case.
    """
    from scipy.sparse import csr_array

    if count < 1:
        return _no_edges(len(X))
    from kofn.neighbors.graphs._knn_graph import knn_graph

    try:
        near = knn_graph(X, count, control=control if len(X) > _FEW_ROWS else None).indices
    except Stopped:
        return None
    n, width = near.shape
    half = csr_array((np.full(near.size, 0.5), near.ravel(), np.arange(0, near.size + 1, width)), shape=(n, n))
    return (half + half.T).tocsr()


def _unreached(graph: Any, labelled: Mask) -> tuple[int, NDArray[np.int64]]:
    """The number of connected components, and the rows of the components without a labelled row."""
    from scipy.sparse.csgraph import connected_components

    parts, part = connected_components(graph, directed=False)
    reached = np.bincount(part, labelled, parts) > 0
    return int(parts), np.flatnonzero(~reached[part])


def _softmax(logits: Floats) -> Floats:
    out = np.exp(logits - logits.max(axis=1, keepdims=True))
    out /= out.sum(axis=1, keepdims=True)
    return out


def _relaxed(soft: Floats, costs: Floats, neighbours: Floats, lam: float) -> float:
    """The relaxed objective, with s log s = 0 at s = 0."""
    logs = np.log(np.where(soft > 0, soft, 1.0))
    return float((soft * (costs + logs - lam / 2 * neighbours)).sum())


def _squares(points: Floats, centers: Floats) -> Floats:
    from scipy.spatial.distance import cdist

    out: Floats = cdist(points, centers, "sqeuclidean")
    return out
