"""LoRA adapters into one: their updates added exactly by stacking factors, or cut to the best rank on the factors.

What an adapter does to a weight is `scale * B @ A`. Updates add up, factors do not: `mean(B) @ mean(A)` is another
matrix than the mean of `B @ A`. Beside one another the factors do add up: `[B1 B2] @ [A1; A2] = B1 @ A1 + B2 @ A2`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kofn.combination._sweep.weights import relative_weights
from kofn.combination.adapters._stacks import AdapterSum, ModuleStack, beside, is_half, named
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.io.adapters import PREFIX, Adapter, Pair, as_adapter, lora_pairs, patterns, unwrapped
from kofn.io.tensors import Checkpoint, from_torch, is_torch

_SHOWN = 6  # mismatches spelled out
# Settings that say what the tensors mean and so must agree.
_SHARED = ("fan_in_fan_out", "layer_replication", "trainable_token_indices")
_WHERE = ("target_modules", "layers_to_transform", "layers_pattern", "exclude_modules")


__all__ = ["lora_pairs", "reduce_adapters", "stack_adapters"]


@method(
    "combine",
    traits=("mergeable",),
    draws=Draw(kinds={"members": "adapters", "base": "adapters"}, options={"statistic": (True, None)}),
    cost="O((in + out) R^2) time a module for the distances, R the sum of the ranks; memory the factors",
    exact="the weighted sum of the members' updates, up to one rounding of a factor; one adapter at weight 1 is itself",
    paper=304,
)
def stack_adapters(
    members: Sequence[Any],
    *,
    weights: Any = None,
    base: Any = None,
    normalize: bool = True,
    other_base: bool = False,
    dtype: str = "same",
    statistic: bool | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Blend:
    """Sum LoRA adapters of any ranks exactly, by placing their scaled factors beside one another.

    The update of a module is sum_k w_k s_k B_k A_k, where s_k is the member's own scaling (`alpha / r`, or
    `alpha / sqrt(r)` under rsLoRA, patterns included); the rank is the sum of the ranks, and the configuration gives
    every module a scaling of 1. A module that a member does not adapt has an update of zero there. Members that are
    equal count once, with their weights added; members of weight 0 take no rank. Biases of `lora_bias` are summed as
    the updates are. Tensors trained in full (biases, heads) are averaged; unless the weights sum to one and every
    member has them, that needs the `base` they started from.

    Args:
        members: m LoRA adapters: folders as PEFT saves them, mappings name -> array of their tensors (scaling 1), or
            `kofn.io.adapters.Adapter`.
        weights: (m,) relative weights, uniform by default; divided by their sum, which must be positive.
        base: the weights that the adapters were trained on (a checkpoint or a mapping), read for full tensors only.
        normalize: False takes the weights as they are, as task arithmetic does.
        other_base: True combines adapters whose configurations name different base models.
        dtype: "same" keeps the members' dtype; "float32" makes half-precision factors exact to 24 bits.
        statistic: True keeps the sum of the updates as factors, to which other sums may be added with `+`.
        out: a folder for the adapter, written whole or not at all.

    Returns:
        A Blend: `result` is an `Adapter` (a mapping name -> array with `config` and `pairs`); `form` is that of the
        updates, "simplex", "affine" or "linear"; `spread` (m,) the L2 distance of each member's update to the result;
        `value` 0, the truncation error. `info` has `ranks` by module, `rounding` (the norm of what rounding to the
        dtype changed, relative to the update's), `absent` (modules that not every member adapts), `copies` (members
        equal to an earlier one), `config`.

    Raises:
        InputError: several members of which one is DoRA or another variant whose update is not linear in the factors,
            or was trained on a changed base; other shapes, dtypes or base models; full tensors that cannot be averaged.
        FailureError: a damaged file, a full disk.

    Time O((in + out) R^2) a module, R the sum of the ranks, nearly all of it for the distances; memory the factors,
    which are read whole. The sum is exact up to one rounding of each scaled factor, which `info["rounding"]` measures.

    >>> import numpy as np
    >>> one = {"fc.lora_A.weight": np.ones((1, 3)), "fc.lora_B.weight": np.ones((2, 1))}
    >>> two = {"fc.lora_A.weight": np.eye(2, 3), "fc.lora_B.weight": np.eye(2)}
    >>> blend = stack_adapters([one, two], weights=[1, 3])
    >>> blend.result.pairs["fc"].rank, blend.result.pairs["fc"].delta().tolist()
    (3, [[1.0, 0.25, 0.25], [0.25, 1.0, 0.25]])

    References:
        Wang et al. 2024, FLoRA: federated fine-tuning large language models with heterogeneous low-rank adaptations.
    """
    pool = _open(members, weights, base, normalize, other_base, dtype, out)
    kept = _sum(pool) if checks.flag(bool(statistic) if statistic is None else statistic, "statistic") else None
    return _blend(pool, None, pool.form, kept, out)


@method(
    "combine",
    draws=Draw(kinds={"members": "adapters", "base": "adapters"}, silent=("blend",)),
    cost="O((in + out) R^2 + R^3) time a module, R the sum of the ranks; the dense product is never formed",
    exact="of all adapters of these ranks the nearest to the weighted sum of the updates (Eckart-Young), and how near",
    paper=304,
)
def reduce_adapters(
    members: Sequence[Any],
    *,
    weights: Any = None,
    base: Any = None,
    rank: int | None = None,
    energy: float | None = None,
    normalize: bool = True,
    other_base: bool = False,
    dtype: str = "same",
    out: str | os.PathLike[str] | None = None,
) -> Blend:
    """Sum LoRA adapters of any ranks, then cut the sum to the best rank by QR and a small SVD on the factors.

    The stacked factors B (out, R) and A (R, in) are brought to triangles by two QR decompositions; the SVD of their
    product (R, R) is that of B A. A module whose stacked rank is small enough is left as stacked, hence exact.

    Args:
        members: m LoRA adapters, as for `stack_adapters`.
        weights: (m,) relative weights, uniform by default; divided by their sum, which must be positive.
        base: the weights that the adapters were trained on, read for tensors trained in full only.
        rank: the largest rank of a module; by default the largest among the members.
        energy: instead of `rank`, the share in (0, 1] of each module's squared norm to keep by the least rank.
        normalize: False takes the weights as they are.
        other_base: True combines adapters whose configurations name different base models.
        dtype: "same" keeps the members' dtype; "float32" widens half-precision factors.
        out: a folder for the adapter, written whole or not at all.

    Returns:
        A Blend as of `stack_adapters`; `value` is the squared L2 distance of the cut update to the exact sum, over all
        modules, and it is optimal. `info["truncation"]` has the distance by module, `info["truncation_error"]` that of
        all, `info["kept"]` the share of the squared norm kept. `form` is "none": a cut sum is no sum.

    Raises:
        InputError: as for `stack_adapters`; both `rank` and `energy`; a DoRA adapter that would have to be cut.

    Time O((in + out) R^2 + R^3) a module, R the sum of the ranks; memory the factors. No adapter of the same ranks is
    nearer to the sum (Eckart-Young), up to rounding the factors to their dtype, which `info["rounding"]` measures.

    >>> import numpy as np
    >>> one = {"fc.lora_A.weight": np.array([[3.0, 0.0]]), "fc.lora_B.weight": np.array([[1.0], [0.0]])}
    >>> two = {"fc.lora_A.weight": np.array([[0.0, 1.0]]), "fc.lora_B.weight": np.array([[0.0], [1.0]])}
    >>> blend = reduce_adapters([one, two], rank=1)
    >>> blend.result.pairs["fc"].delta().round(12).tolist(), round(blend.info["truncation_error"], 12)
    ([[1.5, 0.0], [0.0, 0.0]], 0.5)

    References:
        Wang et al. 2024, FLoRA: federated fine-tuning large language models with heterogeneous low-rank adaptations.
        Eckart & Young 1936, The approximation of one matrix by another of lower rank.
    """
    if rank is not None and energy is not None:
        raise InputError(f"rank={rank!r} and energy={energy!r}: give one of them")
    least = None if rank is None else checks.count(rank, "rank")
    share = None if energy is None else checks.fraction(energy, "energy")
    if share == 0:
        raise InputError(f"energy={energy!r}: ask for a share above 0")
    pool = _open(members, weights, base, normalize, other_base, dtype, out)
    largest = max(pair.rank for member in pool.members for pair in member.pairs.values())
    most = least or largest
    odd = pool.members[0].nonlinear() if pool.alone else []
    if odd and (most < largest or (share or 1) < 1):
        raise InputError(f"{pool.labels[0]}: {odd[0]}; it can only be given back at its own rank")

    def cut(squares: Floats) -> int:
        """The rank to keep, by the squared singular values."""
        if share is None:
            return most
        kept = np.cumsum(squares)
        return int(np.searchsorted(kept, share * kept[-1] * (1 - 1e-12))) + 1

    return _blend(pool, cut, "none", None, out)


@dataclass(frozen=True)
class _Pool:
    """Adapters that go together: the distinct `members`, their `weights`, and which of them each given one is."""

    members: list[Adapter]
    labels: list[str]
    weights: list[float]
    place: list[int]
    used: Floats
    given: list[float]
    form: str
    full: dict[str, Array]
    widen: bool
    info: dict[str, Any]

    @property
    def live(self) -> list[int]:
        """The members of a weight other than 0."""
        return [at for at, weight in enumerate(self.weights) if weight]

    @property
    def alone(self) -> bool:
        """Whether the sum is one adapter at weight 1."""
        return len(self.live) == 1 and self.weights[self.live[0]] == 1.0

    def modules(self) -> Iterator[list[tuple[int, Pair]]]:
        """For each module the pairs that members have for it."""
        for module in dict.fromkeys(module for member in self.members for module in member.pairs):
            yield [(at, member.pairs[module]) for at, member in enumerate(self.members) if module in member.pairs]


def _open(
    members: Sequence[Any], weights: Any, base: Any, normalize: bool, other_base: bool, dtype: str, out: Any
) -> _Pool:
    checks.choice(dtype, "dtype", ("same", "float32"))
    checks.flag(other_base, "other_base")
    labels = [
        f"member {at}" + (f" ({os.fspath(one)})" if isinstance(one, str | os.PathLike) else "")
        for at, one in enumerate(members)
    ]
    opened = [as_adapter(member, f"member {at}") for at, member in enumerate(members)]
    if out is not None:
        _refuse_out(out, opened, labels)
    start = None if base is None else _base(base)
    used, _, form = relative_weights(weights, len(opened), checks.flag(normalize, "normalize"))
    given = [1.0] * len(opened) if weights is None else np.asarray(weights, np.float64).tolist()
    digests = [_digest(member) for member in opened]
    first = [digests.index(digest) for digest in digests]
    kept = list(dict.fromkeys(first))
    sums = [math.fsum(w for w, at in zip(used.tolist(), first, strict=True) if at == one) for one in kept]
    live = [at for at, weight in enumerate(sums) if weight]
    if not live:
        raise InputError("weights are all zero, or cancel among equal members; nothing is left to combine")
    if len(live) == 1 and form != "linear":
        sums[live[0]] = 1.0  # thirds of one adapter need not sum to one in floating point
    distinct, names = [opened[at] for at in kept], [labels[at] for at in kept]
    if len(kept) > 1 or sums != [1.0]:
        _refuse_mismatch(distinct, names, other_base)
    modules = dict.fromkeys(module for member in distinct for module in member.pairs)
    absent = {name: [at for at, one in enumerate(opened) if name not in one.pairs] for name in modules}
    info = {
        "copies": [at for at, one in enumerate(first) if at != one],
        "absent": {name: missing for name, missing in absent.items() if missing},
        "entries": sum(member.size for member in opened),
    }
    place = [kept.index(at) for at in first]
    full = _full([distinct[at] for at in live], [names[at] for at in live], [sums[at] for at in live], form, start)
    return _Pool(distinct, names, sums, place, used, given, form, full, dtype == "float32", info)


def _blend(
    pool: _Pool, cut: Callable[[Floats], int] | None, form: str, statistic: AdapterSum | None, out: Any
) -> Blend:
    first = pool.members[pool.live[0]]
    odd = first.nonlinear() if pool.alone else []
    # What is no sum of pairs is given back, and never looked into.
    work = (
        []
        if odd
        else [ModuleStack(parts, pool.weights, widen=pool.widen, cuts=cut is not None) for parts in pool.modules()]
    )
    ranks = [one.rank if cut is None else one.kept(cut(one.singular() ** 2)) for one in work]
    whole = all(rank == one.rank for rank, one in zip(ranks, work, strict=True))
    itself = pool.alone and whole and not (pool.widen and any(is_half(array.dtype) for array in first.values()))
    if odd and not itself:
        raise InputError(f"{pool.labels[pool.live[0]]}: {odd[0]}; it can only be given back as it is")
    errors: dict[str, float] = {}
    rounded = total = 0.0
    squares = np.zeros(len(pool.members))
    pairs = []
    for rank, one in zip(ranks, work, strict=True):
        squares += one.distances(rank)
        if not one.live:
            continue
        pair, off = one.stacked() if rank == one.rank else one.cut(rank)
        pairs.append(pair)
        rounded += off
        total += one.square()
        errors[one.module] = one.error(rank)
    for name, blended in pool.full.items():
        for at, member in enumerate(pool.members):
            if name in member.full:
                squares[at] += float(np.square(member.full[name].astype(np.float64) - blended).sum())
    result = first if itself else _adapter(pool, pairs)
    if itself:
        squares[pool.live[0]], rounded = 0.0, 0.0
    if out is not None:
        result.write(out)
        result = Adapter.read(out)
    value = math.fsum(errors.values())
    info: dict[str, Any] = {
        "sum_of": "updates",
        **pool.info,
        "ranks": {module: pair.rank for module, pair in result.pairs.items()},
        "rounding": math.sqrt(rounded / total) if total else 0.0,
        "truncation": {module: math.sqrt(error) for module, error in errors.items()},
        "truncation_error": math.sqrt(value),
        "kept": 1 - value / total if total else 1.0,
        "config": result.config,
    }
    return Blend(
        n=len(pool.place),
        value=value,
        sense="min",
        bound=value,
        status="optimal",
        result=result,
        form=form,
        weights=pool.used,
        spread=np.sqrt(squares)[pool.place],
        statistic=statistic,
        objective="truncation_error",
        info=info,
    )


def _adapter(pool: _Pool, pairs: list[Pair]) -> Adapter:
    """The tensors and the configuration of the sum."""
    if any(pair.bias is not None for pair in pairs):
        # PEFT gives every module such a bias, or none.
        pairs = [
            pair if pair.bias is not None else dataclasses.replace(pair, bias=np.zeros(pair.B.shape[0], pair.B.dtype))
            for pair in pairs
        ]
    tensors = {name: array for pair in pairs for name, array in named(pair).items()}
    modules = {pair.module for pair in pairs}
    for name, array in pool.full.items():
        module, _, leaf = name.rpartition(".")
        tensors[f"{module}.base_layer.{leaf}" if module in modules else name] = array
    configs = [pool.members[at].config for at in pool.live]
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "target_modules": None,
        "use_dora": False,
        **configs[0],
    }
    names = sorted(pair.module.removeprefix(PREFIX) for pair in pairs)
    if any(one.get(key) != configs[0].get(key) for one in configs for key in _WHERE) or not config["target_modules"]:
        config |= {**dict.fromkeys(set(_WHERE) & config.keys()), "target_modules": names}
    kinds = {one.get("bias") or "none" for one in configs} - {"none"}
    saved = sorted({name for one in configs for name in one.get("modules_to_save") or ()})
    usual, pattern = patterns({pair.module: pair.rank for pair in pairs})
    config |= {
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": dict(pattern),
        "use_rslora": False,
        "init_lora_weights": True,
        "lora_bias": any(pair.bias is not None for pair in pairs),
        "bias": "none" if not kinds else kinds.pop() if len(kinds) == 1 else "all",
        "modules_to_save": saved or None,
    }
    return Adapter(tensors, config, label="the sum")


def _sum(pool: _Pool) -> AdapterSum:
    """The sum under the weights as they were given."""
    for label, member in zip(pool.labels, pool.members, strict=True):
        if reasons := member.nonlinear():
            raise InputError(f"statistic=True: {label}: {reasons[0]}; leave statistic out")
        if odd := [name for name in pool.full if name not in member.full or member.full[name].dtype.kind in "iub"]:
            raise InputError(f"statistic=True: {odd[0]!r} is no sum of what every member holds; leave statistic out")
    weights = [
        math.fsum(weight for weight, at in zip(pool.given, pool.place, strict=True) if at == one)
        for one in range(len(pool.members))
    ]
    pairs = {}
    for parts in pool.modules():
        scaled = [dataclasses.replace(pair, scale=pair.scale * weights[at]) for at, pair in parts]
        pairs[scaled[0].module] = beside(scaled)
    full: dict[str, Floats] = {
        name: np.sum(
            [weight * one.full[name].astype(np.float64) for weight, one in zip(weights, pool.members, strict=True)], 0
        )
        for name in pool.full
    }
    return AdapterSum(math.fsum(pool.given), pairs, full)


def _digest(member: Adapter) -> str:
    """Equal for adapters that do the same: tensors and scalings alike."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(member):
        array = np.ascontiguousarray(member[name])
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    settings = {
        key: member.config.get(key) or None for key in (*_SHARED, "base_model_name_or_path", "init_lora_weights")
    }
    scales = [(name, member.pairs[name].scale) for name in sorted(member.pairs)]
    state.update(repr((scales, settings, member.nonlinear())).encode())
    return state.hexdigest()


