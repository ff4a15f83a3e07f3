"""Standard output or error held back while a library writes on it from below Python, and given on without its lines."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


class HeldOutput:
    """A stream of the process, held back while at least one thread is within `holding`.

    Args:
        stream: 1 for standard output, 2 for standard error.
        dropped: what is left out of the text that is given on in the end.
        on_failure_only: leave it out only where an error ended one of the calls.
    """

    def __init__(self, stream: int, dropped: re.Pattern[bytes], *, on_failure_only: bool = False) -> None:
        self._stream, self._dropped, self._on_failure_only = stream, dropped, on_failure_only
        self._lock = threading.Lock()
        self._holders = 0
        self._failed = False
        self._original = -1
        self._text: IO[bytes] | None = None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the stream back."""
        self._begin()
        failed = True
        try:
            yield
            failed = False
        finally:
            self._end(failed=failed)

    def _begin(self) -> None:
        with self._lock:
            self._holders += 1
            if self._holders > 1:
                return
            self._flush()
            # Where the stream is closed there is nothing to hold back.
            with suppress(OSError):
                self._original = os.dup(self._stream)
                self._text = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the last holder)
                os.dup2(self._text.fileno(), self._stream)

    def _end(self, *, failed: bool) -> None:
        with self._lock:
            self._holders -= 1
            self._failed |= failed
            if self._holders or self._original < 0:
                return
            self._flush()
            os.dup2(self._original, self._stream)
            os.close(self._original)
            dropping = self._failed or not self._on_failure_only
            self._original, self._failed = -1, False
            if self._text is None:
                return
            self._text.seek(0)
            text = self._text.read()
            self._text.close()
            self._text = None
            with suppress(OSError):
                os.write(self._stream, self._dropped.sub(b"", text) if dropping else text)

    def _flush(self) -> None:
        # There may be no stream, or a closed one; C's own buffer stands below Python's.
        with suppress(OSError, ValueError, AttributeError):
            (sys.stdout if self._stream == 1 else sys.stderr).flush()
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)
