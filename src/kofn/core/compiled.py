"""How loops are compiled: functions that Python calls, and those that only compiled functions call."""

from __future__ import annotations

from typing import Any

# No compiled function is called from C.
_ALL: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# Inner functions carry no signature and no cache of their own: they are compiled into their callers, loaded with them.
# What would make them callable from Python would take a fifth of the compiler's time.
INNER: dict[str, Any] = {**_ALL, "no_cpython_wrapper": True}
OUTER: dict[str, Any] = {**_ALL, "cache": True}
