"""Results that lm-evaluation-harness writes, as a table of scores: one row a model, one column a task and metric.

The harness writes `OUTPUT/MODEL/results_DATE.json` (older releases a file of any name), where `results` holds for
each task `metric,filter` and its standard error, `higher_is_better` what its metrics mean, and `group_subtasks` which
tasks make up a group.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kofn.core.checks import InputError, shown
from kofn.core.lazy import polars as pl

MODEL = "model"
# What a file of the harness' own is called; one of another name is told by what it holds.
_RESULTS = re.compile(r"results(_.*)?\.json", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d")
# Arguments of a model that say how it was run, and not which model it is.
_HOW = {
    *("batch_size", "data_parallel_size", "device", "device_map", "gpu_memory_utilization", "max_batch_size"),
    *("num_concurrent", "parallelize", "tensor_parallel_size", "trust_remote_code"),
}


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
        return next(_in_folder(where), None) is not None
    return where.suffix.lower() == ".json" and where.is_file()


def score_table(paths: Sequence[str | Path]) -> ScoreTable:
    """The scores in these folders and files; of a model that was measured twice on a task, the later ones.

    Runs on a part of the examples (`--limit`) count only where there is none on all, and are told.

    Raises:
        InputError: a file that is none of the harness, or no scores in any.
    """
    scores: dict[str, dict[str, float]] = {}
    main: dict[str, str] = {}
    within: dict[str, set[str]] = {}
    setup: dict[tuple[str, str], dict[str, Any]] = {}
    falling: dict[str, None] = {}
    measured: dict[tuple[str, str], tuple[Path, Any]] = {}
    again: dict[tuple[str, str, str], list[str]] = {}
    for model, file, run in _runs(paths):
        for task, metrics in run["results"].items():
            named = list(_scores(task, metrics, run))
            for column, value, lower in named:
                scores.setdefault(model, {})[column] = value
                if lower:
                    falling[column] = None
            if named:
                limit = _limit(run)
                older, older_limit = measured.get((model, task), (file, limit))
                measured[model, task] = file, limit
                if older != file:
                    runs = (_with_limit(older, older_limit), _with_limit(file, limit))
                    again.setdefault((model, *runs), []).append(task)
                main.setdefault(task, named[0][0])
                for kind, value in _setup(task, run):
                    setup.setdefault((task, kind), {})[model] = value
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
    notes = [
        f"{model} was measured again on {_listed(tasks)}: {counting} counts there, in place of {other}"
        for (model, other, counting), tasks in again.items()
    ]
    for (task, kind), models in setup.items():
        # The last model of each way in which the task was measured stands for it.
        ways = {value: model for model, value in models.items()}
        if len(ways) > 1:
            shown_models = ", ".join(f"{model}: {value}" for value, model in ways.items())
            notes.append(f"{task} was not measured alike ({kind} of {shown_models})")
    return ScoreTable(frame, [column for task, column in main.items() if task not in inside], list(falling), notes)


def _runs(paths: Sequence[str | Path]) -> list[tuple[str, Path, Mapping[str, Any]]]:
    """The model, file and content of each run; those of one model in the order of their dates, limited ones first.

    Runs of one name whose `model_args` differ are of several models, which are called by what differs, too.
    """
    by_name: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    for file in dict.fromkeys(_files(paths)):
        run = _read(file)
        by_name.setdefault(_name(run, file), []).append((file, run))
    runs = []
    for name, own in by_name.items():
        own.sort(key=lambda pair: (_limit(pair[1]) is None, *_when(*pair)))
        asked = [_model_args(run) for _file, run in own]
        keys = [key for key in dict.fromkeys(key for args in asked for key in args) if _differs(key, asked)]
        for (file, run), args in zip(own, asked, strict=True):
            apart = [f"{key}={args[key]}" for key in keys if key in args]
            runs.append((" ".join([name, *apart]), file, run))
    return runs


def _differs(key: str, asked: Sequence[Mapping[str, str]]) -> bool:
    """Whether runs were of several models by this argument."""
    return key not in _HOW and len({args.get(key) for args in asked}) > 1


def _model_args(run: Mapping[str, Any]) -> dict[str, str]:
    """What the model was made with, which the harness keeps as `a=1,b=2` or as a mapping."""
    config = run.get("config")
    args = config.get("model_args") if isinstance(config, dict) else None
    if isinstance(args, dict):
        return {str(key): str(value) for key, value in args.items()}
    pairs = (part.partition("=") for part in str(args or "").split(","))
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _limit(run: Mapping[str, Any]) -> Any:
    """How many examples of each task were measured, or what share of them; None for all."""
    config = run.get("config")
    return config.get("limit") if isinstance(config, dict) else None


def _with_limit(file: Path, limit: Any) -> str:
    return str(file) if limit is None else f"{file} (--limit {limit})"


def _setup(task: str, run: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """How a task was measured, by what the harness lets users choose."""
    yield "shots", run.get("n-shot", {}).get(task)
    yield "version", run.get("versions", {}).get(task)
    limit = _limit(run)
    yield "limit", "none" if limit is None else limit


def _when(file: Path, run: Mapping[str, Any]) -> tuple[float, str]:
    """When a run was made: by its own date, or that in its name."""
    date = run.get("date")
    if isinstance(date, int | float) and not isinstance(date, bool):
        return float(date), file.name
    stamp = _DATE.search(file.name)
    try:
        return (datetime.strptime(stamp[0], "%Y-%m-%dT%H-%M-%S").timestamp() if stamp else 0.0), file.name
    except ValueError:
        return 0.0, file.name


def _listed(tasks: Sequence[str]) -> str:
    return ", ".join(tasks[:3]) + (f" and {len(tasks) - 3:,} more tasks" if len(tasks) > 3 else "")


def _files(paths: Sequence[str | Path]) -> Iterator[Path]:
    """The results' files, those of a folder in the order of their names."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(_in_folder(path), key=lambda file: (file.parent, file.name))
        else:
            yield path


def _in_folder(folder: Path) -> Iterator[Path]:
    """The files in a folder that are called like the harness' own, or hold what it writes."""
    for file in folder.rglob("*.json"):
        if file.is_file() and (_RESULTS.fullmatch(file.name) or _has_shape(file)):
            yield file


def _has_shape(file: Path) -> bool:
    """Whether a file of any name holds scores by task as the harness writes them."""
    try:
        text = file.read_bytes()
        run = json.loads(text) if b'"results"' in text else None
    except (OSError, ValueError):
        return False
    if not isinstance(run, dict):
        return False
    results = run.get("results")
    if not isinstance(results, dict) or not results:
        return False
    return all(isinstance(metrics, dict) for metrics in results.values()) and not {"config", "n-shot"}.isdisjoint(run)


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
