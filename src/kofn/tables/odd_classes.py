"""Classes that most likely are none: names that people write where a label is missing, and numbers that measure.

>>> odd_classes(["NA", "FR", "", "NA"], "country")
("2 rows: 'NA' counts as a class of 'country'; if it stands for no label, say --na 'NA'",)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.io.cells import stands_for_nothing
from kofn.io.tables import UNLABELLED


def odd_classes(labels: Array | Sequence[Any], column: str) -> tuple[str, ...]:
    """A line for each class whose name most likely says that a row has no label, and one where classes are none.

    Args:
        labels: (n,) labels, `UNLABELLED` where a row has none.
        column: what they are called.
    """
    names, sizes = np.unique(np.asarray(labels).astype(str), return_counts=True)
    counts = {str(name): int(count) for name, count in zip(names, sizes, strict=True) if name != UNLABELLED}
    odd = [name for name in counts if stands_for_nothing(name)]
    # scikit-learn's sign for rows without a label, beside classes 0, 1, 2, ...
    if "-1" in counts and len(counts) > 1 and all(name.isdigit() for name in counts if name != "-1"):
        odd.append("-1")
    lines = [
        f"{counts[name]:,} {'row' if counts[name] == 1 else 'rows'}: {name!r} counts as a class of {column!r}; "
        f"if it stands for no label, say --na {name!r}"
        for name in odd
    ]
    if _measured(list(counts)):
        lines.append(
            f"{column!r} holds {len(counts):,} different numbers with decimals, and each counts as a class; "
            "if they measure something, cut them into classes first"
        )
    return tuple(lines)


def _measured(names: list[str]) -> bool:
    """True where most classes are numbers with decimals, which measure and name nothing."""
    decimals = 0
    for name in names:
        with contextlib.suppress(ValueError):
            number = float(name)
            decimals += math.isfinite(number) and not number.is_integer()
    return len(names) > 2 and decimals * 2 > len(names)
