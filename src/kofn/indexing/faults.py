"""What is wrong with a registration, in one line that names file and remedy: `make index` refuses it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from kofn.core.checks import nearest
from kofn.core.registry import Entry, Spec
from kofn.core.torch_module import ModuleSpec
from kofn.core.vocabulary import VOCABULARY
from kofn.core.words import Words

# What the docstring of a function or a class that is called through a verb has.
_SECTIONS = ("Returns:", "Raises:", ">>> ")


def of_method(spec: Spec, entry: Entry) -> Iterator[str]:
    """The faults of a function or of a merge rule."""
    if not spec.doc:
        yield "has no docstring; its first line says what it solves"
        return
    for section in _SECTIONS:
        if section not in spec.doc:
            name = "an example that is run (>>>)" if section == ">>> " else f"a section {section}"
            yield f"lacks {name} in its docstring"
    for name in entry.options:
        if name not in entry.docs:
            yield f"does not describe {name}; add a line to Args in its docstring"
    for parameter in spec.signature.parameters.values():
        if parameter.name in VOCABULARY:
            continue
        if parameter.annotation is parameter.empty:
            yield f"gives the option {parameter.name} no type; annotate it, so that values of another kind are refused"
        if parameter.kind is not parameter.KEYWORD_ONLY:
            yield f"takes the option {parameter.name} by position; put * before it"
    for word in {word for group in spec.needs for word in group} - set(entry.accepted):
        yield f"needs {word!r}, which it does not take{nearest(word, entry.accepted)}"
    known = {*entry.options, *entry.accepted}
    for name in [*spec.draws.options, *spec.draws.plain, *spec.draws.kinds]:
        if name not in known and name not in Words.__annotations__:
            yield f"draws {name!r}, which it does not take{nearest(name, known)}"
    if entry.path.startswith("kofn.") and not entry.file.rpartition("/")[2].startswith("_"):
        yield f"stands in a public file; rename it to _{entry.name}.py"


def of_stepper(cls: type[Any], entry: Entry) -> Iterator[str]:
    """The faults of a stepper."""
    if not inspect.getdoc(cls):
        yield "has no docstring; its first line says what it keeps"
    if entry.path.startswith("kofn.") and not entry.file.rpartition("/")[2].startswith("_"):
        yield f"stands in a public file; rename it to _{entry.name.lower()}.py"


def of_module(spec: ModuleSpec, forms: Mapping[str, Any]) -> Iterator[str]:
    """The faults of a torch module, whose `form_of` is one of `forms`."""
    if not spec.summary:
        yield "has no docstring; its first line says what it computes"
    if spec.form_of is not None and spec.form_of not in forms:
        yield f"is form_of={spec.form_of!r}, which is registered nowhere{nearest(spec.form_of, forms)}"
