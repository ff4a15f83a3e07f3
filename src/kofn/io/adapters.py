"""LoRA adapters as PEFT saves them: a folder of `adapter_config.json` and `adapter_model.safetensors`, read as pairs.

An adapter adds `scale * B @ A` to the weight of each module it targets. Its files express this in different ways:
`alpha / r` or `alpha / sqrt(r)` (rsLoRA), ranks and alphas by pattern, embeddings whose factors have names of their
own, convolutions. `Adapter` resolves all of that once, so that other code sees (A, B, scale).
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import FailureError, InputError, is_number
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint, Layout, Shard, from_torch, is_torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # of the saved names, before the module's own
_PICKLED = "adapter_model.bin"
_NAME = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?P<linear>[AB])\.(?P<what>weight|bias)|lora_embedding_(?P<embedding>[AB])"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?)"
)
# Starts that leave the base model as it was; the others (PiSSA, OLoRA, CorDA, LoftQ, ...) take part of it away.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
# Settings under which the adapter does more, or something else, than adding `scale * B @ A`.
_VARIANTS = {
    "use_qalora": "QA-LoRA pools its inputs",
    "alora_invocation_tokens": "activated LoRA acts only after its own tokens",
    "velora_config": "VeLoRA is not a plain pair of factors",
    "monteclora_config": "MonteCLoRA is not a plain pair of factors",
    "arrow_config": "an arrow router is not a sum of adapters",
    "target_parameters": "factors of bare parameters hold several experts in one",
}


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An adapter's update of one module: `scale * B @ A`.

    `A` is (r, in) or (r, in, kernel...), `B` (out, r) or (out, r, 1...), in the adapter's dtype; `kind` is "linear",
    "embedding" (A is (r, rows), B (width, r), the table gets the transpose), "conv" or "grouped conv". `bias` is that
    of B (`lora_bias`), `magnitude` DoRA's.
    """

    module: str
    A: Array
    B: Array
    scale: float
    kind: str
    bias: Array | None = None
    magnitude: Array | None = None

    @property
    def rank(self) -> int:
        return int(self.A.shape[0])

    def rows(self) -> Array:
        """A as a matrix (r, in)."""
        return self.A.reshape(self.rank, -1)

    def columns(self) -> Array:
        """B as a matrix (out, r)."""
        return self.B.reshape(self.B.shape[0], -1)

    def delta(self) -> NDArray[np.float64]:
        """The product `scale * B @ A` (out, in) in float64; a convolution's kernel is flattened into `in`."""
        product: NDArray[np.float64] = self.columns().astype(np.float64) @ self.rows().astype(np.float64)
        return product * self.scale


