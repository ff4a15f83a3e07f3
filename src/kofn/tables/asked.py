"""A call of Python about a table, as the command would hold it: which columns it names, and what it asks of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kofn.core import checks, dispatch
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind
from kofn.core.vocabulary import VOCABULARY, meant
from kofn.core.words import OF_TABLES_BY_VERB
from kofn.io.reading import EMPTY, Reading
from kofn.objectives import base
from kofn.tables.arguments import RowArguments
from kofn.tables.assign_arguments import AssignArguments
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.words import NAMES_A_COLUMN

# The column that a list of texts becomes.
TEXT = "text"
_BY_VERB: dict[str, type[RowArguments]] = {"select": SelectArguments, "assign": AssignArguments}
# Fields that a call of Python does not set by their name: what the command writes, and what else it alone has.
_OF_THE_COMMAND = {
    *("typed", "own_options", "output", "report", "plan_path", "as_json", "dry_run", "images", "drop", "dropped"),
    *("every", "export", "by_scores", "by_rankings", "method", "quotas", *NAMES_A_COLUMN.values()),
}


def of_texts(texts: Any) -> Any:
    """Texts as a table with one column; the index of a pandas series goes on naming its rows."""
    if type(texts).__module__.partition(".")[0] == "pandas" and hasattr(texts, "to_frame"):
        return texts.to_frame(TEXT)
    return {TEXT: texts}


def names_of_columns(verb: str, X: Any, words: dict[str, Any], columns: dict[str, Any]) -> dict[str, str]:
    """The column of each field; what was given as values becomes a column of its own, in `columns`."""
    named: dict[str, str] = {}
    for word, field in NAMES_A_COLUMN.items():
        value = words.get(word)
        if value is None or (word == "score" and callable(value)) or isinstance(value, bool):
            continue
        if field in named:
            raise InputError(f"{word} and {_other(word)} are one word; give one of them")
        del words[word]
        if isinstance(value, Mapping) and field == "group_column":
            # Columns of groups that quotas name.
            columns.update(value)
        elif isinstance(value, str):
            named[field] = value
        elif word == "scores" and getattr(value, "ndim", 1) == 2:
            raise InputError("scores with one column a bin are the items themselves; give them without X")
        else:
            named[field] = word if word not in _columns_of(X) else f"{word}="
            columns[named[field]] = value
    index_as_ids(X, named, columns)
    if verb == "assign" and "group_column" in named:
        raise InputError("groups are no argument of assign; it makes them")
    return named


def index_as_ids(X: Any, named: dict[str, Any], columns: dict[str, Any]) -> None:
    """Where no column of ids is named, a pandas index that names rows is one; it becomes a column of its own."""
    if "id_column" not in named and frame_kind(X) == "pandas":
        index = X.index
        if not (index.nlevels > 1 or _counts(index)) and len(index) and index.is_unique and not index.hasnans:
            named["id_column"] = str(index.name or "index")
            columns.setdefault(named["id_column"], index.to_series().reset_index(drop=True))
    elif frame_kind(X) == "pandas" and named["id_column"] == X.index.name and X.index.name not in X.columns:
        columns[named["id_column"]] = X.index.to_series().reset_index(drop=True)


def _counts(index: Any) -> bool:
    """Whether a pandas index is 0, 1, 2, ..., which names no row."""
    return bool(index.dtype.kind in "iu" and (np.asarray(index) == np.arange(len(index))).all())


def _other(word: str) -> str:
    return next(other for other, field in NAMES_A_COLUMN.items() if field == NAMES_A_COLUMN[word] and other != word)


def _columns_of(X: Any) -> list[str]:
    if frame_kind(X) == "lazy":
        with checks.reading("X", X):
            return list(X.collect_schema().names())
    names = X if isinstance(X, Mapping) else getattr(X, "columns", getattr(X, "column_names", ()))
    return [] if frame_kind(X) == "file" else [str(name) for name in names]


def reading_of(words: dict[str, Any]) -> Reading:
    """What stands for a missing value and what becomes of it."""
    marks = words.pop("na", None)
    marks = (marks,) if isinstance(marks, str) else tuple(map(str, marks or ()))
    drops, impute = words.get("drop_empty"), words.get("impute")
    if drops and impute is not None:
        raise InputError("drop_empty and impute both say what becomes of missing values; give one of them")
    empty = "drop" if drops else "refuse" if impute is None else impute
    if empty not in EMPTY:
        raise InputError(f"impute={impute!r}: give median, mean or most_frequent")
    return Reading(marks, words.pop("decimal", None) or ".", None, None, empty, has_flag=True)


def arguments_of(
    verb: str, method: Any, options: Mapping[str, Any], words: dict[str, Any], named: Mapping[str, str]
) -> Any:
    """What was asked, as the command would hold it; what is no word of its is an option of the method."""
    kind = _BY_VERB[verb]
    known = {item.name for item in dataclasses.fields(kind)} - _OF_THE_COMMAND
    fields: dict[str, Any] = {"method": method, "progress": None, **named}
    for name in ("columns", "categories", "proportional"):
        if name in words:
            fields[name] = several_names(name, words.pop(name), cells=name == "proportional")
    if verb == "assign" and "long" in words:
        # A text names all three, with commas between, as for the command.
        named_long = words.pop("long")
        fields["long"] = several_names("long", named_long.split(",") if isinstance(named_long, str) else named_long)
    if "cache" in words:
        fields["no_cache"] = not checks.flag(words.pop("cache"), "cache")
    for name in ("scores", "rankings"):
        if isinstance(words.get(name), bool):
            fields[f"by_{name}"] = words.pop(name)
    if verb == "select":
        fields["quotas"] = quotas_by_column(words, named)
        if isinstance(words.get("k"), str):
            words["k"] = checks.share_of_rows(words["k"])
        if "dedupe" in words:
            words["dedupe"] = checks.share(words["dedupe"], "dedupe")
        if not isinstance(words.get("each", {}), Mapping):
            raise InputError(f"each={words['each']!r}: give {{column: number}}, for example {{'lang': 20}}")
        for column, most in words.get("each", {}).items():
            checks.count(most, f"each[{column!r}]")
    for name in ("text", "vectors", "embedder", "impute"):
        if name in words and not isinstance(words[name], str):
            raise InputError(f"{name}={checks.shown(words[name])}: give the name of a column" + _of_arrays(name))
    own = {**options}
    for name, value in words.items():
        if name in known:
            fields[name] = value
        elif name in VOCABULARY:
            raise InputError(f"{name} does not go with a table of rows; leave it out, or give it without the table")
        elif name in own:
            raise InputError(f"{name} is given twice: flat and in options; give it once")
        else:
            own[name] = value
    refuse_unknown(verb, method, own, fields)
    return kind(own_options=own, **fields)


def refuse_unknown(verb: str, method: Any, own: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Refuse words that no method has before rows are read: what these lack would be refused in their place."""
    index = dispatch.methods_of(verb)
    entry = index.get(method) if isinstance(method, str) else None
    if entry is None and method != "auto":
        return
    options = set(entry.options) if entry else {option for each in index.values() for option in each.options}
    if verb == "select" and (entry is None or "objective" in entry.accepted):
        objective = fields.get("objective") or "facility_location"
        if not isinstance(objective, str):
            return
        options |= set(base.parameters_of(objective))
    for name in own.keys() - options:
        if entry is not None:
            raise InputError(dispatch.unknown_option(entry, name, index))
        known = [*VOCABULARY, *OF_TABLES_BY_VERB.get(verb, ()), *options]
        raise InputError(f"{verb} has no argument {name!r}{meant(name, verb) or checks.nearest(name, known)}")


