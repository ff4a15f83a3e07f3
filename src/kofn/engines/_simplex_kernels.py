"""Compiled network simplex of the dense transportation problem.

Nodes are the rows 0..n-1 and the columns n..n+m-1; every entry of the table is an arc from its row to its column,
without capacity. Masses are whole numbers, so that flows are exact and the trees stay strongly feasible: a tree arc
without flow leads from a row to its parent. The last column is the root.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER

# Sums of minima may be reordered: no entry is NaN, and the sign of a zero does not matter.
_VECTOR = {**INNER, "fastmath": {"nnan", "nsz", "reassoc"}}
# A reduced cost within so many roundings of its three terms is none.
ROUNDING = 16 * 2.0**-53
# From as many rows as columns squared times this on, only the columns' potentials are kept up: a row's follows from its
# parent's. A pivot then walks up from each column, where it would walk through up to half of the tree.
_TALL = 1.0
# After so many pivots a node without any flow, the tolerance is doubled: only rounding of the costs keeps it going.
_STALLED = 100


class _Tree(NamedTuple):
    """Each node's parent, first child and siblings, the size of its subtree, and the flow to or from its parent."""

    parent: Any
    child: Any
    after: Any
    before: Any
    size: Any
    flow: Any


@nb.njit(**INNER)
def _attach(tree, x, parent):
    first = tree.child[parent]
    tree.parent[x], tree.after[x], tree.before[x] = parent, first, -1
    if first >= 0:
        tree.before[first] = x
    tree.child[parent] = x


@nb.njit(**INNER)
def _detach(tree, x):
    after, before = tree.after[x], tree.before[x]
    if before >= 0:
        tree.after[before] = after
    else:
        tree.child[tree.parent[x]] = after
    if after >= 0:
        tree.before[after] = before


@nb.njit(**INNER)
def _arc_cost(costs, x, y):
    """The cost of the arc between two nodes; arcs that are not listed carry nothing, at any cost."""
    n = len(costs)
    cost = costs[x, y - n] if x < n else costs[y, x - n]
    return cost if cost < np.inf else 0.0


@nb.njit(**INNER)
def _next(tree, x, top):
    """The node after x in preorder below `top`, without going below x; -1 at the end."""
    while x != top and tree.after[x] < 0:
        x = tree.parent[x]
    return -1 if x == top else tree.after[x]


@nb.njit(**INNER)
def _refresh(costs, potential, tree, root):
    """Recompute all potentials from the tree, the root's being 0."""
    potential[root] = 0.0
    x = tree.child[root] if tree.child[root] >= 0 else -1
    while x >= 0:
        potential[x] = _arc_cost(costs, x, tree.parent[x]) - potential[tree.parent[x]]
        x = tree.child[x] if tree.child[x] >= 0 else _next(tree, x, root)


@nb.njit(**_VECTOR)
def _least(row, price):
    best = np.inf
    for j in range(len(row)):
        reduced = row[j] - price[j]
        best = reduced if reduced < best else best
    return best


@nb.njit(**INNER)
def _argmin(row, price):
    best, column = np.inf, -1
    for j in range(len(row)):
        if row[j] - price[j] < best:
            best, column = row[j] - price[j], j
    return column


@nb.njit(**INNER)
def _negative(costs, potential, i, j, tolerance):
    """The reduced cost of an entry, where it is surely negative, else 0."""
    u, v, cost = potential[i], potential[len(costs) + j], costs[i, j]
    reduced = cost - u - v
    return reduced if reduced < -tolerance * max(abs(u), abs(v), abs(cost)) else 0.0


@nb.njit(**INNER)
def _slow_entering(costs, potential, tolerance):
    """The first row with a negative entry, and its most negative one, every entry by its own tolerance."""
    for i in range(len(costs)):
        best, column = 0.0, -1
        for j in range(costs.shape[1]):
            reduced = _negative(costs, potential, i, j, tolerance)
            if reduced < best:
                best, column = reduced, j
        if column >= 0:
            return i, column
    return -1, -1


@nb.njit(**INNER)
def _entering(costs, potential, parent, tall, begin, block, tolerance):
    """The most negative entry of the next block of rows that has one: row and column, -1 where no block has."""
    n = len(costs)
    price = potential[n:]
    best, row = 0.0, -1
    i, left = begin, block
    for _ in range(n):
        if tall:
            potential[i] = _arc_cost(costs, i, parent[i]) - potential[parent[i]]
        least = _least(costs[i], price) - potential[i]
        if least < best:
            best, row = least, i
        i = i + 1 if i + 1 < n else 0
        left -= 1
        if left == 0:
            if row >= 0:
                j = _argmin(costs[row], price)
                if _negative(costs, potential, row, j, tolerance) < 0:
                    return row, j, i
                best, row = 0.0, -1
            left = block
    if row >= 0:
        j = _argmin(costs[row], price)
        if _negative(costs, potential, row, j, tolerance) < 0:
            return row, j, i
    return -1, -1, i


