"""A journal of a search's evaluations on disk, so that a killed search resumes without repeating any."""

from __future__ import annotations

import fcntl
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kofn.core import checks
from kofn.core.checks import FailureError, InputError

_KIND = "kofn search"


class Record:
    """Evaluations of one search in a JSON-lines file: `earlier` holds those of earlier runs, `note` appends one.

    The first line identifies the search: `settings`, plain JSON, by name. A file of another search is refused
    and left as it is. Every line is written in one piece and synced before `note` returns; a last line that was cut off
    counts as not written. Without a path nothing is stored.
    """

    def __init__(self, path: str | os.PathLike[str] | None, settings: Mapping[str, Any]) -> None:
        self.earlier: list[tuple[list[float], float]] = []
        self._fd = -1
        if path is None:
            return
        self.path = Path(path)
        self._label = f"record={os.fspath(path)!r}"
        head = (json.dumps({"kind": _KIND, **settings}) + "\n").encode()
        fresh = not self.path.exists()
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(f"{self._label} cannot be written: {error.strerror}; name another file") from None
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise InputError(f"{self._label} is no regular file; name another")
            self._take(head)
            if fresh:
                _sync_folder(self.path.absolute().parent)
        except BaseException:
            self.close()
            raise

    def _take(self, head: bytes) -> None:
        """Lock the file, read the evaluations of earlier runs and drop a truncated last line."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{self._label} is being written by another search; let it finish") from None
        content = self.path.read_bytes()
        lines = content.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            cut = lines.pop()
            if not lines and not head.startswith(cut):
                raise InputError(f"{self._label} is no record of a search; name another file")
        if lines:
            self._compare(lines[0], json.loads(head))
            self.earlier = [self._line(line, number) for number, line in enumerate(lines[1:], 2)]
        self._end = sum(map(len, lines))
        os.ftruncate(self._fd, self._end)
        os.lseek(self._fd, self._end, os.SEEK_SET)
        if not lines:
            self._write(head)

    def _compare(self, line: bytes, wanted: Mapping[str, Any]) -> None:
        try:
            header = json.loads(line)
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("kind") != _KIND:
            raise InputError(f"{self._label} is no record of a search; name another file")
        for name in wanted:
            if header.get(name) != wanted[name]:
                how = "differs" if name == "members" else f"was {header.get(name)!r} and is {wanted[name]!r}"
                raise InputError(
                    f"{self._label} is of another search: {name} {how}; name another file, or ask as it was asked"
                )

    def _line(self, line: bytes, number: int) -> tuple[list[float], float]:
        try:
            row = json.loads(line)
            return [float(weight) for weight in row["weights"]], float(row["score"])
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{self._label}: line {number} is damaged; remove it and all that follow, or the file"
            ) from None

    def note(self, weights: Sequence[float], score: float) -> None:
        """Append one evaluation."""
        if self._fd >= 0:
            self._write((json.dumps({"weights": list(weights), "score": score}) + "\n").encode())

    def _write(self, line: bytes) -> None:
        try:
            if os.write(self._fd, line) < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self._end)
            raise FailureError(f"{self._label} could not be written: {error.strerror}; free space") from None
        self._end += len(line)

    def again(self, i: int, weights: Sequence[float]) -> float | None:
        """The score of evaluation `i` in an earlier run, or None."""
        if i >= len(self.earlier):
            return None
        recorded, score = self.earlier[i]
        # Another machine may round the search's sums differently.
        if len(recorded) != len(weights) or not all(map(_near, recorded, weights)):
            raise InputError(
                f"{self._label}: line {i + 2} has other weights than this search asks for; name another file"
            )
        return score

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rated(score: Any, weights: Sequence[float]) -> float:
    """The value of `score` as a float; -inf marks a blend that fails."""
    value = float(score) if checks.is_number(score) else math.nan
    if math.isnan(value) or value == math.inf:
        raise InputError(
            f"score gave {checks.shown(score)} for the weights {[round(weight, 4) for weight in weights]}; "
            "it must return a number, higher is better, or -inf for a blend that fails"
        )
    return value


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
