"""Where plans find what draws them.

Reports, the notebook's view and plots stand above plans, which may not import them; `kofn/__init__` hands them down.
"""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, Protocol


class Drawing(Protocol):
    """The functions of `kofn.report`."""

    def write_report(self, plan: Any, path: Any, **context: Any) -> str | PathLike[str]:
        """Write an HTML file."""

    def notebook(self, plan: Any) -> str:
        """HTML for a notebook's cell."""

    def plot(self, plan: Any, ax: Any = None) -> Any:
        """Draw with matplotlib."""


_sources: list[Callable[[], Any]] = []


def drawn_by(source: Callable[[], Any]) -> None:
    """Say where plans are drawn; `source` is called when the first plan is."""
    _sources[:] = [source]


def drawing() -> Drawing:
    """The module that draws plans."""
    module: Drawing = _sources[0]()
    return module
