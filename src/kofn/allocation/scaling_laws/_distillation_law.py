"""Scaling laws of supervised training and of distillation, and how to split compute between teacher and student."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.scaling_laws._huber import Fit, differing, fitted, log_sum, measured, points
from kofn.allocation.scaling_laws._separation import Separation
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["DistillationLaw", "SupervisedLaw", "fit_distillation_law", "fit_supervised_law"]

_SUPERVISED = ("irreducible", "a", "alpha", "b", "beta", "gamma")
_DISTILLED = ("c0", "c1", "d1", "f1", "a", "alpha", "b", "beta", "gamma")
# Operations of training, and of running a model forward, for each parameter and token.
_TRAINING, _FORWARD = 6.0, 2.0
# Points of each axis of the grid over teachers, and how often it is refined.
_GRID, _REFINED = 40, 5
# Splits that fewer resampled fits agree with are told.
_AGREED = 0.9
# Logs of parameters beyond this are at their limit as good as there.
_LOGS = 40.0


@dataclass(frozen=True, eq=False)
class SupervisedLaw:
    """A fitted law: loss = irreducible + (a / N^alpha + b / D^beta)^gamma for N parameters and D tokens.

    Attributes:
        fit: the parameters, their resamples, how far the runs reach and the relative error of the fit.
        coefficients: irreducible, a, alpha, b, beta, gamma.
    """

    fit: Fit
    coefficients: Mapping[str, float]

    def loss(self, parameters: ArrayLike, tokens: ArrayLike) -> Floats:
        """The predicted loss."""
        return self.fit.predicted(points(parameters=parameters, tokens=tokens))

    def interval(self, parameters: ArrayLike, tokens: ArrayLike) -> tuple[Floats, Floats]:
        """What the loss is between for nine of ten fits to resampled runs."""
        return self.fit.interval(points(parameters=parameters, tokens=tokens))


@dataclass(frozen=True, eq=False)
class DistillationLaw:
    """A fitted law of a student's loss by its size, its tokens and the loss of its teacher.

    loss = T + T^-c0 (1 + (T / (S d1))^(1 / f1))^(-c1 f1) (a / N^alpha + b / D^beta)^gamma, where T is the teacher's
    loss and S what the student would have by supervised training on as many tokens. Beyond a gap between S and T a
    better teacher does not help.

    Attributes:
        fit: the parameters, their resamples, how far the runs reach and the relative error of the fit.
        supervised: the law of supervised training.
        coefficients: c0, c1, d1, f1, a, alpha, b, beta, gamma.
    """

    fit: Fit
    supervised: SupervisedLaw
    coefficients: Mapping[str, float]

    def loss(self, parameters: ArrayLike, tokens: ArrayLike, teacher_loss: ArrayLike) -> Floats:
        """The predicted loss of students."""
        return self.fit.predicted(self._columns(parameters, tokens, teacher_loss))

    def interval(self, parameters: ArrayLike, tokens: ArrayLike, teacher_loss: ArrayLike) -> tuple[Floats, Floats]:
        """What the loss is between for nine of ten fits to resampled runs."""
        return self.fit.interval(self._columns(parameters, tokens, teacher_loss))

    def _columns(self, parameters: ArrayLike, tokens: ArrayLike, teacher_loss: ArrayLike) -> dict[str, Floats]:
        columns = points(parameters=parameters, tokens=tokens, teacher_loss=teacher_loss)
        return {**columns, "alone": self._alone(columns["parameters"], columns["tokens"])}

    def _alone(self, size: ArrayLike, tokens: ArrayLike) -> Floats:
        return self.supervised.fit.losses(points(parameters=size, tokens=tokens))

    def spend(
        self,
        flops: float,
        *,
        student: float,
        teacher: tuple[float, float] | None = None,
        students: float = 1.0,
    ) -> Allocation:
        """Split compute between training a teacher, running it, and training a student; or train without a teacher.

        Args:
            flops: operations there are for each student: 6 a parameter and token of training, 2 of running a teacher.
            student: parameters of the student.
            teacher: parameters and loss of a teacher that is there already, and costs nothing to train; default one is
                trained, of any size.
            students: how many students share the cost of training the teacher.

        Returns:
            An `Allocation` of three: `amounts` operations for the student's training, for running the teacher and for
            its training, a share of it where students share it; `value` the predicted loss. Where supervised training
            is predicted to be better all operations are the student's. `info` has `distil`, `distilled` and `alone`
            (the predicted losses), `tokens`, `teacher` (parameters, tokens and loss), `interval`, `agreement` (share of
            resampled fits with which the decision is the same), and `warnings` where the data do not support it.

        Raises:
            InputError: a budget, a size or a number of students of 0.
        """
        limit, size, sharing = (
            _above(value, name) for value, name in ((flops, "flops"), (student, "student"), (students, "students"))
        )
        if teacher is not None:
            teacher = (_above(teacher[0], "teacher"), _above(teacher[1], "teacher"))
        parameters, seen, teacher_tokens, loss = self._best_teacher(limit, size, teacher, sharing)
        alone_tokens = limit / (_TRAINING * size)
        alone = float(self._alone(size, alone_tokens)[0])
        teacher_loss = teacher[1] if teacher else float(self._alone(parameters, teacher_tokens)[0])
        distil = loss < alone
        agreement = self._agreement(size, seen, teacher_loss, alone_tokens, distil)
        training = 0.0 if teacher else _TRAINING * parameters * teacher_tokens / sharing
        amounts = np.array([_TRAINING * size * seen, _FORWARD * parameters * seen, training])
        # Rounding aside they add up to the budget, and never to more.
        amounts *= limit / max(float(amounts.sum()), limit)
        if distil:
            low, high = self.interval(size, seen, teacher_loss)
            point = {"parameters": size, "tokens": seen, "teacher_loss": teacher_loss}
        else:
            amounts = np.array([limit, 0.0, 0.0])
            low, high = self.supervised.interval(size, alone_tokens)
            point = {"parameters": size, "tokens": alone_tokens}
        warnings = (self.fit if distil else self.supervised.fit).beyond(point)
        if agreement < _AGREED:
            warnings.append(
                f"only {agreement:.0%} of the laws fitted to resampled runs decide alike between distillation and "
                "supervised training: the data do not tell; measure more"
            )
        return Allocation(
            n=3,
            amounts=amounts,
            values=np.full(3, np.nan),
            value=min(loss, alone),
            sense="min",
            additive=False,
            used={"flops": min(math.fsum(amounts.tolist()), limit)},
            budget={"flops": limit},
            objective="predicted_loss_of_student",
            method="DistillationLaw.spend",
            ids=np.array(["student", "teacher's inference", "teacher's training"]),
            info={
                "distil": distil,
                "distilled": loss,
                "alone": alone,
                "tokens": seen if distil else alone_tokens,
                "teacher": {"parameters": parameters, "tokens": teacher_tokens, "loss": teacher_loss},
                "interval": (float(low[0]), float(high[0])),
                "agreement": agreement,
                **({"warnings": warnings} if warnings else {}),
            },
        )

    def _best_teacher(
        self, flops: float, size: float, teacher: tuple[float, float] | None, sharing: float
    ) -> tuple[float, float, float, float]:
        """Parameters of the teacher, the student's tokens, the teacher's tokens, and the student's loss."""
        if teacher is not None:
            tokens = flops / (_TRAINING * size + _FORWARD * teacher[0])
            return teacher[0], tokens, 0.0, float(self.fit.losses(self._columns(size, tokens, teacher[1]))[0])
        # Of a teacher's size and the share of the compute that its training takes.
        sizes, shares = np.geomspace(size / 30, size * 300, _GRID), np.linspace(0.005, 0.95, _GRID)
        for _ in range(_REFINED):
            wide, part = (axis.ravel() for axis in np.meshgrid(sizes, shares))
            taught = part * flops * sharing / (_TRAINING * wide)
            seen = (1 - part) * flops / (_TRAINING * size + _FORWARD * wide)
            losses = self.fit.losses(self._columns(size, seen, self._alone(wide, taught)))
            row = int(losses.argmin())
            best = float(wide[row]), float(seen[row]), float(taught[row]), float(losses[row])
            column, line = row % len(sizes), row // len(sizes)
            sizes = np.geomspace(sizes[max(column - 1, 0)], sizes[min(column + 1, _GRID - 1)], _GRID)
            shares = np.linspace(shares[max(line - 1, 0)], shares[min(line + 1, _GRID - 1)], _GRID)
        return best

    def _agreement(self, size: float, seen: float, teacher_loss: float, alone_tokens: float, distil: bool) -> float:
        """The share of resampled fits of both laws, drawn in pairs, that decide alike at this split."""
        columns = self._columns(size, seen, teacher_loss)
        whole = points(parameters=size, tokens=alone_tokens)
        pairs = list(zip(self.fit.resampled, self.supervised.fit.resampled, strict=False))
        alike = [
            (self.fit.losses(columns, ours)[0] < self.supervised.fit.losses(whole, theirs)[0]) == distil
            for ours, theirs in pairs
        ]
        return float(np.mean(alike)) if alike else math.nan


