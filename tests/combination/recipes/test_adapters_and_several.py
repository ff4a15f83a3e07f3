"""Recipes of models with adapters, several in one file, and chat templates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import run

from benchmarks.recipes import MODELS, ours, write_models
from kofn.combination import fold_adapter, merge_recipe, preview_merge, read_recipe
from kofn.combination.recipes._recipe import Adapted
from kofn.core.checks import InputError
from kofn.io.tensor_writer import CheckpointWriter, hidden_folder, write_arrays
from kofn.io.tensors import Checkpoint

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    fold_adapter(folder / "a", folder / "lora", out=folder / "folded")
    return folder


def listed(*names: Any, **more: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [{"model": n, "parameters": {"weight": 1}} for n in names], **more}


def merged(recipe: Any, folder: Path, out: Path) -> Arrays:
    return ours(recipe, folder, out)


def same(first: Arrays, second: Arrays) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name], err_msg=name)


LONG = {"model": {"path": "a"}, "lora": {"path": "lora"}}
LAYERS = {"layer_range": [0, 2]}


@pytest.mark.parametrize(
    "recipe",
    [
        listed("X", "b"),
        {**listed("X", "b"), "merge_method": "ties", "base_model": "base", "parameters": {"density": 0.5}},
        {**listed("a", "b"), "merge_method": "task_arithmetic", "base_model": "X"},
        {"merge_method": "passthrough", "slices": [{"sources": [{"model": "X", **LAYERS}]}]},
        {"merge_method": "slerp", "base_model": "b", "models": [{"model": "X"}], "parameters": {"t": [0, 1]}},
    ],
    ids=["member", "beside a base", "base", "slices", "slerp"],
)
@pytest.mark.parametrize("long", [False, True])
def test_an_adapter_is_folded_as_its_model_is_read(
    recipe: dict[str, Any], long: bool, models: Path, tmp_path: Path
) -> None:
    def put(value: Any, word: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(each, word) for key, each in value.items()}
        if isinstance(value, list):
            return [put(each, word) for each in value]
        return word if value == "X" else value

    full = put(put(recipe, LONG if long else "a+lora"), "")
    folded = put(recipe, str(models / "folded"))
    same(merged(full, models, tmp_path / "one"), merged(folded, models, tmp_path / "two"))


def test_the_plan_and_the_preview_say_what_is_folded(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(listed(f"{models}/a+{models}/lora", str(models / "b"))))
    plan = merge_recipe(path)
    assert f"{models}/lora is folded into {models}/a" in plan.info["warnings"]
    rows = preview_merge(read_recipe(path))
    assert {row["name"] for row in rows} == set(plan.result)


def test_blocks_of_a_folded_tensor_are_parts_of_it(models: Path) -> None:
    """Blocks that begin and end within rows, into a buffer and without one; DoRA takes the whole tensor."""
    fold = fold_adapter(models / "a", models / "lora")
    opened = Adapted(models / "a", models / "lora").open()
    assert models / "lora" / "adapter_model.safetensors" in opened.files
    buffer = np.empty(1 << 16, np.uint8)
    for name, tensor in opened.items():
        flat = fold[name].reshape(-1)
        for start, stop in ((0, tensor.size), (0, 1), (5, 30), (31, 32), (tensor.size - 31, tensor.size)):
            np.testing.assert_array_equal(tensor.read(start, stop), flat[start:stop])
            np.testing.assert_array_equal(tensor.read(start, stop, buffer), flat[start:stop])


def test_dora_along_columns(models: Path, tmp_path: Path) -> None:
    rng, name = np.random.default_rng(0), "model.layers.0.mlp.up_proj"
    tensors = {
        f"{name}.lora_A.weight": rng.normal(size=(2, 48)).astype(np.float32),
        f"{name}.lora_B.weight": rng.normal(size=(32, 2)).astype(np.float32),
        f"{name}.lora_magnitude_vector": rng.uniform(1, 2, 32).astype(np.float32),
    }
    adapter = tmp_path / "dora"
    adapter.mkdir()
    write_arrays(adapter / "adapter_model.safetensors", tensors)
    (adapter / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2, "fan_in_fan_out": true, "use_dora": true}')
    opened = Adapted(models / "a", adapter).open()[name + ".weight"]
    flat = fold_adapter(models / "a", adapter)[name + ".weight"].reshape(-1)
    np.testing.assert_array_equal(opened.read(7, 100), flat[7:100])


def test_what_a_fold_warns_of_is_told_of_the_recipe(models: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(models / "lora", tmp_path / "lora")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/other"}))
    recipe = read_recipe(listed(f"{models / 'a'}+{adapter}", str(models / "b")))
    warnings = merge_recipe(recipe, out=tmp_path / "out").info["warnings"]
    told = [line for line in warnings if "was trained on 'org/other'" in line]
    assert told == [f"{adapter} was trained on 'org/other' by its configuration, and is folded into {models / 'a'}"]
    for out, where in ((adapter / "x.safetensors", "read together"), (adapter, "is where"), (models / "b", "is where")):
        with pytest.raises(InputError, match=where):
            merge_recipe(recipe, out=out)


def test_an_adapter_that_adds_tokens_is_folded_before(models: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(models / "lora", tmp_path / "lora")
    tensors = {name: tensor.array() for name, tensor in Checkpoint.open(adapter).items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[f"base_model.model.{name}"] = np.ones((66, 32), np.float32)
    write_arrays(adapter / "adapter_model.safetensors", tensors)
    with pytest.raises(InputError, match=r"66 rows for 64, .* fold it first \(kofn combine .* -o folded/\)"):
        merge_recipe(listed(f"{models / 'a'}+{adapter}"))
    folded = fold_adapter(models / "a", adapter, out=tmp_path / "folded")
    same(merge_recipe(listed(str(tmp_path / "folded"))).result, dict(folded))


CHAIN = [
    listed("a", "b", name="first", dtype="bfloat16"),
    {"merge_method": "slerp", "name": "second", "base_model": "first", "models": [{"model": "c"}]}
    | {"parameters": {"t": [0, 0.5, 1]}},
    {**listed("second", "first"), "merge_method": "ties", "base_model": "base", "parameters": {"density": 0.4}},
]


def test_recipes_of_one_file_are_run_in_the_order_of_their_use(models: Path, tmp_path: Path) -> None:
    whole = merged([CHAIN[2], CHAIN[1], CHAIN[0]], models, tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]
    first, second = tmp_path / "first", tmp_path / "second"
    merged(CHAIN[0], models, first)
    merged({**CHAIN[1], "base_model": str(first)}, models, second)
    last = {**CHAIN[2], "models": [{"model": str(path), "parameters": {"weight": 1}} for path in (second, first)]}
    same(whole, merged(last, models, tmp_path / "last"))


def test_all_recipes_of_a_file_are_previewed(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each as it will be: what it blends, by what, in which dtype and shape, and the whole without a file written."""
    path = tmp_path / "r.yaml"
    stacked = {"merge_method": "passthrough", "name": "deep", "dtype": "bfloat16"} | {
        "slices": [{"sources": [{"model": str(models / m), "layer_range": [0, 2]}]} for m in ("a", "b")]
    }
    of_both = [
        listed(str(models / "a"), str(models / "b"), name="first", dtype="bfloat16"),
        listed("first", str(models / "c"), name="second", dtype="float32"),
        {**listed("second", "first"), "merge_method": "ties", "base_model": str(models / "base")},
    ]
    path.write_text(yaml.safe_dump_all(of_both))
    rows = preview_merge(read_recipe(path))
    blend = merge_recipe(path, out=tmp_path / "out")
    last = [row for row in rows if row["recipe"] == ""]
    assert list(dict.fromkeys((row["recipe"], row["models"]) for row in rows)) == [("first", 2), ("second", 2), ("", 2)]
    assert {(row["recipe"], row["dtype"]) for row in rows} >= {("first", "bfloat16"), ("second", "float32")}
    assert {row["name"]: (row["dtype"], row["shape"]) for row in last} == {
        name: (value.dtype.name, list(value.shape)) for name, value in blend.result.items()
    }
    assert all(str(tmp_path) not in str(row) for row in rows)
    path.write_text(yaml.safe_dump_all([stacked, listed("deep")]))
    rows = preview_merge(read_recipe(path))
    names = [[row["name"] for row in rows if row["recipe"] == recipe] for recipe in ("deep", "")]
    assert names[0] == names[1]
    assert any("layers.3." in name for name in names[1])
    code, out, err = run(capsys, "combine", path, "--dry-run")
    assert code == 0, err
    assert "recipe deep: 1 model\n" in out
    assert "recipe without a name: 1 model\n" in out
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "r.yaml"]


