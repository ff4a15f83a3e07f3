"""A plan file with something else in any place of its header is refused at load, or is a plan that works."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import time_budget

import kofn
from kofn.core.checks import InputError
from kofn.core.plans import Plan

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3))
PLANS: dict[str, Callable[[], Any]] = {
    "select": lambda: kofn.select(X, k=3, ids=list("abcdefgh"), costs=np.ones(8), budget=4),
    "assign": lambda: kofn.assign(X, k=2, seed=0),
    "route": lambda: kofn.assign(scores=RNG.normal(size=(8, 3)), capacity=4),
    "allocate": lambda: kofn.allocate(RNG.random((5, 3)), budget=4),
    "combine": lambda: kofn.combine([{"w": np.ones((2, 2))}, {"w": np.zeros((2, 2))}], weights=[1, 3]),
    "rank": lambda: kofn.combine(rankings=RNG.normal(size=(3, 4))),
}
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    "",
    "x",
    [],
    {},
    [[1]],
    {"$array": "nowhere"},
    {"$array": "header"},
    {"$array": "indices", "dtype": "no_such"},
    {"$float": "nan"},
    {"$float": "x"},
    {"$key": ["uuid", "x"]},
    {"$key": 3},
    {"$tuple": 1},
    {"$map": [1]},
    {"$map": [[[1], 2]]},
    {"$set": [[1]]},
    {"$plan": "Selection", "fields": {}},
    {"$checkpoint": "nowhere.safetensors"},
    {"$objects": [{"$plan": "Nothing"}]},
    {"$unknown": 1},
]


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from _places(value, (*path, key))


def _changed(header: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(header)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


def _use(plan: Any) -> None:
    """What people do with a plan first."""
    _ = (repr(plan), plan._repr_html_(), plan.to_frame(), plan.headline(), plan.gap, plan.equals(plan))


@pytest.mark.parametrize("name", PLANS)
def test_in_every_place_of_the_header(name: str, tmp_path: Path) -> None:
    path = PLANS[name]().save(tmp_path / "plan.npz")
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    header = json.loads(arrays["header"].tobytes())
    places = [*_places(header)]
    rng = np.random.default_rng(time_budget.DEEP_SEED)
    tried = refused = 0
    for place in places:
        values = [..., *ODD] if time_budget.DEEP else [..., *(ODD[i] for i in rng.permutation(len(ODD))[:2])]
        for value in values:
            changed = _changed(header, place, value)
            if changed == header:
                continue
            arrays["header"] = np.frombuffer(json.dumps(changed).encode(), np.uint8)
            np.savez(path, **arrays)
            tried += 1
            try:
                plan = Plan.load(path)
            except InputError:
                refused += 1
                continue
            try:
                _use(plan)
            except Exception as error:
                pytest.fail(f"{place} as {value!r} loads, and then: {type(error).__name__}: {error}")
    assert refused > tried / 3


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("n", "8", "n is str, not int"),
        ("n", True, "n is bool, not int"),
        ("value", None, "value is NoneType, not float"),
        ("method", 3, "method is int, not str"),
        ("used", {"$map": [[1, 2]]}, "used is dict"),
        ("traits", [], "traits is list"),
        ("n", 2, "ids have shape"),
        ("gains", {"$array": "indices"}, ""),
        ("indices", {"$array": "gains"}, "indices is no vector of numbers"),
        ("short", 1.5, "short is float, not int"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: Any, says: str, tmp_path: Path) -> None:
    path = PLANS["select"]().save(tmp_path / "plan.npz")
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    header = _changed(json.loads(arrays["header"].tobytes()), ("fields", field), value)
    np.savez(path, **{**arrays, "header": np.frombuffer(json.dumps(header).encode(), np.uint8)})
    if not says:
        assert Plan.load(path).gains.tolist() == PLANS["select"]().indices.tolist()
        return
    with pytest.raises(InputError, match=f"is not a kofn plan .*{says}"):
        Plan.load(path)
