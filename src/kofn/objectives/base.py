"""What a greedy search asks of an objective, and how objectives are found by name."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError, nearest


@runtime_checkable
class Objective(Protocol):
    """A set function that a greedy search maximises, one pick at a time.

    Three methods are all that a search needs; `submodular` and `monotone` say which guarantees hold. An objective whose
    fast `gains` are rounded also has `tolerance` (their largest absolute error) and `exact_gains`, and the search then
    settles near-ties exactly. `calls` counts the gains asked for. `eager = True` says that after a pick all gains are
    brought up to date for little more than a few, so that laziness has nothing to win. `finds_best = True` says that it
    has `best(open_items)`, the item with the largest gain, and `ceilings()`, bounds on all gains, both for less work.
    """

    submodular: bool
    monotone: bool

    def gains(self, candidates: Ints) -> Floats:
        """Marginal gain of each candidate given the picks so far."""
        ...

    def add(self, item: int) -> float:
        """Commit a pick; returns its gain."""
        ...

    def value(self, indices: Ints) -> float:
        """The value of a set from scratch, in float64, sharing no state with the other two."""
        ...


@dataclass(frozen=True)
class Known:
    """One objective as text: where it lives, what it is built from, what it promises. Importing this imports none.

    `monotone` is None where that depends on the objective's parameters; the built objective knows.
    """

    path: str
    sources: tuple[str, ...]
    does: str
    submodular: bool = True
    monotone: bool | None = True

    def row(self) -> dict[str, str]:
        """As a row of a table for people."""
        monotone = {True: "monotone", False: "not monotone", None: "monotone or not, by its parameters"}[self.monotone]
        return {
            "is": self.does,
            "needs": " or ".join(self.sources),
            "declares": f"{'submodular' if self.submodular else 'not submodular'}, {monotone}",
        }


OBJECTIVES: dict[str, Known] = {
    "facility_location": Known(
        "facility_location:FacilityLocation", ("X", "similarity"), "each item by the pick most similar to it"
    ),
    "saturated_coverage": Known(
        "coverage:SaturatedCoverage", ("X", "similarity"), "each item's summed similarity to the picks, up to a share"
    ),
    "graph_cut": Known(
        "graph_cut:GraphCut",
        ("X", "similarity"),
        "similarity to the pool less lam x that among the picks",
        monotone=None,
    ),
    "medoid_loss": Known(
        "medoids:MedoidLoss", ("X", "distances"), "how much the picks lower the summed distance to the nearest"
    ),
    "feature_based": Known("coverage:FeatureBased", ("X",), "a concave function of each feature's total (X >= 0)"),
    "weighted_coverage": Known(
        "coverage:WeightedCoverage", ("X",), "the weight of the elements in any pick (X >= 0, dense or sparse sets)"
    ),
    "log_determinant": Known(
        "determinantal:LogDeterminant", ("X", "similarity"), "log det(I + kernel of the picks)", monotone=None
    ),
    "dispersion": Known(
        "dispersion:Dispersion",
        ("X", "distances"),
        'distances among the picks: kind="sum" or the least, "min"',
        False,
        None,
    ),
    "facility_location_mutual_information": Known(
        "information:FacilityLocationMutualInformation",
        ("X",),
        "what the picks tell of the `queries`, and they of them",
    ),
    "facility_location_conditional_gain": Known(
        "information:FacilityLocationConditionalGain", ("X",), "what the picks add to the `private` set"
    ),
    "graph_cut_mutual_information": Known(
        "information:GraphCutMutualInformation", ("X",), "summed similarity of the picks to the `queries`"
    ),
    "log_determinant_mutual_information": Known(
        "information:LogDeterminantMutualInformation", ("X",), "what the picks tell of the `queries`", False
    ),
    "log_determinant_conditional_gain": Known(
        "information:LogDeterminantConditionalGain", ("X",), "volume that the picks add to `private`", monotone=None
    ),
    "modular": Known("modular:Modular", ("scores",), "the sum of the scores", monotone=None),
    "mnl_revenue": Known(
        "assortment:MNLRevenue",
        ("scores",),
        "what its best part earns when customers choose by multinomial logit",
        False,
    ),
    "k_center": Known("kcenter:KCenter", ("X", "distances"), "the farthest item's distance to its pick", False),
}
# To be minimised: a rule of its own serves it, no greedy maximisation does.
_MINIMISED = ("k_center",)
GREEDY = tuple(name for name in OBJECTIVES if name not in _MINIMISED)
# What an objective may be built from beside its own parameters.
_WORDS = (
    "X",
    "similarity",
    "distances",
    "scores",
    "metric",
    "weights",
    "max_memory",
    "n_threads",
    "queries",
    "private",
)
# Given to an objective that has no use for them, these are a mistake of the caller's.
_MEANT = ("X", "similarity", "scores", "weights", "queries", "private")
_SOURCES = ("X", "similarity", "distances", "scores")


@dataclass(frozen=True)
class Term:
    """One part of an objective that was asked for as text: `0.3*graph_cut(lam=0.4)`."""

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
    """What a plan calls the objective: the text that was asked for, spaced one way, or the class of the user's own."""
    if isinstance(objective, str):
        return " + ".join(str(term) for term in parse(objective, OBJECTIVES))
    return type(objective).__name__


