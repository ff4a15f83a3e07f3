"""How the torch form of a family is registered, together with the NumPy function that it must agree with.

`nn/` stands under the same path as the families: the torch form of `assignment/routing` is in `nn/routing`. This file
does not import torch, and `declared` reads the registrations from the source text, so that the index needs no torch.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from kofn.core.bibliography import Keys

T = TypeVar("T", bound=Callable[..., Any])

# Calls the torch form and the NumPy form on one drawn input, and returns what each answers.
Example = Callable[[Any, Any, "np.random.Generator"], tuple[Any, Any]]

_SOURCES = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ModuleSpec:
    """What `@module` knows of a torch function or class.

    Attributes:
        name: its own.
        form_of: the NumPy function that gives the same answers, None where there is none.
        paper: the reference.
        summary: the first line of its docstring.
        aliases: other names that people look for.
        file: where it is defined, below `src/kofn`.
        example: how the two forms are compared; None where the registration was read from the source.
    """

    name: str
    form_of: str | None
    paper: Keys
    summary: str
    aliases: tuple[str, ...]
    file: str
    example: Example | None = field(default=None, compare=False, repr=False)

    @property
    def family(self) -> str:
        """The folder below `nn/`."""
        return "/".join(self.file.split("/")[1:-1])


def same_words(draw: Callable[[np.random.Generator], Mapping[str, Any]]) -> Example:
    """The example of a torch form that takes the words of the NumPy form, arrays as tensors.

    Args:
        draw: draws the arguments of the NumPy form.
    """

    def example(form: Any, numpy_form: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        import numpy
        import torch

        drawn = draw(rng)
        tensors = {
            name: torch.as_tensor(value) if isinstance(value, numpy.ndarray) else value for name, value in drawn.items()
        }
        return form(**tensors), numpy_form(**drawn)

    return example


def module(
    *, form_of: str | None, paper: Keys, aliases: tuple[str, ...] = (), example: Example | None = None
) -> Callable[[T], T]:
    """Register a torch function or class; `form_of`, `paper` and `aliases` are written as literals.

    Args:
        form_of: the name of the NumPy function (or stepper), in the family of the same path, that gives the same
            answers; None for what exists in torch only.
        paper: the reference, by its key in `papers.toml`.
        aliases: other names that people look for, read by `kofn find`.
        example: `example(torch form, NumPy form, generator)` calls both on one drawn input, ties and limits included,
            and returns the two answers: plans, routes, tensors or arrays. A test compares twenty of them. Where both
            forms take the same words, `same_words(draw)` is such an example.
    """
    if (form_of is None) != (example is None):
        raise ValueError("form_of= and example= go together: the example is what the two forms are compared on")

    def register(form: T) -> T:
        spec = ModuleSpec(
            name=form.__name__,
            form_of=form_of,
            paper=paper,
            summary=(inspect.getdoc(form) or "").split("\n", 1)[0],
            aliases=aliases,
            file=form.__module__.removeprefix("kofn.").replace(".", "/") + ".py",
            example=example,
        )
        form.__kofn_module__ = spec  # type: ignore[attr-defined]
        return form

    return register


def declared(sources: Path = _SOURCES) -> Iterator[ModuleSpec]:
    """Every registration below `nn/`, read from the source text."""
    for path in sorted((sources / "nn").rglob("_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "module":
                        yield _read(node, decorator, path.relative_to(sources).as_posix())


def _read(node: ast.FunctionDef | ast.ClassDef, decorator: ast.Call, file: str) -> ModuleSpec:
    words = {"aliases": (), "paper": ""}
    for keyword in decorator.keywords:
        if keyword.arg in ("form_of", "paper", "aliases"):
            try:
                words[keyword.arg] = ast.literal_eval(keyword.value)
            except ValueError:
                raise ValueError(f"{file}: {node.name}: write {keyword.arg}= as a literal") from None
    summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
    return ModuleSpec(name=node.name, summary=summary, file=file, **words)  # type: ignore[arg-type]
