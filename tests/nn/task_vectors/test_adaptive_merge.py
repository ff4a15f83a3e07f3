"""Learnt merging by its formula."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused, untested
from small_models import Speaker, one_thread, rows, small
from torch.nn import functional

from kofn import nn
from kofn.io.torch_arrays import to_torch
from kofn.nn.task_vectors import _adaptive_merge as merging

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


def test_learnt_merge_is_the_sum_of_its_columns_and_says_what_it_did() -> None:
    models = [small(seed) for seed in (1, 2, 3)]
    batches = [[rows(10 * place + part, 6) for part in range(2)] for place in range(3)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    blend = nn.adaptive_merge(models, batches, weights=[2, 1, 1], epochs=5)
    states = [{name: value.double().numpy() for name, value in state.items()} for state in before]
    assert set(blend.transforms) == {"0.weight", "0.bias", "4.weight", "4.bias"}
    for name, table in blend.transforms.items():
        summed = sum(row * state[name] for row, state in zip(table.astype(np.float64), states, strict=True))
        assert table.shape == (3, states[0][name].shape[1] if states[0][name].ndim == 2 else 1)
        assert np.allclose(blend.result[name], summed, atol=1e-6)
    mean = 0.5 * states[0]["1.running_mean"] + 0.25 * (states[1]["1.running_mean"] + states[2]["1.running_mean"])
    assert np.allclose(blend.result["1.running_mean"], mean, atol=1e-6)
    assert blend.result["1.num_batches_tracked"] == 0
    assert (blend.info["steps"], blend.info["rows"], blend.info["trace"].shape) == (10, 180, (10, 3))
    far = [sum(np.square(blend.result[name] - state[name]).sum() for name in state) for state in states]
    assert np.allclose(blend.spread, np.sqrt(far), rtol=1e-5)
    for model, state in zip(models, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(value.grad is None for value in model.parameters())
        assert model.training
    models[0].load_state_dict(to_torch({name: value.copy() for name, value in blend.result.items()}))


def test_first_step_is_that_of_the_formula() -> None:
    """The first gradient against one taken by hand: Adam's first step is the rate times its sign."""
    models = [torch.nn.Linear(4, 3) for _ in range(2)]
    torch.manual_seed(0)
    for model in models:
        model.weight.data.normal_()
    X = [rows(1, 8, 4), rows(2, 8, 4)]
    tables = torch.full((2, 4), 0.5, requires_grad=True)
    biases = torch.full((2, 1), 0.5, requires_grad=True)
    weight = sum(table * model.weight.detach() for table, model in zip(tables, models, strict=True))
    bias = sum(scale * model.bias.detach() for scale, model in zip(biases, models, strict=True))
    total: Any = 0
    seen = []
    for model, inputs in zip(models, X, strict=True):
        wanted = model(inputs).detach()
        ahead = inputs @ weight.T + bias
        for temperature in (2.0, 1.0):
            p, q = (wanted / temperature).softmax(dim=1), (ahead / temperature).log_softmax(dim=1)
            loss = (p * (p.log() - q)).sum(dim=1).mean()
            total = total + (4 * loss if temperature == 2 else 0)
        seen.append(float(loss.detach()))
    cosine = (tables[0] * tables[1]).sum() / tables[0].norm() / tables[1].norm()
    total = total + 0.3 * cosine + 0.2 * tables.abs().sum() + 0.1 * (tables[0].norm() + tables[1].norm())
    total.backward()
    blend = nn.adaptive_merge(
        models, [[part] for part in X], epochs=1, rate=1e-3, decay=0, similarity=0.3, l1=0.2, l2=0.1
    )
    assert np.allclose(blend.info["trace"][0], seen, rtol=1e-5)
    assert np.allclose(blend.transforms["weight"], 0.5 - 1e-3 * np.sign(tables.grad.numpy()), atol=1e-5)
    assert np.allclose(blend.transforms["bias"], 0.5 - 1e-3 * np.sign(biases.grad.numpy()), atol=1e-5)


