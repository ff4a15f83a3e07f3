"""What is no classifier is refused in one line; what is one keeps the time that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hostile_values import Everything, Unequal
from threadpoolctl import threadpool_info

from kofn import datasets
from kofn.core.checks import InputError
from kofn.selection import uncertainty_herding
from kofn.selection.labels import _classifier
from kofn.selection.labels._classifier import classifier, predict


@pytest.mark.parametrize("model", [Everything(), Unequal(), object(), 3, [Unequal()]])
def test_no_classifier(model: object) -> None:
    with pytest.raises(InputError, match=r"^model=.*: give a classifier"):
        classifier(model, 0)


class Clock:
    """A clock that only fits move, by a millisecond a row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.fits, self.threads = 0.0, [], set[int]()  # type: ignore[var-annotated]
        fitted = _classifier._fitted

        def slow(learner: Any, X: Any, *others: Any) -> Any:
            self.now += len(X) / 1_000
            self.fits.append(len(X))
            self.threads |= {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
            return fitted(learner, X, *others)

        monkeypatch.setattr(_classifier, "_fitted", slow)
        monkeypatch.setattr(_classifier.time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.6, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf")])
def test_learning_keeps_its_time(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.load("digits")
    assert data.X is not None
    assert data.y is not None
    rows = np.arange(1_500)
    clock = Clock(monkeypatch)
    made = predict("gaussian_nb", data.X, rows, data.y[:1_500], 0, seconds=seconds)
    longest = max(clock.fits, default=0) / 1_000
    assert clock.now <= seconds + longest
    assert clock.threads <= {1}
    if seconds < 0.5:
        assert made is None
        assert clock.fits == []
    if seconds >= 1.0:
        assert made is not None
        assert made.rows == (200 if seconds <= 4 else 800 if seconds < 8 else made.rows)
        assert made.rows in (200, 800, 1_500)
        assert 0.6 < made.accuracy <= 1
    if seconds >= 16:
        assert made is not None
        assert made.rows == 1_500
    if seconds == float("inf"):
        # All labelled rows, and five times all but a fold.
        assert clock.fits == [1_500] + [1_200] * 5


def test_fewer_rows_hold_two_of_each_class_and_their_shares() -> None:
    codes = np.repeat([0, 1, 2], [900, 96, 4])
    order = _classifier._in_shares(codes)
    assert sorted(order.tolist()) == list(range(1_000))
    for count in (20, 100, 500):
        share = np.bincount(codes[order[:count]], minlength=3)
        assert share.min() >= 2
        assert abs(share[1] - 0.096 * count) <= 3


def test_without_time_for_the_classifier_all_rows_count_alike() -> None:
    data = datasets.load("digits")
    assert data.X is not None
    assert data.y is not None
    X, y = data.X[:400], np.where(np.arange(400) < 200, data.y[:400], -1)
    plan = uncertainty_herding(X, y=y, k=5, time_limit=1e-3)
    assert plan.info["learnt_from"] == 0
    assert set(plan.info["uncertainty"].tolist()) == {1.0}
    assert len(plan) == 5
    assert plan.indices.min() >= 200
    whole = uncertainty_herding(X, y=y, k=5, time_limit=1e3)
    assert whole.info["learnt_from"] == 200
    assert whole.indices.tolist() == uncertainty_herding(X, y=y, k=5).indices.tolist()
