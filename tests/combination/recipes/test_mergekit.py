"""mergekit's recipes give mergekit's figures, or are refused by name.

The figures of `benchmarks/recipes.json` were made by mergekit itself; `python -m benchmarks recipes` makes them again.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recipes import FIGURES, RECIPES, difference, figures, ours, theirs, write_models
from kofn.combination import merge_recipe, preview_merge, read_recipe
from kofn.core.checks import InputError
from kofn.io.tensor_writer import write_arrays

EXPECTED = json.loads(FIGURES.read_text())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_gives_mergekits_figures(title: str, models: Path, tmp_path: Path) -> None:
    got = figures(ours(RECIPES[title], models, tmp_path / "out"))
    near = 0.03 if title == "out_dtype" else 2e-5  # there sums of entries that are rounded to bfloat16
    assert got.keys() == EXPECTED[title].keys()
    for name, sums in EXPECTED[title].items():
        np.testing.assert_allclose(got[name], sums, atol=near, rtol=0, err_msg=name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    layers = {int(name.split(".")[2]) for name in got if name.startswith("model.layers.")}
    assert config["num_hidden_layers"] == len(layers)


if importlib.util.find_spec("mergekit"):  # the extra kofn[peers]

    @pytest.mark.parametrize("title", RECIPES)
    def test_the_next_mergekit_gives_the_same(title: str, models: Path, tmp_path: Path) -> None:
        made, reference = ours(RECIPES[title], models, tmp_path / "a"), theirs(RECIPES[title], models, tmp_path / "b")
        assert difference(made, reference) <= 8


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """One tensor: the base 0, A = 1, B = 3."""
    for name, value in (("base", 0.0), ("A", 1.0), ("B", 3.0)):
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"x": np.array([value], np.float32)})
    return tmp_path


def value_of(folder: Path, text: str) -> float:
    (folder / "r.yaml").write_text(text.replace("@", str(folder)))
    return float(merge_recipe(folder / "r.yaml").result["x"][0])


@pytest.mark.parametrize(
    ("recipe", "value"),
    [
        # No `normalize`: its default is false here, and may be said.
        ("{merge_method: dare_ties, base_model: @/base, models: [{model: @/A, parameters: {weight: .6, density: 1}}, "
         "{model: @/B, parameters: {weight: .6, density: 1}}]}", 2.4),
        ("{merge_method: dare_ties, base_model: @/base, models: [{model: @/A, parameters: {weight: .6, density: 1}}, "
         "{model: @/B, parameters: {weight: .6, density: 1}}], parameters: {normalize: false}}", 2.4),
        # No density: everything is kept.
        ("{merge_method: ties, base_model: @/base, models: [{model: @/A, parameters: {weight: 1}}, "
         "{model: @/B, parameters: {weight: 1}}]}", 2.0),
        # A model's own weight counts before the recipe's.
        ("{merge_method: linear, models: [{model: @/A, parameters: {weight: .9}}, {model: @/B}], "
         "parameters: {weight: .1}}", 1.2),
        # A base that is listed is a model like the others for linear, and none for task arithmetic.
        ("{merge_method: linear, base_model: @/A, models: [{model: @/A, parameters: {weight: 1}}, "
         "{model: @/B, parameters: {weight: 1}}]}", 2.0),
        ("{merge_method: task_arithmetic, base_model: @/base, models: [{model: @/base, parameters: {weight: 3}}, "
         "{model: @/A, parameters: {weight: 1}}], parameters: {normalize: true}}", 1.0),
        ("{merge_method: task_arithmetic, base_model: @/base, models: [{model: @/A, parameters: {weight: 1}}, "
         "{model: @/B, parameters: {weight: -.4}}]}", -0.2),
        ("{merge_method: ties, base_model: @/base, models: [{model: @/A, parameters: {weight: 1}}, "
         "{model: @/B, parameters: {weight: -.4}}], parameters: {normalize: false}}", -1.2),
        ("{merge_method: slerp, base_model: @/A, models: [{model: @/B}], parameters: {t: .25}}", 1.5),
        ("{merge_method: linear, models: [{model: @/A, parameters: {weight: 1, density: .3}}, "
         "{model: @/B, parameters: {weight: 1}}], parameters: {lambda: 2, t: 1, rescale: true}}", 2.0),
        ("{merge_method: task_arithmetic, base_model: {model: {path: @/base}}, name: mine, "
         "models: [{model: {model: {path: @/B}}, parameters: {weight: 1e-1}}]}", 0.3),
    ],
)  # fmt: skip
def test_small_recipes_have_the_value_that_they_have_there(one: Path, recipe: str, value: float) -> None:
    assert value_of(one, recipe) == pytest.approx(value, rel=1e-6)


def test_a_sparse_change_is_not_divided_where_the_recipe_says_so(one: Path) -> None:
    base, member = np.zeros(4000, np.float32), np.ones(4000, np.float32)
    for name, array in (("base", base), ("A", member)):
        write_arrays(one / name / "model.safetensors", {"x": array})
    text = (
        "{merge_method: dare_linear, base_model: @/base, models: [{model: @/A, parameters: {weight: 1, density: .3}}]"
    )
    (one / "r.yaml").write_text((text + ", parameters: {rescale: false}}").replace("@", str(one)))
    blend = merge_recipe(one / "r.yaml")
    assert set(np.unique(blend.result["x"])) == {0.0, 1.0}
    assert abs(float(blend.result["x"].mean()) - 0.3) < 0.03
    assert "seed of our own" in blend.info["warnings"][0]
    (one / "r.yaml").write_text((text + "}").replace("@", str(one)))
    assert float(merge_recipe(one / "r.yaml").result["x"].mean()) == pytest.approx(1.0, abs=1e-6)


def test_the_tokenizer_is_the_bases_or_the_one_named(one: Path) -> None:
    for name in ("base", "A", "B"):
        (one / name / "config.json").write_text("{}")
        (one / name / "tokenizer.json").write_text(name)
    text = "{merge_method: ties, base_model: @/base, models: [{model: @/A, parameters: {weight: 1}}]"
    for source, owner in (("", "base"), (", tokenizer_source: base", "base"), (", tokenizer_source: @/B", "B")):
        (one / "r.yaml").write_text((text + source + "}").replace("@", str(one)))
        merge_recipe(one / "r.yaml", out=one / "out")
        assert (one / "out" / "tokenizer.json").read_text() == owner


def test_a_preview_names_the_method_of_every_tensor(models: Path, tmp_path: Path) -> None:
    recipe = {**RECIPES["ties gradient"], "base_model": str(models / "base")}
    recipe["models"] = [{**model, "model": str(models / model["model"])} for model in recipe["models"]]
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    rows = preview_merge(read_recipe(tmp_path / "r.yaml"))
    assert {row["fate"] for row in rows} == {"ties"}


A = "{model: @/A, parameters: {weight: 1}}"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("{merge_method: della, base_model: @/base, models: [" + A + "]}", "'della' is not done here; dare_ties"),
        ("{merge_method: tie, models: [" + A + "]}", "'tie' is not read; did you mean 'ties'"),
        ("{merge_method: [ties], models: [" + A + "]}", "merge_method ['ties'] is not read"),
        ("{merge_method: ties, models: [" + A + "]}", "'ties' needs base_model"),
        ("{merge_method: ties, base_model: @/base, models: [{model: @/A}]}", "x: model '@/A' has no weight"),
        ("{merge_method: linear, models: [{model: @/A, parameters: [1, 2]}]}", "parameters: [1, 2] is no table"),
        ("{merge_method: linear, models: [{parameters: {weight: 1}}]}", "a model of the recipe names no model"),
        ("{merge_method: linear, models: 3}", "models: 3 is no list"),
        ("{merge_method: linear, models: [3, null]}", "a model of the recipe: 3 is no table"),
        ("{merge_method: linear, models: [{model: 3}]}", "model: 3 is no path"),
        ("{merge_method: linear}", "give either models or slices"),
        ("{merge_method: linear, models: [" + A + "], slices: [1]}", "give either models or slices"),
        ("{merge_method: linear, models: [" + A + "], parameters: 3}", "parameters: 3 is no table"),
        (
            "{merge_method: linear, models: [{model: @/A, parameters: {weight: heavy}}]}",
            "x: weight: 'heavy' is no number",
        ),
        (
            "{merge_method: linear, models: [{model: @/A, parameters: {weight: {fiter: a}}}]}",
            "has no key 'fiter'; did you",
        ),
        (
            "{merge_method: linear, models: [{model: @/A, parameters: {weight: [[1]]}}]}",
            "x: weight: [[1]] is no number",
        ),
        ("{merge_method: linear, models: [" + A + "], dtype: float3}", "dtype='float3'"),
        ("{merge_method: linear, models: [" + A + "], chat_template: chatml}", "chat_template is not read; write it"),
        ("{merge_method: linear, models: [" + A + "], modules: {x: 1}}", "modules is not read"),
        (
            "{merge_method: linear, models: [{model: '@/A+@/lora', parameters: {weight: 1}}]}",
            "lora' is a model with an adapter; fold it first: kofn combine",
        ),
        (
            "{merge_method: linear, models: [{model: {model: @/A, lora: @/B}}]}",
            "with an adapter; fold it first: kofn combine",
        ),
        ("{merge_method: slerp, models: [" + A + "], parameters: {t: .5}}", "slerp takes two models"),
        ("{merge_method: slerp, base_model: @/A, models: [{model: @/B}]}", "x: parameters name no t"),
        (
            "{merge_method: passthrough, slices: [{sources: [{model: @/A, layer_range: [2, 1]}]}]}",
            "[2, 1] holds no layer",
        ),
        ("{merge_method: passthrough, slices: [{sources: [{model: @/A}]}]}", "layer_range None: give the first layer"),
        ("{merge_method: passthrough, slices: [{sources: [{model: @/A, layer_range: [0, 1]}]}]}", "has no layer 0"),
        (
            "{merge_method: passthrough, slices: [{sources: [{model: @/A, layer_range: [0, 1%s]}]}]}" % ("0" * 30),
            "has no layer 0",
        ),
        (
            "{merge_method: linear, models: [{model: @/A, parameters: {weight: 1%s}}]}" % ("0" * 400),
            "x: weight: 1000",
        ),
        ("{merge_method: linear, models: [{model: @/nobody}]}", "is no folder here; download it first"),
        (
            "{merge_method: linear, models: [" + A + ", {model: @/B, parameters: {weight: -1}}]}",
            "by which linear divides",
        ),
        ("{merge_method: linear, models: [" + A + "], residual: 1}", "has no key 'residual'"),
        ("merge_method: linear\n---\nmerge_method: ties\n", "not YAML"),
    ],
)
def test_what_is_not_done_is_refused_in_one_line(one: Path, recipe: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        value_of(one, recipe)
    assert says.replace("@", str(one)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_slices_need_the_base_among_their_sources(models: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "merge_method": "ties",
        "base_model": str(models / "base"),
        "slices": [{"sources": [{"model": str(models / "a"), "layer_range": [0, 4], "parameters": {"weight": 1}}]}],
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    with pytest.raises(InputError, match="is not among the sources of a slice"):
        read_recipe(tmp_path / "r.yaml")
