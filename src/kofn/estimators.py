"""scikit-learn's and imbalanced-learn's doors: one estimator a verb, taking `method=`."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin, OneToOneFeatureMixin
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import InputTags, Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from kofn.core.checks import InputError, is_number, shown
from kofn.core.plans import Assignment, Selection
from kofn.verbs import assign, select


@dataclass(slots=True)
class _RowTags(InputTags):
    """scikit-learn's tags of the input, with the one that imbalanced-learn's checks ask for."""

    dataframe: bool = True


@dataclass(slots=True)
class _SamplerTags:
    """What imbalanced-learn's checks ask of a sampler: that the rows it kept are told."""

    sample_indices: bool = True


@dataclass(slots=True)
class _SelectorTags(Tags):
    """scikit-learn's tags with those of a sampler."""

    sampler_tags: _SamplerTags = field(default_factory=_SamplerTags)


def _as_kind(kind: type, tags: Any, **more: Any) -> Any:
    """The same tags as a kind that has more of them."""
    return kind(**{part.name: getattr(tags, part.name) for part in fields(tags)} | more)


class _FlatOptions(BaseEstimator):
    """An estimator whose options may be given by their own names, to the constructor and to `set_params`."""

    options: Any

    def set_params(self, **params: Any) -> Self:
        """Set parameters, and options by their own names, as a search over a grid does (`min_size`)."""
        own = self.get_params(deep=False)
        flat = {name: value for name, value in params.items() if name.partition("__")[0] not in own}
        super().set_params(**{name: value for name, value in params.items() if name not in flat})
        if flat and (self.options is None or isinstance(self.options, Mapping)):
            self.options = {**(self.options or {}), **flat}
        return self


