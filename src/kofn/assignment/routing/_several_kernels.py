"""Compiled min-cost flow of items that each go to several bins, each bin at most once.

As in `_flow_kernels`, nodes are the bins and the free slots, and an item moves from a bin that it holds to one that it
does not hold. A shortest path enters and leaves each bin once, so that its moves never meet, also those of one item.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.assignment.routing._flow_kernels import (
    _enlist,
    _Lists,
    _Members,
    _offer,
    _raise_prices,
    _Search,
    _shortest_path,
    _surplus,
)
from kofn.core.compiled import INNER, OUTER, compiled_for


@nb.njit(**INNER)
def _best_at(scores, high, price, per_item, position):
    """Assign each item to its best bins at these prices, ties to the bin with the most room; return the loads."""
    load = np.zeros(scores.shape[1], np.int64)
    for i in range(len(scores)):
        for _ in range(per_item):
            best, top = -1, -np.inf
            for j in range(scores.shape[1]):
                if position[i, j] >= 0:
                    continue
                worth = np.float64(scores[i, j]) - price[j]
                if worth > top or (best >= 0 and worth == top and high[j] - load[j] > high[best] - load[best]):
                    best, top = j, worth
            position[i, best] = 0
            load[best] += 1
    return load


@nb.njit(**INNER)
def _enter(members, i, b):
    members.position[i, b] = members.load[b]
    members.items[members.offsets[b] + members.load[b]] = i
    members.load[b] += 1


@nb.njit(**INNER)
def _exit(members, i, a):
    """Item i leaves bin a, whose last member takes its position."""
    members.load[a] -= 1
    last = members.items[members.offsets[a] + members.load[a]]
    members.items[members.offsets[a] + members.position[i, a]] = last
    members.position[last, a] = members.position[i, a]
    members.position[i, a] = -1


@nb.njit(**INNER)
def _members_of(position, load, high, moving):
    """The members of every bin, with room for the larger of its initial load and its upper bound."""
    bins = len(load)
    offsets = np.zeros(bins + 1, np.int64)
    for j in range(bins):
        offsets[j + 1] = offsets[j] + max(load[j], min(high[j], load[j] + moving))
    members = _Members(offsets, np.empty(offsets[bins], np.int32), position, load)
    load[:] = 0
    for i in range(len(position)):
        for j in range(bins):
            if position[i, j] >= 0:
                _enter(members, i, j)
    return members


@nb.njit(**INNER)
def _refill(scores, members, lists, a, b):
    """Rebuild the list from bin a to bin b from all items of a that b does not hold."""
    keys, items, size = lists.keys[a, b], lists.items[a, b], 0
    own = members.items[members.offsets[a] :]
    for position in range(members.load[a]):
        i = own[position]
        if scores[i, b] > -np.inf and members.position[i, b] < 0:
            size = _offer(keys, items, size, np.float64(scores[i, b]) - np.float64(scores[i, a]), i)
    lists.front[a, b], lists.size[a, b], lists.whole[a, b] = 0, size, size < len(keys)


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
def _exit_along(flow, members, lists, parent, moved, end):
    """Take the moved items out of their bins along the path, and keep who enters each node; return its first node."""
    bins, b = len(flow), end
    while parent[b] >= 0:
        a = parent[b]
        if a == bins:
            flow[b] -= 1
        elif b == bins:
            flow[a] += 1
        else:
            moved[b] = lists.items[a, b, lists.front[a, b]]
            _exit(members, moved[b], a)
        b = a
    return b


@nb.njit(**INNER)
def _enter_along(scores, members, lists, parent, moved, end):
    """Put the moved items into their bins, then into the lists of what each can do now and could not before."""
    bins, b = scores.shape[1], end
    while parent[b] >= 0:
        if parent[b] < bins and b < bins:
            _enter(members, moved[b], b)
        b = parent[b]
    b = end
    while parent[b] >= 0:
        a = parent[b]
        if a < bins and b < bins:
            i = moved[b]
            for c in range(bins):
                if c == b or scores[i, c] == -np.inf:
                    continue
                if members.position[i, c] < 0:
                    _enlist(lists, b, c, np.float64(scores[i, c]) - np.float64(scores[i, b]), i)
                else:
                    _enlist(lists, c, a, np.float64(scores[i, a]) - np.float64(scores[i, c]), i)
        b = a


@nb.njit(**INNER)
def _mend(scores, members, lists, a, b):
    """Skip the items that can no longer move from a to b; rebuild a list that runs out, and return whether it did."""
    while lists.front[a, b] < lists.size[a, b]:
        i = lists.items[a, b, lists.front[a, b]]
        if members.position[i, a] >= 0 and members.position[i, b] < 0:
            return False
        lists.front[a, b] += 1
    if lists.whole[a, b]:
        return False
    _refill(scores, members, lists, a, b)
    return True


@nb.njit(**INNER)
def _mend_along(scores, members, lists, parent, end):
    """Mend the lists from and to the path's bins; return the number of lists that were rebuilt."""
    bins, b, read = scores.shape[1], end, 0
    while b >= 0:
        if b < bins:
            for c in range(bins):
                if c != b:
                    read += _mend(scores, members, lists, b, c)
                    read += _mend(scores, members, lists, c, b)
        b = parent[b]
    return read


@nb.njit(
    compiled_for("void(T[:,::1],i8[::1],i8[::1],f8[::1],i8,i4[:,::1],i8[::1],b1[::1],i8,i8[::1])", read=1), **OUTER
)
def several_flow(scores, low, high, price, per_item, position, flow, reached, width, counts):
    """Assign each item to `per_item` bins for the largest total score, loads within low..high.

    As `min_cost_flow`; `position` (n, bins) begins as -1, and ends as >= 0 where the bin holds the item.
    """
    nodes = scores.shape[1] + 1
    load = _best_at(scores, high, price, per_item, position)
    excess = _surplus(load, low, high, price, flow)
    members = _members_of(position, load, high, np.abs(excess[:-1]).sum())
    lists = _lists_of(scores, members, width)
    search = _Search(np.empty(nodes), np.empty(nodes, np.int64), reached)
    moved = np.empty(nodes, np.int64)
    while True:
        end = _shortest_path(low, high, price, flow, excess, lists, search)
        if end < 0:
            return
        counts[0] += 1
        _raise_prices(price, search, end)
        begin = _exit_along(flow, members, lists, search.parent, moved, end)
        excess[end] += 1
        excess[begin] -= 1
        _enter_along(scores, members, lists, search.parent, moved, end)
        counts[1] += _mend_along(scores, members, lists, search.parent, end)
