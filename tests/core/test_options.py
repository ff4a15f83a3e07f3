"""Values of the wrong kind for any option of any method are refused in words, from the type in its signature."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.core.checks import InputError, option
from kofn.selection import near_duplicates

WRONG = {
    "int": ("two", [2], 1.5, True, None, np.ones(2)),
    "int | None": ("two", [2], 1.5),
    "float": ("two", [2.0], None, np.ones(2), True),
    "str": (2, ["a"], None, np.array(["a"])),
    "bool": (1, "yes", None, np.ones(2)),
    "Literal['a', 'b']": ("c", 1, None, ["a"], np.array(["a", "b"])),
    "Sequence[str] | None": (True, 3, "text"),
    "str | Path | None": (3, ["a"]),
    "Iterable[str] | None": ("abc", np.float16(1), np.array(1.0), {"a": 1}, 3),
    "Mapping[str, Any]": ({1: 2}, [1], "text", {"a": 1, None: 2}),
    "Mapping[str, Mapping[str, Any]]": ({"a": 2}, {"a": {1: 2}}, {1: {}}),
}
RIGHT = {
    "int": (2, np.int64(2), 2.0),
    "int | None": (None, 3),
    "float": (2, 0.5, np.float32(1), float("nan")),
    "str": ("a", np.str_("a")),
    "bool": (True, np.False_),
    "Literal['a', 'b']": ("a", "b"),
    "Sequence[str] | None": (None, [], ("a",), np.array(["a"])),
    "str | Path | None": (None, "a"),
    "Iterable[str] | None": (None, ["a"], iter("ab"), np.array(["a"])),
    "Mapping[str, Any]": ({}, {"a": 1, "b": object()}),
    "Mapping[Any, Any]": ({1: 2, None: "a"},),
    "Mapping[str, Mapping[str, Any]]": ({"a": {"b": 1}}, {"a": {}}),
    "Any": (object(), None, [1]),
    "Floats | None": (object(),),
}


@pytest.mark.parametrize(("annotation", "value"), [(a, v) for a, values in WRONG.items() for v in values])
def test_wrong_kinds(annotation: str, value: object) -> None:
    with pytest.raises(InputError, match=r"^size=") as caught:
        option("size", value, annotation)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("annotation", "value"), [(a, v) for a, values in RIGHT.items() for v in values])
def test_right_kinds(annotation: str, value: object) -> None:
    option("size", value, annotation)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        option("size", np.arange(10_000.0), "int")
    assert len(str(caught.value)) < 140


def test_methods_refuse_before_they_run() -> None:
    X = [[0.0], [1.0], [2.0]]
    refused(lambda: kofn.combine([[1.0], [2.0]], skip=True), "skip=True: give a")
    refused(lambda: kofn.assign(X, k=2, init=np.ones(3)), "init=array([1., 1., 1.]): ")
    refused(
        lambda: kofn.select(scores=[1.0, 2.0], k=1, method="ccs", n_strata="many"),
        "n_strata='many': give a whole number",
    )
    refused(lambda: kofn.select(X, k=10**400), "give a whole number")
    refused(lambda: kofn.select(X, k=10**30), "give a whole number below 2**63")
    refused(lambda: kofn.select(X, k=10**5000), "k=a number of thousands of digits: give a whole number")
    refused(lambda: kofn.select(X, k=2, include={1, "a"}), "include holds")
    refused(lambda: kofn.select(X, k=2, metric=np.ones(3)), "choose one of euclidean")  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_a_column_of_a_frame_is_a_list(kind: str) -> None:
    module = pytest.importorskip(kind)
    texts = module.Series(["a b", "a  B", "c d"])
    assert near_duplicates(texts=texts, threshold=0.9).keep.tolist() == [True, False, True]
    with pytest.raises(InputError, match="texts"):
        near_duplicates(texts=module.Series([1, 2, 3]), threshold=0.9)
