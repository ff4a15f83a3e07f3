"""Stacked aggregation of LoRA updates: exact for any ranks, and what that is worth over rounds of fine-tuning.

The server is `StackedAdapters`; the clients are small networks with low-rank factors on every layer, trained side by
side. Factor averaging comes in the two forms in which it is used: factors that live on from round to round (FedIT; a
client of low rank gets the first rows), and fresh factors whose averaged product is folded in, as the stacked one is.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.learners import one_hot, softmax
from claims.harness.networks import loss, pretrain, task
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.combination import stack_adapters
from kofn.federated import StackedAdapters

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
State = dict[str, Floats]
CLIENTS, ROUNDS, STEPS, BATCH, SCALE = 10, 8, 15, 32, np.float32(2)
RANKS = {"mixed": (1, 1, 2, 2, 4, 4, 8, 8, 16, 16), "equal": (4,) * CLIENTS}
RATES = {"regression": (0.01, 0.03, 0.1), "digits": (0.01, 0.03, 0.1)}
# (rate, how a round starts): with an A for each client, or the same for all; for averaging also with the last round's
# factors, where a row that not every client holds is averaged with zeros, or over those who hold it.
OURS = ("fresh", "shared")
THEIRS = ("kept", "held", "shared")
TUNING_RUNS = 2
Config = tuple[float, str]


@claim(
    paper=304,
    says="Stacking is exact for mixed ranks where averaging A and B is off by more than a tenth, and federated "
    "fine-tuning ends at a lower loss with it: on every seed with mixed ranks, on average with equal ones",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Ten clients, twice; broken: our server averages the factors too."""
    errors = [_one_round(one, broken) for one in derive(seed, 20, stream=1)]
    measured: dict[str, Any] = {
        "one round, ranks 2..16: largest error of the stack": max(ours for ours, _ in errors),
        "smallest relative error of averaged factors": round(min(theirs for _, theirs in errors), 4),
    }
    met = [max(ours for ours, _ in errors) < 1e-10, min(theirs for _, theirs in errors) > 0.1]
    runs = 10 if scale == "small" else 30
    for kind, ranks in itertools.product(RATES, RANKS):
        sides = {"ours": OURS, "theirs": THEIRS}
        tuned = {side: _tuned(kind, ranks, side, how, seed, broken) for side, how in sides.items()}
        work = {
            side: functools.partial(_run, kind=kind, ranks=ranks, side=side, config=tuned[side], broken=broken)
            for side in sides
        }
        seeds = derive(seed, runs, stream=3)
        ends = {side: [end for _, end in spread(work[side], seeds)] for side in sides}
        gap = difference(np.log(ends["theirs"]), np.log(ends["ours"]))
        lower = int((np.array(ends["ours"]) < np.array(ends["theirs"])).sum())
        measured[f"{kind}, {ranks} ranks"] = {
            "stacked": round(float(np.mean(ends["ours"])), 4),
            "averaged factors": round(float(np.mean(ends["theirs"])), 4),
            "log of their ratio": gap.figures(),
            "seeds on which stacking ends lower": f"{lower} of {runs}",
            "tuned (rate, start)": {side: list(config) for side, config in tuned.items()},
        }
        met += [gap.above(0), ranks == "equal" or lower == runs]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="error of the stack below 1e-10, of averaged factors above 0.1 of the norm; with mixed ranks a lower "
        "loss on every seed; with either the lower 95% limit of the mean log ratio of the losses above 0",
        baseline="factors averaged, padded with zeros where ranks differ or row by row over those who hold it, kept "
        "over the rounds or folded in: nine configurations to our six, chosen on other runs",
        kind="reduced",
    )


def _one_round(seed: int, broken: bool) -> tuple[float, float]:
    """Errors of the stacked and of the averaged factors, for ten clients of ranks 2..16."""
    rng = np.random.default_rng(seed)
    ranks = rng.integers(2, 17, CLIENTS)
    shares = rng.dirichlet(np.ones(CLIENTS))
    pairs = [(rng.normal(size=(r, 40)), rng.normal(size=(48, r))) for r in ranks]
    want = sum(share * B @ A for share, (A, B) in zip(shares, pairs, strict=True))
    averaged = _padded(pairs, shares)
    members = [{"w.lora_A.weight": A, "w.lora_B.weight": B} for A, B in pairs]
    stacked = averaged if broken else stack_adapters(members, weights=shares).result.pairs["w"].delta()
    return float(np.linalg.norm(stacked - want)), float(np.linalg.norm(averaged - want) / np.linalg.norm(want))


