"""Writes what `kofn find` reads: one row for everything public, `_index/find.json`.

Methods come from the index. Steppers, torch modules and helpers are read from the text of their files, so that nothing
is imported for them. The claim and the test of each are looked up in the checkout.
"""

from __future__ import annotations

import ast
import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kofn.core.bibliography import cite, keys_of, paper
from kofn.core.registry import HOMES, Entry
from kofn.finding import phrase_of, stems
from kofn.indexing import packages
from kofn.objectives.base import GREEDY, OBJECTIVES

ROOT = packages.HERE.parents[1]
FOUND = packages.HERE / "_index" / "find.json"
FIELD_WORDS = Path(__file__).with_name("field_words.toml")
ELSEWHERE = Path(__file__).with_name("elsewhere.toml")
# How an argument is written in a one-line call.
WRITTEN = {
    "X": "X",
    "distances": "distances=D",
    "similarity": "similarity=S",
    "scores": "scores=S",
    "curves": "curves",
    "members": "[a, b]",
    "rankings": "rankings=R",
    "k": "k=10",
    "budget": "budget=100",
    "capacity": "capacity=64",
    "score": "score=accuracy",
}
# Weight of a word by its position.
FIELDS = {"name": 5.0, "aliases": 4.0, "summary": 2.0, "family": 2.0, "titles": 1.0, "text": 0.3}
_FORMS = {"method": "function", "merge_rule": "merge_rule", "stepper": "stepper", "module": "module"}
# Public things outside the families: their file, form and call.
_OTHERS = {
    "compare": (
        "comparing.py",
        "helper",
        'kofn.compare("select", X, k=[10, 100], methods=["lazy_greedy", "random_sample"])',
    ),
    "methods": ("verbs.py", "helper", 'kofn.methods("assign", given=("scores", "capacity"))'),
    "Selector": ("estimators.py", "estimator", "kofn.Selector(k=100)"),
    "Assigner": ("estimators.py", "estimator", "kofn.Assigner(k=10)"),
    "DynamicSelector": ("ensemble_estimators.py", "estimator", "kofn.DynamicSelector(models)"),
    "EnsembleSelector": ("ensemble_estimators.py", "estimator", "kofn.EnsembleSelector(models, k=5)"),
    "Stacker": ("ensemble_estimators.py", "estimator", "kofn.Stacker(models)"),
}
# The word without which a call of the verb says little, shown where the method takes it and requires nothing like it.
_SHOWN = {"select": ("k", "k=10"), "assign": ("k", "k=10"), "allocate": ("budget", "budget=4.0")}


Row = dict[str, Any]


def rows(index: Mapping[str, Mapping[str, Entry]]) -> list[Row]:
    """Every row that can be found, best known first: methods, objectives, then the rest by file."""
    listed = [*map(_of_entry, (entry for entries in index.values() for entry in entries.values())), *_objectives()]
    named = {row["name"] for row in listed if row["form"] != "module"}
    for path in sorted(_files()):
        # A merge rule's class is the method of the same name, which the index has.
        listed += [
            row
            for row in _of_file(path)
            if row["form"] != "merge_rule" and (row["name"] not in named or row["form"] == "module")
        ]
    for name, (file, form, call) in _OTHERS.items():
        path = packages.HERE / file
        listed.append(_of_node(_definition(path, name), path, form) | {"call": call})
    words = field_words()
    claims, tests = _claims(), _tests()
    for row in listed:
        row["aliases"] += [phrase for phrase, names in words.items() if row["name"] in names]
        row["claim"] = next((claims[key] for key in row["papers"] if key in claims), "")
        row["test"] = _test(row, row.pop("known_as", row["name"]), tests)
        row["paper"] = cite(tuple(row["papers"]))
        row["counts"] = _counts(row)
        row["phrases"] = _phrases([row["name"], *row["aliases"]])
        # The first name of a phrase is its best answer.
        row["leads"] = _phrases([row["name"], *(phrase for phrase, names in words.items() if row["name"] == names[0])])
        del row["text"]
    return [{key: value for key, value in row.items() if value not in ("", [])} for row in [*listed, *_elsewhere()]]


