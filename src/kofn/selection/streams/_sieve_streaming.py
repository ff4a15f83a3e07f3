"""Streaming submodular maximisation by sieves, one for each guess of the optimum."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.stepper import Example, Share, Stepper, new_keys, stepper
from kofn.objectives.similarity import refuse_extremes
from kofn.selection.streams._examples import pools
from kofn.selection.streams._row_functions import encoded, grid, promise_of, row_count, row_function

__all__ = ["SieveStreaming", "sieve_streaming", "stream_file"]

VARIANTS = ("sieve", "sieve++")
_CHUNK = 2048
_LARGEST_BLOCK = 256


def _example(rng: np.random.Generator) -> Example:
    pool = pools()[rng.integers(4)]
    k, eps = int(rng.integers(1, 5)), float(rng.choice([0.1, 0.2, 0.3]))
    arguments = {
        **pool.arguments,
        "eps": eps,
        "variant": VARIANTS[rng.integers(2)],
        "greedy_fill": bool(rng.integers(2)),
    }
    return Example(lambda _seed: SieveStreaming(k, **arguments), rows=pool.rows, worth=pool.worth)


@stepper(
    "select",
    paper=("kazemi2019", "badanidiyuru2014"),
    cost="one oracle call an item and one for each sieve that could use it; memory O(k / eps) rows",
    exact="1/2 - eps of the optimum of what was seen",
    events=("insert",),
    aliases=("streaming submodular maximization", "one pass", "sieve++"),
    draws=_example,
)
class SieveStreaming(Stepper[Selection]):
    """Sieve streaming: pick k rows in one pass, storing O(k log(k) / eps) ("sieve") or O(k / eps) ("sieve++") rows.

    For each guess of the optimum consistent with the largest single value so far, a sieve keeps an item whose gain
    reaches a threshold: (guess / 2 - current value) / (remaining slots) in "sieve", a fixed one in "sieve++", which
    also drops sieves whose threshold is too low given the best value so far. The best sieve is returned.

    Args:
        k: number of picks.
        eps: the guarantee is 1/2 - eps; in (0, 0.5], smaller values store more rows and cost more calls.
        variant: "sieve++" (default) or "sieve".
        objective, reference, metric, weights: as in `kofn.selection.streams._dynamic_selection.DynamicSelection`.
        greedy_fill: also run lazy greedy over all stored rows, return the better result and fill its empty slots
            (default). False returns the best sieve, filled with the first stored rows.

    Attributes:
        oracle_calls: evaluations of f(S + e) so far.
        seen: items so far.
        held: rows stored now. most_held: the maximum so far.
        plan: the current Selection. `ids` are those of all items seen; `bound` is an upper bound on the optimum over
            them, `guarantee` is 1/2 - eps, and `short` counts the missing picks while fewer than k items were seen.

    Raises:
        InputError: eps outside (0, 0.5], a duplicate id, rows of another width.

    The picks do not depend on the batching of the stream; the number of calls does slightly. Given ids are all stored,
    to refuse duplicates; with `ids=None` rows are numbered and no ids are stored.

    References:
        Badanidiyuru, Mirzasoleiman, Karbasi, Krause, "Streaming Submodular Maximization: Massive Data Summarization on
        the Fly", KDD 2014 ("sieve"). Kazemi, Mitrovic, Zadimoghaddam, Lattanzi, Karbasi, "Submodular Streaming in All
        Its Glory: Tight Approximation, Minimum Memory and Low Adaptive Complexity", ICML 2019 ("sieve++").

    Examples:
        >>> stream = SieveStreaming(2, objective="coverage")
        >>> stream.insert(None, [[1, 1, 1, 0], [1, 1, 0, 0]])
        >>> stream.insert(None, [[0, 0, 0, 1]])
        >>> stream.plan.indices.tolist(), stream.plan.value
        ([0, 2], 4.0)
    """

    state: ClassVar = {
        "held": "held",
        "single": "held",
        "most": "",
        "reached": "",
        "highest": "",
        "seen": "",
        "most_held": "",
    }

    def __init__(
        self,
        k: int,
        *,
        eps: float = 0.1,
        variant: str = "sieve++",
        objective: Any = "facility_location",
        reference: ArrayLike | None = None,
        metric: str = "euclidean",
        weights: Any = None,
        greedy_fill: bool = True,
    ) -> None:
        self.k = checks.count(k, "k")
        self.eps = promise_of(eps)
        self.variant = checks.choice(variant, "variant", VARIANTS)
        self.greedy_fill = checks.flag(greedy_fill, "greedy_fill")
        self._f = row_function(objective, reference, metric, weights)
        super().__init__(
            k=self.k,
            eps=self.eps,
            variant=self.variant,
            **self._f.settings,
            greedy_fill=self.greedy_fill,
        )
        self.promise = Share(0.5 - self.eps)
        self._rows = self._f.storage()
        self._keys: dict[Hashable, int] | None = None
        self._sieves: dict[int, _Sieve] = {}
        # Position in the stream and own worth of each row held, in the order of the store.
        self._held = np.empty(0, np.int64)
        self._single = np.empty(0)
        self._most = self._reached = 0.0
        self._highest: int | None = None
        self.seen = self.most_held = 0

    def __len__(self) -> int:
        return self.seen

    @property
    def held(self) -> int:
        """Number of rows stored now."""
        return len(self._held)

    def insert(self, ids: Any, X: Any) -> None:
        """Process a batch: `ids` (m,) new keys, or None to number the rows; `X` (m, d).

        Raises:
            InputError: a duplicate id, ids in some batches only, rows of another width, NaN or infinity.
                Nothing of the batch is processed then.
        """
        m = row_count(X)
        keys = self._new_keys(ids, m)
        rows, single = encoded(self._f, X)
        self.oracle_calls += m
        if keys is not None:
            self._keys = self._keys or {}
            self._keys.update(zip(keys, range(self.seen, self.seen + m), strict=True))
        batch = self._f.storage()
        batch.append(rows)
        for low in range(0, m, _CHUNK):
            self._read(batch, np.arange(low, min(low + _CHUNK, m)), single)
            self.seen += min(low + _CHUNK, m) - low

    def _get_state(self) -> dict[str, Any]:
        return {
            **super()._get_state(),
            "width": self._f.width,
            "keys": None if self._keys is None else list(self._keys),
            "rows": self._rows.state(),
            "sieves": {power: (list(sieve.picks), list(sieve.gains)) for power, sieve in self._sieves.items()},
        }

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        self._f.width = state["width"]
        self._keys = None if state["keys"] is None else {key: position for position, key in enumerate(state["keys"])}
        self._rows.restore(state["rows"])
        checks.same_length(len(self._held), "state['held']", "state['rows']", len(self._rows))
        self._sieves = {}
        for power, (picks, gains) in state["sieves"].items():
            sieve = self._sieves[int(power)] = _Sieve(self._f.empty())
            for slot, gain in zip(picks, gains, strict=True):
                sieve.add(slot, gain, self._f.add(sieve.state, self._rows.take(np.array([slot]))))

    def _new_keys(self, ids: Any, m: int) -> list[Hashable] | None:
        if ids is None:
            if self._keys is not None:
                raise InputError("ids is None, and earlier batches had ids; give ids with every batch or with none")
            return None
        if self._keys is None and self.seen:
            raise InputError("ids are given, and earlier batches had none; give ids with every batch or with none")
        keys = new_keys(ids, self._keys or {})
        checks.same_length(m, "X", "ids", len(keys))
        return keys

    def _threshold(self, power: int, sieve: _Sieve) -> float:
        level = float((1 + self.eps) ** power)
        if self.variant == "sieve++":
            return level
        return (level / 2 - sieve.value) / (self.k - len(sieve.picks))

    def _floor(self) -> float:
        """The least guess or threshold that needs a sieve."""
        if self.variant == "sieve":
            return self._most
        return max(self._reached, self._most) / (2 * self.k) / (1 + self.eps)

    def _read(self, batch: Any, slots: Ints, single: Floats) -> None:
        """Pass one chunk through all sieves.

        A sieve that only the chunk's last item calls for may read the whole chunk: what came before is too small for it
        on its own. So sieves are made first, and what each takes is noted to drop them in the order of the stream.
        """
        singles = single[slots]
        tops = np.maximum.accumulate(np.concatenate([[self._most], singles]))[1:]
        top = float(tops[-1])
        taken: dict[int, list[tuple[int, float]]] = {}
        if top > 0:
            reach = top if self.variant == "sieve++" else 2 * self.k * top
            last = grid(reach, self.eps)
            if self._highest is None:
                lowest = tops[tops > 0][0]
                start = lowest / (2 * self.k) / (1 + self.eps) if self.variant == "sieve++" else lowest
                self._highest = grid(float(start), self.eps) - 1
            for power in range(self._highest + 1, last + 1):
                self._sieves[power] = _Sieve(self._f.empty())
            self._highest = max(self._highest, last)
            for power, sieve in self._sieves.items():
                taken[power] = self._sift(power, sieve, batch, slots, singles)
        dropped = self._drop(taken, tops)
        self._keep(batch, slots, single, taken, dropped)

    def _sift(self, power: int, sieve: _Sieve, batch: Any, slots: Ints, singles: Floats) -> list[tuple[int, float]]:
        """The items that one sieve picks from the chunk, as (position in the chunk, gain)."""
        most, taken = singles.copy(), []
        position, block = 0, 1
        while len(sieve.picks) < self.k:
            least = self._threshold(power, sieve)
            candidates = position + np.flatnonzero(most[position:] >= least)[:block]
            if not len(candidates):
                break
            gains = self._f.gains(sieve.state, batch.take(slots[candidates]))
            self.oracle_calls += len(candidates)
            most[candidates] = gains
            able = np.flatnonzero(gains >= least)
            if not len(able):
                position, block = int(candidates[-1]) + 1, min(2 * block, _LARGEST_BLOCK)
                continue
            pick, gain = int(candidates[able[0]]), float(gains[able[0]])
            # -1 stands for the slot, which `_keep` assigns once the row is stored.
            sieve.add(-1, gain, self._f.add(sieve.state, batch.take(slots[[pick]])))
            taken.append((pick, gain))
            position, block = pick + 1, max(1, block // 2)
        return taken

    def _drop(self, taken: dict[int, list[tuple[int, float]]], tops: Floats) -> set[int]:
        """Drop sieves as if items had arrived one by one; a dropped sieve no longer affects the others."""
        events = sorted((position, power, gain) for power, accepted in taken.items() for position, gain in accepted)
        values = {
            power: sieve.value - math.fsum(gain for _, gain in taken.get(power, ()))
            for power, sieve in self._sieves.items()
        }
        dropped: set[int] = set()
        before = self._reached
        current = -1
        for position, power, gain in events:
            if position != current:
                self._reached, current = before, position
                self._most = float(tops[position])
                dropped |= self._below()
            if power not in dropped:
                values[power] += gain
                before = max(before, values[power])
        self._reached = before
        self._most = float(tops[-1])
        dropped |= self._below()
        for power in dropped:
            del self._sieves[power]
        return dropped

    def _below(self) -> set[int]:
        floor = self._floor()
        return {power for power in self._sieves if (1 + self.eps) ** power < floor}

    def _keep(
        self, batch: Any, slots: Ints, single: Floats, taken: dict[int, list[tuple[int, float]]], dropped: set[int]
    ) -> None:
        """Store the rows of all sieves, and the first k rows of the stream, which fill empty slots."""
        positions = {position for power, accepted in taken.items() if power not in dropped for position, _ in accepted}
        positions |= set(range(min(len(slots), max(0, self.k - self.seen))))
        fresh = np.array(sorted(positions), np.int64)
        if len(fresh):
            slot_of = {position: len(self._held) + i for i, position in enumerate(fresh.tolist())}
            self._rows.append(batch.take(slots[fresh]))
            self._held = np.concatenate([self._held, self.seen + fresh])
            self._single = np.concatenate([self._single, single[slots[fresh]]])
            for power, accepted in taken.items():
                if power not in dropped and accepted:
                    sieve = self._sieves[power]
                    sieve.picks[-len(accepted) :] = [slot_of[position] for position, _ in accepted]
        used = {slot for sieve in self._sieves.values() for slot in sieve.picks}
        used |= set(np.flatnonzero(self._held < self.k).tolist())
        if len(used) < len(self._held):
            kept = np.array(sorted(used), np.int64)
            moved = np.full(len(self._held), -1, np.int64)
            moved[kept] = np.arange(len(kept))
            self._rows.keep(kept)
            self._held, self._single = self._held[kept], self._single[kept]
            for sieve in self._sieves.values():
                sieve.picks = moved[sieve.picks].tolist()
        self.most_held = max(self.most_held, len(self._held))

    def _plan(self) -> Selection:
        best = max(self._sieves.values(), key=lambda sieve: sieve.value, default=_Sieve(None))
        picks, gains = list(best.picks), list(best.gains)
        room = min(self.k, self.seen)
        if self.greedy_fill and self._sieves:
            greedy = self._greedy([], room)
            if math.fsum(greedy[1]) > math.fsum(gains):
                picks, gains = greedy
        if len(picks) < room:
            picks, gains = self._greedy(picks, room) if self.greedy_fill else self._first(picks, room)
        value = math.fsum(gains)
        bounds = [float(self.k * self._most)]
        for power, sieve in self._sieves.items():
            # A sieve that never filled up turned every other item away at this threshold or a lower one.
            if len(sieve.picks) < self.k:
                level = float((1 + self.eps) ** power)
                bounds.append(sieve.value + (self.k * level if self.variant == "sieve++" else level / 2))
        few = self.seen <= self.k
        keys = None if self._keys is None else checks.ids(list(self._keys))
        return Selection(
            n=self.seen,
            indices=self._held[picks] if picks else np.empty(0, np.int64),
            gains=np.array(gains, np.float64),
            value=value,
            bound=value if few else max(value, min(bounds)),
            status="optimal" if few else "approximate",
            ids=keys,
            objective=self._f.name,
            info={"held": self.held, "most_held": self.most_held, "sieves": len(self._sieves)},
        )

    def _greedy(self, picks: list[int], room: int) -> tuple[list[int], list[float]]:
        """Lazy greedy over the stored rows, starting from `picks`."""
        picks, gains = self._first(picks, len(picks))
        state = self._f.empty()
        for slot in picks:
            state = self._f.add(state, self._rows.take(np.array([slot])))
        heap = [(-float(self._single[slot]), slot, 0) for slot in range(len(self._held)) if slot not in set(picks)]
        heapq.heapify(heap)
        while heap and len(picks) < room:
            bound, slot, round_ = heap[0]
            if round_ == len(picks):
                heapq.heappop(heap)
                picks.append(slot)
                gains.append(-bound)
                state = self._f.add(state, self._rows.take(np.array([slot])))
            else:
                gain = float(self._f.gains(state, self._rows.take(np.array([slot])))[0])
                self.oracle_calls += 1
                heapq.heapreplace(heap, (-gain, slot, len(picks)))
        return picks, gains

    def _first(self, picks: list[int], room: int) -> tuple[list[int], list[float]]:
        """`picks`, then the first stored rows, with the gain of each."""
        chosen = set(picks)
        picks = (picks + [slot for slot in range(len(self._held)) if slot not in chosen])[:room]
        state, gains = self._f.empty(), []
        for slot in picks:
            row = self._rows.take(np.array([slot]))
            gains.append(float(self._f.gains(state, row)[0]))
            state = self._f.add(state, row)
        self.oracle_calls += len(picks)
        return picks, gains


class _Sieve:
    """The picks of one guess, by their slot in the store, and their gains."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.value = 0.0

    def add(self, slot: int, gain: float, state: Any) -> None:
        """Add a pick."""
        self.picks.append(slot)
        self.gains.append(gain)
        self.value = math.fsum(self.gains)
        self.state = state


