"""The command of a verb: its own flags in sections, and those of the method that `--method` names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from kofn.cli.flags import Flag
from kofn.core import dispatch, registry
from kofn.core.vocabulary import reversed_as, synonym

_TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
# What `--help` shows of a value of each type.
_METAVARS = {"int": "INTEGER", "float": "NUMBER", "str": "TEXT"}


@dataclass(frozen=True)
class Section:
    """Flags that stand under one heading in `--help`."""

    title: str
    flags: tuple[click.Option, ...]


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    """The word that the files of a blend are of, by their suffixes: a table without answers ranks its rows."""
    files = params.get("members")
    if not files:
        return {}
    ranks = params.get("label") is None and all(str(file).lower().endswith(_TABLES) for file in files)
    return {"rankings" if ranks else "members": files}


class VerbCommand(click.Command):
    """A command with sections of flags that also takes, as a flag, every option that a method of its verb has."""

    def __init__(self, *args: Any, verb: str, sections: Sequence[Section], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verb = verb
        self.sections = tuple(sections)
        self.params += [flag for section in sections for flag in section.flags]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Words of Python are flags as they are: --n_init is --n-init.
        args = [re.sub(r"^--\w+", lambda flag: flag[0].replace("_", "-"), word) for word in args]
        # A fresh command for this one parse, so that nothing leaks into the next call of the process.
        ctx.command = command = _WithMethod(self, _typed(args, "--method", "-m"), self._method_flags(ctx, args))
        return command.parse_args(ctx, args)

    def _method_flags(self, ctx: click.Context, args: Sequence[str]) -> list[click.Option]:
        """Flags of the method that is named, and of other methods and the objective where they are typed: the verb then
        says whose they are."""
        methods = dispatch.methods_of(self.verb)
        named = methods.get(_typed(args, "--method", "-m") or "")
        own = {name.lstrip("-") for param in self.params for name in (*param.opts, *param.secondary_opts)}
        unknown = {re.sub(r"^--(no-)?", "", word.partition("=")[0]) for word in args if word.startswith("--")} - own
        flags: dict[str, click.Option] = {}
        for entry in methods.values() if named is None else (named, *methods.values()):
            for name in entry.options:
                flag = name.replace("_", "-")
                if name not in flags and flag not in own and (entry is named or flag in unknown):
                    flags[name] = _flag(entry, name)
        objective = _typed(args, "--objective")
        if objective and unknown - {name.replace("_", "-") for name in flags}:
            from kofn.objectives.base import parameters_of

            parameters = {name for name in parameters_of(objective) if name.replace("_", "-") in unknown}
            flags |= {name: _value_flag(name) for name in parameters - flags.keys()}
        for name in unknown - {name.replace("_", "-") for name in flags}:
            ours = synonym(name.replace("-", "_"), self.verb)
            if ours is None:
                continue
            word = ours.replace("_", "-")
            if word in own or any(ours in entry.options for entry in methods.values()):
                hint = f"did you mean '--{word}'{reversed_as(name.replace('-', '_'))}?"
                raise click.UsageError(f"No such option '--{name}'; {hint}", ctx)
        return list(flags.values())


def _needed_of(entry: registry.Entry) -> str:
    """What the options without default are, after the call that names them."""
    sentences = {name: entry.docs[name].rstrip(".") for name in sorted(entry.needed_options) if name in entry.docs}
    return "".join(f"; {name}: {sentence}" for name, sentence in sentences.items())


class _WithMethod(click.Command):
    """A verb's command grown by the flags of one method, which its help describes."""

    def __init__(self, command: VerbCommand, method: str | None, added: list[click.Option]) -> None:
        super().__init__(command.name, params=[*command.params, *added], callback=command.callback, help=command.help)
        self.verb = command.verb
        self.sections = command.sections
        self.entry = dispatch.methods_of(command.verb).get(method or "")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        if ctx.params["method"] != "auto":
            # Before files are read: what they lack for another method says nothing of a name that is misspelt.
            dispatch.named(self.verb, ctx.params["method"], _given(ctx.params))
        if self.entry is not None and self.entry.python_only:
            raise click.UsageError(
                f"{self.entry.name} is called from Python, as no file holds what it takes or returns: "
                f"{self.entry.python_call}{_needed_of(self.entry)}",
                ctx,
            )
        return rest

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        if self.entry is None:
            self.format_help_text(ctx, formatter)
            write_sections(self.sections, ctx, formatter)
            return
        entry = self.entry
        facts = {
            "does": entry.summary,
            "call": f"from Python only: {entry.python_call}" if entry.python_only else "",
            "needs": entry.inputs,
            "takes": ", ".join(entry.accepted),
            "exact": entry.exact,
            "cost": entry.cost,
            "paper": entry.paper,
        }
        with formatter.section(f"Method {entry.name}"):
            formatter.write_dl([(name, fact) for name, fact in facts.items() if fact])
        rows = []
        for param in self.params:
            if param.name in entry.options and (record := param.get_help_record(ctx)):
                # What a flag of the command takes (a file, a column) is said there and not in the docstring.
                text = getattr(param, "help", None) or _sentence(entry, param.name)
                rows.append((record[0], f"{text}{_default(entry.options[param.name])}"))
        if rows:
            with formatter.section(f"Options of {entry.name}"):
                formatter.write_dl(rows)
        write_sections(self.sections, ctx, formatter, without=set(entry.options))


def write_sections(
    sections: Sequence[Section],
    ctx: click.Context,
    formatter: click.HelpFormatter,
    without: set[str] | frozenset[str] = frozenset(),
) -> None:
    """The flags of each section, below its title; those named in `without` are left out."""
    for section in sections:
        records = [flag.get_help_record(ctx) for flag in section.flags if flag.name not in without]
        if rows := [record for record in records if record]:
            with formatter.section(section.title):
                formatter.write_dl(rows)


def _sentence(entry: registry.Entry, option: str) -> str:
    """The first sentence of what the method says of its option."""
    text = re.split(r"(?<=[^.]\.)\s+(?=[A-Z])", entry.docs.get(option, ""))[0]
    return text[:1].upper() + text[1:]


def _default(shown: str) -> str:
    if shown == registry.REQUIRED:
        return "  [required]"
    return "" if shown == "None" else f"  [default: {shown}]"


def _typed(args: Sequence[str], *flags: str) -> str | None:
    """The value that a flag is typed with."""
    for i, word in enumerate(args):
        flag, equals, value = word.partition("=")
        if flag in flags:
            return value if equals else args[i + 1] if i + 1 < len(args) else None
    return None


def _flag(entry: registry.Entry, name: str) -> click.Option:
    """The flag of a method's option."""
    kind = entry.types.get(name, "Any").removesuffix(" | None")
    if kind == "bool" or entry.options[name] in ("True", "False"):
        flag = name.replace("_", "-")
        return Flag([f"--{flag}/--no-{flag}", name], default=None)
    choices = re.fullmatch(r"Literal\[(.*)\]", kind)
    return _value_flag(
        name, re.sub(r"'|\s", "", choices[1]).replace(",", "|") if choices else _METAVARS.get(kind, "VALUE")
    )


def _value_flag(name: str, metavar: str = "VALUE") -> click.Option:
    # The name is given beside the flag: from the flag alone, click would make `C` a `c`.
    return Flag(["--" + name.replace("_", "-"), name], default=None, metavar=metavar)
