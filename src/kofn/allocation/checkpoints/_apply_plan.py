"""Write the checkpoint that a plan describes: rounded and back, or pruned."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn._version import __version__
from kofn.allocation.checkpoints import _kernels
from kofn.allocation.checkpoints._measure import left_of, scores_of
from kofn.allocation.checkpoints._plan import BITS, CheckpointPlan
from kofn.allocation.checkpoints._statistics import Statistic, Statistics
from kofn.allocation.checkpoints._weights import Weight, as_groups, fingerprint, open_model, row_width
from kofn.core.arrays import Singles
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.runtime import Control
from kofn.engines.threads import cores, spread
from kofn.io.tensor_writer import OTHER_FILES, CheckpointWriter
from kofn.io.tensors import INDEX_SUFFIX, Checkpoint

__all__ = ["apply_plan", "read_plan"]

# Elements that are written between two notes of what is safe.
_NOTED = 1 << 26
_BINS = 1 << 16


@helper
def read_plan(path: str | os.PathLike[str]) -> CheckpointPlan:
    """The plan of a checkpoint that `CheckpointPlan.save` or `kofn allocate model/ -o plan.json` wrote.

    Raises:
        InputError: no such file, or a file that is no plan.
    """
    return CheckpointPlan.of_file(path)


@helper
def apply_plan(
    plan: CheckpointPlan | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str],
    statistics: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    n_threads: int | None = None,
    progress: Any = None,
) -> Checkpoint:
    """Write a checkpoint with the weights that a plan leaves: rounded to their bits and back, or pruned.

    Tensors keep their dtypes and shapes, so that whatever loads the model loads the output, and its quality can be
    measured. A folder gets the configuration and the tokenizer too. The output appears whole or not at all; a run that
    was killed goes on where it was when it is started again.

    Args:
        plan: a plan, or its file.
        path: the checkpoint, by default where the plan was made.
        out: a folder, or a `*.safetensors` file.
        statistics: of a plan that prunes by statistics, the same ones.
        n_threads: threads.
        progress: as everywhere.

    Returns:
        The checkpoint that was written.

    Raises:
        InputError: the plan is of another checkpoint, or `out` cannot be an output.
        FailureError: a damaged file, or a full disk.

    Cost: one pass over the weights (three for pruning), memory a few MB a thread.

    Examples:
        >>> import tempfile, numpy as np
        >>> from kofn.allocation import allocate_checkpoint, apply_plan
        >>> from kofn.io.tensor_writer import write_arrays
        >>> folder = tempfile.mkdtemp()
        >>> rows = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
        >>> write_arrays(folder + "/model.safetensors", {"a.weight": rows})
        >>> plan = allocate_checkpoint(folder, bits=2, group_size=-1)
        >>> written = apply_plan(plan, out=folder + "/out.safetensors")
        >>> max(len(np.unique(row)) for row in written["a.weight"].array())
        4
    """
    made = plan if isinstance(plan, CheckpointPlan) else read_plan(plan)
    checkpoint = open_model(made.path if path is None else path)
    _refuse_other(made, checkpoint)
    if checkpoint.is_at(Path(out)):
        raise InputError(f"out={os.fspath(out)!r} is the checkpoint itself; name another folder")
    weights = _weights(made, checkpoint)
    known = _known(made, weights, statistics)
    extras = _beside(checkpoint)
    with CheckpointWriter(out, checkpoint.layout, job=_job(made, checkpoint), extras=extras) as writer:
        done = {name for line in writer.resumed for name in json.loads(line)}
        for name in done:
            writer.settled(name)
        total, written, noted = sum(tensor.size for tensor in checkpoint.values()), 0, 0
        fresh: list[str] = []
        with Control(progress=progress, total=total, title="writing") as control:
            for name, tensor in checkpoint.items():
                if name not in done:
                    if name in weights:
                        _write(writer, weights[name], made, known[name], n_threads)
                    else:
                        for start in range(0, tensor.size, _NOTED):
                            writer.copy(name, start, min(start + _NOTED, tensor.size), tensor)
                    fresh.append(name)
                written += tensor.size
                control.step(written)
                if written - noted >= _NOTED and fresh:
                    writer.note(json.dumps(fresh))
                    fresh, noted = [], written
                if control.stopped():
                    if fresh:
                        writer.note(json.dumps(fresh))
                    raise KeyboardInterrupt
    return Checkpoint.open(writer.out)


def _refuse_other(plan: CheckpointPlan, checkpoint: Checkpoint) -> None:
    for tensor in plan.tensors:
        here = checkpoint.get(tensor.name)
        if here is None:
            raise InputError(
                f"the plan is of another checkpoint ({plan.path}): {checkpoint.path} has no tensor {tensor.name!r}"
            )
        if tuple(here.shape) != tensor.shape:
            raise InputError(
                f"the plan is of another checkpoint ({plan.path}): tensor {tensor.name!r} has shape "
                f"{tuple(here.shape)} in {checkpoint.path} and {tensor.shape} in the plan"
            )
    digest = fingerprint(checkpoint)
    if digest != plan.digest:
        raise InputError(
            f"the plan is of another checkpoint: {checkpoint.path} has the digest {digest}, the plan ({plan.path}) "
            f"{plan.digest}; make a plan for this one, errors and levels of others do not hold for it"
        )


def _beside(checkpoint: Checkpoint) -> dict[str, Path | bytes]:
    """The files of the checkpoint's folder that hold no tensors of it, by their names there."""
    folder = checkpoint.path
    if not folder.is_dir():
        return {}
    files: dict[str, Path | bytes] = {}
    for path in sorted([*folder.iterdir(), *folder.glob("[0-9]*_*/*")]):
        if path.is_file() and not path.name.startswith(".") and not (path.parent == folder and _holds_tensors(path)):
            files[path.relative_to(folder).as_posix()] = path
    return files


