"""Modules that moved are importable under their old paths, with a warning that says where they are now."""

from __future__ import annotations

import importlib
import sys

import pytest

from kofn.core.old_paths import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_gives_the_new_names(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MOVED[old]}"):
        module = importlib.import_module(old)
    new = importlib.import_module(MOVED[old])
    names = [name for name in dir(new) if not name.startswith("_")]
    assert names
    assert all(getattr(module, name) is getattr(new, name) for name in names)


def test_a_path_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("kofn.selection.nothing")


def test_names_are_importable_from_it() -> None:
    sys.modules.pop("kofn.plans", None)
    with pytest.warns(DeprecationWarning, match=r"kofn\.plans is now kofn\.core\.plans"):
        from kofn.plans import Plan  # type: ignore[import-not-found]
    assert Plan.__module__ == "kofn.core.plans"
