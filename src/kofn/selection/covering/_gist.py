"""Picks that are worth much and lie far apart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Mask, directions
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.objective import Objective
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress
from kofn.objectives import base
from kofn.objectives._filling import AT_RANDOM, BY_SAMPLES, filling_of
from kofn.objectives.kcenter import distances_to
from kofn.objectives.modular import Modular
from kofn.objectives.similarity import refuse_extremes

# Distance rows that are kept for the next threshold, in bytes.
_KEPT = 1 << 28
# The triangle inequality is looked at for every three items up to this many.
_CHECKED = 512
# The diameter of so few items is found even though the time is up.
_SOON = 1024


# The finest thresholds: tens of millions of them.
_FINEST = 1e-6


@method(
    "select",
    needs=(("X", "distances"),),
    traits=("sandwich",),
    draws=Draw(options={"eps": (0.01, 0.1, 0.5)}, absolute=("lam",)),
    cost="O(n k log(1/eps) / eps) gains at most, and all pairs once at worst for the diameter; up to 256 MB beside X",
    exact=">= 2/3 - eps of the optimum for a sum of scores, 1/2 - eps for a monotone submodular utility",
    at_most_k=True,
    paper="fahrbach2025",
)
def gist(
    X: Any = None,
    *,
    distances: Any = None,
    scores: Any = None,
    k: int,
    exclude: Any = None,
    metric: str = "euclidean",
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: Progress = None,
    utility: Any = None,
    lam: float = 1.0,
    eps: float = 0.1,
) -> Selection:
    """Pick at most k items for a utility plus lam times the least distance between two of them.

    For each threshold on the distance, from eps/2 of the pool's diameter up to the diameter in steps of 1 + eps, greedy
    picks what adds most utility among all that is at least that far from the picks so far. The best of these sets, of
    plain greedy and of the two items farthest apart is returned. Fewer than k items are returned where closeness would
    cost more than the further items are worth.

    Args:
        X: vectors (n, d); or `distances` (n, n). Something is proven where these obey the triangle inequality, which is
            looked at up to 512 items.
        scores: (n,) >= 0, what each item is worth; the utility is their sum.
        k: at most how many.
        exclude: items that must not be picked; they do not count for the diameter.
        metric: "euclidean", or "sqeuclidean" or "cosine" (1 - cos), for which nothing is proven.
        time_limit: seconds; the best set by then is returned, status "stopped".
        n_threads: for the utility; the picks are the same for any number.
        utility: any other monotone submodular utility, an objective by name or an object; default the scores, without
            those "facility_location" of X or "medoid_loss" of the distances.
        lam: >= 0, what a unit of distance is worth.
        eps: in (0, 1/2], how fine the thresholds are.

    Returns:
        Selection in the order picked; `gains` are those of the utility. `value` is utility + lam * the least distance
        (the diameter of the pool for fewer than two items); `bound` is at least the optimum over all sets of at most k.
        `info` has `utility`, `min_distance`, `diameter`, `threshold` (the winning one) and `guarantee`.

    Raises:
        InputError: bad values, scores < 0, or a utility that is not monotone and submodular.
        InfeasibleError: k above what is not excluded.

    Costs O(n k log(1/eps) / eps) gains and as many distances; the diameter takes all pairs at worst, usually few.

    References:
        Fahrbach, Ramalingam, Zadimoghaddam, Ahmadian, Citovsky, DeSalvo, "GIST: Greedy independent set thresholding for
        max-min diversification with submodular utility", NeurIPS 2025.

    Examples:
        >>> from kofn.selection import gist
        >>> s = gist([[0.0], [0.1], [4.0], [9.0]], scores=[3.0, 2.9, 1.0, 1.0], k=3, lam=0.5)
        >>> s.indices.tolist(), round(s.value, 2), round(s.info["min_distance"], 2)
        ([0, 3], 8.5, 9.0)
    """
    lam, eps = float(checks.number(lam, "lam")), checks.fraction(eps, "eps", high=0.5)
    if eps < _FINEST:
        raise InputError(
            f"eps={eps:g}: give a number from {_FINEST:g} to 0.5; the number of thresholds grows as its inverse"
        )
    n = len(X if X is not None else distances)
    open_items = np.ones(n, bool)
    if exclude is not None:
        open_items[exclude] = False
    if k > open_items.sum():
        raise InfeasibleError(f"k={k}, but {int(open_items.sum())} of {n} items are open; lower k or exclude fewer")
    default = "modular" if scores is not None else "medoid_loss" if X is None else "facility_location"
    requested = default if utility is None else utility
    given = {"X": X, "distances": distances, "scores": scores, "metric": metric, "n_threads": n_threads}
    try:
        make = _utility(requested, given)
    except InputError as error:
        # What cannot be read, or built from these inputs, is named as the caller knows it.
        text = str(error)
        raise InputError(text if utility is None or text.startswith("utility") else f"utility: {text}") from None
    if X is not None and metric != "cosine":
        refuse_extremes(X)
    rows = _Rows(X, distances, metric)
    with Control(time_limit=time_limit, progress=progress, total=0, title="thresholds") as control:
        rows.control = control
        filling = _Filling(X, metric, scores)
        run = _Gist(rows, make, open_items, k, lam, control, filling)
        stopped = run.run(eps)
    proven = metric == "euclidean" if distances is None else _is_metric(distances)
    # A step of the thresholds is a factor of 1 + eps, and what lies below the first is given up: eps in all.
    share = max(0.0, (2 / 3 if requested == "modular" else 1 / 2) - eps) if proven and not stopped else 0.0
    picks, gains, value = run.best
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains),
        value=value,
        bound=value / share if share > 0 else None,
        status="stopped" if stopped else "approximate" if share > 0 else "heuristic",
        used={"k": len(picks)},
        budget={"k": k},
        objective="utility_plus_min_distance",
        additive=False,
        guarantee=share or None,
        info={
            "utility": math.fsum(gains),
            "utility_is": base.named(requested),
            **({"offset": run.offset} if run.offset is not None else {}),
            "min_distance": run.least(picks),
            "diameter": run.diameter,
            "threshold": run.threshold,
            **({} if run.picks_in_time is None else {"found_in_time": run.picks_in_time, "filled_by": filling.how}),
            "oracle_calls": run.calls,
            "distance_evals": rows.evals,
        },
    )


def _utility(requested: Any, given: dict[str, Any]) -> Callable[[], Objective]:
    """What makes the utility anew for each run; it is checked once."""
    if not isinstance(requested, str):
        unused = base.build(requested, given)
        _refuse_other(unused, requested)
        return lambda: copy.deepcopy(unused)
    used = base.words_of(requested)
    if given["scores"] is not None and "scores" not in used:
        raise InputError(
            f"utility={requested!r} has no use for scores; leave one of them out, or add '+ modular' to it"
        )
    words = {name: value for name, value in given.items() if value is not None and name in used}
    _refuse_other(base.build(requested, words), requested)
    return lambda: base.build(requested, words)


def _refuse_other(utility: Objective, requested: Any) -> None:
    if isinstance(utility, Modular) and not utility.monotone:
        row = int(np.argmin(utility.scores))
        raise InputError(f"scores at row {row} is {utility.scores[row]:g}; a utility needs scores >= 0, shift them")
    if not (utility.submodular and utility.monotone):
        raise InputError(
            f"utility={base.named(requested)} is not monotone and submodular, which a utility must be; use the scores, "
            "or facility_location"
        )


def _is_metric(distances: NDArray[Any]) -> bool:
    if len(distances) > _CHECKED:
        return False
    apart = distances.astype(np.float64)
    slack = 1e-9 * float(apart.max())
    return all(bool((apart <= row[:, None] + row + slack).all()) for row in apart)


class _Rows:
    """Distances from one item to all, some of them kept."""

    def __init__(self, X: Any, distances: Any, metric: str) -> None:
        self._X, self._table, self._metric = X, distances, metric
        self.n = len(X if X is not None else distances)
        self.evals = 0
        self.control = Control()
        self._kept: dict[int, Floats] = {}
        self._far: tuple[float, int, int] | None = None

    def poll(self) -> None:
        """Let nobody wait for what is stopped."""
        if self.control.stopped():
            raise _Stopped

    def between(self, item: int, others: list[int]) -> Floats:
        """Distances from one item to some others."""
        if self._table is not None or item in self._kept:
            return self.row(item)[others]
        self.evals += len(others)
        return distances_to(self._X[others], self._X[item], self._metric)

    def row(self, item: int) -> Floats:
        """(n,) distances to one item."""
        if self._table is not None:
            return self._table[item].astype(np.float64)
        if item not in self._kept:
            if len(self._kept) * self.n * 8 >= _KEPT:
                self._kept.clear()
            self._kept[item] = distances_to(self._X, self._X[item], self._metric)
            self.evals += self.n
        return self._kept[item]

    def diameter(self, open_items: Mask) -> tuple[float, int, int]:
        """The largest distance between two open items, and those, the lowest first."""
        if self._far is None:
            self._far = self._farthest(np.flatnonzero(open_items))
        return self._far

    def _farthest(self, items: Ints) -> tuple[float, int, int]:
        best = (0.0, int(items[0]), int(items[min(1, len(items) - 1)]))
        if self._table is not None:
            for item in items.tolist():
                self.poll()
                here = self._table[item, items].astype(np.float64)
                if here.max() > best[0]:
                    best = (float(here.max()), item, int(items[here.argmax()]))
            return best
        # Distances to the middle bound all others, so that far pairs are found among the outermost items. Squared
        # distances and 1 - cos are the square of a distance, and half of one.
        middle, fold = self._middle(items), 2.0 if self._metric == "euclidean" else 4.0
        out = distances_to(self._X[items], middle, self._metric)
        self.evals += len(items)
        order = np.argsort(-out, kind="stable")
        for position in order.tolist():
            # No pair of this item with one nearer to the middle is farther apart than twice its own distance.
            self.poll()
            if fold * out[position] * (1 + 1e-9) < best[0]:
                break
            here = self.row(int(items[position]))[items]
            top = float(here.max())
            pair = sorted((int(items[position]), int(items[here.argmax()])))
            if top > best[0]:
                best = (top, pair[0], pair[1])
        return best

    def _middle(self, items: Ints) -> Floats:
        rows = self._X[items].astype(np.float64)
        if self._metric != "cosine":
            middle: Floats = rows.mean(axis=0)
            return middle
        direction: Floats = directions(rows).mean(axis=0)
        return direction


class _Stopped(Exception):
    """The time was up in the middle of a step."""


class _Filling:
    """Items that make up the number where the time was up before plain greedy had picked k."""

    def __init__(self, X: Any, metric: str, scores: Any) -> None:
        self._X, self._metric, self._scores = X, metric, scores
        self.how = AT_RANDOM

    def of(self, picks: list[int], open_items: Mask, count: int) -> list[int]:
        """The items of the highest scores, or what greedy search on a sample picks, or any; and how that was."""
        left = open_items.copy()
        left[picks] = False
        if self._scores is not None:
            self.how = "by their scores"
            order: Ints = np.argsort(np.where(left, -self._scores, np.inf), kind="stable")
        elif (fill := filling_of(self._X, self._metric, picks)) is not None:
            self.how, order = BY_SAMPLES, fill(left, count)
        else:
            order = np.random.default_rng(0).permutation(np.flatnonzero(left))
        more: list[int] = order[:count].tolist()
        return more


class _Gist:
    """One run over all thresholds."""

    def __init__(
        self,
        rows: _Rows,
        utility: Callable[[], Objective],
        open_items: Mask,
        k: int,
        lam: float,
        control: Control,
        filling: _Filling,
    ) -> None:
        self.rows, self.utility, self.open, self.k, self.lam = rows, utility, open_items, k, lam
        self.filling = filling
        # How many picks plain greedy had made when the time was up; None where it was through.
        self.picks_in_time: int | None = None
        self.control, self.stopped = control, False
        self.diameter = math.nan
        self.best: tuple[list[int], list[float], float] = ([], [], -math.inf)
        self.threshold = 0.0
        self.calls = 0
        self.offset: float | None = None
        # A first gain is the largest that an item ever has, whatever the threshold.
        self._first: Floats | None = None

    def run(self, eps: float) -> bool:
        """Try everything; returns whether time ran out."""
        try:
            self._run(eps)
        except _Stopped:
            self.stopped = True
            picks, gains, value = self.best
            if math.isnan(value):
                self.best = (picks, gains, math.fsum(gains) + self.lam * self.least(picks))
        return self.stopped

    def _run(self, eps: float) -> None:
        picks, gains = self._spread(0.0)
        if self.stopped and not self.control.interrupted:
            # Other items make up the number; they are valued while the grace of the limit lasts.
            utility = self.utility()
            self.picks_in_time = len(picks)
            more = self.filling.of(picks, self.open, self.k - len(picks))
            gains = []
            for item in (picks := picks + more):
                gains.append(math.nan if self.control.late() else utility.add(item))
        if self.stopped:
            self.best = (picks, gains, math.fsum(gains) + self.lam * self.least(picks))
            return
        # Two picks or more need no diameter to be valued, and are there should finding it take too long.
        self.best = (picks, gains, math.fsum(gains) + self.lam * self.least(picks))
        far, a, b = self.rows.diameter(self.open)
        self.diameter = far
        self.best = ([], [], -math.inf)
        self._offer(picks, gains, 0.0)
        if self.k >= 2 and far > 0:
            utility = self.utility()
            self._offer([a, b], [utility.add(a), utility.add(b)], far)
        step, threshold = 0, eps * far / 2
        while far > 0 and threshold <= far:
            self._offer(*self._spread(threshold), threshold)
            if self.stopped:
                return
            step += 1
            self.control.step(step)
            threshold = (1 + eps) ** step * eps * far / 2

    def least(self, picks: list[int]) -> float:
        """The least distance between two of the picks; the pool's diameter for fewer than two."""
        pairs = [float(self.rows.between(j, picks[:position]).min()) for position, j in enumerate(picks) if position]
        if not pairs and self.stopped and self.rows.n <= _SOON:
            self.rows.control = Control()
            self.diameter = self.rows.diameter(self.open)[0]
        return min(pairs) if pairs else self.diameter

    def _offer(self, picks: list[int], gains: list[float], threshold: float) -> None:
        value = math.fsum(gains) + self.lam * self.least(picks)
        # On a tie the later, wider set wins, as in the paper.
        if value >= self.best[2]:
            self.best, self.threshold = (picks, gains, value), threshold

    def _spread(self, threshold: float) -> tuple[list[int], list[float]]:
        """Greedy for the utility among items at least `threshold` from all picks; those so far, once it is stopped."""
        utility = self.utility()
        left = self.open.copy()
        picks: list[int] = []
        gains: list[float] = []
        utility.bind(self.rows.poll)
        try:
            if self._first is None:
                self.offset = utility.offset
                self._first = self._alone(utility)
            upper = self._first.copy()
            while len(picks) < self.k and left.any():
                item = self._lead(utility, upper, left)
                picks.append(item)
                gains.append(utility.add(item))
                left[item] = False
                if threshold > 0:
                    left &= self.rows.row(item) >= threshold
        except _Stopped:
            self.stopped = True
        utility.bind(None)
        return picks, gains

    def _alone(self, utility: Objective) -> Floats:
        """The most that each open item ever gains."""
        items = np.flatnonzero(self.open)
        out = np.full(self.rows.n, -math.inf)
        out[items] = utility.gains(items) + utility.tolerance
        self.calls += len(items)
        return out

    def _lead(self, utility: Objective, upper: Floats, left: Mask) -> int:
        """The best item left, by gains that are only looked at where an old one, an upper bound, could win."""
        best, gain = -1, -math.inf
        self.rows.poll()
        items = np.flatnonzero(left)
        items = items[np.lexsort((items, -upper[items]))]
        size = 1
        while len(items) and upper[items[0]] >= gain:
            self.rows.poll()
            batch = np.sort(items[:size])
            now = utility.exact_gains(batch)
            upper[batch] = now
            self.calls += len(batch)
            top = int(np.argmax(now))
            if now[top] > gain or (now[top] == gain and batch[top] < best):
                best, gain = int(batch[top]), float(now[top])
            items = items[size:]
            size = min(256, 2 * size)
        return best
