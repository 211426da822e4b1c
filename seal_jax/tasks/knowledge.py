"""Knowledge incorporation: a self-edit of a passage becomes training examples; questions become prompts.

The rules for training sequences are those of the paper's single-passage setting ("Self-Adapting Language Models",
arXiv 2506.10943). Whatever a model writes is valid input: text that holds nothing useful gives the passage alone,
never an error.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seal_jax.errors import UserError
from seal_jax.tasks import prompts
from seal_jax.tasks.corpus import Passage, Question
from seal_jax.tasks.task import Example, Graded, Item, Lesson, Prompt

QUESTION = r"\bQuestion\s+\d+:"
ANSWER = "Answer:"
LIST_MARKER = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+", re.MULTILINE)
IMPLICATIONS_LINE = re.compile(r"^[ \t*_#]*Implications[*_]*:[*_]*", re.MULTILINE | re.IGNORECASE)

PLAIN_QUESTION = "Give a direct, concise answer to the question below.\n\nTopic: {topic}\n{question}\n\nAnswer:"
CHAT_QUESTION = "Give a direct, concise answer.\n\nTopic: {topic}\n{question}"
LINE_REQUEST = "Tell me something about this topic: {topic}"
PASSAGE_REQUEST = "Tell me everything you know about this topic: {topic}"


@dataclass(frozen=True)
class Rules:
    """How a completion becomes training examples."""

    form: str = "plain"  # 'plain': bare text, loss on all of it; 'chat': a request, loss on the assistant's turn
    split_newlines: bool = True  # each line (or question) a sequence; off: each segment whole
    max_sequences: int = 30  # of the completion; the passage comes on top
    include_passage: bool = True  # the passage itself as the last sequence
    closing: bool = False  # EOS / end of turn inside the loss
    chain_of_thought: bool = False  # only what follows the 'Implications:' line counts

    def __post_init__(self) -> None:
        if self.form not in ("plain", "chat"):
            raise UserError(f"form is {self.form!r}; it must be 'plain' or 'chat'.")
        if self.max_sequences < 0:
            raise UserError(f"max_sequences is {self.max_sequences}; it must be 0 or more.")


@dataclass(frozen=True)
class Knowledge:
    """Knowledge incorporation as the outer loop sees it (tasks/task.py); its items are passages.

    prompt: a family of tasks/prompts.py or a template; judge: from a list of Item to verdicts, with a `name`.
    """

    prompt: str
    rules: Rules
    learning_rate: float
    epochs: int
    judge: Callable
    answer_stops: tuple[str, ...] = ()

    @property
    def grader(self) -> str:
        return self.judge.name

    def edit_prompt(self, passage: Passage, chat: bool) -> Prompt:
        return prompts.edit_prompt(passage, self.prompt, chat)

    def problem(self, edit: str) -> str | None:
        return None  # any text teaches something, if only the passage

    def lesson(self, passage: Passage, edit: str, seed: tuple[int, ...], length: Callable[[Example], int]) -> Lesson:
        return Lesson(tuple(training_examples(passage, edit, self.rules)), self.learning_rate, self.epochs)

    def gold(self, passage: Passage, chat: bool) -> list[Example]:
        return [answer_example(passage, question, chat) for question in passage.questions]

    def heldout(self, passage: Passage) -> list[bool]:
        return [question.heldout for question in passage.questions]

    def questions(self, passage: Passage, chat: bool) -> list[Prompt]:
        return [question_prompt(passage, question, chat) for question in passage.questions]

    def grade(self, answered: Sequence[tuple[Passage, Sequence[str]]]) -> list[Graded]:
        """One call of the judge for all answers, so that one that works in batches can."""
        items = [
            Item(question.question, question.answer, answer)
            for passage, answers in answered
            for question, answer in zip(passage.questions, answers, strict=True)
        ]
        verdicts = iter(self.judge(items) if items else [])
        return [Graded(list(answers), [next(verdicts) for _ in answers]) for _, answers in answered]


def training_texts(passage: Passage, completion: str, rules: Rules) -> list[str]:
    """Training sequences as plain text: title, newline, text for each part; the passage last."""
    texts = split_completion(completion, rules)
    if rules.include_passage:
        texts.append(passage.context)
    return [f"{passage.title}\n{text}" for text in texts]


def training_examples(passage: Passage, completion: str, rules: Rules) -> list[Example]:
    """The same sequences as examples, in the form that the rules name."""
    if rules.form == "plain":
        return [Example(None, text, rules.closing) for text in training_texts(passage, completion, rules)]
    found = [_chat_example(passage, text, rules.closing) for text in split_completion(completion, rules)]
    examples = [example for example in found if example is not None]
    if rules.include_passage:
        request = Prompt(PASSAGE_REQUEST.format(topic=passage.title), chat=True)
        examples.append(Example(request, passage.context, rules.closing))
    return examples


def split_completion(completion: str, rules: Rules) -> list[str]:
    """The parts of a completion that become training sequences, without the title: stripped, none empty."""
    if rules.chain_of_thought:
        completion = _after_implications(completion)
    parts = _stripped(completion.split("---"))
    if rules.split_newlines:
        has_questions = re.search(QUESTION, completion) and ANSWER in completion
        parts = _questions(parts) if has_questions else _lines(parts)
    return parts[: rules.max_sequences]


def question_prompt(passage: Passage, question: Question, chat: bool) -> Prompt:
    """How a question is asked without the passage: the topic by its title, then the question."""
    template = CHAT_QUESTION if chat else PLAIN_QUESTION
    return Prompt(template.format(topic=passage.title, question=question.question), chat)


def answer_example(passage: Passage, question: Question, chat: bool) -> Example:
    """The question with its gold answer, for the log-likelihood of the answer's tokens alone (no closing token)."""
    answer = question.answer if chat else f" {question.answer}"  # the space that the cue 'Answer:' leaves out
    return Example(question_prompt(passage, question, chat), answer, closing=False)


