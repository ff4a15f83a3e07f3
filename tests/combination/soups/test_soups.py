"""Searches over blends: greedy soups and evolved weights, their budgets, their records, and CMA-ES itself."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from refusals import refused
from safetensors.numpy import save_file

import kofn
from kofn.combination import evolved_mean, greedy_soup, task_arithmetic, weighted_mean
from kofn.core.checks import FailureError


def states(m: int, seed: int = 0, dtype: Any = np.float32) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        {"w": rng.normal(size=(3, 4)).astype(dtype), "b": rng.normal(size=3).astype(dtype), "step": np.array([7])}
        for _ in range(m)
    ]


class Near:
    """How near a blend is to a target; counts what it was asked."""

    def __init__(self, target: Any, stop_at: int | None = None) -> None:
        self.target, self.calls, self.stop_at = target, 0, stop_at

    def __call__(self, blend: Any) -> float:
        self.calls += 1
        if self.stop_at is not None and self.calls >= self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        if isinstance(blend, np.ndarray):
            return -float(np.abs(blend - self.target).sum())
        return -float(sum(np.abs(np.asarray(blend[n], np.float64) - self.target[n]).sum() for n in ("w", "b")))


def by_hand(members: list[Any], score: Callable[[Any], float]) -> tuple[list[int], float]:
    """The published recipe, a mean at a time."""
    alone = [score(member) for member in members]
    order = sorted(range(len(members)), key=lambda place: (-alone[place], place))
    picked, best = order[:1], alone[order[0]]
    for place in order[1:]:
        found = score(weighted_mean([members[i] for i in sorted([*picked, place])]).result)
        if found >= best:
            picked, best = [*picked, place], found
    return picked, best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_greedy_soup_is_the_published_recipe(seed: int, dtype: Any) -> None:
    members = states(6, seed, dtype)
    target = weighted_mean(states(6, seed), weights=np.random.default_rng(seed).random(6)).result
    blend = greedy_soup(members, score=Near(target))
    picked, best = by_hand(members, Near(target))
    assert blend.selection.indices.tolist() == picked
    assert blend.value == best == Near(target)(blend.result)
    assert blend.selection.gains.sum() == pytest.approx(best)
    again = weighted_mean(members, weights=blend.weights)
    assert all(again.result[name].tobytes() == blend.result[name].tobytes() for name in again.result)
    assert again.spread.tolist() == blend.spread.tolist()
    assert blend.weights.tolist() == (np.isin(np.arange(6), picked) / len(picked)).tolist()
    assert len(blend.info["evaluations"]) == 11
    assert max(row["score"] for row in blend.info["evaluations"][:6]) <= best


def test_greedy_is_between_the_best_single_and_the_best_subset() -> None:
    better = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        members = [rng.normal(size=4) for _ in range(5)]
        score = Near(0.3 * rng.normal(size=4))
        blend = greedy_soup(members, score=score)
        subsets = [
            score(np.mean([members[i] for i in some], axis=0))
            for size in range(1, 6)
            for some in itertools.combinations(range(5), size)
        ]
        assert max(map(score, members)) <= blend.value <= max(subsets) + 1e-12
        better += blend.value > max(map(score, members))
    assert better > 3


def test_ties_are_kept_in_the_order_of_the_members() -> None:
    blend = greedy_soup([np.ones(2), np.zeros(2), np.ones(2)], score=lambda _mean: 1.0)
    assert blend.selection.indices.tolist() == [0, 1, 2]
    assert blend.selection.gains.tolist() == [1.0, 0.0, 0.0]


def test_known_scores_set_the_order_and_save_evaluations() -> None:
    members = states(6)
    score = Near(weighted_mean(members).result)
    alone = [score(member) for member in members]
    whole, short = greedy_soup(members, score=score), greedy_soup(members, score=score, scores=alone)
    assert short.selection.indices.tolist() == whole.selection.indices.tolist()
    assert (len(short.info["evaluations"]), len(whole.info["evaluations"])) == (6, 11)
    assert short.value == whole.value


@pytest.mark.parametrize("budget", [1, 3, 5, 6, 7, 9, 30])
def test_greedy_budget_is_exact_and_a_larger_one_begins_alike(budget: int) -> None:
    members, score = states(5), Near(weighted_mean(states(5)).result)
    blend = greedy_soup(members, score=score, budget=budget)
    whole = greedy_soup(members, score=Near(score.target))
    assert score.calls == blend.info["oracle_calls"] == len(blend.info["evaluations"]) == min(budget, 9)
    assert blend.info["evaluations"] == whole.info["evaluations"][:budget]
    assert blend.status == "heuristic"
    assert blend.used == {"evaluations": min(budget, 9)}


def test_minus_infinity_stands_for_a_blend_that_fails() -> None:
    score = lambda mean: -np.inf if mean[0] > 1.5 else -abs(float(mean[0]))  # noqa: E731
    blend = greedy_soup([np.array([2.0]), np.array([1.0]), np.array([0.5])], score=score)
    assert blend.selection.indices.tolist() == [2]
    evolved = evolved_mean([np.array([2.0]), np.array([1.0])], score=score, budget=40)
    assert evolved.value > -0.5


@pytest.mark.parametrize("budget", [1, 2, 7, 40])
def test_evolved_budget_is_exact_and_starts_from_the_uniform_mean(budget: int) -> None:
    members = states(4)
    score = Near(weighted_mean(members, weights=[0.6, 0.3, 0.2, -0.1]).result)
    blend = evolved_mean(members, score=score, budget=budget)
    assert score.calls == len(blend.info["evaluations"]) == budget
    assert blend.info["evaluations"][0]["weights"] == [0.25] * 4
    assert blend.value == max(row["score"] for row in blend.info["evaluations"])
    assert blend.value == score(blend.result)
    assert np.isclose(sum(blend.weights), 1)
    again = weighted_mean(members, weights=blend.weights, normalize=False)
    assert all(again.result[name].tobytes() == blend.result[name].tobytes() for name in again.result)
    assert (again.form, again.spread.tolist()) == (blend.form, blend.spread.tolist())


def test_evolved_weights_find_a_known_mean() -> None:
    rng = np.random.default_rng(0)
    members, hidden = [rng.normal(size=30) for _ in range(5)], np.array([0.5, 0.4, 0.3, 0.0, -0.2])
    target = hidden @ np.array(members)
    square = lambda mean: -float(np.square(mean - target).sum())  # noqa: E731
    signed = evolved_mean(members, score=square, budget=600)
    assert np.allclose(signed.weights, hidden, atol=0.01)
    held = evolved_mean(members, score=square, budget=600, negative=False)
    assert held.form == "simplex"
    assert (held.weights >= 0).all()
    assert held.value < signed.value
    factors = evolved_mean(members, score=square, budget=600, base=members[0] * 0.1)
    assert factors.form == "none"
    again = task_arithmetic(members, base=members[0] * 0.1, weights=factors.weights, normalize=False)
    assert again.result.tobytes() == factors.result.tobytes()
    assert factors.value > -0.01


def test_one_member_has_one_mean_and_many_multiples() -> None:
    alone = evolved_mean([np.array([1.0, 2.0])], score=lambda mean: float(mean.sum()), budget=9)
    assert (alone.weights.tolist(), len(alone.info["evaluations"])) == ([1.0], 1)
    scaled = evolved_mean([np.array([1.0])], base=np.array([0.0]), score=lambda x: -abs(float(x[0]) - 3), budget=80)
    assert abs(scaled.weights[0] - 3) < 0.05


def test_other_seeds_search_elsewhere_and_equal_ones_alike() -> None:
    members, score = states(4), Near(states(1, 9)[0])
    runs = [evolved_mean(members, score=score, budget=20, seed=seed) for seed in (0, 0, 1)]
    assert runs[0].info["evaluations"] == runs[1].info["evaluations"] != runs[2].info["evaluations"]
    assert runs[0].equals(evolved_mean(members, score=score, budget=20))


@pytest.mark.parametrize("method", ["greedy_soup", "evolved_mean"])
def test_checkpoints_on_disk_are_rated_as_they_are_read(tmp_path: Path, method: str) -> None:
    members = states(4, dtype=ml_dtypes.bfloat16)
    for place, member in enumerate(members):
        save_file({**member, "kept": np.array([place], np.float32)}, tmp_path / f"{place}.safetensors")
    target = weighted_mean(states(4)).result
    paths = [tmp_path / f"{place}.safetensors" for place in range(4)]
    held: list[Any] = []

    def score(blend: Any) -> float:
        held.append(float(blend["kept"][0]))
        return Near(target)(blend)

    options = {"skip": "kept"}
    out = tmp_path / "merged.safetensors"
    disk = kofn.combine(paths, score=score, budget=9, method=method, options={**options, "out": out})
    memory = kofn.combine(members, score=Near(target), budget=9, method=method)
    assert disk.info["evaluations"] == memory.info["evaluations"]
    assert disk.weights.tolist() == memory.weights.tolist()
    assert disk.result["w"].tobytes() == memory.result["w"].tobytes()
    # What is not blended is the first member's, whoever is picked.
    assert set(held) == {0.0}
    assert float(disk.result["kept"][0]) == 0.0


def test_a_bad_output_is_refused_before_anything_is_rated(tmp_path: Path) -> None:
    save_file(states(1)[0], tmp_path / "a.safetensors")
    score = Near(states(1)[0])
    members = [tmp_path / "a.safetensors", states(1, 1)[0]]
    refused(lambda: greedy_soup(members, score=score, out=tmp_path / "a.safetensors"), "is where member 0")
    refused(lambda: greedy_soup([np.ones(2)], score=score, out="x"), "plain arrays have no names to store")
    assert score.calls == 0


SEARCHES: dict[str, Callable[..., Any]] = {
    "greedy_soup": lambda **words: greedy_soup(states(5), **words),
    "evolved_mean": lambda **words: evolved_mean(states(5), seed=3, **{"budget": 25, **words}),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_recorded_search_goes_on_and_repeats_nothing(tmp_path: Path, name: str) -> None:
    record, target = tmp_path / "search.jsonl", states(1, 9)[0]
    whole = SEARCHES[name](score=Near(target))
    rows = whole.info["evaluations"]
    part = SEARCHES[name](score=Near(target), record=record, budget=4)
    assert part.info["evaluations"] == rows[:4]
    assert record.read_text().count("\n") == 5
    with open(record, "a") as file:
        file.write('{"weights": [0.2, 0.')  # cut off
    score = Near(target)
    rest = SEARCHES[name](score=score, record=record)
    assert rest.info["evaluations"] == rows
    assert score.calls == rest.info["oracle_calls"] == len(rows) - 4
    assert rest.info["resumed"] == 4
    assert rest.weights.tolist() == whole.weights.tolist()
    assert rest.value == whole.value
    last = Near(target)
    assert SEARCHES[name](score=last, record=record).info["evaluations"] == rows
    assert last.calls == 0
    assert [json.loads(line) for line in record.read_text().splitlines()[1:]] == rows


@pytest.mark.parametrize("name", SEARCHES)
def test_ctrl_c_returns_the_best_so_far(tmp_path: Path, name: str) -> None:
    record, target = tmp_path / "search.jsonl", states(1, 9)[0]
    stopped = SEARCHES[name](score=Near(target, stop_at=3), record=record)
    assert stopped.status == "stopped"
    assert len(stopped.info["evaluations"]) == 3
    assert stopped.value == max(row["score"] for row in stopped.info["evaluations"])
    rest = SEARCHES[name](score=Near(target), record=record)
    assert rest.status == "heuristic"
    assert rest.info["resumed"] == 3
    assert rest.info["evaluations"] == SEARCHES[name](score=Near(target)).info["evaluations"]


def test_time_limit_still_rates_one_blend() -> None:
    for name, search in SEARCHES.items():
        blend = search(score=Near(states(1, 9)[0]), time_limit=1e-9)
        assert (blend.status, len(blend.info["evaluations"])) == ("stopped", 1), name


KILLED = """
import os, signal, sys
import numpy as np
from kofn.combination import {name}

