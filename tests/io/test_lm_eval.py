"""Folders that lm-evaluation-harness wrote are tables of scores, whose models are ranked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import refused, run

from kofn.core.checks import InputError
from kofn.io.lm_eval import is_results, score_table

A = {
    "arc": {
        "alias": "arc",
        "acc,none": 0.5,
        "acc_stderr,none": 0.01,
        "acc_norm,none": 0.6,
        "acc_norm_stderr,none": "N/A",
    },
    "mmlu": {"alias": "mmlu", "acc,none": 0.4, "acc_stderr,none": 0.1},
    "mmlu_law": {"alias": " - law", "acc,none": 0.3},
    "wikitext": {"alias": "wikitext", "word_perplexity,none": 12.0, "word_perplexity_stderr,none": "N/A"},
}
B = {
    "arc": {"acc,none": 0.7, "acc_norm,none": 0.5},
    "mmlu": {"acc,none": 0.3},
    "mmlu_law": {"acc,none": 0.2},
    "gsm8k": {"exact_match,strict-match": 0.2, "exact_match,flexible-extract": 0.4},
}
LATER = {"wikitext": {"word_perplexity,none": 8.0}, "arc": {"acc,none": 0.8, "acc_norm,none": 0.5}}
MORE = {
    "higher_is_better": {"wikitext": {"word_perplexity": False}, "arc": {"acc": True, "acc_norm": True}},
    "group_subtasks": {"mmlu": ["mmlu_law"], "arc": []},
}


def dump(folder: Path, model: str, results: dict[str, Any], date: str = "2026-01-01T00-00-00.5", **more: Any) -> Path:
    path = folder / model.replace("/", "__") / f"results_{date}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    run_ = {"results": results, "model_name": model, "n-shot": dict.fromkeys(results, 0), **MORE, **more}
    path.write_text(json.dumps(run_), encoding="utf-8")
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    dump(folder, "org/a", A)
    dump(folder, "org/b", B)
    dump(folder, "org/b", LATER, "2026-02-01T00-00-00.5", **{"n-shot": {"wikitext": 5, "arc": 0}})
    return folder


def test_models_are_rows_and_metrics_of_tasks_columns(results: Path) -> None:
    table = score_table([results])
    rows = {row["model"]: row for row in table.frame.iter_rows(named=True)}
    assert rows.keys() == {"org/a", "org/b"}
    assert rows["org/a"]["arc/acc"] == 0.5
    assert rows["org/b"]["arc/acc"] == 0.8  # the later run's
    assert rows["org/b"]["mmlu/acc"] == 0.3  # which the later run did not measure again
    assert rows["org/a"]["gsm8k/exact_match,strict-match"] is None
    assert rows["org/a"]["wikitext/word_perplexity"] == 12.0
    assert not any("stderr" in name or "alias" in name for name in table.frame.columns)


def test_tasks_of_a_group_count_once_and_each_by_its_first_metric(results: Path) -> None:
    table = score_table([results])
    wanted = {"arc/acc", "mmlu/acc", "wikitext/word_perplexity", "gsm8k/exact_match,strict-match"}
    assert set(table.main) == wanted
    assert "mmlu_law/acc" in table.frame.columns


def test_what_was_not_measured_alike_is_told(results: Path) -> None:
    notes = score_table([results]).notes
    assert score_table([results]).lower == ["wikitext/word_perplexity"]
    assert "wikitext was not measured alike (shots of org/a: 0, org/b: 5)" in notes
    assert not any("arc" in note for note in notes if "alike" in note)


def test_the_command_ranks_the_models(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "combine", results, "-o", tmp_path / "ranking.csv")
    assert code == 0, err
    assert "2 alternatives ranked by 4 judges" in out
    assert "not measured alike" in out
    table = score_table([results])
    table.frame.write_csv(tmp_path / "scores.csv")
    columns = ["--id", "model", "--columns", ",".join(table.main), "--lower", "wikitext/word_perplexity"]
    assert run(capsys, "combine", tmp_path / "scores.csv", *columns, "-o", tmp_path / "same.csv")[0] == 0
    assert pl.read_csv(tmp_path / "ranking.csv").equals(pl.read_csv(tmp_path / "same.csv"))
    assert pl.read_csv(tmp_path / "ranking.csv")["id"].to_list() == ["org/b", "org/a"]
    # Files by name, and a metric of the user's choice.
    files = sorted(results.rglob("*.json"))
    code, out, err = run(capsys, "combine", *files, "--columns", "arc/acc_norm")
    assert "  1. org/a" in out
    assert "did you mean 'arc/acc_norm'" in refused(capsys, "combine", results, "--columns", "arc/acc_nrm")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is no JSON"),
        ("[]", "has no 'results' by task"),
        ('{"results": {"arc": 3}}', "has no 'results' by task"),
        ('{"results": {"arc": {"alias": "arc"}}}', "holds no scores of lm-eval"),
        ('{"results": {"arc": {"acc,none": NaN}}}', "arc acc,none is nan; give finite scores"),
    ],
)
def test_files_of_others_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "results_x.json").write_text(text, encoding="utf-8")
    assert is_results(tmp_path)
    with pytest.raises(InputError, match=fault):
        score_table([tmp_path])


def test_folders_of_checkpoints_are_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert not is_results(tmp_path)
    assert not is_results(tmp_path / "missing")


def test_the_harness_own_writer_is_read(tmp_path: Path) -> None:
    tracker = pytest.importorskip("lm_eval.loggers.evaluation_tracker", reason="lm_eval is not installed")
    for model, scores in (("org/a", A), ("org/b", B)):
        writer = tracker.EvaluationTracker(output_path=str(tmp_path / "out"))
        writer.general_config_tracker.log_experiment_args("hf", f"pretrained={model}", "", None, False)
        writer.save_results_aggregated({"results": scores, "n-shot": dict.fromkeys(scores, 0), **MORE}, None)
    table = score_table([tmp_path / "out"])
    assert sorted(table.frame["model"]) == ["org/a", "org/b"]
    assert "arc/acc" in table.main


def test_models_of_one_name_are_told_apart_by_what_they_were_made_with(tmp_path: Path) -> None:
    def dump_as(folder: str, score: float, args: Any, date: float) -> None:
        more = {"config": {"model_args": args}, "date": date}
        dump(tmp_path / folder, "org/a", {"arc": {"acc,none": score}}, **more)

    dump_as("x", 0.1, "pretrained=org/a,dtype=float16,device=cpu", 3.0)
    dump_as("y", 0.2, {"pretrained": "org/a", "dtype": "float32"}, 2.0)
    dump_as("z", 0.3, "pretrained=org/a,dtype=float16,peft=l/", 1.0)
    dump_as("w", 0.4, "pretrained=org/a,dtype=float16,device=cuda", 0.5)
    table = score_table([tmp_path])
    scores = dict(zip(table.frame["model"], table.frame["arc/acc"], strict=True))
    # The run of 0.4 is of the same model as that of 0.1, and older.
    assert scores == {
        "org/a dtype=float16": 0.1,
        "org/a dtype=float32": 0.2,
        "org/a dtype=float16 peft=l/": 0.3,
    }
    again = [note for note in table.notes if "measured again" in note]
    assert len(again) == 1
    assert again[0].startswith("org/a dtype=float16 was measured again on arc: ")
    assert again[0].index("/x/") < again[0].index("/w/")


def test_files_of_any_name_and_quoted_globs(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = score_table([results]).frame.sort("model")
    for number, file in enumerate(sorted(results.rglob("*.json"))):
        file.rename(file.with_name("results.json" if number == 0 else f"m_{file.name[8:]}"))
    (results / "config.json").write_text('{"results": "none"}', encoding="utf-8")
    assert is_results(results)
    assert score_table([results]).frame.sort("model").select(wanted.columns).equals(wanted)
    code, out, err = run(capsys, "combine", f"{results}/*/")
    assert code == 0, err
    assert "2 alternatives ranked by 4 judges" in out
    assert "no file or folder is called so" in refused(capsys, "combine", f"{tmp_path}/nothing-*")


def test_columns_that_count_or_fall_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "board.csv"
    table.write_text("model,Rank,params,arc,Average\nx,1,7,3,2\ny,2,8,4,3\n", encoding="utf-8")
    out = run(capsys, "combine", table, "--id", "model")[1]
    assert "where lower is: --lower Rank" in out
    assert "params, Average count as judges beside the others; to leave them out: --columns Rank,arc" in out
    assert "count as" not in run(capsys, "combine", table, "--id", "model", "--columns", "params,arc")[1]


@pytest.mark.parametrize("limit", [10, 10.0, 0.1, 500])
@pytest.mark.parametrize("limited_first", [False, True])
def test_a_run_on_a_part_of_the_examples_replaces_no_whole_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: float, limited_first: bool
) -> None:
    dates = ["2026-01-01T00-00-00.5", "2026-02-01T00-00-00.5"]
    part, whole = dates if limited_first else dates[::-1]
    dump(tmp_path, "org/a", {"arc": {"acc,none": 0.5}}, whole, config={"limit": None})
    scores = {"arc": {"acc,none": 0.9}, "gsm8k": {"acc,none": 0.7}}
    dump(tmp_path, "org/a", scores, part, config={"limit": limit})
    dump(tmp_path, "org/b", {"arc": {"acc,none": 0.6}, "gsm8k": {"acc,none": 0.4}}, config={"limit": None})
    table = score_table([tmp_path])
    rows = {row["model"]: row for row in table.frame.iter_rows(named=True)}
    assert rows["org/a"] == {"model": "org/a", "arc/acc": 0.5, "gsm8k/acc": 0.7}
    (again,) = [note for note in table.notes if "measured again" in note]
    assert again.startswith("org/a was measured again on arc: ")
    assert again.index(whole) < again.index(part)
    assert again.endswith(f"(--limit {limit})")
    assert f"gsm8k was not measured alike (limit of org/a: {limit}, org/b: none)" in table.notes
    assert not any(note.startswith("arc was not measured alike") for note in table.notes)
    assert "limit of org/a" in run(capsys, "combine", tmp_path)[1]


def test_of_two_runs_with_a_limit_the_later_counts_and_both_are_told(tmp_path: Path) -> None:
    for month, (score, limit) in enumerate([(0.5, 100), (0.9, 10)], 1):
        date = f"2026-0{month}-01T00-00-00.5"
        dump(tmp_path, "org/a", {"arc": {"acc,none": score}}, date, config={"limit": limit})
    table = score_table([tmp_path])
    assert table.frame["arc/acc"].to_list() == [0.9]
    (note,) = table.notes
    assert note.index("(--limit 10)") < note.index("(--limit 100)")
