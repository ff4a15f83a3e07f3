"""Tasks on a Ray cluster: Ray Core tasks with retries, over objects that a node holds once.

Ray is an extra (`pip install 'kofn[ray]'`) and loaded only here. It has no passwords by default and runs pickles: use
it on a network that you trust.
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core.checks import FailureError, InputError, KofnError
from kofn.engines.base import Work
from kofn.engines.threads import cores

# Seconds that a cluster has to answer, and between two questions whether to stop.
_PATIENCE, _PAUSE = 10.0, 0.2


class Ray:
    """Tasks on Ray.

    A Ray that the program has started already is used as it is; else one at the address, or one that runs on this
    machine, is joined; else one is started here, and stopped by `close`. The results come in the order of the items,
    so that they are the same for any number of workers; a task that was lost with its worker or its node is done again.

    Args:
        address: "auto" (one that runs, or refuse), "HOST:PORT", "ray://HOST:PORT", or None, which takes `RAY_ADDRESS`,
            one that runs on this machine, or starts one.
        workers: how many tasks run at a time where a Ray is started, default all cores.
        cpus_per_task: cores of each task.
        retries: how often a task that was lost is done again. An error of the input is final.
        memory: bytes that each task needs, for Ray to plan with.
        runtime_env: what Ray makes ready for each task, such as `{"pip": ["kofn"]}`, as Ray has it.

    Raises:
        InputError: Ray is not installed, or nothing answers at the address within 10 seconds.

    Examples:
        >>> Ray(retries=-1)
        Traceback (most recent call last):
        kofn.core.checks.errors.InputError: retries=-1: ask for at least 0
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        cpus_per_task: int = 1,
        retries: int = 3,
        memory: int | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        from kofn.core import checks

        self.retries = checks.count(retries, "retries", least=0)
        self.cpus_per_task = checks.count(cpus_per_task, "cpus_per_task")
        self.memory = None if memory is None else checks.count(memory, "memory")
        self.runtime_env = None if runtime_env is None else dict(runtime_env)
        self.address = address or os.environ.get("RAY_ADDRESS") or None
        self.started = False
        self.tasks, self._nodes = 0, set[str]()
        self._ray = _loaded()
        self._connect(workers)
        self._remote = self._task()

    def _connect(self, workers: int | None) -> None:
        ray = self._ray
        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is not None and self.address not in ("auto", "local"):
            _refuse_deaf(self.address)
            _within(lambda: ray.init(address=self.address, **quiet), self.address)
            return
        if self.address != "local":
            try:
                ray.init(address="auto", **quiet)
                return
            except ConnectionError:
                if self.address == "auto":
                    raise InputError(
                        "engine='ray': no Ray runs on this machine; start one (ray start --head), give its address, "
                        "or leave the address out"
                    ) from None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address="local", num_cpus=cores(workers), include_dashboard=False, **quiet)
        except Exception as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise FailureError(
                f"engine='ray': no Ray could be started here ({reason}); start one yourself (ray start --head), or "
                "leave engine out"
            ) from None
        self.started = True

    def _task(self) -> Any:
        """The remote function. It is nested, so that Ray sends it as it is to workers that may have no kofn; so are
        what it works on and what tasks share, packed, which are kofn's own kinds."""
        versions = _versions()

        def run(versions: dict[str, str], module: str, name: str, item: Any, *shared: Any) -> Any:
            try:
                from kofn.engines.ray import attempt
            except ImportError as error:
                import socket

                raise RuntimeError(f"no kofn on node {socket.gethostname()}: {error}") from None
            return attempt(versions, module, name, item, shared)

        options: dict[str, Any] = {
            "num_cpus": self.cpus_per_task,
            "max_retries": self.retries,
            "retry_exceptions": False,
            "num_returns": 1,
        }
        if self.memory is not None:
            options["memory"] = self.memory
        if self.runtime_env is not None:
            options["runtime_env"] = self.runtime_env
        remote, put, reference = self._ray.remote(**options)(run), self._ray.put(versions), self._ray.ObjectRef

        def start(work: Work, item: Any, shared: Sequence[Any]) -> Any:
            given = [value if isinstance(value, reference) else _packed(value) for value in shared]
            return remote.remote(put, work.__module__, work.__qualname__, _packed(item), *given)

        return start

    @property
    def workers(self) -> int:
        """How many tasks the cluster runs at a time now."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1) // self.cpus_per_task))

    def share(self, value: Any) -> Any:
        return self._ray.put(_packed(value))

    def map(
        self, work: Work, items: Iterable[Any], *, shared: Sequence[Any] = (), stopped: Callable[[], bool] | None = None
    ) -> Iterator[Any]:
        # Where the work ends early, what is under way (two tasks a worker at the most) runs on and is forgotten: to
        # cancel a task that is just ending can abort the caller (issue 54846 of ray-project/ray, seen with Ray 2.60).
        pending: deque[Any] = deque()
        left = iter(items)
        while True:
            # Workers may come and go meanwhile.
            while len(pending) < 2 * self.workers and (item := next(left, pending)) is not pending:
                self.tasks += 1
                pending.append(self._remote(work, item, shared))
            if not pending:
                return
            result = self._wait(pending[0], stopped)
            if result is None:
                return
            pending.popleft()
            yield result[0]

    def _wait(self, reference: Any, stopped: Callable[[], bool] | None) -> tuple[Any] | None:
        """The result of a task; None where the work was stopped before it came."""
        ray = self._ray
        while stopped is None or not stopped():
            if not ray.wait([reference], timeout=_PAUSE)[0]:
                continue
            try:
                node, result = ray.get(reference)
            except ray.exceptions.RayError as error:
                raise _explained(error, self.retries) from None
            self._nodes.add(node)
            return (result,)
        return None

    def facts(self) -> dict[str, Any]:
        return {"name": self.name, "workers": self.workers, "tasks": self.tasks, "nodes": len(self._nodes)}

    def close(self) -> None:
        if self.started:
            self._ray.shutdown()
            self.started = False


def attempt(versions: dict[str, str], module: str, name: str, item: Any, shared: Sequence[Any]) -> tuple[str, Any]:
    """On a worker: the node, and the result of a task; refuses to work with other versions than the caller's."""
    from kofn.engines.base import task_of_process

    own = _versions()
    for package, version in versions.items():
        if own[package] != version:
            raise InputError(
                f"engine='ray': node {socket.gethostname()} has {package} {own[package]}, this machine {version}; "
                "install the same on all nodes"
            )
    work = importlib.import_module(module)
    for part in name.split("."):
        work = getattr(work, part)
    with task_of_process():
        return _node(), work(_unpacked(item), *map(_unpacked, shared))  # type: ignore[operator]


