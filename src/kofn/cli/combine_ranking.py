"""`kofn combine` of a table of scores: one ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from kofn.cli.arguments import rescaled
from kofn.cli.combine_arguments import CombineArguments
from kofn.cli.combine_long import FALLING, in_long_form, widened
from kofn.cli.combine_rules import (
    answer_cycles,
    answer_rules,
    as_good_line,
    cycle_lines,
    groups_of,
    how_many,
    missing_line,
    refuse_as_the_run,
    rule_lines,
    silent_line,
    standing,
    with_rules,
)
from kofn.cli.combine_votes import parts_apart, rank_votes
from kofn.cli.printing import drawn_lines, facts, say
from kofn.cli.write import finish
from kofn.combination.rankings._electorate import RESAMPLES
from kofn.core.checks import InputError, VoteColumns, nearest, refuse_wins
from kofn.core.lazy import polars as pl
from kofn.core.plans import Blend
from kofn.io.frames import FrameTable
from kofn.io.lm_eval import MODEL, is_results, score_table
from kofn.io.many import open_tables
from kofn.io.tables import Table, located
from kofn.tables.class_ballots import voting
from kofn.tables.long_form import ANSWER, refuse_long_form
from kofn.tables.scores import is_scores, read_judges, scores_with_gaps
from kofn.tables.unlike import as_typed, listed, of_the_row, unlike_line
from kofn.tables.votes import votes_in
from kofn.verbs import combine

_MANY = 100  # rows without a name, beyond which they are seldom what is ranked
_ASSUMED = (
    "note: rows are ranked and columns taken as judges; if columns are what models predicted for each row, say which "
    "holds the answers: --label COL (or a FILE), or take their mean without: -m weighted_mean"
)


def rank(members: Sequence[str], arguments: CombineArguments) -> None:
    """Rank the rows of a table by the judges in its columns, or the models in results of lm-eval by its tasks.

    The rows of several tables stand below one another.
    """
    measured = all(map(is_results, members))
    if arguments.summed is not None:
        raise InputError("--sum and --mean are of checkpoints and adapters; judges' points are averaged")
    notes: list[str] = []
    table: Table
    if measured:
        results = score_table(members)
        table, notes = FrameTable(results.frame), results.notes
        table.path = Path(members[0])
        judges = arguments.columns or tuple(results.main)
        arguments = dataclasses.replace(
            arguments,
            id_column=arguments.id_column or MODEL,
            columns=judges,
            lower=arguments.lower or tuple(name for name in results.lower if name in judges) or None,
        )
    else:
        table = open_tables(members, arguments.reading)
    with located(table):
        long = None if measured else in_long_form(table, arguments)
        if long is not None:
            table, arguments, note = widened(table, long, arguments)
            notes.append(note)
        _rank_rows(table, members, arguments.named_in(table), notes, measured=measured)


def _rank_rows(
    table: Table, members: Sequence[str], arguments: CombineArguments, notes: list[str], *, measured: bool
) -> None:
    """Rank the rows of a table, which are votes or alternatives; `measured` says that lm-eval made their scores."""
    if arguments.wins and len(members) > 1:
        raise InputError(f"--wins is of one table, and {len(members)} were given; add up their counts first")
    columns = None if measured or arguments.columns or arguments.wins else _votes_in(table, arguments)
    if columns is not None or arguments.wins:
        if arguments.judge_groups:
            raise InputError(f"--judge-group is of judges; {table.path} holds votes, which are counted: leave it out")
        rank_votes(table, columns, arguments)
        return
    if arguments.columns is None:
        refuse_long_form(table, arguments.id_column)
    if len(members) > 1 and not measured and arguments.id_column is None:
        # One alternative that stands in two tables would be ranked twice.
        raise InputError(
            f"{len(members)} tables of scores are ranked as one, row below row; name the column of alternatives with "
            "--id, or join the tables first where each has scores of the same alternatives"
        )
    judges, scores = read_judges(table, arguments.columns, arguments.id_column)
    if arguments.columns is None:
        notes += silent_line(table, (arguments.id_column, *judges))
    unnamed = arguments.columns is None
    assumed = not measured and (_may_be_predictions if unnamed else _may_be_blended)(table, arguments)
    call = arguments.given("base", "weights")
    options = arguments.options
    if arguments.id_column:
        call["ids"] = table.ids(arguments.id_column)
        if arguments.columns is None:
            refuse_wins(
                judges,
                call["ids"].tolist(),
                "if cells say how often the row won over the column, say --wins; if the columns are judges, name them: "
                f"--columns {as_typed(*judges)}",
            )
        elif {str(key) for key in call["ids"].tolist()} == set(judges):
            # Models that judge each other, as --columns says.
            judges = tuple(f"judge {judge}" for judge in judges)
            options = options | ({"lower": [f"judge {name}" for name in arguments.lower]} if arguments.lower else {})
    call["rankings"] = pl.DataFrame({judge: scores[:, column] for column, judge in enumerate(judges)})
    if arguments.judge_groups:
        judges, options = _in_groups(call, judges, options, arguments)
        notes.append(f"each judge is a group of columns, ranked by itself first: {'; '.join(arguments.judge_groups)}")
    if note := rescaled(arguments.weights):
        notes.append(note)
    if arguments.dry_run:
        refuse_as_the_run(arguments.method, call, options)
        if assumed:
            click.echo(_ASSUMED, err=True)
        size = {"judges": len(judges), "alternatives": table.n, "exact": "yes"}
        say(size, lambda: facts(size), arguments.as_json)
        return
    plan = combine(method=arguments.method, options=options, **call)
    plan = with_rules(plan, call, options)
    finish(plan, arguments, plan.to_frame)
    if assumed:
        click.echo(_ASSUMED, err=True)
    say(
        answer_ranking(plan, judges, arguments),
        lambda: "\n".join([render_ranking(plan, judges, arguments, _names(table, arguments)), *notes]),
        arguments.as_json,
    )


def _votes_in(table: Table, arguments: CombineArguments) -> VoteColumns | None:
    """The columns that make a vote of each row; a refusal of columns that name classes says how these are blended."""
    try:
        return votes_in(table)
    except InputError as error:
        others = [name for name in table.columns if name != arguments.id_column and table.dtype(name) == "text"]
        voters = voting({name: table.column(name).cast(pl.String).to_list() for name in others}, named=False)
        if len(voters) < 2 or "no column names the winner;" not in str(error):
            raise
        raise InputError(
            f"{error}; if {listed(voters)} are models that name a class of each row, -m weighted_mean --columns "
            f"{as_typed(*voters)} gives their majority"
        ) from None


def _in_groups(
    call: dict[str, Any], judges: Sequence[str], options: Mapping[str, Any], arguments: CombineArguments
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Put one judge for each `--judge-group` into the call, and return their names and the options left."""
    from kofn.combination.rankings._sensitivity import group_ballots

    own = {name: value for name, value in options.items() if name != "lower"}
    groups = groups_of(arguments.judge_groups)
    for name, columns in groups.items():
        for column in columns:
            if column not in judges:
                raise InputError(f"--judge-group {name!r} names {column!r}, which is no judge{nearest(column, judges)}")
    grouped = {column for columns in groups.values() for column in columns}
    groups |= {judge: [judge] for judge in judges if judge not in grouped}
    ballots = group_ballots(
        call["rankings"],
        groups,
        method=arguments.method,
        weights=call.pop("weights", None),
        lower=options.get("lower"),
        options=own,
    )
    call |= ballots
    return tuple(groups), own


