"""Recurrent networks: one permutation on both sides of the recurrent weight, against brute force and torch's layers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from plain_networks import State, distance, same_bits
from refusals import refused

from kofn.combination import ot_fusion, permute, pleas, weight_matching
from kofn.io.tensor_writer import write_arrays

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def recurrent(seed: int, gates: int = 1, hidden: int = 6, layers: int = 1, scale: float = 1.0) -> State:
    rng = np.random.default_rng(seed)
    state, width = {"enc.weight": rng.normal(size=(4, 3)), "enc.bias": rng.normal(size=4)}, 4
    for layer in range(layers):
        for name, shape in (("weight_ih", (width,)), ("weight_hh", (hidden,)), ("bias_ih", ()), ("bias_hh", ())):
            spread = scale if name == "weight_hh" else 1.0
            state[f"rnn.{name}_l{layer}"] = spread * rng.normal(size=(gates * hidden, *shape))
        width = hidden
    return {**state, "head.weight": rng.normal(size=(2, hidden)), "head.bias": rng.normal(size=2)}


def turned(state: State, seed: int) -> State:
    rng = np.random.default_rng(seed)
    widths = {"enc": 4} | {f"rnn.l{i}": state[f"rnn.weight_hh_l{i}"].shape[1] for i in range((len(state) - 4) // 4)}
    return permute(state, {name: rng.permutation(width) for name, width in widths.items()})


@pytest.mark.parametrize("kind", GATES)
def test_permuted_layers_of_torch_keep_their_outputs_and_merge_back(kind: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.ModuleDict({"rnn": getattr(torch.nn, kind)(3, 7, num_layers=2), "head": torch.nn.Linear(7, 2)})
    state = {name: tensor.detach().numpy().copy() for name, tensor in net.state_dict().items()}
    orders = {f"rnn.l{i}": np.random.default_rng(i).permutation(7) for i in range(2)}
    other = permute(state, orders)
    assert not np.array_equal(other["rnn.weight_hh_l0"], state["rnn.weight_hh_l0"])
    X = torch.randn(9, 4, 3)
    want = net["head"](net["rnn"](X)[0])
    net.load_state_dict({name: torch.from_numpy(array) for name, array in other.items()})
    assert torch.allclose(net["head"](net["rnn"](X)[0]), want, atol=1e-6)
    for initial in ("layers", "identity"):
        blend = weight_matching([state, other], initial=initial)
        assert blend.info["architecture"] == "rnn"
        assert initial == "identity" or same_bits(blend.result, state)


@pytest.mark.parametrize(("name", "tokens"), [("embed", 5), ("encoder", 5)])
def test_an_embedding_in_front_is_permuted_by_its_columns(name: str, tokens: int, tmp_path: Any) -> None:
    """Outputs are kept, members merge back."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.ModuleDict(
        {name: torch.nn.Embedding(tokens, 4), "rnn": torch.nn.GRU(4, 7), "zhead": torch.nn.Linear(7, 2)}
    )
    state = {key: tensor.detach().numpy().copy() for key, tensor in net.state_dict().items()}
    X = torch.randint(0, tokens, (9, 3))
    want = net["zhead"](net["rnn"](net[name](X))[0])
    orders = {name: np.random.default_rng(0).permutation(4), "rnn.l0": np.random.default_rng(1).permutation(7)}
    other = permute(state, orders)
    net.load_state_dict({key: torch.from_numpy(array) for key, array in other.items()})
    assert torch.allclose(net["zhead"](net["rnn"](net[name](X))[0]), want, atol=1e-6)
    for number, member in enumerate((state, other)):
        write_arrays(tmp_path / f"{number}.safetensors", dict(sorted(member.items())))
    blend = weight_matching([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    assert set(blend.transforms) == {name, "rnn.l0"}
    for key, array in state.items():
        np.testing.assert_array_equal(np.asarray(blend.result[key]), array)


def test_a_head_without_bias_is_no_embedding() -> None:
    """A layer of weights alone as wide as the first layer's inputs, where these are as many as states."""
    a = {name: array for name, array in recurrent(0, hidden=4).items() if not name.startswith(("enc", "head"))}
    blend = weight_matching([{**a, "head.weight": np.ones((2, 4))}] * 2)
    assert list(blend.transforms) == ["rnn.l0"]


def test_the_relaxation_is_never_worse_and_mostly_the_best_of_all() -> None:
    best = 0
    for seed in range(12):
        a, b = (recurrent(one, hidden=5, scale=2.0) for one in (seed, 50 + seed))
        only = {
            "states": [("rnn.weight_ih_l0", 0), ("rnn.weight_hh_l0", 0), ("rnn.weight_hh_l0", 1), ("head.weight", 1)]
        }
        blend = weight_matching([a, b], architecture=only)
        every = [
            distance(a, permute(b, {"states": turn}, architecture=only)) for turn in itertools.permutations(range(5))
        ]
        assert blend.status == "heuristic"
        assert min(every) - 1e-9 <= blend.value <= every[0] + 1e-9
        assert blend.value == pytest.approx(
            distance(a, permute(b, {"states": blend.transforms["states"][1]}, architecture=only)), rel=1e-12
        )
        best += blend.value <= min(every) + 1e-9
    assert best >= 6


def test_a_file_that_lists_tensors_by_name_is_read_in_the_order_of_its_layers(tmp_path: Any) -> None:
    a = {name.replace("enc", "stem"): array for name, array in recurrent(0, gates=4, layers=2).items()}
    for name in ("0", "1"):
        write_arrays(tmp_path / f"{name}.safetensors", dict(sorted(a.items())))
    blend = weight_matching([tmp_path / "0.safetensors", tmp_path / "1.safetensors"])
    assert list(blend.transforms) == ["stem", "rnn.l0", "rnn.l1"]


def test_matching_does_not_depend_on_the_order_of_states() -> None:
    a, b = recurrent(0, gates=4, layers=2), recurrent(1, gates=4, layers=2)
    want = weight_matching([a, b])
    got = weight_matching([a, turned(b, 3)])
    assert got.value == pytest.approx(want.value, rel=1e-12)
    for name in a:
        np.testing.assert_allclose(got.result[name], want.result[name], atol=1e-12)
    assert same_bits(ot_fusion([a, turned(a, 4)]).result, a)


def test_what_is_no_plain_recurrent_network_is_refused() -> None:
    a = recurrent(0)

    def merging(changed: dict[str, Any], **known: Any) -> Any:
        state = {**a, **changed}
        return lambda: weight_matching([state, state], **known)

    backwards = {"rnn.weight_hh_l0_reverse": np.ones((6, 6))}
    refused(merging(backwards), "tensor 'rnn.weight_hh_l0_reverse' tells of branches")
    refused(merging(backwards, architecture="rnn"), "tensor 'rnn.weight_hh_l0_reverse' is of no layer")
    refused(merging({"rnn.weight_hh_l0": np.ones((6, 4))}), "which is no recurrent layer; declare its groups")
    refused(merging({"rnn.weight_ih_l0": np.ones((5, 4))}), "tensor 'rnn.weight_hh_l0' has shape (6, 6)")
    refused(merging({"embed.weight": np.ones((2, 2))}), "tensor 'embed.weight' tells of branches")
    cube = {"h": [("w", 0), ("w", 1), ("w", 2)]}
    refused(merging({"w": np.ones((3, 3, 3))}, architecture=cube), "tensor 'w' has one group on three axes")
    refused(lambda: pleas([a, a], inputs=np.ones((4, 3))), "tensor 'rnn.weight_ih_l0' is of another kind")
