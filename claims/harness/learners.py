"""Small learners whose every step is in view: a Gaussian-process committee and a plain network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def rbf(A: Floats, B: Floats, scale: float) -> Floats:
    """exp(-|a - b|^2 / (2 scale^2)) for every pair."""
    gaps = (A * A).sum(1)[:, None] + (B * B).sum(1) - 2 * A @ B.T
    kernel: Floats = np.exp(np.maximum(gaps, 0) / np.float32(-2 * scale**2))
    return kernel


def one_hot(y: Ints, classes: int) -> Floats:
    """(n, classes), a one in the column of each row's class."""
    return np.eye(classes, dtype=np.float32)[y]


def softmax(logits: Floats, axis: int = -1) -> Floats:
    """Probabilities over one axis."""
    shifted = np.exp(logits - logits.max(axis=axis, keepdims=True))
    out: Floats = shifted / shifted.sum(axis=axis, keepdims=True)
    return out


def entropy(probabilities: Floats, axis: int = -1) -> Floats:
    """In nats, over one axis."""
    out: Floats = -(probabilities * np.log(np.maximum(probabilities, np.float32(1e-12)))).sum(axis=axis)
    return out


@dataclass
class Committee:
    """Gaussian-process regression on +-1 labels; draws from its posterior, through a softmax, are the committee.

    Args:
        noise: variance of the labels' noise.
        sharp: how sharply the softmax separates the classes.
        draws: members of the committee.
    """

    noise: float = 0.05
    sharp: float = 4.0
    draws: int = 12

    def fit(self, kernel: Floats, y: Ints, classes: int) -> Committee:
        """Learn from labelled rows, given the kernel among them."""
        targets = 2 * one_hot(y, classes) - 1
        self.centre = targets.mean(axis=0)
        grown = kernel.astype(np.float64) + self.noise * np.eye(len(y))
        self.inverse = np.linalg.inv(grown).astype(np.float32)
        self.weights = self.inverse @ (targets - self.centre)
        return self

    def mean(self, cross: Floats) -> Floats:
        """(rows, classes) posterior mean, given the kernel of those rows with the labelled ones."""
        out: Floats = cross @ self.weights + self.centre
        return out

    def opinions(self, cross: Floats, rng: np.random.Generator) -> Floats:
        """(classes, draws, rows) what each member holds probable. The members share their noise over the rows."""
        spread = np.sqrt(np.maximum(1 - ((cross @ self.inverse) * cross).sum(axis=1), 1e-6))
        noise = rng.standard_normal((len(self.centre), self.draws, 1), dtype=np.float32)
        return softmax(np.float32(self.sharp) * (self.mean(cross).T[:, None, :] + spread * noise), axis=0)


@dataclass
class Network:
    """A ReLU network trained by Adam under a cosine schedule on the cross-entropy.

    Args:
        hidden: widths of the hidden layers.
        steps: batches to learn from, whatever the number of rows.
    """

    hidden: Sequence[int] = (64,)
    steps: int = 400
    rate: float = 3e-3
    batch: int = 128
    decay: float = 1e-4
    weights: list[Floats] = field(default_factory=list)
    biases: list[Floats] = field(default_factory=list)

    def fit(self, X: Floats, y: Ints | Floats, classes: int, seed: int) -> Network:
        """Train from a fresh start, on classes or on (n, classes) label masses."""
        rng = np.random.default_rng(seed)
        shapes = list(itertools.pairwise([X.shape[1], *self.hidden, classes]))
        self.weights = [(rng.normal(size=shape) * np.sqrt(2 / shape[0])).astype(np.float32) for shape in shapes]
        self.biases = [np.zeros(columns, np.float32) for _, columns in shapes]
        return self.train(X, y, self.steps, rng)

    def train(
        self, X: Floats, y: Ints | Floats, steps: int, rng: np.random.Generator, *, masked: bool = False
    ) -> Network:
        """Go on from the weights that are there; `masked` keeps those at zero that are zero."""
        # One flat vector holds every parameter, so that Adam's step is a handful of operations.
        flat, self.weights, self.biases = _flat(self.weights, self.biases)
        slope, slopes, lifts = _flat([np.zeros_like(w) for w in self.weights], [np.zeros_like(b) for b in self.biases])
        open_weights = _flat(self.weights, [np.ones_like(b) for b in self.biases])[0] != 0
        first, second = np.zeros_like(flat), np.zeros_like(flat)
        targets = one_hot(y.astype(np.int64), len(self.biases[-1])) if y.ndim == 1 else y.astype(np.float32)
        order, at = rng.permutation(len(X)), 0
        for step in range(1, steps + 1):
            if at >= len(X):
                order, at = rng.permutation(len(X)), 0
            rows = order[at : at + self.batch]
            at += self.batch
            self._backward(X[rows], targets[rows], slopes, lifts)
            if masked:
                slope *= open_weights
            first += np.float32(0.1) * (slope - first)
            second += np.float32(0.01) * (slope * slope - second)
            rate = self.rate * (0.5 + 0.5 * np.cos(np.pi * step / steps)) / (1 - 0.9**step)
            flat -= np.float32(rate) * first / (np.sqrt(second / np.float32(1 - 0.99**step)) + np.float32(1e-8))
        return self

    def logits(self, X: Floats, weights: Sequence[Floats] | None = None) -> Floats:
        """(rows, classes), with the trained weights or others in their place."""
        out = X
        for place, (weight, bias) in enumerate(zip(weights or self.weights, self.biases, strict=True)):
            out = (np.maximum(out, 0) if place else out) @ weight + bias
        return out

    def accuracy(self, X: Floats, y: Ints, weights: Sequence[Floats] | None = None) -> float:
        """Share of the rows whose class is found."""
        return float((self.logits(X, weights).argmax(axis=1) == y).mean())

    def _backward(self, X: Floats, targets: Floats, slopes: list[Floats], lifts: list[Floats]) -> None:
        """The gradient of the mean loss and the decay, written into `slopes` (weights) and `lifts` (biases)."""
        inputs = [X]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append(np.maximum(inputs[-1] @ weight + bias, 0))
        back = (softmax(inputs[-1] @ self.weights[-1] + self.biases[-1]) - targets) / np.float32(len(X))
        for place in reversed(range(len(self.weights))):
            slopes[place][:] = inputs[place].T @ back + np.float32(self.decay) * self.weights[place]
            lifts[place][:] = back.sum(axis=0)
            if place:
                back = (back @ self.weights[place].T) * (inputs[place] > 0)


def _flat(weights: Sequence[Floats], biases: Sequence[Floats]) -> tuple[Floats, list[Floats], list[Floats]]:
    """One vector of all weights and biases, and views of it in their shapes."""
    parts = [*weights, *biases]
    flat = np.concatenate([part.ravel() for part in parts])
    ends = np.cumsum([part.size for part in parts])
    views = [flat[end - part.size : end].reshape(part.shape) for part, end in zip(parts, ends.tolist(), strict=True)]
    return flat, views[: len(weights)], views[len(weights) :]
