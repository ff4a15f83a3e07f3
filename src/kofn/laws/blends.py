"""The laws of blends: their form, mergeable statistics, and invariance to the order of hidden units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, law
from kofn.laws.families import gather
from kofn.laws.traits import relabel
from kofn.laws.words import HIDDEN, flat, forward, permuted


@law("blend", verbs=("combine",))
def blend(case: Case) -> bool:
    """The blend has the properties of its `form`: a weighted sum, a ranking, or an elementwise function.

    linear: scaling commutes, and the result is the members' sum under `weights`. affine: these sum to one, copies give
    the copy, a shift shifts. simplex: they are >= 0, so the result lies in the members' box. order: relabelling the
    alternatives relabels the ranking, and what every judge prefers ranks higher. elementwise: no element sees another.
    """
    form = case.plan.form
    if form != "none" and "sum_of" in case.plan.info:
        return bool(gather("BLENDS")[case.plan.info["sum_of"]](case))
    if form == "order":
        return _order(case)
    if form == "elementwise":
        return _elementwise(case)
    if form == "none":
        return False
    _sums(case)
    if form in ("affine", "simplex"):
        _copies_and_shifts(case)
    if form == "simplex":
        _box(case)
    return True


def _members(case: Case) -> list[Any]:
    return list(case.words["members"])


def mapped(member: Any, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    """The member with every floating array changed; whole numbers are left as they are."""
    if isinstance(member, Mapping):
        return {name: mapped(value, change) for name, value in member.items()}
    array = np.asarray(member)
    return array if array.dtype.kind in "iub" else change(array).astype(array.dtype)


def _rounding(member: Any) -> Floats:
    """Half a unit in the last place of one, for every number of a member."""
    arrays = (
        [np.asarray(member[name]) for name in sorted(member)] if isinstance(member, Mapping) else [np.asarray(member)]
    )
    return np.concatenate([np.full(array.size, _epsilon(array.dtype)) for array in arrays])


def _epsilon(dtype: np.dtype[Any]) -> float:
    if dtype.kind in "iub":
        return 0.0
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)


def _agree(case: Case, label: str, got: Any, want: Floats, size: Floats, name: str = "blend") -> None:
    """Equal within the rounding of the members' own dtypes, relative to `size`."""
    eps = _rounding(_members(case)[0])
    off = np.abs(flat(got) - want)
    if (off > 4 * eps * size).any():
        worst = int(np.argmax(off - 4 * eps * size))
        raise broken(case, name, f"{label}: element {worst} is {flat(got)[worst]!r}, not {want[worst]!r}")


def _sums(case: Case) -> None:
    plan, rows = case.plan, [flat(member) for member in _members(case)]
    if isinstance(plan.weights, Mapping):
        _sums_by_tensor(case)
        return
    weights = np.asarray(plan.weights, np.float64)
    if plan.form in ("affine", "simplex") and abs(math.fsum(weights.tolist()) - 1) > 1e-9:
        raise broken(case, "blend", f"form {plan.form}, weights sum to {math.fsum(weights.tolist())!r}")
    if plan.form == "simplex" and (weights < 0).any():
        raise broken(case, "blend", f"form simplex, weights {weights}")
    size = np.abs(weights) @ np.abs(np.array(rows))
    whole = _rounding(_members(case)[0]) == 0
    want = np.where(whole, rows[0], weights @ np.array(rows))
    _agree(case, "the weighted sum", plan.result, want, size)
    doubled = case.again(members=[mapped(member, lambda array: array * 2) for member in _members(case)])
    if np.array_equal(doubled.weights, weights):
        _agree(case, "twice the members", doubled.result, np.where(whole, want, 2 * flat(plan.result)), 2 * size)


def _sums_by_tensor(case: Case) -> None:
    """Every tensor is the members' sum under weights of its own."""
    for name, weights in case.plan.weights.items():
        rows = np.array([np.asarray(member[name], np.float64) for member in _members(case)])
        if case.plan.form == "simplex" and ((weights < 0).any() or abs(math.fsum(weights.tolist()) - 1) > 1e-9):
            raise broken(case, "blend", f"form simplex, weights of {name} are {weights}")
        want, eps = np.tensordot(weights, rows, axes=1), _epsilon(np.asarray(_members(case)[0][name]).dtype)
        if (np.abs(np.asarray(case.plan.result[name]) - want) > 4 * eps * np.abs(rows).max(axis=0)).any():
            raise broken(case, "blend", f"{name} is {case.plan.result[name]!r}, not {want!r}")


