"""The laws of every plan: fields, constraints, value, file round trip, determinism."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kofn.core import problems
from kofn.core.checks import is_sparse
from kofn.core.plans import STATUSES, Plan
from kofn.laws import brute, recount
from kofn.laws.case import NOUNS, Case, broken, law
from kofn.laws.words import OF_LEVELS, Levels, accepted_words, of_units

_FORMS = ("simplex", "affine", "linear", "elementwise", "order", "none")
_INFO = {"seconds": float, "oracle_calls": int, "distance_evals": int, "peak_bytes": int, "exact": bool, "version": str}


@law("fields", always=True)
def fields(case: Case) -> bool:
    """Every field has its shape, dtype and range, and the plan records its provenance."""
    plan = case.plan
    wrong: list[str] = []
    if type(plan) is not NOUNS[case.verb]:
        raise broken(case, "fields", f"{case.verb} returned {type(plan).__name__}")
    if plan.n != case.n:
        wrong.append(f"n is {plan.n} of {case.n}")
    if plan.status not in STATUSES or plan.sense not in ("max", "min"):
        wrong.append(f"status {plan.status!r}, sense {plan.sense!r}")
    if not isinstance(plan.value, float):
        wrong.append(f"value is a {type(plan.value).__name__}")
    if plan.bound is not None and not (isinstance(plan.bound, float) and math.isfinite(plan.bound)):
        wrong.append(f"bound is {plan.bound!r}")
    if plan.gap is not None and not 0 <= plan.gap <= 2:
        wrong.append(f"gap is {plan.gap!r}")
    for name, kind in _INFO.items():
        if not isinstance(plan.info.get(name), kind):
            wrong.append(f"info[{name!r}] is {plan.info.get(name)!r}, not {kind.__name__}")
        elif kind in (float, int) and plan.info[name] < 0:
            wrong.append(f"info[{name!r}] is negative")
    if plan.info.get("exact") and plan.status != "optimal":
        wrong.append(f"info says exact, status says {plan.status!r}")
    wrong += [f"budget names {name!r}, used does not" for name in plan.budget if name not in plan.used]
    wrong += [f"options do not tell {name!r}" for name in case.options if name not in plan.options]
    if plan.method == "" or not _is_digest(plan.problem):
        wrong.append(f"method {plan.method!r}, problem {plan.problem!r}")
    for item in dataclasses.fields(plan):
        value = getattr(plan, item.name)
        if isinstance(value, np.ndarray) and value.flags.writeable:
            wrong.append(f"{item.name} can be written to")
    wrong += {"select": _selection, "assign": _assignment, "allocate": _allocation, "combine": _blend}[case.verb](case)
    if wrong:
        raise broken(case, "fields", "; ".join(wrong))
    return True


def _is_digest(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")


def _array(plan: Plan, name: str, shape: tuple[int, ...], kinds: str, *, optional: bool = False) -> list[str]:
    """What is wrong with one array field: `kinds` are dtype characters such as "l" or "fd"."""
    value = getattr(plan, name)
    if value is None:
        return [] if optional else [f"{name} is missing"]
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.char not in kinds:
        return [f"{name} is {getattr(value, 'dtype', type(value).__name__)}{np.shape(value)}, not {kinds}{shape}"]
    return []


_LONG = np.dtype(np.int64).char


def _selection(case: Case) -> list[str]:
    plan = case.plan
    m = len(plan.indices)
    wrong = _array(plan, "indices", (m,), _LONG)
    wrong += _array(plan, "gains", (m,), "d")
    wrong += _array(plan, "weights", (m,), "d", optional=True)
    wrong += _array(plan, "probabilities", (case.n,), "d", optional=True)
    if wrong:
        return wrong
    if plan.mask.sum() != m or len(plan.complement) != case.n - m:
        wrong.append("the mask does not count the picks")
    chance = plan.probabilities
    if chance is not None:
        if not np.isfinite(chance).all() or (chance < 0).any() or (chance > 1).any():
            wrong.append("a probability is not in 0..1")
        elif (chance[plan.indices] == 0).any():
            wrong.append("an item of probability 0 is picked")
        elif not math.isclose(math.fsum(chance.tolist()), m, rel_tol=1e-9, abs_tol=1e-9):
            wrong.append(f"the probabilities sum to {math.fsum(chance.tolist())!r}, the picks are {m}")
    return wrong


def _assignment(case: Case) -> list[str]:
    plan = case.plan
    routes = len(plan.bins)
    wrong = _array(plan, "indptr", (case.n + 1,), _LONG)
    wrong += _array(plan, "bins", (routes,), "i")
    wrong += _array(plan, "weights", (routes,), "fd")
    wrong += _array(plan, "capacity", (plan.k,), _LONG, optional=True)
    wrong += _array(plan, "u", (case.n,), "d", optional=True)
    wrong += _array(plan, "v", (plan.k,), "d", optional=True)
    wrong += _array(plan, "order", (routes,), _LONG, optional=True)
    wrong += _array(plan, "medoids", (plan.k,), _LONG, optional=True)
    if wrong:
        return wrong
    if routes and not (np.isfinite(plan.weights).all() and (plan.weights > 0).all()):
        wrong.append("a weight is not positive")
    if not (plan.row_margin.shape == (case.n,) and plan.col_margin.shape == (plan.k,)):
        wrong.append("the margins have the wrong shapes")
    if plan.medoids is not None and (plan.labels[plan.medoids] != np.arange(plan.k)).any():
        # Two medoids at distance 0 may share a bin's items, but each must still stand for itself.
        wrong.append("a medoid is not in its own group")
    return wrong


def _allocation(case: Case) -> list[str]:
    plan = case.plan
    kinds = _LONG + "d"
    wrong = _array(plan, "amounts", (case.n,), kinds)
    wrong += _array(plan, "values", (case.n,), "d")
    wrong += _array(plan, "marginal_up", (case.n,), "d", optional=True)
    wrong += _array(plan, "marginal_down", (case.n,), "d", optional=True)
    wrong += _array(plan, "bounds", (case.n, 2), kinds, optional=True)
    if wrong:
        return wrong
    if (plan.amounts < 0).any():
        wrong.append("an amount is negative")
    if plan.price is not None and not (isinstance(plan.price, float) and plan.price >= 0):
        wrong.append(f"price is {plan.price!r}")
    if plan.amounts.sum() and not math.isclose(plan.shares.sum(), 1.0, rel_tol=1e-9):
        wrong.append("the shares do not sum to one")
    return wrong


def _blend(case: Case) -> list[str]:
    plan = case.plan
    m = len(case.words["members"]) if "members" in case.words else np.shape(case.words["rankings"])[1]
    wrong = _array(plan, "spread", (m,), "d", optional=True)
    if isinstance(plan.weights, np.ndarray):
        wrong += _array(plan, "weights", (m,), "d")
    if plan.form not in _FORMS:
        wrong.append(f"form is {plan.form!r}, none of {', '.join(_FORMS)}")
    if plan.spread is not None and not (np.isfinite(plan.spread).all() and (plan.spread >= 0).all()):
        wrong.append("a spread is not a finite distance")
    if plan.form == "order" and sorted(np.asarray(plan.result).tolist()) != list(range(case.n)):
        wrong.append("the result is not an order of the alternatives")
    return wrong


@law("feasible", always=True)
def feasible(case: Case) -> bool:
    """Every hard constraint holds exactly: integers without tolerance, a float budget up to the rounding of its sum."""
    breaches = case.problem.audit(case.plan)
    if not breaches:
        breaches = {"select": _held_picks, "assign": _held_bins, "allocate": _held_amounts, "combine": _nothing}[
            case.verb
        ](case)
    if breaches:
        raise broken(case, "feasible", "; ".join(breaches))
    return True


def _nothing(_case: Case) -> list[str]:
    return []


def _held_picks(case: Case) -> list[str]:
    """The selection's constraints, counted one pick at a time in exact arithmetic."""
    words, picks, wrong = case.words, case.plan.indices.tolist(), []
    k, budget, status = words.get("k"), words.get("budget"), case.plan.status
    if len(set(picks)) != len(picks) or not all(0 <= pick < case.n for pick in picks):
        wrong.append("the picks are not distinct rows")
    exactly = budget is None and status != "stopped" and not case.problem.at_most_k
    if k is not None and (len(picks) > k or (exactly and len(picks) != k)):
        wrong.append(f"{len(picks)} picks, k={k}")
    if budget is not None:
        spent = sum((Fraction(words["costs"][pick].item()) for pick in picks), Fraction(0))
        slack = 1 if words["costs"].dtype.kind == "i" else 1 + Fraction(case.n) * Fraction(float(np.finfo(float).eps))
        if spent > Fraction(budget) * slack:
            wrong.append(f"{float(spent)!r} spent of {budget!r}")
        if (reported := case.plan.used.get("costs")) is None or not math.isclose(reported, float(spent), rel_tol=1e-15):
            wrong.append(f"used says {reported!r}, the costs sum to {float(spent)!r}")
    for groups, quotas in brute.quota_columns(words):
        for label, (least, most) in quotas.items():
            count = sum(str(groups[pick]) == str(label) for pick in picks)
            if count < least or (most is not None and count > most):
                wrong.append(f"quota of {label!r} is ({least}, {most}), held {count}")
    first = [*words.get("start", ()), *words.get("include", ())]
    wrong += [f"row {row} had to be picked" for row in first if row not in picks]
    wrong += [f"row {row} must not be picked" for row in words.get("exclude", ()) if row in picks]
    return wrong


