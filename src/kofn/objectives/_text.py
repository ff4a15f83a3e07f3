"""Objectives written as text: a name, `name(parameter=value)`, or a sum of those with weights."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kofn.core.checks import InputError, nearest
from kofn.objectives._table import GREEDY, OBJECTIVES


@dataclass(frozen=True)
class Term:
    """One term of an objective given as text: `0.3*graph_cut(lam=0.4)`."""

    name: str
    weight: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items())
        return ("" if self.weight == 1 else f"{self.weight:g}*") + self.name + (f"({inside})" if inside else "")


def parse(text: str, known: Iterable[str] = GREEDY) -> list[Term]:
    """The parts of an objective written as text: a name, `name(parameter=value)`, or a sum of those with weights.

    Raises:
        InputError: an unknown name (the nearest is offered), or text that is no such sum.

    Examples:
        >>> [str(term) for term in parse("0.7*facility_location + 0.3*modular")]
        ['0.7*facility_location', '0.3*modular']
    """
    try:
        terms = _terms(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        meant = text.strip().replace("-", "_").replace(" ", "_")
        if meant in OBJECTIVES:
            raise InputError(f"objective={text!r}: did you mean {meant!r}?") from None
        raise InputError(
            f"objective={text!r} cannot be read ({why}); "
            "write a name, name(parameter=value), or weight*name + weight*name"
        ) from None
    known = list(known)
    for term in terms:
        if term.name not in known:
            raise InputError(f"objective={term.name!r}: one of {', '.join(known)}{nearest(term.name, known)}")
        if not term.weight >= 0:
            raise InputError(f"objective={text!r}: the weight of {term.name} is {term.weight:g}; weights are >= 0")
    return terms


def _terms(node: ast.expr) -> list[Term]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _terms(node.left) + _terms(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        weight = ast.literal_eval(node.left)
        (term,) = _terms(node.right)
        if not isinstance(weight, int | float):
            raise ValueError(f"the weight {weight!r} is no number")
        return [Term(term.name, float(weight) * term.weight, term.parameters)]
    if isinstance(node, ast.Name):
        return [Term(node.id)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        named = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg is not None}
        return [Term(node.func.id, 1.0, named)]
    raise ValueError("it is no sum of named objectives")


def named(objective: Any) -> str:
    """The name of the objective in a plan: its normalised text, or the class of a user-defined one."""
    if isinstance(objective, str):
        return " + ".join(str(term) for term in parse(objective, OBJECTIVES))
    return type(objective).__name__
