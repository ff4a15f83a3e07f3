"""Methods of the user's own, and those that are derived from others: what they get, and what they are refused for."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn import _index
from kofn.core import dispatch
from kofn.core.checks import BrokenPlanError
from kofn.core.plans import Assignment, Selection
from kofn.core.registry import VERBS, method

INDEX = {verb: _index.entries(verb) for verb in VERBS}
X = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
SCORES = np.array([[3.0, 1.0], [2.0, 5.0], [4.0, 4.5]])


class TestOwnRule:
    def test_indices_become_a_plan(self):
        plan = kofn.select(X, k=2, method=lambda X, k: np.argsort(-X[:, 0])[:k], ids=list("abcde"))
        assert isinstance(plan, Selection)
        assert plan.indices.tolist() == [4, 3]
        assert plan.ids[plan.indices].tolist() == ["e", "d"]
        assert np.isnan(plan.value)
        assert plan.method == "<lambda>"
        assert plan.status == "heuristic"

    def test_it_sees_checked_arguments(self):
        seen = {}

        def rule(**words):
            seen.update(words)
            return [0]

        kofn.select([[1, 2], [3, 4]], k=1, exclude=["b"], ids=["a", "b"], method=rule)
        assert seen["X"].dtype == np.float64
        assert seen["exclude"].tolist() == [1]
        assert "ids" not in seen

    def test_labels_amounts_and_results_too(self):
        a = kofn.assign(X, k=2, method=lambda X, k: (X[:, 0] > 3).astype(int))
        assert isinstance(a, Assignment)
        assert a.labels.tolist() == [0, 0, 1, 1, 1]
        assert kofn.assign(X, method=lambda X: [0, 0, 2, 2, -1]).k == 3
        b = kofn.allocate([[2.0, 1.0], [3.0, 1.0]], budget=1, method=lambda curves, budget: np.array([0, 1]))
        assert b.amounts.tolist() == [0, 1]
        m = kofn.combine([[1.0], [3.0]], method=lambda members: np.median(members, axis=0))
        assert (m.result.tolist(), m.form, m.n) == ([2.0], "none", 2)

    def test_a_plan_is_taken_as_it_is(self):
        given = Selection(n=5, indices=np.array([1, 0]), gains=np.array([2.0, 1.0]), value=3.0)
        plan = kofn.select(X, k=2, method=lambda X, k: given)
        assert plan.value == 3.0
        assert plan.gains.tolist() == [2.0, 1.0]

    def test_it_may_have_options_and_be_an_object(self):
        class Rule:
            def __call__(self, X, k, step=1):
                return np.arange(0, k * step, step)

        plan = kofn.select(X, k=2, method=Rule(), options={"step": 2})
        assert plan.indices.tolist() == [0, 2]
        assert plan.options == {"step": 2}

    def test_a_registered_function_is_a_method_without_being_in_the_index(self):
        @method("select", cost="", exact="", paper="")
        def last(X, *, k, offset: int = 0):
            """Take the last ones."""
            index = np.arange(len(X) - k, len(X)) - offset
            return Selection(n=len(X), indices=index, gains=np.full(k, np.nan))

        assert kofn.select(X, k=2, method=last).indices.tolist() == [3, 4]
        assert kofn.select(X, k=2, method=last, options={"offset": 1}).indices.tolist() == [2, 3]
        assert last(X, k=1).indices.tolist() == [4]
        refused(lambda: kofn.select(X, k=2, method=last, weights=np.ones(5)), "method='last' does not take weights")
        refused(
            lambda: kofn.select(X, k=2, method=last, options={"ofset": 1}),
            "method='last' has no option 'ofset'; its options: offset=0; did you mean 'offset'?",
        )
        assert kofn.assign([[0.0], [1.0]], k=1, method=by_distance).labels.tolist() == [0, 0]

    BROKEN: ClassVar = {
        "too many": (lambda X, k: [0, 1, 2], "3 picks, k=2"),
        "too few": (lambda X, k: [0], "only 1 picks, k=2"),
        "twice": (lambda X, k: [1, 1], "an item is picked twice"),
        "outside": (lambda X, k: [0, 5], "indices reach outside 0..4"),
        "negative": (lambda X, k: [0, -1], "indices reach outside 0..4"),
    }

    @pytest.mark.parametrize(("rule", "says"), BROKEN.values(), ids=BROKEN)
    def test_its_answer_is_audited(self, rule, says):
        with pytest.raises(BrokenPlanError, match=says):
            kofn.select(X, k=2, method=rule)

    def test_constraints_are_audited(self):
        with pytest.raises(BrokenPlanError, match="cost 5 over the budget 3"):
            kofn.select(X, budget=3, costs=[2, 3, 1, 1, 1], method=lambda **_: [0, 1])
        with pytest.raises(BrokenPlanError, match="over the budget"):
            kofn.select(X, budget=0.3, costs=[0.2, 0.2, 1, 1, 1], method=lambda **_: [0, 1])
        with pytest.raises(BrokenPlanError, match=r"group 'a' holds 0, its quota is \(1, None\)"):
            kofn.select(X, k=1, groups=list("abbbb"), quotas={"a": (1, None)}, method=lambda **_: [1])
        with pytest.raises(BrokenPlanError, match="1 items of include are not picked, row 3 for one"):
            kofn.select(X, k=1, include=[3], method=lambda **_: [1])
        with pytest.raises(BrokenPlanError, match="1 excluded items are picked, row 1 for one"):
            kofn.select(X, k=1, exclude=[1], method=lambda **_: [1])
        with pytest.raises(BrokenPlanError, match=r"budget: used 4\.0 over the budget 1"):
            kofn.allocate([[2.0, 1.0], [3.0, 1.0]], budget=1, method=lambda **_: [2, 2])
        with pytest.raises(BrokenPlanError, match="bin 0 holds 3, over its capacity"):
            kofn.assign(scores=SCORES, capacity=2, method=lambda **_: [0, 0, 0])

    REFUSED: ClassVar = {
        "strange answer": (lambda: kofn.select(X, k=2, method=lambda **_: "ab"), "returned str; return row numbers"),
        "floats": (lambda: kofn.select(X, k=2, method=lambda **_: [0.0, 1.0]), "returned list; return row numbers"),
        "a word it lacks": (
            lambda: kofn.select(X, k=2, weights=np.ones(5), method=lambda X, k: [0, 1]),
            "method=<lambda> does not take weights; its arguments: X, k",
        ),
        "an option it lacks": (
            lambda: kofn.select(X, k=2, method=lambda X, k: [0, 1], options={"a": 1}),
            "does not take a; its arguments: X, k",
        ),
        "labels of another kind": (
            lambda: kofn.assign(X, k=2, method=lambda **_: ["a"] * 5),
            "return one bin number an item",
        ),
        "labels in part": (lambda: kofn.assign(X, k=2, method=lambda **_: [0.9] * 5), "return one bin number an item"),
        "no labels": (lambda: kofn.assign(X, method=lambda **_: None), "returned None; return one bin number"),
        "few labels": (lambda: kofn.assign(X, method=lambda **_: []), "return one bin number"),
        "labels beyond all": (lambda: kofn.assign(X, method=lambda **_: [2**40] * 5), "return one bin number"),
        "ragged": (lambda: kofn.assign(X, method=lambda **_: [[1], [1, 2]]), "return one bin number"),
        "amounts of another kind": (
            lambda: kofn.allocate([[2.0, 1.0]], budget=1, method=lambda **_: ["a"]),
            "returned ['a']; return one amount an item",
        ),
        "amounts that are missing": (
            lambda: kofn.allocate([[2.0, 1.0]], budget=1, method=lambda **_: [np.nan]),
            "return one amount an item",
        ),
        "amounts below zero": (
            lambda: kofn.allocate([[2.0, 1.0]], budget=1, method=lambda **_: [-1]),
            "return one amount >= 0 for each of 1 items",
        ),
        "nothing blended": (
            lambda: kofn.combine([[1.0]], method=lambda **_: None),
            "returned nothing",
        ),
        "bad words all the same": (lambda: kofn.select([[np.nan]], k=1, method=lambda **_: [0]), "row 0, column 0"),
    }

    @pytest.mark.parametrize(("call", "says"), REFUSED.values(), ids=REFUSED)
    def test_refusals(self, call, says):
        refused(call, says)

    def test_settings_it_does_not_know_are_dropped(self):
        assert len(kofn.select(X, k=2, seed=3, n_threads=2, method=lambda X, k: [0, 1])) == 2


@method("assign", cost="O(n)", exact="nothing", paper="a rule of thumb")
def by_distance(*, distances, k):
    """Send each item to the nearer of the first k."""
    return Assignment.from_labels(distances[:, :k].argmin(axis=1), k)


class TestDerived:
    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch):
        monkeypatch.setitem(INDEX["assign"], "by_distance", by_distance.__kofn__.entry())

    def test_distances_come_from_rows(self):
        wide = np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 5.0]])
        assert kofn.assign(wide, k=2, method="by_distance").labels.tolist() == [0, 1, 0]
        plan = kofn.assign(wide, k=2, metric="cosine", method="by_distance")
        again = kofn.assign(distances=[[0, 1, 0], [1, 0, 1], [0, 1, 0]], k=2, method="by_distance")
        assert plan.labels.tolist() == again.labels.tolist() == [0, 1, 0]

    def test_a_call_with_rows_fits_a_method_of_distances(self):
        entry = INDEX["assign"]["by_distance"]
        assert entry.takes({"X", "k"}) == {"distances", "k"}
        assert entry.takes({"X", "k", "metric"}) == {"distances", "k"}
        assert entry.takes({"X", "distances", "k"}) is None
        assert entry.takes({"distances", "k", "metric"}) is None
        assert entry in kofn.methods("assign", given=("X", "k"))
        assert entry not in kofn.methods("assign", given=("scores", "k"))

    def test_what_does_not_fit_in_memory_is_refused(self):
        refused(
            lambda: kofn.assign(np.zeros((1000, 1)), k=2, method="by_distance", max_memory="1MB"),
            "distances from X would take 8.0 MB, over max_memory=1.0 MB",
        )

    def test_rows_are_checked_before(self):
        refused(lambda: kofn.assign([[0.0], [np.inf]], k=1, method="by_distance"), "X at row 1, column 0 is infinite")


class TestPlugins:
    def test_an_entry_point_is_a_method(self, monkeypatch):
        class Point:
            value = f"{__name__}:by_distance"

            def load(self):
                return by_distance

        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point()])
        dispatch._plugins.cache_clear()
        try:
            assert "by_distance" in dispatch.methods_of("assign")
            assert kofn.assign(X, k=2, method="by_distance").labels[0] == 0
        finally:
            dispatch._plugins.cache_clear()
