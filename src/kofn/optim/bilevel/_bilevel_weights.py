"""Weights of training rows by what a classifier trained with them is worth on clean rows."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation
from kofn.core.runtime import Control
from kofn.core.words import Limits
from kofn.optim.bilevel._penalty_bilevel import PenaltyBilevel, _positive

__all__ = ["bilevel_weights"]


@helper
def bilevel_weights(
    X: Any,
    y: ArrayLike,
    *,
    X_valid: Any,
    y_valid: ArrayLike,
    sigma: float = 0.1,
    ridge: float = 0.01,
    rate: float = 10.0,
    rounds: int = 100,
    inner: int = 20,
    allow_overlap: bool = False,
    **limits: Unpack[Limits],
) -> Allocation:
    """Weigh training rows from 0 to 1 by what a classifier trained with the weights is worth on clean rows.

    The classifier is softmax regression with a ridge. Rows whose labels are wrong lose their weight, and with it their
    say: the weights fall where the loss on clean rows falls with them. First derivatives only (`PenaltyBilevel`).

    Args:
        X: (n, d) training rows.
        y: (n,) their labels, some of them wrong.
        X_valid: (m, d) clean rows that are in no other use.
        y_valid: (m,) their labels, of classes that `y` has.
        sigma: weight of the clean rows' loss in the penalised problem.
        ridge: of the classifier's coefficients.
        rate: step of the weights, for gradients of one row's mean share.
        rounds: steps of the weights.
        inner: steps of the two classifiers for one of the weights.
        allow_overlap: takes clean rows that are among the training rows; by default they are refused.
        limits: `time_limit` in seconds and `progress`.

    Returns:
        An `Allocation` without a budget: `amounts` the weights, `values` each row's loss under the classifier that is
        trained with them, `value` its mean loss on the clean rows, `status` "heuristic". `info` has "coefficients"
        (d + 1, classes), "classes", "gradients" (how many of either level were taken), "residual" and "path", the loss
        on clean rows after each round.

    Raises:
        InputError: rows of unlike widths, labels that training rows lack, clean rows among the training rows.

    Cost: O(rounds inner (n + m) d classes) time.

    Guarantee: the problem is not convex in the weights; what is found is near a stationary point where `residual` is
    far below `sigma`.

    References:
        Kwon, Kwon, Wright & Nowak 2024, "On Penalty Methods for Nonconvex Bilevel Optimization and First-Order
        Stochastic Approximation", ICLR, arXiv 2309.01753.

    Examples:
        >>> import numpy as np
        >>> from kofn.optim import bilevel_weights
        >>> X = np.array([[-2.0], [-1.0], [1.0], [2.0], [1.5]])
        >>> plan = bilevel_weights(X, [0, 0, 1, 1, 0], X_valid=[[-1.6], [1.6]], y_valid=[0, 1], rate=1.0)
        >>> int(plan.amounts.argmin()), plan.amounts.round(1).tolist()
        (4, [1.0, 1.0, 1.0, 1.0, 0.0])
    """
    rows, clean = checks.matrix(X, "X").astype(np.float64), checks.matrix(X_valid, "X_valid").astype(np.float64)
    if rows.shape[1] != clean.shape[1]:
        raise InputError(f"X has {rows.shape[1]} columns, X_valid {clean.shape[1]}; give the same columns")
    classes, codes, clean_codes = _classes(y, y_valid, len(rows), len(clean))
    if not checks.flag(allow_overlap, "allow_overlap"):
        _refuse_overlap(rows, clean)
    model = _Model(rows, codes, clean, clean_codes, len(classes), _positive(ridge, "ridge"))
    penalty = _positive(sigma, "sigma")
    descent = PenaltyBilevel(
        model.upper,
        model.lower,
        np.ones(len(rows)),
        np.zeros(model.size),
        sigma=penalty,
        rate_x=_positive(rate, "rate") * len(rows),
        rate_y=1 / model.curvature(penalty),
        inner=inner,
    )
    path: list[float] = []
    with Control(**limits) as control:
        for _ in range(checks.count(rounds, "rounds")):
            if control.stopped():
                break
            descent.step()
            path.append(descent.upper_value)
    losses = model.losses(rows, codes, descent.z)[0]
    return Allocation(
        n=len(rows),
        amounts=descent.x,
        values=losses,
        value=model.upper(descent.x, descent.z)[0],
        sense="min",
        additive=False,
        status="heuristic" if len(path) == rounds else "stopped",
        method="bilevel_weights",
        bounds=descent.bounds,
        info={
            "coefficients": descent.z.reshape(-1, len(classes)),
            "classes": classes,
            "gradients": descent.gradients,
            "residual": descent.residual,
            "path": path,
        },
    )


def _classes(y: ArrayLike, y_valid: ArrayLike, n: int, m: int) -> tuple[Any, Ints, Ints]:
    labels, clean = checks.labels(y, "y"), checks.labels(y_valid, "y_valid")
    checks.same_length(n, "X", "y", len(labels))
    checks.same_length(m, "X_valid", "y_valid", len(clean))
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError("y has a single class; give two or more")
    strange = ~np.isin(clean, classes)
    if strange.any():
        row = int(strange.argmax())
        raise InputError(f"y_valid at row {row} is {clean[row]!r}, which y lacks; leave such rows out")
    return classes, codes.astype(np.int64), np.searchsorted(classes, clean).astype(np.int64)


def _refuse_overlap(rows: Floats, clean: Floats) -> None:
    training = {row.tobytes(): i for i, row in enumerate(rows + 0.0)}
    shared = [(i, training[row.tobytes()]) for i, row in enumerate(clean + 0.0) if row.tobytes() in training]
    if shared:
        raise InputError(
            f"X_valid has {len(shared)} rows that are also in X (row {shared[0][0]} is row {shared[0][1]} there): "
            "weights would be learnt on what they are judged by; leave them out, or give allow_overlap=True"
        )


class _Model:
    """Softmax regression with a ridge: its weighted loss on training rows, its loss on clean ones."""

    def __init__(self, rows: Floats, codes: Ints, clean: Floats, clean_codes: Ints, classes: int, ridge: float) -> None:
        self.rows, self.codes, self.clean, self.clean_codes = rows, codes, clean, clean_codes
        self.classes, self.ridge = classes, ridge
        self.size = (rows.shape[1] + 1) * classes

    def curvature(self, sigma: float) -> float:
        """A bound on the curvature of the penalised loss: softmax bends at most half as much as its inputs' square."""
        bends = [np.linalg.norm(_widened(part), 2) ** 2 / (2 * len(part)) for part in (self.rows, self.clean)]
        return float(bends[0] + sigma * bends[1] + self.ridge)

    def losses(self, X: Floats, codes: Ints, flat: Floats) -> tuple[Floats, Floats]:
        """(n,) loss of each row, and (n, classes) its gradient in the logits."""
        coefficients = flat.reshape(-1, self.classes)
        logits = X @ coefficients[:-1] + coefficients[-1]
        logits -= logits.max(axis=1, keepdims=True)
        mass = np.exp(logits)
        total = mass.sum(axis=1)
        index = np.arange(len(X))
        losses = np.log(total) - logits[index, codes]
        slope = mass / total[:, None]
        slope[index, codes] -= 1
        return losses, slope

    def lower(self, weights: Floats, flat: Floats) -> tuple[float, Floats, Floats]:
        """Weighted mean loss of the training rows and the ridge."""
        losses, slope = self.losses(self.rows, self.codes, flat)
        n = len(losses)
        in_flat = _widened_product(self.rows, slope * (weights / n)[:, None]).ravel() + self.ridge * flat
        return float(weights @ losses / n + self.ridge * (flat @ flat) / 2), losses / n, in_flat

    def upper(self, weights: Floats, flat: Floats) -> tuple[float, Floats, Floats]:
        """Mean loss of the clean rows, which no weight enters directly."""
        losses, slope = self.losses(self.clean, self.clean_codes, flat)
        in_flat = _widened_product(self.clean, slope / len(losses)).ravel()
        return float(losses.mean()), np.zeros(len(weights)), in_flat


def _widened(X: Floats) -> Floats:
    return np.hstack([X, np.ones((len(X), 1))])


def _widened_product(X: Floats, slope: Floats) -> Floats:
    return np.vstack([X.T @ slope, slope.sum(axis=0)])
