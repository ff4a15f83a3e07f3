"""A test that hangs ends its worker after ten minutes with every thread's traceback: the run goes on and names it.

In `make test-deep`, where one test makes a thousand calls, after an hour.

pytest's own `faulthandler_timeout` starts and joins a thread for every test, which costs as much as a short test.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator

import pytest
import time_budget
from _pytest.faulthandler import fault_handler_stderr_fd_key

SECONDS = 3600 if time_budget.DEEP else 600
# A test is given up to so many seconds less, as the clock is not set anew for each.
EVERY = 30


class HangGuard:
    """Ends the process once no test has begun for `SECONDS - EVERY` to `SECONDS`."""

    def __init__(self, stderr: int) -> None:
        self._stderr = stderr
        self._set_at = float("-inf")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        now = time.monotonic()
        if now - self._set_at > EVERY:
            self._set_at = now
            faulthandler.dump_traceback_later(SECONDS, file=self._stderr, exit=True)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_exception_interact(self) -> None:
        # pytest has stopped the clock for a debugger.
        self._set_at = float("-inf")

    def pytest_unconfigure(self) -> None:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Watch over the tests of this process."""
    config.pluginmanager.register(HangGuard(config.stash[fault_handler_stderr_fd_key]), "hang-guard")
