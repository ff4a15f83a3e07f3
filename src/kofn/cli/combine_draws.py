"""`kofn combine` of draws of posteriors: of their product, of a mixture, or of a next task's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from kofn.cli.combine_arguments import CombineArguments
from kofn.cli.printing import drawn_lines, facts, say
from kofn.cli.write import WRITTEN, check_outputs, finish
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.core.plans import Blend
from kofn.io.atomic import atomic_path
from kofn.io.reading import suffix_of
from kofn.report.posteriors import WORDS, tells_intervals
from kofn.tables.draws import as_arrays, of_the_sampler, read_draws
from kofn.tables.read import ARRAYS
from kofn.verbs import combine

_LISTED = 20  # parameters printed
# Flags of checkpoints, rankings, votes and predictions.
_OTHERS = (
    *("base", "weights", "summed", "only", "skip", "skip_nonfinite", "dtype", "vocabulary", "device", "lower", "wins"),
    *("answers", "k", "group_column", "apply", "judge_groups", "id_column"),
)
_FLAGS = {"summed": "--sum", "answers": "--label", "k": "-k", "group_column": "--group", "id_column": "--id"}


def combine_draws(members: Sequence[str], arguments: CombineArguments) -> None:
    """Read, combine, write and print."""
    taken = () if arguments.entry is None else arguments.entry.accepted
    for name in _OTHERS:
        if name not in taken and getattr(arguments, name) not in (None, (), False):
            raise InputError(f"{_FLAGS.get(name, '--' + name.replace('_', '-'))} is not of draws; leave it out")
    if len(members) == 1:
        raise InputError(f"{members[0]} is one file of draws; give one for each shard")
    as_table = arguments.output is None or suffix_of(Path(arguments.output)) not in ARRAYS
    check_outputs(arguments, members, table=as_table)
    read = read_draws(members, arguments.reading, arguments.columns)
    if not arguments.columns and (left := of_the_sampler(members[0], arguments.reading)):
        click.echo(
            f"note: {', '.join(left)}: no parameters by their names, left out; --columns names those to take", err=True
        )
    if arguments.dry_run:
        from kofn.combination.posteriors._draws import read_shards

        with checks.naming(items=_names(members)):
            read_shards(read)
        size = {"shards": len(read), "draws": [_count(member) for member in read], "method": arguments.method}
        say(size, lambda: facts(size), arguments.as_json)
        return
    plan: Blend = combine(
        read,
        method=arguments.method,
        options=arguments.options,
        ids=_names(members),
        **arguments.given(*({"weights"} & set(taken))),
    )
    _write(plan, read[0], arguments, as_table=as_table)
    for warning in plan.info["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    say(answer(plan, arguments), lambda: render(plan, arguments), arguments.as_json)


def _names(members: Sequence[str]) -> list[str]:
    """What the shards are called: their files without suffix, or their paths where two are called alike."""
    stems = [Path(member).stem for member in members]
    return stems if len(set(stems)) == len(stems) else list(members)


def _count(member: Any) -> int:
    return len(next(iter(member.values()), ())) if isinstance(member, dict) else len(member)


def _write(plan: Blend, first: Any, arguments: CombineArguments, *, as_table: bool) -> None:
    draws = np.asarray(plan.result)
    finish(plan, arguments, (lambda: _table(draws, plan)) if as_table else None)
    if arguments.output is None or as_table:
        return
    archive = suffix_of(Path(arguments.output)) == ".npz"
    with atomic_path(arguments.output) as temporary, open(temporary, "wb") as file:
        if archive:
            arrays: dict[str, Any] = as_arrays(draws, plan.info["parameters"], first)
            np.savez(file, **arrays)
        else:
            np.save(file, draws)
    WRITTEN.append(arguments.output)


def _table(draws: Array, plan: Blend) -> Any:
    """One row a draw, one column a parameter."""
    columns = draws.reshape(len(draws), -1).T
    return pl.DataFrame(dict(zip(plan.info["parameters"], columns, strict=True)))


def answer(plan: Blend, arguments: CombineArguments) -> dict[str, Any]:
    """The answer for machines."""
    info, spread = plan.info, np.asarray(plan.spread)
    return {
        "method": plan.method,
        "draws": len(np.asarray(plan.result)),
        "ess": info["ess"],
        "parameters": [
            {"parameter": name, **{key: float(info[key][column]) for key in ("mean", "sd", "low", "high")}}
            for column, name in enumerate(info["parameters"])
        ],
        "shards": [
            {
                "shard": name,
                "draws": int(info["member_draws"][shard]),
                "ess": float(info["member_ess"][shard]),
                "weight": float(plan.weights[shard]),
                "distance": float(spread[shard]),
                **({"chance": float(info["chance_of_distance"][shard])} if "chance_of_distance" in info else {}),
            }
            for shard, name in enumerate(plan.keys(np.arange(plan.n)).tolist())
        ],
        "warnings": info["warnings"],
        "seed": plan.seed,
        **({"accepted": info["accepted"]} if "accepted" in info else {}),
        "output": arguments.output,
        **({"report": arguments.report} if arguments.report else {}),
    }


def render(plan: Blend, arguments: CombineArguments) -> str:
    """The answer for people: each parameter's mean and interval, and how well the members agree."""
    rows, words = answer(plan, arguments), WORDS[plan.objective]
    lines = [f"{plan.method}: {rows['draws']:,} {words.made.format(n=plan.n, ess=rows['ess'])}"]
    parameters = rows["parameters"][:_LISTED]
    width = max(len(row["parameter"]) for row in parameters)
    known = tells_intervals(plan)
    lines += [
        f"  {row['parameter']:<{width}}  mean {row['mean']:.4g}  sd {row['sd']:.3g}"
        + (f"  95% {row['low']:.4g} to {row['high']:.4g}" if known else "")
        for row in parameters
    ]
    if not known:
        lines.append(f"  no 95%: draws worth {rows['ess']:,.0f} independent ones do not tell it")
    if len(rows["parameters"]) > _LISTED:
        lines.append(f"  and {len(rows['parameters']) - _LISTED} more (--json lists them all)")
    lines += [
        f"  {row['shard']}: {row['draws']:,} draws worth {row['ess']:,.0f}, {row['weight']:.1%} of {words.part}, "
        f"{row['distance']:.2f} {words.distance}"
        for row in rows["shards"]
    ]
    lines += drawn_lines(plan, arguments.seed, "these draws")
    if arguments.output:
        lines.append(f"draws -> {arguments.output}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
