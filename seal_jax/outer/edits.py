"""E-step, first half: the policy reads items and writes self-edits; invalid ones are sampled again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax.config import Sampling
from seal_jax.outer.actor import Actor
from seal_jax.tasks.grammar import Grammar
from seal_jax.tasks.task import Task, item_number


@dataclass(frozen=True)
class EditPlan:
    """What to sample: K self-edits of each item.

    attempts: how often at most one is sampled, until it is valid; grammar: what decoding keeps to, None: anything.
    """

    stage: str
    samples: int
    sampling: Sampling
    seed: tuple[int, int]  # run seed, round
    attempts: int = 1
    grammar: Grammar | None = None


def edit_key(plan: EditPlan, item: Any, sample: int) -> tuple:
    """What names a self-edit in the records."""
    return plan.stage, item.id, sample


def sample_edits(policy: Actor, items: Sequence, task: Task, plan: EditPlan, done) -> Iterator[list[dict]]:
    """Records of self-edits, chunk by chunk; a chunk of which `done(keys)` says that all are recorded is left out."""
    prompts = {item.id: policy.tokenizer.encode_prompt(task.edit_prompt(item, policy.chat)) for item in items}
    ordered = sorted(items, key=lambda item: len(prompts[item.id]))
    per_chunk = max(1, policy.engine.settings.decode_rows // plan.samples)
    for begin in range(0, len(ordered), per_chunk):
        chunk = ordered[begin : begin + per_chunk]
        if done([edit_key(plan, item, k) for item in chunk for k in range(plan.samples)]):
            continue
        seeds = [[(*plan.seed, item_number(item), k) for k in range(plan.samples)] for item in chunk]
        out = _write(policy, plan, [prompts[item.id] for item in chunk], seeds)
        records = [
            _record(task, plan, item, k, *written)
            for item, lane in zip(chunk, out, strict=True)
            for k, written in enumerate(lane)
        ]
        for attempt in range(1, plan.attempts):
            again = [place for place, record in enumerate(records) if record["problem"]]
            if not again:
                break
            asked = [(chunk[place // plan.samples], place % plan.samples) for place in again]
            seeds = [[(*plan.seed, item_number(item), k, attempt)] for item, k in asked]
            out = _write(policy, plan, [prompts[item.id] for item, _ in asked], seeds)
            for place, (item, k), [written] in zip(again, asked, out, strict=True):
                records[place] = _record(task, plan, item, k, *written) | {"attempts": attempt + 1}
        yield records


def _write(policy: Actor, plan: EditPlan, prompts: Sequence[list[int]], seeds) -> list[list[tuple[str, int]]]:
    """(text, number of its tokens) of each sample of each prompt."""
    sampling = plan.sampling
    stop_strings = sampling.stop_strings
    rules = policy.rules(sampling.temperature, sampling.top_p, sampling.top_k)
    out = policy.engine.generate(
        policy.base, None, None, [list(prompts)], [seeds], rules, sampling.max_new_tokens,
        policy.stopper(stop_strings), plan.grammar,
    )[0]  # fmt: skip
    return [[(_cut(policy.tokenizer.decode(tokens), stop_strings), len(tokens)) for tokens in lane] for lane in out]


def _record(task: Task, plan: EditPlan, item: Any, sample: int, text: str, tokens: int) -> dict:
    return {
        "stage": plan.stage,
        "passage": item.id,
        "sample": sample,
        "title": item.title,
        "tokens": tokens,
        "finished": tokens < plan.sampling.max_new_tokens,
        "text": text,
        "problem": task.problem(text),
        "attempts": 1,
    }


def _cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first stop string."""
    for stop in stop_strings:
        text = text.split(stop, 1)[0]
    return text
