"""What polars' Rust code prints of a panic, many lines, is kept off the terminal: its error says the same in one."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

# A report begins so and ends with a note on backtraces, or not before the end where it holds one.
_REPORT = re.compile(rb"\n?thread '[^'\n]*'[^\n]* panicked at .*?(?:\nnote: [^\n]*\n|\Z)", re.DOTALL)
_STDERR = 2


class _Held:
    """Standard error of the process, held back while at least one thread reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._failed = False
        self._original = -1
        self._text: IO[bytes] | None = None

    def begin(self) -> None:
        with self._lock:
            self._readers += 1
            if self._readers > 1:
                return
            _flush()
            # Where there is no standard error there is nothing to hold back.
            with suppress(OSError):
                self._original = os.dup(_STDERR)
                self._text = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the last reader)
                os.dup2(self._text.fileno(), _STDERR)

    def end(self, *, failed: bool) -> None:
        with self._lock:
            self._readers -= 1
            self._failed |= failed
            if self._readers or self._original < 0:
                return
            _flush()
            os.dup2(self._original, _STDERR)
            os.close(self._original)
            self._original, failed, self._failed = -1, self._failed, False
            if self._text is None:
                return
            self._text.seek(0)
            text = self._text.read()
            self._text.close()
            self._text = None
            with suppress(OSError):
                os.write(_STDERR, _REPORT.sub(b"", text) if failed else text)


def _flush() -> None:
    # There may be no stream, or a closed one.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()


_HELD = _Held()


@contextmanager
def without_reports() -> Iterator[None]:
    """Hold standard error back; on an error its panics' reports are dropped, all else is printed at the end."""
    _HELD.begin()
    failed = True
    try:
        yield
        failed = False
    finally:
        _HELD.end(failed=failed)