class Adapter(Mapping[str, Array]):
    """A LoRA adapter: a mapping name -> array of its tensors, with its configuration and its `pairs`.

    Args:
        tensors: name -> array (NumPy or torch) as PEFT saves them: `<module>.lora_A.weight` (r, in),
            `<module>.lora_B.weight` (out, r) and so on; other names are tensors trained in full (biases, heads).
        config: the settings of `adapter_config.json` that matter: `r`, `lora_alpha`, `use_rslora`, `rank_pattern`,
            `alpha_pattern`, ... Without a `lora_alpha` the scale is 1: the product is the update itself.
        label: its name in errors.
        path: its folder, if it has one.

    Raises:
        InputError: half a pair, shapes or ranks that do not fit, another kind of adapter, a NaN or infinity.

    >>> import numpy as np
    >>> adapter = Adapter({"fc.lora_A.weight": np.ones((2, 3)), "fc.lora_B.weight": np.ones((4, 2))}, {"lora_alpha": 8})
    >>> adapter.pairs["fc"].rank, adapter.pairs["fc"].scale
    (2, 4.0)
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        *,
        label: str = "the adapter",
        path: Path | None = None,
        raw: bytes | None = None,
        shard: Shard | None = None,
    ) -> None:
        self.label, self.path = label, path
        self.config: dict[str, Any] = dict(config or {})
        self._raw, self._shard = raw, shard
        self._tensors = {name: _hold(value, label, name) for name, value in tensors.items()}
        kind = self.config.get("peft_type", "LORA")
        if kind != "LORA":
            raise InputError(f"{label} is of type {kind!r}, not LORA; only LoRA adapters are pairs of factors")
        self.pairs: dict[str, Pair] = {}
        self.full: dict[str, Array] = {}
        self._pair_up()

    @classmethod
    def read(cls, path: str | os.PathLike[str], label: str | None = None) -> Adapter:
        """The adapter in a folder (or in a `*.safetensors` file beside its `adapter_config.json`)."""
        given = Path(path)
        label = label or f"adapter {os.fspath(path)}"
        folder = given if given.is_dir() else given.parent
        if not given.exists():
            raise InputError(f"{label}: {given} does not exist; check the path")
        if given.is_dir() and not (given / WEIGHTS).is_file():
            if (given / _PICKLED).is_file():
                raise InputError(f"{label}: {_PICKLED} is a pickle, which is not read; save it again as {WEIGHTS}")
            raise InputError(f"{label}: holds no {WEIGHTS}; give the folder that PEFT saved the adapter to")
        raw, config = _read_config(folder / CONFIG, label)
        checkpoint = Checkpoint.open(given / WEIGHTS if given.is_dir() else given)
        tensors = {name: tensor.array() for name, tensor in checkpoint.items()}
        return cls(tensors, config, label=label, path=folder, raw=raw, shard=checkpoint.layout.shards[0])

    def __getitem__(self, name: str) -> Array:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        ranks = sorted({pair.rank for pair in self.pairs.values()})
        span = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}..{ranks[-1]}"
        return f"Adapter({len(self.pairs)} modules of rank {span}, {len(self.full)} full tensors)"

    @property
    def size(self) -> int:
        """The number of values in its tensors."""
        return sum(array.size for array in self._tensors.values())

    def write(self, out: str | os.PathLike[str]) -> Path:
        """Write the folder, whole or not at all: configuration and tensors as they were read, if they were."""
        return write_adapter(out, self, self.config, raw=self._raw, shard=self._shard)

    def nonlinear(self) -> list[str]:
        """The reasons why this adapter is not a sum of `scale * B @ A` over an unchanged base; usually empty."""
        reasons = [why for name, why in _VARIANTS.items() if self.config.get(name)]
        if self.config.get("use_dora") or any(pair.magnitude is not None for pair in self.pairs.values()):
            reasons.append("DoRA rescales the rows of base + B @ A, which is not linear in the factors")
        start = self.config.get("init_lora_weights")
        if not any(start is plain or start == plain for plain in _PLAIN_STARTS):
            reasons.append(
                f"init_lora_weights={start!r} changed the base that it was trained on: convert it to plain LoRA first"
            )
        grouped = [pair.module for pair in self.pairs.values() if pair.kind == "grouped conv"]
        if grouped:
            reasons.append(f"{grouped[0]!r} is a grouped convolution, whose factors are several pairs in one")
        return reasons

    def _pair_up(self) -> None:
        halves: dict[str, dict[str, Array]] = {}
        for name, array in self._tensors.items():
            match = _NAME.fullmatch(name)
            if match is None:
                if ".lora_" in name or name.startswith("lora_"):
                    raise InputError(
                        f"{self.label}: tensor {name!r} is of no known LoRA form; give the names that PEFT saves, "
                        "such as 'layer.lora_A.weight'"
                    )
                # The bias of a module that is targeted is saved under another name than that of one that is not.
                self.full[name.replace(".base_layer.", ".")] = array
                continue
            parts = halves.setdefault(match["module"], {})
            if match["magnitude"]:
                parts["magnitude"] = array
            elif match["embedding"]:
                parts[match["embedding"]] = array
                parts["embedding"] = array
            else:
                parts[match["linear"] if match["what"] == "weight" else f"{match['linear']} bias"] = array
        if not halves:
            raise InputError(f"{self.label} holds no lora_A and lora_B; give LoRA adapters")
        for module, parts in halves.items():
            self.pairs[module] = self._pair(module, parts)

    def _pair(self, module: str, parts: dict[str, Array]) -> Pair:
        for half in "AB":
            if half not in parts:
                raise InputError(f"{self.label}: module {module!r} has no lora_{half}; save the adapter again")
        A, B = parts["A"], parts["B"]
        kind = "embedding" if "embedding" in parts else "linear" if A.ndim == 2 else "conv"
        fits = A.ndim == B.ndim >= 2 and B.shape[2:] == (1,) * (B.ndim - 2) and 0 not in (A.size, B.size)
        if fits and kind == "conv" and B.shape[1] < A.shape[0] and A.shape[0] % B.shape[1] == 0:
            kind = "grouped conv"
        elif not fits or A.shape[0] != B.shape[1]:
            raise InputError(
                f"{self.label}: the factors of {module!r} have shapes {A.shape} and {B.shape}; lora_A is (r, in) "
                "and lora_B (out, r)"
            )
        if A.dtype != B.dtype or A.dtype.kind in "iubc":
            raise InputError(
                f"{self.label}: the factors of {module!r} are {A.dtype} and {B.dtype}; give one float type"
            )
        return Pair(module, A, B, self._scale(module, A.shape[0]), kind, parts.get("B bias"), parts.get("magnitude"))

    def _scale(self, module: str, rank: int) -> float:
        name = module.removeprefix(PREFIX)
        configured = _by_pattern(self.config.get("rank_pattern"), name, self.config.get("r"))
        if configured is not None and configured != rank:
            raise InputError(
                f"{self.label}: {CONFIG} gives {module!r} the rank {configured}, its factors have {rank}; "
                "configuration and tensors are of different adapters"
            )
        alpha = _by_pattern(self.config.get("alpha_pattern"), name, self.config.get("lora_alpha"))
        if alpha is None:
            return 1.0
        if not is_number(alpha) or not math.isfinite(alpha):
            raise InputError(f"{self.label}: lora_alpha of {module!r} is {alpha!r}; give a finite number")
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def unwrapped(name: str) -> str:
    """The name that a saved tensor has in the base model: without what PEFT wraps around the modules it targets."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def is_adapter(path: Any) -> bool:
    """Whether `path` is a folder that PEFT saved an adapter to (its configuration or its tensors are there)."""
    if not isinstance(path, str | os.PathLike):
        return False
    return any((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS, _PICKLED))


