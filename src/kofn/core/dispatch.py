"""Finding the method that a call names, or the one that fits it, and saying clearly what does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any

from kofn._index import entries, everything
from kofn.core.auto import AUTO
from kofn.core.checks import InputError, nearest, same_length, shown
from kofn.core.devices import names_a_device, resolve_device
from kofn.core.pools import is_pool
from kofn.core.problems import INPUTS, with_frame_ids
from kofn.core.registry import DERIVE, VERBS, Entry, Spec, execute
from kofn.core.vocabulary import LIMITS, MERGE_METHODS, METHODS_ELSEWHERE, SETTINGS, argument, meant
from kofn.engines.threads import limited

# Seconds of one thread, about a minute of two, that a call may take by this estimate before `auto` looks at a sample.
_PATIENCE = 120.0
# What `auto` takes in place of a method that looks at all pairs, where those are too many.
_SAMPLING = {"lazy_greedy": "sampled_greedy", "fasterpam": "fastclara"}
# A name so like another is that one with a slip of the pen, whatever the call has.
_SLIP = 0.9
# What it takes for sparse rows in place of a method that reads dense ones.
_OF_SPARSE = {"fasterpam": "fastclara"}
# What it takes for rows that are read in parts: pools, other engines, and more than `_LARGE` rows of which a sample
# would have fewer than `_THIN` a pick.
_IN_PARTS, _LARGE, _THIN = {"lazy_greedy": "two_round_greedy", "fasterpam": "fastclara"}, 200_000, 50
# What it takes in place of a rule for routing where the largest total is found in seconds: up to about so many steps,
# each of which compares two bins for one item.
_EXACT, _CHEAP = {"capped_routing": "balanced_assignment"}, 10**10
# The option with which a method that `auto` picked is exact, and up to how many scores that takes a second or so.
_EXACT_BY, _FEW_SCORES = {"sinkhorn_newton_sparse": {"reg": 0.0}}, 2_000_000


def dispatch(
    verb: str,
    method_name: str | Callable[..., Any],
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    ids: Any = None,
) -> Any:
    """Find the method that a call names (or that fits it) and run it.

    Raises:
        InputError: no such method (the nearest is offered), an argument or option it does not take (those that would
            are named), or no method that honours all of the arguments together.
    """
    given, ids = with_frame_ids(_with_pool(verb, given), ids)
    if callable(method_name):
        return _run_callable(verb, method_name, given, options, ids)
    entry, takes = fitting(verb, method_name, given, options)
    name = entry.name
    if method_name == "auto" and not options:
        options = exactly(name, given)
    try:
        function = entry.load()
    except ModuleNotFoundError as error:
        if entry.extra is None:
            raise
        raise InputError(f"method={name!r} needs {error.name}: pip install 'kofn[{entry.extra}]'") from None
    arguments = {word: given[word] if word in given else _derive(word, given) for word in takes}
    # A limit on threads is kept for methods too that have no threads of their own: linear algebra has.
    with limited(given.get("n_threads")):
        return execute(function.__kofn__, {**arguments, **options}, ids=ids)  # type: ignore[attr-defined]


def fitting(
    verb: str, method_name: str, given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Entry, set[str]]:
    """The method that a call names (or that fits it), and the words that it takes of the call.

    Raises:
        InputError: as `dispatch` does, before anything is run.

    Examples:
        >>> entry, takes = fitting("select", "auto", {"scores": [1.0, 2.0], "k": 1}, {})
        >>> entry.name, sorted(takes)
        ('top_k', ['k', 'scores'])
    """
    index = methods_of(verb)
    name = choose(verb, given, options) if method_name == "auto" else method_name
    entry = named(verb, name, given)
    takes = _fit(entry, given, options, index)
    if method_name != "auto":
        _refuse_limits(entry, given, options, takes, index)
    _refuse_engine(entry, given, options, index)
    _refuse_device(entry, given, options, index)
    return entry, takes


def exactly(name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with which a method that `auto` picked is exact, where that is cheap.

    Examples:
        >>> exactly("sinkhorn_newton_sparse", {"scores": [[1.0, 2.0]]}), exactly("top_k", {"scores": [1.0, 2.0]})
        ({'reg': 0.0}, {})
    """
    if name not in _EXACT_BY:
        return {}
    scores: Any = given.get("scores")
    if hasattr(scores, "shape"):
        count = math.prod(scores.shape)
    else:
        # Lists of rows; whatever else is no table.
        rows = scores if isinstance(scores, list | tuple) and scores else [()]
        count = len(rows) * (len(rows[0]) if isinstance(rows[0], Sized) else 1)
    return _EXACT_BY[name] if count <= _FEW_SCORES else {}


