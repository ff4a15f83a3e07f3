"""Mixed-integer and linear programs by HiGHS as SciPy calls it, but silent, and ended by Ctrl-C."""

from __future__ import annotations

import functools
import re
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType, FunctionType, SimpleNamespace
from typing import Any

from kofn.core.held_output import HeldOutput
from kofn.core.runtime import is_interrupted

_HELD = HeldOutput(1, re.compile(rb"^Highs\w+::[^\n]*\n?", re.MULTILINE))
_GAVE_UP = "Solve error"
# The functions of SciPy between what is public and the solver's module, each a global of the one before.
_INNER = {"milp": ("_highs_wrapper",), "linprog": ("_linprog_highs", "_highs_wrapper")}
_SOLVER = "_h"


def milp(c: Any, *, stoppable: bool = False, **program: Any) -> Any:
    """`scipy.optimize.milp`, silent.

    Args:
        c: (n,) costs.
        stoppable: whether the caller takes what there is after Ctrl-C, as after a limit of time.
        program: the other words of SciPy's function.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and the caller takes only what is solved.
    """
    from scipy import optimize

    with _HELD.holding():
        answer = _solved("milp", optimize.milp, (c,), program, stoppable)
        if answer.x is None and _GAVE_UP in answer.message:
            # Its reductions of a program now and then lead to points that it cannot bring back.
            options = {**(program.get("options") or {}), "presolve": False}
            answer = _solved("milp", optimize.milp, (c,), {**program, "options": options}, stoppable)
        return answer


def linprog(c: Any, *, stoppable: bool = False, **program: Any) -> Any:
    """`scipy.optimize.linprog` by HiGHS.

    Args:
        c: (n,) costs.
        stoppable: whether the caller goes on without an answer after Ctrl-C, as after a limit of time.
        program: the other words of SciPy's function.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and the caller takes only what is solved.
    """
    from scipy import optimize

    return _solved("linprog", optimize.linprog, (c,), {"method": "highs", **program}, stoppable)


def _solved(
    name: str, solver: Callable[..., Any], arguments: tuple[Any, ...], program: Mapping[str, Any], stoppable: bool
) -> Any:
    """What SciPy's function answers, or what it has once Ctrl-C is pressed.

    SciPy gives no way to stop the solver, and Python's handlers of signals wait until it is done: for minutes, without
    a limit of time. The solver itself can be told to stop by a function that it calls every so often.
    """
    ignored = signal.getsignal(signal.SIGINT) in (None, signal.SIG_IGN)
    if ignored or threading.current_thread() is not threading.main_thread():
        return solver(*arguments, **program)
    press = _Press(is_interrupted())
    # An error that is raised within the solver's calls would pass through its own code.
    before = signal.signal(signal.SIGINT, press)
    try:
        answer = (_watched(name, solver) or solver)(*arguments, **program)
    finally:
        signal.signal(signal.SIGINT, before)
        if press.pressed and not is_interrupted():
            signal.raise_signal(signal.SIGINT)
    if press.pressed and not stoppable:
        raise KeyboardInterrupt
    return answer


class _Press:
    """Takes Ctrl-C while the solver runs."""

    def __init__(self, pressed: bool) -> None:
        self.pressed = pressed

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.pressed = True


@functools.lru_cache(maxsize=8)
def _watched(name: str, solver: Callable[..., Any]) -> Callable[..., Any] | None:
    """SciPy's function with a solver that asks whether to stop; None where SciPy is built in another way.

    The functions are copied with another name for the solver's module, so that SciPy itself stays as it is.
    """
    try:
        functions = [solver]
        for inner in _INNER[name]:
            functions.append(functions[-1].__globals__[inner])
        module = functions[-1].__globals__[_SOLVER]
        stopping = _stopping(module)
    except (AttributeError, KeyError):
        return None
    replaced: Any = SimpleNamespace(**{**vars(module), "_Highs": stopping})
    for function, called in zip(reversed(functions), (_SOLVER, *reversed(_INNER[name])), strict=True):
        known: Any = function
        names = {**known.__globals__, called: replaced}
        replaced = FunctionType(known.__code__, names, known.__name__, known.__defaults__, known.__closure__)
        replaced.__kwdefaults__ = known.__kwdefaults__
    watched: Callable[..., Any] = replaced
    return watched


def _stopping(module: Any) -> type:
    """The class of SciPy's solver, stopped by Ctrl-C while it runs; then its limit of time counts as reached."""
    kinds, statuses = module.cb.HighsCallbackType, module.HighsModelStatus
    looks = (kinds.kCallbackMipInterrupt, kinds.kCallbackSimplexInterrupt, kinds.kCallbackIpmInterrupt)
    interrupted, out_of_time = statuses.kInterrupt, statuses.kTimeLimit

    class Stopping(module._Highs):  # type: ignore[misc, name-defined]
        def run(self) -> Any:
            self.setCallback(_look, signal.getsignal(signal.SIGINT))
            for kind in looks:
                self.startCallback(kind)
            return super().run()

        def getModelStatus(self) -> Any:
            status = super().getModelStatus()
            return out_of_time if status == interrupted else status

    return Stopping


def _look(_kind: Any, _message: Any, _output: Any, answer: Any, press: Any) -> None:
    """What the solver calls every so often; Python runs the handlers of signals that came before."""
    if isinstance(press, _Press) and press.pressed:
        answer.user_interrupt = True
