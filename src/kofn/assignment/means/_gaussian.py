"""Partitions around means and Gaussian mixtures: squares, Lloyd's algorithm, EM and cross-fitted agreement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kofn.core.arrays import Floats, Ints

_MOST_ROUNDS = 100


def squares(X: Floats, labels: Ints) -> float:
    """Summed squared distances of the rows to their group's mean; exactly 0 for groups of copies."""
    total = []
    for group in np.unique(labels):
        # Measured from the group's first row, so that identical rows cancel to the last bit.
        rows = X[labels == group] - X[int(np.argmax(labels == group))]
        gap = rows - rows.mean(axis=0)
        total.append(float((gap * gap).sum()))
    return math.fsum(total)


def means(X: Floats, labels: Ints, k: int) -> Floats:
    """(k, d) mean of each group; no group may be empty."""
    counts = np.bincount(labels, minlength=k)
    sums = np.column_stack([np.bincount(labels, column, k) for column in X.T])
    return np.asarray(sums / counts[:, None])


def nearest(X: Floats, centers: Floats) -> tuple[Ints, Floats]:
    """The nearest centre of each row, ties to the first, and the squared distance to it."""
    table = (centers * centers).sum(axis=1) - 2 * (X @ centers.T)
    labels = table.argmin(axis=1)
    least = table[np.arange(len(X)), labels] + (X * X).sum(axis=1)
    return labels, np.maximum(least, 0.0)


def filled(X: Floats, labels: Ints, k: int) -> Ints:
    """The labels, with each empty group given the row farthest from its own group's mean."""
    labels = labels.copy()
    while (counts := np.bincount(labels, minlength=k)).min() == 0:
        gap = X - means(X, labels, int(labels.max()) + 1)[labels] if counts[: labels.max() + 1].min() else None
        far = ((X - X.mean(axis=0)) if gap is None else gap) ** 2
        spare = np.where(counts[labels] > 1, far.sum(axis=1), -1.0)
        labels[int(spare.argmax())] = int(counts.argmin())
    return labels


def lloyd(X: Floats, labels: Ints, k: int) -> Ints:
    """Run Lloyd's algorithm from a partition until no row is nearer to another group's mean; no group becomes empty."""
    labels = filled(X, labels, k)
    for _ in range(_MOST_ROUNDS):
        moved = filled(X, nearest(X, means(X, labels, k))[0], k)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return labels


def spread_out(X: Floats, k: int, rng: np.random.Generator | None) -> Ints:
    """A partition around k rows: k-means++ with an `rng`, else farthest-first traversal."""
    first = int(rng.integers(len(X))) if rng is not None else int(((X - X.mean(axis=0)) ** 2).sum(axis=1).argmax())
    labels, least = np.zeros(len(X), np.int64), ((X - X[first]) ** 2).sum(axis=1)
    for group in range(1, k):
        total = least.sum()
        if rng is None or total <= 0:
            row = int(least.argmax())
        else:
            row = int(np.searchsorted(np.cumsum(least), rng.random() * total).clip(0, len(X) - 1))
        gap = ((X - X[row]) ** 2).sum(axis=1)
        closer = gap < least
        labels[closer], least = group, np.minimum(gap, least)
        labels[row] = group
    return labels


def renamed(labels: Ints) -> Ints:
    """The partition with its groups renumbered in order of first appearance."""
    _, first, back = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[back])


def unit_of(X: Floats) -> float:
    """Mean variance of the columns; 1 if all columns are constant."""
    return float(X.var(axis=0).mean()) or 1.0


def log_likelihood(X: Floats, labels: Ints, ridge: float) -> float:
    """Log-likelihood of the rows, each under its own group's Gaussian (mean, covariance plus `ridge` I)."""
    total, d = [], X.shape[1]
    for group in np.unique(labels):
        rows = X[labels == group]
        gap = rows - rows.mean(axis=0)
        factor = np.linalg.cholesky(gap.T @ gap / len(rows) + ridge * np.eye(d))
        white = np.linalg.solve(factor, gap.T)
        logdet = 2 * float(np.log(np.diag(factor)).sum())
        total += [-0.5 * len(rows) * (d * math.log(2 * math.pi) + logdet), -0.5 * float((white * white).sum())]
    return math.fsum(total)


