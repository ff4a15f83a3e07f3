"""`kofn.allocate` of a table: its columns by name, through the code that reads the command's file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind
from kofn.core.number_of_groups import entry_of
from kofn.core.vocabulary import VOCABULARY
from kofn.io.frames import FrameTable
from kofn.io.opening import open_table
from kofn.io.tables import Table
from kofn.tables.allocate_arguments import AllocateArguments
from kofn.tables.allocate_reading import call_of, read_input
from kofn.tables.asked import index_as_ids, quotas_by_column, reading_of, refuse_unknown, several_names
from kofn.tables.spelling import speaking_python
from kofn.tables.words import NAMES_A_COLUMN

# Words that are fields of the arguments by another name, or are no columns where they are not texts.
_NAMED = {word: field for word, field in NAMES_A_COLUMN.items() if field not in ("label_column", "group_column")}
_OURS = {"id": "ids", "cost": "costs", "weight": "weights", "score": "scores", "size": "sizes"}
_FIELDS = (
    *("k", "budget", "mean_budget", "sense", "frontier"),
    *("seed", "max_memory", "n_threads", "time_limit", "engine", "device", "progress"),
)
# Words of tables alone.
_OF_TABLES = ("columns", "na", "decimal", "min", "max", "tie", "limit")


def asks_of_items(method: Any, options: Mapping[str, Any] | None, given: Mapping[str, Any]) -> bool:
    """Whether `curves` is a table that says more than an array does: its file, or one whose columns are named."""
    kind = frame_kind(given.get("curves"))
    if kind is None or kind == "splits":
        return False
    if kind in ("columns", "file", "datasets", "stream"):
        return True
    if any(given.get(word) is not None for word in _OF_TABLES):
        return True
    # Frames are read by their columns' names anyway, beside ids and sizes.
    if any(isinstance(given.get(word), str) for word in (*_NAMED.keys() - {"ids", "sizes"}, "groups", "group")):
        return True
    entry = entry_of("allocate", method)
    if entry is None:
        return False
    own = {**given, **(options or {})}
    named = [name for name, kind in entry.types.items() if kind.startswith("ArrayLike") and name not in _NAMED]
    return "scores" in entry.required or any(isinstance(own.get(name), str) for name in named)


def share(run: Callable[..., Any], method: Any, options: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """The plan of a call whose items are the rows of a table.

    Args:
        run: the verb itself, of arrays.
        method: its name, "auto" or a callable.
        options: the method's options that were given as a mapping.
        given: every other argument, none of them None.

    Raises:
        InputError: a table that cannot be read, no such column, or a word that no method has.
    """
    return speaking_python(lambda: _shared(run, method, options, dict(given)))


def _shared(run: Callable[..., Any], method: Any, options: Mapping[str, Any], words: dict[str, Any]) -> Any:
    source = words.pop("curves")
    reading = reading_of(words)
    fields: dict[str, Any] = {"method": method, "progress": None}
    arrays: dict[str, Any] = {}
    for word, field in _NAMED.items():
        value = words.pop(word, None)
        if value is None:
            continue
        if field in fields or _OURS.get(word, word) in arrays:
            raise InputError(f"{word} and {_OURS.get(word, word)} are one word; give one of them")
        if isinstance(value, str):
            fields[field] = value
        else:
            arrays[_OURS.get(word, word)] = value
    if "columns" in words:
        fields["columns"] = several_names("columns", words.pop("columns"))
    fields |= {name: words.pop(name) for name in _FIELDS if name in words}
    if "levels" in words:
        fields["levels"] = [float(checks.number(level, "levels")) for level in checks.collected(words.pop("levels"))]
    fields |= {field: str(words.pop(word)) for word, field in (("min", "least"), ("max", "most")) if word in words}
    for word in ("tie", "tied"):
        if isinstance(words.get(word), str):
            fields["tie"] = (words.pop(word),)
    for word in ("limit", "limits"):
        if isinstance(words.get(word), Mapping) and "resources" not in words:
            fields["resource_limits"] = words.pop(word)
    group = next((words.pop(word) for word in ("groups", "group") if isinstance(words.get(word), str)), None)
    if "groups" not in words:
        fields["quotas"] = quotas_by_column(words, {} if group is None else {"group_column": group})
    arrays |= {name: words.pop(name) for name in list(words) if name in VOCABULARY}
    if twice := next((name for name in words if name in options), None):
        raise InputError(f"{twice} is given twice: flat and in options; give it once")
    own = {**options, **words}
    refuse_unknown("allocate", method, own, fields)
    columns: dict[str, Any] = {}
    if "ids" not in arrays:
        index_as_ids(source, fields, columns)
    with checks.reading("curves", source):
        table: Table = (
            open_table(source, reading) if frame_kind(source) == "file" else FrameTable(source, reading, columns)
        )
        if isinstance(table, FrameTable):
            table.path = Path("curves")
            table.hold(table.columns)
    arguments = AllocateArguments(own_options=own, **fields).named_in(table)
    call = call_of(table, arguments, read_input(table, arguments))
    return run(method=method, options=call.options, **{**call.words, **arrays})