def _held_bins(case: Case) -> list[str]:
    plan, words, wrong = case.plan, case.words, []
    loads = [0] * plan.k
    # Where bins choose, an item may be in all of them unless the call limits it.
    free = "per_item" not in accepted_words(case) or plan.objective == "chosen_affinity"
    most = words.get("per_item", plan.k if free else 1)
    for item in range(case.n):
        bins = plan.bins[plan.indptr[item] : plan.indptr[item + 1]].tolist()
        if len(set(bins)) != len(bins):
            wrong.append(f"item {item} is in a bin twice")
        if len(bins) > most:
            wrong.append(f"item {item} is in {len(bins)} bins")
        for bin_ in bins:
            loads[bin_] += 1
    if "capacity" in words:
        room = np.broadcast_to(words["capacity"], plan.k).tolist()
        wrong += [f"bin {j} holds {loads[j]} of {room[j]}" for j in range(plan.k) if loads[j] > room[j]]
    if "k" in words and plan.k != words["k"]:
        wrong.append(f"{plan.k} bins, k={words['k']}")
    return wrong


def _held_amounts(case: Case) -> list[str]:
    if of_units(case.plan.objective):
        total = sum(case.plan.amounts.tolist())
        return [] if total == case.words["budget"] else [f"{total} units of {case.words['budget']}"]
    if "curves" not in case.words or case.plan.bounds is None:
        return _held_counts(case)
    problem = Levels.of(case)
    if case.plan.objective in OF_LEVELS:
        spent = sum((Fraction(cost) for cost in problem.spent(case.plan.amounts)), Fraction(0))
    else:
        # Amounts between the levels: a unit of an item costs its size.
        sizes = np.asarray(case.options.get("sizes", np.ones(case.n)))
        amounts = zip(sizes.tolist(), case.plan.amounts.tolist(), strict=True)
        spent = sum((Fraction(size) * Fraction(amount) for size, amount in amounts), Fraction(0))
    slack = 1 if problem.whole else 1 + Fraction(case.n) * Fraction(float(np.finfo(float).eps))
    if spent > problem.budget * slack:
        return [f"{float(spent)!r} spent of {float(problem.budget)!r}"]
    return []


