"""Two-sample tests of censored times stacked into one, against each of them and against combined p-values.

Simulated: two arms of fifty, a quarter to a third of the times censored, under proportional, crossing, early and late
differences of hazards. Real: the times to a flight's departure by airline, cut off as a follow-up would.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn import datasets
from kofn.combination import blend_predictions, stacking

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
ARM, TRAINED, NULLS, TESTED, SIZE = 50, 600, 3000, 400, 0.05
HAZARDS = ("proportional", "crossing", "early", "late")
TESTS = ("log-rank", "Gehan", "Tarone-Ware", "Peto", "late", "difference early and late")
CLASSICAL = TESTS[:4]


@claim(
    paper=294,
    says="A stack of two-sample tests for censored times has more power on average than any of them, at its size",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Power over kinds of differences; broken: the tests weigh alike in the stack."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_run, broken=broken), derive(seed, runs))
    names = ("stack", "largest", "Fisher", "Cauchy", *CLASSICAL)
    power = {
        name: {kind: [row["power"][name][kind] for row in rows] for kind in (*HAZARDS, "departures")} for name in names
    }
    mean = {name: np.mean([kinds[kind] for kind in HAZARDS], axis=0) for name, kinds in power.items()}
    over = {name: difference(mean["stack"], mean[name]) for name in names if name != "stack"}
    crossing = {name: difference(power["stack"]["crossing"], power[name]["crossing"]) for name in ("Fisher", "Cauchy")}
    size = float(np.mean([row["size"] for row in rows]))
    criteria = {
        **{f"more power on average than {name}": gap.above(0) for name, gap in over.items()},
        **{f"crossing hazards: more power than {name}": gap.above(0) for name, gap in crossing.items()},
        "the size is kept to one point": abs(size - SIZE) <= 0.01,
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "power": {
                name: {kind: round(float(np.mean(values)), 3) for kind, values in kinds.items()}
                for name, kinds in power.items()
            },
            "stack less others, mean power": {name: gap.figures() for name, gap in over.items()},
            "stack less combined p-values, crossing": {name: gap.figures() for name, gap in crossing.items()},
            "size of the stack": round(size, 4),
        },
        expected="paired lower 95% limits of the stack's mean power over four kinds less each other's above 0, and on "
        "crossing hazards less combined p-values'; a size from 0.04 to 0.06",
        baseline="log-rank, Gehan, Tarone-Ware and Peto tests; the largest statistic of all, Fisher's and Cauchy's "
        "combinations of all p-values; critical values of all by the same simulated samples without a difference",
        kind="simulated",
    )


def _statistics(times: Floats, seen: Mask) -> Floats:
    """(samples, tests) weighted log-rank statistics, standardised; rows hold the first arm, then the second."""
    order = np.argsort(times, axis=1, kind="stable")
    seen = np.take_along_axis(seen, order, axis=1).astype(np.float64)
    first = (order < ARM).astype(np.float64)
    total = times.shape[1]
    at_risk = total - np.arange(total)
    of_first = ARM - np.cumsum(first, axis=1) + first
    share = of_first / at_risk
    kept = np.cumprod(1 - seen / at_risk, axis=1)
    before = np.hstack([np.ones((len(times), 1)), kept[:, :-1]])
    weights = {
        "log-rank": np.ones_like(seen),
        "Gehan": np.broadcast_to(at_risk / total, seen.shape),
        "Tarone-Ware": np.broadcast_to(np.sqrt(at_risk / total), seen.shape),
        "Peto": before,
        "late": 1 - before,
        "difference early and late": 2 * before - 1,
    }
    out = []
    for name in TESTS:
        own = weights[name]
        gone = (own * seen * (first - share)).sum(axis=1)
        out.append(gone / np.sqrt((own**2 * seen * share * (1 - share)).sum(axis=1)))
    return np.array(out).T


def _hazard(kind: str, rng: np.random.Generator, count: int) -> Floats:
    """(count, ARM) times of the second arm; those of the first are exponential of mean one."""
    e = rng.exponential(size=(count, ARM))
    if kind == "proportional":
        return e / 1.7
    if kind == "crossing":
        # Three times the hazard up to 0.4, a third of it after.
        return np.where(e < 1.2, e / 3, 0.4 + 3 * (e - 1.2))
    if kind == "early":
        return np.where(e < 0.9, e / 3, 0.3 + (e - 0.9))
    return np.where(e < 0.5, e, 0.5 + (e - 0.5) / 3)


def _samples(kind: str, rng: np.random.Generator, count: int) -> Floats:
    """Statistics of samples of both arms with a difference of this kind, whichever arm has it; "" for none."""
    first = rng.exponential(size=(count, ARM))
    second = _hazard(kind, rng, count) if kind else rng.exponential(size=(count, ARM))
    turned = rng.random(count) < 0.5
    times = np.hstack([np.where(turned[:, None], second, first), np.where(turned[:, None], first, second)])
    cut = rng.uniform(0.5, 3.5, times.shape)
    return _statistics(np.minimum(times, cut), times <= cut)


@functools.cache
def _departures() -> tuple[Floats, Floats]:
    """Minutes of delay of two airlines' flights, from a quarter of an hour early on."""
    frame = datasets.load("flights").frame
    assert frame is not None
    delay = np.asarray(frame["dep_delay"], np.float64) + 15
    carrier = np.asarray(frame["carrier"])
    known = np.isfinite(delay) & (delay > 0)
    return delay[known & (carrier == "US")], delay[known & (carrier == "DL")]


