"""How much work k-medoids methods take on a pool of a size: distances, and steps of all else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kofn.assignment.medoids import _descent
from kofn.assignment.medoids._fastclara import usual_sample
from kofn.assignment.silhouettes import _pamk
from kofn.assignment.silhouettes._limits import limits_of_k
from kofn.core import checks

# Rounds over all candidates until no swap improves: 3 to 6 on blobs and on tables of 2,000 to 40,000 rows.
_ROUNDS = 5
# Steps that it takes to put a row to the nearer of two medoids, to read an entry of X (checks, copies, the loss in
# float64), and to check an entry of a matrix of distances.
_PLACING, _READING, _CHECKING = 6, 6, 3


@dataclass(frozen=True)
class Work:
    """Work of a call.

    Attributes:
        pairs: distances between rows that are computed.
        steps: pairs of a candidate and an item that the search for swaps looks at, and what takes as long.
    """

    pairs: float
    steps: float

    def __add__(self, other: Work) -> Work:
        return Work(self.pairs + other.pairs, self.steps + other.steps)

    def times(self, count: int) -> Work:
        """The work of so many such calls."""
        return Work(self.pairs * count, self.steps * count)


def work_of_fasterpam(n: int, *, options: Mapping[str, Any], call: Mapping[str, Any]) -> Work:
    """Of `fasterpam` on n rows: every distance once where they are held, else once a round."""
    rounds = 1 if call["k"] == 1 else min(_ROUNDS, options.get("max_iter") or _ROUNDS)
    looks = rounds * float(n) ** 2
    if "X" not in call:
        # Twice as many bytes take twice as long.
        return Work(0.0, (looks + _CHECKING * float(n) ** 2) * call["distances"].dtype.itemsize / 4)
    pairs = float(n) ** 2 if _is_held(n, call, _descent.DEFAULT_MEMORY) else looks
    return Work(pairs, looks + _reading(n, call))


def work_of_fastclara(n: int, *, options: Mapping[str, Any], call: Mapping[str, Any]) -> Work:
    """Of `fastclara` on n rows: `fasterpam` on each sample, and all rows to its medoids."""
    room = call.get("max_memory")
    pairs = None if room is None else room // (2 * call["X" if "X" in call else "distances"].dtype.itemsize)
    size = min(n, options.get("sample_size") or usual_sample(n, call["k"], pairs))
    sample = Work(float(size) ** 2, _ROUNDS * float(size) ** 2)
    placed = Work(float(n) * call["k"] if "X" in call else 0.0, _PLACING * float(n) * call["k"])
    return (sample + placed).times(options.get("n_samples", 5)) + Work(0.0, _reading(n, call))


def work_of_pamk(n: int, *, options: Mapping[str, Any], call: Mapping[str, Any]) -> Work:
    """Of `pamk` on n rows: runs of `fasterpam` and silhouettes of a sample for each k, and the groups of all rows."""
    size = min(n, options.get("sample_size", _pamk.SAMPLE))
    k_min, k_max = limits_of_k(n, options.get("k_min", 2), options.get("k_max"))
    looks = (k_max - k_min + 1) * (_pamk.RUNS * _ROUNDS + 1) * float(size) ** 2
    sample = Work(float(size) ** 2, looks + _reading(n, call))
    if size == n:
        return sample
    of_all = work_of_fasterpam if n < _pamk.LARGE else work_of_fastclara
    return sample + of_all(n, options={}, call={**call, "k": (k_min + k_max) // 2})


def _is_held(n: int, call: Mapping[str, Any], default: int) -> bool:
    """Whether the distances between all rows are computed once and held."""
    if checks.is_sparse(call["X"]):
        return False
    memory = call.get("max_memory")
    return n * n * call["X"].dtype.itemsize <= (default if memory is None else checks.bytes_of(memory))


def _reading(n: int, call: Mapping[str, Any]) -> float:
    """Steps of reading all rows, or checking all distances."""
    if "X" not in call:
        return _CHECKING * float(n) ** 2
    X = call["X"]
    return _READING * float(n) * (X.nnz / X.shape[0] if checks.is_sparse(X) else X.shape[1])
