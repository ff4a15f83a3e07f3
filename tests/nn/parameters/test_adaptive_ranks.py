"""AdaLoRA's module: the same ranks as PEFT's, step by step, and what it leaves of a model."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

torch = pytest.importorskip("torch")

from kofn.nn import AdaptiveRanks, LowRankUpdate  # noqa: E402

SETTINGS = {"steps": 30, "warmup": 4, "final": 6, "every": 3}


def model(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))


def train(net: torch.nn.Module, after: object, steps: int, penalty: object = None) -> None:
    generator = torch.Generator().manual_seed(7)
    x, y = torch.randn(64, 6, generator=generator), torch.randn(64, 5, generator=generator)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.3)
    for _ in range(steps):
        loss = (net(x) - y).square().mean()
        (loss if penalty is None else loss + 0.1 * penalty()).backward()
        optimizer.step()
        after()
        optimizer.zero_grad()


def test_a_tied_layer_is_replaced_under_all_names() -> None:
    layer = torch.nn.Linear(6, 6)
    net = torch.nn.Sequential(layer, torch.nn.Sequential(torch.nn.Tanh(), layer))
    ranks = AdaptiveRanks(net, 2, rank=2, steps=5)
    assert net[0] is net[1][1] is ranks.layers["0"]
    assert ranks.layers.keys() == {"0"}


def test_gradients_from_before_move_no_frozen_parameter() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.ones(2, 6)).sum().backward()
    before = net[0].bias.detach().clone()
    AdaptiveRanks(net, 2, rank=2, steps=5)
    optimizer.step()
    assert torch.equal(net[0].linear.bias, before)


def test_ranks_and_weights_are_those_of_peft() -> None:
    peft = pytest.importorskip("peft")
    ours, theirs = model(), model()
    ranks = AdaptiveRanks(ours, 4, rank=3, alpha=8.0, **SETTINGS)
    config = peft.AdaLoraConfig(
        target_modules=["0", "2"],
        init_r=3,
        target_r=2,
        lora_alpha=8,
        tinit=SETTINGS["warmup"],
        tfinal=SETTINGS["final"],
        deltaT=SETTINGS["every"],
        total_step=SETTINGS["steps"],
        orth_reg_weight=0.1,
    )
    wrapped = peft.get_peft_model(theirs, config)
    allocator = wrapped.base_model.rankallocator
    layers = {name: wrapped.base_model.model.get_submodule(name) for name in ("0", "2")}
    with torch.no_grad():
        for name, layer in layers.items():
            layer.lora_A["default"].copy_(ranks.layers[name].right)
            layer.lora_B["default"].copy_(ranks.layers[name].left)
            layer.lora_E["default"].zero_()
            # Theirs divides by the rank plus 1e-5.
            layer.ranknum["default"].fill_(3 - 1e-5)
    count = 0

    def of_peft() -> None:
        nonlocal count
        count += 1
        budget, _ = allocator.update_and_allocate(wrapped.base_model, count)
        budgets.append(budget)

    def of_ours() -> None:
        ranks.step()
        own.append(ranks.budget.current_budget)

    budgets: list[int] = []
    own: list[int] = []
    train(ours, of_ours, 30)
    train(wrapped, of_peft, 30)
    assert own == budgets
    for name, layer in layers.items():
        update = ranks.layers[name]
        np.testing.assert_allclose(update.values.detach(), layer.lora_E["default"].detach()[:, 0], atol=1e-5)
        np.testing.assert_allclose(update.delta().detach(), layer.get_delta_weight("default").detach(), atol=1e-5)


def test_the_budget_is_kept_the_base_is_frozen_and_the_adapters_are_the_update() -> None:
    net = model()
    before = [net[0].weight.clone(), net[2].bias.clone()]
    ranks = AdaptiveRanks(net, 3, rank=3, **SETTINGS)
    train(net, ranks.step, 30, ranks.orthogonality)
    assert ranks.plan.amounts.sum() == 3
    assert torch.equal(net[0].linear.weight, before[0])
    assert torch.equal(net[2].linear.bias, before[1])
    assert sum(int((layer.values != 0).sum()) for layer in ranks.layers.values()) == 3
    for name, (a, b) in ranks.adapters().items():
        np.testing.assert_allclose(b @ a, ranks.layers[name].delta().detach(), atol=1e-6)


def test_going_on_from_a_state_gives_the_same() -> None:
    net = model()
    ranks = AdaptiveRanks(net, 3, rank=3, **SETTINGS)
    train(net, ranks.step, 9)
    state = ranks.state_dict()
    other = model()
    again = AdaptiveRanks(other, 3, rank=3, **SETTINGS)
    other.load_state_dict(net.state_dict())
    again.load_state_dict(state)
    train(net, ranks.step, 12)
    train(other, again.step, 12)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert (ranks.budget.active == again.budget.active).all()


def test_refusals() -> None:
    refused(lambda: LowRankUpdate(torch.nn.ReLU(), 2), "linear is ReLU")
    refused(lambda: AdaptiveRanks(torch.nn.Sequential(torch.nn.ReLU()), 1, rank=1, steps=5), "no torch.nn.Linear")
    refused(lambda: AdaptiveRanks(model(), 1, rank=1, steps=5, only="9"), "'9' matches nothing")
    refused(lambda: AdaptiveRanks(model(), 1, rank=1, steps=5, smoothing=1), "smoothing=1: nothing new")
    refused(lambda: AdaptiveRanks(model(), 1, rank=1, steps=5).step(), "has no gradient")
    refused(lambda: AdaptiveRanks(model(), 1, rank=1, steps=5).load_state_dict({}), "state['smoothed']")
