"""Uncertainty, anchored subpools, stream queries and annotator pairs against their definitions and brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from refusals import refused
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import (
    StreamQuery,
    anchored_subpool,
    annotator_accuracy,
    annotator_pairs,
    subpool_index,
    uncertainty,
)

RNG = np.random.default_rng(5)
CLOUD = RNG.normal(size=(300, 6))
SIDES = (CLOUD[:, 0] > 0).astype(int)
LABELS = np.where(np.arange(300) < 40, SIDES, -1)


class TestUncertainty:
    def test_is_what_the_kinds_say(self) -> None:
        table = RNG.dirichlet(np.ones(4), 50)
        ranked = np.sort(table, axis=1)[:, ::-1]
        assert np.allclose(uncertainty(table), stats.entropy(table, axis=1))
        assert np.allclose(uncertainty(table, kind="margin"), 1 - ranked[:, 0] + ranked[:, 1])
        assert np.allclose(uncertainty(table, kind="least_confident"), 1 - ranked[:, 0])
        assert uncertainty([[1.0, 0.0], [0.5, 0.5]]).tolist() == [0.0, math.log(2)]

    @pytest.mark.parametrize("kind", ["entropy", "margin", "least_confident"])
    def test_a_single_class_leaves_no_doubt(self, kind: str) -> None:
        assert uncertainty(np.ones((3, 1)), kind=kind).tolist() == [0.0, 0.0, 0.0]

    def test_takes_any_classifier(self) -> None:
        model = LogisticRegression().fit(CLOUD, SIDES)
        assert uncertainty(model, CLOUD).tolist() == uncertainty(model.predict_proba(CLOUD)).tolist()
        plan = kofn.select(scores=uncertainty(model, CLOUD), k=10, method="top_k")
        assert np.abs(model.decision_function(CLOUD))[plan.indices].max() < 0.5

    def test_refuses_a_classifier_without_probabilities(self) -> None:
        refused(
            lambda: uncertainty(SVC().fit(CLOUD, SIDES), CLOUD),
            "probabilities: SVC has no predict_proba; give a classifier that has it, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV",
        )
        refused(
            lambda: uncertainty(LogisticRegression(), CLOUD),
            "probabilities: LogisticRegression is not fitted; call its fit first",
        )
        refused(
            lambda: uncertainty(LogisticRegression()),
            "probabilities is a classifier (LogisticRegression); give X, the rows to ask it about",
        )

    def test_refuses_what_is_no_probability(self) -> None:
        refused(
            lambda: uncertainty([0, 1, 1]),
            "probabilities has shape (3,); labels and decision values are no probabilities: give predict_proba(X), "
            "shape (n, classes)",
        )
        refused(
            lambda: uncertainty([[0.5, 0.5], [0.5, np.nan]]),
            "probabilities at row 1, column 1 is NaN; drop or impute those rows first",
        )
        refused(
            lambda: uncertainty([[0.5, 0.5], [0.5, 0.6]]),
            "probabilities at row 1 sum to 1.1, not to 1; give predict_proba(X)",
        )
        refused(
            lambda: uncertainty([[1.5, -0.5]]),
            "probabilities at row 0, column 1 is -0.5; give predict_proba(X)",
        )
        refused(
            lambda: uncertainty([np.ones((2, 2)), np.ones((2, 2))]),
            "probabilities holds 2 tables, one an output; score each output on its own",
        )
        refused(
            lambda: uncertainty([[0.5, 0.5]], CLOUD),
            "X goes with a classifier; the probabilities of its rows are already given",
        )


def plain_subpool(X: NDArray[np.float64], y: NDArray[np.int64], anchors: list[int], k: int, width: int, cosine: bool):
    """The algorithm of the paper, row by row, with as many neighbours as k different rows need."""
    points = X / np.linalg.norm(X, axis=1, keepdims=True) if cosine else X
    open_rows = np.flatnonzero(y == -1)
    while True:
        heard: dict[int, list[float]] = {}
        for anchor in anchors:
            gaps = [float(np.linalg.norm(points[row] - points[anchor])) for row in open_rows]
            for place in np.argsort(gaps, kind="stable")[:width]:
                row = int(open_rows[place])
                near = float(points[row] @ points[anchor]) if cosine else -gaps[place]
                heard.setdefault(row, []).append(near)
        if len(heard) >= k:
            break
        width += 1
    means = {row: sum(values) / len(values) for row, values in heard.items()}
    return sorted(means, key=lambda row: -means[row])[:k], means


class TestAnchoredSubpool:
    @pytest.mark.parametrize("metric", ["cosine", "euclidean"])
    @pytest.mark.parametrize(("k", "width"), [(30, 10), (90, 2), (12, 25)])
    def test_is_the_papers_algorithm(self, metric: str, k: int, width: int) -> None:
        plan = anchored_subpool(CLOUD, y=LABELS, k=k, metric=metric, seed=3, n_anchors=4, n_neighbors=width)
        anchors = plan.info["anchors"].tolist()
        picks, means = plain_subpool(CLOUD, LABELS, anchors, k, width, metric == "cosine")
        assert plan.indices.tolist() == picks
        assert np.allclose(plan.gains, [means[row] for row in picks])
        assert np.bincount(LABELS[anchors]).tolist() == [4, 4]
        assert (LABELS[plan.indices] == -1).all()

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = anchored_subpool(CLOUD, y=LABELS, k=50, seed=1)
        monkeypatch.setattr("kofn.selection.labels._anchored_subpool._BLOCK", 160)
        assert anchored_subpool(CLOUD, y=LABELS, k=50, seed=1).equals(whole)

    def test_far_from_the_origin_it_still_tells_rows_apart(self) -> None:
        moved = anchored_subpool(CLOUD + 1e6, y=LABELS, k=50, metric="euclidean", seed=1)
        assert set(moved.indices) == set(anchored_subpool(CLOUD, y=LABELS, k=50, metric="euclidean", seed=1).indices)

    def test_anchors_are_spread_out_by_squared_distance(self) -> None:
        X = np.array([[0.0], [1.0], [3.0], [9.0], [10.0]])
        counts = np.zeros((4, 4))
        for seed in range(1500):
            a, b = anchored_subpool(X, y=[0, 0, 0, 0, -1], k=1, metric="euclidean", seed=seed, n_anchors=2).info[
                "anchors"
            ]
            counts[a, b] += 1
        assert stats.chisquare(counts.sum(axis=1)).pvalue > 1e-6
        gaps = (X[:4] - X[:4].T) ** 2
        for first in range(4):
            others = np.delete(np.arange(4), first)
            share = gaps[first, others] / gaps[first].sum()
            assert stats.chisquare(counts[first, others], share * counts[first].sum()).pvalue > 1e-6

    def test_kinds_of_anchors(self) -> None:
        scores = RNG.random(300)
        plan = anchored_subpool(CLOUD, y=LABELS, k=20, scores=scores, n_anchors=3)
        for side in (0, 1):
            rows = np.flatnonzero(side == LABELS)
            assert set(rows[np.argsort(-scores[rows])[:3]]) <= set(plan.info["anchors"])
        assert len(anchored_subpool(CLOUD, y=LABELS, k=20, anchors="all", n_anchors=3).info["anchors"]) == 40
        assert len(anchored_subpool(CLOUD, y=LABELS, k=20, anchors="random", n_anchors=3).info["anchors"]) == 6
        copies = anchored_subpool(np.ones((9, 2)), y=[0] * 6 + [-1] * 3, k=3, n_anchors=4, seed=0)
        assert len(set(copies.info["anchors"])) == 4
        assert copies.indices.tolist() == [6, 7, 8]

    def test_labels_may_be_text_and_rows_excluded(self) -> None:
        words = np.where(LABELS == -1, "?", np.where(LABELS == 1, "spam", "ham"))
        plan = anchored_subpool(CLOUD, y=LABELS, k=25, seed=9)
        # Classes are taken in the order of their names.
        swapped = np.where(LABELS == -1, "?", np.where(LABELS == 1, "b", "a"))
        assert (
            anchored_subpool(CLOUD, y=swapped, k=25, seed=9, unlabelled="?").indices.tolist() == plan.indices.tolist()
        )
        assert len(anchored_subpool(CLOUD, y=words, k=25, seed=9, unlabelled="?")) == 25
        without = anchored_subpool(CLOUD, y=LABELS, k=25, seed=9, exclude=plan.indices[:5])
        assert not set(without.indices) & set(plan.indices[:5].tolist())

    def test_an_index_answers_in_place_of_the_pool_and_its_work_does_not_grow(self) -> None:
        pytest.importorskip("usearch")
        evals = []
        for n in (2_000, 8_000):
            X = np.random.default_rng(1).normal(size=(n, 8)).astype(np.float32)
            y = np.where(np.arange(n) < 60, X[:, 0] > 0, -1)
            index = subpool_index(X, n_threads=1)
            exact = anchored_subpool(X, y=y, k=200, seed=2)
            asked = anchored_subpool(X, y=y, k=200, seed=2, index=index)
            assert len(set(exact.indices) & set(asked.indices)) >= 190
            assert (y[asked.indices] == -1).all()
            evals.append((asked.info["distance_evals"], exact.info["distance_evals"]))
        assert evals[1][1] > 3.9 * evals[0][1]
        assert evals[1][0] < 1.5 * evals[0][0]

    def test_refuses(self) -> None:
        refused(
            lambda: anchored_subpool(CLOUD, y=SIDES, k=5),
            "y: all 300 rows are labelled, none holds unlabelled=-1; nothing is left to label",
        )
        refused(
            lambda: anchored_subpool(CLOUD, y=np.full(300, -1), k=5),
            "y: no row is labelled, all hold unlabelled=-1; label a few first (random_sample)",
        )
        refused(
            lambda: anchored_subpool(CLOUD, y=LABELS, k=261),
            "k=261, but 260 of 300 rows are neither labelled nor excluded; lower k or exclude fewer",
            InfeasibleError,
        )
        refused(
            lambda: anchored_subpool(CLOUD, y=LABELS, k=5, anchors="scores"),
            "scores go with anchors='scores', and only with it; anchors is 'scores'",
        )
        refused(
            lambda: anchored_subpool(CLOUD, y=LABELS, k=5, scores=np.ones(300), anchors="random"),
            "scores go with anchors='scores', and only with it; anchors is 'random'",
        )

    def test_an_index_needs_usearch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "usearch.index", None)
        refused(lambda: subpool_index(CLOUD), "subpool_index needs usearch; pip install 'kofn[neighbors]'")

    def test_refuses_an_index_of_something_else(self) -> None:
        pytest.importorskip("usearch")
        refused(
            lambda: anchored_subpool(CLOUD, y=LABELS, k=5, index=subpool_index(CLOUD[:, :2])),
            "index has 2 columns, X has 6; build it with subpool_index(X)",
        )
        refused(
            lambda: anchored_subpool(CLOUD, y=LABELS, k=5, metric="euclidean", index=subpool_index(CLOUD)),
            "index measures 'cos', metric='euclidean'; use subpool_index(X, metric=...)",
        )
        refused(
            lambda: anchored_subpool(CLOUD[:50], y=LABELS[:50], k=5, index=subpool_index(CLOUD)),
            "index holds 300 rows, X has 50; build it from this X",
        )
        refused(
            lambda: anchored_subpool(CLOUD, y=LABELS, k=50, index=subpool_index(CLOUD[:60])),
            "the index holds 20 open rows, k=50; lower k or index every row of X",
            InfeasibleError,
        )


def plain_queries(confidence: NDArray[np.float64], budget: float, step: float, window: int) -> list[int]:
    """Zliobaite's variable uncertainty, with the exact limit on what is spent."""
    threshold, u, spent, asked = 1.0, 0.0, 0, []
    for row, sure in enumerate(confidence):
        bought = False
        if u / window < budget and spent < math.ceil(budget * (row + 1) - 1e-9):
            bought = bool(sure < threshold)
            threshold *= 1 - step if bought else 1 + step
        u = u * (window - 1) / window + bought
        spent += bought
        if bought:
            asked.append(row)
    return asked


