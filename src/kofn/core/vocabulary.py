"""The shared vocabulary: what each argument name means, how it is checked, and what other libraries call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kofn.core.checks.arrays import distances, matrix, members, rankings, scores, square, weights
from kofn.core.checks.constraints import bounds, capacity, costs, ids, margins
from kofn.core.checks.curves import curves
from kofn.core.checks.errors import InputError
from kofn.core.checks.numbers import bytes_of, choice, count, entropy, number, progress, seconds, shown
from kofn.core.checks.quotas import groups, labels, quotas
from kofn.core.checks.reading import collected, reading


def metric(value: Any, name: str = "metric") -> str:
    """A known metric."""
    hint = _OTHER_METRICS.get(value.lower()) if isinstance(value, str) else None
    if hint is not None:
        raise InputError(f"{name}={shown(value)}: choose one of {', '.join(METRICS)}; {hint}")
    return choice(value, name, METRICS)


_OWN = "other distances go into distances= (assign) or, as similarities, into similarity= (select)"
# Metrics that people bring, and what serves them here.
_OTHER_METRICS = {
    "hamming": "of columns of 0 and 1 'sqeuclidean' counts the cells that differ",
    "gower": "the command's --columns compares numbers and categories together",
    **dict.fromkeys(("manhattan", "cityblock", "l1", "jaccard", "chebyshev", "minkowski", "haversine"), _OWN),
}


def _as_is(value: Any, _name: str) -> Any:
    return value


def _model(value: Any, _name: str) -> Any:
    """The state dict of a torch module; anything else as it is."""
    return value.state_dict() if hasattr(value, "load_state_dict") else value


def engine(value: Any, name: str = "engine") -> Any:
    """Where the work runs: a word, an address of Ray, or an engine (`kofn.engines.base.Engine`)."""
    if value is None or all(callable(getattr(value, part, None)) for part in ("map", "share", "close")):
        return value
    if isinstance(value, str) and (value in ENGINES or value.removeprefix("ray:").strip("/") not in ("", value)):
        return value
    raise InputError(
        f"{name}={shown(value)}: choose one of {', '.join(ENGINES)}; or give 'ray:HOST:PORT', 'ray://HOST:PORT' or an "
        "engine"
    )


def device(value: Any, name: str = "device") -> str | None:
    """What compares and adds up: None, or the name of a device, which is looked for once it is needed."""
    if value is None:
        return None
    if type(value).__module__ == "torch":
        value = str(value)
    if isinstance(value, str) and value.strip() and value == value.strip():
        return value
    raise InputError(f"{name}={shown(value)}: give 'cpu', 'auto', or a device of torch such as 'cuda' or 'cuda:1'")


def rating(value: Any, name: str = "score") -> Any:
    """A callable."""
    if not callable(value):
        raise InputError(f"{name}={shown(value)}: give a callable")
    return value


# Where work can run by name.
ENGINES = ("local", "ray")
METRICS = ("euclidean", "sqeuclidean", "cosine", "rbf", "precomputed")


@dataclass(frozen=True)
class Argument:
    """One word of the vocabulary: what it means, how it is checked, what role it plays."""

    name: str
    role: str  # "input" | "qualifier" | "constraint" | "rule" | "setting"
    check: Callable[[Any, str], Any]
    help: str


VOCABULARY: dict[str, Argument] = {
    argument.name: argument
    for argument in (
        Argument("X", "input", matrix, "Vectors, one row an item, shape (n, d)."),
        Argument("distances", "input", distances, "Dissimilarities of every two items, shape (n, n)."),
        Argument("similarity", "input", square, "Similarities >= 0, shape (n, n), dense or SciPy-sparse."),
        Argument("scores", "input", scores, "One score an item (n,), or one for each bin (n, bins)."),
        Argument(
            "curves",
            "input",
            curves,
            "Loss or value of each item at each level, shape (n, levels); inf: not allowed (-inf of values).",
        ),
        Argument("members", "input", members, "What to blend: arrays, state dicts or paths of checkpoints."),
        Argument(
            "rankings",
            "input",
            rankings,
            "Scores by judge, shape (items, judges), NaN where missing.",
        ),
        Argument("graph", "input", _as_is, "Adjacency, shape (n, n), sparse."),
        Argument("y", "qualifier", labels, "Label of each item, shape (n,)."),
        Argument(
            "ids", "qualifier", ids, "Your key of each item, shape (n,), or a column's name; default a pandas index."
        ),
        Argument("groups", "qualifier", groups, "Group of each item, shape (n,); for quotas also {column: groups}."),
        Argument("weights", "qualifier", weights, "Weight of each item (n,) or of each member (m,)."),
        Argument("costs", "qualifier", costs, "Cost of each item, shape (n,); whole numbers are added up exactly."),
        Argument("base", "qualifier", _model, "What the members were fine-tuned from; given as they are."),
        Argument("importance", "qualifier", weights, "Importance of each part."),
        Argument("metric", "qualifier", metric, "How far apart two rows are: " + ", ".join(METRICS) + "."),
        Argument("k", "constraint", count, "How many; with a budget, at most how many."),
        Argument("budget", "constraint", number, "Total cost that may be spent."),
        Argument(
            "quotas",
            "constraint",
            quotas,
            "{group: (least, most)} or {column: {group: ...}}, where a tuple of columns has tuples of groups; "
            "None leaves an end open.",
        ),
        Argument("capacity", "constraint", capacity, "How many items a bin can hold: one number, or one for each bin."),
        Argument("per_item", "constraint", count, "How many bins an item goes to."),
        Argument("margins", "constraint", margins, "(row totals, column totals), with equal sums."),
        Argument("bounds", "constraint", bounds, "(least, most) amount of all items or of each; None is open."),
        Argument(
            "include", "constraint", _as_is, "Items that must be picked: row numbers, or ids where ids are given."
        ),
        Argument("exclude", "constraint", _as_is, "Items that must not be picked."),
        Argument("start", "constraint", _as_is, "A plan or items to begin from."),
        Argument("objective", "rule", _as_is, "What is maximised: a name, a weighted sum of names, or an object."),
        Argument("score", "rule", rating, "A callable that rates a plan."),
        Argument("seed", "setting", entropy, "Whole number; the same seed gives the same plan."),
        Argument("max_memory", "setting", bytes_of, "Bytes the work may hold, for example '600MB'."),
        Argument("time_limit", "setting", seconds, "Seconds; what is valid by then is returned."),
        Argument("n_threads", "setting", count, "Threads; the plan is the same for any number."),
        Argument("progress", "setting", progress, "True shows how far the work is; a callable is told each step."),
        Argument(
            "engine",
            "setting",
            engine,
            "Where the work runs: 'local', 'ray', 'ray:HOST:PORT', 'ray://HOST:PORT', or an engine.",
        ),
        Argument(
            "device",
            "setting",
            device,
            "What compares the rows: 'cpu' (default), 'cuda', 'cuda:1', 'auto' (a GPU where torch sees one); the "
            "answer is the same. 'torch:cpu' runs the same code on torch's processor.",
        ),
    )
}
# Settings that promise something; a method that does not take them cannot keep them.
LIMITS = frozenset({"time_limit", "max_memory"})
SETTINGS = frozenset(name for name, argument in VOCABULARY.items() if argument.role == "setting")


def argument(name: str, value: Any) -> Any:
    """Check one value of the vocabulary under its own name."""
    return readable(name, value, VOCABULARY[name].check, value, name)


def readable(name: str, value: Any, check: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of a check; where the value fails in its own way when it is read, the refusal names the word.

    Raises:
        InputError: the check's own refusal, or whatever the value raised.
    """
    with reading(name, value, VOCABULARY[name].help):
        made = collected(value)
        return check(*(made if argument is value else argument for argument in arguments))


