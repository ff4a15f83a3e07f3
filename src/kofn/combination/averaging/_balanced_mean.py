"""Balanced averaging: networks as sure of themselves as one another, averaged in weight space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.files import patterns
from kofn.combination._sweep.members import Pool
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError, shown
from kofn.core.draws import Draw
from kofn.core.helpers import helper

__all__ = ["balanced_mean", "balancing_temperatures"]

# Temperatures are searched between these powers of e.
_REACH = 12.0


@merge_rule(
    draws=Draw(long=("temperatures",)),
    cost="O(m d) time, each member read once; memory a few blocks",
    exact="each member's head over its temperature, which divides its logits by it, then the weighted mean",
    paper=218,
    aliases=("BANG", "balanced averaging", "weight-space ensemble"),
)
class BalancedMean(Rule):
    """Weighted mean of networks whose heads are first divided by temperatures, so that none outvotes the others.

    A fine-tuned network that is too sure of itself where the data have shifted decides alone what its average with the
    network that it came from says. Dividing the tensors of its last layer by a temperature divides its logits by it and
    changes nothing else. `balancing_temperatures` finds temperatures.

    Args:
        temperatures: (m,) numbers > 0, one a member; 1 leaves a member as it is, and by default all are left.
        head: pattern, or several, of the tensors of the last layer, weight and bias: what the logits are linear in.
            Needed with temperatures.
        weights: (m,) relative weights, uniform by default: of two members [1 - a, a] is WiSE-FT between them.

    Returns:
        Blend of form "none"; outside the head it is the weighted mean.

    Raises:
        InputError: temperatures that are not positive, too few or without a head, a head that names no floating tensor;
            as `weighted_mean`.

    Time O(m d), each member read once; memory a few blocks.

    >>> import numpy as np
    >>> before = {"body": np.array([1.0]), "head": np.array([1.0])}
    >>> after = {"body": np.array([3.0]), "head": np.array([8.0])}
    >>> blend = balanced_mean([before, after], temperatures=[1, 4], head="head")
    >>> {name: float(array[0]) for name, array in blend.result.items()}
    {'body': 2.0, 'head': 1.5}

    References:
        Lin et al. 2024, Spurious feature diversification improves out-of-distribution generalization (ICLR).
        Wortsman et al. 2022, Robust fine-tuning of zero-shot models (CVPR).
    """

    temperatures: Sequence[Any] | None = field(default=None, repr=False)
    head: Any = None

    def __post_init__(self) -> None:
        self._patterns = patterns(self.head, "head")
        self._scales = None if self.temperatures is None else 1 / _positive(self.temperatures)
        if self._scales is not None and self._patterns is None:
            raise InputError(
                "temperatures need head: a pattern of the last layer's tensors, such as head='classifier.*'"
            )

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        super().bind(pool, weights, device)
        if self._scales is None:
            self._scales = np.ones(len(pool.members))
        checks.same_length(len(pool.members), "members", "temperatures", len(self._scales))
        blended = [name for name, tensor in pool.first.items() if tensor.dtype.kind not in "iub"]
        if self._patterns is not None and not any(self._in_head(name) for name in blended):
            raise InputError(
                f"head={shown(self.head)} names no floating tensor; there is {next(iter(blended), 'none')!r}: "
                "give a pattern of the last layer's tensors"
            )
        return self

    def _in_head(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns or ())

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        assert self._scales is not None
        scaled = self._in_head(block.span.name)
        factors = self.weights * self._scales if scaled else self.weights
        weighted_sum(block.rows, factors.tolist(), total, spare, self.device)
        # Agreeing entries of the body are copied; in the head they are divided like the others.
        return not scaled or bool((self._scales == 1).all())


balanced_mean = BalancedMean.method


@helper
def balancing_temperatures(logits: Sequence[Any], *, y: Any = None) -> Floats:
    """Temperatures by which members' logits are divided so that they are equally sure, or each as sure as it is right.

    Args:
        logits: m arrays (n, classes) of logits of the same rows, none of which the members learnt from.
        y: (n,) classes 0..classes-1 of these rows. Each member's temperature is then the one of least log loss, which
            calibrates it. None: every member is made as sure as the least sure of them, by the mean over rows of the
            largest probability; that member's temperature is 1, and no label is needed, so that the rows can be those
            that the average is for.

    Returns:
        (m,) temperatures for `balanced_mean`.

    Raises:
        InputError: members of unlike shapes, fewer than two classes, a class outside the columns, a member whose logits
            know nothing of y or are right on every row by y, a member that is unsure alike of all classes.

    Cost: about 50 passes over the logits.

    Exact: to 1e-9 in the logarithm of a temperature.

    References:
        Lin et al. 2024, Spurious feature diversification improves out-of-distribution generalization (ICLR).
        Guo et al. 2017, On calibration of modern neural networks (ICML).

    Examples:
        >>> from kofn.combination import balancing_temperatures
        >>> balancing_temperatures([[[1.0, 0.0], [0.0, 2.0]], [[5.0, 0.0], [0.0, 10.0]]]).round(6).tolist()
        [1.0, 5.0]
    """
    members = [checks.matrix(member, f"logits of member {i}").astype(np.float64) for i, member in enumerate(logits)]
    if not members:
        raise InputError("logits are empty; give one array (n, classes) a member")
    n, k = members[0].shape
    for i, member in enumerate(members):
        if member.shape != (n, k):
            raise InputError(f"logits of member {i} have shape {member.shape}, those of member 0 {(n, k)}; same rows")
    if k < 2:
        raise InputError(f"logits have {k} column; give one a class, two or more")
    members = [member - member.max(axis=1, keepdims=True) for member in members]
    if y is None:
        sure = [_confidence(member, 0.0) for member in members]
        target, least = min(sure), int(np.argmin(sure))
        if target <= (1 + 1e-9) / k:
            raise InputError(f"logits of member {least} favour no class in any row; leave that member out")
        return np.array(
            [np.exp(_as_sure(m, target)) if s > target else 1.0 for m, s in zip(members, sure, strict=True)]
        )
    labels = checks.labels(y, "y")
    checks.same_length(n, "logits", "y", len(labels))
    if labels.dtype.kind not in "iu":
        raise InputError(f"y holds {shown(labels[0].item())}, which is no number of a class; give classes 0..{k - 1}")
    if labels.min() < 0 or labels.max() >= k:
        raise InputError(
            f"y holds {shown(labels.min().item())} to {shown(labels.max().item())}; give classes 0..{k - 1}"
        )
    return np.array([np.exp(_calibrated(member, labels, i)) for i, member in enumerate(members)])


def _positive(temperatures: Any) -> Floats:
    values = checks.vector(temperatures, "temperatures").astype(np.float64)
    if (values <= 0).any():
        worst = int(values.argmin())
        raise InputError(f"temperatures of member {worst} is {values[worst]:g}; give numbers above 0")
    return values


def _chances(member: Floats, log_temperature: float) -> Floats:
    raw = np.exp(member / np.exp(log_temperature))
    out: Floats = raw / raw.sum(axis=1, keepdims=True)
    return out


def _confidence(member: Floats, log_temperature: float) -> float:
    return float(_chances(member, log_temperature).max(axis=1).mean())


def _as_sure(member: Floats, target: float) -> float:
    """Log temperature at which the member's mean confidence, which falls with it, is the target."""
    from scipy.optimize import brentq

    return float(brentq(lambda t: _confidence(member, t) - target, 0.0, 2 * _REACH, xtol=1e-9))


def _calibrated(member: Floats, labels: Array, i: int) -> float:
    """Log temperature of least log loss, whose slope by the inverse temperature rises.

    Raises:
        InputError: the least is at no finite temperature.
    """
    from scipy.optimize import brentq

    own = member[np.arange(len(labels)), labels]

    def slope(log_temperature: float) -> float:
        return float(((_chances(member, log_temperature) * member).sum(axis=1) - own).mean())

    if slope(_REACH) >= 0:
        raise InputError(f"logits of member {i} know nothing of y; check that rows and columns are those of y")
    if slope(-_REACH) <= 0:
        raise InputError(
            f"logits of member {i} are right on every row by y, so that no temperature is the best; "
            "give rows that it is wrong on too, or leave y out"
        )
    return float(brentq(slope, -_REACH, _REACH, xtol=1e-9))
