"""Compiled code: what is not on disk is not compiled where nothing may be."""

from __future__ import annotations

import numba as nb
import pytest

from kofn.core.compiled import NotCompiledError, only_compiled


def test_nothing_is_compiled_and_what_is_loaded_still_runs() -> None:
    @nb.njit("i8(i8)", nogil=True)
    def known(x: int) -> int:
        return x + 1

    with only_compiled():
        assert known(1) == 2
        with pytest.raises(NotCompiledError, match="the compiled code of unknown is not on disk yet; kofn warmup"):

            @nb.njit("i8(i8)", nogil=True)
            def unknown(x: int) -> int:
                return x

    assert nb.njit("i8(i8)", nogil=True)(lambda x: x + 2)(1) == 3
