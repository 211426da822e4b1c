"""A judge behind any OpenAI-compatible endpoint. What it could not grade is None, and a warning says why."""

import logging
from collections.abc import Callable, Sequence

from seal_jax.domains.domain import Answered
from seal_jax.judges.endpoint import Missing, Patience, Reply, connect, reasons
from seal_jax.judges.item import grading_request

log = logging.getLogger(__name__)


def make(
    base_url: str, model: str, api_key_env: str, concurrency: int = 8, retries: int = 4, timeout: float = 60.0
) -> Callable[[Sequence[Answered]], list[bool | None]]:
    """A judge that asks `model` for yes or no about each item, up to `concurrency` at a time.

    The key is read here from the environment variable `api_key_env`; '' means that the endpoint needs none. A failed or
    unreadable reply is asked for again up to `retries` times, then the item's verdict is None. Raises UserError for a
    missing key and, while grading, when the endpoint refuses the key or does not know the model.
    """
    endpoint = connect("judge", base_url, model, api_key_env, Patience(concurrency, retries, timeout))

    def grade(items: Sequence[Answered]) -> list[bool | None]:
        asked = list(dict.fromkeys(item for item in items if not item.is_empty))
        replies = endpoint.ask([grading_request(item) for item in asked], parse_verdict, temperature=0)
        found = dict(zip(asked, replies, strict=True))
        verdicts = [False if item.is_empty else found[item] for item in items]
        missing = sum(isinstance(verdict, Missing) for verdict in verdicts)
        if missing:
            log.warning("judge %s: %d of %d answers not graded (%s)", model, missing, len(items), reasons(verdicts))
        return [None if isinstance(verdict, Missing) else verdict for verdict in verdicts]

    grade.name = f"remote:{model}"
    return grade


def parse_verdict(reply: Reply) -> bool | None:
    """True for yes, False for no, None for any other text."""
    return {"yes": True, "no": False}.get(reply.text.strip().strip("*.!\"'").lower())
