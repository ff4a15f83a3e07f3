"""`kofn assign`: rows into groups, or items into bins with a capacity."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import numpy as np
import polars as pl

from kofn import checks
from kofn.cli import options as shared_options
from kofn.cli.options import VerbCommand
from kofn.verbs import assign


@click.command("assign", cls=VerbCommand, verb="assign", short_help="Group or route.")
@click.argument("file", metavar="FILE")
@click.option("-k", "--k", type=int, help="Number of groups.")
@click.option("--text", metavar="COL", help="Compare rows by this text column.")
@click.option("--embedder", metavar="NAME_OR_PATH", help="Sentence-transformers model for --text; needs kofn[text].")
@click.option("--vectors", metavar="COL", help="Compare rows by this column of vectors (or this array of an .npz).")
@click.option("--columns", metavar="A,B", help="Compare rows by these columns; with --scores, one column a bin.")
@click.option("--scores", "by_scores", is_flag=True, help="The file holds scores of items (rows) for bins (columns).")
@click.option("--capacity", type=int, help="Items that a bin can hold.")
@click.option("--per-item", type=int, help="Bins that an item goes to, default 1.")
@click.option("--overflow", metavar="RULE", help="What a full bin does: error (default), drop or reroute.")
@click.option("--id", "id_column", metavar="COL", help="Column of unique ids, default the row number.")
@click.option("--weight", "weight_column", metavar="COL", help="Column of weights: how much each row counts.")
@click.option("--metric", metavar="NAME", help="euclidean (default), sqeuclidean, cosine, precomputed.")
@shared_options.shared(output="Where the groups go: all columns plus group, or id, bin and weight of each placement.")
def command(file: str, **values: Any) -> int:
    """Put the rows of FILE into k groups around real examples, or items into bins with a capacity.

    \b
    kofn assign points.parquet --vectors emb --k 20 -o groups.parquet --report groups.html
    kofn assign scores.npy --scores --capacity 64 --overflow reroute -o routes.csv
    """
    from kofn.cli.estimate import say_beforehand
    from kofn.cli.pool import read_scores, read_vectors
    from kofn.io.atomic import write_table
    from kofn.io.tables import Table

    table = Table.open(file)
    arguments: dict[str, Any] = shared_options.settings(values)
    options = shared_options.method_options("assign", values["method"], values["extra"], values)
    for word in ("k", "capacity", "per_item", "metric"):
        if values[word] is not None:
            arguments[word] = values[word]
    if values["overflow"] is not None:
        options["overflow"] = values["overflow"]
    if values["id_column"]:
        arguments["ids"] = checks.ids(table.ids(values["id_column"]), "--id")
    if values["weight_column"]:
        arguments["weights"] = table.numbers(values["weight_column"])
    X = None
    if values["by_scores"]:
        arguments["scores"] = read_scores(table, values)
    else:
        X = read_vectors(table, values).X
        arguments["distances" if values["metric"] == "precomputed" else "X"] = X
        if values["metric"] == "precomputed":
            del arguments["metric"]
        elif values["text"] and values["metric"] is None:
            arguments["metric"] = "cosine"
    if values["dry_run"]:
        say_beforehand("assign", values["method"], options, arguments, values["as_json"])
        return 0
    plan = assign(method=values["method"], options=options, **arguments)
    if values["output"]:
        write_table(_frame(plan, table), values["output"])
    if values["plan_path"]:
        plan.save(values["plan_path"])
    if values["report"]:
        context = {"X": X} if X is not None and values["metric"] != "precomputed" else {}
        plan.report(values["report"], command=["kofn", *sys.argv[1:]], **context)
    sizes = np.bincount(plan.bins, minlength=plan.k)
    said: dict[str, Any] = {
        "method": plan.method,
        "items": plan.n,
        "bins": plan.k,
        "value": plan.value,
        "sense": plan.sense,
        "bound": plan.bound,
        "status": plan.status,
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "unplaced": int((np.diff(plan.indptr) == 0).sum()),
        "seconds": plan.info["seconds"],
        "output": values["output"],
    }
    if values["as_json"]:
        more = {} if plan.medoids is None else {"medoids": plan.keys(plan.medoids).tolist()}
        click.echo(json.dumps({**said, **more, "labels": plan.labels.tolist()}))
        return 0
    click.echo(f"{plan.method}: {plan.n:,} items in {plan.k} bins, value {plan.value:.6g} ({plan.status})")
    click.echo(f"sizes from {said['smallest']:,} to {said['largest']:,}, {said['unplaced']:,} unplaced")
    if plan.medoids is not None:
        shown = ", ".join(str(key) for key in plan.keys(plan.medoids)[:10].tolist())
        click.echo(f"medoids: {shown}{' ...' if plan.k > 10 else ''}")
    if values["output"]:
        click.echo(f"groups -> {values['output']}")
    return 0


def _frame(plan: Any, table: Any) -> pl.DataFrame:
    """Each row with its group; where an item may hold several bins or none, one row a placement."""
    if plan.medoids is None:
        return plan.to_frame().drop("index")
    frame = table.take(np.arange(table.n))
    frame = frame.select(name for name, kind in frame.schema.items() if not isinstance(kind, pl.Array))
    labels = plan.labels
    free = "group" if "group" not in frame.columns else "kofn_group"
    return frame.with_columns(pl.Series(free, labels), pl.Series("medoid", np.isin(np.arange(plan.n), plan.medoids)))
