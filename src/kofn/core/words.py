"""The types of the shared words, each written once, in bundles that a method takes as `**where: Unpack[Where]`.

`@method` expands a bundle (PEP 692) into the method's signature and docstring. Words of the vocabulary take their
sentence from `kofn.core.vocabulary`; other keys of a bundle carry theirs: `Annotated[type, sentence, default]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from numpy.typing import ArrayLike

Metric = Literal["euclidean", "sqeuclidean", "cosine", "rbf", "precomputed"]
Items = ArrayLike | Iterable[Any]


class Inputs(TypedDict, total=False):
    """What there is to decide about."""

    X: ArrayLike | None
    distances: ArrayLike | None
    similarity: Any
    scores: ArrayLike | None
    curves: ArrayLike | None
    members: Iterable[Any] | None
    rankings: ArrayLike | None
    graph: Any


class Qualifiers(TypedDict, total=False):
    """What is known of the items."""

    y: ArrayLike | None
    ids: ArrayLike | str | None
    weights: ArrayLike | None
    base: Any
    importance: ArrayLike | None
    metric: Metric | None


class Grouped(TypedDict, total=False):
    """What a selection must obey beside its size: quotas, and items that must or must not be picked."""

    groups: ArrayLike | Mapping[Any, ArrayLike] | None
    quotas: Mapping[Any, Any] | None
    include: Items | None
    exclude: Items | None
    start: Any


class Where(Grouped, total=False):
    """What a selection must obey: `kofn.core.constraints.Constraints` holds these words together."""

    k: int | None
    budget: float | None
    costs: ArrayLike | None


class Margins(TypedDict, total=False):
    """What an assignment or an allocation must obey."""

    capacity: int | ArrayLike | None
    per_item: int | None
    margins: tuple[ArrayLike, ArrayLike] | None
    bounds: ArrayLike | None


class Rules(TypedDict, total=False):
    """What is maximised."""

    objective: Any
    score: Callable[..., Any] | None


class Limits(TypedDict, total=False):
    """What long work may take, and whether it shows how far it is; `kofn.core.runtime.Control` reads it."""

    time_limit: float | None
    progress: bool | None


class Resources(Limits, total=False):
    """Limits, and how much memory and how many threads the work may use."""

    max_memory: int | str | None
    n_threads: int | None


class Runtime(Resources, total=False):
    """Resources, and the seed of what is drawn at random."""

    seed: int | None


class Words(Inputs, Qualifiers, Where, Margins, Rules, Runtime, total=False):
    """Every word of the vocabulary with its type."""

    engine: str | None


def part(words: Mapping[str, Any], bundle: type[Any]) -> dict[str, Any]:
    """Those of `words` that belong to the bundle."""
    keys: Sequence[str] = tuple(bundle.__annotations__)
    return {name: words[name] for name in keys if name in words}
