"""What a blend reads: the interface that tensors in memory, in files, and made of others share."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.io.quantised import Stored


class Tensor(Stored, Protocol):
    """A tensor whose dtype and shape are known, and whose values are read block by block."""

    @property
    def nbytes(self) -> int:
        """Bytes of the values as they are stored."""
        ...

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None, /) -> NDArray[Any]:
        """Elements `start:stop` of the flattened tensor; `_out`, where it is used, is the buffer that they fill."""
        ...


def or_wider(dtype: np.dtype[Any]) -> str:
    """The end of a refusal of values beyond the range of a dtype: the one that holds them; empty where none does.

    >>> or_wider(np.dtype("float16")), or_wider(np.dtype("float64"))
    (", or give dtype='float32'", '')
    """
    # bfloat16 has the range of float32.
    wider = "float64" if dtype.name in ("bfloat16", "float32") else "float32"
    return "" if dtype.kind == "c" or dtype.name == "float64" else f", or give dtype={wider!r}"
