"""The claims runner: what it finds, runs, writes and returns; the rigs; and the quick parts of real claims."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from claims import HERE, ClaimError, Evidence, discover, recorded
from claims.__main__ import main
from claims.harness.learners import Network
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from claims.harness.touched import rests_on, touched

ROOT = HERE.parent
KEYS = {"paper", "holds", "measured", "expected", "baseline", "kind", "says", "seconds", "recorded"}
FAKE = """
from claims import Evidence, claim

@claim(paper={paper}, says="paper {paper} says so")
def check(seed, scale, broken=False):
    {body}
    return Evidence(
        holds={holds}, measured={{"seed": seed, "scale": scale}}, expected="much", baseline="little", kind="reduced"
    )
"""
Run = Callable[..., int]


def put(folder: Path, paper: int, name: str, *, holds: str = "not broken", body: str = "pass") -> Path:
    path = folder / f"p{paper:03d}_{name}.py"
    path.write_text(FAKE.format(paper=paper, holds=holds, body=body))
    return path


def record(folder: Path, **outcomes: dict[str, str]) -> None:
    (folder / "recorded.json").write_text(json.dumps({name[1:]: row for name, row in outcomes.items()}))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Three claims: one holds, one does not, one is not run; recorded as they are."""
    folder = tmp_path / "claims"
    (folder / "outside").mkdir(parents=True)
    put(folder, 7, "good")
    put(folder / "outside", 12, "bad", holds="False")
    put(folder, 30, "never", body="raise RuntimeError('was run')")
    record(
        folder,
        p7={"outcome": "holds"},
        p12={"outcome": "does-not-hold", "reason": "half the effect"},
        p30={"outcome": "not-run", "reason": "needs a cluster"},
    )
    return folder


@pytest.fixture
def run(shelf: Path) -> Run:
    return lambda *arguments: main([str(argument) for argument in arguments], folder=shelf)


def rows(path: Path) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads(path.read_text())
    return read


