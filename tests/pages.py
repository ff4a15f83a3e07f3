"""Reading reports in tests: as a standard parser sees them, and as a real browser shows them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser as chrome
import numpy as np
from scipy.spatial.distance import cdist

from kofn.core.plans import Plan
from kofn.report import write_report

HOSTILE = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=2">',
    "</script><script>window.hacked=3</script>",
    "<svg/onload=window.hacked=4>",
    "</title><style>*{display:none}</style>",
    "<a href='javascript:window.hacked=5' autofocus onfocus=window.hacked=6>x</a>",
    "<!-- <iframe src=http://127.0.0.1:9/></iframe>",
    "&lt;b&gt; stays as typed & so does this",
    "\u202eright to left\u202d \x00\x07 \ud800 \ufffe",
)
# Each width and each scheme: what is too wide is so in either scheme.
LOOKS = [(1280, "dark"), (375, "light")]


DRAWN = """[...document.querySelectorAll("figure")].map(figure => {
  const drawn = ".plot svg path, .bars .bar, .slab svg .shape";
  const marks = [...figure.querySelectorAll(drawn)].map(mark => mark.getBoundingClientRect());
  return [figure.querySelector("h2").textContent, marks.filter(box => box.width + box.height > 0).length];
})"""


class Reader(HTMLParser):
    """Tags, attributes, ids and words of a page, as a standard parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(plan: Plan, path: Path, **given: Any) -> Reader:
    return Reader(write_report(plan, path, **given).read_text(encoding="utf-8"))


def check_frame(seen: Reader) -> None:
    """What must hold on every page: one script, nothing from outside, names for all that is drawn."""
    assert len(seen.named("script")) == 1
    assert not [a for _, a in seen.tags for name in a if name.startswith("on")]
    for _, attributes in seen.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    ids = [a["id"] for _, a in seen.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in seen.named("figure")} <= set(ids)
    assert all("alt" in a for a in seen.named("img"))
    assert all(a.get("aria-label") for _, a in seen.tags if a.get("role") == "img")
    assert len(seen.named("figure")) == len(seen.named("figcaption"))
    assert seen.named("html")[0]["lang"] == "en"
    assert len(seen.named("h1")) == 1


def stands(tab: chrome.Browser, path: Path, width: int, scheme: str) -> None:
    """What must hold of every page in a browser: no complaint, no request, nothing too wide, every chart drawn."""
    seen = tab.open(path, width=width, scheme=scheme, height=800)
    try:
        assert seen.complaints() == []
        assert seen.requests() == []
        assert seen.run("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        assert seen.run(f"{wide}.filter(e => !e.closest('.map') && !e.closest('.unseen')).map(e => e.outerHTML)") == []
        assert seen.run("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert seen.run("window.hacked ?? null") is None
        for title, marks in seen.run(DRAWN):
            assert marks > 0 or title == "The ranking", title
        shade = seen.run("getComputedStyle(document.body).backgroundColor")
        level = np.mean([int(v) for v in re.findall(r"\d+", shade)[:3]])
        assert level > 200 if scheme == "light" else level < 60
    finally:
        seen.close()


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def farthest(X: Any, k: int) -> Any:
    """Picks that spread out, for reports that need some."""
    picks = [0]
    near = cdist(X, X[:1]).ravel()
    while len(picks) < k:
        picks.append(int(near.argmax()))
        near = np.minimum(near, cdist(X, X[picks[-1:]]).ravel())
    return np.array(picks)
