"""`kofn allocate`: a table of curves in, amounts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray

from kofn.cli import allocate_items
from kofn.cli import arguments as words
from kofn.cli.arguments import NUMBER, NUMBERS, flag
from kofn.cli.estimate import say_beforehand
from kofn.cli.printing import say
from kofn.cli.verb_command import Section, VerbCommand
from kofn.cli.write import check_outputs, finish
from kofn.core.checks import InputError, forbidden_levels
from kofn.core.plans import Allocation
from kofn.io.tables import Table
from kofn.tables.arguments import VerbArguments
from kofn.tables.levels import amount_of, has_digits, refuse_no_levels
from kofn.tables.read import is_blank, is_scores, score_column
from kofn.verbs import allocate

# How many columns of levels are named in one line.
_SHOWN = 12
# What an empty cell of a curve says.
_NO_LEVEL = "the item may not have this level"

CURVES = Section(
    "What the curves are",
    (
        words.columns(
            "Columns that hold the curve, level by level; default every numeric one. Empty, or inf (-inf with --sense "
            "max): the item may not have that level."
        ),
        words.ID,
        flag("--size", "--sizes", "size_column", metavar="COL", help="Column of sizes: level l costs size * level."),
        flag(
            "--levels",
            metavar="A,B",
            type=NUMBERS,
            help="Amounts of the levels, one a column; default their names, or 0,1,2,..",
        ),
        flag("--sense", metavar="NAME", help="min (default): the curves are losses; max: they are values."),
    ),
)
BUDGET = Section(
    "What may be spent",
    (
        flag("--budget", type=NUMBER, help="What all items together may cost."),
        flag("--mean-budget", type=float, help="Instead: the total over the summed sizes, such as 4 bits a weight."),
    ),
)
ANSWER = words.method_section("Where the amounts go: id, amount, value, marginal_up, marginal_down.")


@dataclass(frozen=True, kw_only=True)
class AllocateArguments(VerbArguments):
    """What `kofn allocate` was asked."""

    VERB: ClassVar[str] = "allocate"
    OPTIONS: ClassVar[tuple[str, ...]] = ("levels", "sense", "mean_budget")

    columns: tuple[str, ...] | None
    id_column: str | None
    size_column: str | None
    levels: list[float] | None
    sense: str | None
    budget: float | None
    mean_budget: float | None
    score_column: str | None = None
    cost_column: str | None = None
    weight_column: str | None = None
    least: float | None = None
    most: float | None = None


@click.command(
    "allocate",
    cls=VerbCommand,
    verb="allocate",
    sections=(CURVES, allocate_items.ITEMS, BUDGET, *ANSWER),
    short_help="Share.",
)
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(typed: Sequence[str], file: str, **values: Any) -> None:
    """Share a budget over the items of FILE, one row an item and one column a level.

    \b
    kofn allocate curves.csv --id layer --size params --levels 2,3,4,8 --mean-budget 4 -o bits.csv
    kofn allocate prompts.csv --id prompt --score pass_rate -m rollout_knapsack --budget 8000 -o rollouts.csv
    """
    arguments = AllocateArguments.of(typed, values)
    check_outputs(arguments, [file])
    table = Table.open(file, arguments.reading)
    arguments = arguments.named_in(table)
    curves = None
    call = arguments.given("budget") | allocate_items.words_of(table, arguments)
    if arguments.score_column is None:
        curves = read_curves(table, arguments)
        call["curves"] = curves.values
    else:
        allocate_items.refuse_without_a_method(arguments)
    if arguments.id_column:
        call["ids"] = table.ids(arguments.id_column)
    if curves is not None and curves.values.ndim == 2:
        # Here the item is known by its name; what else is wrong, the method says.
        forbidden_levels(curves.values, arguments.sense or "min", call.get("ids"))
    options = allocate_items.with_columns(table, arguments)
    if arguments.levels:
        options["levels"] = [int(level) if level.is_integer() else level for level in arguments.levels]
    elif curves is not None and curves.levels is not None:
        options["levels"] = curves.levels
    if arguments.size_column:
        options["sizes"] = table.numbers(arguments.size_column)
    if arguments.dry_run:
        say_beforehand("allocate", arguments.method, options, call, arguments.as_json)
        return
    plan = allocate(method=arguments.method, options=options, **call)
    finish(plan, arguments, lambda: plan.to_frame().drop("index"))
    for warning in plan.info.get("warnings", ()):
        click.echo(f"warning: {warning.replace('sense=', '--sense ').replace(chr(39), '')}", err=True)
    say(answer(plan, arguments), lambda: render(plan, arguments, curves), arguments.as_json)


class Curves(NamedTuple):
    """What was read of the file.

    Attributes:
        values: (n, levels).
        columns: the level columns' names; one, where it holds vectors.
        levels: the amounts that the columns' names say; None where they are no numbers.
    """

    values: NDArray[Any]
    columns: tuple[str, ...]
    levels: list[float] | None = None


def read_curves(table: Table, arguments: AllocateArguments) -> Curves:
    """The columns that are named, or else every column of numbers, or the one column of vectors.

    Columns whose names are numbers are levels of that amount, and come in their order. A column of text that is mostly
    numbers is among them, so that what is none there is refused, and so is one without any value that is named as
    levels are.

    Raises:
        InputError: no such column, or one of numbers whose name is not like those of the levels.
    """
    names = arguments.columns or tuple(
        name for name in table.columns if name not in _of_items(arguments) and _is_level(table, name)
    )
    if arguments.columns is None and arguments.levels:
        column_of = {amount_of(name): name for name in names}
        # Levels that name columns are those columns.
        if set(arguments.levels) <= column_of.keys():
            names = tuple(column_of[level] for level in arguments.levels)
            return Curves(_side_by_side(table, names, arguments), names)
    if not names:
        raise InputError(f"{table.path} has no numeric columns to take as a curve; name them with --columns")
    if len(names) == 1 and table.dtype(names[0]) == "vector":
        return Curves(table.vectors(names[0], finite=False), names)
    if arguments.columns is None:
        refuse_no_levels(str(table.path), names, "--size {}", "--columns {}")
    amounts = {name: amount for name in names if (amount := amount_of(name)) is not None}
    if arguments.levels or len(amounts) < len(names):
        return Curves(_side_by_side(table, names, arguments), names)
    names = tuple(sorted(names, key=lambda name: amounts[name]))
    return Curves(_side_by_side(table, names, arguments), names, [amounts[name] for name in names])


def _of_items(arguments: AllocateArguments) -> set[str | None]:
    """The columns that hold something else than curves."""
    own = arguments.options.values()
    known = {arguments.id_column, arguments.size_column, arguments.cost_column, arguments.weight_column}
    return known | {value for value in own if isinstance(value, str)}


def _is_level(table: Table, name: str) -> bool:
    kind = table.dtype(name)
    return kind in ("number", "vector") or (
        kind == "text" and (is_scores(table, name) or (has_digits(name) and is_blank(table, name)))
    )


def _side_by_side(table: Table, names: Sequence[str], arguments: AllocateArguments) -> NDArray[Any]:
    """(n, levels) the columns, infinitely bad where a cell is empty."""
    worst = -math.inf if arguments.sense == "max" else math.inf
    return np.stack([score_column(table, name, worst, _NO_LEVEL) for name in names], axis=1)


def answer(plan: Allocation, arguments: AllocateArguments) -> dict[str, Any]:
    """The answer for machines."""
    return {
        "method": plan.method,
        "items": plan.n,
        "value": plan.value,
        "sense": plan.sense,
        "bound": plan.bound,
        "status": plan.status,
        "used": plan.used.get("budget"),
        "budget": plan.budget.get("budget"),
        "price": plan.price,
        "seconds": plan.info["seconds"],
        "output": arguments.output,
        "report": arguments.report,
        "warnings": plan.info.get("warnings", []),
        "amounts": plan.amounts,
    }


def _levels(arguments: AllocateArguments, curves: Curves) -> str:
    """Which columns are the levels, and what each costs."""
    if curves.levels is not None:
        return f"levels by the names of the columns: {', '.join(curves.columns)}"
    shown = [*curves.columns[:_SHOWN], *(["..."] if len(curves.columns) > _SHOWN else [])]
    amounts = "of --levels" if arguments.levels else "0, 1, 2, .. (--levels A,B gives other amounts)"
    return f"levels {amounts}: column{'s' if len(shown) > 1 else ''} {', '.join(shown)}"


def render(plan: Allocation, arguments: AllocateArguments, curves: Curves | None) -> str:
    """The answer for people."""
    used, budget = plan.used.get("budget"), plan.budget.get("budget")
    lines = [f"{plan.method}: {plan.n} items, value {plan.value:.6g} ({plan.status}), used {used:,} of {budget:,}"]
    lines += allocate_items.beside(plan)
    if curves is not None:
        lines.append(_levels(arguments, curves))
    if plan.price is not None:
        lines.append(f"price: one more unit of budget is worth about {plan.price:.4g}")
    if arguments.output:
        lines.append(f"amounts -> {arguments.output}")
    else:
        keys = plan.keys(np.arange(plan.n)).tolist()
        lines += [f"  {key}: {amount}" for key, amount in list(zip(keys, plan.amounts.tolist(), strict=True))[:10]]
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
