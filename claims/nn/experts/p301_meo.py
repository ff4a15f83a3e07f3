"""Experts merged into one before the input: what equals the mixture, what it costs, and what several are good for.

Each sequence is scanned digits under one rule that renames the classes, or points around one centre with one linear
map; the gates are those of its mean. The baseline is a layer of the same experts of which each sequence uses one.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

import kofn
from claims import Evidence, claim
from claims.harness.data import digits
from claims.harness.layers import Floats, loss_of, network, operations, train
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

EXPERTS, WIDTH, HIDDEN, CHOSEN = 8, 24, 8, 4
MODES, LENGTH, BATCH, STEPS = 12, 32, 16, 220
KINDS = {"digits": "cross_entropy", "points": "squared"}
# Rate of the optimiser and what the gates are: one expert alone has a share of 1, which teaches its router nothing.
CONFIGS = list(itertools.product((0.008, 0.02), ("share", "raw")))
SIDES = ("merged 4 of 8", "one of 8")
SHOWN = ("mixture of 4 of 8", "merged 4 of 8, token attention")
SHOWN_RUNS = 3
Config = tuple[float, str]
Turn = tuple[str, str, Config, int]


@claim(
    paper=301,
    says="Linear experts merged by their gates are the mixture exactly, at the operations of one expert however many "
    "are chosen; merging 4 of 8 for each sequence gives a lower loss than using one, at under 1.3 times its operations",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Identities, operations and held-out losses; broken: all experts are merged evenly, whatever the gates."""
    runs = 10 if scale == "small" else 40
    layer = _layer(seed, broken)
    measured: dict[str, Any] = {"linear experts": layer, "operations": (costs := _operations(broken))}
    ones = costs["merged, over one expert's"]
    met = [
        layer["most off the mixture"] < 1e-12,
        layer["most off the weighted mean of state dicts"] < 1e-12,
        min(ones) == max(ones) < 1.3,
        costs["mixture, over one expert's"] == [float(count) for count in range(1, EXPERTS + 1)],
    ]
    seeds = derive(seed, runs, stream=2)
    for kind in KINDS:
        tuned = {side: _tuned(kind, side, seed, broken) for side in SIDES}
        turns = [(kind, side, config, one) for side, config in tuned.items() for one in seeds]
        ours, theirs = np.reshape(spread(functools.partial(_loss, broken=broken), turns), (2, runs))
        ahead = difference(np.log(theirs), np.log(ours))
        measured[f"{kind}, held-out loss"] = {
            "merged 4 of 8": round(float(ours.mean()), 4),
            "one of 8": round(float(theirs.mean()), 4),
            "log of one of 8 over merged": ahead.figures(),
            "tuned (rate, gates)": {side: list(config) for side, config in tuned.items()},
        }
        met.append(ahead.above(0.05 if kind == "digits" else 0.0))
        if kind == "digits":
            turns = [(kind, side, tuned["merged 4 of 8"], one) for side in SHOWN for one in seeds[:SHOWN_RUNS]]
            found = np.reshape(spread(functools.partial(_loss, broken=broken), turns), (len(SHOWN), -1)).mean(axis=1)
            measured[f"digits, held-out loss on {SHOWN_RUNS} of the runs, not judged"] = {
                "merged 4 of 8": round(float(ours[:SHOWN_RUNS].mean()), 4),
                **dict(zip(SHOWN, found.round(4).tolist(), strict=True)),
            }
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="linear experts equal to 1e-12 on both roads; merged operations the same for 1 to 8 chosen and < 1.3 "
        "of one expert's, the mixture's as many as are chosen; lower 95% limit of the mean log ratio of losses > 0.05 "
        "on digits, > 0 on points",
        baseline="the same experts, one for each sequence, with gates that teach the router or not, as many "
        "configurations, each chosen on another run",
        kind="reduced",
    )


def _layer(seed: int, broken: bool) -> dict[str, Any]:
    """Merged linear experts against their mixture, and against a weighted mean of their state dicts."""
    import torch

    from kofn import nn

    torch.manual_seed(seed)
    x = torch.randn(5, LENGTH, WIDTH, dtype=torch.float64)
    off: list[float] = []
    apart: list[float] = []
    through: list[float] = []
    for chosen in (1, 2, CHOSEN, EXPERTS):
        experts = nn.Experts(EXPERTS, WIDTH, outputs=10, bias=True).double()
        router = nn.TopKRouter(WIDTH, EXPERTS, chosen).double()
        merged = nn.MergedExperts(_evenly() if broken else router, experts)
        mixture = nn.MixtureOfExperts(router, experts)
        routes = router(x.mean(dim=1))
        off.append(float((merged(x) - mixture(x, routes=_of_tokens(routes, LENGTH))).detach().abs().max()))
        gates = merged.router(x.mean(dim=1)).dense()
        members = [{name: part.detach() for name, part in member.items()} for member in experts.members()]
        for gate, one in zip(routes.dense().detach().numpy(), experts.merged(gates)["w1"], strict=True):
            blend = kofn.combine(members, weights=gate, method="weighted_mean", normalize=False)
            apart.append(float(np.abs(one.detach().numpy() - np.asarray(blend.result["w1"])).max()))
        deep = nn.Experts(EXPERTS, WIDTH, HIDDEN, activation="relu", bias=True).double()
        want = nn.MixtureOfExperts(router, deep)(x, routes=_of_tokens(routes, LENGTH))
        through.append(float((deep.merge(gates, x) - want).detach().norm() / want.detach().norm()))
    return {
        "most off the mixture": max(off),
        "most off the weighted mean of state dicts": max(apart),
        "ReLU experts: off the mixture, share, for 1, 2, 4, 8 chosen": np.round(through, 3).tolist(),
    }


