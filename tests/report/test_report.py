"""The report: its figures against independent counts, its safety against hostile text, how a real browser sees it."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import browser as chrome
import numpy as np
import polars as pl
import pytest
from command_line import make_pool
from pages import HOSTILE, LOOKS, Reader, check_frame, contrast, farthest, read, stands
from sklearn.datasets import load_digits

import kofn
from kofn.core.checks import FailureError, InputError
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection
from kofn.report import context, measures, page, write_report


def plan_of(indices: Any, n: int, **fields: Any) -> Selection:
    """A selection with falling gains, as a greedy method returns it."""
    index = np.asarray(indices, np.int64)
    gains = fields.pop("gains", 100.0 / np.arange(1, len(index) + 1))
    return Selection(n=n, indices=index, gains=np.asarray(gains, np.float64), value=float(np.sum(gains)), **fields)


# ---------------------------------------------------------------------------------------------------- the file


@pytest.fixture(scope="module")
def digits() -> tuple[Selection, dict[str, Any]]:
    """50 of scikit-learn's scanned digits, with their pictures."""
    data = load_digits()
    X, labels = data.data, data.target
    plan = plan_of(
        farthest(X, 50),
        len(X),
        method="farthest_first",
        options={"metric": "euclidean"},
        seed="7",
        status="approximate",
        bound=500.0,
        used={"k": 50},
        budget={"k": 50},
        info={"seconds": 0.21, "distance_evals": 89850, "version": "0.1.0"},
    )
    return plan, {"X": X, "images": data.images, "groups": labels, "command": "kofn select digits.npy -k 50"}


@pytest.fixture(scope="module")
def texts() -> tuple[Selection, dict[str, Any]]:
    """A pool of texts with groups, quotas, other columns, and everything hostile that a text column may hold."""
    rng = np.random.default_rng(0)
    n = 400
    words = [
        "the",
        "price",
        "of",
        "a",
        "plan",
        "is",
        "what",
        "one",
        "more",
        "unit",
        "of",
        "its",
        "budget",
        "would",
        "be",
        "worth",
        "to",
        "somebody",
        "who",
        "has",
        "to",
        "label",
    ]
    body = [" ".join(rng.choice(words, rng.integers(5, 160))) for _ in range(n)]
    body[: len(HOSTILE)] = list(HOSTILE)
    body[20] = "x" * 900
    body[21] = ""
    X = rng.normal(size=(n, 12))
    group = np.array([*HOSTILE[:2], *rng.choice(["de", "en", "fr"], n - 2, p=[0.1, 0.7, 0.2])])
    keys = [*(f"{i}{text}" for i, text in enumerate(HOSTILE)), *(f"doc-{i}" for i in range(n - len(HOSTILE)))]
    frame = pl.DataFrame(
        {
            "key": [key.encode("utf-8", "replace").decode() for key in keys],
            "text": [text.encode("utf-8", "replace").decode() for text in body],
            "tokens": rng.integers(5, 500, n),
            HOSTILE[0]: [HOSTILE[1]] * n,
        }
    )
    picks = [*range(len(HOSTILE)), 20, 21, *range(100, 180)]
    plan = plan_of(
        picks,
        n,
        method=HOSTILE[0],
        options={HOSTILE[1]: HOSTILE[2], "objective": "facility_location"},
        ids=np.array(keys),
        used={"k": len(picks), HOSTILE[3]: 5},
        budget={"k": len(picks), HOSTILE[3]: 9},
        prices={HOSTILE[4]: 0.25},
        info={"note": HOSTILE[0]},
        seed=HOSTILE[5],
    )
    given = {
        "X": X,
        "text": body,
        "frame": frame,
        "groups": {"lang": group, HOSTILE[3]: group},
        "quotas": {"lang": {"de": (2, 50), "en": (None, 5), "nl": (1, None), HOSTILE[0]: (0, 3)}},
        "metric": "cosine",
        "command": ["kofn", "select", HOSTILE[0]],
        "title": HOSTILE[4],
    }
    return plan, given


