"""A table in Python is answered as the command answers its file: the same picks, door by door and kind by kind."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, run, write
from frames import KINDS

import kofn
from kofn.core.plans import Plan

N = 90
QUERIES = ["red car", "moon"]
PAIRS = [["r001", "r002"], ["r003", "r004"], ["r005", "r006"]]


def pool() -> pl.DataFrame:
    frame = make_pool(N)
    some = [label if i % 3 else None for i, label in enumerate(frame["lang"].to_list())]
    gaps = [None if i % 11 == 0 else age for i, age in enumerate(frame["age"].to_list())]
    repeated = frame["body"].to_list()
    repeated[7] = repeated[3]
    repeated[20] = repeated[3].upper()
    size = [f"s{i % 4}" for i in range(N)]
    return frame.with_columns(
        pl.Series("body", repeated),
        pl.Series("some", some),
        pl.Series("gaps", gaps),
        pl.Series("size", size),
        pl.Series("price", [f"{i * 7 % 23},5" for i in range(N)]),
    )


# What is asked of select: the words of Python, and the flags of the command.
SELECT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text": ({"text": "body", "k": 5}, ["--text", "body", "-k", "5"]),
    "vectors": ({"vectors": "emb", "k": 5}, ["--vectors", "emb", "-k", "5"]),
    "the only vectors": ({"k": 5}, ["-k", "5"]),
    "columns": ({"columns": ["age", "lang"], "k": 5}, ["--columns", "age,lang", "-k", "5"]),
    "categories": (
        {"columns": ["age", "tokens"], "categories": "tokens", "k": 4},
        ["--columns", "age,tokens", "--categories", "tokens", "-k", "4"],
    ),
    "metric": ({"vectors": "emb", "metric": "cosine", "k": 5}, ["--vectors", "emb", "--metric", "cosine", "-k", "5"]),
    "score": ({"scores": "score", "k": 5}, ["--score", "score", "-k", "5"]),
    "score of text": (
        {"text": "body", "score": "score", "dedupe": 0.9, "k": 5},
        ["--text", "body", "--score", "score", "--dedupe", ".9", "-k", "5"],
    ),
    "scores": (
        {"columns": ["age", "score"], "scores": True, "k": 5, "method": "topk_mask"},
        ["--columns", "age,score", "--scores", "-k", "5", "-m", "topk_mask"],
    ),
    "rankings": (
        {"columns": ["age", "score", "tokens"], "rankings": True, "k": 5},
        ["--columns", "age,score,tokens", "--rankings", "-k", "5"],
    ),
    "a device": (
        {"vectors": "emb", "k": 5, "device": "torch:cpu"},
        ["--vectors", "emb", "-k", "5", "--device", "torch:cpu"],
    ),
    "budget": (
        {"text": "body", "budget": 90, "costs": "tokens", "ids": "key"},
        ["--text", "body", "--budget", "90", "--cost", "tokens", "--id", "key"],
    ),
    "quotas": (
        {"text": "body", "quotas": {"lang": {"de": (2, None), "fr": (None, 1)}}, "k": 6},
        ["--text", "body", "--quota", "lang=de:2-", "--quota", "lang=fr:-1", "-k", "6"],
    ),
    "quotas of two columns": (
        {"text": "body", "quotas": {"lang": {"de": (2, None)}, "size": {"s1": 2}}, "k": 6},
        ["--text", "body", "--quota", "lang=de:2-", "--quota", "size=s1:2", "-k", "6"],
    ),
    "quotas of groups": (
        {"text": "body", "groups": "lang", "quotas": {"de": (2, None)}, "k": 6},
        ["--text", "body", "--group", "lang", "--quota", "lang=de:2-", "-k", "6"],
    ),
    "shares": (
        {"vectors": "emb", "quotas": {"lang": {"de": (0.5, None)}}, "k": 6},
        ["--vectors", "emb", "--quota", "lang=de:50%-", "-k", "6"],
    ),
    "proportional": (
        {"vectors": "emb", "proportional": "lang", "k": 9},
        ["--vectors", "emb", "--proportional", "lang", "-k", "9"],
    ),
    "each": ({"vectors": "emb", "each": {"lang": 2}}, ["--vectors", "emb", "--each", "lang=2"]),
    "share of rows": ({"vectors": "emb", "k": "10%"}, ["--vectors", "emb", "-k", "10%"]),
    "dedupe": ({"text": "body", "dedupe": 0.9, "k": 5}, ["--text", "body", "--dedupe", "0.9", "-k", "5"]),
    "dedupe columns": (
        {"columns": ["lang", "size"], "dedupe": 1, "k": 5},
        ["--columns", "lang,size", "--dedupe", "1", "-k", "5"],
    ),
    "include": (
        {"vectors": "emb", "ids": "key", "include": ["r003"], "exclude": ["r005", "r006"], "k": 5},
        ["--vectors", "emb", "--id", "key", "--include", "r003", "--exclude", "r005,r006", "-k", "5"],
    ),
    "start": (
        {"vectors": "emb", "start": [1, 2], "k": 5},
        ["--vectors", "emb", "--start", "1,2", "-k", "5"],
    ),
    "weights": ({"vectors": "emb", "weights": "score", "k": 5}, ["--vectors", "emb", "--weight", "score", "-k", "5"]),
    "queries": ({"text": "body", "queries": "red car", "k": 4}, ["--text", "body", "--queries", "red car", "-k", "4"]),
    "classes": (
        {"vectors": "emb", "classes": 3, "k": 6, "seed": 1},
        ["--vectors", "emb", "--classes", "3", "-k", "6", "--seed", "1"],
    ),
    "method": (
        {"columns": ["age"], "label": "lang", "method": "ccs", "scores": "score", "k": 9, "n_strata": 3, "seed": 0},
        [
            "--columns",
            "age",
            "--label",
            "lang",
            "-m",
            "ccs",
            "--score",
            "score",
            "-k",
            "9",
            "-O",
            "n_strata=3",
            "--seed",
            "0",
        ],
    ),
    "a round of labels": (
        {"vectors": "emb", "label": "some", "k": 4, "model": "none"},
        ["--vectors", "emb", "--label", "some", "-k", "4", "--model", "none"],
    ),
    "drop empty": (
        {"columns": ["gaps", "lang"], "drop_empty": True, "k": 4},
        ["--columns", "gaps,lang", "--drop-empty", "-k", "4"],
    ),
    "impute": (
        {"columns": ["gaps", "lang"], "impute": "mean", "k": 4},
        ["--columns", "gaps,lang", "--impute", "mean", "-k", "4"],
    ),
    "embedder": (
        {"text": "body", "embedder": "tfidf", "cache": False, "k": 4},
        ["--text", "body", "--embedder", "tfidf", "--no-cache", "-k", "4"],
    ),
    "decimal": (
        {"columns": ["price", "age"], "decimal": ",", "k": 4},
        ["--columns", "price,age", "--decimal", ",", "-k", "4"],
    ),
    "objective": (
        {"vectors": "emb", "objective": "log_determinant", "k": 4},
        ["--vectors", "emb", "--objective", "log_determinant", "-k", "4"],
    ),
    "private": (
        {"text": "body", "private": "red car", "objective": "facility_location_conditional_gain", "k": 4},
        ["--text", "body", "--private", "red car", "--objective", "facility_location_conditional_gain", "-k", "4"],
    ),
    "entries a row may hold": (
        {"columns": ["age", "score", "tokens"], "scores": True, "method": "topk_mask", "per_item": 1},
        ["--columns", "age,score,tokens", "--scores", "-m", "topk_mask", "--per-item", "1"],
    ),
    "entries a column may hold": (
        {"columns": ["age", "score"], "scores": True, "method": "topk_mask", "capacity": 3},
        ["--columns", "age,score", "--scores", "-m", "topk_mask", "--capacity", "3"],
    ),
    "limits": (
        {"vectors": "emb", "k": 5, "max_memory": "600MB", "n_threads": 1, "time_limit": 60},
        ["--vectors", "emb", "-k", "5", "--max-memory", "600MB", "--threads", "1", "--time-limit", "60"],
    ),
    "na": (
        {"columns": ["size"], "na": "s3", "drop_empty": True, "k": 2},
        ["--columns", "size", "--na", "s3", "--drop-empty", "-k", "2"],
    ),
}
ASSIGN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "text": ({"text": "body", "k": 4, "seed": 0}, ["--text", "body", "-k", "4", "--seed", "0"]),
    "vectors": ({"vectors": "emb", "k": 4, "seed": 0}, ["--vectors", "emb", "-k", "4", "--seed", "0"]),
    "auto": (
        {"columns": ["age", "lang"], "k": "auto", "k_max": 4, "seed": 0},
        ["--columns", "age,lang", "-k", "auto", "--k-max", "4", "--seed", "0"],
    ),
    "equal": (
        {"vectors": "emb", "k": 4, "equal": True, "seed": 0},
        ["--vectors", "emb", "-k", "4", "--equal", "--seed", "0"],
    ),
    "scores": (
        {"columns": ["age", "score", "tokens"], "scores": True, "capacity": 40},
        ["--columns", "age,score,tokens", "--scores", "--capacity", "40"],
    ),
    "sense": (
        {"columns": ["age", "score", "tokens"], "scores": True, "sense": "min", "capacity": 40},
        ["--columns", "age,score,tokens", "--scores", "--sense", "min", "--capacity", "40"],
    ),
    "overflow": (
        {"columns": ["age", "score"], "scores": True, "capacity": 30, "overflow": "drop"},
        ["--columns", "age,score", "--scores", "--capacity", "30", "--overflow", "drop"],
    ),
    "reserve": (
        {"columns": ["age", "score"], "scores": True, "capacity": 20, "reserve": 0.5, "sense": "min"},
        ["--columns", "age,score", "--scores", "--capacity", "20", "--reserve", "0.5", "--sense", "min"],
    ),
    "min size": (
        {"vectors": "emb", "k": 4, "min_size": 12, "capacity": 40, "seed": 0},
        ["--vectors", "emb", "-k", "4", "--min-size", "12", "--capacity", "40", "--seed", "0"],
    ),
    "links": (
        {"vectors": "emb", "k": 3, "must_link": PAIRS[:2], "cannot_link": PAIRS[2:], "ids": "key", "seed": 0},
        [
            *("--vectors", "emb", "-k", "3", "--must-link", "FOLDER/together.csv"),
            *("--cannot-link", "FOLDER/apart.csv", "--id", "key", "--seed", "0"),
        ],
    ),
    "sizes": (
        {"columns": ["age", "score"], "scores": True, "sizes": "tokens", "limits": 5000},
        ["--columns", "age,score", "--scores", "--size", "tokens", "--limit", "5000"],
    ),
    "drop empty": (
        {"columns": ["gaps"], "k": 3, "drop_empty": True, "seed": 0},
        ["--columns", "gaps", "-k", "3", "--drop-empty", "--seed", "0"],
    ),
}


# Flags that say where the answer goes, how text is read from a file, what the report shows, how a pool on disk is
# read in parts (`tests/cli/test_select_large.py`), or that a table is to be made a wide one first, as frames do by
# themselves (`tests/cli/test_assign_long.py`).
OF_THE_COMMAND = {
    "--long",
    *("--part-rows", "--work", "--engine", "--address"),
    *("--output", "--report", "--plan", "--json", "--dry-run", "--option", "--dropped", "--export", "--all", "--drop"),
    *("--images", "--delimiter", "--encoding", "--help"),
}


@pytest.mark.parametrize(("verb", "doors"), [("select", SELECT), ("assign", ASSIGN)])
def test_every_flag_of_the_command_has_its_door(verb: str, doors: dict[str, tuple[dict[str, Any], list[str]]]) -> None:
    command = importlib.import_module(f"kofn.cli.{verb}").command
    tested = {word for _, flags in doors.values() for word in flags}
    if verb == "assign":
        # What both commands have is read by one code.
        tested |= {word for _, flags in SELECT.values() for word in flags}
    without = [
        names
        for names in (set(param.opts) for param in command.params if param.param_type_name == "option")
        if not names & (tested | OF_THE_COMMAND)
    ]
    assert not without


@pytest.fixture(scope="module")
def commanded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pool as a file."""
    folder = tmp_path_factory.mktemp("pool")
    write(pool(), folder / "pool.parquet")
    for name, pairs in (("together", PAIRS[:2]), ("apart", PAIRS[2:])):
        (folder / f"{name}.csv").write_text("\n".join(["a,b", *map(",".join, pairs)]), encoding="utf-8")
    return folder