def build(objective: Any, given: Mapping[str, Any], *, known: tuple[str, ...] = GREEDY) -> Objective:
    """The objective that a call names, or the user's own, ready for its first pick.

    Args:
        objective: a name, `name(parameter=value)`, a sum of those with weights, or an object.
        given: the call's words (`X`, `similarity`, `metric`, ...); each part takes those that it is built from.
        known: the names that may be asked for.

    Raises:
        InputError: an unknown name or parameter (the nearest is offered), an object without the protocol's three
            methods, or an argument that the objective has no use for.
    """
    if not isinstance(objective, str):
        missing = [name for name in ("gains", "add", "value") if not callable(getattr(objective, name, None))]
        if missing:
            raise InputError(
                f"objective={type(objective).__name__} lacks {', '.join(missing)}; an objective has gains(candidates), "
                "add(item) and value(indices)"
            )
        own: Objective = objective
        return own
    terms = parse(objective, known)
    makers = [_maker(term.name) for term in terms]
    used = {word for made in makers for word in inspect.signature(made).parameters}
    strange = [name for name in _MEANT if given.get(name) is not None and name not in used]
    if strange:
        words = ", ".join(word for word in _WORDS if word in used)
        raise InputError(f"objective={objective!r} has no use for {', '.join(strange)}; it is built from {words}")
    parts = [_make(term, made, given) for term, made in zip(terms, makers, strict=True)]
    if len(parts) == 1 and terms[0].weight == 1:
        return parts[0]
    mixture: Any = importlib.import_module("kofn.objectives.mixtures").Mixture
    mixed: Objective = mixture([(term.weight, part) for term, part in zip(terms, parts, strict=True)])
    return mixed


def words_of(objective: str) -> set[str]:
    """The words of a call that an objective written as text is built from."""
    makers = [_maker(term.name) for term in parse(objective, OBJECTIVES)]
    return {word for made in makers for word in inspect.signature(made).parameters if word in _WORDS}


def _maker(name: str) -> Any:
    module, made = OBJECTIVES[name].path.split(":")
    return getattr(importlib.import_module(f"kofn.objectives.{module}"), made)


def _make(term: Term, made: Any, given: Mapping[str, Any]) -> Objective:
    parameters = inspect.signature(made).parameters
    own = [word for word in parameters if word not in _WORDS]
    for key in term.parameters:
        if key not in own:
            raise InputError(
                f"objective {term.name!r} has no parameter {key!r}; "
                f"it has {', '.join(own) or 'none'}{nearest(key, own)}"
            )
    inputs = {word: given[word] for word in parameters if word in _WORDS and given.get(word) is not None}
    sources = [word for word in parameters if word in _SOURCES]
    if not inputs.keys() & set(sources):
        raise InputError(f"objective={term.name!r} needs {' or '.join(sources)}")
    # The leading input may be any of its sources, by name.
    lead = inputs.pop(next(iter(parameters)), None)
    result: Objective = made(lead, **inputs, **term.parameters)
    return result
