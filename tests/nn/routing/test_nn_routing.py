"""Routes in torch against those of NumPy, and their gradients."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from claims.harness import moe
from kofn import assignment, nn
from kofn.core.checks import InfeasibleError, InputError


def table(seed: int, n: int = 9, bins: int = 4) -> np.ndarray:
    """Scores with ties and unlisted bins on odd seeds, an item that lists nothing on every fifth."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, bins)).astype(np.float32)
    if seed % 2:
        scores = rng.integers(-2, 3, (n, bins)).astype(np.float32)
        scores[rng.random((n, bins)) < 0.15] = -np.inf
    if seed % 5 == 1:
        scores[2] = -np.inf
    return scores


def same(routes: nn.Routes, plan: Any, tolerance: float = 1e-6) -> None:
    rows = np.repeat(np.arange(plan.n), np.diff(plan.indptr))
    assert routes.items.tolist() == rows.tolist()
    assert routes.bins.tolist() == plan.bins.tolist()
    assert np.allclose(routes.weights.detach().numpy(), plan.weights, rtol=tolerance, atol=1e-30)
    assert routes.loads.tolist() == np.bincount(plan.bins, minlength=plan.k).tolist()
    held = routes.dense()
    assert held.shape == (plan.n, plan.k)
    assert torch.equal(held[routes.items, routes.bins], routes.weights)


@pytest.mark.parametrize("seed", range(20))
def test_routes_are_those_of_numpy(seed: int) -> None:
    scores, rng = table(seed), np.random.default_rng([seed, 1])
    tensor = torch.tensor(scores)
    per_item, room = int(rng.integers(1, 5)), rng.integers(0, 6, 4)
    kinds = [("softmax", gates) for gates in ("share", "raw", "ones")]
    kinds += [("sigmoid", gates) for gates in ("share", "raw")] + [("none", "ones")]
    for affinity, gates in kinds:
        words: dict[str, Any] = {"affinity": affinity, "gates": gates}
        same(
            nn.token_choice(tensor, per_item=per_item, **words),
            assignment.token_choice(scores, per_item=per_item, **words),
        )
        for more in ({}, {"capacity_factor": 1.5}, {"capacity": 3}, {"capacity": 2, "per_item": per_item}):
            same(nn.expert_choice(tensor, **more, **words), assignment.expert_choice(scores, **more, **words))
        same(
            nn.expert_choice(tensor, capacity=torch.tensor(room), **words),
            assignment.expert_choice(scores, capacity=room, **words),
        )
        for overflow in ("drop", "reroute"):
            for candidates in (None, min(4, per_item + 1)):
                call: dict[str, Any] = {"per_item": per_item, "overflow": overflow, "candidates": candidates, **words}
                same(
                    nn.capped_routing(tensor, capacity=torch.tensor(room), **call),
                    assignment.capped_routing(scores, capacity=room, **call),
                )


def test_routes_of_a_table_large_enough_for_compiled_code() -> None:
    scores = np.random.default_rng(0).integers(0, 40, (4000, 16)).astype(np.float32)
    for words in ({"overflow": "drop"}, {"overflow": "reroute"}):
        same(
            nn.capped_routing(torch.tensor(scores), capacity=520, per_item=2, **words),
            assignment.capped_routing(scores, capacity=520, per_item=2, **words),
        )


def test_positive_scores_may_weigh_as_they_are() -> None:
    scores = np.random.default_rng(0).random((6, 3)).astype(np.float32)
    for gates in ("raw", "share"):
        words = {"per_item": 2, "affinity": "none", "gates": gates}
        same(nn.token_choice(torch.tensor(scores), **words), assignment.token_choice(scores, **words))


def test_error_refuses_what_does_not_fit() -> None:
    scores = torch.tensor([[2.0, 1.0], [3.0, 0.0], [1.0, 4.0]])
    same(nn.capped_routing(scores, capacity=2), assignment.capped_routing(scores.numpy(), capacity=2))
    with pytest.raises(InfeasibleError, match="bin 0 is chosen 1 times more often"):
        nn.capped_routing(scores, capacity=1)
    with pytest.raises(InfeasibleError, match="1 items list fewer than per_item=2"):
        nn.capped_routing(torch.tensor([[0.0, 1.0], [-math.inf, 1.0]]), capacity=3, per_item=2)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("temperature", [0, 0.3, 1.0])
