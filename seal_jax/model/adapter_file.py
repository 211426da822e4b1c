"""A PEFT adapter folder read back: the inverse of export.save_adapter, for adapters of other programs as well."""

from pathlib import Path

import numpy as np

from seal_jax.errors import UserError
from seal_jax.model.hf_config import read_json
from seal_jax.model.lora import PROJECTIONS, LoraConfig
from seal_jax.model.pretrained import open_safetensors

UNSUPPORTED = {"use_dora": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}}
NAME, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def read_adapter(folder: str | Path, model: str = "") -> tuple[dict, LoraConfig, str]:
    """(the adapter as model/lora.py has it, float32; its shape; the model that it belongs to, or `model` in its place).

    Raises UserError where the folder holds no LoRA adapter, or one of a kind that is not known here.
    """
    folder = Path(folder)
    if not (folder / NAME).exists():
        raise UserError(f"{folder} holds no {NAME}; name the folder of an adapter, such as `adapt learn --out` wrote")
    config = read_json(folder / NAME)
    for field, plain in UNSUPPORTED.items():
        if config.get(field, plain) not in (plain, None):
            text = f"{folder / NAME}: {field} is {config[field]!r}, which is not known here; train a plain LoRA"
            raise UserError(text)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not isinstance(alpha, int | float):
        raise UserError(f"{folder / NAME} describes no LoRA with numbers 'r' and 'lora_alpha'; name another one")
    file = open_safetensors(folder / WEIGHTS)
    found: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for name in file.keys():  # noqa: SIM118  (no dict)
        parts = name.split(".")
        if len(parts) < 6 or parts[-1] != "weight" or parts[-3] not in PROJECTIONS or not parts[-5].isdigit():
            raise UserError(f"{folder / WEIGHTS}: tensor {name} belongs to no projection that is known here")
        factor = file.get_tensor(name).T.astype(np.float32)
        found.setdefault(parts[-3], {}).setdefault(int(parts[-5]), {})[parts[-2].removeprefix("lora_")] = factor
    layers = {}
    for name, each in found.items():
        if sorted(each) != list(range(len(each))) or any(set(pair) != {"A", "B"} for pair in each.values()):
            raise UserError(f"{folder / WEIGHTS}: {name} lacks layers or factors; save the adapter anew")
        shapes = {kind: {pair[kind].shape for pair in each.values()} for kind in "AB"}
        if any(len(found) != 1 or len(next(iter(found))) != 2 for found in shapes.values()):
            raise UserError(f"{folder / WEIGHTS}: the factors of {name} differ in shape; save the adapter anew")
        layers[name] = {kind: np.stack([each[layer][kind] for layer in range(len(each))]) for kind in "AB"}
    widths = {factors["A"].shape[2] for factors in layers.values()} | {f["B"].shape[1] for f in layers.values()}
    if widths != {rank}:
        held = ", ".join(map(str, sorted(widths))) or "no"
        raise UserError(f"{folder / WEIGHTS} has rank {held}, but {NAME} says {rank}; save the adapter anew")
    targets = tuple(name for name in PROJECTIONS if name in layers)
    name = model or config.get("base_model_name_or_path")
    if not name:
        raise UserError(f"{folder} does not name its model; give it with --model")
    return {"layers": layers}, LoraConfig(rank, alpha, targets, bool(config.get("use_rslora"))), name


def check_fits(adapter: dict, layers: dict, folder: str | Path, model: str) -> None:
    """Raises UserError unless the adapter of `folder` fits these layers ({projection: {'kernel': [L, in, out]}})."""
    for projection, factors in adapter["layers"].items():
        depth, fan_in, fan_out = layers[projection]["kernel"].shape
        if factors["A"].shape[:2] != (depth, fan_in) or factors["B"].shape[::2] != (depth, fan_out):
            raise UserError(
                f"the adapter in {folder} does not fit {model} ({projection} has another shape); name the model that "
                "it was trained on with --model"
            )
