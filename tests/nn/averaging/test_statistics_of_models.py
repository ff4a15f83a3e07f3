"""Fisher information against autograd row by row, Gram matrices against products."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused, untested
from small_models import Speaker, one_thread, rows, small

from claims.harness import networks
from kofn import nn
from kofn.combination import fisher_merging, weighted_mean
from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import open_members
from kofn.combination._sweep.merge import job_digest
from kofn.combination.averaging._fisher_merging import FisherMerging
from kofn.io.tensor_writer import write_arrays
from kofn.nn import _models
from kofn.nn.averaging import _activation_gram, _diagonal_fisher

pytestmark = pytest.mark.usefixtures(one_thread.__name__)


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
    assert all(torch.equal(value, direct.result[name]) for name, value in stored.result.items())
    a, b = (fisher["0.weight"].astype(np.float64) for fisher in found)
    x, y = (state["0.weight"].double().numpy() for state in states)
    mean = np.where(a + b > 0, (a * x + b * y) / np.where(a + b > 0, a + b, 1), (x + y) / 2)
    assert np.allclose(stored.result["0.weight"].double().numpy(), mean, rtol=1e-2, atol=1e-6)
    # Buffers have no gradient: their mean.
    means = weighted_mean(states).result
    assert torch.equal(stored.result["1.running_mean"], means["1.running_mean"])


def test_a_run_resumes_only_with_the_same_fisher_information(tmp_path: Path) -> None:
    def digest(fisher: list[Any]) -> str:
        pool = open_members([{"a": np.zeros(3)}, {"a": np.ones(3)}])
        merge_rule = FisherMerging(fisher).bind(pool)
        return job_digest(pool, {"a": merge_rule}, SweepOptions())

    states = [{"a": np.ones(3)}, {"a": np.full(3, 2.0)}]
    assert digest(states) == digest([{"a": state["a"].copy()} for state in states])
    assert digest(states) != digest(states[::-1])
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for path, state in zip(paths, states, strict=True):
        write_arrays(path, state)
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


def test_bad_input_is_refused() -> None:
    model, X = small(1), rows(2)
    fisher, gram = partial(nn.diagonal_fisher, model), partial(nn.activation_gram, model)
    cases = [
        (lambda: fisher([X], labels="true"), "labels"),
        (lambda: fisher([]), "batches are empty"),
        (lambda: fisher([X], only="9.*"), "matches nothing"),
        (lambda: fisher([X], labels="given"), "hold none"),
        (lambda: fisher([(X, torch.zeros(7))], labels="given"), "whole numbers"),
        (lambda: fisher([(X, torch.full((7,), 3))], labels="given"), "not one of the 3 classes"),
        (lambda: fisher([(X, X, X)]), "tuple of 3"),
        (lambda: nn.diagonal_fisher(Speaker(), [{"input_ids": torch.tensor([[1, 2]])}]), "sampled"),
        (lambda: gram([]), "saw no row"),
        (lambda: gram([X], modules="nine"), "matches nothing"),
        (lambda: nn.activation_gram(torch.nn.Sequential(torch.nn.ReLU()), [X]), "no torch.nn.Linear"),
        (lambda: nn.SharedWeights(torch.nn.Linear(2, 2), 2), "model has no torch.nn.Linear below it"),
        (
            lambda: nn.activation_gram(
                torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1)), [torch.zeros(2, 1, 3)], modules="0"
            ),
            "convolution",
        ),
    ]
    reached = {refused(call, says) for call, says in cases}
    assert not untested([_models, _activation_gram, _diagonal_fisher], reached)
