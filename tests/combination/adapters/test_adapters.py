"""LoRA adapters: sums against dense matrices, cuts against a dense SVD, files against what was read, and refusals."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from lora import SHAPES, P, kind, mixed, norm, refused, save, scaling, settings, total, updates

import kofn
from kofn.combination import lora_pairs, reduce_adapters, stack_adapters
from kofn.core.checks import FailureError, InputError
from kofn.core.plans import Plan
from kofn.io.adapter_families._peft import patterns
from kofn.io.adapters import CONFIG, WEIGHTS, Adapter, is_adapter
from kofn.laws import LAWS, Case, LawBroken

WEIGHTS_USED = [0.5, 0.3, 0.2]


def test_stacking_is_the_weighted_sum_of_the_updates(tmp_path: Path) -> None:
    members = [save(tmp_path / str(i), *adapter) for i, adapter in enumerate(mixed())]
    blend = kofn.combine(members, weights=WEIGHTS_USED, method="stack_adapters", options={"out": tmp_path / "sum"})
    want = total(WEIGHTS_USED, mixed())
    tensors = safetensors.numpy.load_file(tmp_path / "sum" / WEIGHTS)
    config = json.loads((tmp_path / "sum" / CONFIG).read_text())
    got = updates(tensors, config)
    assert got.keys() == want.keys()
    for module in want:
        np.testing.assert_allclose(got[module], want[module], rtol=1e-13, atol=1e-13)
        assert scaling(config, module, blend.info["ranks"][P + module]) == 1
    assert blend.info["ranks"] == {P + "layers.0.q_proj": 6, P + "layers.1.q_proj": 7, P + "layers.1.v_proj": 5}
    assert blend.info["absent"] == {P + "layers.1.q_proj": [2], P + "layers.1.v_proj": [2]}
    assert blend.form == "simplex"
    assert blend.value == 0
    for member, spread in zip(mixed(), blend.spread, strict=True):
        gap = {module: want[module] - updates(*member).get(module, 0) for module in want}
        assert math.isclose(spread, norm(gap), rel_tol=1e-12)


def test_auto_sums_files_of_adapters_and_names_the_fold_where_a_model_is_among_them(tmp_path: Path) -> None:
    members = [save(tmp_path / str(i), *adapter) for i, adapter in enumerate(mixed())]
    blend = kofn.combine(members)
    assert blend.method == "stack_adapters"
    assert blend.info["ranks"] == kofn.combine(members, method="stack_adapters").info["ranks"]
    safetensors.numpy.save_file({"w": np.ones((2, 2))}, model := tmp_path / "model.safetensors")
    for given in ([model, members[0]], [str(members[0]), str(model)]):
        refused(lambda given=given: kofn.combine(given), "model.safetensors is not", "fold_adapters(base, adapters)")


def test_adapters_that_train_no_module_in_common_are_told(tmp_path: Path) -> None:
    (first, config), *_ = mixed()
    moved = {name.replace("layers.", "h."): array for name, array in first.items()}
    members = [save(tmp_path / "a", first, config), save(tmp_path / "b", moved, config)]
    (warning,) = kofn.combine(members).info["warnings"]
    assert f"{members[0]} and {members[1]} train no module in common (base_model.model.layers." in warning
    assert "warnings" not in kofn.combine([members[0], save(tmp_path / "c", first, config)]).info


def test_averaging_the_factors_is_not_the_sum() -> None:
    """The control: ranks padded with zeros and A and B averaged apart are off by more than a tenth."""
    rng = np.random.default_rng(0)
    ranks = rng.integers(2, 17, 10)
    pairs = [(rng.normal(size=(r, 24)), rng.normal(size=(20, r))) for r in ranks]
    weights = rng.dirichlet(np.ones(10))
    want = sum(w * B @ A for w, (A, B) in zip(weights, pairs, strict=True))
    members = [{"w.lora_A.weight": A, "w.lora_B.weight": B} for A, B in pairs]
    blend = stack_adapters(members, weights=weights)
    assert blend.result.pairs["w"].rank == ranks.sum()
    assert np.linalg.norm(blend.result.pairs["w"].delta() - want) < 1e-12 * np.linalg.norm(want)
    A = sum(w * np.pad(A, ((0, 16 - len(A)), (0, 0))) for w, (A, _) in zip(weights, pairs, strict=True))
    B = sum(w * np.pad(B, ((0, 0), (0, 16 - B.shape[1]))) for w, (_, B) in zip(weights, pairs, strict=True))
    assert np.linalg.norm(B @ A - want) > 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize("rank", [1, 2, 4, 30])
def test_a_cut_is_the_best_of_its_rank(rank: int) -> None:
    members = [Adapter(*adapter) for adapter in mixed()]
    blend = reduce_adapters(members, weights=WEIGHTS_USED, rank=rank)
    want = total(WEIGHTS_USED, mixed())
    left = 0.0
    for module, update in want.items():
        u, s, v = np.linalg.svd(update)
        pair = blend.result.pairs[P + module]
        held = min(rank, sum(r for r in (2, *((5,) if module == "layers.1.q_proj" else (3,)), 1)))
        best = (u[:, : len(s)][:, :held] * s[:held]) @ v[: len(s)][:held]
        np.testing.assert_allclose(pair.delta(), best, atol=1e-12)
        assert pair.rank <= held
        assert math.isclose(
            blend.info["truncation"][P + module], math.sqrt((s[held:] ** 2).sum()), rel_tol=1e-10, abs_tol=1e-12
        )
        left += float((s[held:] ** 2).sum())
    assert math.isclose(blend.info["truncation_error"], math.sqrt(left), rel_tol=1e-10, abs_tol=1e-12)
    assert math.isclose(blend.value, left, rel_tol=1e-10, abs_tol=1e-20)
    assert blend.bound == blend.value
    assert math.isclose(blend.info["kept"], 1 - left / norm(want) ** 2)


def test_energy_takes_the_least_rank_that_keeps_it() -> None:
    members = [Adapter(*adapter) for adapter in mixed()]
    for share in (0.3, 0.8, 0.99, 1.0):
        blend = reduce_adapters(members, energy=share)
        for module, update in total([1 / 3] * 3, mixed()).items():
            squares = np.linalg.svd(update, compute_uv=False) ** 2
            kept = np.cumsum(squares) / squares.sum()
            assert blend.info["ranks"][P + module] == int((kept < share - 1e-12).sum()) + 1


def test_the_default_rank_is_the_largest_of_the_members() -> None:
    blend = reduce_adapters([Adapter(*adapter) for adapter in mixed()])
    assert set(blend.info["ranks"].values()) == {5}  # also where the weight is 4 x 6: the stack is no longer
    assert blend.form == "none"


def test_the_dense_product_is_never_formed() -> None:
    """Two updates of 200,000 by 100,000 numbers, 160 GB each if they were multiplied out."""
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(r, 100_000)), rng.normal(size=(200_000, r))) for r in (1, 2)]
    members = [{"w.lora_A.weight": A, "w.lora_B.weight": B} for A, B in pairs]
    stacked, cut = stack_adapters(members), reduce_adapters(members, rank=2)
    whole = [(B[:3] @ A[:, :3]) / 2 for A, B in pairs]
    pair = stacked.result.pairs["w"]
    np.testing.assert_allclose(pair.B[:3] @ pair.A[:, :3], sum(whole), rtol=1e-12)
    assert 0 < cut.info["kept"] < 1
    squares = np.linalg.eigvals((pair.B.T @ pair.B) @ (pair.A @ pair.A.T)).real
    assert math.isclose(cut.value, squares.min(), rel_tol=1e-9)


def test_distances_of_low_ranks_are_those_of_dense_updates() -> None:
    """Ranks that are small beside the weight's sides, whose updates are compared in a basis of their own."""
    rng = np.random.default_rng(3)
    pairs = [(rng.normal(size=(r, 40)), rng.normal(size=(30, r))) for r in (1, 2, 3)]
    plan = stack_adapters([{"w.lora_A.weight": A, "w.lora_B.weight": B} for A, B in pairs], weights=[1, 2, 3])
    mean = sum(w * B @ A for w, (A, B) in zip((1, 2, 3), pairs, strict=True)) / 6
    np.testing.assert_allclose(plan.spread, [np.linalg.norm(B @ A - mean) for A, B in pairs], rtol=1e-12)