rng = np.random.default_rng(0)
members = [rng.normal(size=50) for _ in range(5)]
calls = 0

def score(mean):
    global calls
    calls += 1
    with open(sys.argv[2], "a") as log:
        log.write("x")
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return -float(np.abs(mean).sum())

blend = {name}(members, score=score, budget=9, record=sys.argv[1])
print(blend.weights.tolist(), blend.value, len(blend.info["evaluations"]))
"""


@pytest.mark.parametrize("name", ["greedy_soup", "evolved_mean"])
def test_a_killed_search_ends_as_one_that_was_not(tmp_path: Path, name: str) -> None:
    code = textwrap.dedent(KILLED.format(name=name))

    def run(record: str, log: str, kill_at: int) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", code, str(tmp_path / record), str(tmp_path / log), str(kill_at)]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)

    whole = run("a", "a.log", 0)
    assert whole.returncode == 0, whole.stderr
    assert run("b", "b.log", 4).returncode == -signal.SIGKILL
    assert run("b", "b.log", 0).stdout == whole.stdout
    # The one that was being rated when the process was killed is rated again, and no other.
    assert len((tmp_path / "b.log").read_text()) == 10
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_records_of_something_else_are_refused_and_kept(tmp_path: Path) -> None:
    record, score = tmp_path / "search.jsonl", Near(states(1, 9)[0])
    evolved_mean(states(4), score=score, budget=3, record=record)
    before = record.read_bytes()

    def again(members: Any = None, **options: Any) -> Any:
        return evolved_mean(members or states(4), score=score, budget=5, record=record, **options)

    refused(lambda: again(states(4, 1)), "is of another search: members differs")
    refused(lambda: again(seed=2), "is of another search: seed was 0 and is 2")
    refused(lambda: again(sigma=0.1), "is of another search: sigma was 1.0 and is 0.1")
    refused(
        lambda: greedy_soup(states(4), score=score, record=record), "method was 'evolved_mean' and is 'greedy_soup'"
    )
    assert record.read_bytes() == before
    other = tmp_path / "notes.txt"
    for text in ("my notes\n", "my notes", '["a"]\n'):
        other.write_text(text)
        refused(lambda: greedy_soup(states(4), score=score, record=other), "is no record of a search")
        assert other.read_text() == text
    lines = before.decode().splitlines(keepends=True)
    record.write_text("".join([*lines[:2], "garbage\n", *lines[3:]]))
    refused(again, "line 3 is damaged")
    record.write_text("".join([lines[0], lines[2], lines[1]]))
    refused(again, "line 2 has other weights than this search asks for")
    refused(lambda: greedy_soup(states(2), score=score, record=tmp_path), "cannot be written: Is a directory")
    refused(lambda: greedy_soup(states(2), score=score, record=3), "record=3: give a path")


def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, score, write = tmp_path / "search.jsonl", Near(states(1, 9)[0]), os.write
    whole = greedy_soup(states(4), score=score).info["evaluations"]

    def full(handle: int, line: bytes) -> int:
        if score.calls < 10:
            return write(handle, line)
        write(handle, line[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FailureError, match="could not be written: No space left on device; free space"):
        greedy_soup(states(4), score=score, record=record)
    monkeypatch.undo()
    assert [json.loads(line) for line in record.read_text().splitlines()[1:]] == whole[:2]
    assert greedy_soup(states(4), score=score, record=record).info["evaluations"] == whole
    refused(lambda: greedy_soup(states(4), score=score, record="/dev/null"), "is no regular file")


def test_two_searches_do_not_share_a_record(tmp_path: Path) -> None:
    record, members = tmp_path / "search.jsonl", states(2)

    def score(_blend: Any) -> float:
        greedy_soup(members, score=lambda _mean: 0.0, record=record)
        return 0.0

    refused(lambda: greedy_soup(members, score=score, record=record), "is being written by another search")


@pytest.mark.parametrize("told", [np.nan, np.inf, None, "good", np.ones(2)])
def test_scores_that_are_no_numbers_are_refused(told: Any) -> None:
    refused(
        lambda: greedy_soup(states(2), score=lambda _mean: told), "for the weights [1.0, 0.0]; it must return a number"
    )


def test_members_that_do_not_match_are_refused_by_name() -> None:
    bad = states(3)
    bad[2]["w"][0, 1] = np.nan
    refused(lambda: greedy_soup(bad, score=lambda _mean: 0.0), "member 2: tensor 'w' at (0, 1) is NaN")
    refused(lambda: greedy_soup([np.ones(2), np.ones(3)], score=len), "members do not match in 1 place")
    short = [1.0, 2.0]
    refused(
        lambda: greedy_soup(states(3), score=Near({}), scores=short), "scores has shape (2,); give one score an item"
    )
    refused(lambda: greedy_soup(bad, score=Near(states(1)[0]), skip_nonfinite=True), "is finite in no member")
    healed = evolved_mean(bad, score=Near(states(1)[0]), budget=9, skip_nonfinite=True)
    assert healed.info["nonfinite"] == [0, 0, 1]
    assert np.isfinite(healed.result["w"]).all()


def test_what_score_writes_to_is_its_own() -> None:
    members = states(3)

    def score(blend: Any) -> float:
        blend["w"][:] = 0
        return 0.0

    blend = greedy_soup(members, score=score)
    assert all((member["w"] != 0).all() for member in members)
    assert (blend.result["w"] == weighted_mean(members).result["w"]).all()


def test_members_of_weight_zero_change_nothing() -> None:
    copy = np.random.default_rng(0).normal(size=100)
    blend = weighted_mean([copy, copy, copy, copy + 1], weights=[1, 1, 1, 0])
    assert blend.result.tobytes() == copy.tobytes()