def _copies_and_shifts(case: Case) -> None:
    members = _members(case)
    copies = case.again(members=[members[0]] * len(members))
    if isinstance(copies.weights, Mapping):
        _agree(case, "copies", copies.result, flat(members[0]), np.abs(flat(members[0])))
        return
    used = np.abs(np.asarray(copies.weights, np.float64)).sum()
    _agree(case, "copies", copies.result, flat(members[0]), used * np.abs(flat(members[0])))
    shifted = case.again(members=[mapped(member, lambda array: array + 1) for member in members])
    if np.array_equal(shifted.weights, case.plan.weights):
        shift = np.where(_rounding(members[0]) == 0, 0.0, 1.0)
        size = 1 + np.abs(np.asarray(case.plan.weights)) @ np.abs(np.array([flat(member) for member in members]))
        _agree(case, "members plus one", shifted.result, flat(case.plan.result) + shift, size)


def _box(case: Case) -> None:
    rows = np.array([flat(member) for member in _members(case)])
    low, high = rows.min(axis=0), rows.max(axis=0)
    _agree(
        case, "the members' box", case.plan.result, np.clip(flat(case.plan.result), low, high), np.abs(rows).max(axis=0)
    )


def _elementwise(case: Case) -> bool:
    order = np.random.default_rng(int(case.plan.problem[:8], 16))
    members = _members(case)
    if any(isinstance(member, Mapping) for member in members):
        return False
    shuffle = order.permutation(np.asarray(members[0]).size)

    def moved(rows: list[Any]) -> list[Any]:
        return [np.asarray(row).ravel()[shuffle] for row in rows]

    options = {name: moved(value) if _by_member(case, value) else value for name, value in case.options.items()}
    other = case.again(options, members=moved(members))
    if not np.array_equal(flat(other.result), flat(case.plan.result)[shuffle]):
        raise broken(case, "blend", "moving the elements changed them")
    return len(shuffle) > 1


def _by_member(case: Case, value: Any) -> bool:
    """Whether an option holds something for every member."""
    return isinstance(value, list) and len(value) == len(_members(case))


def _order(case: Case) -> bool:
    plan, ballots = case.plan, np.asarray(case.words["rankings"], np.float64).T
    ranking = np.asarray(plan.result)
    position = np.argsort(ranking)
    # A judge of weight 0 is asked nothing.
    heard = np.asarray(plan.weights) > 0 if plan.weights is not None else np.ones(len(ballots), bool)
    if not np.isnan(ballots).any():
        agreed = (ballots[heard][:, :, None] > ballots[heard][:, None, :]).all(axis=0)
        for a, b in np.argwhere(agreed & (position[:, None] > position[None, :])).tolist():
            raise broken(case, "blend", f"every judge prefers {a} to {b}, the ranking does not")
    order = np.random.default_rng(int(plan.problem[:8], 16)).permutation(case.n)
    other = case.again(**relabel(case, order))
    theirs = order[np.asarray(other.result)]
    points = plan.info.get("points")
    if points is None:
        # Of several best orders another one may come.
        same = np.array_equal(theirs, ranking) or math.isclose(other.value, plan.value, rel_tol=1e-9, abs_tol=1e-12)
    else:
        # Equal points may stand in either order.
        same = np.allclose(np.asarray(points)[theirs], np.asarray(points)[ranking], atol=1e-9, equal_nan=True)
    if not same:
        raise broken(case, "blend", f"relabelled, {ranking} became {theirs}")
    return case.n > 1


