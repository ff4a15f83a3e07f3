"""Scaling laws fitted to logs of losses by Huber's loss, from many starts, with intervals by resampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.scaling_laws._separation import Separation
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

# Logs of losses that are farther off than this count by their size, no longer by their square (Hoffmann et al.).
_DELTA = 1e-3
# Evaluations of one fit, and of a fit to resampled runs, which starts at the law of all.
_EVALUATIONS, _FEWER = 300, 40
# Ends of the interval that is stated.
_ENDS = (5.0, 95.0)
# Predictions this many times beyond the largest that was measured are told.
FAR = 10.0

# The log of the loss of each run, from (parameters,) and the columns of the runs.
Predict = Callable[[Floats, Mapping[str, Floats]], Floats]


@dataclass(frozen=True, eq=False)
class Fit:
    """A law's parameters, and those of the same law fitted to resampled runs.

    Attributes:
        predict: the log of the losses, from the parameters and columns of runs.
        parameters: (p,) of the best fit.
        resampled: (R, p) of fits to runs drawn with replacement.
        reach: the largest of each column that was measured.
        error: root mean square of the relative errors of the fit.
        separation: the directions in which the runs vary too little to tell the exponents apart.
    """

    predict: Predict
    parameters: Floats
    resampled: Floats
    reach: Mapping[str, float]
    error: float
    separation: Separation

    def predicted(self, columns: Mapping[str, Floats]) -> Floats:
        """The loss of each run, with a warning where the runs that were fitted support none."""
        off = self.separation.off(columns)
        if off.any():
            checks.warn(self.separation.warning_off(int(off.sum()), len(off)))
        return self.losses(columns)

    def warned(self) -> Fit:
        """The fit itself, after a warning where the runs cannot tell the exponents apart."""
        if (warning := self.separation.warning()) is not None:
            checks.warn(warning)
        return self

    def losses(self, columns: Mapping[str, Floats], parameters: Floats | None = None) -> Floats:
        """The loss of each run."""
        return np.asarray(np.exp(self.predict(self.parameters if parameters is None else parameters, columns)))

    def interval(self, columns: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        """What the loss of each run is between, for nine of ten resampled fits: anything off the line of the runs.

        Raises:
            InputError: the law was fitted without resamples.
        """
        self._refuse_unsampled()
        drawn = np.stack([self.losses(columns, parameters) for parameters in self.resampled])
        low, high = np.percentile(drawn, _ENDS, axis=0)
        off = self.separation.off(columns)
        return np.where(off, 0.0, low), np.where(off, np.inf, high)

    def parameter_intervals(self) -> list[tuple[float, float]]:
        """What each parameter is between for nine of ten resampled fits.

        Raises:
            InputError: the law was fitted without resamples.
        """
        self._refuse_unsampled()
        low, high = np.percentile(self.resampled, _ENDS, axis=0)
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def _refuse_unsampled(self) -> None:
        if not len(self.resampled):
            raise InputError("resamples=0: an interval takes fits to resampled runs; fit again with resamples=40")

    def beyond(self, point: Mapping[str, float]) -> list[str]:
        """A sentence for each column in which a point is far beyond what was measured, and for one off their line."""
        columns = {name: np.array([value], np.float64) for name, value in point.items()}
        off = [self.separation.warning_off(1, 1)] if self.separation.off(columns).any() else []
        return off + self.far(point)

    def far(self, point: Mapping[str, float]) -> list[str]:
        """A sentence for each column in which a point is far beyond what was measured."""
        return [
            f"{name}={point[name]:.3g} is {point[name] / most:.0f} times the largest measured, {most:.3g}: the law is "
            "a guess there; measure nearer, and fit again"
            for name, most in self.reach.items()
            if name in point and point[name] > FAR * most
        ]


def fitted(
    predict: Predict,
    columns: Mapping[str, Floats],
    losses: Floats,
    starts: Sequence[Floats],
    *,
    names: Sequence[str],
    resamples: int,
    seed: int | Sequence[int],
    separation: Separation,
    delta: float = _DELTA,
) -> Fit:
    """The law of least Huber loss over all starts.

    Raises:
        InputError: fewer runs than parameters, or columns with too few different values to tell them apart.
    """
    needed = len(starts[0]) + 1
    # What was run twice tells of noise, not of the law.
    different = len(np.unique(np.column_stack(list(columns.values())), axis=0))
    if different < needed:
        runs = f"{len(losses)} runs" + (f", {different} of them different," if different < len(losses) else ",")
        raise InputError(
            f"losses has {runs} the law has {needed - 1} parameters ({', '.join(names)}); measure at least {needed} "
            "runs, or these data support no law"
        )
    log_loss = np.log(losses)
    best, cost = starts[0], np.inf
    for start in starts:
        parameters, reached = _descend(predict, columns, log_loss, start, _EVALUATIONS, delta)
        if reached < cost * (1 - 1e-9):
            best, cost = parameters, reached
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(0, len(losses), len(losses))
        part = {name: column[rows] for name, column in columns.items()}
        drawn.append(_descend(predict, part, log_loss[rows], best, _FEWER, delta)[0])
    off = np.expm1(predict(best, columns) - log_loss)
    reach = {name: float(column.max()) for name, column in columns.items()}
    return Fit(predict, best, np.array(drawn), reach, float(np.sqrt((off * off).mean())), separation)


def _descend(
    predict: Predict,
    columns: Mapping[str, Floats],
    log_loss: Floats,
    start: Floats,
    evaluations: int,
    delta: float,
) -> tuple[Floats, float]:
    from scipy.optimize import least_squares

    def residuals(parameters: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            off = predict(parameters, columns) - log_loss
        return np.clip(np.nan_to_num(off, nan=1e3, posinf=1e3, neginf=-1e3), -1e3, 1e3)

    answer = least_squares(residuals, start, loss="huber", f_scale=delta, x_scale="jac", max_nfev=evaluations)
    return np.asarray(answer.x), float(answer.cost)


def measured(columns: Mapping[str, object], losses: object) -> tuple[dict[str, Floats], Floats]:
    """Columns of runs and their losses, all above 0 and of one length.

    Raises:
        InputError: another length, a value that is not above 0, or a column with fewer than three different values.
    """
    loss = _positive(losses, "losses")
    read = {}
    for name, column in columns.items():
        read[name] = _positive(column, name)
        checks.same_length(len(loss), "losses", name, len(read[name]))
    return read, loss


def points(**columns: ArrayLike) -> dict[str, Floats]:
    """Columns of runs to predict, of one length.

    Raises:
        InputError: a value that is not above 0, none at all, columns of unlike length.
    """
    read = {}
    for name, column in columns.items():
        values = np.atleast_1d(checks.as_float(checks.as_array(column, name), name).astype(np.float64))
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            raise InputError(f"{name} holds {values[bad][0]:g}; give finite numbers above 0")
        if not len(values):
            raise InputError(f"{name} is empty; give the values of the runs to predict")
        read[name] = values
    lengths = {name: values.shape for name, values in read.items() if values.shape != (1,)}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} {shape}" for name, shape in lengths.items())
        raise InputError(f"shapes differ: {each}; give one value a run in each, or a single one for all runs")
    return dict(zip(read, np.broadcast_arrays(*read.values()), strict=True))


def differing(columns: Mapping[str, Floats], names: Sequence[str], least: int = 3) -> None:
    """Refuse columns that hold too few different values to tell a power law."""
    for name in names:
        count = len(np.unique(columns[name]))
        if count < least:
            raise InputError(
                f"{name} has {count} different values; a power law takes {least}: these data do not support one, "
                "measure more"
            )


def _positive(value: object, name: str) -> Floats:
    column = checks.vector(value, name).astype(np.float64)
    if column.min() <= 0:
        row = int(column.argmin())
        raise InputError(f"{name} at row {row} is {column[row]:g}; give numbers above 0")
    return column


def log_sum(*logs: Floats) -> Floats:
    """The log of a sum of exponentials."""
    out = logs[0]
    for more in logs[1:]:
        out = np.logaddexp(out, more)
    return out
