"""What is written stands whole or not at all: full disks, kills, folders, permissions and links."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap

import polars as pl
import pytest

from kofn.core.checks import FailureError, InputError
from kofn.io import atomic_path, write_table


def test_old_output_stays_on_any_error(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")

    def write(error):
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    for error in (ValueError("x"), KeyboardInterrupt(), InputError("y")):
        with pytest.raises(type(error)):
            write(error)
        assert path.read_text() == "old"
        assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]


def test_permissions_and_links_stay(tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    fresh = write_table(pl.DataFrame({"a": [1]}), tmp_path / "fresh.csv")
    umask = os.umask(0)
    os.umask(umask)
    assert fresh.stat().st_mode & 0o777 == 0o666 & ~umask


def test_folders_that_cannot_be_written_to(tmp_path):
    for path, says in (
        (tmp_path / "nowhere" / "x", r"the folder .*nowhere does not exist; create it"),
        (tmp_path, "is a folder"),
        ("/proc/x.csv", "cannot be written"),
    ):
        with pytest.raises(InputError, match=says), atomic_path(path):
            pass


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_full_disk_is_a_failure_and_keeps_the_old_output(tmp_path, suffix):
    """A real one: the process may not write files past 10 kB, which its writes meet as they would a full disk."""
    code = textwrap.dedent("""
        import resource, signal, sys
        import numpy as np, polars as pl
        from kofn.checks import FailureError
        from kofn.io import write_table
        frame = pl.DataFrame({"x": np.random.default_rng(0).standard_normal(20_000)})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            write_table(frame, sys.argv[1])
        except FailureError as error:
            print(error)
            sys.exit(1)
    """)
    path = tmp_path / f"out{suffix}"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.strip().endswith("the disk is full, nothing was replaced; free space or name another folder")
    assert str(path) in done.stdout
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_device(tmp_path):
    (tmp_path / "out.csv").symlink_to("/dev/full")
    with pytest.raises(FailureError, match=r"out\.csv could not be written: the disk is full"):
        write_table(pl.DataFrame({"a": [1]}), tmp_path / "out.csv")
    assert os.path.exists("/dev/full"), "a device is written to, never replaced"


@pytest.mark.parametrize("moment", ["body", "replace"])
def test_killed_in_the_middle_keeps_the_old_output(tmp_path, moment):
    code = textwrap.dedent(f"""
        import os, signal, sys
        from kofn.io import atomic_path
        if {moment!r} == "replace":
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        with atomic_path(sys.argv[1]) as temporary:
            temporary.write_text("half")
            if {moment!r} == "body":
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    path = tmp_path / "out.csv"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_writing_an_unknown_suffix(tmp_path):
    with pytest.raises(InputError, match=r"cannot write \.parq; did you mean '\.parquet'\?"):
        write_table(pl.DataFrame({"a": [1]}), tmp_path / "x.parq")
    with pytest.raises(InputError, match="without a suffix"):
        write_table(pl.DataFrame({"a": [1]}), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_nested_columns_in_csv_are_json(tmp_path):
    lists = {"v": [[0.5, 1.0], None, []], "s": [["a,b", 'c"d'], [], None]}
    frame = pl.DataFrame({**lists, "t": [{"k": 1}] * 3, "i": [1, 2, 3]})
    path = write_table(frame, tmp_path / "x.csv")
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [
        ["[0.5,1.0]", '["a,b","c\\"d"]', '{"k":1}', "1"],
        ["", "[]", '{"k":1}', "2"],
        ["[]", "", '{"k":1}', "3"],
    ]
