"""Names that import their module on first use (PEP 562), so that `import kofn` stays light."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def lazy(package: str, homes: Mapping[str, str], name: str) -> Any:
    """The attribute `name` of the submodule that `homes` gives it."""
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
