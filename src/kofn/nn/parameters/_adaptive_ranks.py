"""Low-rank updates whose ranks move between layers while they are trained (AdaLoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kofn.allocation.parameters._rank_budget import RankBudget
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.plans import Allocation
from kofn.core.torch_module import module
from kofn.nn._models import freeze, linear_layers, replace_layers

# Standard deviation that the directions start with.
_START = 0.02


@module(form_of=None, paper=372, aliases=("SVD adapter", "low-rank update", "LoRA layer"))
class LowRankUpdate(nn.Module):
    """Linear layer with a frozen weight and a trained update P diag(values) Q of a few directions.

    Args:
        linear: the `torch.nn.Linear`, whose parameters are frozen in place.
        rank: how many directions.
        alpha: factor of the update, which is divided by the rank.

    The update is zero at first: `values` start at 0, `left` (out, rank) and `right` (rank, in) at small random numbers.

    References:
        Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", ICLR, arXiv 2303.10512.

    Examples:
        >>> import torch
        >>> from kofn.nn import LowRankUpdate
        >>> layer = LowRankUpdate(torch.nn.Linear(4, 3), rank=2)
        >>> layer(torch.ones(5, 4)).shape, [name for name, p in layer.named_parameters() if p.requires_grad]
        (torch.Size([5, 3]), ['left', 'values', 'right'])
    """

    def __init__(self, linear: nn.Linear, rank: int, *, alpha: float = 1.0) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise InputError(f"linear is {type(linear).__name__}; give a torch.nn.Linear")
        rank = checks.count(rank, "rank")
        freeze(linear)
        self.linear = linear
        self.scale = float(checks.number(alpha, "alpha")) / rank
        like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.left = nn.Parameter(_START * torch.randn(linear.out_features, rank, **like))
        self.values = nn.Parameter(torch.zeros(rank, **like))
        self.right = nn.Parameter(_START * torch.randn(rank, linear.in_features, **like))

    @property
    def rank(self) -> int:
        """How many directions there are, kept ones and others."""
        return self.values.shape[0]

    def delta(self) -> Tensor:
        """(out, in) what the update adds to the weight."""
        return (self.left * self.values) @ self.right * self.scale

    def orthogonality(self) -> Tensor:
        """|P'P - I| + |QQ' - I|, Frobenius: how far the directions are from being orthonormal."""
        eye = torch.eye(self.rank, device=self.values.device, dtype=self.values.dtype)
        return (self.left.T @ self.left - eye).norm() + (self.right @ self.right.T - eye).norm()

    def factors(self) -> tuple[Tensor, Tensor]:
        """The LoRA pair (A, B) of the directions that are not zero, whose product B @ A is the update."""
        kept = self.values.detach() != 0
        return self.right.detach()[kept], (self.left * self.values).detach()[:, kept] * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer with the update."""
        out: Tensor = self.linear(x) + (x @ self.right.T * self.values) @ self.left.T * self.scale
        return out


