"""For each law, plans and methods that break it, which it must catch; for laws nobody declares, one that keeps it.

A law that cannot tell a wrong plan from a right one is worth nothing, so every law stands here with its violators.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from test_laws import LEAST, holds

import kofn
from kofn.laws import LAWS, REGISTRY, Case, LawBroken, brute
from kofn.laws.blends import HIDDEN, permuted
from kofn.laws.recount import pairwise, set_function
from kofn.plans import Allocation, Assignment, Blend, Selection
from kofn.registry import method

SAYS = {"cost": "", "exact": "", "paper": ""}
RNG = np.random.default_rng(7)
X = RNG.normal(size=(8, 2))
SCORES = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 0.5, 2.5])
TABLE = np.array([[9.0, 1.0, 2.0], [8.0, 5.0, 1.0], [7.0, 6.0, 3.0], [6.0, 2.0, 4.0], [5.0, 4.5, 0.5]])
CURVES = np.array([[9.0, 4.0, 1.0, 0.375], [5.0, 4.5, 4.25, 4.125], [8.0, 5.5, 3.75, 3.0]])
MEMBERS = [RNG.normal(size=5) for _ in range(4)]
BALLOTS = np.array([[3.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 0.0], [2.0, 3.0, 1.0, 0.0]])


def of(verb: str, rule: Any, options: dict[str, Any] | None = None, **given: Any) -> Case:
    return Case.of(verb, rule, given, options)


def doctored(case: Case, **fields: Any) -> Case:
    """The same call with another answer."""
    info = {**case.plan.info, **fields.pop("info", {})}
    return dataclasses.replace(case, plan=dataclasses.replace(case.plan, info=info, **fields))


def greedy(**given: Any) -> Case:
    return of("select", "lazy_greedy", **{"X": X, "k": 3, **given})


def top(**given: Any) -> Case:
    return of("select", "top_k", **{"scores": SCORES, "k": 3, **given})


def medoids(**given: Any) -> Case:
    return of("assign", "fasterpam", **{"X": X, "k": 3, "seed": 0, **given})


def routes(overflow: str = "reroute", **given: Any) -> Case:
    return of("assign", "capped_routing", {"overflow": overflow}, **{"scores": TABLE, "capacity": 2, **given})


def levels(rule: Any = "multiple_choice_knapsack", **given: Any) -> Case:
    return of("allocate", rule, **{"curves": CURVES, "budget": 4, **given})


def mean(rule: Any = "weighted_mean", **given: Any) -> Case:
    return of("combine", rule, **{"members": MEMBERS, **given})


def ranked(rule: Any = "borda", **given: Any) -> Case:
    return of("combine", rule, **{"rankings": BALLOTS, **given})


def picks(n: int, index: Any, **fields: Any) -> Selection:
    index = np.asarray(index, np.int64)
    return Selection(n=n, indices=index, **{"gains": np.full(len(index), np.nan), **fields})


# --- methods that are wrong ------------------------------------------------------------------------------------------

COUNTER = itertools.count()


@method("select", **SAYS)
def moody(scores, *, k):
    """Answer otherwise every time."""
    return picks(len(scores), (np.arange(k) + next(COUNTER)) % len(scores))


@method("select", **SAYS)
def scribbler(X, *, k):
    """Sort what it was lent."""
    X.sort(axis=0)
    return picks(len(X), np.arange(k))


@method("select", traits=("equivariant",), **SAYS)
def early_rows(scores, *, k):
    """Prefer rows that come early."""
    index = np.argsort(-(scores - 0.9 * np.arange(len(scores))))[:k]
    value = float(scores[index].sum())
    return picks(len(scores), index, value=value, gains=scores[index], info={"objective": "modular"})


def _modular(scores, index, **fields):
    gains = scores[np.asarray(index)]
    return picks(len(scores), index, gains=gains, value=float(gains.sum()), info={"objective": "modular"}, **fields)


@method("select", traits=("inclusion",), **SAYS)
def sloppy_draw(scores, *, k, seed=None):
    """Draw by the cubed scores and call it uniform."""
    n = len(scores)
    index = np.random.default_rng(seed).choice(n, k, replace=False, p=scores**3 / (scores**3).sum())
    return picks(n, index, probabilities=np.full(n, k / n))


@method("select", traits=("greedy",), **SAYS)
def worst_first(scores, *, k):
    """Pick the lowest scores."""
    return _modular(scores, np.argsort(scores)[:k])


@method("select", traits=("greedy",), **SAYS)
def right_set_wrong_order(scores, *, k):
    """Pick the highest scores, best last: gains rise."""
    return _modular(scores, np.sort(np.argsort(-scores)[:k])[::-1])


@method("select", traits=("greedy",), **SAYS)
def timid(scores, *, budget, costs):
    """Stop after the first pick."""
    return _modular(scores, [int(np.argmax(scores / costs))], used={"costs": int(costs[np.argmax(scores / costs)])})


@method("select", traits=("sandwich",), **SAYS)
def boastful(scores, *, k):
    """Call any answer optimal."""
    return dataclasses.replace(_modular(scores, np.arange(k)), status="optimal", bound=float(scores[:k].sum()))


@method("assign", traits=("swap-optimal",), **SAYS)
def first_come_medoids(X, *, k, start=None):
    """Take the first rows as medoids and call that local."""
    apart = pairwise(X, "euclidean")
    labels = apart[:, :k].argmin(axis=1)
    labels[:k] = np.arange(k)
    value = float(apart[np.arange(len(X)), labels].sum())
    return Assignment.from_labels(
        labels, k, medoids=np.arange(k), value=value, sense="min", status="local", info={"objective": "k_medoids"}
    )


@method("assign", traits=("swap-optimal",), **SAYS)
def restless(X, *, k, start=None):
    """Return the optimum in another order each time it is asked to go on from it."""
    plan = kofn.assign(X, k=k, seed=0)
    if start is None:
        return plan
    turned = (plan.labels + 1) % k
    return dataclasses.replace(
        Assignment.from_labels(turned, k, medoids=np.roll(plan.medoids, 1)),
        value=plan.value,
        sense="min",
        status="local",
        info={"objective": "k_medoids"},
    )


@method("assign", traits=("capped-routing",), **SAYS)
def first_come(scores, *, capacity, overflow: str = "reroute"):
    """Give each item, in the order of the rows, its best bin that has room."""
    n, bins = scores.shape
    room = np.broadcast_to(capacity, bins).copy()
    labels = np.full(n, -1)
    for i in range(n):
        open_bins = np.where(room > 0, scores[i], -np.inf)
        if open_bins.max() > -np.inf:
            labels[i] = int(open_bins.argmax())
            room[labels[i]] -= 1
    value = float(scores[labels >= 0, labels[labels >= 0]].sum())
    return Assignment.from_labels(labels, bins, value=value, info={"objective": "routed_score"})


@method("assign", traits=("capped-routing",), **SAYS)
def wasteful(scores, *, capacity, overflow: str = "reroute"):
    """Leave everyone out."""
    plan = Assignment.from_labels(np.full(len(scores), -1), scores.shape[1], value=0.0)
    return dataclasses.replace(plan, info={"objective": "routed_score"})


def _spread_out(curves, budget, order, **fields):
    """One unit at a time to the items in this order."""
    amounts = np.zeros(len(curves), np.int64)
    for item in itertools.islice(itertools.cycle(order), int(budget)):
        amounts[item] = min(amounts[item] + 1, curves.shape[1] - 1)
    values = curves[np.arange(len(curves)), amounts].astype(float)
    return Allocation(
        n=len(curves),
        amounts=amounts,
        values=values,
        value=float(values.sum()),
        sense="min",
        price=0.5,
        used={"budget": int(amounts.sum())},
        budget={"budget": budget},
        info={"objective": "curves"},
        **fields,
    )


@method("allocate", traits=("concave",), **SAYS)
def evenly(curves, *, budget):
    """Give everyone the same."""
    return _spread_out(curves, budget, range(len(curves)))


@method("allocate", traits=("concave",), **SAYS)
def fickle(curves, *, budget):
    """Solve it, but hand odd budgets to the last item alone."""
    plan = kofn.allocate(curves, budget=budget)
    if budget % 2 == 0:
        return plan
    other = _spread_out(curves, budget, [len(curves) - 1])
    return dataclasses.replace(plan, amounts=other.amounts)


@method("allocate", traits=("duality",), **SAYS)
def spoiled(curves, *, budget):
    """Do worse the more it has, and call it optimal."""
    plan = kofn.allocate(curves, budget=min(budget, 1 if budget > 4 else budget))
    return dataclasses.replace(plan, budget={"budget": budget})


def _blend(members, result, form, weights=None):
    weights = np.full(len(members), 1 / len(members)) if weights is None else weights
    return Blend(n=len(members), result=result, form=form, weights=weights)


@method("combine", **SAYS)
def shrunk(members):
    """Average, then shrink towards zero."""
    return _blend(members, 0.9 * np.mean(members, axis=0), "simplex")


@method("combine", **SAYS)
def offset_mean(members):
    """Average, then add one: linear in nothing."""
    return _blend(members, np.mean(members, axis=0) + 1, "linear")


@method("combine", **SAYS)
def greedy_weights(members):
    """Call weights that sum to two affine."""
    return _blend(members, 2 * np.mean(members, axis=0), "affine", np.full(len(members), 2 / len(members)))


@method("combine", **SAYS)
def task_like(members):
    """Call a step beyond the members simplex."""
    weights = np.array([2.0, -1.0] + [0.0] * (len(members) - 2))
    return _blend(members, weights @ np.array(members), "simplex", weights)


@method("combine", **SAYS)
def sorted_mean(members):
    """Mix up the elements."""
    return Blend(n=len(members), result=np.sort(np.mean(members, axis=0)), form="elementwise")


@method("combine", **SAYS)
def by_index(rankings):
    """Rank by the alternatives' numbers, whatever the judges say."""
    return Blend(n=rankings.shape[1], result=np.arange(rankings.shape[1]), form="order", weights=np.ones(len(rankings)))