def as_adapter(member: Any, label: str = "the adapter") -> Adapter:
    """An adapter from a folder, from a mapping of its tensors, or from an `Adapter` (which is given back)."""
    if isinstance(member, Adapter):
        return member
    if isinstance(member, str | os.PathLike):
        return Adapter.read(member, f"{label} ({os.fspath(member)})")
    if isinstance(member, Mapping):
        odd = next((name for name in member if not isinstance(name, str)), None)
        if odd is not None:
            raise InputError(f"{label} has a tensor named {odd!r}; names are text")
        return Adapter(member, label=label)
    raise InputError(
        f"{label} is {type(member).__name__}, no LoRA adapter; give folders, mappings of factors or Adapters"
    )


def lora_pairs(adapter: Any) -> dict[str, Pair]:
    """The low-rank pairs of a LoRA adapter: module -> (A, B, scale), with scalings, patterns and names resolved.

    Args:
        adapter: a folder as PEFT saves it, a mapping name -> array of the tensors in it, or an `Adapter`.

    Returns:
        A `Pair` a module, under the name its tensors have: the update of its weight is `pair.delta()`.

    Raises:
        InputError: not a LoRA adapter, or a damaged one.

    Time and memory: the adapter is read once. A DoRA adapter has pairs with a `magnitude`; `delta()` is not its update.

    >>> import numpy as np
    >>> pairs = lora_pairs({"fc.lora_A.weight": np.ones((1, 3)), "fc.lora_B.weight": np.full((2, 1), 2.0)})
    >>> pairs["fc"].delta().tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    return as_adapter(adapter).pairs


def patterns(ranks: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """The default rank, and the `rank_pattern` of the modules that differ, from which each module gets its own back."""
    counts: dict[int, int] = {}
    for rank in ranks.values():
        counts[rank] = counts.get(rank, 0) + 1
    usual = max(counts, key=lambda rank: (counts[rank], rank))
    names = {module.removeprefix(PREFIX): rank for module, rank in ranks.items()}
    pattern = {name: rank for name, rank in sorted(names.items()) if rank != usual}
    # A key also matches the end of a longer name, and its dots match anything; the first key that matches counts, and
    # files are saved with their keys sorted. Where that goes wrong, keys are anchored and spelt out.
    if all(_by_pattern(pattern, name, usual) == rank for name, rank in names.items()):
        return usual, pattern
    return usual, {"^" + re.escape(name): rank for name, rank in pattern.items()}


def write_adapter(
    out: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    config: Mapping[str, Any],
    *,
    raw: bytes | None = None,
    shard: Shard | None = None,
) -> Path:
    """Write an adapter's folder, whole or not at all; other files of an existing folder are kept.

    Args:
        out: the folder.
        tensors: name -> array.
        config: the content of `adapter_config.json`; `raw`, its bytes, takes precedence.
        shard: the order and metadata of the tensors' file; default as PEFT writes them.

    Raises:
        InputError: `out` cannot be a folder of an adapter.
        FailureError: the disk is full, or a write failed.
    """
    if os.fspath(out).endswith(".safetensors"):
        raise InputError(f"out={os.fspath(out)!r}: an adapter is a folder of {CONFIG} and {WEIGHTS}; name a folder")
    layout = (
        Layout.of_arrays(tensors, WEIGHTS).shards[0] if shard is None else Shard(WEIGHTS, shard.tensors, shard.metadata)
    )
    text = json.dumps(dict(config), indent=2, sort_keys=True).encode() if raw is None else raw
    with tempfile.TemporaryDirectory() as aside:
        settings = Path(aside) / CONFIG
        settings.write_bytes(text)
        with CheckpointWriter(out, Layout((layout,)), extras={CONFIG: settings}) as writer:
            for spec in layout.tensors:
                writer.write(spec.name, 0, tensors[spec.name])
    return Path(out)


def _by_pattern(pattern: Any, name: str, default: Any) -> Any:
    """The value of the first key that matches the name or its end after a dot, as PEFT looks it up."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default


