"""The laws of the traits that methods declare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Mask
from kofn.core.checks import is_sparse
from kofn.laws import brute
from kofn.laws.case import Case, broken, declared, law, near
from kofn.laws.families import gather
from kofn.laws.recount import set_function
from kofn.laws.words import SetFunction, affinities

_TIGHT = 1e-9


def _slack(case: Case) -> float:
    return _TIGHT if case.precise else 1e-5


@law("certified", verbs=("select", "assign", "allocate"))
def certified(case: Case) -> bool:
    """What a plan claims of itself holds, declared or not: `status`, `bound` and `guarantee` against brute force.

    Where the optimum is not known to the laws there is nothing to check, unless the plan claims nothing.
    """
    plan = case.plan
    if promise := declared(case).promise:
        return bool(gather("PROMISES")[promise](case))
    if plan.bound is None and plan.status != "optimal" and not plan.guarantee:
        return True
    if plan.status == "optimal" and (plan.gap is None or plan.gap > _TIGHT):
        raise broken(case, "certified", f"status optimal, value {plan.value!r}, and the bound is {plan.bound!r}")
    return _held_against_the_optimum(case, "certified")


@law("sandwich")
def sandwich(case: Case) -> bool:
    """Value and bound enclose the true optimum (by exhaustive search); with status "optimal" both equal it."""
    return _held_against_the_optimum(case, "sandwich") and case.plan.bound is not None


def _held_against_the_optimum(case: Case, name: str) -> bool:
    """Hold value, bound, guarantee and status against the optimum; False where that is not known."""
    plan = case.plan
    best = brute.optimum(case)
    if best is None:
        return False
    up = 1.0 if plan.sense == "max" else -1.0
    slack = _slack(case) * max(abs(best), abs(plan.value)) + _rounded(case)
    # A run that was stopped may hold fewer items than asked, which a function that falls rewards.
    if plan.status != "stopped" and up * (plan.value - best) > slack:
        raise broken(case, name, f"value {plan.value!r} is better than the optimum {best!r}")
    if plan.bound is not None and up * (best - plan.bound) > slack:
        raise broken(case, name, f"the optimum {best!r} is beyond the bound {plan.bound!r}")
    share = plan.guarantee
    if share and plan.status != "stopped" and up * (share**up * best - plan.value) > slack:
        raise broken(case, name, f"value {plan.value!r} is not within {share:.3f} of the optimum {best!r}")
    if plan.status == "optimal":
        if abs(plan.value - best) > slack:
            raise broken(case, name, f"status optimal, value {plan.value!r}, optimum {best!r}")
        if plan.gap is None or plan.gap > _TIGHT:
            raise broken(case, name, f"status optimal, bound {plan.bound!r}, value {plan.value!r}")
    return True


def _rounded(case: Case) -> float:
    """What rounding alone may add to a value whose terms cancel."""
    if case.verb != "select":
        return 0.0
    objective = set_function(case)
    return 0.0 if objective is None else 1e-15 * case.n * abs(objective.scale(case.plan.indices))


@law("greedy")
def greedy(case: Case) -> bool:
    """Each pick has the largest gain (for its load, under a budget) among those that leave the rest completable.

    Where the objective is monotone and submodular: gains do not rise, a smaller k gives a prefix, and the value is at
    least 1 - 1/e of the optimum under k, 1/2 under quotas, (1 - 1/e)/2 under a budget, and what the plan promises.
    """
    plan, words = case.plan, case.words
    objective = set_function(case)
    if objective is None or case.n > brute.MOST_ITEMS or plan.status == "stopped":
        return False
    first = len(_first(case))
    sets = brute.feasible_sets(case.n, words)
    # Under a budget the picks are the best run's: by gain, by gain per cost, or per share of the slots and the budget.
    loads = [_no_loads(case), *(_loads(case) if "budget" in words else ())]
    wrongs = [_step_not_greedy(case, objective, sets, first, load) for load in loads]
    wrong = wrongs[0] if all(wrongs) else ""
    if wrong:
        raise broken(case, "greedy", wrong)
    if not (objective.submodular and objective.is_monotone(case.n)):
        return True
    rise = np.diff(plan.gains[first:])
    if "budget" not in words and len(rise) and rise.max() > _slack(case) * max(abs(plan.value), 1e-300):
        raise broken(case, "greedy", f"gains rise: {plan.gains}")
    best = brute.optimum(case)
    share = max(_promised(case), plan.guarantee or 0.0)
    if best is not None and plan.value < share * best - _slack(case) * abs(best):
        raise broken(case, "greedy", f"value {plan.value!r} is below {share:.3f} of the optimum {best!r}")
    if "budget" not in words and "quotas" not in words and len(plan.indices) > max(first, 1):
        shorter = case.again(k=len(plan.indices) - 1)
        if not np.array_equal(shorter.indices, plan.indices[:-1]):
            raise broken(case, "greedy", f"k - 1 picks {shorter.indices}, not a prefix of {plan.indices}")
    return True


def _first(case: Case) -> list[int]:
    start = case.words.get("start", np.empty(0, int)).tolist()
    return start + [row for row in case.words.get("include", np.empty(0, int)).tolist() if row not in start]


def _promised(case: Case) -> float:
    words = case.words
    if "budget" not in words:
        if isinstance(words.get("groups"), Mapping):
            return 0.0
        return 0.5 if "quotas" in words else 1 - 1 / math.e
    return 0.0 if words.keys() & {"quotas", "k", "include", "start"} else (1 - 1 / math.e) / 2


def _open(sets: Mask, picks: list[int]) -> bool:
    return bool(sets[:, picks].all(axis=1).any())


def _no_loads(case: Case) -> Floats:
    return np.ones(case.n)


def _loads(case: Case) -> list[Floats]:
    """What each item takes up: of the budget, and of the slots and the budget together."""
    costs, budget = np.asarray(case.words["costs"], np.float64), case.words["budget"]
    return [costs, 1 / case.words.get("k", case.n) + costs / (float(budget) or 1.0)]


def _step_not_greedy(case: Case, objective: SetFunction, sets: Mask, begin: int, loads: Floats) -> str:
    """The first step that was not the best one open for its load, in words; nothing if all were."""
    picks = case.plan.indices.tolist()
    if sorted(picks[:begin]) != sorted(_first(case)):
        return f"the first picks are {picks[:begin]}, asked {_first(case)}"
    for t in range(begin, len(picks) + 1):
        now = objective.value(picks[:t])
        slack = _slack(case) * max(abs(objective.value(picks)), abs(now), 1e-300)
        keys = {
            item: _key(objective.value([*picks[:t], item]) - now, float(loads[item]), slack)
            for item in range(case.n)
            if item not in picks[:t] and _open(sets, [*picks[:t], item])
        }
        free, top = max(keys.values(), default=(False, -math.inf))
        if not free:
            slack = slack / max(min((load for load in loads.tolist() if load > 0), default=math.inf), 1e-300)
        if t == len(picks):
            return f"stopped at {t} picks with {top!r} more to gain" if top > slack and "k" not in case.words else ""
        if picks[t] not in keys:
            return f"pick {t}, row {picks[t]}, leaves the rest impossible"
        mine = keys[picks[t]]
        if loads[picks[t]] == 0 and not mine[0] and mine[1] >= -slack:
            # Free, and worth nothing but rounding: first or last, as rounding will have it.
            continue
        if mine[0] != free or mine[1] < top - slack:
            return f"pick {t}, row {picks[t]}, adds {mine[1]!r}; {top!r} was open"
    return ""


def _key(gain: float, load: float, slack: float) -> tuple[bool, float]:
    """What greedy ranks by: what is free and adds something comes first, then the gain for its load."""
    return (gain > slack, gain) if load == 0 else (False, gain / load)


@law("swap-optimal")
def swap_optimal(case: Case) -> bool:
    """No swap of a medoid for another item improves the value, and restarting from the plan returns it."""
    plan = case.plan
    objective = set_function(case)
    if objective is None or plan.medoids is None or plan.status == "stopped":
        return False
    if plan.status not in ("local", "optimal"):
        raise broken(case, "swap-optimal", f"status is {plan.status!r}")
    medoids = plan.medoids.tolist()
    up = 1.0 if plan.sense == "max" else -1.0
    value = objective.value(medoids)
    for position in range(len(medoids)):
        for item in set(range(case.n)) - set(medoids):
            other = objective.value([*medoids[:position], item, *medoids[position + 1 :]])
            if up * (other - value) > _slack(case) * abs(value):
                raise broken(
                    case,
                    "swap-optimal",
                    f"row {item} for row {medoids[position]} takes the value from {value!r} to {other!r}",
                )
    again = case.again(start=plan)
    if not np.array_equal(again.medoids, plan.medoids):
        raise broken(case, "swap-optimal", f"from {plan.medoids} it went on to {again.medoids}")
    return case.n > len(medoids)


@law("priced")
def priced(case: Case) -> bool:
    """Complementary slackness: potentials bound every score, meet it where something is placed, and add up to `bound`.

    For sense "max": u_i + v_j >= score_ij, with equality where the weight is positive and status is "optimal"; prices v
    are >= 0 and 0 for a bin with room left; sum of u + sum of v x capacity = bound. A bin that holds no more than its
    `min_size` may have a price below 0, counted with that. For "min" the signs turn round.
    """
    plan = case.plan
    if plan.u is None or plan.v is None:
        return False
    up = 1.0 if plan.sense == "max" else -1.0
    scores = up * np.asarray(case.words["scores"], np.float64)
    u, v = up * plan.u, up * plan.v
    listed = np.isfinite(scores)
    size = float(np.abs(scores[listed]).max(initial=0.0)) * _slack(case) * max(scores.shape)
    per_item = int(case.words.get("per_item", 1))
    over = np.where(listed, scores - (u[:, None] + v), -np.inf)
    if per_item > 1:
        _best_of_each(case, scores - v, u, per_item, size)
    elif over.max() > size:
        i, j = np.unravel_index(int(over.argmax()), over.shape)
        raise broken(case, "priced", f"score ({i}, {j}) exceeds u + v by {over[i, j]!r}")
    least = np.broadcast_to(case.options.get("min_size", 0), plan.k)
    low = v < -size
    if (low & ((least == 0) | (np.bincount(plan.bins, minlength=plan.k) > least))).any():
        raise broken(case, "priced", f"bin {int(v.argmin())} has the price {v.min()!r}")
    rows = np.repeat(np.arange(case.n), np.diff(plan.indptr))
    # Loads that the method itself chose, balanced ones for example, stand in the plan.
    given = case.words.get("capacity")
    own = case.n if plan.capacity is None else plan.capacity
    room = np.broadcast_to(own if given is None else given, plan.k)
    total = math.fsum(u.tolist()) + math.fsum((v * np.where(low, least, room)).tolist())
    if plan.bound is None or abs(total - up * plan.bound) > size * max(case.n, plan.k):
        raise broken(case, "priced", f"u + v x capacity is {total!r}, the bound {plan.bound!r}")
    if plan.status == "optimal":
        loose = np.abs(over[rows, plan.bins]) if per_item == 1 else np.zeros(0)
        if len(loose) and loose.max() > size:
            worst = int(loose.argmax())
            raise broken(
                case,
                "priced",
                f"item {rows[worst]} is in bin {plan.bins[worst]}, which it values {loose[worst]!r} less",
            )
        idle = (np.bincount(plan.bins, minlength=plan.k) < room) & (v > size)
        if idle.any():
            raise broken(case, "priced", f"bin {int(idle.argmax())} has room and a price of {v[idle][0]!r}")
    return True


def _best_of_each(case: Case, worth: Floats, u: Floats, per_item: int, size: float) -> None:
    """Items of several bins each: u is the most that so many can bring at the prices, and what the plan's bring."""
    plan, reserve = case.plan, case.options.get("reserve")
    for i, row in enumerate(worth.tolist()):
        best = sorted([*row, *([] if reserve is None else [reserve] * per_item)], reverse=True)[:per_item]
        if abs(math.fsum(best) - u[i]) > size * per_item:
            raise broken(case, "priced", f"item {i} could gain {math.fsum(best)!r} over the prices, u is {u[i]!r}")
        own = [row[j] for j in plan.bins[plan.indptr[i] : plan.indptr[i + 1]].tolist()]
        own += [reserve or 0.0] * (per_item - len(own))
        if plan.status == "optimal" and abs(math.fsum(own) - u[i]) > size * per_item:
            raise broken(case, "priced", f"item {i} gains {math.fsum(own)!r} over the prices, u is {u[i]!r}")


