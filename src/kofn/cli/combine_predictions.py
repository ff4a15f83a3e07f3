"""`kofn combine` of what models predicted: the blend that loses least, and what it brings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import click
import numpy as np

from kofn.cli.arguments import rescaled
from kofn.cli.combine_arguments import CombineArguments
from kofn.cli.printing import drawn_lines, facts, say
from kofn.cli.write import WRITTEN, check_outputs, finish
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError, names_a_file
from kofn.core.dispatch import fitting
from kofn.core.lazy import polars as pl
from kofn.core.plans import Blend
from kofn.core.problems import build
from kofn.io.atomic import atomic_path
from kofn.io.reading import suffix_of
from kofn.tables.alike import alike_labels
from kofn.tables.class_answers import as_named, in_order, refuse_unlike
from kofn.tables.class_arrays import one_model
from kofn.tables.class_columns import as_answers
from kofn.tables.draws import BY_METHODS
from kofn.tables.predictions import Predictions, of_classes_in, read_answers, read_predictions
from kofn.tables.read import ARRAYS, TABLES
from kofn.tables.spelling import in_flags, speaking_flags
from kofn.tables.unlike import as_typed, listed
from kofn.verbs import combine, settled

_LISTED = 12  # members printed
# Flags of checkpoints, rankings and votes.
_OTHERS = ("base", "summed", "only", "skip", "skip_nonfinite", "dtype", "vocabulary", "device", "lower", "wins", "long")


def blend_predictions(members: Sequence[str], arguments: CombineArguments) -> None:
    """Read, blend, write and print."""
    for name in _OTHERS:
        if getattr(arguments, name) not in (None, (), False):
            flag = {"summed": "--sum"}.get(name, f"--{name.replace('_', '-')}")
            raise InputError(f"{flag} is not of predictions; leave it out")
    as_table = arguments.output is None or suffix_of(Path(arguments.output)) not in ARRAYS[:1]
    applied_paths = [path for given in arguments.apply for path in sorted(glob(given, recursive=True)) or [given]]
    answers_file = arguments.answers if arguments.answers and names_a_file(arguments.answers) else None
    if answers_file is not None and any(Path(member).resolve() == Path(answers_file).resolve() for member in members):
        raise InputError(f"{answers_file} is --label and among the members; name the members without it")
    read_paths = [*members, *applied_paths, *([answers_file] if answers_file else [])]
    check_outputs(arguments, read_paths, table=as_table)
    label = arguments.answers if answers_file is None else None
    options = dict(arguments.options)
    if isinstance(options.get("classes"), str):
        options["classes"] = [part.strip() for part in options["classes"].split(",")]
    voted = None if answers_file is None else _voted(answers_file, arguments, options)
    read = read_predictions(
        members,
        arguments.reading,
        label=label,
        columns=arguments.columns,
        id_column=arguments.id_column,
        group_column=arguments.group_column,
        features=arguments.feature_columns,
        classes=options.get("classes"),
        voted=voted,
    )
    y = None if read.y is None else as_named(read.y, options.get("classes"))
    if answers_file is not None:
        y = as_named(read_answers(answers_file, arguments.reading, read.ids, read.id_name), options.get("classes"))
        if read.columns is None and suffix_of(Path(members[0])) in TABLES:
            read = of_classes_in(read, y, options.get("classes"))
    majority = False
    if y is None and suffix_of(Path(members[0])) in TABLES:
        read, majority = _unanswered(members, read, arguments, options.pop("classes", None))
    read, of_one = one_model(members, read, y, options.get("loss"), options.get("classes"))
    # Said once the call is known to be one that can be made.
    notes = [] if of_one is None else [f"note: {of_one}"]
    if y is not None and y.dtype.kind == "U" and (note := alike_labels(y, str(arguments.answers))):
        notes.append(f"warning: {note}")
    if read.columns is not None and options.get("classes"):
        read = in_order(read, options["classes"])
    elif read.columns is not None and y is not None and "quantiles" not in options:
        refuse_unlike(read.columns, y, None, by_order=True)
    applied = _applied(applied_paths, read, arguments, options.get("classes")) if applied_paths else None
    if y is None and arguments.method in ("auto", "weighted_mean"):
        _refuse_unlike_shapes(members, read)
    method = arguments.method
    if y is None and arguments.method == "auto":
        arguments = dataclasses.replace(arguments, method="weighted_mean")
    if read.features is not None and arguments.method == "auto":
        arguments = dataclasses.replace(arguments, method="dynamic_ensemble_selection")
    if read.columns is not None and y is not None and "classes" not in options and "quantiles" not in options:
        options["classes"] = as_answers(read.columns, y)
    call = arguments.given("k", "weights") | {"members": read.members, "ids": np.array(read.names)}
    call |= {
        name: value for name, value in (("y", y), ("groups", read.groups), ("X", read.features)) if value is not None
    }
    if note := rescaled(arguments.weights):
        notes.append(f"note: {note}")
    if y is None and method == "auto" and suffix_of(Path(members[0])) in ARRAYS and not _may_be_chances(read):
        notes.append(f"note: {_as_predictions(members, read)}")
    if arguments.dry_run:
        speaking_flags(lambda: _check(read, call, arguments, options, applied))
        _say_notes(notes)
        size = {"members": len(read.names), "rows": read.n, "method": method, "exact": "greedy"}
        say(size, lambda: facts(size), arguments.as_json)
        return
    from kofn.combination.ensembles._task import are_chances

    chosen: Any = arguments.method
    if y is not None and chosen == "weighted_mean":
        from kofn.combination.ensembles._plan import weighted_mean as chosen

        # Another method's weights may vary over these; the same command with this one need not drop them.
        call = {word: value for word, value in call.items() if word not in ("groups", "X")}
    plan: Blend = speaking_flags(lambda: combine(method=chosen, options=options, **call))
    _say_notes(notes)
    if read.columns is not None and "classes" not in plan.info and all(map(are_chances, read.members)):
        plan = dataclasses.replace(plan, info={**plan.info, "classes": list(read.columns)})
    if y is not None and read.columns is None and not options.get("classes"):
        plan = dataclasses.replace(plan, info={**plan.info, **_order_of(plan, read)})
    if majority:
        plan = dataclasses.replace(plan, info={**plan.info, "votes": True})
    if read.left_out:
        plan = dataclasses.replace(plan, info={**plan.info, "left_out_columns": list(read.left_out)})
    if y is not None and arguments.output is not None and not arguments.options.get("classes"):
        _refuse_turned_round(plan, read, y, arguments)
    _finish(plan, read, applied, arguments)


def _say_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(note, err=True)


def _unanswered(
    paths: Sequence[str], read: Predictions, arguments: CombineArguments, classes: Sequence[Any] | None
) -> tuple[Predictions, bool]:
    """Predictions of tables without answers, and whether they are votes: columns of each model's classes together, and
    what is none refused."""
    from kofn.tables.unanswered_predictions import (
        as_votes,
        may_be_classes,
        of_classes,
        refuse_missing,
        refuse_no_predictions,
    )

    refuse_missing(read, paths)
    if classes is not None:
        read = as_votes(read, classes)
    votes = any(np.asarray(member).dtype == object for member in read.members)
    if arguments.columns is None and not votes:
        of_first = read.members if len(paths) == 1 else np.asarray(read.members[0]).T
        refuse_no_predictions(dict(zip(read.columns or read.source_columns, of_first, strict=False)), paths[0])
    if votes or len(paths) == 1:
        read = of_classes(read, paths[0], classes)
    elif classes is not None and read.columns is not None:
        read = in_order(read, classes)
    if (numbers := may_be_classes(read)) is not None:
        click.echo(
            f"note: the predictions are whole numbers, averaged as amounts; if they are classes, say --classes "
            f"{as_typed(*numbers)}",
            err=True,
        )
    return read, votes


def _refuse_turned_round(plan: Blend, read: Predictions, y: Array, arguments: CombineArguments) -> None:
    """Refuse to write a blend of columns that are most likely the probabilities of the other of two classes."""
    from kofn.combination.ensembles._held_out import turned_round
    from kofn.combination.ensembles._task import read_task

    if np.ndim(read.members[0]) != 1 or len(np.unique(y)) != 2 or "quantiles" in arguments.options:
        return
    classes = turned_round(read_task(read.members, y, arguments.options.get("loss")), plan)
    if classes is not None:
        first, second = map(str, classes)
        raise InputError(
            f"{arguments.output} is not written: every model is higher where the answer is {first!r} than where it is "
            f"{second!r}, whose probability the columns are taken for, and the blend is worse than one answer for all "
            f"rows; if they are of {first!r}, say --classes {as_typed(second, first)}, and --classes "
            f"{as_typed(first, second)} writes it as it is"
        )


def _order_of(plan: Blend, read: Predictions) -> dict[str, Any]:
    """That the order of the classes was assumed, where columns without names stand for classes."""
    classes = plan.info.get("classes")
    if classes is None or np.ndim(read.members[0]) != 2 or list(classes) == list(range(len(classes))):
        return {}
    return {"classes_assumed": True}


def _check(
    read: Predictions,
    call: Mapping[str, Any],
    arguments: CombineArguments,
    options: Mapping[str, Any],
    applied: Predictions | None,
) -> None:
    """Refuse what the run would refuse of the method, the predictions, the answers and the rows to apply to."""
    from kofn.combination.ensembles._task import read_rows, read_task

    words = {word: value for word, value in call.items() if word != "ids"}
    method, given, own = settled("combine", arguments.method, options, words)
    if "y" not in call or method != "weighted_mean":  # beside answers it is another function, which takes them
        fitting("combine", str(method), given, own)
    build("combine", given, call["ids"])
    with checks.naming(items=read.names):
        if "y" in call:
            weights = {word: own.get(word) for word in ("row_weights", "blocks")}
            read_task(read.members, call["y"], own.get("loss"), own.get("quantiles"), own.get("classes"), **weights)
        if applied is not None:
            votes = np.asarray(applied.members[0]).dtype == object
            read_rows(applied.members, _cast(applied.members, own.get("classes"), call.get("y")) if votes else None)
            width, of_blend = (
                np.asarray(members[0]).reshape(len(members[0]), -1).shape[1]
                for members in (applied.members, read.members)
            )
            if width != of_blend:
                raise InputError(f"members have {width} columns, those of the plan have {of_blend}; give the same")


def _refuse_unlike_shapes(paths: Sequence[str], read: Predictions) -> None:
    """Refuse members without answers that are not of the same rows and columns, naming two of them."""
    shapes = [np.shape(member) for member in read.members]
    names = paths if len(paths) == len(shapes) else [f"member {name!r}" for name in read.names]
    other = next((member for member, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is None:
        return
    unlike = (
        f"{names[other]} has {shapes[other][0]} rows, {names[0]} {shapes[0][0]}"
        if shapes[other][0] != shapes[0][0]
        else f"{names[other]} has shape {shapes[other]}, {names[0]} {shapes[0]}"
    )
    raise InputError(
        f"{unlike}; predictions are of the same rows and classes, draws of posteriors are combined by {BY_METHODS}"
    )


def _may_be_chances(read: Predictions) -> bool:
    """Whether the members look like probabilities, which draws of parameters hardly do."""
    from kofn.combination.ensembles._task import are_chances

    arrays = [np.asarray(member) for member in read.members]
    return all(
        array.dtype.kind in "biuf" and are_chances(array.reshape(len(array), -1).astype(np.float64)) for array in arrays
    )


def _as_predictions(paths: Sequence[str], read: Predictions) -> str:
    """What arrays of which nothing says what they are were taken for."""
    files = f"{', '.join(paths[:_LISTED])}{', ...' if len(paths) > _LISTED else ''}"
    held = "one model each" if len(paths) == len(read.names) else f"{len(read.names)} models"
    return (
        f"{files}: taken as predictions of the same rows by {held}, and averaged; draws of posteriors are combined by "
        f"{BY_METHODS}"
    )


def _voted(answers_file: str, arguments: CombineArguments, options: Mapping[str, Any]) -> list[Any]:
    """The classes that columns of text may vote for, where the answers stand in a file of their own."""
    if options.get("classes"):
        return list(options["classes"])
    return np.unique(read_answers(answers_file, arguments.reading, None, arguments.id_column)).tolist()


def _cast(votes: Sequence[Array], classes: Sequence[Any] | None, y: Array | None) -> list[Any]:
    """The classes that votes may be for."""
    cast = {cell for vote in votes for cell in vote.tolist() if cell is not None}
    return list(classes or sorted(cast | set(() if y is None else y.tolist())))


def _applied(
    paths: Sequence[str], read: Predictions, arguments: CombineArguments, classes: Sequence[Any] | None
) -> Predictions:
    """The same members' predictions of other rows, in the same order.

    Raises:
        InputError: other members, or other classes.
    """
    columns = arguments.columns
    if suffix_of(Path(paths[0])) in TABLES and columns is None and len(paths) == 1 and read.source_columns:
        columns = read.source_columns
    votes = [np.asarray(member) for member in read.members if np.asarray(member).dtype == object]
    other = read_predictions(
        paths,
        arguments.reading,
        columns=columns,
        id_column=arguments.id_column,
        group_column=arguments.group_column,
        features=arguments.feature_columns,
        voted=_cast(votes, classes, read.y) if votes else None,
    )
    if read.columns is not None and any(np.asarray(member).dtype == object for member in other.members):
        from kofn.tables.unanswered_predictions import as_shares

        other = as_shares(other, read.columns)
    of_one = len(read.names) == 1 and np.ndim(read.members[0]) == 2 and np.ndim(other.members[0]) == 1
    if (read.columns is not None or of_one) and other.columns is None and len(paths) == 1:
        width = np.shape(read.members[0])[1] if of_one else len(read.columns or ())
        stacked = [np.stack(other.members[low : low + width], axis=1) for low in range(0, len(other.members), width)]
        other = dataclasses.replace(other, names=read.names, members=stacked, columns=read.columns)
    if other.columns is not None and read.columns is not None:
        other = in_order(other, classes or other.columns)
        other = in_order(other, read.columns) if set(other.columns or ()) == set(read.columns) else other
    if set(other.names) == set(read.names):
        position = {name: number for number, name in enumerate(other.names)}
        other = dataclasses.replace(
            other, names=read.names, members=[other.members[position[name]] for name in read.names]
        )
    elif len(other.names) != len(read.names):
        raise InputError(
            f"--apply: {len(paths)} {'file' if len(paths) == 1 else 'files'} of {len(other.names)} predictions for the "
            f"{len(read.names)} models blended; give those of each model, in order"
        )
    return other


def _finish(plan: Blend, read: Predictions, applied: Predictions | None, arguments: CombineArguments) -> None:
    """Write and print the blend."""
    blend, rows = np.asarray(plan.result), read
    if applied is not None:
        from kofn.combination import blend_predictions as again

        if "sum_of" in plan.info:
            groups = None if "given_weights" in plan.info else applied.groups
            blend = np.asarray(again(plan, applied.members, groups, X=applied.features))
        else:
            blend = np.asarray(combine(applied.members, method=arguments.method, weights=plan.weights).result)
        rows = applied
    as_array = arguments.output is not None and suffix_of(Path(arguments.output)) in ARRAYS[:1]
    finish(plan, arguments, None if as_array else lambda: _table(blend, rows, plan))
    if as_array and arguments.output is not None:
        with atomic_path(arguments.output) as temporary, open(temporary, "wb") as file:
            np.save(file, blend)
        WRITTEN.append(arguments.output)
    for warning in plan.info.get("warnings", []):
        click.echo(f"warning: {in_flags(warning)}", err=True)
    say(answer(plan, arguments), lambda: render(plan, len(blend), applied is not None, arguments), arguments.as_json)


def _table(blend: Array, rows: Predictions, plan: Blend) -> Any:
    """One row a prediction, with its id, or its row number."""
    key: dict[str, Any] = {"row": np.arange(len(blend))} if rows.ids is None else {rows.id_name or "id": rows.ids}
    if blend.ndim == 1:
        return pl.DataFrame({**key, "prediction": blend})
    names = rows.columns or plan.info.get("classes") or range(blend.shape[1])
    shares = {str(name): blend[:, column] for column, name in enumerate(names)}
    if plan.info.get("votes") and "prediction" not in {*key, *shares}:
        key["prediction"] = np.array(list(shares))[blend.argmax(axis=1)]  # of equal shares the first class
    return pl.DataFrame({**key, **shares})


def answer(plan: Blend, arguments: CombineArguments) -> dict[str, Any]:
    """The blend for machines."""
    info = plan.info
    frame = plan.to_frame()
    named: dict[str, Any] = {
        name: info[name]
        for name in (
            "loss",
            "classes",
            "classes_assumed",
            "left_out_columns",
            "rows",
            "missing",
            "plain_mean",
            "held_out",
            "on_these_rows",
            "warnings",
            "strategy",
            "n_neighbors",
        )
        if name in info
    }
    return {
        "method": plan.method,
        **named,
        **({} if (of := _probability_of(plan)) is None else {"probability_of": of}),
        "value": plan.value,
        "bound": plan.bound,
        "status": plan.status,
        "seed": plan.seed,
        "members": frame.to_dicts(),
        "output": arguments.output,
        **({"report": arguments.report} if arguments.report else {}),
    }


def _probability_of(plan: Blend) -> Any:
    """The class whose probability the blend of one column is; None of other blends."""
    classes = plan.info.get("classes")
    return classes[1] if classes is not None and len(classes) == 2 and np.ndim(plan.result) == 1 else None


def render(plan: Blend, rows: int, applied: bool, arguments: CombineArguments) -> str:
    """The blend for people: its members, the heaviest first, and what it brings."""
    info = plan.info
    varies = isinstance(plan.weights, dict)
    weights = np.mean(list(plan.weights.values()), axis=0) if varies else np.asarray(plan.weights)
    names = plan.keys(np.arange(plan.n)).tolist()
    used = int(np.count_nonzero(weights))
    of_rows = f" of {info['rows']:,} rows" if "rows" in info else ""
    lines = [f"{plan.method}: the predictions{of_rows} by {used} of {plan.n} models, blended"]
    if "classes_assumed" in info:
        lines.append(f"columns taken as {listed([str(name) for name in info['classes']])}; else --classes")
    if "left_out_columns" in info:
        names_left = listed(info["left_out_columns"])
        lines.append(f"called after no class, so no predictions: {names_left}; else --columns, --id, --feature-columns")
    if info.get("missing"):
        lines.append(f"missing: {info['missing']:,} predictions, each left to the other models of its row")
    single = info.get("single")
    gains = {} if plan.selection is None else dict(zip(plan.selection.indices, plan.selection.gains, strict=True))
    order = np.argsort(-np.abs(weights), kind="stable")[: min(_LISTED, max(used, 1))].tolist()
    for member in order:
        alone = "" if single is None else f"  alone {single[member]:.4g}"
        without = f", the blend without it {_worse(gains[member])}" if len(gains) > 1 and member in gains else ""
        lines.append(f"  {weights[member]:6.3f}  {names[member]}{alone}{without}")
    if used > _LISTED:
        lines.append(f"  ... and {used - _LISTED} more")
    if varies:
        lines.append(f"weights are means over {len(plan.weights)} parts of the rows, each with its own")
    if "strategy" in info:
        near = "" if info["n_neighbors"] is None else f", by the {info['n_neighbors']} rows near each row"
        lines.append(f"chosen among {max(len(info['tried']), 1)} strategies: {info['strategy']}{near}")
    if "final" in info:
        drawn = (
            info["penalty"] if isinstance(info["penalty"], str) else f"drawn back by a penalty of {info['penalty']:g}"
        )
        lines.append(f"of {len(info['tried'])} ways the least cross-validated loss had {info['final']}: {drawn}")
    lines += [*brings(plan), *drawn_lines(plan, arguments.seed, "this blend")]
    if arguments.output:
        of = _probability_of(plan)
        stands_for = "" if of is None or list(info["classes"]) == [0, 1] else f" (the probability of {of})"
        lines.append(f"blend of {rows:,} {'other ' if applied else ''}rows{stands_for} -> {arguments.output}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    lines += [in_flags(warning) for warning in info.get("warnings", []) if warning.startswith("this blend's")]
    return "\n".join(lines)


def _worse(gain: float) -> str:
    return f"loses {gain:.2g} more" if gain > 0 else f"loses {-gain:.2g} less" if gain < 0 else "the same"


def brings(plan: Blend) -> list[str]:
    """What the blend loses on its own rows, and on rows that did not choose it, against the best model and the mean."""
    info = plan.info
    if "divergence" in info:
        return [
            f"{info['loss_of']} on these rows: {info['blend_loss']:.4g}; mean of all {info['plain_mean']:.4g}",
            f"{info['divergence']} to the posterior over all: {plan.value:.4g}; as many members get to no less than "
            f"{plan.bound:.4g}",
        ]
    if "loss" not in info:
        return []
    from kofn.report.predictions import given_verdict, verdicts

    # No loss is below 0 anyhow.
    bound = "" if plan.bound is None or plan.bound <= 0 else f"; no weighted mean gets below {plan.bound:.4g}"
    chose = "" if "given_weights" in info else ", which chose"
    single = np.asarray(info["single"])
    best = (
        f"; best model {single.max() if plan.sense == 'max' else single.min():.4g}" if "on_these_rows" in info else ""
    )
    lines = [
        f"{info['loss']} on these rows{chose}: {plan.value:.4g}; mean of all {info['plain_mean']:.4g}{best}{bound}"
    ]
    held_out = info.get("held_out")
    if held_out is None:
        return [*lines, *(given_verdict(plan, mean=" (without --weights)") if best else [])]
    lines.append(
        f"{info['loss']} on rows that did not choose ({held_out['folds']} folds): blends chosen anew by the others "
        f"{held_out['blend']:.4g}, best model {held_out['best_single']:.4g}, mean of all {held_out['plain_mean']:.4g}"
    )
    return [*lines, *verdicts(plan, mean=" (-m weighted_mean)")]
