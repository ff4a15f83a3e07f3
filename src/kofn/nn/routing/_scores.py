"""Shared parts of the routing functions: checks, affinities, top-k masks and gates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import InputError, choice, count
from kofn.nn._tables import rows_top
from kofn.nn.routing._routes import Routes

AFFINITIES = ("none", "softmax", "sigmoid")
GATES = ("ones", "raw", "share")


def refuse(scores: Tensor, affinity: str, gates: str) -> None:
    choice(affinity, "affinity", AFFINITIES)
    choice(gates, "gates", GATES)
    if scores.ndim != 2:
        raise InputError(f"scores has shape {tuple(scores.shape)}; give (n, bins), one score for each item and bin")
    refuse_values(scores)


def refuse_values(scores: Tensor) -> None:
    if torch.isnan(scores).any() or (scores == torch.inf).any():
        raise InputError("scores hold NaN or +inf; give finite scores, or -inf where an item does not list a bin")


def refuse_too_many(per_item: int, scores: Tensor) -> None:
    if count(per_item, "per_item") > scores.shape[1]:
        raise InputError(f"per_item={per_item} of {scores.shape[1]} bins; ask for per_item <= {scores.shape[1]}")


def room_of(capacity: int | Tensor, scores: Tensor) -> Tensor:
    """(bins,) capacity of each bin."""
    room = torch.as_tensor(capacity, device=scores.device)
    if room.ndim > 1 or (room.ndim and len(room) != scores.shape[1]):
        raise InputError(f"capacity has shape {tuple(room.shape)}; give one number, or one for each bin")
    if room.is_floating_point() or (room < 0).any():
        raise InputError(f"capacity={capacity!r}: give whole numbers >= 0")
    return room.broadcast_to(scores.shape[1:]).clamp(max=len(scores))


def log_affinities(scores: Tensor, affinity: str) -> Tensor:
    """(n, bins) logarithms of the affinities, -inf where an item does not list a bin."""
    if affinity == "sigmoid":
        return torch.where(scores > -torch.inf, functional.logsigmoid(scores), -torch.inf)
    # A row without listed bins has no log-sum; use a dummy and mask it out.
    able = torch.where((scores > -torch.inf).any(dim=1, keepdim=True), scores, 0.0)
    return torch.where(scores > -torch.inf, able - able.logsumexp(dim=1, keepdim=True), -torch.inf)


def affinities(scores: Tensor, affinity: str) -> Tensor:
    """(n, bins) affinities that items and bins rank by, in float64 and with the ties of the NumPy form."""
    table = scores.detach().double()
    if affinity == "none":
        return table
    logs = log_affinities(table, affinity) if affinity == "sigmoid" else _log_softmax(table)
    return torch.where(table > -torch.inf, logs.exp(), -torch.inf)


def _log_softmax(table: Tensor) -> Tensor:
    """As in `kofn.assignment.routing`: a row's highest score is taken off, its terms are summed in ascending order."""
    top = table.max(dim=1, keepdim=True).values
    logs = table - torch.where(top > -torch.inf, top, 0.0)
    sums = logs.sort(dim=1).values.exp().sum(dim=1, keepdim=True)
    return logs - torch.where(sums > 0, sums, 1.0).log()


def first_of_rows(table: Tensor, per_item: int) -> Tensor:
    """(n, bins) True for the highest entries of each row that are listed."""
    most = torch.full((len(table),), per_item, device=table.device)
    return rows_top(table, most) & (table > -torch.inf)


def first_of_columns(table: Tensor, room: Tensor) -> Tensor:
    """(n, bins) True for the highest entries of each column that are listed."""
    return rows_top(table.T, room).T & (table > -torch.inf)


def deferred_acceptance(felt: Tensor, room: Tensor, per_item: int) -> Tensor:
    """(n, bins) mask of the routes of deferred acceptance; refused items ask on until none is left."""
    rank = felt.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    listed = felt > -torch.inf
    kept, asked = torch.zeros_like(listed), torch.zeros_like(listed)
    while True:
        done = asked.sum(dim=1, keepdim=True)
        asks = (rank >= done) & (rank < done + per_item - kept.sum(dim=1, keepdim=True)) & listed
        if not asks.any():
            return kept
        asked |= asks
        kept = first_of_columns(torch.where(kept | asks, felt, -torch.inf), room)


def routes_where(scores: Tensor, kept: Tensor, affinity: str, gates: str) -> Routes:
    """The routes where `kept` is True, and their weights."""
    items, bins = kept.nonzero(as_tuple=True)
    if gates == "ones":
        return Routes(scores, items, bins, torch.ones(len(items), dtype=scores.dtype, device=scores.device))
    if affinity == "none":
        if (scores.detach()[items, bins] <= 0).any():
            raise InputError(
                f"gates={gates!r} weighs by scores as they are (affinity='none'), and some routes score 0 or less; use "
                "affinity='softmax' or 'sigmoid', or gates='ones'"
            )
        logs = torch.where(kept, scores, 1.0).log()
    else:
        logs = log_affinities(scores, affinity)
    if gates == "share":
        logs = torch.where(kept, logs, -torch.inf)
        # Items without a route have no share; they are left out below.
        logs = torch.where(kept.any(dim=1, keepdim=True), logs, 0.0)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    weights = logs[items, bins].exp()
    return Routes(scores, items, bins, weights.clamp_min(torch.finfo(torch.float32).tiny))