KINDS = (
    "plain",
    "rsLoRA",
    "DoRA",
    "bias",
    "bias of B",
    "head",
    "embedding",
    "convolution",
    "grouped convolution",
    "PiSSA",
    "QA-LoRA",
    "experts",
    "half",
)
NOT_SUMS = {
    "DoRA": "DoRA rescales the rows",
    "grouped convolution": "is a grouped convolution",
    "PiSSA": "init_lora_weights='pissa_niter_4' changed the base",
    "QA-LoRA": "QA-LoRA pools its inputs",
    "experts": "factors of bare parameters",
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("combined", [stack_adapters, reduce_adapters])
def test_one_adapter_at_weight_1_is_itself(tmp_path: Path, name: str, combined: Callable[..., Any]) -> None:
    """Bit for bit, files too; so are copies of it, and what stands beside a weight of 0."""
    folder = save(tmp_path / "one", *kind(name))
    again = save(tmp_path / "two", *kind(name))
    calls: list[tuple[list[Any], dict[str, Any]]] = [
        ([folder], {}),
        ([folder], {"weights": [0.1]}),
        ([folder, again, folder], {}),
        ([folder, again], {"weights": [0.3, 0.7]}),
        ([folder], {"weights": [1], "normalize": False}),
    ]
    if name not in NOT_SUMS and name not in ("bias", "head", "half"):
        calls.append(([folder, Adapter(*mixed()[0])], {"weights": [1, 0]}))
    for at, (members, how) in enumerate(calls):
        blend = combined(members, out=tmp_path / f"out {at}", **how)
        for file in (CONFIG, WEIGHTS):
            assert (tmp_path / f"out {at}" / file).read_bytes() == (folder / file).read_bytes()
        assert {key: value.tobytes() for key, value in blend.result.items()} == {
            key: value.tobytes() for key, value in kind(name)[0].items()
        }
        assert blend.spread[0] == 0
        assert blend.info["rounding"] == 0


@pytest.mark.parametrize("name", NOT_SUMS)
def test_what_is_no_sum_is_refused_by_name(name: str) -> None:
    odd, plain = Adapter(*kind(name)), Adapter(*kind("plain", 2))
    for combined in (stack_adapters, reduce_adapters):
        refused(lambda combined=combined: combined([plain, odd]), "member 1: ", NOT_SUMS[name], "given back alone")
        refused(lambda combined=combined: combined([odd], weights=[0.5], normalize=False), NOT_SUMS[name])
    refused(lambda: reduce_adapters([odd], rank=1), NOT_SUMS[name], "at its own rank")
    refused(lambda: reduce_adapters([odd], energy=0.5), NOT_SUMS[name], "at its own rank")
    refused(lambda: stack_adapters([odd], statistic=True), "statistic=True", NOT_SUMS[name])


def test_a_variant_in_half_precision_is_not_widened() -> None:
    tensors, config = kind("DoRA")
    half = Adapter({name: value.astype(np.float16) for name, value in tensors.items()}, config)
    assert stack_adapters([half]).result is half
    refused(lambda: stack_adapters([half], dtype="float32"), "DoRA rescales", "given back as it is")


def test_embeddings_and_convolutions_are_summed() -> None:
    members = [Adapter(*kind("embedding")), Adapter(*kind("convolution", 2))]
    pairs = stack_adapters(members, weights=[1, 3]).result.pairs
    one, two = (member.pairs for member in members)
    np.testing.assert_allclose(pairs[P + "embed"].delta(), one[P + "embed"].delta() / 4)
    assert pairs[P + "embed"].kind == "embedding"
    np.testing.assert_allclose(pairs[P + "conv"].delta(), two[P + "conv"].delta() * 0.75)
    assert pairs[P + "conv"].A.shape == (2, 3, 3, 3)
    cut = reduce_adapters([members[1], Adapter(*kind("convolution", 3))], rank=1).result.pairs[P + "conv"]
    assert (cut.A.shape, cut.B.shape, cut.kind) == ((1, 3, 3, 3), (4, 1, 1, 1), "conv")


def test_biases_of_B_are_summed_and_zero_elsewhere() -> None:
    biased, plain = Adapter(*kind("bias of B")), Adapter(*kind("plain", 2))
    result = stack_adapters([biased, plain], weights=[1, 3]).result
    for module in SHAPES:
        bias = kind("bias of B")[0][f"{P}{module}.lora_B.bias"]
        np.testing.assert_allclose(result[f"{P}{module}.lora_B.bias"], 2.5 * bias / 4)
    assert result.config["lora_bias"] is True
    less = Adapter({**mixed()[2][0]}, mixed()[2][1])
    some = {name: value for name, value in kind("bias of B")[0].items() if "layers.1" in name}
    result = stack_adapters([less, Adapter(some, settings(lora_bias=True))]).result
    assert not result[f"{P}layers.0.q_proj.lora_B.bias"].any()


def test_full_tensors_are_averaged_where_that_is_exact() -> None:
    one, two = kind("bias"), kind("bias", 2)
    two[0][P + "norm.bias"] = np.array([9.0, 8.0, 7.0])
    del two[0][P + "layers.0.q_proj.lora_A.weight"], two[0][P + "layers.0.q_proj.lora_B.weight"]
    # The second does not target the module, so its bias goes by another name.
    two[0][P + "layers.0.q_proj.bias"] = two[0].pop(P + "layers.0.q_proj.base_layer.bias") + 1
    members = [Adapter(*one), Adapter(*two)]
    blend = stack_adapters(members, weights=[1, 3])
    np.testing.assert_allclose(
        blend.result[P + "layers.0.q_proj.base_layer.bias"], one[0][P + "layers.0.q_proj.base_layer.bias"] + 0.75
    )
    np.testing.assert_allclose(
        blend.result[P + "norm.bias"], one[0][P + "norm.bias"] / 4 + 0.75 * np.array([9.0, 8.0, 7.0])
    )
    assert blend.result.config["bias"] == "all"
    base = {"layers.0.q_proj.bias": np.full(7, 2.0), "norm.bias": np.full(3, 5.0), "head.weight": np.ones((3, 4))}
    summed = stack_adapters(members, weights=[1, 2], normalize=False, base=base)
    assert summed.form == "linear"
    np.testing.assert_allclose(
        summed.result[P + "norm.bias"], one[0][P + "norm.bias"] + 2 * np.array([9.0, 8.0, 7.0]) - 2 * 5.0
    )
    third = Adapter(*kind("head", 3))
    some = stack_adapters([*members, third], base=base).result
    np.testing.assert_allclose(some[P + "head.weight"], 1 + (third.full[P + "head.weight"] - 1) / 3)
    assert some.config["modules_to_save"] == ["head"]
    refused(
        lambda: stack_adapters([*members, third]),
        "'base_model.model.layers.0.q_proj.bias' is trained in full",
        "give base, the weights they started from, with method='stack_adapters'",
    )
    refused(lambda: stack_adapters([*members, third]), "member 2 lacks it", "give base")
    refused(lambda: stack_adapters(members, weights=[1, 2], normalize=False), "the weights do not sum to one")
    lean = {"layers.0.q_proj.bias": np.full(7, 2.0)}
    refused(lambda: stack_adapters([*members, third], base=lean), "the base has no such tensor")
    unlike = {**base, "norm.bias": np.ones(4)}
    refused(lambda: stack_adapters([*members, third], base=unlike), "base: ", "has shape (4,), in the members (3,)")
    refused(lambda: stack_adapters([*members, third], base=3), "base is int")


def test_the_base_may_lie_on_disk(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"head.weight": np.ones((3, 4))}, tmp_path / "base.safetensors")
    members = [Adapter(*kind("head")), Adapter(*kind("plain", 2))]
    result = stack_adapters(members, base=tmp_path / "base.safetensors").result
    np.testing.assert_allclose(result[P + "head.weight"], (1 + members[0].full[P + "head.weight"]) / 2)


