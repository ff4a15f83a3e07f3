"""Pools and rules whose work goes wrong on a worker; a module of its own, so that workers can load it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from kofn.combination._sweep.rule import Block, Rule
from kofn.core.checks import InputError
from kofn.core.pools import ArrayPool, Fragment


def numbers() -> Any:
    """3,000 rows of noise."""
    return np.random.default_rng(3).normal(size=(3000, 6)).astype(np.float32)


class Lethal(ArrayPool):
    """The first process that reads the fragment at a row dies of it."""

    def __init__(self, X: Any, row: int, folder: Path) -> None:
        super().__init__(X)
        self.row, self.folder = row, folder

    def read(self, fragment: Fragment) -> Any:
        mark = self.folder / "died"
        if fragment.first_row == self.row and not mark.exists():
            mark.touch()
            os._exit(1)
        return super().read(fragment)


class Slow(ArrayPool):
    """Each fragment takes a while, and says that it was begun."""

    def __init__(self, X: Any, seconds: float, folder: Path) -> None:
        super().__init__(X)
        self.seconds, self.folder = seconds, folder

    def read(self, fragment: Fragment) -> Any:
        (self.folder / f"begun-{fragment.first_row}-{os.getpid()}").touch()
        time.sleep(self.seconds)
        return super().read(fragment)


class Broken(ArrayPool):
    """One fragment cannot be read."""

    def read(self, fragment: Fragment) -> Any:
        if fragment.first_row:
            raise InputError(f"x.parquet, row {fragment.first_row}: not a number")
        return super().read(fragment)


class LethalMean(Rule):
    """The mean of two members; the first process that blends a tensor of this name dies of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def blend(self, block: Block, total: Any, spare: Any) -> bool:
        mark = self.folder / "died"
        if block.span.name == self.name and not mark.exists():
            mark.touch()
            os._exit(1)
        np.add(block.rows[0], block.rows[1], out=total)
        np.divide(total, 2, out=total)
        return False


def max_of(_item: int, block: Any) -> int:
    """The largest value of a shared array."""
    return int(block.max())
