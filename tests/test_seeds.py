"""Where random numbers come from: no two purposes share a key, and only what must be equal is."""

import itertools
from dataclasses import dataclass

from seal_jax import seeds
from seal_jax.domains.domain import item_number


@dataclass(frozen=True)
class Item:
    id: str


ITEMS = [Item(f"item {i}") for i in range(3)]
SMALL = range(3)


def drawn() -> dict[str, list[tuple]]:
    """Every key of a small run, by purpose."""
    plain = list(itertools.product(SMALL, SMALL))
    each = list(itertools.product(SMALL, SMALL, ITEMS, SMALL))
    return {
        "sample": [seeds.sample(*names, attempt) for names in each for attempt in SMALL],
        "adapter": [seeds.adapter(*names) for names in each],
        "order": [seeds.order(*names, retrain) for names in plain for retrain in SMALL],
        "lesson": [seeds.lesson(*names) for names in each],
        "teach": [seeds.teach(*names) for names in plain],
        "views": [seeds.views(seed, item) for seed in SMALL for item in ITEMS],
        "control": [seeds.control(seed, item, k) for seed in SMALL for item in ITEMS for k in SMALL],
        "sequences": [seeds.sequences(seed) for seed in SMALL],
        "replay": [seeds.replay(*names, sequence) for names in plain for sequence in SMALL],
        "neutral": [seeds.neutral(*names, sequence) for names in plain for sequence in SMALL],
    }


def padded(key: tuple) -> tuple:
    """Keys of different lengths must differ even if the shorter one were filled with zeros."""
    return key + (0,) * (8 - len(key))


def test_no_two_purposes_share_a_key_and_every_name_counts():
    keys = [key for found in drawn().values() for key in found]
    assert len({padded(key) for key in keys}) == len(keys) == 243 + 81 + 27 + 81 + 9 + 9 + 27 + 3 + 27 + 27


def test_the_purpose_stands_first():
    tags = {purpose: {key[0] for key in found} for purpose, found in drawn().items()}
    assert all(len(tag) == 1 for tag in tags.values()) and len(set.union(*tags.values())) == 10


def test_keys_are_integers_of_32_bits():
    assert all(type(part) is int and 0 <= part < 2**32 for found in drawn().values() for key in found for part in key)


def test_the_first_attempt_is_number_zero():
    assert seeds.sample(1, 2, ITEMS[0], 3) == seeds.sample(1, 2, ITEMS[0], 3, 0)


def test_an_item_is_known_by_its_name_alone():
    assert item_number(Item("a")) == item_number(Item("a")) != item_number(Item("b"))
    assert seeds.adapter(0, 1, Item("a"), 0) == (seeds.ADAPTER, 0, 1, item_number(Item("a")), 0)
