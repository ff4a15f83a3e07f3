"""mergekit's recipes give mergekit's figures, or are refused by name.

The figures of `benchmarks/recipes.json` were made by mergekit itself; `python -m benchmarks recipes` makes them again.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import kofn
from benchmarks.recipes import FIGURES, NEAR, differences, figures, located, ours, recipes, theirs, write_models
from kofn.combination import merge_recipe, preview_merge, read_recipe
from kofn.combination.recipes._mergekit_methods import METHODS as ALL_METHODS
from kofn.core.checks import InputError
from kofn.core.vocabulary import MERGE_METHODS, METHODS_ELSEWHERE
from kofn.io.tensor_writer import write_arrays

EXPECTED = json.loads(FIGURES.read_text())
RECIPES = recipes()


SPARSE = ("ties", "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties")
WEIGHED = (*SPARSE, "task_arithmetic", "linear", "nuslerp", "multislerp")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_gives_mergekits_figures(title: str, models: Path, tmp_path: Path) -> None:
    text = RECIPES[title]
    made = ours(text.recipe, models, tmp_path / "out")
    got = figures(made)
    # Sums of entries that are rounded to half precision, or of which some are others where equal changes are dropped.
    half = "float32" not in {array.dtype.name for array in made.values()} or text.dtype == "bfloat16"
    near = 0.25 if text.chance else 2e-7 if text.exact else 0.03 if half else 2e-5
    assert got.keys() == EXPECTED[title].keys()
    for name, sums in EXPECTED[title].items():
        np.testing.assert_allclose(got[name], sums, atol=near, rtol=0, err_msg=name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    layers = {int(name.split(".")[2]) for name in got if name.startswith("model.layers.")}
    assert config["num_hidden_layers"] == len(layers)


if importlib.util.find_spec("mergekit"):  # the extra kofn[peers]

    @pytest.mark.parametrize("title", RECIPES)
    def test_the_next_mergekit_gives_the_same(title: str, models: Path, tmp_path: Path) -> None:
        text = RECIPES[title]
        made, reference = ours(text.recipe, models, tmp_path / "a"), theirs(text.recipe, models, tmp_path / "b")
        worst, far = differences(made, reference, text.dtype)
        assert far < 0.01 if text.chance else worst <= (0 if text.exact else NEAR)


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
        # Nothing beside the base is no change to it.
        ("{merge_method: ties, base_model: @/B, models: [{model: @/B}], parameters: {normalize: true}}", 3.0),
        ("{merge_method: task_arithmetic, base_model: @/B, models: [{model: @/B, parameters: {weight: 0.4}}]}", 3.0),
        ("{merge_method: linear, models: [{model: @/A, parameters: {weight: 1, density: .3}}, "
         "{model: @/B, parameters: {weight: 1}}], parameters: {lambda: 2, t: 1, rescale: true}}", 2.0),
        ("{merge_method: task_arithmetic, base_model: {model: {path: @/base}}, name: mine, "
         "models: [{model: {model: {path: @/B}}, parameters: {weight: 1e-1}}]}", 0.3),
    ],
)  # fmt: skip
def test_small_recipes_have_the_value_that_they_have_there(one: Path, recipe: str, value: float) -> None:
    assert value_of(one, recipe) == pytest.approx(value, rel=1e-6)


def test_a_recipe_of_the_base_alone_says_so(one: Path) -> None:
    (one / "r.yaml").write_text(f"merge_method: ties\nbase_model: {one}/B\nmodels: [{{model: {one}/B}}]\n")
    warnings = merge_recipe(one / "r.yaml").info["warnings"]
    assert "no model is listed beside the base, which is given back as it is" in warnings


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
    (tmp_path / "r.yaml").write_text(json.dumps(located(RECIPES["ties gradient"].recipe, models)))
    rows = {row["name"]: row for row in preview_merge(read_recipe(tmp_path / "r.yaml"))}
    assert {row["fate"] for row in rows.values()} == {"ties"}
    assert rows["model.layers.1.mlp.up_proj.weight"]["settings"] == {
        "method": "ties",
        "weight": [1.0, pytest.approx(0.3), 0.5],
        "density": [pytest.approx(0.8), 0.5, 0.33],
        "normalize": True,
        "rescale": False,
        "lambda": 1.0,
    }


METHODS = {text.recipe["merge_method"]: title for title, text in RECIPES.items() if isinstance(text.recipe, dict)}


@pytest.mark.parametrize("title", METHODS.values())
def test_every_setting_that_decides_is_in_the_preview_and_in_the_plan(title: str, models: Path, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps(located(RECIPES[title].recipe, models)))
    rows = preview_merge(read_recipe(tmp_path / "r.yaml"))
    method = RECIPES[title].recipe["merge_method"]
    wanted = {
        "weight": method in WEIGHED,
        "density": method in SPARSE,
        "lambda": method in (*SPARSE, "task_arithmetic"),
        "gamma": method.startswith("breadcrumbs"),
        "epsilon": method.startswith(("della", "ram")),
        "t": method in ("slerp", "nearswap"),
        "scale": method == "passthrough",
        "select_topk": method == "sce",
    }
    for row in rows:
        assert {key for key in wanted if key in row["settings"]} == {
            key for key, is_there in wanted.items() if is_there
        }
    blend = merge_recipe(tmp_path / "r.yaml")
    in_plan = {name: group for group in blend.info["settings"] for name in group["tensors"]}
    assert in_plan.keys() == {row["name"] for row in rows}
    for row in rows:
        group = dict(in_plan[row["name"]])
        assert group.pop("tensors")
        assert group == row["settings"]
    blend.save(tmp_path / "plan.npz")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A base of zeros, and a model that changed 300 of 1000 entries by 1 and the others by 2."""
    for name, values in (("base", np.zeros(1000)), ("A", np.repeat([1.0, 2.0], [300, 700]))):
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"x": values.astype(np.float32).reshape(10, 100)})
    return tmp_path


