"""Checkpoints in the safetensors format, read lazily by blocks (`kofn.io.tensor_writer` writes them).

A file is eight bytes (the header's length), a JSON header naming each tensor's type, shape and byte range, and the
bytes. A sharded checkpoint is a folder of such files and an index that says which file holds which tensor. Reading goes
through positioned reads into a caller's buffer and not through a memory map: resident memory is then the buffer,
whatever the size of the tensor, and a file that shrinks under us is an error message rather than a bus error.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from kofn.core.checks import DamagedFileError, FailureError, InputError, regular
from kofn.io.json_text import parsed

# In the order the reference implementation sorts tensors by (largest alignment last), so that a file written from
# arrays is byte for byte the file that implementation writes.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "C64": np.dtype("<c8"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
}
CODES: dict[np.dtype[Any], str] = {dtype: code for code, dtype in DTYPES.items()}
_ALIGNMENT = {code: rank for rank, code in enumerate(DTYPES)}
_MAX_HEADER = 100 << 20  # the reference implementation refuses longer ones
# What a system answers that does not copy between these two files: they are then read and written.
_NO_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY, errno.EBADF}
INDEX_SUFFIX = ".safetensors.index.json"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


class _File:
    """One open file; closed when the last tensor that reads from it is gone."""

    __slots__ = ("fd", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        regular(path)
        try:
            self.fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; check the path") from error
        except OSError as error:
            hint = "; raise `ulimit -n`" if error.errno == errno.EMFILE else ""
            raise FailureError(f"{path}: cannot be opened: {error.strerror}{hint}") from error

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # `close` is bound, because modules are emptied before what they hold is let go when the interpreter ends.
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path.absolute(), os.fstat(self.fd).st_size)

    def read_into(self, buffer: np.ndarray, offset: int) -> None:
        view = buffer.data
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self.fd, [view[done:]], offset + done)
            except OSError as error:
                raise FailureError(f"{self.path}: reading byte {offset + done} failed: {error.strerror}") from error
            if got == 0:
                raise FailureError(
                    f"{self.path}: ends at byte {offset + done}, {len(view) - done} bytes short; the file shrank while "
                    "it was being read: run again on a file nobody is writing"
                )
            done += got

    def copy_into(self, fd: int, target: int, offset: int, nbytes: int) -> bool:
        """Copy bytes from `offset` on to another file, at `target`, within the system; False where it cannot."""
        if not hasattr(os, "copy_file_range"):
            return False
        done = 0
        while done < nbytes:
            try:
                got = os.copy_file_range(self.fd, fd, nbytes - done, offset + done, target + done)
            except OSError as error:
                if error.errno in _NO_COPY:
                    return False
                raise
            if got == 0:  # the end of the file, or a file system that says nothing more: reading says which
                return False
            done += got
        return True


def _reopened(path: Path, size: int) -> _File:
    """The same file in another process, perhaps on another machine."""
    file = _File(path)
    if (there := os.fstat(file.fd).st_size) != size:
        raise FailureError(
            f"{path} has {there:,} bytes on node {socket.gethostname()}, and {size:,} where it was opened; run again "
            "on files that all nodes share and nobody writes"
        )
    return file


class LazyTensor:
    """A tensor in a file: its name, dtype and shape are known, its values are read when asked for, block by block."""

    __slots__ = ("_file", "_offset", "dtype", "name", "shape", "size")

    def __init__(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], file: _File, offset: int) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape
        self.size = _size(shape)
        self._file, self._offset = file, offset

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def path(self) -> Path:
        return self._file.path

    def read(self, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Elements `start:stop` of the flattened tensor, in the tensor's dtype.

        `out`, a contiguous uint8 buffer of enough bytes, receives them; the array returned is then a view of it and
        nothing is allocated. Raises FailureError if the file can no longer be read.
        """
        stop = self.size if stop is None else stop
        if not 0 <= start <= stop <= self.size:
            raise InputError(f"tensor {self.name!r} has {self.size} elements, {start}:{stop} is not a block of them")
        nbytes = (stop - start) * self.dtype.itemsize
        raw = np.empty(nbytes, np.uint8) if out is None else out[:nbytes]
        self._file.read_into(raw, self._offset + start * self.dtype.itemsize)
        return raw.view(self.dtype)

    def copy_into(self, fd: int, target: int, start: int, stop: int) -> bool:
        """Copy elements `start:stop` to another file, at byte `target`, within the system; False where it cannot."""
        size = self.dtype.itemsize
        return self._file.copy_into(fd, target, self._offset + start * size, (stop - start) * size)

    def array(self) -> np.ndarray:
        """The whole tensor, read now."""
        return self.read().reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"tensor {self.name!r} lies in a file: it cannot become an array without a copy")
        array = self.array()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"LazyTensor({self.name!r}, {self.dtype.name}, {self.shape}, {self.path.name})"


