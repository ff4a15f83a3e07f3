"""Whether runs vary enough to tell the exponents of a scaling law apart, and which points lie off their line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats

# Directions in which the logs of the runs spread so many times less than in the widest are too thin to tell exponents.
_CONDITION = 10.0
# Points so many standard deviations off along a thin direction are not supported: of laws fitted to 24 runs with 1% of
# noise, intervals of 90% held the truth at half of such points, and at nearly none twice as far.
_OFF = 4.0
# Columns with a smaller part in a direction of length 1 have none: of two that are bound each has 0.7.
_TAKES_PART = 0.2
# The least standard deviation that is counted with, in units of the columns' own: of runs on one line it is rounding.
_LEAST_WIDTH = 0.002


@dataclass(frozen=True, eq=False)
class Separation:
    """The thin directions of the runs' logs, each column divided by its standard deviation.

    Attributes:
        names: the columns.
        log: the logarithm that the law takes of them.
        centre: (d,) mean of the logs.
        scale: (d,) their standard deviations.
        axes: (t, d) thin directions, none where the runs vary each way.
        widths: (t,) standard deviation of the runs along these.
        condition: the widest spread over the least.
    """

    names: tuple[str, ...]
    log: Callable[[Floats], Floats]
    centre: Floats
    scale: Floats
    axes: Floats
    widths: Floats
    condition: float

    @classmethod
    def of(
        cls, columns: Mapping[str, Floats], names: Sequence[str], log: Callable[[Floats], Floats] = np.log
    ) -> Separation:
        """The thin directions of runs."""
        logs = np.stack([log(columns[name]) for name in names], axis=1)
        centre, scale = logs.mean(axis=0), logs.std(axis=0)
        _, spread, axes = np.linalg.svd((logs - centre) / scale, full_matrices=False)
        thin = spread * _CONDITION < spread[0]
        widths = np.maximum(spread[thin] / np.sqrt(len(logs)), _LEAST_WIDTH)
        condition = float(spread[0] / max(spread[-1], np.finfo(np.float64).tiny))
        return cls(tuple(names), log, centre, scale, axes[thin], widths, condition)

    def off(self, columns: Mapping[str, Floats]) -> NDArray[np.bool_]:
        """Which points lie off the line (or plane) of the runs, where these lie nearly on one."""
        logs = np.stack([self.log(columns[name]) for name in self.names], axis=1)
        away = np.abs((logs - self.centre) / self.scale @ self.axes.T)
        return np.asarray((away > _OFF * self.widths).any(axis=1))

    def warning(self) -> str | None:
        """What to say of the runs, where some direction is thin."""
        if not len(self.axes):
            return None
        *others, last = self._bound
        return (
            f"the logs of {', '.join(others)} and {last} lie nearly {self._shape} (condition "
            f"{min(self.condition, 1e6):.3g}): these runs cannot tell the exponents apart, so coefficients and "
            f"predictions off it are not supported; vary {last} at the same {others[0]}, and fit again"
        )

    def warning_off(self, count: int, of: int) -> str:
        """What to say of points off it."""
        some = "the point lies" if of == 1 else f"{count:,} of {of:,} points lie"
        return (
            f"{some} off the {self._shape.split()[-1]} of {' and '.join(self._bound)} that the runs lie on: the "
            "prediction is not supported there; measure runs off it, and fit again"
        )

    @property
    def _bound(self) -> list[str]:
        """The columns that vary together in the thinnest direction."""
        parts = np.abs(self.axes[-1])
        return [name for name, part in zip(self.names, parts.tolist(), strict=True) if part > _TAKES_PART]

    @property
    def _shape(self) -> str:
        return "on one line" if len(self._bound) == 2 else "in one plane"
