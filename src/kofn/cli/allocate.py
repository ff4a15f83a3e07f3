"""`kofn allocate`: a table of curves in, amounts out."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import numpy as np

from kofn.cli import options as shared_options
from kofn.cli.options import VerbCommand
from kofn.core.checks import InputError
from kofn.verbs import allocate


@click.command("allocate", cls=VerbCommand, verb="allocate", short_help="Share a budget.")
@click.argument("file", metavar="FILE")
@click.option("--budget", type=float, help="What all items together may cost.")
@click.option("--mean-budget", type=float, help="Instead: the total over the summed sizes, such as 4 bits a weight.")
@click.option(
    "--columns", metavar="A,B", help="Columns that hold the curve, level by level; default every numeric one."
)
@click.option("--id", "id_column", metavar="COL", help="Column that names the items.")
@click.option("--size", "size_column", metavar="COL", help="Column of sizes: level l of an item costs size * level.")
@click.option("--levels", metavar="A,B", help="Amounts of the levels, default 0,1,2,..; or numbers as column names.")
@click.option("--sense", help="min (default): the curves are losses; max: they are values.")
@shared_options.shared(output="Where the amounts go: id, amount, value, marginal_up, marginal_down.")
def command(file: str, **values: Any) -> int:
    """Share a budget over the items of FILE, one row an item and one column a level.

    \b
    kofn allocate curves.csv --id layer --size params --levels 2,3,4,8 --mean-budget 4 -o bits.csv
    """
    from kofn.cli.estimate import say_beforehand
    from kofn.io.atomic import write_table
    from kofn.io.tables import Table

    table = Table.open(file)
    aside = {values["id_column"], values["size_column"]}
    if values["columns"]:
        names = [name.strip() for name in values["columns"].split(",")]
    else:
        names = [name for name in table.columns if name not in aside and table.dtype(name) in ("number", "vector")]
    if not names:
        raise InputError(f"{file} has no numeric columns to take as a curve; name them with --columns")
    matrix = len(names) == 1 and table.dtype(names[0]) == "vector"
    curves = table.vectors(names[0]) if matrix else np.stack([table.numbers(name) for name in names], axis=1)
    options = shared_options.method_options("allocate", values["method"], values["extra"], values)
    levels = shared_options.numbers(values["levels"], "--levels")
    if levels is not None:
        options["levels"] = [int(level) if level == int(level) else level for level in levels]
    if values["size_column"]:
        options["sizes"] = table.numbers(values["size_column"])
    for name in ("mean_budget", "sense"):
        if values[name] is not None:
            options[name] = values[name]
    arguments = shared_options.settings(values)
    if values["id_column"]:
        arguments["ids"] = table.ids(values["id_column"])
    budget = values["budget"]
    if budget is not None and budget == int(budget):
        budget = int(budget)
    arguments |= {"curves": curves} | ({} if budget is None else {"budget": budget})
    if values["dry_run"]:
        say_beforehand("allocate", values["method"], options, arguments, values["as_json"])
        return 0
    plan = allocate(method=values["method"], options=options, **arguments)
    frame = plan.to_frame().drop("index")
    if values["output"]:
        write_table(frame, values["output"])
    if values["plan_path"]:
        plan.save(values["plan_path"])
    if values["report"]:
        plan.report(values["report"], command=["kofn", *sys.argv[1:]])
    used, limit = plan.used.get("budget"), plan.budget.get("budget")
    said: dict[str, Any] = {
        "method": plan.method,
        "items": plan.n,
        "value": plan.value,
        "sense": plan.sense,
        "bound": plan.bound,
        "status": plan.status,
        "used": used,
        "budget": limit,
        "price": plan.price,
        "seconds": plan.info["seconds"],
        "output": values["output"],
    }
    if values["as_json"]:
        click.echo(json.dumps({**said, "amounts": np.asarray(plan.amounts).tolist()}))
        return 0
    click.echo(f"{plan.method}: {plan.n} items, value {plan.value:.6g} ({plan.status}), used {used:,} of {limit:,}")
    if plan.price is not None:
        click.echo(f"price: one more unit of budget is worth {plan.price:.4g}")
    if values["output"]:
        click.echo(f"amounts -> {values['output']}")
    else:
        for row in frame.head(10).iter_rows(named=True):
            click.echo(f"  {row['id']}: {row['amount']}")
    return 0
