"""Where every random number of a run comes from: tuples of integers that name what is drawn.

The first integer says for what, so that no two purposes share a stream. Training rounds count from 1; the evaluation
is round 0, the same for every row of the table. Self-edits of one item share their adapter's start and their data order
for the same retrain (common random numbers): they differ in what they teach and in nothing else.
"""

from seal_jax.domains.domain import item_number

SAMPLE, ADAPTER, ORDER, LESSON, TEACH = range(1, 6)
SEQUENCES, REPLAY, NEUTRAL = 201, 202, 203
VIEWS, CONTROL = 101, 102

Seed = tuple[int, ...]


def sample(seed: int, number: int, item, sample: int, attempt: int = 0) -> Seed:
    """The tokens of one self-edit."""
    return SAMPLE, seed, number, item_number(item), sample, attempt


def adapter(seed: int, number: int, item, retrain: int) -> Seed:
    """The adapter that an inner loop starts from."""
    return ADAPTER, seed, number, item_number(item), retrain


def order(seed: int, number: int, retrain: int) -> Seed:
    """The order of an inner loop's data, the same for all items: loops with one order can be trained together."""
    return ORDER, seed, number, retrain


def lesson(seed: int, number: int, item, retrain: int) -> Seed:
    """What is drawn while a self-edit becomes training data, such as augmentations."""
    return LESSON, seed, number, item_number(item), retrain


def views(seed: int, item) -> Seed:
    """The views in which a puzzle's questions are asked, the same for every row of the table."""
    return VIEWS, seed, item_number(item)


def control(seed: int, item, sample: int) -> Seed:
    """A self-edit that a rule draws at random."""
    return CONTROL, seed, item_number(item), sample


def teach(seed: int, number: int) -> Seed:
    """The M-step of a round: its adapter and its data order."""
    return TEACH, seed, number


def sequences(seed: int) -> Seed:
    """Which items stand in which sequence of continual self-edits, and where."""
    return SEQUENCES, seed


def replay(seed: int, number: int, sequence: int) -> Seed:
    """The earlier self-edits that come again in update `number` of a sequence."""
    return REPLAY, seed, number, sequence


def neutral(seed: int, number: int, sequence: int) -> Seed:
    """The neutral texts in update `number` of a sequence."""
    return NEUTRAL, seed, number, sequence
