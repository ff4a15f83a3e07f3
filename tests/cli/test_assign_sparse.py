"""`kofn assign` of a file of sparse rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from command_line import refused, run


def test_a_file_of_sparse_rows_is_grouped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sp.save_npz("words.npz", sp.random_array((205, 60), density=0.1, rng=np.random.default_rng(0), format="csr"))
    call = ["assign", "words.npz", "-k", 3]
    code, out, err = run(capsys, *call, "--metric", "cosine", "-o", "groups.csv", "--report", "groups.html")
    assert code == 0, err
    assert "fastclara: 205 items in 3 bins" in out
    assert len(Path("groups.csv").read_text().splitlines()) == 206
    assert "say --metric cosine" in refused(capsys, *call)
    code, out, err = run(capsys, *call, "--metric", "cosine", "--dry-run")
    assert code == 0, err
    assert "fastclara" in out
