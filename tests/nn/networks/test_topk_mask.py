"""The torch form of topk_mask against the function: the same entries, gradients and losses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from kofn import nn
from kofn.core.checks import InputError
from kofn.selection import topk_mask
from kofn.selection.networks._topk_mask import zipf_share


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_keeps_the_same_entries(seed: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-3, 4, (7, 5)) * (1.0 if seed % 2 else 0.1)
    table[rng.random((7, 5)) < 0.1] = -np.inf
    tensor = torch.tensor(table, dtype=dtype)
    room = rng.integers(0, 4, 5)
    for call in ({"k": 9}, {"per_item": 2}, {"capacity": 3}, {"capacity": room}, {"k": 6, "per_item": 2}):
        ours = topk_mask(tensor.numpy(), **call).mask.reshape(7, 5)
        given_room = {name: torch.tensor(v) if name == "capacity" else v for name, v in call.items()}
        assert (nn.topk_mask(tensor, **given_room).numpy() == ours).all(), call


def test_gradients_flow_through_what_is_kept() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]], requires_grad=True)
    nn.TopKMask(k=2)(scores).square().sum().backward()
    assert scores.grad.tolist() == [[10.0, 8.0, 0.0], [0.0, 0.0, 0.0]]
    layer = nn.TopKMask(capacity=torch.tensor([1, 0, 2]))
    assert layer(scores).tolist() == [[5.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    assert "capacity" in layer.state_dict()
    average = nn.TopKMask(k=1, average=True)
    assert int((average(torch.rand(8, 4) + 1) > 0).sum()) == 8
    with pytest.raises(InputError, match="average=True is about k"):
        nn.TopKMask(per_item=1, average=True)
    with pytest.raises(InputError, match="NaN or"):
        layer(torch.full((2, 3), torch.nan))
    with pytest.raises(InputError, match="capacity is negative"):
        nn.topk_mask(torch.ones(2, 3), capacity=torch.tensor([1, -1, 0]))
    with pytest.raises(InputError, match=r"scores has shape \(3,\)"):
        nn.topk_mask(torch.ones(3), k=1)


def test_zipf_share_follows_the_rank() -> None:
    share = zipf_share([3, 8, 8, 0], exponent=2.0, shift=1.0)
    law = np.array([1 / 4, 1 / 9, 1 / 16, 1 / 25])
    assert share.tolist() == pytest.approx((law / law.sum())[[2, 0, 1, 3]].tolist())
    assert zipf_share([1, 2], exponent=0).tolist() == [0.5, 0.5]
    for bad, says in (
        (([1, -1],), "fired at row 1 is -1"),
        (([1, 1], -1), "exponent=-1"),
        (([1, 1], 1, -1), "shift=-1"),
    ):
        with pytest.raises(InputError, match=says):
            zipf_share(bad[0], **dict(zip(("exponent", "shift"), bad[1:], strict=False)))


def test_aux_loss_is_its_definition() -> None:
    rng = np.random.default_rng(3)
    scores, decoder = rng.normal(size=(6, 5)), rng.normal(size=(5, 4))
    residual, fired = rng.normal(size=(6, 4)), np.array([40, 0, 3, 30, 1])
    share = zipf_share(fired)
    short = fired < fired.sum() * share
    # Features 1, 4 and 2, the least used first, fire less than the law has it; the next one up does not.
    assert short.tolist() == [False, True, True, False, True]
    room = np.where(short, np.ceil(7 * share / share[short].sum()), 0).astype(int)
    mask = topk_mask(scores, capacity=room).mask.reshape(6, 5)
    found = (np.maximum(scores, 0) * mask) @ decoder
    expected = ((residual - found) ** 2).sum() / (residual**2).sum()
    parts = [torch.tensor(part, requires_grad=True) for part in (residual, scores, decoder)]
    loss = nn.aux_zipf_loss(*parts, torch.tensor(fired), k=7)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    loss.backward()
    assert parts[0].grad is None
    assert (parts[1].grad.numpy() != 0).any()
    assert not parts[1].grad.numpy()[~mask].any()
    # Use flatter than the law: the most used fall short of it, but only the dead one is to be revived.
    flat = torch.tensor([5, 5, 5, 0, 6])
    room = np.where(np.arange(5) == 3, 7, 0)
    mask = topk_mask(scores, capacity=room).mask.reshape(6, 5)
    expected = ((residual - (np.maximum(scores, 0) * mask) @ decoder) ** 2).sum() / (residual**2).sum()
    assert nn.aux_zipf_loss(*parts, flat, k=7).item() == pytest.approx(expected, rel=1e-12)
    # Nothing fired yet: nothing is known to be put to use.
    assert nn.aux_zipf_loss(*parts, torch.zeros(5), k=7).item() == 0
    with pytest.raises(InputError, match=r"fired has \(4,\)"):
        nn.aux_zipf_loss(*parts, torch.zeros(4), k=7)
    with pytest.raises(InputError, match="k=0"):
        nn.aux_zipf_loss(*parts, torch.tensor(fired), k=0)


def test_torch_is_loaded_only_when_asked_for() -> None:
    code = (
        "import sys, kofn, kofn.nn; assert 'torch' not in sys.modules; kofn.nn.TopKMask; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import kofn.nn\n"
        "try: kofn.nn.topk_mask\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "InputError kofn.nn.topk_mask needs torch: pip install 'kofn[torch]'" in said
