"""Names that import their module on first use (PEP 562), so that `import kofn` stays light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Later(ModuleType):
    """A module that is imported when the first of its names is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


# polars takes a third of a second to load, which commands on arrays and checkpoints need not wait for.
if TYPE_CHECKING:
    import polars
else:
    polars = _Later("polars")


def attach(
    package: str, homes: Mapping[str, str], *, packages: Collection[str] = (), extra: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose names live in its submodules.

    Args:
        package: the package's `__name__`.
        homes: the submodule of each name, relative to the package.
        packages: its own packages that are found without importing them first.
        extra: the optional dependency group without which the submodules cannot be imported, which is named like the
            package it installs.
    """

    def load(name: str) -> Any:
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f"{package}.{homes[name]}")
        except ModuleNotFoundError as error:
            if extra is None or error.name != extra:
                raise
            # Importing the checks imports NumPy, which `import kofn` must not wait for.
            from kofn.core.checks import InputError

            raise InputError(f"{package}.{name} needs {extra}: pip install 'kofn[{extra}]'") from None
        return getattr(module, name)

    names = sorted(homes)
    return load, lambda: sorted({*names, *packages}), names
