"""Rows about queries: real one-line docstrings of the standard library, judged by their words."""

from __future__ import annotations

import ast
import html
import math
import re
import sysconfig
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from command_line import refused, run

import kofn
from kofn.core.checks import InputError
from kofn.io.words import bm25
from kofn.selection import marginal_relevance

ABOUT = {
    "temporary file": r"temp|file",
    "HTTP request": r"http|request",
    "time zone": r"time|zone|tz",
    "socket server": r"socket|server",
}


@pytest.fixture(scope="module")
def docstrings() -> list[str]:
    lines: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                line = (ast.get_docstring(node) or "").split("\n", 1)[0].strip()
                if 20 < len(line) < 160:
                    lines[line] = None
    return list(lines)


@pytest.mark.parametrize("query", ABOUT)
def test_eight_of_ten_picks_are_about_the_query_and_none_repeats(
    query: str, docstrings: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame({"text": docstrings}).write_csv("pool.csv")
    Path("q.txt").write_text(query + "\n")
    code, text, err = run(
        capsys, "select", "pool.csv", "--text", "text", "--queries", "q.txt", "-k", "10", "-o", "o.csv"
    )
    assert code == 0, err
    assert "marginal_relevance" in text
    picks = pl.read_csv("o.csv")["text"].to_list()
    about = [bool(re.search(ABOUT[query], pick, re.IGNORECASE)) for pick in picks]
    chance = np.mean([bool(re.search(ABOUT[query], line, re.IGNORECASE)) for line in docstrings])
    assert sum(about) >= 8, picks
    assert chance < 0.4
    said = [set(re.findall(r"\w+", pick.lower())) for pick in picks]
    likeness = [len(a & b) / len(a | b) for i, a in enumerate(said) for b in said[:i]]
    assert max(likeness) < 0.8


def test_sparse_and_dense_rows_give_the_same_picks() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((60, 12)) * (rng.random((60, 12)) < 0.3)
    queries = X[:2] + 0.1
    dense = kofn.select(X, k=8, queries=queries)
    sparse = kofn.select(sp.csr_array(X), k=8, queries=sp.csr_array(queries))
    assert dense.method == sparse.method == "marginal_relevance"
    assert dense.indices.tolist() == sparse.indices.tolist()
    np.testing.assert_allclose(dense.gains, sparse.gains)
    assert kofn.select(X, k=5, queries=queries).indices.tolist() == dense.indices[:5].tolist()
    ranked = marginal_relevance(X, k=60, queries=queries[:1], balance=1.0)
    assert (np.diff(ranked.info["relevance"]) <= 1e-9).all()
    assert (
        kofn.select(X, k=3, queries=queries, objective="facility_location_mutual_information").method == "lazy_greedy"
    )


def test_rows_with_all_words_of_a_query_come_before_short_rows_with_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [f"how the {i} layers of a neural network learn {i} times" for i in ("four", "five", "six")]
    other = [f"the {word} on the {word} table" for word in ("cat", "dog", "hat", "ant", "pan")]
    pool_of(["network helpers", "famous network", "layer cake", *whole, *other])
    asked = ("select", "pool.csv", "--text", "text", "--queries", "neural network layers", "-k", "3", "-o", "o.csv")
    code, text, err = run(capsys, *asked)
    assert code == 0, err
    assert "by BM25" in text
    assert set(pl.read_csv("o.csv")["text"]) == set(whole)
    code, text, err = run(capsys, *asked, "--relevance", "cosine")
    assert code == 0, err
    assert "TF-IDF" in text


def test_bm25_is_the_published_score() -> None:
    texts = ["A cat and a cat.", "the dog", "a dog and the cat", "birds"]
    weights, wanted = bm25(pl.Series(texts), pl.Series(["cat dog", "fish"]))
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    for query, column in zip((["cat", "dog"], ["fish"]), (weights @ wanted.T).toarray().T, strict=True):
        for row, score in zip(words, column, strict=True):
            want = 0.0
            for word in query:
                having = sum(word in other for other in words)
                rarity = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
                length = 0.25 + 0.75 * len(row) / np.mean([len(other) for other in words])
                want += rarity * row.count(word) * 2.2 / (row.count(word) + 1.2 * length)
            assert score == pytest.approx(want)
    # Without spaces it is pairs of characters that tell words apart.
    weights, wanted = bm25(pl.Series(["\u6570\u636e\u5e93", "\u636e\u6570", "\u732b"]), pl.Series(["\u6570\u636e"]))
    scores = (weights @ wanted.T).toarray()[:, 0]
    assert scores[0] > scores[1] > scores[2] == 0


def matches(texts: list[str], query: str) -> list[int]:
    """The texts that score for a query."""
    weights, wanted = bm25(pl.Series(texts), pl.Series([query]))
    return np.flatnonzero((weights @ wanted.T).toarray()[:, 0]).tolist()


def test_plurals_and_forms_of_verbs_match_their_words() -> None:
    texts = ["the font", "Fonts", "a box", "boxes", "a class", "matrices", "cache", "parse", "querying", "sorted rows"]
    for query, rows in (
        ("fonts", [0, 1]),
        ("font", [0, 1]),
        ("box", [2, 3]),
        ("classes", [4]),
        ("matrix", [5]),
        ("caches", [6]),
        ("parsing", [7]),
        ("queries query", [8]),
        ("sort", [9]),
    ):
        assert matches(texts, query) == rows, query
    # Only a word that is there is one that others are forms of, and other scripts and short words stay as they are.
    assert matches(["a new bus", "the news", "string", "css"], "bu str cs") == []
    assert matches(["caf\u00e9", "caf\u00e9s"], "caf\u00e9") == [0]


def test_words_of_grammar_do_not_count_beside_others() -> None:
    texts = ["how to do this between meals", "shortest path of nodes", "the cat and the dog", "formats such as PNG"]
    assert matches(texts, "how do I compute the shortest path between two nodes") == [1]
    assert matches(texts, "images such as PNG and JPEG") == [3]
    # Alone they are what is asked for, also beside words that no text has.
    assert matches(texts, "the who") == [2]
    assert matches(texts, "between zebras") == [0]
    # Texts in other languages use the same letters for words of content.
    assert matches(["un but superbe", "chaise d'or", "la table", "le chat"], "but or table") == [0, 1, 2]


def test_products_are_shares_of_the_best_row() -> None:
    X = np.array([[4.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.1]])
    for scale in (1.0, 1e300):
        plan = marginal_relevance(X * scale, k=2, queries=[[1.0, 0.0], [0.0, 1.0]], relevance="product")
        assert plan.indices.tolist() == [0, 2]
        assert plan.info["relevance"].tolist() == [1.0, 1.0]


def test_what_queries_must_be() -> None:
    X = np.random.default_rng(0).random((9, 3))
    for options, says in (
        ({}, "marginal_relevance needs queries"),
        ({"queries": np.ones((1, 2))}, "queries have 2 columns, X has 3"),
        ({"queries": X[:1], "balance": 2}, "balance"),
        ({"queries": X[:1], "relevance": "dot"}, "relevance='dot': choose one of cosine, product"),
    ):
        with pytest.raises(InputError, match=says):
            kofn.select(X, k=2, method="marginal_relevance", options=options)
    with pytest.raises(InputError, match="exclude leaves 1 of 9 items"):
        kofn.select(X, k=3, queries=X[:1], exclude=range(8))


def pool_of(texts: list[str], **columns: list[str]) -> None:
    pl.DataFrame({"text": texts, **columns}).write_csv("pool.csv")


NAMES = ["mend the socket", "open a socket server", "socket server", "socket server", "read a file", "write a file"]


def test_a_query_may_be_a_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool_of(NAMES)
    code, text, err = run(capsys, "select", "pool.csv", "--text", "text", "--queries", "socket server", "-k", "3")
    assert code == 0, err
    assert "first picks: 2, 1, 0" in text, "the repeat of row 2 waits"
    assert "the best row's being 1: 0.33 to 1.00" in text
    for missing in ("wanted.txt", "wanted.jsonl", "folder/wanted"):
        code, _, err = run(capsys, "select", "pool.csv", "--text", "text", "--queries", missing, "-k", "3")
        assert (code, f"--queries {missing}: no such file" in err) == (2, True), err


def test_rows_about_no_query_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool_of(NAMES)
    code, text, _ = run(capsys, "select", "pool.csv", "--text", "text", "--queries", "socket", "-k", "5")
    assert code == 0
    assert "2 of 5 picks have nothing in common with any query; ask for fewer" in text
    asked = ("--text", "text", "--queries", "socket", "-k", "5", "--time-limit", "1e-9")
    code, text, _ = run(capsys, "select", "pool.csv", *asked)
    assert code == 0
    assert "the rest is picked by their relevance" in text
    assert "nothing in common with any query\n" in text, "of a search that was stopped nothing is advised"
    code, _, err = run(capsys, "select", "pool.csv", "--text", "text", "--queries", "docker", "-k", "3")
    assert code == 2
    assert "no row of 'text' shares a word with it" in err


def test_queries_with_quotas_and_other_constraints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool_of(NAMES, kind=["a", "a", "a", "b", "b", "b"])
    asked = ("select", "pool.csv", "--text", "text", "--queries", "socket server", "-k", "3", "-o", "o.csv")
    for more, want in (
        (("--quota", "kind=b:2-"), {"socket server": 1, "a file": 1}),
        (("--include", "5"), {"write a file": 1, "socket server": 1}),
        (("--exclude", "2,3"), {"open a socket server": 1}),
    ):
        code, text, err = run(capsys, *asked, *more)
        assert code == 0, err
        assert "marginal_relevance" in text
        picks = pl.read_csv("o.csv")["text"].to_list()
        assert len(picks) == 3
        for part, least in want.items():
            assert sum(part in pick for pick in picks) >= least, (more, picks)


def test_several_queries_each_get_their_rows(
    docstrings: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool_of(docstrings)
    Path("q.txt").write_text("\n".join(ABOUT) + "\n")
    code, _, err = run(capsys, "select", "pool.csv", "--text", "text", "--queries", "q.txt", "-k", "12", "-o", "o.csv")
    assert code == 0, err
    picks = pl.read_csv("o.csv")["text"].to_list()
    for pattern in ABOUT.values():
        assert any(re.search(pattern, pick, re.IGNORECASE) for pick in picks)


@pytest.mark.parametrize(
    ("file", "columns", "query", "told"),
    [
        ("pool.csv", ["--text", "body"], "", "--queries '' holds no text; give a text"),
        ("pool.csv", ["--text", "body"], " ", "--queries ' ' holds no text; give a text"),
        ("pool.npy", [], "three", "--queries 'three': no such file; the rows have no texts"),
        ("pool.npy", [], "", "--queries '': no such file; the rows have no texts"),
    ],
)
def test_queries_that_are_none_are_told_so(
    file: str, columns: list[str], query: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pool.csv").write_text("body\nred car\nblue bus\nslow train\n")
    np.save(folder / "pool.npy", np.eye(4))
    assert told in refused(capsys, "select", file, *columns, "--queries", query, "-k", "2")


def test_the_report_tells_queries_as_they_were_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.csv").write_text("doc\na temporary file\nthe time zone\na socket server\n")
    page = tmp_path / "r.html"
    call = ("select", tmp_path / "d.csv", "--text", "doc", "--queries", "time zone", "-k", 2, "--report", page)
    code, _, err = run(capsys, *call)
    assert code == 0, err
    text = page.read_text()
    assert "matrix" not in text
    assert "option queries" not in text
    assert "--queries 'time zone'" in html.unescape(text)
