"""The code of the page on what people hold runs, with the packages that are installed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-data.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    left_out = []
    for block in BLOCKS:
        packages = re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            left_out.append(missing[0])
            continue
        exec(compile(block, str(PAGE), "exec"), names)
    assert set(left_out) <= {"arviz", "datasets", "flwr", "imblearn", "pandas", "peft", "pyarrow", "transformers"}
    assert (tmp_path / "tasks.json").exists()


def test_the_page_has_a_block_for_each_package() -> None:
    for package in (
        *("pandas", "datasets", "torch", "imblearn", "sklearn", "polars", "flwr", "pyarrow", "scipy"),
        *("transformers", "peft", "arviz"),
    ):
        assert any(re.search(rf"^(import|from) {package}", block, re.MULTILINE) for block in BLOCKS), package
