"""What is typed on the command line: the flags that verbs share, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import click

from kofn.cli.flags import Columns, Flag, Ids, Names
from kofn.cli.verb_command import Section
from kofn.core import checks
from kofn.core.checks import InputError, share_of_rows
from kofn.io.label_tools import TOOLS
from kofn.tables.arguments import Quotas

_QUOTA = re.compile(r"^(?P<column>[^=]+)=(?P<group>.*):(?P<low>\d*(\.?\d+%)?)(?P<dash>-?)(?P<high>\d*(\.?\d+%)?)$")


# How far percents may be from 100 in all, which thirds in whole percents are.
_ROUNDED = 0.015


class _Number(click.ParamType):
    """A number, whole where it is written so: whole budgets are held without rounding."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        return int(number) if number.is_integer() else number


class _Share(click.ParamType):
    """A number between 0 and 1, or percents."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return checks.share(str(value), "share")
        except InputError as error:
            self.fail(str(error).removeprefix("share="), param, ctx)


class _Numbers(click.ParamType):
    """Numbers with commas between."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: give numbers with commas between, for example .5,.3,.2", param, ctx)


class Percents(list[float]):
    """Shares that were typed in percent."""


class _Weights(click.ParamType):
    """Numbers with commas between, or percents."""

    name = "weights"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            weights = checks.weights_of_text(value)
        except InputError as error:
            self.fail(str(error).removeprefix("weights="), param, ctx)
        return Percents(weights) if "%" in value else weights


def rescaled(weights: Sequence[float] | None) -> str | None:
    """What is said of percents that are not 100 in all where weights count by their share; thirds may be rounded."""
    total = sum(weights or ())
    if not isinstance(weights, Percents) or abs(total - 1) < _ROUNDED or not total > 0:
        return None
    shares = ", ".join(f"{100 * weight / total:.3g}%" for weight in weights)
    return f"--weights are {100 * total:.4g}% in all, and count by their share of that: {shares}"


class _Capacity(click.ParamType):
    """One whole number, or one for each bin with commas between."""

    name = "capacity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            counts = [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: give one whole number, or one for each bin, for example 50,30,20", param, ctx)
        return counts if len(counts) > 1 else counts[0]


class _OrTable(click.ParamType):
    """What another type takes, or the name of a table with a row for each bin."""

    def __init__(self, kind: click.ParamType) -> None:
        self.kind, self.name = kind, kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.lower().endswith((".csv", ".tsv", ".parquet", ".jsonl")):
            return value
        return self.kind.convert(value, param, ctx)


class _Amounts(_Number):
    """One number, or one for each bin with commas between."""

    name = "amounts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        amounts = [super(_Amounts, self).convert(part, param, ctx) for part in str(value).split(",")]
        return amounts if len(amounts) > 1 else amounts[0]


class _CountOrAuto(click.ParamType):
    """A whole number, or the word auto."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).lower() == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r}: give a whole number or auto", param, ctx)


class _CountOrShare(click.ParamType):
    """A whole number, or percents of the rows."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        try:
            return share_of_rows(text) if text.endswith("%") else int(text)
        except InputError as error:
            self.fail(str(error).removeprefix("k="), param, ctx)
        except ValueError:
            self.fail(f"{text!r}: give a whole number, or a share of the rows such as 10%", param, ctx)


class _ForTool(click.ParamType):
    """A labelling tool and the file that it imports."""

    name = "tool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        tool, _equals, path = value.partition("=")
        if tool not in TOOLS or not path:
            wanted = " or ".join(f"{name}=FILE.json" for name in TOOLS)
            self.fail(f"{value!r}: give {wanted}", param, ctx)
        return tool, path


NUMBER, NUMBERS, CAPACITY, COUNT_OR_AUTO, NAMES = _Number(), _Numbers(), _Capacity(), _CountOrAuto(), Names()
SHARE, COUNT_OR_SHARE, WEIGHTS = _Share(), _CountOrShare(), _Weights()
FOR_TOOL = _ForTool()
COLUMNS, IDS, CAPACITY_OR_TABLE, AMOUNTS_OR_TABLE = Columns(), Ids(), _OrTable(CAPACITY), _OrTable(_Amounts())


def flag(*names: str, help: str, **settings: Any) -> click.Option:
    """One flag; its last name without dashes, or else its longest, is the field that it sets."""
    return Flag(list(names), help=help, **settings)


