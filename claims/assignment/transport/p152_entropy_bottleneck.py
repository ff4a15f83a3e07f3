"""Minimum entropy coupling with a bottleneck: the decoder's and the encoder's guarantees, and both end to end.

The greedy coupling is held to the least entropy of all couplings of three by three symbols, found at the vertices, and
to its lower bound for 8 to 64 symbols; the encoder to the best of all functions of seven symbols, found by looking at
every partition, and to the rate. End to end the coupling is held to the uniform quantiser (the paper's Algorithm 5)
with the same decoder, at the same rates, with as many levels as the rate admits; and a receiver who sees one action of
a policy guesses the message, which is one step of a Markov coding game.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.assignment import bottleneck_coupling, bottleneck_encoder, minimum_entropy_coupling

Floats = NDArray[np.float64]
Figures = dict[str, Any]
# As shares of H(X).
RATES = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
LAWS = ("random", "geometric", "binomial")
# Of a message and of an action, in the game: the policy's temperatures, and by how much more bits are to be told.
TEMPERATURES = (0.2, 0.5, 1.0)
TOLD, ABOVE = 0.05, 1e-9


@claim(
    paper=152,
    says="Greedy coupling keeps its margins within a bit of the least entropy; greedy merging keeps to the rate and to "
    "its gap from the best code; together they tell more through a bottleneck than a uniform quantiser",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Couplings, codes and both; broken: independent couplings in the place of greedy ones."""
    runs = 12 if scale == "small" else 40
    seeds = derive(seed, runs)
    pairs = spread(functools.partial(_coupled, broken=broken), seeds)
    codes = spread(_encoded, derive(seed, runs, stream=1))
    ends = spread(functools.partial(_through, broken=broken), derive(seed, runs, stream=2))
    measured: Figures = {
        "greedy coupling": {
            "largest error of a margin": max(one["error"] for one in pairs),
            "largest excess over the lower bound, bits": max(one["over bound"] for one in pairs),
            "largest excess over max(H(p), H(q)), bits": max(one["over margins"] for one in pairs),
            "mean excess over the least, 3 x 3, bits": float(np.mean([one["over least"] for one in pairs])),
            "largest excess over the least, 3 x 3, bits": max(one["over least"] for one in pairs),
        },
        "encoder": {
            "largest excess over the rate, bits": max(one["over rate"] for one in codes),
            "largest shortfall from the best function, bits": max(one["short"] for one in codes),
            "mean shortfall from the best function, bits": float(np.mean([one["mean short"] for one in codes])),
            "guarantee h(p2) kept": all(one["kept"] for one in codes),
            "mean gain of splitting a symbol, bits": float(np.mean([one["split"] for one in codes])),
        },
    }
    gain = {
        rate: difference([one[f"ours {rate}"] for one in ends], [one[f"theirs {rate}"] for one in ends])
        for rate in RATES
    }
    guess = {
        heat: difference([one[f"guess {heat}"] for one in ends], [one[f"their guess {heat}"] for one in ends])
        for heat in TEMPERATURES
    }
    measured["end to end"] = {
        "bits told above the quantiser, by rate over H(X)": {rate: gain[rate].figures() for rate in RATES},
        "right guesses above the quantiser, by temperature": {heat: guess[heat].figures() for heat in TEMPERATURES},
        "steps up in the rate at which fewer bits are told": int(sum(one["falls"] for one in ends)),
        "largest such fall, bits": max(one["fall"] for one in ends),
        "steps": runs * (len(RATES) - 1),
        "largest difference from the plain coupling at the whole rate, bits": max(one["whole"] for one in ends),
    }
    met = [
        max(one["error"] for one in pairs) <= 1e-12,
        max(one["over bound"] for one in pairs) <= 1.0,
        max(one["over least"] for one in pairs) <= 0.531,
        max(one["over rate"] for one in codes) <= ABOVE,
        all(one["kept"] for one in codes),
        max(one["whole"] for one in ends) <= ABOVE,
        # The whole rate leaves nothing to compress; the quantiser's advantage is nowhere, ours where bits are few.
        all(gain[rate].above(TOLD) for rate in RATES[:3]),
    ]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="margins to 1e-12; entropy within 1 bit of the lower bound and 0.53 of the least; H(T) <= R; I(X;T) "
        f"within h(p2) of the best; more than {TOLD:g} bits above the quantiser at rates up to 0.45 H(X) (lower 95% "
        "limit); the plain coupling at R = H(X)",
        baseline="all vertices, all partitions; uniform quantiser with the most levels the rate admits, same decoder",
        kind="reduced",
    )


def _bits(masses: Any) -> float:
    held = np.asarray(masses, np.float64).ravel()
    held = held[held > 0]
    return float(-(held * np.log2(held)).sum())


def _law(rng: np.random.Generator, kind: str, n: int) -> Floats:
    if kind == "random":
        return rng.dirichlet(np.ones(n))
    if kind == "geometric":
        out: Any = rng.uniform(0.7, 0.95) ** np.arange(n)
    else:
        from scipy.stats import binom

        out = binom.pmf(np.arange(n), n - 1, rng.uniform(0.2, 0.5))
    return np.asarray(rng.permutation(out / out.sum()))


def _table(plan: Any) -> Floats:
    out = np.zeros((plan.n, plan.k))
    out[np.repeat(np.arange(plan.n), np.diff(plan.indptr)), plan.bins] = plan.weights
    return out


