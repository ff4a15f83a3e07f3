"""Differentially private streaming submodular maximisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks, vocabulary
from kofn.core.arrays import Floats, Ints, directions
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.objective import Objective, as_objective
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.stepper import Example, Share, Stepper, new_keys, stepper
from kofn.selection.streams._privacy import Accountant

# Probability that the noise costs more than `info["additive_loss"]`.
_UNLUCKY = 0.05
# Distances between a block of elements and the persons that are held at a time.
_AT_ONCE = 1 << 22


def _example(rng: np.random.Generator) -> Example:
    users = rng.integers(-2, 5, (12, 2)).astype(np.float64)
    k, theta = int(rng.integers(1, 4)), float(rng.choice([0.1, 0.25]))
    noiseless = bool(rng.integers(2))

    def make(seed: int) -> PrivateStreaming:
        # The range encloses every optimum: all persons lie within reach of some drawn row.
        return PrivateStreaming(
            users,
            k=k,
            epsilon=math.inf if noiseless else 2.0,
            reach=9.0,
            theta=theta,
            opt_range=(0.1, 12.0),
            releases=3,
            seed=seed,
        )

    def rows(rng: np.random.Generator, m: int) -> NDArray[Any]:
        return rng.integers(-2, 5, (m, 2)).astype(np.float64)

    def worth(X: NDArray[Any]) -> float:
        nearest = [min(math.dist(user, row) for row in X.tolist()) for user in users.tolist()]
        return math.fsum(max(0.0, 1 - distance / 9.0) for distance in nearest)

    return Example(make, rows=rows, worth=worth)


@stepper(
    "select",
    paper=236,
    cost="O(copies * persons) an item and of memory, about log(2k) / theta copies",
    exact="(epsilon, delta)-differentially private; optimum / (2 (1 + theta)) less what the noise costs",
    events=("insert",),
    aliases=("differential privacy", "private sieve streaming"),
    draws=_example,
)
class PrivateStreaming(Stepper[Selection]):
    """Private streaming submodular maximisation: pick k public elements for a private population, (epsilon, delta)-DP.

    Sieve streaming with noise: for each guess O of the optimum, a copy accepts an element whose noisy gain reaches the
    noisy threshold O / (2k), until it holds k; then a copy is chosen by its noisy value (exponential mechanism). For a
    sum over persons of monotone functions of at most `sensitivity` each, both noises are Gumbel of one scale, which
    does not grow with k; for any other f they are Laplace, the sparse vector technique, k times in each copy.

    Two data sets are neighbours if one person's function is withdrawn (is 0 instead), or with neighbours="replace" is
    another one. The number of persons, the elements and all options are public. The (epsilon, delta)-DP outputs are
    the picks at any time and the number of acceptances per copy. Not private, and for the data owner only: the stepper
    itself, its `state_dict()` and its `seed`, which reveals the noise. The noise is drawn in float64, whose low bits
    are not proven to be safe.

    Args:
        users: (persons, d) private vectors: f(S) sums over them sensitivity * max(0, 1 - distance to the nearest pick /
            reach); or give `objective`.
        objective: instead, an own monotone submodular f on a fixed pool (`gains`, `add`, `value`); `sensitivity`,
            `opt_range` are then needed. It is copied for each guess.
        k: how many to pick.
        epsilon: privacy loss, > 0; infinity gives plain sieve streaming.
        delta: probability of a larger privacy loss, 0 <= delta < 1; 0 needs far more noise.
        sensitivity: the most that one person changes any f(S).
        reach: distance at which a pick has no utility; needed with `users`, and must not be derived from them.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        noise: "gumbel" (default with `users`; with an `objective` it says that f is a sum over persons) or "laplace".
        theta: ratio of the guesses, less 1.
        opt_range: (low, high), where the optimum may be, from public knowledge; default sensitivity * persons / (2k) to
            sensitivity * persons.
        neighbours: "withdraw" or "replace".
        releases: how often reading `plan` after more of the stream may choose a new copy; then the choice is fixed.
        release_share: share of epsilon spent on choosing copies.
        seed: whole number; for tests only, because it reveals the noise.

    Attributes:
        accountant: how the budget is split, composed and spent (`Accountant`).
        seen: elements so far. `oracle_calls`: gains evaluated. `accepted` (copies,): picks of each copy.

    Each insert costs O(copies * persons); memory O(copies * persons).

    With probability 0.95 the plan's value is at least optimum / (2 (1 + theta)) - `info["additive_loss"]`, for an
    optimum in `opt_range`; slots that the copy left empty are filled with random elements.

    References:
        Chaturvedi, Nguyen, Nguyen, "Streaming submodular maximization with differential privacy", ICML 2023.
        Dwork, Roth, "The algorithmic foundations of differential privacy", 2014; Kairouz, Oh, Viswanath 2015.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import PrivateStreaming
        >>> people = np.random.default_rng(0).normal(size=(5000, 2))
        >>> stream = PrivateStreaming(people, k=3, epsilon=2.0, reach=4.0, seed=0)
        >>> for step in range(20):
        ...     stream.insert([step], np.random.default_rng(step).normal(size=(1, 2)))
        >>> plan = stream.plan
        >>> len(plan.indices), stream.spent[0] <= 2.0
        (3, True)
    """

    state: ClassVar = {
        "noise": "",
        "filler": "",
        "thresholds": "copies",
        "ids": "seen",
        "ranks": "seen",
        "picks": "copies",
        "chosen": "",
        "released": "",
    }
    secret = ("users", "objective", "seed")
    states_no_value = True

    def __init__(
        self,
        users: ArrayLike | None = None,
        *,
        k: int,
        epsilon: float,
        delta: float = 1e-6,
        objective: Objective | None = None,
        sensitivity: float | None = None,
        reach: float | None = None,
        metric: str = "euclidean",
        noise: str | None = None,
        theta: float = 0.25,
        opt_range: tuple[float, float] | None = None,
        neighbours: str = "withdraw",
        releases: int = 1,
        release_share: float = 0.5,
        seed: int | None = None,
    ) -> None:
        if (users is None) == (objective is None):
            raise InputError("give users, (persons, d), or an objective of your own; one of the two")
        self.k = checks.count(k, "k")
        noise = checks.choice(noise or ("laplace" if users is None else "gumbel"), "noise", ("gumbel", "laplace"))
        if sensitivity is None and users is None:
            raise InputError("sensitivity is missing: the most that one person changes the value of any set")
        each = _positive(1.0 if sensitivity is None else sensitivity, "sensitivity")
        people = None if users is None else checks.matrix(users, "users")
        low, high = self._range(opt_range, people, each)
        theta = _positive(theta, "theta")
        self._guesses = low * (1 + theta) ** np.arange(math.floor(math.log(high / low) / math.log1p(theta) + 1e-9) + 1)
        copies = len(self._guesses)
        self._utilities: _People | _Own
        if people is not None:
            self._utilities = _People(people, vocabulary.metric(metric), reach, each, copies)
        else:
            self._utilities = _Own(objective, copies)
        self.accountant = Accountant(
            epsilon=_epsilon(epsilon),
            delta=_delta(delta),
            k=self.k,
            copies=copies,
            noise=noise,
            sensitivity=each,
            decomposable=users is not None or noise == "gumbel",
            neighbours=checks.choice(neighbours, "neighbours", ("withdraw", "replace")),
            releases=checks.count(releases, "releases"),
            release_share=_share(release_share),
        )
        super().__init__(
            users=people,
            k=self.k,
            epsilon=self.accountant.epsilon,
            delta=self.accountant.delta,
            objective=objective,
            sensitivity=each,
            reach=None if reach is None else float(reach),
            metric=metric,
            noise=noise,
            theta=theta,
            opt_range=(low, high),
            neighbours=neighbours,
            releases=releases,
            release_share=self.accountant.release_share,
            seed=checks.entropy(seed, secret=True),
        )
        if math.isinf(self.accountant.epsilon):
            self.promise = Share(1 / (2 * (1 + theta)))
        self.theta = theta
        # The scales are found by a search, so they are computed once.
        self._scales = (
            self.accountant.gain_scale,
            self.accountant.threshold_scale,
            self.accountant.release_scale,
        )
        self._noise = np.random.default_rng([self.seed, 0])
        self._filler = np.random.default_rng([self.seed, 1])
        self._thresholds = self._guesses / (2 * self.k) + self._draw(copies, self._scales[1])
        self._ids: list[Any] = []
        self._known: set[Any] = set()
        self._ranks: list[float] = []
        self._picks: list[list[int]] = [[] for _ in range(copies)]
        self._chosen: tuple[int, int] | None = None
        self.released = 0

    def _range(self, given: Any, users: Any, each: float) -> tuple[float, float]:
        if given is None:
            if users is None:
                raise InputError("opt_range is missing: (low, high) for the optimum's value, from public knowledge")
            high = each * len(users)
            return high / (2 * self.k), high
        try:
            low, high = (float(end) for end in given)
        except (TypeError, ValueError):
            raise InputError(f"opt_range={checks.shown(given)}: give two numbers, (low, high)") from None
        if not (0 < low <= high < math.inf):
            raise InputError(f"opt_range=({low:g}, {high:g}): give 0 < low <= high, both finite")
        return low, high

    @property
    def seen(self) -> int:
        """Elements inserted so far."""
        return len(self._ids)

    @property
    def accepted(self) -> Ints:
        """(copies,) how many elements each copy holds."""
        return np.array([len(picks) for picks in self._picks], np.int64)

    @property
    def spent(self) -> tuple[float, float]:
        """(epsilon, delta) spent so far: the stream's part once it has begun, a release's for each choice of a copy."""
        return self.accountant.spent(self.seen > 0, self.released)

    def insert(self, ids: Any, X: Any = None) -> None:
        """Process the next elements of the stream.

        Args:
            ids: keys, unique in the whole stream; with a user-defined `objective`, positions in its pool.
            X: (b, d) their vectors, with `users`.

        Raises:
            InputError: an id that was there before (named), another width than the users', or a wrong count of ids.
        """
        keys = new_keys(ids, self._known)
        for key, looks in zip(keys, self._utilities.look(keys, X), strict=True):
            self._one(len(self._ids), looks)
            self._ids.append(key)
            self._known.add(key)
            self._ranks.append(float(self._filler.random()))

    def _one(self, position: int, looks: Any) -> None:
        active = np.flatnonzero(self.accepted < self.k)
        if not len(active):
            return
        gains = self._utilities.gains(active, looks) + self._draw(len(active), self._scales[0])
        self.oracle_calls += len(active)
        for copy_ in active[gains >= self._thresholds[active]].tolist():
            self._utilities.add(copy_, looks)
            self._picks[copy_].append(position)
            self._thresholds[copy_] = self._guesses[copy_] / (2 * self.k) + self._draw(1, self._scales[1])[0]

    def _draw(self, count: int, scale: float) -> Floats:
        if scale == 0:
            return np.zeros(count)
        if self.accountant.noise == "laplace":
            return self._noise.laplace(scale=scale, size=count)
        return self._noise.gumbel(scale=scale, size=count)

    def _plan(self) -> Selection:
        """k elements, or all seen so far. Choosing a copy spends a release while any are left."""
        if not self.seen:
            raise InputError("nothing was inserted yet; there is nothing to pick from")
        self._choose()
        assert self._chosen is not None
        accepted = self._picks[self._chosen[0]]
        # Free slots are filled by random ranks drawn on arrival, which use no private data.
        order = np.argsort(np.array(self._ranks), kind="stable").tolist()
        chosen = set(accepted)
        fill = [position for position in order if position not in chosen][: self.k - len(accepted)]
        picks = np.array([*accepted, *fill], np.int64)
        return Selection(
            n=self.seen,
            indices=picks,
            # Values and gains are private to the owner of the data.
            gains=np.full(len(picks), math.nan),
            value=math.nan,
            sense="max",
            status="approximate",
            ids=checks.ids(self._ids),
            guarantee=1 / (2 * (1 + self.theta)),
            info={
                "privacy": self.accountant.ledger(self.seen > 0, self.released),
                "additive_loss": self._additive_loss(),
                "filled": len(fill),
            },
        )

    def _choose(self) -> None:
        """The chosen copy: re-chosen after more of the stream while releases are left, else unchanged."""
        fresh = self._chosen is not None and self._chosen[1] == self.seen
        if fresh or self.released == self.accountant.releases:
            return
        noisy = self._utilities.values()
        if self._scales[2]:
            noisy = noisy + self._noise.gumbel(scale=self._scales[2], size=len(noisy))
        self._chosen = (int(np.argmax(noisy)), self.seen)
        self.released += 1

    def _additive_loss(self) -> float:
        """Bound on the loss from k noisy comparisons and the choice, except with probability `_UNLUCKY`."""
        gain, threshold, release = self._scales
        copies, unlucky = len(self._guesses), _UNLUCKY / 2
        looks, runs = copies * max(self.seen, 1), copies * self.k
        if self.accountant.noise == "gumbel":
            # The difference of two Gumbels is logistic.
            off = gain * math.log(2 * looks / unlucky)
        else:
            off = gain * math.log(2 * looks / unlucky) + threshold * math.log(2 * runs / unlucky)
        return self.k * off + release * math.log(copies / unlucky)

    def value(self, indices: Any) -> float:
        """Exact f of these elements (positions in the stream): for the data owner, not to be published."""
        return self._utilities.value([self._ids[int(position)] for position in indices])

    def _get_state(self) -> dict[str, Any]:
        """The state contains the persons' utilities and the noise: keep it private."""
        return {
            **super()._get_state(),
            "utilities": self._utilities.state_dict(),
        }

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        self._known = set(self._ids)
        self._utilities.load_state_dict(state["utilities"])