def test_outcomes_as_recorded_exit_0_and_are_written_as_json(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out" / "claims.json"
    assert run("--ids", 12, 7, "--seed", 5, "--json", out) == 0
    found = rows(out)
    assert [row["paper"] for row in found] == [7, 12]
    assert all(row.keys() >= KEYS for row in found)
    assert [row["holds"] for row in found] == [True, False]
    assert [row["recorded"] for row in found] == ["holds", "does-not-hold"]
    assert found[0]["measured"] == {"seed": 5, "scale": "small"}
    assert found[0]["says"] == "paper 7 says so"


def test_claims_in_processes_of_their_own_come_out_alike(run: Run, tmp_path: Path, capsys: Any) -> None:
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    assert run("--ids", 12, 7, 30, "--json", here) == 0
    assert run("--ids", 12, 7, 30, "--json", there, "--engine", "local", "--workers", 1) == 0
    for one, other in zip(rows(here), rows(there), strict=True):
        assert {**one, "seconds": 0.0} == {**other, "seconds": 0.0}
    capsys.readouterr()
    assert run("--ids", 7, "--engine", "spork") == 2
    assert run("--ids", 7, "--address", "head:6379") == 2
    told = capsys.readouterr().err
    assert "choose one of local, ray" in told
    assert "say --engine ray too" in told


def test_an_outcome_that_is_not_the_recorded_one_exits_1(run: Run, shelf: Path, capsys: Any) -> None:
    record(shelf, p7={"outcome": "does-not-hold", "reason": "it did not"}, p12={"outcome": "holds"})
    assert run("--ids", 7) == 1
    assert run("--ids", 12) == 1
    assert capsys.readouterr().err.splitlines() == [
        "claims: 7 came out otherwise than recorded",
        "claims: 12 came out otherwise than recorded",
    ]


def test_a_claim_without_a_record_exits_1(run: Run, shelf: Path) -> None:
    record(shelf, p12={"outcome": "does-not-hold", "reason": "half the effect"})
    assert run("--ids", 7) == 1
    assert run("--ids", 12) == 0


def test_broken_exits_0_only_if_no_claim_holds(run: Run, shelf: Path, tmp_path: Path) -> None:
    assert run("--ids", 7, 12, "--broken", "--json", tmp_path / "o.json") == 0
    assert [row["holds"] for row in rows(tmp_path / "o.json")] == [False, False]
    put(shelf, 7, "good", holds="True")
    assert run("--ids", 7, 12, "--broken") == 1


def in_part(folder: Path, *, beats: str, cheap: str) -> None:
    put(folder, 7, "good")
    text = (folder / "p007_good.py").read_text()
    criteria = f"{{'beats the mean': {beats}, 'costs less': {cheap}}}"
    text = text.replace("holds=not broken", f"holds=all({criteria}.values()), criteria={criteria}")
    (folder / "p007_good.py").write_text(text)
    record(folder, p7={"outcome": "holds-in-part", "reason": "level with the mean", "fails": ["beats the mean"]})


def test_what_holds_in_part_names_what_does_not(run: Run, shelf: Path, tmp_path: Path) -> None:
    in_part(shelf, beats="False", cheap="not broken")
    assert run("--ids", 7, "--json", tmp_path / "o.json") == 0
    assert run("--ids", 7, "--broken") == 0
    (row,) = rows(tmp_path / "o.json")
    assert (row["holds"], row["met"], row["fails"]) == (False, True, ["beats the mean"])
    in_part(shelf, beats="True", cheap="False")
    assert run("--ids", 7) == 1
    record(shelf, p7={"outcome": "holds-in-part", "reason": "level with the mean"})
    assert run("--ids", 7) == 2


def test_what_fails_is_judged_by_the_claim_or_by_a_limit_on_its_figures(run: Run, shelf: Path, tmp_path: Path) -> None:
    measured = "{'digits, 3': {'lead': {'mean': 0.03, 'low': 0.01, 'high': 0.05, 'runs': 8}}, 'parts': [0.2, 0.4]}"
    path = put(shelf, 7, "good")
    path.write_text(path.read_text().replace('{"seed": seed, "scale": scale}', measured))
    part = {"outcome": "holds-in-part", "reason": "as first written", "fails": ["first"]}
    limits = [
        ({"figures": "digits*/lead", "above": 0.02}, False),
        ({"figures": "digits*/lead", "above": 0.0}, True),
        ({"figures": "digits*/lead", "below": 0.06}, True),
        ({"figures": "digits*/lead", "below": 0.04}, False),
        ({"figures": "parts", "above": 0.3}, False),
        ({"figures": "parts", "below": 0.5}, True),
    ]
    for limit, met in limits:
        record(shelf, p7={**part, "limits": {"first": limit}})
        assert run("--ids", 7, "--json", tmp_path / "o.json") == 0
        assert rows(tmp_path / "o.json")[0]["criteria"] == {"first": met}
        assert run("--ids", 7, "--broken") == 0
    record(shelf, p7={**part, "limits": {"first": {"figures": "verses/lead", "above": 0}}})
    assert run("--ids", 7, "--json", tmp_path / "o.json") == 1
    assert "no figure of this run is named 'verses/lead'" in rows(tmp_path / "o.json")[0]["error"]
    record(shelf, p7=part)
    assert run("--ids", 7, "--json", tmp_path / "o.json") == 1
    assert "nothing judges 'first'" in rows(tmp_path / "o.json")[0]["error"]


def test_every_part_that_fails_on_the_record_is_one_that_a_limit_or_the_claim_names() -> None:
    for paper, row in recorded().items():
        text = discover()[paper].path.read_text(encoding="utf-8")
        # A claim builds its criteria's names of pieces: without any it can name none.
        unnamed = [name for name in row.get("fails", ()) if name not in row.get("limits", {})]
        assert not unnamed or "criteria" in text, f"paper {paper}: nothing judges {unnamed}"


def figures_of(section: str) -> set[str]:
    """Paths of the figures in a section of RESULTS.md; a name may hold a colon, so each colon may end it."""
    found, above = set(), [""]
    for line in section.splitlines():
        bullet = re.fullmatch(r"( *)- (.*)", line)
        if bullet:
            depth, text = len(bullet[1]) // 2, bullet[2]
            names = {text, *(text[: colon.start()] for colon in re.finditer(": ", text))}
            found |= {above[depth] + name for name in names}
            above[depth + 1 :] = [above[depth] + text + "/"]
    return found


def test_every_limit_of_the_record_finds_its_figures() -> None:
    parts = re.split(r"\n## ", (HERE / "RESULTS.md").read_text(encoding="utf-8"))[1:]
    sections = {int(part.split(":")[0]): part for part in parts}
    for paper, row in recorded().items():
        for name, limit in row.get("limits", {}).items():
            figures = figures_of(sections[paper])
            assert fnmatch.filter(figures, limit["figures"]), f"paper {paper}: {name!r} is judged by no figure"


def test_fresh_seeds_are_noted_until_the_claim_changes(run: Run, shelf: Path, capsys: Any) -> None:
    put(shelf, 7, "good", holds="seed % 2 == 0")
    assert run("--ids", 7, "--fresh", 6) == 0
    outcomes = json.loads((shelf / "fresh.json").read_text())["7"]["seeds"]
    assert len(outcomes) == 6
    assert all((outcome == "held") == (int(seed) % 2 == 0) for seed, outcome in outcomes.items())
    held = sum(outcome == "held" for outcome in outcomes.values())
    assert f"7 good: held at {held} of 6 fresh seeds" in capsys.readouterr().out
    assert run("--ids", 7, "--fresh", 10, "--seed", 1) == 0
    assert "of 10 fresh seeds" in capsys.readouterr().out
    put(shelf, 7, "good")
    assert run("--ids", 7, "--fresh", 2) == 0
    assert "held at 2 of 2 fresh seeds" in capsys.readouterr().out


def test_a_fresh_run_goes_on_where_it_was_stopped(run: Run, shelf: Path, capsys: Any) -> None:
    assert run("--ids", 7, "--fresh", 2, "--seed", 5) == 0
    capsys.readouterr()
    for seed in (5, 6):
        assert run("--ids", 7, "--fresh", 2, "--seed", seed) == 0
        assert capsys.readouterr().out == "7 good: held at 2 of 2 fresh seeds\n"


def test_fresh_seeds_tell_what_was_not_met_though_it_held(run: Run, shelf: Path) -> None:
    in_part(shelf, beats="False", cheap="seed % 2 == 0")
    assert run("--ids", 7, "--fresh", 6) == 0
    seeds = json.loads((shelf / "fresh.json").read_text())["7"]["seeds"]
    held, missed = "held but for: beats the mean", "missed: beats the mean; costs less"
    assert seeds == {seed: missed if int(seed) % 2 else held for seed in seeds}
    assert len(set(seeds.values())) == 2


def test_a_line_of_history_has_old_new_and_why(shelf: Path) -> None:
    record(shelf, p7={"outcome": "holds", "history": [{"old": "> 2 points"}]})
    with pytest.raises(ClaimError, match="old, new and why"):
        recorded(shelf / "recorded.json")


def test_a_claim_that_raises_neither_holds_nor_fails_to_hold(run: Run, shelf: Path, tmp_path: Path) -> None:
    put(shelf, 7, "good", body="raise ZeroDivisionError('nothing to divide')")
    assert run("--ids", 7, "--json", tmp_path / "o.json") == 1
    assert run("--ids", 7, "--broken") == 1
    (row,) = rows(tmp_path / "o.json")
    assert row["holds"] is None
    assert row["error"] == "ZeroDivisionError: nothing to divide"


def test_what_is_recorded_as_not_run_is_not_run(run: Run, tmp_path: Path) -> None:
    assert run("--ids", 30, "--json", tmp_path / "o.json") == 0
    (row,) = rows(tmp_path / "o.json")
    assert (row["holds"], row["reason"]) == (None, "needs a cluster")


def test_list_reads_the_files_and_imports_none(run: Run, shelf: Path, capsys: Any) -> None:
    path = put(shelf, 7, "good")
    path.write_text("raise RuntimeError('was imported')\n" + path.read_text())
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["7", "holds"], ["12", "does-not-hold"], ["30", "not-run"]]
    assert lines[0].endswith("paper 7 says so")


