"""Entries of a table to keep: a limit by row, by column or over the whole table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core.arrays import Array, Ints
from kofn.core.checks import InfeasibleError, InputError, is_number, number, vector
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method


@method(
    "select",
    traits=("sandwich",),
    draws=Draw(kinds={"scores": "vector or table", "per_item": "any", "capacity": "column"}),
    cost="O(entries) time under k alone, O(entries log bins) under a limit of rows or columns; O(entries) memory",
    exact="optimal",
    paper=121,
)
def topk_mask(
    scores: Any,
    *,
    k: int | None = None,
    per_item: int | None = None,
    capacity: Any = None,
) -> Selection:
    """Keep the highest entries of a table: a given number of each row, of each column, or of the whole.

    A sparse autoencoder keeps a few activations of a batch. By row (`per_item`, token choice) every token gets equally
    many; by column (`capacity`, feature choice) every feature, so that none is dead; over the whole table (`k`, mutual
    choice) hard tokens get more.

    Args:
        scores: (rows, bins), higher is better, -inf where an entry must not be kept; (n,) counts as one column.
        k: entries to keep in all; alone, the highest of the table.
        per_item: the most that a row keeps; without `k` each row keeps that many of its finite entries.
        capacity: the most that a column keeps, one number or (bins,); without `k` each column keeps that many.

    Returns:
        Selection over the entries, row by row: `np.unravel_index(plan.indices, scores.shape)` gives rows and bins, and
        `plan.mask.reshape(scores.shape)` the mask. Highest first, ties to the lowest row, then the lowest bin. `value`
        is the sum of the entries kept.

    Raises:
        InputError: none of the three limits, or `per_item` and `capacity` together (for both margins use
            `kofn.assign`). InfeasibleError: `k` above the number of entries that may be kept.

    Costs O(rows * bins) time and memory under `k` alone, a sort of each row or column otherwise. Exact: a limit of each
    row (or each column) and a total make a laminar matroid.

    References:
        Ayonrinde, "Adaptive Sparse Allocation with Mutual Choice & Feature Choice Sparse Autoencoders", 2024.
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (a limit of each row).

    Examples:
        >>> from kofn.selection import topk_mask
        >>> table = [[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]
        >>> topk_mask(table, k=2).indices.tolist()
        [0, 1]
        >>> topk_mask(table, per_item=1).indices.tolist()
        [0, 3]
        >>> topk_mask(table, capacity=1).mask.reshape(2, 3).sum(axis=0).tolist()
        [1, 1, 1]
    """
    table = np.ascontiguousarray(scores if scores.ndim == 2 else scores[:, None])
    if k is None and per_item is None and capacity is None:
        raise InputError("give k (entries in all), per_item (a row) or capacity (a column)")
    if per_item is not None and capacity is not None:
        raise InputError("per_item and capacity limit rows and columns at once; for that use kofn.assign")
    flat = table.reshape(-1)
    limit: dict[str, Any] = {}
    if per_item is not None:
        limit["per_item"] = per_item
        open_entries = _rows_top(table, np.full(len(table), per_item, np.int64)).reshape(-1)
    elif capacity is not None:
        room = _room(capacity, table.shape[1])
        limit["capacity"] = room
        open_entries = _rows_top(np.ascontiguousarray(table.T), room).T.reshape(-1)
    else:
        open_entries = flat > -np.inf
    rows = np.flatnonzero(open_entries)
    if k is not None:
        limit["k"] = k
        if k > len(rows):
            raise InfeasibleError(
                f"k={k}, but only {len(rows)} of {flat.size} entries may be kept; ask for k <= {len(rows)}, list more "
                "or raise the limit of a row or column"
            )
        rows = rows[_top(flat[rows], k)]
    picks = rows[np.argsort(-flat[rows], kind="stable")].astype(np.int64)
    gains = flat[picks].astype(np.float64)
    value = math.fsum(gains.tolist())
    row, column = np.unravel_index(picks, table.shape)
    used = {
        "k": len(picks),
        "per_item": int(np.bincount(row, minlength=1).max()) if len(picks) else 0,
        "capacity": np.bincount(column, minlength=table.shape[1]),
    }
    return Selection(
        n=flat.size,
        indices=picks,
        gains=gains,
        value=value,
        bound=value,
        status="optimal",
        used={name: used[name] for name in limit},
        budget=limit,
        objective="modular",
        info={"shape": scores.shape, "oracle_calls": flat.size},
    )


def _room(capacity: Any, bins: int) -> Ints:
    room = np.asarray(capacity, np.int64)
    if room.ndim and len(room) != bins:
        raise InputError(
            f"capacity has {len(room)} values, scores has {bins} columns; give one a column, or one number"
        )
    return np.broadcast_to(room, bins).astype(np.int64)


def _top(values: Array, k: int) -> Ints:
    """Positions of the k highest, ties to the lowest position, in no order."""
    if k >= len(values):
        return np.arange(len(values))
    edge = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > edge)
    return np.concatenate([above, np.flatnonzero(values == edge)[: k - len(above)]])


def _rows_top(table: Array, most: Ints) -> NDArray[np.bool_]:
    """(rows, bins) True for the `most[i]` highest finite entries of row i, ties to the lowest bin."""
    listed = table > -np.inf
    widest = int(most.max(initial=0))
    if widest >= table.shape[1] and (most >= table.shape[1]).all():
        return listed
    # One sort a row serves different limits: an entry is kept if its rank in the row is below the row's limit.
    order = np.argsort(-table, axis=1, kind="stable")
    kept = np.zeros(table.shape, bool)
    np.put_along_axis(kept, order, np.arange(table.shape[1]) < most[:, None], axis=1)
    return kept & listed


def zipf_share(fired: ArrayLike, *, exponent: float = 1.0, shift: float = 0.0) -> NDArray[np.float64]:
    """Share all entries among the features by a Zipf law, by each feature's rank in use.

    Args:
        fired: (features,) how often each feature fired; the most used feature has rank 1, ties by position.
        exponent: how steeply shares fall with the rank; 0 gives all the same.
        shift: added to the rank (Mandelbrot's form), above -1.

    Returns:
        (features,) shares that sum to one. `np.ceil(share * k)` are limits for `topk_mask(capacity=...)`.

    Raises:
        InputError: counts that are not a vector of numbers >= 0, a negative exponent, a shift of -1 or less.

    References:
        Ayonrinde, "Adaptive Sparse Allocation with Mutual Choice & Feature Choice Sparse Autoencoders", 2024.

    Examples:
        >>> from kofn.selection.networks._topk_mask import zipf_share
        >>> (11 * zipf_share([5, 0, 9])).round(6).tolist()
        [3.0, 2.0, 6.0]
    """
    counts = vector(fired, "fired")
    if counts.min() < 0:
        raise InputError(f"fired at row {int(counts.argmin())} is {counts.min():g}; counts must be >= 0")
    exponent = number(exponent, "exponent")
    if not is_number(shift) or not -1 < shift < math.inf:
        raise InputError(f"shift={shift!r}: give a number above -1")
    share = np.empty(len(counts))
    share[np.argsort(-counts, kind="stable")] = (np.arange(1.0, len(counts) + 1) + shift) ** -exponent
    return share / share.sum()
