"""Methods that break a law, and some that keep a law which no method of the index declares."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import scipy.optimize

import kofn
from kofn.core.checks import InfeasibleError
from kofn.core.draws import Draw
from kofn.core.plans import Allocation, Assignment, Blend, Selection
from kofn.core.registry import method
from kofn.engines.opening import opened
from kofn.laws.words import HIDDEN, pairwise, permuted

SAYS = {"cost": "", "exact": "", "paper": ""}


def picks(n, index, **fields):
    index = np.asarray(index, np.int64)
    return Selection(n=n, indices=index, **{"gains": np.full(len(index), np.nan), **fields})


COUNTER = itertools.count()


@method("select", **SAYS)
def moody(scores, *, k):
    """Answer otherwise every time."""
    return picks(len(scores), (np.arange(k) + next(COUNTER)) % len(scores))


# With so many threads `uneven` answers otherwise.
UNEVEN_WITH = 1


@method("select", **SAYS)
def uneven(scores, *, k, n_threads=None):
    """Take the first k items, but with one number of threads the last ones."""
    return picks(len(scores), np.arange(k) + (len(scores) - k) * (n_threads == UNEVEN_WITH))


@method("select", **SAYS)
def scribbler(X, *, k):
    """Sort what it was lent."""
    X.sort(axis=0)
    return picks(len(X), np.arange(k))


@method("select", traits=("distributed",), **SAYS)
def by_workers(scores, *, k, seed=None, engine=None):
    """Cut the pool into as many parts as there are workers."""
    with opened(engine) as ran:
        parts = np.array_split(np.argsort(-scores), max(1, ran.workers))
        return picks(len(scores), np.array([row for group in zip(*parts, strict=False) for row in group])[:k])


@method("select", traits=("distributed",), **SAYS)
def counting_attempts(scores, *, k, seed=None, engine=None):
    """Pick other rows when a task is done twice."""
    with opened(engine) as ran:
        first = list(ran.map(_attempt, [0], shared=(itertools.count(),)))
        return picks(len(scores), (first[0] + np.arange(k)) % len(scores))


def _attempt(_item, counter):
    return next(counter)


@method("select", traits=("equivariant",), **SAYS)
def early_rows(scores, *, k):
    """Prefer rows that come early."""
    index = np.argsort(-(scores - 0.9 * np.arange(len(scores))))[:k]
    value = float(scores[index].sum())
    return picks(len(scores), index, value=value, gains=scores[index], objective="modular")


def _modular(scores, index, **fields):
    gains = scores[np.asarray(index)]
    return picks(len(scores), index, gains=gains, value=float(gains.sum()), objective="modular", **fields)


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


def _farthest(X, k, kind):
    """Farthest-first picks with squares in the given precision."""
    index = [0]
    with np.errstate(all="ignore"):
        rows = X.astype(kind)
        while len(index) < k:
            squares = ((rows[:, None] - rows[index]) ** 2).sum(axis=2).min(axis=1)
            squares[index] = -1
            index.append(int(squares.argmax()))
    return index


@method("select", **SAYS)
def narrow(X, *, k):
    """Compare rows in float32."""
    return picks(len(X), _farthest(X, k, np.float32))


@method("select", **SAYS)
def indifferent(X, *, k):
    """Call differences up to one nothing."""
    return picks(len(X), _farthest(np.rint(X), k, np.float64))


@method("select", **SAYS)
def unit_bound(scores, *, k):
    """Bound what is left by one an item."""
    index = np.argsort(-scores)[:k]
    return dataclasses.replace(_modular(scores, index), bound=float(scores[index].sum() + len(scores) - k))


@method("select", **SAYS)
def hasty(scores, *, k):
    """Call scores that hardly differ, or differ by much, solved."""
    spread = float(np.ptp(scores))
    plan = _modular(scores, np.argsort(-scores)[:k])
    return plan if 1e-6 < spread < 1e6 else dataclasses.replace(plan, status="optimal", bound=plan.value)


@method("select", **SAYS)
def surcharged(scores, *, budget, costs):
    """Charge one more for every item."""
    order = np.argsort(-scores / (costs + 1))
    index = order[np.cumsum(costs[order]) <= budget]
    used = {"costs": float(costs[index].sum())}
    return dataclasses.replace(_modular(scores, index), used=used, budget={"costs": budget})


@method("select", draws=Draw(scale_free=False), **SAYS)
def clipped(scores, *, k):
    """Value scores between a thousandth and a thousand."""
    index = np.argsort(-scores)[:k]
    gains = np.clip(scores[index], 1e-3, 1e3)
    return picks(len(scores), index, gains=gains, value=float(gains.sum()), objective="modular")


@method("select", **SAYS)
def stingy(scores, *, k):
    """Find no room for scores that are small or large."""
    if not 1e-6 < np.abs(scores).max() < 1e6:
        raise InfeasibleError("no room for such scores")
    return _modular(scores, np.argsort(-scores)[:k])


@method("assign", traits=("swap-optimal",), **SAYS)
def first_come_medoids(X, *, k, start=None):
    """Take the first rows as medoids and call that local."""
    apart = pairwise(X, "euclidean")
    labels = apart[:, :k].argmin(axis=1)
    labels[:k] = np.arange(k)
    value = float(apart[np.arange(len(X)), labels].sum())
    return Assignment.from_labels(
        labels, k, medoids=np.arange(k), value=value, sense="min", status="local", objective="k_medoids"
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
        objective="k_medoids",
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
    return Assignment.from_labels(labels, bins, value=value, objective="routed_score")


@method("assign", traits=("capped-routing",), **SAYS)
def wasteful(scores, *, capacity, overflow: str = "reroute"):
    """Leave everyone out."""
    plan = Assignment.from_labels(np.full(len(scores), -1), scores.shape[1], value=0.0)
    return dataclasses.replace(plan, objective="routed_score")


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
        objective="curves",
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
    return Blend(n=len(rankings), result=np.arange(len(rankings)), form="order", weights=np.ones(rankings.shape[1]))


@method("combine", **SAYS)
def last_first(rankings):
    """Rank the worst first."""
    order = np.argsort(rankings.mean(axis=1), kind="stable")
    return Blend(n=len(rankings), result=order, form="order", weights=np.ones(rankings.shape[1]))


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


# Below: methods that keep laws which no method of the index declares.


@method("assign", traits=("priced", "sandwich"), **SAYS)
def exact_routing(scores, *, capacity):
    """Solve the routing as a linear program, with its prices."""
    scores = scores.astype(np.float64)
    n, bins = scores.shape
    room = np.broadcast_to(np.asarray(capacity, float), bins)
    listed = np.isfinite(scores)
    # The solver's tolerances are absolute.
    unit = 2.0 ** np.frexp(np.abs(scores[listed]).max(initial=0.0))[1]
    scores = scores / unit
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
        labels,
        bins,
        value=value * unit,
        bound=bound * unit,
        status="optimal",
        u=u * unit,
        v=prices[n:] * unit,
        objective="routed_score",
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