def test_results_have_a_row_for_each_claim(run: Run, shelf: Path) -> None:
    assert run("--all", "--seed", 3, "--write") == 0
    text = (shelf / "RESULTS.md").read_text()
    assert "| 7 | paper 7 says so | holds | holds |  | reduced |" in text
    assert "| 12 | paper 12 says so | does not hold | does-not-hold |  | reduced |" in text
    assert "| 30 | paper 30 says so | not run | not-run |" in text
    assert "half the effect" in text
    assert "seed 3" in text


def test_rows_of_the_claims_that_are_run_are_renewed_and_others_stay(run: Run, shelf: Path, capsys: Any) -> None:
    assert run("--ids", 7, "--write") == 2
    assert "RESULTS.md is not of seed 0 and scale small" in capsys.readouterr().err
    assert run("--all", "--write") == 0
    before = (shelf / "RESULTS.md").read_text()
    assert run("--ids", 7, "--write") == 0
    assert (shelf / "RESULTS.md").read_text() == before
    put(shelf, 7, "good", body="seed = 99")
    put(shelf / "outside", 12, "bad", holds="False", body="raise RuntimeError('was run')")
    record(
        shelf,
        p7={"outcome": "holds"},
        p12={"outcome": "does-not-hold", "reason": "a third of the effect"},
        p30={"outcome": "not-run", "reason": "needs a cluster"},
    )
    assert run("--ids", 7, "--write") == 0
    after = (shelf / "RESULTS.md").read_text()
    assert after == before.replace("- seed: 0", "- seed: 99", 1).replace("half the", "a third of the")
    assert run("--ids", 7, "--fresh", 2, "--write") == 0
    assert (shelf / "RESULTS.md").read_text() == after.replace("holds | holds |  |", "holds | holds | 2 of 2 |", 1)
    put(shelf, 40, "new")
    limits = {"more": {"figures": "seed", "above": 100}}
    record(
        shelf,
        p7={"outcome": "holds-in-part", "reason": "so", "fails": ["more"], "limits": limits},
        p40={"outcome": "holds"},
    )
    assert run("--ids", 40, "--write") == 0
    text = (shelf / "RESULTS.md").read_text()
    assert "## 40: new" in text
    assert "| 7 | paper 7 says so | holds in part | holds-in-part | 2 of 2 |" in text


