"""Two of eight experts for each token: the layer held against the dense sum, and what the other six are good for.

Dense networks of two sizes stand beside it: one that computes as much for each token (two experts' hidden units, and as
many more as the router has weights for), one with the hidden units of all eight. All three are the same model with the
same optimiser, each tuned over four configurations on other runs.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import kofn
from claims import Evidence, claim
from claims.assignment.routing.p276_expert_choice import tasks
from claims.harness.data import digits
from claims.harness.layers import operations
from claims.harness.moe import Experts, Floats, Route
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

EXPERTS, WIDTH, STEPS, BATCH, RULES = 8, 32, 250, 192, 12
# Hidden units of an expert.
HIDDEN = {"tasks": 16, "digits": 8}
# Rate of the optimiser and weight of the auxiliary loss, which a dense network has no use for.
SPARSE = [(0.006, 0.0), (0.006, 0.02), (0.012, 0.0), (0.012, 0.02)]
DENSE = [(0.003, 0.0), (0.006, 0.0), (0.012, 0.0), (0.018, 0.0)]
TUNING_RUNS = 2
SIDES = {"top 2 of 8": SPARSE, "dense, equal active": DENSE, "dense, equal in all": DENSE}
Config = tuple[float, float]
Turn = tuple[str, str, Config, int]


@claim(
    paper=273,
    says="Top-2 of 8 experts, softmax over the kept, is the dense sum with zeroed gates at 2/8 of its operations, and "
    "on mixtures of functions it beats a dense network of equal active size; on synthetic ones it nears the large one",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """The layer's identities, and held-out losses; broken: the router sees the batch's mean in place of each token."""
    runs = 10 if scale == "small" else 40
    layer = _layer(seed, broken)
    measured: dict[str, Any] = {"layer of 8 SwiGLU experts": layer}
    met = [
        layer["most off the dense sum"] < 1e-10,
        layer["most that gates are off 1"] < 1e-12,
        layer["operations in experts, share of all eight"] == 2 / EXPERTS,
        layer["experts used by a batch"] == EXPERTS,
    ]
    kinds = list(HIDDEN)
    tuned = _tuned(kinds, seed, broken)
    seeds = derive(seed, runs, stream=2)
    turns = [(kind, side, tuned[kind, side], one) for kind in kinds for side in SIDES for one in seeds]
    losses = np.reshape(spread(functools.partial(_loss, broken=broken), turns), (len(kinds), len(SIDES), runs))
    for kind, (ours, active, whole) in zip(kinds, losses, strict=True):
        ahead = difference(np.log(active), np.log(ours))
        closed = difference(active - ours, 0.5 * (active - whole))
        measured[f"{kind}, held-out loss"] = {
            **{
                side: round(float(mean), 4)
                for side, mean in zip(SIDES, (ours.mean(), active.mean(), whole.mean()), strict=True)
            },
            "log of dense, equal active, over ours": ahead.figures(),
            "share of the gap closed": round(float((active - ours).mean() / (active - whole).mean()), 3),
            "gap closed beyond a half": closed.figures(),
            "tuned (rate, auxiliary loss)": {side: list(tuned[kind, side]) for side in SIDES},
        }
        met += [ahead.above(0.05), closed.above(0)] if kind == "tasks" else [ahead.above(0)]
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="equal to the dense sum to 1e-10, gates sum to 1, a quarter of the operations, all experts in use; "
        "losses: lower 95% limits of the mean log ratio > 0.05 and of the gap closed beyond a half > 0 on tasks, of "
        "the mean log ratio > 0 on digits",
        baseline="dense networks of equal active size (router's weights included) and with all experts' hidden units, "
        "as many configurations, each chosen on other runs",
        kind="reduced",
    )


def _layer(seed: int, broken: bool) -> dict[str, float]:
    """The torch layer against the sum of all experts with the other gates set to zero, operations counted."""
    import torch

    from kofn import nn

    torch.manual_seed(seed)
    n, width, hidden = 256, 24, 40
    experts = nn.Experts(EXPERTS, width, hidden).double()
    layer: Any = nn.MixtureOfExperts(nn.TopKRouter(width, EXPERTS, per_item=2).double(), experts)
    x = torch.randn(n, width, dtype=torch.float64)
    seen = x.mean(dim=0, keepdim=True).expand_as(x) if broken else x
    with torch.no_grad():
        routes = layer.router(seen)
        top, best = layer.router.linear(seen).topk(2, dim=1)
        gates = torch.zeros(n, EXPERTS, dtype=torch.float64).scatter(1, best, top.softmax(dim=1))
        every = x.expand(EXPERTS, -1, -1)
        whole = layer.experts(every)
        off = (layer(x, routes=routes) - torch.einsum("ne,end->nd", gates, whole)).abs().max()
        some, all_eight = (functools.partial(layer, x, routes=routes), functools.partial(layer.experts, every))
        share = operations(some) / operations(all_eight)
    return {
        "most off the dense sum": float(off),
        "most that gates are off 1": float((routes.dense().sum(dim=1) - 1).abs().max()),
        "operations in experts, share of all eight": share,
        "experts used by a batch": int((routes.loads > 0).sum()),
    }


def _tuned(kinds: list[str], seed: int, broken: bool) -> dict[tuple[str, str], Config]:
    """For each set and side the configuration of the lowest loss on runs of its own."""
    seeds = derive(seed, TUNING_RUNS, stream=1)
    turns = [(kind, side, one, run) for kind in kinds for side, able in SIDES.items() for one in able for run in seeds]
    means = np.reshape(spread(functools.partial(_loss, broken=broken), turns), (len(kinds), len(SIDES), -1, len(seeds)))
    best = means.mean(axis=3).argmin(axis=2)
    return {
        (kind, side): able[best[i, j]] for i, kind in enumerate(kinds) for j, (side, able) in enumerate(SIDES.items())
    }


def _loss(turn: Turn, *, broken: bool) -> float:
    """Train one model and give its loss on held-out rows."""
    kind, side, (rate, balance), seed = turn
    hidden, experts = HIDDEN[kind], 1
    if side == "top 2 of 8":
        experts = EXPERTS
    elif side == "dense, equal active":
        # The router's weights are spent on hidden units too.
        hidden = 2 * hidden + -(-WIDTH * EXPERTS // (2 * WIDTH + 1))
    else:
        hidden = EXPERTS * hidden
    X, Y, X_test, Y_test = problem(kind, seed)
    loss = "squared" if kind == "tasks" else "cross_entropy"
    model = Experts(
        X.shape[1],
        Y.shape[1],
        experts=experts,
        width=WIDTH,
        hidden=hidden,
        loss=loss,
        balance=balance,
        seed=seed % 2**31,
    )
    route = _route(min(2, experts), broken)
    model.train(X, Y, route, steps=STEPS, batch=BATCH, rate=rate)
    return model.value(X_test, Y_test, route)


def _route(per_item: int, broken: bool) -> Route:
    def route(scores: Floats) -> Any:
        seen = np.broadcast_to(scores.mean(axis=0), scores.shape) if broken else scores
        return kofn.assign(scores=seen, method="token_choice", per_item=per_item, gates="ones")

    return route


def problem(kind: str, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Rows and targets to train on, and others to test on."""
    rng = np.random.default_rng([seed, 9])
    if kind == "tasks":
        X, Y = tasks(rng, 6000)
        return X[:-1500], Y[:-1500], X[-1500:], Y[-1500:]
    return ruled_digits(rng)


def ruled_digits(
    rng: np.random.Generator, n: int = 12_000, tested: int = 2_000
) -> tuple[Floats, Floats, Floats, Floats]:
    """Scanned digits, each shown with one of several rules; a rule renames the ten classes in an order of its own."""
    data = digits()
    rows = rng.permutation(len(data))
    cut = len(rows) // 4
    names = np.stack([rng.permutation(10) for _ in range(RULES)])

    def draw(pool: Any, count: int) -> tuple[Floats, Floats]:
        at, rule = rng.choice(pool, count), rng.integers(0, RULES, count)
        X = np.hstack([data.X[at], np.eye(RULES, dtype=np.float32)[rule]])
        return X, np.eye(10, dtype=np.float32)[names[rule, data.y[at]]]

    return *draw(rows[cut:], n), *draw(rows[:cut], tested)
