"""Facility location on a device: bounds on gains come from products there, exact gains decide where they must."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InputError
from kofn.core.devices import device_with_float64, full_precision, room_on
from kofn.core.objective import best_of_rivals
from kofn.engines.torch_kernels import HIGH, LOW, Blocks, Changes, CostRule, Points, Served, savings
from kofn.objectives._sources import Rows
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.similarity import exact_sum

# Stale candidates that are brought up to date together at first; from how many on only from above.
_BATCH, _BOTH_SIDES = 64, 1 << 14
# Rivals whose gains are taken in float64 together.
_CLOSE = 16
# Pairs that are looked at for a closer bound whether or not a search needs them.
_SOON = 1 << 24
# Bytes that each row takes on the device beside its coordinates: costs, gains, and what changed.
_BYTES_A_ROW = 96
_HERE = (LOW, HIGH)


class DeviceFacilityLocation(FacilityLocation):
    """`FacilityLocation` of the rows of X, whose pairs are compared on a device.

    What a candidate gains is known there from below and above (`kofn.engines.torch_kernels`): first in the precision of
    X, for the few in question in float64, and where even that does not tell them apart by `exact_gains`. The costs of a
    pick are taken exactly too, for the items that it may change. So picks, gains and value are those without a device;
    the bound, which rests on older gains, may be larger.

    Candidates are looked at lazily. Gains only fall, so what one was at most it still is at most; a candidate that may
    be the best is brought up to date by the items that changed since it was looked at, or by all where that is less.
    """

    finds_best = True
    _source: Rows

    def __init__(
        self,
        X: Any = None,
        *,
        device: Any = None,
        metric: str = "euclidean",
        weights: Any = None,
        bandwidth: float | None = None,
        max_memory: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        self._device = device_with_float64(device)
        super().__init__(
            X, metric=metric, weights=weights, bandwidth=bandwidth, max_memory=max_memory, n_threads=n_threads
        )
        space, n = self._source.space, self.n
        occupied = Points.bytes_of(space.rows) + n * _BYTES_A_ROW
        self._blocks = Blocks.within(room_on(self._device, max_memory), occupied, n, self._device, self.name)
        self._points = Points(space.rows, space.scale, self._device)
        self._wide = self._points.wide()
        self._cost_rule = CostRule(space.squared, space.rate)
        # By a power of two, which rounds nothing: weights in float32 neither overflow nor vanish.
        self._exponent = int(np.frexp(self._weights.max())[1]) - 1
        counts = np.ldexp(self._weights, -self._exponent)
        self._counts = None if (counts == 1).all() else self._points.index(counts)
        self._now = self._points.index(self._cost)
        # Exact sums leave out what is this small beside their largest term (`kofn.objectives.similarity.exact_sum`).
        self._grain = 2.0**-98 * n * n * self._source.start
        # What each candidate gains at least and at most, after how many picks that was so (-1: it is not known), and
        # whether it was taken in float64 from all items.
        self._least = torch.zeros(n, dtype=torch.float64, device=self._device)
        self._most = torch.full_like(self._least, torch.inf)
        self._told = torch.full((n,), -1, dtype=torch.int64, device=self._device)
        self._close = torch.zeros(n, dtype=torch.bool, device=self._device)
        self._log = Changes(n, self._device)
        self._spread = 0.0
        # In small pools all gains are brought up to date at every step, for a closer bound.
        self.eager = n**2 <= _SOON
        if self._cost_rule.squared and not self._cost_rule.rate:
            self._first_gains()

    def _costs(self, max_memory: int | None, n_threads: int | None) -> Rows:
        if not self._from_rows or checks.is_sparse(self._given):
            kind = "X is a sparse matrix" if self._from_rows else "similarity is given"
            raise InputError(f"{kind}, and a device compares dense rows; leave device out, or give dense vectors as X")
        self._room(self._given, max_memory, n_threads)
        return Rows(self._space(self._given), n_threads)

    # Bounds on gains.

    def _first_gains(self) -> None:
        """Bound the gains of first picks: sums of squared distances follow from the sum of the points."""
        points, n, d = self._wide, self.n, self._wide.d
        counts = torch.ones(n, dtype=torch.float64, device=self._device) if self._counts is None else self._counts
        sizes, total = points.lengths[1], counts.sum()
        runs = [rows for rows, _ in self._blocks.runs(n, d)]
        middle = torch.zeros(d, dtype=torch.float64, device=self._device)
        for run in runs:
            middle += counts[run] @ points.coordinates(run)
        moment, start = counts @ sizes, self._source.start * total
        for run in runs:
            gains = start - (moment + total * sizes[run] - 2 * (points.coordinates(run) @ middle))
            # Sums of n squared lengths, each of d features; a distance is off by what its bounds are apart.
            apart = counts @ (points.lengths[2] - points.lengths[0])
            apart = apart + total * (points.lengths[2] - points.lengths[0])[run]
            slack = apart + (n + 2 * d + 64) * 2.0**-51 * (moment + total * (sizes[run] + sizes.max()) + start)
            slack = slack + self._grain
            self._most[run] = gains + slack
            self._least[run] = (gains - slack).clamp_min_(0.0)
        self._told[:] = 0

    def _serving(self, items: Any) -> Served:
        """All items, or listed ones, as they are served now."""
        weights = self._counts if self._counts is None or items is None else self._counts[items]
        return Served(items, self._now if items is None else self._now[items], None, weights)

    def _look(self, candidates: Any, *, wide: bool, sides: tuple[int, ...] = _HERE) -> None:
        """Take the gains of candidates from all items."""
        points = self._wide if wide else self._points
        with full_precision():
            bounds = savings(
                points, self._cost_rule, candidates, self._serving(None), self._blocks, sides, poll=self.poll
            )
        most = torch.where(bounds[-1] > 0, bounds[-1] + self._grain, 0.0)
        self._most[candidates] = torch.minimum(self._most[candidates], most)
        self._least[candidates] = (bounds[0] - self._grain).clamp_min_(0.0) if len(sides) > 1 else 0.0
        self._told[candidates], self._close[candidates] = self._picks, points is self._wide and len(sides) > 1

    def _follow(self, candidates: Any, since: Any, *, wide: bool) -> None:
        """Take from the gains of candidates what changed since they were known."""
        first = int(since.min())
        items, old, new = self._log.since(first)
        weights = None if self._counts is None else self._counts[items]
        points = self._wide if wide else self._points
        with full_precision():
            less, more = savings(
                points,
                self._cost_rule,
                candidates,
                Served(items, old, new, weights),
                self._blocks,
                _HERE,
                since=since - first,
                poll=self.poll,
            )
        most, least = self._most[candidates], self._least[candidates]
        rounding = 2.0**-51 * most + 2 * self._grain
        self._most[candidates] = torch.minimum(most, most - less + rounding).clamp_min_(0.0)
        self._least[candidates] = (least - more - rounding).clamp_min_(0.0)
        self._told[candidates], self._close[candidates] = self._picks, False

    def _catch_up(self, candidates: Any, *, wide: bool = False, whole: bool = False) -> None:
        """Bring candidates up to date; many of them from above alone, unless `whole`."""
        since = self._log.start_of(self._told[candidates])
        afresh = (since < 0) | (self._log.end - since > self.n // 2)
        fresh, late = candidates[afresh], candidates[~afresh]
        if len(fresh):
            self._look(fresh, wide=wide, sides=_HERE if whole or len(fresh) <= _BOTH_SIDES else (HIGH,))
        if len(late):
            self._follow(late, since[~afresh], wide=wide)

    # What a search asks.

    def best(self, open_items: Mask) -> int:
        """The open item with the largest exact gain, the lowest index in a tie."""
        open_there, batch = self._points.index(open_items), _BATCH
        while True:
            fresh = open_there & (self._told == self._picks)
            low = torch.where(fresh, self._least, -torch.inf).max()
            rivals = open_there & (self._most >= low)
            stale = rivals & ~fresh
            if bool(stale.any()):
                unseen = stale & (self._told < 0)
                self._catch_up(unseen.nonzero()[:, 0] if bool(unseen.any()) else self._top(stale, batch))
                batch *= 4
                continue
            loose = rivals & ~self._close
            if int(rivals.sum()) == 1 or not bool(loose.any()):
                break
            self._look(self._top(loose, _CLOSE), wide=True)
        items = rivals.nonzero()[:, 0]
        if len(items) == 1:
            return int(items)
        return best_of_rivals(items.cpu().numpy(), self._most[items].cpu().numpy(), self._measured)

    def _top(self, among: Any, count: int) -> Any:
        """Those candidates that may gain most."""
        count = min(count, int(among.sum()))
        return torch.topk(torch.where(among, self._most, -1.0), count).indices

    def _measured(self, items: Ints) -> Floats:
        """Exact gains as they are compared on the device, which keeps them."""
        gains = np.ldexp(self._source.exact(items, self._cost, self._weights), -self._exponent)
        where, there = self._points.index(items), self._points.index(gains)
        self._most[where], self._least[where] = there, there
        return gains

    def ceilings(self) -> Floats:
        """Upper bounds on all gains now, as close as they are without a device where that is soon done."""
        if not bool((self._now > self._source.least).any()):
            self._most[:] = 0.0
        elif self.eager:
            poll, self.poll = self.poll, None
            loose = (self._told < self._picks) | ~self._close
            self._look(loose.nonzero()[:, 0], wide=True)
            self.poll = poll
        return self._in_units(self._most)

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of some candidates, within `tolerance`."""
        candidates = self._points.index(np.asarray(candidates, np.int64))
        stale = candidates[(self._told[candidates] < self._picks) | ((self._least == 0) & ~self._close)[candidates]]
        if len(stale):
            known = self._told[stale] == self._picks
            if bool(known.any()):
                self._look(stale[known], wide=True)
            if bool((~known).any()):
                self._catch_up(stale[~known], wide=True, whole=True)
        most, least = self._most[candidates], self._least[candidates]
        if len(candidates):
            self._spread = max(self._spread, float((most - least).max()))
        return self._in_units((most + least) / 2)

    def _in_units(self, gains: Any) -> Floats:
        out: Floats = self._unit * np.ldexp(gains.cpu().numpy(), self._exponent)
        return out

    @property
    def tolerance(self) -> float:
        """The largest error of any gain that was returned since the last pick."""
        return self._unit * float(np.ldexp(0.5 * self._spread, self._exponent)) * (1 + 2.0**-50)

    @property
    def distance_evals(self) -> int:
        """Costs of (item, candidate) looked at so far, here and on the device."""
        there = self._points.pairs + (0 if self._wide is self._points else self._wide.pairs)
        return self._source.pairs + there

    @property
    def calls(self) -> int:
        """Full evaluations of a candidate so far."""
        return -(-self.distance_evals // self.n)

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain."""
        item, space = int(item), self._source.space
        items = self._reached(item)
        cost = self._source.from_points(space.part(items), space.points(np.array([item])))[0]
        old = self._cost[items]
        served = cost < old
        # The first pick stands for everyone, also where all rows are the same.
        self.nearest[items[served] if self._picks else items] = self._picks
        items, old, new = items[served], old[served], cost[served]
        gain = self._unit * exact_sum(self._weights[items] * (old - new), self.n)
        self._cost[items] = new
        self._picks += 1
        self._spread = 0.0
        there = self._points.index(items)
        self._now[there] = self._points.index(new)
        self._log.append(self._picks, there, self._points.index(old), self._points.index(new))
        self._most[item] = self._least[item] = 0.0
        return gain

    def _reached(self, item: int) -> Ints:
        """The items that a pick may serve better, and perhaps a few others."""
        if self._picks == 0:
            return np.arange(self.n)
        with full_precision():
            squares = self._points.squares(slice(item, item + 1), slice(None), LOW)[0]
        nearer = self._cost_rule.costs(squares, LOW).to(torch.float64) < self._now
        reached: Ints = nearer.nonzero()[:, 0].cpu().numpy()
        return reached