@law("mergeable")
def mergeable(case: Case) -> bool:
    """Statistics of parts of the members, added in any order and nesting, give the statistic of all members."""
    plan = case.plan
    word = "members" if "members" in case.words else "rankings"
    parts = list(case.words[word] if word == "members" else np.asarray(case.words[word]).T)
    if plan.statistic is None or len(parts) < 2:
        return False
    rng = np.random.default_rng(int(plan.problem[:8], 16))
    places = rng.permutation(len(parts))
    cuts = np.sort(rng.choice(np.arange(1, len(parts)), size=rng.integers(1, len(parts)), replace=False))
    statistics = [_statistic(case, word, parts, piece) for piece in np.split(places, cuts)]
    while len(statistics) > 1:
        a, b = statistics.pop(int(rng.integers(len(statistics)))), statistics.pop(int(rng.integers(len(statistics))))
        statistics.append(_added(a, b))
    merged, whole = statistics[0], plan.statistic
    for name in whole:
        got, want = flat(merged[name]), flat(whole[name])
        scale = float(np.abs(want).max(initial=0.0)) + float(np.abs(got).max(initial=0.0))
        if got.shape != want.shape or not np.allclose(got, want, rtol=1e-10, atol=1e-10 * scale, equal_nan=True):
            raise broken(case, "mergeable", f"{name}, cut at {cuts} of {places}, is {got}, not {want}")
    _finished(case, whole)
    return True


def _statistic(case: Case, word: str, parts: list[Any], piece: NDArray[np.int64]) -> Mapping[str, Any]:
    chosen = [parts[i] for i in piece.tolist()]
    changes: dict[str, Any] = {word: np.array(chosen).T if word == "rankings" else chosen}
    if "weights" in case.given:
        changes["weights"] = np.asarray(case.words["weights"])[piece]
    options = case.options
    if word == "members":
        options = {
            name: [value[i] for i in piece.tolist()] if _by_member(case, value) else value
            for name, value in options.items()
        }
    statistic = case.again(options, **changes).statistic
    if not isinstance(statistic, Mapping):
        raise broken(case, "mergeable", f"a part's statistic is {type(statistic).__name__}")
    return statistic


def _added(a: Any, b: Any) -> Any:
    if isinstance(a, Mapping):
        # A sum kept as factors knows how to be added.
        return a + b if hasattr(a, "__add__") else {name: _added(a[name], b[name]) for name in a}
    return np.asarray(a) + np.asarray(b)


def _finished(case: Case, statistic: Mapping[str, Any]) -> None:
    """The result is a function of the statistic alone, for the pairs of sums that this module knows."""
    plan = case.plan
    if statistic.keys() == {"sum", "weight"}:
        mean = flat(statistic["sum"]) / float(statistic["weight"])
        whole = _rounding(_members(case)[0]) == 0
        size = float(np.abs(mean).max(initial=0.0)) + np.abs(flat(plan.result))
        if plan.form in ("affine", "simplex"):
            _agree(case, "sum over weight", plan.result, np.where(whole, flat(plan.result), mean), size, "mergeable")
    elif statistic.keys() == {"sum", "precision"}:
        total, heard = flat(statistic["sum"]), flat(statistic["precision"])
        known = heard > 0
        size = np.abs(np.array([flat(member) for member in _members(case)])).max(axis=0)
        mean = np.divide(total, heard, out=flat(plan.result), where=known)
        _agree(case, "sum over precision", plan.result, mean, size, "mergeable")
    elif statistic.keys() == {"earned", "heard"}:
        with np.errstate(invalid="ignore", divide="ignore"):
            points = statistic["earned"] / statistic["heard"]
        if not np.allclose(points, plan.info["points"], rtol=1e-10, equal_nan=True):
            raise broken(case, "mergeable", f"earned over heard is {points}, the points {plan.info['points']}")


@law("aligned")
def aligned(case: Case) -> bool:
    """Permuting a member's hidden units does not change the result's function; a permuted copy merges back."""
    members = _members(case)
    if not all(isinstance(member, Mapping) and set(member) == set(HIDDEN) for member in members):
        return False
    width, inputs = np.asarray(members[0][HIDDEN[0]]).shape
    rng = np.random.default_rng(int(case.plan.problem[:8], 16))
    probes = rng.normal(size=(64, inputs))
    before = forward(case.plan.result, probes)
    for position, member in enumerate(members):
        moved = [*members[:position], permuted(member, rng.permutation(width)), *members[position + 1 :]]
        off = np.abs(forward(case.again(members=moved).result, probes) - before).max()
        if off > 1e-5 * max(1.0, float(np.abs(before).max())):
            raise broken(case, "aligned", f"permuting member {position} moved the function by {off:.3g}")
    copy = permuted(members[0], rng.permutation(width))
    merged = case.again(members=[members[0], copy], weights=None).result
    if not np.allclose(forward(merged, probes), forward(members[0], probes), rtol=1e-5, atol=1e-6):
        raise broken(case, "aligned", "a member and its permuted copy did not merge back to it")
    return width > 1
