"""A run's configuration: frozen dataclasses in two halves, science.py (what defines the numbers) and machine.py (how
they are computed). build.py makes them from what a person wrote."""

from seal_jax.config.build import DOMAINS, EXPERIMENTS, MACHINE, Config, completed, defaults, from_dict, unread
from seal_jax.config.machine import EngineConfig, Export, Metrics, Parallel
from seal_jax.config.science import (
    ALL_PROJECTIONS,
    DPO,
    FREE,
    QV,
    Arc,
    Authors,
    Continual,
    Data,
    Distill,
    EntiGraph,
    Evaluation,
    Grid,
    Inner,
    Judge,
    Knowledge,
    Model,
    Outer,
    PolicyGradient,
    Pretraining,
    Reward,
    Sampling,
    Teacher,
    Training,
    Weighted,
)
from seal_jax.config.sizes import at_size

__all__ = [
    "ALL_PROJECTIONS", "DOMAINS", "DPO", "EXPERIMENTS", "FREE", "MACHINE", "QV", "Arc", "Authors", "Config",
    "Continual", "Data", "Distill", "EngineConfig", "EntiGraph", "Evaluation", "Export", "Grid", "Inner", "Judge",
    "Knowledge", "Metrics", "Model", "Outer", "Parallel", "PolicyGradient", "Pretraining", "Reward", "Sampling",
    "Teacher", "Training", "Weighted", "at_size", "completed", "defaults", "from_dict", "unread",
]  # fmt: skip
