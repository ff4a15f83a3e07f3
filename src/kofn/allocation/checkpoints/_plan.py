"""A plan for a model on disk: the level of each tensor, what it loses, and the file that keeps it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kofn._version import __version__
from kofn.core.checks import FailureError, InputError, regular, shown
from kofn.core.plans import Allocation
from kofn.io.atomic import atomic_path
from kofn.io.json_text import parsed

SCHEMA = "kofn checkpoint plan 1"
BITS, SPARSITY = "bits", "sparsity"


@dataclass(frozen=True, slots=True)
class TensorLevel:
    """What one tensor gets.

    Attributes:
        name: the tensor's name.
        module: the module that it is the weight of.
        shape: its shape.
        level: bits of a weight, or percent of its weights that are left.
        error: the error at that level, in the unit of the plan's `error`.
        curve: the error at each of the plan's `levels`, None where it may not have one.
        group: weights that share a scale.
        item: which tensors share a level: those of the same number.
        fixed: whether the caller gave the level.
    """

    name: str
    module: str
    shape: tuple[int, ...]
    level: int
    error: float
    curve: tuple[float | None, ...]
    group: int
    item: int
    fixed: bool = False

    @property
    def size(self) -> int:
        """How many weights it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """Which level each tensor of a checkpoint gets, beside what a uniform level would lose.

    Attributes:
        kind: "bits" or "sparsity".
        path: the checkpoint.
        digest: of its tensors, by which a plan knows its checkpoint.
        levels: the levels that tensors may have.
        tensors: those that take part.
        kept: names of tensors of two axes or more that stay as they are.
        group_size: weights that share a scale, -1 for a row.
        symmetric: whether numbers lie about zero.
        statistic: what errors are weighted by: "none", "scale", "diagonal", "gram" or "curvature".
        criterion: "relative" (to each tensor's own size) or "squared".
        asked: the mean that was asked for: bits a weight, or the share of weights left out.
        mean: the mean that the plan comes to.
        mean_with_scales: bits a weight with scales and zero points; of sparsity the same as `mean`.
        error: the summed error.
        uniform: the error of giving all tensors the same, at the same mean.
        price: what more of the mean saves a unit: the slope of the frontier to the right of the plan.
        next_error: the error at a mean a tenth of a bit (or a hundredth of the weights) dearer, None at the most.
        frontier: (mean, error of the best allocation, error of a uniform one) from the least mean to the most.
        other_error: the error of the same levels with the other kind of numbers (symmetric for affine, and affine for
            symmetric).
        counts_scales: whether the mean that was asked for counts scales too.
        allocation: the plan over items, None where it was read from a file.
    """

    kind: str
    path: str
    digest: str
    levels: tuple[int, ...]
    tensors: tuple[TensorLevel, ...]
    kept: tuple[str, ...]
    group_size: int
    symmetric: bool
    statistic: str
    criterion: str
    asked: float
    mean: float
    mean_with_scales: float
    error: float
    uniform: float
    price: float
    next_error: float | None
    frontier: tuple[tuple[float, float, float], ...]
    other_error: float | None = None
    counts_scales: bool = False
    allocation: Allocation | None = field(default=None, compare=False)

    @property
    def weights(self) -> int:
        """How many weights take part."""
        return sum(tensor.size for tensor in self.tensors)

    def level_of(self) -> dict[str, int]:
        """Name of a tensor -> its level."""
        return {tensor.name: tensor.level for tensor in self.tensors}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, which `read_plan` reads and people too."""
        content: dict[str, Any] = {"schema": SCHEMA, "kofn": __version__}
        names = [name for name in self.__dataclass_fields__ if name != "allocation"]
        content |= {name: getattr(self, name) for name in names}
        content["tensors"] = [
            {name: getattr(tensor, name) for name in tensor.__dataclass_fields__} for tensor in self.tensors
        ]
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Self:
        """The plan that `save` wrote.

        Raises:
            InputError: no such file, or no plan.
        """
        target = Path(path)
        regular(target)
        try:
            content = parsed(target.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file; check the path") from None
        except ValueError as error:
            raise InputError(f"{path}: not a plan ({error}); `kofn allocate model/ --bits 3 -o plan.json`") from None
        except OSError as error:
            raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
        if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
            schema = shown(content.get("schema")) if isinstance(content, Mapping) else "none"
            raise InputError(
                f"{path}: its schema is {schema}, not {SCHEMA!r}; make one with `kofn allocate model/ -o plan.json`"
            )
        fields = {name: value for name, value in content.items() if name not in ("schema", "kofn")}
        try:
            fields["tensors"] = tuple(_tensor_of(entry) for entry in fields["tensors"])
            for name in ("levels", "kept"):
                fields[name] = tuple(fields[name])
            fields["frontier"] = tuple(tuple(point) for point in fields["frontier"])
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise InputError(f"{path}: a damaged plan ({error}); make it again") from None


def _tensor_of(entry: Mapping[str, Any]) -> TensorLevel:
    return TensorLevel(**{**entry, "shape": tuple(entry["shape"]), "curve": tuple(entry["curve"])})
