"""What `kofn combine` can be asked, and where its answer goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from kofn.cli import arguments as words
from kofn.cli.arguments import COLUMNS, WEIGHTS, flag
from kofn.cli.verb_command import Section
from kofn.core.checks import InputError
from kofn.io.tensor_writer import OTHER_FILES
from kofn.tables.arguments import VerbArguments

MEMBERS = Section(
    "What is blended",
    (
        flag("--base", metavar="PATH", help="The checkpoint that the members were fine-tuned from."),
        flag(
            "--weights",
            metavar="A,B,..",
            type=WEIGHTS,
            help="Weights of the members, relative to their sum; of adapters folded into a model, as they are.",
        ),
        flag(
            "--sum/--mean",
            "summed",
            default=None,
            help="Add up what adapters or fine-tunes changed, or take the mean; the mean unless folded into a model.",
        ),
        flag(
            "--only",
            multiple=True,
            metavar="PATTERN",
            help="Blend these tensors, copy the others (repeatable); of adapters to fold, modules.",
        ),
        flag(
            "--skip",
            multiple=True,
            metavar="PATTERN",
            help="Copy these tensors, which need not match (repeatable); of adapters to fold, modules.",
        ),
        flag("--skip-nonfinite", is_flag=True, help="Leave out NaN and infinities instead of refusing them."),
        flag(
            "--force",
            is_flag=True,
            help="Replace weights that are there at -o; tables, reports and plans are replaced without it.",
        ),
        flag("--dtype", metavar="NAME", help="Float dtype of the blend: float32, bfloat16, ...; as the first member."),
        flag("--vocabulary", metavar="NAME", help="Match embeddings by token, into those of union, base or first."),
        flag("--device", metavar="NAME", help="Add up on a torch device: cuda, or auto for a GPU where there is one."),
    ),
)
JUDGES = Section(
    "What is ranked",
    (
        flag("--id", "--ids", "id_column", metavar="COL", help="Column that names the alternatives of a table."),
        words.columns("The judges' columns of a table, or the parameters' of draws, default every numeric one."),
        flag(
            "--lower",
            metavar="A,B",
            type=COLUMNS,
            help="Judges' columns where lower is better: perplexity, errors, seconds.",
        ),
        flag(
            "--judge-group",
            "judge_groups",
            multiple=True,
            metavar="NAME=A,B",
            help="Judges' columns that are ranked by first and count once together (repeatable); each other judge "
            "counts once.",
        ),
        flag(
            "--long",
            metavar="A,B,[C,]D",
            type=COLUMNS,
            help="Columns of a table of one score a row: what is ranked, who judges, the item judged (for a ranking "
            "in two levels), and the score; recognised where they are called so.",
        ),
        flag("--wins", is_flag=True, help="Cells are wins: how often the row won over the column, which is called so."),
    ),
)
PREDICTED = Section(
    "What was predicted",
    (
        flag(
            "--label",
            "--labels",
            "--y",
            "answers",
            metavar="COL|FILE",
            help="The answers that predictions are held against: a column of their table, or a file.",
        ),
        flag("-k", "--k", type=int, metavar="N", help="Blend at most so many of the models that made predictions."),
        flag(
            "--feature-columns",
            metavar="A,B",
            type=COLUMNS,
            help="Columns that rows are compared by: for each row those models count that were right near it "
            "(dynamic_ensemble_selection); --apply needs them too.",
        ),
        flag("--group", "group_column", metavar="COL", help="What a stacker's weights may vary over: items, horizons."),
        flag(
            "--apply",
            multiple=True,
            metavar="FILE",
            help="The same models' predictions of other rows, whose blend -o then gets (repeatable, or a glob).",
        ),
    ),
)
_READS, _WRITES, _WORKS = words.method_section(
    "A .safetensors file or a folder; for a ranking or blended predictions a table, or .npy; for draws .npz too.",
    "--out",
)
ENGINE = flag("--engine", metavar="NAME", help="Where checkpoints are blended: local (default) or ray; the same bytes.")
ANSWER = (_READS, _WRITES, Section(_WORKS.title, (*_WORKS.flags, ENGINE, words.ADDRESS)))


@dataclass(frozen=True, kw_only=True)
class CombineArguments(VerbArguments):
    """What `kofn combine` was asked."""

    VERB: ClassVar[str] = "combine"
    OPTIONS: ClassVar[tuple[str, ...]] = ("only", "skip", "skip_nonfinite", "dtype", "vocabulary", "lower")

    base: str | None
    weights: list[float] | None
    summed: bool | None
    only: tuple[str, ...]
    skip: tuple[str, ...]
    skip_nonfinite: bool
    dtype: str | None
    vocabulary: str | None
    force: bool
    id_column: str | None
    columns: tuple[str, ...] | None
    lower: tuple[str, ...] | None
    wins: bool
    answers: str | None = None
    k: int | None = None
    group_column: str | None = None
    apply: tuple[str, ...] = ()
    judge_groups: tuple[str, ...] = ()
    long: tuple[str, ...] | None = None
    feature_columns: tuple[str, ...] | None = None


def output_of(arguments: CombineArguments) -> str:
    if arguments.output is None:
        raise InputError("give -o OUTPUT: a .safetensors file or a folder for the blend")
    out = Path(arguments.output)
    if out.suffix.lower() in OTHER_FILES and not out.is_dir():
        raise InputError(f"-o {arguments.output}: checkpoints are safetensors; name a .safetensors file or a folder")
    there = out.is_file() or (out.is_dir() and any(out.glob("*.safetensors")))
    if there and not arguments.force:
        raise InputError(f"-o {arguments.output} is there already; name another place, or replace it with --force")
    return arguments.output
