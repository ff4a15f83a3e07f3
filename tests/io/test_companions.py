"""What is copied beside a blend, and what members' configurations say of tensors that have the same names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import kofn
from kofn.combination import merge_recipe
from kofn.core.checks import InputError
from kofn.io.companions import companions

Settings = dict[str, Any]


def member(folder: Path, settings: Settings, tensors: tuple[str, ...] = ("w",)) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **settings}))
    save_file({name: np.ones((2, 2), np.float32) for name in tensors}, folder / "model.safetensors")
    return folder


def warnings_of(*folders: Path) -> str:
    return " / ".join(companions([folder.name for folder in folders], folders)[1])


LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"rope_parameters": LINEAR}, {"rope_parameters": {**LINEAR, "factor": 8.0}}, ["rope_factor is 8.0 in b, 4.0"]),
        ({"rope_parameters": LINEAR}, {"rope_theta": 10000, "rope_scaling": {"type": "linear", "factor": 4}}, []),
        ({"rope_theta": 1e4, "rope_scaling": None}, {"rope_parameters": LINEAR}, ["rope_type is 'linear' in b"]),
        ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 1e6}}, ["rope_theta is 1000000.0 in b, 10000.0 in a"]),
        (
            {"rope_parameters": {"full": {"rope_theta": 1}, "local": {"rope_theta": 2}}},
            {"rope_parameters": {"full": {"rope_theta": 1}, "local": {"rope_theta": 3}}},
            ["rope_local.rope_theta is 3 in b"],
        ),
        ({}, {"rope_parameters": LINEAR}, []),
    ],
)
def test_rotary_embeddings_are_compared_however_they_are_written(
    first: Settings, second: Settings, says: list[str], tmp_path: Path
) -> None:
    text = warnings_of(member(tmp_path / "a", first), member(tmp_path / "b", second))
    assert ("rope" in text) == bool(says)
    for words in says:
        assert words in text


def test_classes_in_another_order_are_warned_of(tmp_path: Path) -> None:
    labels = {"0": "pos", "1": "neg"}
    first = member(tmp_path / "a", {"id2label": labels})
    assert "id2label" not in warnings_of(first, member(tmp_path / "b", {"id2label": labels}))
    turned = member(tmp_path / "c", {"id2label": {"0": "neg", "1": "pos"}})
    assert "class 0 is 'neg' in c, 'pos' in a (id2label): rows of their heads are blended as they stand" in (
        warnings_of(first, turned)
    )


def test_code_that_a_configuration_names_comes_along(tmp_path: Path) -> None:
    local = {"auto_map": {"AutoConfig": "configuration_x.X", "AutoModel": "modeling_x.Y"}}
    first, second = member(tmp_path / "a", local), member(tmp_path / "b", local)
    plain = member(tmp_path / "c", {"auto_map": {"AutoModel": "owner/name--modeling_x.Y"}})
    for folder in (first, second, plain):
        for name in ("configuration_x.py", "modeling_x.py", "helpers.py"):
            (folder / name).write_text("raise SystemExit('never run')\n")
    (second / "modeling_x.py").write_text("pass\n")
    templates = first / "additional_chat_templates"
    templates.mkdir()
    (templates / "tools.jinja").write_text("{{ messages }}")
    (first / "chat_template.jinja").write_text("{{ messages }}")
    blend = kofn.combine([first, second], out=tmp_path / "out")
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    code = {"configuration_x.py", "modeling_x.py", "helpers.py"}
    assert code | {"additional_chat_templates/tools.jinja"} <= written
    assert any(
        "member 1" in line and "modeling_x.py differs from the one copied" in line for line in blend.info["warnings"]
    )
    assert not code & companions(["c"], [plain])[0].keys()


def test_files_say_that_they_are_of_torch(tmp_path: Path) -> None:
    kofn.combine([member(tmp_path / "a", {}), member(tmp_path / "b", {})], out=tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_slice_without_layers_says_whose_head_is_taken(tmp_path: Path) -> None:
    names = ("model.embed_tokens.weight", "model.layers.0.w", "model.layers.1.w", "lm_head.weight")
    settings = {"num_hidden_layers": 2, "architectures": ["LlamaForCausalLM"]}
    a, b = (member(tmp_path / name, settings, names) for name in "ab")
    save_file({name: np.full((2, 2), 3, np.float32) for name in names}, b / "model.safetensors")
    both = [{"model": str(path), "layer_range": [0, 2], "parameters": {"weight": 1}} for path in (a, b)]
    head = [{"model": str(a), "layer_range": [1, 1], "parameters": {"weight": 1}}]
    recipe = {"merge_method": "linear", "slices": [{"sources": both}, {"sources": head}]}
    result = merge_recipe(recipe).result
    assert [float(result[name][0, 0]) for name in names] == [2.0, 2.0, 2.0, 1.0]
    with pytest.raises(InputError, match="the slices hold no layer"):
        merge_recipe({"merge_method": "linear", "slices": [{"sources": head}]})
