"""Blend tensors block by block: members are read once per sweep, memory is one set of blocks per thread.

A `Rule` says what a method does to a block of every member. Rules that need to know a tensor (or the model) before
they blend it, say a threshold or a norm, scan it first: `scan` looks at a block, `settle` makes a state of all parts in
the order of the blocks. Tensors are taken in batches, each scanned, blended, written and noted in the writer's journal
before the next is read, so that a model that does not fit into memory is read from disk once for each scan and no more.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.blocks import Blocks, Buffers
from kofn.combination._sweep.measures import Measures
from kofn.combination._sweep.members import Pool, tensor_label
from kofn.combination._sweep.requantised import held_bytes
from kofn.combination._sweep.rule import Block, Rule, Span, row_length
from kofn.core.checks import InputError
from kofn.core.runtime import Control
from kofn.core.words import Progress

Sink = Callable[[str, int, NDArray[Any]], None]

_BLOCK = 1 << 16  # elements: a block of three half-precision members and their sums stays in a core's own cache
_TASK = 1 << 20  # elements handed to a thread at a time
_BATCH = 1 << 26  # elements blended between two entries of the journal
_THREADED = 1 << 22  # elements above which threads pay
_BUFFER_BYTES_PER_THREAD = 64 << 20  # unless max_memory says otherwise
_LEAST_BLOCK = 256


@dataclass
class Done:
    """Results of a run: squared distances by tensor and member, and the measures if requested."""

    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    measures: dict[str, dict[str, Any]] = field(default_factory=dict)
    replaced: NDArray[np.int64] | None = None
    opposite: set[str] = field(default_factory=set)  # tensors without a shortest arc between the members

    def spread(self) -> NDArray[np.float64]:
        """(m,) summed squares, independent of the number of threads and of interruptions."""
        return np.array([math.fsum(column) for column in np.array(list(self.squares.values())).T.tolist()])


class Sweep:
    """One blend of a pool: `run` blends all tensors, `tensor` a single one."""

    def __init__(
        self,
        pool: Pool,
        merge_rules: Mapping[str, Rule],
        *,
        max_memory: int | None = None,
        n_threads: int | None = None,
        progress: Progress = None,
        measure: bool = False,
        skip_nonfinite: bool = False,
        fill: NDArray[np.float64] | None = None,
    ) -> None:
        self.pool, self.merge_rules, self.progress = pool, merge_rules, progress
        rows = [
            row_length(pool.first[name].shape)
            for name, merge_rule in merge_rules.items()
            if merge_rule.whole_rows and name not in pool.skipped
        ]
        self.longest_row = max(rows, default=0)
        self.threads, self.block = _plan_blocks(
            n_threads,
            max_memory,
            pool,
            self.longest_row,
            max((merge_rule.counter_bytes for merge_rule in merge_rules.values()), default=0),
        )
        self.blocks = Blocks(
            pool,
            merge_rules,
            self.block,
            measure=measure,
            skip_nonfinite=skip_nonfinite,
            fill=np.full(len(pool.members), 1 / len(pool.members)) if fill is None else fill,
        )
        self.model_state: dict[int, Any] = {}
        for name, merge_rule in merge_rules.items():
            if name not in pool.skipped and pool.first[name].dtype.kind == "c" and not merge_rule.blends_complex:
                raise InputError(
                    f"{tensor_label(name)} is {pool.first[name].dtype}; only the weighted mean blends complex numbers"
                )

    def run(self, sink: Sink | None, done: Done | None = None, journal: Callable[..., None] | None = None) -> Done:
        """Blend all tensors that are not in `done` yet; call `journal(names, done)` after every batch."""
        done = Done() if done is None else done
        names = [name for name in self.pool.first if name not in done.squares]
        total = self.steps_of(names)
        workers = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        noting = ThreadPoolExecutor(1)  # waits for the disk while the next batch is blended
        noted: Future[None] | None = None
        with Control(progress=self.progress, total=total, title="blending") as control:
            self.control, self.steps, self.workers = control, 0, workers
            try:
                self._settle_models()
                for batch in self.batches(names):
                    self._batch(batch, sink, done)
                    if noted is not None:
                        noted.result()
                    noted = None if journal is None else noting.submit(journal, batch, done)
                if noted is not None:
                    noted.result()
            finally:
                noting.shutdown()
                if workers is not None:
                    workers.shutdown(cancel_futures=True)
        self.blocks.release()
        done.replaced = self.blocks.replaced
        return done

    def tensor(self, name: str) -> NDArray[Any]:
        """One blended tensor."""
        shape, dtype = self.pool.first[name].shape, self.pool.dtype_of(name)
        if name in self.pool.skipped:
            tensor = self.pool.source(name)
            return np.array(tensor.read()).reshape(tensor.shape)
        result = np.empty(shape, dtype)
        flat = result.reshape(-1)

        def store(_name: str, start: int, values: NDArray[Any]) -> None:
            flat[start : start + len(values)] = values

        self._alone()
        self._settle_models()
        self._batch([name], store, Done())
        return result

    def part(self, names: list[str], sink: Sink) -> Done:
        """Some of the tensors on this thread, for rules whose states of whole models are known."""
        self._alone()
        done = Done()
        self._batch(names, sink, done)
        return done

    def scan(self, stage: int, names: list[str], state: Any) -> Iterator[Any]:
        """What the rule of these tensors notes of their blocks at a stage of looking at its whole model."""
        self._alone()
        return (part for _, part in self._map(names, self._scanner(stage, dict.fromkeys(names, state))))

    def _alone(self) -> None:
        self.control, self.steps, self.workers = Control(), 0, None

    def steps_of(self, names: list[str]) -> int:
        """How many elements all readings of these tensors take."""
        sweeps = 1 + max((merge_rule.stages for merge_rule in self.merge_rules.values()), default=0)
        return sum(self.pool.first[name].size for name in names) * sweeps

    def batches(self, names: list[str], elements: int | None = None) -> Iterator[list[str]]:
        """The tensors in their order, in groups of so many elements or a little more."""
        batch: list[str] = []
        filled = 0
        for name in names:
            batch.append(name)
            filled += self.pool.first[name].size
            if filled >= (elements or _BATCH):
                yield batch
                batch, filled = [], 0
        if batch:
            yield batch

    def _settle_models(self) -> None:
        """Settle the merge rules that scan the whole model, even if only part of it remains to be written."""
        for merge_rule, mine in self.whole_models():
            if id(merge_rule) in self.model_state:
                continue
            state: Any = None
            for stage in range(merge_rule.stages):
                parts = self._map(mine, self._scanner(stage, dict.fromkeys(mine, state)))
                state = merge_rule.settle(stage, state, (part for _, part in parts))
            self.model_state[id(merge_rule)] = state

    def whole_models(self) -> Iterator[tuple[Rule, list[str]]]:
        """The merge rules that scan the whole model, each with the tensors that it blends."""
        distinct = {id(merge_rule): merge_rule for merge_rule in self.merge_rules.values() if merge_rule.per_model}
        for merge_rule in distinct.values():
            of_rule = (name for name in self.pool.first if self.merge_rules.get(name) is merge_rule)
            yield merge_rule, [name for name in of_rule if self.blocks.is_blended(name)]

    def _scanner(self, stage: int, states: Mapping[str, Any]) -> Callable[[list[Span]], list[tuple[str, Any]]]:
        """A task that summarises blocks, tensor by tensor."""

        def scan(spans: list[Span]) -> list[tuple[str, Any]]:
            parts = []
            for name, group in itertools.groupby(spans, key=lambda span: span.name):
                merge_rule, part = self.merge_rules[name], None
                for span in group:
                    rows, base = self.blocks.load(span)
                    with np.errstate(all="ignore"):  # NaN is looked for in the blend, and named
                        part = merge_rule.scan(stage, part, Block(rows, base, span, states[name]))
                parts.append((name, part))
            return parts

        return scan

    def _batch(self, names: list[str], sink: Sink | None, done: Done) -> None:
        states: dict[str, Any] = {}
        for name in names:
            merge_rule = self.merge_rules.get(name)
            states[name] = (
                self.model_state.get(id(merge_rule)) if merge_rule is not None and merge_rule.per_model else None
            )
        mine = [name for name in names if self._scanned(name)]
        for stage in itertools.count():
            mine = [name for name in mine if self.merge_rules[name].scans_again(stage, states[name])]
            if not mine:
                break
            parts = self._map(mine, self._scanner(stage, states))
            for name, group in itertools.groupby(parts, key=lambda item: item[0]):
                states[name] = self.merge_rules[name].settle(stage, states[name], (part for _, part in group))

        def blend(spans: list[Span]) -> list[tuple[str, Any]]:
            results = []
            for span in spans:
                values, squares, seen = self.blocks.blend(span, states[span.name])
                if sink is not None:
                    sink(span.name, span.start, values)
                results.append((span.name, (squares, seen)))
            return results

        blended = dict.fromkeys(names, np.zeros((1, len(self.pool.members))))
        for name, group in itertools.groupby(self._map(names, blend), key=lambda item: item[0]):
            results = [each for _, each in group]
            blended[name] = np.array([squares for squares, _ in results])
            if results[0][1] is not None:
                whole = functools.reduce(Measures.plus, (seen for _, seen in results))
                done.measures[name] = {**whole.figures(), "axes": len(self.pool.first[name].shape)}
            if (
                self._scanned(name)
                and self.pool.first[name].size > 1
                and self.merge_rules[name].is_opposite(states[name])
            ):
                done.opposite.add(name)  # a single number has no direction
        for name, squares in blended.items():
            done.squares[name] = np.array([math.fsum(column) for column in squares.T.tolist()])

    def _scanned(self, name: str) -> bool:
        merge_rule = self.merge_rules.get(name)
        scans = merge_rule is not None and not merge_rule.per_model and merge_rule.stages > 0
        return scans and self.blocks.is_blended(name)

    def _map(self, names: list[str], task: Callable[[list[Span]], list[tuple[str, Any]]]) -> Iterator[tuple[str, Any]]:
        """The results of `task` on the blocks, in order."""
        tasks = list(self._tasks(names))
        ran = map(task, tasks) if self.workers is None or len(tasks) < 2 else self.workers.map(task, tasks)
        for spans, results in zip(tasks, ran, strict=True):
            self.steps += sum(span.stop - span.start for span in spans)
            self.control.step(self.steps)
            if self.control.stopped():  # part of a blend is of no use
                raise KeyboardInterrupt
            yield from results

    def _tasks(self, names: list[str]) -> Iterator[list[Span]]:
        """Blocks in tasks. Where a tensor is cut depends on nothing but itself, and so do the sums over its pieces."""
        task: list[Span] = []
        filled = 0
        for name in names:
            tensor, dtype = self.pool.first[name], self.pool.dtype_of(name)
            if name in self.pool.skipped:
                tensor = self.pool.source(name)
                dtype = tensor.dtype
            step = self.block // 2 if dtype.kind == "c" else self.block
            if name in self.merge_rules and self.merge_rules[name].whole_rows and name not in self.pool.skipped:
                row = max(1, row_length(tensor.shape))
                step = max(1, step // row) * row
            if task and filled + tensor.size > _TASK:
                yield task
                task, filled = [], 0
            for start in range(0, tensor.size, step):
                stop = min(start + step, tensor.size)
                task.append(Span(name, start, stop, tensor.shape, dtype))
                filled += stop - start
                if filled >= _TASK:
                    yield task
                    task, filled = [], 0
        if task:
            yield task


def _plan_blocks(
    n_threads: int | None, max_memory: int | None, pool: Pool, longest_row: int, counter_bytes: int = 0
) -> tuple[int, int]:
    """Number of threads and block size; the block size does not depend on the threads, so neither do the sums."""
    least = max(_LEAST_BLOCK, longest_row)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = 1 if pool.elements < _THREADED else n_threads or cores
    each = Buffers.bytes_per_element(len(pool.members) + (pool.base is not None))
    whole = 0 if max_memory is None else held_bytes(pool)
    if max_memory is not None and whole and max_memory < whole + least * each:
        raise InputError(
            f"max_memory={max_memory} is too little to quantise the largest tensor, which is held whole; give at "
            f"least {whole + least * each} bytes, or dtype='bfloat16', which holds none"
        )
    counters = len(pool.members) * counter_bytes
    room = _BUFFER_BYTES_PER_THREAD if max_memory is None else max_memory - whole - counters
    if max_memory is not None and room < least * each:
        raise InputError(
            f"max_memory={max_memory} is too little for {len(pool.members)} members; give at least "
            f"{least * each + counters} bytes"
        )
    block = max(least, min(_BLOCK, room // each))
    if max_memory is not None:
        threads = max(1, min(threads, max_memory // (whole + counters + block * each)))
    return threads, block
