"""Results that lm-evaluation-harness writes, as a table of scores: one row a model, one column a task and metric.

The harness writes `OUTPUT/MODEL/results_DATE.json`, where `results` holds for each task `metric,filter` and its
standard error, `higher_is_better` what its metrics mean, and `group_subtasks` which tasks make up a group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from kofn.core.checks import InputError, shown

MODEL = "model"
_RESULTS = "results_*.json"


@dataclass
class ScoreTable:
    """Scores of models.

    Attributes:
        frame: the column `model`, and one of each metric of each task, empty where none was measured.
        main: the first metric of each task, of groups in place of their tasks.
        lower: the columns in which lower is better.
        notes: what to know before the scores are compared.
    """

    frame: pl.DataFrame
    main: list[str] = field(default_factory=list)
    lower: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_results(path: str | Path) -> bool:
    """Whether a folder holds results of the harness, or a file is one of them."""
    where = Path(path)
    if where.is_dir():
        return next(where.rglob(_RESULTS), None) is not None
    return where.suffix.lower() == ".json" and where.is_file()


def score_table(paths: Sequence[str | Path]) -> ScoreTable:
    """The scores in these folders and files; of a model that was measured twice on a task, the later ones.

    Raises:
        InputError: a file that is none of the harness, or no scores in any.
    """
    scores: dict[str, dict[str, float]] = {}
    main: dict[str, str] = {}
    within: dict[str, set[str]] = {}
    setup: dict[tuple[str, str], dict[Any, str]] = {}
    falling: dict[str, None] = {}
    for file in _files(paths):
        run = _read(file)
        model = _name(run, file)
        for task, metrics in run["results"].items():
            named = list(_scores(task, metrics, run))
            for column, value, lower in named:
                scores.setdefault(model, {})[column] = value
                if lower:
                    falling[column] = None
            if named:
                main.setdefault(task, named[0][0])
                for kind in ("n-shot", "versions"):
                    setup.setdefault((task, kind), {})[run.get(kind, {}).get(task)] = model
        for group, tasks in run.get("group_subtasks", {}).items():
            within.setdefault(group, set()).update(tasks)
    if not main:
        raise InputError(f"{paths[0]} holds no scores of lm-eval; give the folder that it wrote (--output_path)")
    inside = {task for group in within if group in main for task in within[group]}
    columns = list(dict.fromkeys(column for row in scores.values() for column in row))
    frame = pl.DataFrame(
        {MODEL: list(scores), **{name: [row.get(name) for row in scores.values()] for name in columns}},
        schema={MODEL: pl.String, **dict.fromkeys(columns, pl.Float64)},
    )
    notes = []
    for (task, kind), models in setup.items():
        if len(models) > 1:
            word = "shots" if kind == "n-shot" else "version"
            shown_models = ", ".join(f"{model}: {value}" for value, model in models.items())
            notes.append(f"{task} was not measured alike ({word} of {shown_models})")
    return ScoreTable(frame, [column for task, column in main.items() if task not in inside], list(falling), notes)


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    """The results' files, those of one model in the order of their dates."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(path.rglob(_RESULTS), key=lambda file: (file.parent, file.name))
        else:
            yield path


def _read(file: Path) -> Mapping[str, Any]:
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no JSON ({error}); give what lm-eval wrote") from None
    results = run.get("results") if isinstance(run, dict) else None
    if not isinstance(results, dict) or not all(isinstance(metrics, dict) for metrics in results.values()):
        raise InputError(f"{file} has no 'results' by task; give a results_*.json that lm-eval wrote")
    return run


def _name(run: Mapping[str, Any], file: Path) -> str:
    """What the model is called: by the harness, or else by its folder."""
    named = run.get("model_name") or run.get("model_name_sanitized")
    return str(named) if named else file.parent.name


def _scores(task: str, metrics: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[tuple[str, float, bool]]:
    """Each metric of a task: the name of its column, its value, and whether lower is better."""
    better = run.get("higher_is_better", {}).get(task, {})
    for key, value in metrics.items():
        metric, _, chosen_by = key.partition(",")
        if metric.endswith("_stderr") or isinstance(value, bool | str) or value is None:
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{task} {key} is {shown(value)}; give finite scores, or leave the task out")
        name = f"{task}/{metric}" if chosen_by in ("", "none") else f"{task}/{metric},{chosen_by}"
        yield name, float(value), better.get(metric) is False
