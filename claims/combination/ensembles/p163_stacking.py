"""Stackers whose weights may vary over the horizon and the quantile, as freely as cross-validation says.

Simulated: five forecasters of two steps and three quantiles, whose errors differ by step and quantile to a planted
degree. Real: the mean departure delay of each airline and day, one to seven days ahead, by six simple forecasters.
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
from kofn.combination import blend_predictions, ensemble_selection, stacking

Floats = NDArray[np.float64]
DEGREES, SIZES = (0.0, 1.0), (200, 2000)
LEVELS, STEPS, MODELS, TEST = np.array([0.1, 0.5, 0.9]), 2, 5, 4000
NORMAL = np.array([-1.2816, 0.0, 1.2816])
WAYS: tuple[tuple[Any, float], ...] = (
    *(("simplex", penalty) for penalty in (1.0, 0.1, 0.01, 0.0)),
    *(("varying", penalty) for penalty in (10.0, 1.0, 0.1, 0.01)),
)
DAYS, AHEAD = 365, 7


@claim(
    paper=163,
    says="The stacker that cross-validation chooses loses little more than the best of the family in hindsight, ever "
    "less with more rows; it is the freer the more skill varies; it forecasts better than the best model and the mean",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Simulated and real forecasts; broken: nothing is chosen by cross-validation, weights are shared."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_simulated, broken=broken), derive(seed, runs))
    real = spread(functools.partial(_delays, broken=broken), derive(seed, runs, stream=1))
    excess = {
        f"{degree}, {n} rows": np.array([row[degree, n]["chosen"] / row[degree, n]["oracle"] - 1 for row in rows])
        for degree in DEGREES
        for n in SIZES
    }
    free = {degree: float(np.mean([row[degree, SIZES[-1]]["varies"] for row in rows])) for degree in DEGREES}
    most = max(float(excess[f"{degree}, {SIZES[-1]} rows"].max()) for degree in DEGREES)
    few, many = (np.mean([excess[f"{degree}, {n} rows"] for degree in DEGREES], axis=0) for n in SIZES)
    wins = np.mean(
        [
            row[degree, n]["chosen"] <= min(row[degree, n]["single"], row[degree, n]["mean"])
            for row in rows
            for degree in DEGREES
            for n in SIZES
        ]
    )
    gaps = {
        side: difference([row[side] for row in real], [row["chosen"] for row in real])
        for side in ("single", "mean", "greedy", "shared")
    }
    criteria = {
        "never more than 5% above the best of the family at 2,000 rows": most <= 0.05,
        "less excess with more rows": difference(few, many).above(0),
        "weights vary more often where skill does": free[DEGREES[-1]] > free[DEGREES[0]],
        "no more loss than the best model and the mean in 9 of 10 simulated cases": bool(wins >= 0.9),
        "delays: less loss than the best model": gaps["single"].above(0),
        "delays: less loss than the mean": gaps["mean"].above(0),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "mean excess over the best of the family": {
                name: round(float(gap.mean()), 5) for name, gap in excess.items()
            },
            "largest excess at 2,000 rows": round(most, 5),
            "share of runs whose weights vary": free,
            "share of simulated cases at or below best model and mean": round(float(wins), 3),
            "delays, minutes of absolute error less": {side: gap.figures() for side, gap in gaps.items()},
            "delays, absolute error": {
                side: round(float(np.mean([row[side] for row in real])), 4)
                for side in ("chosen", "single", "mean", "greedy", "shared")
            },
            "delays, share of runs whose weights vary": float(np.mean([row["varies"] for row in real])),
        },
        expected="at 2,000 rows no run is 5% above the best of the family; the mean excess is smaller there than at "
        "200 rows (lower 95% limit above 0); weights vary more often at the largest degree than at none; paired lower "
        "95% limits of the real losses of the best model and of the mean, less the chosen one's, above 0",
        baseline="the best model by the same rows, the plain mean; shared weights of the best penalty and greedy "
        "ensemble selection are told; the family's best by the test rows",
        kind="measured",
    )


def _pinball(blend: Floats, y: Floats, levels: Floats) -> float:
    off = y[:, None] - blend
    return float(np.maximum(levels * off, (levels - 1) * off).mean())


def _simulated(seed: int, *, broken: bool) -> dict[Any, dict[str, float]]:
    """At each degree and size: the loss of the chosen stacker, of the best way, of the best model and of the mean."""
    out = {}
    for degree in DEGREES:
        rng = np.random.default_rng([seed, int(10 * degree)])
        sizes = 0.5 * np.exp(degree * rng.normal(size=(MODELS, STEPS, len(LEVELS))))
        test = _drawn(rng, sizes, TEST)
        for n in SIZES:
            members, y, steps = _drawn(rng, sizes, n)

            def loss(plan: Any, test: Any = test) -> float:
                varies = plan.info["final"] == "varying"
                blend = blend_predictions(plan, test[0], groups=test[2] if varies else None)
                return _pinball(blend, test[1], LEVELS)

            fit = functools.partial(
                stacking, members, y=y, groups=steps, by_column=True, quantiles=LEVELS, seed=seed % 2**31
            )
            chosen = fit(folds=0) if broken else fit()
            ways = [fit(final=final, penalty=penalty, folds=0) for final, penalty in WAYS]
            alone = test[0][int(np.argmin(chosen.info["single"]))]
            mean = _pinball(np.mean(test[0], axis=0), test[1], LEVELS)
            out[degree, n] = {
                "chosen": loss(chosen),
                "oracle": min(mean, *(loss(plan) for plan in ways)),
                "single": _pinball(alone, test[1], LEVELS),
                "mean": mean,
                "varies": float(chosen.info["final"] == "varying"),
            }
    return out


def _drawn(rng: np.random.Generator, sizes: Floats, n: int) -> tuple[list[Floats], Floats, NDArray[np.int64]]:
    """Forecasts of quantiles with errors of these sizes (models, steps, quantiles), the answers, and the steps."""
    steps = np.arange(n) % STEPS
    middle = rng.normal(size=n)
    truth = middle[:, None] + NORMAL
    members = [truth + sizes[model][steps] * rng.normal(size=truth.shape) for model in range(MODELS)]
    return members, middle + rng.normal(size=n), steps


@functools.cache
def _series() -> Floats:
    """(airlines, days) the mean departure delay of those that fly every day."""
    frame = datasets.load("flights").frame
    assert frame is not None
    columns = {name: frame[name].to_numpy() for name in ("month", "day", "carrier", "dep_delay")}
    known = np.isfinite(np.asarray(columns["dep_delay"], np.float64))
    days = np.array(
        [
            np.datetime64(f"2013-{int(month):02}-{int(day):02}")
            for month, day in zip(columns["month"], columns["day"], strict=True)
        ]
    )
    day = (days - np.datetime64("2013-01-01")).astype(np.int64)
    names, airline = np.unique(columns["carrier"].astype(str), return_inverse=True)
    cell = (airline * DAYS + day)[known]
    count = np.bincount(cell, minlength=len(names) * DAYS).reshape(-1, DAYS)
    total = np.bincount(cell, np.asarray(columns["dep_delay"], np.float64)[known], len(names) * DAYS).reshape(-1, DAYS)
    steady = (count > 0).all(axis=1)
    return np.asarray(total[steady] / count[steady])


def _forecasts(series: Floats, origin: int, ahead: int) -> Floats:
    """(models, airlines) of the day `ahead` days after what is known up to `origin`."""
    past = series[:, : origin + 1]
    smooth = np.zeros(len(series))
    for value in past[:, -60:].T:
        smooth = 0.7 * smooth + 0.3 * value
    week = past[:, [origin + ahead - 7 * (1 + (ahead - 1) // 7) - 7 * back for back in range(4)]]
    return np.stack(
        [
            past[:, -1],
            past[:, -7:].mean(axis=1),
            past[:, -56:].mean(axis=1),
            np.median(past[:, -28:], axis=1),
            week.mean(axis=1),
            smooth,
        ]
    )


def _delays(seed: int, *, broken: bool) -> dict[str, float]:
    """Losses on the 60 days after those that the weights were fitted on."""
    series = _series()
    rng = np.random.default_rng(seed)
    last = int(rng.integers(200, DAYS - 60 - AHEAD))
    fitted, judged = range(last - 120, last - AHEAD, 4), range(last, last + 60)

    def rows(origins: range) -> tuple[list[Floats], Floats, NDArray[np.int64]]:
        pairs = [(origin, ahead) for origin in origins for ahead in range(1, AHEAD + 1)]
        forecasts = np.concatenate([_forecasts(series, *pair) for pair in pairs], axis=1)
        answers = np.concatenate([series[:, origin + ahead] for origin, ahead in pairs])
        return list(forecasts), answers, np.repeat([ahead for _, ahead in pairs], len(series))

    members, y, steps = rows(fitted)
    test, truth, test_steps = rows(judged)
    fit = functools.partial(stacking, members, y=y, groups=steps, loss="mae", seed=seed % 2**31)
    chosen, shared = (fit(folds=0) if broken else fit()), fit(final="simplex")
    varies = chosen.info["final"] == "varying"
    groups = test_steps if varies else None
    greedy = ensemble_selection(members, y=y, loss="mae", folds=0)

    def error(blend: Floats) -> float:
        return float(np.abs(truth - blend).mean())

    return {
        "chosen": error(blend_predictions(chosen, test, groups=groups)),
        "shared": error(blend_predictions(shared, test)),
        "greedy": error(blend_predictions(greedy, test)),
        "single": error(test[int(np.argmin(chosen.info["single"]))]),
        "mean": error(np.mean(test, axis=0)),
        "varies": float(varies),
    }
