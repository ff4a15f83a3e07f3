"""Draws of sub-posteriors as a method reads them, how well they agree, and the plan of their product."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.posteriors._sizes import effective_size
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend

# A shard is named where shards of one model would stand so far from the others this seldom.
_SELDOM = 1e-3
# Correlation matrices with a smaller eigenvalue than this are of parameters that depend on each other.
_DEPENDENT = 1e-12
_INTERVAL = 0.95
# Draws worth fewer than this are warned of, and get no interval; so are members whose draws are worth fewer, or fewer of
# each parameter than this.
FEW, _FEW_EACH = 100, 10
# Parameters or members named in a warning.
_NAMED = 6


@dataclass(frozen=True)
class Shards:
    """The draws of m sub-posteriors, in units in which the parameters' spreads are near 1 and their means near 0.

    A parameter is `shift + unit * draw`. `flat` says that the draws came as vectors, of one parameter;
    `discrete` are the parameters of which every draw is a whole number.
    """

    draws: list[Floats]
    parameters: tuple[str, ...]
    shift: Floats
    unit: Floats
    means: Floats
    covariances: Floats
    flat: bool
    discrete: tuple[str, ...] = ()

    @property
    def m(self) -> int:
        """How many shards there are."""
        return len(self.draws)

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return len(self.parameters)

    @property
    def fewest(self) -> int:
        """The draws of the shard with the fewest."""
        return min(map(len, self.draws))

    @property
    def most(self) -> int:
        """The draws of the shard with the most."""
        return max(map(len, self.draws))

    def precisions(self) -> Floats:
        """(m, d, d) the inverse covariances."""
        return np.asarray(np.linalg.inv(self.covariances))

    def gaussian(self) -> tuple[Floats, Floats]:
        """Mean (d,) and covariance (d, d) of the product of the shards' Gaussian fits."""
        return multiplied(self.means, self.precisions())

    def in_units(self, draws: Floats) -> Floats:
        """Draws in the parameters' own units."""
        return self.shift + self.unit * draws


def multiplied(means: Floats, precisions: Floats) -> tuple[Floats, Floats]:
    """Mean and covariance of a product of Gaussians."""
    covariance = np.linalg.inv(precisions.sum(axis=0))
    return covariance @ np.einsum("cij,cj->i", precisions, means), covariance


def read_shards(members: Sequence[Any]) -> Shards:
    """The draws of each shard, checked.

    Raises:
        InputError: see the methods that call this.
    """
    arrays, parameters, flat = _read(members)
    whole = np.all([(array == np.rint(array)).all(axis=0) for array in arrays], axis=0)
    discrete = tuple(name for name, is_whole in zip(parameters, whole.tolist(), strict=True) if is_whole)
    for shard, array in enumerate(arrays):
        if len(array) <= len(parameters):
            raise InputError(
                f"{name_of(shard)} has {len(array)} draws of {len(parameters)} parameters; give more draws than "
                f"parameters, best hundreds of each{_axes_of(members[shard])}"
            )
    largest = np.max([np.abs(array).max(axis=0) for array in arrays], axis=0)
    size = np.ldexp(1.0, np.clip(np.frexp(largest)[1], -1000, 1000))
    near = [array / size for array in arrays]
    middle = np.mean([array.mean(axis=0) for array in near], axis=0)
    moved = [array - middle for array in near]
    widths = np.array([_spread(array) for array in moved])
    for shard, column in np.argwhere(widths == 0).tolist():
        raise InputError(
            f"{name_of(shard)}: parameter {parameters[column]!r} is the same in all {len(arrays[shard])} draws, an "
            "effective size of zero; leave the parameter out, or sample it"
        )
    unit = np.ldexp(1.0, np.frexp(widths.max(axis=0))[1])
    draws = [array / unit for array in moved]
    covariances = np.array([np.cov(array, rowvar=False).reshape(len(parameters), -1) for array in draws])
    for shard, covariance in enumerate(covariances):
        _refuse_dependent(shard, covariance, parameters)
    means = np.array([array.mean(axis=0) for array in draws])
    return Shards(draws, parameters, middle * size, unit * size, means, covariances, flat, discrete)


def _axes_of(member: Any) -> str:
    """How axes are read, where a member has several and so few draws that its first may not be the draws."""
    named = {str(key): np.shape(value) for key, value in member.items()} if isinstance(member, Mapping) else {}
    name, shape = next(((name, shape) for name, shape in named.items() if len(shape) > 1), ("", np.shape(member)))
    if len(shape) < 2 or shape[1] <= shape[0]:
        return ""
    if not name:
        return f". The first axis of {shape} is taken as draws; if it is the parameters, give the transpose"
    return f". The first axis of {name!r} {shape} is taken as draws{_joined(shape)}"


def _joined(shape: tuple[int, ...]) -> str:
    """How chains, of which the first axis may be, become one axis of draws."""
    new = ", ".join(map(str, (-1, *shape[2:])))
    return f"; if these are {shape[0]} chains of {shape[1]} draws, join them by .reshape({new})"