def _refuse_out(out: Any, members: list[Adapter], labels: list[str]) -> None:
    target = Path(out).resolve()
    for label, member in zip(labels, members, strict=True):
        if member.path is not None and member.path.resolve() == target:
            raise InputError(f"out={os.fspath(out)!r} is where {label} lies; name another path")


def _refuse_mismatch(members: list[Adapter], labels: list[str], other_base: bool) -> None:
    """Refuses what cannot be added up; shapes, dtypes and settings that differ are named all at once."""
    for label, member in zip(labels, members, strict=True):
        if reasons := member.nonlinear():
            raise InputError(f"{label}: {reasons[0]}; such an adapter can only be given back alone, at weight 1")
    found: list[str] = []
    bases = [member.config.get("base_model_name_or_path") for member in members]
    for label, named_base in zip(labels, bases, strict=True):
        if not other_base and named_base and (first := next(one for one in bases if one)) != named_base:
            found.append(
                f"{label} is for the base model {named_base!r}, others for {first!r} (other_base=True takes them)"
            )
    for key in _SHARED:
        values = [member.config.get(key) or None for member in members]
        found += [
            f"{label} has {key}={value!r}, {labels[0]} {values[0]!r}"
            for label, value in zip(labels, values, strict=True)
            if value != values[0]
        ]
    seen: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for label, member in zip(labels, members, strict=True):
        sides = {
            module: (pair.kind, pair.A.shape[1:], pair.B.shape[:1], str(pair.A.dtype))
            for module, pair in member.pairs.items()
        }
        fulls = {name: (array.shape, str(array.dtype)) for name, array in member.full.items()}
        for name, value in {**sides, **fulls}.items():
            before, known = seen.setdefault(name, (label, value))
            if known != value:
                found.append(f"{label}: {name!r} is {_said(value)}, in {before} {_said(known)}")
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        places = "1 place" if len(found) == 1 else f"{len(found)} places"
        raise InputError(f"members do not match in {places}: {'; '.join(found[:_SHOWN])}{more}")


