"""`kofn warmup`."""

from __future__ import annotations

import pytest
from command_line import run


def test_warmup_compiles_every_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys, "warmup")
    assert (code, err) == (0, "")
    assert "ready" in text
