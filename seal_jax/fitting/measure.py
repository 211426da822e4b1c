"""Compile a program for a slice, and read off what it needs: memory, FLOPs, communication."""

import re
from dataclasses import dataclass

import jax

from seal_jax.engine.memory import on_device, peak_of
from seal_jax.fitting.chips import GIB, Chip
from seal_jax.fitting.flops import matmul_flops
from seal_jax.fitting.hlo import Collective, collectives
from seal_jax.fitting.plan import Program
from seal_jax.fitting.roofline import Work


class TooBig(Exception):
    """The compiler refuses a program for want of memory; `needs`: the bytes that its message names, or None."""

    def __init__(self, text: str):
        super().__init__(text)
        found = re.search(r"\(([\d.]+)([GMK])\) exceeds", text) or re.search(r"[Uu]sed ([\d.]+)([GMK]) of", text)
        self.needs = float(found[1]) * {"G": 2**30, "M": 2**20, "K": 2**10}[found[2]] if found else None


@dataclass(frozen=True)
class Measured:
    """A compiled program. Bytes and FLOPs are those of one chip; `memory` is the peak, `exchanged` its collectives,
    `remat` what of the blocks a training step computes again."""

    name: str
    memory: float
    flops: float
    exchanged: list[Collective]
    work: Work
    remat: str = ""


def measure(program: Program, base: dict, chips: int) -> tuple[Measured, jax.stages.Compiled]:
    """Compile a program for the devices on which its arguments lie. Raises TooBig where it does not fit."""
    call = program.call
    traced = jax.jit(call.function, donate_argnums=call.donate).trace(*call.args)
    flops = matmul_flops(traced.jaxpr) / chips
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise TooBig(str(error)) from error
    return read_off(program, base, flops, compiled.memory_analysis(), compiled.as_text()), compiled


def read_off(program: Program, base: dict, flops: float, stats, text: str) -> Measured:
    """What a program needs, from the compiler's memory analysis and the compiled text: its memory with all rows and
    slots, its work with those that its calls have on average."""
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporary, arguments = stats.temp_size_in_bytes, stats.argument_size_in_bytes
    weights = on_device(base)
    written = stats.output_size_in_bytes if program.trains else results
    each = max(arguments - weights - program.written, 0) + written + 2 * temporary
    rows, slots = program.busy
    hbm = program.read + rows * each + slots * program.written
    found = collectives(text)
    link, hops = sum(c.over_link for c in found), sum(c.count * (c.group - 1) for c in found)
    work = Work(rows * flops, hbm, rows * link, hops)
    memory = max(peak_of(stats), arguments + program.moved)
    return Measured(program.name, memory, flops, found, work, program.remat)


def fits(memory: float, resident: float, chip: Chip) -> bool:
    """Whether a program's peak fits a chip on which `resident` bytes lie besides."""
    return memory + resident <= chip.hbm


def gib(size: float) -> str:
    return f"{size / GIB:.2f}" if size < 10 * GIB else f"{size / GIB:.1f}"
