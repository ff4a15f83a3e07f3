"""Couplings of two sets of totals: entropic transport over a score matrix, least entropy, least entropy at a rate."""

from __future__ import annotations

import heapq
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.assignment._codes import Code, Merges, bits
from kofn.assignment.routing import score_table
from kofn.checks import InfeasibleError, InputError
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]

# Without a word on it, the regularisation is this share of the range of the scores.
_SOFT = 0.01
# Below this share of the range of the scores the doubles of two potentials cannot tell plans apart.
_FINEST = 1e-9
# What greedy coupling may lie above the least entropy, in bits (Compton et al. 2023).
GREEDY_BITS = math.log2(math.e) / math.e


@method(
    "assign",
    traits=("sandwich",),
    cost="O(n bins) a sweep or a Newton step, some tens of them; memory 80 n bins bytes",
    exact="the soft plan to `tol`, then rounded: margins exactly, value and bound told",
    paper="Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao & Ying 2024, Sinkhorn-Newton-Sparse (ICLR)",
)
def sinkhorn_newton_sparse(
    scores: Any,
    *,
    margins: Any = None,
    time_limit: float | None = None,
    reg: float | None = None,
    tol: float = 1e-9,
    rounded: bool = True,
    sweeps: int = 20,
    newton: bool = True,
    density: float | None = None,
    max_steps: int = 1000,
) -> Assignment:
    """Share items among bins softly: the transport plan of largest score plus `reg` times its entropy.

    For costs give `scores=-costs`. Sinkhorn's scalings climb the concave dual of this problem by coordinates and slow
    down as `reg` falls. After a few of them the dual's Hessian is nearly sparse, since the plan is, and Newton steps
    with a sparse Hessian and conjugate gradients finish in a handful of passes over the table.

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        margins: (row totals (n,), column totals (bins,)), >= 0, of one sum. Without them every item is shared out
            whole, and all bins hold n/bins.
        time_limit: seconds; the plan reached by then is returned, status "stopped".
        reg: the weight of the entropy, in units of the scores. Any positive number works, however small: nothing
            overflows. The plan for less than a billionth of the range of the scores is that for a billionth. Without
            it, a hundredth of the range.
        tol: how far the margins may be off before rounding, in total, as a share of the mass.
        rounded: move what is off, so that the margins hold exactly. Where -inf leaves no room for that the plan is
            left within `tol` (`info["margin_error"]`).
        sweeps: Sinkhorn sweeps before the Newton steps, at each regularisation on the way.
        newton: False for Sinkhorn sweeps alone, at most 1,000 x `max_steps`: what this method is an acceleration of.
        density: the largest share of the plan's entries that enters the Hessian (the paper takes 2/n to 15/n). Without
            it every entry does that could matter at the present error.
        max_steps: the most Newton steps.

    Returns:
        An `Assignment` whose `weights` are the plan, (row by row, entries that underflow to 0 left out: up to
        n x bins of them, 12 bytes each). `value` is sum P scores + reg x H(P), H(P) = -sum P log P; `bound` is the dual
        value, which no plan of these margins exceeds. `u` and `v` are potentials: the plan before rounding is
        exp((scores - u - v) / reg), the lowest v is 0, and a new item with scores s goes to the bins in proportion to
        exp((s - v) / reg), without solving again; they are infinite where a total is 0. `info` has the parts,
        `transport` = sum P scores and `entropy`, and `transport_bound`, which no plan's sum P scores exceeds,
        regularised or not; `sweeps`, `newton_steps`, `conjugate_steps`, `kept` (the largest share of entries in a
        Hessian), `margin_error` (of what is returned) and `solved_to` (before rounding).

    Raises:
        InfeasibleError: an item or bin with a total that lists nothing; items whose bins cannot hold their totals.
        InputError: scores that are not (n, bins), margins of other lengths or sums, an option out of range.

    Cost: O(n bins) a sweep or a step; one exponential of the table a regularisation. Small regularisations are
    approached through larger ones, a factor of four apart. Memory: 80 bytes an entry where the plan is full, less the
    sparser it is.

    Guarantee: with `rounded` both margins hold up to the rounding of float64 sums, and value <= optimum <= bound,
    whatever `tol` is. The dual rises with every sweep and every step.

    References:
        Tang et al. 2024 (arXiv 2401.12253): few sweeps, then Newton with the largest entries of the Hessian. Here the
        rows are eliminated (a Sinkhorn half step), the diagonal is that of the whole plan, which keeps the matrix
        semidefinite, and what is left out shrinks with the error. Scaling of the regularisation and the log domain:
        Schmitzer 2019. Rounding: Altschuler, Weed & Rigollet 2017, algorithm 2.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import sinkhorn_newton_sparse
        >>> plan = sinkhorn_newton_sparse([[3.0, 1.0], [2.0, 1.5], [2.0, 0.0], [1.0, 0.5]], reg=0.1)
        >>> plan.labels.tolist(), plan.row_margin.round(9).tolist(), plan.col_margin.round(9).tolist()
        ([0, 1, 0, 1], [1.0, 1.0, 1.0, 1.0], [2.0, 2.0])
    """
    scores = score_table(scores)
    tol = checks.fraction(tol, "tol", low=1e-14, high=1.0)
    checks.flag(rounded, "rounded")
    checks.flag(newton, "newton")
    if density is not None:
        density = checks.fraction(density, "density")
    table = np.ascontiguousarray(scores, np.float64)
    reg = _regularisation(table, reg)
    r, c = _totals(margins, *table.shape)
    rows, columns = np.flatnonzero(r > 0), np.flatnonzero(c > 0)
    _refuse_unlisted(table, r, c)
    total = math.fsum(r.tolist())
    inner = table if len(rows) == len(r) and len(columns) == len(c) else table[np.ix_(rows, columns)]
    v, plan, off, counts = _solve(
        inner,
        r[rows] / total,
        c[columns] / total,
        max(reg, _FINEST * _range(table)),
        time_limit=time_limit,
        tol=tol,
        sweeps=checks.count(sweeps, "sweeps", least=1),
        density=density,
        newton=newton,
        most=checks.count(max_steps, "max_steps", least=1) * (1 if newton else 1000),
    )
    if off > max(tol, 1e-6):
        _refuse_infeasible(table, r, c)
    plan *= total
    v = v - float(v.min())
    u = _row_potentials(inner, v, r[rows], reg)
    met = off <= tol
    if rounded:
        _round(plan, r[rows], c[columns], inner)
    return _as_plan(table, reg, (r, c), (rows, columns), (u, v), plan, met, off, counts)


