"""The offline judge: does the answer contain the words and the numbers of the gold answer?

Answers are sentences, so exact match and F1 fail against a careful grader; the recall of stemmed gold words does much
better. Here every number must be there, one of three or more words may be missing, and words that the question already
contains prove nothing. What no judge of this kind can see: the right words in the wrong role or denied, a paraphrase
that shares no word, and a list of guesses that happens to contain the right one. Against 2,500 verdicts of GPT-4.1 on
answers of models: Cohen's kappa .72 (95% interval .67 to .76 over questions); .69 (.59 to .77) on the 779 of them
whose rows were not read while the rules were made (plain recall reaches .70 and .68).
"""

import re
from collections.abc import Sequence
from functools import cache

from seal_jax.domains.domain import Answered
from seal_jax.judges.words import is_number, words

# Words that say nothing by themselves. Negation (not, no) and order (before, under) are no such words.
LIGHT = (
    "a an the of in on at to for from by with and or as is are was were be been being it its this that these those "
    "he she his her him they them their there i we our you your has have had do does did which who whom whose what "
    "when where how why about around approximately roughly nearly almost circa ca some into than then so such also "
    "only just mainly mostly percent ad sir mr mrs ms dr st"
)
ORDER = ("befor", "after", "sinc", "until")  # stems of words that change what a number beside them says
NAME = "lexical"


def grade(items: Sequence[Answered]) -> list[bool | None]:
    """One verdict per item; None only where the gold answer is empty."""
    return [_verdict(item) for item in items]


grade.name = NAME


def _verdict(item: Answered) -> bool | None:
    if item.is_empty:
        return False
    if not item.gold.strip():
        return None
    if not words(item.gold):  # only signs, such as an operator
        return item.gold.strip() in item.answer
    said = said_words(item)
    numbers, others = telling_words(item)
    found = sum(word in said for word in others)
    return said.issuperset(numbers) and found >= (len(others) if len(others) < 3 else len(others) - 1)


def said_words(item: Answered) -> set[str]:
    """The answer's words, and gold numbers that it gives in another way (rounded percentages, years of a century)."""
    return set(words(item.answer)) | _rounded(item) | _centuries(item)


def telling_words(item: Answered) -> tuple[list[str], list[str]]:
    """The gold answer's numbers, all of which an answer needs, and its other words that show knowledge.

    Light words and words of the question are dropped, unless nothing were left. Beside a number only its unit (the next
    word), capitalised words and words of order count: 'over 40 sheep in all' is 40 sheep.
    """
    gold = words(item.gold)
    heavy = [word for word in dict.fromkeys(gold) if word not in light_words()]
    if not heavy:
        return [], [word for word in gold if word not in ("a", "an", "the")] or gold
    asked = set(words(item.question))
    telling = [word for word in heavy if word not in asked] or heavy
    numbers = [word for word in telling if is_number(word)]
    others = [word for word in telling if not is_number(word)]
    if numbers:
        units = [after for before, after in zip(gold, gold[1:], strict=False) if is_number(before)]
        names = words(" ".join(re.findall(r"\b[A-Z]\w+", item.gold)))
        others = [word for word in others if word in (*units, *names, *ORDER)]
    return numbers, others


def _rounded(item: Answered) -> set[str]:
    """For a percentage: the gold number, if the answer has it rounded to a whole one or with more decimals."""
    gold = words(item.gold)
    if "percent" not in gold:
        return set()
    said = {word for word in words(item.answer) if is_number(word)}
    return {word for word in filter(is_number, gold) if any(_same_rounded(word, other) for other in said)}


def _same_rounded(one: str, other: str) -> bool:
    if "s" in one + other or ("." in one) == ("." in other):  # a decade; both or neither have decimals
        return False
    return f"{float(one):.0f}" == f"{float(other):.0f}"


def _centuries(item: Answered) -> set[str]:
    """For a gold century: the centuries of the years in the answer, so that 1566 is in the 16th century."""
    if "centuri" not in words(item.gold):
        return set()
    years = [int(word) for word in words(item.answer) if re.fullmatch(r"1\d{3}|20\d\d", word)]
    return {"centuri", *(str((year - 1) // 100 + 1) for year in years)} if years else set()


@cache
def light_words() -> frozenset[str]:
    return frozenset(words(LIGHT))
