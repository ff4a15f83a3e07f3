"""What `kofn allocate` reads of items that have no curves: one number each, and the columns that belong to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kofn.cli.arguments import NUMBER, flag
from kofn.cli.verb_command import Section
from kofn.core.checks import InputError
from kofn.core.plans import Allocation
from kofn.io.tables import Table

if TYPE_CHECKING:
    from kofn.cli.allocate import AllocateArguments

ITEMS = Section(
    "What is known of items without curves",
    (
        flag(
            "--score",
            "score_column",
            metavar="COL",
            help="In place of curves, a column of one number an item, such as success rates (-m rollout_knapsack, "
            "difficulty_aware_trials) or sensitivities (-m reverse_water_filling).",
        ),
        flag("--cost", "--costs", "cost_column", metavar="COL", help="Column of what one unit of each item costs."),
        flag("--weight", "--weights", "weight_column", metavar="COL", help="Column of how much each item counts."),
        flag("--least", type=NUMBER, help="The least that each item gets, for methods that take bounds."),
        flag("--most", type=NUMBER, help="The most that each item gets, likewise."),
    ),
)
# Numbers of `info` that stand beside the plan's value, and what they are called.
_BESIDE = {
    "uniform": "the same for all",
    "equal": "equal amounts",
    "proportional": "in proportion to the weights",
    "start_value": "where the search began",
}


def words_of(table: Table, arguments: AllocateArguments) -> dict[str, Any]:
    """The words of the call that name columns, or an end of the bounds."""
    columns = {"scores": arguments.score_column, "costs": arguments.cost_column, "weights": arguments.weight_column}
    words: dict[str, Any] = {word: table.numbers(column) for word, column in columns.items() if column is not None}
    if arguments.least is not None or arguments.most is not None:
        words["bounds"] = (arguments.least, arguments.most)
    return words


def refuse_without_a_method(arguments: AllocateArguments) -> None:
    """A column of scores alone does not say what they are.

    Raises:
        InputError: no method is named.
    """
    if arguments.entry is None:
        raise InputError(
            "--score holds one number an item, and what it means is the method's: -m rollout_knapsack or "
            "difficulty_aware_trials for success rates, -m reverse_water_filling for sensitivities"
        )


def with_columns(table: Table, arguments: AllocateArguments) -> dict[str, Any]:
    """The method's own options, each that holds a number for every item read from the column that is typed."""
    options = dict(arguments.options)
    kinds = {} if arguments.entry is None else arguments.entry.types
    for name, value in options.items():
        if isinstance(value, str) and kinds.get(name, "").startswith("ArrayLike"):
            options[name] = table.numbers(table.require(value))
    return options


def beside(plan: Allocation) -> list[str]:
    """What simpler answers are worth by the same measure, in lines."""
    known = {text: plan.info[name] for name, text in _BESIDE.items() if name in plan.info}
    others = [f"{text}: {value:.6g}" for text, value in known.items() if np.ndim(value) == 0]
    return [f"value of {', '.join(others)}"] if others else []
