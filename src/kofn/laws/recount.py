"""Every objective again, written out plainly in float64 from the checked arguments alone.

Nothing here shares code or state with the methods: distances are differences, set functions are maxima over
columns, sums are exact. `objective` names the function that a plan's `value` is.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import dispatch
from kofn.core.arrays import Floats, Mask
from kofn.core.checks import InputError, is_sparse
from kofn.core.vocabulary import VOCABULARY
from kofn.laws.case import Case, broken, near
from kofn.laws.functions import gather
from kofn.objectives import base


def accepted(case: Case) -> frozenset[str]:
    """The words that the case's method takes."""
    if not callable(case.method):
        return frozenset(dispatch.methods_of(case.verb)[case.plan.method].accepted)
    spec = getattr(case.method, "__kofn__", None)
    names = spec.entry().accepted if spec is not None else inspect.signature(case.method).parameters
    return frozenset(names) & VOCABULARY.keys()


def pairwise(X: NDArray[Any], metric: str) -> Floats:
    """(n, n) distances from differences."""
    rows = np.asarray(X, np.float64)
    if metric == "cosine":
        sizes = np.sqrt((rows * rows).sum(axis=1))
        rows = rows / np.where(sizes > 0, sizes, 1.0)[:, None]
        # Rows of zeros share a direction of their own, at right angles to all others.
        rows = np.column_stack([rows, sizes == 0])
    squares = np.empty((len(rows), len(rows)))
    for row, target in zip(rows, squares, strict=True):
        gap = rows - row
        target[:] = (gap * gap).sum(axis=1)
    if metric == "cosine":
        # 1 - cos is half the squared chord.
        return squares / 2
    return np.sqrt(squares) if metric == "euclidean" else squares


def distances(case: Case) -> Floats:
    """(n, n) distances that the call means."""
    words = case.words
    if "distances" in words:
        return np.asarray(words["distances"], np.float64)
    return pairwise(words["X"], words.get("metric", "euclidean"))


def item_weights(case: Case) -> Floats:
    """(n,) weights of the pool's items."""
    return np.asarray(case.words.get("weights", np.ones(case.n)), np.float64)


@dataclass(frozen=True)
class SetFunction:
    """A set function written out plainly, and what may be expected of it.

    `scale` is the size of the terms that a value is summed from: below its rounding, differences are nothing.
    """

    name: str
    value: Callable[[Any], float]
    many: Callable[[Mask], Floats] | None = None
    scale: Callable[[Any], float] = lambda _picks: 0.0
    submodular: bool = True
    monotone: bool | None = True

    def values(self, masks: Mask) -> Floats:
        """The value of each set, given as rows of a mask."""
        if self.many is not None:
            return self.many(masks)
        return np.array([self.value(np.flatnonzero(mask)) for mask in masks])

    def is_monotone(self, n: int) -> bool:
        """Whether adding an item never lowers the value; looked at for every set where it depends on the numbers."""
        if self.monotone is not None:
            return self.monotone
        masks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
        values = self.values(masks)
        lifts = [values[masks[:, item]] - values[~masks[:, item]] for item in range(n)]
        return bool(min(float(lift.min()) for lift in lifts) >= -1e-12 * float(np.abs(values).max()))


def from_table(name: str, table: Floats, weights: Floats, kind: str) -> SetFunction:
    """A function read off a table: the sum of its entries, or its columns' "most", "least" or "radius" in each row."""
    empty = 0.0 if kind == "most" else math.inf
    join = np.maximum if kind == "most" else np.minimum

    def value(picks: Any) -> float:
        picks = np.asarray(picks, np.int64)
        if kind == "sum":
            return math.fsum(table[picks].tolist())
        if not len(picks):
            return empty
        nearest = join.reduce(table[:, picks], axis=1)
        return math.fsum((weights * nearest).tolist()) if kind != "radius" else float(nearest.max())

    def many(masks: Mask) -> Floats:
        if kind == "sum":
            # Entries of -inf may not be picked; where they are left out they count for nothing.
            return np.where(masks, table, 0.0).sum(axis=1)
        best = np.full((len(masks), len(table)), empty)
        for item in range(masks.shape[1]):
            best = np.where(masks[:, [item]], join(best, table[:, item]), best)
        if kind == "radius":
            out: Floats = best.max(axis=1)
            return out
        with np.errstate(invalid="ignore"):
            return best @ weights

    def scale(picks: Any) -> float:
        if kind == "sum":
            return math.fsum(np.abs(table[np.asarray(picks, np.int64)]).tolist())
        # Below the rounding of the largest distance, distances are nothing.
        return float(np.finfo(np.float64).eps * table.max()) if kind == "radius" else 0.0

    return SetFunction(name, value, many, scale, kind in ("sum", "most"), None if kind == "sum" else True)


