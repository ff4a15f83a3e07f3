"""Group rows of many clients by a mixture that they share, each client with weights of its own."""

from __future__ import annotations

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
from kofn.federated.clustered._mixture import FederatedMixture


@method(
    "assign",
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
    with Control(time_limit=time_limit, progress=progress, total=repeats, title="restarts of the mixture") as control:
        for restart in range(repeats):
            model = FederatedMixture(k, seed=_turned(seed, restart), **options)
            runs.append((model, *_fit(model, X, labels, names, rows_of, rounds, tol, control)))
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


def _fit(
    fitted: FederatedMixture,
    X: Floats,
    y: Any,
    names: list[Any],
    rows_of: list[Ints],
    rounds: int,
    tol: float,
    control: Control,
) -> tuple[list[float], bool]:
    """Run rounds until the objective stops growing; returns the objective of every round and whether it converged.

    The parameters kept are those at which the last objective was evaluated.
    """
    answers = [None if y is None else y[rows] for rows in rows_of]
    fitted.begin(
        {client: fitted.sketch(X[rows], answer) for client, rows, answer in zip(names, rows_of, answers, strict=True)}
    )
    trace: list[float] = []
    while True:
        before = fitted.state_dict()
        fitted.tell(
            fitted.statistics(X[rows], answer, client=client)
            for client, rows, answer in zip(names, rows_of, answers, strict=True)
        )
        trace.append(fitted.objective)
        settled = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(X)
        if settled or len(trace) > rounds or control.stopped():
            fitted.load_state_dict(before | {"log_likelihood": fitted.log_likelihood, "objective": fitted.objective})
            return trace, settled
