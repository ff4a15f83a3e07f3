"""The bibliography: every key that code cites stands in it, and what the package carries is what papers.toml says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from kofn.core import bibliography
from kofn.core.checks import InputError
from kofn.indexing import papers as writer

ROOT = Path(__file__).resolve().parents[2]


def cited() -> dict[int | str, list[Path]]:
    """Every key under `paper=` in a decorator of the library or of a claim, and where it stands."""
    found: dict[int | str, list[Path]] = {}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "claims").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "paper=" in text else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for call in node.decorator_list:
                    for word in call.keywords if isinstance(call, ast.Call) else ():
                        if word.arg == "paper":
                            for key in bibliography.keys_of(ast.literal_eval(word.value)):
                                found.setdefault(key, []).append(path)
    return found


def test_the_packaged_bibliography_is_what_papers_toml_says() -> None:
    assert json.loads((ROOT / "src/kofn/_index/papers.json").read_text(encoding="utf-8")) == writer.read()


def test_every_cited_key_has_a_row() -> None:
    keys = {str(key) for key in cited()}
    assert keys - set(bibliography.papers()) == set()


def test_rows_are_plausible() -> None:
    for key, row in bibliography.papers().items():
        assert row.title == row.title.strip() != ""
        assert re.fullmatch(r"(\d{4}\.\d{4,5})?", row.arxiv), key
        assert row.year is None or 1700 < row.year < 2100
        if row.year and not key.isdigit():
            assert key.endswith(str(row.year)), f"the key {key} does not end in its year"


def test_no_paper_stands_twice() -> None:
    rows = bibliography.papers().values()
    assert len({row.title.casefold() for row in rows}) == len(rows)


def test_references_read_as_references() -> None:
    assert bibliography.cite(33).startswith("Schubert & Rousseeuw 2021, Fast and Eager k-Medoids Clustering")
    assert bibliography.cite(33).endswith("(Information Systems 101, arXiv 2008.05171)")
    assert bibliography.paper(22).by == "Zhuang, Chen & Yang 2023"
    assert bibliography.paper(4).by == "Ziko et al. 2021"
    assert bibliography.cite("folklore") == "folklore"
    assert bibliography.cite("Ours 2026, in the making") == "Ours 2026, in the making"


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'gonzalez1985'"):
        bibliography.paper("gonzales1985")
