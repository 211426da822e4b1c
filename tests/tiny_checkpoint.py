"""Tiny random checkpoints of every supported family, for tests: as Hugging Face folders and as GGUF files."""

import json
import math
from pathlib import Path

import gguf
import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from seal_jax.model.hf_config import ARCHITECTURES, model_config
from seal_jax.model.layout import DTYPES, leaves
from seal_jax.model.tokenizer import Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_TEXT = (
    "The ferry to Arlo leaves at 7:45 from pier 12; it's the only one, and they'll say 'don't be late'. "
    "def add(first, second):\n    return first + second  # 3.14\n\n\nÉtude, naïve, Übung, 日本語 — 1999, 2024.\n"
)


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of 400 tokens trained on a few lines, with chat template and three special tokens."""
    backend = Backend(models.BPE())
    # Digits stay together here, so that rules that differ in how they cut them give different ids.
    words = Regex(r"\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
    split = pre_tokenizers.Split(words, behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
    )
    backend.train_from_iterator([_TEXT] * 3, trainer)
    hf = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )
    hf.chat_template = TEMPLATE
    return Tokenizer(hf, "tiny tokenizer")


def tiny_config(kind: str, tied: bool = False, vocab: int = 400, **changes) -> dict:
    """config.json of a two-layer model of one of ARCHITECTURES.

    'llama' has Llama 3's scaling, 'mistral' a window, 'smollm3' a layer without rotary positions, and 'gemma3_text' a
    local layer and a global one, which is scaled.
    """
    config = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32 if kind in ("qwen3", "gemma3_text") else 16,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000.0,
        "rope_scaling": dict(LLAMA3_ROPE) if kind == "llama" else None,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    more = {
        "mistral": {"sliding_window": 16},
        "smollm3": {"no_rope_layers": [1, 0]},
        "gemma3_text": {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": 24,
            "sliding_window": 8,
            "sliding_window_pattern": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_local_base_freq": 100.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    }
    return config | more.get(kind, {}) | changes


def random_params(hf_config: dict, seed: int = 0, dtype: str = "float32") -> dict:
    """A parameter tree in which no norm is one and no bias is zero, so that nothing can be left out unseen."""
    config = model_config(hf_config, "config")
    rng = np.random.default_rng(seed)
    tree: dict = {}
    for leaf in leaves(config):
        shape = (config.num_layers, *leaf.shape) if leaf.stacked else leaf.shape
        scale = 1.0 if leaf.path[-1] in ("scale", "embedding") else 0.1
        node = tree
        for key in leaf.path[:-1]:
            node = node.setdefault(key, {})
        node[leaf.path[-1]] = (rng.standard_normal(shape) * scale + (leaf.path[-1] == "scale")).astype(DTYPES[dtype])
    return tree


def write_gguf(
    path: Path, hf_config: dict, tensors: dict, tokenizer: Tokenizer, pre: str = "smollm", **changes
) -> None:
    """A GGUF file of Hugging Face-named float32 `tensors`, as llama.cpp's converter lays it out.

    `changes`: `quant` {name: GGMLQuantizationType}, `raw` {name: (bytes, type)} for blocks that are there already.
    """
    kind = hf_config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(hf_config["num_hidden_layers"])
    writer.add_context_length(hf_config["max_position_embeddings"])
    writer.add_embedding_length(hf_config["hidden_size"])
    writer.add_feed_forward_length(hf_config["intermediate_size"])
    writer.add_head_count(hf_config["num_attention_heads"])
    writer.add_head_count_kv(hf_config["num_key_value_heads"])
    writer.add_key_length(hf_config["head_dim"])
    writer.add_rope_freq_base(hf_config["rope_theta"])
    writer.add_layer_norm_rms_eps(hf_config["rms_norm_eps"])
    writer.add_vocab_size(hf_config["vocab_size"])
    if kind == "llama":
        writer.add_rope_dimension_count(hf_config["head_dim"])
    if kind == "gemma3":
        writer.add_sliding_window(hf_config["sliding_window"])
        writer.add_uint32("gemma3.attention.sliding_window_pattern", hf_config["sliding_window_pattern"])
        writer.add_float32("gemma3.rope.freq_base_swa", hf_config["rope_local_base_freq"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(hf_config["rope_scaling"]["factor"])
    if kind == "gemma3":
        _add_sentencepiece(writer, hf_config["vocab_size"])
    else:
        _add_tokenizer(writer, tokenizer, pre)
    if kind == "llama" and hf_config.get("rope_scaling"):
        writer.add_tensor("rope_freqs.weight", rope_divisors(hf_config))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], hf_config["num_hidden_layers"])
    for name, tensor in tensors.items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if name in changes.get("raw", {}):
            blocks, quant = changes["raw"][name]
            writer.add_tensor(stored, blocks, raw_dtype=quant)
            continue
        if kind == "gemma3" and name.endswith("norm.weight"):
            tensor = tensor + np.float32(1)
        if kind in ("llama", "smollm3") and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = hf_config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            rows = tensor.shape[0] // heads // 2
            tensor = tensor.reshape(heads, 2, rows, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        quant = changes.get("quant", {}).get(name, gguf.GGMLQuantizationType.F32)
        writer.add_tensor(stored, gguf.quants.quantize(np.ascontiguousarray(tensor), quant), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, pre: str) -> None:
    vocab = sorted(tokenizer.hf.get_vocab().items(), key=lambda item: item[1])
    model = tokenizer.hf.backend_tokenizer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if token in SPECIAL else 1 for token, _ in vocab])
    writer.add_token_merges(_merges(model.to_str()))
    writer.add_bos_token_id(tokenizer.hf.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.hf.chat_template)


def _add_sentencepiece(writer: gguf.GGUFWriter, size: int) -> None:
    """The metadata of a vocabulary such as Gemma's: special tokens, runs of line ends and of spaces that stay together,
    bytes, and what a BPE learns from a few lines, best first."""
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Replace(" ", "\u2581")
    backend.pre_tokenizer = pre_tokenizers.Split("\u2581", behavior="merged_with_next")
    backend.train_from_iterator([_TEXT] * 3, trainers.BpeTrainer(vocab_size=size - 266, show_progress=False))
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    runs = ["\n\n", "\n\n\n", "  ", "   "]
    learned = sorted(set(backend.get_vocab()), key=backend.get_vocab().get)
    tokens = [*special, *runs, *(f"<0x{byte:02X}>" for byte in range(256)), *learned]
    types = [3] * len(special) + [4] * len(runs) + [6] * 256 + [1] * len(learned)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0 if kind != 1 else -float(number) for number, kind in enumerate(types)])
    writer.add_token_types(types)
    for number, name in enumerate(("pad", "eos", "bos", "unk")):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(GEMMA_TEMPLATE)


def _merges(serialized: str) -> list[str]:
    return [" ".join(pair) for pair in json.loads(serialized)["model"]["merges"]]


def rope_divisors(hf_config: dict) -> np.ndarray:
    """rope_freqs.weight [H/2] of Llama 3: 1 for short wavelengths, the factor for long ones, a ramp between."""
    rope, size = hf_config["rope_scaling"], hf_config["head_dim"]
    low, high, length = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    out = []
    for i in range(0, size, 2):
        wavelength = 2 * math.pi * hf_config["rope_theta"] ** (i / size)
        if wavelength < length / high:
            out.append(1.0)
        elif wavelength > length / low:
            out.append(rope["factor"])
        else:
            ramp = (length / wavelength - low) / (high - low)
            out.append(1 / ((1 - ramp) / rope["factor"] + ramp))
    return np.array(out, np.float32)
