"""By what a plan tells which problem it answers: a digest of what was asked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks, vocabulary
from kofn.core.pools import is_pool
from kofn.engines.threads import cores, spread

# Words whose texts are paths of files.
_PATHS = ("members", "base")
# Arrays of more than two parts of so many bytes are digested part by part.
_PART = 2**24


def digest(values: Mapping[str, Any]) -> str:
    """blake2b of the inputs, by which a plan tells which problem it answers; of the settings only the seed counts."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(values):
        if name not in vocabulary.SETTINGS or name == "seed":
            state.update(name.encode())
            if isinstance(values[name], np.ndarray) and values[name].nbytes > 2 * _PART:
                _feed_parts(state, values[name], cores(values.get("n_threads")))
                continue
            with checks.reading(name, values[name]):
                _feed(state, values[name], paths=name in _PATHS)
    return state.hexdigest()


def _feed_parts(state: Any, value: NDArray[Any], n_threads: int) -> None:
    """A large array by the digests of its parts, which threads share; the parts do not depend on how many there are."""
    if value.dtype == object:
        _feed(state, value)
        return
    raw = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    parts = [b""] * -(-len(raw) // _PART)

    def feed(low: int, high: int) -> None:
        for part in range(low, high):
            parts[part] = hashlib.blake2b(raw[part * _PART : (part + 1) * _PART].data).digest()

    spread(feed, len(parts), n_threads, shares=4)
    state.update(f"{value.dtype}{value.shape}".encode() + b"".join(parts))


def _feed(state: Any, value: Any, *, paths: bool = False) -> None:
    """Feed one value; with `paths`, texts name files, whose sizes and times count too."""
    if is_pool(value):
        state.update(value.digest.encode())
    elif checks.is_sparse(value):
        for part in (value.indptr, value.indices, value.data):
            _feed(state, part)
    elif isinstance(value, np.ndarray):
        state.update(f"{value.dtype}{value.shape}".encode())
        plain: Any = str(value.tolist()).encode() if value.dtype == object else np.ascontiguousarray(value).reshape(-1)
        state.update(plain if isinstance(plain, bytes) else plain.view(np.uint8))
    elif isinstance(value, str | os.PathLike):
        state.update(str(value).encode())
        for file in _files(Path(value)) if paths else ():
            state.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    elif isinstance(value, Mapping):
        state.update(repr(getattr(value, "config", "")).encode())  # an adapter's scalings
        for key, item in value.items():
            state.update(str(key).encode())
            _feed(state, item, paths=paths)
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(state, item, paths=paths)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        state.update(f"{type(value).__name__}{tuple(value.shape)}{value.dtype}".encode())
    elif callable(value):
        state.update(getattr(value, "__qualname__", type(value).__name__).encode())
    else:
        state.update(repr(value).encode())


def _files(path: Path) -> list[Path]:
    """The files that a path of a member stands for; none where it names nothing."""
    try:
        if path.is_dir():
            return sorted([*path.glob("*.safetensors*"), *path.glob("adapter_config.json")])
        return [path] if path.is_file() else []
    except OSError:  # a text too long for a name
        return []
