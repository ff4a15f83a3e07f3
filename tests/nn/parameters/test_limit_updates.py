"""Layers of which a part learns: the rest stays bit for bit whatever the optimiser does."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
from refusals import refused

torch = pytest.importorskip("torch")

from kofn.nn import QuantizedLinear, limit_updates  # noqa: E402

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, weight_decay=0.1),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-2, weight_decay=0.1),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, foreach=True),
}


def test_only_what_was_chosen_moves() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), QuantizedLinear(torch.nn.Linear(6, 3)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert limit_updates(model, {"0": 0.5, "2": 1.0}, biases=1) == 4 * 6 + 18 + 3
    (model(torch.randn(9, 8)).square().mean()).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    after = model.state_dict()
    assert torch.equal(after["0.weight"][:, 4:], before["0.weight"][:, 4:])
    assert not torch.equal(after["0.weight"][:, :4], before["0.weight"][:, :4])
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert not torch.equal(after["2.bias"], before["2.bias"])


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), QuantizedLinear(torch.nn.Linear(4, 3)))


def trained(model: Any, optimizer: Any, steps: int = 5) -> None:
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def moved(model: Any, before: dict[str, Any]) -> dict[str, list[int]]:
    """The columns of each tensor that changed, bit for bit."""
    return {
        name: (value != before[name]).reshape(-1, value.shape[-1]).any(dim=0).nonzero()[:, 0].tolist()
        for name, value in model.state_dict().items()
    }


def copied(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("early", [False, True])
def test_the_frozen_part_stays_under_weight_decay_and_momentum(name: str, early: bool) -> None:
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    if early:  # momentum and gradients from before the limits
        trained(model, optimizer)
    before = copied(model)
    limit_updates(model, {"0": 0.25, "2": 0.5})
    trained(model, optimizer)
    assert moved(model, before) == {"0.weight": [0, 1], "0.bias": [], "2.integers": [0, 1], "2.bias": []}


def pickled(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assigned(model: Any) -> Any:
    model.load_state_dict(copied(model), assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "0.weight")
    return model


@pytest.mark.parametrize("copy_of", [copy.deepcopy, pickled, assigned])
def test_copies_keep_the_limits(copy_of: Callable[[Any], Any]) -> None:
    model = network()
    limit_updates(model, {"0": 0.25})
    other = copy_of(model)
    before = copied(other)
    trained(other, torch.optim.AdamW(other.parameters(), lr=1e-2))
    assert moved(other, before)["0.weight"] == [0, 1]
    assert not other[0].weight.grad[:, 2:].any()


def test_another_call_replaces_the_limits() -> None:
    model = network()
    limit_updates(model, {"0": 0.25})
    for share, columns in ((0.5, 4), (1.0, 8), (0.125, 1)):
        before = copied(model)
        limit_updates(model, {"0": share})
        trained(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
        assert moved(model, before)["0.weight"] == list(range(columns))


def test_a_state_that_is_loaded_is_the_one_that_stays() -> None:
    model, other = network(), network()
    limit_updates(model, {"0": 0.25})
    trained(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    with torch.no_grad():
        other[0].weight.add_(1.0)
    model.load_state_dict(other.state_dict())
    trained(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    assert moved(model, copied(other))["0.weight"] == [0, 1]


def test_a_tied_layer_has_all_its_names() -> None:
    layer = torch.nn.Linear(4, 4)
    model = torch.nn.Sequential(layer, layer)
    assert limit_updates(model, {"1": 0.5}, biases=1) == 8 + 4
    refused(lambda: limit_updates(model, {"0": 0.5, "1": 1.0}), "shares names '0' and '1', which have one weight")


def test_refusals() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    refused(lambda: limit_updates(model, {"1": 1.0}), "shares names '1'")
    refused(lambda: limit_updates(model, {"0": 2.0}), "shares['0']")
    refused(lambda: limit_updates(model, {}, biases=2), "biases=2 of 1 layers")
