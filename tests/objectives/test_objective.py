"""The contract between objectives and searches: every objective keeps it, and three methods are enough to be one."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import kofn
from kofn.core.checks import InputError
from kofn.core.objective import Objective, as_objective
from kofn.objectives import base
from kofn.objectives.mixtures import Mixture
from kofn.selection import (
    gist,
    lazy_greedy,
    naive_greedy,
    order_threshold,
    partitioned_greedy,
    private_streaming,
    sieve_streaming,
    stochastic_greedy,
    threshold_greedy,
)

N = 12
RNG = np.random.default_rng(0)
GIVEN: dict[str, Any] = {
    "X": np.abs(RNG.normal(size=(N, 4))),
    "scores": RNG.random(N),
    "queries": np.abs(RNG.normal(size=(2, 4))),
    "private": np.abs(RNG.normal(size=(2, 4))),
}
likeness = GIVEN["X"] @ GIVEN["X"].T
SOURCES: dict[str, Any] = {
    "similarity": likeness,
    "sparse similarity": scipy.sparse.csr_array(np.where(likeness > np.median(likeness), likeness, 0) + 9 * np.eye(N)),
    "distances": np.abs(np.subtract.outer(GIVEN["scores"], GIVEN["scores"])),
    "sparse X": scipy.sparse.csr_array(GIVEN["X"]),
}
NAMES = [
    *base.OBJECTIVES,
    "0.5*facility_location + feature_based",
    *(
        f"{name} from {source}"
        for name in ("facility_location", "saturated_coverage", "graph_cut", "log_determinant")
        for source in ("similarity", "sparse similarity")
    ),
    *(f"{name} from distances" for name in ("medoid_loss", "dispersion")),
    *(f"{name} from sparse X" for name in ("feature_based", "weighted_coverage")),
]


def built(name: str) -> Objective:
    name, _, source = name.partition(" from ")
    words = base.words_of(name)
    given = {source: SOURCES[source]} if source else {word: v for word, v in GIVEN.items() if word in words}
    return base.build(name, {word.split()[-1]: v for word, v in given.items()}, known=tuple(base.OBJECTIVES))


class Duck:
    """The least that a user can write: sums of squares."""

    submodular = monotone = True

    def gains(self, candidates):
        return [float(item) ** 2 for item in candidates]

    def add(self, item):
        return int(item) ** 2

    def value(self, indices):
        return sum(int(item) ** 2 for item in indices)


class TestEveryObjective:
    @pytest.mark.parametrize("name", NAMES)
    def test_each_attribute_is_of_its_type(self, name: str) -> None:
        f = built(name)
        assert isinstance(f, Objective)
        for _ in range(2):
            for flag in ("submodular", "monotone", "eager", "finds_best", "polls"):
                assert type(getattr(f, flag)) is bool, flag
            for count in ("calls", "distance_evals"):
                assert isinstance(getattr(f, count), int), count
            assert isinstance(f.tolerance, float)
            assert f.tolerance >= 0
            for number in ("guarantee", "offset"):
                assert getattr(f, number) is None or isinstance(getattr(f, number), float), number
            assert f.order is None or sorted(f.order.tolist()) == list(range(N))
            assert isinstance(f.keeps(np.arange(N)), bool)
            assert f.name == ("mixture" if "+" in name else name.partition(" from ")[0])
            assert f.n == N
            assert f.sense in ("max", "min")
            f.gains(np.arange(N))
            assert isinstance(f.add(3), float)
        assert isinstance(f.value(np.array([3])), float)

    @pytest.mark.parametrize("name", NAMES)
    def test_gains_bounds_and_the_best_agree(self, name: str) -> None:
        f = built(name)
        f.add(2)
        open_items = np.ones(N, bool)
        open_items[2] = False
        items = np.flatnonzero(open_items)
        gains, exact = f.gains(items), f.exact_gains(items)
        assert gains.shape == exact.shape == items.shape
        assert gains.dtype == exact.dtype == np.float64
        assert np.abs(gains - exact).max() <= f.tolerance + 1e-12
        assert exact[items == f.best(open_items)] == exact.max()
        assert (np.broadcast_to(f.ceilings(), N)[items] >= exact - 1e-12).all()
        assert f.add(int(items[0])) == pytest.approx(exact[0], abs=1e-12)

    @pytest.mark.parametrize("name", NAMES)
    def test_a_copy_goes_its_own_way(self, name: str) -> None:
        f = built(name)
        twin = copy.deepcopy(f)
        f.add(1)
        assert twin.gains(np.arange(N)).tolist() == built(name).gains(np.arange(N)).tolist()

    @pytest.mark.parametrize("name", NAMES)
    def test_it_asks_what_it_is_bound_to_until_it_is_let_go(self, name: str) -> None:
        f = built(name)
        f.bind(list)
        assert f.poll is list
        f.bind(None)
        assert f.poll is None
        f.gains(np.arange(N))

    @pytest.mark.parametrize("name", NAMES)
    def test_distances_are_told_only_with_the_offset(self, name: str) -> None:
        f = built(name)
        told = f.in_distances(f.add(0), None)
        assert told.get("offset") == f.offset
        assert not told or next(iter(told)) == "offset"

    def test_every_name_is_importable_from_the_package(self) -> None:
        for row in base.OBJECTIVES.values():
            assert issubclass(getattr(kofn.objectives, row.maker), Objective)
            assert row.maker in dir(kofn.objectives)
        assert kofn.objectives.Mixture is Mixture


SEARCHES = {
    "lazy_greedy": lambda f, **words: lazy_greedy(GIVEN["X"], k=3, objective=f, **words),
    "naive_greedy": lambda f, **words: naive_greedy(GIVEN["X"], k=3, objective=f, **words),
    "stochastic_greedy": lambda f, **words: stochastic_greedy(GIVEN["X"], k=3, objective=f, eps=1e-9, seed=0, **words),
    "threshold_greedy": lambda f, **words: threshold_greedy(GIVEN["X"], k=3, objective=f, eps=0.01, **words),
    "partitioned_greedy": lambda f, **words: partitioned_greedy(GIVEN["X"], k=3, objective=f, parts=2, seed=0, **words),
    "order_threshold": lambda f, **words: order_threshold(GIVEN["X"], k=3, objective=f, order=range(N)[::-1], **words),
    "gist": lambda f, **words: gist(GIVEN["X"], k=3, utility=f, lam=0.0, **words),
}


class TestTheUsersOwn:
    @pytest.mark.parametrize("search", SEARCHES)
    def test_three_methods_are_enough(self, search: str) -> None:
        plan = SEARCHES[search](Duck())
        assert sorted(plan.indices.tolist()) == [9, 10, 11]
        assert plan.value == pytest.approx(81 + 100 + 121)
        assert plan.bound is None or plan.bound >= plan.value

    def test_under_a_budget_the_copy_is_fresh(self) -> None:
        costs = np.ones(N)
        costs[11] = 3.0
        plan = lazy_greedy(GIVEN["X"], objective=Duck(), budget=3.0, costs=costs)
        assert plan.value == Duck().value(plan.indices)

    @pytest.mark.parametrize("search", ["naive_greedy", "order_threshold"])
    def test_one_that_promises_nothing(self, search: str) -> None:
        class Silent(Duck):
            submodular = monotone = False

        plan = SEARCHES[search](Silent())
        assert sorted(plan.indices.tolist()) == [9, 10, 11]
        assert (plan.bound, plan.guarantee, plan.status) == (None, None, "heuristic")

    def test_what_else_it_has_is_used(self) -> None:
        class Rich(Duck):
            n, eager, finds_best, tolerance, guarantee, offset = N, True, True, 0.25, 0.5, 2.0
            calls, distance_evals, order, poll = 7, 8, range(N), None

            def exact_gains(self, candidates):
                return np.asarray(candidates) * 1.0

            def keeps(self, order):
                return len(order) == N

            def best(self, open_items):
                return np.int64(np.flatnonzero(open_items)[0])

            def ceilings(self):
                return [1] * N

        own = Rich()
        f = as_objective(own)
        assert (f.n, f.eager, f.finds_best, f.tolerance, f.guarantee, f.offset) == (N, True, True, 0.25, 0.5, 2.0)
        assert (f.calls, f.distance_evals, f.polls) == (7, 8, True)
        assert f.order is not None
        assert f.order.tolist() == list(range(N))
        assert f.exact_gains(np.array([3])).tolist() == [3.0]
        assert f.keeps(np.arange(N))
        assert f.best(np.arange(N) > 3) == 4
        assert f.ceilings().tolist() == [1.0] * N
        f.bind(list)
        assert own.poll is list
        own.tolerance = 0.5
        assert f.tolerance == 0.5

    def test_a_search_lets_go_of_it(self) -> None:
        """After the call its clock must not stop whoever goes on with the objective."""
        f = built("facility_location")
        lazy_greedy(GIVEN["X"], k=2, objective=f, time_limit=60)
        assert f.poll is None

    @pytest.mark.parametrize("given", [3, object(), type("Half", (), {"gains": print})()])
    def test_less_than_three_methods_are_refused(self, given: Any) -> None:
        with pytest.raises(InputError, match=r"objective=\w+ lacks .*value; an objective has gains\(candidates\)"):
            as_objective(given)

    def test_a_class_is_refused(self) -> None:
        with pytest.raises(InputError, match="objective=Duck is a class; give an object of it"):
            lazy_greedy(GIVEN["X"], k=2, objective=Duck)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda items: [1.0], r"objective=Wrong: gains of 12 candidates has shape \(1,\); return one gain"),
            (lambda items: [np.nan] * len(items), "objective=Wrong: gains of item 0 is NaN"),
        ],
    )
    def test_gains_that_are_none(self, answer: Any, words: str) -> None:
        class Wrong(Duck):
            def gains(self, candidates):
                return answer(candidates)

        with pytest.raises(InputError, match=words):
            lazy_greedy(GIVEN["X"], k=2, objective=Wrong())

    def test_a_part_of_a_mixture_is_named(self) -> None:
        with pytest.raises(InputError, match="the objective of part 1=object lacks gains, add, value"):
            Mixture([(1.0, Duck()), (1.0, object())])


class TestPrivateStreaming:
    def test_an_own_objective_must_declare_its_promises(self) -> None:
        class Silent(Duck):
            submodular = False

        from kofn.selection import PrivateStreaming

        with pytest.raises(InputError, match="does not declare monotone and submodular"):
            PrivateStreaming(k=1, objective=Silent(), epsilon=1.0, opt_range=(1.0, 9.0), sensitivity=1.0)


@pytest.mark.parametrize("scale", [1e200, 1e-200, 2.0**600, 2.0**-600])
def test_cosine_has_no_scale_anywhere(scale: float) -> None:
    X = np.random.default_rng(3).normal(size=(40, 3))
    users = np.random.default_rng(4).normal(size=(9, 3))

    def picks(X: Any, users: Any) -> list[list[int]]:
        plans = [
            lazy_greedy(X, k=3, metric="cosine"),
            sieve_streaming(X, k=3, metric="cosine", reference=X),
            kofn.select(X, k=4, method="farthest_first", metric="cosine"),
            gist(X, k=3, metric="cosine", lam=0.5),
            naive_greedy(X, k=3, objective="dispersion", metric="cosine"),
            private_streaming(X, k=3, metric="cosine", users=users, reach=1.0, epsilon=50.0, seed=0),
            kofn.select(X, k=3, method="rds_plus", queries=users),
        ]
        return [plan.indices.tolist() for plan in plans]

    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert picks(X * scale, users * scale) == picks(X, users)


def test_lazy_and_sieve_agree_at_every_scale() -> None:
    """Five rows in the plane, where the stream finds the two that greedy finds."""
    X = np.array([[2.0, -2.6], [0.4, -0.6], [-0.5, -0.2], [-2.0, -0.2], [-0.9, 3.3]])
    for scale in (1.0, 1e200, 1e-200):
        lazy = lazy_greedy(X * scale, k=2, metric="cosine")
        sieve = sieve_streaming(X * scale, k=2, metric="cosine", reference=X * scale)
        assert sorted(sieve.indices.tolist()) == sorted(lazy.indices.tolist()) == [0, 2]
        assert sieve.value == pytest.approx(lazy.value, rel=1e-14)


def test_nothing_but_the_adapter_asks_an_objective_what_it_has() -> None:
    """`getattr` and `hasattr` are for data of unknown kind, not for objectives: those have the attributes."""
    root = Path(kofn.__file__).parent
    files = [*(root / "objectives").glob("*.py"), *(root / "selection").rglob("*.py"), root / "verbs.py"]
    names = {name for name in dir(Objective) if not name.startswith("_")} - {"name", "sense"} | {"total_weight"}
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                word = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
                if word in names:
                    found.append(f"{file.relative_to(root)}:{node.lineno} {word}")
    assert not found
