"""Pools that the laws draw for this family's steppers, with naive set functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Array

REFERENCE = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0], [2.0, 2.0], [-1.0, 1.0], [4.0, 1.0]])
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 0.0, 1.5])


@dataclass(frozen=True)
class Pool:
    """Arguments for an objective, rows with ties, and the naive value of a set of rows."""

    arguments: dict[str, Any]
    rows: Callable[[np.random.Generator, int], Array]
    worth: Callable[[Array], float]


def pools() -> tuple[Pool, ...]:
    """One pool for each kind of objective."""
    return (
        Pool({"reference": REFERENCE}, points, distance_saved),
        Pool({"reference": REFERENCE, "metric": "cosine"}, points, similarity),
        Pool({"objective": "coverage", "weights": WEIGHTS}, columns, covered),
        Pool({"objective": different_rows}, points, different_rows),
    )


def points(rng: np.random.Generator, m: int) -> Array:
    """Points of a small grid, with many duplicates."""
    return rng.integers(-2, 5, (m, 2)).astype(np.float64)


def columns(rng: np.random.Generator, m: int) -> Array:
    """Sets of columns, some of them empty."""
    return (rng.random((m, len(WEIGHTS))) < rng.choice([0.1, 0.3, 0.6])).astype(np.float64)


def distance_saved(X: Array) -> float:
    """Reduction of the reference rows' distances by these rows, against their mean."""
    center = REFERENCE.mean(axis=0)
    total = 0.0
    for target in REFERENCE:
        before = float(np.linalg.norm(center - target))
        total += max(0.0, before - float(np.linalg.norm(X - target, axis=1).min()))
    return total


def similarity(X: Array) -> float:
    """Sum over the reference rows of the similarity to the most similar of these rows."""
    total = 0.0
    for target in REFERENCE:
        sizes = np.linalg.norm(X, axis=1) * np.linalg.norm(target)
        total += float(((1 + X @ target / np.where(sizes > 0, sizes, 1)) / 2).max())
    return total


def covered(X: Array) -> float:
    """The weight of the columns that some row covers."""
    return float(WEIGHTS[(X != 0).any(axis=0)].sum())


def different_rows(X: Array) -> float:
    """A user-defined objective: a concave function of the number of distinct rows."""
    return math.sqrt(len(np.unique(X, axis=0))) if len(X) else 0.0
