"""`kofn methods`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import refused, run
from safetensors.numpy import load_file, save_file

import kofn
from kofn.core import dispatch
from kofn.core.registry import VERBS, Entry


def test_methods_lists_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "methods", "assign", "--given", "scores,capacity", "--json")
    assert code == 0
    names = [row["name"] for row in json.loads(text)]
    assert "capped_routing" in names
    assert "fasterpam" not in names
    assert "did you mean 'scores'" in refused(capsys, "methods", "--given", "score_s")
    assert "did you mean 'select'" in refused(capsys, "selct")


# Kinds of members that no file holds.
UNREADABLE = {"entry", "mixtures of experts", "diffused densities"}
PYTHON_ONLY = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values() if entry.python_only]


@pytest.mark.parametrize("entry", PYTHON_ONLY, ids=lambda entry: entry.name)
def test_what_no_command_can_do_says_how_python_does_it(entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    call = f"kofn.{entry.verb}("
    assert call in refused(capsys, entry.verb, "pool.csv", "--method", entry.name)
    code, helped, _ = run(capsys, entry.verb, "--method", entry.name, "--help")
    assert code == 0
    assert "from Python only: " + call in " ".join(helped.split())
    code, listed, _ = run(capsys, "methods", entry.verb)
    assert code == 0
    assert "Python only" in listed
    for word in (*entry.required, entry.name):
        assert word in entry.python_call


def test_every_method_is_offered_by_a_command_or_says_that_it_is_not() -> None:
    """A function, a table of other things than rows, densities with derivatives or a fitted mixture is in no file."""
    for verb in VERBS:
        for entry in dispatch.methods_of(verb).values():
            kinds = entry.draws.kinds
            unreadable = "score" in entry.required or UNREADABLE & set(kinds.values())
            unreadable = bool(unreadable or "densities" in entry.needed_options)
            assert entry.python_only == unreadable, entry.name


def test_an_option_that_is_needed_is_named_as_a_flag(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("x.npy", np.eye(4))
    said = refused(capsys, "select", "x.npy", "--method", "private_streaming", "-k", "2")
    assert "--users VALUE or --users @FILE.npy" in said


def test_partial_merging_reads_its_inputs_from_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    members = [
        {"0.weight": rng.normal(size=(6, 4)).astype("f4"), "2.weight": rng.normal(size=(3, 6)).astype("f4")}
        for _ in range(2)
    ]
    for name, member in zip("ab", members, strict=True):
        save_file(member, f"{name}.safetensors")
    np.save("inputs.npy", rng.normal(size=(30, 4)))
    merge = ("combine", "a.safetensors", "b.safetensors", "--method", "pleas")
    assert "--inputs @FILE.npy" in refused(capsys, *merge, "-o", "m.safetensors")
    code, _, _ = run(capsys, *merge, "--inputs", "@inputs.npy", "--size", "1.5", "-o", "m.safetensors")
    assert code == 0
    wanted = kofn.combine(members, inputs=np.load("inputs.npy"), size=1.5, method="pleas").result
    for name, tensor in load_file("m.safetensors").items():
        np.testing.assert_array_equal(tensor, wanted[name])