def _held_counts(case: Case) -> list[str]:
    """Amounts within their bounds, each at the price of its item, against the budget in exact arithmetic."""
    plan, wrong = case.plan, []
    prices = np.asarray(case.words.get("costs", case.options.get("sizes", np.ones(case.n, np.int64))))
    amounts = plan.amounts.tolist()
    spent = sum(
        (Fraction(price) * Fraction(amount) for price, amount in zip(prices.tolist(), amounts, strict=True)),
        Fraction(0),
    )
    if "budget" in case.words:
        budget = Fraction(case.words["budget"])
    else:
        budget = Fraction(repr(case.options["mean_budget"])) * sum(Fraction(price) for price in prices.tolist())
    whole = prices.dtype.kind in "iu" and plan.amounts.dtype.kind in "iu"
    slack = 1 if whole else 1 + Fraction(case.n) * Fraction(float(np.finfo(float).eps))
    if spent > budget * slack:
        wrong.append(f"{float(spent)!r} spent of {float(budget)!r}")
    if plan.bounds is not None and "bounds" in case.words:
        if not (plan.bounds == np.broadcast_to(case.words["bounds"], (case.n, 2))).all():
            wrong.append("bounds are not those that were asked")
        if (plan.amounts < plan.bounds[:, 0]).any() or (plan.amounts > plan.bounds[:, 1]).any():
            wrong.append("an amount is beyond its bounds")
    return wrong


