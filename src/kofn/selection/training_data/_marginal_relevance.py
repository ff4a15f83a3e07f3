"""Rows about a few queries that do not repeat each other: maximal marginal relevance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, directions
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control

__all__ = ["marginal_relevance"]

# Scores are compared to as many decimals, so that ties do not hang on the order of sums.
_DECIMALS = 9


@method(
    "select",
    sparse=True,
    draws=Draw(plain={"queries": [[0.0, 1.0], [0.5, 1.0]]}),
    cost="O(n (q + k) d) time, of sparse rows their entries in place of n d; O(n) memory beside X",
    exact="the greedy rule exactly, ties to the lowest row; nested in k",
    paper="carbonell1998",
    aliases=("MMR", "maximal marginal relevance", "search result diversification", "diverse retrieval"),
)
def marginal_relevance(
    X: Any,
    *,
    k: int,
    exclude: Any = None,
    time_limit: float | None = None,
    queries: Any = None,
    balance: float = 0.8,
) -> Selection:
    """Pick rows about a few queries that do not repeat each other: maximal marginal relevance.

    Each pick is the row of largest `balance * relevance - (1 - balance) * redundancy`, where relevance is its highest
    cosine to any query and redundancy its highest cosine to any row picked before.

    Args:
        X: (n, d) rows, dense or SciPy-sparse.
        k: how many to pick.
        exclude: rows that must not be picked.
        time_limit: seconds; the picks made by then are returned.
        queries: (q, d) rows that say what is wanted, made like X.
        balance: 1 ranks by relevance alone, 0 by novelty alone.

    Returns:
        Selection in the order picked. `gains` are the scores at which rows were picked, `value` their sum;
        `info["relevance"]` (k,) is each pick's highest cosine to a query.

    Raises:
        InputError: no queries, or of another width than X, or a balance outside [0, 1].
        InfeasibleError: k above the number of rows not excluded.

    Costs O(n (q + k) d) time and O(n) memory beside X. Guarantee: none on the sum; the first pick is the most relevant
    row, and the picks of a smaller k are the first of a larger one's.

    References:
        Carbonell & Goldstein 1998, The use of MMR, diversity-based reranking for reordering documents and producing
        summaries (SIGIR).

    Examples:
        >>> from kofn.selection import marginal_relevance
        >>> pool = [[1.0, 0.0], [1.0, 0.01], [0.8, 0.6], [0.0, 1.0]]
        >>> marginal_relevance(pool, k=2, queries=[[1.0, 0.2]], balance=0.7).indices.tolist()
        [1, 2]
    """
    if queries is None:
        raise InputError("marginal_relevance needs queries, (q, d) rows that say what is wanted")
    balance = checks.fraction(balance, "balance")
    sparse = checks.is_sparse(X)
    wanted = checks.sparse_rows(queries, "queries") if checks.is_sparse(queries) else checks.matrix(queries, "queries")
    n, d = X.shape
    if wanted.shape[1] != d:
        raise InputError(f"queries have {wanted.shape[1]} columns, X has {d}; make both in the same way")
    rows = _unit_rows(X) if sparse else directions(X.astype(np.float64))
    wanted = _unit_rows(wanted) if checks.is_sparse(wanted) else directions(wanted.astype(np.float64))
    relevance = np.full(n, -np.inf)
    for query in range(wanted.shape[0]):
        relevance = np.maximum(relevance, _cosines(rows, wanted, query))
    free = np.ones(n, bool)
    if exclude is not None:
        free[exclude] = False
    if k > free.sum():
        raise InfeasibleError(f"k={k} of {free.sum()} open items; ask for k <= {free.sum()} or exclude fewer")

    redundancy = np.zeros(n)
    picks: list[int] = []
    gains: list[float] = []
    with Control(time_limit=time_limit, total=k, title="picks") as control:
        while len(picks) < k and not (picks and control.stopped()):
            score = np.round(balance * relevance - (1 - balance) * redundancy, _DECIMALS)
            score[~free] = -np.inf
            best = int(score.argmax())
            picks.append(best)
            gains.append(float(score[best]))
            free[best] = False
            seen = _cosines(rows, rows, best)
            redundancy = seen if len(picks) == 1 else np.maximum(redundancy, seen)
            control.step(len(picks))
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains),
        value=math.fsum(gains),
        status="stopped" if len(picks) < k else "heuristic",
        used={"k": len(picks)},
        budget={"k": k},
        objective="marginal_relevance",
        info={"relevance": relevance[picks], "distance_evals": n * (wanted.shape[0] + len(picks))},
    )


def _unit_rows(rows: Any) -> Any:
    """Sparse rows of unit length; rows of zeros as they are."""
    from scipy.sparse import diags_array

    rows = rows.astype(np.float64).tocsr()
    sizes = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).reshape(-1))
    return (diags_array(1 / np.where(sizes > 0, sizes, 1)) @ rows).tocsr()


def _cosines(rows: Any, others: Any, place: int) -> Floats:
    """(n,) products of all rows with one row of `others`."""
    if not checks.is_sparse(others):
        return np.asarray(rows @ others[place]).reshape(-1)
    one = others[[place]]
    out: Floats = np.asarray((rows @ one.T).todense()).reshape(-1)
    return out