def _spread(array: Floats) -> Floats:
    """(d,) the standard deviations; 0 where all draws are equal, whatever rounding says."""
    return np.where((array == array[0]).all(axis=0), 0.0, array.std(axis=0))


def _refuse_dependent(shard: int, covariance: Floats, parameters: Sequence[str]) -> None:
    widths = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(widths, widths))
    if values[0] > _DEPENDENT * len(parameters):
        return
    heavy = np.sort(np.argsort(-np.abs(vectors[:, 0]))[:2])
    names = " and ".join(repr(parameters[column]) for column in heavy)
    raise InputError(
        f"{name_of(shard)}: parameters {names} depend on each other in all draws (their covariance is singular); "
        "leave out what others determine"
    )


def name_of(shard: int) -> str:
    """`member 'north'`, or `member 3` where members have no ids."""
    return f"member {checks.item_key(shard)}"


def _read(members: Sequence[Any]) -> tuple[list[Floats], tuple[str, ...], bool]:
    """(draws, parameters) of each member, the parameters' names, and whether the draws came as vectors."""
    mapped = [isinstance(member, Mapping) for member in members]
    if any(mapped) and not all(mapped):
        odd = mapped.index(not mapped[0])
        raise InputError(f"{name_of(odd)} and {name_of(0)} are not both mappings of parameters; give all in one form")
    if mapped[0]:
        named = [_columns_of(member, shard) for shard, member in enumerate(members)]
        first = tuple(named[0])
        for shard, columns in enumerate(named):
            if odd_names := sorted(set(columns) ^ set(first)):
                raise InputError(
                    f"{name_of(shard)} and {name_of(0)} do not both have parameter {odd_names[0]!r}; give every shard "
                    "the same parameters"
                )
        return [np.column_stack([columns[name] for name in first]) for columns in named], first, False
    arrays = [_plain(member, shard) for shard, member in enumerate(members)]
    for shard, array in enumerate(arrays):
        if array.ndim != arrays[0].ndim or array.shape[1:] != arrays[0].shape[1:]:
            raise InputError(
                f"{name_of(shard)} has shape {array.shape}, {name_of(0)} {arrays[0].shape}; give every shard the same "
                "parameters, one a column"
            )
    flat = arrays[0].ndim == 1
    tables = [array.reshape(len(array), -1) for array in arrays]
    width = tables[0].shape[1]
    return tables, ("x",) if width == 1 else tuple(f"x{column}" for column in range(width)), flat


def _plain(member: Any, shard: int) -> Floats:
    label = name_of(shard)
    if isinstance(member, str) or hasattr(member, "__fspath__"):
        raise InputError(f"{label} is a path ({checks.shown(member)}); load the draws, or use kofn combine")
    array = checks.as_float(checks.as_array(member, label), label).astype(np.float64)
    if array.ndim > 2 and 0 not in array.shape:
        raise InputError(
            f"{label} has shape {array.shape}, whose first axis is taken as draws; give (draws, parameters)"
            f"{_joined(array.shape)}"
        )
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise InputError(f"{label} has shape {array.shape}; give (draws, parameters), or (draws,) of one parameter")
    checks.refuse_nonfinite(array, label)
    return array


def _columns_of(member: Mapping[str, Any], shard: int) -> dict[str, Floats]:
    """Each number of each parameter as a column: beta of shape (draws, 2) is beta[0] and beta[1]."""
    columns: dict[str, Floats] = {}
    length, first = -1, ""
    for key, value in member.items():
        label = f"{name_of(shard)}: parameter {str(key)!r}"
        array = checks.as_float(checks.as_array(value, label), label).astype(np.float64)
        if array.ndim == 0 or 0 in array.shape:
            raise InputError(f"{label} has shape {array.shape}; give (draws,) or (draws, ...)")
        length, first = (len(array), str(key)) if length < 0 else (length, first)
        if len(array) != length:
            raise InputError(f"{label} has {len(array)} draws, parameter {first!r} {length}; give as many of each")
        checks.refuse_nonfinite(array, label)
        for index in np.ndindex(array.shape[1:]):
            inside = ",".join(map(str, index))
            columns[f"{key}[{inside}]" if index else str(key)] = array[(slice(None), *index)]
    if not columns:
        raise InputError(f"{name_of(shard)} has no parameters; give name -> (draws,)")
    return columns


def apart(shards: Shards) -> tuple[Floats, Floats]:
    """How far each shard stands from the product of the others, and how seldom shards of one model stand so far.

    Returns:
        (m,) the root mean square of the standardised differences between a shard's mean and that of the others'
        Gaussian product, near 1 where shards agree; and (m,) the chance of a larger one.
    """
    from scipy.stats import chi2

    distances, chances = np.zeros(shards.m), np.ones(shards.m)
    precisions = shards.precisions()
    for shard in range(shards.m if shards.m > 1 else 0):
        others = np.arange(shards.m) != shard
        mean, covariance = multiplied(shards.means[others], precisions[others])
        off = shards.means[shard] - mean
        squared = float(off @ np.linalg.solve(shards.covariances[shard] + covariance, off))
        distances[shard] = math.sqrt(squared / shards.d)
        chances[shard] = float(chi2.sf(squared, shards.d))
    return distances, chances