def test_half_precision_says_what_rounding_changed() -> None:
    members = [Adapter({n: v.astype(ml_dtypes.bfloat16) for n, v in kind("plain", s)[0].items()}) for s in (1, 2, 3)]
    even = stack_adapters(members[:2], weights=[1, 1])
    assert even.info["rounding"] == 0  # halving is exact
    thirds = stack_adapters(members)
    exact = {m: sum(one.pairs[m].delta() for one in members) / 3 for m in members[0].pairs}
    gap = norm({m: thirds.result.pairs[m].delta() - exact[m] for m in exact}) / norm(exact)
    assert 0 < gap < 2**-8
    assert math.isclose(thirds.info["rounding"], gap, rel_tol=1e-6)
    wide = stack_adapters(members, dtype="float32")
    assert next(iter(wide.result.values())).dtype == np.float32
    assert norm({m: wide.result.pairs[m].delta() - exact[m] for m in exact}) / norm(exact) < 2**-23
    cut = reduce_adapters(members, rank=2)
    sharp = reduce_adapters(members, rank=2, dtype="float32")
    gap = {m: cut.result.pairs[m].delta() - sharp.result.pairs[m].delta() for m in exact}
    assert math.isclose(cut.info["rounding"], norm(gap) / norm(exact), rel_tol=1e-3)
    big = {"w.lora_A.weight": np.full((1, 2), 6e4, np.float16), "w.lora_B.weight": np.ones((2, 1), np.float16)}
    refused(lambda: stack_adapters([big, big], normalize=False), "beyond the range of float16", "dtype='float32'")


