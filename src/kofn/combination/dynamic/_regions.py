"""The validation rows near a row, and the weights that members get by how right they were on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kofn.combination.dynamic._meta_des import PROFILES, Judge, features, profiles
from kofn.core.arrays import Floats, Ints, Mask

# Numbers of a block of distances, or of neighbours' hits, that are held at once.
_AT_ONCE = 1 << 21
# The shares of the members that DES-kNN keeps: the most accurate, and of these the most diverse.
_ACCURATE, _DIVERSE = 0.5, 0.3


@dataclass(frozen=True)
class Scale:
    """How columns are brought to one unit: less `center`, divided by `size`."""

    center: Floats
    size: Floats

    @classmethod
    def of(cls, X: Floats, *, standardize: bool) -> Scale:
        """That of mean 0 and standard deviation 1, or none at all; a constant column stays as it is, around 0."""
        width = X.shape[1]
        if not standardize:
            return cls(np.zeros(width), np.ones(width))
        # Powers of two keep squares of extreme numbers finite.
        unit = np.ldexp(1.0, np.clip(np.frexp(np.abs(X).max(axis=0))[1], -1000, 1000))
        scaled = X / unit
        size = scaled.std(axis=0)
        flat = size <= 1e-12 * np.abs(scaled).max(axis=0, initial=1e-300)
        return cls(scaled.mean(axis=0) * unit, np.where(flat, 1.0, size) * unit)

    def applied(self, X: Floats) -> Floats:
        """The columns in one unit."""
        return (X - self.center) / self.size


@dataclass(frozen=True)
class Validated:
    """What members predicted for validation rows.

    Attributes:
        X: (n, d) the rows, in one unit.
        chances: (n, m, c) the members' probabilities, of the second of two classes where c is 1.
        truth: (n,) the number of each row's class.
    """

    X: Floats
    chances: Floats
    truth: Ints

    @property
    def hits(self) -> Mask:
        """(n, m) who was right."""
        return voted(self.chances) == self.truth[:, None]


def voted(chances: Floats) -> Ints:
    """(n, m) the class that each member gives the highest probability; the first of equal ones."""
    if chances.shape[2] == 1:
        return (chances[:, :, 0] > 0.5).astype(np.int64)
    return chances.argmax(axis=2)


def nearest(X: Floats, queries: Floats, count: int, own: Ints | None = None) -> Ints:
    """(q, count) the rows of X nearest to each query, the nearest first, equally near ones by their number.

    Args:
        X: (n, d) rows.
        queries: (q, d) rows.
        count: how many, fewer than n.
        own: (q,) the row that each query is itself, which is left out; -1 where it is none.
    """
    from scipy.spatial.distance import cdist

    out = np.empty((len(queries), count), np.int64)
    step = max(1, _AT_ONCE // len(X))
    for low in range(0, len(queries), step):
        block = cdist(queries[low : low + step], X, "sqeuclidean")
        if own is not None:
            itself = own[low : low + step]
            block[np.flatnonzero(itself >= 0), itself[itself >= 0]] = np.inf
        furthest = np.partition(block, count - 1, axis=1)[:, count - 1 : count]
        row, column = np.nonzero(block <= furthest)
        order = np.lexsort((column, block[row, column], row))
        row, column = row[order], column[order]
        begin = np.searchsorted(row, np.arange(len(block)))
        out[low : low + step] = column[begin[:, None] + np.arange(count)]
    return out


class Neighbours:
    """The validation rows near some queries, in their features and in what members predict for them.

    Args:
        validated: the validation rows.
        X: (q, d) the queries, in the unit of the validation rows.
        chances: (q, m, c) what members predict for them.
        most: how many neighbours will be looked at.
        own: (q,) the validation row that each query is itself, -1 where it is none.
    """

    def __init__(self, validated: Validated, X: Floats, chances: Floats, most: int, own: Ints | None = None) -> None:
        self.validated, self.X, self.chances, self.own = validated, X, chances, own
        self.most = min(most, len(validated.X) - (own is not None))
        # As many as the validation rows have among the others, from which META-DES learns.
        self.n_profiles = min(PROFILES, len(validated.X) - 1)
        self.hits, self.votes = validated.hits, voted(chances)

    @cached_property
    def _near(self) -> Ints:
        return nearest(self.validated.X, self.X, self.most, self.own)

    @cached_property
    def _alike(self) -> Ints:
        return nearest(profiles(self.validated.chances), profiles(self.chances), self.n_profiles, self.own)

    @cached_property
    def _of_the_validated(self) -> Neighbours:
        """Those of the validation rows themselves, among the others."""
        validated = self.validated
        return Neighbours(validated, validated.X, validated.chances, self.most, np.arange(len(validated.X)))

    def row_weights(self, strategy: str, n_neighbors: int) -> Floats:
        """(q, m) the weights of the members for each query, which sum to one.

        Args:
            strategy: one of `STRATEGIES`, or "meta_des".
            n_neighbors: how many neighbours are looked at.
        """
        near = self._near[:, :n_neighbors]
        m = self.hits.shape[1]
        out = np.empty((len(near), m))
        if strategy == "meta_des" and not self.n_profiles:
            return np.full_like(out, 1 / m)
        if strategy == "meta_des":
            near = near[:, : len(self.validated.X) - 1]
            judge, of_queries = self._judge(near.shape[1]), self._features(near)
            for rows in _blocks(len(near), m * len(judge.slopes)):
                out[rows] = judge.thinks_right(of_queries(rows))
            return _shares(out)
        for rows in _blocks(len(near), near.shape[1] * m):
            out[rows] = STRATEGIES[strategy](self.hits[near[rows]], self.validated.truth[near[rows]], self.votes[rows])
        return _shares(out)

    def _features(self, near: Ints) -> Callable[[slice], Floats]:
        validated = self.validated

        def of_rows(rows: slice) -> Floats:
            parts = (near[rows], self._alike[rows], self.chances[rows])
            return features(self.hits, validated.chances, validated.truth, *parts)

        return of_rows

    def _judge(self, n_neighbors: int) -> Judge:
        """Trained on the validation rows, each judged by the others."""
        own = self._of_the_validated
        near = own._near[:, :n_neighbors]
        width = 2 * near.shape[1] + own.n_profiles + 2
        of_rows = own._features(near)
        blocks = _blocks(len(near), self.hits.shape[1] * width)
        return Judge.trained(((of_rows(rows), self.hits[rows]) for rows in blocks), width)


def _blocks(n: int, width: int) -> Iterator[slice]:
    step = max(1, _AT_ONCE // max(width, 1))
    for low in range(0, n, step):
        yield slice(low, min(low + step, n))


def _shares(weights: Floats) -> Floats:
    """Rows divided by their sums; equal weights where no member has one."""
    total = weights.sum(axis=1, keepdims=True)
    equal = 1 / weights.shape[1]
    return np.where(total > 0, weights / np.where(total > 0, total, 1), equal)


def _oracles(hits: Mask, _truth: Ints, _votes: Ints) -> Floats:
    """KNORA-E: those who are right on the most neighbours in a row, counted from the nearest."""
    run = np.logical_and.accumulate(hits, axis=1).sum(axis=1)
    return (run == run.max(axis=1, keepdims=True)).astype(np.float64)


def _union(hits: Mask, _truth: Ints, _votes: Ints) -> Floats:
    """KNORA-U: a vote for every neighbour on which a member is right."""
    return hits.sum(axis=1).astype(np.float64)


def _overall(hits: Mask, _truth: Ints, _votes: Ints) -> Floats:
    """OLA: the member that is right most often, or all that are."""
    return _most_competent(hits.sum(axis=1))


def _by_class(hits: Mask, truth: Ints, votes: Ints) -> Floats:
    """LCA: the member, or members, right most often on neighbours of the class that each gives the query."""
    alike = truth[:, :, None] == votes[:, None, :]
    count = alike.sum(axis=1)
    return _most_competent(np.where(count > 0, (hits & alike).sum(axis=1) / np.maximum(count, 1), 0.0))


def _most_competent(competence: Any) -> Floats:
    """Equal weights on all members of the highest competence, so that their order does not count."""
    out: Floats = (competence == competence.max(axis=1, keepdims=True)).astype(np.float64)
    return out


def _accurate_and_diverse(hits: Mask, _truth: Ints, _votes: Ints) -> Floats:
    """DES-kNN: of the half that is right most often, those who share the fewest errors with all others."""
    m = hits.shape[2]
    wrong = ~hits
    # Errors that another member makes too: how many others, at each of the member's own errors.
    shared = (wrong * (wrong.sum(axis=2, keepdims=True) - 1)).sum(axis=1)
    accurate = max(1, int(_ACCURATE * m))
    diverse = min(accurate, math.ceil(_DIVERSE * m))
    correct = hits.sum(axis=1)
    # Members that tie for the last seats all stand; those that then tie for the last seats share them.
    standing = correct >= np.sort(correct, axis=1)[:, m - accurate, None]
    # Fewest shared errors first, of equal ones the more often right.
    rank = np.where(standing, shared * (hits.shape[1] + 1) - correct, np.iinfo(np.int64).max)
    last = np.sort(rank, axis=1)[:, diverse - 1, None]
    inside, tied = rank < last, rank == last
    seats = diverse - inside.sum(axis=1, keepdims=True)
    return inside + tied * (seats / tied.sum(axis=1, keepdims=True))


# How members are weighed by their hits (q, k, m) on neighbours of classes (q, k) and their votes (q, m) on the queries.
STRATEGIES: Mapping[str, Callable[[Mask, Ints, Ints], Floats]] = {
    "knora_e": _oracles,
    "knora_u": _union,
    "ola": _overall,
    "lca": _by_class,
    "des_knn": _accurate_and_diverse,
}
