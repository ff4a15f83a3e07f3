"""Stacked factors of several LoRA adapters: exact sums of updates, module by module."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.tensor import or_wider
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.io.adapter_families import PEFT, Family, Parts
from kofn.io.adapters import Adapter
from kofn.io.low_rank import Pair


class AdapterSum(Mapping[str, Any]):
    """The weighted sum of updates, kept as factors: a mapping module -> update, and "weight" -> sum_k w_k.

    Sums over parts of the members, added with `+` in any order, give the sum over all. A module's update is multiplied
    out (float64) on access; `mean()` is the adapter of the weighted mean.
    """

    def __init__(
        self, weight: float, pairs: Mapping[str, Pair], full: Mapping[str, Floats], family: Family = PEFT
    ) -> None:
        self.weight, self.pairs, self.full, self.family = weight, dict(pairs), dict(full), family

    def __getitem__(self, name: str) -> Any:
        if name == "weight":
            return self.weight
        return self.full[name] if name in self.full else self.pairs[name].delta()

    def __iter__(self) -> Iterator[str]:
        return iter(["weight", *sorted(self.pairs), *sorted(self.full)])

    def __len__(self) -> int:
        return 1 + len(self.pairs) + len(self.full)

    def __add__(self, other: AdapterSum) -> AdapterSum:
        if self.full.keys() != other.full.keys():
            odd = sorted(self.full.keys() ^ other.full.keys())[0]
            raise InputError(f"{odd!r} is in one sum of adapters only; add sums that hold the same full tensors")
        pairs = dict(self.pairs)
        for module, pair in other.pairs.items():
            pairs[module] = beside([pairs[module], pair]) if module in pairs else pair
        full = {name: value + other.full[name] for name, value in self.full.items()}
        return AdapterSum(self.weight + other.weight, pairs, full, self.family)

    def mean(self) -> Adapter:
        """The adapter of the weighted mean, in float64, with a scaling of 1."""
        pairs = {}
        for module, pair in self.pairs.items():
            bias = None if pair.bias is None else pair.bias / self.weight
            pairs[module] = Pair.of(module, pair.A / self.weight, pair.B, 1.0, pair.kind, bias)
        full: dict[str, Array] = {name: value / self.weight for name, value in self.full.items()}
        return Adapter.of(self.family, Parts(pairs, full), [], "the mean")


def beside(pairs: Sequence[Pair]) -> Pair:
    """Pairs of one module as one of scale 1, in float64; the scales go into A, as PEFT's own `cat` has them."""
    A = np.concatenate([pair.A.astype(np.float64) * pair.scale for pair in pairs], axis=0)
    B = np.concatenate([pair.B.astype(np.float64) for pair in pairs], axis=1)
    biases = [pair.bias.astype(np.float64) * pair.scale for pair in pairs if pair.bias is not None]
    return Pair.of(pairs[0].module, A, B, 1.0, pairs[0].kind, sum(biases) if biases else None)  # type: ignore[arg-type]


