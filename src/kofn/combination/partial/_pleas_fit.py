"""Choose the units of two chains to merge, and fit the merged layers by least squares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kofn.combination.partial._linear_chain import Linear, activated, chain_features
from kofn.core.arrays import Array


@dataclass(frozen=True)
class Split:
    """A layer's units: pairs (unit of the first, unit of the second), of which the first `merged` become one each."""

    pairs: NDArray[np.int64]
    merged: int

    @property
    def together(self) -> NDArray[np.int64]:
        return self.pairs[:, : self.merged]

    @property
    def apart(self) -> NDArray[np.int64]:
        return self.pairs[:, self.merged :]

    @property
    def width(self) -> int:
        return int(2 * self.pairs.shape[1] - self.merged)

    def blocks(self) -> tuple[slice, slice, slice]:
        """Slices of the merged units, the first network's and the second network's."""
        alone = self.pairs.shape[1] - self.merged
        return (
            slice(0, self.merged),
            slice(self.merged, self.merged + alone),
            slice(self.merged + alone, self.merged + 2 * alone),
        )


def count_weights(widths: Sequence[int], apart: Sequence[int], biases: Sequence[bool]) -> int:
    """Number of structurally non-zero weights: separate units do not read the other network's separate units.

    `widths` are one network's layer widths, input to output; `apart` the number of separate pairs at each.
    """
    total = 0
    for i in range(len(widths) - 1):
        low, high, s, t = widths[i], widths[i + 1], apart[i], apart[i + 1]
        total += (low + s) * (high + t) - 2 * s * t + (high + t) * biases[i]
    return total


def spend(gaps: Sequence[Array], widths: Sequence[int], biases: Sequence[bool], limit: int) -> list[int]:
    """Number of separate pairs of each hidden layer: greedily by gap per weight, up to `limit` weights.

    `gaps` are the costs of merging each pair, in decreasing order.
    """
    apart = [0] * len(widths)
    now = count_weights(widths, apart, biases)
    open_layers = set(range(len(gaps)))
    while open_layers:
        best: tuple[float, int, int] | None = None
        for layer in sorted(open_layers):
            kept = apart[layer + 1]
            if kept == len(gaps[layer]):
                open_layers.discard(layer)
                continue
            apart[layer + 1] += 1
            cost = count_weights(widths, apart, biases) - now
            apart[layer + 1] -= 1
            if now + cost > limit:
                open_layers.discard(layer)
                continue
            rate = float(gaps[layer][kept]) / cost
            if best is None or rate > best[0]:
                best = (rate, layer, cost)
        if best is not None:
            apart[best[1] + 1] += 1
            now += best[2]
    return apart


def spend_evenly(widths: Sequence[int], biases: Sequence[bool], limit: int) -> list[int]:
    """Keep the same share of every hidden layer separate, as large as the limit allows."""

    def shared(share: float) -> list[int]:
        return [0, *(math.floor(share * width + 1e-9) for width in widths[1:-1]), 0]

    # The count is a step function of the share, with one step per unit.
    steps = sorted({t / width for width in widths[1:-1] for t in range(width + 1)})
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if count_weights(widths, shared(steps[middle]), biases) <= limit else (low, middle - 1)
        )
    return shared(steps[low])


@dataclass(frozen=True)
class Fit:
    """The merged layers, and each one's relative squared error against its target, before and after."""

    tensors: dict[str, Array]
    before: list[float]
    after: list[float]


def least_squares(
    members: Sequence[Mapping[str, Array]],
    chain: Sequence[Linear],
    splits: Mapping[str, Split],
    inputs: Array,
    activation: str,
    ridge: float,
    features: str,
) -> Fit:
    """Fit each layer of the merged network: the permuted average, corrected towards the members' activations."""
    features_of = [chain_features(member, chain, inputs, activation) for member in members]
    out: dict[str, Array] = {}
    before, after = [], []
    before_split: Split | None = None
    now = inputs
    for i, layer in enumerate(chain):
        after_split = splits[layer.group] if layer.group is not None else None
        weight, bias = _averaged(members, layer, before_split, after_split)
        targets = _joined([outputs[i] for _, outputs in features_of], after_split)
        takes = (
            _joined([layer_inputs[i] for layer_inputs, _ in features_of], before_split)
            if features == "members"
            else now
        )
        start = takes @ weight.T + bias
        scale = max(float(np.square(targets).sum()), 1e-300)
        before.append(float(np.square(targets - start).sum()) / scale)
        for rows, columns in _fitted(before_split, after_split, weight.shape):
            _correct(weight, bias, takes, targets - start, rows, columns, ridge, layer.bias is not None)
        ahead = takes @ weight.T + bias
        after.append(float(np.square(targets - ahead).sum()) / scale)
        now = activated(ahead if features == "members" else now @ weight.T + bias, activation)
        out[layer.weight] = weight
        if layer.bias is not None:
            out[layer.bias] = bias
        before_split = after_split
    return Fit(out, before, after)


