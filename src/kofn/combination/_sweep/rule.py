"""The contract of a merge rule: how a block of every member is blended, and the attributes the driver reads."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.tensor import Tensor
from kofn.combination._sweep.weights import relative_weights
from kofn.core.checks import InputError
from kofn.core.devices import resolve_device
from kofn.core.plans import Blend


class Span(NamedTuple):
    """Position of a block: elements `start:stop` of the flattened tensor."""

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row(self) -> int:
        """The length of a row: of the last axis of a matrix, or the whole of a vector."""
        return row_length(self.shape)


def row_length(shape: tuple[int, ...]) -> int:
    """The entries of a row of a matrix; a vector is one row."""
    return shape[-1] if shape else 1


class Block(NamedTuple):
    """One block of every member, and of the base if there is one, in float32 or float64; read-only by convention."""

    rows: list[NDArray[Any]]
    base: NDArray[Any] | None
    span: Span
    state: Any

    @property
    def origin(self) -> NDArray[Any]:
        """The base's block, for rules with `needs_base`."""
        assert self.base is not None
        return self.base


class Rule(ABC):
    """How a method blends a block of every member: a dataclass whose fields are the method's own options.

    Only `blend` is required. A rule that needs to know a tensor (or the model) before it blends it, say a
    threshold or a norm, sets `stages` and has `scan` and `settle`: each stage is one more reading of the members.
    Options are checked in `__post_init__`; anything that depends on the members is set in `bind`. A rule sees numbers,
    never files: reading, rounding, writing, threads and resuming are the driver's task.
    """

    method: ClassVar[Callable[..., Blend]]  # the function, made by `@merge_rule`
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # the options, made by it too

    # What the class says of the method.
    needs_base: ClassVar[bool] = False  # the method takes `base`, and blocks have it
    takes_weights: ClassVar[bool] = True  # False where all members count alike: then there is no word `weights`
    takes_device: ClassVar[bool] = False  # the method takes `device`, and the rule adds up on `self.device`
    blends_complex: ClassVar[bool] = False  # real and imaginary parts may be blended apart
    n_members: ClassVar[int | None] = None  # how many members it takes, None for any number

    # What holds of a run: the class says what may be, and `__post_init__` or `bind` what is.
    form: str = "none"  # what the blend promises, one of `kofn.core.plans.Blend`'s forms
    minimises_distance: bool = False  # the blend minimises sum_i w_i ||x_i - y||^2, which is then the plan's value
    stages: int = 0  # readings of the members before the blend
    per_model: bool = False  # `settle` makes one state of the whole model instead of one for each tensor
    whole_rows: bool = False  # blocks hold whole rows of a matrix, and vectors whole
    casts: bool = True  # the blend is rounded to what members are read in, before the output's dtype
    in_double: bool = False  # half-precision members, too, are blended in float64
    normalize: bool = True  # weights are divided by their sum; a rule may have it as an option
    counter_bytes: int = 0  # of each member, what a thread's scan holds beside its blocks
    negative_weights: str | None = None  # why weights below zero are refused; None where they are taken
    reads: Sequence[Mapping[str, Tensor]] = ()  # tensors beside the members' that decide the blend
    weights: NDArray[np.float64]  # (m,) as the rule uses them, set by `bind`
    total_weight: float = 1.0  # the sum of the weights as they were given, set by `bind`
    device: Any = None  # the torch device to add up on, None for NumPy; set by `bind`

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        """Check the rule against the members and set `weights`, `form` and `device`.

        Args:
            pool: the opened members.
            weights: (m,) as the user gave them, None for uniform.
            device: as the user gave it.

        Returns:
            The merge rule to run: this one, unless another computes the same blend more accurately.
        """
        m, name = len(pool.members), method_name(type(self).__name__)
        if self.n_members is not None and m != self.n_members:
            raise InputError(f"{name} takes {self.n_members} members; {m} were given")
        if weights is not None and not self.takes_weights:
            raise InputError(f"{name} takes no weights, all members count alike; leave them out")
        own = any(field.name == "normalize" for field in dataclasses.fields(self))
        normalize = self.normalize if own or not self.normalize else None
        normalize = self.normalize if own or not self.normalize else None
        self.weights, self.total_weight, _ = relative_weights(weights, m, normalize)
        if self.negative_weights is not None and (self.weights < 0).any():
            raise InputError(f"weights of member {int(self.weights.argmin())} is below zero; {self.negative_weights}")
        self.device = resolve_device(device)
        return self

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        """Fold a block into the running summary `part` of its tensor (None for the first block) and return it."""
        raise NotImplementedError

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        """The state after this stage, from the summaries in the order of the blocks; `blend` receives the last one."""
        raise NotImplementedError

    def scans_again(self, stage: int, state: Any) -> bool:
        """Whether the blocks of a tensor with this state are read for this stage, before they are blended."""
        return stage < self.stages

    def is_opposite(self, state: Any) -> bool:
        """Whether a tensor with this last state points the other way in two members: then no arc is the shortest."""
        return False

    def plain_sum(self) -> tuple[Sequence[float], float] | None:
        """Factors and a scale of which the blend of half-precision blocks is nothing but a weighted sum.

        Returns:
            Factors of the base (where `needs_base`) and the members, in whose order products are summed in float32, and
            the scale of the sum; None where `blend` does anything else.
        """
        return None

    @abstractmethod
    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        """Write the blend of the block to `total`; `spare` is scratch of the same size.

        Returns:
            True if entries on which all members agree must be copied bit for bit.
        """

    def copied(self, span: Span, values: NDArray[Any]) -> None:  # noqa: B027, a hook
        """Called for tensors that are copied rather than blended (integers, booleans)."""

    def keep_sums(self, pool: Pool, max_memory: int | None) -> None:  # noqa: B027, a hook
        """Allocate the mergeable statistic, within the limit; called before this rule alone blends the whole pool."""

    def kept_sums(self) -> Any:
        """The mergeable statistic for the plan, or None."""
        return None


def room_for_sums(needed: int, max_memory: int | None) -> bool:
    """Whether the sums of a mergeable statistic leave half of the limit to the blocks."""
    return max_memory is None or needed <= max_memory // 2


def method_name(class_name: str) -> str:
    """The name of the method that a rule's class makes: `CoordinateMedian` is `coordinate_median`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in class_name).lstrip("_")
