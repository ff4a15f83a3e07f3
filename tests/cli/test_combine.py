"""`kofn combine` on real files: checkpoints and rankings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run


def test_combine_checkpoints_and_rankings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import load_file, save_file

    for place, name in enumerate("ab"):
        Path(name).mkdir()
        save_file({"w": np.full((3, 2), place, np.float32)}, f"{name}/model.safetensors")
    code, text, err = run(capsys, "combine", "a", "b", "--weights", "3,1", "-o", "merged")
    assert code == 0, err
    assert load_file("merged/model.safetensors")["w"].tolist() == [[0.25, 0.25]] * 3
    Path("board.csv").write_text("model,x,y\na,3,\nb,2,9\nc,1,5\n")
    code, text, err = run(capsys, "combine", "board.csv", "--id", "model", "-o", "ranking.csv", "--json")
    assert code == 0, err
    assert json.loads(text)["ranking"][-1] == "c"
    assert pl.read_csv("ranking.csv")["id"].to_list() == json.loads(text)["ranking"]


def test_a_shard_that_is_missing_or_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    for name in "ab":
        Path(name).mkdir()
        save_file({"w": np.zeros((64, 8), np.float32)}, f"{name}/model-00001-of-00001.safetensors")
        index = {"metadata": {}, "weight_map": {"w": "model-00001-of-00001.safetensors"}}
        Path(f"{name}/model.safetensors.index.json").write_text(json.dumps(index))
    shard = Path("b/model-00001-of-00001.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code in (1, 2)
    assert "model-00001-of-00001.safetensors" in err
    shard.unlink()
    code, _, err = run(capsys, "combine", "a", "b", "-o", "m")
    assert code in (1, 2)
    assert "model-00001-of-00001.safetensors" in err
    assert not Path("m").exists()


def test_a_judge_with_a_cell_that_is_no_number_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("model,x,y,notes\na,3,n/a,good\nb,2,9,bad\nc,1,5,ugly\n")
    assert "column 'y' at row 0 is 'n/a'" in refused(capsys, "combine", "board.csv", "--id", "model")
    said = refused(capsys, "combine", "board.csv", "--id", "model", "--columns", "x,notes")
    assert "column 'notes' at row 0 is 'good', which is not a number" in said
    code, text, err = run(capsys, "combine", "board.csv", "--id", "model", "--columns", "x", "--json")
    assert code == 0, err
    assert json.loads(text)["ranking"] == ["a", "b", "c"]