def set_function(case: Case) -> SetFunction | None:
    """The set function that the case's plan names, None where it names none or the user's own."""
    name = case.plan.objective
    if not name:
        return None
    known = functions()
    if name in known:
        return _part(case, base.Term(name))
    try:
        terms = base.parse(name, known)
    except InputError:
        return None
    parts = [(term.weight, _part(case, term)) for term in terms]
    if len(parts) == 1 and terms[0].weight == 1:
        return parts[0][1]
    return SetFunction(
        name,
        lambda picks: math.fsum(weight * part.value(picks) for weight, part in parts),
        lambda masks: np.sum([weight * part.values(masks) for weight, part in parts], axis=0),
        lambda picks: math.fsum(weight * part.scale(picks) for weight, part in parts),
        all(part.submodular for _, part in parts),
        True if all(part.monotone for _, part in parts) else None,
    )


def _part(case: Case, term: base.Term) -> SetFunction:
    made = functions()[term.name](case, **term.parameters)
    if isinstance(made, SetFunction):
        return made
    known = base.OBJECTIVES.get(term.name)
    value: Callable[[Any], float] = made
    alone = max((abs(value(np.array([item], np.int64))) for item in range(case.n)), default=0.0)
    return SetFunction(
        term.name,
        value,
        scale=lambda _picks: alone * case.n,
        submodular=known is None or known.submodular,
        monotone=None if known is None else known.monotone,
    )


def _modular(case: Case) -> SetFunction:
    return from_table("modular", np.asarray(case.words["scores"], np.float64).ravel(), np.ones(case.n), "sum")


def _facility_location(case: Case) -> SetFunction:
    return from_table("facility_location", _similarity(case), item_weights(case), "most")


def _k_center(case: Case) -> SetFunction:
    return from_table("k_center", distances(case), np.ones(case.n), "radius")


def _k_medoids(case: Case) -> SetFunction:
    return from_table("k_medoids", distances(case), item_weights(case), "least")


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """name -> the function from a case and the objective's own parameters: those below and every family's."""
    return {**FUNCTIONS, **gather("FUNCTIONS")}


@functools.cache
def recounts() -> dict[str, Callable[[Case], None]]:
    """name -> the check of plans that are no set functions: those below and every family's."""
    return {**RECOUNTS, **gather("RECOUNTS")}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "modular": _modular,
    "facility_location": _facility_location,
    "k_center": _k_center,
    "k_medoids": _k_medoids,
}


def _similarity(case: Case) -> Floats:
    words = case.words
    if "similarity" in words:
        given = words["similarity"]
        return np.asarray(given.toarray() if is_sparse(given) else given, np.float64)
    apart = pairwise(words["X"], words.get("metric", "euclidean"))
    if words.get("metric") == "cosine":
        apart = apart / 2
    offset = float(case.plan.info["offset"])
    if offset < apart.max() * (1 - case.rtol):
        raise broken(case, "recount", f"offset {offset!r} is below the largest distance {apart.max()!r}")
    return offset - apart


