"""What a call about a table gets wrong is told in one line, in words of Python, with the nearest name or the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import make_pool

import kofn
from kofn.core.checks import InputError
from kofn.io.reading import COMPRESSED
from kofn.io.tables import SUFFIXES
from kofn.tables.spelling import in_python

POOL = make_pool(40)
BODY = {"text": "body", "k": 3}

SELECT: list[tuple[Any, dict[str, Any], str]] = [
    (POOL, {"text": "bdy", "k": 3}, "X has no column 'bdy'; did you mean 'body'?"),
    (POOL, {**BODY, "quotas": {"lnag": {"de": 1}}}, "X has no column 'lnag'; did you mean 'lang'?"),
    (POOL, {"text": "body", "costs": "tokns", "budget": 3}, "X has no column 'tokns'; did you mean 'tokens'?"),
    (POOL, {"text": "body", "proportional": "lnag", "k": 3}, "X has no column 'lnag'"),
    (POOL, {"text": "body", "each": {"lnag": 1}}, "X has no column 'lnag'"),
    (POOL, {"text": 3, "k": 3}, "text=3: give the name of a column"),
    (POOL, {"vectors": np.zeros((40, 2)), "k": 3}, "vectors that are an array are X itself"),
    (POOL, {"columns": [3], "k": 3}, "columns=[3]: give names of columns"),
    (POOL, {"columns": [], "k": 3}, "columns=[]: give names of columns"),
    (POOL, {**BODY, "vectors": "emb"}, "text and vectors were given together"),
    (
        POOL.drop("emb"),
        {"k": 3},
        "say what the rows are compared by: text=COLUMN (such as key, body, lang) or columns=",
    ),
    (np.zeros((3, 2)), BODY, "text='body' says something of a table, and X is a ndarray; give X as a DataFrame"),
    (None, BODY, "text='body' says something of a table, and X is not given"),
    ([[1.0, 2.0]], {"dedupe": 0.9}, "dedupe=0.9 says something of a table, and X is a list"),
    ({"train": [1], 3: [2]}, BODY, "X is a dict"),
    (POOL, {**BODY, "dedupe": 2}, "dedupe=2: give a number between 0 and 1"),
    (POOL, {"text": "body", "k": "10"}, "k='10': give a whole number, or a share of the rows such as '10%'"),
    (POOL, {"text": "body", "k": "200%"}, "k='200%'"),
    (POOL, {"text": "body", "k": 3.5}, "k=3.5: give a whole number"),
    (POOL, {"text": "body", "k": 300}, "k=300 of 40 items"),
    (POOL, {"text": "body", "k": 300, "cost": "tokens", "budget": 9}, "or leave k out: the budget alone then limits"),
    (POOL, {**BODY, "each": 3}, "each=3: give {column: number}"),
    (POOL, {**BODY, "each": {"lang": 2}}, "k=3 and each lang=2 do not go together"),
    (POOL, {**BODY, "weights": [1, 2]}, "weights has 2 values, X has 40 rows"),
    (POOL, {**BODY, "ids": "key", "id": "key"}, "id and ids are one word"),
    (POOL, {**BODY, "label": "lang", "y": "lang"}, "label and y are one word"),
    (POOL, {**BODY, "quotas": {"de": 1}}, "quotas of 'de' need a column"),
    (POOL, {**BODY, "impute": "x"}, "impute='x': give median, mean or most_frequent"),
    (POOL, {**BODY, "impute": "mean", "drop_empty": True}, "drop_empty and impute both say"),
    (POOL, {**BODY, "cache": "x"}, "cache='x': give True or False"),
    (POOL, {**BODY, "flob": 3}, "select has no argument 'flob'"),
    (POOL, {**BODY, "budget": 30}, "budget and costs belong together"),
    (POOL, {**BODY, "similarity": np.eye(40)}, "similarity does not go with a table of rows"),
    (POOL, {**BODY, "scores": np.zeros((40, 2))}, "scores with one column a bin are the items themselves"),
    (POOL, {**BODY, "queries": "zzz"}, "queries zzz: no row of 'body' shares a word with it"),
    (POOL, {"columns": ["age"], "k": 3, "queries": "red"}, "for columns give an array"),
    (POOL, {**BODY, "ids": "lang"}, "ids must differ"),
    (POOL, {**BODY, "include": [99]}, "include names row 99"),
    (POOL, {**BODY, "ids": "key", "include": ["zz"]}, "include names 'zz', which no row has as its id"),
    (POOL, {**BODY, "classes": 1}, "classes=1: give about how many classes"),
    (POOL, {"vectors": "body", "k": 3}, "X column 'body' at row 0 is "),
    (["a", "b"], {"text": "x", "k": 1}, "text='x' names a column, and X is texts without one"),
    (pl.DataFrame({"a": ["1", "tbd", "2", "3.5"]}), {"columns": ["a"], "k": 1}, "say na='tbd', and drop_empty=True or"),
    (pl.DataFrame({"a": [1, None]}), {"columns": ["a"], "k": 1}, "(impute='median', drop_empty=True)"),
    (
        {"a": [1, None], "t": ["x", "y"]},
        {"text": "t", "costs": "a", "budget": 3},
        "leave such rows out with drop_empty=",
    ),
    ({"x": [float("nan")] * 3}, {"columns": ["x"], "drop_empty": True, "k": 1}, "so drop_empty=True leaves no row"),
    ({"x": [None] * 3}, {"columns": ["x"], "impute": "mean", "k": 1}, "so there is no mean to fill it with"),
    ({"x": [1, None]}, {"columns": ["x"], "drop_empty": True, "include": [1], "k": 1}, "include names row 1, which"),
    ({"x": [1, None]}, {"columns": ["x"], "drop_empty": True, "include": [9], "k": 1}, "include names row 9"),
    (POOL, {"text": "body", "each": {"lang": 0}}, "each['lang']=0: ask for at least 1"),
    (POOL, {"text": "body", "each": {"lang": "2"}}, "each['lang']='2': give a whole number"),
    (["a\ud800", "b"], {"k": 1}, "at row 0 is 'a\\ud800': it holds half of a surrogate pair"),
    (np.array(["b", "a\ud800"]), {"k": 1}, "at row 1 is 'a\\ud800': it holds half of a surrogate pair"),
    ({"t": [["a"], ["b", "\udfff"]]}, {"text": "t", "k": 1}, "column 't' at row 1 is ['b', '\\udfff']: it holds half"),
    ({"t\ud800": ["a", "b"]}, {"text": "t", "k": 1}, "X has a column named 't\\ud800': it holds half"),
    (POOL, {**BODY, "queries": ["red", "\ud800"]}, "column 'queries' at row 1 is '\\ud800': it holds half"),
    (Path("nosuch.csv"), BODY, "nosuch.csv: no such file"),
    ("nosuch.csv", BODY, "nosuch.csv: no such file"),
    (
        {"body": ["a b"] * 5 + ["c d", "e f"]},
        {"text": "body", "dedupe": 0.9, "k": 5},
        "k=5 of 3 rows: dedupe=0.9 dropped 4 near-duplicates of 7 rows; ask for k <= 3 or raise dedupe",
    ),
]
ASSIGN: list[tuple[Any, dict[str, Any], str]] = [
    (POOL, {**BODY, "groups": "lang"}, "groups are no argument of assign"),
    (POOL, {**BODY, "quotas": {"lang": {"de": 1}}}, "quotas does not go with a table"),
    (POOL, {**BODY, "dedupe": 0.9}, "assign has no argument 'dedupe'"),
    (POOL, {"columns": ["age"], "equal": True}, "equal=True makes groups of equal size: say how many with k"),
    (np.zeros((6, 2)), {"equal": True}, "equal=True makes groups of equal size: say how many with k"),
    (np.zeros((6, 2)), {"equal": True, "k": "auto"}, "say how many with k, a number in place of 'auto'"),
    (np.zeros((6, 2)), {"equal": True, "k": 2, "capacity": 3}, "equal=True sets the sizes; leave capacity out"),
    (np.zeros((6, 2)), {"equal": "yes", "k": 2}, "equal='yes': give True or False"),
    (None, {"scores": np.zeros((6, 2)), "equal": True, "k": 3}, "k=3: scores have 2 columns, one a bin; leave k out"),
    (POOL, {"columns": ["age"], "k": 3, "sizes": "tokens"}, "sizes needs limits: a bin's sizes add up"),
    (POOL, {"vectors": "emb", "k": 3, "must_link": [["r001", "zz"]], "ids": "key"}, "must_link names 'zz'"),
]


@pytest.mark.parametrize(("X", "words", "fault"), SELECT, ids=range(len(SELECT)))
def test_select_says_what_is_wrong(X: Any, words: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as refusal:
        kofn.select(X, **words)
    line = str(refusal.value)
    assert fault in line, line
    assert "\n" not in line
    assert "--" not in line


@pytest.mark.parametrize(("X", "words", "fault"), ASSIGN, ids=range(len(ASSIGN)))
def test_assign_says_what_is_wrong(X: Any, words: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as refusal:
        kofn.assign(X, **words)
    assert fault in str(refusal.value)
    assert "--" not in str(refusal.value)


def test_streams_and_splits_are_told_apart_from_data_sets() -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install datasets)")
    rows = datasets.Dataset.from_dict(POOL.to_dict(as_series=False))
    with pytest.raises(InputError, match=r"X is a stream, which can be read once only.*SieveStreaming"):
        kofn.select(rows.to_iterable_dataset(), **BODY)
    with pytest.raises(InputError, match=r"X is a dict of splits \(train\); give one of them, as in X\['train'\]"):
        kofn.select(datasets.DatasetDict(train=rows), **BODY)


@pytest.mark.parametrize(
    ("typed", "spelt"),
    [
        ("-k 30 of 25 rows", "k=30 of 25 rows"),
        ("give -k, and no --budget", "give k, and no budget"),
        ("say --metric cosine", "say metric='cosine'"),
        ("or say --decimal , if commas stand", "or say decimal=',' if commas stand"),
        ("--quota lang=de needs 4", "quotas lang=de needs 4"),
        ("--threads 3 and --label", "n_threads=3 and y"),
        ("--no-such-thing-", "--no-such-thing-"),
        ("a well-known --drop-empty, x--y", "a well-known drop_empty=True, x--y"),
    ],
)
def test_flags_are_spelt_as_arguments(typed: str, spelt: str) -> None:
    assert in_python(typed) == spelt


def test_pandas_with_half_of_a_surrogate_pair() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    # With pyarrow, pandas itself takes such text as objects alone.
    texts = pandas.Series(["a", "\ud800"], dtype=object)
    for values in (texts, pandas.Categorical.from_codes([0, 1], categories=pandas.Index(texts))):
        with pytest.raises(InputError, match=r"column 't' at row 1 is '\\ud800': it holds half of a surrogate pair"):
            kofn.select(pandas.DataFrame({"t": values, "x": [1, 2]}), text="t", k=1)


def test_json_lines_with_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"t": "a \\ud83d\\ude00", "x": 1}\n{"t": "b\\ud800", "x": 2}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"t.jsonl: line 2 holds half of a surrogate pair.* at key 't'; take out"):
        kofn.select(path, columns=["x"], k=1)


@pytest.mark.parametrize("suffix", [*SUFFIXES, *COMPRESSED])
def test_every_suffix_that_is_read_makes_a_path_a_table(suffix: str) -> None:
    with pytest.raises(InputError, match=r"nosuch.*: no such file"):
        kofn.select(f"nosuch{suffix}", columns=["x"], k=1)
