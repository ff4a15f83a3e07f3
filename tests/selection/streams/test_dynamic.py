"""A pool that changes: calls and values against lazy greedy run afresh, and what is refused."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from kofn.core.checks import InputError
from kofn.core.plans import Plan
from kofn.selection import DynamicSelection

Array = np.ndarray


def drawn_sets(rng: np.random.Generator, n: int, elements: int = 1500) -> sparse.csr_matrix:
    sizes = np.minimum(elements // 4, np.maximum(3, (rng.pareto(1.5, n) * 8).astype(int)))
    columns = np.concatenate([rng.choice(elements, size, replace=False) for size in sizes])
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((np.ones(len(columns)), columns, indptr), shape=(n, elements))


def greedy(X: sparse.csr_matrix, k: int) -> tuple[float, int]:
    """The value of lazy greedy on these rows, and the gains it asked for."""
    rows = [set(X.indices[low:high].tolist()) for low, high in itertools.pairwise(X.indptr)]
    heap = [(-len(row), i, 0) for i, row in enumerate(rows)]
    heapq.heapify(heap)
    covered: set[int] = set()
    picks, calls = 0, len(rows)
    while picks < k:
        _, item, turn = heap[0]
        if turn == picks:
            covered |= rows[heapq.heappop(heap)[1]]
            picks += 1
        else:
            heapq.heapreplace(heap, (-len(rows[item] - covered), item, picks))
            calls += 1
    return len(covered), calls


def churn(pool: DynamicSelection, X: Any, first: int, updates: int, seed: int, aimed: float) -> list[int]:
    """Half the updates insert, half delete, a share `aimed` of those a pick; a plan after each."""
    rng = np.random.default_rng(seed)
    live = list(range(first))
    for step in range(updates):
        if step % 2 == 0:
            new = first + step // 2
            pool.insert([new], X[new : new + 1])
            live.append(new)
        else:
            plan = pool.plan
            gone = int(rng.choice(plan.keys(plan.indices) if rng.random() < aimed else live))
            live.remove(gone)
            pool.delete([gone])
        assert len(pool.plan.indices) == pool.k
    return live


@pytest.mark.parametrize("aimed", [0.0, 0.1])
def test_few_calls_and_nearly_the_value_of_greedy(aimed: float) -> None:
    X = drawn_sets(np.random.default_rng(0), 2300)
    pool = DynamicSelection(20, objective="coverage")
    pool.insert(np.arange(2000), X[:2000])
    assert pool.oracle_calls == 2000
    pool.plan  # noqa: B018 (the first plan is paid for here)
    before = pool.oracle_calls
    live = churn(pool, X, 2000, 600, 1, aimed)
    value, calls = greedy(X[live], 20)
    assert pool.plan.value >= 0.95 * value
    assert pool.plan.bound >= value
    assert (pool.oracle_calls - before) / 600 <= calls / 100
    again = pool.oracle_calls
    assert pool.plan is pool.plan
    assert pool.oracle_calls == again


def test_calls_an_update_do_not_grow_with_the_pool() -> None:
    spent = {}
    for n in (500, 4000):
        X = drawn_sets(np.random.default_rng(2), n + 200)
        pool = DynamicSelection(10, objective="coverage")
        pool.insert(np.arange(n), X[:n])
        pool.plan  # noqa: B018
        before = pool.oracle_calls
        churn(pool, X, n, 400, 3, 0.05)
        spent[n] = (pool.oracle_calls - before) / 400
    assert spent[4000] < 2 * spent[500]


def test_plan_is_a_whole_selection(tmp_path: Any) -> None:
    pool = DynamicSelection(3, reference=np.random.default_rng(0).normal(size=(20, 4)), seed=5)
    pool.insert([f"row {i}" for i in range(40)], np.random.default_rng(1).normal(size=(40, 4)))
    pool.delete(["row 3", "row 11"])
    plan = pool.plan
    assert (plan.n, len(plan), plan.used, plan.budget, plan.status) == (38, 3, {"k": 3}, {"k": 3}, "approximate")
    assert "row 3" not in plan.ids.tolist()
    assert plan.value == pytest.approx(plan.gains.sum())
    assert plan.value <= plan.bound
    assert plan.guarantee == pytest.approx(0.4)
    assert plan.info["oracle_calls"] == pool.oracle_calls
    assert (plan.info["inserted"], plan.info["deleted"], len(pool)) == (40, 2, 38)
    assert "row 4" in pool
    assert Plan.load(plan.save(tmp_path / "plan.npz")).equals(plan)
    assert plan.seed == "5"


def test_fewer_items_than_k_are_all_picked_and_it_says_so() -> None:
    pool = DynamicSelection(4, objective="coverage")
    assert (pool.plan.n, len(pool.plan), pool.plan.value, pool.plan.short) == (0, 0, 0.0, 4)
    pool.insert([7, 9], [[1, 0, 0], [1, 1, 0]])
    assert (pool.plan.indices.tolist(), pool.plan.value, pool.plan.short) == ([0, 1], 2.0, 2)
    assert (pool.plan.status, pool.plan.bound) == ("optimal", 2.0)
    pool.insert([1, 2, 3], np.zeros((3, 3)))
    assert (len(pool.plan), pool.plan.value, pool.plan.short) == (4, 2.0, 0)
    pool.delete([7, 9])
    assert (len(pool.plan), pool.plan.value, pool.plan.short) == (3, 0.0, 1)


def test_a_batch_is_as_good_as_one_by_one_and_seeds_repeat() -> None:
    X = np.random.default_rng(0).normal(size=(300, 3))
    plans = []
    for step in (1, 7, 300):
        pool = DynamicSelection(6, reference=X[::10], seed=1)
        for low in range(0, 300, step):
            pool.insert(np.arange(low, min(low + step, 300)), X[low : low + step])
        # The digest is of the events as they came.
        plans.append(dataclasses.replace(pool.plan, problem=""))
    assert plans[0].equals(plans[1])
    assert plans[0].equals(plans[2])


def test_deleted_items_give_their_memory_back() -> None:
    rng = np.random.default_rng(0)
    pool = DynamicSelection(4, objective="coverage")
    for start in range(0, 3000, 100):
        pool.insert(np.arange(start, start + 100), rng.random((100, 30)) < 0.1)
        pool.plan  # noqa: B018
        if start >= 200:
            pool.delete(np.arange(start - 200, start - 100))
    assert len(pool) == 200
    assert len(pool.state_dict()["keys"]) < 800
    assert pool.plan.value <= 30


def test_an_objective_of_ones_own() -> None:
    def spread(rows: Array) -> float:
        return math.sqrt(np.abs(rows).sum())

    class Spread:
        def empty(self) -> float:
            return 0.0

        def gains(self, state: float, rows: Array) -> Array:
            return np.sqrt(state + np.abs(rows).sum(axis=1)) - np.sqrt(state)

        def add(self, state: float, row: Array) -> float:
            return state + float(np.abs(row).sum())

    X = np.random.default_rng(0).normal(size=(60, 2))
    plans = []
    for objective in (spread, Spread()):
        pool = DynamicSelection(5, objective=objective)
        pool.insert(np.arange(60), X)
        pool.delete(np.arange(0, 60, 7))
        plans.append(pool.plan)
        assert pool.plan.value == pytest.approx(math.sqrt(np.sort(np.abs(pool_rows(X)).sum(axis=1))[-5:].sum()))
    assert plans[0].indices.tolist() == plans[1].indices.tolist()
    assert plans[0].objective == "own"


def pool_rows(X: Array) -> Array:
    return X[np.arange(60) % 7 != 0]


def test_a_function_that_raises_leaves_the_pool_as_it_was() -> None:
    def fussy(rows: Array) -> float:
        if rows.max() > 1:
            raise RuntimeError("no")
        return float(rows.sum())

    pool = DynamicSelection(1, objective=fussy)
    pool.insert(["a"], [[1.0]])
    with pytest.raises(RuntimeError, match="no"):
        pool.insert(["b"], [[2.0]])
    assert "b" not in pool
    pool.insert(["b"], [[0.5]])
    assert pool.plan.value == 1.0


def test_keys_of_several_kinds() -> None:
    pool = DynamicSelection(2, objective="coverage")
    pool.insert([1], [[1, 0]])
    pool.insert(["1"], [[0, 1]])
    assert pool.plan.ids.tolist() == [1, "1"]
    pool.delete([1])
    assert pool.plan.ids.tolist() == ["1"]


@pytest.mark.parametrize(
    ("ids", "X", "message"),
    [
        (["a"], [[1.0, 2.0]], "ids names 'a', which is there already; give each item once"),
        (["a", "b"], [[1.0, 2.0]] * 2, "ids names 'a', 'b', which is there already"),
        (["c", "c"], [[1.0, 2.0]] * 2, "'c' stands at row 0 and at row 1"),
        (["c"], [[1.0, 2.0, 3.0]], "X has 3 columns, the rows of this pool have 2"),
        (["c", "d"], [[1.0, 2.0]], "ids has 2 values, X has 1 rows"),
        (["c"], [[np.nan, 2.0]], "X at row 0, column 0 is NaN"),
    ],
)
@pytest.mark.parametrize("objective", ["facility_location", "coverage", "own"])
def test_inserts_that_are_refused(objective: str, ids: list[str], X: Any, message: str) -> None:
    made: dict[str, Any] = {
        "facility_location": {"reference": [[0.0, 1.0], [1.0, 0.0]]},
        "coverage": {"objective": "coverage"},
        "own": {"objective": lambda rows: float(len(rows))},
    }[objective]
    pool = DynamicSelection(2, **made)
    pool.insert(["a", "b"], [[1.0, 2.0], [3.0, 4.0]])
    before = (pool.plan, pool.oracle_calls)
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        pool.insert(ids, X)
    assert (pool.plan, pool.oracle_calls, len(pool)) == (*before, 2)


def test_deletes_that_are_refused() -> None:
    pool = DynamicSelection(2, objective="coverage")
    pool.insert([1, 2, 3], np.eye(3))
    pool.delete([2])
    for ids, message in (
        ([2], "ids names 2, which is not there: never inserted, or deleted before"),
        ([1, 7, 8, 9, 10], "ids names 7, 8, 9 and 1 more, which is not there"),
        ([1, 1], "1 stands at row 0 and at row 1"),
    ):
        with pytest.raises(InputError, match=message):
            pool.delete(ids)
    assert len(pool) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps=0: it must be above 0 and at most 0.5"),
        ({"eps": 0.51}, "eps=0.51"),
        ({"eps": -1}, "eps=-1"),
        ({"k": 0}, "k=0: ask for at least 1"),
        ({"objective": "facility_location", "reference": None}, "needs reference"),
        ({"objective": "coverage", "reference": [[1.0]]}, "no use for reference"),
        ({"objective": "cover"}, "did you mean 'coverage'"),
        ({"objective": 3}, "lacks empty, gains, add"),
        ({"objective": len, "weights": [1.0]}, "no use for"),
        ({"reference": [[1.0]], "weights": [1.0, 2.0]}, "weights has 2 values"),
        ({"metric": "manhattan"}, "metric='manhattan'"),
        ({"greedy_fill": 1}, "greedy_fill=1"),
    ],
)
def test_settings_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DynamicSelection(**{"k": 2, "reference": [[1.0]] if "objective" not in options else None, **options})


def test_a_state_of_other_settings_is_refused() -> None:
    pool = DynamicSelection(2, objective="coverage")
    pool.insert([1], [[1.0]])
    with pytest.raises(InputError, match="state was made with k=2, here it is 3"):
        DynamicSelection(3, objective="coverage").load_state_dict(pool.state_dict())
    with pytest.raises(InputError, match="schema 99"):
        pool.load_state_dict({**pool.state_dict(), "schema": 99})


def test_gains_that_are_refused() -> None:
    class Odd:
        def __init__(self, gains: Any) -> None:
            self.given = gains

        def empty(self) -> int:
            return 0

        def gains(self, state: int, rows: Array) -> Any:
            return self.given

        def add(self, state: int, row: Array) -> int:
            return state

    for gains, message in (([1.0, 2.0], r"gave shape \(2,\) for 1 rows"), ([np.nan], "gains must be finite")):
        with pytest.raises(InputError, match=message):
            DynamicSelection(1, objective=Odd(gains)).insert([1], [[1.0]])
