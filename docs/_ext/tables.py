"""The generated tables: what auto picks, all words, the laws, the claims, the papers."""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import click
from docstrings import safe
from reference import HOMES, ROOT, word_anchor

from kofn.cli import COMMANDS
from kofn.cli.verb_command import Section
from kofn.core import words as bundles
from kofn.core.auto import AUTO
from kofn.core.bibliography import papers
from kofn.core.vocabulary import SYNONYMS, SYNONYMS_OF_VERB, VOCABULARY

ROLES = {
    "input": "What you have",
    "qualifier": "What is known of it",
    "constraint": "What must hold",
    "rule": "What is maximised",
    "setting": "How the work runs",
}
VERBS = ("select", "assign", "allocate", "combine")
# Words whose flag has another name than the word; the others are found by their name.
FLAGS = {
    "X": ("--vectors", "--columns", "--text"),
    "distances": ("--metric precomputed",),
    "curves": ("(the file itself)",),
    "members": ("(the files themselves)",),
}


def auto(verb: str) -> str:
    """What `method="auto"` picks for one verb, in order."""
    lines = ["| you give | it picks | which is |", "|---|---|---|"]
    for name, why in AUTO[verb]:
        given, _, what = why.partition(": ")
        lines.append(f"| {safe(given)} | {{m}}`{name}` | {safe(what)} |")
    return "\n".join(lines) + "\n"


def words() -> str:
    """Every word of the vocabulary: Python, command line, meaning, what others call it."""
    flags = _flags()
    others = defaultdict(list)
    for theirs, ours in (*SYNONYMS.items(), *(pair for own in SYNONYMS_OF_VERB.values() for pair in own.items())):
        others[ours].append(f"`{theirs}`")
    types = _types()
    lines = []
    for role, title in ROLES.items():
        lines += [f"## {title}", "", "| Python | command line | what it is | elsewhere called |", "|---|---|---|---|"]
        for name, word in VOCABULARY.items():
            if word.role != role:
                continue
            kind = f"<br><small>{safe(types[name])}</small>" if name in types else ""
            anchor = f'<a id="{word_anchor(name)}"></a>'
            shown = ", ".join(f"`{flag}`" if flag.startswith("-") else flag for flag in flags.get(name, ()))
            shown = shown or "(Python only)"
            lines.append(f"| {anchor}`{name}`{kind} | {shown} | {safe(word.help)} | {', '.join(others[name])} |")
        lines.append("")
    lines += [
        "## Of tables",
        "",
        "Where X is a table, `ids`, `y`, `groups`, `weights`, `costs`, `scores` and `sizes` may name its columns, and",
        "these words say more of it ([Bring your own data](your-data.md)).",
        "",
        "| word | on the command line | what it means |",
        "|---|---|---|",
    ]
    for name, (kind, sentence) in bundles.OF_TABLES.items():
        flag = {"cache": "--no-cache"}.get(name, f"--{name.replace('_', '-')}")
        kind = safe(kind.replace(" | None", ""))
        lines.append(f"| `{name}`<br><small>{kind}</small> | `{flag}` | {safe(sentence)} |")
    lines.append("")
    lines += [
        "## The method itself",
        "",
        f"`method=` (`-m`, `--method`) is what other libraries call {', '.join(others['method'])}.",
        'It is a name from the [reference](/reference/index.md), `"auto"`, or your own callable. Options of a method',
        "are given beside it: `density=0.2` in Python, `--density 0.2` on the command line.",
        "",
    ]
    return "\n".join(lines)


def commands() -> str:
    """Every command with its flags, in the order and the words of its `--help`."""
    lines = []
    for name, summary in COMMANDS.items():
        command = importlib.import_module(f"kofn.cli.{name}").command
        flags = [param for param in command.params if isinstance(param, click.Option)]
        sections = getattr(command, "sections", None) or (Section("Flags", tuple(flags)),)
        lines += [f"## kofn {name}", "", summary, ""]
        for section in sections:
            shown = [flag for flag in section.flags if not flag.hidden]
            if not shown:
                continue
            lines += [f"### {section.title}", "", "| flag | what it does |", "|---|---|"]
            lines += [f"| {_spelled(flag)} | {safe(flag.help or '')} |" for flag in shown]
            lines.append("")
    return "\n".join(lines)


def _spelled(flag: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*flag.opts, *flag.secondary_opts))
    value = (flag.metavar or flag.type.name.upper()).replace("|", "\\|")
    return names if flag.is_flag else f"{names} `{value}`"


