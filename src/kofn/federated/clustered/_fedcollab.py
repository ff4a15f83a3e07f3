"""FedCollab: group clients into coalitions that minimise a bound on their errors; their number is chosen too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress


@method(
    "assign",
    cost="O(restarts n^2) a pass over the clients; memory O(n^2)",
    traits=("sandwich",),
    draws=Draw(scale_free=False),
    exact="no move of one client lowers the value; a proven bound tells how far the best partition may be",
    paper=197,
    local="no move of a single client improves it",
)
def fedcollab(
    distances: Any,
    *,
    weights: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
    C: float = 5.0,
    restarts: int = 100,
    unions: bool = True,
) -> Assignment:
    """FedCollab: group clients into coalitions that minimise a bound on their errors; their number is chosen too.

    A larger coalition has more rows, but from more different distributions. The error of client i in coalition S is
    bounded by its own best error plus

        C / sqrt(rows of S) + sum of (rows of j) / (rows of S) x distance(i, j) over j in S

    and the sum over the clients is minimised by local search. Each client starts alone (every second run: in a random
    coalition); clients in random order move to the coalition, or to one of their own, that lowers the sum most, until
    none moves; then the two coalitions whose union lowers it most are merged, and clients move again.

    Args:
        distances: (n, n) distances of the clients' distributions, 0 to 1 (`client_distances` estimates them).
        weights: (n,) number of rows of each client, > 0; default 1.
        seed: for the random orders and starts.
        time_limit: seconds.
        progress: True shows how far the work is; a callable is told each step.
        C: capacity of the model class, the weight of sample size against distance. Larger values give fewer coalitions;
            the paper takes 5 to 10.
        restarts: number of runs; the best is returned.
        unions: False moves single clients only and starts with each alone, as the paper does; two coalitions that would
            gain by being one may then stay apart, since the first client to move would lose.

    Returns:
        An `Assignment` of clients to coalitions, numbered by their first client; `value` is the summed bound on the
        errors, `bound` a lower bound over all partitions: every client in its own best coalition. `status`
        is "optimal" where the two meet, else "local", or "stopped" before all runs. `info`:
        `client_bounds`, each client's part of the value, `alone` and `together`, the values with every client alone and
        with all in one, `moves` of the best run, `oracle_calls` the moves evaluated.

    Raises:
        InputError: weights of 0, or options out of range.

    Cost: O(restarts n^2) a pass over the clients, few passes each.

    Guarantee: a local optimum: no move of one client, to another coalition or to its own, and no union of two
    coalitions lowers the value.

    References:
        Bao, Wang, Wu & He 2023, Optimizing the Collaboration Structure in Cross-Silo Federated Learning (ICML, arXiv
        2306.06508).

    Examples:
        >>> from kofn.federated import fedcollab
        >>> far = [[0, 0.1, 0.9, 0.9], [0.1, 0, 0.9, 0.9], [0.9, 0.9, 0, 0.1], [0.9, 0.9, 0.1, 0]]
        >>> fedcollab(far, weights=[100, 100, 100, 100], seed=0).labels.tolist()
        [0, 0, 1, 1]
        >>> fedcollab(far, weights=[5, 5, 5, 5], seed=0).labels.tolist()
        [0, 0, 0, 0]
    """
    apart = np.asarray(distances, np.float64)
    n = len(apart)
    rows = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if not rows.all():
        raise InputError(f"weights at row {int(rows.argmin())} is 0; leave out clients that have no rows")
    C = float(checks.number(C, "C"))
    repeats = checks.count(restarts, "restarts")
    checks.flag(unions, "unions")
    # Cost of a pair in the same coalition, before division by the coalition's rows.
    toll = apart * rows + (apart * rows).T
    np.fill_diagonal(toll, np.diag(apart) * rows)
    rng = np.random.default_rng(seed)
    best, least, moved, weighed = np.arange(n), math.inf, 0, 0
    floor = _floor(apart, rows, C)
    with Control(
        time_limit=time_limit, progress=progress, total=repeats, title="restarts of the coalitions"
    ) as control:
        for restart in range(repeats):
            run = _Coalitions(toll, rows, C)
            if unions and restart % 2:
                run.place(rng.integers(0, rng.integers(1, n + 1), n))
            run.settle(rng)
            while unions and run.join():
                run.settle(rng)
            weighed += run.looks
            value = float(_bounds(apart, rows, run.labels, C).sum())
            # Restarts that end in the same partition differ by rounding.
            if value < least * (1 - 1e-12):
                best, least, moved = run.labels, value, run.moves
            control.step(restart + 1)
            proven = least <= floor * (1 + 1e-12)
            if proven or (restart + 1 < repeats and control.stopped()):
                break
    done = restart + 1 == repeats
    order = np.unique(best, return_index=True)[1]
    labels = np.argsort(np.argsort(order))[np.unique(best, return_inverse=True)[1]]
    bounds = _bounds(apart, rows, labels, C)
    value = math.fsum(bounds.tolist())
    return Assignment.from_labels(
        labels,
        int(labels.max()) + 1,
        value=value,
        bound=min(floor, value),
        sense="min",
        status="optimal" if proven else "local" if done else "stopped",
        objective="collaboration_bound",
        info={
            "client_bounds": bounds.tolist(),
            "alone": math.fsum(_bounds(apart, rows, np.arange(n), C).tolist()),
            "together": math.fsum(_bounds(apart, rows, np.zeros(n, np.int64), C).tolist()),
            "moves": moved,
            "oracle_calls": weighed,
        },
    )


def _bounds(apart: Floats, rows: Floats, labels: Ints, C: float) -> Floats:
    """(n,) the bound of each client in its coalition, without its own best error."""
    joined = (labels[:, None] == labels) * rows
    pooled = joined.sum(axis=1)
    return np.asarray(C / np.sqrt(pooled) + (joined * apart).sum(axis=1) / pooled)


def _floor(apart: Floats, rows: Floats, C: float) -> float:
    """A lower bound over all partitions: each client with its nearest others, in the number best for it.

    With the others sorted by distance, the bound as a function of the number of rows has no minimum inside a client.
    """
    away = apart.copy()
    np.fill_diagonal(away, -1.0)
    order = np.argsort(away, axis=1, kind="stable")
    pooled = np.cumsum(rows[order], axis=1)
    paid = np.cumsum(np.take_along_axis(apart, order, axis=1) * rows[order], axis=1)
    return math.fsum((C / np.sqrt(pooled) + paid / pooled).min(axis=1).tolist())


class _Coalitions:
    """The partition under search, starting from singletons, with the cost of each coalition.

    `toll` (n, n) is the cost of a pair in the same coalition, before division by the coalition's rows.
    """

    def __init__(self, toll: Floats, rows: Floats, C: float) -> None:
        n = len(rows)
        self.toll, self.rows, self.C = toll, rows, C
        self.labels = np.arange(n)
        self.size, self.held_rows, self.paid = np.ones(n), rows.copy(), np.diag(toll).copy()
        # (n, n) the dues of each client towards each coalition, its own excluded.
        self.dues = toll.copy()
        np.fill_diagonal(self.dues, 0.0)
        # Accepting changes within rounding could cycle.
        self.slack = 1e-12 * float(self.cost(self.size, self.held_rows, self.paid).sum() + toll.max() / rows.min())
        self.moves = self.looks = 0

    def cost(self, size: Any, rows: Any, paid: Any) -> Any:
        """The summed bound of coalitions with these numbers of clients, rows and dues; 0 for empty ones."""
        nonempty = np.where(size > 0, rows, 1.0)
        return np.where(size > 0, size * self.C / np.sqrt(nonempty) + paid / nonempty, 0.0)

    def place(self, labels: Ints) -> None:
        """Set the partition."""
        for client in np.flatnonzero(self.labels != labels).tolist():
            self._move(client, int(labels[client]))

    def settle(self, rng: np.random.Generator) -> None:
        """Move single clients, in random order, until no move lowers the summed bound."""
        alone = np.diag(self.toll)
        settled = False
        while not settled:
            settled = True
            for client in rng.permutation(len(self.rows)).tolist():
                home, rows, due = int(self.labels[client]), self.rows[client], self.dues[client] + alone[client]
                now = self.cost(self.size, self.held_rows, self.paid)
                change = self.cost(self.size + 1, self.held_rows + rows, self.paid + due) - now
                # The cost of keeping the client where it is.
                change[home] = now[home] - self.cost(
                    self.size[home] - 1, self.held_rows[home] - rows, self.paid[home] - due[home]
                )
                self.looks += len(self.rows) - 1
                to = int(change.argmin())
                if change[to] < change[home] - self.slack:
                    self._move(client, to)
                    self.moves += 1
                    settled = False

    def _move(self, client: int, to: int) -> None:
        self._shift(client, int(self.labels[client]), -1)
        self._shift(client, to, 1)
        self.labels[client] = to

    def _shift(self, client: int, coalition: int, sign: int) -> None:
        self.size[coalition] += sign
        self.held_rows[coalition] += sign * self.rows[client]
        self.paid[coalition] += sign * (self.dues[client, coalition] + self.toll[client, client])
        self.dues[:, coalition] += sign * self.toll[client]
        self.dues[client, coalition] -= sign * self.toll[client, client]
        if self.size[coalition] == 0:
            # Rounding errors would accumulate in an empty coalition.
            self.held_rows[coalition] = self.paid[coalition] = 0.0
            self.dues[:, coalition] = 0.0

    def join(self) -> bool:
        """Merge the two coalitions whose union lowers the summed bound most; False if none does."""
        present = np.unique(self.labels)
        between = np.array([self.dues[self.labels == label].sum(axis=0) for label in present])[:, present]
        size, rows, paid = self.size[present], self.held_rows[present], self.paid[present]
        now = self.cost(size, rows, paid)
        gain = np.add.outer(now, now) - self.cost(
            np.add.outer(size, size), np.add.outer(rows, rows), np.add.outer(paid, paid) + between
        )
        np.fill_diagonal(gain, -np.inf)
        self.looks += len(present) * (len(present) - 1) // 2
        a, b = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[a, b] > self.slack:
            return False
        for client in np.flatnonzero(self.labels == present[b]).tolist():
            self._move(client, int(present[a]))
        self.moves += 1
        return True
