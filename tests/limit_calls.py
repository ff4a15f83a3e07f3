"""Calls of every method at a size at which a limit binds, and what became of the limit."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import kofn
from kofn.combination import DiffusedMixture
from kofn.core.registry import Entry

# Columns of X, bins of a table of scores, levels of a curve, members of a blend.
WIDTH, BINS, LEVELS, MEMBERS = 16, 20, 8, 4
# Above so many items all their pairs are no longer handed in.
MOST_PAIRED = 12_000


def _labels(n: int) -> np.ndarray:
    """A tenth of the items labelled, the others not."""
    y = np.full(n, -1)
    y[::10] = np.arange(len(y[::10])) % BINS
    return y


def _pairs(n: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.normal(size=(n, 2)).astype(np.float32)
    return np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(axis=2))


def _networks(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Models of n weights."""
    wide = max(4, int(n**0.5) // 2)
    shapes = {"layers.0.weight": (wide, wide), "layers.0.bias": (wide,), "layers.1.weight": (wide, wide)}
    return [{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(MEMBERS)]


def _adapters(n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    wide = max(4, n // 32)
    return [
        {"w.lora_A.weight": rng.normal(size=(8, wide)), "w.lora_B.weight": rng.normal(size=(wide, 8))} for _ in range(2)
    ]


def _predictions(n: int, rng: np.random.Generator) -> list[Any]:
    """Probabilities of the classes of n rows."""
    return [rng.dirichlet(np.ones(len(set(_labels(n)))), n) for _ in range(MEMBERS)]


Make = Callable[[int, np.random.Generator], Any]
# A value of each word for n items; by verb, method or kind (`kofn.core.draws.KINDS`) where it differs.
MAKERS: dict[str, Make] = {
    "X": lambda n, rng: rng.normal(size=(n, WIDTH)).astype(np.float32),
    "distances": _pairs,
    "similarity": lambda n, rng: 1 / (1 + _pairs(n, rng)),
    "scores": lambda n, rng: rng.random(n),
    "assign scores": lambda n, rng: rng.random((n, BINS)),
    "annotator_pairs scores": lambda n, rng: rng.random((n, BINS)),
    "curves": lambda n, rng: np.sort(rng.random((n, LEVELS)), axis=1)[:, ::-1],
    "water_filling curves": lambda n, rng: rng.random((n, 2)) + 0.5,
    "members": lambda n, rng: [rng.normal(size=n).astype(np.float32) for _ in range(MEMBERS)],
    "members networks": _networks,
    "members layers": _networks,
    "members adapters": _adapters,
    "members predictions": _predictions,
    "members mixtures of experts": lambda n, rng: [
        {"gates": rng.normal(size=(4, 3)), "experts": rng.normal(size=(4, 3)), "variances": np.ones(4)}
        for _ in range(MEMBERS)
    ],
    "members diffused densities": lambda n, rng: [
        DiffusedMixture(rng.normal(size=(max(n, 8), 2)), np.eye(2)) for _ in range(3)
    ],
    "members draws": lambda n, rng: [rng.normal(size=(max(n, 8), 2)) for _ in range(3)],
    "base": lambda n, rng: rng.normal(size=n).astype(np.float32),
    "base layers": lambda n, rng: _networks(n, rng)[0],
    "base adapters": lambda n, rng: {"w.weight": rng.normal(size=(max(4, n // 32),) * 2).astype(np.float32)},
    "fisher": lambda n, rng: [rng.random(n).astype(np.float32) for _ in range(MEMBERS)],
    "rankings": lambda n, rng: rng.random((n, LEVELS)),
    "b4 rankings": lambda n, rng: (rng.random((n, LEVELS)) < 0.5).astype(float),
    "costs": lambda n, rng: rng.random(n) + 0.5,
    "annotator_pairs costs": lambda n, rng: np.ones(BINS),
    "queries": lambda n, rng: rng.normal(size=(50, WIDTH)).astype(np.float32),
    "y": lambda n, rng: _labels(n),
    "groups": lambda n, rng: (np.arange(n) % BINS).astype(str).tolist(),
    "target": lambda n, rng: "0",
    "users": lambda n, rng: rng.normal(size=(n, WIDTH)),
    "reduce_mixtures inputs": lambda n, rng: rng.normal(size=(n, 2)),
    "inputs": lambda n, rng: rng.normal(size=(64, max(4, int(n**0.5) // 2))),
    "margins": lambda n, rng: (np.full(n, 1.0), np.full(BINS, n / BINS)),
    "capacity": lambda n, rng: n,
    "k": lambda n, rng: max(2, n // 20),
    "assign k": lambda n, rng: BINS,
    "combine k": lambda n, rng: MEMBERS // 2,
    "budget": lambda n, rng: LEVELS * n / 3.0,
    "evolved_mean budget": lambda n, rng: 10**6,
    "rollout_knapsack budget": lambda n, rng: 8.0 * n,
    "difficulty_aware_trials budget": lambda n, rng: 8.0 * n,
    "submodular_mixture budget": lambda n, rng: 8 * n,
    "expert_bits at_least": lambda n, rng: {2: 1},
    "per_item": lambda n, rng: 2,
    "sizes": lambda n, rng: np.ones(n),
    "limits": lambda n, rng: float(n),
    "score": lambda n, rng: _score,
    "greedy_soup score": lambda n, rng: _score,
    "lima score": lambda n, rng: lambda masks: np.asarray(masks) @ np.linspace(0, 1, np.shape(masks)[-1]),
}


def _score(blend: Any) -> float:
    parts = blend.values() if hasattr(blend, "values") else [blend]
    # Without a copy: what the user's own function takes is not kofn's to limit.
    return -sum(float(np.vdot(part, part)) for part in map(np.asarray, parts))


def value_of(entry: Entry, word: str, n: int, rng: np.random.Generator) -> Any:
    """A value of a word for n items."""
    declared = entry.draws
    keys = (f"{entry.name} {word}", f"{word} {declared.kinds.get(word)}", f"{entry.verb} {word}", word)
    made = next((MAKERS[key] for key in keys if key in MAKERS), None)
    value = declared.plain[word] if made is None else made(n, rng)
    return value[: declared.members] if word == "members" else value


def sized_call(entry: Entry, n: int, source: str | None = None) -> dict[str, Any]:
    """The words of a call of n items, from `source` where there are alternatives."""
    rng = np.random.default_rng(n)
    words = [*entry.required, *(source if source in group else group[0] for group in entry.needs)]
    words += [name for name in entry.draws.plain if name in entry.options]
    if entry.verb == "select" and "k" in entry.accepted and "budget" not in words:
        words.append("k")
    if entry.verb == "allocate" and "budget" in entry.accepted:
        words.append("budget")
    if "budget" in words and "costs" in entry.accepted:
        words.append("costs")
    return {name: value_of(entry, name, n, rng) for name in dict.fromkeys(words)}


def ask(entry: Entry, words: dict[str, Any], **limits: Any) -> Any:
    """The plan of a call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(kofn, entry.verb)(**words, **limits, method=entry.name)


# Seconds that a run is given, and by how much it may be late: a tenth of them and a second, of processor time.
SECONDS = 1.0
MOST_SECONDS = 1.1 * SECONDS + 1
# A pool of this many items is as large as it gets.
MOST_ITEMS = 1 << 22


@contextmanager
def processor_clock() -> Iterator[None]:
    """Limits are counted in processor time, so that what else the machine does is no excuse and no help."""
    with mock.patch("time.monotonic", time.process_time):
        yield


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped: of how many items, and its processor time. No items where the limit never bound."""

    n: int
    seconds: float

    @property
    def in_time(self) -> bool:
        """Whether the limit was kept."""
        return self.seconds <= MOST_SECONDS


def at_the_time_limit(entry: Entry, source: str | None = None, **words: Any) -> Stopped:
    """A run at the least size at which `SECONDS` do not do."""
    n, seconds = 64, 0.0
    paired = source in ("distances", "similarity") or "distances" in entry.required
    with processor_clock():
        while n <= (MOST_PAIRED if paired else MOST_ITEMS):
            call = {**sized_call(entry, n, source), **words}
            # What is compiled on the way is no work on the items: a run that was late has compiled it.
            for _ in range(2):
                began = time.process_time()
                plan = ask(entry, call, time_limit=SECONDS, n_threads=1)
                seconds = time.process_time() - began
                if seconds <= MOST_SECONDS:
                    break
            if plan.status == "stopped" or seconds > MOST_SECONDS:
                return Stopped(n, seconds)
            n *= 2 if seconds > SECONDS / 8 else 4
    return Stopped(0, seconds)


# After so many seconds of a run's processor time somebody presses Ctrl-C, and then waits no longer than these.
PRESSED, PATIENCE = 0.5, 2.0


def after_an_interrupt(entry: Entry, n: int) -> tuple[Any, float]:
    """The plan of a run without a limit that is interrupted after `PRESSED` seconds, and its processor time.

    No plan where the interrupt came before the search began, and ended the run at once. Half the items where the method
    refuses so many.
    """
    call = sized_call(entry, n)
    before = signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    began = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, PRESSED)
    try:
        return ask(entry, call, n_threads=1), time.process_time() - began
    except KeyboardInterrupt:
        return None, time.process_time() - began
    except kofn.InputError as error:
        if "at most" not in str(error):
            raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return after_an_interrupt(entry, n // 2)


# Bytes that a run may hold, and what Python and NumPy hold beside them; a blend holds blocks of its members alone.
MEMORY = 48 << 20
BESIDE = 24 << 20
BLEND_MEMORY, BLEND_BESIDE = 4 << 20, 6 << 20


def memory_of(entry: Entry) -> tuple[int, int]:
    """The bytes that a run of a method is held to, and those that it may hold beside them."""
    return (BLEND_MEMORY, BLEND_BESIDE) if entry.verb == "combine" else (MEMORY, BESIDE)


_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def _status(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition(f"{name}:")[2].split()[0]) << 10


def peak(entry: Entry, words: dict[str, Any], **limits: Any) -> int:
    """By how many bytes a call raises what this process holds, its result aside."""
    gc.collect()
    if hasattr(_C_LIBRARY, "malloc_trim"):
        # What an earlier call freed would be taken again unseen.
        _C_LIBRARY.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    plan = ask(entry, words, n_threads=1, **limits)
    return _status("VmHWM") - before - _result_bytes(plan)


def _result_bytes(plan: Any) -> int:
    result = getattr(plan, "result", None)
    parts = result.values() if hasattr(result, "values") else [result]
    return sum(int(getattr(part, "nbytes", 0)) for part in parts)


def at_the_memory_limit(entry: Entry) -> tuple[int, int]:
    """The least size at which a run takes more than `memory_of` it, and what it takes where it is held to that.

    No size where none takes so much.
    """
    n, (memory, _) = 1 << 10, memory_of(entry)
    limits = {"time_limit": SECONDS} if "time_limit" in entry.accepted else {}
    try:
        while n <= MOST_ITEMS:
            call = sized_call(entry, n)
            # The first of two runs may have held a compiler.
            if all(peak(entry, call, **limits) > memory for _ in range(2)):
                return n, peak(entry, call, max_memory=memory, **limits)
            n *= 4
    except kofn.InputError as error:
        if "max_memory" not in str(error):
            raise
        return n, 0  # refused
    return 0, 0


# A run of so many seconds of processor time shows the threads that it takes.
_SHOWS = 0.3


def other_threads(entry: Entry, most: int) -> tuple[float, float]:
    """Processor seconds of a run with `n_threads=1`: in all, and of other threads than this one.

    It is of `most` items, or of fewer where those take long enough: a method without a limit of time may take hours.
    """
    limits = {"time_limit": SECONDS} if "time_limit" in entry.accepted else {}
    everyone = mine = 0.0
    n = min(96, most)
    while True:
        call = sized_call(entry, n)
        try:
            # The first of two runs may compile.
            ask(entry, call, n_threads=1, **limits)
        except kofn.InputError as error:
            if "max_memory" not in str(error):
                raise
            return everyone, everyone - mine
        everyone, mine = time.process_time(), time.thread_time()
        ask(entry, call, n_threads=1, **limits)
        everyone, mine = time.process_time() - everyone, time.thread_time() - mine
        if n >= most or everyone >= _SHOWS:
            return everyone, everyone - mine
        n = min(4 * n, most)