def _types() -> dict[str, str]:
    hints = {name: str(kind) for name, kind in bundles.Words.__annotations__.items()}
    return {name: _short(kind) for name, kind in hints.items()}


def _short(kind: str) -> str:
    if kind.startswith("ForwardRef("):
        kind = kind.removeprefix("ForwardRef('").split("'", 1)[0]
    return kind.replace(" | None", "")


def _flags() -> dict[str, list[str]]:
    """The flags of each word, in the commands' own order."""
    found: dict[str, list[str]] = defaultdict(list)
    for verb in VERBS:
        command = importlib.import_module(f"kofn.cli.{verb}").command
        for parameter in command.params:
            for flag in parameter.opts:
                word = flag.lstrip("-").replace("-", "_")
                names = {word, f"{word}s", parameter.name} & set(VOCABULARY)
                for name in names:
                    if flag.startswith("-") and flag not in found[name]:
                        found[name].append(flag)
    for name, flags in FLAGS.items():
        found[name] = [*flags, *(flag for flag in found[name] if flag not in flags)]
    return found


def laws() -> str:
    """Every law and what it says."""
    from kofn.laws import LAWS

    lines = ["| law | what it says |", "|---|---|"]
    for name, law in LAWS.items():
        lines.append(f'| <a id="{name}"></a>`{name}` | {safe(" ".join((law.__doc__ or "").split()))} |')
    return "\n".join(lines) + "\n"


def claims() -> str:
    """Every claim: what is said, whether it held, and the paper."""
    sys.path.insert(0, str(ROOT))
    from claims import discover, recorded

    outcomes = recorded()
    groups: dict[str, list[str]] = defaultdict(list)
    for number, source in discover().items():
        where = source.path.relative_to(ROOT).as_posix()
        groups[where.split("/")[1]] += _claim(number, source, outcomes.get(number, {}), where)
    lines = []
    for home in sorted(groups, key=[*HOMES, "outside"].index):
        lines += [f"## {HOMES.get(home, 'Outside the library').split(':')[0]}", "", *groups[home]]
    return "\n".join(lines)


def _claim(number: int, source: Any, row: Mapping[str, Any], where: str) -> list[str]:
    from claims.harness.fresh import held_at

    paper = papers().get(str(number))
    title = paper.title if paper else source.name.replace("_", " ")
    lines = [f"(p{number})=", f"### {number}: {safe(title)}", "", f"{safe(source.says)}.", ""]
    lines += [f"- **Outcome** {row.get('outcome', 'unrecorded').replace('-', ' ')}"]
    lines += [f"- **Does not hold** {safe(part)}" for part in row.get("fails", ())]
    if row.get("reason"):
        lines += [f"- **With** {safe(row['reason'])}"]
    tried, held = held_at(ROOT / "claims" / "fresh.json", source)
    if tried:
        lines += [f"- **Fresh seeds** held at {held} of {tried}"]
    lines += [
        f"- **Changed** from {safe(c['old'])} to {safe(c['new'])}: {safe(c['why'])}" for c in row.get("history", ())
    ]
    link = f'<a href="code/{where}.txt">{where}</a>'
    lines += [f"- **Run it** `python -m claims --ids {number} --seed 7`, then `--broken` · {link}"]
    if paper:
        shown = safe(str(paper))
        lines += [f"- **Paper** [{shown}]({paper.url})" if paper.url else f"- **Paper** {shown}"]
    return [*lines, ""]


def counts() -> str:
    """How many claims came out how."""
    sys.path.insert(0, str(ROOT))
    from claims import recorded

    tally: dict[str, int] = defaultdict(int)
    for row in recorded().values():
        tally[row["outcome"].replace("-", " ")] += 1
    return ", ".join(f"{times} **{outcome}**" for outcome, times in sorted(tally.items(), key=lambda i: -i[1])) + "\n"


def shelf() -> str:
    """The data sets of `kofn.datasets`, the packages that carry them, and the licences of both."""
    from kofn import datasets

    lines = [
        "| data set | what it is | rows | package | its licence | what it says of the data |",
        "|---|---|--:|---|---|---|",
    ]
    for name in datasets.names():
        set_ = datasets.describe(name)
        cells = (name, safe(set_.about), f"{set_.rows:,}", set_.package, set_.licence, safe(set_.data_licence))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def bibliography() -> str:
    """Every paper that is cited."""
    lines = []
    for key, paper in papers().items():
        shown = safe(str(paper))
        lines.append(f"- `{key}` [{shown}]({paper.url})" if paper.url else f"- `{key}` {shown}")
    return "\n".join(lines) + "\n"
