"""Columns of a table of predictions that nobody named and that may be features or keys of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.tables.unlike import as_typed, name_rows


def refuse_features(
    values: Mapping[str, Array], y: Array, id_column: str | None, features: Sequence[str] | None
) -> None:
    """Refuse columns that nobody named and that are no probabilities, where others are and the answers are classes.

    Args:
        values: the columns.
        y: the answers.
        id_column: the column of keys, where one was named.
        features: the columns that rows are compared by, where some were named.

    Raises:
        InputError: names them, and the flags that say what they may be.
    """
    from kofn.combination.ensembles._task import are_chances

    whole = y.dtype.kind in "Ub" or (len(np.unique(y)) == 2 and bool(np.isin(y, (0, 1)).all()))
    chances = [name for name, column in values.items() if are_chances(np.asarray(column).reshape(-1, 1))]
    others = [name for name in values if name not in chances]
    if not whole or not chances or not others:
        return
    column = np.asarray(values[others[0]])
    row = int(np.flatnonzero((column < 0) | (column > 1))[0])
    keys = [name for name in others if name_rows(name, values[name])] if id_column is None else []
    rest = [*(features or ()), *(name for name in others if name not in keys[:1])]
    roles = [f"name the models with --columns {as_typed(*chances)}"]
    roles += [f"the column that names the rows with --id {as_typed(name)}" for name in keys[:1]]
    if len(others) > len(keys[:1]):
        roles.append(f"the features that rows are compared by with --feature-columns {as_typed(*rest)}")
    raise InputError(
        f"{others[0]!r} at row {row} is {column[row]:.6g}, no probability as {chances[0]!r} is, so {', '.join(others)} "
        f"may be no predictions: {', or '.join([', '.join(roles[:-1]), roles[-1]])}; of logits take the softmax"
    )