class ModuleStack:
    """One module's stacked factors, and the members' updates as matrices (`cores`), small ones where ranks are low."""

    def __init__(self, parts: list[tuple[int, Pair]], weights: list[float], *, widen: bool, cuts: bool) -> None:
        self.parts = [pair for _, pair in parts]
        self.owners = [i for i, _ in parts]  # the member that each part is of
        self.weights = [weights[i] for i in self.owners]
        self.count = len(weights)
        self.live = [i for i, weight in enumerate(self.weights) if weight]
        self.module, self.kind, self.into = self.parts[0].module, self.parts[0].kind, self.parts[0].into
        dtype = self.parts[0].dtype
        self.dtype = np.dtype(np.float32) if widen and any(is_half(pair.dtype) for pair in self.parts) else dtype
        self.rank = sum(self.parts[i].rank for i in self.live)
        self._bases: tuple[Floats, Floats] | None = None
        # Products are formed where that is cheaper than QR of the factors: 2 in out R against 2 (in + out) R^2.
        few = 4 * sum(pair.rank for pair in self.parts) <= min(self.parts[0].out, math.prod(self.into))
        self.cores = self._reduced(cuts) if cuts or few else [pair.delta() for pair in self.parts]
        self.core = np.sum([weight * core for weight, core in zip(self.weights, self.cores, strict=True)], axis=0)
        self._svd: tuple[Floats, Floats, Floats] | None = None

    def _reduced(self, cuts: bool) -> list[Floats]:
        """The members' updates in a common orthonormal basis, which is kept for `cuts`."""
        columns = np.concatenate([pair.columns() for pair in self.parts], 1).astype(np.float64)
        rows = np.concatenate([pair.rows() for pair in self.parts], 0).astype(np.float64)
        if cuts:
            (q_out, r_out), (q_in, r_in) = np.linalg.qr(columns), np.linalg.qr(rows.T)
            self._bases = q_out, q_in
        else:
            r_out, r_in = (np.asarray(np.linalg.qr(side, mode="r")) for side in (columns, rows.T))
        ends = np.cumsum([0, *(pair.rank for pair in self.parts)]).tolist()
        spans = [slice(low, high) for low, high in itertools.pairwise(ends)]
        return [pair.scale * (r_out[:, span] @ r_in[:, span].T) for pair, span in zip(self.parts, spans, strict=True)]

    def svd(self) -> tuple[Floats, Floats, Floats]:
        """U, the singular values, and V transposed, of the sum of the updates, in the common basis."""
        if self._svd is None:
            self._svd = np.linalg.svd(self.core, full_matrices=False)
        return self._svd

    def singular(self) -> Floats:
        """The singular values of the sum of the updates."""
        return self.svd()[1]

    def kept(self, rank: int) -> int:
        """The rank after truncation to `rank`: the stacked rank if not larger, else at most the numerical rank."""
        return self.rank if rank >= self.rank else min(rank, len(self.singular()))

    def square(self) -> float:
        """The squared norm of the sum of the updates."""
        return float(np.square(self.core).sum())

    def error(self, rank: int) -> float:
        """The squared truncation error at this rank."""
        return 0.0 if rank == self.rank else float(np.square(self.singular()[rank:]).sum())

    def distances(self, rank: int) -> Floats:
        """(members,) squared distance of each member's update to the result's."""
        core = self.core
        if rank < self.rank:
            u, s, v = self.svd()
            core = (u[:, :rank] * s[:rank]) @ v[:rank]
        out = np.full(self.count, float(np.square(core).sum()))  # a module that a member lacks is an update of zero
        for i, own in zip(self.owners, self.cores, strict=True):
            out[i] = float(np.square(own - core).sum())
        return out

    def stacked(self) -> tuple[Pair, float]:
        """The stacked factors, and the squared rounding error of the scaled ones."""
        if any(pair.derived for pair in self.parts) and self.rank > min(self.parts[0].out, math.prod(self.into)):
            return self._beside_identity()
        rows, off, columns, inexact = [], [], [], []
        for i in self.live:
            pair, weight = self.parts[i], self.weights[i]
            exact = pair.A.astype(np.float64) * (weight * pair.scale)
            rounded = self._round(exact, "lora_A")
            rows.append(rounded)
            off.append((rounded.astype(np.float64) - exact).reshape(pair.rank, -1))
            if pair.derived:
                exact_columns = pair.B
                columns.append(self._round(exact_columns, "lora_B"))
                change = columns[-1].astype(np.float64) - exact_columns
                inexact.append((change.reshape(pair.out, -1), exact.reshape(pair.rank, -1)))
            else:
                columns.append(pair.B.astype(self.dtype))
        pair = Pair.of(self.module, np.concatenate(rows, 0), np.concatenate(columns, 1), 1.0, self.kind, self._bias())
        changes = [change for change, _ in inexact]
        exacts = [exact for _, exact in inexact]
        return pair, _square_of_product(np.hstack([pair.columns(), *changes]), np.vstack([*off, *exacts]))

    def _beside_identity(self) -> tuple[Pair, float]:
        """The sum of the updates itself, beside the identity of the weight's smaller side."""
        out, width = self.parts[0].out, math.prod(self.into)
        delta = np.sum([self.weights[i] * self.parts[i].delta() for i in self.live], axis=0)
        rounded = self._round(delta, "the update")
        off = float(np.square(rounded.astype(np.float64) - delta).sum())
        identity = np.eye(min(out, width), dtype=self.dtype)
        B, A = (identity, rounded) if out <= width else (rounded, identity)
        A = A.reshape(len(A), *self.into)
        B = B.reshape(*B.shape, *(1,) * (len(self.into) - 1))
        return Pair.of(self.module, A, B, 1.0, self.kind), off

    def cut(self, rank: int) -> tuple[Pair, float]:
        """The best factors of this rank, singular values split evenly between them, and the squared rounding error."""
        assert self._bases is not None
        (q_out, q_in), (u, s, v) = self._bases, self.svd()
        root = np.sqrt(s[:rank])
        B = (q_out @ u[:, :rank]) * root
        A = root[:, None] * (v[:rank] @ q_in.T)
        bias = self._bias()
        out, into = B.shape[0], self.into
        near = self._round(A, "lora_A"), self._round(B, "lora_B")
        exact = near[0].astype(np.float64) - A, near[1].astype(np.float64) - B
        off = _square_of_product(np.hstack([near[1], exact[1]]), np.vstack([exact[0], A]))
        ones = (1,) * (len(into) - 1)
        pair = Pair.of(
            self.module, near[0].reshape(rank, *into), near[1].reshape(out, rank, *ones), 1.0, self.kind, bias
        )
        return pair, off

    def _bias(self) -> Array | None:
        """The sum of the biases of B, None if there is none."""
        live = [(self.parts[i], self.weights[i]) for i in self.live]
        biases = [
            pair.bias.astype(np.float64) * (weight * pair.scale) for pair, weight in live if pair.bias is not None
        ]
        return self._round(np.sum(biases, axis=0), "the bias of lora_B") if biases else None

    def _round(self, exact: Floats, label: str) -> Array:
        with np.errstate(over="ignore"):
            rounded = exact.astype(self.dtype)
        if not np.isfinite(rounded.astype(np.float64)).all():
            raise InputError(
                f"weights take {label} of {self.module!r} beyond the range of {self.dtype}; "
                f"use smaller weights{or_wider(self.dtype)}"
            )
        return rounded


def _square_of_product(columns: Array, rows: Array) -> float:
    """The squared norm of `columns @ rows`, without forming the product."""
    if not rows.any():
        return 0.0
    C, R = columns.astype(np.float64), rows.astype(np.float64)
    return max(0.0, float(((C.T @ C) * (R @ R.T)).sum()))


def is_half(dtype: np.dtype[Any]) -> bool:
    return dtype.itemsize < 4 and dtype.kind not in "iub"
