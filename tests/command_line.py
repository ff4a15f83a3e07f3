"""The command line in this process, and pools to run it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kofn.cli import main

WORDS = ["red", "green", "blue", "fast", "slow", "car", "bus", "train", "sun", "moon"]


def make_pool(n: int = 60, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "key": [f"r{i:03}" for i in range(n)],
            "body": [" ".join(rng.choice(WORDS, 6)) + f" w{i % 7}" for i in range(n)],
            "lang": rng.choice(["de", "en", "fr"], n, p=[0.2, 0.5, 0.3]).tolist(),
            "tokens": rng.integers(5, 40, n),
            "age": rng.normal(40, 10, n),
            "score": rng.random(n),
            "emb": rng.normal(size=(n, 5)).astype(np.float32).tolist(),
        }
    )


def write(frame: pl.DataFrame, path: Path) -> Path:
    flat = frame.drop("emb", strict=False) if path.suffix in (".csv", ".tsv") else frame
    if path.suffix == ".csv":
        flat.write_csv(path)
    elif path.suffix == ".tsv":
        flat.write_csv(path, separator="\t")
    elif path.suffix == ".parquet":
        flat.write_parquet(path, row_group_size=16)
    else:
        flat.write_ndjson(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The command line in this process: exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return int(stop.value.code or 0), printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line that a bad call gets."""
    got, out, err = run(capsys, *arguments)
    assert got == code, (out, err)
    assert err.startswith("kofn: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    assert out == ""
    return err
