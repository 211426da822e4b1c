"""Where the candidate axis meets the devices: the only place that knows about them."""

from collections.abc import Callable

import jax


def map_candidates(function: Callable, mapped: tuple[bool, ...]) -> Callable:
    """`function` over a leading candidate axis of the arguments marked in `mapped`; the others are shared by all."""
    return jax.vmap(function, in_axes=tuple(0 if flag else None for flag in mapped))
