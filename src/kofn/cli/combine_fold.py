"""`kofn combine` of a model and adapters: they are folded into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from kofn.cli.combine_answer import adapter_text, disk_for, say_adapters
from kofn.cli.combine_arguments import CombineArguments, output_of
from kofn.cli.printing import say
from kofn.core.checks import InputError

_ABOUT = ("report", "plan")  # what says something of an answer


def fold(whole: Sequence[str], adapters: Sequence[str], arguments: CombineArguments) -> None:
    """Fold adapters into the model that they were trained on: `kofn combine base/ adapter/ -o merged/`."""
    from kofn.combination.adapters._fold_adapter import open_fold
    from kofn.io.adapters import Adapter, model_beside

    models = [*whole, *([] if arguments.base is None else [arguments.base])]
    if len(models) != 1:
        raise InputError(
            f"{models[0]} and {models[1]} are models, {adapters[0]} is an adapter: fold each adapter into its own "
            "model first, then blend the models"
        )
    if arguments.method not in ("auto", "fold_adapters"):
        raise InputError(
            f"--method {arguments.method} blends models, {adapters[0]} is an adapter; "
            f"{folding(models[0], adapters[0])}; leave --method out to fold it only"
        )
    opened = open_fold(models[0], read := [Adapter.read(path) for path in adapters], **_settings(adapters, arguments))
    opened.folding.notes[:0] = [
        f"{path} holds a model too, which is left out: its adapter is folded; if the model is meant, name {model}"
        for path in adapters
        if (model := model_beside(path)) is not None
    ]
    known = [adapter.facts(modules) for adapter, modules in zip(read, opened.folding.modules, strict=True)]
    if arguments.dry_run:
        for warning in opened.folding.notes:
            click.echo(f"warning: {warning}", err=True)
        size = sum(spec.nbytes for spec in opened.specs.values())
        more = {"base": models[0], "tensors": len(opened.specs), **disk_for(size, arguments.output)}
        say_adapters(read, adapters, arguments, more, known, opened.weights)
        return
    out = output_of(arguments)
    folded = opened.write(out)
    warnings = opened.folding.notes
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    rows = {
        "method": "fold_adapters",
        "base": models[0],
        "adapters": list(adapters),
        "families": known,
        "weights": opened.weights,
        "tensors": len(folded),
        "warnings": warnings,
        "output": out,
    }
    subject = "1 adapter" if len(adapters) == 1 else f"{len(adapters)} adapters"
    lines = [f"{subject} folded into {models[0]}: {len(folded)} tensors -> {out}"]
    lines += [
        f"  weight {weight:.4g}  {path}  {adapter_text(facts)}"
        for weight, path, facts in zip(opened.weights, adapters, known, strict=True)
    ]
    say(rows, lambda: "\n".join(lines), arguments.as_json)


def _settings(adapters: Sequence[str], arguments: CombineArguments) -> dict[str, Any]:
    """The weights, and which modules are folded into which dtype."""
    others = {"report": arguments.report, "plan": arguments.plan_path, "device": arguments.device}
    others["engine"] = None if arguments.engine == "local" else arguments.engine
    options: dict[str, Any] = dict(arguments.options)
    options |= {name: value for name, value in others.items() if value is not None}
    settings: dict[str, Any] = {name: options.pop(name) for name in ("only", "skip", "dtype") if name in options}
    if options:
        word = next(iter(options)).replace("_", "-")
        instead = " (a fold judges nothing; --json gives its modules, ranks and weights)" if word in _ABOUT else ""
        raise InputError(f"--{word} is not taken where adapters are folded in; leave it out{instead}")
    weights = arguments.weights if arguments.weights is not None else [1.0] * len(adapters)
    if arguments.summed is False:
        if sum(weights) <= 0:
            raise InputError(f"--mean: weights {weights} sum to {sum(weights):g}; give weights of a positive sum")
        weights = [weight / sum(weights) for weight in weights]
    return {**settings, "weights": weights}


def folding(base: str, adapter: str) -> str:
    """How adapters are blended by a method of models."""
    return (
        f"fold each adapter into its base first (kofn combine {base} {adapter} -o folded/), then blend those, with "
        f"--base {base} for methods of task vectors"
    )
