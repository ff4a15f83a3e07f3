"""From the word `engine=` to an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kofn.core.checks import InputError
from kofn.engines.base import Engine


@contextmanager
def opened(engine: Any, n_threads: int | None = None) -> Iterator[Engine]:
    """The engine that a call names, for as long as the block runs; one that the user made stays open.

    Args:
        engine: None or "local", "ray", "ray:HOST:PORT" or "ray:auto" (a node of the cluster), "ray://HOST:PORT" (Ray's
            client), or an engine.
        n_threads: how many workers a local engine has, or a Ray that this starts.
    """
    if not isinstance(engine, str | None):
        yield engine
        return
    made: Engine
    if engine is None or engine == "local":
        from kofn.engines.local import Local  # with multiprocessing, which most commands do without

        made = Local(n_threads)
    else:
        from kofn.engines.ray import Ray

        address = engine if engine.startswith("ray://") else engine.removeprefix("ray").removeprefix(":")
        made = Ray(address=address or None, workers=n_threads)
    try:
        yield made
    finally:
        made.close()


def elsewhere(engine: Any) -> bool:
    """Whether work goes to tasks of an engine, and not to threads of this process."""
    return engine is not None and engine != "local"


def addressed(engine: Any, address: str | None) -> Any:
    """The word `engine=` of what was typed as `--engine` and `--address`.

    Raises:
        InputError: an address of another engine than Ray.

    Examples:
        >>> addressed("ray", "head:6379"), addressed("ray", "ray://head:10001"), addressed(None, None)
        ('ray:head:6379', 'ray://head:10001', None)
    """
    if address is None:
        return engine
    if engine != "ray":
        raise InputError(f"--address {address} is of a Ray cluster; say --engine ray too, or leave it out")
    return address if address.startswith("ray://") else f"ray:{address}"
