"""Scaling laws of the best learning rate, batch size and the like, from sweeps at several sizes and amounts of data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.scaling_laws._huber import Fit, Predict, differing, fitted, measured, points
from kofn.allocation.scaling_laws._separation import Separation
from kofn.allocation.scaling_laws._sweeps import sweeps_of
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError, shown
from kofn.core.helpers import helper

__all__ = ["HyperparameterLaw", "fit_hyperparameter_law"]

_NAMES = ("factor", "parameters", "tokens")
# Optima are known to a grid's step or so; farther off than this (in logs) they count by their size alone.
_DELTA = 0.2


@dataclass(frozen=True, eq=False)
class HyperparameterLaw:
    """Fitted laws, one for each hyperparameter: its best value = factor N^parameters D^tokens.

    Attributes:
        fits: by hyperparameter, the fit to the optima of the sweeps, its resamples and its relative error.
        coefficients: by hyperparameter, factor and the exponents of parameters and tokens.
        optima: by hyperparameter, the best value of each sweep; NaN where the sweep does not bound it.
        sweeps: (s, 2) parameters and tokens of each sweep.
    """

    fits: Mapping[str, Fit]
    coefficients: Mapping[str, Mapping[str, float]]
    optima: Mapping[str, Floats]
    sweeps: Floats

    def best(self, parameters: ArrayLike, tokens: ArrayLike) -> dict[str, Floats]:
        """The best value of each hyperparameter; warns of what the sweeps do not support."""
        columns = points(parameters=parameters, tokens=tokens)
        values = {}
        for name, fit in self.fits.items():
            values[name] = fit.predicted(columns)
        largest = {name: float(column.max()) for name, column in columns.items()}
        for sentence in next(iter(self.fits.values())).far(largest):
            checks.warn(sentence)
        return values

    def interval(self, parameters: ArrayLike, tokens: ArrayLike) -> dict[str, tuple[Floats, Floats]]:
        """What each best value is between for nine of ten laws fitted to resampled sweeps.

        Raises:
            InputError: the law was fitted without resamples.
        """
        columns = points(parameters=parameters, tokens=tokens)
        return {name: fit.interval(columns) for name, fit in self.fits.items()}

    def exponents(self) -> dict[str, dict[str, tuple[float, float]]]:
        """By hyperparameter, what the exponents of parameters and tokens are between for nine of ten resampled laws.

        Raises:
            InputError: the law was fitted without resamples.
        """
        return {
            name: dict(zip(_NAMES[1:], fit.parameter_intervals()[1:], strict=True)) for name, fit in self.fits.items()
        }


@helper
def fit_hyperparameter_law(
    parameters: ArrayLike,
    tokens: ArrayLike,
    hyperparameters: Mapping[str, ArrayLike],
    losses: ArrayLike,
    *,
    resamples: int = 40,
    seed: int = 0,
) -> HyperparameterLaw:
    """Fit power laws of the best learning rate, batch size and the like to sweeps at several sizes and tokens.

    Runs of one size and one number of tokens are a sweep. The optimum of a sweep is that of a quadratic surface, in
    logs, through its best runs; where they are too few for one or it has no minimum among them, the best run. A law is
    fitted to the logs of the optima by Huber's loss.

    Args:
        parameters: (n,) parameters of each run.
        tokens: (n,) tokens it was trained on.
        hyperparameters: name -> (n,) value that each run had, above 0, such as {"rate": ..., "batch": ...}.
        losses: (n,) loss it reached; inf or NaN for a run that diverged.
        resamples: fits to sweeps drawn with replacement, for intervals.
        seed: of these draws.

    Returns:
        A `HyperparameterLaw`: `best` values at a size and a number of tokens, their `interval`, and that of the
        `exponents`.

    Raises:
        InputError: values that are not above 0, losses that are all equal, a hyperparameter that no sweep varies, fewer
            than four sweeps that bound its optimum, or fewer than three different sizes or tokens among these: the data
            then support no law.

    Sweeps whose best run has the least or the largest value that was tried do not bound the optimum: of that
    hyperparameter they are left out, and told in a warning. Where sizes and tokens lie nearly on one line in logs, such
    as 20 tokens a parameter, `best` warns off that line, and of points far beyond the sweeps.

    Costs a second or two. Intervals say how far the sweeps determine the law, not whether its form holds beyond them;
    there they are too narrow: of sizes and tokens 4 to 30 times the largest, 62% of the best were inside one of 90%.

    References:
        Li et al. 2025, "Predictable Scale: Part I -- Optimal Hyperparameter Scaling Law in Large Language Model
        Pretraining" (arXiv 2503.04715), whose law is a learning rate of 1.79 N^-0.713 D^0.307 and a batch of 0.58
        D^0.571 tokens.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import fit_hyperparameter_law
        >>> rates, batches = np.geomspace(1e-4, 1e-1, 13), np.geomspace(1e4, 1e7, 7)
        >>> grid = np.meshgrid([1e7, 1e8, 1e9], [1e9, 4e9, 2e10], rates, batches)
        >>> N, D, rate, batch = (axis.ravel() for axis in grid)
        >>> off = np.log(rate / (1.79 * N**-0.713 * D**0.307)) ** 2 + 0.3 * np.log(batch / (0.58 * D**0.571)) ** 2
        >>> law = fit_hyperparameter_law(N, D, {"rate": rate, "batch": batch}, 2.5 + 0.02 * off, resamples=5)
        >>> {name: f"{value[0]:.4g}" for name, value in law.best(3e9, 6e10).items()}
        {'rate': '0.0006376', 'batch': '8.275e+05'}
    """
    if not isinstance(hyperparameters, Mapping) or not hyperparameters:
        raise InputError(
            f"hyperparameters={shown(hyperparameters)}: give a name and the runs' values of each, such as "
            '{"rate": rates, "batch": batches}'
        )
    checks.count(resamples, "resamples", least=0)
    columns, settled = _runs(parameters, tokens, hyperparameters, losses)
    names = [name for name in columns if name not in ("parameters", "tokens")]
    sweeps = sweeps_of(columns["parameters"], columns["tokens"], {name: columns[name] for name in names}, settled)
    entropy = checks.entropy(seed)
    fits, coefficients = {}, {}
    for number, name in enumerate(names):
        fits[name], coefficients[name] = _fitted(name, sweeps.cells, sweeps.optima[name], resamples, [entropy, number])
        edges = int(sweeps.edges[name])
        if edges:
            checks.warn(
                f"{name}: in {edges} of {len(sweeps.cells)} sweeps the best run has the least or the largest value "
                "tried, so that they do not bound the optimum, and are left out; widen these sweeps"
            )
    if (warning := next(iter(fits.values())).separation.warning()) is not None:
        checks.warn(warning)
    return HyperparameterLaw(fits, coefficients, sweeps.optima, sweeps.cells)


def _runs(
    parameters: ArrayLike, tokens: ArrayLike, hyperparameters: Mapping[str, ArrayLike], losses: ArrayLike
) -> tuple[dict[str, Floats], Floats]:
    """The columns of the runs that did not diverge, and their losses."""
    if clash := {"parameters", "tokens"} & set(hyperparameters):
        raise InputError(f"hyperparameters has {sorted(clash)[0]!r}, which is an argument of its own; leave it out")
    loss = checks.as_float(checks.as_array(losses, "losses"), "losses").astype(np.float64)
    if loss.ndim != 1 or not len(loss):
        raise InputError(f"losses has shape {loss.shape}; give one loss a run, inf where it diverged")
    sound = np.isfinite(loss)
    if not sound.any():
        raise InputError("losses holds no finite number: every run diverged; give runs that did not")
    if sound.sum() > 1 and loss[sound].min() == loss[sound].max():
        raise InputError(
            f"losses are all {loss[sound][0]:g}: no value of {', '.join(hyperparameters)} is better than another, so "
            "that nothing is to be learnt from them; give the losses that the runs reached"
        )
    columns = {"parameters": parameters, "tokens": tokens, **hyperparameters}
    read, _ = measured(columns, np.where(sound, loss, 1.0))
    kept, settled = measured({name: column[sound] for name, column in read.items()}, loss[sound])
    return kept, settled


def _fitted(name: str, cells: Floats, optima: Floats, resamples: int, seed: list[int]) -> tuple[Fit, dict[str, float]]:
    """The law of one hyperparameter."""
    bounded = np.isfinite(optima)
    if bounded.sum() < len(_NAMES) + 1:
        raise InputError(
            f"hyperparameters: {int(bounded.sum())} of {len(cells)} sweeps bound the best {name}, the law has "
            f"{len(_NAMES)} parameters ({', '.join(_NAMES)}); sweep at least {len(_NAMES) + 1} sizes and tokens, over "
            f"enough values of {name} that the best lies inside"
        )
    columns = {"parameters": cells[bounded, 0], "tokens": cells[bounded, 1]}
    differing(columns, ("parameters", "tokens"))
    form = _Form(float(np.log(columns["parameters"]).mean()), float(np.log(columns["tokens"]).mean()))
    target = optima[bounded]
    design = np.column_stack([np.ones(len(target)), *form.logs(columns)])
    start = np.linalg.lstsq(design, np.log(target), rcond=None)[0]
    predict: Predict = form
    fit = fitted(
        predict,
        columns,
        target,
        [start],
        names=_NAMES,
        resamples=resamples,
        seed=seed,
        separation=Separation.of(columns, tuple(columns)),
        delta=_DELTA,
    )
    factor, size, seen = fit.parameters.tolist()
    middle = factor - size * form.log_size - seen * form.log_tokens
    return fit, dict(zip(_NAMES, (math.exp(middle), size, seen), strict=True))


@dataclass(frozen=True)
class _Form:
    """The log of the best value, around the middle of the sweeps, where the three parameters are least entangled."""

    log_size: float
    log_tokens: float

    def logs(self, columns: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        return np.log(columns["parameters"]) - self.log_size, np.log(columns["tokens"]) - self.log_tokens

    def __call__(self, parameters: Floats, columns: Mapping[str, Floats]) -> Floats:
        size, seen = self.logs(columns)
        return np.asarray(parameters[0] + parameters[1] * size + parameters[2] * seen)
