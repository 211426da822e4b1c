"""E-step, first half: the policy reads passages and writes self-edits."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seal_jax.config import Sampling
from seal_jax.outer.actor import Actor
from seal_jax.tasks.corpus import Passage
from seal_jax.tasks.prompts import edit_prompt


@dataclass(frozen=True)
class EditPlan:
    """What to sample: K self-edits of each passage, in answer to `prompt` (a family or a template)."""

    stage: str
    prompt: str
    samples: int
    sampling: Sampling
    seed: tuple[int, int]  # run seed, round


def edit_key(plan: EditPlan, passage: Passage, sample: int) -> tuple:
    """What names a self-edit in the records."""
    return plan.stage, passage.id, sample


def passage_number(passage: Passage) -> int:
    """A number of the passage alone, for seeds: it does not change with the passages around it."""
    return zlib.crc32(passage.id.encode())


def sample_edits(policy: Actor, passages: Sequence[Passage], plan: EditPlan, done) -> Iterator[list[dict]]:
    """Records of self-edits, chunk by chunk; a chunk of which `done(keys)` says that all are recorded is left out."""
    prompts = [policy.tokenizer.encode_prompt(edit_prompt(p, plan.prompt, policy.chat)) for p in passages]
    order = sorted(range(len(passages)), key=lambda i: (len(prompts[i]), i))
    per_chunk = max(1, policy.engine.settings.decode_rows // plan.samples)
    sampling = plan.sampling
    rules = policy.rules(sampling.temperature, sampling.top_p, sampling.top_k)

    def stopped(tokens):
        text = policy.tokenizer.decode(tokens)
        return any(stop in text for stop in sampling.stop_strings)

    for begin in range(0, len(order), per_chunk):
        chunk = order[begin : begin + per_chunk]
        if done([edit_key(plan, passages[i], k) for i in chunk for k in range(plan.samples)]):
            continue
        seeds = [[(*plan.seed, passage_number(passages[i]), k) for k in range(plan.samples)] for i in chunk]
        out = policy.engine.generate(
            policy.base, None, None, [[prompts[i] for i in chunk]], [seeds], rules, sampling.max_new_tokens,
            stopped if sampling.stop_strings else None,
        )[0]
        yield [
            {
                "stage": plan.stage,
                "passage": passages[i].id,
                "sample": k,
                "title": passages[i].title,
                "tokens": len(tokens),
                "finished": len(tokens) < sampling.max_new_tokens,
                "text": _cut(policy.tokenizer.decode(tokens), sampling.stop_strings),
            }
            for i, lane in zip(chunk, out, strict=True)
            for k, tokens in enumerate(lane)
        ]


def _cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first stop string."""
    for stop in stop_strings:
        text = text.split(stop, 1)[0]
    return text