@method("combine", **SAYS)
def last_first(rankings):
    """Rank the worst first."""
    order = np.argsort(rankings.mean(axis=0), kind="stable")
    return Blend(n=rankings.shape[1], result=order, form="order", weights=np.ones(len(rankings)))


@method("combine", traits=("mergeable",), **SAYS)
def average_of_averages(members):
    """Keep the mean and forget how many it stands for."""
    average = np.mean(members, axis=0)
    return dataclasses.replace(_blend(members, average, "simplex"), statistic={"sum": average, "weight": 1.0})


@method("combine", traits=("mergeable",), **SAYS)
def forgetful(members):
    """Keep the sums of the first half only."""
    some = members[: max(1, len(members) // 2)]
    statistic = {"sum": np.sum(some, axis=0), "weight": float(len(some))}
    return dataclasses.replace(_blend(members, np.mean(members, axis=0), "simplex"), statistic=statistic)


def low_rank(members, *, factors: bool):
    """The blended update of low-rank pairs [B (3, 1), A (1, 3)], flattened: of products, or the product of means."""
    pairs = [(np.asarray(m)[:3, None], np.asarray(m)[None, 3:]) for m in members]
    if factors:
        return np.mean([b for b, _ in pairs], axis=0) @ np.mean([a for _, a in pairs], axis=0)
    return np.mean([b @ a for b, a in pairs], axis=0)


@method("combine", traits=("mergeable",), **SAYS)
def averaged_factors(members):
    """Average low-rank factors, and call the weighted product the sum of updates."""
    update = low_rank(members, factors=True)
    statistic = {"sum": len(members) * update, "weight": float(len(members))}
    return Blend(n=len(members), result=update, form="none", statistic=statistic)


@method("combine", traits=("mergeable",), **SAYS)
def averaged_updates(members):
    """Average the updates that the low-rank factors stand for."""
    update = low_rank(members, factors=False)
    statistic = {"sum": len(members) * update, "weight": float(len(members))}
    return Blend(n=len(members), result=update, form="none", statistic=statistic)


@method("combine", traits=("aligned",), **SAYS)
def plain_average(members, *, weights=None):
    """Average networks unit by unit."""
    result = {name: np.mean([member[name] for member in members], axis=0) for name in HIDDEN}
    return Blend(n=len(members), result=result, form="none")


@method("combine", traits=("aligned",), **SAYS)
def first_only(members, *, weights=None):
    """Shift the first network by its first unit: sees the order, though it aligns nothing."""
    result = dict(members[0])
    result["hidden.bias"] = result["hidden.bias"] + result["hidden.bias"][0]
    return Blend(n=len(members), result=result, form="none")


# --- methods that keep laws which no method of the index declares -----------------------------------------------------


@method("assign", traits=("priced", "sandwich"), **SAYS)
def exact_routing(scores, *, capacity):
    """Solve the routing as a linear program, with its prices."""
    scores = scores.astype(np.float64)
    n, bins = scores.shape
    room = np.broadcast_to(np.asarray(capacity, float), bins)
    listed = np.isfinite(scores)
    rows = np.kron(np.eye(n), np.ones(bins))
    columns = np.kron(np.ones(n), np.eye(bins))
    solved = scipy.optimize.linprog(
        -np.where(listed, scores, 0.0).ravel(),
        A_ub=np.vstack([rows, columns]),
        b_ub=np.concatenate([np.ones(n), room]),
        bounds=[(0, 1 if ok else 0) for ok in listed.ravel()],
        method="highs-ds",
    )
    held = solved.x.reshape(n, bins) > 0.5
    labels = np.where(held.any(axis=1), held.argmax(axis=1), -1)
    value = float(scores[labels >= 0, labels[labels >= 0]].sum())
    prices = -solved.ineqlin.marginals
    # The price of x <= 1 is the item's: give it back to u.
    u = np.where(listed, scores - prices[n:], 0.0).max(axis=1).clip(0)
    bound = float(u.sum() + (prices[n:] * room).sum())
    return Assignment.from_labels(
        labels, bins, value=value, bound=bound, status="optimal", u=u, v=prices[n:], info={"objective": "routed_score"}
    )


@method("combine", traits=("aligned",), **SAYS)
def matched_average(members, *, weights=None):
    """Average networks after matching their hidden units to those of the member that comes first in a fixed order."""

    def canonical(member):
        units = np.column_stack([member["hidden.weight"], member["hidden.bias"], np.asarray(member["out.weight"]).T])
        return permuted(member, np.lexsort(units.T))

    def matched(reference, member):
        a = np.column_stack([reference["hidden.weight"], reference["hidden.bias"]])
        b = np.column_stack([member["hidden.weight"], member["hidden.bias"]])
        return permuted(member, scipy.optimize.linear_sum_assignment(-a @ b.T)[1])

    ordered = [canonical(member) for member in members]
    ordered = [ordered[0], *(matched(ordered[0], member) for member in ordered[1:])]
    result = {name: np.mean([member[name] for member in ordered], axis=0) for name in HIDDEN}
    return Blend(n=len(members), result=result, form="none")


@method("combine", **SAYS)
def middle(members):
    """Take the median, element by element."""
    arrays = np.array([np.asarray(member, np.float64) for member in members])
    return Blend(n=len(members), result=np.median(arrays, axis=0), form="elementwise")


def _networks(count: int = 3) -> list[dict[str, Any]]:
    shapes = dict(zip(HIDDEN, ((4, 2), (4,), (3, 4)), strict=True))
    return [{name: RNG.normal(size=shape) for name, shape in shapes.items()} for _ in range(count)]


# --- the violators, law by law ---------------------------------------------------------------------------------------

Plant = Callable[[], Case]
VIOLATORS: dict[str, dict[str, Plant]] = {
    "fields": {
        "another noun": lambda: doctored_noun(),
        "pool size": lambda: doctored(greedy(), n=7),
        "32-bit indices": lambda: doctored(greedy(), indices=greedy().plan.indices.astype(np.int32)),
        "float indices": lambda: doctored(greedy(), indices=greedy().plan.indices.astype(float)),
        "a gain less": lambda: doctored(greedy(), gains=greedy().plan.gains[:-1]),
        "32-bit gains": lambda: doctored(greedy(), gains=greedy().plan.gains.astype(np.float32)),
        "an integer value": lambda: doctored(greedy(), value=3),
        "an infinite bound": lambda: doctored(greedy(), bound=float("inf")),
        "no seconds": lambda: doctored(greedy(), info={"seconds": None}),
        "exact but approximate": lambda: doctored(greedy(), status="approximate", info={"exact": True}),
        "a budget that is not used": lambda: doctored(greedy(), budget={"k": 3, "costs": 1}),
        "no method": lambda: doctored(greedy(), method=""),
        "no digest": lambda: doctored(greedy(), problem="abc"),
        "silent options": lambda: doctored(routes(), options={}),
        "an item twice": lambda: doctored(greedy(), indices=np.array([1, 1, 2])),
        "a chance above one": lambda: doctored(greedy(), probabilities=np.full(8, 1.5)),
        "chances that do not add up": lambda: doctored(greedy(), probabilities=np.full(8, 0.5)),
        "an impossible pick": lambda: doctored(greedy(), probabilities=_impossible(greedy())),
        "a short indptr": lambda: doctored(routes(), indptr=routes().plan.indptr[:-1]),
        "64-bit bins": lambda: doctored(routes(), bins=routes().plan.bins.astype(np.int64)),
        "a weight of zero": lambda: doctored(routes(), weights=np.zeros(5, np.float32)),
        "a medoid elsewhere": lambda: doctored(medoids(), medoids=np.roll(medoids().plan.medoids, 1)),
        "a negative amount": lambda: doctored(levels(), amounts=np.array([-1, 0, 1])),
        "a negative price": lambda: doctored(levels(), price=-1.0),
        "values of another length": lambda: doctored(levels(), values=np.zeros(2)),
        "an infinite spread": lambda: doctored(mean(), spread=np.full(4, np.inf)),
        "a form of its own": lambda: doctored(mean(), form="round"),
        "weights of another length": lambda: doctored(mean(), weights=np.ones(3)),
        "half an order": lambda: doctored(ranked(), result=np.array([0, 1, 1, 2])),
    },
    "feasible": {
        "one more": lambda: doctored(greedy(), indices=np.arange(4), gains=np.zeros(4)),
        "one less": lambda: doctored(greedy(), indices=np.arange(2), gains=np.zeros(2)),
        "twice": lambda: doctored(greedy(), indices=np.array([1, 1, 2])),
        "outside": lambda: doctored(greedy(), indices=np.array([1, 2, 8])),
        "over by one of 2^60": lambda: _spender(np.full(8, 2**58), 3 * 2**58 - 1),
        "over by a rounding too many": lambda: _spender(np.full(8, 0.1), 0.3 * (1 - 1e-14)),
        "used is not what is spent": lambda: doctored(
            greedy(k=None, budget=3, costs=[1] * 8), used={"k": 3, "costs": 2}
        ),
        "below a quota": lambda: _swapped(groups=list("aabbbbbb"), quotas={"a": (1, None)}, picks=[2, 3, 4]),
        "above a quota": lambda: _swapped(groups=list("aaabbbbb"), quotas={"a": (0, 2)}, picks=[0, 1, 2]),
        "not included": lambda: _swapped(include=[0], picks=[1, 2, 3]),
        "not started from": lambda: _swapped(start=[0], picks=[1, 2, 3]),
        "excluded": lambda: _swapped(exclude=[0], picks=[0, 1, 2]),
        "a bin too full": lambda: doctored(routes(), **_labels([0, 0, 0, 1, 2])),
        "two bins an item": lambda: doctored(
            routes(), indptr=np.array([0, 2, 2, 2, 2, 2]), bins=np.array([0, 1], np.int32), weights=np.ones(2)
        ),
        "more spent than the budget": lambda: doctored(
            levels(), amounts=np.array([3, 1, 1]), values=np.array([0.375, 4.5, 5.5])
        ),
    },
    "recount": {
        "a value without an objective": lambda: doctored(greedy(), info={"objective": None}),
        "an objective nobody knows": lambda: doctored(greedy(), info={"objective": "beauty"}),
        "one part in 10^11": lambda: doctored(greedy(), value=greedy().plan.value * (1 + 1e-11)),
        "gains of another order": lambda: doctored(greedy(), gains=greedy().plan.gains[::-1]),
        "picks of another set": lambda: doctored(greedy(), indices=np.array([0, 1, 2])),
        "an offset below the distances": lambda: doctored(greedy(), info={"offset": 0.0}),
        "another radius": lambda: doctored(of("select", "farthest_first", X=X, k=3), value=0.1),
        "a sum of scores": lambda: doctored(top(), value=top().plan.value + 1e-9),
        "an item with a far medoid": lambda: doctored(medoids(), **_far_label(medoids())),
        "a loss": lambda: doctored(medoids(), value=medoids().plan.value * 0.999999),
        "a score that was not routed": lambda: doctored(routes(), value=routes().plan.value + 1.0),
        "a level that is not there": lambda: doctored(levels(), values=levels().plan.values + 1e-9),
        "a loss over the levels": lambda: doctored(levels(), value=levels().plan.value + 1e-9),
        "another sense": lambda: doctored(levels(), sense="max"),
        "less used": lambda: doctored(levels(), used={"budget": 1}),
        "another budget": lambda: doctored(levels(), budget={"budget": 5}),
        "a spread": lambda: doctored(mean(), spread=mean().plan.spread * 0.99),
        "other weights": lambda: doctored(mean(), weights=np.array([0.7, 0.1, 0.1, 0.1])),
        "a blend's loss": lambda: doctored(mean(), value=mean().plan.value + 0.01),
        "points": lambda: doctored(ranked(), info={"points": ranked().plan.info["points"] + 1e-9}),
        "a ranking against its points": lambda: doctored(ranked(), result=ranked().plan.result[::-1]),
        "a judge's disagreement": lambda: doctored(ranked(), spread=ranked().plan.spread + 0.1),
        "the judges' loss": lambda: doctored(ranked(), value=0.0),
    },
    "saved": {
        "an option that is no data": lambda: doctored(routes(), options={"when": datetime.date(2026, 1, 1)}),
        "an array of addresses": lambda: doctored(routes(), options={"what": np.array([object()], object)}),
    },
    "same-again": {
        "moody": lambda: of("select", moody, scores=SCORES, k=2),
        "another plan": lambda: doctored(greedy(), value=1.0),
    },
    "ids": {"moody": lambda: of("select", moody, scores=SCORES, k=2)},
    "untouched": {"scribbler": lambda: of("select", scribbler, X=X.copy(), k=2)},
    "sandwich": {
        "better than the best": lambda: doctored(top(), value=99.0, bound=99.0),
        "boastful": lambda: of("select", boastful, scores=SCORES, k=3),
        "a bound within reach": lambda: doctored(greedy(), bound=brute.optimum(greedy()) * (1 - 1e-8)),
        "a radius bound too high": lambda: _radius_bound(),
        "optimal with a gap": lambda: doctored(top(), bound=top().plan.value + 1.0),
        "optimal without a bound": lambda: doctored(top(), bound=None),
        "levels better than the best": lambda: doctored(levels(), bound=levels().plan.value + 0.1),
        "routes better than the best": lambda: doctored(routes(), bound=routes().plan.value - 0.1),
        "medoids better than the best": lambda: doctored(medoids(), bound=medoids().plan.value + 0.1),
    },
    "greedy": {
        "worst first": lambda: of("select", worst_first, scores=SCORES, k=3),
        "the right set in the wrong order": lambda: of("select", right_set_wrong_order, scores=SCORES, k=3),
        "timid": lambda: of("select", timid, scores=SCORES, budget=9, costs=[1, 2, 1, 2, 1, 2, 1]),
        "rising gains": lambda: doctored(greedy(), gains=np.sort(greedy().plan.gains)),
        "a promise above what is held": lambda: doctored(greedy(k=2, X=NEEDLES), info={"guarantee": 1.0}),
        "no prefix": lambda: _not_nested(),
    },
    "swap-optimal": {
        "first come": lambda: of("assign", first_come_medoids, X=X, k=3),
        "restless": lambda: of("assign", restless, X=X, k=3),
        "not even local": lambda: doctored(medoids(), status="heuristic"),
    },
    "priced": {
        "no price where it is full": lambda: doctored(exact(), v=np.zeros(3)),
        "dear bins": lambda: doctored(exact(), v=exact().plan.v + 1.0),
        "a price below zero": lambda: doctored(exact(), u=exact().plan.u + 9, v=np.array([-1.0, -1.0, -1.0])),
        "items that pay too little": lambda: doctored(exact(), u=exact().plan.u * 0.5),
        "a bound of its own": lambda: doctored(exact(), bound=exact().plan.bound + 1.0),
        "routed elsewhere": lambda: doctored(exact(), **_labels([2, 2, 1, 1, 0])),
        "idle at a price": lambda: doctored(exact(), **_labels([-1, 0, 1, 1, 2])),
    },
    "capped-routing": {
        "first come": lambda: of("assign", first_come, scores=TABLE[::-1].copy(), capacity=2),
        "wasteful": lambda: of("assign", wasteful, scores=TABLE, capacity=2),
        "wasteful where it may drop": lambda: of("assign", wasteful, {"overflow": "drop"}, scores=TABLE, capacity=2),
        "the lowest kept": lambda: doctored(routes("drop"), **_labels([-1, -1, -1, 0, 0])),
    },
    "equivariant": {"early rows": lambda: of("select", early_rows, scores=SCORES, k=3)},
    "inclusion": {
        "sloppy": lambda: of("select", sloppy_draw, scores=SCORES, k=2, seed=0),
        "never": lambda: doctored(of("select", "random_sample", X=X, k=2, seed=0), probabilities=_one_certain()),
    },
    "duality": {
        "no price": lambda: doctored(levels(), price=None),
        "a value that no price allows": lambda: doctored(levels(), value=levels().plan.value - 0.6),
        "spoiled": lambda: levels(spoiled),
    },
    "concave": {
        "evenly": lambda: levels(evenly),
        "fickle": lambda: levels(fickle),
        "a price beside the marginals": lambda: doctored(levels(), price=levels().plan.price + 5.0),
        "other marginals": lambda: doctored(levels(), marginal_up=np.zeros(3)),
        "no marginals": lambda: doctored(levels(), marginal_down=None),
        "a gap": lambda: doctored(levels(), bound=levels().plan.value - 0.1),
    },
    "blend": {
        "shrunk": lambda: mean(shrunk),
        "offset": lambda: mean(offset_mean),
        "weights of two": lambda: mean(greedy_weights),
        "negative weights": lambda: mean(task_like),
        "outside the box": lambda: doctored(mean(), result=np.max(MEMBERS, axis=0) + 1e-9),
        "elements that mix": lambda: mean(sorted_mean),
        "by index": lambda: ranked(by_index, rankings=BALLOTS[:, ::-1].copy()),
        "by index, nobody agrees": lambda: ranked(by_index, rankings=np.array([[1.0, 2.0], [2.0, 1.0]])),
        "last first": lambda: ranked(last_first),
    },
    "mergeable": {
        "average of averages": lambda: mean(average_of_averages),
        "forgetful": lambda: mean(forgetful),
        "averaged factors": lambda: mean(averaged_factors, members=LOW_RANK),
        "a result of its own": lambda: doctored(mean(), result=mean().plan.result + 1e-3),
    },
    "aligned": {
        "unit by unit": lambda: mean(plain_average, members=_networks()),
        "first only": lambda: mean(first_only, members=_networks()),
    },
}

NEEDLES = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.1, 0.0], [-1.1, 0.0]])
LOW_RANK = [RNG.normal(size=6) for _ in range(4)]


