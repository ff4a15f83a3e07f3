"""Options of methods and objectives as flags, and the help of every method."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from command_line import make_pool, refused, run, write

from kofn._index import entries
from kofn.cli import app
from kofn.cli.allocate import AllocateArguments
from kofn.cli.combine import CombineArguments
from kofn.cli.flags import Flag
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


@pytest.mark.parametrize(
    "more", [["--include", "r001", "--include", "r007"], ["--include", "r001", "--include", "own.txt"]]
)
def test_names_and_ids_given_twice_add_up(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    write(make_pool(), folder / "pool.csv")
    Path("own.txt").write_text("r007\n")
    call = ["select", "pool.csv", "--id", "key", "-k", 4, "--json"]
    code, out, err = run(capsys, *call, "--columns", "age", "--columns", "tokens", *more)
    assert code == 0, err
    assert out_of(out) == out_of(run(capsys, *call, "--columns", "age,tokens", "--include", "r001,r007")[1])
    assert {"r001", "r007"} <= set(out_of(out))
    out = run(capsys, *call, "--columns", "age", "--exclude", "r001", "--exclude", "r007", "-k", "4")[1]
    assert not {"r001", "r007"} & set(out_of(out))


def out_of(text: str) -> list[str]:
    return list(json.loads(text)["picks"])


@pytest.mark.parametrize(
    ("verb", "flags", "message"),
    [
        ("select", ["-k", 3, "--k", 5], "--k is given twice, 3 and 5; give it once"),
        ("select", ["-m", "ccs", "--n-strata", 3, "--n_strata", 5, "--n-strata", 7], "is given 3 times, 3, 5 and 7"),
        ("select", ["-k", 3, "-O", "a=1", "-O", "a=2"], "--option a is given twice, 1 and 2; give it once"),
        ("assign", ["--metric", "cosine", "--metric", "euclidean"], "--metric is given twice"),
        ("allocate", ["--seed", 1, "--seed", 2], "--seed is given twice"),
        ("combine", ["--weights", 1, "--weights", 2], "--weights is given twice, 1 and 2"),
        ("combine", ["--sum", "--mean"], "--sum and --mean are both given; give one"),
        ("compare", ["--judge", "a", "--judge", "b"], "--judge is given twice, a and b"),
    ],
)
def test_a_flag_of_one_value_given_twice_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str, flags: list[object], message: str
) -> None:
    write(make_pool(), folder / "pool.csv")
    assert message in refused(capsys, verb, "pool.csv", *flags)


def test_every_flag_of_every_command_is_one_that_is_given_once() -> None:
    for command in app.commands.values():
        for param in command.params:
            assert isinstance(param, Flag | click.Argument), (command.name, param.name)
