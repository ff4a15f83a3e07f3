"""How far a blend of checkpoints goes from its base, and what that was worth in trials (`benchmarks/merge_advice.py`).

Nothing here knows how good a blend is. The trials blend fine-tunes of small networks on five data sets, and a single
figure foretold a gain: a blend that changes its base much farther, or much less far, than the members do gets better
when its change is brought to their length. Figures of single layers foretold nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination._sweep.measures import blend_length, joint_kept
from kofn.core.plans import Blend
from kofn.report.page import number, percent

TIMES = "\N{MULTIPLICATION SIGN}"
FEW = 256  # values from which chance moves a tensor's figures by less than the range allows


@dataclass(frozen=True)
class Reach:
    """The figure that a blend is judged by, and the range in which the trials found nothing to gain."""

    key: str
    title: str
    caption: str
    least: float
    most: float

    def words(self, value: float) -> str:
        """The figure as people read it."""
        return f"{number(value, 3)}{TIMES}" if self.key == "length" else percent(value)

    def span(self) -> str:
        """The range as people read it."""
        if self.key == "length":
            return f"{self.words(self.least)} to {self.words(self.most)}"
        return f"{percent(self.least, 0)} to {percent(self.most, 0)}"

    def judges(self, row: Mapping[str, Any]) -> bool:
        """Whether a tensor's figure says something of its own.

        Figures of a few values are chance. Norms and biases begin as equal constants, so that their variance is that of
        what training changed, of which the mean of any members keeps little.
        """
        return row["elements"] >= FEW and self.counts(row)

    def counts(self, row: Mapping[str, Any]) -> bool:
        """Whether a tensor's figure says something beside those of others."""
        return self.key == "length" or row.get("axes", 2) > 1

    def side(self, value: float) -> str | None:
        """Which end of the range is passed."""
        return "below" if value < self.least else "above" if value > self.most else None


LENGTH = Reach(
    "length",
    "How far each layer goes",
    "Length of the blend's change of the base over that of its members' changes. Below 1, changes cancel or are scaled "
    "down; above, they are scaled up or noise is added. In the trials most blends outside the band as a whole "
    "gained by being brought to 1; which layers were outside foretold nothing.",
    0.5,
    1.75,
)
KEPT = Reach(
    "kept",
    "Variance kept",
    "Variance of the blend's weights over that of its members' weights. Below the band, weights cancel because the "
    "members did not begin together; above it, the blend extrapolates beyond them. Both cost accuracy in the trials.",
    0.75,
    1.05,
)


@dataclass(frozen=True)
class Verdict:
    """What the whole blend's figure says, and the remedy where it had one in the trials."""

    reach: Reach
    value: float | None
    finding: str
    advice: str | None = None


def reach_of(plan: Blend) -> Reach:
    """The figure for this blend: its changes where the base is known, else the weights themselves."""
    return LENGTH if "base" in plan.info else KEPT


def judge(plan: Blend, measures: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """The verdict over all tensors of a blend that was measured."""
    reach, rows = reach_of(plan), list(measures.values())
    if not rows:
        return Verdict(reach, None, "No weights were blended: every tensor was copied.")
    if plan.n < 2:
        return Verdict(reach, None, "One member: there is no other to blend it with.")
    return _changes(plan, rows) if reach is LENGTH else _weights(plan, rows)


def _changes(plan: Blend, rows: Sequence[Mapping[str, Any]]) -> Verdict:
    if not np.array([row["norms"][:-1] for row in rows]).any():
        return Verdict(LENGTH, None, "The members are the base: they changed nothing.")
    value = blend_length(rows)
    head = f"The blend changes the base {LENGTH.words(value)} as far as its members do"
    if isinstance(plan.weights, np.ndarray) and (plan.weights < 0).any():
        return Verdict(LENGTH, value, f"{head}; some weights are negative, which no trial covers.")
    side = LENGTH.side(value)
    if side is None:
        return Verdict(LENGTH, value, f"{head}. {_SILENT}")
    if value == 0:
        return Verdict(LENGTH, value, f"{head}: it is the base.")
    finding = f"{head}, too {'far' if side == 'above' else 'short'}. {_GAINED}"
    return Verdict(LENGTH, value, finding, f"{_remedy(plan, value)} Then compare both on rows kept for judging.")


_SILENT = (
    f"In the trials, 75 blends from {LENGTH.span()} were brought to {LENGTH.words(1)} as well: 31 got more accurate, "
    "21 less. So this length is no reason to change it; only a score on rows kept for judging says whether the blend "
    "is good."
)
_GAINED = (
    f"In the trials, 101 of 125 blends outside {LENGTH.span()} got more accurate by being brought to "
    f"{LENGTH.words(1)}, 14 less."
)


def _remedy(plan: Blend, value: float) -> str:
    """The option that brings the change to the members' length."""
    options = plan.options
    density = options.get("density")
    if plan.method == "dare" and density is not None and density * value**2 <= 1:
        return (
            f"What DARE drops it makes up for by enlarging the rest, and that is noise: keep more with --density "
            f"{number(density * value**2, 2)} instead of {number(density, 2)}."
        )
    if "scale" in options:
        return f"Give --scale {number(float(options['scale']) / value, 2)} instead of {number(options['scale'], 3)}."
    factor = number(1 / value, 2)
    return f"Scale its change: kofn combine BLEND --base BASE --method task_arithmetic --scale {factor} -o OUT."


def _weights(plan: Blend, rows: Sequence[Mapping[str, Any]]) -> Verdict:
    rows = [row for row in rows if KEPT.counts(row)]
    if not rows:
        return Verdict(KEPT, None, "Norms and biases alone do not say whether the members began together.")
    value = joint_kept(rows)
    if value is None:
        return Verdict(KEPT, None, "The members' weights do not vary, so no share of their variance can be kept.")
    head = f"The blend keeps {KEPT.words(value)} of the variance of its members' weights"
    side = KEPT.side(value)
    if side is None:
        return Verdict(
            KEPT, value, f"{head}, as members do that began together. Name the base (--base) to see what was changed."
        )
    if side == "below":
        return Verdict(
            KEPT,
            value,
            f"{head}: the members did not begin together, and their weights cancel.",
            "Align their units first: --method weight_matching. In the trials, means of such networks lost 8 to 37 "
            "points of accuracy, means of matched ones at most 3.",
        )
    if plan.form == "simplex":
        return Verdict(KEPT, value, f"{head}: it leans on those whose weights vary more.")
    return Verdict(
        KEPT,
        value,
        f"{head}: it extrapolates beyond them.",
        "Give positive weights that sum to one: in the trials, three times a member less twice another lost 9 to 45 "
        "points of accuracy against their mean.",
    )