def exact() -> Case:
    return of("assign", exact_routing, scores=TABLE, capacity=[1, 2, 2])


def doctored_noun() -> Case:
    return dataclasses.replace(greedy(), plan=routes().plan)


def _labels(labels: list[int]) -> dict[str, Any]:
    plan = Assignment.from_labels(labels, 3)
    return {"indptr": plan.indptr, "bins": plan.bins, "weights": plan.weights}


def _impossible(case: Case) -> np.ndarray:
    chance = np.full(8, 3 / 7)
    chance[case.plan.indices[0]] = 0.0
    return chance


def _one_certain() -> np.ndarray:
    chance = np.full(8, 1 / 7)
    chance[0] = 1.0
    return chance


def _spender(costs: np.ndarray, budget: float) -> Case:
    case = greedy(k=None, budget=budget, costs=costs)
    three = np.array([0, 1, 2])
    return doctored(case, indices=three, gains=np.zeros(3), used={"costs": sum(costs[three].tolist())})


def _swapped(picks: list[int], **given: Any) -> Case:
    return doctored(greedy(**given), indices=np.array(picks))


def _far_label(case: Case) -> dict[str, Any]:
    labels = case.plan.labels.copy()
    item = next(i for i in range(8) if i not in case.plan.medoids)
    labels[item] = (labels[item] + 1) % 3
    return _labels(labels.tolist())


