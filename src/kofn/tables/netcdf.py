"""Draws in NetCDF files as ArviZ writes them: a group "posterior" whose variables have the axes chain and draw.

Coordinates name the parameters: `theta` along the coordinates a, b, c of its axis is theta[a], theta[b], theta[c]. So
files that list the coordinates in unlike orders, or have unlike ones, are told apart. Axes without coordinates, or with
0, 1, 2, ..., count by position.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError

# The suffixes of such files, the group that is read, and the axes that become one.
SUFFIXES = (".nc", ".nc4", ".netcdf")
GROUP = "posterior"
_JOINED = ("chain", "draw")
# The name that NetCDF 4 gives to the scale of an axis without coordinates begins so.
_NO_COORDINATE = b"This is a netCDF dimension but not a netCDF variable"


@dataclass(frozen=True)
class _Variable:
    """Draws (chains x draws, ...), and the name and coordinates of each further axis, None where it has none."""

    draws: Array
    axes: tuple[str, ...]
    coordinates: tuple[list[str] | None, ...]


def read_posterior(path: str, names: Sequence[str] | None = None) -> dict[str, Array]:
    """The draws of one file; see `read_posteriors`."""
    return read_posteriors([path], names)[0]


def read_posteriors(paths: Sequence[str], names: Sequence[str] | None = None) -> list[dict[str, Array]]:
    """The draws of each numeric variable of the group "posterior" of each file, (chains x draws, ...).

    A variable whose axes have coordinates other than 0, 1, 2, ... is as many entries, `theta[a]`, `theta[b]`, each of
    (chains x draws,). Further axes are in the order of the first file, whose names decide. Packed variables
    (`scale_factor`, `add_offset`) are unpacked, and missing values (`_FillValue`, `missing_value`) are NaN.

    Args:
        paths: NetCDF 4 files (HDF5), as `InferenceData.to_netcdf` writes them.
        names: only these variables.

    Raises:
        InputError: the package h5py is missing, no such file or group, a variable without the axes chain and draw, a
            name that is none, coordinates that an axis has twice.
    """
    read = [_read(path, names) for path in paths]
    return [
        _by_parameter(path, {name: _in_order(variable, read[0].get(name)) for name, variable in variables.items()})
        for path, variables in zip(paths, read, strict=True)
    ]


def _read(path: str, names: Sequence[str] | None) -> dict[str, _Variable]:
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


def _joined(path: str, file: Any, name: str, variable: Any) -> _Variable:
    """The variable with chains and draws, wherever they are, as one first axis."""
    scales = [file[scale[0]] for scale in variable.attrs.get("DIMENSION_LIST", ())]
    axes = [scale.name.rsplit("/", 1)[-1] for scale in scales]
    missing = [axis for axis in _JOINED if axis not in axes]
    if missing:
        raise InputError(
            f"{path}: variable {name!r} has the axes {', '.join(axes) or 'that have no names'}, no {missing[0]!r}; "
            "give what ArviZ's to_netcdf wrote, or name the others with --columns"
        )
    array = np.moveaxis(_unpacked(variable), [axes.index(axis) for axis in _JOINED], [0, 1])
    further = [(axis, scale) for axis, scale in zip(axes, scales, strict=True) if axis not in _JOINED]
    coordinates = tuple(_coordinates(path, axis, scale) for axis, scale in further)
    return _Variable(array.reshape(-1, *array.shape[2:]), tuple(axis for axis, _ in further), coordinates)


def _unpacked(variable: Any) -> Array:
    """The numbers that a variable stands for: `scale_factor` times what is stored, plus `add_offset`; NaN if missing.

    The attributes are those of the CF conventions, `_Unsigned` is that of NetCDF 3 for whole numbers.
    """
    attributes = variable.attrs
    array = np.asarray(variable[()])
    absent = np.zeros(array.shape, bool)
    for key in ("_FillValue", "missing_value"):
        for value in np.ravel(attributes.get(key, ())):
            absent |= np.isnan(array) if value != value else array == value
    if _text(attributes.get("_Unsigned", "")).lower() == "true" and array.dtype.kind == "i":
        array = array.view(array.dtype.str.replace("i", "u"))
    if "scale_factor" in attributes or "add_offset" in attributes:
        scale = float(np.ravel(attributes.get("scale_factor", 1.0))[0])
        offset = float(np.ravel(attributes.get("add_offset", 0.0))[0])
        array = array.astype(np.float64) * scale + offset
    return np.where(absent, np.nan, array) if absent.any() else array


def _coordinates(path: str, axis: str, scale: Any) -> list[str] | None:
    """The coordinates of an axis as text; None where they are 0, 1, 2, ..., or there are none."""
    if bytes(scale.attrs.get("NAME", b"")).startswith(_NO_COORDINATE):
        return None
    unit = _text(scale.attrs.get("units", ""))
    if scale.dtype.kind in "biuf":
        values = _unpacked(scale)
        if not unit and np.array_equal(values, np.arange(len(values))):
            return None
        labels = [f"{value} {unit}".strip() for value in values.tolist()]
    else:
        labels = [_text(value) for value in scale[()]]
    twice = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
    if twice is not None:
        raise InputError(f"{path}: axis {axis!r} has the coordinate {twice!r} twice; give each a name of its own")
    return labels


def _text(value: Any) -> str:
    """Text that is stored as such, as bytes, or letter by letter."""
    if isinstance(value, np.ndarray):
        value = b"".join(value.ravel().tolist()) if value.dtype.kind == "S" else "".join(map(str, value.ravel()))
    return value.decode("utf-8", "replace").rstrip("\0") if isinstance(value, bytes) else str(value)


def _in_order(variable: _Variable, first: _Variable | None) -> _Variable:
    """The variable with its further axes in the order that the first file has them in."""
    if first is None or variable.axes == first.axes or sorted(variable.axes) != sorted(first.axes):
        return variable
    order = [variable.axes.index(axis) for axis in first.axes]
    if len(set(order)) < len(order):
        return variable
    draws = np.transpose(variable.draws, (0, *(1 + number for number in order)))
    return _Variable(draws, first.axes, tuple(variable.coordinates[number] for number in order))


def _by_parameter(path: str, variables: dict[str, _Variable]) -> dict[str, Array]:
    """Name -> draws, one for each coordinate where there are any."""
    out: dict[str, Array] = {}
    for name, variable in variables.items():
        if not any(variable.coordinates):
            named = {name: variable.draws}
        else:
            lengths = variable.draws.shape[1:]
            labels = [own or map(str, range(n)) for own, n in zip(variable.coordinates, lengths, strict=True)]
            inside = [",".join(each) for each in itertools.product(*labels)]
            columns = variable.draws.reshape(len(variable.draws), -1).T
            named = {f"{name}[{label}]": column for label, column in zip(inside, columns, strict=True)}
            if len(named) < len(inside):
                raise InputError(f"{path}: coordinates of {name!r} have commas, and two look alike; rename them")
        both = next((key for key in named if key in out), None)
        if both is not None:
            raise InputError(f"{path}: {GROUP!r} has two parameters {both!r}; rename one")
        out |= named
    return out