@law("capped-routing")
def no_envy(case: Case) -> bool:
    """No justified envy: a bin that an item prefers is full of items that score at least as high in it.

    Where what does not fit is dropped (`overflow="drop"`) an item asks only for its best bins, so only those count.
    """
    plan = case.plan
    scores = affinities(case)
    per_item = int(case.words.get("per_item", 1))
    room = np.broadcast_to(case.words.get("capacity", case.n), plan.k)
    bins_of = [set(plan.bins[a:b].tolist()) for a, b in zip(plan.indptr[:-1], plan.indptr[1:], strict=True)]
    inside = [[i for i in range(case.n) if j in bins_of[i]] for j in range(plan.k)]
    dropped = plan.options.get("overflow") == "drop"
    envy = False
    for i in range(case.n):
        worst = min((scores[i, j] for j in bins_of[i]), default=math.inf)
        for j in range(plan.k):
            wants = scores[i, j] > -math.inf and j not in bins_of[i]
            if dropped:
                wants = wants and (scores[i] >= scores[i, j]).sum() <= per_item
            if not wants or not (len(bins_of[i]) < per_item or worst < scores[i, j]):
                continue
            envy = True
            if len(inside[j]) < room[j]:
                raise broken(case, "capped-routing", f"item {i} wants bin {j}, which has room")
            least = min((scores[other, j] for other in inside[j]), default=math.inf)
            if least < scores[i, j]:
                raise broken(
                    case, "capped-routing", f"item {i} scores {scores[i, j]!r} in bin {j}, which holds {least!r}"
                )
    return envy


