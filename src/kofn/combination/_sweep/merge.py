"""The driver from merge rules to a blend, shared by all methods that work tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn._version import __version__
from kofn.combination._sweep.blockwise import Done, Sweep
from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.journal import rows_of, take_rows
from kofn.combination._sweep.measures import blend_length, distance, trained
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.on_engine import refuse_memory, run_on
from kofn.combination._sweep.quantised import configured
from kofn.combination._sweep.requantised import Requantiser
from kofn.combination._sweep.rule import Rule
from kofn.combination._sweep.tensor import Tensor
from kofn.combination._sweep.tied import say_untied, tie_settings
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.engines.opening import elsewhere, opened
from kofn.io.companions import QUANTISATION, companions, first_config, has_tokenizer, retyped, with_chat_template
from kofn.io.outputs import refuse_read
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint, Layout, LazyArrays

_VARIANCE = "running_var"
# Sums of squares up to this may have lost squares; only differences in double precision have such.
_SQUARES = 1e-280
_DOUBLE = (np.dtype(np.float64), np.dtype(np.complex128))


def merge(
    pool: Pool,
    merge_rules: Rule | Mapping[str, Rule],
    options: SweepOptions,
    *,
    weights: NDArray[np.float64] | None,
    form: str,
    kept: Callable[[], Any] | None = None,
    status: str = "heuristic",
    objective: bool = False,
    info: Mapping[str, Any] | None = None,
    donor: Any = None,
    settings: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
    chat_template: str | None = None,
) -> Blend:
    """Blend every tensor by its merge rule and return the plan.

    Args:
        pool: the members, opened.
        merge_rules: one bound rule for all tensors, or one for each name.
        options: the tensors to blend, and the output.
        weights: (m,) for the plan; None where tensors have weights of their own.
        form: the form of the blend.
        kept: returns the plan's `statistic` after blending.
        status: the plan's, unless `objective`.
        objective: True where the blend minimises sum_i w_i ||x_i - y||^2.
        info: further entries of the plan's `info`.
        donor: the path of the model whose configuration and tokenizer are copied, by default the first member's.
        settings: entries of the configuration that differ from the donor's.
        tokenizer: the folder whose tokenizer is copied, by default the donor's.
        chat_template: what the tokenizer gets in place of its own.
    """
    by_name = merge_rules if isinstance(merge_rules, Mapping) else dict.fromkeys(pool.first, merge_rules)
    measure = checks.flag(options.measure, "measure")
    refuse_memory(options.engine, pool, options.out)
    blending = {
        "max_memory": options.max_memory,
        "measure": measure,
        "skip_nonfinite": checks.flag(options.skip_nonfinite, "skip_nonfinite"),
        "fill": weights if weights is not None and (weights >= 0).all() else None,
    }
    sweep = Sweep(pool, by_name, n_threads=options.n_threads, progress=options.progress, **blending)
    notes: dict[str, Any] = {}
    result: Any
    if options.out is not None:
        done, result = _write(
            pool, by_name, sweep, blending, options, notes, donor, settings or {}, tokenizer, chat_template
        )
    elif pool.on_disk:
        done = sweep.run(Requantiser(pool, _nowhere, notes))
        result = lazy_blend(pool, sweep)
    else:
        done, result = blend_in_memory(pool, sweep, notes)

    squares = done.spread()
    apart = _distances(pool, done, result, options)
    spread = np.sqrt(squares)
    for i in np.flatnonzero(~((squares > _SQUARES) & (squares < np.inf))):
        spread[i] = math.hypot(*(row[i] for row in apart.values()))
    value = float("nan")
    if objective and weights is not None:
        value = math.fsum(w * s for w, s in zip(weights.tolist(), squares.tolist(), strict=True) if w)
    if measure:
        notes["measures"] = {name: {**row, "distance": apart[name]} for name, row in done.measures.items()}
        if pool.base is not None and (rows := trained(done.measures)):
            notes["length"] = blend_length(rows.values())
    if options.skip_nonfinite and done.replaced is not None:
        notes["nonfinite"] = done.replaced[:-1].tolist()
    if pool.skipped:
        notes["copied"] = sorted(pool.skipped)
    paths = [getattr(member, "path", None) for member in pool.members]
    if pool.on_disk:
        notes["members"] = [str(path) for path in paths]
    if pool.base is not None:
        notes["base"] = str(getattr(pool.base, "path", None) or ("given" if pool.on_disk else "in memory"))
    blended = (pool.dtype_of(name) for name in pool.first if name not in pool.skipped)
    notes["dtype"] = ", ".join(dict.fromkeys(dtype.name for dtype in blended if dtype.kind not in "iub"))
    if pool.tied:
        notes["tied"] = dict(pool.tied)
    if pool.vocabulary is not None:
        notes["vocabulary"] = dict(pool.vocabulary.figures)
        if pieces := pool.vocabulary.figures["pieces"]:
            line = f"{pieces} of the new tokens are pieces of another vocabulary, which the tokenizer takes whole"
            notes["warnings"] = [*notes.get("warnings", []), line]
    if pool.notes:
        notes["warnings"] = [*notes.get("warnings", []), *pool.notes]
    mixture, rounded = pool.mixture()
    if mixture:
        line = f"members are of {', '.join(mixture)}: each is read as it is, the blend is {', '.join(rounded)}"
        notes["warnings"] = [*notes.get("warnings", []), line]
    noted = [*_repeated(pool), *_negative_variances(pool, result), *_opposite(done)]
    if noted:
        notes["warnings"] = [*notes.get("warnings", []), *noted]
    return Blend(
        n=len(pool.members),
        value=value,
        sense="min",
        bound=value if objective else None,
        status="optimal" if objective else status,
        result=result,
        form=form,
        weights=weights,
        spread=spread,
        statistic=None if kept is None else kept(),
        objective="squared_distance" if objective else "",
        info={
            "tensors": len(pool.first),
            "elements": pool.elements,
            "bytes_read": (len(pool.members) + (pool.base is not None)) * pool.nbytes,
            **notes,
            **(info or {}),
        },
    )


def _distances(pool: Pool, done: Done, result: Any, options: SweepOptions) -> dict[str, NDArray[np.float64]]:
    """Name -> (m,) distances of the members to the blend, computed anew where their squares are beyond float64."""
    apart = {name: np.sqrt(squares) for name, squares in done.squares.items()}
    if pool.vocabulary is not None or options.skip_nonfinite:
        return apart
    blend = result if pool.named else {"": result}
    for name, squares in done.squares.items():
        # What is quantised again is written as codes, which are no values to compare.
        if name in pool.skipped or name in pool.schemes or pool.dtype_of(name) not in _DOUBLE:
            continue
        for i in np.flatnonzero(~((squares > _SQUARES) & (squares < np.inf))):
            own = np.asarray(pool.members[i][name].read()).reshape(pool.first[name].shape)
            apart[name][i] = distance(own, blend[name])
    return apart


def blend_in_memory(pool: Pool, sweep: Sweep, notes: dict[str, Any] | None = None) -> tuple[Done, Any]:
    """The blend as an array, or as a dict of arrays if the members have names."""
    arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in pool.written().items()}
    flat = {name: array.reshape(-1) for name, array in arrays.items()}

    def store(name: str, start: int, values: NDArray[Any]) -> None:
        flat[name][start : start + len(values)] = values

    sink = Requantiser(pool, store, {} if notes is None else notes)
    sink.write_beside()
    done = sweep.run(sink)
    arrays |= {name: arrays[first] for name, first in pool.tied.items()}
    return done, arrays if pool.named else arrays[""]


def lazy_blend(pool: Pool, sweep: Sweep) -> LazyArrays:
    """The blend as a mapping whose tensors are computed on access: a scale takes as long as its weight."""
    weight_of = {scheme.scale: name for name, scheme in pool.schemes.items()}
    written = pool.written()

    def compute(name: str) -> NDArray[Any]:
        if name in pool.beside:
            return pool.beside[name].copy()
        weight = weight_of.get(name, name)
        if weight not in pool.schemes:
            return sweep.tensor(name)
        parts: dict[str, NDArray[Any]] = {}
        sink = Requantiser(pool, lambda part, _start, values: parts.update({part: values}), {})
        sink(weight, 0, sweep.tensor(weight).reshape(-1))
        return parts[name].reshape(written[name].shape)

    return LazyArrays(written, compute)


def _nowhere(_name: str, _start: int, _values: NDArray[Any]) -> None:
    """A sink for blends of which only the figures are asked."""


def _write(
    pool: Pool,
    merge_rules: Mapping[str, Rule],
    sweep: Sweep,
    blending: Mapping[str, Any],
    options: SweepOptions,
    notes: dict[str, Any],
    donor: Any,
    settings: Mapping[str, Any],
    tokenizer: Path | None,
    chat_template: str | None,
) -> tuple[Done, LazyArrays]:
    assert options.out is not None
    layout = check_out(options.out, pool)
    labels, sources = pool.labels, pool.members
    if pool.base is not None:  # compared with the others; copied tensors come from a member, if any has them
        labels, sources = [*labels, pool.base_label], [*sources, pool.base]
    paths = [getattr(source, "path", None) for source in sources]
    if pool.vocabulary is not None and donor is None:
        donor = pool.vocabulary.folder
    elif donor is None and pool.base is not None and _base_decides(pool):
        donor = getattr(pool.base, "path", None)
    if donor is not None:
        known = (label for label, path in zip(labels, paths, strict=True) if path is not None and path == Path(donor))
        labels = [next(known, f"the model whose config.json is copied ({donor})"), *labels]
        paths = [Path(donor), *paths]
    of_dtypes, dropped = settings_of(pool, paths)
    settings = {**settings, **of_dtypes, **tie_settings(paths, pool.written())}
    if pool.vocabulary is not None:
        pool.vocabulary.refuse_single_file(options.out)
        tokenizer, config = pool.vocabulary.folder, first_config(paths)
        settings = {**settings, **pool.vocabulary.resized({**config, **settings})}
    extras, warnings = companions(labels, paths, settings, dropped, tokenizer)
    if pool.vocabulary is not None:
        extras |= pool.vocabulary.files
        if config and not pool.vocabulary.names_rows({**config, **settings}):
            warnings.append(f"config.json names no vocab_size to set to {pool.vocabulary.rows}: set it before loading")
    if chat_template is not None and has_tokenizer(extras):
        extras = with_chat_template(extras, chat_template)
    if warnings and not str(options.out).endswith(".safetensors"):
        notes["warnings"] = warnings
    with CheckpointWriter(options.out, layout, job=job_digest(pool, merge_rules, options), extras=extras) as writer:
        done, sink = Done(), Requantiser(pool, writer.write, notes)
        sink.write_beside()
        for line in writer.resumed:
            take_rows(json.loads(line), pool, writer, done, sink.errors)
        notes["resumed"] = len(done.squares)
        if elsewhere(options.engine):
            with opened(options.engine, options.n_threads) as engine:
                done = run_on(engine, sweep, blending, writer, done, sink.errors)
                notes["engine"] = engine.facts()
        else:
            done = sweep.run(sink, done, lambda names, done: writer.note(json.dumps(rows_of(names, done, sink.errors))))
        if apart := say_untied(writer):
            notes["warnings"] = [*notes.get("warnings", []), *apart]
    # In the members' order even after resuming, because sums over tensors depend on it.
    done.squares = {name: done.squares[name] for name in pool.first}
    return done, Checkpoint.open(writer.out).arrays()


def settings_of(pool: Pool, paths: Sequence[Path | None]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the configuration says of the dtypes and the quantisation of the blend, and the entries that it loses.

    Args:
        pool: the members.
        paths: the folders whose first configuration is copied.
    """
    settings: dict[str, Any] = {}
    dropped: tuple[str, ...] = ()
    if pool.quantised:
        # Tensors are kept as member 0's, so its word on them holds, whoever the configuration is from.
        settings = configured(getattr(pool.first, "path", None)) if pool.schemes else {}
        dropped = tuple(key for key in QUANTISATION if key not in settings)
    written = pool.one_dtype()
    if written is not None:
        settings = {**settings, **retyped(first_config(paths), written.name)}
    return settings, dropped


