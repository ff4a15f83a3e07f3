"""Counts and sizes that a Parquet file states, held against each other before a reader reserves memory by them.

A count below zero or beyond the file makes polars reserve as many bytes, which ends the process. What cannot be read
here is left to the reader, which says what is wrong with it.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kofn.core.checks import InputError
from kofn.io.parquet_footer import Metadata, metadata
from kofn.io.thrift import Compact

# Headers of pages that are looked at when a file is opened, a third of a second; the others where they are read.
_PAGES_AT_ONCE = 20_000
# A page's header is read from so many bytes, or from more where its statistics hold long texts.
_HEADERS = (1 << 10, 1 << 20)
# Pages without values in one column of a row group, of which damage can make as many as the file has bytes.
_MOST_EMPTY = 1_000
_DICTIONARY = 2


class _Chunk(NamedTuple):
    """Where the pages of a column begin in one row group, and how many values they hold together."""

    start: int
    values: int


class StatedCounts:
    """The counts of rows, values and bytes that a file's metadata and the headers of its pages state.

    Those of the metadata are checked at once, those of pages by `refuse_false_pages`.

    Args:
        path: the file.
        footer: what its footer says, if that is known.

    Raises:
        InputError: a count below zero, or more than there can be; the footer cannot be read.
    """

    def __init__(self, path: Path, footer: Metadata | None = None) -> None:
        self.path = path
        known = metadata(path) if footer is None else footer
        _check_rows(path, known.fields)
        # Of each row group the chunks by top column whose pages nobody has looked at.
        self._unchecked = [_chunks(group) for group in known.fields.get(4, [])]

    def refuse_false_pages(self, columns: Collection[str] | None = None, groups: Sequence[int] | None = None) -> None:
        """Check the pages of these columns in these row groups, all of them by default, where that was not done yet.

        Raises:
            InputError: a count below zero, or more than there can be.
        """
        self._refuse(range(len(self._unchecked)) if groups is None else groups, columns, None)

    def refuse_first_pages(self) -> None:
        """Check as many pages as take no time worth mentioning.

        Raises:
            InputError: a count below zero, or more than there can be.
        """
        self._refuse(range(len(self._unchecked)), None, _PAGES_AT_ONCE)

    def _refuse(self, groups: Sequence[int], columns: Collection[str] | None, most: int | None) -> None:
        waiting = [
            (self._unchecked[group], name)
            for group in groups
            for name in list(self._unchecked[group])
            if columns is None or name in columns
        ]
        if not waiting:
            return
        pages = 0
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
            for unchecked, name in waiting:
                for chunk in unchecked.get(name, ()):  # another thread may have looked at it meanwhile
                    for _ in _checked_pages(self.path, data, end, chunk):
                        pages += 1
                        if pages == most:
                            return
                unchecked.pop(name, None)


def _damaged(path: Path, fault: str) -> InputError:
    return InputError(f"{path} is damaged: {fault}; copy or write the file again")


def _check_rows(path: Path, footer: dict[int, Any]) -> None:
    try:
        rows = [group[3] for group in footer.get(4, [])]
        if footer[3] < 0 or min(rows, default=0) < 0 or sum(rows) != footer[3]:
            raise _damaged(path, f"it states {footer[3]:,} rows, and {sum(rows):,} in its parts")
        for group in footer.get(4, []):
            for column in group[1]:
                if 3 in column and column[3][5] < group[3]:
                    raise _damaged(path, f"a column states {column[3][5]:,} values of {group[3]:,} rows")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        # Another kind of metadata than is known here, or damage that any reader sees.


def _chunks(group: dict[int, Any]) -> dict[str, list[_Chunk]]:
    """The chunks of a row group by top column, but what is encrypted, in another file or not to be understood."""
    chunks: dict[str, list[_Chunk]] = {}
    for column in group[1]:
        try:
            stated = column[3]
            offsets = [offset for offset in (stated[9], stated.get(11, 0)) if offset > 0]
            if 1 not in column:
                name = stated[3][0].decode()
                chunks.setdefault(name, []).append(_Chunk(min(offsets), stated[5]))
        except (IndexError, KeyError, TypeError, AttributeError, ValueError):
            continue
    return chunks


def _checked_pages(path: Path, data: mmap.mmap, end: int, chunk: _Chunk) -> Iterator[None]:
    """Walk the pages of a chunk and hold their counts against its own."""
    start, left = chunk
    empty = 0
    while left > 0:
        page = _page(data, start, end)
        if page is None:
            return
        if page.least < 0:
            raise _damaged(path, f"a page at byte {start:,} states a count of {page.least:,}")
        start += page.bytes
        if page.values > (left if page.most is None else page.most) or start > end:
            raise _damaged(path, f"a page before byte {start:,} states more than there is: {page.values:,} values")
        rows = page.values if page.most is None else 0
        left -= rows
        empty += not rows
        if empty > _MOST_EMPTY:
            raise _damaged(path, f"a column has over {_MOST_EMPTY:,} pages without a value before byte {start:,}")
        yield


class _Page(NamedTuple):
    """A page: its bytes with the header, its values, the least count that it states.

    A dictionary holds `most` values, none of which is a row's; else that is None.
    """

    bytes: int
    values: int
    least: int
    most: int | None


def _page(data: mmap.mmap, start: int, end: int) -> _Page | None:
    """The page at a byte; None where its header is not to be understood."""
    try:
        header, length = _page_header(data, start, end)
        about = header.get(5) or header.get(8) or header.get(7) or {}
        stated = [header[2], header[3], *(number for number in about.values() if type(number) is int)]
        page = _Page(length + header[3], about.get(1, 0), min(stated), header[2] if header[1] == _DICTIONARY else None)
    except (IndexError, KeyError, TypeError, AttributeError, ValueError, OverflowError):
        return None
    return page if type(page.bytes) is int and type(page.values) is int else None


def _page_header(data: mmap.mmap, start: int, end: int) -> tuple[dict[int, Any], int]:
    """The header of the page at a byte, and its length."""
    for most in _HEADERS:
        header = Compact(data[start : min(start + most, end)])
        try:
            return header.struct(), header.offset
        except IndexError:
            if start + most >= end:
                break
    raise ValueError(start)
