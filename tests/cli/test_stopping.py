"""A command that is stopped keeps the earlier output where it has found nothing, and says where it found too little."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn.core.runtime import Control

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
CALL = ("select", "x.npy", "-k", 30, "-m", "naive_greedy", "-o", "old.csv", "--plan", "old.npz")


@pytest.fixture
def old(folder: Path) -> bytes:
    np.save("x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    for name in ("old.csv", "old.npz"):
        Path(name).write_bytes(b"picked by hand\n")
    return b"picked by hand\n"


def stop(monkeypatch: pytest.MonkeyPatch, number: int, asked: int) -> None:
    """Send the signal to the search when it asks this many times whether to stop."""
    seen, stopped = [0], Control.stopped

    def sending(self: Control) -> bool:
        seen[0] += 1
        if seen[0] == asked:
            signal.raise_signal(number)
        return stopped(self)

    monkeypatch.setattr(Control, "stopped", sending)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_before_the_first_pick_leaves_the_old_output(
    old: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    stop(monkeypatch, number, 1)
    assert "interrupted" in refused(capsys, *CALL, code=130)
    assert Path("old.csv").read_bytes() == Path("old.npz").read_bytes() == old
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("number", SIGNALS)
def test_fewer_picks_than_asked_for_are_said(
    old: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    whole = json.loads(run(capsys, *CALL[:-4], "--json")[1])["picks"]
    stop(monkeypatch, number, 9)
    code, out, err = run(capsys, *CALL, "--json")
    picks = json.loads(out)["picks"]
    assert (code, err.count("\n")) == (3, 1)
    assert f"picked {len(picks)} of the 30" in err
    assert 0 < len(picks) < 30
    assert picks == whole[: len(picks)] == pl.read_csv("old.csv")["row"].to_list()


def test_a_time_limit_gives_all_picks_or_leaves_the_old_output(old: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, *CALL, "--time-limit", "1e-9")[0] == 0
    assert pl.read_csv("old.csv").height == 30
    Path("old.csv").write_bytes(old)
    call = ("select", "x.npy", "--budget", 3, "--cost", "c", "--time-limit", "1e-9", "-o", "old.csv")
    np.savez("x.npz", x=np.ones((9, 2)), c=np.ones(9))
    code = run(capsys, call[0], "x.npz", "--vectors", "x", *call[2:])[0]
    assert code in (0, 3)
    assert (code == 3) == (Path("old.csv").read_bytes() == old)
