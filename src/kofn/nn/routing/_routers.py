"""The routes of `kofn.assignment.routing` for training: the same items in the same bins, gradients through weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import InfeasibleError, InputError, choice, count, number
from kofn.nn.experts._experts import Experts
from kofn.nn.networks._topk_mask import _rows_top

__all__ = [
    "BiasRouter",
    "MixtureOfExperts",
    "MixtureOfTokens",
    "Router",
    "Routes",
    "TopKRouter",
    "balance_loss",
    "capped_routing",
    "expert_choice",
    "soft_mixing",
    "token_choice",
]

_AFFINITIES = ("none", "softmax", "sigmoid")
_GATES = ("ones", "raw", "share")


class Routes(NamedTuple):
    """Who goes where, as the sparse rows of a `kofn.Assignment`; gradients flow through the weights.

    Attributes:
        scores: (n, bins) what was asked of the router.
        items: (routes,) the item of each route, ascending.
        bins: (routes,) its bin, ascending for each item.
        weights: (routes,) its weight.
    """

    scores: Tensor
    items: Tensor
    bins: Tensor
    weights: Tensor

    @property
    def loads(self) -> Tensor:
        """(bins,) how many items each bin holds."""
        return torch.bincount(self.bins, minlength=self.scores.shape[1])

    def dense(self) -> Tensor:
        """(n, bins) the weights, zero where an item does not go."""
        return self.weights.new_zeros(self.scores.shape).index_put((self.items, self.bins), self.weights)


def token_choice(scores: Tensor, *, per_item: int = 1, affinity: str = "softmax", gates: str = "share") -> Routes:
    """Send each item to the bins that it scores highest, as `kofn.assignment.token_choice` does.

    Args:
        scores: (n, bins) router logits; -inf where an item does not list a bin.
        per_item: how many bins an item goes to.
        affinity: what the weights are made of: "softmax" over the bins that the item lists, "sigmoid", or "none".
        gates: the weight of each route: its affinity's "share" among the item's bins (softmax over the kept: Mixtral),
            the "raw" affinity (Switch), or "ones".

    Returns:
        `Routes`, with weights in the scores' dtype that sum to 1 for each item under "share".

    Raises:
        InputError: as there.

    Costs O(n bins) and a top-k of each row.

    Examples:
        >>> import torch
        >>> from kofn.nn import token_choice
        >>> token_choice(torch.tensor([[2.0, 2.0, -1.0], [0.0, 5.0, 1.0]]), per_item=2).bins.tolist()
        [0, 1, 1, 2]
    """
    _refuse(scores, affinity, gates)
    _refuse_too_many(per_item, scores)
    return _routes(scores, _first(scores.detach(), per_item), affinity, gates)


def expert_choice(
    scores: Tensor,
    *,
    capacity: int | Tensor | None = None,
    per_item: int | None = None,
    capacity_factor: float | None = None,
    affinity: str = "softmax",
    gates: str = "raw",
) -> Routes:
    """Let each bin take the items that want it most, as `kofn.assignment.expert_choice` does; same arguments.

    A later token decides whether an earlier one is served: in next-token prediction that leaks the future.

    Costs O(n bins) and a top-k of each column, on affinities in float64 so that ranks agree; with `per_item` as many
    times that as the bins refuse.

    Examples:
        >>> import torch
        >>> from kofn.nn import expert_choice
        >>> scores = torch.tensor([[3.0, 3.1], [2.0, 0.0], [0.0, 0.5], [1.0, 0.0]])
        >>> expert_choice(scores, capacity=2).loads.tolist()
        [2, 2]
    """
    _refuse(scores, affinity, gates)
    n, bins = scores.shape
    if capacity is not None and capacity_factor is not None:
        raise InputError(f"capacity and capacity_factor={capacity_factor!r} both say how much a bin takes; give one")
    if capacity is None:
        capacity = max(
            1, int(n * number(2.0 if capacity_factor is None else capacity_factor, "capacity_factor") / bins)
        )
    room, felt = _room(capacity, scores), _felt(scores, affinity)
    if per_item is not None:
        _refuse_too_many(per_item, scores)
        return _routes(scores, _settled(felt, room, per_item), affinity, gates)
    return _routes(scores, _highest(felt, room), affinity, gates)


def capped_routing(
    scores: Tensor,
    *,
    capacity: int | Tensor,
    per_item: int = 1,
    overflow: str = "error",
    candidates: int | None = None,
    affinity: str = "none",
    gates: str = "ones",
) -> Routes:
    """Send each item to its best bins, at most `capacity` to a bin, as `kofn.assignment.capped_routing` does.

    Same arguments, same routes, ties to the lowest bin and in a bin to the lowest item. Under "reroute" all refused
    items ask at once, round after round; each round costs O(n bins) and a top-k of each column.

    Examples:
        >>> import torch
        >>> from kofn.nn import capped_routing
        >>> scores = torch.tensor([[9.0, 1.0], [8.0, 5.0], [7.0, 6.0]])
        >>> capped_routing(scores, capacity=2, overflow="reroute").bins.tolist()
        [0, 0, 1]
    """
    choice(overflow, "overflow", ("error", "drop", "reroute"))
    _refuse(scores, affinity, gates)
    _refuse_too_many(per_item, scores)
    if candidates is not None and count(candidates, "candidates") < per_item:
        raise InputError(f"candidates={candidates} for per_item={per_item}; let an item ask for at least per_item bins")
    room, table = _room(capacity, scores), scores.detach()
    listed = table > -torch.inf
    able = listed if candidates is None else _first(table, min(candidates, scores.shape[1]))
    ranked = table if affinity == "none" else _felt(scores, affinity)
    felt = torch.where(able, ranked, -torch.inf)
    if overflow == "reroute":
        return _routes(scores, _settled(felt, room, per_item), affinity, gates)
    asked = _first(felt, per_item)
    if overflow == "error":
        short = int((listed.sum(dim=1) < per_item).sum())
        over = (asked.sum(dim=0) - room).clamp(min=0)
        if short or over.any():
            what = (
                f"{short} items list fewer than per_item={per_item} bins"
                if short
                else (f"bin {int(over.argmax())} is chosen {int(over.max())} times more often than its capacity allows")
            )
            raise InfeasibleError(f"{what}; use overflow='reroute' or 'drop'")
        return _routes(scores, asked, affinity, gates)
    return _routes(scores, _highest(torch.where(asked, felt, -torch.inf), room), affinity, gates)


def soft_mixing(scores: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How much of each item is in what each bin processes: softmax over the items, as `kofn.assignment.soft_mixing`.

    Args:
        scores: (..., n, bins) controller logits; each table (n, bins) is a group of its own. -inf where an item is to
            stay out of a bin.
        temperature: what the scores are divided by; 0 gives each bin its highest item alone, the limit.

    Returns:
        (..., n, bins) weights; each column sums to 1, unless no item lists the bin: then to 0.

    Examples:
        >>> import torch
        >>> from kofn.nn import soft_mixing
        >>> soft_mixing(torch.tensor([[0.0, 3.0], [0.0, 1.0]]), temperature=0).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """
    if scores.ndim < 2:
        raise InputError(f"scores has shape {tuple(scores.shape)}; give (..., n, bins)")
    _refuse_values(scores)
    heat = number(temperature, "temperature")
    listed = scores > -torch.inf
    able = torch.where(listed.any(dim=-2, keepdim=True), scores, 0.0)
    if heat == 0:
        best = able.argmax(dim=-2, keepdim=True)
        return torch.zeros_like(able).scatter(-2, best, 1.0) * listed
    # Taken from the highest, so that no temperature is too low.
    below = able - able.detach().amax(dim=-2, keepdim=True)
    return torch.where(listed, torch.softmax(below / heat, dim=-2), 0.0)