STRATEGIES = ["variable", "randomized_variable", "split", "fixed", "random"]


class TestStreamQuery:
    @pytest.mark.parametrize(("budget", "step", "window"), [(0.1, 0.01, 100), (0.3, 0.1, 20), (1.0, 0.01, 1)])
    def test_is_the_papers_rule(self, budget: float, step: float, window: int) -> None:
        table = RNG.dirichlet(np.ones(3), 800)
        query = StreamQuery(budget, step=step, window=window)
        asked = np.flatnonzero(query.ask(table)).tolist()
        assert asked == plain_queries(table.max(axis=1), budget, step, window)
        assert asked == query.plan.indices.tolist()
        assert np.allclose(query.plan.gains, 1 - table.max(axis=1)[asked])

    @pytest.mark.parametrize("strategy", STRATEGIES)
    @pytest.mark.parametrize("budget", [0.05, 0.1, 0.3])
    def test_never_spends_more_and_mostly_all(self, strategy: str, budget: float) -> None:
        table = RNG.dirichlet(np.ones(3), 4000)
        query = StreamQuery(budget, strategy=strategy, seed=1, threshold=0.9 if strategy == "fixed" else None)
        asked = query.ask(table)
        spent = np.cumsum(asked)
        assert (spent <= np.ceil(budget * np.arange(1, 4001) - 1e-9)).all()
        assert query.spent == spent[-1] == len(query.plan)
        assert abs(query.spent - round(4000 * budget)) <= round(40 * budget)

    def test_what_was_saved_is_not_spent_at_once(self) -> None:
        query = StreamQuery(0.1, strategy="fixed", threshold=0.5)
        assert query.ask(np.full(5000, 0.9)).sum() == 0
        assert query.ask(np.full(100, 0.1)).sum() <= 0.1 * 100 + 0.1 * 100

    def test_prefers_what_is_unsure(self) -> None:
        table = RNG.dirichlet(np.ones(3), 4000)
        unsure = {}
        for strategy in ("variable", "randomized_variable", "random"):
            query = StreamQuery(0.1, strategy=strategy, seed=2)
            query.ask(table)
            unsure[strategy] = query.plan.gains.mean()
        assert unsure["variable"] > unsure["randomized_variable"] + 0.03 > unsure["random"] + 0.03

    def test_randomised_asks_about_sure_rows_too(self) -> None:
        sure = np.tile([0.5, 0.999], 2000)
        plain, mixed = StreamQuery(0.2, seed=3), StreamQuery(0.2, strategy="randomized_variable", seed=3)
        shares = [float(query.ask(sure).reshape(-1, 2)[200:].mean(axis=0)[1]) for query in (plain, mixed)]
        assert shares[1] > 3 * shares[0]

    def test_the_fixed_threshold_of_the_literature(self) -> None:
        query = StreamQuery(0.2, strategy="fixed")
        query.ask([[0.25, 0.25, 0.25, 0.25]])
        assert query.threshold == pytest.approx(0.25 + 0.2 * 0.75)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_batches_of_any_size_and_a_restored_state_go_on_alike(self, strategy: str) -> None:
        table = RNG.dirichlet(np.ones(4), 500)
        whole = StreamQuery(0.2, strategy=strategy, seed=7, window=30)
        expected = whole.ask(table)
        one = StreamQuery(0.2, strategy=strategy, seed=7, window=30)
        first = [one.ask(table[low : low + 3]) for low in range(0, 240, 3)]
        other = StreamQuery(0.2, strategy=strategy, seed=1, window=30)
        other.load_state_dict(one.state_dict())
        rest = [other.ask(table[row : row + 1]) for row in range(240, 500)]
        assert np.concatenate([*first, *rest]).tolist() == expected.tolist()
        # The digest is of the events as they came.
        assert dataclasses.replace(other.plan, problem=whole.plan.problem).equals(whole.plan)
        assert other.state_dict()["recent"] == whole.state_dict()["recent"]

    def test_a_refused_label_is_not_charged(self) -> None:
        query = StreamQuery(0.5, window=10)
        asked = np.flatnonzero(query.ask(np.full(20, 0.5)))
        spent, recent = query.spent, query.recent
        query.tell(refused=asked[-1:])
        assert query.spent == spent - 1 == len(query.plan)
        assert query.recent == pytest.approx(recent - 0.9 ** (19 - asked[-1]))
        refused(
            lambda: query.tell(refused=asked[-1:]),
            f"refused names row {asked[-1]}, which was not asked about; give positions of plan.indices",
        )
        refused(
            lambda: query.tell(refused=[asked[0], asked[0]]),
            "refused names a row twice; give positions of plan.indices",
        )

    def test_its_plan_is_saved(self, tmp_path) -> None:
        query = StreamQuery(0.5, window=10)
        assert (query.plan.n, len(query.plan)) == (0, 0)
        query.ask([[0.6, 0.4], [0.9, 0.1]])
        assert kofn.core.plans.Plan.load(query.plan.save(tmp_path / "plan.npz")).equals(query.plan)

    def test_refuses(self) -> None:
        refused(
            lambda: StreamQuery(0.005),
            "budget=0.005 is less than one label in window=100 rows; use window >= 200 or raise the budget",
        )
        refused(lambda: StreamQuery(0.0), "budget=0.0 is less than one label in window=100 rows; raise it")
        refused(lambda: StreamQuery(1.5), "budget=1.5: give a number between 0 and 1")
        refused(lambda: StreamQuery(0.5, step=1.0), "step=1.0: give a number between 0 and 1")
        refused(lambda: StreamQuery(0.5, deviation=0.0), "deviation=0.0: give a number above 0")
        refused(lambda: StreamQuery(0.5, threshold=-1), "threshold=-1: give a number above 0")
        refused(
            lambda: StreamQuery(0.5, strategy="varable"),
            "strategy='varable': choose one of variable, randomized_variable, split, fixed, random; did you mean "
            "'variable'?",
        )
        query = StreamQuery(0.5, window=10)
        query.ask([[0.5, 0.5]])
        refused(
            lambda: query.ask([[0.3, 0.3, 0.4]]),
            "probabilities has 3 columns, the batches before had 2; keep one column a class for the whole stream",
        )
        refused(lambda: query.ask([0.5, -0.5]), "probabilities at row 1 is -0.5; give confidences >= 0")
        refused(lambda: query.ask([[0.5, 0.9]]), "probabilities at row 0 sum to 1.4, not to 1; give predict_proba(X)")
        refused(
            lambda: StreamQuery(0.5, strategy="fixed").ask([0.5]),
            "strategy='fixed' needs a threshold where confidences are given, not probabilities",
        )
        refused(lambda: query.load_state_dict({}), "state lacks 'schema'; give what state_dict() returned")