def _above(value: float, name: str) -> float:
    if checks.number(value, name) == 0:
        raise InputError(f"{name}=0: give a number above 0")
    return float(value)


@dataclass(frozen=True)
class _Reducible:
    """log of (a / N^alpha + b / D^beta)^gamma around the middle of the runs.

    All five are above 0 and given by their logs, so that a fit cannot say that larger is worse.
    """

    log_size: float
    log_tokens: float

    @classmethod
    def of(cls, columns: Mapping[str, Floats]) -> _Reducible:
        return cls(float(np.log(columns["parameters"]).mean()), float(np.log(columns["tokens"]).mean()))

    def log(self, terms: Floats, columns: Mapping[str, Floats]) -> Floats:
        a, b = terms[0], terms[2]
        alpha, beta, gamma = np.exp(np.clip(terms[[1, 3, 4]], -_LOGS, _LOGS))
        size, seen = np.log(columns["parameters"]) - self.log_size, np.log(columns["tokens"]) - self.log_tokens
        return np.asarray(gamma * log_sum(a - alpha * size, b - beta * seen))

    def coefficients(self, terms: Floats) -> tuple[float, ...]:
        """a, alpha, b, beta, gamma with nothing moved."""
        a, b = float(terms[0]), float(terms[2])
        alpha, beta, gamma = np.exp(terms[[1, 3, 4]]).tolist()
        return math.exp(a + alpha * self.log_size), alpha, math.exp(b + beta * self.log_tokens), beta, gamma


