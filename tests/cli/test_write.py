"""Outputs are complete or untouched."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import make_pool, refused, run, write

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_an_input_with_a_zero_byte_is_no_name_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    says = refused(capsys, "combine", "a\0.yaml", "-o", str(tmp_path / "out"))
    assert "'a\\x00.yaml' is no name of a file; check the path" in says


@pytest.mark.parametrize("option", ["-o", "--report", "--plan"])
def test_a_loop_of_links_is_named_where_it_stands(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    write(make_pool(), Path("in.csv"))
    for first, second in (("one", "two"), ("two", "one")):
        Path(first).symlink_to(second)
    says = refused(capsys, "select", "in.csv", "--columns", "age", "-k", 2, option, "one")
    assert "one is a loop of links" in says
    assert "in.csv is" not in says
    assert "one is a loop of links" in refused(capsys, "select", "one", "--columns", "age", "-k", 2, option, "o.csv")


@pytest.mark.parametrize(("option", "name"), [("-o", "o.csv/"), ("--report", "o.html/"), ("--plan", "o.npz/")])
def test_the_name_of_a_folder_is_no_output(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, name: str
) -> None:
    write(make_pool(), Path("in.csv"))
    says = refused(capsys, "select", "in.csv", "--columns", "age", "-k", 2, option, name)
    assert f"{option} {name} is the name of a folder" in says
    assert [path.name for path in Path().iterdir()] == ["in.csv"]


def test_a_kill_in_the_middle_leaves_the_old_output_whole(kofn: Run, tmp_path: Path) -> None:
    write(make_pool(), tmp_path / "pool.csv")
    (tmp_path / "picks.csv").write_text("old\n")
    # The last step of writing is the rename: die there, with the new file complete beside the old one.
    die = "import os, signal; os.replace = os.rename = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)"
    done = kofn("select", "pool.csv", "--columns", "age", "-k", 3, "-o", "picks.csv", before=die)
    assert done.returncode == -9
    assert (tmp_path / "picks.csv").read_text() == "old\n"


def test_a_full_disk_leaves_the_old_output_whole(kofn: Run, tmp_path: Path) -> None:
    write(make_pool(), tmp_path / "pool.csv")
    (tmp_path / "picks.csv").write_text("old\n")
    full = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); sys.dont_write_bytecode = True"
    )
    done = kofn("select", "pool.csv", "--columns", "age", "-k", 30, "-o", "picks.csv", before=full)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("kofn: ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "picks.csv").read_text() == "old\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picks.csv", "pool.csv"]


def test_every_export_is_written_and_none_of_them_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), Path("in.csv"))
    exports = [f"--export={name}" for name in ("argilla=a.json", "label-studio=l.json", "argilla=b.json")]
    code, out, err = run(capsys, "select", "in.csv", "--columns", "age", "-k", 2, *exports)
    assert code == 0, err
    assert [line for line in out.splitlines() if "json" in line] == [
        "for argilla -> a.json",
        "for label-studio -> l.json",
        "for argilla -> b.json",
    ]
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes() != Path("l.json").read_bytes()
    call = ("select", "in.csv", "--columns", "age", "-k", 2, "--export", "argilla=c.json", "--export")
    assert "--export ./c.json and --export are one file" in refused(capsys, *call, "label-studio=./c.json")
    assert "give a name that ends in .json" in refused(capsys, *call, "label-studio=c.txt")
    assert "--export c.json and --plan are one file" in refused(capsys, *call[:-1], "--plan", "c.json")
    assert not Path("c.json").exists()
