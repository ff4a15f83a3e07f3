"""What a blend reads: the interface that tensors in memory, in files, and made of others share."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Tensor(Protocol):
    """A tensor whose dtype and shape are known, and whose values are read block by block."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of the values as they are stored."""
        ...

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None, /) -> NDArray[Any]:
        """Elements `start:stop` of the flattened tensor; `_out`, where it is used, is the buffer that they fill."""
        ...