def _after_implications(completion: str) -> str:
    """What follows the first 'Implications:' that begins a line; nothing if the model never got that far."""
    found = IMPLICATIONS_LINE.search(completion)
    return completion[found.end() :] if found else ""


def _questions(parts: list[str]) -> list[str]:
    """Parts split before each 'Question N:'; a first piece without it continued the cue and gets 'Question 1:'."""
    pieces = _stripped([piece for part in parts for piece in re.split(f"(?={QUESTION})", part)])
    if pieces and not re.match(QUESTION, pieces[0]):
        pieces[0] = f"Question 1: {pieces[0]}"
    return pieces


def _lines(parts: list[str]) -> list[str]:
    """The non-empty lines; the first one is a heading, and dropped, when the list begins after it."""
    lines = _stripped([line for part in parts for line in part.split("\n")])
    return lines[1:] if len(lines) > 1 and lines[1].startswith("1.") else lines


def _stripped(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _chat_example(passage: Passage, text: str, closing: bool) -> Example | None:
    """One part as a turn of each side; None where nothing is left to say (no words, a question without an answer)."""
    if len(re.findall(QUESTION, text)) == 1 and re.match(QUESTION, text):
        asked, _, answer = re.sub(QUESTION, "", text, count=1).partition(ANSWER)
        asked, answer = asked.strip("* \t\r\n"), answer.strip("* \t\r\n")  # '*': Markdown's bold around the markers
        if not (_has_words(asked) and _has_words(answer)):
            return None
        return Example(question_prompt(passage, Question(asked, answer, heldout=False), chat=True), answer, closing)
    text = LIST_MARKER.sub("", text).strip()
    if not _has_words(text):
        return None
    return Example(Prompt(LINE_REQUEST.format(topic=passage.title), chat=True), text, closing)


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)