# Where every item is certain to be picked or not, one draw that differs shows it.
_DRAWS, _DRAWS_IF_CERTAIN = 120, 10


@law("inclusion")
def inclusion(case: Case) -> bool:
    """Over many seeds each item is picked as often as its probability says (false alarm below 1e-6 a case)."""
    chance = case.plan.probabilities
    if chance is None:
        return False
    certain = bool(((chance == 0) | (chance == 1)).all())
    draws = _DRAWS_IF_CERTAIN if certain else _DRAWS
    counts = np.zeros(case.n, np.int64)
    for seed in range(draws):
        counts[case.redrawn(seed).indices] += 1
    from scipy.stats import binom

    tails = 2 * np.minimum(binom.cdf(counts, draws, chance), binom.sf(counts - 1, draws, chance))
    if tails.min() < 1e-6 / case.n:
        row = int(tails.argmin())
        raise broken(case, "inclusion", f"row {row} came {counts[row]} times of {draws}, probability {chance[row]!r}")
    return not certain


@law("equivariant")
def equivariant(case: Case) -> bool:
    """Relabelling the items relabels the answer, where no two values tie (as sets, values to 1e-10)."""
    if case.n < 2 or not _tie_free(case):
        return False
    rng = np.random.default_rng(int(case.plan.problem[:8], 16))
    for order in (np.arange(case.n)[::-1], rng.permutation(case.n)):
        other = case.again(options=relabel_options(case, order), **relabel(case, order))
        if not near(other.value, case.plan.value, 1e-10 if case.precise else 1e-5):
            raise broken(case, "equivariant", f"value {case.plan.value!r} became {other.value!r} in the order {order}")
        mine, theirs = _as_answer(case, case.plan, None), _as_answer(case, other, order)
        if mine != theirs:
            raise broken(case, "equivariant", f"{mine} became {theirs} in the order {order}")
    return True