# What other libraries call our words (and `method` itself): the name people bring, and ours; a verb's own come first.
SYNONYMS_OF_VERB: dict[str, dict[str, str]] = {
    "assign": {"top_k": "per_item", "topk": "per_item"},
    "allocate": {"size": "sizes"},
    "combine": {"t": "weights", "drop_rate": "density"},
}
SYNONYMS: dict[str, str] = {
    "n": "k",
    "n_select": "k",
    "n_samples": "k",
    "n_clusters": "k",
    "n_components": "k",
    "num_clusters": "k",
    "n_medoids": "k",
    "size": "k",
    "cardinality": "k",
    "top_k": "k",
    "topk": "k",
    "random_state": "seed",
    "rng": "seed",
    "sample_weight": "weights",
    "sample_weights": "weights",
    "weight": "weights",
    "n_jobs": "n_threads",
    "num_threads": "n_threads",
    "n_cpu": "n_threads",
    "threads": "n_threads",
    "workers": "n_threads",
    "timeout": "time_limit",
    "max_time": "time_limit",
    "memory": "max_memory",
    "memory_limit": "max_memory",
    "verbose": "progress",
    "backend": "engine",
    "gpu": "device",
    "cost": "costs",
    "prices": "costs",
    "max_cost": "budget",
    "total": "budget",
    "group": "groups",
    "strata": "groups",
    "stratify": "groups",
    "categories": "groups",
    "quota": "quotas",
    "id": "ids",
    "label": "y",
    "labels": "y",
    "target": "y",
    "targets": "y",
    "data": "X",
    "embeddings": "X",
    "vectors": "X",
    "features": "X",
    "points": "X",
    "distance_matrix": "distances",
    "dissimilarity": "distances",
    "D": "distances",
    "similarities": "similarity",
    "kernel": "similarity",
    "affinity": "similarity",
    "S": "similarity",
    "logits": "scores",
    "utilities": "scores",
    "utility": "scores",
    "votes": "rankings",
    "ballots": "rankings",
    "leaderboard": "rankings",
    "models": "members",
    "checkpoints": "members",
    "state_dicts": "members",
    "adapters": "members",
    "base_model": "base",
    "losses": "curves",
    "must_include": "include",
    "must_exclude": "exclude",
    "initial": "start",
    "init": "start",
    "size_max": "capacity",
    "max_size": "capacity",
    "capacities": "capacity",
    "experts_per_token": "per_item",
    "criterion": "objective",
    "function": "objective",
    "strategy": "method",
    "algorithm": "method",
    "merge_method": "method",
    "distance": "metric",
}
_BY_ELIMINATION = (("baldwin", " (the nearest here: the last by Borda's count goes, round by round)"),)
_OF_SCORES = (("weighted_mean", ""), ("borda", " (it averages ranks, as the scores of judges have no common scale)"))
# Methods that are called otherwise elsewhere, are options of ours or have no other near them: the name people bring,
# then our methods, of which the first that fits the call is offered, and what to give it or how it compares.
METHODS_ELSEWHERE: dict[str, tuple[tuple[str, str], ...]] = {
    "dare_linear": (("dare", ""),),
    "dare_ties": (("dare", " with consensus='ties'"),),
    "mean": _OF_SCORES,
    "average": _OF_SCORES,
    "tideman": (("ranked_pairs", ""),),
    "irv": _BY_ELIMINATION,
    "instant_runoff": _BY_ELIMINATION,
}

