"""Routes over a table of scores: every item to its best bins, no bin above its capacity."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InfeasibleError, InputError
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Whole = NDArray[np.integer[Any]]

_OVERFLOWS = ("error", "drop", "reroute")
_AFFINITIES = ("none", "softmax", "sigmoid")
_GATES = ("ones", "raw", "share")
# Below this many scores Python and NumPy are done before compiled code is loaded.
_COMPILED_FROM = 20_000


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    cost="O(n bins per_item) at worst, mostly O(n bins); memory n bins numbers",
    exact="the best bins of each item, exactly; no bin is limited",
    paper="Shazeer et al. 2017 (ICLR, arXiv 1701.06538); Jiang et al. 2024, Mixtral of Experts (arXiv 2401.04088)",
)
def token_choice(scores: Any, *, per_item: int = 1, affinity: str = "softmax", gates: str = "share") -> Assignment:
    """Send each item to the bins that it scores highest, weighted by softmax over those: the usual router of experts.

    Args:
        scores: (n, bins) router logits; -inf where an item does not list a bin.
        per_item: how many bins an item goes to.
        affinity: what the weights are made of: "softmax" of the scores over all bins that the item lists, "sigmoid" of
            each score, or "none", the scores as they are.
        gates: the weight of each route: its affinity's "share" among the item's bins (softmax over the kept: Mixtral;
            with sigmoid: DeepSeek-V3), the "raw" affinity (Switch), or "ones".

    Returns:
        An `Assignment`; `value` is the sum of the affinities of all routes and, where none is negative, the best there
        is. `info["unfilled"]` counts slots of items that list fewer than `per_item` bins.

    Raises:
        InputError: scores that are not (n, bins), per_item above the number of bins, weights that would not be > 0.

    Cost: one pass over the scores and the exponentials of all of them.

    Guarantee: the margin of the items holds exactly (`per_item` bins, weights that sum to 1 under "share"), that of the
    bins is free: loads are whatever is asked. Nothing is dropped. Equal scores prefer the lowest bin. A weight that
    underflows is the smallest positive number.

    References:
        Jiang et al. 2024, section 2.1; Fedus, Zoph & Shazeer 2022, Switch Transformers (JMLR 23).

    Examples:
        >>> from kofn.assignment import token_choice
        >>> plan = token_choice([[2.0, 2.0, -1.0], [0.0, 5.0, 1.0]], per_item=2)
        >>> plan.bins.tolist(), plan.weights.round(3).tolist()
        ([0, 1, 1, 2], [0.5, 0.5, 0.9819999933242798, 0.017999999225139618])
    """
    _known(affinity, gates)
    scores = score_table(scores)
    n, bins = scores.shape
    _refuse_too_many(per_item, bins)
    chosen = np.sort(best_bins(scores, per_item), axis=1)
    rows, slots = np.nonzero(chosen >= 0)
    columns = chosen[rows, slots].astype(np.int64)
    logs = log_affinity(scores, rows, columns, affinity)
    felt = scores[rows, columns].astype(np.float64) if affinity == "none" else np.exp(logs)
    positive = bool((felt >= 0).all())
    value = float(felt.sum())
    return Assignment(
        **routes(n, bins, rows, columns, weigh(logs, rows, gates)),
        value=value,
        sense="max",
        bound=value if positive else float(np.maximum(felt, 0).sum()),
        status="optimal" if positive else "heuristic",
        info={"objective": "routed_affinity", "unfilled": n * per_item - len(rows)},
    )


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    cost="O(n bins); with per_item O(n bins + slots log capacity); memory 2 n bins numbers",
    exact="each bin's highest affinities, capacities exactly; with per_item both margins exactly",
    paper="Zhou et al. 2022, Mixture-of-Experts with Expert Choice Routing (NeurIPS, arXiv 2202.09368)",
)
def expert_choice(
    scores: Any,
    *,
    capacity: Any = None,
    per_item: int | None = None,
    capacity_factor: float | None = None,
    affinity: str = "softmax",
    gates: str = "raw",
) -> Assignment:
    """Let each bin take the items that want it most, exactly `capacity` of them: loads are equal by construction.

    An item is taken by no bin, by one or by many: hard ones get more experts. The choice looks at the whole batch, so
    that **a later token decides whether an earlier one is served**: in next-token prediction that leaks the future.

    Args:
        scores: (n, bins) router logits; -inf where a bin may not take an item.
        capacity: how many items a bin takes, one number or (bins,).
        capacity_factor: in place of capacity: bins per item on average, capacity = n x factor / bins, rounded down, at
            least 1. 2 where neither is given.
        per_item: the most bins that may take the same item. Items and bins then settle as in `capped_routing` with
            "reroute", and a bin whose wishes are taken may stay below its capacity.
        affinity: what bins rank by: "softmax" of an item's scores over the bins (the paper), "sigmoid", or "none".
        gates: the weight of each route: the "raw" affinity (the paper), its "share" among the item's bins, or "ones".

    Returns:
        An `Assignment`; `value` is the sum of the affinities of all routes. Without `per_item` it is the best for these
        capacities, with it at least half of that. `info["unserved"]` counts items that no bin took,
        `info["unfilled"]` slots of bins that stayed empty.

    Raises:
        InputError: scores that are not (n, bins), both capacity and capacity_factor, weights that would not be > 0.

    Cost: the exponentials of all scores and one partition for each bin.

    Guarantee: without `per_item` every bin holds exactly min(capacity, items that list it); the items' margin is free,
    and what no bin wants is dropped (`unserved`). With `per_item` no item exceeds it and no bin its capacity. Equal
    affinities prefer the lowest item.

    References:
        Zhou et al. 2022, sections 3.2-3.3. Their capped variant solves an entropic linear program by Dykstra's
        iterations and takes each expert's top entries of that, which may exceed the cap; here the cap is exact.

    Examples:
        >>> from kofn.assignment import expert_choice
        >>> plan = expert_choice([[3.0, 3.1], [2.0, 0.0], [0.0, 0.5], [1.0, 0.0]], capacity=2)
        >>> plan.bins.tolist(), plan.indptr.tolist()
        ([1, 0, 1, 0], [0, 1, 2, 3, 4])
        >>> plan.info["unserved"]
        0
    """
    _known(affinity, gates)
    scores = score_table(scores)
    n, bins = scores.shape
    if capacity is not None and capacity_factor is not None:
        raise InputError(f"capacity and capacity_factor={capacity_factor!r} both say how much a bin takes; give one")
    if capacity is None:
        factor = checks.number(2.0 if capacity_factor is None else capacity_factor, "capacity_factor")
        capacity = max(1, int(n * factor / bins))
    room = capacities(capacity, bins)
    felt = affinities(scores, affinity)
    if per_item is None:
        rows, columns = _favourites(felt, room)
    else:
        _refuse_too_many(per_item, bins)
        run = _compiled if felt.size > _COMPILED_FROM else _plain
        rows, columns, _asked, _most = run(felt, room, per_item, True)
    kept = felt[rows, columns]
    value, positive = float(kept.sum()), bool((kept >= 0).all())
    best = value
    if per_item is not None or not positive:
        freely = felt[_favourites(felt, room)]
        best = max(value, float(np.maximum(freely, 0).sum()))
    load = np.bincount(columns, minlength=bins)
    exact = positive and best == value
    return Assignment(
        **routes(n, bins, rows, columns, weigh(log_affinity(scores, rows, columns, affinity), rows, gates)),
        capacity=room,
        value=value,
        sense="max",
        bound=best,
        status="optimal" if exact else "approximate" if positive else "heuristic",
        used={"capacity": load.astype(np.float64)},
        budget={"capacity": room.astype(np.float64)},
        info={
            "objective": "chosen_affinity",
            "unserved": n - len(np.unique(rows)),
            "unfilled": int((room - load).sum()),
            **({"guarantee": 0.5} if per_item is not None and positive else {}),
        },
    )


@method(
    "assign",
    traits=("sandwich", "capped-routing", "equivariant"),
    cost="O(n bins) for the choices, O(log capacity) a slot kept, O(bins) for each displaced; memory for the slots",
    exact="capacities exactly; with reroute (and error) no justified envy, and half of the best total for scores >= 0",
    paper="Gale & Shapley 1962, College Admissions and the Stability of Marriage (American Mathematical Monthly 69)",
)
def capped_routing(
    scores: Any,
    *,
    capacity: Any,
    per_item: int = 1,
    overflow: str = "error",
    candidates: int | None = None,
    affinity: str = "none",
    gates: str = "ones",
) -> Assignment:
    """Send each item to its best-scoring bins, at most `capacity` items to a bin.

    What happens where more items choose a bin than it holds:

    - "error": refuse, naming the bin and by how much. The plan, if there is one, gives every item its first choices.
    - "drop": the bin keeps its highest scores; whoever it refuses loses that slot (token dropping).
    - "reroute": whoever it refuses asks for the next best bin, and may displace a lower score there (deferred
    acceptance).

    For a router at inference (capacity-aware inference: capacity = gamma x n x per_item / bins) give its logits with
    `affinity="softmax"`, so that bins rank by gate score, and `gates="raw"` or "share".

    Args:
        scores: (n, bins), higher is better; -inf where an item does not list a bin.
        capacity: how many items a bin holds: one number for all, or (bins,).
        per_item: how many different bins an item goes to.
        overflow: "error", "drop" or "reroute".
        candidates: how many of its best bins an item may ask for under "reroute"; all that it lists where not given.
        affinity: what items and bins rank by: the scores ("none"), their "softmax" over the bins that the item lists,
            or their "sigmoid".
        gates: the weight of each slot: "ones", the "raw" affinity, or its "share" among the item's slots.

    Returns:
        An `Assignment`: `bins` of item i at `indptr[i]:indptr[i + 1]`, ascending. `value` is the sum of the scores
        (affinities) of all slots kept; `bound` is what the items' best listed bins would sum to without capacities
        (negative scores left out), and no plan exceeds it. `status` is "optimal" where the value meets it,
        "approximate" (at least half of the best possible total) for "reroute" with no negative score kept, else
        "heuristic". `info["unfilled"]` counts the slots that stayed empty.

    Raises:
        InfeasibleError: `overflow="error"` and more slots than room in total, a bin chosen too often, or an item that
            lists fewer than `per_item` bins.
        InputError: scores that are not (n, bins), a capacity that does not fit the bins, per_item above the number of
            bins, candidates below per_item, weights that would not be > 0.

    Cost: one pass over the scores, O(log capacity) for each slot kept or displaced, one row of scores for each
    displacement; memory for the slots of all bins that cannot hold everyone.

    Guarantee: capacities hold exactly. With "reroute" there is no justified envy: if an item lists a bin, is not in it,
    and has a free slot or holds a bin it scores lower, then that bin is full of items that score at least as high in
    it. Equal scores prefer the lowest bin, and in a bin the lowest item. With "drop" that holds of each item's own
    first choices
    only: who lost a slot may still envy any other bin, even one with room.

    References:
        Gale & Shapley 1962. Items and bins rank by the same scores, so the stable plan is unique, and equals the greedy
        plan that takes the highest score of all first: half of the optimum (Avis 1983, Networks 13). Dropping by
        score and asking further bins at inference: He, Cai, Huang & Li 2025, Capacity-Aware Inference (arXiv
        2503.05066), whose experts choose once among each token's candidates, where here refused tokens ask on.

    Examples:
        >>> from kofn.assignment import capped_routing
        >>> scores = [[9.0, 1.0], [8.0, 5.0], [7.0, 6.0]]
        >>> capped_routing(scores, capacity=2, overflow="reroute").labels.tolist()
        [0, 0, 1]
        >>> capped_routing(scores, capacity=2, overflow="drop").labels.tolist()
        [0, 0, -1]
        >>> capped_routing(scores, capacity=3).value
        24.0
    """
    checks.choice(overflow, "overflow", _OVERFLOWS)
    _known(affinity, gates)
    scores = score_table(scores)
    n, bins = scores.shape
    _refuse_too_many(per_item, bins)
    room = capacities(capacity, bins)
    if candidates is not None and checks.count(candidates, "candidates") < per_item:
        raise InputError(f"candidates={candidates} for per_item={per_item}; let an item ask for at least per_item bins")
    if overflow == "error":
        _refuse_shortage(scores, room, per_item)
    table = np.ascontiguousarray(scores) if affinity == "none" else affinities(scores, affinity)
    if candidates is not None and candidates < bins:
        able = best_bins(scores, candidates)
        every, table = table, np.full_like(table, -np.inf)
        places = np.nonzero(able >= 0)
        may = places[0], able[places]
        table[may] = every[may]
    run = _compiled if table.size > _COMPILED_FROM else _plain
    rows, columns, asked, most = run(table, room, per_item, overflow == "reroute")
    if overflow == "error" and (asked > room).any():
        over = int((asked - room).argmax())
        raise InfeasibleError(
            f"bin {over} is a first choice of {asked[over]} items, over its capacity of {room[over]} by "
            f"{asked[over] - room[over]}; raise it, or use overflow='reroute' (next best bin) or 'drop'"
        )
    kept = table[rows, columns].astype(np.float64)
    value = float(kept.sum())
    positive = bool((kept >= 0).all())
    full = positive and bool((asked <= room).all())
    weights = None if gates == "ones" else weigh(log_affinity(scores, rows, columns, affinity), rows, gates)
    return Assignment(
        **routes(n, bins, rows, columns, weights),
        capacity=room,
        value=value,
        sense="max",
        bound=value if full else max(most, value),
        status="optimal" if full else "approximate" if overflow == "reroute" and positive else "heuristic",
        used={"capacity": np.bincount(columns, minlength=bins).astype(np.float64)},
        budget={"capacity": room.astype(np.float64)},
        info={
            "objective": "routed_score" if affinity == "none" else "routed_affinity",
            "unfilled": n * per_item - len(kept),
        },
    )


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    cost="O(n bins) and the exponentials of all scores; the plan is dense, 12 bytes for each score",
    exact="maximises the entropy-regularised total of each bin's mixtures exactly; the bins' margins exactly",
    paper="Antoniak, Krutul et al. 2024, Mixture of Tokens: Continuous MoE through Cross-Example Aggregation (NeurIPS)",
)
def soft_mixing(scores: Any, *, groups: Any = None, temperature: float = 1.0) -> Assignment:
    """Give each bin a mixture of all items instead of a choice among them: softmax over the items, group by group.

    In a mixture of tokens a group is the tokens at one position of several examples; each expert (bin) processes its
    one mixture of the group, and what comes out goes back to the items by the same weights.

    Args:
        scores: (n, bins) controller logits; -inf where an item is to stay out of a bin.
        groups: (n,) label of each item's group; all items are one group where not given.
        temperature: what the scores are divided by. As it falls each mixture becomes its highest item; at 0 it is that
            item alone (the lowest, if several are), and the plan is sparse.

    Returns:
        An `Assignment` of every item to every bin that it lists; `weights` are float64. `value` is the sum over bins
        and groups of what the softmax maximises: sum_i w_i scores_i - temperature x sum_i w_i log w_i, which is
        temperature x log sum_i exp(scores_i / temperature). `info["empty"]` counts mixtures (a bin in a group) that no
        item lists.

    Raises:
        InputError: scores that are not (n, bins), a temperature below 0.

    Cost: one pass over the scores and the exponentials of all of them.

    Guarantee: the margin of the bins holds: each has weight 1 in all from each group that lists it, so that loads are
    equal by construction. That of the items is free: an item may weigh next to nothing in all bins, and no item is
    dropped. A weight that underflows is the smallest positive number.

    References:
        Antoniak, Krutul et al. 2024 (NeurIPS, arXiv 2310.15961), section 3.

    Examples:
        >>> from kofn.assignment import soft_mixing
        >>> plan = soft_mixing([[0.0, 3.0], [0.0, 1.0], [7.0, 7.0]], groups=["a", "a", "b"])
        >>> plan.weights.round(3).tolist(), plan.col_margin.tolist()
        ([0.5, 0.881, 0.5, 0.119, 1.0, 1.0], [2.0, 2.0])
    """
    scores = score_table(scores)
    n, bins = scores.shape
    heat = checks.number(temperature, "temperature")
    table = scores.astype(np.float64)
    listed = table > -np.inf
    _, group = np.unique(np.zeros(n) if groups is None else groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    top = np.maximum.reduceat(table[order], starts, axis=0)
    empty = top == -np.inf
    below = np.where(listed, table - np.where(empty, 0.0, top)[group], -np.inf)
    if heat == 0:
        # The first of the highest, as items stand in their order within each group.
        level = (below == 0)[order]
        seen = np.cumsum(level, axis=0)
        before = (seen - level)[starts]
        weights = np.empty((n, bins))
        weights[order] = level & (seen - before[group[order]] == 1)
        rows, columns = np.nonzero(weights)
        value = float(top[~empty].sum())
    else:
        # A quotient beyond all bounds is that of an item far below the best: its weight is nothing.
        with np.errstate(over="ignore"):
            grown = np.exp(below / heat)
        sums = np.add.reduceat(grown[order], starts, axis=0)
        weights = np.maximum(grown / np.where(empty, 1.0, sums)[group], np.finfo(np.float64).tiny)
        rows, columns = np.nonzero(listed)
        value = float((top[~empty] + heat * np.log(sums[~empty])).sum())
    return Assignment(
        **routes(n, bins, rows, columns, weights[rows, columns]),
        value=value,
        sense="max",
        bound=value,
        status="optimal",
        info={"objective": "mixed_score", "empty": int(empty.sum())},
    )


def score_table(scores: Any) -> NDArray[Any]:
    """The scores, refused where they are not (n, bins)."""
    if scores.ndim != 2:
        raise InputError(f"scores has shape {scores.shape}; give (n, bins), one score for each item and bin")
    table: NDArray[Any] = scores
    return table


def capacities(capacity: Any, bins: int) -> Ints:
    """(bins,) what each bin holds."""
    if not np.isscalar(capacity) and len(capacity) != bins:
        raise InputError(f"capacity has {len(capacity)} values, scores has {bins} bins; give one for each bin")
    return np.broadcast_to(np.asarray(capacity, np.int64), bins).copy()


def best_bins(scores: NDArray[Any], per_item: int) -> NDArray[np.int32]:
    """(n, per_item) the bins of each item's highest scores, best first, ties to the lowest bin; -1 past its last."""
    if scores.size > _COMPILED_FROM:
        from kofn.assignment import _routing_kernels

        out = np.empty((len(scores), per_item), np.int32)
        _routing_kernels.best_bins(np.ascontiguousarray(scores), out)
        return out
    first = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
    return np.where(np.take_along_axis(scores, first, axis=1) > -np.inf, first, -1).astype(np.int32)


