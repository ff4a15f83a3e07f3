"""Scores of pairs as strengths and a skew-symmetric part of low rank, by penalised maximum likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kofn.core.arrays import Floats

_ITERATIONS, _GAP = 300, 1e-7  # of the proximal gradients; the relative change at which they rest
_STEPS = 30  # Newton's, of the strengths
_RESTED = 1e-10


class Scores(NamedTuple):
    """What pairs are told by: score (i, j) is `strength[i] - strength[j] + cyclic[i, j]`."""

    strength: Floats
    cyclic: Floats

    @property
    def table(self) -> Floats:
        """(n, n) the scores, skew-symmetric to the last bit."""
        return self.strength[:, None] - self.strength + self.cyclic


def log_likelihood(wins: Floats, table: Floats) -> float:
    """That of wins (n, n) under scores (n, n)."""
    return -float((wins * np.logaddexp(0.0, -table)).sum())


def chance(table: Floats) -> Floats:
    """(n, n) the probability that the row is preferred to the column; those of (i, j) and (j, i) sum to one."""
    upper = 1 / (1 + np.exp(-np.abs(table)))
    out: Floats = np.where(table >= 0, upper, 1 - upper)
    return out


def least_penalty(wins: Floats) -> tuple[Scores, float]:
    """The scores without a cyclic part (Bradley and Terry's), and the least penalty under which they are the best."""
    n = len(wins)
    start = Scores(_strengths(wins, np.zeros((n, n)), np.zeros(n)), np.zeros((n, n)))
    slope = _slope(wins, start.table)
    return start, float(np.linalg.norm(slope, 2))


def path(wins: Floats, penalties: Sequence[float], start: Scores) -> list[Scores]:
    """The most likely scores under each penalty, which falls: half of it times the nuclear norm of the cyclic part.

    Accelerated proximal gradients in the cyclic part (Beck & Teboulle 2009), restarted where they rise, around
    Newton's method in the strengths. The problem is convex, so the answer is that of no start.
    """
    out = []
    for penalty in penalties:
        start = _fitted(wins, penalty, start)
        out.append(start)
    return out


def _fitted(wins: Floats, penalty: float, start: Scores) -> Scores:
    step = 4 / max(float((wins + wins.T).max()), 1e-300)
    strength, cyclic = start
    ahead, pace = cyclic, 1.0
    value = _penalised(wins, strength, cyclic, penalty)
    for _ in range(_ITERATIONS):
        strength = _strengths(wins, ahead, strength)
        slope = _slope(wins, strength[:, None] - strength + ahead)
        moved = _shrunk(ahead + step * slope, step * penalty)
        of_moved = _strengths(wins, moved, strength)
        new = _penalised(wins, of_moved, moved, penalty)
        if new > value + 1e-12 * abs(value):
            if ahead is cyclic:
                break
            ahead, pace = cyclic, 1.0
            continue
        following = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        ahead = moved + (pace - 1) / following * (moved - cyclic)
        rested = float(np.abs(moved - cyclic).max(initial=0.0)) <= _GAP * max(
            1.0, float(np.abs(moved).max(initial=0.0))
        )
        strength, cyclic, value, pace = of_moved, moved, new, following
        if rested:
            break
    return Scores(_strengths(wins, cyclic, strength), cyclic)


def _penalised(wins: Floats, strength: Floats, cyclic: Floats, penalty: float) -> float:
    norm = float(np.linalg.svd(cyclic, compute_uv=False).sum())
    return -log_likelihood(wins, strength[:, None] - strength + cyclic) + penalty / 2 * norm


def _slope(wins: Floats, table: Floats) -> Floats:
    """(n, n) by how much the likelihood rises with each score; skew-symmetric."""
    lost = wins - (wins + wins.T) * chance(table)
    out: Floats = (lost - lost.T) / 2
    return out


def _shrunk(matrix: Floats, by: float) -> Floats:
    """A skew-symmetric matrix with its singular values less `by`, none below 0."""
    left, size, right = np.linalg.svd(matrix)
    out = (left * np.maximum(size - by, 0.0)) @ right
    skew: Floats = (out - out.T) / 2
    return skew


def _strengths(wins: Floats, cyclic: Floats, strength: Floats) -> Floats:
    """The most likely strengths of mean 0 beside a cyclic part, by Newton's method with halved steps."""
    n, total = len(wins), wins + wins.T
    value = log_likelihood(wins, strength[:, None] - strength + cyclic)
    for _ in range(_STEPS):
        share = chance(strength[:, None] - strength + cyclic)
        slope = (wins - total * share).sum(axis=1)
        bend = total * share * share.T
        ridge = max(float(bend.sum()) / n**2, 1e-300)
        step = np.linalg.solve(np.diag(bend.sum(axis=1)) - bend + ridge, slope)
        step -= step.mean()
        gain, length = float(step @ slope), 1.0
        if gain <= _RESTED * (1 + abs(value)):
            break
        while length > 1e-9:
            moved = strength + length * step
            new = log_likelihood(wins, moved[:, None] - moved + cyclic)
            if new >= value:
                break
            length /= 2
        strength, value = moved, new
    out: Floats = strength - strength.mean()
    return out


def planes(cyclic: Floats) -> Floats:
    """(n, 2 k) the embedding of a skew-symmetric matrix of rank 2 k: the sum over its planes of x_i y_j - y_i x_j."""
    size, vectors = np.linalg.eigh(1j * cyclic)
    kept = np.flatnonzero(size > 1e-9 * max(float(size.max(initial=0.0)), 1e-300))[::-1]
    parts = [np.sqrt(2 * size[k]) * np.stack([vectors[:, k].imag, vectors[:, k].real], axis=1) for k in kept]
    return np.concatenate([np.zeros((len(cyclic), 0)), *parts], axis=1)
