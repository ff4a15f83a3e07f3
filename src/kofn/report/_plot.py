"""A plan drawn with matplotlib, for papers and for people who go on drawing."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.core.checks import InputError
from kofn.core.plans import Plan
from kofn.report._pictures import Bars, Curve, pictures


def draw(plan: Plan, ax: Any = None) -> Any:
    """The first picture of the plan."""
    drawn = [item for item in pictures(plan) if isinstance(item, Curve) or np.isfinite(item.values).any()]
    if not drawn:
        raise InputError(f"this {type(plan).__name__} of {plan.method or 'no method'} holds no figures to draw")
    if ax is None:
        try:
            from matplotlib import pyplot
        except ModuleNotFoundError:
            raise InputError("plan.plot needs matplotlib: pip install 'kofn[plot]'") from None
        _, ax = pyplot.subplots()
    picture = drawn[0]
    if isinstance(picture, Curve):
        picks = np.arange(len(picture.values)) + picture.first
        ax.plot(picks, picture.values, marker="o" if len(picks) < 60 else "")
        ax.set_xlabel(picture.x)
        ax.set_ylabel(picture.y)
        ax.set_ylim(bottom=min(0.0, float(picture.values.min())))
    else:
        _rows(picture, ax)
    ax.set_title(f"{picture.title}: {plan.headline()}")
    return ax


def _rows(bars: Bars, ax: Any) -> None:
    rows = np.arange(len(bars.values))
    ax.barh(rows, bars.values)
    if bars.most is not None:
        ax.plot(bars.most, rows, linestyle="", marker="|", markersize=14, color="black", label="limit")
        ax.legend()
    ax.set_yticks(rows, [str(name) for name in bars.names])
    ax.invert_yaxis()
    if bars.note:
        ax.set_xlabel(bars.note)
