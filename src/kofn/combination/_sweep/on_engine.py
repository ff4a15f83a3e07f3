"""A blend of checkpoints whose tensors are blended and written by tasks of an engine; the driver seals the output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination._sweep.blockwise import Done, Sweep
from kofn.combination._sweep.journal import Row, rows_of, take_rows
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.requantised import Requantiser
from kofn.combination._sweep.rule import Rule
from kofn.core.checks import InputError
from kofn.core.runtime import Control
from kofn.engines.base import Engine
from kofn.engines.opening import elsewhere
from kofn.io.tensor_parts import PartWriter, Places
from kofn.io.tensor_writer import CheckpointWriter

_SHARE = 1 << 24  # elements of a task, or one tensor that has more


def refuse_memory(engine: Any, pool: Pool, out: Any) -> None:
    """Refuse an engine for a blend that is not from files to files, which is all that its tasks can see.

    Raises:
        InputError: members in memory, or no `out`.
    """
    if not elsewhere(engine):
        return
    name = engine if isinstance(engine, str) else engine.name
    if not pool.on_disk:
        raise InputError(
            f"engine={name!r}: tasks read members from files, these are in memory; give paths, or no engine"
        )
    if out is None:
        raise InputError(f"engine={name!r}: tasks write the blend; give out, in a folder that they see, or no engine")


@dataclass(frozen=True)
class Job:
    """What all tasks of a blend share.

    Attributes:
        pool: the members, opened.
        merge_rules: the bound rule of each tensor.
        settings: how `Sweep` blends them.
        places: where they are written.
        states: what rules that look at the whole model know of it.
    """

    pool: Pool
    merge_rules: Mapping[str, Rule]
    settings: Mapping[str, Any]
    places: Places
    states: tuple[tuple[Rule, Any], ...] = ()

    def sweep(self) -> Sweep:
        """The blend, on one thread."""
        sweep = Sweep(self.pool, self.merge_rules, n_threads=1, **self.settings)
        sweep.model_state = {id(merge_rule): state for merge_rule, state in self.states}
        return sweep


def blend_tensors(names: list[str], job: Job) -> tuple[list[Row], list[int]]:
    """Blend tensors and write them: their rows, and how many entries of each source were not finite."""
    sweep = job.sweep()
    with PartWriter(job.places) as writer:
        sink = Requantiser(job.pool, writer.write, {})
        done = sweep.part(names, sink)
    return rows_of(names, done, sink.errors), sweep.blocks.replaced.tolist()


def scan_tensors(names: list[str], job: Job, stage: int, state: Any) -> list[Any]:
    """What a rule that looks at the whole model notes of tensors, in their order."""
    return list(job.sweep().scan(stage, names, state))


def run_on(
    engine: Engine,
    sweep: Sweep,
    settings: Mapping[str, Any],
    writer: CheckpointWriter,
    done: Done,
    errors: dict[str, float],
) -> Done:
    """Blend all tensors that are not in `done` yet, and note each task's in the journal of the writer.

    A tensor has the bytes that it has here, whoever blends it, and whatever else is in its task.
    """
    left = [name for name in sweep.pool.first if name not in done.squares]
    job = Job(sweep.pool, sweep.merge_rules, settings, Places.of(writer))
    total = sweep.steps_of(left)
    with Control(progress=sweep.progress, total=total, title="blending") as control:
        count = _Count(sweep, control)
        job = dataclasses.replace(job, states=tuple(_settled(engine, sweep, job, count)))
        shared = (engine.share(job),)
        replaced = np.zeros(len(sweep.pool.members) + 1, np.int64)
        groups = list(sweep.batches(left, _SHARE))
        results = engine.map(blend_tensors, groups, shared=shared, stopped=control.stopped)
        for names, (rows, more) in zip(groups, _all(results, len(groups)), strict=True):
            replaced += more
            take_rows(rows, sweep.pool, writer, done, errors)
            writer.note(json.dumps(rows))
            count.add(names)
    done.replaced = replaced
    return done


def _settled(engine: Engine, sweep: Sweep, job: Job, count: _Count) -> Iterator[tuple[Rule, Any]]:
    """What rules that look at the whole model know of it."""
    for merge_rule, names in sweep.whole_models():
        state: Any = None
        groups = list(sweep.batches(names, _SHARE))
        for stage in range(merge_rule.stages):
            shared = (engine.share(job), stage, engine.share(state))
            results = engine.map(scan_tensors, groups, shared=shared, stopped=count.control.stopped)
            parts: list[Any] = []
            for group, noted in zip(groups, _all(results, len(groups)), strict=True):
                parts += noted
                count.add(group)
            state = merge_rule.settle(stage, state, parts)
        yield merge_rule, state


def _all(results: Iterator[Any], number: int) -> Iterator[Any]:
    """So many results. Where they end early the work was stopped: part of a blend is of no use."""
    for _ in range(number):
        try:
            yield next(results)
        except StopIteration:
            raise KeyboardInterrupt from None


@dataclass
class _Count:
    """How many elements were looked at."""

    sweep: Sweep
    control: Control
    steps: int = 0

    def add(self, names: list[str]) -> None:
        self.steps += sum(self.sweep.pool.first[name].size for name in names)
        self.control.step(self.steps)
