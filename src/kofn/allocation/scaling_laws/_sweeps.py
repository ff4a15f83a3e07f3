"""The best hyperparameters of each sweep: the minimum of a quadratic surface in logs through its best runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError

# A surface is fitted to this many times as many of the best runs as it has coefficients.
_RUNS = 2
# A surface whose curvature along some axis is this small, beside the largest, has no minimum that the runs show.
_FLAT = 1e-6


@dataclass(frozen=True)
class Sweeps:
    """What the sweeps say.

    Attributes:
        cells: (s, 2) parameters and tokens of each sweep.
        optima: by hyperparameter, (s,) its best value; NaN where the sweep does not bound it.
        edges: by hyperparameter, in how many sweeps the best run has the least or the largest value tried.
    """

    cells: Floats
    optima: Mapping[str, Floats]
    edges: Mapping[str, int]


def sweeps_of(parameters: Floats, tokens: Floats, values: Mapping[str, Floats], losses: Floats) -> Sweeps:
    """The optimum of each sweep: of the runs of one size and one number of tokens.

    Raises:
        InputError: a hyperparameter that no sweep varies.
    """
    cells, number = np.unique(np.column_stack([parameters, tokens]), axis=0, return_inverse=True)
    logs = np.log(np.column_stack(list(values.values())))
    best = np.full((len(cells), len(values)), np.nan)
    edge = np.zeros((len(cells), len(values)), bool)
    varied = np.zeros(len(values), bool)
    for cell in range(len(cells)):
        rows = np.flatnonzero(number.ravel() == cell)
        axes = np.flatnonzero(np.ptp(logs[rows], axis=0) > 0)
        varied[axes] = True
        if len(axes):
            best[cell, axes], edge[cell, axes] = _optimum(logs[np.ix_(rows, axes)], losses[rows])
    for column, name in enumerate(values):
        if not varied[column]:
            raise InputError(
                f"hyperparameters: no sweep varies {name}: give runs of one size and one number of tokens with several "
                f"values of {name}"
            )
    best[edge] = np.nan
    return Sweeps(
        cells=cells,
        optima={name: np.exp(best[:, column]) for column, name in enumerate(values)},
        edges={name: int(edge[:, column].sum()) for column, name in enumerate(values)},
    )


def _optimum(logs: Floats, losses: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """The best point of a sweep in logs, and along which axes it lies at an end of what was tried."""
    low, high = logs.min(axis=0), logs.max(axis=0)
    order = np.argsort(losses, kind="stable")
    first = logs[order[0]]
    point = _vertex(logs, losses, order)
    if point is not None and (low < point).all() and (point < high).all():
        return point, np.zeros(len(low), bool)
    return first, (first <= low) | (first >= high)


def _vertex(logs: Floats, losses: Floats, order: Ints) -> Floats | None:
    """The minimum of the surface through the best runs; None where they show none."""
    d = logs.shape[1]
    pairs = list(itertools.combinations_with_replacement(range(d), 2))
    needed = 1 + d + len(pairs)
    rows = order[: _RUNS * needed]
    centre, scale = logs[rows].mean(axis=0), np.maximum(np.ptp(logs, axis=0), 1e-12)
    z = (logs[rows] - centre) / scale
    design = np.column_stack([np.ones(len(rows)), z, *(z[:, i] * z[:, j] for i, j in pairs)])
    if len(rows) < needed or np.linalg.matrix_rank(design) < needed:
        return None
    solution = np.linalg.lstsq(design, losses[rows], rcond=None)[0]
    curvature = np.zeros((d, d))
    for (i, j), coefficient in zip(pairs, solution[1 + d :], strict=True):
        curvature[i, j] += coefficient
        curvature[j, i] += coefficient
    spread = np.linalg.eigvalsh(curvature)
    if spread[0] <= _FLAT * max(float(np.abs(spread).max()), np.finfo(np.float64).tiny):
        return None
    vertex: Floats = centre - scale * np.linalg.solve(curvature, solution[1 : 1 + d])
    return vertex
