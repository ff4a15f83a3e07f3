"""Group rows of many clients by a mixture that they share, each client with weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from kofn.engines.base import Engine
from kofn.engines.opening import opened
from kofn.engines.threads import linear_algebra
from kofn.federated.clustered._mixture import FederatedMixture


@method(
    "assign",
    traits=("distributed",),
    draws=Draw(log_value=True),
    cost="O(n k d^2) a round; memory O(n k predictors + k d^2)",
    exact="the rounds are those of EM on the pooled rows; the penalised likelihood never falls; a local maximum of it",
    paper=324,
)
def federated_mixture(
    X: Any,
    *,
    k: int,
    y: Any = None,
    groups: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: Progress = None,
    engine: Any = None,
    task: str = "classes",
    predictors: int | None = None,
    shrink: float = 1.0,
    ridge: float = 1.0,
    pull: float = 0.0,
    max_iter: int = 500,
    tol: float = 1e-5,
    restarts: int = 1,
) -> Assignment:
    """Group rows of many clients by a mixture that they share, each client with weights of its own.

    All rounds of `kofn.federated.FederatedMixture` at once, where the rows are at hand: with `groups` as the clients,
    Gaussians over the rows and, where y is given, a model of y for each; what clients would send are sums.

    Args:
        X: vectors (n, d), columns on one scale.
        k: Gaussians.
        y: (n,) labels, or numbers for `task="amounts"`; without it the mixture is one of Gaussians.
        groups: (n,) the client of each row; without it all rows are one client's.
        seed: of the k-means that it begins with.
        time_limit: seconds.
        progress: True shows how far the work is; a callable is told each step.
        engine: where the clients' sums are made, client by client: "local" (threads), "ray", "ray://HOST:PORT", or an
            engine; by default here, one after another. The answer is the same.
        task: what y is, "classes" or "amounts".
        predictors: models of y, each of which may go with each Gaussian; None gives every Gaussian one of its own.
        shrink: each covariance is held by this many pseudo-rows of the pooled spread (> 0).
        ridge: penalty on the squared slopes of the models of y (> 0).
        pull: pseudo-rows of each client that are spread evenly over the components.
        max_iter: rounds.
        tol: it ends once a round adds no more than this to the mean penalised log-likelihood of a row.
        restarts: runs with different seeds, of which the best is kept.

    Returns:
        An `Assignment` of the rows: `weights` their responsibilities (y counts where it is given), `labels` the
        likeliest Gaussian, `centers` the means, `value` the log-likelihood less the penalties. `info`: `trace`, the
        objective of every round; `clients` and `client_weights` (clients, k, predictors or 1); `state`, of which
        `FederatedMixture.from_state` makes a stepper to predict, to add clients or to go on. `status` is "local"
        once `tol` is met, else "stopped".

    Raises:
        InputError: k above the number of rows, options out of range, y that is not numbers for amounts.

    Cost: O(n d^2 (k + predictors)) a round.

    Guarantee: the objective never rises above its maximum nor falls between rounds; which maximum is met depends on the
    start.

    References:
        Wu, Zhang, Yu, Liu, Gu, Zhou, Chen & Cheng 2023, Personalized Federated Learning under Mixture of Distributions
        (ICML, arXiv 2305.01068).

    Examples:
        >>> import numpy as np
        >>> from kofn.federated import federated_mixture
        >>> X = np.random.default_rng(0).normal(size=(40, 2)) + np.repeat([[-9.0], [9.0]], 20, axis=0)
        >>> plan = federated_mixture(X, k=2, groups=["a"] * 10 + ["b"] * 30, seed=0)
        >>> sorted(plan.col_margin.round(3).tolist())
        [20.0, 20.0]
        >>> np.sort(np.round(plan.info["client_weights"], 3)[:, :, 0], axis=1).tolist()
        [[0.0, 1.0], [0.333, 0.667]]
    """
    checks.choice(task, "task", ("classes", "amounts"))
    rounds, repeats = checks.count(max_iter, "max_iter"), checks.count(restarts, "restarts")
    tol = float(checks.number(tol, "tol"))
    if k > len(X):
        raise InputError(f"k={k} Gaussians for {len(X)} rows; lower k")
    client_of = np.zeros(len(X), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    names = [0] if groups is None else np.unique(groups).tolist()
    rows_of = [np.flatnonzero(client_of == i) for i in range(len(names))]
    kind = "none" if y is None else task
    options: dict[str, Any] = {"task": kind, "predictors": predictors, "shrink": shrink, "ridge": ridge, "pull": pull}
    labels = checks.vector(y, "y").astype(np.float64) if kind == "amounts" else y
    runs: list[tuple[FederatedMixture, list[float], bool]] = []
    clients = _Clients(np.asarray(X), labels, rows_of, names)
    with (
        _rounds(engine, clients) as asked,
        Control(time_limit=time_limit, progress=progress, total=repeats, title="restarts of the mixture") as control,
    ):
        for restart in range(repeats):
            model = FederatedMixture(k, seed=_turned(seed, restart), **options)
            runs.append((model, *_fit(model, asked, rounds, tol, control)))
            control.step(restart + 1)
            if control.stopped():
                break
    fitted, trace, settled = max(runs, key=lambda run: run[1][-1])
    responsibilities = np.zeros((len(X), k))
    for client, rows in zip(names, rows_of, strict=True):
        responsibilities[rows] = fitted.responsibilities(
            X[rows], None if labels is None else labels[rows], client=client
        )
    rows, columns = np.nonzero(responsibilities)
    return Assignment.from_pairs(
        rows,
        columns,
        responsibilities[rows, columns],
        n=len(X),
        k=k,
        value=trace[-1],
        sense="max",
        status="local" if settled and len(runs) == repeats else "stopped",
        centers=fitted.means,
        objective="penalised_log_likelihood",
        info={
            "trace": trace,
            "rounds": fitted.rounds,
            "clients": names,
            "client_weights": np.array([fitted.weights(client) for client in names]),
            "state": fitted.state_dict(),
        },
    )


def _turned(seed: int | None, restart: int) -> int:
    return int(np.random.SeedSequence([checks.entropy(seed), restart]).generate_state(1)[0])


@dataclass(frozen=True)
class _Clients:
    """The rows of each client, and what it is called."""

    X: Floats
    y: Any
    rows: list[Ints]
    names: list[Any]

    def of(self, client: int) -> tuple[Floats, Any]:
        """The rows and labels of one client, by its number."""
        rows = self.rows[client]
        return self.X[rows], None if self.y is None else self.y[rows]


def client_sketch(client: int, clients: _Clients, model: FederatedMixture) -> dict[str, Any]:
    """What one client sends at the start."""
    return model.sketch(*clients.of(client))


def client_statistics(client: int, clients: _Clients, model: FederatedMixture) -> dict[str, Any]:
    """What one client sends in a round."""
    return model.statistics(*clients.of(client), client=clients.names[client])


@dataclass(frozen=True)
class _Rounds:
    """Where the clients work: on an engine that shares their rows, or here."""

    clients: _Clients
    handle: Any
    engine: Engine | None

    def ask(self, work: Callable[[int, _Clients, FederatedMixture], Any], model: FederatedMixture) -> Iterator[Any]:
        """What each client sends, in their order."""
        numbers = range(len(self.clients.names))
        if self.engine is None:
            return (work(client, self.clients, model) for client in numbers)
        return self.engine.map(work, numbers, shared=(self.handle, self.engine.share(model)))


@contextmanager
def _rounds(engine: Any, clients: _Clients) -> Iterator[_Rounds]:
    """Where the clients work, while linear algebra takes one thread there and here, so that sums have the same bits."""
    if engine is None:
        yield _Rounds(clients, clients, None)
        return
    with opened(engine) as ran, linear_algebra(1):
        yield _Rounds(clients, ran.share(clients), ran)


def _fit(
    fitted: FederatedMixture, clients: _Rounds, rounds: int, tol: float, control: Control
) -> tuple[list[float], bool]:
    """Run rounds until the objective stops growing; returns the objective of every round and whether it converged.

    The parameters kept are those at which the last objective was evaluated.
    """
    fitted.begin(dict(zip(clients.clients.names, clients.ask(client_sketch, fitted), strict=True)))
    trace: list[float] = []
    while True:
        before = fitted.state_dict()
        fitted.tell(clients.ask(client_statistics, fitted))
        trace.append(fitted.objective)
        settled = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(clients.clients.X)
        if settled or len(trace) > rounds or control.stopped():
            fitted.load_state_dict(before | {"log_likelihood": fitted.log_likelihood, "objective": fitted.objective})
            return trace, settled