def _radius_bound() -> Case:
    case = of("select", "farthest_first", X=X, k=3)
    return doctored(case, bound=brute.optimum(case) * (1 + 1e-8))


def _not_nested() -> Case:
    """Right at every step, but another tie is taken for k - 1 than for k."""
    return doctored(top(scores=np.array([1.0, 1.0, 0.5]), k=2), indices=np.array([1, 0]))


PLANTED = [
    pytest.param(name, plant, id=f"{name}-{label}")
    for name, group in VIOLATORS.items()
    for label, plant in group.items()
]


def test_every_law_has_its_violators() -> None:
    assert VIOLATORS.keys() == LAWS.keys()
    assert all(VIOLATORS.values())


@pytest.mark.parametrize(("name", "plant"), PLANTED)
def test_is_caught(name: str, plant: Plant) -> None:
    with pytest.raises(LawBroken, match=f"breaks '{name}'|breaks 'recount'"):
        LAWS[name](plant())


def test_the_undoctored_plans_keep_every_law() -> None:
    for build in (greedy, top, medoids, routes, levels, mean, ranked, exact):
        case = build()
        names = {*REGISTRY.always, *REGISTRY.by_verb.get(case.verb, ()), *case.plan.traits}
        for name in sorted(names):
            LAWS[name](case)


