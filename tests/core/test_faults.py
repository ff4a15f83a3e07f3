"""Registrations that say too little or something wrong are refused by `make index`, by file and remedy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from reservoir_sample import ReservoirSample

from kofn.core.draws import Draw
from kofn.core.registry import method
from kofn.core.stepper import Stepper
from kofn.core.torch_module import ModuleSpec
from kofn.indexing import collect, faults

GOOD = """Pick.

Args:
    X: vectors.
    width: how wide.

Returns:
    A Selection.

Raises:
    InputError: never.

Examples:
    >>> 1
    1
"""


def found(function: Callable[..., Any], doc: str = GOOD, **registered: Any) -> str:
    function.__doc__ = doc
    facts: dict[str, Any] = {"cost": "O(1)", "exact": "all", "paper": "a rule of thumb", **registered}
    spec = method("select", **facts)(function).__kofn__  # type: ignore[attr-defined]
    return "; ".join(faults.of_method(spec, spec.entry()))


def _good(X: Any, *, k: int, width: float = 1.0) -> Any: ...


def _untyped(X: Any, *, k: int, width=1.0) -> Any: ...  # type: ignore[no-untyped-def]


def _by_position(X: Any, width: float = 1.0, *, k: int = 1) -> Any: ...


async def _async(X: Any, *, k: int, width: float = 1.0) -> Any: ...


def _generator(X: Any, *, k: int, width: float = 1.0) -> Any:
    yield X


def _catch_all(X: Any, *, k: int, width: float = 1.0, **kw: Any) -> Any: ...


@pytest.mark.parametrize(
    ("says", "function", "doc", "registered"),
    [
        ("is a coroutine or a generator", _async, GOOD, {}),
        ("is a coroutine or a generator", _generator, GOOD, {}),
        ("has traits that are no tuple of names", _good, GOOD, {"traits": "nested"}),
        ("has traits that are no tuple of names", _good, GOOD, {"traits": (1,)}),
        ("has aliases that are no tuple of names", _good, GOOD, {"aliases": "k-center"}),
        ("has form='method'", _good, GOOD, {"form": "method"}),
        ("has cost=''", _good, GOOD, {"cost": ""}),
        ("has exact=None", _good, GOOD, {"exact": None}),
        ("has paper=''", _good, GOOD, {"paper": ""}),
        ("has needs that are no tuples", _good, GOOD, {"needs": ("X",)}),
        ("draws 'width' from 1.0", _good, GOOD, {"draws": Draw(options={"width": 1.0})}),  # type: ignore[dict-item]
        ("has draws={'width': 1}", _good, GOOD, {"draws": {"width": 1}}),
        ("has no docstring", _good, "", {}),
        ("lacks a section Returns:", _good, GOOD.replace("Returns", "Gives"), {}),
        ("lacks an example that is run", _good, GOOD.replace(">>> ", ""), {}),
        ("does not describe width; add a line to Args", _good, GOOD.replace("width", "wide"), {}),
        ("gives the option width no type", _untyped, GOOD, {}),
        ("takes the option width by position; put * before it", _by_position, GOOD, {}),
        ("needs 'kernl', which it does not take", _good, GOOD, {"needs": (("X", "kernl"),)}),
        (
            "draws 'widht', which it does not take; did you mean 'width'?",
            _good,
            GOOD,
            {"draws": Draw(options={"widht": (1.0,)})},
        ),
    ],
)
def test_faults_of_a_method(says: str, function: Callable[..., Any], doc: str, registered: dict[str, Any]) -> None:
    assert says in found(function, doc, **registered)


def test_anything_at_all_is_no_option() -> None:
    with pytest.raises(TypeError, match=r"_catch_all takes \*\*kw, anything at all; name its options"):
        found(_catch_all)


def test_faults_of_a_stepper() -> None:
    class Plain:
        """Keep."""

    class Half(Stepper[Any]):
        """Keep."""

    entry = type("Row", (), {"path": "own:Plain", "file": "own.py", "name": "Plain"})()
    assert list(faults.of_stepper(Plain, entry)) == ["is no kofn.core.stepper.Stepper; derive it from that class"]
    assert any(fault.startswith("lacks ") for fault in faults.of_stepper(Half, entry))

    class Drawn(ReservoirSample):
        """Keep."""

    for draws, says in ((None, "declares no draws; say how to make one"), (7, "has draws=7; give a function")):
        Drawn.__kofn_stepper__ = dataclasses.replace(ReservoirSample.__kofn_stepper__, draws=draws)  # type: ignore[arg-type]
        assert any(fault.startswith(says) for fault in faults.of_stepper(Drawn, entry))


def test_a_form_of_nothing() -> None:
    spec = ModuleSpec("f", "capped_routin", "", "Routes.", (), "nn/routing/_f.py")
    assert list(faults.of_module(spec, {"capped_routing": None})) == [
        "is form_of='capped_routin', which is registered nowhere; did you mean 'capped_routing'?"
    ]


def test_all_faults_are_said_with_the_file() -> None:
    with pytest.raises(ValueError, match=r"kofn\.a\._b: f has no docstring\nkofn\.a\._b: f lacks"):
        collect.refuse("kofn.a._b:f", ["has no docstring", "lacks a line"])
