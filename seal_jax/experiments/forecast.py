"""How much arithmetic a stage of a run takes, from the lengths of its first items, before any of it has run.

A model of N weights takes 2 N FLOPs to read or write a token, and twice as many to train on it: the weights are frozen,
so that only activations have gradients. Lengths that nobody knows yet are the longest allowed (of what a policy writes
and a student answers) or those of a rule's self-edit (of what will be trained on).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seal_jax import seeds
from seal_jax.config.roles import reward_asks
from seal_jax.domains.domain import Domain, Prompt
from seal_jax.experiments.rounds import Setup
from seal_jax.runs.keys import EVALUATION, REWARD, TEACH, TRAIN, UNTRAINED, WRITE, Stage
from seal_jax.student.actor import Actor

ITEMS = 4  # of a split, whose lengths stand for all
# The share of a matrix product's rate that a run gets. With it the quickstart's 895 s without compiling, on two idle
# CPU cores of 138 GFLOP/s, are expected to be 928: inner loops and writing within a fifth, questions and finetuning too
# long.
SHARE = 0.4
SIDE, REPEATS = 1024, 5  # of the product whose rate is measured: tens of milliseconds


def product_rate() -> float | None:
    """FLOP/s of a float32 matrix product on this CPU, the best of some; None on an accelerator.

    There a small product says nothing of a large model's speed.
    """
    if jax.default_backend() != "cpu":
        return None
    square = jnp.ones((SIDE, SIDE), jnp.float32)
    product = jax.jit(jnp.dot)
    product(square, square).block_until_ready()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        product(square, square).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * SIDE**3 / min(seconds)


def costs(setup: Setup) -> Callable[[Stage], float]:
    """stage -> FLOPs of one of its units (a self-edit, an inner loop with its questions, a finetuning)."""
    config, sampling = setup.config, setup.config.sampling
    student, policy = setup.student_of(setup.policy), setup.policy
    controls = {control.name: control for control in setup.domain.controls()}
    of_student, of_policy = _weights(student), _weights(policy)
    items = {TRAIN: setup.train[:ITEMS], EVALUATION: setup.evaluation[:ITEMS]}

    def cost(stage: Stage) -> float:
        some, control = items[stage.split], controls.get(stage.arm)
        if stage.purpose in (WRITE, TEACH):
            prompt = _mean(_read(policy, setup.domain.edit_prompt(item, policy.chat)) for item in some)
            if stage.purpose == WRITE:
                shared = config.outer.samples if stage.split == TRAIN else config.evaluation.samples
                return 2 * of_policy * (prompt / shared + sampling.max_new_tokens)
            each = 1 if config.outer.improver == "rest_em" else config.outer.samples
            learned = len(setup.train) * each * config.outer.sft.epochs
            return 4 * of_policy * learned * (prompt + sampling.max_new_tokens)
        domain = (control and control.domain) or setup.domain
        asked = 2 * of_student * _asked(student, domain, some, _answers(setup, stage))
        if stage.purpose == UNTRAINED or (control and control.text is None):
            return asked
        rules = [control] if control else [one for one in controls.values() if one.text]
        lessons = [_lesson(student, one.domain or setup.domain, some, one.text) for one in rules]
        return asked + 4 * of_student * max(lessons, default=0.0)

    return cost


def _weights(actor: Actor) -> int:
    return sum(np.size(leaf) for leaf in jax.tree.leaves(actor.base))


def _read(actor: Actor, prompt: Prompt) -> int:
    return len(actor.tokenizer.encode_prompt(prompt))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / max(len(found), 1)


def _answers(setup: Setup, stage: Stage) -> tuple[int, bool]:
    """(tokens of the longest answer, whether likelihoods of gold answers are measured) in a stage."""
    reward, evaluation = setup.config.reward, setup.config.evaluation
    if stage.purpose in (REWARD, UNTRAINED):
        return reward.answer_tokens if reward_asks(setup.config) else 0, reward.likelihood_weight > 0
    return evaluation.answer_tokens, evaluation.likelihood


def _asked(student: Actor, domain: Domain, items: Sequence[Any], how: tuple[int, bool]) -> float:
    """Tokens read and written in all questions of an item."""
    answer, likely = how

    def tokens(item) -> int:
        quiz = domain.quiz(item, student.chat)
        asked = sum(_read(student, prompt) + answer for prompt in quiz.prompts) if answer else 0
        return asked + (sum(map(student.length, quiz.gold)) if likely else 0)

    return _mean(map(tokens, items))


def _lesson(student: Actor, domain: Domain, items: Sequence[Any], text: Callable[[Any, int], str]) -> float:
    """Tokens trained on in an inner loop on a rule's self-edit, over all of its epochs."""

    def tokens(item) -> int:
        lesson = domain.lesson(item, text(item, 0), seeds.lesson(0, 0, item, 0), student.length)
        return lesson.epochs * sum(map(student.length, lesson.examples))

    return _mean(map(tokens, items))
