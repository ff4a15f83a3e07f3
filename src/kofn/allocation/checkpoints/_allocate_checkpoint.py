"""Share a mean number of bits, or of weights left, over the tensors of a checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.checkpoints._measure import Curve, left_of, pruning_curves, rounding_curves
from kofn.allocation.checkpoints._plan import BITS, SPARSITY, CheckpointPlan, TensorLevel
from kofn.allocation.checkpoints._statistics import NONE, Statistics
from kofn.allocation.checkpoints._weights import (
    KEEP,
    Weight,
    chosen,
    fingerprint,
    fixed_levels,
    open_model,
    tied_items,
)
from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError, shown
from kofn.core.plans import Allocation

__all__ = ["allocate_checkpoint"]

WIDTHS = tuple(range(2, 9))
KEPT = tuple(range(5, 101, 5))
CRITERIA = ("squared", "relative")
_POINTS = 13


def allocate_checkpoint(
    path: str | os.PathLike[str],
    *,
    bits: float | None = None,
    sparsity: float | None = None,
    widths: Sequence[int] = WIDTHS,
    group_size: int = 128,
    symmetric: bool = False,
    statistics: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    criterion: str | None = None,
    only: str | Sequence[str] | None = None,
    tie: str | Sequence[str] | None = None,
    fix: Mapping[str, int | str] | None = None,
    count_scales: bool = False,
    n_threads: int | None = None,
    progress: Any = None,
) -> CheckpointPlan:
    """Share a mean number of bits a weight, or a share of weights to leave out, over the tensors of a checkpoint.

    Each tensor is read once, in blocks, and rounded to nearest at every width; an exact multiple-choice knapsack then
    chooses the widths whose summed error is the least at the mean.

    Args:
        path: a folder, a `*.safetensors` file or an index, as `Checkpoint.open` takes it.
        bits: the mean number of bits a weight, over the tensors that take part.
        sparsity: instead of `bits`: the share of weights to set to zero, the least magnitudes of each tensor first.
        widths: the widths that tensors may have, of 2 to 8.
        group_size: weights that share a scale, along the inputs of an output; -1 for all of them. A tensor whose inputs
            are no multiple of it has a scale for each output.
        symmetric: numbers about zero, without a zero point; by default from the least to the largest weight of a group.
        statistics: what the model's inputs say of errors, by module or tensor, in memory or as a .safetensors or .npz
            file: the mean squares of inputs (width,) or their mean products (width, width), such as
            `kofn.nn.activation_gram` gives; a curvature in the tensor's own shape, such as `kofn.nn.diagonal_fisher`
            gives; or one number. Without them errors are those of the weights.
        criterion: "squared" adds up squared errors, "relative" each over the tensor's own sum of squares (weighted
            alike); default DEFAULTS.
        only: pattern, or several, of names of tensors or modules that take part; by default all with two axes or more
            but embeddings, heads and routers. A name may be the end of one.
        tie: pattern, or several, of tensors that share a level. With {} in it ('layers.{}.self_attn.[qkv]_proj') they
            share it where the text there is the same; 'fused' ties q, k and v, and gate and up, of each layer.
        fix: pattern -> its level, or "keep": the tensor stays as it is and does not count.
        count_scales: whether scales and zero points count towards `bits`.
        n_threads: threads; the answer is the same for any number.
        progress: as everywhere.

    Returns:
        A `CheckpointPlan`: the level of every tensor, the error beside that of a uniform level at the same mean, the
        price and the frontier. `save` writes it, `apply_plan` and `export_plan` use it.

    Raises:
        InfeasibleError: a mean below the least or above the most that is possible; both are named.
        InputError: no checkpoint, a quantised one, weights that are not finite, a pattern that matches nothing,
            statistics of other shapes, widths outside 2..8.
        FailureError: a damaged file (tensor and offset are named).

    Cost: one pass over the weights, some 12 ns a weight and core for all widths; memory a few MB a thread, whatever the
    checkpoint's size. With (width, width) statistics 28 width operations a weight.

    Exactness: the allocation is optimal for the measured errors; of sparsity these are exact to 1% of a step.

    References:
        Frantar & Alistarh 2022, arXiv 2208.11580: layers' errors and a dynamic program over them. Malinovskii et al.
        2024, arXiv 2411.17525: the loss grows in proportion to the layers' relative errors.

    Examples:
        >>> import tempfile, numpy as np
        >>> from kofn.allocation import allocate_checkpoint
        >>> from kofn.io.tensor_writer import write_arrays
        >>> rng = np.random.default_rng(0)
        >>> small, large = rng.normal(size=(64, 64)), 9 * rng.normal(size=(64, 64))
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> write_arrays(path, {"a.weight": small.astype(np.float32), "b.weight": large.astype(np.float32)})
        >>> plan = allocate_checkpoint(path, bits=4, group_size=64, criterion="squared")
        >>> plan.level_of(), plan.error < plan.uniform
        ({'a.weight': 2, 'b.weight': 6}, True)
    """
    kind, asked = _asked(bits, sparsity)
    levels = _widths(widths) if kind == BITS else KEPT
    size = group_size if group_size == -1 else checks.count(group_size, "group_size", least=2)
    symmetric, count_scales = checks.flag(symmetric, "symmetric"), checks.flag(count_scales, "count_scales")
    fixes = _fixes(fix, kind)
    checkpoint = open_model(path)
    weights = chosen(checkpoint, size, _patterns(only), fixes)
    items = tied_items(weights, _patterns(tie))
    known = Statistics(statistics).of(weights)
    label = known[0].kind if len({statistic.kind for statistic in known}) == 1 else "several kinds"
    unit = checks.choice(criterion, "criterion", CRITERIA) if criterion is not None else default_criterion(label)
    digest = fingerprint(checkpoint)
    measure = rounding_curves if kind == BITS else pruning_curves
    curves = measure(weights, known, levels, n_threads, progress)
    table = Table.of(weights, curves, unit, levels, items, _own_levels(weights, fixes), kind, symmetric, count_scales)
    kept = [name for name, tensor in checkpoint.items() if len(tensor.shape) > 1 and name not in table.names]
    solution = _solved(table, asked, kind)
    own = [table.levels[column] for column in solution.columns]
    tensors = tuple(
        TensorLevel(
            name=weight.name,
            module=weight.module,
            shape=tuple(weight.tensor.shape),
            level=own[i],
            error=float(table.errors[i, solution.columns[i]]),
            curve=tuple(None if math.isinf(error) else error for error in table.allowed[i].tolist()),
            group=weight.group,
            item=int(table.item_of[i]),
            fixed=i in table.fixed,
        )
        for i, weight in enumerate(weights)
    )
    step = 0.1 if kind == BITS else 0.01
    dearer = solution.asked + step if kind == BITS else solution.asked + 100 * step
    following = table.best(dearer) if dearer <= table.most else None
    return CheckpointPlan(
        kind=kind,
        path=os.fspath(path),
        digest=digest,
        levels=tuple(levels),
        tensors=tensors,
        kept=tuple(kept),
        group_size=size,
        symmetric=symmetric,
        statistic=label,
        criterion=unit,
        asked=asked,
        mean=_as_asked(table.mean(solution.columns, scales=False), kind),
        mean_with_scales=_as_asked(table.mean(solution.columns, scales=kind == BITS), kind),
        error=solution.error,
        uniform=table.uniform(solution.asked),
        price=float(solution.allocation.price or 0.0) * table.weights,
        next_error=following,
        frontier=table.frontier(kind),
        other_error=table.other_error(solution.columns) if kind == BITS else None,
        counts_scales=count_scales,
        allocation=solution.allocation,
    )


def default_criterion(statistic: str) -> str:
    """What is added up where the caller does not say."""
    return "squared" if statistic == NONE else "relative"


@dataclass(frozen=True)
class Solution:
    """The chosen column of each tensor, and the mean that was asked for in the table's unit."""

    asked: float
    columns: list[int]
    error: float
    allocation: Allocation


