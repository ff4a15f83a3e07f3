"""Hostile input for every argument of every method, generated from the vocabulary, and every refusal of `checks`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from bad_values import GROUPS, HOSTILE, PARTNERS, PLAIN, UNCHECKED, Bad, N, X, put
from refusals import refused, untested

import kofn
from kofn.core import checks, dispatch, vocabulary
from kofn.core.checks import InputError
from kofn.core.draws import KINDS
from kofn.core.registry import VERBS, Entry
from kofn.core.vocabulary import VOCABULARY


def plain(entry: Entry, word: str) -> dict[str, Any]:
    """The least valid call of the method that has this word."""
    words = [word, *entry.required]
    for group in entry.needs:
        words += [word] if word in group else [group[0]]
    words += [partner for partner in PARTNERS.get(word, ()) if partner in entry.accepted]
    if entry.verb == "select" and "budget" not in words and "k" in entry.accepted:
        words.append("k")
    if entry.verb == "allocate":
        words.append("budget")
    return {name: value_of(entry, name) for name in dict.fromkeys(words)}


def row_of(table: dict[str, Any], entry: Entry, word: str) -> Any:
    """The row of a table for a method's word: of the kind it takes, of its verb, or of everyone."""
    kind = entry.draws.kinds.get(word)
    keys = (f"{word} {kind}", f"{entry.verb} {word}", word)
    return next((table[key] for key in keys if key in table), None)


def value_of(entry: Entry, word: str) -> Any:
    declared = entry.draws
    if word in declared.plain:
        return declared.plain[word]
    if entry.verb == "combine" and word == "weights":
        given = value_of(entry, "members") if "members" in entry.accepted else value_of(entry, "rankings").T
        return np.arange(1.0, 1 + len(given))
    value = row_of(PLAIN, entry, word)
    return value[: declared.members] if word == "members" else value


def call(entry: Entry, given: dict[str, Any], **options: Any) -> Any:
    needed = {name: value for name, value in entry.draws.plain.items() if name in entry.options}
    return getattr(kofn, entry.verb)(**given, method=entry.name, options={**needed, **options})


ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]


def hostile_of(entry: Entry, word: str) -> Bad:
    bad = dict(row_of(HOSTILE, entry, word) or {})
    if word == "weights" and "rankings" in entry.accepted:
        bad["negative"] = (lambda v: put(v, 1, -2.0), "@ at row 1 is -2; weights must be >= 0")
    by_cosine = "metric" not in entry.accepted or entry.draws.plain.get("metric") == "cosine"
    takes = entry.load().__kofn__.sparse  # type: ignore[attr-defined]
    if word == "X" and (takes == "any metric" or (takes and by_cosine)):
        del bad["sparse"]  # such rows are taken
    if word == "y" and "unlabelled" in entry.options:
        del bad["missing"]  # such rows have no label
    if word == "members" and entry.draws.members == 2:
        bad["three"] = (lambda v: [*v, v[0]], entry.name)
    if word == "members" and entry.draws.members == 1:
        bad["NaN"] = (lambda v: [put(v[0], 0, np.nan)], "member 0")
        bad["infinite"] = (lambda v: [put(v[0], 0, np.inf)], "member 0")
        bad["two"] = (lambda v: [*v, v[0]], entry.name)
        del bad["unlike integers"]
    return bad


def what_is_wrong(entry: Entry, word: str, change: Callable[[Any], Any], says: str) -> str | None:
    """How a call with a hostile value misses the refusal that it should get; None where it gets it."""
    given = plain(entry, word)
    given[word] = change(given[word])
    try:
        call(entry, given)
    except InputError as error:
        message = str(error)
        named = re.search(rf"\b{word}\b|\bmember \d|include and start|/nowhere/", message)
        if says.replace("@", word) in message and "\n" not in message and len(message) < 400 and named:
            return None
        return f"says {message!r}, not {says!r}"
    except Exception as error:
        return f"raises {error!r}"
    return "is taken"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_plain_calls_are_valid(entry: Entry) -> None:
    for word in entry.accepted:
        assert call(entry, plain(entry, word)).method == entry.name


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_argument_has_hostile_values(entry: Entry) -> None:
    assert [word for word in entry.accepted if not hostile_of(entry, word) and word not in UNCHECKED] == []


def test_every_kind_of_values_has_hostile_ones() -> None:
    kinds = {f"{word} {kind}" for word, of_word in KINDS.items() for kind in of_word}
    assert kinds <= HOSTILE.keys()


