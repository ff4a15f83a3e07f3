"""Near-duplicates among texts against brute force; which row of a group stays; rows of tables; distances."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import polars as pl
import pytest

from kofn.core.checks import InputError
from kofn.selection import near_duplicates
from kofn.selection.training_data import _near_texts
from kofn.selection.training_data._near_texts import normalised

WORDS = (
    "the",
    "of",
    "a",
    "line",
    "point",
    "table",
    "reads",
    "fits",
    "data",
    "fast",
    "simple",
    "client",
    "for",
    "python",
    "service",
    "cloud",
)


def triples(text: str) -> Counter[str]:
    spaced = f" {normalised(text)} "
    return Counter(spaced[i : i + 3] for i in range(len(spaced) - 2))


def by_definition(texts: list[str], threshold: float, include: tuple[int, ...] = ()) -> tuple[list[int], list[float]]:
    """Each text against every earlier kept text."""
    sets, forms = [triples(text) for text in texts], [normalised(text) for text in texts]
    of, similarity = [-1] * len(texts), [float("nan")] * len(texts)
    kept: list[int] = list(include)
    for i in range(len(texts)):
        if i in include:
            continue
        for j in kept:
            both = 2 * (sets[i] & sets[j]).total()
            alike = both / max(1, sets[i].total() + sets[j].total())
            if forms[i] == forms[j] or alike >= threshold - 1e-9:
                of[i], similarity[i] = j, 1.0 if forms[i] == forms[j] else alike
                break
        else:
            kept.append(i)
    return of, similarity


def pool(rng: random.Random, n: int, most: int) -> list[str]:
    """Sentences, some repeated with a letter changed, a word dropped, moved or added, another case or form."""
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(0, most))) for _ in range(n // 2)]
    while len(texts) < n:
        text = rng.choice(texts)
        words = text.split() or ["-"]
        at = rng.randrange(len(words))
        edits = [
            " ".join(words[:at] + words[at + 1 :]),
            " ".join([words[at], *words[:at], *words[at + 1 :]]),
            text + " again",
            text.title(),
            text.replace(" ", "\u00a0 "),
            text[:at] + "x" + text[at + 1 :],
            "".join(chr(ord(letter) + 0xFEE0) if letter > " " else letter for letter in text if ord(letter) < 127),
            "日本語の文章" * rng.randint(1, 3) + text[:3],
        ]
        texts.append(rng.choice(edits))
    rng.shuffle(texts)
    return texts


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize(("n", "most"), [(300, 3), (300, 12), (120, 90)])
def test_equals_the_definition(threshold: float, n: int, most: int) -> None:
    texts = pool(random.Random(n + most), n, most)
    found = near_duplicates(texts=texts, threshold=threshold)
    of, similarity = by_definition(texts, threshold)
    assert found.of.tolist() == of
    np.testing.assert_array_equal(found.similarity, similarity)
    assert found.keep.tolist() == [row < 0 for row in of]


def test_equals_the_definition_with_rows_that_stay_and_a_table_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_near_texts, "_CHUNK", 500)
    texts = pool(random.Random(5), 300, 10)
    found = near_duplicates(texts=texts, threshold=0.8, include=[7, 3, 200])
    of, _ = by_definition(texts, 0.8, (7, 3, 200))
    assert found.of.tolist() == of


def test_planted_edits_are_found_and_nothing_else() -> None:
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join("".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(12)) for _ in range(400)]
    copies = [text[:30] + "_" + text[31:] for text in texts[:100]]
    found = near_duplicates(texts=texts + copies, threshold=0.9)
    assert found.of.tolist() == [-1] * 400 + list(range(100))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "FINE"),
        (" a\tb\n", "A B"),
        ("caf\u0065\u0301", "café"),
        ("soft\u00adly", "softly"),
    ],
)
def test_the_same_to_a_reader(one: str, other: str) -> None:
    assert near_duplicates(texts=[one, other], threshold=1.0).of.tolist() == [-1, 0]


def test_texts_without_triples() -> None:
    assert near_duplicates(texts=["", " ", "-", "!!!", "-", "a"], threshold=0.5).of.tolist() == [-1, 0, -1, -1, 2, -1]


def test_scores_costs_and_order_decide_who_stays() -> None:
    texts = ["same text"] * 4
    assert near_duplicates(texts=texts).keep.nonzero()[0].tolist() == [0]
    assert near_duplicates(texts=texts, scores=[1, 3, 3, 2]).keep.nonzero()[0].tolist() == [1]
    assert near_duplicates(texts=texts, scores=[1, 3, 3, 2], costs=[1, 2, 1, 1]).keep.nonzero()[0].tolist() == [2]
    assert near_duplicates(texts=texts, scores=[1, 3, 3, 2], include=[0]).keep.nonzero()[0].tolist() == [0]
    assert near_duplicates(texts=texts, include=[0, 3], exclude=[1]).keep.tolist() == [True, True, False, True]


def test_scores_come_before_quotas_unless_a_minimum_needs_the_row() -> None:
    texts, groups = ["one text", "one text", "other words"], ["en", "de", "de"]
    scores, quotas = [2.0, 1.0, 0.0], {"de": (1, None)}
    enough = near_duplicates(texts=texts, scores=scores, groups=groups, quotas=quotas)
    assert enough.keep.tolist() == [True, False, True]
    needed = near_duplicates(texts=texts, scores=scores, groups=groups, quotas={"de": (2, None)})
    assert needed.keep.tolist() == [False, True, True]
    columns = {"lang": groups, "year": ["a", "b", "a"]}
    several = near_duplicates(texts=texts, groups=columns, quotas={"lang": {"de": 1}, "year": {"b": (1, None)}})
    assert several.keep.tolist() == [False, True, True]


def test_distances_are_shares_of_the_typical_one() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5)) + 1e3
    X[200:] = X[:200] + rng.normal(size=(200, 5)) * rng.uniform(0, 0.2, (200, 1))
    apart = np.linalg.norm(X[:, None] - X[None], axis=2)
    typical = np.sqrt((apart**2).mean())
    for metric, similarity in (("euclidean", 1 - apart / typical), ("sqeuclidean", 1 - (apart / typical) ** 2)):
        expected = np.full(len(X), -1)
        for i in range(len(X)):
            near = [j for j in range(i) if expected[j] < 0 and similarity[i, j] >= 0.95]
            expected[i] = near[0] if near else -1
        found = near_duplicates(X, 0.95, metric=metric)
        np.testing.assert_array_equal(found.of, expected)
        dropped = np.flatnonzero(expected >= 0)
        np.testing.assert_allclose(found.similarity[dropped], similarity[dropped, expected[dropped]])
        np.testing.assert_array_equal(near_duplicates(X * 1e160, 0.95, metric=metric).of, expected)
    assert near_duplicates(np.ones((3, 2)), 1.0, metric="euclidean").of.tolist() == [-1, 0, 0]


def test_filtered_distances_equal_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from kofn.selection.training_data import _near_vectors

    rng = np.random.default_rng(1)
    X = (rng.normal(size=(1500, 60)) / np.arange(1, 61)).astype(np.float32)
    X[750:] = X[:750] + rng.normal(size=(750, 60)).astype(np.float32) * 0.01
    plain = near_duplicates(X, 0.9, metric="euclidean")
    assert 500 < (plain.of >= 0).sum() < 1000
    monkeypatch.setattr(_near_vectors, "_ROWS", 64)
    monkeypatch.setattr(_near_vectors, "_KEPT", 96)
    for r in (8, 16, 0):
        monkeypatch.setattr(_near_vectors, "_rank", lambda *_, r=r: r)
        np.testing.assert_array_equal(near_duplicates(X, 0.9, metric="euclidean").of, plain.of)


def test_rows_that_agree() -> None:
    frame = pl.DataFrame({"price": [0.1 + 0.2, 0.3, 0.3, 0.300001, -0.0, 0.0], "make": list("aabaaa")})
    assert near_duplicates(columns=frame).of.tolist() == [-1, 0, -1, -1, -1, 4]
    assert near_duplicates(columns=frame.to_dict(as_series=False), include=[1]).of.tolist() == [1, -1, -1, -1, -1, 4]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing given"),
        ({"X": [[1.0]], "texts": ["a"]}, "X and texts given"),
        ({"texts": ["a", None]}, "texts at row 1 is None"),
        ({"texts": ["a"], "threshold": 0}, "more than 0"),
        ({"texts": ["a"], "threshold": 95}, "between 0 and 1"),
        ({"X": [[1.0]], "metric": "precomputed"}, "near-duplicates are found by"),
        ({"texts": ["a", "b"], "scores": [1.0]}, "scores"),
        ({"texts": ["a"], "quotas": {"de": 1}}, "quotas need groups"),
        ({"texts": ["a"], "include": [4]}, "include"),
        ({"columns": {}}, "columns is empty"),
        ({"columns": {"a": [1.0, None]}}, "at row 1 is empty"),
    ],
)
def test_refuses(given: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        near_duplicates(**given)  # type: ignore[arg-type]
