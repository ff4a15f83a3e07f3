"""The Sphinx side: writes the generated pages before a build and the code files after it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import reference
import tables
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

CODE = ("src/kofn", "claims", "tests", "benchmarks")


def write_pages(app: Sphinx) -> None:
    """Write the reference and the tables; an unchanged file keeps its time, so that it is not read again."""
    source = Path(app.srcdir)
    texts = {source / "reference" / name: text for name, text in reference.pages().items()}
    generated = source / "generated"
    texts |= {generated / f"auto_{verb}.md": tables.auto(verb) for verb in tables.VERBS}
    texts |= {
        generated / "words.md": tables.words(),
        generated / "commands.md": tables.commands(),
        generated / "laws.md": tables.laws(),
        generated / "claims.md": tables.claims(),
        generated / "counts.md": tables.counts(),
        generated / "papers.md": tables.bibliography(),
        generated / "shelf.md": tables.shelf(),
    }
    for path in (*(source / "reference").rglob("*.md"), *generated.rglob("*.md")):
        if path not in texts:
            path.unlink()
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def link_names(app: Sphinx, docname: str, content: list[str]) -> None:
    """`{m}`lazy_greedy`` links to the reference of that name."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        if name not in app.kofn_names:
            raise ExtensionError(f"{docname}: {{m}}`{name}` names nothing in the library")
        return f"{{py:obj}}`{name} <{app.kofn_names[name]}>`"

    content[0] = re.sub(r"\{m\}`(\w+)`", link, content[0])


def link_included(app: Sphinx, relative: Path, parent: str, content: list[str]) -> None:
    """The same in included files."""
    link_names(app, parent, content)


def copy_code(app: Sphinx, error: Exception | None) -> None:
    """Put the code, claims and tests that entries link to beside the pages, as text that a browser shows."""
    if error is not None:
        return
    for folder in CODE:
        for path in (reference.ROOT / folder).rglob("*.py"):
            target = Path(app.outdir) / "code" / f"{path.relative_to(reference.ROOT).as_posix()}.txt"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.kofn_names = reference.names()
    write_pages(app)
    app.connect("source-read", link_names)
    app.connect("include-read", link_included)
    app.connect("build-finished", copy_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
