"""Hugging Face's config.json -> ModelConfig. Both spellings of the rotary settings are read: `rope_theta` with
`rope_scaling` (checkpoints on the hub) and `rope_parameters` (written by transformers 5)."""

import json
import math
from pathlib import Path

from seal_jax.errors import UserError
from seal_jax.model.rope import Linear, Llama3, Rope, Yarn
from seal_jax.model.transformer import LayerKind, ModelConfig

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
FAMILIES = "Llama 3, Mistral, SmolLM2, SmolLM3, Qwen2, Qwen2.5, Qwen3 and Gemma 3 (text)"
# What a field must be, when it is there, for the decoder to compute the model that was meant.
_REQUIRED = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "use_bidirectional_attention": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
# transformers' defaults, for what a config.json does not say
_THETA = {"smollm3": 2e6, "gemma3_text": 1e6}
_HEAD_DIM = {"qwen3": 128, "gemma3_text": 256}


def read_json(path: Path) -> dict:
    """A JSON object from a file of the checkpoint."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: a Hugging Face checkpoint folder has one.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): get the file again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object: get the file again.")
    return content


def model_config(hf: dict, place: str) -> ModelConfig:
    """The decoder's configuration; `place` names the file in errors. UserError for what the decoder cannot compute."""
    kind = hf.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UserError(
            f"{place}: model_type is {kind!r}; supported are {', '.join(ARCHITECTURES)}, which are {FAMILIES}."
        )
    for settings in (hf.get("rope_parameters"), hf.get("rope_scaling")):
        if not isinstance(settings or {}, dict):
            raise UserError(f"{place}: the rotary settings are {settings!r}, which is no object: get a complete copy.")
    hf, gemma = plain_rope(hf), kind == "gemma3_text"
    activation = {"hidden_activation": "gelu_pytorch_tanh"} if gemma else {"hidden_act": "silu"}
    for field, value in {**_REQUIRED, **activation}.items():
        if hf.get(field) not in (None, value):
            raise UserError(
                f"{place}: {field} is {hf[field]!r}, but only {value!r} is supported: use another checkpoint."
            )
    heads, width = _count(hf, "num_attention_heads", place), _count(hf, "hidden_size", place)
    kv_heads = _count(hf, "num_key_value_heads", place, heads)
    if heads % kv_heads:
        raise UserError(f"{place}: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}.")
    head_dim = _count(hf, "head_dim", place, _HEAD_DIM.get(kind, width // heads))
    depth = _count(hf, "num_hidden_layers", place)
    return ModelConfig(
        vocab_size=_count(hf, "vocab_size", place),
        hidden_size=width,
        num_layers=depth,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_dim=_count(hf, "intermediate_size", place),
        layers=_layers(hf, kind, depth, place),
        rms_norm_eps=_real(hf, "rms_norm_eps", place, 1e-6),
        qkv_bias=kind == "qwen2",
        qk_norm=kind in ("qwen3", "gemma3_text"),
        tie_embeddings=bool(hf.get("tie_word_embeddings", kind in ("smollm3", "gemma3_text"))),
        max_position=_count(hf, "max_position_embeddings", place),
        query_pre_attn_scalar=_real(hf, "query_pre_attn_scalar", place, 256 if gemma else head_dim),
        activation=next(iter(activation.values())),
        embed_scale=math.sqrt(width) if gemma else 1.0,
        norm_offset=float(gemma),
        post_norms=gemma,
    )


def plain_rope(hf: dict) -> dict:
    """A copy of config.json in the older spelling of the rotary settings, which every version of transformers reads:
    rope_theta, rope_scaling, and rope_local_base_freq for the layers of Gemma that have a window."""
    newer = hf.get("rope_parameters") or {}
    out = {key: value for key, value in hf.items() if key != "rope_parameters"}
    everywhere = newer.get("full_attention", newer)
    scaling = {key: value for key, value in everywhere.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if scaling.get("rope_type", "default") == "default":
        scaling = None
    given = {
        "rope_theta": everywhere.get("rope_theta"),
        "partial_rotary_factor": everywhere.get("partial_rotary_factor"),
        "rope_local_base_freq": newer.get("sliding_attention", {}).get("rope_theta"),
    }
    out |= {key: value for key, value in given.items() if value is not None}
    return out | {"rope_scaling": scaling or hf.get("rope_scaling")}


def _layers(hf: dict, kind: str, depth: int, place: str) -> tuple[LayerKind, ...]:
    """The kind of each layer."""
    theta = _real(hf, "rope_theta", place, _THETA.get(kind, 10000.0))
    rope = Rope(theta, _scaling(hf, theta, place))
    if kind == "gemma3_text":
        near = LayerKind(
            Rope(_real(hf, "rope_local_base_freq", place, 10000.0)), _count(hf, "sliding_window", place, 4096)
        )
        every = _count(hf, "sliding_window_pattern", place, 6)
        types = hf.get("layer_types") or ["full" if i % every == every - 1 else "sliding" for i in range(depth)]
        return _each([near if one.startswith("sliding") else LayerKind(rope) for one in types], depth, place)
    if kind == "smollm3":
        every = _count(hf, "no_rope_layer_interval", place, 4)
        turned = hf.get("no_rope_layers") or [i % every != every - 1 for i in range(depth)]  # 1: the layer has RoPE
        return _each([LayerKind(rope if one else None) for one in turned], depth, place)
    has_window = kind == "mistral" and hf.get("sliding_window", 4096) is not None
    window = _count(hf, "sliding_window", place, 4096) if has_window else None
    if has_window and window >= _count(hf, "max_position_embeddings", place):
        window = None
    return (LayerKind(rope, window),) * depth


def _each(layers: list[LayerKind], depth: int, place: str) -> tuple[LayerKind, ...]:
    """One for each layer of the model."""
    if len(layers) < depth:
        raise UserError(
            f"{place}: it tells the kinds of {len(layers)} layers, but num_hidden_layers is {depth}: get a complete "
            "copy."
        )
    return tuple(layers[:depth])


def _scaling(hf: dict, theta: float, place: str) -> Llama3 | Yarn | Linear | None:
    """How the rotary frequencies are scaled for long texts."""
    settings = hf.get("rope_scaling") or {}
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "default":
        return None
    if kind not in ("linear", "llama3", "yarn"):
        raise UserError(f"{place}: rope type {kind!r} is not supported; 'default', 'linear', 'llama3' and 'yarn' are.")
    factor = _real(settings, "factor", place)
    if kind == "linear":
        return Linear(factor)
    longest = _count(hf, "max_position_embeddings", place)
    original = _count(settings, "original_max_position_embeddings", place, longest)
    if kind == "llama3":
        low, high = (_real(settings, f"{name}_freq_factor", place) for name in ("low", "high"))
        return Llama3(factor, low, high, original)
    fast, slow = _real(settings, "beta_fast", place, 32.0), _real(settings, "beta_slow", place, 1.0)
    whole = settings.get("truncate") is not False
    return Yarn(factor, fast, slow, original, _magnitude(settings, factor, place), whole)


def _magnitude(settings: dict, factor: float, place: str) -> float:
    """YaRN's factor of queries and keys, as it is given or as it follows from others; else 0.1 ln(factor) + 1."""
    if settings.get("attention_factor") is not None:
        return _real(settings, "attention_factor", place)

    def of(times: float) -> float:
        return 0.1 * times * math.log(factor) + 1 if factor > 1 else 1.0

    if settings.get("mscale") and settings.get("mscale_all_dim"):
        return of(settings["mscale"]) / of(settings["mscale_all_dim"])
    return of(1.0)


def _count(hf: dict, field: str, place: str, default: int | None = None) -> int:
    value = default if hf.get(field) is None else hf[field]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{place}: field {field} must be a positive whole number, not {value!r}: get a complete copy.")
    return value


def _real(hf: dict, field: str, place: str, default: float | None = None) -> float:
    value = default if hf.get(field) is None else hf[field]
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise UserError(f"{place}: field {field} must be a positive number, not {value!r}: get a complete copy.")
    return float(value)
