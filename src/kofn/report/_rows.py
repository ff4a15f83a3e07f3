"""The table that a plan was made from, given to its report as X: vectors as they were compared, and what to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from kofn.core.checks import InputError, is_sparse
from kofn.core.checks.kinds import frame_kind
from kofn.core.plans import Plan


def is_rows(X: Any) -> bool:
    """Whether X is a table with named columns, or the path of one."""
    return frame_kind(X) is not None


def seen_of(plan: Plan, X: Any) -> dict[str, Any]:
    """X, metric, frame and text of a report, from the table whose rows the plan is of.

    Raises:
        InputError: the plan was not made from a table, and not all columns of this one are numbers; another table.
    """
    from kofn.io.frames import FrameTable
    from kofn.io.opening import open_table
    from kofn.tables.read import read_vectors
    from kofn.tables.select_arguments import SelectArguments
    from kofn.tables.spelling import speaking_python

    table = open_table(X) if frame_kind(X) == "file" else FrameTable(X)
    table_of_all = pl.DataFrame([table.column(name) for name in table.columns])
    compared = plan.info.get("compared")
    if not isinstance(compared, Mapping):
        odd = next((name for name in table.columns if table.dtype(name) not in ("number", "boolean")), None)
        if odd is not None:
            raise InputError(
                f"X has a column {odd!r} that is not of numbers, and the plan does not say how its rows were compared; "
                "give the vectors as X, and the table as frame"
            )
        return {"X": table_of_all.to_numpy(), "frame": table_of_all}
    if table.n != plan.n:
        raise InputError(f"X has {table.n:,} rows, and the plan is of {plan.n:,}; give the table that it was made from")
    asked = dict(compared)
    metric, numbers = asked.pop("metric"), asked.pop("numbers", None)
    names = list(numbers or asked.get("columns") or ()) + [asked[key] for key in ("text", "vectors") if key in asked]
    missing = next((name for name in names if name not in table.columns), None)
    if missing is not None:
        raise InputError(
            f"X has no column {missing!r}, by which the plan compared its rows; give the table it was made from"
        )
    if numbers is not None:
        vectors: Any = table_of_all.select(numbers).to_numpy()
    else:
        words: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()
        }
        arguments = SelectArguments(**words)
        vectors = speaking_python(lambda: read_vectors(table, arguments)).X
    seen = {"X": None if is_sparse(vectors) else vectors, "metric": metric, "frame": table_of_all}
    return seen | ({"text": asked["text"]} if "text" in asked else {})
