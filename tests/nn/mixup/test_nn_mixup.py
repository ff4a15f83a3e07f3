"""What the torch form of mixup adds: gradients, dtypes and refusals. Parity is tested for all forms at once."""

from __future__ import annotations

import numpy as np
import torch
from refusals import refused, untested

from kofn import nn
from kofn.nn.mixup import _mix_pairs, _mixup_loss


def test_gradients_reach_both_rows_of_a_pair() -> None:
    hidden = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    mixed = nn.mix_pairs(hidden, torch.tensor([0, 1] * 3), pairs="cross_class", ratio=0.25, seed=0)
    mixed.X.sum().backward()
    expected = 0.25 * np.bincount(mixed.first, minlength=6) + 0.75 * np.bincount(mixed.second, minlength=6)
    assert hidden.grad is not None
    np.testing.assert_allclose(hidden.grad.numpy(), np.repeat(expected[:, None], 3, axis=1))
    assert mixed.labels.dtype == mixed.weights.dtype == torch.float64


def test_whole_numbers_stay_where_nothing_is_blended() -> None:
    images = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)
    for inputs in ("cut", "first", "resample"):
        mixed = nn.mix_pairs(images, torch.arange(4), inputs=inputs, seed=0)
        assert mixed.X.dtype == torch.uint8
        assert mixed.labels.dtype == torch.float32


def test_what_is_refused_says_why() -> None:
    flat, y = torch.zeros(2, 3), torch.tensor([0, 1])
    reached = {
        refused(lambda: nn.mix_pairs(flat, y, inputs="cut"), "inputs='cut': X has shape (2, 3); give images"),
        refused(lambda: nn.mixup_loss(flat, flat[:1]), "logits are (2, 3), labels (1, 3) and weights None"),
        refused(lambda: nn.mixup_loss(flat, flat, torch.ones(3)), "labels (2, 3) and weights (3,)"),
    }
    assert not untested([_mix_pairs, _mixup_loss], reached)
