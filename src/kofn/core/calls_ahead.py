"""A call of which the rows are yet to be read: what a method can refuse before that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kofn.core.checks import bytes_of


@dataclass(frozen=True)
class CallAhead:
    """What is known of a call before its rows are read.

    Attributes:
        n: how many rows there will be.
        width: their features.
        itemsize: bytes of a number that is computed with, 4 or 8.
        words: the call's words, `X` being some of the rows.
        options: the method's own options that were given.

    Examples:
        >>> ahead = CallAhead(10**6, 64, 4, {"k": 9, "max_memory": "2GB"}, {})
        >>> ahead.max_memory, ahead.metric
        (2000000000, 'euclidean')
    """

    n: int
    width: int
    itemsize: int
    words: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def max_memory(self) -> int | None:
        """The bytes that the call allows, None for any."""
        given = self.words.get("max_memory")
        return None if given is None else bytes_of(given)

    @property
    def n_threads(self) -> int | None:
        """The threads of the call, None for the default."""
        return self.words.get("n_threads")

    @property
    def metric(self) -> str:
        """How rows are compared."""
        return str(self.words.get("metric") or "euclidean")
