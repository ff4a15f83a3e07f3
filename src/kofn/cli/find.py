"""`kofn find`: which method, objective, stepper, module or helper answers a question in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click

from kofn.cli.flags import Flag
from kofn.cli.printing import say
from kofn.core.checks import InputError
from kofn.finding import Hit, find


@click.command("find", short_help="Find what answers a question.")
@click.argument("words", nargs=-1, required=True, metavar="WORDS...")
@click.option("--limit", cls=Flag, type=int, default=5, show_default=True, help="How many to show at most.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find what answers a question, in the words of the field: methods, objectives, steppers, modules and helpers.

    \b
    kofn find must-link
    kofn find merge LoRA adapters
    kofn find "near duplicates" --limit 3
    """
    question = " ".join(words)
    hits = find(question, limit)
    if not hits and not as_json:
        raise InputError(f"nothing answers {question!r}; try other words, or `kofn methods` for a list of all")
    say([dataclasses.asdict(hit) for hit in hits], lambda: _shown(hits), as_json)


def _shown(hits: Sequence[Hit]) -> str:
    """A table on a terminal, with the places of the first hit below; a block of lines a hit where piped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        return "\n\n".join(str(hit) for hit in hits)
    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("form")
    table.add_column("does, and how it is called", overflow="fold")
    for hit in hits:
        does = Text(hit.summary).append(f"\n{hit.call}", style="cyan")
        form = "" if hit.form == "elsewhere" else hit.form
        table.add_row(Text(hit.name), f"{hit.verb} {form}".strip().replace("_", " "), does)
    with console.capture() as shown:
        console.print(table)
        first = hits[0]
        for title, text in (("code", first.file), ("test", first.test), ("claim", first.claim), ("paper", first.paper)):
            if text:
                console.print(Text(f"{title:6}{text}"), style="dim", soft_wrap=True)
    return shown.get().rstrip("\n")
