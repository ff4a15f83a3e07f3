"""Files of kohya's sd-scripts and of LyCORIS: `<module>.lora_down.weight`, `.lora_up.weight`, `.alpha`, and products.

The scale is `alpha / r`, 1 without an alpha. LoHa is `(w1_a @ w1_b) * (w2_a @ w2_b)`, LoKr `kron(w1, w2)`, each of w1
and w2 whole or a product; where both are whole there is no rank, and LyCORIS takes 1 for the scale. This is what its
forward pass adds (its `merge_to` multiplies LoHa and LoKr by the scale twice). `lora_mid`, `hada_t1`, `hada_t2` and
`lokr_t2` are cores of Tucker decompositions. Other factors of LoHa and LoKr flatten a convolution's kernel, whose shape
only the base then has. Beside factors or alone, `diff`, `diff_b`, `w_norm` and `b_norm` are added to weights and biases
as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.io.adapter_families._family import (
    DIFFERENCE,
    DIFFUSERS,
    Family,
    Parts,
    Saved,
    alpha_of,
    differences_of,
    gather,
    matching,
    one_float_type,
)
from kofn.io.low_rank import Factors, Pair, block, hadamard, kronecker, plain, tucker
from kofn.io.module_names import PREFIX

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_(down|up|mid)\.weight|hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2)|alpha|"
    r"dora_scale)"
)
_LORA = re.compile(r"(.+)\.lora_(down|up)\.weight")
_PRODUCT = re.compile(r"(.+)\.(hada|lokr)_\w+")
# Metadata of the first member's file that is not true of a sum: its hashes, and options of its network.
_OWN_FILE = re.compile(r"sshs_|modelspec\.hash|ss_network_args")
_NETWORK = {"ss_network_module": "networks.lora"}

_DOWN, _UP = "lora_down.weight", "lora_up.weight"


class Kohya(Family):
    """kohya-ss/sd-scripts."""

    name = "kohya"
    weights = "lora.safetensors"
    names = "flat"

    def owns(self, saved: Saved) -> bool:
        return any(map(_LORA.fullmatch, saved.tensors)) and not any(map(_PRODUCT.fullmatch, saved.tensors))

    def read(self, saved: Saved) -> Parts:
        differences, factors = differences_of(saved)
        modules = gather(factors, self.name, _FACTOR)
        pairs = {
            module: _with_magnitude(product_pair(saved, module, parts), parts) for module, parts in modules.items()
        }
        return Parts(pairs, differences=differences)

    def write(self, parts: Parts, members: Sequence[Saved]) -> Saved:
        self.refuse_parts(parts)
        tensors: dict[str, Array] = {}
        for module, pair in parts.pairs.items():
            tensors[f"{module}.{_DOWN}"] = pair.A
            tensors[f"{module}.{_UP}"] = pair.B
            # In float32: half precision would round ranks beyond 256.
            tensors[f"{module}.alpha"] = np.array(pair.rank, np.float32)
        return Saved(tensors, {}, _metadata(parts, members[0]), "the sum")

    def trained_on(self, saved: Saved) -> str | None:
        return saved.metadata.get("ss_base_model_version")


class Lycoris(Kohya):
    """KohakuBlueleaf/LyCORIS: LoHa and LoKr, whose sums are saved as kohya's plain pairs, and differences in full."""

    name = "LyCORIS"

    def owns(self, saved: Saved) -> bool:
        if any(map(_PRODUCT.fullmatch, saved.tensors)):
            return True
        differences = any(map(DIFFERENCE.fullmatch, saved.tensors))
        return differences and all(DIFFERENCE.fullmatch(name) or name.endswith(".alpha") for name in saved.tensors)

    def read(self, saved: Saved) -> Parts:
        peft = next((name for name in saved.tensors if name.startswith(PREFIX)), None)
        if peft is not None or DIFFUSERS in saved.metadata:
            raise InputError(
                f"{saved.label}: {peft or next(iter(saved.tensors))!r} is LoHa or LoKr of PEFT, whose alpha is not "
                "among the tensors; give the folder that PEFT saved, with its adapter_config.json"
            )
        return super().read(saved)


def _metadata(parts: Parts, first: Saved) -> dict[str, str]:
    kept = {key: value for key, value in first.metadata.items() if not _OWN_FILE.match(key) and key != "format"}
    ranks = sorted({pair.rank for pair in parts.pairs.values()})
    rank = str(ranks[0]) if len(ranks) == 1 else "Dynamic"
    own = {**_NETWORK, "ss_network_dim": rank, "ss_network_alpha": rank}
    return {key: own.get(key, value) for key, value in kept.items()}


def _with_magnitude(pair: Pair, parts: Mapping[str, Array]) -> Pair:
    """The pair with DoRA's magnitude, which LyCORIS has of the outputs or, of shape (1, in, 1...), of the inputs."""
    scale = parts.get("dora_scale")
    if scale is None:
        return pair
    on_inputs = scale.ndim > 1 and scale.shape[0] == 1 and scale.size > 1
    return replace(pair, magnitude=scale.reshape(-1), on_inputs=on_inputs)


def product_pair(saved: Saved, module: str, parts: dict[str, Array]) -> Pair:
    """The pair of a module, whose scale is 1 without an alpha among its parts."""
    for stem, read in _READERS.items():
        if any(part.startswith(stem) for part in parts):
            mixed = next((part for part in parts if part.startswith(tuple(_READERS)) and part[:4] != stem[:4]), None)
            if mixed is not None:
                raise InputError(
                    f"{saved.label}: module {module!r} has factors {stem!r} and {mixed!r}; save the adapter again"
                )
            return read(saved, module, parts)
    raise InputError(
        f"{saved.label}: module {module!r} has {next(iter(parts))!r} and no factor; save the adapter again"
    )


