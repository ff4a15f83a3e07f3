"""The report of merged models: what it advises, figures that match the plan, and how a real browser shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browser as chrome
import numpy as np
import pytest
import sklearn.datasets
from pages import DRAWN, LOOKS, check_frame, read, stands

import kofn
from kofn.combination import measures_by_layer, merge_recipe
from kofn.core.plans import Blend
from kofn.io.tensor_writer import write_arrays

NAMES = ("embed.weight", *(f"layers.{at}.mlp.weight" for at in range(6)), "head.weight")


def fine_tune(seed: int, agree: tuple[int, ...] = (0, 1, 5)) -> dict[str, np.ndarray]:
    """Changes shared by all in some layers and of its own in the others."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    out = {}
    for name in NAMES:
        common, mine = shared.normal(size=(20, 20)), own.normal(size=(20, 20))
        number = int(name.split(".")[1]) if name.startswith("layers") else None
        out[name] = common if number is None or number in agree else mine
    return out


@pytest.fixture(scope="module")
def plan() -> Blend:
    base = {name: np.zeros((20, 20)) for name in NAMES}
    blend: Blend = kofn.combine(
        [fine_tune(seed) for seed in range(3)],
        base=base,
        weights=[2, 1, 1],
        method="task_arithmetic",
        options={"measure": True},
    )
    return blend


def drawn(seed: int, names: tuple[str, ...] = ("a.w", "b.w")) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(40, 40)) for name in names}


def lede(members: Any, tmp_path: Path, **given: Any) -> str:
    options = {"measure": True, **given.pop("options", {})}
    return read(kofn.combine(members, options=options, **given), tmp_path / "r.html").text


def test_a_blend_of_the_members_length_gets_no_advice(plan: Blend, tmp_path: Path) -> None:
    rows = measures_by_layer(plan.info["measures"])
    assert [row["layer"] for row in rows] == ["before", 0, 1, 2, 3, 4, 5, "after"]
    norms = np.array([row["norms"] for row in plan.info["measures"].values()])
    whole = np.sqrt(np.square(norms).sum(axis=0))
    length = whole[-1] / np.sqrt(np.mean(whole[:-1] ** 2))
    seen = read(plan, tmp_path / "r.html")
    check_frame(seen)
    assert f"{length:.3g}\N{MULTIPLICATION SIGN} as far as its members do. In the trials" in seen.text
    assert "--scale" not in seen.text
    assert "base in memory" in seen.text
    assert "merges well" not in seen.text


def test_a_blend_that_goes_too_far_is_told_the_scale_that_brings_it_back(tmp_path: Path) -> None:
    base, members = drawn(0), [drawn(seed) for seed in (1, 2, 3)]
    given: dict[str, Any] = {"base": base, "method": "ties"}
    text = lede(members, tmp_path, options={"scale": 3.0}, **given)
    assert "too far" in text
    scale = float(text.split("--scale ")[1].split()[0])
    blend = kofn.combine(members, options={"scale": scale, "measure": True}, **given)
    [row, _] = measures_by_layer(blend.info["measures"])
    assert 0.9 < row["length"] < 1.1
    assert "too short" in lede(members, tmp_path, options={"scale": 0.2}, **given)
    assert "it is the base" in lede(members, tmp_path, options={"scale": 0.0}, **given)


def test_dare_is_told_to_drop_less(tmp_path: Path) -> None:
    given: dict[str, Any] = {"base": drawn(0), "method": "dare", "seed": 0}
    members = [drawn(seed) for seed in (1, 2)]
    text = lede(members, tmp_path, options={"density": 0.05}, **given)
    density = float(text.split("--density ")[1].split()[0])
    assert 0.4 < density < 0.8
    assert "--density" not in lede(members, tmp_path, options={"density": density}, **given)
    text = lede(members, tmp_path, options={"density": 0.5, "scale": 4.0}, **given)
    assert "--scale" in text