@dataclass(frozen=True)
class _Supervised:
    reducible: _Reducible

    def __call__(self, parameters: Floats, columns: Mapping[str, Floats]) -> Floats:
        reducible = self.reducible.log(parameters[1:], columns)
        return log_sum(np.full(len(reducible), parameters[0]), reducible)


@dataclass(frozen=True)
class _Distilled:
    """c0, and the logs of c1, d1 and f1, before the five of the reducible part."""

    reducible: _Reducible

    def __call__(self, parameters: Floats, columns: Mapping[str, Floats]) -> Floats:
        c0, log_c1, log_d1, log_f1 = parameters[:4]
        log_teacher, log_alone = np.log(columns["teacher_loss"]), np.log(columns["alone"])
        f1, c1 = np.exp(np.clip([log_f1, log_c1], -_LOGS, _LOGS))
        bend = -c1 * f1 * np.logaddexp(0.0, (log_teacher - log_alone - log_d1) / f1)
        above = -c0 * log_teacher + bend + self.reducible.log(parameters[4:], columns)
        return log_sum(log_teacher, above)


@helper
def fit_supervised_law(
    parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike, *, resamples: int = 40, seed: int = 0
) -> SupervisedLaw:
    """Fit loss = irreducible + (a / N^alpha + b / D^beta)^gamma to runs, by Huber's loss on logs, from 8 starts.

    Args:
        parameters: (n,) parameters of each run.
        tokens: (n,) tokens it was trained on.
        losses: (n,) loss it reached.
        resamples: fits to runs drawn with replacement, for intervals.
        seed: of these draws.

    Returns:
        A `SupervisedLaw`: `loss` and `interval`.

    Raises:
        InputError: fewer than 7 runs, or fewer than three different sizes or tokens: the data then support no such law.

    Runs whose sizes and tokens lie nearly on one line in logs, such as 20 tokens a parameter, cannot tell the exponents
    apart: the fit warns, and off that line `loss` warns and `interval` is 0 to infinity.

    Costs a second for hundreds of runs. A local optimum over the starts.

    References:
        Busbridge et al. 2025, "Distillation Scaling Laws", ICML (arXiv 2502.08606), after Hoffmann et al. 2022,
        "Training Compute-Optimal Large Language Models" (NeurIPS).

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import fit_supervised_law
        >>> N, D = (x.ravel() for x in np.meshgrid([1e7, 1e8, 1e9], [1e9, 4e9, 2e10]))
        >>> law = fit_supervised_law(N, D, 1.7 + 400 / N**0.34 + 410 / D**0.28, resamples=5)
        >>> law.loss(4e9, 8e10).round(2).tolist(), round(float(1.7 + 400 / 4e9**0.34 + 410 / 8e10**0.28), 2)
        ([2.28], 2.28)
    """
    columns, loss = measured({"parameters": parameters, "tokens": tokens}, losses)
    checks.count(resamples, "resamples", least=0)
    differing(columns, ("parameters", "tokens"))
    form = _Supervised(_Reducible.of(columns))
    low, spread = float(loss.min()), float(np.ptp(loss)) + 1e-3 * float(loss.min())
    starts = [
        np.array([math.log(floor * low), math.log(spread / 2), alpha, math.log(spread / 2), beta, 0.0])
        for floor, alpha, beta in itertools.product((0.5, 0.9), np.log((0.2, 0.5)), np.log((0.2, 0.5)))
    ]
    fit = fitted(
        form,
        columns,
        loss,
        starts,
        names=_SUPERVISED,
        resamples=resamples,
        seed=checks.entropy(seed),
        separation=Separation.of(columns, tuple(columns)),
    ).warned()
    values = (math.exp(fit.parameters[0]), *form.reducible.coefficients(fit.parameters[1:]))
    return SupervisedLaw(fit, dict(zip(_SUPERVISED, values, strict=True)))


