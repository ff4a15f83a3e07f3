"""Recipes of merges, ours and mergekit's, and `kofn combine` on checkpoints from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kofn as library
from kofn.combination import merge_recipe, read_recipe
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint

NAMES = ("embed.weight", "layers.0.w", "layers.1.w", "norm.weight")
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, name in enumerate(("base", "a", "b")):
        rng = np.random.default_rng(place)
        arrays: dict[str, np.ndarray] = {key: rng.normal(size=(6, 4)).astype(ml_dtypes.bfloat16) for key in NAMES}
        arrays["steps"] = np.array([3])
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", arrays)
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / name / "tokenizer.json").write_text("{}")
    return tmp_path


def loaded(path: Path) -> dict[str, np.ndarray]:
    return {name: tensor.array() for name, tensor in Checkpoint.open(path).items()}


RECIPE = """
members = ["a", "b"]
base = "base"
method = "ties"
options = {density = 0.5}

[[tensors]]
match = ["norm.*", "embed*"]
method = "copy"

[[tensors]]
match = "layers.1.*"
method = "weighted_mean"
weights = [3, 1]
"""


def test_each_part_is_what_its_method_gives(folder: Path) -> None:
    (folder / "r.toml").write_text(RECIPE)
    blend = merge_recipe(folder / "r.toml", out=folder / "out")
    got, base, a, b = (loaded(folder / name) for name in ("out", "base", "a", "b"))
    assert got["norm.weight"].tobytes() == base["norm.weight"].tobytes()
    assert got["embed.weight"].tobytes() == base["embed.weight"].tobytes()
    members, paths = [a["layers.0.w"], b["layers.0.w"]], [str(folder / "a"), str(folder / "b")]
    ties = library.combine(members, base=base["layers.0.w"], method="ties", options={"density": 0.5}).result
    assert got["layers.0.w"].tobytes() == ties.tobytes()
    mean = library.combine(paths, weights=[3, 1]).result["layers.1.w"]
    assert got["layers.1.w"].tobytes() == mean.tobytes()
    assert got["steps"].tolist() == [3]
    assert blend.weights["layers.1.w"].tolist() == [0.75, 0.25]
    assert blend.info["parts"] == [2, 1, 2]


def yaml(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text.replace("@", str(folder)))
    return path


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"method": "ties"}, "the recipe has no members"),
        ({"members": ["a"], "metod": "ties"}, "the recipe has no key 'metod'; did you mean 'method'?"),
        ({"members": ["a"], "method": "tie"}, "does not go tensor by tensor; did you mean 'ties'?"),
        ({"members": ["a"], "method": "ties", "options": {"dense": 1}}, "method 'ties' has no option 'dense'"),
        ({"members": ["a"], "tensors": [{"method": "copy"}]}, "a part of tensors has no match"),
        ({"members": ["a"], "tensors": ["x"]}, "tensors has 'x'"),
        ({"members": [{"x": np.ones(2)}], "method": "ties"}, "method='ties' needs base"),
        ({"members": [{"x": np.ones(2)}], "weights": [1, 2]}, "weights has 2 values for 1 members"),
        ({"members": [{"x": np.ones(2)}], "tensors": [{"match": "y"}]}, "match=['y'] decides on no tensor"),
    ],
)
def test_bad_recipes_are_refused(recipe: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        merge_recipe(recipe)
    assert says in str(caught.value)


def test_files_that_are_no_recipes_are_refused(folder: Path) -> None:
    for name, text, says in (
        ("r.toml", "members = [", "not TOML"),
        ("r.json", "{}", "a recipe is a .toml or .yaml file"),
        ("r.yaml", "- 1", "a recipe is a table of keys"),
        ("r.toml", "a = " + "[" * 5000, "nested too deep"),
        ("r.yaml", "[" * 5000, "nested too deep"),
    ):
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=says):
            read_recipe(folder / name)
    with pytest.raises(InputError, match="no such file"):
        read_recipe(folder / "none.toml")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_recipe("r\0.toml")
    with pytest.raises(InputError, match="merge_recipe has no argument 'outt'; did you mean 'out'"):
        merge_recipe({"members": [{"x": np.ones(2)}]}, outt="x")


def test_a_base_makes_task_arithmetic_the_default(kofn: Run, folder: Path) -> None:
    done = kofn("combine", "a", "b", "--base", "base", "--scale", "0.5", "-m", "task_arithmetic", "-o", "x", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["method"], said["weights"], said["form"]) == ("task_arithmetic", [0.25, 0.25], "none")
    plain = kofn("combine", "a", "b", "--base", "base", "-o", "y", "--json")
    assert json.loads(plain.stdout)["method"] == "task_arithmetic"
    got, base, a, b = (loaded(folder / name) for name in ("x", "base", "a", "b"))
    want = base["layers.0.w"].astype(float) / 2 + (a["layers.0.w"].astype(float) + b["layers.0.w"].astype(float)) / 4
    np.testing.assert_allclose(got["layers.0.w"].astype(float), want, rtol=2**-7, atol=1e-3)
    assert (folder / "x" / "tokenizer.json").exists()


def test_a_recipe_from_the_command_line(kofn: Run, folder: Path) -> None:
    (folder / "r.toml").write_text(RECIPE)
    done = kofn("combine", "r.toml", "-o", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("recipe: 2 members, 5 tensors (2 copied) -> out")
    dry = json.loads(kofn("combine", "r.toml", "-o", "new", "--dry-run", "--json").stdout)
    assert {row["name"]: row["fate"] for row in dry["fates"]} == {
        "embed.weight": "copied from the base",
        "layers.0.w": "ties",
        "layers.1.w": "weighted_mean",
        "norm.weight": "copied from the base",
        "steps": "copied where all members agree, else refused",
    }
    assert not (folder / "new").exists()
    for arguments, says in (
        (("r.toml", "--weights", "1,2", "-o", "z"), "--weights belongs in the recipe"),
        (("r.toml", "r.toml", "-o", "z"), "one recipe says all; 2 files were given"),
        (("r.toml",), "give -o OUTPUT"),
    ):
        refused = kofn("combine", *arguments)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_what_is_skipped_and_what_is_not_finite(kofn: Run, folder: Path) -> None:
    spoiled = loaded(folder / "b")
    spoiled["layers.0.w"][1, 2] = np.nan
    spoiled["embed.weight"] = np.ones((7, 4), ml_dtypes.bfloat16)
    write_arrays(folder / "b" / "model.safetensors", spoiled)
    longer = kofn("combine", "a", "b", "-o", "out")
    assert longer.returncode == 2
    assert "(1 row more: another vocabulary?)" in longer.stderr
    nan = kofn("combine", "a", "b", "--skip", "embed*", "-o", "out")
    assert nan.returncode == 2
    assert "member 1 (b): tensor 'layers.0.w' at (1, 2) is NaN" in nan.stderr
    assert not (folder / "out").exists()
    done = kofn("combine", "a", "b", "--skip", "embed*", "--skip-nonfinite", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "1 values left out" in done.stdout
    got, a = loaded(folder / "out"), loaded(folder / "a")
    assert got["layers.0.w"][1, 2] == a["layers.0.w"][1, 2]
    assert got["embed.weight"].shape == (6, 4)
    taken = kofn("combine", "a", "b", "-m", "weight_matching", "--only", "x", "-o", "out")
    assert taken.returncode == 2
    assert "--only is not taken by weight_matching" in taken.stderr
