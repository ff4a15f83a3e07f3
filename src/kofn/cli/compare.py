"""`kofn compare`: which way to pick rows teaches a classifier most, tried on the rows that have labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from kofn.cli import arguments as words
from kofn.cli.arguments import NAMES, NUMBERS, flag
from kofn.cli.compare_trial import METHODS, CompareArguments, Trial, try_methods
from kofn.cli.printing import say
from kofn.cli.verb_command import Section, write_sections
from kofn.io.opening import open_table

COMPARED = Section(
    "What the rows are compared by",
    (
        words.TEXT,
        words.EMBEDDER,
        words.NO_CACHE,
        words.VECTORS,
        words.columns("Compare rows by these columns: numbers scaled, categories one-hot."),
        words.CATEGORIES,
        words.METRIC,
    ),
)
TRIED = Section(
    "What is tried",
    (
        flag(
            "--judge", "judge", metavar="COL", required=True, help="Column of classes; rows without one are left out."
        ),
        flag("-k", "--k", "k", metavar="A,B", type=NUMBERS, required=True, help="How many rows are to be labelled."),
        flag(
            "-m",
            "--methods",
            metavar="A,B",
            type=NAMES,
            default=",".join(METHODS),
            show_default=True,
            help="Methods of select; one that learns from labels picks in five rounds.",
        ),
        flag("--seed", type=int, default=0, show_default=True, help="Of the splits and draws."),
        flag("--time-limit", type=float, metavar="SECONDS", help="Stop then, and judge by the splits that were done."),
        flag("--threads", "--n-threads", "n_threads", type=int, help="The answer is the same for any number."),
        flag("--engine", metavar="NAME", help="Where the splits run: local or ray, each on one thread."),
        words.ADDRESS,
        flag("--json", "as_json", is_flag=True, help="Print as JSON."),
    ),
)
READ = Section("How a table is read", (*words.GAPS, *words.READING))


class _InSections(click.Command):
    """A command whose help shows its flags in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_sections((COMPARED, TRIED, READ), ctx, formatter)


@click.command(
    "compare",
    cls=_InSections,
    params=[option for section in (COMPARED, TRIED, READ) for option in section.flags],
    short_help="Try ways to pick on rows that have labels.",
)
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(typed: Sequence[str], file: str, **values: Any) -> None:
    """Try ways to pick rows to label on those rows of FILE that have a label already, and say which to use.

    \b
    kofn compare pool.csv --text body --judge topic -k 20,60
    kofn compare pool.csv --columns age,bmi --judge died -k 10 --methods typiclust,farthest_first

    Ten times two thirds of the labelled rows (2,000 at most) stand for the pool; each method picks k of them, and two
    classifiers that learn from the picks alone are judged on the other rows, beside 20 random draws of the same pool.
    They see features that the picking did not: character n-grams of text, ranks and codes of columns.
    """
    began = time.perf_counter()
    arguments = CompareArguments.of_typed(typed, values)
    table = open_table(file, arguments.reading)
    trial = try_methods(table, arguments.named_in(table))
    seconds = time.perf_counter() - began
    say(trial.answer(seconds), lambda: _shown(trial, seconds), arguments.as_json)


def _shown(trial: Trial, seconds: float) -> str:
    """The table and the verdict, in words."""
    lines = [
        f"compared on {trial.labelled:,} labelled rows of {trial.classes} classes in {seconds:.1f} s: "
        f"{trial.splits} splits, pools of {trial.pool:,}, judged on {trial.test:,}",
        *trial.notes,
    ]
    width = max(len(row["method"]) for row in trial.rows)
    for k in dict.fromkeys(row["k"] for row in trial.rows):
        rows = [row for row in trial.rows if row["k"] == k]
        lines.append(f"k={k}: random rows reach {rows[0]['random']:.1f}% accuracy")
        for row in sorted(rows, key=lambda row: -row["points"]):
            lines.append(
                f"  {row['method']:{width}}  {row['points']:+5.1f} points ±{row['interval']:<4.1f}  better than "
                f"{row['beaten']:.0%} of random draws"
            )
        lines.append(f"  {trial.verdicts[k]}")
    return "\n".join(lines)
