"""From a self-edit's text to training sequences, by the rules of the paper's single-passage setting (arXiv 2506.10943).

Whatever a model writes is valid input: text that holds nothing useful gives the passage alone, never an error.
"""

import re
from dataclasses import dataclass, replace

from seal_jax.domains.domain import Example, Prompt
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.errors import UserError

QUESTION = r"\bQuestion\s+\d+:"
ANSWER = "Answer:"
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]”’]))\s+(?=[\"'(\[“‘]*[A-Z0-9])")
ABBREVIATION = re.compile(r"(?:\b(?:Dr|Mr|Mrs|Ms|St|Jr|Sr|Prof|vs|etc|No|Lt|Col|Gen|Capt|Mt|approx|ca|cf)|\b[A-Z])\.$")
LIST_MARKER = re.compile(r"^[ \t]*(?:\d{1,3}[.)]|[-*•])[ \t]+", re.MULTILINE)
IMPLICATIONS_LINE = re.compile(r"^[ \t*_#]*Implications[*_]*:[*_]*", re.MULTILINE | re.IGNORECASE)

# Markdown around the markers 'Question 1:' and 'Answer:', and what takes its place.
MARKER = r"(?:Question\s+\d+|Answer)"
MARKDOWN = (
    (re.compile(rf"([*_]{{1,3}})({MARKER})[ \t]*(?::[ \t]*\1|\1[ \t]*:)"), r"\2:"),  # **Answer:** and **Answer**:
    (re.compile(rf"([*_]{{1,3}})({MARKER}:(?:(?!\1)[^\n])*)\1"), r"\2"),  # **Question 1: Who?**
    (re.compile(rf"^[ \t]*(?:#{{1,6}}|[-*•>])[ \t]+(?={MARKER}:)", re.MULTILINE), ""),  # a heading, an entry of a list
)

PLAIN_QUESTION = "Give a direct, concise answer to the question below.\n\nTopic: {topic}\n{question}\n\nAnswer:"
CHAT_QUESTION = "Give a direct, concise answer.\n\nTopic: {topic}\n{question}"
LINE_REQUEST = "Topic: {topic}"  # as in a question; a longer one teaches no more and costs tokens (docs/results.md)
PASSAGE_REQUEST = "Tell me everything you know about this topic: {topic}"


@dataclass(frozen=True)
class Rules:
    """How a self-edit becomes training examples."""

    form: str = "plain"  # 'plain': bare text, loss on all of it; 'chat': a request, loss on the assistant's turn
    split_newlines: bool = True  # each line (or question) is a sequence; off: each segment between '---' is one
    max_sequences: int = 30  # of the self-edit; the passage is one more
    include_passage: bool = True  # the passage itself is the last sequence
    closing: bool = False  # the end of text, or of the assistant's turn, is inside the loss
    chain_of_thought: bool = False  # only what follows the line 'Implications:' is trained on
    split_sentences: bool = False  # each sentence of a line is a sequence of its own
    least_words: int = 0  # sentences with fewer are left out, where each is a sequence of its own
    teacher: bool = False  # every sequence but the passage itself has a teacher that has read the passage

    def __post_init__(self) -> None:
        if self.form not in ("plain", "chat"):
            raise UserError(f"form is {self.form!r}; it must be 'plain' or 'chat'.")
        if self.max_sequences < 0:
            raise UserError(f"max_sequences is {self.max_sequences}; it must be 0 or more.")


def training_texts(passage: Passage, completion: str, rules: Rules) -> list[str]:
    """Training sequences as plain text: title, newline, text for each part; the passage last."""
    texts = split_completion(completion, rules)
    if rules.include_passage:
        texts.append(passage.context)
    return [f"{passage.title}\n{text}" for text in texts]


def training_examples(passage: Passage, completion: str, rules: Rules) -> list[Example]:
    """The same sequences as examples, in the form that the rules name, with their teacher's prompts if it has any.

    The passage has no teacher: its words are given, and there is nothing that another reader could add to them.
    """
    if rules.form == "plain":
        examples = [Example(None, text, rules.closing) for text in training_texts(passage, completion, rules)]
    else:
        found = [_chat_example(passage, text, rules.closing) for text in split_completion(completion, rules)]
        examples = [example for example in found if example is not None]
        if rules.include_passage:
            request = Prompt(PASSAGE_REQUEST.format(topic=passage.title), chat=True)
            examples.append(Example(request, passage.context, rules.closing))
    if not rules.teacher:
        return examples
    own = len(examples) - rules.include_passage
    taught = [replace(example, teacher=with_passage(passage, example.prompt)) for example in examples[:own]]
    return taught + examples[own:]


def with_passage(passage: Passage, prompt: Prompt | None) -> Prompt:
    """The same request below the title and the passage; without a request the plain passage, to be continued."""
    shown = f"{passage.title}\n{passage.context}\n\n"
    return Prompt(shown, chat=False) if prompt is None else replace(prompt, text=shown + prompt.text)


def split_completion(completion: str, rules: Rules) -> list[str]:
    """The parts of a self-edit that become training sequences, without the title: stripped, none empty.

    Questions with answers are split before each 'Question N:', and Markdown around these markers is removed.
    """
    if rules.chain_of_thought:
        completion = _after_implications(completion)
    if rules.split_newlines:
        plain = _without_markdown(completion)
        if re.search(QUESTION, plain) and ANSWER in plain:
            return _questions(_segments(plain))[: rules.max_sequences]
        lines = _lines(_segments(completion))
        if rules.split_sentences:
            found = (sentence for line in lines for sentence in sentences(LIST_MARKER.sub("", line)))
            lines = [sentence for sentence in found if len(sentence.split()) >= rules.least_words]
        return lines[: rules.max_sequences]
    return _segments(completion)[: rules.max_sequences]


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, by its punctuation; an abbreviation or an initial ends none."""
    found: list[str] = []
    for piece in SENTENCE_END.split(text):
        if found and ABBREVIATION.search(found[-1]):
            found[-1] += f" {piece}"
        else:
            found.append(piece)
    return _stripped([" ".join(sentence.split()) for sentence in found])


def question_prompt(passage: Passage, question: Question, chat: bool, shown: bool = False) -> Prompt:
    """How a question is asked: the title as the topic, then the question; `shown`: after the passage."""
    template = CHAT_QUESTION if chat else PLAIN_QUESTION
    asked = Prompt(template.format(topic=passage.title, question=question.question), chat)
    return with_passage(passage, asked) if shown else asked


def answer_example(passage: Passage, question: Question, chat: bool, shown: bool = False) -> Example:
    """The question with its gold answer, for the log-likelihood of the answer's tokens alone (no closing token)."""
    answer = question.answer if chat else f" {question.answer}"  # the plain prompt ends with 'Answer:', without a space
    return Example(question_prompt(passage, question, chat, shown), answer, closing=False)


def _after_implications(completion: str) -> str:
    """What follows the first 'Implications:' that begins a line; nothing if the model never got that far."""
    found = IMPLICATIONS_LINE.search(completion)
    return completion[found.end() :] if found else ""


def _without_markdown(completion: str) -> str:
    """The text with 'Question N:' and 'Answer:' for '**Question N:**', '### Question N:' and the like."""
    for pattern, plain in MARKDOWN:
        completion = pattern.sub(plain, completion)
    return completion


def _questions(parts: list[str]) -> list[str]:
    """Parts split before each 'Question N:'. A first piece without it continues the prompt's cue 'Question 1:'."""
    pieces = _stripped([piece for part in parts for piece in re.split(f"(?={QUESTION})", part)])
    if pieces and not re.match(QUESTION, pieces[0]):
        pieces[0] = f"Question 1: {pieces[0]}"
    return pieces


def _lines(parts: list[str]) -> list[str]:
    """The non-empty lines; the first one is a heading, and dropped, when the list begins after it."""
    lines = _stripped([line for part in parts for line in part.split("\n")])
    return lines[1:] if len(lines) > 1 and lines[1].startswith("1.") else lines


def _segments(completion: str) -> list[str]:
    return _stripped(completion.split("---"))


def _stripped(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _chat_example(passage: Passage, text: str, closing: bool) -> Example | None:
    """One part as a request and its reply; None where there are no words, or a question without an answer."""
    if len(re.findall(QUESTION, text)) == 1 and re.match(QUESTION, text):
        asked, _, answer = re.sub(QUESTION, "", text, count=1).partition(ANSWER)
        asked, answer = asked.strip("* \t\r\n"), answer.strip("* \t\r\n")
        if not (_has_words(asked) and _has_words(answer)):
            return None
        return Example(question_prompt(passage, Question(asked, answer, heldout=False), chat=True), answer, closing)
    text = LIST_MARKER.sub("", text).strip()
    if not _has_words(text):
        return None
    return Example(Prompt(LINE_REQUEST.format(topic=passage.title), chat=True), text, closing)


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)
