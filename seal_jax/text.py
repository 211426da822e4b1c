"""Plain text for terminals, logs and reports: tables and times."""

from collections.abc import Sequence


def columns(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table with a rule under its header; the first column to the left, the others to the right, nothing cut off."""
    rows = [header, *cells]
    widths = [max(len(row[place]) for row in rows) for place in range(len(header))]
    shape = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([shape.format(*header).rstrip(), rule, *(shape.format(*row).rstrip() for row in cells)])


def printable(text: str) -> str:
    """The text in one line, without the characters that would move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def duration(seconds: float) -> str:
    """83 -> "1:23", 3700 -> "1:01:40"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
