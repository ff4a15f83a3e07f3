"""`kofn find`: what answers a question."""

from __future__ import annotations

import dataclasses
import json

import click


@click.command("find", short_help="Find what answers a question.")
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(min=1), default=5, show_default=True, help="How many hits at most.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find methods, objectives, steppers, modules and helpers by WORDS: names, what they do, titles of papers, and the
    field's own names for them. Each hit comes with a call, its code, test, claim and paper.

    \b
    kofn find k-center
    kofn find merge lora adapters
    kofn find equal size groups
    """
    from kofn.finding import find

    hits = find(" ".join(words), limit)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=2, ensure_ascii=False))
    elif hits:
        click.echo("\n\n".join(map(str, hits)))
    else:
        click.echo(f"nothing here knows the words {' '.join(words)!r}; `kofn methods` lists what there is")