def of_the_command(verb: str, folder: Path, flags: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    flags = [word.replace("FOLDER", str(folder)) for word in flags]
    code, _, err = run(capsys, verb, folder / "pool.parquet", *flags, "--plan", folder / "plan.npz")
    assert code == 0, err
    return Plan.load(folder / "plan.npz")


@pytest.mark.parametrize("door", SELECT)
def test_select_answers_every_kind_as_the_command_does(
    door: str, commanded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, flags = SELECT[door]
    plan = of_the_command("select", commanded, flags, capsys)
    # The command's plan is by row of what was left in the pool, and names the rows of the file.
    rows = plan.picked_ids if "ids" not in words else plan.indices
    for kind in ("polars", "lazy", "columns", "file"):
        ours = kofn.select(KINDS[kind](pool()), **words)
        assert ours.indices.tolist() == list(rows), kind
        assert ours.method == plan.method
        assert math.isclose(ours.value, plan.value) or np.isnan(plan.value)
        assert ours.n == (N * len(words["columns"]) if "scores" in words and words["scores"] is True else N)
        assert np.allclose(ours.gains, plan.gains, equal_nan=True)


@pytest.mark.parametrize("kind", ["pandas", "arrow", "dataset"])
@pytest.mark.parametrize("door", ["text", "vectors", "columns", "budget", "quotas", "dedupe", "drop empty", "each"])
def test_the_kinds_of_other_packages_are_answered_alike(door: str, kind: str) -> None:
    words = SELECT[door][0]
    ours, theirs = kofn.select(pool(), **words), kofn.select(KINDS[kind](pool()), **words)
    assert ours.indices.tolist() == theirs.indices.tolist()
    assert ours.picked_ids.tolist() == theirs.picked_ids.tolist()
    assert ours.value == theirs.value


@pytest.mark.parametrize("door", ASSIGN)
def test_assign_answers_every_kind_as_the_command_does(
    door: str, commanded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, flags = ASSIGN[door]
    plan = of_the_command("assign", commanded, flags, capsys)
    for kind in ("polars", "lazy", "columns", "file"):
        ours = kofn.assign(KINDS[kind](pool()), **words)
        assert ours.method == plan.method
        assert math.isclose(ours.value, plan.value)
        labels = np.full(N, -1)
        # The command names rows by their numbers in the file where it left some out.
        labels[plan.keys(np.arange(plan.n)) if plan.n < N else np.arange(N)] = plan.labels
        assert ours.labels.tolist() == labels.tolist(), kind
        if plan.medoids is not None:
            medoids = plan.keys(plan.medoids) if plan.n < N else plan.medoids
            assert ours.medoids.tolist() == medoids.tolist()


def test_rows_that_are_left_out_keep_their_numbers_and_say_nothing() -> None:
    frame = pool()
    plan = kofn.assign(frame, columns=["gaps"], k=3, drop_empty=True)
    assert np.flatnonzero(plan.labels == -1).tolist() == np.flatnonzero(frame["gaps"].is_null().to_numpy()).tolist()
    assert (np.diff(plan.indptr) == (plan.labels >= 0)).all()
    picks = kofn.select(frame, columns=["gaps"], k=3, drop_empty=True, ids="key")
    assert picks.picked_ids.tolist() == [frame["key"][row] for row in picks.indices.tolist()]
    assert len(picks.ids) == picks.n == N


def test_dedupe_alone_keeps_all_but_near_duplicates_and_says_which() -> None:
    plan = kofn.select(pool(), text="body", dedupe=0.9)
    assert plan.method == "near_duplicates"
    assert plan.complement.tolist() == [7, 20]
    assert plan.info["duplicates"]["of"].tolist() == [3, 3]
    assert plan.take(pool()).height == N - 2


def test_queries_are_texts() -> None:
    several = kofn.select(pool(), text="body", queries=QUERIES, k=4)
    assert several.indices.tolist() == kofn.select(pool(), text="body", queries=tuple(QUERIES), k=4).indices.tolist()
    assert several.indices.tolist() == kofn.select(pool()["body"].to_list(), queries=QUERIES, k=4).indices.tolist()
    assert several.method == "marginal_relevance"
    bodies = several.take(pool()["body"])
    assert all("red" in body or "car" in body or "moon" in body for body in bodies)


@pytest.mark.parametrize("kind", ["list", "tuple", "array", "objects", "polars", "pandas"])
def test_texts_alone_are_compared_as_a_column_of_them(kind: str) -> None:
    texts = pool()["body"].to_list()
    made: Any = {
        "list": lambda: texts,
        "tuple": lambda: tuple(texts),
        "array": lambda: np.array(texts),
        "objects": lambda: np.array(texts, object),
        "polars": lambda: pl.Series(texts),
        "pandas": lambda: pytest.importorskip("pandas", reason="pandas is not installed").Series(texts),
    }[kind]()
    plan = kofn.select(made, k=5)
    assert plan.indices.tolist() == kofn.select(pool(), text="body", k=5).indices.tolist()
    assert list(plan.take(made)) == [texts[row] for row in plan.indices.tolist()]
    groups = kofn.assign(made, k=3, seed=0)
    assert groups.labels.tolist() == kofn.assign(pool(), text="body", k=3, seed=0).labels.tolist()


def test_what_is_known_of_texts_is_given_as_values() -> None:
    frame = pool()
    words = {"groups": frame["lang"], "quotas": {"de": (3, None)}, "weights": frame["score"].to_numpy(), "k": 5}
    plan = kofn.select(frame["body"].to_list(), ids=frame["key"], **words)
    named = kofn.select(frame, text="body", ids="key", groups="lang", quotas={"de": (3, None)}, weights="score", k=5)
    assert plan.picked_ids.tolist() == named.picked_ids.tolist()
    assert plan.used == named.used


def test_a_pandas_index_names_the_rows_of_a_table_too() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(pool().drop("emb").to_dict(as_series=False)).set_index("key")
    plan = kofn.select(frame, text="body", k=4)
    assert plan.picked_ids.tolist() == plan.take(frame).index.tolist()
    assert kofn.select(frame, text="body", k=4, include=["r004"]).picked_ids[0] == "r004"
    assert kofn.select(frame["body"], k=4).picked_ids.tolist() == plan.picked_ids.tolist()
    assert kofn.select(frame, text="body", k=4, ids="key").picked_ids.tolist() == plan.picked_ids.tolist()


def test_a_table_of_numbers_is_compared_as_it_stands_by_the_columns_that_no_word_names() -> None:
    frame = pool().select(pl.col("age") / 10, "score", "tokens", "lang")
    plan = kofn.select(frame, costs="tokens", budget=80, groups="lang", quotas={"de": (1, None)})
    X = frame.select("age", "score").to_numpy()
    lang = frame["lang"].to_numpy()
    plain = kofn.select(X, costs=frame["tokens"].to_numpy(), budget=80, groups=lang, quotas={"de": (1, None)})
    assert plan.indices.tolist() == plain.indices.tolist()
    # Without such words nothing has changed: all columns are the vectors.
    assert kofn.select(frame.select("age", "score"), k=4).indices.tolist() == kofn.select(X, k=4).indices.tolist()


def test_a_plan_says_how_rows_were_compared_in_words_of_python() -> None:
    notes = kofn.select(pool(), text="body", dedupe=0.9, k=3).info["notes"]
    assert notes[0].startswith("compared by TF-IDF of column 'body'")
    assert "dropped 2 near-duplicates" in notes[1]
    assert not any("--" in note for note in notes)


def test_the_answer_can_be_saved_shown_and_reported(tmp_path: Path) -> None:
    frame = pool()
    plan = kofn.select(frame, text="body", dedupe=0.9, k=3, ids="key")
    plan.save(tmp_path / "plan.npz")
    assert Plan.load(tmp_path / "plan.npz").equals(plan)
    assert plan.to_frame()["id"].to_list() == plan.picked_ids.tolist()
    assert plan.report(tmp_path / "why.html", text=frame["body"]).exists()
