"""The policy leaves the run: as a Hugging Face folder, and after a single round its adapter as PEFT reads it."""

from etils import epath

from seal_jax.engine.recipe import recipe
from seal_jax.experiments.rounds import Setup
from seal_jax.model.pretrained import save_adapter, save_merged
from seal_jax.parallel import is_first
from seal_jax.runs import checkpoint
from seal_jax.runs.keys import SEAL
from seal_jax.student.actor import Actor


def export(setup: Setup, policy: Actor, path: epath.Path) -> None:
    """Write what is not there yet: `policy` and `adapter`. All hosts gather the weights, the first one writes."""
    source, outer = policy.source, setup.config.outer
    weights = None if (path / "policy").exists() else policy.weights()
    if not is_first():
        return
    folder = f"{setup.recorder.checkpoints}/{SEAL}"
    if outer.rounds == 1 and outer.sft.rank and checkpoint.steps(folder) and not (path / "adapter").exists():
        learned = checkpoint.load(folder, 1)
        save_adapter(path / "adapter", learned, recipe(outer.sft).lora, setup.config.model.policy)
    if weights is not None:
        save_merged(path / "policy", weights, source.config, source.tokenizer, source.hf_config)
