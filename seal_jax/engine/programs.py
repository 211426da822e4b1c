"""Compile once per shape, count and time it, and call. With the persistent cache on, a second run compiles nothing."""

import time
from collections.abc import Callable
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


class Programs:
    """The compiled programs of one run, by name and argument shapes; `count` and `seconds` tell their price."""

    def __init__(self):
        self.count = 0
        self.seconds = 0.0
        self._compiled = {}

    def __call__(self, name: str, function: Callable, *args, donate: tuple[int, ...] = ()):
        """Run `function(*args)`, compiling it on the first call with these shapes; `name` says what else is static."""
        leaves, tree = jax.tree.flatten(args)
        key = (name, tree, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))
        if key not in self._compiled:
            began = time.perf_counter()
            self._compiled[key] = jax.jit(function, donate_argnums=donate).lower(*args).compile()
            self.count += 1
            self.seconds += time.perf_counter() - began
        return self._compiled[key](*args)