def test_an_adapter_on_what_another_recipe_makes(models: Path, tmp_path: Path) -> None:
    made = listed("a", "c", name="x")
    whole = merged([made, listed("x+lora", "b")], models, tmp_path / "whole")
    merged(made, models, tmp_path / "x")
    fold_adapter(tmp_path / "x", models / "lora", out=tmp_path / "folded")
    same(whole, merged(listed(str(tmp_path / "folded"), "b"), models, tmp_path / "last"))


def test_a_fault_in_a_later_recipe_leaves_nothing(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    first = listed(str(models / "a"), name="x")
    path.write_text(yaml.safe_dump_all([first, listed("x", str(models / "none"))]))
    with pytest.raises(InputError, match="is no folder here"):
        merge_recipe(path, out=tmp_path / "out")
    assert os.listdir(tmp_path) == ["r.yaml"]
    with pytest.raises(InputError, match="is no folder here"):
        preview_merge(read_recipe(path))


def test_an_adapter_alone_is_no_model(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(listed(str(models / "lora"), str(models / "b"))))
    with pytest.raises(InputError, match=r"lora' is an adapter; write the model it was trained on before it: MODEL\+"):
        merge_recipe(path)


def test_the_command_line_says_what_several_recipes_blend(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump_all([listed(str(models / "a"), name="x"), listed("x", str(models / "b"))]))
    code, out, err = run(capsys, "combine", path, "-o", tmp_path / "out")
    assert code == 0, err
    assert "recipe: 2 members" in out


TEMPLATES = {"a": "A {{ messages[0].content }}", "b": "B {{ messages }}", "c": "B {{ messages }}\n"}


@pytest.mark.parametrize("inside", [False, True])
def test_the_chat_template_is_the_one_that_is_asked_for(inside: bool, tmp_path: Path) -> None:
    for model, template in (*TEMPLATES.items(), ("none", None)):
        folder = tmp_path / model
        folder.mkdir()
        write_arrays(folder / "model.safetensors", {"w": np.zeros(2, np.float32)})
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("{}")
        named = [{"name": "tool", "template": "T"}, {"name": "default", "template": template}]
        config = {"x": 1, **({"chat_template": named} if inside and template else {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if template and not inside:
            (folder / "chat_template.jinja").write_text(template)
    own = "X {{ messages[0].content }} and more"
    assert set(MODELS) > set(TEMPLATES)
    for asked, wanted in ((own, own), ("auto", "B {{ messages }}")):
        recipe = listed(*(str(tmp_path / model) for model in (*TEMPLATES, "none")), chat_template=asked)
        merge_recipe(recipe, out=tmp_path / asked[:4].strip())
        out = tmp_path / asked[:4].strip()
        assert (out / "chat_template.jinja").read_text() == wanted
        assert json.loads((out / "tokenizer_config.json").read_text()) == {"x": 1, "chat_template": wanted}
        assert set(Checkpoint.open(out)) == {"w"}
    merge_recipe(listed(str(tmp_path / "none"), chat_template="auto"), out=tmp_path / "plain")
    assert not (tmp_path / "plain" / "chat_template.jinja").exists()


def chain_file(models: Path, folder: Path) -> Path:
    path = folder / "chain.yaml"
    path.write_text(yaml.safe_dump_all([located(document, models) for document in CHAIN]))
    return path


def located(value: Any, models: Path) -> Any:
    """A recipe with the paths of its models."""
    if isinstance(value, dict):
        return {key: located(each, models) if key != "name" else each for key, each in value.items()}
    if isinstance(value, list):
        return [located(each, models) for each in value]
    return str(models / value) if value in MODELS else value


# Ends the process, or is Ctrl-C, as the named recipe has written some of its tensors.
KILLED = """
import os, signal, sys, time
from kofn.combination import merge_recipe
from kofn.io.tensor_writer import CheckpointWriter
signal.signal(signal.SIGINT, signal.default_int_handler)
note = CheckpointWriter.note
def cut(writer, line):
    note(writer, line)
    if writer.out.name == sys.argv[3]:
        for _ in range(2):  # the first Ctrl-C lets a batch end
            os.kill(os.getpid(), getattr(signal, sys.argv[4]))
            time.sleep(0.5)  # two at once would be one
CheckpointWriter.note = cut
merge_recipe(sys.argv[1], out=sys.argv[2])
"""


@pytest.mark.parametrize(("last", "signal"), [("second", "SIGKILL"), ("out", "SIGKILL"), ("second", "SIGINT")])
def test_recipes_of_one_file_go_on_after_a_kill(
    last: str, signal: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = chain_file(models, tmp_path), tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, path, out, last, signal], capture_output=True, check=False)
    assert not out.exists()
    begun, enter = [], CheckpointWriter.__enter__

    def entered(writer: CheckpointWriter) -> CheckpointWriter:
        enter(writer)
        begun.append((writer.out.name, len(writer.resumed) > 0))
        return writer

    monkeypatch.setattr(CheckpointWriter, "__enter__", entered)
    plan = merge_recipe(path, out=out)
    assert begun[0] == (last, True)
    assert [name for name, _ in begun] == ["second", "out"][-len(begun) :]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chain.yaml", "out"]
    same(dict(plan.result), dict(merge_recipe(path, out=tmp_path / "whole").result))


def test_what_a_killed_run_made_of_other_files_is_made_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    shutil.copytree(models, here)
    path, out = chain_file(here, tmp_path), tmp_path / "out"
    subprocess.run([sys.executable, "-c", KILLED, path, out, "out", "SIGKILL"], capture_output=True, check=False)
    file = here / "a" / "model.safetensors"
    os.utime(file, (1, 1))
    begun, enter = [], CheckpointWriter.__enter__
    monkeypatch.setattr(CheckpointWriter, "__enter__", lambda writer: (begun.append(writer.out.name), enter(writer))[1])
    merge_recipe(path, out=out)
    assert begun == ["first", "second", "out"]


def test_two_runs_of_recipes_on_one_output_do_not_share_what_they_make(models: Path, tmp_path: Path) -> None:
    path, out = chain_file(models, tmp_path), tmp_path / "out"
    recipe = read_recipe(path)
    with hidden_folder(out, recipe.job) as folder:
        with pytest.raises(InputError, match="is being written by another run of the same job; let it finish"):
            merge_recipe(path, out=out)
        assert folder.is_dir()
        # Another recipe has a folder of its own, and leaves this one alone.
        path.write_text(path.read_text().replace("0.4", "0.5"))
        merge_recipe(path, out=out)
        assert folder.is_dir()
    assert not folder.exists()


def test_folders_of_other_recipes_that_were_killed_go_with_the_next_run(models: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.kofn-parts-0123" / "models" / "first").mkdir(parents=True)
    merge_recipe(chain_file(models, tmp_path), out=tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["chain.yaml", "out"]


def test_answers_and_errors_call_what_recipes_make_by_their_names(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = chain_file(models, tmp_path)
    code, out, err = run(capsys, "combine", path, "-o", tmp_path / "out")
    assert code == 0, err
    assert "kofn-parts" not in out + err
    assert "  second" in out
    info = merge_recipe(path, out=tmp_path / "again").info
    assert info["members"] == ["second", "first"]
    assert "kofn-parts" not in repr(info)
    made = listed(str(models / "a"), name="x")
    other = tmp_path / "other"
    write_arrays(other, {"strange": np.zeros(3, np.float32)})
    path.write_text(yaml.safe_dump_all([made, listed(str(other), "x")]))
    with pytest.raises(InputError, match=r"member 1 \(x\) lacks tensor") as error:
        merge_recipe(path, out=tmp_path / "out")
    assert "kofn-parts" not in str(error.value)
