"""The rubric of SEAL's proxy reward: how a model is asked to rate a self-edit, and how its reply is read."""

import re
from collections.abc import Mapping

CRITERIA = ("length", "diversity", "quality", "correctness")
LEAST, MOST = 1.0, 5.0

_SCALE = re.compile(r"\(?\b1\s*(?:-|–|to|\.\.)\s*5\b\)?")
_NUMBER = r"-?\d+(?:\.\d+)?"


def rating_request(title: str, context: str, text: str) -> str:
    """The text that asks a model for its four ratings, one per line."""
    return (
        "You rate study notes that somebody wrote to learn a passage by heart. Give four whole numbers from 1 (poor) "
        "to 5 (excellent):\n"
        "length: they are long enough to hold all of the passage, and no longer than it takes;\n"
        "diversity: they say different things, or the same in different ways, without empty repetition;\n"
        "quality: they are clear, complete sentences that make sense without the passage at hand;\n"
        "correctness: all that they say is stated by the passage or follows from it.\n\n"
        f"Passage:\n{title}\n{context}\n\nNotes:\n{text}\n\n"
        "Reply with four lines and nothing else: 'length: N', 'diversity: N', 'quality: N', 'correctness: N'."
    )


def parse_ratings(reply: str) -> dict[str, float] | None:
    """{criterion: rating, clamped to 1..5}; None unless all four can be read.

    Reads 'Length: 4', '"length": 4', '**Length** (1-5): 4/5' and the like, the last of each, or four bare numbers.
    """
    text = _SCALE.sub(" ", reply.lower())
    found: dict[str, float] = {}
    for name in CRITERIA:
        values = re.findall(rf"\b{name}\b[^\d\n-]{{0,24}}({_NUMBER})", text)
        if values:
            found[name] = float(values[-1])
    if not found:
        bare = re.findall(_NUMBER, re.sub(r"/\s*5\b", "", text))
        found = dict(zip(CRITERIA, map(float, bare), strict=True)) if len(bare) == len(CRITERIA) else {}
    if len(found) < len(CRITERIA):
        return None
    return {name: min(max(value, LEAST), MOST) for name, value in found.items()}


def total(ratings: Mapping[str, float]) -> float:
    """The proxy reward, from 4 to 20 (arXiv 2506.10943, proxy reward)."""
    return sum(ratings[name] for name in CRITERIA)
