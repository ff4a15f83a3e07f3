"""Pairwise distances of the clients' distributions, from the held-out accuracy of a classifier between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["client_distances"]


@helper
def client_distances(
    X: Any, *, groups: Any, y: Any = None, classifier: Any = None, folds: int = 2, seed: int = 0
) -> tuple[Floats, Ints, list[Any]]:
    """Pairwise distances of the clients' distributions, from the held-out accuracy of a classifier between them.

    For each pair of clients, a classifier learns which client a row comes from and is evaluated on held-out rows. The
    distance is the sum of the two recalls minus one: 0 for equal distributions, 1 for disjoint ones. A suboptimal
    classifier underestimates it; few rows make it noisy.

    Args:
        X: vectors (n, d).
        groups: (n,) the client of each row.
        y: (n,) labels: compare the joint distributions of rows and labels, so that clients that label similar rows
            differently are far apart. The classifier sees each row's vector in the columns of its label.
        classifier: any scikit-learn classifier; default logistic regression. Both clients have equal total weight if it
            accepts sample weights.
        folds: number of cross-validation folds, at most the number of rows of the smallest client.
        seed: for the folds.

    Returns:
        distances (clients, clients); rows of each client (clients,), the `weights` of `fedcollab`; the clients' names,
        sorted.

    Raises:
        InputError: one client only, a client with one row, folds beyond the smallest client's rows.

    Cost: a classifier for each pair and fold.

    References:
        Bao, Wang, Wu & He 2023 (ICML, arXiv 2306.06508), with C-divergence: Mohri & Munoz Medina 2012.

    Examples:
        >>> import numpy as np
        >>> from kofn.federated import client_distances, fedcollab
        >>> X = np.random.default_rng(0).normal(size=(300, 2))
        >>> X[200:] += 4
        >>> apart, rows, names = client_distances(X, groups=np.repeat(["a", "b", "c"], 100))
        >>> bool(apart[0, 1] < 0.2), bool(apart[0, 2] > 0.9), rows.tolist(), names
        (True, True, [100, 100, 100], ['a', 'b', 'c'])
        >>> fedcollab(apart, weights=rows, C=1.0, seed=0).labels.tolist()
        [0, 0, 1]
    """
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils.validation import has_fit_parameter

    X = checks.matrix(X).astype(np.float64)
    groups = checks.groups(groups)
    checks.same_length(len(X), "X", "groups", len(groups))
    names, client_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    n_folds = checks.count(folds, "folds", least=2)
    if len(names) < 2:
        raise InputError(f"groups hold one client, {names.tolist()[0]!r}; give two or more")
    if counts.min() < n_folds:
        few = int(counts.argmin())
        raise InputError(f"groups: client {names.tolist()[few]!r} has {counts[few]} rows, folds={n_folds}; lower folds")
    if classifier is not None and not hasattr(classifier, "fit"):
        raise InputError(f"classifier={checks.shown(classifier)}: give a scikit-learn classifier")
    rows = X
    if y is not None:
        labels = checks.groups(y, "y")
        checks.same_length(len(X), "X", "y", len(labels))
        codes = np.unique(labels, return_inverse=True)[1]
        # The product of features and one-hot labels lets a linear classifier see differences in labelling.
        rows = (np.eye(codes.max() + 1)[codes][:, :, None] * np.column_stack([np.ones(len(X)), X])[:, None]).reshape(
            len(X), -1
        )
    model = LogisticRegression(max_iter=200) if classifier is None else classifier
    weighed = has_fit_parameter(model, "sample_weight")
    order = np.random.default_rng(seed).permutation(len(X))
    fold = np.empty(len(X), np.int64)
    for client in range(len(names)):
        members = order[client_of[order] == client]
        fold[members] = np.arange(len(members)) % n_folds
    apart = np.zeros((len(names), len(names)))
    for i in range(len(names)):
        for j in range(i):
            pair = np.flatnonzero((client_of == i) | (client_of == j))
            side = (client_of[pair] == i).astype(np.int64)
            right = np.zeros(len(pair), bool)
            for number in range(n_folds):
                learn, ask = fold[pair] != number, fold[pair] == number
                share = np.bincount(side[learn])[side[learn]]
                extra = {"sample_weight": len(share) / (2 * share)} if weighed else {}
                fitted = clone(model).fit(rows[pair[learn]], side[learn], **extra)
                right[ask] = fitted.predict(rows[pair[ask]]) == side[ask]
            apart[i, j] = apart[j, i] = max(0.0, right[side == 1].mean() + right[side == 0].mean() - 1)
    return apart, counts.astype(np.int64), names.tolist()