def test_a_recipe_says_every_weight_density_and_scale(tmp_path: Path) -> None:
    base, members = drawn(0), [drawn(seed) for seed in (1, 2)]
    for name, arrays in zip(("base", "A", "B"), (base, *members), strict=True):
        write_arrays(tmp_path / f"{name}.safetensors", arrays)
    folder = str(tmp_path)
    models = [
        {"model": f"{folder}/A.safetensors", "parameters": {"weight": 0.625, "density": 0.375}},
        {
            "model": f"{folder}/B.safetensors",
            "parameters": {"weight": [{"filter": "a.w", "value": -0.5}, {"value": 2}]},
        },
    ]
    recipe = {"merge_method": "ties", "base_model": f"{folder}/base.safetensors", "models": models}
    text = read(merge_recipe({**recipe, "parameters": {"lambda": 1.25}}, measure=True), tmp_path / "r.html").text
    for words in ("weight 0.625, -0.5; density 0.375, 1; normalize yes; rescale no; lambda 1.25", "weight 0.625, 2;"):
        assert words in text
    own = {"members": members, "base": base, "method": "ties", "weights": [1, 3], "options": {"density": 0.3}}
    text = read(merge_recipe(own, measure=True), tmp_path / "r.html").text
    assert "ties: weights 0.25, 0.75; density 0.3; scale 1" in text


def test_a_method_without_a_scale_is_told_to_scale_its_blend(tmp_path: Path) -> None:
    base, first = drawn(0), drawn(1)
    opposed = {name: 2 * base[name] - 0.9 * first[name] - 0.1 * drawn(2)[name] for name in base}
    recipe = {"members": [first, opposed], "base": base, "method": "weighted_mean"}
    text = read(merge_recipe(recipe, measure=True), tmp_path / "r.html").text
    assert "kofn combine BLEND --base BASE --method task_arithmetic --scale" in text


def test_without_a_base_the_variance_of_weights_is_judged(tmp_path: Path) -> None:
    members = [fine_tune(seed, agree=tuple(range(6))) for seed in range(2)]
    text = lede(members, tmp_path)
    assert "as members do that began together" in text
    assert "base none: figures are of the weights" in text
    assert "weight_matching" in lede([drawn(1), drawn(2)], tmp_path)
    assert "extrapolates" in lede([drawn(1), drawn(2)], tmp_path, weights=[2, -1])


def test_norms_and_tensors_of_few_values_are_not_judged(tmp_path: Path) -> None:
    """Networks trained on from one start on real digits, of which the norms change in opposite ways."""
    torch = pytest.importorskip("torch")
    digits = sklearn.datasets.load_digits()
    X, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)

    def network() -> Any:
        torch.manual_seed(0)
        parts = (torch.nn.Linear(64, 64), torch.nn.LayerNorm(64), torch.nn.ReLU())
        return torch.nn.Sequential(*parts, torch.nn.Linear(64, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 10))

    members = []
    for seed in range(2):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        own = torch.nonzero((y < 5) == (seed == 0))[:, 0]  # each has half of the digits
        for batch in own.repeat(3).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(X[batch]), y[batch]).backward()
            optimizer.step()
        members.append({f"layers.{name}": value.numpy() for name, value in model.state_dict().items()})
    blend = kofn.combine(members, options={"measure": True})
    figures = blend.info["measures"]
    norms = [figures[name]["kept"] for name in figures if name.split(".")[1] in "14"]
    assert max(norms) < 0.75  # which were called unusual
    text = read(blend, tmp_path / "r.html").text
    assert "as members do that began together" in text
    assert "norms, biases and others of fewer than 256 values" in text
    assert "% below" not in text
    assert "Outside" not in text
    assert "layer 1 " in text
    assert "not judged" in text
    base = {f"layers.{name}": value.numpy() for name, value in network().state_dict().items()}
    based = kofn.combine(members, base=base, method="task_arithmetic", options={"measure": True})
    text = read(based, tmp_path / "r.html").text
    assert "of fewer than 256 values, whose figures are chance" in text


