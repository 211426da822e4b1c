"""A whole run of a tiny random model in seconds, for the tests of everything above the engine.

Passages, prompts and self-edits have lengths that share few buckets, so that few programs are compiled.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoint import random_params, tiny_config, tiny_tokenizer

from seal_jax import config as config_lib
from seal_jax import main
from seal_jax.experiments import assemble
from seal_jax.model.hf_config import model_config
from seal_jax.model.pretrained import save_merged
from seal_jax.report import html
from seal_jax.report.watch import Watch
from seal_jax.runs import keys
from seal_jax.runs.directory import open_run
from seal_jax.runs.records import Records, read

KEYS = {
    "rows": keys.ROW, "items": keys.ITEM, "self_edits": keys.EDIT, "trials": keys.TRIAL, "rollouts": keys.ROLLOUT
}  # fmt: skip
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_model(folder: Path, seed: int = 0, context: int = 512) -> str:
    """A Hugging Face folder with random weights that depend on the seed; `context`: tokens that the model may read."""
    hf = tiny_config("llama", max_position_embeddings=context)
    save_merged(folder, random_params(hf, seed), model_config(hf, "config"), tiny_tokenizer(), hf)
    return str(folder)


def make_passages(file: Path, first: str, count: int = 2) -> str:
    """A file of short passages with three questions each."""
    items = [
        {
            "title": "Arlo",
            "context": f"The ferry to {first}{i}.",
            "questions": [{"question": f"What {what}?", "answer": f"{first}{i}"} for what in ("is", "leaves", "was")],
        }
        for i in range(count)
    ]
    file.write_text(json.dumps(items))
    return str(file)


def tiny_values(home: Path, **changes) -> dict:
    """A config as nested dicts, of the model and passages in `home`; `changes` by group: outer={"rounds": 2}."""
    values = config_lib.defaults(changes.get("domain", "knowledge"))
    values["model"] |= {"policy": str(home / "policy")}
    values["data"] |= {
        "train": str(home / "train.json"), "evaluation": str(home / "evaluation.json"), "train_items": 2,
        "evaluation_items": 2,
    }  # fmt: skip
    values["sampling"] |= {"max_new_tokens": 8, "temperature": 1.0, "top_p": 0.95}
    values["inner"] |= {"rank": 2, "alpha": 4.0, "warmup_steps": 0, "targets": ALL}
    values["reward"] |= {"accuracy_weight": 0.0, "likelihood_weight": 1.0, "retrains": 1, "answer_tokens": 4}
    values["outer"] |= {"rounds": 1, "samples": 2, "random_control": True, "unfinished": "open", "selection": "best"}
    values["outer"]["sft"] |= {"rank": 2, "alpha": 4.0, "learning_rate": 3e-2, "accumulation": 2}
    values["evaluation"] |= {"samples": 2, "answer_tokens": 4}
    values["engine"] |= {"cache": str((home / "cache").resolve()), "candidates": 2, "decode_rows": 6}
    if values["domain"] == "knowledge":
        values["model"] |= {"chat": "no"}
        values["data"] |= {"heldout_fraction": 0.3}
        values["knowledge"] |= {"max_sequences": 2}
        values["inner"] |= {"epochs": 2, "learning_rate": 1e-2}
    for group, fields in changes.items():
        values[group] = values[group] | fields if isinstance(fields, dict) else fields
    return values


def share(home: Path, folder: Path) -> Path:
    """A folder with the policy and the compiled programs of `home`, for passages of its own."""
    for name in ("policy", "cache"):
        (folder / name).symlink_to((home / name).resolve())
    return folder


def run(values: dict, workdir: Path) -> None:
    """What `python -m seal_jax.main` does with a config, in this process."""
    with open_run(workdir, values) as folder:
        main.carry_out(config_lib.from_dict(values), folder)


def finished(values: dict, actors, workdir: Path) -> tuple[dict, Path]:
    """(config, folder) of a run with shared compiled programs that writes no report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_actor", actors)
        patch.setattr(Watch, "after_rows", lambda self, rows: None)
        run(values, workdir)
    return values, workdir


def uninterrupted(values: dict, actors, workdir: Path) -> tuple[dict, Path]:
    """`finished` with its curves and sheets, and with a report that is written once, at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_actor", actors)
        patch.setattr(html, "write", lambda folder: None)
        run(values, workdir)
    html.write(workdir)
    return values, workdir


def records(workdir: Path) -> dict[str, list[dict]]:
    """The records that are the same however often a run was stopped; those of phases and metrics hold times."""
    return {name: read(workdir / f"{name}.jsonl") for name in KEYS}


def pick(found: list[dict], **fields) -> list[dict]:
    """Those of some records that have these values."""
    return [record for record in found if fields.items() <= record.items()]


def by_key(found: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """`records` sorted: how many loops a chunk has decides in which order they are recorded."""
    return {name: sorted(found[name], key=lambda record: [record[f] for f in KEYS[name]]) for name in found}


def same(ours, theirs):
    """Equal records: floats (nats, rewards) to 1e-4, all else exactly. Raises AssertionError where they are not."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            same(ours[name], theirs[name])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            same(*pair)
    elif isinstance(ours, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    else:
        assert ours == theirs


def config_file(path: Path, values: dict) -> Path:
    """A file of the kind in configs/ that holds `values`."""
    lines = ["import json", "from ml_collections import ConfigDict", "from seal_jax.config import at_size", "", "",
             "def get_config(size=''):", f"    values = json.loads({json.dumps(values)!r})",
             "    return at_size(ConfigDict(values), size)"]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


class Killed(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


def kill_at(monkeypatch, count: int, half: bool, lost: list[bytes], of: bytes = b"") -> None:
    """From now on the run dies at the `count`-th group of records: before it, or with half of its bytes on disk.

    What was not written whole is added to `lost`. of: what a group must hold to be counted.
    """
    left, append = [count], Records._append_bytes

    def dying(self, data):
        left[0] -= left[0] <= 0 or of in data
        if left[0] == 0:
            lost.append(data)
            os.write(self._file, data[: len(data) // 2 if half else 0])
        if left[0] <= 0:
            raise Killed
        append(self, data)

    monkeypatch.setattr(Records, "_append_bytes", dying)
