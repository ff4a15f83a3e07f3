"""`kofn combine` of draws of sub-posteriors: one file a shard, of every kind, into draws of their product."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn.combination import consensus_monte_carlo, credal_mixture, gaussian_product, hierarchical_normal

CONSENSUS = ("--method", "consensus_monte_carlo")


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, np.ndarray]]:
    """Draws of two parameters of three shards, as archives, tables and arrays."""
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    out = []
    for shard, n in enumerate((60, 80, 70)):
        draws = {"alpha": rng.normal(0.2 * shard, 1.0, n), "beta": rng.normal(0.0, 2.0, (n, 2))}
        np.savez(f"posterior_{shard}.npz", **draws)
        columns = {"alpha": draws["alpha"], "beta": draws["beta"][:, 0]}
        pl.DataFrame(columns | {"chain": ["a"] * n}).write_csv(f"draws_{shard}.csv")
        pl.DataFrame(columns).write_parquet(f"draws_{shard}.parquet")
        np.save(f"draws_{shard}.npy", draws["beta"])
        out.append(draws)
    return out


def test_archives_keep_names_and_shapes(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    code, out, _ = run(capsys, "combine", "posterior_*.npz", *CONSENSUS, "-o", "posterior.npz")
    assert code == 0
    assert "60 draws of the product of 3 shards, worth" in out
    assert "beta[1]" in out
    assert "draws -> posterior.npz" in out
    plan = consensus_monte_carlo(shards)
    with np.load("posterior.npz") as made:
        np.testing.assert_array_equal(made["alpha"], plan.result[:, 0])
        np.testing.assert_array_equal(made["beta"], plan.result[:, 1:])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_have_a_column_a_parameter(capsys: pytest.CaptureFixture[str], shards: Any, kind: str) -> None:
    code, _, _ = run(capsys, "combine", *(f"draws_{i}.{kind}" for i in range(3)), *CONSENSUS, "-o", "out.csv")
    assert code == 0
    members = [{"alpha": draws["alpha"], "beta": draws["beta"][:, 0]} for draws in shards]
    made = pl.read_csv("out.csv")
    assert made.columns == ["alpha", "beta"]
    np.testing.assert_allclose(made.to_numpy(), consensus_monte_carlo(members).result, rtol=1e-12)


def test_arrays_and_options_and_json(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    words = ("-m", "gaussian_product", "--draws", "33", "--seed", "5", "-o", "out.npy", "--json")
    code, out, _ = run(capsys, "combine", "draws_*.npy", *words)
    assert code == 0
    plan = gaussian_product([draws["beta"] for draws in shards], draws=33, seed=5)
    np.testing.assert_array_equal(np.load("out.npy"), plan.result)
    printed = json.loads(out)
    assert printed["draws"] == 33
    assert [row["shard"] for row in printed["shards"]] == ["draws_0", "draws_1", "draws_2"]
    assert printed["parameters"][1]["mean"] == pytest.approx(plan.info["mean"][1])


@pytest.mark.parametrize(("draws", "known"), [(60, False), (3000, True)])
def test_an_interval_is_printed_where_the_draws_tell_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: int, known: bool
) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    for shard in range(3):
        np.savez(f"p_{shard}.npz", mu=rng.normal(size=3000))
    words = ("-m", "gaussian_product", "--draws", str(draws), "-o", "o.npz", "--report", "r.html", "--seed", "0")
    code, out, err = run(capsys, "combine", "p_*.npz", *words)
    assert code == 0
    assert ("  95% " in out) is known
    assert ("no 95%: draws worth" in out) is not known
    assert ("too few draws" in Path("r.html").read_text()) is not known
    assert ("worth" in err) is not known


def test_a_shard_apart_is_warned_of_and_reported(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    np.savez("posterior_9.npz", alpha=shards[0]["alpha"] + 9, beta=shards[0]["beta"])
    code, _, err = run(
        capsys, "combine", "posterior_*.npz", *CONSENSUS, "-o", "o.npz", "--report", "r.html", "--plan", "p.npz"
    )
    assert code == 0
    assert "warning: member 'posterior_9' stands apart" in err
    page = Path("r.html").read_text()
    for text in ("The product of 4 sub-posteriors", "posterior_9", "Agreement", "beta[1]", "stands apart"):
        assert text in page


def test_a_dry_run_counts(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    code, out, _ = run(capsys, "combine", "posterior_*.npz", *CONSENSUS, "--dry-run")
    assert code == 0
    assert "consensus_monte_carlo" in out
    assert not Path("posterior.npz").exists()


def test_a_dry_run_refuses_what_the_run_refuses(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    np.savez("posterior_1.npz", alpha=np.zeros(40), beta=shards[1]["beta"][:40])
    for method in ("consensus_monte_carlo", "credal_mixture", "hierarchical_normal"):
        words = ("combine", "posterior_*.npz", "-m", method, "-o", "p.npz")
        assert refused(capsys, *words, "--dry-run") == refused(capsys, *words)
    assert "member 'posterior_1': parameter 'alpha' is the same in all 40 draws" in refused(capsys, *words)


REFUSED = [
    (
        ("posterior_*.npz", "-o", "p.npz"),
        "-o p.npz: an archive gets draws of posteriors, by --method consensus_monte_c",
    ),
    (("posterior_0.npz", *CONSENSUS, "-o", "p.npz"), "posterior_0.npz is one file of draws; give one for each shard"),
    (("posterior_*.npz", *CONSENSUS, "--weights", "1,2,3", "-o", "p.npz"), "--weights is not of draws; leave it out"),
    (("posterior_*.npz", *CONSENSUS, "--columns", "alpha", "-o", "p.npz"), "--columns names the parameters of tables"),
    (("posterior_0.npz", "draws_0.csv", *CONSENSUS, "-o", "p.npz"), "do not both have parameter"),
    (("draws_*.csv", *CONSENSUS, "--columns", "gamma", "-o", "p.csv"), "gamma"),
    (
        ("posterior_0.npz", "words.txt", *CONSENSUS, "-o", "p.npz"),
        "words.txt holds no draws; give .npy, .npz, a table or .nc",
    ),
    (("names_0.csv", "names_1.csv", *CONSENSUS, "-o", "p.csv"), "names_0.csv has no numeric columns to take as param"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[message[:24] for _, message in REFUSED])
def test_refusals(capsys: pytest.CaptureFixture[str], shards: Any, words: tuple[str, ...], message: str) -> None:
    Path("words.txt").write_text("a b\n")
    for shard in range(2):
        pl.DataFrame({"name": ["x", "y"]}).write_csv(f"names_{shard}.csv")
    assert message in refused(capsys, "combine", *words)


def test_columns_of_the_sampler_are_no_parameters_unless_named(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    for shard, draws in enumerate(shards):
        numbers = np.arange(len(draws["alpha"]))
        of_sampler = {
            ".chain": numbers % 4 + 1,
            ".draw": numbers,
            "lp__": -(draws["alpha"] ** 2),
            "chain_gain": numbers * 1.5,
        }
        pl.DataFrame({"alpha": draws["alpha"], **of_sampler}).write_csv(f"stan_{shard}.csv")
    code, _, err = run(capsys, "combine", "stan_*.csv", *CONSENSUS, "-o", "out.csv")
    assert code == 0
    assert "note: .chain, .draw, lp__: no parameters by their names, left out; --columns names" in err
    assert pl.read_csv("out.csv").columns == ["alpha", "chain_gain"]
    code, _, err = run(capsys, "combine", "stan_*.csv", *CONSENSUS, "--columns", "alpha,lp__", "-o", "out.csv")
    assert code == 0
    assert "note:" not in err
    assert pl.read_csv("out.csv").columns == ["alpha", "lp__"]


def test_posteriors_of_tasks_are_blended_by_preference(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    words = ("-m", "credal_mixture", "--weights", "3,1,0", "--mass", "0.8", "--draws", "40", "--seed", "1")
    code, out, _ = run(capsys, "combine", "posterior_*.npz", *words, "-o", "models.npz", "--report", "r.html")
    assert code == 0
    assert "40 draws of the mixture of 3 tasks, inside its densest region" in out
    assert "75.0% of the preference" in out
    plan = credal_mixture(shards, weights=[3, 1, 0], mass=0.8, draws=40, seed=1)
    with np.load("models.npz") as made:
        np.testing.assert_array_equal(made["beta"], plan.result[:, 1:])
    assert "The posteriors of 3 tasks, blended by preference" in Path("r.html").read_text()


def test_posteriors_of_tasks_give_the_prior_of_the_next(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    words = ("-m", "hierarchical_normal", "--draws", "30", "--seed", "1", "-o", "next.csv", "--report", "r.html")
    code, out, _ = run(capsys, "combine", "draws_*.csv", *words)
    assert code == 0
    assert "30 draws of a next task's parameters, from 3 tasks" in out
    members = [{"alpha": draws["alpha"], "beta": draws["beta"][:, 0]} for draws in shards]
    np.testing.assert_allclose(
        pl.read_csv("next.csv").to_numpy(), hierarchical_normal(members, draws=30, seed=1).result, rtol=1e-9
    )
    assert "The prior of a next task, from 3 tasks" in Path("r.html").read_text()
    assert "--weights is not of draws; leave it out" in refused(
        capsys, "combine", "draws_*.csv", "-m", "hierarchical_normal", "--weights", "1,1,1", "-o", "next.csv"
    )


def test_what_is_called_from_python_says_what_it_takes(capsys: pytest.CaptureFixture[str], shards: Any) -> None:
    text = refused(capsys, "combine", "posterior_*.npz", "-m", "divide_and_conquer_fusion", "-o", "out.npz")
    assert "called from Python" in text
    assert "kofn.combine(members=..., densities=..., method='divide_and_conquer_fusion')" in text
    assert "; densities: the log density of each member" in text
