"""How loops are compiled: functions that Python calls, and those that only compiled functions call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kofn.core.checks import FailureError

# No compiled function is called from C.
_ALL: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
# Inner functions carry no signature and no cache of their own: they are compiled into their callers, loaded with them.
# What would make them callable from Python would take a fifth of the compiler's time.
INNER: dict[str, Any] = {**_ALL, "no_cpython_wrapper": True}
OUTER: dict[str, Any] = {**_ALL, "cache": True}


# A fused multiplication and addition rounds once: faster, and closer to the real number.
CONTRACTED: dict[str, Any] = {"fastmath": {"contract"}}


def compiled_for(signature: str, read: int = 0) -> list[Any]:
    """The types that a loop is compiled for: those of the signature, for float32 and for float64 where it names `T`.

    Arrays among the first `read` arguments are declared read-only, so memory-mapped and read-only arrays are accepted.
    """
    from numba.core.sigutils import normalize_signature
    from numba.core.types import Array

    def locked(kind: Any) -> Any:
        return Array(kind.dtype, kind.ndim, kind.layout, readonly=True) if isinstance(kind, Array) else kind

    out = []
    for precision in ("f4", "f8") if "T" in signature else ("",):
        arguments, result = normalize_signature(signature.replace("T", precision))
        out.append(result(*map(locked, arguments[:read]), *arguments[read:]))
    return out


class NotCompiledError(FailureError):
    """Compiled code that is needed is not on disk, where nothing may be compiled."""


@contextmanager
def only_compiled() -> Iterator[None]:
    """Load compiled functions from disk and compile none: what is not there raises `NotCompiledError`.

    A module whose functions are not there is not imported either, so that a later import compiles them.
    """
    from numba.core import event

    class Refusal(event.Listener):
        def on_start(self, event: Any) -> None:
            name = event.data["dispatcher"].py_func.__name__
            raise NotCompiledError(f"the compiled code of {name} is not on disk yet; kofn warmup compiles all")

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Refusal()):
        yield
