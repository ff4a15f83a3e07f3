"""What `kofn combine` says of a ranking beside it: ties, every rule's winner, single judges, missing scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.cli.printing import first_of
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.problems import columns_by_number
from kofn.io.tables import Table

_MOST = 500  # alternatives whose rankings by all rules are compared
_MOST_WORK = 2 * 10**8  # comparisons of all judges
_TIES = 4  # ranks that are shared, of which the names are said
_NAMED = 6
# Methods that look for the most likely strengths, which need not exist.
_BY_STRENGTHS = ("bradley_terry", "plackett_luce", "general_preference")


def with_rules(plan: Blend, call: Mapping[str, Any], options: Mapping[str, Any], *, judged: bool = True) -> Blend:
    """The plan with what other rules and other judges make of the same scores, in `info["rules"]`.

    Args:
        plan: a ranking.
        call: the arguments of `kofn.combine` that it is of: rankings and weights.
        options: the options of its method.
        judged: False where votes were counted, whose judges are outcomes of pairs.
    """
    from kofn.combination.rankings._sensitivity import METHODS, compare_rules

    n, m = np.shape(call["rankings"])
    # A model of pairs says by itself how it stands to strengths.
    if n > _MOST or m * n**2 > _MOST_WORK or plan.method not in METHODS:
        return plan
    own = {name: value for name, value in options.items() if name != "lower"}
    compared = compare_rules(
        call["rankings"],
        method=plan.method,
        weights=call.get("weights"),
        lower=options.get("lower"),
        options=own,
    )
    comparison = {
        "ranks": {name: ranks.tolist() for name, ranks in compared.ranks.items()},
        "winners": compared.winners,
        "pairs": [[None if math.isnan(share) else share for share in row] for row in compared.pairs.tolist()],
        "agreement": compared.agreement.tolist(),
        "left_out": compared.left_out,
        "without": compared.without if judged else [],
    }
    return dataclasses.replace(plan, info={**plan.info, "rules": comparison})


def standing(plan: Blend, row: Mapping[str, Any], n_judges: int = 0) -> str:
    """What is known of one alternative beside its rank, which is a row of the plan's frame; 0 judges are votes."""
    if row["index"] in plan.info.get("never_compared", ()):
        return "  never compared with another"
    parts = [f"{row['points']:.4g} points"] if "points" in row else []
    if "rank_low" in row:
        parts.append(f"ranks {row['rank_low']} to {row['rank_high']}")
    if row.get("best_rank") != row.get("worst_rank"):
        parts.append(f"ranks {row['best_rank']} to {row['worst_rank']}")
    if row.get("rated", n_judges) < n_judges:
        parts.append(f"{row['rated']} of {n_judges} scores")
    return "  " + ", ".join(parts) if parts else ""


def as_good_line(plan: Blend) -> list[str]:
    """A line on what ranks beside an alternative mean where several orders are as good."""
    if "best_rank" not in plan.info or (plan.info["best_rank"] == plan.info["worst_rank"]).all():
        return []
    return ["ranks: where each stands in the orders that overturn as little as this one"]


def how_many(plan: Blend) -> str:
    """How many alternatives are ranked, of how many where some were never compared."""
    never = len(plan.info.get("never_compared", ()))
    return f"{plan.n - never} of {plan.n}" if never else str(plan.n)


def answer_rules(plan: Blend, judges: Sequence[str]) -> dict[str, Any]:
    """The same for machines, by id."""
    facts: dict[str, Any] = {"tied": [plan.keys(np.array(group)).tolist() for group in _tied(plan)]}
    if "never_compared" in plan.info:
        facts["never_compared"] = plan.keys(np.array(plan.info["never_compared"], int)).tolist()
    if "exchangeable" in plan.info:
        facts["exchangeable"] = [plan.keys(np.array(run)).tolist() for run in plan.info["exchangeable"]]
    comparison = plan.info.get("rules")
    if comparison is None:
        return facts
    winners = {name: plan.keys(np.array(first, int)).tolist() for name, first in comparison["winners"].items()}
    without = {
        judge: None if first is None else plan.keys(np.array(first)).tolist()
        for judge, first in zip(judges, comparison["without"], strict=False)
        if first != comparison["winners"][plan.method]
    }
    return {**facts, "winners": winners, "without": without, "rules_left_out": comparison["left_out"]}


def rule_lines(plan: Blend, judges: Sequence[str]) -> list[str]:
    """The same for people: a line on ties, one on every rule's winner, one on judges that decide."""
    lines = []
    groups = _tied(plan)
    if groups:
        ranks = plan.ranks()
        shown = [f"{_names(plan, group)} (rank {ranks[group[0]]})" for group in groups[:_TIES]]
        lines.append(
            f"tied: {'; '.join(shown)}{f'; and at {len(groups) - _TIES} more ranks' if groups[_TIES:] else ''}"
        )
    runs = plan.info.get("exchangeable", ())
    if runs:
        shown = [_names(plan, run) for run in runs[:_TIES]]
        lines.append(
            f"as good in any order among themselves: {'; '.join(shown)}"
            f"{f'; and {len(runs) - _TIES} more runs' if runs[_TIES:] else ''}"
        )
    comparison = plan.info.get("rules")
    if comparison is None:
        return lines
    by_winner: dict[tuple[int, ...], list[str]] = {}
    for name, first in comparison["winners"].items():
        by_winner.setdefault(tuple(first), []).append(name)
    if len(by_winner) == 1:
        lines.append(f"first under every rule: {_names(plan, next(iter(by_winner)))}")
    elif by_winner:
        shown = [f"{_names(plan, first)} by {', '.join(names)}" for first, names in by_winner.items()]
        lines.append(f"first: {'; '.join(shown)}")
    if comparison["left_out"]:
        reasons = [f"{name} ({reason})" for name, reason in comparison["left_out"].items()]
        lines.append(f"not ranked by {', '.join(reasons)}")
    return lines + _judges_that_decide(plan, judges, comparison)


