"""Bits for each expert of a mixture of experts, by what the expert is used for and what each width does to it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.allocation._counts import spent
from kofn.allocation._levels import sizes_and_levels
from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InfeasibleError, InputError, shown
from kofn.core.draws import Draw
from kofn.core.highs import milp
from kofn.core.plans import Allocation
from kofn.core.registry import method

# How exactly HiGHS holds a constraint.
_TOLERANCE = 1e-6


@method(
    "allocate",
    draws=Draw(
        plain={"budget": 12, "at_least": {2: 1}},
        options={"alpha": (0.5, 2.0), "beta": (0.0, 1.0), "gamma": (1.0, 3.0)},
        silent=("duality",),
    ),
    cost="a multiple-choice knapsack; with at_least an integer program, 0.1 s for 256 experts of 3 widths",
    exact="the optimum of the weighted error",
    paper=136,
    aliases=("MC-MoE", "mixture compressor", "bits per expert", "MoE quantization"),
)
def expert_bits(
    curves: Any,
    *,
    budget: float | None = None,
    groups: ArrayLike | None = None,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    mean_budget: float | None = None,
    frequency: ArrayLike | None = None,
    gate: ArrayLike | None = None,
    alpha: float = 1.0,
    beta: float = 1.5,
    gamma: float = 2.0,
    at_least: Mapping[Any, int] | None = None,
) -> Allocation:
    """Give each expert its bits so that the error, weighted by how much the router uses the expert, is the least.

    An expert's weight is `frequency ** alpha * gate ** beta`, and its error at a width counts as `curves ** gamma`.

    Args:
        curves: (n, widths) measured error of each expert at each width, >= 0, such as the norm of what quantising it
            changes in the block's output. `inf` is a width that the expert may not have.
        budget: bits times sizes in all, at most.
        groups: (n,) block of each expert; `at_least` is then held in each.
        sizes: (n,) weights of each expert, default 1.
        levels: (widths,) or (n, widths) bits, default 1, 2, 3, ...
        mean_budget: instead of `budget`, bits a weight, such as 2.5.
        frequency: (n,) share of the tokens that each expert is routed, >= 0, default 1.
        gate: (n,) mean router weight of those tokens, >= 0, default 1.
        alpha: power of the frequency, >= 0.
        beta: power of the router weight, >= 0.
        gamma: power of the error, > 0.
        at_least: {bits: how many experts have those bits}, such as {3: 1, 2: 1}; of each block where `groups` are
            given.

    Returns:
        An `Allocation`: `amounts` bits, `values` the weighted error of each expert, `price` the weighted error that one
        more bit of budget would save (of the program without `at_least`). `info["level"]` are the columns chosen.

    Raises:
        InfeasibleError: the least widths cost more than the budget, or `at_least` cannot be met within it.
        InputError: an error, frequency or gate below 0, a width in `at_least` that no column has.

    Cost: that of `multiple_choice_knapsack`; with `at_least` an integer program solved by HiGHS.

    Guarantee: optimal, over all blocks at once. Errors that were measured on the block's output tell already how much
    an expert is used: in our trials they alone, without `frequency` and `gate`, did as well or better.

    References:
        Huang et al. 2025, "MC-MoE: Mixture Compressor for Mixture-of-Experts LLMs Gains More", ICLR (the weighted error
        and the program, there for each block of its own).

    Examples:
        >>> from kofn.allocation import expert_bits
        >>> error = [[0.9, 0.4, 0.2], [0.9, 0.4, 0.2], [0.8, 0.3, 0.1]]
        >>> expert_bits(error, mean_budget=2, frequency=[0.7, 0.2, 0.1], gate=[0.5, 0.5, 0.5]).amounts.tolist()
        [3, 2, 1]
        >>> expert_bits(error, mean_budget=2, frequency=[0.9, 0.09, 0.01], at_least={2: 3}).amounts.tolist()
        [2, 2, 2]
    """
    n, width = curves.shape
    amounts: Any = np.arange(1, width + 1) if levels is None else levels
    checks.forbidden_levels(curves, "min")
    if curves.min() < 0:
        row, column = np.argwhere(curves < 0)[0]
        raise InputError(f"curves at row {row}, column {column} is {curves[row, column]:g}; give errors >= 0")
    powers = (("alpha", alpha, 0.0), ("beta", beta, 0.0), ("gamma", gamma, 1e-3))
    for name, power, least in powers:
        checks.fraction(power, name, low=least, high=16)
    importance = _factor(frequency, "frequency", n) ** alpha * _factor(gate, "gate", n) ** beta
    with np.errstate(over="ignore", invalid="ignore"):
        loss = np.where(np.isinf(curves), np.inf, importance[:, None] * curves.astype(np.float64) ** gamma)
        if not np.isfinite(np.where(np.isinf(curves), 0.0, loss).sum()):
            raise InputError("curves: errors weighted so are beyond what numbers hold; divide them by the largest")
    if (loss[(curves > 0) & (importance[:, None] > 0)] < np.finfo(np.float64).tiny).any():
        raise InputError("curves: errors weighted so are below what numbers hold; divide them by the largest")
    call: dict[str, Any] = {"budget": budget, "mean_budget": mean_budget, "sizes": sizes, "levels": amounts}
    plan = multiple_choice_knapsack(loss, **call)
    if at_least:
        plan = _with_counts(plan, loss, groups, sizes, amounts, at_least)
    elif groups is not None and at_least is None:
        raise InputError("groups are the blocks that at_least is held in; give at_least, or leave groups out")
    return dataclasses.replace(plan, objective="weighted_error")


def _factor(value: ArrayLike | None, name: str, n: int) -> Floats:
    if value is None:
        return np.ones(n)
    array = checks.costs(value, name).astype(np.float64)
    checks.same_length(n, "curves", name, len(array))
    return array


def _with_counts(
    plan: Allocation,
    loss: Floats,
    groups: ArrayLike | None,
    sizes: ArrayLike | None,
    levels: ArrayLike,
    at_least: Mapping[Any, int],
) -> Allocation:
    """The plan with so many experts of each width in each block, by an integer program where it has fewer."""
    scale, bits = sizes_and_levels(loss, sizes, levels)
    counts = {
        _width(width, bits): checks.count(number, f"at_least[{width!r}]", least=0) for width, number in at_least.items()
    }
    blocks = np.zeros(len(loss), np.int64) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if _met(plan.amounts, blocks, counts):
        return plan
    costs, rows, budget = scale[:, None] * bits, np.arange(len(loss)), plan.budget["budget"]
    choice = _program(loss, costs, bits, blocks, counts, budget)
    bound = math.fsum(loss[rows, choice].tolist())
    if spent(scale, bits[rows, choice]) > budget:
        # The solver holds its constraints to within a millionth; the budget is held exactly.
        choice = _program(loss, costs, bits, blocks, counts, budget * (1 - 2 * _TOLERANCE))
    values = loss[rows, choice]
    value = math.fsum(values.tolist())
    return dataclasses.replace(
        plan,
        amounts=bits[rows, choice],
        values=values,
        value=value,
        bound=bound,
        status="optimal" if bound == value else "approximate",
        used={"budget": spent(scale, bits[rows, choice])},
        marginal_up=None,
        marginal_down=None,
        info={"level": choice},
    )


def _width(width: Any, bits: Array) -> float:
    if not checks.is_number(width) or not (bits == width).any():
        raise InputError(f"at_least={shown(width)}: no column has that width; give those of levels")
    return float(width)


def _met(amounts: Array, blocks: Ints, counts: Mapping[float, int]) -> bool:
    most = int(blocks.max()) + 1
    return all(
        (np.bincount(blocks[amounts == width], minlength=most) >= number).all() for width, number in counts.items()
    )


def _program(
    loss: Floats, costs: NDArray[Any], bits: Array, blocks: Ints, counts: Mapping[float, int], budget: float
) -> Ints:
    """(n,) the columns of least summed loss under the budget and the counts."""
    from scipy.optimize import Bounds, LinearConstraint
    from scipy.sparse import csr_array

    n, width = loss.shape
    room = float(math.floor(budget)) if costs.dtype.kind == "i" else float(budget)
    unit = room or 1.0
    allowed = np.isfinite(loss)
    entry = np.arange(n * width).reshape(n, width)
    one_each = csr_array((np.ones(n * width), (np.repeat(np.arange(n), width), entry.ravel())))
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(costs.reshape(1, -1) / unit, ub=room / unit)]
    for count, number in counts.items():
        for block in range(int(blocks.max()) + 1):
            counted = ((bits == count) & (blocks == block)[:, None]).reshape(1, -1)
            constraints.append(LinearConstraint(counted.astype(float), lb=number))
    worst = float(loss[allowed].max(initial=0.0)) or 1.0
    answer = milp(
        np.where(allowed, loss / worst, 0.0).ravel(),
        integrality=np.ones(n * width),
        bounds=Bounds(0, allowed.astype(float).ravel()),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        asked = ", ".join(f"{number} of {count:g} bits" for count, number in counts.items())
        raise InfeasibleError(
            f"at_least: {asked} in each of {int(blocks.max()) + 1} blocks cannot be had within budget={budget:g}; "
            "raise the budget or ask for fewer"
        )
    choice: Ints = answer.x.reshape(n, width).argmax(axis=1)
    return choice
