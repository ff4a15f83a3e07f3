"""What `assign` was asked of a table's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kofn.core.checks import InputError
from kofn.tables.arguments import RowArguments

LINKS = ("must_link", "cannot_link")


@dataclass(frozen=True, kw_only=True)
class AssignArguments(RowArguments):
    """What `kofn assign` was asked."""

    VERB: ClassVar[str] = "assign"
    OPTIONS: ClassVar[tuple[str, ...]] = ("overflow", "reserve", *LINKS)

    by_scores: bool = False
    long: tuple[str, ...] | None = None
    sense: str | None = None
    k: int | str | None = None
    capacity: int | list[int] | str | None = None
    min_size: int | list[int] | str | None = None
    size_column: str | None = None
    limits: float | list[float] | str | None = None
    equal: bool = False
    # A file of pairs; in Python pairs too.
    must_link: Any = None
    cannot_link: Any = None
    per_item: int | None = None
    overflow: str | None = None
    reserve: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        scores = self.by_scores or self.long is not None
        if self.sense is not None and not scores:
            raise InputError(f"--sense {self.sense} says what --scores are; give --scores too")
        if self.equal and not isinstance(self.k, int) and not (scores and self.k is None):
            raise InputError("--equal makes groups of equal size: say how many with --k")
        if self.equal and (self.capacity is not None or self.min_size is not None):
            raise InputError("--equal sets the sizes; leave --capacity and --min-size out")
        if (self.size_column is None) != (self.limits is None):
            given, other = ("--size", "--limit") if self.limits is None else ("--limit", "--size")
            raise InputError(f"{given} needs {other}: a bin's sizes add up to at most its limit; give both")
        filled = [name for name in ("capacity", "per_item", "overflow") if getattr(self, name) is not None]
        if filled and self.method == "auto" and self.k is None and not scores:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in filled)
            raise InputError(f"{flags}: add --k for groups of rows, or --scores if the columns are scores for bins")
