"""`kofn combine`: checkpoints or adapters into one, or a table of scores into one ranking."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
import numpy as np

from kofn.cli import arguments as words
from kofn.cli.arguments import NUMBERS, VerbArguments, flag
from kofn.cli.printing import facts, say
from kofn.cli.read import TABLES, read_judges
from kofn.cli.verb_command import Section, VerbCommand
from kofn.cli.write import check_outputs, finish
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.registry import Entry
from kofn.io.reading import suffix_of
from kofn.io.tables import Table
from kofn.io.tensor_writer import OTHER_FILES
from kofn.verbs import combine

if TYPE_CHECKING:
    from kofn.io.adapters import Adapter

RECIPES = (".toml", ".yaml", ".yml")
_PRINTED = 40  # tensors listed by a dry run on a terminal
_NAMED = 12  # judges named in one line

MEMBERS = Section(
    "What is blended",
    (
        flag("--base", metavar="PATH", help="The checkpoint that the members were fine-tuned from."),
        flag(
            "--weights",
            metavar="A,B,..",
            type=NUMBERS,
            help="Weights of the members, relative to their sum; of adapters folded into a model, as they are.",
        ),
        flag(
            "--sum/--mean",
            "summed",
            default=None,
            help="Add up what adapters or fine-tunes changed, or take the mean; the mean unless folded into a model.",
        ),
        flag("--only", multiple=True, metavar="PATTERN", help="Blend these tensors, copy the others (repeatable)."),
        flag(
            "--skip",
            multiple=True,
            metavar="PATTERN",
            help="Copy these tensors, which need not match (repeatable); of adapters to fold, modules.",
        ),
        flag("--skip-nonfinite", is_flag=True, help="Leave out NaN and infinities instead of refusing them."),
        flag("--force", is_flag=True, help="Replace an output that is there."),
        flag("--dtype", metavar="NAME", help="Float dtype of the blend: float32, bfloat16, ...; as the first member."),
        flag("--vocabulary", metavar="NAME", help="Match embeddings by token, into those of union, base or first."),
        flag("--device", metavar="NAME", help="Add up on a torch device: cuda, or auto for a GPU where there is one."),
    ),
)
JUDGES = Section(
    "What is ranked",
    (
        flag("--id", "--ids", "id_column", metavar="COL", help="Column that names the alternatives of a table."),
        words.columns("The judges' columns of a table, default every numeric one."),
    ),
)
ANSWER = words.method_section("A .safetensors file or a folder; for a ranking a table.", "--out")


@dataclass(frozen=True, kw_only=True)
class CombineArguments(VerbArguments):
    """What `kofn combine` was asked."""

    VERB: ClassVar[str] = "combine"
    OPTIONS: ClassVar[tuple[str, ...]] = ("only", "skip", "skip_nonfinite", "dtype", "vocabulary", "device")

    base: str | None
    weights: list[float] | None
    summed: bool | None
    only: tuple[str, ...]
    skip: tuple[str, ...]
    skip_nonfinite: bool
    dtype: str | None
    vocabulary: str | None
    force: bool
    device: str | None
    id_column: str | None
    columns: tuple[str, ...] | None


@click.command("combine", cls=VerbCommand, verb="combine", sections=(MEMBERS, JUDGES, *ANSWER), short_help="Blend.")
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.pass_obj
def command(typed: Sequence[str], members: tuple[str, ...], **values: Any) -> None:
    """Blend checkpoints (files or folders of safetensors), LoRA adapters, or the judges' scores in a table, into one.

    Adapters are PEFT's, kohya's, diffusers', torchtune's, MLX's, or LoHa and LoKr of LyCORIS: recognised by the
    names of their tensors, added as the updates they are, and saved as the first is (or as PEFT's folder: --format
    peft). Beside a model, they are folded into it.

    A recipe (.toml or .yaml, mergekit's too) names members, a method, and other methods for some tensors. A run that
    was killed goes on where it was when the same command is given again. A table has one row an alternative and one
    column a judge, higher is better; empty cells are scores not given.

    \b
    kofn combine a/ b/ c/ --weights .5,.3,.2 -o merged/
    kofn combine a/ b/ --base d/ --method ties --density 0.3 -o merged/ --report merged.html
    kofn combine recipe.toml -o merged/
    kofn combine adapter_a/ adapter_b/ --sum -o adapter/
    kofn combine base/ adapter/ -o merged/
    kofn combine style.safetensors face.safetensors --weights .7,.3 -o both.safetensors
    kofn combine leaderboard.csv --id model -o ranking.csv
    """
    arguments = CombineArguments.of(typed, values)
    suffix = suffix_of(Path(members[0]))
    check_outputs(arguments, members, table=suffix in TABLES)
    if suffix in RECIPES:
        _follow(members, arguments)
    elif suffix in TABLES:
        _rank(members, arguments)
    else:
        _merge(members, with_method(members, arguments))


def with_method(members: Sequence[str], arguments: CombineArguments) -> CombineArguments:
    """The arguments with the method that the members ask for, where none is named."""
    from kofn.io.adapters import is_adapter

    if arguments.method != "auto":
        return arguments
    adapters = [is_adapter(member) for member in members]
    if all(adapters) and (arguments.base is None or "format" in arguments.options):
        return dataclasses.replace(arguments, method="stack_adapters")
    if any(adapters):
        return arguments
    whole = "weighted_mean" if arguments.base is None else "task_arithmetic"
    return dataclasses.replace(arguments, method=whole)


def _merge(members: Sequence[str], arguments: CombineArguments) -> None:
    """Blend checkpoints or adapters by one method."""
    from kofn.io.adapters import Adapter, is_adapter

    adapters = [member for member in members if is_adapter(member)]
    whole = [member for member in members if member not in adapters]
    entry = arguments.entry
    if arguments.summed is not None and entry is not None and not (adapters and whole):
        arguments = _summed(arguments, entry)
    sums_adapters = entry is not None and "other_base" in entry.options  # and reads the base, where there is one
    if adapters and (whole or (arguments.base is not None and not sums_adapters)):
        _fold(whole, adapters, arguments)
        return
    if adapters and entry is not None and "base" in entry.required:
        raise InputError(
            f"--method {arguments.method} blends models, {adapters[0]} is an adapter; {_folding('base/', adapters[0])}"
        )
    for name in arguments.OPTIONS:
        if name in arguments.options and entry is not None and name not in entry.options:
            raise InputError(f"--{name.replace('_', '-')} is not taken by {arguments.method}; leave it out")
    if arguments.dry_run:
        if adapters:
            _say_adapters([Adapter.read(member) for member in members], members, arguments)
        else:
            _say_fates(list(members), arguments)
        return
    options = arguments.options | {"out": _output(arguments)}
    if arguments.report and entry is not None and "measure" in entry.options:
        options["measure"] = True
    plan = combine(list(members), method=arguments.method, options=options, **arguments.given("base", "weights"))
    _finish(plan, list(members), arguments)


def _summed(arguments: CombineArguments, entry: Entry) -> CombineArguments:
    """The arguments with `--sum` or `--mean` as the option that methods have for it."""
    whole = entry.name == "weighted_mean" and arguments.summed and arguments.weights is None
    if "normalize" not in entry.options or whole:
        raise InputError(
            f"--{'sum' if arguments.summed else 'mean'} is of changes, which {entry.name} does not add up; give "
            "adapters, or --base and a method of task vectors such as task_arithmetic"
        )
    if "normalize" in arguments.own_options:
        raise InputError("--sum and --mean are --no-normalize and --normalize; give one of them")
    own = {**arguments.own_options, "normalize": not arguments.summed}
    return dataclasses.replace(arguments, own_options=own)


def _fold(whole: Sequence[str], adapters: Sequence[str], arguments: CombineArguments) -> None:
    """Fold adapters into the model that they were trained on: `kofn combine base/ adapter/ -o merged/`."""
    from kofn.combination import fold_adapters
    from kofn.io.adapters import Adapter

    models = [*whole, *([] if arguments.base is None else [arguments.base])]
    if len(models) != 1:
        raise InputError(
            f"{models[0]} and {models[1]} are models, {adapters[0]} is an adapter: fold each adapter into its own "
            "model first, then blend the models"
        )
    if arguments.method not in ("auto", "fold_adapters"):
        raise InputError(
            f"--method {arguments.method} blends models, {adapters[0]} is an adapter; "
            f"{_folding(models[0], adapters[0])}; leave --method out to fold it only"
        )
    pages = [name for name, path in (("report", arguments.report), ("plan", arguments.plan_path)) if path is not None]
    options = dict(arguments.options) | dict.fromkeys(pages)
    skip = options.pop("skip", None)
    if options:
        word = next(iter(options)).replace("_", "-")
        raise InputError(f"--{word} is not taken where adapters are folded in; leave it out")
    weights = arguments.weights if arguments.weights is not None else [1.0] * len(adapters)
    if arguments.summed is False:
        if sum(weights) <= 0:
            raise InputError(f"--mean: weights {weights} sum to {sum(weights):g}; give weights of a positive sum")
        weights = [weight / sum(weights) for weight in weights]
    read = [Adapter.read(path) for path in adapters]
    if arguments.dry_run:
        folded = fold_adapters(models[0], read, weights=weights, skip=skip)
        _say_adapters(read, adapters, arguments, {"base": models[0], "tensors": len(folded), "fits": "yes"})
        return
    out = _output(arguments)
    folded = fold_adapters(models[0], read, weights=weights, skip=skip, out=out)
    warnings = [
        text for path, adapter in zip(adapters, read, strict=True) for text in _of_other_base(path, adapter, models[0])
    ]
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    rows = {
        "method": "fold_adapters",
        "base": models[0],
        "adapters": list(adapters),
        "families": [adapter.facts() for adapter in read],
        "weights": weights,
        "tensors": len(folded),
        "warnings": warnings,
        "output": out,
    }
    subject = "1 adapter" if len(adapters) == 1 else f"{len(adapters)} adapters"
    lines = [f"{subject} folded into {models[0]}: {len(folded)} tensors -> {out}"]
    lines += [
        f"  weight {weight:.4g}  {path}  {_adapter_text(adapter.facts())}"
        for weight, path, adapter in zip(weights, adapters, read, strict=True)
    ]
    say(rows, lambda: "\n".join(lines), arguments.as_json)


def _of_other_base(path: str, adapter: Adapter, base: str) -> list[str]:
    """A warning where an adapter's configuration names another base than the one it is folded into."""
    named = adapter.family.trained_on(adapter.saved) if adapter.family.configured else None
    if named is None:
        return []
    name = Path(named).name.lower()
    # Caches of hubs keep a model as models--owner--name/snapshots/revision.
    known = {part.lower().rpartition("--")[2] for part in Path(base).resolve().parts}
    if name in known or name == Path(base).stem.lower():
        return []
    return [f"{path} was trained on {named!r} by its configuration, and is folded into {base}"]


def _folding(base: str, adapter: str) -> str:
    """How adapters are blended by a method of models."""
    return (
        f"fold each adapter into its base first (kofn combine {base} {adapter} -o folded/), then blend those, with "
        f"--base {base} for methods of task vectors"
    )


def _adapter_text(known: Mapping[str, Any]) -> str:
    return f"({known['family']}: {known['modules']} modules, rank {known['rank']}, scale {known['scale']})"


def _say_adapters(
    adapters: Sequence[Adapter],
    paths: Sequence[str],
    arguments: CombineArguments,
    more: Mapping[str, Any] | None = None,
) -> None:
    """What the adapters are, of which trainer, and what their factors are scaled by."""
    known = [adapter.facts() for adapter in adapters]
    subject = {"adapters": len(adapters), **(more or {})}
    lines = [f"  {path}  {_adapter_text(member)}" for path, member in zip(paths, known, strict=True)]
    rows = {**subject, "members": list(paths), "families": known}
    say(rows, lambda: "\n".join([facts(subject), *lines]), arguments.as_json)


def _follow(members: Sequence[str], arguments: CombineArguments) -> None:
    """Blend checkpoints as a recipe says."""
    from kofn.combination import merge_recipe, read_recipe

    if len(members) > 1:
        raise InputError(f"one recipe says all; {len(members)} files were given")
    typed = [f"--{name}" for name in ("base", "weights", "device") if getattr(arguments, name) is not None]
    typed += [] if arguments.summed is None else ["--sum" if arguments.summed else "--mean"]
    if arguments.method != "auto" or typed or arguments.own_options:
        raise InputError(f"{(typed or ['--method'])[0]} belongs in the recipe: write it into {members[0]}")
    recipe = read_recipe(members[0])
    if arguments.dry_run:
        _say_fates(list(recipe.members), arguments, recipe)
        return
    settings = {
        name: value for name, value in arguments.given().items() if name in ("max_memory", "n_threads", "progress")
    }
    plan = merge_recipe(recipe, out=_output(arguments), measure=bool(arguments.report), **arguments.options, **settings)
    _finish(plan, [str(member) for member in recipe.members], arguments)


def _output(arguments: CombineArguments) -> str:
    if arguments.output is None:
        raise InputError("give -o OUTPUT: a .safetensors file or a folder for the blend")
    out = Path(arguments.output)
    if out.suffix.lower() in OTHER_FILES and not out.is_dir():
        raise InputError(f"-o {arguments.output}: checkpoints are safetensors; name a .safetensors file or a folder")
    there = out.is_file() or (out.is_dir() and any(out.glob("*.safetensors")))
    if there and not arguments.force:
        raise InputError(f"-o {arguments.output} is there already; name another place, or replace it with --force")
    return arguments.output


def _finish(plan: Blend, members: list[str], arguments: CombineArguments) -> None:
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
        adapter = f"  {_adapter_text(rows['families'][i])}" if "families" in rows else ""
        lines.append(f"  {weight}{distance}{left}{path}{adapter}")
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


def _say_fates(members: list[Any], arguments: CombineArguments, recipe: Any = None) -> None:
    """What would become of every tensor, and the room it takes."""
    from kofn.combination import preview_merge
    from kofn.combination.recipes._settings import setting_lines

    rows = preview_merge(
        members if recipe is None else recipe,
        method=arguments.method,
        base=arguments.base,
        only=arguments.only or None,
        skip=arguments.skip or None,
        dtype=arguments.dtype,
        vocabulary=arguments.vocabulary,
    )
    settings = setting_lines(rows)
    size = sum(row["bytes"] for row in rows)
    out = Path(arguments.output or ".").absolute()
    folder = next(path for path in (out, *out.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    room: dict[str, Any] = {
        "members": len(members),
        "tensors": len(rows),
        "disk": f"{size:,} bytes for the output, {free:,} free in {folder}",
        "fits": "yes" if size <= free else f"no: {size - free:,} bytes short",
        "memory": "blocks only: about 100 MB, or --max-memory",
    }
    quantised = [row for row in rows if row["fate"].endswith(", requantised")]
    if quantised:
        largest = max(5 * row["bytes"] for row in quantised)
        count = "1 tensor" if len(quantised) == 1 else f"{len(quantised)} tensors"
        room["quantised"] = f"{count}, blended as what they stand for and quantised again"
        room["memory"] += f", and {largest:,} bytes a thread to quantise the largest tensor"
    lines = settings[:_PRINTED]
    if len(settings) > _PRINTED:
        lines.append(f"  and {len(settings) - _PRINTED} more groups of tensors (--json lists them all)")
    lines += [f"  {row['name']}  {row['dtype']} {tuple(row['shape'])}  {row['fate']}" for row in rows[:_PRINTED]]
    if len(rows) > _PRINTED:
        lines.append(f"  and {len(rows) - _PRINTED} more (--json lists them all)")
    say({**room, "fates": rows}, lambda: "\n".join([facts(room), *lines]), arguments.as_json)


def _rank(members: Sequence[str], arguments: CombineArguments) -> None:
    """Rank the rows of a table by the judges in its columns."""
    if len(members) > 1:
        raise InputError(f"a ranking is made from one table, {len(members)} were given; join them first")
    if arguments.summed is not None:
        raise InputError("--sum and --mean are of checkpoints and adapters; judges' points are averaged")
    table = Table.open(members[0], arguments.reading)
    arguments = arguments.named_in(table)
    judges, scores = read_judges(table, arguments.columns, arguments.id_column)
    if arguments.dry_run:
        size = {"judges": len(judges), "alternatives": table.n, "exact": "yes"}
        say(size, lambda: facts(size), arguments.as_json)
        return
    call = arguments.given("base", "weights") | {"rankings": scores.T}
    if arguments.id_column:
        call["ids"] = table.ids(arguments.id_column)
    plan = combine(method=arguments.method, options=arguments.options, **call)
    plan.info["judges"] = list(judges)
    finish(plan, arguments, plan.to_frame)
    say(answer_ranking(plan, judges, arguments), lambda: render_ranking(plan, judges, arguments), arguments.as_json)


def answer_ranking(plan: Blend, judges: Sequence[str], arguments: CombineArguments) -> dict[str, Any]:
    """The ranking for machines."""
    return {
        "method": plan.method,
        "judges": list(judges),
        "ranking": plan.to_frame()["id"].to_list(),
        "spread": plan.spread,
        "output": arguments.output,
        **({"report": arguments.report} if arguments.report else {}),
    }


def render_ranking(plan: Blend, judges: Sequence[str], arguments: CombineArguments) -> str:
    """The ranking for people: the first ten."""
    ranking = plan.to_frame()
    named = ", ".join([*judges[:_NAMED], *(["..."] if len(judges) > _NAMED else [])])
    lines = [f"{plan.method}: {len(ranking)} alternatives ranked by {len(judges)} judges: {named}"]
    for row in ranking.head(10).iter_rows(named=True):
        points = f"  {row['points']:.4g} points" if "points" in row else ""
        lines.append(f"  {row['rank']:3}. {row['id']}{points}")
    if arguments.output:
        lines.append(f"ranking -> {arguments.output}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
