"""The model with an adapter in its weights, as a Hugging Face folder that transformers and vLLM read."""

from seal_jax.adapt.learn import say
from seal_jax.model import quantized
from seal_jax.model.adapter_file import read_adapter
from seal_jax.model.pretrained import load, save_merged

DTYPE = "float32"


def export(adapter_folder: str, source: str, merged: str) -> None:
    """Write the folder `merged`. Raises UserError where the adapter cannot be read, or the folder is there."""
    adapter, lora, name = read_adapter(adapter_folder, source)
    found = load(name, DTYPE)
    params = quantized.merge_on_host(found.params, adapter, lora)
    save_merged(merged, params, found.config, found.tokenizer, found.hf_config)
    say(f"merged model: {merged}")
