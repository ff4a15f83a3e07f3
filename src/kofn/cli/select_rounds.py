"""What `kofn select --label COL` says of a round of labelling, where COL is filled in part."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from kofn.cli.printing import first_of
from kofn.core.plans import Selection
from kofn.io.tables import Table
from kofn.selection.labels._classifier import counts_of
from kofn.tables.read import Pool
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_rounds import NEXT, labelled

# A class with fewer labelled rows is named.
_FEW = 3
# How many classes are named in one line.
_CLASSES = 12


def with_row_numbers(arguments: SelectArguments, table: Table) -> SelectArguments:
    """The arguments, rows named by their numbers in the first round's file where `--all` wrote these."""
    if arguments.id_column is not None or "row" not in table.columns or not earlier(table):
        return arguments
    row = table.column("row")
    ours = row.dtype.is_integer() and np.array_equal(np.sort(row.to_numpy()), np.arange(table.n))
    return dataclasses.replace(arguments, id_column="row") if ours else arguments


def earlier(table: Table) -> tuple[str, ...]:
    """Our own columns of the round before, which `--all` wrote: `rank` counts the first rows, `gain` stands by it."""
    if not {"rank", "gain"} <= set(table.columns):
        return ()
    rank = table.column("rank")
    count = table.n - rank.null_count()
    # Other programs write a column of whole numbers that has gaps as 1.0, 2.0, ...
    ours = rank.dtype.is_numeric() and rank.head(count).to_list() == list(range(1, count + 1))
    return ("rank", "gain") if ours and count < table.n else ()


def known_so_far(plan: Selection, pool: Pool) -> dict[str, Any] | None:
    """What a round knew, for machines: labelled rows of each class, and how unsure the model was of the others."""
    known = labelled(pool)
    if known is None:
        return None
    doubt = plan.info.get("uncertainty")
    learnt = doubt is not None and math.isfinite(plan.info.get("temperature", math.nan))
    mean = 0.0 if plan.info.get("sure") or doubt is None else float(np.mean(doubt[~known]))
    return {
        "labels": counts_of(pool.values["y"][known]),
        "left": int((~known).sum()),
        "mean_uncertainty": mean if learnt else None,
        "accuracy": plan.info["accuracy"] if learnt else None,
        "learnt_from": plan.info.get("learnt_from"),
    }


def round_lines(plan: Selection, pool: Pool, arguments: SelectArguments) -> list[str]:
    """What a round knew, for people, and how the next one begins."""
    so_far = known_so_far(plan, pool)
    if so_far is None:
        return []
    column, labels = arguments.label_column, so_far["labels"]
    total = sum(labels.values())
    if not total:
        lines = [f"no row has a label in {column!r} yet: the first round"]
    else:
        named = ", ".join(f"{name} {count:,}" for name, count in list(labels.items())[:_CLASSES])
        more = f", {len(labels) - _CLASSES:,} more classes" if len(labels) > _CLASSES else ""
        lines = [
            f"labelled in {column!r} so far: {total:,} {_rows(total)}, {named}{more}; {so_far['left']:,} "
            f"{_rows(so_far['left'])} {'is' if so_far['left'] == 1 else 'are'} left"
        ]
        few = [name for name, count in labels.items() if count < _FEW]
        if len(labels) == 1:
            lines.append("one class alone has labels, so there is nothing to be unsure of: all rows count alike")
        elif few:
            lines.append(f"fewer than {_FEW} labelled rows: {first_of(few)}")
    if so_far["mean_uncertainty"] is not None:
        lines.append(
            f"{plan.options.get('model') or 'logistic_regression'} is right on {so_far['accuracy']:.0%} of labelled "
            f"rows that were kept from it; mean doubt about the other rows {so_far['mean_uncertainty']:.2f} (0 to 1)"
            + (": all rows count alike" if plan.info.get("sure") else "")
        )
    elif plan.method == NEXT and plan.options.get("model") == "none":
        lines.append("--model none: all rows count alike")
    elif plan.method == NEXT and plan.info.get("learnt_from") == 0:
        lines.append(
            "the classifier did not fit into the time: all rows count alike; --model none leaves it out, "
            "a longer --time-limit lets it learn"
        )
    elif plan.method == NEXT and len(labels) > 1:
        lines.append("too few labelled rows to tell what a model is unsure of: all rows count alike")
    if 0 < plan.info.get("learnt_from", total) < total:
        lines.append(
            f"the time let the classifier learn from {plan.info['learnt_from']:,} of the {total:,} labelled rows"
        )
    if arguments.output:
        how = "run the same command on it" if arguments.every else "copy them into the pool by row or id; --all does so"
        lines.append(f"next: fill in {column!r} of the picks in {arguments.output}, then {how}")
    return lines


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"
