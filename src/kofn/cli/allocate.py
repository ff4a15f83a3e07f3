"""`kofn allocate`: a table of curves in, amounts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import click
import numpy as np

from kofn.cli import arguments as words
from kofn.cli.arguments import NUMBER, NUMBERS, VerbArguments, flag
from kofn.cli.estimate import say_beforehand
from kofn.cli.printing import say
from kofn.cli.verb_command import Section, VerbCommand
from kofn.cli.write import check_outputs, finish
from kofn.core.checks import InputError
from kofn.core.plans import Allocation
from kofn.io.tables import Table
from kofn.verbs import allocate

CURVES = Section(
    "What the curves are",
    (
        words.columns("Columns that hold the curve, level by level; default every numeric one."),
        words.ID,
        flag("--size", "--sizes", "size_column", metavar="COL", help="Column of sizes: level l costs size * level."),
        flag("--levels", metavar="A,B", type=NUMBERS, help="Amounts of the levels, one a column; default 0,1,2,.."),
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


@click.command("allocate", cls=VerbCommand, verb="allocate", sections=(CURVES, BUDGET, *ANSWER), short_help="Share.")
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(typed: Sequence[str], file: str, **values: Any) -> None:
    """Share a budget over the items of FILE, one row an item and one column a level.

    \b
    kofn allocate curves.csv --id layer --size params --levels 2,3,4,8 --mean-budget 4 -o bits.csv
    """
    arguments = AllocateArguments.of(typed, values)
    check_outputs(arguments, [file])
    table = Table.open(file, arguments.reading)
    arguments = arguments.named_in(table)
    call = arguments.given("budget") | {"curves": read_curves(table, arguments)}
    if arguments.id_column:
        call["ids"] = table.ids(arguments.id_column)
    options = arguments.options
    if arguments.levels:
        options["levels"] = [int(level) if level.is_integer() else level for level in arguments.levels]
    if arguments.size_column:
        options["sizes"] = table.numbers(arguments.size_column)
    if arguments.dry_run:
        say_beforehand("allocate", arguments.method, options, call, arguments.as_json)
        return
    plan = allocate(method=arguments.method, options=options, **call)
    finish(plan, arguments, lambda: plan.to_frame().drop("index"))
    say(answer(plan, arguments), lambda: render(plan, arguments), arguments.as_json)


def read_curves(table: Table, arguments: AllocateArguments) -> Any:
    """(n, levels): the columns that are named, or else every column of numbers, or the one column of vectors."""
    aside = {arguments.id_column, arguments.size_column}
    names = arguments.columns or [
        name for name in table.columns if name not in aside and table.dtype(name) in ("number", "vector")
    ]
    if not names:
        raise InputError(f"{table.path} has no numeric columns to take as a curve; name them with --columns")
    if len(names) == 1 and table.dtype(names[0]) == "vector":
        return table.vectors(names[0])
    return np.stack([table.numbers(name) for name in names], axis=1)


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
        "amounts": plan.amounts,
    }


def render(plan: Allocation, arguments: AllocateArguments) -> str:
    """The answer for people."""
    used, budget = plan.used.get("budget"), plan.budget.get("budget")
    lines = [f"{plan.method}: {plan.n} items, value {plan.value:.6g} ({plan.status}), used {used:,} of {budget:,}"]
    if plan.price is not None:
        lines.append(f"price: one more unit of budget is worth {plan.price:.4g}")
    if arguments.output:
        lines.append(f"amounts -> {arguments.output}")
    else:
        keys = plan.keys(np.arange(plan.n)).tolist()
        lines += [f"  {key}: {amount}" for key, amount in list(zip(keys, plan.amounts.tolist(), strict=True))[:10]]
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
