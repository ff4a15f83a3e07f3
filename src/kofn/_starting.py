"""Ctrl-C before the command line has its own handler: while the package itself is imported by the command `kofn`.

Imported first, and imports next to nothing. Where kofn is a library nothing changes.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_COMMANDS = ("kofn", "kofn.exe", "kofn-script.py")


def _end(_number: int, _frame: FrameType | None) -> None:
    """End the process: nothing has been opened yet, so nothing is left behind."""
    os.write(2, b"kofn: interrupted; no output was written\n")
    os._exit(130)


def _is_command() -> bool:
    """Whether this process is the installed command, or `python -m kofn`."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name in _COMMANDS or (name == "-m" and sys.orig_argv[-len(sys.argv)] == "kofn")


# What is ignored stays so (nohup).
if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
