"""RESULTS.md: what came out of each claim, one row and one section a paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import HERE, ClaimError, Record, discover, recorded
from claims.harness.fresh import held_at

Row = dict[str, Any]
# What a section says of the record, whatever a run found.
RECORDS = ("- Recorded as ", "- Does not hold: ", "- Criterion changed from ")


def results(rows: Sequence[Row], *, seed: int, scale: str, folder: Path = HERE) -> str:
    """The text of RESULTS.md."""
    return _text_of(_head(seed, scale), {row["paper"]: (_cells(row), _section(row)) for row in rows}, folder)


def written(folder: Path, *, seed: int, scale: str) -> str:
    """The text of RESULTS.md as it stands, for `renewed`.

    Raises:
        ClaimError: there is none, or it is of another seed or scale.
    """
    path = folder / "RESULTS.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text.startswith(_head(seed, scale)):
        raise ClaimError(
            f"RESULTS.md is not of seed {seed} and scale {scale}: leave out --seed and --scale to renew rows of it, or "
            "write it whole, with --all --write"
        )
    return text


def renewed(text: str, rows: Sequence[Row], *, seed: int, scale: str, folder: Path = HERE) -> str:
    """RESULTS.md with the rows of the claims that were run; of the others what is recorded and the fresh seeds.

    Raises:
        ClaimError: a claim that was not run has no row in it.
    """
    sections = _sections(text)
    table = {int(line.split("|")[1]): line for line in text.splitlines() if re.match(r"\| \d", line)}
    outcomes = recorded(folder / "recorded.json")
    kept = {}
    for paper, line in table.items():
        record = outcomes.get(paper, {"outcome": "unrecorded"})
        lead, outcome, _, _, kind, seconds = line.strip("| ").rsplit(" | ", 5)
        if (outcome, record["outcome"]) == ("holds", "holds-in-part"):
            outcome = "holds in part"  # a part that nobody judged is recorded as failing since
        kept[paper] = (
            [*lead.split(" | ", 1), outcome, record["outcome"], kind, seconds],
            _recorded(sections[paper], record),
        )
    kept |= {row["paper"]: (_cells(row), _section(row)) for row in rows}
    if missing := discover(folder).keys() - kept.keys():
        raise ClaimError(f"RESULTS.md has no row of paper {min(missing)}: run it, or write the file whole, with --all")
    return _text_of(_head(seed, scale), kept, folder)


def unchanged(text: str, row: Row) -> bool:
    """Whether the claim's section, figures and all, is the one that RESULTS.md had already.

    Seconds do not count, nor whether what is recorded as failing was met at this seed: its figures do.
    """
    passing = {f"- {word}: {name}" for word in ("Met", "Not met") for name in row["fails"]}

    def kept(section: str) -> list[str]:
        lines = _recorded(section, {"outcome": ""}).splitlines()
        return [line for line in lines if "seconds" not in line and line not in passing]

    return not row["error"] and kept(_sections(text).get(row["paper"], "")) == kept(_section(row))


def _sections(text: str) -> dict[int, str]:
    return {int(part[3:].split(":")[0]): part.strip() for part in re.split(r"\n(?=## )", text)[1:]}


def outcome_of(row: Row) -> str:
    """What came out, in words."""
    if row["error"]:
        return "failed to run"
    if row["holds"] is None:
        return "not run"
    if row["holds"] and row["recorded"] != "holds-in-part":
        return "holds"
    return "holds in part" if row.get("met") and row["fails"] else "does not hold"


def _head(seed: int, scale: str) -> str:
    return "\n".join(
        (
            "# Claims",
            "",
            f"Written by `python -m claims --all --write` (seed {seed}, scale {scale}), which runs every row again;",
            "`--ids` in place of `--all` renews the rows of these papers. With `--broken`, mechanism off, no row",
            "may hold. Seconds are of the machine it ran on.",
            "",
            "Fresh seeds: at how many seeds that nobody had tuned on it held, of how many it was tried at",
            "(`python -m claims --all --fresh 10`). Empty: not tried since the claim's file last changed.",
            "",
        )
    )


def _text_of(head: str, kept: Mapping[int, tuple[Sequence[str], str]], folder: Path) -> str:
    sources = discover(folder)
    lines = [
        "| paper | claim | outcome | recorded | fresh seeds | kind | seconds |",
        "|---:|---|---|---|---:|---|---:|",
    ]
    papers = [paper for paper in sources if paper in kept]
    for paper in papers:
        tried, held = held_at(folder / "fresh.json", sources[paper])
        cells = list(kept[paper][0])
        cells.insert(4, f"{held} of {tried}" if tried else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([head, *lines]) + "\n\n" + "\n\n".join(kept[paper][1] for paper in papers) + "\n"


def _cells(row: Row) -> list[str]:
    """A line of the table, without the fresh seeds."""
    says = row["says"].replace("|", "\\|")
    return [str(row["paper"]), says, outcome_of(row), row["recorded"], row["kind"], f"{row['seconds']:.1f}"]


def _section(row: Row) -> str:
    parts = [f"## {row['paper']}: {row['claim'].replace('_', ' ')}", "", f"{row['says']}.", ""]
    if row["reference"]:
        parts.append(f"- Paper: {row['reference']}")
    if row["error"]:
        parts.append(f"- Failed to run: {row['error']}")
    parts += [f"- {'Met' if met else 'Not met'}: {name}" for name, met in row.get("criteria", {}).items()]
    if row["expected"]:
        parts += [f"- Expected: {row['expected']}", f"- Baseline: {row['baseline']}"]
    for name, value in row["measured"].items():
        parts += _bullets(name, value)
    record = {"outcome": row["recorded"], "reason": row["reason"], "fails": row["fails"], "history": row["history"]}
    return _recorded("\n".join(parts), record)


def _recorded(section: str, record: Record) -> str:
    """The section with what is recorded now."""
    lines = [line for line in section.splitlines() if not line.startswith(RECORDS)]
    statements = []
    if record.get("reason"):
        statements.append(f"- Recorded as {record['outcome']}: {record['reason']}")
    statements += [f"- Does not hold: {name}" for name in record.get("fails") or ()]
    statements += [
        f"- Criterion changed from {c['old']} to {c['new']}: {c['why']}" for c in record.get("history") or ()
    ]
    first = next((index for index, line in enumerate(lines) if line.startswith("- ")), len(lines))
    first += first < len(lines) and lines[first].startswith("- Paper: ")
    return "\n".join([*lines[:first], *statements, *lines[first:]])


def _bullets(name: str, value: Any, depth: int = 0) -> list[str]:
    """A figure as list items: mappings of mappings one level deeper, a paired difference in one line."""
    lead = "  " * depth + f"- {name}"
    if not isinstance(value, Mapping):
        return [f"{lead}: {_text(value)}"]
    if value.keys() == {"mean", "low", "high", "runs"}:
        low, high = _text(value["low"]), _text(value["high"])
        return [f"{lead}: {_text(value['mean'])}, limits {low} and {high}, {value['runs']} runs"]
    if not any(isinstance(item, Mapping) for item in value.values()):
        return [f"{lead}: " + ", ".join(f"{key} {_text(item)}" for key, item in value.items())]
    return [lead, *(line for key, item in value.items() for line in _bullets(key, item, depth + 1))]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