def worth(shards: Shards, sizes: Floats) -> float:
    """How many independent draws of the product its members' draws are worth, for the mean of the worst parameter.

    The product's mean is the average of the members' by precision, and the error of each of these is of its own
    effective size: with one parameter, the mean of the sizes, harmonic and by precision. What errors of the precisions
    add, where members stand apart, is not counted.
    """
    precisions = shards.precisions()
    total = np.linalg.inv(precisions.sum(axis=0))
    error = total @ (precisions / np.maximum(sizes, 1.0)[:, None, None]).sum(axis=0) @ total
    return float((np.diag(total) / np.diag(error)).min())


def few_draws(shards: Shards, sizes: Floats) -> list[str]:
    """A warning that names the members whose draws are worth too few to know their means and covariances by."""
    least = max(FEW, _FEW_EACH * shards.d)
    short = np.flatnonzero(sizes < least).tolist()
    if not short:
        return []
    named = ", ".join(f"{name_of(shard)} {sizes[shard]:.3g}" for shard in short[:_NAMED])
    more = f" and {len(short) - _NAMED} more" if short[_NAMED:] else ""
    return [
        f"draws of members are worth few independent ones ({named}{more}), by which means and covariances are known "
        f"badly; give draws worth at least {least}"
    ]


def product_plan(
    shards: Shards,
    draws: Floats,
    *,
    form: str,
    info: Mapping[str, Any],
    draw_weights: Floats | None = None,
    most: float = math.inf,
    warnings: Sequence[str] = (),
) -> Blend:
    """The plan of the product's draws, in the shards' units, with weights of their own where they have some; they are
    worth at most `most` independent ones, and no more than the members' draws; `warnings` are the method's own."""
    distances, chances = apart(shards)
    precisions = shards.precisions()
    total = np.linalg.inv(precisions.sum(axis=0))
    result = shards.in_units(draws)
    sizes = np.array([effective_size(array) for array in shards.draws])
    size = min(effective_size(draws, draw_weights), most, worth(shards, sizes))
    notes = [
        f"{name_of(shard)} stands apart from the product of the others: {distances[shard]:.3g} standard deviations, "
        f"which shards of one model do {chances[shard]:.1g} of the time; its data or its model may differ"
        for shard in np.flatnonzero(chances < _SELDOM / shards.m).tolist()
    ]
    if shards.discrete:
        names = ", ".join(map(repr, shards.discrete[:_NAMED])) + (", ..." if shards.discrete[_NAMED:] else "")
        notes.append(
            f"every draw of {names} is a whole number: products of draws are of continuous parameters, and the result "
            "lies between the values; if these are counts, classes or flags, leave them out, or sample what they "
            "depend on (a rate, a probability)"
        )
    notes += (short := few_draws(shards, sizes))
    notes += warnings
    if size < min(FEW, len(draws)) and not (warnings or short):
        notes.append(
            f"these {len(draws):,} draws are worth {size:.3g} independent ones, by which no interval is known; ask for "
            "more draws, or use gaussian_product or consensus_monte_carlo"
        )
    return Blend(
        n=shards.m,
        value=math.nan,
        status="heuristic",
        result=result[:, 0] if shards.flat else result,
        form=form,
        objective="product_of_draws",
        weights=np.array([np.trace(total @ precision) / shards.d for precision in precisions]),
        spread=distances,
        info={
            "sum_of": "draws",
            "parameters": list(shards.parameters),
            **described(result, draw_weights),
            "ess": size,
            "member_draws": np.array([len(array) for array in shards.draws]),
            "member_ess": sizes,
            "member_means": shards.in_units(shards.means),
            "member_sds": shards.unit * np.sqrt(np.diagonal(shards.covariances, axis1=1, axis2=2)),
            "chance_of_distance": chances,
            "warnings": notes,
            **({} if draw_weights is None else {"draw_weights": draw_weights}),
            **info,
        },
    )


def described(draws: Floats, weights: Floats | None = None) -> dict[str, Array]:
    """Mean, standard deviation and the ends of the central 95% interval of each parameter."""
    shares = np.full(len(draws), 1 / len(draws)) if weights is None else weights
    largest = np.ldexp(1.0, np.clip(np.frexp(np.abs(draws).max(axis=0))[1], -1000, 1000))
    near = draws / largest
    mean = shares @ near
    off = near - mean
    tails = ((1 - _INTERVAL) / 2, (1 + _INTERVAL) / 2)
    low, high = np.empty(draws.shape[1]), np.empty(draws.shape[1])
    for column in range(draws.shape[1]):
        order = np.argsort(draws[:, column], kind="stable")
        reached = np.cumsum(shares[order]) - shares[order] / 2
        low[column], high[column] = np.interp(tails, reached, draws[order, column])
    return {"mean": mean * largest, "sd": np.sqrt(shares @ off**2) * largest, "low": low, "high": high}


def fit_draws(draws: Any, shards: Shards, fallback: int) -> int:
    """How many draws of the product to make."""
    return fallback if draws is None else checks.count(draws, "draws", least=shards.d + 1)
