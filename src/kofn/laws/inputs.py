"""Hypothesis strategies for the words of the vocabulary: ties, duplicates and odd layouts included.

Keyed by what an argument is, never by a method. Whatever is drawn is valid; `kofn.laws.generators` puts words together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.words import HIDDEN

Draw = Callable[[st.SearchStrategy[Any]], Any]
# What draws an option: it adds to the options and may change the words; and what draws an objective's text, None where
# these inputs do not suit it.
Drawer = Callable[[Draw, dict[str, Any], dict[str, Any]], None]
TextDrawer = Callable[[Draw, dict[str, Any], dict[str, Any]], str | None]

# Kinds of members that are drawn here; adapters are drawn by their family.
MAPPINGS = ("networks", "layers")
_SCALES = (1.0, 1.0, 1.0, 0.125, 1e-3, 1e4)


def seeded(draw: Draw) -> np.random.Generator:
    """A generator of its own for each draw; whole numbers would mostly be drawn small, hence alike."""
    return np.random.default_rng(int.from_bytes(draw(st.binary(min_size=8, max_size=8)), "little"))


def numbers(draw: Draw, shape: tuple[int, ...], *, tied: bool = True, low: int = -3, high: int = 3) -> Floats:
    """Small whole numbers (ties, duplicates, zeros) times a scale, or tie-free normal draws.

    Numbers that Hypothesis draws one by one shrink well but are mostly zeros; so most come from a seed.
    """
    size = int(np.prod(shape))
    kind = draw(st.sampled_from(("grid", "grid", "normal", "typed"))) if tied else "normal"
    rng = seeded(draw) if kind != "typed" else np.random.default_rng(0)
    if kind == "typed":
        whole = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
        array = np.array(whole, np.float64).reshape(shape)
    elif kind == "grid":
        array = rng.integers(low, high, size=shape, endpoint=True).astype(np.float64)
    else:
        array = rng.normal(size=shape)
        array = np.abs(array) if low >= 0 else array
    return array * draw(st.sampled_from(_SCALES))


def laid_out(draw: Draw, array: NDArray[Any]) -> Any:
    """The same numbers as another caller would hold them: float32, a list, other orders, strided, read-only."""
    kind = draw(st.sampled_from(("plain", "float32", "list", "fortran", "strided", "readonly", "reversed", "swapped")))
    if kind == "float32":
        return array.astype(np.float32)
    if kind == "list":
        return array.tolist()
    if kind == "swapped":
        return array.astype(array.dtype.newbyteorder("S"))
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "strided":
        wide = np.full((2 * array.shape[0], *array.shape[1:]), 7.0)
        wide[::2] = array
        return wide[::2]
    if kind == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    if kind == "readonly":
        array = array.copy()
        array.flags.writeable = False
    return array


def vectors(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """X (n, d)."""
    width = draw(st.sampled_from((2, 1, 3)))
    rows = numbers(draw, (n, width), tied=tied)
    if tied and n > 1 and draw(st.integers(0, 3)) == 0:
        # Copies of a few rows, down to one.
        kept = draw(st.integers(1, n))
        rows = rows[np.arange(n) % kept]
    return laid_out(draw, rows)


def distance_matrix(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """distances (n, n): symmetric with a zero diagonal, with or without the triangle inequality."""
    upper = np.triu(np.abs(numbers(draw, (n, n), tied=tied, low=0, high=4)), 1)
    return laid_out(draw, upper + upper.T)


def similarity_matrix(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """similarity (n, n) >= 0, symmetric or not, dense or sparse."""
    import scipy.sparse

    array = np.abs(numbers(draw, (n, n), tied=tied, low=0, high=4))
    if draw(st.booleans()):
        array = np.maximum(array, array.T)
    kind = draw(st.sampled_from(("dense", "dense", "csr", "csc", "coo", "twice")))
    if kind == "dense":
        return laid_out(draw, array)
    if kind == "twice":
        # Every entry in two halves; duplicates mean their sum.
        rows = np.tile(np.arange(n), 2 * n)
        halves = np.tile(array.T / 2, (1, 2)).ravel()
        return scipy.sparse.csc_array((halves, rows, np.arange(0, 2 * n * n + 1, 2 * n)), shape=(n, n))
    return getattr(scipy.sparse, f"{kind}_array" if draw(st.booleans()) else f"{kind}_matrix")(array)


def score_vector(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """scores (n,), of either sign or none negative."""
    low = draw(st.sampled_from((0, -3)))
    return laid_out(draw, numbers(draw, (n,), tied=tied, low=low))


def amount_vector(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """scores (n,), none negative, some of them 0."""
    return laid_out(draw, numbers(draw, (n,), tied=tied, low=0))


def rate_vector(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """scores (n,) from 0 to 1, both ends among them."""
    tenths = seeded(draw).integers(0, 10, size=n, endpoint=True) / 10
    return laid_out(draw, tenths if tied and draw(st.booleans()) else seeded(draw).random(n))


SCORES = {"not negative": amount_vector, "rates": rate_vector}


def score_table(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """scores (n, bins), some of them -inf: bins that the item does not list."""
    bins = draw(st.integers(1, 4))
    array = numbers(draw, (n, bins), tied=tied)
    if tied and draw(st.integers(0, 2)) == 0:
        hidden = draw(st.lists(st.integers(0, n * bins - 1), max_size=n, unique=True))
        array.ravel()[hidden] = -np.inf
    return laid_out(draw, array)


def curve_table(
    draw: Draw, n: int, *, tied: bool = True, concave: bool = False, sense: str = "min", some_forbidden: bool = False
) -> Any:
    """curves (n, levels): any shape, or falling ever less steeply (`concave` worth).

    With `some_forbidden`, at times infinite where an item may not have a level; each may have one.
    """
    width = draw(st.integers(2 if concave else 1, 4))
    array = numbers(draw, (n, width), tied=tied)
    if concave:
        steps = -np.sort(-np.abs(np.diff(np.column_stack([np.zeros(n), array]), axis=1)), axis=1)
        array = np.cumsum(steps, axis=1)
        array = array if sense == "max" else -array
    elif draw(st.booleans()):
        # More is better, as curves mostly are, but not evenly so.
        array = np.sort(array, axis=1)
        array = array if sense == "max" else array[:, ::-1].copy()
    if some_forbidden and draw(st.integers(0, 2)) == 0:
        gone = draw(st.lists(st.integers(0, n * width - 1), max_size=n * width, unique=True))
        kept = draw(st.lists(st.integers(0, width - 1), min_size=n, max_size=n))
        forbidden = np.zeros((n, width), bool)
        forbidden.ravel()[gone] = True
        forbidden[np.arange(n), kept] = False
        array = np.where(forbidden, np.inf if sense == "min" else -np.inf, array)
    # Sums of float32 curves would not have exactly the second differences that were drawn.
    return array if concave else laid_out(draw, array)


def ballots(draw: Draw, n: int, *, tied: bool = True) -> Any:
    """rankings (n, judges), half of the time with missing scores; every judge rates something."""
    judges = draw(st.integers(1, 5))
    array = numbers(draw, (n, judges), tied=tied)
    if tied and draw(st.booleans()):
        gone = draw(st.lists(st.integers(0, judges * n - 1), max_size=judges * n, unique=True))
        kept = array[0].copy()
        array.ravel()[gone] = np.nan
        silent = np.isnan(array).all(axis=0)
        array[0, silent] = kept[silent]
    return laid_out(draw, array)


def blend_members(draw: Draw, count: int, *, tied: bool = True, kind: str | None = None) -> list[Any]:
    """members: arrays of one shape, state dicts with odd dtypes, or mappings of one kind (`kofn.core.draws.KINDS`)."""
    import ml_dtypes

    kind = kind or draw(st.sampled_from(("array", "array", "half", "mapping")))
    if kind == "networks":
        rng = seeded(draw)
        hidden, inputs, outputs = draw(st.integers(2, 6)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
        shapes = ((hidden, inputs), (hidden,), (outputs, hidden))
        return [
            {name: rng.normal(size=shape) for name, shape in zip(HIDDEN, shapes, strict=True)} for _ in range(count)
        ]
    shape = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    if kind == "layers":
        depth = draw(st.integers(2, 4))
        return [
            {f"layers.{layer}.weight": numbers(draw, shape, tied=tied) for layer in range(depth)}
            | {"embed.weight": numbers(draw, shape, tied=tied), "head.weight": numbers(draw, shape, tied=tied)}
            for _ in range(count)
        ]
    rows = [numbers(draw, shape, tied=tied) for _ in range(count)]
    if kind == "array":
        dtype = draw(st.sampled_from((np.float64, np.float64, np.float32)))
        return [row.astype(dtype) for row in rows]
    if kind == "half":
        half = draw(st.sampled_from((np.float16, ml_dtypes.bfloat16)))
        return [np.clip(row, -1e4, 1e4).astype(half) for row in rows]
    return [
        {"layer.weight": row, "layer.bias": row[0].astype(np.float32).reshape(-1), "steps": np.array([7])}
        for row in rows
    ]


def draw_margins(draw: Draw, given: dict[str, Any]) -> None:
    """Totals of some plan over the entries that are listed, empty rows and columns among them; always where an entry
    is not listed, since equal totals might not fit there."""
    table = np.asarray(given["scores"], np.float64)
    if np.isfinite(table).all() and draw(st.booleans()):
        return
    if not np.isfinite(table).any():
        given["scores"] = table = np.zeros(table.shape)
    listed = np.argwhere(table > -np.inf)
    size = len(listed)
    masses = np.array(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), np.float64)
    if not masses.any():
        masses[draw(st.integers(0, size - 1))] = 1.0
    plan = np.zeros(table.shape)
    plan[tuple(listed.T)] = masses * draw(st.sampled_from((1.0, 0.125, 1e3)))
    given["margins"] = (plan.sum(axis=1).tolist(), plan.sum(axis=0).tolist())


def objective_text(name: str, **parameters: Any) -> str:
    """An objective and its parameters as a user writes them: `name(parameter=value)`."""
    inside = ", ".join(f"{key}={value!r}" for key, value in parameters.items() if value is not None)
    return f"{name}({inside})" if inside else name
