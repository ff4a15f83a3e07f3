"""Small networks trained on real data in about a second, and what merging them needs: tasks, starts and fine-tunes.

A network is its state: a dict of float32 arrays named as torch names those of `Sequential(Linear, ReLU, Linear, ...)`:
`0.weight` (out, in), `0.bias`, `2.weight`, ... Everything is plain NumPy; trained states are kept on disk by what they
were made from, where that is possible, and are the same whether they were kept or not.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claims.harness.data import Labelled, diamonds, digits, halves
from claims.harness.learners import one_hot, softmax

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
State = dict[str, Floats]

# Part of every key: what was trained by other code is not found.
_VERSION = "1"
# Rows are cut once, so that no run of any claim trains on what another one tests on.
_CUT = 20_251


@dataclass(frozen=True)
class Task:
    """Rows to train on, to choose on and to judge on; `key` names how they were made."""

    key: str
    train: Labelled
    valid: Labelled
    test: Labelled

    @property
    def classes(self) -> int:
        """Width of the head, the same for every task over one data set."""
        return self.train.classes


def task(
    data: str = "digits",
    *,
    classes: Sequence[int] | None = None,
    rotate: float = 0.0,
    mixed: int | None = None,
    noise: float = 0.0,
    rows: int | None = None,
    seed: int = 0,
) -> Task:
    """A version of a data set: 60% to train on, 20% to choose on, 20% to judge on, cut the same way for every task.

    Args:
        data: "digits" (1,797 images, 64 pixels, ten classes) or "diamonds" (6,000 rows, five classes by price).
        classes: only rows of these classes, in all three parts; the labels and the head stay as they are.
        rotate: degrees by which the images are turned (digits).
        mixed: a seed that puts the columns in another order, the same for all rows.
        noise: share of the training labels that are replaced by another class.
        rows: so many training rows, drawn; all by default.
        seed: of the noise and of the drawn rows.
    """
    chosen = None if classes is None else tuple(int(one) for one in classes)
    return _task(data, chosen, float(rotate), mixed, float(noise), rows, seed)


@functools.lru_cache(256)
def _task(
    data: str,
    classes: tuple[int, ...] | None,
    rotate: float,
    mixed: int | None,
    noise: float,
    rows: int | None,
    seed: int,
) -> Task:
    whole = digits() if data == "digits" else _few_diamonds()
    X = whole.X
    if rotate:
        from scipy.ndimage import rotate as turn

        images = X.reshape(-1, 8, 8)
        X = turn(images, rotate, axes=(2, 1), reshape=False, order=1).reshape(len(X), -1).astype(np.float32)
    if mixed is not None:
        X = np.ascontiguousarray(X[:, np.random.default_rng(mixed).permutation(X.shape[1])])
    train, rest = halves(Labelled(X, whole.y, whole.classes), 0.6, _CUT)
    valid, test = halves(rest, 0.5, _CUT)
    if classes is not None:
        train, valid, test = (part.take(np.flatnonzero(np.isin(part.y, classes))) for part in (train, valid, test))
    rng = np.random.default_rng(seed)
    if rows is not None:
        train = train.take(rng.permutation(len(train))[:rows])
    if noise:
        hit = rng.random(len(train)) < noise
        pool = np.arange(train.classes) if classes is None else np.array(classes)
        place = np.searchsorted(pool, train.y)
        wrong = pool[(place + rng.integers(1, len(pool), len(train))) % len(pool)]
        train = Labelled(train.X, np.where(hit, wrong, train.y), train.classes)
    return Task(repr((data, classes, rotate, mixed, noise, rows, seed)), train, valid, test)


@functools.cache
def _few_diamonds() -> Labelled:
    whole = diamonds(5)
    return whole.take(np.random.default_rng(_CUT).permutation(len(whole))[:6000])


def pretrain(task: Task, *, hidden: Sequence[int] = (64, 64), seed: int = 0, **training: Any) -> State:
    """A network from a fresh start (He), trained on the task; `training` as in `finetune`."""
    return _kept(
        ("pretrain", task.key, tuple(hidden), seed, tuple(sorted(training.items()))),
        lambda: _train(fresh(task, hidden, seed), task, seed=seed, **training),
    )


def fresh(task: Task, hidden: Sequence[int], seed: int) -> State:
    """An untrained network."""
    rng = np.random.default_rng([seed, 1])
    widths = [task.train.X.shape[1], *hidden, task.classes]
    state: State = {}
    for place, (low, high) in enumerate(itertools.pairwise(widths)):
        state[f"{2 * place}.weight"] = (rng.normal(size=(high, low)) * np.sqrt(2 / low)).astype(np.float32)
        state[f"{2 * place}.bias"] = np.zeros(high, np.float32)
    return state


def finetune(start: Mapping[str, Floats], task: Task, *, seed: int = 0, **training: Any) -> State:
    """Training that goes on from `start`, which stays as it is.

    Args:
        start: a state.
        task: what to learn.
        seed: of the order of the rows.
        training: `steps` (400) batches of `batch` (128) rows, by Adam at `rate` (3e-3) under a cosine schedule or by
            `optimizer="sgd"` with momentum 0.9; `decay` (1e-4) of the weights; `only`, a pattern or several
            (`fnmatch`) of the tensors that learn; `activation` "relu" or "linear"; `loss` "cross_entropy" or
            "squared" (on one-hot targets).
    """
    return _kept(
        ("finetune", digest(start), task.key, seed, tuple(sorted(training.items()))),
        lambda: _train(start, task, seed=seed, **training),
    )


def _train(
    start: Mapping[str, Floats],
    task: Task,
    *,
    seed: int,
    steps: int = 400,
    rate: float = 3e-3,
    batch: int = 128,
    decay: float = 1e-4,
    optimizer: str = "adam",
    only: str | Sequence[str] = "*",
    activation: str = "relu",
    loss: str = "cross_entropy",
) -> State:
    rng = np.random.default_rng([seed, 2])
    patterns = [only] if isinstance(only, str) else list(only)
    names = list(start)
    flat = np.concatenate([np.asarray(start[name], np.float32).ravel() for name in names])
    ends = np.cumsum([start[name].size for name in names]).tolist()
    state = {
        name: flat[end - start[name].size : end].reshape(start[name].shape)
        for name, end in zip(names, ends, strict=True)
    }
    learns = np.concatenate(
        [np.full(start[name].size, any(fnmatch.fnmatch(name, one) for one in patterns), np.float32) for name in names]
    )
    first, second = np.zeros_like(flat), np.zeros_like(flat)
    X, y = task.train.X, task.train.y
    order, at = rng.permutation(len(X)), 0
    for step in range(1, steps + 1):
        if at >= len(X):
            order, at = rng.permutation(len(X)), 0
        rows = order[at : at + batch]
        at += batch
        slopes = gradients(state, X[rows], y[rows], activation=activation, loss=loss)
        slope = np.concatenate([slopes[name].ravel() for name in names]) + np.float32(decay) * flat
        slope *= learns
        now = rate * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        if optimizer == "sgd":
            first = np.float32(0.9) * first + slope
            flat -= np.float32(now) * first
        else:
            first += np.float32(0.1) * (slope - first)
            second += np.float32(0.01) * (slope * slope - second)
            scale = np.sqrt(second / np.float32(1 - 0.99**step)) + np.float32(1e-8)
            flat -= np.float32(now / (1 - 0.9**step)) * first / scale
    return {name: state[name].copy() for name in names}


def depth(state: Mapping[str, Floats]) -> list[str]:
    """The layers, first to last: the names before `.weight`."""
    return sorted((name[:-7] for name in state if name.endswith(".weight")), key=int)


def features(state: Mapping[str, Floats], X: Floats, *, activation: str = "relu") -> list[Floats]:
    """The input, then what each hidden layer gives after its activation, then the logits."""
    layers, out = depth(state), [X]
    for place, layer in enumerate(layers):
        ahead = out[-1] @ state[f"{layer}.weight"].T + state[f"{layer}.bias"]
        last = place == len(layers) - 1 or activation == "linear"
        out.append(ahead if last else np.maximum(ahead, 0))
    return out


def logits(state: Mapping[str, Floats], X: Floats, *, activation: str = "relu") -> Floats:
    """(n, classes)."""
    return features(state, X, activation=activation)[-1]


def gradients(
    state: Mapping[str, Floats], X: Floats, y: Ints, *, activation: str = "relu", loss: str = "cross_entropy"
) -> State:
    """Of the mean loss over the rows, by tensor."""
    layers, seen = depth(state), features(state, X, activation=activation)
    targets = one_hot(y, seen[-1].shape[1])
    ahead = softmax(seen[-1]) if loss == "cross_entropy" else 2 * seen[-1]
    back: Any = (ahead - (targets if loss == "cross_entropy" else 2 * targets)) / np.float32(len(X))
    out: State = {}
    for place in reversed(range(len(layers))):
        layer = layers[place]
        out[f"{layer}.weight"] = back.T @ seen[place]
        out[f"{layer}.bias"] = back.sum(axis=0)
        if place:
            back = back @ state[f"{layer}.weight"]
            if activation == "relu":
                back *= seen[place] > 0
    return out


def row_gradients(state: Mapping[str, Floats], X: Floats, y: Ints) -> dict[str, Floats]:
    """(n, *shape) of each row's own cross-entropy, by tensor: its squares' mean is the empirical Fisher information."""
    layers, seen = depth(state), features(state, X)
    back = softmax(seen[-1]) - one_hot(y, seen[-1].shape[1])
    out: dict[str, Floats] = {}
    for place in reversed(range(len(layers))):
        layer = layers[place]
        out[f"{layer}.weight"] = back[:, :, None] * seen[place][:, None, :]
        out[f"{layer}.bias"] = back
        if place:
            back = (back @ state[f"{layer}.weight"]) * (seen[place] > 0)
    return out


def module(state: Mapping[str, Floats]) -> Any:
    """The same network in torch: `Sequential(Linear, ReLU, Linear, ...)`, which has these names."""
    import torch

    layers = [torch.nn.Linear(*state[f"{layer}.weight"].shape[::-1]) for layer in depth(state)]
    parts = [part for layer in layers for part in (layer, torch.nn.ReLU())][:-1]
    model = torch.nn.Sequential(*parts)
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
    return model


def loss(state: Mapping[str, Floats], X: Floats, y: Ints) -> float:
    """Mean cross-entropy, in nats."""
    ahead = logits(state, X).astype(np.float64)
    ahead -= ahead.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(ahead).sum(axis=1)) - ahead[np.arange(len(y)), y]))


def accuracy(state: Mapping[str, Floats], X: Floats, y: Ints, *, classes: Sequence[int] | None = None) -> float:
    """Share of the rows whose class is found; among `classes` only, if given."""
    ahead = logits(state, X)
    if classes is not None:
        shut = np.setdiff1d(np.arange(ahead.shape[1]), classes)
        ahead[:, shut] = -np.inf
    return float((ahead.argmax(axis=1) == y).mean())


def average(states: Sequence[Mapping[str, Floats]], weights: Sequence[float] | None = None) -> State:
    """The naive average, by hand: what every claim on merging shows beside its own."""
    shares = np.full(len(states), 1 / len(states)) if weights is None else np.asarray(weights, np.float64)
    return {
        name: sum(share * state[name].astype(np.float64) for share, state in zip(shares, states, strict=True)).astype(
            np.float32
        )
        for name in states[0]
    }


def ensemble_accuracy(states: Sequence[Mapping[str, Floats]], X: Floats, y: Ints) -> float:
    """Of the members' mean probabilities: what merging gives up, and what it may not cost."""
    mean = np.mean([softmax(logits(state, X)) for state in states], axis=0)
    return float((mean.argmax(axis=1) == y).mean())


