"""lima against the naive greedy and its own rounds written out, and the score's four parts by definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import attribution_score, lima


class Counted:
    """A score of sets by a function of one mask, with the masks it was asked."""

    def __init__(self, value) -> None:
        self.value, self.asked = value, 0

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        assert masks.dtype == bool
        self.asked += len(masks)
        return np.array([self.value(mask) for mask in masks])


def random_score(seed: int, n: int) -> Counted:
    joint = np.random.default_rng(seed).normal(size=(n, n))
    return Counted(lambda mask: float(mask @ joint @ mask))


@pytest.mark.parametrize("seed", range(5))
def test_many_pending_is_the_naive_greedy(seed: int) -> None:
    n = 9
    score = random_score(seed, n)
    plan = lima(np.eye(n), score=score, pending=n)
    chosen: list[int] = []
    for _ in range(n):
        values = {}
        for item in set(range(n)) - set(chosen):
            mask = np.zeros(n, bool)
            mask[[*chosen, item]] = True
            values[item] = score.value(mask)
        chosen.append(max(values, key=lambda item: (values[item], -item)))
    assert plan.indices.tolist() == chosen
    assert plan.info["oracle_calls"] == n * (n + 1) // 2 == plan.info["search_calls"]


@pytest.mark.parametrize("pending", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_both_ends_are_the_papers_rounds(seed: int, pending: int) -> None:
    n = 11
    score = random_score(seed, n)
    best: list[int] = []
    worst: list[int] = []

    def told(items: list[int]) -> float:
        mask = np.zeros(n, bool)
        mask[items] = True
        return score.value(mask)

    while len(best) + len(worst) < n:
        left = [item for item in range(n) if item not in best + worst]
        values = {item: told([*best, item]) for item in left}
        top = max(left, key=values.get)
        if len(left) > pending:
            low = [item for item in sorted(left, key=values.get)[:pending] if item != top]
            if low:
                worst.append(min(low, key=lambda item: told([*worst, item])))
        best.append(top)
    plan = lima(np.eye(n), score=score, pending=pending)
    assert plan.indices.tolist() == best + worst[::-1]
    for t in range(1, n + 1):
        assert plan.gains[:t].sum() == pytest.approx(told(plan.indices[:t].tolist()), abs=1e-9)
    assert plan.value == told(list(range(n)))
    # A smaller k is the head of the same ranking.
    assert lima(np.eye(n), score=score, pending=pending, k=4).indices.tolist() == plan.indices[:4].tolist()


def test_queries_are_counted_and_fewer() -> None:
    n = 64
    score = random_score(0, n)
    plan = lima(np.eye(n), score=score)
    assert score.asked == plan.info["oracle_calls"]
    assert plan.info["search_calls"] * 1.6 <= n * (n + 1) // 2
    assert plan.info["oracle_calls"] * 1.55 <= n * (n + 1) // 2


@pytest.mark.parametrize("seed", range(6))
def test_on_coverage_the_first_are_within_the_greedys_share(seed: int) -> None:
    rng = np.random.default_rng(seed)
    covers = rng.random((10, 25)) < 0.25
    worth = rng.random(25)
    value = lambda mask: float(worth[covers[mask].any(axis=0)].sum())  # noqa: E731
    plan = lima(np.eye(10), score=Counted(value), pending=3, k=3)
    top = 0.0
    for picks in itertools.combinations(range(10), 3):
        mask = np.zeros(10, bool)
        mask[list(picks)] = True
        top = max(top, value(mask))
    assert plan.value >= (1 - 1 / math.e) * top


def test_the_score_is_its_four_parts() -> None:
    rng = np.random.default_rng(1)
    layer = rng.normal(size=(6, 3))
    x, base = rng.random(6), np.full(6, 0.3)
    regions = np.kron(np.eye(3), np.ones(2))

    def predict(rows: np.ndarray) -> np.ndarray:
        logits = np.exp(rows @ layer)
        return logits / logits.sum(axis=1, keepdims=True)

    def features(rows: np.ndarray) -> np.ndarray:
        return rows - 0.1

    def shown(mask: np.ndarray) -> np.ndarray:
        return np.where(mask @ regions > 0, x, base)[None]

    target = int(predict(x[None]).argmax())
    alone = {i: features(shown(np.arange(3) == i))[0] for i in range(3)}
    for chosen in ([0], [0, 2], [0, 1, 2]):
        mask = np.isin(np.arange(3), chosen)
        p = predict(shown(mask))[0]
        angle = {
            (i, j): math.acos(alone[i] @ alone[j] / np.linalg.norm(alone[i]) / np.linalg.norm(alone[j])) / math.pi
            for i, j in itertools.permutations(chosen, 2)
        }
        parts = {
            "confidence": 1 + float((p * np.log(p)).sum()) / math.log(3),
            "effectiveness": sum(min(angle[i, j] for j in chosen if j != i) for i in chosen) if angle else 0.0,
            "consistency": p[target],
            "collaboration": 1 - predict(shown(~mask))[0][target],
        }
        for name, part in parts.items():
            weights = {**dict.fromkeys(parts, 0.0), name: 2.0}
            score = attribution_score(predict, x, regions, base=base, features=features, **weights)
            assert score(mask[None])[0] == pytest.approx(2 * part, abs=1e-6), name
    default = attribution_score(predict, x, regions, target=1)
    assert default(np.eye(3, dtype=bool)).shape == (3,)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"score": None}, "score=None: give a callable that rates masks"),
        ({"score": 3}, "score=3: give a callable"),
        ({"score": lambda masks: 1.0}, r"score gave shape \(\) for 4 masks"),
        ({"score": lambda masks: np.where(masks[:, 2], np.nan, 1.0)}, r"score of the regions \[2\] is not a finite"),
        ({"score": lambda masks: masks.sum(axis=1), "pending": 0}, "pending=0: ask for at least 1"),
    ],
)
def test_refusals(words: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        lima(np.eye(4), **words)


def test_more_refusals() -> None:
    with pytest.raises(InfeasibleError, match="k=5 of 4 items"):
        lima(np.eye(4), score=lambda masks: masks.sum(axis=1), k=5)
    predict = lambda rows: np.tile([0.5, 0.5], (len(rows), 1))  # noqa: E731
    for bad, says in (
        ({"regions": np.eye(3)}, "regions has 3 columns, x has 2 values"),
        ({"base": [1.0]}, "base has 1 values, x has 2"),
        ({"target": 2}, r"target=2: the classes are 0..1"),
    ):
        with pytest.raises(InputError, match=says):
            attribution_score(predict, **{"x": [1.0, 2.0], "regions": np.eye(2), **bad})


def test_one_region() -> None:
    plan = lima(np.eye(1), score=lambda masks: masks.sum(axis=1) * 3.0)
    assert (plan.indices.tolist(), plan.value) == ([0], 3.0)


def test_a_first_round_that_is_stopped_picks_the_best_of_what_was_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are scored some at a time, and the limit is looked at between."""
    from kofn.selection.networks import _lima

    monkeypatch.setattr(_lima, "_MASKS_AT_ONCE", 16)
    worth = np.array([1.0, 5.0, 9.0, 3.0, 7.0, 2.0, 4.0, 8.0])
    asked: list[int] = []

    def score(masks: np.ndarray) -> np.ndarray:
        asked.append(len(masks))
        return masks @ worth

    plan = lima(np.eye(8), score=score, time_limit=1e-9)
    assert (asked, plan.indices.tolist(), plan.value, plan.status) == ([2], [1], 5.0, "stopped")
    asked.clear()
    whole = lima(np.eye(8), score=score, k=3)
    assert (max(asked), whole.indices.tolist()) == (2, [2, 7, 4])