def _of_arrays(name: str) -> str:
    return "; vectors that are an array are X itself" if name == "vectors" else ""


def several_names(name: str, value: Any, *, cells: bool = False) -> tuple[Any, ...]:
    """Names of columns: a list of them, or one; of the cells of several columns a tuple, where these are meant."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    of_cells = [part for part in names if cells and isinstance(part, tuple)]
    flat = [part for part in names if part not in of_cells] + [part for cell in of_cells for part in cell]
    if not flat or not all(isinstance(part, str) for part in flat):
        raise InputError(f"{name}={checks.shown(value)}: give names of columns, for example ['age', 'city']")
    return tuple(names)


def quotas_by_column(words: dict[str, Any], named: Mapping[str, str]) -> dict[str, Any]:
    """{column: {group: ends}}; without columns they are of the column of groups."""
    quotas = words.pop("quotas", words.pop("quota", None))
    if quotas is None:
        return {}
    checks.quotas(quotas)
    if all(isinstance(ends, Mapping) for ends in quotas.values()):
        return dict(quotas)
    if "group_column" not in named:
        group = next(iter(quotas))
        raise InputError(
            f"quotas of {group!r} need a column: give quotas={{column: {{{group!r}: ...}}}}, or name it by groups"
        )
    return {named["group_column"]: dict(quotas)}