def _holds_tensors(path: Path) -> bool:
    return path.suffix.lower() in {".safetensors", *OTHER_FILES} - {".json"} or path.name.endswith(INDEX_SUFFIX)


def _weights(plan: CheckpointPlan, checkpoint: Checkpoint) -> dict[str, Weight]:
    return {
        tensor.name: Weight(checkpoint[tensor.name], row_width(tensor.shape), tensor.group) for tensor in plan.tensors
    }


def _known(plan: CheckpointPlan, weights: Mapping[str, Weight], statistics: Any) -> dict[str, Statistic]:
    """The statistics by which weights are pruned."""
    given = statistics if plan.kind != BITS else None
    known = dict(zip(weights, Statistics(given).of(list(weights.values())), strict=True))
    kinds = {statistic.kind for statistic in known.values()}
    label = kinds.pop() if len(kinds) == 1 else "several kinds"
    if plan.kind != BITS and label != plan.statistic:
        raise InputError(
            f"statistics: the plan prunes by {plan.statistic}, {label} is given; give the statistics it was made with"
        )
    return known


def _job(plan: CheckpointPlan, checkpoint: Checkpoint) -> str:
    """Digest of what determines the output."""
    state = hashlib.blake2b(digest_size=12)
    state.update(f"{__version__} {plan.digest} {plan.kind} {plan.symmetric} {plan.statistic}\n".encode())
    for tensor in plan.tensors:
        state.update(f"{tensor.name}\0{tensor.level}\0{tensor.group}\n".encode())
    for path in sorted(map(str, checkpoint.files)):
        seen = os.stat(path)
        state.update(f"{path} {seen.st_size} {seen.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _write(
    writer: CheckpointWriter, weight: Weight, plan: CheckpointPlan, statistic: Statistic, n_threads: int | None
) -> None:
    """Write one tensor, block by block on all threads."""
    level = next(tensor.level for tensor in plan.tensors if tensor.name == weight.name)
    blocks = list(weight.blocks(rows=plan.kind != BITS))
    if plan.kind == BITS:

        def rounded(low: int, high: int) -> None:
            for start, stop in blocks[low:high]:
                values = weight.read(start, stop)
                out = np.empty_like(as_groups(weight, values))
                _kernels.round_groups(as_groups(weight, values), level, plan.symmetric, weight.kind, out)
                writer.write(weight.name, start, out.reshape(-1).astype(weight.tensor.dtype))

        spread(rounded, len(blocks), cores(n_threads), shares=4)
        return
    left_out = weight.size - left_of(weight.size, level)
    cut, equals = _threshold(weight, statistic, left_out)
    for start, stop in blocks:
        raw = weight.tensor.read(start, stop)
        keys = _keys(weight, statistic, start, weight.read(start, stop))
        zero = keys < cut
        ties = np.flatnonzero(keys == cut)[:equals]
        equals -= len(ties)
        zero[ties] = True
        raw[zero] = 0
        writer.write(weight.name, start, raw)


def _keys(weight: Weight, statistic: Statistic, start: int, values: Singles) -> NDArray[np.uint32]:
    """Whole numbers in the order of the scores."""
    return scores_of(weight, statistic, start, values).view(np.uint32)


def _threshold(weight: Weight, statistic: Statistic, left_out: int) -> tuple[int, int]:
    """The key below which weights are left out, and how many of those equal to it are too."""
    if left_out == 0:
        return 0, 0
    upper, rank = _located(weight, statistic, left_out - 1, None)
    lower, rank = _located(weight, statistic, rank, upper)
    return (upper << 16) | lower, rank + 1


def _located(weight: Weight, statistic: Statistic, rank: int, upper: int | None) -> tuple[int, int]:
    """The bin of upper halves (or, with `upper`, of lower ones) that holds the key of a rank, and its rank there."""
    counts = np.zeros(_BINS, np.int64)
    for start, stop in weight.blocks(rows=True):
        keys = _keys(weight, statistic, start, weight.read(start, stop))
        halves = keys >> 16 if upper is None else keys[keys >> 16 == upper] & (_BINS - 1)
        counts += np.bincount(halves, minlength=_BINS)
    below = np.cumsum(counts)
    half = int(np.searchsorted(below, rank, side="right"))
    return half, rank - (int(below[half - 1]) if half else 0)
