"""Prints constraints for pip: `oldest`, the releases that pyproject.toml allows; `newest`, those installed here."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

REQUIREMENT = re.compile(r"([\w.-]+)(?:>=|==)([\w.]+)")


def oldest() -> dict[str, str]:
    """The oldest release of each dependency of the library and of its tests."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in ("test", "datasets", "neighbors", "opt", "plot"):
        wanted += project["optional-dependencies"][extra]
    bounds = (REQUIREMENT.fullmatch(requirement) for requirement in wanted)
    return {bound[1]: bound[2] for bound in bounds if bound}


def newest() -> dict[str, str]:
    """The releases of the same that are installed here, for the tests to be run with."""
    return {name: metadata.version(name).partition("+")[0] for name in oldest()}


if __name__ == "__main__":
    for name, release in {"oldest": oldest, "newest": newest}[sys.argv[1]]().items():
        print(f"{name}=={release}")