def _tie_free(case: Case) -> bool:
    for name in ("scores", "distances", "curves", "X"):
        value = case.words.get(name)
        if value is not None:
            array = np.asarray(value, np.float64)
            if name == "distances":
                array = array[np.triu_indices(len(array), 1)]
            if name == "scores" and case.verb == "assign":
                # Softmax over a single bin is 1 for everybody.
                array = affinities(case)
            return len(np.unique(array)) == array.size
    return "rankings" in case.words


def relabel(case: Case, order: NDArray[np.int64]) -> dict[str, Any]:
    """The words of the same problem with its items in another order: new row r is old row order[r]."""
    position = np.empty(case.n, np.int64)
    position[order] = np.arange(case.n)
    out: dict[str, Any] = {}
    for name, value in case.given.items():
        if name in ("distances", "similarity"):
            out[name] = (value.tocsr() if is_sparse(value) else np.asarray(value))[order][:, order]
        elif name == "groups" and isinstance(value, Mapping):
            out[name] = {column: np.asarray(labels)[order] for column, labels in value.items()}
        elif name in ("X", "scores", "curves", "rankings", "y", "groups", "costs", "ids") or (
            name == "weights" and case.verb != "combine"
        ):
            out[name] = np.asarray(value)[order]
        elif name in ("include", "exclude", "start"):
            out[name] = position[case.words[name]]
    return out