def _operations(broken: bool) -> dict[str, list[float]]:
    """For 1 to 8 experts chosen, over the operations of one expert on every token."""
    import torch

    from kofn import nn

    experts = nn.Experts(EXPERTS, WIDTH, HIDDEN, activation="relu", bias=True)
    x = torch.randn(BATCH, LENGTH, WIDTH)
    one = operations(lambda: experts[0](x))
    merged, mixed = [], []
    for chosen in range(1, EXPERTS + 1):
        router = _evenly().float() if broken else nn.TopKRouter(WIDTH, EXPERTS, chosen)
        merged.append(operations(functools.partial(nn.MergedExperts(router, experts), x)) / one)
        routes = _of_tokens(nn.TopKRouter(WIDTH, EXPERTS, chosen)(x.mean(dim=1)), LENGTH)
        mixed.append(operations(functools.partial(nn.MixtureOfExperts(router, experts), x, routes=routes)) / one)
    return {"merged, over one expert's": merged, "mixture, over one expert's": mixed}


def _evenly() -> Any:
    """A router that gives every expert the same share."""
    import torch

    from kofn import nn

    return nn.Router(
        WIDTH, EXPERTS, lambda scores: nn.token_choice(torch.zeros_like(scores), per_item=EXPERTS)
    ).double()


def _of_tokens(routes: Any, length: int) -> Any:
    """The routes of sequences as routes of all their tokens."""
    import torch

    from kofn import nn

    tokens = (routes.items[:, None] * length + torch.arange(length)).flatten()
    return nn.Routes(
        routes.scores.repeat_interleave(length, dim=0),
        tokens,
        routes.bins.repeat_interleave(length),
        routes.weights.repeat_interleave(length),
    )


def _make(side: str, gates: str, broken: bool) -> Any:
    import torch

    from kofn import nn

    experts = nn.Experts(EXPERTS, WIDTH, HIDDEN, activation="relu", bias=True)
    chosen = 1 if side == "one of 8" else CHOSEN
    router: Any = nn.TopKRouter(WIDTH, EXPERTS, chosen, gates=gates)
    if side.startswith("merged"):
        attention = nn.TokenAttention(WIDTH, reduce=4) if side.endswith("attention") else None
        return nn.MergedExperts(_evenly().float() if broken else router, experts, attention=attention)

    class BySequence(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixture = nn.MixtureOfExperts(router, experts)

        def forward(self, x: Any) -> Any:
            return self.mixture(x, routes=_of_tokens(router(x.mean(dim=1)), x.shape[1]))

    return BySequence()


def _tuned(kind: str, side: str, seed: int, broken: bool) -> Config:
    """The configuration of the lowest loss on a run of its own."""
    (one,) = derive(seed, 1, stream=1)
    losses = spread(functools.partial(_loss, broken=broken), [(kind, side, config, one) for config in CONFIGS])
    return CONFIGS[int(np.argmin(losses))]


def _loss(turn: Turn, *, broken: bool) -> float:
    """Train one model and give its loss on held-out sequences."""
    import torch

    kind, side, (rate, gates), seed = turn
    X, Y, X_test, Y_test = (_digits if kind == "digits" else _points)(np.random.default_rng([seed, 9]))
    model = network(X.shape[2], Y.shape[2], WIDTH, functools.partial(_make, side, gates, broken), seed)
    train(model, X, Y, kind=KINDS[kind], steps=STEPS, batch=BATCH, rate=rate, seed=seed)
    with torch.no_grad():
        return float(loss_of(model(torch.as_tensor(X_test)), torch.as_tensor(Y_test), KINDS[kind]))


def _digits(rng: np.random.Generator, n: int = 1000, tested: int = 200) -> tuple[Floats, Floats, Floats, Floats]:
    """Sequences of scanned digits, each sequence shown with one rule that renames the ten classes."""
    data = digits()
    rows = rng.permutation(len(data))
    cut = len(rows) // 4
    names = np.stack([rng.permutation(10) for _ in range(MODES)])

    def draw(pool: Any, count: int) -> tuple[Floats, Floats]:
        at, rule = rng.choice(pool, (count, LENGTH)), rng.integers(0, MODES, count)
        shown = np.broadcast_to(np.eye(MODES, dtype=np.float32)[rule][:, None], (count, LENGTH, MODES))
        return np.concatenate([data.X[at], shown], axis=2), np.eye(10, dtype=np.float32)[
            names[rule[:, None], data.y[at]]
        ]

    return *draw(rows[cut:], n), *draw(rows[:cut], tested)


def _points(rng: np.random.Generator, n: int = 1000, tested: int = 200) -> tuple[Floats, Floats, Floats, Floats]:
    """Sequences of points around one of several centres, each centre with a linear map of its own to learn."""
    d, outputs = 16, 8
    centres = 1.5 * rng.normal(size=(MODES, d))
    maps = rng.normal(size=(MODES, d, outputs)) / np.sqrt(d)

    def draw(count: int) -> tuple[Floats, Floats]:
        mode, apart = rng.integers(0, MODES, count), 0.7 * rng.normal(size=(count, LENGTH, d))
        return (centres[mode][:, None] + apart).astype(np.float32), (apart @ maps[mode]).astype(np.float32)

    return *draw(n), *draw(tested)
