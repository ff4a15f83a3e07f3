"""`kofn combine`: checkpoints, adapters, predictions or posteriors into one, or a table of scores into one ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import click

from kofn.cli.arguments import rescaled
from kofn.cli.combine_answer import finish_blend, refuse_unknown_architecture, say_adapters, say_fates
from kofn.cli.combine_arguments import ANSWER, JUDGES, MEMBERS, PREDICTED, CombineArguments, output_of
from kofn.cli.combine_fold import fold, folding
from kofn.cli.combine_kinds import are_draws, are_predictions, refuse_unnamed_draws
from kofn.cli.verb_command import VerbCommand
from kofn.cli.write import check_outputs
from kofn.core.checks import InputError, names_a_file
from kofn.core.registry import Entry
from kofn.io.lm_eval import is_results
from kofn.io.reading import suffix_of
from kofn.tables.read import TABLES
from kofn.verbs import combine

RECIPES = (".toml", ".yaml", ".yml")


@click.command(
    "combine", cls=VerbCommand, verb="combine", sections=(MEMBERS, JUDGES, PREDICTED, *ANSWER), short_help="Blend."
)
@click.argument("members", nargs=-1, required=True, metavar="MEMBER...")
@click.pass_obj
def command(typed: Sequence[str], members: tuple[str, ...], **values: Any) -> None:
    """Blend checkpoints (files or folders of safetensors), LoRA adapters, or the judges' scores in a table, into one.

    Adapters are PEFT's, kohya's, diffusers', torchtune's, MLX's, or LoHa and LoKr of LyCORIS or PEFT: recognised by the
    names of their tensors, added as the updates they are, and saved as the first is (or as PEFT's folder: --format
    peft). Beside a model, they are folded into it, without a report or a plan.

    A recipe (.toml or .yaml, mergekit's too) names members, a method, and other methods for some tensors. A run that
    was killed goes on where it was when the same command is given again. A table has one row an alternative and one
    column a judge, higher is better but for --lower; empty cells are scores not given. The folder that
    lm-evaluation-harness wrote is such a table: its models are ranked by its tasks. Votes between two, one a row
    (model_a, model_b, winner, as arenas write them), are counted; with --wins the table holds such counts.

    With --label, arrays or columns are what models predicted, best of rows that they were not trained on: those are
    blended whose mean loses least. Columns may be named after classes (forest_yes, forest_no); of answers 0 and 1,
    --classes no,yes says which they are.

    With --method consensus_monte_carlo, gaussian_product or kernel_product, arrays, tables or ArviZ's .nc are draws of
    sub-posteriors, one file a shard with one array or column a parameter: -o gets draws of their product. With
    credal_mixture (and --weights, the preference) or hierarchical_normal they are posteriors of tasks that differ.

    \b
    kofn combine a/ b/ c/ --weights .5,.3,.2 -o merged/
    kofn combine a/ b/ --base d/ --method ties --density 0.3 -o merged/ --report merged.html
    kofn combine recipe.toml -o merged/
    kofn combine adapter_a/ adapter_b/ --sum -o adapter/
    kofn combine base/ adapter/ -o merged/
    kofn combine style.safetensors face.safetensors --weights .7,.3 -o both.safetensors
    kofn combine leaderboard.csv --id model --lower perplexity -o ranking.csv
    kofn combine results/ -o ranking.csv
    kofn combine oof_*.npy --labels y.npy -k 5 --apply 'test_*.npy' -o blend.npy
    kofn combine oof.csv --id row --label target -o blend.csv
    kofn combine posterior_*.npz --method consensus_monte_carlo -o posterior.npz
    kofn combine task_*.nc --method credal_mixture --weights 3,1,1 -o models.npz
    kofn combine votes.csv -o ranking.csv
    kofn combine head_to_head.csv --id model --wins -o ranking.csv
    """
    members = tuple(member for given in members for member in named_by(given))
    arguments = CombineArguments.of(typed, values)
    suffix = suffix_of(Path(members[0]))
    ranked = suffix in TABLES or all(map(is_results, members))
    if arguments.wins and suffix not in TABLES:
        raise InputError(f"--wins is of a table of wins, which {members[0]} is not; leave it out")
    # What combines other kinds of members takes longer to import than a small model takes to be folded.
    if are_draws(arguments):
        from kofn.cli.combine_draws import combine_draws

        combine_draws(members, arguments)
        return
    refuse_unnamed_draws(arguments)
    if are_predictions(members, arguments):
        from kofn.cli.combine_predictions import blend_predictions

        blend_predictions(members, arguments)
        return
    check_outputs(arguments, members, table=ranked, checkpoint=not ranked)
    if arguments.dry_run and arguments.output is not None and not ranked:
        output_of(arguments)
    if suffix in RECIPES:
        _follow(members, arguments)
    elif ranked:
        from kofn.cli.combine_ranking import rank

        rank(members, arguments)
    else:
        from kofn.io.adapters import is_adapter

        adapters = [member for member in members if is_adapter(member)]
        _merge(members, adapters, _with_method(members, adapters, arguments))


def named_by(member: str) -> list[str]:
    """The files and folders that a quoted glob stands for, in the order of their names; else the member itself."""
    if names_a_file(member) or not has_magic(member):
        return [member]
    paths = sorted(glob(member, recursive=True))
    if not paths:
        raise InputError(f"{member}: no file or folder is called so; check the glob")
    return paths


def _with_method(members: Sequence[str], adapters: Sequence[str], arguments: CombineArguments) -> CombineArguments:
    """The arguments with the method that the members ask for, where none is named."""
    if arguments.method != "auto":
        return arguments
    if len(adapters) == len(members) and (arguments.base is None or "format" in arguments.options):
        return dataclasses.replace(arguments, method="stack_adapters")
    if adapters:
        return arguments
    whole = "weighted_mean" if arguments.base is None else "task_arithmetic"
    return dataclasses.replace(arguments, method=whole)


def _merge(members: Sequence[str], adapters: Sequence[str], arguments: CombineArguments) -> None:
    """Blend checkpoints or adapters by one method."""
    whole = [member for member in members if member not in adapters]
    entry = arguments.entry
    if arguments.summed is not None and entry is not None and not (adapters and whole):
        arguments = _summed(arguments, entry)
    sums_adapters = entry is not None and "other_base" in entry.options  # and reads the base, where there is one
    if not whole and arguments.base is None:
        _refuse_both_kinds(adapters)
    if adapters and (whole or (arguments.base is not None and not sums_adapters)):
        fold(whole, adapters, arguments)
        return
    if adapters and entry is not None and "base" in entry.required:
        raise InputError(
            f"--method {arguments.method} blends models, {adapters[0]} is an adapter; {folding('base/', adapters[0])}"
        )
    for name in arguments.OPTIONS:
        if name in arguments.options and entry is not None and name not in entry.options:
            raise InputError(f"--{name.replace('_', '-')} is not taken by {arguments.method}; leave it out")
    if arguments.dry_run:
        if adapters:
            from kofn.io.adapters import Adapter

            if sums_adapters:
                _open_as_the_run(members, arguments)
            say_adapters([Adapter.read(member) for member in members], members, arguments)
        else:
            refuse_unknown_architecture(members, arguments)
            say_fates(list(members), arguments)
        return
    options = arguments.options | {"out": output_of(arguments)}
    if arguments.report and entry is not None and "measure" in entry.options:
        options["measure"] = True
    if arguments.method == "weighted_mean" and (note := rescaled(arguments.weights)):
        click.echo(f"note: {note}", err=True)
    plan = combine(list(members), method=arguments.method, options=options, **arguments.given("base", "weights"))
    finish_blend(plan, list(members), arguments)


def _open_as_the_run(members: Sequence[str], arguments: CombineArguments) -> None:
    """Refuse in a dry run what the sum of adapters refuses."""
    from kofn.combination.adapters._pool import open_adapters
    from kofn.combination.adapters._reduce_adapters import ranks_asked
    from kofn.combination.recipes._merge_recipe import member_weights

    assert arguments.entry is not None
    own = {name: arguments.options.get(name) for name in ("rank", "energy")}
    ranks_asked(**own)
    defaults = {"normalize": True, "other_base": False, "dtype": "same", "format": "same"}
    given = {name: arguments.options.get(name, value) for name, value in defaults.items()}
    counts = member_weights(arguments.weights, len(members))
    open_adapters(members, counts, arguments.base, **given, out=arguments.output)


def _refuse_both_kinds(adapters: Sequence[str]) -> None:
    """Refuse folders that hold an adapter and a model, of which either may be meant."""
    from kofn.io.adapters import adapter_file, model_beside

    for path in adapters:
        model = model_beside(path)
        if model is not None and model != (own := adapter_file(Path(path), path)):
            raise InputError(f"{path} holds an adapter and a model: name the file that is meant, {own} or {model}")


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


def _follow(members: Sequence[str], arguments: CombineArguments) -> None:
    """Blend checkpoints as a recipe says."""
    from kofn.combination import merge_recipe, read_recipe

    if len(members) > 1:
        raise InputError(f"one recipe says all; {len(members)} files were given")
    typed = [f"--{name}" for name in ("base", "weights", "device", "lower") if getattr(arguments, name) is not None]
    typed += [] if arguments.summed is None else ["--sum" if arguments.summed else "--mean"]
    if arguments.method != "auto" or typed or arguments.own_options:
        raise InputError(f"{(typed or ['--method'])[0]} belongs in the recipe: write it into {members[0]}")
    recipe = read_recipe(members[0])
    if arguments.dry_run:
        say_fates(list(recipe.members), arguments, recipe)
        return
    settings = {
        name: value
        for name, value in arguments.given().items()
        if name in ("max_memory", "n_threads", "progress", "engine")
    }
    plan = merge_recipe(
        recipe, out=output_of(arguments), measure=bool(arguments.report), **arguments.options, **settings
    )
    # Where one file holds several recipes, members are known once those that make them were run.
    blended = recipe.members or plan.info["members"]
    finish_blend(plan, [str(member) for member in blended], arguments)
