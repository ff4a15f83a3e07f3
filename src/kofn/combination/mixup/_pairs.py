"""The first two stages of mixup: which rows are mixed, and in which ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.checks import InputError, shown
from kofn.core.helpers import helper

__all__ = ["pair_marginal"]

PAIRS = ("random", "same_class", "cross_class", "same_group", "cross_group", "same_class_cross_group")
LAWS = ("beta", "uniform")
_SUMS_TO = 1e-6


@helper
def pair_marginal(
    y: Any,
    *,
    pairs: Any = "random",
    groups: Any = None,
    classes: Any = None,
    ratio: Any = 0.5,
) -> Floats:
    """Share of each class in the labels that selected pairs have, in closed form.

    Selecting pairs resamples the data, whether rows are mixed or not: the second of a cross-class pair comes from
    class b with probability p_b sum over a != b of p_a / (1 - p_a). Of two classes both then have one half, whatever
    their shares were.

    Args:
        y: (n,) class of each row.
        pairs: as in `mix_pairs`.
        groups: (n,) group (domain) of each row.
        classes: as in `mix_pairs`.
        ratio: as in `mix_pairs`; its mean weighs the first of a pair against the second. 1 gives the shares among the
            first of all pairs, 0 those among the second.

    Returns:
        (classes,) expected shares, in the order of `classes`, which sum to 1. They are those of `mix_pairs` with
        labels="mixed" where inputs are not cut: boxes that end at a border keep more of the first.

    Raises:
        InputError: as in `mix_pairs`.

    Cost: O(n log n + cells^2), cells being the classes, or the pairs of a class and a group, that occur.

    Exact: up to rounding.

    References:
        Teney, Wang & Abbasnejad 2024, Selective mixup helps with distribution shifts, but not (only) because of mixup
        (ICML), section 3.

    Examples:
        >>> from kofn.combination import pair_marginal
        >>> y = ["cat"] * 9 + ["dog"]
        >>> pair_marginal(y).round(3).tolist(), pair_marginal(y, pairs="cross_class").round(3).tolist()
        ([0.9, 0.1], [0.5, 0.5])
    """
    rows = Rows.of(y, groups, classes)
    mean = mean_of(read_ratio(ratio))
    first, second = _by_classes(rows, pairs) if not isinstance(pairs, str) else _by_name(rows, pairs)
    out: Floats = mean * first + (1 - mean) * second
    return out


@dataclass(frozen=True)
class Rows:
    """The class of each row, and the cell (its class, or its class and group) that decides whom it may be paired with.

    `cells` numbers a row's cell; `cell_class` and `cell_group` say which class and group that is.
    """

    classes: Array
    codes: Ints
    cells: Ints
    cell_class: Ints
    cell_group: Ints | None

    @classmethod
    def of(cls, y: Any, groups: Any, classes: Any) -> Rows:
        """Read labels and groups.

        Raises:
            InputError: see `mix_pairs`.
        """
        labels = checks.labels(y, "y")
        names, codes = _numbered(labels, classes)
        if groups is None:
            kinds, cells = np.unique(codes, return_inverse=True)
            return cls(names, codes, cells.astype(np.int64), kinds, None)
        domains = checks.labels(groups, "groups")
        checks.same_length(len(labels), "y", "groups", len(domains))
        known, group_codes = np.unique(domains, return_inverse=True)
        kinds, cells = np.unique(codes * len(known) + group_codes, return_inverse=True)
        return cls(names, codes, cells.astype(np.int64), kinds // len(known), kinds % len(known))

    def __len__(self) -> int:
        return len(self.codes)

    def partners(self, pairs: str) -> Mask:
        """(cells, cells) True where a row of the first cell may be paired with one of the second.

        Raises:
            InputError: an unknown kind of pairs, groups that are missing, a row that has no partner.
        """
        checks.choice(pairs, "pairs", PAIRS)
        count = len(self.cell_class)
        same_class = self.cell_class[:, None] == self.cell_class
        if pairs == "random":
            return np.ones((count, count), bool)
        if pairs == "same_class":
            return same_class
        if pairs == "cross_class":
            allowed = ~same_class
        else:
            if self.cell_group is None:
                raise InputError(f"pairs={pairs!r} needs groups: (n,) the group (domain) of each row")
            same_group = self.cell_group[:, None] == self.cell_group
            if pairs == "same_group":
                return same_group
            allowed = ~same_group if pairs == "cross_group" else same_class & ~same_group
        lonely = ~allowed.any(axis=1)
        if lonely.any():
            row = int(lonely[self.cells].argmax())
            raise InputError(
                f"pairs={pairs!r}: row {row} of class {shown(self.classes[self.codes[row]].item())} has no partner; "
                "leave its rows out, or draw pairs='random'"
            )
        return allowed


def draw_pairs(rows: Rows, pairs: Any, count: int | None, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The first and the second row of each pair.

    Raises:
        InputError: see `mix_pairs`.
    """
    n = len(rows)
    if not isinstance(pairs, str):
        chances = read_chances(rows, pairs)
        drawn = rng.choice(chances.size, n if count is None else count, p=chances.ravel())
        left, right = np.divmod(drawn, len(rows.classes))
        return _within(rows, left, rng), _within(rows, right, rng)
    allowed = rows.partners(pairs)
    first = np.arange(n) if count is None else rng.integers(0, n, count)
    order = np.argsort(rows.cells, kind="stable")
    sizes = np.bincount(rows.cells, minlength=len(allowed))
    starts = np.cumsum(sizes) - sizes
    second = np.empty_like(first)
    by_cell = np.argsort(rows.cells[first], kind="stable")
    ends = np.cumsum(np.bincount(rows.cells[first], minlength=len(allowed)))
    for cell, (begin, end) in enumerate(zip(ends - np.diff(ends, prepend=0), ends, strict=True)):
        here = by_cell[begin:end]
        open_cells = np.flatnonzero(allowed[cell])
        totals = np.cumsum(sizes[open_cells])
        number = rng.integers(0, totals[-1], len(here))
        slot = np.searchsorted(totals, number, side="right")
        inside = number - (totals - sizes[open_cells])[slot]
        second[here] = order[starts[open_cells[slot]] + inside]
    return first, second


