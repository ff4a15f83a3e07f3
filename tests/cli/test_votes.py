"""`kofn combine` of tables that hold comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.core.checks import InputError

WINS = "model,A,B,C\nA,0,90,2\nB,60,0,1\nC,8,9,0\n"
VOTES = """question,model_a,model_b,winner,tstamp
1,x,y,model_a,100
2,y,z,tie,101
3,x,z,model_b,102
4,z,y,tie (bothbad),104
5,x,y,model_b,105
6,z,x,model_a,
"""


def answer(capsys: pytest.CaptureFixture[str], *call: Any) -> dict[str, Any]:
    code, text, err = run(capsys, "combine", *call, "--json")
    assert code == 0, err
    read: dict[str, Any] = json.loads(text)
    return read


def test_a_table_of_wins_is_refused_and_ranked_with_its_flag(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wins.csv").write_text(WINS)
    Path("turned.csv").write_text("C,B,model,A\n1,0,B,60\n2,90,A,0\n0,9,C,8\n")
    for file in ("wins.csv", "turned.csv"):
        for more in ((), ("-m", "kemeny"), ("-m", "borda", "--lower", "A")):
            told = refused(capsys, "combine", file, "--id", "model", *more)
            assert "looks like a table of wins" in told
            assert "say --wins" in told
        ranked = answer(capsys, file, "--id", "model", "--wins", "-o", "r.csv")
        assert ranked["ranking"] == ["C", "A", "B"]
        assert (ranked["votes"], ranked["value"], ranked["status"]) == (170, 63, "optimal")
        assert pl.read_csv("r.csv")["id"].to_list() == ["C", "A", "B"]
    judged = answer(capsys, "wins.csv", "--id", "model", "--columns", "A,B,C", "--lower", "A,B,C")
    assert judged["ranking"] == ["C", "B", "A"]
    assert "rankings looks like a table of wins" in refused(
        capsys, "select", "wins.csv", "--id", "model", "--rankings", "-k", 1
    )


def test_wins_are_read_as_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("gap.csv").write_text("model,A,B\nA,,3\nB,1,\n")
    assert answer(capsys, "gap.csv", "--id", "model", "--wins")["ranking"] == ["A", "B"]
    Path("odd.csv").write_text("model,A,B\nA,,many\nB,1,\n")
    assert "column 'B' holds text and no scores" in refused(capsys, "combine", "odd.csv", "--id", "model", "--wins")
    Path("odd.csv").write_text("model,A,B,C\nA,,many,1\nB,1,,2\nC,1,2,\n")
    assert "column 'B' at row 0 is 'many'" in refused(capsys, "combine", "odd.csv", "--id", "model", "--wins")
    assert "give --id COL" in refused(capsys, "combine", "gap.csv", "--wins")
    Path("less.csv").write_text("model,A\nA,0\nB,1\n")
    assert "has a row 'B' and no column" in refused(capsys, "combine", "less.csv", "--id", "model", "--wins")
    assert "leave --columns out" in refused(capsys, "combine", "gap.csv", "--id", "model", "--wins", "--columns", "A,B")
    for flag, value in (("--weights", "1,2"), ("--lower", "A")):
        told = refused(capsys, "combine", "gap.csv", "--id", "model", "--wins", flag, value)
        assert f"{flag} is of judges" in told
    Path("recipe.toml").write_text("members = []\n")
    assert "--wins is of a table of wins" in refused(capsys, "combine", "recipe.toml", "--wins")


def test_a_file_of_votes_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text(VOTES)
    ranked = answer(capsys, "votes.csv", "-o", "r.csv", "--report", "r.html")
    assert ranked["ranking"] == ["z", "x", "y"] or ranked["ranking"] == ["z", "y", "x"]
    assert (ranked["votes"], ranked["ties"], ranked["method"]) == (6, 2, "kemeny")
    assert ranked["value"] == 1
    assert "rated" not in pl.read_csv("r.csv").columns
    named = (
        VOTES.replace("1,x,y,model_a", "1,x,y,x")
        .replace("3,x,z,model_b", "3,x,z,z")
        .replace("5,x,y,model_b", "5,x,y,y")
    )
    Path("named.csv").write_text(named.replace("6,z,x,model_a", "6,z,x,z"))
    pl.read_csv("votes.csv").write_parquet("votes.parquet")
    pl.read_csv("votes.csv").write_ndjson("votes.jsonl")
    for file in ("named.csv", "votes.parquet", "votes.jsonl"):
        assert answer(capsys, file)["standings"] == ranked["standings"]
    shares = answer(capsys, "votes.csv", "-m", "borda")["standings"]
    points = {row["id"]: row["points"] for row in shares}
    assert points == pytest.approx({"x": 1 / 4, "y": 2 / 4, "z": 3 / 4})
    assert all(1 <= row["rank_low"] <= row["rank"] <= row["rank_high"] <= 3 for row in shares)
    code, text, _ = run(capsys, "combine", "votes.csv")
    assert code == 0
    assert "3 alternatives ranked by 6 votes in model_a, model_b, winner (2 of them ties)" in text
    assert json.loads(run(capsys, "combine", "votes.csv", "--dry-run", "--json")[1])["alternatives"] == 3


def test_a_winner_who_is_neither_side_is_told_however_few_rows_there_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("model_a,model_b,winner\ngpt,llama,mistral\n", "left,right,winner\nx,y,z\ny,x,w\n"):
        Path("few.csv").write_text(text)
        told = refused(capsys, "combine", "few.csv")
        assert "which is neither" in told
        assert "name one of them, or say tie" in told
    Path("few.csv").write_text("model_a,model_b,winner\ngpt,llama,tie\n")
    assert answer(capsys, "few.csv", "-m", "borda")["ties"] == 1


def test_winners_losers_and_ties(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("games.csv").write_text("winner,loser,tie\nx,y,0\nz,y,1\nz,x,0\nx,z,\n")
    ranked = answer(capsys, "games.csv")
    assert (ranked["votes"], ranked["ties"]) == (4, 1)
    Path("games.csv").write_text("winner,loser\nx,y\nx,y\ny,z\n")
    assert answer(capsys, "games.csv")["ranking"] == ["x", "y", "z"]


def test_tables_that_are_neither_votes_nor_judges_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("long.csv").write_text("system,judge,score\nx,j1,3\nx,j2,4\ny,j1,2\ny,j2,1\n")
    told = refused(capsys, "combine", "long.csv", "--id", "system")
    assert "one score a row: 'score' of each 'system' by each 'judge'" in told
    assert "--long system,judge,score" in told
    wide = pl.read_csv("long.csv").pivot("judge", index="system", values="score")
    wide.write_csv("wide.csv")
    assert answer(capsys, "wide.csv", "--id", "system")["ranking"] == ["x", "y"]
    Path("hot.csv").write_text("model_a,model_b,winner_model_a\nx,y,1\ny,x,0\nx,z,1\nz,x,1\n")
    assert "no column names the winner" in refused(capsys, "combine", "hot.csv")


def test_boards_with_two_columns_of_text_are_boards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("model,org,base,mmlu,gsm\na,u,a,3,4\nb,u,a,2,1\nc,v,c,1,2\n")
    assert answer(capsys, "board.csv", "--id", "model")["ranking"] == ["a", "b", "c"]
    Path("board.csv").write_text("model,org,mmlu\na,u,3\nb,u,2\nc,v,1\n")
    assert answer(capsys, "board.csv", "--id", "model")["ranking"] == ["a", "b", "c"]


def test_strengths_of_votes_and_names_of_what_stands_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text(VOTES)
    ranked = answer(capsys, "votes.csv", "-m", "bradley_terry", "--prior", 0.1)
    assert ranked["ranking"] == ["z", "y", "x"]
    Path("won.csv").write_text("winner,loser\nx,y\ny,z\nz,y\n")
    assert "never lost to the others (x)" in refused(capsys, "combine", "won.csv", "-m", "bradley_terry")
    Path("apart.csv").write_text("winner,loser\na,b\nb,a\nc,d\nd,c\n")
    assert "parts with no comparison between them" in (
        told := refused(capsys, "combine", "apart.csv", "-m", "bradley_terry")
    )
    assert "a, b; c, d" in told


@pytest.mark.parametrize("columns", ["model_a,model_b", "left,right", "player1,player2", "First model,Second model"])
@pytest.mark.parametrize("winner", ["winner", "label", "y"])
@pytest.mark.parametrize("codes", [("1", "0"), ("1", "2"), ("true", "false"), ("1.0", "")])
def test_a_winner_told_by_a_number_is_no_judge(
    folder: Path, capsys: pytest.CaptureFixture[str], columns: str, winner: str, codes: tuple[str, str]
) -> None:
    yes, no = codes
    Path("v.csv").write_text(f"{columns},{winner}\na,b,{yes}\na,b,{yes}\na,b,{yes}\na,c,{no}\n")
    first, second = columns.split(",")
    if winner == "winner" and codes == ("1", "2"):  # the numbers of the sides, in a column that can mean nothing else
        ranked = answer(capsys, "v.csv")
        assert (ranked["votes"], ranked["source"]) == (4, f"{first}, {second}, winner")
        return
    for more in ((), ("-m", "borda"), ("--id", first)):
        told = refused(capsys, "combine", "v.csv", *more, "-o", "o.csv")
        assert (
            f"v.csv compares {first} and {second} row by row, and no column names the winner: {winner} at row 0 is"
            in told
        )
        assert f"give a column that holds {first}, {second} or tie, or one of the two names" in told
        assert not Path("o.csv").exists()


def test_a_winner_told_by_a_number_beside_names_in_both_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("l,r,winner\na,b,7\nc,a,9\n", "l,r,y\na,b,1\na,b,0\nc,a,1\nd,b,0\n"):
        Path("v.csv").write_text(text)
        assert "compares l and r row by row" in refused(capsys, "combine", "v.csv")


def test_boards_of_passes_with_names_in_two_columns_are_boards(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("board.csv").write_text("model,base,add,sort\na,a,1,1\nb,a,0,1\nc,c,0,0\nd,a,0,0\n")
    assert answer(capsys, "board.csv", "--id", "model")["ranking"][:2] == ["a", "b"]
    Path("board.csv").write_text("model,base,win_rate\na,a,71.5\nb,a,60\nc,c,12\n")
    assert answer(capsys, "board.csv", "--id", "model")["ranking"] == ["a", "b", "c"]


def test_one_side_that_is_always_the_same_is_a_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("v.csv").write_text("model_a,model_b,winner\na,b,a\na,b,model_b\na,c,tie\na,b,b\n")
    ranked = answer(capsys, "v.csv")
    assert (ranked["votes"], ranked["ties"], ranked["ranking"][0]) == (4, 1, "b")


@pytest.mark.parametrize("order", [["model_a", "model_b", "winner"], ["winner", "model_a", "model_b"]])
@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("winners", [["a", "b", "c", "bb", "a"], ["A", "b", "model_b", "bb", "tie"]])
def test_a_stray_winner_is_told_with_its_row(
    folder: Path, capsys: pytest.CaptureFixture[str], order: list[str], score: bool, winners: list[str]
) -> None:
    frame = pl.DataFrame({"model_a": list("abbba"), "model_b": list("bccca"), "winner": winners}).select(order)
    if score:
        frame = frame.with_columns(seconds=pl.Series([3, 1, 4, 1, 5]))
    frame.write_csv("v.csv")
    told = refused(capsys, "combine", "v.csv")
    assert "winner at row 3 is 'bb', which is neither 'b' nor 'c' nor a tie" in told


def test_the_report_of_votes_counts_votes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("votes.csv").write_text(VOTES)
    Path("wins.csv").write_text(WINS)
    for method in ("kemeny", "borda", "bradley_terry", "plackett_luce", "general_preference"):
        more = () if method in ("kemeny", "borda") else ("--prior", 0.1)
        for call, counts in (
            (("votes.csv",), ("6", "2", "3")),
            (("wins.csv", "--id", "model", "--wins"), ("170", "0", "3")),
        ):
            value = answer(capsys, *call, "-m", method, *more, "--report", "r.html", "--plan", "p.json")["value"]
            page = Path("r.html").read_text()
            if method != "general_preference":  # which says that it could not hold out votes or judges
                assert "judge" not in page.split("<body")[1].casefold()
            assert ("0 is full agreement" in page) == (value >= 0)
            assert ("The log-likelihood of the votes is \N{MINUS SIGN}" in page) == (value < 0)
            for count, label in zip(counts, ("votes", "ties", "alternatives"), strict=True):
                assert f'<dt>{label}</dt><dd><span class="figure">{count}</span>' in page
            Path("r.html").unlink()


def test_votes_left_out_are_told_by_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("v.csv").write_text("model_a,model_b,winner\nx,y,x\ny,x,x\nx,x,x\ny,y,\nx,y,\n")
    told = run(capsys, "combine", "v.csv")[1]
    assert "(1 row without a winner left out; 2 rows of an alternative against itself left out)" in told
    ranked = answer(capsys, "v.csv")
    assert (ranked["votes"], ranked["left_out"], ranked["against_itself"]) == (2, 3, 2)


def test_columns_of_lists_beside_names_are_looked_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"model": ["a", "b", "c"], "base": ["a", "a", "c"]}
    frame = pl.DataFrame(names | {"winner_tokens": [[1, 2], [3], [4]], "score": [3.0, 2.0, 1.0]})
    frame.write_parquet("board.parquet")
    ranked = answer(capsys, "board.parquet", "--id", "model", "--columns", "score")
    assert ranked["ranking"] == ["a", "b", "c"]
    assert "compares" not in run(capsys, "combine", "board.parquet", "--id", "model")[2]


def test_sides_and_winners_that_are_numbers_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("v.csv").write_text("model_a,model_b,winner\n1,2,1\n2,3,3\n1,3,3\n")
    told = refused(capsys, "combine", "v.csv")
    assert "if they are judges, call them otherwise" in told
    assert "compares model_a and model_b row by row, and both and winner hold numbers" in told
    with pytest.raises(InputError, match="rankings compares model_a and model_b row by row, and both and winner hold"):
        kofn.combine(rankings=pl.read_csv("v.csv"))
    Path("v.csv").write_text("model_a,model_b,third\n1,2,1\n2,3,3\n1,3,3\n")
    assert answer(capsys, "v.csv")["judges"] == ["model_a", "model_b", "third"]


def test_labels_of_several_people_are_not_blamed_for_a_winner(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [
        ("yes", "yes", "yes"),
        ("no", "yes", "yes"),
        ("no", "no", "no"),
        ("yes", "no", "no"),
        ("yes", "no", "odd"),
    ]
    pl.DataFrame(labels, schema=["label_1", "label_2", "label_3"], orient="row").write_csv("labels.csv")
    assert "'odd'" not in refused(capsys, "combine", "labels.csv")


def test_parts_that_were_never_compared_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wins.csv").write_text("model,a,b,c,d\na,,3,0,0\nb,1,,0,0\nc,0,0,,2\nd,0,0,1,\n")
    code, out, err = run(capsys, "combine", "wins.csv", "--id", "model", "--wins", "-o", "o.csv")
    assert code == 0, err
    assert "never compared with one another, so that their order says nothing: a, b; c, d\n" in out
    Path("board.csv").write_text("1,,2\n2,,1\n,3,\n,1,\n".join(["x,y,z\n", ""]))
    code, out, err = run(capsys, "combine", "board.csv", "-m", "kemeny", "-o", "o.csv")
    assert code == 0, err
    assert "so that their order says nothing: 0, 1; 2, 3\n" in out
    Path("wins.csv").write_text("model,a,b\na,,3\nb,1,\n")
    assert "never compared" not in run(capsys, "combine", "wins.csv", "--id", "model", "--wins", "-o", "p.csv")[1]


def test_a_winner_that_is_one_side_by_name_and_the_other_by_column_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("v.csv").write_text("model_a,model_b,winner\nx,y,tie\nmodel_b,x,model_b\n")
    message = refused(capsys, "combine", "v.csv", "-o", "o.csv")
    assert (
        "the winner of 'model_b' against 'x' is 'model_b', which is the name of an alternative and the word" in message
    )
    assert "write 'first' or 'second' or tie in every row" in message
    assert not Path("o.csv").exists()
    # Another row shows that the winner is called by its column.
    Path("v.csv").write_text("model_a,model_b,winner\nx,y,model_a\nmodel_b,x,model_b\n")
    assert answer(capsys, "v.csv")["ranking"][0] == "x"


def test_models_called_as_sides_are_ranked_as_models_called_otherwise(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("A", "C", "A"), ("B", "A", "A"), ("C", "D", "B"), ("B", "C", "tie"), ("D", "A", "B"), ("A", "B", "A")]
    frame = pl.DataFrame(rows, schema=["model_a", "model_b", "winner"], orient="row")
    frame.write_csv("letters.csv")
    other = pl.col("model_a", "model_b").str.replace_all("(.)", "m$1")
    frame.with_columns(other).write_csv("other.csv")
    expected = [name[1:] for name in answer(capsys, "other.csv", "-m", "borda")["ranking"]]
    assert answer(capsys, "letters.csv", "-m", "borda")["ranking"] == expected
    frame.filter(pl.col("model_a").is_in(["A", "B"]) & pl.col("model_b").is_in(["A", "B"])).write_csv("two.csv")
    assert "write 'model_a' or 'model_b' or tie in every row" in refused(capsys, "combine", "two.csv")
    Path("games.csv").write_text("winner,loser\nb,a\nsecond,first\na,second\n")
    assert answer(capsys, "games.csv")["ranking"] == ["b", "a", "second", "first"]


def test_a_winner_of_unknown_words_is_told_the_known_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("model_a,model_b,winner\nx,y,A wins\ny,z,B wins\n", "left,right,winner\nx,y,left\ny,z,either\n"):
        Path("v.csv").write_text(text)
        message = refused(capsys, "combine", "v.csv")
        first, second = text.split(",")[:2]
        for words in (f"{first}, a, first, ", f"{second}, b, second, ", "both, both bad, ", "draw", "tie"):
            assert words in message
    with pytest.raises(
        InputError, match=r"known are a, first, left, 1 of the first, b, second, right, 2 of the second"
    ):
        kofn.combination.vote_ballots(["x"], ["y"], ["either"])


@pytest.mark.parametrize("cell", ["maybe", "0.5", "2"])
def test_a_tie_that_cannot_be_read_is_no_win(cell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("v.csv").write_text(f"winner,loser,tie\nb,c,\na,b,{cell}\n")
    assert f"tie at row 1 is '{cell}'; say 1, true or tie" in refused(capsys, "combine", "v.csv")


def test_votes_and_scores_of_several_files_are_those_of_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = VOTES.splitlines(keepends=True)
    Path("all.csv").write_text(VOTES)
    for part in range(3):
        Path(f"votes-{part}.csv").write_text(head + "".join(rows[2 * part : 2 * part + 2]))
    whole, parts = answer(capsys, "all.csv"), answer(capsys, "votes-*.csv")
    assert {**parts, "seconds": 0} == {**whole, "seconds": 0}
    assert parts["votes"] == 6
    Path("votes-1.csv").write_text("question,left,right,winner\n1,x,y,left\n")
    assert "votes-1.csv has no column 'model_a', which votes-0.csv has" in refused(capsys, "combine", "votes-*.csv")
    for part, models in enumerate((["a", "b"], ["c", "d"])):
        pl.DataFrame({"model": models, "mmlu": [float(part), 3.0], "arc": [2.0, part + 0.5]}).write_csv(
            f"scores-{part}.csv"
        )
    joined = pl.concat([pl.read_csv(f"scores-{part}.csv") for part in range(2)])
    joined.write_csv("joined.csv")
    whole, parts = (answer(capsys, name, "--id", "model") for name in ("joined.csv", "scores-*.csv"))
    assert parts["ranking"] == whole["ranking"]
    assert len(parts["ranking"]) == 4
    assert "name the column of alternatives with --id" in refused(capsys, "combine", "scores-0.csv", "scores-1.csv")
    joined.head(1).write_csv("scores-1.csv")
    message = refused(capsys, "combine", "scores-*.csv", "--id", "model")
    assert "row 0 is row 0 of scores-0.csv, row 2 is row 0 of scores-1.csv" in message
    assert "--wins is of one table, and 2 were given" in refused(
        capsys, "combine", "scores-0.csv", "scores-1.csv", "--id", "model", "--wins"
    )


COUNTED = "model_a,model_b,winner,{0}\nx,y,model_a,3\ny,z,tie,2\nz,x,model_b,0\nx,z,model_b,4\n"
SPELT = [("x", "y", "model_a")] * 3 + [("y", "z", "tie")] * 2 + [("x", "z", "model_b")] * 4


@pytest.mark.parametrize("name", ["count", "Counts", "weight", "n", "num_votes", "frequency"])
def test_votes_cast_several_times_count_as_so_many_rows(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("counted.csv").write_text(COUNTED.format(name))
    frame = pl.DataFrame(SPELT, schema=["model_a", "model_b", "winner"], orient="row")
    frame.write_csv("rows.csv")
    whole, counted = answer(capsys, "rows.csv"), answer(capsys, "counted.csv")
    assert counted.pop("counted_by") == name
    assert {**counted, "source": ""} == {**whole, "source": ""}
    assert f"(2 of them ties; each row as often as {name} says)" in run(capsys, "combine", "counted.csv")[1]
    with pytest.raises(InputError, match="count them first") as refusal:
        kofn.combine(rankings=pl.read_csv("counted.csv"))
    call = str(refusal.value).split("count them first: ")[1]
    plan = eval(call, {"kofn": kofn, "frame": pl.read_csv("counted.csv")})
    assert plan.to_frame()["id"].to_list()[0] == whole["ranking"][0]


def test_games_have_counts_and_other_columns_are_no_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("games.csv").write_text("winner,loser,tie,count\nx,y,0,5\nz,y,1,0.5\n")
    ranked = answer(capsys, "games.csv")
    assert (ranked["votes"], ranked["ties"], ranked["counted_by"]) == (5.5, 0.5, "count")
    Path("turns.csv").write_text(COUNTED.format("turn"))
    ranked = answer(capsys, "turns.csv")
    assert ranked["votes"] == 4
    assert "counted_by" not in ranked


@pytest.mark.parametrize(("cell", "shown"), [("-1", "-1"), ("", "empty"), ("inf", "inf")])
def test_counts_that_are_none_are_refused(
    cell: str, shown: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("v.csv").write_text(COUNTED.format("count").replace("tie,2", f"tie,{cell}"))
    message = refused(capsys, "combine", "v.csv", "-o", "o.csv")
    assert f"column 'count' at row 1 is {shown}; give how often each vote was cast" in message
    if cell:
        with pytest.raises(InputError, match=f"count at row 1 is {cell}; give how often"):
            kofn.combination.vote_ballots(["x", "y"], ["y", "x"], ["x", "y"], count=[1.0, float(cell)])


def test_a_winner_may_be_the_number_of_a_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = pl.DataFrame({"model_a": ["x", "y", "x", "z"], "model_b": ["y", "z", "z", "x"], "winner": [1, 2, 1, None]})
    named.write_csv("votes.csv")
    ranked = answer(capsys, "votes.csv")
    assert (ranked["votes"], ranked["left_out"], ranked["ranking"]) == (3, 1, ["x", "z", "y"])
    for frame in (named, pd.DataFrame(named.to_dict(as_series=False))):
        with pytest.raises(InputError, match="looks like votes") as refusal:
            kofn.combine(rankings=frame)
        call = str(refusal.value).split("count them first: ")[1]
        assert eval(call, {"kofn": kofn, "frame": frame}).to_frame()["id"].to_list() == ["x", "z", "y"]
    named.with_columns(winner=pl.Series([1, 2, 0, 1])).write_csv("votes.csv")
    assert "(numbers say who won where they are 1 and 2 alone)" in refused(capsys, "combine", "votes.csv")