def _solve(
    scores: Floats, r: Floats, c: Floats, reg: float, *, time_limit: float | None, **how: Any
) -> tuple[Floats, Floats, float, Any]:
    """The columns' potentials, the plan, how far it is off and the counts; solved with the longer side eliminated."""
    from threadpoolctl import threadpool_limits

    from kofn.assignment import _entropic
    from kofn.engines.control import Control

    c = c / math.fsum(c.tolist()) * math.fsum(r.tolist())
    # Products of the kernel with a vector wait for memory: a second thread adds nothing but another order of the sums.
    with Control(time_limit=time_limit) as control, threadpool_limits(1, "blas"):
        if len(r) >= len(c):
            _, v, plan, off, counts = _entropic.solve(scores, r, c, reg, stopped=control.stopped, **how)
            return v, plan, off, counts
        turned = np.ascontiguousarray(scores.T)
        v, _, plan, off, counts = _entropic.solve(turned, c, r, reg, stopped=control.stopped, **how)
        return v, np.ascontiguousarray(plan.T), off, counts


def _row_potentials(scores: Floats, v: Floats, r: Floats, reg: float) -> Floats:
    """The rows' best potentials for these of the columns, at which their totals are exact."""
    table = scores - v
    top = table.max(axis=1)
    table -= top[:, None]
    with np.errstate(over="ignore"):
        table /= reg
    np.exp(table, out=table)
    return np.asarray(top + reg * np.log(table.sum(axis=1) / r))


def _range(table: Floats) -> float:
    listed = table[table > -np.inf]
    return float(np.ptp(listed)) if len(listed) else 0.0


def _regularisation(table: Floats, reg: Any) -> float:
    if reg is not None:
        if not checks.is_number(reg) or not math.isfinite(reg) or reg <= 0:
            raise InputError(f"reg={reg!r}: give a positive number, in units of the scores")
        return float(reg)
    return _SOFT * _range(table) or 1.0


