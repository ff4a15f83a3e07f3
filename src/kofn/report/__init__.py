"""The HTML report of a plan: one self-contained file that loads nothing from the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kofn.core.plans import Assignment, Blend, Plan, Selection


def write_report(
    plan: Plan,
    path: str | Path,
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
    repeats: Any = None,
    labels: Any = None,
    items: Any = None,
    curves: Any = None,
    levels: Any = None,
    notes: Sequence[str] = (),
    title: str | None = None,
) -> Path:
    """Write what a plan is, how good it is and why, as one HTML file for people.

    A selection's report shows the share of the pool covered after each pick with its knee, the pool and the picks in
    two dimensions, groups and quotas before and after, every pick, and for a sample of items their nearest
    pick. An assignment's shows its groups in two dimensions with their medoids, their sizes within capacities, every
    item's silhouette, the nearest and farthest members of each, and why it is k groups where the method found k; for
    items sent to bins by scores the loads, which choice they got, who was moved, and the bins' prices. A blend of
    models shows how far it goes beside its members, what each layer lost in weights, and the option that mended such
    blends in trials (with `measure`). An allocation's shows the amounts
    beside equal ones, the best value at every budget (with `frontier=True`), what a next step buys, and with `curves`
    the chosen points. Rankings show points, weights and spread, products of posteriors each parameter and how well the
    shards agree. All end with what was run.

    Args:
        plan: A `Selection`, `Assignment`, `Allocation` or `Blend` over n items.
        path: The file to write; it is replaced whole or left as it was.
        X: (n, d) vectors the plan was made from; without them there is no map and no coverage. Or the table that
            `select` or `assign` took, whose rows are compared as they were then, and stand beside the picks.
        frame: The items' table, a polars frame of n rows; a few short columns stand beside each pick.
        text: n texts, or the name of a column of `frame`.
        images: (n, h, w) or (n, h, w, 3) pictures, or n such arrays of their own sizes.
        groups: (n,) labels, or {name: labels} for several groupings.
        quotas: {label: (least, most)}, or {name: {label: (least, most)}} with several groupings.
        weights: (n,) how much each item counts in the coverage, default 1 each.
        scores: (n,) scores the picks were made from; without X, coverage is their part of the total. (n, bins) of an
            assignment: what items wanted.
        metric: "euclidean", "sqeuclidean", "cosine", or "precomputed": then X holds the items' distances to each other,
            and for a selection is not drawn.
        command: What was typed, as one string or as its words.
        repeats: `kofn.report.context.Repeats`, near-duplicates that were dropped from the pool of a selection.
        labels: `kofn.report.context.Labels`, what the picks are worth as rows to label.
        items: row numbers, rising and with all picks among them, where X holds these rows alone: the picks and a sample
            of a pool that is larger than memory.
        curves: (n, L) of an allocation: what the amounts were chosen from, drawn with the chosen points.
        levels: (L,) or (n, L) amounts of the curves' columns, default those that the method was given.
        notes: What more is to be said of the picks of a next round of labels, a sentence each.
        title: The page's heading.

    Returns:
        The path written.

    Raises:
        InputError: The context does not fit the plan (lengths, shapes, an unknown column).

    Time is O(n m d) for m picks or groups and memory is O(n + m) beside X: distances go in blocks, and past 4e8 of them
    coverage and silhouettes are measured on a fixed sample of the items, which the page then says. Both are exact
    otherwise; the reference of the coverage, the mean distance between two items, comes from 262,144 pairs drawn with a
    fixed seed where n > 512.

    >>> import numpy as np, tempfile, pathlib
    >>> from kofn.core.plans import Selection
    >>> plan = Selection(n=4, indices=np.array([0, 3]), gains=np.array([2.0, 1.0]), value=3.0, method="lazy_greedy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(plan, pathlib.Path(folder) / "r.html", X=np.arange(8.0).reshape(4, 2)).read_text()
    >>> page.startswith("<!doctype html>"), "2 of 4" in page
    (True, True)
    """
    from kofn.report import assignment, merge, nouns, page, selection
    from kofn.report._rows import is_rows, seen_of
    from kofn.report.context import Context
    from kofn.report.posteriors import blends_draws
    from kofn.report.predictions import blends_predictions

    if X is not None and frame is None and text is None and is_rows(X):
        seen = seen_of(plan, X)
        X, metric, frame, text = seen["X"], seen.get("metric", metric), seen["frame"], seen.get("text")
    context = Context.of(
        plan,
        X=X,
        frame=frame,
        text=text,
        images=images,
        groups=groups,
        quotas=quotas,
        weights=weights,
        scores=scores,
        metric=metric,
        command=command,
        repeats=repeats,
        labels=labels,
        items=items,
        curves=curves,
        levels=levels,
        notes=notes,
    )
    pages: dict[type[Plan], Callable[..., str]] = {Selection: selection.page, Assignment: assignment.page}
    if isinstance(plan, Blend) and plan.form != "order" and not (blends_predictions(plan) or blends_draws(plan)):
        return page.write(merge.page(context, title), path)
    return page.write(pages.get(type(plan), nouns.page)(context, title), path)


def notebook(plan: Plan) -> str:
    """What a notebook shows of a plan: its facts and one small picture, as HTML without scripts (`plan._repr_html_`).

    >>> import kofn
    >>> "<svg" in notebook(kofn.select([[0.0], [1.0], [5.0]], k=2))
    True
    """
    from kofn.report._notebook import view

    return view(plan)


def plot(plan: Plan, ax: Any = None) -> Any:
    """Draw a plan with matplotlib: the gain of each pick, the groups' sizes, the amounts, or what each member weighs.

    Args:
        plan: A `Selection`, `Assignment`, `Allocation` or `Blend`.
        ax: The axes to draw on; a new figure without.

    Returns:
        The axes.

    Raises:
        InputError: matplotlib is not installed.
    """
    from kofn.report._plot import draw

    return draw(plan, ax)


__all__ = ["notebook", "plot", "write_report"]