class Selector(OneToOneFeatureMixin, _FlatOptions):
    """Keep k rows of a training set: `fit_resample` as imbalanced-learn's samplers, so it stands in their pipelines.

    In `imblearn.pipeline.Pipeline` it is a step like any other: rows are dropped with their labels while fitting, none
    while predicting. A step of scikit-learn's own `Pipeline` cannot drop rows, since y would keep them: there it may
    only stand last (`pipeline.fit(X)[-1].sample_indices_`), and before another step it is refused; call `fit_resample`
    ahead of such a pipeline instead.

    Args:
        k: how many rows to keep: a whole number, or a share of the rows in (0, 1]. At most all of them.
        method: a select method's name, "auto", or your own callable.
        metric: "euclidean", "sqeuclidean" or "cosine", default the method's own.
        per_class: keep k in proportion to the classes of y, each at least one row.
        options: the method's own options, and other words of the verb.
        random_state: None, a whole number or a RandomState.
        **flat: the same by name (`min_size=60`); they become entries of `options`.

    Attributes:
        plan_: the `Selection`.
        sample_indices_: (m,) rows kept, in the order picked.
        n_features_in_: number of columns seen.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from kofn import Selector
        >>> X, y = load_iris(return_X_y=True)
        >>> kept, labels = Selector(k=12, per_class=True).fit_resample(X, y)
        >>> kept.shape, sorted(labels.tolist())
        ((12, 4), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    """

    # How imbalanced-learn's pipeline and its checks recognise a sampler that removes rows.
    _sampling_type = "clean-sampling"

    def __init__(
        self,
        k: int | float = 0.5,
        *,
        method: Any = "auto",
        metric: str | None = None,
        per_class: bool = False,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
        **flat: Any,
    ) -> None:
        self.k = k
        self.method = method
        self.metric = metric
        self.per_class = per_class
        self.options = _with_flat(options, flat)
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn's and imbalanced-learn's checks go by."""
        tags = super().__sklearn_tags__()
        marked: Tags = _as_kind(_SelectorTags, tags, input_tags=_as_kind(_RowTags, tags.input_tags))
        return marked

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose the rows; `plan_` and `sample_indices_` hold the answer."""
        checked = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=1)
        n = len(checked)
        count = _count(self.k, n)
        arguments: dict[str, Any] = {"k": min(count, n)}
        if self.per_class:
            if y is None:
                raise ValueError("per_class=True requires y to be passed, but the target y is None")
            labels = _one_column(y)
            arguments |= {"groups": labels, "quotas": _proportional(labels, arguments["k"])}
        if self.metric is not None:
            arguments["metric"] = self.metric
        self.plan_: Selection = select(
            checked, method=self.method, **_all_words({**arguments, "seed": _seed(self.random_state)}, self.options)
        )
        self.sample_indices_: NDArray[np.int64] = self.plan_.indices
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Choose the rows and return them with their labels, in the order picked; frames stay frames, lists lists."""
        self.fit(X, y)
        return _rows(X, self.sample_indices_), _rows(y, self.sample_indices_)

    def get_support(self) -> NDArray[np.bool_]:
        """(n,) True for the rows kept."""
        check_is_fitted(self)
        return self.plan_.mask


class Assigner(ClusterMixin, _FlatOptions):
    """Group rows around k of them (or around k means), as scikit-learn's clusterers do.

    Args:
        k: how many groups; at most as many as there are rows.
        method: an assign method's name that takes `X` and `k`, "auto" (`fasterpam`), or your own callable.
        metric: "euclidean", "sqeuclidean" or "cosine", default the method's own; "precomputed": X holds distances,
            (n, n) to fit and (m, n) to the fitted rows to predict.
        capacity: items that a group can hold, for the methods that hold one.
        options: the method's own options, and other words of the verb.
        random_state: None, a whole number or a RandomState.
        **flat: the same by name (`min_size=60`); they become entries of `options`.

    Attributes:
        plan_: the `Assignment`.
        labels_: (n,) group of each row.
        cluster_centers_: (k, d) the medoids' rows, or the method's centers.
        medoid_indices_: (k,) rows that are medoids, where the method has medoids.
        n_features_in_: number of columns seen.

    Examples:
        >>> from kofn import Assigner
        >>> groups = Assigner(k=2, random_state=0).fit([[0.0], [0.2], [0.1], [9.0], [9.1]])
        >>> groups.cluster_centers_.ravel().tolist(), groups.predict([[8.0]]).tolist() == groups.labels_[3:4].tolist()
        ([0.1, 9.0], True)
    """

    def __init__(
        self,
        k: int = 8,
        *,
        method: Any = "auto",
        metric: str | None = None,
        capacity: Any = None,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
        **flat: Any,
    ) -> None:
        self.k = k
        self.method = method
        self.metric = metric
        self.capacity = capacity
        self.options = _with_flat(options, flat)
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, weights: Any = None, **named: Any) -> Self:  # noqa: ARG002 (y is passed)
        """Find the groups; `weights` (n,), by scikit-learn's name `sample_weight`, is how much each row counts."""
        # Not in the signature: scikit-learn would ask that weights of 2 and rows given twice draw the same start.
        for name, value in named.items():
            if name != "sample_weight":
                raise TypeError(f"fit() got an unexpected keyword argument {name!r}")
            if weights is not None and value is not None:
                raise InputError("weights and sample_weight are one thing; give one of them")
            weights = value if weights is None else weights
        checked = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=1)
        given = {"metric": self.metric, "capacity": self.capacity, "weights": weights}
        pool = {"X": checked}
        if self.metric == "precomputed":
            pool, given["metric"] = {"distances": checked}, None
        given["k"] = min(self.k, len(checked)) if isinstance(self.k, int) else self.k
        given["seed"] = _seed(self.random_state)
        self.plan_: Assignment = assign(**pool, method=self.method, **_all_words(given, self.options))
        self.labels_: NDArray[np.int32] = self.plan_.labels
        centers = self.plan_.centers
        if self.plan_.medoids is not None:
            self.medoid_indices_: NDArray[np.int64] = self.plan_.medoids
            centers = checked[self.medoid_indices_] if self.metric != "precomputed" else None
        if centers is not None:
            self.cluster_centers_ = np.asarray(centers)
        self._examples = checked if centers is None else self.cluster_centers_
        self._groups = self.labels_ if centers is None else np.arange(len(self._examples), dtype=np.int32)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        return tags

    def predict(self, X: Any) -> NDArray[np.int32]:
        """(m,) the group whose center is nearest, whatever the capacities; `kofn.assignment.place` minds capacities.

        Where the method has no centers, a row goes to the group of the nearest row that was fitted.
        """
        check_is_fitted(self)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        if self.metric == "precomputed":
            medoids = self.plan_.medoids
            return self.labels_[checked.argmin(axis=1)] if medoids is None else _first_least(checked[:, medoids])
        near = pairwise_distances_argmin(checked, self._examples, metric=self.metric or "euclidean")
        groups: NDArray[np.int32] = self._groups[near]
        return groups