@pytest.fixture(scope="module")
def points() -> tuple[Selection, dict[str, Any]]:
    """200 of 20,000 points."""
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(20, 8))[rng.integers(0, 20, 20_000)] * 4 + rng.normal(size=(20_000, 8))).astype(np.float32)
    return plan_of(rng.choice(20_000, 200, replace=False), 20_000, method="random_sample"), {"X": X}


def test_a_selection_report_holds_everything(digits: Any, tmp_path: Path) -> None:
    plan, given = digits
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    names = {a["aria-labelledby"] for a in seen.named("figure")}
    assert names == {"curve", "map", "groups-1"}
    picks = [a for a in seen.named("li") if (a.get("class") or "").startswith("pick")]
    assert len(picks) == 50
    pins = [a for a in seen.named("a") if "pin" in (a.get("class") or "")]
    assert len(pins) == 50  # every pick stands on the map
    cover = measures.coverage(measures.Space(given["X"], "euclidean"), plan.indices)
    for words in (
        "50 of 1,797",
        page.percent(float(cover.share[-1])),
        f"knee: k = {measures.knee(cover.share)}",
        "kofn select digits.npy -k 50",
        "farthest_first",
        "distances computed",
        "89,850",
        "Who stands for whom",
    ):
        assert words in seen.text, words
    scrub = next(a for a in seen.named("div") if a.get("class") == "scrub")
    np.testing.assert_allclose([float(v) for v in (scrub["data-share"] or "").split()], cover.share, atol=5e-5)
    counts = np.bincount(cover.nearest, minlength=50)
    assert [int(v.replace(",", "")) for v in re.findall(r"stands for ([\d,]+)", seen.text)] == counts.tolist()
    held = [int(v) for v in re.findall(r"(\d+) of \d+ picked", seen.text)]
    assert held == np.bincount(given["groups"][plan.indices]).tolist()
    assert len(seen.named("img")) == 50 + 50 + 12 * 2  # the map, the gallery, the pairs


def test_hostile_text_stays_text(texts: Any, tmp_path: Path) -> None:
    plan, given = texts
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert not {tag for tag, _ in seen.tags} & {"iframe", "object", "embed", "base", "form"}
    assert len(seen.named("style")) == 1
    policy = next(a["content"] for a in seen.named("meta") if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    for text in HOSTILE[:8]:
        assert text in "".join(seen.words)
    assert "\x00" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_quotas_say_what_is_met(texts: Any, tmp_path: Path) -> None:
    plan, given = texts
    seen = read(plan, tmp_path / "r.html", **given)
    lang = given["groups"]["lang"]
    picked = {label: int((lang[plan.indices] == label).sum()) for label in ("de", "en")}
    assert f"{picked['de']} of {(lang == 'de').sum()} picked, quota 2 to 50" in seen.text
    assert f"{picked['en']} of {(lang == 'en').sum()} picked, quota at most 5" in seen.text
    assert "2 of 4 quotas not met" in seen.text  # too many en; no nl in the pool at all
    assert [a for a in seen.named("li") if a.get("class") == "breached"]
    assert "No item of the pool is in nl" in seen.text.replace(" .", ".")
    kept = read(plan, tmp_path / "k.html", groups=lang, quotas={"de": (1, None), "en": (1, None)})
    assert "all 2 quotas are met" in kept.text


def test_long_texts_are_brief_at_first_and_whole_when_opened(texts: Any, tmp_path: Path) -> None:
    plan, given = texts
    seen = read(plan, tmp_path / "r.html", **given)
    whole = "".join(seen.words)
    item = next(i for i in plan.indices.tolist() if len(given["text"][i]) > 600)
    assert given["text"][item] in whole
    assert given["text"][item][: context.BRIEF - 40] in whole
    assert "(empty text)" in whole
    assert seen.named("details")
    shorter = read(plan_of([0], 1), tmp_path / "l.html", text=["word " * 3000])
    assert "more characters" in shorter.text


def test_a_frame_gives_text_and_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"id": ["a", "b", "c"], "text": ["one", "two", "three"], "n": [1, 2, 3], "v": [[1.0], [2.0], [3.0]]}
    )
    plan = plan_of([2, 0], 3, ids=np.array(["a", "b", "c"]))
    seen = read(plan, tmp_path / "r.html", frame=frame, text="text")
    listed = [name for name, _ in seen.tags if name == "dl"]
    assert listed
    assert "three" in seen.text
    assert " two " not in seen.text  # not picked, and no vectors to find a stand-in
    assert re.search(r"n 3 .* n 1", seen.text)
    assert "[3.0]" not in seen.text