class LazyArrays(Mapping[str, np.ndarray]):
    """A mapping name -> array whose values are computed (or read) on access and not kept.

    `path` is the file or folder that they are read from, None where they are computed.
    """

    def __init__(
        self, names: Iterable[str], compute: Callable[[str], np.ndarray], path: str | os.PathLike[str] | None = None
    ) -> None:
        self._names = dict.fromkeys(names)
        self._compute = compute
        self.path = path

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"LazyArrays({len(self)} tensors)"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's entry in the header of a file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return _size(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a checkpoint: its name, its tensors in file order, its metadata."""

    file_name: str
    tensors: tuple[TensorSpec, ...]
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a checkpoint: its shards, and the name and metadata of its index (None for a single file)."""

    shards: tuple[Shard, ...]
    index_name: str | None = None
    index_metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for shard in self.shards for tensor in shard.tensors)

    @classmethod
    def of_arrays(
        cls,
        arrays: Mapping[str, Any],
        file_name: str = "model.safetensors",
        metadata: Mapping[str, str] | None = None,
    ) -> Layout:
        """One file for tensors in memory, in the order the reference implementation writes them."""
        specs = []
        for name, array in arrays.items():
            dtype = np.dtype(array.dtype)
            if dtype.byteorder == ">":
                dtype = dtype.newbyteorder("<")
            if dtype not in CODES:
                raise InputError(
                    f"tensor {name!r} is {dtype}, which safetensors cannot hold; cast it to one of: "
                    + ", ".join(sorted({known.name for known in CODES}))
                )
            specs.append(TensorSpec(name, dtype, tuple(array.shape)))
        specs.sort(key=lambda spec: (-_ALIGNMENT[CODES[spec.dtype]], spec.name))
        return cls((Shard(file_name, tuple(specs), {"format": "pt", **(metadata or {})}),))

    def retyped(self, tensors: Mapping[str, Any]) -> Layout:
        """The same files with some tensors of other shapes and dtypes."""
        shards = tuple(
            Shard(
                shard.file_name,
                tuple(
                    TensorSpec(spec.name, tensors[spec.name].dtype, tensors[spec.name].shape)
                    if spec.name in tensors
                    else spec
                    for spec in shard.tensors
                ),
                shard.metadata,
            )
            for shard in self.shards
        )
        metadata = {key: value for key, value in self.index_metadata.items() if key != "total_size"}
        return Layout(shards, self.index_name, metadata)

    def restricted(self, names: Container[str], *, without_metadata: str | None = None) -> Layout:
        """The same files with these tensors only, and without one entry of the files' metadata."""
        shards = tuple(
            Shard(
                shard.file_name,
                tuple(spec for spec in shard.tensors if spec.name in names),
                {key: value for key, value in shard.metadata.items() if key != without_metadata},
            )
            for shard in self.shards
            if any(spec.name in names for spec in shard.tensors)
        )
        metadata = {key: value for key, value in self.index_metadata.items() if key != "total_size"}
        return Layout(shards, self.index_name, metadata)

    def extended(self, tensors: Mapping[str, Any]) -> Layout:
        """The same files with further tensors in the last."""
        if not tensors:
            return self
        *shards, last = self.shards
        specs = tuple(TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items())
        metadata = {key: value for key, value in self.index_metadata.items() if key != "total_size"}
        whole = Shard(last.file_name, (*last.tensors, *specs), last.metadata)
        return Layout((*shards, whole), self.index_name, metadata)

    def as_single_file(self) -> Layout:
        """The same tensors in one file, shard after shard."""
        tensors = tuple(tensor for shard in self.shards for tensor in shard.tensors)
        return Layout((Shard("model.safetensors", tensors, self.shards[0].metadata if self.shards else {}),))


