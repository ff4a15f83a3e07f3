"""Rows of embeddings and heads that a mergekit recipe decides token by token (`tokenizer: tokens`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.io.vocabulary import Tokens

if TYPE_CHECKING:
    from kofn.combination._sweep.tensor import Tensor


@dataclass(frozen=True)
class TokenRow:
    """Where the row of a token comes from.

    Attributes:
        token: its text.
        model: the folder of the model that has the row, None for a row of zeros.
        source: the token there, or the number of its row.
        force: whether models that have the token get this row as well.
    """

    token: str
    model: Path | None = None
    source: str | int = ""
    force: bool = False

    def row_of(self, tensors: Sequence[Tensor], places: Sequence[Path], tokens: Sequence[Tokens]) -> NDArray[Any]:
        """The row.

        Args:
            tensors: the table of every source.
            places: the folders of the sources.
            tokens: their tokens.

        Raises:
            InputError: a model that is no source, or that lacks the row.
        """
        width = math.prod(tensors[0].shape[1:])
        if self.model is None:
            return np.zeros(width, tensors[0].dtype)
        named = f"tokenizer: tokens: {self.token!r} takes its row from {self.model}"
        if self.model.resolve() not in places:
            raise InputError(f"{named}, which is none of the models that are blended; name one of them")
        position = places.index(self.model.resolve())
        number = self.source if isinstance(self.source, int) else tokens[position].ids.get(self.source, -1)
        if not 0 <= number < tensors[position].shape[0]:
            which = f"row {number}" if isinstance(self.source, int) else f"token {self.source!r}"
            raise InputError(f"{named}, which has no {which}; name a token or a row that it has")
        return np.array(tensors[position].read(number * width, (number + 1) * width))


class Patched:
    """A tensor with some rows replaced by others, `values` by their numbers; the last may lie behind its own."""

    __slots__ = ("_numbers", "_tensor", "_values", "_width", "dtype", "shape", "size")

    def __init__(self, tensor: Tensor, values: Mapping[int, NDArray[Any]]) -> None:
        self._tensor, self._numbers = tensor, np.array(sorted(values), np.int64)
        self.dtype: np.dtype[Any] = tensor.dtype
        self._values = np.array([values[number] for number in self._numbers.tolist()]).astype(self.dtype)
        self.shape: tuple[int, ...] = (max(tensor.shape[0], 1 + int(self._numbers[-1])), *tensor.shape[1:])
        self._width = math.prod(self.shape[1:])
        self.size: int = math.prod(self.shape)

    @property
    def path(self) -> Path:
        """The file that holds the other rows."""
        path: Path = self._tensor.path  # type: ignore[attr-defined]
        return path

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Elements `start:stop` of the flattened tensor."""
        stop, width = self.size if stop is None else stop, self._width
        block = np.zeros(stop - start, self.dtype)
        end = min(stop, self._tensor.size)
        if start < end:
            block[: end - start] = self._tensor.read(start, end)
        first, last = np.searchsorted(self._numbers, [start // width, -(-stop // width)])
        for number, values in zip(self._numbers[first:last].tolist(), self._values[first:last], strict=True):
            begin = number * width
            low, high = max(start, begin), min(stop, begin + width)
            block[low - start : high - start] = values[low - begin : high - begin]
        return block