def test_scores_without_vectors_give_their_share(tmp_path: Path) -> None:
    scores = np.array([5.0, 1.0, 3.0, 1.0])
    seen = read(plan_of([0, 2], 4, gains=[5.0, 3.0], method="top_k"), tmp_path / "r.html", scores=scores)
    assert "80.0%" in seen.text
    assert "of the score" in seen.text
    assert {a["aria-labelledby"] for a in seen.named("figure")} == {"curve"}


@pytest.mark.parametrize(
    ("plan", "given"),
    [
        (plan_of([], 5), {"X": np.ones((5, 2))}),
        (plan_of([0], 1), {"X": np.ones((1, 1)), "images": np.zeros((1, 4, 4))}),
        (plan_of([1], 5), {"X": np.eye(5)}),
        (plan_of(range(5), 5), {"X": np.eye(5), "metric": "cosine"}),
        (plan_of([1, 2, 3], 5), {"X": np.ones((5, 2)), "groups": ["a"] * 5}),
        (plan_of([1, 2], 5, gains=[np.nan, np.nan]), {}),
        (plan_of([1, 2, 0, 3], 5, gains=[3.0, 0.0, -1.0, -2.0]), {"X": np.eye(5)}),
        (plan_of([1, 2], 5, status="stopped"), {"X": np.eye(5), "metric": "precomputed"}),
        (plan_of([1, 2], 5, probabilities=np.full(5, 0.4)), {"weights": np.zeros(5), "X": np.eye(5)}),
        (plan_of([1, 2], 5, weights=np.array([2.5, 2.5])), {"images": [np.zeros((3, 4, 3), np.uint8)] * 5}),
    ],
)
def test_small_and_odd_selections(plan: Selection, given: dict[str, Any], tmp_path: Path) -> None:
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert f"{len(plan.indices)} of {plan.n}" in seen.text


