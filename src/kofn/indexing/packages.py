"""The `__init__` files of the families: which public name lives in which file.

Nothing is imported: a file's exports are its `__all__`, or else what it registers with a decorator.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
# Packages whose families are read; each of their subfolders is a family.
ROOTS = ("selection", "assignment", "allocation", "combination", "federated", "neighbors", "online", "optim", "nn")
REGISTERING = ("method", "stepper", "merge_rule", "module", "helper")
# Families whose files need an optional dependency.
EXTRAS = {"nn": "torch"}
_BEGIN = "# Generated below this line by `make index`."


def parsed(path: Path) -> ast.Module:
    """The syntax of a file; several passes look at each."""
    return _parsed(path.read_text(encoding="utf-8"))


_parsed = functools.lru_cache(maxsize=None)(ast.parse)


def exports(path: Path) -> list[str]:
    """The public names of one file; of a merge rule's class, the function that `ties = Ties.method` names."""
    return _exports(path, path.read_text(encoding="utf-8"))


@functools.cache
def _exports(path: Path, text: str) -> list[str]:
    names: list[str] = []
    merge_rules: dict[str, str | None] = {}
    for node in _parsed(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
        if isinstance(node, ast.Assign) and ast.unparse(node.value).removesuffix(".method") in merge_rules:
            merge_rules[ast.unparse(node.value).removesuffix(".method")] = ast.unparse(node.targets[0])
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            registering = _decorators(node) & set(REGISTERING)
            if "merge_rule" in registering:
                merge_rules[node.name] = None
            elif registering:
                names.append(node.name)
    for cls, name in merge_rules.items():
        if name is None:
            raise ValueError(f"{path}: merge rule {cls} is not exported; write {_snake(cls)} = {cls}.method below it")
        names.append(name)
    return names


def _decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """The names of the decorators of a definition."""
    calls = [decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in node.decorator_list]
    return {call.id for call in calls if isinstance(call, ast.Name)}


def _snake(cls: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls).lower()


def homes(package: Path) -> dict[str, str]:
    """Each public name of a package and the submodule it lives in, relative to the package."""
    modules: dict[str, str] = {}
    for path in sorted(package.rglob("_*.py")):
        relative = path.relative_to(package).with_suffix("")
        if path.name == "__init__.py" or any(part.startswith("_") for part in relative.parts[:-1]):
            continue
        for name in exports(path):
            if name in modules:
                raise ValueError(f"{package.name} exports {name} twice: {modules[name]} and {'.'.join(relative.parts)}")
            modules[name] = ".".join(relative.parts)
    for name in modules:
        if any((parent / f"{name}.py").exists() or (parent / name).is_dir() for parent in (package,)):
            raise ValueError(
                f"{package.name}/{name} is named like what it exports, so importing it hides the function; "
                f"call the file _{name}.py"
            )
    return dict(sorted(modules.items()))


def packages(root: Path = HERE) -> Iterator[Path]:
    """Every package whose `__init__` is written here."""
    for name in ROOTS:
        top = root / name
        yield top
        for folder in sorted(top.rglob("*")):
            parts = folder.relative_to(top).parts
            if folder.is_dir() and not any(part.startswith(("_", ".")) for part in parts) and any(folder.glob("*.py")):
                yield folder


def init_text(package: Path, root: Path = HERE) -> str:
    """The text of a package's `__init__.py`: its own docstring, then the table of names."""
    path = package / "__init__.py"
    docstring = ast.get_docstring(parsed(path), clean=False) if path.exists() else None
    extra = EXTRAS.get(package.relative_to(root).parts[0])
    rows = [f'    "{name}": "{module}",' for name, module in homes(package).items()]
    return "\n".join(
        [
            f'"""{docstring or package.name.replace("_", " ").capitalize() + "."}"""',
            "",
            "from __future__ import annotations",
            "",
            "from kofn.core.lazy import attach",
            "",
            _BEGIN,
            *(["HOMES = {", *rows, "}"] if rows else ["HOMES: dict[str, str] = {}"]),
            f"__getattr__, __dir__, __all__ = attach(__name__, HOMES{f', extra={extra!r}' if extra else ''})".replace(
                "'", '"'
            ),
            "",
        ]
    )


def stub_text(package: Path, root: Path = HERE) -> str:
    """The text of a package's `__init__.pyi`: the same names for type checkers and editors."""
    dotted = ".".join(("kofn", *package.relative_to(root).parts))
    imports, definitions = [], []
    for name, module in homes(package).items():
        path = package.joinpath(*module.split(".")).with_suffix(".py")
        family = module.rpartition(".")[0]
        definition = merge_rules(path).get(name)
        if definition is None:
            imports.append(f"from {dotted}.{module} import {name} as {name}")
        elif family:
            imports.append(f"from {dotted}.{family} import {name} as {name}")
        else:
            definitions.append(_function_of(name, definition))
    if definitions:
        imports = [*_TYPES, *imports]
    return "\n".join(["# Generated by `make index`.", *imports, "", *definitions, "HOMES: dict[str, str]", ""])


# What the functions of merge rules are written with.
_TYPES = (
    "from collections.abc import Iterable, Mapping, Sequence",
    "from typing import Any, Literal, Unpack",
    "from numpy.typing import ArrayLike",
    "from kofn.combination._sweep.files import FilesAndDevice, FilesAndThreads",
    "from kofn.core.plans import Blend",
)


def merge_rules(path: Path) -> dict[str, ast.ClassDef]:
    """The classes of a file's merge rules by the name of their function."""
    nodes = parsed(path).body
    classes = {n.name: n for n in nodes if isinstance(n, ast.ClassDef) and "merge_rule" in _decorators(n)}
    assigned = [n for n in nodes if isinstance(n, ast.Assign)]
    made = {ast.unparse(n.value).removesuffix(".method"): ast.unparse(n.targets[0]) for n in assigned}
    return {made[name]: node for name, node in classes.items()}


def _function_of(name: str, definition: ast.ClassDef) -> str:
    """The typed signature of a merge rule's function: its options, as in the class."""
    facts = {ast.unparse(n.targets[0]): ast.unparse(n.value) for n in definition.body if isinstance(n, ast.Assign)}
    words = ["base: Any"] if facts.get("needs_base") == "True" else []
    words += ["weights: ArrayLike | None = ..."] if facts.get("takes_weights") != "False" else []
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith("ClassVar"):
            value = None if node.value is None else ast.unparse(node.value)
            needed = value is None or (value.startswith("field(") and "default" not in value)
            words.append(f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}{'' if needed else ' = ...'}")
    bundle = "FilesAndDevice" if facts.get("takes_device") == "True" else "FilesAndThreads"
    rows = [f"    {word}," for word in ("members: Iterable[Any]", "*", *words, f"**files: Unpack[{bundle}]")]
    return "\n".join([f"def {name}(", *rows, ") -> Blend: ..."])


def write(root: Path = HERE) -> None:
    """Write every `__init__.py` and `__init__.pyi`."""
    for package in packages(root):
        (package / "__init__.py").write_text(init_text(package, root))
        (package / "__init__.pyi").write_text(stub_text(package, root))
