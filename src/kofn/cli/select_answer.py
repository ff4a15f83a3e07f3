"""The answer of `kofn select`: the picked rows, the lines on the terminal, what the report is given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import polars as pl

from kofn.cli.printing import drawn_lines, first_of
from kofn.cli.select_rounds import earlier, known_so_far, round_lines
from kofn.cli.write import renamed, rows_of, rows_with
from kofn.core.checks import FailureError, InputError, is_sparse
from kofn.core.plans import Selection
from kofn.io.label_tools import left_out, write_for
from kofn.tables.labelling import Expected, expected
from kofn.tables.read import ARRAYS, Dropped, Pool, seen_in_report
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_groups import column_names, counted_quotas, groups_of, without_picks
from kofn.tables.select_pool import kind_of
from kofn.tables.select_rounds import labelled

if TYPE_CHECKING:
    from kofn.report.context import Repeats
    from kofn.report.measures import AtRandom

# What spreads the picks out and is far below random draws as a set to learn from, at least on some kinds of data.
# Columns of quotas over which prices are exact; over more they are bounds.
_EXACTLY_PRICED = 2
_SPREADING = ("farthest_first", "log_determinant", "feature_based", "weighted_coverage")
# How many classes are named in one line.
_CLASSES = 12


class TooFewError(FailureError):
    """A time limit left no pick at all."""

    exit_code = 3


def refuse_nothing(plan: Selection, arguments: SelectArguments) -> None:
    """End the command, before it writes, where a stop left nothing: an earlier output is worth more than none.

    Raises:
        click.Abort: it was interrupted.
        TooFewError: the time limit passed.
    """
    if len(plan) or plan.status != "stopped":
        return
    if arguments.time_limit is None or plan.info["seconds"] < arguments.time_limit:
        raise click.Abort
    raise TooFewError(f"nothing was picked in --time-limit {arguments.time_limit:g} s; nothing was written, give more")


def warn_of_few(plan: Selection, arguments: SelectArguments) -> int:
    """The exit code: 3, with a line on stderr, where fewer rows were picked than asked for."""
    if arguments.k is None or arguments.budget is not None or len(plan) >= arguments.k:
        return 0
    why = "it was stopped" if plan.status == "stopped" else f"{plan.method} takes no more"
    click.echo(f"kofn: picked {len(plan):,} of the {arguments.k:,} that were asked for: {why}", err=True)
    return 3


def picks(plan: Selection, pool: Pool, arguments: SelectArguments) -> pl.DataFrame | list[bytes]:
    """The picks in the order picked: every original column but those of --drop, then rank and gain."""
    order = {"rank": np.arange(1, len(plan) + 1), "gain": np.asarray(plan.gains)}
    if pool.entries:
        assert pool.matrix is not None
        row, column = np.unravel_index(plan.indices, pool.matrix.shape)
        score = pool.matrix[row, column]
        return pl.DataFrame({"row": pool.keys[row], "column": column, "score": score, **order})
    picked = pool.rows[plan.indices]
    if not arguments.every:
        # Without ids a row's number names it: --exclude, --include and --start take the picks by it.
        named = {"row": picked} if _needs_numbers(pool, arguments) else {}
        return rows_with(pool.table, picked, named | order, arguments)
    # The picks first, then all other rows of the file, those too that were left out of the pool.
    rows = np.concatenate([picked, np.setdiff1d(np.arange(pool.table.n), picked)])
    others = [None] * (len(rows) - len(picked))
    # They stand in another order than in the file, to which their numbers lead back.
    added: dict[str, Any] = {"row": rows} if _needs_numbers(pool, arguments) else {}
    added |= {name: [*values.tolist(), *others] for name, values in order.items()}
    return rows_with(pool.table, rows, added, arguments, earlier(pool.table))


def _needs_numbers(pool: Pool, arguments: SelectArguments) -> bool:
    """Whether the picks are written with their row numbers; rows of arrays have them anyway."""
    return arguments.id_column is None and pool.table.path.suffix.lower() not in ARRAYS


def export_picks(plan: Selection, pool: Pool, arguments: SelectArguments) -> None:
    """Write the picks for the labelling tools that --export names.

    Raises:
        InputError: the picks are entries of a table and no rows.
    """
    if not arguments.export:
        return
    if pool.entries:
        raise InputError("--export writes rows, and --scores picks entries of the table; leave one of them out")
    rows = plan.ranked(rows_of(pool.table, pool.rows[plan.indices], arguments.drop))
    numbers = pool.rows[plan.indices] if arguments.id_column is None else None
    for tool, path in arguments.export:
        for name, why in left_out(tool, rows.schema).items():
            click.echo(f"kofn: {path} has no column {name!r}: {why}", err=True)
        write_for(tool, path, rows, key=arguments.id_column, label=arguments.label_column, numbers=numbers)


def picked_keys(plan: Selection, pool: Pool) -> list[Any]:
    """What the user calls each pick: a row's id, or of a table's entry `row:column`."""
    if not pool.entries:
        keys: list[Any] = pool.keys[plan.indices].tolist()
        return keys
    assert pool.matrix is not None
    row, column = np.unravel_index(plan.indices, pool.matrix.shape)
    return [f"{key}:{j}" for key, j in zip(pool.keys[row].tolist(), column.tolist(), strict=True)]


def report_context(plan: Selection, pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """What the report shows beside the plan."""
    if not arguments.report:
        return {}
    from kofn.report.context import Labels

    hoped = expected_of_labels(plan, pool, arguments)
    groups = groups_of(pool, arguments)
    if arguments.label_column is not None and labelled(pool) is None:
        groups = {arguments.label_column: pool.values["y"], **groups}
    return {
        "X": None if arguments.metric == "precomputed" or is_sparse(pool.X) else pool.X,
        "metric": arguments.distance,
        "items": pool.items,
        "groups": groups or None,
        "quotas": counted_quotas(pool, arguments) or None,
        "weights": pool.values.get("weights"),
        "scores": pool.values.get("scores"),
        "repeats": None if pool.duplicates is None else repeats_shown(pool, pool.duplicates, arguments),
        # What the next round needs is no part of the answer.
        "notes": round_lines(plan, pool, dataclasses.replace(arguments, output=None)),
        "labels": None if hoped is None else Labels(hoped.points, hoped.measured, hoped.verdict),
        **seen_in_report(pool.table, arguments, pool.rows, pool.items),
    }


def repeats_shown(pool: Pool, duplicates: Dropped, arguments: SelectArguments) -> Repeats:
    """What the report says of the dropped rows: a few of them, from the least similar to the most."""
    from kofn.report.context import Repeats

    rows, of, similarity = duplicates[:3]
    order = np.argsort(similarity, kind="stable")
    spaced = order[np.unique(np.linspace(0, max(0, len(rows) - 1), 12).astype(np.int64))] if len(rows) else order
    keys = pool.table.ids(arguments.id_column) if arguments.id_column else np.arange(pool.table.n)
    texts = pool.table.texts(arguments.text) if arguments.text else None
    shown = [
        (
            *(str(keys[rows[i]]), "" if texts is None else texts[int(rows[i])]),
            *(str(keys[of[i]]), "" if texts is None else texts[int(of[i])]),
            float(similarity[i]),
        )
        for i in spaced
    ]
    return Repeats(pool.table.n, len(rows), shown)


def compared_with_random(plan: Selection, pool: Pool, arguments: SelectArguments) -> AtRandom | None:
    """How near the picks are to the rows, and how near as many random rows are.

    None without vectors, and in a round of labels: the labelled rows stand for the pool too.
    """
    if (
        labelled(pool) is not None
        or pool.X is None
        or is_sparse(pool.X)
        or arguments.metric == "precomputed"
        or not len(plan)
    ):
        return None
    from kofn.report.measures import Space, at_random

    return at_random(Space(pool.X, arguments.distance, pool.items), plan.indices, pool.values.get("weights"))


def classes_picked(plan: Selection, pool: Pool) -> dict[str, int]:
    """How many rows of each class of --label were picked, those of none included, most first."""
    labels = pool.values.get("y")
    if labels is None or labelled(pool) is not None:
        return {}
    names, counts = np.unique(labels, return_counts=True)
    picked = {
        str(name): int((labels[plan.indices] == name).sum()) for name in names[np.argsort(-counts, kind="stable")]
    }
    return dict(sorted(picked.items(), key=lambda pair: -pair[1]))


def expected_of_labels(plan: Selection, pool: Pool, arguments: SelectArguments) -> Expected | None:
    """What the picks are worth as rows to label; None where they are not to be labelled, or some rows have labels."""
    classes = arguments.classes or len(classes_picked(plan, pool))
    return expected(plan, kind_of(pool, arguments), classes) if classes and labelled(pool) is None else None


def answer(plan: Selection, pool: Pool, arguments: SelectArguments, seconds: float) -> dict[str, Any]:
    """The answer for machines."""
    random = compared_with_random(plan, pool, arguments)
    hoped = expected_of_labels(plan, pool, arguments)
    return {
        "method": plan.method,
        "objective": plan.objective or None,
        "pool": pool.table.n,
        "dropped": pool.dropped,
        "picked": len(plan),
        "value": plan.value,
        "sense": plan.sense,
        "bound": plan.bound,
        "gap": plan.gap,
        "status": plan.status,
        "used": dict(plan.used),
        "budget": dict(plan.budget),
        "duplicate_picks": plan.info.get("duplicate_picks", 0),
        "mean_distance": None if random is None else random.own,
        "random_mean_distance": None if random is None else random.draws[[0, -1]].tolist(),
        "classes": classes_picked(plan, pool) or None,
        "points_over_random": None if hoped is None else hoped._asdict(),
        "round": known_so_far(plan, pool),
        "seconds": seconds,
        "oracle_calls": plan.info["oracle_calls"],
        "seed": plan.seed,
        "output": arguments.output,
        "report": arguments.report,
        "picks": picked_keys(plan, pool),
        "gains": plan.gains,
    }


def render(plan: Selection, pool: Pool, arguments: SelectArguments, seconds: float) -> str:
    """The answer for people."""
    size = f"{plan.n:,} entries" if pool.entries else f"{pool.table.n:,} rows"
    lines = [f"picked {len(plan):,} of {size} with {plan.method} in {seconds:.2f} s", *pool.notes]
    if arguments.output and not pool.entries:
        ours = ["row"] if _needs_numbers(pool, arguments) else []
        ours += [] if arguments.every and earlier(pool.table) else ["rank", "gain"]
        lines += renamed(pool.table, *ours)
    if repeats := plan.info.get("duplicate_rows"):
        lines.append(f"{repeats:,} {'row has' if repeats == 1 else 'rows have'} the same vector as an earlier row")
        if again := plan.info.get("duplicate_picks"):
            lines.append(repeated_picks(again, len(plan), plan.n - repeats))
    lines += drawn_lines(plan, arguments.seed, "these picks")
    lines += _quality(plan, arguments.measured_by)
    if "relevance" in plan.info:
        lines += _relevance(plan, pool)
    if "costs" in plan.used:
        lines.append(f"cost {plan.used['costs']:,} of at most {plan.budget['costs']:,}")
    lines += _quotas(plan, pool, arguments)
    if "sources" in plan.info:
        lines.append(_sources(plan))
    if plan.status == "stopped":
        picks_in_time = plan.info.get("found_in_time", len(plan))
        others = "drawn at random"
        if plan.info.get("filled_by", "at random") != "at random":
            others = f"picked {plan.info['filled_by']}"
        filled = f"; of {len(plan):,} picks {picks_in_time:,} were found by then and the rest is {others}"
        lines.append(
            f"stopped before the end: what was valid by then is kept{filled if picks_in_time < len(plan) else ''}"
        )
    lines += round_lines(plan, pool, arguments)
    lines += _labelled(plan, pool, arguments)
    random = compared_with_random(plan, pool, arguments)
    if random is not None:
        low, high = (f"{far:.4g}" for far in random.draws[[0, -1]])
        lines.append(
            f"mean {arguments.distance} distance to the nearest pick {random.own:.4g}; {len(plan):,} "
            f"{'row' if len(plan) == 1 else 'rows'} drawn at random: {low} to {high} in {len(random.draws)} draws"
            + ("" if pool.items is None else f", on {len(pool.items):,} sampled rows")
        )
    if arguments.output:
        lines.append(f"picks  -> {arguments.output}")
    else:
        lines.append(f"first picks: {first_of(picked_keys(plan, pool))}  (-o FILE writes them all)")
    if arguments.dropped:
        lines.append(f"dropped -> {arguments.dropped}")
    lines += [f"for {tool} -> {path}" for tool, path in arguments.export]
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)


def repeated_picks(count: int, picked: int, different: int) -> str:
    """The line on picks that have the same vector as another pick."""
    some = "1 pick repeats another" if count == 1 else f"{count:,} picks repeat others"
    if picked > different:
        return f"only {different:,} different rows; {some}: ask for -k {different} or fewer"
    return f"{some}; --dedupe 1 leaves such rows out"


def _relevance(plan: Selection, pool: Pool) -> list[str]:
    """How near the picks are to the queries, and how many are about none."""
    relevance = np.asarray(plan.info["relevance"])
    span = f"{relevance.min():.2f} to {relevance.max():.2f}"
    line = f"cosine to the nearest query: {span}"
    if pool.vectors.get("relevance") == "product":
        line = f"relevance to the nearest query, the best row's being 1: {span}"
    if none := int((relevance <= 0).sum()):
        # A search with more time might have picked others.
        advice = "" if plan.status == "stopped" else "; ask for fewer"
        return [line, f"{none:,} of {len(plan):,} picks have nothing in common with any query{advice}"]
    return [line]


def _quotas(plan: Selection, pool: Pool, arguments: SelectArguments) -> list[str]:
    """What was picked of each quota; of a column that is shared out as the pool is, in one line."""
    counted, names = counted_quotas(pool, arguments), column_names(pool, arguments)
    lines = []
    for typed, asked in arguments.quotas.items():
        column = names[typed]
        for (group, (low, high)), ends in zip(counted[column].items(), asked.values(), strict=True):
            alone = len(counted) == 1 and not isinstance(typed, tuple)
            name = f"quota {group}" if alone else f"quota {column}={group}"
            span = _span(low if ends[0] is not None else None, high)
            if any(isinstance(end, Fraction) for end in ends):
                span += f" ({_span(*ends)})"
            bounded = "at most " if len(counted) > _EXACTLY_PRICED else ""
            looser = f"; one looser would add {bounded}{plan.prices[name]:.4g}" if plan.prices.get(name) else ""
            lines.append(f"{name}: {plan.used.get(name, 0)} picked, {span} asked{looser}")
    for column, most in ((names[typed], most) for typed, most in arguments.each.items()):
        lines.append(f"each {column}: {most:,} rows of each of {len(counted[column])} groups, all of smaller ones")
    for column in (names[typed] for typed in dict.fromkeys(arguments.proportional)):
        lines.append(f"proportional {column}: {len(counted[column])} groups, each within one pick of its share")
    return [*lines, *without_picks(plan, pool, arguments)]


def _span(low: Any, high: Any) -> str:
    """From the least to the most as it is typed, 10-50, 10- or 20%-30%; a most alone in words."""
    ends = [f"{float(end) * 100:g}%" if isinstance(end, Fraction) else end for end in (low, high)]
    if ends[0] is None and ends[1] is not None:
        return f"at most {ends[1]}"
    return "-".join("" if end is None else f"{end}" for end in ends)


def _labelled(plan: Selection, pool: Pool, arguments: SelectArguments) -> list[str]:
    """How many rows of each class were picked, what to expect of them, a warning where they are no good for that."""
    picked = classes_picked(plan, pool)
    classes = arguments.classes or len(picked)
    if not classes:
        return []
    lines = [_counted(picked, arguments)] if picked else []
    if picked and arguments.every:
        lines.append(f"every row has a label in {arguments.label_column!r} already: these are picked out of all rows")
    hoped = expected_of_labels(plan, pool, arguments)
    if hoped is not None:
        lines.append(f"to label, {len(plan) / classes:.3g} rows a class: {hoped.verdict}; {hoped.measured}")
    spreading = next((name for name in _SPREADING if name in f"{plan.method} {plan.objective}"), None)
    if spreading is not None:
        lines.append(
            f"{spreading} is no good choice of rows to label: it seeks the unusual, and on many data a classifier "
            "learns less from it than from random rows (see python -m benchmarks usefulness)"
        )
    return lines


def _counted(picked: Mapping[str, int], arguments: SelectArguments) -> str:
    """How many rows of each class were picked, in one line."""
    named = [f"{name} {count:,}" for name, count in list(picked.items())[:_CLASSES] if count]
    more = sum(1 for count in list(picked.values())[_CLASSES:] if count)
    none = [name for name, count in picked.items() if not count]
    line = f"picked of {arguments.label_column}: {', '.join(named)}"
    return line + (f", {more:,} more classes" if more else "") + (f"; none of {first_of(none)}" if none else "")


def _quality(plan: Selection, metric: str) -> list[str]:
    """The value, and what is proved of it."""
    objective = plan.objective.replace("_", " ") or "value"
    if plan.info.get("sample_gap"):
        return [_sampled(plan, metric)]
    if (lowest := plan.info.get("distance_bound")) is not None:
        reached = f"summed {metric} distance to the nearest pick {plan.info['distance']:.6g}"
        return [f"{reached}: no such picks can get below {lowest:.6g}"]
    if plan.bound is None or plan.status == "optimal":
        return [f"{objective} {plan.value:.6g}, {plan.status}"] if np.isfinite(plan.value) else []
    if plan.sense == "min":
        return [f"{objective} {plan.value:.6g}: no such picks can get below {plan.bound:.6g}"]
    # Rounded down to a tenth of a percent: what is promised must hold.
    share = math.floor(plan.value / plan.bound * 1000) / 1000
    return [f"{objective} {plan.value:.6g}: at least {share:.1%} of what any such picks can reach"]


def _sampled(plan: Selection, metric: str) -> str:
    """What the picks reached, and how much better they serve the sampled rows that judged them than the rest."""
    # (1 + cos) / 2 is 1 - (1 - cos) / 2.
    reached, unit = plan.info["distance"], 2.0 if metric == "cosine" else 1.0
    share = unit * plan.info["sample_gap"] / reached if reached else 0.0
    return (
        f"summed {metric} distance to the nearest pick {reached:.6g}; judged by a sample of "
        f"{plan.info['reference']:,} rows, which the picks serve {share:.1%} better than the rest: what all rows would "
        "have brought is not known"
    )


def _sources(plan: Selection) -> str:
    """Which sources were taken and which left out, each with its shift."""
    shift = plan.info["shift"]
    taken = [f"{name} ({shift[name]:.3g})" if name in shift else name for name in plan.info["sources"]]
    left = [f"{name} ({shift[name]:.3g})" for name in shift if name not in plan.info["sources"]]
    return f"sources by shift: {', '.join(taken)}" + (f"; left out: {', '.join(left)}" if left else "")
