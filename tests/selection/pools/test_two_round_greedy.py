"""Two rounds over the parts of a pool: near to exact greedy, constraints held, and the same for any engine."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from law_runs import keeps_laws_at_size
from refusals import refused

import kofn
from kofn.core.pools import ArrayPool, Fragment
from kofn.engines.local import Local
from kofn.laws.engines import Shuffled
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection import lazy_greedy, random_sample, two_round_greedy
from kofn.selection.pools import _rounds as rounds
from kofn.selection.pools import _sizes as sizes

_RNG = np.random.default_rng(5)
X = (_RNG.normal(size=(40, 8))[_RNG.integers(40, size=3000)] * 3 + _RNG.normal(size=(3000, 8))).astype(np.float32)
SMALL: dict[str, Any] = {"part_rows": 250, "n_reference": 1500, "seed": 3}


class Watched(ArrayPool):
    """A pool that remembers the most rows that were asked of it at once."""

    most = 0

    def read(self, fragment: Fragment) -> Any:
        self.most = max(self.most, fragment.rows)
        return super().read(fragment)

    def take(self, rows: Any) -> Any:
        self.most = max(self.most, len(rows))
        return super().take(rows)


def distance(plan: Any) -> float:
    return float(plan.info["distance"])


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("deal", ["in_place", "random"])
def test_gains_value_and_bound_are_those_of_the_whole_pool(metric: Any, deal: Any) -> None:
    weights = np.arange(3000) % 4 / 3
    plan = two_round_greedy(X, k=9, weights=weights, metric=metric, deal=deal, **SMALL)
    exact = lazy_greedy(X, k=9, weights=weights, metric=metric)
    objective = FacilityLocation(X, metric=metric, weights=weights)
    gains = [objective.add(item) for item in plan.indices.tolist()]
    np.testing.assert_allclose(plan.gains, gains, rtol=1e-9, atol=1e-6 * gains[0])
    assert plan.value == pytest.approx(objective.value(plan.indices), rel=1e-9)
    assert plan.bound is not None
    assert exact.value <= plan.bound
    assert (plan.status, plan.guarantee, plan.info["bound_confidence"]) == ("heuristic", None, 1 - 1e-6)


@pytest.mark.parametrize("order", ["as drawn", "sorted"])
def test_little_is_lost_against_exact_greedy(order: str) -> None:
    """Where a file is sorted, one part alone sees a corner of the pool, and round 2 puts that right."""
    pool = X[np.argsort(X[:, 0])] if order == "sorted" else X
    exact = lazy_greedy(pool, k=40)
    random = random_sample(pool, k=40, seed=0)
    spread = distance(exact) * 1.0
    by_chance = FacilityLocation(pool).in_distances(FacilityLocation(pool).value(random.indices), None)["distance"]
    assert by_chance is not None
    for seed in range(3):
        plan = two_round_greedy(pool, k=40, part_rows=250, n_reference=1500, seed=seed)
        assert distance(plan) - spread < 0.1 * (by_chance - spread)
        assert plan.info["answer"] == "round 2"
        assert plan.info["candidates"] < 600


def test_a_pool_is_never_held_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_FRAGMENT_ROWS", 500)
    pool = Watched(X)
    assert pool.digest == ArrayPool(X).digest
    pool.most = 0
    plan = two_round_greedy(pool, k=9, **{**SMALL, "n_reference": 600})
    assert pool.most <= 600
    assert plan.equals(kofn.select(pool, k=9, method="two_round_greedy", **{**SMALL, "n_reference": 600}))
    in_memory = two_round_greedy(X, k=9, **{**SMALL, "n_reference": 600})
    np.testing.assert_array_equal(in_memory.indices, plan.indices)
    assert in_memory.value == pytest.approx(plan.value, rel=1e-12)
    assert in_memory.info["offset"] == plan.info["offset"]


def test_picks_do_not_depend_on_fragments_or_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [two_round_greedy(X, k=9, engine=engine, **SMALL) for engine in (None, "local", Local(3), Shuffled(1))]
    monkeypatch.setattr(rounds, "_FRAGMENT_ROWS", 500)
    plans += [two_round_greedy(X, k=9, engine=engine, **SMALL) for engine in (Local(1), Local(2), Shuffled(2))]
    assert plans[-1].info["engine"]["retries"] == 12
    for plan in plans[1:4]:
        assert plan.equals(plans[0])
    for plan in plans[4:]:
        assert plan.equals(plans[0], rtol=1e-12)


def test_the_guarantee_is_stated_only_where_it_was_earned() -> None:
    share = (1 - 1 / math.e) / 2
    asked: dict[str, Any] = {"k": 5, "part_rows": 100, "seed": 0, "n_reference": 400}
    pool = X[:400]
    assert two_round_greedy(pool, deal="random", **asked).info["expected_guarantee"] == share
    for words in (
        {},  # dealt in place
        {"deal": "random", "n_reference": 200},
        {"deal": "random", "include": [3]},
        {"deal": "random", "groups": np.arange(400) % 2, "quotas": {0: (2, None)}},
    ):
        plan = two_round_greedy(pool, **{**asked, **words})
        assert (plan.info["expected_guarantee"], plan.guarantee) == (None, None)


@pytest.mark.parametrize("all_judge", [False, True])
def test_every_distance_is_counted(all_judge: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    objectives, tables = [], []

    def objective(*args: Any, **words: Any) -> FacilityLocation:
        objectives.append(FacilityLocation(*args, **words))
        return objectives[-1]

    def table(*args: Any) -> Any:
        tables.append(costs_of(*args))
        return tables[-1]

    costs_of = rounds.costs_of
    monkeypatch.setattr(rounds, "FacilityLocation", objective)
    monkeypatch.setattr(rounds, "costs_of", table)
    X, k = np.random.default_rng(0).normal(size=(400, 3)), 5
    words: dict[str, Any] = {"k": k, "part_rows": 50, "seed": 0, "n_reference": 400 if all_judge else 100}
    plain = two_round_greedy(X, **words, bound_rows=0)
    judges = 400 if all_judge else 50
    sets = 1 + min(3, len(tables))
    expected = 400 * judges + objectives[0].distance_evals + sum(made.size for made in tables) + 400 * k * sets
    assert plain.info["distance_evals"] == expected
    bounded = two_round_greedy(X, **words, bound_rows=40)
    assert bounded.info["distance_evals"] - expected == 400 * 40 + 40 * k


def test_one_part_that_all_rows_judge_is_exact_greedy() -> None:
    exact, plan = lazy_greedy(X[:300], k=7), two_round_greedy(X[:300], k=7, seed=0)
    np.testing.assert_array_equal(plan.indices, exact.indices)
    assert (plan.bound, plan.guarantee) == (exact.bound, exact.guarantee)


def test_constraints_hold_and_laws_are_kept_at_size() -> None:
    groups = np.arange(3000) // 1000  # sorted: most parts have one group only
    asked: Any = {"groups": groups, "quotas": {0: (5, 5), 1: (0, 2), 2: (1, None)}, "include": [4], "exclude": [7]}
    case = keeps_laws_at_size("two_round_greedy", {"X": X, "k": 12, "seed": 0, **asked}, {"part_rows": 300})
    picked = np.bincount(groups[case.plan.indices], minlength=3)
    assert picked[0] == 5
    assert picked[1] <= 2
    assert case.plan.indices[0] == 4


@pytest.mark.parametrize("parts", [3, 40])
def test_minima_that_only_a_few_rows_can_meet_are_met(parts: int) -> None:
    """Each of two columns has a rare group; the rows that no part would pick are handed over all the same."""
    rare, other = np.zeros(3000, int), np.zeros(3000, int)
    rare[[5, 1700, 2999]] = 1
    other[[800, 2999]] = 1
    far = X.copy()
    far[[5, 800, 1700, 2999]] += 50  # nobody is near to them
    words: Any = {"k": 4, "part_rows": 3000 // parts, "n_reference": 500, "seed": 0}
    one = two_round_greedy(far, groups=rare, quotas={1: (3, None)}, **words)
    assert rare[one.indices].sum() == 3
    two = two_round_greedy(far, groups={"a": rare, "b": other}, quotas={"a": {1: (2, 2)}, "b": {1: (2, None)}}, **words)
    assert (rare[two.indices].sum(), other[two.indices].sum()) == (2, 2)


def test_nearly_everything_excluded_leaves_what_is_open() -> None:
    kept = np.arange(1000, 1006)
    exclude = np.setdiff1d(np.arange(3000), kept)
    plan = two_round_greedy(X, k=6, exclude=exclude, **SMALL)
    assert sorted(plan.indices.tolist()) == kept.tolist()


def test_include_fills_all_of_k() -> None:
    plan = two_round_greedy(X, k=2, include=[2000, 3], **SMALL)
    assert plan.indices.tolist() == [2000, 3]
    assert plan.value == pytest.approx(FacilityLocation(X).value([2000, 3]), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_units_change_no_pick(scale: float) -> None:
    plan = two_round_greedy(X, k=9, **SMALL)
    scaled = two_round_greedy(X * np.float32(scale), k=9, **SMALL)
    assert len(set(plan.indices.tolist()) & set(scaled.indices.tolist())) >= 8
    assert distance(scaled) / scale == pytest.approx(distance(plan), rel=1e-2)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_FRAGMENT_ROWS", 500)
    whole = two_round_greedy(X, k=9, **SMALL)
    work = tmp_path / "work"

    class Killed(Shuffled):
        left = 3

        def map(self, *args: Any, **words: Any) -> Any:
            for result in super().map(*args, **words):
                if not self.left:
                    raise RuntimeError("killed")
                self.left -= 1
                yield result

    with pytest.raises(RuntimeError, match="killed"):
        two_round_greedy(X, k=9, engine=Killed(), work=work, **SMALL)
    assert len(list(work.rglob("round1-*.npz"))) == 3
    again = two_round_greedy(X, k=9, work=work, **SMALL)
    assert again.info["reused"] == 3
    assert again.equals(whole) or again.options != whole.options
    np.testing.assert_array_equal(again.gains, whole.gains)
    third = two_round_greedy(X, k=9, work=work, **SMALL)
    assert (third.info["reused"], third.info["engine"]["tasks"]) == (12, 0)
    np.testing.assert_array_equal(third.gains, whole.gains)
    # A file that was cut off is done again, and nothing in the folder is a pickle.
    first = sorted(work.rglob("round1-*.npz"))[0]
    first.write_bytes(first.read_bytes()[:100])
    assert two_round_greedy(X, k=9, work=work, **SMALL).info["reused"] == 11
    for path in work.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as parts:
            assert all(parts[name].dtype != object for name in parts)


def test_a_killed_run_on_a_frame_goes_on_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_FRAGMENT_ROWS", 500)
    frame = pl.DataFrame({"x": X})

    def run(rows: pl.DataFrame) -> Any:
        pool = kofn.Pool.open(rows, vectors="x", work=tmp_path)
        return kofn.select(pool, k=9, method="two_round_greedy", work=tmp_path / "kept", **SMALL)

    first = run(frame)
    for lost in list((tmp_path / "kept").rglob("look-*.npz"))[:2]:
        lost.unlink()
    again = run(frame)
    assert (first.info["reused"], again.info["reused"]) == (0, 10)
    np.testing.assert_array_equal(again.gains, first.gains)
    refused(lambda: run(frame.reverse()), "was begun with rows=")


def test_of_many_rows_some_parts_hand_over_all_and_the_others_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as parts may hand over together, and two of the others each; of a sorted file, too."""
    monkeypatch.setattr(sizes, "_CANDIDATES", 120)
    monkeypatch.setattr(sizes, "_CANDIDATES_A_PICK", 10)
    asked: dict[str, Any] = {"k": 9, "part_rows": 50, "n_reference": 1500, "seed": 3}
    exact = lazy_greedy(X, k=9)
    assert sizes.deep_parts(3000, 9, 50) == 1
    monkeypatch.setattr(sizes, "_TIMES_K", 30)
    assert sizes.handed_by_a_part(3000, 9, 50) == 5
    assert sizes.deep_parts(3000, 9, 50) == 120 / 300
    few = two_round_greedy(X, **asked)
    assert 120 < few.info["candidates"] < 250
    assert distance(few) < 1.05 * distance(exact)
    for engine in (Local(2), Shuffled(1)):
        assert two_round_greedy(X, engine=engine, **asked).equals(few)
    ordered = two_round_greedy(X[np.argsort(X[:, 0])], **asked)
    assert distance(ordered) < 1.05 * distance(exact)


