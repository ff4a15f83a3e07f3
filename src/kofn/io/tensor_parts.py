"""Parts of a checkpoint that several processes write into the files of one `CheckpointWriter`, which seals them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from kofn.core.checks import FailureError, InputError
from kofn.io.tensor_writer import CheckpointWriter, write_all
from kofn.io.tensors import TensorSpec, header_bytes


@dataclass(frozen=True)
class Places:
    """Where the tensors of an unfinished checkpoint are written; it can be pickled.

    Attributes:
        folder: the hidden folder of the writer.
        tensors: file name, byte and spec of each tensor.
    """

    folder: Path
    tensors: Mapping[str, tuple[str, int, TensorSpec]]

    @classmethod
    def of(cls, writer: CheckpointWriter) -> Places:
        """Those of a writer, inside its `with` block."""
        tensors = {}
        for shard in writer.layout.shards:
            offset = len(header_bytes(shard))
            for spec in shard.tensors:
                tensors[spec.name] = (shard.file_name, offset, spec)
                offset += spec.nbytes
        return cls(writer.folder, tensors)


class PartWriter:
    """Writes tensors into the files that a `CheckpointWriter` has laid out, from any process that sees its folder.

    Each element may be written more than once, with the same value: so a task that was lost can be done again. Leaving
    the `with` block without an error puts all that was written on the disk.

    Raises:
        InputError: this machine does not see the folder. FailureError: a write fails.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self._files: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def write(self, name: str, start: int, block: np.ndarray) -> None:
        """Writes `block` as the elements of tensor `name` from flat position `start` on."""
        file, offset, spec = self.places.tensors[name]
        if block.dtype != spec.dtype:
            raise TypeError(f"tensor {name!r} is {spec.dtype} in the layout, the block is {block.dtype}")
        raw = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
        try:
            write_all(self._opened(file), raw.data, offset + start * spec.dtype.itemsize)
        except OSError as error:
            raise self._failure(file, error) from None

    def _opened(self, file: str) -> int:
        if file not in self._files:
            path = self.places.folder / file
            try:
                self._files[file] = os.open(path, os.O_WRONLY)
            except FileNotFoundError:
                raise InputError(
                    f"{path} is not seen by node {socket.gethostname()}; give an out, and members, in a folder that "
                    "every node shares"
                ) from None
        return self._files[file]

    def _failure(self, file: str, error: OSError) -> FailureError:
        return FailureError(f"{self.places.folder / file}: writing failed: {error.strerror} ({socket.gethostname()})")

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: object) -> None:
        try:
            for file, fd in self._files.items():
                try:
                    if kind is None:
                        os.fdatasync(fd)
                except OSError as error:
                    raise self._failure(file, error) from None
        finally:
            for fd in self._files.values():
                os.close(fd)
            self._files.clear()
