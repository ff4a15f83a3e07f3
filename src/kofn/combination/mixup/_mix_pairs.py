"""Mixup as five stages: pairs, ratios, inputs, labels and weights of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.mixup._boxes import draw_boxes, inside
from kofn.combination.mixup._pairs import Rows, draw_pairs, draw_ratios, read_ratio
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["Mixed", "mix_pairs", "mixup_loss"]

INPUTS = ("blend", "cut", "first", "resample")
LABELS = ("mixed", "first", "larger")


@dataclass(frozen=True)
class Mixed:
    """Rows mixed in m pairs, with their labels: what `mix_pairs` returns.

    Attributes:
        X: (m, ...) the mixed rows.
        labels: (m, classes) label masses, which sum to 1 in each row.
        weights: (m,) weight of each row in the loss.
        first: (m,) first row of each pair.
        second: (m,) second row of each pair.
        ratios: (m,) share of the first row in each mixed row; of cut images the exact share of its pixels.
        classes: (classes,) the classes, in the order of the columns of `labels`.
        inputs: how rows were mixed.
        boxes: (m, 4) of cut images, the part that is the second's: top, bottom, left, right, half open.
    """

    X: Any
    labels: Any
    weights: Any
    first: Ints
    second: Ints
    ratios: Floats
    classes: Array
    inputs: str
    boxes: Ints | None = None

    def mix(self, values: Any) -> Array:
        """Mix another array of the same n rows by the same pairs and ratios.

        Args:
            values: (n, ...), such as masks, second views, or targets of a regression.

        Raises:
            InputError: other than n rows, a value that is not finite, cut rows that are no images.
        """
        array = _rows_of(values, "values")
        size = 1 + int(max(self.first.max(initial=-1), self.second.max(initial=-1)))
        if len(array) < size:
            raise InputError(f"values have {len(array)} rows, and row {size - 1} was mixed; give all rows")
        if self.inputs == "cut":
            _image(array, "values")
        return _mixed(array, self)


@helper
def mix_pairs(
    X: Any,
    y: Any,
    *,
    pairs: Any = "random",
    ratio: Any = ("beta", 1.0),
    inputs: str = "blend",
    labels: str = "mixed",
    class_weights: Any = None,
    groups: Any = None,
    classes: Any = None,
    draws: int | None = None,
    seed: int | None = None,
) -> Mixed:
    """Mix the rows of a data set in pairs: mixup, CutMix, selective and manifold mixup, by the stages of one mixer.

    Mixup is the default; CutMix is inputs="cut"; selective mixup is pairs="cross_class" or "same_class_cross_group";
    SelMix is pairs=`pair_chances(mixup_gains(...))` with labels="first"; resampling alone, which selective mixup does
    beside the mixing, is inputs="resample"; label-only mixing is inputs="first". Manifold mixup is the same call on
    hidden features.

    Args:
        X: (n, ...) rows: features, or with inputs="cut" images, whose last two axes are height and width.
        y: (n,) class of each row.
        pairs: the second of each pair is drawn with equal chances among all rows ("random"), those of the same class
            ("same_class"), of other classes ("cross_class"), of the same group ("same_group"), of other groups
            ("cross_group"), or of the same class in other groups ("same_class_cross_group"), itself included where
            that fits. Or (classes, classes) chances with which a pair's classes are drawn, as of `pair_chances`; both
            rows are then drawn with equal chances within their classes.
        ratio: share of the first row: a number, ("beta", alpha), ("beta", a, b) or ("uniform", low, high), drawn for
            each pair.
        inputs: "blend" interpolates rows; "cut" pastes a box of the second image into the first, and the ratio is the
            share of pixels that the first keeps; "first" leaves the first row as it is, so that labels alone are mixed;
            "resample" takes the first row with the ratio as its chance and the second otherwise, unmixed.
        labels: "mixed" by the ratio; "first", that of the first row alone; "larger", that of the row with the larger
            share (the first where they are equal).
        class_weights: (classes,) weight of each class in the loss; a row's weight is the mean over its label.
        groups: (n,) group (domain) of each row, for pairs within or across groups.
        classes: all classes in the order of the labels' columns, or their number for y in 0..classes-1; by default
            those that y has, sorted. Give them where y is a batch that may lack one.
        draws: number of pairs; by default n, in which every row is the first of one pair (unless pairs are chances).
        seed: of all draws.

    Returns:
        A `Mixed`: rows, labels, weights, and the pairs, ratios and boxes they came from. Rows keep their dtype; whole
        numbers that are blended become float64.

    Raises:
        InputError: lengths that differ, a value that is not finite, an unknown stage, a row without a partner, chances
            that do not sum to 1 or fall on a class without rows, a label that is no class, images without height and
            width, weights below 0.

    Cost: O(draws x size of a row), and cells^2 for pairs, cells being the classes, or pairs of class and group, that
    occur.

    Exact: labels sum to 1 up to rounding, and cut labels are exact shares of pixels; `pair_marginal` says which classes
    to expect.

    References:
        Zhang et al. 2018, mixup (ICLR); Yun et al. 2019, CutMix (ICCV); Teney et al. 2024, Selective mixup (ICML);
        Jin et al. 2024, A survey on mixup augmentations and beyond (arXiv 2409.05202).

    Examples:
        >>> from kofn.combination import mix_pairs
        >>> mixed = mix_pairs([[0.0], [8.0]], ["a", "b"], pairs="cross_class", ratio=0.75)
        >>> mixed.X.tolist(), mixed.labels.tolist()
        ([[2.0], [6.0]], [[0.75, 0.25], [0.25, 0.75]])
    """
    array = _rows_of(X, "X")
    checks.choice(inputs, "inputs", INPUTS)
    shape = _image(array, "X") if inputs == "cut" else None
    drawn = draw_mixing(
        y,
        len(array),
        shape,
        pairs=pairs,
        ratio=ratio,
        inputs=inputs,
        labels=labels,
        class_weights=class_weights,
        groups=groups,
        classes=classes,
        draws=draws,
        seed=seed,
    )
    return Mixed(**(vars(drawn) | {"X": _mixed(array, drawn)}))


@helper
def mixup_loss(logits: Any, labels: Any, weights: Any = None) -> float:
    """Cross-entropy of logits against mixed labels, the weighted mean over rows.

    Args:
        logits: (m, classes) of a model for the mixed rows.
        labels: (m, classes) label masses, `Mixed.labels`.
        weights: (m,) weights of rows, `Mixed.weights`; equal by default.

    Returns:
        The sum of the weighted losses over the sum of the weights. For a pair it is the ratio's mean of the losses
        against both labels.

    Raises:
        InputError: shapes that differ, a value that is not finite, weights below 0 or without a sum.

    Cost: O(m classes).

    References:
        Zhang et al. 2018, mixup (ICLR).

    Examples:
        >>> from kofn.combination import mixup_loss
        >>> round(mixup_loss([[0.0, 0.0]], [[0.7, 0.3]]), 6)  # log 2
        0.693147
    """
    odds, masses = checks.matrix(logits, "logits").astype(np.float64), checks.matrix(labels, "labels")
    if odds.shape != masses.shape:
        raise InputError(f"logits are {odds.shape} and labels {masses.shape}; give one column a class to both")
    shares = np.ones(len(odds)) if weights is None else checks.weights(weights, "weights").astype(np.float64)
    checks.same_length(len(odds), "logits", "weights", len(shares))
    below = odds - odds.max(axis=1, keepdims=True)
    losses = -(masses * (below - np.log(np.exp(below).sum(axis=1, keepdims=True)))).sum(axis=1)
    return float(losses @ shares / shares.sum())


def draw_mixing(
    y: Any,
    n: int,
    shape: tuple[int, int] | None,
    *,
    pairs: Any,
    ratio: Any,
    inputs: str,
    labels: str,
    class_weights: Any,
    groups: Any,
    classes: Any,
    draws: int | None,
    seed: int | None,
) -> Mixed:
    """All stages but the inputs' own, for n rows or images of a shape: `X` of the result is None.

    Raises:
        InputError: see `mix_pairs`.
    """
    checks.choice(labels, "labels", LABELS)
    law = read_ratio(ratio)
    rows = Rows.of(y, groups, classes)
    checks.same_length(n, "X", "y", len(rows))
    count = None if draws is None else checks.count(draws, "draws")
    rng = np.random.default_rng(checks.entropy(seed))
    first, second = draw_pairs(rows, pairs, count, rng)
    ratios, boxes = draw_ratios(law, len(first), rng), None
    if inputs == "cut" and shape is not None:
        boxes, ratios = draw_boxes(ratios, shape, rng)
    elif inputs == "resample":
        ratios = (rng.random(len(ratios)) < ratios).astype(np.float64)
    k = len(rows.classes)
    masses = _masses(rows.codes[first], rows.codes[second], ratios, labels, k)
    weights = np.ones(len(first))
    if class_weights is not None:
        shares = checks.weights(class_weights, "class_weights").astype(np.float64)
        checks.same_length(k, "classes", "class_weights", len(shares))
        weights = masses @ shares
    return Mixed(None, masses, weights, first, second, ratios, rows.classes, inputs, boxes)


def _masses(first: Ints, second: Ints, ratios: Floats, labels: str, k: int) -> Floats:
    share = {"mixed": ratios, "first": np.ones(len(ratios)), "larger": (ratios >= 0.5).astype(np.float64)}[labels]
    out = np.zeros((len(first), k))
    index = np.arange(len(first))
    out[index, first] = share
    out[index, second] += 1 - share
    return out


def _mixed(array: Array, drawn: Mixed) -> Array:
    """The rows of an array mixed as drawn. A row mixed with itself, or with a ratio of 0 or 1, is exactly a row."""
    if drawn.inputs == "first":
        return array[drawn.first]
    if drawn.inputs == "resample":
        return array[np.where(drawn.ratios == 1, drawn.first, drawn.second)]
    if drawn.boxes is not None:
        height, width = array.shape[-2:]
        mask = inside(drawn.boxes, (height, width))
        mask = mask.reshape(len(mask), *(1,) * (array.ndim - 3), height, width)
        return np.where(mask, array[drawn.second], array[drawn.first])
    a, b = (
        array[rows] if array.dtype.kind == "f" else array[rows].astype(np.float64)
        for rows in (drawn.first, drawn.second)
    )
    share = drawn.ratios.astype(a.dtype).reshape(-1, *(1,) * (a.ndim - 1))
    out: Array = np.where(share < 0.5, b + share * (a - b), a - (a - b) * (1 - share))
    return out


def _rows_of(value: Any, name: str) -> Array:
    """An array of rows of finite numbers."""
    array = checks.as_array(value, name)
    if array.dtype.kind not in "fiub":
        array = checks.as_float(array, name)
    if not array.ndim or not len(array):
        raise InputError(f"{name} has shape {array.shape}; give (n, ...) with at least one row")
    if array.dtype.kind == "f":
        checks.refuse_nonfinite(array, name)
    return array


def _image(array: Array, name: str) -> tuple[int, int]:
    if array.ndim < 3 or 0 in array.shape:
        raise InputError(f"inputs='cut': {name} has shape {array.shape}; give images, (n, ..., height, width)")
    height, width = array.shape[-2:]
    return int(height), int(width)
