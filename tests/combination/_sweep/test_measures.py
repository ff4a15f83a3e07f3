"""Distances and measures of blends at scales whose squares are beyond float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kofn.combination import measures_by_layer, ties, weighted_mean
from kofn.io.tensor_writer import write_arrays

SCALES = (1e-310, 1e-200, 1e-160, 1e150, 1e200)


def members(scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"layers.0.w": scale * rng.normal(size=(30, 4)), "b": scale * rng.normal(size=3)} for _ in range(3)]


def blend(scale: float, **more: Any) -> Any:
    return weighted_mean(members(scale), weights=[1, 2, 3], measure=True, **more)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", SCALES)
def test_figures_do_not_depend_on_the_scale(scale: float) -> None:
    # Of 1e-310, numbers themselves have some 14 binary digits fewer.
    near: dict[str, Any] = {"rtol": 1e-12 if scale > 1e-300 else 1e-9, "atol": 1e-13 if scale > 1e-300 else 1e-9}
    plain, far = blend(1.0), blend(scale)
    np.testing.assert_allclose(far.spread / scale, plain.spread, **near)
    for name, row in plain.info["measures"].items():
        other = far.info["measures"][name]
        for key in ("norms", "distance", "deviation"):
            np.testing.assert_allclose(other[key] / scale, row[key], **near)
        for key in ("cosine", "kept", "length", "agreement"):
            np.testing.assert_allclose(other[key], row[key], **near)
    for one, two in zip(*(measures_by_layer(plan.info["measures"]) for plan in (plain, far)), strict=True):
        np.testing.assert_allclose(two["cosine"], one["cosine"], **near)
        np.testing.assert_allclose(two["relative"], one["relative"], **near)
        np.testing.assert_allclose(two["kept"], one["kept"], **near)
        np.testing.assert_allclose(two["length"], one["length"], **near)
    base = {name: np.zeros_like(array) for name, array in members()[0].items()}
    lengths = [ties(members(s), base=base, density=1.0, measure=True).info["length"] for s in (1.0, scale)]
    np.testing.assert_allclose(lengths[1], lengths[0], **near)


@pytest.mark.filterwarnings("error")
def test_tensors_of_unlike_scales_are_measured_together(tmp_path: Path) -> None:
    for position, member in enumerate(members()):
        member["layers.0.w"] *= 1e200
        member["b"] *= 1e-200
        write_arrays(tmp_path / f"{position}.safetensors", member)
    paths = [tmp_path / f"{position}.safetensors" for position in range(3)]
    plan = weighted_mean(paths, weights=[1, 2, 3], measure=True, max_memory=30_000)
    plain = blend(1.0).info["measures"]
    for name, scale in (("layers.0.w", 1e200), ("b", 1e-200)):
        np.testing.assert_allclose(plan.info["measures"][name]["distance"] / scale, plain[name]["distance"], rtol=1e-12)
    np.testing.assert_allclose(plan.spread / 1e200, plain["layers.0.w"]["distance"], rtol=1e-12)
    plan.report(tmp_path / "report.html")
    assert ">nan" not in (tmp_path / "report.html").read_text()


def test_a_member_that_is_the_blend_is_at_distance_zero() -> None:
    same = weighted_mean([members()[0]] * 2)
    assert same.spread.tolist() == [0.0, 0.0]
