"""Rows about a few queries that do not repeat each other: maximal marginal relevance."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask, directions
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints, Tracker, finish, pick_in_turn
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress, Where
from kofn.objectives._sparse_rows import directions as sparse_directions

__all__ = ["marginal_relevance"]

# Scores are compared to as many decimals, so that ties do not hang on the order of sums.
_DECIMALS = 9
# Rows of this cosine to a pick repeat it.
_REPEATS = 1 - 1e-9
# How rows make up the number where a time limit ends the picks.
_BY_RELEVANCE = "by their relevance"


@method(
    "select",
    sparse=True,
    draws=Draw(plain={"queries": [[0.0, 1.0], [0.5, 1.0]]}),
    cost="O(n (q + k) d) time, of sparse rows their entries in place of n d; O(n) memory beside X",
    exact="the greedy rule exactly, ties to the lowest row; nested in k where only k binds",
    paper="carbonell1998",
    aliases=("MMR", "maximal marginal relevance", "search result diversification", "diverse retrieval"),
)
def marginal_relevance(
    X: Any,
    *,
    queries: Any = None,
    balance: float = 0.8,
    relevance: str = "cosine",
    time_limit: float | None = None,
    progress: Progress = None,
    **where: Unpack[Where],
) -> Selection:
    """Pick rows about a few queries that do not repeat each other: maximal marginal relevance.

    Each pick is the row of largest `balance * relevance - (1 - balance) * redundancy`, where relevance is its highest
    cosine to any query and redundancy its highest cosine to any row picked before. Of several queries each has its
    cosines scaled so that its best row counts as much as the best of any: a query of rare words gets its rows too. A
    row that repeats a pick, at cosine 1, waits until no other row can be picked. Under quotas, costs and the like the
    pick is the best of the rows that the constraints leave open.

    Relevance and redundancy may be measured by different similarities. With `relevance="product"` a row is as relevant
    as its product with the query, as a share of the best row's that can be picked; where none is above 0, as a share of
    the lowest product's size, so -1 at least. The length of a row then counts. Rows of BM25 weights are made for that:
    the command line compares texts with texts in this way where it has no model.

    Args:
        X: (n, d) rows, dense or SciPy-sparse.
        queries: (q, d) rows that say what is wanted, made like X.
        balance: 1 ranks by relevance alone, repeats too; 0 by novelty alone.
        relevance: "cosine", or "product" of row and query as they are.

    Returns:
        Selection in the order picked; after a time limit the most relevant open rows make up the number. `gains` are
        the scores at which rows were picked, `value` their sum (NaN for rows that a time limit left no time to score,
        which come last, and then of the sum); `info["relevance"]` (k,) is each pick's highest cosine to a query, or its
        highest product as a share of the best row's.

    Raises:
        InputError: no queries, or of another width than X, a balance outside [0, 1], or another relevance.
        InfeasibleError: constraints that cannot be met together.

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
    products = checks.choice(relevance, "relevance", ("cosine", "product")) == "product"
    wanted = checks.sparse_rows(queries, "queries") if checks.is_sparse(queries) else checks.matrix(queries, "queries")
    n, d = X.shape
    if wanted.shape[1] != d:
        raise InputError(f"queries have {wanted.shape[1]} columns, X has {d}; make both in the same way")
    constraints = Constraints.of(n, where)
    tracker = Tracker(constraints)
    rows = _directed(X)
    compared, wanted = (_scaled(X), _scaled(wanted)) if products else (rows, _directed(wanted))
    # How near the best row is that can be picked, of each query and of any.
    open_rows = ~constraints.banned
    bests = [float(_products(compared, wanted, query)[open_rows].max(initial=0.0)) for query in range(wanted.shape[0])]
    top = 1.0 if products else max(bests)
    nearest, relevant = np.full(n, -np.inf), np.full(n, -np.inf)
    for query, best in enumerate(bests):
        likeness = _products(compared, wanted, query)
        if products and not best:
            best = float(-likeness[open_rows].min(initial=0.0))
        shares = likeness * (top / best if best > 0 else 1.0)
        nearest = np.maximum(nearest, shares if products else likeness)
        relevant = np.maximum(relevant, shares)
    redundancy = np.full(n, -np.inf)
    picks: list[int] = []
    gains: list[float] = []

    def scores(item: Any = slice(None)) -> Any:
        # Without picks nothing is repeated.
        repeated = np.where(np.isinf(redundancy[item]), 0.0, redundancy[item])
        return np.round(balance * relevant[item] - (1 - balance) * repeated, _DECIMALS)

    def add(item: int) -> float:
        gain = float(scores(item))
        np.maximum(redundancy, _products(rows, rows, item), out=redundancy)
        return gain

    def take(item: int) -> None:
        gains.append(add(item))
        picks.append(item)

    def choose(candidates: Mask) -> int:
        fresh = candidates & (redundancy < _REPEATS) if balance < 1 else candidates
        return int(np.where(fresh if fresh.any() else candidates, scores(), -np.inf).argmax())

    def most_relevant(candidates: Mask, _count: int) -> Ints:
        # Rows that repeat a pick wait here too.
        repeats = redundancy >= _REPEATS if balance < 1 else np.zeros(n, bool)
        order: Ints = np.lexsort((-np.round(relevant, _DECIMALS), repeats))
        return order[candidates[order]]

    total = constraints.k if constraints.exact_k else 0
    with Control(time_limit=time_limit, progress=progress, total=total, title="picking") as control:
        stopped = pick_in_turn(tracker, control, choose, take)
        picks_in_time = len(picks)
        if stopped:
            added, brought = finish(tracker, control, add, most_relevant)
            picks, gains = picks + added, gains + brought
    used, limit = tracker.report()
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains),
        value=math.fsum(gains),
        status="stopped" if stopped else "heuristic",
        used=used,
        budget=limit,
        objective="marginal_relevance",
        info={
            "relevance": nearest[picks],
            "distance_evals": n * (wanted.shape[0] + len(picks)),
            **({"found_in_time": picks_in_time, "filled_by": _BY_RELEVANCE} if stopped else {}),
        },
    )


def _directed(rows: Any) -> Any:
    return sparse_directions(rows) if checks.is_sparse(rows) else directions(rows.astype(np.float64))


def _scaled(rows: Any) -> Any:
    """Rows divided by the largest entry of all, so that no product overflows; shares of the best one stay."""
    largest = float(abs(rows).max()) if min(rows.shape) else 0.0
    return rows.astype(np.float64) / (largest or 1.0)


def _products(rows: Any, others: Any, index: int) -> Floats:
    """(n,) products of all rows with one row of `others`."""
    if not checks.is_sparse(others):
        return np.asarray(rows @ others[index]).reshape(-1)
    vector = others[[index]]
    product = rows @ vector.T
    out: Floats = np.asarray(product.todense() if checks.is_sparse(product) else product).reshape(-1)
    return out
