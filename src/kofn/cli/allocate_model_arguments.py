"""The options of `kofn allocate model/`, and what of them was typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kofn.cli.arguments import NUMBERS, SHARE, flag
from kofn.cli.verb_command import Section
from kofn.core.checks import InputError, shown
from kofn.tables.arguments import VerbArguments

MODEL = Section(
    "Of a model on disk (a folder or file of safetensors)",
    (
        flag(
            "--bits",
            type=float,
            metavar="MEAN",
            help="Mean bits a weight, such as 3.0, over the tensors that take part.",
        ),
        flag(
            "--sparsity", type=SHARE, metavar="SHARE", help="Instead: the share of weights to leave out, such as 0.7."
        ),
        flag("--widths", type=NUMBERS, metavar="A,B", help="Widths that tensors may have, default 2,3,4,5,6,7,8."),
        flag("--group-size", type=int, metavar="N", help="Weights that share a scale, default 128; -1: an output's."),
        flag(
            "--symmetric/--affine",
            "symmetric",
            default=None,
            help="Numbers about zero, or with a zero point (default).",
        ),
        flag(
            "--statistics",
            metavar="FILE",
            help="What inputs or curvature say of errors, by module: .safetensors, .npz.",
        ),
        flag("--criterion", metavar="NAME", help="Add up 'squared' errors, or those 'relative' to each tensor."),
        flag(
            "--only", multiple=True, metavar="PATTERN", help="Tensors that take part, default all but tables and heads."
        ),
        flag(
            "--fix",
            multiple=True,
            metavar="PATTERN=LEVEL",
            help="A level of its own, such as 'lm_head=8' or 'lm_head=keep'.",
        ),
        flag("--count-scales", is_flag=True, default=None, help="Scales and zero points count towards --bits."),
        flag(
            "--apply",
            "applied",
            metavar="OUT",
            help="Write the checkpoint as the plan leaves it, to measure its quality.",
        ),
        flag("--use", metavar="PLAN", help="Take the plan of this file, as -o wrote it, for --apply or --format."),
        flag("--format", metavar="TOOL", help="Write -o as llmcompressor or auto-round reads it."),
    ),
)


@dataclass(frozen=True, kw_only=True)
class ModelArguments(VerbArguments):
    """What `kofn allocate model/` was asked."""

    VERB: ClassVar[str] = "allocate"

    bits: float | None = None
    sparsity: float | None = None
    widths: list[float] | None = None
    group_size: int | None = None
    symmetric: bool | None = None
    statistics: str | None = None
    criterion: str | None = None
    only: tuple[str, ...] = ()
    tie: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    count_scales: bool | None = None
    applied: str | None = None
    use: str | None = None
    format: str | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments of `allocate_checkpoint` that were typed."""
        names = (
            "bits",
            "sparsity",
            "group_size",
            "symmetric",
            "statistics",
            "criterion",
            "only",
            "tie",
            "count_scales",
        )
        typed = {name: getattr(self, name) for name in names if getattr(self, name) not in (None, ())}
        if self.widths is not None:
            typed["widths"] = [int(width) if width.is_integer() else width for width in self.widths]
        if self.fix:
            typed["fix"] = _fixes(self.fix)
        if self.format and "tie" not in typed:
            typed["tie"] = ("fused",)  # which servers compute as one
        return typed


def _fixes(texts: Sequence[str]) -> dict[str, Any]:
    fixes: dict[str, Any] = {}
    for text in texts:
        pattern, equals, level = text.rpartition("=")
        if not equals or not pattern or not (level == "keep" or level.isdigit()):
            raise InputError(f"--fix {shown(text)}: write PATTERN=LEVEL, for example lm_head=8 or lm_head=keep")
        fixes[pattern] = level if level == "keep" else int(level)
    return fixes
