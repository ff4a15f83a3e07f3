"""The user's data about the items beyond the plan, checked once: vectors, table, texts, images, groups, quotas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core import checks, vocabulary
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError
from kofn.core.plans import Assignment, Plan
from kofn.report.page import E, clean, number, thumbnail, user

COLUMNS = 6  # of the user's table, beside each pick
BRIEF, FULL = 180, 4000  # characters of a text at once, and when opened


@dataclass(frozen=True)
class Quotas:
    """One grouping of the pool: each item's label, and the quota of each label."""

    name: str | None
    labels: Array
    limits: dict[str, tuple[int, int | None]]


class Repeats(NamedTuple):
    """Rows of the file that were dropped from the pool because they repeat another.

    Attributes:
        total: rows of the file.
        dropped: how many of them were dropped.
        shown: some of those: name and text of the row, name and text of the row that stays for it, similarity.
    """

    total: int
    dropped: int
    shown: Sequence[tuple[str, str, str, str, float]]


class Labels(NamedTuple):
    """What the picks are worth as rows to label.

    Attributes:
        points: of accuracy over random rows, that such picks brought elsewhere.
        measured: these figures in words.
        verdict: what to expect, in a few words.
    """

    points: float
    measured: str
    verdict: str


@dataclass(frozen=True)
class Context:
    """The items as the report shows them."""

    plan: Plan
    X: Array | None
    distances: Array | None
    metric: str
    frame: Any
    columns: tuple[str, ...]
    text: Any
    images: Any
    shades: tuple[float, float]
    groupings: tuple[Quotas, ...]
    weights: Array | None
    scores: Array | None
    bins: tuple[str, ...]
    command: str | None
    repeats: Repeats | None
    labels: Labels | None
    items: Ints | None
    curves: Floats | None = None
    levels: Floats | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        plan: Plan,
        *,
        X: Any = None,
        frame: Any = None,
        text: Any = None,
        images: Any = None,
        groups: Any = None,
        quotas: Any = None,
        weights: Any = None,
        scores: Any = None,
        metric: str = "euclidean",
        command: str | Sequence[str] | None = None,
        repeats: Repeats | None = None,
        labels: Labels | None = None,
        items: Ints | None = None,
        curves: Any = None,
        levels: Any = None,
        notes: Sequence[str] = (),
    ) -> Context:
        """Check the context against the plan; raises `InputError` naming what does not fit."""
        metric, distances = vocabulary.metric(metric), None
        if metric == "rbf":
            metric = "euclidean"  # the similarity falls with this distance
        if X is not None:
            X = checks.matrix(X)
            length, of = (plan.n, "plan") if items is None else (len(items), "items")
            checks.same_length(length, of, "X", len(X))
            if metric == "precomputed":
                # Of a selection these are similarities, which the report has no use for.
                distances, X = checks.distances(X, "X") if isinstance(plan, Assignment) else None, None
        if frame is not None:
            checks.same_length(plan.n, "plan", "frame", len(frame))
        if isinstance(text, str):
            if frame is None or text not in frame.columns:
                raise InputError(f"text={text!r}: give the items' texts, or the name of a column of frame")
            text = frame[text]
        shown = _columns(plan, frame, text)
        for name, value in (("text", text), ("images", images)):
            if value is not None:
                checks.same_length(plan.n, "plan", name, len(value))
        if weights is not None:
            weights = np.asarray(weights, np.float64)
            checks.same_length(plan.n, "plan", "weights", len(weights))
        bins: tuple[str, ...] = ()
        if scores is not None:
            bins = tuple(clean(name) for name in getattr(scores, "columns", ()))
            scores = np.asarray(scores, np.float64)
            checks.same_length(plan.n, "plan", "scores", len(scores))
        if command is not None and not isinstance(command, str):
            import shlex

            command = shlex.join(command)
        groupings = _groupings(plan.n, groups, quotas)
        return cls(
            plan,
            X,
            distances,
            metric,
            frame,
            shown,
            text,
            images,
            _shades(images),
            groupings,
            weights,
            scores,
            bins,
            command,
            repeats,
            labels,
            items,
            *_curves(plan, curves, levels),
            tuple(notes),
        )

    def name(self, item: int) -> str:
        """The user's id of an item, or its row."""
        return f"row {item:,}" if self.plan.ids is None else clean(self.plan.ids[item])

    def picture(self, item: int) -> tuple[str, int, int] | None:
        """The item's thumbnail as (data URI, height, width)."""
        return None if self.images is None else thumbnail(self.images[item], *self.shades)

    def exhibit(self, item: int, *, brief: int = BRIEF) -> list[Element]:
        """The item itself: its picture, its text."""
        out = []
        picture = self.picture(item)
        if picture is not None:
            uri, tall, wide = picture
            small = "pixels" if max(tall, wide) <= 40 else None
            out.append(E("img", src=uri, width=wide, height=tall, class_=small, alt=f"image of {self.name(item)}"))
        if self.text is not None:
            out.append(self._text(item, brief))
        return out

    def _text(self, item: int, brief: int) -> Element:
        value = self.text[item]
        text = clean("" if value is None else value)
        if not text.strip():
            return E("p", "(empty text)", class_="text empty")
        if len(text) <= brief * 1.2:
            return E("p", user(text), class_="text")
        head = text[:brief].rsplit(None, 1)[0] if " " in text[:brief] else text[:brief]
        more = f" … ({len(text) - FULL:,} more characters)" if len(text) > FULL else ""
        # The opened text repeats the whole, so that a search finds it and it reads in one piece.
        return E(
            "details",
            E("summary", user(head), "\N{NO-BREAK SPACE}…"),
            E("p", user(text[:FULL]), more, class_="text"),
            class_="text",
        )

    def traits(self, item: int) -> Element | None:
        """The item's groups and the other columns of the user's table."""
        pairs: list[tuple[str, str]] = []
        for grouping in self.groupings:
            if grouping.name not in self.columns:
                pairs.append((grouping.name or "group", str(grouping.labels[item])))
        for column in self.columns:
            value = self.frame[column][item]
            pairs.append((column, "" if value is None else number(value)))
        if not pairs:
            return None
        return E("dl", [E("div", E("dt", user(k)), E("dd", user(v[:80]))) for k, v in pairs], class_="traits")