# What recipes take as their merge_method and no method of combine is called.
MERGE_METHODS = (
    *("model_stock", "karcher", "nuslerp", "multislerp", "nearswap", "sce", "ram", "ramplus_tl", "passthrough"),
    *("della", "della_linear", "breadcrumbs", "breadcrumbs_ties"),
)


# Synonyms that count the other way round, and how ours is said in them.
_REVERSED = {"drop_rate": "1 - drop_rate"}


# What is no argument of ours, and how the same is said of the arguments.
_OF_COSTS = "scores are better the higher they are: for costs give scores=-costs"
_SAID_BY_INPUTS = {
    (verb, name): _OF_COSTS for verb in ("assign", "select") for name in ("sense", "maximize", "minimize")
}
_SAID_BY_INPUTS |= {
    ("allocate", name): "give bounds=(least, most), None for no limit, for all items or a pair each"
    for name in ("min", "max", "minimum", "maximum", "lower_bound", "upper_bound")
}
_SAID_BY_INPUTS["combine", "wins"] = (
    "a table whose rows ids name has it; of an array give kofn.combine(**kofn.combination.win_ballots(array))"
)


def meant(name: str, verb: str) -> str:
    """The end of an error that names our word for what other libraries call by this name; empty if there is none.

    >>> meant("drop_rate", "combine")
    "; did you mean 'density' (1 - drop_rate)?"
    """
    if (verb, name) in _SAID_BY_INPUTS:
        return f"; {_SAID_BY_INPUTS[verb, name]}"
    ours = synonym(name, verb)
    return "" if ours is None else f"; did you mean {ours!r}{reversed_as(name)}?"


def reversed_as(name: str) -> str:
    """How our word is said in a synonym that counts the other way round; empty for other synonyms."""
    return f" ({_REVERSED[name]})" if name in _REVERSED else ""


def synonym(name: str, verb: str) -> str | None:
    """Our word for what other libraries call by this name, if it is known."""
    return SYNONYMS_OF_VERB.get(verb, {}).get(name) or SYNONYMS.get(name)
