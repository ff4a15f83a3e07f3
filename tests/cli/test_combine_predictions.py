"""`kofn combine` of predictions: arrays, tables, answers from columns and files, other rows, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused
from command_line import run as ran

from kofn.combination import ensemble_selection

Call = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run `kofn combine`, which must succeed, and give what it prints."""

    def call(*words: object) -> str:
        code, out, err = ran(capsys, "combine", *words)
        assert code == 0, (out, err)
        return out

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Predictions of two classes by three models, and of other rows, as arrays and as a table."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 90)
    chance = {
        name: 1 / (1 + np.exp(-(2 * y - 1) * size + rng.normal(size=90)))
        for name, size in zip("abc", (2, 1, 0.3), strict=True)
    }
    for name, values in chance.items():
        np.save(f"preds_{name}.npy", values)
        np.save(f"test_{name}.npy", values[:7])
    np.save("y.npy", y)
    names = np.array(["no", "yes"])[y]
    pl.DataFrame({"row": [f"r{i}" for i in range(90)], **chance, "label": names}).write_csv("oof.csv")
    pl.DataFrame(
        {
            f"{model}_{name}": values if name == "yes" else 1 - values
            for model, values in chance.items()
            for name in ("yes", "no")
        }
        | {"label": names}
    ).write_parquet("by_class.parquet")
    return tmp_path


ARRAYS = ("preds_a.npy", "preds_b.npy", "preds_c.npy")


def expected(folder: Path) -> np.ndarray:
    members = [np.load(folder / name) for name in ARRAYS]
    return np.asarray(ensemble_selection(members, y=np.load(folder / "y.npy"), k=2, seed=0).result)


def test_arrays_into_an_array_and_into_a_table(folder: Path, run: Call) -> None:
    done = run(*ARRAYS, "--labels", "y.npy", "--method", "ensemble_selection", "-k", 2, "--seed", 0, "-o", "blend.npy")
    np.testing.assert_array_equal(np.load("blend.npy"), expected(folder))
    assert "of 3 models, blended" in done
    assert "log_loss on rows that did not choose (5 folds): blend" in done
    assert "not surely better than the best model (a alone may do as well)" in done
    run("preds_*.npy", "--labels", "y.npy", "-k", 2, "--seed", 0, "-o", "blend.csv")
    np.testing.assert_allclose(pl.read_csv("blend.csv")["prediction"].to_numpy(), expected(folder))


def test_a_table_with_a_column_a_model(folder: Path, run: Call) -> None:
    done = run("oof.csv", "--id", "row", "--label", "label", "-k", 2, "--seed", 0, "-o", "blend.csv", "--json")
    answer = json.loads(done)
    assert [row["member"] for row in answer["members"]] == ["a", "b", "c"]
    assert answer["held_out"]["folds"] == 5
    written = pl.read_csv("blend.csv")
    assert written["row"].to_list()[:2] == ["r0", "r1"]
    np.testing.assert_allclose(written["prediction"].to_numpy(), expected(folder))


def test_columns_named_after_classes(folder: Path, run: Call) -> None:
    run("by_class.parquet", "--label", "label", "-k", 2, "--seed", 0, "-o", "blend.csv", "--apply", "by_class.parquet")
    written = pl.read_csv("blend.csv")
    assert written.columns == ["row", "no", "yes"]
    np.testing.assert_allclose(written["yes"].to_numpy(), expected(folder))


def test_other_rows_get_the_blend(folder: Path, run: Call, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*ARRAYS, "--label", "y.npy", "-k", "2", "--seed", "0")
    done = run(*words, "--apply", "test_*.npy", "-o", "blend.npy")
    assert "blend of 7 other rows -> blend.npy" in done
    np.testing.assert_allclose(np.load("blend.npy"), expected(folder)[:7])
    few = refused(capsys, "combine", *words, "--apply", "test_a.npy", "--apply", "test_b.npy")
    assert "--apply: " in few


def test_weights_that_vary_by_a_column_and_a_fixed_mean(folder: Path, run: Call) -> None:
    rng = np.random.default_rng(1)
    step, y = np.tile([1, 2], 100), rng.normal(size=200)
    noise = {name: np.where(step == own, 0.1, 1.0) * rng.normal(size=200) for name, own in (("p", 1), ("q", 2))}
    pl.DataFrame({"step": step, **{name: y + off for name, off in noise.items()}, "y": y}).write_csv("h.csv")
    done = run(
        "h.csv", "--label", "y", "--group", "step", "-m", "stacking", "--seed", 0, "--apply", "h.csv", "-o", "o.csv"
    )
    assert "weights are means over 2 parts of the rows" in done
    assert np.abs(pl.read_csv("o.csv")["prediction"].to_numpy() - y).mean() < 0.15
    run(*ARRAYS, "--weights", "2,1,1", "-o", "mean.npy")
    parts = [np.load(folder / name) for name in ARRAYS]
    np.testing.assert_allclose(np.load("mean.npy"), 0.5 * parts[0] + 0.25 * parts[1] + 0.25 * parts[2])


