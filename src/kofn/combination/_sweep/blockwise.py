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
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.measures import Measures, inner
from kofn.combination._sweep.members import FLOATS, HALF, REAL, Pool, tensor_label
from kofn.combination._sweep.quantised import held_bytes
from kofn.combination._sweep.rule import Block, Rule, Span, row_length
from kofn.combination._sweep.vocabulary import Vocabulary
from kofn.core.checks import InputError
from kofn.core.runtime import Control
from kofn.core.words import Progress

# BatchNorm's count of batches: the blend of statistics stands for at least as many as the longest run saw.
_COUNTER = "num_batches_tracked"
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
        self.measure, self.skip_nonfinite = measure, skip_nonfinite
        self.sources = [*pool.members, *([] if pool.base is None else [pool.base])]
        m = len(pool.members)
        self.fill = np.full(m, 1 / m) if fill is None else fill
        rows = [
            row_length(pool.first[name].shape)
            for name, merge_rule in merge_rules.items()
            if merge_rule.whole_rows and name not in pool.skipped
        ]
        self.longest_row = max(rows, default=0)
        self.threads, self.block = _plan_blocks(n_threads, max_memory, pool, self.longest_row)
        self.local = threading.local()
        self.replaced = np.zeros(m + 1, np.int64)
        self.lock = threading.Lock()
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
        sweeps = 1 + max((merge_rule.stages for merge_rule in self.merge_rules.values()), default=0)
        total = sum(self.pool.first[name].size for name in names) * sweeps
        workers = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        with Control(progress=self.progress, total=total, title="blending") as control:
            self.control, self.steps, self.workers = control, 0, workers
            try:
                self._settle_models()
                for batch in self._batches(names):
                    self._batch(batch, sink, done)
                    if journal is not None:
                        journal(batch, done)
            finally:
                if workers is not None:
                    workers.shutdown(cancel_futures=True)
        self.local = threading.local()
        done.replaced = self.replaced
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

        self.control, self.steps, self.workers = Control(), 0, None
        self._settle_models()
        self._batch([name], store, Done())
        return result

    def _batches(self, names: list[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        filled = 0
        for name in names:
            batch.append(name)
            filled += self.pool.first[name].size
            if filled >= _BATCH:
                yield batch
                batch, filled = [], 0
        if batch:
            yield batch

    def _settle_models(self) -> None:
        """Settle the merge rules that scan the whole model, even if only part of it remains to be written."""
        for merge_rule in {
            id(merge_rule): merge_rule for merge_rule in self.merge_rules.values() if merge_rule.per_model
        }.values():
            if id(merge_rule) in self.model_state:
                continue
            mine = [name for name in self.pool.first if self.merge_rules.get(name) is merge_rule and self._summed(name)]
            state: Any = None
            for stage in range(merge_rule.stages):
                parts = self._map(mine, self._scanner(stage, dict.fromkeys(mine, state)))
                state = merge_rule.settle(stage, state, (part for _, part in parts))
            self.model_state[id(merge_rule)] = state

    def _scanner(self, stage: int, states: Mapping[str, Any]) -> Callable[[list[Span]], list[tuple[str, Any]]]:
        """A task that summarises blocks, tensor by tensor."""

        def scan(spans: list[Span]) -> list[tuple[str, Any]]:
            parts = []
            for name, group in itertools.groupby(spans, key=lambda span: span.name):
                merge_rule, part = self.merge_rules[name], None
                for span in group:
                    rows, base = self._load(span, self._buffers(), self._precision(merge_rule, name))
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
        for stage in range(max((self.merge_rules[name].stages for name in names if self._scanned(name)), default=0)):
            mine = [name for name in names if self._scanned(name) and self.merge_rules[name].stages > stage]
            parts = self._map(mine, self._scanner(stage, states))
            for name, group in itertools.groupby(parts, key=lambda item: item[0]):
                states[name] = self.merge_rules[name].settle(stage, states[name], (part for _, part in group))

        def blend(spans: list[Span]) -> list[tuple[str, Any]]:
            return [(span.name, self._block(span, states[span.name], sink)) for span in spans]

        blended = dict.fromkeys(names, np.zeros((1, len(self.pool.members))))
        for name, group in itertools.groupby(self._map(names, blend), key=lambda item: item[0]):
            results = [each for _, each in group]
            blended[name] = np.array([squares for squares, _ in results])
            if results[0][1] is not None:
                whole = functools.reduce(Measures.plus, (seen for _, seen in results))
                done.measures[name] = {**whole.figures(), "axes": len(self.pool.first[name].shape)}
        for name, squares in blended.items():
            done.squares[name] = np.array([math.fsum(column) for column in squares.T.tolist()])

    def _summed(self, name: str) -> bool:
        dtype = self.pool.first[name].dtype
        return name not in self.pool.skipped and (dtype in HALF or dtype in REAL)

    def _scanned(self, name: str) -> bool:
        merge_rule = self.merge_rules.get(name)
        return self._summed(name) and merge_rule is not None and not merge_rule.per_model and merge_rule.stages > 0

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
            for start in range(0, tensor.size, step):
                stop = min(start + step, tensor.size)
                task.append(Span(name, start, stop, tensor.shape, dtype))
                filled += stop - start
                if filled >= _TASK:
                    yield task
                    task, filled = [], 0
        if task:
            yield task

    def _buffers(self) -> _Buffers:
        buffers: _Buffers | None = getattr(self.local, "buffers", None)
        if buffers is None:
            sizes = [tensor.size * (2 if tensor.dtype.kind == "c" else 1) for tensor in self.pool.first.values()]
            count = len(self.pool.members) + (self.pool.base is not None)
            buffers = self.local.buffers = _Buffers(count, min(self.block, max(*sizes, 1)))
        return buffers

    def _load(
        self, span: Span, buffers: _Buffers, work: type[np.floating[Any]]
    ) -> tuple[list[NDArray[Any]], NDArray[Any] | None]:
        """The block of every member and of the base, in the precision of the sums."""
        dtype = self.pool.first[span.name].dtype
        part = REAL.get(dtype, dtype)
        count = (span.stop - span.start) * (dtype.itemsize // part.itemsize)
        rows = [row.view(work)[:count] for row in buffers.rows]
        for row, member in zip(rows, self.sources, strict=True):
            tensor = member[span.name]
            # Members of other float dtypes are read as they are; complex numbers are of one dtype.
            own = part if tensor.dtype == dtype else tensor.dtype
            values = tensor.read(span.start, span.stop, buffers.raw).view(own)
            if self.pool.cast is not None and tensor.dtype in FLOATS:
                values = values.astype(self.pool.cast)
            np.copyto(row, values, casting="unsafe")
        base = rows.pop() if self.pool.base is not None else None
        if self.pool.vocabulary is not None:
            self._fill_rows(self.pool.vocabulary, span, rows, base)
        if self.skip_nonfinite:
            self._replace_nonfinite(rows, base, span)
        return rows, base

    def _fill_rows(
        self, vocabulary: Vocabulary, span: Span, rows: list[NDArray[Any]], base: NDArray[Any] | None
    ) -> None:
        weights = self.merge_rules[span.name].weights
        usable = len(weights) == len(rows) and (weights >= 0).all() and weights.any()
        vocabulary.fill(span.name, rows, base, span.start, span.shape, weights if usable else self.fill)

    def _replace_nonfinite(self, rows: list[NDArray[Any]], base: NDArray[Any] | None, span: Span) -> None:
        """Replace NaN and infinities by the base's entry, or by the mean of the other members."""
        bad = [~np.isfinite(row) for row in rows]
        if not any(mask.any() for mask in bad):
            return
        if base is None:
            weights = np.where(np.array(bad), 0.0, self.fill[:, None])
            heard = weights.sum(axis=0)
            if (heard == 0).any():
                index = self._index(span.name, span.start + int(np.flatnonzero(heard == 0)[0]))
                raise InputError(
                    f"{tensor_label(span.name)} at {index} is finite in no member that counts; repair one of them"
                )
            clean = np.array([np.where(mask, 0.0, row) for mask, row in zip(bad, rows, strict=True)], np.float64)
            base = (weights * clean).sum(axis=0) / heard
        for row, mask in zip(rows, bad, strict=True):
            np.copyto(row, base, where=mask, casting="unsafe")
        with self.lock:
            self.replaced[:-1] += [int(mask.sum()) for mask in bad]

    def _precision(self, merge_rule: Rule, name: str) -> type[np.floating[Any]]:
        """float32 where all that is read and written is of half precision."""
        dtypes = {source[name].dtype for source in self.sources} | {self.pool.dtype_of(name)}
        return np.float32 if dtypes <= HALF and not merge_rule.in_double else np.float64

    def _block(self, span: Span, state: Any, sink: Sink | None) -> tuple[NDArray[np.float64], Measures | None]:
        buffers, seen = self._buffers(), None
        if span.name in self.pool.skipped:
            values = self.pool.source(span.name).read(span.start, span.stop)
            squares = np.zeros(len(self.pool.members))
        elif self._summed(span.name):
            with np.errstate(all="ignore"):  # overflow and NaN are looked for in the result, and named
                values, squares, seen = self._blend(span, state, buffers)
        else:
            values, squares = self._copy(span, buffers)
        if sink is not None:
            sink(span.name, span.start, values)
        return squares, seen

    def _blend(
        self, span: Span, state: Any, buffers: _Buffers
    ) -> tuple[NDArray[Any], NDArray[np.float64], Measures | None]:
        dtype, merge_rule = self.pool.dtype_of(span.name), self.merge_rules[span.name]
        part = REAL.get(dtype, dtype)
        work = self._precision(merge_rule, span.name)
        rows, base = self._load(span, buffers, work)
        count = len(rows[0])
        total, other = (row.view(work)[:count] for row in buffers.extra[:2])
        if merge_rule.blend(Block(rows, base, span, state), total, other):
            same = rows[0] == rows[1] if len(rows) > 1 else np.ones(count, bool)
            for row in rows[2:]:
                same &= row == rows[0]
            np.copyto(total, rows[0], where=same)
        if self.pool.cast is not None:
            np.copyto(total, total.astype(self.pool.cast))
        rounded = buffers.rounded[: count * part.itemsize].view(part)
        np.copyto(rounded, total, casting="unsafe")
        np.copyto(other, rounded, casting="unsafe")
        seen = Measures.of(rows, base, other) if self.measure else None
        squares = np.empty(len(rows))
        for member, row in enumerate(rows):
            np.subtract(row, other, out=row)
            squares[member] = _sum_of_squares(row, buffers.extra[0])
        if not np.isfinite(squares).all():
            constant = self._constant(span)
            if constant is not None and dtype == self.pool.first[span.name].dtype:
                return constant, np.zeros(len(rows)), seen
            squares = self._explain(span, rounded)
        return rounded.view(dtype), squares, seen

    def _copy(self, span: Span, buffers: _Buffers) -> tuple[NDArray[Any], NDArray[np.float64]]:
        first, *others = self.pool.members
        values = first[span.name].read(span.start, span.stop, buffers.rounded)
        for label, member in zip(self.pool.labels[1:], others, strict=True):
            theirs = member[span.name].read(span.start, span.stop, buffers.raw)
            if values.tobytes() != theirs.tobytes() and span.name.endswith(_COUNTER):
                np.maximum(values, theirs, out=values)
            elif values.tobytes() != theirs.tobytes():
                offset = int(
                    np.flatnonzero(values.view(f"u{values.itemsize}") != theirs.view(f"u{values.itemsize}"))[0]
                )
                where = self._index(span.name, span.start + offset)
                raise InputError(
                    f"{tensor_label(span.name)} is {values.dtype} and differs at {where} between member 0 "
                    f"({values[offset]}) and {label} ({theirs[offset]}); such values are copied, not averaged: "
                    "make the members agree or cast them to a float dtype"
                )
        merge_rule = self.merge_rules.get(span.name)
        if merge_rule is not None:
            merge_rule.copied(span, values)
        return values, np.zeros(len(self.pool.members))

    def _constant(self, span: Span) -> NDArray[Any] | None:
        """The block of all sources if it holds infinities and is the same in each, such as a mask; else None."""
        first, *others = (source[span.name].read(span.start, span.stop) for source in self.sources)
        values = first.view(REAL.get(first.dtype, first.dtype)).astype(np.float64)
        if not np.isinf(values).any() or np.isnan(values).any():
            return None
        return first if all(first.tobytes() == other.tobytes() for other in others) else None

    def _explain(self, span: Span, rounded: NDArray[Any]) -> NDArray[np.float64]:
        """Refuse an infinite or NaN distance, naming its cause; return the distances in float64 otherwise."""
        dtype = self.pool.dtype_of(span.name)
        step = dtype.itemsize // REAL.get(dtype, dtype).itemsize
        blend = rounded.astype(np.float64)
        squares = np.empty(len(self.pool.members))
        sources = list(zip(self.pool.labels, self.pool.members, strict=True))
        if self.pool.base is not None:
            sources.append((self.pool.base_label, self.pool.base))
        for position, (label, member) in enumerate(sources):
            tensor = member[span.name]
            part = REAL.get(tensor.dtype, tensor.dtype)
            values = tensor.read(span.start, span.stop).view(part).astype(np.float64)
            bad = np.flatnonzero(~np.isfinite(values))
            member_of = position < len(squares)
            if len(bad) and not (self.skip_nonfinite and member_of):
                kind = "NaN" if np.isnan(values[bad[0]]) else "infinite"
                where = self._index(span.name, span.start + int(bad[0]) // step)
                remedy = "leave that member out or repair it" if member_of else "repair it"
                raise InputError(f"{label}: {tensor_label(span.name)} at {where} is {kind}; {remedy}")
            if member_of:
                squares[position] = np.sum(np.square(np.where(np.isfinite(values), values, blend) - blend))
        bad = np.flatnonzero(~np.isfinite(blend))
        if len(bad):
            where = self._index(span.name, span.start + int(bad[0]) // step)
            raise InputError(
                f"the blend of {tensor_label(span.name)} at {where} is beyond the range of {dtype}; "
                "use weights that sum to one or members of a wider dtype"
            )
        return squares

    def _index(self, name: str, flat: int) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.unravel_index(flat, self.pool.first[name].shape))


class _Buffers:
    """Work space of one thread: a row for each member and the base, and four more."""

    def __init__(self, m: int, block: int) -> None:
        self.rows = np.empty((m, block), np.float64)
        self.extra = np.empty((4, block), np.float64)
        self.raw = np.empty(block * 16, np.uint8)
        self.rounded = np.empty(block * 16, np.uint8)

    @staticmethod
    def bytes_per_element(m: int) -> int:
        # A complex element occupies two real ones, so blocks of complex tensors have half as many elements.
        return 8 * (m + 4) + 32


def _plan_blocks(n_threads: int | None, max_memory: int | None, pool: Pool, longest_row: int) -> tuple[int, int]:
    """Number of threads and block size; the block size does not depend on the threads, so neither do the sums."""
    least = max(_LEAST_BLOCK, longest_row)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = 1 if pool.elements < _THREADED else n_threads or cores
    each = _Buffers.bytes_per_element(len(pool.members) + (pool.base is not None))
    if max_memory is not None and (whole := held_bytes(pool)):
        threads = max(1, min(threads, max_memory // (whole + least * each)))
        if max_memory < whole + least * each:
            raise InputError(
                f"max_memory={max_memory} is too little to quantise the largest tensor, which is held whole; give at "
                f"least {whole + least * each} bytes, or dtype='bfloat16', which holds none"
            )
        max_memory -= threads * whole
    room = _BUFFER_BYTES_PER_THREAD if max_memory is None else max_memory
    if max_memory is not None and room < least * each:
        raise InputError(
            f"max_memory={max_memory} is too little for {len(pool.members)} members; give at least {least * each} bytes"
        )
    block = max(least, min(_BLOCK, room // each))
    return (threads if max_memory is None else max(1, min(threads, max_memory // (block * each)))), block


def _sum_of_squares(row: NDArray[Any], scratch: NDArray[np.float64]) -> float:
    """Sum of squares in float64, because squares of bfloat16 values can overflow or underflow float32."""
    if row.dtype != np.float64:
        wide = scratch[: len(row)]
        np.copyto(wide, row)
        row = wide
    return inner(row, row)
