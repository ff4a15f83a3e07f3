"""Real and synthetic classification problems, cut afresh for every seed."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Rows and their classes 0..classes-1."""

    X: Floats
    y: Ints
    classes: int

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Ints) -> Labelled:
        """These rows."""
        return Labelled(self.X[rows], self.y[rows], self.classes)


@functools.cache
def digits() -> Labelled:
    """1,797 scanned digits, 8 x 8 pixels in 0..1, ten classes."""
    from kofn import datasets

    data = datasets.load("digits")
    assert data.X is not None
    assert data.y is not None
    return Labelled((data.X / 16).astype(np.float32), data.y.astype(np.int64), 10)


@functools.cache
def diamonds(classes: int) -> Labelled:
    """53,940 diamonds: six measures, cut, colour and clarity; the class is the price's quantile."""
    from kofn import datasets

    data = datasets.load("diamonds")
    assert data.X is not None
    assert data.y is not None
    assert data.frame is not None
    parts = [data.X.astype(np.float64)]
    for column in ("cut", "color", "clarity"):
        _, code = np.unique(data.frame[column].to_numpy().astype(str), return_inverse=True)
        parts.append(np.eye(code.max() + 1)[code])
    X = np.hstack(parts)
    edges = np.quantile(data.y, np.linspace(0, 1, classes + 1)[1:-1])
    scaled = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    return Labelled(scaled, np.searchsorted(edges, data.y).astype(np.int64), classes)


def mixture(
    rng: np.random.Generator, n: int, *, classes: int = 10, modes: int = 12, d: int = 20, spread: float = 0.5
) -> Labelled:
    """Gaussians around random centres, several a class, of very unequal weight: common cases and rare ones.

    `spread` is each Gaussian's standard deviation, in units of that of the centres.
    """
    centres = rng.normal(size=(classes * modes, d))
    share = rng.dirichlet(np.full(classes * modes, 0.5))
    mode = rng.choice(classes * modes, n, p=share)
    X = centres[mode] + spread * rng.normal(size=(n, d))
    return Labelled(X.astype(np.float32), mode // modes, classes)


def shuffled(data: Labelled, rng: np.random.Generator) -> Labelled:
    """The same rows in another order."""
    return data.take(rng.permutation(len(data)))


def halves(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Cut once for all the runs of a claim: what is tuned on is never tested on."""
    order = np.random.default_rng(seed).permutation(len(data))
    cut = round(share * len(data))
    return data.take(order[:cut]), data.take(order[cut:])
