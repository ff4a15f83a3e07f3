"""What every family of adapters does: own tensors by their names, read them as pairs, write pairs as they are named."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError, is_finite, shown
from kofn.io.low_rank import Pair

DIFFUSERS = "lora_adapter_metadata"  # diffusers' settings, in the metadata of files whose factors are spelt as PEFT's
CONFIG = "adapter_config.json"
DORA = "DoRA rescales the rows or columns of base + B @ A, which is not linear in the factors"
EXPERTS = "factors of bare parameters (target_parameters) hold several experts in one"
ROWS = "rows of single tokens are trained in full (trainable_token_indices), which are not added up"
DIFFERENCES = "differences in full (diff, diff_b, w_norm, b_norm) are no pairs of factors, and are not added up"
# Reasons why adapters are not added to one another, each of which can be folded into its base.
FOLDED = (DORA, EXPERTS, ROWS, DIFFERENCES)

# What LyCORIS and tools that extract adapters add to a weight or bias as it is, of norms among others.
DIFFERENCE = re.compile(r"(?P<module>.+)\.(?P<part>diff|diff_b|w_norm|b_norm)")
_LEAVES = {"diff": "weight", "w_norm": "weight", "diff_b": "bias", "b_norm": "bias"}

# Parametrisations that are no sum of products of factors beside an unchanged weight, by the ends of their names.
_OTHERS = (
    (re.compile(r"(^|\.)(oft_blocks|oft_diag|oft_R|boft_R|boft_s)(\.|$)"), "an orthogonal rotation (OFT, BOFT)"),
    (re.compile(r"(^|\.)(on_input|ia3_l)(\.|$)"), "a rescaling of activations (IA3)"),
    (re.compile(r"(^|\.)(a1|a2|b1|b2|bm)\.weight$"), "GLoRA, whose update depends on the weight"),
    (re.compile(r"(^|\.)(lambda_layer|p_layer\.weight|q_layer\.weight)$"), "T-LoRA, whose rank depends on the time"),
    (re.compile(r"(^|\.)lora_[AB]\.\d+$"), "DyLoRA, whose ranks are several in one"),
    (re.compile(r"(^|\.)(vera_lambda_[bd])$"), "VeRA, whose factors are drawn and not saved"),
)


@dataclass(frozen=True, slots=True)
class Saved:
    """An adapter as its files hold it.

    Attributes:
        tensors: name -> array.
        config: the content of `adapter_config.json`, empty if there is none.
        metadata: that of the tensors' file.
        label: its name in errors.
    """

    tensors: Mapping[str, Array]
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    label: str = "the adapter"


@dataclass(frozen=True, slots=True)
class Parts:
    """An adapter's meaning.

    Attributes:
        pairs: module -> update.
        full: name -> tensor that is trained in full.
        spellings: module -> names of A and B, where the family has several.
        rows: name -> numbers of single rows that are trained in full, and their values.
        differences: name -> what is added to that tensor as it is.
    """

    pairs: dict[str, Pair]
    full: dict[str, Array] = field(default_factory=dict)
    spellings: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: dict[str, tuple[NDArray[np.int64], Array]] = field(default_factory=dict)
    differences: dict[str, Array] = field(default_factory=dict)


class Family(ABC):
    """Adapters as one trainer saves them."""

    name: ClassVar[str]
    weights: ClassVar[str]  # the tensors' file in a folder
    configured: ClassVar[bool] = False  # whether CONFIG lies beside it, without which the scale is not known
    # Of modules: the model's own, with the part of a pipeline before them, or flat with underscores in place of dots.
    names: ClassVar[Literal["own", "part", "flat"]] = "own"
    kinds: ClassVar[frozenset[str]] = frozenset({"linear", "conv"})  # of pairs that it can save

    @abstractmethod
    def owns(self, saved: Saved) -> bool:
        """Whether a tensor is a factor of this family."""

    @abstractmethod
    def read(self, saved: Saved) -> Parts:
        """The pairs; InputError where factors are missing, do not fit or are not understood."""

    @abstractmethod
    def write(self, parts: Parts, members: Sequence[Saved]) -> Saved:
        """Pairs of scale 1 as this family saves them; settings are those of `members`, which they are the sum of."""

    def check_config(self, config: Mapping[str, Any], label: str) -> None:  # noqa: B027, some have no settings
        """Refuse settings that leave the scale open."""

    def trained_on(self, saved: Saved) -> str | None:
        """The name of the base model, None where it is not said."""
        name = saved.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    def nonlinear(self, saved: Saved) -> list[str]:  # noqa: ARG002, a family that has such settings reads them
        """Reasons in the settings why the adapter is not a sum of `scale * B @ A` over an unchanged base."""
        return []

    def refuse_parts(self, parts: Parts) -> None:
        """Refuse what this family has no name for."""
        if parts.full:
            raise InputError(
                f"{next(iter(parts.full))!r} is trained in full, which adapters of {self.name} do not hold; use "
                "format='peft', or fold each adapter into its base"
            )
        for pair in parts.pairs.values():
            if pair.kind not in self.kinds or pair.bias is not None:
                extra = pair.kind if pair.kind not in self.kinds else "bias of lora_B"
                raise InputError(
                    f"{pair.module!r} has a pair of kind {extra!r}, which adapters of {self.name} do not hold; use "
                    "format='peft', or fold each adapter into its base"
                )


def differences_of(saved: Saved) -> tuple[dict[str, Array], Saved]:
    """Name -> what is added to that tensor of the base as it is, and what else is saved.

    Raises:
        InputError: two differences of one tensor.
    """
    differences: dict[str, Array] = {}
    others: dict[str, Array] = {}
    for name, array in saved.tensors.items():
        match = DIFFERENCE.fullmatch(name)
        if match is None:
            others[name] = array
            continue
        own = f"{match['module']}.{_LEAVES[match['part']]}"
        if own in differences:
            raise InputError(f"{saved.label}: {name!r} is the second difference of {own!r}; save the adapter again")
        differences[own] = array
    # Whoever writes differences may write an alpha beside them, which scales factors alone.
    factored = {n.removesuffix(".weight").rpartition(".")[0] for n in others if not n.endswith(".alpha")}
    alone = {f"{stem}.alpha" for own in differences if (stem := own.rpartition(".")[0]) not in factored}
    return differences, replace(saved, tensors={name: array for name, array in others.items() if name not in alone})


def gather(saved: Saved, family: str, pattern: re.Pattern[str]) -> dict[str, dict[str, Array]]:
    """Module -> part -> tensor, by a pattern with the groups `module` and `part`.

    Raises:
        InputError: a name that does not match.
    """
    modules: dict[str, dict[str, Array]] = {}
    for name, array in saved.tensors.items():
        match = pattern.fullmatch(name)
        if match is None:
            refuse_stranger(saved, family, name)
        else:
            modules.setdefault(match["module"], {})[match["part"]] = array
    return modules


def other_kind(name: str) -> str | None:
    """The parametrisation, if it is one that is no sum of products, that a tensor of this name belongs to."""
    return next((kind for pattern, kind in _OTHERS if pattern.search(name)), None)


def refuse_stranger(saved: Saved, family: str, name: str) -> None:
    """Refuse a tensor that is no factor of this family, by its own kind where that is known."""
    kind = other_kind(name)
    if kind is not None:
        raise InputError(
            f"{saved.label}: {name!r} is {kind}, not a pair of factors; fold that adapter into its base with its own "
            "trainer first"
        )
    raise InputError(
        f"{saved.label}: tensor {name!r} is of no known LoRA form of {family}; leave it out or save the adapter again"
    )


def matching(
    saved: Saved, module: str, A: Array | None, B: Array | None, names: tuple[str, str] = ("lora_A", "lora_B")
) -> tuple[Array, Array, str]:
    """Both factors of a module, checked against each other, and their kind ("linear", "conv" or "grouped conv")."""
    for name, factor in zip(names, (A, B), strict=True):
        if factor is None:
            raise InputError(f"{saved.label}: module {module!r} has no {name}; save the adapter again")
    assert A is not None
    assert B is not None
    kind = "linear" if A.ndim == 2 else "conv"
    fits = A.ndim == B.ndim >= 2 and B.shape[2:] == (1,) * (B.ndim - 2) and 0 not in (A.size, B.size)
    if fits and kind == "conv" and B.shape[1] < A.shape[0] and A.shape[0] % B.shape[1] == 0:
        kind = "grouped conv"
    elif not fits or A.shape[0] != B.shape[1]:
        raise InputError(
            f"{saved.label}: the factors of {module!r} have shapes {A.shape} and {B.shape}; {names[0]} is (r, in) "
            f"and {names[1]} (out, r)"
        )
    one_float_type(saved, module, A, B)
    return A, B, kind


def one_float_type(saved: Saved, module: str, *factors: Array) -> None:
    """Refuse factors of a module that are of several dtypes or of whole numbers."""
    first, *others = dict.fromkeys(factor.dtype for factor in factors)
    if others or first.kind in "iubc":
        raise InputError(
            f"{saved.label}: the factors of {module!r} are {first} and {(others or [first])[0]}; give one float type"
        )


def alpha_of(saved: Saved, module: str, alpha: Any, default: float) -> float:
    """An alpha given as a tensor of one number, or as a number; the default where there is none."""
    if alpha is None:
        return default
    value = np.asarray(alpha).astype(np.float64).reshape(-1) if hasattr(alpha, "dtype") else np.array([alpha], object)
    number = value[0] if len(value) == 1 else None
    if not is_finite(number):
        raise InputError(f"{saved.label}: alpha of {module!r} is {shown(alpha)}; give one finite number")
    return float(number)


def of_one_rank(pairs: Iterable[Pair]) -> tuple[int, dict[str, tuple[Array, Array]]]:
    """The largest rank of the pairs, and A (rank, in) and B (out, rank) of each module, filled up with zeros.

    Some trainers give all modules of a model one rank.
    """
    pairs = list(pairs)
    rank = max(pair.rank for pair in pairs)
    filled = {}
    for pair in pairs:
        more = rank - pair.rank
        filled[pair.module] = (
            np.pad(pair.rows(), ((0, more), (0, 0))),
            np.pad(pair.columns(), ((0, 0), (0, more))),
        )
    return rank, filled