def test_weights_of_zero_take_no_rank_and_copies_count_once() -> None:
    a, b = Adapter(*kind("plain")), Adapter(*kind("plain", 2))
    blend = stack_adapters([a, b, a, b], weights=[1, 0, 1, 1])
    assert set(blend.info["ranks"].values()) == {4}
    assert blend.info["copies"] == [2, 3]
    assert blend.spread[0] == blend.spread[2]
    only = stack_adapters([a, b], weights=[1, 0])
    assert only.result is a
    np.testing.assert_allclose(
        only.spread[1], norm({m: a.pairs[m].delta() - b.pairs[m].delta() for m in a.pairs}), rtol=1e-12
    )
    refused(lambda: stack_adapters([a, a], weights=[1, -1], normalize=False), "cancel among equal members")
    refused(lambda: stack_adapters([a, b], weights=[1, -1]), "weights sum to 0", "normalize=False")
    difference = stack_adapters([a, b], weights=[1, -1], normalize=False)
    assert difference.form == "linear"
    np.testing.assert_allclose(
        difference.result.pairs[P + "layers.0.q_proj"].delta(),
        a.pairs[P + "layers.0.q_proj"].delta() - b.pairs[P + "layers.0.q_proj"].delta(),
        atol=1e-12,
    )
    assert stack_adapters([a, b], weights=[3, -1]).form == "affine"


