"""Docstrings of this repository as Markdown: sections, arguments, examples. Nothing is imported for it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "References", "Examples")


@dataclass
class Doc:
    """A docstring taken apart."""

    summary: str = ""
    body: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)

    def items(self, section: str) -> dict[str, str]:
        """The named items of a section such as Args."""
        found: dict[str, str] = {}
        name = ""
        for line in self.sections.get(section, "").splitlines():
            match = re.match(r"(\*{0,2}[\w., ]+?): +(.*)", line)
            if match and not line.startswith(" "):
                name = match[1]
                found[name] = match[2]
            elif name:
                found[name] += " " + line.strip()
        return found


def parse(text: str) -> Doc:
    """Take a docstring apart."""
    parts: dict[str, list[str]] = {"": []}
    section = ""
    for line in text.splitlines():
        head = re.fullmatch(rf"({'|'.join(SECTIONS)}):", line)
        if head:
            section = head[1]
            parts.setdefault(section, [])
        elif section and line and not line.startswith(" "):
            section = ""
            parts[""] += ["", line]
        else:
            parts[section].append(line[4:] if section else line)
    paragraphs = [" ".join(block.split()) for block in _blocks(parts[""]) if not block.startswith(">>>")]
    examples = [block for block in _blocks(parts[""]) if block.startswith(">>>")]
    doc = Doc(summary=paragraphs[0] if paragraphs else "", body=paragraphs[1:])
    doc.sections = {name: "\n".join(lines).strip("\n") for name, lines in parts.items() if name}
    if examples:
        doc.sections["Examples"] = "\n\n".join([*examples, doc.sections.get("Examples", "")]).strip()
    return doc


def _blocks(lines: list[str]) -> list[str]:
    return [block.strip("\n") for block in re.split(r"\n\s*\n", "\n".join(lines)) if block.strip()]


def safe(text: str) -> str:
    """Prose as Markdown that shows what it says: outside of code, stars and angle brackets are themselves."""
    parts = re.split(r"(`[^`]*`)", text)
    shown = [part if part.startswith("`") else part.replace("*", r"\*").replace("<", "&lt;") for part in parts]
    return "".join(shown).replace("|", r"\|")


def definition(path: Path, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """The function or class of that name, or the class that a method was made from (`ties` from `Ties`)."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    nodes = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return next((n for n in nodes if n.name == name), None) or next(
        (n for n in nodes if n.name.lower() == name.replace("_", "").lower()), None
    )


def signature(node: ast.FunctionDef) -> str:
    """The arguments of a function as text, without annotations."""
    arguments = node.args
    bare = ast.arguments(
        posonlyargs=[ast.arg(a.arg) for a in arguments.posonlyargs],
        args=[ast.arg(a.arg) for a in arguments.args if a.arg not in ("self", "cls")],
        vararg=arguments.vararg and ast.arg(arguments.vararg.arg),
        kwonlyargs=[ast.arg(a.arg) for a in arguments.kwonlyargs],
        kw_defaults=arguments.kw_defaults,
        kwarg=arguments.kwarg and ast.arg(arguments.kwarg.arg),
        defaults=arguments.defaults,
    )
    return ast.unparse(bare)


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """The public methods and properties of a class."""
    return [part for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")]
