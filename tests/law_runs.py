"""How laws are held: over drawn calls, on one call, and on one call that is large enough for compiled code."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import attack
import numpy as np
import time_budget
from hypothesis import HealthCheck, Phase, given, seed, settings
from threadpoolctl import threadpool_limits

from kofn.combination._sweep import blockwise
from kofn.core import dispatch
from kofn.core.registry import VERBS, Entry
from kofn.laws import LAWS, Case, laws_of
from kofn.laws.generators import LEANING, calls

ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]
PAIRS = [(entry, name) for entry in ENTRIES for name in laws_of(entry)]

PROFILE = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def entry_of(method: str) -> Entry:
    """The row of the index."""
    return next(entry for entry in ENTRIES if entry.name == method)


# Laws that call the method anew, about so many times for each of their calls.
_CALLS_ANEW, _FEWEST_ANEW = {"units": 5}, 4


def enough_of(entry: Entry, name: str) -> int:
    """On how many calls a law must find something to check."""
    known = (entry, name) in PAIRS
    calls_today = time_budget.law_calls(PAIRS.index((entry, name)), len(PAIRS)) if known else time_budget.MOST
    if entry.draws.slow and not time_budget.DEEP:
        calls_today = time_budget.FEWEST
    if name in _CALLS_ANEW and not time_budget.DEEP:
        calls_today = max(_FEWEST_ANEW, calls_today // _CALLS_ANEW[name])
    # What a method declares is looked at more closely than what holds of every plan.
    return 2 * calls_today if name in entry.traits else calls_today


def holds(
    entry: Entry,
    name: str,
    method: Callable[..., Any] | None = None,
    usable: Callable[[Any], bool] = lambda call: True,
) -> int:
    """Hold a law over drawn calls; returns on how many of them there was something to check.

    Batches of other seeds follow until that is enough, since some laws find nothing to check in most calls. Laws that
    do not lean the draw are held on the same calls, which are made once.
    """
    enough = enough_of(entry, name)
    law = name if name in LEANING else ""
    checked = 0
    for attempt in range(max(20, enough // 20)):
        number = time_budget.DEEP_SEED + attempt
        made = _batch(entry.name, entry.verb, law, number) if method is None else None
        try:
            if made is None:
                checked += _hold_drawn(entry, law, number, LAWS[name], method, usable)
            else:
                for case in made:
                    checked += _held(name, case)
                    if checked >= enough:
                        break
        except Exception:
            # Once more, this time for the smallest call that fails.
            _hold_drawn(entry, law, number, LAWS[name], method, usable)
            raise
        if checked >= enough or (attempt and not checked):
            break
    return checked


# Laws that look at every answer there is.
_BRUTE_FORCE = ("certified", "sandwich", "greedy", "duality", "concave")


def _held(name: str, case: Case) -> bool:
    if name not in _BRUTE_FORCE:
        return LAWS[name](case)
    with attack.counted("brute-forced calls"):
        return LAWS[name](case)


def _hold_drawn(
    entry: Entry,
    law: str,
    number: int,
    check: Callable[[Case], Any],
    method: Callable[..., Any] | None = None,
    usable: Callable[[Any], bool] = lambda call: True,
    most: int = PROFILE.max_examples,
) -> int:
    checked = 0

    @settings(PROFILE, max_examples=most)
    @seed(number)
    @given(call=calls(entry, law=law))
    def hold(call: Any) -> None:
        nonlocal checked
        if usable(call):
            checked += bool(check(Case.of(entry.verb, method or entry.name, call.given, call.options)))

    hold()
    return checked


@functools.lru_cache(maxsize=4)
def _batch(method: str, verb: str, law: str, number: int) -> list[Case]:
    """A batch of calls and their plans; tests of one method's laws follow each other and share it."""
    made: list[Case] = []
    entry = dispatch.methods_of(verb)[method]
    enough = enough_of(entry, law) if law else max(enough_of(entry, name) for name in laws_of(entry))
    _hold_drawn(entry, law, number, made.append, most=min(PROFILE.max_examples, enough + enough // 5))
    return made


def keeps_laws(method: str, given: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> None:
    """Hold every law of a method on one call, with compiled code where there is any."""
    load_compiled()
    entry = entry_of(method)
    for name in laws_of(entry):
        LAWS[name](Case.of(entry.verb, method, given, options))


# Laws that look at every set, at every part, or at the disk.
_SMALL_ONLY = ("greedy", "sandwich", "mergeable", "blend", "same-again", "saved")


def keeps_laws_at_size(method: str, given: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Case:
    """Hold the laws that can be on a pool on which the compiled code runs; any number of threads does the same."""
    load_compiled()
    entry = entry_of(method)
    case = Case.of(entry.verb, method, given, options)
    for name in laws_of(entry):
        if name not in _SMALL_ONLY:
            LAWS[name](case)
    if "n_threads" in entry.accepted:
        plans = []
        for threads in (1, 2, 4):
            # Those of linear algebra too.
            with threadpool_limits(threads):
                plans.append(case.again(n_threads=threads))
        assert all(plan.equals(case.plan) for plan in plans)
        counters = {tuple(plan.info[key] for key in ("oracle_calls", "distance_evals")) for plan in plans}
        assert len(counters) == 1
    return case


@functools.cache
def load_compiled() -> None:
    """Once loaded, compiled code is used on pools of any size."""
    families = {entry.path.partition(":")[0].rpartition(".")[0] for entry in ENTRIES if entry.draws.compiled}
    for path in sorted({*families, "kofn.objectives"}):
        package = importlib.import_module(path)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("kernels"):
                importlib.import_module(f"{path}.{module.name}")
    # Plans of the interpreted code are of no use to what asks for the compiled one.
    _batch.cache_clear()


def rounded(n: int, d: int) -> np.ndarray:
    """Rows with many equal distances."""
    return np.random.default_rng(0).normal(size=(n, d)).round(1).astype(np.float32)


def copies() -> np.ndarray:
    """A few far groups of identical rows: a loss of nothing beside the distances."""
    return np.repeat(1e3 * rounded(9, 3).astype(np.float64), 60, axis=0) + 1 / 3


@functools.cache
def wide() -> list[np.ndarray]:
    """Two members of a model that takes several tasks of `keeps_laws_in_tasks`."""
    return [rounded(1 << 18, 2), rounded(1 << 18, 2) * 3]


def keeps_laws_in_tasks(method: str, given: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Case:
    """`keeps_laws_at_size` of a blend whose threads begin with smaller members, and take smaller tasks."""
    with mock.patch.multiple(blockwise, _THREADED=0, _TASK=1 << 17):
        return keeps_laws_at_size(method, given, options)
