"""Draws in NetCDF files as ArviZ writes them: a group "posterior" whose variables have the axes chain and draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError

# The suffixes of such files, the group that is read, and the axes that become one.
SUFFIXES = (".nc", ".nc4", ".netcdf")
GROUP = "posterior"
_JOINED = ("chain", "draw")


def read_posterior(path: str, names: Sequence[str] | None = None) -> dict[str, Array]:
    """The draws of each numeric variable of the group "posterior", (chains x draws, ...).

    Args:
        path: a NetCDF 4 file (HDF5), as `InferenceData.to_netcdf` writes it.
        names: only these variables.

    Raises:
        InputError: the package h5py is missing, no such file or group, a variable without the axes chain and draw, a
            name that is none.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path} needs h5py: pip install 'kofn[arviz]'") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise InputError(
                f"{path} is no NetCDF 4 file, or is damaged; write it by ArviZ's InferenceData.to_netcdf"
            ) from None
        raise InputError(f"{path}: no such file") from None
    with file:
        if GROUP not in file:
            there = ", ".join(sorted(file)) or "none"
            raise InputError(f"{path} has no group {GROUP!r} (groups: {there}); give what ArviZ's to_netcdf wrote")
        group = file[GROUP]
        variables = {name: item for name, item in group.items() if _is_variable(item)}
        unknown = [name for name in names or () if name not in variables]
        if unknown:
            known = ", ".join(variables) or "none"
            raise InputError(f"{path}: {GROUP!r} has no variable {unknown[0]!r} of numbers; it has {known}")
        out = {name: _joined(path, file, name, variables[name]) for name in names or variables}
    if not out:
        raise InputError(f"{path}: {GROUP!r} has no variables of numbers; give draws")
    return out


def _is_variable(item: Any) -> bool:
    """Numbers that are no coordinates: those are the scales of the others' axes."""
    return hasattr(item, "dtype") and item.dtype.kind in "biuf" and item.attrs.get("CLASS") != b"DIMENSION_SCALE"


def _joined(path: str, file: Any, name: str, variable: Any) -> Array:
    """The variable with chains and draws, wherever they are, as one first axis."""
    scales = variable.attrs.get("DIMENSION_LIST", ())
    axes = [file[scale[0]].name.rsplit("/", 1)[-1] for scale in scales]
    missing = [axis for axis in _JOINED if axis not in axes]
    if missing:
        raise InputError(
            f"{path}: variable {name!r} has the axes {', '.join(axes) or 'that have no names'}, no {missing[0]!r}; "
            "give what ArviZ's to_netcdf wrote, or name the others with --columns"
        )
    array = np.asarray(variable[()])
    array = np.moveaxis(array, [axes.index(axis) for axis in _JOINED], [0, 1])
    return array.reshape(-1, *array.shape[2:])
