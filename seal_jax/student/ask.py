"""Questions to a student: greedy answers and the log-likelihood of the right ones, for many adapters at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from seal_jax.domains.domain import Quiz
from seal_jax.engine.generation import Generation
from seal_jax.engine.weights import Weights
from seal_jax.student.actor import Actor
from seal_jax.student.train import Adapters


@dataclass(frozen=True)
class Answers:
    """What one student said to one quiz.

    texts: to each prompt, None where it was not asked; cut: which of them the limit on their length cut off;
    log_likelihood: of each gold answer, in nats per token; None where it is not a number.
    """

    texts: list[str] | None
    cut: list[bool] | None
    log_likelihood: list[float | None]


def ask(
    student: Actor, adapters: Adapters | None, quizzes: Sequence[Quiz], answer_tokens: int, stops: Sequence[str] = ()
) -> list[Answers]:
    """Ask every adapter its own quiz, or the bare student all quizzes where `adapters` is None.

    answer_tokens: the longest answer; 0 measures likelihoods alone. stops: texts that end an answer. Not more than
    `engine.answer_rows` questions are in work at once, unless there are more adapters than that.
    """
    weights = Weights(student.base)
    lanes = [[(i, place) for i, quiz in enumerate(quizzes) for place in range(len(quiz.gold))]]
    prompts = [[(i, place) for i, quiz in enumerate(quizzes) for place in range(len(quiz.prompts))]]
    if adapters is not None:
        weights = Weights(student.base, adapters.tree, adapters.lora)
        lanes = [[(i, place) for place in range(len(quizzes[i].gold))] for i in adapters.order]
        prompts = [[(i, place) for place in range(len(quizzes[i].prompts))] for i in adapters.order]
    likelihoods = [[None] * len(quiz.gold) for quiz in quizzes]
    texts = [[""] * len(quiz.prompts) for quiz in quizzes]
    cut = [[False] * len(quiz.prompts) for quiz in quizzes]
    for part in parts(lanes, student.engine.settings.question_rows):
        rows = [[student.row(quizzes[i].gold[place]) for i, place in lane] for lane in part]
        totals = student.engine.log_likelihood(weights, rows)
        for lane, lane_rows, values in zip(part, rows, totals, strict=True):
            for (i, place), row, total in zip(lane, lane_rows, values, strict=True):
                each = total / max(sum(row.weights), 1.0)
                likelihoods[i][place] = each if math.isfinite(each) else None
    if not answer_tokens:
        return [Answers(None, None, values) for values in likelihoods]
    greedy = Generation(student.rules(0.0, 1.0, 0), answer_tokens, student.stopper(stops))
    for part in parts(prompts, student.engine.settings.question_rows):
        asked = [[student.tokenizer.encode_prompt(quizzes[i].prompts[place]) for i, place in lane] for lane in part]
        seeds = [[[(0,)] for _ in lane] for lane in asked]
        out = student.engine.generate(weights, asked, seeds, greedy)
        for lane, samples in zip(part, out, strict=True):
            for (i, place), [sample] in zip(lane, samples, strict=True):
                texts[i][place] = student.tokenizer.decode(sample.tokens).strip()
                cut[i][place] = not sample.finished
    return [Answers(*found) for found in zip(texts, cut, likelihoods, strict=True)]


def parts(lanes: Sequence[Sequence], rows: int) -> Iterator[list[list]]:
    """Lanes of questions in parts of at most `rows` questions, equally many of each lane, at least one of each."""
    each = max(1, rows // len(lanes))
    for begin in range(0, max(map(len, lanes)), each):
        yield [list(lane[begin : begin + each]) for lane in lanes]