def _with_flat(options: Any, flat: Mapping[str, Any]) -> Any:
    """The options with those that were given flat; untouched where none was, as scikit-learn's `clone` asks."""
    if not flat or not (options is None or isinstance(options, Mapping)):
        return options  # what is no mapping is refused by `fit`
    for name in flat:
        if name in (options or {}):
            raise InputError(f"{name} is given twice: flat and in options; give it once")
    return {**(options or {}), **flat}


def _all_words(given: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """The words of a call of the verb: an estimator's own, and what its options name."""
    own = {name: value for name, value in given.items() if value is not None}
    if options is None:
        return own
    if not isinstance(options, Mapping):
        raise InputError(f"options={shown(options)}: give a mapping, or the options themselves by name")
    for name in options:
        if name in own or name in ("X", "method", "options"):
            word = "random_state" if name == "seed" else name
            raise InputError(f"options names {name!r}, which the estimator has of its own; give it as {word}")
    return {**own, **options}


def _first_least(distances: NDArray[Any]) -> NDArray[np.int32]:
    return distances.argmin(axis=1).astype(np.int32)


def _seed(random_state: Any) -> Any:
    if isinstance(random_state, np.integer):
        return int(random_state)
    return random_state


def _count(k: Any, n: int) -> int:
    """How many of n rows: a whole number, or a share of them."""
    if not is_number(k) or not math.isfinite(k) or k <= 0 or (k > 1 and int(k) != k):
        raise InputError(f"k={shown(k)}: give a whole number of rows, or a share of them in (0, 1]")
    whole = isinstance(k, numbers.Integral) or k > 1
    return int(k) if whole else max(1, round(float(k) * n))


def _proportional(labels: NDArray[Any], k: int) -> dict[Any, tuple[int, int]]:
    """k shared over the classes by largest remainder, each class at least one where k allows."""
    names, sizes = np.unique(labels, return_counts=True)
    exact = sizes / sizes.sum() * k
    shares = np.floor(exact).astype(int)
    if k >= len(names):
        shares = np.maximum(shares, 1)
    while shares.sum() < k:
        short = np.where(shares < sizes, exact - shares, -np.inf)
        shares[int(np.argmax(short))] += 1
    while shares.sum() > k:
        shares[int(np.argmax(np.where(shares > 1, shares - exact, -np.inf)))] -= 1
    return {name: (int(share), int(share)) for name, share in zip(names.tolist(), shares, strict=True)}


def _one_column(y: Any) -> NDArray[Any]:
    """One label a row, also where y is a table of one column."""
    labels = np.asarray(y)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _rows(table: Any, index: NDArray[np.int64]) -> Any:
    if hasattr(table, "iloc"):
        return table.iloc[index]
    if isinstance(table, list):
        return [table[row] for row in index.tolist()]
    return table[index] if isinstance(table, np.ndarray) else np.asarray(table)[index]
