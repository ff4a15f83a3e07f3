"""LoRA adapters multiplied out: sums of updates, best cuts and distances by dense matrices, and what draws adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.core.arrays import Floats
from kofn.io.adapters import Adapter
from kofn.laws.case import Case, broken, near
from kofn.laws.inputs import Draw, Drawer
from kofn.laws.words import (
    Recount,
)


def dense(member: Mapping[str, Any]) -> dict[str, Floats]:
    """What an adapter adds to each weight, by its definition; tensors trained in full as they are."""
    config = getattr(member, "config", {})
    out: dict[str, Floats] = {}
    for name in member:
        if name.endswith("lora_A.weight"):
            A, B = (
                np.asarray(member[name.replace("lora_A", half)]).astype(np.float64) for half in ("lora_A", "lora_B")
            )
            r = len(A)
            module = name.removesuffix(".lora_A.weight")
            alpha = config.get("alpha_pattern", {}).get(module, config.get("lora_alpha", r))
            scale = alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r
            out[module] = sum((scale * np.outer(B[:, i], A[i]) for i in range(r)), np.zeros((len(B), A.shape[1])))
        elif "lora_" not in name:
            out[name] = np.asarray(member[name]).astype(np.float64)
    return out


def _sizes(member: Mapping[str, Any], scale: float) -> float:
    """What rounding is relative to: the norms of the factors, not of their product, which may cancel."""
    norms = [float(np.linalg.norm(np.asarray(member[name]).astype(np.float64))) for name in member]
    return abs(scale) * (1 + sum(norms)) ** 2


def _slack(case: Case, weights: Floats) -> float:
    import ml_dtypes

    dtype = next(np.asarray(value).dtype for value in case.words["members"][0].values())
    alphas = [1.0 + abs(getattr(member, "config", {}).get("lora_alpha", 1)) for member in case.words["members"]]
    sizes = sum(
        _sizes(member, float(weight) * alpha)
        for member, weight, alpha in zip(case.words["members"], weights, alphas, strict=True)
    )
    return 16 * float(ml_dtypes.finfo(dtype).eps) * sizes


def _total(case: Case, weights: Floats) -> dict[str, Floats]:
    out: dict[str, Floats] = {}
    for weight, member in zip(weights, case.words["members"], strict=True):
        for name, value in dense(member).items():
            out[name] = out.get(name, 0.0) + weight * value
    return out


def _updates(case: Case) -> bool:
    """The result's updates are the members', weighted; twice the members are twice that; copies are the copy."""
    plan, weights = case.plan, np.asarray(case.plan.weights, np.float64)
    if plan.form != "linear" and abs(math.fsum(weights.tolist()) - 1) > 1e-9:
        raise broken(case, "blend", f"form {plan.form}, weights sum to {math.fsum(weights.tolist())!r}")
    if plan.form == "simplex" and (weights < 0).any():
        raise broken(case, "blend", f"form simplex, weights {weights}")
    want, slack = _total(case, weights), _slack(case, weights)
    _agree(case, "the weighted sum", dense(plan.result), want, slack)
    doubled = case.again(members=[_doubled(member) for member in case.words["members"]])
    _agree(
        case, "twice the members", dense(doubled.result), {name: 2 * value for name, value in want.items()}, 2 * slack
    )
    if plan.form != "linear":
        first = case.words["members"][0]
        copies = case.again(members=[first] * len(weights)).result
        if set(copies) != set(first) or any(
            np.asarray(first[name]).tobytes() != copies[name].tobytes() for name in first
        ):
            raise broken(case, "blend", "copies do not give the copy")
    return True


def _agree(case: Case, label: str, got: Mapping[str, Floats], want: Mapping[str, Floats], slack: float) -> None:
    for name, value in want.items():
        if name not in got and not value.any():
            continue
        if name not in got or np.abs(got[name] - value).max() > slack:
            raise broken(case, "blend", f"{label}: {name!r} is {got.get(name)}, not {value}")


def _doubled(member: Mapping[str, Any]) -> Any:
    tensors = {name: value if "lora_A" in name else np.asarray(value) * 2 for name, value in member.items()}
    tensors = {name: value.astype(np.asarray(member[name]).dtype) for name, value in tensors.items()}
    return Adapter(tensors, member.config) if isinstance(member, Adapter) else tensors


def _truncated(case: Case) -> None:
    """The squared singular values that the ranks leave out, the distance to the sum itself, and the members'."""
    plan, weights = case.plan, np.asarray(case.plan.weights, np.float64)
    total, got, slack = _total(case, weights), dense(plan.result), _slack(case, weights)
    left = size = off = 0.0
    for name, value in total.items():
        if name in got:
            off += float(np.square(got[name] - value).sum())
        if value.ndim == 2:
            squares = np.linalg.svd(value, compute_uv=False) ** 2
            rank = plan.info["ranks"].get(name, 0)
            left += float(squares[rank:].sum())
            size += float(squares.sum())
            share = case.options.get("energy")
            if share is not None and rank > 1 and squares[: rank - 1].sum() > share * squares.sum() * (1 + 1e-9):
                raise broken(case, "recount", f"{name!r} has rank {rank}, one less keeps {share} of the squares")
    # A square is off by twice the distance times the rounding.
    if not near(plan.value, left, 1e-9, size + slack**2):
        raise broken(case, "recount", f"value is {plan.value!r}, recounted {left!r}")
    if abs(math.sqrt(off) - math.sqrt(left)) > 1e-6 * math.sqrt(size) + 4 * slack:
        raise broken(case, "recount", f"the result is {math.sqrt(off)!r} from the sum, the best {math.sqrt(left)!r}")
    for position, member in enumerate(case.words["members"]):
        own = dense(member)
        names = own.keys() | got.keys()
        gap = math.sqrt(sum(float(np.square(own.get(n, 0.0) - got.get(n, np.zeros(1))).sum()) for n in names))
        if abs(gap - float(plan.spread[position])) > 1e-6 * (gap + math.sqrt(size)) + 4 * slack:
            raise broken(
                case, "recount", f"spread of member {position} is {plan.spread[position]!r}, recounted {gap!r}"
            )


