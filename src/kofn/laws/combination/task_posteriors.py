"""Posteriors of tasks that differ: what a plan says of the draws of their mixture, or of a next task's parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken
from kofn.laws.combination.posteriors import as_rows, described, draw_members
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import Recount


def _log_density(case: Case, x: list[float]) -> float:
    """The mixture's, component by component, of the members that are kept; or that of their average."""
    info = case.plan.info
    if case.plan.options.get("average"):
        shares = case.plan.weights.tolist()
        kept = [(share, info["represented_by"][member]) for member, share in enumerate(shares)]
        mean = sum(share * np.asarray(info["member_means"][owner]) for share, owner in kept)
        covariance = sum(share * np.asarray(info["member_covariances"][owner]) for share, owner in kept)
        off = np.array(x) - mean
        size = float(np.linalg.slogdet(covariance)[1]) + len(x) * math.log(2 * math.pi)
        return -0.5 * (float(off @ np.linalg.solve(covariance, off)) + size)
    logs = []
    for member in info["extremes"]:
        weight = math.fsum(
            share for share, owner in zip(case.plan.weights, info["represented_by"], strict=True) if owner == member
        )
        covariance = np.asarray(info["member_covariances"][member])
        off = np.array(x) - info["member_means"][member]
        size = float(np.linalg.slogdet(covariance)[1]) + len(x) * math.log(2 * math.pi)
        if weight > 0:
            logs.append(math.log(weight) - 0.5 * (float(off @ np.linalg.solve(covariance, off)) + size))
    return max(logs) + math.log(math.fsum(math.exp(value - max(logs)) for value in logs))


def _in_the_region(case: Case) -> None:
    """Every draw lies in the region, the preference sums to one, moments are those of the draws."""
    plan, draws = case.plan, as_rows(case.plan.result)
    if abs(math.fsum(plan.weights.tolist()) - 1) > 1e-9:
        raise broken(case, "recount", f"the preference sums to {math.fsum(plan.weights.tolist())!r}")
    edge = plan.info["log_density_at_edge"]
    for row in draws.tolist():
        height = _log_density(case, row)
        if height < edge - 1e-6 * (1 + abs(edge)):
            raise broken(case, "recount", f"draw {row} has log density {height!r}, the edge is at {edge!r}")
    owners = plan.info["represented_by"].tolist()
    if any(owners[owner] != owner for owner in owners):
        raise broken(case, "recount", f"members are represented by some that are not kept: {owners}")
    described(case, draws, [1 / len(draws)] * len(draws))


def _of_a_population(case: Case) -> None:
    """Each task's posterior is the closed form given the population; parts sum to one; the objective never falls."""
    plan, draws = case.plan, as_rows(case.plan.result)
    info = plan.info
    if abs(math.fsum(plan.weights.tolist()) - 1) > 1e-6:
        raise broken(case, "recount", f"the tasks' parts sum to {math.fsum(plan.weights.tolist())!r}")
    history = info["history"]
    if (np.diff(history) < -1e-8 * (1 + np.abs(history).max())).any():
        raise broken(case, "recount", f"the objective fell: {history}")
    prior = np.linalg.inv(info["population_covariance"])
    for number, member in enumerate(case.words["members"]):
        rows = as_rows(member)
        own = np.linalg.inv(np.cov(rows, rowvar=False).reshape(rows.shape[1], -1))
        mean = np.linalg.solve(own + prior, own @ rows.mean(axis=0) + prior @ info["population_mean"])
        off: Floats = np.abs(mean - info["member_means"][number])
        if (off > 1e-5 * (np.abs(rows).max(axis=0) + 1e-300)).any():
            raise broken(case, "recount", f"member {number} has the mean {info['member_means'][number]}, not {mean}")
    described(case, draws, [1 / len(draws)] * len(draws))


def _draw_credal(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Tasks that overlap, one of them perhaps twice, a preference, and how much of the mixture is kept."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    draw_members(draw, words, draw(st.integers(1, 3)))
    if draw(st.booleans()):
        words["members"] = [*words["members"][:-1], words["members"][0]]
    words.pop("weights", None)
    if draw(st.booleans()):
        words["weights"] = np.array([float(draw(st.integers(1, 3))) for _ in words["members"]])
    options["mass"] = draw(st.sampled_from((0.5, 0.9, 1.0)))
    options["within"] = draw(st.sampled_from((0.0, 0.5)))
    options["average"] = draw(st.booleans())
    options["draws"] = draw(st.integers(8, 30))


def _draw_hierarchy(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Tasks whose means differ, a guess of their spread where one alone tells of none, and how many draws are made."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    d = draw(st.integers(1, 2))
    draw_members(draw, words, d)
    if len(words["members"]) == 1 or draw(st.booleans()):
        options["scale"] = [draw(st.sampled_from((0.5, 2.0)))] * d
    options["draws"] = draw(st.integers(8, 30))


RECOUNTS: dict[str, Recount] = {"draws_of_a_region": _in_the_region, "draws_of_a_population": _of_a_population}
OPTIONS: dict[str, Drawer] = {"credal set": _draw_credal, "hierarchy": _draw_hierarchy}
