"""Every number flag at zero, below it and far beyond: one line and exit code 2, the same beforehand (`--dry-run`)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

_VALUES = ("0", "-1", "9" * 23)
_X = ("assign", "x.npy")
_SCORES = ("assign", "s.npy", "--scores")
# The call, the flags whose number is drawn, and what stands beside each.
_CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "groups": (
        _X,
        ("--k", "--capacity", "--min-size", "--per-item", "--threads", "--max-memory"),
        ((), ("--equal",), ("--k", "3"), ("--k", "3", "--capacity", "5"), ("--k", "3", "--min-size", "1")),
    ),
    "bins": (
        _SCORES,
        ("--k", "--capacity", "--min-size", "--per-item", "--reserve"),
        ((), ("--equal",), ("--capacity", "5", "--min-size", "1"), ("--capacity", "4", "--overflow", "drop")),
    ),
    "picks": (
        ("select", "x.npy"),
        ("-k", "--budget", "--per-item", "--capacity", "--threads", "--seed", "--part-rows"),
        ((), ("-k", "3")),
    ),
    "scored": (("select", "t.csv", "--score", "a"), ("-k", "--budget"), ((), ("--cost", "c"))),
    "entries": (("select", "s.npy", "--scores"), ("-k", "--per-item", "--capacity"), (("-k", "3"),)),
    "amounts": (("allocate", "curves.csv", "--id", "id"), ("--budget", "--mean-budget"), ((),)),
    "seats": (("allocate", "votes.csv", "--id", "party", "-m", "sainte_lague"), ("--budget",), ((),)),
    "ranking": (("combine", "board.csv", "--id", "m"), ("--weights", "--seed", "--threads", "-k"), ((),)),
}
_TYPED = [
    (*call, *beside, flag, value)
    for call, flags, more in _CALLS.values()
    for flag, beside, value in itertools.product(flags, more, _VALUES)
    if flag not in beside
]


@pytest.fixture
def files(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    np.save("x.npy", rng.normal(size=(12, 2)))
    np.save("s.npy", rng.random((12, 3)))
    pl.DataFrame({"a": rng.random(12), "b": rng.random(12), "c": rng.integers(1, 5, 12)}).write_csv("t.csv")
    pl.DataFrame({"id": list("abcd"), "2": [4.0, 3, 2, 1], "4": [2.0, 1, 1, 0.5]}).write_csv("curves.csv")
    pl.DataFrame({"party": list("abcd"), "votes": [40, 30, 20, 10]}).write_csv("votes.csv")
    pl.DataFrame({"m": list("abcd"), "p": [4.0, 3, 2, 1], "q": [2.0, 1, 1, 0.5]}).write_csv("board.csv")
    return folder


def test_a_number_out_of_range_is_refused_in_one_line_and_beforehand_in_the_same(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for typed in _TYPED:
        code, _, message = run(capsys, *typed)
        assert code in (0, 2), (typed, message)
        assert "Traceback" not in message, typed
        beforehand, _, early = run(capsys, *typed, "--dry-run")
        assert beforehand == code, (typed, message, early)
        if code and " of them distinct" not in message:
            assert early == message, typed


@pytest.mark.parametrize("more", [(), ("--equal",), ("--capacity", 5)])
@pytest.mark.parametrize("last", [(), ("--dry-run",)])
def test_no_groups_are_refused_as_such(
    more: tuple[object, ...], last: tuple[str, ...], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *_X, "--k", 0, *more, *last) == "kofn: k=0: ask for at least 1\n"


def test_bins_of_an_item_beyond_all_bins_are_refused_beforehand_as_by_the_run(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--capacity", 6), ("--capacity", 6, "--overflow", "drop")):
        call = ("assign", "t.csv", "--columns", "a,b", "--scores", "--per-item", 3, *more)
        assert refused(capsys, *call, "--dry-run") == "kofn: per_item=3 of 2 bins; ask for per_item <= 2\n"
        assert refused(capsys, *call) == refused(capsys, *call, "--dry-run")


def test_a_limit_that_the_chosen_method_has_no_need_of_is_dropped_beforehand_too(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = (*_X, "--k", 3, "--capacity", 5, "--max-memory", "1GB")
    assert run(capsys, *call)[0] == run(capsys, *call, "--dry-run")[0] == 0


@pytest.mark.parametrize("method", ["constrained_kmeans", "constrained_kmedoids"])
def test_each_group_may_have_its_own_minimum(method: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = (*_X, "--k", 3, "-m", method, "--seed", 0)
    code, _, message = run(capsys, *call, "--min-size", "1,2,6", "-o", "g.csv", "--report", "g.html")
    assert code == 0, message
    sizes = np.bincount(pl.read_csv("g.csv")["group"].to_numpy(), minlength=3)
    assert (sizes >= [1, 2, 6]).all()
    assert "at least its minimum" in Path("g.html").read_text()
    assert run(capsys, *call, "--min-size", "1,2,6", "--dry-run")[0] == 0
    few = refused(capsys, *call, "--min-size", "1,2")
    assert "min_size has 2 values, k=3; give one number, or one for each group" in few
    many = refused(capsys, *call, "--min-size", "1,8,5")
    assert "min_size of k=3 groups needs 14 items, there are 12: 2 too few; lower it by 2" in many
    over = refused(capsys, *call, "--min-size", "1,2,6", "--capacity", "5,5,5")
    assert "capacity of group 2 is 5: 1 less than min_size=6" in over
