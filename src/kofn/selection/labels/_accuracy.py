"""How much classifiers learn from the picked rows, against rows drawn at random: what the benchmarks of labelling and
`kofn compare --judge` share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints

# The accuracy on some rows of what is learnt from others: (rows to learn from, rows to judge on) -> from 0 to 1.
Judge = Callable[[Ints, Ints], float]


def ridge(A: Any, y: Ints, train: Ints, test: Ints) -> float:
    """Ridge regression on the classes, in the dual: as quick as there are few rows to learn from."""
    rows = A[train]
    inner = rows @ rows.T
    inner = (inner.toarray() if hasattr(inner, "toarray") else inner) + 1.0
    targets = np.where(y[train][:, None] == np.arange(y.max() + 1), 1.0, -1.0)
    alpha = np.linalg.solve(inner + 0.3 * np.trace(inner) / len(train) * np.eye(len(train)), targets)
    scores = A[test] @ (rows.T @ alpha) + alpha.sum(axis=0)
    return float((scores.argmax(axis=1) == y[test]).mean())


def bayes(A: Any, y: Ints, train: Ints, test: Ints) -> float:
    """Naive Bayes on counts."""
    from sklearn.naive_bayes import MultinomialNB

    return float(MultinomialNB(alpha=0.1).fit(A[train], y[train]).score(A[test], y[test]))


def trees(A: Any, y: Ints, train: Ints, test: Ints) -> float:
    """25 randomised trees."""
    from sklearn.ensemble import ExtraTreesClassifier

    return float(ExtraTreesClassifier(25, random_state=0).fit(A[train], y[train]).score(A[test], y[test]))


def text_judges(texts: list[str], y: Ints) -> tuple[Judge, ...]:
    """Ridge regression and naive Bayes on character n-grams."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), n_features=1 << 16, norm=None).fit_transform(
        texts
    )
    counts = HashingVectorizer(
        analyzer="char", ngram_range=(2, 3), n_features=1 << 14, norm=None, alternate_sign=False
    ).fit_transform(texts)
    grams = TfidfTransformer(sublinear_tf=False).fit_transform(abs(grams))
    return functools.partial(ridge, grams, y), functools.partial(bayes, counts, y)


def dense_judges(linear: NDArray[Any], tree: NDArray[Any], y: Ints) -> tuple[Judge, ...]:
    """Ridge regression on some features, randomised trees on others."""
    return functools.partial(ridge, linear, y), functools.partial(trees, tree, y)


def column_judges(frame: pl.DataFrame, y: Ints) -> tuple[Judge, ...]:
    """Ridge regression on ranks and categories, randomised trees on the values and codes of categories."""
    ranks, codes = [], []
    for column in frame:
        if column.dtype == pl.String:
            ranks.append(column.to_dummies().to_numpy().astype(np.float64))
            codes.append(column.cast(pl.Categorical).to_physical().to_numpy().astype(np.float64))
        else:
            codes.append(column.cast(pl.Float64).to_numpy())
            ranks.append((column.rank().to_numpy() / len(column) * 3.4 - 1.7)[:, None])
    return dense_judges(np.concatenate(ranks, axis=1), np.stack(codes, axis=1), y)


def accuracy(judges: Sequence[Judge], train: Ints, test: Ints) -> float:
    """Mean accuracy of the judges, in points from 0 to 100."""
    return 100 * float(np.mean([judge(train, test) for judge in judges]))


def beaten(reached: float, drawn: Floats) -> float:
    """The share of random draws that are worse; those as good count half."""
    return float(np.mean(reached > drawn) + np.mean(reached == drawn) / 2)


def half_width(points: Floats, *, overlap: float = 0.0, of: int = 1) -> float:
    """Of the 95% interval of a mean, by Student's t; infinite for one value.

    Args:
        points: the values.
        overlap: where they come from splits of the same rows, rows judged on over rows picked from: such values are no
            independent witnesses, and the interval is wider (Nadeau and Bengio, "Inference for the generalization
            error", 2003).
        of: how many such intervals hold together (Bonferroni).
    """
    from scipy.stats import t as student

    if len(points) < 2:
        return np.inf
    spread = points.std(ddof=1) * np.sqrt(1 / len(points) + overlap)
    return float(student.ppf(1 - 0.025 / of, len(points) - 1) * spread)
