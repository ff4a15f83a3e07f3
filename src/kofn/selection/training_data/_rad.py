"""Sample rows for a teacher model whose errors are assumed to fall on the most harmful rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.basics._top_k import one_score_an_item

# Powers of two beyond which scores are rescaled.
_EXTREME = 100


@method(
    "select",
    traits=("inclusion",),
    cost="O(n log n) time, O(n) memory",
    exact="the game's optimal inclusion probabilities, and a draw of exactly k with these marginals",
    paper=147,
)
def rad(
    scores: Any,
    *,
    k: int,
    exclude: Any = None,
    seed: int | None = None,
    error: float = 0.1,
) -> Selection:
    """Sample rows for a teacher model whose errors are assumed to fall on the most harmful rows.

    A row with a right label is worth its score, a row with a wrong label nothing. The draw maximises the expected worth
    against an adversary who chooses the m = error * n rows that the teacher gets wrong (robust active distillation):
    the chance of a row is inversely proportional to its score, over a prefix of the highest scores. There is no
    threshold to tune: `error=0` picks the k highest scores, and a larger error spreads the picks wider.

    Args:
        scores: (n,) how informative the true label would be, >= 0; the paper takes 1 - margin of the student's two
            likeliest classes, or its entropy.
        k: how many rows to have labelled.
        exclude: rows already labelled; they do not count as open rows.
        error: the largest share of the open rows, in [0, 1], that the teacher labels wrongly: its measured error rate.

    Returns:
        Selection in random order; `probabilities` (n,) is each row's chance of being picked, `value` the expected
        worth in the worst case, and `bound` the same: no other chances guarantee more. `info["mistakes"]` is m,
        `info["support"]` the number of rows with a chance above 0.

    Raises:
        InputError: negative scores. InfeasibleError: k above the number of open rows.

    Costs O(n log n) time and O(n) memory. The optimum over all probabilities that sum to k is exact: it is a linear
    program whose answer has a closed form. For k = 1 it is the paper's: over the s highest scores, where s maximises
    (s - m) / (1/g_1 + ... + 1/g_s), p_i is proportional to 1/g_i. For a batch the game is solved for all k draws at
    once, with no chance above 1; rows are drawn without replacement by systematic sampling, which has these chances
    exactly.

    References:
        Baykal, Trinh, Iliopoulos, Menghani, Vee, "Robust Active Distillation", ICLR 2023.

    Examples:
        >>> from kofn.selection import rad
        >>> plan = rad([4.0, 2.0, 1.0, 0.5], k=1, error=0.25, seed=0)
        >>> plan.probabilities.round(3).tolist(), round(plan.value, 3)
        ([0.333, 0.667, 0.0, 0.0], 1.333)
    """
    one_score_an_item(scores)
    n = len(scores)
    error = checks.fraction(error, "error")
    if scores.min() < 0:
        row = int(scores.argmin())
        raise InputError(f"scores at row {row} is {scores[row]:g}; a label is worth >= 0, give for example 1 - margin")
    rows = np.arange(n) if exclude is None else np.setdiff1d(np.arange(n), exclude)
    if k > len(rows):
        raise InfeasibleError(f"k={k} of {len(rows)} open items; ask for k <= {len(rows)} or exclude fewer")
    # A share such as 0.1 of 30 rows is 3 of them, not 4 for the rounding of the product.
    mistakes = min(len(rows), math.ceil(error * len(rows) - 1e-9))
    gains = scores[rows].astype(np.float64)
    order = np.argsort(-gains, kind="stable")
    chances = np.empty(len(rows))
    # The chances do not depend on the unit of the scores, of which an extreme one has inverses that overflow.
    exponent = math.frexp(gains.max())[1]
    scaled = np.ldexp(gains, -exponent) if abs(exponent) > _EXTREME else gains
    chances[order] = _robust_chances(scaled[order], k, mistakes)
    worth = np.sort(gains * chances)
    value = math.fsum(worth[: len(rows) - mistakes].tolist())
    probabilities = np.zeros(n)
    probabilities[rows] = chances
    picks = rows[_systematic(chances, k, np.random.default_rng(seed))].astype(np.int64)
    return Selection(
        n=n,
        indices=picks,
        gains=scores[picks].astype(np.float64),
        value=value,
        bound=value,
        status="optimal",
        probabilities=probabilities,
        used={"k": k},
        budget={"k": k},
        objective="worst_case_worth",
        additive=False,
        info={"mistakes": mistakes, "support": int((chances > 0).sum())},
    )


def _robust_chances(gains: NDArray[np.float64], k: int, mistakes: int) -> NDArray[np.float64]:
    """Chances p, summing to k, that maximise the sum of g p less its `mistakes` largest terms; `gains` descend.

    The sum less its m largest terms is the maximum over all levels t of sum_i min(g_i p_i, t) - m t. At a given t the
    best rows come first: p_i = min(1, t / g_i) down the list until k is spent. The value is concave and piecewise
    linear in t, so the optimum is one of its corners: where a prefix spends k exactly, or where t is itself a gain.
    """
    n = len(gains)
    worth = int((gains > 0).sum())
    if k >= worth:
        chances = np.ones(n)
        chances[worth:] = (k - worth) / max(n - worth, 1)
        return chances
    g = gains[:worth]
    inverse, total = np.cumsum(1 / g), np.concatenate([[0.0], np.cumsum(g)])
    # In a prefix of s rows, the first j have gains above its level (chance level / g), the others are certain picks.
    spare = np.arange(1, worth + 1) - g * inverse
    sizes = np.arange(k, worth + 1)
    above = np.maximum(np.searchsorted(spare, sizes - k, side="right"), 1)
    above = np.minimum(above, sizes)
    levels = (k - (sizes - above)) / inverse[above - 1]
    values = (above - mistakes) * levels + total[sizes] - total[above]
    level, best = float(levels[values.argmax()]), float(values.max())
    # A level that is itself a gain gives the last row of its prefix only the rest of k.
    corner = np.flatnonzero(g * inverse <= k)
    left = k - g[corner] * inverse[corner]
    size = np.minimum(worth, corner + 1 + np.floor(left).astype(np.int64))
    part = np.where(size < worth, (left - (size - corner - 1)) * g[np.minimum(size, worth - 1)], 0.0)
    corner_values = g[corner] * (corner + 1 - mistakes) + total[size] - total[corner + 1] + part
    # Below the level at which all rows together spend k, part of k would be left over.
    corner_values[g[corner] < levels[-1]] = -math.inf
    if len(corner) and corner_values.max() > best:
        level = float(g[corner[corner_values.argmax()]])
    filled = np.minimum(1.0, level / g)
    spent = np.concatenate([[0.0], np.cumsum(filled)])
    chances = np.zeros(n)
    left_over = k - spent[:-1]
    # A remainder that comes from rounding gives no row a chance.
    left_over[left_over < 1e-12 * k] = 0.0
    chances[:worth] = np.clip(left_over, 0.0, filled)
    chances *= k / chances.sum()
    return np.minimum(chances, 1.0)


def _systematic(chances: NDArray[np.float64], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw k rows with these inclusion probabilities, in random order: a comb of step 1 over a shuffled list."""
    while True:
        order = rng.permutation(len(chances))
        marks = np.cumsum(chances[order])
        # Rounding must not lose the last tooth, nor hand it to a row without a chance.
        marks *= k / marks[-1]
        marks[marks >= marks[-1]] = k
        picks = order[np.searchsorted(marks, rng.random() + np.arange(k), side="right")]
        # A certain pick whose stretch was rounded up past 1 can hold two teeth, about once in 10^12 draws.
        if len(np.unique(picks)) == k:
            return rng.permutation(picks)
