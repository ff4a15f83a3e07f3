"""`--dry-run` where compiled code is not on disk: none is compiled, and what is not measured for it is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import run

import kofn
from kofn.cli import estimate
from kofn.core.compiled import NotCompiledError


def test_a_look_beforehand_compiles_nothing(folder: Path) -> None:
    words = np.random.default_rng(0).integers(0, 300, (900, 8))
    pl.DataFrame({"t": [" ".join(f"w{word}" for word in row) for row in words]}).write_csv("pool.csv")
    call = ["select", "pool.csv", "--text", "t", "-k", "20", "-m", "typiclust", "--dedupe", "0.9", "--dry-run"]
    cache = folder / "cache"
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join([str(Path(kofn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "kofn", *call], env=environment, capture_output=True, text=True, check=True
    )
    assert "seconds not measured: the compiled code of " in done.stdout
    assert "near-duplicates at text similarity >= 0.9 is not known: the compiled code of " in done.stderr
    assert not list(cache.rglob("*.nbi"))


@pytest.mark.parametrize(
    ("call", "seconds"),
    [
        (["select", "pool.npy", "-k", "300"], "looks at each pair"),
        (["assign", "pool.npy", "--k", "5"], "by its cost"),
        (["assign", "pool.npy", "--k", "5", "-m", "constrained_kmeans"], "not measured: the compiled code of f is"),
    ],
)
def test_seconds_without_compiled_code_are_by_what_is_known(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    call: list[str],
    seconds: str,
) -> None:
    np.save("pool.npy", np.random.default_rng(0).random((6_000, 3)).astype(np.float32))
    whole: Callable[..., object] = estimate._run_sample

    def sampled(verb: str, *rest: object, **more: object) -> object:
        if verb == "assign" or more:
            raise NotCompiledError("the compiled code of f is not on disk yet; kofn warmup compiles all")
        return whole(verb, *rest, **more)

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    code, text, err = run(capsys, *call, "--dry-run")
    assert code == 0, err
    assert seconds in text
    assert "\nexact " in text
    assert ("the first run compiles it" in text) == (call[0] == "assign")


@pytest.mark.parametrize(
    "call", [("select", "-k", "300"), ("select", "-k", "30", "-m", "sampled_greedy"), ("assign", "--k", "5")]
)
def test_loops_that_no_sample_needs_are_said_to_be_compiled(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, call: tuple[str, ...]
) -> None:
    np.save("pool.npy", np.random.default_rng(0).random((6_000, 3)).astype(np.float32))

    def missing(name: str) -> object:
        raise NotCompiledError(f"the compiled code of {name} is not on disk yet; kofn warmup compiles all")

    monkeypatch.setattr(estimate, "import_module", missing)
    code, text, err = run(capsys, call[0], "pool.npy", *call[1:], "--dry-run")
    assert code == 0, err
    assert text.count("the first run compiles it, up to half a minute on top, once") == 1