def barrier(a: Mapping[str, Floats], b: Mapping[str, Floats], X: Floats, y: Ints, *, points: int = 11) -> float:
    """How far the loss on the straight path from a to b rises above the line between its ends, in nats, at most."""
    steps = np.linspace(0, 1, points)
    path = np.array([loss(average([a, b], [1 - t, t]), X, y) for t in steps.tolist()])
    return float((path - ((1 - steps) * path[0] + steps * path[-1])).max())


def distance(a: Mapping[str, Floats], b: Mapping[str, Floats]) -> float:
    """L2, over all tensors."""
    return float(np.sqrt(sum(np.square(a[name].astype(np.float64) - b[name]).sum() for name in a)))


def digest(state: Mapping[str, Any]) -> str:
    """Of names, shapes and bits."""
    out = hashlib.blake2b(digest_size=16)
    for name, array in state.items():
        out.update(f"{name}{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return out.hexdigest()


def _folder() -> Path | None:
    """Where trained states are kept: `KOFN_CLAIMS_CACHE`, the user's cache, or the system's temporary folder."""
    named = os.environ.get("KOFN_CLAIMS_CACHE")
    if named == "":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for place in [named] if named else [os.path.join(home, "kofn"), os.path.join(tempfile.gettempdir(), "kofn")]:
        folder = Path(str(place)) / "networks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


def _kept(made_from: tuple[Any, ...], make: Callable[[], State]) -> State:
    """What `make` gives, from disk if it is there; set `KOFN_CLAIMS_CACHE=` (empty) to make everything afresh."""
    folder = _folder()
    if folder is None:
        return make()
    key = hashlib.blake2b(repr((_VERSION, np.__version__, *made_from)).encode(), digest_size=16).hexdigest()
    path = folder / f"{key}.npz"
    try:
        with np.load(path) as held:
            return {name: held[name] for name in held.files}
    except Exception:  # absent, or half of a file that another process was stopped at
        state = make()
    try:
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
            np.savez(part, **state)  # type: ignore[arg-type]
        os.replace(part.name, path)
    except OSError:
        pass  # a full or locked disk costs time, nothing else
    return state
