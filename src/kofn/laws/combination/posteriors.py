"""Draws of sub-posteriors, and what a plan says of the draws of their product."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.combination.posteriors._densities import GaussianDensity
from kofn.core.arrays import Floats
from kofn.laws.case import Case, broken
from kofn.laws.inputs import Draw, Drawer, laid_out, seeded
from kofn.laws.words import Recount


def as_rows(member: Any) -> Floats:
    array = np.asarray(member, np.float64)
    return array[:, None] if array.ndim == 1 else array


def described(case: Case, draws: Floats, shares: list[float]) -> None:
    """Mean, standard deviation and interval of each parameter are those of the weighted draws."""
    plan = case.plan
    for column, values in enumerate(draws.T.tolist()):
        size = max(map(abs, values))
        mean = math.fsum(share * value for share, value in zip(shares, values, strict=True))
        squares = math.fsum(share * (value - mean) ** 2 for share, value in zip(shares, values, strict=True))
        for label, counted in (("mean", mean), ("sd", math.sqrt(squares))):
            if abs(plan.info[label][column] - counted) > 1e-9 * size:
                raise broken(
                    case, "recount", f"{label} {column} is {plan.info[label][column]!r}, recounted {counted!r}"
                )
        low, high = plan.info["low"][column], plan.info["high"][column]
        inside = math.fsum(share for share, value in zip(shares, values, strict=True) if low <= value <= high)
        if inside < 0.95 - 2 * max(shares) - 1e-9:
            raise broken(case, "recount", f"the interval from {low!r} to {high!r} holds {inside!r} of the draws")


def _described(case: Case) -> None:
    """Moments, interval and effective size are those of the draws; the members' shares sum to one; units follow."""
    plan, draws = case.plan, as_rows(case.plan.result)
    weights = plan.info.get("draw_weights")
    shares = [1 / len(draws)] * len(draws) if weights is None else weights.tolist()
    if min(shares) < 0 or abs(math.fsum(shares) - 1) > 1e-9:
        raise broken(case, "recount", f"the draws' weights sum to {math.fsum(shares)!r}")
    if not 0 < plan.info["ess"] <= len(draws) * (1 + 1e-9):
        raise broken(case, "recount", f"{len(draws)} draws are worth {plan.info['ess']!r}")
    if plan.info["ess"] > max(1.0, *plan.info["member_ess"].tolist()) * (1 + 1e-9):
        raise broken(case, "recount", f"the draws are worth {plan.info['ess']!r}, more than those of any member")
    if abs(math.fsum(plan.weights.tolist()) - 1) > 1e-9:
        raise broken(case, "recount", f"the members' parts sum to {math.fsum(plan.weights.tolist())!r}")
    described(case, draws, shares)
    if "densities" not in case.options:
        doubled = case.again(members=[2 * np.asarray(member) for member in case.words["members"]])
        if not np.allclose(as_rows(doubled.result), 2 * draws, rtol=1e-9, atol=1e-9 * float(np.abs(draws).max())):
            raise broken(case, "recount", "twice the members do not give twice the draws")


def _averaged(case: Case) -> bool:
    """Copies of a member give the copy, and a shift of all members shifts the draws."""
    first = case.words["members"][0]
    copies = as_rows(case.again(members=[first] * case.plan.n).result)
    size = float(np.abs(as_rows(first)).max())
    if copies.shape != as_rows(first).shape or (np.abs(copies - as_rows(first)) > 1e-9 * size).any():
        raise broken(case, "blend", "copies of a member do not give the copy")
    moved = case.again(members=[np.asarray(member, np.float64) + 3 * size for member in case.words["members"]])
    if (np.abs(as_rows(moved.result) - as_rows(case.plan.result) - 3 * size) > 1e-8 * size).any():
        raise broken(case, "blend", "members that are moved do not move the draws as far")
    return case.plan.n > 1


def draw_members(draw: Draw, words: dict[str, Any], d: int) -> list[tuple[Floats, Floats]]:
    """Draws of Gaussians that overlap, in unequal numbers; their means and covariances."""
    rng, fits = seeded(draw), []
    scale = draw(st.sampled_from((1.0, 1e-3, 1e6)))
    flat = d == 1 and draw(st.booleans())
    members = []
    for _ in words["members"]:
        factor = scale * (np.eye(d) + 0.3 * rng.normal(size=(d, d)))
        mean = scale * (5 + rng.normal(size=d))
        rows = mean + rng.normal(size=(draw(st.integers(d + 8, 40)), d)) @ factor.T
        fits.append((mean, factor @ factor.T))
        members.append(laid_out(draw, rows[:, 0] if flat else rows))
    words["members"] = members
    return fits


