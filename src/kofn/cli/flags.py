"""A flag that may be typed twice where that has a meaning, and is refused where one of the values would be lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kofn.core.checks import InputError, names_a_file
from kofn.tables.arguments import KeysOf


class Flag(click.Option):
    """An option that is given once: click would keep the last of several values without a word.

    A type with `accumulates` (names and ids with commas between) takes what every turn of the flag names.
    """

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        keeping: Any = _Keeping(parser)
        super().add_to_parser(keeping, ctx)

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        given = opts.get(self.name or "")
        if isinstance(given, list) and not (self.multiple or self.count):
            opts = {**opts, self.name or "": self._one_of(given)}
        return super().handle_parse_result(ctx, opts, args)

    def _one_of(self, given: list[Any]) -> Any:
        """What the values that were typed stand for together."""
        values = list(dict.fromkeys(given))
        if len(values) == 1:
            return values[0]
        accumulate = getattr(self.type, "accumulates", None)
        if accumulate is not None:
            return accumulate(values)
        if isinstance(values[0], bool):
            raise InputError(f"{self.opts[0]} and {(*self.secondary_opts, self.opts[0])[0]} are both given; give one")
        name = max(self.opts, key=len) if len(self.opts[0]) < len("--x") else self.opts[0]
        shown = f"{', '.join(map(str, values[:-1]))} and {values[-1]}"
        raise InputError(f"{name} is given {_times(len(values))}, {shown}; give it once")


class _Keeping:
    """A parser of click's that keeps every value of an option, in place of the last."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser

    def add_option(self, *args: Any, action: str | None = None, **settings: Any) -> None:
        kept = (action or "store").replace("store", "append")
        self.parser.add_option(*args, action=kept, **settings)


class Names(click.ParamType):
    """Words with commas between."""

    name = "names"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> tuple[str, ...]:
        return tuple(name.strip() for name in value.split(","))

    def accumulates(self, values: list[str]) -> str:
        return ",".join(values)


class Columns(Names):
    """Names of columns with commas between, as they are typed: a name may hold spaces and commas of its own."""

    name = "columns"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> tuple[str, ...]:
        return tuple(value.split(","))


class Ids(click.ParamType):
    """Ids with commas between, or a file of them."""

    name = "ids"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> Any:
        return value

    def accumulates(self, values: list[str]) -> str | KeysOf:
        """All ids as one text, or, where files are among them, each for itself."""
        return KeysOf(values) if any(map(names_a_file, values)) else ",".join(values)


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
