"""What a record says does not hold, judged on a run's own figures where the claim's file no longer judges it.

A criterion that was loosened after figures had been seen stays with the record in its first words and its first limit.
Every run then says whether it is met, and the claim's file, and with it what is known of fresh seeds, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

KEYS = ({"figures", "above"}, {"figures", "below"})


def judged(limits: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Any]) -> dict[str, bool]:
    """For each name whether every figure that its pattern finds keeps to the limit.

    A pattern is the names on the way to a figure, joined by "/"; "*" stands for any text. Of a paired difference the
    confidence limit on the near side counts.
    """
    return {
        name: all(_keeps(figure, limit) for figure in _found(name, limit, measured)) for name, limit in limits.items()
    }


def _found(name: str, limit: Mapping[str, Any], measured: Mapping[str, Any]) -> list[Any]:
    found = [figure for path, figure in _paths(measured) if fnmatchcase(path, limit["figures"])]
    if not found:
        raise ValueError(f"no figure of this run is named {limit['figures']!r}, by which {name!r} is judged")
    return found


def _paths(figures: Mapping[str, Any], lead: str = "") -> Iterator[tuple[str, Any]]:
    for key, figure in figures.items():
        yield f"{lead}{key}", figure
        if isinstance(figure, Mapping):
            yield from _paths(figure, f"{lead}{key}/")


def _keeps(figure: Any, limit: Mapping[str, Any]) -> bool:
    side = "above" if "above" in limit else "below"
    if isinstance(figure, Mapping):
        figure = figure["low" if side == "above" else "high"]
    least, most = (min(figure), max(figure)) if isinstance(figure, Sequence) else (figure, figure)
    return bool(least > limit["above"] if side == "above" else most < limit["below"])
