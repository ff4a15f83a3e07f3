"""What `--dedupe` without a number of picks has no use for: it keeps every row but near-duplicates, and ranks none."""

from __future__ import annotations

import dataclasses

from kofn.core.checks import InputError
from kofn.core.vocabulary import LIMITS
from kofn.tables.select_arguments import SelectArguments

# What reads and writes the rows, and settings that change no answer.
_OF_ANY_CALL = {
    *("typed", "method", "output", "report", "as_json", "dry_run", "rows_of_whole", "progress", "seed", "n_threads"),
    *("drop", "na", "decimal", "delimiter", "encoding", "drop_empty", "impute"),
}
# What says which rows are near, and which of them stays.
_OF_DUPLICATES = {
    *("text", "vectors", "columns", "id_column", "dedupe", "dropped", "private"),
    *("score_column", "label_column", "include", "exclude"),
}
# What says where vectors that are read in parts are compared, and what that may take.
_OF_PARTS = {"engine", "address", "work", "max_memory"}
_FLAGS = {
    "by_scores": "--scores",
    "by_rankings": "--rankings",
    "every": "--all",
    "plan_path": "--plan",
    "no_cache": "--no-cache",
}
# Those of whose picks there are none.
_OF_PICKS = ("plan_path", "export")
_WHY = {
    "embedder": "compares texts as they are written; to compare by meaning, give vectors by --vectors",
    "no_cache": "has no model whose vectors would be kept",
    "every": "writes the rows that stay alone",
}
_LEAVE = "leave it out, or say how many to pick with -k"


def refuse_unused(arguments: SelectArguments, *, in_parts: bool = False) -> None:
    """Refuse what was given and would change nothing, where near-duplicates are all that is asked about.

    Args:
        arguments: what was typed.
        in_parts: whether the rows' vectors are read in parts.

    Raises:
        InputError: naming the first such flag.
    """
    if not arguments.only_dedupes:
        return
    used = _OF_ANY_CALL | _OF_DUPLICATES
    if arguments.columns:
        used.add("categories")
    if not arguments.text and not arguments.columns:
        used.add("metric")
    if arguments.engine == "local":
        used.add("engine")
    if in_parts:
        used |= _OF_PARTS
    plain = SelectArguments()
    for field in dataclasses.fields(arguments):
        if field.name not in used and getattr(arguments, field.name) != getattr(plain, field.name):
            raise InputError(_refusal(arguments, field.name))


def _refusal(arguments: SelectArguments, name: str) -> str:
    if name == "own_options":
        name = next(iter(arguments.own_options))
    flag = _FLAGS.get(name, "--" + name.removesuffix("_column").replace("_", "-"))
    if name in _OF_PICKS:
        return f"{flag} is of picks; say how many with -k, or leave it out to keep all but near-duplicates"
    if name in LIMITS:
        return f"--dedupe without -k cannot keep {flag} {getattr(arguments, name)}; leave it out"
    if name == "metric":
        compared = "compares texts as they are written" if arguments.text else "asks whether rows agree in --columns"
        return f"--metric {arguments.metric}: --dedupe without -k {compared}; {_LEAVE}"
    why = _WHY.get(name, "keeps every row but near-duplicates and has no use for it")
    return f"{flag}: --dedupe without -k {why}; {_LEAVE}"
