"""Methods that a refusal names as fitting accept the call: every word and option of it, and nothing more is needed."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

import kofn
from kofn.core import dispatch
from kofn.core.auto import AUTO
from kofn.core.checks import InputError
from kofn.core.problems import INPUTS
from kofn.core.registry import REQUIRED, VERBS, Entry
from kofn.core.vocabulary import SETTINGS

NAMED = re.compile(r"methods that fit this call: ([\w, ]+)|or use (?:a method that can: )?([\w, ]+)$")


def calls(verb: str, seed: int) -> list[tuple[set[str], set[str]]]:
    """Words and options of calls: an input, up to three other words, up to two options, of the verb's own methods."""
    index = dispatch.methods_of(verb)
    rng = random.Random(seed)
    inputs = sorted({word for word in INPUTS for entry in index.values() if word in entry.accepted})
    words = sorted({word for entry in index.values() for word in entry.accepted} - set(INPUTS) - SETTINGS)
    options = sorted({name for entry in index.values() for name in entry.options})
    out = []
    for _ in range(250):
        given = {rng.choice(inputs), *rng.sample(words, rng.randint(0, min(3, len(words))))}
        out.append((given, set(rng.sample(options, rng.randint(0, 2)))))
    for entry in index.values():
        given = {*entry.required, *(any_of[0] for any_of in entry.needs)}
        own = {name for name, default in entry.options.items() if default == REQUIRED}
        out.append((given, own | set(rng.sample(sorted(entry.options), min(1, len(entry.options))))))
    return out


def assert_fits(entry: Entry, given: set[str], options: set[str]) -> None:
    assert entry.takes(given) is not None, (entry.name, given)
    assert options <= entry.options.keys(), (entry.name, options)
    assert {name for name, default in entry.options.items() if default == REQUIRED} <= options, (entry.name, options)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seed", range(4))
def test_every_method_that_is_named_as_fitting_accepts_the_call(verb: str, seed: int) -> None:
    index, some = dispatch.methods_of(verb), 0
    rng = random.Random(100 + seed)
    for given, options in calls(verb, seed):
        entry = index[rng.choice(sorted(index))]
        message = dispatch.misfit(entry, dict.fromkeys(given, 0), options, index)
        match = NAMED.search(message)
        assert match is not None, message
        names = [] if match[1] == "none" else match[1].split(", ")
        for name in names:
            assert_fits(index[name], given, options)
        some += bool(names)
        # None that would accept the call is left out.
        assert names == sorted(name for name, other in index.items() if other.fits(given, options))
        if not entry.fits(given, options):
            assert f"method={entry.name!r} ;" not in message
    assert some > 20


@pytest.mark.parametrize("verb", ["select", "assign"])
def test_what_auto_and_limits_and_engines_advise_accepts_the_call(verb: str) -> None:
    index = dispatch.methods_of(verb)
    for (given, options), limit in itertools.product(
        calls(verb, 9)[:120], ("max_memory", "time_limit", "engine", "device")
    ):
        value: object = {"engine": "ray", "device": "cuda", "time_limit": 5.0}.get(limit, 10**9)
        words = {**dict.fromkeys(given, 0), limit: value}
        for name in random.Random(len(given)).sample(sorted(index), 6):
            entry = index[name]
            takes = entry.takes(given)
            if takes is None:
                continue
            try:
                if limit == "engine":
                    dispatch._refuse_engine(entry, words, options, index)
                elif limit == "device":
                    dispatch._refuse_device(entry, words, options, index)
                else:
                    dispatch._refuse_limits(entry, words, options, takes, index)
            except InputError as error:
                match = NAMED.search(str(error))
                names = match[2].split(", ") if match and match[2] else []
                for other in names:
                    if "none fits" not in other:
                        assert_fits(index[other], given, options)
                        assert limit in index[other].accepted


def test_bins_per_item_with_a_least_go_to_the_method_that_takes_both() -> None:
    scores = np.random.default_rng(0).random((8, 3))
    assert kofn.assign(scores=scores, per_item=2, capacity=6, min_size=5).method == "balanced_assignment"
    with pytest.raises(InputError, match=r"does not take per_item; methods that fit this call: balanced_assignment$"):
        kofn.assign(scores=scores, per_item=2, capacity=6, min_size=5, method="generalized_assignment")


def test_an_option_of_methods_that_do_not_accept_the_call_says_why() -> None:
    index = dispatch.methods_of("select")
    automatic = {name for row, _ in AUTO["select"] for name in index[row].options}
    given = {"scores", "k"}
    for entry in index.values():
        for option in entry.options.keys() - automatic:
            takers = [other for other in index.values() if option in other.options]
            with pytest.raises(InputError, match="it is an option of") as caught:
                kofn.select(scores=[1.0, 2.0], k=1, **{option: 1})
            message = str(caught.value)
            if fitting := sorted(other.name for other in takers if other.fits(given, {option})):
                assert f"option of {', '.join(fitting)}: name" in message
            else:
                assert re.search(r"which (does not take|needs|has no option) ", message), message


def test_a_share_of_the_rows_is_a_count() -> None:
    assert (
        kofn.select([[0.0], [0.1], [5.0], [5.2], [9.0]], k="40%").indices.tolist()
        == kofn.select([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2).indices.tolist()
    )
    assert kofn.select(scores=[1.0, 3.0, 2.0], k="1%").indices.tolist() == [1]
