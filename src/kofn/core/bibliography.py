"""What a method or a claim cites: papers by their key in `papers.toml`."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from kofn.core.checks import InputError, nearest

# A paper's number, its name such as "gonzalez1985", or several of them.
Keys = int | str | tuple[int | str, ...]

_DATA = Path(__file__).resolve().parents[1] / "_index" / "papers.json"
# As many authors are named before "et al." stands for the others.
_NAMED = 3


@dataclass(frozen=True)
class Paper:
    """One row of the bibliography; a field that is not known is empty."""

    key: str
    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    venue: str = ""
    arxiv: str = ""

    @property
    def by(self) -> str:
        """The authors and the year, as papers are named in a sentence."""
        names = self.authors
        if len(names) > _NAMED:
            listed = f"{names[0]} et al."
        elif len(names) > 1:
            listed = f"{', '.join(names[:-1])} & {names[-1]}"
        else:
            listed = ", ".join(names)
        return " ".join(filter(None, (listed, str(self.year or ""))))

    @property
    def url(self) -> str:
        """Where the paper can be read, or nothing."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.venue, f"arXiv {self.arxiv}" if self.arxiv else "")))
        return ", ".join(filter(None, (self.by, self.title))) + (f" ({where})" if where else "")


@functools.cache
def papers() -> dict[str, Paper]:
    """Every paper by its key."""
    rows = json.loads(_DATA.read_text(encoding="utf-8"))
    return {key: Paper(key, **{**row, "authors": tuple(row.get("authors", ()))}) for key, row in rows.items()}


def paper(key: int | str) -> Paper:
    """The paper of one key.

    Raises:
        InputError: papers.toml has no such key.
    """
    try:
        return papers()[str(key)]
    except KeyError:
        raise InputError(
            f"paper={key!r} is not in papers.toml{nearest(str(key), list(papers()))}; add a row, then run `make index`"
        ) from None


def keys_of(keys: Keys) -> tuple[int | str, ...]:
    """One key or several, as a tuple."""
    return keys if isinstance(keys, tuple) else (keys,)


def cite(keys: Keys) -> str:
    """The full reference of one key, or of several, each "Authors year, Title (Venue, arXiv number)".

    A text with a space in it is no key: it is a reference that is written out, as a method outside this library has it.

    Examples:
        >>> from kofn.core.bibliography import cite
        >>> cite(5)
        'Sultan 2020, Probabilistic Partitive Partitioning (PPP) (arXiv 2003.04372)'
        >>> cite(("minoux1978", "gonzalez1985"))[:40]
        'Minoux 1978, Accelerated greedy algorith'
    """
    return "; ".join(
        key if isinstance(key, str) and (not key or " " in key) else str(paper(key)) for key in keys_of(keys)
    )