def _averaged(
    members: Sequence[Mapping[str, Array]], layer: Linear, before_split: Split | None, after_split: Split | None
) -> tuple[Array, Array]:
    """Git Re-Basin's average where both sides are merged; separate units read their own, and are read by halves."""
    a, b = (np.asarray(member[layer.weight], np.float64) for member in members)
    zero = np.zeros(len(a))
    p, q = (np.asarray(member[layer.bias], np.float64) if layer.bias else zero for member in members)
    before_split = before_split or _shared(a.shape[1])
    after_split = after_split or _shared(a.shape[0])
    (im, i1, i2), (om, o1, o2) = before_split.blocks(), after_split.blocks()
    weight, bias = np.zeros((after_split.width, before_split.width)), np.zeros(after_split.width)
    (ma, mb), (sa, sb) = after_split.together, after_split.apart
    (na, nb), (ta, tb) = before_split.together, before_split.apart
    weight[om, im] = (a[np.ix_(ma, na)] + b[np.ix_(mb, nb)]) / 2
    weight[om, i1], weight[om, i2] = a[np.ix_(ma, ta)] / 2, b[np.ix_(mb, tb)] / 2
    weight[o1, im], weight[o1, i1] = a[np.ix_(sa, na)], a[np.ix_(sa, ta)]
    weight[o2, im], weight[o2, i2] = b[np.ix_(sb, nb)], b[np.ix_(sb, tb)]
    bias[om], bias[o1], bias[o2] = (p[ma] + q[mb]) / 2, p[sa], q[sb]
    return weight, bias


def _shared(width: int) -> Split:
    """The split at the input and the output, whose units correspond one to one."""
    return Split(np.tile(np.arange(width), (2, 1)), width)


def _joined(both: Sequence[Array], split: Split | None) -> Array:
    """Target activations of the merged layer: averages of merged units, then each network's separate units."""
    a, b = both
    if split is None:
        return (a + b) / 2
    (ma, mb), (sa, sb) = split.together, split.apart
    return np.hstack([(a[:, ma] + b[:, mb]) / 2, a[:, sa], b[:, sb]])


def _fitted(
    before_split: Split | None, after_split: Split | None, shape: tuple[int, ...]
) -> list[tuple[slice, NDArray[np.int64]]]:
    """Blocks of outputs with the inputs they may read; blocks that the average fits exactly are left out."""
    if before_split is None:
        return []
    columns = np.arange(shape[1])
    im, i1, i2 = before_split.blocks()
    om, o1, o2 = after_split.blocks() if after_split is not None else (slice(0, shape[0]), slice(0, 0), slice(0, 0))
    out = []
    if before_split.merged:
        out += [(o1, np.concatenate([columns[im], columns[i1]])), (o2, np.concatenate([columns[im], columns[i2]]))]
        out.append((om, columns))
    return [(rows, reads) for rows, reads in out if rows.stop > rows.start]


def _correct(
    weight: Array,
    bias: Array,
    takes: Array,
    errors: Array,
    rows: slice,
    columns: NDArray[np.int64],
    ridge: float,
    biased: bool,
) -> None:
    """The ridge regression of the outputs' errors on the inputs; `ridge` is relative to the inputs' mean square."""
    from scipy.linalg import solve

    Z = takes[:, columns]
    if biased:
        Z = np.hstack([Z, np.ones((len(Z), 1))])
    gram = Z.T @ Z
    scale = float(np.trace(gram)) / len(gram)
    gram[np.diag_indices_from(gram)] += max(ridge, 1e-10) * scale + 1e-300
    change = solve(gram, Z.T @ errors[:, rows], assume_a="pos").T
    weight[rows, columns] += change[:, : len(columns)]
    if biased:
        bias[rows] += change[:, -1]
