"""Members as what they add to a common base: sums, sign consensus, random drops, competition."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.combination import _device
from kofn.combination import _quantiles as quantiles
from kofn.combination._blockwise import Block, Rule
from kofn.combination._device import chosen, weighted_sum
from kofn.combination._members import Pool
from kofn.combination._merge import Files, merge, relative_weights
from kofn.combination.averaging import Mean
from kofn.plans import Blend
from kofn.registry import method

_COMPILED = 1 << 14  # entries from which a compiled loop pays


@method(
    "combine",
    cost="O(m d) time, each member read once; memory a few blocks",
    exact="base + scale sum_i w_i (x_i - base), rounded once; where the factors sum to one, copies give the copy",
    paper="Ilharco et al. 2023, Editing models with task arithmetic (ICLR)",
)
def task_arithmetic(
    members: Sequence[Any],
    *,
    base: Any,
    weights: Any = None,
    normalize: bool = True,
    scale: float = 1.0,
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    device: str | None = None,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """The base plus a weighted sum of what each member adds to it.

    Args:
        members: m fine-tuned checkpoints (paths, mappings or arrays), all of one base.
        base: what they were fine-tuned from, of the same names, shapes and dtypes.
        weights: (m,), uniform by default, may be negative (a task is then forgotten).
        normalize: False takes the weights as they are: [1, 1] adds both task vectors in full.
        scale: factor of the sum.
        out, only, skip, measure, skip_nonfinite, device, max_memory, n_threads, progress: as `weighted_mean` has
            them; what `only` and `skip` leave out is copied from the base.

    Returns:
        Blend; `weights` are the factors of the task vectors (scale included); where
        they sum to one the base cancels and `form` is "simplex" or "affine", else it is "none".

    Raises:
        InputError: no base, members or a base that do not match, NaN or infinities. FailureError: a damaged file.

    Time O(m d), memory a few blocks.

    >>> import numpy as np
    >>> base, a, b = np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 4.0])
    >>> task_arithmetic([a, b], base=base, weights=[1, 0.5], normalize=False).result
    array([1., 2.])

    References:
        Ilharco et al. 2023, Editing models with task arithmetic (ICLR).
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members, base)
    used = _factors(weights, pool, normalize, scale)
    rule, form = sum_of_task_vectors(used)
    rule.device = chosen(device)
    return merge(pool, rule, files, weights=used, form=form, objective=form != "none")


def arithmetic_rule(pool: Pool, weights: Any, normalize: bool = True, scale: float = 1.0) -> Rule:
    """The checked rule."""
    return sum_of_task_vectors(_factors(weights, pool, normalize, scale))[0]


def sum_of_task_vectors(factors: NDArray[np.float64]) -> tuple[Rule, str]:
    """The rule that adds the task vectors times their factors to the base, and the form of the blend it makes."""
    if _sums_to_one(factors):
        # The base cancels: what is left is a mean of the members, which need not go through it.
        form = "simplex" if (factors >= 0).all() else "affine"
        return Mean(factors, form), form
    return TaskArithmetic(factors, 1 - math.fsum(factors.tolist())), "none"


@dataclass
class TaskArithmetic(Rule):
    """sum_i w_i x_i + (1 - sum_i w_i) base, which is base + sum_i w_i (x_i - base) with one rounding less."""

    weights: NDArray[np.float64]
    rest: float

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        factors = [self.rest, *self.weights.tolist()]
        weighted_sum([_base(block), *block.rows], factors, total, spare, self.device)
        return False


