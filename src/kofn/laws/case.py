"""The subject of the laws: one call of a method, its plan, and how to repeat it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kofn.core import dispatch, problems
from kofn.core.checks import InputError, is_sparse, nearest
from kofn.core.draws import Draw
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection
from kofn.core.problems import Problem
from kofn.core.registry import Entry

NOUNS: dict[str, type[Plan]] = {"select": Selection, "assign": Assignment, "allocate": Allocation, "combine": Blend}


class LawBroken(AssertionError):
    """A plan breaks a law; the message names the method, the law and what was seen."""


@dataclass(frozen=True)
class Case:
    """One call: the words and options as the caller gave them, the checked problem, and the plan that came back.

    `method` is a name of the index or a function. A case with another `plan` (`dataclasses.replace`) holds that plan
    against the same problem; `again` always asks the method itself. `before` copies the words from before the call.
    """

    verb: str
    method: str | Callable[..., Any]
    given: Mapping[str, Any]
    options: Mapping[str, Any]
    problem: Problem
    plan: Any
    before: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        verb: str,
        method: str | Callable[..., Any],
        given: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
    ) -> Case:
        """Call the method and store its plan."""
        words = {name: value for name, value in given.items() if value is not None}
        before = {name: copied(value) for name, value in words.items()}
        plan = _ask(verb, method, words, options or {})
        plain = {name: value for name, value in words.items() if name != "ids"}
        spec = _spec_of(verb, method, plan)
        at_most_k = spec is not None and spec.at_most_k
        problem = problems.build(verb, plain, words.get("ids"), at_most_k=at_most_k)
        return cls(verb, method, words, options or {}, problem, plan, before)

    def again(self, options: Mapping[str, Any] | None = None, **changes: Any) -> Any:
        """The plan of the same call with these words changed; None leaves a word out."""
        words = {name: value for name, value in {**self.given, **changes}.items() if value is not None}
        return _ask(self.verb, self.method, words, self.options if options is None else options)

    def redrawn(self, seed: int) -> Any:
        """The plan under another seed as the method returns it, not completed nor audited: for laws that ask often."""
        spec = _spec_of(self.verb, self.method, self.plan)
        if spec is None or not self.words.keys() <= spec.signature.parameters.keys():
            return self.again(seed=seed)
        defaults = {p.name: p.default for p in spec.signature.parameters.values() if p.default is not p.empty}
        return spec.function(**{**defaults, **self.options, **self.words, "seed": seed})

    @property
    def words(self) -> Mapping[str, Any]:
        """The checked arguments."""
        return self.problem.given

    @property
    def n(self) -> int:
        """The size of the pool."""
        return self.problem.n

    @property
    def name(self) -> str:
        """The method's name, for messages."""
        return self.plan.method or str(getattr(self.method, "__name__", self.method))

    @property
    def precise(self) -> bool:
        """True where every input array is float64 or whole, so that sums are held to 1e-12 and not to 1e-5."""
        return all(_precise(self.given.get(name)) for name in problems.INPUTS)

    @property
    def rtol(self) -> float:
        """Relative tolerance of a recount."""
        return 1e-12 if self.precise else 1e-5


def copied(value: Any) -> Any:
    """A copy of an argument, arrays and all."""
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    return value.copy() if isinstance(value, np.ndarray) or is_sparse(value) else value


def _ask(verb: str, method: str | Callable[..., Any], words: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    words = dict(words)
    keys = words.pop("ids", None)
    return dispatch.dispatch(verb, method, words, options, keys)


def _spec_of(verb: str, method: str | Callable[..., Any], plan: Any) -> Any:
    """What the method declares; None for a plain function."""
    function = method if callable(method) else dispatch.methods_of(verb)[plan.method].load()
    return getattr(function, "__kofn__", None)


def _precise(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_precise(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_precise(item) for item in value)
    kind = getattr(value, "dtype", None)
    return kind is None or kind.kind in "iub" or kind.itemsize >= 8


def declared(case: Case) -> Draw:
    """What is declared at the case's method."""
    if not callable(case.method):
        return dispatch.methods_of(case.verb)[case.plan.method].draws
    spec = getattr(case.method, "__kofn__", None)
    return Draw() if spec is None else spec.draws


Law = Callable[[Case], bool]


@dataclass
class Registry:
    """The laws by name, and which of them hold without being declared."""

    laws: dict[str, Law] = field(default_factory=dict)
    always: list[str] = field(default_factory=list)
    by_verb: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, *, verbs: Iterable[str] = (), always: bool = False) -> Callable[[Law], Law]:
        """Register a law: declared as a trait, or of every plan (`always`), or of every plan of some verbs."""

        def keep(law: Law) -> Law:
            self.laws[name] = law
            if always:
                self.always.append(name)
            for verb in verbs:
                self.by_verb.setdefault(verb, []).append(name)
            return law

        return keep


REGISTRY = Registry()
LAWS = REGISTRY.laws
law = REGISTRY.add


def laws_of(entry: Entry) -> list[str]:
    """The laws that a method keeps: those of every plan, those of its verb, and its traits.

    Raises:
        InputError: a trait that is no law.
    """
    for trait in entry.traits:
        if trait not in LAWS:
            raise InputError(
                f"method {entry.name!r} declares the trait {trait!r}, which is no law{nearest(trait, LAWS)}"
            )
    return list(dict.fromkeys([*REGISTRY.always, *REGISTRY.by_verb.get(entry.verb, ()), *entry.traits]))


def broken(case: Case, name: str, reason: str) -> LawBroken:
    """The error that a law raises."""
    return LawBroken(f"{case.verb}/{case.name} breaks {name!r}: {reason}")


def near(a: float, b: float, rtol: float, scale: float = 0.0) -> bool:
    """Equal to `rtol` of the larger of the two (and of `scale`, where sums cancel)."""
    if np.isnan(a) or np.isnan(b):
        return bool(np.isnan(a) and np.isnan(b))
    return bool(a == b or abs(a - b) <= rtol * max(abs(a), abs(b), scale))
