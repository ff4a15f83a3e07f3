"""The report of routed items: loads against capacities, moved and dropped items, and the score given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Assignment
from kofn.report import charts
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.lists import pair, pairs
from kofn.report.measures import BLOCK_CELLS
from kofn.report.page import MINUS, E, document, figure, number, percent, stat
from kofn.report.run import kind, outcome, quality, ran

SHOWN = 40  # bars of a chart
MOVED = 12  # items shown that lost most
RANKED = 6  # choices shown one by one
MAX_SCORES = 1 << 25  # past this many scores the choices are counted on a sample of the items
# What bins hold under these objectives are shares of items, not numbers of them.
_SHARED = ("entropic_transport", "joint_entropy", "mutual_information")
# Under this one bins choose items, so that an item's own choices were not asked.
_BY_BINS = "chosen_affinity"


@dataclass(frozen=True)
class Choices:
    """Items' preferred and assigned bins, on all items or on a sample."""

    items: Ints  # the counted items
    each: int  # bins that an item may have
    ranks: Floats  # (bins,) slots, or mass, that went to the items' first choice, their second, ...
    empty: float  # slots, or mass, that went nowhere
    asked: Floats | None  # (bins,) items whose first choices each bin is among; None on a sample
    lost: Floats  # (items,) their best scores for as many bins as they hold, less the scores of those
    wanted: float  # the best scores in total
    forgone: float  # the scores of the choices that the empty slots would have been


def page(context: Context, title: str | None) -> str:
    """The whole report."""
    plan = context.plan
    assert isinstance(plan, Assignment)
    load = _load(plan)
    scores = context.scores
    seen = None
    if scores is not None and scores.shape == (plan.n, plan.k) and plan.objective != _BY_BINS:
        seen = choices(plan, scores)
    names = list(context.bins) if len(context.bins) == plan.k else [f"bin {j}" for j in range(plan.k)]
    figures = [
        _loads(plan, load, seen, names),
        None if seen is None else _ranks(plan, seen),
        prices(plan, names),
    ]
    drawn = [part for part in figures if part is not None]
    body = [
        [E("div", drawn[low : low + 2], class_="pair") for low in range(0, len(drawn), 2)],
        []
        if seen is None or scores is None or _shared(plan)
        else [_moved(context, plan, seen, scores, names), _dropped(context, plan, scores, names)],
        ran(context),
    ]
    return document(
        title=title or f"{plan.n:,} items in {plan.k:,} bins",
        eyebrow=["kofn assign · ", kind(plan)],
        lede=_lede(plan, load, seen),
        stats=_stats(plan, load, seen),
        body=body,
    )


def _shared(plan: Assignment) -> bool:
    return plan.objective in _SHARED


def _load(plan: Assignment) -> Floats:
    """Load of each bin: the number of items, or the sum of their shares."""
    if _shared(plan):
        return plan.col_margin
    return np.bincount(plan.bins, minlength=plan.k).astype(np.float64)


