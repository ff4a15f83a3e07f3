"""Hostile input for every argument of every method, generated from the vocabulary, and every refusal of `checks`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from refusals import refused, untested

import kofn
from kofn.core import checks, dispatch, vocabulary
from kofn.core.checks import InputError
from kofn.core.draws import KINDS, draws_of
from kofn.core.registry import VERBS, Entry
from kofn.core.vocabulary import VOCABULARY

N = 6
X = np.array([[0.0, 1.0], [0.5, 1.0], [4.0, 2.0], [4.5, 2.5], [9.0, 0.0], [8.0, 0.5]])
DISTANCES = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
GROUPS = list("aabbcc")

# One valid value for each word; where it differs, by verb or by the kind of the values (`kofn.core.draws.KINDS`).
PLAIN: dict[str, Any] = {
    "X": X,
    "distances": DISTANCES,
    "similarity": 10.0 - DISTANCES,
    "scores": np.array([3.0, 1.0, 2.0, 5.0, 4.0, 0.5]),
    "assign scores": np.arange(18.0).reshape(6, 3) % 7,
    "curves": np.array([[9.0, 4.0, 1.0]] * N),
    "margins": (np.ones(N), np.full(3, 2.0)),
    "members": [np.array([1.0, 2.0]), np.array([2.0, 2.0]), np.array([4.0, 0.0])],
    "rankings": np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]]),
    "weights": np.ones(N),
    "groups": GROUPS,
    "y": GROUPS,
    "score": len,
    "quotas": {"a": (1, 2)},
    "costs": [1, 2, 1, 2, 1, 2],
    "budget": 4,
    "k": 2,
    "capacity": N,
    "per_item": 1,
    "include": [1],
    "exclude": [2],
    "start": [0],
    "assign start": [0, 3],
    "metric": "euclidean",
    "objective": "facility_location",
    "seed": 0,
    "max_memory": "1GB",
    "time_limit": 60,
    "n_threads": 1,
    "progress": False,
}
# Three small networks, for methods that must know how units hang together.
NETWORKS = [
    {"0.weight": draw.normal(size=(4, 2)), "0.bias": draw.normal(size=4), "2.weight": draw.normal(size=(3, 4))}
    for draw in map(np.random.default_rng, range(3))
]
LAYERS = {"layers.0.w": np.ones(2), "layers.1.w": np.ones(2)}
PLAIN |= {
    "base": np.array([1.0, 1.0]),
    "members networks": NETWORKS,
    "members layers": [LAYERS] * 2,
    "base layers": {name: 0 * tensor for name, tensor in LAYERS.items()},
    # LoRA adapters of three ranks.
    "members adapters": [{"w.lora_A.weight": np.ones((r, 3)), "w.lora_B.weight": np.ones((4, r))} for r in (1, 2, 3)],
    "base adapters": {"w.weight": np.ones((4, 3))},
}
PARTNERS = {"budget": ("costs",), "costs": ("budget",), "quotas": ("groups",), "groups": ("quotas",)}


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
    kind = draws_of(entry).kinds.get(word)
    keys = (f"{word} {kind}", f"{entry.verb} {word}", word)
    return next((table[key] for key in keys if key in table), None)


def value_of(entry: Entry, word: str) -> Any:
    declared = draws_of(entry)
    if word in declared.plain:
        return declared.plain[word]
    if entry.verb == "combine" and word == "weights":
        return np.arange(1.0, 1 + len(value_of(entry, "members" if "members" in entry.accepted else "rankings")))
    value = row_of(PLAIN, entry, word)
    return value[: declared.members] if word == "members" else value


def call(entry: Entry, given: dict[str, Any], **options: Any) -> Any:
    needed = {name: value for name, value in draws_of(entry).plain.items() if name in entry.options}
    return getattr(kofn, entry.verb)(**given, method=entry.name, options={**needed, **options})


def put(value: Any, place: Any, what: Any) -> Any:
    array = np.array(value, dtype=np.float64)
    array[place] = what
    return array


# What makes a valid value bad, and what the refusal says, where @ is the word.
Bad = dict[str, tuple[Callable[[Any], Any], str]]
ROWS: Bad = {
    "NaN": (lambda v: put(v, (1, 0), np.nan), "@ at row 1, column 0 is NaN"),
    "infinite": (lambda v: put(v, (1, 1), np.inf), "@ at row 1, column 1 is infinite"),
    "several": (lambda v: put(v, (slice(1, 3), 0), -np.inf), "@ at row 1, column 0 is infinite (2 such values)"),
    "no rows": (lambda v: np.empty((0, 2)), "@ is empty: it has no rows"),
    "no columns": (lambda v: np.empty((N, 0)), "@ has no columns"),
    "nothing": (lambda v: [], "@ has shape (0,)"),
    "flat": (lambda v: np.arange(6.0), "@ has shape (6,); give (n, d), for one column use reshape(-1, 1)"),
    "deep": (lambda v: np.zeros((N, 2, 2)), "@ has 3 dimensions"),
    "a number": (lambda v: 3.0, "@ has 0 dimensions"),
    "ragged": (lambda v: [[1.0, 2.0], [1.0]], "@ is ragged"),
    "ragged objects": (
        lambda v: np.array([[1.0, 2.0], [1.0]], object),
        "@ is ragged: row 1 has 1 values, row 0 has 2",
    ),
    "text": (lambda v: [["a", "b"], ["c", "d"]], "@ has dtype <U1; give numbers"),
    "mixed": (lambda v: np.array([["a", 1.0], [2.0, 3.0]], object), "@ holds values that are not numbers"),
    "complex": (lambda v: np.asarray(v) * 1j, "@ has dtype complex128; give numbers"),
    "dates": (lambda v: np.zeros((N, 2), "M8[D]"), "@ has dtype datetime64"),
    "sparse": (lambda v: scipy.sparse.csr_array(np.asarray(v)), "@ is a sparse matrix; give a dense array"),
}
VECTOR: Bad = {
    "NaN": (lambda v: put(v, 1, np.nan), "@ at row 1 is NaN"),
    "infinite": (lambda v: put(v, 2, np.inf), "@ at row 2 is infinite"),
    "nothing": (lambda v: [], "@ is empty"),
    "deep": (lambda v: np.ones((N, 1, 1)), "@ has shape (6, 1, 1)"),
    "text": (lambda v: ["a"] * len(v), "@ has dtype <U1; give numbers"),
    "sparse": (lambda v: scipy.sparse.csr_array(np.ones((1, N))), "@ is a sparse matrix"),
}
SHORTER: Bad = {
    "one less": (lambda v: v[:-1], "@ has "),
    "one more": (lambda v: [*v, v[-1]], "@ has "),
}
NUMBER: Bad = {
    "negative": (lambda v: -1, "@=-1"),
    "NaN": (lambda v: float("nan"), "@=nan"),
    "infinite": (lambda v: float("inf"), "@=inf"),
    "text": (lambda v: "two", "@='two'"),
    "true": (lambda v: True, "@=True"),
    "list": (lambda v: [2], "@=[2]"),
}
COUNT: Bad = {**NUMBER, "none": (lambda v: 0, "@=0"), "part": (lambda v: 1.5, "@=1.5")}
POSITIONS: Bad = {
    "beyond": (lambda v: [N], "@ names row 6; the rows are 0..5"),
    "below": (lambda v: [-1], "@ names row -1; the rows are 0..5"),
    "twice": (lambda v: [1, 1], "@ names row 1 more than once"),
    "parts": (lambda v: [1.0], "@ holds 1.0; give row numbers 0..5, or pass ids"),
    "text": (lambda v: ["a"], "@ holds 'a'; give row numbers 0..5, or pass ids"),
}
SQUARE: Bad = {
    **{name: bad for name, bad in ROWS.items() if name not in ("no rows", "no columns", "sparse", "complex", "dates")},
    "oblong": (lambda v: np.ones((3, 2)), "@ has shape (3, 2); it must be square"),
    "negative": (lambda v: put(v, (1, 0), -1.0), "@ at row 1, column 0 is -1; give values >= 0"),
}
SPARSE: Bad = {
    "sparse NaN": (lambda v: scipy.sparse.csr_array(put(v, (2, 1), np.nan)), "@ at row 2, column 1 is nan"),
    "sparse negative": (lambda v: scipy.sparse.coo_array(put(v, (2, 1), -3.0)), "@ at row 2, column 1 is -3"),
    "sparse oblong": (lambda v: scipy.sparse.csc_array((3, 2)), "@ has shape (3, 2); it must be square"),
    "sparse empty": (lambda v: scipy.sparse.csc_array((0, 0)), "@ is empty"),
}
HOSTILE: dict[str, Bad] = {
    "X": ROWS,
    "curves": ROWS,
    "distances": {
        **SQUARE,
        "one way": (lambda v: put(v, (1, 0), 99.0), "@ is not symmetric: (0, 1) is 0.5 and (1, 0) is 99"),
        "sparse": (lambda v: scipy.sparse.csr_array(v), "@ is sparse, where a missing entry has no meaning"),
    },
    "similarity": {**SQUARE, **SPARSE},
    "scores": {
        **VECTOR,
        "masked": (lambda v: put(v, 0, -np.inf), "@ at row 0 is infinite"),
        "by bin": (lambda v: np.ones((N, 2)), "@ has shape (6, 2); give one score an item"),
    },
    "assign scores": {
        "NaN": (lambda v: put(v, (2, 1), np.nan), "@ at row 2, column 1 is nan"),
        "infinite": (lambda v: put(v, (0, 0), np.inf), "@ at row 0, column 0 is inf"),
        "flat": (lambda v: np.ones(N), "@ has shape (6,)"),
        "nothing": (lambda v: np.empty((0, 3)), "@ is empty"),
        "no bins": (lambda v: np.empty((N, 0)), "@ is empty"),
        "deep": (lambda v: np.ones((2, 2, 2)), "@ has shape (2, 2, 2)"),
        "text": (lambda v: [["a"]], "@ has dtype <U1; give numbers"),
        "ragged": (lambda v: [[1.0, 2.0], [1.0]], "@ is ragged"),
    },
    "rankings": {
        "infinite": (lambda v: put(v, (1, 2), np.inf), "@ at row 1, column 2 is infinite; use NaN for a missing"),
        "silent judge": (lambda v: put(v, 1, np.nan), "@: judge 1 rated nothing; drop that row"),
        "flat": (lambda v: [1.0, 2.0], "@ has shape (2,); give (judges, alternatives)"),
        "nothing": (lambda v: np.empty((0, 3)), "@ has shape (0, 3)"),
        "no alternatives": (lambda v: np.empty((3, 0)), "@ has shape (3, 0)"),
        "text": (lambda v: [["a", "b"]], "@ has dtype <U1"),
        "mixed": (lambda v: np.array([[None, "b"]], object), "@ holds values that are not numbers"),
        "ragged": (lambda v: [[1.0, 2.0], [1.0]], "@ is ragged"),
    },
    "members": {
        "nothing": (lambda v: [], "@ is empty; give at least one"),
        "text": (lambda v: "model.safetensors", "@=str: give a list"),
        "one state dict": (lambda v: {"w": np.ones(2)}, "@=dict: give a list"),
        "a number": (lambda v: 3, "@=int: give a list"),
        "NaN": (lambda v: [v[0], np.array([np.nan, 0.0]), *v[2:]], "member 1"),
        "infinite": (lambda v: [v[0], np.array([0.0, np.inf]), *v[2:]], "member 1"),
        "unlike shapes": (
            lambda v: [v[0], np.ones(3)],
            "members do not match in 1 place: member 1: the array has shape",
        ),
        "unlike dtypes": (
            lambda v: [v[0], np.ones(2, np.int64)],
            "member 1: the array is int64, in member 0 float64",
        ),
        "unlike names": (lambda v: [{"a": v[0]}, {"b": v[0]}], "member 1 lacks tensor 'a'; member 1 has tensor 'b'"),
        "mixed kinds": (lambda v: [v[0], {"a": v[0]}], "members mix plain arrays with mappings"),
        "empty state dict": (lambda v: [{}] * len(v), "member 0 holds no tensor"),
        "nameless": (lambda v: [{"": v[0]}] * len(v), "member 0 has a tensor named ''"),
        "text in an array": (lambda v: [np.array(["a"])] * len(v), "member 0: the array has dtype <U1"),
        "ragged": (lambda v: [[[1.0, 2.0], [1.0]]] * len(v), "member 0: the array is ragged"),
        "unlike integers": (lambda v: [{"a": np.array([1])}, {"a": np.array([2])}], "tensor 'a'"),
        "no such file": (lambda v: ["/nowhere/model.safetensors"] * len(v), "/nowhere/model.safetensors"),
    },
    "y": {
        "missing": (lambda v: [None, *v[1:]], "@ at row 0 is missing"),
        "deep": (lambda v: [[label] for label in v], "@ has shape (6, 1); give one label an item"),
        "one less": (lambda v: v[:-1], "@ has 5 values"),
    },
    "score": {
        "a number": (lambda v: 3, "@=3: give a callable"),
    },
    "groups": {
        **SHORTER,
        "missing": (lambda v: ["a", None, *v[2:]], "@ at row 1 is missing; give every item a group"),
        "NaN": (lambda v: [1.0, np.nan, 1.0, 1.0, 1.0, 1.0], "@ at row 1 is NaN"),
        "NaN in a list": (lambda v: ["a", np.nan, *v[2:]], "@ at row 1 is missing; give every item a group"),
        "no columns": (lambda v: {}, "@={}: give {column: labels}"),
        "NaN among text": (lambda v: np.array(["a", np.nan, *v[2:]], object), "@ at row 1 is missing"),
        "deep": (lambda v: np.ones((N, 2)), "@ has shape (6, 2); give one label an item"),
        "nothing": (lambda v: [], "@ has shape (0,)"),
    },
    "weights": {
        **VECTOR,
        **SHORTER,
        "negative": (lambda v: put(v, 1, -2.0), "@ at row 1 is -2; weights must be >= 0"),
        "all zero": (lambda v: np.zeros(len(v)), "@ are all zero"),
    },
    "combine weights": {
        **{name: bad for name, bad in VECTOR.items() if name != "infinite"},
        **SHORTER,
        "infinite": (lambda v: put(v, 0, np.inf), "@ at row 0 is infinite"),
        "all zero": (lambda v: np.zeros(len(v)), "weights"),
    },
    "costs": {
        **VECTOR,
        **SHORTER,
        "negative": (lambda v: put(v, 1, -2.0), "@ at row 1 is -2; costs must be >= 0"),
        "negative whole": (lambda v: [1, -2, 1, 1, 1, 1], "@ at row 1 is -2; costs must be >= 0"),
    },
    "budget": NUMBER,
    "k": COUNT,
    "n_threads": COUNT,
    "per_item": {**COUNT, "too many": (lambda v: 4, "@=4 of 3 bins; ask for per_item <= 3")},
    "quotas": {
        "list": (lambda v: [("a", 1)], "@=[('a', 1)]: give {group: (least, most)}"),
        "nothing": (lambda v: {}, "@={}: give {group: (least, most)}"),
        "part": (lambda v: {"a": (1.5, 2)}, "@['a'] least=1.5: give a whole number"),
        "share and number": (lambda v: {"a": (0.5, 1)}, "@['a'] most=1: the other end is a share"),
        "unknown group at most": (lambda v: {"aa": (0, 1)}, "@['aa'] asks for at most 1, but no item has that group"),
        "twice": (lambda v: {"a": 1, b"a": 1}, "@ names the group 'a' twice, as 'a' and as b'a'"),
        "without columns": (lambda v: {"lang": {"a": 1}}, "groups is one column without a name"),
        "negative": (lambda v: {"a": (None, -1)}, "@['a'] most=-1: ask for at least 0"),
        "three ends": (lambda v: {"a": (0, 1, 2)}, "@['a']=(0, 1, 2): give (least, most)"),
        "a text": (lambda v: {"a": "0-1"}, "@['a']='0-1': give (least, most)"),
        "a number with a part": (lambda v: {"a": 1.5}, "@['a']=1.5: give (least, most)"),
        "turned round": (lambda v: {"a": (2, 1)}, "@['a']: at least 2 and at most 1 clash; swap the ends"),
        "unknown group": (lambda v: {"aa": (1, None)}, "@['aa'] asks for at least 1, but no item has that group"),
        "too many": (lambda v: {"a": (3, None)}, "@['a'] asks for at least 3, but only 2 such items are open; lower"),
    },
    "capacity": {
        "negative": (lambda v: -1, "@=-1"),
        "part": (lambda v: 1.5, "@=1.5"),
        "text": (lambda v: "many", "@='many'"),
        "true": (lambda v: True, "@=True"),
        "negative bin": (lambda v: [6, -1, 6], "@ of bin 1 is -1; it must be >= 0"),
        "part of a bin": (lambda v: [6, 1.5, 6], "@=[6, 1.5, 6]: give one whole number, or one for each bin"),
        "NaN": (lambda v: [6, np.nan, 6], "@=[6, nan, 6]"),
        "too few bins": (lambda v: [6, 6], "@ has 2 values, scores has 3 bins; give one for each bin"),
        "table": (lambda v: [[6, 6, 6]], "@=[[6, 6, 6]]"),
        "nothing": (lambda v: [], "@=[]"),
        "too little room": (lambda v: 1, "@ holds 3: 3 too few"),
    },
    "margins": {
        "one side": (lambda v: v[0], "@=ndarray: give two vectors, (row totals, column totals)"),
        "text": (lambda v: "equal", "@=str: give two vectors"),
        "a number": (lambda v: 3, "@=int: give two vectors"),
        "too few rows": (lambda v: (v[0][:-1] * 1.2, v[1]), "@ has 5 row totals, scores has 6 rows"),
        "too few bins": (lambda v: (v[0], [3.0, 3.0]), "@ has 2 column totals, scores has 3 columns"),
        "negative": (lambda v: (v[0], [4.0, 4.0, -2.0]), "@: column totals at row 2 is -2; give totals >= 0"),
        "NaN": (lambda v: (put(v[0], 1, np.nan), v[1]), "@: row totals at row 1 is NaN"),
        "unlike sums": (
            lambda v: (v[0], [2.0, 2.0, 3.0]),
            "@ do not add up: the row totals sum to 6, the column totals to 7",
        ),
        "all zero": (lambda v: (np.zeros(N), np.zeros(3)), "@ are all zero"),
    },
    "include": {**POSITIONS, "more than k": (lambda v: [0, 1, 2], "include and start hold 3 items, more than k=2")},
    "exclude": {**POSITIONS, "all": (lambda v: list(range(N)), "exclude")},
    "start": {**POSITIONS, "more than k": (lambda v: [0, 1, 2], "include and start hold 3 items, more than k=2")},
    "assign start": {**POSITIONS, "too many": (lambda v: [0, 1, 2], "@ has 3 medoids, k=2; give exactly k")},
    "metric": {
        "misspelt": (lambda v: "euclidian", "@='euclidian': choose one of"),
        "unknown": (lambda v: "manhattan", "@='manhattan': choose one of"),
        "a number": (lambda v: 2, "@=2: choose one of"),
    },
    "objective": {
        "misspelt": (lambda v: "facility_locaton", "@='facility_locaton': one of facility_location"),
        "a number": (lambda v: 3, "@=int lacks gains, add, value"),
        "half an objective": (lambda v: type("Half", (), {"gains": print}), "@=type lacks add, value"),
        "of other inputs": (lambda v: "modular", "@='modular' has no use for X"),
    },
    "seed": {
        "negative": (lambda v: -1, "@=-1"),
        "part": (lambda v: 0.5, "@=0.5"),
        "text": (lambda v: "a", "@='a'"),
        "true": (lambda v: True, "@=True"),
    },
    "max_memory": {
        "text": (lambda v: "much", "@='much': give bytes, or for example 600MB or 2GiB"),
        "unit": (lambda v: "10 XB", "@='10 XB'"),
        "nothing": (lambda v: 0, "@=0"),
        "negative": (lambda v: -1, "@=-1"),
        "NaN": (lambda v: float("nan"), "@=nan"),
        "true": (lambda v: True, "@=True"),
    },
    "time_limit": {
        "nothing": (lambda v: 0, "@=0: give a positive number of seconds"),
        "negative": (lambda v: -1.0, "@=-1.0"),
        "NaN": (lambda v: float("nan"), "@=nan"),
        "text": (lambda v: "1s", "@='1s'"),
        "true": (lambda v: True, "@=True"),
    },
}
HOSTILE["combine budget"] = COUNT
# A base is held against the members, which are looked at first.
HOSTILE["base"] = {
    "NaN": (lambda v: put(v, 1, np.nan), "@: the array at (1,) is NaN; repair it"),
    "another shape": (lambda v: np.ones(3), "@: the array has shape (3,), in member 0 (2,)"),
    "another kind": (lambda v: {"w": v}, "@ is one of mappings, the members are arrays"),
    "no such file": (lambda v: "/nowhere/base", "/nowhere/base: no such file or folder"),
}


def without(bad: Bad, *names: str) -> Bad:
    """The same bad values but for some that are good where another kind is taken."""
    assert bad.keys() >= set(names)
    return {name: row for name, row in bad.items() if name not in names}


# By kind: what else is bad of such values, and what is not.
HOSTILE |= {
    "scores table": HOSTILE["assign scores"],
    "scores vector or table": without(HOSTILE["scores"], "by bin"),
    "per_item any": COUNT,
    "costs entry": {
        **HOSTILE["costs"],
        "nothing": (lambda v: [], "@ has shape (0,); give one an entry, (3, 2), or one a column, (2,)"),
    },
    "capacity column": {
        **without(HOSTILE["capacity"], "too few bins", "too little room"),
        "another width": (lambda v: [6, 6], "@ has 2 values, scores has 1 columns"),
    },
    "capacity choosing": without(HOSTILE["capacity"], "too little room"),
    # In the order of the groups, of which there are k=2.
    "capacity group": {
        **without(HOSTILE["capacity"], "too few bins", "too little room"),
        "too many groups": (lambda v: [6, 6, 6], "@ has 3 values, k=2; give one number, or one for each group"),
        "too little room": (lambda v: 2, "@ holds 4 in k=2 groups: 2 too few"),
        "an empty group": (lambda v: [6, 0], "@ of group 1 is 0: the group would be empty"),
    },
    "start group": {**POSITIONS, "too many": (lambda v: [0, 1, 2], "@ names 3 rows, k=2; give exactly k")},
    # Where the factors sum to one the base cancels, and is not read.
    "base seldom read": without(HOSTILE["base"], "NaN"),
    "members loose integers": without(HOSTILE["members"], "unlike integers"),
    "members layers": {
        **{name: HOSTILE["members"][name] for name in ("nothing", "text", "a number")},
        "NaN": (lambda v: [v[0], {**v[1], "layers.0.w": np.full(2, np.nan)}], "member 1: tensor 'layers.0.w' at (0,)"),
        "no layers": (lambda v: [{"w": np.ones(2)}] * 2, "no tensor's name has a layer number"),
    },
    "base layers": {
        "another shape": (lambda v: {**v, "layers.1.w": np.ones(3)}, "@: tensor 'layers.1.w' has shape (3,)"),
        "an array": (lambda v: np.ones(2), "@ is one of arrays, the members are mappings"),
        "no such file": (lambda v: "/nowhere/base", "/nowhere/base: no such file or folder"),
    },
}
HOSTILE["members networks"] = {
    **without(HOSTILE["members"], "unlike integers"),
    "NaN": (lambda v: [v[0], {**v[1], "0.bias": put(v[1]["0.bias"], 2, np.nan)}], "tensor '0.bias' at (2,) is NaN"),
    "infinite": (lambda v: [v[0], {**v[1], "2.weight": put(v[1]["2.weight"], (0, 1), np.inf)}], "member 1: tensor"),
    "unlike shapes": (lambda v: [v[0], {**v[1], "0.bias": np.ones(3)}], "tensor '0.bias' has shape (3,)"),
    "unlike dtypes": (lambda v: [v[0], {**v[1], "0.bias": np.ones(4, np.int64)}], "tensor '0.bias' is int64"),
    "unlike names": (lambda v: [v[0], {**v[1], "0.scale": np.ones(4)}], "'0.scale'"),
    "mixed kinds": (lambda v: [v[0], np.ones(2)], "plain arrays"),
    "plain arrays": (lambda v: [np.ones(2), np.ones(2)], "needs networks: members are mappings name -> array"),
    "whole numbers": (
        lambda v: [{name: array.astype(int) for name, array in one.items()} for one in v[:2]],
        "is int64; units of floating tensors are matched",
    ),
    "branches": (
        lambda v: [{f"block.{name}": array for name, array in one.items()} for one in v[:2]],
        "the architecture of the members is not known: tensor 'block.0.weight'",
    ),
}
HOSTILE["members adapters"] = {
    **{name: HOSTILE["members"][name] for name in ("nothing", "text", "a number")},
    "an array": (lambda v: [v[0], np.ones(2)], "member 1 is ndarray, no LoRA adapter"),
    "no factors": (lambda v: [v[0], {"w": np.ones(2)}], "member 1 holds no lora_A and lora_B"),
    "half a pair": (lambda v: [{"w.lora_A.weight": np.ones((1, 3))}], "member 0: module 'w' has no lora_B"),
    "NaN": (
        lambda v: [v[0], {**v[1], "w.lora_A.weight": put(v[1]["w.lora_A.weight"], (1, 2), np.nan)}],
        "member 1: tensor 'w.lora_A.weight' at (1, 2) is NaN",
    ),
    "unlike shapes": (
        lambda v: [v[0], {**v[1], "w.lora_B.weight": np.ones((5, 2))}],
        "members do not match in 1 place: member 1: 'w' is linear float64 from (3,) to (5,)",
    ),
    "unlike ranks": (lambda v: [{**v[0], "w.lora_B.weight": np.ones((4, 2))}], "member 0: the factors of 'w'"),
    "no such folder": (lambda v: ["/nowhere/adapter"], "/nowhere/adapter does not exist"),
}
HOSTILE["base adapters"] = {
    "a number": (lambda v: 3, "@ is int; give a checkpoint's path or a mapping"),
    "no such file": (lambda v: "/nowhere/model.safetensors", "/nowhere/model.safetensors"),
}
# True or False, and nothing is said of other values: it is only ever asked whether it is true.
UNCHECKED = {"progress"}

ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]


def hostile_of(entry: Entry, word: str) -> Bad:
    bad = dict(row_of(HOSTILE, entry, word) or {})
    if word == "weights" and "rankings" in entry.accepted:
        bad["negative"] = (lambda v: put(v, 1, -2.0), "@ at row 1 is -2; weights must be >= 0")
    by_cosine = "metric" not in entry.accepted or draws_of(entry).plain.get("metric") == "cosine"
    if word == "X" and by_cosine and entry.load().__kofn__.sparse:  # type: ignore[attr-defined]
        del bad["sparse"]  # such rows are taken
    if word == "members" and draws_of(entry).members == 2:
        bad["three"] = (lambda v: [*v, v[0]], entry.name)
    return bad


CASES = [
    pytest.param(
        entry,
        word,
        change,
        says.replace("@", word),
        id=f"{entry.name}-{word}-{name}",
    )
    for entry in ENTRIES
    for word in entry.accepted
    for name, (change, says) in hostile_of(entry, word).items()
]


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


@pytest.mark.parametrize(("entry", "word", "change", "says"), CASES)
def test_is_refused_by_name(entry: Entry, word: str, change: Callable[[Any], Any], says: str) -> None:
    given = plain(entry, word)
    given[word] = change(given[word])
    with pytest.raises(InputError) as caught:
        call(entry, given)
    message = str(caught.value)
    assert says in message, message
    assert "\n" not in message
    assert len(message) < 400
    assert re.search(rf"\b{word}\b|\bmember \d|include and start|/nowhere/", message), message


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
        if option in ("out", "record"):  # any text is a path
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


# Every refusal of `checks`, called directly: (call, what the message says).
REFUSALS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: checks.matrix(scipy.sparse.eye_array(2)), "X is a sparse matrix"),
    "ragged": (lambda: checks.matrix([[1.0], [1.0, 2.0]]), "X is ragged"),
    "no numbers": (lambda: checks.vector(np.array(["a", 1], object), "weights"), "holds values that are not numbers"),
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
    "rankings": (lambda: checks.rankings([1.0]), "give (judges, alternatives)"),
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
