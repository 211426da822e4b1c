"""The one request by which language models are asked for a verdict on an answer."""

from seal_jax.domains.domain import Answered


def grading_request(item: Answered) -> str:
    """The text that asks a model to reply yes or no; each part stays on one line, so none can pose as another."""
    question, gold, answer = (" ".join(part.split()) for part in (item.question, item.gold, item.answer))
    return (
        "You are grading a quiz. The correct answer is given; judge only whether the student's answer agrees with it.\n"
        "It may be worded differently or say more, but it must contain the correct answer and not contradict it.\n\n"
        f"Question: {question}\n"
        f"Correct answer: {gold}\n"
        f"Student's answer: {answer}\n\n"
        "Is the student's answer correct? Reply with one word, yes or no."
    )
