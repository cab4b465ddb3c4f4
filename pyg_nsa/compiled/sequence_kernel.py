"""The kernel that goes through other kernels; every thread runs it."""

# mypy: disable-error-code="attr-defined, call-arg, no-any-return, no-untyped-def"
# Intrinsics get their first argument from Numba, and what they return is known to Numba alone.
from __future__ import annotations

import functools
import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from pyg_nsa.compiled.compiling import kernel_address
from pyg_nsa.compiled.lanes import take

__all__ = ["STEP_WORDS", "run_steps"]

#: int64 of each step.
STEP_WORDS = 5
_KERNEL, _DATA, _THREADS, _STARTED, _ENDED = range(STEP_WORDS)

#: Looks at a counter before a thread that waits gives its core to others: some microseconds.
_PATIENCE = 1000

#: What the count of threads that have started becomes when a step is done.
_CLOSED = 1 << 40

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


@intrinsic
def _call(typing: Any, address: Any, data: Any) -> Any:
    """Calls ``void (*)(void *)``; 0 is no function."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        argument = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [argument]).as_pointer()
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.IntType(64)(0))):
            builder.call(builder.inttoptr(args[0], kind), [builder.inttoptr(args[1], argument)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _look(typing: Any, counters: Any, i: Any) -> Any:
    """``counters[i]`` as it is now; what its writers wrote before is seen after it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def _replace(typing: Any, counters: Any, i: Any, old: Any, new: Any) -> Any:
    """Writes ``new`` to ``counters[i]`` if it is ``old``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        to = builder.gep(data, [args[1]])
        builder.cmpxchg(to, args[2], args[3], "acq_rel", "acquire")
        return context.get_dummy_value()

    return types.void(counters, types.intp, types.int64, types.int64), generate


@intrinsic
def _rest(typing: Any) -> Any:
    """Tells the core that this is a loop that waits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _IS_X86:
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@functools.cache
def run_steps() -> int:
    """Address of the kernel: runs each step's kernel in at most so many threads, and the next one when all are done.

    A kernel returns when it finds no more work, so whoever is through has seen all work handed out, and only threads that have
    started can still be at it. When the last of them has ended, the step is closed: a thread that comes later passes by. So
    nobody waits for a thread that never comes, and nobody writes to memory that the next step has taken over.
    """

    def kernel(data: Any) -> None:
        head = carray(data, 2, dtype=np.int64)
        steps, give_way = head[0], head[1]
        words = carray(data, 2 + steps * STEP_WORDS, dtype=np.int64)[2:]
        for s in range(steps):
            w = words[s * STEP_WORDS : (s + 1) * STEP_WORDS]
            place: Any = take(w, _STARTED)
            if place >= _CLOSED:
                continue
            if place < w[_THREADS]:
                _call(w[_KERNEL], w[_DATA])
            take(w, _ENDED)
            looks = 0
            while True:
                ended, started = _look(w, _ENDED), _look(w, _STARTED)
                if started >= _CLOSED:
                    break
                if ended == started:
                    _replace(w, _STARTED, started, _CLOSED)
                    continue
                _rest()
                looks += 1
                if looks > _PATIENCE:
                    _call(give_way, 0)

    return kernel_address(kernel)
