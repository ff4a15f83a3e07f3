"""Mixup of networks as data: which frequency a small sine network represents, told from its weights.

Networks of one hidden layer of sines each fit a wave of one of three bands of frequencies, from a start of their own.
A classifier that is indifferent to the order of units (a sum over units of a function of each one's weights) learns the
band from few of them; augmented by noise on weights, by mixup of weights as they are, and by mixup after matching.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive
from kofn.combination import mix_networks

BANDS, UNITS, POINTS = 3, 16, 48
POOL, TRAIN, VALID = 700, 200, 150
DRAWS = 3  # mixed or noisy copies of the training networks
SETTINGS = {"plain": (0.0, 1e-3), "noise": (0.05, 0.2), "unmatched mixup": (0.4, 1.0), "matched mixup": (0.4, 1.0)}

Floats = NDArray[np.float32]
State = dict[str, Floats]


@claim(
    paper=202,
    says="A classifier of small networks by their weights errs less when it learns from pairs mixed after their units "
    "are matched than from the networks alone, with noise, or mixed as they are; halfway between two matched networks "
    "of one band the weights compute more of what both do than unmatched ones",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Augmented classifiers; broken: networks are mixed as they are in all arms."""
    runs = 10 if scale == "small" else 30
    seeds = derive(seed, runs)
    nets, bands = _waves(np.random.default_rng(seeds[0]))
    halves = _halfway(nets, bands, seeds[0], broken)
    accuracy = _accuracies(nets, bands, seeds, broken)
    gaps = {arm: difference(accuracy["matched mixup"], accuracy[arm]) for arm in SETTINGS if arm != "matched mixup"}
    middle = difference(halves["as they are"], halves["matched"])
    criteria = {f"ahead of {arm}": gap.above(0) for arm, gap in gaps.items()}
    criteria["halfway nearer to both when matched"] = middle.above(0)
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured={
            "accuracy": {arm: round(float(values.mean()), 4) for arm, values in accuracy.items()},
            "matched mixup less": {arm: gap.figures() for arm, gap in gaps.items()},
            "squared distance halfway from the mean of both": {
                name: round(float(values.mean()), 5) for name, values in halves.items()
            },
            "as they are less matched": middle.figures(),
        },
        expected="lower 95% limits over draws of training networks of paired differences in accuracy above 0; the same "
        "over pairs for the squared distance of the halfway network's function from the mean of both",
        baseline="no augmentation with two weight decays; noise of two sizes, and mixup as the weights are with two "
        "laws, as many copies and steps; each arm with the better setting on held-out networks",
        kind="reduced",
    )


def _waves(rng: np.random.Generator) -> tuple[list[State], Any]:
    """Sine networks, each fitted by Adam to a wave of its band, side by side."""
    import torch

    torch.set_num_threads(1)
    bands = rng.integers(0, BANDS, POOL)
    frequency = (bands + rng.random(POOL)) * 0.5 + 0.5
    grid = np.linspace(-1, 1, POINTS)
    waves = np.sin(np.pi * frequency[:, None] * grid + rng.uniform(0, 2 * np.pi, POOL)[:, None])
    start = [
        1.5 * rng.normal(size=(POOL, 1, UNITS)),
        rng.normal(size=(POOL, 1, UNITS)),
        rng.normal(size=(POOL, UNITS, 1)) / 4,
    ]
    tensors = [torch.tensor(part, dtype=torch.float32, requires_grad=True) for part in (*start, np.zeros((POOL, 1, 1)))]
    w, b, v, c = tensors
    x, wanted = torch.tensor(grid, dtype=torch.float32)[:, None], torch.tensor(waves, dtype=torch.float32)[:, :, None]
    learner = torch.optim.Adam(tensors, lr=2e-2)
    for _ in range(400):
        loss = (torch.sin(x @ w + b) @ v + c - wanted).square().mean(dim=(1, 2)).sum()
        learner.zero_grad()
        loss.backward()
        learner.step()
    into, shift, out, lift = (tensor.detach().numpy() for tensor in tensors)
    return [
        {
            "0.weight": into[i].T.copy(),
            "0.bias": shift[i, 0].copy(),
            "2.weight": out[i].T.copy(),
            "2.bias": lift[i, 0].copy(),
        }
        for i in range(POOL)
    ], bands


def _run(state: State) -> Floats:
    x = np.linspace(-1, 1, POINTS, dtype=np.float32)[:, None]
    return np.sin(x @ state["0.weight"].T + state["0.bias"]) @ state["2.weight"].T + state["2.bias"]


def _halfway(nets: Sequence[State], bands: Any, seed: int, broken: bool) -> dict[str, Any]:
    out = {}
    for name, align in (("as they are", "none"), ("matched", "none" if broken else "weights")):
        mixed = mix_networks(nets, bands, align=align, pairs="same_class", ratio=0.5, draws=200, seed=seed)
        both = [(nets[i], nets[j]) for i, j in zip(mixed.first, mixed.second, strict=True)]
        gaps = [_run(state) - (_run(a) + _run(b)) / 2 for state, (a, b) in zip(mixed.X, both, strict=True)]
        out[name] = np.array([float(np.square(gap).mean()) for gap in gaps])
    return out