def test_tables_of_one_model_each_are_matched_by_id(
    folder: Path, run: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    y = np.load("y.npy")
    for name in "ab":
        kept = np.arange(90) if name == "a" else np.arange(89, 4, -1)
        pl.DataFrame({"id": kept, "p": np.load(f"preds_{name}.npy")[kept]}).write_csv(f"one_{name}.csv")
    pl.DataFrame({"id": np.arange(90), "truth": y}).write_csv("truth.csv")
    words = ("one_a.csv", "one_b.csv", "--id", "id", "--seed", "0", "-o", "blend.csv")
    run(*words, "--label", "truth.csv")
    members = [np.load("preds_a.npy"), np.where(np.arange(90) < 5, np.nan, np.load("preds_b.npy"))]
    np.testing.assert_allclose(
        pl.read_csv("blend.csv")["prediction"].to_numpy(), ensemble_selection(members, y=y, seed=0).result
    )
    pl.DataFrame({"id": np.arange(80), "truth": y[:80]}).write_csv("truth.csv")
    assert "truth.csv has no answer of 80" in refused(capsys, "combine", *words, "--label", "truth.csv")


REFUSED = {
    "a base": ((*ARRAYS, "--label", "y.npy", "--base", "x"), "--base is not of predictions; leave it out"),
    "k without answers": ((*ARRAYS, "-k", "2"), "-k is of predictions, which are held against answers"),
    "answers among the members": (
        ("preds_a.npy", "y.npy", "--label", "y.npy"),
        "y.npy is --label and among the members",
    ),
    "both kinds": (("preds_a.npy", "oof.csv", "--label", "y.npy"), "give arrays or tables of predictions, not both"),
    "a column of arrays": ((*ARRAYS, "--label", "label"), "--label names a column, arrays have none"),
    "no such column": (("oof.csv", "--label", "lable"), "has no column 'lable'"),
    "no predictions": (("oof.csv", "--label", "label", "--columns", "label"), "label"),
    "other lengths": (("preds_a.npy", "test_b.npy", "--label", "y.npy"), "member 'test_b' has 7 predictions, y has 90"),
    "checkpoints": (("a.safetensors", "--label", "y.npy"), "a.safetensors holds no predictions"),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, "combine", *words)


def test_the_report_is_of_models_and_held_out_rows(folder: Path, run: Call) -> None:
    run(*ARRAYS, "--labels", "y.npy", "--report", "r.html", "--seed", 0)
    text = (folder / "r.html").read_text()
    for said in ("rows that did not choose", "the best model", "the mean of all", "Each model alone"):
        assert said in text
    assert "member 0" not in text
    assert "over all tensors" not in text


def test_a_table_that_may_hold_predictions_says_what_it_is_taken_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "rows are ranked and columns taken as judges; if columns are what models predicted"
    assert note in ran(capsys, "combine", "oof.csv")[2]
    pl.DataFrame({name: np.arange(120.0) % 7 for name in "ab"}).write_csv("bare.csv")
    assert note in ran(capsys, "combine", "bare.csv", "--json")[2]
    pl.DataFrame({"model": ["u", "v"], "arc": [0.1, 0.2], "mmlu": [0.3, 0.1]}).write_csv("board.csv")
    for words in (("board.csv",), ("oof.csv", "--columns", "a,b"), ("oof.csv", "--label", "label")):
        assert note not in ran(capsys, "combine", *words)[2]


def test_predictions_of_unlike_lengths_to_apply_to_are_told_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("test_c.npy", np.zeros(9))
    applied = [word for name in "abc" for word in ("--apply", f"test_{name}.npy")]
    told = refused(capsys, "combine", *ARRAYS, "--label", "y.npy", *applied, "-o", "blend.npy")
    assert "member 'c' has 9 predictions, member 'a' has 7; give predictions of the same rows" in told


def test_models_that_are_right_near_a_row_count_for_it(
    folder: Path, run: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 1, 200), rng.integers(0, 2, 200)
    sure = {"left": np.where(x < 0.5, 0.95, 0.4), "right": np.where(x < 0.5, 0.4, 0.95)}
    hits = {name: rng.random(200) < often for name, often in sure.items()}
    frame = pl.DataFrame(
        {"x": x, **{name: np.where(hit == (y == 1), 0.8, 0.2) for name, hit in hits.items()}, "answer": y}
    )
    frame.write_csv("local.csv")
    frame.drop("answer").head(5).write_csv("new.csv")
    words = ("local.csv", "--label", "answer", "--feature-columns", "x", "--strategy", "ola", "--seed", "0")
    told = json.loads(run(*words, "--json"))
    assert (told["method"], told["strategy"]) == ("dynamic_ensemble_selection", "ola")
    assert [row["member"] for row in told["members"]] == ["left", "right"]
    text = run(*words, "--apply", "new.csv", "-o", "blend.csv")
    assert "strategies: ola, by the" in text
    blend = pl.read_csv("blend.csv")["prediction"].to_numpy()
    side = np.where(frame["x"].to_numpy()[:5] < 0.5, frame["left"].to_numpy()[:5], frame["right"].to_numpy()[:5])
    np.testing.assert_allclose(blend, side)
    assert "--feature-columns is of predictions" in refused(capsys, "combine", "local.csv", "--feature-columns", "x")
    told = refused(capsys, "combine", *ARRAYS, "--label", "y.npy", "--feature-columns", "x")
    assert "--feature-columns names a column, arrays have none" in told
    told = refused(capsys, "combine", "oof.csv", "--label", "label", "-m", "dynamic_ensemble_selection")
    assert "needs X" in told


def test_classes_turned_round_are_told_by_the_flag_and_at_the_end(folder: Path, run: Call) -> None:
    """Columns that are probabilities of the first class by name: worse than one answer for all rows."""
    rng = np.random.default_rng(0)
    y = np.repeat(["benign", "malignant"], 40)
    benign = np.clip(np.where(y == "benign", 0.95, 0.05) + rng.normal(0, 0.02, (3, 80)), 0.001, 0.999)
    pl.DataFrame({"y": y, **dict(zip("abc", benign, strict=True))}).write_csv("turned.csv")
    done = run("turned.csv", "--label", "y", "--seed", 0).rstrip().splitlines()
    assert done[-1].startswith("this blend's log_loss")
    assert "of one answer for all rows" in done[-1]
    better = run("turned.csv", "--label", "y", "--seed", 0, "--classes", "malignant,benign", "-o", "blend.csv")
    assert "this blend's" not in better


def test_a_blend_of_turned_classes_is_written_only_where_the_classes_are_said(
    folder: Path, run: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    y = np.repeat(["no", "yes"], 40)
    no = np.where(y == "no", 0.9, 0.2)
    pl.DataFrame({"y": y, "a": no, "b": no**2}).write_csv("turned.csv")
    call = ("combine", "turned.csv", "--label", "y", "-o", "blend.csv")
    said = refused(capsys, *call)
    assert "blend.csv is not written: every model is higher where the answer is 'no' than where it is 'yes'" in said
    assert "if they are of 'no', say --classes yes,no, and --classes no,yes writes it as it is" in said
    assert not Path("blend.csv").exists()
    for classes in ("no,yes", "yes,no"):
        run(*call[1:], "--classes", classes)
        assert Path("blend.csv").exists()
        Path("blend.csv").unlink()
    # Models that are right are written as ever, and so are those that are no better than chance.
    pl.DataFrame({"y": y, "a": 1 - no, "b": np.tile([0.4, 0.6], 40)}).write_csv("right.csv")
    run("right.csv", "--label", "y", "-o", "blend.csv")
    assert Path("blend.csv").exists()


def test_one_verdict_where_a_model_alone_does_better() -> None:
    from types import SimpleNamespace

    from kofn.cli.combine_predictions import brings

    held_out = {"folds": 5, "blend": 0.3, "best_single": 0.2, "plain_mean": 0.4, "behind": []}
    for over, words in (("worse", "prefer a alone to this blend"), ("alike", "(a alone may do as well)")):
        info = {"loss": "log_loss", "plain_mean": 0.4, "single": [0.2, 0.5]}
        info["held_out"] = {**held_out, "over_single": over, "over_mean": "better"}
        plan = SimpleNamespace(
            info=info, value=0.3, bound=None, sense="min", keys=lambda rows: np.array(["a", "b"])[rows]
        )
        text = "\n".join(brings(plan))  # type: ignore[arg-type]
        assert words in text
        assert ("may do as well" in text) is (over == "alike")


def test_archives_without_a_method_may_be_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        np.savez(f"draws_{name}.npz", mu=np.ones(3))
    code, _, err = ran(capsys, "combine", "draws_a.npz", "draws_b.npz")
    assert code == 2
    assert "draws of posteriors" in err
    assert "--method consensus_monte_carlo" in err


def test_the_order_of_classes_that_arrays_are_taken_in_is_told(folder: Path, run: Call) -> None:
    chances = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 60))
    names = np.array(["cat", "dog", "bird"])[np.arange(60) % 3]
    np.save("o_a.npy", chances[0])
    np.save("o_b.npy", chances[1])
    np.save("names.npy", names)
    words = ("o_a.npy", "o_b.npy", "--label", "names.npy", "--folds", 0, "-o", "out.csv")
    assert "columns taken as bird, cat, dog; else --classes" in run(*words)
    told = json.loads(run(*words, "--json"))
    assert (told["classes"], told["classes_assumed"]) == (["bird", "cat", "dog"], True)
    assert "columns taken" not in run(*words, "--classes", "cat,dog,bird")
    assert "classes_assumed" not in json.loads(run(*words, "--classes", "cat,dog,bird", "--json"))


