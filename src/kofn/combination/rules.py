"""Merge rules: a small dataclass blends one block of every member, and a method is generated from it.

>>> import numpy as np
>>> @merge_rule(cost="O(m d log m)", exact="the median of every entry", paper="folklore")
... class MiddleValue(Rule):
...     '''The median of every entry.'''
...
...     form = "elementwise"
...     takes_weights = False
...
...     def blend(self, block, total, spare):
...         np.median(block.rows, axis=0, out=total)
...         return True
>>> middle_value = MiddleValue.method
>>> middle_value([[0.0, 5.0], [1.0, 6.0], [9.0, 1.0]]).result
array([1., 5.])
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar, Unpack, dataclass_transform

from kofn.combination._sweep.files import FilesAndDevice, FilesAndThreads, SweepOptions
from kofn.combination._sweep.merge import merge
from kofn.combination._sweep.rule import Block, Rule, Span, method_name
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import Paper, method

__all__ = ["Block", "Rule", "Span", "find_merge_rule", "merge_rule", "merge_rules"]

R = TypeVar("R", bound=Rule)

_REGISTERED: dict[str, type[Rule]] = {}


@dataclass_transform(field_specifiers=(dataclasses.field,))
def merge_rule(
    *,
    cost: str,
    exact: str,
    paper: Paper,
    traits: tuple[str, ...] = (),
    extra: str | None = None,
    draws: Draw | None = None,
    aliases: tuple[str, ...] = (),
) -> Callable[[type[R]], type[R]]:
    """Register a merge rule as a method of `combine`, named like its class: `CoordinateMedian` is `coordinate_median`.

    The class becomes a dataclass, whose fields are the method's options. Its attribute `method` is the function, which
    takes the members, `base` where `needs_base`, `weights`, the options, and the words of `FilesAndThreads`; its
    docstring is the class's. A family's file ends by naming it, `coordinate_median = CoordinateMedian.method`, and is
    then exported. Recipes find the rule by its name.

    Args:
        cost: time and memory.
        exact: what is exact and what is guaranteed, in half a line.
        paper: the reference: its key in `papers.toml`, several keys, or a text.
        traits: the laws that every blend keeps, by name (`kofn.laws`).
        extra: the optional dependency group it needs.
        draws: what the laws need to know to draw a call, beside what follows from the class.
        aliases: other names, for search.
    """

    def register(cls: type[R]) -> type[R]:
        if missing := sorted(cls.__abstractmethods__):
            raise TypeError(f"{cls.__name__} is not complete: it lacks {', '.join(missing)}")
        made = dataclasses.dataclass(cls)
        registered = method(
            "combine",
            traits=traits,
            cost=cost,
            exact=exact,
            paper=paper,
            extra=extra,
            draws=_draws(made, draws or Draw()),
            aliases=aliases,
            form="merge_rule",
        )
        made.method = staticmethod(registered(_function(made)))
        _REGISTERED[method_name(made.__name__)] = made
        return made

    return register


def _draws(cls: type[Rule], draws: Draw) -> Draw:
    """Complete `draws` with the facts that follow from the class."""
    return dataclasses.replace(
        draws,
        members=cls.n_members,
        signed_weights=cls.negative_weights is None,
        states_no_value=not cls.minimises_distance,
        silent=(*draws.silent, "blend") if cls.form == "none" else draws.silent,
    )


def _function(cls: type[Rule]) -> Callable[..., Blend]:
    """Generate a rule's function: from its options and the shared words to a blend."""
    options = [field.name for field in dataclasses.fields(cls) if field.init]
    swept = [field.name for field in dataclasses.fields(SweepOptions)]

    def run(members: Any, *, base: Any = None, weights: Any = None, device: Any = None, **given: Any) -> Blend:
        merge_rule = cls(**{name: given[name] for name in options})
        files = SweepOptions(**{name: given[name] for name in swept})
        pool = files.open(members, base)
        bound = merge_rule.bind(pool, weights, device)
        bound.keep_sums(pool, files.max_memory)
        return merge(
            pool,
            bound,
            files,
            weights=bound.weights if bound.takes_weights else None,
            form=bound.form,
            kept=bound.kept_sums,
            objective=bound.minimises_distance,
        )

    run.__name__ = run.__qualname__ = method_name(cls.__name__)
    run.__module__ = cls.__module__
    run.__doc__ = cls.__doc__
    run.__signature__ = _signature(cls)  # type: ignore[attr-defined]
    return run


def _signature(cls: type[Rule]) -> inspect.Signature:
    word = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    parameters = [
        inspect.Parameter("members", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation="Iterable[Any]"),
        *([word("base", annotation="Any")] if cls.needs_base else []),
        *([word("weights", annotation="ArrayLike | None", default=None)] if cls.takes_weights else []),
    ]
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        parameters.append(word(field.name, annotation=field.type, default=default))
    bundle: Any = FilesAndDevice if cls.takes_device else FilesAndThreads
    parameters.append(inspect.Parameter("files", inspect.Parameter.VAR_KEYWORD, annotation=Unpack[bundle]))
    return inspect.Signature(parameters, return_annotation="Blend")


def find_merge_rule(name: str) -> type[Rule] | None:
    """The registered rule of this name, imported if need be; None if there is none.

    Rules are those of `kofn.combination`, those of installed plug-ins (entry point group `kofn.methods`), and those
    that the program has registered itself.
    """
    from kofn import combination

    if name not in _REGISTERED and name in combination.HOMES:
        getattr(combination, name)
    if name not in _REGISTERED:
        for point in entry_points(group="kofn.methods"):
            if point.name == name or point.value.endswith(f":{name}"):
                point.load()
    return _REGISTERED.get(name)


def merge_rules() -> Mapping[str, type[Rule]]:
    """All rules by name; imports every file of `kofn.combination`."""
    from kofn import combination

    for module in sorted(set(combination.HOMES.values())):
        importlib.import_module(f"kofn.combination.{module}")
    for point in entry_points(group="kofn.methods"):
        point.load()
    return dict(sorted(_REGISTERED.items()))