def test_mixtures_are_those_of_numpy(seed: int, temperature: float) -> None:
    scores = table(seed)
    groups = np.random.default_rng([seed, 2]).integers(0, 3, len(scores))
    plan = assignment.soft_mixing(scores, groups=groups, temperature=temperature)
    ours = np.zeros(scores.shape)
    ours[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    for group in np.unique(groups):
        rows = groups == group
        theirs = nn.soft_mixing(torch.tensor(scores[rows]), temperature=temperature).numpy()
        assert np.allclose(ours[rows], theirs, atol=1e-6)
        assert np.allclose(theirs.sum(axis=0), (scores[rows] > -np.inf).any(axis=0))
    listing = sum((scores[groups == group] > -np.inf).any(axis=0).sum() for group in np.unique(groups))
    assert plan.info["empty"] == 4 * len(np.unique(groups)) - listing
    assert plan.col_margin.sum() == pytest.approx(listing)


def test_mixtures_at_extremes() -> None:
    scores = np.array([[1e300, -2e299], [0.0, -np.inf], [-1e300, -2e299]])
    plan = assignment.soft_mixing(scores, temperature=1e-3)
    assert plan.value == pytest.approx(8e299)
    assert plan.col_margin.tolist() == [1.0, 1.0]
    cold = assignment.soft_mixing(scores, temperature=0)
    assert (cold.indptr.tolist(), cold.bins.tolist()) == ([0, 2, 2, 2], [0, 1])
    with pytest.raises(InputError, match="temperature=-1"):
        assignment.soft_mixing(scores, temperature=-1)
    with pytest.raises(InputError, match="give \\(n, bins\\)"):
        assignment.soft_mixing(np.ones(3))


def test_biases_move_as_those_of_numpy() -> None:
    rng = np.random.default_rng(3)
    theirs = assignment.BiasRouter(6, per_item=2, gamma=0.01)
    ours = nn.BiasRouter(5, 6, gamma=0.01).double()
    for _ in range(30):
        x = torch.tensor(rng.normal(size=(40, 5)) + 0.5)
        same(ours(x), theirs.update(ours.linear(x).detach().numpy()))
        assert np.allclose(ours.bias.numpy(), theirs.bias, atol=1e-12)
    held = ours.bias.clone()
    assert held.abs().max() > 0.05
    ours.eval()(x)
    assert torch.equal(ours.bias, held)
    assert "bias" in ours.state_dict()


def test_gradients_of_the_gates_are_those_of_finite_differences() -> None:
    scores = torch.tensor(table(0), dtype=torch.float64, requires_grad=True)
    for affinity in ("softmax", "sigmoid"):
        for gates in ("share", "raw"):
            route = partial(nn.token_choice, per_item=2, affinity=affinity, gates=gates)
            assert torch.autograd.gradcheck(lambda s, route=route: route(s).dense(), scores)
    assert torch.autograd.gradcheck(partial(nn.soft_mixing, temperature=0.5), scores)
    masked = torch.tensor(table(1), dtype=torch.float64, requires_grad=True)
    assert (masked[2] == -torch.inf).all()
    (nn.token_choice(masked, per_item=2).weights.square().sum() + nn.soft_mixing(masked).square().sum()).backward()
    assert torch.isfinite(masked.grad).all()


def test_balance_loss() -> None:
    scores = torch.tensor(table(0, 40), requires_grad=True)
    routes = nn.token_choice(scores, per_item=2)
    load = torch.bincount(routes.bins, minlength=4) / 80
    assert nn.balance_loss(routes).item() == pytest.approx(
        float(4 * (load * scores.softmax(dim=1).mean(dim=0)).sum().detach())
    )
    nn.balance_loss(routes).backward()
    mask = np.zeros((40, 4), bool)
    mask[routes.items, routes.bins] = True
    assert np.allclose(scores.grad, moe.balance_slope(scores.detach().numpy(), mask, "softmax", 1.0), atol=1e-7)
    assert nn.balance_loss(nn.token_choice(torch.zeros(3, 2), affinity="sigmoid"), affinity="sigmoid").item() == 1


BAD: dict[str, tuple[Any, str]] = {
    "flat scores": (lambda: nn.token_choice(torch.ones(3)), r"give \(n, bins\)"),
    "NaN": (lambda: nn.token_choice(torch.full((2, 2), math.nan)), "NaN or"),
    "too many bins": (lambda: nn.token_choice(torch.ones(2, 2), per_item=3), "per_item=3 of 2 bins"),
    "no such affinity": (lambda: nn.token_choice(torch.ones(2, 2), affinity="tanh"), "affinity='tanh'"),
    "no such gates": (lambda: nn.token_choice(torch.ones(2, 2), gates="half"), "gates='half'"),
    "scores of no weight": (
        lambda: nn.token_choice(torch.zeros(2, 2), affinity="none"),
        "some routes score 0 or less",
    ),
    "two capacities": (lambda: nn.expert_choice(torch.ones(2, 2), capacity=1, capacity_factor=1.0), "give one"),
    "capacity of another length": (
        lambda: nn.capped_routing(torch.ones(2, 2), capacity=torch.ones(3, dtype=torch.long)),
        r"capacity has shape \(3,\)",
    ),
    "half a place": (lambda: nn.expert_choice(torch.ones(2, 2), capacity=0.5), "whole numbers >= 0"),
    "few candidates": (
        lambda: nn.capped_routing(torch.ones(2, 2), capacity=1, per_item=2, candidates=1),
        "candidates=1 for per_item=2",
    ),
    "no such overflow": (lambda: nn.capped_routing(torch.ones(2, 2), capacity=1, overflow="wait"), "overflow='wait'"),
    "a row": (lambda: nn.soft_mixing(torch.ones(3)), r"give \(..., n, bins\)"),
    "below zero": (lambda: nn.soft_mixing(torch.ones(2, 2), temperature=-1), "temperature=-1"),
    "router of too many": (lambda: nn.TopKRouter(4, 2, per_item=3), "per_item=3 of 2 bins"),
    "biased scores": (lambda: nn.BiasRouter(4, 2, affinity="none"), "affinity='none'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    run, says = BAD[case]
    with pytest.raises(InputError, match=says):
        run()
