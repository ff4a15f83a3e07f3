"""The report of an assignment: its figures against independent counts, odd plans, how a real browser sees it."""

from __future__ import annotations

import dataclasses
import re
from importlib import resources
from pathlib import Path
from typing import Any

import browser as chrome
import numpy as np
import polars as pl
import pytest
from pages import HOSTILE, LOOKS, Reader, check_frame, contrast, read, stands
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import kofn
from kofn.assignment import medoid_silhouette
from kofn.core.checks import InputError
from kofn.core.plans import Assignment
from kofn.report import charts, measures, membership, page, write_report

METRICS = {
    "euclidean": lambda a, b: cdist(a, b),
    "sqeuclidean": lambda a, b: cdist(a, b, "sqeuclidean"),
    "cosine": lambda a, b: cdist(a, b, "cosine"),
}


def space_of(X: Any, metric: str = "euclidean") -> measures.Space:
    return measures.Space(X, metric)


# ---------------------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("block", [64, 1 << 21])
def test_groups_around_medoids_are_what_a_plain_count_gives(metric: str, block: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(membership, "BLOCK_CELLS", block)
    X = np.random.default_rng(0).normal(size=(120, 5)) + 1
    plan = kofn.assign(X, k=6, metric=metric, seed=0)
    far = METRICS[metric](X, X[plan.medoids])
    got = membership.measure(plan, space_of(X, metric), None)

    assert got.kind == "medoid"
    np.testing.assert_array_equal(got.heart, plan.medoids)
    np.testing.assert_array_equal(got.items, np.arange(120))
    np.testing.assert_allclose(got.own, far[np.arange(120), plan.labels], atol=1e-7)
    far[np.arange(120), plan.labels] = np.inf
    np.testing.assert_allclose(got.other, far.min(axis=1))
    np.testing.assert_array_equal(got.next, far.argmin(axis=1))
    np.testing.assert_allclose(got.silhouette, medoid_silhouette(plan, X, metric=metric), atol=1e-6)
    assert got.own[plan.medoids].max() == 0.0
    assert got.own.sum() == pytest.approx(plan.value)
    members = got.members(2)
    assert got.items[members[0]] == plan.medoids[2]
    assert (np.diff(got.own[members]) >= 0).all()
    assert set(members.tolist()) == set(np.flatnonzero(plan.labels == 2).tolist())


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.parametrize("given", [True, False])
def test_groups_around_centres_and_means(metric: str, given: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(membership, "BLOCK_CELLS", 64)
    rng = np.random.default_rng(1)
    X, labels = rng.normal(size=(90, 4)) + 2, rng.integers(-1, 5, 90)
    rows = X / np.linalg.norm(X, axis=1, keepdims=True) if metric == "cosine" else X
    middles = np.stack([rows[labels == j].mean(axis=0) for j in range(5)])
    centers = rng.normal(size=(5, 4)) + 2 if given else None
    plan = Assignment.from_labels(labels, 5, centers=centers)
    got = membership.measure(plan, space_of(X, metric), None)

    assert got.kind == ("centre" if given else "mean")
    held = np.flatnonzero(labels >= 0)
    far = METRICS[metric](X, middles if centers is None else centers)[held]
    np.testing.assert_array_equal(got.items, held)
    own = far[np.arange(len(held)), labels[held]]
    np.testing.assert_allclose(got.own, own, atol=1e-9)
    for group in range(5):
        mine = labels[held] == group
        assert got.heart[group] == held[mine][own[mine].argmin()]
    far[np.arange(len(held)), labels[held]] = np.inf
    other = far.min(axis=1)
    np.testing.assert_allclose(got.silhouette, (other - own) / np.maximum(own, other), atol=1e-9)
    assert (got.silhouette < 0).any()


@pytest.mark.parametrize("medoids", [True, False])
def test_groups_by_distances_alone(medoids: bool) -> None:
    X = np.random.default_rng(2).normal(size=(80, 3))
    distances = cdist(X, X, "cityblock")
    plan = kofn.assign(distances=distances, k=4, method="fasterpam" if medoids else "single_linkage", seed=0)
    got = membership.measure(plan, None, distances)
    for group in range(4):
        mine = np.flatnonzero(plan.labels == group)
        sums = distances[np.ix_(mine, mine)].sum(axis=1)
        assert sums[mine == got.heart[group]][0] == pytest.approx(sums.min())
    np.testing.assert_allclose(got.silhouette, medoid_silhouette(plan, distances=distances))


def test_silhouettes_of_a_huge_pool_are_sampled_and_near_the_truth(monkeypatch: Any) -> None:
    X = np.random.default_rng(1).normal(size=(8000, 3))
    plan = kofn.assign(X, k=10, method="fastclara", seed=0)
    whole = membership.measure(plan, space_of(X), None)
    monkeypatch.setattr(measures, "MAX_DISTANCES", 20_000)
    part = membership.measure(plan, space_of(X), None)
    assert (len(whole.items), len(part.items)) == (8000, 2000)
    assert abs(whole.mean() - part.mean()) < 0.02
    np.testing.assert_array_equal(whole.sizes, part.sizes)


def test_equal_rows_have_no_silhouette() -> None:
    plan = Assignment.from_labels([0, 0, 1, 1], 2, medoids=np.array([0, 2]))
    got = membership.measure(plan, space_of(np.full((4, 3), 0.1)), None)
    np.testing.assert_array_equal(got.silhouette, 0.0)
    one = membership.measure(Assignment.from_labels([0, 0, 0], 1), space_of(np.eye(3)), None)
    np.testing.assert_array_equal(one.silhouette, 0.0)
    assert np.isinf(one.other).all()


@pytest.mark.parametrize("n", [60, 900])
def test_distances_are_mapped_as_the_rows_would_be(n: int) -> None:
    """Classical scaling of Euclidean distances is PCA; from landmarks it is exact for rows in a plane."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(n, 2)) * [3, 1] @ rng.normal(size=(2, 6))
    if n <= measures.LANDMARKS:
        X += rng.normal(size=X.shape)
    reference = PCA(2, svd_solver="full").fit(X)
    got = measures.plane_of_distances(cdist(X, X))
    if n <= measures.LANDMARKS:
        np.testing.assert_allclose(np.abs(got.points), np.abs(reference.transform(X)), atol=1e-8)
        assert got.shown == pytest.approx(reference.explained_variance_ratio_.sum())
    np.testing.assert_allclose(cdist(got.points, got.points), cdist(*[reference.transform(X)] * 2), atol=1e-6)


def test_degenerate_distances_are_mapped() -> None:
    for distances in (np.zeros((1, 1)), np.zeros((5, 5)), 1 - np.eye(4)):
        got = measures.plane_of_distances(distances)
        assert got.points.shape == (len(distances), 2)
        assert np.isfinite(got.points).all()


def test_centres_are_projected_like_rows() -> None:
    X = np.random.default_rng(0).normal(size=(50, 7)) + 3
    plane = measures.plane(space_of(X))
    np.testing.assert_allclose(plane.project(space_of(X).place(X[:9])), plane.points[:9])


def test_close_groups_get_other_colours() -> None:
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
    colours = np.array(charts.hues(grid))
    assert set(colours.tolist()) == set(range(charts.HUES))
    apart = cdist(grid, grid)
    assert (colours[:, None] != colours[None])[(apart > 0) & (apart < 1.1)].all()
    assert charts.hues(np.zeros((charts.HUES, 2))) == list(range(charts.HUES))
    assert charts.hues(np.empty((0, 2))) == []


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_of_groups_can_be_seen(scheme: int) -> None:
    css = resources.files("kofn.report").joinpath("report.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w{6});", re.findall(r":root \{(.*?)\}", css, re.S)[scheme]))
    hues = [colours[f"g{letter}"] for letter in "abcdefgh"]
    assert len(set(hues)) == charts.HUES
    for ground in ("card", "sunk", "band"):
        assert min(contrast(hue, colours[ground]) for hue in hues) >= 3.0, ground


# ---------------------------------------------------------------------------------------------------- groups


@pytest.fixture(scope="module")
def digits() -> tuple[Assignment, dict[str, Any]]:
    data = load_digits()
    plan = kofn.assign(data.data, k=10, seed=0)
    given = {"X": data.data, "images": data.images, "groups": {"digit": data.target.astype(str)}}
    return plan, given | {"command": "kofn assign digits.npz --k 10"}


@pytest.fixture(scope="module")
def capped() -> tuple[Assignment, dict[str, Any]]:
    data = load_digits()
    options = {"min_size": 100}
    plan = kofn.assign(data.data, k=10, capacity=200, method="constrained_kmeans", options=options, seed=0)
    return plan, {"X": data.data, "images": data.images}


@pytest.fixture(scope="module")
def texts() -> tuple[Assignment, dict[str, Any]]:
    """Groups of texts, with everything hostile that ids, columns and classes may hold."""
    rng = np.random.default_rng(0)
    n = 300
    body = [" ".join(rng.choice(["price", "of", "a", "plan", "worth", "unit"], rng.integers(3, 120))) for _ in range(n)]
    body[: len(HOSTILE)] = list(HOSTILE)
    keys = np.array([*(f"{i}{text}" for i, text in enumerate(HOSTILE)), *(f"doc-{i}" for i in range(n - len(HOSTILE)))])
    X = rng.normal(size=(n, 6))
    labels = np.append(np.arange(len(HOSTILE)), rng.integers(0, 20, n - len(HOSTILE)))
    plan = Assignment.from_labels(
        labels,
        20,
        medoids=np.array([np.flatnonzero(labels == j)[0] for j in range(20)]),
        ids=keys,
        method=HOSTILE[0],
        options={HOSTILE[1]: HOSTILE[2]},
        info={"classes": [*HOSTILE, *(f"kind-{j}" for j in range(20 - len(HOSTILE)))], "note": HOSTILE[3]},
    )
    frame = pl.DataFrame({"text": [t.encode("utf-8", "replace").decode() for t in body], HOSTILE[0]: [HOSTILE[1]] * n})
    given = {"X": X, "text": body, "frame": frame, "groups": {HOSTILE[3]: [HOSTILE[0]] * n}, "metric": "cosine"}
    return plan, given | {"title": HOSTILE[4], "command": ["kofn", HOSTILE[0]]}


def test_a_report_of_groups_holds_everything(digits: Any, tmp_path: Path) -> None:
    plan, given = digits
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert {a["aria-labelledby"] for a in seen.named("figure")} == {"map", "sizes", "silhouettes"}
    value = medoid_silhouette(plan, given["X"])
    for words in (
        "1,797 items in 10 groups",
        f"{value.mean():.3f} ",
        "medoid silhouette",
        "kofn assign digits.npz --k 10",
        "fasterpam",
        f"{plan.value / 1797:.1f} from the medoid of its group (euclidean distance)",
    ):
        assert words in seen.text, words
    sizes = plan.col_margin.astype(int)
    assert [int(v) for v in re.findall(r"items (\d+) mean distance", seen.text)] == sizes.tolist()
    means = [float(v) for v in re.findall(r"mean (\d\.\d\d) ", seen.text)]
    np.testing.assert_allclose(means, [value[plan.labels == j].mean() for j in range(10)], atol=0.0051)
    shares = re.findall(r"mostly digit (\d) \((\d+)%\)", seen.text)
    for group, (label, share) in enumerate(shares):
        mine = given["groups"]["digit"][plan.labels == group]
        assert (mine == label).mean() == pytest.approx(int(share) / 100, abs=0.0051)
        assert (mine == label).sum() == max((mine == d).sum() for d in set(mine.tolist()))
    drawn = [a for a in seen.named("path") if "pool" in (a.get("class") or "")]
    assert [(a["d"] or "").count("h.01") for a in drawn] == sorted(sizes.tolist(), reverse=True)
    assert len(seen.named("img")) == 10 + 10 * (1 + 7 + 7)
    assert len([a for a in seen.named("a") if "pin" in (a.get("class") or "")]) == 10
    assert len(seen.named("option")) == 11


def test_nearest_and_farthest_members(digits: Any, tmp_path: Path) -> None:
    plan, given = digits
    rows = re.split(r"medoid row ", read(plan, tmp_path / "r.html", X=given["X"], text=[""] * plan.n).text)[1:]
    assert len(rows) == 10
    for group, words in enumerate(rows):
        named = [int(v.replace(",", "")) for v in re.findall(r"row ([\d,]+)", "row " + words)]
        mine = np.flatnonzero(plan.labels == group)
        far = cdist(given["X"][mine], given["X"][plan.medoids[[group]]]).ravel()
        order = mine[np.argsort(far, kind="stable")].tolist()
        assert named == [plan.medoids[group], *order[1:4], *order[:-4:-1]]
        told = [float(v) for v in re.findall(r"at distance ([\d.]+)", words)]
        np.testing.assert_allclose(told, np.sort(far)[[1, 2, 3, -1, -2, -3]], rtol=5e-3)


def test_sizes_stand_within_their_limits(capped: Any, tmp_path: Path) -> None:
    plan, given = capped
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert "Every group holds at least 100 and at most 200, as asked." in seen.text
    assert [int(v) for v in re.findall(r"(\d+) of 200 at least 100", seen.text)] == plan.col_margin.astype(int).tolist()
    assert "simplified silhouette, by the distances to the centres" in seen.text
    assert {a["aria-labelledby"] for a in seen.named("figure")} == {"map", "sizes", "silhouettes", "prices"}
    assert "nearest to the centre" in seen.text
    assert not [a for a in seen.named("li") if "breached" in (a.get("class") or "")]


def test_what_breaks_its_limits_is_said(tmp_path: Path) -> None:
    plan = Assignment.from_labels(
        [0] * 8 + [1], 2, capacity=np.array([5, 5]), options={"min_size": 2}, medoids=np.array([0, 8])
    )
    seen = read(plan, tmp_path / "r.html", X=np.eye(9))
    assert "2 of 2 groups are outside the limits of size" in seen.text
    assert len([a for a in seen.named("li") if "breached" in (a.get("class") or "")]) == 2
    # All rows are equally far apart, and what rounding makes of that is no difference.
    assert "none is nearer to another group" in seen.text


def test_who_is_nearer_to_another_group_is_said(tmp_path: Path) -> None:
    X = np.array([[0.0], [1.0], [9.0], [10.0], [9.5], [11.0]])
    plan = Assignment.from_labels([0, 0, 0, 1, 1, 1], 2, medoids=np.array([0, 3]))
    seen = read(plan, tmp_path / "r.html", X=X)
    assert "1 item is nearer to another group, 16.7%" in seen.text
    assert "nearer to group 1" in seen.text
    assert "33% below 0" in seen.text


def test_why_this_many_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(40, 2)) + centre for centre in ([0, 0], [9, 0], [0, 9], [9, 9])])
    plan = kofn.assign(X, method="dynmsc", seed=0)
    seen = read(plan, tmp_path / "r.html", X=X)
    check_frame(seen)
    assert plan.k == 4
    assert "Why 4 groups" in seen.text
    assert f"k = 4: {page.number(plan.value, 3)}" in seen.text
    cells = re.findall(r"(\d+) (\d\.\d+) [\d.,]+", seen.text[seen.text.index("average silhouette summed") :])
    curve = plan.info["curve"]
    assert [int(k) for k, _ in cells[: len(curve["k"])]] == curve["k"]
    np.testing.assert_allclose([float(v) for _, v in cells[: len(curve["k"])]], curve["silhouette"], atol=5e-5)


def test_groups_by_distances_are_drawn_without_vectors(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(70, 3))
    distances = cdist(X, X, "cityblock")
    plan = kofn.assign(distances=distances, k=3, seed=0)
    seen = read(plan, tmp_path / "r.html", X=distances, metric="precomputed")
    check_frame(seen)
    assert "Classical scaling of the distances" in seen.text
    assert f"lies {page.number(plan.value / 70, 3)} from the medoid" in seen.text
    lopsided = distances.copy()
    lopsided[3, 1] += 1
    with pytest.raises(InputError, match=r"X is not symmetric: \(3, 1\)|X is not symmetric: \(1, 3\)"):
        write_report(plan, tmp_path / "r.html", X=lopsided, metric="precomputed")


def test_hostile_text_stays_text(texts: Any, tmp_path: Path) -> None:
    plan, given = texts
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert not {tag for tag, _ in seen.tags} & {"iframe", "object", "embed", "base", "form"}
    assert len(seen.named("style")) == 1
    for text in HOSTILE[:8]:
        assert text in "".join(seen.words)
    assert f"group {HOSTILE[0]}" in "".join(seen.words)


@pytest.mark.parametrize(
    ("plan", "given"),
    [
        (Assignment.from_labels([0], 1, medoids=np.array([0])), {"X": np.ones((1, 1)), "images": np.zeros((1, 4, 4))}),
        (Assignment.from_labels([0, 0, 0], 1), {"X": np.eye(3)}),
        (Assignment.from_labels([0, 0, 2, 2], 3), {"X": np.eye(4), "images": np.zeros((4, 5, 5))}),
        (Assignment.from_labels([0, 1, -1, -1], 2, medoids=np.array([0, 1])), {"X": np.ones((4, 2))}),
        (Assignment.from_labels([-1, -1], 2), {"X": np.eye(2)}),
        (Assignment.from_labels([0, 1, 2], 3, centers=np.zeros((3, 9))), {"X": np.eye(3), "metric": "cosine"}),
        (Assignment.from_labels([0, 1, 2], 3), {"X": 1 - np.eye(3), "metric": "precomputed"}),
        (Assignment.from_labels([0, 1, 2], 3, medoids=np.arange(3), status="stopped"), {}),
        (Assignment.from_labels([0, 1], 2, medoids=np.arange(2), info={"curve": {"k": [2], "silhouette": [1.0]}}), {}),
        (
            Assignment.from_labels(
                [0, 1], 2, medoids=np.arange(2), info={"curve": {"k": [2, 3], "silhouette": [-0.5, -0.6]}}
            ),
            {"X": np.eye(2)},
        ),
        (
            Assignment(
                n=3,
                indptr=np.array([0, 2, 4, 6]),
                bins=np.array([0, 1, 0, 1, 0, 1], np.int32),
                weights=np.array([0.5, 0.5, 0.9, 0.1, 0.2, 0.8]),
                k=2,
            ),
            {"X": np.eye(3)},
        ),
    ],
)
def test_small_and_odd_groups(plan: Assignment, given: dict[str, Any], tmp_path: Path) -> None:
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert f"{plan.n} items in {plan.k} group" in seen.text


def test_many_groups_are_bounded_and_all_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 3)).astype(np.float32)
    medoids = rng.choice(20_000, 500, replace=False)
    labels = cdist(X, X[medoids]).argmin(axis=1)
    path = tmp_path / "r.html"
    seen = read(Assignment.from_labels(labels, 500, medoids=medoids), path, X=X)
    check_frame(seen)
    assert "The first 150 of 500 groups" in seen.text
    assert "The 40 largest of 500 groups are shown" in seen.text
    assert len([a for a in seen.named("path") if (a.get("class") or "").startswith("pick")]) == 500
    _, _, at = charts.cells(charts.Frame.around(measures.plane(space_of(X)).points)(measures.plane(space_of(X)).points))
    dots = [a for a in seen.named("path") if (a.get("class") or "").startswith("density")]
    assert sum((a["d"] or "").count("h.01") for a in dots) == at.max() + 1
    assert path.stat().st_size < 1_500_000


def test_a_crowded_dot_has_the_colour_of_most() -> None:
    points = np.repeat([[0.0, 0.0], [900.0, 900.0]], [3000, 2000], axis=0)
    labels = np.array([0] * 1000 + [1] * 2000 + [0] * 1500 + [1] * 500)
    drawn, _ = charts.group_map(points, labels, points[[0, -1]], label="", names=["a", "b"], colours=[3, 5])
    dots = {path.get("data-group"): path.get("d") for path in drawn.iter("path")}
    assert len(dots) == 2
    left, right = charts.Frame.around(points)(points[[0, -1]])[:, 0]
    for group, place in (("1", left), ("0", right)):
        assert abs(int((dots[group] or "")[1:].split()[0]) - place) <= 15


def test_the_same_groups_give_the_same_file(digits: Any, tmp_path: Path) -> None:
    plan, given = digits
    first, second = plan.report(tmp_path / "a.html", **given), write_report(plan, tmp_path / "b.html", **given)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 250_000


# ---------------------------------------------------------------------------------------------------- a real browser


@pytest.fixture(scope="module")
def written(digits: Any, capped: Any, texts: Any, tmp_path_factory: Any) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("groups")
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(20, 8))[rng.integers(0, 20, 9000)] * 4 + rng.normal(size=(9000, 8))).astype(np.float32)
    made = {"digits": digits, "capped": capped, "texts": texts}
    made["points"] = kofn.assign(X, k=60, method="fastclara", seed=0), {"X": X}
    made["auto"] = kofn.assign(X[:300], method="dynmsc", seed=0), {"X": X[:300]}
    return {name: write_report(plan, folder / f"{name}.html", **given) for name, (plan, given) in made.items()}


FULLY = ["digits", "texts"]
NAMES = [*FULLY, "capped", "points", "auto"]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [(name, *look) for name in NAMES for look in (LOOKS if name in FULLY else LOOKS[:1])],
)
def test_it_stands_in_a_browser(tab: chrome.Browser, written: Any, name: str, width: int, scheme: str) -> None:
    stands(tab, written[name], width, scheme)


@pytest.mark.browser
def test_one_group_can_be_shown_alone(tab: chrome.Browser, written: Any) -> None:
    seen = tab.open(written["digits"])
    faint = "[...document.querySelectorAll('.map [data-group]:not(.faint)')].map(mark => mark.dataset.group)"
    assert len(seen.run(faint)) == 20
    seen.run("document.querySelector('.chooser select').focus()")
    for _ in range(4):
        seen.key("ArrowDown", 40)
    assert seen.run("document.querySelector('.chooser select').selectedOptions[0].textContent") == "group 3"
    assert seen.run(faint) == ["3", "3"]
    seen.run("field = document.querySelector('.chooser select'); field.value = ''")
    seen.run("field.dispatchEvent(new Event('change'))")
    assert len(seen.run(faint)) == 20
    assert seen.complaints() == []
    seen.close()


@pytest.mark.browser
def test_search_show_all_and_links(tab: chrome.Browser, written: Any) -> None:
    seen = tab.open(written["texts"])
    shown = "[...document.querySelectorAll('.picks > .pick')].filter(row => row.offsetParent).length"
    assert seen.run(shown) == 12
    seen.run("document.querySelector('.more').click()")
    assert seen.run(shown) == 20
    for words, count in (("kind-3", None), ("no such thing", 0), ("", 20)):
        seen.run(f"field = document.querySelector('.tools input'); field.value = {words!r}")
        seen.run("field.dispatchEvent(new Event('input'))")
        assert seen.run(shown) == count or (count is None and 1 <= seen.run(shown) < 20)
    seen.close()
    seen = tab.open(written["texts"])
    seen.run("document.querySelector('.map a[href=\"#g17\"]').click()")
    assert seen.run("document.getElementById('g17').offsetParent !== null")
    assert seen.complaints() == []
    seen.close()


@pytest.mark.browser
def test_without_scripts_every_group_is_there(tab: chrome.Browser, written: Any) -> None:
    seen = tab.open(written["texts"], scripts=False)
    tree = tab.call("DOM.getDocument", seen.session, depth=0)["root"]["nodeId"]
    rows = tab.call("DOM.querySelectorAll", seen.session, nodeId=tree, selector=".picks > .pick")["nodeIds"]
    assert len(rows) == 20
    assert tab.call("DOM.getBoxModel", seen.session, nodeId=rows[-1])["model"]["height"] > 0
    seen.close()


def test_the_page_reads_in_order(digits: Any, tmp_path: Path) -> None:
    plan, given = digits
    seen: Reader = read(plan, tmp_path / "r.html", **given)
    titles = [
        "Where the groups lie",
        "How large the groups are",
        "How well items sit",
        "Who is in them",
        "What was run",
    ]
    places = [seen.text.index(title) for title in titles]
    assert places == sorted(places)


def test_what_is_local_is_said_of_the_method(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(63, 2))
    plan = kofn.assign(X, k=4, capacity=16, min_size=15, seed=0)
    # Two rows whose groups are exchanged give less, with the means of the new groups.
    labels = np.array(plan.labels)
    labels[[17, 10]] = labels[[10, 17]]
    exchanged = sum(((X[labels == j] - X[labels == j].mean(axis=0)) ** 2).sum() for j in range(4))
    assert plan.status == "local"
    assert exchanged < plan.value - 1e-3
    words = {
        "constrained_kmeans": "no better assignment to these means, and no better means of these groups",
        "constrained_kmedoids": "no better assignment to these medoids, and no better medoid of a group",
        "alternating": "no other medoid of a group and no other group for an item improves it",
        "pam": "no single swap of a medoid improves it",
    }
    for method, said in words.items():
        plan = kofn.assign(X, k=4, method=method)
        assert plan.status == "local"
        write_report(plan, tmp_path / "r.html", X=X)
        page = (tmp_path / "r.html").read_text()
        assert said in page
        assert method == "pam" or "no single swap" not in page
        assert said in plan._repr_html_()


def test_a_gap_is_one_number_on_a_page(tmp_path: Path) -> None:
    plan = Assignment.around(np.array([0, 0, 1, 1], np.int32), np.array([0, 2]), value=104.26, status="heuristic")
    plan = dataclasses.replace(plan, bound=100.0, sense="min", method="m", info={"seconds": 0.1})
    write_report(plan, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert "≤ 4.3%" in text
    assert "4.26%" in text
    assert "4.09%" not in text
