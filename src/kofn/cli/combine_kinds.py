"""What kind of members `kofn combine` was given, told without importing what combines the other kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kofn.cli.combine_arguments import CombineArguments
from kofn.core.checks import InputError
from kofn.io.reading import suffix_of
from kofn.tables.read import ARRAYS, TABLES

_OF_DRAWS = ("combination/posteriors", "combination/task_posteriors")


def are_draws(arguments: CombineArguments) -> bool:
    """Whether the method is one of draws of posteriors."""
    return arguments.entry is not None and arguments.entry.family in _OF_DRAWS


def refuse_unnamed_draws(arguments: CombineArguments) -> None:
    """Refuse an archive as the output where no method says that draws are combined."""
    if arguments.output is not None and suffix_of(Path(arguments.output)) == ARRAYS[1] and arguments.method == "auto":
        from kofn.tables.draws import BY_METHODS

        raise InputError(
            f"-o {arguments.output}: an archive gets draws of posteriors, by {BY_METHODS}; blended predictions go to "
            ".npy or a table"
        )


def are_predictions(members: Sequence[str], arguments: CombineArguments) -> bool:
    """Whether the members are predictions: arrays, or tables with --label or a method of members."""
    suffix = suffix_of(Path(members[0]))
    if arguments.answers is None:
        entry = arguments.entry
        if suffix in TABLES and entry is not None and "members" in entry.required and "y" not in entry.required:
            return True
        if arguments.apply or arguments.k is not None or arguments.feature_columns:
            flag = "--apply" if arguments.apply else "-k" if arguments.k is not None else "--feature-columns"
            raise InputError(f"{flag} is of predictions, which are held against answers: give --label COL or FILE")
        return suffix in ARRAYS
    if suffix not in (*ARRAYS, *TABLES):
        raise InputError(f"--label: {members[0]} holds no predictions; give .npy, .npz or a table")
    return True
