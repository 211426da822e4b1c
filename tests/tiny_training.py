"""Tiny models with adapters, and inner loops for them, for the tests of the core."""

import jax
import numpy as np
from tiny_checkpoint import random_params, tiny_config

from seal_jax.config import EngineConfig
from seal_jax.engine import packing
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Candidate, Row
from seal_jax.model import attention
from seal_jax.model.hf_config import model_config
from seal_jax.model.lora import PROJECTIONS, LoraConfig, init_adapter
from seal_jax.model.transformer import ModelConfig

VOCAB = 301  # a prime: an array with a vocabulary axis is known by it, and it is no multiple of a block
LORA = LoraConfig(rank=3, alpha=7.5, targets=PROJECTIONS)  # alpha / rank is not 1


def tiny_model(kind: str = "llama", **changes) -> tuple[ModelConfig, dict]:
    """Configuration and random weights of a two-layer model, 64 wide, with two query heads to a key head."""
    hf = tiny_config(kind, **{"vocab": VOCAB, **changes})
    return model_config(hf, "config"), random_params(hf)


def tiny_engine(config: ModelConfig, **settings) -> Engine:
    return Engine(config, EngineConfig(**{"loss_chunk": 8, "cache": "", **settings}))


def random_adapter(base: dict, lora: LoraConfig = LORA, seed: int = 0, size: float = 0.1) -> dict:
    """An adapter whose B is not zero."""
    rng = np.random.default_rng(seed)
    fresh = init_adapter(jax.random.key(seed), base, lora)
    return jax.tree.map(lambda leaf: leaf + size * rng.standard_normal(leaf.shape).astype(np.float32), fresh)


def stack(trees: list[dict]) -> dict:
    """One tree with a leading candidate axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def interpret_splash(monkeypatch) -> list[tuple[int, ...]]:
    """Interprets the kernel for TPU, from 64 tokens on -> the shapes of q with which it is traced from now on."""
    traced = []

    def splash(*args, run=attention.splash):
        traced.append(args[0].shape)
        return run(*args, interpret=True)

    monkeypatch.setattr(attention, "LONG", 64)
    monkeypatch.setattr(attention, "QUERIES", 32)
    monkeypatch.setattr(attention, "splash", splash)
    return traced


def random_rows(lengths, seed: int = 0, prompt: int = 0) -> tuple[Row, ...]:
    """Rows of random tokens; the first `prompt` tokens of each, and always the first one, have no loss."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        weights = [0.0] * max(prompt, 1) + [1.0] * (length - max(prompt, 1))
        rows.append(Row(tuple(rng.integers(3, VOCAB, length).tolist()), tuple(weights)))
    return tuple(rows)


def steps_by_hand(candidate: Candidate, batch: int) -> list[list[Row]]:
    """The rows of each optimizer step of a candidate on its own, from its epochs' orders alone."""
    slots = packing.slots_of(candidate)
    steps = []
    for epoch in range(candidate.epochs):
        order = packing.epoch_order(candidate.order, epoch, len(slots)).tolist()
        steps += [[slots[slot] for slot in order[i : i + batch]] for i in range(0, len(slots), batch)]
    return steps
