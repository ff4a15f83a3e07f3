"""The axioms of clustering schemes: maps are what they say, planted violators are caught, theorems hold."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.laws import schemes
from kofn.laws.schemes import AXIOMS, SchemeBroken, clique, functorial, represented, together, violations

SCALE = 0.8


def single(D: Any, scale: float = SCALE) -> Any:
    return kofn.assign(distances=D, method="single_linkage", options={"threshold": scale}).labels


def k_groups(D: Any) -> Any:
    return kofn.assign(distances=D, method="single_linkage", k=min(3, len(D))).labels


def share(D: Any) -> Any:
    return single(D, 0.5 * float(D.max()))


def complete(D: Any) -> Any:
    """Complete linkage at the scale, written out."""
    groups = [[item] for item in range(len(D))]
    while len(groups) > 1:
        gaps = [(D[np.ix_(a, b)].max(), i, j) for i, a in enumerate(groups) for j, b in enumerate(groups) if i < j]
        gap, i, j = min(gaps)
        if gap > SCALE:
            break
        groups[i] += groups.pop(j)
    labels = np.empty(len(D), np.int64)
    for name, held in enumerate(groups):
        labels[held] = name
    return labels


def dense(D: Any) -> Any:
    """Chains of items with two others near; what is left is alone."""
    core = (D <= SCALE).sum(axis=1) >= 3
    labels = np.full(len(D), -1)
    labels[core] = single(D[np.ix_(core, core)]) if core.any() else 0
    return labels


def first_rows(D: Any) -> Any:
    return (np.arange(len(D)) >= len(D) // 2).astype(int)


def crowded(D: Any) -> Any:
    """All together where there are many, else all alone."""
    return np.zeros(len(D), int) if len(D) > 6 else np.arange(len(D))


def unit_bound(D: Any) -> Any:
    return single(D / 2)


def median_scale(D: Any) -> Any:
    return single(D, float(np.median(D)))


def nearest_two(D: Any) -> Any:
    """The closest pair is together, all others are alone."""
    labels = np.arange(len(D))
    i, j = np.unravel_index(int((D + 99 * np.eye(len(D))).argmin()), D.shape)
    labels[max(i, j)] = labels[min(i, j)]
    return labels


PLANTED = {
    "isometric": [first_rows],
    "injective": [complete, k_groups, share],
    "non-expanding": [complete, k_groups, share, crowded],
    "excisive": [k_groups, share],
    "scale-invariant": [single, complete, unit_bound],
    "consistent": [share, median_scale],
    "rich": [k_groups, nearest_two, crowded],
}


@pytest.mark.parametrize(("axiom", "scheme"), [(axiom, scheme) for axiom, row in PLANTED.items() for scheme in row])
def test_violators_are_caught(axiom: str, scheme: Any) -> None:
    assert violations(scheme, axiom, trials=60, seed=0) > 0


def test_every_axiom_has_its_violators() -> None:
    assert PLANTED.keys() == AXIOMS.keys()


@pytest.mark.parametrize("axiom", ["isometric", "injective", "non-expanding", "excisive", "consistent", "rich"])
def test_single_linkage_at_a_scale_keeps_all_but_the_unit(axiom: str) -> None:
    assert violations(single, axiom, trials=100, seed=1, most=20) == 0


@pytest.mark.parametrize(("scheme", "broken"), [(k_groups, "rich"), (share, "consistent"), (single, "scale-invariant")])
def test_kleinbergs_three_ways_to_stop(scheme: Any, broken: str) -> None:
    for axiom in ("scale-invariant", "consistent", "rich"):
        assert (violations(scheme, axiom, trials=60, seed=2) > 0) == (axiom == broken)


def test_maps_are_what_they_say() -> None:
    rng = np.random.default_rng(3)
    merged = 0
    for _ in range(60):
        D = schemes.draw_space(rng, 7)
        assert (D == D.T).all()
        assert not D.diagonal().any()
        assert (D + np.eye(7) > 0).all()
        assert np.allclose(schemes.shortest_paths(D), D)
        for draw in (schemes.isometric, schemes.injective, schemes.non_expanding):
            E, place = draw(D, rng)
            image = E[np.ix_(place, place)]
            assert (image <= D * (1 + 1e-12)).all()
            assert np.allclose(schemes.shortest_paths(E), E)
            assert (E + np.eye(len(E)) > 0).all()
            if draw is schemes.isometric:
                assert (image == D).all()
                assert len(E) == 7
            if draw is not schemes.non_expanding:
                assert len(set(place.tolist())) == 7
            merged += len(set(place.tolist())) < 7
    assert merged > 10


@pytest.mark.parametrize("test", [[clique(2, SCALE)], [clique(3, SCALE)], [clique(2, 0.4), clique(3, 1.0)]])
def test_represented_schemes_are_excisive_and_respect_one_to_one_maps(test: Any) -> None:
    for axiom in ("isometric", "injective", "excisive"):
        assert violations(represented(test), axiom, trials=20, seed=4, most=8) == 0


def test_two_points_at_a_scale_stand_for_single_linkage() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        D = schemes.draw_space(rng, 8)
        pairs = together(single(D))
        assert (together(represented([clique(2, SCALE)])(D)) == pairs).all()
        # Under all maps a clique may collapse to two of its points, and single linkage is what is left.
        assert (together(represented([clique(3, SCALE)], one_to_one=False)(D)) == pairs).all()


@pytest.mark.parametrize("scheme", [represented([clique(3, SCALE)]), dense])
def test_density_is_lost_where_items_become_one(scheme: Any) -> None:
    three, two = clique(3, 0.5), clique(2, 0.5)
    with pytest.raises(SchemeBroken, match=r"items 0 and 1, .* are together; their images, 0.5 apart, are not|items"):
        functorial(scheme, three, (two, np.array([0, 1, 1])))
    functorial(single, three, (two, np.array([0, 1, 1])))


def test_what_is_left_alone_is_alone() -> None:
    assert together([0, -1, 0, -1]).tolist() == [
        [True, False, True, False],
        [False, True, False, False],
        [True, False, True, False],
        [False, False, False, True],
    ]


def test_counts_repeat_with_the_seed() -> None:
    count = functools.partial(violations, complete, "non-expanding", trials=40)
    assert count(seed=6) == count(seed=6) > 0