@helper
def fit_distillation_law(
    parameters: ArrayLike,
    tokens: ArrayLike,
    teacher_losses: ArrayLike,
    losses: ArrayLike,
    *,
    supervised: SupervisedLaw,
    resamples: int = 40,
    seed: int = 0,
) -> DistillationLaw:
    """Fit the distillation scaling law to runs of students, by Huber's loss on logs, from 8 starts.

    Args:
        parameters: (n,) parameters of each student.
        tokens: (n,) tokens it was distilled on.
        teacher_losses: (n,) loss of its teacher.
        losses: (n,) loss it reached.
        supervised: the law of the same models without a teacher, by `fit_supervised_law`.
        resamples: fits to runs drawn with replacement, for intervals.
        seed: of these draws.

    Returns:
        A `DistillationLaw`: `loss`, `interval`, and `spend` for the best split of compute.

    Raises:
        InputError: fewer than 10 runs, or fewer than three different sizes, tokens or teachers: the data then support
            no such law.

    Runs whose sizes and tokens lie nearly on one line in logs, such as 20 tokens a parameter, cannot tell the exponents
    apart: the fit warns, and off that line `loss` warns and `interval` is 0 to infinity.

    Costs seconds for hundreds of runs. A local optimum over the starts.

    References:
        Busbridge, Shidani, Weers, Ramapuram, Littwin & Webb 2025, "Distillation Scaling Laws", ICML (arXiv 2502.08606),
        equation 8.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import fit_distillation_law, fit_supervised_law
        >>> grid = np.meshgrid([1e7, 1e8, 1e9], [1e9, 4e9, 2e10], [2.2, 2.6, 3.2])
        >>> N, D, T = (x.ravel() for x in grid)
        >>> alone = 1.7 + 400 / N**0.34 + 410 / D**0.28
        >>> supervised = fit_supervised_law(N, D, alone, resamples=5)
        >>> students = T + (1 + (T / alone) ** 2) ** -0.5 * (300 / N**0.34 + 300 / D**0.28) / T
        >>> law = fit_distillation_law(N, D, T, students, supervised=supervised, resamples=5)
        >>> plan = law.spend(1e20, student=1e8, teacher=(1e9, 2.2))
        >>> plan.info["distil"], bool(plan.amounts.sum() <= 1e20)
        (True, True)
    """
    columns, loss = measured({"parameters": parameters, "tokens": tokens, "teacher_loss": teacher_losses}, losses)
    checks.count(resamples, "resamples", least=0)
    differing(columns, ("parameters", "tokens", "teacher_loss"))
    form = _Distilled(_Reducible.of(columns))
    separation = Separation.of(columns, tuple(columns))
    columns["alone"] = supervised.fit.losses({name: columns[name] for name in ("parameters", "tokens")})
    spread = max(float(np.median(loss - columns["teacher_loss"])), 0.05 * float(np.median(loss)))
    starts = [
        np.array([c0, log_c1, 0.2, log_f1, math.log(spread), exponent, math.log(spread / 2), exponent, 0.0])
        for c0, log_c1, log_f1, exponent in itertools.product((1.0,), (0.0, 5.0), (-2.0, 0.0), np.log((0.2, 0.5)))
    ]
    fit = fitted(
        form,
        columns,
        loss,
        starts,
        names=_DISTILLED,
        resamples=resamples,
        seed=checks.entropy(seed),
        separation=separation,
    ).warned()
    # A low teacher's loss is the far end of it, and what a student has alone follows from the others.
    fit = replace(fit, reach={name: fit.reach[name] for name in ("parameters", "tokens")})
    c0, log_c1, log_d1, log_f1 = fit.parameters[:4].tolist()
    values = (
        c0,
        math.exp(log_c1),
        math.exp(log_d1),
        math.exp(log_f1),
        *form.reducible.coefficients(fit.parameters[4:]),
    )
    return DistillationLaw(fit, supervised, dict(zip(_DISTILLED, values, strict=True)))