def _draw_adapters(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Adapters in the place of the members: ranks, scalings, modules and dtypes of many kinds."""
    import ml_dtypes

    assert isinstance(given, dict)
    given.pop("base", None)
    rng = np.random.default_rng(int.from_bytes(draw(st.binary(min_size=8, max_size=8)), "little"))
    shapes = {"a.q": (4, 3), "a.v": (2, 5), "b": (3, 3)}
    dtype = draw(st.sampled_from((np.float64, np.float64, np.float32, np.float16, ml_dtypes.bfloat16)))
    grid, full = draw(st.booleans()), draw(st.integers(0, 3)) == 0
    members: list[Any] = []
    for _ in given["members"]:
        modules = [name for name in shapes if rng.random() < 0.75] or ["b"]
        ranks = {name: int(rng.integers(1, 4)) for name in modules}
        tensors: dict[str, Any] = {}
        for name, r in ranks.items():
            for half, shape in (("A", (r, shapes[name][1])), ("B", (shapes[name][0], r))):
                values = rng.integers(-2, 3, shape).astype(np.float64) if grid else rng.normal(size=shape)
                tensors[f"{name}.lora_{half}.weight"] = values.astype(dtype)
        if full:
            tensors["head.bias"] = rng.integers(-3, 4, 2).astype(dtype)
        config = {
            "lora_alpha": float(rng.integers(1, 9)),
            "use_rslora": bool(rng.random() < 0.5),
            "alpha_pattern": {"a.v": 3.0} if rng.random() < 0.5 else {},
        }
        members.append(Adapter(tensors, config) if rng.random() < 0.7 else tensors)
    if len(members) > 1 and draw(st.integers(0, 3)) == 0:
        members[-1] = members[0]
    given["members"] = members
    if not full and draw(st.integers(0, 3)) == 0:
        options["normalize"] = False


def _draw_rank(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if "members" in given and draw(st.booleans()):
        options["rank"] = draw(st.integers(1, 4))


def _draw_energy(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if "members" in given and "rank" not in options:
        options["energy"] = draw(st.sampled_from((0.5, 0.9, 0.999, 1.0)))


RECOUNTS: dict[str, Recount] = {"truncation_error": _truncated}
BLENDS: dict[str, Callable[[Case], bool]] = {"updates": _updates}
OPTIONS: dict[str, Drawer] = {"other_base": _draw_adapters, "rank": _draw_rank, "energy": _draw_energy}