def test_sums_of_parts_add_up_to_the_sum() -> None:
    members = [Adapter(*adapter) for adapter in mixed()]
    parts = [
        stack_adapters(members[:1], weights=[5], statistic=True),
        stack_adapters(members[1:], weights=[3, 2], statistic=True),
    ]
    merged = parts[1].statistic + parts[0].statistic
    whole = stack_adapters(members, weights=[5, 3, 2], statistic=True)
    assert merged.weight == whole.statistic.weight == 10
    assert set(merged) == set(whole.statistic)
    assert len(merged) == 4
    mean = merged.mean()
    for module, update in total(WEIGHTS_USED, mixed()).items():
        np.testing.assert_allclose(merged[P + module], 10 * update, atol=1e-12)
        np.testing.assert_allclose(mean.pairs[P + module].delta(), update, atol=1e-12)
    headed = stack_adapters([Adapter(*kind("head"))], statistic=True).statistic
    assert (headed.mean().full[P + "head.weight"] == kind("head")[0][P + "head.weight"]).all()
    refused(lambda: headed + whole.statistic, "'base_model.model.head.weight' is in one sum of adapters only")
    twice = headed + headed
    np.testing.assert_allclose(twice.mean().full[P + "head.weight"], kind("head")[0][P + "head.weight"])
    base = {"head.weight": np.ones((3, 4))}
    both = [Adapter(*kind("head")), Adapter(*kind("plain", 2))]
    refused(lambda: stack_adapters(both, base=base, statistic=True), "is no sum of what every member holds")
    biased = stack_adapters([Adapter(*kind("bias of B"))], statistic=True).statistic.mean()
    np.testing.assert_allclose(
        biased.pairs[P + "layers.0.q_proj"].bias, 2.5 * kind("bias of B")[0][P + "layers.0.q_proj.lora_B.bias"]
    )


NAMED = {
    "some differ": {"a.q": 4, "b.q": 4, "a.v": 6},
    "one": {"a": 3},
    "an end of another": {"q": 6, "x.q": 4, "y.x.q": 4, "z": 4},
    "dots that match": {"a.b": 6, "c.axb": 4, "c.d": 4, "e": 4},
    "signs": {"a+b": 6, "c(1)": 4, "d": 4},
}


@pytest.mark.parametrize("ranks", NAMED.values(), ids=NAMED)
def test_every_module_finds_its_rank_in_the_pattern(ranks: dict[str, int]) -> None:
    usual, pattern = patterns({P + name: rank for name, rank in ranks.items()})
    for name, rank in ranks.items():
        found = next((value for key, value in sorted(pattern.items()) if re.match(rf"(.*\.)?({key})$", name)), usual)
        assert found == rank, name


def test_the_configuration_of_a_sum() -> None:
    config = stack_adapters([Adapter(*adapter) for adapter in mixed()]).result.config
    assert config["base_model_name_or_path"] == "org/base"
    assert config["target_modules"] == sorted(SHAPES)  # the members' own lists differ
    assert config["use_rslora"] is False
    assert config["init_lora_weights"] is True
    assert config["rank_pattern"] == config["alpha_pattern"]
    same = [Adapter(*kind("plain", seed)) for seed in (1, 2)]
    assert stack_adapters(same).result.config["target_modules"] == ["q_proj", "v_proj"]
    bare = stack_adapters([kind("plain")[0], kind("plain", 2)[0]]).result.config
    assert (bare["peft_type"], bare["r"], bare["lora_alpha"]) == ("LORA", 4, 4)


def test_members_in_torch() -> None:
    torch = pytest.importorskip("torch")
    tensors = kind("plain")[0]
    as_torch = {name: torch.from_numpy(value).to(torch.bfloat16) for name, value in tensors.items()}
    result = stack_adapters([as_torch]).result
    assert result[P + "layers.0.q_proj.lora_A.weight"].dtype == ml_dtypes.bfloat16


def test_a_plan_comes_back_from_its_file(tmp_path: Path) -> None:
    members = [Adapter(*adapter) for adapter in mixed()]
    for out in (None, tmp_path / "sum"):
        blend = stack_adapters(members, out=out)
        back = Plan.load(blend.save(tmp_path / "plan.npz"))
        assert back.equals(blend)
        assert back.info["config"] == blend.result.config


