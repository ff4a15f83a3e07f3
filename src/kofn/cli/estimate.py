"""`--dry-run`: seconds, bytes and exactness, from timing the method itself on small samples of the pool."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from kofn.cli.estimate_costs import OF_PAIRS, by_cost, by_pairs, picks_of
from kofn.cli.estimate_memory import refuse_memory
from kofn.cli.estimate_rounds import round_of_many, rounds_ahead
from kofn.cli.estimate_samples import (
    INPUTS,
    ROWS,
    SQUARE,
    checked_options,
    refuse_infeasible,
    refuse_misfit,
    refuse_unplaceable,
    times_fewer,
)
from kofn.cli.estimate_samples import run_sample as _run_sample
from kofn.cli.printing import facts, say
from kofn.core import dispatch
from kofn.core.checks import InfeasibleError, InputError, naming
from kofn.core.compiled import NotCompiledError, only_compiled
from kofn.core.plans import Plan
from kofn.core.vocabulary import LIMITS
from kofn.engines.speed import features_of, rows_sampled
from kofn.io.beginnings import ROWS as ROWS_READ
from kofn.io.beginnings import SMALL, About, beginning, rows_of_all
from kofn.io.many import files_of, open_tables
from kofn.io.opening import open_table
from kofn.io.tables import Table, located
from kofn.tables.arguments import RowArguments
from kofn.verbs import settled

# Rows that are timed, as many as time allows: in the end past the size where compiled kernels take over, so that the
# growth seen is the growth to come.
_SAMPLES = (300, 800, 2_500, 5_000)
# Seconds in which all samples should be timed.
_PATIENCE = 0.5
# A run that may also have loaded what is imported and compiled is repeated where it took no longer.
_LOADED = 1.5
# By how many times fewer rows it is told whether a longer first run did.
_FEWER = 3
# A run so short is repeated: it is timed too roughly.
_SHORT = 0.1
# What work is taken to grow as after the first sample, and how much larger than the last one a sample has to be.
_FIRST_GROWTH, _WORTH_IT = 1.5, 1.25
# The largest power of n that seconds are taken to grow as, and by how much it rises from samples to the next ones.
_STEEPEST, _STEEPER = 2.5, 0.5
# What the interpreter and the libraries hold by themselves.
_BASE_BYTES = 160 * 2**20
# What is said of what the seconds leave out, where it was not measured.
_ON_TOP = "; reading the file and making vectors come on top"
# What the first run takes beside, where compiled code is not on disk.
_COMPILING = "the first run compiles it, up to half a minute on top, once"
# The compiled loops over pairs of rows.
_LOOPS = {"select": "kofn.objectives._kernels", "assign": "kofn.assignment.medoids._kernels"}
# Texts among which near-duplicates are looked for, and the power of their number that seconds grow as: words are
# shared by more of them (measured on 20,000 and 200,000 texts of 12 words).
_TEXTS, _TEXTS_GROWTH = 1_500, 1.2


@contextmanager
def beginning_of(sources: Sequence[str], arguments: RowArguments) -> Iterator[tuple[Table, int | None]]:
    """The table to look at beforehand, and how many rows the whole has; None where that is the whole.

    Of a large file it is the beginning, so that looking takes no longer for a larger one; pairs of rows may name any.
    Of several files that are large together it is the beginning of the first.
    """
    linked = any(getattr(arguments, name, None) for name in ("must_link", "cannot_link"))
    files = files_of(sources)
    if linked or (len(files) > 1 and sum(path.stat().st_size for path in files if path.exists()) <= SMALL):
        table = open_tables(sources, arguments.reading)
        with located(table):
            yield table, None
        return
    # Near-duplicates among texts are looked for in full texts, which takes longer a row than all else.
    most = _TEXTS if arguments.text and getattr(arguments, "dedupe", None) is not None else ROWS_READ
    with beginning(files[0], square=arguments.metric == "precomputed", rows=most) as (path, rows):
        try:
            table = open_table(path, arguments.reading)
            yield table, rows if len(files) == 1 else rows_of_all(files, table.n if rows is None else rows)
        except InputError as error:
            raise type(error)(str(error).replace(str(path), str(files[0]))) from None


def say_beforehand(
    verb: str,
    method: str,
    options: Mapping[str, Any],
    call: Mapping[str, Any],
    as_json: bool,
    rows: int | None = None,
    bins: Sequence[str] = (),
    making: float | None = None,
) -> None:
    """Print what a run would take; nothing is written.

    Args:
        verb: the verb.
        method: its name, or "auto".
        options: the method's own options.
        call: the words of the verb.
        as_json: whether it is for machines.
        rows: of the whole, where `call` is of its beginning.
        bins: what the columns of scores are called.
        making: seconds of a row to be read and made into a vector, None where that is not known.
    """
    estimate = beforehand(verb, method, options, call, rows, bins)
    if making is not None:
        source = next(call[word] for word in INPUTS if word in call)
        seconds = making * max(source.shape[0], rows or 0)
        estimate["seconds"] = estimate["seconds"].replace(
            _ON_TOP, f"; about {seconds:.2g} of making vectors come on top"
        )
    say(estimate, lambda: facts(estimate), as_json)


def beforehand(
    verb: str,
    method: str,
    options: Mapping[str, Any],
    call: Mapping[str, Any],
    rows: int | None = None,
    bins: Sequence[str] = (),
) -> dict[str, str]:
    """Method, rows, seconds, bytes, exactness and cost of a call, without making it on the whole pool.

    The problem itself is checked on the way: a method that does not take these arguments is refused as in a real run.
    """
    ids = call.get("ids")
    call = {word: value for word, value in call.items() if word != "ids"}
    settled_method, call, options = settled(verb, method, options, call)
    method = str(settled_method)
    entry = refuse_misfit(verb, method, call, options)
    refuse_infeasible(verb, call if ids is None else {**call, "ids": ids}, rows)
    options = checked_options(entry, options)
    source = next(word for word in INPUTS if word in call)
    seen = call[source].shape[0]
    n = seen if rows is None else max(seen, rows)
    input_bytes = sum(_held(call[word], word, n / seen) for word in {*ROWS, *INPUTS} if word in call)
    if method == "auto":
        method = dispatch.choose(verb, _at_size(call, n), options)
        # A run drops the limits that the method it picks has no need of.
        needless = LIMITS - set(dispatch.methods_of(verb)[method].accepted)
        call = {word: value for word, value in call.items() if word not in needless}
    if (chosen := dispatch.methods_of(verb).get(method)) is not None:
        refuse_memory(chosen, options, call, n)
    if verb == "assign":
        with naming(items=ids, bins=bins or None):
            refuse_unplaceable(method, options, call, n)
    if method == "sampled_greedy" and "reference" not in options:
        options = {**options, "reference": rows_sampled(n, features_of(call["X"]), picks_of(call.get("k"), n))}
    # A look beforehand neither reads nor writes what a run keeps.
    options = {name: value for name, value in options.items() if name != "work"}
    seconds, plan = _timed(verb, method, options, call, n)
    chosen = dispatch.methods_of(verb).get(method if plan is None else plan.method)
    about = "about " if isinstance(rows, About) else ""
    return {
        "method": method if chosen is None else chosen.name,
        "rows": f"{about}{n:,}" + (f" x {call[source].shape[1]}" if len(call[source].shape) == 2 else ""),
        "seconds": f"{seconds}{_ON_TOP}",
        "bytes": f"about {(_BASE_BYTES + 2 * input_bytes + 300 * n) / 1e6:,.0f} MB",
        **({} if chosen is None else {"exact": chosen.exact, "cost": chosen.cost}),
    }


def seconds_again(run: Callable[[], object]) -> float:
    """Processor seconds of work that was done once already, so that nothing is loaded on the way."""
    began = time.process_time()
    run()
    return time.process_time() - began


def seconds_of_words(run: Callable[[], object], notes: Sequence[str], read: int) -> float | None:
    """Seconds of a row to be compared by its words, by doing it again for the rows that were read; None where rows are
    compared by something else: what an embedder made is kept, and another look at it takes no time.

    Args:
        run: reads the rows and makes their vectors.
        notes: what the pool says it is compared by.
        read: how many rows were read.
    """
    return seconds_again(run) / max(1, read) if any("TF-IDF" in note for note in notes) else None


def not_measured(missing: NotCompiledError | str) -> str:
    """What is said of seconds that only compiling would tell: nothing is compiled to look beforehand."""
    return f"not measured: {missing}; {_COMPILING}"


def duplicates_beforehand(seen: int, rows: int | None, seconds: float | None, *, pairs: bool) -> dict[str, str]:
    """What finding near-duplicates would take, by what it took on the rows that were seen.

    Args:
        seen: rows that were looked at.
        rows: of the whole; None where that is all of them.
        seconds: what these took; None where it needs code that is not compiled yet.
        pairs: whether pairs of rows are looked at, and not words that they share.
    """
    n = seen if rows is None else max(seen, rows)
    growth = (n / seen) ** (2.0 if pairs else _TEXTS_GROWTH)
    measured = "" if seconds is None else f"about {seconds * growth:.2g} (measured on {seen:,} rows)"
    return {
        "method": "near_duplicates",
        "rows": f"{'about ' if isinstance(rows, About) else ''}{n:,}",
        "seconds": measured or not_measured("its compiled code is not on disk yet; kofn warmup compiles all"),
        "exact": "every pair above the threshold is found, and each is verified",
    }


def rows_left(rows: int | None, kept: int, seen: int) -> int | None:
    """About how many of the whole's rows are no near-duplicates, if it is like those seen, of which `kept` are left."""
    return None if rows is None else About(round(rows * kept / max(seen, 1)))