class Checkpoint(Mapping[str, LazyTensor]):
    """A checkpoint on disk as an ordered mapping name -> `LazyTensor`; opening it reads headers only.

    `Checkpoint.open(path)` takes a `*.safetensors` file, an `*.safetensors.index.json` file, or a folder that holds
    either `model.safetensors`, one index with its shards, or exactly one safetensors file. A path that is not a
    checkpoint is an InputError; a damaged one (truncated, a shard missing, index and shards at odds, a tensor twice) is
    a FailureError; both name the file, the tensor and what to do. Costs one small read for each shard.

    >>> import tempfile, numpy as np, safetensors.numpy
    >>> folder = tempfile.mkdtemp()
    >>> safetensors.numpy.save_file({"w": np.arange(6.0).reshape(2, 3)}, folder + "/model.safetensors")
    >>> checkpoint = Checkpoint.open(folder)
    >>> checkpoint["w"].shape, checkpoint["w"].read(2, 4).tolist()
    ((2, 3), [2.0, 3.0])
    """

    def __init__(
        self, path: Path, layout: Layout, tensors: dict[str, LazyTensor], beside: frozenset[Path] = frozenset()
    ) -> None:
        self.path, self.layout, self._tensors, self._beside = path, layout, tensors, beside

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Checkpoint:
        path = Path(path)
        target = _resolve(path)
        if target.name.endswith(INDEX_SUFFIX):
            return cls._open_index(path, target)
        shard, tensors = _read_header(target)
        return cls(path, Layout((shard,)), tensors)

    @classmethod
    def _open_index(cls, path: Path, index: Path) -> Checkpoint:
        weight_map, metadata = read_index(index)
        shards: list[Shard] = []
        tensors: dict[str, LazyTensor] = {}
        for file_name in sorted(set(weight_map.values())):
            named = [name for name, shard_name in weight_map.items() if shard_name == file_name]
            if not (index.parent / file_name).is_file():
                raise DamagedFileError(
                    f"{index}: shard {file_name!r} is missing (it should hold {len(named)} tensors, "
                    f"{named[0]!r} first); fetch the file again into {index.parent}"
                )
            shard, in_shard = _read_header(index.parent / file_name)
            for name in named:
                if name not in in_shard:
                    raise DamagedFileError(
                        f"{index}: tensor {name!r} should be in {file_name!r} and is not there; "
                        "index and shards are of different versions: fetch both again"
                    )
            for name in in_shard:
                if name in tensors:
                    raise DamagedFileError(
                        f"{path}: tensor {name!r} is in both {tensors[name].path.name!r} and "
                        f"{file_name!r}; keep one of them and correct {index.name}"
                    )
            shards.append(shard)
            tensors.update(in_shard)
        return cls(path, Layout(tuple(shards), index.name, metadata), tensors)

    def extended(self, tensors: Mapping[str, LazyTensor]) -> Checkpoint:
        """The checkpoint with tensors of other files, which an output holds in its last shard."""
        return Checkpoint(self.path, self.layout.extended(tensors), {**self._tensors, **tensors}, self._beside)

    def replaced(self, tensors: Mapping[str, Any], dropped: Container[str]) -> Checkpoint:
        """The checkpoint with some tensors read in another way, and without the `dropped` ones; the layout stays."""
        kept = {name: tensors.get(name, tensor) for name, tensor in self._tensors.items() if name not in dropped}
        return Checkpoint(self.path, self.layout, kept, self.files)

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}: {len(self)} tensors, {self.layout.nbytes:,} bytes)"

    def arrays(self) -> LazyArrays:
        """The checkpoint as a mapping name -> array, each read on access."""
        return LazyArrays(self, lambda name: self[name].array(), self.path)

    @property
    def files(self) -> frozenset[Path]:
        """The files that this checkpoint reads from."""
        return self._beside | {path.resolve() for path in {tensor.path for tensor in self._tensors.values()}}

    def is_at(self, path: Path) -> bool:
        """Whether writing to `path` would replace a file this checkpoint reads from."""
        files, target = self.files, path.resolve()
        return target in files or (target.is_dir() and any(file.parent == target for file in files))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:  # Python integers: a header's shape may overflow int64
        size *= extent
    return size


