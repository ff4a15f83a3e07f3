"""Aligned merging against brute force over permutations; networks run before and after their units change places."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from plain_networks import (
    DIM,
    HEADS,
    HIDDEN,
    LAYERS,
    SHARED,
    SIZE,
    VOCABULARY,
    State,
    distance,
    llama,
    mlp,
    run_mlp,
    same_bits,
    shuffled,
)
from refusals import refused

from kofn.combination import ot_fusion, permute, singular_alignment, weight_matching
from kofn.combination.alignment._coupling import coupling
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.laws import LAWS, Case, LawBroken

# --- plain networks


def test_one_hidden_layer_is_matched_at_the_optimum() -> None:
    a, b = mlp((3, 5, 2), 0), mlp((3, 5, 2), 1)
    blend = weight_matching([a, b])
    every = (permute(b, {"0": turn}) for turn in itertools.permutations(range(5)))
    assert blend.value == pytest.approx(min(distance(a, one) for one in every), rel=1e-12)
    assert blend.status == "optimal"
    assert blend.info["assignments"] == 1


def test_two_hidden_layers_end_where_no_single_layer_can_do_better() -> None:
    ends = []
    for seed in range(8):
        a, b = mlp((3, 4, 4, 2), seed), mlp((3, 4, 4, 2), 100 + seed)
        turns = [np.array(turn) for turn in itertools.permutations(range(4))]
        table = {
            (i, j): distance(a, permute(b, {"0": p, "2": q})) for i, p in enumerate(turns) for j, q in enumerate(turns)
        }
        blend = weight_matching([a, b])
        assert blend.status == "local"
        assert blend.bound is None
        assert blend.info["converged"] == [True, True]
        at = tuple(
            next(i for i, turn in enumerate(turns) if (turn == blend.transforms[g][1]).all()) for g in ("0", "2")
        )
        assert blend.value == pytest.approx(table[at], rel=1e-12)
        assert all(
            table[at] <= table[i, at[1]] + 1e-9 and table[at] <= table[at[0], i] + 1e-9 for i in range(len(turns))
        )
        ends.append(table[at] <= min(table.values()) + 1e-9)
        assert blend.info["distance_before"][1] ** 2 == pytest.approx(distance(a, b), rel=1e-12)
    assert sum(ends) >= 4  # alternating assignments mostly find the best of all


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("merge", [weight_matching, ot_fusion])
def test_a_permuted_copy_merges_back_bit_for_bit(merge: Any, dtype: Any) -> None:
    a = mlp((6, 40, 30, 20, 4), 3, dtype=dtype)
    blend = merge([a, shuffled(a, 4), shuffled(a, 5)], weights=[0.2, 0.5, 0.3])
    assert same_bits(blend.result, a)
    assert not blend.spread.any()
    assert blend.weights.tolist() == [0.2, 0.5, 0.3]
    blend = merge([shuffled(a, 4), a], reference=1)
    assert same_bits(blend.result, a)


def test_the_result_does_not_depend_on_how_members_list_their_units() -> None:
    a, b, c = (mlp((5, 16, 12, 3), seed) for seed in range(3))
    X = np.random.default_rng(0).normal(size=(50, 5))
    for merge in (weight_matching, ot_fusion):
        want = run_mlp(merge([a, b, c], weights=[1, 2, 3]).result, X)
        got = run_mlp(merge([shuffled(a, 1), shuffled(b, 2), shuffled(c, 3)], weights=[1, 2, 3]).result, X)
        assert np.abs(got - want).max() < 1e-12
    # The paper's start does.
    starts = {weight_matching([a, shuffled(b, s)], initial="identity").value for s in range(8)}
    assert len({round(value, 9) for value in starts}) > 1


def test_the_blend_is_the_mean_of_the_members_in_the_orders_told() -> None:
    a, b = mlp((4, 9, 7, 3), 0), mlp((4, 9, 7, 3), 1)
    blend = weight_matching([a, b], weights=[3, 1])
    moved = permute(b, {name: orders[1] for name, orders in blend.transforms.items()})
    X = np.random.default_rng(0).normal(size=(20, 4))
    assert np.allclose(run_mlp(moved, X), run_mlp(b, X), atol=1e-12)
    for name in a:
        assert np.allclose(blend.result[name], 0.75 * a[name] + 0.25 * moved[name], atol=1e-15)
    assert blend.form == "simplex"
    assert blend.spread == pytest.approx([0.25 * math.sqrt(blend.value), 0.75 * math.sqrt(blend.value)])
    identity = {name: orders[0] for name, orders in blend.transforms.items()}
    assert all((order == np.arange(len(order))).all() for order in identity.values())


def test_names_out_of_order_are_put_into_order_and_other_names_go_by_the_mapping() -> None:
    a = mlp((3, 4, 4, 4, 4, 4, 4, 2), 0)
    alphabetical = dict(sorted(a.items()))
    assert list(alphabetical)[:3] == ["0.bias", "0.weight", "10.bias"]
    assert list(weight_matching([alphabetical]).transforms) == ["0", "2", "4", "6", "8", "10"]
    named = {"hidden.weight": np.ones((3, 2)), "out.weight": np.ones((1, 3))}
    assert list(weight_matching([named]).transforms) == ["hidden"]
    assert list(weight_matching([dict(reversed(named.items()))]).transforms) == ["hidden"]
    twice = {"out.weight": np.ones((1, 3)), "b.weight": np.ones((3, 3)), "a.weight": np.ones((3, 3))}
    refused(lambda: weight_matching([twice]), "tensor 'b.weight' takes 3 inputs, what comes before it gives 1")


def test_a_convolutional_network_with_norms_keeps_its_function() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 10, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU(),
        nn.Flatten(), nn.Linear(10 * 16, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip
    with torch.no_grad():
        net.train()(torch.randn(64, 1, 8, 8))  # running statistics of their own
    net.eval()
    X = torch.randn(5, 1, 8, 8)
    state = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    other = shuffled(state, 1)
    assert any((other[name] != state[name]).any() for name in state)
    want = net(X)
    net.load_state_dict({name: torch.from_numpy(array) for name, array in other.items()})
    assert torch.allclose(net(X), want, atol=1e-5)
    assert same_bits(weight_matching([state, other]).result, state)
    assert weight_matching([net.state_dict(), net.state_dict()]).info["architecture"] == "cnn"


# --- blocks


def rms(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * weight


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * weight + bias


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(heads, T, size) each; causal."""
    scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
    scores = np.where(np.tri(scores.shape[1], dtype=bool), scores, -1e9)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    out = (weights / weights.sum(axis=2, keepdims=True)) @ v
    return out.swapaxes(0, 1).reshape(len(out[0]), -1)