def _columns(plan: Plan, frame: Any, text: Any) -> tuple[str, ...]:
    """Columns worth a line beside each pick: no vectors, no long texts, nothing that is shown anyway."""
    if frame is None:
        return ()
    out = []
    for name in frame.columns:
        column = frame[name]
        kind = str(column.dtype)
        if column is text or kind.startswith(("List", "Array", "Struct", "Object", "Binary")):
            continue
        head = [value for value in column[:200].to_list() if value is not None]
        if text is not None and head and head == [v for v in list(text[:200]) if v is not None]:
            continue
        if plan.ids is not None and [str(v) for v in head] == [str(v) for v in plan.ids[: len(head)]]:
            continue
        if any(isinstance(value, str) and len(value) > 60 for value in head):
            continue
        out.append(name)
    return tuple(out[:COLUMNS])


def _curves(plan: Plan, curves: Any, levels: Any) -> tuple[Floats | None, Floats | None]:
    """(n, L) the curves of an allocation, and the amounts of their levels as given here or to the method."""
    if curves is None:
        return None, None
    table = np.asarray(checks.curves(curves), np.float64)
    checks.same_length(plan.n, "plan", "curves", len(table))
    levels = plan.options.get("levels") if levels is None else levels
    amounts = np.arange(table.shape[1]) if levels is None else np.asarray(levels, np.float64)
    if amounts.shape[-1:] != table.shape[1:]:
        raise InputError(
            f"levels has shape {amounts.shape}; give one amount for each of {table.shape[1]} columns of curves"
        )
    return table, np.broadcast_to(amounts.astype(np.float64), table.shape)


def _shades(images: Any) -> tuple[float, float]:
    """The values shown black and white: 0..255 for bytes, 0..1 for unit floats, else the range of the images."""
    if images is None or len(images) == 0:
        return 0.0, 1.0
    first = np.asarray(images[0])
    if first.ndim not in (2, 3) or (first.ndim == 3 and first.shape[2] not in (1, 3, 4)):
        raise InputError(f"images[0] has shape {first.shape}; give (h, w), (h, w, 3) or (h, w, 4) an item")
    if first.dtype == np.uint8:
        return 0.0, 255.0
    if first.dtype == bool:
        return 0.0, 1.0
    if isinstance(images, np.ndarray):
        low, high = float(np.nanmin(images)), float(np.nanmax(images))
    else:
        low = min(float(np.nanmin(image)) for image in images)
        high = max(float(np.nanmax(image)) for image in images)
    return (0.0, 1.0) if low >= 0.0 and 0.5 < high <= 1.0 else (low, high)


def _groupings(n: int, groups: Any, quotas: Any) -> tuple[Quotas, ...]:
    """One grouping from an (n,) array with {label: (least, most)}, or several from {name: array} with {name: {...}}."""
    if groups is None:
        if quotas is not None:
            raise InputError("quotas need groups, one group label an item")
        return ()
    several = isinstance(groups, Mapping)
    named = dict(groups) if several else {None: groups}
    if several and quotas is not None and (unknown := [name for name in quotas if name not in named]):
        raise InputError(f"quotas name {unknown[0]!r}, groups have {', '.join(map(str, named))}")
    out = []
    for name, labels in named.items():
        checked = checks.groups(labels, "groups" if name is None else f"groups[{name!r}]")
        checks.same_length(n, "plan", "groups", len(checked))
        limits = (quotas or {}).get(name) if several else quotas
        limits = {} if not limits else checks.quotas(limits)
        out.append(Quotas(name, checked.astype(str), {str(label): ends for label, ends in limits.items()}))
    return tuple(out)
