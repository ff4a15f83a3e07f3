"""What is typed at `kofn allocate`: its flags."""

from __future__ import annotations

import click

from kofn.cli import arguments as words
from kofn.cli.arguments import NUMBER, NUMBERS, flag
from kofn.cli.verb_command import Section
from kofn.core.checks import InputError


def parse_limits(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> dict[str, float | int]:
    """{resource: how much there is} of `--limit NAME=N` flags."""
    limits: dict[str, float | int] = {}
    for text in texts:
        name, equals, amount = text.rpartition("=")
        try:
            number = float(amount)
        except ValueError:
            number = -1.0
        if not equals or not name or not number >= 0:
            raise InputError(f"--limit {text!r}: write NAME=N with a number, for example ms=30")
        if name in limits:
            raise InputError(f"--limit names {name!r} twice; give it once")
        limits[name] = int(number) if number.is_integer() else number
    return limits


CURVES = Section(
    "What the curves are",
    (
        words.columns(
            "Columns that hold the curve, level by level; default every numeric one. Empty, or inf (-inf with --sense "
            "max): the item may not have that level. Of methods that take scores: the column of scores."
        ),
        words.ID,
        flag("--size", "--sizes", "size_column", metavar="COL", help="Column of sizes: level l costs size * level."),
        flag(
            "--levels",
            metavar="A,B",
            type=NUMBERS,
            help="Amounts of the levels, one a column; default their names, or 0,1,2,..",
        ),
        flag("--sense", metavar="NAME", help="min (default): the curves are losses; max: they are values."),
        flag("--higher", "higher_is_better", is_flag=True, help="Higher is better: the same as --sense max."),
        flag("--lower", "lower_is_better", is_flag=True, help="Lower is better: the same as --sense min."),
    ),
)
ITEMS = Section(
    "What is known of items without curves",
    (
        flag(
            "--score",
            "score_column",
            metavar="COL",
            help="In place of curves, a column of one number an item: votes (-m sainte_lague), success rates (-m "
            "rollout_knapsack, difficulty_aware_trials), standard deviations of strata (-m neyman) or sensitivities "
            "(-m reverse_water_filling).",
        ),
        flag("--cost", "--costs", "cost_column", metavar="COL", help="Column of what one unit of each item costs."),
        flag("--weight", "--weights", "weight_column", metavar="COL", help="Column of how much each item counts."),
    ),
)
BUDGET = Section(
    "What may be spent",
    (
        flag("--budget", type=NUMBER, help="What all items together may cost."),
        flag("--mean-budget", type=float, help="Instead: the total over the summed sizes, such as 4 bits a weight."),
        flag("--min", "least", metavar="N|COL", help="The least amount of every item, or the column of them."),
        flag("--max", "most", metavar="N|COL", help="The most of every item, or the column of them."),
        flag(
            "--quota",
            "--quotas",
            "quotas",
            multiple=True,
            metavar="COL=GROUP:A-B",
            callback=words.parse_quotas,
            help="What a group of items costs, from A to B (repeatable; A- or -B; shares of the budget as 20%-30%).",
        ),
        flag("-k", "--k", type=int, metavar="N", help="At most so many items above zero."),
        flag(
            "--tie",
            multiple=True,
            metavar="COL",
            help="Items of one label in this column get the same level. Of a model on disk (repeatable): a pattern of "
            "tensors that do, such as 'layers.{}.*_proj'; fused.",
        ),
        flag(
            "--limit",
            "resource_limits",
            multiple=True,
            metavar="NAME=N",
            callback=parse_limits,
            help="How much there is of another resource (repeatable): column NAME is what a unit of amount takes, or "
            "columns NAME_2, NAME_4, .. what each level takes.",
        ),
        flag("--frontier", is_flag=True, help="Also what other budgets bring: the optimal plans on the convex hull."),
    ),
)
ANSWER = words.method_section("Where the amounts go: id, amount, value, marginal_up, marginal_down, at_bound.")
