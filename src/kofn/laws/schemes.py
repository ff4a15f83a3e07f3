"""The axioms of clustering as laws of schemes: functions from an (n, n) table of distances to n labels.

Carlsson & Memoli (arXiv 1011.5270) ask what a scheme does under maps between finite metric spaces; Kleinberg (2002)
what it does when distances change. `AXIOMS[name](scheme, rng, n)` draws one case and raises `SchemeBroken`;
`violations` counts them. Items labelled -1 are alone, each a group of its own.

>>> import numpy as np
>>> halves = lambda D: (D[0] > np.median(D[0])).astype(int)
>>> violations(halves, "non-expanding", trials=50, seed=0) > 0
True
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Ints, Mask

Scheme = Callable[[Floats], Any]
Map = tuple[Floats, Ints]

_LEVELS = (0.1, 0.3, 0.7, 1.5, 4.0, 20.0)


class SchemeBroken(AssertionError):
    """A scheme breaks an axiom; the message says which and on what."""


def together(labels: Any) -> Mask:
    """(n, n) True where two items share a group; an item is with itself, -1 is no group."""
    labels = np.asarray(labels)
    out = (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]
    np.fill_diagonal(out, True)
    return np.asarray(out)


def shortest_paths(lengths: Floats) -> Floats:
    """The largest metric that is nowhere above `lengths` (Floyd and Warshall)."""
    out = lengths.copy()
    for via in range(len(out)):
        np.minimum(out, out[:, [via]] + out[[via], :], out=out)
    return out


def draw_space(rng: np.random.Generator, n: int) -> Floats:
    """A finite metric space of distances about 1: points of the plane, whole numbers with ties, or paths in a graph."""
    kind = rng.integers(3)
    if kind == 2:
        upper = np.triu(rng.exponential(size=(n, n)) + 0.05, 1)
        return shortest_paths(upper + upper.T)
    points = rng.normal(size=(n, 2)) if kind == 0 else np.arange(n)[:, None] + rng.integers(0, 3, (n, 1))
    points = points[rng.permutation(n)].astype(np.float64)
    apart: Floats = np.abs(points[:, None] - points[None]).sum(axis=2)
    if kind == 1:
        # Whole distances tie; a little more keeps different items apart.
        apart = apart / 2 + 0.25 * (1 - np.eye(n))
    return apart


def isometric(D: Floats, rng: np.random.Generator) -> Map:
    """The same space with its items in another order: the distances there, and where each item went."""
    image = rng.permutation(len(D))
    out = np.empty_like(D)
    out[np.ix_(image, image)] = D
    return out, image


def injective(D: Floats, rng: np.random.Generator) -> Map:
    """An injective non-expanding map into a larger space."""
    return _shrunk(D, rng, 0.0)


def non_expanding(D: Floats, rng: np.random.Generator) -> Map:
    """A non-expanding map; several items may share an image."""
    return _shrunk(D, rng, float(rng.choice([0.0, 0.1, 0.3])))


def _shrunk(D: Floats, rng: np.random.Generator, merged: float) -> Map:
    n, more = len(D), int(rng.integers(0, 4))
    lengths = np.full((n + more, n + more), np.inf)
    factor = 1.0 if rng.random() < 0.3 else np.triu(rng.uniform(0.4, 1, (n, n)), 1)
    lengths[:n, :n] = D * (factor if isinstance(factor, float) else factor + factor.T)
    if more:
        new = rng.exponential(size=(more, n + more)) + 0.05
        lengths[n:] = np.minimum(lengths[n:], new)
        lengths[:, n:] = np.minimum(lengths[:, n:], new.T)
    np.fill_diagonal(lengths, 0.0)
    lengths = np.minimum(lengths, lengths.T)
    for _ in range(round(merged * n)):
        i, j = rng.integers(n, size=2)
        lengths[i, j] = lengths[j, i] = 0.0
    out = shortest_paths(lengths)
    # Items at distance nothing are one in the image.
    first = (out == 0).argmax(axis=1)
    names, image = np.unique(first, return_inverse=True)
    return out[np.ix_(names, names)], image[:n]


def functorial(scheme: Scheme, D: Floats, image: Map) -> None:
    """Items that share a group still share one after the map."""
    E, position = image
    here, there = together(scheme(D)), together(scheme(E))[np.ix_(position, position)]
    if (wrong := here & ~there).any():
        i, j = np.argwhere(wrong)[0]
        raise SchemeBroken(
            f"items {i} and {j}, {D[i, j]:.4g} apart, are together; "
            f"their images, {E[position[i], position[j]]:.4g} apart, are not"
        )


def excisive(scheme: Scheme, D: Floats) -> None:
    """Each group, taken alone, is one group."""
    shared = together(scheme(D))
    for row in np.unique(shared, axis=0):
        members = np.flatnonzero(row)
        if not together(scheme(D[np.ix_(members, members)])).all():
            raise SchemeBroken(f"the group {members.tolist()} falls apart when it is alone")


def scale_invariant(scheme: Scheme, D: Floats, factor: float) -> None:
    """Scale invariance: multiplying all distances changes nothing."""
    if (together(scheme(D)) != together(scheme(D * factor))).any():
        raise SchemeBroken(f"distances times {factor:.4g} are grouped differently")


def consistent(scheme: Scheme, D: Floats, rng: np.random.Generator) -> None:
    """Consistency: shorter distances within groups and longer ones between them change nothing."""
    shared = together(scheme(D))
    share = np.triu(rng.uniform(0, 1, D.shape) ** rng.choice([1.0, 4.0]), 1)
    share = share + share.T
    if (together(scheme(np.where(shared, D * (1 - 0.95 * share), D * (1 + 3 * share)))) != shared).any():
        raise SchemeBroken("closer groups farther apart are grouped differently")


def rich(scheme: Scheme, labels: Ints) -> None:
    """Richness: some distances give this partition (blocks or chains of one length, another length between groups)."""
    shared, n = together(labels), len(labels)
    steps = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :]).astype(np.float64)
    rank = np.array([(labels[:row] == label).sum() for row, label in enumerate(labels)])
    chain = np.abs(rank[:, None] - rank[None, :])
    for near, far in itertools.combinations(_LEVELS, 2):
        for within in (1 - np.eye(n), chain):
            for between in (1 - np.eye(n), steps):
                table = np.where(shared, near * within, far * between)
                if (together(scheme(table)) == shared).all():
                    return
    raise SchemeBroken(f"no distances were found that give the groups {labels.tolist()}")


def _under(draw: Callable[[Floats, np.random.Generator], Map]) -> Callable[[Scheme, np.random.Generator, int], None]:
    def check(scheme: Scheme, rng: np.random.Generator, n: int) -> None:
        D = draw_space(rng, n)
        functorial(scheme, D, draw(D, rng))

    return check


def _partition(rng: np.random.Generator, n: int) -> Ints:
    return np.asarray(rng.integers(int(rng.integers(1, n + 1)), size=n))


AXIOMS: dict[str, Callable[[Scheme, np.random.Generator, int], None]] = {
    "isometric": _under(isometric),
    "injective": _under(injective),
    "non-expanding": _under(non_expanding),
    "excisive": lambda scheme, rng, n: excisive(scheme, draw_space(rng, n)),
    "scale-invariant": lambda scheme, rng, n: scale_invariant(scheme, draw_space(rng, n), 4.0 ** rng.uniform(-1, 1)),
    "consistent": lambda scheme, rng, n: consistent(scheme, draw_space(rng, n), rng),
    "rich": lambda scheme, rng, n: rich(scheme, _partition(rng, n)),
}


def violations(scheme: Scheme, axiom: str, *, trials: int, seed: int, most: int = 12) -> int:
    """In how many of `trials` drawn cases of 3 to `most` items the scheme breaks an axiom of `AXIOMS`."""
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(trials):
        try:
            AXIOMS[axiom](scheme, rng, int(rng.integers(3, most + 1)))
        except SchemeBroken:
            count += 1
    return count


def represented(tests: Sequence[Floats], *, one_to_one: bool = True) -> Scheme:
    """The scheme that a family of test spaces stands for: every image of one, under a map that takes no distance up, is
    together, and chains of such images are.

    With one-to-one maps these are all the excisive schemes that respect injective maps; a clique of m points is
    sensitive to density, as a group then needs m items near each other. With all maps single linkage is what is left.
    Every map is tried: for small spaces.

    >>> import numpy as np
    >>> D = np.abs(np.subtract.outer([0.0, 1, 2, 3, 3.5], [0.0, 1, 2, 3, 3.5]))
    >>> represented([clique(2, 1.0)])(D).tolist(), represented([clique(3, 1.5)])(D).tolist()
    ([0, 0, 0, 0, 0], [0, 1, 2, 2, 2])
    """

    def scheme(D: Floats) -> Ints:
        labels = np.arange(len(D))
        for test in tests:
            for image in _images(np.asarray(test, np.float64), D, one_to_one):
                names = labels[image]
                if (names != names[0]).any():
                    labels[np.isin(labels, names)] = names.min()
        return np.unique(labels, return_inverse=True)[1]

    return scheme


def clique(size: int, scale: float) -> Floats:
    """The test space of `size` points at `scale` from each other."""
    return scale * (1 - np.eye(size))


def _images(test: Floats, D: Floats, one_to_one: bool) -> Iterator[list[int]]:
    """Every place that a map of the test space takes its points to, point by point."""

    def grow(image: list[int]) -> Iterator[list[int]]:
        if len(image) == len(test):
            yield image
            return
        fits = (D[image] <= test[len(image), : len(image), None]).all(axis=0)
        for item in np.flatnonzero(fits).tolist():
            if not (one_to_one and item in image):
                yield from grow([*image, item])

    return grow([])
