"""One checked problem object for each verb: what was asked, checked once, and the audit that a plan must pass."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks, vocabulary
from kofn.core.checks import InputError
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection
from kofn.engines.threads import cores, spread

INPUTS = ("X", "distances", "similarity", "scores", "curves", "members", "rankings")
_PER_ITEM = ("y", "groups", "costs")
# Arrays beyond two parts of so many bytes are digested part by part.
_PART = 2**24
# A large array is digested in parts of this many bytes.
_PART = 1 << 24


@dataclass(frozen=True)
class Problem:
    """What one call asked: the checked arguments `given`, the pool size `n`, the user's `ids`, and a digest of it all.

    `at_most_k` is declared by the method (`@method(at_most_k=True)`), never by the plan that is audited.
    """

    verb: str
    n: int
    given: Mapping[str, Any]
    ids: NDArray[Any] | None
    digest: str
    at_most_k: bool = False

    def audit(self, plan: Plan) -> list[str]:
        """The hard constraints that the plan breaks, recounted from the arguments alone; empty when it is sound."""
        breaches = [] if plan.n == self.n else [f"n is {plan.n}, the pool has {self.n}"]
        check = {"select": _selection, "assign": _assignment, "allocate": _allocation, "combine": _blend}[self.verb]
        return breaches + check(self, plan)


def build(verb: str, given: Mapping[str, Any], ids: Any = None, *, at_most_k: bool = False) -> Problem:
    """Check every argument under its vocabulary name, then the arguments against each other."""
    checked: dict[str, Any] = {}
    late = {"include", "exclude", "start"}
    for name, value in given.items():
        if name == "weights" and verb == "combine":
            checked[name] = checks.signed_weights(value)
        elif name not in late and name != "costs":
            checked[name] = vocabulary.argument(name, value)
    source = next((name for name in INPUTS if name in checked), None)
    if source is None:
        raise InputError(f"nothing to {verb} from: give one of {', '.join(INPUTS)}")
    n = _length(source, checked[source])
    shape = (n,)
    if verb == "select" and source == "scores" and checked["scores"].ndim == 2:
        # A table of scores is a pool of entries, row by row; elsewhere each row is an item.
        n, shape = checked["scores"].size, checked["scores"].shape
    if "costs" in given:
        checked["costs"] = checks.costs(checks.spread_costs(given["costs"], shape))
    for name in _PER_ITEM + (("weights",) if verb != "combine" else ()):
        if name in checked:
            checks.same_length(n, source, name, len(checked[name]))
    for name in INPUTS:
        if name in checked and name != source and name not in ("members", "rankings"):
            checks.same_length(n, source, name, _length(name, checked[name]))
    if verb == "combine" and "weights" in checked:
        m = len(checked["members"] if "members" in checked else checked["rankings"])
        if len(checked["weights"]) != m:
            raise InputError(f"weights has {len(checked['weights'])} values for {m} members; give one a member")
    keys = None if ids is None else checks.ids(ids)
    if keys is not None:
        checks.same_length(n, source, "ids", len(keys))
    for name in late & given.keys():
        checked[name] = checks.positions(given[name], name, n, keys)
    return Problem(verb, n, checked, keys, digest({"verb": verb, **checked}), at_most_k)


def _length(name: str, value: Any) -> int:
    if name == "rankings":
        return int(value.shape[1])
    return int(value.shape[0]) if hasattr(value, "shape") else len(value)


def digest(values: Mapping[str, Any]) -> str:
    """blake2b of the inputs, by which a plan tells which problem it answers; of the settings only the seed counts."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(values):
        if name not in vocabulary.SETTINGS or name == "seed":
            state.update(name.encode())
            if isinstance(values[name], np.ndarray) and values[name].nbytes > 2 * _PART:
                _feed_parts(state, values[name], cores(values.get("n_threads")))
            else:
                _feed(state, values[name])
    return state.hexdigest()