def test_fresh_seeds_stay_where_a_change_leaves_every_figure(run: Run, shelf: Path) -> None:
    assert run("--all", "--write") == 0
    assert run("--ids", 7, "--fresh", 2, "--write") == 0
    for body, stays in (("note = 1", True), ("seed += 1", False)):
        put(shelf, 7, "good", body=body)
        assert run("--ids", 7, "--write") == 0
        assert ("| 2 of 2 |" in (shelf / "RESULTS.md").read_text()) == stays


def test_results_are_of_the_claims_as_they_are() -> None:
    lines = (HERE / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    table = {int(line.split("|")[1]): line for line in lines if line.startswith("| ") and line[2].isdigit()}
    outcomes = recorded()
    assert table.keys() == outcomes.keys()
    for paper, source in discover().items():
        assert f"| {source.says.replace('|', chr(92) + '|')} |" in table[paper]
        assert f"| {outcomes[paper]['outcome']} |" in table[paper]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ids", 99), "claims: no claim for paper 99; there are 7, 12, 30"),
        ((), "claims: say which: --ids PAPER ..., --all, --changed REV, --rotate N, or --list"),
        (
            ("--all", "--write", "--broken"),
            "claims: --write with --broken: RESULTS.md tells how claims come out with their mechanism on",
        ),
        (("--all", "--seed", -1), "claims: --seed -1: give a whole number >= 0"),
        (("--rotate", 0), "claims: --rotate 0: give a whole number >= 1"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    run: Run, arguments: tuple[object, ...], message: str, capsys: Any
) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err == message + "\n"


def test_rotation_runs_each_claim_once_in_n_turns(run: Run, tmp_path: Path) -> None:
    out, seen = tmp_path / "o.json", []
    for turn in range(3):
        assert run("--rotate", 3, "--turn", turn, "--json", out) == 0
        seen += [row["paper"] for row in rows(out)]
    assert sorted(seen) == [7, 12, 30]


def test_two_claims_of_one_paper_are_refused(shelf: Path) -> None:
    put(shelf, 12, "again")
    with pytest.raises(ClaimError, match="paper 12 has two claims"):
        discover(shelf)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"7": {"outcome": "maybe"}}', "outcome 'maybe'"),
        ('{"7": {"outcome": "does-not-hold"}}', "gives no reason"),
        ('{"7": {"outcome": "holds", "limits": {"first": {"figures": "*", "above": 0}}}}', "of what fails"),
        (
            '{"7": {"outcome": "holds-in-part", "reason": "so", "fails": ["a"], "limits": {"a": {"above": 0}}}}',
            "give figures, and above or below",
        ),
    ],
)
def test_a_bad_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(text)
    with pytest.raises(ClaimError, match=message):
        recorded(path)


def test_a_file_whose_name_and_claim_differ_is_refused(run: Run, shelf: Path, tmp_path: Path) -> None:
    path = put(shelf, 7, "good")
    path.write_text(path.read_text().replace("paper=7", "paper=8"))
    assert run("--ids", 7, "--json", tmp_path / "o.json") == 1
    assert rows(tmp_path / "o.json")[0]["error"] == "ClaimError: p007_good.py claims paper 8; its name says 7"


def test_evidence_names_its_kind() -> None:
    with pytest.raises(ValueError, match="kind='guessed'"):
        Evidence(holds=True, measured={}, expected="", baseline="", kind="guessed")


