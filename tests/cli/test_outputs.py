"""No command writes over what it reads, nor two answers to one place; what cannot be written is refused beforehand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run

POOL = "id,x,y,cost\n" + "".join(f"{i},{i * i % 7},{i % 3},1\n" for i in range(12))
CURVES = "layer,2,4,8\na,3,2,1\nb,5,1,0\n"
BOARD = "model,x,y\na,3,1\nb,2,9\n"


@pytest.fixture
def files(folder: Path) -> dict[str, bytes]:
    from safetensors.numpy import save_file

    for name, text in (("pool.csv", POOL), ("curves.csv", CURVES), ("board.csv", BOARD)):
        Path(name).write_text(text)
    Path("keep.txt").write_text("1\n2\n")
    Path("pairs.csv").write_text("a,b\n1,2\n")
    Path("r.toml").write_text('members = ["a", "b"]\n')
    for place, name in enumerate("ab"):
        Path(name).mkdir()
        save_file({"w": np.full(2, place, np.float32)}, f"{name}/model.safetensors")
    Path("link.csv").symlink_to("pool.csv")
    os.link("pool.csv", "hard.csv")
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


SELECT = ("select", "pool.csv", "--columns", "x,y", "-k", "2")
LINKED = ("assign", "pool.csv", "--columns", "x,y", "--k", "2", "--must-link", "pairs.csv", "-m", "constrained_kmeans")


@pytest.mark.parametrize(
    "words",
    [
        (*SELECT, "-o", "pool.csv"),
        (*SELECT, "--report", "pool.csv"),
        (*SELECT, "--plan", "pool.csv"),
        (*SELECT, "--plan", "./a/../pool.csv"),
        (*SELECT, "-o", "link.csv"),
        (*SELECT, "--plan", "hard.csv"),
        (*SELECT, "-o", "new.csv", "--plan", "new.csv"),
        (*SELECT, "--report", "new.html", "--plan", "new.html"),
        (*SELECT, "--dedupe", ".9", "--dropped", "new.csv", "-o", "./new.csv"),
        (*SELECT, "--dedupe", ".9", "--dropped", "pool.csv"),
        (*SELECT, "--id", "id", "--include", "keep.txt", "--plan", "keep.txt"),
        (*SELECT, "--id", "id", "--exclude", "keep.txt", "--plan", "keep.txt"),
        (*SELECT, "--report", "new.pdf"),
        (*SELECT, "--report", "a"),
        (*SELECT, "--plan", "a"),
        (*SELECT, "--report", "nowhere/new.html"),
        (*SELECT, "--plan", "nowhere/new.npz"),
        (*SELECT, "--plan", "x\0y"),
        (*SELECT, "-o", ""),
        ("assign", "pool.csv", "--columns", "x,y", "--k", "2", "--plan", "pool.csv"),
        (*LINKED, "-o", "pairs.csv"),
        ("allocate", "curves.csv", "--id", "layer", "--budget", "4", "-o", "curves.csv"),
        ("allocate", "curves.csv", "--id", "layer", "--budget", "4", "--plan", "curves.csv"),
        ("combine", "board.csv", "--id", "model", "-o", "board.csv"),
        ("combine", "a", "b", "-o", "m", "--report", "a/model.safetensors"),
        ("combine", "a", "b", "-o", "m", "--plan", "a/model.safetensors"),
        ("combine", "a", "b", "-o", "a"),
        ("combine", "a", "b", "--base", "b", "-m", "ties", "-o", "m", "--plan", "b/model.safetensors"),
        ("combine", "r.toml", "-o", "m", "--plan", "r.toml"),
    ],
)
def test_nothing_that_is_read_is_written_over(
    words: tuple[str, ...], files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *words)
    assert said.count("\n") <= 1
    assert {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()} == files


def test_what_differs_is_written(files: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *SELECT, "-o", "new.csv", "--report", "new.html", "--plan", "new.plan")
    assert code == 0, err
    assert all(Path(name).stat().st_size for name in ("new.csv", "new.html", "new.plan"))
    assert run(capsys, *SELECT, "-o", "new.csv")[0] == 0