def answer_ranking(plan: Blend, judges: Sequence[str], arguments: CombineArguments) -> dict[str, Any]:
    """The ranking for machines."""
    return {
        "method": plan.method,
        "judges": list(judges),
        "ranking": plan.to_frame()["id"].to_list(),
        "standings": plan.to_frame().fill_nan(None).to_dicts(),
        "spread": plan.spread,
        "missing": int(len(judges) * plan.n - np.sum(plan.info.get("rated", 0))),
        **answer_rules(plan, judges),
        **answer_cycles(plan),
        "seed": plan.seed,
        "output": arguments.output,
        **({"report": arguments.report} if arguments.report else {}),
    }


def _names(table: Table, arguments: CombineArguments) -> str | None:
    """The first column of text without a gap or a repeat, where no column is said to name the alternatives."""
    if arguments.id_column:
        return None
    texts = (name for name in table.columns if table.dtype(name) == "text")
    return next((name for name in texts if table.column(name).drop_nulls().n_unique() == table.n), None)


def _may_be_predictions(table: Table, arguments: CombineArguments) -> bool:
    """Whether a column is called as answers are, or many rows have no name: then columns may hold predictions.

    Who says which judges form a group, or in which lower is better, means judges.
    """
    if arguments.judge_groups or arguments.lower:
        return False
    if any(ANSWER.fullmatch(name.strip()) for name in table.columns if name != arguments.id_column):
        return True
    named = arguments.id_column or any(table.dtype(name) == "text" for name in table.columns)
    return not named and table.n > _MANY


def _may_be_blended(table: Table, arguments: CombineArguments) -> bool:
    """Whether columns that were named with weights hold probabilities of rows that have a number, or are many."""
    if arguments.judge_groups or arguments.lower or arguments.weights is None or arguments.columns is None:
        return False
    values = np.stack([scores_with_gaps(table, name) for name in arguments.columns], axis=1)
    if not np.all((values >= 0) & (values <= 1) | np.isnan(values)):
        return False
    return table.n > _MANY or (arguments.id_column is not None and is_scores(table, arguments.id_column))


def render_ranking(plan: Blend, judges: Sequence[str], arguments: CombineArguments, unsaid: str | None = None) -> str:
    """The ranking for people: the first ten. `unsaid`: a column that could name them."""
    ranking = plan.to_frame()
    lines = [f"{plan.method}: {how_many(plan)} alternatives ranked by {len(judges)} judges: {listed(judges)}"]
    lines += [
        f"  {row['rank']:3}. {row['id']}{standing(plan, row, len(judges))}"
        for row in ranking.head(10).iter_rows(named=True)
    ]
    if "rank_low" in ranking.columns:
        lines.append(f"ranks: where each stands in 95% of {RESAMPLES:,} panels of as many judges, drawn from these")
    lines += [*as_good_line(plan), *rule_lines(plan, judges), *cycle_lines(plan), *missing_line(plan, judges)]
    falling = [judge for judge in judges if FALLING.search(judge) and judge not in (arguments.lower or ())]
    if falling:
        lines.append(f"higher is taken as better in every column; where lower is: --lower {as_typed(*falling)}")
    if arguments.columns is None:
        lines += unlike_line(judges, of_the_row(judges), "judge")
    lines += parts_apart(plan)
    if unsaid is not None:
        lines.append(f"they are told by their row numbers; --id {as_typed(unsaid)} names them")
    lines += drawn_lines(plan, arguments.seed, "this answer")
    if arguments.output:
        lines.append(f"ranking -> {arguments.output}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
