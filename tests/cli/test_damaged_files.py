"""Damaged files of every kind end a command with the exit code of wrong data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import run
from safetensors.numpy import save_file

X = np.random.default_rng(0).normal(size=(50, 3))
WRITERS: dict[str, Callable[[Path], object]] = {
    ".npy": lambda path: np.save(path, X),
    ".npz": lambda path: np.savez(path, X=X),
    ".parquet": lambda path: pl.DataFrame({"a": X[:, 0], "b": X[:, 1]}).write_parquet(path),
    ".jsonl": lambda path: pl.DataFrame({"a": X[:, 0], "b": X[:, 1]}).write_ndjson(path),
    ".safetensors": lambda path: save_file({"w": X}, path),
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda raw: raw[: len(raw) * 2 // 3],
    "beginning": lambda raw: b"\x00garbage" + raw[8:],
    "empty": lambda raw: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_files_are_wrong_data(
    suffix: str, damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / f"damaged{suffix}"
    WRITERS[suffix](path)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    call = ["select", path.name, "--k", "3"]
    if suffix == ".safetensors":
        save_file({"w": X}, folder / "sound.safetensors")
        call = ["combine", path.name, "sound.safetensors", "--out", "blend.safetensors"]
    code, _, error = run(capsys, *call)
    assert code == 2
    assert path.name in error
    assert not (folder / "blend.safetensors").exists()
