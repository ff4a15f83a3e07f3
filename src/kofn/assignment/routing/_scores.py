"""Shared parts of the routing methods: checks, affinities, gates and deferred acceptance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Integers, Ints, csr
from kofn.core.checks import InputError, item_name

_AFFINITIES = ("none", "softmax", "sigmoid")
_GATES = ("ones", "raw", "share")
# Below this many scores Python and NumPy finish before compiled code is loaded.
COMPILED_FROM = 20_000


def score_table(scores: Any) -> NDArray[Any]:
    """Check that scores have shape (n, bins)."""
    if scores.ndim != 2:
        raise InputError(f"scores has shape {scores.shape}; give (n, bins), one score for each item and bin")
    table: NDArray[Any] = scores
    return table


def capacities(capacity: Any, bins: int, name: str = "capacity") -> Ints:
    """(bins,) capacity of each bin, or another whole number that each has."""
    if not np.isscalar(capacity) and len(capacity) != bins:
        raise InputError(f"{name} has {len(capacity)} values, scores has {bins} bins; give one for each bin")
    return np.broadcast_to(np.asarray(capacity, np.int64), bins).copy()


def best_bins(scores: NDArray[Any], per_item: int) -> NDArray[np.int32]:
    """(n, per_item) bins of each item's highest scores, best first, ties to the lowest bin; padded with -1."""
    if scores.size > COMPILED_FROM:
        from kofn.assignment.routing import _kernels

        out = np.empty((len(scores), per_item), np.int32)
        _kernels.best_bins(np.ascontiguousarray(scores), out)
        return out
    first = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
    return np.where(np.take_along_axis(scores, first, axis=1) > -np.inf, first, -1).astype(np.int32)


def affinities(scores: NDArray[Any], kind: str) -> Floats:
    """(n, bins) in float64: softmax over the bins that an item lists, sigmoid, or the scores; -inf where not listed."""
    out = scores.astype(np.float64)
    if kind == "none":
        return out
    away = out == -np.inf
    logs = -np.logaddexp(0, -out) if kind == "sigmoid" else _log_softmax(out)
    out = np.exp(logs)
    out[away] = -np.inf
    return out


def ranks(scores: NDArray[Any], kind: str) -> NDArray[Any]:
    """(n, bins) numbers in the order of the affinities, without their rounding."""
    if kind != "softmax":
        return scores
    table = scores.astype(np.float64)
    return _log_softmax(table)


def log_affinity(scores: NDArray[Any], rows: Integers, columns: Integers, kind: str) -> Floats:
    """Log-affinities of the given routes; NaN or -inf where an affinity is not positive."""
    if kind == "softmax":
        return _log_softmax(scores.astype(np.float64))[rows, columns]
    kept = scores[rows, columns].astype(np.float64)
    if kind == "sigmoid":
        return -np.logaddexp(0, -kept)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(kept))


def weigh(logs: Floats, rows: Integers, gates: str) -> NDArray[np.float32]:
    """Gate of each route from its log-affinity: 1, the affinity, or its share among the item's routes."""
    if gates == "ones":
        return np.ones(len(logs), np.float32)
    if (bad := ~np.isfinite(logs)).any():
        raise InputError(
            f"gates={gates!r} weighs by scores as they are (affinity='none'), and {item_name(rows[bad][0])} goes to a "
            "bin that it scores 0 or less; use affinity='softmax' or 'sigmoid', or gates='ones'"
        )
    if gates == "share" and len(rows):
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        sizes = np.diff(np.append(starts, len(rows)))
        grown = np.exp(logs - np.repeat(np.maximum.reduceat(logs, starts), sizes))
        weights = grown / np.repeat(np.add.reduceat(grown, starts), sizes)
    else:
        weights = np.exp(logs)
        if (bad := weights > np.finfo(np.float32).max).any():
            raise InputError(
                f"gates={gates!r}: the weight of {item_name(rows[bad][0])} is {weights[bad][0]:g}, more than float32 "
                "holds; scale the scores down, or use gates='share'"
            )
    return np.maximum(weights, np.finfo(np.float32).tiny).astype(np.float32)


