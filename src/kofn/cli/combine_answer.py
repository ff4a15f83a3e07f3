"""What `kofn combine` prints of a blend of checkpoints or adapters, and of one that is only planned."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from kofn.cli.combine_arguments import CombineArguments
from kofn.cli.printing import drawn_lines, facts, say
from kofn.cli.write import finish
from kofn.core import checks, dispatch
from kofn.core.checks import InputError
from kofn.core.plans import Blend

if TYPE_CHECKING:
    from kofn.io.adapters import Adapter

_PRINTED = 40  # tensors listed by a dry run on a terminal


def finish_blend(plan: Blend, members: list[str], arguments: CombineArguments) -> None:
    """Write and print what was blended, with what weights, and how far each member is from it."""
    finish(plan, arguments)
    for warning in plan.info.get("warnings", []):
        click.echo(f"warning: {warning}", err=True)
    say(answer(plan, members, arguments), lambda: render(plan, members, arguments), arguments.as_json)


def answer(plan: Blend, members: list[str], arguments: CombineArguments) -> dict[str, Any]:
    """The blend for machines."""
    rows: dict[str, Any] = {
        "method": plan.method or "recipe",
        "members": members,
        "weights": None if isinstance(plan.weights, dict) else plan.weights,
        "form": plan.form,
        "spread": plan.spread,
        "tensors": len(plan.result),
        "copied": len(plan.info.get("copied", ())),
        "resumed": plan.info.get("resumed", 0),
        "warnings": plan.info.get("warnings", []),
        "seconds": plan.info.get("seconds"),
        "seed": plan.seed,
        "output": arguments.output,
    }
    if arguments.as_json and "measures" in plan.info:
        from kofn.combination import measures_by_layer

        rows["layers"] = measures_by_layer(plan.info["measures"])
        rows["measures"] = plan.info["measures"]
        if "length" in plan.info:
            rows["length"] = plan.info["length"]
    if plan.info.get("requantised"):
        rows["requantised"] = plan.info["requantised"]
    if "vocabulary" in plan.info:
        rows["vocabulary"] = plan.info["vocabulary"]
    if "families" in plan.info:
        rows |= {"families": plan.info["families"], "family": plan.info["family"]}
    if "nonfinite" in plan.info:
        rows["nonfinite"] = plan.info["nonfinite"]
    if arguments.report:
        rows["report"] = arguments.report
    return rows


def render(plan: Blend, members: list[str], arguments: CombineArguments) -> str:
    """The blend for people: a line a member."""
    rows = answer(plan, members, arguments)
    notes = [f"{rows['copied']} copied"] if rows["copied"] else []
    notes += [f"{rows['resumed']} of them from the run before"] if rows["resumed"] else []
    notes += [f"an adapter of {rows['family']}"] if "family" in rows else []
    more = f" ({', '.join(notes)})" if notes else ""
    count = "1 member" if len(members) == 1 else f"{len(members)} members"
    lines = [f"{rows['method']}: {count}, {rows['tensors']} tensors{more} -> {arguments.output}"]
    weights = [] if rows["weights"] is None else np.asarray(rows["weights"]).tolist()
    spread = [] if plan.spread is None else np.asarray(plan.spread).tolist()
    left_out = rows.get("nonfinite", [])
    for i, path in enumerate(members):
        weight = f"weight {weights[i]:.4g}  " if i < len(weights) else ""
        distance = f"distance to the blend {spread[i]:.6g}  " if i < len(spread) else ""
        left = f"{left_out[i]} values left out  " if i < len(left_out) and left_out[i] else ""
        adapter = f"  {adapter_text(rows['families'][i])}" if "families" in rows else ""
        lines.append(f"  {weight}{distance}{left}{path}{adapter}")
    lines += drawn_lines(plan, arguments.seed, "this blend")
    if "vocabulary" in rows:
        lines.append(f"  {_tokens(rows['vocabulary'])}")
    if "requantised" in rows:
        lines.append(f"  {_rounding(rows['requantised'])}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)


def _tokens(figures: dict[str, Any]) -> str:
    """How many tokens the output has, and how many each member lacked."""
    lacking = ", ".join(map(str, figures["lacking"]))
    left = f", {figures['left_out']} of others left out" if figures["left_out"] else ""
    new = f", {len(figures['added'])} of them added" if figures["added"] else ""
    return f"vocabulary: {figures['tokens']} tokens in {figures['rows']} rows{new}{left}; members lacked {lacking}"


def _rounding(errors: dict[str, float]) -> str:
    """How many tensors were quantised again, and the most that rounding added to one."""
    name = max(errors, key=lambda each: errors[each])
    subject = "1 tensor" if len(errors) == 1 else f"{len(errors)} tensors"
    return f"{subject} quantised again, which added at most {errors[name]:.2%} of a tensor's norm ({name})"


def refuse_unknown_architecture(members: Sequence[Any], arguments: CombineArguments) -> None:
    """Refuse, before any work, members whose units a method that aligns them does not find."""
    if arguments.entry is None or "architecture" not in arguments.entry.options:
        return
    from kofn.combination._sweep.members import open_members
    from kofn.combination.alignment._architectures import configuration, graph_of
    from kofn.combination.alignment._units import shapes_of

    chosen = {name: arguments.options[name] for name in ("architecture", "heads") if name in arguments.options}
    for member in members:
        (opened,) = open_members([member]).members
        graph_of(shapes_of(opened), **{"architecture": "auto", **chosen}, config=configuration(member))


def say_fates(members: list[Any], arguments: CombineArguments, recipe: Any = None) -> None:
    """What would become of every tensor, and the room it takes."""
    from kofn.combination import preview_merge

    options = dict(arguments.own_options)
    if recipe is None:
        index, entry = dispatch.methods_of("combine"), dispatch.named("combine", arguments.method)
        given = {"members": members, **arguments.given("base", "weights")}
        if entry.takes(given) is None:
            raise InputError(dispatch.misfit(entry, given, {**options, "out": arguments.output}, index))
        options = {name: checks.option(name, value, entry.types[name]) for name, value in options.items()}
    rows = preview_merge(
        members if recipe is None else recipe,
        method=arguments.method,
        base=arguments.base,
        weights=arguments.weights,
        options=options,
        out=arguments.output,
        only=arguments.only or None,
        skip=arguments.skip or None,
        dtype=arguments.dtype,
        vocabulary=arguments.vocabulary,
    )
    several = {row["recipe"]: row["models"] for row in rows if "recipe" in row}
    size = sum(row["bytes"] for row in rows)
    room: dict[str, Any] = {
        **({"recipes": len(several)} if several else {"members": len(members)}),
        "tensors": len(rows),
        **disk_for(size, arguments.output),
        "memory": "blocks only: about 100 MB, or --max-memory",
    }
    quantised = [row for row in rows if row["fate"].endswith(", requantised")]
    if quantised:
        largest = max(5 * row["bytes"] for row in quantised)
        count = "1 tensor" if len(quantised) == 1 else f"{len(quantised)} tensors"
        room["quantised"] = f"{count}, blended as what they stand for and quantised again"
        room["memory"] += f", and {largest:,} bytes a thread to quantise the largest tensor"
    lines: list[str] = []
    for name, models in (several or {None: 0}).items():
        own = rows if name is None else [row for row in rows if row["recipe"] == name]
        if name is not None:
            count = "1 model" if models == 1 else f"{models} models"
            lines.append(f"recipe {name or 'without a name'}: {count}")
        lines += _fate_lines(own)
    say({**room, "fates": rows}, lambda: "\n".join([facts(room), *lines]), arguments.as_json)


def disk_for(size: int, output: str | None) -> dict[str, str]:
    """The bytes of an output, and whether its disk has room for them."""
    out = Path(output or ".").absolute()
    folder = next(path for path in (out, *out.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    return {
        "disk": f"{size:,} bytes for the output, {free:,} free in {folder}",
        "fits": "yes" if size <= free else f"no: {size - free:,} bytes short",
    }


def _fate_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is set for groups of tensors, and what becomes of each."""
    from kofn.combination.recipes._settings import setting_lines

    settings = setting_lines(rows)
    lines = settings[:_PRINTED]
    if len(settings) > _PRINTED:
        lines.append(f"  and {len(settings) - _PRINTED} more groups of tensors (--json lists them all)")
    lines += [f"  {row['name']}  {row['dtype']} {tuple(row['shape'])}  {row['fate']}" for row in rows[:_PRINTED]]
    if len(rows) > _PRINTED:
        lines.append(f"  and {len(rows) - _PRINTED} more (--json lists them all)")
    return lines