def test_penalties_are_those_of_the_papers_code() -> None:
    models = [small(seed) for seed in (1, 2, 3)]
    columns = merging._Columns(models, np.full(3, 1 / 3), None)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for table in columns.tables.values():
            table.normal_(generator=generator)
    wanted = 0.0
    for name in ("0.weight", "4.weight"):
        table = columns.tables[name].detach()
        pairs = list(itertools.combinations(range(3), 2))
        wanted += 0.5 * sum(float(functional.cosine_similarity(table[a], table[b], dim=0)) for a, b in pairs) / 3
        wanted += 0.25 * float(table.abs().sum()) + 0.125 * sum(float(row.norm()) for row in table)
    assert math.isclose(float(columns.penalty(0.5, 0.25, 0.125).detach()), wanted, rel_tol=1e-5)


def test_a_model_that_owns_a_column_gets_it() -> None:
    """Two models, each right on features that the other knows nothing of: no scalar weights do it, columns do."""
    torch.manual_seed(0)
    truth = 2 * torch.randn(3, 6)
    models = [torch.nn.Linear(6, 3, bias=False) for _ in range(2)]
    for place, model in enumerate(models):
        model.weight.data = truth.clone()
        model.weight.data[:, 3 * (1 - place) : 3 * (2 - place)] = torch.randn(3, 3)
    X = [torch.zeros(64, 6) for _ in models]
    for place, inputs in enumerate(X):
        inputs[:, 3 * place : 3 * place + 3] = torch.randn(64, 3)
    blend = nn.adaptive_merge(models, [[inputs] for inputs in X], epochs=400, rate=3e-2, similarity=0, l1=0, l2=0)
    table = blend.transforms["weight"]
    assert (table[0, :3] > 0.85).all()
    assert (table[1, 3:] > 0.85).all()
    assert np.abs(table[1, :3]).max() < 0.4
    assert blend.info["trace"][-1].sum() < 0.05 * blend.info["trace"][0].sum()


def test_embeddings_ties_and_half_precision() -> None:
    torch.manual_seed(1)
    models = [Speaker(), Speaker()]
    words = [[{"input_ids": torch.tensor([[1, 2, 3]])}], [{"input_ids": torch.tensor([[4, 5, 6]])}] * 2]
    blend = nn.adaptive_merge(models, words, modules=["embed", "inner"], epochs=2)
    assert set(blend.transforms) == {"embed.weight", "inner.weight", "inner.bias"}
    assert blend.transforms["embed.weight"].shape == (2, 4)
    assert np.array_equal(blend.result["embed.weight"], blend.result["head.weight"])
    assert blend.info["steps"] == 4
    half = [torch.nn.Linear(4, 3).to(torch.bfloat16) for _ in range(2)]
    merged = nn.adaptive_merge(half, [[rows(1, 8, 4).bfloat16()]] * 2, epochs=2)
    assert merged.result["weight"].dtype.name == "bfloat16"


def test_a_stopped_merge_gives_what_it_learnt() -> None:
    models = [torch.nn.Linear(4, 3) for _ in range(2)]
    blend = nn.adaptive_merge(models, [[rows(1, 8, 4)]] * 2, epochs=50, time_limit=0)
    assert (blend.status, blend.info["steps"]) == ("stopped", 1)


def test_bad_input_is_refused() -> None:
    linear = [torch.nn.Linear(4, 3) for _ in range(2)]
    x = [[rows(1, 8, 4)]] * 2
    counted = [torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4)]
    counted[1].num_batches_tracked += 1
    deep = [torch.nn.Sequential(torch.nn.Linear(4, 4), part) for part in counted]
    cases = [
        (lambda: nn.adaptive_merge([], []), "one or more"),
        (lambda: nn.adaptive_merge(linear, x[:1]), "1 collections for 2 models"),
        (lambda: nn.adaptive_merge(linear, [x[0], []]), "model 1 are empty"),
        (lambda: nn.adaptive_merge(linear, x, similarity=-1), "similarity"),
        (lambda: nn.adaptive_merge(linear, x, temperature=0), "temperature"),
        (lambda: nn.adaptive_merge([linear[0], torch.nn.Linear(4, 3, bias=False)], x), "'bias'"),
        (lambda: nn.adaptive_merge([linear[0], torch.nn.Linear(5, 3)], x), "'weight' is (3, 5)"),
        (lambda: nn.adaptive_merge([torch.nn.LayerNorm(4)] * 2, x), "no torch.nn.Linear"),
        (lambda: nn.adaptive_merge(deep, x), "differs between the models"),
        (lambda: nn.adaptive_merge(linear, x, weights=[1, 1, 1]), "weights"),
    ]
    reached = {refused(call, says) for call, says in cases}
    assert not untested(merging, reached)