def _real(rng: np.random.Generator, count: int) -> Floats:
    both = [rng.choice(values, (count, ARM)) + rng.random((count, ARM)) for values in _departures()]
    times = np.hstack(both)
    cut = rng.uniform(5, 60, times.shape)
    return _statistics(np.minimum(times, cut), times <= cut)


def _members(statistics: Floats) -> list[Floats]:
    """What each test says of there being a difference: one less its two-sided p-value, as (samples,) chances."""
    from scipy.stats import norm

    return [np.clip(1 - 2 * norm.sf(np.abs(column)), 1e-9, 1 - 1e-9) for column in statistics.T]


def _scores(statistics: Floats, plan: Any, *, broken: bool) -> dict[str, Floats]:
    """What each way makes of the tests; the larger, the more of a difference."""
    from scipy.stats import norm

    p = np.clip(2 * norm.sf(np.abs(statistics)), 1e-300, 1.0)
    members = _members(statistics)
    return {
        "stack": np.mean(members, axis=0) if broken else np.asarray(blend_predictions(plan, members)).reshape(-1),
        "largest": np.abs(statistics).max(axis=1),
        "Fisher": -np.log(p).sum(axis=1),
        "Cauchy": np.tan(np.pi * (0.5 - np.minimum(p, 1 - 1e-12))).mean(axis=1),
        **{name: np.abs(statistics[:, number]) for number, name in enumerate(TESTS) if name in CLASSICAL},
    }


def _run(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    apart = np.vstack([_samples(kind, rng, TRAINED) for kind in HAZARDS])
    alike = _samples("", rng, len(apart))
    y = np.repeat([1, 0], len(apart))
    plan = stacking(_members(np.vstack([apart, alike])), y=y, loss="log_loss", final="logistic", seed=seed % 2**31)
    nulls = _scores(_samples("", rng, NULLS), plan, broken=broken)
    edges = {name: float(np.quantile(values, 1 - SIZE)) for name, values in nulls.items()}
    again = _scores(_samples("", rng, NULLS), plan, broken=broken)
    power: dict[str, dict[str, float]] = {name: {} for name in nulls}
    for kind in (*HAZARDS, "departures"):
        made = _real(rng, TESTED) if kind == "departures" else _samples(kind, rng, TESTED)
        for name, values in _scores(made, plan, broken=broken).items():
            power[name][kind] = float((values > edges[name]).mean())
    return {"power": power, "size": float((again["stack"] > edges["stack"]).mean())}
