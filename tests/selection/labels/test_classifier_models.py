"""What is no classifier is refused in one line, whatever it does when it is looked at."""

from __future__ import annotations

import pytest
from hostile_values import Everything, Unequal

from kofn.core.checks import InputError
from kofn.selection.labels._classifier import classifier


@pytest.mark.parametrize("model", [Everything(), Unequal(), object(), 3, [Unequal()]])
def test_no_classifier(model: object) -> None:
    with pytest.raises(InputError, match=r"^model=.*: give a classifier"):
        classifier(model, 0)