def _elsewhere() -> Iterator[Row]:
    """What other libraries do: known by whole phrases alone, so that it never pushes in between kofn's own."""
    for entry in tomllib.loads(ELSEWHERE.read_text(encoding="utf-8"))["elsewhere"]:
        known = _phrases([*entry["phrases"], entry["name"]])
        facts = {word: entry[word] for word in ("name", "summary", "call")}
        yield facts | {"form": "elsewhere", "counts": {}, "phrases": known, "leads": known}


def _counts(row: Row) -> dict[str, float]:
    """Weight of each stem in a row."""
    cited = [paper(key) for key in row["papers"]]
    texts = {
        **row,
        "aliases": " ".join(row["aliases"]),
        "family": f"{row['family']} {row['verb']}",
        "titles": " ".join(f"{cited_paper.title} {' '.join(cited_paper.authors)}" for cited_paper in cited),
    }
    counts: dict[str, float] = {}
    for field, weight in FIELDS.items():
        for stem, times in Counter(stems(texts[field])).items():
            # A repeated word in one field counts little more than once.
            counts[stem] = round(counts.get(stem, 0.0) + weight * (1 + math.log(times)), 2)
    return counts


def _phrases(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(phrase for phrase in map(phrase_of, texts) if phrase.strip()))


def write(index: Mapping[str, Mapping[str, Entry]]) -> None:
    """Write the rows; without a checkout there are no claims and tests to point at."""
    if (ROOT / "claims").is_dir():
        # A line a row, so that a change of one is a change of one line.
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows(index))
        FOUND.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def field_words() -> dict[str, list[str]]:
    """The curated phrases and the names that answer them."""
    answers: dict[str, list[str]] = tomllib.loads(FIELD_WORDS.read_text(encoding="utf-8"))
    return answers


def _row(name: str, form: str, file: Path, summary: str, call: str, **more: Any) -> Row:
    inside = file.relative_to(packages.HERE)
    return {
        "name": name,
        "form": form,
        "verb": next((verb for verb, home in HOMES.items() if inside.parts[0] == home), ""),
        "family": "/".join(inside.parts[:-1]),
        "summary": summary,
        "call": call,
        "file": f"src/kofn/{inside.as_posix()}",
        "papers": [],
        "aliases": [],
        "text": "",
    } | more


def _of_entry(entry: Entry) -> Row:
    return _row(
        entry.name,
        entry.form,
        packages.HERE / entry.file,
        entry.summary,
        call_of(entry),
        verb=entry.verb,
        papers=[key for key in entry.papers if " " not in key],
        aliases=list(entry.aliases),
        text=" ".join([entry.exact, *entry.options, *entry.docs.values()]),
    )


def call_of(entry: Entry) -> str:
    """The shortest call of a method through its verb."""
    lead = {"allocate": "curves", "combine": "members"}.get(entry.verb, "X")
    words = [any_of[0] for any_of in entry.needs] + list(entry.required)
    written = [WRITTEN.get(word, f"{word}={word}") for word in sorted(words, key=lambda word: word != lead)]
    if shown := _SHOWN.get(entry.verb):
        word, text = shown
        written += [text] if word in entry.accepted and not {"k", "budget", "capacity"} & set(words) else []
    written += [f"{name}=..." for name, default in entry.options.items() if default == "required"]
    return f"kofn.{entry.verb}({', '.join([*written, f'method={chr(34)}{entry.name}{chr(34)}'])})"


def _objectives() -> Iterator[Row]:
    for name, known in OBJECTIVES.items():
        module, cls = known.path.split(":")
        path = packages.HERE / "objectives" / f"{module.rsplit('.', 1)[-1]}.py"
        source = {"scores": "scores=S"}.get(known.sources[0], "X")
        call = f'kofn.select({source}, k=10, objective="{name}")'
        if name not in GREEDY:  # no greedy search minimises it, but answers are compared by it
            call = f'kofn.compare("select", {source}, k=10, methods=["farthest_first"], objective="{name}")'
        node = _definition(path, cls)
        text = f"{cls} {ast.get_docstring(node) or ''}"
        papers = [str(key) for key in keys_of(known.paper)]
        yield _row(name, "objective", path, known.does, call, verb="select", papers=papers, text=text, known_as=cls)


