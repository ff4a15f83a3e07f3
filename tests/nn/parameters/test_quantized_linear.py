"""Integer layers whose steps are those of float ones."""

from __future__ import annotations

import pytest
from refusals import refused

torch = pytest.importorskip("torch")

from kofn.nn import QuantizedLinear  # noqa: E402


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


def test_refusals() -> None:
    refused(lambda: QuantizedLinear(torch.nn.ReLU()), "linear is ReLU")
    refused(lambda: QuantizedLinear(torch.nn.Linear(2, 2), bits=40), "bits=40: give 2 to 16")
