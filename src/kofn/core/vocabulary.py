"""The shared vocabulary: what each argument name means, how it is checked, and what other libraries call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kofn.core.checks.arrays import curves, distances, matrix, members, rankings, scores, square, weights
from kofn.core.checks.constraints import capacity, costs, groups, ids, margins, quotas
from kofn.core.checks.numbers import bytes_of, choice, count, entropy, number, seconds


def metric(value: Any, name: str = "metric") -> str:
    """A known metric."""
    return choice(value, name, METRICS)


def _as_is(value: Any, _name: str) -> Any:
    return value


METRICS = ("euclidean", "sqeuclidean", "cosine", "precomputed")


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
        Argument("X", "input", matrix, "vectors, one row an item, shape (n, d)"),
        Argument("distances", "input", distances, "dissimilarities, shape (n, n)"),
        Argument("similarity", "input", square, "similarities >= 0, shape (n, n), dense or SciPy-sparse"),
        Argument("scores", "input", scores, "one score an item (n,), or one for each bin (n, bins)"),
        Argument("curves", "input", curves, "loss or value of each item at each level, shape (n, levels)"),
        Argument("members", "input", members, "what to blend: arrays, state dicts or checkpoint paths"),
        Argument("rankings", "input", rankings, "scores by judge, shape (judges, alternatives), NaN where missing"),
        Argument("graph", "input", _as_is, "adjacency, shape (n, n), sparse"),
        Argument("y", "qualifier", groups, "label of each item, shape (n,)"),
        Argument("ids", "qualifier", ids, "your key of each item, shape (n,)"),
        Argument("groups", "qualifier", groups, "group of each item, shape (n,)"),
        Argument("weights", "qualifier", weights, "weight of each item (n,) or member (m,)"),
        Argument("costs", "qualifier", costs, "cost of each item, shape (n,)"),
        Argument("base", "qualifier", _as_is, "what the members were fine-tuned from"),
        Argument("importance", "qualifier", weights, "importance of each part"),
        Argument("metric", "qualifier", metric, "how far two rows are: " + ", ".join(METRICS)),
        Argument("k", "constraint", count, "how many"),
        Argument("budget", "constraint", number, "total cost that may be spent"),
        Argument("quotas", "constraint", quotas, "{group: (least, most)}, None leaves an end open"),
        Argument("capacity", "constraint", capacity, "items a bin can hold"),
        Argument("per_item", "constraint", count, "bins an item goes to"),
        Argument("margins", "constraint", margins, "(row totals, column totals), of one sum"),
        Argument("bounds", "constraint", _as_is, "(least, most) for each item"),
        Argument("include", "constraint", _as_is, "items that must be picked"),
        Argument("exclude", "constraint", _as_is, "items that must not be picked"),
        Argument("start", "constraint", _as_is, "a plan or items to begin from"),
        Argument("objective", "rule", _as_is, "what is maximised: a name or an objective"),
        Argument("score", "rule", _as_is, "a callable that rates a plan"),
        Argument("seed", "setting", entropy, "whole number; the same seed gives the same plan"),
        Argument("max_memory", "setting", bytes_of, "bytes the work may hold, for example 600MB"),
        Argument("time_limit", "setting", seconds, "seconds; what is valid by then is returned"),
        Argument("n_threads", "setting", count, "threads; the plan is the same for any number"),
        Argument("progress", "setting", _as_is, "show progress on a terminal"),
        Argument("engine", "setting", _as_is, "where the work runs"),
    )
}
SETTINGS = frozenset(name for name, argument in VOCABULARY.items() if argument.role == "setting")


def argument(name: str, value: Any) -> Any:
    """Check one value of the vocabulary under its own name."""
    return VOCABULARY[name].check(value, name)
