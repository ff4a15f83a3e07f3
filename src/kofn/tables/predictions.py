"""Predictions of models in files and tables: one member a file, or a table with a column a model (and a class)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError, load_arrays
from kofn.core.checks.kinds import frame_kind
from kofn.core.lazy import polars as pl
from kofn.io.frames import FrameTable
from kofn.io.opening import open_table
from kofn.io.reading import Reading, suffix_of
from kofn.io.tables import Table
from kofn.tables.asked import reading_of
from kofn.tables.class_answers import as_named, grouped_by_class
from kofn.tables.class_ballots import classes_voted, voting
from kofn.tables.class_columns import as_answers, beside_classes
from kofn.tables.draws import SEVERAL_ARCHIVES
from kofn.tables.prediction_columns import refuse_features
from kofn.tables.read import ARRAYS
from kofn.tables.same_rows import in_order_of, refuse_keys, refuse_other_answers, refuse_other_rows
from kofn.tables.scores import is_scores, scores_with_gaps
from kofn.tables.spelling import speaking_python
from kofn.tables.unlike import as_typed, listed


@dataclass(frozen=True)
class Predictions:
    """What models predicted.

    Attributes:
        names: what the members are called.
        members: (n,) or (n, c) arrays, NaN where there is no prediction.
        y: the answers, where a column of the table holds them.
        ids: (n,) the rows' keys, where a column holds them.
        id_name: that column.
        columns: what the columns of a member stand for, where the file says it.
        source_columns: the table's columns that the members were made of, member by member.
        groups: (n,) what weights may vary over, where a column holds it.
        features: (n, d) what rows are compared by, where columns hold it.
        left_out: columns of numbers that are called after no class, beside probabilities of all classes.
    """

    names: tuple[str, ...]
    members: list[Array]
    y: Array | None = None
    ids: Array | None = None
    id_name: str | None = None
    columns: tuple[str, ...] | None = None
    source_columns: tuple[str, ...] = ()
    groups: Array | None = None
    features: Array | None = None
    left_out: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.members[0])


def read_predictions(
    paths: Sequence[str],
    reading: Reading,
    *,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    features: Sequence[str] | None = None,
    classes: Sequence[Any] | None = None,
    voted: Sequence[Any] | None = None,
) -> Predictions:
    """What the files hold: arrays, one a member (or one with a column each), or tables.

    Args:
        paths: .npy and .npz files, or tables; one table has a column a model (and class), of several each is a member.
        reading: how tables of text are read.
        label: the column of answers, of one of the tables.
        columns: the columns of predictions, by default every numeric one that is neither label nor id.
        id_column: the column of keys, by which the rows of several tables are matched.
        group_column: the column of what weights may vary over; of several tables, of the first that has it.
        features: the columns of what rows are compared by; of several tables, of the first that has the first of them.
        classes: all classes, where they are named; columns are called after them.
        voted: the classes that columns of text vote for, where no column holds the answers.

    Raises:
        InputError: files of both kinds, or that do not fit together.
    """
    kinds = {suffix_of(Path(path)) in ARRAYS for path in paths}
    if kinds == {True}:
        named = {"--label": label, "--id": id_column, "--columns": columns, "--group": group_column}
        named |= {"--feature-columns": features}
        typed = next((flag for flag, value in named.items() if value is not None), None)
        if typed is not None:
            raise InputError(f"{typed} names a column, arrays have none; give --label a file of one answer a row")
        arrays = _of_arrays(paths)
        _refuse_infinite(paths, arrays)
        return arrays
    if kinds != {False}:
        raise InputError("give arrays or tables of predictions, not both; save one kind as the other")
    tables = [open_table(path, reading) for path in paths]
    holder = next((table for table in tables if group_column is not None and group_column in table.columns), tables[0])
    groups = None if group_column is None else holder.labels(holder.require(group_column))
    others = {name for name in (label, id_column, group_column) if name is not None}
    compared = _features(tables, features)
    others |= set(features or ())
    if len(tables) == 1:
        y = None if label is None else answers_of(tables[0], label)
        read = of_table(
            tables[0],
            y=y,
            columns=columns,
            id_column=id_column,
            others=others,
            features=features,
            classes=classes,
            voted=voted,
        )
    else:
        read = _of_tables(tables, label=label, columns=columns, id_column=id_column, others=others)
    _refuse_infinite(paths, read)
    return dataclasses.replace(read, groups=groups, features=compared)


def _refuse_infinite(paths: Sequence[str], read: Predictions) -> None:
    """Refuse an infinite prediction, naming its file."""
    for number, member in enumerate(read.members):
        values = np.asarray(member)
        if values.dtype.kind == "f" and np.isinf(values).any():
            path = paths[number] if len(paths) == len(read.members) else paths[0]
            row = int(np.argwhere(np.isinf(values))[0][0])
            raise InputError(
                f"{path}: member {read.names[number]!r} at row {row} is infinite; leave it empty (NaN) where it has no "
                "prediction"
            )


def _features(tables: Sequence[Table], names: Sequence[str] | None) -> Array | None:
    """(n, d) the columns that rows are compared by."""
    if not names:
        return None
    holder = next((table for table in tables if names[0] in table.columns), tables[0])
    return np.stack([holder.numbers(holder.require(name)) for name in names], axis=1)


def read_answers(path: str, reading: Reading, ids: Array | None, id_name: str | None) -> Array:
    """The answers of a file: an array, or a table of one column beside the ids, by which its rows are matched."""
    if suffix_of(Path(path)) in ARRAYS:
        answers = load_arrays(path)
        if isinstance(answers, Mapping):
            if len(answers) != 1:
                raise InputError(f"--label {path} holds {len(answers)} arrays; give one, or an .npy file")
            answers = next(iter(answers.values()))
        return np.asarray(answers).reshape(len(answers)) if answers.ndim == 2 and answers.shape[1] == 1 else answers
    table = open_table(path, reading)
    others = [name for name in table.columns if name != id_name]
    if len(others) != 1:
        raise InputError(
            f"--label {path} has {len(others)} columns ({', '.join(others[:4])}); keep the one of the answers"
            + ("" if id_name is not None else ", and the ids' with --id")
        )
    answers = answers_of(table, others[0])
    if ids is None or id_name is None or id_name not in table.columns:
        return answers
    return answers[_positions(table.ids(id_name), ids, path)]


def of_table(
    table: Table,
    *,
    y: Array | None,
    columns: Sequence[str] | None,
    id_column: str | None,
    others: Collection[str],
    features: Sequence[str] | None = None,
    classes: Sequence[Any] | None = None,
    voted: Sequence[Any] | None = None,
) -> Predictions:
    """The members of one table: a column each, or one for each class, named as `forest_yes`, `forest_no`; columns in
    `others` are no predictions. Columns of text are members where each cell is a class, as a vote for it."""
    names = list(columns or (name for name in table.columns if name not in others and is_scores(table, name)))
    known = voted if voted is not None else None if y is None else classes or np.unique(y).tolist()
    if known is None and (columns is not None or not names):
        known = _voted_in(table, columns, others, classes)
    ballots = _ballots(table, [name for name in columns or table.columns if name not in others], known)
    if columns is None and y is not None and len(ballots) > 1:
        _refuse_beside_votes(table, names, list(ballots))
    ids = None if id_column is None else table.ids(id_column)
    if ballots and ((columns is None and not names) or set(ballots) == set(names)):
        return Predictions(tuple(ballots), list(ballots.values()), y, ids, id_column, None, tuple(ballots))
    if not names:
        raise InputError(
            f"{table.path} has no numeric columns to take as predictions, and none of text whose cells are all classes "
            "of the answers; name them with --columns"
        )
    values = {name: scores_with_gaps(table, name) for name in names}
    if y is not None:
        y = as_named(y, classes)
    left_out: list[str] = []
    if columns is None and y is not None:
        left_out = beside_classes(values, y, classes)
        values = {name: column for name, column in values.items() if name not in left_out}
        refuse_features(values, y, id_column, features)
    grouped = None if y is None else grouped_by_class(values, y, classes)
    if grouped is None:
        return Predictions(tuple(names), [values[name] for name in names], y, ids, id_column, None, tuple(names))
    return dataclasses.replace(_grouped(values, *grouped, y, ids, id_column), left_out=tuple(left_out))


def _voted_in(
    table: Table, columns: Sequence[str] | None, others: Collection[str], classes: Sequence[Any] | None
) -> Sequence[Any] | None:
    """The classes that columns of text vote for, where no answers are known; None where none votes."""
    texts = [name for name in columns or table.columns if name not in others and table.dtype(name) == "text"]
    cells = {name: table.column(name).cast(pl.String).to_list() for name in texts if not is_scores(table, name)}
    votes = voting(cells, named=columns is not None)
    if classes is not None or not votes:
        return classes if votes else None
    return classes_voted([np.array([cell or None for cell in cells[name]], object) for name in votes])


def _ballots(table: Table, names: Sequence[str], classes: Sequence[Any] | None) -> dict[str, Array]:
    """The columns of text whose cells are classes, None where one is empty.

    Raises:
        InputError: a few cells of such a column are no classes.
    """
    known = set(map(str, classes or ()))
    ballots = {}
    for name in names if known else ():
        if table.dtype(name) != "text" or is_scores(table, name):
            continue
        cells = table.column(name).cast(pl.String).to_list()
        filled = [cell for cell in cells if cell]
        if not filled or 2 * sum(cell in known for cell in filled) < len(filled):
            continue
        strange = next((row for row, cell in enumerate(cells) if cell and cell not in known), None)
        if strange is not None:
            raise InputError(
                f"{table.path} column {name!r} at row {strange} is {cells[strange]!r}, which is no class of the "
                f"answers ({listed(sorted(known))}); correct it, name all classes with --classes, or the columns of "
                "predictions with --columns"
            )
        ballots[name] = np.array([cell or None for cell in cells], object)
    return ballots


def _refuse_beside_votes(table: Table, numbers: Sequence[str], votes: Sequence[str]) -> None:
    """Refuse columns of numbers that are no probabilities beside columns that vote for classes."""
    from kofn.combination.ensembles._task import are_chances

    values = {name: scores_with_gaps(table, name) for name in numbers}
    odd = [name for name, column in values.items() if not are_chances(column.reshape(-1, 1))]
    if odd:
        raise InputError(
            f"columns {listed(votes)} name classes, {listed(odd)} {'is' if len(odd) == 1 else 'are'} no probability; "
            f"for the votes say --columns {as_typed(*votes)}"
        )


def _grouped(
    values: Mapping[str, Array],
    stems: Mapping[str, Sequence[str]],
    classes: tuple[str, ...],
    y: Array | None,
    ids: Array | None,
    id_name: str | None,
) -> Predictions:
    """Members of a column a class."""
    members = [np.stack([values[name] for name in names], axis=1) for names in stems.values()]
    columns = tuple(name for names in stems.values() for name in names)
    return Predictions(tuple(stems), members, y, ids, id_name, classes, columns)


def answers_of(table: Table, label: str) -> Array:
    """A column of answers: numbers as numbers, else names of classes, as keys of which none fits in 64 bits are."""
    if table.dtype(label) == "text":
        numbers = table.reading.numbers(table.column(label))
        if numbers.dtype == pl.Int128 and not numbers.is_between(-(2**63), 2**63 - 1).any():
            return table.labels(label)
    return table.numbers(label) if is_scores(table, label) else table.labels(label)


def _of_arrays(paths: Sequence[str]) -> Predictions:
    if len(paths) > 1 and any(suffix_of(Path(path)) == ".npz" for path in paths):
        raise InputError(SEVERAL_ARCHIVES)
    loaded = [load_arrays(path) for path in paths]
    if isinstance(loaded[0], Mapping):
        return Predictions(tuple(loaded[0]), [np.asarray(array) for array in loaded[0].values()])
    if len(loaded) > 1:
        return Predictions(_short(paths), loaded)
    array = loaded[0]
    if array.ndim == 3:
        return Predictions(tuple(str(member) for member in range(len(array))), list(array))
    if array.ndim != 2:
        raise InputError(f"{paths[0]} has shape {array.shape}, one member; give several files, or a column a member")
    return Predictions(tuple(str(column) for column in range(array.shape[1])), list(array.T))


def _of_tables(
    tables: Sequence[Table],
    *,
    label: str | None,
    columns: Sequence[str] | None,
    id_column: str | None,
    others: Collection[str],
) -> Predictions:
    """Members of one table each: their numeric columns, in one order, rows matched by id."""
    holder = next((table for table in tables if label is not None and label in table.columns), None)
    if label is not None and holder is None:
        raise InputError(
            f"--label {label!r}: none of the {len(tables)} tables has such a column, and no file is called so"
        )
    base = holder or tables[0]
    ids = None if id_column is None else base.ids(base.require(id_column))
    if ids is not None and id_column is not None and holder is None and len(others) == 1:
        # No table has what goes with the rows, so any of them may add some.
        keys = [key for table in tables for key in table.ids(table.require(id_column)).tolist()]
        ids = np.array(list(dict.fromkeys(keys)))
    y = None if holder is None or label is None else answers_of(holder, label)
    members: list[Array] = []
    named = [
        list(columns or (name for name in table.columns if name not in others and is_scores(table, name)))
        for table in tables
    ]
    if ids is None:
        if columns is None:
            refuse_keys(tables[0], named[0])
        refuse_other_rows(tables, named, label)
    if label is not None:
        refuse_other_answers(tables, label, id_column)
    order = named[0]
    for table, names in zip(tables, named, strict=True):
        if not names:
            raise InputError(f"{table.path} has no numeric column of predictions; name it with --columns")
        names = in_order_of(names, order, str(table.path), str(tables[0].path))
        values = np.stack([scores_with_gaps(table, name) for name in names], axis=1)
        values = values[:, 0] if len(names) == 1 else values
        if ids is None and len(values) != base.n:
            raise InputError(f"{table.path} has {len(values)} rows, {base.path} {base.n}; match them by --id COL")
        if ids is not None and id_column is not None:
            values = _matched(values, table.ids(table.require(id_column)), ids, str(table.path))
        members.append(values)
    stems = _short([str(table.path) for table in tables])
    return Predictions(stems, members, y, ids, id_column, tuple(order) if len(order) > 1 else None)


def _matched(values: Array, keys: Array, ids: Array, path: str) -> Array:
    """The rows of a member in the order of the ids, NaN for an id that it has no prediction of."""
    row = _row_of(keys, path)
    strange = next((key for key in row if key not in set(ids.tolist())), None)
    if strange is not None:
        raise InputError(f"{path} has a prediction of {strange!r}, which is no id of the first table; take it out")
    out = np.full((len(ids), *values.shape[1:]), np.nan)
    for position, key in enumerate(ids.tolist()):
        if key in row:
            out[position] = values[row[key]]
    return out


def _positions(keys: Array, ids: Array, path: str) -> Array:
    row = _row_of(keys, path)
    missing = next((key for key in ids.tolist() if key not in row), None)
    if missing is not None:
        raise InputError(f"{path} has no answer of {missing!r}; give one, or take the row out of the predictions")
    return np.array([row[key] for key in ids.tolist()], np.int64)


def _row_of(keys: Array, path: str) -> dict[Any, int]:
    row = {key: position for position, key in enumerate(keys.tolist())}
    if len(row) < len(keys):
        twice = next(key for position, key in enumerate(keys.tolist()) if row[key] != position)
        raise InputError(f"{path} has the id {twice!r} twice; average its predictions, or keep one")
    return row


def _short(paths: Sequence[str]) -> tuple[str, ...]:
    """The files' names without what all of them begin and end with."""
    stems = [Path(path).name.partition(".")[0] for path in paths]
    if len(set(stems)) < len(stems):
        return tuple(map(str, paths))
    before, after = _shared(stems), _shared([stem[::-1] for stem in stems])
    # Numbers keep all their digits, and words what they begin with.
    while before and any(stem[before - 1].isalnum() for stem in stems):
        before -= 1
    while after and any(stem[len(stem) - after].isalnum() for stem in stems):
        after -= 1
    short = [stem[before : len(stem) - after] for stem in stems]
    return tuple(short if all(short) and len(set(short)) == len(short) else stems)


