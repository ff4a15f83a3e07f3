"""Faults of text files, with their line: a ragged CSV row, a byte that is not UTF-8.

Readers built for speed refuse a broken file without naming the line, or fill in missing values. The checks here stream
the file in blocks, vectorised, and walk it line by line only once something is wrong.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kofn.core.checks import InputError, warn

_BLOCK = 8 << 20
# Rows by which a separator is told.
_FIRST = 6
_NEWLINE, _RETURN, _QUOTE = ord("\n"), ord("\r"), ord('"')


def check_utf8(path: Path) -> None:
    """Refuse a file that is not UTF-8 or holds NUL, naming byte and line. O(bytes) time, one block of memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = lines = 0
    with open(path, "rb") as file:
        while True:
            block = file.read(_BLOCK)
            undecoded = len(decoder.getstate()[0])
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                position = error.start - undecoded
                line = lines + 1 + block.count(b"\n", 0, max(position, 0))
                raise InputError(
                    f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset + position}, "
                    f"line {line}; say --encoding (latin-1, cp1252, utf-16-le, ...), or convert it, "
                    "as iconv -f latin1 -t utf-8 does"
                ) from None
            if (nul := block.find(b"\0")) >= 0:
                before = block.count(b"\n", 0, nul)
                raise InputError(
                    f"{path} holds a NUL byte at offset {offset + nul}, line {lines + 1 + before}, "
                    "and text holds none; write the file again, say --encoding utf-16-le (or -be) if it is UTF-16, or "
                    "take them out, as in tr -d '\\0' < FILE"
                )
            if not block:
                return
            lines += block.count(b"\n")
            offset += len(block)


def check_csv(path: Path, separator: str) -> tuple[list[str], int, Path | None]:
    """The header and the number of rows of a CSV file, all of whose rows must have as many fields as the header.

    Blank lines are not rows, but where there is one column: between rows each is an empty cell. A fast pass counts
    separators outside quotes in blocks; only an irregular file is walked by Python's reader, which implements the whole
    format. Where a field that is not in quotes holds one (`6" nail`), which readers treat differently, where blank
    lines stand between rows, and where runs of spaces separate fields, a temporary copy without them is returned too.

    Raises:
        InputError: not UTF-8, no header, a name twice, a row with too many or too few fields (with its line).
    """
    check_utf8(path)
    _refuse_bare_returns(path)
    if separator != " " or (plain := _single_spaces(path)) is None:
        return _checked(path, separator, path)
    try:
        header, rows, copy = _checked(plain, separator, path)
    except InputError as error:
        plain.unlink(missing_ok=True)
        raise InputError(str(error).replace(str(plain), str(path))) from None
    if copy is not None:
        plain.unlink(missing_ok=True)
    return header, rows, copy or plain


def _checked(path: Path, separator: str, called: Path) -> tuple[list[str], int, Path | None]:
    """The same of a file of UTF-8 in which single separators stand between fields, and which warnings call `called`."""
    header = _header(path, separator)
    _refuse_other_separator(path, separator, header)
    counted = _count_regular(path, separator, len(header))
    if counted is not None and not _has_bare_quote(path, separator):
        return header, counted, None
    rows, blank = _walk_csv(path, separator, len(header))
    copied = quotes_inside(path, separator) or bool(blank)
    if blank:
        lines = f"line {blank[0]} is blank and is" if len(blank) == 1 else f"{len(blank):,} blank lines are"
        first = "" if len(blank) == 1 else f", the first of them line {blank[0]}"
        warn(f"{called}: {lines} skipped{first}; rows are counted without {'it' if len(blank) == 1 else 'them'}")
    return header, rows, _quoted_copy(path, separator, len(header)) if copied else None


def _single_spaces(path: Path) -> Path | None:
    """A temporary copy of a file whose fields are separated by runs of spaces, with one space in place of each.

    None where single spaces separate the fields, of which two then hold an empty one between them.
    """
    names = next((fields for _, fields in _records(path, " ") if fields), [])
    if len(set(names)) == len(names) and "" not in names and _count_regular(path, " ", len(names)) is not None:
        return None
    handle, name = tempfile.mkstemp(suffix=path.suffix)
    with open(path, encoding="utf-8-sig", newline="") as file, os.fdopen(handle, "w", encoding="utf-8") as out:
        bare = (line.strip(" \r\n") + "\n" for line in file)
        writer = csv.writer(out, delimiter=" ", lineterminator="\n")
        writer.writerows(csv.reader(bare, delimiter=" ", skipinitialspace=True))
    return Path(name)


