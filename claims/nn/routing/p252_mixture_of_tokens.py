"""Mixtures of tokens in place of routes: loads, gradients and leaks counted, and the loss they are trained to.

Groups of 8 tokens at one position of different examples, 8 experts: every expert processes as many tokens as one of a
top-1 layer does on average. The dense layer beside them has as many operations in all, the controller's and those
of mixing and giving back included.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import kofn
from claims import Evidence, claim
from claims.assignment.routing.p276_expert_choice import tasks
from claims.harness.layers import Floats, dense, loss_of, network, operations, train
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

EXPERTS, GROUP, WIDTH, HIDDEN, STEPS = 8, 8, 32, 32, 200
# Batches of 64 examples of 4 positions each: lines of verse, or points that have nothing to do with each other.
BATCH, POSITIONS, CONTEXT = 64, 4, 5
RATES = (0.012, 0.024)
SIDES = ("mixture of tokens", "top-1 experts", "dense")
KINDS = {"verses": "cross_entropy", "tasks": "squared"}
Turn = tuple[str, str, float, int]


@claim(
    paper=252,
    says="Mixing tokens of different examples loads all experts alike, drops no token, trains each expert at each step "
    "and leaks across no position; its loss is no higher than that of top-1 experts and below that of a dense layer",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Counters and held-out losses; broken: each expert takes one token of the group (temperature 0)."""
    runs = 10 if scale == "small" else 40
    measured: dict[str, Any] = {}
    layer = _layer(seed, broken)
    measured["layer of 8 experts, groups of 8"] = layer
    met = [
        layer["bins of another weight"] == 0,
        layer["tokens dropped"] == 0,
        layer["positions that see others"] == 0,
        layer["operations, dense over ours"] >= 1,
    ]
    seeds = derive(seed, runs, stream=2)
    for kind in KINDS:
        # Differences on the points are dozens of times their spread.
        seeds = seeds if kind == "verses" else seeds[: runs // 2]
        tuned = {side: _tuned(kind, side, seed, broken) for side in SIDES}
        turns = [(kind, side, tuned[side], one) for side in SIDES for one in seeds]
        found = spread(functools.partial(_run, broken=broken), turns)
        losses = np.reshape([loss for loss, _ in found], (len(SIDES), len(seeds)))
        starved = np.reshape([share for _, share in found], (len(SIDES), len(seeds))).mean(axis=1)
        routed, whole = (difference(losses[i], losses[0]) for i in (1, 2))
        measured[f"{kind}, held-out loss"] = {
            **{side: round(float(mean), 4) for side, mean in zip(SIDES, losses.mean(axis=1), strict=True)},
            "top-1 experts over ours": routed.figures(),
            "dense over ours": whole.figures(),
            "share of experts without a gradient, a step": dict(
                zip(SIDES[:2], starved[:2].round(4).tolist(), strict=True)
            ),
            "tuned rate": tuned,
        }
        met += [starved[0] == 0, starved[1] > 0.01, routed.above(-0.01), whole.above(0)]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="all bins of weight 1 in each group, no token dropped, no position sees another, no expert without "
        "a gradient in any step (top-1: more than 1%); lower 95% limits of the mean leads: top-1 > -0.01, dense > 0",
        baseline="top-1 experts of the same size without a balance loss, and a dense layer of as many operations in "
        "all, each with as many rates, chosen on other runs",
        kind="reduced",
    )


