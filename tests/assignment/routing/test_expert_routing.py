"""Routers of experts: token choice, expert choice, balanced assignment, biases; against sorting, SciPy and HiGHS."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_softmax, softmax

import kofn
from claims.harness.moe import Experts, first_come, mask_of, plan_of
from kofn.assignment import BiasRouter, balanced_assignment, capped_routing, expert_choice, token_choice
from kofn.assignment.routing import _flows as balanced
from kofn.assignment.routing import _scores as routing
from kofn.core.checks import InfeasibleError, InputError
from kofn.laws import LAWS, Case, LawBroken, brute


def rows_of(plan: Any) -> list[list[int]]:
    return [plan.bins[a:b].tolist() for a, b in itertools.pairwise(plan.indptr)]


def dense(plan: Any) -> np.ndarray:
    out = np.zeros((plan.n, plan.k))
    out[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    return out


def table(rng: np.random.Generator, case: int, n: int, bins: int) -> np.ndarray:
    """Scores with ties or none, in both precisions."""
    scores = rng.integers(-2, 5, (n, bins)).astype(float) if case % 2 else 2 * rng.normal(size=(n, bins))
    return scores.astype(np.float32) if case % 5 == 0 else scores


# Token choice


@pytest.mark.parametrize("compiled", [True, False])
def test_token_choice_is_top_k_with_softmax_over_the_kept(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "COMPILED_FROM", -1 if compiled else 10**9)
    rng = np.random.default_rng(0)
    for case in range(40):
        n, bins = int(rng.integers(1, 30)), int(rng.integers(1, 9))
        per_item = int(rng.integers(1, bins + 1))
        scores = table(rng, case, n, bins)
        plan = token_choice(scores, per_item=per_item)
        first = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
        kept = np.full(scores.shape, -np.inf)
        np.put_along_axis(kept, first, np.take_along_axis(scores, first, axis=1), axis=1)
        np.testing.assert_allclose(dense(plan), softmax(kept, axis=1), rtol=1e-5)
        assert (np.diff(plan.indptr) == per_item).all()
        assert plan.status == "optimal"


def test_token_choice_weights_by_raw_affinity_sigmoid_or_one() -> None:
    scores = np.random.default_rng(1).normal(size=(20, 6))
    held = dense(token_choice(scores, per_item=2, gates="ones")) > 0
    raw = dense(token_choice(scores, per_item=2, gates="raw"))
    np.testing.assert_allclose(raw, np.where(held, softmax(scores, axis=1), 0), rtol=1e-6)
    deepseek = dense(token_choice(scores, per_item=2, affinity="sigmoid"))
    gates = np.where(held, expit(scores), 0)
    np.testing.assert_allclose(deepseek, gates / gates.sum(axis=1, keepdims=True), rtol=1e-6)
    plan = token_choice(np.abs(scores), per_item=2, affinity="none", gates="raw")
    assert plan.value == pytest.approx(np.sort(np.abs(scores), axis=1)[:, -2:].sum())


def test_token_choice_leaves_what_is_not_listed_empty_and_never_weighs_nothing() -> None:
    scores = np.array([[-np.inf, 3.0, -np.inf], [-np.inf] * 3, [1e4, -1e4, 0.0]])
    plan = token_choice(scores, per_item=2)
    assert rows_of(plan) == [[1], [], [0, 2]]
    assert plan.info["unfilled"] == 3
    assert (plan.weights > 0).all()


# Expert choice


@pytest.mark.parametrize("affinity", ["softmax", "sigmoid", "none"])
def test_expert_choice_takes_each_bins_best(affinity: str) -> None:
    rng = np.random.default_rng(2)
    for case in range(60):
        n, bins = int(rng.integers(1, 25)), int(rng.integers(1, 7))
        scores = table(rng, case, n, bins)
        if case % 3 == 0:
            scores[rng.random(scores.shape) < 0.3] = -np.inf
        room = rng.integers(0, n + 2, bins)
        plan = expert_choice(scores, capacity=room, affinity=affinity, gates="ones")
        felt = routing.affinities(scores, affinity)
        held = dense(plan) > 0
        for j in range(bins):
            able = [i for i in range(n) if scores[i, j] > -np.inf]
            best = sorted(able, key=lambda i: (-felt[i, j], i))[: room[j]]
            assert sorted(best) == np.flatnonzero(held[:, j]).tolist()
        assert plan.info["unserved"] == (~held.any(axis=1)).sum()
        assert plan.value == pytest.approx(felt[held].sum())


def test_expert_choice_has_the_papers_gates_and_equal_loads() -> None:
    scores = np.random.default_rng(3).normal(size=(64, 8)) - np.arange(8)
    plan = kofn.assign(scores=scores, method="expert_choice", options={"capacity_factor": 2.0})
    assert np.bincount(plan.bins, minlength=8).tolist() == [16] * 8
    np.testing.assert_allclose(dense(plan), np.where(dense(plan) > 0, softmax(scores, axis=1), 0), rtol=1e-6)
    assert len(set(np.diff(plan.indptr).tolist())) > 2  # tokens differ in how many experts they get
    assert (plan.status, plan.gap) == ("optimal", 0.0)


@pytest.mark.parametrize("compiled", [True, False])
def test_expert_choice_with_a_cap_holds_both_margins(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "COMPILED_FROM", -1 if compiled else 10**9)
    scores = np.random.default_rng(4).normal(size=(60, 5)) - np.arange(5)
    free = expert_choice(scores, capacity=30)
    plan = expert_choice(scores, capacity=30, per_item=2)
    assert np.diff(free.indptr).max() > 2
    assert np.diff(plan.indptr).max() <= 2
    assert np.bincount(plan.bins).max() <= 30
    assert free.value / 2 <= plan.value <= plan.bound <= free.value + 1e-12
    assert plan.info["unfilled"] == 150 - len(plan.bins)


def test_a_later_token_changes_who_serves_an_earlier_one() -> None:
    """The docstring says so: whoever predicts next tokens must not route like this."""
    scores = np.array([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]])
    later = np.array([[1.0, 0.0], [0.5, 0.0], [3.0, 0.0]])
    before, after = (expert_choice(one, capacity=1) for one in (scores, later))
    assert (rows_of(before)[0], rows_of(after)[0]) == ([0], [])
    assert token_choice(scores).labels[0] == token_choice(later).labels[0]


# Capped routing: affinities, gates and candidates


def test_capped_routing_ranks_by_the_affinity_and_weighs_by_it() -> None:
    logits = np.random.default_rng(5).normal(size=(80, 6)) + np.arange(6) / 2
    options: dict[str, Any] = {"capacity": 20, "per_item": 2, "overflow": "reroute"}
    plan = capped_routing(logits, **options, affinity="softmax", gates="share")
    same = capped_routing(softmax(logits, axis=1), **options)
    assert plan.bins.tolist() == same.bins.tolist()
    assert plan.value == pytest.approx(same.value)
    np.testing.assert_allclose(plan.row_margin[np.diff(plan.indptr) > 0], 1, rtol=1e-6)
    raw = capped_routing(logits, **options, affinity="softmax", gates="raw")
    assert raw.weights.sum() == pytest.approx(plan.value, rel=1e-5)
    # Ranking across tokens by logits is another matter.
    assert capped_routing(logits, **options).bins.tolist() != plan.bins.tolist()


def test_candidates_limit_whom_a_refused_item_asks() -> None:
    scores = np.random.default_rng(6).random((90, 6)) + np.linspace(0, 1, 6)
    ranks = np.argsort(np.argsort(-scores, axis=1), axis=1)
    kept = []
    for candidates in (2, 3, 6):
        plan = capped_routing(scores, capacity=30, per_item=2, overflow="reroute", candidates=candidates)
        assert ranks[dense(plan) > 0].max() < candidates
        kept.append(len(plan.bins))
    assert kept == sorted(kept)
    drop = capped_routing(scores, capacity=30, per_item=2, overflow="drop")
    assert kept[0] == len(drop.bins)


# Balanced assignment


def optimum(scores: np.ndarray, room: np.ndarray) -> float:
    """The best total with every item placed: columns stand once for every place."""
    wide = np.repeat(np.asarray(scores, np.float64), np.minimum(room, len(scores)), axis=1)
    rows, places = linear_sum_assignment(wide, maximize=True)
    return float(wide[rows, places].sum())


@pytest.mark.parametrize("compiled", [True, False])
def test_balanced_with_capacities_is_the_optimum(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balanced, "COMPILED_FROM", -1 if compiled else 10**9)
    rng = np.random.default_rng(7)
    for case in range(150):
        n, bins = int(rng.integers(1, 60)), int(rng.integers(1, 7))
        scores = table(rng, case, n, bins)
        room = rng.integers(0, n + 1, bins)
        room[int(rng.integers(bins))] += max(0, n - room.sum())
        plan = balanced_assignment(scores, capacity=room)
        assert plan.value == pytest.approx(optimum(scores, room), abs=1e-5)
        assert (np.bincount(plan.bins, minlength=bins) <= room).all()
        assert (np.diff(plan.indptr) == 1).all()
        assert (plan.status, plan.gap) == ("optimal", 0.0)


def highs(scores: np.ndarray, low: int, high: int, reserve: float | None) -> float:
    """The linear program, whose vertices are whole."""
    from scipy.optimize import linprog

    n, bins = scores.shape
    finite = np.isfinite(scores)
    pairs = np.argwhere(finite)
    if not len(pairs):
        return (reserve or 0.0) * n
    gain = scores[finite] - (reserve or 0.0)
    item, bin_ = np.zeros((n, len(pairs))), np.zeros((bins, len(pairs)))
    item[pairs[:, 0], np.arange(len(pairs))] = 1
    bin_[pairs[:, 1], np.arange(len(pairs))] = 1
    sides: dict[str, Any] = {"A_ub": np.vstack([bin_, -bin_]), "b_ub": [*[high] * bins, *[-low] * bins]}
    if reserve is None:
        sides |= {"A_eq": item, "b_eq": np.ones(n)}
    else:
        sides = {"A_ub": np.vstack([bin_, item]), "b_ub": [*[high] * bins, *[1] * n]}
    found = linprog(-gain, **sides, bounds=(0, 1), method="highs")
    assert found.status == 0
    return float(-found.fun) + (reserve or 0.0) * n


@pytest.mark.parametrize("compiled", [True, False])
def test_balanced_loads_and_reserves_equal_the_linear_program(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balanced, "COMPILED_FROM", -1 if compiled else 10**9)
    rng = np.random.default_rng(8)
    for case in range(60):
        n, bins = int(rng.integers(1, 40)), int(rng.integers(1, 6))
        scores = table(rng, case, n, bins).astype(float)
        plan = balanced_assignment(scores)
        load = np.bincount(plan.bins, minlength=bins)
        assert set(load.tolist()) <= {n // bins, -(-n // bins)}
        assert plan.value == pytest.approx(highs(scores, n // bins, -(-n // bins), None), abs=1e-6)
        scores[rng.random(scores.shape) < 0.3] = -np.inf
        plan = balanced_assignment(scores, capacity=2, reserve=0.4)
        assert plan.value == pytest.approx(highs(scores, 0, 2, 0.4), abs=1e-6)
        assert plan.info["unfilled"] == (plan.labels < 0).sum()


@pytest.mark.parametrize("kind", ["normal", "clustered", "skewed", "tied", "equal", "sparse"])
def test_large_balanced_tables_are_optimal_by_their_prices(kind: str) -> None:
    """Prices prove it: nobody would gain elsewhere, and what all gain and pay sums to the value."""
    rng = np.random.default_rng(9)
    n, bins = 4096, 16
    scores = rng.normal(size=(n, bins))
    if kind == "clustered":
        scores = scores / 4 + rng.normal(size=(5, bins))[rng.integers(0, 5, n)]
    elif kind == "skewed":
        scores -= 3 * np.log(1 + np.arange(bins))
    elif kind == "tied":
        scores = rng.integers(0, 3, (n, bins)).astype(float)
    elif kind == "equal":
        scores[:] = 1.0
    elif kind == "sparse":
        scores[rng.random(scores.shape) < 0.7] = -np.inf
        scores[np.arange(n), np.arange(n) % bins] = 0.0
    plan = balanced_assignment(scores.astype(np.float32) if kind == "normal" else scores)
    assert np.bincount(plan.bins, minlength=bins).tolist() == [n // bins] * bins
    assert plan.status == "optimal"
    paid = plan.u[:, None] + plan.v
    assert (paid >= scores - 1e-6).all()
    own = scores[np.arange(n), plan.labels]
    np.testing.assert_allclose(paid[np.arange(n), plan.labels], own, atol=1e-6)
    assert math.fsum(plan.u.tolist()) + plan.v @ plan.capacity == pytest.approx(own.sum())


def test_balanced_equals_the_expanded_assignment_at_a_thousand() -> None:
    rng = np.random.default_rng(10)
    for scores in (rng.normal(size=(768, 12)), rng.integers(0, 9, (768, 12)).astype(float)):
        plan = balanced_assignment(scores)
        assert plan.value == pytest.approx(optimum(scores, np.full(12, 64)), rel=1e-12)
        greedy = capped_routing(scores, capacity=64, overflow="reroute")
        assert plan.value > greedy.value


def test_balanced_gates_are_the_sigmoid_of_the_affinity() -> None:
    scores = np.random.default_rng(11).normal(size=(12, 3))
    plan = balanced_assignment(scores, gates="sigmoid")
    np.testing.assert_allclose(plan.weights, expit(scores[np.arange(12), plan.labels]), rtol=1e-6)


TIGHT = np.array([[1.0, -np.inf, -np.inf]] * 3 + [[0.0, 1.0, 2.0]])


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"capacity": [2, 2, 2]}, "3 items list no other bins than 0, whose capacity holds 2: 1 too many"),
        ({}, "3 items list no other bins than 0, whose capacity holds 2: 1 too many"),
        (
            {"capacity": 1},
            "4 items need a bin each, capacity holds 3: 1 too few; raise it to 2 a bin, or give a reserve",
        ),
    ],
)
def test_what_cannot_be_balanced_is_named(
    arguments: dict[str, Any], says: str, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balanced, "COMPILED_FROM", -1 if compiled else 10**9)
    with pytest.raises(InfeasibleError, match=says):
        balanced_assignment(TIGHT, **arguments)


def test_bins_that_too_few_list_and_items_with_nowhere_to_go_are_named() -> None:
    lonely = np.array([[1.0, -np.inf]] * 3 + [[1.0, 1.0]])
    with pytest.raises(
        InfeasibleError, match=r"list no other bins than 0|bins 1 must hold 2 items to be balanced, and 1"
    ):
        balanced_assignment(lonely)
    with pytest.raises(InfeasibleError, match="5 items list no other bins than 0, 1, whose capacity holds 4"):
        balanced_assignment([[1.0, 1.0, -np.inf]] * 5)
    with pytest.raises(
        InfeasibleError, match=r"item 1 lists no bin, all its scores are -inf or missing \(1 such items\)"
    ):
        balanced_assignment([[1.0, 2.0], [-np.inf, -np.inf]])
    assert balanced_assignment([[1.0, 2.0], [-np.inf, -np.inf]], reserve=0).labels.tolist() == [1, -1]


# Errors


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: token_choice(s, per_item=4), "per_item=4 of 3 bins"),
        (lambda s: token_choice(s, affinity="relu"), "affinity='relu': choose one of none, softmax, sigmoid"),
        (lambda s: token_choice(s, gates="soft"), "gates='soft': choose one of ones, raw, share"),
        (
            lambda s: token_choice(s, affinity="none"),
            "gates='share' weighs by scores as they are .* item 1 goes to a bin",
        ),
        (lambda s: token_choice(s[0]), r"scores has shape \(3,\)"),
        (lambda s: expert_choice(s, capacity=1, capacity_factor=1.0), "capacity and capacity_factor=1.0 both"),
        (lambda s: expert_choice(s, capacity_factor=-1.0), "capacity_factor=-1.0: it must be >= 0"),
        (lambda s: expert_choice(s, capacity=[1, 2]), "capacity has 2 values, scores has 3 bins"),
        (lambda s: expert_choice(s, capacity=1, per_item=4), "per_item=4 of 3 bins"),
        (lambda s: capped_routing(s, capacity=2, per_item=2, candidates=1), "candidates=1 for per_item=2"),
        (
            lambda s: capped_routing(s - 4, capacity=2, overflow="drop", gates="raw"),
            "gates='raw' weighs by scores as they are",
        ),
        (lambda s: balanced_assignment(s, gates="share"), "gates='share': choose one of ones, sigmoid"),
        (lambda s: balanced_assignment(s, reserve=math.nan), "reserve=nan: give a finite number"),
        (lambda s: balanced_assignment(s[0]), r"scores has shape \(3,\)"),
        (lambda s: BiasRouter(0), "bins=0"),
        (lambda s: BiasRouter(2, per_item=3), "per_item=3 of 2 bins"),
        (lambda s: BiasRouter(3, gamma=-1), "gamma=-1: it must be >= 0"),
        (lambda s: BiasRouter(2).ask(s), "scores has 3 bins, this router has 2"),
        (lambda s: BiasRouter(3).ask(s[0]), r"scores has shape \(3,\)"),
        (lambda s: BiasRouter(3).plan, r"no batch was routed yet; call ask\(scores\) first"),
        (lambda s: BiasRouter(3).tell([1, 2]), "give one load >= 0 for each of the 3 bins"),
        (lambda s: BiasRouter(3).tell([1, 2, -1]), "give one load >= 0 for each of the 3 bins"),
        (lambda s: BiasRouter(3).load_state_dict(BiasRouter(2).state_dict()), "bins=2, here it is 3"),
    ],
)
def test_bad_input_is_named(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(np.array([[3.0, 1.0, 2.0], [-1.0, -2.0, -3.0], [1.0, 0.5, 0.2]]))


# The stepper


def skewed(rng: np.random.Generator, n: int = 400) -> np.ndarray:
    return rng.normal(size=(n, 8)) - 2 * np.log(1 + np.arange(8))


def test_biases_even_the_loads_and_leave_the_gates_alone() -> None:
    rng = np.random.default_rng(12)
    router = BiasRouter(8, per_item=2, gamma=0.002)
    first = router.ask(skewed(rng))
    for _ in range(400):
        router.update(skewed(rng))
    scores = skewed(rng, 4000)
    plan = router.ask(scores)
    assert first.info["violation"] > 1
    assert plan.info["violation"] < 0.15
    assert router.plan is plan
    held = dense(plan) > 0
    raw = np.where(held, expit(scores), 0)
    np.testing.assert_allclose(dense(plan), raw / raw.sum(axis=1, keepdims=True), rtol=1e-6)
    # What is chosen is the best for these loads: no other plan with them has more affinity plus bias.
    wish = expit(scores) + router.bias
    assert wish[held].sum() == pytest.approx(np.sort(wish, axis=1)[:, -2:].sum())
    assert plan.value <= plan.bound


def test_each_step_is_the_papers() -> None:
    router = BiasRouter(4, gamma=0.25)
    router.tell([4, 1, 2, 1])
    assert router.bias.tolist() == [-0.25, 0.25, 0.0, 0.25]
    router.tell(np.array([4, 1, 2, 1]))
    assert (router.bias.tolist(), router.steps) == ([-0.5, 0.5, 0.0, 0.5], 2)
    unmoved = BiasRouter(4, gamma=0.0, affinity="softmax")
    scores = skewed(np.random.default_rng(13))[:, :4]
    for _ in range(3):
        plan = unmoved.update(scores)
    assert plan.labels.tolist() == token_choice(scores).labels.tolist()
    assert (plan.status, plan.gap) == ("optimal", 0.0)


def test_a_state_goes_on_bit_for_bit() -> None:
    rng = np.random.default_rng(14)
    batches = [skewed(rng) for _ in range(20)]
    one, other = BiasRouter(8, per_item=2, gamma=0.003), BiasRouter(8, per_item=2, gamma=0.003)
    for batch in batches[:10]:
        one.update(batch)
    other.load_state_dict(one.state_dict())
    for batch in batches[10:]:
        a, b = one.update(batch), other.update(batch)
        assert a.equals(b)
    assert one.bias.tobytes() == other.bias.tobytes()
    assert other.steps == 20


def test_a_plan_of_the_router_lists_only_what_the_item_lists() -> None:
    plan = BiasRouter(3, per_item=2).ask([[-np.inf, 1.0, -np.inf], [1.0, 2.0, 3.0]])
    assert rows_of(plan) == [[1], [1, 2]]
    assert plan.info["unfilled"] == 1


# Laws: planted violators


def case_of(method: str, scores: Any, **words: Any) -> Case:
    options = words.pop("options", {})
    return Case.of("assign", method, {"scores": scores, **words}, options)


def planted(case: Case, **fields: Any) -> Case:
    return dataclasses.replace(case, plan=dataclasses.replace(case.plan, **fields))


S = np.array([[9.0, 1.0, 2.0], [8.0, 5.0, 1.0], [7.0, 6.0, 3.0], [6.0, 2.0, 4.0], [5.0, 4.5, 0.5], [4.0, 1.0, 3.5]])


def test_the_price_law_catches_wrong_prices_and_wrong_places() -> None:
    for words in ({}, {"capacity": 3}, {"capacity": 1, "options": {"reserve": 1.0}}):
        case = case_of("balanced_assignment", S, **words)
        assert LAWS["priced"](case)
        with pytest.raises(LawBroken, match="exceeds u"):
            LAWS["priced"](planted(case, u=case.plan.u - 1))
        with pytest.raises(LawBroken, match="the bound"):
            LAWS["priced"](planted(case, u=case.plan.u + 1))
        with pytest.raises(LawBroken, match="has the price"):
            LAWS["priced"](planted(case, v=case.plan.v - 5, u=case.plan.u + 5))
    case = case_of("balanced_assignment", S)
    swapped = case.plan.bins.copy()
    apart = [int(np.flatnonzero(swapped == j)[0]) for j in (0, 1)]
    swapped[apart] = swapped[apart[::-1]]
    with pytest.raises(LawBroken, match=r"values .* less"):
        LAWS["priced"](planted(case, bins=swapped))
    nobody = {"bins": np.zeros(0, np.int32), "indptr": np.zeros(7, np.int64), "weights": np.ones(0, np.float32)}
    with pytest.raises(LawBroken, match="has room and a price"):
        LAWS["priced"](planted(case_of("balanced_assignment", S, capacity=2), **nobody))


def test_recounts_catch_wrong_values_loads_and_weights() -> None:
    case = case_of("balanced_assignment", S)
    with pytest.raises(LawBroken, match="recounted"):
        LAWS["recount"](planted(case, value=case.plan.value + 1))
    worse = np.array([0, 0, 0, 1, 1, 2], np.int32)
    value = float(S[np.arange(6), worse].sum())
    with pytest.raises(LawBroken, match="loads"):
        LAWS["recount"](planted(case, bins=worse, value=value))
    for method, options in (("expert_choice", {"gates": "raw"}), ("token_choice", {"gates": "share"})):
        case = case_of(method, S, per_item=2, options=options)
        with pytest.raises(LawBroken, match="weights"):
            LAWS["recount"](planted(case, weights=case.plan.weights * 1.5))
    case = case_of("expert_choice", S, capacity=1)
    with pytest.raises(LawBroken, match="unserved"):
        LAWS["recount"](planted(case, info={**case.plan.info, "unserved": 0}))


def test_brute_force_knows_each_problem() -> None:
    assert brute.optimum(case_of("balanced_assignment", S)) == pytest.approx(optimum(S, np.full(3, 2)))
    assert brute.optimum(case_of("token_choice", S)) == pytest.approx(softmax(S, axis=1).max(axis=1).sum())
    assert brute.optimum(case_of("expert_choice", S, capacity=2)) == pytest.approx(
        np.sort(softmax(S, axis=1), axis=0)[-2:].sum()
    )
    case = case_of("expert_choice", S, capacity=2)
    with pytest.raises(LawBroken, match="better than the optimum"):
        LAWS["sandwich"](planted(case, value=case.plan.value + 1))


# The rig of the claims


@pytest.mark.parametrize(
    ("affinity", "gates", "loss", "balance"),
    [
        ("softmax", "share", "cross_entropy", 0.1),
        ("softmax", "raw", "squared", 0.0),
        ("sigmoid", "share", "squared", 0.2),
        ("none", "sigmoid", "cross_entropy", 0.0),
    ],
)
def test_gradients_of_the_small_mixture(affinity: str, gates: str, loss: str, balance: float) -> None:
    rng = np.random.default_rng(15)
    X, Y = rng.normal(size=(12, 5)), np.eye(3)[rng.integers(0, 3, 12)]
    model = Experts(5, 3, experts=4, width=6, hidden=5, affinity=affinity, gates=gates, loss=loss, balance=balance)
    model.weights = {name: weight.astype(np.float64) for name, weight in model.weights.items()}
    plan = first_come(model.scores(X), capacity=4, per_item=2)
    share = mask_of(plan).sum(axis=0) / mask_of(plan).sum()

    def total() -> float:
        scores = model.scores(X)
        felt = softmax(scores, axis=1) if affinity == "softmax" else expit(scores)
        extra = balance * 4 * float((share * (felt / felt.sum(axis=1, keepdims=True)).mean(axis=0)).sum())
        return model.value(X, Y, lambda _scores: plan) + extra

    slopes = model.gradients(X, Y, lambda _scores: plan)[1]
    for name, weight in model.weights.items():
        flat, slope = weight.reshape(-1), slopes[name].reshape(-1)
        for place in rng.permutation(len(flat))[:25]:
            value = flat[place]
            ends = []
            for step in (1e-6, -1e-6):
                flat[place] = value + step
                ends.append(total())
            flat[place] = value
            assert slope[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-6)


def test_first_come_seats_first_choices_by_order() -> None:
    scores = np.array([[2.0, 1.0, 0.0], [3.0, 0.0, 1.0], [9.0, 8.0, 0.0]])
    assert rows_of(first_come(scores, capacity=1, per_item=1)) == [[0], [], []]
    assert rows_of(first_come(scores, capacity=1, per_item=1, order=np.array([2, 1, 0]))) == [[], [], [0]]
    assert rows_of(first_come(scores, capacity=1, per_item=2)) == [[0, 1], [2], []]
    mask = np.array([[True, False], [False, False], [True, True]])
    assert (mask_of(plan_of(mask)) == mask).all()


def test_log_shares_survive_underflow() -> None:
    """Two bins far below the best one that dropped the item: their shares are still those of the logarithms."""
    scores = np.array([[1e3, 0.0, -1.0], [2e3, 0.0, 0.0]])
    plan = capped_routing(scores, capacity=1, per_item=2, overflow="reroute", affinity="softmax", gates="share")
    assert plan.row_margin == pytest.approx([1.0, 1.0])
    assert np.isfinite(log_softmax(scores, axis=1)).all()
