"""`kofn assign`: rows into groups, or items into bins with a capacity."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import numpy as np
import polars as pl

from kofn.cli import options as shared_options
from kofn.cli.options import VerbCommand
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.verbs import assign


@click.command("assign", cls=VerbCommand, verb="assign", short_help="Group or route.")
@click.argument("file", metavar="FILE")
@click.option("-k", "--k", metavar="N|auto", help="Number of groups; auto finds it by the medoid silhouette.")
@click.option("--text", metavar="COL", help="Compare rows by this text column.")
@click.option("--embedder", metavar="NAME_OR_PATH", help="Sentence-transformers model for --text; needs kofn[text].")
@click.option("--vectors", metavar="COL", help="Compare rows by this column of vectors (or this array of an .npz).")
@click.option("--columns", metavar="A,B", help="Compare rows by these columns; with --scores, one column a bin.")
@click.option("--scores", "by_scores", is_flag=True, help="The file holds scores of items (rows) for bins (columns).")
@click.option("--capacity", type=int, help="Items that a bin or group can hold.")
@click.option("--min-size", type=int, help="Items that a group must hold at the least.")
@click.option("--must-link", metavar="FILE", help="Pairs of ids that stay together: two columns, one pair a line.")
@click.option("--cannot-link", metavar="FILE", help="Pairs of ids that stay apart.")
@click.option("--per-item", type=int, help="Bins that an item goes to, default 1.")
@click.option("--overflow", metavar="RULE", help="What a full bin does: error (default), drop or reroute.")
@click.option("--id", "id_column", metavar="COL", help="Column of unique ids, default the row number.")
@click.option("--weight", "weight_column", metavar="COL", help="Column of weights: how much each row counts.")
@click.option("--label", "label_column", metavar="COL", help="Column of classes, for methods that take y.")
@click.option("--metric", metavar="NAME", help="euclidean (default), sqeuclidean, cosine, precomputed.")
@click.option("--images", metavar="ARRAY", help="Array of an .npz with one image a row, for the report.")
@shared_options.shared(output="Where the groups go: all columns plus group, or id, bin and weight of each placement.")
def command(file: str, **values: Any) -> int:
    """Put the rows of FILE into k groups around real examples, or items into bins with a capacity.

    \b
    kofn assign points.parquet --vectors emb --k 20 -o groups.parquet --report groups.html
    kofn assign points.npy --k 20 --capacity 2500 --min-size 100 -o groups.parquet
    kofn assign posts.csv --text body --k auto -o groups.csv --report groups.html
    kofn assign scores.npy --scores --capacity 64 --overflow reroute -o routes.csv
    """
    from kofn.cli.estimate import say_beforehand
    from kofn.cli.pool import ARRAYS, check_output, read_scores, read_vectors, seen_in_report
    from kofn.io.atomic import write_table
    from kofn.io.tables import Table

    table = Table.open(file)
    if values["output"]:
        check_output(values["output"], file)
    arguments: dict[str, Any] = shared_options.settings(values)
    if values["k"] is not None:
        _count_of_groups(values)
    constrained = [name for name in ("min_size", "must_link", "cannot_link") if values[name] is not None]
    if constrained and values["method"] == "auto":
        # Means are centres in Euclidean space only; texts are compared by their directions.
        values["method"] = "constrained_kmedoids" if values["metric"] or values["text"] else "constrained_kmeans"
    options = shared_options.method_options("assign", values["method"], values["extra"], values)
    for word in ("k", "capacity", "per_item", "metric"):
        if values[word] is not None:
            arguments[word] = values[word]
    if values["overflow"] is not None:
        options["overflow"] = values["overflow"]
    if values["id_column"]:
        arguments["ids"] = checks.ids(table.ids(values["id_column"]), "--id")
    for name in ("must_link", "cannot_link"):
        if values[name] is not None:
            options[name] = _pairs(
                values[name], arguments.get("ids", np.arange(table.n)), f"--{name.replace('_', '-')}"
            )
    if values["weight_column"]:
        arguments["weights"] = table.numbers(values["weight_column"])
    if values["label_column"]:
        arguments["y"] = table.labels(values["label_column"])
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
        write_table(_frame(plan, table, values["by_scores"]), values["output"])
    if values["plan_path"]:
        plan.save(values["plan_path"])
    if values["report"]:
        context = seen_in_report(table, values) | ({"scores": arguments["scores"]} if X is None else {"X": X})
        metric = "precomputed" if values["metric"] == "precomputed" else arguments.get("metric", "euclidean")
        frame = None if table.path.suffix.lower() in ARRAYS else _plain_columns(table)
        plan.report(values["report"], command=["kofn", *sys.argv[1:]], metric=metric, frame=frame, **context)
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
        "report": values["report"],
    }
    if values["as_json"]:
        more = {} if plan.medoids is None else {"medoids": plan.keys(plan.medoids).tolist()}
        click.echo(json.dumps({**said, **more, "labels": plan.labels.tolist()}))
        return 0
    click.echo(f"{plan.method}: {plan.n:,} items in {plan.k} bins, value {plan.value:.6g} ({plan.status})")
    click.echo(f"sizes from {said['smallest']:,} to {said['largest']:,}, {said['unplaced']:,} unplaced")
    if "curve" in plan.info:
        curve = plan.info["curve"]
        best = [f"{k} ({value:.3f})" for k, value in zip(curve["k"], curve["silhouette"], strict=True)]
        click.echo(f"average medoid silhouette by k: {', '.join(best)}")
    if plan.info.get("unreached"):
        alone = f"{plan.info['unreached']:,} rows lie in parts of the neighbour graph without a label"
        click.echo(f"{alone}: the prototypes alone placed them (--n-neighbors joins more rows)")
    if plan.medoids is not None:
        shown = ", ".join(str(key) for key in plan.keys(plan.medoids)[:10].tolist())
        click.echo(f"medoids: {shown}{' ...' if plan.k > 10 else ''}")
    if values["output"]:
        click.echo(f"groups -> {values['output']}")
    if values["report"]:
        click.echo(f"report -> {values['report']}")
    return 0


def _count_of_groups(values: dict[str, Any]) -> None:
    """`--k auto` is a method of its own; otherwise k is a number."""
    if str(values["k"]).lower() == "auto":
        if values["method"] not in ("auto", "dynmsc"):
            raise InputError(f"--k auto finds k with dynmsc; --method {values['method']} needs a number")
        values["k"], values["method"] = None, "dynmsc"
        return
    try:
        values["k"] = int(values["k"])
    except ValueError:
        raise InputError(f"--k {values['k']!r}: give a whole number or auto") from None


def _pairs(file: str, keys: Any, flag: str) -> Any:
    """(p, 2) row numbers of the pairs of ids in a file's first two columns."""
    from kofn.io.tables import Table

    table = Table.open(file)
    if len(table.columns) < 2:
        raise InputError(f"{flag} {file} has one column; give two, the ids of each pair")
    named = [np.array([str(key) for key in table.labels(name)]) for name in table.columns[:2]]
    place = {str(key): row for row, key in enumerate(np.asarray(keys).tolist())}
    for column in named:
        for line, key in enumerate(column.tolist()):
            if key not in place:
                raise InputError(f"{flag} {file} names {key!r} at row {line}, which no row has as its id")
    return np.array([[place[a], place[b]] for a, b in zip(*named, strict=True)], np.int64).reshape(-1, 2)


def _plain_columns(table: Any) -> pl.DataFrame:
    """The file's columns that people can read, without vectors, which may be most of it."""
    return pl.DataFrame([table.column(name) for name in table.columns if table.dtype(name) != "vector"])


def _frame(plan: Any, table: Any, by_scores: bool) -> pl.DataFrame:
    """Each row with its group; where an item may hold several bins or none, one row a placement."""
    if by_scores:
        return plan.to_frame().drop("index")
    frame = table.take(np.arange(table.n))
    frame = frame.select(name for name, kind in frame.schema.items() if not isinstance(kind, pl.Array))
    labels = plan.labels
    free = "group" if "group" not in frame.columns else "kofn_group"
    frame = frame.with_columns(pl.Series(free, labels))
    if plan.medoids is None:
        return frame
    return frame.with_columns(pl.Series("medoid", np.isin(np.arange(plan.n), plan.medoids)))
