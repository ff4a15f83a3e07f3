"""A coupling through a code: the `encoder`, the `decoder` and their composition `coupling`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kofn.assignment.transport._codes import Code, Merges, bits
from kofn.assignment.transport._joint import joint_plan, majorised, margin_totals
from kofn.assignment.transport._minimum_entropy_coupling import minimum_entropy_coupling
from kofn.core import checks
from kofn.core.helpers import helper
from kofn.core.plans import Assignment

__all__ = ["bottleneck_coupling", "bottleneck_encoder"]


class Bottleneck(NamedTuple):
    """A coupling through a code: the `encoder`, the `decoder` and their composition `coupling`."""

    coupling: Assignment
    encoder: Assignment
    decoder: Assignment


@helper
def bottleneck_encoder(weights: Any, rate: float, *, mixed: bool = True) -> Assignment:
    """Information-bottleneck encoder: a code of entropy at most `rate` bits with high I(X;T), by greedy merging.

    Under a cap on H(T) the information I(X;T) is at most `rate`, and equals it only for a function of the symbol whose
    entropy is just that. So symbols are merged pair by pair in several orders: the least into the greatest (and at each
    stage, instead, the two least), the two greatest, or the two least. Of all these maps, the one of largest entropy
    within the rate is kept. The remaining rate is used by moving part of one symbol's mass to another code, by the move
    that is best near a function.

    Args:
        weights: (n,) masses of the symbols, >= 0; entropies are of their shares.
        rate: the most entropy of the codes, in bits, >= 0.
        mixed: use the remaining rate by randomising the code of one symbol; False gives deterministic codes only.

    Returns:
        An `Assignment` of symbols to codes (`weights`: the joint masses). `value` is I(X;T) in bits, `bound` the
        smaller of the rate and H(X); `info`: `rate` (H(T), at most the argument), `within_bits` (how far `value` may be
        below the optimum), `function` (whether no symbol is split).

    Raises:
        InputError: weights that are negative or all zero, a rate that is negative.

    Cost: O(n log n) for the entropies of 4 n maps; O(n) for each map that is built and each step of a move.

    Guarantee: H(T) <= rate exactly (up to rounding); I(X;T) within h(p2) <= 1 bits of the optimum, h the binary entropy
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
    return joint_plan(
        {(int(order[i]), t): mass * total for (i, t), mass in best.cells.items()},
        len(masses),
        best.codes,
        name="bottleneck_encoder",
        options={"rate": rate, "mixed": mixed},
        value=value,
        sense="max",
        bound=value if exact else bound,
        status="optimal" if exact else "approximate",
        objective="mutual_information",
        info={
            "rate": best.rate,
            "within_bits": bits([second, 1 - second]),
            "function": len(best.cells) == len(p),
            "exact": exact,
        },
    )


@helper
def bottleneck_coupling(margins: Any, rate: float, *, mixed: bool = True) -> Bottleneck:
    """Couple X with Y through a code of at most `rate` bits: lossy compression with a prescribed output distribution.

    The encoder (`bottleneck_encoder`) makes I(X;T) large, the decoder (`minimum_entropy_coupling`) makes I(T;Y) large;
    I(X;Y) >= I(X;T) + I(T;Y) - H(T), so their composition is good where both are.

    Args:
        margins: (totals of X (n,), totals of Y (bins,)), >= 0, of one sum.
        rate: the most entropy of the code, in bits.
        mixed: as for `bottleneck_encoder`.

    Returns:
        A `Bottleneck`: `coupling` of X with Y, whose `value` is I(X;Y) in bits and whose `bound` is the smaller of the
        rate and the bound over all couplings of these margins; `encoder` and `decoder`, which compose it.

    Raises:
        InputError: as for the two parts.

    Cost: that of the parts, and O(n x bins) where the code mixes all symbols.

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
    p, q = margin_totals((p, q), len(p), len(q))
    encoder = bottleneck_encoder(p, rate, mixed=mixed)
    decoder = minimum_entropy_coupling((encoder.col_margin, q))
    shares = decoder.weights / np.repeat(decoder.row_margin, np.diff(decoder.indptr))
    first = csr_array((encoder.weights, encoder.bins, encoder.indptr), shape=(len(p), encoder.k))
    both = (first @ csr_array((shares, decoder.bins, decoder.indptr), shape=(encoder.k, len(q)))).tocoo()
    cells = zip(both.row.tolist(), both.col.tolist(), both.data.tolist(), strict=True)
    joint = {(i, j): mass for i, j, mass in cells if mass > 0}
    sides = bits(p.tolist()) + bits(q.tolist())
    bound = max(0.0, min(float(rate), encoder.value, sides - bits(majorised(p, q))))
    value = min(bound, max(0.0, sides - bits(joint.values())))
    exact = min(float(rate), bound) - value <= 1e-12 and encoder.status == "optimal"
    bound = value if exact else min(float(rate), sides - bits(majorised(p, q)))
    coupling = joint_plan(
        joint,
        len(p),
        len(q),
        name="bottleneck_coupling",
        options={"rate": float(rate), "mixed": mixed},
        value=value,
        sense="max",
        bound=max(bound, value),
        status="optimal" if exact else "approximate",
        objective="mutual_information",
        info={"rate": encoder.info["rate"], "exact": exact},
    )
    return Bottleneck(coupling, encoder, decoder)
