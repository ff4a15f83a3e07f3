"""What the laws and the hostile-input tests need to know of a method, declared beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The kinds of a word's values, where a method takes another kind than its verb mostly does: word -> kind -> sentence.
KINDS: dict[str, dict[str, str]] = {
    "members": {
        "networks": "mappings whose tensors form a network, layer after layer",
        "layers": "mappings whose tensors have layer numbers in their names",
        "adapters": "LoRA adapters",
        "predictions": "what each predicted for the same rows, whose answers are y, NaN where it said nothing",
        "draws": "draws of one set of parameters, (draws, parameters), in any number",
        "mixtures of experts": "mappings with the gates, linear experts and variances of a mixture of experts",
        "diffused densities": "densities under noise, `DiffusedScore` or `DiffusedMixture` of `kofn.combination`",
        "loose integers": "arrays or mappings whose whole-number tensors may differ from member to member",
    },
    "base": {
        "layers": "a mapping whose tensors have layer numbers in their names",
        "adapters": "the checkpoint that the adapters were trained on",
        "seldom read": "an array or a mapping that the blend does not read where the factors sum to one",
    },
    "scores": {
        "table": "(items, bins) with -inf for what is not listed",
        "vector or table": "(n,), or (items, bins) with -inf for what is not listed",
        "not negative": "(n,) of 0 or more",
        "rates": "(n,) from 0 to 1",
    },
    "costs": {"entry": "one for each entry of the score table, or one for each of its columns"},
    "per_item": {"any": "a limit that may be larger than the number of bins"},
    "capacity": {
        "column": "one for each column of the score table; too little room is no error",
        "choosing": "one for each bin; the bins choose, so too little room is no error",
        "group": "one for each of k groups",
    },
    "start": {"group": "one row for each of k groups"},
}


@dataclass(frozen=True)
class Draw:
    """How to draw a call of a method.

    Args:
        kinds: the kind of a word's values, where it is not the usual one: word -> a kind of `KINDS`.
        plain: a valid value of a word or an option, where the usual one does not do or none is known.
        options: what to draw an option from: the values themselves (half of the draws leave the default), or the name
            of a drawer in the family's file of the laws, where one name means two things in a family.
        long: options that are drawn in every call, because one with their default takes long.
        members: how many members it takes, where that is fixed.
        distinct_rows: True where k is at most the number of different rows.
        signed_weights: False where weights are shares, which are not negative.
        any_function: True where the objective need not be submodular.
        compiled: True where small pools run interpreted code until compiled code is loaded; the laws then hold of both.
        states_no_value: True where the plan's `value` is NaN by design, so that there is nothing to recount.
        scale_free: False where the input's unit matters to the method, as it does to probabilities.
        log_value: True where the value is a log-likelihood, which another unit moves by a constant.
        units: options that are measured in the "input"'s unit, or in that of the "distance" between rows.
        absolute: options that give the problem a scale of its own where they are given.
        promise: what a plan that withholds its value promises of it: a check of the family's file of the laws, by name.
        silent: laws that check nothing of this method, by name.
        slow: True where a call of a few items takes a twentieth of a second: laws are then held on the fewest calls.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    plain: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, tuple[Any, ...] | str] = field(default_factory=dict)
    long: tuple[str, ...] = ()
    members: int | None = None
    distinct_rows: bool = False
    signed_weights: bool = True
    any_function: bool = False
    compiled: bool = False
    states_no_value: bool = False
    scale_free: bool = True
    log_value: bool = False
    units: Mapping[str, str] = field(default_factory=dict)
    absolute: tuple[str, ...] = ()
    promise: str = ""
    silent: tuple[str, ...] = ()
    slow: bool = False

    def __post_init__(self) -> None:
        """Refuse a kind that nothing is known of."""
        for word, kind in self.kinds.items():
            if kind not in KINDS.get(word, {}):
                raise ValueError(f"draws: {word} has no kind {kind!r}; kofn.core.draws.KINDS lists them")

    @property
    def silent_laws(self) -> tuple[str, ...]:
        """All laws that check nothing of this method."""
        return (*self.silent, *(("recount",) if self.states_no_value else ()))