@method(
    "select",
    # The thresholds are powers of 1 + eps in any unit.
    draws=Draw(options={"eps": (0.01, 0.1, 0.5)}, scale_free=False),
    cost="O(n r (d + log(k) / eps)) time, O(r k / eps) memory beside X, one pass",
    exact="1/2 - eps of the optimum over the reference rows",
    paper="kazemi2019",
)
def sieve_streaming(
    X: Any,
    *,
    k: int,
    metric: str = "euclidean",
    seed: int | None = None,
    eps: float = 0.1,
    variant: str = "sieve++",
    reference: ArrayLike | None = None,
    n_reference: int = 512,
    greedy_fill: bool = True,
) -> Selection:
    """Sieve streaming: pick k representative rows in one pass; X may be memory-mapped and larger than memory.

    Args:
        X: (n, d) vectors; `np.load(path, mmap_mode="r")` is read block by block.
        k: number of picks.
        metric: "euclidean" (default), "sqeuclidean" or "cosine".
        seed: for the sample of reference rows.
        eps: the guarantee is 1/2 - eps; in (0, 0.5].
        variant: "sieve++" (default, Kazemi et al. 2019) or "sieve" (Badanidiyuru et al. 2014).
        reference: (r, d) rows that represent the pool; by default a random sample of `n_reference` rows of X.
        n_reference: size of that sample, at most n.
        greedy_fill: order and complete the picks by lazy greedy over the stored rows, if better (default).

    Returns:
        Selection in the order picked. `value` is what the picks save of the summed distance of the reference rows to
        their mean (for "cosine": the summed similarity (1 + cos) / 2 to the nearest pick), `bound` an upper bound on
        its optimum; `info` has `reference` (their row numbers), `most_held` and `guarantee`.

    Raises:
        InputError: eps outside (0, 0.5], a reference of another width, k > n.

    Cost: one gain a row for its own worth and one for each sieve that could use it, O(r) each, r reference rows; the
    rows held, at most k (log(2 k) / eps + 2), have r numbers each. The guarantee is 1/2 - eps of the optimum over
    the reference rows, for any order of X; how well they represent the pool depends on their number.
    `SieveStreaming` is the same one batch at a time.

    References:
        Badanidiyuru et al., KDD 2014; Kazemi et al., ICML 2019.

    Examples:
        >>> X = np.repeat([[0.0], [9.0]], 20, axis=0)
        >>> plan = sieve_streaming(X, k=2, seed=0)
        >>> sorted(X[plan.indices, 0].tolist()), plan.guarantee
        ([0.0, 9.0], 0.4)
    """
    if k > len(X):
        raise checks.InfeasibleError(f"k={k} of {len(X)} items; ask for k <= {len(X)}")
    rows: Ints | None = None
    if reference is None:
        size = min(checks.count(n_reference, "n_reference"), len(X))
        rows = np.sort(np.random.default_rng(seed).choice(len(X), size, replace=False)).astype(np.int64)
        reference = np.asarray(X[rows])
        if metric == "sqeuclidean":
            refuse_extremes(reference)
    _same_metric(metric)
    stream = SieveStreaming(k, eps=eps, variant=variant, reference=reference, metric=metric, greedy_fill=greedy_fill)
    step = max(1, 8 * _CHUNK)
    for low in range(0, len(X), step):
        stream.insert(None, np.asarray(X[low : low + step]))
    plan = stream.plan
    return plan if rows is None else dataclasses.replace(plan, info={**plan.info, "reference": rows})


