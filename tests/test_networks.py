"""The rig of small networks that the claims on merging share: its gradients, its tasks, what it keeps on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from claims.harness import networks

SHORT = {"hidden": (12, 8), "steps": 20}


@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_gradients_are_the_slopes_of_the_loss(activation: str, loss: str) -> None:
    task = networks.task()
    state = {name: array.astype(np.float64) for name, array in networks.fresh(task, (7, 5), 0).items()}
    X, y = task.train.X[:30].astype(np.float64), task.train.y[:30]

    def value(at: dict[str, np.ndarray]) -> float:
        ahead = networks.logits(at, X, activation=activation)
        if loss == "squared":
            return float(np.square(ahead - np.eye(10)[y]).sum(axis=1).mean())
        return float(np.mean(np.log(np.exp(ahead).sum(axis=1)) - ahead[np.arange(30), y]))

    slopes = networks.gradients(state, X, y, activation=activation, loss=loss)
    rng = np.random.default_rng(0)
    for name in state:
        step = rng.normal(size=state[name].shape)
        moved = [value({**state, name: state[name] + sign * 1e-6 * step}) for sign in (1, -1)]
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(float((slopes[name] * step).sum()), rel=1e-4, abs=1e-7)
    if activation == "relu" and loss == "cross_entropy":
        rows = networks.row_gradients(state, X, y)
        assert all(np.allclose(rows[name].mean(axis=0), slopes[name], atol=1e-7) for name in state)
        assert networks.loss(state, X, y) == pytest.approx(value(state))


def test_what_is_kept_is_what_would_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = networks.task(classes=(0, 1, 2), noise=0.2, rows=200, seed=1)
    monkeypatch.setenv("KOFN_CLAIMS_CACHE", "")
    made = networks.pretrain(task, seed=3, **SHORT)
    monkeypatch.setenv("KOFN_CLAIMS_CACHE", str(tmp_path))
    for _ in range(2):
        kept = networks.pretrain(task, seed=3, **SHORT)
        assert networks.digest(kept) == networks.digest(made)
    files = list(tmp_path.rglob("*.npz"))
    assert len(files) == 1
    files[0].write_bytes(b"half of a file")
    assert networks.digest(networks.pretrain(task, seed=3, **SHORT)) == networks.digest(made)
    assert networks.digest(networks.pretrain(task, seed=4, **SHORT)) != networks.digest(made)
    tuned = networks.finetune(made, task, seed=1, steps=10, only="4.*")
    assert [name for name in made if not np.array_equal(made[name], tuned[name])] == ["4.weight", "4.bias"]
    monkeypatch.setenv("KOFN_CLAIMS_CACHE", str(files[0]))  # no folder: nothing is kept, and nothing fails
    assert networks.digest(networks.pretrain(task, seed=3, **SHORT)) == networks.digest(made)


def test_tasks_share_their_cut_and_differ_as_asked() -> None:
    plain, turned = networks.task(), networks.task(rotate=90)
    assert np.array_equal(plain.test.y, turned.test.y)
    first = plain.test.X[0].reshape(8, 8)
    seen = turned.test.X[0].reshape(8, 8)
    assert any(np.allclose(np.rot90(first, times), seen, atol=1e-5) for times in (1, 3))
    assert sum(len(part) for part in (plain.train, plain.valid, plain.test)) == 1797
    few = networks.task(classes=(3, 7))
    assert set(few.train.y.tolist()) == {3, 7}
    assert few.classes == 10
    noisy = networks.task(classes=(3, 7), noise=0.3, seed=2)
    assert 0.15 < (noisy.train.y != few.train.y).mean() < 0.45
    assert set(noisy.train.y.tolist()) == {3, 7}
    assert np.array_equal(noisy.test.y, few.test.y)
    mixed = networks.task(mixed=1)
    assert not np.array_equal(mixed.train.X, plain.train.X)
    assert np.array_equal(np.sort(mixed.train.X, axis=1), np.sort(plain.train.X, axis=1))


def test_trained_networks_know_their_task() -> None:
    for data, least in (("digits", 0.9), ("diamonds", 0.75)):
        task = networks.task(data)
        state = networks.pretrain(task, hidden=(32,), seed=0)
        assert networks.accuracy(state, task.test.X, task.test.y) > least
        assert networks.barrier(state, state, task.test.X, task.test.y) == pytest.approx(0, abs=1e-6)
        assert networks.distance(state, networks.average([state, state])) == 0
        assert networks.ensemble_accuracy([state, state], task.test.X, task.test.y) > least
