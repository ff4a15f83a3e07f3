"""Plans of a model on disk: optimal, tied, fixed, kept in files, applied, exported, and what is refused."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kofn.allocation import allocate_checkpoint, apply_plan, export_plan, read_plan
from kofn.allocation.checkpoints._export_plan import groups_of
from kofn.core.checks import FailureError, InfeasibleError, InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

NAMES = tuple(f"model.layers.{i}.self_attn.{part}_proj" for i in range(2) for part in "qkv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six projections of unlike sizes, and a head."""
    rng = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": (rng.normal(size=(8 * (1 + i % 3), 64)) * (1 + i) ** 2).astype(np.float32)
        for i, name in enumerate(NAMES)
    }
    tensors["lm_head.weight"] = rng.normal(size=(10, 64)).astype(np.float32)
    write_arrays(tmp_path / "m.safetensors", tensors)
    return tmp_path


def plan_of(folder: Path, **call: Any) -> Any:
    return allocate_checkpoint(folder / "m.safetensors", **{"group_size": 32, "criterion": "squared", **call})


@pytest.mark.parametrize("count_scales", [False, True])
def test_no_other_widths_lose_less(folder: Path, count_scales: bool) -> None:
    asked = 3.7 if count_scales else 3.0
    plan = plan_of(folder, bits=asked, widths=[2, 3, 4], count_scales=count_scales)
    best = np.inf
    for own in itertools.product(range(3), repeat=len(NAMES)):
        bits = 0.0
        for tensor, column in zip(plan.tensors, own, strict=True):
            width = plan.levels[column]
            bits += tensor.size * width + (tensor.size // 32) * (32 + width) * count_scales
        if bits <= asked * plan.weights:
            best = min(best, sum(tensor.curve[column] for tensor, column in zip(plan.tensors, own, strict=True)))
    assert plan.error == pytest.approx(best, rel=1e-12)
    assert (plan.mean_with_scales if count_scales else plan.mean) <= asked
    assert plan.error <= plan.uniform
    means, errors, uniform = np.array(plan.frontier).T
    assert (np.diff(means) > 0).all()
    assert (np.diff(errors) <= 0).all()
    # Between two levels a share of the weights has each, which whole tensors cannot always follow.
    assert all(plan_of(folder, bits=width).error <= plan_of(folder, bits=width).uniform for width in (2, 3, 4))
    assert errors[0] == uniform[0]


def test_one_level_for_all_is_the_uniform_error(folder: Path) -> None:
    plan = plan_of(folder, bits=3)
    column = plan.levels.index(3)
    assert plan.uniform == pytest.approx(sum(tensor.curve[column] for tensor in plan.tensors))
    tied = plan_of(folder, bits=3, tie="*")
    assert {tensor.level for tensor in tied.tensors} == {3}
    assert tied.error == pytest.approx(plan.uniform)


@pytest.mark.parametrize(
    ("tie", "items"),
    [
        ("*.q_proj", [[0, 3], [1], [2], [4], [5]]),
        ("layers.{}.self_attn.[qk]_proj", [[0, 1], [2], [3, 4], [5]]),
        ("self_attn.{}_proj", [[0, 3], [1, 4], [2, 5]]),
        ("fused", [[0, 1, 2], [3, 4, 5]]),
        (["layers.0.*", "layers.1.*"], [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_tied_tensors_share_a_level(folder: Path, tie: Any, items: list[list[int]]) -> None:
    plan = plan_of(folder, bits=3.3, tie=tie)
    groups: dict[int, list[int]] = {}
    for position, tensor in enumerate(plan.tensors):
        groups.setdefault(tensor.item, []).append(position)
    names = [tensor.name for tensor in plan.tensors]
    wanted = [sorted(names.index(f"{NAMES[i]}.weight") for i in item) for item in items]
    assert sorted(groups.values()) == sorted(wanted)
    for item in groups.values():
        assert len({plan.tensors[i].level for i in item}) == 1


def test_fixed_tensors_have_their_level_and_count(folder: Path) -> None:
    plan = plan_of(folder, bits=4, fix={"lm_head": 8, "*.1.self_attn.v_proj": 3, "0.self_attn.q_proj": "keep"})
    level = plan.level_of()
    assert (level["lm_head.weight"], level[f"{NAMES[5]}.weight"]) == (8, 3)
    assert plan.kept == (f"{NAMES[0]}.weight",)
    assert {tensor.name for tensor in plan.tensors if tensor.fixed} == {"lm_head.weight", f"{NAMES[5]}.weight"}
    assert sum(t.size * t.level for t in plan.tensors) / plan.weights == pytest.approx(plan.mean)
    assert set(plan_of(folder, bits=4, only="*").level_of()) == {
        *(f"{name}.weight" for name in NAMES),
        "lm_head.weight",
    }
    tied = plan_of(folder, bits=4, fix={"0.self_attn.q_proj": 2}, tie="fused").level_of()
    assert {tied[f"{name}.weight"] for name in NAMES[:3]} == {2}


def test_a_plan_is_read_back_and_fits_its_checkpoint_only(folder: Path) -> None:
    plan = plan_of(folder, bits=3)
    plan.save(folder / "plan.json")
    assert read_plan(folder / "plan.json") == plan
    apply_plan(folder / "plan.json", out=folder / "a.safetensors")
    tensors = {name: tensor.array() for name, tensor in Checkpoint.open(folder / "m.safetensors").items()}
    changed = {name: array.copy() for name, array in tensors.items()}
    changed["lm_head.weight"][0, 0] += 1
    others = {
        "has the digest": changed,
        "has no tensor": {name: array for name, array in tensors.items() if "1.self_attn.q" not in name},
        "has shape": {**tensors, f"{NAMES[0]}.weight": tensors[f"{NAMES[0]}.weight"][:4]},
    }
    for message, arrays in others.items():
        write_arrays(folder / "other.safetensors", arrays)
        with pytest.raises(InputError, match=message):
            apply_plan(plan, folder / "other.safetensors", out=folder / "b.safetensors")
        assert not (folder / "b.safetensors").exists()
    with pytest.raises(InputError, match="is the checkpoint itself"):
        apply_plan(plan, out=folder / "m.safetensors")
    for text, message in {
        "{": "not a plan",
        "[]": "its schema is none",
        '{"schema": "x"}': "its schema is 'x'",
    }.items():
        (folder / "bad.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_plan(folder / "bad.json")
    content = json.loads((folder / "plan.json").read_text())
    del content["levels"]
    (folder / "bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="damaged"):
        read_plan(folder / "bad.json")
    with pytest.raises(InputError, match="no such file"):
        read_plan(folder / "none.json")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"bits": 1.5}, InfeasibleError, "bits=1.5: .* from 2 to 8"),
        ({"bits": 8.5}, InfeasibleError, "bits=8.5: .* from 2 to 8"),
        ({"bits": 2.5, "count_scales": True}, InfeasibleError, "from 3.0625 to 9.25"),
        ({"bits": 3, "fix": {"lm_head": 8, "*_proj": 4}}, InfeasibleError, "7 tensors fixed"),
        ({"sparsity": 0.99}, InfeasibleError, "sparsity=0.99: .* from 0 to 0.95"),
        ({"sparsity": 1.5}, InputError, "sparsity=1.5"),
        ({}, InputError, "not neither"),
        ({"bits": 3, "sparsity": 0.5}, InputError, "not both"),
        ({"bits": float("nan")}, InputError, "bits=nan"),
        ({"bits": 3, "widths": [1, 4]}, InputError, "widths=1"),
        ({"bits": 3, "widths": []}, InputError, "widths="),
        ({"bits": 3, r"widths": [2.5]}, InputError, r"widths\[0\]=2.5"),
        ({"bits": 3, "group_size": 0}, InputError, "group_size=0"),
        ({"bits": 3, "only": "q_prj"}, InputError, "matches no tensor.*did you mean"),
        ({"bits": 3, "tie": "x.*"}, InputError, "tie='x.*' matches no tensor"),
        ({"bits": 3, "tie": ["*.q_proj", "layers.0.*"]}, InputError, "tie it once"),
        ({"bits": 3, "fix": {"lm_head": 9}}, InputError, "a width from 2 to 8, or 'keep'"),
        ({"bits": 3, "fix": {"lm_head": "8"}}, InputError, "a width from 2 to 8"),
        ({"sparsity": 0.5, "fix": {"lm_head": 33}}, InputError, "the percent that is left"),
        (
            {"bits": 3, "tie": "fused", "fix": {"0.self_attn.q_proj": 2, "0.self_attn.k_proj": 3}},
            InputError,
            "tied to it",
        ),
        ({"bits": 3, "fix": {"*": "keep"}}, InputError, "none of which takes part"),
        ({"bits": 3, "criterion": "l1"}, InputError, "criterion='l1'"),
        ({"bits": 3, "statistics": {"x": np.ones(3)}}, InputError, "has nothing of 6 of 6 tensors"),
        ({"bits": 3, "statistics": dict.fromkeys(NAMES, np.ones(3))}, InputError, r"has shape \(3,\)"),
        ({"bits": 3, "statistics": dict.fromkeys(NAMES, -np.ones(64))}, InputError, "is -1 at 0"),
        ({"bits": 3, "statistics": dict.fromkeys(NAMES, np.full(64, np.nan))}, InputError, "is nan at 0"),
        ({"bits": 3, "statistics": 7}, InputError, "statistics=7: give a mapping"),
    ],
)
def test_refusals(folder: Path, call: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plan_of(folder, **call)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("asked", [{"bits": 3}, {"sparsity": 0.5}])
def test_a_curvature_that_is_no_mean_of_squares_is_refused(folder: Path, value: float, asked: dict[str, float]) -> None:
    tensors = Checkpoint.open(folder / "m.safetensors")
    curvature = {name: np.full(tensor.shape, value, np.float32) for name, tensor in tensors.items()}
    with pytest.raises(InputError, match=r"statistics|score of tensor 'model\.layers\.0"):
        plan_of(folder, **asked, statistics=curvature)


def test_quantised_and_damaged_checkpoints_are_refused(folder: Path) -> None:
    rows = np.ones((8, 64), np.float32)
    float8 = rows.astype(ml_dtypes.float8_e4m3fn)
    packed = {"a.qweight": np.ones((8, 8), np.int32), "a.qzeros": np.ones((8, 8), np.int32)}
    sources: dict[str, dict[str, Any]] = {
        "'a.weight' is quantised already, to float8_e4m3fn with the scale": {
            "a.weight": float8,
            "a.weight_scale": np.ones(1, np.float32),
        },
        "'a.weight' is quantised already, to float8": {"a.weight": float8},
        "GPTQ or AWQ": packed,
        "none of which takes part": {"a.weight": rows[0], "b.weight": rows.astype(np.int32), "lm_head.weight": rows},
    }
    for message, tensors in sources.items():
        write_arrays(folder / "x.safetensors", tensors)
        with pytest.raises(InputError, match=message):
            allocate_checkpoint(folder / "x.safetensors", bits=3)
    (folder / "q").mkdir()
    write_arrays(folder / "q/model.safetensors", {"a.weight": rows})
    (folder / "q/config.json").write_text('{"quantization_config": {"bits": 4}}')
    with pytest.raises(InputError, match="quantization_config"):
        allocate_checkpoint(folder / "q", bits=3)
    whole = (folder / "m.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-100])
    with pytest.raises(FailureError, match=r"truncated: tensor '.*' ends at byte"):
        allocate_checkpoint(folder / "cut.safetensors", bits=3)
    (folder / "odd.safetensors").write_bytes(whole.replace(b'"F32"', b'"F31"', 1))
    with pytest.raises(InputError, match="is of type 'F31'"):
        allocate_checkpoint(folder / "odd.safetensors", bits=3)


def test_zero_weights_cost_nothing(folder: Path) -> None:
    write_arrays(
        folder / "m.safetensors", {"a.weight": np.zeros((8, 64), np.float32), "b.weight": np.eye(64, dtype="f4")}
    )
    plan = plan_of(folder, bits=3, criterion="relative")
    assert plan.tensors[0].curve == (0.0,) * 7
    assert np.isfinite(plan.error)


def test_a_killed_run_goes_on_and_keeps_the_old_output(folder: Path) -> None:
    plan = plan_of(folder, bits=3)
    plan.save(folder / "plan.json")
    (folder / "config.json").write_text("{}")
    code = (
        "import os, signal, sys; from kofn.allocation.checkpoints import _apply_plan\n"
        "_apply_plan._NOTED = 1\n"
        "old, count = _apply_plan._write, [0]\n"
        "def counted(*given):\n"
        "    count[0] += 1\n"
        "    if count[0] == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return old(*given)\n"
        "_apply_plan._write = counted\n"
        "_apply_plan.apply_plan(sys.argv[1], out=sys.argv[2]); print(count[0])\n"
    )
    out = folder / "out.safetensors"
    out.write_bytes(b"old")
    command = [sys.executable, "-c", code, str(folder / "plan.json"), str(out)]
    killed = subprocess.run([*command, "4"], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert out.read_bytes() == b"old"
    again = subprocess.run([*command, "0"], capture_output=True, text=True, check=True)
    assert int(again.stdout) == len(plan.tensors) - 3
    apply_plan(plan, out=folder / "whole.safetensors")
    assert out.read_bytes() == (folder / "whole.safetensors").read_bytes()
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_exports_name_every_module_once(folder: Path) -> None:
    plan = plan_of(folder, bits=3.3, fix={"1.self_attn.v_proj": 5})
    notes = export_plan(plan, folder / "recipe.yaml", format="llmcompressor")
    assert "--widths 4,8" in notes[0]
    groups = groups_of(plan)
    assert groups["ignore"] == ["lm_head"]
    named = [name for group in groups["config_groups"].values() for name in group["targets"]]
    assert sorted(named) == sorted(NAMES)
    assert list(groups["config_groups"]) == sorted(groups["config_groups"])
    export_plan(plan, folder / "settings.json", format="auto-round")
    layers = json.loads((folder / "settings.json").read_text())["layer_config"]
    assert {name: layers[name]["bits"] for name in NAMES} == {t.module: t.level for t in plan.tensors}
    assert layers["lm_head"]["bits"] == 16
    with pytest.raises(InputError, match="one is of sparsity"):
        export_plan(plan_of(folder, sparsity=0.5), folder / "x.yaml", format="llmcompressor")
    with pytest.raises(InputError, match="format='gguf'"):
        export_plan(plan, folder / "x.yaml", format="gguf")
    write_arrays(folder / "experts.safetensors", {"experts": np.ones((2, 32, 32), np.float32)})
    with pytest.raises(InputError, match="'experts' of shape"):
        export_plan(allocate_checkpoint(folder / "experts.safetensors", bits=4), folder / "x", format="auto-round")


def test_compressed_tensors_reads_the_recipe(folder: Path) -> None:
    pytest.importorskip("compressed_tensors")
    import torch
    import yaml
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    # Eleven layers: 'layers.1' is the beginning of 'layers.10'.
    names = [f"layers.{i}.{part}" for i in range(11) for part in ("q_proj", "out")]
    rng = np.random.default_rng(0)
    tensors = {f"{name}.weight": rng.normal(size=(8, 64), scale=1 + i).astype("f4") for i, name in enumerate(names)}
    tensors |= {"odd.weight": np.eye(40, dtype="f4"), "lm_head.weight": np.eye(64, dtype="f4")}
    write_arrays(folder / "m.safetensors", tensors)
    plan = plan_of(folder, bits=3.5, fix={"odd": 4}, symmetric=True)
    export_plan(plan, folder / "recipe.yaml", format="llmcompressor")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    modifier = recipe["quant_stage"]["quant_modifiers"]["QuantizationModifier"]
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList(
        torch.nn.ModuleDict({"q_proj": torch.nn.Linear(64, 8), "out": torch.nn.Linear(64, 8)}) for _ in range(11)
    )
    model.odd, model.lm_head = torch.nn.Linear(40, 40), torch.nn.Linear(64, 64)
    apply_quantization_config(model, QuantizationConfig(**modifier))
    schemes = {
        name: module.quantization_scheme.weights
        for name, module in model.named_modules()
        if getattr(module, "quantization_scheme", None) is not None
    }
    assert {name: args.num_bits for name, args in schemes.items()} == {t.module: t.level for t in plan.tensors}
    assert {args.group_size for name, args in schemes.items() if name != "odd"} == {32}
    assert schemes["odd"].strategy == "channel"
    assert all(args.symmetric for args in schemes.values())


def test_a_fixed_width_may_be_none_of_those_that_others_have(folder: Path) -> None:
    plan = plan_of(folder, bits=5.5, widths=(2, 4), fix={"0.self_attn.q_proj": 8}, tie="fused")
    level = plan.level_of()
    assert {level[tensor.name] for tensor in plan.tensors if tensor.fixed} == {8}
    assert set(level.values()) <= {2, 4, 8}
    # Only those that are tied to it have its width.
    assert {name for name, bits in level.items() if bits == 8} == {name for name in level if ".0.self_attn" in name}
