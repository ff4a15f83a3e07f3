"""Tinted merging by its formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused, untested
from small_models import one_thread, rows, small
from torch.nn import functional

from kofn import nn
from kofn.io.torch_arrays import to_torch
from kofn.nn.task_vectors import _tinted_merge as merging

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


def line(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 5, bias=False), torch.nn.Linear(5, 3, bias=False))


def test_the_result_is_the_base_and_its_task_vectors_by_their_coefficients() -> None:
    base, models = small(0), [small(seed) for seed in (1, 2)]
    batches = [[rows(10 * place + part, 6) for part in range(2)] for place in range(2)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in (base, *models)]
    blend = nn.tinted_merge(models, base, batches, tint="4.*", epochs=4)
    start, *states = [{name: value.double().numpy() for name, value in state.items()} for state in before]
    assert set(blend.transforms["coefficients"]) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    for name, table in blend.transforms["coefficients"].items():
        want = start[name] + sum(c * (state[name] - start[name]) for c, state in zip(table, states, strict=True))
        assert np.allclose(blend.result[name], want, atol=1e-6)
    assert [set(tint) for tint in blend.transforms["tints"]] == [{"4.weight", "4.bias"}] * 2
    assert not np.allclose(blend.transforms["tints"][0]["4.weight"], states[0]["4.weight"])
    assert np.allclose(blend.result["4.weight"], (states[0]["4.weight"] + states[1]["4.weight"]) / 2, atol=1e-6)
    assert blend.info["trace"].shape == blend.info["rows"].shape == (4, 2)
    assert blend.info["rows"].max() <= 6
    far = [sum(np.square(blend.result[name] - state[name]).sum() for name in state) for state in states]
    assert np.allclose(blend.spread, np.sqrt(far), rtol=1e-5)
    for model, state in zip((base, *models), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert model.training
    models[0].load_state_dict(to_torch({**blend.result, **blend.transforms["tints"][0]}))


@pytest.mark.parametrize("loss", ["filtered", "individual", "entropy"])
def test_the_first_step_is_that_of_the_formula(loss: Any) -> None:
    """Adam's first step is the rate times the sign of the gradient, here taken by hand."""
    base, model = line(0), line(1)
    for one in (base, model):
        one[0].weight.data *= 4
    X = rows(1, 30, 4)
    table = torch.full((1,), 0.4, requires_grad=True)
    first = base[0].weight.detach() + table * (model[0].weight - base[0].weight).detach()
    head = model[1].weight.detach().clone().requires_grad_()
    ahead, own = X @ first.T @ head.T, model(X).detach()
    label = own.argmax(dim=1)
    keep = torch.ones(30, dtype=torch.bool)
    if loss == "filtered":
        chances, others = ahead.detach().softmax(dim=1), own.softmax(dim=1)
        keep = (chances.argmax(dim=1) == label) | (chances.amax(dim=1) <= others.amax(dim=1))
        assert 0 < keep.sum() < 30
    value = functional.cross_entropy(ahead[keep], label[keep])
    if loss == "entropy":
        value = torch.distributions.Categorical(logits=ahead).entropy().mean()
    value.backward()
    words: dict[str, Any] = {"tint": "1.*", "loss": loss, "scale": 0.4, "epochs": 1, "rate": 1e-3}
    blend = nn.tinted_merge([model], base, [[X]], **words)
    assert blend.info["trace"][0, 0] == pytest.approx(float(value.detach()), rel=1e-5)
    assert blend.info["rows"][0, 0] == keep.sum()
    assert np.allclose(
        blend.transforms["coefficients"]["0.weight"], 0.4 - 1e-3 * np.sign(table.grad.numpy()), atol=1e-5
    )
    moved = model[1].weight.detach().numpy() - 1e-3 * np.sign(head.grad.numpy())
    assert np.allclose(blend.transforms["tints"][0]["1.weight"], moved, atol=1e-5)
    still = nn.tinted_merge([model], base, [[X]], learn_tint=False, **words)
    assert np.array_equal(still.transforms["tints"][0]["1.weight"], model[1].weight.detach().numpy())


def test_coefficients_stay_shares_and_time_ends_the_run() -> None:
    base, model = line(0), line(1)
    blend = nn.tinted_merge([model], base, [[rows(1, 30, 4)]], tint="1.*", scale=1.0, rate=0.5, epochs=5)
    assert (
        0
        <= blend.transforms["coefficients"]["0.weight"].min()
        <= blend.transforms["coefficients"]["0.weight"].max()
        <= 1
    )
    stopped = nn.tinted_merge([model], base, [[rows(1, 30, 4)]], tint="1.*", epochs=500, time_limit=0.0)
    assert stopped.status == "stopped"
    assert len(stopped.info["trace"]) == 1


def test_what_is_refused_says_why() -> None:
    base, model, X = line(0), line(1), [[rows(1, 4, 4)]]
    other = torch.nn.Sequential(torch.nn.Linear(4, 5))
    reached = {
        refused(lambda: nn.tinted_merge([], base, [], tint="1.*"), "models are empty; give one or more"),
        refused(lambda: nn.tinted_merge([model], base, [], tint="1.*"), "batches has 0 collections for 1 models"),
        refused(lambda: nn.tinted_merge([model], base, [[]], tint="1.*"), "batches of model 0 are empty"),
        refused(lambda: nn.tinted_merge([model], base, X, tint="9.*"), "'9.*' matches nothing in the model"),
        refused(lambda: nn.tinted_merge([model], base, X, tint="*"), "tint names every tensor of the models"),
        refused(lambda: nn.tinted_merge([model], base, X, tint="1.*", scale=2.0), "scale=2.0"),
        refused(lambda: nn.tinted_merge([model], base, X, tint="1.*", rate=0.0), "rate=0.0: give a number > 0"),
        refused(lambda: nn.tinted_merge([model], base, X, tint="1.*", loss="cross"), "loss='cross'"),
        refused(lambda: nn.tinted_merge([other], base, X, tint="1.*"), "model 1 and model 0 do not both have"),
    }
    assert not untested(merging, reached)
