"""What `allocate` was asked of a table's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from kofn.core.checks import InputError
from kofn.tables.arguments import Quotas, VerbArguments


@dataclass(frozen=True, kw_only=True)
class AllocateArguments(VerbArguments):
    """What `kofn allocate` was asked."""

    VERB: ClassVar[str] = "allocate"
    OPTIONS: ClassVar[tuple[str, ...]] = ("levels", "sense", "mean_budget", "frontier")

    columns: tuple[str, ...] | None = None
    id_column: str | None = None
    size_column: str | None = None
    score_column: str | None = None
    cost_column: str | None = None
    weight_column: str | None = None
    levels: list[float] | None = None
    sense: str | None = None
    higher_is_better: bool = False
    lower_is_better: bool = False
    budget: float | None = None
    mean_budget: float | None = None
    least: str | None = None
    most: str | None = None
    quotas: Quotas = field(default_factory=dict)
    k: int | None = None
    tie: tuple[str, ...] = ()
    resource_limits: Mapping[str, float] = field(default_factory=dict)
    frontier: bool = False

    @property
    def tie_column(self) -> str | None:
        """The column whose labels tie items."""
        if len(self.tie) > 1:
            raise InputError(f"--tie names {len(self.tie)} columns; a table has one of ties, give it once")
        return self.tie[0] if self.tie else None

    @property
    def better(self) -> str | None:
        """ "min" or "max" as it was said; None where it was not."""
        said_by = {"max": self.higher_is_better, "min": self.lower_is_better}
        named = [sense for sense, typed in said_by.items() if typed]
        if self.sense is not None:
            named.append(self.sense)
        if len(set(named)) > 1:
            raise InputError("--higher, --lower and --sense do not agree; give one of them")
        return named[0] if named else None

    @property
    def options(self) -> dict[str, Any]:
        options = super().options
        return options if self.better is None else {**options, "sense": self.better}