def test_a_claim_rests_on_the_homes_of_the_methods_it_names() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in rests_on(discover()[33], ROOT)}
    assert files >= {
        "claims/assignment/medoids/p033_fasterpam.py",
        "claims/harness/paired.py",
        "src/kofn/assignment/medoids/_fasterpam.py",
        "src/kofn/assignment/medoids/_swaps.py",
    }
    assert not files & {
        "src/kofn/selection/training_data/_ccs.py",
        "src/kofn/core/plans.py",
        "claims/harness/learners.py",
    }


def test_changes_touch_the_claims_that_rest_on_them(shelf: Path, capsys: Any) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=shelf.parent, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    sources = discover(shelf)
    assert touched("HEAD", sources, shelf.parent) == set()
    put(shelf, 7, "good", holds="True")
    assert touched("HEAD", sources, shelf.parent) == {7}
    put(shelf, 40, "new")
    assert touched("HEAD", discover(shelf), shelf.parent) == {7, 40}
    assert touched("HEAD~1", sources, shelf.parent) == {7, 12, 30}
    assert capsys.readouterr().err == "claims: git cannot compare with HEAD~1; every claim counts as touched\n"


def test_every_claim_is_recorded_and_every_record_is_a_claim() -> None:
    assert discover().keys() == recorded().keys()


def test_the_readme_says_how_many_claims_there_are() -> None:
    assert f"\n{len(discover())} papers have their experiment in `claims/`" in (ROOT / "README.md").read_text("utf-8")


def test_the_difference_of_pairs_has_its_limits() -> None:
    gap = difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    # Mean 2, standard deviation 1, t(0.95, 2) = 2.92.
    assert gap.mean == 2
    assert gap.low == pytest.approx(2 - 2.91999 / np.sqrt(3), abs=1e-4)
    assert gap.above(0.3)
    assert not gap.above(0.4)
    with pytest.raises(ValueError, match="two runs or more"):
        difference([1.0], [0.0])


def test_streams_of_a_seed_share_no_seed() -> None:
    seeds = [derive(seed, 20, stream=stream) for seed in (0, 1) for stream in (0, 1)]
    assert len({one for part in seeds for one in part}) == 80
    assert derive(1, 20, stream=1) == seeds[3]
    assert derive(1, 5, stream=1) == seeds[3][:5]


def test_work_over_processes_comes_back_in_order() -> None:
    assert spread(abs, [-3, 2, -1]) == [3, 2, 1]


def test_a_masked_network_learns_and_keeps_its_zeros() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5)).astype(np.float32)
    y = (X[:, 0] * X[:, 1] > 0).astype(np.int64)
    network = Network(hidden=(16,), steps=1500).fit(X, y, 2, seed=0)
    assert network.accuracy(X, y) > 0.95
    mask = rng.random(network.weights[0].shape) < 0.5
    network.weights[0] = np.where(mask, network.weights[0], 0)
    before = network.accuracy(X, y)
    network.train(X, y, 200, rng, masked=True)
    assert not network.weights[0][~mask].any()
    assert network.accuracy(X, y) > before


def test_the_network_s_gradient_is_the_slope_of_its_loss() -> None:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(3, size=30)
    network = Network(hidden=(6, 5), steps=1, decay=0.0).fit(X, y, 3, seed=0)
    slopes = [np.zeros_like(weight) for weight in network.weights]
    network._backward(X, np.eye(3, dtype=np.float32)[y], slopes, [np.zeros_like(bias) for bias in network.biases])

    def loss() -> float:
        logits = network.logits(X).astype(np.float64)
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(30), y]))

    for weight, slope in zip(network.weights, slopes, strict=True):
        kept = weight[1, 2]
        weight[1, 2] = kept + 1e-2
        above = loss()
        weight[1, 2] = kept - 1e-2
        below = loss()
        weight[1, 2] = kept
        assert (above - below) / 2e-2 == pytest.approx(slope[1, 2], abs=2e-3)


@pytest.mark.parametrize(("fast", "same_work"), [("fastpam1", False), ("pam", True)])
def test_the_k_medoids_claim_tells_pam_from_its_fast_form(fast: str, same_work: bool) -> None:
    from claims.assignment.medoids.p033_fasterpam import _growth, _same_swaps

    found = _same_swaps(3, kind="random", fast=fast)
    assert (found["differ"], found["swaps"] > 10) == (0, True)
    figures, holds = _growth("random", 800, fast, seed=3)
    assert holds is not same_work
    assert (figures["FastPAM1"]["points looked at"] == figures["PAM"]["points looked at"]) is same_work
