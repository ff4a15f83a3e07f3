"""Options that several commands share, and the ones that a method adds to its verb."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np

from kofn.core import checks, dispatch, registry
from kofn.core.checks import InputError


class VerbCommand(click.Command):
    """A verb's command: `--method M` adds M's own options, and `--help` then describes M."""

    def __init__(self, *args: Any, verb: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.verb = verb

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        name = _peek(args)
        entry = dispatch.methods_of(self.verb).get(name) if name else None
        if entry is not None:
            taken = {flag for param in self.params for flag in param.opts}
            added = [option for option in map(_option, entry.options.items()) if not taken & set(option.opts)]
            # A fresh command for this one parse, so that nothing leaks into the next call of the process.
            ctx.command = grown = _Grown(self, added, entry)
            return click.Command.parse_args(grown, ctx, args)
        return super().parse_args(ctx, args)


class _Grown(click.Command):
    def __init__(self, parent: VerbCommand, added: list[click.Option], entry: registry.Entry) -> None:
        super().__init__(parent.name, params=[*parent.params, *added], callback=parent.callback, help=parent.help)
        self.own, self.entry = added, entry

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        entry = self.entry
        self.format_usage(ctx, formatter)
        with formatter.section(f"Method {entry.name}"):
            facts = [
                ("does", entry.summary),
                ("needs", entry.inputs),
                ("takes", ", ".join(entry.accepted)),
                ("exact", entry.exact),
                ("cost", entry.cost),
                ("paper", entry.paper),
            ]
            formatter.write_dl([fact for fact in facts if fact[1]])
        if self.own:
            described = described_options(entry)
            with formatter.section(f"Options of {entry.name}"):
                for option in self.own:
                    name = str(option.name)
                    option.help = f"{described.get(name, '')}  [default: {entry.options[name]}]".strip()
                formatter.write_dl([row for option in self.own if (row := option.get_help_record(ctx))])
        rest = [param for param in self.params if param not in self.own]
        with formatter.section("Options"):
            formatter.write_dl([row for param in rest if (row := param.get_help_record(ctx))])


def _peek(args: Sequence[str]) -> str | None:
    for place, word in enumerate(args):
        if word.startswith("--method="):
            return word.split("=", 1)[1]
        if word in ("--method", "-m") and place + 1 < len(args):
            return args[place + 1]
    return None


def described_options(entry: registry.Entry) -> dict[str, str]:
    """What the method's docstring says of each of its own options."""
    lines = inspect.cleandoc(entry.load().__doc__ or "").splitlines()
    said: dict[str, str] = {}
    current = None
    for line in lines:
        name, colon, text = line.strip().partition(":")
        if colon and name in entry.options:
            current = name
            said[name] = text.strip()
        elif current and line.startswith("        "):
            said[current] += " " + line.strip()
        else:
            current = None
    return said


def _option(item: tuple[str, str]) -> click.Option:
    name, shown = item
    try:
        default = ast.literal_eval(shown)
    except (ValueError, SyntaxError):
        default = None
    flag = "--" + name.replace("_", "-")
    if isinstance(default, bool):
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=shown)
    # The name as it is: from the flag alone, click would make `C` a `c`.
    return click.Option(
        [flag, name],
        default=None,
        help=shown,
        metavar=type(default).__name__.upper() if default is not None else "VALUE",
    )


def method_options(verb: str, method: str, extra: Sequence[str], passed: dict[str, Any]) -> dict[str, Any]:
    """The method's own options, from `--option key=value` and from its own flags, as Python values."""
    options: dict[str, Any] = {}
    for pair in extra:
        key, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--option {pair!r}: write key=value, for example --option n_strata=50")
        options[key.strip().replace("-", "_")] = literal(text)
    entry = dispatch.methods_of(verb).get(method)
    for name, value in passed.items():
        if value is not None and entry is not None and name in entry.options:
            options[name] = literal(value) if isinstance(value, str) else value
    return options


def literal(text: str) -> Any:
    """A Python value where the text is one (50, 0.1, true, [1, 2]), an array for @file.npy, else the text itself."""
    if text.startswith("@"):
        return _array(text[1:])
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _array(path: str) -> Any:
    """The array of an .npy file, or the only one of an .npz file."""
    from kofn.io.tables import one_line

    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"@{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"@{path} is not an array ({one_line(error)}); give an .npy file") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if len(loaded.files) != 1:
            raise InputError(f"@{path} holds {len(loaded.files)} arrays ({', '.join(loaded.files)}); give an .npy file")
        return loaded[loaded.files[0]]


def shared(*, output: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that every verb has."""
    rows = [
        click.option("-o", "--output", metavar="PATH", help=output),
        click.option("--report", metavar="HTML", help="Write a self-contained report of the answer."),
        click.option(
            "-m",
            "--method",
            default="auto",
            show_default=True,
            help="See `kofn methods`; `--method M --help` shows M's options.",
        ),
        click.option(
            "-O", "--option", "extra", multiple=True, metavar="KEY=VALUE", help="An option of the method (repeatable)."
        ),
        click.option("--seed", type=int, help="Same seed, same answer."),
        click.option("--max-memory", metavar="BYTES", help="What the work may hold, for example 600MB."),
        click.option("--threads", type=int, help="Threads; the answer is the same for any number."),
        click.option("--time-limit", type=float, metavar="SECONDS", help="Stop then and keep what is valid."),
        click.option("--dry-run", is_flag=True, help="Say seconds, bytes and exactness beforehand, and stop."),
        click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
        click.option(
            "--plan", "plan_path", metavar="PATH", help="Save the plan itself, for kofn.core.plans.Plan.load."
        ),
    ]

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for row in reversed(rows):
            function = row(function)
        return function

    return add


def settings(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, under their vocabulary names."""
    given = {
        "seed": values.get("seed"),
        "max_memory": values.get("max_memory"),
        "n_threads": values.get("threads"),
        "time_limit": values.get("time_limit"),
        "progress": True,
    }
    if given["max_memory"] is not None:
        given["max_memory"] = checks.bytes_of(given["max_memory"], "--max-memory")
    return {name: value for name, value in given.items() if value is not None}


def numbers(text: str | None, name: str) -> list[float] | None:
    """A comma-separated list of numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{name} {text!r}: give numbers with commas between, for example .5,.3,.2") from None
