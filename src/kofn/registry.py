"""How a plain function becomes a method: checked arguments in, a complete plan out, found by name.

A method is a function whose arguments are words of the shared vocabulary plus its own options. `@method` checks every
argument once, runs the function, completes the plan (method, options, seed, digest, seconds, version) and audits it. The
direct call and the verb take the same path.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from kofn.checks import SETTINGS, VOCABULARY, InputError, nearest

P = ParamSpec("P")
R = TypeVar("R")

VERBS = ("select", "assign", "allocate", "combine")
HOMES = {"select": "selection", "assign": "assignment", "allocate": "allocation", "combine": "combination"}
# What can be computed from what, where a method takes only the derived form.
DERIVE = {"distances": ("X", "metric")}


@dataclass(frozen=True)
class Entry:
    """One method as text: what it takes and what it promises. Importing the index imports no method."""

    name: str
    verb: str
    path: str
    summary: str
    required: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    accepted: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    traits: tuple[str, ...] = ()
    cost: str = ""
    exact: str = ""
    paper: str = ""
    extra: str | None = None

    def takes(self, given: Mapping[str, Any] | set[str] | frozenset[str]) -> set[str] | None:
        """The arguments this method would see of this call, or None if the call does not fit it."""
        used: set[str] = set()
        have = set(given)
        for name in set(self.accepted) - have:
            source = DERIVE.get(name, ("",))
            if source[0] in have and source[0] not in self.accepted:
                used |= set(source)
                have.add(name)
        fits = (
            set(self.required) <= have
            and all(have & set(any_of) for any_of in self.needs)
            and set(given) - SETTINGS <= set(self.accepted) | used
        )
        return have & set(self.accepted) if fits else None

    @property
    def inputs(self) -> str:
        """The required arguments in words: `X or distances, k`."""
        return ", ".join([" or ".join(any_of) for any_of in self.needs] + list(self.required))

    def load(self) -> Callable[..., Any]:
        """Import the function itself."""
        module, function = self.path.split(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return loaded


@dataclass(frozen=True)
class Spec:
    """What `@method` knows of a function; `entry()` turns it into a row of the index."""

    function: Callable[..., Any]
    verb: str
    needs: tuple[tuple[str, ...], ...]
    traits: frozenset[str]
    cost: str
    exact: str
    paper: str
    extra: str | None
    signature: inspect.Signature

    @property
    def name(self) -> str:
        """The method's name is its function's."""
        return self.function.__name__

    def entry(self) -> Entry:
        """The row of the index."""
        parameters = self.signature.parameters.values()
        words = [p for p in parameters if p.name in VOCABULARY]
        return Entry(
            name=self.name,
            verb=self.verb,
            path=f"{self.function.__module__}:{self.name}",
            summary=(inspect.getdoc(self.function) or "").split("\n", 1)[0],
            required=tuple(p.name for p in words if p.default is p.empty),
            needs=self.needs,
            accepted=tuple(p.name for p in words),
            options={p.name: repr(p.default) for p in parameters if p.name not in VOCABULARY},
            traits=tuple(sorted(self.traits)),
            cost=self.cost,
            exact=self.exact,
            paper=self.paper,
            extra=self.extra,
        )


def method(
    verb: str,
    *,
    needs: tuple[tuple[str, ...], ...] = (),
    traits: tuple[str, ...] = (),
    cost: str,
    exact: str,
    paper: str,
    extra: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as a method of `verb`.

    Args:
        verb: "select", "assign", "allocate" or "combine".
        needs: groups of alternatives of which one each must be given, such as `(("X", "distances"),)`.
        traits: the laws that every plan of this method keeps, by name (`kofn.laws`).
        cost: time and memory, in n, d, k.
        exact: what is exact and what is guaranteed, in half a line.
        paper: the reference.
        extra: the optional dependency group it needs.
    """

    def register(function: Callable[P, R]) -> Callable[P, R]:
        spec = Spec(function, verb, needs, frozenset(traits), cost, exact, paper, extra, inspect.signature(function))

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = spec.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            result: R = execute(spec, bound.arguments)
            return result

        run.__kofn__ = spec  # type: ignore[attr-defined]
        return run

    return register


