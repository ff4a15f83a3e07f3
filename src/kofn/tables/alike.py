"""Labels that a person reads as one and that count as several: they differ by white space, case or Unicode form alone.

>>> alike_labels(["cat", "dog", " Cat"], "label")
"column 'label' holds 'cat' (row 0) and ' Cat' (row 2): alike but for white space or case, they count as different"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.lazy import polars as pl

# Spellings of one label that are named, and labels of which they are.
_SPELLINGS, _LABELS = 4, 3


def alike_labels(labels: Array | Sequence[Any], *columns: str) -> str | None:
    """What to say of a column's labels that are alike but for white space, case or Unicode form; None of others.

    Args:
        labels: (n,) labels; of several columns those of the first, then those of the second, and so on.
        columns: what the columns are called.

    Cost: O(n), and a normalised text for each different label.
    """
    given = pl.Series("label", np.asarray(labels).astype(str).tolist(), dtype=pl.String)
    first = pl.DataFrame([given]).with_row_index("row").group_by("label").agg(pl.col("row").min()).sort("row")
    plain = pl.col("label").str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    alike = first.group_by(plain.alias("plain"), maintain_order=True).agg("label", "row")
    alike = alike.filter((pl.col("label").list.len() > 1) & (pl.col("plain") != ""))
    if alike.is_empty():
        return None
    n = len(given) // len(columns)
    named = [_named(spellings, [row % n for row in rows]) for _, spellings, rows in alike.head(_LABELS).iter_rows()]
    where = f"column {columns[0]!r} holds" if len(columns) == 1 else f"columns {', '.join(map(repr, columns))} hold"
    more = f"; and {len(alike) - _LABELS:,} more such labels" if len(alike) > _LABELS else ""
    return f"{where} {'; '.join(named)}{more}: alike but for white space or case, they count as different"


def _named(spellings: list[str], rows: list[int]) -> str:
    """The spellings of a label, each with its first row."""
    shown = [f"{label!r} (row {row})" for label, row in zip(spellings, rows, strict=True)]
    left = len(shown) - _SPELLINGS
    return f"{', '.join(shown[:_SPELLINGS])} and {left} more" if left > 0 else " and ".join(shown)


def alike_notes(values: Mapping[str, Any], label: str | None, groupings: Sequence[str] = ()) -> tuple[str, ...]:
    """The same of what was read of a table: its labels (`y`) and its columns of groups, each column once.

    Args:
        values: what the columns say of each row, by word; groups of several columns by name.
        label: the column of labels.
        groupings: the columns of groups.
    """
    groups = values.get("groups")
    columns = dict(groups) if isinstance(groups, Mapping) else {} if groups is None else {groupings[0]: groups}
    if label is not None and "y" in values:
        columns[label] = values["y"]
    notes = (alike_labels(column, name) for name, column in columns.items())
    return tuple(note for note in notes if note is not None)