def _read_config(path: Path, label: str) -> tuple[bytes, dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{label}: {CONFIG} is missing, which says how the factors are scaled; restore it")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FailureError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise FailureError(f"{path}: is not a JSON object; fetch it again")
    if config.get("peft_type", "LORA") == "LORA":
        for name in ("r", "lora_alpha"):
            if not is_number(config.get(name)):
                raise InputError(f"{label}: {CONFIG} has {name}={config.get(name)!r}; it must give a number")
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(name) or {}, dict):
            raise InputError(f"{label}: {CONFIG} has {name}={config[name]!r}; it must map module names to numbers")
        for key in config.get(name) or {}:
            try:
                re.compile(key)
            except re.error as error:
                raise InputError(f"{label}: {CONFIG} has {name} key {key!r}, no regular expression ({error})") from None
    return raw, config


def _hold(value: Any, label: str, name: str) -> Array:
    array = from_torch(value) if is_torch(value) else np.asarray(value)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    half = array.dtype.kind == "V" or array.dtype.name == "bfloat16" or array.dtype.name.startswith("float8")
    if array.dtype.kind not in "iubf" and not half:
        raise InputError(f"{label}: tensor {name!r} has dtype {array.dtype}; give real numbers of up to 64 bits")
    if array.dtype.kind not in "iub":
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(array.astype(np.float32) if half else array)
        if not finite.all():
            position = tuple(int(axis) for axis in np.argwhere(~finite)[0])
            fault = "NaN" if np.isnan(array[position].astype(np.float64)) else "infinite"
            raise InputError(f"{label}: tensor {name!r} at {position} is {fault}; leave that member out or repair it")
    return array
