"""What the laws and the hostile-input tests need to know of a method, declared beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Draw:
    """How to draw a call of a method.

    Args:
        plain: one valid value of a word or option that this method wants otherwise than the vocabulary does, by name;
            a callable is called without arguments (so that nothing is built on import).
        states_no_value: True where the plan's `value` is NaN by design, so that there is nothing to recount.
        silent: laws that check nothing of this method, by name.
    """

    plain: Mapping[str, Any | Callable[[], Any]] = field(default_factory=dict)
    states_no_value: bool = False
    silent: tuple[str, ...] = ()
