"""`compare`: several methods on one problem, judged under one objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from kofn.core import checks, dispatch, registry, vocabulary
from kofn.core.helpers import helper
from kofn.core.vocabulary import VOCABULARY
from kofn.engines.opening import opened
from kofn.verbs import LEAD, Method, run_verb

if TYPE_CHECKING:
    import polars


class _Run(NamedTuple):
    """One run: the method, how many are picked, and the seed."""

    method: Method
    k: int | None
    seed: int | None


@dataclass(frozen=True)
class _Problem:
    """What all runs share: the verb, the words of the call, and what answers of `select` are judged by."""

    verb: str
    words: Mapping[str, Any]
    objective: Any


@helper
def compare(
    verb: str,
    X: Any = None,
    *,
    k: int | Sequence[int] | None = None,
    methods: Sequence[Method],
    seeds: int | Sequence[int] = 1,
    objective: Any = None,
    engine: Any = None,
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
        engine: where the runs go, several at a time and each on one thread: "local", "ray", "ray://HOST:PORT", or an
            engine. By default they run here one after another, each on all threads. The answers are the same; only
            seconds differ.
        **arguments: words of the vocabulary.

    Returns:
        One row a run: method, k, seed, value, status, gap, seconds, oracle_calls.

    Raises:
        InputError: no methods, counts or seeds (`seeds=0` is none; the seed 0 is `seeds=[0]`), and what the methods
            refuse.

    Examples:
        >>> import kofn
        >>> rules = ["lazy_greedy", "farthest_first"]
        >>> frame = kofn.compare("select", [[0.0], [0.1], [5.0], [9.0]], k=[1, 2], methods=rules)
        >>> frame["value"].to_list()[0] >= frame["value"].to_list()[2]
        True
    """
    import polars

    if not isinstance(verb, str):
        raise checks.InputError(
            "compare's first argument is a verb: kofn.compare('select', X, ...); ways to pick rows to label are tried "
            "on labelled rows by the command `kofn compare FILE --judge COLUMN`"
        )
    lead = LEAD[checks.choice(verb, "verb", registry.VERBS)]
    problem = _Problem(verb, {lead: X, **arguments}, objective)
    counts = k if isinstance(k, Sequence) else [k]
    if not counts:
        raise checks.InputError("k=[] is empty; give one count or several, or leave it out")
    chosen = checks.option("methods", methods, "Sequence[Any]")
    if not len(chosen):
        raise checks.InputError(f"methods={methods!r} is empty; name one or several: kofn.methods({verb!r}) lists them")
    listed = _seeds(seeds)
    runs = [
        _Run(method, count, seed)
        for method in chosen
        for count in counts
        for seed in (listed if _is_seeded(verb, method) else [None])
    ]
    return polars.DataFrame(list(_rows(runs, problem, vocabulary.argument("engine", engine))))


def _rows(runs: Sequence[_Run], problem: _Problem, engine: Any) -> Iterator[dict[str, Any]]:
    if engine is None:
        yield from (_judged(run, problem) for run in runs)
        return
    with opened(engine, problem.words.get("n_threads")) as ran:
        yield from ran.map(_judged, runs, shared=(ran.share(problem),))


def _seeds(seeds: int | Sequence[int]) -> Sequence[int]:
    given: int | Sequence[int] = checks.option("seeds", seeds, "int | Sequence[int]")
    if isinstance(given, int):
        if given < 1:
            raise checks.InputError(f"seeds={given} counts seeds, of which there must be one; the seed 0 is seeds=[0]")
        return range(given)
    if not len(given):
        raise checks.InputError("seeds=[] is empty; give a count, or the seeds: seeds=[0]")
    return given


def _is_seeded(verb: str, method: Method) -> bool:
    entry = dispatch.methods_of(verb).get(method) if isinstance(method, str) else None
    return entry is None or "seed" in entry.accepted


def _judged(run: _Run, problem: _Problem) -> dict[str, Any]:
    """The row of one run."""
    verb, objective = problem.verb, problem.objective
    call = {**problem.words, "k": run.k, "seed": run.seed}
    entry = dispatch.methods_of(verb).get(run.method) if isinstance(run.method, str) else None
    if verb == "select" and entry is not None and "objective" in entry.accepted and objective is not None:
        call["objective"] = objective
    plan = run_verb(verb, run.method, None, call)
    return {
        "method": plan.method,
        "k": run.k,
        "seed": run.seed,
        "value": _value(plan, problem) if verb == "select" else plan.value,
        "status": plan.status,
        "gap": plan.gap,
        "seconds": plan.info["seconds"],
        "oracle_calls": plan.info["oracle_calls"],
    }


def _value(plan: Any, problem: _Problem) -> float:
    """What the picks are worth under the objective that all are judged by."""
    from kofn.objectives import base

    given = problem.words.items()
    words = {word: vocabulary.argument(word, v) for word, v in given if v is not None and word in VOCABULARY}
    judged_by = problem.objective or ("facility_location" if words.keys() & {"X", "similarity"} else "modular")
    kept = base.words_of(judged_by) if isinstance(judged_by, str) else set(words)
    judge = base.build(judged_by, {w: v for w, v in words.items() if w in kept}, known=tuple(base.OBJECTIVES))
    value: float = judge.value(plan.indices)
    return value
