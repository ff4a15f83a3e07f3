"""What a call will take, of which the rows are yet to be read: methods and objectives refuse it by their own counts."""

from __future__ import annotations

import numpy as np
import pytest

from kofn.cli.estimate_memory import refuse_memory
from kofn.core import dispatch
from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import InputError
from kofn.objectives.base import kind_of

X = np.zeros((10, 3))


def test_words_are_read_as_the_call_reads_them() -> None:
    ahead = CallAhead(9, 3, 8, {"max_memory": "1kB", "metric": None, "n_threads": 2}, {})
    assert (ahead.max_memory, ahead.metric, ahead.n_threads) == (1000, "euclidean", 2)
    plain = CallAhead(9, 3, 8, {"metric": "cosine"}, {})
    assert (plain.max_memory, plain.metric, plain.n_threads) == (None, "cosine", None)


@pytest.mark.parametrize("objective", ["facility_location", "graph_cut", "saturated_coverage"])
def test_objectives_refuse_what_they_would_hold(objective: str) -> None:
    kind = kind_of(objective)
    assert kind is not None
    kind.refuse_ahead(CallAhead(10, 3, 8, {}, {}))
    with pytest.raises(InputError, match=objective.replace("_", " ")):
        kind.refuse_ahead(CallAhead(10**6, 3, 8, {"max_memory": 10**6}, {}))


def test_objectives_that_are_no_plain_name_are_not_asked() -> None:
    assert kind_of("graph_cut(lam=0.3)") is None
    assert kind_of(object()) is None


def test_a_method_is_asked_before_its_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command knows no method by name: it asks what is declared at the method."""
    entry = dispatch.methods_of("select")["two_round_greedy"]
    call = {"X": X, "k": 4, "max_memory": 10**5}
    with pytest.raises(InputError, match="two_round_greedy on 1000000 rows of 3 features"):
        refuse_memory(entry, {"part_rows": 1000}, call, 10**6)
    with pytest.raises(InputError, match="facility location on 50000 rows"):
        refuse_memory(entry, {"part_rows": 60_000}, call, 50_000)
    refuse_memory(dispatch.methods_of("select")["farthest_first"], {}, call, 10**6)
