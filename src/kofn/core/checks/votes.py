"""What a table of comparisons looks like: votes between two, a table of wins, scores in the long form."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kofn.core.checks.errors import InputError
from kofn.core.checks.numbers import shown
from kofn.core.checks.winners import side_of, winner_words

# What a column that names the winner is called.
_WINNER = re.compile(r"win|won|vote|prefer|chosen|choice|verdict|result|outcome|judg|label|better|best", re.IGNORECASE)
# What is called so says who won, whatever it holds; of the other words of `_WINNER` a score may be called (win_rate).
_SURELY_WINNER = re.compile(r"winner|preferred|preference|chosen|verdict", re.IGNORECASE)
# What a column is called that says how often each vote was cast.
_COUNT = re.compile(
    r"n|counts?|weights?|freq|frequency|times|((n|num|number|count)[ _]?(of[ _])?votes?|votes?[ _](n|counts?))",
    re.IGNORECASE,
)
# What columns of one kind differ by at the end of their names.
_NUMBERED = re.compile(r"[ _.-]?(\d+|(?<![a-z])[a-z])$")
# Numbers by which a side is told.
_CODES = frozenset({0, 1, 2})
_SIDE_NUMBERS = frozenset({1, 2})
# Words by which the names of two columns differ that hold the two sides.
_SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"))
# Among more columns of text no winner is looked for that names no side: the work grows with their cube.
_MOST_TEXTS = 16
# How many names are shown in one line.
_NAMED = 6


class VoteColumns(NamedTuple):
    """The columns of a table that holds one vote a row: the two that were compared, and which of them won.

    Without a `winner` column the first always won, but where `tie` (None where there is none) says otherwise. Each row
    counts once, or as often as `counts` says.
    """

    first: str
    second: str
    winner: str | None
    tie: str | None = None
    counts: str | None = None


def vote_columns(texts: Mapping[str, Sequence[str | None]], others: Iterable[str] = ()) -> VoteColumns | None:
    """The columns that make votes of the rows, or None where the table is no table of votes.

    They are two columns of names of which some stand in both, and one that names a side of each row, by its name or by
    its column's; or columns called winner and loser.

    Args:
        texts: some rows of every column of text.
        others: what the other columns are called.
    """
    called = {name.strip().casefold(): name for name in texts}
    if {"winner", "loser"} <= called.keys():
        tie = next((name for name in (*texts, *others) if name.strip().casefold() in ("tie", "draw")), None)
        return VoteColumns(called["winner"], called["loser"], None, tie)
    # Columns that are called as winners are come first; of the others mere letters and numbers say nothing.
    candidates = sorted(texts, key=lambda name: _WINNER.search(name) is None)
    for first, second in _pairs(texts):
        for winner in candidates:
            if winner in (first, second) or _labels_alike(texts, first, second, winner):
                continue
            if _decides(texts, first, second, winner):
                return VoteColumns(first, second, winner)
    return None


def numbered_winner(
    texts: Mapping[str, Sequence[str | None]], numbers: Mapping[str, Sequence[Any]]
) -> VoteColumns | None:
    """The columns that make votes of the rows where one called as winners are holds 1, the first side, and 2, the
    second, and nothing else; None of others, such as 0 and 1, which may be either side or a tie.

    Args:
        texts: some rows of every column of text.
        numbers: the same rows of every column of numbers or truth values.
    """
    for name, cells in numbers.items():
        if _SURELY_WINNER.search(name) and {cell for cell in cells if not _missing(cell)} == _SIDE_NUMBERS:
            return next((VoteColumns(first, second, name) for first, second in _pairs(texts)), None)
    return None


def counted_by(votes: VoteColumns, numbers: Iterable[str]) -> VoteColumns:
    """The columns of votes with that of `numbers` which says, by what it is called, how often each was cast."""
    others = (name for name in numbers if name != votes.tie)
    return votes._replace(counts=next((name for name in others if _COUNT.fullmatch(name.strip())), None))


def _pairs(texts: Mapping[str, Sequence[str | None]]) -> Iterable[tuple[str, str]]:
    """Every two columns of names of which some stand in both, or that are called as two sides are."""
    names = list(texts)
    values = {name: {value for value in texts[name] if value is not None} for name in names}
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            if values[first] & values[second] or _called_as_sides(first, second):
                yield first, second


def _called_as_sides(first: str, second: str) -> bool:
    """Whether two columns are called alike but for the side: model_a and model_b, left and right."""
    called, expected = first.strip().casefold(), second.strip().casefold()
    for left, right in _SIDES:
        for match in re.finditer(rf"(?<![a-z0-9]){left}(?![a-z0-9])|{left}$", called):
            if called[: match.start()] + right + called[match.end() :] == expected:
                return True
    return False


def _labels_alike(texts: Mapping[str, Sequence[str | None]], first: str, second: str, winner: str) -> bool:
    """Whether three columns hold what three people say of one thing, of which two may always say the same.

    They do if all are called alike but for a number or a letter (label_1, label_2, label_3), or if no column is called
    as a winner is and two of one thing agree in more than a quarter of the rows.
    """
    stems = {_NUMBERED.sub("", name.strip().casefold()) for name in (first, second, winner)}
    if len(stems) == 1:
        return True
    return not _SURELY_WINNER.search(winner) and not _called_as_sides(first, second) and _agree(texts, first, second)


def _agree(texts: Mapping[str, Sequence[str | None]], first: str, second: str) -> bool:
    """Whether two columns say the same in more than a quarter of the rows: they label one thing, and are no sides."""
    return 4 * sum(map(str.__eq__, map(str, texts[first]), map(str, texts[second]))) > len(texts[first])


def _decides(texts: Mapping[str, Sequence[str | None]], first: str, second: str, winner: str) -> bool:
    """Whether a column names a side of every row where it says anything, and one that is not a tie at least once.

    Ties alone do where all three columns are called as those of votes are.
    """
    decided = tied = False
    for left, right, won in zip(texts[first], texts[second], texts[winner], strict=True):
        if left is None or right is None or won is None:
            continue
        side = side_of(won, left, right, (first, second), letters=_WINNER.search(winner) is not None)
        if side is None:
            return False
        decided, tied = decided or side > 0, tied or side == 0
    return decided or (tied and _called_as_votes(first, second, winner))


def _called_as_votes(first: str, second: str, winner: str) -> bool:
    """Whether three columns are called as two sides and their winner are, so that no cell must tell."""
    return _SURELY_WINNER.search(winner) is not None and _called_as_sides(first, second)


def compared_pair(texts: Mapping[str, Sequence[str | None]]) -> tuple[str, str] | None:
    """Two columns whose rows look like comparisons of two without a word of who won: most names stand in both."""
    for first, second in _pairs(texts):
        lefts, rights = ({value for value in texts[name] if value is not None} for name in (first, second))
        repeated = max(len(lefts), len(rights)) < len(texts[first])
        if repeated and 2 * len(lefts & rights) > len(lefts | rights):
            return first, second
    return None


def refuse_undecided(
    subject: str, texts: Mapping[str, Sequence[str | None]], numbers: Mapping[str, Sequence[Any]]
) -> None:
    """Refuse rows that compare two each where no column says by a name which won.

    Args:
        subject: what holds the rows, for the message.
        texts: the first rows of every column of text, of which `vote_columns` makes no votes.
        numbers: the first rows of every column of numbers or truth values.

    Raises:
        InputError: a column that names a side in most rows names none in some, a column of numbers stands for the
            winner, or no column does.
    """
    _refuse_stray_winner(texts)
    remedy = "give a column that holds {0}, {1} or tie, or one of the two names"
    numbered = " (numbers say who won where they are 1 and 2 alone)"
    for first, second in _pairs(texts):
        for name, cells in numbers.items():
            if _stands_for_winner(texts, first, second, name, cells):
                row, cell = next(((i, cell) for i, cell in enumerate(cells) if not _missing(cell)), (0, None))
                raise InputError(
                    f"{subject} compares {first} and {second} row by row, and no column names the winner: {name} at "
                    f"row {row} is {shown(cell)}; {remedy.format(first, second)}"
                    f"{numbered if _SURELY_WINNER.search(name) else ''}"
                )
    if pair := compared_pair(texts):
        raise InputError(
            f"{subject} compares {pair[0]} and {pair[1]} row by row, and no column names the winner; "
            f"{remedy.format(*pair)}"
        )


def refuse_uncounted(votes: VoteColumns) -> None:
    """Refuse votes, one a row, in the place of judges' scores.

    Raises:
        InputError: always, with the call that counts them.
    """
    # Without a winner column the first side always won.
    winner = '["first"] * len(frame)' if votes.winner is None else f"frame[{votes.winner!r}]"
    count = "" if votes.counts is None else f", count=frame[{votes.counts!r}]"
    raise InputError(
        f"rankings looks like votes, one a row ({', '.join(filter(None, votes))}); count them first: kofn.combine("
        f"**kofn.combination.vote_ballots(frame[{votes.first!r}], frame[{votes.second!r}], {winner}{count}))"
    )


def refuse_numbered_votes(subject: str, numbers: Sequence[str]) -> None:
    """Refuse columns of numbers that are called as two sides and as their winner: numbers of sides, or of alternatives.

    Args:
        subject: what holds them, for the message.
        numbers: what the columns of numbers are called.

    Raises:
        InputError: there are three such columns.
    """
    winner = next((name for name in numbers if _SURELY_WINNER.search(name)), None)
    if winner is None:
        return
    for first, second in itertools.combinations((name for name in numbers if name != winner), 2):
        if _called_as_sides(first, second):
            raise InputError(
                f"{subject} compares {first} and {second} row by row, and both and {winner} hold numbers, which may be "
                f"of alternatives or of sides; write names in them, such as m1, and in {winner} a name, {first}, "
                f"{second} or tie; if they are judges, call them otherwise"
            )


def _missing(cell: Any) -> bool:
    return cell is None or cell != cell


def _stands_for_winner(
    texts: Mapping[str, Sequence[str | None]], first: str, second: str, name: str, cells: Sequence[Any]
) -> bool:
    """Whether a column of numbers says which of two won: by what it is called, or by codes beside repeated names."""
    if _SURELY_WINNER.search(name):
        return True
    present = [cell for cell in cells if not _missing(cell)]
    if not present or not _CODES.issuperset(present):
        return False
    # A board of models has a name for each row, and may well hold passes and failures.
    repeated = all(len(set(texts[side])) < len(texts[side]) for side in (first, second))
    return repeated or _called_as_sides(first, second) or _WINNER.search(name) is not None


def _refuse_stray_winner(texts: Mapping[str, Sequence[str | None]]) -> None:
    """Refuse the first winner that is neither side of its row, in the column that names a side in most rows, or that is
    called as winners are, beside two that are called as sides.

    Raises:
        InputError: there is such a column.
    """
    if len(texts) > _MOST_TEXTS:
        return
    best: tuple[bool, float] = (False, 0.5)
    stray: tuple[str, int, str, str, str] | None = None
    sides = ("", "")
    for first, second in _pairs(texts):
        compared = _called_as_sides(first, second) or compared_pair({n: texts[n] for n in (first, second)}) is not None
        for winner in texts:
            named = _WINNER.search(winner) is not None
            if winner in (first, second) or not (named or compared):
                continue
            share, row = _share_decided(texts, first, second, winner)
            most = share > 0.5 or _called_as_votes(first, second, winner)
            if row is not None and most and (named, share) > best:
                left, right, won = (str(texts[name][row]) for name in (first, second, winner))
                best, stray, sides = (named, share), (winner, row, won, left, right), (first, second)
    if stray is not None:
        winner, row, won, left, right = stray
        raise InputError(
            f"{winner} at row {row} is {shown(won)}, which is neither {shown(left)} nor {shown(right)} nor a tie; "
            f"{winner_words(sides)}"
        )


def _share_decided(
    texts: Mapping[str, Sequence[str | None]], first: str, second: str, winner: str
) -> tuple[float, int | None]:
    """The share of rows in which a column names a side, and the first row in which it names neither and no tie.

    Columns of labels of one thing are no sides.
    """
    if _agree(texts, first, second):
        return 0.0, None
    letters = _WINNER.search(winner) is not None
    decided, rows, stray = 0, 0, None
    for row, (left, right, won) in enumerate(zip(texts[first], texts[second], texts[winner], strict=True)):
        if left is None or right is None or won is None:
            continue
        rows += 1
        side = side_of(won, left, right, (first, second), letters=letters)
        decided += bool(side)
        if side is None and stray is None:
            stray = row
    return decided / max(rows, 1), stray


def refuse_wins(judges: Sequence[str], ids: Sequence[object], remedy: str) -> None:
    """Refuse judges who are called as what they judge: most often the table says how often the row beat the column.

    Raises:
        InputError: the two are the same names, in any order; mere numbers from 0 on are no names.
    """
    names = {str(key) for key in ids}
    numbered = list(judges) == [str(number) for number in range(len(judges))]
    if numbered or len(names) < 2 or names != set(judges) or len(names) != len(judges):
        return
    shown = ", ".join(list(judges)[:_NAMED]) + (", ..." if len(judges) > _NAMED else "")
    raise InputError(
        f"rankings looks like a table of wins, since its columns are called as its rows are ({shown}): ranked as "
        f"judges, those who beat others would come last; {remedy}"
    )