def test_a_changed_scaling_is_another_problem(tmp_path: Path) -> None:
    tensors, config = kind("plain")
    one, two = (stack_adapters([Adapter(tensors, {**config, "lora_alpha": alpha})]) for alpha in (5, 6))
    assert one.problem != two.problem


def test_an_output_is_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = save(tmp_path / "one", *kind("plain"))
    other = save(tmp_path / "two", *kind("plain", 2))
    refused(lambda: stack_adapters([folder, other], out=folder), "is where member 0", "lies; name another path")
    refused(lambda: stack_adapters([folder], out=tmp_path / "x.safetensors"), "an adapter is a folder")
    out = tmp_path / "out"
    stack_adapters([folder], out=out)
    (out / "tokenizer.json").write_text("{}")
    before = (out / CONFIG).read_bytes()
    with pytest.raises(InputError):
        stack_adapters([folder, Adapter(*kind("DoRA"))], out=out)
    assert (out / CONFIG).read_bytes() == before
    stack_adapters([folder, other], out=out)
    assert sorted(path.name for path in out.iterdir()) == [CONFIG, WEIGHTS, "tokenizer.json"]
    assert json.loads((out / CONFIG).read_text())["r"] == 4
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_members_that_do_not_go_together_are_named_at_once() -> None:
    tensors, config = kind("plain")
    tensors = dict(tensors)
    name = P + "layers.0.q_proj"
    tensors[name + ".lora_B.weight"] = np.ones((9, 2))
    tensors[P + "layers.1.q_proj.lora_A.weight"] = np.ones((2, 5), np.float32)
    tensors[P + "layers.1.q_proj.lora_B.weight"] = np.ones((7, 2), np.float32)
    config |= {"base_model_name_or_path": "org/other", "fan_in_fan_out": True}
    members = [Adapter(*kind("plain", 2)), Adapter(tensors, config)]
    refused(
        lambda: stack_adapters(members),
        "members do not match in 4 places",
        "member 1 is for the base model 'org/other', others for 'org/base' (other_base=True takes them)",
        "member 1 has fan_in_fan_out=True, member 0 None",
        f"member 1: {name!r} is linear float64 from (5,) to (9,), in member 0 linear float64 from (5,) to (7,)",
        "float32",
    )
    near = [
        Adapter(kind("plain", 2)[0], {}),
        Adapter(*kind("plain")),
        Adapter(kind("plain", 3)[0], {**kind("plain")[1], "base_model_name_or_path": "b"}),
    ]
    refused(lambda: stack_adapters(near), "member 2 is for the base model 'b'")
    assert stack_adapters(near, other_base=True).n == 3
    heads = [
        Adapter(*kind("head")),
        Adapter({**kind("head", 2)[0], P + "head.weight": np.ones((2, 4))}, kind("head")[1]),
    ]
    refused(lambda: stack_adapters(heads), "is float64 (2, 4), in member 0 float64 (3, 4)")
    counts = [Adapter({**kind("plain", at)[0], P + "count": np.array([at])}) for at in (1, 2)]
    refused(lambda: stack_adapters(counts), "'base_model.model.count' holds whole numbers that differ")
    many = [{f"m{i}.lora_{half}.weight": np.ones((1, 1)) for i in range(9) for half in "AB"}]
    many += [{f"m{i}.lora_{half}.weight": np.ones((1, 1), np.float32) for i in range(9) for half in "AB"}]
    refused(lambda: stack_adapters(many), "members do not match in 9 places", "; and 3 more")


