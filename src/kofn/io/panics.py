"""What polars' Rust code prints of a panic, many lines, is kept off the terminal: its error says the same in one."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

from kofn.core.held_output import HeldOutput

# A report begins so and ends with a note on backtraces, or not before the end where it holds one.
_REPORT = re.compile(rb"\n?thread '[^'\n]*'[^\n]* panicked at .*?(?:\nnote: [^\n]*\n|\Z)", re.DOTALL)
# Other threads' reports may come after the error; a backtrace ends with a note.
_UNFINISHED = re.compile(rb"\nstack backtrace:\n(?!.*\nnote: )", re.DOTALL)
_HELD = HeldOutput(2, _REPORT, _UNFINISHED, on_failure_only=True)


def without_reports() -> AbstractContextManager[None]:
    """Hold standard error back; on an error its panics' reports are dropped, all else is printed at the end."""
    return _HELD.holding()
