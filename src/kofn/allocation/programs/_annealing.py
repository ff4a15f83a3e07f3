"""Simulated annealing of binary quadratics: bits flip one after another while the temperature falls."""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Bits, Floats
from kofn.core.checks import InputError
from kofn.core.compiled import OUTER
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["anneal_qubo"]

# An uphill flip of the largest size has this chance at first, one of the smallest size this chance in the end.
_HOT, _COLD = math.log(2), math.log(100)


@helper
def anneal_qubo(
    c: ArrayLike, Q: Any = None, *, sweeps: int = 100, reads: int = 10, seed: int = 0, start: ArrayLike | None = None
) -> Allocation:
    """Minimise c @ x + x @ Q @ x over zeros and ones by simulated annealing, the best of several runs.

    Args:
        c: (n,) linear costs.
        Q: (n, n) quadratic costs, default none; x @ Q @ x counts each pair twice where Q is symmetric.
        sweeps: tries of each bit in a run.
        reads: runs, each from bits drawn at random.
        seed: whole number.
        start: (n,) bits that all runs begin with, in place of drawn ones.

    Returns:
        An `Allocation`: `amounts` the best bits, `value` their cost. `info` has "samples" (reads, n) and "energies"
        (reads,) of all runs.

    Raises:
        InputError: shapes that do not fit, numbers that are not finite.

    Cost: O(reads sweeps n) tries, and O(n) for each flip.

    Guarantee: none.

    References:
        Kirkpatrick, Gelatt & Vecchi 1983, "Optimization by Simulated Annealing", Science 220.

    Examples:
        >>> from kofn.allocation import anneal_qubo
        >>> plan = anneal_qubo([-1.0, -1.0, -1.0], [[0, 3, 0], [0, 0, 0], [0, 0, 0]])
        >>> plan.value, int(plan.amounts[2])
        (-2.0, 1)
    """
    linear, pairs = quadratic(c, Q)
    bits = None if start is None else _bits(start, len(linear))
    rng = np.random.default_rng(checks.entropy(seed))
    samples, energies = annealed(linear, pairs, checks.count(sweeps, "sweeps"), checks.count(reads, "reads"), rng, bits)
    best = samples[int(energies.argmin())]
    return Allocation(
        n=len(linear),
        amounts=best.astype(np.int64),
        values=linear * best + (pairs @ best) * best,
        value=float(energies.min()),
        sense="min",
        status="heuristic",
        method="anneal_qubo",
        info={"samples": samples, "energies": energies},
    )


def quadratic(c: ArrayLike, Q: Any) -> tuple[Floats, Floats]:
    """The costs with what Q has on its diagonal, and a symmetric Q with none, such that c @ x + x @ Q @ x is as before.

    Raises:
        InputError: shapes that do not fit.
    """
    linear = checks.vector(c, "c").astype(np.float64)
    n = len(linear)
    if Q is None:
        return linear, np.zeros((n, n))
    table = checks.matrix(Q, "Q").astype(np.float64)
    if table.shape != (n, n):
        raise InputError(f"Q has shape {table.shape}, c has {n} values; give ({n}, {n})")
    pairs = (table + table.T) / 2
    linear = linear + pairs.diagonal()
    np.fill_diagonal(pairs, 0.0)
    return linear, pairs


def _bits(start: ArrayLike, n: int) -> Bits:
    bits = checks.vector(start, "start")
    checks.same_length(n, "c", "start", len(bits))
    if not np.isin(bits, (0, 1)).all():
        raise InputError(f"start at row {int((~np.isin(bits, (0, 1))).argmax())} is no bit; give zeros and ones")
    return bits.astype(np.int8)


def annealed(
    linear: Floats, pairs: Floats, sweeps: int, reads: int, rng: np.random.Generator, start: Bits | None = None
) -> tuple[Bits, Floats]:
    """(reads, n) the bits of each run, and (reads,) what they cost; `pairs` symmetric without a diagonal."""
    n = len(linear)
    pairs = np.ascontiguousarray(pairs)
    largest = float((np.abs(linear) + 2 * np.abs(pairs).sum(axis=1)).max(initial=0.0))
    sizes = np.concatenate([np.abs(linear), np.abs(pairs).ravel()])
    smallest = float(sizes[sizes > 0].min(initial=largest))
    inverse = np.geomspace(_HOT / largest, _COLD / smallest, sweeps) if largest else np.ones(sweeps)
    samples = np.empty((reads, n), np.int8)
    for read in range(reads):
        samples[read] = rng.integers(0, 2, n) if start is None else start
        # A flip uphill by d is taken where d is below minus the log of a uniform draw, over the inverse temperature.
        allowed = rng.exponential(size=(sweeps, n)) / inverse[:, None]
        _sweep(linear, pairs, allowed, samples[read])
    energies = samples @ linear + np.einsum("ri,ij,rj->r", samples, pairs, samples, optimize=True)
    return samples, np.asarray(energies, np.float64)


@nb.njit([nb.void(nb.float64[::1], nb.float64[:, ::1], nb.float64[:, ::1], nb.int8[::1])], **OUTER)
def _sweep(linear: Any, pairs: Any, allowed: Any, bits: Any) -> None:
    """Try every bit in turn, sweep after sweep, in place."""
    n = len(linear)
    field = linear.copy()
    for i in range(n):
        if bits[i]:
            for j in range(n):
                field[j] += 2 * pairs[i, j]
    for sweep in range(len(allowed)):
        for i in range(n):
            rise = -field[i] if bits[i] else field[i]
            if rise <= 0 or rise < allowed[sweep, i]:
                change = -2.0 if bits[i] else 2.0
                bits[i] = 1 - bits[i]
                for j in range(n):
                    field[j] += change * pairs[i, j]
