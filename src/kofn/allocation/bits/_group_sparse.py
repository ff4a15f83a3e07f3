"""Bits for the groups of a layer's weights that matter, none for the others: pruned and rounded as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["GroupSparse", "group_sparse"]

# A scale is stored in half precision, a place of "2:4" in two bits.
_SCALE_BITS, _PLACE_BITS = 16, 2


@dataclass(frozen=True, eq=False)
class GroupSparse:
    """A layer whose weights are pruned and rounded.

    Attributes:
        weight: (out, in) as they are read back.
        kept: (out, in) which weights are stored.
        stored_bits: of weights, scales, zero points and the places of what is kept.
        loss: mean square of what changes in the layer's outputs, summed over outputs; by `gram`.
        group: weights that share a scale.
    """

    weight: Floats
    kept: Mask
    stored_bits: int
    loss: float
    group: int

    @property
    def counts(self) -> Ints:
        """(out,) groups of each row that are stored."""
        groups = self.kept.reshape(len(self.kept), -1, self.group)
        return np.count_nonzero(groups.any(axis=2), axis=1)

    def loads(self, workers: int, *, by: Literal["tasks", "rows"] = "tasks") -> Ints:
        """(workers,) groups that each multiplies: equal shares of what is stored, or as many rows for each.

        Examples:
            >>> import numpy as np
            >>> from kofn.allocation import group_sparse
            >>> weight = np.diag([9.0, 8.0, 1.0, 1.0]) + np.eye(4)[[0, 0, 2, 3]]
            >>> layer = group_sparse(weight, group=2, keep=0.5)
            >>> layer.loads(2).tolist(), layer.loads(2, by="rows").tolist()
            ([2, 2], [2, 2])
        """
        checks.count(workers, "workers")
        if checks.choice(by, "by", ("tasks", "rows")) == "tasks":
            total = int(self.counts.sum())
            return np.diff(np.arange(workers + 1) * total // workers)
        return np.array([int(part.sum()) for part in np.array_split(self.counts, workers)])


@helper
def group_sparse(
    weight: ArrayLike,
    gram: ArrayLike | None = None,
    *,
    bits: int = 4,
    group: int = 16,
    keep: float = 0.5,
    pattern: Literal["groups", "2:4", "dense"] = "groups",
    kept: ArrayLike | None = None,
    damp: float = 0.01,
) -> GroupSparse:
    """Keep the groups of weights that the layer's outputs depend on most, and round those; the others get no bits.

    A weight's saliency is w^2 / [H^-1]_jj^2, a group's their mean. What is kept is fitted to the outputs again, and
    then rounded column by column, each column's error taken up by the ones after it.

    Args:
        weight: (out, in).
        gram: (in, in) mean of x x' over the layer's inputs, such as a calibration set gives; default the identity.
        bits: of each kept weight, 1 to 16.
        group: neighbours in a row that share scale and zero point, and are kept or pruned together.
        keep: share of the groups that are kept, over the whole layer.
        pattern: "groups"; "2:4" keeps two of each four neighbours, whatever `keep` is; "dense" keeps all.
        kept: (out, in / group) groups to keep, in place of the most salient.
        damp: added to the diagonal of `gram`, as a share of its mean.

    Returns:
        A `GroupSparse`: `weight` as it is read back, `kept`, `stored_bits`, `loss`, `counts` of each row, and `loads`
        of workers.

    Raises:
        InputError: the inputs are not a multiple of `group` (or of 4), a gram that is not symmetric with a diagonal
            >= 0, shapes that do not fit.

    Cost: O(out in^3) time at most, as each row is fitted on its own kept weights; O(in^2) memory beside the layer.

    Guarantee: none on the loss; `stored_bits` are counted exactly, as are `loss` and `kept`.

    References:
        Zeng et al. 2024, "GQSA: Group Quantization and Sparsity for Accelerating Large Language Model Inference"
        (saliency, groups, format; there training takes the place of the fit). Frantar et al. 2023 (GPTQ: rounding).

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import group_sparse
        >>> weight = np.array([[4.0, 2.0, 0.1, 0.0], [0.0, 0.2, 3.0, 1.0]])
        >>> layer = group_sparse(weight, group=2, keep=0.5)
        >>> layer.kept.astype(int).tolist(), layer.stored_bits
        ([[1, 1, 0, 0], [0, 0, 1, 1]], 62)
        >>> bool(abs(layer.weight - weight).max() <= 0.2)
        True
    """
    table = checks.matrix(weight, "weight").astype(np.float64)
    width = table.shape[1]
    checks.count(bits, "bits")
    if bits > _SCALE_BITS:
        raise InputError(f"bits={bits}: give a whole number from 1 to {_SCALE_BITS}")
    checks.count(group, "group")
    checks.fraction(keep, "keep")
    checks.fraction(damp, "damp", high=1e6)
    checks.choice(pattern, "pattern", ("groups", "2:4", "dense"))
    if width % group or (pattern == "2:4" and width % 4):
        step = math.lcm(group, 4) if pattern == "2:4" else group
        raise InputError(f"weight has {width} inputs, no multiple of {step}; give another group, or pad with zeros")
    moments = _gram(gram, width)
    damped = moments + np.eye(width) * max(damp * float(np.trace(moments)) / width, np.finfo(np.float64).tiny)
    try:
        spread = np.diag(np.linalg.inv(damped))
        mask = _mask(table, spread, group, keep, pattern, kept)
        rounded = _coded(table, damped, mask, bits, group)
    except np.linalg.LinAlgError:
        raise InputError(f"gram is singular with damp={damp:g}; give a larger damp") from None
    off = table - rounded
    return GroupSparse(
        weight=rounded,
        kept=mask,
        stored_bits=_stored(mask, bits, group, pattern),
        loss=float(np.einsum("ij,jk,ik->", off, moments, off)),
        group=group,
    )


def _gram(gram: Any, width: int) -> Floats:
    if gram is None:
        return np.eye(width)
    moments = checks.matrix(gram, "gram").astype(np.float64)
    if moments.shape != (width, width):
        raise InputError(f"gram has shape {moments.shape}; weight has {width} inputs, which ask for {(width, width)}")
    if not np.allclose(moments, moments.T, rtol=1e-4, atol=1e-6 * float(np.abs(moments).max())):
        raise InputError("gram is not symmetric; give the mean of x x' over the layer's inputs")
    if np.diag(moments).min() < 0:
        row = int(np.diag(moments).argmin())
        raise InputError(f"gram at ({row}, {row}) is {moments[row, row]:g}; a mean square is never below 0")
    return (moments + moments.T) / 2


def _mask(table: Floats, spread: Floats, group: int, keep: float, pattern: str, kept: Any) -> Mask:
    """(out, in) which weights are kept."""
    out, width = table.shape
    saliency = (table / spread) ** 2
    if kept is not None:
        if pattern != "groups":
            raise InputError(f"kept with pattern={pattern!r}: kept is about groups; leave one of them out")
        given = checks.matrix(kept, "kept")
        if given.shape != (out, width // group):
            raise InputError(f"kept has shape {given.shape}; give one entry a group, {(out, width // group)}")
        return np.repeat(given != 0, group, axis=1)
    if pattern == "dense":
        return np.ones((out, width), bool)
    if pattern == "2:4":
        of_four = saliency.reshape(out, -1, 4)
        places = np.argsort(-of_four, axis=2, kind="stable")
        chosen = np.zeros(of_four.shape, bool)
        np.put_along_axis(chosen, places[:, :, :2], values=True, axis=2)
        return chosen.reshape(out, width)
    means = saliency.reshape(out, -1, group).mean(axis=2).ravel()
    chosen = np.zeros(len(means), bool)
    chosen[np.argsort(-means, kind="stable")[: round(keep * len(means))]] = True
    return np.repeat(chosen.reshape(out, -1), group, axis=1)


def _coded(table: Floats, damped: Floats, mask: Mask, bits: int, group: int) -> Floats:
    """All rows, those that keep the same weights at once: fitted to the outputs on them, and rounded in turn."""
    out, wanted = np.zeros_like(table), table @ damped
    patterns, index = np.unique(mask, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows, places = np.flatnonzero(index.ravel() == number), np.flatnonzero(pattern)
        if len(places):
            inverse = np.linalg.inv(damped[np.ix_(places, places)])
            factor = np.linalg.cholesky((inverse + inverse.T) / 2).T
            out[np.ix_(rows, places)] = _rounded(wanted[np.ix_(rows, places)] @ inverse, factor, places // group, bits)
    return out


def _rounded(fitted: Floats, factor: Floats, of_group: Ints, bits: int) -> Floats:
    """Columns rounded in turn; what each is off goes to those after it."""
    left, out = fitted.copy(), np.empty_like(fitted)
    most, begun = 2**bits - 1, -1
    step = zero = np.zeros(len(fitted))
    for column, number in enumerate(of_group.tolist()):
        if number != begun:
            begun, own = number, left[:, of_group == number]
            # Zero has a code, which the zero point is.
            low, high = np.minimum(own.min(axis=1), 0.0), np.maximum(own.max(axis=1), 0.0)
            step = np.maximum((high - low) / most, np.finfo(np.float64).tiny)
            zero = np.round(-low / step)
        out[:, column] = (np.clip(np.round(left[:, column] / step) + zero, 0, most) - zero) * step
        error = (left[:, column] - out[:, column]) / factor[column, column]
        left[:, column + 1 :] -= np.outer(error, factor[column, column + 1 :])
    return out


def _stored(mask: Mask, bits: int, group: int, pattern: str) -> int:
    """Bits of weights, scales, zero points, and of the places of what is kept."""
    out, width = mask.shape
    groups = width // group
    head = _SCALE_BITS + bits
    if pattern == "dense":
        return out * width * bits + out * groups * head
    if pattern == "2:4":
        return int(mask.sum()) * (bits + _PLACE_BITS) + out * groups * head
    kept = int(mask.reshape(out, groups, group).any(axis=2).sum())
    # Block-sparse rows: each kept group's column, and where each row begins.
    columns, offsets = math.ceil(math.log2(groups)) if groups > 1 else 0, math.ceil(math.log2(kept + 1))
    return kept * (group * bits + head + columns) + out * offsets
