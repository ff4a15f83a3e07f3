"""Layers that read their weights from one store: the map's weights, and steps that their scale leaves alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

torch = pytest.importorskip("torch")

from kofn.nn import SharedWeights  # noqa: E402


def model(seed: int = 0) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))


X = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))


def test_with_as_many_stored_the_model_is_as_before() -> None:
    net = model()
    before = net(X)
    shared = SharedWeights(net, 80)
    torch.testing.assert_close(net(X), before)
    assert sum(p.numel() for p in net.parameters()) == 80 + 12
    assert shared.stored == shared.weights == 80


def test_weights_are_those_of_the_map() -> None:
    net = model()
    shared = SharedWeights(net, 20, chunk=5, seed=2)
    read = torch.cat([(layer.weight / layer.scale).reshape(-1) for layer in shared.layers.values()])
    expected = shared.store.detach().numpy()[shared.slots.slots] * np.repeat(shared.slots.signs, 5)
    np.testing.assert_allclose(read.detach(), expected, rtol=1e-6)
    assert sum(p.numel() for p in net.parameters()) == 20 + 12
    copied = copy.deepcopy(net)
    with torch.no_grad():
        copied[0].store.add_(1.0)
    assert not torch.equal(copied[2].weight, net[2].weight)
    other = model(5)
    SharedWeights(other, 20, chunk=5, seed=2)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other[0].weight / other[0].scale, net[0].weight / net[0].scale)


def after_descent(deviation: float, rescale: bool, *, steps: int = 20) -> torch.Tensor:
    net = model()
    SharedWeights(net, 20, deviation=deviation, rescale=rescale)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(X) - X[:, :4]).square().mean().backward()
        optimizer.step()
    return net(X).detach()


def test_steps_do_not_depend_on_how_large_the_stored_weights_are() -> None:
    wanted = after_descent(0.05, True)
    for deviation in (1e-3, 10.0):
        torch.testing.assert_close(after_descent(deviation, True), wanted, rtol=1e-3, atol=1e-4)
    # Without it small stored weights take steps that grow with the square of the scales.
    unscaled = after_descent(1e-3, False)
    assert not unscaled.isfinite().all() or (unscaled - wanted).abs().max() > 1


def test_a_tied_layer_is_replaced_under_all_names() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 6)
    net = torch.nn.Sequential(layer, torch.nn.Sequential(torch.nn.Tanh(), layer), torch.nn.Linear(6, 2))
    before = net(X)
    shared = SharedWeights(net, 36, only="1.1")
    assert net[0] is net[1][1] is shared.layers["0"]
    torch.testing.assert_close(net(X), before)
    assert sum(p.numel() for p in net.parameters()) == 36 + 6 + 12 + 2


def test_a_weight_that_another_module_shares_is_refused() -> None:
    net = torch.nn.Sequential(torch.nn.Embedding(6, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 6))
    net[2].weight = net[0].weight
    refused(lambda: SharedWeights(net, 8), "the weight of '2' is also 'weight' of '0'")
    assert SharedWeights(net, 8, only="1").stored == 8


def test_refusals() -> None:
    refused(lambda: SharedWeights(torch.nn.Sequential(torch.nn.ReLU()), 4), "no torch.nn.Linear")
    refused(lambda: SharedWeights(model(), 81), "budget=81 is above n=80")
    refused(lambda: SharedWeights(model(), 8, deviation=0), "deviation=0")
    refused(lambda: SharedWeights(model(), 8, only="9"), "'9' matches nothing")
