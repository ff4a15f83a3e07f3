"""Whether an output would replace what is read, or be read as a part of it the next time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kofn.core.checks import InputError

_MODULE = re.compile(r"\d.*_")  # folders of modules beside the weights of a sentence model


def joins(out: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether what is written to `out` would be read with the model or adapter in a folder: weights directly in it, or
    a folder that is called as the modules of a sentence model are. A sub-folder of its own is not."""
    target, source = Path(out).resolve(), Path(folder).resolve()
    if target.parent != source or not source.is_dir():
        return False
    is_module = (source / "modules.json").is_file() and _MODULE.match(target.name) is not None
    return target.suffix.lower() == ".safetensors" or is_module


def refuse_read(out: str | os.PathLike[str], sources: Iterable[tuple[str, Any]]) -> None:
    """Refuse an output that would replace files that are read, or be read with them the next time.

    Args:
        out: a file or folder.
        sources: the name of each model or adapter in errors, and its file or folder, None where it has none.

    Raises:
        InputError: an output there.
    """
    target = Path(out).resolve()
    for label, path in sources:
        if path is None:
            continue
        source = Path(path).resolve()
        if target in (source, source if source.is_dir() else source.parent):
            raise InputError(f"out={os.fspath(out)!r} is where {label} lies; name another path")
        if joins(out, source):
            raise InputError(f"out={os.fspath(out)!r} {JOINED.format(label)}")


JOINED = "lies in {}, whose files are read together; name a place outside of it, or a new folder in it"