def choices(plan: Assignment, scores: Floats) -> Choices:
    """The choice that each slot fills, ties to the lowest bin, and the scores that were given up."""
    n, bins, shared = plan.n, plan.k, _shared(plan)
    counts = np.diff(plan.indptr)
    each = 1 if shared else _each(plan, counts)
    items = np.arange(n)
    if n * bins > MAX_SCORES:
        items = np.sort(np.random.default_rng(0).choice(n, max(1, MAX_SCORES // bins), replace=False))
    ranks, asked, empty, wanted, forgone = np.zeros(bins), np.zeros(bins), 0.0, 0.0, 0.0
    lost = np.zeros(len(items))
    step = max(1, BLOCK_CELLS // bins)
    for low in range(0, len(items), step):
        part = items[low : low + step]
        table = scores[part]
        order = np.argsort(-table, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(bins)[None, :], 1)
        best = np.take_along_axis(table, order, 1)
        listed = (best > -np.inf).sum(axis=1)
        rows, spots = _slots(plan, part)
        mass = plan.weights[spots].astype(np.float64) if shared else np.ones(len(spots))
        got = table[rows, plan.bins[spots]]
        ranks += np.bincount(rank[rows, plan.bins[spots]], mass, bins)
        total = np.bincount(rows, mass, len(part))
        kept = np.bincount(rows, mass * np.where(np.isfinite(got), got, 0.0), len(part))
        best = np.where(np.isfinite(best), best, 0.0)
        if shared:
            top, first = best[:, 0] * total, np.asarray(total, np.float64)
            whole = top
        else:
            sums = np.concatenate([np.zeros((len(part), 1)), np.cumsum(best, axis=1)], axis=1)
            top = np.take_along_axis(sums, counts[part][:, None], 1)[:, 0]
            able = np.minimum(listed, each)
            whole = np.take_along_axis(sums, np.maximum(able, counts[part])[:, None], 1)[:, 0]
            first = np.ones(len(part))
            empty += float(np.maximum(each - counts[part], 0).sum())
        for slot in range(each):
            able_at = listed > slot
            asked += np.bincount(order[able_at, slot], first[able_at], bins)
        lost[low : low + step] = top - kept
        wanted += float(whole.sum())
        forgone += float((whole - top).sum())
    # Sums of the same scores in another order may differ in their last digits.
    lost[np.abs(lost) <= 1e-9 * max(1.0, abs(wanted) / max(len(items), 1))] = 0.0
    return Choices(items, each, ranks, empty, asked if len(items) == n else None, lost, wanted, forgone)


def _each(plan: Assignment, counts: NDArray[Any]) -> int:
    """How many bins an item may have: told by the slots that stayed empty, else the most that any has."""
    if (unfilled := plan.info.get("unfilled")) is not None and plan.n:
        return max(1, round((len(plan.bins) + int(unfilled)) / plan.n))
    return max(1, int(counts.max(initial=1)))


def _slots(plan: Assignment, part: Ints) -> tuple[Ints, Ints]:
    """For some items their places in `part` and in `plan.bins`, slot by slot."""
    counts = np.diff(plan.indptr)[part]
    rows = np.repeat(np.arange(len(part)), counts)
    offset = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, np.asarray(plan.indptr)[part][rows] + offset


def _unplaced(plan: Assignment) -> int:
    return int((np.diff(plan.indptr) == 0).sum())


def _lede(plan: Assignment, load: Floats, seen: Choices | None) -> str:
    out = _unplaced(plan)
    words = []
    if plan.capacity is not None and not _shared(plan):
        room = np.broadcast_to(np.asarray(plan.capacity, np.float64), plan.k)
        over = int((load > room).sum())
        full = int((load == room).sum())
        words.append(
            f"{over} of {plan.k:,} bins hold more than their capacity."
            if over
            else f"No bin holds more than its capacity; {full:,} of {plan.k:,} are full."
        )
    if _limited(plan):
        used, limits = (np.asarray(side["limits"], np.float64) for side in (plan.used, plan.budget))
        fullest = int(np.argmax(used / np.where(limits > 0, limits, 1)))
        words.append(
            f"{number(float(used.sum()))} of {number(float(limits.sum()))} are filled in all, "
            f"and {number(float(used[fullest]))} of {number(float(limits[fullest]))} in the fullest bin."
        )
    if seen is not None and not _shared(plan):
        first = float(seen.ranks[: seen.each].sum())
        of = first + float(seen.ranks[seen.each :].sum()) + seen.empty
        which = "their first choices" if seen.each == 1 else f"among their {seen.each} first choices"
        words.append(f"Of the places that items asked for, {percent(first / of if of else 1.0)} are {which}.")
    words.append(f"{out:,} items are placed nowhere." if out else "Every item has a bin.")
    return " ".join(words)


def _stats(plan: Assignment, load: Floats, seen: Choices | None) -> list[Element]:
    out = _unplaced(plan)
    stats = [stat(f"{plan.n - out:,}", "placed", f"{out:,} placed nowhere" if out else "every item has a bin")]
    if seen is not None:
        lost = float(seen.lost.sum())
        note = "against every item's first choices"
        if seen.wanted > 0 and seen.forgone >= 0:
            stats.append(stat(percent((lost + seen.forgone) / seen.wanted), "of the score lost", note))
        else:
            stats.append(stat(number(lost), "score lost", note))
    else:
        least = number(float(load.min(initial=0.0)))
        stats.append(stat(number(float(load.max(initial=0.0))), "in the fullest bin", f"the emptiest holds {least}"))
    stats.append(quality(plan))
    if "seconds" in plan.info:
        stats.append(outcome(plan))
    return stats


def _few(values: Any) -> Any:
    """Which bins a chart shows: all in their order, or those with the largest values."""
    return np.arange(len(values)) if len(values) <= SHOWN else np.argsort(-values, kind="stable")[:SHOWN]


def _rest(count: int) -> str:
    return f" The {SHOWN} largest of {count:,} bins." if count > SHOWN else ""


def _limited(plan: Assignment) -> bool:
    """Whether the items' sizes fill the bins, whose limits bind instead of a number of items."""
    return "limits" in plan.used and "limits" in plan.budget


def _loads(plan: Assignment, load: Floats, seen: Choices | None, names: list[str]) -> Element:
    limited = _limited(plan)
    room = None if plan.capacity is None else np.broadcast_to(np.asarray(plan.capacity, np.float64), plan.k)
    # What was wanted first is counted in items, which no sum of sizes is held against.
    asked = None if seen is None or limited else seen.asked
    if limited:
        load, room = (np.asarray(side["limits"], np.float64) for side in (plan.used, plan.budget))
    rows = []
    for j in _few(load).tolist():
        most = None if room is None else float(room[j])
        amount = number(float(load[j]))
        rows.append(
            Bar(
                names[j],
                float(load[j]),
                amount if most is None else f"{amount} of {number(most)}",
                against=None if asked is None else float(asked[j]),
                most=most,
                limits=None if asked is None else f"{number(float(asked[j]))} wanted it first",
                breached=most is not None and load[j] > most * (1 + 1e-9),
            )
        )
    key = [("value", "held")] if asked is None else [("against", "first choices"), ("value", "held")]
    if room is not None:
        key.append(("band", "limit" if limited else "capacity"))
    quantity = "How much" if _shared(plan) else "How many items"
    caption = f"{quantity} each bin holds{'' if room is None else ' of what it may'}."
    if limited:
        caption = "What the sizes of each bin's items add up to, of its limit."
    if asked is not None:
        share = "an item's whole share counts for its best bin" if _shared(plan) else _first(seen)
        caption += f" Grey is what was wanted: {share}."
    ends = [float(side.max(initial=0.0)) for side in (load, asked) if side is not None]
    top = max([*ends, 0.0 if room is None else min(float(room.max(initial=0.0)), 2 * max(ends))]) * 1.02 or None
    chart = charts.bars(rows, label="load of each bin", key=key, top=top)
    return figure(chart, caption + _rest(plan.k), title="How full each bin is", name="sizes")


def _first(seen: Choices | None) -> str:
    each = 1 if seen is None else seen.each
    return "each item's best-scoring bin" if each == 1 else f"each item's {each} best-scoring bins"


def _ranks(plan: Assignment, seen: Choices) -> Element:
    """Number of slots filled by first choices, by later ones, and left empty."""
    shared = _shared(plan)
    total = float(seen.ranks.sum()) + seen.empty
    words = ["first", "second", "third", "fourth", "fifth", "sixth"]
    last = int(np.flatnonzero(seen.ranks)[-1]) + 1 if seen.ranks.any() else 1
    shown = min(last, max(RANKED, seen.each)) if last > RANKED else last
    rows = []
    for rank in range(shown):
        name = f"{words[rank]} choice" if rank < len(words) else f"choice {rank + 1}"
        rows.append(_share(name, float(seen.ranks[rank]), total))
    if (later := float(seen.ranks[shown:].sum())) > 0:
        rows.append(_share("later choices", later, total))
    if seen.empty:
        rows.append(_share("nowhere (dropped)", seen.empty, total))
    moved = float(seen.lost.sum())
    count = int((seen.lost > 0).sum())
    caption = [
        f"Where {'the shares of items' if shared else 'the places of items'} went, by the item's own scores; equal "
        "scores count by the lowest bin. "
    ]
    if count:
        caption.append(
            f"{count:,} items hold bins that they score lower than their best; that gives up {number(moved)} in all, "
            f"{number(moved / count, 3)} each. "
        )
    else:
        caption.append("No item holds a bin that it scores lower than its best. ")
    if seen.empty:
        caption.append(f"The places that stayed empty would have scored {number(seen.forgone)}. ")
    if len(seen.items) < plan.n:
        caption.append(f"Counted on {len(seen.items):,} items drawn evenly.")
    body = charts.bars(rows, label="places by the item's choice", top=1.04 * max(row.value for row in rows) or None)
    return figure(body, caption, title="Which choice they got", name="choices")


def _share(name: str, value: float, total: float) -> Bar:
    return Bar(name, value, f"{number(value)} · {percent(value / total if total else 0.0)}")


def prices(plan: Assignment, names: list[str], colours: list[int] | None = None) -> Element | None:
    """Prices of the bins or groups, if the method has them."""
    if plan.v is None or not np.isfinite(plan.v).all() or not np.any(plan.v) or len(plan.v) != plan.k:
        return None
    value = np.asarray(plan.v, np.float64)
    value = np.where(np.abs(value) > 1e-12 * np.abs(value).max(), value, 0.0)
    shown = np.arange(len(value)) if len(value) <= SHOWN else np.argsort(-np.abs(value), kind="stable")[:SHOWN]
    hues = [None] * len(value) if colours is None else colours
    rows = [Bar(names[j], float(value[j]), number(float(value[j])), hue=hues[j]) for j in shown.tolist()]
    if plan.sense == "min":
        explanation = (
            "An item goes where its distance (as the method counts it) plus the price is least: a price above 0 keeps "
            "items out of a full group, one below 0 (hollow) draws them into a group that was short of members."
        )
    elif _shared(plan):
        explanation = (
            "The potentials of the bins; only their differences mean something, a larger one is a scarcer bin."
        )
    else:
        explanation = (
            f"An item goes where its score {MINUS} the price is highest; a price is what one more place in the bin "
            "would bring. A bin with room to spare costs nothing; between loads that were balanced only differences of "
            "prices mean something."
        )
    rest = f" The {SHOWN} farthest from 0 of {len(value):,}." if len(value) > SHOWN else ""
    chart = charts.bars(rows, label="price of each bin")
    return figure(chart, explanation + rest, title="What a place is worth", name="prices")


def _moved(context: Context, plan: Assignment, seen: Choices, scores: Floats, names: list[str]) -> Element | None:
    """The items that gave up the most score, and their bins instead."""
    worst = np.argsort(-seen.lost, kind="stable")[:MOVED]
    worst = worst[seen.lost[worst] > 0]
    if not len(worst):
        return None
    rows = []
    for position in worst.tolist():
        item = int(seen.items[position])
        row = scores[item]
        got = np.sort(plan.bins[plan.indptr[item] : plan.indptr[item + 1]]).tolist()
        best = np.sort(np.argsort(-row, kind="stable")[: len(got)]).tolist()
        arrow = [E("span", "score lost ", class_="unseen"), f"{MINUS}{number(float(seen.lost[position]), 3)}"]
        there = [
            E("p", "went to ", E("b", _bins([j for j in got if j not in best], row, names))),
            E("p", "wanted ", _bins([j for j in best if j not in got], row, names), class_="wanted"),
        ]
        rows.append(pair(context, item, arrow, there))
    count = int((seen.lost > 0).sum())
    intro = (
        f"The {len(rows)} of {count:,} items with a worse bin than their best that gave up most; their scores of the "
        "bins in brackets."
    )
    return pairs(rows, title="Who gave up most", name="moved", intro=intro)


def _dropped(context: Context, plan: Assignment, scores: Floats, names: list[str]) -> Element | None:
    """The items that no bin took, those with the highest scores first."""
    out = np.flatnonzero(np.diff(plan.indptr) == 0)
    if not len(out):
        return None
    best = scores[out].max(axis=1)
    order = np.argsort(-best, kind="stable")[:MOVED]
    rows = []
    for position in order.tolist():
        item = int(out[position])
        wanted = (
            _bins([int(scores[item].argmax())], scores[item], names) if np.isfinite(best[position]) else "no bin at all"
        )
        rows.append(pair(context, item, "dropped", E("p", "wanted ", E("b", wanted))))
    intro = f"{len(rows)} of the {len(out):,} items that are placed nowhere, those with the highest scores first."
    return pairs(rows, title="Who was dropped", name="dropped", intro=intro)


def _bins(bins: list[int], row: Floats, names: list[str]) -> str:
    return ", ".join(f"{names[j]} ({number(float(row[j]), 3)})" for j in bins)
