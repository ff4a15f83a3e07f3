"""Fisher information against autograd row by row, Gram matrices against products, learnt merging by its formula."""

from __future__ import annotations

import itertools
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused, untested
from torch.nn import functional

from claims.harness import networks
from kofn import nn
from kofn.combination import fisher_merging, weighted_mean
from kofn.combination._sweep.members import open_members
from kofn.combination._sweep.merge import Files, job_digest
from kofn.combination.averaging._fisher_merging import Fisher
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import to_torch
from kofn.nn.merging import _adaptive_merge as merging
from kofn.nn.statistics import _statistics as statistics


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small(seed: int, dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    parts = [torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    model = torch.nn.Sequential(*parts, torch.nn.Linear(6, 3)).to(dtype)
    model[1].running_mean.normal_()
    return model


class Speaker(torch.nn.Module):
    """A tiny language model: keywords in, `.logits` out, head tied to the embedding."""

    def __init__(self, words: int = 7, width: int = 4) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(words, width)
        self.inner = torch.nn.Linear(width, width)
        self.head = torch.nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Any) -> Any:
        class Out:
            logits = self.head(torch.tanh(self.inner(self.embed(input_ids).cumsum(dim=1))))

        return Out


def rows(seed: int, n: int = 7, width: int = 5) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def squared(model: Any, log_probability: torch.Tensor) -> dict[str, np.ndarray]:
    model.zero_grad()
    log_probability.backward()
    return {name: value.grad.double().square().numpy().copy() for name, value in model.named_parameters()}


def by_hand(model: Any, X: torch.Tensor, y: torch.Tensor | None) -> dict[str, np.ndarray]:
    """Autograd, one row and one class at a time."""
    model.eval()
    total = {name: np.zeros(tuple(value.shape)) for name, value in model.named_parameters()}
    for at, row in enumerate(X):
        chances = model(row[None])[0].softmax(dim=0).detach()
        for label in range(len(chances)) if y is None else [int(y[at])]:
            found = squared(model, model(row[None])[0].log_softmax(dim=0)[label])
            for name in total:
                total[name] += (float(chances[label]) if y is None else 1.0) * found[name] / len(X)
    return total


@pytest.mark.parametrize("chunk", [1, 3, 32, None])
@pytest.mark.parametrize("labels", ["expected", "given"])
def test_fisher_information_is_that_of_single_rows(labels: str, chunk: int | None) -> None:
    model, X = small(1), rows(2)
    y = torch.tensor([0, 2, 1, 1, 0, 2, 2])
    model.train()
    batches = [(X[:4], y[:4]), (X[4:], y[4:])]
    found = nn.diagonal_fisher(model, batches, labels=labels, chunk=chunk)
    assert model.training
    assert model[1].training
    wanted = by_hand(model, X, None if labels == "expected" else y)
    assert {name for name, value in found.items() if value.any()} == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == np.float32
        assert np.allclose(found[name], value, rtol=1e-4, atol=1e-8)
    assert set(found) == {"1.running_mean", "1.running_var", *wanted}


def test_expected_fisher_needs_no_labels_and_batches_change_nothing() -> None:
    model, X = small(3), rows(4, 9)
    whole = nn.diagonal_fisher(model, [X])
    parts = nn.diagonal_fisher(model, [X[:2], (X[2:8],), X[8:]])
    for name, value in whole.items():
        assert np.allclose(value, parts[name], rtol=1e-5, atol=1e-9)


def test_sampled_fisher_is_unbiased() -> None:
    model, X = small(5), rows(6, 4)
    exact = nn.diagonal_fisher(model, [X])
    drawn = nn.diagonal_fisher(model, [X], labels="sampled", samples=4000, seed=0)
    few = [nn.diagonal_fisher(model, [X], labels="sampled", samples=2, seed=seed) for seed in (1, 1, 2)]
    for name, value in exact.items():
        assert np.allclose(drawn[name], value, rtol=0.15, atol=0.03 * value.max() + 1e-12)
        assert np.array_equal(few[0][name], few[1][name])
    assert any(not np.array_equal(few[0][name], few[2][name]) for name in exact)


def test_fisher_of_a_tied_language_model() -> None:
    torch.manual_seed(0)
    model = Speaker()
    words = torch.tensor([[1, 2, 3], [4, 0, 6]])
    labels = torch.tensor([[2, 3, -100], [0, 6, 1]])
    found = nn.diagonal_fisher(model, [{"input_ids": words, "labels": labels}], labels="given")
    total: dict[str, Any] = {}
    for row, label in zip(words, labels, strict=True):
        ahead = model(input_ids=row[None]).logits[0].log_softmax(dim=1)
        picked = sum(ahead[at, int(one)] for at, one in enumerate(label) if one >= 0)
        for name, value in squared(model, picked).items():
            total[name] = total.get(name, 0) + value / 2
    assert set(found) == set(model.state_dict())
    assert np.array_equal(found["head.weight"], found["embed.weight"])
    for name, value in total.items():
        assert np.allclose(found[name], value, rtol=1e-4, atol=1e-9)
    # Positions that are left out stay out of the draws too.
    hidden = {"input_ids": words, "labels": torch.full_like(labels, -100)}
    assert not nn.diagonal_fisher(model, [hidden], labels="sampled", seed=0)["inner.weight"].any()


def test_only_some_parameters_and_another_way_to_ask() -> None:
    model, X = small(7), rows(8)
    whole = nn.diagonal_fisher(model, [X])
    some = nn.diagonal_fisher(model, [X], only=["4.*"])
    assert np.allclose(some["4.weight"], whole["4.weight"], rtol=1e-5)
    assert not some["0.weight"].any()
    doubled = nn.diagonal_fisher(model, [X / 2], logits=lambda module, inputs: module(2 * inputs))
    assert np.allclose(doubled["0.weight"], whole["0.weight"], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fisher_stored_on_disk_goes_into_merging(tmp_path: Path, dtype: torch.dtype) -> None:
    models = [small(seed, dtype) for seed in (1, 2)]
    states = [
        {name: value.detach() for name, value in model.state_dict().items() if value.is_floating_point()}
        for model in models
    ]
    found = [nn.diagonal_fisher(model, [rows(9).to(dtype)]) for model in models]
    paths = [tmp_path / f"fisher{place}.safetensors" for place in range(2)]
    for path, fisher in zip(paths, found, strict=True):
        write_arrays(path, fisher)
    stored = fisher_merging(states, fisher=paths)
    direct = fisher_merging(states, fisher=found)
    assert all(np.array_equal(value, direct.result[name]) for name, value in stored.result.items())
    a, b = (fisher["0.weight"].astype(np.float64) for fisher in found)
    x, y = (state["0.weight"].double().numpy() for state in states)
    mean = np.where(a + b > 0, (a * x + b * y) / np.where(a + b > 0, a + b, 1), (x + y) / 2)
    assert np.allclose(stored.result["0.weight"].astype(np.float64), mean, rtol=1e-2, atol=1e-6)
    # Buffers have no gradient: their mean.
    means = weighted_mean(states).result
    assert np.array_equal(stored.result["1.running_mean"], means["1.running_mean"])


def test_a_run_resumes_only_with_the_same_fisher_information(tmp_path: Path) -> None:
    def digest(fisher: list[Any]) -> str:
        pool = open_members([np.zeros(3), np.ones(3)])
        rule = Fisher(np.array([0.5, 0.5]), open_members(fisher).members, 0.0, False)
        return job_digest(pool, {"": rule}, Files())

    arrays = [np.ones(3), np.full(3, 2.0)]
    assert digest(arrays) == digest([array.copy() for array in arrays])
    assert digest(arrays) != digest(arrays[::-1])
    for place, array in enumerate(arrays):
        write_arrays(tmp_path / f"{place}.safetensors", {"a": array})
    paths = [tmp_path / f"{place}.safetensors" for place in range(2)]
    before = digest(paths)
    assert before == digest(paths)
    write_arrays(paths[1], {"a": np.zeros(3)})
    assert before != digest(paths)


def test_gram_is_the_mean_of_products() -> None:
    model, X = small(1).train(), rows(2, 11)
    found = nn.activation_gram(model, [X[:4], (X[4:], None)])
    model.eval()
    inside = model[:4](X).detach().double().numpy()
    assert list(found) == ["0", "4"]
    assert np.allclose(found["0"], X.double().numpy().T @ X.double().numpy() / 11, atol=1e-6)
    assert np.allclose(found["4"], inside.T @ inside / 11, atol=1e-6)
    assert found["4"].dtype == np.float32
    one = nn.activation_gram(model, [X], modules="4")
    assert list(one) == ["4"]
    assert np.allclose(one["4"], found["4"], atol=1e-7)


def test_gram_counts_positions_and_calls() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    torch.manual_seed(0)
    model, X = Twice(), rows(3, 8, 3).reshape(2, 4, 3)
    seen = torch.cat([X.reshape(-1, 3), model.layer(X).reshape(-1, 3)]).detach().double().numpy()
    assert np.allclose(nn.activation_gram(model, [X])["layer"], seen.T @ seen / 16, atol=1e-6)
    assert not model.layer._forward_pre_hooks


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


def test_networks_of_the_claims_are_the_same_in_torch() -> None:
    task = networks.task("digits")
    state = networks.fresh(task, (6, 5), 0)
    X, y = task.test.X[:9], task.test.y[:9]
    model = networks.module(state)
    assert list(model.state_dict()) == list(state)
    assert np.allclose(model(torch.from_numpy(X)).detach().numpy(), networks.logits(state, X), atol=1e-5)
    found = nn.diagonal_fisher(model, [(torch.from_numpy(X), torch.from_numpy(y))], labels="given")
    for name, slopes in networks.row_gradients(state, X, y).items():
        assert np.allclose(found[name], np.square(slopes).mean(axis=0), rtol=1e-3, atol=1e-8)


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
    model, X = small(1), rows(2)
    linear = [torch.nn.Linear(4, 3) for _ in range(2)]
    x = [[rows(1, 8, 4)]] * 2
    counted = [torch.nn.BatchNorm1d(4), torch.nn.BatchNorm1d(4)]
    counted[1].num_batches_tracked += 1
    deep = [torch.nn.Sequential(torch.nn.Linear(4, 4), part) for part in counted]
    fisher, gram = partial(nn.diagonal_fisher, model), partial(nn.activation_gram, model)
    cases = [
        (lambda: fisher([X], labels="true"), "labels"),
        (lambda: fisher([]), "batches are empty"),
        (lambda: fisher([X], only="9.*"), "matches nothing"),
        (lambda: fisher([X], labels="given"), "hold none"),
        (lambda: fisher([(X, torch.zeros(7))], labels="given"), "whole numbers"),
        (lambda: fisher([(X, torch.full((7,), 3))], labels="given"), "none of the 3 classes"),
        (lambda: fisher([(X, X, X)]), "tuple of 3"),
        (lambda: nn.diagonal_fisher(Speaker(), [{"input_ids": torch.tensor([[1, 2]])}]), "sampled"),
        (lambda: gram([]), "saw no row"),
        (lambda: gram([X], modules="nine"), "matches nothing"),
        (lambda: nn.activation_gram(torch.nn.Sequential(torch.nn.ReLU()), [X]), "no torch.nn.Linear"),
        (
            lambda: nn.activation_gram(
                torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1)), [torch.zeros(2, 1, 3)], modules="0"
            ),
            "convolution",
        ),
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
    assert not untested(statistics, reached)
    assert not untested(merging, reached)
