"""Densities under noise, and what a plan says of the particles that follow their product."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.combination.diffusion._diffused import DiffusedMixture
from kofn.laws.case import Case, broken
from kofn.laws.combination.posteriors import as_rows, described
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import Recount


def _diffused(case: Case) -> None:
    """Moments and interval are those of the weighted draws, which are worth no more than there are."""
    plan, draws = case.plan, as_rows(case.plan.result)
    shares = plan.info["draw_weights"].tolist()
    if min(shares) < 0 or abs(math.fsum(shares) - 1) > 1e-9:
        raise broken(case, "recount", f"the draws' weights sum to {math.fsum(shares)!r}")
    size = 1 / math.fsum(share * share for share in shares)
    if abs(plan.info["ess"] - size) > 1e-9 * size:
        raise broken(case, "recount", f"the draws are worth {plan.info['ess']!r}, recounted {size!r}")
    described(case, draws, shares)


def _draw_diffusion(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Mixtures of two Gaussians that overlap, and powers of a positive sum."""
    words: dict[str, Any] = given  # type: ignore[assignment]
    rng, d, scale = seeded(draw), draw(st.integers(1, 3)), draw(st.sampled_from((1.0, 1e-3, 1e6)))
    words["members"] = [
        DiffusedMixture(
            scale * (3 + rng.normal(size=(2, d))), scale**2 * np.array([np.diag(rng.uniform(0.5, 2, d))] * 2)
        )
        for _ in words["members"]
    ]
    m = len(words["members"])
    powers = draw(st.sampled_from((None, 0.5, 2.0)))
    options["powers"] = None if powers is None else [powers] * m
    options["draws"], options["steps"] = draw(st.integers(20, 40)), draw(st.integers(5, 20))
    options["noise"] = draw(st.sampled_from(("target", "tempered")))


RECOUNTS: dict[str, Recount] = {"diffused_product": _diffused}
OPTIONS: dict[str, Drawer] = {"diffusion": _draw_diffusion}
