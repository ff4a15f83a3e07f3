"""META-DES: a classifier that judges from the rows near a row whether a member will be right on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kofn.core.arrays import Floats, Ints, Mask

# How many rows of similar predictions are looked at.
PROFILES = 5
# The bins that features are counted in, and what is added to every count.
_BINS, _SMOOTHING = np.linspace(0.1, 1.0, 10), 1.0


def profiles(chances: Floats) -> Floats:
    """(n, m c) the rows' predictions side by side; of two classes, those of the second."""
    kept = chances[:, :, 1:] if chances.shape[2] == 2 else chances
    return kept.reshape(len(kept), kept.shape[1] * kept.shape[2])


@dataclass(frozen=True)
class Judge:
    """Multinomial naive Bayes on the binned features of a member and a row (Cruz et al. 2015).

    Attributes:
        slopes: by how much a unit of each feature raises the log odds that the member is right.
        constant: the log odds of a member whose features are zero.
    """

    slopes: Floats
    constant: float

    @classmethod
    def trained(cls, blocks: Iterable[tuple[Floats, Mask]], width: int) -> Judge:
        """Trained on blocks of features (rows, members, width), and of whether each member was right (rows, members);
        all the same where nobody ever was, or always."""
        counts, number = np.zeros((2, width)), np.zeros(2)
        for of_members, right in blocks:
            counts += [of_members[~right].sum(axis=0), of_members[right].sum(axis=0)]
            number += [(~right).sum(), right.sum()]
        if not number.all():
            return cls(np.zeros(width), np.inf if number[1] else -np.inf)
        logs = np.log(counts + _SMOOTHING) - np.log(counts.sum(axis=1, keepdims=True) + _SMOOTHING * width)
        return cls(logs[1] - logs[0], float(np.log(number[1] / number[0])))

    def thinks_right(self, of_members: Floats) -> Mask:
        """(rows, members) which members it holds for more likely right than wrong."""
        return np.asarray(of_members @ self.slopes + self.constant > 0)


def features(hits: Mask, chances: Floats, truth: Ints, near: Ints, alike: Ints, given: Floats) -> Floats:
    """(q, m, features) in bins: whether the member is right on each neighbour, its probability of the truth there, the
    share of neighbours it is right on, whether it is right where all predict alike, and how sure it is of the query.

    Args:
        hits: (n, m) who was right on the validation rows.
        chances: (n, m, c) the probabilities there.
        truth: (n,) the classes there.
        near: (q, k) the validation rows near each query.
        alike: (q, profiles) those of similar predictions.
        given: (q, m, c) the probabilities of the queries.
    """
    local, labels = hits[near].transpose(0, 2, 1), truth[near]
    if chances.shape[2] == 1:
        chance = chances[near][:, :, :, 0]
        chance = np.where(labels[:, :, None] == 1, chance, 1 - chance)
        sure = np.maximum(given[:, :, 0], 1 - given[:, :, 0])
    else:
        chance = np.take_along_axis(chances[near], labels[:, :, None, None], axis=3)[:, :, :, 0]
        sure = given.max(axis=2)
    parts = [local, chance.transpose(0, 2, 1), local.mean(axis=2, keepdims=True), hits[alike].transpose(0, 2, 1)]
    return np.digitize(np.concatenate([*parts, sure[:, :, None]], axis=2), _BINS).astype(np.float64)