def test_whose_probability_one_column_is_stands_beside_the_output(folder: Path, run: Call) -> None:
    words = ("oof.csv", "--id", "row", "--label", "label", "--folds", 0, "-o", "out.csv")
    assert "blend of 90 rows (the probability of yes) -> out.csv" in run(*words)
    assert json.loads(run(*words, "--json"))["probability_of"] == "yes"
    numbers = (*ARRAYS, "--label", "y.npy", "--folds", 0, "-o", "out.csv")
    assert "blend of 90 rows -> out.csv" in run(*numbers)
    assert json.loads(run(*numbers, "--json"))["probability_of"] == 1
    by_class = run("by_class.parquet", "--label", "label", "--folds", 0, "--json")
    assert "probability_of" not in json.loads(by_class)


def test_arrays_that_may_be_draws_are_asked_about(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shard in range(3):
        np.save(f"draws_{shard}.npy", np.random.default_rng(shard).normal(size=(20 + shard // 2, 2)))
    code, _, note = ran(capsys, "combine", "draws_0.npy", "draws_1.npy", "-o", "out.npy")
    assert code == 0
    assert note.startswith("note: draws_0.npy, draws_1.npy: taken as predictions of the same rows by one model each")
    assert "--method consensus_monte_carlo" in note
    for ends in ((), ("--dry-run",)):
        told = refused(capsys, "combine", "draws_0.npy", "draws_2.npy", "-o", "out.npy", *ends)
        assert "draws_2.npy has 21 rows, draws_0.npy 20; " in told
        assert "--method consensus_monte_carlo" in told
    assert ran(capsys, "combine", *ARRAYS, "-o", "out.npy")[2] == ""


DRY = {
    "fewer answers": (*ARRAYS, "--label", "short.npy"),
    "answers of three classes": ("three.csv", "--label", "label"),
    "a loss of numbers": (*ARRAYS, "--label", "names.npy", "--loss", "rmse"),
    "classes that are none": (*ARRAYS, "--label", "names.npy", "--classes", "a,b"),
    "more models than there are": (*ARRAYS, "--label", "y.npy", "-k", "7"),
    "no such method": (*ARRAYS, "--label", "y.npy", "-m", "median"),
    "a method of models": (*ARRAYS, "--label", "y.npy", "-m", "ties"),
    "rows of other shape to apply to": (*ARRAYS, "--label", "y.npy", "--apply", "wide.npz"),
}


@pytest.mark.parametrize("words", DRY.values(), ids=DRY)
def test_a_dry_run_refuses_what_the_run_refuses(
    words: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    y = np.load("y.npy")
    np.save("short.npy", y[:50])
    np.save("names.npy", np.array(["no", "yes"])[y])
    wide = np.full((7, 3), 1 / 3)
    np.savez("wide.npz", a=wide, b=wide, c=wide)
    table = pl.read_csv("oof.csv").drop("row")
    table.with_columns(pl.Series("label", ["x", "y", "z"] * 30)).write_csv("three.csv")
    told = refused(capsys, "combine", *words, "-o", "out.csv")
    assert refused(capsys, "combine", *words, "-o", "out.csv", "--dry-run") == told


def _noisy(folder: Path, gaps: bool = False) -> None:
    """Answers and four models of nearly the same worth, of which a blend is no better than the mean."""
    rng = np.random.default_rng(5)
    y = rng.normal(size=80)
    members = {name: (y + rng.normal(size=80)).round(3) for name in "abcd"}
    frame = pl.DataFrame({"row": range(80), "group": ["u", "v"] * 40, "x": rng.normal(size=80), **members, "y": y})
    if gaps:
        frame = frame.with_columns(pl.when(pl.col("row") == 3).then(None).otherwise(pl.col("a")).alias("a"))
    frame.write_csv("noisy.csv")
    frame.drop("y").head(9).write_csv("others.csv")


@pytest.mark.parametrize("gaps", [False, True])
def test_the_printed_advice_is_a_command_that_runs(folder: Path, run: Call, gaps: bool) -> None:
    _noisy(folder, gaps)
    call = (
        "noisy.csv",
        "--label",
        "y",
        "--id",
        "row",
        "--columns",
        "a,b,c,d",
        "--apply",
        "others.csv",
        "-o",
        "out.csv",
    )
    text = next(text for seed in range(40) if "(-m" in (text := run(*call, "--rounds", "3", "--seed", seed)))
    (advice,) = re.findall(r"prefer .*the mean of all \((-m \w+)\) to this blend", text)
    mean = run(*call, *advice.split())
    assert "rmse on these rows: " in mean
    expected = pl.read_csv("others.csv").select(pl.mean_horizontal("a", "b", "c", "d")).to_series().to_numpy()
    assert pl.read_csv("out.csv")["prediction"].to_numpy() == pytest.approx(expected)
    # What other methods' weights may vary over is not in its way, nor are answers needed.
    assert "rmse on these rows: " in run(*call, *advice.split(), "--group", "group")
    assert "rmse on these rows: " in run(*call, *advice.split(), "--feature-columns", "x")
    assert "members" in run(*call, *advice.split(), "--dry-run")
    weighted = json.loads(run(*call, *advice.split(), "--weights", "3,1,0,0", "--json"))
    assert [row["weight"] for row in weighted["members"]] == [0.75, 0.25, 0, 0]
    if not gaps:
        bare = ("others.csv", "--columns", "a,b,c,d", "--id", "row", *advice.split(), "-o")
        run(*bare, "bare.csv")
        run(*bare, "applied.csv", "--apply", "others.csv")
        for file in ("bare.csv", "applied.csv"):
            assert pl.read_csv(file)["prediction"].to_numpy() == pytest.approx(expected)


def test_votes_are_averaged_and_named_beside_the_shares(folder: Path, run: Call) -> None:
    votes = {"p": list("rrgg"), "q": list("rggb"), "s": list("rgbb")}
    pl.DataFrame({**votes, "cls": list("rgbb")}).write_csv("votes.csv")
    run("votes.csv", "--label", "cls", "-m", "weighted_mean", "-o", "named.csv")
    named = pl.read_csv("named.csv")
    assert named.columns == ["row", "prediction", "b", "g", "r"]
    assert named["prediction"].to_list() == ["r", "g", "g", "b"]
    assert named.row(3) == (3, "b", pytest.approx(2 / 3), pytest.approx(1 / 3), 0.0)
    run("votes.csv", "--label", "cls", "-o", "chosen.csv")
    assert set(pl.read_csv("chosen.csv")["prediction"]) <= {"r", "g", "b"}


@pytest.mark.parametrize("method", ["ensemble_selection", "stacking", "dynamic_ensemble_selection"])
def test_the_same_command_gives_the_same_verdict_and_the_report_has_it_on_top(
    folder: Path, run: Call, method: str
) -> None:
    _noisy(folder)
    Path("classes.csv").write_text(Path("oof.csv").read_text())
    of_numbers = ("noisy.csv", "--label", "y", "--columns", "a,b,c,d")
    of_classes = ("classes.csv", "--label", "label", "--columns", "b,c", "--feature-columns", "a")
    call = (*(of_classes if method.startswith("dynamic") else of_numbers), "-m", method)
    first, again = (json.loads(run(*call, "--json")) for _ in range(2))
    assert first["held_out"] == again["held_out"]
    assert first["held_out"] is not None
    text = run(*call, "--report", "r.html")
    (verdict,) = [line for line in text.splitlines() if line.startswith("blends so chosen are")]
    page = Path("r.html").read_text()
    lede = page[: page.index("blends chosen anew by the others")]
    assert verdict.removeprefix("blends so chosen are ").split("(")[0].split(";")[0].strip() in lede
    assert "on rows that did not choose" in lede