@law("recount", always=True)
def recounted(case: Case) -> bool:
    """`value` is the objective of the plan, recomputed naively in float64; where gains add up, so is every prefix."""
    return recount.hold(case)


@law("saved", always=True)
def saved(case: Case) -> bool:
    """A plan is unchanged by saving and loading."""
    with tempfile.TemporaryDirectory() as folder:
        path = case.plan.save(Path(folder) / "plan.npz")
        back = Plan.load(path)
        left = [item.name for item in Path(folder).iterdir()]
    if left != ["plan.npz"]:
        raise broken(case, "saved", f"saving left {left}")
    if not back.equals(case.plan):
        for item in dataclasses.fields(back):
            a, b = getattr(case.plan, item.name), getattr(back, item.name)
            if item.name != "info" and not dataclasses.replace(case.plan, **{item.name: b}).equals(case.plan):
                raise broken(case, "saved", f"{item.name} was {a!r} and came back {b!r}")
        raise broken(case, "saved", "the plan changed on its way")
    # Two plans are equal whatever their info, but a file must keep that as well.
    before, after = (dataclasses.replace(plan, options=plan.info) for plan in (case.plan, back))
    if not after.equals(before):
        raise broken(case, "saved", f"info was {case.plan.info!r} and came back {back.info!r}")
    return True


@law("same-again", always=True)
def same_again(case: Case) -> bool:
    """Repeated calls, with 1, 2 or 4 threads in turn (and any seed if nothing is drawn), give the same plan."""
    runs: list[dict[str, Any]] = [{}]
    if "n_threads" in accepted_words(case):
        # Which it is depends on the problem, so that a case that fails does so again.
        runs.append({"n_threads": (1, 2, 4)[zlib.crc32(case.plan.problem.encode()) % 3]})
    for change in runs:
        other = case.again(**change)
        if not other.equals(case.plan):
            raise broken(case, "same-again", f"with {change or 'nothing'} changed: {other!r} after {case.plan!r}")
    return True


@law("ids", always=True)
def named(case: Case) -> bool:
    """Naming rows by ids changes only the names in the plan."""
    if "ids" in case.given:
        return False
    keys = np.array([f"id{(7 * row + 3) % (case.n + 11)}_{row}" for row in range(case.n)])
    rows: dict[str, Any] = {
        name: [keys[row] for row in case.words[name].tolist()]
        for name in ("include", "exclude", "start")
        if name in case.given
    }
    options = dict(case.options)
    for name in set(problems.PAIRS) & options.keys():
        links = options[name]
        pairs = keys[np.asarray(links, np.int64).reshape(-1, 2)]
        options[name] = pairs if isinstance(links, np.ndarray) else pairs.tolist()
    other = case.again(options, ids=keys, **rows)
    if other.ids is None or (other.ids != keys).any():
        raise broken(case, "ids", f"ids are {other.ids!r}")
    if not dataclasses.replace(other, ids=None, problem=case.plan.problem).equals(case.plan):
        raise broken(case, "ids", f"with ids {other!r}, without {case.plan!r}")
    return True


@law("untouched", always=True)
def untouched(case: Case) -> bool:
    """No method modifies its arguments."""
    for name, before in case.before.items():
        if not _same(case.given[name], before):
            raise broken(case, "untouched", f"{name} was written to")
    return True


def _same(now: Any, before: Any) -> bool:
    if isinstance(before, list):
        return len(now) == len(before) and all(_same(a, b) for a, b in zip(now, before, strict=True))
    if isinstance(before, dict):
        return all(_same(now[name], value) for name, value in before.items())
    if is_sparse(before):
        names = ("row", "col", "data") if before.format == "coo" else ("indptr", "indices", "data")
        return all(_same(getattr(now, name), getattr(before, name)) for name in names)
    if isinstance(before, np.ndarray):
        return now.dtype == before.dtype and now.shape == before.shape and now.tobytes() == before.tobytes()
    return bool(now is before or now == before)
