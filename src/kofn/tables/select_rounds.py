"""Labelling in rounds: of a column of labels that is filled in part, the next rows to label are picked."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import directions
from kofn.core.checks import InputError
from kofn.core.dispatch import methods_of
from kofn.core.plans import Selection
from kofn.core.vocabulary import SETTINGS
from kofn.io.tables import UNLABELLED
from kofn.selection.labels._classifier import counts_of
from kofn.tables.read import Pool
from kofn.tables.select_arguments import SelectArguments

# What picks the next rows where no method is named.
NEXT = "uncertainty_herding"


def labelled(pool: Pool) -> NDArray[np.bool_] | None:
    """(n,) True where a row has a label already; None where no label is missing, or none is asked about."""
    y = pool.values.get("y")
    if y is None:
        return None
    known: NDArray[np.bool_] = y != UNLABELLED
    return None if known.all() else known


def next_round(
    pool: Pool, arguments: SelectArguments, method: Any, call: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Method, call and options with which no labelled row is picked again, and what they cover counts as covered.

    A method that learns from labels in part is given them; another begins from the labelled rows (`start`), or leaves
    them out.

    Raises:
        InputError: every row has a label, k is above the rows that have none, or the method can do neither.
    """
    call, options = dict(call), dict(options)
    known = labelled(pool)
    column = arguments.label_column
    if known is None:
        if arguments.model is not None or method == NEXT:
            every = f"every row has a label in {column!r}" if column else "--label names no column"
            raise InputError(f"{every}: {NEXT} learns from a column that is filled in part, and picks of the rest")
        return method, call, options
    left = int((~known).sum())
    if arguments.k is not None and arguments.budget is None and arguments.k > left:
        raise InputError(
            f"-k {arguments.k}: {left:,} of {len(known):,} rows have no label in {column!r} yet; ask for k <= {left}"
        )
    given = set(call) - SETTINGS - {"ids", "metric"}
    index = methods_of("select")
    learns = {*index[NEXT].accepted, "ids"}
    plain = call.get("metric") in (None, "euclidean", "sqeuclidean", "cosine")
    named = arguments.method != "auto" or arguments.seeks or not options.keys() <= index[NEXT].options.keys()
    if not named and known.any() and "X" in call and given <= learns and plain:
        method = NEXT
    entry = index.get(method)
    if entry is not None and "y" in entry.accepted:
        options["unlabelled"] = UNLABELLED
        call["y"] = pool.values["y"]
        if "metric" not in entry.accepted and call.pop("metric", None) == "cosine":
            call["X"] = directions(np.asarray(call["X"], np.float64))
        return method, call, options
    if not known.any():
        # The first round: nothing is known yet, and the model has nothing to learn from.
        options.pop("model", None)
        return method, call, options
    rows = pool.keys[known]
    accepted = index["lazy_greedy" if method == "auto" else method].accepted if method == "auto" or entry else ()
    if "start" in accepted and not {"X", "similarity"}.isdisjoint(call):
        if {"budget", "quotas"} & set(call):
            raise InputError(
                f"-m {method} counts labelled rows to --budget and quotas; leave -m out, or pick without them"
            )
        call["start"] = np.concatenate([rows, pool.named.get("start", rows[:0])])
        call["k"] = arguments.k + int(known.sum()) if arguments.k is not None else None
    elif "exclude" in accepted:
        call["exclude"] = np.concatenate([rows, pool.named.get("exclude", rows[:0])])
    else:
        raise InputError(f"-m {method} cannot leave out the rows that have a label; leave -m out")
    return method, call, options


def without_labelled(plan: Selection, pool: Pool) -> Selection:
    """The plan of this round alone: its picks, and what they added to what the labelled rows had covered."""
    known = labelled(pool)
    if known is None or pool.entries or not known[plan.indices].any():
        return plan
    fresh = ~known[plan.indices]
    before = math.fsum(plan.gains[~fresh].tolist()) if plan.additive else 0.0
    count = int((~fresh).sum())
    return dataclasses.replace(
        plan,
        indices=plan.indices[fresh],
        gains=plan.gains[fresh],
        value=plan.value - before,
        bound=None if plan.bound is None else plan.bound - before,
        used={**plan.used, "k": plan.used.get("k", len(plan)) - count},
        budget={**plan.budget, "k": plan.budget.get("k", len(plan)) - count},
        info={key: value for key, value in plan.info.items() if key not in ("distance", "distance_bound", "cluster")}
        | {"labels": counts_of(pool.values["y"][known])}
        | ({"relevance": np.asarray(plan.info["relevance"])[fresh]} if "relevance" in plan.info else {}),
    )
