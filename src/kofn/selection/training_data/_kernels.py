"""Compiled loops that compare texts by their letter triples, each text a sorted set of token numbers.

A token is a triple of characters and how often it came before in its text, so that sets of tokens are the multisets of
triples. Tokens are numbered from the rarest on.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from kofn.core.compiled import INNER, OUTER

WIDTH = 3  # characters in a shingle
_ROUNDING = 1e-9
_MOST_LEFT = np.iinfo(np.uint16).max
_LARGE = 64  # tokens from which one shared rare token is too weak a sign of likeness: one more for as many again


@nb.njit(**INNER)
def _mix(value):
    """A 64-bit number whose bits all depend on all bits of `value` (the finaliser of SplitMix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@nb.njit("i8(u4[::1], i8[::1], u8[::1], i4[::1], i8[::1], i8, i4[::1])", **OUTER)
def number_tokens(characters, ends, keys, numbers, counts, known, out):
    """Number the tokens of some texts in `out`, text after text; returns how many tokens are known afterwards.

    Args:
        characters: the code points of the texts, each text between two spaces that it shares with its neighbours.
        ends: where in `characters` each text begins (with its first space), and where the last one ends.
        keys, numbers: hash table with open addressing, a power of two long, and free for every token of these texts:
            fingerprints, 0 where it is free, and token numbers.
        counts: texts that hold each token.
        known: tokens known so far.
    """
    mask = np.uint64(len(keys) - 1)
    position = 0
    for text in range(len(ends) - 1):
        first, size = ends[text], max(0, ends[text + 1] - ends[text] + 2 - WIDTH)
        triples = np.empty(size, np.uint64)
        for i in range(size):
            value = np.uint64(0)
            for j in range(WIDTH):
                value = (value << np.uint64(21)) | np.uint64(characters[first + i + j])
            triples[i] = value
        triples.sort()
        before = 0
        for i in range(size):
            before = before + 1 if i and triples[i] == triples[i - 1] else 0
            key = _mix(triples[i] + np.uint64(before) * np.uint64(0x9E3779B97F4A7C15))
            if key == 0:
                key = np.uint64(1)
            slot = key & mask
            while keys[slot] != 0 and keys[slot] != key:
                slot = (slot + np.uint64(1)) & mask
            if keys[slot] == 0:
                keys[slot] = key
                numbers[slot] = known
                known += 1
            token = numbers[slot]
            counts[token] += 1
            out[position] = token
            position += 1
    return known


@nb.njit("void(u8[::1], i4[::1], u8[::1], i4[::1])", **OUTER)
def rehash(keys, numbers, new_keys, new_numbers):
    """Move a hash table into a larger one."""
    mask = np.uint64(len(new_keys) - 1)
    for old in range(len(keys)):
        if keys[old] != 0:
            slot = keys[old] & mask
            while new_keys[slot] != 0:
                slot = (slot + np.uint64(1)) & mask
            new_keys[slot] = keys[old]
            new_numbers[slot] = numbers[old]


@nb.njit("void(i4[::1], i8[::1], i4[::1], u8[:, ::1])", **OUTER)
def sort_tokens(tokens, starts, rank, signatures):
    """Renumber the tokens of each text from the rarest on, sort them, and fold each set into 128 parities."""
    for text in range(len(starts) - 1):
        own = tokens[starts[text] : starts[text + 1]]
        for i in range(len(own)):
            own[i] = rank[own[i]]
            bit = _mix(np.uint64(own[i]) + np.uint64(0x9E3779B97F4A7C15))
            signatures[text, (bit >> np.uint64(6)) & np.uint64(1)] ^= np.uint64(1) << (bit & np.uint64(63))
        own.sort()


@nb.njit(**INNER)
def _ones(word):
    """How many bits are set; LLVM makes one instruction of it."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@nb.njit(**INNER)
def _least_shared(size, other, threshold):
    """The tokens that two sets share at least where their similarity reaches the threshold."""
    return np.int64(np.ceil(threshold * (size + other) / 2 - _ROUNDING))


@nb.njit(**INNER)
def _smallest(size, threshold):
    """The smallest set that can reach the threshold with a set of `size` tokens."""
    return max(1, np.int64(np.ceil(size * threshold / (2 - threshold) - _ROUNDING)))


@nb.njit(**INNER)
def _needed(size):
    """How many of the rarest tokens of two sets, the smaller of `size`, must meet before the pair is compared."""
    return 1 + size // _LARGE


@nb.njit(**INNER)
def _prefix(size, threshold):
    """How many of a set's rarest tokens hold `_needed` of those shared with any set that reaches the threshold.

    Of the shared tokens, the first `needed` in the order of all tokens are behind at most `size - shared` others.
    """
    shared = _least_shared(size, _smallest(size, threshold), threshold)
    return min(size, size - shared + _needed(size))


@nb.njit(**INNER)
def _size_class(size):
    """Sizes within an eighth of each other stand together."""
    return np.int64(np.floor(np.log(max(size, 1)) * 8.0))


@nb.njit(**INNER)
def _most_different(size, other, threshold):
    """The tokens that stand in one set and not in the other at most where their similarity reaches the threshold."""
    return np.int64(np.floor((size + other) * (1 - threshold) + _ROUNDING))


@nb.njit(**INNER)
def _shared(a, b, least):
    """How many tokens two sorted sets share, or -1 as soon as fewer than `least` are sure."""
    i = j = both = 0
    spare_a, spare_b = len(a) - least, len(b) - least
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            both += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
            spare_a -= 1
            if spare_a < 0:
                return -1
        else:
            j += 1
            spare_b -= 1
            if spare_b < 0:
                return -1
    return both if both >= least else -1


@nb.njit("Tuple((i8[::1], i8[::1], i4[::1]))(i4[::1], i8[::1], i8[::1], i8, f8)", **OUTER)
def lay_out(tokens, starts, by_size, known, threshold):
    """Room for an index of rare tokens: (first list of each token, where each list begins, its class of sizes).

    A token has one list for each class of sizes among the texts that hold it as one of their rarest.
    """
    last = np.full(known, -1, np.int32)
    lists = np.zeros(known + 1, np.int64)
    for text in by_size:
        size = starts[text + 1] - starts[text]
        kind = _size_class(size)
        for i in range(_prefix(size, threshold)):
            token = tokens[starts[text] + i]
            if last[token] != kind:
                last[token] = kind
                lists[token + 1] += 1
    for token in range(known):
        lists[token + 1] += lists[token]
    total = lists[known]
    begins, kinds = np.zeros(total + 1, np.int64), np.empty(total, np.int32)
    last[:] = -1
    current = lists[:known] - 1
    for text in by_size:
        size = starts[text + 1] - starts[text]
        kind = _size_class(size)
        for i in range(_prefix(size, threshold)):
            token = tokens[starts[text] + i]
            if last[token] != kind:
                last[token] = kind
                current[token] += 1
                kinds[current[token]] = kind
            begins[current[token] + 1] += 1
    for number in range(total):
        begins[number + 1] += begins[number]
    return lists, begins, kinds


@nb.njit("void(i4[::1], i8[::1], u8[:, ::1], i8[::1], i8[::1], i4[::1], i8, f8, i8[::1], f8[::1])", **OUTER)
def drop_near(tokens, starts, signatures, lists, begins, kinds, forced, threshold, of, similarity):
    """For each text in order the first kept text that is near it; a text without one is kept, and so are the first
    `forced`.

    Only kept texts enter the index, so a thousand copies cost no more than one. A pair that meets there is compared by
    its parities (each that differs is a token that is not shared) and then token by token.
    """
    n = len(starts) - 1
    posted, left = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.uint16)
    marks = np.empty((begins[-1], 2), np.uint64)
    filled = begins[:-1].copy()
    classes = 2 + (kinds.max() if len(kinds) else 0)
    tops = np.floor(np.exp(np.arange(classes) / 8.0)).astype(
        np.int64
    )  # a class's sizes: from its own to the next one's
    met, touched = np.zeros(n, np.int32), np.empty(n, np.int32)
    for text in range(n):
        own = tokens[starts[text] : starts[text + 1]]
        size = len(own)
        if size == 0:
            continue
        prefix = _prefix(size, threshold)
        mark, second = signatures[text, 0], signatures[text, 1]
        best, best_shared, touches = n, 0, 0
        smallest = _smallest(size, threshold)
        largest = np.int64(np.floor(size * (2 - threshold) / threshold + _ROUNDING))
        low, high = _size_class(smallest), _size_class(largest)
        for i in range(prefix if text >= forced else 0):
            for number in range(lists[own[i]], lists[own[i] + 1]):
                if kinds[number] < low:
                    continue
                if kinds[number] > high:
                    break
                top, bottom = min(largest, tops[kinds[number] + 1]), max(smallest, tops[kinds[number]])
                most = _most_different(size, top, threshold)
                # Whoever shares its first few tokens only here has too few left of its own, or this text has.
                rest = min(_MOST_LEFT, _least_shared(size, bottom, threshold) - _needed(min(size, top)) + 1)
                if size - i < rest:
                    continue
                for entry in range(begins[number], filled[number]):
                    different = _ones(mark ^ marks[entry, 0]) + _ones(second ^ marks[entry, 1])
                    # One branch and not two: half of them would be guessed wrong.
                    if (left[entry] < rest) | (different > most):
                        continue
                    other = posted[entry]
                    # The first that is near is wanted, so later ones need no comparison.
                    if other >= best or met[other] < 0:
                        continue
                    if met[other] == 0:
                        touched[touches] = other
                        touches += 1
                    met[other] += 1
                    length = starts[other + 1] - starts[other]
                    if met[other] < _needed(min(size, length)):
                        continue
                    met[other] = -1
                    least = _least_shared(size, length, threshold)
                    both = _shared(own, tokens[starts[other] : starts[other + 1]], least)
                    if both >= 0:
                        best, best_shared = other, both
        for i in range(touches):
            met[touched[i]] = 0
        if best < n:
            of[text] = best
            similarity[text] = 2 * best_shared / (size + starts[best + 1] - starts[best])
            continue
        kind = _size_class(size)
        for i in range(prefix):
            for number in range(lists[own[i]], lists[own[i] + 1]):
                if kinds[number] == kind:
                    posted[filled[number]] = text
                    left[filled[number]] = min(_MOST_LEFT, size - i)
                    marks[filled[number], 0], marks[filled[number], 1] = mark, second
                    filled[number] += 1
                    break
