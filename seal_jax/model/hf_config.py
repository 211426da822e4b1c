"""Hugging Face's config.json <-> ModelConfig. Both spellings of the rotary settings are read: `rope_theta` with
`rope_scaling` (checkpoints on the hub) and `rope_parameters` (written by transformers 5)."""

import json
from pathlib import Path

from seal_jax.errors import UserError
from seal_jax.model.transformer import ModelConfig, RopeScaling

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
# What a field must be, when it is there, for the decoder to compute the model that was meant.
_REQUIRED = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "quantization_config": None,
}


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
            f"{place}: model_type is {kind!r}; supported are {', '.join(ARCHITECTURES)} (with SmolLM2, Qwen2.5)."
        )
    for field, value in _REQUIRED.items():
        if hf.get(field, value) != value:
            raise UserError(
                f"{place}: {field} is {hf[field]!r}, but only {value!r} is supported: use another checkpoint."
            )
    heads, width = _count(hf, "num_attention_heads", place), _count(hf, "hidden_size", place)
    kv_heads = _count(hf, "num_key_value_heads", place, heads)
    if heads % kv_heads:
        raise UserError(f"{place}: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}.")
    theta, scaling = _rope(hf, place)
    return ModelConfig(
        vocab_size=_count(hf, "vocab_size", place),
        hidden_size=width,
        num_layers=_count(hf, "num_hidden_layers", place),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_count(hf, "head_dim", place, 128 if kind == "qwen3" else width // heads),
        mlp_dim=_count(hf, "intermediate_size", place),
        rope_theta=theta,
        rms_norm_eps=_real(hf, "rms_norm_eps", place, 1e-6),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
        tie_embeddings=bool(hf.get("tie_word_embeddings", False)),
        max_position=_count(hf, "max_position_embeddings", place),
        rope_scaling=scaling,
    )


def plain_rope(hf: dict, config: ModelConfig) -> dict:
    """A copy of config.json in the older spelling of the rotary settings, which every version of transformers reads."""
    out = {key: value for key, value in hf.items() if key not in ("rope_parameters", "rope_scaling")}
    out["rope_theta"] = config.rope_theta
    scaling = config.rope_scaling
    out["rope_scaling"] = scaling and {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position,
    }
    return out


def _rope(hf: dict, place: str) -> tuple[float, RopeScaling | None]:
    """Base wavelength and scaling, from whichever spelling is there."""
    settings = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{place}: the rotary settings are {settings!r}, which is no object: get a complete copy.")
    theta = _real({**hf, **settings}, "rope_theta", place, 10000.0)
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UserError(f"{place}: rope type {kind!r} is not supported; 'default' and 'llama3' are.")
    return theta, RopeScaling(
        factor=_real(settings, "factor", place),
        low_freq_factor=_real(settings, "low_freq_factor", place),
        high_freq_factor=_real(settings, "high_freq_factor", place),
        original_max_position=_count(settings, "original_max_position_embeddings", place),
    )


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