@nb.njit(**INNER)
def _leaving(tree, n, i, j):
    """The end of the cycle, the node whose arc to its parent leaves, whether it is on the row's side, the flow moved.

    Of the arcs that are emptied first, the last along the cycle from its end leaves (Cunningham), which keeps the tree
    strongly feasible.
    """
    a, b = i, n + j
    least, node, of_row = np.int64(np.iinfo(np.int64).max), -1, True
    last, last_node = least, -1
    while a != b:
        if tree.size[a] < tree.size[b]:
            if a < n and tree.flow[a] < least:
                least, node = tree.flow[a], a
            a = tree.parent[a]
        else:
            if b >= n and tree.flow[b] <= last:
                last, last_node = tree.flow[b], b
            b = tree.parent[b]
    if last <= least:
        least, node, of_row = last, last_node, False
    return a, node, of_row, least


@nb.njit(**INNER)
def _augment(tree, n, i, j, join, moved):
    x = i
    while x != join:
        tree.flow[x] += -moved if x < n else moved
        x = tree.parent[x]
    x = n + j
    while x != join:
        tree.flow[x] += moved if x < n else -moved
        x = tree.parent[x]


@nb.njit(**INNER)
def _rehang(tree, cut, inner, outer, join, moved):
    """Hang the part below `cut` by its node `inner` on `outer`."""
    part = tree.size[cut]
    x = tree.parent[cut]
    while x != join:
        tree.size[x] -= part
        x = tree.parent[x]
    x = outer
    while x != join:
        tree.size[x] += part
        x = tree.parent[x]
    x, parent, flow, size = inner, outer, moved, part
    while True:
        old_parent, old_flow, old_size = tree.parent[x], tree.flow[x], tree.size[x]
        _detach(tree, x)
        _attach(tree, x, parent)
        tree.flow[x], tree.size[x] = flow, size
        if x == cut:
            return
        x, parent, flow, size = old_parent, x, old_flow, part - old_size


@nb.njit(**INNER)
def _shift(tree, potential, n, root, inner, reduced):
    """Make the reduced cost of the entering arc 0, by the potentials on the smaller side of it."""
    nodes = len(potential)
    rows = reduced if inner < n else -reduced
    if 2 * tree.size[inner] <= nodes:
        x = inner
        while x >= 0:
            potential[x] += rows if x < n else -rows
            x = tree.child[x] if tree.child[x] >= 0 else _next(tree, x, inner)
        return
    x = root
    while x >= 0:
        if x == inner:
            x = _next(tree, x, root)
        else:
            potential[x] -= rows if x < n else -rows
            x = tree.child[x] if tree.child[x] >= 0 else _next(tree, x, root)


@nb.njit(**INNER)
def _shift_columns(tree, potential, n, root, inner, reduced):
    """The same, of the columns alone."""
    change = -reduced if inner < n else reduced
    for column in range(n, root):
        x = column
        while x != inner and x != root:
            x = tree.parent[x]
        if x == inner:
            potential[column] += change


@nb.njit(
    "b1(f8[:,::1],f8[::1],i4[::1],i4[::1],i4[::1],i4[::1],i4[::1],i8[::1],i8,i8,f8[::1],i8[::1])",
    **OUTER,
)
def pivots(costs, potential, parent, child, after, before, size, flow, block, most, tolerance, counts):
    """At most `most` pivots; whether the tree is optimal.

    `block` is how many rows are priced for a pivot. `counts` has the pivots, those that moved nothing, such since the
    last that moved anything, and the next row to price; `tolerance` has one number.
    """
    n, nodes = len(costs), len(potential)
    root, tall = nodes - 1, n >= _TALL * (nodes - n) ** 2
    tree = _Tree(parent, child, after, before, size, flow)
    _refresh(costs, potential, tree, root)
    fresh = True
    for _ in range(most):
        i, j, counts[3] = _entering(costs, potential, parent, tall, counts[3], block, tolerance[0])
        if i < 0 and not fresh:
            _refresh(costs, potential, tree, root)
            fresh = True
        if i < 0:
            i, j = _slow_entering(costs, potential, tolerance[0])
        if i < 0:
            return True
        reduced = costs[i, j] - potential[i] - potential[n + j]
        join, cut, of_row, moved = _leaving(tree, n, i, j)
        if moved > 0:
            _augment(tree, n, i, j, join, moved)
            counts[2] = 0
        else:
            counts[1] += 1
            counts[2] += 1
            if counts[2] == _STALLED * nodes:
                tolerance[0] *= 2
                counts[2] = 0
        inner, outer = (i, n + j) if of_row else (n + j, i)
        _rehang(tree, cut, inner, outer, join, moved)
        if tall:
            _shift_columns(tree, potential, n, root, inner, reduced)
        else:
            _shift(tree, potential, n, root, inner, reduced)
        counts[0] += 1
        fresh = False
    return False


