"""Near-duplicates of a pool that need not be in memory: rows are compared within cells and with the cells beside."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.pools import as_pool
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.engines.opening import opened
from kofn.engines.threads import cores
from kofn.selection.pools._cells import (
    SAMPLE_A_CELL,
    CellFile,
    bring_together,
    different_rows,
    learn_centres,
    look_at,
    spread_of_looks,
    watched,
)
from kofn.selection.pools._settling import Ask, Sample, Settling, kept_rows, most_missed, near_sample
from kofn.selection.training_data._near_vectors import refuse_metric
from kofn.selection.training_data._preference import Preference

__all__ = ["near_duplicates_by_cells"]

# A cell should have about sqrt(n) rows, and no fewer than these; so many rows are compared at once as they are.
_LEAST_ROWS, _AT_ONCE = 512, 4_096
# Rows of a fragment, its bytes, and rows that stay whose recall is measured.
_FRAGMENT_ROWS, _FRAGMENT_BYTES, _LOOKED_AT = 1 << 17, 1 << 24, 2_048
# Bytes of each row beside its vector, and of the interpreter's work.
_ROW_BYTES, _BESIDE_BYTES = 130, 64 << 20


@dataclass(frozen=True)
class Recall:
    """How many near-duplicates were missed, measured on rows that stay.

    Attributes:
        exact: whether no pair is missed: every row was compared with all that it can be near, or all rows that stay
            with one another.
        looked: how many rows that stay were compared with all others that stay; 0 where no pair can be missed.
        missed: how many of these are near a row that is preferred to them.
        share: of the rows that should be dropped, how many were: the rows that were dropped, over these and the missed
            ones, as far as the rows looked at stand for all.
        lowest: what the share is at the least, with 95% confidence.
    """

    exact: bool
    looked: int
    missed: int
    share: float
    lowest: float


class CellDuplicates(NamedTuple):
    """Which rows stay, which kept row each dropped row repeats, and how many were missed.

    Attributes:
        keep: (n,) True where the row stays.
        of: (n,) the kept row that a dropped row repeats, -1 for a row that stays.
        similarity: (n,) of a dropped row and the one it repeats, NaN for a row that stays.
        recall: how many near-duplicates were missed.
        info: cells, probes, rows that are equal to another (`equal`), passes, and where it ran (`engine`).
    """

    keep: NDArray[np.bool_]
    of: NDArray[np.int64]
    similarity: NDArray[np.float64]
    recall: Recall
    info: dict[str, Any]


@helper
def near_duplicates_by_cells(
    X: Any,
    threshold: float = 0.95,
    *,
    metric: str = "cosine",
    scores: ArrayLike | None = None,
    include: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    costs: ArrayLike | None = None,
    groups: ArrayLike | Mapping[str, ArrayLike] | None = None,
    quotas: Mapping[Any, Any] | None = None,
    cells: int | None = None,
    probes: int = 4,
    seed: int = 0,
    max_memory: Any = None,
    n_threads: int | None = None,
    progress: Any = None,
    engine: Any = None,
    work: str | os.PathLike[str] | None = None,
) -> CellDuplicates:
    """Keep the preferred row of every group of near-duplicates of a pool larger than memory.

    Equal rows are told by their hashes first. The others are brought together in cells around means of a sample, and
    each is compared with the rows of its own cell and of up to `probes` others, which a near row may lie in. Among all
    rows that are compared the answer is that of `near_duplicates`: a row is dropped if it is near one that is preferred
    to it and stays, and every such pair is verified in float64.

    Args:
        X: vectors (n, d), or a `Pool` (`kofn.core.pools`), which is never in memory as a whole.
        threshold: similarity from which two rows are near-duplicates, 0 to 1.
        metric: as in `near_duplicates`: "cosine", "euclidean" or "sqeuclidean".
        scores: (n,) the higher is preferred.
        include: rows that stay whatever they are like, and stand for others.
        exclude: rows that neither stand for others nor are dropped.
        costs: (n,) of equal scores the lower is preferred.
        groups: (n,) labels, or several columns of them by name.
        quotas: {group: (least, most)}: rows of a group that would be left with fewer than its least are preferred.
        cells: how many there are. By default so many that each has about sqrt(n) rows, and one for up to 4,096 rows.
        probes: how many other cells a row is compared with at the most. More miss fewer pairs.
        seed: draws the sample that the cells are learnt from, and the rows whose recall is measured.
        max_memory: bytes, or "2GB": refused where the work would hold more.
        n_threads: how many fragments or cells are looked at at a time on this machine.
        progress: True shows how far it is; a callable is told each step.
        engine: where: "local" (threads), "ray", "ray://HOST:PORT", or an engine. The answer is the same on each, and
            for any number of workers.
        work: the folder of the temporary file that holds the vectors cell by cell; by default the system's.

    Returns:
        keep, of and similarity, one value a row; `recall`, and `info`. `of` is a kept row that the row is near, the
        most preferred of its own cell or of those beside, and not of all.

    Raises:
        InputError: bad input, an unknown metric, `max_memory` that is too small.
        FailureError: no disk is left for the vectors.

    Cost: the pool is read twice and written once, n * d values of disk; O(n sqrt(n) probes d) products where few rows
    are dropped. In memory are about 130 bytes a row, and a few cells and fragments a worker.

    Exact: every pair that is found is verified. What is missed is measured: 2,048 rows that stay, drawn at random, are
    compared with all others that stay. Where no row can be near one of a cell that it was not compared with, none is
    missed, and `recall.exact` says so.

    References:
        Abbas et al., "SemDeDup: data-efficient learning at web-scale through semantic deduplication", 2023 (cells).
        Sivic and Zisserman, "Video Google", ICCV 2003, and Jégou et al., "Product quantization for nearest neighbor
        search", 2011 (inverted lists, of which several are looked at).

    Examples:
        >>> from kofn.selection import near_duplicates_by_cells
        >>> d = near_duplicates_by_cells([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1], [0.0, 3.0]])
        >>> d.of.tolist(), d.recall.exact
        ([-1, -1, 0, 1], True)
    """
    threshold = checks.fraction(threshold, "threshold")
    refuse_metric(metric)
    run = _Run(
        pool=as_pool(X),
        threshold=threshold,
        metric=metric,
        cells=None if cells is None else checks.count(cells, "cells"),
        probes=checks.count(probes, "probes", least=0),
        seed=checks.entropy(seed),
        work=work,
    )
    preference = Preference.of(run.pool.n, scores, include, exclude, costs, groups, quotas)
    run.refuse_memory(max_memory, n_threads)
    with opened(engine, n_threads) as ran, Control(progress=progress, title="near-duplicates") as control:
        run.prepare(ran, preference.open, control)
        try:
            keep, of, similarity = preference.duplicates(
                lambda order, forced: run.near_in_order(order, forced, ran, control)
            )
            recall = run.recall(keep, ran, control)
        finally:
            run.close()
        return CellDuplicates(keep, of, similarity, recall, {**run.facts(), "engine": ran.facts()})


@dataclass
class _Run:
    """One call: what was asked, and what is known of the pool."""

    pool: Any
    threshold: float
    metric: str
    cells: int | None
    probes: int
    seed: int
    work: str | os.PathLike[str] | None

    file: CellFile | None = None
    settling: Settling | None = None

    def refuse_memory(self, max_memory: Any, n_threads: int | None) -> None:
        """Refuse a limit that the work would not keep.

        Raises:
            InputError: it is too small.
        """
        if max_memory is None:
            return
        width, item = self.pool.width, self.pool.dtype.itemsize
        needed = bytes_of_cells(self.pool.n, width, item, cores(n_threads), self.cells)
        if needed > (limit := checks.bytes_of(max_memory)):
            raise InputError(
                f"max_memory={max_memory}: near-duplicates of {self.pool.n:,} rows take about {needed / 1e6:,.0f} MB "
                f"in parts, over {limit / 1e6:,.3g} MB; raise it, or drop near-duplicates of each file by itself first"
            )

    def prepare(self, engine: Engine, open_: Mask, control: Control) -> None:
        """Read the pool: its spread, the rows that are equal, its cells, and the rows of each of these together."""
        pool, fragments = self.pool, self.pool.fragments(_fragment_rows(self.pool.width, self.pool.dtype.itemsize))
        size = min(pool.n, max(_AT_ONCE, SAMPLE_A_CELL * _cells_of(pool.n, self.cells)))
        sample = np.sort(np.random.default_rng([self.seed, 0]).choice(pool.n, size, replace=False))
        shared = (engine.share(pool), engine.share(open_), engine.share(sample))
        looks = list(watched(engine.map(look_at, fragments, shared=shared), control))
        spread = spread_of_looks(looks)
        self.first, self.different = different_rows(np.concatenate([look.digests for look in looks]), open_)
        cells = _cells_of(len(self.first), self.cells)
        sampled = np.concatenate([look.sampled for look in looks])
        del looks
        if cells == 1:
            centres = np.zeros((1, pool.width), np.float32)
        else:
            centres = learn_centres(sampled, self.metric, spread, cells, self.seed)
        self.file, centres = bring_together(
            engine,
            pool,
            fragments,
            self.first,
            self.metric,
            spread,
            centres,
            seed=self.seed,
            work=self.work,
            control=control,
        )
        self.ask = Ask(self.threshold, self.metric, spread, centres, self.probes)

    def near_in_order(self, order: Ints, forced: int, engine: Engine, control: Control) -> tuple[Ints, Floats]:
        """(the kept row that each row repeats or -1, their similarity), rows preferred in this order."""
        assert self.file is not None
        n = len(self.different)
        of, similarity = np.full(n, -1, np.int64), np.full(n, np.nan)
        if not len(order):
            return of, similarity
        # Of equal rows the most preferred stands for all.
        kinds = self.different[order]
        rank = np.full(len(self.first), len(order), np.int64)
        np.minimum.at(rank, kinds, np.arange(len(order)))
        chosen = order[rank]
        must = np.zeros(len(self.first), bool)
        must[kinds[:forced]] = True
        self.settling = Settling(self.file, self.ask, rank, must, engine, control)
        self.settling.run()
        near, likeness = self.settling.of, self.settling.similarity
        dropped = near >= 0
        # A copy of a dropped row is near whatever that row was dropped for.
        stands = np.where(dropped, chosen[near], chosen)
        copies = np.ones(n, bool)
        copies[chosen[~dropped]] = False
        copies[order[:forced]] = False
        copies[self.different < 0] = False
        rows = np.flatnonzero(copies)
        kinds = self.different[rows]
        of[rows], similarity[rows] = stands[kinds], np.where(dropped[kinds], likeness[kinds], 1.0)
        return of, similarity

    def recall(self, keep: Mask, engine: Engine, control: Control) -> Recall:
        """How many of the rows that stay are near one that is preferred to them, on a sample compared with all."""
        settling, file = self.settling, self.file
        dropped = int((~keep).sum())
        if settling is None or file is None or not settling.cut:
            return Recall(True, 0, 0, 1.0, 1.0)
        stay = np.flatnonzero(settling.kept)
        looked = min(len(stay), _LOOKED_AT)
        rows = np.sort(np.random.default_rng([self.seed, 1]).choice(stay, looked, replace=False))
        sample = Sample(rows, file.vectors(rows))
        shared = (engine.share(sample), engine.share(self.ask))
        pairs = list(watched(engine.map(near_sample, kept_rows(file, settling.kept), shared=shared), control))
        left, right = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        late = (settling.rank[left] > settling.rank[right]) & ~settling.forced[left]
        missed = len(np.unique(left[late]))

        def share(rate: float) -> float:
            more = rate * len(stay)
            return dropped / (dropped + more) if dropped + more else 1.0

        if looked == len(stay) and not missed:
            return Recall(True, looked, 0, 1.0, 1.0)
        highest = missed / looked if looked == len(stay) else most_missed(looked, missed)
        return Recall(False, looked, missed, share(missed / looked), share(highest))

    def facts(self) -> dict[str, Any]:
        """What is told of the run."""
        settling = self.settling
        open_rows = int((self.different >= 0).sum())
        return {
            "cells": len(self.ask.centres),
            "probes": self.probes,
            "equal": open_rows - len(self.first),
            "passes": 0 if settling is None else settling.passes,
        }

    def close(self) -> None:
        """Remove the temporary file."""
        if self.file is not None:
            self.file.close()


def _fragment_rows(width: int, item: int) -> int:
    """How many rows a fragment has, of so many values of so many bytes."""
    return max(1, min(_FRAGMENT_ROWS, _FRAGMENT_BYTES // (width * item)))


def _cells_of(n: int, asked: int | None = None) -> int:
    """How many cells so many rows have."""
    if asked is not None:
        return min(asked, max(1, n))
    return 1 if n <= _AT_ONCE else n // max(_LEAST_ROWS, math.isqrt(n))


def pairs_of_cells(n: int, probes: int = 4) -> int:
    """About how many pairs are compared: rows and centres, rows of a cell, visitors and residents, and the recall."""
    cells = _cells_of(n)
    return n * cells + n * (n // cells) * (1 + 2 * probes) // 2 + n * min(n, _LOOKED_AT)


def bytes_of_cells(n: int, width: int, item: int, workers: int, asked: int | None = None) -> int:
    """About what is in memory: arrays of the rows, and of each worker fragments or cells in float64 too."""
    rows = max(_AT_ONCE, _fragment_rows(width, item), 4 * n // _cells_of(n, asked))
    return _BESIDE_BYTES + _ROW_BYTES * n + 2 * workers * min(n, rows) * width * (item + 16)


def described(duplicates: CellDuplicates) -> str:
    """The recall in words."""
    recall = duplicates.recall
    if recall.exact:
        return "no pair was missed"
    if not recall.missed:
        return (
            f"of {recall.looked:,} rows left that were compared with all others none is near one: at least "
            f"{recall.lowest:.1%} of the near-duplicates were found"
        )
    return (
        f"of {recall.looked:,} rows left that were compared with all others {recall.missed:,} are still near one: "
        f"about {recall.share:.1%} of the near-duplicates were found, at least {recall.lowest:.1%}"
    )