def execute(
    spec: Spec, arguments: Mapping[str, Any], *, ids: Any = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Check, run, complete and audit: the one path that every method takes."""
    from kofn import checks, problems

    began = time.perf_counter()
    parameters = spec.signature.parameters
    values = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
    values.update(arguments)
    given = {name: value for name, value in values.items() if name in VOCABULARY and value is not None}
    if "seed" in parameters:
        given["seed"] = checks.entropy(values.get("seed"))
    for any_of in spec.needs:
        if not given.keys() & set(any_of):
            raise InputError(f"{spec.name} needs {' or '.join(any_of)}")
    problem = problems.build(spec.verb, given, ids)
    own = {name: value for name, value in values.items() if name not in VOCABULARY}
    plan = spec.function(**{**values, **problem.given})
    plan = _complete(plan, problem, spec, {**own, **(options or {})}, began)
    return plan.verify(problem)


def _complete(plan: Any, problem: Any, spec: Spec, options: Mapping[str, Any], began: float) -> Any:
    from kofn import __version__

    given = problem.given
    asked = {name: given[name] for name in ("objective", "metric") if isinstance(given.get(name), str)}
    info = {
        "oracle_calls": 0,
        "distance_evals": 0,
        "exact": plan.status == "optimal",
        **plan.info,
        "seconds": time.perf_counter() - began,
        "peak_bytes": _peak_bytes(),
        "version": __version__,
    }
    return dataclasses.replace(
        plan,
        method=spec.name,
        options={**asked, **{name: _plain(value) for name, value in options.items()}},
        seed=str(given["seed"]) if "seed" in given else None,
        ids=problem.ids,
        info=info,
        problem=problem.digest,
        traits=spec.traits,
    )


def _plain(value: Any) -> Any:
    return getattr(value, "__qualname__", repr(value)) if callable(value) else value


def _peak_bytes() -> int:
    """The process's peak resident size so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def dispatch(
    verb: str,
    method_name: str | Callable[..., Any],
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    ids: Any = None,
) -> Any:
    """Find the method that a call names (or that fits it) and run it.

    Raises:
        InputError: no such method (the nearest is offered), an argument or option it does not take (those that would are
            named), or no method that honours all of the arguments together.
    """
    if callable(method_name):
        return _run_callable(verb, method_name, given, options, ids)
    index = methods_of(verb)
    name = choose(verb, given) if method_name == "auto" else method_name
    if name not in index:
        raise InputError(
            f"method={name!r}: no such {verb} method{nearest(name, index)}; `kofn methods {verb}` lists them"
        )
    entry = index[name]
    takes = entry.takes(given)
    if takes is None:
        raise InputError(misfit(entry, given, index))
    if unknown := sorted(options.keys() - entry.options.keys()):
        takers = sorted(e.name for e in index.values() if unknown[0] in e.options)
        also = f"; {unknown[0]!r} belongs to {', '.join(takers)}" if takers else nearest(unknown[0], entry.options)
        has = ", ".join(f"{key}={value}" for key, value in entry.options.items()) or "none"
        raise InputError(f"method={name!r} has no option {unknown[0]!r}; its options: {has}{also}")
    try:
        function = entry.load()
    except ModuleNotFoundError as error:
        if entry.extra is None:
            raise
        raise InputError(f"method={name!r} needs {error.name}: pip install 'kofn[{entry.extra}]'") from None
    arguments = {word: given[word] if word in given else _derive(word, given) for word in takes}
    return execute(function.__kofn__, {**arguments, **options}, ids=ids)  # type: ignore[attr-defined]