def best_pairs(V: NDArray[np.float64], C: NDArray[np.float64], budget: float, per_item: int) -> float:
    """By enumeration."""
    width, value, cost = V.shape[1], V.ravel(), np.broadcast_to(C, V.shape).ravel()
    useful = np.flatnonzero(np.isfinite(value) & (value > 0))
    best = 0.0
    for size in range(1, len(useful) + 1):
        for picks in itertools.combinations(useful.tolist(), size):
            held = list(picks)
            if cost[held].sum() <= budget + 1e-12 and np.bincount(np.array(held) // width).max() <= per_item:
                best = max(best, float(value[held].sum()))
    return best


class TestAnnotatorPairs:
    @pytest.mark.parametrize("seed", range(60))
    def test_against_enumeration(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        items, people = [(4, 2), (3, 3), (5, 2), (1, 4), (9, 1)][seed % 5]
        V = rng.integers(-1, 6, (items, people)).astype(float) if seed % 2 else rng.random((items, people))
        V[rng.random(V.shape) < 0.1] = -np.inf
        C = rng.integers(1, 5, people) if seed % 3 else rng.random((items, people))
        per_item, budget = int(rng.integers(1, people + 1)), (int(rng.integers(4, 9)) if seed % 3 else 1.5)
        plan = annotator_pairs(V, costs=C, budget=budget, per_item=per_item)
        best = best_pairs(V, np.asarray(C, float), budget, per_item)
        assert best / 2 - 1e-12 <= plan.value <= best + 1e-9
        assert plan.bound >= best - 1e-9
        if plan.status == "optimal":
            assert plan.value == pytest.approx(best)
        held = np.bincount(plan.indices // people, minlength=1)
        assert held.max() <= per_item
        assert plan.used["costs"] <= budget * (1 + 1e-12)

    def test_is_near_its_bound_on_many_items(self) -> None:
        V, price = RNG.random((500, 1)) * np.array([0.9, 0.7, 0.4]), np.array([5.0, 2.0, 1.0])
        plan = annotator_pairs(V, costs=price, budget=120.0)
        assert plan.gap < 0.01
        rows, people = np.unravel_index(plan.indices, plan.info["shape"])
        assert len(set(rows)) == len(rows)
        # No single item is worth more to another annotator at the price that money has.
        net = V - plan.prices["costs"] * price
        assert (net[rows, people] >= net[rows].max(axis=1) - 1e-9).mean() > 0.97

    def test_a_budget_that_does_not_bind_buys_the_best_of_each(self) -> None:
        V = np.array([[3.0, 2.0], [1.0, 4.0], [-1.0, 0.0]])
        plan = annotator_pairs(V, costs=[2, 1], budget=100)
        assert (plan.status, plan.value, plan.prices["costs"]) == ("optimal", 7.0, 0.0)
        assert sorted(plan.indices.tolist()) == [0, 3]
        assert annotator_pairs(V, costs=[2, 1], budget=100, per_item=2).value == 10.0
        assert len(annotator_pairs(-np.ones((2, 2)), costs=[1, 1], budget=1)) == 0

    def test_through_the_verb(self) -> None:
        V = np.array([[9.0, 6.0], [5.0, 4.0], [1.0, 0.5]])
        plan = kofn.select(scores=V, costs=[4.0, 1.0], budget=5.0, method="annotator_pairs")
        assert plan.indices.tolist() == [3, 0]
        again = kofn.select(scores=V, costs=[4.0, 1.0], budget=5.0, method="annotator_pairs", exclude=plan.indices)
        assert not set(plan.indices) & set(again.indices)

    def test_refuses(self) -> None:
        V = np.ones((2, 2))
        refused(
            lambda: annotator_pairs(V, costs=[3.0, 2.0], budget=1.5),
            "budget=1.5 buys no label: the cheapest costs 2; raise the budget",
            InfeasibleError,
        )
        refused(
            lambda: annotator_pairs(V, costs=[3.0, 2.0], budget=9, exclude=[0, 1, 2, 3]),
            "exclude and -inf leave no pair of scores to ask about; exclude fewer",
            InfeasibleError,
        )
        refused(
            lambda: annotator_pairs([1.0, 2.0], costs=[1, 1], budget=1),
            "scores has shape (2,); give (items, annotators)",
        )
        with pytest.raises(InputError, match=r"costs has shape \(3,\)"):
            annotator_pairs(V, costs=[1.0, 2.0, 3.0], budget=9)


def said_by(skill: NDArray[np.float64], n: int, classes: int, rng: np.random.Generator) -> tuple:
    truth = rng.integers(0, classes, n)
    wrong = (truth[:, None] + rng.integers(1, classes, (n, len(skill)))) % classes
    return truth, np.where(rng.random(wrong.shape) < skill, truth[:, None], wrong)


class TestAnnotatorAccuracy:
    SKILL = np.array([0.95, 0.8, 0.6, 0.4])

    @pytest.mark.parametrize("estimate", ["accuracy", "confusion"])
    def test_finds_who_is_right(self, estimate: str) -> None:
        truth, labels = said_by(self.SKILL, 2000, 4, np.random.default_rng(1))
        found = annotator_accuracy(labels, estimate=estimate)
        assert np.abs(found.accuracy - self.SKILL).max() < 0.03
        counts = np.stack([(labels == c).sum(axis=1) for c in range(4)], axis=1)
        assert (found.labels == truth).mean() > (counts.argmax(axis=1) == truth).mean() + 0.03
        assert np.allclose(found.probabilities.sum(axis=1), 1)

    def test_one_step_is_the_beta_posterior(self) -> None:
        truth, labels = said_by(self.SKILL, 200, 3, np.random.default_rng(2))
        labels[RNG.random(labels.shape) < 0.5] = -1
        found = annotator_accuracy(labels, truth=truth, prior=(4.0, 2.0))
        right = ((labels == truth[:, None]) & (labels >= 0)).sum(axis=0)
        posterior = stats.beta(4 + right, 2 + (labels >= 0).sum(axis=0) - right)
        assert np.allclose(found.accuracy, posterior.mean())
        assert np.allclose(found.deviation, posterior.std())
        assert (found.labels == truth).all()

    def test_belief_in_an_item_is_bayes_rule(self) -> None:
        labels = np.array([[0, 1, 1], [2, -1, 2]])
        prior = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]])
        found = annotator_accuracy(labels, probabilities=prior, iterations=1)
        a, wrong = 0.75, 0.125
        expected = prior * np.array([[a * wrong**2, wrong * a**2, wrong**3], [wrong**2, wrong**2, a**2]])
        assert np.allclose(found.probabilities, expected / expected.sum(axis=1, keepdims=True))

    def test_the_whole_table_tells_who_mistakes_what(self) -> None:
        rng = np.random.default_rng(3)
        # The first calls every second 2 a 1; the others err evenly and rarely.
        truth, labels = said_by(np.array([1.0, 0.9, 0.9]), 3000, 3, rng)
        labels[(truth == 2) & (rng.random(3000) < 0.5), 0] = 1
        table = annotator_accuracy(labels, estimate="confusion").confusion
        assert table[0, 2] == pytest.approx([0.0, 0.5, 0.5], abs=0.05)
        assert table[0, 0] == pytest.approx([1.0, 0.0, 0.0], abs=0.05)

    def test_without_overlap_the_classifier_tells_them_apart(self) -> None:
        truth, labels = said_by(np.array([0.95, 0.4]), 1000, 3, np.random.default_rng(4))
        labels[np.arange(1000) % 2 == 0, 1] = -1
        labels[np.arange(1000) % 2 == 1, 0] = -1
        alone = annotator_accuracy(labels)
        assert abs(alone.accuracy[0] - alone.accuracy[1]) < 0.02
        prior = 0.1 + 0.7 * np.eye(3)[truth]
        known = annotator_accuracy(labels, probabilities=prior)
        assert known.accuracy[0] > known.accuracy[1] + 0.3

    def test_silence(self) -> None:
        found = annotator_accuracy([[0, np.nan], [np.nan, np.nan]], classes=2)
        assert found.labels.tolist() == [0, -1]
        assert found.accuracy[1] == 0.75
        assert found.deviation[1] == pytest.approx(stats.beta(3, 1).std())

    def test_refuses(self) -> None:
        refused(
            lambda: annotator_accuracy([[0, 1.5]]),
            "labels at row 0, column 1 is 1.5; give class numbers 0, 1, ..., -1 where missing",
        )
        refused(
            lambda: annotator_accuracy([[0, 3]], classes=2),
            "labels name class 3, there are 2 classes (0..1); raise classes",
        )
        refused(lambda: annotator_accuracy([[-1, -1]]), "labels holds no label at all; give one, or classes")
        refused(
            lambda: annotator_accuracy([[0, 1]], prior=(1.0, 1.0)),
            "prior=(1.0, 1.0): give (right, wrong) with right > wrong > 0",
        )
        refused(
            lambda: annotator_accuracy([["a", "b"]]),
            "labels has shape (1, 2), dtype <U1; give class numbers, shape (n, annotators)",
        )
        refused(
            lambda: annotator_accuracy([[0, 1]], classes=3, probabilities=[[0.5, 0.5]]),
            "classes=3, but probabilities has 2 columns; they must agree",
        )
        refused(
            lambda: annotator_accuracy([[0, 1]], probabilities=[[0.5, 0.5]] * 2),
            "probabilities has 2 values, labels has 1 rows; give one value an item",
        )


def test_the_power_distribution_wants_scores_that_are_not_negative() -> None:
    refused(
        lambda: kofn.select(scores=[1.0, -1.0], k=1, method="stochastic_batch"),
        "scores at row 1 is -1; distribution='power' needs scores >= 0",
    )
