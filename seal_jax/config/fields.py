"""How the fields of a config say what they take."""

from dataclasses import field


def choice(default: str, *options: str):
    """A field that takes one of `options`."""
    return field(default=default, metadata={"options": options})


def number(default, low=None, high=None, *, above=None):
    """A numeric field within [low, high], or greater than `above`; of a tuple that is not empty each number is so."""
    return field(default=default, metadata={"low": low, "high": high, "above": above})


def numbers(low=None, high=None):
    """A tuple of numbers within [low, high], which may be empty, as it is by default."""
    return field(default=(), metadata={"low": low, "high": high, "above": None, "empty": True})
