"""The report's charts, thumbnails and figures as people read them."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from kofn.report import charts, page


def test_density_puts_every_item_in_its_nearest_cell() -> None:
    rng = np.random.default_rng(0)
    placed = rng.random((5000, 2)) * [300, 200]
    cell = 15.0
    tall = cell * np.sqrt(3)
    grid = [(i * cell, j * tall) for i in range(-1, 23) for j in range(-1, 11)]
    grid += [((i + 0.5) * cell, (j + 0.5) * tall) for i in range(-1, 23) for j in range(-1, 11)]
    centres = np.array(grid)
    held = np.unique(cdist(placed, centres).argmin(axis=1))
    drawn = "".join(path for _, path in charts.density(placed, cell))
    spots = {tuple(map(int, spot)) for spot in re.findall(r"M(-?\d+) (-?\d+)h", drawn)}
    assert spots == {(round(x), round(y)) for x, y in centres[held].tolist()}


def test_density_draws_fuller_cells_larger() -> None:
    placed = np.concatenate([np.full((900, 2), 30.0), np.full((100, 2), 300.0), [[600.0, 600.0]]])
    drawn = {round(int(path[1:].split()[0]), -2): size for size, path in charts.density(placed)}
    assert drawn == {0: 7, 300: 3, 600: 1}


def test_map_frame_keeps_proportions_and_shows_far_items_at_the_edge() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 2)) * [3, 1]
    whole = charts.Frame.around(points)
    placed = whole(points)
    assert whole.outside == 0
    np.testing.assert_allclose(np.diff(placed[:2, 0]) / np.diff(points[:2, 0]), whole.scale)
    np.testing.assert_allclose(np.diff(placed[:2, 1]) / np.diff(points[:2, 1]), -whole.scale)
    squeezed = charts.Frame.around(np.concatenate([points, [[1e6, 0.0]]]))
    assert 1 <= squeezed.outside <= 20
    assert (squeezed(np.array([[1e6, 0.0]])) <= charts.WIDE).all()
    assert squeezed.scale > 0.5 * whole.scale


def test_ticks_are_round_and_inside() -> None:
    assert charts.ticks(0, 1, 4) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert charts.ticks(1, 50, 6) == [10, 20, 30, 40, 50]
    assert charts.ticks(3, 3) == [3]
    assert charts.Axis(2, 3e5, log=True).ticks() == [100, 10_000]
    assert charts.Axis(3, 90, log=True).ticks() == [5, 10, 20, 50]
    assert len(charts.steps(10_000, [77])) <= charts.STEPS * 1.3
    assert {0, 77, 9999} <= set(charts.steps(10_000, [77]).tolist())


def test_figures_are_written_for_people() -> None:
    assert [page.number(v) for v in (0, 1234567, 0.123456, 1234.5678, 54321.0, 1e-7, -2.5, float("nan"), True)] == [
        "0",
        "1,234,567",
        "0.1235",
        "1,235",
        "54,321",
        "1.000e\N{MINUS SIGN}07",
        "\N{MINUS SIGN}2.5",
        "not a number",
        "yes",
    ]
    assert [page.percent(v) for v in (0.0, 0.12345, 0.99999, 0.00001, 1.0)] == [
        "0.0%",
        "12.3%",
        "> 99.9%",
        "< 0.1%",
        "100.0%",
    ]
    assert [page.seconds(v) for v in (0.0012, 0.213, 4.26, 187.0)] == ["1.2 ms", "213 ms", "4.3 s", "3 min 7 s"]
    assert page.bytes_(54_000_000) == "54 MB"


def decoded(uri: str) -> Any:
    head, body = uri.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


def test_thumbnails_hold_the_pixels() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 17, (8, 9))
    uri, tall, wide = page.thumbnail(grey, 0, 16)
    assert (tall, wide) == (8, 9)
    np.testing.assert_array_equal(decoded(uri), np.round(grey / 16 * 255))
    for channels in (3, 4):
        colour = rng.integers(0, 256, (5, 6, channels)).astype(np.uint8)
        np.testing.assert_array_equal(decoded(page.thumbnail(colour, 0, 255)[0]), colour)
    large = rng.integers(0, 256, (200, 330)).astype(np.uint8)
    uri, tall, wide = page.thumbnail(large, 0, 255)
    assert max(tall, wide) <= page.MAX_SIDE
    block = large[:200, :328].reshape(50, 4, 82, 4).mean(axis=(1, 3))
    np.testing.assert_array_equal(decoded(uri), np.round(block))
    assert decoded(page.thumbnail(np.ones((2, 500)), 0, 1)[0]).shape[0] == 1
