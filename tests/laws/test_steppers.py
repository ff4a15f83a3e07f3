"""Every stepper of the index under every law of steppers; a stranger's stepper keeps them unaided."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
import time_budget
from law_runs import PAIRS as METHODS
from reservoir_sample import ReservoirSample

from kofn.core.checks import InputError
from kofn.core.stepper import Stepper
from kofn.indexing.collect import entries_of
from kofn.laws import steppers

STEPPERS: list[type[Stepper[Any]]] = sorted(steppers.registered(), key=lambda cls: cls.__name__)
PAIRS = [(cls, name) for cls in [*STEPPERS, ReservoirSample] for name in steppers.LAWS if steppers.applies(cls, name)]
# However much one draw has to check, so many are made: the settings are drawn too.
FEWEST = 8


@pytest.mark.parametrize(("cls", "name"), [pytest.param(*pair, id=f"{pair[0].__name__}-{pair[1]}") for pair in PAIRS])
def test_law(cls: type[Stepper[Any]], name: str) -> None:
    # Methods and steppers share the calls.
    enough = time_budget.law_calls(PAIRS.index((cls, name)), len(PAIRS) + len(METHODS))
    checked = drawn = 0
    while drawn < FEWEST or (checked < enough and drawn < 20 * enough):
        checked += steppers.LAWS[name](cls, time_budget.DEEP_SEED + drawn)
        drawn += 1
    assert checked >= enough


def test_the_index_has_steppers_of_every_verb_that_needs_them() -> None:
    assert {cls.__kofn_stepper__.verb for cls in STEPPERS} >= {"select", "assign", "combine"}
    assert all(cls.__kofn_stepper__.draws for cls in STEPPERS)


def test_settings_are_arguments_of_the_constructor() -> None:
    for cls in STEPPERS:
        arguments = set(inspect.signature(cls.__init__).parameters)
        for seed in range(4):
            settings = steppers.Play(cls, seed).stepper.settings
            assert set(settings) <= arguments, cls.__name__


def test_a_stepper_is_made_of_its_state_where_no_setting_is_an_array() -> None:
    made = 0
    for cls in STEPPERS:
        for seed in range(4):
            stepper = steppers.Play(cls, seed).stepper
            state = stepper.state_dict()
            if any(str(value).startswith("digest ") for value in stepper.settings.values()):
                with pytest.raises(InputError, match="state does not hold"):
                    cls.from_state(state)
            elif "objective" not in stepper.settings:
                assert steppers.same(cls.from_state(state).state_dict(), state)
                made += 1
    assert made
    with pytest.raises(InputError, match="state lacks 'settings'"):
        ReservoirSample.from_state({})


def test_a_strangers_stepper_is_found_by_its_registration() -> None:
    (entry,) = entries_of(sys.modules[ReservoirSample.__module__])
    assert (entry.form, entry.verb, entry.name) == ("stepper", "select", "ReservoirSample")
    assert entry.options == {"k": "required", "seed": "None"}
    assert entry.docs["k"] == "how many to keep."
