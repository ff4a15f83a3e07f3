"""Which rows of a pool have a label."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError


def labelled_rows(y: NDArray[Any], unlabelled: Hashable) -> NDArray[np.bool_]:
    """(n,) True where there is a label.

    Args:
        y: labels.
        unlabelled: the value of rows without one.

    Raises:
        InputError: every row has a label.
    """
    missing = y == str(unlabelled) if y.dtype.kind in "US" else y == unlabelled
    labelled = ~np.broadcast_to(np.asarray(missing, bool), y.shape)
    if labelled.all():
        raise InputError(
            f"y: all {len(y)} rows are labelled, none holds unlabelled={unlabelled!r}; nothing is left to label"
        )
    return labelled
