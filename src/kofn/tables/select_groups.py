"""The groups of a table's rows, of columns or of cells of several, and how many picks each is asked for."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.plans import Selection
from kofn.tables.read import Pool
from kofn.tables.select_arguments import SelectArguments

# How many groups are named in one line.
_NAMED = 12


class _Joined(NamedTuple):
    """Groups and quotas, cells of several columns as a column more, and what each column that has quotas is called."""

    groups: dict[Any, Any]
    quotas: dict[Any, Any]
    names: dict[Any, Any]


def groups_of(pool: Pool, arguments: SelectArguments) -> dict[str, NDArray[Any]]:
    """The labels of each column of groups, and of the cells of several that have quotas."""
    return _joined(pool, arguments).groups


def column_names(pool: Pool, arguments: SelectArguments) -> dict[Any, Any]:
    """What each column that has quotas is called; cells are named by a tuple of columns and called by a text."""
    return _joined(pool, arguments).names


def _joined(pool: Pool, arguments: SelectArguments) -> _Joined:
    groups: Any = pool.values.get("groups")
    groups = groups if isinstance(groups, dict) else dict.fromkeys(arguments.groupings, groups)
    # --proportional and --each name no group, so that their cells have no quotas yet.
    asked = {column: arguments.quotas.get(column, {}) for column in arguments.quota_columns}
    labels, quotas = checks.joined(groups, asked)
    names = dict(zip(asked, quotas, strict=True))
    return _Joined(labels, {names[column]: quotas[names[column]] for column in arguments.quotas}, names)


def quotas_of(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """{column: {group: (least, most)}}, those of `--proportional` as shares of the pool."""
    groups, quotas, names = _joined(pool, arguments)
    for column in arguments.proportional:
        if arguments.k is None or arguments.budget is not None:
            raise InputError("--proportional shares out a number of picks: give -k, and no --budget")
        labels = groups[names[column]]
        unique, counts = np.unique(labels, return_counts=True)
        shares = [Fraction(count, len(labels)) for count in counts.tolist()]
        quotas[names[column]] = {name: (share, share) for name, share in zip(unique.tolist(), shares, strict=True)}
    for column, most in arguments.each.items():
        unique, counts = np.unique(groups[names[column]], return_counts=True)
        counts = np.minimum(counts, most)
        quotas[names[column]] = {name: (n, n) for name, n in zip(unique.tolist(), counts.tolist(), strict=True)}
    return quotas


def without_picks(plan: Selection, pool: Pool, arguments: SelectArguments) -> list[str]:
    """A line for each column of --proportional of which some groups are too small for a pick, with their names."""
    if not arguments.proportional or not isinstance(arguments.k, int):
        return []
    groups, names, lines = groups_of(pool, arguments), column_names(pool, arguments), []
    for column in (names[typed] for typed in dict.fromkeys(arguments.proportional)):
        labels = groups[column]
        unique, counts = np.unique(labels, return_counts=True)
        none = ~np.isin(unique, labels[plan.indices]) & (counts * arguments.k < len(labels))
        if not none.any():
            continue
        listed = [
            f"{name} ({size:,} {'row' if size == 1 else 'rows'})"
            for name, size in zip(unique[none], counts[none], strict=True)
        ]
        more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
        enough = -(-len(labels) // int(counts.min()))
        lines.append(
            f"proportional {checks.joint_name(column)}: {none.sum():,} of {len(unique):,} groups got no pick, their "
            f"shares being below one: {', '.join(listed[:_NAMED])}{more}; from -k {enough} on every group gets one"
        )
    return lines


def with_count(arguments: SelectArguments, pool: Pool) -> SelectArguments:
    """The arguments with the number of picks that --each asks for, where nothing else says how many.

    Raises:
        InfeasibleError: -k is another number.
    """
    if not arguments.dry_run:  # which may have read the beginning of the file alone
        for column, most in arguments.each.items():
            _refuse_other_count(arguments, column, most, _labels(pool, arguments, column))
    if arguments.k is not None or arguments.budget is not None or len(arguments.each) != 1:
        return arguments
    ((column, most),) = arguments.each.items()
    _, counts = np.unique(_labels(pool, arguments, column), return_counts=True)
    return dataclasses.replace(arguments, k=int(np.minimum(counts, most).sum()))


def _labels(pool: Pool, arguments: SelectArguments, column: Any) -> NDArray[Any]:
    """The group of each row in a column, or the cell of several."""
    labels: NDArray[Any] = groups_of(pool, arguments)[column_names(pool, arguments)[column]]
    return labels


def _refuse_other_count(arguments: SelectArguments, column: Any, most: int, labels: NDArray[Any]) -> None:
    """Refuse a -k that is not the number of rows that --each asks for, or under a budget one that is below it."""
    k, counts = arguments.k, np.unique(labels, return_counts=True)[1]
    total = int(np.minimum(counts, most).sum())
    if k is None or k == total or (k > total and arguments.budget is not None):
        return
    alone = "leave -k out, or " if len(arguments.each) == 1 else ""
    fewer = "" if counts.min() >= most else ", all of those with fewer"
    raise InfeasibleError(
        f"-k {k:,} and --each {checks.joint_name(column)}={most} do not go together: {most} of each of "
        f"{len(counts):,} groups{fewer}, are {total:,} rows; {alone}say -k {total}"
    )


def counted_quotas(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """The same in whole numbers of picks, under the groups' own names; none of a beginning, which may lack a group."""
    if not arguments.quota_columns or arguments.rows_of_whole is not None:
        return {}
    checked = checks.quotas(quotas_of(pool, arguments))
    groups = groups_of(pool, arguments)
    if arguments.has_cells:
        groups = {column: groups[column] for column in checked}
    return checks.resolved(groups, checked, arguments.k, arguments.budget)[1]
