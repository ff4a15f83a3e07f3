"""What `method="auto"` refuses: lengths first, then the methods that a call may name."""

from __future__ import annotations

import numpy as np
import pytest

import kofn
from kofn.allocation import constrained_knapsack
from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import multiwinner

_X = np.random.default_rng(0).normal(size=(51, 3))


def test_methods_that_fit_are_named_where_auto_has_none() -> None:
    with pytest.raises(InputError) as refusal:
        kofn.select(_X, k=3, y=np.arange(51) % 2)
    message = str(refusal.value)
    assert message.startswith("method='auto' has no select method for X, k, y together (lazy_greedy does not take y)")
    assert message.endswith("name one that takes them: method='anchored_subpool' or 'uncertainty_herding'")
    with pytest.raises(InputError, match="no assign method honours all of X, costs, k together"):
        kofn.assign(_X, k=3, costs=np.ones(51))


@pytest.mark.parametrize("verb", [kofn.select, kofn.assign])
@pytest.mark.parametrize("X", [_X, _X.tolist()])
@pytest.mark.parametrize("word", ["y", "costs", "groups"])
def test_a_wrong_length_is_said_first(verb: object, X: object, word: str) -> None:
    with pytest.raises(InputError, match=rf"^{word} has 2 values, X has 51 rows; give one value an item$"):
        verb(X, k=3, **{word: [0, 1]})  # type: ignore[operator]


def test_a_group_that_nobody_has_is_wrong_input_and_no_clash() -> None:
    calls = (
        lambda: constrained_knapsack([[3.0]], levels=[0], budget=1, groups=[1], quotas={0: (0, 2)}),
        lambda: multiwinner(np.eye(3), k=1, groups=[1, 1, 2], quotas={0: (0, 2)}),
        lambda: kofn.select(scores=np.ones(3), k=1, groups=[1, 1, 2], quotas={0: (0, 2)}),
    )
    for call in calls:
        with pytest.raises(InputError, match=r"quotas\[0\] asks for at most 2, but no item has that group") as refusal:
            call()
        assert not isinstance(refusal.value, InfeasibleError)
