"""Mixing layers as wide sparse layers: at as many connections, which numbers of tokens and channels learn best.

A mixing block on (tokens, channels) is a pair of layers on their product, whose connections repeat a small matrix along
the other axis; so it is compared with layers of the same width whose as many connections are drawn at random and not
shared. All shapes have nearly as many connections, tokens x channels x (tokens + channels), and the width is largest
where tokens and channels are as many. The maps into the block and out of it are dense and learn, too; of the
connections only the block's are counted, as in the paper. Which shape to take is arithmetic, no method of the library.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims import Evidence, claim
from claims.harness.data import digits, mixture, shuffled
from claims.harness.learners import one_hot, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Tokens and channels: 3,300 to 3,500 connections each, of width 80, 108, 136 and 144.
SHAPES = ((2, 40), (4, 27), (8, 17), (12, 12))
KINDS = ("mixer", "random")
TRAIN, TEST, STEPS, BATCH, RATE = 1000, 600, 250, 64, 3e-3


@claim(
    paper=287,
    says="A mixing layer is a wide layer of sparse, repeated weights; at as many connections the widest shape has a "
    "lower test error than the narrowest and the lowest of all, and so have sparse layers of the same widths drawn at "
    "random, from which mixing layers are within a point",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Four shapes of two kinds on digits and on a mixture; broken: every shape is replaced by the narrowest."""
    runs = 10 if scale == "small" else 40
    off = _identities(seed)
    measured: dict[str, Any] = {"largest error of the identities": off}
    criteria = {"the identities hold to 1e-12": off < 1e-12}
    for data in ("digits", "mixture"):
        trials = np.array(
            spread(functools.partial(_trial, data=data, broken=broken), derive(seed, runs, stream=len(data)))
        )
        row: dict[str, Any] = {}
        for place, kind in enumerate(KINDS):
            errors = trials[:, place]
            gap = difference(errors[:, 0], errors[:, -1])
            row[f"{kind}: test error by shape"] = errors.mean(axis=0).round(4).tolist()
            row[f"{kind}: narrowest - widest"] = gap.figures()
            criteria[f"{data}, {kind}: the widest below the narrowest"] = gap.above(0.0)
            criteria[f"{data}, {kind}: the widest is the best"] = bool(errors.mean(axis=0).argmin() == len(SHAPES) - 1)
        apart = difference(trials[:, 0].mean(axis=1), trials[:, 1].mean(axis=1))
        row["mixer - random, over shapes"] = apart.figures()
        criteria[f"{data}: mixers within a point of random layers"] = -0.01 < apart.low <= apart.high < 0.01
        measured[data] = row
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="identities to 1e-12; a lower 95% limit of the paired difference in test error of narrowest and "
        "widest above 0, the least mean error at the widest; limits of the difference of the kinds within 0.01",
        baseline="layers of the same widths with as many connections, drawn at random and each with its own weight; "
        "the same starts of the maps before and after, the same steps and batches",
        kind="reduced",
    )


def _identities(seed: int) -> float:
    """How far vec(W X) is from (W kron I) vec(X), and vec(X V) from (I kron V^T) vec(X), by rows and as patterns."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for tokens, channels in SHAPES:
        X, W, V = (rng.normal(size=s) for s in ((tokens, channels), (tokens, tokens), (channels, channels)))
        along, across = _mixer(tokens, channels)
        pairs = (
            (W @ X, np.kron(W, np.eye(channels)) @ X.ravel(), along.dense(W.ravel())),
            (X @ V, np.kron(np.eye(tokens), V.T) @ X.ravel(), across.dense(V.ravel())),
        )
        for mixed, wide, dense in pairs:
            worst = max(worst, np.abs(mixed.ravel() - wide).max(), np.abs(mixed.ravel() - X.ravel() @ dense).max())
    return float(worst)


@dataclass(frozen=True)
class _Layer:
    """Connections of a layer of `width` units: from, to, and which of the weights each has."""

    width: int
    source: Ints
    target: Ints
    weight: Ints

    def dense(self, weights: Any) -> Any:
        out = np.zeros((self.width, self.width), weights.dtype)
        out[self.source, self.target] = weights[self.weight]
        return out

    def slopes(self, dense: Floats) -> Floats:
        """The gradient of each weight, over all connections that have it."""
        count = int(self.weight.max()) + 1
        return np.bincount(self.weight, dense[self.source, self.target], count).astype(np.float32)

    @property
    def start(self) -> float:
        """He's standard deviation, by the connections that a unit has."""
        return float(np.sqrt(2 * self.width / len(self.source)))


