"""Small loops, written in LLVM's assembly and compiled for this processor in a tenth of a second.

Numba is what larger loops are written for. It takes two thirds of a second to load, however, which is more than a
gigabyte of weights takes to be added up; llvmlite, on which it stands, loads in a twentieth.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kofn.core.arrays import Array

_TYPES: dict[str, Any] = {
    "void": None,
    "i1": ctypes.c_bool,
    "i64": ctypes.c_int64,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "ptr": ctypes.c_void_p,
}
# One step of a loop a number: LLVM makes vectors of it. Vectors are as long as the processor has them; by default LLVM
# halves the longest, which on older processors slowed the clock.
_LOOP = """
define {internal}{result} @{name}({parameters}, i64 %n) noinline "prefer-vector-width"="512" nounwind {{
start:
  %none = icmp eq i64 %n, 0
  br i1 %none, label %end, label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
{carry}{body}
  %next = add nuw nsw i64 %i, 1
  %last = icmp eq i64 %next, %n
  br i1 %last, label %end, label %loop
end:
{answer}
}}
"""


def loop(
    name: str, parameters: Sequence[str], body: str, *, carried: tuple[str, str] | None = None, internal: bool = False
) -> str:
    """The text of a function that loops over `%i` from 0 to `%n`, its last parameter.

    Args:
        name: the function's.
        parameters: its others, such as "ptr %row"; what pointers show to does not overlap.
        body: the step. Where it begins `%before` is what was carried, where it ends `%carried` is.
        carried: type and first value of what steps hand on and the function returns.
        internal: whether only other functions of the text call it.
    """
    kind, first = carried or ("void", "")
    return _LOOP.format(
        internal="internal " if internal else "",
        result=kind,
        name=name,
        parameters=", ".join(each.replace("ptr ", "ptr noalias ") for each in parameters),
        carry=f"  %before = phi {kind} [ {first}, %start ], [ %carried, %loop ]\n" if carried else "",
        body=body.strip("\n"),
        answer=f"  %all = phi {kind} [ {first}, %start ], [ %carried, %loop ]\n  ret {kind} %all"
        if carried
        else "  ret void",
    )


def compiled(
    text: str, functions: Mapping[str, tuple[str, ...]], *, unroll: bool = True
) -> dict[str, Callable[..., Any]] | None:
    """Functions of a text in LLVM's assembly, which run without the interpreter's lock; None where it has no compiler.

    Args:
        text: the functions.
        functions: by name the types of the result and of the parameters.
        unroll: whether loops take several vectors in a step. Without, they compile in two thirds of the time.
    """
    if sys.byteorder != "little":
        return None
    try:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        module = llvm.parse_assembly(text)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=3)
        options.loop_vectorization = True
        options.loop_unrolling = options.loop_interleaving = unroll
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
    except (ImportError, AttributeError, RuntimeError):  # an llvmlite of other names, or a processor it does not know
        return None
    _ENGINES.append(engine)
    return {
        name: ctypes.CFUNCTYPE(*(_TYPES[kind] for kind in kinds))(engine.get_function_address(name))
        for name, kinds in functions.items()
    }


_ENGINES: list[Any] = []  # the code lives as long as its engine


def converts_float16() -> bool:
    """Whether this processor converts float16 itself: elsewhere compiled code would call for a library."""
    try:
        import llvmlite.binding as llvm

        if llvm.get_default_triple().startswith(("aarch64", "arm64")):
            return True
        return bool(llvm.get_host_cpu_features().get("f16c", False))
    except (ImportError, AttributeError, RuntimeError):
        return False


def address(array: Array) -> int:
    """Where the numbers of a contiguous array lie."""
    assert array.flags.c_contiguous
    return int(array.__array_interface__["data"][0])


__all__ = ["address", "compiled", "converts_float16", "loop"]