@module(form_of=None, paper=372, aliases=("AdaLoRA", "adaptive LoRA rank", "rank allocation"))
class AdaptiveRanks:
    """AdaLoRA: give the linear layers of a model low-rank updates whose ranks move under one falling budget.

    The layers are replaced by `LowRankUpdate`s in place, a layer that has several names under all of them, and all
    other parameters frozen. Each parameter's sensitivity
    |w x grad| is smoothed, as is its deviation from that; a direction's score is the product of both for its value,
    plus their means over its left and its right vector. `kofn.allocation.RankBudget` keeps the highest scores; the
    values of the others are set to 0, learn on, and come back where their scores do.

    Args:
        model: a module with `torch.nn.Linear` layers.
        budget: how many directions all layers have together at the end.
        rank: how many each layer starts with; the paper takes one and a half times the mean at the end.
        steps: steps of training.
        warmup: steps before the budget falls.
        final: steps at the end during which ranks no longer change.
        every: steps between two choices.
        only: pattern, or several, of the names of the layers.
        alpha: factor of the updates, which are divided by `rank`.
        smoothing: share of the old sensitivity in its moving average.
        deviation_smoothing: likewise of its deviation.

    In the loop: add `coefficient * ranks.orthogonality()` to the loss, then `loss.backward()`, `optimizer.step()`,
    `ranks.step()`, `optimizer.zero_grad()`. `plan` has the layers' ranks, `adapters()` the LoRA pairs of what is kept.

    Raises:
        InputError: no linear layer matches, one whose update has no gradient at a `step`, values out of range.

    Cost: three multiples of the updates' parameters in memory, and a pass over them a step.

    References:
        Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", ICLR, arXiv 2303.10512,
        algorithm 1.

    Examples:
        >>> import torch
        >>> from kofn.nn import AdaptiveRanks
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6))
        >>> ranks = AdaptiveRanks(model, budget=2, rank=2, steps=20, final=5)
        >>> optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
        >>> x = torch.randn(32, 6)
        >>> for _ in range(20):
        ...     loss = (model(x) - x).square().mean() + 0.1 * ranks.orthogonality()
        ...     loss.backward()
        ...     optimizer.step()
        ...     ranks.step()
        ...     optimizer.zero_grad()
        >>> int(ranks.plan.amounts.sum()), sum(len(a) for a, b in ranks.adapters().values())
        (2, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        budget: int,
        *,
        rank: int,
        steps: int,
        warmup: int = 0,
        final: int = 0,
        every: int = 1,
        only: Any = None,
        alpha: float = 1.0,
        smoothing: float = 0.85,
        deviation_smoothing: float = 0.85,
    ) -> None:
        rank = checks.count(rank, "rank")
        self.smoothing = _below_one(smoothing, "smoothing")
        self.deviation_smoothing = _below_one(deviation_smoothing, "deviation_smoothing")
        linears = linear_layers(model, only)
        self.budget = RankBudget([rank] * len(linears), budget, steps=steps, warmup=warmup, final=final, every=every)
        freeze(model)
        self.layers = {name: LowRankUpdate(layer, rank, alpha=alpha) for name, layer in linears.items()}
        replace_layers(model, {layer.linear: layer for layer in self.layers.values()})
        self._smoothed = {key: torch.zeros_like(weight) for key, weight in self._weights()}
        self._deviation = {key: torch.zeros_like(weight) for key, weight in self._weights()}

    def _weights(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{name}.{part}", getattr(layer, part))
            for name, layer in self.layers.items()
            for part in ("left", "values", "right")
        ]

    def orthogonality(self) -> Tensor:
        """The mean of |P'P - I| and |QQ' - I| over all layers, for the loss."""
        total = torch.stack([layer.orthogonality() for layer in self.layers.values()]).sum()
        return total / (2 * len(self.layers))

    @torch.no_grad()
    def step(self) -> None:
        """Score all directions by the gradients that are there, and set to 0 the values of those that are dropped."""
        if self.budget.count + 1 < self.budget.steps - self.budget.final:
            self._learn()
        self.budget.step(self.scores())
        if self.budget.choosing or self.budget.settled:
            keeping = np.split(self.budget.active, np.cumsum(self.budget.ranks)[:-1])
            for layer, kept in zip(self.layers.values(), keeping, strict=True):
                layer.values.masked_fill_(~torch.as_tensor(kept, device=layer.values.device), 0.0)

    def _learn(self) -> None:
        for key, weight in self._weights():
            if weight.grad is None:
                raise InputError(f"{key} has no gradient; call loss.backward() before step(), zero_grad() after it")
            sensitivity = (weight * weight.grad).abs()
            smoothed, deviation = self._smoothed[key], self._deviation[key]
            smoothed.mul_(self.smoothing).add_(sensitivity, alpha=1 - self.smoothing)
            deviation.mul_(self.deviation_smoothing).add_(
                (sensitivity - smoothed).abs(), alpha=1 - self.deviation_smoothing
            )

    def scores(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(directions,) smoothed sensitivity times its deviation, of each value and of the means of its vectors."""
        parts = []
        for name in self.layers:
            weight = {
                part: self._smoothed[f"{name}.{part}"] * self._deviation[f"{name}.{part}"]
                for part in ("left", "values", "right")
            }
            parts.append(weight["values"] + weight["left"].mean(dim=0) + weight["right"].mean(dim=1))
        return torch.cat([part.double().cpu() for part in parts]).numpy()

    @property
    def plan(self) -> Allocation:
        """The layers' ranks now."""
        return self.budget.plan

    def adapters(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The LoRA pair (A, B) of each layer, of the directions that are kept."""
        return {name: layer.factors() for name, layer in self.layers.items()}

    def state_dict(self) -> dict[str, Any]:
        """What going on takes, beside the model's own state."""
        return {
            "budget": self.budget.state_dict(),
            "smoothed": {key: value.clone() for key, value in self._smoothed.items()},
            "deviation": {key: value.clone() for key, value in self._deviation.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            InputError: a state of other layers, ranks or settings.
        """
        for part, own in (("smoothed", self._smoothed), ("deviation", self._deviation)):
            given = state.get(part) if isinstance(state, Mapping) else None
            shapes = {key: value.shape for key, value in own.items()}
            if not isinstance(given, Mapping) or {key: np.shape(value) for key, value in given.items()} != shapes:
                raise InputError(f"state[{part!r}] does not have this model's layers; give what state_dict() returned")
        self.budget.load_state_dict(state["budget"])
        for part, own in (("smoothed", self._smoothed), ("deviation", self._deviation)):
            for key, value in own.items():
                value.copy_(state[part][key])


def _below_one(value: float, name: str) -> float:
    share = checks.fraction(value, name)
    if share == 1:
        raise InputError(f"{name}=1: nothing new would count; give a number below 1")
    return share
