"""`kofn warmup`: compile the kernels once; they are cached on disk."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import click

import kofn


def kernels() -> list[str]:
    """The modules of compiled code, which are named alike."""
    root = Path(kofn.__file__).parent
    return sorted(
        ".".join(("kofn", *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*kernels.py")
    )


@click.command("warmup", short_help="Compile the kernels.")
def command() -> None:
    """Compile every kernel now, so that the first real call does not wait. Compiled code is kept on disk."""
    began = time.perf_counter()
    modules = kernels()
    for module in modules:
        importlib.import_module(module)
    click.echo(f"kernels of {len(modules)} families ready in {time.perf_counter() - began:.1f} s")