def _totals(margins: Any, n: int, bins: int) -> tuple[Floats, Floats]:
    """The totals of both sides, the columns' scaled to the last digit of the rows' sum."""
    if margins is None:
        return np.ones(n), np.full(bins, n / bins)
    r, c = margins
    for side, totals, count in (("row", r, n), ("column", c, bins)):
        if len(totals) != count:
            raise InputError(
                f"margins has {len(totals)} {side} totals, scores has {count} {side}s; give one for each {side}"
            )
    return r, c * (math.fsum(r.tolist()) / math.fsum(c.tolist()))


def _refuse_unlisted(table: Floats, r: Floats, c: Floats) -> None:
    listed = table > -np.inf
    if listed.all():
        return
    listed &= (r > 0)[:, None] & (c > 0)
    for side, totals, empty in (("row", r, ~listed.any(axis=1)), ("column", c, ~listed.any(axis=0))):
        stuck = np.flatnonzero(empty & (totals > 0))
        if len(stuck):
            raise InfeasibleError(
                f"scores at {side} {stuck[0]} are all -inf where there is anything to share ({len(stuck)} such "
                f"{side}s), and its total is {totals[stuck[0]]:g}; list an entry, or set the total to 0"
            )


def _refuse_infeasible(table: Floats, r: Floats, c: Floats) -> None:
    """Where a solve failed for want of room: name the rows whose bins cannot hold them."""
    if (table > -np.inf).all():
        return
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, vstack

    rows, columns = np.nonzero(table > -np.inf)
    entry, one = np.arange(len(rows)), np.ones(len(rows))
    limits: Any = vstack(
        [coo_array((one, (rows, entry)), (len(r), len(rows))), coo_array((one, (columns, entry)), (len(c), len(rows)))]
    )
    found = linprog(-one, A_ub=limits.tocsr(), b_ub=np.concatenate([r, c]), method="highs")
    short = math.fsum(r.tolist()) + float(found.fun or 0.0)
    if short <= 1e-7 * math.fsum(r.tolist()):
        return
    # Rows whose total has no price are those with too much of it.
    inside = np.flatnonzero((found.ineqlin.marginals[: len(r)] > -0.5) & (r > 0))
    bins = np.flatnonzero((table[inside] > -np.inf).any(axis=0))
    names = ", ".join(map(str, inside[:5])) + (", ..." if len(inside) > 5 else "")
    raise InfeasibleError(
        f"margins: rows {names} have {r[inside].sum():g} in total, and the bins that they list hold "
        f"{c[bins].sum():g}: {short:g} too little; list more bins, or change the totals"
    )


def _round(plan: Floats, r: Floats, c: Floats, table: Floats) -> None:
    """Shrink what is above its total, then place what is missing: both margins exactly, for twice what was off."""
    plan *= np.minimum(1.0, r / plan.sum(axis=1))[:, None]
    plan *= np.minimum(1.0, c / np.maximum(plan.sum(axis=0), np.finfo(np.float64).tiny))
    want, room = np.maximum(r - plan.sum(axis=1), 0.0), np.maximum(c - plan.sum(axis=0), 0.0)
    for i in np.flatnonzero(want > 0):
        free = np.where(table[i] > -np.inf, room, 0.0)
        given = np.clip(want[i] - (np.cumsum(free) - free), 0.0, free)
        plan[i] += given
        room -= given