@pytest.mark.parametrize(
    ("changed", "named"), [({"k": 8}, "k=9"), ({"seed": 4}, "seed=3"), ({"metric": "cosine"}, "metric=euclidean")]
)
def test_a_folder_of_another_call_is_refused(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    asked = {"k": 9, **SMALL}
    two_round_greedy(X, work=tmp_path / "w", **asked)
    refused(lambda: two_round_greedy(X, work=tmp_path / "w", **{**asked, **changed}), f"was begun with {named}")
    refused(lambda: two_round_greedy(X[:2000], work=tmp_path / "w", **asked), "was begun with rows=")


def test_a_folder_keeps_the_seed_that_a_call_without_one_goes_on_with(tmp_path: Path) -> None:
    asked = {**SMALL, "k": 9}
    del asked["seed"]
    first = two_round_greedy(X, work=tmp_path, **asked)
    again = two_round_greedy(X, work=str(tmp_path), **asked)
    assert again.seed == first.seed
    assert again.info["reused"] > 0
    assert again.indices.tolist() == first.indices.tolist()
    by_verb = kofn.select(X, method="two_round_greedy", work=tmp_path, **asked)
    assert (by_verb.seed, by_verb.info["reused"]) == (first.seed, again.info["reused"])
    refused(lambda: two_round_greedy(X, work=tmp_path, seed=4, **asked), f"was begun with seed={first.seed}")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    refused(lambda: two_round_greedy(X, k=3, work=tmp_path / "file", **SMALL), "cannot be made")


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    two_round_greedy(X, k=3, work=tmp_path, **SMALL)
    for text in ("{", "[]"):
        (tmp_path / "two_round_greedy" / "settings.json").write_text(text)
        for seed in (3, None):
            asked = {**SMALL, "k": 3, "seed": seed, "work": tmp_path}
            refused(lambda asked=asked: two_round_greedy(X, **asked), "settings.json cannot be read")


class Clock(Shuffled):
    """An engine on which the time is up, or Ctrl-C pressed, after so many tasks."""

    def __init__(self, after: int, stop: Any) -> None:
        super().__init__()
        self.after, self.stop = after, stop

    def map(self, *args: Any, **words: Any) -> Any:
        for result in super().map(*args, **words):
            yield result
            self.after -= 1
            if self.after == 0:
                self.stop()


@pytest.mark.parametrize("after", [1, 3, 7, 9])
@pytest.mark.parametrize("quotas", [False, True])
def test_ctrl_c_leaves_a_valid_prefix(after: int, quotas: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(rounds, "_FRAGMENT_ROWS", 500)
    words: dict[str, Any] = {"groups": np.arange(3000) % 3, "quotas": {1: (4, 5)}} if quotas else {}
    engine = Clock(after, lambda: signal.raise_signal(signal.SIGINT))
    plan = two_round_greedy(X, k=9, engine=engine, **words, **SMALL)
    assert plan.status == ("stopped" if after <= 6 else plan.status)
    assert len(set(plan.indices.tolist())) == len(plan)
    if quotas:
        assert 4 <= (plan.indices % 3 == 1).sum() <= 5


def test_a_limit_on_memory_is_refused_with_what_it_takes() -> None:
    refused(lambda: two_round_greedy(X, k=9, max_memory="1MB", **SMALL), "max_memory=1000000 is too little")


@pytest.mark.parametrize(("n", "d", "dtype"), [(6_000, 16, np.float32), (5_200, 128, np.float64)])
def test_the_memory_that_is_asked_for_is_about_what_is_held(n: int, d: int, dtype: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(dtype)
    asked = {"k": 12, "part_rows": 1_000, "n_reference": 2_000, "n_threads": 1}
    two_round_greedy(rows[:2_100], **asked)  # compiled code is loaded before the count begins
    with pytest.raises(kofn.InputError, match="give at least") as error:
        two_round_greedy(rows, max_memory=1, **asked)
    least = int(str(error.value).split("at least ")[1].split()[0])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        two_round_greedy(rows, max_memory=least, **asked)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before <= least <= 2 * (peak - before)


def test_bad_words_are_refused() -> None:
    for words, text in (
        ({"part_rows": 0}, "part_rows=0: ask for at least 1"),
        ({"n_reference": 0}, "n_reference=0: ask for at least 1"),
        ({"bound_rows": -1}, "bound_rows=-1: ask for at least 0"),
        ({"deal": "sorted"}, "deal='sorted': choose one of in_place, random"),
        ({"engine": "spork"}, "engine='spork': choose one of local, ray"),
    ):
        refused(lambda words=words: kofn.select(X, k=3, method="two_round_greedy", **words), text)


def test_a_pool_that_does_not_fit_names_the_method_for_it() -> None:
    refused(
        lambda: kofn.select(ArrayPool(X), k=3, method="lazy_greedy", max_memory="50kB"),
        "use method='two_round_greedy', which reads parts",
    )
    assert kofn.select(ArrayPool(X), k=3, method="lazy_greedy").equals(kofn.select(X, k=3, method="lazy_greedy"))


def test_another_engine_is_refused_by_what_runs_here_only() -> None:
    refused(
        lambda: kofn.select(X, k=3, method="lazy_greedy", engine="ray"),
        "use sparse_greedy, two_round_farthest_first, two_round_greedy",
    )
    refused(lambda: kofn.combine(rankings=[[1.0, 2], [2, 1]], engine="ray"), "runs on this machine only")


def test_auto_takes_parts_for_pools_other_engines_and_where_a_sample_would_be_thin() -> None:
    from kofn.core.dispatch import choose

    large = np.broadcast_to(np.float32(0), (1_000_000, 64))
    assert choose("select", {"X": large, "k": 100}) == "two_round_greedy"
    assert choose("select", {"X": large, "k": 100, "weights": np.ones(3), "include": [1]}) == "two_round_greedy"
    # 2,083 sampled rows are enough for ten picks; a budget, another metric or objective is none of its words.
    assert choose("select", {"X": large, "k": 10}) == "sampled_greedy"
    assert choose("select", {"X": large, "budget": 9.0, "costs": np.ones(3)}) == "sampled_greedy"
    assert choose("select", {"X": large, "k": 100, "objective": "facility_location"}) != "two_round_greedy"
    assert choose("select", {"X": large[:150_000], "k": 100}) == "sampled_greedy"
    assert choose("select", {"X": large[:1000], "k": 10}) == "lazy_greedy"
    assert choose("select", {"X": large[:1000], "k": 10, "engine": Local(1)}) == "two_round_greedy"
    assert choose("select", {"X": ArrayPool(X), "k": 10}) == "two_round_greedy"


def test_an_interrupt_between_the_rounds_leaves_a_stopped_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    first_round = rounds.Run._round_1

    def interrupted(self: Any, engine: Any, kept: Any, control: Any) -> Any:
        handed = first_round(self, engine, kept, control)
        control.interrupt()
        return handed

    monkeypatch.setattr(rounds.Run, "_round_1", interrupted)
    plan = two_round_greedy(np.random.default_rng(0).normal(size=(400, 3)), k=60, seed=0, part_rows=100)
    assert plan.status == "stopped"
    assert 0 < len(plan.indices) <= 60
