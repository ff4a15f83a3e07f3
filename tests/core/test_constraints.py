"""Constraints and their tracker against looking at every set, and every refusal they make."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused, untested

from kofn.core import constraints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import Constraints, Tracker
from kofn.laws.brute import feasible_sets

PROFILE = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
EPS = float(np.finfo(np.float64).eps)


@st.composite
def _column(draw, n):
    """Groups and quotas of one column; None where no quota is drawn."""
    labels = np.array(draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n)))
    ends = st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(0, 3)))
    quotas = draw(st.dictionaries(st.sampled_from(sorted(set(labels.tolist()))), ends, min_size=1))
    quotas = {group: (low, high) for group, (low, high) in quotas.items() if high is None or low <= high}
    return (labels, quotas) if quotas else None


@st.composite
def problems(draw, *, most=6, most_columns=1):
    """Constraints of any kind on few items, met or not, with budgets at the very edge of what a set costs."""
    n = draw(st.integers(1, most))
    words = {}
    kind = draw(st.sampled_from(("k", "budget", "both")))
    if kind != "budget":
        words["k"] = draw(st.integers(1, n))
    if kind != "k":
        whole = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
        unit = draw(st.sampled_from((1, 1, 2**54 + 1, 0.1, 1 / 3)))
        words["costs"] = whole * unit
        some = words["costs"][np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)].tolist()
        edge = sum(some) if words["costs"].dtype.kind == "i" else math.fsum(some)
        if words["costs"].dtype.kind == "i":
            words["budget"] = max(0, edge + draw(st.integers(-1, 1)))
        else:
            # The tolerance of a float budget is the rounding of its sum: sit on either side of it.
            edge = edge / draw(st.sampled_from((1.0, 1 + n * EPS, 1 + (n + 1) * EPS)))
            words["budget"] = float(draw(st.sampled_from((edge, np.nextafter(edge, 0), np.nextafter(edge, 9)))))
    columns = {name: column for name in "pqr"[: draw(st.integers(0, most_columns))] if (column := draw(_column(n)))}
    if len(columns) > 1:
        words["groups"] = {name: labels for name, (labels, _) in columns.items()}
        words["quotas"] = {name: quotas for name, (_, quotas) in columns.items()}
    elif columns:
        ((words["groups"], words["quotas"]),) = columns.values()
    rows = st.lists(st.integers(0, n - 1), unique=True, max_size=2).map(lambda x: np.array(x, np.int64))
    for name in ("include", "exclude", "start"):
        if draw(st.integers(0, 2)) == 0:
            words[name] = draw(rows)
    return n, words


# Each test draws both: one column or none, and up to three columns at once.
PROBLEMS = st.one_of(problems(), problems(most=8, most_columns=3))


def completable(sets, picks):
    return len(sets) > 0 and bool(sets[:, picks].all(axis=1).any())


@PROFILE
@given(problem=PROBLEMS)
def test_refused_exactly_where_nothing_can_be_picked(problem):
    n, words = problem
    sets = feasible_sets(n, words)
    some = bool(sets.any())
    try:
        Constraints.of(n, **words)
    except InfeasibleError:
        assert not some
    else:
        assert some


@PROFILE
@given(problem=PROBLEMS, data=st.data())
def test_open_is_what_can_be_completed(problem, data):
    n, words = problem
    try:
        rules = Constraints.of(n, **words)
    except InfeasibleError:
        return
    sets = feasible_sets(n, words)
    tracker = Tracker(rules)
    picks = rules.preselected.tolist()
    while True:
        mask = tracker.eligible()
        expected = [item not in picks and completable(sets, [*picks, item]) for item in range(n)]
        assert mask.tolist() == expected, (words, picks)
        if not mask.any():
            break
        picks.append(data.draw(st.sampled_from(np.flatnonzero(mask).tolist())))
        tracker.add(picks[-1])
        # A search that is cut short here adds the completion and is done.
        rest = tracker.completion().tolist()
        if "k" not in words or "budget" in words:
            whole = np.isin(np.arange(n), [*picks, *rest])
            assert (sets == whole).all(axis=1).any(), (words, picks, rest)
    assert (sets == np.isin(np.arange(n), picks)).all(axis=1).any(), (words, picks)
    used, limit = tracker.report()
    assert used["k"] == len(picks)
    assert set(limit) <= set(used)
    if "budget" in words:
        spent = words["costs"][picks].tolist()
        assert used["costs"] == (sum(spent) if words["costs"].dtype.kind == "i" else math.fsum(spent))
    for name, held in used.items():
        if name.startswith("quota "):
            column, _, group = name.removeprefix("quota ").rpartition("=")
            labels = words["groups"][column] if column else words["groups"]
            assert held == sum(labels[picks] == group)


@PROFILE
@given(problem=PROBLEMS, data=st.data())
def test_upper_bound_holds_for_every_feasible_set(problem, data):
    n, words = problem
    try:
        rules = Constraints.of(n, **words)
    except InfeasibleError:
        return
    tracker = Tracker(rules)
    picked = np.zeros(n, bool)
    picked[rules.preselected] = True
    for _ in range(data.draw(st.integers(0, n))):
        mask = tracker.eligible()
        if not mask.any():
            break
        item = data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))
        tracker.add(item)
        picked[item] = True
    residual = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)), np.float64)
    most = max(residual[mask & ~picked].sum() for mask in feasible_sets(n, words))
    assert rules.upper_bound(residual, picked) >= most * (1 - 1e-12)


ABC = np.array(list("aabb"))
COSTS = np.array([1, 2, 3, 4])
ROWS = {name: np.array(rows) for name, rows in (("zero", [0]), ("two", [0, 1]), ("all", [0, 1, 2, 3]))}

# (words for 4 items, what the message says, and whether it is the constraints that clash)
REFUSALS = {
    "nothing asked": ({}, "give k (how many) or budget", False),
    "budget without costs": ({"budget": 3}, "budget=3 needs costs", False),
    "costs without budget": ({"k": 1, "costs": COSTS}, "costs are given without a budget", False),
    "quotas without groups": ({"k": 1, "quotas": {"a": (1, 1)}}, "quotas need groups", False),
    "groups without quotas": ({"k": 1, "groups": ABC}, "groups are given without quotas", False),
    "k above n": ({"k": 5}, "k=5 of 4 items: there are only 4", True),
    "included and excluded": (
        {"k": 2, "include": ROWS["zero"], "exclude": ROWS["zero"]},
        "row 0 is both in incl",
        True,
    ),
    "start and excluded": ({"k": 2, "start": ROWS["zero"], "exclude": ROWS["zero"]}, "row 0 is both in start", True),
    "exclude leaves too few": ({"k": 3, "exclude": ROWS["two"]}, "exclude leaves 2 of 4 items; lower k", True),
    "include above k": ({"k": 1, "include": ROWS["two"]}, "include and start hold 2 items, more than k=1", True),
    "unknown group with a maximum": (
        {"k": 2, "groups": ABC, "quotas": {"A": (0, 1)}},
        "quotas['A'] asks for at most 1, but no item has that group; did you mean 'a'?",
        False,
    ),
    "unknown group": (
        {"k": 2, "groups": ABC, "quotas": {"aa": (1, None)}},
        "quotas['aa'] asks for at least 1, but no item has that group; did you mean 'a'?",
        False,
    ),
    "group too small": (
        {"k": 4, "groups": ABC, "quotas": {"a": (3, None)}},
        "quotas['a'] asks for at least 3, but only 2 such items are open; lower it by 1",
        True,
    ),
    "include above quota": (
        {"k": 3, "groups": ABC, "quotas": {"a": (0, 1)}, "include": ROWS["two"]},
        "include and start hold 2 of group 'a', its quota is at most 1",
        True,
    ),
    "minima above k": (
        {"k": 2, "groups": ABC, "quotas": {"a": (2, None), "b": (1, None)}},
        "need 3 items, k=2; raise k or lower them by 1",
        True,
    ),
    "maxima below k": (
        {"k": 3, "groups": ABC, "quotas": {"a": (0, 1), "b": (0, 1)}},
        "leave room for 2; lower k or raise them by 1",
        True,
    ),
    "nothing left": ({"budget": 9, "costs": COSTS, "exclude": ROWS["all"]}, "exclude leaves no items", True),
    "include over budget": (
        {"budget": 2, "costs": COSTS, "include": ROWS["two"]},
        "include and start cost 3, over the budget of 2 by 1",
        True,
    ),
    "minima over budget": (
        {"budget": 2, "costs": COSTS, "groups": ABC, "quotas": {"b": (1, None)}},
        "cost at least 3, over the budget of 2 by 1",
        True,
    ),
    "maxima leave nothing": (
        {"budget": 9, "costs": COSTS, "groups": ABC, "quotas": {"a": (0, 0), "b": (0, 0)}},
        "the quotas' maxima leave no item to choose",
        True,
    ),
    "below the cheapest": ({"budget": 0.5, "costs": COSTS}, "buys nothing: the cheapest item costs 1", True),
    "below the cheapest allowed": (
        {"budget": 2, "costs": COSTS, "groups": ABC, "quotas": {"a": (0, 0)}},
        "buys nothing: the cheapest item costs 3",
        True,
    ),
}


@pytest.mark.parametrize(("words", "says", "clash"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(words, says, clash):
    refused(lambda: Constraints.of(4, **words), says, InfeasibleError if clash else InputError)


def test_every_refusal_is_tested():
    reached = {
        refused(lambda words=words: Constraints.of(4, **words), says, InfeasibleError if clash else InputError)
        for words, says, clash in REFUSALS.values()
    }
    assert untested(constraints, reached) == []


def test_huge_whole_costs_are_summed_exactly():
    costs = np.array([2**62, 2**62, 2**62, 1])
    rules = Constraints.of(4, budget=3 * 2**62, costs=costs)
    tracker = Tracker(rules)
    for item in range(3):
        assert tracker.eligible()[item]
        tracker.add(item)
    assert tracker.spent == 3 * 2**62
    assert not tracker.eligible().any()


def test_quota_ends_may_be_open():
    (column,) = Constraints.of(4, k=2, groups=ABC, quotas={"a": (0, None)}).columns
    assert column.least.tolist() == [0, 0]
    assert column.most.tolist() == [4, 4]


def test_cardinality_only_is_what_it_says():
    assert Constraints.of(4, k=2, exclude=np.array([1])).cardinality_only
    assert not Constraints.of(4, budget=2, costs=COSTS).cardinality_only
    assert not Constraints.of(4, k=2, groups=ABC, quotas={"a": (0, 1)}).cardinality_only
