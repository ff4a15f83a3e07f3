"""The generated reference: a page a family, an entry a method, stepper, rule, module or helper."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import docstrings
from docstrings import safe

import kofn._index as index
from kofn.core import bibliography
from kofn.core.auto import AUTO
from kofn.core.registry import Entry

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]

HOMES = {
    "selection": "Select: which to keep",
    "assignment": "Assign: where each goes",
    "allocation": "Allocate: how much each gets",
    "combination": "Combine: how many become one",
    "objectives": "Objectives: what a selection maximises",
    "federated": "Federated",
    "neighbors": "Neighbours",
    "online": "Online",
    "optim": "Optimisation",
    "nn": "Torch modules",
}
FORMS = {
    "function": "method",
    "merge_rule": "merge rule",
    "stepper": "stepper",
    "module": "torch module",
    "objective": "objective",
    "helper": "helper",
    "estimator": "estimator",
}
# The front door, whose entries are read from these files.
FRONT = {
    "verbs.py": ("select", "assign", "allocate", "combine", "methods"),
    "comparing.py": ("compare",),
    "finding.py": ("find", "Hit"),
    "estimators.py": ("Selector", "Assigner"),
    "core/plans.py": ("Plan", "Selection", "Assignment", "Allocation", "Blend"),
    "datasets.py": ("names", "describe", "table", "load", "Data"),
}


def rows() -> list[Row]:
    """Everything public, as `kofn find` knows it."""
    found: list[Row] = json.loads((ROOT / "src/kofn/_index/find.json").read_text(encoding="utf-8"))
    return found


def dotted(row: Row) -> str:
    """Where a thing is imported from: `kofn.selection.lazy_greedy`."""
    family = row.get("family", "")
    if not family:
        return f"kofn.{row['name']}"
    if row["form"] == "objective":
        return f"kofn.objectives.{row['name']}"
    return f"kofn.{family.split('/')[0]}.{row['name']}"


def entries() -> dict[tuple[str, str], Entry]:
    """The methods of the index by home and name."""
    return {(entry.family, entry.name): entry for entry in index.everything()}


def pages() -> dict[str, str]:
    """The text of every page of the reference, by its path below `docs/reference`."""
    known = entries()
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows():
        families[row.get("family", "")].append(row)
    front = families.pop("", [])
    texts = {"kofn.md": _front(front)}
    for family, members in families.items():
        texts[f"{family}.md"] = _family(family, sorted(members, key=_order), known)
    return texts | _contents(families)


def _order(row: Row) -> tuple[int, str]:
    return list(FORMS).index(row["form"]), row["name"].lower()


def _contents(families: dict[str, list[Row]]) -> dict[str, str]:
    """The page of contents, and one for each home that has several families."""
    about = "Everything public, by family. Each entry ends with its code, laws, test, claim and paper."
    texts, homes, listed = {}, [], []
    for home, title in HOMES.items():
        inside = sorted(family for family in families if family.split("/")[0] == home)
        if inside and inside != [home]:
            families_of = [family.split("/", 1)[1] for family in inside]
            toctree = ["```{toctree}", ":hidden:", "", *families_of, "```", ""]
            texts[f"{home}/index.md"] = "\n".join([f"# {title}", "", *_table(inside, families, home), *toctree])
            homes.append(f"{home}/index")
        elif inside:
            homes.append(home)
        if inside:
            listed += [f"## {title}", "", *_table(inside, families, "")]
    front = "**[The front door](kofn.md)**: the four verbs, `compare`, `methods`, `find`, plans and estimators."
    toctree = ["```{toctree}", ":hidden:", "", "kofn", *homes, "```", ""]
    texts["index.md"] = "\n".join(["# Reference", "", about, "", front, "", *listed, *toctree])
    return texts


def _table(inside: list[str], families: dict[str, list[Row]], start: str) -> list[str]:
    lines = ["| family | what is in it |", "|---|---|"]
    for family in inside:
        page = family.removeprefix(f"{start}/") if start else family
        names = ", ".join(f"`{row['name']}`" for row in sorted(families[family], key=_order))
        lines.append(f"| [{_title(family)}]({page}.md) | {names} |")
    return [*lines, ""]


def _title(family: str) -> str:
    return family.split("/")[-1].replace("_", " ").capitalize()


def _family(family: str, members: list[Row], known: dict[tuple[str, str], Entry]) -> str:
    package = ROOT / "src/kofn" / family / "__init__.py"
    said = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or "" if package.exists() else ""
    lines = [f"# {_title(family)}", "", safe(" ".join(said.split())), ""]
    lines += ["| | is a | does |", "|---|---|---|"]
    for row in members:
        lines.append(f"| [{row['name']}](#{_anchor(row)}) | {FORMS[row['form']]} | {safe(row['summary'])} |")
    depth = "../" * (family.count("/") + 1)
    for row in members:
        lines += ["", f"({_anchor(row)})=", f"## {row['name']}", ""]
        lines += _entry(row, known.get((family, row["name"])), depth)
    return "\n".join(lines) + "\n"


def _anchor(row: Row) -> str:
    return "ref-" + dotted(row).replace(".", "-").lower() + f"-{row['form']}"


def _entry(row: Row, entry: Entry | None, depth: str) -> list[str]:
    path = ROOT / row["file"]
    node = _node(row, path)
    doc = docstrings.parse(ast.get_docstring(node) or "") if node else docstrings.Doc(summary=row["summary"])
    kind = "class" if isinstance(node, ast.ClassDef) and row["form"] != "merge_rule" else "function"
    if row["form"] == "objective":
        kind = "data"
    arguments = "" if kind == "data" else f"({_arguments(entry, node)})"
    lines = [f"::::{{py:{kind}}} {dotted(row)}{arguments}", "", safe(doc.summary or row["summary"]), ""]
    lines += ["```python", row["call"].replace("; ", "\n"), "```", ""]
    if entry is not None:
        lines += _facts(entry)
    if row.get("aliases"):
        lines += [f"- **Also found as** {', '.join(row['aliases'])}", ""]
    if entry is not None and entry.callable_by_verb:
        lines += _options(entry, depth)
    else:
        lines += _items("Takes", doc.items("Args") | doc.items("Attributes"))
    lines += [text for paragraph in doc.body for text in (safe(paragraph), "")]
    for section in ("Returns", "Yields"):
        if section in doc.sections:
            lines += [f"**{section}** {safe(' '.join(doc.sections[section].split()))}", ""]
    lines += _items("Raises", doc.items("Raises"))
    if isinstance(node, ast.ClassDef) and kind == "class":
        lines += _methods(node)
    if "Examples" in doc.sections:
        lines += ["```pycon", doc.sections["Examples"], "```", ""]
    if "References" in doc.sections:
        lines += [f"**References** {safe(' '.join(doc.sections['References'].split()))}", ""]
    return [*lines, ends(row, entry.traits if entry else (), depth), "", "::::"]


def _node(row: Row, path: Path) -> ast.FunctionDef | ast.ClassDef | None:
    name = row["name"].replace("_", "").lower() if row["form"] == "objective" else row["name"]
    return docstrings.definition(path, name)


def _arguments(entry: Entry | None, node: ast.FunctionDef | ast.ClassDef | None) -> str:
    if entry is not None and entry.callable_by_verb:
        needed = [word for any_of in entry.needs for word in any_of[:1]] + list(entry.required)
        options = [name if default == "required" else f"{name}={default}" for name, default in entry.options.items()]
        return ", ".join([*needed, "*", *options] if options else needed)
    if isinstance(node, ast.ClassDef):
        node = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    return docstrings.signature(node) if node else ""


def _facts(entry: Entry) -> list[str]:
    picked = [why for name, why in AUTO.get(entry.verb, ()) if name == entry.name]
    facts = {
        "Needs": entry.inputs.replace("*", r"\*"),
        "Exact": safe(entry.exact),
        "Cost": safe(entry.cost),
        '`method="auto"` picks it for': safe(picked[0]) if picked else "",
        "Extra": f"`pip install 'kofn[{entry.extra}]'`" if entry.extra else "",
    }
    return [*(f"- **{name}** {text}" for name, text in facts.items() if text), ""]


def _options(entry: Entry, depth: str) -> list[str]:
    options = {}
    for name, default in entry.options.items():
        kind = entry.types.get(name, "Any")
        # A code span may hold what Markdown would read: `str | None`.
        options[f"{name}: {kind}{'' if default == 'required' else f' = {default}'}"] = entry.docs.get(name, "")
    lines = _items("Options", options)
    words = [f'<a href="{depth}../words.html#{word_anchor(word)}"><code>{word}</code></a>' for word in entry.accepted]
    return [*lines, f"**Words it takes** {', '.join(words)}", ""] if words else lines


def _items(title: str, items: dict[str, str]) -> list[str]:
    """A titled list of named items."""
    listed = [f"- `{name}`: {safe(text)}" if text else f"- `{name}`" for name, text in items.items()]
    return [f"**{title}**", "", *listed, ""] if items else []


def _methods(node: ast.ClassDef) -> list[str]:
    lines = []
    for method in docstrings.methods(node):
        is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)
        call = method.name if is_property else f"{method.name}({docstrings.signature(method)})"
        said = (ast.get_docstring(method) or "").split("\n\n", 1)[0]
        lines.append(f"- `{call}`: {safe(' '.join(said.split()))}")
    return ["**Has**", "", *lines, ""] if lines else []


def ends(row: Row, traits: Iterable[str], depth: str) -> str:
    """The last line of an entry: code, laws, test, claim, paper."""
    parts = [_code("code", row["file"], depth)]
    if traits:
        parts.append("laws: " + ", ".join(f'<a href="{depth}../laws.html#{t}">{t}</a>' for t in traits))
    if row.get("test"):
        parts.append(_code("test", row["test"], depth))
    if row.get("claim"):
        number = Path(row["claim"]).name.split("_")[0].lstrip("p0")
        parts.append(f'<a href="{depth}../claims.html#p{number}">claim</a>')
    for key in row.get("papers", ()):
        paper = bibliography.paper(key)
        name = escape(paper.by or paper.title)
        parts.append(f'<a href="{paper.url}">{name}</a>' if paper.url else f"<span>{name}</span>")
    return f'<p class="ends">{" · ".join(parts)}</p>'


def _code(label: str, path: str, depth: str) -> str:
    return f'<a href="{depth}../code/{escape(path)}.txt">{label}</a>'


def _front(others: list[Row]) -> str:
    known = {row["name"]: row for row in others}
    about = "`import kofn` loads nothing heavy; each name is imported when it is first used."
    lines = ["# The front door", "", about, ""]
    for file, names in FRONT.items():
        path = ROOT / "src/kofn" / file
        module = "kofn.datasets" if file == "datasets.py" else "kofn"
        for name in names:
            node = docstrings.definition(path, name)
            if node is None:
                raise ValueError(f"{file} defines no {name}")
            doc = docstrings.parse(ast.get_docstring(node) or "")
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            arguments = docstrings.signature(node) if isinstance(node, ast.FunctionDef) else ""
            lines += [f"## {name}" if module == "kofn" else f"## datasets.{name}", ""]
            lines += [f"::::{{py:{kind}}} {module}.{name}({arguments})", "", safe(doc.summary), ""]
            lines += [text for paragraph in doc.body for text in (safe(paragraph), "")]
            lines += _items("Takes" if kind == "function" else "Fields", doc.items("Args") | doc.items("Attributes"))
            if "Returns" in doc.sections:
                lines += [f"**Returns** {safe(' '.join(doc.sections['Returns'].split()))}", ""]
            if isinstance(node, ast.ClassDef):
                lines += _methods(node)
            if "Examples" in doc.sections:
                lines += ["```pycon", doc.sections["Examples"], "```", ""]
            row = known.get(name, {}) | {"file": f"src/kofn/{file}"}
            lines += [ends(row, (), ""), "", "::::", ""]
    return "\n".join(lines) + "\n"


def names() -> dict[str, str]:
    """What `{m}` in a page may name, and the object it links to."""
    found = {}
    for row in reversed(rows()):
        if row["form"] == "module" and row["name"] in found:
            continue
        found[row["name"]] = dotted(row)
    return found


def word_anchor(word: str) -> str:
    """Where a word stands in the table of words."""
    return f"word-{word.lower().replace('_', '-')}"
