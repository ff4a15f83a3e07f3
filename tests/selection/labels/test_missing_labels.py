"""Labels of which some are missing: NaN and None are rows without a label, for every method that takes such labels."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core import dispatch
from kofn.core.checks import InputError, partly_labelled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
CODES = np.where(np.arange(40) < 12, (X[:, 0] > 0).astype(int), -1)
TAKING = [
    (verb, entry.name)
    for verb in ("select", "assign")
    for entry in dispatch.methods_of(verb).values()
    if "unlabelled" in entry.options
]
FORMS: dict[str, Any] = {
    "float": np.where(CODES < 0, np.nan, CODES),
    "list of floats": [float("nan") if code < 0 else float(code) for code in CODES],
    "None": [None if code < 0 else int(code) for code in CODES],
    "objects": np.array([None if code < 0 else int(code) for code in CODES], object),
    "polars": pl.Series([None if code < 0 else int(code) for code in CODES]),
    "NaN among ints": [float("nan") if code < 0 else int(code) for code in CODES],
}


def answer(verb: str, method: str, y: Any, **more: Any) -> list[int]:
    call = {"k": 5, "seed": 0} if verb == "select" else {}
    plan = getattr(kofn, verb)(X, y=y, method=method, **call, **more)
    return (plan.indices if verb == "select" else plan.labels).tolist()


def test_some_methods_of_both_verbs_take_labels_in_part() -> None:
    assert {verb for verb, _ in TAKING} == {"select", "assign"}
    assert len(TAKING) >= 3


@pytest.mark.parametrize(("verb", "method"), TAKING)
@pytest.mark.parametrize("form", FORMS)
def test_missing_labels_are_rows_without_one(verb: str, method: str, form: str) -> None:
    expected = answer(verb, method, CODES)
    for more in ({}, {"unlabelled": np.nan}, {"unlabelled": None}):
        assert answer(verb, method, FORMS[form], **more) == expected
    # A direct call takes the same path.
    function = dispatch.methods_of(verb)[method].load()
    call = {"k": 5, "seed": 0} if verb == "select" else {}
    call = {name: value for name, value in call.items() if name in inspect.signature(function).parameters}
    plan = function(X, y=FORMS[form], **call)
    assert (plan.indices if verb == "select" else plan.labels).tolist() == expected


@pytest.mark.parametrize(("verb", "method"), TAKING)
def test_texts_with_none_and_other_marks_beside_missing_ones(verb: str, method: str) -> None:
    names = [None if code < 0 else ("no", "yes")[code] for code in CODES]
    expected = answer(verb, method, ["?" if name is None else name for name in names], unlabelled="?")
    assert answer(verb, method, names) == expected
    assert answer(verb, method, np.array(names, object), unlabelled=None) == expected
    mixed = [name or ("?" if row % 2 else None) for row, name in enumerate(names)]
    assert answer(verb, method, mixed, unlabelled="?") == expected


@pytest.mark.parametrize(("verb", "method"), TAKING)
def test_a_class_that_reads_as_the_mark_is_a_class_where_the_mark_is_missing(verb: str, method: str) -> None:
    """-1 is a class of its own where NaN or None stands for no label, and so is the empty text."""
    shifted = np.where(CODES < 0, np.nan, CODES * 2 - 1.0)
    assert answer(verb, method, shifted, unlabelled=np.nan) == answer(verb, method, CODES)
    texts = [None if code < 0 else ("", "None")[code] for code in CODES]
    named = ["?" if code < 0 else ("", "None")[code] for code in CODES]
    assert answer(verb, method, texts, unlabelled=None) == answer(verb, method, named, unlabelled="?")


def test_every_row_labelled_or_none_is_refused_as_before() -> None:
    for unlabelled in (-1, None, np.nan):
        with pytest.raises(InputError, match="all 40 rows are labelled"):
            answer("select", "uncertainty_herding", np.abs(CODES), unlabelled=unlabelled)
    with pytest.raises(InputError, match="no row is labelled"):
        answer("select", "anchored_subpool", np.full(40, np.nan))


def test_the_mark_keeps_whole_numbers_whole_and_infinities_refused() -> None:
    filled, mark = partly_labelled(np.array([1.0, np.nan, 2.0]), -1)
    assert (filled.tolist(), filled.dtype.kind, mark) == ([1, -1, 2], "i", -1)
    filled, mark = partly_labelled(np.array([1.5, np.nan, -1.0]), np.nan)
    assert (filled.tolist(), mark) == ([1.5, -2.0, -1.0], -2.0)
    with pytest.raises(InputError, match="inf"):
        answer("select", "uncertainty_herding", np.where(CODES < 0, np.nan, np.inf))
