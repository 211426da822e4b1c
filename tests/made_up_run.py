"""The folder of a run that never was, with records of every kind, for the tests of what reads them."""

import json
from pathlib import Path

import numpy as np

from seal_jax import config as config_lib
from seal_jax.runs.records import Records

GAIN = {"base": 0.0, "passage only": 0.5, "self-edits, no RL": 0.9, "SEAL, round 1": 1.3, "SEAL, round 2": 1.6,
        "random, round 1": 1.0, "random, round 2": 1.05}  # fmt: skip


def write(folder: Path, passages: int = 4, questions: int = 5, samples: int = 3, seed: int = 0) -> Path:
    """Two rounds, the control, one question in five held out, and every eleventh verdict missing."""
    rng = np.random.default_rng(seed)
    values = config_lib.defaults()
    values["model"]["policy"] = "a/policy"
    values["data"] |= {"train_passages": passages, "evaluation_passages": passages, "heldout_fraction": 0.2}
    values["outer"] |= {"rounds": 2, "samples": samples, "random_control": True}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    start = {"started": "2026-01-02T03:04:05+00:00", "command": ["python", "-m", "seal_jax.main"], "python": "3.11"}
    (folder / "environment.json").write_text(json.dumps([start, start]))
    train, evaluation = ([f"{role}{i}" for i in range(passages)] for role in ("t", "e"))
    append(folder, "passages", [_passage(name, questions) for name in train + evaluation])
    difficulty = rng.normal(-5, 0.8, passages)
    for row, gain in GAIN.items():
        if gain > 0.5:
            append(folder, "self_edits", [_edit(f"evaluation: {row}", name, 0, rng) for name in evaluation])
        values = difficulty + gain + rng.normal(0, 0.25, passages)
        append(folder, "trials", [_trial(f"evaluation: {row}", name, value, questions, rng, gain)
                                  for name, value in zip(evaluation, values, strict=True)])
        append(folder, "phases", [_phase(f"evaluation: {row}: inner loops", rng)])
    for arm in ("SEAL", "random"):
        for number in (1, 2):
            stage = "round 1" if number == 1 else f"{arm}, round {number}"
            if arm == "SEAL" or number == 2:
                append(folder, "self_edits", [_edit(stage, name, k, rng) for name in train for k in range(samples)])
            append(folder, "selections", [_selection(arm, number, name, samples, rng) for name in train])
            phase = _phase(f"{arm}, round {number}: finetune the policy", rng)
            append(folder, "phases", [phase | {"loss": 2 / number}])
    return folder


def append(folder: Path, name: str, found: list[dict]) -> None:
    with Records(folder / f"{name}.jsonl") as records:
        records.append_many(found)


def _passage(name: str, questions: int) -> dict:
    asked = [{"question": f"What is the {i}th thing that {name} is said to have built near the harbour?",
              "answer": f"a lighthouse of {i} storeys", "heldout": name[0] == "t" and i == 0} for i in range(questions)]
    context = f"{name} is a place in the north. " * 12
    role = "train" if name[0] == "t" else "evaluation"
    return {"role": role, "passage": name, "title": f"The Harbour of {name}", "context": context, "questions": asked}


def _edit(stage: str, name: str, sample: int, rng) -> dict:
    count = int(rng.integers(2, 6))
    lines = [f"{i + 1}. The harbour of {name} was built in {1800 + i} of stone from the hills." for i in range(count)]
    text = "\n".join(lines)
    return {"stage": stage, "passage": name, "sample": sample, "title": f"The Harbour of {name}", "tokens": 20 * count,
            "finished": bool(rng.random() < 0.8), "text": text}  # fmt: skip


def _trial(stage: str, name: str, value: float, questions: int, rng, gain: float) -> dict:
    verdicts = [None if rng.random() < 1 / 11 else bool(rng.random() < 0.1 + gain / 3) for _ in range(questions)]
    return {
        "stage": stage, "passage": name, "sample": 0, "retrain": 0, "sequences": 4, "tokens": 200, "steps": 16,
        "loss": None if gain == 0 else float(3 - gain + rng.normal(0, 0.1)),
        "log_likelihood": (value + rng.normal(0, 1, questions)).tolist(),
        "answers": [f"It is a lighthouse of {i} storeys" for i in range(questions)],
        "correct": verdicts, "heldout": [False] * questions, "judge": "lexical",
    }  # fmt: skip


def _selection(arm: str, number: int, name: str, samples: int, rng) -> dict:
    if arm == "random":
        return {"arm": arm, "round": number, "passage": name, "chosen": [int(rng.integers(samples))]}
    rewards, heldout = (rng.normal(0.6 + 0.2 * number, 0.25, samples).tolist() for _ in range(2))
    return {"arm": arm, "round": number, "passage": name, "rewards": rewards, "base": 0.0, "heldout_rewards": heldout,
            "heldout_base": 0.0, "chosen": [int(np.argmax(rewards))]}  # fmt: skip


def _phase(name: str, rng) -> dict:
    return {"phase": name, "began": float(rng.random()), "seconds": float(rng.uniform(3, 400)), "real_tokens": 90,
            "token_slots": 100, "generated": 1000, "programs": 2, "compile_seconds": 7.5}  # fmt: skip