def _resolve(path: Path) -> Path:
    """The single file, or the index file, that `path` stands for."""
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a text too long for a name, or no text of a name
        exists = False
    if not exists:
        raise InputError(f"{str(path)[:200]}: no such file or folder; check the path")
    if not path.is_dir():
        if path.name.endswith((".safetensors", INDEX_SUFFIX)):
            return path
        if path.suffix.lower() in _PICKLES:
            raise InputError(f"{path} is a pickle, which is not read; {converting(path.name)}")
        raise InputError(
            f"{path}: not a *.safetensors file, an *{INDEX_SUFFIX} file or a folder of them; convert it first"
        )
    files = sorted(path.glob("*.safetensors"))
    indexes = sorted(path.glob("*" + INDEX_SUFFIX))
    single = path / "model.safetensors"
    if len(indexes) > 1 or (indexes and single in files):
        names = ", ".join(repr(file.name) for file in [*indexes, *([single] if single in files else [])])
        raise InputError(f"{path}: holds more than one checkpoint ({names}); pass the path of the one you mean")
    if indexes:
        return indexes[0]
    if single in files:
        return single
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(
            f"{path}: holds {len(files)} safetensors files and no index; pass one file, or restore model{INDEX_SUFFIX}"
        )
    pickled = path / "pytorch_model.bin"
    if pickled.is_file():
        raise InputError(f"{path}: {pickled.name} is a pickle, which is not read; {converting(pickled.name)}")
    raise InputError(f"{path}: holds no *.safetensors file; pass the folder or file of a checkpoint")


def converting(name: str) -> str:
    """How to convert a pickle of that name into safetensors."""
    wanted = {"pytorch_model.bin": "model"}.get(name, name.rpartition(".")[0])
    return (
        f"convert it: safetensors.torch.save_file(torch.load({name!r}, map_location='cpu', weights_only=True), "
        f"'{wanted}.safetensors'); if torch.load refuses it, it is no state dict but a whole module or a checkpoint of "
        f"training: safetensors.torch.save_model(model, '{wanted}.safetensors') where the model is built, or save_file "
        "of its model.state_dict()"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} is there twice")
    return names


