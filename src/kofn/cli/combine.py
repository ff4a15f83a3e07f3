"""`kofn combine`: checkpoints or adapters into one, or a table of scores into one ranking."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from kofn.cli import options as shared_options
from kofn.cli.options import VerbCommand
from kofn.core import dispatch
from kofn.core.checks import InputError
from kofn.verbs import combine

TABLES = (".csv", ".tsv", ".parquet", ".jsonl")
RECIPES = (".toml", ".yaml", ".yml")
_PRINTED = 40  # tensors listed by a dry run on a terminal


@click.command("combine", cls=VerbCommand, verb="combine", short_help="Blend.")
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.option("--base", metavar="PATH", help="The checkpoint that the members were fine-tuned from.")
@click.option("--weights", metavar="A,B,..", help="Weights of the members, taken relative to their sum.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Blend these tensors and copy the others (repeatable).")
@click.option("--skip", multiple=True, metavar="PATTERN", help="Copy these tensors, which need not match (repeatable).")
@click.option("--skip-nonfinite", is_flag=True, help="Leave out NaN and infinities instead of refusing them.")
@click.option("--device", metavar="NAME", help="Add up on a torch device: cuda, or auto for a GPU where there is one.")
@click.option("--id", "id_column", metavar="COL", help="Column that names the alternatives of a table.")
@click.option("--columns", metavar="A,B", help="The judges' columns of a table, default every numeric one.")
@shared_options.shared(output="A .safetensors file or a folder; for a ranking a table.")
def command(members: tuple[str, ...], **values: Any) -> int:
    """Blend checkpoints (files or folders of safetensors), LoRA adapters, or the judges' scores in a table, into one.

    A recipe (.toml or .yaml, mergekit's too) names members, a method, and other methods for some tensors. A run that
    was killed goes on where it was when the same command is given again. A table has one row an alternative and one
    column a judge, higher is better; empty cells are scores not given.

    \b
    kofn combine a/ b/ c/ --weights .5,.3,.2 -o merged/
    kofn combine a/ b/ --base d/ --method ties --density 0.3 -o merged/ --report merged.html
    kofn combine recipe.toml -o merged/
    kofn combine adapter_a/ adapter_b/ -o adapter/
    kofn combine leaderboard.csv --id model -o ranking.csv
    """
    first = Path(members[0]).suffix.lower()
    if first in RECIPES:
        return _recipe(members, values)
    if values["method"] == "auto" and first not in TABLES:
        values["method"] = _default(members, values)
    options = shared_options.method_options("combine", values["method"], values["extra"], values)
    for name in ("only", "skip"):
        if not options.get(name):
            options.pop(name, None)
    if not values["skip_nonfinite"]:
        options.pop("skip_nonfinite", None)
    arguments = shared_options.settings(values)
    weights = shared_options.numbers(values["weights"], "--weights")
    if weights is not None:
        arguments["weights"] = weights
    if values["base"] is not None:
        arguments["base"] = values["base"]
    if first in TABLES:
        return _rank(members, values, options, arguments)
    return _merge(members, values, options, arguments)


def _default(members: tuple[str, ...], values: dict[str, Any]) -> str:
    from kofn.io.adapters import is_adapter

    if is_adapter(members[0]):
        return "stack_adapters"
    return "weighted_mean" if values["base"] is None else "task_arithmetic"


def _merge(members: tuple[str, ...], values: dict[str, Any], options: dict[str, Any], arguments: dict[str, Any]) -> int:
    entry = dispatch.methods_of("combine").get(values["method"])
    for name in ("only", "skip", "skip_nonfinite", "device"):
        if values[name] and entry is not None and name not in entry.options:
            raise InputError(f"--{name.replace('_', '-')} is not taken by {values['method']}; leave it out")
    if values["dry_run"]:
        from kofn.io.adapters import is_adapter

        if is_adapter(members[0]):
            raise InputError("--dry-run lists tensors of checkpoints; adapters are small enough to be blended at once")
        return _say_fates(list(members), values, options)
    if values["output"] is None:
        raise InputError("give -o OUTPUT: a .safetensors file or a folder for the blend")
    if values["report"] and entry is not None and "measure" in entry.options:
        options["measure"] = True
    plan = combine(list(members), method=values["method"], options={**options, "out": values["output"]}, **arguments)
    return _say(plan, list(members), values)


def _recipe(members: tuple[str, ...], values: dict[str, Any]) -> int:
    from kofn.combination import merge_recipe, read_recipe

    if len(members) > 1:
        raise InputError(f"one recipe says all; {len(members)} files were given")
    given = [f"--{name}" for name in ("base", "weights", "device") if values[name] is not None]
    if values["method"] != "auto" or given or values["extra"]:
        raise InputError(f"{(given or ['--method'])[0]} belongs in the recipe: write it into {members[0]}")
    told = read_recipe(members[0])
    files = {name: list(values[name]) for name in ("only", "skip") if values[name]}
    settings = shared_options.settings(values)
    settings = {name: value for name, value in settings.items() if name in ("max_memory", "n_threads", "progress")}
    if values["dry_run"]:
        return _say_fates(list(told.members), {**values, "base": told.base}, files, told)
    if values["output"] is None:
        raise InputError("give -o OUTPUT: a .safetensors file or a folder for the blend")
    plan = merge_recipe(
        told,
        out=values["output"],
        measure=bool(values["report"]),
        skip_nonfinite=values["skip_nonfinite"],
        **files,
        **settings,
    )
    return _say(plan, [str(member) for member in told.members], values)


def _say(plan: Any, members: list[str], values: dict[str, Any]) -> int:
    """What was blended, with what weights, and how far each member is from it."""
    weights = None if plan.weights is None or isinstance(plan.weights, dict) else np.asarray(plan.weights).tolist()
    said: dict[str, Any] = {
        "method": plan.method or "recipe",
        "members": members,
        "weights": weights,
        "form": plan.form,
        "spread": None if plan.spread is None else np.asarray(plan.spread).tolist(),
        "tensors": len(plan.result),
        "copied": len(plan.info.get("copied", ())),
        "resumed": plan.info.get("resumed", 0),
        "warnings": plan.info.get("warnings", []),
        "seconds": plan.info.get("seconds"),
        "output": values["output"],
    }
    if values["as_json"] and "measures" in plan.info:
        from kofn.combination import measures_by_layer

        said["layers"] = _listed(measures_by_layer(plan.info["measures"]))
        said["measures"] = _listed(plan.info["measures"])
    if "nonfinite" in plan.info:
        said["nonfinite"] = plan.info["nonfinite"]
    _finish(plan, values, said)
    for warning in said["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if values["as_json"]:
        click.echo(json.dumps(said))
        return 0
    notes = [f"{said['copied']} copied"] if said["copied"] else []
    notes += [f"{said['resumed']} of them from the run before"] if said["resumed"] else []
    more = f" ({', '.join(notes)})" if notes else ""
    click.echo(f"{said['method']}: {len(members)} members, {said['tensors']} tensors{more} -> {values['output']}")
    for place, path in enumerate(members):
        weight = f"weight {weights[place]:.4g}  " if weights is not None and place < len(weights) else ""
        far = f"distance to the blend {said['spread'][place]:.6g}  " if said["spread"] else ""
        left = (
            f"{said['nonfinite'][place]} values left out  " if said.get("nonfinite", [0] * len(members))[place] else ""
        )
        click.echo(f"  {weight}{far}{left}{path}")
    if "report" in said:
        click.echo(f"report -> {said['report']}")
    return 0


def _say_fates(members: list[Any], values: dict[str, Any], options: dict[str, Any], told: Any = None) -> int:
    """What would become of every tensor, and the room it takes."""
    from kofn.combination._sweep.merge import Files, fates
    from kofn.combination.recipes._merge_recipe import fates_of

    files = Files(values["output"], options.get("only"), options.get("skip"))
    rows = fates(files.open(members, values["base"]), values["method"]) if told is None else fates_of(told, files)
    size = sum(row["bytes"] for row in rows)
    out = Path(values["output"] or ".").absolute()
    folder = next(path for path in (out, *out.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    said = {
        "members": len(members),
        "tensors": len(rows),
        "disk": f"{size:,} bytes for the output, {free:,} free in {folder}",
        "fits": "yes" if size <= free else f"no: {size - free:,} bytes short",
        "memory": "blocks only: about 100 MB, or --max-memory",
    }
    if values["as_json"]:
        click.echo(json.dumps({**said, "fates": rows}))
        return 0
    click.echo(_lines(said))
    for row in rows[:_PRINTED]:
        click.echo(f"  {row['name']}  {row['dtype']} {tuple(row['shape'])}  {row['fate']}")
    if len(rows) > _PRINTED:
        click.echo(f"  and {len(rows) - _PRINTED} more (--json lists them all)")
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


def _listed(value: Any) -> Any:
    """Arrays as lists, and what is no number as None, for JSON."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_listed(item) for item in value]
    if isinstance(value, np.ndarray):
        return _listed(value.tolist())
    return None if isinstance(value, float) and value != value else value


def _lines(said: dict[str, Any]) -> str:
    return "\n".join(f"{name:10} {text}" for name, text in said.items())
