"""Stacked factors of several LoRA adapters: exact sums of updates, module by module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.io.adapters import Adapter, Pair


class AdapterSum(Mapping[str, Any]):
    """The weighted sum of updates, kept as factors: a mapping module -> update, and "weight" -> sum_k w_k.

    Sums over parts of the members, added with `+` in any order, give the sum over all. A module's update is multiplied
    out (float64) on access; `mean()` is the adapter of the weighted mean.
    """

    def __init__(self, weight: float, pairs: Mapping[str, Pair], full: Mapping[str, Floats]) -> None:
        self.weight, self.pairs, self.full = weight, dict(pairs), dict(full)

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
        return AdapterSum(self.weight + other.weight, pairs, full)

    def mean(self) -> Adapter:
        """The adapter of the weighted mean, in float64, with a scaling of 1."""
        tensors: dict[str, Array] = {name: value / self.weight for name, value in self.full.items()}
        for pair in self.pairs.values():
            bias = None if pair.bias is None else pair.bias / self.weight
            tensors |= named(Pair(pair.module, pair.A / self.weight, pair.B, 1.0, pair.kind, bias))
        return Adapter(tensors, label="the mean")


def named(pair: Pair) -> dict[str, Array]:
    """The tensors of a pair under the names that PEFT gives them."""
    module = pair.module
    if pair.kind == "embedding":
        return {f"{module}.lora_embedding_A": pair.A, f"{module}.lora_embedding_B": pair.B}
    out = {f"{module}.lora_A.weight": pair.A, f"{module}.lora_B.weight": pair.B}
    return out if pair.bias is None else {**out, f"{module}.lora_B.bias": pair.bias}


def beside(pairs: Sequence[Pair]) -> Pair:
    """Pairs of one module as one of scale 1, in float64; the scales go into A, as PEFT's own `cat` has them."""
    A = np.concatenate([pair.A.astype(np.float64) * pair.scale for pair in pairs], axis=0)
    B = np.concatenate([pair.B.astype(np.float64) for pair in pairs], axis=1)
    biases = [pair.bias.astype(np.float64) * pair.scale for pair in pairs if pair.bias is not None]
    return Pair(pairs[0].module, A, B, 1.0, pairs[0].kind, sum(biases) if biases else None)  # type: ignore[arg-type]


class ModuleStack:
    """One module's stacked factors; QR turns the members' updates into small matrices (`cores`) in a common basis."""

    def __init__(self, parts: list[tuple[int, Pair]], weights: list[float], *, widen: bool, cuts: bool) -> None:
        self.parts = [pair for _, pair in parts]
        self.owners = [i for i, _ in parts]  # the member that each part is of
        self.weights = [weights[i] for i in self.owners]
        self.count = len(weights)
        self.live = [i for i, weight in enumerate(self.weights) if weight]
        self.module, self.kind = self.parts[0].module, self.parts[0].kind
        dtype = self.parts[0].A.dtype
        self.dtype = np.dtype(np.float32) if widen and is_half(dtype) else dtype
        self.rank = sum(self.parts[i].rank for i in self.live)
        columns = np.concatenate([pair.columns() for pair in self.parts], 1).astype(np.float64)
        rows = np.concatenate([pair.rows() for pair in self.parts], 0).astype(np.float64)
        self._bases: tuple[Floats, Floats] | None = None
        if cuts:
            (q_out, r_out), (q_in, r_in) = np.linalg.qr(columns), np.linalg.qr(rows.T)
            self._bases = q_out, q_in
        else:
            r_out, r_in = (np.asarray(np.linalg.qr(side, mode="r")) for side in (columns, rows.T))
        ends = np.cumsum([0, *(pair.rank for pair in self.parts)]).tolist()
        spans = [slice(low, high) for low, high in itertools.pairwise(ends)]
        self.cores = [
            pair.scale * (r_out[:, span] @ r_in[:, span].T) for pair, span in zip(self.parts, spans, strict=True)
        ]
        self.core = np.sum([weight * core for weight, core in zip(self.weights, self.cores, strict=True)], axis=0)
        self._svd: tuple[Floats, Floats, Floats] | None = None

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
        rows, off, columns, biases = [], [], [], []
        for i in self.live:
            pair, weight = self.parts[i], self.weights[i]
            exact = pair.A.astype(np.float64) * (weight * pair.scale)
            rounded = self._round(exact, "lora_A")
            rows.append(rounded)
            off.append((rounded.astype(np.float64) - exact).reshape(pair.rank, -1))
            columns.append(pair.B.astype(self.dtype))
            if pair.bias is not None:
                biases.append(pair.bias.astype(np.float64) * (weight * pair.scale))
        bias = self._round(np.sum(biases, axis=0), "the bias of lora_B") if biases else None
        pair = Pair(self.module, np.concatenate(rows, 0), np.concatenate(columns, 1), 1.0, self.kind, bias)
        return pair, _square_of_product(pair.columns(), np.concatenate(off, 0))

    def cut(self, rank: int) -> tuple[Pair, float]:
        """The best factors of this rank, singular values split evenly between them, and the squared rounding error."""
        assert self._bases is not None
        (q_out, q_in), (u, s, v) = self._bases, self.svd()
        root = np.sqrt(s[:rank])
        B = (q_out @ u[:, :rank]) * root
        A = root[:, None] * (v[:rank] @ q_in.T)
        first, (stack, _) = self.parts[0], self.stacked()
        out, into = B.shape[0], first.A.shape[1:]
        near = self._round(A, "lora_A"), self._round(B, "lora_B")
        exact = near[0].astype(np.float64) - A, near[1].astype(np.float64) - B
        off = _square_of_product(np.hstack([near[1], exact[1]]), np.vstack([exact[0], A]))
        ones = (1,) * (first.A.ndim - 2)
        pair = Pair(
            self.module, near[0].reshape(rank, *into), near[1].reshape(out, rank, *ones), 1.0, self.kind, stack.bias
        )
        return pair, off

    def _round(self, exact: Floats, label: str) -> Array:
        with np.errstate(over="ignore"):
            rounded = exact.astype(self.dtype)
        if not np.isfinite(rounded.astype(np.float64)).all():
            raise InputError(
                f"weights take {label} of {self.module!r} beyond the range of {self.dtype}; use smaller weights, or "
                "the option dtype='float32'"
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
