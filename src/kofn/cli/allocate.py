"""`kofn allocate`: a table of curves in, amounts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from kofn.cli.allocate_answer import answer, render
from kofn.cli.allocate_arguments import ANSWER, BUDGET, CURVES, ITEMS
from kofn.cli.allocate_model import allocate_model, is_model, refuse_model_words
from kofn.cli.allocate_model_arguments import MODEL
from kofn.cli.estimate import say_beforehand
from kofn.cli.printing import say
from kofn.cli.verb_command import VerbCommand
from kofn.cli.write import check_outputs, finish
from kofn.core import dispatch
from kofn.core.compiled import only_compiled
from kofn.io.opening import open_table
from kofn.tables.allocate_arguments import AllocateArguments
from kofn.tables.allocate_reading import call_of, read_input
from kofn.verbs import allocate


@click.command(
    "allocate",
    cls=VerbCommand,
    verb="allocate",
    sections=(CURVES, ITEMS, BUDGET, MODEL, *ANSWER),
    short_help="Share.",
)
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(typed: Sequence[str], file: str, **values: Any) -> None:
    """Share a budget over the items of FILE, one row an item and one column a level; or whole units by scores.

    \b
    kofn allocate curves.csv --id layer --size params --levels 2,3,4,8 --mean-budget 4 -o bits.csv
    kofn allocate curves.csv --id layer --size params --mean-budget 4 --limit ms=30 --tie block -o bits.csv
    kofn allocate votes.csv --id party --budget 120 --method sainte_lague
    kofn allocate prompts.csv --id prompt --score pass_rate -m rollout_knapsack --budget 8000 -o rollouts.csv
    kofn allocate model/ --bits 3.0 -o plan.json --report plan.html
    kofn allocate model/ --use plan.json --apply quantised/
    """
    if is_model(file):
        allocate_model(typed, file, values)
        return
    values = refuse_model_words(values, file)
    arguments = AllocateArguments.of(typed, values)
    check_outputs(arguments, [file])
    table = open_table(file, arguments.reading)
    arguments = arguments.named_in(table)
    curves = read_input(table, arguments)
    call = call_of(table, arguments, curves)
    if arguments.dry_run:
        with only_compiled():
            say_beforehand("allocate", arguments.method, call.options, call.words, arguments.as_json)
        return
    if arguments.report and _draws_frontier(arguments, call.words, call.options):
        call.options["frontier"] = True
    plan = allocate(method=arguments.method, options=call.options, **call.words)
    shown = {"curves": curves.values, "levels": call.options.get("levels")} if curves.values.ndim == 2 else {}
    finish(plan, arguments, lambda: plan.to_frame().drop("index"), **shown)
    for warning in plan.info.get("warnings", ()):
        click.echo(f"warning: {warning.replace('sense=', '--sense ').replace(chr(39), '')}", err=True)
    say(answer(plan, arguments, curves), lambda: render(plan, arguments, curves, call), arguments.as_json)


def _draws_frontier(arguments: AllocateArguments, words: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether the method that answers this call has the trade-off curve, for the report."""
    name = arguments.method
    if name == "auto":
        name = dispatch.choose("allocate", {word: value for word, value in words.items() if word != "ids"}, options)
    entry = dispatch.methods_of("allocate").get(name)
    return entry is not None and "frontier" in entry.options
