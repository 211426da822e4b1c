"""Compiled programs: each is compiled once per argument shapes, counted and timed; a persistent cache keeps them for
later runs."""

import functools
import math
import os
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax

from seal_jax.engine.activity import Activity
from seal_jax.engine.memory import peak


def enable_cache(folder: str) -> None:
    """Keep compiled programs in `folder` from now on, for this and later processes; an empty name leaves it off."""
    if not folder:
        return
    Path(folder).expanduser().mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@dataclass(frozen=True)
class Call:
    """A function and its arguments (arrays, or `jax.ShapeDtypeStruct`s in their place).

    Calls with equal `static` and argument shapes share a program, so `static` (hashable) must hold whatever else the
    function depends on. `donate`: the indices of arguments whose memory the results may take.
    """

    static: Hashable
    function: Callable
    args: tuple
    donate: tuple[int, ...] = ()

    @functools.cached_property
    def key(self):
        """What identifies the program: what is static, and structure, shapes, types and shardings of the arguments."""
        leaves, tree = jax.tree.flatten(self.args)
        kinds = tuple((leaf.shape, str(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves)
        return self.static, tree, kinds

    def compile(self) -> jax.stages.Compiled:
        return jax.jit(self.function, donate_argnums=self.donate).lower(*self.args).compile()


class Programs:
    """The compiled programs of one run: `count` of them, compiled in `seconds` of wall time.

    activity: what is done with them right now.
    """

    def __init__(self):
        self.count = 0
        self.seconds = 0.0
        self.activity = Activity()
        self._compiled = {}
        self._peaks = {}

    def run(self, call: Call):
        """Run a call, compiling it if it is the first of its key."""
        return self.compiled(call)(*call.args)

    def compiled(self, call: Call) -> jax.stages.Compiled:
        """The program of a call, compiled if need be."""
        self.prepare([call])
        return self._compiled[call.key]

    def needs(self, call: Call) -> float:
        """Bytes that the program of a call takes on a device, with its arguments; infinity if the compiler refuses it
        for want of memory."""
        if call.key not in self._peaks:
            try:
                self._peaks[call.key] = peak(self.compiled(call))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                self._peaks[call.key] = math.inf
        return self._peaks[call.key]

    def prepare(self, calls: Sequence[Call]) -> None:
        """Compile those of the calls that are not yet compiled, in parallel: a compiler uses about one core."""
        began = time.perf_counter()
        wanted = {call.key: call for call in calls if call.key not in self._compiled}
        if not wanted:
            return
        ready: list[bool] = []

        def compile_one(call: Call) -> jax.stages.Compiled:
            program = call.compile()
            ready.append(True)
            return program

        before = self.activity.show("compiling", len(wanted), lambda: len(ready), even=False)
        try:
            with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1)) as pool:
                self._compiled.update(zip(wanted, pool.map(compile_one, wanted.values()), strict=True))
        finally:
            self.activity.restore(before)
        self.count += len(wanted)
        self.seconds += time.perf_counter() - began
