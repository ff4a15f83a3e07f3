"""Shift scores on distributions whose shift is known, and the order, the budget and the stop of adding sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from refusals import refused

import kofn
from kofn.core.checks import InfeasibleError
from kofn.selection import shift_scores, sources_by_shift

LABELS = np.repeat(["home", "b", "a", "d", "c"], [60, 50, 40, 30, 20])
OFFSET = {"home": 0.0, "a": 0.3, "b": 1.0, "c": 2.0, "d": 6.0}


def rows(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(200, 3)) + np.array([OFFSET[label] for label in LABELS])[:, None]


def test_the_classifier_gives_the_probability_of_the_two_densities() -> None:
    """For two normals a distance m apart the best classifier gives E[sigmoid(m z + m^2 / 2)] to a source's own rows."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(20_000, 1)), rng.normal(1.5, 1, (20_000, 1)), rng.normal(size=(20_000, 1))])
    groups = np.repeat(["t", "far", "same"], 20_000)
    found = shift_scores(X, groups=groups, target="t", n_rows=20_000, seed=0)
    z = np.random.default_rng(1).normal(size=400_000)
    expected = (1 / (1 + np.exp(-(1.5 * z + 1.5**2 / 2)))).mean()
    assert found["far"] == pytest.approx(expected, abs=0.01)
    assert found["same"] == pytest.approx(0.5, abs=0.01)
    bits = shift_scores(X, groups=groups, target="t", n_rows=20_000, seed=0, kind="kl")
    assert bits["far"] == pytest.approx(1.5**2 / 2 / np.log(2), abs=0.08)  # the divergence of the two normals
    assert bits["same"] == pytest.approx(0, abs=0.01)


def test_labels_tell_what_rows_do_not() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 2))
    y = (X[:, 0] > 0).astype(int)
    y[800:] = (X[800:, 0] < 0).astype(int)  # the same rows and classes, the other way round
    groups = np.repeat(["t", "same", "turned"], 400)
    blind = shift_scores(X, groups=groups, target="t", seed=0)
    told = shift_scores(X, groups=groups, target="t", y=y, seed=0)
    assert max(abs(value - 0.5) for value in blind.values()) < 0.05
    assert abs(told["same"] - 0.5) < 0.05
    assert told["turned"] > 0.7


def test_sources_come_whole_and_by_shift() -> None:
    X = rows()
    plan = kofn.select(X, groups=LABELS, method="sources_by_shift", seed=0, options={"target": "home"})
    assert plan.info["sources"] == ["home", "a", "b", "c", "d"]
    assert len(plan) == 200
    assert LABELS[plan.indices][:100].tolist() == ["home"] * 60 + ["a"] * 40
    shift = plan.info["shift"]
    assert [*sorted(shift, key=shift.__getitem__)] == ["a", "b", "c", "d"]
    assert np.isnan(plan.value)
    two = sources_by_shift(X, groups=LABELS, target="home", most=2, seed=0)
    assert two.info["sources"] == ["home", "a", "b"]
    assert sources_by_shift(X, groups=LABELS, target="home", most=0, seed=0).info["sources"] == ["home"]


def test_a_budget_takes_what_fits_in_order() -> None:
    X = rows()
    plan = sources_by_shift(X, groups=LABELS, target="home", budget=125, seed=0)
    assert plan.info["sources"] == ["home", "a", "c"]  # b, 50 rows, does not fit; c, 20, does
    assert plan.used == {"rows": 120}
    dear = np.where(LABELS == "a", 3, 1)
    plan = sources_by_shift(X, groups=LABELS, target="home", budget=125, costs=dear, seed=0)
    assert plan.info["sources"] == ["home", "b"]
    assert plan.used == {"costs": 110}


