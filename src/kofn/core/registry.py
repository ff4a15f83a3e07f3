"""How a plain function becomes a method: checked arguments in, a complete plan out, found by name.

A method is a function whose arguments are words of the shared vocabulary plus its own options. `@method` checks every
argument once, runs the function, completes the plan (method, options, seed, digest, seconds, version) and audits it.
The direct call and the verb take the same path.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec, TypeVar

from kofn.core.bibliography import cite, keys_of
from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import InputError, explained
from kofn.core.draws import Draw
from kofn.core.pools import is_pool
from kofn.core.runtime import limited_since
from kofn.core.signatures import annotation_text, bind, described, documented, expand
from kofn.core.vocabulary import SETTINGS, VOCABULARY
from kofn.engines.threads import limited

P = ParamSpec("P")
R = TypeVar("R")
Paper = int | str | tuple[int | str, ...]
RefuseAhead = Callable[[CallAhead], None]
FORMS = ("function", "merge_rule", "stepper", "module", "objective", "helper")

VERBS = ("select", "assign", "allocate", "combine")
HOMES = {"select": "selection", "assign": "assignment", "allocate": "allocation", "combine": "combination"}
# Packages of loops that use plans, whose functions and steppers may belong to any verb.
LOOPS = ("federated", "online", "optim", "neighbors")
# Duplicate rows are counted and reported up to this size of X; finding them takes a copy.
_COUNTED_BYTES = 2**28
# Stands for the default of an option that has none.
REQUIRED = "required"
# What can be computed from what, where a method takes only the derived form.
DERIVE = {"distances": ("X", "metric")}


@dataclass(frozen=True)
class Entry:
    """One method as text: what it takes and what it promises. Reading the index imports no method.

    `form` is one of `FORMS`; only functions and merge rules can be called through a verb. `types` and `docs` give the
    annotation and the sentence of each own option, `papers` the keys of `paper` in the bibliography. `python_only`: no
    command takes what it needs.
    """

    name: str
    verb: str
    path: str
    summary: str
    form: str = "function"
    required: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    accepted: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    docs: Mapping[str, str] = field(default_factory=dict)
    traits: tuple[str, ...] = ()
    cost: str = ""
    exact: str = ""
    paper: str = ""
    papers: tuple[str, ...] = ()
    extra: str | None = None
    aliases: tuple[str, ...] = ()
    python_only: bool = False

    @property
    def python_call(self) -> str:
        """How it is called from Python: `kofn.select(scores=..., k=..., method='top_k')`."""
        options = [name for name, default in self.options.items() if default == REQUIRED]
        words = [*(any_of[0] for any_of in self.needs), *self.required, *options]
        return f"kofn.{self.verb}({', '.join(f'{word}=...' for word in words)}, method={self.name!r})"

    @property
    def callable_by_verb(self) -> bool:
        """True where `method=` may name it."""
        return self.form in ("function", "merge_rule")

    @property
    def family(self) -> str:
        """Its folder: `selection/greedy`."""
        return "/".join(self.path.split(":")[0].split(".")[1:-1])

    @property
    def file(self) -> str:
        """Its file, below `src/kofn`."""
        return self.path.split(":")[0].removeprefix("kofn.").replace(".", "/") + ".py"

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

    def fits(self, given: Mapping[str, Any] | set[str] | frozenset[str], options: Iterable[str] = ()) -> bool:
        """Whether this method accepts the call: all of its arguments and options, and whatever else it needs."""
        return self.takes(given) is not None and self.needed_options <= set(options) <= self.options.keys()

    @property
    def needed_options(self) -> set[str]:
        """The options that have no default."""
        return {name for name, default in self.options.items() if default == REQUIRED}

    @property
    def inputs(self) -> str:
        """The required arguments in words: `X or distances, k`."""
        return ", ".join([" or ".join(any_of) for any_of in self.needs] + list(self.required))

    def load(self) -> Callable[..., Any]:
        """Import the function itself."""
        module, function = self.path.split(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return loaded

    @property
    def draws(self) -> Draw:
        """What the method declares of its draws; imports the method."""
        draws: Draw = self.load().__kofn__.draws  # type: ignore[attr-defined]
        return draws

    @property
    def refuse_ahead(self) -> RefuseAhead | None:
        """What the method declares to refuse before its rows are read; imports the method."""
        refuse: RefuseAhead | None = self.load().__kofn__.refuse_ahead  # type: ignore[attr-defined]
        return refuse


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What `@method` knows of a function; `entry()` turns it into a row of the index."""

    function: Callable[..., Any]
    verb: str
    signature: inspect.Signature
    needs: tuple[tuple[str, ...], ...] = ()
    traits: frozenset[str] = frozenset()
    cost: str = ""
    exact: str = ""
    paper: Paper = ""
    local: str = ""
    extra: str | None = None
    secret: tuple[str, ...] = ()
    at_most_k: bool = False
    sparse: bool | Literal["any metric"] = False
    pooled: bool = False
    draws: Draw = field(default_factory=Draw)
    begun: Callable[[Mapping[str, Any]], int | None] | None = None
    refuse_ahead: RefuseAhead | None = None
    aliases: tuple[str, ...] = ()
    python_only: bool = False
    form: str = "function"
    docs: Mapping[str, str] = field(default_factory=dict)
    doc: str = ""

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
            summary=self.doc.split("\n", 1)[0],
            form=self.form,
            required=tuple(p.name for p in words if p.default is p.empty),
            needs=self.needs,
            accepted=tuple(p.name for p in words),
            options={
                p.name: REQUIRED if p.default is p.empty else repr(p.default)
                for p in parameters
                if p.name not in VOCABULARY
            },
            types={p.name: annotation_text(p) for p in parameters if p.name not in VOCABULARY},
            docs={p.name: self.docs[p.name] for p in parameters if p.name in self.docs and p.name not in VOCABULARY},
            traits=tuple(sorted(self.traits)),
            cost=self.cost,
            exact=self.exact,
            paper="; ".join(cite(key) for key in keys_of(self.paper)),
            papers=tuple(map(str, keys_of(self.paper))),
            extra=self.extra,
            aliases=self.aliases,
            # No file holds a function.
            python_only=self.python_only or any(p.name == "score" and p.default is p.empty for p in words),
        )


