"""Tables of predictions of which no answers are known: what is blended, and what is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

CLASSES = ("Barolo", "Barbera", "Grignolino")
MEAN = ("-m", "weighted_mean")


def chances(seed: int, rows: int = 8, classes: int = 3) -> Any:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), rows)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def models(folder: Path) -> dict[str, Any]:
    """Probabilities of three classes by two models, in a table of a column for each."""
    out = {"logit": chances(0), "tree": chances(1)}
    columns = {f"{model}_{name}": p[:, i] for model, p in out.items() for i, name in enumerate(CLASSES)}
    pl.DataFrame({"wine": [f"w{row}" for row in range(8)], **columns}).write_csv("oof.csv")
    return out


@pytest.mark.parametrize(
    "more", [(), ("--classes", "Grignolino,Barolo,Barbera"), ("--columns", "tree_Barolo,tree_Barbera,tree_Grignolino")]
)
def test_columns_of_classes_are_blended_by_class(
    more: tuple[str, ...], models: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = () if "--columns" in more else ("--weights", "3,1")
    code, _, err = run(capsys, "combine", "oof.csv", "--id", "wine", *MEAN, *more, *weights, "-o", "out.csv")
    assert code == 0, err
    blend = pl.read_csv("out.csv")
    wanted = models["tree"] if "--columns" in more else 0.75 * models["logit"] + 0.25 * models["tree"]
    assert blend.columns[1:] == (more[1].split(",") if "--classes" in more else list(CLASSES))
    np.testing.assert_allclose(blend.select(CLASSES).to_numpy(), wanted)


def test_the_blend_is_applied_to_other_rows(models: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    turned = pl.read_csv("oof.csv")
    turned.select("wine", *reversed(turned.columns[1:])).write_csv("test.csv")
    call = ("combine", "oof.csv", "--id", "wine", *MEAN, "--weights", "3,1")
    assert run(capsys, *call, "-o", "own.csv")[0] == 0
    assert run(capsys, *call, "--apply", "test.csv", "-o", "other.csv")[0] == 0
    assert Path("own.csv").read_text() == Path("other.csv").read_text()


def test_two_classes_may_be_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    p, q = chances(0, classes=2), chances(1, classes=2)
    pl.DataFrame({"lr_0": p[:, 0], "lr_1": p[:, 1], "knn_0": q[:, 0], "knn_1": q[:, 1]}).write_csv("oof.csv")
    assert run(capsys, "combine", "oof.csv", *MEAN, "-o", "out.csv")[0] == 0
    np.testing.assert_allclose(pl.read_csv("out.csv").select("0", "1").to_numpy(), (p + q) / 2)


def test_seeds_stay_a_model_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).random((8, 4))
    pl.DataFrame(values, schema=["lr_0", "lr_1", "knn_0", "knn_1"]).write_csv("oof.csv")
    code, text, _ = run(capsys, "combine", "oof.csv", *MEAN, "--json", "-o", "out.csv")
    assert (code, len(json.loads(text)["members"])) == (0, 4)
    np.testing.assert_allclose(pl.read_csv("out.csv")["prediction"].to_numpy(), values.mean(axis=1))
    message = refused(capsys, "combine", "oof.csv", *MEAN, "--classes", "a,b")
    assert "are not called after models and --classes a,b; call them so, as in forest_a,forest_b" in message


def test_a_table_of_one_model_is_no_table_of_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame(chances(0), schema=list(CLASSES)).write_csv("m_logit.csv")
    message = refused(capsys, "combine", "m_logit.csv", *MEAN)
    assert "add up to one in each row, so that they are one model's" in message
    assert "give a table for each model" in message
    pl.DataFrame(chances(1), schema=list(CLASSES)).write_csv("m_tree.csv")
    assert run(capsys, "combine", "m_logit.csv", "m_tree.csv", *MEAN)[0] == 0


@pytest.mark.parametrize("key", ["id", "row", "user_id", "Idx"])
def test_a_column_of_keys_is_asked_for(key: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mm.csv").write_text(f"{key},a,b\n1,0.2,0.4\n2,0.6,0.8\n")
    message = refused(capsys, "combine", "mm.csv", *MEAN)
    assert f"say --id {key}, if it is a model's predictions, name all of these: --columns {key},a,b" in message
    assert run(capsys, "combine", "mm.csv", "--id", key, *MEAN, "-o", "out.csv")[0] == 0
    np.testing.assert_allclose(pl.read_csv("out.csv")["prediction"].to_numpy(), [0.3, 0.7])
    assert run(capsys, "combine", "mm.csv", *MEAN, "--columns", f"{key},a,b")[0] == 0
    assert f"--id {key}" in refused(capsys, "combine", "mm.csv", "mm.csv", *MEAN)


def test_rows_that_are_counted_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"nr": range(1, 9), "a": chances(0)[:, 0], "b": chances(1)[:, 0]}).write_csv("mm.csv")
    assert "column 'nr' counts up from 1 to 8" in refused(capsys, "combine", "mm.csv", *MEAN)


@pytest.mark.parametrize("name", ["y", "Target", "label"])
def test_a_column_of_answers_is_asked_for(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mm.csv").write_text(f"{name},a,b\n1,0.2,0.4\n0,0.6,0.8\n")
    message = refused(capsys, "combine", "mm.csv", *MEAN)
    assert f"column {name!r} is called as answers are; if it holds them, say --label {name}" in message
    assert run(capsys, "combine", "mm.csv", *MEAN, "--columns", "a,b")[0] == 0


VOTES = """wine,logit,tree,nb
w0,red,red,white
w1,white,red,white
w2,rose,rose,red
w3,red,red,red
w4,rose,rose,rose
"""


def test_votes_are_blended_by_majority(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text(VOTES)
    message = refused(capsys, "combine", "votes.csv", "--id", "wine")
    assert "name a class of each row, -m weighted_mean --columns logit,tree,nb gives their majority" in message
    call = ("combine", "votes.csv", "--id", "wine", *MEAN, "--columns", "logit,tree,nb")
    for more in ((), ("--apply", "votes.csv")):
        code, _, err = run(capsys, *call, *more, "-o", "out.csv")
        assert code == 0, err
        blend = pl.read_csv("out.csv")
        assert blend["prediction"].to_list() == ["red", "white", "rose", "red", "rose"]
        np.testing.assert_allclose(blend["red"].to_numpy(), np.array([2, 1, 1, 3, 0]) / 3)
    assert run(capsys, "combine", "votes.csv", *MEAN, "--classes", "white,red,rose", "-o", "out.csv")[0] == 0
    assert pl.read_csv("out.csv").columns == ["row", "prediction", "white", "red", "rose"]
    assert "no class" in refused(capsys, "combine", "votes.csv", *MEAN, "--classes", "white,red")


def test_votes_beside_answers_and_gaps_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text(VOTES.replace("nb\n", "target\n"))
    message = refused(capsys, "combine", "votes.csv", "--id", "wine", *MEAN)
    assert "if it holds the answers, say --label target, if all vote, say --columns logit,tree,target" in message
    Path("votes.csv").write_text(VOTES.replace("w1,white", "w1,"))
    assert "member 'logit' has no vote at row 1" in refused(capsys, "combine", "votes.csv", "--id", "wine", *MEAN)
