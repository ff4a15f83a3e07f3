"""DARE: randomly drop entries of the task vectors, rescale the rest by 1 / density, and add them to the base."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.weights import sum_to_one
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.combination.task_vectors._options import VOTES, check_density
from kofn.combination.task_vectors._sign_election import elect
from kofn.core import checks
from kofn.core.draws import Draw


@merge_rule(
    draws=Draw(
        kinds={"members": "loose integers"},
        options={"density": (0.01, 0.2, 0.5, 0.9, 1.0)},
    ),
    cost="O(m d) time, each member read once, one random number for each of its entries; memory a few blocks",
    exact='unbiased: the mean over seeds is task arithmetic\'s blend (consensus "sum"); density 1 is task arithmetic',
    paper="yu2024",
)
class Dare(Rule):
    """DARE: randomly drop entries of the task vectors, rescale the rest by 1 / density, and add them to the base.

    Args:
        weights: (m,), uniform by default; see `normalize`.
        density: probability that an entry of a task vector is kept; kept entries are divided by it.
        normalize: False takes the weights as they are.
        scale: factor of the merged task vector.
        consensus: "sum" adds the task vectors, "ties" takes the mean of those that agree with the elected sign.
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

    density: float = 0.5
    normalize: bool = True
    scale: float = 1.0
    consensus: Literal["sum", "ties"] = "sum"
    seed: int | None = None

    needs_base = True
    takes_device = True

    def __post_init__(self) -> None:
        self.density = check_density(self.density)
        self.scale = checks.number(self.scale, "scale")
        self.seed = checks.entropy(self.seed)
        self._by_sign = checks.choice(self.consensus, "consensus", ("sum", "ties")) == "ties"
        self.normalize = checks.flag(self.normalize, "normalize") or self._by_sign
        self.negative_weights = VOTES if self._by_sign else None

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        base, span = block.origin, block.span
        limit = np.uint64(min(int(self.density * 2**64), 2**64 - 1))
        deltas = np.empty((len(block.rows), len(base)), base.dtype)
        for member, row in enumerate(block.rows):
            delta = np.subtract(row, base, out=deltas[member])
            if self.density < 1:
                stream = entry_stream(self.seed, member, span.name, span.start)
                delta *= 1 / self.density
                np.multiply(delta, stream.random_raw(len(delta)) < limit, out=delta)
        if self._by_sign:
            elect(deltas, self.weights, total, spare, self.device)
        else:
            weighted_sum(list(deltas), self.weights.tolist(), total, spare, self.device)
        np.multiply(total, self.scale, out=total)
        np.add(total, base, out=total)
        return self.density == 1 and self.scale == 1 and (self._by_sign or sum_to_one(self.weights))


dare = Dare.method


def entry_stream(seed: int | None, member: int, name: str, start: int) -> np.random.PCG64:
    """The random stream of a tensor of a member, from the entry `start` on: one draw an entry, whatever the blocks."""
    digest = hashlib.blake2b(f"{seed} {member} {name}".encode(), digest_size=16).digest()
    stream = np.random.PCG64(int.from_bytes(digest, "little"))
    stream.advance(start)
    return stream