def routes(n: int, bins: int, rows: Integers, columns: Integers, weights: NDArray[Any] | None) -> dict[str, Any]:
    """The sparse fields of an `Assignment`, from routes in ascending order of `rows`."""
    indptr, numbers = csr(rows, columns, n)
    return {
        "n": n,
        "indptr": indptr,
        "bins": numbers,
        "weights": np.ones(len(columns), np.float32) if weights is None else weights,
        "k": bins,
    }


def _log_softmax(scores: Floats) -> Floats:
    """(n, bins) logs of the softmax over the bins that an item lists, -inf where one is not listed.

    The highest score of a row is taken off first: beside a large one the logarithm of how many tie with it is nothing.
    A row's terms are summed in ascending order: items whose scores are the same numbers in another order then tie.
    """
    top = scores.max(axis=1)
    logs = scores - np.where(np.isfinite(top), top, 0.0)[:, None]
    sums = np.exp(np.sort(logs, axis=1)).sum(axis=1)
    logs -= np.log(np.where(sums > 0, sums, 1.0))[:, None]
    return np.asarray(logs)


def known(affinity: str, gates: str) -> None:
    checks.choice(affinity, "affinity", _AFFINITIES)
    checks.choice(gates, "gates", _GATES)


def refuse_too_many(per_item: int, bins: int) -> None:
    if per_item > bins:
        raise InputError(f"per_item={per_item} of {bins} bins; ask for per_item <= {bins}")


def compiled(scores: NDArray[Any], room: Ints, per_item: int, reroute: bool) -> tuple[Ints, Ints, Ints, float]:
    """Rows and bins of the kept slots, first-choice demand of each bin, and the sum of first choices >= 0."""
    from kofn.assignment.routing import _kernels

    n, bins = scores.shape
    heaped = np.where(room < n, room, 0)
    chosen = np.full((n, per_item), -1, np.int32)
    asked, most = np.zeros(bins, np.int64), np.zeros(1)
    heaps = np.empty(heaped.sum(), scores.dtype), np.empty(heaped.sum(), np.int32)
    _kernels.defer(scores, room, np.cumsum(heaped) - heaped, reroute, chosen, asked, *heaps, most)
    chosen.sort(axis=1)
    rows, slots = np.nonzero(chosen >= 0)
    return rows, chosen[rows, slots].astype(np.int64), asked, float(most[0])


def plain(scores: NDArray[Any], room: Ints, per_item: int, reroute: bool) -> tuple[Ints, Ints, Ints, float]:
    """The same by sorting: both sides rank by score, so the stable matching is greedy in score order."""
    n, bins = scores.shape
    first = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
    rows, columns = np.repeat(np.arange(n), per_item), first.ravel()
    listed = scores[rows, columns] > -np.inf
    rows, columns = rows[listed], columns[listed]
    best = scores[rows, columns]
    asked, most = np.bincount(columns, minlength=bins), float(np.maximum(best, 0).sum(dtype=np.float64))
    if reroute:
        rows, columns = np.nonzero(scores > -np.inf)
        order = np.lexsort((columns, rows, -scores[rows, columns]))
        free, space, kept = [per_item] * n, room.tolist(), []
        for pair in order.tolist():
            i, j = rows[pair], columns[pair]
            if free[i] and space[j]:
                free[i] -= 1
                space[j] -= 1
                kept.append(pair)
    else:
        order = np.lexsort((rows, -best, columns))
        rank = np.arange(len(order)) - (np.cumsum(asked) - asked)[columns[order]]
        kept = order[rank < room[columns[order]]].tolist()
    rows, columns = rows[kept], columns[kept]
    tidy = np.lexsort((columns, rows))
    return rows[tidy], columns[tidy], asked, most
