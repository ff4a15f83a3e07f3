"""Summed distances within groups, part by part: here, or in tasks of an engine."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.assignment.medoids import _sources
from kofn.core.arrays import Floats, Ints
from kofn.core.runtime import Control, Stopped
from kofn.engines.base import Engine
from kofn.engines.opening import elsewhere, opened
from kofn.engines.threads import linear_algebra

# Distances inside a group between two looks at the clock, and of a task. Products are rounded as the shape of a part
# has it, so parts are the same wherever they are compared.
_PAIRS_AT_ONCE = 2**18


def totals_of(part: tuple[int, int, int, int], source: _sources.Source, order: Ints, weights: Floats) -> Floats:
    """The summed distances of members low to high of the group `order[start:end]` to all of its members."""
    start, end, low, high = part
    group = order[start:end]
    # The caller counts distances, which threads would count at once and tasks elsewhere would not.
    own = copy.copy(source)
    return np.asarray(own.among(group, slice(low, high)).astype(np.float64) @ weights[group])


@dataclass
class Groups:
    """Items that are compared within their groups.

    Attributes:
        source: their distances.
        weights: (n,) how much each counts.
        engine: where parts are compared, None for here.
        shared: handles of both.
    """

    source: _sources.Source
    weights: Floats
    engine: Engine | None
    shared: tuple[Any, Any]

    @classmethod
    @contextmanager
    def opened(cls, engine: Any, source: _sources.Source, weights: Floats) -> Iterator[Groups]:
        """On the engine that a call names, while linear algebra takes one thread there and here."""
        if not elsewhere(engine):
            with linear_algebra(1):
                yield cls(source, weights, None, (source, weights))
            return
        with opened(engine) as ran, linear_algebra(1):
            yield cls(source, weights, ran, (ran.share(_light(source)), ran.share(weights)))

    def totals(self, order: Ints, ends: Ints, control: Control) -> Iterator[Floats]:
        """The summed distances of the members of each group, in turn; they end where the time is up.

        Args:
            order: (n,) items, group by group.
            ends: (k,) where each group ends.
            control: the clock.
        """
        starts = np.concatenate([[0], ends[:-1]]).tolist()
        bounds = [(start, end) for start, end in zip(starts, ends.tolist(), strict=True) if end > start]
        parts = [
            (start, end, low, min(low + step, end - start))
            for start, end in bounds
            for step in [max(1, _PAIRS_AT_ONCE // (end - start))]
            for low in range(0, end - start, step)
        ]
        sums = self._here(parts, order, control) if self.engine is None else self._there(parts, order, control)
        for start, end in bounds:
            total, reached = np.empty(end - start), 0
            while reached < end - start:
                part = next(sums, None)
                if part is None:
                    return
                total[reached : reached + len(part)] = part
                reached += len(part)
            yield total

    def _here(self, parts: list[tuple[int, int, int, int]], order: Ints, control: Control) -> Iterator[Floats]:
        for part in parts:
            try:
                control.check_late()
            except Stopped:
                return
            self._count(part)
            yield totals_of(part, self.source, order, self.weights)

    def _there(self, parts: list[tuple[int, int, int, int]], order: Ints, control: Control) -> Iterator[Floats]:
        assert self.engine is not None
        reader, weights = self.shared
        shared = (reader, self.engine.share(order), weights)
        results = self.engine.map(
            totals_of, parts, shared=shared, stopped=lambda: control.interrupted or control.late()
        )
        # Results end early where the time is up.
        for part, total in zip(parts, results, strict=False):
            self._count(part)
            yield total

    def _count(self, part: tuple[int, int, int, int]) -> None:
        start, end, low, high = part
        if not isinstance(self.source, _sources.Matrix):
            self.source.evals += (end - start) * (high - low)

    @property
    def facts(self) -> dict[str, Any]:
        """Where they were compared, for the plan's `info`."""
        return {} if self.engine is None else {"engine": self.engine.facts()}


def _light(source: _sources.Source) -> _sources.Source:
    """A source without the copy of its coordinates that only rows of distances need."""
    if not isinstance(source, _sources.Vectors):
        return source
    reader = copy.copy(source)
    reader.space = dataclasses.replace(source.space)
    return reader
