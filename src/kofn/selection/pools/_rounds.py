"""The steps of two rounds over a pool: picks of the parts, picks of those, a look at all rows, and the plan."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn._version import __version__
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.constraints import Constraints, Tracker
from kofn.core.plans import Selection
from kofn.core.pools import Pool, Unit, cut, whole
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.kcenter import distances_to
from kofn.objectives.similarity import geometry
from kofn.selection.greedy._run import greedy
from kofn.selection.greedy._search import PartSearch, Search
from kofn.selection.pools._kept import Kept
from kofn.selection.pools._parts import Ask, Handed, Picked, Rows, Seen, costs_of, hand_over, look
from kofn.selection.pools._sizes import (
    FRAGMENT_ROWS,
    Rounds,
    deep_parts,
    handed_by_a_part,
    handed_by_a_shallow_part,
    judges_of,
    rows_of_a_fragment,
)

# Rows of a fragment at the most.
_FRAGMENT_ROWS = FRAGMENT_ROWS
# Rows of the sample that are compared at once.
_SAMPLE_ROWS = 1 << 12
# Round 1 takes no more than this share of a time limit.
_ROUND_1 = 0.6
# Picks of so many single parts compete with those of round 2; which, is judged by so many rows, from so many parts.
# Those that serve the sample worse by so many standard errors are out: by chance that happens once in a billion times.
_RIVALS, _RIVAL_ROWS, _RIVAL_PARTS, _SURELY = 3, 1_000, 1_000, 6.0


@dataclass(frozen=True)
class Outcome:
    """What round 2 found: the picks, whether time was short, from how many candidates, with how many evaluations."""

    picks: Ints
    stopped: bool
    candidates: int
    oracle_calls: int


@dataclass(kw_only=True)
class Run:
    """One call: what was asked, and the steps from the pool to the plan."""

    pool: Pool
    constraints: Constraints
    weights: Floats | None
    metric: str
    seed: int
    part_rows: int
    n_reference: Any
    bound_rows: int
    deal: str
    n_threads: int | None
    progress: bool | None
    time_limit: float | None
    max_memory: int | None
    top: float | None

    def __post_init__(self) -> None:
        self.began = time.monotonic()
        n = self.pool.n
        self.parts = -(-n // self.part_rows)
        asked = self.constraints.k
        # All rows judge a part where that was asked for, or where there is one.
        self.all_judge = self.parts == 1 if self.n_reference is None else self.n_reference >= n
        self.given_reference = self.n_reference
        if self.n_reference is None:
            self.n_reference = judges_of(asked)
        self.handed = asked if self.all_judge else handed_by_a_part(n, asked, self.part_rows)
        self.deep = 1.0 if self.all_judge else deep_parts(n, asked, self.part_rows)
        self.shallow = handed_by_a_shallow_part(self.handed, self.part_rows)
        self.fixed = self.constraints.preselected
        # Distances computed so far.
        self.pairs = 0

    def left(self) -> float | None:
        """Seconds that are left of the limit."""
        return None if self.time_limit is None else max(1e-9, self.time_limit - (time.monotonic() - self.began))

    def settings(self) -> dict[str, Any]:
        """What the results of a fragment depend on."""
        state = hashlib.blake2b(digest_size=16)
        for part in (self.weights, self.constraints.banned, self.fixed):
            state.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
        for column in self.constraints.columns:
            for part in (column.codes, column.least, column.most):
                state.update(np.ascontiguousarray(part).tobytes())
        names = ("metric", "seed", "part_rows", "n_reference", "bound_rows", "deal")
        return {
            "rows": self.pool.digest,
            "k": self.constraints.k,
            **{name: getattr(self, name) for name in names},
            "weights and constraints": state.hexdigest(),
            "version": __version__,
        }

    def at_once(self, where: Any) -> Selection:
        """A pool that is one part and judged by all its rows is searched as it is."""
        given = {
            "X": whole(self.pool),
            "objective": "facility_location",
            "k": self.constraints.k,
            "weights": self.weights,
            "metric": self.metric,
            "max_memory": self.max_memory,
            "time_limit": self.time_limit,
            "n_threads": self.n_threads,
            "progress": self.progress,
        }
        plan = greedy({**given, **where}, Search)
        facts = {"parts": 1, "part_rows": self.part_rows, "n_reference": self.pool.n, "candidates": self.pool.n}
        return dataclasses.replace(plan, info={**plan.info, **facts, "answer": "round 2", "expected_guarantee": None})

    def refuse_memory(self) -> None:
        """Refuse a limit that the work would not keep."""
        pool, asked = self.pool, (self.constraints.k, self.part_rows, self.given_reference, self.bound_rows)
        rounds = Rounds(pool.n, pool.width, pool.dtype.itemsize, *asked, n_threads=self.n_threads)
        rounds.refuse_memory(self.max_memory)

    def _fragment_rows(self) -> int:
        return rows_of_a_fragment(self.pool.width, self.pool.dtype.itemsize, self.part_rows, _FRAGMENT_ROWS)

    def _sample(self, count: int, stream: int) -> Ints:
        """Rows drawn at random, rising: of those that count, as far as there are any."""
        rng = np.random.default_rng([self.seed, stream])
        counting: Any = self.pool.n
        if self.weights is not None and (self.weights > 0).any():
            counting = np.flatnonzero(self.weights > 0)
        room = counting if isinstance(counting, int) else len(counting)
        return np.sort(rng.choice(counting, min(count, room), replace=False)).astype(np.int64)

    def _weights_of(self, rows: Ints) -> Floats:
        return np.ones(len(rows)) if self.weights is None else self.weights[rows]

    def looked(self, engine: Engine, kept: Kept) -> tuple[Outcome, Sequence[Ints], Sequence[Seen]]:
        """What both rounds found, the sets of picks that are compared, and what a look at all rows says of them."""
        rng = np.random.default_rng([self.seed, 1])
        order = rng.permutation(self.pool.n) if self.deal == "random" else None
        self.rows = Rows(self.pool, order, self.weights, self.constraints.banned)
        rows = self._fragment_rows()
        self.fragments = self.pool.fragments(rows) if order is None else cut([Unit("", 0, self.pool.n)], rows)
        self.judges, self.bounding = self._sample(self.n_reference, 2), self._sample(self.bound_rows, 3)
        share = None if self.time_limit is None else _ROUND_1 * self.time_limit
        total = len(self.fragments)
        with Control(time_limit=share, progress=self.progress, total=total, title="round 1") as control:
            handed = self._round_1(engine, kept, control)
            interrupted = control.interrupted
        complete = len(handed) == total and all(part.complete for part in handed)
        total = self.constraints.k
        with Control(time_limit=self.left(), progress=self.progress, total=total, title="round 2") as control:
            if interrupted:
                control.interrupt()
            outcome = self._round_2(handed, complete, control)
            sets = [outcome.picks, *(() if outcome.stopped else self._rivals(handed, outcome.picks))]
            looked = [] if control.interrupted else self._look(engine, kept, control, sets, handed)
        return outcome, sets, looked

    def _round_1(self, engine: Engine, kept: Kept, control: Control) -> list[Handed]:
        columns, offset = self.constraints.columns, 0
        groups, room, needs = [], [], []
        for column in columns:
            groups.append(column.codes + offset)
            picked = column.counts(self.fixed)
            room.append(column.most - picked)
            needs.append(column.least - picked)
            offset += len(column.names)
        none = np.empty(0, np.int64)
        self.needed = Tracker(self.constraints).filling(np.arange(self.pool.n))
        banned = self.constraints.banned.copy()
        banned[self.fixed] = True
        self.rows = dataclasses.replace(self.rows, banned=banned)
        reference = (self.pool.take(self.judges), self._weights_of(self.judges)) if self.all_judge else None
        self.fixed_vectors = self.pool.take(self.fixed)
        ask = Ask(
            rows=self.rows,
            metric=self.metric,
            seed=self.seed,
            part_rows=self.part_rows,
            k=max(0, self.handed - len(self.fixed)) if self.handed == self.constraints.k else self.handed,
            deep=self.deep,
            shallow=self.shallow,
            n_reference=self.n_reference,
            reference=reference,
            fixed=self.fixed_vectors,
            groups=np.array(groups, np.int64).reshape(len(columns), self.pool.n),
            room=np.concatenate([none, *room]),
            needs=np.concatenate([none, *needs]),
            wanted=np.unique(np.concatenate([self.judges, self.bounding, self.needed])),
        )
        results = kept.map(
            engine, hand_over, self.fragments, "round1", Handed, shared=(engine.share(ask),), stopped=control.stopped
        )
        handed = []
        for fragment, part in zip(self.fragments, results, strict=False):
            handed.append(part)
            rows = -(-fragment.rows // -(-fragment.rows // self.part_rows))
            self.pairs += fragment.rows * (len(self.judges) if self.all_judge else min(rows, self.n_reference))
            control.step(len(handed))
        return handed

    def _round_2(self, handed: Sequence[Handed], complete: bool, control: Control) -> Outcome:
        """k of what the parts handed over, by the gains on the fresh sample; completed where there was no time."""
        constraints, picked = self.constraints, [self.fixed]
        oracle_calls = 0
        rows, vectors = self._candidates(handed)
        sample, sampled = self._brought(handed, self.judges)
        usable = len(sample) and len(rows) and not control.interrupted and (complete or len(constraints.columns) < 2)
        # Ctrl-C may come when the last part is through.
        stopped = not complete or control.interrupted
        if usable:
            inside = _restricted(constraints, rows, feasible=complete)
            objective = FacilityLocation(
                vectors,
                reference=sampled,
                weights=self._weights_of(sample),
                metric=self.metric,
                n_threads=self.n_threads,
            )
            search = PartSearch(objective, inside, control, True)
            search.run()
            oracle_calls = objective.calls
            self.pairs += objective.distance_evals
            chosen = rows[search.picks[: search.picks_in_time]]
            stopped |= search.stopped
        else:
            # No round 2: what the first part picked.
            chosen = handed[0].picks[: handed[0].ends[0]] if handed and len(handed[0].ends) else np.empty(0, np.int64)
        chosen = chosen[~np.isin(chosen, self.fixed)]
        if stopped:
            chosen = _completed(Tracker(constraints), chosen, control)
        picked.append(chosen)
        return Outcome(np.concatenate(picked), stopped, len(rows), oracle_calls)

    def _brought(self, handed: Sequence[Handed], rows: Ints) -> tuple[Ints, Array]:
        """Those of the rows that round 1 has brought, rising, and their vectors."""
        numbers = np.concatenate([rows[:0], *(part.wanted for part in handed)])
        none = np.empty((0, self.pool.width), self.pool.dtype)
        vectors = np.concatenate([none, *(part.brought for part in handed)])
        keep = np.isin(numbers, rows)
        order = np.argsort(numbers[keep], kind="stable")
        return numbers[keep][order], vectors[keep][order]

    def _candidates(self, handed: Sequence[Handed]) -> tuple[Ints, Array]:
        """All rows that the parts handed over, those picked beforehand and some that complete them, rising."""
        needed, completing = self._brought(handed, self.needed)
        rows = np.concatenate([self.fixed, needed, *(part.picks for part in handed)])
        vectors = np.concatenate([self.fixed_vectors, completing, *(part.vectors for part in handed)])
        unique, first = np.unique(rows, return_index=True)
        return unique, vectors[first]

    def _rivals(self, handed: Sequence[Handed], picks: Ints) -> list[Ints]:
        """The picks of the parts that serve the sample best, where those are answers to the call and may be better."""
        slots = self.constraints.k - len(self.fixed)
        if self.constraints.columns or self.handed < self.constraints.k or not slots:
            return []
        sample, sampled = self._brought(handed, self.judges)
        step = 1 if self.all_judge else max(1, len(sample) // _RIVAL_ROWS)
        few, weights = sampled[::step], self._weights_of(sample[::step])
        own = [
            (part.picks[low:high], part.vectors[low:high])
            for part in handed
            for low, high in zip([0, *part.ends[:-1]], part.ends, strict=True)
            if high - low == slots
        ]
        own = own[:: max(1, len(own) // _RIVAL_PARTS)]
        totals = [float(weights @ self._near(few, vectors)) for _, vectors in own]
        best = [own[part] for part in np.argsort(totals, kind="stable")[:_RIVALS].tolist()]
        weights, chosen = self._weights_of(sample), self.pool.take(picks)
        near = self._near(sampled, chosen) if best else np.empty(0)
        rivals = []
        for rows, vectors in best:
            more = weights * (self._near(sampled, vectors) - near)
            if more.mean() <= _SURELY * more.std() / math.sqrt(len(more)):
                rivals.append(np.concatenate([self.fixed, rows]))
        return rivals

    def _near(self, sampled: Array, vectors: Array) -> Floats:
        """What each row of a sample pays with what is picked beforehand and these."""
        space = geometry(np.vstack([sampled, self.fixed_vectors, vectors]), self.metric)
        near = np.full(len(sampled), np.inf)
        self.pairs += len(sampled) * (space.n - len(sampled))
        for low in range(0, len(sampled), _SAMPLE_ROWS):
            block = np.arange(low, min(low + _SAMPLE_ROWS, len(sampled)))
            near[block] = costs_of(space, np.arange(len(sampled), space.n), block).min(axis=1)
        return near * space.unit

    def _look(
        self, engine: Engine, kept: Kept, control: Control, sets: Sequence[Ints], handed: Sequence[Handed]
    ) -> list[Seen]:
        """A look at every fragment with the picks at hand; nothing where the time did not do for all of them."""
        counts = np.array([fragment.rows for fragment in self.fragments[: len(handed)]], np.float64)
        centre = np.average([part.mean for part in handed], axis=0, weights=counts) if handed else None
        if centre is None:
            centre = np.zeros(self.pool.width)
        sample, sampled = self._brought(handed, self.bounding)
        vectors = tuple(self.pool.take(picks) for picks in sets)
        cost = np.full(len(sample), np.inf)
        for point in vectors[0]:
            np.minimum(cost, distances_to(sampled, point, self.metric), out=cost)
        self.pairs += len(sampled) * len(vectors[0])
        if self.metric == "cosine":
            cost /= 2
        self.bounded = len(sample) == len(self.bounding) and len(sets[0]) == self.constraints.k
        picked = Picked(
            rows=self.rows,
            metric=self.metric,
            sets=vectors,
            centre=centre,
            sample=sampled if self.bounded else sampled[:0],
            cost=cost,
            weights=self._weights_of(sample),
            top=self.constraints.k - len(self.fixed),
        )
        state = hashlib.blake2b(b"".join(picks.tobytes() for picks in sets), digest_size=6)
        stage = f"look-{state.hexdigest()}"
        late = _late(control)
        results = kept.map(engine, look, self.fragments, stage, Seen, shared=(engine.share(picked),), stopped=late)
        seen = list(results)
        rows = sum(fragment.rows for fragment, _ in zip(self.fragments, seen, strict=False))
        self.pairs += rows * (sum(map(len, vectors)) + len(picked.sample))
        return seen if len(seen) == len(self.fragments) and all(part.complete for part in seen) else []


def _late(control: Control) -> Any:
    """What asks whether there is no time left even to value the picks."""
    return lambda: control.interrupted or control.late()


def _completed(tracker: Tracker, chosen: Ints, control: Control) -> Ints:
    """The picks of a search that was cut short, as far as they fit, and what completes them.

    After Ctrl-C that is only what the minima need; after a time limit k rows, drawn at random.
    """
    n = tracker.constraints.n
    order = np.concatenate([chosen, np.random.default_rng(0).permutation(n)])
    completed = tracker.filling(order[np.sort(np.unique(order, return_index=True)[1])])
    if not control.interrupted:
        return completed
    kept = completed[np.isin(completed, chosen)]
    for row in kept.tolist():
        tracker.add(row)
    return np.concatenate([kept, tracker.completion()])


def _restricted(constraints: Constraints, rows: Ints, *, feasible: bool) -> Constraints:
    """The same constraints for some of the rows; with minima only where those are certain to be met."""
    columns = tuple(
        dataclasses.replace(
            column, codes=column.codes[rows], least=column.least if feasible else np.zeros_like(column.least)
        )
        for column in constraints.columns
    )
    return dataclasses.replace(
        constraints,
        n=len(rows),
        k=min(constraints.k, len(rows)),
        columns=columns,
        preselected=np.searchsorted(rows, constraints.preselected),
        banned=constraints.banned[rows],
    )
