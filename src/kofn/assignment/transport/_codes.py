"""Codes of symbols: maps by greedy merging, their entropies, and the split of one symbol that uses up a rate."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints


def bits(masses: Any) -> float:
    """Entropy of the normalised masses, in bits."""
    positive = [mass for mass in masses if mass > 0]
    total = math.fsum(positive)
    return max(0.0, -math.fsum(mass / total * math.log2(mass / total) for mass in positive))


@dataclass(frozen=True)
class Merges:
    """Maps of symbols to codes by greedy merging, and their entropies; maps are built on demand.

    The masses `p` fall. One series merges the least symbols into the greatest, one after the other; a second tries, at
    each of its stages, the mildest merge instead, of the two least; a third always merges the two greatest codes, and
    the last, Huffman's, the two least.
    """

    p: Floats
    pairs: list[tuple[int, int]]
    entropies: Floats

    @classmethod
    def of(cls, p: Floats) -> Merges:
        """All maps of these masses."""
        n = len(p)
        terms = p * np.log2(p)
        # Entropy of the heap at the greatest symbol and of the `left` symbols after it, for left = n - 1 down to 0.
        kept = np.concatenate([[0.0], np.cumsum(terms[1:])])[::-1]
        heap = np.maximum(1.0 - np.concatenate([[0.0], np.cumsum(p[1:])])[::-1], p[0])
        into = -(kept + heap * np.log2(heap))
        least, other = p[:0:-1][:-1], p[:0:-1][1:]
        both = least + other
        milder = np.full(n, np.inf)
        milder[: len(both)] = into[: len(both)] + least * np.log2(least) + other * np.log2(other) - both * np.log2(both)
        greatest = np.minimum(np.cumsum(p), 1.0)
        rest = np.append(np.cumsum(terms[:0:-1])[::-1], 0.0)
        upper = -(rest + greatest * np.log2(greatest))
        series, pairs = [bits(p.tolist())], []
        codes = [(mass, i) for i, mass in enumerate(p.tolist())]
        heapq.heapify(codes)
        while len(codes) > 1:
            (a, i), (b, j) = heapq.heappop(codes), heapq.heappop(codes)
            pairs.append((i, j))
            series.append(series[-1] + a * math.log2(a) + b * math.log2(b) - (a + b) * math.log2(a + b))
            heapq.heappush(codes, (a + b, j))
        return cls(p, pairs, np.maximum(np.concatenate([into, milder, upper, series]), 0.0))

    def codes(self, which: int) -> Ints:
        """(n,) the code of each symbol."""
        n = len(self.p)
        series, step = divmod(which, n)
        codes = np.arange(n)
        if series < 2:
            codes[n - step :] = 0
            if series == 1:
                codes[n - step - 1] = n - step - 2
        elif series == 2:
            codes[: step + 1] = 0
        else:
            for a, b in reversed(self.pairs[:step]):
                codes[a] = codes[b]
        return np.asarray(np.unique(codes, return_inverse=True)[1], np.int64)


class Code:
    """A map of symbols to codes in which at most one symbol is split, with its rate and information."""

    def __init__(self, p: Floats, codes: NDArray[np.int64]) -> None:
        self.p = p
        self.code = codes.copy()
        self.masses = np.bincount(codes, p).tolist()
        self.split: tuple[int, int, float] | None = None  # symbol, its other code, the mass that goes there

    @property
    def rate(self) -> float:
        """H(T)."""
        return bits(self.masses)

    @property
    def information(self) -> float:
        """I(X;T) = H(T) - H(T|X)."""
        if self.split is None:
            return self.rate
        symbol, _, mass = self.split
        whole = float(self.p[symbol])
        return self.rate - whole * bits([mass, whole - mass])

    @property
    def codes(self) -> int:
        """Number of codes."""
        return len(self.masses)

    @property
    def cells(self) -> dict[tuple[int, int], float]:
        """The joint masses."""
        out = {(i, int(t)): float(self.p[i]) for i, t in enumerate(self.code)}
        if self.split is not None:
            symbol, other, mass = self.split
            out[symbol, int(self.code[symbol])] -= mass
            out[symbol, other] = mass
        return out

    def raised(self, rate: float) -> Code:
        """Raise the entropy to the rate by moving mass of the symbol with the least share of its code to a new code."""
        while True:
            shares = self.p / np.array(self.masses)[self.code]
            symbol = int(shares.argmin())
            if shares[symbol] >= 1 - 1e-12:
                return self
            self.masses.append(0.0)
            if self._moved(symbol, len(self.masses) - 1, rate):
                return self

    def lowered(self, rate: float) -> Code:
        """Lower the entropy to the rate by moving mass of the least symbol in the least code to the greatest code."""
        while True:
            live = [t for t, mass in enumerate(self.masses) if mass > 0]
            least, most = min(live, key=self.masses.__getitem__), max(live, key=self.masses.__getitem__)
            inside = np.flatnonzero(self.code == least)
            if len(live) < 2 or self._moved(int(inside[self.p[inside].argmin()]), most, rate):
                return self

    def _moved(self, symbol: int, to: int, rate: float) -> bool:
        """Move a symbol's mass until the entropy equals the rate; False if all of it was moved before that."""
        home, whole = int(self.code[symbol]), float(self.p[symbol])
        before = (self.masses[home], self.masses[to])
        rising = before[1] == 0

        def reach(mass: float) -> float:
            self.masses[home], self.masses[to] = max(0.0, before[0] - mass), before[1] + mass
            return bits(self.masses)

        end = reach(whole)
        if (end <= rate) if rising else (end > rate):
            self.code[symbol] = to
            # A code emptied by the move is exactly zero, without a rounding residue.
            self.masses = np.bincount(self.code, self.p, len(self.masses)).tolist()
            return False
        low, high = 0.0, whole
        for _ in range(60):
            middle = (low + high) / 2
            if (reach(middle) <= rate) == rising:
                low = middle
            else:
                high = middle
        mass = low if rising else high
        reach(mass)
        if 0 < mass < whole:
            self.split = (symbol, to, mass)
        elif mass == whole:
            self.code[symbol] = to
        return True
