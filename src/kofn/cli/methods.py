"""`kofn methods`: what there is, and what fits the arguments you have."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from kofn import _index
from kofn.cli.flags import Flag
from kofn.core import dispatch, registry
from kofn.core.checks import InputError, nearest
from kofn.core.vocabulary import VOCABULARY


@click.command("methods", short_help="List the methods.")
@click.argument("verb", required=False)
@click.option(
    "--given", cls=Flag, metavar="WORDS", help="Only methods that take these arguments, for example scores,capacity."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(verb: str | None, given: str | None, as_json: bool) -> None:
    """List the methods, steppers and modules of VERB (or of all four): what they do, need, promise and cost.

    \b
    kofn methods assign
    kofn methods --given scores,capacity
    kofn methods objectives
    """
    if verb == "objectives":
        _objectives(as_json)
        return
    words = {word.strip() for word in given.split(",")} if given else set()
    for word in words:
        if word not in VOCABULARY:
            raise InputError(
                f"--given {word!r} is no argument{nearest(word, VOCABULARY)}; the words: {', '.join(VOCABULARY)}"
            )
    entries = [entry for name in (registry.VERBS if verb is None else (verb,)) for entry in _entries(name)]
    rows = [
        entry for entry in entries if not words or (entry.callable_by_verb and entry.takes(words - {"ids"}) is not None)
    ]
    if as_json:
        fields = (
            "name",
            "verb",
            "form",
            "summary",
            "inputs",
            "options",
            "traits",
            "cost",
            "exact",
            "paper",
            "python_only",
        )
        click.echo(json.dumps([{field: _plain(getattr(entry, field)) for field in fields} for entry in rows], indent=2))
        return
    if not rows:
        click.echo("no method takes all of " + ", ".join(sorted(words)))
        return
    _table(rows)


def _entries(verb: str) -> list[registry.Entry]:
    """Everything of one verb, steppers and modules too, and the methods of plug-ins."""
    callable_by_verb = dispatch.methods_of(verb)
    others = [entry for entry in _index.rows(verb) if entry.name not in callable_by_verb]
    return [*callable_by_verb.values(), *others]


def _objectives(as_json: bool) -> None:
    """What `--objective` may name."""
    from kofn.objectives.base import GREEDY, OBJECTIVES

    rows = [{"objective": name, **OBJECTIVES[name].row()} for name in GREEDY]
    click.echo(json.dumps(rows, indent=2)) if as_json else _print(rows)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _table(entries: list[registry.Entry]) -> None:
    _print(
        [
            {
                "verb": entry.verb,
                "method": entry.name,
                "form": entry.form.replace("_", " ") + (", Python only" if entry.python_only else ""),
                "does": entry.summary,
                "needs": entry.inputs + (f": {entry.python_call}" if entry.python_only else ""),
                "exact": entry.exact,
            }
            for entry in entries
        ]
    )


def _print(rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold", style="bold" if name in ("method", "objective") else None)
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    # A pipe has no width of its own; a table folded to 80 columns there helps nobody.
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
