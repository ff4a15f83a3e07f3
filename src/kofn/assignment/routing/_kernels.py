"""Compiled loops of routing: the best bins of each item, and exactly balanced assignment by shortest paths."""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.assignment.medoids._kernels import _INNER, _OUTER, _both, _first_choices, _worse


@nb.njit(_both("void(T[:,::1],i4[:,::1])", read=1), **_OUTER)
def best_bins(scores, chosen):  # type: ignore[no-untyped-def]
    """chosen[i] = the bins of item i's highest scores in order, ties to the lowest bin; -1 where fewer are listed."""
    choices = np.empty(chosen.shape[1], np.int64)
    for i in range(len(scores)):
        _first_choices(scores[i], choices)
        for slot in range(len(choices)):
            chosen[i, slot] = choices[slot]


@nb.njit(**_INNER)
def _offer(keys, items, size, key, item):  # type: ignore[no-untyped-def]
    """Put an item into a list that keeps the best first, dropping the last of a full one; returns the list's length."""
    most = len(keys)
    if size == most:
        if not _worse(keys[most - 1], items[most - 1], key, item):
            return size
        size -= 1
    place = size
    while place > 0 and _worse(keys[place - 1], items[place - 1], key, item):
        keys[place], items[place] = keys[place - 1], items[place - 1]
        place -= 1
    keys[place], items[place] = key, item
    return size + 1


@nb.njit(**_INNER)
def _refill(scores, a, b, members, load, keys, items):  # type: ignore[no-untyped-def]
    """The items of bin a that would lose the least by going to bin b, from all of them; returns how many are kept."""
    size = 0
    for place in range(load):
        i = members[place]
        if scores[i, b] > -np.inf:
            size = _offer(keys, items, size, np.float64(scores[i, b]) - np.float64(scores[i, a]), i)
    return size


@nb.njit(**_INNER)
def _best_at(scores, high, price, labels):  # type: ignore[no-untyped-def]
    """Each item to its best bin at these prices, equals to the bin with the most room; returns the loads."""
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


