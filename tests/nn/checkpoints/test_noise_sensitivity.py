"""What noise in each module's weights changes, against the closed form of linear layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kofn.core.checks import InputError
from kofn.nn import noise_sensitivity


def test_a_linear_layer_changes_by_the_relative_noise() -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(256, 256, bias=False), "idle": torch.nn.Linear(8, 8)})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [torch.randn(32, 256) for _ in range(3)]
    found = noise_sensitivity(model, batches, logits=lambda net, x: net["used"](x), seed=1)
    assert found["used"] == pytest.approx(1, rel=0.1)
    assert found["idle"] == 0
    scaled = noise_sensitivity(model, batches, logits=lambda net, x: 7 * net["used"](x), noise=0.2, seed=1)
    assert scaled["used"] == pytest.approx(found["used"], rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_probabilities_are_compared_in_nats() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 5))
    batch = torch.randn(64, 16)
    with torch.no_grad():
        before = model(batch).double().softmax(-1)
    found = noise_sensitivity(model, [batch[:20], batch[20:]], divergence="kl", noise=0.01, seed=2)
    generator = torch.Generator().manual_seed(2 + 1)
    weight = model[1].weight
    noise = torch.randn(weight.shape, generator=generator).double()
    noise *= 0.1 * weight.detach().double().norm() / noise.norm()
    with torch.no_grad():
        weight += noise.to(weight.dtype)
        after = model(batch).double().softmax(-1)
    expected = float((before * (before / after).log()).sum(-1).mean()) / 0.01
    np.testing.assert_allclose(found["1"], [expected], rtol=1e-4)


def test_refusals() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    batch = [torch.ones(2, 4)]
    for message, call in {
        "noise=0": {"noise": 0.0},
        "divergence=": {"divergence": "cosine"},
        "matches nothing": {"modules": "head"},
        "'1' has no weight of two axes": {"modules": "1"},
    }.items():
        with pytest.raises(InputError, match=message):
            noise_sensitivity(model, batch, **call)
    with pytest.raises(InputError, match="batches"):
        noise_sensitivity(model, [])
