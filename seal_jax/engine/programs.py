"""Compile once per shape, count and time it, and call. With the persistent cache on, a second run compiles nothing."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax


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
    """A function, arguments for it (arrays, or structs in their place), and what else tells it apart in its name."""

    name: str
    function: Callable
    args: tuple
    donate: tuple[int, ...] = ()

    @functools.cached_property
    def key(self):
        leaves, tree = jax.tree.flatten(self.args)
        return self.name, tree, tuple((leaf.shape, str(leaf.dtype), getattr(leaf, "sharding", None)) for leaf in leaves)

    def compile(self) -> jax.stages.Compiled:
        return jax.jit(self.function, donate_argnums=self.donate).lower(*self.args).compile()


class Programs:
    """The compiled programs of one run, by name and argument shapes; `count` and `seconds` tell their price."""

    def __init__(self):
        self.count = 0
        self.seconds = 0.0
        self._compiled = {}

    def __call__(self, name: str, function: Callable, *args, donate: tuple[int, ...] = ()):
        """Run `function(*args)`, compiling it on the first call with these shapes; `name` says what else is static."""
        return self.run(Call(name, function, args, donate))

    def run(self, call: Call):
        """The same for what is already a Call."""
        return self.compiled(call)(*call.args)

    def compiled(self, call: Call) -> jax.stages.Compiled:
        """The program of a call, compiled if it is not there yet."""
        self.prepare([call])
        return self._compiled[call.key]

    def prepare(self, calls: Sequence[Call]) -> None:
        """Compile what is not there yet, side by side: a compiler uses little more than one core."""
        began = time.perf_counter()
        wanted = {call.key: call for call in calls if call.key not in self._compiled}
        if not wanted:
            return
        with ThreadPoolExecutor(min(len(wanted), os.cpu_count() or 1)) as pool:
            self._compiled.update(zip(wanted, pool.map(Call.compile, wanted.values()), strict=True))
        self.count += len(wanted)
        self.seconds += time.perf_counter() - began
