"""The command line: `kofn select | assign | allocate | combine | compare | find | methods | warmup`.

Each command lives in its own file and is imported when it is called, so that `kofn --help` loads nothing heavy.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from kofn._interrupts import Interrupts, handled, settle
from kofn._version import __version__

# command -> what `kofn --help` says of it.
COMMANDS = {
    "select": "Pick which rows of a file to keep, and say why.",
    "assign": "Put the rows of a file into groups, or items into bins with a capacity.",
    "allocate": "Share a budget over items from their loss-by-level curves.",
    "combine": "Blend checkpoints into one, or judges' scores into one ranking.",
    "compare": "Try ways to pick rows to label on rows that have labels.",
    "find": "Find what answers a question: methods, objectives, steppers, modules and helpers.",
    "methods": "List the methods, or those that fit the arguments you have.",
    "warmup": "Compile the kernels once, so that the first real call does not wait.",
}


class _Commands(click.Group):
    """The commands, each imported when it is called. What was typed is the context's object: reports show it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = ("kofn", *args)
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"kofn.cli.{cmd_name}").command
        settle()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from kofn.core.checks import nearest

            raise click.UsageError(f"no command {args[0]!r}{nearest(args[0], (*COMMANDS, 'help'))}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="kofn")
@click.pass_context
def app(ctx: click.Context) -> int | None:
    """Decide, for a pool of n things and a budget, which to keep, where each goes, how much each gets, and how to blend
    them into one.

    \b
    kofn select pool.parquet --text body -k 500 -o picks.parquet --report picks.html
    kofn assign points.npy --k 20 -o groups.parquet
    kofn allocate curves.csv --budget 4 -o amounts.csv
    kofn combine a/ b/ --weights .7,.3 -o merged/
    kofn find near duplicates

    Exit codes: 0 done; 1 failed; 2 wrong arguments or data; 3 fewer picks than asked for; 130 interrupted (Ctrl-C,
    SIGTERM, SIGHUP), nothing written. A first interrupt keeps what is valid by then, a second one ends at once.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return 2
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every failure is one line on stderr, never a traceback.

    Exit code: 0 done, 1 a failure, 2 usage or data, 3 fewer picks than asked for, 130 interrupted.
    """
    _written().clear()
    with handled() as interrupts:
        try:
            code = _run(arguments, interrupts)
        except BaseException as error:
            # What an interrupt broke fails in any words.
            if not (interrupts.received or _follows_interrupt(error)):
                raise
            code = _interrupted(error)
    sys.exit(code)


def _run(arguments: Sequence[str] | None, interrupts: Interrupts | None = None) -> int:
    # What a library warns of is a line like every other, without its place in our source.
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _code(arguments, interrupts)


def _code(arguments: Sequence[str] | None, interrupts: Interrupts | None) -> int:
    """Exit code of a command line, after saying what went wrong."""
    try:
        result = app.main(args=None if arguments is None else list(arguments), prog_name="kofn", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "kofn"
        message = " ".join(error.format_message().split())
        _say(f"{message}{'' if message.endswith(('.', '?')) else ';'} see `{path} --help`")
        return 2
    except (click.exceptions.Abort, KeyboardInterrupt) as stop:
        return _interrupted(stop.__cause__ or stop)
    except MemoryError as error:
        _say(f"out of memory ({error or 'allocation failed'}); lower --max-memory or give a smaller pool")
        return 1
    except BrokenPipeError:
        # The reader of our output went away (`kofn ... | head`): not an error, but stdout must not be flushed again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        broken_off = (interrupts is not None and interrupts.received) or _follows_interrupt(error)
        code = None if broken_off else _expected(error)
        if code is None:
            raise
        return code


def _written() -> list[str]:
    """The files that this command has written so far."""
    paths: list[str] = getattr(sys.modules.get("kofn.cli.write"), "WRITTEN", [])
    return paths


def _interrupted(stop: BaseException) -> int:
    """Exit code of an interrupt, after saying what was written."""
    written = _written()
    done = f"written before that: {', '.join(written)}" if written else "no output was written"
    _say("; ".join(["interrupted", done, *getattr(stop, "__notes__", [])]))
    return 130


def _follows_interrupt(error: BaseException | None) -> bool:
    """Whether the error came of a KeyboardInterrupt, or while one was handled."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def _expected(error: Exception) -> int | None:
    """Exit code of an error that has a place in the contract, after saying it; None for a bug of ours."""
    from kofn.core.checks import InputError, KofnError

    if isinstance(error, KofnError):
        from kofn.tables.spelling import constraints_in_flags, needs_in_flags

        _say(constraints_in_flags(needs_in_flags(str(error))))
        return 2 if isinstance(error, InputError) else getattr(error, "exit_code", 1)
    if isinstance(error, OSError) and error.errno is not None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror}" + ("; free some space, the old output is untouched" if full else ""))
        return 1
    return None


def _warn(message: Warning | str, *_where: Any, **_more: Any) -> None:
    _say(f"warning: {message}")


def _say(message: str) -> None:
    click.echo("kofn: " + " ".join(message.split()), err=True)
