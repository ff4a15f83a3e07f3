"""`--engine` and `--address`: where a selection runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import refused, run

from kofn.assignment.means import _scores
from kofn.assignment.medoids import _fastclara
from kofn.combination._sweep import merge
from kofn.engines.local import Local
from kofn.io.tensor_writer import write_arrays
from kofn.selection.greedy import _sparse_greedy

X = np.random.default_rng(0).normal(size=(60, 3))


def test_the_local_engine_is_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    words = ("select", "x.npy", "-k", 4, "--seed", 1, "--part-rows", 10)
    assert run(capsys, *words, "-o", "a.csv")[0] == 0
    assert run(capsys, *words, "--engine", "local", "-o", "b.csv")[0] == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text()


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("--engine", "spork"), "choose one of local, ray"),
        (("--address", "auto"), "say --engine ray too"),
        (("--engine", "ray", "-m", "farthest_first"), "-m farthest_first reads all rows at once"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(
    typed: tuple[str, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    assert says in refused(capsys, "select", "x.npy", "-k", 4, "-o", "a.csv", *typed)
    assert not Path("a.csv").exists()


def test_engines_are_taken_by_every_verb_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    for name in ("a", "b"):
        write_arrays(f"{name}.safetensors", {"w": X})
    calls = (
        ("select", "x.npy", "-k", 4, "-m", "sparse_greedy", "--n-neighbors", 9, "-o", "picks.csv"),
        ("assign", "x.npy", "--k", 3, "-m", "fastclara", "--seed", 0, "-o", "groups.csv"),
        ("assign", "x.npy", "--k", 3, "--capacity", 25, "--seed", 0, "-o", "groups.csv"),
        ("combine", "a.safetensors", "b.safetensors", "--force", "-o", "out.safetensors"),
    )
    asked: list[Any] = []

    def opened(engine: Any, n_threads: int | None = None) -> Any:
        asked.append(engine)
        return nullcontext(Local(1))

    for module in (_sparse_greedy, _fastclara, _scores, merge):
        monkeypatch.setattr(module, "opened", opened)
    for typed in calls:
        assert run(capsys, *typed)[0] == 0
        here = Path(str(typed[-1])).read_bytes()
        asked.clear()
        assert run(capsys, *typed, "--engine", "ray", "--address", "head:6379")[0] == 0
        assert asked == ["ray:head:6379"]
        assert Path(str(typed[-1])).read_bytes() == here
        assert "say --engine ray too" in refused(capsys, *typed, "--address", "auto")
        assert "choose one of local, ray" in refused(capsys, *typed, "--engine", "spork")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            ("assign", "x.npy", "--k", 3, "-m", "fasterpam", "-o", "o.csv"),
            "method='fasterpam' runs on this machine only",
        ),
        (("combine", "t.csv", "--id", "m", "-o", "o.csv"), "runs on this machine only"),
        (
            ("combine", "a.safetensors", "adapter.safetensors", "-o", "o"),
            "--engine is not taken where adapters are folded",
        ),
    ],
)
def test_an_engine_that_would_not_be_used_is_refused(
    typed: tuple[Any, ...],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    Path("t.csv").write_text("m,a,b\nu,1,2\nv,2,1\n")
    write_arrays("a.safetensors", {"layer.weight": np.ones((4, 4))})
    write_arrays(
        "adapter.safetensors",
        {
            "lora_unet_layer.lora_down.weight": np.ones((2, 4), np.float32),
            "lora_unet_layer.lora_up.weight": np.ones((4, 2), np.float32),
            "lora_unet_layer.alpha": np.array(2.0, np.float32),
        },
    )
    assert says in refused(capsys, *typed, "--engine", "ray")
