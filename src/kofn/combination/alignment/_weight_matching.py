"""Weight matching (Git Re-Basin): average networks after permuting their hidden units into a common order."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import open_members
from kofn.combination.alignment._aligned_mean import State, as_tensors, mean_of
from kofn.combination.alignment._architectures import configuration, graph_of
from kofn.combination.alignment._matching import Match, identity, match
from kofn.combination.alignment._units import (
    Orders,
    distance,
    floats,
    named,
    place_of,
    rearranged,
    shapes_of,
    whole,
)
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.core.words import Progress


@method(
    "combine",
    traits=("aligned", "sandwich"),
    draws=Draw(kinds={"members": "networks"}),
    cost="O(m sum of width x weights) a sweep and one linear assignment a group; memory the members, in float32",
    exact="each group's best order given the others; of all where no tensor holds two; a permuted copy bit for bit",
    paper=("ainsworth2023", 109, 192),
    local="no better order of one group of units, given those of the others",
    aliases=("git re-basin", "recurrent policies", "FLEET-MERGE"),
)
def weight_matching(
    members: Sequence[Any],
    *,
    weights: Any = None,
    architecture: Any = "auto",
    heads: Any = None,
    reference: int = 0,
    initial: str = "layers",
    max_sweeps: int = 100,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> Blend:
    """Weight matching (Git Re-Basin): average networks after permuting their hidden units into a common order.

    Permuting a layer's units together with the weights that read them does not change a network's function, so two
    trained networks rarely share an order and their plain average is mostly useless. Each group of units is matched to
    the reference's by a linear assignment over all its weights, given the permutations of the other groups, in
    alternation until none changes; then the members are averaged. The states of a recurrent layer (RNN, GRU, LSTM) have
    one permutation on both sides of the recurrent weight and in every gate, which is found by a relaxation.

    Args:
        members: m mappings name -> array (NumPy or torch), or paths of `*.safetensors` files or folders, of one
            architecture.
        weights: (m,) relative weights of the average, uniform by default.
        architecture: the groups of units. "auto" reads plain chains of linear, convolutional and norm layers
            ("mlp", "cnn") and of recurrent ones by torch's names ("rnn": `weight_ih_l0` and so on) from the shapes, in
            the order of the mapping (or of a few linear and recurrent layers in the only order that their shapes
            allow), and knows "llama", "gpt2" and "nanogpt" blocks by their names. Everything else is declared:
            `{group: [(tensor, axis), ...]}`, where `*` in a tensor's name is any text and `{}` the same text in the
            group's name and in the tensor's. In an entry `(tensor, axis, s)` the axis repeats the units s times (as
            gates do); a group may index two axes of a tensor, as recurrent states do; `{"axes": [...], "units": u}`
            declares a group of u units of several entries each. Tensors that no group names stay in place.
        heads: attention heads, or (query heads, key/value heads), which move whole, and query heads among those that
            share a key; read from `config.json` beside a checkpoint. Without, heads stay in place (`info["left"]`).
        reference: the member whose order of units the result has.
        initial: "layers" initialises each group from the groups before it, independently of the order in which a member
            lists its units; "identity" starts from the given order, as the paper does.
        max_sweeps: most sweeps over the groups.
        out: a `*.safetensors` file or a folder to write the result into.
        progress: True shows how far the work is; a callable is told each step.

    Returns:
        A Blend. `transforms` {group: (m, width)}: the order in which each member's units stand in the result, so that
        `weight[order]` is the aligned tensor; `weights`, `form` and `spread` as those of the mean of the aligned
        members; `value` is the summed squared distance of the aligned members to the reference, "optimal" where no
        tensor holds two groups, else a local optimum, or "heuristic" where a group indexes both sides of a tensor: its
        order is no worse than the one before it. `info`: `sweeps` and `converged` by member, `assignments`,
        `distance_before` and `distance_after` (L2 to the reference), `left` groups that were not moved.

    Raises:
        InputError: members that do not match, an architecture that is not known, plain arrays, NaN, integers among the
            tensors to match, distances whose squares are beyond floats.

    Cost: a sweep takes a matrix product for each tensor and group on it and an assignment a group, O(width^3) at worst;
    groups whose neighbours have not changed are skipped. Ties between equal units are broken arbitrarily.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> a = {"0.weight": rng.normal(size=(5, 3)), "0.bias": rng.normal(size=5), "2.weight": rng.normal(size=(2, 5))}
    >>> turn = rng.permutation(5)
    >>> b = {"0.weight": a["0.weight"][turn], "0.bias": a["0.bias"][turn], "2.weight": a["2.weight"][:, turn]}
    >>> blend = weight_matching([a, b])
    >>> all(np.array_equal(blend.result[name], a[name]) for name in a)
    True
    >>> bool((turn[blend.transforms["0"][1]] == np.arange(5)).all())
    True

    References:
        Ainsworth, Hayase & Srinivasa 2023, Git Re-Basin: merging models modulo permutation symmetries (ICLR).
        Wang et al. 2024, Robot fleet learning via policy merging (ICLR).
        Ito, Yamada & Kumagai 2025, Analysis of linear mode connectivity via permutation-based weight matching (ICLR).
    """
    initial = checks.choice(initial, "initial", ("layers", "identity"))
    most = checks.count(max_sweeps, "max_sweeps")
    pool = named(open_members(members), "weight_matching")
    first = place_of(reference, len(pool.members))
    graph = graph_of(shapes_of(pool.members[first]), architecture, heads, configuration(members[first]))
    names = [name for name in pool.first if name in graph.on]
    ours = floats(pool.members[first], names, pool.labels[first])
    fixed = [name for name, tensor in pool.first.items() if name not in graph.on and tensor.dtype.kind not in "iubc"]

    plans: list[Orders] = []
    aligned: list[Mapping[str, Any]] = []
    before, after, sweeps, converged = [], [], [], []
    assignments = 0
    for position, member in enumerate(pool.members):
        if position == first:
            fit = Match(identity(graph))
            aligned.append(member)
            before.append(0.0)
            after.append(0.0)
        else:
            theirs = floats(member, names, pool.labels[position])
            fit = match(ours, theirs, graph, initial, most)
            apart = distance(
                floats(pool.members[first], fixed, pool.labels[first]),
                floats(member, fixed, pool.labels[position]),
                fixed,
            )
            before.append(math.hypot(distance(ours, theirs, names), apart))
            theirs = rearranged(theirs, graph, fit.orders, graph)
            after.append(math.hypot(distance(ours, theirs, names), apart))
            aligned.append(
                as_tensors({n: theirs.get(n) if n in theirs else whole(member, n) for n in member}, pool.first)
            )
        plans.append(fit.orders)
        sweeps.append(fit.sweeps)
        converged.append(fit.converged)
        assignments += fit.assignments
    value = _value_of(after)
    exact = graph.separable
    return mean_of(
        pool,
        aligned,
        first,
        weights,
        SweepOptions(out=out, progress=progress),
        transforms={group.name: np.array([plan[group.name] for plan in plans]) for group in graph.groups},
        value=value,
        bound=value if exact else None,
        status="optimal" if exact else "local" if all(converged) and not graph.tied else "heuristic",
        objective="matched_distance",
        info={
            "sum_of": "ordered_networks",
            "architecture": graph.name,
            "sweeps": sweeps,
            "converged": converged,
            "assignments": assignments,
            "distance_before": before,
            "distance_after": after,
            "left": list(graph.left),
        },
    )


def _value_of(distances: Sequence[float]) -> float:
    """The sum of the squared distances."""
    value = math.fsum(gap * gap for gap in distances if gap < math.inf)
    largest = max(distances)
    if not math.isfinite(value) or largest == math.inf:
        raise InputError(
            f"member {checks.item_key(distances.index(largest))} is at distance {largest:.3g} from the reference, "
            "whose square is beyond floats; scale the members down"
        )
    return value


@helper
def permute(
    state: State, transforms: Mapping[str, Any], *, architecture: Any = "auto", heads: Any = None
) -> dict[str, Any]:
    """Permute the units of a network's groups; the function is unchanged up to the order of sums.

    Args:
        state: name -> array.
        transforms: {group: permutation}; other groups stay unchanged.
        architecture: as for `weight_matching`.
        heads: as for `weight_matching`.

    >>> import numpy as np
    >>> a = {"0.weight": np.array([[1.0], [2.0]]), "2.weight": np.array([[3.0, 4.0]])}
    >>> permute(a, {"0": [1, 0]})
    {'0.weight': array([[2.],
           [1.]]), '2.weight': array([[4., 3.]])}
    """
    pool = named(open_members([state]), "permute")
    graph = graph_of(shapes_of(pool.first), architecture, heads)
    orders = dict(identity(graph))
    for name, order in transforms.items():
        if name not in orders:
            raise InputError(
                f"transforms names group {name!r}{checks.nearest(str(name), orders)}; groups: {list(orders)}"
            )
        array = np.asarray(order)
        if array.dtype.kind not in "iu" or sorted(array.tolist()) != list(range(len(orders[name]))):
            raise InputError(f"transforms[{name!r}] is no order of {len(orders[name])} units")
        inner = next(group.inner for group in graph.groups if group.name == name)
        blocks = array.reshape(-1, inner) // inner
        if (blocks != blocks[:, :1]).any():
            raise InputError(f"transforms[{name!r}] parts heads that share a key; they move together")
        orders[name] = array.astype(np.int64)
    return rearranged(pool.first, graph, orders, graph)
