"""Near-duplicates: rows that repeat a row that is preferred to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.checks.exact import exact_rows
from kofn.core.helpers import helper
from kofn.selection.training_data._equal_rows import as_frame, equal_rows
from kofn.selection.training_data._near_texts import near_texts
from kofn.selection.training_data._near_vectors import near_vectors, refuse_metric
from kofn.selection.training_data._preference import Duplicates, Preference

__all__ = ["near_duplicates"]


@helper
def near_duplicates(
    X: ArrayLike | None = None,
    threshold: float = 0.95,
    *,
    texts: Iterable[str] | None = None,
    columns: Any = None,
    metric: str = "cosine",
    scores: ArrayLike | None = None,
    include: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    costs: ArrayLike | None = None,
    groups: ArrayLike | Mapping[str, ArrayLike] | None = None,
    quotas: Mapping[Any, Any] | None = None,
) -> Duplicates:
    """Keep the preferred row of every group of near-duplicates: vectors, texts or rows of a table.

    Rows are looked at from the most preferred on, and one is dropped if its similarity with a row kept before is at
    least `threshold`. So no two kept rows are near (but those of `include`), and every dropped row is near a kept one.

    Args:
        X: vectors, (n, d), compared by `metric`.
        threshold: similarity from which two rows are near-duplicates, 0 to 1 (texts: above 0).
        texts: n texts. Two are the same if they differ in case, white space and Unicode form only (NFKC). Else their
            similarity is 2 * common / all (Dice): of the triples of neighbouring characters, each as often as it
            occurs and a space at both ends, how many the two have in common, and how many they have.
        columns: n rows of a frame, or a mapping from names to values; near are those that agree in every column,
            numbers to nine digits, whatever the threshold.
        metric: of X. "cosine": the cosine; rows of zeros are near one another. "euclidean": 1 less the distance as a
            share of the pool's typical one (the root of the mean squared distance of two rows). "sqeuclidean": 1 less
            the squared distance as a share of the mean one.
        scores: (n,) the higher is preferred.
        include: rows that stay whatever they are like, and stand for others.
        exclude: rows that neither stand for others nor are dropped.
        costs: (n,) of equal scores the lower is preferred.
        groups: (n,) labels, or several columns of them by name.
        quotas: {group: (least, most)}, or one such mapping for each column of `groups`. Rows of a group that would be
            left with fewer than its least are preferred to all others.

    Returns:
        keep, of and similarity, one value a row. Of the kept rows that a dropped row is near, `of` is the most
        preferred; what is equally preferred keeps the order of the rows.

    Raises:
        InputError: not exactly one of X, texts and columns, values that cannot be compared, a threshold that is not
            from 0 to 1, an unknown metric.

    Exact: no pair is missed, and every decision is made on the exact similarity, in float64 for vectors (with 1e-9 for
    rounding) and on counts for texts (triples by 64-bit fingerprints). It does not depend on blocks or threads.

    Cost: for vectors, at most n * kept / 2 products, most of them in fewer dimensions: with P the projection on the r
    leading directions, x.y <= Px.Py + |x - Px| |y - Py| rules a pair out. r is chosen on a sample by counted work;
    memory n * (d + 1) float32 besides X. For texts, a pair is looked at if the two share one of their rarest triples
    (two similar sets cannot differ in all of them), which is quick for thresholds from 0.8; 4 bytes a character and 22
    for each of the rarest triples, (1 - threshold) * 2 of all.

    References:
        Cauchy-Schwarz on the residual, as in exact nearest-neighbour search by partial distances; Broder, On the
        resemblance and containment of documents, 1997 (shingles); Bayardo, Ma and Srikant, Scaling up all pairs
        similarity search, 2007, and Xiao et al., Efficient similarity joins for near-duplicate detection, 2008 (rarest
        tokens first).

    >>> near_duplicates([[1, 0], [0, 1], [2, 0.1], [0, 3]]).of.tolist()
    [-1, -1, 0, 1]
    >>> texts = ["Fits a line to points.", "Reads a table.", "fits a  line to points", "Fits a line to a point."]
    >>> found = near_duplicates(texts=texts, threshold=0.9, scores=[0.1, 0.5, 0.9, 0.2])
    >>> found.keep.tolist(), found.of.tolist(), found.similarity.round(3).tolist()[0]
    ([False, True, True, True], [2, -1, -1, -1], 0.93)
    """
    given = [name for name, value in (("X", X), ("texts", texts), ("columns", columns)) if value is not None]
    if len(given) != 1:
        listed = " and ".join(given) or "nothing"
        raise InputError(f"{listed} given to compare rows by; give one of X, texts, columns")
    threshold = checks.fraction(threshold, "threshold")
    refuse_metric(metric)
    if texts is not None and threshold == 0:
        raise InputError("threshold=0: every two texts would be near-duplicates; give more than 0")
    if X is not None and threshold == 1:
        _refuse_rounded(X)
    rows = _Rows.of(given[0], X if texts is None and columns is None else texts if columns is None else columns)
    preference = Preference.of(rows.n, scores, include, exclude, costs, groups, quotas)
    return preference.duplicates(lambda order, forced: _near_in_order(rows, order, forced, threshold, metric))


def _refuse_rounded(X: Any) -> None:
    """Refuse rows of whole numbers that differ only where floats round them, which would be equal rows.

    Raises:
        InputError: two such rows, and how they are told apart.
    """
    floats = checks.matrix(X)
    whole = exact_rows(X, floats)
    if whole is floats:
        return
    first = checks.first_equal(floats)
    rounded = np.flatnonzero((whole != whole[first]).any(axis=1))
    if len(rounded):
        raise InputError(
            f"X: rows {first[rounded[0]]} and {rounded[0]} differ only beyond double precision, so threshold=1 would "
            "take them for equal; compare them as columns (columns=), which are compared exactly, or scale X down"
        )


class _Rows(NamedTuple):
    """What is compared: "X", "texts" or "columns"."""

    kind: str
    values: Any
    n: int

    @classmethod
    def of(cls, kind: str, values: Any) -> _Rows:
        if kind == "X":
            values = checks.matrix(values)
            return cls(kind, values, len(values))
        if kind == "texts":
            with checks.reading("texts", values):
                texts = values.to_list() if hasattr(values, "to_list") else list(values)
            for row, text in enumerate(texts):
                if not isinstance(text, str):
                    raise InputError(f"texts at row {row} is {checks.shown(text)}; give a text, or drop the row first")
            return cls(kind, texts, len(texts))
        frame = as_frame(values)
        return cls(kind, frame, frame.height)


def _near_in_order(
    rows: _Rows, order: NDArray[np.int64], forced: int, threshold: float, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(the kept row that each row repeats or -1, their similarity), rows preferred in this order."""
    of, similarity = np.full(rows.n, -1, np.int64), np.full(rows.n, np.nan)
    if not len(order):
        return of, similarity
    moved = len(order) < rows.n or bool((order != np.arange(rows.n)).any())
    if rows.kind == "X":
        near, likeness = near_vectors(rows.values[order] if moved else rows.values, threshold, metric, forced)
    elif rows.kind == "texts":
        texts = [rows.values[row] for row in order.tolist()] if moved else rows.values
        near, likeness = near_texts(texts, threshold, forced)
    else:
        near = equal_rows(rows.values, order, forced)
        likeness = np.where(near >= 0, 1.0, np.nan)
    dropped = near >= 0
    of[order[dropped]] = order[near[dropped]]
    similarity[order] = likeness
    return of, similarity
