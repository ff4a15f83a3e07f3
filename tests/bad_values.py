"""A valid value of each word, and bad ones with what is said of them: hostile-input tests are generated from these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from kofn.combination import DiffusedMixture, DiffusedScore

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
    "allocate quotas": {"a": (0, 3)},
    "allocate scores": np.array([3.0, 1.0, 2.0, 5.0, 4.0, 0.5]),
    "bounds": (0, 10),
    "scores not negative": np.array([3.0, 1.0, 0.0, 5.0, 4.0, 0.5]),
    "scores rates": np.array([0.3, 1.0, 0.0, 0.5, 0.45, 0.75]),
    "assign scores": np.arange(18.0).reshape(6, 3) % 7,
    "curves": np.array([[9.0, 4.0, 1.0]] * N),
    "margins": (np.ones(N), np.full(3, 2.0)),
    "members": [np.array([1.0, 2.0]), np.array([2.0, 2.0]), np.array([4.0, 0.0])],
    "rankings": np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 3.0]]),
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
    "engine": "local",
    "device": "cpu",
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
    # What each of six models predicted of the classes in "y".
    "members predictions": list(np.random.default_rng(0).dirichlet(np.ones(3), (6, N))),
    # Mixtures of two linear experts of two inputs.
    "members mixtures of experts": [
        {"gates": np.zeros((2, 3)), "experts": np.array([[0.0, 1, 1], [i, -1, 0]]), "variances": np.ones(2)}
        for i in range(3)
    ],
    # Mixtures of two Gaussians, to which noise can be added.
    "members diffused densities": [DiffusedMixture([[0.0, i], [i, 1.0]], np.eye(2)) for i in range(3)],
    # Draws of two parameters of three shards.
    "members draws": list(np.random.default_rng(0).normal(size=(3, 40, 2))),
}
PARTNERS = {"budget": ("costs",), "costs": ("budget",), "quotas": ("groups",), "groups": ("quotas",)}


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
    "mixed": (
        lambda v: np.array([["a", 1.0], [2.0, 3.0]], object),
        "@ holds values that are not numbers: 'a' at row 0, column 0",
    ),
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
    "curves": {
        **{name: bad for name, bad in ROWS.items() if name not in ("infinite", "several")},
        "flat": (lambda v: np.arange(6.0), "@ has shape (6,), one number an item, and a curve has one for each level"),
        "of no loss": (lambda v: put(v, (1, 1), -np.inf), "@ at row 1, column 1 is infinite"),
        "several of no loss": (
            lambda v: put(v, (slice(1, 3), 0), -np.inf),
            "@ at row 1, column 0 is infinite (2 such values)",
        ),
        "no level": (lambda v: put(v, 2, np.inf), "@ at row 2"),
    },
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
    "allocate scores": {
        **VECTOR,
        "negative": (lambda v: put(v, 1, -1.0), "@ at row 1 is -1; votes and sizes must be >= 0"),
        "all zero": (lambda v: np.zeros(N), "@ are all zero"),
        "by bin": (lambda v: np.ones((N, 2)), "@ has shape (6, 2); give one score an item"),
    },
    "bounds": {
        "negative": (lambda v: (-1, 2), "@ at row 0 is (-1, 2)"),
        "swapped": (lambda v: [(0, 9)] * 5 + [(3, 1)], "@ at row 5 is (3, 1); give 0 <= least <= most"),
        "endless": (lambda v: (np.inf, None), "@ at row 0 is (inf, inf)"),
        "text": (lambda v: ("a", "b"), "@ has dtype <U1; give numbers"),
        "a number": (lambda v: 3, "@ has shape ()"),
        "three": (lambda v: (1, 2, 3), "@ has shape (3,); give (least, most)"),
        "others": (lambda v: [(0, 9)] * 4, "@ has 4 values"),
        "nothing": (lambda v: np.empty((0, 2)), "@ is empty"),
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
        "infinite": (lambda v: put(v, (2, 1), np.inf), "@ at row 2, column 1 is infinite; use NaN for a missing"),
        "silent judge": (lambda v: put(v, (slice(None), 1), np.nan), "@: judge 1 rated nothing; drop that column"),
        "flat": (lambda v: [1.0, 2.0], "@ has shape (2,); give (items, judges)"),
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
    "engine": {
        "no engine": (lambda v: "spork", "@='spork': choose one of local, ray"),
        "number": (lambda v: 3, "@=3: choose one of"),
        "list": (lambda v: ["local"], "@=['local']: choose one of"),
        "true": (lambda v: True, "@=True: choose one of"),
    },
    "device": {
        "nothing": (lambda v: "", "@='': give 'cpu', 'auto', or a device of torch"),
        "number": (lambda v: 0, "@=0: give 'cpu', 'auto', or a device of torch"),
        "list": (lambda v: ["cuda"], "@=['cuda']: give"),
        "true": (lambda v: True, "@=True: give"),
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
    "scores not negative": {
        **HOSTILE["scores"],
        "negative": (lambda v: put(v, 3, -0.5), "@ at row 3 is -0.5"),
    },
    "scores rates": {
        **HOSTILE["scores"],
        "percent": (lambda v: put(v, 3, 50.0), "@ at row 3 is 50; give success rates from 0 to 1"),
        "negative": (lambda v: put(v, 3, -0.5), "@ at row 3 is -0.5"),
    },
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
HOSTILE["members predictions"] = {
    **{name: HOSTILE["members"][name] for name in ("nothing", "text", "a number")},
    "infinite": (lambda v: [v[0], put(v[1], (2, 0), np.inf), *v[2:]], "member 1 at row 2 is infinite; use NaN where"),
    "no probabilities": (
        lambda v: [v[0], put(v[1], (2, 0), 7.0), *v[2:]],
        "member 1 at row 2 is 7; log_loss is of pro",
    ),
    "unlike sums": (lambda v: [v[0], 0.5 * v[1], *v[2:]], "member 1 at row 0 has probabilities that sum to 0.5"),
    "unlike classes": (lambda v: [v[0], v[1][:, :2], *v[2:]], "member 1 has 2 columns, member 0 has 3 columns; give"),
    "fewer rows": (lambda v: [v[0], v[1][:-1], *v[2:]], "member 1 has 5 predictions, y has 6 values; give one"),
    "turned": (lambda v: list(np.ones((6, 2))), "member 0 has 2 predictions, y has 6 values; give their transpose"),
    "silent": (lambda v: [v[0], v[1] * np.nan, *v[2:]], "member 1 has no prediction (all NaN); leave it out"),
    "unseen row": (lambda v: [put(each, 3, np.nan) for each in v], "members have no prediction (NaN) of row 3; leave"),
    "names of no class": (
        lambda v: [np.array(["no such"] * N)] * len(v),
        "member 0 at row 0 is 'no such', which is no class",
    ),
    "ragged": (lambda v: [[[1.0, 2.0], [1.0]]] * len(v), "member 0 is ragged"),
    "deep": (lambda v: [np.ones((N, 2, 2))] * len(v), "member 0 has shape (6, 2, 2); give (n,) predictions"),
    "paths": (lambda v: ["/nowhere/a.npy"] * len(v), "member 0 is a path"),
    "one column of three classes": (
        lambda v: [each[:, 0] for each in v],
        "y has 3 classes (a, b, c), members have one",
    ),
    "another number of classes": (lambda v: [np.full((N, 4), 0.25)] * 2, "y has 3 classes (a, b, c), members have 4 c"),
}
HOSTILE["members diffused densities"] = {
    **{name: HOSTILE["members"][name] for name in ("nothing", "a number")},
    "arrays": (lambda v: [np.ones((9, 2))] * 3, "member 0 is ndarray; give a DiffusedScore of a diffusion model"),
    "texts": (lambda v: [v[0], "model.pt"], "member 1 is str; give a DiffusedScore"),
    "another width": (
        lambda v: [v[0], DiffusedMixture([[0.0]], [[1.0]])],
        "member 1 is of 1 parameters, member 0 of 2",
    ),
    "a shape of its own": (
        lambda v: [DiffusedScore(lambda x, sigma: x[:, 0], [0.0, 0.0], np.eye(2))],
        "member 0: score_of gave shape (40,) for x of shape (40, 2)",
    ),
    "NaN": (
        lambda v: [DiffusedScore(lambda x, sigma: x * np.nan, [0.0, 0.0], np.eye(2))],
        "member 0: score_of gave NaN or infinity at row 0 of x",
    ),
}
HOSTILE["members mixtures of experts"] = {
    **{name: HOSTILE["members"][name] for name in ("nothing", "text", "a number")},
    "arrays": (lambda v: [np.ones(3)] * 3, "member 0 is ndarray; give a mapping with gates, experts, variances"),
    "a part less": (
        lambda v: [v[0], {"gates": v[1]["gates"], "experts": v[1]["experts"]}],
        "member 1: part 'variances' is missing or unknown",
    ),
    "a part more": (lambda v: [v[0], {**v[1], "bias": np.ones(2)}], "member 1: part 'bias' is missing or unknown"),
    "NaN": (
        lambda v: [{**v[0], "gates": put(v[0]["gates"], (1, 2), np.nan)}],
        "member 0: gates at row 1, column 2 is NaN",
    ),
    "no variance": (
        lambda v: [{**v[0], "variances": np.array([1.0, 0.0])}],
        "member 0: variances at 1 is 0; give posi",
    ),
    "other inputs": (
        lambda v: [{**v[0], "experts": np.ones((2, 4))}],
        "member 0: experts has shape (2, 4); give (2, 3)",
    ),
    "other gates": (lambda v: [{**v[0], "gates": np.ones((3, 3))}], "member 0: gates has shape (3, 3); give (2, 3)"),
    "no components": (
        lambda v: [{"gates": np.ones((0, 3)), "experts": np.ones((0, 3)), "variances": np.ones(0)}],
        "member 0: variances has shape (0,)",
    ),
}
HOSTILE["members draws"] = {
    **{name: HOSTILE["members"][name] for name in ("nothing", "text", "a number")},
    "NaN": (lambda v: [v[0], put(v[1], (2, 0), np.nan), v[2]], "member 1 at row 2, column 0 is NaN"),
    "infinite": (lambda v: [v[0], put(v[1], (2, 0), np.inf), v[2]], "member 1 at row 2, column 0 is infinite"),
    "other parameters": (
        lambda v: [v[0], v[1][:, :1], v[2]],
        "member 1 has shape (40, 1), member 0 (40, 2); give every",
    ),
    "few draws": (lambda v: [v[0], v[1][:2], v[2]], "member 1 has 2 draws of 2 parameters; give more draws"),
    "no draws": (lambda v: [v[0], v[1][:0], v[2]], "member 1 has shape (0, 2); give (draws, parameters)"),
    "constant": (lambda v: [v[0], v[1] * [0, 1], v[2]], "member 1: parameter 'x0' is the same in all 40 draws"),
    "dependent": (lambda v: [v[0], v[1][:, [0, 0]], v[2]], "member 1: parameters 'x0' and 'x1' depend on each other"),
    "deep": (
        lambda v: [np.ones((N, 2, 2))] * len(v),
        "member 0 has shape (6, 2, 2), whose first axis is taken as draws",
    ),
    "text in an array": (lambda v: [np.array(["a"] * N)] * len(v), "member 0 has dtype <U1; give numbers"),
    "ragged": (lambda v: [[[1.0, 2.0], [1.0]]] * len(v), "member 0 is ragged"),
    "paths": (lambda v: ["/nowhere/a.npy"] * len(v), "member 0 is a path"),
    "mixed": (lambda v: [{"a": v[0][:, 0]}, v[1], v[2]], "member 1 and member 0 are not both mappings of parameters"),
    "other names": (
        lambda v: [{"a": v[0][:, 0]}, {"b": v[0][:, 0]}, {"a": v[0][:, 0]}],
        "member 1 and member 0 do not both have parameter 'a'",
    ),
    "unlike lengths": (
        lambda v: [{"a": v[0][:, 0], "b": v[0][:7, 1]}] * 3,
        "member 0: parameter 'b' has 7 draws, parameter 'a' 40",
    ),
    "no parameters": (lambda v: [{}] * 3, "member 0 has no parameters"),
    "a parameter without draws": (lambda v: [{"a": 1.0}] * 3, "member 0: parameter 'a' has shape (); give (draws,)"),
}
HOSTILE["base adapters"] = {
    "a number": (lambda v: 3, "@ is int; give a checkpoint's path or a mapping"),
    "no such file": (lambda v: "/nowhere/model.safetensors", "/nowhere/model.safetensors"),
}
# True or False, and nothing is said of other values: it is only ever asked whether it is true.
UNCHECKED = {"progress"}
# Quotas of an allocation are of costs: a group may cost up to its dearest levels.
HOSTILE["allocate quotas"] = {
    **{name: bad for name, bad in HOSTILE["quotas"].items() if name != "too many"},
    "too much": (lambda v: {"a": (7, 9)}, "@: group 'a' must cost at least 7, and its dearest levels cost 4"),
}
