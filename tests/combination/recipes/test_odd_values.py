"""A recipe with an odd value in any one place is read or refused in one line."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kofn.combination.recipes import read_recipe
from kofn.core.checks import InputError, KofnError

OWN: dict[str, Any] = {
    "members": ["a", "b"],
    "base": "c",
    "method": "ties",
    "weights": [0.5, 0.5],
    "options": {"density": 0.5},
    "tensors": [
        {"match": "*.w", "method": "slerp", "weights": [0.5, 0.5], "options": {}},
        {"match": ["x", "y"], "method": "copy"},
    ],
}
LINEAR: dict[str, Any] = {
    "merge_method": "linear",
    "models": [
        {"model": "a", "parameters": {"weight": 0.5}},
        {"model": "b", "parameters": {"weight": [{"filter": "x", "value": 0.5}, {"value": [0, 1]}]}},
    ],
    "parameters": {"normalize": True},
    "dtype": "float32",
    "base_model": "a",
    "tokenizer_source": "union",
}
SLICES: dict[str, Any] = {
    "merge_method": "slerp",
    "slices": [{"sources": [{"model": "a", "layer_range": [0, 2]}, {"model": "b", "layer_range": [0, 2]}]}],
    "base_model": "a",
    "parameters": {"t": [{"filter": "x", "value": [0, 0.5, 1]}, {"value": 0.5}]},
}
ODD: tuple[Any, ...] = (
    *(3, -1, 2.5, True, None, "", "x", [], {}, [1], [None], ["x"], {"a": 1}, {1: 2}, [[]], [{}], {"x": {}}),
    *(datetime.date(2020, 1, 1), float("nan"), 10**400, [0, 10**400], "\0", "a" * 5000, b"a"),
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a recipe holds a value, the whole of it aside."""
    if place:
        yield place
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from places(value[key], (*place, key))


def put(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """A copy with an odd value in one place."""
    if not place:
        return odd
    made = copy.copy(value)
    made[place[0]] = put(made[place[0]], place[1:], odd)
    return made


@pytest.mark.parametrize("recipe", [OWN, LINEAR, SLICES], ids=["own", "linear", "slices"])
def test_odd_values_are_refused_in_one_line(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kofn.combination.recipes._mergekit import read_mergekit

    monkeypatch.chdir(tmp_path)
    refused: list[str] = []
    for name in "ab":
        Path(name).mkdir()
    for place in places(recipe):
        for odd in ODD:
            made = put(recipe, place, odd)
            try:
                read = read_mergekit(made, Path()) if "merge_method" in made else read_recipe(made)
                read.settled(["x.w", "layers.0.w", "y"])
            except KofnError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert not [line for line in refused if "\n" in line]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.yaml", "models: 2020-13-45"),
        ("r.yaml", "? [1, 2]\n: 3"),
        ("r.yaml", "a: " + "9" * 5000),
        ("r.yaml", "[" * 2000 + "]" * 2000),
        ("r.yaml", "a: &a [*a]"),
        ("r.toml", "members = 2020-13-45"),
        ("r.toml", "a = " + "9" * 5000),
        ("r.toml", "a = " + "[" * 2000 + "]" * 2000),
        ("r.toml", "members = ['a', 'b']\ntensors = 3"),
        ("r.toml", "members = ['a', 'b']\noptions = 3"),
        ("r.toml", "members = ['a', 'b']\nmethod = ['ties']"),
        ("r.toml", "members = ['a', 'b']\n[[tensors]]\nmatch = 3"),
    ],
)
def test_odd_files_are_refused_in_one_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "members: [a, b]\nweights: [1, 2]\nweights: [1, 9]\n",
            "'weights' stands twice in one table, in line 2 and in",
        ),
        (
            "merge_method: linear\nmodels:\n- model: a\n  parameters:\n    weight: 1\n    weight: 3\n",
            "in line 5 and in line 6",
        ),
        ("members: [a]\noptions: {density: 1, 'density': 2}\nmethod: ties\n", "'density' stands twice"),
        ("members: [a, b]\nweights: [1, on]\n", "holds true or false; give numbers"),
        ("members: [a, b]\nweights: yes\n", "holds true or false; give numbers"),
    ],
)
def test_doubled_keys_and_booleans_for_numbers_are_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(says)):
        read_recipe(tmp_path / "r.yaml")


def test_keys_that_an_anchor_brings_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "members: [a, b]\nmethod: ties\noptions: &o {density: 0.5}\n"
        "tensors:\n- {match: x, options: &p {<<: *o, density: 0.25}}\n- {match: y, options: {<<: *p, density: 1.0}}\n"
    )
    assert [part.options["density"] for part in read_recipe(tmp_path / "r.yaml").parts] == [0.25, 1.0, 0.5]