def kept(folder: Path, method: str, settings: str) -> np.ndarray:
    text = f"{{merge_method: {method}, base_model: @/base, models: [{{model: @/A, parameters: {{{settings}}}}}]}}"
    (folder / "r.yaml").write_text(text.replace("@", str(folder)))
    return merge_recipe(folder / "r.yaml").result["x"].reshape(-1)


@pytest.mark.parametrize(
    ("method", "settings", "ones", "twos"),
    [
        ("ties", "weight: 1, density: 0.7", 0, 700),
        ("ties", "weight: 1, density: 0.35", 0, 350),
        ("ties", "weight: 1, density: 0.85", 150, 700),
        ("breadcrumbs", "weight: 1, density: 0.5, gamma: 0.2", 0, 500),
        ("breadcrumbs", "weight: 1, density: 0.7, gamma: 0.2", 200, 500),
        ("breadcrumbs", "weight: 1, density: 0.1, gamma: 0.75", 100, 0),
    ],
)
def test_of_equal_changes_as_many_are_kept_as_the_density_says(
    flat: Path, method: str, settings: str, ones: int, twos: int
) -> None:
    values = kept(flat, method, settings)
    assert abs(int((values == 1).sum()) - ones) < 50  # by chance; all or none of 300 and of 700 would be farther
    assert abs(int((values == 2).sum()) - twos) < 60
    np.testing.assert_array_equal(values, kept(flat, method, settings))


def test_della_keeps_large_changes_more_often_than_small_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    changes = rng.permuted(np.tile(np.arange(1, 101, dtype=np.float32), (400, 1)), axis=1)
    for name, values in (("base", np.zeros_like(changes)), ("A", changes)):
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"x": values})
    text = (
        "{merge_method: della_linear, base_model: @/base, models: "
        "[{model: @/A, parameters: {weight: 1, density: .5, epsilon: .3}}], parameters: {rescale: false}}"
    )
    (tmp_path / "r.yaml").write_text(text.replace("@", str(tmp_path)))
    blend = merge_recipe(tmp_path / "r.yaml")
    assert "seed of our own" in blend.info["warnings"][0]
    result = blend.result["x"]
    share = [(result[changes == rank] != 0).mean() for rank in range(1, 101)]
    wanted = np.linspace(0.2, 0.8, 100)
    assert np.abs(np.mean(np.reshape(share, (10, 10)), axis=1) - wanted.reshape(10, 10).mean(axis=1)).max() < 0.03
    scaled = text.replace(", parameters: {rescale: false}", "")
    (tmp_path / "r.yaml").write_text(scaled.replace("@", str(tmp_path)))
    assert float(merge_recipe(tmp_path / "r.yaml").result["x"].sum()) == pytest.approx(float(changes.sum()), rel=1e-5)


