"""Draws of sub-posteriors in files: an array or a table a shard, with a column or an array for each parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError, load_arrays
from kofn.io.opening import open_table
from kofn.io.reading import Reading, suffix_of
from kofn.tables.netcdf import SUFFIXES as NETCDF
from kofn.tables.netcdf import read_posteriors
from kofn.tables.read import ARRAYS, TABLES
from kofn.tables.scores import is_scores, scores_with_gaps

# How the command line is told that members are draws.
BY_METHODS = (
    "--method consensus_monte_carlo, gaussian_product or kernel_product (shards of one data set), or "
    "hierarchical_normal or credal_mixture (tasks that differ)"
)
SEVERAL_ARCHIVES = (
    "of predictions give one .npz archive, an array a member, or .npy files; draws of posteriors, an archive a shard "
    f"or a task, are combined by {BY_METHODS}"
)
# Columns in which samplers number draws or tell of their steps: .chain, .draw, lp__, stepsize__.
_OF_THE_SAMPLER = re.compile(r"\.?(chain|draw|iteration|iter)_*|\w+__", re.IGNORECASE)


def of_the_sampler(path: str, reading: Reading) -> list[str]:
    """The columns of a table of draws that are no parameters by their names; none of other files."""
    if suffix_of(Path(path)) not in TABLES:
        return []
    table = open_table(path, reading)
    return [name for name in table.columns if _OF_THE_SAMPLER.fullmatch(name) and is_scores(table, name)]


def read_draws(paths: Sequence[str], reading: Reading, columns: Sequence[str] | None = None) -> list[Any]:
    """The draws of each file: an array (draws, parameters), or a mapping parameter -> (draws, ...).

    Args:
        paths: .npy and .npz files, tables, or .nc of ArviZ, whose chains are joined, and whose parameters are named
            after coordinates. An archive of one array of two axes holds unnamed parameters.
        reading: how tables of text are read.
        columns: the parameters of tables, by default every numeric column but those `of_the_sampler`; the variables of
            .nc, by default all of numbers.

    Raises:
        InputError: another kind of file, one that cannot be read, or tables without numeric columns.
    """
    arrays = {suffix_of(Path(path)) in ARRAYS for path in paths}
    if columns is not None and True in arrays:
        raise InputError("--columns names the parameters of tables and of .nc, arrays have none; leave it out")
    netcdf = [path for path in paths if suffix_of(Path(path)) in NETCDF]
    named = dict(zip(netcdf, read_posteriors(netcdf, columns), strict=True))
    return [named[path] if path in named else _read(path, reading, columns) for path in paths]


def _read(path: str, reading: Reading, columns: Sequence[str] | None) -> Any:
    suffix = suffix_of(Path(path))
    if suffix not in (*ARRAYS, *TABLES):
        raise InputError(f"{path} holds no draws; give .npy, .npz, a table or .nc of ArviZ, one a shard")
    if suffix in ARRAYS:
        loaded = load_arrays(path)
        if isinstance(loaded, Mapping) and len(loaded) == 1:
            only = next(iter(loaded.values()))
            return only if np.ndim(only) == 2 else dict(loaded)
        return dict(loaded) if isinstance(loaded, Mapping) else loaded
    table = open_table(path, reading)
    numeric = (name for name in table.columns if is_scores(table, name))
    names = table.named(tuple(columns)) if columns else [n for n in numeric if not _OF_THE_SAMPLER.fullmatch(n)]
    if not names:
        raise InputError(f"{path} has no numeric columns to take as parameters; name them with --columns")
    return {name: scores_with_gaps(table, name) for name in names}


def as_arrays(draws: Array, parameters: Sequence[str], first: Any) -> dict[str, Array]:
    """Draws by parameter, in the shapes that the parameters of the first shard have."""
    table = draws.reshape(len(draws), -1)
    if not isinstance(first, Mapping):
        return {"draws": draws}
    out, column = {}, 0
    for name, values in first.items():
        shape = np.shape(values)[1:]
        width = int(np.prod(shape, dtype=np.int64))
        out[name] = table[:, column : column + width].reshape(len(table), *shape)
        column += width
    assert column == len(parameters)
    return out