def _mixer(tokens: int, channels: int) -> tuple[_Layer, _Layer]:
    """Mixing of tokens, W X, and of channels, X V; unit t * channels + c stands for token t and channel c."""
    t, other, c = np.meshgrid(np.arange(tokens), np.arange(tokens), np.arange(channels), indexing="ij")
    width = tokens * channels
    along = _Layer(width, *(a.ravel() for a in (t * channels + c, other * channels + c, other * tokens + t)))
    t, c, other = np.meshgrid(np.arange(tokens), np.arange(channels), np.arange(channels), indexing="ij")
    across = _Layer(width, *(a.ravel() for a in (t * channels + c, t * channels + other, c * channels + other)))
    return along, across


def _random(tokens: int, channels: int, rng: np.random.Generator) -> tuple[_Layer, _Layer]:
    """Layers of the same width with as many connections each, a weight for each."""
    width = tokens * channels
    layers = []
    for degree in (tokens, channels):
        chosen = rng.choice(width * width, width * degree, replace=False)
        layers.append(_Layer(width, chosen // width, chosen % width, np.arange(len(chosen))))
    return layers[0], layers[1]


def _trial(seed: int, *, data: str, broken: bool) -> list[list[float]]:
    """Test errors, kind by shape."""
    rng = np.random.default_rng(seed)
    rows = shuffled(digits() if data == "digits" else mixture(rng, TRAIN + TEST, d=64, spread=1.0), rng)
    X, y = rows.X[: TRAIN + TEST], rows.y[: TRAIN + TEST]
    X = (X - X[:TRAIN].mean(axis=0)) / (X[:TRAIN].std() + 1e-6)
    errors: list[list[float]] = [[], []]
    for shape in SHAPES:
        tokens, channels = SHAPES[0] if broken else shape
        own = np.random.default_rng([seed, tokens])
        width = tokens * channels
        first = (own.normal(size=(X.shape[1], width)) / np.sqrt(X.shape[1])).astype(np.float32)
        last = (own.normal(size=(width, rows.classes)) / np.sqrt(width)).astype(np.float32)
        for place, layers in enumerate((_mixer(tokens, channels), _random(tokens, channels, own))):
            score = _learned(X, one_hot(y, rows.classes), layers, first, last, seed)
            errors[place].append(float((score[TRAIN:].argmax(axis=1) != y[TRAIN:]).mean()))
    return errors


def _learned(X: Floats, targets: Floats, layers: tuple[_Layer, _Layer], into: Floats, out: Floats, seed: int) -> Floats:
    """Scores of all rows after Adam under a cosine schedule on the first of them; ReLU after each layer."""
    rng = np.random.default_rng([seed, 7])
    weights = [(layer.start * rng.normal(size=int(layer.weight.max()) + 1)).astype(np.float32) for layer in layers]
    weights += [into.copy(), out.copy()]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    for step in range(1, STEPS + 1):
        held = rng.integers(0, TRAIN, BATCH)
        A, B = (layer.dense(w) for layer, w in zip(layers, weights[:2], strict=True))
        x = X[held] @ weights[2]
        h = np.maximum(x @ A, 0)
        g = np.maximum(h @ B, 0)
        off = (softmax(g @ weights[3]) - targets[held]) / np.float32(BATCH)
        back = off @ weights[3].T * (g > 0)
        inner = back @ B.T * (h > 0)
        slopes = [layers[0].slopes(x.T @ inner), layers[1].slopes(h.T @ back), X[held].T @ (inner @ A.T), g.T @ off]
        rate = RATE * (0.5 + 0.5 * np.cos(np.pi * step / STEPS)) / (1 - 0.9**step)
        for w, slope, one, two in zip(weights, slopes, first, second, strict=True):
            one += np.float32(0.1) * (slope - one)
            two += np.float32(0.01) * (slope * slope - two)
            w -= np.float32(rate) * one / (np.sqrt(two / np.float32(1 - 0.99**step)) + np.float32(1e-8))
    A, B = (layer.dense(w) for layer, w in zip(layers, weights[:2], strict=True))
    return np.asarray(np.maximum(np.maximum(X @ weights[2] @ A, 0) @ B, 0) @ weights[3])
