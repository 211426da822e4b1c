"""Learning without labels: students are asked what the policy itself asks about a passage, and not the gold questions.

The gold questions, where there are any, are held out: they are asked as well, and never count for the reward.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seal_jax.authors.author import SelfEdit
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.judges.words import words
from seal_jax.rewards.adapted import Adapted
from seal_jax.rewards.reward import Scores
from seal_jax.runs.keys import Stage
from seal_jax.student.actor import Actor

PROMPT = "self-qa-few-shot"  # of domains/knowledge/prompts.py, by which the policy is asked for questions
LONGEST = 10  # words of an answer
PAIR = re.compile(r"(?:^|\n)\s*(?:Question\s*\d*:)?\s*([^\n]+\?)\s*\n\s*Answer:\s*([^\n]+)")


@dataclass(frozen=True)
class OwnQuestions:
    """reward: what scores by questions; write(items) -> {item id: the text with questions that the policy wrote}.

    A passage about which it asked nothing that can be used has no rewards.
    """

    reward: Adapted
    write: Callable[[Sequence[Any]], Mapping[str, str]]

    def score(
        self, student: Actor, items: Sequence[Any], edits: Mapping[str, Sequence[SelfEdit]], stage: Stage
    ) -> dict[str, Scores]:
        written = self.write(items)
        own = {item.id: questions(written[item.id], item) for item in items}
        asked = [with_questions(item, own[item.id]) for item in items if own[item.id]]
        found = self.reward.score(student, asked, edits, stage) if asked else {}
        return {item.id: found.get(item.id) or Scores([None] * len(edits[item.id])) for item in items}


def questions(text: str, passage: Passage) -> list[Question]:
    """The different questions in a text whose short answers stand in the passage, word for word (stemmed)."""
    there, found = words(passage.context), {}
    for asked, answer in PAIR.findall(text):
        asked, answer = re.sub(r"^Question\s*\d*:\s*", "", asked.strip()), answer.strip().rstrip(".")
        wanted = words(answer)
        if 0 < len(wanted) <= LONGEST and _stands_in(wanted, there):
            found.setdefault(asked.casefold(), Question(asked, answer, heldout=False))
    return list(found.values())


def with_questions(passage: Passage, own: Sequence[Question]) -> Passage:
    """The passage with its own questions in the reward, and its gold ones held out."""
    return replace(passage, questions=(*own, *(replace(question, heldout=True) for question in passage.questions)))


def _stands_in(wanted: Sequence[str], there: Sequence[str]) -> bool:
    return any(list(there[i : i + len(wanted)]) == list(wanted) for i in range(len(there) - len(wanted) + 1))
