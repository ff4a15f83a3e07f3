"""Valid calls of any method, drawn from the arguments it takes: Hypothesis strategies keyed by the argument set.

A witness (an answer that meets every constraint) is drawn first and the constraints around it, so every call is
feasible by construction: an `InfeasibleError` on one of them is a broken law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.registry import DERIVE, Entry
from kofn.laws import inputs
from kofn.laws.families import gather, options_of
from kofn.laws.inputs import Draw
from kofn.laws.sides import draw_sides
from kofn.objectives import base

# Which inputs a qualifier needs: a metric needs rows, weights apply to pools that are compared pairwise.
_QUALIFIES = {"metric": {"X"}, "weights": {"X", "distances", "similarity", "members", "rankings"}}
_LABELS: tuple[Callable[[int], Any], ...] = (str, int, lambda code: f"group {code}")


# Laws that few calls exercise, so that calls are drawn for each of them.
LEANING = ("mergeable", "blend", "aligned", "equivariant", "concave")


@dataclass(frozen=True)
class Call:
    """One valid call."""

    given: dict[str, Any]
    options: dict[str, Any]


@st.composite
def calls(draw: Draw, entry: Entry, *, law: str = "", most: int = 7) -> Call:
    """Calls of `entry` with pools of up to `most` items; `law` leans the draw towards what that law is about."""
    # One or two items leave a search nothing to get wrong, so most pools are larger.
    least = 2 if law in ("mergeable", "blend", "aligned", "equivariant") else 1
    n = draw(st.sampled_from([*range(least, most + 1), *range(most // 2 + 1, most + 1)]))
    tied = law != "equivariant" or entry.verb == "combine"
    options: dict[str, Any] = {}
    declared = entry.draws
    given = _sources(draw, entry, n, law, tied, options)
    for name, source in _QUALIFIES.items():
        if name in entry.accepted and given.keys() & source and draw(st.integers(0, 2)) == 0:
            signed = law != "mergeable" and declared.signed_weights
            given[name] = _qualifier(draw, name, given, signed=signed)
    if "X" in given and "X" not in entry.accepted:
        # Distances are derived from the rows.
        given["metric"] = draw(st.sampled_from(("euclidean", "sqeuclidean", "cosine")))
    if entry.verb == "select":
        _constrain(draw, entry, n, given)
    elif entry.verb == "assign":
        _bins(draw, entry, n, given)
    elif entry.verb == "allocate" and "curves" in given:
        _spend(draw, entry, given, options, plain=law == "concave")
    elif entry.verb == "allocate" and "X" not in given and "scores" not in declared.kinds:
        _units(draw, entry, given)
    elif entry.verb == "allocate":
        _share(draw, entry, n, given, options)
    if "objective" in entry.accepted and draw(st.integers(0, 3)):
        _objective(draw, entry, given, options)
    if "seed" in entry.accepted:
        given["seed"] = draw(st.integers(0, 2**40))
    drawers = options_of(entry.path)
    for name in entry.options:
        if name in options:
            continue
        values = declared.options.get(name, name)
        if isinstance(values, tuple):
            # As often as not the default, which no method can be without.
            if name in declared.long or draw(st.booleans()):
                options[name] = draw(st.sampled_from(values))
        elif values in drawers:
            drawers[values](draw, given, options)
    return Call(given, options)


def _sources(draw: Draw, entry: Entry, n: int, law: str, tied: bool, options: dict[str, Any]) -> dict[str, Any]:
    """The inputs: the required ones, one of each group of alternatives, or rows to derive distances from."""
    words = [word for word in entry.required if word in _MAKERS]
    words += [draw(st.sampled_from([w for w in group if w in _MAKERS])) for group in entry.needs]
    given: dict[str, Any] = {}
    declared = entry.draws
    for word in words:
        if word in DERIVE and DERIVE[word][0] not in entry.accepted and draw(st.booleans()):
            word = DERIVE[word][0]
        if word == "scores":
            make = inputs.score_table if entry.verb == "assign" else inputs.score_vector
            make = inputs.SCORES.get(declared.kinds.get(word, ""), make)
            given[word] = make(draw, n, tied=tied)
        elif word == "curves":
            if "sense" in entry.options and draw(st.booleans()):
                options["sense"] = draw(st.sampled_from(("min", "max")))
            sense = options.get("sense", "min")
            given[word] = inputs.curve_table(
                draw,
                n,
                tied=tied,
                concave=law == "concave",
                sense=sense,
                # Methods with a sense choose among the levels; the others take curves as measurements.
                some_forbidden="sense" in entry.options and law != "concave",
            )
        elif word == "members":
            count = min(n, 5) if law != "mergeable" else max(2, min(n, 5))
            kind = "networks" if law == "aligned" else declared.kinds.get("members")
            if kind not in inputs.MAPPINGS:
                kind = "array" if law == "mergeable" else None
            count = declared.members or count
            based = "base" in entry.required
            drawn = inputs.blend_members(draw, count + based, tied=tied, kind=kind)
            base = drawn.pop() if based else None
            given[word] = drawn
            if based:
                given["base"] = base
        else:
            given[word] = _MAKERS[word](draw, n, tied=tied)
    return given


_MAKERS: dict[str, Callable[..., Any]] = {
    "X": inputs.vectors,
    "distances": inputs.distance_matrix,
    "similarity": inputs.similarity_matrix,
    "scores": inputs.score_vector,
    "curves": inputs.curve_table,
    "members": inputs.blend_members,
    "rankings": inputs.ballots,
}


def _qualifier(draw: Draw, name: str, given: Mapping[str, Any], *, signed: bool) -> Any:
    if name == "metric":
        return draw(st.sampled_from(("euclidean", "sqeuclidean", "cosine")))
    word, source = next(iter(given.items()))
    count = np.shape(source)[1] if word == "rankings" else source.shape[0] if hasattr(source, "shape") else len(source)
    # Any part of mergeable members must have weights of its own that can be used.
    least = 0 if signed else 1
    weights = np.array(draw(st.lists(st.integers(least, 3), min_size=count, max_size=count)), np.float64)
    if not weights.any():
        weights[draw(st.integers(0, count - 1))] = 1.0
    if signed and "members" in given and count > 1 and draw(st.integers(0, 3)) == 0:
        # Signed weights, as task vectors have them, that still sum to one or more.
        weights[0], weights[1] = -1.0, weights[1] + 3.0
    return weights * draw(st.sampled_from((1.0, 0.25, 0.1)))


def _constrain(draw: Draw, entry: Entry, n: int, given: dict[str, Any]) -> None:
    """k, budget, quotas, include, exclude and start around a witness."""
    takes = set(entry.accepted)
    size = draw(st.sampled_from(range(1, n + 1)))
    order = np.array(draw(st.permutations(range(n))))
    witness, others = order[:size], order[size:]
    spend = "costs" in takes and draw(st.booleans())
    if spend:
        costs = _costs(draw, n)
        given["costs"] = costs
        spent = costs[witness].tolist()
        # A float budget beyond 2^53 may round to less than what the witness costs.
        whole = costs.dtype.kind == "i" and costs.max() > 9
        spare = draw(st.sampled_from((0, 0, 1, 2) if whole else (0, 0, 1, 2, 0.5)))
        given["budget"] = (sum(spent) if costs.dtype.kind == "i" else math.fsum(spent)) + spare
    if not spend or ("k" in takes and draw(st.booleans())):
        given["k"] = size + (draw(st.integers(0, n - size)) if spend else 0)
    if "quotas" in takes and draw(st.integers(0, 2)) == 0:
        _quotas(draw, n, witness, given)
    for name, pool in (("include", witness), ("exclude", others), ("start", witness)):
        if name in takes and len(pool) and draw(st.integers(0, 5)) == 0:
            chosen = draw(st.lists(st.sampled_from(pool.tolist()), unique=True, max_size=len(pool)))
            given[name] = draw(st.sampled_from((list, np.array, tuple)))(chosen) if chosen else []


def _costs(draw: Draw, n: int) -> NDArray[Any]:
    """Whole costs, free items among them, or floats whose sums are not exact."""
    whole = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    kind = draw(st.sampled_from(("whole", "huge", "tenths", "float32")))
    if kind == "huge":
        return whole.astype(np.int64) * (2**53 + 1)
    if kind == "tenths":
        return whole * 0.1
    return whole.astype(np.int64) if kind == "whole" else whole.astype(np.float32)


def _quotas(draw: Draw, n: int, witness: NDArray[np.int64], given: dict[str, Any]) -> None:
    """Quotas over one column, or over several at once, each with some that the witness meets."""
    columns = {}
    for name in ("first", "second", "third")[: draw(st.sampled_from((1, 1, 2, 3)))]:
        groups, quotas = _quota_column(draw, n, witness)
        if quotas:
            columns[name] = (groups, quotas)
    if len(columns) > 1:
        given["groups"] = {name: groups for name, (groups, _) in columns.items()}
        given["quotas"] = {name: quotas for name, (_, quotas) in columns.items()}
    elif columns:
        ((given["groups"], given["quotas"]),) = columns.values()


def _quota_column(draw: Draw, n: int, witness: NDArray[np.int64]) -> tuple[list[Any], dict[Any, Any]]:
    codes = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    label = draw(st.sampled_from(_LABELS))
    quotas: dict[Any, Any] = {}
    for code in np.unique(codes).tolist():
        count = int((codes[witness] == code).sum())
        least = draw(st.sampled_from((None, count, max(0, count - 1))))
        most = draw(st.sampled_from((None, count, count + 1)))
        if (least, most) != (None, None):
            quotas[label(code)] = count if least == most == count and draw(st.booleans()) else (least, most)
    return [label(code) for code in codes.tolist()], quotas


def _objective(draw: Draw, entry: Entry, given: dict[str, Any], options: dict[str, Any]) -> None:
    """One of the objectives that can be built from what is given, with parameters of its own."""
    able = [
        name
        for name, known in base.OBJECTIVES.items()
        if name in base.GREEDY and given.keys() & set(known.sources) and (known.submodular or entry.draws.any_function)
    ]
    name = draw(st.sampled_from(able))
    texts = gather("OBJECTIVES")
    text = texts[name](draw, given, options) if name in texts else name
    if text is None:
        return
    for word in ("weights", "metric"):
        if word in given and word not in base.words_of(text):
            del given[word]
    given["objective"] = text


def _bins(draw: Draw, entry: Entry, n: int, given: dict[str, Any]) -> None:
    """k groups, or bins with a capacity that holds every item that lists one."""
    if "k" in entry.accepted and "scores" not in given:
        rows = given["X"] if "X" in given else given.get("distances")
        most = len(np.unique(np.asarray(rows), axis=0)) if entry.draws.distinct_rows else n
        given["k"] = draw(st.sampled_from(range(1, most + 1)))
        if "start" in entry.accepted and draw(st.integers(0, 3)) == 0:
            given["start"] = list(draw(st.permutations(range(n))))[: given["k"]]
        if "capacity" in entry.accepted and draw(st.booleans()):
            _room(draw, n, given)
    if "scores" not in given:
        return
    scores = np.asarray(given["scores"])
    bins = scores.shape[1]
    if "margins" in entry.accepted:
        inputs.draw_margins(draw, given)
    if "groups" in entry.accepted and draw(st.booleans()):
        label = draw(st.sampled_from(_LABELS))
        given["groups"] = [label(code) for code in draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))]
    if "per_item" in entry.required or ("per_item" in entry.accepted and draw(st.booleans())):
        given["per_item"] = draw(st.integers(1, bins))
    if "capacity" in entry.accepted:
        if draw(st.booleans()):
            given["capacity"] = draw(st.integers(0, n))
        else:
            given["capacity"] = draw(st.lists(st.integers(0, n), min_size=bins, max_size=bins))


def _room(draw: Draw, n: int, given: dict[str, Any]) -> None:
    """Groups that each hold someone and together hold everyone."""
    k = given["k"]
    if draw(st.booleans()):
        given["capacity"] = draw(st.integers(-(-n // k), n))
        return
    room = [1] * k
    for group in draw(st.lists(st.integers(0, k - 1), min_size=n - k, max_size=n)):
        room[group] += 1
    given["capacity"] = room


def _share(draw: Draw, entry: Entry, n: int, given: dict[str, Any], options: dict[str, Any]) -> None:
    """Prices, bounds, and a budget between what the least amounts cost and a little more than the most."""
    words = {name for name in ("costs", "weights") if name in entry.accepted and draw(st.booleans())}
    sized = "sizes" in entry.options and draw(st.booleans())
    prices: NDArray[Any] = np.ones(n, np.int64)
    if "costs" in words or sized:
        prices = np.array(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))) * draw(
            st.sampled_from((1, 1, 0.1))
        )
        given.update({"costs": prices} if "costs" in words else {})
        options.update({"sizes": prices} if sized else {})
    if "weights" in words:
        given["weights"] = np.array(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)), np.float64)
    low = np.zeros(n, np.int64)
    if "X" not in given:
        low = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    high = low + np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    given["bounds"] = np.stack([low, high], axis=1)
    least, most = ((prices * end).sum().item() for end in (low, high))
    budget = least + draw(st.sampled_from((0.0, 0.2, 0.5, 0.9, 1.0, 1.2 if "X" not in given else 1.0))) * (most - least)
    whole = isinstance(least, int) and ("X" in given or draw(st.booleans()))
    if "mean_budget" in entry.options and draw(st.integers(0, 3)) == 0:
        options["mean_budget"] = float(np.ceil(budget / prices.sum() * 100 + 1) / 100)
    else:
        given["budget"] = int(budget) if whole else budget


def _spend(draw: Draw, entry: Entry, given: dict[str, Any], options: dict[str, Any], *, plain: bool) -> None:
    """sizes, levels and a budget between what the cheapest levels cost and a little more than the dearest."""
    n, width = np.asarray(given["curves"]).shape
    sizes, levels = np.ones(n, np.int64), np.broadcast_to(np.arange(width), (n, width))
    if "sizes" in entry.options and not plain and draw(st.booleans()):
        drawn = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
        sizes = np.array(drawn) * draw(st.sampled_from((1, 1, 0.1)))
        options["sizes"] = sizes
    if "levels" in entry.options and not plain and draw(st.booleans()):
        shape = (n, width) if draw(st.booleans()) else (width,)
        drawn = draw(st.lists(st.integers(0, 5), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        levels = np.array(drawn).reshape(shape) * draw(st.sampled_from((1, 1, 0.3)))
        options["levels"] = levels
    costs = sizes[:, None] * np.broadcast_to(levels, (n, width))
    allowed = np.isfinite(given["curves"])
    if "bounds" in entry.accepted and not plain and draw(st.booleans()):
        witness = np.broadcast_to(levels, (n, width))[np.arange(n), allowed.argmax(axis=1)]
        open_ = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
        ends = np.stack([np.where(open_ & 1, 0, witness), np.where(open_ & 2, math.inf, witness)], axis=1)
        given["bounds"] = ends
        allowed &= (levels >= ends[:, :1]) & (levels <= ends[:, 1:])
    low = np.where(allowed, costs, costs.max()).min(axis=1).sum().item()
    high = np.where(allowed, costs, costs.min()).max(axis=1).sum().item()
    share = draw(st.sampled_from((0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0, 1.1)))
    budget = low + share * (high - low)
    if isinstance(low, int):
        budget = int(budget) if draw(st.booleans()) or budget < low else budget
    if "mean_budget" in entry.options and not plain and sizes.sum() > 0 and draw(st.integers(0, 3)) == 0:
        # Rounded up to a short decimal, as people write them.
        options["mean_budget"] = float(np.ceil(budget / sizes.sum() * 100 + 1) / 100)
    else:
        given["budget"] = max(budget, low)
    if "quotas" in entry.accepted:
        draw_sides(draw, given, options, np.broadcast_to(levels, (n, width)), costs, allowed)


def _units(draw: Draw, entry: Entry, given: dict[str, Any]) -> None:
    """Scores that are votes, and whole units between what the items must and may have."""
    votes = np.abs(np.asarray(given["scores"], np.float64))
    if not votes.any():
        votes[0] = 1.0
    given["scores"] = inputs.laid_out(draw, votes)
    n = len(votes)
    least, most = np.zeros(n, np.int64), np.full(n, 10)
    if "bounds" in entry.accepted and draw(st.booleans()):
        least = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
        most = least + draw(st.integers(1, 4))
        given["bounds"] = np.stack([least, most], axis=1)
    # Some methods give everyone one unit first.
    low = int(np.maximum(least, 1).sum())
    given["budget"] = min(low + draw(st.integers(0, 9)), int(most.sum()))