def _with_pool(verb: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A pool that an objective of the user's own brings along: only the number of its items counts."""
    count = getattr(given.get("objective"), "n", None)
    if verb != "select" or not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return given
    inputs = {word for word in INPUTS if word in given}
    if inputs - {"X"} or (inputs and not hasattr(given["X"], "nnz")):
        return given
    if inputs and given["X"].shape[0] != count:
        raise InputError(f"X has {given['X'].shape[0]} rows and the objective {count} items; give the same ones")
    import numpy as np

    return {**{word: value for word, value in given.items() if word != "X"}, "scores": np.zeros(count)}


def _fitting(given: Mapping[str, Any], options: Iterable[str], index: Mapping[str, Entry]) -> list[Entry]:
    """The methods that accept this call, by name."""
    return [index[name] for name in sorted(index) if index[name].fits(given, options)]


def _refuse_limits(
    entry: Entry, given: Mapping[str, Any], options: Iterable[str], takes: set[str], index: Mapping[str, Entry]
) -> None:
    """A limit that the named method would not keep is refused; what `auto` picks without it has no need of it."""
    # What is derived for a method is kept within the memory for it.
    kept = {*entry.accepted, "max_memory"} if takes - given.keys() else set(entry.accepted)
    for limit in sorted(LIMITS & given.keys() - kept):
        fitting = [other.name for other in _fitting(given, options, index) if limit in other.accepted]
        raise InputError(
            f"method={entry.name!r} cannot keep {limit}={given[limit]!r}; leave it out, or use a method that can: "
            f"{', '.join(fitting) or 'none fits this call'}"
        )


def _refuse_engine(entry: Entry, given: Mapping[str, Any], options: Iterable[str], index: Mapping[str, Entry]) -> None:
    """Work that would run here is refused where another engine was asked for."""
    engine = given.get("engine")
    if argument("engine", engine) in (None, "local") or "engine" in entry.accepted:
        return
    able = [other.name for other in _fitting(given, options, index) if "engine" in other.accepted]
    remedy = f"leave engine out, or use {', '.join(able)}" if able else "no method that fits this call runs elsewhere"
    raise InputError(f"engine={shown(engine)}: method={entry.name!r} runs on this machine only; {remedy}")


def _refuse_device(entry: Entry, given: Mapping[str, Any], options: Iterable[str], index: Mapping[str, Entry]) -> None:
    """Work that the processor would do is refused where a device was asked for; "auto" asks for none in particular."""
    device = argument("device", given.get("device"))
    if not names_a_device(device) or "device" in entry.accepted:
        return
    able = [other.name for other in _fitting(given, options, index) if "device" in other.accepted]
    remedy = f"leave device out, or use {', '.join(able)}" if able else "no method that fits this call runs on one"
    raise InputError(f"device={shown(device)}: method={entry.name!r} runs on the processor only; {remedy}")


def named(verb: str, name: Any, given: Mapping[str, Any] | None = None) -> Entry:
    """The method of this name; others are offered by what the call has.

    Raises:
        InputError: a verb has none; the nearest is offered.
    """
    index = methods_of(verb)
    if not isinstance(name, str) or name not in index:
        raise InputError(
            f"method={name!r}: no such {verb} method{_elsewhere(name, verb) or _meant(str(name), given or {}, index)}; "
            f"`kofn methods {verb}` lists them"
        )
    return index[name]


def _elsewhere(name: Any, verb: str) -> str:
    """Where a name is at home that is no method of this verb: in recipes, with another verb, or imported as it is."""
    if verb == "combine" and isinstance(name, str) and _underscored(name) in MERGE_METHODS:
        return (
            f"; recipes have it: write merge_method: {_underscored(name)}, base_model and models into a YAML file as "
            "for mergekit, and say kofn combine FILE.yaml, or kofn.combination.merge_recipe in Python"
        )
    entry = next((entry for entry in everything() if entry.name == name), None)
    if entry is None:
        return ""
    if entry.callable_by_verb:
        return f"; it is a method of {entry.verb}"
    kind = "a torch module" if entry.verb == "nn" else f"a {entry.form}"
    return f"; it is {kind}: from {entry.path.partition(':')[0].rpartition('.')[0]} import {name}"


def _meant(name: str, given: Mapping[str, Any], index: Mapping[str, Entry]) -> str:
    """Which method an unknown name may mean: one that contains it or is known by it, else the nearest.

    Those that fit the call go before others, which are offered only where the name is theirs but for its spelling.
    """
    words = _underscored(name)
    if slip := difflib.get_close_matches(words, index, n=1, cutoff=_SLIP):
        return f"; did you mean {slip[0]!r}?"
    fitting = {entry.name: entry for entry in _fitting(given, (), index)}
    ours = [(known, more) for known, more in METHODS_ELSEWHERE.get(words, ()) if known in index]
    ours = [pair for pair in ours if pair[0] in fitting] or ours
    if ours:
        known, more = ours[0]
        return f"; did you mean {known!r}{more}?"
    for among in (fitting, index) if fitting else (index,):
        close = [each.name for each in among.values() if words in each.name or words in map(_underscored, each.aliases)]
        if close:
            return f"; did you mean {' or '.join(map(repr, close[:3]))}?"
        if near := nearest(name, among):
            return near
    return ""


def _underscored(text: str) -> str:
    return text.lower().replace("-", "_").replace(" ", "_")


def _fit(entry: Entry, given: Mapping[str, Any], options: Mapping[str, Any], index: Mapping[str, Entry]) -> set[str]:
    """The arguments that the method would see of this call; refuses a call or an option that it does not take."""
    takes = entry.takes(given)
    if takes is None:
        raise InputError(misfit(entry, given, options, index))
    for name in sorted(options.keys() - entry.options.keys()):
        raise InputError(unknown_option(entry, name, index))
    return takes


def unknown_option(entry: Entry, name: str, index: Mapping[str, Entry]) -> str:
    """What to say of an option that a method does not have: whose it is, or what it may have been meant to be."""
    takers = sorted(other.name for other in index.values() if name in other.options)
    has = ", ".join(f"{key}={value}" for key, value in entry.options.items()) or "none"
    if name in entry.accepted:
        hint = f"; {name!r} is an argument of its own: give {name}=... beside options"
    elif takers:
        hint = f"; {name!r} belongs to {', '.join(takers)}"
    else:
        hint = meant(name, entry.verb) or nearest(name, [*entry.options, *entry.accepted])
    return f"method={entry.name!r} has no option {name!r}; its options: {has}{hint}"


def wrong_with(entry: Entry, given: Mapping[str, Any], options: Iterable[str] = ()) -> str:
    """What this method does not take of a call, and what it needs beside it."""
    derived = {name for name in set(entry.accepted) - set(given) if DERIVE.get(name, ("",))[0] in given}
    sources = {word for name in derived for word in DERIVE[name]}
    strange = sorted(set(given) - SETTINGS - set(entry.accepted) - sources)
    have = set(given) | derived
    missing = [name for name in entry.required if name not in have]
    missing += [" or ".join(any_of) for any_of in entry.needs if not have & set(any_of)]
    missing += [f"{name} (an option)" for name in sorted(entry.needed_options - set(options))]
    parts = {
        "does not take": strange,
        "has no option": sorted(set(options) - entry.options.keys()),
        "needs": missing,
    }
    return " and ".join(f"{verb} {', '.join(words)}" for verb, words in parts.items() if words)


def misfit(entry: Entry, given: Mapping[str, Any], options: Iterable[str], index: Mapping[str, Entry]) -> str:
    """Why this call does not fit this method, and which methods accept it as it is."""
    names = [other.name for other in _fitting(given, options, index)]
    exact = "".join(
        f"; {name} is exact with {', '.join(f'{option}={value:g}' for option, value in _EXACT_BY[name].items())}"
        for name in names
        if name in _EXACT_BY
    )
    fitting = ", ".join(names) or "none"
    return f"method={entry.name!r} {wrong_with(entry, given, options)}; methods that fit this call: {fitting}{exact}"


def choose(verb: str, given: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> str:
    """The first row of the `auto` table whose method takes all the arguments and options of the call."""
    index = methods_of(verb)
    rows = [name for name, _why in AUTO[verb] if set(options or ()) <= index[name].options.keys()]
    for name in rows:
        if index[name].takes(given) is not None:
            return by_size(by_kind(name, given, options or {}, index), given, options or {}, index)
    requested = sorted(set(given) - SETTINGS)
    inputs = [word for word in INPUTS if any(word in entry.accepted for entry in index.values())]
    if not set(requested) & set(inputs):
        raise InputError(f"nothing to {verb} from: give {' or '.join(inputs)}")
    _refuse_lengths(verb, given)
    candidates = rows or [name for name, _why in AUTO[verb]]
    closest = min(candidates, key=lambda name: len(set(requested) ^ set(index[name].accepted) & set(requested)))
    words = ", ".join([*requested, *(options or ())]) or "nothing"
    if fitting := _fitting(given, options or (), index):
        raise InputError(
            f"method='auto' has no {verb} method for {words} together ({closest} "
            f"{wrong_with(index[closest], given, options or ())}); name one that takes them: "
            f"method={' or '.join(repr(entry.name) for entry in fitting)}"
        )
    raise InputError(
        f"no {verb} method honours all of {words} together: {misfit(index[closest], given, options or (), index)}"
    )


def _refuse_lengths(verb: str, given: Mapping[str, Any]) -> None:
    """Refuse what has not one value an item, before it is said that no method takes it."""
    rows = ("X", "distances", "similarity") if verb in ("select", "assign") else ()
    source = next((word for word in rows if word in given), "")
    n = _length(given.get(source))
    for name in ("y", "costs", "weights", "groups"):
        length = _length(given.get(name))
        if n is not None and length is not None:
            same_length(n, source, name, length)


def _length(value: Any) -> int | None:
    """How many rows a list or an array has; None of anything else."""
    shape = _shape(value)
    return len(value) if isinstance(value, list | tuple) else shape[0] if shape else None


def by_kind(name: str, given: Mapping[str, Any], options: Mapping[str, Any], index: Mapping[str, Entry]) -> str:
    """The method for members of this kind: files of adapters are summed as updates, not averaged factor by factor."""
    members, sums = given.get("members"), index.get("stack_adapters")
    if (
        sums is None
        or not isinstance(members, list | tuple)
        or not all(isinstance(m, str | os.PathLike) for m in members)
    ):
        return name
    from kofn.io.adapters import is_adapter

    adapters = [member for member in members if is_adapter(member)]
    if not adapters or "base" in given or not options.keys() <= sums.options.keys():
        return name
    if len(adapters) < len(members):
        whole = next(member for member in members if member not in adapters)
        raise InputError(
            f"members: {os.fspath(adapters[0])} is an adapter, {os.fspath(whole)} is not; "
            "kofn.combination.fold_adapters(base, adapters) folds adapters into the model they were trained on"
        )
    return sums.name


def by_size(name: str, given: Mapping[str, Any], options: Mapping[str, Any], index: Mapping[str, Entry]) -> str:
    """The method for a question of this size: on a sample of the rows where all pairs take too long or longer than the
    limit, exact where that is cheap."""
    if name in _EXACT and not options and index[_EXACT[name]].takes(given) is not None:
        steps = _steps_of_routing(given["scores"], given.get("per_item"))
        return _EXACT[name] if steps <= _CHEAP else name
    if "device" in index[name].accepted and resolve_device(argument("device", given.get("device"))) is not None:
        return name
    of_sparse = index.get(_OF_SPARSE.get(name, ""))
    if of_sparse is not None and hasattr(given.get("X"), "nnz"):
        return name if options else of_sparse.name
    in_parts = index.get(_IN_PARTS.get(name, ""))
    if in_parts is not None and (not options.keys() <= in_parts.options.keys() or in_parts.takes(given) is None):
        in_parts = None
    if in_parts is not None and (is_pool(given.get("X")) or given.get("engine") not in (None, "local")):
        return in_parts.name
    shape = _shape(given.get("X"))
    sampling = _SAMPLING.get(name, "")
    if not sampling or options or len(shape) != 2 or _is(given.get("metric"), "rbf"):
        return name
    if index[sampling].takes(given) is None:
        return name
    # Without a limit the choice depends on the call alone, not on the machine, so that answers do not.
    seconds = seconds_of_all_pairs(given["X"])
    too_long = seconds > _PATIENCE
    if "time_limit" in given and not too_long:
        from kofn.engines.threads import cores

        too_long = seconds / cores(given.get("n_threads")) > given["time_limit"]
    if too_long and in_parts is not None and not hasattr(given["X"], "nnz") and _sample_is_thin(shape, given.get("k")):
        return in_parts.name
    return sampling if too_long else name


def _sample_is_thin(shape: tuple[Any, ...], k: Any) -> bool:
    """Whether one sample would have few rows for each pick, so that the picks would be near to it, not to the pool."""
    from kofn.engines.speed import rows_sampled

    n, d = shape
    return isinstance(k, int) and n > _LARGE and rows_sampled(n, d, k) < _THIN * k


def _is(value: Any, word: str) -> bool:
    """Whether an argument that has not been checked yet is this word; an array has no answer to ==."""
    return isinstance(value, str) and value == word


def _shape(value: Any) -> tuple[Any, ...]:
    """The value's shape, nothing where it has none or a stranger's object fails to say it."""
    try:
        shape = getattr(value, "shape", ())
    except Exception:
        return ()
    return shape if isinstance(shape, tuple) else ()


def _steps_of_routing(scores: Any, per_item: Any) -> float:
    """About how many steps the largest total takes: shortest paths among the bins for all items, or a matching."""
    import numpy as np

    try:
        n, bins = scores.shape if hasattr(scores, "shape") else np.shape(scores)
    except ValueError:
        return math.inf
    paths = float(n) * float(bins) ** 2
    if isinstance(per_item, int) and per_item > 1:
        return paths * per_item
    # Bins of a few items each are matched slot by slot, in a tenth of the steps that paths take.
    return paths / 10 if 4 * bins >= n and float(n) * bins <= 10**7 else paths


def seconds_of_all_pairs(X: Any) -> float:
    """About how long one thread takes for facility location on X (n, d): two looks at each pair of rows."""
    from kofn.engines.speed import features_of, pairs_a_second

    return float(2 * X.shape[0] ** 2 / pairs_a_second(features_of(X)))


def methods_of(verb: str) -> Mapping[str, Entry]:
    """The index of one verb: kofn's own methods and those of installed plug-ins (entry point group `kofn.methods`)."""
    if not isinstance(verb, str) or verb not in VERBS:
        raise InputError(f"verb={shown(verb)}: one of {', '.join(VERBS)}")
    plugins = {name: entry for name, entry in _plugins().items() if entry.verb == verb}
    return {**entries(verb), **plugins} if plugins else entries(verb)


@functools.cache
def _plugins() -> dict[str, Entry]:
    from importlib.metadata import entry_points

    plugins = {}
    for point in entry_points(group="kofn.methods"):
        entry = point.load().__kofn__.entry()
        plugins[entry.name] = dataclasses.replace(entry, path=point.value)
    return plugins


def _derive(word: str, given: Mapping[str, Any]) -> Any:
    """Compute a derived input, refusing what would not fit in `max_memory`."""
    from kofn.core import checks, vocabulary
    from kofn.objectives.similarity import pairwise_distances

    X = vocabulary.argument("X", given["X"])
    room = checks.bytes_of(given.get("max_memory") or 4 * 2**30)
    refuse_derived(word, len(X), X.dtype.itemsize, room)
    return pairwise_distances(X, given.get("metric") or "euclidean")


def refuse_derived(word: str, n: int, size: int, room: float) -> None:
    """Refuse to derive an (n, n) input of numbers of `size` bytes that is larger than the room for it.

    Raises:
        InputError: it is.
    """
    if (need := n**2 * size) > room:
        raise InputError(
            f"{word} from X would take {need / 1e6:,.1f} MB, over max_memory={room / 1e6:,.1f} MB; "
            f"raise max_memory or use a method that takes X"
        )


def _run_callable(
    verb: str, function: Callable[..., Any], given: Mapping[str, Any], options: Mapping[str, Any], ids: Any
) -> Any:
    """The user's own rule, in the same vocabulary, audited like any method."""
    if hasattr(function, "__kofn__"):
        spec = function.__kofn__
        takes = _fit(spec.entry(), given, options, methods_of(verb))
        arguments = {word: given[word] if word in given else _derive(word, given) for word in takes}
        return execute(spec, {**arguments, **options}, ids=ids)
    name = getattr(function, "__name__", type(function).__name__)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise InputError(f"method={name} has no signature to call it by; wrap it in a function of its own") from None
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY]
    if positional:
        raise InputError(f"method={name} takes {positional[0]} by position only; its arguments are given by name")
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    strange = sorted(word for word in {*given, *options} - SETTINGS - set(signature.parameters) if not open_ended)
    if strange:
        raise InputError(
            f"method={name} does not take {', '.join(strange)}; its arguments: {', '.join(signature.parameters)}"
        )

    def own_rule(**arguments: Any) -> Any:
        known = {key: value for key, value in arguments.items() if open_ended or key in signature.parameters}
        return as_plan(verb, function(**known), arguments, name)

    own_rule.__name__ = name
    empty = inspect.Signature([inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=None) for word in given])
    spec = Spec(function=own_rule, verb=verb, signature=empty)
    return execute(spec, {**given, **options}, ids=ids, options=options)


