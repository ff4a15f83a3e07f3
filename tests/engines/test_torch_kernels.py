"""Bounds on squared distances and on what candidates save hold for exact arithmetic, and are close."""

from __future__ import annotations

import numpy as np
import pytest
from device_pools import KINDS, drawn

torch = pytest.importorskip("torch")

from kofn.core.devices import Room  # noqa: E402
from kofn.engines.torch_kernels import HIGH, LOW, Blocks, Changes, CostRule, Points, Served, savings  # noqa: E402
from kofn.objectives.similarity import geometry  # noqa: E402

CPU = torch.device("cpu")
NAMES = {"euclidean": CostRule(False), "sqeuclidean": CostRule(True), "cosine": CostRule(True)}


def exact_squares(points: np.ndarray) -> np.ndarray:
    """Squared distances in extended precision."""
    wide = points.astype(np.longdouble)
    return ((wide[:, None] - wide[None]) ** 2).sum(axis=2)


@pytest.mark.parametrize("metric", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_enclose_squared_distances(kind: str, metric: str) -> None:
    space = geometry(drawn(kind, 0, 60, 7), metric)
    exact = exact_squares(space.points(slice(None)))
    narrow = Points(space.rows, space.scale, CPU)
    for points in (narrow, narrow.wide()):
        low, high = (points.squares(slice(None), slice(None), side).numpy() for side in (LOW, HIGH))
        assert (low <= exact).all()
        assert (exact <= high).all()
        # Not so far apart that they would decide nothing: roundings of the squared diameter, and of where rows were.
        diameter, farthest = float(exact.max()) ** 0.5, float(np.abs(space.points(slice(None))).max())
        assert (high - low).max() <= np.finfo(low.dtype).eps * 200 * diameter**2 + 2.0**-52 * 400 * diameter * farthest


def test_bounds_hold_for_arithmetic_that_rounds_more() -> None:
    """What the processor computes in float32, from rows that were scaled and rounded first."""
    space = geometry(drawn("close together", 1, 80, 9), "cosine")
    rounded = space.points(slice(None)).astype(np.float32)
    theirs = np.zeros((80, 80), np.float32)
    for feature in rounded.T:
        theirs += (feature[:, None] - feature[None]) ** 2
    points = Points(space.rows, space.scale, CPU, relative=20 * 2.0**-24, rounded=True)
    low = points.squares(slice(None), slice(None), LOW).numpy()
    assert (low <= theirs).all()
    tighter = Points(space.rows, space.scale, CPU).squares(slice(None), slice(None), LOW).numpy()
    assert (low <= tighter).all()


@pytest.mark.parametrize("rate", [0.0, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pairs", [40, 1 << 20])
def test_bounds_enclose_what_candidates_save(pairs: int, weighted: bool, rate: float) -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(50, 5)).astype(np.float32)
    points = Points(X, np.empty(0), CPU)
    squares = exact_squares(X).astype(np.float64)
    cost = -np.expm1(-rate * squares) if rate else np.sqrt(squares)
    items = np.sort(rng.choice(50, 30, replace=False))
    old = rng.random(30) * (1 if rate else 4)
    new = old * rng.random(30)
    weights = rng.random(30) + 0.1 if weighted else np.ones(30)
    since = rng.integers(0, 30, size=50)
    saved = old[:, None] - np.clip(cost[items], new[:, None], old[:, None])
    saved[np.arange(30)[:, None] < since[None]] = 0
    served = Served(
        torch.tensor(items), torch.tensor(old), torch.tensor(new), torch.tensor(weights) if weighted else None
    )
    polls: list[int] = []
    for basis in (points, points.wide()):
        low, high = savings(
            basis,
            CostRule(bool(rate), rate),
            None,
            served,
            Blocks(pairs, 50),
            (LOW, HIGH),
            since=torch.tensor(since),
            poll=lambda: polls.append(1),
        )
        exact = weights @ saved
        assert (low.numpy() <= exact).all()
        assert (exact <= high.numpy()).all()
        assert np.allclose(low, high, rtol=1e-3, atol=1e-4)
    assert bool(polls) == (pairs == 40)


def test_zero_costs_save_exactly_nothing() -> None:
    points = Points(np.ones((4, 2), np.float32), np.empty(0), CPU)
    served = Served(None, torch.zeros(4, dtype=torch.float64), None, None)
    (high,) = savings(points, CostRule(False), None, served, Blocks(16, 4), (HIGH,))
    assert high.tolist() == [0.0] * 4


def test_changes_are_kept_as_long_as_following_them_pays() -> None:
    n = 8
    changes = Changes(n, CPU)
    history: list[tuple[int, float]] = []
    starts = [0]
    rng = np.random.default_rng(3)
    for picks in range(1, n):
        count = int(rng.integers(0, 4))
        items = rng.integers(0, n, size=count)
        changes.append(picks, torch.tensor(items), torch.tensor(items + 0.5), torch.tensor(items + 0.25))
        history += [(int(item), item + 0.5) for item in items]
        starts.append(len(history))
        for told, start in enumerate(starts):
            first = int(changes.start_of(torch.tensor([told])))
            pending = len(history) - start
            assert first == start or (first == -1 and pending > n // 2)
            if first >= 0:
                listed, old, _new = changes.since(first)
                assert list(zip(listed.tolist(), old.tolist(), strict=True)) == history[start:]
    changes.append(n, torch.arange(n), torch.ones(n), torch.zeros(n))
    assert changes.start_of(torch.tensor([-1, 0, n - 1, n])).tolist() == [-1, -1, -1, len(history) + n]


def test_blocks_cover_all_pairs_once_and_are_no_larger_than_told() -> None:
    for pairs, rows, columns in ((10, 3, 4), (64, 5, 1000), (1, 3, 3), (10**6, 7, 2)):
        seen = np.zeros((rows, columns), int)
        for run, part in Blocks(pairs, columns).runs(rows, columns):
            seen[run, part] += 1
            assert (run.stop - run.start) * (part.stop - part.start) <= max(1, pairs)
        assert (seen == 1).all()


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    from kofn.core.checks import InputError

    room = Room(5000, "max_memory=5000 is too little")
    with pytest.raises(InputError, match=r"max_memory=5000 is too little for this on the device.* give at least 14216"):
        Blocks.within(room, 5000, 12, CPU, "this")
    assert Blocks.within(room, 1000, 5, CPU, "this").pairs <= 4000 // 64