def test_many_picks_are_bounded_and_all_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9_000, 3)).astype(np.float32)
    picks = rng.choice(9_000, 4000, replace=False)
    path = tmp_path / "r.html"
    seen = read(plan_of(picks, 9_000), path, X=X, groups=rng.integers(0, 60, 9_000).astype(str))
    assert "The first 1,000 of 4,000 picks" in seen.text
    drawn = [a for a in seen.named("path") if (a.get("class") or "").startswith("pick")]
    assert sum((a["d"] or "").count("h.01") for a in drawn) == 4000
    assert "other groups" in seen.text
    assert path.stat().st_size < 1_500_000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"X": np.ones((4, 2))}, "X"),
        ({"X": np.array([[np.nan]] * 5)}, "row 0, column 0 is NaN"),
        ({"text": ["a"]}, "text"),
        ({"text": "body"}, "name of a column"),
        ({"images": np.zeros((5, 3))}, r"images\[0\] has shape"),
        ({"groups": ["a"] * 4}, "groups"),
        ({"quotas": {"a": (1, 2)}}, "quotas need groups"),
        ({"groups": {"a": ["x"] * 5}, "quotas": {"b": {"x": 1}}}, "quotas name 'b'"),
        ({"weights": [1.0]}, "weights"),
        ({"metric": "manhattan"}, "metric"),
        ({"frame": pl.DataFrame({"a": [1]})}, "frame"),
    ],
)
def test_a_context_that_does_not_fit_is_refused(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        write_report(plan_of([1, 2], 5), tmp_path / "r.html", **given)
    assert not list(tmp_path.iterdir())


def test_the_same_plan_gives_the_same_file(digits: Any, tmp_path: Path) -> None:
    plan, given = digits
    first = plan.report(tmp_path / "a.html", **given)
    second = write_report(plan, tmp_path / "b.html", **given)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 250_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_a_plan_of_select_writes_its_own_report(digits: Any, tmp_path: Path) -> None:
    _, given = digits
    labels, quotas = given["groups"], {"0": (4, None), "1": (None, 2)}
    plan = kofn.select(given["X"], k=20, groups=labels, quotas=quotas, costs=np.full(len(labels), 3), budget=60)
    seen = Reader(plan.report(tmp_path / "r.html", quotas=quotas, **given).read_text(encoding="utf-8"))
    check_frame(seen)
    assert "all 2 quotas are met" in seen.text
    assert "costs 60 of 60" in seen.text
    assert "facility location · lazy greedy" in seen.text
    # In distances, whose zero is not a matter of choice, rounded up: what is promised must hold.
    above = plan.info["distance"] / plan.info["distance_bound"] - 1
    assert f"≤ {np.ceil(1000 * above) / 10:.1f}%" in seen.text


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: Any) -> None:
    target = write_report(plan_of([0], 2), tmp_path / "r.html")
    before = target.read_bytes()

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(FailureError, match="the disk is full"):
        write_report(plan_of([1], 2), target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(InputError, match="is a folder"):
        write_report(plan_of([1], 2), tmp_path)


def nouns() -> dict[str, Plan]:
    """One plan of each other noun."""
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 60, 500)
    return {
        "sizes": Assignment.from_labels(labels, 60, capacity=np.full(60, 9), value=3.0, status="approximate"),
        "medoids": Assignment.from_labels(labels % 3, 3, medoids=np.array([4, 5, 6]), value=9.0, sense="min"),
        "amounts": Allocation(
            n=50,
            amounts=rng.integers(0, 9, 50),
            values=rng.random(50),
            price=0.25,
            value=20.0,
            bound=19.5,
            sense="min",
            status="approximate",
            used={"budget": 200},
            budget={"budget": 201},
        ),
        "two resources": Allocation(n=2, amounts=np.array([[1, 2], [3, 4]]), values=np.ones(2)),
        "blend": Blend(
            n=3, result=np.ones(4), form="linear", weights=np.array([1.0, 0.5, -0.5]), spread=np.arange(3.0)
        ),
        "ranking": Blend(n=3, result=np.array([2, 0, 1]), form="order", info={"points": [1, 0, 2]}, spread=np.zeros(4)),
        "bare": Blend(n=2, result={"w": np.ones(3)}, form="none"),
    }


@pytest.mark.parametrize("name", sorted(nouns()))
def test_the_other_nouns(name: str, tmp_path: Path) -> None:
    plan = nouns()[name]
    seen = read(plan, tmp_path / "r.html", command=f"kofn {HOSTILE[0]}")
    check_frame(seen)
    expected: dict[str, tuple[str, ...]] = {
        "sizes": ("How full each bin is", "placed nowhere", "The 40 largest of 60 bins", "of 9"),
        "medoids": ("0 · row 4", "value 9 (smaller is better)", "How large the groups are"),
        "amounts": ("0.25", "200", "of 201", "The 40 largest of 50 items", "≤ 2.6%"),
        "two resources": ("1, 2 · value 1",),
        "blend": ("How far each stands from the blend", "\N{MINUS SIGN}0.5"),
        "ranking": ("1. row 2", "judges", "all agree"),
        "bare": ("members", "What was run"),
    }[name]
    for words in expected:
        assert words in seen.text, words
    if isinstance(plan, Assignment):
        size = plan.col_margin
        shown = [float(v) for v in re.findall(r" (\d+) of 9 ", seen.text)] if plan.capacity is not None else []
        assert shown == sorted(size.tolist(), reverse=True)[: len(shown)]
        assert len(shown) == (40 if plan.capacity is not None else 0)


