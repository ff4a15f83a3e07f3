"""What several test files share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import browser as chrome
import pytest
from time_budget import (  # noqa: F401 - pytest finds its hooks here
    pytest_report_header,
    pytest_sessionfinish,
    pytest_sessionstart,
    pytest_terminal_summary,
)
from workers import pytest_collection_finish  # noqa: F401

# The counts of the attack, printed below the tests, and the clock that ends a test which hangs.
pytest_plugins = ["attack", "hang_guard"]
os.environ.setdefault("COLUMNS", "200")
# No test looks into the user's cache, or leaves something there.
os.environ["KOFN_CACHE"] = "off"
# A shell starts what it runs in the background with Ctrl-C ignored, and kofn leaves it so; the tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def kofn(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own, inside an empty folder."""

    def run(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
        code = f"import sys; {before or 'pass'}\nfrom kofn.cli import main; main(sys.argv[1:])"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def tab() -> Iterator[chrome.Browser]:
    """A real browser."""
    chrome.require()
    with chrome.Browser() as running:
        yield running
