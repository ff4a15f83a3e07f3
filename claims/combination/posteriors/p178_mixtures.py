"""Mixtures of experts fitted on shards and reduced to one, against the mixture fitted on all rows.

Simulated: 12,000 rows of a mixture of four linear experts of five inputs, in 8 shards. Real: the price of 8,000
diamonds by their weight and cut, in 4 shards. Judged by the log likelihood of held-out rows.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn import datasets
from kofn.combination import reduce_mixtures
from kofn.combination.posteriors._reduce_mixtures import chances_of

Floats = NDArray[np.float64]
Mixture = dict[str, Floats]
# Of so many fits the likeliest is kept, for shards and for all rows alike.
COMPONENTS, STARTS = 4, 2


@claim(
    paper=178,
    says="A mixture of experts reduced from those of shards is as good as one fitted on all rows, and made sooner",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Simulated and real rows; broken: components are averaged as they are called, nothing is transported."""
    runs = 10 if scale == "small" else 30
    rows = spread(functools.partial(_simulated, broken=broken), derive(seed, runs))
    real = spread(functools.partial(_diamonds, broken=broken), derive(seed, runs, stream=1))
    criteria, measured = {}, {}
    for name, table in (("simulated", rows), ("diamonds", real)):
        gap = difference([row["global"] for row in table], [row["reduced"] for row in table])
        above = {
            side: difference([row["reduced"] for row in table], [row[side] for row in table])
            for side in ("averaged", "best shard")
        }
        quicker = float(np.mean([row["steps of all"] / row["steps of a shard"] for row in table]))
        criteria |= {
            f"{name}: within 0.02 of the log likelihood a row of the fit on all rows": gap.high < 0.02,
            f"{name}: likelier than averaged components": above["averaged"].above(0),
            f"{name}: likelier than the best shard's": above["best shard"].above(0),
            f"{name}: the longest shard's rows and iterations a quarter of those of all": quicker >= 4,
            f"{name}: the divergence never rises": all(row["monotone"] for row in table),
        }
        measured[name] = {
            "log likelihood a held-out row": {
                side: round(float(np.mean([row[side] for row in table])), 4)
                for side in ("global", "reduced", "averaged", "best shard")
            },
            "global less reduced": gap.figures(),
            "reduced less others": {side: other.figures() for side, other in above.items()},
            "rows times iterations, all over the longest shard": round(quicker, 2),
            "seconds of all over the longest shard and the reduction": round(
                float(np.mean([row["seconds"] for row in table])), 2
            ),
        }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="upper 95% limit of the log likelihood lost to the fit on all rows below 0.02 a row; lower limits of "
        "the gains over averaging and over the best shard above 0; a quarter of the rows times iterations",
        baseline="expectation maximisation on all rows, of as many starts as each shard; components averaged after "
        "they are ordered by their intercepts; the shard's mixture that is likeliest on a sample of the training rows",
        kind="measured",
    )


def _densities(mixture: Mixture, design: Floats, y: Floats) -> Floats:
    """(n, K) the log of each component's chance times its density."""
    off = y[:, None] - design @ mixture["experts"].T
    chances = np.maximum(chances_of(mixture["gates"], design), 1e-300)
    variances = mixture["variances"]
    out: Floats = np.log(chances) - 0.5 * (np.log(2 * np.pi * variances) + off**2 / variances)
    return out


def _likelihood(mixture: Mixture, design: Floats, y: Floats) -> float:
    return float(np.logaddexp.reduce(_densities(mixture, design, y), axis=1).mean())


def _fitted(design: Floats, y: Floats, rng: np.random.Generator) -> tuple[Mixture, int]:
    """The likeliest of a few fits by expectation maximisation, and the iterations of all of them."""
    fits = [_climbed(design, y, rng) for _ in range(STARTS)]
    best = max(fits, key=lambda fit: _likelihood(fit[0], design, y))
    return best[0], sum(steps for _, steps in fits)


def _climbed(design: Floats, y: Floats, rng: np.random.Generator) -> tuple[Mixture, int]:
    width, n = design.shape[1], len(y)
    floor = 1e-4 * float(y.var())
    mixture = {
        "gates": 0.1 * rng.normal(size=(COMPONENTS, width)),
        "experts": np.stack([_regressed(design, y, rng.random(n) < 4 * width / n) for _ in range(COMPONENTS)]),
        "variances": np.full(COMPONENTS, float(y.var())),
    }
    before = -np.inf
    for step in range(1, 301):
        logs = _densities(mixture, design, y)
        rows = np.logaddexp.reduce(logs, axis=1)
        value = float(rows.mean())
        parts = np.exp(logs - rows[:, None])
        for component in range(COMPONENTS):
            part = parts[:, component]
            weighted = (design * part[:, None]).T
            expert = np.linalg.solve(weighted @ design + 1e-9 * np.eye(width), weighted @ y)
            mixture["experts"][component] = expert
            variance = float(part @ (y - design @ expert) ** 2 / max(part.sum(), 1e-12))
            mixture["variances"][component] = max(variance, floor)
        mixture["gates"] = _gated(mixture["gates"], design, parts)
        if value - before < 1e-5:
            return mixture, step
        before = value
    return mixture, step