# ---------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_can_be_told_apart(scheme: int) -> None:
    css = resources.files("kofn.report").joinpath("report.css").read_text()
    colours = dict(re.findall(r"--(\w+): (#\w{6});", re.findall(r":root \{(.*?)\}", css, re.S)[scheme]))
    for ground in ("paper", "card", "sunk"):
        for words in ("ink", "soft", "accent"):
            assert contrast(colours[words], colours[ground]) >= 4.5, (words, ground)
        for drawn in ("pool", "dot"):
            assert contrast(colours[drawn], colours[ground]) >= 3.0, (drawn, ground)
    assert contrast(colours["accent"], colours["band"]) >= 3.0


# ---------------------------------------------------------------------------------------------------- a real browser


@pytest.fixture(scope="module")
def written(digits: Any, texts: Any, points: Any, tmp_path_factory: Any) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    made = {
        name: write_report(p, folder / f"{name}.html", **g)
        for name, (p, g) in {"digits": digits, "texts": texts, "points": points}.items()
    }
    made |= {name: write_report(plan, folder / f"{name}.html") for name, plan in nouns().items()}
    made["empty"] = write_report(plan_of([], 5), folder / "empty.html", X=np.ones((5, 2)))
    return made


NAMES = ["digits", "texts", "points", "empty", *sorted(nouns())]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [(name, *look) for at, name in enumerate(NAMES) for look in (LOOKS if at < 3 else LOOKS[:1])],
)
def test_it_stands_in_a_browser(tab: chrome.Browser, written: Any, name: str, width: int, scheme: str) -> None:
    stands(tab, written[name], width, scheme)


@pytest.mark.browser
def test_charts_take_the_colours_of_the_scheme(tab: chrome.Browser, written: Any) -> None:
    strokes = []
    for scheme in ("light", "dark"):
        seen = tab.open(written["points"], scheme=scheme)
        names = [".curve .line", ".curve .grid", ".map .density", ".map path.pick"]
        strokes.append([seen.run(f"getComputedStyle(document.querySelector('{name}')).stroke") for name in names])
        seen.close()
    assert all(light != dark and "none" not in (light, dark) for light, dark in zip(*strokes, strict=True))


@pytest.mark.browser
def test_slider_by_keyboard(tab: chrome.Browser, written: Any) -> None:
    seen = tab.open(written["points"])
    shown = "document.querySelector('.scrub output').textContent"
    assert seen.run(shown) == "200"
    assert seen.run("document.querySelectorAll('.map .later').length") == 0
    seen.run("document.querySelector('.scrub input').focus()")
    seen.key("ArrowLeft", 37)
    assert seen.run(shown) == "199"
    assert seen.run("document.querySelectorAll('.map .later').length") == 1
    seen.key("Home", 36)
    assert seen.run(shown) == "1"
    assert seen.run("document.querySelectorAll('.map .later').length") == 199
    assert seen.run("document.querySelector('.scrub strong').textContent").endswith(
        "mean distance " + seen.run("Number(document.querySelector('.scrub').dataset.far.split(' ')[0]).toPrecision(3)")
    )
    assert seen.complaints() == []
    seen.close()


@pytest.mark.browser
def test_search_show_all_and_links(tab: chrome.Browser, written: Any, texts: Any) -> None:
    seen = tab.open(written["texts"])
    shown = "[...document.querySelectorAll('.picks > .pick')].filter(row => row.offsetParent).length"
    total = len(texts[0].indices)
    assert seen.run(shown) == 48
    seen.run("document.querySelector('.more').click()")
    assert seen.run(shown) == total
    assert seen.run("document.activeElement.id") == "p49"
    for words, count in (("doc-99", 1), ("no such thing", 0), ("<script>", None), ("", total)):
        seen.run(f"field = document.querySelector('.tools input'); field.value = {words!r}")
        seen.run("field.dispatchEvent(new Event('input'))")
        assert seen.run(shown) == count or (count is None and seen.run(shown) >= 1)
    seen.close()

    seen = tab.open(written["texts"])
    seen.run("location.hash = '#p60'")
    assert seen.complaints() == []
    assert seen.run("document.getElementById('p60').offsetParent !== null")
    seen.close()


