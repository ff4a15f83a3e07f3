"""The words that name columns of a table, and whether a call is about a table; nothing heavy is imported to tell.

>>> asks_of_a_table({"body": ["a", "b"]}, {"text": "body"}), asks_of_a_table([[1.0], [2.0]], {"k": 1})
(True, False)
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind, holds_texts
from kofn.core.checks.numbers import shown
from kofn.core.words import OF_TABLES

# Words of which a text names a column of the table, and the field of the arguments that holds the name. The shared
# words are the vocabulary's; beside them stand the command's flags.
NAMES_A_COLUMN = {
    **dict.fromkeys(("ids", "id"), "id_column"),
    **dict.fromkeys(("y", "label"), "label_column"),
    **dict.fromkeys(("groups", "group"), "group_column"),
    **dict.fromkeys(("weights", "weight"), "weight_column"),
    **dict.fromkeys(("costs", "cost"), "cost_column"),
    **dict.fromkeys(("scores", "score"), "score_column"),
    **dict.fromkeys(("sizes", "size"), "size_column"),
}
# Words of the command that name a column of a table to combine, and ours.
COLUMNS_AS_TYPED = {"id": "ids", "label": "y", "group": "groups"}
# Words of tables that mean the same of arrays: a number of rows is shared out, and no column is named.
_OF_ARRAYS_TOO = ("equal",)
# Words that name one column or several and hold no values, and those that say something of each column.
_NAME_COLUMNS = ("text", "vectors", "columns", "categories", "proportional", "long")
_BY_COLUMN = ("quotas", "quota", "each")
# Words that name rows of the table.
NAMES_ROWS = ("include", "exclude", "start")


def asks_of_a_table(X: Any, given: Mapping[str, Any]) -> bool:
    """Whether the items of a call are the rows of a table with named columns, or texts.

    Raises:
        InputError: a word that only tables have, and X is none.
    """
    kind = frame_kind(X)
    if kind is None:
        texts = holds_texts(X)
        words = [word for word in OF_TABLES if word not in _OF_ARRAYS_TOO and given.get(word) is not None]
        if texts or not words:
            return texts
        raise InputError(
            f"{words[0]}={shown(given[words[0]])} says something of a table, and X is {_called(X)}; give X as a "
            "DataFrame, an Arrow table, a Dataset, a dict of columns or the path of a file"
        )
    if kind not in ("pandas", "polars") or any(given.get(word) is not None for word in OF_TABLES):
        return True
    if any(isinstance(given.get(word), str) for word in NAMES_A_COLUMN.keys() - {"ids"}):
        return True
    if _has_numbers_as_headers(X) and any(_is_whole(given.get(word)) for word in NAMES_A_COLUMN.keys() - {"ids"}):
        return True
    # A table of earlier picks is read by the names of its columns too.
    if any(frame_kind(given.get(word)) is not None for word in NAMES_ROWS):
        return True
    quotas = given.get("quotas")
    if isinstance(quotas, Mapping) and given.get("groups") is None and given.get("group") is None:
        return True
    return not _is_numeric(X)


def with_names_as_text(X: Any, words: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a call, in which a column whose header is a whole number is named by its text, as tables know it.

    >>> with_names_as_text({0: ["a"], 1: [2]}, {"text": 0, "costs": 1, "k": 1})
    {'text': '0', 'costs': '1', 'k': 1}
    """
    if not _has_numbers_as_headers(X):
        return dict(words)
    named = {word: _as_text(words[word]) for word in _NAME_COLUMNS if word in words}
    # Here a list holds the values themselves.
    named |= {word: str(words[word]) for word in NAMES_A_COLUMN if _is_whole(words.get(word))}
    keyed = {
        word: {_as_text(name): value for name, value in words[word].items()}
        for word in _BY_COLUMN
        if isinstance(words.get(word), Mapping) and (word == "each" or _of_columns(words[word]))
    }
    return {**words, **named, **keyed}


def _of_columns(quotas: Mapping[Any, Any]) -> bool:
    """Whether quotas name columns, and not the groups of one."""
    return all(isinstance(ends, Mapping) for ends in quotas.values())


def _as_text(value: Any) -> Any:
    """A whole number as text, or those in a list or a tuple of names; other values as they are."""
    if isinstance(value, list | tuple) and all(isinstance(part, str | tuple) or _is_whole(part) for part in value):
        return type(value)(_as_text(part) for part in value)
    return str(value) if _is_whole(value) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _has_numbers_as_headers(X: Any) -> bool:
    names = X if isinstance(X, Mapping) else X.columns if frame_kind(X) == "pandas" else ()
    return any(map(_is_whole, names))


def _called(X: Any) -> str:
    return "not given" if X is None else f"a {type(X).__name__}"


def _is_numeric(frame: Any) -> bool:
    """Whether all columns of a pandas or polars frame hold numbers; one of vectors alone is as good."""
    kinds = list(frame.dtypes)
    if len(kinds) == 1 and getattr(kinds[0], "inner", None) is not None:
        return True
    return all(map(_is_number, kinds))


def _is_number(kind: Any) -> bool:
    """Whether a type of pandas or polars holds numbers."""
    if hasattr(kind, "is_numeric"):
        return bool(kind.is_numeric() or str(kind) == "Boolean")
    return getattr(kind, "kind", "O") in "iufb"
