"""A whole run of a tiny random model on shipped passages, in seconds: for the tests of everything above the engine."""

import json
from pathlib import Path

from tiny_checkpoint import random_params, tiny_config, tiny_tokenizer

from seal_jax import config as config_lib
from seal_jax.experiments import single_passage
from seal_jax.model.hf_config import model_config
from seal_jax.model.pretrained import save_merged
from seal_jax.runs.directory import open_run
from seal_jax.runs.records import read
from seal_jax.runs.table import Line

RECORDS = ("self_edits", "trials", "selections")


def make_model(folder: Path, seed: int = 0) -> str:
    """A Hugging Face folder with random weights that depend on the seed."""
    hf = tiny_config("llama")
    save_merged(folder, random_params(hf, seed), model_config(hf, "config"), tiny_tokenizer(), hf)
    return str(folder)


def tiny_values(model: str, cache: str, **changes) -> dict:
    """A config of two passages of each kind, as nested dicts; `changes` by group: outer={"rounds": 2}."""
    values = config_lib.defaults()
    values["model"]["policy"] = model
    values["data"] |= {
        "train": "shipped:train", "evaluation": "shipped:test", "train_passages": 2, "evaluation_passages": 2
    }  # fmt: skip
    values["task"] |= {"max_sequences": 2}
    values["sampling"] |= {"max_new_tokens": 12}
    values["inner"] |= {"rank": 2, "alpha": 4.0, "epochs": 1, "learning_rate": 1e-2}
    values["reward"] |= {"accuracy_weight": 0.0, "likelihood_weight": 1.0, "retrains": 1, "answer_tokens": 4}
    values["outer"] |= {"rounds": 1, "samples": 2}
    values["outer"]["sft"] |= {"rank": 2, "alpha": 4.0, "epochs": 1, "learning_rate": 1e-2}
    values["engine"] |= {"cache": cache, "candidates": 4}
    for group, fields in changes.items():
        values[group] = values[group] | fields if isinstance(fields, dict) else fields
    return values


def run(values: dict, workdir: Path) -> list[Line]:
    """What `python -m seal_jax.main` does with a config, in this process."""
    with open_run(workdir, values) as folder:
        return single_passage.run(config_lib.from_dict(values), folder)


def records(workdir: Path) -> dict[str, list[dict]]:
    """The records that have to be the same however often a run was stopped; phases and metrics hold times."""
    return {name: read(workdir / f"{name}.jsonl") for name in RECORDS}


def config_file(path: Path, values: dict) -> Path:
    """A file of the kind in configs/ that holds `values`."""
    text = json.dumps(values)
    path.write_text(f"import json\n\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
                    f"    return ConfigDict(json.loads({text!r}))\n")
    return path
