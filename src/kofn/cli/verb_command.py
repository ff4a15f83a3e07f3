"""The command of a verb: its own flags in sections, and those of the method that `--method` names."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from kofn.core import dispatch, registry
from kofn.core.signatures import described


@dataclass(frozen=True)
class Section:
    """Flags that stand under one heading in `--help`."""

    title: str
    flags: tuple[click.Option, ...]


class VerbCommand(click.Command):
    """A command with sections of flags that also takes, as a flag, every option that a method of its verb has."""

    def __init__(self, *args: Any, verb: str, sections: Sequence[Section], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verb = verb
        self.sections = tuple(sections)
        self.params += [flag for section in sections for flag in section.flags]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # A fresh command for this one parse, so that nothing leaks into the next call of the process.
        ctx.command = command = _WithMethod(self, _named_method(args), self._method_flags(args))
        return command.parse_args(ctx, args)

    def _method_flags(self, args: Sequence[str]) -> list[click.Option]:
        """Flags of the method that is named, and of others where they are used: the verb then says whose they are."""
        methods = dispatch.methods_of(self.verb)
        own = {flag for param in self.params for flag in (*param.opts, *param.secondary_opts)}
        named = methods.get(_named_method(args) or "")
        options = dict(named.options) if named else {}
        typed = {re.sub(r"^--(no-)?", "", word.partition("=")[0]) for word in args if word.startswith("--")}
        for entry in methods.values():
            options |= {
                name: default
                for name, default in entry.options.items()
                if name.replace("_", "-") in typed and name not in options
            }
        flags = [_flag(name, default) for name, default in options.items()]
        return [flag for flag in flags if not own & set(flag.opts)]


class _WithMethod(click.Command):
    """A verb's command grown by the flags of one method, which its help describes."""

    def __init__(self, command: VerbCommand, method: str | None, added: list[click.Option]) -> None:
        super().__init__(command.name, params=[*command.params, *added], callback=command.callback, help=command.help)
        self.sections = command.sections
        self.entry = dispatch.methods_of(command.verb).get(method or "")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_usage(ctx, formatter)
        if self.entry is None:
            self.format_help_text(ctx, formatter)
            write_sections(self.sections, ctx, formatter)
            return
        entry = self.entry
        facts = {
            "does": entry.summary,
            "needs": entry.inputs,
            "takes": ", ".join(entry.accepted),
            "exact": entry.exact,
            "cost": entry.cost,
            "paper": entry.paper,
        }
        with formatter.section(f"Method {entry.name}"):
            formatter.write_dl([(name, fact) for name, fact in facts.items() if fact])
        sentences = sentences_of(entry)
        rows = []
        for param in self.params:
            if param.name in entry.options and (record := param.get_help_record(ctx)):
                default = entry.options[param.name]
                shown = "required" if default == registry.REQUIRED else f"default: {default}"
                rows.append((record[0], f"{sentences.get(param.name, record[1])}  [{shown}]".strip()))
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


def sentences_of(entry: registry.Entry) -> Mapping[str, str]:
    """The first sentence of what the method's docstring says of each of its own options."""
    texts = described(inspect.cleandoc(entry.load().__doc__ or ""))
    return {
        name: re.split(r"(?<=[^.]\.)\s+(?=[A-Z])", text)[0] for name, text in texts.items() if name in entry.options
    }


def _named_method(args: Sequence[str]) -> str | None:
    for i, word in enumerate(args):
        if word.startswith("--method="):
            return word.split("=", 1)[1]
        if word in ("--method", "-m") and i + 1 < len(args):
            return args[i + 1]
    return None


def _flag(name: str, shown: str) -> click.Option:
    """The flag of a method's option, whose default is given as Python text."""
    try:
        default = ast.literal_eval(shown)
    except (ValueError, SyntaxError):
        default = None
    flag = "--" + name.replace("_", "-")
    if isinstance(default, bool):
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help="")
    # The name is given beside the flag: from the flag alone, click would make `C` a `c`.
    metavar = type(default).__name__.upper() if default is not None else "VALUE"
    return click.Option([flag, name], default=None, help="", metavar=metavar)
