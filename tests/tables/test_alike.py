"""Labels that differ by white space or case alone are told, wherever labels are read; long tables of judges refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from command_line import run

import kofn
from kofn.core.checks import InputError
from kofn.tables.alike import alike_labels


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_which_labels_are_alike() -> None:
    assert alike_labels(["cat", "dog", "cats"], "y") is None
    assert alike_labels(["", " ", "a"], "y") is None
    told = alike_labels(np.array(["ﬁne", "fine", "A  b", "x", "a b", "A b ", "FINE", "a  B", "a\tb"]), "y")
    assert told is not None
    assert "'ﬁne' (row 0) and 'fine' (row 1) and 'FINE' (row 6)" in told
    assert "'A  b' (row 2), 'a b' (row 4), 'A b ' (row 5), 'a  B' (row 7) and 1 more" in told
    many = [f"{name}{end}" for name in "abcdefg" for end in ("", " ")]
    assert "'c' (row 4) and 'c ' (row 5); and 4 more such labels" in str(alike_labels(many, "y"))


@pytest.fixture
def pool(folder: Path) -> pl.DataFrame:
    labels = ["cat", "dog", " cat", "Dog", "cat", "dog"] * 4
    known = [*labels[:4], *["-1"] * 20]
    frame = pl.DataFrame(
        {"label": labels, "known": known, "x": np.arange(24.0), "m_cat": 0.6, "m_dog": 0.4, "m_ cat": 0.0, "m_Dog": 0}
    )
    frame.write_csv("pool.csv")
    return frame


CALLS: dict[str, list[Any]] = {
    "labels that are counted": ["select", "pool.csv", "--columns", "x", "-k", 4, "--label", "label"],
    "groups": ["select", "pool.csv", "--columns", "x", "-k", 4, "--quota", "label=cat:1-3"],
    "shares": ["select", "pool.csv", "--columns", "x", "-k", 4, "--proportional", "label"],
    "labels that spread": ["assign", "pool.csv", "--columns", "x", "--label", "known", "-m", "laplacian_shot"],
    "answers": ["combine", "pool.csv", "--label", "label", "--columns", "m_cat,m_dog,m_ cat,m_Dog"],
}


@pytest.mark.parametrize("name", CALLS)
def test_labels_that_are_alike_are_told(name: str, pool: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, *CALLS[name])
    assert "' holds 'cat' (row 0) and ' cat' (row 2); 'dog' (row 1) and 'Dog' (row 3): alike" in out + err


def test_names_of_votes_and_of_scores_one_a_row_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text("left,right,winner\na,b,a\nb,A ,b\na,c,a\nc,b,c\n")
    _, _, err = run(capsys, "combine", "votes.csv")
    assert "columns 'left', 'right' hold 'a' (row 0) and 'A ' (row 1)" in err
    Path("long.csv").write_text("model,task,score\nm1,t,1\nm2,t,2\nM1,u,3\nm2,u,1\nm1,u,2\n")
    _, _, err = run(capsys, "combine", "long.csv")
    assert "column 'model' holds 'm1' (row 0) and 'M1' (row 2)" in err


def test_notes_reach_python(pool: pl.DataFrame) -> None:
    plan = kofn.select(pool, columns=["x"], groups="label", quotas={"label": {"cat": (1, 3)}}, k=4)
    assert any("'cat' (row 0) and ' cat' (row 2)" in note for note in plan.info["notes"])


LONG = {
    "by what they are called": "item,judge,score\n" + "".join(f"{i},{j},{i * j}\n" for i in range(5) for j in range(3)),
    "by what they hold": "what,who,mark7\n" + "".join(f"i{i},j{j},{i * j}\n" for i in range(5) for j in range(3)),
    "with a key": "key,item,rater,rating\n" + "".join(f"k{i}{j},{i},r{j},1\n" for i in range(5) for j in range(3)),
}


@pytest.mark.parametrize("name", LONG)
def test_one_score_a_row_is_refused_with_what_to_do(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("scores.csv").write_text(LONG[name])
    _, _, err = run(capsys, "select", "scores.csv", "--rankings", "-k", 2)
    assert "scores.csv holds one score a row" in err
    remedy = err.split("make it so in Python: ")[1].strip()
    exec(remedy, {"polars": pl})
    code, _, err = run(capsys, "select", "wide.csv", "--rankings", "-k", 2, "--id", pl.read_csv("wide.csv").columns[0])
    assert code == 0, err


def test_wide_tables_of_judges_are_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"lang": ["de", "en"] * 6, "site": ["a", "a", "b"] * 4, "judge_1": rng.random(12)})
    frame.write_csv("one.csv")
    frame.with_columns(judge_2=pl.Series(rng.random(12)), item=pl.Series(range(12))).write_csv("two.csv")
    for call in (["one.csv", "--quota", "lang=de:1-1"], ["two.csv"], ["one.csv", "--columns", "judge_1"]):
        code, _, err = run(capsys, "select", call[0], "--rankings", "-k", 2, *call[1:])
        assert code == 0, err


def test_long_frames_are_told_their_own_pivot() -> None:
    frame = pd.DataFrame({"item": [1, 1, 2, 2], "judge": ["a", "b", "a", "b"], "score": [1.0, 2, 3, 4]})
    with pytest.raises(InputError, match="one score a row") as caught:
        kofn.select(frame, rankings=True, k=1)
    assert "X.pivot(on='judge', index='item', values='score')" in str(caught.value)
    assert "X.pivot(columns='judge', index='item', values='score')" in str(caught.value)