def _scale(saved: Saved, module: str, parts: dict[str, Array], rank: int) -> float:
    alpha = alpha_of(saved, module, parts.get("alpha"), float(rank))
    if alpha == 0:
        raise InputError(
            f"{saved.label}: alpha of {module!r} is 0, which sd-scripts loads as the rank and merges as 0; write the "
            "one that is meant"
        )
    return alpha / rank


def _lora(saved: Saved, module: str, parts: dict[str, Array]) -> Pair:
    down, up, mid = parts.get(_DOWN), parts.get(_UP), parts.get("lora_mid.weight")
    if mid is None:
        A, B, kind = matching(saved, module, down, up, ("lora_down", "lora_up"))
        scale = _scale(saved, module, parts, A.shape[0])
        return Pair.of(module, A, B, scale, kind)
    rows, columns = (_required(saved, module, parts, part) for part in (_DOWN, _UP))
    flat = rows.reshape(len(rows), -1), columns.reshape(len(columns), -1)
    return _derived(saved, module, parts, _tucker(saved, module, mid, flat[1], flat[0]), mid)


def _loha(saved: Saved, module: str, parts: dict[str, Array]) -> Pair:
    halves = []
    for half in "12":
        a, b = (_required(saved, module, parts, f"hada_w{half}_{side}") for side in "ab")
        core = parts.get(f"hada_t{half}")
        halves.append(_product(saved, module, a, b) if core is None else _tucker(saved, module, core, a.T, b))
    first, second = halves
    if (first.out, first.width) != (second.out, second.width):
        raise InputError(
            f"{saved.label}: the products of {module!r} are {(first.out, first.width)} and "
            f"{(second.out, second.width)}; save the adapter again"
        )
    return _derived(saved, module, parts, hadamard(first, second), parts.get("hada_t1"), rank=first.rank)


def _lokr(saved: Saved, module: str, parts: dict[str, Array]) -> Pair:
    core = parts.get("lokr_t2")
    if core is not None and "lokr_w2" in parts:
        raise InputError(
            f"{saved.label}: module {module!r} has lokr_w2 and lokr_t2, the whole and its core; save the adapter again"
        )
    halves, ranks = [], []
    for half in "12":
        if f"lokr_w{half}" in parts:
            whole = _required(saved, module, parts, f"lokr_w{half}")
            if half == "1" and whole.ndim > 2:
                raise InputError(
                    f"{saved.label}: lokr_w1 of {module!r} has shape {whole.shape}; only lokr_w2 holds a kernel"
                )
            halves.append(block(whole))
            continue
        a, b = (_required(saved, module, parts, f"lokr_w{half}_{side}") for side in "ab")
        if half == "2" and core is not None:
            halves.append(_tucker(saved, module, core, a.T, b))
        else:
            halves.append(_product(saved, module, a, b))
        ranks.append(halves[-1].rank)
    if len(set(ranks)) > 1:
        raise InputError(
            f"{saved.label}: the factors of {module!r} have ranks {ranks[0]} and {ranks[1]}; give one rank"
        )
    # Without a rank there is nothing to divide alpha by: LyCORIS multiplies by 1, whatever alpha says.
    rank = ranks[0] if ranks else 0
    shaped = next((parts[part] for part in ("lokr_t2", "lokr_w2", "lokr_w2_b") if part in parts), None)
    return _derived(saved, module, parts, kronecker(*halves), shaped, rank=rank)


_READERS: dict[str, Callable[[Saved, str, dict[str, Array]], Pair]] = {"lora_": _lora, "hada_": _loha, "lokr_": _lokr}


def _derived(
    saved: Saved, module: str, parts: dict[str, Array], factors: Factors, core: Array | None, rank: int | None = None
) -> Pair:
    """The pair of factors that are products; `core` has the kernel's shape, `rank` (0: none) is what divides alpha."""
    stored = [array for part, array in parts.items() if part not in ("alpha", "dora_scale")]
    one_float_type(saved, module, *stored)
    kernel = () if core is None else core.shape[2:]
    into = (factors.width // int(np.prod(kernel, dtype=int)), *kernel)
    divisor = factors.rank if rank is None else rank
    scale = _scale(saved, module, parts, divisor) if divisor else 1.0
    kind = "conv" if kernel else "linear"
    return Pair(module, factors, scale, kind, into, stored[0].dtype)


def _required(saved: Saved, module: str, parts: dict[str, Array], part: str) -> Array:
    array = parts.get(part)
    if array is None or array.ndim < 2 or 0 in array.shape:
        fault = f"no {part}" if array is None else f"a {part} of shape {array.shape}"
        raise InputError(f"{saved.label}: module {module!r} has {fault}; save the adapter again")
    return array


def _product(saved: Saved, module: str, a: Array, b: Array) -> Factors:
    if a.ndim != 2 or a.shape[1] != b.shape[0]:
        raise InputError(
            f"{saved.label}: the factors of {module!r} have shapes {a.shape} and {b.shape}; they do not fit"
        )
    return plain(a, b)


def _tucker(saved: Saved, module: str, core: Array, columns: Array, rows: Array) -> Factors:
    if columns.ndim != 2 or rows.ndim != 2 or core.shape[:2] != (columns.shape[1], rows.shape[0]):
        raise InputError(
            f"{saved.label}: the factors of {module!r} have shapes {columns.shape}, {core.shape} and {rows.shape}; "
            "they do not fit"
        )
    return tucker(core, columns, rows)
