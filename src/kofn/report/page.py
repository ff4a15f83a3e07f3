"""The frame that every report shares: elements that escape themselves, the head, the footer, how figures are written.

Pages are built as `xml.etree.ElementTree` elements, never from pasted strings, so whatever a user's text holds stays
text. A content security policy shuts the network and every script but the page's own, so that even a mistake is inert.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
import zlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from numpy.typing import NDArray

from kofn.io.atomic import atomic_path

# Controls that HTML forbids, and halves of surrogate pairs, which no file encoding takes.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><g fill='#9aa3ad'><circle cx='3' cy='4' r='2'/>"
    "<circle cx='8' cy='12' r='2'/><circle cx='13' cy='5' r='2'/></g><circle cx='8' cy='5' r='2.6' fill='#c2410c'/>"
    "</svg>"
)
MINUS = "\N{MINUS SIGN}"
MAX_SIDE = 96  # pixels of a thumbnail's longer side
Child = Any


def E(tag: str, *children: Child, **attributes: Any) -> Element:
    """An element: strings and numbers become text, None is skipped, lists are flattened; `aria_label` is aria-label."""
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    given = {names[k]: "" if v is True else clean(v) for k, v in attributes.items() if v is not None and v is not False}
    element = Element(tag, given)
    _fill(element, children)
    return element


def _fill(element: Element, children: Iterable[Child]) -> None:
    for child in children:
        if child is None:
            continue
        if isinstance(child, Element):
            element.append(child)
        elif isinstance(child, list | tuple):
            _fill(element, child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + clean(child)
        else:
            element.text = (element.text or "") + clean(child)


def clean(value: Any) -> str:
    """Text that an HTML file can hold."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def user(value: Any, **attributes: Any) -> Element:
    """Text of the user's: it keeps its own direction, so that a right-to-left mark cannot turn the page around."""
    return E("bdi", value, **attributes)


def figure(body: Child, caption: Child, *, title: str, name: str, class_: str = "") -> Element:
    """A chart with its title above and what it says below."""
    head = E("h2", title, id=name)
    return E("figure", head, body, E("figcaption", caption), class_=f"card {class_}".strip(), aria_labelledby=name)


def facts(rows: Iterable[tuple[str, Child]]) -> Element:
    """Names and values."""
    return E("dl", [E("div", E("dt", name), E("dd", value)) for name, value in rows], class_="facts")


def stat(value: Child, label: str, note: Child = None) -> Element:
    """One headline figure."""
    note = None if note is None else E("span", note, class_="note")
    return E("div", E("dt", label), E("dd", E("span", value, class_="figure"), note), class_="stat")


def number(value: Any, digits: int = 4) -> str:
    """A figure for people: thousands apart, `digits` significant digits, words for what is no number."""
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    if not isinstance(value, float | np.floating):
        return str(value)
    value = float(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else f"{MINUS}∞")
    if value != 0 and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    whole = 1 + math.floor(math.log10(abs(value))) if value else 1
    text = f"{value:,.{min(8, max(0, digits - whole))}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", MINUS)


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage; never 100% for what is only nearly all of it, nor 0% for what is a little."""
    text = f"{100 * value:.{digits}f}"
    least = 10.0**-digits
    if value < 1 and float(text) >= 100:
        return f"> {100 - least:.{digits}f}%"
    if 0 < value < 1 and float(text) == 0:
        return f"< {least:.{digits}f}%"
    return text.replace("-", MINUS) + "%"


def describe(value: Any) -> str:
    """An option, counter or limit in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {describe(item)}" for name, item in value.items()) or "none"
    if isinstance(value, np.ndarray):
        return describe(value.tolist()) if value.size <= 12 else f"{value.size:,} values"
    if isinstance(value, list | tuple | set | frozenset):
        rows = list(value)
        return ", ".join(describe(item) for item in rows) or "none" if len(rows) <= 12 else f"{len(rows):,} values"
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and shape:  # a sparse matrix or a frame
        return f"{' x '.join(f'{side:,}' for side in shape)} values"
    return number(value, 6)


def seconds(value: float) -> str:
    """A duration."""
    if value < 1:
        return f"{1000 * value:.0f} ms" if value >= 0.0095 else f"{1000 * value:.1f} ms"
    if value < 100:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {value % 60:.0f} s"


def bytes_(value: float) -> str:
    """A size in memory."""
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB"


def thumbnail(image: NDArray[Any], low: float, high: float) -> tuple[str, int, int]:
    """A PNG data URI of an (h, w), (h, w, 3) or (h, w, 4) array, and its height and width.

    `low` and `high` are shown black and white. Large images are shrunk by means over blocks to `MAX_SIDE` pixels.
    """
    pixels = np.asarray(image, np.float64)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    pixels = np.clip((np.nan_to_num(pixels) - low) / ((high - low) or 1.0), 0.0, 1.0) * 255.0
    block = -(-max(pixels.shape[:2]) // MAX_SIDE)
    if block > 1:
        tall, wide = (max(1, side // block) for side in pixels.shape[:2])
        pixels = pixels[: tall * block, : wide * block]
        pixels = pixels.reshape(tall, min(block, pixels.shape[0]), wide, -1, *pixels.shape[2:]).mean(axis=(1, 3))
    data = np.ascontiguousarray(pixels.round().astype(np.uint8))
    tall, wide = data.shape[:2]
    kind = 0 if data.ndim == 2 else {3: 2, 4: 6}[data.shape[2]]
    rows = np.zeros((tall, 1 + data[0].size), np.uint8)  # each row starts with filter type 0
    rows[:, 1:] = data.reshape(tall, -1)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", wide, tall, 8, kind, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return "data:image/png;base64," + base64.b64encode(png + chunk(b"IEND", b"")).decode(), tall, wide


def document(*, title: str, eyebrow: Child, lede: Child, stats: Iterable[Element], body: Iterable[Child]) -> str:
    """The whole page as one string; it loads nothing."""
    here = resources.files("kofn.report")
    style = here.joinpath("report.css").read_text(encoding="utf-8")
    script = here.joinpath("report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    icon = "data:image/svg+xml;base64," + base64.b64encode(_ICON.encode()).decode()
    html = E("html", lang="en")
    head = SubElement(html, "head")
    _fill(
        head,
        [
            E("meta", charset="utf-8"),
            Element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
            E("meta", name="viewport", content="width=device-width, initial-scale=1"),
            E("meta", name="color-scheme", content="light dark"),
            E("meta", name="referrer", content="no-referrer"),
            E("meta", name="generator", content=f"kofn {version()}"),
            E("title", f"{title} · kofn"),
            E("link", rel="icon", href=icon),
        ],
    )
    for tag, text in (("style", style), ("script", script)):
        SubElement(head, tag).text = text
    header = E("header", E("p", eyebrow, class_="eyebrow"), E("h1", user(title)), E("p", lede, class_="lede"))
    content = E("main", header, E("dl", list(stats), class_="stats"), list(body))
    footer = E("footer", f"Written by kofn {version()}. This file loads nothing from the network.")
    html.append(E("body", content, footer))
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def version() -> str:
    """The installed kofn's version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("kofn")
    except PackageNotFoundError:
        return "unknown"


def write(text: str, path: str | Path) -> Path:
    """Put the page in place whole, or leave what was there."""
    target = Path(path)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return target
