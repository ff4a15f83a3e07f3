"""`kofn.find`: which method, objective, stepper, module or helper answers a question in words."""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "_index" / "find.json"
# A whole phrase that the thing is known by, and the same where the thing is its best answer.
_PHRASE, _LEAD = 12.0, 6.0
# A phrase whose words stand apart in the question counts this share.
_APART = 0.6
# A word that is nowhere is taken for the nearest one only where they are as alike as this.
_NEAR = 0.84
# What answers less than this share as well as the best is left out.
_TAIL = 0.15
# Where two answer equally well, what is called through a verb comes first; what is elsewhere is known by phrases alone.
_FORM = {"function": 1.1, "merge_rule": 1.1, "objective": 1.0, "stepper": 1.0, "elsewhere": 1.5}
_FORM |= {"helper": 0.95, "module": 0.9}
# Words that say nothing of what is looked for.
_SILENT = """
    a an and any are as at be best by can do does each for from get give given have how i if in into is it its keep kofn
    like make many me my of on or our out over should so some such than that the their them then there these things this
    to use want what when where which who with within without you your
"""
_STOP = frozenset(_SILENT.split())
# Words of one meaning, by stem: the first stands for all.
_SAME = {
    stem: words[0]
    for words in (
        ("cluster", "clust", "partition", "segment"),
        ("merge", "merg", "fuse", "fus", "blend"),
        ("average", "averag", "mean"),
        ("label", "annotat"),
        ("checkpoint", "model", "network"),
        ("duplicat", "dedup", "dupe"),
        ("pick", "select", "choos", "subset", "sampl"),
        ("rout", "dispatch"),
        ("rank", "order"),
        ("judg", "rater"),
        ("quantiz", "bit"),
    )
    for stem in words[1:]
}


@dataclass(frozen=True)
class Hit:
    """One thing that was found.

    Args:
        name: as it is called.
        form: "function", "merge_rule", "objective", "stepper", "module", "helper", "estimator", or "elsewhere" for what
            another library does.
        verb: the verb it belongs to, or nothing.
        family: its folder in the library.
        summary: what it does, in one sentence.
        call: the shortest call of it.
        file: where its code is, in the repository, or nothing.
        claim: where its paper's experiment is, or nothing.
        test: where its test is.
        paper: the reference, or nothing.
        score: how well it answers; only the order matters.
    """

    name: str
    form: str
    verb: str
    family: str
    summary: str
    call: str
    file: str
    claim: str
    test: str
    paper: str
    score: float

    def __repr__(self) -> str:
        return f"<{self.name}: {self.call}>"

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.summary}", f"  {self.call}"]
        lines += [f"  {key:6s} {value}" for key, value in self._places() if value]
        return "\n".join(lines)

    def _places(self) -> tuple[tuple[str, str], ...]:
        return ("code", self.file), ("test", self.test), ("claim", self.claim), ("paper", self.paper)


def find(words: str, limit: int = 10) -> list[Hit]:
    """Find what answers a question, in the words of the field: methods, objectives, steppers, modules and helpers.

    Names, summaries, families, titles of papers and other names ("k-center", "model soup") are searched. Endings do not
    matter, and a word that is nowhere is taken for the nearest one.

    Args:
        words: what you look for.
        limit: how many to return at most.

    Returns:
        The hits, best first; empty where no word of the question is known.

    Raises:
        InputError: `words` is empty, or `limit` is no whole number above 0.

    Examples:
        >>> import kofn
        >>> [hit.name for hit in kofn.find("k-center", limit=2)]
        ['farthest_first', 'k_center']
        >>> kofn.find("model soup")[0].call
        'kofn.combine([a, b], score=accuracy, method="greedy_soup")'
    """
    if not isinstance(words, str) or not words.strip() or not isinstance(limit, int) or limit < 1:
        _refuse(words, limit)
    catalogue = _catalogue()
    # "k-medoids of 100,000 points": how many is no word to search for.
    searched = [stem for stem in stems(words) if not stem.isdigit()]
    asked = catalogue.known(searched)
    phrase = f" {' '.join(searched)} "
    scored = [(catalogue.score(number, asked, phrase), number) for number in range(len(catalogue.rows))]
    least = _TAIL * max(scored)[0]
    best = sorted((pair for pair in scored if pair[0] > least), key=lambda pair: (-pair[0], pair[1]))[:limit]
    return [_hit(catalogue.rows[number], score) for score, number in best]


