"""What files were like at one time, by which it is told that they are others now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kofn.core.checks import FailureError, InputError
from kofn.io.parquet_footer import footer
from kofn.io.reading import suffix_of
from kofn.io.tables import reading_file

# Of what each file holds, so many blocks are looked at to tell it from another: of so many bytes, where all files
# together make this many, and of fewer where they make more.
_BLOCKS, _MOST_BLOCK, _LEAST_BLOCK, _LOOKED_BYTES = 8, 1 << 16, 1 << 12, 1 << 28


class Stamp(NamedTuple):
    """What a file was like when the pool was opened."""

    path: Path
    size: int
    changed: int

    @staticmethod
    def of(path: Path) -> Stamp:
        """The file as it is now.

        Raises:
            InputError: it is gone.
            FailureError: it cannot be looked at.
        """
        try:
            status = path.stat()
        except FileNotFoundError:
            raise InputError(f"{path} has vanished since the pool was opened; put it back, or leave it out") from None
        except OSError as error:
            raise FailureError(f"{path} cannot be read: {error.strerror}") from None
        return Stamp(path, status.st_size, status.st_mtime_ns)

    def check(self) -> None:
        """Refuse a file that is another one now.

        Raises:
            InputError: its size or its time differs, or it is gone.
        """
        now = Stamp.of(self.path)
        if now != self:
            how = f"from {self.size:,} to {now.size:,} bytes" if now.size != self.size else "at the same size"
            raise InputError(f"{self.path} has changed {how} since the pool was opened; run again")


def feed_files(state: Any, stamps: Sequence[Stamp]) -> None:
    """Feed a digest with the names, sizes and times of files, and with blocks of what they hold.

    Raises:
        InputError: a file is damaged, gone or another one now. FailureError: it cannot be read.
    """
    block = min(_MOST_BLOCK, max(_LEAST_BLOCK, _LOOKED_BYTES // (_BLOCKS * len(stamps))))
    for stamp in stamps:
        stamp.check()
        state.update(repr((stamp.path.name, stamp.size, stamp.changed)).encode())
        with reading_file(stamp.path):
            _feed_blocks(state, stamp, block)


def _feed_blocks(state: Any, stamp: Stamp, block: int) -> None:
    """Feed a digest with blocks of a file, and with the footer of Parquet."""
    with stamp.path.open("rb") as file:
        if stamp.size <= _BLOCKS * block:
            state.update(file.read())
            return
        for number in range(_BLOCKS):
            file.seek((stamp.size - block) * number // (_BLOCKS - 1))
            state.update(file.read(block))
    if suffix_of(stamp.path) == ".parquet":
        state.update(footer(stamp.path))
