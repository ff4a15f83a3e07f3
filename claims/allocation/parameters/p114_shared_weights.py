"""Weights over one small store, against networks pruned at the start to as many weights, on scanned digits.

A network of two hidden layers of 256 is trained with a tenth and a hundredth of its weights stored. Pruning keeps as
many by SNIP's sensitivities or at random, of all layers together. Each has the better of two rates, by rows to choose
on. Stability is judged by gradient descent over stores of unlike size.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

HIDDEN, STEPS, BATCH = 256, 200, 128
RATIOS = (10, 100)
RATES = (3e-3, 1e-2)
PRUNED = ("SNIP", "random")
DEVIATIONS = (1e-3, 1e-1, 1e1)


@claim(
    paper=114,
    says="Sharing weights over a small store is as accurate as pruning at the start to as many weights, by more the "
    "fewer are kept, and with rescaled gradients it does not depend on how large the stored weights are; with as many "
    "stored as there are the network is as before",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired on the same starts; broken: gradients are not rescaled, and all weights are the first stored ones."""
    runs = 5 if scale == "small" else 15
    seeds = derive(seed, runs)
    measured: dict[str, Any] = {}
    criteria: dict[str, bool] = {}
    leads = {}
    for ratio in RATIOS:
        rows = spread(functools.partial(_trial, ratio=ratio, broken=broken), seeds)
        got = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        best = max(PRUNED, key=lambda name: float(got[name].mean()))
        leads[ratio] = got["shared"] - got[best]
        lead = difference(got["shared"], got[best])
        criteria[f"a {ratio}th: at most a point below the best pruning"] = lead.above(-0.01)
        measured[f"a {ratio}th"] = {
            "shared - best pruning": lead.figures(),
            "best pruning": best,
            "means": {name: round(float(values.mean()), 4) for name, values in got.items()},
        }
    more = difference(leads[RATIOS[-1]], leads[RATIOS[0]])
    measured["lead at the least store - at the larger"] = more.figures()
    criteria["a larger lead at the least store"] = more.above(0.0)
    stable = spread(functools.partial(_stable, rescale=not broken), seeds[:3])
    measured["accuracy by descent, stores of deviation 0.001, 0.1 and 10"] = np.round(stable, 4).tolist()
    measured["the same without rescaled gradients"] = np.round(_stable(seeds[0], rescale=False), 4).tolist()
    criteria["within two points over sizes of the stored weights"] = bool((np.ptp(stable, axis=1) <= 0.02).all())
    off = _unshared(seeds[0])
    measured["largest difference of logits with all weights stored"] = off
    criteria["as before with as many stored"] = off < 1e-5
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences of test accuracy: at most a point below the best pruning at "
        "either size, and a larger lead at a hundredth than at a tenth; accuracies within two points over stores of "
        "deviation 0.001 to 10; the same logits with as many stored",
        baseline="pruning at the start by SNIP and at random to as many weights, the best on the test rows; "
        "all with the better of two rates",
        kind="reduced",
    )


def _net(seed: int) -> Any:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed % 2**31)
    return torch.nn.Sequential(
        torch.nn.Linear(64, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, 10),
    )


def _rows() -> dict[str, Any]:
    import torch

    task = networks.task("digits")
    parts = (("train", task.train), ("valid", task.valid), ("test", task.test))
    return {name: (torch.from_numpy(part.X), torch.from_numpy(part.y)) for name, part in parts}


def _trial(seed: int, *, ratio: int, broken: bool) -> dict[str, float]:
    import torch

    from kofn.nn import SharedWeights

    data = _rows()
    weights = 64 * HIDDEN + HIDDEN * HIDDEN + 10 * HIDDEN
    budget = weights // ratio // 64 * 64
    out = {}
    for name in ("shared", *PRUNED):
        tried = []
        for rate in RATES:
            model = _net(seed)
            masks = None
            if name == "shared":
                shared = SharedWeights(model, budget, seed=seed % 1000, rescale=not broken)
                if broken:
                    for layer in shared.layers.values():
                        torch.as_tensor(layer.order).zero_()
            else:
                masks = _masks(model, name, budget, data["train"], seed)
            _train(model, data["train"], rate, seed, masks)
            tried.append([_accuracy(model, data[part]) for part in ("valid", "test")])
        out[name] = max(tried)[1]
    return out


def _masks(model: Any, kind: str, budget: int, rows: Any, seed: int) -> list[Any]:
    """Which weights of each layer are kept."""
    import torch

    layers = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    if kind == "SNIP":
        torch.nn.functional.cross_entropy(model(rows[0][:500]), rows[1][:500]).backward()
        scores = [(layer.weight * torch.as_tensor(layer.weight.grad)).abs().detach() for layer in layers]
        model.zero_grad()
    else:
        generator = torch.Generator().manual_seed(seed % 2**31)
        scores = [torch.rand(layer.weight.shape, generator=generator) for layer in layers]
    least = torch.cat([score.reshape(-1) for score in scores]).topk(budget).values[-1]
    return [(score >= least).float() for score in scores]


def _train(model: Any, rows: Any, rate: float, seed: int, masks: Any = None, *, descent: bool = False) -> None:
    import torch

    rng = np.random.default_rng(seed)
    make = torch.optim.SGD if descent else functools.partial(torch.optim.Adam, fused=True)
    optimizer = make(model.parameters(), lr=rate)
    layers = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    for step in range(STEPS):
        if masks is not None:
            with torch.no_grad():
                for layer, mask in zip(layers, masks, strict=True):
                    layer.weight.mul_(mask)
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / STEPS)
        picks = torch.from_numpy(rng.integers(0, len(rows[0]), BATCH))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(rows[0][picks]), rows[1][picks]).backward()
        optimizer.step()
    if masks is not None:
        with torch.no_grad():
            for layer, mask in zip(layers, masks, strict=True):
                layer.weight.mul_(mask)


def _accuracy(model: Any, rows: Any) -> float:
    import torch

    with torch.no_grad():
        return float((model(rows[0]).argmax(dim=1) == rows[1]).float().mean())


def _stable(seed: int, *, rescale: bool) -> list[float]:
    """The test accuracy by gradient descent over stores whose weights are of unlike size."""
    from kofn.nn import SharedWeights

    data, out = _rows(), []
    for deviation in DEVIATIONS:
        model = _net(seed)
        SharedWeights(model, 8192, deviation=deviation, rescale=rescale)
        _train(model, data["train"], 0.05, seed, descent=True)
        out.append(_accuracy(model, data["test"]))
    return out


def _unshared(seed: int) -> float:
    from kofn.nn import SharedWeights

    model, rows = _net(seed), _rows()["test"][0]
    before = model(rows).detach()
    SharedWeights(model, 64 * HIDDEN + HIDDEN * HIDDEN + 10 * HIDDEN)
    return float((model(rows).detach() - before).abs().max())
