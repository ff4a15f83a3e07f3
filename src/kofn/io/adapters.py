"""LoRA adapters of every trainer: a folder, a file or a mapping of tensors, read as pairs of factors.

An adapter adds `scale * B @ A` to the weight of each module it targets. Trainers express this in different ways: names,
transposed factors, scales in configurations, tensors or metadata, products of products (`kofn.io.adapter_families` has
one file a trainer). `Adapter` resolves all of that once, so that other code sees (A, B, scale).
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import DamagedFileError, FailureError, InputError, KofnError
from kofn.io.adapter_families import (
    CONFIG,
    DIFFERENCES,
    DORA,
    FAMILIES,
    PEFT,
    ROWS,
    Family,
    Parts,
    Saved,
    family_of,
    is_trained,
)
from kofn.io.json_text import parsed
from kofn.io.low_rank import Pair
from kofn.io.module_names import without_torch_wrappers
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import INDEX_SUFFIX, Checkpoint, Layout, Shard, converting
from kofn.io.torch_arrays import from_torch, is_torch

WEIGHTS = PEFT.weights
# What PEFT and torchtune save with pickle.
_PICKLED = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_0.pt", "adapter.pt", "adapter.bin")
# The tensors' file in a folder that holds several, in the order in which they are looked for.
_FILES = tuple(dict.fromkeys(family.weights for family in FAMILIES))


class Adapter(Mapping[str, Array]):
    """A LoRA adapter: a mapping name -> array of its tensors, with its configuration and its `pairs`.

    Args:
        tensors: name -> array (NumPy or torch) as their trainer saves them, whose family the names tell: PEFT's
            `<module>.lora_A.weight` (r, in) and `<module>.lora_B.weight` (out, r), kohya's `lora_down` and `lora_up`,
            diffusers', torchtune's, MLX's, or LoHa and LoKr of LyCORIS or PEFT. PEFT's other names are tensors trained
            in full (biases, heads).
        config: the settings of `adapter_config.json` that matter (PEFT, torchtune, MLX): `r`, `lora_alpha`,
            `use_rslora`, `rank_pattern`, `lora_parameters`, ... Without them the scale is 1: the product is the update.
        label: its name in errors.
        path: its folder or file, if it has one.

    Attributes:
        family: how it is saved; `family.name` is "PEFT", "kohya", "LyCORIS", "diffusers", "torchtune" or "MLX".
        pairs: module -> `Pair`.
        full: name -> tensor that is trained in full.
        rows: name -> numbers of single rows (tokens) that are trained in full, and their values.
        differences: name -> what is added to that tensor as it is (`diff` and `w_norm` of LyCORIS).

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
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.label, self.path = label, path
        self._raw, self._shard = raw, shard
        self.config: dict[str, Any] = dict(config or {})
        if metadata is None:
            metadata = {} if shard is None else shard.metadata
        arrays = {name: _hold(value, label, name) for name, value in tensors.items()}
        self.saved = Saved(arrays, self.config, metadata, label)
        self.family: Family = family_of(self.saved) or PEFT
        parts = self.family.read(_without_wrappers(self.saved))
        self.pairs, self.full, self.spellings, self.rows = parts.pairs, parts.full, parts.spellings, parts.rows
        self.differences = parts.differences

    @classmethod
    def read(cls, path: str | os.PathLike[str], label: str | None = None) -> Adapter:
        """The adapter in a folder, or in a `*.safetensors` file (beside its `adapter_config.json`, if it has one)."""
        given = Path(path)
        label = label or f"adapter {os.fspath(path)}"
        if not given.exists():
            raise InputError(f"{label}: {given} does not exist; check the path")
        file = adapter_file(given, label)
        raw, config = _read_config(file.parent / CONFIG)
        checkpoint = Checkpoint.open(file)
        shard = checkpoint.layout.shards[0]
        family = family_of(Saved(dict.fromkeys(checkpoint, np.empty(0)), config, shard.metadata, label)) or PEFT
        if family.configured and raw is None:
            raise InputError(f"{label}: {CONFIG} is missing, which says how the factors are scaled; restore it")
        if family.configured:
            family.check_config(config, label)
        else:
            raw, config = None, {}
        tensors = {name: tensor.array() for name, tensor in checkpoint.items()}
        path_of = file.parent if family.configured else given
        return cls(tensors, config, label=label, path=path_of, raw=raw, shard=shard)

    @classmethod
    def of(cls, family: Family, parts: Parts, members: Sequence[Adapter], label: str = "the sum") -> Adapter:
        """The adapter of pairs of scale 1, as the family saves it; other settings are those of the members."""
        saved = family.write(parts, [member.saved for member in members] or [Saved({})])
        return cls(saved.tensors, saved.config, metadata=saved.metadata, label=label)

    def __getitem__(self, name: str) -> Array:
        return self.saved.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.saved.tensors)

    def __len__(self) -> int:
        return len(self.saved.tensors)

    def __repr__(self) -> str:
        full = f", {len(self.full)} full tensors" if self.family is PEFT else f" by {self.family.name}"
        return f"Adapter({len(self.pairs)} modules of rank {self.facts()['rank']}{full})"

    @property
    def size(self) -> int:
        """The number of values in its tensors."""
        return sum(array.size for array in self.saved.tensors.values())

    def facts(self, modules: Container[str] | None = None) -> dict[str, Any]:
        """Its family, its number of modules, and their ranks and scales ("2", or "2..16" where they differ).

        Where some `modules` only are meant, "of" is how many there are. "full" counts tensors that are trained in
        full, "differences" those to which something is added as it is.
        """
        pairs = [pair for module, pair in self.pairs.items() if modules is None or module in modules]
        ranks = [pair.rank // pair.experts for pair in pairs]
        scales = [pair.scale for pair in pairs]
        return {
            "family": self.family.name,
            "modules": len(pairs),
            **({} if len(pairs) == len(self.pairs) else {"of": len(self.pairs)}),
            "rank": _span(ranks),
            "scale": _span(scales),
            **({"full": len(self.full)} if self.full else {}),
            **({"differences": len(self.differences)} if self.differences else {}),
        }

    def with_pairs(self, pairs: Mapping[str, Pair]) -> Adapter:
        """The same adapter with other names or kernels of its modules in `pairs`; its tensors stay as they are."""
        if all(pair is self.pairs.get(module) for module, pair in pairs.items()):
            return self
        out = copy.copy(self)
        out.pairs = {pair.module: pair for pair in pairs.values()}
        out.spellings = {module: names for module, names in self.spellings.items() if module in out.pairs}
        return out

    def write(self, out: str | os.PathLike[str]) -> Path:
        """Write the folder or file, whole or not at all: configuration and tensors as they were read, if they were."""
        return _write_adapter(out, self, self._raw, self._shard)

    def nonlinear(self) -> list[str]:
        """The reasons why this adapter is not a sum of `scale * B @ A` over an unchanged base; usually empty."""
        reasons = self.family.nonlinear(self.saved)
        if DORA not in reasons and any(pair.magnitude is not None for pair in self.pairs.values()):
            reasons.append(DORA)
        reasons += [ROWS] if self.rows else []
        reasons += [DIFFERENCES] if self.differences else []
        grouped = [pair.module for pair in self.pairs.values() if pair.kind == "grouped conv"]
        if grouped:
            reasons.append(f"{grouped[0]!r} is a grouped convolution, whose factors are several pairs in one")
        return reasons


def _without_wrappers(saved: Saved) -> Saved:
    """The adapter under its modules' own names, where it was saved from a model that torch has wrapped."""
    named = {without_torch_wrappers(name): array for name, array in saved.tensors.items()}
    if len(named) < len(saved.tensors):
        raise InputError(f"{saved.label} holds a module twice, as it is and wrapped by torch; save the adapter again")
    return saved if named.keys() == saved.tensors.keys() else replace(saved, tensors=named)


def is_adapter(path: Any) -> bool:
    """Whether `path` is a folder or a file of an adapter: by its configuration, or by the names of its tensors."""
    if not isinstance(path, str | os.PathLike):
        return False
    given = Path(path)
    if any((given / name).is_file() for name in (CONFIG, *_PICKLED, *_FILES)):
        return True
    files = list(given.glob("*.safetensors")) if given.is_dir() else [given]
    if len(files) != 1 or files[0].suffix != ".safetensors":
        return False
    try:
        checkpoint = Checkpoint.open(files[0])
    except KofnError:  # whoever opens it says what is wrong with it
        return False
    return is_trained(Saved(dict.fromkeys(checkpoint, np.empty(0)), {}, checkpoint.layout.shards[0].metadata))


def model_beside(path: str | os.PathLike[str]) -> Path | None:
    """The file of a whole model in the folder of an adapter, where torchtune saves both; None without one."""
    folder = Path(path)
    known = (*sorted(folder.glob(f"*{INDEX_SUFFIX}")), folder / "model.safetensors") if folder.is_dir() else ()
    return next((file for file in known if file.is_file()), None)


def as_adapter(member: Any, label: str = "the adapter") -> Adapter:
    """An adapter from a folder or file, from a mapping of its tensors, or from an `Adapter` (which is given back)."""
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
        adapter: a folder or file as PEFT, kohya, diffusers, torchtune, MLX or LyCORIS saves it, a mapping name -> array
            of the tensors in it, or an `Adapter`.

    Returns:
        A `Pair` a module, under the name its tensors have: the update of its weight is `pair.delta()`.

    Raises:
        InputError: not a LoRA adapter, or a damaged one.

    Time and memory: the adapter is read once; factors of LoHa and LoKr are multiplied out on each use. A DoRA adapter
    has pairs with a `magnitude`; `delta()` is not its update.

    >>> import numpy as np
    >>> pairs = lora_pairs({"fc.lora_A.weight": np.ones((1, 3)), "fc.lora_B.weight": np.full((2, 1), 2.0)})
    >>> pairs["fc"].delta().tolist()
    [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    return as_adapter(adapter).pairs


def _write_adapter(out: str | os.PathLike[str], adapter: Adapter, raw: bytes | None, shard: Shard | None) -> Path:
    """Write an adapter's folder or file, whole or not at all; other files of an existing folder are kept.

    Args:
        out: the folder, or a `.safetensors` file for a family without a configuration.
        adapter: its tensors and configuration.
        raw: bytes of its configuration, which take precedence.
        shard: the order and metadata of the tensors' file; default as the reference implementation writes them.

    Raises:
        InputError: `out` cannot be one of such an adapter.
        FailureError: the disk is full, or a write failed.
    """
    family, tensors = adapter.family, adapter.saved.tensors
    if family.configured and os.fspath(out).endswith(".safetensors"):
        raise InputError(
            f"out={os.fspath(out)!r}: an adapter is a folder of {CONFIG} and {family.weights} in {family.name}; name a "
            "folder"
        )
    if shard is None:
        shard = Layout.of_arrays(tensors, family.weights, adapter.saved.metadata).shards[0]
    elif family.configured:
        shard = Shard(family.weights, shard.tensors, shard.metadata)
    with tempfile.TemporaryDirectory() as aside:
        extras = {}
        if family.configured:
            text = json.dumps(adapter.config, indent=2, sort_keys=True).encode() if raw is None else raw
            extras[CONFIG] = Path(aside) / CONFIG
            extras[CONFIG].write_bytes(text)
        with CheckpointWriter(out, Layout((shard,)), extras=extras) as writer:
            for spec in shard.tensors:
                writer.write(spec.name, 0, tensors[spec.name])
    return Path(out)


def adapter_file(given: Path, label: str) -> Path:
    """The tensors' file that a path stands for.

    Raises:
        InputError: pickled tensors, none, or several files of which any may be meant.
    """
    if not given.is_dir():
        return given
    for name in _FILES:
        if (given / name).is_file():
            return given / name
    for name in _PICKLED:
        if (given / name).is_file():
            raise InputError(f"{label}: {name} is a pickle, which is not read; {converting(name)}")
    files = list(given.glob("*.safetensors"))
    if len(files) != 1 or (given / CONFIG).is_file():
        raise InputError(f"{label}: holds no {WEIGHTS}; give the folder that PEFT saved the adapter to, or one file")
    return files[0]


def _span(values: Sequence[float]) -> str:
    if not values:
        return "none"
    low, high = f"{min(values):g}", f"{max(values):g}"
    return low if low == high else f"{low}..{high}"


def _read_config(path: Path) -> tuple[bytes | None, dict[str, Any]]:
    """The bytes and the content of a configuration, None and nothing where there is none."""
    if not path.is_file():
        return None, {}
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        config = parsed(raw.decode("utf-8-sig"))
    except ValueError as error:
        raise DamagedFileError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise DamagedFileError(f"{path}: is not a JSON object; fetch it again")
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
