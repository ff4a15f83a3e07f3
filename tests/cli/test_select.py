"""`kofn select` on real files: what it writes and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, refused, run, write


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_select_keeps_all_columns_and_ids_in_the_order_picked(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    pool = write(make_pool(), folder / f"pool{suffix}")
    out = folder / f"picks{suffix}"
    code, text, err = run(capsys, "select", pool, "--text", "body", "-k", 8, "--id", "key", "-o", out)
    assert (code, err) == (0, ""), err
    assert "picked 8 of 60" in text
    read: Any = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}
    picks = pl.read_csv(out, separator="\t") if suffix == ".tsv" else read[suffix](out)
    whole = make_pool()
    names = whole.columns if suffix in (".parquet", ".jsonl") else whole.drop("emb").columns
    assert picks.columns == [*names, "rank", "gain"]
    assert picks["rank"].to_list() == list(range(1, 9))
    assert picks["gain"].is_sorted(descending=True)
    assert whole.filter(pl.col("key").is_in(picks["key"].to_list()))["tokens"].sum() == picks["tokens"].sum()


@pytest.mark.parametrize(
    "how", [("--vectors", "emb"), ("--columns", "age,lang,tokens"), ("--text", "body"), ("--score", "score")]
)
def test_every_way_to_compare_rows(folder: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, str]) -> None:
    pool = write(make_pool(), folder / "pool.parquet")
    code, text, err = run(capsys, "select", pool, *how, "-k", 5, "--json")
    assert code == 0, err
    answer = json.loads(text)
    assert len(set(answer["picks"])) == answer["picked"] == 5


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_npy_and_npz_answer_like_the_library(folder: Path, capsys: pytest.CaptureFixture[str], kind: type) -> None:
    import kofn

    X = np.random.default_rng(1).normal(size=(50, 4)).astype(kind)
    np.save("pool.npy", X)
    np.savez("pool.npz", X=X, label=np.arange(50))
    want = kofn.select(X, k=6).indices.tolist()
    for file in ("pool.npy", "pool.npz"):
        named = ["--vectors", "X"] if file.endswith("npz") else []
        code, text, err = run(capsys, "select", file, "-k", 6, "--json", *named)
        assert code == 0, err
        assert json.loads(text)["picks"] == want
    assert run(capsys, "select", "pool.npy", "-k", 6, "-o", "picks.csv")[0] == 0
    assert pl.read_csv("picks.csv")["row"].to_list() == want


def test_constraints_hold_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = make_pool()
    pool = write(frame, folder / "pool.csv")
    (folder / "no.txt").write_text("r001\nr002\n")
    asked = ["--budget", 200, "--cost", "tokens", "--quota", "lang=de:2-3", "--quota", "lang=fr:-4"]
    asked += ["--include", "r005,r006", "--exclude", "no.txt", "-o", "picks.csv", "--json"]
    code, text, err = run(capsys, "select", pool, "--text", "body", "--id", "key", *asked)
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert picks["tokens"].sum() <= 200
    assert 2 <= (picks["lang"] == "de").sum() <= 3
    assert (picks["lang"] == "fr").sum() <= 4
    assert picks["key"].to_list()[:2] == ["r005", "r006"]
    assert not {"r001", "r002"} & set(picks["key"].to_list())
    answer = json.loads(text)
    assert answer["used"]["costs"] == picks["tokens"].sum()
    assert answer["picks"] == picks["key"].to_list()


def test_going_on_from_earlier_picks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write(make_pool(), folder / "pool.parquet")
    shared = ["select", pool, "--vectors", "emb", "--id", "key"]
    assert run(capsys, *shared, "-k", 4, "-o", "old.csv", "--plan", "old.npz")[0] == 0
    code, whole, _ = run(capsys, *shared, "-k", 9, "--json")
    assert code == 0
    for old in ("old.csv", "old.npz"):
        code, text, err = run(capsys, *shared, "-k", 9, "--start", old, "--json")
        assert code == 0, err
        assert json.loads(text)["picks"] == json.loads(whole)["picks"]


def test_dedupe_says_how_many_and_never_drops_what_is_included(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X = np.random.default_rng(0).normal(size=(30, 6))
    np.save("pool.npy", np.concatenate([X, X * 2, X[:5]]))
    cosine = ["--metric", "cosine", "--json"]
    code, text, err = run(capsys, "select", "pool.npy", "-k", 30, "--dedupe", 0.999, "--include", "64", *cosine)
    assert code == 0, err
    answer = json.loads(text)
    assert answer["dropped"] == 35
    assert answer["picks"][0] == 64
    assert len({pick % 30 for pick in answer["picks"]}) == 30


def test_columns_named_like_ours_are_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool().with_columns(rank=pl.lit("own")), folder / "pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age", "-k", 3, "-o", "picks.csv")
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert picks["rank"].to_list() == ["own"] * 3
    assert picks["kofn_rank"].to_list() == [1, 2, 3]
    assert "kofn_rank" in text


def test_precomputed_similarity(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    S = np.random.default_rng(0).random((20, 20))
    np.save("sim.npy", S)
    code, text, err = run(capsys, "select", "sim.npy", "-k", 1, "--metric", "precomputed", "--json")
    assert code == 0, err
    assert json.loads(text)["picks"] == [int(S.sum(axis=0).argmax())]


@pytest.mark.parametrize("k", [1, 3])
def test_pools_that_are_small_or_all_alike(folder: Path, capsys: pytest.CaptureFixture[str], k: int) -> None:
    np.save("one.npy", np.ones((1, 4)))
    assert run(capsys, "select", "one.npy", "-k", 1)[0] == 0
    np.save("same.npy", np.ones((3, 4)))
    code, text, err = run(capsys, "select", "same.npy", "-k", k, "--json")
    assert code == 0, err
    assert sorted(json.loads(text)["picks"]) == list(range(k))


def test_k_may_be_the_whole_pool(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age,lang", "-k", 60, "--json")
    assert code == 0, err
    assert sorted(json.loads(text)["picks"]) == list(range(60))


def test_zero_costs_are_free(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool().with_columns(tokens=pl.lit(0)), folder / "pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age", "--budget", 1, "--cost", "tokens", "--json")
    assert code == 0, err
    assert json.loads(text)["picked"] == 60


def test_a_sparse_similarity_on_disk(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scipy import sparse

    rng = np.random.default_rng(0)
    dense = np.where(rng.random((40, 40)) < 0.2, rng.random((40, 40)), 0.0)
    np.save("dense.npy", dense)
    sparse.save_npz("sparse.npz", sparse.csr_array(dense))
    picks = []
    for file in ("dense.npy", "sparse.npz"):
        code, text, err = run(capsys, "select", file, "-k", 5, "--metric", "precomputed", "-o", "picks.csv", "--json")
        assert code == 0, err
        picks.append(json.loads(text)["picks"])
        assert pl.read_csv("picks.csv")["row"].to_list() == picks[-1]
    assert picks[0] == picks[1]
    assert "precomputed" in refused(capsys, "select", "sparse.npz", "-k", 5)
    sparse.save_npz("wide.npz", sparse.csr_array(dense[:20]))
    assert "square" in refused(capsys, "select", "wide.npz", "-k", 5, "--metric", "precomputed")


def test_entries_of_a_table_are_picked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scores = np.array([[1.0, 9.0, 2.0], [8.0, -np.inf, 3.0]])
    np.save(tmp_path / "scores.npy", scores)
    out = tmp_path / "entries.csv"
    code, text, _ = run(
        capsys, "select", tmp_path / "scores.npy", "--scores", "-m", "topk_mask", "-k", 3, "-o", out, "--json"
    )
    assert code == 0
    assert json.loads(text)["picks"] == ["0:1", "1:0", "1:2"]
    frame = pl.read_csv(out)
    assert frame.columns == ["row", "column", "score", "rank", "gain"]
    assert [scores[row, column] for row, column in zip(frame["row"], frame["column"], strict=True)] == [9.0, 8.0, 3.0]
    code, text, _ = run(capsys, "select", tmp_path / "scores.npy", "--scores", "-m", "topk_mask", "--per-item", 1)
    assert "picked 2 of 6 entries" in text


def test_a_committee_is_picked_from_judges_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "judges.csv"
    table.write_text("name,group,j1,j2\na,x,3,2\nb,y,1,\nc,x,2,3\nd,y,0,1\n")
    code, text, _ = run(
        capsys, "select", table, "--rankings", "--id", "name", "-k", 2, "--quota", "group=y:1-", "--json"
    )
    assert code == 0
    said = json.loads(text)
    assert said["method"] == "multiwinner"
    assert len({"b", "d"} & set(said["picks"])) == 1
    both = refused(capsys, "select", table, "--rankings", "--scores", "-k", 2)
    assert "give one of them" in both


def test_ids_are_kept_by_type_and_unknown_ones_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool().with_columns(number=pl.int_range(60) * 10), folder / "pool.csv")
    call = ["select", "pool.csv", "--columns", "age", "-k", 3, "--json"]
    code, text, err = run(capsys, *call, "--id", "number", "--include", "590,0")
    assert code == 0, err
    assert json.loads(text)["picks"][:2] == [590, 0]
    assert "names 5" in refused(capsys, *call, "--id", "number", "--include", "5")
    assert "the ids are whole numbers" in refused(capsys, *call, "--id", "number", "--include", "r001")
    assert "say which column holds the ids with --id" in refused(capsys, *call, "--include", "r001")
    # What was dropped as a duplicate can be named all the same.
    many = ["--id", "number", "--dedupe", 0.5, "--exclude", "10,20,30,40", "--include", "0"]
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "age,tokens", "-k", 2, "--json", *many)
    assert code == 0, err
    assert json.loads(text)["picks"][0] == 0


def labelled_pool(folder: Path) -> Path:
    """Three far groups of rows, and a fourth class of one row."""
    rng = np.random.default_rng(0)
    centre = np.repeat([0.0, 10.0, 20.0], 20)
    frame = pl.DataFrame({"a": centre + rng.normal(size=60), "b": rng.normal(size=60)})
    labels = [*np.repeat(["north", "middle", "south"], 20).tolist()[:59], "rare"]
    frame.with_columns(pl.Series("class", labels), w=pl.lit(1.0)).write_csv(folder / "labelled.csv")
    return folder / "labelled.csv"


def test_labels_are_counted_and_do_not_choose_the_method(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = labelled_pool(folder)
    asked = ("select", pool, "--columns", "a,b", "-k", 3)
    without = json.loads(run(capsys, *asked, "--json")[1])
    code, text, err = run(capsys, *asked, "--label", "class", "--json")
    assert (code, err) == (0, "")
    answer = json.loads(text)
    assert answer["picks"] == without["picks"]
    assert answer["classes"] == {"middle": 1, "north": 1, "south": 1, "rare": 0}
    text = run(capsys, *asked, "--label", "class", "--report", "labelled.html")[1]
    assert "picked of class: middle 1, north 1, south 1; none of rare" in text
    assert "no good choice" not in text
    assert "By class: before and after" in (folder / "labelled.html").read_text()


@pytest.mark.parametrize("how", [("-m", "farthest_first"), ("--objective", "log_determinant")])
def test_spreading_methods_are_warned_of_where_rows_are_to_be_labelled(
    folder: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, str]
) -> None:
    asked = ("select", labelled_pool(folder), "--columns", "a,b", "-k", 3, *how)
    assert "is no good choice of rows to label" in run(capsys, *asked, "--label", "class")[1]
    assert "is no good choice of rows to label" not in run(capsys, *asked)[1]


def test_random_picks_of_the_same_size_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = labelled_pool(folder)
    text = run(capsys, "select", pool, "--columns", "a,b", "-k", 6)[1]
    assert "; 6 rows drawn at random: " in text
    answer = json.loads(run(capsys, "select", pool, "--columns", "a,b", "-k", 6, "--json")[1])
    low, high = answer["random_mean_distance"]
    assert 0 < answer["mean_distance"] < high
    assert 0 < low < high
    # Where nothing is compared there is nothing to say.
    assert json.loads(run(capsys, "select", pool, "--score", "a", "-k", 6, "--json")[1])["mean_distance"] is None


def test_rbf_and_its_bandwidth(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("select", labelled_pool(folder), "--columns", "a,b", "-k", 3, "--metric", "rbf")
    code, text, err = run(capsys, *asked, "--objective", "facility_location", "--bandwidth", "0.5")
    assert (code, err) == (0, "")
    assert "facility location(bandwidth=0.5)" in text
    assert "mean euclidean distance to the nearest pick" in text
    assert "metric='rbf'" in refused(capsys, *asked, "-m", "farthest_first")


def test_rows_to_be_labelled_are_typical_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = labelled_pool(folder)

    def method(*asked: Any) -> str:
        return json.loads(run(capsys, "select", pool, "--columns", "a,b", *asked, "--json")[1])["method"]

    assert method("-k", 8, "--classes", 4) == "typiclust"
    assert method("-k", 8, "--classes", 4, "--weight", "w") == "lazy_greedy"
    assert method("-k", 8) == "lazy_greedy"
    # What was asked for is honoured first.
    assert method("-k", 8, "--classes", 4, "--objective", "facility_location") == "lazy_greedy"
    assert method("-k", 8, "--classes", 4, "-m", "farthest_first") == "farthest_first"
    report = folder / "r.html"
    _, text, _ = run(capsys, "select", pool, "--columns", "a,b", "-k", 8, "--classes", 4, "--report", report)
    line = next(line for line in text.splitlines() if line.startswith("to label, 2 rows a class: "))
    assert "points of accuracy over random rows on 6 tables" in line
    # The report says so in place of what is covered.
    page = report.read_text(encoding="utf-8")
    assert line.removeprefix("to label, 2 rows a class: ").split(";")[0] in page
    assert "how much nearer a pick is" not in page
    assert "to label" not in run(capsys, "select", pool, "--columns", "a,b", "-k", 8)[1]
    figures = json.loads(run(capsys, "select", pool, "--columns", "a,b", "-k", 8, "--classes", 4, "--json")[1])
    assert figures["points_over_random"]["sets"] == 6
    assert "--classes 1: give about how many" in refused(
        capsys, "select", pool, "--columns", "a,b", "-k", 8, "--classes", 1
    )


def test_one_judge_is_an_array_of_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.arange(12.0)
    np.save("one.npy", scores)
    np.save("column.npy", scores[:, None])
    said = []
    for name in ("one", "column"):
        code, out, err = run(capsys, "select", f"{name}.npy", "--rankings", "-k", 3, "--json")
        assert code == 0, err
        said.append(out.partition('"indices"')[2])
    assert said[0] == said[1]