def _as_plan(
    table: Floats,
    reg: float,
    margins: tuple[Floats, Floats],
    where: tuple[NDArray[np.int64], NDArray[np.int64]],
    potentials: tuple[Floats, Floats],
    plan: Floats,
    met: bool,
    off: float,
    counts: Any,
) -> Assignment:
    n, bins = table.shape
    (r, c), (rows, columns) = margins, where
    u, v = np.full(n, np.inf), np.full(bins, np.inf)
    u[rows], v[columns] = potentials
    here = plan > 0
    place, column = np.nonzero(here)
    weights = plan[here]
    indptr = np.searchsorted(rows[place], np.arange(n + 1)).astype(np.int64)
    scored = weights * table[rows[place], columns[column]]
    spread = weights * np.log(weights)
    transport, entropy = float(scored.sum()), -float(spread.sum())
    value = transport + reg * entropy
    # The mass of the plan at these potentials is that of the rows, which are exact there.
    dual = float(r[rows] @ u[rows] + c[columns] @ v[columns])
    slack = 1e-9 * float(np.abs(scored).sum() + reg * np.abs(spread).sum())
    exact = met and abs(dual - value) <= slack
    best = (table - v).max(axis=1)
    error = np.abs(np.bincount(rows[place], weights, n) - r).sum()
    error += np.abs(np.bincount(columns[column], weights, bins) - c).sum()
    return Assignment(
        n=n,
        k=bins,
        indptr=indptr,
        bins=columns[column].astype(np.int32),
        weights=weights,
        value=value,
        sense="max",
        bound=value if exact else max(dual, value),
        status="optimal" if exact else "approximate" if met else "stopped",
        u=u,
        v=v,
        info={
            "objective": "entropic_transport",
            "reg": reg,
            "transport": transport,
            "entropy": entropy,
            "transport_bound": float(r[rows] @ best[rows] + c[columns] @ v[columns]),
            "margin_error": float(error),
            "solved_to": off,
            "sweeps": counts.sweeps,
            "newton_steps": counts.newton,
            "conjugate_steps": counts.conjugate,
            "kept": max(counts.kept, default=0.0),
            "dual_falls": counts.falls,
        },
    )


class Bottleneck(NamedTuple):
    """A coupling through a code: `encoder` (symbols to codes), `decoder` (codes to symbols) and both in one."""

    coupling: Assignment
    encoder: Assignment
    decoder: Assignment


def minimum_entropy_coupling(margins: Any) -> Assignment:
    """Couple two distributions with as little joint entropy as greedy pairing reaches.

    The largest mass left on one side is paired with the largest left on the other, again and again. As the entropies of
    the sides are given, this is also a coupling of large mutual information. The least is NP-hard to find.

    Args:
        margins: (row totals (n,), column totals (bins,)), >= 0, of one sum; entropies are of their shares.

    Returns:
        An `Assignment` of at most n + bins - 1 pairs, `weights` in the units of the totals. `value` is the joint
        entropy in bits; `bound` the entropy of the margins' greatest lower bound by majorisation, which no coupling is
        below. `info`: `mutual_information` (bits) and `within_bits` (0.53), what `value` may lie above the least.

    Raises:
        InputError: margins that are not two vectors >= 0 of one sum.

    Cost: O((n + bins) log(n + bins)).

    Guarantee: both margins up to the rounding of float64 differences; within log2(e)/e = 0.53 bits of the least.

    References:
        Kocaoglu, Dimakis, Vishwanath & Hassibi 2017 (the greedy rule); Cicalese, Gargano & Vaccaro 2019 (the bound);
        Compton, Katz, Qi, Greenewald & Kocaoglu 2023 (0.53 bits). The decoder of Ebrahimi, Chen & Khisti 2024.

    Examples:
        >>> from kofn.assignment import minimum_entropy_coupling
        >>> plan = minimum_entropy_coupling(([0.5, 0.5], [0.5, 0.25, 0.25]))
        >>> plan.value, plan.bound, plan.status
        (1.5, 1.5, 'optimal')
    """
    p, q = checks.margins(margins)
    p, q = _totals((p, q), len(p), len(q))
    left = [(-mass, i) for i, mass in enumerate(p.tolist()) if mass > 0]
    right = [(-mass, j) for j, mass in enumerate(q.tolist()) if mass > 0]
    heapq.heapify(left)
    heapq.heapify(right)
    joint: dict[tuple[int, int], float] = {}
    while left and right:
        (a, i), (b, j) = heapq.heappop(left), heapq.heappop(right)
        joint[i, j] = joint.get((i, j), 0.0) + min(-a, -b)
        if a < b:
            heapq.heappush(left, (a - b, i))
        elif b < a:
            heapq.heappush(right, (b - a, j))
    value = bits(joint.values())
    bound = bits(_majorised(p, q))
    exact = value - bound <= 1e-12 * max(value, 1.0)
    shared = max(0.0, bits(p.tolist()) + bits(q.tolist()) - value)
    return _joint(
        joint,
        len(p),
        len(q),
        name="minimum_entropy_coupling",
        value=value,
        sense="min",
        bound=value if exact else bound,
        status="optimal" if exact else "approximate",
        info={"objective": "joint_entropy", "mutual_information": shared, "within_bits": GREEDY_BITS, "exact": exact},
    )