def balance_loss(routes: Routes, *, affinity: str = "softmax") -> Tensor:
    """The usual auxiliary loss: bins x sum over bins of (share of the routes) x (mean affinity); 1 where both are even.

    References:
        Fedus, Zoph & Shazeer 2022, Switch Transformers (JMLR 23), equations 4-6.

    Examples:
        >>> import torch
        >>> from kofn.nn import balance_loss, token_choice
        >>> balance_loss(token_choice(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))).item()
        1.0
    """
    choice(affinity, "affinity", ("softmax", "sigmoid"))
    felt = torch.exp(_logs(routes.scores, affinity))
    share = felt / felt.sum(dim=1, keepdim=True).clamp_min(torch.finfo(felt.dtype).tiny)
    loads = routes.loads / max(len(routes.bins), 1)
    return len(loads) * (loads * share.mean(dim=0)).sum()


class Router(torch.nn.Module):
    """A linear map from tokens to scores, and the route that these take.

    Args:
        width: of the tokens.
        bins: how many experts there are.
        route: from scores (n, bins) to `Routes`, such as `functools.partial(expert_choice, capacity_factor=2.0)`.
    """

    def __init__(self, width: int, bins: int, route: Callable[[Tensor], Routes]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(count(width, "width"), count(bins, "bins"), bias=False)
        self.route = route

    def forward(self, x: Tensor) -> Routes:
        """(n, width) tokens to their routes; scores are worked out in float32 or wider."""
        scores = self.linear(x)
        return self.route(scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores)


class TopKRouter(Router):
    """Each token to its best experts, weighted by softmax over those alone: the router of Mixtral.

    Args:
        width: of the tokens.
        bins: how many experts there are.
        per_item: how many of them a token goes to.
        affinity, gates: as in `token_choice`; gates="raw" is that of Switch.

    References:
        Jiang et al. 2024, Mixtral of Experts (arXiv 2401.04088), section 2.1.

    Examples:
        >>> import torch
        >>> from kofn.nn import TopKRouter
        >>> TopKRouter(16, 8, per_item=2)(torch.randn(5, 16)).dense().sum(dim=1).allclose(torch.ones(5))
        True
    """

    def __init__(
        self, width: int, bins: int, per_item: int = 2, *, affinity: str = "softmax", gates: str = "share"
    ) -> None:
        super().__init__(
            width, bins, functools.partial(token_choice, per_item=per_item, affinity=affinity, gates=gates)
        )
        if count(per_item, "per_item") > bins:
            raise InputError(f"per_item={per_item} of {bins} bins; ask for per_item <= {bins}")


class BiasRouter(TopKRouter):
    """Balance without an auxiliary loss: the torch form of `kofn.assignment.BiasRouter`.

    A bias of each expert is added to its affinity when experts are chosen, never in the gates; in training each batch
    moves the biases by `gamma`, up where the load was below the mean, down where above it.

    Args:
        width, bins, per_item: as in `TopKRouter`.
        gamma: the step of the biases, in units of the affinity.
        affinity: "sigmoid" (DeepSeek-V3) or "softmax".
        gates: as in `token_choice`.

    References:
        Wang, Gao, Zhao, Sun & Dai 2024, Auxiliary-Loss-Free Load Balancing (arXiv 2408.15664), algorithm 1.
    """

    bias: Tensor

    def __init__(
        self,
        width: int,
        bins: int,
        per_item: int = 2,
        *,
        gamma: float = 0.001,
        affinity: str = "sigmoid",
        gates: str = "share",
    ) -> None:
        choice(affinity, "affinity", ("sigmoid", "softmax"))
        super().__init__(width, bins, per_item, affinity=affinity, gates=choice(gates, "gates", _GATES))
        self.gamma = float(number(gamma, "gamma"))
        self.register_buffer("bias", torch.zeros(bins, dtype=torch.float64))
        self.route = functools.partial(self._route, per_item, affinity, gates)

    def _route(self, per_item: int, affinity: str, gates: str, scores: Tensor) -> Routes:
        _refuse(scores, affinity, gates)
        routes = _routes(scores, _first(_felt(scores, affinity) + self.bias, per_item), affinity, gates)
        if self.training:
            loads = routes.loads.to(self.bias.dtype)
            self.bias += self.gamma * torch.sign(loads.mean() - loads)
        return routes


class MixtureOfExperts(torch.nn.Module):
    """A sparse layer: each token goes through the experts it is routed to, and these alone, and their outputs add up.

    Args:
        router: a module from (n, width) to `Routes`: `TopKRouter` (Mixtral), `BiasRouter`, `Router` with any route.
        experts: the `Experts`, or a `ModuleList` of any modules that take and give rows.

    An expert computes nothing for tokens that are not its own; tokens that no expert takes come out as zero. The
    layer equals the sum over all experts with the gates of the others set to zero.

    References:
        Jiang et al. 2024, Mixtral of Experts (arXiv 2401.04088), section 2.1: 8 SwiGLU experts, 2 for each token.

    Examples:
        >>> import torch
        >>> from kofn.nn import Experts, MixtureOfExperts, TopKRouter, balance_loss
        >>> layer = MixtureOfExperts(TopKRouter(16, 8, per_item=2), Experts(8, 16, 32))
        >>> x = torch.randn(4, 10, 16)
        >>> routes = layer.router(x.flatten(0, 1))
        >>> layer(x, routes=routes).shape, balance_loss(routes).shape
        (torch.Size([4, 10, 16]), torch.Size([]))
    """

    def __init__(self, router: torch.nn.Module, experts: Experts | torch.nn.ModuleList) -> None:
        super().__init__()
        self.router, self.experts = router, experts

    def forward(self, x: Tensor, *, routes: Routes | None = None) -> Tensor:
        """(..., width) to (..., outputs); `routes` where the router was already asked for the flattened tokens."""
        rows = x.reshape(-1, x.shape[-1])
        routes = self.router(rows) if routes is None else routes
        order = routes.bins.argsort(stable=True)
        items, gates = routes.items[order], routes.weights[order].unsqueeze(1)
        # Experts without tokens run on none, so that the output has its shape whoever is chosen.
        parts = [self.experts[j](rows[held]) for j, held in enumerate(items.split(routes.loads.tolist()))]
        found = torch.cat(parts)
        out = found.new_zeros(len(rows), found.shape[1]).index_add(0, items, found * gates.to(found.dtype))
        return out.reshape(*x.shape[:-1], found.shape[1])


class MixtureOfTokens(torch.nn.Module):
    """Mixtures of tokens instead of routes (MoT): differentiable all through, loads equal by construction.

    Tokens **at the same position of different examples** form a group. For each expert a softmax of the controller's
    scores over the group says how much of each token is in the one mixed token that the expert processes; its output
    goes back to the tokens by the same weights. With as many experts as a group has tokens that costs what a dense
    layer does; every expert learns from every token at every step.

    Args:
        width: of the tokens.
        experts: the `Experts`.
        group: how many examples are mixed; the batch must be a multiple of it.
        temperature: of the softmax; an attribute, which may be lowered over time. At 0 each expert takes the highest
            token of the group alone.

    Nothing passes from one position to another. What passes between **examples** is the point: an answer depends
    on the other examples of its group, so that a batch at inference must be made up as one in training.

    References:
        Antoniak, Krutul et al. 2023, "Mixture of Tokens: Continuous MoE through Cross-Example Aggregation" (NeurIPS
        2024, arXiv 2310.15961).

    Examples:
        >>> import torch
        >>> from kofn.nn import Experts, MixtureOfTokens
        >>> layer = MixtureOfTokens(16, Experts(8, 16, 64, activation="relu"), group=4)
        >>> layer(torch.randn(8, 10, 16)).shape
        torch.Size([8, 10, 16])
    """

    def __init__(self, width: int, experts: Experts, *, group: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.controller = torch.nn.Linear(count(width, "width"), len(experts), bias=False)
        self.experts, self.group = experts, count(group, "group")
        self.temperature = float(number(temperature, "temperature"))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, width) to (batch, positions, outputs)."""
        if x.ndim != 3:
            raise InputError(f"x has shape {tuple(x.shape)}; give (batch, positions, width)")
        batch, positions, width = x.shape
        if batch % self.group:
            raise InputError(
                f"x holds {batch} examples, group={self.group}; pad the batch to {-(-batch // self.group) * self.group}"
            )
        tokens = x.transpose(0, 1).reshape(-1, self.group, width)
        weights = soft_mixing(self.controller(tokens), temperature=self.temperature)
        # (groups, experts, width) and back; each expert runs on its own mixture of each group.
        found = self.experts((weights.mT @ tokens).transpose(0, 1)).transpose(0, 1)
        return (weights @ found).reshape(positions, batch, -1).transpose(0, 1)


def _refuse(scores: Tensor, affinity: str, gates: str) -> None:
    choice(affinity, "affinity", _AFFINITIES)
    choice(gates, "gates", _GATES)
    if scores.ndim != 2:
        raise InputError(f"scores has shape {tuple(scores.shape)}; give (n, bins), one score for each item and bin")
    _refuse_values(scores)


def _refuse_values(scores: Tensor) -> None:
    if torch.isnan(scores).any() or (scores == torch.inf).any():
        raise InputError("scores hold NaN or +inf; give finite scores, or -inf where an item does not list a bin")


def _refuse_too_many(per_item: int, scores: Tensor) -> None:
    if count(per_item, "per_item") > scores.shape[1]:
        raise InputError(f"per_item={per_item} of {scores.shape[1]} bins; ask for per_item <= {scores.shape[1]}")


def _room(capacity: int | Tensor, scores: Tensor) -> Tensor:
    """(bins,) what each bin holds."""
    room = torch.as_tensor(capacity, device=scores.device)
    if room.ndim > 1 or (room.ndim and len(room) != scores.shape[1]):
        raise InputError(f"capacity has shape {tuple(room.shape)}; give one number, or one for each bin")
    if room.is_floating_point() or (room < 0).any():
        raise InputError(f"capacity={capacity!r}: give whole numbers >= 0")
    return room.broadcast_to(scores.shape[1:]).clamp(max=len(scores))


def _logs(scores: Tensor, affinity: str) -> Tensor:
    """(n, bins) logarithms of the affinities, -inf where an item does not list a bin."""
    if affinity == "sigmoid":
        return torch.where(scores > -torch.inf, functional.logsigmoid(scores), -torch.inf)
    # A row that lists nothing has no sum; it is given one, and then left out.
    able = torch.where((scores > -torch.inf).any(dim=1, keepdim=True), scores, 0.0)
    return torch.where(scores > -torch.inf, able - able.logsumexp(dim=1, keepdim=True), -torch.inf)


def _felt(scores: Tensor, affinity: str) -> Tensor:
    """(n, bins) what items and bins rank by, in float64 as the NumPy form has it."""
    table = scores.detach().double()
    return table if affinity == "none" else torch.where(table > -torch.inf, _logs(table, affinity).exp(), -torch.inf)


def _first(table: Tensor, per_item: int) -> Tensor:
    """(n, bins) True for the highest entries of each row that are listed."""
    most = torch.full((len(table),), per_item, device=table.device)
    return _rows_top(table, most) & (table > -torch.inf)


def _highest(table: Tensor, room: Tensor) -> Tensor:
    """(n, bins) True for the highest entries of each column that are listed."""
    return _rows_top(table.T, room).T & (table > -torch.inf)


def _settled(felt: Tensor, room: Tensor, per_item: int) -> Tensor:
    """(n, bins) True for the routes of deferred acceptance: the refused ask on until nobody wants to."""
    rank = felt.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    listed = felt > -torch.inf
    held, asked = torch.zeros_like(listed), torch.zeros_like(listed)
    while True:
        done = asked.sum(dim=1, keepdim=True)
        asks = (rank >= done) & (rank < done + per_item - held.sum(dim=1, keepdim=True)) & listed
        if not asks.any():
            return held
        asked |= asks
        held = _highest(torch.where(held | asks, felt, -torch.inf), room)


def _routes(scores: Tensor, kept: Tensor, affinity: str, gates: str) -> Routes:
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
        logs = _logs(scores, affinity)
    if gates == "share":
        logs = torch.where(kept, logs, -torch.inf)
        # Items without a route have no share; they are left out below.
        logs = torch.where(kept.any(dim=1, keepdim=True), logs, 0.0)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    weights = logs[items, bins].exp()
    return Routes(scores, items, bins, weights.clamp_min(torch.finfo(torch.float32).tiny))