def _base_decides(pool: Pool) -> bool:
    """Whether a tensor is copied from the base in another shape than the first member's, such as an embedding."""
    return any(pool.source(name).shape != pool.first[name].shape for name in pool.skipped if name in pool.first)


def job_digest(pool: Pool, merge_rules: Mapping[str, Rule], options: SweepOptions) -> str:
    """Digest of everything that determines the output: input files, merge rules, version."""
    state = hashlib.blake2b(digest_size=12)
    state.update(f"{__version__} {options.measure} {options.skip_nonfinite} {pool.dtype} {pool.widest}".encode())
    for member in [*pool.members, *([] if pool.base is None else [pool.base])]:
        state.update(_digest_tensors(member))
    state.update(b"" if pool.vocabulary is None else pool.vocabulary.digest())
    digests: dict[int, bytes] = {}
    for name in pool.first:
        merge_rule = merge_rules.get(name)
        if id(merge_rule) not in digests:
            digests[id(merge_rule)] = b"" if merge_rule is None else _digest_rule(merge_rule)
        state.update(name.encode() + digests[id(merge_rule)] + (b"-" if name in pool.skipped else b"+"))
        state.update(repr(pool.schemes.get(name)).encode())
    return state.hexdigest()


def _digest_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Digest files by size and modification time, arrays by their contents."""
    state = hashlib.blake2b(digest_size=12)
    if isinstance(tensors, Checkpoint):
        for path in sorted(map(str, tensors.files)):
            seen = os.stat(path)
            state.update(f"{path} {seen.st_size} {seen.st_mtime_ns}\n".encode())
    else:
        for name, tensor in tensors.items():
            state.update(name.encode())
            state.update(np.ascontiguousarray(tensor.read()).tobytes())
    return state.digest()


def _digest_rule(merge_rule: Rule) -> bytes:
    """Digest a merge rule by its options, its weights and its companion tensors."""
    state = hashlib.blake2b(f"{merge_rule!r} {merge_rule.form}".encode(), digest_size=12)
    state.update(merge_rule.weights.tobytes())
    for tensors in merge_rule.reads:
        state.update(_digest_tensors(tensors))
    return state.digest()


def _repeated(pool: Pool) -> list[str]:
    """Warnings about checkpoints that were given more than once."""
    seen: dict[Path, str] = {}
    warnings = []
    for label, member in zip(pool.labels, pool.members, strict=True):
        if isinstance(member, Checkpoint):
            path = Path(os.path.realpath(member.path))
            if path in seen:
                warnings.append(f"{label} is the same as {seen[path]}: it counts twice")
            seen.setdefault(path, label)
    return warnings


def _opposite(done: Done) -> list[str]:
    """A warning if members were opposite to each other where a merge rule follows the arc between them."""
    count = len(done.opposite)
    if not count:
        return []
    subject = f"{count:,} tensors are" if count > 1 else "1 tensor is"
    return [
        f"{subject} opposite in the two members (cosine -1), so that no arc between them is the shortest: blended "
        "along the line through zero, which at even weights gives zeros; check the members' signs, or copy these "
        "tensors with skip"
    ]


def _negative_variances(pool: Pool, result: Any) -> list[str]:
    """A warning if a BatchNorm's variance is below zero in the blend: its square root makes every output NaN."""
    names = [name for name in pool.first if name.endswith(_VARIANCE) and name not in pool.skipped]
    broken = [name for name in names if np.min(result[name].astype(np.float64), initial=0) < 0]
    if not broken:
        return []
    subject = f"{broken[0]!r} and {len(broken) - 1} more are" if len(broken) > 1 else f"{broken[0]!r} is"
    return [
        f"{subject} below zero in the blend, whose outputs are then NaN: run some rows through it in "
        "training mode to estimate BatchNorm's statistics again, or copy them with skip='*.running_*'"
    ]


def check_out(out: str | os.PathLike[str], pool: Pool) -> Layout:
    """The layout of the output; refuse to overwrite a member or the base."""
    if not pool.named:
        raise InputError(f"out={os.fspath(out)!r}: plain arrays have no names to store; give mappings name -> array")
    sources = [*zip(pool.labels, pool.members, strict=True)]
    if pool.base is not None:
        sources.append((pool.base_label, pool.base))
    for label, member in sources:
        if isinstance(member, Checkpoint) and member.is_at(Path(out)):
            raise InputError(f"out={os.fspath(out)!r} is where {label} lies; name another path")
    refuse_read(out, [(label, member.path) for label, member in sources if isinstance(member, Checkpoint)])
    written = pool.written()
    if not isinstance(pool.first, Checkpoint):
        # Aliases are recorded as safetensors' `save_model` records them.
        return Layout.of_arrays(written, metadata=pool.tied)
    stale = "_quantization_metadata" if pool.quantised and not pool.schemes else None
    layout = pool.first.layout.retyped(written).restricted(written, without_metadata=stale)
    # In a new folder loaders expect model.safetensors, so a lone file is renamed there.
    return layout if pool.first.path.is_dir() or layout.index_name is not None else layout.as_single_file()
