"""Argument bundles of the methods that blend tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from kofn.combination._sweep.members import Pool, open_members
from kofn.core.checks import InputError, shown
from kofn.core.words import Progress


class Files(TypedDict, total=False):
    """Which tensors to blend, how to treat non-finite entries, and where to write the blend."""

    out: Annotated[
        str | Path | None,
        "A `*.safetensors` file, or a folder that gets the first member's shards, to write into while reading. It "
        "appears whole or not at all; an earlier output is replaced, and a run that was killed goes on where it was "
        "when it is started again. A folder gets the first member's configuration and tokenizer too.",
    ]
    only: Annotated[
        str | Sequence[str] | None,
        "Pattern, or several, of the names of the tensors to blend (`model.layers.*`); the others are copied from the "
        "base, or from the first member.",
    ]
    skip: Annotated[
        str | Sequence[str] | None,
        "Pattern, or several, of the names of tensors to copy; what is copied need not match.",
    ]
    measure: Annotated[
        bool,
        "Keep each tensor's figures in `info[\"measures\"]`: the members' distances and norms, their cosines, the "
        'agreement of their signs, the share of their variance that the blend keeps. With `base`, `info["length"]` '
        "is how far the blend goes from it, over how far the members do.",
        False,
    ]
    skip_nonfinite: Annotated[
        bool,
        "A NaN or infinity counts as not given, and the other members share its weight; `info` counts them as "
        '"nonfinite". By default they are refused.',
        False,
    ]
    dtype: Annotated[
        str | None,
        "The float dtype of the blend, such as float32 or bfloat16; by default the first member's. Members may be of "
        "several float dtypes: each is read as it is, and the blend is rounded once. Quantised weights are blended as "
        "what they stand for: quantised again as the first member's, one tensor held whole a thread, or written in the "
        "dtype given here, without scales.",
    ]
    vocabulary: Annotated[
        str | None,
        "Members are folders with tokenizers of their own: rows of embeddings and heads are matched by token. The "
        'output has the tokens of the "first" member, of the "base", or the "union": those of the base (or first '
        "member), then what is new in the others. A token's row is blended over the members that have it; a row "
        "that the base lacks counts as their mean, and a member without a row of the base's leaves it as it is.",
    ]
    max_memory: int | str | None
    progress: Progress


class FilesAndThreads(Files, total=False):
    """`Files`, the number of threads, and where the tensors are blended."""

    n_threads: int | None
    engine: Annotated[
        Any,
        'Where the tensors of checkpoints are blended and written to `out`: "local" (threads), "ray", '
        '"ray://HOST:PORT", or an engine, whose tasks must see the files, and of which each may hold max_memory. The '
        "bytes are the same.",
    ]


DEVICE = (
    'A torch device ("cuda", "auto" for a GPU where torch sees one) to add up on, with the same result; by default '
    "NumPy, which mostly is as fast: disks are slower than either."
)


class FilesAndDevice(FilesAndThreads, total=False):
    """`FilesAndThreads`, and a torch device for the sums."""

    device: Annotated[str | None, DEVICE]


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The arguments of `FilesAndThreads`, as the driver reads them."""

    out: str | os.PathLike[str] | None = None
    only: str | Sequence[str] | None = None
    skip: str | Sequence[str] | None = None
    measure: bool = False
    skip_nonfinite: bool = False
    dtype: str | None = None
    vocabulary: str | None = None
    max_memory: Any = None
    n_threads: int | None = None
    progress: Progress = None
    engine: Any = None

    def open(self, members: Any, base: Any = None) -> Pool:
        """Open the members and the base, and check them against each other."""
        only, skip = patterns(self.only, "only"), patterns(self.skip, "skip")
        return open_members(members, base, only, skip, once=True, dtype=self.dtype, vocabulary=self.vocabulary)


def patterns(value: str | Sequence[str] | None, name: str) -> list[str] | None:
    """A tuple of tensor-name patterns, from one or several."""
    if value is None:
        return None
    if not isinstance(value, str | list | tuple | set | frozenset):
        raise InputError(f"{name}={shown(value)}: give patterns of tensor names such as 'model.layers.*'")
    listed = [value] if isinstance(value, str) else list(value)
    if not listed or not all(isinstance(item, str) and item for item in listed):
        raise InputError(f"{name}={shown(value)}: give patterns of tensor names such as 'model.layers.*'")
    return listed
