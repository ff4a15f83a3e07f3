"""Which claims a change touches: by the files that a claim rests on, read from the text without importing anything."""

from __future__ import annotations

import ast
import functools
import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from claims import Source

# Every method runs through these: the laws and the tests watch over them, or each change would re-run all papers.
FRAME = ("core", "verbs", "_index", "indexing", "__init__")


def touched(revision: str, sources: Mapping[int, Source], root: Path) -> set[int]:
    """The papers whose claims rest on a file that differs from `revision`; all of them where git cannot tell."""
    changed = _changed(revision, root)
    if changed is None:
        print(f"claims: git cannot compare with {revision}; every claim counts as touched", file=sys.stderr)
        return set(sources)
    return {paper for paper, source in sources.items() if rests_on(source, root) & changed}


def rests_on(source: Source, root: Path) -> set[Path]:
    """The claim's own file, the rigs and the library files it uses: named methods' homes and all that those import."""
    files = _closure({source.path.resolve()}, root)
    named = {text for file in files if "claims" in file.parts for text in _texts(file)}
    homes = {_file(path.split(":")[0], root) for name, path in _methods().items() if name in named}
    return files | _closure({home for home in homes if home is not None}, root)


def _changed(revision: str, root: Path) -> set[Path] | None:
    found: set[Path] = set()
    for command in (
        ["diff", "--name-only", "-z", revision, "--"],
        ["ls-files", "--others", "--exclude-standard", "-z"],
    ):
        try:
            done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True)
            top = subprocess.run(
                ["git", "rev-parse", "--show-toplevel"], cwd=root, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None
        base = Path(top) if command[0] == "diff" else root
        found |= {(base / name).resolve() for name in done.stdout.split("\0") if name}
    return found


def _closure(files: set[Path], root: Path) -> set[Path]:
    """These files and what they import of `claims` and `kofn`, at any depth, the frame left out."""
    seen: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for module in _imports(file):
            target = _file(module, root)
            if target is not None and not _is_frame(target):
                waiting.append(target)
    return seen


def _is_frame(file: Path) -> bool:
    return file.name == "__init__.py" or any(
        part.removesuffix(".py") in FRAME and before == "kofn" for before, part in itertools.pairwise(file.parts)
    )


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from package import thing`: the thing may be a module of its own.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in ("claims", "kofn")}


def _texts(file: Path) -> set[str]:
    return {
        node.value for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _file(module: str, root: Path) -> Path | None:
    parts = module.split(".")
    base = root.joinpath(*parts) if parts[0] == "claims" else root.joinpath("src", *parts)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path.resolve()
    return None


def _methods() -> dict[str, str]:
    from kofn._index import everything

    return {entry.name: entry.path for entry in everything()}