@pytest.mark.browser
def test_tab_reaches_every_control(tab: chrome.Browser, written: Any) -> None:
    seen = tab.open(written["texts"])
    reached = set()
    for _ in range(12):
        seen.key("Tab", 9)
        reached.add(seen.run("document.activeElement.tagName + (document.activeElement.type ?? '')"))
    assert {"INPUTrange", "SUMMARY", "INPUTsearch"} <= reached
    assert "A" not in reached  # hundreds of marks on the map are no stops on the way
    seen.close()


@pytest.mark.browser
def test_without_scripts_everything_is_there(tab: chrome.Browser, written: Any, texts: Any, tmp_path: Path) -> None:
    seen = tab.open(written["texts"], scripts=False)
    tree = tab.call("DOM.getDocument", seen.session, depth=0)["root"]["nodeId"]
    rows = tab.call("DOM.querySelectorAll", seen.session, nodeId=tree, selector=".picks > .pick")["nodeIds"]
    assert len(rows) == len(texts[0].indices)
    assert tab.call("DOM.getBoxModel", seen.session, nodeId=rows[-1])["model"]["height"] > 0
    assert seen.pdf().startswith(b"%PDF")
    seen.close()


@pytest.mark.browser
def test_the_policy_and_this_test_catch_what_they_should(tab: chrome.Browser, written: Any, tmp_path: Path) -> None:
    """The planted violators: a script, a picture from a server and a broken page must not pass unseen."""
    text = written["digits"].read_text(encoding="utf-8")
    stranger = "<script>window.hacked=1</script><img src='http://127.0.0.1:9/x.png' alt=''></main>"
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("</main>", stranger), encoding="utf-8")
    seen = tab.open(bad)
    assert seen.run("window.hacked ?? null") is None  # the policy holds even where escaping would have failed
    assert any("Content Security Policy" in line or "contentSecurityPolicy" in line for line in seen.complaints())
    seen.close()
    open_ = re.sub(r"<meta http-equiv.*?>", "", text).replace("</main>", stranger)
    bad.write_text(open_, encoding="utf-8")
    seen = tab.open(bad)
    assert seen.run("window.hacked") == 1
    assert seen.requests() == ["http://127.0.0.1:9/x.png"]
    seen.close()


def test_without_chromium_the_reason_is_given_and_ci_fails(monkeypatch: Any) -> None:
    monkeypatch.setattr(chrome.shutil, "which", lambda _: None)
    monkeypatch.delenv("KOFN_CHROMIUM", raising=False)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Chromium"):
        chrome.require()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must run"):
        chrome.require()


def test_the_table_that_was_picked_from_is_shown_as_it_was_compared(tmp_path: Path) -> None:
    frame = make_pool(40)
    for asked in ({"text": "body"}, {"columns": ["age", "lang"]}, {"vectors": "emb"}):
        plan = kofn.select(frame, k=4, **asked)
        page = plan.report(tmp_path / "r.html", X=frame).read_text(encoding="utf-8")
        assert "<svg" in page
        assert frame["body"][int(plan.indices[0])] in page
        with pytest.raises(InputError, match="give the table it was made from"):
            plan.report(tmp_path / "r.html", X=frame.select("key", "score"))
    plan = kofn.assign(frame, columns=["age", "score"], k=3)
    assert plan.report(tmp_path / "r.html", X=frame).exists()
    numbers = frame.select(pl.col("age") / 40, "score")
    kofn.select(numbers, k=3).report(tmp_path / "r.html", X=numbers)
    plan = kofn.select(numbers.to_numpy(), k=3)
    with pytest.raises(InputError, match="the plan does not say how its rows were compared"):
        plan.report(tmp_path / "r.html", X=frame)
