"""Every law that a method declares, on problems drawn from the arguments it takes."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

import kofn
from kofn import dispatch
from kofn.laws import LAWS, Case, laws_of
from kofn.laws.generators import calls
from kofn.registry import VERBS, Entry

LEAST = 50
# More examples, and other ones every time: KOFN_EXAMPLES=2000 pytest tests/test_laws.py
EXAMPLES = int(os.environ.get("KOFN_EXAMPLES", "0"))
ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]
PAIRS = [pytest.param(entry, name, id=f"{entry.name}-{name}") for entry in ENTRIES for name in laws_of(entry)]

PROFILE = settings(
    max_examples=max(EXAMPLES, 8 * LEAST),
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize(("entry", "name"), PAIRS)
def test_law(entry: Entry, name: str) -> None:
    enough = EXAMPLES or LEAST + 10
    seen = {"checked": 0, "broken": False}

    @PROFILE
    @given(call=calls(entry, law=name))
    def hold(call):
        if seen["checked"] >= enough and not seen["broken"]:
            return
        try:
            case = Case.of(entry.verb, entry.name, call.given, call.options)
            seen["checked"] += LAWS[name](case)
        except Exception:
            seen["broken"] = True
            raise

    hold()
    if name not in VACUOUS.get(entry.name, ()):
        assert seen["checked"] >= min(enough, LEAST), f"only {seen['checked']} examples were not vacuous"


# A method that states no value has none to recount.
VACUOUS = dict.fromkeys(("ccs", "random_sample"), ("recount",))


def _rounded(n: int, d: int) -> np.ndarray:
    """Rows with many equal distances."""
    return np.random.default_rng(0).normal(size=(n, d)).round(1).astype(np.float32)


LARGE = {
    "lazy_greedy": {"X": _rounded(4000, 6), "k": 12},
    "lazy_greedy, similarity": {"similarity": np.float32(9) - _rounded(2500, 2500).clip(-4, 4), "k": 8},
    "lazy_greedy, budget": {"X": _rounded(3000, 3), "budget": 40, "costs": np.arange(3000) % 7 + 1, "metric": "cosine"},
    "naive_greedy": {"X": _rounded(2500, 4), "k": 4},
    "fasterpam": {"X": _rounded(2500, 4), "k": 9, "seed": 1},
    "fasterpam, row by row": {"X": _rounded(2500, 4), "k": 5, "seed": 1, "max_memory": "1MB"},
    "fastpam1": {"X": _rounded(800, 4), "k": 6, "seed": 0},
    "pam": {"X": _rounded(500, 4), "k": 4, "seed": 0},
    "weighted_mean": {"members": [_rounded(1 << 21, 2), _rounded(1 << 21, 2) * 3], "weights": [0.3, 0.7]},
}


def test_every_method_with_threads_is_run_at_size() -> None:
    threaded = {entry.name for entry in ENTRIES if "n_threads" in entry.accepted}
    assert threaded <= {name.split(",")[0] for name in LARGE}


@pytest.mark.parametrize("name", LARGE)
def test_threads_change_nothing_at_size(name: str) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name.split(",")[0])
    plans = [getattr(kofn, entry.verb)(**LARGE[name], method=entry.name, n_threads=threads) for threads in (1, 2, 4)]
    assert plans[0].equals(plans[1])
    assert plans[0].equals(plans[2])
    counters = {tuple(plan.info[key] for key in ("oracle_calls", "distance_evals")) for plan in plans}
    assert len(counters) == 1
