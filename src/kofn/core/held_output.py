"""Standard output or error held back while a library writes on it from below Python, and given on without its lines."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

# Other threads may still be writing what is dropped: no more comes after so many seconds of silence, or so many in all.
_SILENCE, _MOST = 0.1, 2.0


class HeldOutput:
    """A stream of the process, held back while at least one thread is within `holding`.

    Args:
        stream: 1 for standard output, 2 for standard error.
        dropped: what is left out of the text that is given on in the end.
        unfinished: what shows that more of it will come.
        on_failure_only: leave it out only where an error ended one of the calls.
    """

    def __init__(
        self,
        stream: int,
        dropped: re.Pattern[bytes],
        unfinished: re.Pattern[bytes] | None = None,
        *,
        on_failure_only: bool = False,
    ) -> None:
        self._stream, self._dropped, self._unfinished = stream, dropped, unfinished
        self._on_failure_only = on_failure_only
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
            dropping = self._failed or not self._on_failure_only
            if self._failed:
                self._wait_for_the_rest()
            os.dup2(self._original, self._stream)
            os.close(self._original)
            self._original, self._failed = -1, False
            if self._text is None:
                return
            self._text.seek(0)
            text = self._text.read()
            self._text.close()
            self._text = None
            with suppress(OSError):
                os.write(self._stream, self._dropped.sub(b"", text) if dropping else text)

    def _wait_for_the_rest(self) -> None:
        """Where some of the text will be left out: wait until nothing more comes."""
        # Reading by position leaves the place at which the stream goes on writing.
        if self._text is None or not hasattr(os, "pread"):
            return
        file, size = self._text.fileno(), -1
        silent_since = began = time.perf_counter()
        while (now := time.perf_counter()) - began < _MOST:
            text = os.pread(file, os.fstat(file).st_size, 0)
            if len(text) != size:
                size, silent_since = len(text), now
            more = self._unfinished is not None and self._unfinished.search(text)
            if not self._dropped.search(text) or (now - silent_since > _SILENCE and not more):
                return
            time.sleep(_SILENCE / 10)

    def _flush(self) -> None:
        # There may be no stream, or a closed one; C's own buffer stands below Python's.
        with suppress(OSError, ValueError, AttributeError):
            (sys.stdout if self._stream == 1 else sys.stderr).flush()
        with suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)
