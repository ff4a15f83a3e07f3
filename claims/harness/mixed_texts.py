"""Groups of real texts that are learned unequally fast, and a model of their characters that is trained on a mixture.

Verses, functions, and rows of three tables written as text. The model predicts a character from the four before it: a
softmax over the sum of a row for each of the last one to four characters, hashed, trained by Adagrad. A batch is of one
group; which, is handed in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .,;:-_()[]='\"\n"
VOCABULARY = len(_LETTERS) + 1
# Rows of the model for the last 1, 2, 3 and 4 characters.
_ROWS = (VOCABULARY, 1024, 2048, 2048)
_STARTS = np.concatenate([[0], np.cumsum(_ROWS)[:-1]])
ORDER = len(_ROWS)
_CODES = np.full(256, VOCABULARY - 1, np.int64)
_CODES[[ord(letter) for letter in _LETTERS]] = np.arange(len(_LETTERS))
_MOST = 400_000


def codes(text: str) -> Ints:
    """The characters of a text as numbers, in lower case; those that are rare share one."""
    raw = np.frombuffer(text.lower().encode("latin-1", "replace"), np.uint8)[:_MOST]
    return _CODES[raw]


@functools.cache
def verses(early: bool) -> Ints:
    """The first or the last third of a book of verses."""
    from kofn import datasets

    texts = datasets.load("verses").texts
    third = len(texts) // 3
    return codes("\n".join(texts[:third] if early else texts[-third:]))


@functools.cache
def functions(packages: tuple[str, ...]) -> Ints:
    """Functions of some Python packages."""
    import polars as pl

    path = Path(__file__).resolve().parents[2] / "examples" / "functions.csv.gz"
    frame = pl.read_csv(path)
    return codes("\n".join(frame.filter(pl.col("package").is_in(packages))["code"].to_list()))


@functools.cache
def table(name: str, rows: int) -> Ints:
    """Rows of a table, as a file of comma-separated values has them."""
    from kofn import datasets

    frame = datasets.load(name).frame
    return codes(frame.sample(rows, seed=1).write_csv(include_header=False))


@functools.cache
def groups() -> Mapping[str, Ints]:
    """Five groups of very unequal size."""
    return {
        "verses": verses(early=True),
        "functions": functions(("numpy", "scipy", "networkx", "numba", "polars")),
        "diamonds": table("diamonds", 6000),
        "flights": table("flights", 2500),
        "airports": table("airports", 1000),
    }


class CharacterModel:
    """Predicts the next character; `step` learns from a batch, `loss` and `gradient` look at one."""

    def __init__(self, rate: float = 0.25) -> None:
        self.rate = np.float32(rate)
        self.weights: Floats = np.zeros((sum(_ROWS), VOCABULARY), np.float32)
        self.squares: Floats = np.full_like(self.weights, 1e-4)

    @staticmethod
    def features(text: Ints, ends: Ints) -> Ints:
        """(batch, 4) rows of the characters before each of these positions."""
        out = np.empty((len(ends), ORDER), np.int64)
        mixed = np.zeros(len(ends), np.int64)
        for length in range(ORDER):
            mixed = (mixed * 1_000_003 + text[ends - 1 - length] + 1) % 2_147_483_647
            out[:, length] = _STARTS[length] + (text[ends - 1] if length == 0 else mixed % _ROWS[length])
        return out

    def _errors(self, rows: Ints, target: Ints) -> tuple[float, Floats]:
        """The mean loss, and predicted less actual, (batch, vocabulary)."""
        logits = self.weights[rows].sum(axis=1)
        logits -= logits.max(axis=1, keepdims=True)
        share = np.exp(logits)
        share /= share.sum(axis=1, keepdims=True)
        index = np.arange(len(target))
        loss = -float(np.log(np.maximum(share[index, target], 1e-30)).mean())
        share[index, target] -= 1
        return loss, share / np.float32(len(target))

    def _gathered(self, rows: Ints, errors: Floats) -> tuple[Ints, Floats]:
        """Which rows have a gradient, and it."""
        from scipy.sparse import csr_array

        touched, position = np.unique(rows.ravel(), return_inverse=True)
        batch = np.repeat(np.arange(len(rows)), ORDER)
        sums = csr_array((np.ones(len(batch), np.float32), (position.ravel(), batch)), (len(touched), len(rows)))
        return touched, sums @ errors

    def step(self, text: Ints, ends: Ints) -> float:
        """Learn from a batch; the loss is that before."""
        rows = self.features(text, ends)
        loss, errors = self._errors(rows, text[ends])
        touched, slope = self._gathered(rows, errors)
        self.squares[touched] += slope * slope
        self.weights[touched] -= self.rate * slope / np.sqrt(self.squares[touched])
        return loss

    def loss(self, text: Ints, ends: Ints) -> float:
        """Mean loss."""
        return self._errors(self.features(text, ends), text[ends])[0]

    def gradient(self, text: Ints, ends: Ints) -> Floats:
        """All of the gradient of the mean loss, as one vector."""
        rows = self.features(text, ends)
        touched, slope = self._gathered(rows, self._errors(rows, text[ends])[1])
        out = np.zeros_like(self.weights)
        out[touched] = slope
        return out.ravel()

    def moved(self, direction: Floats, size: float) -> CharacterModel:
        """A copy that took a step against a gradient, each weight at its own rate."""
        other = CharacterModel(float(self.rate))
        step = direction.reshape(self.weights.shape) / np.sqrt(self.squares)
        other.weights = (self.weights - np.float32(size) * step).astype(np.float32)
        other.squares = self.squares
        return other


def split(text: Ints, rng: np.random.Generator, held_out: int) -> tuple[Ints, Ints]:
    """Positions to train on, and some from the last tenth of the text to judge on."""
    cut = len(text) * 9 // 10
    return np.arange(ORDER, cut), rng.integers(cut + ORDER, len(text), held_out)


def trained(
    texts: Sequence[Ints],
    places: Sequence[Ints],
    choose: Callable[[int, CharacterModel], int],
    *,
    steps: int,
    rng: np.random.Generator,
    batch: int = 64,
    learned: Callable[[int, float], Any] = lambda _group, _loss: None,
    judge: Callable[[CharacterModel], float],
    every: int,
) -> list[float]:
    """Train a model on batches of the groups that `choose` names; what it is judged by, every so many steps."""
    model, path = CharacterModel(), []
    for step in range(steps):
        group = choose(step, model)
        ends = places[group][rng.integers(0, len(places[group]), batch)]
        learned(group, model.step(texts[group], ends))
        if (step + 1) % every == 0:
            path.append(judge(model))
    return path