def misfit(entry: Entry, given: Mapping[str, Any], index: Mapping[str, Entry]) -> str:
    """Why this call does not fit this method, and which methods it would fit."""
    strange = sorted(set(given) - SETTINGS - set(entry.accepted))
    missing = [name for name in entry.required if name not in given]
    missing += [" or ".join(any_of) for any_of in entry.needs if not set(given) & set(any_of)]
    parts = []
    if strange:
        parts.append(f"does not take {', '.join(strange)}")
    if missing:
        parts.append(f"needs {', '.join(missing)}")
    fitting = sorted(e.name for e in index.values() if e.takes(given) is not None)
    return f"method={entry.name!r} {' and '.join(parts)}; methods that fit this call: {', '.join(fitting) or 'none'}"


def choose(verb: str, given: Mapping[str, Any]) -> str:
    """The first row of the `auto` table whose method fits the call."""
    from kofn._index import AUTO

    index = methods_of(verb)
    for name, _why in AUTO[verb]:
        if index[name].takes(given) is not None:
            return name
    asked = sorted(set(given) - SETTINGS)
    closest = min(AUTO[verb], key=lambda row: len(set(asked) ^ set(index[row[0]].accepted) & set(asked)))[0]
    raise InputError(
        f"no {verb} method honours all of {', '.join(asked) or 'nothing'} together: "
        + misfit(index[closest], given, index)
    )


def methods_of(verb: str) -> Mapping[str, Entry]:
    """The index of one verb: kofn's own methods and those of installed plug-ins (entry point group `kofn.methods`)."""
    from kofn._index import INDEX

    if verb not in VERBS:
        raise InputError(f"verb={verb!r}: one of {', '.join(VERBS)}")
    return {**INDEX[verb], **{name: e for name, e in _plugins().items() if e.verb == verb}}


@functools.cache
def _plugins() -> dict[str, Entry]:
    from importlib.metadata import entry_points

    found = {}
    for point in entry_points(group="kofn.methods"):
        entry = point.load().__kofn__.entry()
        found[entry.name] = dataclasses.replace(entry, path=point.value)
    return found


def _derive(word: str, given: Mapping[str, Any]) -> Any:
    """Compute a derived input, refusing what would not fit in `max_memory`."""
    from kofn import checks
    from kofn.objectives.similarity import pairwise_distances

    X = checks.argument("X", given["X"])
    room = checks.bytes_of(given.get("max_memory") or 4 * 2**30)
    need = len(X) ** 2 * X.dtype.itemsize
    if need > room:
        raise InputError(
            f"{word} from X would take {need / 1e9:.1f} GB, over max_memory={room / 1e9:.1f} GB; "
            f"raise max_memory or use a method that takes X"
        )
    return pairwise_distances(X, given.get("metric") or "euclidean")


def _run_callable(
    verb: str, function: Callable[..., Any], given: Mapping[str, Any], options: Mapping[str, Any], ids: Any
) -> Any:
    """The user's own rule, in the same vocabulary, audited like any method."""
    if hasattr(function, "__kofn__"):
        spec = function.__kofn__
        takes = spec.entry().takes(given)
        if takes is None:
            raise InputError(misfit(spec.entry(), given, methods_of(verb)))
        return execute(spec, {**{word: given[word] for word in takes & given.keys()}, **options}, ids=ids)
    signature = inspect.signature(function)
    name = getattr(function, "__name__", type(function).__name__)
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
    spec = Spec(own_rule, verb, (), frozenset(), "", "", "", None, empty)
    return execute(spec, {**given, **options}, ids=ids, options=options)


def as_plan(verb: str, answer: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A plan from what a user's rule returned: the plan itself, or bare indices, labels, amounts or a blend."""
    import numpy as np

    from kofn import plans

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
        labels = np.asarray(answer)
        return plans.Assignment.from_labels(labels, int(arguments.get("k") or labels.max() + 1))
    if verb == "allocate":
        amounts = np.asarray(answer)
        return plans.Allocation(n=n, amounts=amounts, values=np.full(len(amounts), np.nan))
    return plans.Blend(n=n, result=answer, form="none")
