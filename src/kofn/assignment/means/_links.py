"""Assignment step under size bounds, must-link and cannot-link pairs."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.routing._flows import transport
from kofn.core.arrays import Floats, Ints, Labels
from kofn.core.checks import FailureError, InfeasibleError, InputError, as_array, item_key, shown
from kofn.core.highs import milp

# Seconds that the integer program may take to find a first placement, or to prove that there is none.
_SEARCH_SECONDS = 60.0
# Improvement rounds over the linked units in one assignment step.
_ROUNDS = 4
# Moves of one linked unit per round that are evaluated by reassigning all free items.
_TRIES = 20
# Relative improvement of the total that counts, well above the rounding of the sum.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Units:
    """Units that move together: the connected components of must_link; every other item is a unit by itself.

    Attributes:
        of: (n,) the unit of each item.
        sizes: (u,) items in each unit.
        first: (u,) the lowest row of each.
        apart: (m, 2) pairs of units that may not share a group, each once; twice the same where links contradict each
            other, and the unit is in no group.
    """

    of: Ints
    sizes: Ints
    first: Ints
    apart: Ints

    @property
    def linked(self) -> NDArray[np.bool_]:
        """(u,) mask of the units that are linked: of several items, or with a cannot-link pair."""
        out: NDArray[np.bool_] = self.sizes > 1
        out[self.apart.ravel()] = True
        return out

    def total(self, rows: Floats) -> Floats:
        """(u, ...) sums of the rows of each unit."""
        if len(self.sizes) == len(self.of):
            return rows
        order = np.argsort(self.of, kind="stable")
        starts = np.cumsum(self.sizes) - self.sizes
        out: Floats = np.add.reduceat(rows[order], starts, axis=0)
        return out


def units_of(n: int, must_link: Any, cannot_link: Any, *, may_stay_out: bool = False) -> Units:
    """Join the must-link components; refuse a cannot-link pair inside one, naming the chain of rows.

    Where units may stay out, such a pair is no contradiction: it is in `apart`.
    """
    must, cannot = _pairs(must_link, "must_link", n), _pairs(cannot_link, "cannot_link", n)
    of = np.arange(n)
    if len(must):
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        graph: Any = csr_array((np.ones(len(must)), must.T), shape=(n, n))
        _, component = connected_components(graph, directed=False)
        # Units are numbered by their lowest row.
        _, first, of = np.unique(component, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        of = rank[of].astype(np.int64)
        clash = np.flatnonzero(of[cannot[:, 0]] == of[cannot[:, 1]])
        if len(clash) and not may_stay_out:
            a, b = cannot[clash[0]].tolist()
            steps = _shorten(_chain(graph, a, b))
            chain = "-".join(step if isinstance(step, str) else item_key(step) for step in steps)
            raise InfeasibleError(
                f"cannot_link keeps rows {item_key(a)} and {item_key(b)} apart, must_link joins them ({chain}): "
                "drop one of these pairs"
            )
    sizes = np.bincount(of)
    first = np.full(len(sizes), n)
    np.minimum.at(first, of, np.arange(n))
    apart = np.unique(np.sort(of[cannot], axis=1), axis=0) if len(cannot) else np.empty((0, 2), np.int64)
    return Units(of, sizes, first, apart)


def _pairs(value: Any, name: str, n: int) -> Ints:
    """(m, 2) row numbers of the pairs."""
    if value is None:
        return np.empty((0, 2), np.int64)
    array = as_array(value, name)
    if array.ndim and len(array) == 0:
        return np.empty((0, 2), np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        text = shown(array.tolist())
        text = text if len(text) < 40 else f"an array of shape {array.shape}, dtype {array.dtype}"
        named = "; pass ids to name rows by them" if array.ndim == 2 and array.shape[1] == 2 else ""
        raise InputError(f"{name}={text}: give pairs of row numbers, shape (pairs, 2){named}")
    out = array.astype(np.int64)
    beyond = (out < 0) | (out >= n)
    if beyond.any():
        raise InputError(f"{name} names row {out[beyond][0]}; the rows are 0..{n - 1}")
    same = np.flatnonzero(out[:, 0] == out[:, 1])
    if len(same) and name == "cannot_link":
        raise InputError(f"{name} at pair {same[0]} keeps row {out[same[0], 0]} apart from itself; drop that pair")
    return out


def _chain(graph: Any, a: int, b: int) -> list[int]:
    """The shortest chain of must-linked rows from a to b."""
    from scipy.sparse.csgraph import breadth_first_order

    _, before = breadth_first_order(graph, a, directed=False)
    out = [b]
    while out[-1] != a:
        out.append(int(before[out[-1]]))
    return out[::-1]


def _shorten(rows: list[int]) -> list[Any]:
    return rows if len(rows) <= 12 else [*rows[:6], "...", *rows[-5:]]


def bounds_of(n: int, k: int, capacity: Any, min_size: Any, units: Units) -> tuple[Ints, Ints]:
    """(k,) minimum and maximum size of each group; infeasible bounds are refused with the amount they are off by."""
    for name, sizes in (("capacity", capacity), ("min_size", min_size)):
        if sizes is not None and not np.isscalar(sizes) and len(sizes) != k:
            raise InputError(f"{name} has {len(sizes)} values, k={k}; give one number, or one for each group")
    low = np.broadcast_to(np.asarray(min_size, np.int64), k).copy()
    high = np.broadcast_to(np.asarray(n if capacity is None else capacity, np.int64), k).copy()
    room = sum(high.tolist())
    if room < n:
        raise InfeasibleError(
            f"{n} items need a group each, capacity holds {room} in k={k} groups: {n - room} too few; raise it to "
            f"{-(-n // k)} a group, or raise k"
        )
    if (need := sum(low.tolist())) > n:
        alike = np.ndim(min_size) == 0
        each = f"min_size={low[0]} in each of" if alike else "min_size of"
        remedy = f"lower min_size to {n // k}, or lower k" if alike else f"lower it by {need - n}"
        raise InfeasibleError(f"{each} k={k} groups needs {need} items, there are {n}: {need - n} too few; {remedy}")
    short = np.flatnonzero(high < low)
    if len(short):
        j = int(short[0])
        shortage = "the group would be empty" if low[j] == 1 else f"{low[j] - high[j]} less than min_size={low[j]}"
        raise InfeasibleError(f"capacity of group {j} is {high[j]}: {shortage}; raise it, or lower min_size")
    largest = int(units.sizes.argmax())
    if units.sizes[largest] > high.max():
        size = units.sizes[largest]
        raise InfeasibleError(
            f"must_link joins {size} rows ({_rows(units, [largest])}), the largest capacity is {high.max()}: "
            f"{size - high.max()} too many; drop links, or raise it"
        )
    return low, np.minimum(high, n)


def _rows(units: Units, units_named: list[int]) -> str:
    rows = np.flatnonzero(np.isin(units.of, units_named))
    return ", ".join(map(item_key, rows[:5].tolist())) + (", ..." if len(rows) > 5 else "")


class Seating:
    """The assignment step: each unit to one group, for a large total score within the bounds and links.

    Exact without links, and where every unit's preferred group has room. Otherwise unit sizes are processed in turn:
    all units of one size are reassigned by an exact transportation problem around the others, first at the prices of
    the free items and with those out of the way. Then local search moves single units, swaps two of them, or evicts one
    cannot-linked unit, and reassigns the free items. No step lowers the total, so alternating with an update of the
    centres never raises the loss.
    """

    def __init__(self, units: Units, low: Ints, high: Ints) -> None:
        self.units, self.low, self.high = units, low, high
        self.k = len(low)
        self.exact = not units.linked.any()
        # Whether every step so far was exact although units are linked.
        self.free = True
        kept_apart = np.zeros(len(units.sizes), bool)
        kept_apart[units.apart.ravel()] = True
        free = ~kept_apart
        self._classes = [np.flatnonzero(free & (units.sizes == s)) for s in np.unique(units.sizes[free])[::-1].tolist()]
        # Free items are assigned last, after all linked units.
        singles = [c for c in self._classes if units.sizes[c[0]] == 1]
        self._singles = singles[0] if singles else np.empty(0, np.int64)
        self._larger = [c for c in self._classes if units.sizes[c[0]] > 1]
        self._foes: dict[int, list[int]] = {u: [] for u in np.flatnonzero(kept_apart).tolist()}
        for a, b in units.apart.tolist():
            self._foes[a].append(b)
            self._foes[b].append(a)

    def __call__(self, scores: Floats, current: Labels | None, prices: Floats | None) -> tuple[Labels, Floats]:
        """Labels (u,) and group prices (k,), at least as good as `current`, a feasible assignment.

        Raises:
            InfeasibleError: no assignment satisfies the bounds and links.
        """
        wish = scores.argmax(axis=1).astype(np.int32)
        if not len(self.units.apart) and self._fits(wish):
            return wish, np.zeros(self.k)
        if self.exact:
            return transport(scores, self.low, self.high, prices)
        self.free = False
        guide = self._split_prices(scores, prices)
        labels = self._first(scores, guide) if current is None else current.copy()
        labels, seat = self._seat_singles(scores, labels, guide)
        for _ in range(_ROUNDS):
            better, price = self._round(scores, labels, seat)
            gain = math.fsum((self._own(scores, better) - self._own(scores, labels)).tolist())
            if gain <= _TOLERANCE * float(np.abs(self._own(scores, labels)).sum()):
                break
            labels, seat = better, price
        return labels, seat

    @staticmethod
    def _own(scores: Floats, labels: Labels) -> Floats:
        out: Floats = scores[np.arange(len(labels)), labels]
        return out

    def _load(self, labels: Labels, subset: Ints | None = None) -> Ints:
        if subset is None:
            return np.bincount(labels, self.units.sizes, self.k).astype(np.int64)
        return np.bincount(labels[subset], self.units.sizes[subset], self.k).astype(np.int64)

    def _fits(self, labels: Labels) -> bool:
        load = self._load(labels)
        return bool((load >= self.low).all() and (load <= self.high).all())

    def _split_prices(self, scores: Floats, prices: Floats | None) -> Floats:
        """Group prices of the relaxation in which units may be split among groups."""
        of, sizes = self.units.of, self.units.sizes
        return transport((scores / sizes[:, None])[of], self.low, self.high, prices)[1]

    def _seat_singles(self, scores: Floats, labels: Labels, guide: Floats) -> tuple[Labels, Floats]:
        """Reassign the free items optimally, with all linked units fixed."""
        if not len(self._singles):
            return labels, guide
        others = self._load(labels) - self._load(labels, self._singles)
        low, high = np.maximum(self.low - others, 0), self.high - others
        labels = labels.copy()
        labels[self._singles], prices = transport(np.ascontiguousarray(scores[self._singles]), low, high, guide)
        return labels, prices

    def _round(self, scores: Floats, labels: Labels, price: Floats) -> tuple[Labels, Floats]:
        """One improvement pass over all linked units; never lowers the total."""
        for same_size in self._larger:
            size, table = int(self.units.sizes[same_size[0]]), np.ascontiguousarray(scores[same_size])
            bold = labels.copy()
            fixed = self._load(labels) - self._load(labels, same_size) - self._load(labels, self._singles)
            bold[same_size], _ = transport(
                table - size * price, np.zeros(self.k, np.int64), (self.high - fixed) // size
            )
            labels, price = self._settled(scores, labels, bold, price)
            others = self._load(labels) - self._load(labels, same_size)
            low = np.maximum(-(-(self.low - others) // size), 0)
            labels = labels.copy()
            labels[same_size], _ = transport(table, low, (self.high - others) // size)
        return self._boldly(scores, *self._seat_singles(scores, labels, price))

    def _boldly(self, scores: Floats, labels: Labels, price: Floats) -> tuple[Labels, Floats]:
        """Try the moves of linked units that gain at the prices, best first, reassigning the free items for each."""
        linked = np.flatnonzero(self.units.linked)
        failed: set[tuple[tuple[int, int], ...]] = set()
        tries = 0
        while tries < _TRIES:
            moves = [move for move in self._moves(scores, labels, price, linked) if move[1] not in failed]
            for _, move in sorted(moves, key=lambda scored: (-scored[0], scored[1])):
                tries += 1
                bold = labels.copy()
                for u, target in move:
                    bold[u] = target
                after, seat = self._settled(scores, labels, bold, price)
                if after is not labels:
                    labels, price = after, seat
                    break
                failed.add(move)
                if tries >= _TRIES:
                    break
            else:
                break
        return labels, price

    def _moves(
        self, scores: Floats, labels: Labels, price: Floats, linked: Ints
    ) -> list[tuple[float, tuple[tuple[int, int], ...]]]:
        """Candidate moves of a unit: to another group, a swap, or the eviction of the one cannot-linked unit there."""
        sizes, home = self.units.sizes[linked], labels[linked]
        room = self.high - self._load(labels, linked)
        worth = scores[linked] - sizes[:, None] * price
        gain = worth - worth[np.arange(len(linked)), home][:, None]
        position_of = {int(u): position for position, u in enumerate(linked)}
        foes = np.zeros((len(linked), self.k), np.int64)
        for position, u in enumerate(linked.tolist()):
            np.add.at(foes[position], labels[self._foes.get(u, [])], 1)
        out: list[tuple[float, tuple[tuple[int, int], ...]]] = []
        for position, target in np.argwhere(gain > 0).tolist():
            u, first, size = int(linked[position]), float(gain[position, target]), int(sizes[position])
            from_ = int(home[position])
            if foes[position, target] == 0 and size <= room[target]:
                out.append((first, ((u, target),)))
            enemies = [position_of[f] for f in self._foes.get(u, []) if labels[f] == target]
            if len(enemies) > 1:
                continue
            # Units of that group that may move here once this unit has left.
            able = (home == target) & (size - sizes <= room[target]) & (sizes - size <= room[from_])
            if enemies:
                able &= np.arange(len(linked)) == enemies[0]
            hostile = foes[:, from_].copy()
            for f in self._foes.get(u, []):
                hostile[position_of[f]] -= 1
            swap = np.where(able & (hostile == 0), gain[:, from_], -np.inf)
            other = int(swap.argmax())
            if first + swap[other] > 0:
                out.append((first + float(swap[other]), ((u, target), (int(linked[other]), from_))))
            if enemies and size <= room[target] + sizes[enemies[0]]:
                away = np.where((foes[enemies[0]] == 0) & (sizes[enemies[0]] <= room), gain[enemies[0]], -np.inf)
                away[target] = -np.inf
                best = int(away.argmax())
                if first + away[best] > 0:
                    out.append((first + float(away[best]), ((u, target), (int(linked[enemies[0]]), best))))
        return out

    def _settled(self, scores: Floats, labels: Labels, bold: Labels, price: Floats) -> tuple[Labels, Floats]:
        """The trial assignment with the free items reassigned, if they fit and the total improves."""
        others = self._load(bold) - self._load(bold, self._singles)
        if np.maximum(self.low - others, 0).sum() > len(self._singles) or (others > self.high).any():
            return labels, price
        try:
            bold, seat = self._seat_singles(scores, bold, price)
        except InfeasibleError:
            # A free item restricted to one group (a medoid) would have lost its slot.
            return labels, price
        gain = math.fsum((self._own(scores, bold) - self._own(scores, labels)).tolist())
        return (bold, seat) if gain > 0 and self._fits(bold) else (labels, price)

    def _first(self, scores: Floats, price: Floats) -> Labels:
        """A feasible assignment: greedily, the largest units first; else by integer programming."""
        units = self.units
        labels = np.full(len(units.sizes), -1, np.int32)
        linked = np.flatnonzero(units.linked)
        foes = np.bincount(units.apart.ravel(), minlength=len(units.sizes))
        load = np.zeros(self.k, np.int64)
        for u in linked[np.lexsort((-foes[linked], -units.sizes[linked]))].tolist():
            worth = scores[u] - units.sizes[u] * price
            worth[load + units.sizes[u] > self.high] = -np.inf
            taken = labels[self._foes.get(u, [])]
            worth[taken[taken >= 0]] = -np.inf
            if worth.max() == -np.inf:
                return self._search(scores, price, linked)
            labels[u] = worth.argmax()
            load[labels[u]] += units.sizes[u]
        if np.maximum(self.low - load, 0).sum() > len(self._singles):
            return self._search(scores, price, linked)
        return self._filled(scores, labels, price)

    def _filled(self, scores: Floats, labels: Labels, price: Floats) -> Labels:
        """Assign the free items once all linked units are assigned."""
        if len(self._singles):
            linked = np.flatnonzero(self.units.linked)
            load = self._load(labels, linked)
            table = np.ascontiguousarray(scores[self._singles])
            labels[self._singles], _ = transport(table, np.maximum(self.low - load, 0), self.high - load, price)
        return labels

    def _search(self, scores: Floats, price: Floats, linked: Ints) -> Labels:
        """Assign the linked units by an integer program, which also proves infeasibility."""
        from scipy.optimize import Bounds, LinearConstraint
        from scipy.sparse import csr_array

        units, k, many = self.units, self.k, len(linked)
        # Variables: unit u in group j (u-major), then the number of free items of each group.
        size = many * k + k
        constraint, row, column, entry, least, most = 0, [], [], [], [], []

        def line(columns: Any, entries: Any, low: float, high: float) -> None:
            nonlocal constraint
            row.append(np.full(len(columns), constraint))
            column.append(np.asarray(columns))
            entry.append(np.broadcast_to(np.asarray(entries, np.float64), len(columns)))
            least.append(low)
            most.append(high)
            constraint += 1

        for position in range(many):
            line(np.arange(position * k, position * k + k), 1.0, 1, 1)
        for j in range(k):
            line([*range(j, many * k, k), many * k + j], [*units.sizes[linked], 1.0], self.low[j], self.high[j])
        line(np.arange(many * k, size), 1.0, len(self._singles), len(self._singles))
        place_of = {int(u): position for position, u in enumerate(linked)}
        for (a, b), j in itertools.product(units.apart.tolist(), range(k)):
            line([place_of[a] * k + j, place_of[b] * k + j], 1.0, -np.inf, 1)
        table = csr_array(
            (np.concatenate(entry), (np.concatenate(row), np.concatenate(column))), shape=(constraint, size)
        )
        worth = scores[linked] - units.sizes[linked][:, None] * price
        able = np.isfinite(worth)
        # HiGHS takes no costs that are far beyond 1: where all are alike, their size is the unit.
        span = float(worth[able].max() - worth[able].min()) or float(np.abs(worth[able]).max()) or 1.0
        top = np.append(able.ravel().astype(np.float64), np.full(k, float(len(self._singles))))
        done = milp(
            np.append(-np.where(able, worth, 0.0).ravel() / span, np.zeros(k)),
            integrality=np.append(np.ones(many * k), np.zeros(k)),
            bounds=Bounds(np.zeros(size), top),
            constraints=LinearConstraint(table, np.array(least, float), np.array(most, float)),
            options={"time_limit": _SEARCH_SECONDS, "mip_rel_gap": 0.05},
            stoppable=True,
        )
        if done.x is None:
            raise self._refusal(done.status == 2, linked)
        labels = np.full(len(units.sizes), -1, np.int32)
        labels[linked] = done.x[: many * k].reshape(many, k).argmax(axis=1)
        return self._filled(scores, labels, price)

    def _refusal(self, proven: bool, linked: Ints) -> Exception:
        if not proven:
            return FailureError(
                f"no placement of {len(linked)} linked units in {self.k} groups was found in {_SEARCH_SECONDS:g} "
                "seconds, nor proved impossible; drop links, or widen the bounds"
            )
        clique = self._clique()
        if len(clique) > self.k:
            rows = ", ".join(str(self.units.first[u]) for u in clique[:8]) + (", ..." if len(clique) > 8 else "")
            with_links = ", with those that must_link joins to them," if (self.units.sizes[clique] > 1).any() else ""
            return InfeasibleError(
                f"cannot_link keeps {len(clique)} rows{with_links} apart from each other ({rows}): they need "
                f"{len(clique)} groups, k={self.k}; raise k, or drop pairs"
            )
        sizes = np.sort(self.units.sizes[linked])[::-1]
        shown = ", ".join(map(str, sizes[:6])) + (", ..." if len(sizes) > 6 else "")
        low, high = sorted(set(self.low.tolist())), sorted(set(self.high.tolist()))
        return InfeasibleError(
            f"must_link and cannot_link leave no way into {self.k} groups of {low[0]} to {high[-1]} items: parts of "
            f"{shown} that stay whole, {len(self.units.apart)} pairs kept apart, {len(self._singles)} free items; "
            "drop links, or widen capacity and min_size"
        )

    def _clique(self) -> list[int]:
        """A clique of pairwise cannot-linked units, built greedily from each unit."""
        best: list[int] = []
        sets = {u: set(foes) for u, foes in self._foes.items()}
        for u in sets:
            clique, open_to = [u], sets[u].copy()
            while open_to:
                nearest = max(sorted(open_to), key=lambda v: len(sets[v] & open_to))
                clique.append(nearest)
                open_to &= sets[nearest]
            best = max(best, sorted(clique), key=len)
        return best
