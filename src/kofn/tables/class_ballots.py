"""Columns of text in which models name a class of each row, told apart from keys and notes without the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.tables.long_form import ANSWER
from kofn.tables.unlike import as_typed


def voting(texts: Mapping[str, Sequence[Any]], *, named: bool) -> list[str]:
    """The columns of text that vote for classes: each names mostly classes that others name, and some name often.

    Args:
        texts: the columns of text, and their cells, None or empty where there is no vote.
        named: the columns were named as predictions, so that all are.

    Raises:
        InputError: a column that nobody named is called as answers are.

    Examples:
        >>> voting({"key": ["a", "b", "c"], "m": ["cat", "dog", "cat"], "n": ["cat", "cat", "dog"]}, named=False)
        ['m', 'n']
    """
    if named:
        return list(texts)
    cells = {name: [str(cell) for cell in column if cell] for name, column in texts.items()}
    out = []
    for name, own in cells.items():
        others = {cell for other, column in cells.items() if other != name for cell in column}
        if len(set(own)) < len(own) and 2 * sum(cell in others for cell in own) >= len(own):
            out.append(name)
    if len(out) < 2:
        return []
    for name in out:
        if ANSWER.fullmatch(name.strip()):
            rest = [other for other in out if other != name]
            raise InputError(
                f"column {name!r} is called as answers are, and names classes as {', '.join(rest)}; if it holds the "
                f"answers, say --label {as_typed(name)}, if all vote, say --columns {as_typed(*out)}"
            )
    return out


def classes_voted(votes: Sequence[Array]) -> list[str]:
    """The classes that votes are for, in the order of their names."""
    return sorted({str(cell) for vote in votes for cell in np.asarray(vote).tolist() if cell is not None})