KEEPERS = [
    pytest.param(exact_routing, "priced", id="priced"),
    pytest.param(exact_routing, "sandwich", id="sandwich of routes"),
    pytest.param(matched_average, "aligned", id="aligned"),
    pytest.param(averaged_updates, "mergeable", id="mergeable low-rank updates"),
    pytest.param(middle, "blend", id="elementwise"),
]


@pytest.mark.parametrize(("rule", "name"), KEEPERS)
def test_is_kept(rule: Any, name: str) -> None:
    def usable(call: Any) -> bool:
        if rule is averaged_updates:
            call.given["members"] = [np.resize(np.asarray(member, float), 6) for member in call.given["members"]]
        return rule is not middle or not isinstance(call.given["members"][0], dict)

    assert holds(rule.__kofn__.entry(), name, rule, usable) >= LEAST


def test_averaging_low_rank_factors_misses_the_update_by_more_than_a_tenth() -> None:
    whole, parts = (
        low_rank(LOW_RANK, factors=True),
        [low_rank(LOW_RANK[:2], factors=True), low_rank(LOW_RANK[2:], factors=True)],
    )
    assert np.linalg.norm(np.mean(parts, axis=0) - whole) > 0.1 * np.linalg.norm(whole)
    whole, parts = (
        low_rank(LOW_RANK, factors=False),
        [low_rank(LOW_RANK[:2], factors=False), low_rank(LOW_RANK[2:], factors=False)],
    )
    assert np.linalg.norm(np.mean(parts, axis=0) - whole) < 1e-12 * np.linalg.norm(whole)