# A test a method, not one a value: pytest takes longer to begin a test than such a call to be refused.
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_is_refused_by_name(entry: Entry) -> None:
    wrong = {
        f"{word} {name}": what_is_wrong(entry, word, change, says)
        for word in entry.accepted
        for name, (change, says) in hostile_of(entry, word).items()
    }
    assert {case: fault for case, fault in wrong.items() if fault} == {}


def test_a_value_that_is_taken_or_refused_otherwise_is_wrong() -> None:
    entry = next(entry for entry in ENTRIES if "k" in entry.accepted)
    assert what_is_wrong(entry, "k", lambda k: k, "@") == "is taken"
    assert "not 'no such words'" in str(what_is_wrong(entry, "k", lambda k: 0, "no such words"))
    assert what_is_wrong(entry, "k", lambda k: 0, "@=0") is None


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_inputs_of_another_length_are_refused(entry: Entry) -> None:
    for word in set(entry.accepted) & {"groups", "costs", "weights"}:
        for size in (1, 5, 7):
            given = plain(entry, word)
            given[word] = ["a"] * size if word == "groups" else [1] * size
            # Costs of a table's entries may also be one a column.
            by_column = word == "costs" and np.ndim(given.get("scores")) == 2
            says = f"shape ({size},)" if by_column else f"{size} values"
            refused(lambda given=given: call(entry, given), f"{word} has {says}")
    for word in set(entry.accepted) & {"k"}:
        given = plain(entry, word)
        given["k"] = N + 1
        with pytest.raises(InputError, match=r"k=7\b.* 6"):
            call(entry, given)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_options_are_checked_too(entry: Entry) -> None:
    refused(
        lambda: call(entry, plain(entry, entry.accepted[0]), no_such_option=1),
        f"method={entry.name!r} has no option 'no_such_option'",
    )
    for option in entry.options:
        if option in ("out", "record", "work"):  # any text is a path
            continue
        with pytest.raises(InputError, match=option):
            call(entry, plain(entry, entry.accepted[0]), **{option: "no such value"})


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_misspelt_names_get_the_nearest(entry: Entry) -> None:
    given = plain(entry, entry.accepted[0])
    verb = getattr(kofn, entry.verb)
    refused(lambda: verb(**given, method=f"{entry.name}x"), f"did you mean {entry.name!r}?")
    for word in entry.accepted:
        if len(word) > 3:
            refused(lambda word=word: verb(**given, **{f"{word}_": 1}, method=entry.name), f"did you mean {word!r}?")
    for word in sorted(VOCABULARY.keys() - set(entry.accepted) - vocabulary.SETTINGS - {"ids"}):
        with pytest.raises(InputError, match=rf"method='{entry.name}' does not take {word}"):
            verb(**{**given, word: [1]}, method=entry.name)


IDS = {
    "twice": (["a", "b", "a", "d", "e", "f"], "ids must differ: 'a' stands at row 0 and at row 2"),
    "twice as numbers": ([1, 2, 3, 4, 5, 1], "ids must differ: 1 stands at row 0 and at row 5"),
    "too few": (["a"], "ids has 1 values"),
    "a table": (np.ones((6, 1)), "ids has shape (6, 1); give one id an item"),
    "nothing": ([], "ids has shape (0,)"),
    "missing": (np.array(["a", None, "c", "d", "e", "f"], object), "ids at row 1 is missing; give every item an id"),
    "NaN": ([1.0, np.nan, 3.0, 4.0, 5.0, 6.0], "ids at row 1 is NaN"),
}


@pytest.mark.parametrize(("ids", "says"), IDS.values(), ids=IDS)
def test_ids(ids: Any, says: str) -> None:
    refused(lambda: kofn.select(X, k=2, ids=ids), says)