def _feed_parts(state: Any, value: NDArray[Any], n_threads: int) -> None:
    """A large array by the digests of its parts, which threads share; the parts do not depend on how many there are."""
    if value.dtype == object:
        _feed(state, value)
        return
    raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    parts = [b""] * -(-len(raw) // _PART)

    def feed(low: int, high: int) -> None:
        for part in range(low, high):
            parts[part] = hashlib.blake2b(raw[part * _PART : (part + 1) * _PART].data).digest()

    spread(feed, len(parts), n_threads, shares=4)
    state.update(f"{value.dtype}{value.shape}".encode() + b"".join(parts))


def _feed(state: Any, value: Any) -> None:
    if checks.is_sparse(value):
        for part in (value.indptr, value.indices, value.data):
            _feed(state, part)
    elif isinstance(value, np.ndarray):
        state.update(f"{value.dtype}{value.shape}".encode())
        plain: Any = str(value.tolist()).encode() if value.dtype == object else np.ascontiguousarray(value).reshape(-1)
        state.update(plain if isinstance(plain, bytes) else plain.view(np.uint8))
    elif isinstance(value, str | os.PathLike):
        state.update(str(value).encode())
        path = Path(value)
        held = [*path.glob("*.safetensors*"), *path.glob("adapter_config.json")]
        files = sorted(held) if path.is_dir() else [path] if path.is_file() else []
        for file in files:
            state.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    elif isinstance(value, Mapping):
        state.update(repr(getattr(value, "config", "")).encode())  # an adapter's scalings
        for key, item in value.items():
            state.update(str(key).encode())
            _feed(state, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(state, item)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        state.update(f"{type(value).__name__}{tuple(value.shape)}{value.dtype}".encode())
    elif callable(value):
        state.update(getattr(value, "__qualname__", type(value).__name__).encode())
    else:
        state.update(repr(value).encode())


def _selection(problem: Problem, plan: Plan) -> list[str]:
    assert isinstance(plan, Selection)
    given, index, out = problem.given, np.asarray(plan.indices), []
    if index.dtype != np.int64 or index.ndim != 1:
        return [f"indices have dtype {index.dtype}, shape {index.shape}"]
    if len(plan.gains) != len(index):
        out.append(f"{len(plan.gains)} gains for {len(index)} picks")
    if len(index) and (index.min() < 0 or index.max() >= problem.n):
        return [*out, f"indices reach outside 0..{problem.n - 1}"]
    if len(np.unique(index)) < len(index):
        out.append("an item is picked twice")
    k, budget = given.get("k"), given.get("budget")
    if k is not None and len(index) > k:
        out.append(f"{len(index)} picks, k={k}")
    exactly = plan.status != "stopped" and not problem.at_most_k
    if k is not None and budget is None and len(index) < k and exactly:
        out.append(f"only {len(index)} picks, k={k}")
    if budget is not None and "costs" in given:
        costs = given["costs"]
        if costs.dtype.kind == "i":
            whole = sum(int(costs[i]) for i in index)
            if whole > budget:
                out.append(f"cost {whole} over the budget {budget}")
        elif (spent := math.fsum(costs[index].tolist())) > budget * (1 + problem.n * np.finfo(np.float64).eps):
            out.append(f"cost {spent!r} over the budget {budget!r}")
    if "quotas" in given and "groups" in given:
        labels = [str(label) for label in given["groups"][index].tolist()]
        for group, (low, high) in given["quotas"].items():
            held = labels.count(str(group))
            if held < low or (high is not None and held > high):
                out.append(f"group {group!r} holds {held}, its quota is ({low}, {high})")
    if "per_item" in given and "scores" in given and given["scores"].ndim == 2:
        in_row = np.bincount(index // given["scores"].shape[1])
        if len(in_row) and in_row.max() > given["per_item"]:
            out.append(f"row {int(in_row.argmax())} holds {in_row.max()} entries, per_item={given['per_item']}")
    missed = set(given.get("include", ())) - set(index.tolist())
    if missed:
        out.append(f"{len(missed)} items of include are not picked, row {min(missed)} for one")
    banned = set(given.get("exclude", ())) & set(index.tolist())
    if banned:
        out.append(f"{len(banned)} excluded items are picked, row {min(banned)} for one")
    return out


def _assignment(problem: Problem, plan: Plan) -> list[str]:
    assert isinstance(plan, Assignment)
    given, out = problem.given, []
    if plan.indptr.shape != (problem.n + 1,) or plan.indptr[0] != 0 or plan.indptr[-1] != len(plan.bins):
        return ["indptr does not fit the bins"]
    if (np.diff(plan.indptr) < 0).any():
        out.append("indptr decreases")
    if len(plan.bins) and (plan.bins.min() < 0 or plan.bins.max() >= plan.k):
        return [*out, f"bins reach outside 0..{plan.k - 1}"]
    rows = np.repeat(np.arange(problem.n), np.diff(plan.indptr))
    pairs = rows * plan.k + plan.bins
    # Rows in the order of their bins, as large plans have them, need no search.
    if not (np.diff(pairs) > 0).all() and len(np.unique(pairs)) < len(pairs):
        out.append("an item holds the same bin twice")
    held = np.bincount(plan.bins, minlength=plan.k)
    if "capacity" in given:
        over = np.flatnonzero(held > np.broadcast_to(given["capacity"], plan.k))
        out += [f"bin {j} holds {held[j]}, over its capacity" for j in over[:3]]
    if "per_item" in given and (np.diff(plan.indptr) > given["per_item"]).any():
        out.append(f"an item holds more than per_item={given['per_item']} bins")
    least = plan.options.get("min_size", 0)
    short = np.flatnonzero(held < least)
    out += [f"bin {j} holds {held[j]}, less than min_size={least}" for j in short[:3]]
    for name, together in (("must_link", True), ("cannot_link", False)):
        pairs = np.asarray([] if (links := plan.options.get(name)) is None else links, np.int64).reshape(-1, 2)
        apart = plan.labels[pairs[:, 0]] != plan.labels[pairs[:, 1]]
        for a, b in pairs[apart == together][:1].tolist():
            out.append(f"rows {a} and {b} of {name} are {'not ' if together else ''}in one bin")
    if "margins" in given and plan.status != "stopped":
        out += _off_margins(given["margins"], plan)
    if plan.medoids is not None:
        if len(np.unique(plan.medoids)) < len(plan.medoids):
            out.append("a medoid stands twice")
        if len(plan.medoids) and (plan.medoids.min() < 0 or plan.medoids.max() >= problem.n):
            out.append("a medoid is not an item")
    return out


def _off_margins(margins: tuple[NDArray[Any], NDArray[Any]], plan: Assignment) -> list[str]:
    """Totals are sums of floats: they may be off by rounding, or by the tolerance that was asked for."""
    out = []
    slack = math.fsum(margins[0].tolist()) * max(1e-9, float(plan.options.get("tol", 0.0)))
    sides = (("row", plan.row_margin, margins[0]), ("column", plan.col_margin, margins[1]))
    for side, totals, asked in sides:
        if len(totals) != len(asked):
            out.append(f"{len(totals)} {side} totals, margins asks for {len(asked)}")
        elif (off := float(np.abs(totals - asked).sum())) > slack:
            out.append(f"the {side} totals are off by {off:.3g} from margins")
    return out


def _allocation(problem: Problem, plan: Plan) -> list[str]:
    assert isinstance(plan, Allocation)
    out = []
    if len(plan.amounts) != problem.n or len(plan.values) != problem.n:
        out.append(f"{len(plan.amounts)} amounts and {len(plan.values)} values for {problem.n} items")
    for name, limit in plan.budget.items():
        spent = plan.used[name]
        slack = 0 if isinstance(spent, int | np.integer) else problem.n * np.finfo(np.float64).eps * abs(limit)
        if spent > limit + slack:
            out.append(f"{name}: used {spent!r} over the budget {limit!r}")
    return out


def _blend(problem: Problem, plan: Plan) -> list[str]:
    assert isinstance(plan, Blend)
    if plan.form == "order" and sorted(np.asarray(plan.result).tolist()) != list(range(problem.n)):
        return ["the ranking is not an order of the alternatives"]
    return []
