"""A scaling law of dense models and mixtures of experts together, and what to train under compute and memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.scaling_laws._huber import Fit, differing, fitted, log_sum, measured, points
from kofn.allocation.scaling_laws._separation import Separation
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["MoELaw", "fit_moe_law"]

# Expert counts below the first act like it, and those above the second like it (constants of the paper).
_SATURATION = (1.0, 290.0)
_NAMES = ("a", "delta", "alpha", "gamma", "b", "omega", "beta", "zeta", "c")
# Models tried on a grid of sizes before the best is refined, and how far it spans in factors of e.
_GRID, _SPAN = 400, 14.0
# Training takes so many operations for each active parameter and token.
_OPERATIONS = 6.0
# A choice that fewer resampled fits make is told.
_AGREED = 0.9


@dataclass(frozen=True, eq=False)
class MoELaw:
    """A fitted law: loss = a E^delta N^(alpha + gamma ln E) + b E^omega D^(beta + zeta ln E) + c, E saturated.

    Attributes:
        fit: the parameters, their resamples, how far the runs reach and the relative error of the fit.
        coefficients: a, delta, alpha, gamma, b, omega, beta, zeta, c.
    """

    fit: Fit
    coefficients: Mapping[str, float]

    def loss(self, active: ArrayLike, tokens: ArrayLike, experts: ArrayLike) -> Floats:
        """The predicted loss of models of so many active parameters, tokens and experts (1: dense)."""
        return self.fit.predicted(points(active=active, tokens=tokens, experts=experts))

    def interval(self, active: ArrayLike, tokens: ArrayLike, experts: ArrayLike) -> tuple[Floats, Floats]:
        """What the loss is between for nine of ten fits to resampled runs."""
        return self.fit.interval(points(active=active, tokens=tokens, experts=experts))

    def spend(
        self,
        flops: float,
        *,
        memory: float | None = None,
        experts: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
        expert_share: float = 2 / 3,
        parameter_bytes: float = 2.0,
    ) -> Allocation:
        """Choose the size, the tokens and the experts of the least predicted loss under compute and memory.

        Args:
            flops: operations that training may take: 6 for each active parameter and token.
            memory: bytes that all parameters may take; default no limit.
            experts: numbers of experts to choose from, one of them active.
            expert_share: which part of the active parameters is in the expert, so that E experts make
                N (1 + (E - 1) share) parameters in all.
            parameter_bytes: bytes of a parameter in memory.

        Returns:
            An `Allocation` of three: `amounts` active parameters, tokens and experts; `value` the predicted loss.
            `info` has the `interval` of it, `by_experts` (the best for each number), the `agreement` (share of
            resampled fits that choose the same number of experts), and `warnings` where the data do not support it.

        Raises:
            InfeasibleError: no model fits into the memory.
            InputError: a budget of 0, no experts to choose from.
        """
        limit = _above(flops, "flops")
        room = math.inf if memory is None else _above(memory, "memory") / _above(parameter_bytes, "parameter_bytes")
        share = checks.fraction(expert_share, "expert_share")
        counts = sorted({checks.count(number, "experts") for number in experts})
        if not counts:
            raise InputError("experts is empty; give numbers of experts to choose from, 1 for a dense model")
        most = {number: room / (1 + (number - 1) * share) for number in counts}
        if max(most.values()) < 1:
            raise InfeasibleError(f"memory={memory:g}: not one parameter fits; give more")
        tables = {
            number: _sizes(limit, most[number], self.fit.reach["active"]) for number in counts if most[number] >= 1
        }
        best = {number: self._best(sizes, limit, number, self.fit.parameters) for number, sizes in tables.items()}
        chosen = min(best, key=lambda number: best[number][1])
        votes = [
            min(tables, key=lambda number: self._best(tables[number], limit, number, parameters)[1])
            for parameters in self.fit.resampled
        ]
        agreement = votes.count(chosen) / len(votes) if votes else math.nan
        active, loss = best[chosen]
        tokens = limit / (_OPERATIONS * active)
        low, high = self.interval(active, tokens, chosen)
        warnings = self.fit.beyond({"active": active, "tokens": tokens, "experts": chosen})
        if agreement < _AGREED:
            warnings.append(
                f"only {agreement:.0%} of the laws fitted to resampled runs choose {chosen} experts: the data do not "
                "tell how many; measure more"
            )
        total = active * (1 + (chosen - 1) * share)
        used = {"flops": min(_OPERATIONS * active * tokens, limit)}
        budget = {"flops": limit}
        if memory is not None:
            used["memory"], budget["memory"] = min(total * parameter_bytes, float(memory)), float(memory)
        return Allocation(
            n=3,
            amounts=np.array([active, tokens, chosen], np.float64),
            values=np.full(3, np.nan),
            value=loss,
            sense="min",
            additive=False,
            used=used,
            budget=budget,
            objective="predicted_loss_of_experts",
            method="MoELaw.spend",
            ids=np.array(["active", "tokens", "experts"]),
            info={
                "interval": (float(low[0]), float(high[0])),
                "parameters": total,
                "by_experts": {number: {"active": size, "loss": value} for number, (size, value) in best.items()},
                "agreement": agreement,
                **({"warnings": warnings} if warnings else {}),
            },
        )

    def _best(self, sizes: Floats, flops: float, experts: int, parameters: Floats) -> tuple[float, float]:
        """The best size of a grid and its loss, refined once between its neighbours."""
        for _ in range(2):
            columns = points(active=sizes, tokens=flops / (_OPERATIONS * sizes), experts=np.full(len(sizes), experts))
            losses = self.fit.losses(columns, parameters)
            row = int(losses.argmin())
            low, high = sizes[max(row - 1, 0)], sizes[min(row + 1, len(sizes) - 1)]
            best = float(sizes[row]), float(losses[row])
            sizes = np.geomspace(low, high, _GRID)
        return best


def _above(value: float, name: str) -> float:
    if checks.number(value, name) == 0:
        raise InputError(f"{name}=0: give a number above 0")
    return float(value)


def _sizes(flops: float, most: float, reach: float) -> Floats:
    """Sizes around where compute is balanced, none above what memory holds."""
    middle = math.log(math.sqrt(flops / _OPERATIONS / 20))
    low, high = min(middle - _SPAN / 2, math.log(reach) - _SPAN / 2), middle + _SPAN / 2
    top = min(math.exp(high), most)
    return np.geomspace(max(1.0, min(math.exp(low), top / math.e)), top, _GRID)


def saturated(experts: Floats) -> Floats:
    """The number of experts as the law sees it: 1 for one, and never above the most that help."""
    start, most = _SATURATION
    return np.asarray(1 / (1 / (experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most))


@dataclass(frozen=True)
class _Form:
    """The law around the middle of the runs, where its parameters are least entangled."""

    log_active: float
    log_tokens: float

    def __call__(self, parameters: Floats, columns: Mapping[str, Floats]) -> Floats:
        a, delta, alpha, gamma, b, omega, beta, zeta, c = parameters
        experts = np.log(saturated(columns["experts"]))
        size, seen = np.log(columns["active"]) - self.log_active, np.log(columns["tokens"]) - self.log_tokens
        return log_sum(
            a + delta * experts + (alpha + gamma * experts) * size,
            b + omega * experts + (beta + zeta * experts) * seen,
            np.full(len(size), c),
        )

    def coefficients(self, parameters: Floats) -> dict[str, float]:
        """The law's own, with nothing moved."""
        a, delta, alpha, gamma, b, omega, beta, zeta, c = parameters.tolist()
        values = (
            math.exp(a - alpha * self.log_active),
            delta - gamma * self.log_active,
            alpha,
            gamma,
            math.exp(b - beta * self.log_tokens),
            omega - zeta * self.log_tokens,
            beta,
            zeta,
            math.exp(c),
        )
        return dict(zip(_NAMES, values, strict=True))


