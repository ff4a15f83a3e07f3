"""`kofn combine`: checkpoints into one checkpoint, or a table of scores into one ranking."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from kofn.checks import InputError
from kofn.cli import options as shared_options
from kofn.cli.options import VerbCommand
from kofn.verbs import combine

TABLES = (".csv", ".tsv", ".parquet", ".jsonl")


@click.command("combine", cls=VerbCommand, verb="combine", short_help="Blend.")
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.option("--weights", metavar="A,B,..", help="Weights of the members, taken relative to their sum.")
@click.option("--id", "id_column", metavar="COL", help="Column that names the alternatives of a table.")
@click.option("--columns", metavar="A,B", help="The judges' columns of a table, default every numeric one.")
@shared_options.shared(output="A .safetensors file or a folder; for a ranking a table.")
def command(members: tuple[str, ...], **values: Any) -> int:
    """Blend checkpoints (files or folders of safetensors), or the judges' scores in a table, into one.

    A table has one row an alternative and one column a judge, higher is better; empty cells are scores not given.

    \b
    kofn combine a/ b/ c/ --weights .5,.3,.2 -o merged/
    kofn combine leaderboard.csv --id model -o ranking.csv
    """
    options = shared_options.method_options("combine", values["method"], values["extra"], values)
    arguments = shared_options.settings(values)
    weights = shared_options.numbers(values["weights"], "--weights")
    if weights is not None:
        arguments["weights"] = weights
    if Path(members[0]).suffix.lower() in TABLES:
        return _rank(members, values, options, arguments)
    return _merge(members, values, options, arguments)


def _merge(members: tuple[str, ...], values: dict[str, Any], options: dict[str, Any], arguments: dict[str, Any]) -> int:
    from kofn.io.tensors import Checkpoint

    method = "weighted_mean" if values["method"] == "auto" else values["method"]
    if values["dry_run"]:
        opened = [Checkpoint.open(path) for path in members]
        size = sum(tensor.nbytes for tensor in opened[0].values())
        dry = {
            "members": len(opened),
            "tensors": len(opened[0]),
            "disk": f"{size:,} bytes for the output",
            "exact": "the mean in float32 or wider, rounded once to the tensors' own dtype",
        }
        click.echo(json.dumps(dry) if values["as_json"] else _lines(dry))
        return 0
    if values["output"] is None:
        raise InputError("give -o OUTPUT: a .safetensors file or a folder for the blend")
    plan = combine(list(members), method=method, options={**options, "out": values["output"]}, **arguments)
    said: dict[str, Any] = {
        "method": plan.method,
        "members": list(members),
        "weights": np.asarray(plan.weights).tolist(),
        "form": plan.form,
        "spread": np.asarray(plan.spread).tolist(),
        "tensors": len(plan.result),
        "seconds": plan.info["seconds"],
        "output": values["output"],
    }
    _finish(plan, values, said)
    if values["as_json"]:
        click.echo(json.dumps(said))
        return 0
    click.echo(f"{plan.method}: {len(members)} members, {len(plan.result)} tensors -> {values['output']}")
    for path, weight, spread in zip(members, said["weights"], said["spread"], strict=True):
        click.echo(f"  weight {weight:.4g}  distance to the blend {spread:.6g}  {path}")
    return 0


def _rank(members: tuple[str, ...], values: dict[str, Any], options: dict[str, Any], arguments: dict[str, Any]) -> int:

    from kofn.cli.pool import read_ballots
    from kofn.io.atomic import write_table
    from kofn.io.tables import Table

    if len(members) > 1:
        raise InputError(f"a ranking is made from one table, {len(members)} were given; join them first")
    table = Table.open(members[0])
    judges, scores = read_ballots(table, values["columns"], values["id_column"])
    if values["dry_run"]:
        dry = {"judges": len(judges), "alternatives": table.n, "exact": "yes"}
        click.echo(json.dumps(dry) if values["as_json"] else _lines(dry))
        return 0
    ids = table.ids(values["id_column"]) if values["id_column"] else None
    plan = combine(rankings=scores, ids=ids, method=values["method"], options=options, **arguments)
    out = plan.to_frame()
    if values["output"]:
        write_table(out, values["output"])
    said: dict[str, Any] = {
        "method": plan.method,
        "judges": judges,
        "ranking": out["id"].to_list(),
        "spread": np.asarray(plan.spread).tolist(),
        "output": values["output"],
    }
    _finish(plan, values, said)
    if values["as_json"]:
        click.echo(json.dumps(said))
        return 0
    click.echo(f"{plan.method}: {table.n} alternatives ranked by {len(judges)} judges")
    for row in out.head(10).iter_rows(named=True):
        points = f"  {row['points']:.4g} points" if "points" in row else ""
        click.echo(f"  {row['rank']:3}. {row['id']}{points}")
    return 0


def _finish(plan: Any, values: dict[str, Any], said: dict[str, Any]) -> None:
    """The report and the saved plan, where they were asked for."""
    if values["plan_path"]:
        plan.save(values["plan_path"])
    if values["report"]:
        plan.report(values["report"], command=["kofn", *sys.argv[1:]])
        said["report"] = values["report"]


def _lines(said: dict[str, Any]) -> str:
    return "\n".join(f"{name:10} {text}" for name, text in said.items())