@nb.njit("void(f8[:,::1],f8[::1],f8[::1])", **OUTER)
def regrets(costs, price, out):
    """By how much each row's second cheapest column is dearer than its cheapest."""
    for i in range(len(costs)):
        best, second = np.inf, np.inf
        for j in range(costs.shape[1]):
            reduced = costs[i, j] - price[j]
            if reduced < best:
                best, second = reduced, best
            elif reduced < second:
                second = reduced
        out[i] = second - best if best < np.inf else 0.0


@nb.njit("void(f8[:,::1],f8,b1[::1])", **OUTER)
def magnitudes(costs, low, seen):
    """Mark the binary exponents, from -1100 on, of all costs above the lowest."""
    for cost in costs.flat:
        if low < cost < np.inf:
            seen[math.frexp(cost - low)[1] + 1100] = True


@nb.njit(**INNER)
def _cheapest_open(row, price, closed):
    best, column, opened = np.inf, -1, -1
    for j in range(len(row)):
        if not closed[j]:
            opened = j
            if row[j] - price[j] < best:
                best, column = row[j] - price[j], j
    return column if column >= 0 else opened


@nb.njit("void(f8[:,::1],f8[::1],i8[::1],i8[::1],i8[::1],i4[::1],i4[::1],i8[::1])", **OUTER)
def greedy(costs, price, order, supply, demand, row, column, mass):
    """A strongly feasible tree: each row, in this order, is sent to the cheapest columns that are open.

    Masses are pairs: every node but the root has an infinitesimal supply more, which the root takes up. So a row and a
    column never end together, and arcs without mass lead to the root.
    """
    n, m = costs.shape
    closed = np.zeros(m, np.bool_)
    wanted = np.full(m, -1, np.int64)
    wanted[m - 1] = n + m - 1
    room = demand.copy()
    arc = 0
    for i in order:
        left, extra = supply[i], 1
        while arc < n + m - 1:
            j = _cheapest_open(costs[i], price, closed)
            row[arc], column[arc] = i, j
            ends = left < room[j] or (left == room[j] and extra <= wanted[j])
            mass[arc] = left if ends else room[j]
            arc += 1
            if ends:
                room[j] -= left
                wanted[j] -= extra
                break
            left -= room[j]
            extra -= wanted[j]
            closed[j] = True


@nb.njit(
    "void(i8,i4[::1],i4[::1],i8[::1],i4[::1],i4[::1],i4[::1],i4[::1],i4[::1],i8[::1])",
    **OUTER,
)
def root_at_last(n, row, column, mass, parent, child, after, before, size, flow):
    """Hang the tree of these arcs on its root, the last column."""
    arcs = len(row)
    nodes = arcs + 1
    tree = _Tree(parent, child, after, before, size, flow)
    child[:], after[:], before[:], size[:], parent[:] = -1, -1, -1, 1, -1
    first, follow = np.full(nodes, -1, np.int32), np.full(2 * arcs, -1, np.int32)
    for arc in range(arcs):
        a, b = row[arc], n + column[arc]
        follow[2 * arc], first[a] = first[a], 2 * arc
        follow[2 * arc + 1], first[b] = first[b], 2 * arc + 1
    order = np.empty(nodes, np.int32)
    order[0], count = nodes - 1, 1
    for k in range(nodes):
        x = order[k]
        end = first[x]
        while end >= 0:
            arc = end // 2
            y = n + column[arc] if x < n else row[arc]
            if y != parent[x]:
                _attach(tree, y, x)
                flow[y] = mass[arc]
                order[count] = y
                count += 1
            end = follow[end]
    for k in range(nodes - 1, 0, -1):
        size[parent[order[k]]] += size[order[k]]


@nb.njit("void(i8,i4[::1],i4[::1],i4[::1],i8[::1],f8[::1],f8[::1])", **OUTER)
def settle(root, parent, child, after, flow, mass, sent):
    """The mass between each node and its parent, from the leaves up.

    `mass` is the nodes' own, and is used up. Where the whole flow is no more than rounding the masses to whole numbers
    explains, a mass that rounding of the sums explains is none.
    """
    nodes = len(mass)
    tree = _Tree(parent, child, after, after, after, flow)
    order, count, x = np.empty(nodes, np.int32), 0, root
    while x >= 0:
        order[count] = x
        count += 1
        x = child[x] if child[x] >= 0 else _next(tree, x, root)
    gross = mass.copy()
    for k in range(nodes - 1, 0, -1):
        x = order[k]
        moved = mass[x]
        if moved > 0 and (flow[x] > nodes or moved > ROUNDING * gross[x]):
            sent[x] = moved
        mass[parent[x]] -= sent[x]
        gross[parent[x]] += gross[x]
