"""Compiled min-cost flow of balanced assignment: items move between bins along shortest paths.

Nodes are the bins and, last, the free slots. Moving an item from bin a to bin b costs the decrease of its score; a
free slot costs nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np

from kofn.assignment.routing._kernels import worse
from kofn.core.compiled import INNER, OUTER, compiled_for


class _Members(NamedTuple):
    """The items of bin j are `items[offsets[j] : offsets[j] + load[j]]`; item i is the `position[i]`-th of its bin."""

    offsets: Any
    items: Any
    position: Any
    load: Any


class _Lists(NamedTuple):
    """For each pair of bins (a, b), the items of a in increasing order of the cost of moving to b.

    A list holds at most `width` items, of which those in front..size are valid; earlier ones have left the bin. `whole`
    marks lists that contain every item of a that lists b; other lists are rebuilt when they run out.
    """

    keys: Any
    items: Any
    front: Any
    size: Any
    whole: Any


class _Search(NamedTuple):
    """State of one shortest-path search: each node's distance, predecessor and whether it is settled."""

    distance: Any
    parent: Any
    reached: Any


@nb.njit(**INNER)
def _offer(keys, items, size, key, item):
    """Insert an item into a sorted list, dropping the last of a full one; return the new length."""
    most = len(keys)
    if size == most:
        if not worse(keys[most - 1], items[most - 1], key, item):
            return size
        size -= 1
    position = size
    while position > 0 and worse(keys[position - 1], items[position - 1], key, item):
        keys[position], items[position] = keys[position - 1], items[position - 1]
        position -= 1
    keys[position], items[position] = key, item
    return size + 1


@nb.njit(**INNER)
def _refill(scores, members, lists, a, b):
    """Rebuild the list from bin a to bin b from all items of a."""
    keys, items, size = lists.keys[a, b], lists.items[a, b], 0
    own = members.items[members.offsets[a] :]
    for position in range(members.load[a]):
        i = own[position]
        if scores[i, b] > -np.inf:
            size = _offer(keys, items, size, np.float64(scores[i, b]) - np.float64(scores[i, a]), i)
    lists.front[a, b], lists.size[a, b], lists.whole[a, b] = 0, size, size < len(keys)


@nb.njit(**INNER)
def _best_at(scores, high, price, labels):
    """Assign each item to its best bin at these prices, ties to the bin with the most room; return the loads."""
    load = np.zeros(scores.shape[1], np.int64)
    for i in range(len(scores)):
        best, top = -1, -np.inf
        for j in range(scores.shape[1]):
            worth = np.float64(scores[i, j]) - price[j]
            if worth > top or (best >= 0 and worth == top and high[j] - load[j] > high[best] - load[best]):
                best, top = j, worth
        labels[i] = best
        load[best] += 1
    return load


@nb.njit(**INNER)
def _surplus(load, low, high, price, flow):
    """(nodes,) number of items that must leave (+) or enter (-) each node; sets `flow`, each bin's target load.

    At the price of a free slot, bins of a higher price must be full and cheaper ones at their lower bound.
    """
    bins = len(load)
    excess, n = np.zeros(bins + 1, np.int64), 0
    for j in range(bins):
        flow[j] = min(max(load[j], low[j]), high[j])
        if price[j] != price[bins]:
            flow[j] = high[j] if price[j] > price[bins] else low[j]
        excess[j] = load[j] - flow[j]
        excess[bins] += flow[j]
        n += load[j]
    excess[bins] -= n
    return excess


@nb.njit(**INNER)
def _members_of(labels, load, high, moving):
    """The members of every bin, with room for the larger of its initial load and its upper bound."""
    bins = len(load)
    offsets = np.zeros(bins + 1, np.int64)
    for j in range(bins):
        offsets[j + 1] = offsets[j] + max(load[j], min(high[j], load[j] + moving))
    items, position = np.empty(offsets[bins], np.int32), np.empty(len(labels), np.int64)
    members = _Members(offsets, items, position, load)
    load[:] = 0
    for i in range(len(labels)):
        _arrive(members, i, labels[i])
    return members


@nb.njit(**INNER)
def _lists_of(scores, members, width):
    """The lists of every pair of bins."""
    bins = scores.shape[1]
    keys, items = np.empty((bins, bins, width)), np.empty((bins, bins, width), np.int32)
    front, size = np.zeros((bins, bins), np.int64), np.zeros((bins, bins), np.int64)
    lists = _Lists(keys, items, front, size, np.ones((bins, bins), np.bool_))
    for a in range(bins):
        for b in range(bins):
            if a != b:
                _refill(scores, members, lists, a, b)
    return lists


@nb.njit(**INNER)
def _arrive(members, i, b):
    members.position[i] = members.load[b]
    members.items[members.offsets[b] + members.load[b]] = i
    members.load[b] += 1


@nb.njit(**INNER)
def _leave(members, i, a):
    """Item i leaves bin a, whose last member takes its position."""
    members.load[a] -= 1
    last = members.items[members.offsets[a] + members.load[a]]
    members.items[members.offsets[a] + members.position[i]], members.position[last] = last, members.position[i]


@nb.njit(**INNER)
def _nearest_open(search):
    """The nearest unsettled reachable node; -1 if none."""
    a = -1
    for other in range(len(search.distance)):
        if (
            not search.reached[other]
            and search.distance[other] < np.inf
            and (a < 0 or search.distance[other] < search.distance[a])
        ):
            a = other
    return a


