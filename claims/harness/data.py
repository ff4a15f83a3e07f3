"""Real and synthetic classification problems, cut afresh for every seed."""

from __future__ import annotations

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


def digits() -> Labelled:
    """scikit-learn's 1,797 scanned digits, 8 x 8 pixels in 0..1, ten classes."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return Labelled((X / 16).astype(np.float32), y.astype(np.int64), 10)


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
