"""PLeaS: partial merging of two networks; matched units are merged, the others are kept side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import open_members
from kofn.combination._sweep.merge import check_out
from kofn.combination.alignment._architectures import Graph, graph_of
from kofn.combination.alignment._matching import match as match_by_weights
from kofn.combination.alignment._matching import solve
from kofn.combination.alignment._units import floats, named, shapes_of, whole
from kofn.combination.partial._linear_chain import ACTIVATIONS, calibration, chain_features, linear_chain
from kofn.combination.partial._pleas_fit import Split, count_weights, least_squares, spend, spend_evenly
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.io.tensor_writer import write_arrays


@method(
    "combine",
    traits=("aligned",),
    draws=Draw(
        kinds={"members": "networks"},
        plain={"inputs": [[0.0, 1.0], [0.5, 1.0], [4.0, 2.0], [4.5, 2.5], [9.0, 0.0], [8.0, 0.5]]},
        members=2,
        states_no_value=True,
        silent=("blend",),
    ),
    cost="O(n width^2 + width^3) a layer for n calibration inputs; memory the features of both networks",
    exact="each layer's weights at the least squares; both networks' features exactly at size 2",
    paper=274,
)
def pleas(
    members: Sequence[Any],
    *,
    inputs: Any,
    size: float = 1.0,
    fractions: Any = "auto",
    match: str = "activations",
    features: str = "members",
    activation: str = "relu",
    ridge: float = 1e-3,
    architecture: Any = "auto",
    out: str | os.PathLike[str] | None = None,
) -> Blend:
    """PLeaS: merge two MLPs partially; matched units are merged, the others kept side by side, up to a given size.

    Units of each layer are paired by an assignment. Pairs of the largest difference per weight stay separate until
    `size` is reached; the remaining pairs are merged. Then every layer's weights are fitted by least squares to the
    members' activations on the calibration inputs: their average for merged units and the output, their own for
    separate units.

    Args:
        members: two mappings name -> array, or paths: MLPs of one architecture, from any starts.
        inputs: (n, d) calibration inputs; more than the width of the layers, of both networks' kinds. No labels.
        size: weights of the result over those of one member, 1 to 2. Separate units do not read the other network's
            separate units, and those zeros do not count, though they are stored (`info["stored"]`).
        fractions: "auto" as above; "even", the same share of every layer; or {group: share of its units to merge}.
        match: pair units by "activations" (before the nonlinearity) or by "weights", as `weight_matching` does.
        features: the inputs of the least squares: the "members"' own features, as the paper does, or those of the
            network "merged" so far, whose errors later layers then correct.
        activation: "relu", "gelu", "tanh" or "linear", between the layers.
        ridge: penalty on deviating from the permuted average, relative to the features' mean square.
        architecture: as for `weight_matching`; a plain chain of linear layers.
        out: a `*.safetensors` file to write the result into.

    Returns:
        A Blend of form "none": `result` maps name -> array, of wider shapes; each layer's units are those merged, then
        those of the first, then of the second. `transforms` {group: (2, width)}: pairs of units, those merged first.
        `info`: `merged` pairs by group, `size`, `stored` (numbers over those of one member), `errors_before` and
        `errors` (each layer's relative squared error for the permuted average and at the least squares).

    Raises:
        InputError: not two members, no plain MLP, a size out of 1..2, inputs that do not fit.

    Cost: a forward pass of both networks over the inputs, one assignment and up to three solves of the merged width a
    layer: O(n width^2 + width^3) time, both networks' features in float64. The paper picks the shares by a quadratic
    program over measured accuracies, which need labels; "auto" goes by the relative distance of paired features, one
    pair at a time.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a, b = ({"0.weight": rng.normal(size=(6, 3)), "2.weight": rng.normal(size=(2, 6))} for _ in range(2))
    >>> X = rng.normal(size=(50, 3))
    >>> both = pleas([a, b], inputs=X, size=2.0).result
    >>> one, two, merged = (np.maximum(X @ n["0.weight"].T, 0) @ n["2.weight"].T for n in (a, b, both))
    >>> both["0.weight"].shape, bool(np.allclose(merged, (one + two) / 2))
    ((12, 3), True)

    References:
        Nasery, Hayase, Koh & Oh 2025, PLeaS: merging models with permutations and least squares (CVPR).
    """
    if len(members) != 2:
        raise InputError(f"pleas merges two members, not {len(members)}; merge the result with the next")
    if not checks.is_number(size) or not 1 <= size <= 2:
        raise InputError(f"size={size!r}: give the weights of the result over those of one member, 1 to 2")
    if not checks.is_number(ridge) or not 0 <= ridge < math.inf:
        raise InputError(f"ridge={ridge!r}: give a number >= 0")
    match = checks.choice(match, "match", ("activations", "weights"))
    features = checks.choice(features, "features", ("members", "merged"))
    activation = checks.choice(activation, "activation", ACTIVATIONS)
    pool = named(open_members(members), "pleas")
    graph = graph_of(shapes_of(pool.first), architecture)
    chain = linear_chain(graph, "pleas")
    states = [floats(member, pool.first, label) for member, label in zip(pool.members, pool.labels, strict=True)]
    X = calibration(inputs, states[0][chain[0].weight].shape[1])
    seen = [chain_features(state, chain, X, activation)[1] for state in states]

    pairs, gaps = _pairs(states, graph, seen, match)
    widths = [X.shape[1], *(len(gap) for gap in gaps), states[0][chain[-1].weight].shape[0]]
    biases = [layer.bias is not None for layer in chain]
    plain = count_weights(widths, [0] * len(widths), biases)
    apart = _apart(fractions, graph, gaps, widths, biases, math.floor(size * plain + 1e-6))
    splits = {group.name: Split(pairs[i], widths[i + 1] - apart[i + 1]) for i, group in enumerate(graph.groups)}
    fit = least_squares(states, chain, splits, X, activation, float(ridge), features)
    result = {
        name: fit.tensors[name].astype(whole(pool.first, name).dtype)
        if name in fit.tensors
        else whole(pool.first, name)
        for name in pool.first
    }
    stored = sum(array.size for array in fit.tensors.values())
    if out is not None:
        check_out(out, pool)
        write_arrays(out, result)
    return Blend(
        n=2,
        value=float("nan"),
        sense="min",
        status="heuristic",
        result=result,
        form="none",
        transforms={name: split.pairs for name, split in splits.items()},
        info={
            "architecture": graph.name,
            "merged": {name: split.merged for name, split in splits.items()},
            "size": count_weights(widths, apart, biases) / plain,
            "stored": stored / plain,
            "errors_before": fit.before,
            "errors": fit.after,
        },
    )


def _pairs(
    states: Sequence[Mapping[str, Array]], graph: Graph, seen: Sequence[Sequence[Array]], match: str
) -> tuple[list[NDArray[np.int64]], list[Array]]:
    """For each group, pairs of units in order of similarity, and their distances in decreasing order."""
    orders = match_by_weights(states[0], states[1], graph, "layers", 100).orders if match == "weights" else {}
    pairs, gaps = [], []
    for i, group in enumerate(graph.groups):
        a, b = seen[0][i], seen[1][i]
        order = orders[group.name] if match == "weights" else solve(a.T @ b, None, group)[0]
        far = np.square(a - b[:, order]).sum(axis=0)
        far /= max(float(np.square(a - a.mean(axis=0)).sum() + np.square(b - b.mean(axis=0)).sum()) / 2, 1e-300)
        by_gap = np.argsort(far, kind="stable")
        pairs.append(np.array([by_gap, order[by_gap]], np.int64))
        gaps.append(far[by_gap][::-1])
    return pairs, gaps


def _apart(
    fractions: Any, graph: Graph, gaps: Sequence[Array], widths: Sequence[int], biases: Sequence[bool], limit: int
) -> list[int]:
    """Number of separate pairs at each layer boundary: 0 at the input and the output."""
    if isinstance(fractions, Mapping):
        names = [group.name for group in graph.groups]
        odd = next((name for name in fractions if name not in names), None)
        if odd is not None or set(names) - set(fractions):
            given = checks.shown(fractions)
            raise InputError(f"fractions={given}: give the share of units to merge for each of {names}")
        merged = [checks.fraction(fractions[name], f"fractions[{name!r}]") for name in names]
        return [0, *(w - math.floor(s * w + 0.5) for s, w in zip(merged, widths[1:-1], strict=True)), 0]
    shares = checks.choice(fractions, "fractions", ("auto", "even"))
    return spend(gaps, widths, biases, limit) if shares == "auto" else spend_evenly(widths, biases, limit)
