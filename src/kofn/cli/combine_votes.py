"""`kofn combine` of votes between two alternatives, one a row or counted in a table of wins: one ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import click
import numpy as np

from kofn.cli.combine_arguments import CombineArguments
from kofn.cli.combine_rules import (
    answer_cycles,
    answer_rules,
    as_good_line,
    cycle_lines,
    how_many,
    refuse_as_the_run,
    rule_lines,
    standing,
    with_rules,
)
from kofn.cli.printing import drawn_lines, facts, first_of, say
from kofn.cli.write import finish
from kofn.core.checks import VoteColumns
from kofn.core.lazy import polars as pl
from kofn.core.plans import Blend
from kofn.io.tables import Table
from kofn.tables.alike import alike_labels
from kofn.tables.votes import BY_WINS, read_votes, read_wins, refuse_words_of_judges
from kofn.verbs import combine


def rank_votes(table: Table, columns: VoteColumns | None, arguments: CombineArguments) -> None:
    """Rank what the votes of a table compare, or, without `columns`, the rows of a table of wins."""
    from kofn.combination.rankings._votes import win_ballots

    of_judges = {name: getattr(arguments, name) for name in ("weights", "lower")}
    refuse_words_of_judges(str(table.path), arguments.columns if arguments.wins else None, of_judges)
    if columns is None:
        ballots = read_wins(table, arguments.id_column)
        ties: float = 0
        left_out = against_itself = 0
        source = "a table of wins"
    else:
        sides = [cell or "" for name in (columns.first, columns.second) for cell in table.column(name).cast(pl.String)]
        if note := alike_labels(sides, columns.first, columns.second):
            click.echo(f"warning: {note}", err=True)
        votes = read_votes(table, columns)
        ballots = win_ballots(votes.wins, votes.ties, ids=votes.names)
        left_out, against_itself = votes.left_out, votes.against_itself
        cast_as_ties = float(votes.ties.sum() / 2)
        ties = int(cast_as_ties) if cast_as_ties.is_integer() else cast_as_ties
        source = ", ".join(filter(None, columns))
    size = {
        "alternatives": len(ballots["rankings"]),
        "votes": float(np.sum(ballots["weights"])),
        "ties": ties,
        "left_out": left_out,
        "against_itself": against_itself,
        "source": source,
        **({"counted_by": columns.counts} if columns is not None and columns.counts else {}),
    }
    method: Any = BY_WINS if arguments.method == "auto" else arguments.method
    if arguments.dry_run:
        refuse_as_the_run(method, ballots, arguments.options)
        say(size, lambda: facts(size), arguments.as_json)
        return
    call = arguments.given("base") | ballots
    plan: Blend = combine(method=method, options=arguments.options, **call)
    plan = _of_votes(with_rules(plan, ballots, arguments.options, judged=False), size)
    finish(plan, arguments, plan.to_frame)
    say(answer(plan, size, arguments), lambda: render(plan, size, arguments), arguments.as_json)


def _of_votes(plan: Blend, size: Mapping[str, Any]) -> Blend:
    """The plan with what is counted in votes, not in judges: a judge is here an outcome of a pair of any count."""
    counted = ("rated", "ratings")
    info = {name: value for name, value in plan.info.items() if name not in counted}
    return dataclasses.replace(plan, info=info | {"votes": size["votes"], "ties": size["ties"]})


def answer(plan: Blend, size: Mapping[str, Any], arguments: CombineArguments) -> dict[str, Any]:
    """The ranking for machines."""
    frame = plan.to_frame()
    return {
        "method": plan.method,
        **size,
        **answer_rules(plan, ()),
        **answer_cycles(plan),
        "value": plan.value,
        "bound": plan.bound,
        "status": plan.status,
        "seed": plan.seed,
        "ranking": frame["id"].to_list(),
        "standings": frame.fill_nan(None).to_dicts(),
        "output": arguments.output,
        **({"report": arguments.report} if arguments.report else {}),
    }


def render(plan: Blend, size: Mapping[str, Any], arguments: CombineArguments) -> str:
    """The ranking for people: the first ten."""
    ranking = plan.to_frame()
    notes = [f"{size['ties']:,.10g} of them ties"] if size["ties"] else []
    notes += [f"each row as often as {size['counted_by']} says"] if "counted_by" in size else []
    itself, unsaid = size["against_itself"], size["left_out"] - size["against_itself"]
    notes += [f"{unsaid:,} {_rows(unsaid)} without a winner left out"] if unsaid else []
    notes += [f"{itself:,} {_rows(itself)} of an alternative against itself left out"] if itself else []
    more = f" ({'; '.join(notes)})" if notes else ""
    lines = [
        f"{plan.method}: {how_many(plan)} alternatives ranked by {size['votes']:,.10g} votes in {size['source']}{more}"
    ]
    for row in ranking.head(10).iter_rows(named=True):
        lines.append(f"  {row['rank']:3}. {row['id']}{standing(plan, row)}")
    if "rank_low" in ranking.columns:
        lines.append("ranks: where each stands in 95% of draws of as many votes, from these with replacement")
    lines += [*as_good_line(plan), *rule_lines(plan, ()), *cycle_lines(plan)]
    if plan.objective == "overturned_preferences":
        lines.append(f"votes against this order: {plan.value:,.10g} ({plan.status})")
    lines += parts_apart(plan)
    lines += drawn_lines(plan, arguments.seed, "this answer")
    if arguments.output:
        lines.append(f"ranking -> {arguments.output}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)


def parts_apart(plan: Blend) -> list[str]:
    """A line on alternatives in parts that were never compared with one another."""
    parts = plan.info.get("parts", [])
    if len(parts) < 2:
        return []
    named = "; ".join(first_of(plan.keys(np.asarray(part)).tolist(), 6) for part in parts[:6])
    return [f"never compared with one another, so that their order says nothing: {named}{'; ...' if parts[6:] else ''}"]


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"
