"""Settings of mergekit's recipes: misspelt ones are refused, odd ones told, and slices need no base that they lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recipes import write_models
from kofn.combination import merge_recipe, read_recipe
from kofn.combination.recipes._mergekit_methods import METHODS, known_settings, settings_asked
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays
from kofn.io.tensors import Checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    for name, value in (("zero", 0.0), ("A", 1.0), ("B", 3.0)):
        (folder / name).mkdir()
        write_arrays(folder / name / "model.safetensors", {"x": np.full((2, 4), value, np.float32)})
    return folder


def recipe(folder: Path, method: str, own: Any = None, **parameters: Any) -> dict[str, Any]:
    """A recipe of A and B, with the parameters of all and `own` of A."""
    first = {"model": str(folder / "A"), "parameters": {"weight": 1, **(own or {})}}
    second = {"model": str(folder / "B"), "parameters": {"weight": 1}}
    base = {"base_model": str(folder / "zero")} if METHODS[method].base else {}
    return {"merge_method": method, "models": [first, second], **base, "parameters": parameters}


MISSPELT = {
    "denisty": "density",
    "Density": "density",
    "lamda": "lambda",
    "normalise": "normalize",
    "weights": "weight",
    "max_iters": "max_iter",
    "select_top_k": "select_topk",
    "int8_masks": "int8_mask",
}


@pytest.mark.parametrize("key", MISSPELT)
def test_what_no_method_reads_is_refused_where_it_is_nearly_a_setting(key: str, models: Path) -> None:
    layers = {"sources": [{"model": str(models / "a"), "layer_range": [0, 4]}], "parameters": {key: 1}}
    sliced = {"merge_method": "passthrough", "slices": [layers]}
    for content in (recipe(models, "ties", **{key: 0.5}), recipe(models, "ties", {key: 0.5}), sliced):
        with pytest.raises(InputError, match=f"parameters: no method reads '{key}'; did you mean '{MISSPELT[key]}'?"):
            read_recipe(content)


def test_settings_of_other_methods_and_unlike_any_are_ignored() -> None:
    assert {"density", "lambda", "t", "nuslerp_flatten", "int8_mask"} <= known_settings()
    assert "density" not in settings_asked("linear")


@pytest.mark.parametrize("key", [*sorted(known_settings() - {"weight", "normalize"}), "comment", "random_seed"])
def test_one_setting_too_many_changes_nothing(key: str, models: Path) -> None:
    plan = merge_recipe(recipe(models, "linear", **{key: 0.5}))
    np.testing.assert_array_equal(plan.result["x"], 2.0)


@pytest.mark.parametrize(
    ("method", "parameters", "told", "value"),
    [
        ("ties", {"density": 1.5}, "density 1.5 keeps every entry, as in mergekit: it is a share", 2.0),
        ("ties", {"density": 50}, "density 50 keeps every entry", 2.0),
        ("ties", {"density": 0}, "density 0 keeps nothing", 0.0),
        ("dare_linear", {"density": [{"filter": "x", "value": -0.5}, {"value": 1}]}, "density -0.5 keeps nothing", 0.0),
        ("ties", {"density": [0, 2]}, "density 2 keeps every entry", 0.0),
        ("sce", {"select_topk": 10}, "select_topk 10 keeps every entry", None),
    ],
)
def test_shares_that_are_none_are_told(
    method: str, parameters: dict[str, Any], told: str, value: float | None, models: Path
) -> None:
    plan = merge_recipe(recipe(models, method, **parameters))
    assert sum(told in warning for warning in plan.info["warnings"]) == 1
    if value is not None:
        np.testing.assert_allclose(plan.result["x"], value)


def test_shares_that_are_some_are_not_told(models: Path) -> None:
    for parameters in ({"density": 1}, {"density": [0, 0.5, 1]}, {"density": [{"filter": "y", "value": 0.2}]}):
        assert "warnings" not in merge_recipe(recipe(models, "ties", **parameters)).info
    assert "warnings" not in merge_recipe(recipe(models, "linear", density=7)).info


@pytest.mark.parametrize(
    ("method", "parameters", "says"),
    [
        ("breadcrumbs", {"gamma": 1.5}, "x: gamma: 1.5 is no share; give a number from 0 to 1"),
        ("della", {"density": 0.5, "epsilon": -0.1}, "x: epsilon: -0.1 is negative; give 0 or more"),
        ("karcher", {"tol": -1e-5}, "x: tol: -1e-05 is negative"),
        ("karcher", {"max_iter": -3}, "max_iter"),
        ("multislerp", {"eps": -1}, "x: eps: -1 is negative"),
        ("ram", {"epsilon": "-1e-5"}, "x: epsilon: '-1e-5' is negative"),
        ("ramplus_tl", {"alpha": -0.2}, "x: alpha: -0.2 is negative"),
    ],
)
def test_impossible_settings_are_refused(method: str, parameters: dict[str, Any], says: str, models: Path) -> None:
    with pytest.raises(InputError) as error:
        merge_recipe(recipe(models, method, **parameters))
    assert says in str(error.value)


@pytest.mark.parametrize("base", ["a", "base"])
def test_a_stack_is_the_same_with_a_base_beside_it(base: str, models: Path, tmp_path: Path) -> None:
    pieces = (("a", [0, 2]), ("b", [1, 3]), ("a", [2, 4]))
    slices = [{"sources": [{"model": str(models / name), "layer_range": ends}]} for name, ends in pieces]
    plain = {"merge_method": "passthrough", "slices": slices}
    merge_recipe(plain, out=tmp_path / "plain")
    merge_recipe({**plain, "base_model": str(models / base)}, out=tmp_path / "based")
    first, second = (Checkpoint.open(tmp_path / name) for name in ("plain", "based"))
    assert list(first) == list(second)
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor.array(), second[name].array())
    config = json.loads((tmp_path / "based" / "config.json").read_text())
    assert config["num_hidden_layers"] == 6


@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_slices_without_the_base_are_blended_without_it(method: str, models: Path) -> None:
    sources = [{"model": str(models / name), "layer_range": [0, 4], "parameters": {"weight": 1}} for name in ("a", "b")]
    plain = {"merge_method": method, "slices": [{"sources": sources}]}
    first = merge_recipe(plain).result
    second = merge_recipe({**plain, "base_model": str(models / "base")}).result
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_slerp_of_slices_without_their_base_is_refused(models: Path) -> None:
    sources = [{"model": str(models / name), "layer_range": [0, 4]} for name in ("a", "b")]
    content = {"merge_method": "slerp", "slices": [{"sources": sources}], "parameters": {"t": 0.5}}
    with pytest.raises(InputError, match="slerp takes two models, of which base_model names the one at t: 0"):
        read_recipe({**content, "base_model": str(models / "base")})


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("base_model: a\ngate_mode: hidden\nexperts: []\n", r"mixtures of experts, .* run mergekit-moe on this file"),
        ("base_model: a\nexperts: []\n", r"experts is of mixtures of experts"),
        ("genome: {models: []}\ntasks: []\n", r"genome is of searches for settings, .* run mergekit-evolve"),
    ],
)
def test_files_of_other_programs_are_named(content: str, says: str, several: bool, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(content + ("---\nmerge_method: linear\nname: x\n" if several else ""))
    with pytest.raises(InputError, match=says):
        read_recipe(tmp_path / "r.yaml")