@nb.njit(**INNER)
def _relax(low, high, price, flow, lists, search, a):
    """Relax the edges that leave node a."""
    bins = len(flow)
    for b in range(bins + 1):
        if search.reached[b]:
            continue
        step = price[b] - price[a]
        if a == bins:
            if flow[b] == low[b]:
                continue
        elif b == bins:
            if flow[a] == high[a]:
                continue
        elif lists.front[a, b] == lists.size[a, b]:
            continue
        else:
            step -= lists.keys[a, b, lists.front[a, b]]
        # Reduced costs are >= 0 up to rounding.
        reach = search.distance[a] + max(step, 0.0)
        if reach < search.distance[b]:
            search.distance[b], search.parent[b] = reach, a


@nb.njit(**INNER)
def _shortest_path(low, high, price, flow, excess, lists, search):
    """Dijkstra's search from the nodes with too many items to the nearest one with too few; -1 if none is reachable.

    If no item is left to move, also -1, with no node reached.
    """
    search.distance[:] = np.inf
    search.parent[:] = -1
    search.reached[:] = False
    for a in range(len(excess)):
        if excess[a] > 0:
            search.distance[a] = 0.0
    while True:
        a = _nearest_open(search)
        if a < 0:
            return -1
        search.reached[a] = True
        if excess[a] < 0:
            return a
        _relax(low, high, price, flow, lists, search, a)


@nb.njit(**INNER)
def _raise_prices(price, search, end):
    """Raise prices so that every step of the path to this node has reduced cost zero."""
    for a in range(len(price)):
        if search.reached[a]:
            price[a] += search.distance[end] - search.distance[a]


@nb.njit(**INNER)
def _leave_along(labels, flow, members, lists, parent, end):
    """Remove the moved items from their bins along the path; return its first node."""
    bins, b = len(flow), end
    while parent[b] >= 0:
        a = parent[b]
        if a == bins:
            flow[b] -= 1
        elif b == bins:
            flow[a] += 1
        else:
            i = lists.items[a, b, lists.front[a, b]]
            _leave(members, i, a)
            labels[i] = b
        b = a
    return b


@nb.njit(**INNER)
def _enlist(lists, b, c, key, i):
    """Enter item i in the list of those that can move from bin b to bin c."""
    width = lists.keys.shape[2]
    keys, items = lists.keys[b, c], lists.items[b, c]
    front, size = lists.front[b, c], lists.size[b, c]
    # A truncated list is unknown beyond its last entry.
    if not lists.whole[b, c] and worse(key, i, keys[size - 1], items[size - 1]):
        return
    if front == size:
        front, size = 0, 0
    elif size == width and front > 0:
        for position in range(front, size):
            keys[position - front] = keys[position]
            items[position - front] = items[position]
        front, size = 0, size - front
    lists.whole[b, c] &= size < width
    lists.front[b, c] = front
    lists.size[b, c] = front + _offer(keys[front:], items[front:], size - front, key, i)


@nb.njit(**INNER)
def _list_newcomer(scores, lists, i, b):
    """Enter item i, now in bin b, in the lists that start at b."""
    for c in range(scores.shape[1]):
        if c != b and scores[i, c] > -np.inf:
            _enlist(lists, b, c, np.float64(scores[i, c]) - np.float64(scores[i, b]), i)


@nb.njit(**INNER)
def _arrive_along(scores, members, lists, parent, end):
    """Add the moved items to their new bins and lists along the path."""
    bins, b = scores.shape[1], end
    while parent[b] >= 0:
        a = parent[b]
        if a < bins and b < bins:
            i = lists.items[a, b, lists.front[a, b]]
            _arrive(members, i, b)
            _list_newcomer(scores, lists, i, b)
        b = a


@nb.njit(**INNER)
def _mend_lists(scores, labels, members, lists, parent, end):
    """Skip items that left, in the lists of the path's bins; return the number of lists that were rebuilt."""
    bins, b, read = scores.shape[1], end, 0
    while parent[b] >= 0:
        a = parent[b]
        if a < bins:
            for c in range(bins):
                while lists.front[a, c] < lists.size[a, c] and labels[lists.items[a, c, lists.front[a, c]]] != a:
                    lists.front[a, c] += 1
                if lists.front[a, c] == lists.size[a, c] and not lists.whole[a, c]:
                    _refill(scores, members, lists, a, c)
                    read += 1
        b = a
    return read


@nb.njit(compiled_for("void(T[:,::1],i8[::1],i8[::1],f8[::1],i4[::1],i8[::1],b1[::1],i8,i8[::1])", read=1), **OUTER)
def min_cost_flow(scores, low, high, price, labels, flow, reached, width, counts):
    """Assign each item to one bin for the largest total score, loads within low..high; labels, prices and loads.

    Starts from each item's best bin at the given prices and moves items along shortest paths from overfull to underfull
    bins; after each path the assignment is optimal for its own loads. price[bins] is the
    price of a slot that stays free. Where some load cannot be met, `reached` holds all nodes that the surplus can get
    to; else it is all False. `width` is how many items a list holds; `counts` gets the number of paths and of lists
    that were read anew.
    """
    nodes = scores.shape[1] + 1
    load = _best_at(scores, high, price, labels)
    excess = _surplus(load, low, high, price, flow)
    members = _members_of(labels, load, high, np.abs(excess[:-1]).sum())
    lists = _lists_of(scores, members, width)
    search = _Search(np.empty(nodes), np.empty(nodes, np.int64), reached)
    while True:
        end = _shortest_path(low, high, price, flow, excess, lists, search)
        if end < 0:
            return
        counts[0] += 1
        _raise_prices(price, search, end)
        # Departures come before arrivals, and lists are repaired last, because the path is read from them.
        begin = _leave_along(labels, flow, members, lists, search.parent, end)
        excess[end] += 1
        excess[begin] -= 1
        _arrive_along(scores, members, lists, search.parent, end)
        counts[1] += _mend_lists(scores, labels, members, lists, search.parent, end)