def test_odd_merges_are_said_as_they_are(tmp_path: Path) -> None:
    base, member = drawn(0), drawn(1)
    given: dict[str, Any] = {"base": base, "method": "task_arithmetic"}
    assert "One member: there is no other" in lede([member], tmp_path, **given)
    assert "they changed nothing" in lede([base, base], tmp_path, **given)
    assert "no trial covers" in lede([member, drawn(2)], tmp_path, weights=[2, -1], **given)
    assert "every tensor was copied" in lede([{"n": np.array([1])}] * 2, tmp_path)
    for text in (lede([base, base], tmp_path, **given), lede([{"w": np.zeros(3)}] * 2, tmp_path)):
        assert "nan" not in text.lower().split()
        assert "not a number" not in text


def test_statistics_of_batches_are_no_weights(tmp_path: Path) -> None:
    base, names = drawn(0), ("bn.weight", "bn.running_mean", "bn.running_var")
    base = {name: np.abs(value) for name, value in drawn(0, names).items()}
    far = [{**base, "bn.running_mean": base["bn.running_mean"] + 9, "bn.weight": base["bn.weight"] + 1}] * 2
    text = lede(far, tmp_path, base=base, method="task_arithmetic")
    assert "changes the base 1\N{MULTIPLICATION SIGN}" in text
    assert "running_mean" not in text


def test_names_without_numbers_are_modules_and_many_layers_fit(tmp_path: Path) -> None:
    names = tuple(f"model.layers.{number}.w" for number in range(90))
    rng = np.random.default_rng(0)
    members = [{name: rng.normal(size=4) for name in names} for _ in range(2)]
    seen = read(kofn.combine(members, options={"measure": True}), tmp_path / "r.html")
    assert "Drawn are the 40 of 90 layers" in seen.text
    assert all(f"layer {number} " in seen.text for number in range(90))
    seen = read(kofn.combine([drawn(0), drawn(1)], options={"measure": True}), tmp_path / "r.html")
    assert "What each layer lost, in weights a " in seen.text


@pytest.mark.parametrize(
    ("members", "given"),
    [
        ([np.ones(3)], {}),
        ([np.ones(3), np.zeros(3)], {"options": {"measure": True}}),
        ([{"w": np.zeros(0), "n": np.array([1])}] * 2, {"options": {"measure": True}}),
        ([{"w": np.ones(2)}] * 14, {"options": {"measure": True}}),
        ([{"w": np.ones(2)}, {"w": np.zeros(2)}], {"weights": [2, -1]}),
    ],
)
def test_small_and_odd_blends(members: Any, given: dict[str, Any], tmp_path: Path) -> None:
    check_frame(read(kofn.combine(members, **given), tmp_path / "r.html"))


def test_names_of_tensors_stay_text(tmp_path: Path) -> None:
    name = "<script>window.hacked=1</script>"
    blend = kofn.combine([{name: np.ones(2)}, {name: np.zeros(2)}], options={"measure": True})
    seen = read(blend, tmp_path / "r.html")
    assert name in seen.text


def test_long_names_stand_in_a_narrow_browser(tab: chrome.Browser, tmp_path: Path) -> None:
    names = tuple(f"base_model.model.{'a_very_long_module_name' * 3}.decoder_{letter}.weight" for letter in "abc")
    read(kofn.combine([drawn(0, names), drawn(1, names)], options={"measure": True}), tmp_path / "r.html")
    stands(tab, tmp_path / "r.html", 320, "light")


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_stands_in_a_browser(plan: Blend, width: int, scheme: str, tab: chrome.Browser, tmp_path: Path) -> None:
    read(plan, tmp_path / "r.html", command="kofn combine a/ b/ -o merged/")
    stands(tab, tmp_path / "r.html", width, scheme)


def test_every_chart_is_drawn(plan: Blend, tab: chrome.Browser, tmp_path: Path) -> None:
    read(plan, tmp_path / "r.html")
    page = tab.open(tmp_path / "r.html")
    drawn = dict(page.run(DRAWN))
    assert drawn.keys() >= {"What each counts for", "How far each layer goes", "Signs that agree"}
    assert all(count > 0 for count in drawn.values())
