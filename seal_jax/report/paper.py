"""The paper's numbers for the rows of our tables (arXiv 2506.10943, and the files that its authors released).

All are right answers in %, by GPT-4.1: passages of SQuAD and Qwen2.5, or tasks of ARC and Llama-3.2-1B-Instruct.
"""

from collections.abc import Mapping
from typing import Any

from seal_jax.runs import keys

Key = tuple[str, int]  # (arm, round) of a row
BASE, PASSAGE, TEACHER = ("base", 0), ("passage only", 0), ("endpoint", 0)
NO_RL, FIRST, SECOND = (keys.SEAL, 0), (keys.SEAL, 1), (keys.SEAL, 2)

# One passage at a time, Qwen2.5-7B, by prompt: self-edits without RL, after one round, after two, and by GPT-4.1.
PROMPTS = {
    "implications": (39.7, 42.7, 47.0, 46.3),
    "implications-long": (49.3, 52.4, 54.4, 54.1),
    "implications-very-long": (45.0, 51.5, 52.1, 40.9),
    "rewrite": (49.4, 55.3, 55.6, 53.6),
    "self-qa": (37.3, 42.8, 48.7, 39.2),
    "none": (13.8, 12.7, 18.9, 28.6),
}
ONE_PASSAGE = {BASE: 32.7, PASSAGE: 33.5}
THREE_BILLION = {BASE: 25.1, NO_RL: 31.9, SECOND: 37.0}  # Qwen2.5-3B, implications
PROXY = 45.6  # SEAL by the rubric's reward in place of inner loops, one passage, after two rounds
# All passages at once, all weights: 200 and 2,067 passages.
PRETRAINING = {
    "200 passages": {BASE: 32.0, PASSAGE: 36.0, NO_RL: 50.6, TEACHER: 59.4, ("entigraph", 0): 56.0, SECOND: 58.2},
    "2,067 passages": {BASE: 29.0, PASSAGE: 31.2, NO_RL: 43.4, TEACHER: 49.2, ("entigraph", 0): 48.6, SECOND: 46.4},
}
ARC = {("in context", 0): 0.0, NO_RL: 20.0, FIRST: 72.5, ("oracle configuration", 0): 100.0}
FIVE = ("own", 5)  # five self-edits of each passage, by whoever `pretraining.author` says
AUTHORS = {"policy": NO_RL, "endpoint": TEACHER, "entigraph": ("entigraph", 0)}
MANY = 1000  # passages, from which on the larger of the two is the nearer one

NOTE = (
    "“paper”: {setting}, in %. Model, data, judge and settings differ from these runs, so that its column shows the "
    "shape of an effect and is no target."
)


def numbers(config: Mapping[str, Any], items: int) -> tuple[str, dict[Key, float]]:
    """(the setting of the paper that is nearest to a run's, {row: accuracy in %}) for `items` evaluation items."""
    if config.get("domain") == "arc":
        return "ARC tasks, Llama-3.2-1B-Instruct", ARC
    if config.get("experiment") == "pretraining":
        name = "2,067 passages" if items > MANY else "200 passages"
        found = dict(PRETRAINING[name])
        row = AUTHORS.get(config.get("pretraining", {}).get("author"))
        return f"{name} at once, Qwen2.5-7B, all weights", found | ({FIVE: found[row]} if row else {})
    prompt = config.get("knowledge", {}).get("prompt", "implications")
    if "3b" in config.get("model", {}).get("policy", "").lower():
        return "one passage at a time, Qwen2.5-3B, prompt “implications”", THREE_BILLION
    prompt = prompt if prompt in PROMPTS else "implications"
    own, first, second, teacher = PROMPTS[prompt]
    found = ONE_PASSAGE | {NO_RL: own, FIRST: first, SECOND: second, TEACHER: teacher}
    setting = f"one passage at a time, Qwen2.5-7B, prompt “{prompt}”"
    if config.get("reward", {}).get("kind") == "rubric" and prompt == "implications":
        found = {key: value for key, value in found.items() if key != FIRST} | {SECOND: PROXY}
        setting += ", SEAL by the proxy reward"
    return setting, found
