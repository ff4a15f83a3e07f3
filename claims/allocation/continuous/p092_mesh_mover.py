"""A fixed number of mesh nodes where a function varies: equidistributed by water-filling, in a square by transport.

On a line, each small segment's interpolation error falls with the fourth power of the nodes that it gets; how many it
gets is `kofn.allocate`, and nodes at equal steps of what is given equidistribute the monitor |u''|^(2/5). In a square,
nodes move by the optimal transport from the even density to the monitor's, the gradient of a convex potential, which is
the Monge-Ampere equation that the paper trains its network on: `kofn.assign` solves it on a grid. The network that
learns the map for whole families of functions, and the solver of differential equations around it, are not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.paired import difference
from claims.harness.runs import derive

Floats = NDArray[np.float64]
Field = Callable[[Floats], Floats]

NODES, SEGMENTS = (50, 100, 200), 2000
SIDE, FINE = 16, 32
# Entropic smoothing of the transport, in units of the squared side; the even part of the monitor, and its smoothing in
# cells of the fine grid, as moving meshes have it.
REG, EVEN, SMOOTH = 2e-3, 0.15, 2.0


@claim(
    paper=92,
    says="With as many nodes, meshes that equidistribute a monitor interpolate steep functions with a third of the "
    "error of even meshes and less than meshes by arc length, on a line and in a square, and no cell is turned over",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Fronts, shocks and rings drawn at random; broken: the monitor is the same everywhere."""
    runs = 20 if scale == "small" else 60
    lines = [_on_a_line(number, broken) for number in derive(seed, runs, stream=1)]
    squares = [_in_a_square(number, broken) for number in derive(seed, runs // 2, stream=2)]
    measured: dict[str, Any] = {}
    criteria = {}
    for name, trials in (("line", lines), ("square", squares)):
        error = {way: np.log([trial["error"][way] for trial in trials]) for way in trials[0]["error"]}
        even = difference(error["even"], error["ours"])
        length = difference(error["arc length"], error["ours"])
        spread = np.array([trial["variation"] for trial in trials])
        measured[name] = {
            "log L2 error, even - ours": even.figures(),
            "log L2 error, arc length - ours": length.figures(),
            "variation of the monitor over cells, ours and even": spread.mean(axis=0).round(4).tolist(),
            "least cell over the mean cell": round(float(min(trial["least"] for trial in trials)), 4),
        }
        criteria[f"{name}: a third of the error of an even mesh"] = even.above(float(np.log(3)))
        criteria[f"{name}: below the mesh by arc length"] = length.above(0.0)
        criteria[f"{name}: the monitor varies by less than a tenth over cells"] = bool(spread[:, 0].mean() < 0.1)
        criteria[f"{name}: no cell is turned over"] = all(trial["least"] > 0 for trial in trials)
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences in log error above log 3 (even) and 0 (arc length), a "
        "coefficient of variation of the monitor's mass below 0.1, all cells of positive area",
        baseline="even nodes; nodes by arc length, moved by the same allocation and the same transport",
        kind="reduced",
    )


def _on_a_line(seed: int, broken: bool) -> dict[str, Any]:
    """Mean log error over the numbers of nodes, of a front, or of Burgers' equation before its shock breaks."""
    rng = np.random.default_rng(seed)
    u = _front(rng) if rng.random() < 0.5 else _steepened(rng)
    x = np.linspace(0, 1, SEGMENTS + 1)
    middle, width = (x[1:] + x[:-1]) / 2, 1 / SEGMENTS
    bend = np.abs(u(middle + width) - 2 * u(middle) + u(middle - width)) / width**2
    slope = np.abs(u(middle + width) - u(middle - width)) / (2 * width)
    monitor = np.ones(SEGMENTS) if broken else bend
    errors: dict[str, list[float]] = {"ours": [], "arc length": [], "even": []}
    variation, least = [], []
    for nodes in NODES:
        # The squared error of a segment with m even cells is u''^2 width^5 / (120 m^4); some nodes are even.
        curves = np.column_stack([monitor**2 * width**5 / 120 + 1e-30, np.full(SEGMENTS, 4.0)])
        some = 0.1 * nodes / SEGMENTS
        limits: Any = (some, None)
        plan = kofn.allocate(
            curves=curves, budget=float(nodes - 1), bounds=limits, family="power", method="water_filling"
        )
        meshes = {
            "ours": _by_mass(x, plan.amounts, nodes),
            "arc length": _by_mass(x, np.sqrt(1 + slope**2), nodes),
            "even": np.linspace(0, 1, nodes),
        }
        for way, mesh in meshes.items():
            errors[way].append(_line_error(u, mesh))
        given = np.concatenate([[0], np.cumsum(plan.amounts)])
        masses = [np.diff(np.interp(meshes[way], x, given)) for way in ("ours", "even")]
        variation.append([float(mass.std() / mass.mean()) for mass in masses])
        least.append(float(np.diff(meshes["ours"]).min() * (nodes - 1)))
    return {
        "error": {way: float(np.exp(np.log(values).mean())) for way, values in errors.items()},
        "variation": np.mean(variation, axis=0).tolist(),
        "least": min(least),
    }


def _front(rng: np.random.Generator) -> Field:
    """A steep step, and a slow wave."""
    middle, steep, wave = rng.uniform(0.2, 0.8), rng.uniform(40, 120), rng.uniform(0.5, 1.5)
    return lambda x: np.tanh(steep * (x - middle)) + 0.2 * np.sin(2 * np.pi * wave * x)


def _steepened(rng: np.random.Generator) -> Field:
    """A sine under Burgers' equation without viscosity, shortly before it breaks: along characteristics."""
    share, shift = rng.uniform(0.9, 0.98), rng.uniform(0, 1)
    start = np.linspace(-1, 2, 60_001)
    carried = start + share / (2 * np.pi) * np.sin(2 * np.pi * start)
    values = np.sin(2 * np.pi * start)
    return lambda x: np.interp(np.mod(np.asarray(x) + shift, 1), carried, values)


def _by_mass(x: Floats, mass: Floats, nodes: int) -> Floats:
    """Nodes at equal steps of the mass of the segments."""
    total = np.concatenate([[0], np.cumsum(mass)])
    return np.interp(np.linspace(0, total[-1], nodes), total, x)


def _line_error(u: Field, mesh: Floats) -> float:
    """L2 error of linear interpolation."""
    part = (np.arange(8) + 0.5) / 8
    width = np.diff(mesh)[:, None]
    points = mesh[:-1, None] + width * part
    values = u(mesh)
    between = values[:-1, None] * (1 - part) + values[1:, None] * part
    return float(np.sqrt((width * (u(points) - between) ** 2 / 8).sum()))


def _in_a_square(seed: int, broken: bool) -> dict[str, Any]:
    """A curved front, on a grid of nodes that transport moves."""
    rng = np.random.default_rng(seed)
    centre, radius, steep = rng.uniform(-0.2, 0.3, 2), rng.uniform(0.5, 0.8), rng.uniform(12, 25)

    def u(points: Floats) -> Floats:
        return np.asarray(np.tanh(steep * (np.linalg.norm(points - centre, axis=-1) - radius)))

    even = np.stack(np.meshgrid(*[np.linspace(0, 1, SIDE + 1)] * 2, indexing="ij"), axis=-1)
    fine = np.stack(np.meshgrid(*[(np.arange(FINE) + 0.5) / FINE] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    step = 0.5 / FINE
    moves = [step * np.array(move) for move in ((1, 0), (0, 1))]
    bend = sum(((u(fine + m) - 2 * u(fine) + u(fine - m)) / step**2) ** 2 for m in moves) ** 0.5
    slope = sum(((u(fine + m) - u(fine - m)) / (2 * step)) ** 2 for m in moves) ** 0.5
    # In the plane the error of a cell goes with |u''|^2 area^3, which is least where |u''|^(2/3) is equidistributed.
    ours = np.ones(len(fine)) if broken else _evened(bend ** (2 / 3))
    meshes = {"ours": _moved(even, fine, ours), "arc length": _moved(even, fine, _evened(np.sqrt(1 + slope**2)))}
    meshes["even"] = even
    masses = [_areas(meshes[way]) * _at(ours, meshes[way]) for way in ("ours", "even")]
    return {
        "error": {way: _square_error(u, mesh) for way, mesh in meshes.items()},
        "variation": [float(mass.std() / mass.mean()) for mass in masses],
        "least": float(_areas(meshes["ours"]).min() * SIDE**2),
    }


def _evened(monitor: Floats) -> Floats:
    """The monitor smoothed, and with an even part, so that no cell gets too large."""
    from scipy.ndimage import gaussian_filter

    density = gaussian_filter(monitor.reshape(FINE, FINE), SMOOTH, mode="nearest").ravel()
    density = density / density.mean()
    return np.asarray(EVEN + (1 - EVEN) * density)


def _moved(even: Floats, fine: Floats, density: Floats) -> Floats:
    """Where transport sends the nodes: the mean of the targets of each, edges kept on the edges."""
    sources = (even[:-1, :-1] + even[1:, 1:]).reshape(-1, 2) / 2
    cost = ((sources[:, None] - fine[None]) ** 2).sum(axis=2)
    rows, columns = np.full(len(sources), 1 / len(sources)), density / density.sum()
    plan = kofn.assign(scores=-cost, margins=(rows, columns), method="sinkhorn_newton_sparse", reg=REG)
    nodes = even.reshape(-1, 2)
    # A new item goes to the bins by its scores and the potentials alone, so that nodes need not be items of the plan.
    power = (-((nodes[:, None] - fine[None]) ** 2).sum(axis=2) - plan.v) / plan.info["reg"]
    share = np.exp(power - power.max(axis=1, keepdims=True))
    moved = ((share / share.sum(axis=1, keepdims=True)) @ fine).reshape(even.shape)
    moved[0, :, 0] = moved[:, 0, 1] = 0
    moved[-1, :, 0] = moved[:, -1, 1] = 1
    return np.asarray(moved)


def _corners(mesh: Floats) -> list[tuple[Floats, Floats, Floats]]:
    """Two triangles of each cell."""
    a, b, c, d = mesh[:-1, :-1], mesh[1:, :-1], mesh[:-1, 1:], mesh[1:, 1:]
    return [(a, b, c), (d, c, b)]


def _areas(mesh: Floats) -> Floats:
    """Signed area of each cell; the lesser of its triangles counts twice, so that none may be turned over."""
    halves = [((b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]) / 2 for a, b, c in _corners(mesh)]
    whole = halves[0] + halves[1]
    return np.asarray(np.where(np.minimum(*halves) > 0, whole, np.minimum(*halves)))


def _at(density: Floats, mesh: Floats) -> Floats:
    """The monitor in the middle of each cell."""
    middle = (mesh[:-1, :-1] + mesh[1:, :-1] + mesh[:-1, 1:] + mesh[1:, 1:]) / 4
    cell = np.clip((middle * FINE).astype(int), 0, FINE - 1)
    return np.asarray(density.reshape(FINE, FINE)[cell[..., 0], cell[..., 1]])


def _square_error(u: Callable[[Floats], Floats], mesh: Floats) -> float:
    """L2 error of linear interpolation on the triangles, by 36 points in each."""
    grid = (np.arange(8) + 1 / 3) / 8
    weights = [(p, q) for p in grid for q in grid if p + q < 1]
    total = 0.0
    for a, b, c in _corners(mesh):
        area = np.abs((b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]) / 2
        off = [(u(a + p * (b - a) + q * (c - a)) - (1 - p - q) * u(a) - p * u(b) - q * u(c)) ** 2 for p, q in weights]
        total += float((area * np.mean(off, axis=0)).sum())
    return float(np.sqrt(total))
