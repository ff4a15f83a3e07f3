"""What a run refuses of `--max-memory`, beforehand: by what its method, or else its objective, declares of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import bytes_of, is_sparse, matrix
from kofn.core.dispatch import refuse_derived
from kofn.core.pools import is_pool
from kofn.core.registry import Entry
from kofn.objectives.base import kind_of


def refuse_memory(entry: Entry, options: Mapping[str, Any], call: Mapping[str, Any], n: int) -> None:
    """Refuse a `max_memory` that the method would refuse on all n rows, in its words.

    Args:
        entry: the method that will run.
        options: its own options.
        call: its words, with the rows that were read.
        n: rows of the whole.

    Raises:
        InputError: the method holds more.
    """
    X = call.get("X")
    if X is None or is_pool(X) or is_sparse(X) or "max_memory" not in call:
        return
    ahead = CallAhead(n, np.shape(X)[1], matrix(X[:1]).itemsize, call, options)
    for word in sorted((entry.takes(call) or set()) - call.keys()):
        refuse_derived(word, n, ahead.itemsize, bytes_of(call["max_memory"]))
    if entry.refuse_ahead is not None:
        entry.refuse_ahead(ahead)
    elif "objective" in entry.accepted and (kind := kind_of(call.get("objective", "facility_location"))) is not None:
        kind.refuse_ahead(ahead)
