"""`kofn methods`."""

from __future__ import annotations

import json

import pytest
from command_line import refused, run


def test_methods_lists_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "methods", "assign", "--given", "scores,capacity", "--json")
    assert code == 0
    names = [row["name"] for row in json.loads(text)]
    assert "capped_routing" in names
    assert "fasterpam" not in names
    assert "did you mean 'scores'" in refused(capsys, "methods", "--given", "score_s")
    assert "did you mean 'select'" in refused(capsys, "selct")
