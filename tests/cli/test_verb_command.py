"""Options of methods and objectives as flags, and the help of every method."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from command_line import make_pool, refused, run, write

from kofn._index import entries
from kofn.cli import app
from kofn.cli.allocate import AllocateArguments
from kofn.cli.combine import CombineArguments
from kofn.core import registry
from kofn.tables.arguments import VerbArguments
from kofn.tables.assign_arguments import AssignArguments
from kofn.tables.select_arguments import SelectArguments


@pytest.mark.parametrize("verb", list(registry.VERBS))
def test_help_of_every_method_names_its_options(verb: str) -> None:
    for name, entry in entries(verb).items():
        text = CliRunner().invoke(app, [verb, "--method", name, "--help"], terminal_width=200).output
        assert entry.summary[:60] in " ".join(text.split())
        for option in entry.options:
            assert "--" + option.replace("_", "-") in text


def test_options_of_a_method_as_flags_and_as_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    shared = ["select", "pool.csv", "--score", "score", "-k", 10, "--method", "ccs", "--seed", 3, "--json"]
    _, flags, _ = run(capsys, *shared, "--n-strata", 4)
    _, pairs, _ = run(capsys, *shared, "-O", "n_strata=4")
    assert json.loads(flags)["picks"] == json.loads(pairs)["picks"]
    assert "n_strata" in refused(capsys, "select", "pool.csv", "--score", "score", "-k", 3, "-O", "n_strata=4")


def test_words_of_python_are_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    call = ["select", "pool.csv", "--columns", "age", "-k", 4, "--json"]
    spelled = ["--costs", "tokens", "--budget", 900, "--ids", "key", "--weights", "score", "--n_threads", 1]
    flags = ["--cost", "tokens", "--budget", 900, "--id", "key", "--weight", "score", "--threads", 1]
    assert json.loads(run(capsys, *call, *spelled)[1])["picks"] == json.loads(run(capsys, *call, *flags)[1])["picks"]
    assert "did you mean '--k'" in refused(capsys, "select", "pool.csv", "--columns", "age", "--n-clusters", 3)
    assert "did you mean '--seed'" in refused(capsys, *call, "--random_state", 3)


def test_parameters_of_an_objective_are_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import kofn

    X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    np.save("pool.npy", X)
    np.save("wanted.npy", X[:2] * 2)
    call = ["select", "pool.npy", "-k", 5, "--objective", "facility_location_mutual_information", "--json"]
    code, text, err = run(capsys, *call, "--queries", "wanted.npy", "--eta", 2)
    assert code == 0, err
    objective = "facility_location_mutual_information"
    assert (
        json.loads(text)["picks"] == kofn.select(X, k=5, objective=objective, queries=X[:2] * 2, eta=2).indices.tolist()
    )
    assert "--eta" in refused(capsys, "select", "pool.npy", "-k", 5, "--objective", "graph_cut", "--eta", 2)


def test_an_option_of_another_method_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    call = ["select", "pool.csv", "--columns", "age", "-k", 3, "--n-strata", 4]
    assert "option of ccs" in refused(capsys, *call)
    assert "belongs to ccs" in refused(capsys, *call, "-m", "lazy_greedy")


@pytest.mark.parametrize("kind", [SelectArguments, AssignArguments, AllocateArguments, CombineArguments])
def test_no_flag_hides_an_option_of_a_method(kind: type[VerbArguments]) -> None:
    # What a bin must and can hold goes into the call under the option's own name.
    flags = {field.name for field in dataclasses.fields(kind)} - {*kind.OPTIONS, "min_size", "limits"}
    for entry in entries(kind.VERB).values():
        assert not flags & entry.options.keys(), entry.name