def method(
    verb: str,
    *,
    needs: tuple[tuple[str, ...], ...] = (),
    traits: tuple[str, ...] = (),
    cost: str,
    exact: str,
    paper: Paper,
    local: str = "",
    extra: str | None = None,
    secret: tuple[str, ...] = (),
    at_most_k: bool = False,
    sparse: bool | Literal["any metric"] = False,
    pooled: bool = False,
    draws: Draw | None = None,
    begun: Callable[[Mapping[str, Any]], int | None] | None = None,
    refuse_ahead: RefuseAhead | None = None,
    aliases: tuple[str, ...] = (),
    python_only: bool = False,
    form: str = "function",
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as a method of `verb`.

    Args:
        verb: "select", "assign", "allocate" or "combine".
        needs: groups of alternatives of which one each must be given, such as `(("X", "distances"),)`.
        traits: the laws that every plan of this method keeps, by name (`kofn.laws`).
        cost: time and memory, in n, d, k.
        exact: what is exact and what is guaranteed, in half a line.
        paper: the reference: its key in `papers.toml`, several keys, or a text.
        local: what status "local" means of this method, in half a line; plans have it as `info["local"]`, for reports.
        extra: the optional dependency group it needs.
        secret: options (or "seed") to redact from the plan, because its reader must not learn them.
        at_most_k: the method may pick fewer than `k`; the audit refuses that of all others.
        sparse: it takes SciPy-sparse rows where they are compared by their cosines, or by "any metric".
        pooled: it takes a `Pool` (`kofn.core.pools`) as `X`, which it never holds as a whole; others get its rows.
        draws: what the laws and the hostile-input tests need to know to draw a call of this method.
        begun: the seed of the run that these arguments go on with, None where they begin one; asked where no seed is
            given.
        refuse_ahead: raises what the method would raise of a `max_memory` once all rows are read, from a `CallAhead`
            before they are; a method with an `objective` is asked for its objective's (`Objective.refuse_ahead`).
        aliases: other names that people look for, read by `kofn find`.
        python_only: True where no command takes what it needs, and all that can be had is a call from Python.
        form: "function", or "merge_rule" where a rule's class made the function.

    A bundle of shared words, `**where: Unpack[Where]` (`kofn.core.words`), is expanded into the signature: the
    function receives every word of it, None where it was not given. Shared words that the docstring does not describe
    are described by the vocabulary's sentence.
    """

    def register(function: Callable[P, R]) -> Callable[P, R]:
        signature, sentences = expand(function)
        own = inspect.getdoc(function) or ""
        spec = Spec(
            function=function,
            verb=verb,
            signature=signature,
            needs=needs,
            traits=frozenset(traits),
            cost=cost,
            exact=exact,
            paper=paper,
            local=local,
            extra=extra,
            secret=secret,
            at_most_k=at_most_k,
            sparse=sparse,
            pooled=pooled,
            draws=draws or Draw(),
            begun=begun,
            refuse_ahead=refuse_ahead,
            aliases=aliases,
            python_only=python_only,
            form=form,
            docs={**sentences, **described(own)},
            doc=own,
        )

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = bind(spec.name, spec.signature, args, kwargs)
            bound.apply_defaults()
            result: R = execute(spec, bound.arguments)
            return result

        run.__kofn__ = spec  # type: ignore[attr-defined]
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__doc__ = documented(own, signature, spec.docs)
        return run

    return register


def execute(
    spec: Spec, arguments: Mapping[str, Any], *, ids: Any = None, options: Mapping[str, Any] | None = None
) -> Any:
    """Check, run, complete and audit: the one path that every method takes."""
    from kofn.core import checks, problems

    began, clock = time.perf_counter(), time.monotonic()
    parameters = spec.signature.parameters
    values = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
    values.update(arguments)
    if spec.verb == "assign":
        bins = _columns_of(values.get("scores"))
        values |= {name: checks.by_bin(values[name], name, bins) for name in checks.BY_BIN & values.keys()}
    given = {name: value for name, value in values.items() if name in VOCABULARY and value is not None}
    if "unlabelled" in parameters and "y" in given:
        given["y"], values["unlabelled"] = checks.partly_labelled(given["y"], values["unlabelled"])
    if "seed" in parameters:
        seed = values.get("seed")
        if seed is None and spec.begun is not None:
            seed = spec.begun(values)
        given["seed"] = checks.entropy(seed, secret="seed" in spec.secret)
    for any_of in spec.needs:
        if not given.keys() & set(any_of):
            raise InputError(f"{spec.name} needs {' or '.join(any_of)}")
    for name in parameters:
        if name not in values:
            flag = f"--{name.replace('_', '-')}"
            hint = f", an option of its own: {name}=..., on the command line {flag} VALUE or {flag} @FILE.npy"
            raise InputError(f"{spec.name} needs {name}{'' if name in VOCABULARY else hint}")
    if isinstance(given.get("metric"), str) and given["metric"] == "rbf" and "objective" not in parameters:
        raise InputError(
            f"metric='rbf': {spec.name} compares rows by distances (euclidean, sqeuclidean, cosine); rbf is the "
            "similarity of objective='facility_location', as in method='lazy_greedy'"
        )
    if "curves" in given:
        with checks.reading("curves", given["curves"]):
            if "levels" in parameters:
                given["curves"] = checks.at_levels(given["curves"], values.get("levels"))
            given["curves"] = checks.without_empty_levels(given["curves"], values.get("sense"))
    problem = problems.build(
        spec.verb,
        given,
        ids,
        at_most_k=spec.at_most_k,
        secret=spec.secret,
        sparse=spec.sparse,
        pooled=spec.pooled,
        cosine="metric" not in spec.signature.parameters,
    )
    own = {name: value for name, value in values.items() if name not in VOCABULARY}
    pairs = problems.pairs_by_row(own, problem.ids)
    pairs |= problems.columns_by_number(own, problem.judges)
    own, options = own | pairs, {**(options or {}), **pairs}
    read = {
        name: checks.option(name, value, annotation_text(parameters[name]))
        for name, value in own.items()
        if name in parameters and value is not parameters[name].default
    }
    known = {**values, **read, **problem.given}
    named = checks.naming(items=problem.ids, bins=_columns_of(given.get("scores")))
    timed = limited_since(clock, problem.given.get("time_limit"))
    with limited(problem.given.get("n_threads")), explained(spec.name, known), named, timed:
        plan = spec.function(**known)
    plan = _complete(plan, problem, spec, {**own, **options}, began, given.get("X"))
    plan.verify(problem)
    return plan.of_the_kind_of(problem.given["members"]) if "members" in problem.given else plan


def _columns_of(frame: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns; None of what has none."""
    names = getattr(frame, "columns", None)
    return None if names is None or callable(names) else tuple(map(str, names))


def _complete(plan: Any, problem: Any, spec: Spec, options: Mapping[str, Any], began: float, as_given: Any) -> Any:
    import numpy as np

    from kofn._version import __version__
    from kofn.core import checks
    from kofn.core.checks.exact import exact_rows

    given = problem.given
    asked = {name: given[name] for name in ("objective", "metric") if isinstance(given.get(name), str)}
    X = given.get("X")
    counted = {}
    if X is not None and not checks.is_sparse(X) and not is_pool(X) and X.nbytes <= _COUNTED_BYTES:
        same = checks.first_equal(exact_rows(as_given, X))
        counted["duplicate_rows"] = int((same != np.arange(len(X))).sum())
        if spec.verb == "select" and counted["duplicate_rows"]:
            picked = same[np.asarray(plan.indices, np.int64)]
            counted["duplicate_picks"] = len(picked) - len(np.unique(picked))
    asked_of: dict[str, Any] = {}
    if given.keys() >= {"groups", "quotas"}:
        from kofn.core.quotas import ends_of

        asked_of["quotas"] = ends_of(given["groups"], given["quotas"])
    if problem.judges:
        asked_of["judges"] = list(problem.judges)
    info = {
        **counted,
        **asked_of,
        "oracle_calls": 0,
        "distance_evals": 0,
        "exact": plan.status == "optimal",
        **plan.info,
        **({"local": spec.local} if spec.local and plan.status == "local" else {}),
        "seconds": time.perf_counter() - began,
        "peak_bytes": _peak_bytes(),
        "version": __version__,
    }
    return dataclasses.replace(
        plan,
        method=spec.name,
        options={
            **asked,
            **{name: "withheld" if name in spec.secret else _plain(value) for name, value in options.items()},
        },
        seed=str(given["seed"]) if "seed" in given and "seed" not in spec.secret else None,
        ids=problem.ids,
        info=info,
        problem=problem.digest,
        traits=spec.traits,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple) and any(map(_is_object, value)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__
    return getattr(value, "__qualname__", repr(value)) if callable(value) else value


def _is_object(value: Any) -> bool:
    """Whether a file can hold no more of a value than its name."""
    return callable(value) or dataclasses.is_dataclass(value)


def _peak_bytes() -> int:
    """The process's peak resident size so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
