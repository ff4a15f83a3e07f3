"""Random drop and rescale: each change is kept with a probability and divided by it, then summed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.blockwise import Block, Rule
from kofn.combination._sweep.device import chosen, weighted_sum
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.merge import Files, merge
from kofn.combination.task_vectors._factors import base_of, checked_density, elect, factors, shares, sums_to_one
from kofn.core import checks
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


@method(
    "combine",
    draws=Draw(
        kinds={"members": "loose integers"},
        options={"density": (0.01, 0.2, 0.5, 0.9, 1.0)},
        states_no_value=True,
        silent=("blend",),
    ),
    cost="O(m d) time, each member read once, one random number for each of its entries; memory a few blocks",
    exact='unbiased: the mean over seeds is task arithmetic\'s blend (consensus "sum"); density 1 is task arithmetic',
    paper="yu2024",
)
def dare(
    members: Sequence[Any],
    *,
    base: Any,
    weights: Any = None,
    density: float = 0.5,
    normalize: bool = True,
    scale: float = 1.0,
    consensus: str = "sum",
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    device: str | None = None,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    seed: int | None = None,
) -> Blend:
    """Random drop and rescale: each change is kept with a probability and divided by it, then summed.

    Args:
        members: m fine-tuned checkpoints (paths, mappings or arrays), all of one base.
        base: what they were fine-tuned from.
        weights: (m,), uniform by default; see `normalize`.
        density: probability that an entry of a task vector is kept; kept entries are divided by it.
        normalize: False takes the weights as they are.
        scale: factor of the merged task vector.
        consensus: "sum" adds the task vectors, "ties" takes the mean of those that agree with the elected sign.
        out, only, skip, measure, skip_nonfinite, device, max_memory, n_threads, progress: as `task_arithmetic` has
            them.
        seed: decides which entries are dropped, whatever the blocks and the threads.

    Returns:
        Blend of form "none".

    Raises:
        InputError: no base, a density outside (0, 1], members that do not match, NaN.

    Time O(m d), memory a few blocks.

    >>> import numpy as np
    >>> base, member = np.zeros(1000), np.ones(1000)
    >>> blend = dare([member], base=base, density=0.25, seed=0)
    >>> sorted(set(blend.result.tolist())), bool(abs(blend.result.mean() - 1) < 0.2)
    ([0.0, 4.0], True)

    References:
        Yu et al. 2024, Language models are super mario: absorbing abilities from homologous models (ICML).
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members, base)
    rule = dare_rule(pool, weights, density, normalize, scale, consensus, seed)
    rule.device = chosen(device)
    return merge(pool, rule, files, weights=rule.weights, form="none")


def dare_rule(
    pool: Pool,
    weights: Any,
    density: float = 0.5,
    normalize: bool = True,
    scale: float = 1.0,
    consensus: str = "sum",
    seed: int | None = 0,
) -> Dare:
    """The checked rule."""
    by_sign = checks.choice(consensus, "consensus", ("sum", "ties")) == "ties"
    used = shares(weights, pool) if by_sign else factors(weights, pool, normalize, 1.0)
    return Dare(used, checked_density(density), checks.number(scale, "scale"), by_sign, checks.entropy(seed))


@dataclass
class Dare(Rule):
    """base + scale times the blend of task vectors whose entries are dropped at random and rescaled."""

    weights: NDArray[np.float64]
    density: float
    scale: float
    by_sign: bool
    seed: int

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        base, span = base_of(block), block.span
        limit = np.uint64(min(int(self.density * 2**64), 2**64 - 1))
        deltas = np.empty((len(block.rows), len(base)), base.dtype)
        for place, row in enumerate(block.rows):
            delta = np.subtract(row, base, out=deltas[place])
            if self.density < 1:
                stream = np.random.PCG64(_stream(self.seed, place, span.name))
                stream.advance(span.start)  # one draw an entry, so that blocks change nothing
                delta *= 1 / self.density
                np.multiply(delta, stream.random_raw(len(delta)) < limit, out=delta)
        if self.by_sign:
            elect(deltas, self.weights, total, spare, self.device)
        else:
            weighted_sum(list(deltas), self.weights.tolist(), total, spare, self.device)
        np.multiply(total, self.scale, out=total)
        np.add(total, base, out=total)
        return self.density == 1 and self.scale == 1 and (self.by_sign or sums_to_one(self.weights))


def _stream(seed: int, place: int, name: str) -> int:
    """A seed of its own for each tensor of each member."""
    digest = hashlib.blake2b(f"{seed} {place} {name}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")