def _padded(pairs: list[tuple[Doubles, Doubles]], shares: Doubles) -> Doubles:
    most = max(len(A) for A, _ in pairs)
    A = sum(share * np.pad(A, ((0, most - len(A)), (0, 0))) for share, (A, _) in zip(shares, pairs, strict=True))
    B = sum(share * np.pad(B, ((0, 0), (0, most - B.shape[1]))) for share, (_, B) in zip(shares, pairs, strict=True))
    product: Doubles = B @ A
    return product


def _tuned(kind: str, ranks: str, side: str, how: tuple[str, ...], seed: int, broken: bool) -> Config:
    """The configuration with the lowest held-out loss on other runs."""
    configs = list(itertools.product(RATES[kind], how))
    seeds = derive(seed, TUNING_RUNS, stream=2)
    jobs = [(config, one) for config in configs for one in seeds]
    ends = spread(functools.partial(_job, kind=kind, ranks=ranks, side=side, broken=broken), jobs)
    means = np.array([held for held, _ in ends]).reshape(len(configs), -1).mean(axis=1)
    return configs[int(means.argmin())]


def _job(job: tuple[Config, int], kind: str, ranks: str, side: str, broken: bool) -> tuple[float, float]:
    return _run(job[1], kind=kind, ranks=ranks, side=side, config=job[0], broken=broken)


@dataclass
class Problem:
    """Weights to start from, every client's rows, and the loss of weights on held-out and on judging rows."""

    base: State
    rows: list[tuple[Floats, Floats]]
    squared: bool
    judge: Callable[[State], tuple[float, float]]


def _regression(seed: int) -> Problem:
    """Targets of a known shift of rank 6; every client sees a part of the directions more than others."""
    rng = np.random.default_rng(seed)
    wide, tall, shift = 24, 20, 6
    start = rng.normal(size=(tall, wide)) / np.sqrt(wide)
    truth = start + rng.normal(size=(tall, shift)) @ rng.normal(size=(shift, wide)) / np.sqrt(wide * shift)
    rows = []
    for _ in range(CLIENTS):
        X = rng.normal(size=(int(rng.integers(40, 160)), wide)) * rng.gamma(1.0, 1.0, wide)
        noise = 0.3 * rng.normal(size=(len(X), tall))
        rows.append((X.astype(np.float32), (X @ truth.T + noise).astype(np.float32)))
    tests = [rng.normal(size=(1000, wide)) for _ in range(2)]

    def judge(state: State) -> tuple[float, float]:
        held, judged = (float(np.square(X @ (state["0.weight"] - truth).T).sum(axis=1).mean()) for X in tests)
        return held, judged

    return Problem({"0.weight": start.astype(np.float32), "0.bias": np.zeros(tall, np.float32)}, rows, True, judge)


def _digits(seed: int) -> Problem:
    """A network that knows upright digits, clients with turned ones, each with classes of its own in plenty."""
    rng = np.random.default_rng(seed)
    base = pretrain(task("digits"), hidden=(64,), seed=seed % 4)
    turned = task("digits", rotate=90)
    X, y = turned.train.X, turned.train.y
    shares = rng.dirichlet(np.full(CLIENTS, 0.5), 10)
    owner = np.array([rng.choice(CLIENTS, p=shares[label]) for label in y])
    targets = one_hot(y, 10)
    rows = [(X[owner == one], targets[owner == one]) for one in range(CLIENTS) if (owner == one).any()]

    def judge(state: State) -> tuple[float, float]:
        return loss(state, turned.valid.X, turned.valid.y), loss(state, turned.test.X, turned.test.y)

    return Problem(base, rows, False, judge)


def _run(seed: int, *, kind: str, ranks: str, side: str, config: Config, broken: bool) -> tuple[float, float]:
    """The losses after all rounds, on the rows to tune by and on those to judge by."""
    problem = _regression(seed) if kind == "regression" else _digits(seed)
    rng = np.random.default_rng([seed, 5])
    count = len(problem.rows)
    held = np.array(rng.permutation(RANKS[ranks])[:count])
    shares = np.array([len(X) for X, _ in problem.rows], np.float64)
    shares /= shares.sum()
    rate, start = config
    stacking = side == "ours" and not broken
    server = StackedAdapters(problem.base)
    base = server.base
    kept: dict[str, tuple[Floats, Floats]] | None = None
    for _ in range(ROUNDS):
        factors = _start(base, held, rng, start, kept)
        _train(problem, base, factors, rate, rng)
        if stacking:
            server.tell(_adapters(factors, held), weights=shares)
            base = server.base
            continue
        means = _averaged(factors, held, shares, by_row=start == "held")
        if start in ("kept", "held"):
            kept = means
        else:
            base = _folded(base, means)
    return problem.judge(base if kept is None else _folded(base, kept))


