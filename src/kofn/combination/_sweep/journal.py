"""What is known of the tensors that a run has written: rows that can be noted, sent and read again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kofn.combination._sweep.blockwise import Done
from kofn.combination._sweep.members import Pool
from kofn.io.tensor_writer import CheckpointWriter

# Name, squared distances, measures (or None), the error of quantising (or None) and whether it is opposite in two
# members, of a tensor, as JSON has them.
Row = list[Any]


def rows_of(names: Iterable[str], done: Done, errors: Mapping[str, float]) -> list[Row]:
    """The rows of tensors that were blended and written."""
    return [
        [
            name,
            done.squares[name].tolist(),
            _plain(done.measures.get(name)),
            errors.get(name),
            name in done.opposite,
        ]
        for name in names
    ]


def take_rows(rows: Iterable[Row], pool: Pool, writer: CheckpointWriter, done: Done, errors: dict[str, float]) -> None:
    """Count the tensors of these rows as written: by an earlier run, or by another process."""
    for name, squares, measures, error, opposite in rows:
        if error is not None:
            errors[name] = error
            writer.settled(pool.schemes[name].scale)
        done.squares[name] = np.array(squares, np.float64)
        if opposite:
            done.opposite.add(name)
        if measures is not None:
            done.measures[name] = {
                key: np.array(item) if isinstance(item, list) else item for key, item in measures.items()
            }
        writer.settled(name)


def _plain(measures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if measures is None:
        return None
    return {key: item.tolist() if isinstance(item, np.ndarray) else item for key, item in measures.items()}
