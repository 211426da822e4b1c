"""From a config to a judge; the local one runs on the engine, the others on the first host alone."""

import json
from collections.abc import Callable

from seal_jax.config import Config, Judge
from seal_jax.domains.domain import Prompt
from seal_jax.engine.packing import Row
from seal_jax.judges import calibrated, lexical, local, remote
from seal_jax.parallel import from_first, is_first
from seal_jax.student.actor import Actor, load_actor

OFFLINE = {judge.name: judge for judge in (lexical.grade, calibrated.grade)}


def make(judge: Judge, config: Config, policy: Actor) -> Callable:
    """The judge; a local one is `judge.model`, or the policy before the first round where that is empty."""
    if judge.kind in OFFLINE:
        return once(OFFLINE[judge.kind])
    if judge.kind == "remote":
        return once(remote.make(judge.url, judge.model, judge.key))
    actor = load_actor(judge.model, config) if judge.model else policy
    return local.make(yes_no(actor), judge.model or config.model.policy, actor.chat)


def once(judge: Callable) -> Callable:
    """The judge, asked by the first host only; all get its verdicts, and its probabilities if it has any."""

    grade = from_first_host(judge)
    grade.name = judge.name
    if hasattr(judge, "probabilities"):
        grade.probabilities = from_first_host(judge.probabilities)
    return grade


def from_first_host(question: Callable) -> Callable:
    """The function, called on the first host only; all get what it gives there, as JSON brings it."""
    return lambda items: json.loads(from_first(json.dumps(question(items) if is_first() else None).encode()))


def yes_no(actor: Actor) -> Callable[[list[Prompt]], list[tuple[float, float]]]:
    """A function from prompts to the log-likelihoods of 'Yes' and 'No' as replies."""

    def ask(prompts: list[Prompt]) -> list[tuple[float, float]]:
        words = ("Yes", "No") if actor.chat else (" Yes", " No")
        rows = [_reply(actor, prompt, word) for prompt in prompts for word in words]
        found = actor.log_likelihoods(rows)
        return list(zip(found[::2], found[1::2], strict=True))

    return ask


def _reply(actor: Actor, prompt: Prompt, word: str) -> Row:
    head, tail = actor.tokenizer.encode_prompt(prompt), actor.tokenizer.encode(word)
    return Row(tuple(head + tail), (0.0,) * len(head) + (1.0,) * len(tail))
