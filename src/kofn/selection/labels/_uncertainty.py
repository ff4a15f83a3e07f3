"""How unsure a classifier is of each row: the scores by which rows are labelled next."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["uncertainty"]

Kind = Literal["entropy", "margin", "least_confident"]
KINDS = get_args(Kind)
# How far a row of probabilities may be from one: they may have been rounded for a file.
_SUM_TOLERANCE = 1e-3


@helper
def uncertainty(probabilities: Any, X: ArrayLike | None = None, *, kind: Kind = "entropy") -> Floats:
    """Rate how unsure a classifier is of each row: the acquisition scores of active learning.

    Args:
        probabilities: (n, classes) rows that sum to one, or a fitted classifier of scikit-learn's kind together with X.
        X: (n, d) rows to ask the classifier about.
        kind: "entropy" (in nats), "margin" (1 - the gap between the two likeliest classes) or "least_confident"
            (1 - the likeliest).

    Returns:
        (n,) float64 >= 0, higher is less sure.

    Raises:
        InputError: a classifier that gives no probabilities or is not fitted; labels or decision values in place of
            probabilities; NaN, a negative entry or a row that does not sum to one, each with its row.

    Costs O(n classes) time beside the classifier's own.

    References:
        Settles, "Active Learning Literature Survey", 2009.

    Examples:
        >>> from kofn.selection import uncertainty
        >>> uncertainty([[0.5, 0.5], [0.9, 0.1]], kind="margin").round(6).tolist()
        [1.0, 0.2]
    """
    checks.choice(kind, "kind", KINDS)
    table = _predicted(probabilities, X) if hasattr(probabilities, "predict") else probabilities
    if table is probabilities and X is not None:
        raise InputError("X goes with a classifier; the probabilities of its rows are already given")
    table = class_probabilities(table)
    if kind == "entropy":
        logs = np.log(table, where=table > 0, out=np.zeros_like(table))
        return np.maximum(-(table * logs).sum(axis=1), 0.0)
    if kind == "least_confident" or table.shape[1] == 1:
        return np.maximum(1.0 - table.max(axis=1), 0.0)
    likeliest, runner_up = np.partition(table, -2, axis=1)[:, :-3:-1].T
    return np.asarray(1.0 - (likeliest - runner_up))


def class_probabilities(value: Any, name: str = "probabilities") -> Floats:
    """(n, classes) float64 class probabilities, each row checked to sum to one."""
    with checks.reading(name, value):
        tables = len(value) if isinstance(value, list) and value and np.ndim(value[0]) == 2 else 0
        dimensions = np.ndim(value)
    if tables:
        raise InputError(f"{name} holds {tables} tables, one an output; score each output on its own")
    if dimensions == 1:
        raise InputError(
            f"{name} has shape {np.shape(value)}; labels and decision values are no probabilities: give "
            "predict_proba(X), shape (n, classes)"
        )
    table = checks.matrix(value, name).astype(np.float64)
    low = table < -1e-9
    if low.any():
        row, column = np.argwhere(low)[0]
        raise InputError(f"{name} at row {row}, column {column} is {table[row, column]:g}; give predict_proba(X)")
    off = np.flatnonzero(np.abs(table.sum(axis=1) - 1) > _SUM_TOLERANCE)
    if len(off):
        row = int(off[0])
        raise InputError(f"{name} at row {row} sum to {table[row].sum():g}, not to 1; give predict_proba(X)")
    return np.asarray(np.clip(table, 0.0, 1.0))


def _predicted(model: Any, X: Any) -> Any:
    """The class probabilities that a fitted classifier predicts for the rows of X."""
    name = type(model).__name__
    if not hasattr(model, "predict_proba"):
        raise InputError(
            f"probabilities: {name} has no predict_proba; give a classifier that has it, or wrap it in "
            "sklearn.calibration.CalibratedClassifierCV"
        )
    if X is None:
        raise InputError(f"probabilities is a classifier ({name}); give X, the rows to ask it about")
    from sklearn.exceptions import NotFittedError

    try:
        return model.predict_proba(X)
    except NotFittedError:
        raise InputError(f"probabilities: {name} is not fitted; call its fit first") from None
