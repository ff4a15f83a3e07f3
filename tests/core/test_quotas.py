"""How quotas find their groups, shares, several columns, and what is said where they clash."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.core import checks, witnesses
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import Constraints, Tracker
from kofn.core.quotas import Cells, columns_of
from kofn.laws.brute import feasible_sets

TEXT = ["a", "a", "b", "b"]


def column(groups, quotas, k=None, budget=None):
    return checks.resolved(checks.groups(groups), checks.quotas(quotas), k, budget)[1]


# Groups, the name that a quota gives, and the group's own name: written the same, or read as the same number.
SAME = {
    "float": (np.array([1.0, 2.0]), 1, 1.0),
    "whole": (np.array([1, 2]), 1.0, 1),
    "float32": (np.array([0.1, 2], np.float32), 0.1, float(np.float32(0.1))),
    "text of a number": (["1.0", "2.0"], 1, "1.0"),
    "number as text": (np.array([1, 2]), "1", 1),
    "numbers as a file writes them": (["1.0", "2.0"], "1", "1.0"),
    "boolean": ([True, False], 1, True),
    "boolean by name": ([True, False], "true", True),
    "boolean of a file": (["true", "false"], True, "true"),
    "bytes": (np.array([b"a", b"b"]), "a", "a"),
    "bytes in a list": ([b"a", b"b"], b"a", "a"),
    "bytes and text": ([b"b", "a"], "b", "b"),
    "mixed": ([1.0, "b"], 1, "1"),
    "versions": (["1.10", "1.1"], "1.10", "1.10"),
}


@pytest.mark.parametrize(("groups", "name", "own"), SAME.values(), ids=SAME)
def test_a_quota_finds_its_group(groups, name, own):
    assert column(groups, {name: (0, 1)}) == {own: (0, 1)}
    plan = kofn.select(np.arange(4.0)[:, None], k=2, groups=[*groups, *groups], quotas={name: (0, 0)})
    assert not (plan.indices % 2 == 0).any()


REFUSALS = {
    "NaN in a list": (["a", float("nan")], {"a": 1}, "groups at row 1 is missing"),
    "None in a list": (["a", None], {"a": 1}, "groups at row 1 is missing"),
    "NaN in numbers": ([1.0, float("nan")], {1: 1}, "groups"),
    "twice": ([1, 2], {1: (0, 1), "1": (3, None)}, "quotas names the group 1 twice, as 1 and as '1'"),
    "either": (["1.1", "1.10"], {1.100: 1, "1.100": 1}, "may be '1.1' or '1.10'"),
    "a share and a number": (TEXT, {"a": (0.2, 1)}, "the other end is a share"),
    "too large a share": (TEXT, {"a": (0.2, 1.5)}, "give a share from 0.0 to 1.0"),
    "shares without a count": (TEXT, {"a": (0.2, 0.3)}, "is a share of the picks, whose number a budget leaves open"),
    "groups and columns": (TEXT, {"a": 1, "p": {"b": 1}}, "quotas mixes groups and columns"),
    "a column of no name": (TEXT, {"p": {"a": 1}}, "groups is one column without a name"),
    "columns without names": ({"p": TEXT, "q": TEXT}, {"a": 1}, "groups has 2 columns, 'p', 'q'"),
    "unknown column": ({"lang": TEXT}, {"lagn": {"a": 1}}, "which groups lacks; did you mean 'lang'?"),
    "column without quotas": ({"p": TEXT, "q": TEXT}, {"p": {"a": 1}}, "groups['q'] has no quotas"),
    "no columns": ({}, {"p": {"a": 1}}, "give {column: labels} with a column"),
    "a maximum for nobody": (TEXT, {"A": (0, 1)}, "quotas['A'] asks for at most 1, but no item has that group; did"),
    "open ends for nobody": (TEXT, {"c": (None, None)}, "quotas['c'] asks for any, but no item has that group"),
    "a code is no number": (["07", "8"], {7: (0, 1)}, "quotas[7] asks for at most 1, but no item has that group"),
    "unknown group of a column": ({"p": TEXT}, {"p": {"c": 1}}, "quotas['p']['c'] asks for at least 1, but no"),
}


CANNOT_BE_MET = {
    "shares the wrong way": (TEXT, {"a": (0.3, 0.2)}, "at least 0.3 and at most 0.2 clash"),
}


@pytest.mark.parametrize(("groups", "quotas", "says"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(groups, quotas, says):
    refused(lambda: column(groups, quotas), says, InputError)


@pytest.mark.parametrize(("groups", "quotas", "says"), CANNOT_BE_MET.values(), ids=CANNOT_BE_MET)
def test_what_cannot_be_met(groups, quotas, says):
    refused(lambda: column(groups, quotas), says, InfeasibleError)


def test_shares_are_of_the_picks_and_written_as_they_are_meant():
    assert column(TEXT, {"a": (0.2, 0.3)}, k=10) == {"a": (2, 3)}
    assert column(TEXT, {"a": (0.1, 0.1)}, k=30) == {"a": (3, 3)}
    assert column(TEXT, {"a": (0.25, None), "b": 0.5}, k=7) == {"a": (1, None), "b": (3, 4)}
    assert column(TEXT, {"a": (0.5, 1.0)}, k=4) == {"a": (2, 4)}
    plan = kofn.select(np.arange(20.0)[:, None], k=10, groups=list("ab") * 10, quotas={"a": (0.2, 0.3)})
    assert plan.used["quota a"] == 3


def test_groups_of_a_table_and_only_where_quotas_read_them():
    import pandas

    table = pandas.DataFrame({"p": list("aabb"), "q": [1, 2, 1, 2]})
    plan = kofn.select(np.arange(4.0)[:, None], k=2, groups=table, quotas={"p": {"a": 1}, "q": {2: 2}})
    assert sorted(plan.indices.tolist()) == [1, 3]
    assert plan.used == {"k": 2, "quota p=a": 1, "quota q=2": 2}
    X = np.arange(6.0)[:, None]
    refused(lambda: kofn.select(X, k=2, groups={"p": list("aabbcc")}), "columns, which only quotas read", InputError)
    refused(
        lambda: kofn.select(X, k=2, groups={"p": TEXT}, quotas={"p": {"a": 1}}), "groups['p'] has 4 val", InputError
    )
    refused(lambda: kofn.select(X, k=2, groups=[*TEXT, ["c"], ["d"]], quotas={"a": 1}), "groups", InputError)


CLASHES = {
    "two columns": (
        {
            "k": 2,
            "groups": {"p": TEXT, "q": ["x", "y", "y", "y"]},
            "quotas": {"p": {"b": (2, 2)}, "q": {"x": (1, None)}},
        },
        "no k=2 picks meet the quotas of p and q together; lower quotas['",
    ),
    "three columns": (
        {
            "k": 2,
            "groups": {"p": list("aabb"), "q": list("xyxy"), "r": list("mnnm")},
            "quotas": {"p": {"a": (1, 1)}, "q": {"x": (1, 1)}, "r": {"m": (1, 1)}},
        },
        "no k=2 picks meet the quotas of p and q and r together; ",
    ),
    "under a budget": (
        {
            "budget": 9,
            "costs": np.ones(4, int),
            "groups": {"p": TEXT, "q": ["x", "y", "y", "y"]},
            "quotas": {"p": {"a": (0, 0)}, "q": {"x": (1, None)}},
        },
        "no picks meet the quotas of p and q together; ",
    ),
    "too dear": (
        {
            "budget": 2,
            "costs": np.array([3, 1, 1, 1]),
            "groups": {"p": TEXT, "q": ["x", "y", "y", "y"]},
            "quotas": {"p": {"b": (1, None)}, "q": {"x": (1, None)}},
        },
        "cost at least 4, over the budget of 2 by 2",
    ),
}


@pytest.mark.parametrize(("words", "says"), CLASHES.values(), ids=CLASHES)
def test_a_clash_of_columns_is_named(words, says):
    if says.startswith("no k=2 picks meet the quotas of p and q and r"):
        # Rows ax m, ay n, bx n, by m: one of each pair leaves two rows with m or none.
        assert not len(feasible_sets(4, words))
    refused(lambda: Constraints.of(4, **words), says, InfeasibleError)


def drawn(rng, columns=3, n=8):
    """Quotas over several columns on n items: mostly tight, met or not."""
    groups = {name: rng.integers(0, 3, n) for name in "pqr"[:columns]}
    quotas = {}
    for name, codes in groups.items():
        quotas[name] = {}
        for code in sorted(set(codes.tolist())):
            low = int(rng.integers(0, 3))
            quotas[name][code] = (low, low + int(rng.integers(0, 2)))
    return {"k": int(rng.integers(1, n + 1)), "groups": groups, "quotas": quotas}


def can_be_met(words):
    """Whether k lies within what each column alone asks for: where it does not, no set is feasible."""
    ends = [np.sum(list(quotas.values()), axis=0) for quotas in words["quotas"].values()]
    return all(least <= words["k"] <= most for least, most in ends)


@pytest.mark.parametrize("columns", [2, 3])
def test_picks_never_end_in_a_corner(columns):
    """60 feasible problems and 200 others: refused exactly where nothing is feasible, else optimal and k picks."""
    rng = np.random.default_rng(columns)
    counts = {True: 0, False: 0}
    while counts[True] < 60 or counts[False] < 200:
        words = drawn(rng, columns)
        # Enough problems without a feasible set have been seen: those of which it is plain are drawn past.
        plain = counts[False] > 200 and not can_be_met(words)
        sets = [] if plain else feasible_sets(8, words)
        counts[len(sets) > 0] += 1
        scores = rng.choice((1.0, -2.0, 0.5), 8) if rng.integers(2) else rng.normal(size=8)
        if not len(sets) and counts[False] > 200:
            continue
        if not len(sets):
            with pytest.raises(InfeasibleError):
                kofn.select(scores=scores, method="top_k", **words)
            continue
        plans = [
            kofn.select(scores=scores, method="top_k", **words),
            kofn.select(scores=scores, method="lazy_greedy", **words),
        ]
        if counts[True] % 4 == 0:
            plans += [
                kofn.select(scores=scores, method="random_sample", seed=0, **words),
                kofn.select(scores[:, None], method="farthest_first", **words),
            ]
        best = max(scores[mask].sum() for mask in sets)
        assert plans[0].value == pytest.approx(best, rel=1e-12, abs=1e-12)
        assert plans[1].bound is None or plans[1].bound >= best - 1e-12
        for plan in plans:
            assert (sets == plan.mask).all(axis=1).any()


@pytest.mark.parametrize("sizes", [(12, 9), (6, 5, 4)])
def test_a_witness_that_is_taken_to_its_last_pick(sizes):
    """Exact counts of every group leave no slack: each pick is the last that some group has room for."""
    rng = np.random.default_rng(0)
    n, k = 120, 60
    groups = {str(at): rng.integers(0, size, n) for at, size in enumerate(sizes)}
    some = rng.choice(n, k, replace=False)
    quotas = {
        name: {code: int((codes[some] == code).sum()) for code in np.unique(codes).tolist()}
        for name, codes in groups.items()
    }
    scores = rng.random(n)
    plan = kofn.select(scores=scores, k=k, groups=groups, quotas=quotas, method="lazy_greedy")
    best = kofn.select(scores=scores, k=k, groups=groups, quotas=quotas, method="top_k")
    assert len(plan) == len(best) == k
    assert scores[some].sum() <= best.value
    assert plan.value <= best.value + 1e-9
    assert best.status == "optimal"
    # Some pick was kept back for what others need, so no share of the optimum is claimed.
    assert plan.guarantee is None
    assert plan.status == "approximate"


def test_maxima_alone_have_a_proven_share():
    rng = np.random.default_rng(1)
    groups = {"p": rng.integers(0, 5, 60), "q": rng.integers(0, 4, 60)}
    quotas = {name: dict.fromkeys(range(codes.max() + 1), (0, 4)) for name, codes in groups.items()}
    plan = kofn.select(rng.normal(size=(60, 2)), k=8, groups=groups, quotas=quotas)
    assert plan.guarantee == pytest.approx(1 / 3)


def test_a_search_cut_short_meets_the_minima():
    rng = np.random.default_rng(2)
    for seed in range(40):
        words = drawn(np.random.default_rng(seed), 2 + seed % 2)
        if seed % 3 == 0:
            words |= {"costs": rng.integers(1, 5, 8), "budget": 14}
        sets = feasible_sets(8, words)
        if not len(sets):
            continue
        tracker = Tracker(Constraints.of(8, **words))
        picks = np.flatnonzero(tracker.eligible())[-1:].tolist()
        for item in picks:
            tracker.add(item)
        for item in tracker.completion().tolist():
            tracker.add(item)
            picks.append(item)
        for name, codes in words["groups"].items():
            held = np.bincount(codes[picks], minlength=3)
            for code, (low, high) in words["quotas"][name].items():
                assert low <= held[code] <= high


def test_groups_without_quotas_are_one_cell():
    rng = np.random.default_rng(0)
    groups = {"p": rng.integers(0, 50, 300), "q": rng.integers(0, 50, 300)}
    cells = Cells(columns_of(*checks.resolved(groups, {"p": {0: (1, 2)}, "q": {1: (0, 3)}}, 5, None)))
    assert cells.count <= 4


def test_whether_the_budget_buys_anything_is_asked_of_few_items(monkeypatch):
    n, rng = 300, np.random.default_rng(0)
    costs = rng.integers(50_000, 100_000, n)
    kinds, sides = rng.choice(list("abcd"), n), rng.choice(list("xy"), n)
    least = {"a": 3, "b": 5, "c": 2, "d": 4}
    budget = sum(int(np.sort(costs[kinds == kind])[:count].sum()) for kind, count in least.items())
    calls, solve = [], witnesses.whole_numbers
    monkeypatch.setattr(witnesses, "whole_numbers", lambda *given: calls.append(1) or solve(*given))
    plan = kofn.select(
        scores=rng.random(n),
        costs=costs,
        budget=budget,
        groups={"kind": kinds, "side": sides},
        quotas={"kind": {kind: (count, None) for kind, count in least.items()}, "side": {"x": (0, 20)}},
    )
    assert costs[plan.indices].sum() <= budget
    assert len(calls) < n // 2


def cells_drawn(rng):
    """A pool of eight items in two columns, quotas of one of them (not always) and of two cells."""
    groups = {"a": rng.permutation([*"xy", *rng.choice(list("xy"), 6)]), "b": rng.integers(0, 3, 8)}
    quotas = {"a": {"x": (int(rng.integers(0, 2)), int(rng.integers(2, 5)))}} if rng.random() < 0.7 else {}
    quotas["a", "b"] = {}
    for item in rng.choice(8, 2, replace=False):
        low = int(rng.integers(0, 3))
        high = None if rng.random() < 0.5 else low + int(rng.integers(0, 2))
        quotas["a", "b"][str(groups["a"][item]), int(groups["b"][item])] = (low, high)
    return groups, quotas


def holds(picks, groups, quotas):
    """Whether picks are within quotas, cell by cell, by definition."""
    for column, asked in quotas.items():
        for group, (low, high) in asked.items():
            names, values = (column, group) if isinstance(column, tuple) else ((column,), (group,))
            held = sum(all(groups[name][i] == value for name, value in zip(names, values, strict=True)) for i in picks)
            if not low <= held <= (8 if high is None else high):
                return False
    return True


@pytest.mark.parametrize("budgeted", [False, True])
def test_quotas_of_cells_beside_those_of_columns_are_exact(budgeted):
    rng, outcomes = np.random.default_rng(7), {True: 0, False: 0}
    for _ in range(120):
        groups, quotas = cells_drawn(rng)
        k, scores, costs = int(rng.integers(2, 6)), rng.random(8), rng.integers(1, 9, 8)
        limit = {"costs": costs, "budget": int(rng.integers(8, 40))} if budgeted else {"k": k}
        sizes = range(1, 9) if budgeted else [k]
        sets = [
            picks
            for size in sizes
            for picks in itertools.combinations(range(8), size)
            if holds(picks, groups, quotas) and (not budgeted or costs[list(picks)].sum() <= limit["budget"])
        ]
        try:
            plan = kofn.select(scores=scores, groups=groups, quotas=quotas, **limit)
        except InfeasibleError:
            assert not sets
        else:
            assert tuple(sorted(plan.indices.tolist())) in sets
            best = max(scores[list(picks)].sum() for picks in sets)
            assert plan.value <= best + 1e-12
            assert plan.bound >= best - 1e-12
            if not budgeted:
                assert plan.value == pytest.approx(best)
        outcomes[bool(sets)] += 1
    assert min(outcomes.values()) > 5


CELLS = {"a": ["x", "x", "y", "y"], "b": [1, 2, 1, 2]}
REFUSED_CELLS = {
    "an absent group": ({("a", "b"): {("x", 9): 3}}, "quotas[('a', 'b')][('x', 9)]: no item has 9 in 'b'"),
    "one group": ({("a", "b"): {"x": 3}}, "quotas[('a', 'b')]['x']: give one group of each of the 2 columns"),
    "no such column": ({("a", "c"): {("x", 1): 3}}, "quotas name the column 'c', which groups lacks"),
    "one column twice": ({("a", "a"): {("x", "x"): 3}}, "give two columns or more, each once"),
    "a cell twice": ({("a", "b"): {("x", "1"): 1, ("x", 1): 1}}, "names a cell that was named before"),
    "too few": ({("a", "b"): {("x", 1): (2, None)}}, "quotas['a+b']['x,1'] asks for at least 2, but only 1 such items"),
    "a clash": (
        {("a", "b"): {("x", 1): 1, ("x", 2): 1}, "a": {"x": (0, 1)}},
        "no k=2 picks meet the quotas of a+b and a",
    ),
}


@pytest.mark.parametrize(("quotas", "told"), REFUSED_CELLS.values(), ids=REFUSED_CELLS)
def test_quotas_of_cells_that_cannot_be_read_or_met(quotas, told):
    with pytest.raises(InputError) as error:
        kofn.select(scores=np.arange(4.0), k=2, groups=CELLS, quotas=quotas)
    assert told in str(error.value)


def test_cells_whose_names_read_alike_stay_apart():
    groups = {"a": ["x,y", "x"], "b": ["z", "y,z"]}
    plan = kofn.select(scores=[2.0, 1.0], k=1, groups=groups, quotas={("a", "b"): {("x,y", "z"): 0}})
    assert plan.indices.tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "group"),
    [
        ([2**63 + 1, 1] * 4, 2**63 + 1),
        ([2**53 + 1, 0.5] * 4, 2**53 + 1),
        ([2**53 + 1, 2**53, 0.5, 1.0] * 2, 2**53 + 1),
        ([-(2**64), 1] * 4, -(2**64)),
    ],
)
def test_whole_numbers_that_floats_would_merge_are_groups_of_their_own(labels: list[Any], group: int) -> None:
    plan = kofn.select(np.eye(8), k=4, groups=labels, quotas={group: (0, 1)})
    assert sum(labels[item] == group for item in plan.indices) <= 1
    with pytest.raises(kofn.InputError, match="no item has that group"):
        kofn.select(np.eye(8), k=4, groups=labels, quotas={group + 2: (0, 1)})


@pytest.mark.parametrize("unit", ["M8[D]", "M8[ns]", "m8[s]"])
def test_a_missing_date_is_no_group(unit: str) -> None:
    days = np.array([1, "NaT"] * 4, unit) if unit.startswith("m") else np.array(["2020-01-01", "NaT"] * 4, unit)
    with pytest.raises(kofn.InputError, match="groups at row 1 is missing"):
        kofn.select(np.eye(8), k=4, groups=days, quotas={"2020-01-01": (0, 1)})


def test_complex_numbers_are_no_labels() -> None:
    with pytest.raises(kofn.InputError, match="groups has dtype complex128; give one label an item"):
        kofn.select(np.eye(8), k=4, groups=np.array([1j, 2] * 4), quotas={1: (0, 1)})
    members = [np.full(4, 0.5), np.full(4, 0.25)]
    with pytest.raises(kofn.InputError, match="y has dtype complex128"):
        kofn.combine(members, y=np.array([0, 1, 0, 1]) + 0j, method="stacking")
    with pytest.raises(kofn.InputError, match="member 1 has dtype complex128; give numbers"):
        kofn.combine([members[0], members[1] + 1j], y=[0, 1, 0, 1], method="stacking")


@pytest.mark.parametrize(
    ("label", "says"), [(1j, "y at row 0 is 1j, a complex number"), (np.inf, "y at row 0 is inf; give finite")]
)
def test_odd_numbers_among_missing_labels_are_refused(label: Any, says: str) -> None:
    with pytest.raises(kofn.InputError, match=says):
        kofn.assign(np.eye(6), y=[label, 1, None, None, None, None], method="laplacian_shot")