class TestTheRecountItself:
    """The two ways in which the laws compute a set's value agree, and brute force finds what a loop finds."""

    @pytest.mark.parametrize("name", ["lazy_greedy", "farthest_first"])
    @pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
    def test_one_set_and_all_sets(self, name, metric):
        case = of("select", name, X=np.vstack([X[:4], np.zeros((2, 2))]), k=2, metric=metric)
        rule = set_function(case)
        masks = brute.subsets(6)
        each = [rule.value(np.flatnonzero(mask)) for mask in masks]
        assert np.allclose(rule.values(masks), each, rtol=1e-12)

    def test_optimum_of_levels(self):
        case = levels()
        best = min(
            sum(CURVES[i, level] for i, level in enumerate(choice))
            for choice in itertools.product(range(4), repeat=3)
            if sum(choice) <= 4
        )
        assert brute.optimum(case) == pytest.approx(best)

    @pytest.mark.parametrize("per_item", [1, 2])
    def test_optimum_of_routes(self, per_item):
        table, room = TABLE[:4], [1, 2, 1]
        case = of("assign", "capped_routing", {"overflow": "drop"}, scores=table, capacity=room, per_item=per_item)
        bins = [c for size in range(per_item + 1) for c in itertools.combinations(range(3), size)]
        best = max(
            sum(table[i, j] for i, chosen in enumerate(plan) for j in chosen)
            for plan in itertools.product(bins, repeat=4)
            if all(sum(j in chosen for chosen in plan) <= room[j] for j in range(3))
        )
        assert brute.optimum(case) == pytest.approx(best)

    def test_a_large_problem_is_left_alone(self):
        assert brute.optimum(of("select", "top_k", scores=np.arange(20.0), k=2)) is None