class _People:
    """Utility of each copy's picks to each person, who is served by the nearest pick."""

    def __init__(self, users: NDArray[Any], metric: str, reach: Any, each: float, copies: int) -> None:
        if reach is None:
            raise InputError("reach is missing: the distance at which a pick is of no use, not read off the users")
        self.users, self.metric, self.each = users.astype(np.float64), metric, each
        self.reach = _positive(reach, "reach")
        if metric == "cosine":
            self.users = directions(self.users)
        self.squares = np.einsum("ij,ij->i", self.users, self.users)
        self.best = np.zeros((copies, len(users)))
        self._rows: dict[Any, Floats] = {}

    def look(self, keys: list[Any], X: Any) -> Any:
        if X is None:
            raise InputError("X is missing: give the elements' vectors, (b, d)")
        rows = checks.matrix(X, "X").astype(np.float64)
        if len(rows) != len(keys):
            raise InputError(f"X has {len(rows)} rows for {len(keys)} ids; give one id a row")
        if rows.shape[1] != self.users.shape[1]:
            raise InputError(f"X has {rows.shape[1]} columns, the users have {self.users.shape[1]}")
        self._rows.update(zip(keys, rows, strict=True))
        step = max(1, _AT_ONCE // len(self.users))
        for low in range(0, len(rows), step):
            yield from self.utilities(rows[low : low + step])

    def utilities(self, rows: Floats) -> Floats:
        """(b, persons) utility of each single element to each person, 0..each."""
        if self.metric == "cosine":
            apart = 1 - directions(rows) @ self.users.T
        else:
            apart = np.einsum("ij,ij->i", rows, rows)[:, None] - 2 * (rows @ self.users.T) + self.squares
            apart = np.maximum(apart, 0.0)
            apart = np.sqrt(apart) if self.metric == "euclidean" else apart
        return np.clip(1 - apart / self.reach, 0.0, 1.0) * self.each

    def gains(self, active: Ints, looks: Floats) -> Floats:
        return np.array([np.maximum(looks - self.best[copy_], 0.0).sum() for copy_ in active.tolist()])

    def add(self, copy_: int, looks: Floats) -> None:
        np.maximum(self.best[copy_], looks, out=self.best[copy_])

    def values(self) -> Floats:
        return np.array([row.sum() for row in self.best])

    def value(self, keys: list[Any]) -> float:
        if not keys:
            return 0.0
        return math.fsum(self.utilities(np.array([self._rows[key] for key in keys])).max(axis=0).tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.copy(), "rows": dict(self._rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._rows = np.array(state["best"]), dict(state["rows"])


class _Own:
    """A copy of the user's own objective for each guess."""

    def __init__(self, objective: Any, copies: int) -> None:
        self.first = as_objective(objective)
        if not (self.first.monotone and self.first.submodular):
            raise InputError(
                f"objective={type(objective).__name__} does not declare monotone and submodular; the guarantee needs it"
            )
        self.copies = [copy.deepcopy(self.first) for _ in range(copies)]
        self.picked: list[list[int]] = [[] for _ in range(copies)]

    def look(self, keys: list[Any], X: Any) -> Any:
        if X is not None:
            raise InputError("X is given with an own objective, whose elements are positions in its pool; leave it out")
        if any(not isinstance(key, int) or key < 0 for key in keys):
            raise InputError(f"ids holds {keys[0]!r}; with an own objective they are positions in its pool")
        return keys

    def gains(self, active: Ints, looks: int) -> Floats:
        item = np.array([looks], np.int64)
        return np.array([float(self.copies[copy_].gains(item)[0]) for copy_ in active.tolist()])

    def add(self, copy_: int, looks: int) -> None:
        self.copies[copy_].add(looks)
        self.picked[copy_].append(looks)

    def values(self) -> Floats:
        return np.array([self.value(picks) for picks in self.picked])

    def value(self, keys: list[Any]) -> float:
        return self.first.value(np.array(keys, np.int64)) if keys else 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"picked": [list(picks) for picks in self.picked]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.picked = [list(picks) for picks in state["picked"]]
        self.copies = [copy.deepcopy(self.first) for _ in self.picked]
        for function, picks in zip(self.copies, self.picked, strict=True):
            for item in picks:
                function.add(item)


@method(
    "select",
    draws=Draw(
        plain={"users": [[0.0, 1.0], [0.5, 1.0]], "epsilon": 1.0},
        states_no_value=True,
        units={"users": "input"},
        promise="private_utility",
    ),
    cost="O(n m copies) time for m users and about log(2k)/theta copies; O(m copies) memory",
    exact="(epsilon, delta)-differentially private for the users; optimum / (2 (1 + theta)) less what the noise costs",
    paper=236,
    secret=("users", "seed"),
)
def private_streaming(
    X: Any,
    *,
    k: int,
    metric: str = "euclidean",
    seed: int | None = None,
    users: ArrayLike,
    epsilon: float,
    delta: float = 1e-6,
    reach: float | None = None,
    noise: str = "gumbel",
    theta: float = 0.25,
    opt_range: tuple[float, float] | None = None,
    neighbours: str = "withdraw",
    release_share: float = 0.5,
) -> Selection:
    """Private streaming submodular maximisation: k public items for a private population, with differential privacy.

    f(S) sums over the users max(0, 1 - distance to the nearest pick / reach). Each guess of the optimum has a copy that
    accepts an item whose noisy gain reaches a noisy threshold; one copy is then chosen by its noisy value. The Gumbel
    noise uses that f is a sum over persons and does not grow with k; Laplace noise is the general algorithm's.

    Neighbouring data sets differ in one user, whose utility is withdrawn (counts as 0) or, with neighbours="replace",
    replaced by another's; the plan is (epsilon, delta)-DP. The number of users, X and the options are public. Therefore
    the plan has no `value`, `gains` or `seed`, and its options omit `users`. The noise is drawn in float64.

    Args:
        X: (n, d) candidate items, public, in the order of the stream.
        k: number of picks.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        seed: for tests only, because it reveals the noise. Default: fresh entropy, which is not stored.
        users: (m, d) private positions of the persons served.
        epsilon: privacy loss, > 0; infinity gives plain sieve streaming.
        delta: probability of a larger privacy loss, 0 <= delta < 1.
        reach: distance at which an item has no utility, public; default the diagonal of the items' bounding box
            (squared for "sqeuclidean", 2 for "cosine").
        noise: "gumbel" or "laplace".
        theta: ratio of the guesses of the optimum, less 1.
        opt_range: (low, high) of the optimum, from public knowledge; default m / (2k) to m.
        neighbours: "withdraw" or "replace".
        release_share: share of epsilon spent on choosing the copy.

    Returns:
        Selection of k items: those of the chosen copy as accepted, then random ones in the slots it left open
        (`info["filled"]`). `info["privacy"]` is the accountant's ledger: epsilon and delta spent, the composition, and
        the scales of the noise. `info["additive_loss"]`: with probability 0.95 the value is at least
        `guarantee` * optimum less this, for an optimum in `opt_range`.

    Raises:
        InputError: epsilon <= 0, delta outside 0..1, users of another width, or other bad input.

    Costs O(n m copies) time, O(m copies) memory. `PrivateStreaming` is the stepper for a stream that arrives.

    References:
        Chaturvedi, Nguyen, Nguyen, "Streaming submodular maximization with differential privacy", ICML 2023.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import private_streaming
        >>> rng = np.random.default_rng(0)
        >>> s = private_streaming(rng.random((50, 2)), k=3, users=rng.random((4000, 2)), epsilon=1.0, seed=0)
        >>> len(s.indices), s.info["privacy"]["spent_epsilon"] <= 1.0, s.options["users"]
        (3, True, 'withheld')
    """
    if k > len(X):
        raise checks.InfeasibleError(f"k={k} of {len(X)} items: there are only {len(X)} to choose from; ask for k <= n")
    if reach is None:
        wide = float(np.linalg.norm(X.max(axis=0).astype(np.float64) - X.min(axis=0)))
        # If all items coincide there is no scale to read off but how far from zero they are.
        wide = wide or float(np.abs(X).max()) or 1.0
        reach = {"euclidean": wide, "sqeuclidean": wide**2, "cosine": 2.0}[metric]
    stream = PrivateStreaming(
        users,
        k=k,
        epsilon=epsilon,
        delta=delta,
        reach=reach,
        metric=metric,
        noise=noise,
        theta=theta,
        opt_range=opt_range,
        neighbours=neighbours,
        release_share=release_share,
        seed=seed,
    )
    stream.insert(np.arange(len(X)), X)
    return stream.plan


def _positive(value: Any, name: str) -> float:
    number = float(checks.number(value, name))
    if not (number > 0 and math.isfinite(number)):
        raise InputError(f"{name}={checks.shown(value)}: give a finite number > 0")
    return number


def _epsilon(value: Any) -> float:
    if not checks.is_number(value) or not value > 0:
        raise InputError(
            f"epsilon={checks.shown(value)}: the privacy loss is a number > 0; 1 is common, "
            "infinity means no privacy at all"
        )
    return float(value)


def _delta(value: Any) -> float:
    if not checks.is_number(value) or not 0 <= value < 1:
        raise InputError(
            f"delta={checks.shown(value)}: give a chance, 0 <= delta < 1, well below 1 / the number of persons"
        )
    return float(value)


def _share(value: Any) -> float:
    share = checks.fraction(value, "release_share")
    if not 0 < share < 1:
        raise InputError(
            f"release_share={share:g}: the stream and the choice both need a part; give one between 0 and 1"
        )
    return share
