"""Signatures and docstrings of methods: bundles of shared words expanded, shared words described once."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from kofn.core.checks import nearest
from kofn.core.vocabulary import VOCABULARY, meant

_ARGUMENTS = textwrap.TextWrapper(width=116, initial_indent="    ", subsequent_indent="        ")
_ARGUMENT = re.compile(r"^ {4}(\w+): (.*)$")


def expand(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, str]]:
    """The signature with a bundle `**words: Unpack[Bundle]` written out, and the sentences that the bundle carries."""
    signature = _spelled_out(inspect.signature(function), getattr(function, "__globals__", {}))
    parameters = list(signature.parameters.values())
    if not parameters or parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return signature, {}
    words = parameters.pop()
    # A merge rule's signature names its bundle itself; elsewhere it is text, as all annotations of this library are.
    unpacked = words.annotation
    if isinstance(unpacked, str):
        unpacked = eval(unpacked, getattr(function, "__globals__", {}))
    bundles = typing.get_args(unpacked)
    if not bundles:
        raise TypeError(
            f"{function.__name__} takes **{words.name}, anything at all; name its options, or unpack a bundle of "
            "kofn.core.words"
        )
    bundle = bundles[0]
    sentences = {}
    for name, (annotation, sentence, default) in rows_of(bundle).items():
        if name in signature.parameters:
            raise TypeError(f"{function.__name__} names {name!r}, which its bundle {bundle.__name__} has too")
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
        if sentence:
            sentences[name] = sentence
    return signature.replace(parameters=parameters), sentences


def _spelled_out(signature: inspect.Signature, names: Mapping[str, Any]) -> inspect.Signature:
    """The signature with the module's own names for choices, `Init = Literal["lab", "build"]`, written out."""
    parameters = []
    for parameter in signature.parameters.values():
        if isinstance(parameter.annotation, str):
            words = re.sub(r"\b[A-Z]\w*\b", lambda match: _choices(match[0], names), parameter.annotation)
            parameter = parameter.replace(annotation=words)
        parameters.append(parameter)
    return signature.replace(parameters=parameters)


def _choices(name: str, names: Mapping[str, Any]) -> str:
    value = names.get(name)
    if name == "Literal" or typing.get_origin(value) is not typing.Literal:
        return name
    return f"Literal[{', '.join(map(repr, typing.get_args(value)))}]"


@functools.cache
def rows_of(bundle: Any) -> dict[str, tuple[str, str, Any]]:
    """Each key of a bundle with the text of its type, its sentence and its default."""
    rows = {}
    annotations: Mapping[str, Any] = bundle.__annotations__
    hints = typing.get_type_hints(bundle, include_extras=True)
    for name, hint in hints.items():
        annotation = annotations[name]
        text = str(getattr(annotation, "__forward_arg__", annotation))
        if typing.get_origin(hint) is Annotated:
            # (type, sentence, default); the text of the type is what stands first between the brackets.
            node = ast.parse(text, mode="eval").body
            assert isinstance(node, ast.Subscript)
            assert isinstance(node.slice, ast.Tuple)
            sentence, default = (*hint.__metadata__, None)[:2]
            rows[name] = (ast.unparse(node.slice.elts[0]), " ".join(sentence.split()), default)
        else:
            rows[name] = (text, "", None)
    return rows


def defaults_of(bundle: Any) -> dict[str, Any]:
    """Each key of a bundle with its default."""
    return {name: default for name, (_annotation, _sentence, default) in rows_of(bundle).items()}


def annotation_text(parameter: inspect.Parameter) -> str:
    """The annotation of a parameter as it is written."""
    if parameter.annotation is parameter.empty:
        return "Any"
    return (
        parameter.annotation
        if isinstance(parameter.annotation, str)
        else inspect.formatannotation(parameter.annotation)
    )


def described(docstring: str) -> dict[str, str]:
    """What the section `Args:` of a (cleaned) docstring says of each argument, in one line each."""
    descriptions: dict[str, str] = {}
    name = None
    for line in _arguments(docstring.splitlines()):
        if match := _ARGUMENT.match(line):
            name = match[1]
            descriptions[name] = match[2].strip()
        elif name is not None:
            descriptions[name] += " " + line.strip()
    return {name: text.strip() for name, text in descriptions.items()}


def documented(docstring: str, signature: inspect.Signature, sentences: Mapping[str, str]) -> str:
    """The docstring with a line for each argument that it does not describe itself."""
    known = described(docstring)
    added = [
        line
        for name in signature.parameters
        if name not in known and (name in VOCABULARY or name in sentences)
        for line in _ARGUMENTS.wrap(f"{name}: {sentences.get(name) or VOCABULARY[name].help}")
    ]
    if not added:
        return docstring
    lines = docstring.splitlines()
    if "Args:" in lines:
        end = lines.index("Args:") + 1 + len(_arguments(lines))
        lines[end:end] = added
    else:
        head = lines.index("") if "" in lines else len(lines)
        lines[head:head] = ["", "Args:", *added]
    return "\n".join(lines)


def _arguments(lines: list[str]) -> list[str]:
    """The lines below `Args:`, up to the next line that is not indented."""
    if "Args:" not in lines:
        return []
    start = lines.index("Args:") + 1
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("    ")), len(lines))
    return lines[start:end]


def bind(
    name: str, signature: inspect.Signature, arguments: tuple[Any, ...], options: Mapping[str, Any]
) -> inspect.BoundArguments:
    """The arguments of a call of `name` by its parameters.

    Raises:
        TypeError: as Python's own functions raise it, with what a word that is not known may mean.
    """
    try:
        return signature.bind(*arguments, **options)
    except TypeError as error:
        known = signature.parameters
        strange = next((word for word in options if word not in known), None)
        hint = "" if strange is None else meant(strange, "") or nearest(strange, known)
        raise TypeError(f"{name}() {error}{hint}") from None
