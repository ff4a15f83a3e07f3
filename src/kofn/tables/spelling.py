"""What is said of a table names flags, as they are typed; in Python the same words are arguments.

>>> in_python("-k 5 of 3 rows: --dedupe 0.9 dropped 2; say --metric cosine, or --drop-empty")
"k=5 of 3 rows: dedupe=0.9 dropped 2; say metric='cosine', or drop_empty=True"
>>> in_python("name the models with --columns 'forest,net 2', or the features with --feature-columns age,income")
"name the models with columns=['forest', 'net 2'], or the features with X=['age', 'income']"
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kofn.core.checks import KofnError

# Flags that are not called as the argument is.
_WORDS = {
    "feature-columns": "X",
    "id": "ids",
    "label": "y",
    "group": "groups",
    "weight": "weights",
    "cost": "costs",
    "score": "scores",
    "quota": "quotas",
    "size": "sizes",
    "limit": "limits",
    "threads": "n_threads",
}
# Flags without a value.
_SWITCHES = ("drop-empty", "scores", "rankings", "equal")
_ARRAY = re.compile(r"@\w+\.npy")
_NAMES = "cosine|precomputed|median|mean|tfidf|none|auto"
_VALUE = (
    rf"(?P<number>-?\d+(\.\d+)?(?![\w.]))|(?P<text>'[^']*')|(?P<word>,(?= )|({_NAMES})(?!\w))"
    r"|(?P<metavar>[A-Z]+(,[A-Z])?)(?!\w)"
)
_FLAG = re.compile(rf"(?<![\w-])(--(?P<flag>[a-z]+(-[a-z]+)*)|-(?P<short>[km]))(?![\w-])( ({_VALUE}))?")


# A flag whose value is a list in Python.
_NAMED = re.compile(
    r"(?<![\w-])--(?P<flag>classes|columns|feature-columns|long) (?P<names>'[^']*'|[\w.+-]+(,[\w.+-]+)+)"
)


def _names(match: re.Match[str]) -> str:
    return f"{_WORDS.get(match['flag'], match['flag'])}={match['names'].strip(chr(39)).split(',')}"


def in_python(text: str) -> str:
    """A message with arguments of Python in place of flags, and arrays in place of their files."""
    text = _NAMED.sub(_names, text)
    return _ARRAY.sub("an array", _FLAG.sub(_argument, text))


def _argument(match: re.Match[str]) -> str:
    flag = match["flag"] or {"k": "k", "m": "method"}[match["short"]]
    word = _WORDS.get(flag, flag).replace("-", "_")
    value = match["number"] or match["text"] or (match["word"] and repr(match["word"]))
    if flag in _SWITCHES:
        rest = match[0].partition(" ")[2]
        return f"{word}=True" + (f" {rest}" if rest else "")
    if match["metavar"]:
        return f"{word}={match['metavar']}"
    return f"{word}={value}" if value else word


# Options of blends, which messages of the methods name as Python has them.
_LIST = re.compile(r"\b(?P<word>classes|quantiles)=\[(?P<values>[^\]]*)\]")
_OPTION = re.compile(r"\b(?P<word>loss|method)='(?P<value>\w+)'")


def in_flags(text: str) -> str:
    """A message of a method with flags in place of its options of Python.

    >>> in_flags("say classes=['no', 'yes'], classes=[...] or loss='accuracy'")
    'say --classes no,yes, --classes A,B or --loss accuracy'
    """
    return _OPTION.sub(lambda match: f"--{match['word']} {match['value']}", _LIST.sub(_listed, text))


# What a method needs of a call, as it is given on the command line.
_GIVEN = {"base": "--base DIR", "y": "--label COL", "costs": "--cost COL", "groups": "--group COL"}
_SKIP = re.compile(r"\bskip=\[(?P<value>'[^']*')\]")
_DTYPE = re.compile(r"\bdtype='(?P<value>b?float\d\w*)'(?!; did you mean)")
_NEEDS = re.compile(r"^(?P<start>method='\w+' needs )(?P<words>\w+(, \w+)*)(?P<rest>; methods that fit this call: .*)$")


def needs_in_flags(text: str) -> str:
    """A refusal of a call that lacks what its method needs, with the flags that give it; dtypes and names as typed.

    >>> needs_in_flags("method='ties' needs base; methods that fit this call: none")
    "method='ties' needs base: give --base DIR"
    >>> needs_in_flags("beyond the range of float16; write it in dtype='float32'")
    'beyond the range of float16; write it in --dtype float32'
    >>> needs_in_flags("copy one member's by skip=['steps']")
    "copy one member's by --skip 'steps'"
    """
    text = _DTYPE.sub(lambda dtype: f"--dtype {dtype['value']}", text)
    text = _SKIP.sub(lambda skip: f"--skip {skip['value']}", text)
    match = _NEEDS.match(text)
    words = match["words"].split(", ") if match else []
    if match is None or not set(words) <= _GIVEN.keys():
        return text
    rest = "" if match["rest"].endswith(": none") else match["rest"]
    return f"{match['start']}{match['words']}: give {' and '.join(_GIVEN[word] for word in words)}{rest}"


_ENGINE = re.compile(r"^engine=(?P<value>'[^']*')(?=: choose)")
_NAMING = re.compile(r"^(?P<word>include|exclude|start)(?= names )")
_LEAST = re.compile(r"\bbounds=\((?P<least>\d+), (None|\.\.\.)\)")
_QUOTA = re.compile(r"\bquotas(\[(?P<column>'[^']*')\])?\[(?P<group>'[^']*')\]")


def constraints_in_flags(text: str) -> str:
    """A refusal of rows that are named, of quotas, a least amount or an engine, with the flags that name them.

    >>> constraints_in_flags("include names 'zzz', which no row has as its id")
    "--include names 'zzz', which no row has as its id"
    >>> constraints_in_flags("quotas['lang']['de'] asks for at least 5")
    '--quota lang=de asks for at least 5'
    >>> constraints_in_flags("quotas['de'] asks for at least 5")
    "--quota of 'de' asks for at least 5"
    >>> constraints_in_flags("bounds=(1, None) asks for one")
    '--min 1 asks for one'
    >>> constraints_in_flags("engine='spork': choose one of local, ray")
    "--engine 'spork': choose one of local, ray"
    """
    text = _ENGINE.sub(r"--engine \g<value>", text)
    text = _LEAST.sub(r"--min \g<least>", text)
    return _QUOTA.sub(_quota, _NAMING.sub(r"--\g<word>", text))


def with_column(text: str, column: str) -> str:
    """A refusal of quotas with the column that they are of, where a call has one column and names none.

    >>> with_column("quotas['de'] asks for at least 5", "lang")
    "quotas['lang']['de'] asks for at least 5"
    """
    return _QUOTA.sub(lambda match: match[0] if match["column"] else f"quotas[{column!r}][{match['group']}]", text)


def _quota(match: re.Match[str]) -> str:
    if match["column"] is None:
        return f"--quota of {match['group']}"
    typed = f"{match['column'][1:-1]}={match['group'][1:-1]}"
    plain = re.fullmatch(r"[\w.,+=-]+", typed)
    return f"--quota {typed if plain else repr(typed)}"


def _listed(match: re.Match[str]) -> str:
    values = [part.strip().strip("'") for part in match["values"].split(",")]
    typed = "A,B" if values == ["..."] else ",".join(values)
    plain = re.fullmatch(r"[\w.,+-]+", typed)
    return f"--{match['word']} {typed if plain else repr(typed)}"


def speaking_flags(answer: Callable[[], Any]) -> Any:
    """What a call gives; what it refuses is said in flags."""
    try:
        return answer()
    except KofnError as error:
        spelt = in_flags(str(error))
        if spelt == str(error):
            raise
        raise type(error)(spelt) from None


def speaking_python(answer: Callable[[], Any]) -> Any:
    """What a call gives; what it refuses is said in arguments of Python."""
    try:
        return answer()
    except KofnError as error:
        spelt = in_python(str(error))
        if spelt == str(error):
            raise
        raise type(error)(spelt) from None