def affinities(scores: NDArray[Any], kind: str) -> Floats:
    """(n, bins) in float64: softmax over the bins that an item lists, sigmoid, or the scores; -inf where not listed."""
    out = scores.astype(np.float64)
    if kind == "none":
        return out
    away = out == -np.inf
    logs = -np.logaddexp(0, -out) if kind == "sigmoid" else out - _log_sums(out)[:, None]
    out = np.exp(logs)
    out[away] = -np.inf
    return out


def log_affinity(scores: NDArray[Any], rows: Whole, columns: Whole, kind: str) -> Floats:
    """The logarithms of the affinities of some routes; NaN or -inf where one is not positive."""
    kept = scores[rows, columns].astype(np.float64)
    if kind == "sigmoid":
        return -np.logaddexp(0, -kept)
    if kind == "softmax":
        return kept - _log_sums(scores.astype(np.float64))[rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(kept))


def weigh(logs: Floats, rows: Whole, gates: str) -> NDArray[np.float32]:
    """The weight of each route from the logarithm of its affinity: 1, the affinity, or its share among the item's."""
    if gates == "ones":
        return np.ones(len(logs), np.float32)
    if (bad := ~np.isfinite(logs)).any():
        raise InputError(
            f"gates={gates!r} weighs by scores as they are (affinity='none'), and item {rows[bad][0]} goes to a bin "
            "that it scores 0 or less; use affinity='softmax' or 'sigmoid', or gates='ones'"
        )
    if gates == "share" and len(rows):
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        sizes = np.diff(np.append(starts, len(rows)))
        grown = np.exp(logs - np.repeat(np.maximum.reduceat(logs, starts), sizes))
        weights = grown / np.repeat(np.add.reduceat(grown, starts), sizes)
    else:
        weights = np.exp(logs)
    return np.maximum(weights, np.finfo(np.float32).tiny).astype(np.float32)


