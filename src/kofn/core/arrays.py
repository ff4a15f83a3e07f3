"""Names of array types, each with one meaning in the whole library, and what several families do to arrays.

`Floats` are float64 and `Ints` int64: what kofn computes with. Where a function takes other widths, `Reals`, `Integers`
or `Array` say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Singles = NDArray[np.float32]
Reals = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Array = NDArray[Any]
