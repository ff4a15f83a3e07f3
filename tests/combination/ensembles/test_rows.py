"""Weights and blocks of rows: a weight is as many copies, and a block is never on both sides of a fold."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.combination import dynamic_ensemble_selection, ensemble_selection, stacking
from kofn.core.checks import InputError
from kofn.core.plans import Blend


def _drawn(loss: str, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    if loss in ("rmse", "mae", "pinball"):
        y = 100 * rng.normal(size=80)
        members = [y + 100 * rng.normal(size=80) for _ in range(4)]
        return [np.stack([m - 50, m + 50], axis=1) if loss == "pinball" else m for m in members], y
    y = rng.integers(0, 3, 80)
    logits = rng.normal(size=(4, 80, 3)) + np.eye(3)[y]
    return list(np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)), y


def _asked(method: Any, members: list[np.ndarray], y: np.ndarray, loss: str, **words: Any) -> Blend:
    quantiles = {"quantiles": [0.2, 0.8]} if loss == "pinball" else {}
    return method(members, y=y, loss=loss, folds=0, **quantiles, **words)


CASES = [
    *(("ensemble_selection", loss, {}) for loss in ("log_loss", "brier", "accuracy", "rmse", "mae", "pinball")),
    *(("stacking", loss, {"final": "simplex"}) for loss in ("log_loss", "brier", "rmse", "mae", "pinball")),
    ("stacking", "rmse", {"final": "ridge", "penalty": 0.1}),
    ("stacking", "log_loss", {"final": "logistic", "penalty": 0.1}),
]


@pytest.mark.parametrize(("name", "loss", "words"), CASES, ids=[f"{name}-{loss}-{w}" for name, loss, w in CASES])
def test_a_weight_is_as_many_copies(name: str, loss: str, words: dict[str, Any]) -> None:
    members, y = _drawn(loss, seed=1)
    copies = np.random.default_rng(2).integers(0, 4, len(y))
    rows = np.repeat(np.arange(len(y)), copies)
    method = {"ensemble_selection": ensemble_selection, "stacking": stacking}[name]
    # What is a share of the median error in the rounding of absolute errors is not that of copies.
    near = 0.02 if loss in ("mae", "pinball") and name == "stacking" else 1e-6
    weighed = _asked(method, members, y, loss, row_weights=0.1 * copies, **words)
    copied = _asked(method, [member[rows] for member in members], y[rows], loss, **words)
    np.testing.assert_allclose(weighed.weights, copied.weights, atol=near)
    assert weighed.value == pytest.approx(copied.value, rel=near)
    assert weighed.info["plain_mean"] == pytest.approx(copied.info["plain_mean"])
    if name == "ensemble_selection":
        assert (weighed.bound is None) == (copied.bound is None)
        assert weighed.bound is None or weighed.bound == pytest.approx(copied.bound)
        np.testing.assert_allclose(weighed.selection.gains, copied.selection.gains, atol=1e-9)
    assert not np.allclose(weighed.value, _asked(method, members, y, loss, **words).value, rtol=1e-4)


def test_what_is_held_out_is_weighed_and_keeps_blocks_together() -> None:
    """Folds of blocks are other folds than those of rows, as many as there are blocks, and their losses are weighed."""
    rng = np.random.default_rng(3)
    blocks = np.repeat(np.arange(20), 10)
    y = rng.normal(size=20)[blocks] + 0.1 * rng.normal(size=200)
    members = [y + np.where(rng.integers(0, 2, 20)[blocks] == 1, 0.2, 1.0) * rng.normal(size=200) for _ in range(5)]
    for method in (ensemble_selection, stacking):
        free, kept = method(members, y=y, seed=0), method(members, y=y, seed=0, blocks=blocks)
        assert kept.info["held_out"]["folds"] == 5
        assert free.info["held_out"]["blend"] != kept.info["held_out"]["blend"]
        few = method(members, y=y, seed=0, blocks=blocks > 9)
        assert few.info["held_out"]["folds"] == 2
        weights = (blocks < 10).astype(float)
        half = method(members, y=y, seed=0, blocks=blocks, row_weights=weights)
        rows = weights > 0
        alone = float(np.sqrt(np.mean((np.mean(members, axis=0)[rows] - y[rows]) ** 2)))
        assert half.info["held_out"]["plain_mean"] == pytest.approx(alone)


def test_each_block_is_in_one_fold() -> None:
    from kofn.combination.ensembles._held_out import folds_of
    from kofn.combination.ensembles._task import read_task

    blocks = np.random.default_rng(0).integers(0, 9, 60)
    task = read_task([np.random.default_rng(1).normal(size=60)], np.arange(60.0), "rmse", blocks=blocks)
    order, bounds, _ = folds_of(task, 4, np.random.default_rng(0))
    of_fold = [set(blocks[order[low:high]]) for low, high in itertools.pairwise(bounds)]
    assert len(of_fold) == 4
    assert sum(map(len, of_fold)) == len(set.union(*of_fold)) == len(set(blocks))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"row_weights": [1, -1, 1, 1]}, "row_weights at row 1 is -1; weights must be >= 0"),
    "all zero": ({"row_weights": [0, 0, 0, 0]}, "row_weights are all zero"),
    "too few": ({"row_weights": [1, 1]}, "row_weights has 2 values, y has 4 rows"),
    "one block": ({"blocks": ["a"] * 4}, "blocks has one block .'a'.; folds need two, leave blocks out"),
    "few blocks": ({"blocks": ["a", "b"]}, "blocks has 2 values, y has 4 rows"),
}


@pytest.mark.parametrize("method", ["ensemble_selection", "stacking", "dynamic_ensemble_selection"])
@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(method: str, words: dict[str, Any], says: str) -> None:
    X = {"X": [[1.0], [2.0], [3.0], [4.0]]} if method.startswith("dynamic") else {}
    with pytest.raises(InputError, match=says):
        kofn.combine([[0.1, 0.5, 0.9, 0.3], [0.2, 0.4, 0.6, 0.1]], y=[0, 1, 1, 0], method=method, **X, **words)


def test_rows_of_no_weight_are_nobodys_neighbours() -> None:
    rng = np.random.default_rng(0)
    X, y, heavy = rng.normal(size=(60, 2)), rng.integers(0, 2, 60), rng.random(60) < 0.6
    members = [np.clip(0.5 * y + 0.5 * rng.random(60), 0, 1) for _ in range(3)]
    words: dict[str, Any] = {"strategy": "meta_des", "n_neighbors": 5, "folds": 0, "standardize": False}
    weighed = dynamic_ensemble_selection(members, y=y, X=X, row_weights=heavy.astype(float), **words)
    alone = dynamic_ensemble_selection([member[heavy] for member in members], y=y[heavy], X=X[heavy], **words)
    np.testing.assert_allclose(weighed.result[heavy], alone.result)
    assert weighed.value == pytest.approx(alone.value)


def test_the_log_loss_of_rows_is_that_of_their_blend() -> None:
    from kofn.combination.ensembles._losses import row_losses
    from kofn.combination.ensembles._task import read_task

    members, y = _drawn("log_loss", 0)
    members[1][3:9] = np.nan
    weights, rows = np.array([0.0, 0.4, 0.5, 0.1]), np.random.default_rng(0).permutation(80)[:50]
    task = read_task(members, y, "log_loss")
    naive = row_losses("log_loss", task.blended(weights, rows), task.target[rows], task.levels)
    assert task.row_losses(weights, rows).tolist() == naive.tolist()


def test_repeated_predictions_are_seen_whichever_rows_they_are_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.combination.ensembles import _held_out
    from kofn.combination.ensembles._task import read_task

    members, y = _drawn("log_loss", 1)
    for member in members:
        member[70] = member[4]
    task = read_task(members, y, "log_loss")
    of_all, repeated = _held_out._same_predictions(task)
    assert repeated == 1
    assert of_all[70] == of_all[4]
    monkeypatch.setattr(_held_out, "_AT_ONCE", 7)
    assert _held_out._same_predictions(task)[0].tolist() == of_all.tolist()