@dataclass(frozen=True)
class Table:
    """What every tensor costs and loses at each level, and which of them are one item.

    Attributes:
        names: of the tensors.
        sizes: (n,) weights.
        plain: (n, L) bits, or weights left, at each level; whole numbers.
        with_scales: (n, L) bits with those of scales.
        costs: (n, L) the one of them that counts.
        errors: (n, L) errors.
        allowed: (n, L) the same, infinite at a level that the tensor may not have.
        other: (n, L) errors of the other kind of numbers.
        item_of: (n,) the item of each tensor.
        levels: (L,) what a level is.
        fixed: positions of the tensors with levels of their own.
        unit: the mean of costs of one a weight: 1 bit, or 100 percent left.
    """

    names: frozenset[str]
    keys: list[str]
    sizes: Ints
    plain: Ints
    with_scales: Ints
    costs: Ints
    errors: Floats
    allowed: Floats
    other: Floats
    item_of: Ints
    levels: Sequence[int]
    fixed: frozenset[int]
    unit: int

    @classmethod
    def of(
        cls,
        weights: Sequence[Weight],
        curves: Sequence[Curve],
        criterion: str,
        levels: Sequence[int],
        items: Sequence[Sequence[int]],
        own: Mapping[int, int],
        kind: str,
        symmetric: bool,
        count_scales: bool,
    ) -> Table:
        """The table of measured curves."""
        sizes = np.array([weight.size for weight in weights])
        amounts = np.asarray(levels)
        if kind == BITS:
            plain = sizes[:, None] * amounts
            points = np.zeros_like(amounts) if symmetric else amounts
            scales = np.array([[weight.scales * (weight.scale_bits + point) for point in points] for weight in weights])
        else:
            plain = np.array([[left_of(weight.size, percent) for percent in levels] for weight in weights])
            scales = np.zeros_like(plain)
        signals = np.array([curve.signal for curve in curves])
        whole = np.where(signals > 0, signals, 1.0)[:, None] if criterion == "relative" else 1.0
        both = np.stack([curve.errors for curve in curves])
        errors, other = both[:, int(symmetric)] / whole, both[:, 1 - int(symmetric)] / whole
        allowed = errors.copy()
        for position, level in own.items():
            allowed[position, amounts != level] = np.inf
        item_of = np.empty(len(weights), np.int64)
        for item, members in enumerate(items):
            item_of[list(members)] = item
            _refuse_clash(weights, members, own)
        return cls(
            names=frozenset(weight.name for weight in weights),
            keys=[weights[members[0]].name if len(members) == 1 else _joined(weights, members) for members in items],
            sizes=sizes,
            plain=plain,
            with_scales=plain + scales,
            costs=plain + scales if count_scales else plain,
            errors=errors,
            allowed=allowed,
            other=other,
            item_of=item_of,
            levels=levels,
            fixed=frozenset(own),
            unit=1 if kind == BITS else 100,
        )

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return int(self.sizes.sum())

    def _of_items(self, values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros((len(self.keys), values.shape[1]), values.dtype)
        np.add.at(out, self.item_of, values)
        return out

    def _bounds(self) -> tuple[int, int]:
        """The least and the most that all tensors can cost."""
        able = np.isfinite(self._of_items(self.allowed))
        costs = self._of_items(self.costs)
        top = int(costs.max()) + 1
        least = np.where(able, costs, top).min(axis=1)
        return int(least.sum()), int(np.where(able, costs, 0).max(axis=1).sum())

    @property
    def least(self) -> float:
        """The least mean."""
        return self.unit * self._bounds()[0] / self.weights

    @property
    def most(self) -> float:
        """The largest mean that costs something."""
        return self.unit * self._bounds()[1] / self.weights

    def solve(self, mean: float) -> Allocation:
        """The best levels of all items at this mean."""
        budget = math.floor(Fraction(repr(float(mean))) * self.weights / self.unit)
        return multiple_choice_knapsack(
            self._of_items(self.allowed), budget=max(budget, self._bounds()[0]), levels=self._of_items(self.costs)
        )

    def best(self, mean: float) -> float:
        """The least error at this mean."""
        return float(self.solve(mean).value)

    def columns(self, allocation: Allocation) -> list[int]:
        """The column of each tensor."""
        chosen_columns = np.asarray(allocation.info["level"])
        return [int(column) for column in chosen_columns[self.item_of]]

    def mean(self, columns: Sequence[int], *, scales: bool) -> float:
        """The mean that these columns come to."""
        rows = np.arange(len(columns))
        costs = self.with_scales if scales else self.plain
        return self.unit * int(costs[rows, list(columns)].sum()) / self.weights

    def other_error(self, columns: Sequence[int]) -> float:
        """The error of the other kind of numbers at these columns."""
        return math.fsum(self.other[np.arange(len(columns)), list(columns)].tolist())

    def uniform(self, mean: float) -> float:
        """The error of one level for all that may have it, at this mean; between two levels a share of tensors each."""
        costs, errors = [], []
        for column in range(len(self.levels)):
            own = np.full(len(self.sizes), column)
            for position in self.fixed:
                own[position] = int(np.flatnonzero(np.isfinite(self.allowed[position]))[0])
            rows = np.arange(len(own))
            costs.append(self.unit * int(self.costs[rows, own].sum()) / self.weights)
            errors.append(math.fsum(self.errors[rows, own].tolist()))
        return float(np.interp(mean, costs, errors))

    def frontier(self, kind: str) -> tuple[tuple[float, float, float], ...]:
        """(mean, least error, uniform error) over all means that are possible."""
        means = np.linspace(self.least, self.most, _POINTS)
        return tuple((_as_asked(float(mean), kind), self.best(float(mean)), self.uniform(float(mean))) for mean in means)


def _solved(table: Table, asked: float, kind: str) -> Solution:
    mean = asked if kind == BITS else float(100 - Fraction(repr(asked)) * 100)
    least, most = table.least, table.most
    slack = 1e-9 * max(1.0, most)
    if not least - slack <= mean <= most + slack:
        ends = sorted((_as_asked(least, kind), _as_asked(most, kind)))
        fixed = f", with {len(table.fixed)} tensors fixed" if table.fixed else ""
        raise InfeasibleError(
            f"{kind}={asked:g}: the tensors that take part can have a mean from {ends[0]:.6g} to {ends[1]:.6g}{fixed}; "
            "ask for one of these"
        )
    allocation = table.solve(mean)
    columns = table.columns(allocation)
    return Solution(mean, columns, float(allocation.value), allocation)


def _as_asked(mean: float, kind: str) -> float:
    """A mean as the caller writes it: bits, or the share of weights left out."""
    return mean if kind == BITS else 1 - mean / 100


def _joined(weights: Sequence[Weight], members: Sequence[int]) -> str:
    return f"{weights[members[0]].name} and {len(members) - 1} more"


def _refuse_clash(weights: Sequence[Weight], members: Sequence[int], own: Mapping[int, int]) -> None:
    """Refuse tied tensors that are fixed to several levels; those not fixed follow the others."""
    levels = {own[i]: i for i in members if i in own}
    if len(levels) > 1:
        (a, i), (b, j) = list(levels.items())[:2]
        raise InputError(
            f"{weights[i].name!r} is fixed to {a} and {weights[j].name!r}, tied to it, to {b}; give both the same"
        )


def _own_levels(weights: Sequence[Weight], fixes: Mapping[str, Any]) -> dict[int, int]:
    able = {name: level for name, level in fixes.items() if level != KEEP}
    names = [weight.name for weight in weights]
    levels = fixed_levels(names, able) if able else {}
    return {i: levels[name] for i, name in enumerate(names) if name in levels}


def _asked(bits: Any, sparsity: Any) -> tuple[str, float]:
    if (bits is None) == (sparsity is None):
        given = "neither" if bits is None else "both"
        raise InputError(f"give bits (a mean such as 3.0) or sparsity (a share such as 0.7), not {given}")
    if bits is not None:
        return BITS, float(checks.number(bits, "bits"))
    return SPARSITY, checks.fraction(sparsity, "sparsity")


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    if isinstance(widths, str) or not isinstance(widths, Sequence | np.ndarray | range) or not len(widths):
        raise InputError(f"widths={shown(widths)}: give whole numbers from 2 to 8, such as [2, 3, 4, 8]")
    for width in widths:
        if not checks.is_number(width) or width not in WIDTHS:
            raise InputError(f"widths={shown(width)}: a width is a whole number from 2 to 8")
    return tuple(sorted({int(width) for width in widths}))


def _fixes(fix: Mapping[str, Any] | None, kind: str) -> dict[str, Any]:
    allowed = WIDTHS if kind == BITS else KEPT
    fixes: dict[str, Any] = {}
    for pattern, level in (fix or {}).items():
        if level != KEEP and (not checks.is_number(level) or level not in allowed):
            wanted = "a width from 2 to 8" if kind == BITS else "the percent that is left, 5, 10, .. or 100"
            raise InputError(f"fix={{{pattern!r}: {shown(level)}}}: give {wanted}, or 'keep'")
        fixes[pattern] = level if level == KEEP else int(level)
    return fixes


def _patterns(given: Any) -> list[str]:
    if given is None:
        return []
    return [given] if isinstance(given, str) else list(given)