def _least(p: Floats, q: Floats) -> float:
    """The least entropy of all couplings: it is concave, so that it is least at a vertex."""
    n, m = len(p), len(q)
    best = np.inf
    for basis in itertools.combinations(itertools.product(range(n), range(m)), n + m - 1):
        sums = np.zeros((n + m, n + m - 1))
        for column, (i, j) in enumerate(basis):
            sums[i, column] = sums[n + j, column] = 1
        masses, _, rank, _ = np.linalg.lstsq(sums, np.concatenate([p, q]), rcond=None)
        if rank == n + m - 1 and masses.min() > -1e-12:
            best = min(best, _bits(masses))
    return best


def _coupled(seed: int, *, broken: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    out = {"error": 0.0, "over bound": 0.0, "over margins": -np.inf}
    for kind, n in itertools.product(LAWS, (8, 24, 64)):
        p, q = _law(rng, kind, n), _law(rng, str(rng.choice(LAWS)), int(rng.integers(8, 65)))
        plan = minimum_entropy_coupling((p, q))
        table = np.outer(p, q) if broken else _table(plan)
        error = max(np.abs(table.sum(axis=1) - p).max(), np.abs(table.sum(axis=0) - q).max())
        out["error"] = max(out["error"], float(error))
        out["over bound"] = max(out["over bound"], _bits(table) - float(plan.bound or 0.0))
        out["over margins"] = max(out["over margins"], _bits(table) - max(_bits(p), _bits(q)))
    p, q = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
    table = np.outer(p, q) if broken else _table(minimum_entropy_coupling((p, q)))
    return {**out, "over least": _bits(table) - _least(p, q)}


@functools.cache
def _partitions(n: int) -> NDArray[np.int64]:
    rows = [[0]]
    for _ in range(n - 1):
        rows = [[*row, code] for row in rows for code in range(max(row) + 2)]
    return np.array(rows)


def _encoded(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    codes = _partitions(7)
    over, short, split, kept = 0.0, [], [], True
    for kind in LAWS:
        p = _law(rng, kind, 7)
        masses = np.stack([np.where(codes == t, p, 0.0).sum(axis=1) for t in range(7)], axis=1)
        rates = -(masses * np.log2(np.where(masses > 0, masses, 1.0))).sum(axis=1)
        second = float(np.sort(p)[-2])
        for rate in rng.uniform(0.05, 1.0, 5) * _bits(p):
            best = float(rates[rates <= rate].max())
            plan, function = bottleneck_encoder(p, rate), bottleneck_encoder(p, rate, mixed=False)
            table = _table(plan)
            told = _bits(table.sum(axis=0)) + _bits(p) - _bits(table)
            over = max(over, _bits(table.sum(axis=0)) - rate)
            short.append(best - function.value)
            split.append(told - function.value)
            kept &= rate - function.value <= _bits([second, 1 - second]) + 1e-9
    return {
        "over rate": over,
        "short": max(short),
        "mean short": float(np.mean(short)),
        "split": float(np.mean(split)),
        "kept": kept,
    }


def _quantised(p: Floats, q: Floats, rate: float) -> Floats:
    """Runs of neighbouring symbols, as many equal ones as the rate admits, and the same decoder."""
    n = len(p)
    for levels in range(n, 0, -1):
        codes = np.arange(n) * levels // n
        masses = np.bincount(codes, p, levels)
        if _bits(masses) <= rate + 1e-12:
            break
    return _decoded(np.eye(levels)[codes] * p[:, None], q)


def _decoded(encoder: Floats, q: Floats) -> Floats:
    masses = encoder.sum(axis=0)
    decoder = _table(minimum_entropy_coupling((masses, q)))
    return np.asarray(encoder @ (decoder / np.where(masses > 0, masses, 1.0)[:, None]))


def _told(table: Floats) -> float:
    return _bits(table.sum(axis=0)) + _bits(table.sum(axis=1)) - _bits(table)


def _through(seed: int, *, broken: bool) -> dict[str, float]:
    """Bits told and messages guessed through the bottleneck."""
    rng = np.random.default_rng(seed)
    out: dict[str, float] = {}
    p, q = _law(rng, "geometric", 32), _law(rng, "random", 32)
    told = []
    for share in RATES:
        rate = share * _bits(p)
        table = np.outer(p, q) if broken else _table(bottleneck_coupling((p, q), rate).coupling)
        told.append(_told(table))
        out[f"ours {share}"], out[f"theirs {share}"] = told[-1], _told(_quantised(p, q, rate))
    steps = np.diff(told)
    out["falls"], out["fall"] = float((steps < -1e-9).sum()), float(max(0.0, -steps.min()))
    out["whole"] = abs(told[-1] - minimum_entropy_coupling((p, q)).info["mutual_information"])
    # A message of 16, told at half its bits through one action of a policy that is softmax of random values.
    values = rng.normal(size=8)
    message = _law(rng, "geometric", 16)
    for heat in TEMPERATURES:
        policy = np.exp(values / heat)
        policy /= policy.sum()
        rate = 0.5 * _bits(message)
        ours = np.outer(message, policy) if broken else _table(bottleneck_coupling((message, policy), rate).coupling)
        out[f"guess {heat}"] = float(ours.max(axis=0).sum())
        out[f"their guess {heat}"] = float(_quantised(message, policy, rate).max(axis=0).sum())
    return out
