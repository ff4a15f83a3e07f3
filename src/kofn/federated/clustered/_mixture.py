"""Federated mixture model: clients fit shared components without sharing rows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Assignment
from kofn.core.stepper import Event, Example, Stepper, stepper
from kofn.federated.clustered import _em
from kofn.federated.clustered._messages import checked_sketches, checked_statistics

# The arrays of `_em.Parameters` stored in a state; the other fields are settings.
_ARRAYS = ("means", "covariances", "coefficients", "noise", "gaussian", "predictor")


def _example(rng: np.random.Generator) -> Example:
    task = _em.TASKS[rng.integers(len(_em.TASKS))]
    k, predictors = int(rng.integers(1, 4)), None if task == "none" else int(rng.integers(1, 3))
    rows = {client: rng.normal(size=(8, 2)) + 3 * rng.integers(0, 2, (8, 1)) for client in ("a", "b")}
    answers: dict[str, Any] = dict.fromkeys(rows)
    if task == "classes":
        answers = {client: np.array(list("xyxyzzxy")) for client in rows}
    elif task == "amounts":
        answers = {client: X.sum(axis=1).round() for client, X in rows.items()}

    def event(model: FederatedMixture, rng: np.random.Generator) -> Event:
        if not model.clients:
            return Event("begin", ({client: model.sketch(X, answers[client]) for client, X in rows.items()},))
        if rng.random() < 0.3:
            options = {"y": answers["a"][:5] if task != "none" else None, "client": f"new {rng.integers(3)}"}
            return Event("adapt", (rows["a"][:5],), options)
        return Event("tell", ([model.statistics(X, answers[client], client=client) for client, X in rows.items()],))

    return Example(
        lambda seed: FederatedMixture(k, task=task, predictors=predictors, seed=seed),
        event=event,
        events=4,
        refused=(
            (Event("begin", ({},)), "sketches is empty"),
            (Event("tell", ([],)), "call begin"),
            (Event("adapt", (rows["a"],), {"client": "a"}), "call begin"),
        ),
    )


@stepper(
    "assign",
    paper=324,
    cost="a round is O(n d^2 (k + predictors)) for a client of n rows, O((d^3 + d^2 classes) (k + predictors)) for the "
    "server",
    exact="rounds are those of EM on the pooled rows; the penalised likelihood never falls",
    events=("begin", "tell", "adapt"),
    aliases=("FedGMM", "personalised federated learning", "federated EM"),
    draws=_example,
)
class FederatedMixture(Stepper[Assignment]):
    """FedGMM: fit one mixture over many clients, each with its own weights, by EM on sums of sufficient statistics.

    Client c's rows come from `sum_ab w_c[a, b] N(x; mean_a, covariance_a) p_b(y | x)`: Gaussians and models of y are
    shared, the weights are the client's own. In each round of EM every client sends `statistics` of its rows, and the
    server adds them up and updates the parameters. Sums are additive over any parts of the rows, so the parameters are
    those of EM on the pooled rows.

    Args:
        k: Gaussians.
        task: "none", a mixture of Gaussians; "classes", y are labels, under softmax models; "amounts", y are numbers,
            under linear models with Gaussian noise.
        predictors: models of y, each of which may go with each Gaussian (the paper's form); None gives every
            Gaussian its own.
        shrink: pseudo-rows of the pooled variance that regularise each covariance and noise variance (> 0).
        ridge: penalty on the squared slopes of the models of y (> 0).
        pull: pseudo-rows of each client that are spread evenly over the components; 0 is the paper's maximum
            likelihood, which overfits when clients have few rows for many weights.
        seed: for the initial k-means.

    `sketch(X, y)` on each client, then `begin({client: sketch})`; then rounds of `statistics(X, y, client=c)` and
    `tell([...])`. `adapt(X, y, client=c)` gives a client that took no part its weights; `predict`, `log_density` and
    `responsibilities` answer for rows of any client. `plan` sends clients to components. `rounds` counts,
    `log_likelihood` and `objective` (less the penalties) are those of the parameters that the last sums were taken at.

    The server sees, once, a k-means of each client's rows with counts and squares; then, each round, summed
    responsibilities, moments within each Gaussian, and slopes. This is not a privacy guarantee.

    Cost: O(n d^2 (k + predictors)) for a client's n rows a round, and n x k x predictors numbers; O((d^3 + d^2 classes)
    (k + predictors)) for the server. A message is (k + predictors) d^2 numbers.

    Guarantee: with full participation the objective never decreases: Gaussians and linear models are optimal given the
    responsibilities, and a softmax model takes one monotone step. `adapt` finds the optimal weights.

    References:
        Wu, Zhang, Yu, Liu, Gu, Zhou, Chen & Cheng 2023, Personalized Federated Learning under Mixture of Distributions
        (ICML, arXiv 2305.01068). There a client's covariances are averaged and its models trained by gradient steps;
        here both are sums. The step of the softmax: Boehning 1992.

    Examples:
        >>> import numpy as np
        >>> from kofn.federated import FederatedMixture
        >>> rng = np.random.default_rng(0)
        >>> left, right = rng.normal(-5, 1, (30, 2)), rng.normal(5, 1, (50, 2))
        >>> rows = {"a": left, "b": np.vstack([left[:10], right[:30]]), "c": right[30:]}
        >>> model = FederatedMixture(2, seed=0)
        >>> model.begin({client: model.sketch(X) for client, X in rows.items()})
        >>> for _ in range(5):
        ...     model.tell([model.statistics(X, client=client) for client, X in rows.items()])
        >>> sorted(model.weights("b").sum(axis=1).round(2).tolist())
        [0.25, 0.75]
        >>> sorted(model.plan.labels[[0, 2]].tolist())
        [0, 1]
    """

    state: ClassVar = {
        "means": "k d?",
        "covariances": "k d d?",
        "coefficients": "models inputs outputs?",
        "noise": "models?",
        "gaussian": "pairs?",
        "predictor": "pairs?",
        "origin": "d",
        "scale": "",
        "y_origin": "",
        "y_scale": "",
        "classes": "labels?",
        "clients": "parties",
        "weights": "parties pairs",
        "rows": "parties",
        "rounds": "",
        "log_likelihood": "",
        "objective": "",
    }
    states_no_value = True

    def __init__(
        self,
        k: int,
        *,
        task: str = "none",
        predictors: int | None = None,
        shrink: float = 1.0,
        ridge: float = 1.0,
        pull: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.k = checks.count(k)
        self.task = checks.choice(task, "task", _em.TASKS)
        self.predictors = None if predictors is None else checks.count(predictors, "predictors")
        if self.predictors is not None and task == "none":
            raise InputError(f"predictors={predictors}: there is no y to predict; set task to 'classes' or 'amounts'")
        self.shrink, self.ridge = (_positive(value, name) for name, value in (("shrink", shrink), ("ridge", ridge)))
        self.pull = float(checks.number(pull, "pull"))
        super().__init__(
            k=self.k,
            task=self.task,
            predictors=self.predictors,
            shrink=self.shrink,
            ridge=self.ridge,
            pull=self.pull,
            seed=checks.entropy(seed),
        )
        self.classes: NDArray[Any] | None = None
        self.rounds = 0
        self.log_likelihood = self.objective = math.nan
        self._now: _em.Parameters | None = None
        self._origin: Floats = np.zeros(0)
        self._scale = self._y_scale = 1.0
        self._y_origin = 0.0
        self._weights: dict[Any, Floats] = {}
        self._rows: dict[Any, int] = {}

    def sketch(self, X: Any, y: Any = None) -> dict[str, Any]:
        """Summary of one client's rows for `begin`: k-means centres with counts, moments, and the classes."""
        X = checks.matrix(X).astype(np.float64)
        y = self._read(y, len(X))
        means, counts, inertia = _em.centres(X, np.ones(len(X)), self.k, self.seed)
        out = {"centres": means, "counts": counts, "inertia": inertia, **_moments(X, "")}
        if self.task == "amounts":
            out |= _moments(y[:, None], "y_")
        elif self.task == "classes":
            out["classes"] = np.unique(y)
        return out

    def begin(self, sketches: Mapping[Any, Mapping[str, Any]]) -> None:
        """Initialise the parameters from every client's sketch: k-means of their centres and uninformed models of y.

        Raises:
            InputError: no sketch, one that is damaged, or columns that differ between clients.
        """
        sketches = checked_sketches(sketches, self.task)
        parts = list(sketches.values())
        d = len(parts[0]["mean"])
        self._origin, spread = _pooled(parts, "")
        self._scale = _size(spread.mean(), self._origin)
        stacked = np.concatenate([part["centres"] for part in parts])
        counts = np.concatenate([part["counts"] for part in parts])
        centres, _, between = _em.centres(stacked, counts, self.k, self.seed)
        within = (sum(part["inertia"] for part in parts) + between) / (counts.sum() * d * self._scale**2)
        outputs = 0
        if self.task == "classes":
            self.classes = np.unique(np.concatenate([part["classes"] for part in parts]))
            outputs = len(self.classes)
        elif self.task == "amounts":
            middle, spread = _pooled(parts, "y_")
            self._y_origin, self._y_scale, outputs = float(middle[0]), _size(float(spread[0]), middle), 1
        p = self.predictors or self.k
        pairs = np.arange(self.k * p) if self.predictors else np.arange(self.k) * (self.k + 1)
        self._now = _em.Parameters(
            self.task,
            # With fewer distinct rows than Gaussians, some Gaussians start, and stay, at the same mean.
            (centres[np.arange(self.k) % len(centres)] - self._origin) / self._scale,
            np.tile(np.eye(d) * max(within, 1e-3), (self.k, 1, 1)),
            np.zeros((p, d + 1, outputs)),
            np.ones(p),
            pairs // p,
            pairs % p,
            self.shrink,
            self.ridge,
        )
        self._weights = {}
        for i, client in enumerate(sketches):
            # Shared models of y start identical; random client weights break the symmetry.
            lean = np.random.default_rng([self.seed, i]).dirichlet(np.ones(p)) if self.predictors else np.full(p, 1.0)
            table = lean[self._now.predictor]
            self._weights[client] = table / table.sum()
        self._rows = {client: int(part["rows"]) for client, part in sketches.items()}
        self.rounds = 0

    def statistics(self, X: Any, y: Any = None, *, client: Any) -> dict[str, Any]:
        """Sufficient statistics of one client's rows, or of a part of them, at the current parameters."""
        now, Z, codes = self._ready(X, y)
        if self.task != "none" and codes is None:
            raise InputError(f"y is missing; task={self.task!r} learns from it")
        responsibilities, densities = _em.share(_em.log_of(self._of(client)) + now.log_x(Z) + now.log_y(Z, codes))
        return {
            "clients": {client: responsibilities.sum(axis=0)},
            "rows": {client: len(Z)},
            "log_likelihood": math.fsum(densities.tolist()) - len(Z) * self._log_units(codes is not None),
            "sums": _em.moments(now, Z, codes, responsibilities),
            "round": self.rounds,
        }

    @staticmethod
    def merge(statistics: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Merge the statistics of parts into those of all rows."""
        parts = list(statistics)
        if not parts:
            raise InputError("statistics is empty: give at least one client's")
        rounds = {int(part["round"]) for part in parts}
        if len(rounds) > 1:
            raise InputError(f"statistics are of rounds {sorted(rounds)}; merge those of one round")
        clients: dict[Any, Floats] = {}
        rows: dict[Any, int] = {}
        for part in parts:
            for client, mass in part["clients"].items():
                clients[client] = clients[client] + mass if client in clients else mass
                rows[client] = rows.get(client, 0) + part["rows"][client]
        return {
            "clients": clients,
            "rows": rows,
            "log_likelihood": math.fsum(part["log_likelihood"] for part in parts),
            "sums": {
                name: sum((part["sums"][name] for part in parts[1:]), parts[0]["sums"][name])
                for name in parts[0]["sums"]
            },
            "round": rounds.pop(),
        }

    def tell(self, statistics: Iterable[Mapping[str, Any]]) -> None:
        """One round: update the parameters and the weights of the participating clients.

        Raises:
            InputError: no statistics, or statistics that are damaged or of another round.
        """
        now = self._parameters()
        pooled = self.merge(checked_statistics(statistics, now))
        if pooled["round"] != self.rounds:
            raise InputError(f"statistics are of round {pooled['round']}, the model is at round {self.rounds}")
        self.log_likelihood = float(pooled["log_likelihood"])
        self.objective = self.log_likelihood - now.penalty() - self._pulled(self._weights.values())
        self._now = _em.improved(now, pooled["sums"])
        for client, mass in pooled["clients"].items():
            self._weights[client] = self._drawn(mass)
            self._rows[client] = pooled["rows"][client]
        self.rounds += 1

    def adapt(self, X: Any, y: Any = None, *, client: Any, max_iter: int = 500, tol: float = 1e-9) -> Floats:
        """Fit the weights of one client with the components fixed, as for a new client.

        Returns:
            Its weights, as `weights(client)`. Without y, responsibilities use x alone.
        """
        now, Z, codes = self._ready(X, y)
        if not isinstance(client, Hashable):
            raise InputError(f"client={client!r}: give a name or a number")
        fit = now.log_x(Z) + now.log_y(Z, codes)
        mass, before = np.full(len(now.gaussian), 1 / len(now.gaussian)), -math.inf
        for _ in range(checks.count(max_iter, "max_iter")):
            responsibilities, densities = _em.share(_em.log_of(mass) + fit)
            likelihood = float(densities.mean()) - self._pulled([mass]) / len(Z)
            mass = self._drawn(responsibilities.sum(axis=0))
            if likelihood - before <= tol:
                break
            before = likelihood
        self._weights[client], self._rows[client] = mass, len(Z)
        return self.weights(client)

    def weights(self, client: Any) -> Floats:
        """(k, predictors) a client's weights; without `predictors` (k, 1)."""
        mass, now = self._of(client), self._parameters()
        if self.predictors is None:
            return mass[:, None].copy()
        out = np.zeros((self.k, self.predictors))
        out[now.gaussian, now.predictor] = mass
        return out

    @property
    def clients(self) -> list[Any]:
        """The clients with weights, in order of arrival."""
        return list(self._weights)

    @property
    def means(self) -> Floats:
        """(k, d) means of the Gaussians."""
        return self._parameters().means * self._scale + self._origin

    @property
    def covariances(self) -> Floats:
        """(k, d, d) covariances of the Gaussians."""
        return self._parameters().covariances * self._scale**2

    def responsibilities(self, X: Any, y: Any = None, *, client: Any) -> Floats:
        """(n, k) responsibilities of the Gaussians for a client's rows."""
        now, Z, codes = self._ready(X, y)
        by_pair, _ = _em.share(_em.log_of(self._of(client)) + now.log_x(Z) + now.log_y(Z, codes))
        return _em.folded(by_pair, now.gaussian, self.k)

    def predict(self, X: Any, *, client: Any) -> Floats:
        """(n, classes) probabilities, in the order of `classes`; or (n,) expected amounts."""
        now, Z, _ = self._ready(X, None)
        if self.task == "none":
            raise InputError("predict: task='none' has no model of y")
        by_pair, _ = _em.share(_em.log_of(self._of(client)) + now.log_x(Z))
        by_predictor = _em.folded(by_pair, now.predictor, len(now.coefficients))
        if self.task == "classes":
            return np.asarray(np.einsum("nq,qnc->nc", by_predictor, np.exp(now.log_classes(Z))))
        return np.asarray((by_predictor * now.amounts(Z)).sum(axis=1) * self._y_scale + self._y_origin)

    def log_density(self, X: Any, y: Any = None, *, client: Any = None) -> Floats:
        """(n,) log-density of rows for a client, or for all clients pooled; novel rows have a low density.

        With y the joint log-density, without it that of x.
        """
        now, Z, codes = self._ready(X, y)
        if client is None:
            rows = np.array([self._rows[other] for other in self._weights], np.float64)
            mass = rows @ np.array(list(self._weights.values())) / rows.sum()
        else:
            mass = self._of(client)
        densities = _em.share(_em.log_of(mass) + now.log_x(Z) + now.log_y(Z, codes))[1]
        return densities - self._log_units(codes is not None)

    def _plan(self) -> Assignment:
        """Clients to Gaussians, with `weights` as the shares and `ids` as the clients.

        With `predictors`, the bins are pairs: bin a * predictors + b is Gaussian a with model b. There is no value: the
        likelihood is known only for the parameters before the last round.
        """
        now = self._parameters()
        table = np.array(list(self._weights.values()))
        rows, columns = np.nonzero(table)
        return Assignment.from_pairs(
            rows,
            columns,
            table[rows, columns],
            n=len(table),
            k=len(now.gaussian),
            centers=self.means[now.gaussian],
            ids=checks.ids(np.array(self.clients)),
            info={"rounds": self.rounds, "log_likelihood": self.log_likelihood},
        )

    def _get_state(self) -> dict[str, Any]:
        pairs = 0 if self._now is None else len(self._now.gaussian)
        return {
            **{name: None if self._now is None else getattr(self._now, name).copy() for name in _ARRAYS},
            "origin": self._origin.copy(),
            "scale": self._scale,
            "y_origin": self._y_origin,
            "y_scale": self._y_scale,
            "classes": None if self.classes is None else self.classes.copy(),
            "clients": list(self._weights),
            "weights": np.array(list(self._weights.values()), np.float64).reshape(len(self._weights), pairs),
            "rows": np.array(list(self._rows.values()), np.int64),
            "rounds": self.rounds,
            "log_likelihood": self.log_likelihood,
            "objective": self.objective,
        }

    def _set_state(self, state: Mapping[str, Any]) -> None:
        self._now = None
        if state["means"] is not None:
            arrays = {name: np.array(state[name]) for name in _ARRAYS}
            self._now = _em.Parameters(task=self.task, shrink=self.shrink, ridge=self.ridge, **arrays)
        self._origin = np.array(state["origin"], np.float64)
        self._scale, self._y_scale = float(state["scale"]), float(state["y_scale"])
        self._y_origin = float(state["y_origin"])
        self.classes = None if state["classes"] is None else np.array(state["classes"])
        clients = list(state["clients"])
        self._weights = dict(zip(clients, np.array(state["weights"], np.float64), strict=True))
        self._rows = dict(zip(clients, (int(count) for count in state["rows"]), strict=True))
        self.rounds = int(state["rounds"])
        self.log_likelihood, self.objective = float(state["log_likelihood"]), float(state["objective"])

    def _parameters(self) -> _em.Parameters:
        if self._now is None:
            raise InputError("the mixture has no parameters yet; call begin({client: sketch(X, y)}) first")
        return self._now

    def _of(self, client: Any) -> Floats:
        if not isinstance(client, Hashable) or client not in self._weights:
            raise InputError(f"client={client!r} has no weights yet; call adapt(X, y, client={client!r}) first")
        return self._weights[client]

    def _drawn(self, mass: Floats) -> Floats:
        """Weights from summed responsibilities and the pseudo-rows."""
        grown = mass + self.pull / len(mass)
        return np.asarray(grown / grown.sum())

    def _pulled(self, weights: Iterable[Floats]) -> float:
        """Penalty on the clients' weights."""
        if self.pull == 0:
            return 0.0
        return -self.pull * math.fsum(float(np.log(mass).mean()) for mass in weights)

    def _ready(self, X: Any, y: Any) -> tuple[_em.Parameters, Floats, Any]:
        """The parameters, and the checked rows in the parameters' units."""
        now, X = self._parameters(), checks.matrix(X)
        if X.shape[1] != now.means.shape[1]:
            raise InputError(f"X has {X.shape[1]} columns, the mixture has {now.means.shape[1]}")
        Z = (X.astype(np.float64) - self._origin) / self._scale
        if y is None:
            return now, Z, None
        y = self._read(y, len(X))
        if self.task == "amounts":
            return now, Z, (y - self._y_origin) / self._y_scale
        if self.classes is None:
            return now, Z, None
        codes = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
        odd = np.flatnonzero(self.classes[codes] != y)
        if len(odd):
            raise InputError(
                f"y at row {odd[0]} is {y[odd[:1]].tolist()[0]!r}, a class that no client had at the start"
            )
        return now, Z, codes

    def _read(self, y: Any, n: int) -> Any:
        """Check labels or amounts, one per row; empty if there is no task."""
        if self.task == "none":
            if y is not None:
                raise InputError("y is given to a mixture of task='none'; set task to 'classes' or 'amounts'")
            return None
        if y is None:
            raise InputError(f"y is missing; task={self.task!r} learns from it")
        read = checks.vector(y, "y").astype(np.float64) if self.task == "amounts" else checks.groups(y, "y")
        checks.same_length(n, "X", "y", len(read))
        return read

    def _log_units(self, with_y: bool) -> float:
        """Log-Jacobian of the rescaling of the columns and of y, per row."""
        amounts = math.log(self._y_scale) if with_y and self.task == "amounts" else 0.0
        return len(self._origin) * math.log(self._scale) + amounts


def _positive(value: Any, name: str) -> float:
    if not checks.number(value, name) > 0:
        raise InputError(f"{name}={value!r}: it must be above 0")
    return float(value)


def _moments(X: Floats, name: str) -> dict[str, Any]:
    return {"rows": len(X), f"{name}mean": X.mean(axis=0), f"{name}variance": X.var(axis=0)}


def _pooled(parts: Sequence[Mapping[str, Any]], name: str) -> tuple[Floats, Floats]:
    """Mean and variance of all rows, from those of parts."""
    rows = np.array([part["rows"] for part in parts], np.float64)
    share = rows / rows.sum()
    means = np.array([part[f"{name}mean"] for part in parts])
    middle = share @ means
    return middle, share @ (np.array([part[f"{name}variance"] for part in parts]) + (means - middle) ** 2)


def _size(variance: float, middle: Floats) -> float:
    """The common scale of all columns; the mean's magnitude (or 1) if the rows differ only by rounding."""
    far = float(np.abs(middle).max())
    return math.sqrt(variance) if variance > (1e-12 * far) ** 2 else far or 1.0
