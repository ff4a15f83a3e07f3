"""A budget of annotation split between demonstrations and preference pairs, by a surface fitted to pilot runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.scaling_laws._huber import Fit, fitted, log_sum
from kofn.allocation.scaling_laws._separation import Separation
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["annotation_split"]

_NAMES = (
    "floor",
    "scale",
    "demonstrations",
    "pairs",
    "demonstration exponent",
    "pair exponent",
    "demonstrations needed",
)
# Splits that are tried, and how many of the resampled fits must make the same choice.
_SPLITS, _AGREED = 1001, 0.9
# Logs of parameters beyond this are at their limit as good as there.
_LOGS = 40.0


@helper
def annotation_split(
    demonstrations: ArrayLike,
    pairs: ArrayLike,
    losses: ArrayLike,
    *,
    budget: float,
    costs: ArrayLike = (1.0, 1.0),
    resamples: int = 40,
    seed: int = 0,
) -> Allocation:
    """Split a budget of annotation between demonstrations (supervised finetuning) and preference pairs.

    Fits a surface to pilot runs and takes its least loss under the budget. Demonstrations and pairs lower the excess
    loss by a power law each, and pairs count the less the fewer demonstrations there were first (the cold start): pairs
    x n / (n + needed) count. Whether pairs need demonstrations is part of the fit only where it brings more, by
    Akaike's criterion for few points, than its parameter costs.

    Args:
        demonstrations: (runs,) demonstrations of each pilot run, >= 0.
        pairs: (runs,) preference pairs it was trained on afterwards, >= 0.
        losses: (runs,) loss or error it reached, > 0; for a success rate give 1 - rate.
        budget: what annotation may cost in all.
        costs: of a demonstration and of a pair, > 0.
        resamples: fits to runs drawn with replacement.
        seed: of these draws.

    Returns:
        An `Allocation` of two: `amounts` demonstrations and pairs, whole numbers within the budget; `value` the
        predicted loss. `info` has the `interval` of it, the predicted losses of `only_demonstrations` and `only_pairs`,
        `split` (the share of the budget that goes to pairs) with what it is `split_between` for nine of ten resampled
        fits, `agreement` (the share of these that agree whether to buy pairs), whether a `cold_start` was fitted, and
        `warnings` where the runs do not support the answer.

    Raises:
        InfeasibleError: the budget does not pay for one demonstration or pair.
        InputError: too few runs, or none with and without pairs, or numbers of demonstrations that do not differ: the
            runs then say nothing of the trade.

    Runs with pairs in proportion to demonstrations cannot tell the two apart: that is warned of, and off their line the
    interval is 0 to infinity.

    Cost: some seconds for tens of runs.

    Guarantee: the best whole split under the fitted surface, to a thousandth of the budget. That the surface holds
    beyond the pilot runs is the assumption; more than ten times the largest run is told.

    References:
        Raghavendra, Kang & Ritter 2025, "Balancing the Budget: Understanding Trade-offs Between Supervised and
        Preference-Based Finetuning", arXiv 2502.11284: that pairs pay with larger budgets, and fail without any
        demonstrations. The paper measures and does not fit; the surface is this library's.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import annotation_split
        >>> n, m = (x.ravel() for x in np.meshgrid([10, 40, 160, 640], [0, 40, 160, 640]))
        >>> losses = 0.1 + 0.9 * (1 + n / 20) ** -0.3 * (1 + m * n / (n + 30) / 50) ** -0.4
        >>> plan = annotation_split(n, m, losses, budget=2000, costs=(2.0, 1.0), resamples=5)
        >>> plan.amounts.tolist(), plan.info["cold_start"], plan.used["budget"] <= 2000
        ([449, 1102], True, True)
    """
    columns, loss = _runs(demonstrations, pairs, losses)
    price = _prices(costs)
    limit = float(checks.number(budget, "budget"))
    if limit < price.min():
        raise InfeasibleError(f"budget={limit:g}: nothing costs less than {price.min():g}; give at least that")
    checks.count(resamples, "resamples", least=0)
    fit, cold = _fit(columns, loss, resamples, checks.entropy(seed))
    best, only = _best(fit, fit.parameters, limit, price)
    amounts = np.array(best, np.int64)
    splits = [_best(fit, parameters, limit, price)[0] for parameters in fit.resampled]
    shares = [count[1] * price[1] / limit for count in splits] or [math.nan]
    agreement = float(np.mean([(count[1] > 0) == (best[1] > 0) for count in splits])) if splits else math.nan
    low, high = fit.interval(_columns(*best)) if splits else (np.full(1, math.nan), np.full(1, math.nan))
    warnings = fit.beyond({"demonstrations": best[0], "pairs": best[1]})
    between = tuple(float(end) for end in np.percentile(shares, (5, 95)))
    if agreement < _AGREED:
        warnings.append(
            f"only {agreement:.0%} of the surfaces fitted to resampled runs agree whether to buy pairs: the runs do "
            "not tell; measure more splits"
        )
    elif splits and between[1] - between[0] > 0.5:
        warnings.append(
            f"surfaces fitted to resampled runs put {between[0]:.0%} to {between[1]:.0%} of the budget on pairs: the "
            "runs do not tell how much; measure more splits"
        )
    spent = math.fsum((price * amounts).tolist())
    return Allocation(
        n=2,
        amounts=amounts,
        values=np.full(2, np.nan),
        value=float(fit.losses(_columns(*best))[0]),
        sense="min",
        additive=False,
        used={"budget": spent},
        budget={"budget": limit},
        objective="predicted_loss_of_split",
        method="annotation_split",
        ids=np.array(["demonstrations", "pairs"]),
        info={
            "interval": (float(low[0]), float(high[0])),
            "only_demonstrations": only[0],
            "only_pairs": only[1],
            "split": float(best[1] * price[1] / limit),
            "split_between": between,
            "agreement": agreement,
            "cold_start": cold,
            "fit_error": fit.error,
            **({"warnings": warnings} if warnings else {}),
        },
    )


def _runs(demonstrations: ArrayLike, pairs: ArrayLike, losses: ArrayLike) -> tuple[dict[str, Floats], Floats]:
    loss = checks.vector(losses, "losses").astype(np.float64)
    if loss.min() <= 0:
        row = int(loss.argmin())
        raise InputError(f"losses at row {row} is {loss[row]:g}; give numbers above 0, for a success rate 1 - rate")
    columns = {}
    for name, column in (("demonstrations", demonstrations), ("pairs", pairs)):
        columns[name] = checks.vector(column, name).astype(np.float64)
        checks.same_length(len(loss), "losses", name, len(columns[name]))
        if columns[name].min() < 0:
            row = int(columns[name].argmin())
            raise InputError(f"{name} at row {row} is {columns[name][row]:g}; give counts, at least 0")
        if len(np.unique(columns[name])) < 3:
            raise InputError(
                f"{name} has {len(np.unique(columns[name]))} different values; the runs say nothing of what more of "
                "them bring: measure at least 3"
            )
    return columns, loss


def _prices(costs: ArrayLike) -> Array:
    price = checks.vector(costs, "costs").astype(np.float64)
    if price.shape != (2,) or price.min() <= 0:
        raise InputError(f"costs={price.tolist()}: give what a demonstration and a pair cost, two numbers above 0")
    return price


def _columns(demonstrations: float, pairs: float) -> dict[str, Floats]:
    return {"demonstrations": np.array([demonstrations], np.float64), "pairs": np.array([pairs], np.float64)}


@dataclass(frozen=True)
class _Surface:
    """log of floor + scale (1 + n / s)^-alpha (1 + m n / (n + needed) / t)^-beta; all parameters are logs.

    Without a cold start pairs count in full whatever n is, and there is one parameter less.
    """

    cold: bool

    def __call__(self, parameters: Floats, columns: Mapping[str, Floats]) -> Floats:
        floor, scale, *rest = parameters
        s, t, alpha, beta, *needed = np.exp(np.clip(rest, -_LOGS, _LOGS))
        n, m = columns["demonstrations"], columns["pairs"]
        if self.cold:
            m = m * n / (n + needed[0])
        excess = scale - alpha * np.log1p(n / s) - beta * np.log1p(m / t)
        return log_sum(np.full(len(n), floor), excess)


def _fit(columns: Mapping[str, Floats], loss: Floats, resamples: int, seed: int) -> tuple[Fit, bool]:
    """The surface with or without a cold start, whichever Akaike's criterion prefers."""
    low, spread = float(loss.min()), float(np.ptp(loss)) + 1e-3 * float(loss.min())
    n, m = (float(np.median(column[column > 0])) for column in columns.values())
    separation = Separation.of(columns, tuple(columns), np.log1p)
    starts = [
        [math.log(floor * low), math.log(spread), math.log(n), math.log(m), math.log(power), math.log(power)]
        for floor, power in itertools.product((0.1, 0.8), (0.2, 0.7))
    ]
    plain = fitted(
        _Surface(False),
        columns,
        loss,
        [np.array(start) for start in starts],
        names=_NAMES[:6],
        resamples=0,
        seed=seed,
        separation=separation,
    )
    cold_starts = [np.array([*start, math.log(n)]) for start in starts]
    if len(loss) <= len(_NAMES) + 1:
        cold = None
    else:
        cold = fitted(
            _Surface(True), columns, loss, cold_starts, names=_NAMES, resamples=0, seed=seed, separation=separation
        )
    chosen = cold is not None and _criterion(cold, loss) < _criterion(plain, loss)
    best = cold if chosen and cold is not None else plain
    again = fitted(
        best.predict,
        columns,
        loss,
        [best.parameters],
        names=_NAMES,
        resamples=resamples,
        seed=seed,
        separation=separation,
    )
    return again.warned(), chosen


def _criterion(fit: Fit, loss: Floats) -> float:
    """Akaike's criterion for few points, of the relative errors."""
    runs, parameters = len(loss), len(fit.parameters) + 1
    return runs * math.log(max(fit.error, 1e-12) ** 2) + 2 * parameters * runs / max(runs - parameters - 1, 1e-9)


def _best(fit: Fit, parameters: Floats, budget: float, price: Array) -> tuple[tuple[int, int], tuple[float, float]]:
    """The best whole split, and the losses of all demonstrations and of all pairs."""
    n = np.floor(np.linspace(0, 1, _SPLITS) * budget / price[0])
    m = np.floor(np.maximum(budget - n * price[0], 0.0) / price[1])
    losses = fit.losses({"demonstrations": n, "pairs": m}, parameters)
    row = int(losses.argmin())
    return (int(n[row]), int(m[row])), (float(losses[-1]), float(losses[0]))