@helper
def fit_moe_law(
    active: ArrayLike,
    tokens: ArrayLike,
    experts: ArrayLike,
    losses: ArrayLike,
    *,
    resamples: int = 40,
    seed: int = 0,
) -> MoELaw:
    """Fit one scaling law to runs of dense models and of mixtures of experts.

    The exponents and factors of the size and of the tokens depend on the log of the number of experts, which saturates.
    The fit is Huber's on logs of losses, from 8 starts.

    Args:
        active: (n,) active parameters of each run.
        tokens: (n,) tokens it was trained on.
        experts: (n,) number of experts, 1 for a dense model; one of them is active.
        losses: (n,) loss it reached.
        resamples: fits to runs drawn with replacement, for intervals.
        seed: of these draws.

    Returns:
        A `MoELaw`: `loss`, `interval`, and `spend` for the best model under compute and memory.

    Raises:
        InputError: fewer than 10 runs, or fewer than three different sizes, tokens or (two) numbers of experts: the
            data then support no such law.

    Runs whose sizes and tokens lie nearly on one line in logs, such as 20 tokens a parameter, cannot tell the exponents
    apart: the fit warns, and off that line `loss` warns and `interval` is 0 to infinity.

    Costs seconds for hundreds of runs. A local optimum over the starts; intervals say how far the runs determine it,
    not whether the law's form is right beyond them, and are too narrow there: of runs 4 to 30 times as large, 65% were
    inside an interval of 90%.

    References:
        Ludziejewski et al. 2025, "Joint MoE Scaling Laws: Mixture of Experts Can Be Memory Efficient", ICML (arXiv
        2502.05172).

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import fit_moe_law
        >>> N, D, E = (x.ravel() for x in np.meshgrid([1e7, 1e8, 1e9], [1e9, 4e9, 2e10], [1, 4, 16]))
        >>> losses = 30 * E**-0.1 * N**-0.25 + 200 * D**-0.3 + 1.5
        >>> law = fit_moe_law(N, D, E, losses, resamples=5)
        >>> plan = law.spend(1e20, memory=2e10)
        >>> bool(plan.amounts[2] > 1), plan.used["memory"] <= 2e10
        (True, True)
    """
    columns, loss = measured({"active": active, "tokens": tokens, "experts": experts}, losses)
    checks.count(resamples, "resamples", least=0)
    differing(columns, ("active", "tokens"))
    differing(columns, ("experts",), least=2)
    if columns["experts"].min() < 1:
        row = int(columns["experts"].argmin())
        raise InputError(f"experts at row {row} is {columns['experts'][row]:g}; give at least 1, a dense model")
    form = _Form(float(np.log(columns["active"]).mean()), float(np.log(columns["tokens"]).mean()))
    low, spread = float(loss.min()), float(np.ptp(loss)) + 1e-3 * float(loss.min())
    starts = [
        np.array([math.log(part * spread), delta, alpha, 0.0, math.log(spread / 3), 0.0, beta, 0.0, math.log(floor)])
        for part, delta, alpha, beta, floor in itertools.product(
            (0.3, 1.0), (-0.1,), (-0.2, -0.5), (-0.3,), (0.5 * low, 0.9 * low)
        )
    ]
    fit = fitted(
        form,
        columns,
        loss,
        starts,
        names=_NAMES,
        resamples=resamples,
        seed=checks.entropy(seed),
        separation=Separation.of(columns, tuple(columns)),
    ).warned()
    return MoELaw(fit, form.coefficients(fit.parameters))