def _refuse_bare_returns(path: Path) -> None:
    """Refuse a file whose lines end in a carriage return alone, as those of old spreadsheets do."""
    with open(path, "rb") as file:
        start = file.read(_BLOCK)
    if b"\r" in start.rstrip(b"\r") and b"\n" not in start:
        raise InputError(f"{path}: its lines end in a carriage return alone; convert it, as in tr '\\r' '\\n' < FILE")


def _has_bare_quote(path: Path, separator: str) -> bool:
    """Whether a quote stands neither at an end of a field nor beside another quote."""
    ends = np.array([_QUOTE, _NEWLINE, _RETURN, ord(separator)], np.uint8)
    before = np.array([_NEWLINE], np.uint8)
    with open(path, "rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        while block := file.read(_BLOCK):
            # The last byte is looked at with the next block, or is followed by the end of the last line.
            data = np.concatenate([before, np.frombuffer(block, np.uint8)])
            quotes = np.flatnonzero(data[1:-1] == _QUOTE) + 1
            if (~np.isin(data[quotes - 1], ends) & ~np.isin(data[quotes + 1], ends)).any():
                return True
            before = data[-2:]
    return False


def _quoted_copy(path: Path, separator: str, width: int) -> Path:
    """The same records in a temporary file, every field that needs quotes in them; of several columns no blank ones."""
    handle, name = tempfile.mkstemp(suffix=path.suffix)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerows(
            fields for _, fields in _records(path, separator) if width == 1 or not _is_blank(fields, width)
        )
    return Path(name)


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line the record starts at, fields) by Python's reader; a blank line is a record without fields."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            start = 1
            for fields in reader:
                yield start, fields
                start = reader.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _header(path: Path, separator: str) -> list[str]:
    header = next((fields for _, fields in _records(path, separator) if fields), None)
    if header is None:
        raise InputError(f"{path} is empty; give a file with a header line and at least one row")
    mark = re.fullmatch("sep=(.)?", separator.join(header), re.IGNORECASE)
    if mark is not None:
        raise InputError(
            f"{path}: its first line, 'sep={mark[1] or separator}', is for Excel alone; remove it, and say "
            f"--delimiter {mark[1] or separator!r}"
        )
    if len(set(header)) < len(header):
        twice = max(Counter(header).items(), key=lambda item: item[1])[0]
        if not twice.strip():
            places = [str(number) for number, name in enumerate(header, 1) if name == twice]
            raise InputError(f"{path}: columns {', '.join(places)} of the header have no name; name or remove them")
        numbers = all(re.fullmatch(r"\s*-?[\d.]+([eE][+-]?\d+)?\s*", name) for name in header)
        remedy = "no header? the first row was taken as names; add a header line" if numbers else "rename one of them"
        raise InputError(f"{path}: the header names column {twice!r} twice; {remedy}")
    return header


def _refuse_other_separator(path: Path, separator: str, header: list[str]) -> None:
    """Refuse a file whose first lines all hold another separator equally often, and the one in use not so."""
    if len(header) > 1 and len(set(_first_widths(path, separator))) == 1:
        return
    for other in ";\t|,":
        # Read by the other separator: a field in quotes may hold lines, and either separator.
        widths = _first_widths(path, other) if other != separator else []
        if len(widths) > 1 and len(set(widths)) == 1 and widths[0] > 1:
            raise InputError(f"{path}: every line has {other!r} as often as its header; say --delimiter {other!r}")


def _first_widths(path: Path, separator: str) -> list[int]:
    """How many fields each of the first rows that are not blank has."""
    records = (fields for _, fields in _records(path, separator) if fields)
    return [len(fields) for fields in itertools.islice(records, _FIRST)]