@pytest.mark.parametrize(
    "recipe",
    [
        "{merge_method: della, base_model: @/base, models: [%s, %s]}",
        "{merge_method: model_stock, base_model: @/base, parameters: {filter_wise: true}, models: [%s, %s]}",
        "{merge_method: nuslerp, base_model: @/base, parameters: {nuslerp_flatten: false}, models: [%s, %s]}",
        "{merge_method: nuslerp, parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}, models: [%s, %s]}",
        "{merge_method: ramplus_tl, base_model: @/base, models: [%s, %s]}",
        "{merge_method: ties, base_model: @/base, models: [%s, %s]}",
    ],
)
def test_blocks_and_threads_do_not_decide(tmp_path: Path, recipe: str) -> None:
    rng = np.random.default_rng(0)
    shapes = {"matrix": (700, 300), "vector": (5000,), "scalar": (), "cube": (7, 5, 300), "empty": (0, 4)}
    for name in ("base", "A", "B"):
        (tmp_path / name).mkdir()
        arrays = {key: rng.integers(-3, 4, shape).astype(np.float32) for key, shape in shapes.items()}
        write_arrays(tmp_path / name / "model.safetensors", arrays)
    models = [f"{{model: @/{name}, parameters: {{weight: 1, density: .5}}}}" for name in "AB"]
    (tmp_path / "r.yaml").write_text((recipe % tuple(models)).replace("@", str(tmp_path)))
    whole = merge_recipe(tmp_path / "r.yaml").result
    for options in ({"max_memory": 600_000}, {"n_threads": 2}):
        parts = merge_recipe(tmp_path / "r.yaml", **options).result
        for name in shapes:
            np.testing.assert_allclose(parts[name], whole[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize(
    ("method", "settings", "base"),
    [
        ("nuslerp", "{}", False),
        ("nuslerp", "{nuslerp_flatten: false}", True),
        ("nuslerp", "{nuslerp_flatten: false, nuslerp_row_wise: true}", True),
        ("multislerp", "{}", True),
        ("multislerp", "{}", False),
        ("karcher", "{}", False),
        ("model_stock", "{}", True),
        ("model_stock", "{filter_wise: true}", True),
        ("linear", "{}", False),
        ("arcee_fusion", "{}", True),
    ],
)
def test_half_precision_is_rounded_step_by_step_whatever_the_blocks(
    tmp_path: Path, method: str, settings: str, base: bool, dtype: type
) -> None:
    rng = np.random.default_rng(0)
    shapes = {"matrix": (700, 300), "vector": (5000,), "scalar": (), "cube": (7, 5, 300), "zero": (3, 4)}
    start = {key: rng.normal(0, 0.1, shape) for key, shape in shapes.items()}
    for name in ("base", "A", "B"):
        arrays = {key: (array + 0.05 * rng.normal(size=array.shape)).astype(dtype) for key, array in start.items()}
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {**arrays, "zero": np.zeros((3, 4), dtype)})
    models = ", ".join(f"{{model: @/{name}, parameters: {{weight: {w}}}}}" for name, w in (("A", 0.7), ("B", 0.4)))
    models = models if method != "arcee_fusion" else "{model: @/A}"
    text = f"{{merge_method: {method}, {'base_model: @/base, ' * base}parameters: {settings}, models: [{models}]}}"
    (tmp_path / "r.yaml").write_text(text.replace("@", str(tmp_path)))
    whole = merge_recipe(tmp_path / "r.yaml", n_threads=1).result
    assert {array.dtype for array in whole.values()} == {np.dtype(dtype)}
    assert all(np.isfinite(array.astype(np.float32)).all() for array in whole.values())
    for options in ({"max_memory": 600_000}, {"n_threads": 2}):
        parts = merge_recipe(tmp_path / "r.yaml", **options).result
        for name in shapes:
            np.testing.assert_array_equal(parts[name], whole[name])


def test_a_tensor_of_several_blocks_has_the_steps_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rng, arrays = np.random.default_rng(0), {}
    start = rng.normal(0, 0.1, (400, 300))
    for name in ("A", "B"):
        arrays[name] = (start + 0.05 * rng.normal(size=start.shape)).astype(np.float16)
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"x": arrays[name]})
    models = "{model: @/A, parameters: {weight: .7}}, {model: @/B, parameters: {weight: .3}}"
    text = f"{{merge_method: nuslerp, models: [{models}]}}"
    (tmp_path / "r.yaml").write_text(text.replace("@", str(tmp_path)))
    got = merge_recipe(tmp_path / "r.yaml").result["x"]
    first, second = (torch.from_numpy(array).reshape(-1) for array in arrays.values())
    cosine = (first / first.norm() * (second / second.norm())).sum()
    theta = torch.acos(cosine)
    t = 0.3 / (0.7 + 0.3)
    arc = (torch.sin((1 - t) * theta) * first + torch.sin(t * theta) * second) / torch.sin(theta)
    assert (got.reshape(-1) != arc.numpy()).mean() < 1e-3  # torch's own sums are of float32


