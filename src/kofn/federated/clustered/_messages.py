"""Checks of the clients' messages to the server of a mixture; a damaged message is refused before any change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.federated.clustered._em import Parameters

_SKETCH = ("rows", "mean", "variance", "centres", "counts", "inertia")
_SKETCH_OF = {"none": (), "classes": ("classes",), "amounts": ("y_mean", "y_variance")}


def checked_sketches(sketches: Any, task: str) -> dict[Any, dict[str, Any]]:
    """Check every client's sketch.

    Raises:
        InputError: no sketch, missing keys, values that are not numbers, columns that differ between clients.
    """
    if not isinstance(sketches, Mapping) or not sketches:
        raise InputError("sketches is empty: give {client: sketch(X, y)}")
    read = {client: _sketch(part, f"sketches[{client!r}]", task) for client, part in sketches.items()}
    first = next(iter(read))
    d = len(read[first]["mean"])
    for client, part in read.items():
        if len(part["mean"]) != d:
            raise InputError(f"sketches: client {client!r} has {len(part['mean'])} columns, client {first!r} {d}")
        for name, shape in (("variance", (d,)), ("centres", (len(part["counts"]), d))):
            if part[name].shape != shape:
                raise InputError(f"sketches[{client!r}][{name!r}] has shape {part[name].shape}; it must be {shape}")
    return read


def checked_statistics(statistics: Any, now: Parameters) -> list[dict[str, Any]]:
    """Check the statistics of a round, part by part.

    Raises:
        InputError: no parts, missing keys, arrays whose shapes do not match the parameters.
    """
    readable = isinstance(statistics, Iterable) and not isinstance(statistics, Mapping | str)
    parts = list(statistics) if readable else []
    if not parts:
        raise InputError("statistics is empty: give a list of what statistics(X, y, client=c) returned")
    return [_statistics(part, f"statistics[{i}]", now) for i, part in enumerate(parts)]


def _sketch(part: Any, label: str, task: str) -> dict[str, Any]:
    read = _entries(part, (*_SKETCH, *_SKETCH_OF[task]), label)
    read["rows"] = checks.count(read["rows"], f"{label}['rows']")
    read["inertia"] = checks.number(read["inertia"], f"{label}['inertia']")
    read["centres"] = checks.matrix(read["centres"], f"{label}['centres']")
    for name in ("mean", "variance", "counts", *(_SKETCH_OF[task] if task == "amounts" else ())):
        read[name] = checks.vector(read[name], f"{label}[{name!r}]")
    if task == "classes":
        read["classes"] = checks.groups(read["classes"], f"{label}['classes']")
    return read


def _statistics(part: Any, label: str, now: Parameters) -> dict[str, Any]:
    read = _entries(part, ("clients", "rows", "log_likelihood", "sums", "round"), label)
    read["round"] = checks.count(read["round"], f"{label}['round']", least=0)
    if not isinstance(read["log_likelihood"], float):
        raise InputError(f"{label}['log_likelihood'] is {read['log_likelihood']!r}; give a number")
    read["clients"] = _entries(read["clients"], (), f"{label}['clients']")
    read["rows"] = _entries(read["rows"], tuple(read["clients"]), f"{label}['rows']")
    shapes = _shapes(now)
    read["sums"] = _entries(read["sums"], tuple(shapes), f"{label}['sums']")
    pairs = (len(now.gaussian),)
    for client, mass in read["clients"].items():
        read["clients"][client] = _array(mass, pairs, f"{label}['clients'][{client!r}]")
    for name, shape in shapes.items():
        read["sums"][name] = _array(read["sums"][name], shape, f"{label}['sums'][{name!r}]")
    return read


def _entries(value: Any, names: tuple[Any, ...], label: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{label} is {type(value).__name__}; give the mapping that the client's method returned")
    for name in names:
        if name not in value:
            raise InputError(f"{label} lacks {name!r}; give the mapping that the client's method returned")
    return dict(value)


def _array(value: Any, shape: tuple[int, ...], label: str) -> Array:
    array = checks.as_float(checks.as_array(value, label), label)
    if array.shape != shape:
        raise InputError(f"{label} has shape {array.shape}; the parameters of this round ask for {shape}")
    checks.refuse_nonfinite(array, label)
    return array


def _shapes(now: Parameters) -> dict[str, tuple[int, ...]]:
    """The shapes of `_em.moments`."""
    (k, d), (p, inputs, outputs) = now.means.shape, now.coefficients.shape
    shapes: dict[str, tuple[int, ...]] = {"mass": (k,), "first": (k, d), "second": (k, d, d)}
    if now.task != "none":
        shapes |= {"counts": (p,), "gram": (p, inputs, inputs), "slope": (p, inputs, outputs)}
    if now.task == "amounts":
        shapes["square"] = (p,)
    return shapes
