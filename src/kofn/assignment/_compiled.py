"""Signatures of the assignment kernels."""

from __future__ import annotations

from typing import Any

import numba as nb
from numba.core.sigutils import normalize_signature


def both_precisions(signature: str, read: int = 0) -> list[Any]:
    """The signature for float32 and for float64, written `T`.

    The first `read` arguments are declared read-only, so memory-mapped and read-only arrays are accepted.
    """
    out = []
    for kind in ("f4", "f8"):
        arguments, result = normalize_signature(signature.replace("T", kind))
        locked = [nb.types.Array(a.dtype, a.ndim, a.layout, readonly=True) for a in arguments[:read]]
        out.append(result(*locked, *arguments[read:]))
    return out
