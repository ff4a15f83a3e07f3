"""scikit-learn's and imbalanced-learn's doors: one estimator a verb, taking `method=`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from kofn.plans import Selection
from kofn.verbs import select


class Selector(BaseEstimator):
    """Keep k rows of a training set: `fit_resample` as imbalanced-learn's samplers, so it stands in their pipelines.

    Args:
        k: how many rows to keep: a whole number, or a share of the rows in (0, 1). At most all of them.
        method: a select method's name, "auto", or your own callable.
        metric: "euclidean", "sqeuclidean" or "cosine", default the method's own.
        per_class: keep k in proportion to the classes of y, each at least one row.
        options: the method's own options.
        random_state: None, a whole number or a RandomState.

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
    ) -> None:
        self.k = k
        self.method = method
        self.metric = metric
        self.per_class = per_class
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose the rows; `plan_` and `sample_indices_` hold the answer."""
        checked = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=1)
        n = len(checked)
        count = self.k if not isinstance(self.k, float) else max(1, round(self.k * n))
        arguments: dict[str, Any] = {"k": min(int(count), n)}
        if self.per_class:
            if y is None:
                raise ValueError("per_class=True requires y to be passed, but the target y is None")
            labels = np.asarray(y)
            arguments |= {"groups": labels, "quotas": _proportional(labels, arguments["k"])}
        if self.metric is not None:
            arguments["metric"] = self.metric
        self.plan_: Selection = select(
            checked, method=self.method, options=self.options, seed=_seed(self.random_state), **arguments
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


def _seed(random_state: Any) -> Any:
    if isinstance(random_state, np.integer):
        return int(random_state)
    return random_state


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


def _rows(table: Any, index: NDArray[np.int64]) -> Any:
    if hasattr(table, "iloc"):
        return table.iloc[index]
    if isinstance(table, list):
        return [table[row] for row in index.tolist()]
    return table[index] if isinstance(table, np.ndarray) else np.asarray(table)[index]
