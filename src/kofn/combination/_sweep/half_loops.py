"""Loops over half-precision numbers, compiled for this processor; what they give is bit for bit what NumPy gives.

Products, sums and conversions are rounded one by one, as NumPy rounds them: only sums of squares, in float64, are added
up in another order.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.engines.machine_code import address, compiled, converts_float16, loop

BFLOAT16, FLOAT16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
_SEGMENT = 2048  # words of a sum that stay in the fastest cache

PARTS = """
declare i64 @llvm.umin.i64(i64, i64)
declare float @llvm.fma.f32(float, float, float)

; A bfloat16, given by its bits, in float32.
define internal float @wide(i16 %word) alwaysinline {
  %long = zext i16 %word to i32
  %bits = shl i32 %long, 16
  %number = bitcast i32 %bits to float
  ret float %number
}

; The bits of the nearest bfloat16, ties to even; NaN stays NaN.
define internal i16 @narrow(float %number) alwaysinline {
  %bits = bitcast float %number to i32
  %upper = lshr i32 %bits, 16
  %odd = and i32 %upper, 1
  %half = add i32 %odd, 32767
  %sum = add i32 %bits, %half
  %near = lshr i32 %sum, 16
  %quiet = or i32 %upper, 64
  %nan = fcmp uno float %number, 0.0
  %kept = select i1 %nan, i32 %quiet, i32 %near
  %word = trunc i32 %kept to i16
  ret i16 %word
}
"""
_WIDEN = """
  %from = getelementptr {type}, ptr %words, i64 %i
  %word = load {type}, ptr %from
  %number = {wide}
  %to = getelementptr float, ptr %numbers, i64 %i
  store float %number, ptr %to
"""
_NARROW = """
  %from = getelementptr float, ptr %numbers, i64 %i
  %unscaled = load float, ptr %from
  %number = fmul float %unscaled, %factor
  %word = {narrow}
  %to = getelementptr {type}, ptr %words, i64 %i
  store {type} %word, ptr %to
  %back = {wide}
  store float %back, ptr %from
"""
_SCALE = """
  %from = getelementptr float, ptr %row, i64 %i
  %number = load float, ptr %from
  %part = fmul float %number, %factor
  %to = getelementptr float, ptr %sums, i64 %i
"""
_FUSE = """
  %from = getelementptr float, ptr %row, i64 %i
  %number = load float, ptr %from
  %to = getelementptr float, ptr %sums, i64 %i
  %present = load float, ptr %to
  %sum = call float @llvm.fma.f32(float %number, float %factor, float %present)
  store float %sum, ptr %to
"""
_SQUARE_DISTANCE = """
  %left = getelementptr float, ptr %row, i64 %i
  %a = load float, ptr %left
  %right = getelementptr float, ptr %other, i64 %i
  %b = load float, ptr %right
  %gap = fsub float %a, %b
  %long = fpext float %gap to double
  %square = fmul double %long, %long
  %carried = fadd reassoc double %before, %square
"""
_CONVERSIONS = {
    BFLOAT16: ("i16", "call float @wide(i16 %word)", "call i16 @narrow(float %number)"),
    FLOAT16: ("half", "fpext half %word to float", "fptrunc float %number to half"),
}
# Weighted sums of words, in segments that stay in the fastest cache: `scratch` holds the sums, and a row a member.
_BLEND = """
define void @blend_NAME(ptr noalias %rows, ptr noalias %factors, i64 %m, float %scale, ptr noalias %out,
                        ptr noalias %squares, ptr noalias %scratch, i64 %n) {
start:
  br label %segment
segment:
  %i = phi i64 [ 0, %start ], [ %stop, %after ]
  %left = sub i64 %n, %i
  %length = call i64 @llvm.umin.i64(i64 %left, i64 SEGMENT)
  call void @clear(ptr %scratch, i64 %length)
  br label %add
add:
  %k = phi i64 [ 0, %segment ], [ %k1, %added ]
  %k1 = add nuw nsw i64 %k, 1
  %place = mul i64 %k1, SEGMENT
  %row = getelementptr float, ptr %scratch, i64 %place
  %slot = getelementptr ptr, ptr %rows, i64 %k
  %begin = load ptr, ptr %slot
  %words = getelementptr i16, ptr %begin, i64 %i
  call void @widen_NAME(ptr %words, ptr %row, i64 %length)
  %which = getelementptr float, ptr %factors, i64 %k
  %factor = load float, ptr %which
  %counts = fcmp une float %factor, 0.0
  br i1 %counts, label %scaled, label %added
scaled:
  call void @add_scaled(ptr %row, float %factor, ptr %scratch, i64 %length)
  br label %added
added:
  %enough = icmp eq i64 %k1, %m
  br i1 %enough, label %round, label %add
round:
  %to = getelementptr i16, ptr %out, i64 %i
  call void @narrow_NAME(ptr %scratch, float %scale, ptr %to, i64 %length)
  br label %measure
measure:
  %j = phi i64 [ 0, %round ], [ %j1, %measure ]
  %j1 = add nuw nsw i64 %j, 1
  %home = mul i64 %j1, SEGMENT
  %member = getelementptr float, ptr %scratch, i64 %home
  %part = call double @square_distance(ptr %member, ptr %scratch, i64 %length)
  %sum = getelementptr double, ptr %squares, i64 %j
  %before = load double, ptr %sum
  %more = fadd double %before, %part
  store double %more, ptr %sum
  %all = icmp eq i64 %j1, %m
  br i1 %all, label %after, label %measure
after:
  %stop = add nuw nsw i64 %i, %length
  %last = icmp eq i64 %stop, %n
  br i1 %last, label %end, label %segment
end:
  ret void
}
""".replace("SEGMENT", str(_SEGMENT))
# Minus zero, to which whatever is added stays as it is.
_CLEAR = """
  %to = getelementptr float, ptr %sums, i64 %i
  store float -0.0, ptr %to
