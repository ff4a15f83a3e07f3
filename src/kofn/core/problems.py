"""One checked problem object for each verb: what was asked, checked once, and the audit that a plan must pass."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks, vocabulary
from kofn.core.audits import AUDITS, LINKS
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.digests import digest
from kofn.core.plans import Plan
from kofn.core.pools import Pool, is_pool, whole

INPUTS = ("X", "distances", "similarity", "scores", "curves", "members", "rankings")
# Objectives that never make a sparse X dense: by its entries, and by the cosines of its rows.
_OF_ENTRIES = ("feature_based", "weighted_coverage", "log_determinant")
_OF_COSINES = ("facility_location", "graph_cut", "saturated_coverage")
# The spreads of a table's columns are compared where there are at most so many; a ratio beyond this is said.
_MOST_COLUMNS, _UNLIKE = 1_000, 30.0
# Bytes of a pool's rows that are read into memory without a `max_memory`.
_ROOM = 4 * 2**30
# Options that hold pairs of items.
PAIRS = (*LINKS, "precedence", "exclusions")
_PER_ITEM = ("y", "groups", "costs")
# Rows by which it is told what a table looks like.
_HEAD = 1_000


@dataclass(frozen=True)
class Problem:
    """What one call asked: the checked arguments `given`, the pool size `n`, the user's `ids`, and a digest of it all.

    `at_most_k` is declared by the method (`@method(at_most_k=True)`), never by the plan that is audited.
    """

    verb: str
    n: int
    given: Mapping[str, Any]
    ids: NDArray[Any] | None
    digest: str
    at_most_k: bool = False
    judges: tuple[str, ...] = ()  # the columns' names of a frame of rankings

    def audit(self, plan: Plan) -> list[str]:
        """The hard constraints that the plan breaks, recounted from the arguments alone; empty when it is sound."""
        noun, well_formed, constraints = AUDITS[self.verb]
        if not isinstance(plan, noun):
            return [f"{self.verb} gives a {noun.__name__}, this is a {type(plan).__name__}"]
        breaches = [] if plan.n == self.n else [f"n is {plan.n}, the pool has {self.n}"]
        malformed = well_formed(self, plan)
        if malformed:
            return breaches + malformed
        return breaches + [
            breach for words, check in constraints if self.given.keys() >= set(words) for breach in check(self, plan)
        ]


def build(
    verb: str,
    given: Mapping[str, Any],
    ids: Any = None,
    *,
    at_most_k: bool = False,
    secret: Sequence[str] = (),
    sparse: bool | Literal["any metric"] = False,
    pooled: bool = False,
    cosine: bool = False,
) -> Problem:
    """Check every argument under its vocabulary name, then the arguments against each other.

    The words in `secret` are left out of the digest, from which a reader could otherwise guess them. `sparse`: the
    method compares SciPy-sparse rows by their cosines, or by "any metric"; `pooled`: it reads a `Pool` in fragments;
    `cosine`: it has no other measure.
    """
    given, ids = with_frame_ids(given, ids)
    if is_pool(given.get("X")) and not pooled:
        given = {**given, "X": _rows_of(given["X"], given.get("max_memory"))}
    checked: dict[str, Any] = {}
    late = {"include", "exclude", "start"}
    for name, value in given.items():
        if name == "weights" and verb == "combine":
            checked[name] = vocabulary.readable(name, value, checks.signed_weights, value)
        elif name == "X" and verb in ("select", "assign") and checks.is_sparse(value):
            compared = sparse == "any metric" or (sparse and (cosine or _by_cosine(given)))
            if not (compared or _reads_entries(given.get("objective"))):
                of_objective = f" (of {', '.join(_OF_COSINES)})" if verb == "select" else ""
                as_is = f", or metric='cosine'{of_objective}, which takes sparse rows as they are"
                raise InputError(f"X is a sparse matrix; give a dense array (X.toarray()){as_is if sparse else ''}")
            checked[name] = vocabulary.readable(name, value, checks.sparse_rows, value)
        elif name == "X" and is_pool(value):
            checked[name] = value
        elif name not in late and name != "costs":
            checked[name] = vocabulary.argument(name, value)
    source = _source_of(checked)
    if source is None:
        raise InputError(f"nothing to {verb} from: give one of {', '.join(INPUTS)}")
    n = _length(checked[source])
    shape = (n,)
    if verb == "select" and source == "scores" and checked["scores"].ndim == 2:
        # A table of scores is a pool of entries, row by row; elsewhere each row is an item.
        n, shape = checked["scores"].size, checked["scores"].shape
    if verb in ("select", "combine") and checked.get("k", 0) > n:
        k, items = checked["k"], "members" if verb == "combine" else "items"
        alone = ", or leave k out: the budget alone then limits the picks" if "budget" in checked else ""
        raise InfeasibleError(f"k={k} of {n} {items}: there are only {n} to choose from; ask for k <= {n}{alone}")
    measured = verb == "assign" or (verb == "select" and not cosine and not _reads_entries(given.get("objective")))
    if source == "X" and measured and not is_pool(checked["X"]):
        _note_unlike_scales(given["X"], checked["X"])
    if "costs" in given:
        costs = given["costs"]
        checked["costs"] = vocabulary.readable("costs", costs, lambda: checks.costs(checks.spread_costs(costs, shape)))
    # Of `combine` the items are the members; y and groups are of the rows that these predict.
    for name in (*_PER_ITEM, "weights") if verb != "combine" else ("costs",):
        columns = checked.get(name)
        if isinstance(columns, Mapping):
            for column, given_labels in columns.items():
                checks.same_length(n, source, f"{name}[{column!r}]", len(given_labels))
        elif columns is not None:
            checks.same_length(n, source, name, len(columns))
    if len(checked.get("bounds", ())) > 1:
        checks.same_length(n, source, "bounds", len(checked["bounds"]))
    _join_quotas(checked, of_budget=verb == "allocate")
    for name in INPUTS if verb != "combine" else ():
        if name in checked and name != source and name not in ("members", "rankings"):
            checks.same_length(n, source, name, _length(checked[name]))
    if verb == "combine" and "weights" in checked:
        m = len(checked["members"]) if "members" in checked else checked["rankings"].shape[1]
        if len(checked["weights"]) != m:
            raise InputError(f"weights has {len(checked['weights'])} values for {m} members; give one a member")
    keys = None if ids is None else vocabulary.readable("ids", ids, checks.ids, ids)
    if keys is not None:
        checks.same_length(n, source, "ids", len(keys))
    judges = tuple(str(name) for name in getattr(given.get("rankings"), "columns", ()))
    if keys is not None and source == "rankings":
        checks.refuse_wins(
            judges,
            keys.tolist(),
            "for how often the row won over the column, give kofn.combine(**kofn.combination.win_ballots(frame)); if "
            "the columns are judges, call them otherwise",
        )
    for name in late & given.keys():
        checked[name] = vocabulary.readable(name, given[name], checks.positions, given[name], name, n, keys)
    return Problem(
        verb,
        n,
        checked,
        keys,
        digest({"verb": verb, **{name: value for name, value in checked.items() if name not in secret}}),
        at_most_k,
        judges,
    )


def _source_of(given: Mapping[str, Any]) -> str | None:
    """The input that has an item of the pool in each row: the members where X are the rows that they predict."""
    return next((name for name in ("members", *INPUTS) if name in given), None)


def _rows_of(pool: Pool, max_memory: Any) -> NDArray[Any]:
    """All rows of a pool, for a method that reads no fragments.

    Raises:
        InputError: they take more than `max_memory`.
    """
    room = checks.bytes_of(max_memory or _ROOM)
    need = pool.n * pool.width * pool.dtype.itemsize
    if need > room:
        raise InputError(
            f"X is a pool of {pool.n:,} x {pool.width}, which takes {need / 1e9:,.3g} GB in memory, over "
            f"max_memory={room / 1e9:,.3g} GB, and this method reads all rows at once; use method='two_round_greedy', "
            "which reads parts, or raise max_memory"
        )
    return whole(pool)


def _note_unlike_scales(frame: Any, X: Any) -> None:
    """Say where distances between the rows of a table are those of one column: numbers in units that differ widely."""
    names = getattr(frame, "columns", None)
    if names is None or checks.is_sparse(X):
        return
    named = [str(name) for name in names]
    if text := unlike_scales(named, X):
        checks.warn(f"X: {text}; name those to compare with columns={named[:2]}, which scales them")


def unlike_scales(names: Sequence[str], X: Any) -> str | None:
    """That distances between rows (n, d) are those of its widest columns; None where spreads are alike.

    >>> unlike_scales(["age", "income"], np.array([[1.0, 100.0], [2.0, 900.0]]))
    "column 'income' spreads 800 times as widely as 'age', so that distances are those of the wide columns"
    """
    if not 1 < X.shape[1] <= _MOST_COLUMNS:
        return None
    spreads = X.std(axis=0, dtype=np.float64)
    some = np.flatnonzero(spreads > 0)
    if len(some) < 2:
        return None
    wide, narrow = some[spreads[some].argmax()], some[spreads[some].argmin()]
    times = spreads[wide] / spreads[narrow]
    if times <= _UNLIKE:
        return None
    return (
        f"column {names[wide]!r} spreads {times:,.3g} times as widely as {names[narrow]!r}, so that distances are "
        "those of the wide columns"
    )


def pairs_by_row(options: Mapping[str, Any], ids: NDArray[Any] | None) -> dict[str, Any]:
    """The options that hold pairs of ids, as pairs of row numbers; none where rows have no ids.

    Raises:
        InputError: an id that no row has.
    """
    if ids is None:
        return {}
    rows = {}
    for name in PAIRS:
        try:
            links = np.asarray(options.get(name))
        except ValueError:
            continue
        if links.ndim != 2 or links.shape[1] != 2:
            continue  # what is no list of pairs is the method's to refuse
        keys, back = np.unique(links.ravel(), return_inverse=True)
        pairs = checks.positions(keys, name, len(ids), ids)[back].reshape(-1, 2)
        rows[name] = pairs if isinstance(options[name], np.ndarray) else pairs.tolist()
    return rows


def _refuse_names(frame: Any) -> None:
    """A column of text in a frame of scores: it most often names the rows."""
    if named := _refuse_votes(frame):
        raise InputError(
            f"rankings has text in {named[0]!r}; if that names the rows say ids={named[0]!r}, else drop it"
        )


def _refuse_votes(frame: Any) -> list[str]:
    """The columns of text in a frame of scores, whose rows are no votes."""
    if not hasattr(frame, "columns") or not hasattr(frame, "dtypes"):
        return []
    import narwhals

    table = narwhals.from_native(frame, eager_only=True)
    named = [name for name, kind in table.schema.items() if kind in (narwhals.String, narwhals.Categorical)]
    numbers = [name for name, kind in table.schema.items() if kind.is_numeric() or kind == narwhals.Boolean]
    checks.refuse_numbered_votes("rankings", [str(name) for name in numbers])
    if not named:
        return []
    head = {name: table[name].head(_HEAD).cast(narwhals.String).to_list() for name in named}
    cells = {name: table[name].head(_HEAD).to_list() for name in numbers}
    votes = checks.vote_columns(head, table.columns) or checks.numbered_winner(head, cells)
    if votes is not None:
        checks.refuse_uncounted(
            checks.counted_by(votes, [n for n in numbers if table.schema[n].is_numeric() and n != votes.winner])
        )
    checks.refuse_undecided("rankings", head, cells)
    return named


def columns_by_number(options: Mapping[str, Any], judges: Sequence[str]) -> dict[str, Any]:
    """The options that name judges, by the numbers of their columns; none where `rankings` came without names.

    Raises:
        InputError: a judge that is no column.
    """
    named = options.get("lower")
    if isinstance(named, str):
        named = [named]
    if not judges or not isinstance(named, list | tuple) or not all(isinstance(name, str) for name in named):
        return {}
    for name in named:
        if name not in judges:
            raise InputError(f"lower={name!r}: rankings has no such column{checks.nearest(name, judges)}")
    return {"lower": [judges.index(name) for name in named]}


def _reads_entries(objective: Any) -> bool:
    """Whether an objective given as text is built from the entries of a sparse X alone."""
    terms = _terms(objective)
    return bool(terms) and all(term in _OF_ENTRIES for term in terms)


def _terms(objective: Any) -> list[str]:
    """The names of the objectives that are added up in a text."""
    terms = re.sub(r"\([^)]*\)", "", objective).split("+") if isinstance(objective, str) else []
    return [term.split("*")[-1].strip() for term in terms]


def _by_cosine(given: Mapping[str, Any]) -> bool:
    """Whether rows are compared by their cosines, by an objective that takes them so where there is a choice."""
    terms = ["facility_location"] if given.get("objective") is None else _terms(given["objective"])
    readable = bool(terms) and all(term in (*_OF_ENTRIES, *_OF_COSINES) for term in terms)
    return given.get("metric") == "cosine" and readable


def _join_quotas(checked: dict[str, Any], *, of_budget: bool) -> None:
    """Each quota under its group's own name and in whole numbers; several columns of groups only for quotas.

    With `of_budget` shares are of the budget, and stay shares."""
    groups, quotas = checked.get("groups"), checked.get("quotas")
    if groups is not None and quotas is not None:
        checked["groups"], checked["quotas"] = checks.resolved(
            groups, quotas, checked.get("k"), checked.get("budget"), keep_shares=of_budget
        )
    elif isinstance(groups, Mapping):
        raise InputError("groups has columns, which only quotas read; give one group label an item, shape (n,)")


def with_frame_ids(given: Mapping[str, Any], ids: Any) -> tuple[Mapping[str, Any], Any]:
    """Take the ids from the frame that the items came in.

    Where `ids` names a column of the frame, that column is taken out of the frame and becomes the ids. Without `ids`,
    those of a pandas frame or series are its index, if it names rows (all differ, none is missing, not just 0, 1, ...),
    and those of a pool of files are of the column that it was opened with.
    """
    source = _source_of(given) or "X"
    with checks.reading(source, given.get(source), vocabulary.VOCABULARY[source].help):
        return _with_frame_ids(source, given, ids)


def _with_frame_ids(source: str, given: Mapping[str, Any], ids: Any) -> tuple[Mapping[str, Any], Any]:
    if source in given:
        given = {**given, source: checks.collected(given[source])}
    frame: Any = given.get(source)
    if is_pool(frame):
        return given, _ids_of_pool(frame, ids)
    heads = (
        {str(name): name for name in getattr(frame, "columns", ())} if isinstance(ids, str | int | np.integer) else {}
    )
    if isinstance(ids, str) or (isinstance(ids, int | np.integer) and str(ids) in heads):
        ids, columns = str(ids), list(heads)
        if ids not in columns:
            has = f"{source} has no such column{checks.nearest(ids, columns)}" if columns else f"{source} is no table"
            raise InputError(f"ids={checks.shown(ids)}: {has}; name a column of the table, or give one id an item")
        import narwhals

        if source == "rankings":
            _refuse_votes(frame)
        table = narwhals.from_native(frame, eager_only=True)
        # Headers may be whole numbers.
        return {**given, source: table.drop(heads[ids]).to_native()}, table.get_column(heads[ids]).to_numpy()
    if source == "rankings":
        _refuse_names(frame)
    pandas = sys.modules.get("pandas")
    if ids is None and pandas is not None and isinstance(frame, pandas.DataFrame | pandas.Series):
        index = frame.index
        plain = isinstance(index, pandas.MultiIndex) or index.equals(pandas.RangeIndex(len(index)))
        if not plain and len(index) and index.is_unique and not index.hasnans:
            return given, index.to_numpy()
    return given, ids


def _ids_of_pool(pool: Any, ids: Any) -> Any:
    """The ids of a pool's rows: those that are given, or of the column that is named here or was at its opening."""
    if ids is not None and not isinstance(ids, str):
        return ids
    named = getattr(pool, "named_ids", None)
    if named is not None:
        return named(ids)
    if ids is None:
        return None
    raise InputError(
        f"ids={checks.shown(ids)}: X is a {type(pool).__name__}, which has no columns; give one id an item"
    )


def _length(value: Any) -> int:
    if is_pool(value):
        return int(value.n)
    return int(value.shape[0]) if hasattr(value, "shape") else len(value)
