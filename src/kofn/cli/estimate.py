"""`--dry-run`: seconds, bytes and exactness, from timing the method itself on small samples of the pool."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import click
import numpy as np

from kofn.core import dispatch
from kofn.core.checks import InfeasibleError
from kofn.core.plans import Plan

# Rows that are timed: past the size where compiled kernels take over, so that the growth seen is the growth to come.
_SAMPLES = (3_000, 6_000)
# What the interpreter and the libraries hold by themselves.
_BASE_BYTES = 160 * 2**20
_ROWS = ("X", "scores", "curves", "costs", "weights", "groups")
_SQUARE = ("similarity", "distances")


def say_beforehand(verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any], as_json: bool) -> None:
    """Print what a run would take; nothing is written."""
    said = beforehand(verb, method, options, call)
    click.echo(json.dumps(said) if as_json else "\n".join(f"{name:8} {text}" for name, text in said.items()))


def beforehand(verb: str, method: str, options: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, str]:
    """Method, rows, seconds, bytes, exactness and cost of a call, without making it on the whole pool.

    The problem itself is checked on the way: a method that does not take these arguments is refused as in a real run.
    """
    call = {word: value for word, value in call.items() if word != "ids"}
    name = dispatch.choose(verb, call) if method == "auto" else method
    index = dispatch.methods_of(verb)
    if name not in index or index[name].takes(call) is None:
        # The real call says best what is wrong.
        dispatch.dispatch(verb, name, call, options)
    source = next(word for word in (*_ROWS, *_SQUARE) if word in call)
    n = len(call[source]) if isinstance(call[source], np.ndarray) else call[source].shape[0]
    held = sum(getattr(call[word], "nbytes", 0) for word in (*_ROWS, *_SQUARE) if word in call)
    return {
        "method": name,
        "rows": f"{n:,}" + (f" x {call[source].shape[1]}" if call[source].ndim == 2 else ""),
        "seconds": _seconds(verb, name, options, call, n),
        "bytes": f"about {(_BASE_BYTES + 2 * held + 300 * n) / 1e6:,.0f} MB",
        "exact": index[name].exact,
        "cost": index[name].cost,
    }


def _seconds(verb: str, name: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> str:
    sizes = [size for size in _SAMPLES if size < n] or [n]
    timed = []
    try:
        for size in (sizes[0], *sizes):
            began = time.perf_counter()
            _run_sample(verb, name, options, call, n, size)
            timed.append(time.perf_counter() - began)
    except InfeasibleError as error:
        return f"not known: a sample of the pool cannot meet the constraints ({error})"
    # The first run also compiles; it is not counted.
    low, high = timed[1], timed[-1]
    if len(sizes) == 1:
        return f"about {high * n / sizes[0]:.2g} (measured on {sizes[0]:,} rows)"
    slope = float(np.clip(np.log(high / low) / np.log(sizes[-1] / sizes[0]), 1.0, 2.5))
    return f"about {high * (n / sizes[-1]) ** slope:.2g} (measured on {sizes[-1]:,} rows, growing as n^{slope:.1f})"


def _run_sample(verb: str, name: str, options: Mapping[str, Any], call: Mapping[str, Any], n: int, size: int) -> Plan:
    rows = np.sort(np.random.default_rng(0).choice(n, size, replace=False))
    small = {word: value for word, value in call.items() if word not in ("include", "exclude", "start")}
    small["progress"] = False
    for word in _ROWS:
        if word in small:
            small[word] = small[word][rows]
    for word in _SQUARE:
        if word in small:
            small[word] = small[word][rows][:, rows]
    share = size / n
    if verb == "select" and "k" in small:
        small["k"] = min(small["k"], size)
    if "quotas" in small and share < 1:
        # Minima that the pool can meet may be more than a sample holds; they do not change the time.
        del small["quotas"], small["groups"]
    if "capacity" in small:
        small["capacity"] = (
            -(-size * small["capacity"] // n) if isinstance(small["capacity"], int) else small["capacity"]
        )
    if "overflow" in dispatch.methods_of(verb)[name].options and "overflow" not in options:
        # A sample's own overflow says nothing of the pool's.
        options = {**options, "overflow": "drop"}
    if verb == "allocate" and small.get("budget") is not None:
        small["budget"] = small["budget"] * share
    if "sizes" in options:
        options = {**options, "sizes": np.asarray(options["sizes"])[rows]}
    plan: Plan = dispatch.dispatch(verb, name, small, options)
    return plan