def _regressed(design: Floats, y: Floats, some: NDArray[np.bool_]) -> Floats:
    return np.asarray(np.linalg.lstsq(design[some], y[some], rcond=None)[0])


def _gated(gates: Floats, design: Floats, parts: Floats) -> Floats:
    """Steps by Boehning's bound of the curvature of the multinomial likelihood, which never overshoot."""
    bound = np.linalg.inv(design.T @ design / 2 + 1e-6 * np.eye(design.shape[1]))
    for _ in range(3):
        gates = gates + (parts - chances_of(gates, design)).T @ design @ bound
    return np.asarray(gates - gates[-1])


def _compared(
    design: Floats, y: Floats, test: tuple[Floats, Floats], shards: int, rng: np.random.Generator, *, broken: bool
) -> dict[str, Any]:
    """Likelihoods of held-out rows, and what the fits cost."""
    parts = np.array_split(rng.permutation(len(y)), shards)
    began = time.process_time()
    whole, steps = _fitted(design, y, rng)
    seconds_of_all = time.process_time() - began
    members, costs, seconds = [], [], []
    for part in parts:
        began = time.process_time()
        member, count = _fitted(design[part], y[part], rng)
        seconds.append(time.process_time() - began)
        members.append(member)
        costs.append(count * len(part))
    sample = rng.choice(len(y), min(1000, len(y)), replace=False)
    began = time.process_time()
    averaged = _averaged(members)
    reduced: Mixture = averaged
    monotone = True
    if not broken:
        plan = reduce_mixtures(
            members,
            inputs=design[sample, 1:],
            weights=[len(part) for part in parts],
            seed=int(rng.integers(2**31)),
        )
        reduced, history = plan.result, plan.info["history"]
        monotone = bool((np.diff(history) <= 1e-12 * max(1.0, history[0])).all())
    merging = time.process_time() - began
    best = max(members, key=lambda member: _likelihood(member, design[sample], y[sample]))
    return {
        "global": _likelihood(whole, *test),
        "reduced": _likelihood(reduced, *test),
        "averaged": _likelihood(averaged, *test),
        "best shard": _likelihood(best, *test),
        "steps of all": float(steps * len(y)),
        "steps of a shard": float(max(costs)),
        "seconds": seconds_of_all / (max(seconds) + merging),
        "monotone": monotone,
    }


def _averaged(members: list[Mixture]) -> Mixture:
    """The mean of each part, after the components are ordered by their experts' intercepts."""
    ordered = []
    for member in members:
        order = np.argsort(member["experts"][:, 0])
        gates = member["gates"] - member["gates"][order[-1]]
        ordered.append({**{name: part[order] for name, part in member.items()}, "gates": gates[order]})
    return {name: np.mean([member[name] for member in ordered], axis=0) for name in ordered[0]}


def _simulated(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    n, d = 12_000, 5
    gates, experts = 1.5 * rng.normal(size=(COMPONENTS, d + 1)), 2 * rng.normal(size=(COMPONENTS, d + 1))
    design = np.column_stack([np.ones(2 * n), rng.normal(size=(2 * n, d))])
    chances = chances_of(gates, design)
    chosen = (rng.random(2 * n)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1).clip(0, COMPONENTS - 1)
    y = (design * experts[chosen]).sum(axis=1) + rng.normal(size=2 * n)
    return _compared(design[:n], y[:n], (design[n:], y[n:]), 8, rng, broken=broken)


@functools.cache
def _table() -> tuple[Floats, Floats]:
    data = datasets.load("diamonds")
    frame = data.frame
    assert frame is not None
    columns = np.column_stack([np.asarray(frame[name], np.float64) for name in ("carat", "depth", "table")])
    price = np.log(np.asarray(frame["price"], np.float64))
    known = np.isfinite(columns).all(axis=1) & np.isfinite(price)
    columns, price = columns[known], price[known]
    design = np.column_stack([np.ones(len(columns)), (columns - columns.mean(axis=0)) / columns.std(axis=0)])
    return design, (price - price.mean()) / price.std()


def _diamonds(seed: int, *, broken: bool) -> dict[str, Any]:
    design, y = _table()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    train, test = order[:8_000], order[8_000:16_000]
    return _compared(design[train], y[train], (design[test], y[test]), 4, rng, broken=broken)