def bottleneck_encoder(weights: Any, rate: float, *, mixed: bool = True) -> Assignment:
    """Give symbols codes of entropy at most `rate` bits that tell as much of the symbols as greedy merging reaches.

    Under a cap on H(T) the information I(X;T) is at most `rate`, and equals it only for a function of the symbol whose
    entropy is just that. So symbols are merged one pair after the other: the least into the greatest (and at each
    stage, instead, the two least), the two greatest, or the two least. Of all maps on these ways the one of largest
    entropy within the rate is kept. What is left of the rate is used by moving part of one symbol to another code, by
    the move that is best near a function.

    Args:
        weights: (n,) masses of the symbols, >= 0; entropies are of their shares.
        rate: the most entropy of the codes, in bits, >= 0.
        mixed: use up the rest of the rate by a code that is drawn at random for one symbol; False for functions only.

    Returns:
        An `Assignment` of symbols to codes (`weights`: the joint masses). `value` is I(X;T) in bits, `bound` the
        smaller of the rate and H(X); `info`: `rate` (H(T), within what was asked), `within_bits` (what `value` may lie
        below the best), `function` (whether no symbol is split).

    Raises:
        InputError: weights that are negative or all zero, a rate that is negative.

    Cost: O(n log n) for the entropies of 4 n maps; O(n) for each map that is made and each step of a move.

    Guarantee: H(T) <= rate exactly (up to rounding); I(X;T) within h(p2) <= 1 bits of the best, h the binary entropy
    and p2 the second largest share, since the last merge costs h(p2) and the ones before it less.

    References:
        Ebrahimi, Chen & Khisti 2024, Minimum Entropy Coupling with Bottleneck (NeurIPS, arXiv 2410.21666): greedy
        merges, theorem 2 (the guarantee) and theorem 3 (the moves near a function, taken as far as the rate asks).

    Examples:
        >>> from kofn.assignment import bottleneck_encoder
        >>> plan = bottleneck_encoder([0.25, 0.25, 0.25, 0.25], 0.9, mixed=False)
        >>> round(plan.value, 3), plan.labels.tolist()
        (0.811, [0, 1, 0, 0])
    """
    checks.flag(mixed, "mixed")
    masses = checks.weights(weights).astype(np.float64)
    rate = float(checks.number(rate, "rate"))
    order = np.argsort(-masses, kind="stable")
    order = order[masses[order] > 0]
    total = math.fsum(masses.tolist())
    p = masses[order] / total
    merges = Merges.of(p)
    within = merges.entropies <= rate + 1e-12
    fullest = int(np.where(within, merges.entropies, -1.0).argmax())
    best = Code(p, merges.codes(fullest))
    if mixed and rate - best.rate > 1e-12:
        above = np.flatnonzero(~within & np.isfinite(merges.entropies))
        near = [Code(p, merges.codes(fullest)).raised(rate)]
        near += [Code(p, merges.codes(int(i))).lowered(rate) for i in above[merges.entropies[above].argsort()][:3]]
        best = max([best, *near], key=lambda code: code.information)
    bound = min(rate, bits(p.tolist()))
    value = min(best.information, bound)
    exact = bound - value <= 1e-12
    second = float(p[1]) if len(p) > 1 else 0.0
    return _joint(
        {(int(order[i]), t): mass * total for (i, t), mass in best.cells.items()},
        len(masses),
        best.codes,
        name="bottleneck_encoder",
        options={"rate": rate, "mixed": mixed},
        value=value,
        sense="max",
        bound=value if exact else bound,
        status="optimal" if exact else "approximate",
        info={
            "objective": "mutual_information",
            "rate": best.rate,
            "within_bits": bits([second, 1 - second]),
            "function": len(best.cells) == len(p),
            "exact": exact,
        },
    )


