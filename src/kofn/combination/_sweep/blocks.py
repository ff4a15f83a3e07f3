"""One block of every member: read, blended and rounded, or copied, or refused with the reason."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.half_loops import HalfLoops, half_loops
from kofn.combination._sweep.measures import Measures, inner
from kofn.combination._sweep.members import FLOATS, HALF, REAL, Pool, tensor_label
from kofn.combination._sweep.rule import Block, Rule, Span
from kofn.combination._sweep.tensor import Tensor, or_wider
from kofn.combination._sweep.vocabulary import Vocabulary
from kofn.core.checks import InputError

# BatchNorm's count of batches: the blend of statistics stands for at least as many as the longest run saw.
_COUNTER = "num_batches_tracked"
_COMPILED = 1 << 24  # elements from which loops over half-precision numbers save more time than they take to compile


class Blocks:
    """The blocks of a pool: `load` reads one, `blend` gives what it becomes, from any thread."""

    def __init__(
        self,
        pool: Pool,
        merge_rules: Mapping[str, Rule],
        block: int,
        *,
        measure: bool,
        skip_nonfinite: bool,
        fill: NDArray[np.float64],
    ) -> None:
        self.pool, self.merge_rules, self.block = pool, merge_rules, block
        self.measure, self.skip_nonfinite, self.fill = measure, skip_nonfinite, fill
        self.sources = [*pool.members, *([] if pool.base is None else [pool.base])]
        self.local = threading.local()
        self.lock = threading.Lock()
        self.replaced = np.zeros(len(pool.members) + 1, np.int64)
        halves = any(tensor.dtype in HALF for source in self.sources for tensor in source.values())
        self.loops = half_loops() if halves and pool.elements >= _COMPILED else None
        self._sums: dict[str, _Sum | None] = {}
        self._works: dict[str, type[np.floating[Any]]] = {}

    def is_blended(self, name: str) -> bool:
        """Whether a tensor holds numbers to blend, and is not copied."""
        dtype = self.pool.first[name].dtype
        return name not in self.pool.skipped and (dtype in HALF or dtype in REAL)

    def release(self) -> None:
        """Let the work space of all threads go."""
        self.local = threading.local()

    def _buffers(self) -> Buffers:
        buffers: Buffers | None = getattr(self.local, "buffers", None)
        if buffers is None:
            sizes = [tensor.size * (2 if tensor.dtype.kind == "c" else 1) for tensor in self.pool.first.values()]
            count = len(self.pool.members) + (self.pool.base is not None)
            buffers = self.local.buffers = Buffers(count, min(self.block, max(*sizes, 1)))
        return buffers

    def load(self, span: Span) -> tuple[list[NDArray[Any]], NDArray[Any] | None]:
        """The block of every member and of the base, in the precision of the sums."""
        buffers, work = self._buffers(), self._precision(span.name)
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
            loops = self._loops_for(work, values.dtype)
            if loops is not None:
                loops.widen(values, row)
            else:
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

    def _precision(self, name: str) -> type[np.floating[Any]]:
        """float32 where all that is read and written is of half precision."""
        work = self._works.get(name)
        if work is None:
            dtypes = {source[name].dtype for source in self.sources} | {self.pool.dtype_of(name)}
            half = dtypes <= HALF and not self.merge_rules[name].in_double
            work = self._works[name] = np.float32 if half else np.float64
        return work

    def _loops_for(self, work: type[np.floating[Any]], dtype: np.dtype[Any]) -> HalfLoops | None:
        """The compiled loops where they convert between this dtype and the precision of the sums."""
        return self.loops if self.loops is not None and work is np.float32 and dtype in self.loops.dtypes else None

    def _sum_for(self, name: str) -> _Sum | None:
        """The tensor's blend as a weighted sum of words of one dtype; None where it is anything else."""
        if name not in self._sums:
            self._sums[name] = self._plain_sum(name)
        return self._sums[name]

    def _plain_sum(self, name: str) -> _Sum | None:
        given, dtype = self.merge_rules[name].plain_sum(), self.pool.dtype_of(name)
        changed = self.measure or self.skip_nonfinite or self.pool.cast is not None or self.pool.vocabulary is not None
        loops = self._loops_for(self._precision(name), dtype)
        if given is None or changed or loops is None:
            return None
        factors, scale = given
        m = len(self.pool.members)
        sources = self.sources[:m] if len(factors) == m else [self.sources[m], *self.sources[:m]]
        tensors = [source[name] for source in sources]
        vanishing = any(factor and not np.float32(factor) for factor in factors)
        if vanishing or any(tensor.dtype != dtype for tensor in tensors):
            return None
        return _Sum(tensors, factors, scale, loops)

    def blend(self, span: Span, state: Any) -> tuple[NDArray[Any], NDArray[np.float64], Measures | None]:
        """The block of the result, the members' squared distances to it, and its measures if requested."""
        if span.name in self.pool.skipped:
            return self.pool.source(span.name).read(span.start, span.stop), np.zeros(len(self.pool.members)), None
        if not self.is_blended(span.name):
            return *self._copy(span), None
        with np.errstate(all="ignore"):  # overflow and NaN are looked for in the result, and named
            summed = self._sum_for(span.name)
            if summed is None:
                rounded, squares, seen = self._by_rule(span, state)
            else:
                (rounded, squares), seen = self._by_sum(span, summed), None
        dtype = self.pool.dtype_of(span.name)
        if not np.isfinite(squares).all():
            constant = self._constant(span)
            if constant is not None and dtype == self.pool.first[span.name].dtype:
                return constant, np.zeros(len(squares)), seen
            squares = self._explain(span, rounded)
        return rounded.view(dtype), squares, seen

    def _by_rule(self, span: Span, state: Any) -> tuple[NDArray[Any], NDArray[np.float64], Measures | None]:
        dtype, merge_rule, buffers = self.pool.dtype_of(span.name), self.merge_rules[span.name], self._buffers()
        part = REAL.get(dtype, dtype)
        work = self._precision(span.name)
        rows, base = self.load(span)
        count = len(rows[0])
        total, other = (row.view(work)[:count] for row in buffers.extra[:2])
        if merge_rule.blend(Block(rows, base, span, state), total, other):
            same = rows[0] == rows[1] if len(rows) > 1 else np.ones(count, bool)
            for row in rows[2:]:
                same &= row == rows[0]
            np.copyto(total, rows[0], where=same)
        if self.pool.cast is not None and merge_rule.casts:
            np.copyto(total, total.astype(self.pool.cast))
        rounded = buffers.rounded[: count * part.itemsize].view(part)
        loops = self._loops_for(work, part)
        if loops is None:
            np.copyto(rounded, total, casting="unsafe")
            np.copyto(total, rounded, casting="unsafe")
        else:
            loops.narrow(total, rounded)
        seen = Measures.of(rows, base, total) if self.measure else None
        squares = np.empty(len(rows))
        for member, row in enumerate(rows):
            if loops is None:
                np.subtract(row, total, out=row)
                squares[member] = _sum_of_squares(row, buffers.extra[2])
            else:
                squares[member] = loops.square_distance(row, total)
        return rounded, squares, seen

    def _by_sum(self, span: Span, summed: _Sum) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The same where the rule is a plain sum, in one loop over the words as they were read."""
        buffers, m = self._buffers(), len(self.pool.members)
        rows = [
            tensor.read(span.start, span.stop, row.view(np.uint8))
            for tensor, row in zip(summed.tensors, buffers.rows, strict=False)
        ]
        rounded = buffers.rounded[: len(rows[0]) * rows[0].itemsize].view(rows[0].dtype)
        scratch = buffers.scratch(summed.loops.scratch_bytes(len(rows)))
        return rounded, summed.loops.blend(rows, summed.factors, summed.scale, rounded, scratch)[-m:]

    def _copy(self, span: Span) -> tuple[NDArray[Any], NDArray[np.float64]]:
        buffers = self._buffers()
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
                skipped = f"copy one member's by skip=[{span.name!r}], " if span.name else ""
                raise InputError(
                    f"{tensor_label(span.name)} is {values.dtype} and differs at {where} between "
                    f"{self.pool.labels[0]} ({values[offset]}) and {label} ({theirs[offset]}); such values are copied, "
                    f"not averaged: {skipped}make the members agree or cast them to a float dtype"
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
                with np.errstate(over="ignore"):  # distances beyond what squares hold are computed apart
                    squares[position] = np.sum(np.square(np.where(np.isfinite(values), values, blend) - blend))
        bad = np.flatnonzero(~np.isfinite(blend))
        if len(bad):
            where = self._index(span.name, span.start + int(bad[0]) // step)
            raise InputError(
                f"the blend of {tensor_label(span.name)} at {where} is beyond the range of {dtype}; "
                f"use weights that sum to one{or_wider(dtype)}"
            )
        return squares

    def _index(self, name: str, flat: int) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.unravel_index(flat, self.pool.first[name].shape))


@dataclass(frozen=True, slots=True)
class _Sum:
    """A tensor's blend as a weighted sum: `scale * sum_k factors[k] tensors[k]`."""

    tensors: Sequence[Tensor]
    factors: Sequence[float]
    scale: float
    loops: HalfLoops


class Buffers:
    """Work space of one thread: a row for each member and the base, and four more."""

    def __init__(self, m: int, block: int) -> None:
        self.rows = np.empty((m, block), np.float64)
        self.extra = np.empty((4, block), np.float64)
        self.raw = np.empty(block * 16, np.uint8)
        self.rounded = np.empty(block * 16, np.uint8)
        self._scratch = np.empty(0, np.uint8)

    def scratch(self, nbytes: int) -> NDArray[np.uint8]:
        """Work space of so many bytes."""
        if len(self._scratch) < nbytes:
            self._scratch = np.empty(nbytes, np.uint8)
        return self._scratch

    @staticmethod
    def bytes_per_element(m: int) -> int:
        # A complex element occupies two real ones, so blocks of complex tensors have half as many elements.
        return 8 * (m + 4) + 32


def _sum_of_squares(row: NDArray[Any], scratch: NDArray[np.float64]) -> float:
    """Sum of squares in float64, because squares of bfloat16 values can overflow or underflow float32."""
    if row.dtype != np.float64:
        wide = scratch[: len(row)]
        np.copyto(wide, row)
        row = wide
    return inner(row, row)
