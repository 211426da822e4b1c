"""The folder of a run that never was, with records of every kind, for the tests of what reads them."""

import json
from pathlib import Path

import numpy as np

from seal_jax import config as config_lib
from seal_jax.runs.records import Records

ROWS = [  # arm, round, name, kind, gain in log-likelihood
    ("base", 0, "base", "untrained", 0.0),
    ("passage only", 0, "passage only", "control", 0.5),
    ("SEAL", 0, "self-edits, no RL", "policy", 0.9),
    ("SEAL", 1, "SEAL, round 1", "policy", 1.3),
    ("random", 1, "random, round 1", "policy", 1.0),
    ("SEAL", 2, "SEAL, round 2", "policy", 1.6),
    ("random", 2, "random, round 2", "policy", 1.05),
]


def write(folder: Path, items: int = 4, questions: int = 5, samples: int = 3, seed: int = 0) -> Path:
    """Two rounds, the control, one question in five held out, about every eleventh verdict missing, some answers and
    self-edits cut off, one self-edit of round 1 that failed, and one of the last row whose training diverged."""
    rng = np.random.default_rng(seed)
    values = config_lib.defaults("knowledge")
    values["model"]["policy"] = "a/policy"
    values["data"] |= {"train_items": items, "evaluation_items": items, "heldout_fraction": 0.2}
    values["outer"] |= {"rounds": 2, "samples": samples, "random_control": True}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    start = {"started": "2026-01-02T03:04:05+00:00", "command": ["python", "-m", "seal_jax.main"], "python": "3.11"}
    (folder / "environment.json").write_text(json.dumps([start, start]))
    train, evaluation = ([f"{split[0]}{i}" for i in range(items)] for split in ("train", "evaluation"))
    append(folder, "items", [item(split, name, questions) for split, names in (("train", train),
                                                                               ("evaluation", evaluation))
                             for name in names])  # fmt: skip
    difficulty = rng.normal(-5, 0.8, items)
    for arm, number, name, kind, gain in ROWS:
        append(folder, "rows", [row(arm, number, name, kind)])
        stage = {"split": "evaluation", "arm": arm, "round": number}
        if kind == "policy":
            append(folder, "self_edits", [edit(stage, name, 0, rng) for name in evaluation])
        values = difficulty + gain + rng.normal(0, 0.25, items)
        found = [trial(stage | {"purpose": "answers"}, name, value, questions, rng, gain)
                 for name, value in zip(evaluation, values, strict=True)]  # fmt: skip
        if (arm, number) == ("random", 2):
            nothing = {"log_likelihood": [None] * questions, "answers": None, "correct": None, "cut": None}
            found[1] |= nothing | {"loss": None, "failure": "training diverged"}
        append(folder, "trials", found)
        append(folder, "phases", [phase(stage | {"purpose": "answers"}, rng)])
    for number in (1, 2):
        for arm in ("SEAL", "random"):
            stage = {"split": "train", "arm": arm, "round": number}
            if arm == "SEAL" or number == 2:
                append(folder, "self_edits", [edit(stage, name, k, rng) for name in train for k in range(samples)])
            if arm == "SEAL":
                asked = [trial(stage | {"purpose": "reward"}, name, -4.0, questions, rng, 1.0) for name in train]
                if number == 1:
                    asked[0] |= {"failure": "the self-edit has no line to train on", "loss": None}
                append(folder, "trials", asked)
            append(folder, "rollouts", [rollout(arm, number, name, samples, rng) for name in train])
            append(folder, "phases", [phase(stage | {"purpose": "finetuning"}, rng) | {"loss": 2 / number,
                                                                                       "lessons": items}])  # fmt: skip
    return folder


def append(folder: Path, name: str, found: list[dict]) -> None:
    with Records(folder / f"{name}.jsonl") as records:
        records.append_many(found)


def row(arm: str, number: int, name: str, kind: str, same_as: list | None = None) -> dict:
    return {"arm": arm, "round": number, "name": name, "kind": kind, "same_as": same_as}


def item(split: str, name: str, questions: int) -> dict:
    asked = [{"question": f"What is the {i}th thing that {name} is said to have built near the harbour?",
              "answer": f"a lighthouse of {i} storeys", "heldout": split == "train" and i == 0}
             for i in range(questions)]  # fmt: skip
    context = f"{name} is a place in the north. " * 12
    return {"split": split, "item": name, "title": f"The Harbour of {name}", "context": context, "questions": asked}


def edit(stage: dict, name: str, sample: int, rng) -> dict:
    count = int(rng.integers(2, 6))
    lines = [f"{i + 1}. {name} has a harbour of {1800 + i} with a lighthouse of {i} storeys." for i in range(count)]
    tokens = list(range(20 * count))
    return {**stage, "item": name, "sample": sample, "text": "\n".join(lines), "tokens": tokens,
            "log_probs": [-0.5] * len(tokens), "finished": bool(rng.random() < 0.8), "problem": None,
            "attempts": 1}  # fmt: skip


def trial(stage: dict, name: str, value: float, questions: int, rng, gain: float) -> dict:
    verdicts = [None if rng.random() < 1 / 11 else bool(rng.random() < 0.1 + gain / 3) for _ in range(questions)]
    return {
        **stage, "item": name, "sample": 0, "retrain": 0, "sequences": 4, "tokens": 200, "steps": 16,
        "loss": None if gain == 0 else float(3 - gain + rng.normal(0, 0.1)), "failure": None,
        "losses": [] if gain == 0 else [4.0 - gain, 3.5 - gain, 3 - gain],
        "log_likelihood": (value + rng.normal(0, 1, questions)).tolist(),
        "answers": [f"It is a {'mill' if verdict is False else 'lighthouse'} of {i} storeys"
                    for i, verdict in enumerate(verdicts)],
        "correct": verdicts, "cut": (rng.random(questions) < 0.3).tolist(), "heldout": [False] * questions,
        "judge": "lexical",
    }  # fmt: skip


def rollout(arm: str, number: int, name: str, samples: int, rng) -> dict:
    found = {"arm": arm, "round": number, "item": name, "rewards": None, "base": None, "heldout_rewards": None,
             "heldout_base": None, "accuracies": None, "retrains": None,
             "chosen": [int(rng.integers(samples))]}  # fmt: skip
    if arm == "random":
        return found
    rewards, heldout = (rng.normal(0.6 + 0.2 * number, 0.25, samples).tolist() for _ in range(2))
    return found | {"rewards": rewards, "base": 0.0, "heldout_rewards": heldout, "heldout_base": 0.0,
                    "accuracies": rewards, "retrains": [2] * samples, "chosen": [int(np.argmax(rewards))]}  # fmt: skip


def phase(stage: dict, rng) -> dict:
    return {**stage, "began": float(rng.random()), "seconds": float(rng.uniform(3, 400)), "real_tokens": 90,
            "token_slots": 100, "generated": 1000, "programs": 2, "compile_seconds": 7.5}  # fmt: skip
