"""Training within bytes: integer weights that learn as float ones do, and which layers and channels learn.

A network of five hidden layers is trained on scanned digits 0 to 4 and carried over to 5 to 9. Every contender has the
better of two rates on other seeds. Layers, shares of channels and biases are chosen by what each gains alone on rows to
choose on, under a quarter of the bytes that training everything takes.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from claims import Evidence, claim
from claims.harness import networks
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.allocation import sparse_update

HIDDEN, STEPS, SHORT = (48,) * 5, 120, 40
SHARES = (0.0, 0.25, 0.5, 1.0)
RATES = (0.03, 0.1)
# Float numbers of a gradient, and of an activation of each row of a batch.
BATCH, BYTES = 32, 4
PART = 0.25


@claim(
    paper=383,
    says="Quantisation-aware scaling makes integer weights learn as float ones do, where plain gradient descent stands "
    "still, and a searched set of layers, channels and biases is more accurate than the last layers or the biases at "
    "equal bytes",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Paired on the same starts; broken: gradients are not scaled, and the gains of the choices are mixed up."""
    runs = 6 if scale == "small" else 20
    seeds = derive(seed, runs)
    rows = spread(functools.partial(_trial, broken=broken), seeds)
    got = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    float_less = difference(got["float"], got["scaled"])
    over_raw = difference(got["scaled"], got["raw"])
    over_last = difference(got["searched"], got["last layers"])
    over_bias = difference(got["searched"], got["biases"])
    criteria = {
        "scaled: |w| / |g| within 0.1 of float's, in log10": float(got["ratio off, scaled"].max()) < 0.1,
        "raw: |w| / |g| off by more than 2, in log10": float(got["ratio off, raw"].min()) > 2,
        "scaled integers at most a point below float": float_less.high < 0.01,
        "scaled integers above raw ones": over_raw.above(0.0),
        "searched above the last layers": over_last.above(0.0),
        "searched above the biases": over_bias.above(0.0),
        "bytes are kept": bool((got["bytes"] <= got["budget"]).all()),
    }
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "float - scaled": float_less.figures(),
            "scaled - raw": over_raw.figures(),
            "searched - last layers": over_last.figures(),
            "searched - biases": over_bias.figures(),
            "means": {name: round(float(values.mean()), 4) for name, values in got.items()},
        },
        expected="log ratios of weights to gradients within 0.1 of float's where scaled, off by more than 2 where not; "
        "the upper 95% limit of float's lead below a point; lower limits above 0 of the lead over raw integers, and "
        "of searched updates over the last layers and over biases at equal bytes",
        baseline="float training, raw integers with the better of two rates; as many last layers as the bytes "
        "hold, and all biases, each with the better of two rates",
        kind="reduced",
    )


def _trial(seed: int, *, broken: bool) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    first = networks.task("digits", classes=(0, 1, 2, 3, 4))
    second = networks.task("digits", classes=(5, 6, 7, 8, 9))
    base = networks.pretrain(first, hidden=HIDDEN, seed=seed % 5, steps=300)
    data = {
        part: (torch.from_numpy(rows.X), torch.from_numpy(rows.y))
        for part, rows in (("train", second.train), ("valid", second.valid), ("test", second.test))
    }
    out: dict[str, float] = {}
    ratios: dict[str, Any] = {}
    for name in ("float", "scaled", "raw"):
        scaled = name == "scaled" and not broken
        accuracies = []
        for rate in RATES:
            model = networks.module(base)
            if name != "float":
                _quantize(model, scaled)
            ratios[name] = _ratios(model, data["train"])
            _train(model, data["train"], rate, STEPS, seed)
            accuracies.append([_accuracy(model, data[part]) for part in ("valid", "test")])
        out[name] = max(accuracies)[1]
    for name in ("scaled", "raw"):
        out[f"ratio off, {name}"] = float(np.abs(ratios[name] - ratios["float"]).max())
    return {**out, **_chosen(base, data, seed, broken)}