ID = flag("--id", "--ids", "id_column", metavar="COL", help="Column of unique ids, default the row number.")
WEIGHT = flag(
    "--weight", "--weights", "weight_column", metavar="COL", help="Column of weights: how much each row counts."
)
LABEL = flag(
    "--label", "--y", "label_column", metavar="COL", help="Column of classes, for methods that learn from labels."
)
METRIC = flag("--metric", metavar="NAME", help="euclidean (default), sqeuclidean, cosine, rbf, precomputed.")
TEXT = flag("--text", metavar="COL", help="Compare rows by this text column (by its words, or by --embedder).")
EMBEDDER = flag(
    "--embedder", metavar="MODEL", help="Of --text: minilm (kofn[minilm]), a model's folder, .onnx file or name; tfidf."
)
NO_CACHE = flag("--no-cache", is_flag=True, help="Neither use nor keep what --embedder gave before.")
VECTORS = flag("--vectors", metavar="COL", help="Compare rows by this column of vectors (or this array of an .npz).")
READING = (
    flag("--na", metavar="A,B", type=NAMES, help="Cells that stand for a missing value, such as NA,-,n/a."),
    flag("--decimal", metavar="SIGN", help="The sign before decimals, '.' (default) or ','."),
    flag("--delimiter", metavar="SIGN", help="What separates the fields of a line: ';', '|', tab, ..."),
    flag("--encoding", metavar="NAME", help="Encoding of the text, UTF-8 by default: latin-1, cp1252, ..."),
)
GAPS = (
    flag("--drop-empty", is_flag=True, help="Leave out rows that miss a value in a column that is used."),
    flag("--impute", metavar="HOW", help="Fill missing values of compared columns: median, mean or most_frequent."),
)
CATEGORIES = flag(
    "--categories",
    metavar="A,B",
    type=COLUMNS,
    help="Of --columns, those that hold names, also where they are numbers.",
)
IMAGES = flag("--images", metavar="ARRAY", help="Array of an .npz with one image a row, for the report.")


DROP = flag("--drop", metavar="A,B", type=COLUMNS, help="Leave these columns out of what is written.")


DEVICE = flag("--device", metavar="NAME", help="What compares rows: cuda, or auto for a GPU where there is one.")
ADDRESS = flag("--address", metavar="HOST:PORT", help="Of the Ray cluster; also auto, or ray://HOST:PORT.")


def columns(help: str) -> click.Option:
    """The flag that names several columns of the file."""
    return flag("--columns", metavar="A,B", type=COLUMNS, help=help)


def method_section(output: str, *more: str) -> tuple[Section, Section, Section]:
    """The flags that every verb has: where the answer goes, and how it is found. `more` are other names of --output."""
    writes = Section(
        "What is written",
        (
            flag("-o", "--output", *more, "output", metavar="PATH", help=output),
            flag("--report", metavar="HTML", help="Write a self-contained report of the answer."),
            flag("--plan", "plan_path", metavar="PATH", help="Save the plan itself, for kofn.core.plans.Plan.load."),
            flag("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
            flag("--dry-run", is_flag=True, help="Say seconds, bytes and exactness beforehand, and stop."),
        ),
    )
    reads = Section("How a table of text is read", READING)
    works = Section(
        "How it is found",
        (
            flag(
                "-m",
                "--method",
                default="auto",
                show_default=True,
                metavar="NAME",
                help="See `kofn methods`; `--method M --help` shows M's options.",
            ),
            flag(
                "-O",
                "--option",
                "extra",
                multiple=True,
                metavar="KEY=VALUE",
                help="An option of the method (repeatable); its own flag does the same.",
            ),
            flag("--seed", type=int, help="Same seed, same answer."),
            flag("--max-memory", metavar="BYTES", help="What the work may hold, for example 600MB."),
            flag("--threads", "--n-threads", "n_threads", type=int, help="The answer is the same for any number."),
            flag("--time-limit", type=float, metavar="SECONDS", help="Stop then and keep what is valid."),
        ),
    )
    return reads, writes, works


def parse_quotas(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> Quotas:
    """{column: {group: (least, most)}} of `--quota COL=GROUP:A-B` flags."""
    quotas: dict[str, dict[str, tuple[int | Fraction | None, int | Fraction | None]]] = {}
    for text in texts:
        match = _QUOTA.match(text)
        if match is None or not (match["low"] or match["high"]):
            raise InputError(
                f"--quota {text!r}: write COL=GROUP:A-B, for example lang=de:10-50, lang=de:10-, lang=de:-50 or "
                "lang=de:20%-30%"
            )
        ends = quotas.setdefault(match["column"], {})
        if match["group"] in ends:
            raise InputError(f"--quota names the group {match['group']!r} twice; write both ends at once, A-B")
        low, high = _end(match["low"], text), _end(match["high"], text)
        if low is not None and high is not None and isinstance(low, Fraction) != isinstance(high, Fraction):
            raise InputError(f"--quota {text!r}: one end is a share and one a number; write both alike")
        ends[match["group"]] = (low, high if match["high"] or match["dash"] else low)
    return quotas


def parse_counts(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> dict[str, int]:
    """{column: N} of `--each COL=N` flags."""
    counts: dict[str, int] = {}
    for text in texts:
        column, equals, number = text.rpartition("=")
        if not equals or not number.isdigit() or int(number) < 1:
            raise InputError(f"--each {text!r}: write COL=N, for example lang=20")
        counts[column] = int(number)
    return counts


def _end(text: str, flag_text: str) -> int | Fraction | None:
    """A whole number, a share such as 12.5%, or nothing."""
    if not text.endswith("%"):
        return int(text) if text else None
    share = Fraction(text[:-1]) / 100
    if share > 1:
        raise InputError(f"--quota {flag_text!r}: {text} is more than all picks; write at most 100%")
    return share
