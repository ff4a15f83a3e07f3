"""`--dry-run`: seconds, bytes and exactness, from timing the method itself on small samples of the pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.cli.printing import facts, say
from kofn.core import dispatch
from kofn.core.checks import InfeasibleError
from kofn.core.plans import Plan
from kofn.verbs import allocate, assign, select

# Rows that are timed: past the size where compiled kernels take over, so that the growth seen is the growth to come.
_SAMPLES = (3_000, 6_000)
# What the interpreter and the libraries hold by themselves.
_BASE_BYTES = 160 * 2**20
# Words with one row an item; `_SQUARE` have one column an item too.
_ROWS = ("X", "scores", "curves", "y", "costs", "weights", "groups")
_SQUARE = ("similarity", "distances")
_INPUTS = ("X", "scores", "curves", *_SQUARE, "rankings")


def say_beforehand(verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any], as_json: bool) -> None:
    """Print what a run would take; nothing is written."""
    estimate = beforehand(verb, method, options, call)
    say(estimate, lambda: facts(estimate), as_json)


def beforehand(verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, str]:
    """Method, rows, seconds, bytes, exactness and cost of a call, without making it on the whole pool.

    The problem itself is checked on the way: a method that does not take these arguments is refused as in a real run.
    """
    call = {word: value for word, value in call.items() if word != "ids"}
    entry = dispatch.methods_of(verb).get(method)
    if entry is not None and entry.takes(call) is None:
        # The real call says best what is wrong.
        dispatch.dispatch(verb, method, call, options)
    source = next(word for word in _INPUTS if word in call)
    n = call[source].shape[1 if source == "rankings" else 0]
    held = sum(getattr(call[word], "nbytes", 0) for word in {*_ROWS, *_INPUTS} if word in call)
    seconds, plan = _timed(verb, method, options, call, n)
    found = dispatch.methods_of(verb)[plan.method] if plan is not None else entry
    return {
        "method": method if found is None else found.name,
        "rows": f"{n:,}" + (f" x {call[source].shape[1]}" if call[source].ndim == 2 and source != "rankings" else ""),
        "seconds": seconds,
        "bytes": f"about {(_BASE_BYTES + 2 * held + 300 * n) / 1e6:,.0f} MB",
        **({} if found is None else {"exact": found.exact, "cost": found.cost}),
    }


def _timed(
    verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int
) -> tuple[str, Plan | None]:
    """How long the call will take, in words, and the plan of a sample."""
    sizes = [size for size in _SAMPLES if size < n] or [n]
    seconds = []
    try:
        for size in (sizes[0], *sizes):
            began = time.perf_counter()
            plan = _run_sample(verb, method, options, call, n, size)
            seconds.append(time.perf_counter() - began)
    except InfeasibleError as error:
        return f"not known: a sample of the pool cannot meet the constraints ({error})", None
    # The first run also compiles; it is not counted.
    low, high = seconds[1], seconds[-1]
    if len(sizes) == 1:
        return f"about {high * n / sizes[0]:.2g} (measured on {sizes[0]:,} rows)", plan
    slope = float(np.clip(np.log(high / low) / np.log(sizes[-1] / sizes[0]), 1.0, 2.5))
    expected = high * (n / sizes[-1]) ** slope
    return f"about {expected:.2g} (measured on {sizes[-1]:,} rows, growing as n^{slope:.1f})", plan


def _run_sample(verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int, size: int) -> Plan:
    """The plan of `size` rows drawn from the pool, under constraints that shrink with it."""
    rows = np.sort(np.random.default_rng(0).choice(n, size, replace=False))
    small = {word: value for word, value in call.items() if word not in ("include", "exclude", "start")}
    small["progress"] = False
    share = size / n
    if "quotas" in small and share < 1:
        # Minima that the pool can meet may be more than a sample holds; they do not change the time.
        del small["quotas"], small["groups"]
    for word in _ROWS:
        if word in small and not isinstance(small[word], Mapping):
            small[word] = small[word][rows]
    for word in _SQUARE:
        if word in small:
            small[word] = small[word][rows][:, rows]
    if "rankings" in small:
        small["rankings"] = small["rankings"][:, rows]
    if verb == "select" and "k" in small:
        small["k"] = min(small["k"], size)
    if "capacity" in small:
        shrunk = np.ceil(np.asarray(small["capacity"]) * share).astype(np.int64)
        small["capacity"] = shrunk if shrunk.ndim else int(shrunk)
    if verb == "allocate" and "budget" in small:
        small["budget"] = small["budget"] * share
    options = _of_sample(options, rows, share)
    entry = dispatch.methods_of(verb).get(method)
    if small.keys() >= {"scores", "capacity"} and verb == "assign" and (entry is None or "overflow" in entry.options):
        # A sample's own overflow tells nothing of the pool's.
        options.setdefault("overflow", "drop")
    verbs: dict[str, Callable[..., Any]] = {"select": select, "assign": assign, "allocate": allocate}
    plan: Plan = verbs[verb](method=method, options=options, **small)
    return plan


def _of_sample(options: Mapping[str, Any], rows: NDArray[np.int64], share: float) -> dict[str, Any]:
    """The method's options for a sample: sizes of its rows, pairs within it, and smaller minima."""
    small = dict(options)
    if "sizes" in small:
        small["sizes"] = np.asarray(small["sizes"])[rows]
    if "min_size" in small:
        small["min_size"] = min(small["min_size"], max(1, int(small["min_size"] * share)))
    for name in ("must_link", "cannot_link"):
        if name in small:
            pairs = small[name][np.isin(small[name], rows).all(axis=1)]
            small[name] = np.searchsorted(rows, pairs)
    return small