@dataclass(frozen=True)
class Levels:
    """What `allocate` was asked: worth and exact cost of each level of each item, and the budget."""

    amounts: NDArray[Any]
    curves: Floats
    costs: NDArray[Any]
    budget: Fraction
    whole: bool
    sense: str

    @classmethod
    def of(cls, case: Case) -> Levels:
        """Read the call as the vocabulary defines it."""
        options = case.options
        curves = np.asarray(case.words["curves"])
        n, width = curves.shape
        levels = np.broadcast_to(np.asarray(options.get("levels", np.arange(width))), (n, width))
        sizes = np.asarray(options.get("sizes", np.ones(n, np.int64)))
        costs = sizes[:, None] * levels
        if "budget" in case.words:
            budget = Fraction(case.words["budget"])
        else:
            # A mean as written in decimals: 0.29 of 100 is 29.
            budget = Fraction(repr(options["mean_budget"])) * sum(Fraction(size.item()) for size in sizes)
        whole = bool((costs == np.floor(costs)).all())
        return cls(levels, curves.astype(np.float64), costs, budget, whole, options.get("sense", "min"))

    def level(self, item: int, amount: Any, value: float) -> int | None:
        """The column that has this amount and this value, None where there is none."""
        found = np.flatnonzero((self.amounts[item] == amount) & (self.curves[item] == value))
        return int(found[0]) if len(found) else None

    def spent(self, amounts: NDArray[Any]) -> list[Any]:
        """The cost of each item's amount, as a Python number."""
        columns = [int(np.flatnonzero(self.amounts[i] == amount)[0]) for i, amount in enumerate(amounts)]
        return [self.costs[item, column].item() for item, column in enumerate(columns)]

    @property
    def limit(self) -> Fraction:
        """The budget with its only tolerance, the rounding of a float sum."""
        slack = Fraction(1) if self.whole else 1 + len(self.curves) * Fraction(float(np.finfo(float).eps))
        return self.budget * slack


def hold(case: Case) -> bool:
    """Recount the plan; returns whether there was a value to recount."""
    name = case.plan.objective
    if not name:
        if math.isfinite(case.plan.value):
            raise broken(case, "recount", f"value {case.plan.value!r} has no objective that says what it is")
        return False
    if name in recounts():
        recounts()[name](case)
        return True
    if set_function(case) is not None:
        _set_value(case)
        return True
    own = case.given.get("objective")
    if own is None or isinstance(own, str) or type(own).__name__ != name:
        raise broken(case, "recount", f"objective {name!r} has no recount")
    _agree(case, "value", case.plan.value, float(own.value(case.plan.indices)))
    return True


def _agree(case: Case, what: str, told: float, counted: float, scale: float = 0.0) -> None:
    if not near(told, counted, case.rtol, scale):
        raise broken(case, "recount", f"{what} is {told!r}, recounted {counted!r}")


def _set_value(case: Case) -> None:
    """Value of the set; where gains add up, every prefix of them as well."""
    plan, rule = case.plan, set_function(case)
    assert rule is not None
    scale = rule.scale(plan.indices)
    _agree(case, "value", plan.value, rule.value(plan.indices), scale)
    if not plan.additive:
        return
    for t in range(len(plan.indices) + 1):
        total = math.fsum(plan.gains[:t].tolist())
        _agree(case, f"the sum of {t} gains", total, rule.value(plan.indices[:t]), max(scale, abs(plan.value)))


def _medoid_loss(case: Case) -> None:
    plan, rule = case.plan, set_function(case)
    assert rule is not None
    # Below the rounding of the largest distance, distances are nothing.
    table = distances(case)
    nothing = float(np.finfo(np.float64).eps * table.max() * item_weights(case).sum())
    _agree(case, "value", plan.value, rule.value(plan.medoids), nothing)
    own = table[np.arange(case.n), plan.medoids[plan.labels]]
    least = table[:, plan.medoids].min(axis=1)
    if not np.allclose(own, least, rtol=case.rtol, atol=case.rtol * table.max()):
        far = int(np.argmax(own - least))
        raise broken(case, "recount", f"item {far} is not with its nearest medoid: {own[far]!r} > {least[far]!r}")


def _routed(case: Case) -> None:
    plan = case.plan
    scores = np.asarray(case.words["scores"], np.float64)
    rows = np.repeat(np.arange(case.n), np.diff(plan.indptr))
    told = scores[rows, plan.bins]
    _agree(case, "value", plan.value, math.fsum(told.tolist()), math.fsum(np.abs(told).tolist()))


def _curves(case: Case) -> None:
    plan, ask = case.plan, Levels.of(case)
    for item in range(case.n):
        if ask.level(item, plan.amounts[item], plan.values[item]) is None:
            raise broken(
                case, "recount", f"item {item} has no level {plan.amounts[item]} of value {plan.values[item]!r}"
            )
    if plan.sense != ask.sense:
        raise broken(case, "recount", f"sense is {plan.sense!r}, asked {ask.sense!r}")
    _agree(case, "value", plan.value, math.fsum(plan.values.tolist()), math.fsum(np.abs(plan.values).tolist()))
    spent = sum((Fraction(cost) for cost in ask.spent(plan.amounts)), Fraction(0))
    _agree(case, "used", float(plan.used["budget"]), float(spent))
    _agree(case, "budget", float(plan.budget["budget"]), float(ask.budget))


