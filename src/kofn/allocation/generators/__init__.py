"""Programs that are drawn, to try solvers on."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "DrawnProgram": "_drawn_programs",
    "drawn_program": "_drawn_programs",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
