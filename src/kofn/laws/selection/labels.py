"""Pools of which some rows have a label, and tables of items and annotators, for the methods that read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.case import Case
from kofn.laws.inputs import Draw, Drawer, score_table
from kofn.laws.words import SetFunction, from_table, item_weights, pairwise


def partly_labelled(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """A label here and there; k and what is excluded leave enough rows without one."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    if len(words["X"]) == 1:
        words["X"] = np.repeat(np.asarray(words["X"], np.float64), 2, axis=0)
    n = len(words["X"])
    order = draw(st.permutations(range(n)))
    labelled = draw(st.integers(1, n - 1))
    missing = draw(st.sampled_from((-1, "?")))
    labels = [missing] * n
    for row in order[:labelled]:
        labels[row] = draw(st.integers(0, 2)) if missing == -1 else draw(st.sampled_from("ab"))
    words["y"] = np.array(labels)
    if missing != -1 or draw(st.booleans()):
        options["unlabelled"] = missing
    if "k" not in words:
        return
    words["k"] = draw(st.integers(1, n - labelled))
    words.pop("exclude", None)
    if words["k"] < n - labelled and draw(st.booleans()):
        words["exclude"] = [order[-1]]
    if draw(st.booleans()):
        words["scores"] = np.array(draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n)), np.float64)
        if draw(st.booleans()):
            options["anchors"] = "scores"
    else:
        words.pop("scores", None)
        options["anchors"] = draw(st.sampled_from(("kmeans++", "random", "all")))
    options["n_anchors"] = draw(st.integers(1, 3))
    options["n_neighbors"] = draw(st.integers(1, 3))


def _in_rounds(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """No labels and any constraints, or a label here and there with a k that the other rows allow."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    n = len(words["X"])
    if n < 2 or draw(st.booleans()):
        return
    for word in ("costs", "budget", "groups", "quotas", "include", "exclude", "start"):
        words.pop(word, None)
    order = draw(st.permutations(range(n)))
    labelled = draw(st.integers(0, n - 1))
    labels = ["?"] * n
    for row in order[:labelled]:
        labels[row] = draw(st.sampled_from("ab"))
    words |= {"y": np.array(labels), "k": draw(st.integers(1, n - labelled))}
    options["unlabelled"] = "?"
    if words["k"] < n - labelled and draw(st.booleans()):
        words["exclude"] = [order[-1]]
    if draw(st.integers(0, 2)) == 0:
        options["model"] = draw(st.sampled_from(("none", "gaussian_nb", "decision_tree")))


def _uncertainty_coverage(case: Case) -> SetFunction:
    """What a set covers of the uncertainty that the labelled rows leave uncovered."""
    words, info = case.words, case.plan.info
    width = float(info["bandwidth"])
    table = np.exp(-pairwise(words["X"], "sqeuclidean") / (2 * width * width))
    y = np.asarray(words.get("y", []), str)
    labelled = np.flatnonzero(y != str(case.options.get("unlabelled", -1))) if len(y) else np.empty(0, np.int64)
    covered = table[:, labelled].max(axis=1, initial=0.0)
    left = np.maximum(table - covered[:, None], 0.0)
    weights = np.asarray(info["uncertainty"], np.float64) * item_weights(case)
    # What is left is the difference of two similarities of up to 1.
    total = math.fsum(weights.tolist())
    return replace(from_table("uncertainty_coverage", left, weights, "most"), scale=lambda _picks: total)


def _price_steps(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """A table of pairs, prices by annotator or by pair, and a budget that buys one label at least."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    table = score_table(draw, draw(st.integers(1, 4)))
    scores = np.asarray(table, np.float64)
    if not np.isfinite(scores).any():
        scores = np.zeros_like(scores)
        table = scores
    rows, people = scores.shape
    shape = draw(st.sampled_from(((people,), (rows, people), (rows * people,))))
    size = int(np.prod(shape))
    costs = np.array(draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))).reshape(shape)
    costs = costs * draw(st.sampled_from((1, 1, 0.1)))
    price = np.broadcast_to(costs.reshape(rows, people) if size == scores.size else costs, scores.shape)
    words.clear()
    words |= {"scores": table, "costs": costs}
    open_pairs = np.flatnonzero(np.isfinite(scores))
    if len(open_pairs) > 1 and draw(st.booleans()):
        words["exclude"] = open_pairs[:1]
        open_pairs = open_pairs[1:]
    words["budget"] = price.ravel()[open_pairs].min().item() + draw(st.integers(0, 6))
    if draw(st.booleans()):
        words["per_item"] = draw(st.integers(1, people))
    if draw(st.booleans()):
        options["price_steps"] = draw(st.sampled_from((1, 5, 200)))


def _distribution(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    kinds = ["softmax", "softrank"] + ["power"] * bool(np.min(given["scores"]) >= 0)
    options["distribution"] = draw(st.sampled_from(kinds))


OPTIONS: dict[str, Drawer] = {
    "unlabelled": partly_labelled,
    "in rounds": _in_rounds,
    "price_steps": _price_steps,
    "distribution": _distribution,
}
FUNCTIONS: dict[str, Callable[..., SetFunction]] = {"uncertainty_coverage": _uncertainty_coverage}