def _accuracies(nets: Sequence[State], bands: Any, seeds: Sequence[int], broken: bool) -> dict[str, Any]:
    """Of every arm over the seeds, on networks that neither taught nor chose."""
    sets, decays = [], []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(POOL)[:TRAIN]
        few = [nets[i] for i in order]
        for arm, values in SETTINGS.items():
            for value in values:
                sets.append(_augmented(few, bands[order], arm, value, seed, broken))
                decays.append(value if arm == "plain" else 0.0)
    classify = _learnt(sets, decays, seeds[0])
    table = _table(nets)
    out: dict[str, list[float]] = {arm: [] for arm in SETTINGS}
    answers = classify(table)
    position = 0
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(POOL)
        valid, test = order[TRAIN : TRAIN + VALID], order[TRAIN + VALID :]
        for arm, values in SETTINGS.items():
            right = answers[position : position + len(values)] == bands
            best = int(right[:, valid].mean(axis=1).argmax())
            out[arm].append(float(right[best, test].mean()))
            position += len(values)
    return {arm: np.array(values) for arm, values in out.items()}


def _augmented(few: list[State], y: Any, arm: str, value: float, seed: int, broken: bool) -> tuple[Any, Any]:
    """Units' weights of the training networks and of their augmented copies, and labels."""
    labels = np.eye(BANDS)[y]
    if arm == "plain":
        return np.concatenate([_table(few)] * (DRAWS + 1)), np.concatenate([labels] * (DRAWS + 1))
    if arm == "noise":
        rng, base = np.random.default_rng([seed, 1]), np.concatenate([_table(few)] * DRAWS)
        noisy = base + value * base.std(axis=(0, 1)) * rng.normal(size=base.shape)
        return np.concatenate([_table(few), noisy]), np.concatenate([labels] * (DRAWS + 1))
    align = "weights" if arm == "matched mixup" and not broken else "none"
    words: dict[str, Any] = {"ratio": ("beta", value), "classes": BANDS, "draws": DRAWS * len(few), "seed": seed}
    mixed = mix_networks(few, y, align=align, **words)
    return np.concatenate([_table(few), _table(mixed.X)]), np.concatenate([labels, mixed.labels])


def _table(nets: Sequence[State]) -> Floats:
    """(n, units, 4): each unit's weights, and the output's bias beside every one."""
    parts = [(s["0.weight"][:, 0], s["0.bias"], s["2.weight"][0], np.full(UNITS, s["2.bias"][0])) for s in nets]
    return np.stack([np.stack(part, axis=1) for part in parts]).astype(np.float32)


def _learnt(sets: list[tuple[Any, Any]], decays: list[float], seed: int) -> Any:
    """Sums over units of a small network of each, then another, trained side by side; and their answers."""
    import torch

    draw = torch.Generator().manual_seed(seed % 2**63)
    X, Y = (torch.tensor(np.stack([part[i] for part in sets]), dtype=torch.float32) for i in (0, 1))
    m, rows, width = len(sets), X.shape[1], 24
    scale = X.std(dim=(0, 1, 2))
    shapes = [
        (4, width),
        (1, width),
        (width, width),
        (1, width),
        (width, width),
        (1, width),
        (width, BANDS),
        (1, BANDS),
    ]
    tensors = [
        (torch.randn(m, *shape, generator=draw) * (2 / shape[0]) ** 0.5 * (shape[0] > 1)).requires_grad_()
        for shape in shapes
    ]
    decay = torch.tensor(decays)

    def logits(batch: Any) -> Any:
        """(m, rows, units, 4) -> (m, rows, bands)."""
        a, p, b, q, c, r, d, s = tensors
        each = torch.relu((batch / scale) @ a[:, None] + p[:, None]) @ b[:, None] + q[:, None]
        summed = torch.relu(each).mean(dim=2)
        return torch.relu(summed @ c + r) @ d + s

    learner = torch.optim.Adam(tensors, lr=5e-3)
    each = torch.arange(m)[:, None]
    for _ in range(300):
        batch = torch.randint(rows, (m, 32), generator=draw)
        loss = -(Y[each, batch] * logits(X[each, batch]).log_softmax(dim=2)).sum(dim=2).mean(dim=1).sum()
        loss = loss + sum((decay * tensor.square().sum(dim=(1, 2))).sum() for tensor in tensors)
        learner.zero_grad()
        loss.backward()
        learner.step()

    def classify(table: Floats) -> Any:
        with torch.no_grad():
            return logits(torch.from_numpy(table)[None].expand(m, -1, -1, -1)).argmax(dim=2).numpy()

    return classify
