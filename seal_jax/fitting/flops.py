"""FLOPs of a traced function's matrix products. (XLA's own count takes each loop for one iteration.)"""

import math


def matmul_flops(jaxpr) -> float:
    """FLOPs of all devices together; a loop of unknown length counts as one iteration, a conditional as its costliest
    branch; what a kernel skips counts as done."""
    total = 0.0
    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
            continue
        inner = [matmul_flops(sub) for sub in _jaxprs(params)]
        if name == "cond":
            total += max(inner, default=0.0)
        else:
            total += sum(inner) * _times(name, params)
    return total


def _times(name: str, params) -> int:
    if name == "scan":
        return params["length"]
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    if name == "shard_map":  # its body is the share of one device along these axes
        axes = params.get("newly_manual_axes", params.get("manual_axes"))  # by the version of JAX
        return math.prod(params["mesh"].shape[axis] for axis in axes)
    return 1


def _jaxprs(params):
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item