def _draw_plain(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """How draws are weighted."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    draw_members(draw, words, draw(st.integers(1, 3)))
    options["precision"] = draw(st.sampled_from(("full", "diagonal", "uniform")))


def _draw_count(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """How many draws are made."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    draw_members(draw, words, draw(st.integers(1, 3)))
    options["draws"] = draw(st.sampled_from((None, 4, 33)))


def _draw_kernel(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Which kernels, and how many draws are made."""
    _draw_count(draw, given, options)
    options["kernel"] = draw(st.sampled_from(("semiparametric", "nonparametric")))
    options["sweeps"] = draw(st.integers(1, 3))


def _draw_densities(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """The densities that the members are drawn from."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    d = draw(st.integers(1, 2))
    options["densities"] = [GaussianDensity(*fit) for fit in draw_members(draw, words, d)]
    options["draws"] = draw(st.integers(20, 40))
    options["branching"] = draw(st.integers(2, 4))


def _transported(case: Case) -> None:
    """The divergence component by component and input by input, which never rose, and each member's part of it."""
    plan, inputs = case.plan, np.asarray(case.options["inputs"], np.float64)
    shares = np.asarray(case.words.get("weights", np.ones(plan.n)), np.float64)
    shares = shares / math.fsum(shares.tolist())
    reduced, total, size = plan.result, 0.0, 1.0
    for number, member in enumerate(case.words["members"]):
        own = 0.0
        for row in inputs.tolist():
            x = np.array([1.0, *row])
            odds = [math.fsum((gate * x).tolist()) for gate in np.asarray(member["gates"], np.float64)]
            raw = [math.exp(value - max(odds)) for value in odds]
            for chance, expert, variance in zip(raw, member["experts"], member["variances"], strict=True):
                costs = []
                for other, wide in zip(reduced["experts"], reduced["variances"], strict=True):
                    off = float((np.asarray(expert, np.float64) - other) @ x)
                    costs.append(0.5 * (math.log(wide / variance) + (variance + off * off) / wide - 1))
                own += chance / math.fsum(raw) * min(costs) / len(inputs)
        size = max(size, own)
        if abs(own - plan.spread[number]) > 1e-8 * size and shares[number] > 0:
            raise broken(case, "recount", f"member {number} loses {plan.spread[number]!r}, recounted {own!r}")
        total += shares[number] * own
    if abs(total - plan.value) > 1e-8 * size:
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {total!r}")
    if (np.diff(plan.info["history"]) > 1e-9 * size).any():
        raise broken(case, "recount", f"the divergence rose: {plan.info['history']}")


def _draw_mixtures(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Mixtures around one, their components in any order, and inputs."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    rng, d, count = seeded(draw), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    gates, experts = rng.normal(size=(count, d + 1)), 3 * rng.normal(size=(count, d + 1))
    noise = draw(st.sampled_from((0.0, 0.1, 1.0)))
    members = []
    for _ in words["members"]:
        order = rng.permutation(count)
        member = {"gates": gates[order], "experts": experts[order] + noise * rng.normal(size=(count, d + 1))}
        members.append({**member, "variances": np.exp(noise * rng.normal(size=count))})
    words["members"] = members
    words.pop("weights", None)
    if draw(st.booleans()):
        words["weights"] = np.array([float(draw(st.integers(1, 3))) for _ in members])
    options["inputs"] = rng.normal(size=(draw(st.integers(4, 9)), d))
    options["components"] = draw(st.sampled_from((None, 1, count)))
    options["restarts"] = draw(st.integers(1, 3))


RECOUNTS: dict[str, Recount] = {"product_of_draws": _described, "transportation_divergence": _transported}
BLENDS = {"draws": _averaged}
OPTIONS: dict[str, Drawer] = {
    "precision": _draw_plain,
    "draws of a product": _draw_count,
    "kernel": _draw_kernel,
    "densities": _draw_densities,
    "mixtures": _draw_mixtures,
}
