"""Draw a batch to label in proportion to the acquisition scores, so that it is not k copies of one hard item."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.basics._top_k import one_score_an_item


@method(
    "select",
    draws=Draw(options={"beta": (0, 0.5, 1.0, 8.0)}, absolute=("distribution",)),
    cost="O(n log n) time, O(n) memory",
    exact="an exact draw without replacement (Gumbel top-k); no promise on the sum of scores",
    paper=266,
)
def stochastic_batch(
    scores: Any,
    *,
    k: int,
    exclude: Any = None,
    seed: int | None = None,
    distribution: Literal["power", "softmax", "softrank"] = "power",
    beta: float = 1.0,
) -> Selection:
    """Draw a batch to label in proportion to the acquisition scores, so that it is not k copies of one hard item.

    Picking the k highest scores ignores that scores fall once a similar item is labelled. Drawing without replacement
    with probability proportional to `score^beta` ("power"), `exp(beta score)` ("softmax") or `rank^-beta` ("softrank")
    keeps most of the information and spreads the batch.

    Args:
        scores: (n,) acquisition scores (entropy, BALD, margin), higher is more informative; >= 0 for "power".
        exclude: rows already labelled, which are not drawn.
        distribution: "power" (default; an item of score zero is drawn last), "softmax" or "softrank".
        beta: inverse temperature; 0 is a uniform draw, a large one is top-k.

    Returns:
        Selection in the order drawn (a sequential draw: a prefix is a draw of that size). `value` is the sum of scores.

    Raises:
        InputError: negative scores with "power", negative `beta`. InfeasibleError: k above the number of open items.

    Costs O(n log n) time, O(n) memory. Adding Gumbel noise to the log-weights and keeping the top k is an exact
    sequential draw without replacement; with "power" items of score zero come after all others, in random order.

    References:
        Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron, Gal, "Stochastic Batch Acquisition: A Simple
        Baseline for Deep Active Learning", TMLR 2023.

    Examples:
        >>> from kofn.selection import stochastic_batch
        >>> stochastic_batch([0.1, 5.0, 0.2, 4.0], k=2, seed=0, beta=50.0).indices.tolist()
        [1, 3]
    """
    one_score_an_item(scores)
    beta = float(checks.number(beta, "beta"))
    rows = np.arange(len(scores)) if exclude is None else np.setdiff1d(np.arange(len(scores)), exclude)
    if k > len(rows):
        raise InfeasibleError(f"k={k} of {len(rows)} open items; ask for k <= {len(rows)} or exclude fewer")
    log_weights = _log_weights(scores[rows].astype(np.float64), distribution, beta)
    noise = np.random.default_rng(seed).gumbel(size=len(rows))
    # Weight zero is -inf: such rows come last, in the order of their own noise.
    order = np.lexsort((-noise, -(log_weights + noise)))[:k]
    picks = rows[order].astype(np.int64)
    gains = scores[picks].astype(np.float64)
    return Selection(
        n=len(scores),
        indices=picks,
        gains=gains,
        value=math.fsum(gains.tolist()),
        status="heuristic",
        used={"k": k},
        budget={"k": k},
        objective="modular",
        info={"oracle_calls": len(rows)},
    )


def _log_weights(scores: NDArray[np.float64], distribution: str, beta: float) -> NDArray[np.float64]:
    if distribution == "softmax":
        return beta * scores
    if distribution == "softrank":
        # The paper does not let ties share a rank; a stable sort ranks the lowest row first.
        ranks = np.empty(len(scores))
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        return -beta * np.log(ranks)
    if scores.min() < 0:
        row = int(scores.argmin())
        raise InputError(
            f"scores at row {row} is {scores[row]:g}; distribution='power' needs scores >= 0, else use 'softmax'"
        )
    with np.errstate(divide="ignore"):
        logs = np.log(scores)
    return np.zeros(len(scores)) if beta == 0 else beta * logs
