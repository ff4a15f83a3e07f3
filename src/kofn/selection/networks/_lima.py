"""Regions of an input that explain a decision, ranked from both ends by a black box's scores of sets of regions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Mask, directions
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits

__all__ = ["attribution_score", "lima"]

Score = Callable[[Mask], Any]
# Entries of the masks that are scored in one call.
_MASKS_AT_ONCE = 1 << 24


@method(
    "select",
    draws=Draw(plain={"score": lambda masks: masks.sum(axis=1)}),
    cost="about n^2 / 4 + pending n / 2 sets scored, against n^2 / 2 for the naive greedy; O(n^2) memory",
    exact="no promise with pending < n; with pending >= n the greedy picks exactly",
    paper=131,
)
def lima(
    X: Any,
    *,
    score: Any,
    k: int | None = None,
    pending: int = 8,
    **limits: Unpack[Limits],
) -> Selection:
    """Rank the regions of an input by importance, from both ends, with few calls of a black box.

    Each round scores the chosen set with every open region added: the best is the next most important. Each of the
    `pending` worst is scored on top of the unimportant regions found so far, and the region that adds least to those is
    the next least important. So every round closes two regions, and later rounds score fewer sets.

    Args:
        X: (n, d) the regions, one row each: pixels as 0/1, or features. Only n is read.
        score: callable that rates sets of regions: masks (m, n) of booleans in, (m,) numbers out, higher is better; see
            `kofn.selection.networks._lima.attribution_score`.
        k: how many regions to rank, default all. A smaller k is the head of the same ranking.
        pending: candidates for the least important region in each round. The last `pending` regions are ranked from the
            front alone; `pending >= n` is the naive greedy search.

    Returns:
        Selection, most important first. `value` is the score of all picks together, `gains` each region's increase of
        it (the first region's score alone). `info["oracle_calls"]` counts the sets scored, `info["search_calls"]` those
        of the search without the sets that only complete the curve. Status "stopped" after `time_limit`; the first
        region is then the best of those that were scored.

    Raises:
        InputError: no score, or a score that does not return one finite number a set. InfeasibleError: k above n.

    Costs n^2/4 + pending n/2 sets scored and at most n/2 more for the gains of the unimportant half; the naive greedy
    scores n (n + 1) / 2.

    References:
        Chen, Liang, Li, Liu, Liu, Zhang, Cao, "Less is More: Efficient Black-box Attribution via Minimal Interpretable
        Subset Selection", 2025.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import lima
        >>> worth = np.array([1.0, 5.0, 0.0, 3.0])
        >>> lima(np.eye(4), score=lambda masks: masks @ worth, pending=1).indices.tolist()
        [1, 3, 0, 2]
    """
    n = len(X)
    if not callable(score):
        raise InputError(
            f"score={checks.shown(score)}: give a callable that rates masks of shape (m, {n}), one number a mask"
        )
    most = n if k is None else k
    pending = checks.count(pending, "pending")
    with Control(**limits, total=most, title="ranking") as control:
        search = _Search(score, n, pending)
        while search.open.any() and len(search.best) < most:
            # The first round is always done, so that a stopped run has an answer.
            if search.best and control.stopped():
                break
            search.round(control)
            control.step(len(search.best))
        search_calls = search.calls
        stopped = search.open.any() and len(search.best) < most
        order = search.best if stopped else (search.best + search.worst[::-1])[:most]
        values = search.values + search.along(order, len(search.values))
    return Selection(
        n=n,
        indices=np.array(order, np.int64),
        gains=np.diff(values, prepend=0.0),
        value=float(values[-1]),
        status="stopped" if stopped else "heuristic",
        used={"k": len(order)},
        budget={"k": most},
        objective="region_score",
        info={"oracle_calls": search.calls, "search_calls": search_calls},
    )


class _Search:
    """The two ends of the ranking so far, and the number of sets scored."""

    def __init__(self, score: Score, n: int, pending: int) -> None:
        self.score, self.n, self.pending = score, n, pending
        self.open = np.ones(n, bool)
        self.best: list[int] = []
        self.worst: list[int] = []
        self.values: list[float] = []
        self.calls = 0

    def ask(self, masks: Mask) -> Floats:
        """(m,) the score of each set, checked."""
        self.calls += len(masks)
        values = np.asarray(self.score(masks), np.float64)
        if values.shape != (len(masks),):
            raise InputError(f"score gave shape {values.shape} for {len(masks)} masks; give one number a mask")
        if not np.isfinite(values).all():
            regions = np.flatnonzero(masks[int(np.argmin(np.isfinite(values)))]).tolist()
            raise InputError(f"score of the regions {regions} is not a finite number")
        return values

    def with_each(self, chosen: list[int], items: NDArray[np.int64], control: Control | None = None) -> Floats:
        """The scores of the chosen set with each item added, of the first items only where `control` stops it."""
        scores: list[Floats] = []
        step = max(1, _MASKS_AT_ONCE // self.n)
        for low in range(0, len(items), step):
            if low and control is not None and control.stopped():
                break
            part = items[low : low + step]
            masks = np.zeros((len(part), self.n), bool)
            masks[:, chosen] = True
            masks[np.arange(len(part)), part] = True
            scores.append(self.ask(masks))
        return np.concatenate(scores)

    def round(self, control: Control) -> None:
        """Close the most important open region and, while enough are open, the least important.

        Stopped in its midst, it closes the best of those that were scored, and no other.
        """
        items = np.flatnonzero(self.open)
        values = self.with_each(self.best, items, control)
        top = int(np.argmax(values))
        self.values.append(float(values[top]))
        self.best.append(int(items[top]))
        self.open[items[top]] = False
        if len(items) <= self.pending or len(values) < len(items):
            return
        # Of equally low scores the later region is the less important, as in the order from the front.
        listed = np.lexsort((-items, values))[: self.pending]
        low = items[listed[listed != top]]
        if len(low) == 0:
            return
        least = int(low[0]) if len(low) == 1 else int(low[int(np.argmin(self.with_each(self.worst, low)))])
        self.worst.append(least)
        self.open[least] = False

    def along(self, order: list[int], known: int) -> list[float]:
        """The scores of the heads of an order that are longer than `known`."""
        if known >= len(order):
            return []
        masks = np.zeros((len(order) - known, self.n), bool)
        for row, length in enumerate(range(known + 1, len(order) + 1)):
            masks[row, order[:length]] = True
        return self.ask(masks).tolist()


@helper
def attribution_score(
    predict: Callable[[Any], Any],
    x: ArrayLike,
    regions: ArrayLike,
    *,
    target: int | None = None,
    base: ArrayLike | None = None,
    features: Callable[[Any], Any] | None = None,
    confidence: float = 0.0,
    effectiveness: float = 0.05,
    consistency: float = 1.0,
    collaboration: float = 1.0,
) -> Score:
    """Build the paper's set function for `lima`, from predictions on the regions alone and on everything else alone.

    Args:
        predict: (m, d) inputs to (m, classes) probabilities.
        x: (d,) the input to explain.
        regions: (n, d) 0/1, the pixels of each region.
        target: the class to explain, default the one predicted for x.
        base: (d,) the values shown outside the regions, default zeros.
        features: (m, d) inputs to (m, f) features, whose angles measure how much regions differ; default `predict`.
        confidence: weight of 1 - entropy / log(classes) of the prediction from the regions alone.
        effectiveness: weight of the summed angle (as a share of pi) of each region to its nearest among the others.
        consistency: weight of the target's probability from the regions alone.
        collaboration: weight of 1 - the target's probability from everything but the regions.

    Returns:
        A function of masks (m, n) that gives (m,) scores. It shows the classifier 2 m inputs.

    Raises:
        InputError: regions that do not fit x, a target that is not a class.

    References:
        Chen et al., "Less is More: Efficient Black-box Attribution via Minimal Interpretable Subset Selection", 2025.
        The default weights are those of its experiments.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection.networks._lima import attribution_score
        >>> def predict(rows):
        ...     p = 1 / (1 + np.exp(-rows.sum(axis=1)))
        ...     return np.column_stack([1 - p, p])
        >>> score = attribution_score(predict, [2.0, 0.0], np.eye(2), effectiveness=0.0)
        >>> score(np.eye(2, dtype=bool)).round(3).tolist()
        [1.381, 0.619]
    """
    image = checks.vector(x, "x").astype(np.float64)
    shown = checks.matrix(regions, "regions").astype(np.float64)
    if shown.shape[1] != len(image):
        raise InputError(f"regions has {shown.shape[1]} columns, x has {len(image)} values; give one mask of x a row")
    blank = np.zeros_like(image) if base is None else checks.vector(base, "base").astype(np.float64)
    if len(blank) != len(image):
        raise InputError(f"base has {len(blank)} values, x has {len(image)}")
    prediction = np.asarray(predict(image[None]), np.float64)
    classes = prediction.shape[1]
    goal = int(prediction[0].argmax()) if target is None else checks.count(target, "target", least=0)
    if goal >= classes:
        raise InputError(f"target={goal}: the classes are 0..{classes - 1}")

    def cut(masks: Mask) -> Floats:
        """The input where a region of the mask covers it, the base elsewhere."""
        cover = np.minimum(masks.astype(np.float64) @ shown, 1.0)
        return np.asarray(blank + cover * (image - blank))

    apart = _angles(np.asarray((features or predict)(cut(np.eye(len(shown), dtype=bool))), np.float64))

    def score(masks: Mask) -> Floats:
        masks = np.asarray(masks, bool)
        alone = np.asarray(predict(cut(masks)), np.float64)
        out = consistency * alone[:, goal]
        if collaboration:
            out = out + collaboration * (1 - np.asarray(predict(cut(~masks)), np.float64)[:, goal])
        if confidence:
            entropy = -(alone * np.log(alone + 1e-7)).sum(axis=1)
            out = out + confidence * (1 - entropy / math.log(classes))
        if effectiveness:
            out = out + effectiveness * np.array([_spread(apart, mask) for mask in masks])
        return np.asarray(out)

    return score


def _angles(features: Floats) -> Floats:
    """(n, n) angles between features, as shares of pi; 1 on the diagonal, so that no region is its own nearest."""
    unit = directions(features)
    out: Floats = np.arccos(np.clip(unit @ unit.T, -1.0, 1.0)) / math.pi
    np.fill_diagonal(out, 1.0)
    return out


def _spread(apart: Floats, mask: Mask) -> float:
    """The summed angle of each region of a set to its nearest other region in the set; 0 for a single region."""
    rows = np.flatnonzero(mask)
    return 0.0 if len(rows) < 2 else float(apart[np.ix_(rows, rows)].min(axis=1).sum())
