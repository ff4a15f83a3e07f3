"""What a run refuses of `--max-memory`, told beforehand by the methods' own counts of what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.assignment.means import _relaxation
from kofn.core.checks import bytes_of, is_sparse, matrix
from kofn.core.dispatch import refuse_derived
from kofn.core.pools import is_pool
from kofn.core.registry import Entry
from kofn.objectives import _amounts, facility_location
from kofn.selection.pools import _sizes

# Methods without an objective of the user's that search facility location; those that hold memberships of all rows.
_OF_PAIRS, _OF_MEMBERSHIPS = ("sampled_greedy", "two_round_greedy"), ("sdp_kmeans", "ila_sdp")
# Objectives of summed similarities, as their refusals call them.
_OF_SIMILARITIES = {"saturated_coverage": "saturated coverage", "graph_cut": "graph cut"}


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
    width = np.shape(X)[1]
    size, room, threads = matrix(X[:1]).itemsize, bytes_of(call["max_memory"]), call.get("n_threads")
    for word in sorted((entry.takes(call) or set()) - call.keys()):
        refuse_derived(word, n, size, room)
    objective = call.get("objective", "facility_location") if "objective" in entry.accepted else None
    if entry.name == "two_round_greedy" and n > (options.get("part_rows") or _sizes.PART_ROWS):
        sizes = [options.get(name) for name in ("part_rows", "n_reference", "bound_rows")]
        _sizes.Rounds(n, width, size, call["k"], *sizes, n_threads=threads).refuse_memory(room)
    elif objective == "facility_location" or entry.name in _OF_PAIRS:
        facility_location.refuse_memory(n, width, size, call.get("metric") or "euclidean", room, threads)
    elif entry.name == "uncertainty_herding":
        metric = "rbf" if options.get("bandwidth") is None else "sqeuclidean"
        facility_location.refuse_memory(n, width, size, metric, room, threads)
    elif label := _OF_SIMILARITIES.get(str(objective)):
        _amounts.refuse_memory(n, width, size, room, threads, label)
    elif entry.name in _OF_MEMBERSHIPS:
        _relaxation.refuse_memory(n, call["k"] if entry.name == "ila_sdp" else 1, room)
