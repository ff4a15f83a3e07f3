"""One array of probabilities that add up to 1 in each row is one model's, with a column a class."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 60)
CHANCES = RNG.dirichlet(np.ones(3), 60) * 0.6 + 0.4 * np.eye(3)[Y]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("forest.npy", CHANCES)
    np.save("test.npy", CHANCES[::-1])
    np.save("y.npy", Y)
    return tmp_path


def test_columns_that_add_up_to_one_are_one_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ("combine", "forest.npy", "--labels", "y.npy", "--apply", "test.npy", "-o", "b.npy", "--json")
    code, out, err = run(capsys, *call)
    assert code == 0, err
    assert (
        "forest.npy: 3 columns that add up to 1 in each row, taken as one model's probabilities of the classes" in err
    )
    answer = json.loads(out)
    assert (answer["loss"], [member["member"] for member in answer["members"]]) == ("log_loss", ["forest"])
    assert answer["value"] == pytest.approx(-np.log(CHANCES[np.arange(60), Y]).mean())
    np.testing.assert_allclose(np.load("b.npy"), CHANCES[::-1])
    named = json.loads(run(capsys, *call[:4], "--classes", "a,b,c", "--json")[1])
    assert named["classes"] == ["a", "b", "c"]


def test_two_columns_of_two_classes_are_one_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = np.where(Y == 2, 0.8, 0.3)
    np.save("two.npy", np.stack([1 - second, second], axis=1))
    np.save("names.npy", np.where(Y == 2, "yes", "no"))
    answer = json.loads(run(capsys, "combine", "two.npy", "--labels", "names.npy", "--json")[1])
    assert len(answer["members"]) == 1
    assert answer["classes"] == ["no", "yes"]


@pytest.mark.parametrize("why", ["numbers are asked for", "sums are others", "more classes"])
def test_other_columns_are_a_model_each(why: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("m.npy", CHANCES * (2 if why == "sums are others" else 1))
    np.save("a.npy", Y + (RNG.random(60) if why == "more classes" else 0))
    more = ("--loss", "rmse") if why == "numbers are asked for" else ()
    code, out, err = run(capsys, "combine", "m.npy", "--labels", "a.npy", "--json", *more)
    assert code == 0, err
    assert "taken as one model's" not in err
    assert len(json.loads(out)["members"]) == 3