CLASHES = {
    "included and excluded": (lambda: kofn.select(X, k=2, include=[1], exclude=[1]), "row 1 is both in include and in"),
    "started and excluded": (lambda: kofn.select(X, k=2, start=[1], exclude=[1]), "row 1 is both in start and in excl"),
    "an id that no row has": (
        lambda: kofn.select(X, k=2, ids=list("abcdef"), include=["a", "z", "y"]),
        "include names 'z' and 1 more, which no row has as its id",
    ),
    "more excluded than left": (lambda: kofn.select(X, k=5, exclude=[0, 1]), "k=5 but exclude leaves 4 of 6 items"),
    "cheaper than the cheapest": (
        lambda: kofn.select(X, budget=0.5, costs=[1, 2, 3, 4, 5, 6]),
        "budget=0.5 buys nothing: the cheapest item costs 1",
    ),
    "budget alone": (lambda: kofn.select(X, budget=3), "budget=3 needs costs"),
    "costs alone": (lambda: kofn.select(X, k=3, costs=[1] * 6), "costs are given without a budget"),
    "quotas alone": (lambda: kofn.select(X, k=3, quotas={"a": 1}), "quotas need groups"),
    "groups alone": (lambda: kofn.select(X, k=3, groups=GROUPS), "groups are given without quotas"),
    "nothing asked": (lambda: kofn.select(X), "give k (how many) or budget"),
    "two inputs": (lambda: kofn.select(X, similarity=np.eye(6), k=2), "X"),
    "quotas' minima above k": (
        lambda: kofn.select(X, k=2, groups=GROUPS, quotas={"a": (2, None), "b": (1, None)}),
        "the quotas' minima (with include) need 3 items, k=2; raise k or lower them by 1",
    ),
    "quotas' maxima below k": (
        lambda: kofn.select(X, k=4, groups=GROUPS, quotas=dict.fromkeys("abc", (0, 1))),
        "the quotas' maxima leave room for 3; lower k or raise them by 1",
    ),
    "no submodular objective": (
        lambda: kofn.select(X, k=2, objective=NotSubmodular()),
        "objective=NotSubmodular is not submodular",
    ),
    "medoids above n": (lambda: kofn.assign(X, k=7), "k=7 of 6 items"),
    "bins that are too small": (
        lambda: kofn.assign(scores=PLAIN["assign scores"], capacity=[2, 2, 1]),
        "capacity",
    ),
    "budget of the cheapest levels": (
        lambda: kofn.allocate([[2.0, 1.0]] * 2, budget=1, levels=[1, 2]),
        "budget=1 is below 2, what the cheapest level of every item costs in total; raise it by 1",
    ),
    "neither budget": (lambda: kofn.allocate([[2.0, 1.0]]), "give budget"),
    "both budgets": (lambda: kofn.allocate([[2.0, 1.0]], budget=1, mean_budget=1), "not both"),
    "weights that cancel": (
        lambda: kofn.combine([[1.0], [2.0]], weights=[1, -1]),
        "weights sum to 0; relative weights need a positive sum",
    ),
}


class NotSubmodular:
    """An objective that greedy may not be lazy about."""

    submodular = False
    monotone = True

    def gains(self, candidates):
        return np.zeros(len(candidates))

    def add(self, item):
        return 0.0

    def value(self, indices):
        return 0.0