def _chosen(base: Any, data: Any, seed: int, broken: bool) -> dict[str, float]:
    """The accuracy of searched updates, of the last layers and of the biases, within the same bytes."""
    shapes = [base[f"{2 * i}.weight"].shape for i in range(len(HIDDEN) + 1)]
    weight = np.array([rows * columns * BYTES for rows, columns in shapes])
    kept = np.array([columns * BATCH * BYTES for _, columns in shapes])
    own = np.array([rows * BYTES for rows, _ in shapes])
    budget = float(PART * (weight + kept + own).sum())

    def after(shares: dict[str, float], biases: int, rate: float, steps: int, part: str) -> float:
        from kofn.nn import limit_updates

        model = networks.module(base)
        if not limit_updates(model, shares, biases=biases):
            return 0.0
        _train(model, data["train"], rate, steps, seed)
        return _accuracy(model, data[part])

    def best(shares: dict[str, float], biases: int) -> float:
        return max((after(shares, biases, r, STEPS, "valid"), after(shares, biases, r, STEPS, "test")) for r in RATES)[
            1
        ]

    layers = len(shapes)
    start = _accuracy(networks.module(base), data["valid"])
    gains = np.zeros((layers, len(SHARES)))
    for layer in range(layers):
        for level, share in enumerate(SHARES[1:], 1):
            gains[layer, level] = after({f"{2 * layer}": share}, 0, RATES[-1], SHORT, "valid") - start
    more = np.array([after({}, last, RATES[-1], SHORT, "valid") - start for last in range(1, layers + 1)])
    if broken:
        rng = np.random.default_rng(seed)
        gains[:, 1:] = rng.permutation(gains[:, 1:].ravel()).reshape(layers, -1)
    plan = sparse_update(
        gains, shares=SHARES, budget=budget, weight_bytes=weight, activation_bytes=kept, bias_gains=more, bias_bytes=own
    )
    shares = {f"{2 * layer}": float(share) for layer, share in enumerate(plan.amounts) if share}
    last, used = 0, 0
    while last < layers and used + (weight + kept + own)[layers - 1 - last] <= budget:
        used += (weight + kept + own)[layers - 1 - last]
        last += 1
    return {
        "searched": best(shares, plan.info["biases"]),
        "last layers": best({f"{2 * (layers - 1 - i)}": 1.0 for i in range(last)}, last),
        "biases": best({}, layers),
        "bytes": float(plan.used["bytes"]),
        "budget": budget,
        "layers that learn": float((plan.amounts > 0).sum()),
    }


def _quantize(model: Any, scaled: bool) -> None:
    import torch

    from kofn.nn import QuantizedLinear

    for name, layer in list(model.named_children()):
        if isinstance(layer, torch.nn.Linear):
            setattr(model, name, QuantizedLinear(layer, scaled=scaled))


def _ratios(model: Any, rows: Any) -> Any:
    """log10 of |w| / |g| of each layer's weights, in the units in which they are stored."""
    import torch

    model.zero_grad()
    torch.nn.functional.cross_entropy(model(rows[0]), rows[1]).backward()
    weights = [p for p in model.parameters() if p.ndim == 2]
    return np.array([float(torch.log10(w.detach().norm() / w.grad.norm())) for w in weights])


def _train(model: Any, rows: Any, rate: float, steps: int, seed: int) -> None:
    import torch

    rng = np.random.default_rng(seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    optimizer = torch.optim.SGD(weights, lr=rate, momentum=0.9)
    for _ in range(steps):
        picks = torch.from_numpy(rng.integers(0, len(rows[0]), BATCH))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(rows[0][picks]), rows[1][picks]).backward()
        optimizer.step()


def _accuracy(model: Any, rows: Any) -> float:
    import torch

    with torch.no_grad():
        return float((model(rows[0]).argmax(dim=1) == rows[1]).float().mean())
