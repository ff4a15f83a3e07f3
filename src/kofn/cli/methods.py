"""`kofn methods`: what there is, and what fits the arguments you have."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from kofn.core import dispatch, registry
from kofn.core.checks import InputError, nearest
from kofn.core.vocabulary import VOCABULARY


@click.command("methods", short_help="List the methods.")
@click.argument("verb", required=False)
@click.option("--given", metavar="WORDS", help="Only methods that take these arguments, for example scores,capacity.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(verb: str | None, given: str | None, as_json: bool) -> None:
    """List the methods of VERB (or of all four): what they do, what they need, what is exact, what they cost.

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
    verbs = registry.VERBS if verb is None else (verb,)
    rows = [entry for name in verbs for entry in dispatch.methods_of(name).values()]
    rows = [entry for entry in rows if not words or entry.takes(words - {"ids"}) is not None]
    if as_json:
        fields = ("name", "verb", "summary", "inputs", "options", "traits", "cost", "exact", "paper")
        click.echo(json.dumps([{field: _plain(getattr(entry, field)) for field in fields} for entry in rows], indent=2))
        return
    if not rows:
        click.echo("no method takes all of " + ", ".join(sorted(words)))
        return
    _table(rows)


def _objectives(as_json: bool) -> None:
    """What `--objective` may name."""
    from kofn.objectives.base import GREEDY, OBJECTIVES

    rows = [{"objective": name, **OBJECTIVES[name].row()} for name in GREEDY]
    click.echo(json.dumps(rows, indent=2)) if as_json else _print(rows)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else value


def _table(entries: list[registry.Entry]) -> None:
    _print(
        [{"verb": e.verb, "method": e.name, "does": e.summary, "needs": e.inputs, "exact": e.exact} for e in entries]
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