def _separated_by_spaces(path: Path) -> bool:
    """Whether the first rows, split at runs of spaces outside quotes, have several fields and all as many."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        bare = (line.strip(" \r\n") for line in file)
        records = csv.reader((line for line in bare if line), delimiter=" ", skipinitialspace=True)
        widths = {len(fields) for fields in itertools.islice(records, _FIRST)}
    return len(widths) == 1 and max(widths) > 1


def _count_regular(path: Path, separator: str, width: int) -> int | None:
    """Rows below the header if every record has `width` fields by the quick count, else None."""
    records = trailing = 0
    quoted = started = False
    pending = blank_so_far = 0  # separators, and bytes, of the record that the last block left open
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            if not started:
                started = True
                block = block.removeprefix(codecs.BOM_UTF8)
            data = np.frombuffer(block, np.uint8)
            breaks, splits = data == _NEWLINE, data == ord(separator)
            quotes = data == _QUOTE
            if quoted or quotes.any():
                inside = np.bitwise_xor.accumulate(quotes.view(np.uint8)).astype(bool) ^ quoted
                breaks &= ~inside
                splits &= ~inside
                quoted = bool(inside[-1])
            ends = np.flatnonzero(breaks)
            if not len(ends):
                pending += int(splits.sum())
                blank_so_far += len(block)
                continue
            per_record = np.diff(np.searchsorted(np.flatnonzero(splits), ends), prepend=0)
            per_record[0] += pending
            lengths = np.diff(ends, prepend=-1) - 1
            carriage = (ends > 0) & (data[ends - 1] == _RETURN)
            lengths[0] += blank_so_far
            blank = lengths - carriage <= 0
            if records == 0:  # blank lines above the header are skipped by every reader
                leading = int(np.argmin(blank)) if not blank.all() else len(blank)
                per_record, blank = per_record[leading:], blank[leading:]
            full = np.flatnonzero(~blank)
            if len(full):
                last = int(full[-1])
                # A blank line between rows is a null in a one-column file; in any other the walk skips it.
                if width > 1 and (trailing or blank[:last].any()):
                    return None
                if (per_record[full] != width - 1).any():
                    return None
                records += trailing + last + 1
                trailing = len(blank) - last - 1
            elif records:
                trailing += len(blank)
            tail = int(ends[-1]) + 1
            pending, blank_so_far = int(splits[tail:].sum()), len(block) - tail
    if quoted:
        return None
    if blank_so_far:
        if pending != width - 1 or (trailing and width > 1):
            return None
        records += trailing + 1
    return records - 1


def _is_blank(fields: list[str], width: int) -> bool:
    """Whether a record is a line without a character; of several columns also one of white space alone."""
    return not fields or (width > 1 and len(fields) == 1 and not fields[0].strip())


def _walk_csv(path: Path, separator: str, width: int) -> tuple[int, list[int]]:
    """Rows below the header by Python's reader, and the blank lines between them, which are no rows where there are
    several columns; the first row of another width is refused."""
    records = 0
    between: list[int] = []
    pending: list[int] = []
    for line, fields in _records(path, separator):
        if _is_blank(fields, width):
            pending += [line] if records else []
            continue
        if len(fields) != width:
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            quote = " (is a quote left open?)" if len(fields) < width and any("\n" in f for f in fields) else ""
            remedy = "quote fields that hold the separator, leave a missing one empty"
            if width == 1 and len(fields) > 1:
                remedy = f"is line 1 a title? remove it; or {remedy}"
            raise InputError(f"{path}: the row at line {line} has {count}, the header has {width}{quote}; {remedy}")
        records += 1 + (len(pending) if width == 1 else 0)
        between += pending
        pending = []
    return records - 1, between if width > 1 else []


def quotes_inside(path: Path, separator: str) -> bool:
    """Whether fields that are not in quotes hold one, which readers treat differently.

    Raises:
        InputError: text follows the closing quote of a field, or a quote is left open (with its line).
    """
    opened = 0
    inside = bare_quote = False
    with open(path, encoding="utf-8-sig", newline="") as file:
        for number, raw in enumerate(file, 1):
            line, position = raw.rstrip("\r\n"), 0
            while True:
                if not inside and not line.startswith('"', position):
                    end = line.find(separator, position)
                    bare_quote = bare_quote or '"' in line[position : end if end >= 0 else None]
                    if end < 0:
                        break
                    position = end + 1
                    continue
                if not inside:
                    inside, position, opened = True, position + 1, number
                close = line.find('"', position)
                if close < 0:
                    break
                if line.startswith('""', close):
                    position = close + 2
                    continue
                inside, position = False, close + 1
                if position == len(line):
                    break
                if not line.startswith(separator, position):
                    remedy = "double the quotes in it"
                    if line[position] == " " and _separated_by_spaces(path):
                        remedy = f"if spaces separate its fields, say --delimiter ' '; else {remedy}"
                    raise InputError(f"{path}: line {number} has text after the closing quote of a field; {remedy}")
                position += 1
    if inside:
        raise InputError(f"{path}: a quote at line {opened} is left open; close it, or double the quotes that are text")
    return bare_quote