def _shared(stems: Sequence[str]) -> int:
    """With how many characters all of them begin alike."""
    columns = zip(*stems, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def asks_for_a_blend(given: Mapping[str, Any]) -> bool:
    """Whether `members` is a table of predictions, whose answers are `y`."""
    return given.get("y") is not None and frame_kind(given.get("members")) is not None


def blend(run: Callable[..., Any], method: Any, options: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """The blend of a table's columns of predictions, as for the command; members are called as their columns.

    Raises:
        InputError: a table that cannot be read, or without columns of predictions.
    """
    return speaking_python(lambda: _blended(run, method, options, dict(given)))


def _blended(run: Callable[..., Any], method: Any, options: Mapping[str, Any], words: dict[str, Any]) -> Any:
    source, columns, y = words.pop("members"), words.pop("columns", None), words.pop("y")
    if method == "weighted_mean":
        # Of predictions beside their answers it is judged by them, as other blends are.
        from kofn.combination.ensembles._plan import weighted_mean as method
    if isinstance(source, Mapping) and any(np.ndim(member) == 2 for member in source.values()):
        return run(method=method, options=dict(options), members=list(source.values()), y=y, ids=list(source), **words)
    reading = reading_of(words)
    with checks.reading("members", source):
        table: Table = open_table(source, reading) if frame_kind(source) == "file" else FrameTable(source, reading, {})
    if isinstance(table, FrameTable):
        table.path = Path("members")
    classes = words.get("classes", options.get("classes"))
    named = None if columns is None else table.named((columns,) if isinstance(columns, str) else tuple(columns))
    label = table.require(y) if isinstance(y, str) else None
    keys = words.pop("ids", None)
    id_column = table.require(keys) if isinstance(keys, str) else None
    if isinstance(words.get("groups"), str):
        group_column = table.require(words["groups"])
        words["groups"] = table.labels(group_column)
    else:
        group_column = None
    others = {name for name in (label, id_column, group_column) if name is not None}
    answers = checks.labels(y, "y") if label is None else answers_of(table, label)
    read = of_table(table, y=answers, columns=named, id_column=id_column, others=others, classes=classes)
    unseen = read.columns is not None and len(read.columns) > len(np.unique(answers))
    if unseen and read.columns is not None and classes is None:
        words["classes"] = as_answers(read.columns, answers)
    return run(method=method, options=dict(options), members=read.members, y=read.y, ids=read.names, **words)


def of_classes_in(read: Predictions, y: Array, classes: Sequence[Any] | None = None) -> Predictions:
    """The same with answers from elsewhere, by whose classes the columns are told apart."""
    values = dict(zip(read.names, read.members, strict=True))
    grouped = grouped_by_class(values, y, classes)
    if grouped is None:
        return dataclasses.replace(read, y=y)
    return _grouped(values, *grouped, y, read.ids, read.id_name)