"""
_lock = threading.Lock()


@dataclass(frozen=True)
class HalfLoops:
    """The compiled loops: rows are contiguous float32, words of a half-precision dtype among `dtypes`."""

    dtypes: frozenset[np.dtype[Any]]
    functions: dict[str, Callable[..., Any]]

    def widen(self, words: Array, row: Array) -> None:
        """Make `row` what the words stand for."""
        self.functions[f"widen_{words.dtype.name}"](address(words), address(row), len(words))

    def narrow(self, row: Array, words: Array) -> None:
        """Make words the nearest to the row's numbers, and these what the words stand for."""
        self.functions[f"narrow_{words.dtype.name}"](address(row), 1.0, address(words), len(words))

    def blend(
        self, rows: Sequence[Array], factors: Sequence[float], scale: float, out: Array, scratch: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Make `out` the words nearest to `scale * sum_k factors[k] rows[k]`, products and sums in float32.

        Rows are words, of which there is at least one; those of factor 0 add nothing. `scratch` has
        `scratch_bytes(len(rows))` bytes.

        Returns:
            (m,) squared distances of the rows to the words.
        """
        squares = np.zeros(len(rows))
        starts = np.array([address(row) for row in rows], np.uintp)
        used = np.array(factors, np.float32)
        ends = (address(starts), address(used), len(rows), scale, address(out), address(squares), address(scratch))
        if len(out):
            self.functions[f"blend_{out.dtype.name}"](*ends, len(out))
        return squares

    @staticmethod
    def scratch_bytes(m: int) -> int:
        """The bytes of work space that a blend of m rows takes."""
        return 4 * _SEGMENT * (m + 1)

    def scale(self, row: Array, factor: float, sums: Array) -> None:
        """Make `sums` the row times a factor."""
        self.functions["scale"](address(row), factor, address(sums), len(row))

    def add_scaled(self, row: Array, factor: float, sums: Array) -> None:
        """Add the row times a factor to `sums`; the product is rounded first."""
        self.functions["add_scaled"](address(row), factor, address(sums), len(row))

    def add_fused(self, row: Array, factor: float, sums: Array) -> None:
        """Add the row times a factor to `sums`; the product is not rounded before."""
        self.functions["add_fused"](address(row), factor, address(sums), len(row))

    def square_distance(self, row: Array, other: Array) -> float:
        """The sum of squared differences: these in float32, their squares in float64."""
        return float(self.functions["square_distance"](address(row), address(other), len(row)))


def half_loops() -> HalfLoops | None:
    """The loops, compiled by the first call in a tenth of a second; None where they cannot be."""
    with _lock:
        return _compiled()


def ready() -> HalfLoops | None:
    """The loops if they have been compiled: values are the same without them."""
    return _compiled() if _compiled.cache_info().currsize else None


@functools.cache
def _compiled() -> HalfLoops | None:
    functions = {
        "scale": ("void", "ptr", "float", "ptr", "i64"),
        "add_scaled": ("void", "ptr", "float", "ptr", "i64"),
        "add_fused": ("void", "ptr", "float", "ptr", "i64"),
        "square_distance": ("double", "ptr", "ptr", "i64"),
    }
    factor = ("ptr %row", "float %factor", "ptr %sums")
    store, add = (
        "  store float %part, ptr %to\n",
        "  %present = load float, ptr %to\n  %sum = fadd float %present, %part\n",
    )
    text = [
        PARTS,
        loop("scale", factor, _SCALE + store),
        loop("add_scaled", factor, _SCALE + add + store.replace("%part", "%sum")),
        loop("add_fused", factor, _FUSE),
        loop("square_distance", ("ptr %row", "ptr %other"), _SQUARE_DISTANCE, carried=("double", "0.0")),
        loop("clear", ("ptr %sums",), _CLEAR, internal=True),
    ]
    dtypes = [BFLOAT16, *([FLOAT16] if converts_float16() else [])]
    for dtype in dtypes:
        kind, wide, narrow = _CONVERSIONS[dtype]
        own = {"type": kind, "wide": wide, "narrow": narrow}
        text += [
            loop(f"widen_{dtype.name}", ("ptr %words", "ptr %numbers"), _WIDEN.format(**own)),
            loop(f"narrow_{dtype.name}", ("ptr %numbers", "float %factor", "ptr %words"), _NARROW.format(**own)),
            _BLEND.replace("NAME", dtype.name),
        ]
        functions[f"widen_{dtype.name}"] = ("void", "ptr", "ptr", "i64")
        functions[f"narrow_{dtype.name}"] = ("void", "ptr", "float", "ptr", "i64")
        functions[f"blend_{dtype.name}"] = ("void", "ptr", "ptr", "i64", "float", "ptr", "ptr", "ptr", "i64")
    made = compiled("".join(text), functions)
    return None if made is None else HalfLoops(frozenset(dtypes), made)