def _files() -> Iterator[Path]:
    for root in packages.ROOTS:
        for path in (packages.HERE / root).rglob("_*.py"):
            inside = path.relative_to(packages.HERE / root)
            if path.name != "__init__.py" and not any(part.startswith("_") for part in inside.parts[:-1]):
                yield path


def _of_file(path: Path) -> Iterator[Row]:
    public = set(packages.exports(path))
    for node in packages.parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in public:
            yield _of_node(node, path, _form(node, path))


def _of_node(node: ast.FunctionDef | ast.ClassDef, path: Path, form: str) -> Row:
    registered = _registered(node)
    papers = registered.get("paper", ())
    inside = path.relative_to(packages.HERE)
    home = inside.parts[0]
    arguments = ", ".join(_required(node))
    call = f"{node.name}({arguments})"
    return _row(
        node.name,
        form,
        path,
        (ast.get_docstring(node) or "").split("\n\n", 1)[0].replace("\n", " "),
        f"from kofn.{home} import {node.name}; {call}",
        papers=[str(key) for key in keys_of(papers)],
        aliases=list(registered.get("aliases", ())),
        text=ast.get_docstring(node) or "",
    )


def _form(node: ast.FunctionDef | ast.ClassDef, path: Path) -> str:
    for call in _calls(node):
        if isinstance(call.func, ast.Name) and call.func.id in _FORMS:
            return _FORMS[call.func.id]
    if path.relative_to(packages.HERE).parts[0] == "nn":
        return "module" if isinstance(node, ast.ClassDef) else "helper"
    stateful = isinstance(node, ast.ClassDef) and any(
        isinstance(part, ast.FunctionDef) and part.name == "state_dict" for part in node.body
    )
    return "stepper" if stateful else "helper"


def _calls(node: ast.FunctionDef | ast.ClassDef) -> list[ast.Call]:
    return [call for call in node.decorator_list if isinstance(call, ast.Call)]


def _registered(node: ast.FunctionDef | ast.ClassDef) -> dict[str, Any]:
    """What the decorator says of papers and aliases."""
    facts = {}
    for call in _calls(node):
        for word in call.keywords:
            if word.arg in ("paper", "aliases"):
                facts[word.arg] = ast.literal_eval(word.value)
    return facts


def _required(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """The arguments that have no default, as they are written in a call."""
    if isinstance(node, ast.ClassDef):
        inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if not inits:
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and part.value is None]
            names = [part.target.id for part in fields if isinstance(part.target, ast.Name)]
            return [f"{name}={name}" for name in names if not name.startswith("_")]
        node = inits[0]
    arguments = node.args
    leading = [*arguments.posonlyargs, *arguments.args]
    positional = leading[: len(leading) - len(arguments.defaults)]
    named = [a for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return [a.arg for a in positional if a.arg != "self"] + [WRITTEN.get(a.arg, f"{a.arg}={a.arg}") for a in named]


def _definition(path: Path, name: str) -> ast.FunctionDef | ast.ClassDef:
    for node in packages.parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    raise ValueError(f"{path} defines no {name}")


def _claims() -> dict[str, str]:
    """The claim of each paper."""
    claims = {}
    for path in sorted((ROOT / "claims").rglob("p*_*.py")):
        if match := re.fullmatch(r"p0*(\d+)_\w+\.py", path.name):
            claims[match[1]] = path.relative_to(ROOT).as_posix()
    return claims


def _tests() -> dict[str, Counter[str]]:
    """How often each word stands in every test file."""
    return {
        path.relative_to(ROOT).as_posix(): Counter(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.name != "test_finding.py"
    }


def _test(row: Row, known_as: str, tests: Mapping[str, Counter[str]]) -> str:
    """The test named like the thing, or else the one of its family, or of all, that names it most often."""
    family = f"tests/{row['family']}/"
    own = f"{family}test_{row['name'].lower()}.py"
    if own in tests:
        return own
    words = {row["name"], known_as}

    def most(names: Iterable[str]) -> str:
        counted = {name: sum(tests[name][word] for word in words) for name in names}
        best = max(counted, key=lambda name: counted[name], default="")
        return best if counted.get(best) else ""

    # What no test names is tested where its example stands.
    example = row["file"] if ">>>" in row["text"] else ""
    return most(name for name in tests if name.startswith(family)) or most(tests) or example
