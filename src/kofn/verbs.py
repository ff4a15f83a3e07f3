"""The four verbs, `compare` and `methods`: thin doors to the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kofn.core import dispatch, registry, vocabulary
from kofn.core.checks import InputError, nearest
from kofn.core.vocabulary import SETTINGS, VOCABULARY, argument

if TYPE_CHECKING:
    import polars

    from kofn.core.plans import Allocation, Assignment, Blend, Selection

Method = str | Callable[..., Any]


def _run(verb: str, method: Method, options: Mapping[str, Any] | None, arguments: dict[str, Any]) -> Any:
    given = {name: value for name, value in arguments.items() if value is not None}
    for name in given:
        if name not in VOCABULARY:
            entry = dispatch.methods_of(verb).get(method) if isinstance(method, str) else None
            if entry is not None and name in entry.options:
                raise InputError(f"{name} is an option of {method}: pass options={{{name!r}: {given[name]!r}}}")
            raise InputError(f"{verb} has no argument {name!r}{nearest(name, VOCABULARY)}")
    for name in SETTINGS & given.keys():
        # Settings that the method ignores are still read: a typo in them must not pass in silence.
        argument(name, given[name])
    return dispatch.dispatch(verb, method, given, options or {}, given.pop("ids", None))


def select(
    X: Any = None, *, method: Method = "auto", options: Mapping[str, Any] | None = None, **arguments: Any
) -> Selection:
    """Pick which k of n to keep, under a count, a budget and quotas.

    Args:
        X: vectors (n, d), one row an item; or give `similarity` (n, n) or `scores` (n,) by name.
        method: a method's name (`kofn.methods("select")`), "auto", or your own callable.
        options: the method's own options.
        **arguments: words of the vocabulary: k, budget with costs, quotas with groups, include, exclude, start,
            weights, metric, objective, ids, and the settings seed, max_memory, time_limit, n_threads, progress.

    Returns:
        A `Selection`: `indices` in the order picked, `gains`, `value`, `bound`, `status`.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> X = [[0.0], [0.1], [5.0], [5.2], [9.0]]
        >>> kofn.select(X, k=2).indices.tolist()
        [2, 0]
        >>> s = kofn.select(X, k=3, groups=list("aabbb"), quotas={"a": (2, None)})
        >>> sorted(s.indices.tolist())
        [0, 1, 2]
    """
    result: Selection = _run("select", method, options, {"X": X, **arguments})
    return result


def assign(
    X: Any = None, *, method: Method = "auto", options: Mapping[str, Any] | None = None, **arguments: Any
) -> Assignment:
    """Decide where each of n items goes: groups around real examples, or bins with a capacity.

    Args:
        X: vectors (n, d); or give `distances` (n, n) or `scores` (n, bins) by name.
        method: a method's name (`kofn.methods("assign")`), "auto", or your own callable.
        options: the method's own options, such as `overflow`.
        **arguments: words of the vocabulary: k, capacity, per_item, metric, start, weights, ids, and the settings.

    Returns:
        An `Assignment`: `labels`, `medoids` where there are any, achieved margins, `value`, `bound`.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> a = kofn.assign([[0.0], [0.2], [5.0], [5.1]], k=2, seed=0)
        >>> a.labels[0] == a.labels[1] != a.labels[2] == a.labels[3]
        np.True_
    """
    # `overflow` is the one option every router shares, so the verb takes it as a word of its own.
    if "overflow" in arguments:
        options = {**(options or {}), "overflow": arguments.pop("overflow")}
    result: Assignment = _run("assign", method, options, {"X": X, **arguments})
    return result


def allocate(
    curves: Any = None,
    *,
    budget: float | None = None,
    method: Method = "auto",
    options: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Allocation:
    """Decide how much each of n items gets of a shared budget.

    Args:
        curves: (n, levels) the loss of item i at level l (`options={"sense": "max"}`: its value).
        budget: what may be spent in total.
        method: a method's name (`kofn.methods("allocate")`), "auto", or your own callable.
        options: the method's own options: `sizes`, `levels`, `sense`, `mean_budget`.
        **arguments: words of the vocabulary, such as ids and the settings.

    Returns:
        An `Allocation`: `amounts`, `values`, the `price` of one more unit, `bound`.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> b = kofn.allocate([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4]], budget=2)
        >>> b.amounts.tolist(), b.value, b.status
        ([2, 0], 6.0, 'optimal')
    """
    own = {name: arguments.pop(name) for name in ("sizes", "levels", "sense", "mean_budget") if name in arguments}
    result: Allocation = _run(
        "allocate", method, {**own, **(options or {})}, {"curves": curves, "budget": budget, **arguments}
    )
    return result


def combine(
    members: Any = None, *, method: Method = "auto", options: Mapping[str, Any] | None = None, **arguments: Any
) -> Blend:
    """Blend many into one: checkpoints, arrays, rankings.

    Args:
        members: arrays, state dicts (name to array) or paths of safetensors checkpoints; or give `rankings` by name.
        method: a method's name (`kofn.methods("combine")`), "auto", or your own callable.
        options: the method's own options, such as `out` (where to stream a checkpoint to).
        **arguments: words of the vocabulary: weights, base, ids, and the settings.

    Returns:
        A `Blend`: `result`, `weights`, and `spread`, the distance of each member to the result.

    Raises:
        InputError: bad input, or an argument the method does not take; the message says what to do.

    Examples:
        >>> import kofn
        >>> kofn.combine([[1.0, 2.0], [3.0, 6.0]], weights=[3, 1]).result.tolist()
        [1.5, 3.0]
    """
    result: Blend = _run("combine", method, options, {"members": members, **arguments})
    return result


def methods(verb: str | None = None, *, given: Sequence[str] = ()) -> list[registry.Entry]:
    """What fits this call: one entry a method, with its name, summary, paper, cost and traits.

    Args:
        verb: one verb, or None for all.
        given: the arguments you have, such as `("scores", "capacity")`; methods that would not take them are left out.

    Examples:
        >>> import kofn
        >>> [entry.name for entry in kofn.methods("combine", given=("rankings",))]
        ['borda']
    """
    for word in given:
        if word not in VOCABULARY:
            raise InputError(f"given={word!r} is not an argument{nearest(word, VOCABULARY)}")
    verbs = registry.VERBS if verb is None else (verb,)
    rows = [entry for one in verbs for entry in dispatch.methods_of(one).values()]
    return [entry for entry in rows if not given or entry.takes(set(given) - {"ids"}) is not None]


def compare(
    verb: str,
    X: Any = None,
    *,
    k: int | Sequence[int] | None = None,
    methods: Sequence[Method],
    seeds: int | Sequence[int] = 1,
    objective: Any = None,
    **arguments: Any,
) -> polars.DataFrame:
    """Run several methods on one problem and judge them all under one objective.

    Args:
        verb: "select", "assign", "allocate" or "combine".
        X: the verb's first argument.
        k: one count or several.
        methods: names or callables, run with the same arguments (each is given only those that it takes).
        seeds: how many seeds, or which; methods without a seed run once.
        objective: for select, what every answer is measured by, default "facility_location"; elsewhere the plan's own
            value.
        **arguments: words of the vocabulary.

    Returns:
        One row a run: method, k, seed, value, status, gap, seconds, oracle_calls.

    Examples:
        >>> import kofn
        >>> rules = ["lazy_greedy", "farthest_first"]
        >>> frame = kofn.compare("select", [[0.0], [0.1], [5.0], [9.0]], k=[1, 2], methods=rules)
        >>> frame["value"].to_list()[0] >= frame["value"].to_list()[2]
        True
    """
    import polars

    from kofn.core import checks
    from kofn.objectives import base

    lead = {"select": "X", "assign": "X", "allocate": "curves", "combine": "members"}[
        checks.choice(verb, "verb", registry.VERBS)
    ]
    shared = {lead: X, **arguments}
    runs = range(seeds) if isinstance(seeds, int) else seeds
    rows = []
    for name in methods:
        entry = dispatch.methods_of(verb).get(name) if isinstance(name, str) else None
        seeded = entry is None or "seed" in entry.accepted
        for count in k if isinstance(k, Sequence) else [k]:
            for seed in runs if seeded else [None]:
                call = {**shared, "k": count, "seed": seed}
                if verb == "select" and entry is not None and "objective" in entry.accepted and objective is not None:
                    call["objective"] = objective
                plan = _run(verb, name, None, call)
                value = plan.value
                if verb == "select":
                    words = {
                        word: vocabulary.argument(word, v)
                        for word, v in shared.items()
                        if v is not None and word in VOCABULARY
                    }
                    rule = objective or ("facility_location" if words.keys() & {"X", "similarity"} else "modular")
                    kept = base.words_of(rule) if isinstance(rule, str) else set(words)
                    judge = base.build(
                        rule, {w: v for w, v in words.items() if w in kept}, known=tuple(base.OBJECTIVES)
                    )
                    value = judge.value(plan.indices)
                rows.append(
                    {
                        "method": plan.method,
                        "k": count,
                        "seed": seed,
                        "value": value,
                        "status": plan.status,
                        "gap": plan.gap,
                        "seconds": plan.info["seconds"],
                        "oracle_calls": plan.info["oracle_calls"],
                    }
                )
    return polars.DataFrame(rows)
