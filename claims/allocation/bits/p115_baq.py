"""Bits of weight groups by reverse water-filling: quantised networks at the bits a weight that uniform bits have.

A network is trained on digits and on diamonds, and each layer's weights are quantised to the nearest of evenly spaced
levels, in groups of all weights of one input, each in its own range. The sensitivity of a group is what the closed form
takes: the squared range of its weights times the mean square of its input, over the weights. Bits are shared inside
each layer, as in the paper: errors of two layers are in units of their own.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import diamonds, digits, shuffled
from claims.harness.learners import Network, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Floats = NDArray[np.float32]
Bits = NDArray[np.int64]

BITS = (2, 3)
# What somebody would do: more bits for a share of the most sensitive groups, fewer for the others.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
CALIBRATION, TEST = 400, 600


@claim(
    paper=115,
    says="At 2 and 3 bits a weight, bits by the closed form leave a trained network less output error and less test "
    "loss than as many bits for all groups, and less output error than the best split into sensitive and other groups",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Three ways to share bits on networks of two data sets; broken: all groups count as equally sensitive."""
    runs = 10 if scale == "small" else 30
    measured: dict[str, Any] = {"closed form": _closed_form(seed, broken)}
    criteria = {
        "closed form: uniform over optimal is the arithmetic over the geometric mean": measured["closed form"] < 1e-9
    }
    for data in ("digits", "diamonds"):
        trials = spread(functools.partial(_trial, data=data, broken=broken), derive(seed, runs, stream=len(data)))
        for bits in BITS:
            ours, same, two = (np.array([t[bits][who] for t in trials]) for who in ("baq", "uniform", "two levels"))
            error = difference(np.log(same[:, 0]), np.log(ours[:, 0]))
            loss = difference(same[:, 1], ours[:, 1])
            split = difference(np.log(two[:, 0]), np.log(ours[:, 0]))
            right = difference(ours[:, 2], same[:, 2])
            name = f"{data}, {bits} bits"
            criteria[f"{name}: output error below uniform by 10%"] = error.above(0.1)
            criteria[f"{name}: test loss below uniform"] = loss.above(0.0)
            criteria[f"{name}: output error below the tuned split"] = split.above(0.0)
            measured[name] = {
                "log output error, uniform - by the closed form": error.figures(),
                "test loss, uniform - by the closed form": loss.figures(),
                "log output error, tuned split - by the closed form": split.figures(),
                "accuracy, by the closed form - uniform": right.figures(),
            }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences over the networks above 0 (log output error against "
        "uniform above 0.1), on each data set at 2 and 3 bits; the ratio of uniform to optimal loss equal to that of "
        "the means",
        baseline="as many bits for all groups; and one bit more for the most sensitive share of groups and fewer for "
        "the "
        "others, the share of five that leaves the least output error on the calibration rows",
        kind="reduced",
    )


def _closed_form(seed: int, broken: bool) -> float:
    """By how much the ratio of uniform to optimal loss differs from that of the means, on drawn sensitivities."""
    c = np.random.default_rng(seed).lognormal(0, 1, 256)
    given = np.ones(256) if broken else c
    call: dict[str, Any] = {"mean_budget": 8, "bounds": (0, 60), "whole": False, "method": "reverse_water_filling"}
    bits = kofn.allocate(scores=given, **call).amounts
    ratio = (c * 4.0**-8).sum() / (c * 4.0**-bits).sum()
    return float(abs(ratio / (c.mean() / np.exp(np.log(c).mean())) - 1))


def _trial(seed: int, *, data: str, broken: bool) -> dict[int, dict[str, list[float]]]:
    """Output error, test loss and accuracy of each way, by bits a weight."""
    rng = np.random.default_rng(seed)
    rows = shuffled(digits() if data == "digits" else diamonds(5), rng)
    train = rows.take(np.arange(min(1197, len(rows) - TEST)))
    test = rows.take(np.arange(len(rows) - TEST, len(rows)))
    network = Network(hidden=(64, 64), steps=500).fit(train.X, train.y, rows.classes, seed)
    inputs, ranges = train.X[:CALIBRATION], []
    hidden, squares = inputs, []
    for layer, weight in enumerate(network.weights):
        hidden = np.maximum(hidden, 0) if layer else hidden
        squares.append((hidden.astype(np.float64) ** 2).mean(axis=0))
        ranges.append(np.ptp(weight, axis=1).astype(np.float64))
        hidden = hidden @ weight + network.biases[layer]
    width = np.concatenate([np.full(len(w), w.shape[1]) for w in network.weights])
    sensitivity = np.concatenate([s * r**2 for s, r in zip(squares, ranges, strict=True)]) * width
    given = np.ones(len(width)) if broken else sensitivity

    def judged(bits: Bits) -> list[float]:
        weights = _quantised(network.weights, bits)
        off = network.logits(inputs, weights) - network.logits(inputs)
        chance = softmax(network.logits(test.X, weights))
        loss = -np.log(np.maximum(chance[np.arange(TEST), test.y], 1e-12)).mean()
        return [float((off**2).mean()) + 1e-12, float(loss), network.accuracy(test.X, test.y, weights)]

    layers = np.repeat(np.arange(len(network.weights)), [len(w) for w in network.weights])
    out = {}
    for mean in BITS:
        bits = np.zeros(len(width), np.int64)
        for layer in range(len(network.weights)):
            own = layers == layer
            bits[own] = kofn.allocate(
                scores=given[own], mean_budget=mean, bounds=(1, 8), method="reverse_water_filling"
            ).amounts
        split = min((judged(_split(sensitivity, layers, mean, s)) for s in SHARES), key=lambda row: row[0])
        out[mean] = {"baq": judged(bits), "uniform": judged(np.full(len(width), mean)), "two levels": split}
    return out


def _split(sensitivity: NDArray[np.float64], layers: Bits, mean: int, share: float) -> Bits:
    """In each layer one bit more for the most sensitive share of the groups, one fewer for as many of the least."""
    bits = np.full(len(layers), mean)
    for layer in np.unique(layers):
        order = np.flatnonzero(layers == layer)[np.argsort(-sensitivity[layers == layer])]
        moved = round(share * len(order))
        bits[order[:moved]] += 1
        bits[order[len(order) - moved :]] -= 1
    return bits


def _quantised(weights: list[Floats], bits: Bits) -> list[Floats]:
    """Each input's weights at the nearest of 2^bits evenly spaced levels in their range."""
    out, first = [], 0
    for weight in weights:
        own = bits[first : first + len(weight)][:, None]
        first += len(weight)
        low = weight.min(axis=1, keepdims=True)
        step = np.maximum(np.ptp(weight, axis=1, keepdims=True), 1e-12) / (2.0**own - 1)
        out.append((low + np.round((weight - low) / step) * step).astype(np.float32))
    return out