def turned(x: np.ndarray) -> np.ndarray:
    """Rotary positions: within a head, directions are not alike."""
    half = x.shape[2] // 2
    angle = np.arange(x.shape[1])[:, None] * 0.3 ** np.arange(half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=2)


def run_llama(state: State, tokens: np.ndarray) -> np.ndarray:
    x = state["model.embed_tokens.weight"][tokens]
    for layer in range(LAYERS):
        own = {
            name[len(f"model.layers.{layer}.") :]: value for name, value in state.items() if f"layers.{layer}." in name
        }
        h = rms(x, own["input_layernorm.weight"])
        heads = {}
        for part in "qkv":
            flat = h @ own[f"self_attn.{part}_proj.weight"].T + own.get(f"self_attn.{part}_proj.bias", 0)
            heads[part] = flat.reshape(len(x), -1, SIZE).swapaxes(0, 1)
        k, v = (np.repeat(heads[part], HEADS // SHARED, axis=0) for part in "kv")
        x = x + attend(turned(heads["q"]), turned(k), v) @ own["self_attn.o_proj.weight"].T
        h = rms(x, own["post_attention_layernorm.weight"])
        gate, up = h @ own["mlp.gate_proj.weight"].T, h @ own["mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ own["mlp.down_proj.weight"].T
    return rms(x, state["model.norm.weight"]) @ state["lm_head.weight"].T


TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 9)
GROUPED = {"heads": (HEADS, SHARED), "inner": {"heads": HEADS // SHARED}}


def llama_shuffled(state: State, seed: int) -> State:
    rng = np.random.default_rng(seed)
    orders: dict[str, np.ndarray] = {"residual": rng.permutation(DIM)}
    for layer in range(LAYERS):
        orders[f"layers.{layer}.mlp"] = rng.permutation(HIDDEN)
        groups = rng.permutation(SHARED)
        inner = HEADS // SHARED
        orders[f"layers.{layer}.heads"] = np.concatenate([g * inner + rng.permutation(inner) for g in groups])
    return permute(state, orders, heads=(HEADS, SHARED))


def test_llama_blocks_keep_their_function_with_every_group_moved() -> None:
    state = llama(0)
    other = llama_shuffled(state, 1)
    moved = [name for name in state if not np.array_equal(state[name], other[name])]
    assert set(state) - set(moved) == {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(LAYERS)}
    assert np.abs(run_llama(other, TOKENS) - run_llama(state, TOKENS)).max() < 1e-9


@pytest.mark.parametrize("merge", [weight_matching, ot_fusion])
def test_a_permuted_llama_merges_back_bit_for_bit(merge: Any) -> None:
    state = llama(0)
    blend = merge([state, llama_shuffled(state, 2)], heads=(HEADS, SHARED))
    assert same_bits(blend.result, state)
    assert blend.info["architecture"] == "llama"
    # An independent network is moved without a change to what it does.
    stranger = llama(5)
    found = merge([state, stranger], heads=(HEADS, SHARED)).transforms
    orders = {name: rows[1] for name, rows in found.items()}
    moved = permute(stranger, orders, heads=(HEADS, SHARED))
    assert np.abs(run_llama(moved, TOKENS) - run_llama(stranger, TOKENS)).max() < 1e-9


def test_without_their_number_heads_stay_in_place() -> None:
    state = llama(0)
    blend = weight_matching([state, llama_shuffled(state, 2)])
    assert blend.info["left"] == ["layers.0.heads", "layers.1.heads"]
    assert set(blend.transforms) == {"residual", "layers.0.mlp", "layers.1.mlp"}


def gpt(seed: int, out: int) -> State:
    rng = np.random.default_rng(seed)

    def layer(low: int, high: int) -> np.ndarray:
        return rng.normal(size=(low, high) if out else (high, low)) * 0.4

    state = {
        "transformer.wte.weight": rng.normal(size=(VOCABULARY, DIM)),
        "transformer.wpe.weight": rng.normal(size=(9, DIM)),
    }
    for block in range(LAYERS):
        at = f"transformer.h.{block}"
        for name, low, high in (
            ("attn.c_attn", DIM, 3 * DIM), ("attn.c_proj", DIM, DIM),
            ("mlp.c_fc", DIM, HIDDEN), ("mlp.c_proj", HIDDEN, DIM),
        ):  # fmt: skip
            state |= {f"{at}.{name}.weight": layer(low, high), f"{at}.{name}.bias": rng.normal(size=high)}
        for name in ("ln_1", "ln_2"):
            state |= {f"{at}.{name}.weight": rng.normal(size=DIM), f"{at}.{name}.bias": rng.normal(size=DIM)}
    state |= {f"transformer.ln_f.{part}": rng.normal(size=DIM) for part in ("weight", "bias")}
    return state | {"lm_head.weight": state["transformer.wte.weight"]}


def run_gpt(state: State, tokens: np.ndarray, out: int, heads: int) -> np.ndarray:
    def apply(x: np.ndarray, name: str) -> np.ndarray:
        weight = state[f"{name}.weight"]
        return x @ (weight if out else weight.T) + state[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return layer_norm(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = state["transformer.wte.weight"][tokens] + state["transformer.wpe.weight"]
    for block in range(LAYERS):
        at = f"transformer.h.{block}"
        q, k, v = np.split(apply(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn"), 3, axis=1)
        q, k, v = (part.reshape(len(x), heads, -1).swapaxes(0, 1) for part in (q, k, v))
        x = x + apply(attend(q, k, v), f"{at}.attn.c_proj")
        x = x + apply(np.tanh(apply(norm(x, f"{at}.ln_2"), f"{at}.mlp.c_fc")), f"{at}.mlp.c_proj")
    return norm(x, "transformer.ln_f") @ state["lm_head.weight"].T


@pytest.mark.parametrize(("name", "out"), [("gpt2", 1), ("nanogpt", 0)])
def test_gpt_blocks_keep_their_function_and_merge_back(name: str, out: int) -> None:
    state = gpt(0, out)
    other = shuffled(state, 1, heads=5)
    assert weight_matching([state], heads=5).info["architecture"] == name
    assert all((other[tensor] != state[tensor]).any() for tensor in state)
    assert np.abs(run_gpt(other, TOKENS, out, 5) - run_gpt(state, TOKENS, out, 5)).max() < 1e-8
    assert same_bits(weight_matching([state, other], heads=5).result, state)
    assert same_bits(ot_fusion([state, other], heads=5).result, state)


def test_checkpoints_are_read_written_and_their_heads_known(tmp_path: Any) -> None:
    state = {name: array.astype(np.float32) for name, array in llama(0).items()}
    folders = []
    for place, one in enumerate((state, llama_shuffled(state, 3))):
        folder = tmp_path / f"m{place}"
        folder.mkdir()
        write_arrays(folder / "model.safetensors", one)
        (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS, "num_key_value_heads": SHARED}))
        folders.append(folder)
    blend = weight_matching(folders, out=tmp_path / "out")
    assert blend.info["left"] == []
    assert same_bits(dict(blend.result), {name: state[name] for name in blend.result})
    assert (tmp_path / "out" / "config.json").exists()
    lazy = weight_matching(folders).result
    assert same_bits({name: np.asarray(lazy[name]) for name in state}, state)
    refused(lambda: weight_matching(folders, out=folders[1]), "lies; name another path")


# --- declared, and refused


def test_declared_groups_do_what_the_known_ones_do() -> None:
    a, b = mlp((4, 8, 8, 3), 0, "layer.{}.linear"), mlp((4, 8, 8, 3), 1, "layer.{}.linear")
    declared = {
        "first": [("layer.0.linear.*", 0), ("layer.2.linear.weight", 1)],
        "second": [("layer.2.linear.weight", -2), ("layer.2.linear.bias", 0), ("layer.4.linear.weight", 1)],
    }
    auto, own = weight_matching([a, b]), weight_matching([a, b], architecture=declared)
    assert same_bits(auto.result, own.result)
    assert own.info["architecture"] == "declared"
    # Blocks side by side, one pattern for all of them.
    blocks = {
        f"net.{i}.{part}.weight": np.random.default_rng(i).normal(size=shape)
        for i in range(2)
        for part, shape in (("up", (6, 3)), ("down", (3, 6)))
    }
    rule = {"units {}": [("net.{}.up.weight", 0), ("net.{}.down.weight", 1)]}
    turned_round = permute(blocks, {"units 1": np.arange(6)[::-1]}, architecture=rule)
    assert same_bits(weight_matching([blocks, turned_round], architecture=rule).result, blocks)
    pairs = {"units {}": {"axes": rule["units {}"], "units": 3}}
    assert weight_matching([blocks], architecture=pairs).transforms["units 0"].shape == (1, 3)
    fused = {"gate_up.weight": np.random.default_rng(3).normal(size=(10, 3)), "down.weight": np.ones((3, 5))}
    rule2 = {"hidden": [("gate_up.weight", 0, 2), ("down.weight", 1)]}
    other = permute(fused, {"hidden": [4, 3, 2, 1, 0]}, architecture=rule2)
    assert np.array_equal(other["gate_up.weight"][:5], fused["gate_up.weight"][4::-1])
    assert same_bits(weight_matching([fused, other], architecture=rule2).result, fused)


def test_what_is_not_known_is_refused_by_name() -> None:
    a = mlp((3, 4, 2), 0)

    def merging(state: State, **known: Any) -> Any:
        return lambda: weight_matching([state, state], **known)

    refused(
        merging({**a, "0.scale": np.ones(4)}), "tensor '0.scale' is of no layer that 'mlp' knows; declare its groups"
    )
    refused(merging({f"layer1.0.{n}": v for n, v in a.items()}), "tensor 'layer1.0.0.weight' tells of branches")
    weight_matching([{f"layer1.0.{n}": v for n, v in a.items()}], architecture="mlp")
    refused(merging({"0.weight": np.ones((2, 3))}), "there is no hidden layer to align")
    refused(merging({**a, "1.weight": np.ones(7)}), "the norm '1.weight' has 7 units, what comes before it 4")
    refused(merging({**llama(0), "model.layers.0.mlp.router.weight": np.ones(3)}), "is none of architecture 'llama'")
    over = {**llama(0), "model.layers.0.self_attn.q_norm.weight": np.ones(HEADS * SIZE)}
    refused(merging(over, heads=(HEADS, SHARED)), "is a norm over all heads")
    refused(merging(llama(0), heads=5), "which 5 units do not share evenly")
    refused(merging(llama(0), heads=(6, 4)), "6 query heads are not shared evenly by 4")
    refused(merging(llama(0), heads="many"), "heads='many'")
    refused(merging(a, architecture={}), "architecture names no group")
    refused(merging(a, architecture={"h": [("1.weight", 0)]}), "no tensor is named '1.weight'")
    refused(merging(a, architecture={"h": [("0.weight", 2)]}), "no axis 2")
    refused(merging(a, architecture={"h": ["0.weight"]}), "group 'h' holds '0.weight'; give (tensor, axis)")
    refused(merging(a, architecture={"h": [("0.weight", 0, 0)]}), "give (tensor, axis)")
    refused(merging(a, architecture={"h {}": [("0.weight", 0)]}), "{} stands in the group's name or in '0.weight'")
    twice = {"h": [("w", 0)], "g": [("w", 0)]}
    refused(merging({"w": np.ones((3, 3))}, architecture=twice), "or two groups on one axis")
    refused(merging(a, reference=2), "reference=2: the members are 0..1")
    refused(lambda: permute(a, {"0": [0, 0, 1, 2]}), "transforms['0'] is no order of 4 units")
    refused(lambda: permute(a, {"1": [0]}), "transforms names group '1'")
    wrong = {"layers.0.heads": [0, 3, 1, 2, 4, 5]}
    refused(lambda: permute(llama(0), wrong, heads=(HEADS, SHARED)), "parts heads that share a key")
    refused(lambda: singular_alignment(a, a, transforms={}), "transforms lacks group '0'")
    refused(lambda: singular_alignment(a, a, head=1), "no option 'head'")


# --- couplings


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 6), (6, 3), (4, 6), (5, 7), (1, 5), (61, 97)])
def test_couplings_are_the_cheapest(n: int, m: int) -> None:
    ot = pytest.importorskip("ot")
    for seed in range(5):
        costs = np.random.default_rng(seed).random((n, m))
        plan = coupling(costs)
        assert np.allclose(plan * (n * m), np.round(plan * (n * m)), atol=1e-9)
        assert np.allclose(plan.sum(axis=1), 1 / n, atol=1e-12)
        assert np.allclose(plan.sum(axis=0), 1 / m, atol=1e-12)
        assert float((plan * costs).sum()) == pytest.approx(
            ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), costs), rel=1e-9
        )


def test_fusion_of_unequal_widths_undoes_split_units() -> None:
    a = mlp((4, 6, 5, 3), 0)
    wide = {
        "0.weight": np.repeat(a["0.weight"], 2, axis=0), "0.bias": np.repeat(a["0.bias"], 2),
        "2.weight": np.repeat(np.repeat(a["2.weight"], 2, axis=1) / 2, 3, axis=0), "2.bias": np.repeat(a["2.bias"], 3),
        "4.weight": np.repeat(a["4.weight"], 3, axis=1) / 3, "4.bias": a["4.bias"],
    }  # fmt: skip
    wide = shuffled(wide, 1)
    blend = ot_fusion([a, wide])
    assert blend.transforms["2"][1].shape == (5, 15)
    assert all(np.allclose(blend.result[name], a[name], atol=1e-12) for name in a)
    assert all(cost < 1e-12 for cost in blend.info["costs"][1].values())
    # The other way round the small one is spread over the wide one, and the function is its own.
    X = np.random.default_rng(0).normal(size=(20, 4))
    spread = ot_fusion([a, wide], reference=1).result
    assert spread["0.weight"].shape == (12, 4)
    assert np.allclose(run_mlp(spread, X), run_mlp(a, X), atol=1e-12)


def test_fusion_compares_activations_where_they_are_given() -> None:
    a, b = mlp((4, 10, 8, 3), 0), mlp((4, 10, 8, 3), 1)
    X = np.random.default_rng(2).normal(size=(60, 4))
    first = [np.array(X @ s["0.weight"].T + s["0.bias"]) for s in (a, b)]
    second = [np.maximum(f, 0) @ s["2.weight"].T + s["2.bias"] for f, s in zip(first, (a, b), strict=True)]
    given = [{"0": f, "2": g} for f, g in zip(first, second, strict=True)]
    by_inputs, by_hand = ot_fusion([a, b], inputs=X), ot_fusion([a, b], activations=given)
    assert same_bits(by_inputs.result, by_hand.result)
    gaps = np.square(first[0][:, :, None] - first[1][:, None, :]).sum(axis=0)
    order = by_inputs.transforms["0"][1]
    from scipy.optimize import linear_sum_assignment

    assert gaps[np.arange(10), order].sum() == pytest.approx(gaps[linear_sum_assignment(gaps)].sum())
    assert not same_bits(by_inputs.result, ot_fusion([a, b]).result)
    for activation in ("gelu", "tanh", "linear"):
        assert ot_fusion([a, b], inputs=X, activation=activation).transforms["2"][1].shape == (8,)
    refused(lambda: ot_fusion([a, b], inputs=X, activations=given), "inputs and activations are both given")
    refused(lambda: ot_fusion([a, b], inputs=X[:, :3]), "inputs has 3 columns, the first layer takes 4")
    refused(
        lambda: ot_fusion([a, b], activations=given[:1]), "one mapping group -> (n, width) for each of the 2 members"
    )
    refused(lambda: ot_fusion([a, b], activations=[given[0], {"0": first[1]}]), "of member 1 lack group '2'")
    narrow = [given[0], {**given[1], "2": second[1][:, :5]}]
    refused(lambda: ot_fusion([a, b], activations=narrow), "have 5 columns for 8 units")


def test_fusion_refuses_what_differs_beside_the_widths() -> None:
    a = mlp((4, 6, 3), 0)
    refused(lambda: ot_fusion([a, mlp((5, 6, 3), 0)]), "only the widths of hidden layers may differ")
    refused(lambda: ot_fusion([a, mlp((4, 6, 2), 0)]), "only the widths of hidden layers may differ")
    refused(lambda: ot_fusion([a, mlp((4, 6, 5, 3), 0)]), "do not both hold tensor '4.bias'")
    refused(lambda: ot_fusion([a, mlp((4, 6, 3), 0, dtype=np.float32)]), "tensor '0.weight' is float32")


# --- singular vectors, laws


def test_singular_vectors_of_a_copy_align_and_their_sum_is_that_of_all_pairs() -> None:
    a, b = mlp((6, 9, 4), 0), mlp((6, 9, 4), 1)
    other = shuffled(a, 2)
    found = {name: rows[1] for name, rows in weight_matching([a, other]).transforms.items()}
    assert singular_alignment(a, other, transforms=found) == pytest.approx(1, abs=1e-12)
    for top in (0.0, 0.6):
        total, count = 0.0, 0.0
        for name in ("0.weight", "2.weight"):
            (u, s, v), (p, r, q) = (np.linalg.svd(x[name], full_matrices=False) for x in (a, b))
            i, j = s >= top * s[0], r >= top * r[0]
            total += float(((u[:, i].T @ p[:, j]) * (v[i] @ q[j].T)).sum())
            count += math.sqrt(i.sum() * j.sum())
        assert singular_alignment(a, b, top=top) == pytest.approx(total / count, abs=1e-12)


# --- what the laws see


def test_the_laws_catch_orders_values_and_sums_that_are_wrong() -> None:
    rng = np.random.default_rng(0)
    shapes = {"hidden.weight": (4, 3), "hidden.bias": (4,), "out.weight": (2, 4)}
    members = [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(3)]
    case = Case.of("combine", "weight_matching", {"members": members})
    assert all(LAWS[name](case) for name in ("recount", "blend", "sandwich", "aligned"))
    plan = case.plan
    moved = {name: orders[:, [1, 0, 2, 3]] for name, orders in plan.transforms.items()}
    wrong = {
        "recount": {"value": plan.value * 1.001},
        "blend": {"result": {name: array + 1e-6 for name, array in plan.result.items()}},
        "sandwich": {"value": plan.value * 1.1, "bound": plan.value * 1.1},
    }
    for name, change in wrong.items():
        with pytest.raises(LawBroken):
            LAWS[name](dataclasses.replace(case, plan=dataclasses.replace(plan, **change)))
    with pytest.raises(LawBroken):
        LAWS["recount"](dataclasses.replace(case, plan=dataclasses.replace(plan, transforms=moved)))
    unmatched = {name: np.tile(np.arange(4), (3, 1)) for name in plan.transforms}
    with pytest.raises(LawBroken):
        LAWS["blend"](dataclasses.replace(case, plan=dataclasses.replace(plan, transforms=unmatched)))


def unit_networks(unit: float, *, recurrent: bool) -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    shapes: dict[str, tuple[int, ...]] = {"0.weight": (5, 3), "0.bias": (5,), "2.weight": (2, 5)}
    if recurrent:
        shapes = {"rnn.weight_ih_l0": (5, 3), "rnn.weight_hh_l0": (5, 5), "out.weight": (2, 5)}
    return [{name: unit * rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(3)]


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e-30, 1e30, 1e150])
def test_orders_do_not_depend_on_the_unit(unit: float, recurrent: bool) -> None:
    plain = weight_matching(unit_networks(1.0, recurrent=recurrent))
    plan = weight_matching(unit_networks(unit, recurrent=recurrent))
    for name, orders in plain.transforms.items():
        np.testing.assert_array_equal(plan.transforms[name], orders)
    for fact in ("distance_before", "distance_after"):
        np.testing.assert_allclose(plan.info[fact], unit * np.array(plain.info[fact]), rtol=1e-9)


@pytest.mark.parametrize("recurrent", [False, True])
def test_distances_whose_squares_are_beyond_floats_are_refused(recurrent: bool) -> None:
    with pytest.raises(
        InputError, match=r"member \d is at distance .*e\+160 from the reference, whose square is beyond"
    ):
        weight_matching(unit_networks(1e160, recurrent=recurrent))
