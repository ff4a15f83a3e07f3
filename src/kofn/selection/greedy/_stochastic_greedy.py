"""Pick greedily among a fresh random sample at each step: a number of gains that does not grow with k."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.greedy._run import Greedy, greedy, share
from kofn.selection.greedy._search import StochasticSearch


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich",),
    draws=Draw(options={"eps": (0.01, 0.1, 0.5)}),
    cost="n ln(1/eps) gains in all, whatever k is, and n more for the bound",
    exact=">= 1 - 1/e - eps of the optimum in expectation under k",
    paper="mirzasoleiman2015",
    sparse=True,
)
def stochastic_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    seed: int | None = None,
    eps: float = 0.1,
    **words: Unpack[Greedy],
) -> Selection:
    """Pick greedily among a fresh random sample at each step: a number of gains that does not grow with k.

    Args:
        X: vectors (n, d); or `similarity` (n, n); or `scores` (n,) with objective "modular".
        seed: whole number; draws the samples.
        eps: what may be lost of 1 - 1/e; a sample holds n/k ln(1/eps) items.

    Returns:
        Selection; `info["expected_guarantee"]` is the share of the optimum proven in expectation, under k alone.

    Raises:
        InputError: bad input, `eps` not in (0, 1), an objective that is not submodular.
        InfeasibleError: constraints that cannot be met together.

    Costs n ln(1/eps) gains at most, those that a stale gain rules out are not taken again; n more for the bound. An
    objective that brings all gains up to date at once (facility location from vectors) has little to win from it.

    References:
        Mirzasoleiman, Badanidiyuru, Karbasi, Vondrak, Krause, "Lazier than lazy greedy", AAAI 2015.

    Examples:
        >>> from kofn.selection import stochastic_greedy
        >>> s = stochastic_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, seed=0, eps=0.2)
        >>> len(s), s.value <= s.bound
        (2, True)
    """
    pool = {"X": X, "similarity": similarity, "scores": scores, **words}
    return greedy(pool, StochasticSearch, eps=share(eps), rng=np.random.default_rng(seed))
