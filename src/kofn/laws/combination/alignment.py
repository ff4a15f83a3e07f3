"""Naive distances and sums of networks aligned by a plan's transforms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import (
    HIDDEN,
    Optimum,
    Recount,
    flat,
    permuted,
)


def _orders(case: Case) -> list[NDArray[np.int64]]:
    transforms = case.plan.transforms
    if not isinstance(transforms, Mapping) or len(transforms) != 1:
        raise broken(case, "recount", f"transforms are {transforms!r}, the network has one hidden layer")
    orders = [np.asarray(order) for order in next(iter(transforms.values()))]
    width = len(np.asarray(case.words["members"][0][HIDDEN[1]]))
    for order in orders:
        if sorted(order.tolist()) != list(range(width)):
            raise broken(case, "recount", f"{order!r} is no order of {width} units")
    return orders


def _reference(case: Case) -> Floats:
    return flat(case.words["members"][case.plan.options.get("reference", 0)])


def _matched_distance(case: Case) -> None:
    """The summed squared distance of the aligned members to the reference."""
    reference = _reference(case)
    pairs = zip(case.words["members"], _orders(case), strict=True)
    gaps = [float(np.square(flat(permuted(member, order)) - reference).sum()) for member, order in pairs]
    scale = float(np.square(reference).sum())
    if not near(case.plan.value, math.fsum(gaps), case.rtol, scale):
        raise broken(case, "recount", f"value is {case.plan.value!r}, recounted {math.fsum(gaps)!r}")


def _best_matched(case: Case) -> float:
    """The least distance of any order of each member's units, by trying them all."""
    reference = _reference(case)
    best = []
    for member in case.words["members"]:
        width = len(np.asarray(member[HIDDEN[1]]))
        turns = (np.array(turn, np.int64) for turn in itertools.permutations(range(width)))
        best.append(min(float(np.square(flat(permuted(member, turn)) - reference).sum()) for turn in turns))
    return math.fsum(best)


def _aligned_sum(case: Case) -> bool:
    """The result is the weighted sum of the members in their orders, inside their box where the weights allow it."""
    plan = case.plan
    rows = np.array(
        [flat(permuted(member, order)) for member, order in zip(case.words["members"], _orders(case), strict=True)]
    )
    weights = np.asarray(plan.weights, np.float64)
    if abs(math.fsum(weights.tolist()) - 1) > 1e-9:
        raise broken(case, "blend", f"form {plan.form}, weights sum to {math.fsum(weights.tolist())!r}")
    got, size = flat(plan.result), np.abs(weights) @ np.abs(rows)
    if (np.abs(got - weights @ rows) > 1e-14 * size).any():
        raise broken(case, "blend", f"the sum of the ordered members is {weights @ rows}, the result {got}")
    if plan.form == "simplex" and ((got < rows.min(axis=0)) | (got > rows.max(axis=0))).any():
        raise broken(case, "blend", "the result is outside the ordered members' box")
    copies = case.again(members=[case.words["members"][0]] * len(rows))
    if flat(copies.result).tobytes() != flat(case.words["members"][0]).tobytes():
        raise broken(case, "blend", "copies do not give the copy bit for bit")
    return True


def draw_inputs(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Calibration inputs of the networks that were drawn."""
    weight = np.asarray(given["members"][0][HIDDEN[0]])
    options["inputs"] = seeded(draw).normal(size=(40, weight.shape[1]))


def _draw_some_inputs(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Without inputs, units are compared by their weights."""
    if draw(st.booleans()):
        draw_inputs(draw, given, options)


RECOUNTS: dict[str, Recount] = {"matched_distance": _matched_distance}
OPTIMA: dict[str, Optimum] = {"matched_distance": _best_matched}
BLENDS: dict[str, Callable[[Case], bool]] = {"ordered_networks": _aligned_sum}
OPTIONS: dict[str, Drawer] = {"inputs": draw_inputs, "inputs or none": _draw_some_inputs}
