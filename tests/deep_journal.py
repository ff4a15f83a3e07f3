"""What a deep run has done so far, so that one that was stopped goes on where it was, with the counts of before.

`KOFN_JOURNAL` names the file, a line of JSON a test. It is of one seed, one scale and one state of the code: where
those are others now a new one begins. A run in which all tests pass removes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def state_of_code() -> str:
    """A digest of all that a test's outcome depends on."""
    state = hashlib.blake2b(digest_size=8)
    for path in sorted(path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")):
        state.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return state.hexdigest()


class Journal:
    """The tests that passed in earlier runs of this one, with their counts.

    Args:
        path: the file.
        scale: what the run is of beside its seed.
        seed: of the run; None for that of the run that the file tells of, if it is of this scale and code.
    """

    def __init__(self, path: Path, scale: Mapping[str, Any], seed: int | None) -> None:
        # Tests change the folder that a name without one would be in.
        self.path = path.absolute()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        head = _read(lines[0]) if lines else None
        known = None if head is None else head.pop("seed", None)
        same = known is not None and head == scale and seed in (None, known)
        self.seed: int | None = known if same else seed
        self.head = dict(scale)
        self.passed: dict[str, dict[str, int]] = {}
        for line in lines[1:] if same else ():
            # The last line of a run that was killed may be half a line.
            if (row := _read(line)) is not None:
                self.passed[row["test"]] = row["counts"]
        self.continued = same

    def begin(self, seed: int) -> None:
        """Write the head of a new file; an old one that goes on stays."""
        if not self.continued:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({**self.head, "seed": seed}) + "\n", encoding="utf-8")

    def note(self, test: str, counts: Mapping[str, int]) -> None:
        """A test that passed."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * (not self._ends()) + json.dumps({"test": test, "counts": dict(counts)}) + "\n")

    def _ends(self) -> bool:
        """Whether the last line is whole."""
        return self.path.read_bytes().endswith(b"\n")

    def end(self) -> None:
        """All tests passed."""
        self.path.unlink(missing_ok=True)


def _read(line: str) -> Any:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
