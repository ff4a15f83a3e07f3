"""What is wrong with a registration, in one line that names file and remedy: `make index` refuses it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from kofn.core.checks import nearest
from kofn.core.draws import Draw
from kofn.core.registry import VERBS, Entry, Spec
from kofn.core.stepper import Stepper
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
    yield from _of_registration(spec)
    for parameter in spec.signature.parameters.values():
        if parameter.name in VOCABULARY:
            continue
        if parameter.annotation is parameter.empty:
            yield f"gives the option {parameter.name} no type; annotate it, so that values of another kind are refused"
        if parameter.kind is not parameter.KEYWORD_ONLY:
            yield f"takes the option {parameter.name} by position; put * before it"
    for word in {word for group in spec.needs for word in group} - set(entry.accepted):
        yield f"needs {word!r}, which it does not take{nearest(word, entry.accepted)}"
    if not isinstance(spec.draws, Draw):
        yield f"has draws={spec.draws!r}; give a kofn.core.draws.Draw"
        return
    for name, values in spec.draws.options.items():
        if not isinstance(values, tuple | str):
            yield f"draws {name!r} from {values!r}; give a tuple of values, or the name of a drawer"
    known = {*entry.options, *entry.accepted}
    for name in [*spec.draws.options, *spec.draws.plain, *spec.draws.kinds]:
        if name not in known and name not in Words.__annotations__:
            yield f"draws {name!r}, which it does not take{nearest(name, known)}"
    if entry.path.startswith("kofn.") and not entry.file.rpartition("/")[2].startswith("_"):
        yield f"stands in a public file; rename it to _{entry.name}.py"


def _of_registration(spec: Spec) -> Iterator[str]:
    """What `@method` was told of the wrong type."""
    function = inspect.unwrap(spec.function)
    if any(
        is_kind(function)
        for is_kind in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    ):
        yield "is a coroutine or a generator; a method returns its plan"
    if spec.verb not in VERBS:
        yield f"is of the verb {spec.verb!r}{nearest(str(spec.verb), VERBS)}; one of {', '.join(VERBS)}"
    if spec.form not in ("function", "merge_rule"):
        yield f"has form={spec.form!r}; a method is a function, or @merge_rule makes it"
    for name in ("cost", "exact"):
        value = getattr(spec, name)
        if not isinstance(value, str) or not value.strip():
            yield f"has {name}={value!r}; say it in half a line"
    for name, values in (("traits", spec.traits), ("aliases", spec.aliases), ("secret", spec.secret)):
        # One text in place of a tuple falls into its letters.
        if isinstance(values, str) or not all(isinstance(value, str) and len(value) > 1 for value in values):
            yield f"has {name} that are no tuple of names; write {name}=(...,)"
    if not all(isinstance(group, tuple) and all(isinstance(word, str) for word in group) for group in spec.needs):
        yield 'has needs that are no tuples of words; write needs=(("X", "distances"),)'
    if spec.paper == "" or not isinstance(spec.paper, str | int | tuple):
        yield f"has paper={spec.paper!r}; give its key in papers.toml, several keys, or a text"


def of_stepper(cls: type[Any], entry: Entry) -> Iterator[str]:
    """The faults of a stepper."""
    if not inspect.getdoc(cls):
        yield "has no docstring; its first line says what it keeps"
    if not issubclass(cls, Stepper):
        yield "is no kofn.core.stepper.Stepper; derive it from that class"
    elif missing := sorted(getattr(cls, "__abstractmethods__", ())):
        yield f"lacks {', '.join(missing)}"
    spec = getattr(cls, "__kofn_stepper__", None)
    if spec is not None and spec.draws is None:
        yield "declares no draws; say how to make one: @stepper(draws=...), a function draws(rng) that makes an Example"
    elif spec is not None and not callable(spec.draws):
        yield f"has draws={spec.draws!r}; give a function draws(rng) that makes an Example"
    if entry.path.startswith("kofn.") and not entry.file.rpartition("/")[2].startswith("_"):
        yield f"stands in a public file; rename it to _{entry.name.lower()}.py"


def of_module(spec: ModuleSpec, forms: Mapping[str, Any]) -> Iterator[str]:
    """The faults of a torch module, whose `form_of` is one of `forms`."""
    if not spec.summary:
        yield "has no docstring; its first line says what it computes"
    if spec.form_of is not None and spec.form_of not in forms:
        yield f"is form_of={spec.form_of!r}, which is registered nowhere{nearest(spec.form_of, forms)}"
