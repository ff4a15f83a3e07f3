"""`kofn assign` on real files: groups, links, routes, their reports, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, refused, run, write
from pages import Reader

import kofn


def test_assign_groups_and_routes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(20, 2)), rng.normal(size=(20, 2)) + 9])
    np.save("points.npy", X)
    code, text, err = run(capsys, "assign", "points.npy", "--k", 2, "-o", "groups.csv", "--seed", 0)
    assert code == 0, err
    groups = pl.read_csv("groups.csv")
    assert groups["medoid"].sum() == 2
    assert groups["group"][:20].n_unique() == groups["group"][20:].n_unique() == 1
    scores = rng.random((12, 3))
    scores[0, 0] = -np.inf
    np.save("scores.npy", scores)
    call = ["assign", "scores.npy", "--scores", "--capacity", 4]
    code, text, err = run(capsys, *call, "--overflow", "reroute", "-o", "routes.csv", "--json")
    assert code == 0, err
    assert pl.read_csv("routes.csv")["bin"].value_counts()["count"].max() <= 4
    assert json.loads(text)["unplaced"] == 0
    assert "bin" in refused(capsys, "assign", "scores.npy", "--scores", "--capacity", 3)


def test_groups_of_bounded_size_and_linked_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    table, together, apart = tmp_path / "t.csv", tmp_path / "together.csv", tmp_path / "apart.csv"
    pl.DataFrame({"id": [f"r{row}" for row in range(60)], "a": X[:, 0], "b": X[:, 1]}).write_csv(table)
    together.write_text("x,y\nr0,r1\nr1,r2\n")
    apart.write_text("x,y\nr0,r3\n")
    call = ["assign", table, "--columns", "a,b", "--id", "id", "--k", 4, "--seed", 0]
    out = tmp_path / "groups.csv"
    code, text, _ = run(
        capsys, *call, "--capacity", 17, "--min-size", 12, "--must-link", together, "--cannot-link", apart, "-o", out
    )
    assert code == 0
    assert text.startswith("constrained_kmeans")
    around = "the groups stand around means, which are no rows; around real examples: -m constrained_kmedoids"
    assert around in text
    assert "medoid" not in pl.read_csv(out).columns
    code, text, _ = run(capsys, *call, "--capacity", 17, "-m", "constrained_kmedoids", "-o", tmp_path / "medoids.csv")
    assert "around means" not in text
    assert pl.read_csv(tmp_path / "medoids.csv")["medoid"].sum() == 4
    assert "around means" not in run(capsys, *call, "--capacity", 17, "-m", "constrained_kmeans")[1]
    group = pl.read_csv(out)["group"].to_numpy()
    sizes = np.bincount(group, minlength=4)
    assert sizes.max() <= 17
    assert sizes.min() >= 12
    assert group[0] == group[1] == group[2] != group[3]
    apart.write_text("x,y\nr2,r0\n")
    said = refused(capsys, *call, "--must-link", together, "--cannot-link", apart)
    assert "must_link joins them" in said
    together.write_text("x,y\nr0,nobody\n")
    assert "names 'nobody' at row 0" in refused(capsys, *call, "--must-link", together)
    together.write_text("x\nr0\n")
    assert "has one column" in refused(capsys, *call, "--must-link", together)


def test_the_number_of_groups_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = np.repeat([[0, 0], [9, 0], [0, 9]], 30, axis=0) + rng.normal(size=(90, 2))
    np.save(tmp_path / "points.npy", X)
    code, text, _ = run(capsys, "assign", tmp_path / "points.npy", "--k", "auto", "--seed", 0)
    assert code == 0
    assert text.startswith("pamk: 90 items in 3 bins")
    assert "average silhouette width by k: 2 (" in text
    assert "structure" not in text
    np.save(tmp_path / "noise.npy", rng.normal(size=(300, 6)))
    code, text, _ = run(capsys, "assign", tmp_path / "noise.npy", "--k", "auto", "--report", tmp_path / "r.html")
    assert "the rows hardly fall into groups; choose k yourself" in text
    assert "Its width shows no structure" in (tmp_path / "r.html").read_text()
    assert "give a whole number or auto" in refused(capsys, "assign", tmp_path / "points.npy", "--k", "many")
    other = refused(capsys, "assign", tmp_path / "points.npy", "--k", "auto", "--method", "pam")
    assert "method='pamk' finds k" in other


def test_a_report_of_groups_shows_ids_texts_and_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = make_pool()
    write(pool, folder / "pool.csv")
    call = ["assign", "pool.csv", "--text", "body", "--id", "key", "--k", 3, "--seed", 0]
    code, text, err = run(capsys, *call, "--capacity", 25, "--min-size", 12, "-o", "g.csv", "--report", "g.html")
    assert code == 0, err
    # Texts are compared by cosine, which has no means: the groups stand around rows.
    assert text.startswith("constrained_kmedoids")
    assert text.endswith("groups -> g.csv\nreport -> g.html\n")
    seen = Reader((folder / "g.html").read_text(encoding="utf-8")).text
    groups = pl.read_csv("g.csv")
    for row in np.flatnonzero(groups["medoid"].to_numpy()).tolist():
        assert pool["body"][row] in seen
        assert f"{pool['key'][row]} {pool['body'][row]} lang {pool['lang'][row]} tokens" in seen
    assert "at least 12 and at most 25, as asked" in seen
    assert "cosine distance" in seen
    assert "kofn" in seen
    code, text, err = run(capsys, *call[:4], "--k", "auto", "--seed", 0, "--report", "auto.html", "--json")
    assert code == 0, err
    assert json.loads(text)["report"] == "auto.html"
    assert f"Why {json.loads(text)['bins']} groups" in (folder / "auto.html").read_text(encoding="utf-8")


def test_a_report_of_groups_shows_images_and_distances(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (30, 4, 5)).astype(np.uint8)
    np.savez("pool.npz", X=rng.normal(size=(30, 3)), images=images)
    call = ["assign", "pool.npz", "--vectors", "X", "--k", 3, "--seed", 0, "--report", "g.html"]
    code, _, err = run(capsys, *call, "--images", "images")
    assert code == 0, err
    assert len(Reader((folder / "g.html").read_text(encoding="utf-8")).named("img")) > 9
    assert "shape (30, 3); give (n, height, width)" in refused(capsys, *call, "--images", "X")
    X = rng.normal(size=(30, 3))
    np.save("far.npy", np.abs(X[:, None] - X).sum(axis=2))
    code, _, err = run(capsys, "assign", "far.npy", "--metric", "precomputed", "--k", 3, "--report", "d.html")
    assert code == 0, err
    assert "Classical scaling" in (folder / "d.html").read_text(encoding="utf-8")


def test_a_report_of_routes_shows_loads_and_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    pl.DataFrame(
        {"key": [f"t{i}" for i in range(20)], "word": [f"word {i}" for i in range(20)]}
        | {f"e{j}": rng.random(20) for j in range(3)}
    ).write_csv("scores.csv")
    call = ["assign", "scores.csv", "--scores", "--columns", "e0,e1,e2", "--id", "key", "--text", "word"]
    code, _, err = run(capsys, *call, "--capacity", 7, "--overflow", "reroute", "--report", "r.html")
    assert code == 0, err
    seen = Reader((folder / "r.html").read_text(encoding="utf-8")).text
    assert "wanted it first" in seen
    code, text, err = run(capsys, *call, "--capacity", 7, "-o", "r.csv")
    assert text.endswith("bins -> r.csv\n")
    assert "Who gave up most" in seen
    assert "word " in seen


def test_assign_refuses_bad_outputs_before_it_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("points.npy", np.eye(4))
    call = ["assign", "points.npy", "--k", 2, "-o"]
    assert "is the input itself" in refused(capsys, *call, "points.npy")
    assert "give a name that ends in" in refused(capsys, *call, "groups.txt")
    assert "there is no folder" in refused(capsys, *call, "none/groups.csv")


def _square(**changed: float) -> Any:
    """Distances of six points on a line, some entries changed: r1c3=9 sets row 1, column 3."""
    points = np.arange(6.0)
    table = np.abs(points[:, None] - points)
    for place, value in changed.items():
        row, column = place[1:].split("c")
        table[int(row), int(column)] = value
    return table


GROUPED = ["--k", 3, "--seed", 0]


BAD_INPUT: dict[str, tuple[Any, list[object], str]] = {
    "asymmetric": (
        _square(r1c3=7.0),
        ["--metric", "precomputed", *GROUPED],
        "distances is not symmetric: (1, 3) is 7 and (3, 1) is 2",
    ),
    "negative": (
        _square(r2c4=-1.0, r4c2=-1.0),
        ["--metric", "precomputed", *GROUPED],
        "distances at row 2, column 4 is -1; give values >= 0",
    ),
    "few points": (
        np.repeat(np.eye(2), 5, axis=0),
        GROUPED,
        "k=3 groups of 10 items, 2 of them distinct; ask for k <= 2",
    ),
    "few distances": (
        np.repeat(np.repeat(1 - np.eye(2), 5, axis=0), 5, axis=1),
        ["--metric", "precomputed", *GROUPED],
        "k=3 groups of 10 items, 2 of them distinct; ask for k <= 2",
    ),
    "small groups": (
        np.arange(20.0).reshape(10, 2),
        ["--capacity", 3, *GROUPED],
        "10 items need a group each, capacity holds 9 in k=3 groups: 1 too few; raise it to 4 a group, or raise k",
    ),
    "small bins": (
        np.arange(20.0).reshape(10, 2),
        ["--scores", "--capacity", 3],
        "10 items need a bin each, capacity holds 6: 4 too few; raise it to 5 a bin, or give a reserve",
    ),
    "large groups": (
        np.arange(20.0).reshape(10, 2),
        ["--min-size", 4, *GROUPED],
        "min_size=4 in each of k=3 groups needs 12 items, there are 10: 2 too few; lower min_size to 3, or lower k",
    ),
    "an empty group": (
        np.arange(20.0).reshape(10, 2),
        ["--must-link", "all.csv", *GROUPED],
        "leave no way into 3 groups of 1 to 10 items",
    ),
    "a cycle": (
        np.arange(20.0).reshape(10, 2),
        ["--must-link", "all.csv", "--cannot-link", "apart.csv", *GROUPED],
        "cannot_link keeps rows 0 and 3 apart, must_link joins them (0-1-2-3): drop one of these pairs",
    ),
    "nowhere to go": (
        np.where(np.arange(10)[:, None] == 4, -np.inf, np.ones((10, 2))),
        ["--scores", "--capacity", 9],
        "item 4 lists no bin, all its scores are -inf or missing (1 such items): it has nowhere to go; list a bin, or",
    ),
    "nowhere to balance": (
        np.where(np.arange(10)[:, None] == 4, -np.inf, np.ones((10, 2))),
        ["--scores", "--method", "balanced_assignment"],
        "item 4 lists no bin, all its scores are -inf or missing (1 such items)",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_assign_says_in_one_line_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    data, arguments, says = BAD_INPUT[name]
    np.save("pool.npy", data)
    Path("all.csv").write_text("x,y\n" + "".join(f"{row},{row + 1}\n" for row in range(9)))
    Path("apart.csv").write_text("x,y\n0,3\n")
    assert says in refused(capsys, "assign", "pool.npy", *arguments, "-o", "groups.csv", "--report", "groups.html")
    assert not Path("groups.csv").exists()
    assert not Path("groups.html").exists()


def test_parts_of_a_graph_without_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = [0.0, 1.0, 2.0, 90.0, 91.0, 92.0]
    pl.DataFrame({"at": place, "class": ["a", "-1", "-1", "-1", "-1", "-1"]}).write_csv("pool.csv")
    call = ["assign", "pool.csv", "--columns", "at", "--label", "class", "-m", "laplacian_shot", "--n-neighbors", 2]
    code, text, err = run(capsys, *call, "--report", "r.html")
    assert code == 0, err
    assert "3 rows lie in parts of the neighbour graph without a label: the prototypes alone placed them" in text
    assert "unreached" in (folder / "r.html").read_text(encoding="utf-8")
    said = refused(capsys, *call, "--unreached", "error")
    assert "the graph of 2 neighbours falls into 2 parts, and 3 rows (row 3 is one) lie in parts without" in said


def test_bins_have_their_columns_names_and_capacities_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = np.random.default_rng(0).random((9, 3))
    names = [f"t{i}" for i in range(9)]
    pl.DataFrame({"item": names} | dict(zip(("ann", "bob", "eli"), scores.T, strict=True))).write_csv("scores.csv")
    call = ["assign", "scores.csv", "--scores", "--id", "item", "--overflow", "drop"]
    code, _, err = run(capsys, *call, "--capacity", "4,2,1", "-o", "routes.csv")
    assert code == 0, err
    routes = pl.read_csv("routes.csv")
    assert routes["id"].to_list() == names
    counts = dict(routes["bin"].value_counts().iter_rows())
    assert counts[None] == 3
    assert all(counts[name] <= most for name, most in (("ann", 4), ("bob", 2), ("eli", 1)))
    assert "one for each bin" in refused(capsys, *call, "--capacity", "4,x")


def test_scores_are_offered_where_no_vectors_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"item": ["a", "b"], "ann": [1.0, 2.0], "bob": [2.0, 1.0]}).write_csv("scores.csv")
    assert "--scores, if the columns are scores" in refused(capsys, "assign", "scores.csv", "--k", 2)
    assert "add --k" in refused(capsys, "assign", "scores.csv", "--columns", "ann,bob", "--capacity", 1)


def test_pairs_without_a_header_are_all_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("points.npy", np.arange(12.0).reshape(6, 2))
    Path("pairs.csv").write_text("0,5\n1,2\n")
    call = ["assign", "points.npy", "--k", 2, "--seed", 0, "--must-link", "pairs.csv"]
    code, _, err = run(capsys, *call, "-o", "groups.csv")
    assert code == 0, err
    group = pl.read_csv("groups.csv")["group"]
    assert group[0] == group[5]
    assert group[1] == group[2]


def test_groups_of_equal_size_of_arrays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal sizes say nothing of a table: arrays, distances and scores have them too."""
    X = np.random.default_rng(0).random((64, 9))
    np.save("X.npy", X)
    far = np.abs(X[:, None] - X[None]).sum(axis=2)
    for given, k in (({"X": X, "k": 3}, 3), ({"X": X.tolist(), "k": 5}, 5), ({"distances": far, "k": 3}, 3)):
        sizes = np.bincount(kofn.assign(**given, equal=True).labels)
        assert sorted({*sizes}) == sorted({64 // k, -(-64 // k)})
    for more in ({}, {"k": 9}):
        assert sorted({*np.bincount(kofn.assign(scores=X, equal=True, **more).labels)}) == [7, 8]
    assert kofn.assign(X, k=3, equal=False).method == "fasterpam"
    for flags in (["-k", 9], ["--scores"], ["--scores", "-k", 9]):
        code, text, err = run(capsys, "assign", "X.npy", "--equal", *flags)
        assert code == 0, err
        assert "sizes from 7 to 8" in text
    said = refused(capsys, "assign", "X.npy", "--equal", "--scores", "-k", 8)
    assert "scores have 9 columns, one a bin; leave --k out" in said
    # In two bins each, the 9 bins share 128 places.
    twice = kofn.assign(scores=X, equal=True, per_item=2)
    assert sorted({*np.bincount(twice.bins)}) == [14, 15]
    code, text, err = run(capsys, "assign", "X.npy", "--equal", "--scores", "--per-item", 2)
    assert code == 0, err
    assert "sizes from 14 to 15" in text


def test_equal_groups(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.csv").write_text("level\n" + "".join(f"{level}\n" for level in range(6) for _ in range(5)))
    code, _, err = run(capsys, "assign", "p.csv", "--columns", "level", "--k", "10", "--equal", "-o", "g.csv")
    assert code == 0, err
    assert sorted(pl.read_csv("g.csv")["group"].value_counts()["count"]) == [3] * 10
    code, _, err = run(capsys, "assign", "p.csv", "--columns", "level", "--k", "7", "--equal", "-o", "g.csv")
    assert code == 0, err
    assert sorted(pl.read_csv("g.csv")["group"].value_counts()["count"]) == [4] * 5 + [5] * 2
    assert "say how many with --k" in refused(capsys, "assign", "p.csv", "--columns", "level", "--equal")
    said = refused(capsys, "assign", "p.csv", "--columns", "level", "--k", "3", "--equal", "--capacity", "10")
    assert "leave --capacity and --min-size out" in said


SCORES = {
    "infinite": "name,a,b,c\nu,-inf,-2,-inf\nv,-inf,-4,-1\nw,-3,-inf,-5\n",
    "empty": "name,a,b,c\nu,,-2,\nv,,-4,-1\nw,-3,,-5\n",
}


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("method", ["auto", "balanced_assignment"])
def test_an_empty_cell_of_a_score_table_is_a_bin_to_avoid(
    kind: str, method: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.csv").write_text(SCORES[kind])
    typed = ("assign", "s.csv", "--scores", "--id", "name", "--capacity", "1", "--method", method, "-o", "r.csv")
    code, out, err = run(capsys, *typed, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert (answer["value"], answer["status"], answer["labels"]) == (-6, "optimal", [1, 2, 0])
    assert pl.read_csv("r.csv")["bin"].to_list() == ["b", "c", "a"]


def test_a_score_table_that_leaves_no_way_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.csv").write_text("name,a,b\nu,,-2\nv,,-4\nw,-3,-1\n")
    said = refused(capsys, "assign", "s.csv", "--scores", "--id", "name", "--capacity", "2,1")
    assert "2 items list no other bins than 'b', whose capacity holds 1: 1 too many" in said
    Path("n.csv").write_text("name,a,b\nu,nan,-2\nv,2,inf\n")
    said = refused(capsys, "assign", "n.csv", "--scores", "--id", "name", "--capacity", "2")
    assert "column 'a' at row 0 is nan; give a finite number, or leave the cell empty" in said
    Path("t.csv").write_text("name,a,b\nu,,-2\nv,1,-4\n")
    code, _, err = run(
        capsys, "assign", "t.csv", "--scores", "--id", "name", "--capacity", "1", "--drop-empty", "-o", "r.csv"
    )
    assert code == 0, err
    assert pl.read_csv("r.csv")["id"].to_list() == ["v"]


def test_unplaced_rows_are_written_and_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.csv").write_text("name,a,b\nu,,-2\nv,,-4\nw,-3,-1\n")
    typed = ("assign", "s.csv", "--scores", "--id", "name", "--capacity", "1", "--overflow", "drop", "-o", "r.csv")
    code, out, err = run(capsys, *typed, "--report", "r.html")
    assert code == 0, err
    assert "2 unplaced" in out
    rows = pl.read_csv("r.csv")
    assert rows["id"].to_list() == ["u", "v", "w"]
    assert rows["bin"].to_list() == [None, None, "b"]


def test_capacities_from_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.csv").write_text("name,north,south\n" + "".join(f"r{i},{9 - i},1\n" for i in range(6)))
    Path("c.csv").write_text("room,seats\nsouth,4\nnorth,2\n")
    typed = ("assign", "s.csv", "--scores", "--id", "name", "--capacity", "c.csv", "-o", "r.csv")
    code, _, err = run(capsys, *typed)
    assert code == 0, err
    assert pl.read_csv("r.csv")["bin"].to_list() == ["north"] * 2 + ["south"] * 4
    Path("p.csv").write_text("x\n" + "".join(f"{i}\n" for i in range(6)))
    Path("g.csv").write_text("group,size\n0,1\n1,5\n")
    rows = ("assign", "p.csv", "--columns", "x", "--k", "2", "--capacity")
    code, _, err = run(capsys, *rows, "g.csv", "-o", "r.csv")
    assert code == 0, err
    assert pl.read_csv("r.csv")["group"].value_counts().sort("group")["count"].to_list() == [1, 5]
    assert "-o c.csv is the input itself" in refused(capsys, *typed[:-1], "c.csv")
    assert "is no bin; the bins are 0, 1" in refused(capsys, *rows, "c.csv")
    for text, says in (
        ("room,seats\nnorth,2\n", "has no row for the bin 'south'; give each bin its capacity"),
        ("room,seats\nnorth,2\nsouth,1\nnorth,4\n", "names 'north' twice; name each bin once"),
        ("room\nnorth\n", "has one column; give two"),
    ):
        Path("c.csv").write_text(text)
        assert says in refused(capsys, *typed)
    assert "give one whole number, or one for each bin" in refused(capsys, *rows, "2,many")


@pytest.mark.parametrize(
    ("more", "unplaced", "dropped", "told"),
    [
        (["--per-item", "2", "--capacity", "2"], 0, 1, "0 unplaced, 1 placement dropped"),
        (["--per-item", "2", "--capacity", "1"], 1, 3, "1 unplaced, 3 placements dropped"),
        (["--per-item", "2", "--capacity", "3"], 0, 0, "0 unplaced\n"),
        (["--capacity", "1"], 2, 2, "2 unplaced\n"),
    ],
)
def test_placements_that_are_dropped_are_counted(
    more: list[str], unplaced: int, dropped: int, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.csv").write_text("item,A,B,C\ni1,1,,0.5\ni2,0.9,0.8,\ni4,0.7,0.1,0.2\n")
    call = ["assign", "t.csv", "--id", "item", "--scores", *more, "--overflow", "drop"]
    code, out, err = run(capsys, *call)
    assert code == 0, err
    counted = json.loads(run(capsys, *call, "--json")[1])
    assert (counted["unplaced"], counted["placements_dropped"]) == (unplaced, dropped)
    assert told in out


@pytest.mark.parametrize(
    ("verb", "more"), [("assign", ["--capacity", "3"]), ("select", ["-m", "topk_mask", "-k", "2"])]
)
def test_one_odd_cell_does_not_take_a_column_of_scores_away(
    verb: str, more: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.csv").write_text("task,A,B\nt1,1,5\nt2,1,x\nt3,2,5\n")
    line = refused(capsys, verb, "s.csv", "--scores", *more)
    assert "s.csv column 'B' at row 1 is 'x', which is not a number" in line
    assert "say --na 'x'" in line
    # What is text, such as keys, is left out and said to be.
    Path("s.csv").write_text("task,A,B,name\n007,1,5,p\n008,1,6,q\n009,2,5,r\n")
    code, out, err = run(capsys, verb, "s.csv", "--scores", *more)
    assert code == 0, err
    assert "not taken as scores, as they are not of numbers: 'task', 'name'" in out


@pytest.mark.parametrize("kind", ["<U3", "S3", "datetime64[D]"])
@pytest.mark.parametrize("words", [["assign", "--scores", "--capacity", 3], ["select", "--rankings", "-k", 1]])
def test_an_array_of_no_numbers_is_no_table_of_scores(
    kind: str, words: list[Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("odd.npy", np.array([["1", "2"], ["3", "4"]]).astype(np.int64).astype(kind))
    verb, *flags = words
    assert "odd.npy" in refused(capsys, verb, "odd.npy", *flags)
