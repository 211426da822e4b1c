"""The weights of a model as shapes and dtypes, to compile programs without having them."""

import jax

from seal_jax.model.layout import DTYPES, leaves
from seal_jax.model.published import PUBLISHED, architecture
from seal_jax.model.quantized import quantize
from seal_jax.model.transformer import ModelConfig

__all__ = ["PUBLISHED", "abstract_weights", "architecture"]


def abstract_weights(config: ModelConfig, dtype: str, quantization: str = "none") -> dict:
    """The tree of weights as jax.ShapeDtypeStruct."""
    tree: dict = {}
    for leaf in leaves(config):
        depth = (config.num_layers,) if leaf.stacked else ()
        node = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = jax.ShapeDtypeStruct((*depth, *leaf.shape), DTYPES[dtype])
    return quantize(tree, quantization)