def _refuse(words: Any, limit: Any) -> None:
    # Only here: the checks bring NumPy with them, which would take longer than the search.
    from kofn.core.checks import InputError, count

    if not isinstance(words, str) or not words.strip():
        raise InputError(f"words={words!r}: give a question or a few words, such as 'must-link' or 'merge adapters'")
    count(limit, "limit")


def _hit(row: Mapping[str, Any], score: float) -> Hit:
    fields = {name: row.get(name, "") for name in Hit.__dataclass_fields__ if name != "score"}
    return Hit(**fields, score=round(score, 3))


def stems(text: str) -> list[str]:
    """The words of a text without endings, so that "routers", "router" and "routing" are one word.

    Examples:
        >>> stems("Routers routing k-center, centres of FasterPAM")
        ['rout', 'rout', 'k', 'cent', 'cent', 'fast', 'pam']
    """
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    words = re.findall(r"[^\W_]+", split.lower())
    return [_stem(word) for word in words if word not in _STOP]


def _stem(word: str) -> str:
    if len(word) > 4:
        word = re.sub(r"res?$", "er", word) if re.search(r"[tb]res?$", word) else word.replace("our", "or")
        word = re.sub(r"ies$", "y", word)
        word = re.sub(r"(?<![su])s$", "", word)
    for ending in ("ization", "isation", "ation", "ing", "ise", "ize", "ers", "er", "ed", "es", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + ("iz" if ending.startswith(("iza", "isa", "ise", "ize")) else "")
            break
    return _SAME.get(word, word)


def phrase_of(text: str) -> str:
    """The stems of a phrase between spaces, so that one phrase is found whole in another."""
    return f" {' '.join(stems(text))} "


class _Catalogue:
    """The rows: each knows how much every stem counts in it, and by which phrases it is known."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        holding = Counter(stem for row in rows for stem in row["counts"])
        self.rarity = {stem: math.log(1 + len(rows) / times) for stem, times in holding.items()}

    def known(self, asked: list[str]) -> list[str]:
        """The asked stems, an unknown one replaced by the nearest that is known."""
        known_stems = []
        for stem in asked:
            if stem not in self.rarity:
                near = difflib.get_close_matches(stem, self.rarity, 1, _NEAR)
                if not near:
                    continue
                stem = near[0]
            known_stems.append(stem)
        return list(dict.fromkeys(known_stems))

    def score(self, number: int, asked: list[str], phrase: str) -> float:
        """How well one row answers."""
        row = self.rows[number]
        counts = row["counts"]
        total = 0.0
        for stem in asked:
            if stem in counts:
                # Saturating, as in BM25: many mentions of one word do not outweigh a second word.
                total += self.rarity[stem] * counts[stem] / (counts[stem] + 3.0)
        total *= 1 + sum(stem in counts for stem in asked) / max(1, len(asked))
        words = set(phrase.split())
        total += _PHRASE * max((_said(known, phrase, words) for known in row["phrases"]), default=0.0)
        total += _LEAD * max((_said(known, phrase, words) for known in row["leads"]), default=0.0)
        return total * _FORM.get(row["form"], 0.9)


def _said(known: str, phrase: str, words: set[str]) -> float:
    """1 where a question has a phrase whole, less where it has its words apart, else 0."""
    return 1.0 if known in phrase else _APART * (words >= set(known.split()))


@functools.cache
def _catalogue() -> _Catalogue:
    return _Catalogue(json.loads(_DATA.read_text(encoding="utf-8")))
