"""Counts and sizes that a Parquet file states, held against each other before a reader reserves memory by them.

A count below zero or beyond the file makes polars reserve as many bytes, which ends the process. What cannot be read
here is left to the reader, which says what is wrong with it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kofn.core.checks import InputError
from kofn.io.thrift import Compact

# Files of more metadata, and pages beyond so many, are taken at their word: looking at them would take seconds.
_MOST_METADATA, _MOST_PAGES = 1 << 20, 20_000
# A page's header is read from so many bytes; statistics may hold long texts.
_HEADER = 1 << 13
_DICTIONARY = 2


def refuse_false_counts(path: Path) -> None:
    """Check the counts of rows, values and bytes that the file's metadata and the headers of its pages state.

    Raises:
        InputError: a count below zero, or more than there can be.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = int.from_bytes(data[-8:-4], "little")
        end = len(data) - 8 - size
        if end < 4:
            raise _damaged(path, f"its footer states a length of {size:,} bytes, and the file has {len(data):,}")
        if size > _MOST_METADATA:
            return
        try:
            footer = Compact(data[end:-8]).struct()
            _check_rows(path, footer)
            for chunk in _chunks(footer):
                _check_pages(path, data, end, chunk)
        except (IndexError, KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            # Another kind of metadata than is known here, or damage that any reader sees.
            return


def _damaged(path: Path, fault: str) -> InputError:
    return InputError(f"{path} is damaged: {fault}; copy or write the file again")


def _check_rows(path: Path, footer: dict[int, Any]) -> None:
    rows = [group[3] for group in footer.get(4, [])]
    if footer[3] < 0 or min(rows, default=0) < 0 or sum(rows) != footer[3]:
        raise _damaged(path, f"it states {footer[3]:,} rows, and {sum(rows):,} in its parts")
    for group in footer.get(4, []):
        for column in group[1]:
            if 3 in column and column[3][5] < group[3]:
                raise _damaged(path, f"a column states {column[3][5]:,} values of {group[3]:,} rows")


def _chunks(footer: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """What the file says of each column in each of its parts, where that is not encrypted or in another file."""
    for group in footer.get(4, []):
        for column in group[1]:
            if 3 in column and 1 not in column:
                yield column[3]


def _check_pages(path: Path, data: mmap.mmap, end: int, chunk: dict[int, Any]) -> None:
    """Walk the pages of a column's part and hold their counts against its own."""
    start, pages = min(offset for offset in (chunk[9], chunk.get(11, 0)) if offset > 0), 0
    left = chunk[5]
    while left > 0 and pages < _MOST_PAGES:
        header = Compact(data[start : min(start + _HEADER, end)])
        page = header.struct()
        about = page.get(5) or page.get(8) or page.get(7) or {}
        numbers = [page[2], page[3], *(number for number in about.values() if type(number) is int)]
        if min(numbers) < 0:
            raise _damaged(path, f"a page at byte {start:,} states a count of {min(numbers):,}")
        start += header.offset + page[3]
        most = page[2] if page[1] == _DICTIONARY else left
        if about.get(1, 0) > most or start > end:
            raise _damaged(path, f"a page before byte {start:,} states more than there is: {about.get(1, 0):,} values")
        left -= 0 if page[1] == _DICTIONARY else about.get(1, 0)
        pages += 1