def _said(value: tuple[Any, ...]) -> str:
    if len(value) == 2:
        return f"{value[1]} {value[0]}"
    kind, into, out, dtype = value
    return f"{kind} {dtype} from {into} to {out}"


def _full(
    members: list[Adapter], labels: list[str], weights: list[float], form: str, base: Mapping[str, Any] | None
) -> dict[str, Array]:
    """The tensors trained in full: their mean, or the base and the weighted sum of the differences to it."""
    if len(members) == 1 and weights == [1.0]:
        return dict(members[0].full)
    out: dict[str, Array] = {}
    for name in dict.fromkeys(name for member in members for name in member.full):
        having = [
            (member.full[name], weight) for member, weight in zip(members, weights, strict=True) if name in member.full
        ]
        arrays = [array for array, _ in having]
        same = len(having) == len(members) and all(array.tobytes() == arrays[0].tobytes() for array in arrays)
        if same and (form != "linear" or arrays[0].dtype.kind in "iub"):
            out[name] = arrays[0]
            continue
        if arrays[0].dtype.kind in "iub":
            raise InputError(f"{name!r} holds whole numbers that differ among members; such values are not averaged")
        whole = form != "linear" and len(having) == len(members)
        start = None if whole or base is None else _of_base(base, name)
        if not whole and start is None:
            lacking = [label for label, member in zip(labels, members, strict=True) if name not in member.full]
            why = f"and {lacking[0]} lacks it" if lacking else "and the weights do not sum to one"
            remedy = "the base has no such tensor" if base is not None else "give base, the weights they started from"
            raise InputError(f"members: {name!r} is trained in full {why}: its average needs the base; {remedy}")
        if start is None:
            mixed = np.sum([weight * array.astype(np.float64) for array, weight in having], axis=0)
        else:
            if start.shape != arrays[0].shape:
                raise InputError(f"base: {name!r} has shape {start.shape}, in the members {arrays[0].shape}")
            from_base = start.astype(np.float64)
            mixed = from_base + np.sum([weight * (array.astype(np.float64) - from_base) for array, weight in having], 0)
        with np.errstate(over="ignore"):
            out[name] = mixed.astype(arrays[0].dtype)
    return out


def _base(base: Any) -> Mapping[str, Any]:
    if isinstance(base, str | os.PathLike):
        return Checkpoint.open(base)
    if not isinstance(base, Mapping):
        raise InputError(f"base is {type(base).__name__}; give a checkpoint's path or a mapping name -> array")
    return base


def _of_base(base: Mapping[str, Any], name: str) -> Array | None:
    for known in (name, unwrapped(name)):
        if known in base:
            value = base[known]
            return from_torch(value) if is_torch(value) else np.asarray(value)
    return None
