"""Dynamic submodular selection: maintain k items of a pool under insertions and deletions."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Selection
from kofn.core.stepper import Example, Share, Stepper, held_keys, new_keys, stepper
from kofn.selection.streams._examples import pools
from kofn.selection.streams._row_functions import encoded, grid, promise_of, row_count, row_function

# Levels are integers; an item that no prefix has rejected is above all of them.
_OPEN = np.iinfo(np.int32).max
_LARGEST_BLOCK = 512
# A set is redrawn at the latest when its live picks are worth this share of what it was; the sets alone are redrawn at
# 1 - eps, as in the paper.
_WORN = 0.6
# What the greedy search looks at beside the sets and the last picks, for each of the k picks: the highest single items,
# and a random few of those that reach the threshold.
_HIGHEST, _DRAWN = 2, 10


def _example(rng: np.random.Generator) -> Example:
    pool = pools()[rng.integers(4)]
    k, eps = int(rng.integers(1, 5)), float(rng.choice([0.1, 0.2, 0.3]))
    arguments = {**pool.arguments, "eps": eps, "greedy_fill": bool(rng.integers(2))}
    return Example(lambda seed: DynamicSelection(k, seed=seed, **arguments), rows=pool.rows, worth=pool.worth)


@stepper(
    "select",
    paper=3,
    cost="a few oracle calls an event in expectation; memory O(n) rows",
    exact="1/2 - eps of the optimum after every event",
    events=("insert", "delete"),
    aliases=("fully dynamic submodular maximization", "sliding pool", "insertions and deletions"),
    draws=_example,
)
class DynamicSelection(Stepper[Selection]):
    """Dynamic submodular maximisation: maintain k items under insertions and deletions at few oracle calls per update.

    For each guess (1 + eps)^p of the optimum, a set is grown in one pass over the items in random order: an item whose
    gain is at least guess / (2 k) is picked, and any other item is recorded at the level (the number of picks) where it
    was rejected. A deleted pick keeps its level as a ghost. When ghosts make up too much of a set's value, the set is
    rebuilt from the lowest ghost's level on, from the items recorded above that level, in a new random order; items
    rejected by earlier picks stay rejected. Two neighbouring guesses are active: one whose set fills up (a value) and
    one whose set does not (a bound on the optimum); they follow the optimum when it moves.

    Args:
        k: number of items to keep.
        eps: the guarantee is 1/2 - eps; in (0, 0.5], smaller values cost more calls.
        objective: a monotone submodular function that does not depend on the other items of the pool.
            "facility_location": the reduction of the distance of every row of `reference` against their mean, or for
            metric="cosine" its similarity (1 + cos) / 2 to the nearest pick. "coverage": the weight of the
            columns that the picks cover, row i of X covers column j where X[i, j] is not zero (dense or SciPy-sparse).
            Or your own: f(rows) -> value of a set of rows, f of nothing being 0, or an object with `empty()`,
            `gains(state, rows)` and `add(state, row)` (`kofn.selection.streams._row_functions.RowFunction`).
        reference: (r, d) rows that represent the pool, for "facility_location". The pool itself cannot be used, because
            each insertion would change the value of every set.
        metric: "euclidean" (default), "sqeuclidean" or "cosine", for "facility_location".
        weights: weights of the reference rows or of the columns, >= 0, default 1.
        greedy_fill: also run lazy greedy over the active sets, the last picks, the best single items and 10 k random
            others, and return the better result (default). False returns the better set.
        seed: whole number; the same events give the same plans.

    Attributes:
        oracle_calls: evaluations of f(S + e) so far, counted one by one.
        rebuilds: sets rebuilt from some level so far.
        inserted, deleted: items so far.
        plan: the current Selection, updated when it is read. `ids` are the live items in the order of
            their insertion, `indices` positions among them; `bound` is an upper bound on the current optimum,
            `guarantee` is 1/2 - eps, and `short` counts the missing picks while fewer than k items are live.

    Raises:
        InputError: eps outside (0, 0.5], a duplicate or unknown id, rows of another width.

    The guarantee holds for every sequence of events, also against an adversary who sees the picks: before a plan is
    returned, value >= (1/2 - eps) * bound is checked, and sets are rebuilt until it holds. The cost is in expectation,
    for events that do not depend on the picks: an insertion is one call for the item's own value and one or two for
    the sets that could use it; a random deletion hits a level of r items that qualify with probability 1/r and costs at
    most a pass over the later ones. Deleting the picks themselves costs a pass once a share of them is gone. Memory
    O(n) rows (r numbers an item for "facility_location", its columns for "coverage").

    The paper samples whole batches a level from buckets of nearly equal gain and treats every guess at every event; its
    bound on the calls is polylogarithmic in n and k. Here a level is one pick (as in the authors' algorithm for
    matroids), guesses are looked at only when the plan needs them, and ghosts are replaced late, which the check of the
    promise allows. Growth in n is measured, not proved: `claims/p003_dynamic_submodular.py`.

    References:
        Banihashem, Biabani, Goudarzi, Hajiaghayi, Jabbarzade, Monemizadeh, "Dynamic Constrained Submodular Optimization
        with Polylogarithmic Update Time", ICML 2023. The same, "Dynamic Algorithms for Matroid Submodular
        Maximization", SODA 2024. Lattanzi, Mitrovic, Norouzi-Fard, Tarnawski, Zadimoghaddam, "Fully Dynamic Algorithm
        for Constrained Submodular Optimization", NeurIPS 2020.

    Examples:
        >>> pool = DynamicSelection(2, objective="coverage")
        >>> pool.insert(["a", "b", "c"], [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
        >>> plan = pool.plan
        >>> plan.keys(plan.indices).tolist(), plan.value
        (['a', 'c'], 4.0)
        >>> pool.delete(["a"])
        >>> plan = pool.plan
        >>> plan.keys(plan.indices).tolist(), plan.value, plan.short
        (['b', 'c'], 3.0, 0)
    """

    state: ClassVar = {
        "keys": "slots",
        "alive": "slots",
        "single": "slots",
        "low": "",
        "picks": "picks",
        "gains": "gains",
        "bound": "",
        "stale": "",
        "rng": "",
        "rebuilds": "",
        "inserted": "",
        "deleted": "",
    }

    def __init__(
        self,
        k: int,
        *,
        eps: float = 0.1,
        objective: Any = "facility_location",
        reference: ArrayLike | None = None,
        metric: str = "euclidean",
        weights: Any = None,
        greedy_fill: bool = True,
        seed: int | None = 0,
    ) -> None:
        self.k = checks.count(k, "k")
        self.eps = promise_of(eps)
        self.greedy_fill = checks.flag(greedy_fill, "greedy_fill")
        self._f = row_function(objective, reference, metric, weights)
        super().__init__(
            k=self.k,
            eps=self.eps,
            **self._f.settings,
            greedy_fill=self.greedy_fill,
            seed=checks.entropy(seed),
        )
        self.promise = Share(0.5 - self.eps)
        self._rng = np.random.default_rng(self.seed)
        self._rows = self._f.storage()
        # One slot per item, in insertion order; `_compact` reclaims the slots of deleted items.
        self._keys: NDArray[Any] = np.empty(0, np.int64)
        self._slots: dict[Hashable, int] = {}
        self._alive = np.empty(0, bool)
        self._single = np.empty(0)
        self._sets: dict[int, _Set] = {}
        self._low: int | None = None
        self._picks: list[int] = []
        self._gains: list[float] = []
        self._bound = 0.0
        self._stale = False
        self.rebuilds = self.inserted = self.deleted = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._slots

    def insert(self, ids: Any, X: Any) -> None:
        """Add items: `ids` (m,) keys that are not in the pool, `X` (m, d) their rows. One call an item.

        Raises:
            InputError: a duplicate id, rows of another width than before, NaN or infinity. Nothing
                is inserted then.
        """
        keys = new_keys(ids, self._slots)
        m = row_count(X)
        checks.same_length(m, "X", "ids", len(keys))
        start = len(self._keys)
        # Called before anything is stored, so that an objective that raises leaves the pool unchanged.
        rows, single = encoded(self._f, X)
        self.oracle_calls += m
        self._rows.append(rows)
        self._keys = _joined(self._keys, checks.ids(ids))
        self._slots.update(zip(keys, range(start, start + m), strict=True))
        self._alive = np.concatenate([self._alive, np.ones(m, bool)])
        self._single = np.concatenate([self._single, single])
        self.inserted += m

    def delete(self, ids: Any) -> None:
        """Delete items by id, without oracle calls until the next plan.

        Raises:
            InputError: a duplicate or unknown id. Nothing is deleted then.
        """
        keys = held_keys(ids, self._slots)
        slots = [self._slots.pop(key) for key in keys]
        self._alive[slots] = False
        self.deleted += len(keys)
        if len(self._keys) > 2 * len(self._slots) + 64:
            self._compact()

    def _get_state(self) -> dict[str, Any]:
        return {
            **super()._get_state(),
            "width": self._f.width,
            "rows": self._rows.state(),
            "sets": {power: guess.state() for power, guess in self._sets.items()},
        }

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        self._f.width = state["width"]
        live = np.flatnonzero(self._alive)
        self._slots = dict(zip(self._keys[live].tolist(), live.tolist(), strict=True))
        self._rows.restore(state["rows"])
        checks.same_length(len(self._keys), "state['keys']", "state['rows']", len(self._rows))
        self._sets = {}
        for power, saved in state["sets"].items():
            guess = self._sets[int(power)] = _Set(self._tau(int(power)), saved)
            guess.state_of = self._grown(guess.picks)

    def _ask(self, state: Any, slots: Ints) -> Floats:
        """Gains of the given items, counted as oracle calls."""
        self.oracle_calls += len(slots)
        return self._f.gains(state, self._rows.take(slots))

    def _grown(self, picks: Iterable[int]) -> Any:
        """The function's state for a set, without counting calls (its gains are known)."""
        state = self._f.empty()
        for slot in picks:
            state = self._f.add(state, self._rows.take(np.array([slot])))
        return state

    def _tau(self, power: int) -> float:
        return float((1 + self.eps) ** power) / (2 * self.k)

    def _refresh(self) -> None:
        """Update the two guesses and the picks until value >= (1/2 - eps) * bound."""
        live = np.flatnonzero(self._alive)
        most = float(self._single[live].max(initial=0.0))
        if len(live) <= self.k or most <= 0:
            self._take_all(live)
            return
        # The optimum lies between the best single item and k times that; the grid covers this range.
        least, last = grid(most, self.eps), grid(most, self.eps) + self._span()
        if self._low is None or not least <= self._low < last:
            self._low = self._search(least, last) if self._low is None else min(max(self._low, least), last - 1)
        while True:
            self._settle_pair(least, last)
            self._choose(live)
            high = self._sets[self._low + 1]
            ceiling = np.partition(self._single[live], -self.k)[-self.k :].sum()
            self._bound = min(float(ceiling), math.fsum(high.marginals) + self.k * high.tau)
            worn = [guess for guess in (self._sets[self._low], high) if not self._alive[guess.picks].all()]
            if not worn or math.fsum(self._gains) >= self.promise.share * self._bound:
                # The value reached is a lower bound on the optimum; rounding must not put `bound` below it.
                self._bound = max(self._bound, math.fsum(self._gains))
                return
            self._rebuild(worn[0])

    def _span(self) -> int:
        # From the best single item to beyond 2 k of it, where no item reaches the threshold.
        return math.ceil(math.log(2 * self.k * (1 + self.eps)) / math.log1p(self.eps)) + 1

    def _search(self, least: int, last: int) -> int:
        """Bisection for the guesses between which sets stop filling up."""
        low, high = least, last
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._settle(middle) else (low, middle)
        return low

    def _settle_pair(self, least: int, last: int) -> None:
        """Move both guesses until the lower set fills up (or holds only the best item) and the upper one does not."""
        assert self._low is not None
        while self._low + 1 < last and self._settle(self._low + 1):
            self._low += 1
        while not self._settle(self._low) and self._low > least:
            self._low -= 1
        self._settle(self._low + 1)
        # Guesses far from the optimum are dropped; they are rebuilt if the optimum moves towards them.
        self._sets = {power: guess for power, guess in self._sets.items() if -2 <= power - self._low <= 3}

    def _settle(self, power: int) -> bool:
        """Update one guess; True if its set is full."""
        guess = self._sets.get(power)
        if guess is None:
            guess = self._sets[power] = _Set(self._tau(power))
            guess.state_of = self._f.empty()
        guess.reach(len(self._keys))
        total = math.fsum(guess.marginals)
        live = math.fsum(gain for slot, gain in zip(guess.picks, guess.marginals, strict=True) if self._alive[slot])
        # The gains recorded at picking time bound the value of the live picks from below, so no oracle call is needed.
        if live < (_WORN if self.greedy_fill else 1 - self.eps) * total:
            self._rebuild(guess)
        elif len(guess.picks) < self.k:
            fresh = np.arange(guess.seen, len(self._keys))
            self._pass(guess, fresh[self._alive[fresh] & (self._single[fresh] >= guess.tau)])
        guess.seen = len(self._keys)
        return len(guess.picks) >= self.k

    def _rebuild(self, guess: _Set) -> None:
        """Rebuild a set from the level of its first deleted pick."""
        level = next((i for i, slot in enumerate(guess.picks) if not self._alive[slot]), len(guess.picks))
        del guess.picks[level:], guess.marginals[level:]
        guess.state_of = self._grown(guess.picks)
        open_ = self._alive & (self._single >= guess.tau) & (guess.levels[: len(self._keys)] > level)
        open_[guess.picks] = False
        self._pass(guess, self._rng.permutation(np.flatnonzero(open_)))
        guess.seen = len(self._keys)
        guess.changed = True
        self.rebuilds += 1

    def _pass(self, guess: _Set, order: Ints) -> None:
        """Scan in this order: pick items whose gain reaches the threshold, up to k; record the others' levels.

        Gains are evaluated in blocks: by submodularity a gain below the threshold stays below it, and a sufficient gain
        is re-evaluated after an intermediate pick.
        """
        position, block = 0, 1
        while position < len(order) and len(guess.picks) < self.k:
            batch = order[position : position + block]
            position += len(batch)
            gains = self._ask(guess.state_of, batch)
            able = gains >= guess.tau
            guess.levels[batch[~able]] = len(guess.picks)
            size_before = len(guess.picks)
            for slot, gain in zip(batch[able].tolist(), gains[able].tolist(), strict=True):
                if len(guess.picks) == self.k:
                    guess.levels[slot] = _OPEN
                    continue
                if len(guess.picks) > size_before:
                    gain = float(self._ask(guess.state_of, np.array([slot]))[0])
                if gain >= guess.tau:
                    guess.state_of = self._f.add(guess.state_of, self._rows.take(np.array([slot])))
                    guess.picks.append(slot)
                    guess.marginals.append(gain)
                    guess.changed = True
                else:
                    guess.levels[slot] = len(guess.picks)
            block = max(1, block // 2) if able.any() else min(2 * block, _LARGEST_BLOCK)
        guess.levels[order[position:]] = _OPEN

    def _take_all(self, live: Ints) -> None:
        """The trivial case (at most k items, or all worth 0): the first k items are optimal."""
        picks = live[: self.k].tolist()
        if picks != self._picks or len(picks) != len(self._gains):
            self._picks, self._gains = picks, self._sequence(picks)
        self._bound = math.fsum(self._gains)
        self._stale = True

    def _sequence(self, picks: list[int]) -> list[float]:
        state = self._f.empty()
        gains: list[float] = []
        for slot in picks:
            # The first gain is already known: the item's own value.
            gain = float(self._ask(state, np.array([slot]))[0]) if gains else float(self._single[slot])
            gains.append(gain)
            state = self._f.add(state, self._rows.take(np.array([slot])))
        return gains

    def _choose(self, live: Ints) -> None:
        """The best picks from the active sets."""
        assert self._low is not None
        pair = [self._sets[self._low], self._sets[self._low + 1]]
        complete = len(self._picks) == self.k and bool(self._alive[self._picks].all())
        if complete and not self._stale and not any(guess.changed for guess in pair):
            return
        offers = [[slot for slot in guess.picks if self._alive[slot]] for guess in pair]
        if self.greedy_fill:
            singles = self._single[live]
            top = live[np.argsort(-singles, kind="stable")[: _HIGHEST * self.k]].tolist()
            kept = [slot for slot in self._picks if self._alive[slot]]
            likely = live[singles >= pair[0].tau]
            drawn = self._rng.choice(likely, min(len(likely), _DRAWN * self.k), replace=False).tolist()
            candidates = sorted({*offers[0], *offers[1], *top, *drawn, *kept})
            picks, gains = self._greedy(candidates)
        else:
            picks, gains = [], []
        best = [int(live[np.argmax(self._single[live])])]
        for offer in [*offers, best]:
            known = {slot: gain for guess in pair for slot, gain in zip(guess.picks, guess.marginals, strict=True)}
            # The gains recorded at picking time suffice to rule out a worse set.
            if math.fsum(known.get(slot, self._single[slot]) for slot in offer) > math.fsum(gains) or not picks:
                worth = self._sequence(offer)
                if math.fsum(worth) > math.fsum(gains):
                    picks, gains = offer, worth
        if len(picks) < self.k:
            chosen = set(picks)
            spare = [slot for slot in live.tolist() if slot not in chosen][: self.k - len(picks)]
            picks = picks + spare
            gains = self._sequence(picks)
        self._picks, self._gains, self._stale = picks, gains, False
        for guess in pair:
            guess.changed = False

    def _greedy(self, candidates: list[int]) -> tuple[list[int], list[float]]:
        """Lazy greedy over a few candidates; their known own values are the initial upper bounds."""
        heap = [(-float(self._single[slot]), slot, 0) for slot in candidates]
        heapq.heapify(heap)
        state = self._f.empty()
        picks: list[int] = []
        gains: list[float] = []
        while heap and len(picks) < self.k:
            bound, slot, size = heap[0]
            if size == len(picks):
                heapq.heappop(heap)
                picks.append(slot)
                gains.append(-bound)
                state = self._f.add(state, self._rows.take(np.array([slot])))
            else:
                gain = float(self._ask(state, np.array([slot]))[0])
                heapq.heapreplace(heap, (-gain, slot, len(picks)))
        return picks, gains

    def _plan(self) -> Selection:
        self._refresh()
        live = np.flatnonzero(self._alive)
        position = np.full(len(self._keys), -1, np.int64)
        position[live] = np.arange(len(live))
        m = len(self._picks)
        return Selection(
            n=len(live),
            indices=position[self._picks] if m else np.empty(0, np.int64),
            gains=np.array(self._gains, np.float64),
            value=math.fsum(self._gains),
            bound=self._bound,
            status="optimal" if len(live) <= self.k else "approximate",
            ids=self._keys[live],
            objective=self._f.name,
            info={"rebuilds": self.rebuilds, "inserted": self.inserted, "deleted": self.deleted},
        )

    def _compact(self) -> None:
        """Reclaim the slots of deleted items that are not ghosts of any set."""
        keep = self._alive.copy()
        for guess in self._sets.values():
            keep[guess.picks] = True
        kept = np.flatnonzero(keep)
        moved = np.full(len(self._keys), -1, np.int64)
        moved[kept] = np.arange(len(kept))
        self._rows.keep(kept)
        self._keys, self._alive, self._single = self._keys[kept], self._alive[kept], self._single[kept]
        live = np.flatnonzero(self._alive)
        self._slots = dict(zip(self._keys[live].tolist(), live.tolist(), strict=True))
        for guess in self._sets.values():
            guess.move(kept, moved)
        # A deleted pick leaves the list shorter than k, which tells `_choose` to search again.
        self._picks = [int(moved[slot]) for slot in self._picks if moved[slot] >= 0 and self._alive[moved[slot]]]
        self._gains, self._stale = [], True


class _Set:
    """One guess of the optimum: picks (including ghosts) with their gains, and every other item's level."""

    def __init__(self, tau: float, state: dict[str, Any] | None = None) -> None:
        saved = state or {"picks": [], "marginals": [], "levels": np.empty(0, np.int32), "seen": 0, "changed": True}
        self.tau = tau
        self.picks: list[int] = list(saved["picks"])
        self.marginals: list[float] = list(saved["marginals"])
        self.levels = np.array(saved["levels"], np.int32)
        self.seen = int(saved["seen"])
        self.changed = bool(saved["changed"])
        self.state_of: Any = None

    def state(self) -> dict[str, Any]:
        """Everything but the state of the function, which the picks give."""
        levels = self.levels.copy()
        return {
            "picks": list(self.picks),
            "marginals": list(self.marginals),
            "levels": levels,
            "seen": self.seen,
            "changed": self.changed,
        }

    def reach(self, slots: int) -> None:
        """Extend the levels to all slots."""
        if slots > len(self.levels):
            more = np.full(max(slots, 2 * len(self.levels)) - len(self.levels), _OPEN, np.int32)
            self.levels = np.concatenate([self.levels, more])

    def move(self, kept: Ints, moved: Ints) -> None:
        """Renumber the slots."""
        self.reach(len(moved))
        self.seen = int((kept < self.seen).sum())
        self.levels = self.levels[kept]
        self.picks = [int(moved[slot]) for slot in self.picks]


def _joined(known: NDArray[Any], fresh: NDArray[Any]) -> NDArray[Any]:
    """Concatenate keys; mixed kinds become objects, so that 1 and "1" stay distinct."""
    if not len(known):
        return fresh
    same = known.dtype.kind == fresh.dtype.kind
    return np.concatenate([known, fresh] if same else [known.astype(object), fresh.astype(object)])
