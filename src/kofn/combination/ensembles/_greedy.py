"""Greedy ensemble selection: from the members, with replacement, always the one that helps the blend most."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kofn.combination.ensembles._losses import EPS, KINDS
from kofn.combination.ensembles._task import Task
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.runtime import Control
from kofn.engines.threads import cores, limited, spread


@dataclass(frozen=True)
class Path:
    """The additions of one search, and the summed loss after each."""

    added: list[int]
    losses: list[float]

    def best(self) -> list[int]:
        """The additions up to the first of the least loss."""
        return self.added[: int(np.argmin(self.losses)) + 1]


class Search(ABC):
    """A blend that grows member by member, judged on some of the rows.

    Args:
        m: the number of members.
    """

    def __init__(self, m: int) -> None:
        self.m = m
        self.evaluations = 0
        self.empty()

    def empty(self) -> None:
        """Begin with a blend of no member."""
        self.counts = np.zeros(self.m)

    @abstractmethod
    def after_adding(self, candidates: Ints) -> Floats:
        """The summed loss of the blend, were each of the candidates added."""

    def add(self, member: int) -> None:
        """Add a member to the blend, once more if it is in."""
        self.counts[member] += 1


class Squares(Search):
    """Squared errors of complete predictions. The products of the members' errors say all, so a round takes O(m).

    Args:
        products: (m, m) summed over the rows.
    """

    def __init__(self, products: Floats) -> None:
        self.products = products
        super().__init__(len(products))

    def empty(self) -> None:
        super().empty()
        self.with_blend = np.zeros(self.m)

    def after_adding(self, candidates: Ints) -> Floats:
        self.evaluations += len(candidates)
        inside = float(self.with_blend @ self.counts)
        own = self.products[candidates, candidates]
        summed = inside + 2 * self.with_blend[candidates] + own
        return summed / (self.counts.sum() + 1) ** 2

    def add(self, member: int) -> None:
        super().add(member)
        self.with_blend += self.products[member]


class Elements(Search):
    """Any loss, from the summed predictions of the blend.

    Args:
        pool: the predictions, which searches share.
        starts: where each range of rows begins.
        stops: where it ends.
    """

    def __init__(self, pool: Pool, starts: Sequence[int], stops: Sequence[int]) -> None:
        self.pool = pool
        self.starts, self.stops = np.array(starts, np.int64), np.array(stops, np.int64)
        super().__init__(pool.task.m)

    def empty(self) -> None:
        super().empty()
        self.total = np.zeros(self.pool.values.shape[1:])
        self.heard = np.zeros(self.pool.task.n)

    def after_adding(self, candidates: Ints) -> Floats:
        from kofn.combination.ensembles import _kernels as kernels

        self.evaluations += len(candidates)
        pool, out = self.pool, np.empty(len(candidates))
        plain_log = pool.task.loss == "log_loss" and pool.task.known is None and pool.task.row_weights is None

        def work(low: int, high: int) -> None:
            if plain_log:
                P, total = pool.values[:, :, 0], self.total[:, 0]
                kernels.log_losses(P, total, self.counts.sum(), candidates, low, high, self.starts, self.stops, out)
                return
            kernels.losses(
                KINDS[pool.task.loss],
                pool.values,
                pool.known,
                self.total,
                self.heard,
                pool.fallback,
                pool.target,
                pool.task.levels,
                pool.weights,
                candidates,
                low,
                high,
                self.starts,
                self.stops,
                out,
            )

        spread(work, len(candidates), cores(pool.n_threads), shares=4)
        return out

    def add(self, member: int) -> None:
        super().add(member)
        self.total += self.pool.values[member]
        self.heard += self.pool.known[member]


class Pool:
    """Predictions in the order of the folds, of which any but one can be searched.

    Args:
        task: what was predicted.
        order: (n,) the rows, fold by fold.
        bounds: where each fold begins, and where the last ends.
        n_threads: how many threads the searches take.
    """

    def __init__(self, task: Task, order: Ints, bounds: Sequence[int], n_threads: int | None = None) -> None:
        self.task, self.order, self.bounds, self.n_threads = task, order, list(bounds), n_threads
        self.values = task.elements(order)
        self.target = np.ascontiguousarray(task.target[order])
        self.weights = np.ones(len(order)) if task.row_weights is None else task.row_weights[order]
        self.by_products = task.known is None and task.loss in ("brier", "rmse")
        if self.by_products:
            self.products = self._products()
            return
        full = np.ones((task.m, task.n), np.bool_)
        self.known: Mask = full if task.known is None else np.ascontiguousarray(task.known[:, order])
        votes = self.known.sum(axis=0)[:, None]
        self.fallback = self.values.sum(axis=0) / votes
        if task.loss == "log_loss":
            np.maximum(self.values, EPS, out=self.values)

    def _products(self) -> list[Floats]:
        """For each fold the (m, m) products of the members' errors."""
        errors = self.values
        if self.task.loss == "rmse" or errors.shape[2] == 1:
            errors -= self.target
        else:
            errors[:, np.arange(self.task.n), self.target[:, 0].astype(np.int64)] -= 1
        if self.task.row_weights is not None:
            errors *= np.sqrt(self.weights)[:, None]
        parts = zip(self.bounds[:-1], self.bounds[1:], strict=True)
        blocks = [errors[:, low:high].reshape(self.task.m, -1) for low, high in parts]
        # One thread adds up in one order, however many there are.
        with limited(1):
            return [block @ block.T for block in blocks]

    def search(self, without: int | None = None) -> Search:
        """A search on all rows, or on those of all folds but one."""
        folds = [fold for fold in range(len(self.bounds) - 1) if fold != without]
        if self.by_products:
            return Squares(np.sum([self.products[fold] for fold in folds], axis=0))
        return Elements(self, [self.bounds[fold] for fold in folds], [self.bounds[fold + 1] for fold in folds])


def grow(
    search: Search, candidates: Ints, rounds: int, k: int, control: Control, *, sorted_start: bool = False
) -> Path:
    """Add `rounds` members, of at most k different ones, each time the one of the candidates that leaves the least
    loss; of equal ones that of the lowest number.

    With `sorted_start` the blend begins with the best of the candidates alone, as many as together lose least.
    """
    added: list[int] = []
    summed: list[float] = []
    if sorted_start:
        best_first = candidates[np.argsort(search.after_adding(candidates), kind="stable")][: min(k, rounds)]
        for member in best_first.tolist():
            summed.append(float(search.after_adding(np.array([member]))[0]))
            search.add(member)
        del summed[int(np.argmin(summed)) + 1 :]
        added = best_first[: len(summed)].tolist()
        search.empty()
        for member in added:
            search.add(member)
    while len(added) < rounds:
        if added and control.stopped():
            break
        used = np.flatnonzero(search.counts)
        open_to = candidates if len(used) < k else used
        losses = search.after_adding(open_to)
        best = int(np.argmin(losses))
        search.add(int(open_to[best]))
        added.append(int(open_to[best]))
        summed.append(float(losses[best]))
    return Path(added, summed)
