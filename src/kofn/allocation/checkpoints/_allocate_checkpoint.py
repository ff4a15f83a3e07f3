"""Share a mean number of bits, or of weights left, over the tensors of a checkpoint."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from kofn.allocation.checkpoints._measure import pruning_curves, rounding_curves
from kofn.allocation.checkpoints._plan import BITS, SPARSITY, CheckpointPlan, TensorLevel
from kofn.allocation.checkpoints._statistics import CURVATURE, NONE, Statistics
from kofn.allocation.checkpoints._table import Table, as_asked, levels_of
from kofn.allocation.checkpoints._weights import (
    KEEP,
    Weight,
    able,
    chosen,
    fingerprint,
    fixed_levels,
    open_model,
    tied_items,
)
from kofn.core import checks
from kofn.core.checks import InfeasibleError, InputError, shown
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["allocate_checkpoint"]

WIDTHS = tuple(range(2, 9))
KEPT = tuple(range(5, 101, 5))
CRITERIA = ("squared", "relative")


@helper
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
        widths: the widths that tensors may have, of 2 to 8; a width of `fix` may be another.
        group_size: weights that share a scale, along the inputs of an output; -1 for all of them. A tensor whose inputs
            are no multiple of it has a scale for each output.
        symmetric: numbers about zero, without a zero point; by default from the least to the largest weight of a group.
        statistics: what the model's inputs say of errors, by module or tensor, in memory or as a .safetensors or .npz
            file: the mean squares of inputs (width,) or their mean products (width, width), such as
            `kofn.nn.activation_gram` gives; a curvature in the tensor's own shape, such as `kofn.nn.diagonal_fisher`
            gives; or one number, what an error costs relative to the tensor's size, such as
            `kofn.nn.noise_sensitivity` gives. Without them errors are those of the weights. Of these only the last
            has been seen to do better than one width for all: `python -m benchmarks quantise`.
        criterion: "squared" adds up squared errors, "relative" each over the tensor's own sum of squares (weighted
            alike); default "squared" without statistics and with a curvature, "relative" with others.
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
        ({'a.weight': 3, 'b.weight': 5}, True)
    """
    kind, asked = _asked(bits, sparsity)
    offered = _widths(widths) if kind == BITS else KEPT
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
    own_levels = _own_levels(weights, fixes)
    curves = measure(weights, known, levels_of(offered, own_levels), n_threads, progress)
    table = Table.of(weights, curves, unit, offered, items, own_levels, kind, symmetric, count_scales)
    kept = [name for name in able(checkpoint) if name not in table.names]
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
        levels=tuple(table.levels),
        tensors=tensors,
        kept=tuple(kept),
        group_size=size,
        symmetric=symmetric,
        statistic=label,
        criterion=unit,
        asked=asked,
        mean=as_asked(table.mean(solution.columns, scales=False), kind),
        mean_with_scales=as_asked(table.mean(solution.columns, scales=kind == BITS), kind),
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
    return "squared" if statistic in (NONE, CURVATURE) else "relative"


@dataclass(frozen=True)
class Solution:
    """The chosen column of each tensor, and the mean that was asked for in the table's unit."""

    asked: float
    columns: list[int]
    error: float
    allocation: Allocation


def _solved(table: Table, asked: float, kind: str) -> Solution:
    mean = asked if kind == BITS else float(100 - Fraction(repr(asked)) * 100)
    least, most = table.least, table.most
    slack = 1e-9 * max(1.0, most)
    if not least - slack <= mean <= most + slack:
        ends = sorted((as_asked(least, kind), as_asked(most, kind)))
        fixed = f", with {len(table.fixed)} tensors fixed" if table.fixed else ""
        raise InfeasibleError(
            f"{kind}={asked:g}: the tensors that take part can have a mean from {ends[0]:.6g} to {ends[1]:.6g}{fixed}; "
            "ask for one of these"
        )
    allocation = table.solve(mean)
    columns = table.columns(allocation)
    return Solution(mean, columns, float(allocation.value), allocation)


def _own_levels(weights: Sequence[Weight], fixes: Mapping[str, Any]) -> dict[int, int]:
    own = {pattern: level for pattern, level in fixes.items() if level != KEEP}
    names = [weight.name for weight in weights]
    levels = fixed_levels(names, own) if own else {}
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