def read_chances(rows: Rows, pairs: Any) -> Floats:
    """The (classes, classes) chances of pairs of classes.

    Raises:
        InputError: see `mix_pairs`.
    """
    chances = checks.matrix(pairs, "pairs").astype(np.float64)
    k = len(rows.classes)
    if chances.shape != (k, k):
        raise InputError(f"pairs has shape {chances.shape}; there are {k} classes: give ({k}, {k}), or one of {PAIRS}")
    if (chances < 0).any() or abs(chances.sum() - 1) > _SUMS_TO:
        raise InputError(
            f"pairs sum to {chances.sum():.6g}, with {chances.min():.6g} the least; give chances >= 0 that sum to 1"
        )
    absent = np.bincount(rows.codes, minlength=k) == 0
    lost = absent & ((chances.sum(axis=0) > 0) | (chances.sum(axis=1) > 0))
    if lost.any():
        name = shown(rows.classes[int(lost.argmax())].item())
        raise InputError(f"pairs give class {name} a chance, and y has no row of it; give it none, or add rows")
    return chances / chances.sum()


def read_ratio(ratio: Any) -> tuple[str, float, float]:
    """The law of the ratio and its two numbers: constants are uniform between two equal ends.

    Raises:
        InputError: see `mix_pairs`.
    """
    if not isinstance(ratio, Sequence) or isinstance(ratio, str):
        share = checks.fraction(ratio, "ratio")
        return "uniform", share, share
    with checks.reading("ratio", ratio):
        known = len(ratio) > 0 and ratio[0] in LAWS and len(ratio) in ((2, 3) if ratio[0] == "beta" else (3,))
    if not known:
        raise InputError(
            f"ratio={shown(ratio)}: give a number between 0 and 1, ('beta', alpha), ('beta', a, b) or "
            "('uniform', low, high)"
        )
    if ratio[0] == "uniform":
        low = checks.fraction(ratio[1], "ratio's low end")
        return "uniform", low, checks.fraction(ratio[2], "ratio's high end", low=low)
    a, b = (float(checks.number(value, "ratio's alpha")) for value in (ratio[1], ratio[-1]))
    if not (a and b):
        raise InputError(f"ratio={shown(ratio)}: give a beta law numbers above 0")
    return "beta", a, b


def draw_ratios(law: tuple[str, float, float], count: int, rng: np.random.Generator) -> Floats:
    """One ratio a pair: the share of the first row."""
    name, a, b = law
    drawn = rng.beta(a, b, count) if name == "beta" else rng.uniform(a, b, count)
    # A beta law of tiny numbers underflows to 0 / 0.
    return np.where(np.isnan(drawn), rng.random(count) < a / (a + b) if name == "beta" else a, drawn)


def mean_of(law: tuple[str, float, float]) -> float:
    """The mean ratio of a law."""
    name, a, b = law
    return a / (a + b) if name == "beta" else (a + b) / 2


def _by_name(rows: Rows, pairs: str) -> tuple[Floats, Floats]:
    """Shares of the classes among the first and the second of pairs."""
    allowed = rows.partners(pairs)
    k = len(rows.classes)
    sizes = np.bincount(rows.cells, minlength=len(allowed)).astype(np.float64)
    reach = allowed * sizes
    second = (sizes / sizes.sum()) @ (reach / reach.sum(axis=1, keepdims=True))
    shares = np.bincount(rows.codes, minlength=k) / len(rows)
    return shares, np.bincount(rows.cell_class, second, minlength=k).astype(np.float64)


def _by_classes(rows: Rows, pairs: Any) -> tuple[Floats, Floats]:
    chances = read_chances(rows, pairs)
    return chances.sum(axis=1), chances.sum(axis=0)


def _within(rows: Rows, drawn: Ints, rng: np.random.Generator) -> Ints:
    """A row of each drawn class, all rows of a class with equal chances."""
    order = np.argsort(rows.codes, kind="stable")
    sizes = np.bincount(rows.codes, minlength=len(rows.classes))
    starts = np.cumsum(sizes) - sizes
    out: Ints = order[starts[drawn] + rng.integers(0, sizes[drawn])]
    return out


def _numbered(labels: Array, classes: Any) -> tuple[Array, Ints]:
    """All classes, and the number of each row's."""
    if classes is None:
        names, codes = np.unique(labels, return_inverse=True)
        return names, codes.astype(np.int64)
    if checks.is_number(classes):
        names = np.arange(checks.count(classes, "classes"))
    else:
        names = checks.labels(classes, "classes")
    order = np.argsort(names, kind="stable")
    ranked = names[order]
    twice = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(twice):
        raise InputError(f"classes name {shown(ranked[twice[0]].item())} twice; name each class once")
    if (labels.dtype.kind in "US") != (names.dtype.kind in "US"):
        raise InputError(f"y holds {labels.dtype} and classes {names.dtype}; give both as text or both as numbers")
    slot = np.minimum(np.searchsorted(ranked, labels), len(names) - 1)
    wrong = np.flatnonzero(ranked[slot] != labels)
    if len(wrong):
        raise InputError(
            f"y at row {wrong[0]} is {shown(labels[wrong[0]].item())}, which is none of the {len(names)} classes"
        )
    return names, order[slot].astype(np.int64)
