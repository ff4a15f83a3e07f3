"""Blends that follow another program to the last place of half-precision models: every step is rounded as there.

Such a program holds a tensor whole; here it is read block by block. Its steps are written once, as a generator that
yields what it adds up over the tensor and receives the sums. Each reading of the members runs the steps as far as the
sums are known and adds up the next ones; the blend runs them to their end. A tensor of one block is read once for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.rule import Block, Span
from kofn.core.arrays import Array

_HALF = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)}
Rounder = Callable[[Any], Array]
Sums = list[Any]
# The steps of a block: it yields arrays whose sums over a line it needs, receives these, and returns the blend.
Trace = Generator[list[Array], Sums, Array]


class Steps:
    """The half precision that each step is rounded to, by tensor; other steps are exact as far as kofn's are.

    Of bfloat16 and float16, torch computes each operation in float32 and rounds the result.
    """

    def __init__(self, pool: Pool) -> None:
        sources = [*pool.members, *([] if pool.base is None else [pool.base])]
        self._dtypes: dict[str, np.dtype[Any]] = {}
        for name in pool.first:
            dtypes = {source[name].dtype for source in sources} if pool.cast is None else {pool.cast}
            if len(dtypes) == 1 and dtypes <= _HALF:
                self._dtypes[name] = dtypes.pop()

    def __contains__(self, name: str) -> bool:
        return name in self._dtypes

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """What the steps of a tensor are rounded to."""
        return self._dtypes.get(name)

    def rounder(self, name: str) -> Rounder:
        """What rounds the values of a step of a tensor, which is then computed in float32; else the identity."""
        dtype = self._dtypes.get(name)
        if dtype is None:
            return lambda values: values
        return lambda values: np.asarray(values, np.float32).astype(dtype).astype(np.float32)

    def of(self, block: Block) -> tuple[Rounder, list[Array], Array]:
        """What rounds the steps of a block, and the rows and the base to compute with."""
        if block.span.name not in self._dtypes:
            return self.rounder(block.span.name), block.rows, block.origin
        rows = [row.astype(np.float32, copy=False) for row in block.rows]
        return self.rounder(block.span.name), rows, block.origin.astype(np.float32, copy=False)


class Progress(NamedTuple):
    """The sums that are known of a tensor, and whether they are all that the steps ask for."""

    sums: tuple[Sums, ...] = ()
    complete: bool = False


@dataclass(frozen=True)
class Replay:
    """The rounded steps of a method, for the tensors whose steps are rounded.

    Args:
        trace: makes the steps of a block from what rounds a step, the rows, the base if there is one, and the number of
            the tensor's entries.
        steps: which tensors these are.
        lines: what is added up: a "tensor", the "rows" of a matrix, or its "columns". Blocks hold whole rows.
    """

    trace: Callable[[Rounder, list[Array], Array | None, int], Trace]
    steps: Steps
    lines: Literal["tensor", "rows", "columns"] = "tensor"

    def scan(self, part: Progress | None, block: Block) -> Progress:
        """Add up what the steps of the block ask for next, and of a tensor of one block all that they ask for."""
        before: Progress = block.state or Progress()
        whole = block.span.stop - block.span.start == math.prod(block.span.shape)
        run, noted = self._run(block), []
        try:
            sums = self._add_up(next(run), block.span)
            for known in before.sums:
                sums = self._add_up(run.send(self._spread(known, block.span)), block.span)
            noted.append(sums)
            while whole:
                sums = self._add_up(run.send(self._spread(sums, block.span)), block.span)
                noted.append(sums)
        except StopIteration:
            whole = True
        return Progress((_plus(part.sums[0], noted[0]),) if part is not None and noted else tuple(noted), whole)

    @staticmethod
    def settle(state: Progress | None, parts: Iterable[Progress]) -> Progress:
        """What is known of the tensor after another reading."""
        before, (first, *others) = state or Progress(), list(parts)
        if not others:
            return Progress(before.sums + first.sums, first.complete)
        if first.complete:
            return Progress(before.sums, True)
        total = first.sums[0]
        for part in others:
            total = _plus(total, part.sums[0])
        return Progress((*before.sums, total))

    def blend(self, block: Block, total: Array) -> None:
        """Run the steps of the block to their end."""
        run = self._run(block)
        known = [] if self.lines == "rows" else list(block.state.sums)
        try:
            asked = next(run)
            while True:
                sums = known.pop(0) if self.lines != "rows" else self._add_up(asked, block.span)
                asked = run.send(self._spread(sums, block.span))
        except StopIteration as end:
            np.copyto(total, end.value, casting="unsafe")

    def _run(self, block: Block) -> Trace:
        rows = [row.astype(np.float32, copy=False) for row in block.rows]
        base = None if block.base is None else block.base.astype(np.float32, copy=False)
        return self.trace(self.steps.rounder(block.span.name), rows, base, math.prod(block.span.shape))

    def _add_up(self, asked: list[Array], span: Span) -> Sums:
        if self.lines == "tensor":
            return [values.sum(dtype=np.float64) for values in asked]
        lines = line_numbers(span, columns=self.lines == "columns")
        least = columns_of(span) if self.lines == "columns" else 0
        return [np.bincount(lines, weights=values, minlength=least) for values in asked]

    def _spread(self, sums: Sums, span: Span) -> Sums:
        """The sums of every entry's line, in float32."""
        if self.lines == "tensor":
            return [np.float32(value) for value in sums]
        lines = line_numbers(span, columns=self.lines == "columns")
        return [value.astype(np.float32)[lines] for value in sums]


def columns_of(span: Span) -> int:
    """How many columns a tensor has, along its first axis; a vector is one."""
    return math.prod(span.shape[1:]) if len(span.shape) > 1 else 1


def line_numbers(span: Span, *, columns: bool) -> NDArray[np.int64]:
    """The number of each entry's column, or of its row in the block."""
    entries = np.arange(span.start, span.stop)
    return entries % columns_of(span) if columns else (entries - span.start) // max(span.row, 1)


def _plus(first: Sums, second: Sums) -> Sums:
    return [a + b for a, b in zip(first, second, strict=True)]
