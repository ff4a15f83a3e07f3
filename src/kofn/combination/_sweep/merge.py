"""From rules to a blend: the one path by which every method that works tensor by tensor reads, writes and reports."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn._version import __version__
from kofn.combination._sweep.blockwise import Done, Rule, Sweep
from kofn.combination._sweep.members import HALF, REAL, Pool, Tensor, open_members
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.io.companions import companions
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint, Layout, LazyArrays


@dataclass(frozen=True, slots=True)
class Files:
    """What every method that works tensor by tensor takes beside its own options.

    out: a `*.safetensors` file or a folder to write into while reading. only, skip: patterns of tensor names; what they
    leave out is copied from the base, or from the first member. measure: keep each tensor's figures in
    `info["measures"]`. skip_nonfinite: a NaN or infinity counts as not given, instead of being refused.
    """

    out: str | os.PathLike[str] | None = None
    only: Any = None
    skip: Any = None
    measure: bool = False
    skip_nonfinite: bool = False
    max_memory: int | None = None
    n_threads: int | None = None
    progress: bool | None = None

    def open(self, members: Any, base: Any = None) -> Pool:
        """The members and the base, checked against each other."""
        return open_members(members, base, patterns(self.only, "only"), patterns(self.skip, "skip"), once=True)


def patterns(value: Any, name: str) -> list[str] | None:
    """Patterns of tensor names: one text, or several."""
    if value is None:
        return None
    listed = [value] if isinstance(value, str) else list(value)
    if not listed or not all(isinstance(item, str) and item for item in listed):
        raise InputError(f"{name}={value!r}: give patterns of tensor names such as 'model.layers.*'")
    return listed


def relative_weights(weights: Any, m: int, normalize: bool = True) -> tuple[NDArray[np.float64], float, str]:
    """The weights as used, the sum of the weights as given, and the form of the blend they make."""
    given = np.ones(m) if weights is None else np.asarray(weights, np.float64)
    total = math.fsum(given.tolist())
    slack = 4 * m * np.finfo(np.float64).eps * math.fsum(np.abs(given).tolist())
    if normalize:
        if total <= slack:
            raise InputError(
                f"weights sum to {total:g}; relative weights need a positive sum "
                "(the option normalize=False takes them as they are)"
            )
        used = given / total
    else:
        used = given
        if abs(total - 1) > slack:
            return used, total, "linear"
    return used, total, "simplex" if (used >= 0).all() else "affine"


def merge(
    pool: Pool,
    rules: Rule | Mapping[str, Rule],
    files: Files,
    *,
    weights: NDArray[np.float64] | None,
    form: str,
    kept: Callable[[], Any] | None = None,
    status: str = "heuristic",
    objective: bool = False,
    info: Mapping[str, Any] | None = None,
) -> Blend:
    """Blends every tensor by its rule and makes the plan of it.

    `objective` says that the blend minimises sum_i w_i ||x_i - y||^2; `kept` is asked for the statistic at the end.
    """
    by_name = rules if isinstance(rules, Mapping) else dict.fromkeys(pool.first, rules)
    measure = checks.flag(files.measure, "measure")
    sweep = Sweep(
        pool,
        by_name,
        max_memory=files.max_memory,
        n_threads=files.n_threads,
        progress=files.progress,
        measure=measure,
        skip_nonfinite=checks.flag(files.skip_nonfinite, "skip_nonfinite"),
        fill=weights if weights is not None and (weights >= 0).all() else None,
    )
    said: dict[str, Any] = {}
    result: Any
    if files.out is not None:
        done, result = _write(pool, by_name, sweep, files, said)
    elif pool.on_disk:
        done = sweep.run(None)
        result = LazyArrays(pool.first, sweep.tensor)
    else:
        done, result = blend_in_memory(pool, sweep)

    squares = done.spread()
    value = float("nan")
    if objective and weights is not None:
        value = math.fsum(w * s for w, s in zip(weights.tolist(), squares.tolist(), strict=True) if w)
    if measure:
        said["measures"] = {
            name: {**row, "distance": np.sqrt(done.squares[name])} for name, row in done.measures.items()
        }
    if files.skip_nonfinite and done.replaced is not None:
        said["nonfinite"] = done.replaced[:-1].tolist()
    if pool.skipped:
        said["copied"] = sorted(pool.skipped)
    paths = [getattr(member, "path", None) for member in pool.members]
    if pool.on_disk:
        said["members"] = [str(path) for path in paths]
    if pool.tied:
        said["tied"] = dict(pool.tied)
    twice = _twice(pool)
    if twice:
        said["warnings"] = [*said.get("warnings", []), *twice]
    return Blend(
        n=len(pool.members),
        value=value,
        sense="min",
        bound=value if objective else None,
        status="optimal" if objective else status,
        result=result,
        form=form,
        weights=weights,
        spread=np.sqrt(squares),
        statistic=None if kept is None else kept(),
        objective="squared_distance" if objective else "",
        info={
            "tensors": len(pool.first),
            "elements": pool.elements,
            "bytes_read": (len(pool.members) + (pool.base is not None)) * pool.nbytes,
            **said,
            **(info or {}),
        },
    )


def blend_in_memory(pool: Pool, sweep: Sweep) -> tuple[Done, Any]:
    """The blend as an array, or as a dict of arrays if the members have names."""
    held = {name: np.empty(pool.source(name).shape, pool.source(name).dtype) for name in pool.first}
    flat = {name: array.reshape(-1) for name, array in held.items()}

    def store(name: str, start: int, values: NDArray[Any]) -> None:
        flat[name][start : start + len(values)] = values

    done = sweep.run(store)
    held |= {name: held[first] for name, first in pool.tied.items()}
    return done, held if pool.named else held[""]


def _write(
    pool: Pool, rules: Mapping[str, Rule], sweep: Sweep, files: Files, said: dict[str, Any]
) -> tuple[Done, LazyArrays]:
    assert files.out is not None
    layout = check_out(files.out, pool)
    labels, sources = pool.labels, pool.members
    if pool.base is not None:  # compared with the others; what is copied comes from a member, if any has it
        labels, sources = [*labels, pool.base_label], [*sources, pool.base]
    extras, warnings = companions(labels, [getattr(source, "path", None) for source in sources])
    if warnings and not str(files.out).endswith(".safetensors"):
        said["warnings"] = warnings
    with CheckpointWriter(files.out, layout, job=job_digest(pool, rules, files), extras=extras) as writer:
        done = Done()
        for line in writer.resumed:
            for name, squares, measures in json.loads(line):
                done.squares[name] = np.array(squares, np.float64)
                if measures is not None:
                    done.measures[name] = {
                        key: np.array(item) if isinstance(item, list) else item for key, item in measures.items()
                    }
                writer.settled(name)
        said["resumed"] = len(done.squares)

        def journal(names: list[str], done: Done) -> None:
            writer.note(json.dumps([[n, done.squares[n].tolist(), _plain(done.measures.get(n))] for n in names]))

        done = sweep.run(writer.write, done, journal)
    # In the order of the members, whatever was resumed: sums over tensors depend on it.
    done.squares = {name: done.squares[name] for name in pool.first}
    return done, Checkpoint.open(writer.out).arrays()


def _plain(measures: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if measures is None:
        return None
    return {key: item.tolist() if isinstance(item, np.ndarray) else item for key, item in measures.items()}


def fates(pool: Pool, method: str | Mapping[str, str]) -> list[dict[str, Any]]:
    """What would become of every tensor, by name: its dtype, shape, bytes, and what makes it."""
    rows = []
    for name in pool.first:
        tensor = pool.source(name) if name in pool.skipped else pool.first[name]
        if name in pool.skipped:
            fate = "copied from the base" if pool.base is not None and name in pool.base else "copied from member 0"
        elif tensor.dtype in HALF or tensor.dtype in REAL:
            fate = method if isinstance(method, str) else method[name]
        else:
            fate = "copied where all members agree, else refused"
        nbytes = tensor.size * tensor.dtype.itemsize
        rows.append(
            {"name": name, "dtype": tensor.dtype.name, "shape": list(tensor.shape), "bytes": nbytes, "fate": fate}
        )
    return rows


def job_digest(pool: Pool, rules: Mapping[str, Rule], files: Files) -> str:
    """A digest of all that decides the output: the files as they are now, the rules, the version."""
    state = hashlib.blake2b(digest_size=12)
    state.update(f"{__version__} {files.measure} {files.skip_nonfinite}".encode())
    for member in [*pool.members, *([] if pool.base is None else [pool.base])]:
        state.update(_digest_tensors(member))
    seen_rules: dict[int, bytes] = {}
    for name in pool.first:
        rule = rules.get(name)
        if id(rule) not in seen_rules:
            seen_rules[id(rule)] = _digest_rule(rule)
        state.update(name.encode() + seen_rules[id(rule)] + (b"-" if name in pool.skipped else b"+"))
    return state.hexdigest()


def _digest_tensors(held: Mapping[str, Tensor]) -> bytes:
    """Files by their size and time, arrays by their bits."""
    state = hashlib.blake2b(digest_size=12)
    if isinstance(held, Checkpoint):
        for path in sorted({str(tensor.path.resolve()) for tensor in held.values()}):
            seen = os.stat(path)
            state.update(f"{path} {seen.st_size} {seen.st_mtime_ns}\n".encode())
    else:
        for name, tensor in held.items():
            state.update(name.encode())
            state.update(np.ascontiguousarray(tensor.read()).tobytes())
    return state.digest()


def _digest_rule(rule: Rule | None) -> bytes:
    state = hashlib.blake2b(type(rule).__name__.encode(), digest_size=12)
    assert rule is None or dataclasses.is_dataclass(rule)
    names: list[str] = [] if rule is None else [entry.name for entry in dataclasses.fields(rule)]
    for name in names:
        value = getattr(rule, name)
        state.update(name.encode())
        if isinstance(value, list) and value and isinstance(value[0], Mapping):  # what a rule reads beside the members
            state.update(b"".join(map(_digest_tensors, value)))
            continue
        state.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return state.digest()


def _twice(pool: Pool) -> list[str]:
    """The same checkpoint given twice counts twice, which is worth saying."""
    seen: dict[Path, str] = {}
    found = []
    for label, member in zip(pool.labels, pool.members, strict=True):
        if isinstance(member, Checkpoint):
            path = Path(os.path.realpath(member.path))
            if path in seen:
                found.append(f"{label} is the same as {seen[path]}: it counts twice")
            seen.setdefault(path, label)
    return found


def check_out(out: str | os.PathLike[str], pool: Pool) -> Layout:
    """The layout of the output; refuses to write where a member or the base lies."""
    if not pool.named:
        raise InputError(f"out={os.fspath(out)!r}: plain arrays have no names to store; give mappings name -> array")
    sources = [*zip(pool.labels, pool.members, strict=True)]
    if pool.base is not None:
        sources.append((pool.base_label, pool.base))
    for label, member in sources:
        if isinstance(member, Checkpoint) and member.is_at(Path(out)):
            raise InputError(f"out={os.fspath(out)!r} is where {label} lies; name another path")
    if not isinstance(pool.first, Checkpoint):
        # Other names of a tensor are told as safetensors' own `save_model` tells them.
        return Layout.of_arrays(pool.first, metadata=pool.tied)
    layout = pool.first.layout
    if pool.skipped and pool.base is not None:
        layout = layout.retyped({name: pool.source(name) for name in pool.skipped})
    # A lone file keeps its name only inside its own folder: loaders look for model.safetensors in a new one.
    return layout if pool.first.path.is_dir() or layout.index_name is not None else layout.as_single_file()