def relabel_options(case: Case, order: NDArray[np.int64]) -> Mapping[str, Any]:
    """The options with what belongs to the items in the same new order."""
    out = dict(case.options)
    for name in ("sizes", "levels"):
        value = out.get(name)
        if value is not None and (name == "sizes" or np.ndim(value) == 2):
            out[name] = np.asarray(value)[order]
    return out


def _as_answer(case: Case, plan: Any, order: NDArray[np.int64] | None) -> Any:
    """The answer in terms of the original items, comparable with ==."""
    back = np.arange(case.n) if order is None else order
    if case.verb == "select":
        return sorted(back[plan.indices].tolist())
    position = np.argsort(back)
    if case.verb == "allocate":
        return plan.amounts[position].tolist()
    if case.verb == "combine":
        return back[np.asarray(plan.result)].tolist()
    if plan.medoids is not None:
        return sorted(back[plan.medoids].tolist())
    rows = [sorted(plan.bins[plan.indptr[i] : plan.indptr[i + 1]].tolist()) for i in range(case.n)]
    return [rows[i] for i in position.tolist()]


@law("distributed")
def distributed(case: Case) -> bool:
    """The same plan, bit for bit, for one worker, for two, and where tasks finish in any order and are done twice."""
    from kofn.engines.local import Local
    from kofn.laws.engines import Shuffled

    if case.plan.status == "stopped":
        return False
    seed = case.words.get("seed", case.plan.seed)
    seeded: dict[str, Any] = {} if seed is None else {"seed": int(seed)}
    engines = (Local(1), Local(2), Shuffled(seeded.get("seed", 0) % 2**32))
    for engine in engines:
        if not case.again(engine=engine, **seeded).equals(case.plan):
            raise broken(case, "distributed", f"engine {engine.name} with {engine.workers} workers gives another plan")
    return True
