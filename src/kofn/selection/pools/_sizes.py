"""How many rows parts have, hand over and are judged by, and what all of it costs."""

from __future__ import annotations

from dataclasses import dataclass, field

from kofn.core.checks import InputError
from kofn.engines.threads import cores

# A part has so many rows unless told otherwise, and the bound rests on so many.
PART_ROWS, BOUND_ROWS = 2_500, 2_000
# A part hands over k rows, or no more than one in so many of its own where all parts together still hand over this many
# times k.
_HANDED, _TIMES_K = 25, 10
# Where all parts together would hand over more than so many rows, and so many a pick, only as many of them, drawn at
# random, do so in full. The others hand over one row in so many: enough for what lies in one part alone, as in sorted
# files, where what is spread over all of them is in those that were drawn.
_CANDIDATES, _CANDIDATES_A_PICK, _SHALLOW = 20_000, 40, 1_000
# Round 2 is judged by so many rows, and so many a pick, but by no more than these unless told otherwise.
_LEAST, _A_PICK, _MOST = 10_000, 200, 100_000
# Looks of round 2 at each pair of a candidate and a judge.
_LOOKS = 6
# Rows and bytes of a fragment, which is read at once and has one or more parts.
FRAGMENT_ROWS, _FRAGMENT_BYTES = 1 << 17, 1 << 24
# Bytes beside the vector of a row: of the pool in all; of one in a fragment; that judges round 2; that is a candidate.
_OF_A_ROW, _IN_A_FRAGMENT, _OF_A_JUDGE, _OF_A_CANDIDATE = 32, 24, 64, 448
# Copies of vectors: of rows that parts bring along; of a fragment while its parts pick, and while it is looked at; of
# what round 2 and the bound search. The bound looks at so many rows of a fragment at once.
_BROUGHT, _READ, _LOOKED_AT, _SEARCHED, _AT_ONCE = 2, 2, 5, 5, 1 << 13


def rows_of_a_fragment(width: int, size: int, part_rows: int, most: int = FRAGMENT_ROWS) -> int:
    """How many rows of `width` numbers of `size` bytes are read at once, whole parts of them."""
    return part_rows * max(1, min(most, _FRAGMENT_BYTES // (width * size)) // part_rows)


@dataclass(frozen=True)
class Rounds:
    """The sizes of two rounds over n rows of `width` numbers of `size` bytes; what is None is as the method has it.

    >>> Rounds(20_000, 64, 4, 50, n_threads=2).bytes / 1e6
    43.816
    """

    n: int
    width: int
    size: int
    k: int
    part_rows: int | None = None
    n_reference: int | None = None
    bound_rows: int | None = None
    n_threads: int | None = field(default=None, kw_only=True)

    @property
    def bytes(self) -> int:
        """The bytes that the rounds hold beside the pool: the least `max_memory` that they take.

        Rounds, and the look at all rows after them, follow each other: the largest of the three counts. As many
        fragments are held as threads work on, and no more than there are.
        """
        n, width, size = self.n, self.width, self.size
        part = PART_ROWS if self.part_rows is None else self.part_rows
        parts, vector = -(-n // part), width * size
        all_judge = parts == 1 if self.n_reference is None else self.n_reference >= n
        judges = min(n, judges_of(self.k) if self.n_reference is None else self.n_reference)
        bound = min(n, BOUND_ROWS if self.bound_rows is None else self.bound_rows)
        fragment = min(n, rows_of_a_fragment(width, size, part))
        tasks = min(cores(self.n_threads), -(-n // fragment))
        fragment_bytes = fragment * (vector + _IN_A_FRAGMENT)
        in_part = -(-n // parts)
        table = (in_part + width) * (judges if all_judge else min(in_part, judges)) * size
        brought = _BROUGHT * (judges + bound) * (vector + 8)
        searched = _SEARCHED * vector
        candidates = candidates_of(n, self.k, part, all_judge) + self.k
        most = max(
            tasks * (table + _READ * fragment_bytes),
            judges * (searched + _OF_A_JUDGE) + candidates * (searched + _OF_A_CANDIDATE),
            tasks * (_LOOKED_AT * fragment_bytes + min(_AT_ONCE, fragment) * vector + bound * searched),
        )
        return _OF_A_ROW * n + brought + most

    def refuse_memory(self, max_memory: int | None) -> None:
        """Refuse a limit that the rounds would not keep.

        Raises:
            InputError: it is less than `bytes`.
        """
        if max_memory is not None and self.bytes > max_memory:
            part_rows = PART_ROWS if self.part_rows is None else self.part_rows
            raise InputError(
                f"max_memory={max_memory} is too little for two_round_greedy on {self.n} rows of {self.width} features "
                f"with part_rows={part_rows}; give at least {self.bytes} bytes, fewer part_rows or a smaller "
                "n_reference"
            )


def candidates_of(n: int, k: int, part_rows: int, all_judge: bool) -> int:
    """How many rows all parts hand over, about."""
    if all_judge:
        return min(n, -(-n // part_rows) * k)
    deep, handed = deep_parts(n, k, part_rows), handed_by_a_part(n, k, part_rows)
    shallow = handed_by_a_shallow_part(handed, part_rows)
    return min(n, int(-(-n // part_rows) * (deep * handed + (1 - deep) * shallow)))


def pairs_of_rounds(
    n: int, k: int, part_rows: int | None = None, n_reference: int | None = None, bound_rows: int | None = None
) -> int:
    """About how many distances a call computes: what its two rounds, its bound and its values take.

    >>> pairs_of_rounds(1_000_000, 100) / 1e9
    7.148
    """
    part = min(n, part_rows or PART_ROWS)
    all_judge = part == n if n_reference is None else n_reference >= n
    judges = min(n, judges_of(k) if n_reference is None else n_reference)
    bound = min(n, BOUND_ROWS if bound_rows is None else bound_rows)
    candidates = candidates_of(n, min(k, part), part, all_judge)
    return n * (n if all_judge else min(part, judges)) + _LOOKS * candidates * judges + n * bound + 2 * n * k


def judges_of(k: int) -> int:
    """How many rows judge round 2 by default."""
    return min(_MOST, max(_LEAST, _A_PICK * k))


def handed_by_a_part(n: int, k: int, part_rows: int) -> int:
    """How many rows a part hands over: with few rows a part, k of each would be most of the pool."""
    return min(k, max(1, min(k, part_rows // _HANDED), -(-_TIMES_K * k * part_rows // n)))


def handed_by_a_shallow_part(handed: int, part_rows: int) -> int:
    """How many rows those parts hand over that hand over few, where others hand over so many."""
    return min(handed, max(1, part_rows // _SHALLOW))


def deep_parts(n: int, k: int, part_rows: int) -> float:
    """The share of parts that hand over all that a part may; the others hand over few."""
    return min(1.0, max(_CANDIDATES, _CANDIDATES_A_PICK * k) / (-(-n // part_rows) * handed_by_a_part(n, k, part_rows)))
