"""What arithmetic and memory cannot hold, said in words where it shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from kofn.core.checks.errors import FailureError, InputError, KofnError, KofnWarning
from kofn.core.checks.reading import in_callers_code

# Beyond this, squares and sums of floats overflow or vanish.
_EXTREME = 1e100


@contextmanager
def explained(name: str, known: Mapping[str, Any]) -> Iterator[None]:
    """Within it a method runs: numbers that overflow or vanish, and more than fits into memory, are said in words.

    Whatever else is raised is a fault of ours or the caller's own callable's, and leaves as it is.

    Args:
        name: what runs.
        known: its arguments.

    Raises:
        InputError: an error of arithmetic, where an argument holds numbers beyond 1e100 or within 1e-100 of 0.
        FailureError: more memory than there is.
    """
    try:
        yield
    except (KofnError, KofnWarning):
        raise
    except MemoryError as error:
        raise FailureError(f"{name} ran out of memory ({error}); give fewer items, or a smaller setting") from error
    except Exception as error:
        word = next((word for word, value in known.items() if _is_extreme(value)), None)
        if word is None or in_callers_code(error):
            raise
        why = " ".join(str(error).split())[:100]
        raise InputError(f"{word} holds numbers that arithmetic on floats cannot hold ({why}); rescale it") from error


def _is_extreme(value: Any) -> bool:
    """Whether it holds numbers other than 0 whose squares overflow or vanish."""
    if isinstance(value, int) and abs(value) >= 2**1023:
        return True
    if isinstance(value, float | int):
        size: Any = np.array([float(abs(value))])
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        size = np.abs(value.astype(np.float64))
    elif isinstance(value, Mapping):
        return any(map(_is_extreme, value.values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(_is_extreme(getattr(value, part.name, None)) for part in dataclasses.fields(value))
    else:
        return any(map(_is_extreme, value)) if isinstance(value, list | tuple) else False
    size = size[(size > 0) & (size < np.inf)]
    return bool(len(size)) and not 1 / _EXTREME < size.min() <= size.max() < _EXTREME
