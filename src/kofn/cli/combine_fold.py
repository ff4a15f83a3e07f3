"""`kofn combine` of a model and adapters: they are folded into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kofn.cli.combine_answer import adapter_text, say_adapters
from kofn.cli.combine_arguments import CombineArguments, output_of
from kofn.cli.printing import say
from kofn.core.checks import InputError

if TYPE_CHECKING:
    from kofn.io.adapters import Adapter


def fold(whole: Sequence[str], adapters: Sequence[str], arguments: CombineArguments) -> None:
    """Fold adapters into the model that they were trained on: `kofn combine base/ adapter/ -o merged/`."""
    from kofn.combination.adapters._fold_adapter import open_fold
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
            f"{folding(models[0], adapters[0])}; leave --method out to fold it only"
        )
    opened = open_fold(models[0], read := [Adapter.read(path) for path in adapters], **_settings(adapters, arguments))
    known = [adapter.facts(modules) for adapter, modules in zip(read, opened.folding.modules, strict=True)]
    if arguments.dry_run:
        more = {"base": models[0], "tensors": len(opened.specs), "fits": "yes"}
        say_adapters(read, adapters, arguments, more, known)
        return
    out = output_of(arguments)
    folded = opened.write(out)
    warnings = [
        *opened.folding.notes,
        *(text for path, each in zip(adapters, read, strict=True) for text in _of_other_base(path, each, models[0])),
    ]
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
        raise InputError(f"--{word} is not taken where adapters are folded in; leave it out")
    weights = arguments.weights if arguments.weights is not None else [1.0] * len(adapters)
    if arguments.summed is False:
        if sum(weights) <= 0:
            raise InputError(f"--mean: weights {weights} sum to {sum(weights):g}; give weights of a positive sum")
        weights = [weight / sum(weights) for weight in weights]
    return {**settings, "weights": weights}


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


def folding(base: str, adapter: str) -> str:
    """How adapters are blended by a method of models."""
    return (
        f"fold each adapter into its base first (kofn combine {base} {adapter} -o folded/), then blend those, with "
        f"--base {base} for methods of task vectors"
    )
