"""`kofn allocate model/`: bits, or shares of weights left, for the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from kofn.cli.allocate_arguments import BUDGET, CURVES, ITEMS
from kofn.cli.allocate_model_answer import answer, render, render_beforehand
from kofn.cli.allocate_model_arguments import MODEL, ModelArguments
from kofn.cli.printing import plain, say
from kofn.cli.write import WRITTEN, check_outputs
from kofn.core.checks import InputError, bytes_of

_FORMATS = ("llmcompressor", "auto-round")

_WORDS = tuple(option.name for option in MODEL.flags if option.name is not None)


def is_model(file: str) -> bool:
    """Whether what is named is a checkpoint and no table."""
    return Path(file).is_dir() or file.endswith((".safetensors", ".safetensors.index.json"))


def refuse_model_words(values: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The values without those that are of models only, none of which may have been typed."""
    typed = [option for option in MODEL.flags if values.get(option.name or "") not in (None, (), False)]
    if typed:
        raise InputError(
            f"{typed[0].opts[0]} is of a model on disk, which {file} is not; leave it out, or give a folder or file of "
            "safetensors"
        )
    return {name: value for name, value in values.items() if name not in _WORDS}


def allocate_model(typed: Sequence[str], file: str, values: Mapping[str, Any]) -> None:
    """Allocate, and write what was asked for."""
    arguments = _arguments(typed, file, values)
    from kofn.allocation import allocate_checkpoint, apply_plan, export_plan, read_plan

    if arguments.dry_run:
        say(*render_beforehand(file, arguments), arguments.as_json)
        return
    settings = {"n_threads": arguments.n_threads, "progress": arguments.progress}
    plan = read_plan(arguments.use) if arguments.use else allocate_checkpoint(file, **arguments.asked, **settings)
    notes: list[str] = []
    WRITTEN.clear()
    if arguments.output:
        if arguments.format:
            notes += export_plan(plan, arguments.output, format=arguments.format)
        else:
            plan.save(arguments.output)
        WRITTEN.append(arguments.output)
    if arguments.report:
        from kofn.report.checkpoints import write_checkpoint_report

        write_checkpoint_report(plan, arguments.report, command=arguments.typed)
        WRITTEN.append(arguments.report)
    if arguments.applied:
        apply_plan(plan, file, out=arguments.applied, statistics=arguments.statistics, **settings)
        WRITTEN.append(arguments.applied)
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    say(plain(answer(plan, arguments)), lambda: render(plan, arguments), arguments.as_json)


def _arguments(typed: Sequence[str], file: str, values: Mapping[str, Any]) -> ModelArguments:
    own = {item.name for item in fields(ModelArguments)} | {"extra"}
    others = [name for name, value in values.items() if name not in own and value not in (None, (), False, {})]
    if others:
        of_tables = {option.name: option.opts[0] for option in (*CURVES.flags, *ITEMS.flags, *BUDGET.flags)}
        name = of_tables.get(others[0], f"--{others[0].replace('_', '-')}")
        raise InputError(f"{name} is of tables, {file} is a model on disk; leave it out (a mean is --bits 3.0)")
    arguments = ModelArguments.of(typed, {name: value for name, value in values.items() if name in own})
    for name in ("method", "plan_path", "time_limit", "seed"):
        if getattr(arguments, name) not in (None, "auto"):
            flag_name = name.removesuffix("_path").replace("_", "-")
            raise InputError(f"--{flag_name} is not taken for a model on disk; leave it out")
    if arguments.own_options:
        raise InputError(f"--option {next(iter(arguments.own_options))} is not taken for a model on disk; leave it out")
    check_outputs(arguments, [file], table=False)
    _check_words(arguments, file)
    if arguments.applied:
        _check_target(arguments.applied, file)
    return arguments


def _check_words(arguments: ModelArguments, file: str) -> None:
    """Refuse words that do not go together, before any work is done."""
    if arguments.use and (clash := [name for name in arguments.asked if name not in ("tie", "statistics")]):
        raise InputError(f"--use takes the plan of {arguments.use} as it is; leave out --{clash[0].replace('_', '-')}")
    if arguments.use is None and arguments.bits is None and arguments.sparsity is None:
        raise InputError(f"{file} is a model on disk: give --bits 3.0 or --sparsity 0.7, or a plan with --use")
    if arguments.format is not None and arguments.format not in _FORMATS:
        raise InputError(f"--format {arguments.format}: give {' or '.join(_FORMATS)}")
    if arguments.format and not arguments.output:
        raise InputError(f"--format {arguments.format}: -o names the file that is written")
    wanted = {None: ".json", "llmcompressor": ".yaml", "auto-round": ".json"}[arguments.format]
    if arguments.output and Path(arguments.output).suffix.lower() not in (wanted, wanted.replace("yaml", "yml")):
        raise InputError(
            f"-o {arguments.output}: the plan is written as {wanted[1:].upper()}; end the name in {wanted}"
        )
    if arguments.max_memory is not None and bytes_of(arguments.max_memory) < _LEAST_MEMORY:
        raise InputError(f"--max-memory {arguments.max_memory}: the work needs {_LEAST_MEMORY:,} bytes; give as many")


def _check_target(applied: str, file: str) -> None:
    """Refuse a place that no checkpoint can be written to, before any work is done."""
    from kofn.io.tensor_writer import CheckpointWriter
    from kofn.io.tensors import Checkpoint

    checkpoint = Checkpoint.open(file)
    if checkpoint.is_at(Path(applied)):
        raise InputError(f"--apply {applied} is the model itself; name another folder")
    CheckpointWriter(applied, checkpoint.layout)


# The interpreter with the kernels, and the blocks of two threads.
_LEAST_MEMORY = 300_000_000