def shrunk(cover: Floats, count: float) -> Floats:
    """A sample covariance of `count` rows, drawn to a multiple of the identity (Chen, Wiesel, Eldar & Hero 2010)."""
    d = len(cover)
    trace, squared = float(np.trace(cover)), float((cover * cover).sum())
    spread = (count + 1 - 2 / d) * (squared - trace * trace / d)
    share = min(1.0, ((1 - 2 / d) * squared + trace * trace) / spread) if spread > 0 else 1.0
    return (1 - share) * cover + share * trace / d * np.eye(d)


@dataclass
class Mixture:
    """Gaussian mixture fitted by expectation-maximisation."""

    logs: Floats
    centers: Floats
    factors: Floats

    @classmethod
    def fit(cls, X: Floats, labels: Ints, k: int, ridge: float, covariance: str, *, most: int, tol: float) -> Mixture:
        """Run EM from a partition until the mean log-density rises by less than `tol` per round."""
        weights = np.zeros((len(X), k))
        weights[np.arange(len(X)), labels] = 1.0
        before = -math.inf
        out = cls._of(X, weights, ridge, covariance)
        for _ in range(most):
            joint = out.joint(X)
            top = joint.max(axis=1, keepdims=True)
            density = top[:, 0] + np.log(np.exp(joint - top).sum(axis=1))
            now = float(density.mean())
            out = cls._of(X, np.exp(joint - density[:, None]), ridge, covariance)
            if now - before < tol:
                break
            before = now
        return out

    @classmethod
    def _of(cls, X: Floats, weights: Floats, ridge: float, covariance: str) -> Mixture:
        n, d = X.shape
        counts = np.maximum(weights.sum(axis=0), 1e-12)
        centers = (weights.T @ X) / counts[:, None]
        factors = np.zeros((len(counts), d, d))
        for group, center in enumerate(centers):
            gap = X - center
            if covariance == "diag":
                cover = np.diag(weights[:, group] @ (gap * gap) / counts[group])
            else:
                cover = (gap * weights[:, [group]]).T @ gap / counts[group]
                if covariance == "shrunk":
                    cover = shrunk(cover, counts[group])
            factors[group] = np.linalg.inv(np.linalg.cholesky(cover + ridge * np.eye(d)))
        return cls(np.log(counts / n), centers, factors)

    def joint(self, X: Floats) -> Floats:
        """(n, k) log of mixing weight times density, up to a constant."""
        out = np.empty((len(X), len(self.logs)))
        for group, (center, factor) in enumerate(zip(self.centers, self.factors, strict=True)):
            white = (X - center) @ factor.T
            out[:, group] = -0.5 * (white * white).sum(axis=1) + np.log(np.diag(factor)).sum()
        return out + self.logs

    def own(self, X: Floats, labels: Ints) -> Floats:
        """(n,) posterior probability of each row's own component."""
        joint = self.joint(X)
        joint -= joint.max(axis=1, keepdims=True)
        chance = np.exp(joint)
        return np.asarray(chance[np.arange(len(X)), labels] / chance.sum(axis=1))


def least_rows(d: int, covariance: str) -> int:
    """The rows that a group of d-dimensional rows must have to be checked.

    Half of it holds twice as many rows as a component has parameters; a shrunk covariance needs but a few rows.
    """
    return {"full": 2 * d * (d + 3), "diag": 8 * d, "shrunk": 8}[covariance]


def agreement(X: Floats, labels: Ints, k: int, ridge: float, covariance: str, *, most: int = 100) -> Floats | None:
    """(n,) posterior probability of each row's group under a mixture fitted on the other half of the rows.

    None if a group has fewer than `least_rows`.
    """
    counts = np.bincount(labels, minlength=k)
    if counts.min() < least_rows(X.shape[1], covariance):
        return None
    # Every second row of each group, in the order of the rows.
    order = np.argsort(labels, kind="stable")
    half = np.empty(len(X), np.int64)
    half[order] = np.concatenate([np.arange(count) % 2 for count in counts])
    out = np.empty(len(X))
    for side in (0, 1):
        fitted, left_out = half != side, half == side
        fit = Mixture.fit(X[fitted], labels[fitted], k, ridge, covariance, most=most, tol=1e-4)
        out[left_out] = fit.own(X[left_out], labels[left_out])
    return out
