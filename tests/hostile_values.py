"""Values that nobody should give, by kind: for each a function of the valid value in whose place it stands.

A value is made anew for every call, since some can be read only once.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse


class LyingLength:
    """Says that it is longer than it is."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int) or index > 2:
            raise IndexError("no such row")
        return 1.0


class NegativeLength(LyingLength):
    """Has a length that Python refuses."""

    def __len__(self) -> int:
        return -1


class NoArray:
    """Raises an error of its own when it is to become an array."""

    shape = (3, 2)
    dtype = np.dtype(float)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("this array is not for you\nat all")


class OtherArray(NoArray):
    """Becomes something that is no array."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        return "no array"


class Unequal:
    """Can be neither compared, hashed, printed nor asked whether it is true."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        raise RuntimeError("not to be compared")

    def __bool__(self) -> bool:
        raise RuntimeError("not to be asked")

    def __repr__(self) -> str:
        raise RuntimeError("not to be printed")


class Everything:
    """Has every attribute that is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class OddMapping(dict[Any, Any]):
    """A mapping whose entries cannot be read."""

    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("not to be read")

    def items(self) -> Any:
        raise RuntimeError("not to be listed")


def _endless() -> Iterator[int]:
    while True:
        yield 1


def _objects(*values: Any) -> Any:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def _cyclic(_: Any) -> Any:
    made: list[Any] = []
    made.append(made)
    return made


def _deep(_: Any) -> Any:
    made: Any = 1.0
    for _level in range(5_000):
        made = [made]
    return made


def _shorter(valid: Any) -> Any:
    return valid[:-1]


def _longer(valid: Any) -> Any:
    return [*valid, valid[-1]]


def _as(kind: Any) -> Callable[[Any], Any]:
    return lambda valid: np.asarray(valid).astype(kind)


def _filled(value: Any) -> Callable[[Any], Any]:
    return lambda valid: np.full(np.shape(valid), value)


def _masked(valid: Any) -> Any:
    return np.ma.masked_array(valid, np.ones(np.shape(valid), bool))


def _frame(valid: Any) -> Any:
    return pl.DataFrame(np.atleast_2d(np.asarray(valid)))


Value = Callable[[Any], Any]
PLAIN: dict[str, Value] = {
    "true": lambda _: True,
    "false": lambda _: False,
    "zero": lambda _: 0,
    "minus one": lambda _: -1,
    "half": lambda _: 0.5,
    "10^12": lambda _: 10**12,
    "2^63": lambda _: 2**63,
    "10^400": lambda _: 10**400,
    "-10^5000": lambda _: -(10**5000),
    "NaN": lambda _: float("nan"),
    "infinite": lambda _: float("inf"),
    "minus infinite": lambda _: float("-inf"),
    "tiny": lambda _: 5e-324,
    "largest": lambda _: 1.7e308,
    "complex": lambda _: 1 + 2j,
    "fraction": lambda _: fractions.Fraction(1, 3),
    "decimal": lambda _: decimal.Decimal("sNaN"),
    "no text": lambda _: "",
    "text": lambda _: "no such value",
    "text with nul": lambda _: "a\0b",
    "half a letter": lambda _: "\ud800",
    "long text": lambda _: "x" * 100_000,
    "bytes": lambda _: b"\xff\x00",
    "path": lambda _: Path("nowhere"),
    "uuid": lambda _: uuid.UUID(int=1),
    "date": lambda _: datetime.date(2020, 1, 1),
    "datetime": lambda _: datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    "no time": lambda _: np.datetime64("NaT"),
    "class": lambda _: int,
    "module": lambda _: types,
    "ellipsis": lambda _: ...,
    "slice": lambda _: slice(None),
    "function": lambda _: lambda *_a, **_k: None,
    "not implemented": lambda _: NotImplemented,
    "object": lambda _: object(),
    "0-d": lambda _: np.array(1.0),
    "0-d object": lambda _: np.array(None, object),
    "half float": lambda _: np.float16("nan"),
    "void": lambda _: np.zeros(3, [("a", float), ("b", "U3")]),
}
HOLDERS: dict[str, Value] = {
    "no list": lambda _: [],
    "no tuple": lambda _: (),
    "no mapping": lambda _: {},
    "no set": lambda _: set(),
    "list of none": lambda _: [None],
    "list of lists": lambda _: [[]],
    "list of text": lambda _: ["a", "b"],
    "list of numbers": lambda _: [1, 2, 3],
    "list of NaN": lambda _: [float("nan")] * 3,
    "mixed list": lambda _: [1, "a", None, 2.5],
    "huge numbers": lambda _: [10**400, 1],
    "ragged": lambda _: [[1.0], [1.0, 2.0]],
    "ragged deeper": lambda _: [[[1.0], [2.0]], [[1.0]]],
    "cyclic": _cyclic,
    "deep": _deep,
    "pairs of text": lambda _: [("a", "b")],
    "pairs": lambda _: [(0, 10**6)],
    "self pairs": lambda _: [(0, 0)],
    "negative pairs": lambda _: [(-1, 0)],
    "mapping": lambda _: {"a": 1},
    "mapping of mappings": lambda _: {"a": {"b": {"c": 1}}},
    "mapping by number": lambda _: {1: 2},
    "mapping by none": lambda _: {None: None},
    "mapping by tuple": lambda _: {("a", 1): (0, 1)},
    "odd mapping": lambda _: OddMapping(a=1),
    "set": lambda _: {1, 2},
    "set of text": lambda _: {"a"},
    "mixed set": lambda _: {1, "a", None},
    "generator": lambda _: (i for i in range(3)),
    "generator that fails": lambda _: (1 / 0 for _i in range(3)),
    "iterator": lambda _: iter([1, 2]),
    "range": lambda _: range(2),
    "long range": lambda _: range(10**9),
    "endless": lambda _: _endless(),
    "memory": lambda _: memoryview(b"abcd"),
    "array of objects": lambda _: _objects(1, "a", None),
    "array of lists": lambda _: _objects([1], [1, 2]),
    "array of arrays": lambda _: _objects(np.ones(2), np.ones(3)),
    "array of dates": lambda _: np.arange(3).astype("M8[D]"),
    "array of times": lambda _: np.arange(6).reshape(3, 2).astype("m8[s]"),
    "array of text": lambda _: np.array([["a", "b"]] * 3),
    "array of bytes": lambda _: np.array([b"a", b"b"]),
    "complex array": lambda _: np.ones((3, 2)) * 1j,
    "5-d": lambda _: np.ones((1, 1, 1, 1, 2)),
    "empty rows": lambda _: np.ones((0, 3)),
    "empty columns": lambda _: np.ones((3, 0)),
    "big end": lambda _: np.ones((3, 2), ">f8"),
    "long double": lambda _: np.ones((3, 2), np.longdouble),
    "unsigned": lambda _: np.array([2**64 - 1, 0], np.uint64),
    "csr": lambda _: scipy.sparse.csr_array(np.eye(3)),
    "empty csr": lambda _: scipy.sparse.csr_array((0, 0)),
    "1-d coo": lambda _: scipy.sparse.coo_array(np.ones(3)),
    "csr of objects": lambda _: scipy.sparse.csr_array(np.eye(3, dtype=bool)),
    "frame": lambda _: pl.DataFrame({"a": [1, None], "b": ["x", "y"]}),
    "empty frame": lambda _: pl.DataFrame(),
    "lazy frame": lambda _: pl.LazyFrame({"a": [1.0, 2.0]}),
    "broken lazy frame": lambda _: pl.LazyFrame({"a": [1]}).select("b"),
    "series of lists": lambda _: pl.Series([[1.0], [1.0, 2.0]]),
    "series of structs": lambda _: pl.Series([{"a": 1}]),
    "expression": lambda _: pl.col("a"),
    "lying length": lambda _: LyingLength(),
    "negative length": lambda _: NegativeLength(),
    "no array": lambda _: NoArray(),
    "other array": lambda _: OtherArray(),
    "unequal": lambda _: Unequal(),
    "list of unequal": lambda _: [Unequal()],
    "everything": lambda _: Everything(),
}
# Made of the valid value; where that cannot be, there is nothing to try.
CHANGED: dict[str, Value] = {
    "one less": _shorter,
    "one more": _longer,
    "turned": lambda valid: np.asarray(valid).T[::-1],
    "one axis more": lambda valid: np.asarray(valid)[None],
    "flat": lambda valid: np.asarray(valid).ravel(),
    "in a list": lambda valid: [valid],
    "as a generator": lambda valid: (row for row in valid),
    "as a set": lambda valid: set(valid),
    "as a frame": _frame,
    "as text": _as(str),
    "as objects": _as(object),
    "as bytes": _as(np.uint8),
    "as half floats": _as(np.float16),
    "as complex": _as(complex),
    "all masked": _masked,
    "all NaN": _filled(np.nan),
    "all largest": _filled(1.7e308),
    "all tiny": _filled(5e-324),
    "all zero": _filled(0.0),
    "all infinite": _filled(np.inf),
    "as csr": lambda valid: scipy.sparse.csr_array(np.asarray(valid)),
    "negative": lambda valid: -np.asarray(valid),
    "with a NaN": lambda valid: _with(valid, np.nan),
    "with a none": lambda valid: _with(valid, None),
    "with text": lambda valid: _with(valid, "a"),
}


def _with(valid: Any, value: Any) -> Any:
    made = np.array(valid, object)
    made[(0,) * made.ndim] = value
    return made.tolist()


def _torch(make: Callable[[Any], Any]) -> Value:
    def value(_: Any) -> Any:
        import torch

        return make(torch)

    return value


TENSORS: dict[str, Value] = {
    "tensor": _torch(lambda torch: torch.ones(3, 2)),
    "bfloat16 tensor": _torch(lambda torch: torch.ones(3, 2, dtype=torch.bfloat16)),
    "float8 tensor": _torch(lambda torch: torch.ones(3, 2).to(torch.float8_e4m3fn)),
    "complex tensor": _torch(lambda torch: torch.ones(3, 2, dtype=torch.complex64)),
    "tensor with grad": _torch(lambda torch: torch.ones(3, 2, requires_grad=True)),
    "sparse tensor": _torch(lambda torch: torch.eye(3).to_sparse()),
    "csr tensor": _torch(lambda torch: torch.eye(3).to_sparse_csr()),
    "meta tensor": _torch(lambda torch: torch.empty(3, 2, device="meta")),
    "0-d tensor": _torch(lambda torch: torch.tensor(2)),
    "tensor NaN": _torch(lambda torch: torch.tensor([float("nan")])),
    "quantized tensor": _torch(lambda torch: torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8)),
    "module": _torch(lambda torch: torch.nn.Linear(2, 2)),
}
VALUES = {**PLAIN, **HOLDERS, **CHANGED, **TENSORS}
