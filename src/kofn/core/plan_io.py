"""Plans on disk: one `.npz` file with every array under the path of its field, and a JSON header for the rest."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import ml_dtypes
import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import DAMAGE, InputError, regular, shown, single_members
from kofn.core.plan_fields import refuse_damaged
from kofn.io import tensors, torch_arrays
from kofn.io.atomic import atomic_path

SCHEMA = 2
_TICK = datetime.timedelta(microseconds=1)
# Dtypes that a .npz file does not know; they are stored as their bits.
_NON_NATIVE = (
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
# Keys of other types than JSON has: how each is written, and read again.
_KEYS: dict[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]] = {
    "uuid": (uuid.UUID, str, uuid.UUID),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": (datetime.timedelta, lambda gap: str(gap // _TICK), lambda text: int(text) * _TICK),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "fraction": (fractions.Fraction, str, fractions.Fraction),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "path": (Path, str, Path),
}
# The classes of plans by name, handed in by `kofn.core.plans`: this module stands below it.
Kinds = Mapping[str, type[Any]]


def write(plan: Any, path: str | Path, kinds: Kinds) -> Path:
    """Write a plan to one file; the file is complete or absent."""
    arrays: dict[str, Array] = {}
    header = {"schema": SCHEMA, "kind": type(plan).__name__, "fields": _Packer(kinds, arrays).fields(plan, "")}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise InputError(f"path={shown(path)}: give the name of a file")
    target = Path(path)
    with atomic_path(target) as temporary, open(temporary, "wb") as sink:
        np.savez(sink, **arrays)  # type: ignore[arg-type]
    return target


def read(path: str | Path, kinds: Kinds) -> Any:
    """Read a plan that `write` wrote; files of earlier schemas are brought up to this one.

    Raises:
        InputError: No such file, a file that is no plan, or one of a later schema.
    """
    try:
        # np.load hands back a bare array for .npy, which is no context manager.
        with np.load(regular(path), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in single_members(archive.zip, str(path))}
        header = json.loads(arrays.pop("header").tobytes())
        schema = header["schema"]
        if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
            raise ValueError(f"schema {shown(schema)}")
        if schema <= SCHEMA:
            return _plan(header["kind"], header["fields"], arrays, kinds, schema)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except (*DAMAGE, OSError) as error:
        why = str(error).split("\n", 1)[0]
        raise InputError(f"{path} is not a kofn plan ({why}); give a file that plan.save wrote") from None
    raise InputError(f"{path} has schema {schema}, this kofn reads up to {SCHEMA}; upgrade kofn")


def _plan(kind: str, packed: Mapping[str, Any], arrays: Mapping[str, Array], kinds: Kinds, schema: int) -> Any:
    fields = {name: _unpack(value, arrays, kinds, schema) for name, value in packed.items()}
    plan = kinds[kind](**(_from_schema_1(fields, kind) if schema == 1 else fields))
    refuse_damaged(plan)
    return plan


def _from_schema_1(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    """Files of schema 1 kept in `info` what are fields now."""
    info = dict(fields["info"])
    moved = {"objective": info.pop("objective", None) or ""}
    for name in ("guarantee", "additive", *(["short"] if kind == "Selection" else [])):
        if name in info:
            moved[name] = info.pop(name)
    info.pop("at_most_k", None)
    return {**fields, **moved, "info": info}


@dataclass(frozen=True)
class _Packer:
    """Turns values into JSON for the header; arrays go beside it under their path."""

    kinds: Kinds
    arrays: dict[str, Array]

    def fields(self, plan: Any, path: str) -> dict[str, Any]:
        names = [item.name for item in dataclasses.fields(plan)]
        return {name: self.pack(getattr(plan, name), path + name) for name in names}

    def pack(self, value: Any, path: str) -> Any:
        if self.kinds.get(type(value).__name__) is type(value):
            return {"$plan": type(value).__name__, "fields": self.fields(value, f"{path}/")}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if torch_arrays.is_torch(value):
            return {"$tensor": self._array(torch_arrays.from_torch(value), path)}
        if isinstance(value, Mapping):
            source = getattr(value, "path", None)
            if source is not None:  # a checkpoint on disk is saved by reference: it may be larger than memory
                return {"$checkpoint": str(source)}
            return {"$map": [[self.pack(key, ""), self.pack(item, f"{path}/{key}")] for key, item in value.items()]}
        if isinstance(value, frozenset | set):
            return {"$set": sorted(value)}
        if isinstance(value, list | tuple):
            packed = [self.pack(item, f"{path}/{i}") for i, item in enumerate(value)]
            return packed if isinstance(value, list) else {"$tuple": packed}
        if isinstance(value, np.generic):
            return self.pack(value.item(), path)
        if isinstance(value, float) and not np.isfinite(value):
            return {"$float": repr(value)}
        if value is None or isinstance(value, str | int | float | bool):
            return value
        for name, (kind, write_key, _) in _KEYS.items():
            if type(value) is kind or (name == "path" and isinstance(value, PurePath)):
                return {"$key": [name, write_key(value)]}
        return {"$text": repr(value)}

    def _array(self, value: Array, path: str) -> Any:
        if value.dtype.name in _NON_NATIVE:
            self.arrays[path] = value.view(np.uint8 if value.itemsize == 1 else np.uint16)
            return {"$array": path, "dtype": value.dtype.name}
        if value.dtype == object:  # keys of several kinds stay what they are
            return {"$objects": [self.pack(item, "") for item in value.tolist()]}
        self.arrays[path] = np.asarray(value)
        return {"$array": path}


def _unpack(value: Any, arrays: Mapping[str, Array], kinds: Kinds, schema: int) -> Any:
    def unpack(inner: Any) -> Any:
        return _unpack(inner, arrays, kinds, schema)

    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, body), *_ = value.items()
    if kind == "$array":
        array = arrays[body]
        return array.view(getattr(ml_dtypes, value["dtype"])) if "dtype" in value else array
    if kind == "$tensor":
        return torch_arrays.to_torch(unpack(body))
    if kind == "$objects":
        keys = np.empty(len(body), object)
        keys[:] = [unpack(item) for item in body]
        return keys
    if kind == "$map":
        return {unpack(key): unpack(item) for key, item in body}
    if kind == "$plan":
        return _plan(body, value["fields"], arrays, kinds, schema)
    if kind == "$checkpoint":
        return tensors.Checkpoint.open(body).arrays()
    if kind == "$set":
        return frozenset(body)
    if kind == "$tuple":
        return tuple(unpack(item) for item in body)
    if kind == "$float":
        return float(body)
    if kind == "$key":
        name, text = body
        return _KEYS[name][2](text)
    return body