def bottleneck_coupling(margins: Any, rate: float, *, mixed: bool = True) -> Bottleneck:
    """Couple X with Y through a code of at most `rate` bits: lossy compression whose output has a law of its own.

    The encoder (`bottleneck_encoder`) makes the code T tell much of X, the decoder (`minimum_entropy_coupling`) makes Y
    tell much of T. Since I(X;Y) >= I(X;T) + I(T;Y) - H(T), both together are good where both are.

    Args:
        margins: (totals of X (n,), totals of Y (bins,)), >= 0, of one sum.
        rate: the most entropy of the code, in bits.
        mixed: as for `bottleneck_encoder`.

    Returns:
        A `Bottleneck`: `coupling` of X with Y, whose `value` is I(X;Y) in bits and whose `bound` is the smaller of the
        rate and of what no coupling of these margins exceeds; `encoder` and `decoder`, which make it.

    Raises:
        InputError: as for the two parts.

    Cost: that of the parts, and O(n x bins) where the code mixes everything.

    Guarantee: both margins hold up to the rounding of float64 products. At a rate of H(X) or more this is
    `minimum_entropy_coupling`. It is not monotone in the rate: a code of more bits may suit Y less.

    References:
        Ebrahimi, Chen & Khisti 2024, Minimum Entropy Coupling with Bottleneck (NeurIPS, arXiv 2410.21666), lemma 1.

    Examples:
        >>> from kofn.assignment import bottleneck_coupling
        >>> made = bottleneck_coupling(([0.5, 0.25, 0.25], [0.5, 0.5]), 1.0)
        >>> made.coupling.value, made.encoder.value, made.decoder.value
        (1.0, 1.0, 1.0)
    """
    from scipy.sparse import csr_array

    p, q = checks.margins(margins)
    p, q = _totals((p, q), len(p), len(q))
    encoder = bottleneck_encoder(p, rate, mixed=mixed)
    decoder = minimum_entropy_coupling((encoder.col_margin, q))
    shares = decoder.weights / np.repeat(decoder.row_margin, np.diff(decoder.indptr))
    first = csr_array((encoder.weights, encoder.bins, encoder.indptr), shape=(len(p), encoder.k))
    both = (first @ csr_array((shares, decoder.bins, decoder.indptr), shape=(encoder.k, len(q)))).tocoo()
    cells = zip(both.row.tolist(), both.col.tolist(), both.data.tolist(), strict=True)
    joint = {(i, j): mass for i, j, mass in cells if mass > 0}
    sides = bits(p.tolist()) + bits(q.tolist())
    bound = max(0.0, min(float(rate), encoder.value, sides - bits(_majorised(p, q))))
    value = min(bound, max(0.0, sides - bits(joint.values())))
    exact = min(float(rate), bound) - value <= 1e-12 and encoder.status == "optimal"
    bound = value if exact else min(float(rate), sides - bits(_majorised(p, q)))
    coupling = _joint(
        joint,
        len(p),
        len(q),
        name="bottleneck_coupling",
        options={"rate": float(rate), "mixed": mixed},
        value=value,
        sense="max",
        bound=max(bound, value),
        status="optimal" if exact else "approximate",
        info={"objective": "mutual_information", "rate": encoder.info["rate"], "exact": exact},
    )
    return Bottleneck(coupling, encoder, decoder)


def _joint(cells: dict[tuple[int, int], float], n: int, k: int, *, name: str, **fields: Any) -> Assignment:
    """A plan of these masses, row by row."""
    pairs = sorted(cells)
    rows = np.array([i for i, _ in pairs], np.int64)
    return Assignment(
        n=n,
        k=k,
        indptr=np.searchsorted(rows, np.arange(n + 1)).astype(np.int64),
        bins=np.array([j for _, j in pairs], np.int32),
        weights=np.array([cells[pair] for pair in pairs], np.float64),
        method=name,
        **fields,
    )


def _majorised(p: Floats, q: Floats) -> list[float]:
    """The greatest distribution that both majorise: the differences of the smaller of the partial sums."""
    size = max(len(p), len(q))
    sums = [np.cumsum(np.pad(np.sort(side)[::-1], (0, size - len(side)))) for side in (p, q)]
    return np.maximum(np.diff(np.minimum(*sums), prepend=0.0), 0.0).tolist()
