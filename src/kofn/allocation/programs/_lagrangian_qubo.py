"""Binary quadratics under linear limits, with the limits priced outside rather than turned into slack bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.programs._annealing import annealed, quadratic
from kofn.allocation.programs._mixed_integer import program
from kofn.core import checks
from kofn.core.arrays import Bits, Floats
from kofn.core.checks import FailureError, InputError
from kofn.core.helpers import helper
from kofn.core.highs import linprog
from kofn.core.integer_programs import cost_unit
from kofn.core.plans import Allocation
from kofn.core.runtime import Control
from kofn.core.words import Limits

__all__ = ["lagrangian_qubo"]

_UPDATES = ("dual_ascent", "bundle", "augmented")
# A limit is kept to this share of the size of its terms, and a bound is met to this share of the value.
_FEASIBLE, _ROUNDING = 1e-9, 1e-9
# Polyak's step is halved where the bound has not risen for so many rounds.
_PATIENCE = 5
# Weight of a squared excess, as a share of the costs, and its growth where the excess does not shrink.
_WEIGHT, _GROWTH, _SHRINKS = 0.1, 1.5, 0.5


@helper
def lagrangian_qubo(
    c: ArrayLike,
    A: Any,
    *,
    Q: Any = None,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    update: Literal["dual_ascent", "bundle", "augmented"] = "bundle",
    iterations: int = 30,
    sweeps: int = 100,
    reads: int = 5,
    repair: bool = True,
    seed: int = 0,
    **limits: Unpack[Limits],
) -> Allocation:
    """Minimise c @ x + x @ Q @ x over zeros and ones with low <= A @ x <= high, without a bit of slack.

    A limit as an equation takes log2 of its size in slack bits. Here each limit has a price instead: what is minimised
    round after round is a quadratic of the n bits alone, by simulated annealing or whatever else solves such
    quadratics, and the prices move outside of it, by how far its bits are over the limits.

    Args:
        c: (n,) costs; for a maximum their negatives.
        A: (rows, n) dense or SciPy-sparse; (n,) for one row.
        Q: (n, n) costs of pairs, default none.
        low: least of each row, a number or (rows,); default no limit.
        high: most of each row, likewise.
        update: how prices move. "dual_ascent" steps along the excess (Polyak's length); "bundle" maximises a model of
            the bound from all bits seen, near the best prices; "augmented" adds the squared excess of the rows that are
            over their limits, which n bits hold too, and raises prices by the excess.
        iterations: rounds of prices.
        sweeps: tries of each bit in a run of the annealing.
        reads: runs a round.
        repair: mends bits that are over a limit by flips, and adds what still fits.
        seed: whole number.
        limits: `time_limit` in seconds and `progress`.

    Returns:
        An `Allocation`: `amounts` the best bits that keep all limits, `value` their cost, `bound` what none are below:
        the bound of the dual where Q is None, a weaker one with Q. `prices` of the rows are those of the bound. `info`
        has "variables", "bounds" (each round's), "values" (the best so far), "feasible_share" of all bits that were
        drawn, and "oracle_calls", the runs.

    Raises:
        FailureError: no bits that keep all limits were seen.
        InputError: shapes that do not fit; limits that no bits can keep.

    Cost: `iterations` x `reads` runs of O(sweeps n), or O(sweeps n^2) with many flips.

    Guarantee: all limits are kept to 1e-9 of their terms; the bound is below the optimum at any prices, of which it
    takes the best. Status "optimal" where value meets bound, else "heuristic".

    References:
        Sharma & Lau 2025, "Cutting Slack: Quantum Optimization with Slack-Free Methods for Combinatorial Benchmarks",
        arXiv 2507.12159.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import lagrangian_qubo
        >>> worth, weight = np.array([6.0, 5.0, 4.0, 1.0]), np.array([[5, 4, 3, 1]])
        >>> plan = lagrangian_qubo(-worth, weight, high=8)
        >>> plan.amounts.tolist(), plan.value, plan.bound <= plan.value
        ([1, 0, 1, 0], -10.0, True)
    """
    given, given_pairs = quadratic(c, Q)
    # All that follows is in this unit, whose powers of 2 round nothing.
    unit = cost_unit(max(float(np.abs(part).max(initial=0.0)) for part in (given, given_pairs)))
    linear, pairs = given / unit, given_pairs / unit
    model = program(linear, A, low, high, (0, 1), 1)
    rows = _Rows.of(model.A, model.low, model.high)
    move = _MOVES[checks.choice(update, "update", _UPDATES)]
    rounds = checks.count(iterations, "iterations")
    counts: dict[str, Any] = {"sweeps": checks.count(sweeps, "sweeps"), "reads": checks.count(reads, "reads")}
    rng = np.random.default_rng(checks.entropy(seed))
    search = _Search(linear, pairs, rows, checks.flag(repair, "repair"))
    state = _Prices(np.zeros(len(rows.limit)), np.zeros(len(rows.limit)), _weight(linear, pairs))
    with Control(**limits) as control:
        for _ in range(rounds):
            if control.stopped() or search.met:
                break
            in_bits, in_pairs = search.priced(state, quadratic_term=update == "augmented")
            samples, energies = annealed(in_bits, in_pairs, rng=rng, **counts)
            search.take(samples, energies, state)
            move(state, search)
        stopped = len(search.bounds) < rounds and not search.met
    if search.best is None:
        raise FailureError(
            f"no bits that keep all of the {len(rows.limit)} limits were seen in {len(search.bounds)} rounds; give "
            "more iterations, sweeps or reads"
        )
    best = search.best.astype(np.int64)
    met = search.met
    return Allocation(
        n=len(linear),
        amounts=best,
        values=given * best + (given_pairs @ best) * best,
        value=search.value * unit,
        bound=(search.value if met else search.bound) * unit,
        sense="min",
        status="optimal" if met else "stopped" if stopped else "heuristic",
        method="lagrangian_qubo",
        info={
            "variables": len(linear),
            "prices": search.best_prices / rows.scale * unit,
            "bounds": [bound * unit for bound in search.bounds],
            "values": [value * unit for value in search.values],
            "feasible_share": search.feasible / max(search.drawn, 1),
            "oracle_calls": search.drawn,
        },
    )


def _weight(linear: Floats, pairs: Floats) -> float:
    return _WEIGHT * float((np.abs(linear) + np.abs(pairs).sum(axis=1)).max(initial=0.0))


def _slack(limit: Floats) -> Floats:
    """By how much a row may be over its limit, both in the size of the row's largest term."""
    return _FEASIBLE * (np.abs(limit) + 1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """A @ x <= limit, each row divided by the size of its largest term."""

    A: Floats
    limit: Floats
    scale: Floats

    @classmethod
    def of(cls, A: Any, low: Floats, high: Floats) -> _Rows:
        table = A.toarray()
        least, most = np.isfinite(low), np.isfinite(high)
        rows, limit = np.vstack([table[most], -table[least]]), np.concatenate([high[most], -low[least]])
        if not len(limit):
            raise InputError("low and high limit no row; give a limit, or take anneal_qubo")
        fewest = np.minimum(rows, 0).sum(axis=1)
        scale = np.maximum(np.abs(rows).max(axis=1, initial=0.0), 1e-300)
        over = fewest > limit + _slack(limit / scale) * scale
        if over.any():
            row = int(over.argmax())
            raise InputError(
                f"a limit of {abs(limit[row]):g} cannot be kept: its row comes to {abs(fewest[row]):g} at best; "
                f"move it by {fewest[row] - limit[row]:g}"
            )
        # What rounding alone puts out of reach is within reach: else no price of that row would be too high.
        return cls(rows / scale[:, None], np.maximum(limit, fewest) / scale, scale)

    def excess(self, bits: Any) -> Floats:
        """How far each row is over its limit, (rows,) or (reads, rows)."""
        return np.asarray(bits @ self.A.T - self.limit)

    def kept(self, bits: Any) -> Any:
        """Whether all limits are kept."""
        slack = _slack(self.limit)
        return (self.excess(bits) <= slack).all(axis=-1)


@dataclass
class _Prices:
    """Where the prices are, where the bound was best, and how heavy a squared excess weighs."""

    now: Floats
    centre: Floats
    weight: float
    step: float = 1.0
    idle: int = 0
    last_excess: float = math.inf


@dataclass
class _Search:
    """All that was seen: the best bits, the best bound, the cuts that the bits are."""

    linear: Floats
    pairs: Floats
    rows: _Rows
    repair: bool
    best: Bits | None = None
    value: float = math.inf
    bound: float = -math.inf
    best_prices: Floats = field(default_factory=lambda: np.zeros(0))
    bounds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    cuts: list[tuple[float, Floats]] = field(default_factory=list)
    rose: bool = False
    excess: Floats = field(default_factory=lambda: np.zeros(0))
    drawn: int = 0
    feasible: int = 0

    @property
    def size(self) -> float:
        """Of the largest cost, at most 1: what values near 0 are compared to."""
        return min(1.0, max(float(np.abs(part).max(initial=0.0)) for part in (self.linear, self.pairs)))

    @property
    def met(self) -> bool:
        """Whether the best bits cost no more than the bound."""
        return self.best is not None and self.value <= self.bound + _ROUNDING * max(self.size, abs(self.value))

    def cost(self, bits: Any) -> float:
        """c @ x + x @ Q @ x."""
        x = np.asarray(bits, np.float64)
        return math.fsum((self.linear * x + (self.pairs @ x) * x).tolist())

    def priced(self, prices: _Prices, *, quadratic_term: bool) -> tuple[Floats, Floats]:
        """The quadratic of the bits alone at these prices, with the squared excess of rows that were over, if asked."""
        A = self.rows.A
        linear, pairs = self.linear + prices.now @ A, self.pairs
        if not quadratic_term or not len(self.excess):
            return linear, pairs
        over = self.excess + prices.now / max(prices.weight, 1e-300) > 0
        table, limit = A[over], self.rows.limit[over]
        squares = prices.weight / 2 * (table.T @ table)
        linear = linear - prices.weight * (limit @ table) + squares.diagonal()
        pairs = pairs + squares
        np.fill_diagonal(pairs, 0.0)
        return linear, pairs

    def take(self, samples: Bits, energies: Floats, prices: _Prices) -> None:
        """Learn from a round's bits: feasible ones, cuts, and the bound at the prices."""
        in_bits = self.linear + prices.now @ self.rows.A
        lowest = in_bits + np.minimum(self.pairs, 0).sum(axis=1)
        # Without pairs this is the minimum of the priced quadratic; with them it is below it.
        bound = float(np.minimum(lowest, 0).sum() - prices.now @ self.rows.limit)
        self.bounds.append(bound)
        self.rose = bound > self.bound + _ROUNDING * max(self.size, abs(bound))
        if bound > self.bound:
            self.bound, self.best_prices = bound, prices.now.copy()
        candidates = samples
        if not self.pairs.any():
            candidates = np.vstack([samples, (in_bits < 0).astype(np.int8)[None]])
            leading = candidates[-1]
        else:
            leading = samples[int(energies.argmin())]
        self.excess = self.rows.excess(leading)
        self.cuts.append((self.cost(leading), self.excess))
        self.drawn += len(samples)
        self.feasible += int(self.rows.kept(samples).sum())
        for bits in np.unique(candidates, axis=0):
            self._keep(self._mended(bits) if self.repair else bits)
        self.values.append(self.value)

    def _keep(self, bits: Bits) -> None:
        if self.rows.kept(bits):
            value = self.cost(bits)
            if value < self.value:
                self.best, self.value = bits.copy(), value

    def _mended(self, bits: Bits) -> Bits:
        """The bits after flips, each the cheapest for the excess that it takes away, then those that save costs."""
        bits = bits.copy()
        A, n = self.rows.A, len(bits)
        slack = _slack(self.rows.limit)
        for _ in range(n):
            excess = np.maximum(self.rows.excess(bits) - slack, 0)
            if not excess.any():
                break
            sign = 1.0 - 2.0 * bits
            after = np.maximum(excess[:, None] * 0 + (self.rows.excess(bits) - slack)[:, None] + A * sign, 0).sum(
                axis=0
            )
            gain = excess.sum() - after
            if gain.max() <= 0:
                return bits
            rise = sign * (self.linear + 2 * self.pairs @ bits)
            ratio = np.full(n, np.inf)
            np.divide(rise - min(rise.min(), 0), gain, out=ratio, where=gain > 0)
            flip = int(ratio.argmin())
            bits[flip] = 1 - bits[flip]
        for _ in range(n):
            sign = 1.0 - 2.0 * bits
            rise = sign * (self.linear + 2 * self.pairs @ bits)
            fits = (self.rows.excess(bits)[:, None] + A * sign <= slack[:, None]).all(axis=0)
            rise = np.where(fits, rise, np.inf)
            flip = int(rise.argmin())
            if rise[flip] >= 0:
                break
            bits[flip] = 1 - bits[flip]
        return bits


def _ascend(prices: _Prices, search: _Search) -> None:
    """A step along the excess, as long as Polyak's for the gap to the best bits, shorter where the bound stays."""
    prices.idle = 0 if search.rose else prices.idle + 1
    if prices.idle >= _PATIENCE:
        prices.step, prices.idle = prices.step / 2, 0
    squares = float(search.excess @ search.excess)
    if squares == 0:
        return
    gap = search.value - search.bounds[-1] if math.isfinite(search.value) else abs(search.bounds[-1]) + 1
    prices.now = np.maximum(prices.now + prices.step * max(gap, 0.0) / squares * search.excess, 0)


def _bundle(prices: _Prices, search: _Search) -> None:
    """The best prices of a model of the bound, within reach of where it was best."""
    if search.rose or len(search.bounds) == 1:
        prices.centre = prices.now.copy()
        prices.step *= 1.5
    else:
        prices.step /= 2
    rows = len(prices.now)
    largest = float(np.abs(search.linear).max(initial=1.0))
    reach = prices.step * largest
    # Maximise t with t <= cost + prices @ excess for all bits seen.
    table = np.array([[1.0, *(-excess)] for _, excess in search.cuts])
    ends = [
        (None, None),
        *((max(centre - reach, 0.0), centre + reach) for centre in prices.centre.tolist()),
    ]
    costs = [cost for cost, _ in search.cuts]
    answer = linprog(np.r_[-1.0, np.zeros(rows)], A_ub=table, b_ub=costs, bounds=ends, stoppable=True)
    if answer.x is not None:
        prices.now = np.maximum(answer.x[1:], 0)


def _augment(prices: _Prices, search: _Search) -> None:
    """Prices rise by the weighted excess; the weight grows where the excess does not shrink."""
    prices.now = np.maximum(prices.now + prices.weight * search.excess, 0)
    over = float(np.maximum(search.excess, 0).max(initial=0.0))
    if over > _SHRINKS * prices.last_excess:
        prices.weight *= _GROWTH
    prices.last_excess = over


_MOVES: dict[str, Callable[[_Prices, _Search], None]] = {
    "dual_ascent": _ascend,
    "bundle": _bundle,
    "augmented": _augment,
}
