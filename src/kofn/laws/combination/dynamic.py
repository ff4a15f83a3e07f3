"""Predictions blended row by row under weights of each row's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case, broken
from kofn.laws.combination.ensembles import draw_row_words
from kofn.laws.inputs import Draw, Drawer, seeded


def _rows(member: Any) -> list[list[float]]:
    array = np.asarray(member, np.float64)
    return (array[:, None] if array.ndim == 1 else array).tolist()


def _blended_by_row(case: Case) -> bool:
    """Each row is the mean of the predictions under its own weights, in the members' box; copies give the copy."""
    plan, members = case.plan, [_rows(member) for member in case.words["members"]]
    got, weights = _rows(plan.result), np.asarray(plan.info["row_weights"])
    if (weights < 0).any() or any(abs(math.fsum(row) - 1) > 1e-9 for row in weights.tolist()):
        raise broken(case, "blend", f"form simplex, weights of rows {weights}")
    if np.abs(weights.mean(axis=0) - plan.weights).max() > 1e-9:
        raise broken(case, "blend", f"weights {plan.weights} are no means of {weights}")
    for row, blend in enumerate(got):
        known = [i for i, member in enumerate(members) if not any(map(math.isnan, member[row]))]
        heard = [i for i in known if weights[row, i] > 0] or known
        parts = [(float(weights[row, i]) or 1.0, members[i][row]) for i in heard]
        total = math.fsum(weight for weight, _ in parts)
        for column, value in enumerate(blend):
            want = math.fsum(weight * part[column] for weight, part in parts) / total
            size = max(abs(part[column]) for _, part in parts)
            if abs(value - want) > 1e-12 * size:
                raise broken(case, "blend", f"row {row} is {value!r}, the weighted mean {want!r}")
    first = case.words["members"][0]
    if not np.isnan(np.asarray(first, np.float64)).any():
        again = case.again(members=[first] * plan.n)
        copies, member = np.array(_rows(again.result)), np.array(_rows(first))
        # Of copies a search may choose a linear model, which is none of their means.
        if again.form == "simplex" and (np.abs(copies - member) > 1e-12 * np.abs(member)).any():
            raise broken(case, "blend", f"copies of {first} give {copies}")
    return plan.n > 1


def _draw_rows(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Classes, members that are more or less right about them, some missing, and features with ties."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    rng, m = seeded(draw), len(words["members"])
    count, n = draw(st.sampled_from((2, 2, 3))), draw(st.integers(2, 12))
    y = np.concatenate([np.arange(count), rng.integers(0, count, n)])
    n = len(y)
    chances = rng.dirichlet(np.ones(count), (m, n))
    members = chances[:, :, 1] if count == 2 and draw(st.booleans()) else chances
    if m > 1 and draw(st.integers(0, 2)) == 0:
        gone = rng.random((m, n)) < 0.3
        gone[rng.integers(0, m, n), np.arange(n)] = False
        gone[gone.all(axis=1)] = False
        members[gone] = np.nan
    words["members"] = list(members)
    words["y"] = np.array([f"class {label}" for label in y]) if draw(st.booleans()) else y
    coarse = draw(st.booleans())
    words["X"] = rng.integers(0, 3, (n, 2)).astype(np.float64) if coarse else rng.normal(size=(n, 2))
    options["loss"] = draw(st.sampled_from(("log_loss", "brier", "accuracy")))
    strategies = (None, "knora_e", "knora_u", "ola", "lca", "des_knn", "meta_des")
    options["strategy"] = draw(st.sampled_from(strategies))
    options["folds"] = draw(st.sampled_from((0, 2, 3)))
    draw_row_words(draw, rng, n, options)
    weights = options.get("row_weights", np.ones(n))
    # Rows that count nothing are near none.
    weights[:2] = 1.0
    if draw(st.booleans()):
        options["n_neighbors"] = draw(st.integers(1, int(np.count_nonzero(weights)) - 1))


BLENDS: dict[str, Callable[[Case], bool]] = {"predictions, row by row": _blended_by_row}
OPTIONS: dict[str, Drawer] = {"strategy": _draw_rows}
