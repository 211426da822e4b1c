"""The model with an adapter in its weights: a folder for transformers and vLLM, a file for llama.cpp and Ollama."""

from dataclasses import replace

from seal_jax.adapt.learn import say
from seal_jax.errors import UserError
from seal_jax.model import quantized
from seal_jax.model.adapter_file import check_fits, read_adapter
from seal_jax.model.export import check_free
from seal_jax.model.gguf_export import TYPES, save_gguf
from seal_jax.model.pretrained import load, locate, save_merged

DTYPE = "float32"


def export(adapter_folder: str, source: str, merged: str = "", gguf: str = "", kind: str = "f16") -> None:
    """Write the folder `merged` and the file `gguf`, those that are named; kind: of the numbers in the file.

    Raises UserError where the adapter cannot be read or does not fit its model, or something is there already.
    """
    if not merged and not gguf:
        raise UserError("name what to write: --merged FOLDER for transformers and vLLM, --gguf FILE for llama.cpp")
    if kind not in TYPES:
        raise UserError(f"--gguf-type is {kind!r}; choose one of {', '.join(TYPES)}")
    if gguf and not gguf.endswith(".gguf"):
        raise UserError(f"--gguf is {gguf}; give it a name that ends in .gguf, by which it is known as such")
    if merged:
        check_free(merged)
    if gguf:
        check_free(gguf)
    adapter, lora, name = read_adapter(adapter_folder, source)
    found = load(name, DTYPE)
    check_fits(adapter, found.params["layers"], adapter_folder, name)
    whole = replace(found, params=quantized.merge_on_host(found.params, adapter, lora))
    if merged:
        save_merged(merged, whole.params, whole.config, whole.tokenizer, whole.hf_config)
        say(f"merged model: {merged}")
    if gguf:
        save_gguf(gguf, whole, locate(name), kind)
        say(f"GGUF file: {gguf}")