A, B = np.ones((2, 3)), np.ones((4, 2))
DAMAGED: dict[str, tuple[Any, str]] = {
    "an array": (np.ones(3), "member 0 is ndarray, no LoRA adapter"),
    "no factors": ({"w": A}, "member 0 holds no lora_A and lora_B"),
    "half a pair": ({"w.lora_A.weight": A}, "member 0: module 'w' has no lora_B"),
    "another half": ({"w.lora_B.weight": B}, "member 0: module 'w' has no lora_A"),
    "unlike ranks": ({"w.lora_A.weight": A, "w.lora_B.weight": np.ones((4, 3))}, "have shapes (2, 3) and (4, 3)"),
    "unlike depths": ({"w.lora_A.weight": A, "w.lora_B.weight": np.ones((4, 2, 1, 1))}, "have shapes"),
    "empty": ({"w.lora_A.weight": np.ones((0, 3)), "w.lora_B.weight": np.ones((4, 0))}, "have shapes"),
    "unlike dtypes": ({"w.lora_A.weight": A, "w.lora_B.weight": B.astype("f4")}, "are float64 and float32"),
    "whole numbers": ({"w.lora_A.weight": A.astype(int), "w.lora_B.weight": B.astype(int)}, "are int64 and int64"),
    "NaN": ({"w.lora_A.weight": A * np.nan, "w.lora_B.weight": B}, "'w.lora_A.weight' at (0, 0) is NaN"),
    "infinite": ({"w.lora_A.weight": A, "w.lora_B.weight": B * np.inf}, "'w.lora_B.weight' at (0, 0) is infinite"),
    "NaN in a head": (
        {"w.lora_A.weight": A, "w.lora_B.weight": B, "h": np.array([np.nan], np.float16)},
        "'h' at (0,) is",
    ),
    "two adapters in one": (
        {f"w.lora_{half}.{name}.weight": A if half == "A" else B for half in "AB" for name in ("one", "two")},
        "holds the adapters 'one' and 'two' in one; save each apart",
    ),
    "an adapter's name deep inside": ({"w.lora_A.x.y.weight": A}, "'w.lora_A.x.y.weight' is of no known LoRA form"),
    "text": ({"w.lora_A.weight": np.array([["a"]]), "w.lora_B.weight": B}, "has dtype <U1"),
    "no name": ({3: A}, "a tensor named 3"),
    "no folder": ("/nowhere/adapter", "/nowhere/adapter does not exist"),
}


