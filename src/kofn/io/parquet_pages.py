"""Rows from within a row group of a Parquet file: the pages of a column that hold them, as a Parquet file of their own.

Readers fetch and unpack the whole column of a row group for any of its rows, and writers like groups of a million rows.
A group lies in pages of about a megabyte, which are packed each for itself. A few of them with a footer of their own
are a whole Parquet file, so that the reader does all decoding, whatever the codec, and never sees the others.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kofn.core.arrays import Ints
from kofn.io.parquet_footer import footer
from kofn.io.thrift import Compact, written

# Numbers of fields, as Parquet's format gives them: of a file, its row groups, their columns, and pages.
_SCHEMA, _GROUPS, _GROUP_COLUMNS, _GROUP_ROWS, _ELSEWHERE, _CHUNK = 2, 4, 1, 3, 1, 3
_TYPE, _ENCODINGS, _PATH, _CODEC, _VALUES, _DATA_AT, _DICTIONARY_AT = 1, 2, 3, 4, 5, 9, 11
_NAME, _CHILDREN = 4, 5
_PAGE_KIND, _PAGE_BYTES, _PAGE_V1, _PAGE_V2, _PAGE_VALUES, _PAGE_ROWS = 1, 3, 5, 8, 1, 3
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_HEADER = 1 << 13
_MAGIC = b"PAR1"


class Pages(NamedTuple):
    """The pages of a column in one row group.

    Attributes:
        first_rows: (pages + 1,) the first row of each page in the group, and the number of rows.
        offsets: (pages + 1,) the byte at which each page begins, and where the last ends.
        dictionary: where the page of the dictionary begins and ends, if there is one.
    """

    first_rows: Ints
    offsets: Ints
    dictionary: tuple[int, int] | None


class PagedColumn:
    """A column of lists, all of one length, in a Parquet file, of which runs of rows are read.

    Args:
        path: the file.
        name: the column.
        width: length of the lists. Pages do not state where rows begin; where all have whole rows, this says it.
    """

    def __init__(self, path: Path, name: str, width: int) -> None:
        self.path, self.name, self.width = path, name, width
        self._pages: list[Pages | None] = []
        self._chunks: list[dict[int, Any]] = []
        self._schema: list[bytes] = []
        try:
            self._read_layout()
        except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
            # Another layout than is known here, or damage: left to the reader, which says what is wrong.
            self._pages = []

    def pages(self, group: int) -> Pages | None:
        """Where the rows of a row group lie; None where only the whole group can be read."""
        pages = self._pages[group] if group < len(self._pages) else None
        return None if pages is None or len(pages.offsets) < 3 else pages

    def page_rows(self, group: int) -> int | None:
        """How many rows the largest page of a group has; None where only the whole group can be read."""
        pages = self.pages(group)
        return None if pages is None else int(np.diff(pages.first_rows).max())

    def excerpt(self, group: int, start: int, stop: int) -> tuple[bytes, int, int] | None:
        """A Parquet file of the pages that hold rows start..stop of a group, the first row and how many it holds."""
        pages = self.pages(group)
        if pages is None:
            return None
        low = int(np.searchsorted(pages.first_rows, start, side="right")) - 1
        high = int(np.searchsorted(pages.first_rows, stop, side="left"))
        first, rows = int(pages.first_rows[low]), int(pages.first_rows[high] - pages.first_rows[low])
        spans = [(int(pages.offsets[low]), int(pages.offsets[high]))]
        if pages.dictionary is not None:
            spans.insert(0, pages.dictionary)
        blocks = []
        with self.path.open("rb") as file:
            for begin, end in spans:
                file.seek(begin)
                blocks.append(file.read(end - begin))
        tail = self._footer(self._chunks[group], rows, [len(block) for block in blocks])
        return b"".join([_MAGIC, *blocks, tail, len(tail).to_bytes(4, "little"), _MAGIC]), first, rows

    def _footer(self, chunk: dict[int, Any], rows: int, sizes: list[int]) -> bytes:
        """What a file says that holds these pages, after the mark at its beginning, and nothing else."""
        total = sum(sizes)
        data: dict[int, Any] = {
            _TYPE: ("i32", chunk[_TYPE]),
            _ENCODINGS: ("list", "i32", chunk[_ENCODINGS]),
            _PATH: ("list", "binary", chunk[_PATH]),
            _CODEC: ("i32", chunk[_CODEC]),
            _VALUES: ("i64", rows * self.width),
            6: ("i64", total),
            7: ("i64", total),
            _DATA_AT: ("i64", len(_MAGIC) + total - sizes[-1]),
        }
        if len(sizes) > 1:
            data[_DICTIONARY_AT] = ("i64", len(_MAGIC))
        column = {2: ("i64", len(_MAGIC)), _CHUNK: ("struct", data)}
        group = {_GROUP_COLUMNS: ("list", "struct", [column]), 2: ("i64", total), _GROUP_ROWS: ("i64", rows)}
        root = written({_NAME: ("binary", b"schema"), _CHILDREN: ("i32", 1)})
        return written(
            {
                1: ("i32", 1),
                _SCHEMA: ("list", "raw", [root, *self._schema]),
                3: ("i64", rows),
                _GROUPS: ("list", "struct", [group]),
            }
        )

    def _read_layout(self) -> None:
        reader = Compact(footer(self.path))
        metadata = reader.struct()
        self._schema = _branch(metadata[_SCHEMA], reader.elements(_SCHEMA), self.name.encode())
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for group in metadata[_GROUPS]:
                own = [column for column in group[_GROUP_COLUMNS] if column[_CHUNK][_PATH][0] == self.name.encode()]
                chunk = own[0][_CHUNK]
                self._chunks.append(chunk)
                known = len(own) == 1 and _ELSEWHERE not in own[0]
                self._pages.append(self._pages_of(data, chunk, group[_GROUP_ROWS]) if known else None)

    def _pages_of(self, data: mmap.mmap, chunk: dict[int, Any], rows: int) -> Pages | None:
        """The pages of a chunk, None where one does not state how many rows it has and has no whole rows."""
        first_rows, dictionary = [0], None
        offsets: list[int] = []
        for kind, begin, end, count in _walk(data, chunk, self.width):
            if kind == _DICTIONARY:
                dictionary = (begin, end)
                continue
            if count is None or (offsets and begin != offsets[-1]):
                return None
            offsets += [begin] if not offsets else []
            offsets.append(end)
            first_rows.append(first_rows[-1] + count)
        if first_rows[-1] != rows or not rows:
            return None
        return Pages(np.array(first_rows, np.int64), np.array(offsets, np.int64), dictionary)


def _branch(schema: list[dict[int, Any]], raw: list[bytes], name: bytes) -> list[bytes]:
    """The elements of the schema, as they stand, that make up a top column."""
    position = 1
    while position < len(schema):
        end = _end(schema, position)
        if schema[position][_NAME] == name:
            return raw[position:end]
        position = end
    raise KeyError(name)


def _end(schema: list[dict[int, Any]], position: int) -> int:
    """Where the element after a column and all that is nested in it stands."""
    open_children, position = 1, position
    while open_children:
        open_children += schema[position].get(_CHILDREN, 0) - 1
        position += 1
    return position


def _walk(data: mmap.mmap, chunk: dict[int, Any], width: int) -> Iterator[tuple[int, int, int, int | None]]:
    """Kind, first byte, byte after the last and rows of each page; no rows where they cannot be told."""
    start = min(offset for offset in (chunk[_DATA_AT], chunk.get(_DICTIONARY_AT, 0)) if offset > 0)
    left = chunk[_VALUES]
    while left > 0:
        reader = Compact(data[start : start + _HEADER])
        page = reader.struct()
        kind, end = page[_PAGE_KIND], start + reader.offset + page[_PAGE_BYTES]
        about = page.get(_PAGE_V1) or page.get(_PAGE_V2)
        if end <= start or (kind != _DICTIONARY and not (about and about[_PAGE_VALUES] > 0)):
            raise ValueError("no page is expected")
        rows = None
        if about is not None and kind in (_DATA, _DATA_V2):
            values = about[_PAGE_VALUES]
            left -= values
            rows = about[_PAGE_ROWS] if kind == _DATA_V2 else None if values % width else values // width
        yield kind, start, end, rows
        start = end