@nb.njit(_both("void(T[:,::1],i8[::1],i8[::1],f8[::1],i4[::1],i8[::1],b1[::1],i8,i8[::1])", read=1), **_OUTER)
def settle(scores, low, high, price, labels, flow, reached, width, counts):  # type: ignore[no-untyped-def]
    """Every item to one bin, every load within low..high, for the largest sum of scores; labels, prices and loads.

    Starts from what is best at the given prices and moves items along cheapest paths from bins that hold too many to
    bins that hold too few, so that after each path the answer is the best one for its own loads. price[bins] is the
    price of a slot that stays free. Where some load cannot be met, `reached` holds all nodes that the surplus can get
    to; else it is all False. counts gets the number of paths and of lists that were read anew.

    Nodes are the bins and, last, the free slots. An item that goes from bin a to bin b costs what its score falls by; a
    free slot costs nothing. Of each pair of bins only the `width` cheapest items are kept in order, and the list is
    read anew from the bin's members when it runs out, unless it held them all (`whole`).
    """
    n, bins = scores.shape
    nodes = bins + 1
    load = _best_at(scores, high, price, labels)
    # What is to leave each node (+) or to come (-), with full bins where a slot has a price and empty ones below it.
    excess, moving = np.zeros(nodes, np.int64), 0
    for j in range(bins):
        flow[j] = min(max(load[j], low[j]), high[j])
        if price[j] != price[bins]:
            flow[j] = high[j] if price[j] > price[bins] else low[j]
        excess[j] = load[j] - flow[j]
        excess[bins] += flow[j]
        moving += abs(excess[j])
    excess[bins] -= n
    # A bin never holds more than at first or than it may.
    offsets = np.zeros(bins + 1, np.int64)
    for j in range(bins):
        offsets[j + 1] = offsets[j] + max(load[j], min(high[j], load[j] + moving))
    members, place_of = np.empty(offsets[bins], np.int32), np.empty(n, np.int64)
    load[:] = 0
    for i in range(n):
        a = labels[i]
        place_of[i] = load[a]
        members[offsets[a] + load[a]] = i
        load[a] += 1
    keys, items = np.empty((bins, bins, width)), np.empty((bins, bins, width), np.int32)
    # Lists are read from the front: what stands before it has left the bin.
    front, size = np.zeros((bins, bins), np.int64), np.zeros((bins, bins), np.int64)
    whole = np.ones((bins, bins), np.bool_)
    for a in range(bins):
        for b in range(bins):
            if a != b:
                size[a, b] = _refill(scores, a, b, members[offsets[a] :], load[a], keys[a, b], items[a, b])
                whole[a, b] = size[a, b] < width
    distance, parent = np.empty(nodes), np.empty(nodes, np.int64)
    while True:
        distance[:] = np.inf
        parent[:] = -1
        reached[:] = False
        waiting = False
        for a in range(nodes):
            if excess[a] > 0:
                distance[a], waiting = 0.0, True
        if not waiting:
            return
        while True:
            a = -1
            for other in range(nodes):
                if not reached[other] and distance[other] < np.inf and (a < 0 or distance[other] < distance[a]):
                    a = other
            if a < 0:
                return
            reached[a] = True
            if excess[a] < 0:
                end = a
                break
            for b in range(nodes):
                if reached[b]:
                    continue
                step = price[b] - price[a]
                if a == bins:
                    if flow[b] == low[b]:
                        continue
                elif b == bins:
                    if flow[a] == high[a]:
                        continue
                elif front[a, b] == size[a, b]:
                    continue
                else:
                    step -= keys[a, b, front[a, b]]
                # A step is never below zero but for rounding.
                reach = distance[a] + max(step, 0.0)
                if reach < distance[b]:
                    distance[b], parent[b] = reach, a
        counts[0] += 1
        for a in range(nodes):
            if reached[a]:
                price[a] += distance[end] - distance[a]
        excess[end] += 1
        # All leave before any arrives, and lists are mended last, since the path is written in them.
        b = end
        while parent[b] >= 0:
            a = parent[b]
            if a == bins:
                flow[b] -= 1
            elif b == bins:
                flow[a] += 1
            else:
                i = items[a, b, front[a, b]]
                load[a] -= 1
                last = members[offsets[a] + load[a]]
                members[offsets[a] + place_of[i]], place_of[last] = last, place_of[i]
                labels[i] = b
            b = a
        excess[b] -= 1
        b = end
        while parent[b] >= 0:
            a = parent[b]
            if a < bins and b < bins:
                i = items[a, b, front[a, b]]
                place_of[i] = load[b]
                members[offsets[b] + load[b]] = i
                load[b] += 1
                for c in range(bins):
                    if c == b or scores[i, c] == -np.inf:
                        continue
                    key = np.float64(scores[i, c]) - np.float64(scores[i, b])
                    head, tail = front[b, c], size[b, c]
                    # Behind the last of a list that does not hold everybody nothing is known.
                    if not whole[b, c] and _worse(key, i, keys[b, c, tail - 1], items[b, c, tail - 1]):
                        continue
                    if head == tail:
                        head, tail = 0, 0
                    elif tail == width and head > 0:
                        for place in range(head, tail):
                            keys[b, c, place - head] = keys[b, c, place]
                            items[b, c, place - head] = items[b, c, place]
                        head, tail = 0, tail - head
                    whole[b, c] &= tail < width
                    front[b, c], size[b, c] = (
                        head,
                        head + _offer(keys[b, c, head:], items[b, c, head:], tail - head, key, i),
                    )
            b = a
        b = end
        while parent[b] >= 0:
            a = parent[b]
            if a < bins:
                for c in range(bins):
                    while front[a, c] < size[a, c] and labels[items[a, c, front[a, c]]] != a:
                        front[a, c] += 1
                    if front[a, c] == size[a, c] and not whole[a, c]:
                        counts[1] += 1
                        front[a, c] = 0
                        size[a, c] = _refill(scores, a, c, members[offsets[a] :], load[a], keys[a, c], items[a, c])
                        whole[a, c] = size[a, c] < width
            b = a