@pytest.mark.parametrize(("ask", "says"), CLASHES.values(), ids=CLASHES)
def test_arguments_that_clash(ask: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def _resolved(groups: Any, quotas: Any) -> Any:
    return checks.resolved(checks.groups(groups), checks.quotas(quotas), None, None)


def _same_length() -> None:
    checks.same_length(3, "X", "weights", 2)


@pytest.mark.parametrize(
    "whole",
    [
        [2**60, 2**61, 3 * 2**59],
        [2**60 + 1, 2**60 + 1],
        [1_700_000_000_000_000_001, 1_730_000_000_000_000_007],
        [2**53, 0, -(2**53)],
        [5, 6],
    ],
)
def test_large_whole_numbers_that_floats_tell_apart_are_taken(whole: list[int]) -> None:
    np.testing.assert_array_equal(checks.vector(whole, "scores"), np.array(whole, np.float64))
    np.testing.assert_array_equal(checks.matrix(np.array([whole]).T), np.array([whole], np.float64).T)


# Every refusal of `checks`, called directly: (call, what the message says).
REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: checks.matrix(scipy.sparse.eye_array(2)), "X is a sparse matrix"),
    "ragged": (lambda: checks.matrix([[1.0], [1.0, 2.0]]), "X is ragged"),
    "no numbers": (lambda: checks.vector(np.array(["a", 1], object), "weights"), "holds values that are not numbers"),
    "no time": (
        lambda: checks.matrix(np.array([[1.0], [np.datetime64("2024-01-01")]], object)),
        "at row 1, column 0; give",
    ),
    "missing": (lambda: checks.matrix(np.array([[1.0], [pd.NA]], object)), "<NA> at row 1, column 0; fill or drop"),
    "masked rows": (lambda: checks.matrix([np.ma.masked_greater([1, 2], 1)]), "holds masked arrays with masked"),
    "whole": (lambda: checks.vector([2**60, 2**60 + 1], "scores"), r"scores - scores.min()"),
    "whole columns": (lambda: checks.matrix([[0, 2**60], [1, 2**60 + 200], [2, 2**60 + 900]]), "X - X.min()"),
    "unsigned": (lambda: checks.matrix(np.array([[2**63], [2**63 + 1]], np.uint64)), "double precision rounds"),
    "python's": (lambda: checks.matrix([[2**70], [2**70 + 1], [2**70 + 9]]), "double precision rounds"),
    "dtype": (lambda: checks.matrix([["a"]]), "X has dtype <U1"),
    "not finite": (lambda: checks.matrix([[np.nan]]), "X at row 0, column 0 is NaN"),
    "ragged rows": (lambda: checks.matrix(np.array([[1.0], [1.0, 2.0]], object)), "row 1 has 2 values, row 0 has 1"),
    "flat": (lambda: checks.matrix([1.0]), "use reshape(-1, 1)"),
    "deep": (lambda: checks.matrix(np.zeros((1, 1, 1))), "3 dimensions"),
    "no rows": (lambda: checks.matrix(np.empty((0, 1))), "X is empty"),
    "no columns": (lambda: checks.matrix(np.empty((1, 0))), "X has no columns"),
    "sparse distances": (lambda: checks.distances(scipy.sparse.eye_array(2)), "a missing entry has no meaning"),
    "sparse oblong": (lambda: checks.square(scipy.sparse.csr_array((2, 1)), "similarity"), "square"),
    "sparse empty": (lambda: checks.square(scipy.sparse.csr_array((0, 0)), "similarity"), "empty"),
    "sparse bad": (lambda: checks.square(scipy.sparse.eye_array(2) * -1, "similarity"), "row 0, column 0 is -1"),
    "oblong": (lambda: checks.square(np.ones((2, 1)), "similarity"), "square"),
    "below zero": (lambda: checks.square([[-1.0]], "similarity"), "row 0, column 0 is -1"),
    "one way": (lambda: checks.distances([[0.0, 1.0], [2.0, 0.0]]), "not symmetric"),
    "empty table": (lambda: checks.scores(np.empty((0, 2))), "scores is empty"),
    "table with NaN": (lambda: checks.scores([[np.nan]]), "scores at row 0, column 0 is nan"),
    "no vector": (lambda: checks.vector(np.ones((1, 1, 1)), "scores"), "one value an item"),
    "empty vector": (lambda: checks.vector([], "scores"), "scores is empty"),
    "weight below zero": (lambda: checks.weights([-1.0]), "weights at row 0 is -1"),
    "weights of zero": (lambda: checks.weights([0.0]), "all zero"),
    "costs of a table": (
        lambda: checks.spread_costs([[1]], (2, 3)),
        "give one an entry, (2, 3), or one a column, (3,)",
    ),
    "cost below zero": (lambda: checks.costs([-1]), "costs at row 0 is -1"),
    "no number": (lambda: checks.number("1", "budget"), "budget='1': give a number"),
    "no finite number": (lambda: checks.number(float("inf"), "budget"), "give a finite number"),
    "number below zero": (lambda: checks.number(-1, "budget"), "it must be >= 0"),
    "no whole number": (lambda: checks.count(1.5), "k=1.5: give a whole number"),
    "count below": (lambda: checks.count(0), "k=0: ask for at least 1"),
    "fraction": (lambda: checks.fraction(2, "cutoff"), "cutoff=2: give a number between 0 and 1"),
    "choice": (lambda: checks.choice("b", "metric", ("a",)), "metric='b': choose one of a"),
    "flag": (lambda: checks.flag("yes", "normalize"), "normalize='yes': give True or False"),
    "groups": (lambda: checks.groups([[1]]), "one label an item"),
    "group missing": (lambda: checks.groups([None]), "groups at row 0 is missing"),
    "no quotas": (lambda: checks.quotas({}), "give {group: (least, most)}"),
    "quota ends": (lambda: checks.quotas({"a": (1,)}), "quotas['a']=(1,)"),
    "quotas mixed": (lambda: checks.quotas({"a": 1, "b": {"c": 1}}), "mixes groups and columns"),
    "quota share": (lambda: checks.quotas({"a": (0.5, 2)}), "the other end is a share"),
    "groups without columns": (lambda: checks.groups({}), "with a column"),
    "groups of no name": (lambda: _resolved(["a"], {"p": {"a": 1}}), "one column without a name"),
    "groups of many names": (lambda: _resolved({"p": ["a"], "q": ["a"]}, {"a": 1}), "groups has 2 columns"),
    "unknown column": (lambda: _resolved({"p": ["a"]}, {"q": {"a": 1}}), "which groups lacks"),
    "column alone": (lambda: _resolved({"p": ["a"], "q": ["a"]}, {"p": {"a": 1}}), "has no quotas"),
    "unknown group": (lambda: _resolved(["a"], {"b": 1}), "no item has that group"),
    "group twice": (lambda: _resolved([1], {1: 1, "1": 1}), "names the group 1 twice"),
    "group or group": (lambda: _resolved(["1.1", "1.10"], {"1.100": 1}), "may be '1.1' or '1.10'"),
    "share of what": (lambda: _resolved(["a"], {"a": 0.5}), "is a share of the picks"),
    "quota clash": (lambda: checks.quotas({"a": (2, 1)}), "at least 2 and at most 1 clash"),
    "ids": (lambda: checks.ids([[1]]), "one id an item"),
    "id missing": (lambda: checks.ids(np.array([None], object)), "ids at row 0 is missing"),
    "ids twice": (lambda: checks.ids([1, 1]), "ids must differ"),
    "unknown id": (lambda: checks.positions(["z"], "include", 1, np.array(["a"])), "no row has as its id"),
    "no row": (lambda: checks.positions(["z"], "include", 1), "give row numbers 0..0"),
    "row beyond": (lambda: checks.positions([1], "include", 1), "the rows are 0..0"),
    "row twice": (lambda: checks.positions([0, 0], "include", 1), "more than once"),
    "rankings": (lambda: checks.rankings([1.0]), "give (items, judges)"),
    "infinite rating": (lambda: checks.rankings([[np.inf]]), "use NaN for a missing score"),
    "silent judge": (lambda: checks.rankings([[np.nan]]), "judge 0 rated nothing"),
    "no members": (lambda: checks.members("a"), "members=str"),
    "empty members": (lambda: checks.members([]), "members is empty"),
    "capacity": (lambda: checks.capacity([0.5]), "one whole number"),
    "capacity below zero": (lambda: checks.capacity([-1]), "capacity of bin 0 is -1"),
    "margins": (lambda: checks.margins([1.0]), "give two vectors"),
    "margins below zero": (lambda: checks.margins(([1.0, -1.0], [0.0])), "row totals at row 1 is -1"),
    "margins that differ": (lambda: checks.margins(([1.0], [2.0])), "do not add up: the row totals sum to 1"),
    "no margins": (lambda: checks.margins(([0.0], [0.0])), "are all zero"),
    "bytes": (lambda: checks.bytes_of("x"), "give bytes, or for example"),
    "no bytes": (lambda: checks.bytes_of(0), "a positive number of bytes"),
    "seconds": (lambda: checks.seconds(0), "a positive number of seconds"),
    "seed": (lambda: checks.entropy(-1), "seed=-1: give a whole number"),
    "length": (_same_length, "weights has 2 values, X has 3 rows"),
}