def test_models_far_apart_are_averaged_on_the_sphere_without_many_readings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        arrays = {"x": rng.normal(size=(300, 300)), "y": rng.normal(size=(200, 300))}
        write_arrays(
            tmp_path / name / "model.safetensors", {key: a.astype(ml_dtypes.bfloat16) for key, a in arrays.items()}
        )
    text = "{merge_method: karcher, models: [{model: @/A}, {model: @/B}], dtype: DTYPE}".replace("@", str(tmp_path))
    results = []
    for dtype in ("bfloat16", "float32"):
        (tmp_path / "r.yaml").write_text(text.replace("DTYPE", dtype))
        results.append(merge_recipe(tmp_path / "r.yaml").result)
    # Of more entries than are followed to the end, so rounded once; and of fewer, with the rounding of each step.
    for name, near in (("x", 0.003), ("y", 0.006)):
        half, exact = (result[name].astype(np.float64) for result in results)
        assert np.linalg.norm(half - exact) < near * np.linalg.norm(exact)


def test_rows_that_do_not_fit_into_the_memory_are_refused(tmp_path: Path) -> None:
    for name in ("base", "A"):
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"x": np.ones((2, 100_000), np.float32)})
    text = "{merge_method: della, base_model: @/base, models: [{model: @/A, parameters: {weight: 1, density: .5}}]}"
    (tmp_path / "r.yaml").write_text(text.replace("@", str(tmp_path)))
    with pytest.raises(InputError, match="max_memory=1000000 is too little for 1 members; give at least"):
        merge_recipe(tmp_path / "r.yaml", max_memory=1_000_000)


