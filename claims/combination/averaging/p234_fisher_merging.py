"""Merging by precision: each weight counts by how sure its model is of it, against means with tuned weights.

On prices of diamonds in cells of colour and clarity, where the answer is known; and on networks that were fine-tuned
from one start to different classes of the same data, scanned digits and diamonds.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.networks import State
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

GROUPS = {"digits": ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), "diamonds": ((0, 1, 2), (2, 3, 4))}
# Weights of the first model: as many are tried for every method, on the same rows.
SHARES = tuple(np.linspace(0.1, 0.9, 9).tolist())
ROWS = 192

Figures = dict[str, float]


@claim(
    paper=234,
    says="Where Fisher information is diagonal, merging by it is the pooled fit; diamonds' networks fine-tuned to "
    "different classes keep far more of both when merged by it than in a mean with tuned weights, digits' no more "
    "than three points less",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Fisher merging against tuned means; broken: all entries are held to be equally sure."""
    runs = 6 if scale == "small" else 20
    cells = [_cells(one, broken) for one in derive(seed, 5, stream=1)]
    measured: dict[str, Any] = {
        "cells": {name: max(row[name] for row in cells) for name in cells[0]},
    }
    met = [measured["cells"]["merged, off the pooled fit by"] <= 1e-8]
    for data, least in (("digits", -0.03), ("diamonds", 0.05)):
        rows = spread(functools.partial(_one, data=data, broken=broken), derive(seed, runs))
        lead = difference([row["fisher, tuned weight"] for row in rows], [row["mean, tuned weight"] for row in rows])
        plain = difference([row["fisher"] for row in rows], [row["mean"] for row in rows])
        measured[data] = {
            "fisher less mean, weights tuned for both": lead.figures(),
            "fisher less mean, weights equal": plain.figures(),
            "mean of every accuracy": {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]},
        }
        met.append(lead.above(least))
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="one-hot regression over shards merged to the pooled fit within 1e-8 of its largest entry; lower 95% "
        "limits of the paired difference of test accuracy over all classes above 5 points on diamonds and above -3 "
        "points on digits",
        baseline="the plain mean, its weight one of nine by accuracy on validation rows, as the Fisher merge's is",
        kind="reduced",
    )


def _cells(seed: int, broken: bool) -> Figures:
    """Mean log prices by colour and clarity, from shards of unlike size: their Fisher information is the counts."""
    from kofn import datasets
    from kofn.combination import fisher_merging

    data = datasets.load("diamonds")
    assert data.frame is not None
    assert data.y is not None
    codes = [
        np.unique(data.frame[name].to_numpy().astype(str), return_inverse=True)[1] for name in ("color", "clarity")
    ]
    cell, price = codes[0] * 8 + codes[1], np.log(data.y.astype(np.float64))
    rng = np.random.default_rng(seed)
    # Shards that differ in size and in what they hold, each with some of every cell.
    shard = rng.choice(4, len(cell), p=[0.55, 0.25, 0.15, 0.05])
    shard[(cell % 3 == 0) & (rng.random(len(cell)) < 0.6)] = 0

    def fit(rows: Any) -> tuple[Any, Any]:
        counts = np.bincount(cell[rows], minlength=56).astype(np.float64)
        return np.bincount(cell[rows], price[rows], minlength=56) / np.maximum(counts, 1), counts

    models, counts = zip(*(fit(shard == place) for place in range(4)), strict=True)
    pooled = fit(slice(None))[0]
    if broken:
        counts = tuple(np.ones_like(row) for row in counts)
    top = float(np.abs(pooled).max())
    merged = fisher_merging(list(models), fisher=list(counts)).result
    return {
        "merged, off the pooled fit by": float(np.abs(merged - pooled).max()) / top,
        "mean, off the pooled fit by": float(np.abs(np.mean(models, axis=0) - pooled).max()) / top,
    }


def _one(seed: int, *, data: str, broken: bool) -> Figures:
    from kofn.combination import fisher_merging

    whole = networks.task(data)
    base = networks.pretrain(networks.task(data, rows=200, seed=seed), hidden=(64,), seed=seed, steps=100)
    parts = [networks.task(data, classes=group) for group in GROUPS[data]]
    nets = [networks.finetune(base, part, seed=seed + place, steps=400) for place, part in enumerate(parts)]
    fisher = [_fisher(net, part.train.X[:ROWS], seed) for net, part in zip(nets, parts, strict=True)]
    if broken:
        fisher = [{name: np.ones_like(array) for name, array in one.items()} for one in fisher]

    def accuracy(state: Any) -> float:
        return networks.accuracy(state, whole.test.X, whole.test.y)

    def merged(share: float) -> State:
        weights = [share, 1 - share]
        return dict(fisher_merging(nets, fisher=fisher, weights=weights, balance=True).result)

    def averaged(share: float) -> State:
        return networks.average(nets, [share, 1 - share])

    def tuned(make: Any) -> State:
        made = [make(share) for share in SHARES]
        rated = [networks.accuracy(state, whole.valid.X, whole.valid.y) for state in made]
        best: State = made[int(np.argmax(rated))]
        return best

    return {
        "start": accuracy(base),
        "first": accuracy(nets[0]),
        "second": accuracy(nets[1]),
        "ensemble": networks.ensemble_accuracy(nets, whole.test.X, whole.test.y),
        "mean": accuracy(averaged(0.5)),
        "fisher": accuracy(merged(0.5)),
        "mean, tuned weight": accuracy(tuned(averaged)),
        "fisher, tuned weight": accuracy(tuned(merged)),
    }


def _fisher(net: State, X: Any, seed: int) -> dict[str, Any]:
    import torch

    from kofn.nn import diagonal_fisher

    torch.set_num_threads(1)
    return dict(diagonal_fisher(networks.module(net), [torch.from_numpy(X)], chunk=ROWS, seed=seed))
