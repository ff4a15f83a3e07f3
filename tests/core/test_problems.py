"""Problems: the audit of every constraint, whose word counts, and ids that come with a frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from refusals import refused

import kofn
from kofn.core import problems
from kofn.core.checks import BrokenPlanError, KofnError, KofnWarning
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection
from kofn.core.registry import method
from kofn.selection.greedy import lazy_greedy

X = np.random.default_rng(0).normal(size=(6, 2))
NAMES = list("uvwxyz")


def picks(*rows: int, **fields: Any) -> Selection:
    return Selection(n=6, indices=np.array(rows, np.int64), gains=np.ones(len(rows)), **fields)


def labels(*bins: int, k: int = 2, **fields: Any) -> Assignment:
    return Assignment.from_labels(bins, k, **fields)


COSTS = {"costs": [1, 2, 3, 4, 5, 6]}
QUOTAS = {"groups": list("aabbcc"), "quotas": {"a": (1, 1), "b": (0, 1)}}
PAIRS = np.array([[0, 1]])
BREACHES: dict[str, tuple[str, dict[str, Any], Plan, str]] = {
    "another noun": ("select", {"X": X}, labels(0, 0, 0, 0, 0, 0), "select gives a Selection"),
    "another pool": ("select", {"X": X}, dataclasses.replace(picks(0), n=7), "n is 7, the pool has 6"),
    "dtype": ("select", {"X": X}, dataclasses.replace(picks(0), indices=np.array([0.0])), "indices have dtype float64"),
    "beyond the pool": ("select", {"X": X}, picks(6), "indices reach outside 0..5"),
    "gains": ("select", {"X": X}, dataclasses.replace(picks(0), gains=np.ones(2)), "2 gains for 1 picks"),
    "twice": ("select", {"X": X}, picks(1, 1), "an item is picked twice"),
    "too many": ("select", {"X": X, "k": 1}, picks(1, 2), "2 picks, k=1"),
    "too few": ("select", {"X": X, "k": 3}, picks(1, 2), "only 2 picks, k=3"),
    "whole costs": ("select", {"X": X, "budget": 8, **COSTS}, picks(2, 5), "cost 9 over the budget 8"),
    "costs": ("select", {"X": X, "budget": 0.3, "costs": [0.1] * 6}, picks(0, 1, 2, 3), "over the budget 0.3"),
    "quota above": ("select", {"X": X, **QUOTAS}, picks(0, 1), "group 'a' holds 2, its quota is (1, 1)"),
    "quota below": ("select", {"X": X, **QUOTAS}, picks(4), "group 'a' holds 0, its quota is (1, 1)"),
    "per item": (
        "select",
        {"scores": np.ones((2, 3)), "per_item": 1},
        picks(3, 5),
        "row 1 holds 2 entries, per_item=1",
    ),
    "include": ("select", {"X": X, "include": [3]}, picks(0), "1 items of include are not picked, row 3 for one"),
    "exclude": ("select", {"X": X, "exclude": [0, 3]}, picks(0, 3), "2 excluded items are picked, row 0 for one"),
    "indptr": (
        "assign",
        {"X": X},
        dataclasses.replace(labels(0, 0, 0, 0, 0, 0), indptr=np.array([0, 6])),
        "indptr does not fit the bins",
    ),
    "indptr falls": (
        "assign",
        {"X": X},
        dataclasses.replace(labels(0, 0, 0, 0, 0, 0), indptr=np.array([0, 2, 1, 3, 4, 5, 6])),
        "indptr decreases",
    ),
    "no such bin": ("assign", {"X": X}, labels(0, 1, 0, 0, 2, 0), "bins reach outside 0..1"),
    "bin twice": (
        "assign",
        {"X": X},
        Assignment.from_pairs([0, 0], [1, 1], n=6, k=2),
        "an item holds the same bin twice",
    ),
    "bin twice, apart": (
        "assign",
        {"X": X},
        dataclasses.replace(Assignment.from_pairs([0, 0, 0], [0, 1, 2], n=6, k=3), bins=np.array([1, 2, 1], np.int32)),
        "an item holds the same bin twice",
    ),
    "capacity": ("assign", {"X": X, "capacity": 2}, labels(0, 0, 0, 1, 1, -1), "bin 0 holds 3, over its capacity"),
    "bins an item": (
        "assign",
        {"X": X, "per_item": 1},
        Assignment.from_pairs([0, 0], [0, 1], n=6, k=2),
        "more than per_item=1",
    ),
    "small group": (
        "assign",
        {"X": X},
        labels(0, 0, 0, 0, 0, 1, options={"min_size": 2}),
        "bin 1 holds 1, less than min_size=2",
    ),
    "must link": (
        "assign",
        {"X": X},
        labels(0, 1, 0, 0, 0, 0, options={"must_link": PAIRS}),
        "rows 0 and 1 of must_link are not in one bin",
    ),
    "cannot link": (
        "assign",
        {"X": X},
        labels(0, 0, 0, 0, 0, 1, options={"cannot_link": PAIRS}),
        "rows 0 and 1 of cannot_link are in one bin",
    ),
    "margins": (
        "assign",
        {"scores": np.ones((2, 2)), "margins": ([1.0, 1.0], [1.0, 1.0])},
        Assignment.from_labels([0, 0], 2),
        "the column totals are off by 2 from margins",
    ),
    "medoid twice": ("assign", {"X": X}, labels(0, 0, 0, 0, 0, 1, medoids=np.array([1, 1])), "a medoid stands twice"),
    "no such medoid": ("assign", {"X": X}, labels(0, 0, 0, 0, 0, 1, medoids=np.array([1, 6])), "medoid is not an item"),
    "amounts": (
        "allocate",
        {"curves": np.ones((3, 2))},
        Allocation(n=3, amounts=np.ones(2), values=np.ones(3)),
        "2 amounts and 3 values for 3 items",
    ),
    "overspent": (
        "allocate",
        {"curves": np.ones((2, 2))},
        Allocation(n=2, amounts=np.ones(2), values=np.ones(2), used={"budget": 3}, budget={"budget": 2}),
        "budget: used 3 over the budget 2",
    ),
    "no order": (
        "combine",
        {"rankings": np.ones((3, 2))},
        Blend(n=3, result=np.array([0, 0, 1]), form="order"),
        "not an order of the alternatives",
    ),
}


@pytest.mark.parametrize(("verb", "given", "plan", "says"), BREACHES.values(), ids=BREACHES)
def test_the_audit_names_the_breach(verb: str, given: dict[str, Any], plan: Plan, says: str) -> None:
    breaches = problems.build(verb, given).audit(plan)
    assert any(says in breach for breach in breaches), breaches


def test_sound_plans_pass() -> None:
    given = {"X": X, "k": 2, "include": [3], "exclude": [0], **QUOTAS}
    assert problems.build("select", given).audit(picks(1, 3)) == []
    assert problems.build("select", {"X": X, "k": 3, "budget": 8, **COSTS}).audit(picks(1, 3)) == []
    assert problems.build("select", {"X": X, "k": 3}).audit(picks(1, status="stopped")) == []
    assert problems.build("assign", {"X": X, "capacity": 5}).audit(labels(0, 0, 0, 0, 0, 1)) == []


def test_a_plan_cannot_tell_the_auditor_to_look_away() -> None:
    """That fewer than k picks will do is declared at the method, not in the plan that is audited."""

    def says_so(X: Any, k: int) -> Selection:
        return Selection(n=len(X), indices=np.arange(k - 1), gains=np.ones(k - 1), info={"at_most_k": True})

    with pytest.raises(BrokenPlanError, match="only 2 picks, k=3"):
        kofn.select(X, k=3, method=says_so)

    @method("select", cost="", exact="", paper="", at_most_k=True)
    def modest(X: Any, *, k: int) -> Selection:
        """Pick one item fewer than asked."""
        return says_so(X, k)

    assert len(modest(X, k=3)) == 2


def test_an_own_rule_that_breaks_its_problem_is_told_in_words() -> None:
    with pytest.raises(KofnError, match="<lambda> broke its problem: only 2 picks, k=3"):
        kofn.select(X, k=3, method=lambda X, k: [0, 1])


class TestIdsOfFrames:
    frame = pd.DataFrame(X, columns=["a", "b"], index=NAMES)

    def test_a_pandas_index_is_the_ids(self) -> None:
        for plan in (kofn.select(self.frame, k=2), lazy_greedy(self.frame, k=2)):
            assert plan.ids is not None
            assert plan.ids.tolist() == NAMES
            assert plan.picked_ids.tolist() == [NAMES[row] for row in plan]
            assert self.frame.loc[plan.picked_ids].equals(self.frame.iloc[plan])
        assert kofn.select(self.frame, k=2, include=["y"]).picked_ids[0] == "y"
        assert kofn.assign(self.frame, k=2, method="pam").to_frame()["id"].to_list() == NAMES
        assert kofn.select(scores=self.frame["a"], k=1).picked_ids.tolist() == [self.frame["a"].idxmax()]
        part = pd.DataFrame(X)[2:]
        assert set(kofn.select(part, k=2).picked_ids) <= {2, 3, 4, 5}

    def test_an_index_that_names_no_rows_is_none(self) -> None:
        for index in (None, [0, 0, 1, 1, 2, 2], [1.0, None, 2.0, 3.0, 4.0, 5.0]):
            assert kofn.select(pd.DataFrame(X, index=index), k=2).ids is None
        nested = pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]])
        assert kofn.select(pd.DataFrame(X, index=nested), k=2).ids is None
        assert kofn.select(self.frame, k=2, ids=range(6)).ids.tolist() == list(range(6))

    def test_ids_may_name_a_column(self) -> None:
        plain = kofn.select(X, k=3)
        for frame in (
            pl.DataFrame({"a": X[:, 0], "name": NAMES, "b": X[:, 1]}),
            pd.DataFrame({"a": X[:, 0], "name": NAMES, "b": X[:, 1]}),
        ):
            plan = kofn.select(frame, k=3, ids="name")
            assert plan.picked_ids.tolist() == [NAMES[row] for row in plain]
        refused(lambda: kofn.select(frame, k=3, ids="nam"), "X has no column 'nam'; did you mean 'name'?")
        numbers = pl.DataFrame({"a": X[:, 0], "b": X[:, 1]})
        refused(lambda: kofn.select(numbers, k=3, ids="c"), "ids='c': X has no such column")
        refused(lambda: kofn.select(X, k=3, ids="name"), "ids='name': X is no table")

    def test_also_where_distances_are_derived(self) -> None:
        plan = kofn.assign(self.frame, method="fedcollab", weights=[5] * 6)
        assert plan.ids.tolist() == NAMES


def test_a_text_is_taken_for_a_path_only_where_paths_are_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X = [[0.0, 1.0], [1.0, 0.5], [2.0, 2.0]]
    before = kofn.select(X, k=1, metric="cosine").problem
    (tmp_path / "cosine").write_text("a file named like a metric")
    assert kofn.select(X, k=1, metric="cosine").problem == before


def test_a_long_objective_is_no_file_name():
    objective = " + ".join(f"0.1*graph_cut(lam=0.{i})" for i in range(1, 15))
    assert len(objective) > 255
    assert len(kofn.select([[0.0], [1.0], [3.0]], k=2, objective=objective)) == 2


def test_a_secret_seed_is_not_in_the_digest():
    words = {"k": 1, "method": "private_streaming", "users": [[0.0], [1.0]], "epsilon": 1.0}
    plans = [kofn.select([[0.0], [1.0], [3.0]], seed=seed, **words) for seed in (1, 2)]
    assert plans[0].problem == plans[1].problem


AGES = np.array([20.0, 30, 40, 50, 60, 71])


@pytest.mark.parametrize("library", [pd, pl])
def test_columns_in_unlike_units_are_said_of_tables(library: Any) -> None:
    def table(**columns: Any) -> Any:
        return library.DataFrame(columns)

    unlike = table(age=AGES, income=AGES * 1000)
    for call in (lambda: kofn.select(unlike, k=2), lambda: kofn.assign(unlike, k=2)):
        with pytest.warns(KofnWarning, match="'income' spreads 1e\\+03 times as widely as 'age'") as caught:
            call()
        assert caught[0].filename == __file__
    # An error in this suite: what follows must be silent.
    kofn.select(table(age=AGES, years=AGES * 20, same=np.ones(6)), k=2)
    kofn.select(unlike, k=2, objective="feature_based")
    kofn.select(unlike.to_numpy(), k=2)


def test_names_of_columns_are_no_values() -> None:
    table = pd.DataFrame({"x": X[:, 0], "g": NAMES})
    refused(lambda: kofn.select(X, k=2, groups="g", quotas={"u": (1, 1)}), "groups='g': give one value an item")
    refused(lambda: kofn.select(X, budget=2, costs="x"), "of a table's column, costs=df['x']")
    refused(lambda: kofn.select(X, k=2, weights="x"), "weights=df['x']")
    assert len(kofn.select(table[["x"]], k=2, groups=table["g"], quotas={"u": (1, 1)})) == 2


def test_names_that_people_bring_depend_on_the_verb() -> None:
    refused(lambda: kofn.assign(scores=np.ones((4, 3)), top_k=2), "did you mean 'per_item'?")
    refused(lambda: kofn.select(X, top_k=2), "did you mean 'k'?")
    refused(lambda: kofn.select(X, k=2, objective="facility-location"), "did you mean 'facility_location'?")
