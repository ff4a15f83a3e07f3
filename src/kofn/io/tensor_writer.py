"""Writes checkpoints in the safetensors format: block by block, from any thread, put in place whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from kofn.core.checks import FailureError, InputError, regular
from kofn.io.atomic import _sync
from kofn.io.tensors import INDEX_SUFFIX, Layout, LazyTensor, Shard, TensorSpec, header_bytes, read_index

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WRITE_BLOCK = 8 << 20
_SEND_BLOCK = 64 << 20  # bytes after which the disk is set to work, so that the last sync finds little left to do
_JOURNAL = "journal.jsonl"
# Endings of files of other kinds: a folder of such a name is not what was asked for.
OTHER_FILES = frozenset({".bin", ".ckpt", ".csv", ".gguf", ".h5", ".json", ".npz", ".onnx", ".pkl", ".pt", ".pth"})


class CheckpointWriter:
    """Writes a checkpoint of known layout in any order and from any thread, and puts it in place whole, or not at all.

    `out` ending in `.safetensors` is one file; anything else is a folder, with the shards and the index of `layout`.
    Everything is written into a hidden folder beside `out`; leaving the `with` block without an error syncs it and
    moves it into place in one step, an error removes it, and a killed process leaves the old output as it was (its
    hidden folder is removed by the next run on the same `out`). Other files of an existing output folder (a tokenizer,
    a configuration) are kept; `extras` (name -> path, or content) are put into a folder beside the shards
    (`1_Pooling/config.json` into a folder in it).

    With a `job`, a digest of the output, an interrupted or killed run can be continued: `note(line)` records progress
    that is safe on disk, and a later writer of the same job finds these lines in `resumed` and the tensors as written.
    Other processes may write parts (`kofn.io.tensor_parts`) into the hidden `folder`.
    Raises InputError if `out` cannot be an output, FailureError if the disk is full or a write fails.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        layout: Layout,
        *,
        job: str | None = None,
        extras: Mapping[str, Path | bytes] | None = None,
    ) -> None:
        self.out = Path(os.path.realpath(out))
        self.single = self.out.name.endswith(".safetensors")
        self.layout = layout.as_single_file() if self.single and len(layout.shards) != 1 else layout
        if self.single:
            self.layout = Layout((Shard(self.out.name, self.layout.shards[0].tensors, self.layout.shards[0].metadata),))
        self._lock = threading.Lock()
        self._positions: dict[str, tuple[int, int, TensorSpec]] = {}
        self._missing: dict[str, int] = {}
        self._fds: list[int] = []
        self._unsent = 0
        self._claim: int | None = None
        self.job, self.extras = job, dict(extras or {})
        self.resumed: list[str] = []
        self._journal = -1
        name = f".{self.out.name}.kofn-" + (f"{os.getpid()}-{secrets.token_hex(4)}" if job is None else f"job-{job}")
        self.folder = self.out.parent / name
        self._check_target()

    def _check_target(self) -> None:
        parent = self.out.parent
        if not parent.is_dir():
            raise InputError(f"out={str(self.out)!r}: the folder {parent} does not exist; create it first")
        if self.single and self.out.is_dir():
            raise InputError(
                f"out={str(self.out)!r} is a folder; name a file, or a folder without the .safetensors ending"
            )
        if self.out.suffix.lower() in OTHER_FILES and not self.out.is_dir():
            raise InputError(
                f"out={str(self.out)!r}: checkpoints are safetensors; name a .safetensors file or a folder"
            )
        if not self.single and self.out.exists() and not self.out.is_dir():
            raise InputError(f"out={str(self.out)!r} is a file that does not end in .safetensors; name another path")
        if self.single or not self.out.exists():
            return
        if os.path.ismount(self.out):
            raise InputError(
                f"out={str(self.out)!r} is a mount point, which cannot be replaced; name a folder inside it"
            )
        foreign = sorted(_checkpoint_files(self.out) - _own_files(self.out) - {s.file_name for s in self.layout.shards})
        if foreign:
            raise InputError(
                f"out={str(self.out)!r} holds {foreign[0]!r}, which is no earlier output and would be lost; "
                "move it or name another folder"
            )

    def __enter__(self) -> Self:
        try:
            _remove_stale(self.out, self.folder)
            self._reopen()
            needed = self.layout.nbytes - sum(path.stat().st_blocks * 512 for path in self._left())
            free = shutil.disk_usage(self.out.parent).free
            if needed > free:
                raise FailureError(f"{self.out}: disk full: {needed:,} bytes to write, {free:,} free; free some space")
            if self._claim is None:
                self.folder.mkdir()
                self._claim = _lock_folder(self.folder)
            if self.job is not None:
                self._journal = os.open(self.folder / _JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            for shard in self.layout.shards:
                header = header_bytes(shard)
                fd = os.open(self.folder / shard.file_name, os.O_RDWR | os.O_CREAT, 0o666)
                self._fds.append(fd)
                write_all(fd, memoryview(header), 0)
                offset = len(header)
                for spec in shard.tensors:
                    self._positions[spec.name] = (fd, offset, spec)
                    self._missing[spec.name] = spec.nbytes
                    offset += spec.nbytes
        except BaseException as error:
            self._abort()
            if isinstance(error, PermissionError):
                raise InputError(f"{self.out} cannot be written: {error.strerror}; choose another folder") from None
            if isinstance(error, OSError):
                raise self._failure(error) from error
            raise
        return self

    def _left(self) -> list[Path]:
        """The shards that an interrupted run left."""
        return [path for path in (self.folder / shard.file_name for shard in self.layout.shards) if path.exists()]

    def _reopen(self) -> None:
        """Take over the files that an interrupted run of the same job left, if they are complete."""
        if not self.folder.exists():
            return
        self._claim = _lock_folder(self.folder)
        if self._claim is None:
            raise InputError(f"out={str(self.out)!r} is being written by another run of the same job; let it finish")
        journal = regular(self.folder / _JOURNAL)
        complete = journal.exists() and len(self._left()) == len(self.layout.shards)
        for shard in self.layout.shards if complete else ():
            header = header_bytes(shard)
            with open(self.folder / shard.file_name, "rb") as file:
                complete = complete and file.read(len(header)) == header
        if complete:
            # A line that was cut off in the middle does not count.
            self.resumed = [line for line in journal.read_text(encoding="utf-8").splitlines(True) if line[-1] == "\n"]
        else:
            for path in self.folder.iterdir():
                path.unlink()

    def settled(self, name: str) -> None:
        """Tensor `name` was written elsewhere: by the run that this one resumes, or by another process."""
        self._missing[name] = 0

    def note(self, line: str) -> None:
        """Adds a line to the journal once everything written so far is on the disk."""
        try:
            for fd in self._fds:
                os.fdatasync(fd)
            _append(self._journal, (line + "\n").encode())
            os.fdatasync(self._journal)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, name: str, start: int, block: np.ndarray) -> None:
        """Writes `block` as the elements of tensor `name` from flat position `start` on. Each element once."""
        fd, offset, spec = self._positions[name]
        if block.dtype != spec.dtype:
            raise TypeError(f"tensor {name!r} is {spec.dtype} in the layout, the block is {block.dtype}")
        raw = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
        try:
            write_all(fd, raw.data, offset + start * spec.dtype.itemsize)
        except OSError as error:
            raise self._failure(error) from error
        self._written(name, fd, raw.nbytes)

    def copy(self, name: str, start: int, stop: int, tensor: LazyTensor, buffer: np.ndarray | None = None) -> None:
        """Writes elements `start:stop` of a tensor on disk as those of tensor `name`, within the system if it can.

        `buffer` is what they are read into otherwise, as in `LazyTensor.read`.
        """
        fd, offset, spec = self._positions[name]
        if tensor.dtype != spec.dtype:
            raise TypeError(f"tensor {name!r} is {spec.dtype} in the layout, the tensor is {tensor.dtype}")
        try:
            copied = tensor.copy_into(fd, offset + start * spec.dtype.itemsize, start, stop)
        except OSError as error:
            raise self._failure(error) from error
        if copied:
            self._written(name, fd, (stop - start) * spec.dtype.itemsize)
        else:
            self.write(name, start, tensor.read(start, stop, buffer))

    def _written(self, name: str, fd: int, nbytes: int) -> None:
        with self._lock:
            self._missing[name] -= nbytes
            self._unsent += nbytes
            send, self._unsent = self._unsent >= _SEND_BLOCK, self._unsent % _SEND_BLOCK
        if send:
            _start_writing_back(fd)

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Elements `start:stop` of a tensor, as they were written."""
        fd, offset, spec = self._positions[name]
        wanted, first = (stop - start) * spec.dtype.itemsize, offset + start * spec.dtype.itemsize
        raw = bytearray()
        try:
            while len(raw) < wanted and (piece := os.pread(fd, wanted - len(raw), first + len(raw))):
                raw += piece
        except OSError as error:
            raise self._failure(error) from error
        return np.frombuffer(raw, spec.dtype)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            if error is not None and self.job is not None and issubclass(kind, KeyboardInterrupt):
                error.add_note("run the same command again to go on")
                self._close()
                self._release()  # the folder stays: the same job goes on from its journal
            else:
                self._abort()
            return
        try:
            incomplete = [name for name, missing in self._missing.items() if missing]
            if incomplete:
                raise RuntimeError(f"tensor {incomplete[0]!r} was not written completely")
            for fd in self._fds:
                os.fsync(fd)
            self._close()
            (self.folder / _JOURNAL).unlink(missing_ok=True)
            if not self.single:
                for extra, source in self.extras.items():
                    (self.folder / extra).parent.mkdir(parents=True, exist_ok=True)
                    if isinstance(source, bytes):
                        (self.folder / extra).write_bytes(source)
                    else:
                        shutil.copyfile(source, self.folder / extra)
                    _sync(self.folder / extra)
            if self.single:
                os.replace(self.folder / self.out.name, self.out)
            else:
                self._write_index()
                _replace_folder(self.folder, self.out)
            _sync(self.out.parent)
        except OSError as failure:
            raise self._failure(failure) from failure
        finally:
            self._abort()

    def _write_index(self) -> None:
        if self.layout.index_name is None:
            return
        weight_map = {spec.name: shard.file_name for shard in self.layout.shards for spec in shard.tensors}
        metadata = {"total_size": self.layout.nbytes, **self.layout.index_metadata}
        text = json.dumps(
            {"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True, ensure_ascii=False
        )
        path = self.folder / self.layout.index_name
        path.write_text(text + "\n", encoding="utf-8")
        _sync(path)

    def _failure(self, error: OSError) -> FailureError:
        if error.errno in _DISK_FULL:
            return FailureError(
                f"{self.out}: disk full while writing {self.layout.nbytes:,} bytes ({error.strerror}); free "
                "some space or name another out; what was there before is untouched"
            )
        return FailureError(f"{self.out}: writing failed: {error.strerror}; what was there before is untouched")

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def _abort(self) -> None:
        self._close()
        if self._claim is not None or self.job is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


@contextlib.contextmanager
def hidden_folder(out: str | os.PathLike[str], job: str) -> Iterator[Path]:
    """A folder beside `out` for the time of the block, of which there is one for each job, a digest of what it is for.

    An error removes it. After Ctrl-C and in a killed process it stays, and the next block of the same job finds what is
    in it; another run that writes `out` removes it.

    Raises:
        InputError: the folder of `out` does not exist, or another run of the same job is at work.
    """
    target = Path(os.path.realpath(out))
    if not target.parent.is_dir():
        raise InputError(f"out={str(out)!r}: the folder {target.parent} does not exist; create it first")
    folder = target.parent / f".{target.name}.kofn-parts-{job}"
    claim = _claimed(folder)
    if claim is None:
        raise InputError(f"out={str(out)!r} is being written by another run of the same job; let it finish")
    try:
        yield folder
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(claim)


def write_arrays(out: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to one safetensors file (or to `model.safetensors` in a folder), whole or not at all."""
    with CheckpointWriter(out, Layout.of_arrays(arrays)) as writer:
        for shard in writer.layout.shards:
            for spec in shard.tensors:
                writer.write(spec.name, 0, np.asarray(arrays[spec.name]).astype(spec.dtype, copy=False))


