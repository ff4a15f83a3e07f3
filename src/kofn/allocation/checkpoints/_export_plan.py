"""Write a plan in the form that quantising tools read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from kofn.allocation.checkpoints._plan import BITS, CheckpointPlan, TensorLevel
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.io.atomic import atomic_path

__all__ = ["export_plan"]

FORMATS = ("llmcompressor", "auto-round")


@helper
def export_plan(plan: CheckpointPlan, path: str | os.PathLike[str], *, format: str) -> list[str]:
    """Write a plan of bits as a recipe of llm-compressor (YAML) or the settings of auto-round (JSON).

    Every module is named in full and stands in one group, so that none matches another's pattern; modules that stay as
    they are are named as such.

    Args:
        plan: of bits.
        path: the file.
        format: "llmcompressor": a recipe for `llmcompressor.oneshot(recipe=path)`, whose `config_groups` and `ignore`
            compressed-tensors reads too. "auto-round": the keywords of `auto_round.AutoRound`: `bits`, `group_size`,
            `sym` and `layer_config`.

    Returns:
        Notes on what servers may refuse.

    Raises:
        InputError: a plan of sparsity, a tensor that is no weight of a module with two axes, or an unknown format.

    Examples:
        >>> import tempfile, numpy as np
        >>> from kofn.allocation import allocate_checkpoint, export_plan
        >>> from kofn.io.tensor_writer import write_arrays
        >>> folder = tempfile.mkdtemp()
        >>> write_arrays(folder + "/model.safetensors", {"a.weight": np.eye(64, dtype=np.float32)})
        >>> notes = export_plan(allocate_checkpoint(folder, bits=4), folder + "/recipe.yaml", format="llmcompressor")
        >>> "targets:\\n          - a\\n" in open(folder + "/recipe.yaml").read()
        True
    """
    checks.choice(format, "format", FORMATS)
    if plan.kind != BITS:
        raise InputError(f"format={format!r} is of plans of bits, this one is of {plan.kind}; apply it instead")
    for tensor in plan.tensors:
        if len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
            raise InputError(
                f"format={format!r} names modules with a weight of two axes; {tensor.name!r} of shape {tensor.shape} "
                f"is none: leave it out with fix={{{tensor.name!r}: 'keep'}} (--fix {tensor.name}=keep)"
            )
    with atomic_path(path) as temporary:
        temporary.write_text(_recipe(plan) if format == FORMATS[0] else _settings(plan), encoding="utf-8")
    return _notes(plan)


def _recipe(plan: CheckpointPlan) -> str:
    import yaml

    content = {"quant_stage": {"quant_modifiers": {"QuantizationModifier": groups_of(plan)}}}
    return str(yaml.safe_dump(content, sort_keys=False, default_flow_style=False))


def groups_of(plan: CheckpointPlan) -> dict[str, Any]:
    """`config_groups` and `ignore` of compressed-tensors: a group for each width and kind of scales."""
    groups: dict[tuple[int, bool], list[str]] = {}
    for tensor in plan.tensors:
        groups.setdefault((tensor.level, _by_row(plan, tensor)), []).append(tensor.module)
    config = {}
    # Keys are sorted when configurations are saved, and their order decides: they are in it from the start.
    digits = len(str(len(groups)))
    for number, ((bits, by_row), modules) in enumerate(sorted(groups.items())):
        strategy: dict[str, Any] = {"strategy": "channel"} if by_row else {"strategy": "group"}
        if not by_row:
            strategy["group_size"] = plan.group_size
        config[f"group_{number:0{digits}}"] = {
            "targets": modules,
            "weights": {"num_bits": bits, "type": "int", "symmetric": plan.symmetric, **strategy},
        }
    return {"config_groups": config, "ignore": _ignored(plan)}


def _settings(plan: CheckpointPlan) -> str:
    layers: dict[str, Mapping[str, Any]] = {}
    for tensor in plan.tensors:
        size = -1 if _by_row(plan, tensor) else plan.group_size
        layers[tensor.module] = {"bits": tensor.level, "group_size": size, "sym": plan.symmetric, "data_type": "int"}
    layers |= {module: {"bits": 16, "data_type": "float"} for module in _ignored(plan)}
    counts: dict[int, int] = {}
    for tensor in plan.tensors:
        counts[tensor.level] = counts.get(tensor.level, 0) + tensor.size
    content = {
        "bits": max(counts, key=lambda bits: counts[bits]),
        "group_size": plan.group_size,
        "sym": plan.symmetric,
        "layer_config": layers,
    }
    return json.dumps(content, indent=1) + "\n"


def _by_row(plan: CheckpointPlan, tensor: TensorLevel) -> bool:
    return plan.group_size == -1 or tensor.group != plan.group_size


def _ignored(plan: CheckpointPlan) -> list[str]:
    return [name.removesuffix(".weight") for name in plan.kept if name.endswith(".weight")]


def _notes(plan: CheckpointPlan) -> list[str]:
    odd = sorted({tensor.level for tensor in plan.tensors} - {4, 8})
    notes = []
    if odd:
        widths = ", ".join(map(str, odd))
        notes.append(f"many servers run 4 and 8 bits only, the plan has {widths} too: --widths 4,8 keeps to those")
    return notes
