"""Rows of a large pool to train on, given a few examples of the target tasks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Array, Ints, directions
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.objectives._sparse_rows import directions as sparse_directions

__all__ = ["position_weighted_mean", "rds_plus"]


# Rows whose cosines are computed at once: fixed, so that the answer does not depend on the memory of the machine.
_BLOCK = 8192
# Cosines kept at once, pool rows times lists.
_ENTRIES_AT_ONCE = 1 << 24


@method(
    "select",
    sparse=True,
    draws=Draw(plain={"queries": [[0.0, 1.0], [0.5, 1.0]]}),
    cost="O(n q d) time for q queries; O(n d + n) memory and some 64 MB of cosines, whatever q",
    exact="the round robin exactly, ties to the lowest row; no promise on what a model learns from the picks",
    paper=268,
)
def rds_plus(
    X: Any,
    *,
    k: int,
    exclude: Any = None,
    queries: Any = None,
    tasks: ArrayLike | None = None,
) -> Selection:
    """Pick the rows most like a few examples of the target tasks, the tasks (or queries) taking turns.

    Each query ranks the pool by cosine similarity; the queries take turns, each taking its best row that is still free,
    until k are picked, so that a query near to much of the pool does not take all picks. With `tasks`, the queries of a
    task rank the pool together, by the highest cosine to any of them, and the tasks take turns.

    Args:
        X: (n, d) embeddings of the pool, or SciPy-sparse rows, which are never made dense; for a language model
            `position_weighted_mean` of its last hidden states.
        queries: (q, d) embeddings of the examples, from the same model as X.
        tasks: (q,) label of the task of each query; without it each query takes its own turns.

    Returns:
        Selection in the order picked. `gains` are each pick's highest cosine to any query, `value` their sum (which
        picking by highest cosine would maximise, and turns do not); `info["turn"]` (k,) is whose turn each pick was: a
        position in `info["lists"]`, the queries or the sorted task labels.

    Raises:
        InputError: no queries, or of another width than X. InfeasibleError: k above the number of rows not excluded.

    Costs O(n q d) time; the pool is read once for every 2^24 / n lists and only the head of each ranking is sorted.
    Rows and queries of zeros have cosine 0 with everything. Cosines are compared to 6 decimals (12 for float64), equal
    ones go to the lowest row, and the turns to the first query or label. The authors' code drops a query's turn where
    its next row is taken already; here the query goes on to its next free row.

    References:
        Ivison, Zhang, Brahman, Koh, Dasigi, "Large-Scale Data Selection for Instruction Tuning", 2025.

    Examples:
        >>> from kofn.selection import rds_plus
        >>> pool = [[1.0, 0.0], [0.9, 0.1], [0.8, 0.1], [0.0, 1.0], [0.1, 1.0]]
        >>> plan = rds_plus(pool, k=3, queries=[[1.0, 0.0], [0.0, 2.0]])
        >>> plan.indices.tolist(), plan.info["turn"]
        ([0, 3, 1], [0, 1, 0])
        >>> rds_plus(pool, k=3, queries=[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], tasks=["a", "a", "b"]).indices.tolist()
        [0, 3, 1]
    """
    if queries is None:
        raise InputError("rds_plus needs queries, (q, d) embeddings of a few examples of the target tasks")
    queries = checks.sparse_rows(queries, "queries") if checks.is_sparse(queries) else checks.matrix(queries, "queries")
    n, d = X.shape
    if checks.is_sparse(queries) and not checks.is_sparse(X):
        queries = checks.matrix(queries.toarray(), "queries")
    if queries.shape[1] != d:
        raise InputError(f"queries have {queries.shape[1]} columns, X has {d}; embed both in the same way")
    lists = list_of = np.arange(queries.shape[0])
    if tasks is not None:
        labels = checks.groups(tasks, "tasks")
        checks.same_length(queries.shape[0], "queries", "tasks", len(labels))
        lists, list_of = np.unique(labels, return_inverse=True)
    free = np.ones(n, bool)
    if exclude is not None:
        free[exclude] = False
    if k > free.sum():
        raise InfeasibleError(f"k={k} of {free.sum()} open items; ask for k <= {free.sum()} or exclude fewer")

    ranking = _Ranking(X, queries, list_of, len(lists), free)
    picks, turn = _take_turns(ranking, k)
    best = _highest(_directed(X[picks]), _directed(queries))
    return Selection(
        n=n,
        indices=picks,
        gains=best,
        value=math.fsum(best.tolist()),
        used={"k": k},
        budget={"k": k},
        objective="query_similarity",
        info={"distance_evals": n * queries.shape[0], "lists": lists.tolist(), "turn": turn.tolist()},
    )


class _Ranking:
    """The pool's order for each list, sorted only as far down as needed."""

    def __init__(self, X: Any, queries: Any, list_of: Ints, n_lists: int, free: NDArray[np.bool_]) -> None:
        self.n, self.free, self.n_lists = X.shape[0], free, n_lists
        self.decimals = 12 if X.dtype == np.float64 else 6
        self.sparse, self.dtype = checks.is_sparse(X), X.dtype
        self.X = sparse_directions(X) if self.sparse else X
        self.queries = _directed(queries) if self.sparse else _directed(queries, X.dtype)
        self.members = [np.flatnonzero(list_of == number) for number in range(n_lists)]

    def cosines(self, lists: Ints) -> Array:
        """(n, lists) highest cosine to any query of each list."""
        from threadpoolctl import threadpool_limits

        columns = np.concatenate([self.members[number] for number in lists.tolist()])
        begins = np.concatenate([[0], np.cumsum([len(self.members[number]) for number in lists.tolist()])[:-1]])
        targets = self.queries[columns].T
        out = np.empty((self.n, len(lists)), self.dtype)
        # One BLAS thread, so that sums are added up in the same order on every machine.
        with threadpool_limits(1, "blas"):
            for low in range(0, len(out), _BLOCK):
                part = slice(low, low + _BLOCK)
                rows = self.X[part] if self.sparse else directions(self.X[part])
                out[part] = np.maximum.reduceat(_products(rows, targets), begins, axis=1)
        # Equal rows at different positions in a block may differ in the last bit.
        return np.round(out, self.decimals) + 0.0

    def heads(self, depth: int) -> list[Ints]:
        """The first rows of each list: at least `depth`, or all free rows."""
        out: list[Ints] = []
        step = max(1, _ENTRIES_AT_ONCE // self.n)
        for low in range(0, self.n_lists, step):
            table = self.cosines(np.arange(low, min(low + step, self.n_lists)))
            out += [self._head(column, depth) for column in table.T]
        return out

    def further(self, number: int, depth: int) -> Ints:
        """A longer head of one list."""
        return self._head(self.cosines(np.array([number]))[:, 0], depth)

    def _head(self, column: Array, depth: int) -> Ints:
        column = np.where(self.free, column, -np.inf)
        depth = min(depth, int(self.free.sum()))
        # All rows tied with the last one belong to the head, so that ties stay in the order of the rows.
        least = np.partition(column, len(column) - depth)[len(column) - depth]
        rows = np.flatnonzero(column >= least)
        return rows[np.argsort(-column[rows], kind="stable")]


def _take_turns(ranking: _Ranking, k: int) -> tuple[Ints, Ints]:
    """(k,) the rows picked, and (k,) the list whose turn each pick was."""
    depth = 2 * -(-k // ranking.n_lists) + 16
    heads = [head.tolist() for head in ranking.heads(depth)]
    positions = [0] * ranking.n_lists
    taken = bytearray(ranking.n)
    picks: list[int] = []
    turn: list[int] = []
    while len(picks) < k:
        for number in range(ranking.n_lists):
            head, position = heads[number], positions[number]
            while True:
                while position < len(head) and taken[head[position]]:
                    position += 1
                if position < len(head):
                    break
                # Other lists took the rest of this head; the longer head begins with the rows already seen.
                head = heads[number] = ranking.further(number, 4 * len(head)).tolist()
            taken[head[position]] = 1
            picks.append(head[position])
            turn.append(number)
            positions[number] = position + 1
            if len(picks) == k:
                break
    return np.array(picks, np.int64), np.array(turn, np.int64)


def _directed(rows: Any, dtype: Any = np.float64) -> Any:
    """Rows at unit length, in float64 where they are sparse; rows of zeros stay zero."""
    if checks.is_sparse(rows):
        return sparse_directions(rows)
    return directions(rows.astype(np.float64) if dtype == np.float64 else rows).astype(dtype)


def _products(rows: Any, targets: Any) -> Array:
    products = rows @ targets
    return products.toarray() if checks.is_sparse(products) else np.asarray(products)


def _highest(rows: Any, queries: Any) -> NDArray[np.float64]:
    """(rows,) highest cosine to any query, both at unit length."""
    from threadpoolctl import threadpool_limits

    out = np.empty(rows.shape[0])
    with threadpool_limits(1, "blas"):
        for low in range(0, len(out), _BLOCK):
            part = slice(low, low + _BLOCK)
            out[part] = _products(rows[part], queries.T).max(axis=1)
    return out


@helper
def position_weighted_mean(hidden: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Pool the hidden states of a causal language model into one embedding a text, later tokens weighing more.

    In a causal model the later tokens have seen more of the text. Token t of T has weight t / (1 + ... + T); padding,
    at either end, has none and is not counted.

    Args:
        hidden: (b, T, d) last hidden states of b texts.
        mask: (b, T) 1 (or True) at a token, 0 at padding; default all tokens.

    Returns:
        (b, d) embeddings, in the floating type of `hidden` (float32 at least); zeros for a text without tokens.

    Raises:
        InputError: other shapes, or values that are not finite at a token.

    Cost: one pass over the states.

    References:
        Muennighoff, "SGPT: GPT Sentence Embeddings for Semantic Search", 2022; Ivison et al. 2025, arXiv 2503.01807.

    Examples:
        >>> from kofn.selection import position_weighted_mean
        >>> position_weighted_mean([[[3.0], [6.0], [9.0]]], mask=[[1, 1, 0]]).tolist()
        [[5.0]]
    """
    states = checks.as_float(checks.as_array(hidden, "hidden"), "hidden")
    if states.ndim != 3:
        raise InputError(f"hidden has shape {states.shape}; give (texts, tokens, d)")
    states = states.astype(np.result_type(states.dtype, np.float32), copy=False)
    is_token = (
        np.ones(states.shape[:2], bool) if mask is None else checks.as_float(checks.as_array(mask, "mask"), "mask") != 0
    )
    if is_token.shape != states.shape[:2]:
        raise InputError(f"mask has shape {is_token.shape}, hidden {states.shape}; give one value a token")
    position = np.cumsum(is_token, axis=1) * is_token
    weights = (position / np.maximum(position.sum(axis=1, keepdims=True), 1)).astype(states.dtype)
    # Padding may hold anything, and 0 * NaN is not 0.
    out: Array = np.einsum("btd,bt->bd", np.where(is_token[:, :, None], states, 0), weights)
    checks.refuse_nonfinite(out, "hidden (pooled)")
    return out