@pytest.mark.parametrize(
    ("ratings", "patience", "kept", "calls"),
    [
        ({1: 1.0, 2: 2.0, 3: 1.5, 4: 9.0, 5: 0.0}, 1, 2, 3),
        ({1: 1.0, 2: 2.0, 3: 1.5, 4: 9.0, 5: 0.0}, 2, 4, 5),
        ({1: 3.0, 2: 2.0, 3: 2.5, 4: 9.0, 5: 0.0}, 2, 1, 3),
        ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}, 1, 5, 5),
        ({1: 1.0, 2: 1.0, 3: 3.0, 4: 4.0, 5: 5.0}, 1, 1, 2),
    ],
)
def test_it_stops_when_the_gain_is_spent(ratings: dict[int, float], patience: int, kept: int, calls: int) -> None:
    X = rows()
    asked = []

    def score(picked: np.ndarray) -> float:
        asked.append(picked)
        return ratings[len(set(LABELS[picked]))]

    plan = kofn.select(
        X,
        groups=LABELS,
        score=score,
        seed=0,
        method="sources_by_shift",
        options={"target": "home", "patience": patience},
    )
    assert plan.info["sources"] == ["home", "a", "b", "c", "d"][:kept]
    assert plan.value == ratings[kept]
    assert plan.info["oracle_calls"] == len(asked) == calls
    np.testing.assert_array_equal(asked[kept - 1], plan.indices)


def test_a_gain_below_the_least_is_none() -> None:
    score = lambda picked: 1 + 0.01 * len(set(LABELS[picked]))  # noqa: E731
    assert len(sources_by_shift(rows(), groups=LABELS, target="home", score=score, min_gain=0.02).info["sources"]) == 1
    assert len(sources_by_shift(rows(), groups=LABELS, target="home", score=score, min_gain=0.005).info["sources"]) == 5


def test_a_few_rows_and_constant_columns() -> None:
    X = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 5.0]])
    found = shift_scores(X, groups=[1, 1, 2], target=1, seed=0)
    assert 0.5 <= found["2"] <= 1
    assert shift_scores(X[:, :1], groups=["a", "a", "b"], target="a") == {"b": 0.5}
    assert sources_by_shift(X, groups=["a", "a", "a"], target="a").indices.tolist() == [0, 1, 2]


def test_refusals() -> None:
    X = rows()
    call = lambda **more: sources_by_shift(X, groups=LABELS, **{"target": "home", **more})  # noqa: E731
    refused(lambda: call(target=None), "sources_by_shift needs target")
    refused(lambda: call(target="hme"), "target='hme': no row of groups has that label; did you mean 'home'?")
    refused(lambda: call(kind="mmd"), "kind='mmd': choose one of classifier, kl")
    refused(lambda: call(most=-1), "most=-1")
    refused(lambda: call(patience=0), "patience=0")
    refused(lambda: call(score=3), "score=3: give a callable")
    refused(lambda: call(score=lambda picked: float("nan")), "score gave nan for 60 rows")
    refused(lambda: call(budget=59), "'home' alone cost 60, over the budget of 59 by 1", InfeasibleError)
    refused(lambda: shift_scores(X, groups=LABELS[:-1], target="home"), "groups has 199 values, X has 200 rows")
    refused(lambda: shift_scores(X, groups=LABELS, target="home", y=[1]), "y has 1 values, X has 200 rows")


def test_one_file_with_a_column_of_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kofn.cli import main

    X = rows()
    died = (X[:, 0] > 1).astype(int)
    pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "site": LABELS, "died": died}).write_csv(tmp_path / "pool.csv")
    out = tmp_path / "picks.csv"
    words = ["select", tmp_path / "pool.csv", "--columns", "a,b", "--group", "site", "--label", "died", "--most", 2]
    words += ["--method", "sources_by_shift", "--target", "home", "--seed", 0, "-o", out]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert not stop.value.code
    said = capsys.readouterr().out
    assert "sources by shift: home, a (0." in said
    assert "; left out: " in said
    picked = pl.read_csv(out)
    assert set(picked["site"]) == {"home", "a", "b"}
    assert len(picked) == 150
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in [*words, "--quota", "died=1:5"]])
    assert stop.value.code == 2
    assert "--group names 'site', --quota names 'died'" in capsys.readouterr().err