def _layer(seed: int, broken: bool) -> dict[str, float]:
    """Weights of the bins, what a position sees of others, and operations."""
    import torch

    rng = np.random.default_rng([seed, 3])
    scores = 3 * rng.normal(size=(512, EXPERTS))
    groups = np.repeat(np.arange(512 // GROUP), GROUP)
    plan = kofn.assign(scores=scores, groups=groups, method="soft_mixing", temperature=0.0 if broken else 1.0)
    held = np.zeros((512 // GROUP, EXPERTS))
    np.add.at(held, (groups[np.repeat(np.arange(512), np.diff(plan.indptr))], plan.bins), plan.weights)
    layer = _make("mixture of tokens", broken)
    x = torch.randn(BATCH, 6, WIDTH, requires_grad=True)
    out = layer(x)
    seen = 0
    for position in range(6):
        (slope,) = torch.autograd.grad(out[:, position].sum(), x, retain_graph=True)
        seen += int((slope.abs().sum(dim=(0, 2)) > 0).sum()) - 1
    plain = _make("dense", broken)
    return {
        "tokens dropped": int((np.diff(plan.indptr) == 0).sum()),
        "bins of another weight": int((np.abs(held - 1) > 1e-12).sum()),
        "positions that see others": seen,
        "operations, dense over ours": operations(lambda: plain(x)) / operations(lambda: layer(x)),
    }


def _make(side: str, broken: bool) -> Any:
    from kofn import nn

    if side == "dense":
        # Controller, mixing and giving back cost 2 x width operations each for every expert and token.
        return dense(WIDTH, HIDDEN + -(-6 * EXPERTS // 4))
    experts = nn.Experts(EXPERTS, WIDTH, HIDDEN, activation="relu", bias=True)
    if side == "top-1 experts":
        return nn.MixtureOfExperts(nn.TopKRouter(WIDTH, EXPERTS, per_item=1, gates="raw"), experts)
    return nn.MixtureOfTokens(WIDTH, experts, group=GROUP, temperature=0.0 if broken else 1.0)


def _tuned(kind: str, side: str, seed: int, broken: bool) -> float:
    """The rate of the lowest loss on a run of its own."""
    (one,) = derive(seed, 1, stream=1)
    found = spread(functools.partial(_run, broken=broken), [(kind, side, rate, one) for rate in RATES])
    return RATES[int(np.argmin([loss for loss, _ in found]))]


def _run(turn: Turn, *, broken: bool) -> tuple[float, float]:
    """Train one model; its loss on held-out examples, and the share of experts that a step gave no gradient."""
    import torch

    kind, side, rate, seed = turn
    X, Y, X_test, Y_test = _problem(kind, seed)
    model = network(X.shape[2], Y.shape[2], WIDTH, functools.partial(_make, side, broken), seed)
    starved: list[float] = []

    def after(model: Any) -> None:
        if side != "dense":
            slopes = torch.stack([part.grad.flatten(1).abs().amax(dim=1) for part in model.layer.experts.parameters()])
            starved.append(float((slopes.amax(dim=0) == 0).float().mean()))

    train(model, X, Y, kind=KINDS[kind], steps=STEPS, batch=BATCH, rate=rate, seed=seed, after=after)
    with torch.no_grad():
        loss = float(loss_of(model(torch.as_tensor(X_test)), torch.as_tensor(Y_test), KINDS[kind]))
    return loss, float(np.mean(starved or [0.0]))


def _problem(kind: str, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Examples (n, positions, inputs) and their targets to train on, and others to test on."""
    rng = np.random.default_rng([seed, 9])
    if kind == "tasks":
        X, Y = tasks(rng, 6144)
        X, Y = X.reshape(-1, POSITIONS, X.shape[1]), Y.reshape(-1, POSITIONS, Y.shape[1])
        return X[:-320], Y[:-320], X[-320:], Y[-320:]
    code, letters = _letters()
    half = len(code) // 2
    return *_draw(rng, code[:half], letters, 5000), *_draw(rng, code[half:], letters, 1024)


def _draw(rng: np.random.Generator, code: Any, letters: int, count: int) -> tuple[Floats, Floats]:
    """Runs of letters: each position sees the few before it and is to tell the next."""
    starts = rng.integers(0, len(code) - CONTEXT - POSITIONS, count)
    runs = np.eye(letters, dtype=np.float32)[code[starts[:, None] + np.arange(CONTEXT + POSITIONS)]]
    X = np.stack([runs[:, at : at + CONTEXT].reshape(count, -1) for at in range(POSITIONS)], axis=1)
    return X, runs[:, CONTEXT:]


@functools.cache
def _letters() -> tuple[Any, int]:
    """The first 4,000 verses as one row of letter numbers."""
    from kofn import datasets

    texts = datasets.load("verses").texts
    assert texts is not None
    letters, code = np.unique(list(" ".join(texts[:4000]).lower()), return_inverse=True)
    return code, len(letters)
