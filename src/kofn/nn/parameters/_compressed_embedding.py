"""Embedding tables that take fewer bytes than rows times width: hashed, composed of two, or of mixed widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kofn.allocation.parameters._mixed_dimensions import mixed_dimensions
from kofn.core import checks
from kofn.core.checks import InfeasibleError
from kofn.core.torch_module import module

_KINDS = ("hash", "quotient_remainder", "mixed")
_BYTES = 4
# Standard deviation of what the tables start with.
_STD = 0.1


@module(
    form_of=None, paper=88, aliases=("hashing trick", "QR trick", "mixed dimension embedding", "embedding compression")
)
class CompressedEmbedding(nn.Module):
    """Embedding table within bytes, in the place of `torch.nn.Embedding`.

    Args:
        rows: how many rows are looked up.
        dim: width of what is looked up.
        budget: bytes of all float32 numbers that are stored.
        kind: "hash" shares one row between all that are equal modulo the table's length; "quotient_remainder"
            multiplies a row of one table, by the remainder, with one of another, by the quotient, so that no two rows
            are the same, before training too; "mixed" gives frequent rows more numbers
            (`kofn.allocation.mixed_dimensions`).
        counts: (rows,) how often each row is looked up, for "mixed".
        options: `temperature` and `blocks` of `mixed_dimensions`.

    `stored_bytes` is what its parameters take.

    Raises:
        InfeasibleError: the budget holds no table of that kind.
        InputError: unknown kinds, counts of another length.
        IndexError: when it is asked for ids outside 0 to rows - 1.

    References:
        Zhang et al. 2023, "Experimental Analysis of Large-scale Learnable Vector Storage Compression", PVLDB 17, arXiv
        2311.15578. Shi, Mudigere, Naumov & Yang 2020, arXiv 1909.02107 (quotient and remainder).

    Examples:
        >>> import torch
        >>> from kofn.nn import CompressedEmbedding
        >>> table = CompressedEmbedding(1000, 8, budget=3200, kind="hash")
        >>> table(torch.tensor([[3, 103]])).shape, table.stored_bytes
        (torch.Size([1, 2, 8]), 3200)
    """

    def __init__(
        self, rows: int, dim: int, budget: float, *, kind: str = "hash", counts: Any = None, **options: Any
    ) -> None:
        super().__init__()
        self.rows, self.dim = checks.count(rows, "rows"), checks.count(dim, "dim")
        self.kind = checks.choice(kind, "kind", _KINDS)
        most = int(checks.number(budget, "budget") // (_BYTES * self.dim))
        self.tables = nn.ModuleList()
        self.wider = nn.ModuleList()
        if self.kind == "mixed":
            self._mix(budget, np.ones(self.rows) if counts is None else counts, options)
            return
        self.length = self._length(min(most, self.rows), budget)
        self.tables.append(_table(self.length, self.dim))
        if self.kind == "quotient_remainder":
            quotients = _table(-(-self.rows // self.length), self.dim)
            nn.init.normal_(quotients.weight, mean=1.0, std=_STD)
            self.tables.append(quotients)

    def _length(self, most: int, budget: float) -> int:
        """How many rows the first table has; the second has as many as there are quotients."""
        for length in range(most, 0, -1):
            second = -(-self.rows // length) if self.kind == "quotient_remainder" else 0
            if length + second <= budget // (_BYTES * self.dim):
                return length
        raise InfeasibleError(
            f"budget={budget:g} bytes hold no {self.kind} table of width {self.dim} for {self.rows} rows; raise it, or "
            "take kind='mixed'"
        )

    def _mix(self, budget: float, counts: Any, options: dict[str, Any]) -> None:
        plan = mixed_dimensions(counts, budget=budget, dim=self.dim, bytes_each=_BYTES, **options)
        checks.same_length(self.rows, "rows", "counts", plan.n)
        block = torch.from_numpy(plan.info["block"])
        index = torch.empty_like(block)
        for number, width in enumerate(plan.info["widths"].tolist()):
            members = (block == number).nonzero()[:, 0]
            index[members] = torch.arange(len(members))
            self.tables.append(_table(len(members), width))
            self.wider.append(nn.Identity() if width == self.dim else nn.Linear(width, self.dim, bias=False))
        self.register_buffer("block", block, persistent=False)
        self.register_buffer("index", index, persistent=False)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.parameters())

    def forward(self, ids: Tensor) -> Tensor:
        """(..., dim) the rows of these ids.

        Raises:
            IndexError: an id below 0 or not below `rows`, as of `torch.nn.Embedding`.
        """
        _refuse_outside(ids, self.rows)
        if self.kind == "hash":
            return self.tables[0](ids % self.length)
        if self.kind == "quotient_remainder":
            return self.tables[0](ids % self.length) * self.tables[1](ids // self.length)
        flat = ids.reshape(-1)
        blocks: Any = self.block
        index: Any = self.index
        out = torch.zeros(len(flat), self.dim, device=ids.device)
        for number, (table, wider) in enumerate(zip(self.tables, self.wider, strict=True)):
            mine = (blocks[flat] == number).nonzero()[:, 0]
            if len(mine):
                out = out.index_copy(0, mine, wider(table(index[flat[mine]])))
        return out.view(*ids.shape, self.dim)


def _refuse_outside(ids: Tensor, rows: int) -> None:
    outside = (ids < 0) | (ids >= rows)
    if outside.any():
        position = tuple(outside.nonzero()[0].tolist())
        raise IndexError(f"ids at {position} is {ids[position].item()}; the table has rows 0 to {rows - 1}")


def _table(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=_STD)
    return table
