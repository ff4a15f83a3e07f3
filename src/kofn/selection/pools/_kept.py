"""Results of fragments that are kept in a folder, so that a run that was killed goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kofn.core.checks import InputError, load_arrays, regular
from kofn.core.pools import Fragment
from kofn.engines.base import Engine
from kofn.io.atomic import atomic_path

R = TypeVar("R")
_SETTINGS = "settings.json"


class Kept:
    """A folder with one file for each fragment and stage, each written completely or not at all; none is a pickle.

    Args:
        folder: made where it does not exist; None keeps nothing.
        settings: what the results depend on. A folder that was begun with other settings is refused.
        method: whose results they are; each has a folder of its own in there.

    Raises:
        InputError: the folder is of another run, or cannot be written to.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, settings: Mapping[str, Any], method: str = "two_round_greedy"
    ) -> None:
        self.folder = None if folder is None else _folder_in(folder, method)
        self.reused = 0
        if self.folder is None:
            return
        settings = {name: str(value) for name, value in settings.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"work={folder} cannot be made: {error.strerror}; give another folder") from None
        path = self.folder / _SETTINGS
        if not path.exists():
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(settings, indent=1))
            return
        begun = _read_settings(path)
        if begun is None:
            raise InputError(f"{path} cannot be read; give an empty folder or a new name")
        for name, value in settings.items():
            if begun.get(name) != value:
                raise InputError(
                    f"work={folder} was begun with {name}={begun.get(name)}, this call has {name}={value}; "
                    "give another folder, or the settings of before"
                )

    def map(
        self,
        engine: Engine,
        work: Callable[..., R],
        fragments: Sequence[Fragment],
        stage: str,
        kind: type[R],
        *,
        shared: Sequence[Any],
        stopped: Callable[[], bool],
    ) -> Iterator[R]:
        """`work` of every fragment in their order, from the folder where it is there; ends early once stopped."""
        paths = [None if self.folder is None else self.folder / f"{stage}-{f.first_row}.npz" for f in fragments]
        stored = [None if path is None else _read(path, kind) for path in paths]
        missing = [fragment for fragment, there in zip(fragments, stored, strict=True) if there is None]
        fresh = engine.map(work, missing, shared=shared, stopped=stopped)
        for path, there in zip(paths, stored, strict=True):
            if there is not None:
                self.reused += 1
                yield there
                continue
            result = next(fresh, None)
            if result is None:
                return
            if path is not None and getattr(result, "complete", True):
                _write(path, result)
            yield result


def seed_begun(arguments: Mapping[str, Any]) -> int | None:
    """The seed of the run that the folder `work` of a call keeps; None where it keeps none that can be read."""
    folder = arguments.get("work")
    if not isinstance(folder, str | os.PathLike):
        return None
    seed = (_read_settings(_folder_in(folder) / _SETTINGS) or {}).get("seed")
    return int(seed) if isinstance(seed, str) and seed.isdecimal() else None


def _folder_in(work: str | os.PathLike[str], method: str = "two_round_greedy") -> Path:
    """Where the results are: others may keep files of their own beside them."""
    return Path(work) / method


def _read_settings(path: Path) -> dict[str, Any] | None:
    """What a run was begun with; None where that cannot be read."""
    try:
        begun = json.loads(regular(path).read_text())
    except (InputError, OSError, ValueError):
        return None
    return begun if isinstance(begun, dict) else None


def _write(path: Path, result: Any) -> None:
    parts: dict[str, Any] = {item.name: np.asarray(getattr(result, item.name)) for item in dataclasses.fields(result)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **parts)


def _read(path: Path, kind: type[R]) -> R | None:
    """The result in a file; None where there is none that can be read."""
    try:
        parts = load_arrays(path)
        values = {item.name: parts[item.name] for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    except (InputError, LookupError):
        return None
    return kind(**{name: value if value.ndim else value.item() for name, value in values.items()})


def digest_of_arrays(*arrays: Any) -> str:
    """A digest of arrays, of which each may be None."""
    state = hashlib.blake2b(digest_size=16)
    for array in arrays:
        part = b"" if array is None else np.ascontiguousarray(array).tobytes()
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()
