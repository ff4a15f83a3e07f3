"""Integer layers whose steps are those of float ones, and layers of which a part learns."""

from __future__ import annotations

import pytest
from refusals import refused

torch = pytest.importorskip("torch")

from kofn.nn import QuantizedLinear, limit_updates  # noqa: E402


def test_a_step_moves_the_weights_as_it_moves_float_ones() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(5, 4)
    x, y = torch.randn(16, 5), torch.randn(16, 4)
    moves = {}
    for scaled in (True, False):
        layer = QuantizedLinear(linear, bits=16, scaled=scaled)
        before = layer.integers.detach().clone()
        (layer(x) - y).square().mean().backward()
        torch.optim.SGD([layer.integers], lr=0.1).step()
        moves[scaled] = (layer.integers.detach() - before) * layer.scale
    start = linear.weight.detach().clone()
    (linear(x) - y).square().mean().backward()
    torch.optim.SGD([linear.weight], lr=0.1).step()
    torch.testing.assert_close(moves[True], linear.weight.detach() - start, rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(moves[False], moves[True] * layer.scale**2, rtol=1e-3, atol=1e-9)


def test_what_is_stored_is_whole_and_in_range() -> None:
    layer = QuantizedLinear(torch.nn.Linear(5, 4), bits=4)
    with torch.no_grad():
        layer.integers.add_(9.3)
    layer.round_()
    assert layer.integers.abs().max() <= 7
    assert torch.equal(layer.integers, layer.integers.round())


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


def test_refusals() -> None:
    refused(lambda: QuantizedLinear(torch.nn.ReLU()), "linear is ReLU")
    refused(lambda: QuantizedLinear(torch.nn.Linear(2, 2), bits=40), "bits=40: give 2 to 16")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    refused(lambda: limit_updates(model, {"1": 1.0}), "shares names '1'")
    refused(lambda: limit_updates(model, {"0": 2.0}), "shares['0']")
    refused(lambda: limit_updates(model, {}, biases=2), "biases=2 of 1 layers")