def _judges_that_decide(plan: Blend, judges: Sequence[str], comparison: Mapping[str, Any]) -> list[str]:
    """A line on the single judges without whom another alternative is first."""
    if not comparison["without"]:
        return []
    own = comparison["winners"][plan.method]
    changed = [
        f"{judge}: {'nothing ranks' if first is None else _names(plan, first)}"
        for judge, first in zip(judges, comparison["without"], strict=True)
        if first != own
    ]
    if not changed:
        return ["whichever single judge is left out, the same is first"]
    more = f"; and {len(changed) - _NAMED} more judges" if changed[_NAMED:] else ""
    return [f"first without one judge, {'; without '.join(changed[:_NAMED])}{more}"]


def answer_cycles(plan: Blend) -> dict[str, Any]:
    """Whether preferences go in cycles, for machines: the strongest cycle by id."""
    cycles = plan.info.get("cycles")
    if cycles is None:
        return {}
    strongest = cycles["strongest"]
    named = None if strongest is None else plan.keys(np.array(strongest, int)).tolist()
    return {"cycles": {**cycles, "strongest": named}}


def cycle_lines(plan: Blend) -> list[str]:
    """The same for people: what held-out votes say, and the strongest cycle where they support one."""
    cycles = plan.info.get("cycles")
    if cycles is None:
        return []
    from kofn.combination.preferences._cycles import cycle_sentences

    return cycle_sentences(cycles, lambda item: str(plan.keys(np.array([item])).tolist()[0]))


def missing_line(plan: Blend, judges: Sequence[str]) -> list[str]:
    """A line on how many scores are missing, and of which alternatives."""
    rated = np.asarray(plan.info.get("rated", ()))
    gaps = len(judges) - rated
    if not len(rated) or not gaps.any():
        return []
    order = np.argsort(-gaps, kind="stable")[: int((gaps > 0).sum())]
    named = first_of([f"{key} {gaps[i]}" for key, i in zip(plan.keys(order).tolist(), order, strict=True)], _NAMED)
    return [f"missing: {int(gaps.sum()):,} of {plan.n * len(judges):,} scores ({named})"]


def silent_line(table: Table, named: Sequence[str | None]) -> list[str]:
    """A line on the columns of a table without one value, which are no judges."""
    empty = [name for name in table.columns if name not in named and not table.column(name).drop_nulls().len()]
    return [f"no judges, for want of a single score: {first_of(empty, _NAMED)}"] if empty else []


def _tied(plan: Blend) -> list[list[int]]:
    """The alternatives that share a rank, best first; what nobody compared shares none."""
    ranks, never = plan.ranks(), set(plan.info.get("never_compared", ()))
    groups: dict[int, list[int]] = {}
    for item in np.asarray(plan.result).tolist():
        if item not in never:
            groups.setdefault(int(ranks[item]), []).append(item)
    return [group for group in groups.values() if len(group) > 1]


def _names(plan: Blend, items: Sequence[int]) -> str:
    return first_of([str(key) for key in plan.keys(np.array(items, int)).tolist()], _NAMED)


def refuse_as_the_run(method: Any, ballots: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse in a dry run what the run refuses of its ballots.

    Args:
        method: the name of any method of rankings.
        ballots: its "rankings", and "ids" and "weights" where there are some.
        options: its own options.

    Raises:
        InputError: a judge without a score, `lower` of no judge, weights that do not fit; strengths that do not exist,
            where the method looks for the most likely ones and has no prior.
    """
    from kofn.combination.rankings._pairs import Listed, ballots_of, half_wins
    from kofn.combination.rankings._strengths import refuse_no_strengths

    frame, lower = ballots["rankings"], options.get("lower")
    numbered = columns_by_number(options, [str(name) for name in getattr(frame, "columns", ())])
    rows = ballots_of(checks.rankings(frame), numbered.get("lower", lower))
    weights = ballots.get("weights")
    given = np.ones(len(rows)) if weights is None else checks.signed_weights(weights)
    if len(given) != len(rows):
        raise InputError(f"weights has {len(given)} values for {len(rows)} members; give one a member")
    given = checks.weights(given).astype(np.float64)
    if method in _BY_STRENGTHS and not options.get("prior"):
        with checks.naming(items=ballots.get("ids")):
            refuse_no_strengths(half_wins(Listed.of(rows), given, rows.shape[1]))


def groups_of(typed: Sequence[str]) -> dict[str, list[str]]:
    """The judges of each group, as `--judge-group NAME=A,B` names them.

    Raises:
        InputError: a text of another form, or a name that is given twice.
    """
    groups: dict[str, list[str]] = {}
    for text in typed:
        name, sign, columns = text.partition("=")
        named = [column.strip() for column in columns.split(",") if column.strip()]
        if not sign or not name.strip() or not named:
            raise InputError(f"--judge-group {text!r}: give a name and columns, as in knowledge=mmlu,arc")
        if name.strip() in groups:
            raise InputError(f"--judge-group {name.strip()!r} is given twice; name all its columns at once")
        groups[name.strip()] = named
    return groups
