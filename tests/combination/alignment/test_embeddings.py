"""Tables of tokens in front of a chain: rows are tokens, which never move; columns move with what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_networks import State, same_bits
from refusals import refused

from kofn.combination import permute, weight_matching
from kofn.io.tensor_writer import write_arrays

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def network(tokens: int, width: int, hidden: int, gates: int = 1, seed: int = 0, table: str = "emb") -> State:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {f"{table}.weight": (tokens, width)}
    for layer, inputs in enumerate((width, hidden)):
        shapes |= {
            f"rnn.weight_ih_l{layer}": (gates * hidden, inputs),
            f"rnn.weight_hh_l{layer}": (gates * hidden, hidden),
            f"rnn.bias_ih_l{layer}": (gates * hidden,),
            f"rnn.bias_hh_l{layer}": (gates * hidden,),
        }
    shapes |= {"fc.weight": (3, hidden), "fc.bias": (3,)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("tokens", "width"), [(11, 5), (6, 6), (5, 11)])
def test_units_are_found_again_and_the_function_stays(kind: str, tokens: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.ModuleDict(
        {
            "emb": torch.nn.Embedding(tokens, width),
            "rnn": getattr(torch.nn, kind)(width, 7, num_layers=2),
            "fc": torch.nn.Linear(7, 3),
        }
    )
    state = {name: tensor.detach().numpy().copy() for name, tensor in net.state_dict().items()}
    rng = np.random.default_rng(1)
    columns = {} if tokens == width else {"emb": rng.permutation(width)}
    other = permute(state, {**columns, "rnn.l0": rng.permutation(7), "rnn.l1": rng.permutation(7)})
    assert not same_bits(other, state)
    ids = torch.arange(tokens)[:, None]

    def outputs() -> Any:
        return net["fc"](net["rnn"](net["emb"](ids))[0])

    want = outputs()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in other.items()})
    assert torch.allclose(outputs(), want, atol=1e-6)
    blend = weight_matching([state, other])
    assert blend.info["architecture"] == "rnn"
    assert same_bits(blend.result, state)


@pytest.mark.parametrize("table", ["emb", "embedding", "encoder", "lookup"])
@pytest.mark.parametrize("listed", [False, True])
def test_tokens_that_change_places_are_not_put_back(table: str, listed: bool, tmp_path: Path) -> None:
    a = network(6, 6, 8, table=table)
    b = {**a, f"{table}.weight": a[f"{table}.weight"][[1, 0, 2, 3, 4, 5]]}
    members: list[Any] = [a, b]
    if listed:  # by name, as files list them
        for number, state in enumerate(members):
            write_arrays(tmp_path / f"{number}.safetensors", dict(sorted(state.items())))
        members = [tmp_path / f"{number}.safetensors" for number in range(2)]
    blend = weight_matching(members)
    np.testing.assert_allclose(blend.result[f"{table}.weight"], (a[f"{table}.weight"] + b[f"{table}.weight"]) / 2)
    for name in a.keys() - {f"{table}.weight"}:
        np.testing.assert_array_equal(blend.result[name], a[name])


def test_a_table_by_its_name_leads_linear_layers_too() -> None:
    rng = np.random.default_rng(0)
    for tokens in (4, 9):
        shapes = {"embed.weight": (tokens, 4), "a.weight": (5, 4), "a.bias": (5,), "b.weight": (2, 5), "b.bias": (2,)}
        a = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        b = {**a, "embed.weight": np.roll(a["embed.weight"], 1, axis=0)}
        blend = weight_matching([a, b])
        assert "a" in blend.transforms
        want = (a["embed.weight"] + b["embed.weight"]) / 2
        if tokens == 4:
            np.testing.assert_allclose(blend.result["embed.weight"], want)
        else:
            other = permute(a, {"embed": rng.permutation(4), "a": rng.permutation(5)})
            assert same_bits(weight_matching([a, other]).result, a)


def test_a_square_layer_that_is_no_table_is_matched_as_before() -> None:
    rng = np.random.default_rng(0)
    shapes = {"encoder.weight": (4, 4), "decoder.weight": (4, 4), "decoder.bias": (4,)}
    a = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    assert same_bits(weight_matching([a, permute(a, {"encoder": [2, 0, 3, 1]})]).result, a)


def test_what_may_be_the_table_or_tied_to_it_is_refused() -> None:
    a = network(11, 6, 6)
    tied = {**a, "fc.weight": np.ones((11, 6)), "fc.bias": np.ones(11)}
    refused(
        lambda: weight_matching([tied, tied]), "tensor 'fc.weight' has the shape of the table 'emb.weight', and may"
    )
    two = {**network(9, 5, 7, table="left"), "right.weight": np.ones((8, 5))}
    refused(lambda: weight_matching([two, two]), "tensors 'left.weight' and 'right.weight' may both be the table")
