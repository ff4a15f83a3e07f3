"""Clients whose data differ: which of them should learn together, and a mixture that holds what they share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.engines.control import Control
from kofn.federated._mixture import FederatedMixture
from kofn.plans import Assignment
from kofn.registry import method

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@method(
    "assign",
    cost="O(n k d^2) a round; memory O(n k predictors + k d^2)",
    exact="the rounds are those of EM on the pooled rows; the penalised likelihood never falls; a local maximum of it",
    paper="Wu, Zhang, Yu, Liu, Gu, Zhou, Chen & Cheng 2023, Personalized Federated Learning under Mixture of "
    "Distributions (ICML, arXiv 2305.01068)",
)
def federated_mixture(
    X: Any,
    *,
    k: int,
    y: Any = None,
    groups: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
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
        progress: show progress on a terminal.
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
        objective of every round; `clients` and `client_weights` (clients, k, predictors or 1); `state`, which
        `FederatedMixture.load_state_dict` takes in order to predict, to add clients or to go on. `status` is "local"
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
    own = np.zeros(len(X), np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    names = [0] if groups is None else np.unique(groups).tolist()
    parts = [np.flatnonzero(own == at) for at in range(len(names))]
    kind = "none" if y is None else task
    options: dict[str, Any] = {"task": kind, "predictors": predictors, "shrink": shrink, "ridge": ridge, "pull": pull}
    labels = checks.vector(y, "y").astype(np.float64) if kind == "amounts" else y
    runs: list[tuple[FederatedMixture, list[float], bool]] = []
    with Control(time_limit=time_limit, progress=progress, total=repeats, what="restarts of the mixture") as control:
        for turn in range(repeats):
            model = FederatedMixture(k, seed=_turned(seed, turn), **options)
            runs.append((model, *_fit(model, X, labels, names, parts, rounds, tol, control)))
            control.step(turn + 1)
            if control.stopped():
                break
    fitted, trace, settled = max(runs, key=lambda run: run[1][-1])
    held = np.zeros((len(X), k))
    for client, rows in zip(names, parts, strict=True):
        held[rows] = fitted.responsibilities(X[rows], None if labels is None else labels[rows], client=client)
    placed, bins = np.nonzero(held)
    return Assignment(
        n=len(X),
        k=k,
        indptr=np.concatenate([[0], np.cumsum(np.bincount(placed, minlength=len(X)))]).astype(np.int64),
        bins=bins.astype(np.int32),
        weights=held[placed, bins],
        value=trace[-1],
        sense="max",
        status="local" if settled and len(runs) == repeats else "stopped",
        centers=fitted.means,
        info={
            "objective": "penalised_log_likelihood",
            "trace": trace,
            "rounds": fitted.rounds,
            "clients": names,
            "client_weights": np.array([fitted.weights(client) for client in names]),
            "state": fitted.state_dict(),
        },
    )


def _turned(seed: int | None, turn: int) -> int:
    return int(np.random.SeedSequence([checks.entropy(seed), turn]).generate_state(1)[0])


def _fit(
    fitted: FederatedMixture,
    X: Floats,
    y: Any,
    names: list[Any],
    parts: list[Ints],
    rounds: int,
    tol: float,
    control: Control,
) -> tuple[list[float], bool]:
    """Rounds until a round adds nothing: the objective of each, and whether it came to that. The parameters that are
    kept are those that the last objective is of."""
    told = [None if y is None else y[rows] for rows in parts]
    fitted.begin({client: fitted.sketch(X[rows], part) for client, rows, part in zip(names, parts, told, strict=True)})
    trace: list[float] = []
    while True:
        before = fitted.state_dict()
        fitted.update(
            fitted.statistics(X[rows], part, client=client)
            for client, rows, part in zip(names, parts, told, strict=True)
        )
        trace.append(fitted.objective)
        settled = len(trace) > 1 and trace[-1] - trace[-2] <= tol * len(X)
        if settled or len(trace) > rounds or control.stopped():
            fitted.load_state_dict(before | {"log_likelihood": fitted.log_likelihood, "objective": fitted.objective})
            return trace, settled


@method(
    "assign",
    cost="O(restarts n^2) a pass over the clients; memory O(n^2)",
    traits=("sandwich",),
    exact="no move of one client lowers the value; a proven bound tells how far the best partition may be",
    paper="Bao, Wang, Wu & He 2023, Optimizing the Collaboration Structure in Cross-Silo Federated Learning (ICML, "
    "arXiv 2306.06508)",
)
def fedcollab(
    distances: Any,
    *,
    weights: Any = None,
    seed: int | None = None,
    time_limit: float | None = None,
    progress: bool | None = None,
    C: float = 5.0,
    restarts: int = 100,
    unions: bool = True,
) -> Assignment:
    """Group clients into coalitions that learn together, few or many, by a bound on each client's error.

    A client that joins a coalition has more rows to learn from and others' distributions to learn from. What client i
    of coalition S has to expect is bounded by its own best error plus

        C / sqrt(rows of S) + sum of (rows of j) / (rows of S) x distance(i, j) over j in S

    and the sum of this over the clients is minimised: each starts alone (every second run: somewhere at random);
    clients in a random order move to the coalition, or to one of their own, that lowers it most, until none moves; then
    the two coalitions whose union lowers it most unite, and clients move again. How many there are comes out of it.

    Args:
        distances: (n, n) how far the clients' distributions are, 0 to 1 (`client_distances` estimates them).
        weights: (n,) rows of each client, > 0; without it one each, so that sizes alone count.
        seed: of the orders.
        time_limit: seconds.
        progress: show progress on a terminal.
        C: how much more rows are worth against nearer ones: the capacity of what is learnt. Larger ones make fewer
            coalitions; the paper takes 5 to 10.
        restarts: runs, of which the best end is kept.
        unions: False moves single clients only and starts with each alone, as the paper does; two coalitions that would
            gain by being one may then stay apart, since the first client to move would lose.

    Returns:
        An `Assignment` of clients to coalitions, numbered by their first client; `value` is the summed bound on the
        errors, `bound` what no partition goes below: every client in the coalition that would suit it best. `status`
        is "optimal" where the two meet, else "local", or "stopped" before all runs. `info`:
        `client_bounds`, each client's part of the value, `alone` and `together`, the values with every client alone and
        with all in one, `moves` of the best run, `oracle_calls` moves that were weighed.

    Raises:
        InputError: weights of 0, or options out of range.

    Cost: O(restarts n^2) a pass over the clients, few passes each.

    Guarantee: no move of one client, to another coalition or to one of its own, lowers the value, and no union of two
    coalitions. The best partition may need other changes.

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
    # What a pair costs a coalition that holds both, before it is divided by the coalition's rows.
    toll = apart * rows + (apart * rows).T
    np.fill_diagonal(toll, np.diag(apart) * rows)
    rng = np.random.default_rng(seed)
    best, least, moved, weighed = np.arange(n), math.inf, 0, 0
    floor = _floor(apart, rows, C)
    with Control(time_limit=time_limit, progress=progress, total=repeats, what="restarts of the coalitions") as control:
        for turn in range(repeats):
            run = _Coalitions(toll, rows, C)
            if unions and turn % 2:
                run.place(rng.integers(0, rng.integers(1, n + 1), n))
            run.settle(rng)
            while unions and run.join():
                run.settle(rng)
            weighed += run.looks
            value = float(_bounds(apart, rows, run.labels, C).sum())
            # Runs that end alike differ by rounding.
            if value < least * (1 - 1e-12):
                best, least, moved = run.labels, value, run.moves
            control.step(turn + 1)
            proven = least <= floor * (1 + 1e-12)
            if proven or (turn + 1 < repeats and control.stopped()):
                break
    done = turn + 1 == repeats
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
        info={
            "objective": "collaboration_bound",
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
    held = joined.sum(axis=1)
    return np.asarray(C / np.sqrt(held) + (joined * apart).sum(axis=1) / held)


def _floor(apart: Floats, rows: Floats, C: float) -> float:
    """What no partition goes below: each client with itself and the nearest others, as many as are best for it.

    With the others in order of distance the bound, as a function of the rows, has no minimum inside a client's rows.
    """
    away = apart.copy()
    np.fill_diagonal(away, -1.0)
    order = np.argsort(away, axis=1, kind="stable")
    held = np.cumsum(rows[order], axis=1)
    paid = np.cumsum(np.take_along_axis(apart, order, axis=1) * rows[order], axis=1)
    return math.fsum((C / np.sqrt(held) + paid / held).min(axis=1).tolist())


class _Coalitions:
    """Who is with whom, from every client alone, and what each coalition pays.

    `toll` (n, n) is what a pair costs a coalition that holds both, before it is divided by the coalition's rows.
    """

    def __init__(self, toll: Floats, rows: Floats, C: float) -> None:
        n = len(rows)
        self.toll, self.rows, self.C = toll, rows, C
        self.labels = np.arange(n)
        self.size, self.held, self.paid = np.ones(n), rows.copy(), np.diag(toll).copy()
        # (n, n) what each client owes to the others of each coalition.
        self.dues = toll.copy()
        np.fill_diagonal(self.dues, 0.0)
        # Changes within rounding would go round in circles.
        self.slack = 1e-12 * float(self.cost(self.size, self.held, self.paid).sum() + toll.max() / rows.min())
        self.moves = self.looks = 0

    def cost(self, size: Any, held: Any, paid: Any) -> Any:
        """The summed bound of coalitions of so many clients, rows and dues; nothing of empty ones."""
        some = np.where(size > 0, held, 1.0)
        return np.where(size > 0, size * self.C / np.sqrt(some) + paid / some, 0.0)

    def place(self, labels: Ints) -> None:
        """Put every client where it is to begin."""
        for client in np.flatnonzero(self.labels != labels).tolist():
            self._move(client, int(labels[client]))

    def settle(self, rng: np.random.Generator) -> None:
        """Moves of one client at a time, in random orders, until none lowers the summed bound."""
        own = np.diag(self.toll)
        settled = False
        while not settled:
            settled = True
            for client in rng.permutation(len(self.rows)).tolist():
                home, rows, due = int(self.labels[client]), self.rows[client], self.dues[client] + own[client]
                now = self.cost(self.size, self.held, self.paid)
                change = self.cost(self.size + 1, self.held + rows, self.paid + due) - now
                # What it costs to have the client where it is.
                change[home] = now[home] - self.cost(
                    self.size[home] - 1, self.held[home] - rows, self.paid[home] - due[home]
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

    def _shift(self, client: int, at: int, sign: int) -> None:
        self.size[at] += sign
        self.held[at] += sign * self.rows[client]
        self.paid[at] += sign * (self.dues[client, at] + self.toll[client, client])
        self.dues[:, at] += sign * self.toll[client]
        self.dues[client, at] -= sign * self.toll[client, client]
        if self.size[at] == 0:
            # What rounding leaves would grow in an empty coalition.
            self.held[at] = self.paid[at] = 0.0
            self.dues[:, at] = 0.0

    def join(self) -> bool:
        """Unite the two coalitions whose union lowers the summed bound most; False where none does."""
        held = np.unique(self.labels)
        between = np.array([self.dues[self.labels == one].sum(axis=0) for one in held])[:, held]
        size, rows, paid = self.size[held], self.held[held], self.paid[held]
        now = self.cost(size, rows, paid)
        gain = np.add.outer(now, now) - self.cost(
            np.add.outer(size, size), np.add.outer(rows, rows), np.add.outer(paid, paid) + between
        )
        np.fill_diagonal(gain, -np.inf)
        self.looks += len(held) * (len(held) - 1) // 2
        a, b = np.unravel_index(int(gain.argmax()), gain.shape)
        if not gain[a, b] > self.slack:
            return False
        for client in np.flatnonzero(self.labels == held[b]).tolist():
            self._move(client, int(held[a]))
        self.moves += 1
        return True


def client_distances(
    X: Any, *, groups: Any, y: Any = None, classifier: Any = None, folds: int = 2, seed: int = 0
) -> tuple[Floats, Ints, list[Any]]:
    """How far each two clients' distributions are: how well a classifier tells their rows apart, on rows it never saw.

    For each pair a classifier learns which client a row comes from on part of their rows and is asked on the rest; the
    shares it gets right of either, added, less one: 0 for one distribution, 1 for two that never overlap. A classifier
    that does not find the best rule says too little, few rows say it roughly.

    Args:
        X: vectors (n, d).
        groups: (n,) the client of each row.
        y: (n,) labels: with them the distributions are those of rows and labels together, so that clients that label
            alike rows differently are far. The classifier sees each row's vector in the columns of its label.
        classifier: any scikit-learn classifier; without it logistic regression. Rows count so that both clients weigh
            the same, where it takes weights.
        folds: parts that the rows are cut into, each asked of a classifier that learnt on the others; at most the rows
            of the smallest client.
        seed: of the parts.

    Returns:
        distances (clients, clients); rows of each client (clients,), the `weights` of `fedcollab`; the clients' names,
        sorted.

    Raises:
        InputError: one client only, a client with one row, folds beyond the smallest client's rows.

    Cost: a classifier for each pair and fold.

    References:
        Bao, Wang, Wu & He 2023 (ICML, arXiv 2306.06508), with C-divergence: Mohri & Munoz Medina 2012.

    Examples:
        >>> import numpy as np
        >>> from kofn.federated import client_distances, fedcollab
        >>> X = np.random.default_rng(0).normal(size=(300, 2))
        >>> X[200:] += 4
        >>> apart, rows, names = client_distances(X, groups=np.repeat(["a", "b", "c"], 100))
        >>> bool(apart[0, 1] < 0.2), bool(apart[0, 2] > 0.9), rows.tolist(), names
        (True, True, [100, 100, 100], ['a', 'b', 'c'])
        >>> fedcollab(apart, weights=rows, C=1.0, seed=0).labels.tolist()
        [0, 0, 1]
    """
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils.validation import has_fit_parameter

    X = checks.matrix(X).astype(np.float64)
    groups = checks.groups(groups)
    checks.same_length(len(X), "X", "groups", len(groups))
    names, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
    parts = checks.count(folds, "folds", least=2)
    if len(names) < 2:
        raise InputError(f"groups hold one client, {names.tolist()[0]!r}; give two or more")
    if counts.min() < parts:
        few = int(counts.argmin())
        raise InputError(f"groups: client {names.tolist()[few]!r} has {counts[few]} rows, folds={parts}; lower folds")
    if classifier is not None and not hasattr(classifier, "fit"):
        raise InputError(f"classifier={classifier!r}: give a scikit-learn classifier")
    rows = X
    if y is not None:
        labels = checks.groups(y, "y")
        checks.same_length(len(X), "X", "y", len(labels))
        codes = np.unique(labels, return_inverse=True)[1]
        # A plain product of vector and label lets even a linear rule see who labels what how.
        rows = (np.eye(codes.max() + 1)[codes][:, :, None] * np.column_stack([np.ones(len(X)), X])[:, None]).reshape(
            len(X), -1
        )
    model = LogisticRegression(max_iter=200) if classifier is None else classifier
    weighed = has_fit_parameter(model, "sample_weight")
    order = np.random.default_rng(seed).permutation(len(X))
    fold = np.empty(len(X), np.int64)
    for client in range(len(names)):
        mine = order[own[order] == client]
        fold[mine] = np.arange(len(mine)) % parts
    apart = np.zeros((len(names), len(names)))
    for i in range(len(names)):
        for j in range(i):
            pair = np.flatnonzero((own == i) | (own == j))
            side = (own[pair] == i).astype(np.int64)
            right = np.zeros(len(pair), bool)
            for part in range(parts):
                learn, ask = fold[pair] != part, fold[pair] == part
                share = np.bincount(side[learn])[side[learn]]
                extra = {"sample_weight": len(share) / (2 * share)} if weighed else {}
                fitted = clone(model).fit(rows[pair[learn]], side[learn], **extra)
                right[ask] = fitted.predict(rows[pair[ask]]) == side[ask]
            apart[i, j] = apart[j, i] = max(0.0, right[side == 1].mean() + right[side == 0].mean() - 1)
    return apart, counts.astype(np.int64), names.tolist()
