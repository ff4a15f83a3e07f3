"""Files with another separator than their suffix says are told so, whatever their header holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from kofn.core.checks import InputError
from kofn.io.opening import open_table
from kofn.io.reading import Reading

ROWS = [["title", "Genre, major", "year"], ["Manden med tubaen", "Short", "2000"], ["Angustia", "Drama", "1987"]]


def written(path: Path, mark: str, rows: list[list[str]] = ROWS) -> Path:
    path.write_text("".join(mark.join(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("name", ["Genre, major", "genre", "a, b, c"])
def test_another_separator_is_named(mark: str, name: str, tmp_path: Path) -> None:
    rows = [["title", name, "year"], *ROWS[1:]]
    path = written(tmp_path / "t.csv", mark, rows)
    with pytest.raises(InputError, match="say --delimiter") as told:
        open_table(path)
    assert repr(mark) in str(told.value)
    assert open_table(path, Reading(delimiter=mark)).columns == ["title", name, "year"]


def test_a_comma_in_a_row_does_not_hide_it(tmp_path: Path) -> None:
    rows = [["title", "genre"], ["Remarkable Mr. Pennypacker, The", "Comedy"], ["Angustia", "Drama"]]
    with pytest.raises(InputError, match="say --delimiter ';'"):
        open_table(written(tmp_path / "t.csv", ";", rows))


@pytest.mark.parametrize("cells", [("a;b", "c;d"), ('"a, b; c"', "d;e")])
def test_signs_within_fields_separate_nothing(cells: tuple[str, str], tmp_path: Path) -> None:
    rows = [["x;y", "z"], [cells[0], "1"], [cells[1], "2"]]
    assert open_table(written(tmp_path / "t.csv", ",", rows)).n == 2


def test_a_row_too_short_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the row at line 3 has 1 field, the header has 2"):
        open_table(written(tmp_path / "t.csv", ",", [["x", "y"], ["1", "2"], ["3"]]))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
@pytest.mark.parametrize("cell", ["one\ntwo, three", "a, b\n\nc; d | e\tf", 'say ""x"", y\nz'])
def test_a_field_in_quotes_may_hold_lines_and_separators(mark: str, cell: str, tmp_path: Path) -> None:
    rows = [["name", "doc"], ["a", f'"{cell}"'], ["b", '"plain, text"'], ["c", f'"{cell}"']]
    path = written(tmp_path / "t.csv", mark, rows)
    with pytest.raises(InputError) as told:
        open_table(path)
    assert str(told.value).endswith(f"every line has {mark!r} as often as its header; say --delimiter {mark!r}")
    table = open_table(path, Reading(delimiter=mark))
    assert table.n == 3
    assert table.texts("doc")[0] == cell.replace('""', '"')