def read_index(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The map from tensor to shard and the metadata of an index file."""
    regular(path)
    try:
        content = parsed(path.read_text(encoding="utf-8-sig"), _unique)
    except ValueError as error:
        raise DamagedFileError(f"{path}: not a readable index ({error}); fetch it again") from error
    except OSError as error:
        raise FailureError(f"{path}: cannot be read: {error.strerror}") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedFileError(f"{path}: has no weight_map from tensor to shard; fetch the index again")
    for name, file_name in weight_map.items():
        # An index is somebody else's file: a shard name must not lead out of its folder.
        if (
            not isinstance(file_name, str)
            or Path(file_name).name != file_name
            or not file_name.endswith(".safetensors")
        ):
            raise DamagedFileError(
                f"{path}: tensor {name!r} is said to be in {file_name!r}, which is not the name of a "
                "*.safetensors file beside the index; fetch the index again"
            )
    metadata = content.get("metadata")
    return weight_map, metadata if isinstance(metadata, dict) else {}


def _read_header(path: Path) -> tuple[Shard, dict[str, LazyTensor]]:
    """Reads and checks one file's header: every tensor's range against its shape, its neighbours and the file's end."""
    file = _File(path)
    length = os.fstat(file.fd).st_size
    if length < 8:
        raise DamagedFileError(f"{path}: {length} bytes long, too short for a safetensors header; fetch the file again")
    start = np.empty(8, np.uint8)
    file.read_into(start, 0)
    header_length = int(start.view("<u8")[0])
    if header_length > _MAX_HEADER:
        raise DamagedFileError(
            f"{path}: its first 8 bytes ask for a header of {header_length} bytes; not a safetensors file"
        )
    if header_length > length - 8:
        raise DamagedFileError(
            f"{path}: truncated inside its header ({length} of at least {header_length + 8} bytes); "
            "fetch the file again"
        )
    raw = np.empty(header_length, np.uint8)
    file.read_into(raw, 8)
    try:
        header = parsed(raw.tobytes().decode("utf-8"), _unique)
    except ValueError as error:
        raise DamagedFileError(f"{path}: its header is not valid ({error}); fetch the file again") from error
    if not isinstance(header, dict):
        raise DamagedFileError(f"{path}: its header is not a JSON object; not a safetensors file")
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata  # MLX writes null
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedFileError(f"{path}: __metadata__ must map text to text; write the file again")
    entries = sorted((_entry(path, name, item) for name, item in header.items()), key=lambda entry: entry[1:])
    data = 8 + header_length
    end, before = 0, "the header"
    tensors: dict[str, LazyTensor] = {}
    for spec, begin, stop in entries:
        if begin != end:
            fault = "overlaps" if begin < end else f"leaves {begin - end} unused bytes after"
            raise DamagedFileError(
                f"{path}: tensor {spec.name!r} {fault} {before}; the header is damaged: fetch the file again"
            )
        if data + stop > length:
            raise DamagedFileError(
                f"{path}: truncated: tensor {spec.name!r} ends at byte {data + stop} and the file at "
                f"{length}; fetch the file again"
            )
        tensors[spec.name] = LazyTensor(spec.name, spec.dtype, spec.shape, file, data + begin)
        end, before = stop, f"tensor {spec.name!r}"
    if data + end != length:
        raise DamagedFileError(
            f"{path}: {length - data - end} bytes after the last tensor belong to none; fetch the file again"
        )
    return Shard(path.name, tuple(entry[0] for entry in entries), metadata), tensors


def _entry(path: Path, name: str, item: Any) -> tuple[TensorSpec, int, int]:
    try:
        code, shape, (begin, stop) = item["dtype"], item["shape"], item["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise DamagedFileError(
            f"{path}: tensor {name!r} lacks its dtype, shape or data_offsets; fetch the file again"
        ) from error
    if not isinstance(code, str) or code not in DTYPES:
        raise InputError(
            f"{path}: tensor {name!r} is of type {code!r}, which is not supported; convert it to one of: "
            + ", ".join(DTYPES)
        )
    numbers = [*shape, begin, stop] if isinstance(shape, list) else [None]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise DamagedFileError(
            f"{path}: tensor {name!r} has a shape or offsets that are not whole numbers >= 0; fetch the file again"
        )
    spec = TensorSpec(name, DTYPES[code], tuple(shape))
    if stop - begin != spec.nbytes:
        raise DamagedFileError(
            f"{path}: tensor {name!r} of shape {spec.shape} and type {code} takes {spec.nbytes} bytes, its "
            f"offsets give {stop - begin}; fetch the file again"
        )
    return spec, begin, stop


def header_bytes(shard: Shard) -> bytes:
    """The header of a file, as the reference implementation writes it (compact JSON, padded to eight bytes)."""
    # Loaders of several years refuse a file that does not say so.
    header: dict[str, Any] = {"__metadata__": dict(sorted({"format": "pt", **shard.metadata}.items()))}
    end = 0
    for spec in shard.tensors:
        header[spec.name] = {
            "dtype": CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.nbytes],
        }
        end += spec.nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