@helper
def stream_file(
    path: str | PathLike[str],
    *,
    k: int,
    columns: Sequence[str] | None = None,
    vectors: str | None = None,
    reference: ArrayLike | None = None,
    n_reference: int = 512,
    rows: int = 8192,
    seed: int = 0,
    **options: Any,
) -> Selection:
    """Pick k rows of a file that may be larger than memory: NPY, NPZ, Parquet, CSV, TSV or JSONL.

    Args:
        path, columns, vectors, rows: as in `kofn.io.batches.row_batches`; memory is that of a block of `rows` rows.
        k: number of picks.
        reference: (r, d) rows that represent the file; by default a random sample of `n_reference` rows, drawn in a
            pass of its own.
        n_reference, seed: size and seed of that sample.
        options: options of `SieveStreaming`: `eps`, `variant`, `metric`, `objective`, `weights`, `greedy_fill`.

    Returns:
        The stream's plan; `indices` are row numbers of the file.

    Raises:
        InputError: an unusable file, column or value (with its row); as `SieveStreaming`.

    Examples:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "rows.npy"
        >>> np.save(path, np.repeat([[0.0], [5.0]], 10, axis=0))
        >>> sorted(stream_file(path, k=2).indices.tolist())
        [0, 10]
    """
    from kofn.io.batches import row_batches
    from kofn.io.opening import open_table

    if options.get("objective", "facility_location") == "facility_location" and reference is None:
        n = open_table(path).n
        size = min(checks.count(n_reference, "n_reference"), n)
        chosen = np.sort(np.random.default_rng(checks.entropy(seed)).choice(n, size, replace=False))
        parts, start = [], 0
        for block in row_batches(path, columns=columns, vectors=vectors, rows=rows):
            inside = chosen[(chosen >= start) & (chosen < start + len(block))] - start
            parts.append(block[inside])
            start += len(block)
        reference = np.concatenate(parts)
    stream = SieveStreaming(k, reference=reference, **options)
    for block in row_batches(path, columns=columns, vectors=vectors, rows=rows):
        stream.insert(None, block)
    return stream.plan


def _same_metric(metric: str) -> None:
    if metric == "precomputed":
        raise InputError("metric='precomputed' has no rows to compare with a reference; give vectors")
