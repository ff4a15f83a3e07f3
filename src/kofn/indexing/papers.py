"""Writes the bibliography into the package: `papers.toml` becomes `_index/papers.json`."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from kofn.core.bibliography import Paper

PACKAGE = Path(__file__).resolve().parents[1]
SOURCE = PACKAGE.parents[1] / "papers.toml"
FIELDS = {field.name for field in fields(Paper)} - {"key"}


def read(source: Path = SOURCE) -> dict[str, dict[str, Any]]:
    """The rows of `papers.toml`, numbers first."""
    rows = tomllib.loads(source.read_text(encoding="utf-8"))
    for key, row in rows.items():
        unknown = set(row) - FIELDS
        if unknown or "title" not in row:
            raise ValueError(f"{source.name} [{key}]: a title is needed and only {', '.join(sorted(FIELDS))} are known")
    return dict(sorted(rows.items(), key=lambda item: (not item[0].isdigit(), item[0].zfill(6))))


def write(source: Path = SOURCE, target: Path = PACKAGE / "_index" / "papers.json") -> None:
    """Write the bibliography; without a checkout there is nothing to write it from."""
    if source.exists():
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(read(source), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
