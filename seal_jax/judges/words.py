"""Text to comparable words: stems for words and one canonical form for numbers, however either was written."""

import re
import unicodedata
from functools import cache

import snowballstemmer

ONES = str.split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ONE_TH = str.split(
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth"
)
TENS = str.split("twenty thirty forty fifty sixty seventy eighty ninety")
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "bn": 10**9}
SCALES |= {"dozen": 12, "trillion": 10**12}
CARDINALS = {word: value for value, word in enumerate(ONES)} | {word: 20 + 10 * i for i, word in enumerate(TENS)}
ORDINALS = {word: value for value, word in enumerate(ONE_TH)}
ORDINALS |= {word[:-1] + "ieth": 20 + 10 * i for i, word in enumerate(TENS)}
ORDINALS |= {"thirds": 3, "fourths": 4, "fifths": 5, "sixths": 6, "eighths": 8, "tenths": 10}
MONTHS = str.split("january february march april june july august september october november december")  # may is short
SAME = {month[:3]: month for month in MONTHS} | {"sept": "september", "bce": "bc", "percentage": "percent"}
SAME |= {word[:-1] + "ies": f"19{20 + 10 * i}s" for i, word in enumerate(TENS)}  # the seventies
ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12, "XIII": 13}
ROMAN |= {"XIV": 14, "XV": 15, "XVI": 16, "XVII": 17, "XVIII": 18, "XIX": 19, "XX": 20, "XXI": 21}

NUMBER_WORDS = CARDINALS.keys() | ORDINALS.keys() | SCALES.keys()

CJK = "\u3040-\u30ff\u3400-\u9fff"  # written without spaces: every character is a word
TOKEN = re.compile(rf"\d{{3}}0s|\d+(?:\.\d+)?|[{CJK}]|[^\W\d_{CJK}]+")
REWRITES = [
    (re.compile(pattern), by)
    for pattern, by in (
        (r"[‐-―−]", "-"),
        (r"[’‘`´]", "'"),
        (r"\b(?:[A-Za-z]\.){2,}", lambda m: m[0].replace(".", "") + " "),  # U.S., B.C., a.m.
        (r"\bUSA?\b|\b[Uu]nited [Ss]tates(?: of [Aa]merica)?\b", " unitedstates "),
        (r"\bUK\b|\b[Uu]nited [Kk]ingdom\b", " unitedkingdom "),
        (r"\b[IVX]{2,}\b", lambda m: str(ROMAN.get(m[0], m[0]))),  # World War II
        (r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d) (?=000\b)", ""),  # 1,300 and 10 000
        (r"(?<=\d),(?=\d\d? (?:million|billion|trillion)\b)", "."),  # 1,5 billion
        (r"\b(\d\d)(\d\d)-(\d\d)\b(?!-)", r"\1\2 \1\3"),  # 1870-71
        (r"\b(\d{4})-(\d\d)-(\d\d)\b", lambda m: f"{m[1]} {_month(m[2])} {m[3]}"),  # 2007-01-03
        (r"(?<!\d)(?:'|19)?([2-9]0)'?s\b", r"19\1s"),  # the '70s
        (r"(?<=\d{3}0)'s\b", "s"),  # the 1970's
        (r"(?<=\d)(?:st|nd|rd|th)\b", ""),
        (r"%|\bper cent\b", " percent "),
        (r"(?i)n't\b", " not"),
        (r"'s\b", ""),
        (r"\bcannot\b", "can not"),
        (r"(?i)(?<=[a-z]{3})our", "or"),  # neighbourhood, colour
        (r"(?i)(?<=[a-z])tre(s?)\b", r"ter\1"),  # metre, centre
        (r"(?i)(?<=[a-z])is(?=(?:e|es|ed|ing|ations?)\b)", "iz"),  # organise
        (r"(?i)ae|oe", "e"),  # archaeology, foetus
    )
]


def words(text: str) -> list[str]:
    """The text's words, lower-cased, without accents, stemmed; a number is one word and starts with a digit."""
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = unicodedata.normalize("NFC", text)
    for pattern, by in REWRITES:
        text = pattern.sub(by, text)
    tokens = [SAME.get(token, token) for token in TOKEN.findall(text.lower())]
    return [word if is_number(word) else stem(word) for word in fold_numbers(tokens)]


def is_number(word: str) -> bool:
    return word[0].isdecimal()


@cache
def _stemmer():
    return snowballstemmer.stemmer("english")


@cache
def stem(word: str) -> str:
    return _stemmer().stemWord(word)


def _month(digits: str) -> str:
    names = [*MONTHS[:4], "may", *MONTHS[4:]]
    return names[int(digits) - 1] if 1 <= int(digits) <= 12 else digits


def fold_numbers(tokens: list[str]) -> list[str]:
    """Replace every run of number words by its value: 'two hundred and five' -> '205', '3.5 million' -> '3500000'."""
    folded: list[str] = []
    run: list[str] = []
    for token, following in zip(tokens, [*tokens[1:], ""], strict=False):
        if run and _continues(run[-1], token):
            run.append(token)
        elif run and token == "and" and run[-1] in SCALES and following in NUMBER_WORDS:
            continue
        else:
            folded += _value(run)
            starts = token in NUMBER_WORDS or (token[0] + token[-1]).isdecimal()
            run = [token] if starts else []
            folded += [] if run else [token]
    return folded + _value(run)


def _continues(last: str, token: str) -> bool:
    if token in SCALES:
        return last not in ORDINALS
    value = CARDINALS.get(token, ORDINALS.get(token))
    if value is None or last in ORDINALS:
        return False
    return last in SCALES or (last in TENS and 0 < value < 10) or (CARDINALS.get(last, 0) >= 10 and value >= 10)


def _value(run: list[str]) -> list[str]:
    """The number that a run of number words spells, as a list of one word (of none for an empty run)."""
    if not run:
        return []
    finished, current = 0.0, 0.0
    for token in run:
        if token in SCALES:
            current = (current or 1.0) * SCALES[token]
            if SCALES[token] >= 1000:
                finished, current = finished + current, 0.0
            continue
        value = CARDINALS.get(token, ORDINALS.get(token))
        value = float(token) if value is None else value
        current = current * 100 + value if 10 <= current < 100 and value >= 10 else current + value  # nineteen ninety
    return [f"{finished + current:.12g}"]