def adapter_text(known: Mapping[str, Any]) -> str:
    """An adapter's trainer, and how many modules, ranks and scales it has."""
    modules = f"{known['modules']} of {known['of']}" if "of" in known else known["modules"]
    parts = [f"{modules} modules, rank {known['rank']}, scale {known['scale']}"] if known["modules"] else []
    parts += [f"{known['full']} tensors in full"] if "full" in known else []
    parts += [f"{known['differences']} tensors as differences"] if "differences" in known else []
    return f"({known['family']}: {', '.join(parts) or 'no modules'})"


def say_adapters(
    adapters: Sequence[Adapter],
    paths: Sequence[str],
    arguments: CombineArguments,
    more: Mapping[str, Any] | None = None,
    facts_of: Sequence[Mapping[str, Any]] | None = None,
    weights: Sequence[float] | None = None,
) -> None:
    """What the adapters are, of which trainer, what their factors are scaled by, and what they are weighted by."""
    known = [adapter.facts() for adapter in adapters] if facts_of is None else list(facts_of)
    subject = {"adapters": len(adapters), **(more or {})}
    used = [""] * len(paths) if weights is None else [f"weight {weight:.4g}  " for weight in weights]
    lines = [f"  {by}{path}  {adapter_text(member)}" for by, path, member in zip(used, paths, known, strict=True)]
    rows = {**subject, "members": list(paths), "families": known}
    rows |= {} if weights is None else {"weights": list(weights)}
    say(rows, lambda: "\n".join([facts(subject), *lines]), arguments.as_json)
