"""Speed and memory against the peers, in one run, with the answers compared: `python -m benchmarks NAME --json F`."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    packages = ("kofn", "numpy", "numba", "apricot-select", "submodlib-py")
    out = {"python": platform.python_version(), "cores": str(os.cpu_count()), "cpu": platform.machine()}
    for package in packages:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "absent"
    return out


def peak() -> int:
    """This process's peak resident bytes. `ru_maxrss` begins with what the process that started this one held."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def in_fresh_process(
    module: str, arguments: dict[str, Any], timeout: float = 900, function: str = "work"
) -> dict[str, Any]:
    """Run `module.function(**arguments)` in a fresh process, so that its peak memory is its own; returns its JSON."""
    code = (
        f"import json, sys; from benchmarks import peak; from {module} import {function}; "
        f"out = {function}(**json.loads(sys.argv[1])); out['peak_bytes'] = peak(); print('\\n' + json.dumps(out))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, timeout=timeout
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"error": lines[-1][:200]}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
