"""What each paper promises, re-run through the public API and held against what was recorded.

A claim is one file, `pNNN_short_name.py`, in the folder named like its method's home (`outside/` where it has none),
holding one function:

    @claim(paper=33, says="FasterPAM reaches PAM's loss while its work does not grow with k as PAM's does")
    def check(seed: int, scale: str, broken: bool = False) -> Evidence: ...

`python -m claims --ids 33 --seed 7` runs it; `--broken` runs the same code with the mechanism off, and then the claim
must not hold. `recorded.json` keeps what came out: `holds`; `holds-in-part`, naming in `fails` what of the paper's
sentence does not; `does-not-hold` with the reason; or `not-run`. Each name in `fails` is a criterion that the claim's
file judges, or has its limit on the run's figures in `limits`. Its `history` tells each change of a criterion made
after figures had been seen. `fresh.json` keeps how each claim came out at seeds that nobody had tuned on.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from claims.harness.limits import KEYS as LIMIT_KEYS
from claims.harness.limits import judged
from kofn.core.bibliography import papers

HERE = Path(__file__).resolve().parent
KINDS = ("measured", "reduced", "simulated")
OUTCOMES = ("holds", "holds-in-part", "does-not-hold", "not-run")
Record = Mapping[str, Any]
SCALES = ("small", "full")
_FILE = re.compile(r"p(\d+)_(\w+)\.py")


class ClaimError(Exception):
    """A claim that cannot be found or read: one line that says what to do."""


@dataclass(frozen=True)
class Evidence:
    """What one run of a claim found.

    Args:
        holds: whether everything the claim says was met in this run.
        measured: the figures, by name; plain numbers, texts, lists and mappings.
        expected: what the figures had to meet.
        baseline: what it was compared with, and how that was tuned.
        kind: "measured" (the paper's experiment), "reduced" (a smaller one of the same form) or "simulated".
        criteria: whether each part of the claim was met, by name, where the claim tells its parts apart.
    """

    holds: bool
    measured: Mapping[str, Any]
    expected: str
    baseline: str
    kind: str
    criteria: Mapping[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: one of {', '.join(KINDS)}")
        if self.criteria and self.holds != all(self.criteria.values()):
            raise ValueError(f"holds={self.holds}, but the criteria are {dict(self.criteria)}")

    def parts(self, record: Record) -> dict[str, bool]:
        """Whether each named part was met: the claim's own criteria, and what the record says does not hold."""
        parts = {**self.criteria, **judged(record.get("limits", {}), self.measured)}
        for name in record.get("fails", ()):
            if name not in parts:
                raise ClaimError(f"nothing judges {name!r}, which is recorded as failing: name one of the criteria")
        return parts

    def holds_but_for(self, fails: Sequence[str]) -> bool:
        """True where everything was met that is not among the criteria recorded as failing."""
        if not self.criteria:
            return self.holds
        return all(met for name, met in self.criteria.items() if name not in fails)


Check = Callable[..., Evidence]


@dataclass(frozen=True)
class Claim:
    """A claim that is loaded and ready to run."""

    paper: int
    says: str
    check: Check


@dataclass(frozen=True)
class Source:
    """A claim's file: what can be known of it without importing it."""

    paper: int
    name: str
    path: Path

    @property
    def says(self) -> str:
        """The claim's sentence, read from the text of the file."""
        for node in ast.walk(ast.parse(self.path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "claim":
                for word in node.keywords:
                    if word.arg == "says":
                        if isinstance(word.value, ast.Constant):
                            return str(word.value.value)
                        raise ClaimError(f"{self.path.name}: says= must be a plain text, so that it can be listed")
        raise ClaimError(f"{self.path.name} has no @claim(paper=..., says=...)")

    @property
    def reference(self) -> str:
        """The paper, as the bibliography has it; empty where it has no row."""
        paper = papers().get(str(self.paper))
        return str(paper) if paper else ""

    def load(self) -> Claim:
        """Import the file and take its claim."""
        module = self._module()
        found = [value.__claim__ for value in vars(module).values() if hasattr(value, "__claim__")]
        if len(found) != 1:
            raise ClaimError(f"{self.path.name} has {len(found)} functions under @claim; a file holds one")
        if found[0].paper != self.paper:
            raise ClaimError(f"{self.path.name} claims paper {found[0].paper}; its name says {self.paper}")
        one: Claim = found[0]
        return one

    def _module(self) -> ModuleType:
        if self.path.is_relative_to(HERE):
            # Under its own name, so that other processes find its functions.
            inside = self.path.relative_to(HERE).with_suffix("")
            return importlib.import_module(".".join(("claims", *inside.parts)))
        spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def claim(*, paper: int, says: str) -> Callable[[Check], Check]:
    """Mark a function as the claim of its file."""

    def mark(check: Check) -> Check:
        check.__claim__ = Claim(paper, says, check)  # type: ignore[attr-defined]
        return check

    return mark


def discover(folder: Path = HERE) -> dict[int, Source]:
    """Every claim by its paper's number, found by file name; nothing is imported."""
    found: dict[int, Source] = {}
    folder = folder.resolve()
    for path in sorted(folder.rglob("p*_*.py")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        paper = int(match[1])
        if paper in found:
            raise ClaimError(f"paper {paper} has two claims: {found[paper].path.name} and {path.name}; keep one")
        found[paper] = Source(paper, match[2], path)
    return dict(sorted(found.items()))


def recorded(path: Path = HERE / "recorded.json") -> dict[int, Record]:
    """The recorded outcome of every claim: {paper: {"outcome", "reason", "fails", "limits", "history"}}."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ClaimError(f"{path} cannot be read ({error}); it maps each paper to its outcome") from None
    for paper, row in rows.items():
        if row.get("outcome") not in OUTCOMES:
            raise ClaimError(f"{path.name}: paper {paper} has outcome {row.get('outcome')!r}; {', '.join(OUTCOMES)}")
        if row["outcome"] != "holds" and not row.get("reason"):
            raise ClaimError(f"{path.name}: paper {paper} is recorded as {row['outcome']} and gives no reason")
        if (row["outcome"] == "holds-in-part") != bool(row.get("fails")):
            raise ClaimError(
                f"{path.name}: paper {paper}: `fails` names what does not hold where a claim holds in part"
            )
        for name, limit in row.get("limits", {}).items():
            if name not in row.get("fails", ()) or limit.keys() not in LIMIT_KEYS:
                raise ClaimError(
                    f"{path.name}: paper {paper}: `limits` of {name!r}: give figures, and above or below, of what fails"
                )
        for change in row.get("history", ()):
            if change.keys() != {"old", "new", "why"}:
                raise ClaimError(f"{path.name}: paper {paper}: a line of `history` has old, new and why")
    return {int(paper): row for paper, row in rows.items()}