def flat(member: Any) -> Floats:
    """All numbers of an array or a state dict in one float64 row, names in order."""
    if isinstance(member, Mapping):
        parts = [np.asarray(member[name]).astype(np.float64).ravel() for name in sorted(member)]
        return np.concatenate(parts) if parts else np.zeros(0)
    return np.asarray(member).astype(np.float64).ravel()


def _squared_distance(case: Case) -> None:
    plan = case.plan
    middle = flat(plan.result)
    rows = [flat(member) for member in case.words["members"]]
    size = max(float(np.linalg.norm(row)) for row in [*rows, middle])
    weights = np.asarray(plan.weights, np.float64)
    if not np.allclose(weights, member_weights(case), rtol=1e-12, atol=0):
        raise broken(case, "recount", f"weights are {weights}, asked {member_weights(case)}")
    apart = np.array([math.sqrt(math.fsum(((row - middle) ** 2).tolist())) for row in rows])
    for member, (told, counted) in enumerate(zip(plan.spread.tolist(), apart.tolist(), strict=True)):
        _agree(case, f"spread of member {member}", told, counted, size)
    _agree(case, "value", plan.value, math.fsum((weights * apart**2).tolist()), size * size)


def member_weights(case: Case) -> Floats:
    """(m,) weights of the members as they are used: divided by their sum unless `normalize=False`."""
    count = len(case.words["members"]) if "members" in case.words else len(case.words["rankings"])
    given = np.asarray(case.words.get("weights", np.ones(count)), np.float64)
    return given / math.fsum(given.tolist()) if case.options.get("normalize", True) else given


def shares(ballot: Floats) -> Floats:
    """(n,) the share of a judge's other alternatives that each beats, ties half; NaN where nothing was compared."""
    out = np.full(len(ballot), np.nan)
    rated = np.flatnonzero(~np.isnan(ballot))
    for item in rated.tolist() if len(rated) > 1 else []:
        others = ballot[rated[rated != item]]
        out[item] = ((others < ballot[item]).sum() + 0.5 * (others == ballot[item]).sum()) / len(others)
    return out


def _borda(case: Case) -> None:
    plan, weights = case.plan, member_weights(case)
    ballots = np.asarray(case.words["rankings"], np.float64)
    table = np.array([shares(ballot) for ballot in ballots])
    heard = (~np.isnan(table) * weights[:, None]).sum(axis=0)
    earned = (np.nan_to_num(table) * weights[:, None]).sum(axis=0)
    points = np.divide(earned, heard, out=np.full(case.n, np.nan), where=heard > 0)
    if not np.allclose(plan.info["points"], points, rtol=1e-12, atol=1e-12, equal_nan=True):
        raise broken(case, "recount", f"points are {plan.info['points']}, recounted {points}")
    ranked = points[np.asarray(plan.result)]
    known = ranked[~np.isnan(ranked)]
    if np.isnan(ranked[: len(known)]).any() or (np.diff(known) > 1e-11).any():
        raise broken(case, "recount", f"the ranking's points do not fall: {ranked}")
    # Relative to the order: judges' pairs that it turns round.
    place = np.empty(case.n, np.int64)
    place[np.asarray(plan.result)] = np.arange(case.n)
    for judge, ballot in enumerate(ballots):
        pairs = [(a, b) for a in range(case.n) for b in range(case.n) if ballot[a] > ballot[b]]
        off = sum(place[a] > place[b] for a, b in pairs) / max(len(pairs), 1)
        _agree(case, f"spread of judge {judge}", float(plan.spread[judge]), off)
    missed = np.where(np.isnan(table), 0.0, table - np.nan_to_num(points))
    counted = math.fsum((weights[:, None] * missed**2).ravel().tolist())
    _agree(case, "value", plan.value, counted, 1.0)


RECOUNTS: dict[str, Callable[[Case], None]] = {
    "k_medoids": _medoid_loss,
    "routed_score": _routed,
    "curves": _curves,
    "squared_distance": _squared_distance,
    "borda": _borda,
}