def _packed(value: Any) -> tuple[bytes, list[Any]]:
    """A value as bytes and arrays of bytes, which any worker can take, and of which a node holds the arrays once."""
    from ray import cloudpickle

    buffers: list[pickle.PickleBuffer] = []
    data = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    raw = [buffer.raw() for buffer in buffers]
    return data, [np.frombuffer(part, np.uint8) if part.nbytes else np.empty(0, np.uint8) for part in raw]


def _unpacked(packed: tuple[bytes, list[Any]]) -> Any:
    return pickle.loads(packed[0], buffers=packed[1])


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _versions() -> dict[str, str]:
    import numba
    import numpy as np

    from kofn._version import __version__

    return {"kofn": __version__, "numpy": np.__version__, "numba": numba.__version__}


def _loaded() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise InputError("engine='ray' needs ray: pip install 'kofn[ray]'") from None


def _refuse_deaf(address: str) -> None:
    """Refuse an address at which nothing listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"engine={address!r}: give ray://HOST:PORT or HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE / 2).close()
    except OSError as error:
        raise InputError(
            f"engine={address!r} does not answer ({error}); check host and port, or start Ray there: ray start --head"
        ) from None


def _within(connect: Callable[[], Any], address: str) -> None:
    """Connect, but wait no longer than the patience; Ray itself would try for a minute."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            connect()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if thread.is_alive():
        raise InputError(f"engine={address!r} does not answer as Ray does within {_PATIENCE:g} s; check host and port")
    if errors:
        raise InputError(f"engine={address!r} cannot be joined: {errors[0]}") from None


def _explained(error: Exception, retries: int) -> Exception:
    """The error of a task in one line, ours as they are."""
    import ray

    cause = getattr(error, "cause", None)
    if isinstance(cause, KofnError):
        return cause
    kind = type(error).__name__
    if kind == "OutOfMemoryError":
        return FailureError(
            f"a worker was killed for memory, {retries} retries included; give fewer part_rows, a smaller n_reference, "
            "or fewer workers a node"
        )
    if isinstance(cause, RuntimeError) and str(cause).startswith("no kofn on node"):
        return InputError(f"engine='ray': {cause}; install kofn on all nodes")
    text = str(cause if cause is not None else error).strip().splitlines()
    reason = text[-1] if text else kind
    if isinstance(error, ray.exceptions.RayTaskError):
        return FailureError(f"a task failed on Ray: {kind if cause is None else type(cause).__name__}: {reason}")
    return FailureError(f"a task was lost on Ray ({kind}), {retries} retries included: {reason}")