def write_all(fd: int, view: memoryview, offset: int) -> None:
    """Writes all of `view` from byte `offset` of a file on."""
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done : done + _WRITE_BLOCK], offset + done)


def _start_writing_back(fd: int) -> None:
    """Have the system begin to write what it holds of a file, without waiting; nothing where it cannot."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    try:
        start = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return
    whole, write = ctypes.c_int64(0), 2  # SYNC_FILE_RANGE_WRITE
    start(fd, whole, whole, write)


def _lock_folder(path: Path) -> int | None:
    """Holds a lock that the system drops when this process ends, however it ends; None if another process holds it."""
    import fcntl

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # a FIFO of this name is none
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _claimed(folder: Path) -> int | None:
    """The lock on a folder, which is made where there is none; None if another process holds it."""
    while True:
        folder.mkdir(exist_ok=True)
        claim = _lock_folder(folder)
        # The run that held it may have removed the folder in between: what is locked is then no longer there.
        if claim is None or (folder.exists() and os.path.samestat(os.fstat(claim), folder.stat())):
            return claim
        os.close(claim)


def _append(fd: int, line: bytes) -> None:
    while line:
        line = line[os.write(fd, line) :]


def _remove_stale(out: Path, mine: Path) -> None:
    """Remove the hidden folders of killed runs that no living process locks, except `mine`, which can be continued."""
    for path in (entry for entry in out.parent.iterdir() if entry.name.startswith(f".{out.name}.kofn-")):
        if path == mine:
            continue
        try:
            claim = _lock_folder(path)
        except OSError:
            continue
        if claim is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(claim)


def _checkpoint_files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.endswith((".safetensors", INDEX_SUFFIX))}


def _own_files(folder: Path) -> set[str]:
    """The files of an earlier output in `folder`: its index with the shards it names, or `model.safetensors`."""
    names = {"model.safetensors"}
    for index in folder.glob("*" + INDEX_SUFFIX):
        try:
            names |= {index.name, *read_index(index)[0].values()}
        except FailureError:
            continue
    return names


def _replace_folder(new: Path, old: Path) -> None:
    """Puts the folder `new` where `old` is, in one step where the system can swap two names, keeping other files."""
    if not old.exists():
        os.rename(new, old)
        return
    _keep_others(old, new, _checkpoint_files(old))
    shutil.copymode(old, new)
    if not _swap(new, old):
        # Two steps: killed between them, the old folder survives under the second name.
        aside = old.with_name(f".{old.name}.before-{secrets.token_hex(4)}")
        os.rename(old, aside)
        try:
            os.rename(new, old)
        except OSError:
            os.rename(aside, old)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _keep_others(old: Path, new: Path, replaced: set[str]) -> None:
    """Copy into `new` what only `old` holds, but for the names `replaced`."""
    for path in old.iterdir():
        if path.name in replaced:
            continue
        folder = path.is_dir() and not path.is_symlink()
        if folder and (new / path.name).is_dir():
            _keep_others(path, new / path.name, set())
        elif folder:
            shutil.copytree(path, new / path.name, symlinks=True)
        elif not (new / path.name).exists():
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _swap(new: Path, old: Path) -> bool:
    """Exchanges two folders in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_cwd, exchange = -100, 2
    return rename(at_cwd, os.fsencode(new), at_cwd, os.fsencode(old), exchange) == 0
