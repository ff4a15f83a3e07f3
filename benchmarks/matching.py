"""Weight matching of two MLPs of fifty million weights: seconds, sweeps, memory, and what it found.

The networks are not trained. In one case the second is the first with its units in another order and noise on its
weights, so that the right orders are known; in the other both are drawn afresh, which is the hardest there is to match.
The authors' own loop, line by line in NumPy, runs on a smaller pair, where both answers are compared.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process

State = dict[str, NDArray[np.float32]]
NOISE = 0.5


def network(widths: list[int], seed: int) -> State:
    """Untrained, with torch's names."""
    rng = np.random.default_rng(seed)
    out: State = {}
    for place in range(len(widths) - 1):
        low, high = widths[place], widths[place + 1]
        out[f"{2 * place}.weight"] = rng.standard_normal((high, low), np.float32) * np.float32(low**-0.5)
        out[f"{2 * place}.bias"] = rng.standard_normal(high, np.float32) * np.float32(0.1)
    return out


def pair(kind: str, widths: list[int]) -> tuple[State, State, dict[str, NDArray[np.int64]]]:
    """Two networks, and the orders that bring the second back where they are known."""
    from kofn.combination import permute

    first, second = network(widths, 0), network(widths, 1)
    if kind == "independent":
        return first, second, {}
    rng = np.random.default_rng(2)
    turns = {str(2 * place): rng.permutation(width) for place, width in enumerate(widths[1:-1])}
    noisy = {name: array + np.float32(NOISE) * second[name] for name, array in first.items()}
    return first, permute(noisy, turns), {name: np.argsort(turn) for name, turn in turns.items()}


def as_published(first: State, second: State) -> tuple[dict[str, NDArray[np.int64]], int]:
    """The authors' loop: groups in a random order each sweep, every product computed anew."""
    from scipy.optimize import linear_sum_assignment

    layers = [name[:-7] for name in first if name.endswith(".weight")]
    orders = {layer: np.arange(len(first[f"{layer}.bias"])) for layer in layers[:-1]}
    rng, solved = np.random.default_rng(0), 0
    for _ in range(100):
        progress = False
        for place in rng.permutation(len(layers) - 1).tolist():
            here, after = layers[place], layers[place + 1]
            into, out = second[f"{here}.weight"], second[f"{after}.weight"]
            if place:
                into = into[:, orders[layers[place - 1]]]
            if after in orders:
                out = out[orders[after]]
            table = first[f"{here}.weight"] @ into.T + first[f"{after}.weight"].T @ out
            table += np.outer(first[f"{here}.bias"], second[f"{here}.bias"])
            columns = linear_sum_assignment(table, maximize=True)[1]
            solved += 1
            rows = np.arange(len(columns))
            progress |= bool(table[rows, columns].sum() > table[rows, orders[here]].sum() + 1e-12)
            orders[here] = columns
        if not progress:
            break
    return orders, solved


def work(who: str, kind: str, widths: list[int]) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    from kofn.combination import permute, weight_matching

    first, second, right = pair(kind, widths)
    weight_matching([network([3, 4, 2], 0), network([3, 4, 2], 1)])
    began, busy = time.perf_counter(), time.process_time()
    if who == "kofn":
        blend = weight_matching([first, second])
        orders = {name: np.asarray(rows[1]) for name, rows in (blend.transforms or {}).items()}
        solved = blend.info["assignments"]
    else:
        orders, solved = as_published(first, second)
    took, busy = time.perf_counter() - began, time.process_time() - busy
    moved = permute(second, orders)
    gap = sum(float(np.square(first[name] - moved[name], dtype=np.float64).sum()) for name in first)
    found = [float((orders[name] == right[name]).mean()) for name in right]
    return {
        "seconds": took,
        "cpu_seconds": busy,
        "assignments": solved,
        "distance": gap**0.5,
        "weights": sum(array.size for array in first.values()),
        "right": min(found) if found else float("nan"),
    }


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    del rounds  # one is long enough to time
    large, small = ([784, 512, 512, 512, 10], [784, 256, 256, 10])
    if not quick:
        large, small = ([784, *[3955] * 4, 10], [784, *[1024] * 3, 10])
    out = []
    for who, kind, widths in (
        ("kofn", "permuted and noisy", large),
        ("kofn", "independent", large),
        ("kofn", "independent", small),
        ("as published", "independent", small),
    ):
        one = in_fresh_process("benchmarks.matching", {"who": who, "kind": kind, "widths": widths})
        if "error" in one:
            raise SystemExit(f"matching failed: {one['error']}")
        out.append({"who": who, "kind": kind, "widths": widths, **one})
        right = f", {one['right']:.1%} of the units found" if right_known(kind) else ""
        print(
            f"{who}, {kind}, two of {one['weights'] / 1e6:.1f}M weights: {one['seconds']:.1f} s "
            f"({one['cpu_seconds']:.1f} of CPU), "
            f"{one['assignments']} assignments, distance {one['distance']:.2f}{right}, "
            f"peak {one['peak_bytes'] / 1e9:.2f} GB"
        )
    return {"rows": out, "seconds_of_the_largest": max(row["seconds"] for row in out)}


def right_known(kind: str) -> bool:
    """Whether the right orders are known."""
    return kind != "independent"