def _held(value: Any, word: str, times: float) -> float:
    """Bytes of an argument of a pool that is so many times as large."""
    parts = (value.data, value.indices, value.indptr) if hasattr(value, "indptr") else (value,)
    return float(sum(getattr(part, "nbytes", 0) for part in parts)) * (times * times if word in SQUARE else times)


def _at_size(call: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The call with as many rows of vectors as the whole has, which take no memory."""
    X = call.get("X")
    if isinstance(X, np.ndarray):
        return {**call, "X": np.broadcast_to(X[:1], (n, X.shape[1]))}
    if X is not None and hasattr(X, "nnz") and X.shape[0] < n:
        # Rows without an entry.
        starts = np.concatenate([X.indptr, np.full(n - X.shape[0], X.indptr[-1])])
        return {**call, "X": type(X)((X.data, X.indices, starts), shape=(n, X.shape[1]))}
    return dict(call)


def _timed(
    verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int
) -> tuple[str, Plan | None]:
    """How long the call will take, in words, and the plan of a sample."""
    seen = next(call[word].shape[0] for word in INPUTS if word in call)
    seconds: dict[int, float] = {}
    rounds: dict[int, int] = {}
    if verb == "select" and picks_of(call.get("k", 0), n) > n:
        return f"not known: k={call['k']} is above the rows, of which there are about {n:,}", None
    if method == "uncertainty_herding" and n > _SAMPLES[1] and "X" in call and "model" not in options:
        return _of_rounds_of_labels(options, call, n, seen), None
    size: int | None = min(seen, _SAMPLES[0])
    # What else the machine does is no reason to look at fewer rows.
    began = time.process_time()
    try:
        while size is not None:
            last = size
            for turn in range(2):
                start, worked = time.perf_counter(), -time.process_time()
                plan = _run_sample(verb, method, options, call, n, seen, size)
                worked += time.process_time()
                if n > size and (cost := by_cost(plan.method, options, call, n)):
                    return cost + compiling_of(verb), plan
                if n > _SAMPLES[1] and _looks_at_pairs(plan, call):
                    pairs = by_pairs(_searches(verb, method, options, call, n, seen), options, call, n)
                    return pairs + compiling_of(verb), plan
                # The clock runs on while other programs have the processor; threads work at the same time.
                took = min(worked, time.perf_counter() - start) * times_fewer(verb, call, size)
                seconds[size] = min(seconds.get(size, math.inf), took)
                rounds[size] = plan.info.get("rounds", 0)
                loads = turn == 0 and _loads(seconds)
                if loads and worked > _LOADED:
                    # Too long to be repeated in vain: fewer rows tell whether the rows took it.
                    few = size // _FEWER
                    fewer = _seconds_of(partial(_run_sample, verb, method, options, call, n, seen, few))
                    loads = fewer * _FEWER**_STEEPEST < took
                if loads:
                    # What was loaded is no time of the rows, nor of the patience with them.
                    began = time.process_time()
                elif worked > _SHORT:
                    break
            size = _next_size(seconds, worked, _PATIENCE - (time.process_time() - began), seen)
    except InfeasibleError as error:
        if size == n:
            raise  # the sample is the pool
        return f"not known: a sample of the pool cannot meet the constraints ({error})", None
    except NotCompiledError as missing:
        known = by_cost(method, options, call, n)
        return (not_measured(missing) if known is None else f"{known}; {_COMPILING}"), None
    measured = f"measured on {last:,} rows"
    if n == last:
        return f"about {seconds[last]:.2g} ({measured})", plan
    if (most := _most_rounds(plan.method, options, verb)) and all(rounds.values()):
        many = _many(verb, plan, options, call, n, seconds[last] / rounds[last] / last)
        return _by_rounds(seconds, rounds, most, n, many), plan
    slope = growth(seconds)
    grows = "growing as" if len(seconds) > 1 else "if it grows as"
    return f"about {seconds[last] * (n / last) ** slope:.2g} ({measured}, {grows} n^{slope:.1f})", plan


def compiling_of(verb: str) -> str:
    """What is said where the loops over pairs are not on disk, which samples are too small to need."""
    try:
        with only_compiled():
            import_module(_LOOPS[verb])
    except NotCompiledError:
        return f"; {_COMPILING}"
    return ""


def _of_rounds_of_labels(options: Mapping[str, Any], call: Mapping[str, Any], n: int, seen: int) -> str:
    """Seconds of the next round of labels: of its search, which takes nearly all of them; no classifier is loaded."""
    search = {word: value for word, value in call.items() if word != "y"} | {"metric": "rbf"}
    try:
        seconds = by_pairs(_searches("select", "lazy_greedy", {}, search, n, seen), options, call, n)
    except InfeasibleError as error:
        return f"not known: a sample of the pool cannot meet the constraints ({error})"
    except NotCompiledError as missing:
        return not_measured(missing)
    return f"{seconds}; fitting the classifier to the labelled rows comes on top"


def _seconds_of(run: Callable[[], Plan]) -> float:
    """Seconds of processor time of a run; infinite where so few rows cannot meet the constraints."""
    start = time.process_time()
    try:
        run()
    except InputError:
        return math.inf
    return time.process_time() - start


def _next_size(seconds: Mapping[int, float], worked: float, left: float, seen: int) -> int | None:
    """The rows to time next: the next of the usual sizes, or as many as the time left allows; None where too few."""
    last = max(seconds)
    usual = next((size for size in _SAMPLES if last < size <= seen), None)
    if usual is None or left <= 0:
        return None
    slope = growth(seconds) if len(seconds) > 1 else _FIRST_GROWTH
    within = int(last * (left / max(worked, 1e-6)) ** (1 / slope))
    return usual if usual <= within else within if within >= _WORTH_IT * last else None


def _looks_at_pairs(plan: Plan, call: Mapping[str, Any]) -> bool:
    """Whether most of the time goes into looks at pairs of rows, which are counted and not timed."""
    return plan.method in OF_PAIRS and plan.objective == "facility_location" and "X" in call


def _searches(
    verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int, seen: int
) -> list[Plan]:
    """Searches of as many rows as time allows: with a share of the picks, which looks at too few pairs again, and with
    all of them, on a sample at too many.
    """
    size, most = min(seen, _SAMPLES[1]), min(seen, _SAMPLES[-1])
    plans: list[Plan] = []
    while True:
        began = time.process_time()
        try:
            plans = [_run_sample(verb, method, options, call, n, seen, size)]
            if "k" in call:
                plans.append(_run_sample(verb, method, options, call, n, seen, size, every_pick=True))
        except NotCompiledError:
            if not plans:
                raise
            return plans  # samples that need no compiled code tell as much
        worked = time.process_time() - began
        larger = min(most, int(size * math.sqrt(_PATIENCE / max(worked, 1e-6))))
        if size > _SAMPLES[1] or larger < _WORTH_IT * size:
            return plans
        size = larger


def _most_rounds(method: str, options: Mapping[str, Any], verb: str) -> int | None:
    """How many rounds a method makes at the most, of those that go on until nothing changes; None of others."""
    entry = dispatch.methods_of(verb).get(method)
    most = str(options.get("max_iter", entry.options.get("max_iter", "") if entry is not None else ""))
    return int(most) if most.isdecimal() else None


def _by_rounds(
    seconds: Mapping[int, float], rounds: Mapping[int, int], most: int, n: int, many: tuple[int, float, float] | None
) -> str:
    """Seconds on n rows in words, by how many rounds it will take and what one takes.

    How many it takes until nothing changes depends on whether the rows fall into groups, which samples tell roughly.
    `many`: rows on which rounds were timed, seconds of one and seconds before the first; None where none were.
    """
    last = max(rounds)
    a_round = {size: took / rounds[size] for size, took in seconds.items()}
    size, each, before = (last, a_round[last], 0.0) if many is None else many
    slope = growth(a_round) if len(a_round) > 1 else 1.0
    if many is not None:
        slope = growth({last: a_round[last], size: each})
    ahead = rounds_ahead(rounds, most, n)
    low, about, high = (before * n / size + count * each * (n / size) ** slope for count in ahead)
    of_rounds = f"a round measured on {size:,} rows: {rounds[last]} rounds on {last:,}, {most} at the most"
    between = f", between {low:.2g} and {high:.2g}" if high > 1.2 * low else ""
    return f"about {about:.2g}{between} ({of_rounds})"


def _many(
    verb: str, plan: Plan, options: Mapping[str, Any], call: Mapping[str, Any], n: int, a_row: float
) -> tuple[int, float, float] | None:
    """Rounds timed on more rows than were seen, where rows are all that the call is about."""
    X = call.get("X")
    others = {*ROWS, *SQUARE, "start", "distances"} - {"X"}
    if not isinstance(X, np.ndarray) or call.keys() & others or options.keys() & {"must_link", "cannot_link", "sizes"}:
        return None

    def run(rows: Mapping[str, Any], rounds: int) -> Plan:
        size = len(rows["X"])
        return _run_sample(verb, plan.method, {**options, "max_iter": rounds}, {**call, **rows}, n, size, size)

    return round_of_many(run, X, n, a_row)


def _loads(seconds: Mapping[int, float]) -> bool:
    """Whether the first run on the last sample may have loaded code: on the first of all, or after a steeper rise than
    that of any method.
    """
    sizes, times = list(seconds), list(seconds.values())
    return len(sizes) == 1 or times[-1] > times[-2] * (sizes[-1] / sizes[-2]) ** _STEEPEST


def growth(seconds: Mapping[int, float]) -> float:
    """The power of n that seconds grow as, by those of samples of rising size; 2 where there is one sample.

    It is that of the two largest samples, but little above that of the two before: where a method changes its way from
    some size on, the step is no growth to come.
    """
    sizes, times = np.log(list(seconds)), np.log([max(took, 1e-6) for took in seconds.values()])
    slopes = np.clip(np.diff(times) / np.diff(sizes), 1.0, _STEEPEST)
    if not len(slopes):
        return 2.0
    return float(slopes[-1] if len(slopes) == 1 else min(slopes[-1], slopes[-2] + _STEEPER))