def _averaged(
    factors: dict[str, tuple[Floats, Floats]], ranks: NDArray[np.int64], shares: Doubles, *, by_row: bool
) -> dict[str, tuple[Floats, Floats]]:
    """A and B averaged apart; `by_row` over the clients whose rank reaches a row, else over all, zeros included."""
    weight = np.repeat(shares[:, None], ranks.max(), axis=1)
    if by_row:
        weight = weight * (np.arange(ranks.max()) < ranks[:, None])
        weight /= weight.sum(axis=0)
    low = weight.astype(np.float32)
    return {
        layer: (np.einsum("kr,kri->ri", low, A), np.einsum("kr,kor->or", low, B)) for layer, (A, B) in factors.items()
    }


def _folded(base: State, means: dict[str, Any]) -> State:
    return {
        **base,
        **{f"{layer}.weight": base[f"{layer}.weight"] + SCALE * B @ A for layer, (A, B) in means.items()},
    }


def _adapters(factors: dict[str, tuple[Floats, Floats]], ranks: NDArray[np.int64]) -> list[dict[str, Floats]]:
    """What the clients send: their own rank's factors; the scale is in B."""
    return [
        {
            name: value
            for layer, (A, B) in factors.items()
            for name, value in (
                (f"{layer}.lora_A.weight", A[one, :rank]),
                (f"{layer}.lora_B.weight", SCALE * B[one, :, :rank]),
            )
        }
        for one, rank in enumerate(ranks.tolist())
    ]


def _start(
    base: State,
    ranks: NDArray[np.int64],
    rng: np.random.Generator,
    how: str,
    kept: dict[str, tuple[Floats, Floats]] | None,
) -> dict[str, tuple[Floats, Floats]]:
    """(clients, rank, in) and (clients, out, rank) a layer; rows beyond a client's rank are zero and stay so."""
    most, count = int(ranks.max()), len(ranks)
    mask = np.arange(most) < ranks[:, None]
    out = {}
    for name, weight in base.items():
        if not name.endswith(".weight"):
            continue
        layer, (tall, wide) = name.removesuffix(".weight"), weight.shape
        if kept is not None:
            A, B = (np.broadcast_to(part, (count, *part.shape)) for part in kept[layer])
        else:
            drawn = (count, most, wide) if how == "fresh" else (1, most, wide)
            A = np.broadcast_to(rng.normal(size=drawn) / np.sqrt(wide), (count, most, wide)).astype(np.float32)
            B = np.zeros((count, tall, most), np.float32)
        out[layer] = A * mask[:, :, None], B * mask[:, None, :]
    return out


def _train(
    problem: Problem, base: State, factors: dict[str, tuple[Floats, Floats]], rate: float, rng: np.random.Generator
) -> None:
    """Every client's own steps by Adam, side by side; the factors are changed in place."""
    moments = {layer: [np.zeros_like(part) for part in (*pair, *pair)] for layer, pair in factors.items()}
    layers = list(factors)
    for step in range(1, STEPS + 1):
        drawn = [rng.integers(0, len(X), BATCH) for X, _ in problem.rows]
        X = np.stack([X[rows] for (X, _), rows in zip(problem.rows, drawn, strict=True)])
        T = np.stack([T[rows] for (_, T), rows in zip(problem.rows, drawn, strict=True)])
        seen: list[Any] = [X]
        low: list[Floats] = []
        for place, layer in enumerate(layers):
            A, B = factors[layer]
            low.append(seen[-1] @ A.transpose(0, 2, 1))
            ahead = seen[-1] @ base[f"{layer}.weight"].T + base[f"{layer}.bias"]
            ahead = ahead + SCALE * low[-1] @ B.transpose(0, 2, 1)
            seen.append(ahead if place == len(layers) - 1 else np.maximum(ahead, 0))
        back = (2 * (seen[-1] - T) if problem.squared else softmax(seen[-1]) - T) / np.float32(BATCH)
        for place in reversed(range(len(layers))):
            layer = layers[place]
            A, B = factors[layer]
            narrow = SCALE * back @ B
            slopes = narrow.transpose(0, 2, 1) @ seen[place], SCALE * back.transpose(0, 2, 1) @ low[place]
            if place:
                back = (back @ base[f"{layer}.weight"] + narrow @ A) * (seen[place] > 0)
            held = moments[layer]
            for at, (part, slope) in enumerate(zip((A, B), slopes, strict=True)):
                held[at] += np.float32(0.1) * (slope - held[at])
                held[at + 2] += np.float32(0.01) * (slope * slope - held[at + 2])
                scale = np.sqrt(held[at + 2] / np.float32(1 - 0.99**step)) + np.float32(1e-8)
                part -= np.float32(rate / (1 - 0.9**step)) * held[at] / scale