def routes(n: int, bins: int, rows: Whole, columns: Whole, weights: NDArray[Any] | None) -> dict[str, Any]:
    """The fields of an `Assignment` that say who goes where; `rows` ascend."""
    return {
        "n": n,
        "indptr": np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64),
        "bins": columns.astype(np.int32),
        "weights": np.ones(len(columns), np.float32) if weights is None else weights,
        "k": bins,
    }


def _log_sums(scores: Floats) -> Floats:
    """(n,) log of the sum of exponentials of each row; 0 where an item lists nothing."""
    top = scores.max(axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    sums = np.exp(scores - top[:, None]).sum(axis=1)
    return np.asarray(top + np.log(np.where(sums > 0, sums, 1.0)))


def _known(affinity: str, gates: str) -> None:
    checks.choice(affinity, "affinity", _AFFINITIES)
    checks.choice(gates, "gates", _GATES)


def _refuse_too_many(per_item: int, bins: int) -> None:
    if per_item > bins:
        raise InputError(f"per_item={per_item} of {bins} bins; ask for per_item <= {bins}")


def _favourites(felt: Floats, room: Ints) -> tuple[Ints, Ints]:
    """Rows and bins of each bin's highest affinities, equal ones to the lowest item."""
    n, bins = felt.shape
    taken = np.zeros((bins, n), bool)
    for mine, column, most in zip(taken, np.ascontiguousarray(felt.T), room.tolist(), strict=True):
        if most >= n:
            mine[:] = True
        elif most:
            cut = np.partition(column, n - most)[n - most]
            mine[:] = column > cut
            mine[np.flatnonzero(column == cut)[: most - int(mine.sum())]] = True
        mine &= column > -np.inf
    rows, columns = np.nonzero(taken.T)
    return rows, columns


def _refuse_shortage(scores: NDArray[Any], room: Ints, per_item: int) -> None:
    """Refuse what no routing can place: too little room in all, or an item that lists too few bins."""
    n, bins = scores.shape
    total = sum(room.tolist())
    if n * per_item > total:
        raise InfeasibleError(
            f"{n} items in {per_item} bins each need {n * per_item} slots, capacity holds {total}: "
            f"{n * per_item - total} too few; raise it to {-(-n * per_item // bins)} a bin, or use overflow='drop'"
        )
    listed = (scores > -np.inf).sum(axis=1)
    if listed.min() < per_item:
        row = int(listed.argmin())
        raise InfeasibleError(
            f"scores at row {row} list {listed[row]} bins (the others are -inf), per_item={per_item}; "
            "use overflow='reroute' or 'drop' to leave such slots empty"
        )


def _compiled(scores: NDArray[Any], room: Ints, per_item: int, reroute: bool) -> tuple[Ints, Ints, Ints, float]:
    """Rows and bins of the slots kept, how many ask first for each bin, and what the first choices sum to."""
    from kofn.assignment import _kernels

    n, bins = scores.shape
    heaped = np.where(room < n, room, 0)
    held = np.full((n, per_item), -1, np.int32)
    asked, most = np.zeros(bins, np.int64), np.zeros(1)
    heaps = np.empty(heaped.sum(), scores.dtype), np.empty(heaped.sum(), np.int32)
    _kernels.defer(scores, room, np.cumsum(heaped) - heaped, reroute, held, asked, *heaps, most)
    held.sort(axis=1)
    rows, slots = np.nonzero(held >= 0)
    return rows, held[rows, slots].astype(np.int64), asked, float(most[0])


def _plain(scores: NDArray[Any], room: Ints, per_item: int, reroute: bool) -> tuple[Ints, Ints, Ints, float]:
    """The same by sorting; as both sides rank by score, the stable plan takes the highest score of all first."""
    n, bins = scores.shape
    first = np.argsort(-scores, axis=1, kind="stable")[:, :per_item]
    rows, columns = np.repeat(np.arange(n), per_item), first.ravel()
    listed = scores[rows, columns] > -np.inf
    rows, columns = rows[listed], columns[listed]
    best = scores[rows, columns]
    asked, most = np.bincount(columns, minlength=bins), float(np.maximum(best, 0).sum(dtype=np.float64))
    if reroute:
        rows, columns = np.nonzero(scores > -np.inf)
        order = np.lexsort((columns, rows, -scores[rows, columns]))
        free, space, kept = [per_item] * n, room.tolist(), []
        for pair in order.tolist():
            i, j = rows[pair], columns[pair]
            if free[i] and space[j]:
                free[i] -= 1
                space[j] -= 1
                kept.append(pair)
    else:
        order = np.lexsort((rows, -best, columns))
        place = np.arange(len(order)) - (np.cumsum(asked) - asked)[columns[order]]
        kept = order[place < room[columns[order]]].tolist()
    rows, columns = rows[kept], columns[kept]
    tidy = np.lexsort((columns, rows))
    return rows[tidy], columns[tidy], asked, most