@pytest.mark.parametrize(("ask", "says"), REFUSALS.values(), ids=REFUSALS)
def test_refusal(ask: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        ask()
    assert says in str(caught.value)


def test_every_refusal_of_checks_is_tested() -> None:
    reached = set()
    for ask, _ in REFUSALS.values():
        with pytest.raises(InputError) as caught:
            ask()
        last = caught.traceback[-1]
        reached.add((str(last.path), last.lineno + 1))
    assert untested(checks, reached) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("600MB", 600_000_000), ("2GiB", 2**31), ("1k", 1000), (" 10 B ", 10), ("1.5g", 1_500_000_000), (4096, 4096)],
)
def test_bytes_are_read(text: Any, size: int) -> None:
    assert checks.bytes_of(text) == size


def test_what_is_odd_but_valid() -> None:
    same = np.ones((5, 2))
    assert len(kofn.select(same, k=3)) == 3
    assert len(kofn.select(same[:1], k=1)) == 1
    assert sorted(kofn.select(X, k=N).indices.tolist()) == list(range(N))
    assert kofn.select(X, k=2.0).used["k"] == 2
    assert len(kofn.select(X, k=np.int64(2))) == 2
    assert kofn.select(X, k=2, include=np.array([False, True, False, False, False, False])).mask[1]
    assert len(kofn.select(X.astype(np.float16), k=2)) == 2
    assert len(kofn.select(X.astype(int), k=2)) == 2
    assert len(kofn.select(X, k=2, seed=np.random.default_rng(0))) == 2
    assert len(kofn.select(X, k=3, start=kofn.select(X, k=2))) == 3
    ids = list("abcdef")
    assert len(kofn.select(X, k=3, ids=ids, start=kofn.select(X, k=2, ids=ids))) == 3
    assert kofn.select(X, budget=0, costs=[0, 0, 1, 1, 1, 1]).used["costs"] == 0
    assert kofn.assign(same, k=1, seed=0).value == 0.0
    assert kofn.combine([np.ones(2)]).result.tolist() == [1.0, 1.0]
    assert kofn.allocate([[1.0]], budget=0).amounts.tolist() == [0]
