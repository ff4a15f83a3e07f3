"""How many rows parts have, hand over and are judged by, and what all of it costs."""

from __future__ import annotations

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


def pairs_of_rounds(
    n: int, k: int, part_rows: int | None = None, n_reference: int | None = None, bound_rows: int | None = None
) -> int:
    """About how many distances a call computes: what its two rounds, its bound and its values take.

    >>> pairs_of_rounds(1_000_000, 100) / 1e9
    7.148
    """
    part = min(n, part_rows or PART_ROWS)
    parts = -(-n // part)
    all_judge = parts == 1 if n_reference is None else n_reference >= n
    judges = min(n, judges_of(k) if n_reference is None else n_reference)
    bound = min(n, BOUND_ROWS if bound_rows is None else bound_rows)
    deep, handed = (1.0, min(k, part)) if all_judge else (deep_parts(n, k, part), handed_by_a_part(n, k, part))
    candidates = min(n, int(parts * (deep * handed + (1 - deep) * handed_by_a_shallow_part(handed, part))))
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
