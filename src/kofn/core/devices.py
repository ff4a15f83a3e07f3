"""Where arrays are compared: on the processor by NumPy and compiled code, or on a device that torch drives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kofn.core.checks import InputError

# torch's own processor, which runs the code for devices: for tests, and to try that code without a device.
TORCH_CPU = "torch:cpu"
# The share of a device's free memory that is used unless `max_memory` says less, and what the processor is given.
_SHARE, _ON_THE_PROCESSOR = 0.8, 1 << 30


def names_a_device(device: Any) -> bool:
    """Whether this name asks for a device for certain: None, "cpu" and "auto" do not."""
    return device not in (None, "cpu", "auto")


def resolve_device(device: Any) -> Any:
    """The torch device, or None for NumPy: None and "cpu" are NumPy, "auto" a GPU where torch sees one.

    Raises:
        InputError: torch is not installed, or does not know or see the device.
    """
    if device is None or device == "cpu":
        return None
    try:
        import torch
    except ModuleNotFoundError:
        if device == "auto":
            return None
        raise InputError(f"device={device!r} needs torch: pip install 'kofn[torch]'") from None
    if device == "auto":
        return torch.device("cuda") if torch.cuda.is_available() else None
    try:
        resolved = torch.device("cpu" if device == TORCH_CPU else device)
    except (RuntimeError, TypeError):
        raise InputError(f"device={device!r} is none that torch knows; give 'cuda', 'cuda:1' or 'auto'") from None
    try:
        torch.empty(0, device=resolved)
        if resolved.type == "meta":
            raise TypeError
    except (RuntimeError, AssertionError, TypeError, NotImplementedError):
        raise InputError(f"device={device!r}: torch sees none here; leave it out, or give 'auto'") from None
    return resolved


def device_with_float64(device: Any) -> Any:
    """The same for work that needs float64.

    Raises:
        InputError: likewise, or the device has no float64.
    """
    resolved = resolve_device(device)
    if resolved is not None:
        import torch

        try:
            torch.zeros(1, dtype=torch.float64, device=resolved)
        except (RuntimeError, TypeError):
            raise InputError(f"device={device!r} has no float64, which exact answers need; leave device out") from None
    return resolved


@dataclass(frozen=True)
class Room:
    """Bytes that work on a device may hold there, and how the user is told of them."""

    bytes: int
    shown: str

    def besides(self, occupied: int, least: int, work: str) -> int:
        """The bytes left for blocks beside what is held throughout.

        Raises:
            InputError: fewer than `least` are left.
        """
        if self.bytes - occupied < least:
            raise InputError(
                f"{self.shown} for {work} on the device, which holds the rows there; give at least {occupied + least} "
                "bytes, or leave device out"
            )
        return self.bytes - occupied


def room_on(device: Any, max_memory: int | None) -> Room:
    """What may be held on the device: `max_memory`, and on a GPU no more than most of what is free."""
    import torch

    if device.type == "cuda":
        free = int(_SHARE * torch.cuda.mem_get_info(device)[0])
        if max_memory is None or free < max_memory:
            return Room(free, f"device={str(device)!r} has {free} bytes to use, too little")
    if max_memory is None:
        return Room(_ON_THE_PROCESSOR << 10, "the device has too little memory")
    return Room(max_memory, f"max_memory={max_memory} is too little")


def wait_for(device: Any) -> None:
    """Wait until the device has done what was asked of it, so that a clock read then tells the truth."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 products are products of float32: neither TF32 on a GPU nor bfloat16 on a processor."""
    import torch

    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set backend by backend, which has no one name
        drivers: Any = torch.backends
        backends = (drivers.cuda.matmul, drivers.mkldnn.matmul)
        kept = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = "ieee"
        try:
            yield
        finally:
            for backend, precision in zip(backends, kept, strict=True):
                backend.fp32_precision = precision
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