@method(
    "combine",
    cost="O(m d) time, each member read three times; memory a few blocks and 64k counters a member, nothing is sorted",
    exact="keeps exactly the ceil(density d) largest entries of each task vector, and those that tie with the last",
    paper="Yadav et al. 2023, TIES-merging: resolving interference when merging models (NeurIPS)",
)
def ties(
    members: Sequence[Any],
    *,
    base: Any,
    weights: Any = None,
    density: float = 0.2,
    scale: float = 1.0,
    scope: str = "tensor",
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    device: str | None = None,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """Sign consensus: trim small changes, elect each entry's sign, average the members that have it.

    Args:
        members: m fine-tuned checkpoints (paths, mappings or arrays), all of one base.
        base: what they were fine-tuned from.
        weights: (m,) >= 0, relative; uniform by default. They weigh both the vote on the sign and the mean.
        density: share of each task vector's entries that is kept, the largest in magnitude; 1 trims nothing.
        scale: factor of the merged task vector.
        scope: "tensor" trims each tensor to the density, "model" the whole task vector (as the paper does).
        out, only, skip, measure, skip_nonfinite, device, max_memory, n_threads, progress: as `task_arithmetic` has
            them.

    Returns:
        Blend of form "none".

    Raises:
        InputError: no base, weights below zero, a density outside (0, 1], members that do not match, NaN.

    Time O(m d), each member read three times; memory a few blocks.
    The threshold is an order statistic found with two histograms of the magnitudes' bits, exact for float32 magnitudes.
    At density 1 and scale 1, copies give the copy bit for bit.

    >>> import numpy as np
    >>> base = np.zeros(3)
    >>> ties([np.array([3.0, 1.0, -2.0]), np.array([2.0, -0.1, 4.0])], base=base, density=2 / 3).result
    array([2.5, 0. , 4. ])

    References:
        Yadav et al. 2023, TIES-merging: resolving interference when merging models (NeurIPS).
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members, base)
    rule = ties_rule(pool, weights, density, scale, scope)
    rule.device = chosen(device)
    return merge(pool, rule, files, weights=rule.weights, form="none")


def ties_rule(pool: Pool, weights: Any, density: float = 0.2, scale: float = 1.0, scope: str = "tensor") -> Ties:
    """The checked rule."""
    return Ties(_shares(weights, pool), _density(density), checks.number(scale, "scale"), _scope(scope))


@dataclass
class Ties(Rule):
    """base + scale times the mean of the task vectors that agree with the elected sign, after trimming."""

    weights: NDArray[np.float64]
    density: float
    scale: float
    whole: bool

    def __post_init__(self) -> None:
        self.stages = 2 if self.density < 1 else 0

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        base = _base(block)
        counts = []
        for place, row in enumerate(block.rows):
            found = quantiles.magnitude_keys(row - base)
            counts.append(quantiles.coarse(found) if stage == 0 else quantiles.fine(found, block.state[place][0]))
        return counts if part is None else [a + b for a, b in zip(part, counts, strict=True)]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        counts = _added(parts)
        if stage == 0:
            size = int(counts[0].sum())
            return [quantiles.locate(count, size - math.ceil(self.density * size)) for count in counts]
        lower = [quantiles.locate(count, rank)[0] for count, (_, rank) in zip(counts, state, strict=True)]
        return [
            quantiles.value_of((upper << 16) | low, magnitudes=True)
            for (upper, _), low in zip(state, lower, strict=True)
        ]

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        base = _base(block)
        deltas = np.empty((len(block.rows), len(base)), base.dtype)
        for place, row in enumerate(block.rows):
            delta = np.subtract(row, base, out=deltas[place])
            if self.stages:
                size = np.abs(delta.astype(np.float32, copy=False))
                np.multiply(delta, size >= block.state[place], out=delta)
        elect(deltas, self.weights, total, spare, self.device)
        np.multiply(total, self.scale, out=total)
        np.add(total, base, out=total)
        return not self.stages and self.scale == 1


def elect(
    deltas: NDArray[Any],
    weights: NDArray[np.float64],
    total: NDArray[Any],
    heard: NDArray[Any],
    device: Any = None,
) -> None:
    """Writes to `total` the weighted mean of the entries that have the sign of the weighted sum; `heard` is scratch."""
    if device is not None:
        _device.elect(deltas, weights, total, device)
        return
    used = weights.astype(deltas.dtype)
    sign = np.empty_like(total)
    if deltas.shape[1] >= _COMPILED:
        from kofn.combination import _kernels

        _kernels.elect(deltas, used, sign, total, heard)
        return
    for array in (sign, total, heard):
        array.fill(0)
    for delta, weight in zip(deltas, used, strict=True):
        sign += weight * delta
    for delta, weight in zip(deltas, used, strict=True):
        agrees = ((sign > 0) & (delta > 0)) | ((sign < 0) & (delta < 0))
        total += np.where(agrees, weight * delta, 0)
        heard += np.where(agrees, weight, 0)
    np.divide(total, heard, out=total, where=heard > 0)


@method(
    "combine",
    cost="O(m d) time, each member read once, one random number for each of its entries; memory a few blocks",
    exact='unbiased: the mean over seeds is task arithmetic\'s blend (consensus "sum"); density 1 is task arithmetic',
    paper="Yu et al. 2024, Language models are super mario: absorbing abilities from homologous models (ICML)",
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
    used = _shares(weights, pool) if by_sign else _factors(weights, pool, normalize, 1.0)
    return Dare(used, _density(density), checks.number(scale, "scale"), by_sign, checks.entropy(seed))


@dataclass
class Dare(Rule):
    """base + scale times the blend of task vectors whose entries are dropped at random and rescaled."""

    weights: NDArray[np.float64]
    density: float
    scale: float
    by_sign: bool
    seed: int

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        base, span = _base(block), block.span
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
        return self.density == 1 and self.scale == 1 and (self.by_sign or _sums_to_one(self.weights))


@method(
    "combine",
    cost="O(m d) time, each member read five times; memory a few blocks and 64k counters a member, nothing is sorted",
    exact="the order statistics are exact for float32 scores; one member gives its own largest entries",
    paper="Du et al. 2024, Parameter competition balancing for model merging (NeurIPS)",
)
def pcb_merging(
    members: Sequence[Any],
    *,
    base: Any,
    weights: Any = None,
    density: float = 0.1,
    scale: float = 1.0,
    scope: str = "model",
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """Parameter competition balancing: entries count by their size within a task and their agreement across tasks.

    With task vectors t_i, their magnitudes clipped to the 0.01% and 99.99% quantiles and scaled to [0, 1] as a_i, an
    entry's score is exp(m a_i^2) tanh(t_i sum_j t_j). Scores below the (1 - density) quantile count nothing, the others
    are scaled to [0, 1] as s_i; the merged vector is sum_i s_i t_i / sum_i s_i (with t_i clipped).

    Args:
        members: m fine-tuned checkpoints (paths, mappings or arrays), all of one base.
        base: what they were fine-tuned from.
        weights: (m,) >= 0, relative; each task vector is multiplied by m times its share (the paper's lambda_i).
        density: share of entries, by score, that count (the paper's r).
        scale: factor of the merged task vector.
        scope: "model" ranks the entries of a whole task vector (as the paper does), "tensor" those of each tensor.
        out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress: as `task_arithmetic` has them.

    Returns:
        Blend of form "none".

    Raises:
        InputError: no base, weights below zero, a density outside (0, 1], members that do not match, NaN.

    Time O(m d), each member read five times; memory a few blocks.

    >>> import numpy as np
    >>> base = np.zeros(4)
    >>> blend = pcb_merging([np.array([9.0, 1, 0, 0]), np.array([8.0, -2, 0, 0])], base=base, density=0.5)
    >>> blend.result.round(2).tolist()
    [8.5, 0.0, 0.0, 0.0]

    References:
        Du et al. 2024, Parameter competition balancing for model merging (NeurIPS), and the authors' code.
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members, base)
    rule = pcb_rule(pool, weights, density, scale, scope)
    return merge(pool, rule, files, weights=rule.weights, form="none")


def pcb_rule(pool: Pool, weights: Any, density: float = 0.1, scale: float = 1.0, scope: str = "model") -> Competition:
    """The checked rule."""
    return Competition(_shares(weights, pool), _density(density), checks.number(scale, "scale"), _scope(scope))


_OUTLIERS = 1e-4


@dataclass
class Competition(Rule):
    """base + scale sum_i s_i t_i / sum_i s_i: sweeps find the clips of the magnitudes, then the clips of the scores."""

    weights: NDArray[np.float64]
    density: float
    scale: float
    whole: bool

    stages = 4

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        deltas = _deltas(block)
        if stage < 2:
            found = [quantiles.magnitude_keys(delta) for delta in deltas]
        else:
            found = [quantiles.keys(score) for score in self._scores(deltas, block.state["clips"])]
        if stage % 2 == 0:
            counts = [quantiles.coarse(key) for key in found]
        else:
            places = block.state["places"]
            counts = [
                np.array([quantiles.fine(key, upper) for upper, _ in ranks])
                for key, ranks in zip(found, places, strict=True)
            ]
        return counts if part is None else [a + b for a, b in zip(part, counts, strict=True)]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        counts = _added(parts)
        if stage % 2 == 0:
            size = int(counts[0].sum())
            low, high = int(size * _OUTLIERS), size - 1 - int(size * _OUTLIERS)
            if stage == 2:
                low, high = min(int(size * (1 - self.density)), size - 1), size - 1
            places = [[quantiles.locate(count, rank) for rank in (low, max(low, high))] for count in counts]
            return {**(state or {}), "places": places}
        found = [
            [
                float(quantiles.value_of((upper << 16) | quantiles.locate(row, rank)[0], magnitudes=stage == 1))
                for row, (upper, rank) in zip(count, ranks, strict=True)
            ]
            for count, ranks in zip(counts, state["places"], strict=True)
        ]
        return {**state, "clips" if stage == 1 else "limits": found}

    def _scores(self, deltas: list[NDArray[Any]], clips: list[list[float]]) -> Iterable[NDArray[Any]]:
        together = np.sum(deltas, axis=0)
        for delta, (low, high) in zip(deltas, clips, strict=True):
            size = _unit(np.clip(np.abs(delta), low, high), low, high)
            yield np.exp(len(deltas) * size * size) * np.tanh(delta * together)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        deltas, clips = _deltas(block), block.state["clips"]
        total.fill(0)
        heard = np.zeros_like(total)
        for delta, score, clip, limits, weight in zip(
            deltas, self._scores(deltas, clips), clips, block.state["limits"], self.weights.tolist(), strict=True
        ):
            # The limits are float32's: an entry that ties with one is not to fall below it.
            share = _unit(np.maximum(score.astype(np.float32), np.float32(limits[0])), *limits)
            np.multiply(np.sign(delta), np.clip(np.abs(delta), *clip), out=spare)
            np.multiply(spare, share * (weight * len(deltas)), out=spare)
            np.add(total, spare, out=total)
            np.add(heard, share, out=heard)
        np.divide(total, np.maximum(heard, 1e-12), out=total)
        np.multiply(total, self.scale, out=total)
        np.add(total, _base(block), out=total)
        return False


def _unit(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """The values between `low` and `high` on a scale from 0 to 1; 1 where the two are one."""
    return np.ones_like(values) if high <= low else (values - low) / (high - low)


def _base(block: Block) -> NDArray[Any]:
    assert block.base is not None
    return block.base


def _deltas(block: Block) -> list[NDArray[Any]]:
    base = _base(block)
    return [row - base for row in block.rows]


def _added(parts: Iterable[Any]) -> list[NDArray[np.int64]]:
    total: list[NDArray[np.int64]] = []
    for counts in parts:
        total = list(counts) if not total else [a + b for a, b in zip(total, counts, strict=True)]
    return total


def _factors(weights: Any, pool: Pool, normalize: bool, scale: float) -> NDArray[np.float64]:
    used, _, _ = relative_weights(weights, len(pool.members), checks.flag(normalize, "normalize"))
    return used * checks.number(scale, "scale")


def _shares(weights: Any, pool: Pool) -> NDArray[np.float64]:
    used, _, _ = relative_weights(weights, len(pool.members))
    if (used < 0).any():
        raise InputError(f"weights of member {int(used.argmin())} is below zero; a vote cannot count less than nothing")
    return used


def _density(density: float) -> float:
    value = checks.fraction(density, "density")
    if value == 0:
        raise InputError("density=0 keeps nothing of the members; give a share above 0")
    return value


def _scope(scope: str) -> bool:
    return checks.choice(scope, "scope", ("tensor", "model")) == "model"


def _sums_to_one(weights: NDArray[np.float64]) -> bool:
    total = math.fsum(weights.tolist())
    return bool(abs(total - 1) <= 4 * len(weights) * np.finfo(np.float64).eps * np.abs(weights).sum())


def _stream(seed: int, place: int, name: str) -> int:
    """A seed of its own for each tensor of each member."""
    digest = hashlib.blake2b(f"{seed} {place} {name}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")
