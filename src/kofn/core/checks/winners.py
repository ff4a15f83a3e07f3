"""What the winner of a vote between two may be called: by its name, by a word for its side, or a tie."""

from __future__ import annotations

from collections.abc import Sequence

from kofn.core.checks.errors import InputError

# What a winner column says of neither side; "(bothbad)" is how arenas write that both were bad.
_TIES = frozenset({"tie", "ties", "tied", "draw", "both", "neither", "equal", "none", "tie (bothbad)", "bothbad"})
_TIES |= {"both_bad", "both bad", "tie (both bad)", "tie_bothbad", "both_good"}
# By which a side may be called, pair by pair.
_LETTERS = (("a", "b"), ("first", "second"), ("left", "right"), ("1", "2"))


def side_of(winner: str, first: str, second: str, columns: tuple[str, str], *, letters: bool = True) -> int | None:
    """1 or 2, the side that won, 0 for neither; None where `winner` says no such thing.

    A name comes before a word for a side; `sides_of` reads a whole table in one way.

    Args:
        winner: what the winner column holds.
        first: the name of the first side in this row.
        second: the name of the second side.
        columns: what the columns of the two sides are called, or nothing.
        letters: whether a side may be called a, first, left or 1, and b, second, right or 2.

    Examples:
        >>> side_of("model_b", "gpt", "llama", ("model_a", "model_b")), side_of("llama", "gpt", "llama", ("", ""))
        (2, 2)
        >>> side_of("tie (bothbad)", "gpt", "llama", ("", "")), side_of("mistral", "gpt", "llama", ("", ""))
        (0, None)
    """
    if winner in (first, second):
        return 1 if winner == first else 2
    return _word(winner, columns, letters=letters)[0]


def _word(winner: str, columns: tuple[str, str], *, letters: bool = True) -> tuple[int | None, int]:
    """The side that a word stands for, whatever the names are, and the number of the pair of words that it is of."""
    word = winner.strip().casefold()
    word = word.removesuffix(".0") if word in ("1.0", "2.0") else word  # whole numbers beside gaps
    called = (columns[0].strip().casefold(), columns[1].strip().casefold())
    for number, pair in enumerate((called, *(_LETTERS if letters else ()))):
        if word and word in pair:
            return pair.index(word) + 1, number
    return (0 if word in _TIES else None), -1


def sides_of(rows: Sequence[tuple[str, str, str]], columns: tuple[str, str]) -> list[int | None]:
    """Read the winner of every row, by names or by words for sides, in one way wherever a word is a name as well.

    A winner such as A may be the alternative A or the first side. Where the two differ in some row, all rows that hold
    such words are read as sides if one of them can only be a side, and as names if one can only be a name.

    Args:
        rows: the two sides and the winner of each row.
        columns: what the columns of the two sides are called, or nothing.

    Returns:
        1 or 2, the side that won, 0 for neither; None where the winner says no such thing.

    Raises:
        InputError: some rows fit both ways, unlike, and no row tells which is meant, or rows tell both.

    Examples:
        >>> sides_of([("B", "A", "A"), ("C", "D", "B"), ("C", "B", "tie")], ("", ""))
        [1, 2, 0]
        >>> sides_of([("B", "A", "A"), ("C", "D", "D")], ("", ""))
        [2, 2]
    """
    alternatives = {name for row in rows for name in row[:2]}
    unlike: dict[int, int] = {}  # by the pair of words, the first row that reads two ways
    as_word: dict[int, int] = {}  # and the first that can only be such a word
    as_name = None
    readings = []
    for number, (first, second, winner) in enumerate(rows):
        side, pair = _word(winner, columns)
        name = None if winner not in (first, second) else 1 if winner == first else 2
        readings.append((name, side, pair))
        if name is None:
            if side or (side == 0 and winner in alternatives):
                as_word.setdefault(pair, number)
        elif side is None and as_name is None:
            as_name = number
        elif side is not None and side != name:
            unlike.setdefault(pair, number)
    words = {pair for pair in unlike if pair >= 0 and pair in as_word and as_name is None}
    for pair, number in unlike.items():
        undecided = (pair in as_word) == (as_name is not None) if pair >= 0 else pair in as_word
        if undecided:
            _refuse_two_readings(rows, number, columns, as_word.get(pair), as_name)
    return [side if name is None or pair in words else name for name, side, pair in readings]


def winner_words(columns: tuple[str, str]) -> str:
    """What a winner may be called, for a message."""
    firsts, seconds = (
        [name for name in (called, *words) if name]
        for called, words in zip(columns, zip(*_LETTERS, strict=True), strict=True)
    )
    return (
        f"name one of them, or say tie; known are {', '.join(dict.fromkeys(firsts))} of the first, "
        f"{', '.join(dict.fromkeys(seconds))} of the second, and {', '.join(sorted(_TIES))} of neither"
    )


def _refuse_two_readings(
    rows: Sequence[tuple[str, str, str]],
    number: int,
    columns: tuple[str, str],
    as_word: int | None,
    as_name: int | None,
) -> None:
    """Refuse a winner that is one side by its name and another, or a tie, as a word.

    Raises:
        InputError: always.
    """
    first, second, winner = rows[number]
    side = _word(winner, columns)[0]
    meant = "a tie" if side == 0 else f"the {('first', 'second')[(side or 1) - 1]} side"
    shown_rows = [
        f"{rows[row][2]!r} of {rows[row][0]!r} against {rows[row][1]!r}"
        for row in (as_word, as_name)
        if row is not None
    ]
    why = (
        f"other rows tell both ({' and '.join(shown_rows)})" if len(shown_rows) == 2 else "no row tells which is meant"
    )
    words = " or ".join(map(repr, columns if all(columns) and winner not in columns else ("first", "second")))
    raise InputError(
        f"the winner of {first!r} against {second!r} is {winner!r}, which is the name of an alternative and the word "
        f"for {meant}, and {why}; write {words} or tie in every row, or give the alternatives other names"
    )