def as_plan(verb: str, answer: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A plan from what a user's rule returned: the plan itself, or bare indices, labels, amounts or a blend."""
    import numpy as np

    from kofn.core import plans

    if isinstance(answer, plans.Plan):
        return answer
    source = next(
        arguments[word]
        for word in ("X", "distances", "similarity", "scores", "curves", "members", "rankings")
        if word in arguments
    )
    n = source.shape[0] if hasattr(source, "shape") else len(source)
    if verb == "select":
        picks = np.asarray(answer)
        if picks.ndim != 1 or picks.dtype.kind not in "iu":
            raise InputError(f"method={name} returned {type(answer).__name__}; return row numbers or a Selection")
        return plans.Selection(n=n, indices=picks.astype(np.int64), gains=np.full(len(picks), np.nan))
    if verb == "assign":
        labels = _numbers(answer, name, "one bin number an item, -1 for none, or an Assignment", whole=True)
        if len(labels) != n or (len(labels) and labels.min() < -1) or labels.max(initial=0) >= 2**31:
            raise InputError(f"method={name} returned {shown(answer)}; return one bin number for each of {n} items")
        return plans.Assignment.from_labels(labels.astype(np.int64), int(arguments.get("k") or labels.max() + 1))
    if verb == "allocate":
        amounts = _numbers(answer, name, "one amount an item, or an Allocation")
        if len(amounts) != n or (amounts < 0).any():
            raise InputError(f"method={name} returned {shown(answer)}; return one amount >= 0 for each of {n} items")
        limits: dict[str, Any] = {}
        if not {"sizes", "levels", "mean_budget"} & set(arguments) and arguments.get("budget") is not None:
            limits = {"used": {"budget": math.fsum(amounts.tolist())}, "budget": {"budget": arguments["budget"]}}
        return plans.Allocation(n=n, amounts=amounts, values=np.full(len(amounts), np.nan), **limits)
    if answer is None:
        raise InputError(f"method={name} returned nothing; return the blend")
    return plans.Blend(n=n, result=answer, form="none")


def _numbers(answer: Any, name: str, meant: str, *, whole: bool = False) -> Any:
    """What a rule returned as a vector of numbers."""
    import numpy as np

    try:
        array = np.asarray(answer)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.ndim != 1 or array.dtype.kind not in ("iu" if whole else "iuf") or not np.isfinite(array).all():
        raise InputError(f"method={name} returned {shown(answer)}; return {meant}")
    return array
