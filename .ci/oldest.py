"""Prints the oldest release of each dependency that pyproject.toml allows, one a line: a constraints file for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in ("test", "datasets", "neighbors", "opt", "plot"):
    wanted += project["optional-dependencies"][extra]
for requirement in dict.fromkeys(wanted):
    if bound := re.fullmatch(r"([\w.-]+)(?:>=|==)([\w.]+)", requirement):
        print(f"{bound[1]}=={bound[2]}")