def test_the_output_has_the_widest_dtype_and_its_config_says_so(models: Path, tmp_path: Path) -> None:
    recipe = {"merge_method": "linear", "models": [{"model": "a16"}, {"model": "bh"}], "parameters": {"weight": 1}}
    made = ours(recipe, models, tmp_path / "out")
    assert {array.dtype.name for array in made.values()} == {"float32"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"


A = "{model: @/A, parameters: {weight: 1}}"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (
            "{merge_method: arcee_fusion, base_model: @/base, models: [" + A + ", {model: @/B}]}",
            "members has 2; arcee_fusion takes one beside the base",
        ),
        ("{merge_method: arcee_fusion, models: [" + A + "]}", "'arcee_fusion' needs base_model"),
        (
            "{merge_method: della, base_model: @/base, models: [{model: @/A, parameters: {weight: 1, density: .1}}]}",
            "x: density 0.1 with epsilon 0.15: della keeps entries with chances from -0.05 to 0.25; give an epsilon",
        ),
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
        (
            "{merge_method: linear, models: [" + A + "], chat_template: vicuna}",
            "'vicuna' is no template; write its text after `chat_template: |`, the name of one (alpaca, chatml, "
            "exaone, llama3, mistral), or auto",
        ),
        ("{merge_method: linear, models: [" + A + "], modules: {x: 1}}", "modules is not read"),
        (
            "{merge_method: linear, models: [{model: '@/A+@/lora', parameters: {weight: 1}}]}",
            "adapter '@/lora' is no folder here; download it first",
        ),
        (
            "{merge_method: linear, models: [{model: '@/A+@/B+@/A', parameters: {weight: 1}}]}",
            "A' is no folder here; download it first",
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
        ("merge_method: linear\n---\nmerge_method: ties\n", "several recipes have no name; give each but the last"),
        ("{merge_method: linear, name: a}\n---\n{merge_method: linear, name: a}\n", "several recipes are called 'a'"),
        ("{merge_method: linear, name: a/b}\n---\n{merge_method: linear}\n", "name: 'a/b' is no name of a folder"),
        ("{merge_method: linear}\n---\n{name: a}\n", "2 recipes in one file: each names its merge_method"),
        (
            "{merge_method: linear, name: a, models: [" + A + "]}\n---\n{merge_method: linear, models: [" + A + "]}\n",
            "make one model, and none uses: 'a', 'the one without a name'",
        ),
        (
            "{merge_method: linear, name: a, base_model: b, models: [" + A + "]}\n---\n"
            "{merge_method: linear, name: b, base_model: a, models: [" + A + "]}\n",
            "and use each other: all of them",
        ),
        (
            "{merge_method: linear, name: a, base_model: b, models: [" + A + "]}\n---\n"
            "{merge_method: linear, name: b, base_model: a, models: [" + A + "]}\n---\n"
            "{merge_method: linear, base_model: a, models: [" + A + "]}\n",
            "recipe 'a' uses itself by way of 'b'; take one of these names out",
        ),
        (
            "{merge_method: linear, name: a, base_model: a, models: [" + A + "]}\n---\n"
            "{merge_method: linear, base_model: a, models: [" + A + "]}\n",
            "recipe 'a' names 'a' among its models, which is itself; give the recipe another name, or write ./a",
        ),
        (
            "{merge_method: linear, name: a, models: ["
            + A
            + "]}\n---\n{merge_method: linear, base_model: a, models: ["
            + A
            + "]}\n",
            "several recipes in one file need out",
        ),
        (
            "{merge_method: linear, models: [" + A + "], embed_slerp: true}",
            "'embed_slerp'; mergekit ignores it; take it",
        ),
        (
            "{merge_method: linear, slices: [{merge_method: ties, sources: [{model: @/A, layer_range: [0, 1]}]}]}",
            "a slice has no key 'merge_method'; mergekit ignores it; take it out",
        ),
        ("{merge_method: linear, models: [" + A + ", " + A + "]}", "'@/A' is listed twice; list it once, with the sum"),
        ("{merge_method: sce, base_model: @/A, models: [{model: @/A}]}", "no model is listed beside the base"),
        (
            "{merge_method: linear, models: [" + A + "], parameters: {normalize: 2}}",
            "x: normalize: 2 is neither true nor false",
        ),
        (
            "{merge_method: linear, models: [" + A + "], parameters: {normalize: [yes, perhaps]}}",
            "x: normalize: 'perhaps' is neither true nor false",
        ),
        (
            "{merge_method: karcher, models: [{model: @/A}, {model: @/B}], parameters: {max_iter: 4.5}}",
            "x: max_iter: 4.5 is no whole number",
        ),
        (
            "{merge_method: multislerp, models: [" + A + ", {model: @/B, parameters: {weight: -1}}]}",
            "weights [1.0, -1.0] sum to 0, by which multislerp divides",
        ),
        ("{merge_method: model_stock, base_model: @/base, models: [{model: @/A}]}", "needs two models beside the base"),
        (
            "{merge_method: model_stock, base_model: @/base, models: [{model: @/A}], parameters: {filter_wise: true}}",
            "needs two models beside the base",
        ),
        (
            "{merge_method: nuslerp, models: [" + A + "], parameters: {nuslerp_flatten: false}}",
            "nuslerp takes two models beside the base; 1 were given",
        ),
        (
            "{merge_method: slerp, base_model: @/A, parameters: {t: .5}, slices: [{sources: [{model: @/A, layer_range: "
            "[0, 1]}, {model: @/B, layer_range: [0, 1]}]}, {sources: [{model: @/A, layer_range: [0, 1]}]}]}",
            "slerp takes two models",
        ),
        (
            "{merge_method: karcher, slices: [{sources: [{model: @/A, layer_range: [0, 1]}, {model: @/B, layer_range: "
            "[0, 1]}]}, {sources: [{model: @/A, layer_range: [0, 1]}]}]}",
            "slices have [1, 2] models beside the base; karcher takes as many in every slice",
        ),
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


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("method", ["slerp", "nuslerp"])
def test_opposite_models_are_counted_by_every_method_of_arcs(method: str, dtype: Any, tmp_path: Path) -> None:
    x = np.linspace(0.1, 1, 12).astype(dtype)
    for name, sign in (("A", 1), ("B", -1)):
        (tmp_path / name).mkdir()
        write_arrays(tmp_path / name / "model.safetensors", {"x": sign * x, "same": x})
    root = "base_model: @/A\nparameters: {t: 0.25}\n" if method == "slerp" else ""
    text = f"merge_method: {method}\n{root}models:\n" + "".join(
        f"- {{model: @/{name}, parameters: {{weight: {weight}}}}}\n" for name, weight in (("A", 0.75), ("B", 0.25))
    )
    (tmp_path / "r.yaml").write_text(text.replace("@", str(tmp_path)))
    (line,) = merge_recipe(tmp_path / "r.yaml").info["warnings"]
    assert line.startswith("1 tensor is opposite in the two members")


def test_merge_methods_that_are_no_methods_of_combine_lead_to_recipes() -> None:
    known = kofn.core.dispatch.methods_of("combine")
    assert set(MERGE_METHODS) == {name for name in ALL_METHODS if name not in known} - set(METHODS_ELSEWHERE) - {
        "linear"
    }
    for name in ("model_stock", "Model-Stock"):
        with pytest.raises(InputError, match=r"write merge_method: model_stock, base_model .* kofn combine FILE\.yaml"):
            kofn.combine([np.ones(2)], method=name)
    assert kofn.find("della")[0].name == "merge_recipe"
