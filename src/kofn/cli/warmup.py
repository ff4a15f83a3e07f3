"""`kofn warmup`: compile the kernels once; they are cached on disk."""

from __future__ import annotations

import importlib
import time

import click

KERNELS = ("kofn.objectives._kernels", "kofn.assignment._kernels")


@click.command("warmup", short_help="Compile the kernels.")
def command() -> None:
    """Compile every kernel now, so that the first real call does not wait. Compiled code is kept on disk."""
    began = time.perf_counter()
    for module in KERNELS:
        importlib.import_module(module)
    click.echo(f"kernels of {len(KERNELS)} families ready in {time.perf_counter() - began:.1f} s")