@pytest.mark.parametrize(("member", "says"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_adapter_is_refused(member: Any, says: str) -> None:
    for combined in (stack_adapters, reduce_adapters):
        refused(lambda combined=combined: combined([member]), "member 0", says)


def test_a_state_dict_has_the_adapter_s_name_inside() -> None:
    """What a training loop saves of the model itself, and not by `save_pretrained`."""
    named = {
        "base_model.model.w.lora_A.default.weight": A,
        "base_model.model.w.lora_B.default.weight": B,
        "base_model.model.e.lora_embedding_A.default": A,
        "base_model.model.e.lora_embedding_B.default": B,
        "base_model.model.head.modules_to_save.default.weight": B,
        "base_model.model.head.original_module.weight": A,
    }
    adapter = Adapter(named, {"r": 2, "lora_alpha": 4})
    assert {module: pair.kind for module, pair in adapter.pairs.items()} == {
        "base_model.model.w": "linear",
        "base_model.model.e": "embedding",
    }
    assert list(adapter.full) == ["base_model.model.head.weight"]
    np.testing.assert_array_equal(adapter.pairs["base_model.model.w"].delta(), 2 * B @ A)
    assert dict(stack_adapters([adapter]).result) == named


def test_configurations_that_do_not_fit() -> None:
    tensors, config = kind("plain")
    refused(lambda: Adapter(tensors, {**config, "r": 3}), "the rank 3, its factors have 2")
    refused(lambda: Adapter(tensors, {**config, "lora_alpha": "x"}), "lora_alpha of", "is 'x'; give a finite number")
    refused(lambda: Adapter(tensors, {**config, "peft_type": "LOHA"}), "holds no factors of LOHA")


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    assert not is_adapter(tmp_path)
    assert not is_adapter(3)
    refused(lambda: lora_pairs(tmp_path), f"holds no {WEIGHTS}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    assert is_adapter(tmp_path)
    refused(
        lambda: lora_pairs(tmp_path), "adapter_model.bin is a pickle", "torch.load('adapter_model.bin'", f"'{WEIGHTS}'"
    )
    folder = save(tmp_path / "one", *kind("plain"))
    assert is_adapter(str(folder))
    assert list(lora_pairs(folder)) == list(lora_pairs(folder / WEIGHTS))
    for text, says in {
        '{"r": 2}': "lora_alpha=None; it must give a number",
        '{"r": 2, "lora_alpha": 2, "rank_pattern": 3}': "rank_pattern=3; it must map",
        '{"r": 2, "lora_alpha": 2, "alpha_pattern": {"(": 3}}': "alpha_pattern key '(', no regular expression",
    }.items():
        (folder / CONFIG).write_text(text)
        refused(lambda: lora_pairs(folder), says)
    for text in ("{", "[]"):
        (folder / CONFIG).write_text(text)
        with pytest.raises(FailureError, match=CONFIG):
            lora_pairs(folder)
    (folder / CONFIG).unlink()
    refused(lambda: lora_pairs(folder), f"{CONFIG} is missing")
    (folder / CONFIG).write_text(json.dumps(kind("plain")[1]))
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(FailureError, match="truncated"):
        lora_pairs(folder)


def test_options_are_refused_by_name() -> None:
    one = Adapter(*kind("plain"))
    refused(lambda: reduce_adapters([one], rank=2, energy=0.5), "rank=2 and energy=0.5: give one of them")
    refused(lambda: reduce_adapters([one], energy=0), "energy=0: ask for a share above 0")
    refused(lambda: reduce_adapters([one], rank=0), "rank=0")
    refused(lambda: stack_adapters([one], dtype="float64"), "dtype='float64'")


def call(combined: str, **options: Any) -> Case:
    members = [Adapter(kind("plain", at)[0], settings(lora_alpha=at)) for at in (1, 2, 3)]
    return Case.of("combine", combined, {"members": members, "weights": [1.0, 2.0, 1.0]}, options)


def scaled(result: Adapter, by: float) -> Adapter:
    name = next(iter(result))
    return Adapter({**result, name: result[name] * by}, result.config)


WRONG: dict[str, tuple[str, str, Callable[[Any], dict[str, Any]]]] = {
    "another update": ("stack_adapters", "blend", lambda plan: {"result": scaled(plan.result, 1.01)}),
    "a module less": (
        "stack_adapters",
        "blend",
        lambda plan: {"result": {name: value for name, value in plan.result.items() if "v_proj" not in name}},
    ),
    "weights that sum to more": ("stack_adapters", "blend", lambda plan: {"weights": plan.weights * 1.1}),
    "a negative weight": ("stack_adapters", "blend", lambda plan: {"weights": plan.weights * -1 + 2 / 3}),
    "a worse cut": ("reduce_adapters", "recount", lambda plan: {"result": scaled(plan.result, 1.01)}),
    "a better value": ("reduce_adapters", "recount", lambda plan: {"value": plan.value * 0.99}),
    "another spread": ("stack_adapters", "recount", lambda plan: {"spread": plan.spread * 1.01}),
}


@pytest.mark.parametrize(("combined", "law", "change"), WRONG.values(), ids=WRONG)
def test_the_laws_of_adapters_catch_what_is_wrong(combined: str, law: str, change: Callable[[Any], Any]) -> None:
    case = call(combined, **({"rank": 2} if combined == "reduce_adapters" else {}))
    LAWS[law](case)
    with pytest.raises(LawBroken, match=law):
        LAWS[law](dataclasses.replace(case, plan=dataclasses.replace(case.plan, **change(case.plan))))


def test_the_law_of_sums_catches_averaged_factors() -> None:
    """A server that averages A and B does not get from parts what it gets from all."""
    case = call("stack_adapters")

    def average(plan: Any) -> dict[str, np.ndarray]:
        return {
            name: sum(w * np.asarray(one[name]) for w, one in zip(plan.weights, case.words["members"], strict=True))
            for name in case.words["members"][0]
        }

    with pytest.raises(LawBroken, match="weighted sum"):
        LAWS["blend"](dataclasses.replace(case, plan=dataclasses.replace(case.plan, result=average(case.plan))))


def test_a_module_of_a_weightless_member_is_left_out() -> None:
    less, more = Adapter(*mixed()[2]), Adapter(*mixed()[0])
    blend = stack_adapters([less, less, more], weights=[1, 1, 0])
    assert blend.result is less
    np.testing.assert_allclose(blend.spread[2], norm(total([1, -1], [mixed()[0], mixed()[2]])), rtol=1e-12)
    assert list(stack_adapters([less, more], weights=[0.5, 0], normalize=False).info["ranks"]) == list(less.pairs)


def test_heads_that_agree_are_kept_bit_for_bit() -> None:
    members = [Adapter({**kind("plain", at)[0], P + "head.weight": np.full((3, 4), 0.1)}) for at in (1, 2, 3)]
    result = stack_adapters(members, weights=[0.1, 0.2, 0.3]).result
    assert (result[P + "head.weight"] == 0.1).all()


def test_an_adapter_says_what_it_is() -> None:
    assert repr(Adapter(*mixed()[0])) == "Adapter(3 modules of rank 2, 0 full tensors)"
    assert repr(Adapter(*mixed()[1])) == "Adapter(3 modules of rank 3..5, 0 full tensors)"
    swapped = {name: value.astype(value.dtype.newbyteorder("S")) for name, value in kind("plain")[0].items()}
    assert stack_adapters([swapped]).result.pairs.keys() == Adapter(*kind("plain")).pairs.keys()


def test_adapters_of_unlike_ranks_are_shown_the_way() -> None:
    members = [{"w.lora_A.weight": np.ones((r, 3)), "w.lora_B.weight": np.ones((4, r))} for r in (4, 2)]
    with pytest.raises(InputError, match="adapters of unlike ranks or modules add up with method='stack_adapters'"):
        kofn.combine(members, method="weighted_mean")
    assert kofn.combine(members, method="stack_adapters").result["w.lora_A.weight"].shape == (6, 3)
