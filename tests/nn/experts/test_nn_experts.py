"""Layers of experts against dense sums, with operations counted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import kofn
from claims.harness import moe
from kofn import nn
from kofn.core.checks import InputError


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


def operations(run: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("activation", ["swiglu", "relu", "gelu"])
def test_sparse_layer_is_the_dense_sum_with_zeroed_gates(activation: str) -> None:
    torch.manual_seed(0)
    experts = nn.Experts(8, 6, 10, outputs=4, activation=activation, bias=True).double()
    layer = nn.MixtureOfExperts(nn.TopKRouter(6, 8, per_item=2), experts).double()
    x = torch.randn(3, 11, 6, dtype=torch.float64, requires_grad=True)
    rows = x.reshape(-1, 6)
    scores = layer.router.linear(rows)
    top, best = scores.topk(2, dim=1)
    gates = torch.zeros_like(scores).scatter(1, best, top.softmax(dim=1))
    assert torch.allclose(gates.sum(dim=1), torch.ones(33, dtype=torch.float64))
    assert torch.allclose(layer.router(rows).dense(), gates)
    whole = torch.stack([experts[j](rows) for j in range(8)], dim=1)
    want = (gates.unsqueeze(2) * whole).sum(dim=1).reshape(3, 11, 4)
    assert torch.allclose(layer(x), want, atol=1e-12)
    assert torch.allclose(experts(rows.expand(8, -1, -1)).transpose(0, 1), whole)
    wanted = torch.autograd.grad(want.square().sum(), [x, *layer.parameters()])
    for ours, theirs in zip(
        torch.autograd.grad(layer(x).square().sum(), [x, *layer.parameters()]), wanted, strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_sparse_layer_computes_two_of_eight() -> None:
    layer = nn.MixtureOfExperts(nn.TopKRouter(16, 8, per_item=2), nn.Experts(8, 16, 32))
    x = torch.randn(2, 50, 16)
    router, expert = 2 * 100 * 16 * 8, 3 * 2 * 100 * 16 * 32
    assert operations(lambda: layer(x)) == router + 2 * expert
    assert operations(lambda: layer.experts(x.reshape(1, 100, 16).expand(8, -1, -1))) == 8 * expert


def test_sparse_layer_takes_any_modules_and_routes() -> None:
    torch.manual_seed(1)
    seen: list[int] = []

    class Counted(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    route = partial(nn.expert_choice, capacity_factor=2.0)
    layer = nn.MixtureOfExperts(nn.Router(4, 3, route), torch.nn.ModuleList(Counted(4, 4) for _ in range(3)))
    x = torch.randn(9, 4)
    out = layer(x)
    assert seen == [6, 6, 6]
    gates = layer.router(x).dense()
    left_out = gates.sum(dim=1) == 0
    assert (out[left_out] == 0).all()
    none = nn.capped_routing(layer.router.linear(x), capacity=0, overflow="drop")
    assert torch.equal(layer(x, routes=none), torch.zeros(9, 4))
    half = nn.MixtureOfExperts(nn.TopKRouter(4, 3), nn.Experts(3, 4, 8)).bfloat16()
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert half.router(x.bfloat16()).weights.dtype == torch.float32


def test_sparse_layer_agrees_with_the_rig_of_the_claims() -> None:
    model = moe.Experts(5, 3, experts=4, width=6, hidden=7, seed=2)
    weights = {name: torch.tensor(weight) for name, weight in model.weights.items()}
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(20, 5)).astype(np.float32), np.eye(3, dtype=np.float32)[rng.integers(0, 3, 20)]
    layer = nn.MixtureOfExperts(nn.TopKRouter(6, 4), nn.Experts(4, 6, 7, activation="relu", bias=True))
    with torch.no_grad():
        layer.router.linear.weight.copy_(weights["router"].T)
        for name, block in (("1", weights["in"]), ("2", weights["out"])):
            getattr(layer.experts, "w" + name).copy_(block[:, :-1].mT)
            getattr(layer.experts, "b" + name).copy_(block[:, -1])
    h = torch.relu(torch.tensor(X) @ weights["embed"][:-1] + weights["embed"][-1])
    predicted = (h + layer(h)) @ weights["head"][:-1] + weights["head"][-1]
    route = partial(kofn.assign, method="token_choice", per_item=2)
    assert np.allclose(predicted.detach(), model.outputs_of(X, lambda scores: route(scores=scores)), atol=1e-5)
    torch.nn.functional.cross_entropy(predicted, torch.tensor(Y.argmax(axis=1))).backward()
    _, slopes, _ = model.gradients(X, Y, lambda scores: route(scores=scores))
    assert np.allclose(layer.router.linear.weight.grad.T, slopes["router"], atol=1e-5)
    assert np.allclose(layer.experts.w1.grad.mT, slopes["in"][:, :-1], atol=1e-5)


def test_mixture_of_tokens_step_by_step() -> None:
    torch.manual_seed(0)
    layer = nn.MixtureOfTokens(6, nn.Experts(5, 6, 8, outputs=3, activation="relu"), group=4, temperature=0.7).double()
    x = torch.randn(8, 3, 6, dtype=torch.float64)
    out = layer(x)
    want = torch.zeros(8, 3, 3, dtype=torch.float64)
    for first in (0, 4):
        for position in range(3):
            tokens = x[first : first + 4, position]
            weights = (layer.controller(tokens) / 0.7).softmax(dim=0)
            for j in range(5):
                answer = layer.experts[j]((weights[:, j : j + 1] * tokens).sum(dim=0))
                want[first : first + 4, position] += weights[:, j : j + 1] * answer
    assert torch.allclose(out, want, atol=1e-12)


def test_mixture_of_tokens_leaks_across_no_position_and_loads_all_alike() -> None:
    torch.manual_seed(0)
    layer = nn.MixtureOfTokens(6, nn.Experts(5, 6, 8), group=4)
    x = torch.randn(8, 7, 6)
    seen: list[torch.Size] = []
    layer.experts.register_forward_hook(lambda _module, given, _out: seen.append(given[0].shape))
    before = layer(x)
    later = x.clone()
    later[:, 4:] = torch.randn(8, 3, 6)
    assert torch.equal(layer(later)[:, :4], before[:, :4])
    apart = x.clone()
    apart[4:] = torch.randn(4, 7, 6)
    assert torch.equal(layer(apart)[:4], before[:4])
    mixed = x.clone()
    mixed[1] = torch.randn(7, 6)
    assert (layer(mixed)[0] != before[0]).any()
    # Each expert processes one token of each of 2 groups x 7 positions, whatever the scores.
    assert set(seen) == {torch.Size([5, 14, 6])}
    with pytest.raises(InputError, match="6 examples, group=4; pad the batch to 8"):
        layer(x[:6])
    with pytest.raises(InputError, match="give \\(batch, positions, width\\)"):
        layer(x[0])


def test_mixture_of_tokens_reaches_every_expert_at_every_step() -> None:
    torch.manual_seed(0)
    tokens = nn.MixtureOfTokens(6, nn.Experts(16, 6, 8, activation="gelu"), group=4)
    routed = nn.MixtureOfExperts(nn.TopKRouter(6, 16, per_item=1, gates="raw"), nn.Experts(16, 6, 8, activation="gelu"))
    optimizer = torch.optim.SGD([*tokens.parameters(), *routed.parameters()], lr=0.1)
    starved = 0
    for _ in range(5):
        x = torch.randn(8, 2, 6)
        optimizer.zero_grad()
        (tokens(x).square().sum() + routed(x).square().sum()).backward()
        assert (tokens.experts.w1.grad.flatten(1).abs().amax(dim=1) > 0).all()
        assert (tokens.controller.weight.grad.abs().amax(dim=1) > 0).all()
        starved += int((routed.experts.w1.grad.flatten(1).abs().amax(dim=1) == 0).sum())
        optimizer.step()
    assert starved > 0


def test_mixture_of_tokens_costs_a_dense_layer() -> None:
    layer = nn.MixtureOfTokens(16, nn.Experts(8, 16, 64, activation="relu"), group=8)
    x = torch.randn(16, 5, 16)
    # The controller, mixing and giving back are linear in the width; the experts see one token for each in the batch.
    around = 3 * 2 * 80 * 16 * 8
    assert operations(lambda: layer(x)) == 2 * 2 * 80 * 16 * 64 + around
    cold = nn.MixtureOfTokens(16, layer.experts, group=8, temperature=0.0)
    weights = nn.soft_mixing(cold.controller(x.transpose(0, 1).reshape(-1, 8, 16)), temperature=0)
    assert sorted(weights.unique().tolist()) == [0.0, 1.0]


@pytest.mark.parametrize("per_item", [1, 4, 8])
def test_merged_linear_experts_are_the_mixture(per_item: int) -> None:
    torch.manual_seed(0)
    router, experts = nn.TopKRouter(6, 8, per_item=per_item), nn.Experts(8, 6, outputs=5, bias=True)
    merged = nn.MergedExperts(router, experts).double()
    mixture = nn.MixtureOfExperts(router, experts)
    x = torch.randn(3, 10, 6, dtype=torch.float64)
    routes = router(x.mean(dim=1))
    gates = routes.dense().repeat_interleave(10, dim=0)
    spread = nn.Routes(gates, *gates.nonzero(as_tuple=True), gates[gates > 0])
    assert torch.allclose(merged(x), mixture(x, routes=spread), rtol=0, atol=1e-12)
    assert torch.equal(merged(x, routes=routes), merged(x))
    task = torch.randn(3, 6, dtype=torch.float64)
    assert torch.allclose(merged(x, task), experts.merge(router(task).dense(), x))
    deep = nn.MergedExperts(nn.TopKRouter(6, 8, per_item=per_item), nn.Experts(8, 6, 9, bias=True)).double()
    gates = deep.router(x.mean(dim=1)).dense().repeat_interleave(10, dim=0)
    spread = nn.Routes(gates, *gates.nonzero(as_tuple=True), gates[gates > 0])
    gap = (deep(x) - nn.MixtureOfExperts(deep.router, deep.experts)(x, routes=spread)).abs().max()
    # One expert alone is itself; several are another function than their mixture.
    assert (gap < 1e-12) if per_item == 1 else (gap > 1e-3)


def test_merging_costs_one_expert_however_many_are_chosen() -> None:
    x = torch.randn(2, 60, 16)
    figures = {}
    for per_item in (1, 4, 8):
        router, experts = nn.TopKRouter(16, 8, per_item=per_item), nn.Experts(8, 16, 32)
        merged = nn.MergedExperts(router, experts)
        rows = router(x.reshape(-1, 16))
        mixture = nn.MixtureOfExperts(router, experts)
        figures[per_item] = operations(lambda m=merged: m(x)), operations(lambda m=mixture, r=rows: m(x, routes=r))
    assert len({ours for ours, _ in figures.values()}) == 1
    one = figures[1][1]
    assert [theirs for _, theirs in figures.values()] == [one, 4 * one, 8 * one]
    assert figures[1][0] < 1.2 * one


def test_merged_members_are_a_weighted_mean() -> None:
    torch.manual_seed(0)
    layer = nn.MergedExperts(nn.TopKRouter(6, 4, per_item=3), nn.Experts(4, 6, 5, bias=True))
    gates = layer.router(torch.randn(1, 6)).dense()
    blend = kofn.combine(
        layer.experts.members(),
        weights=gates[0].detach().numpy(),
        method="weighted_mean",
        options={"normalize": False},
    )
    for name, weight in layer.experts.merged(gates).items():
        assert np.allclose(weight[0].detach(), blend.result[name], atol=1e-6), name


def test_token_attention_starts_from_nothing() -> None:
    torch.manual_seed(0)
    router, experts = nn.TopKRouter(32, 4), nn.Experts(4, 32, 8)
    plain = nn.MergedExperts(router, experts)
    layer = nn.MergedExperts(router, experts, attention=nn.TokenAttention(32, reduce=16))
    x = torch.randn(2, 5, 32)
    assert torch.equal(layer(x), plain(x))
    layer(x).sum().backward()
    assert layer.attention.up.weight.grad.abs().sum() > 0
    with torch.no_grad():
        layer.attention.up.weight.normal_()
    assert not torch.allclose(layer(x), plain(x))
    with pytest.raises(InputError, match="give \\(batch, positions, width\\)"):
        layer(x[0])


def test_refusals() -> None:
    with pytest.raises(InputError, match="activation='tanh'"):
        nn.Experts(2, 2, 2, activation="tanh")
