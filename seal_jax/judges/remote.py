"""A judge behind any OpenAI-compatible endpoint. What it could not grade is None, and a warning says why."""

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import openai

from seal_jax.domains.domain import Answered
from seal_jax.errors import UserError
from seal_jax.judges.item import grading_request

log = logging.getLogger(__name__)

FIRST_WAIT = 1.0  # seconds before the first retry; doubled for each further one
LONGEST_WAIT = 60.0
REFUSED = {
    401: "it refuses the key; set the right one",
    403: "it denies access; check what the key may do",
    404: "it knows no such model or address; check model and base_url",
}
PASSING = (408, 409, 429)  # as well as everything from 500: worth asking again


def make(
    base_url: str, model: str, api_key_env: str, concurrency: int = 8, retries: int = 4, timeout: float = 60.0
) -> Callable[[Sequence[Answered]], list[bool | None]]:
    """A judge that asks `model` for yes or no about each item, up to `concurrency` at a time.

    The key is read here from the environment variable `api_key_env`; '' means that the endpoint needs none. A failed or
    unreadable reply is asked for again up to `retries` times, then the item's verdict is None. Raises UserError for a
    missing key and, while grading, when the endpoint refuses the key or does not know the model. The key and the
    endpoint's own messages (which may quote the key) are in no error and no log.
    """
    if not base_url.startswith(("http://", "https://")):
        raise UserError("The judge's base_url must be an http:// or https:// address, such as https://host/v1.")
    if concurrency < 1 or retries < 0 or timeout <= 0:
        raise UserError("The judge needs concurrency >= 1, retries >= 0 and timeout > 0 (seconds).")
    key = _key(api_key_env)
    client = openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=0)

    def ask(item: Answered) -> bool | str:
        return _ask_patiently(client, model, grading_request(item), retries)

    def grade(items: Sequence[Answered]) -> list[bool | None]:
        asked = list(dict.fromkeys(item for item in items if not item.is_empty))
        pool = ThreadPoolExecutor(concurrency)
        try:
            replies = dict(zip(asked, pool.map(ask, asked), strict=True))
        except openai.APIStatusError as error:
            source = f"key from {api_key_env}" if api_key_env else "no key"
            raise UserError(
                f"The judge {model} ({source}) answers HTTP {error.status_code}: {REFUSED[error.status_code]}."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
        verdicts = [False if item.is_empty else replies[item] for item in items]
        reasons = Counter(verdict for verdict in verdicts if isinstance(verdict, str))
        if reasons:
            why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
            log.warning("judge %s: %d of %d answers not graded (%s)", model, reasons.total(), len(items), why)
        return [None if isinstance(verdict, str) else verdict for verdict in verdicts]

    grade.name = f"remote:{model}"
    return grade


def _key(variable: str) -> str:
    if not variable:
        return "none"  # the client insists on one, and would otherwise look for another key in the environment
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"Set the environment variable {variable} to the remote judge's key, or use the lexical judge.")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The environment variable {variable} holds characters that no key has; set it again.")
    return key


def _ask_patiently(client: openai.OpenAI, model: str, request: str, retries: int) -> bool | str:
    """The verdict, or in a word or two why there is none. Raises APIStatusError for the statuses in REFUSED."""
    for attempt in range(retries + 1):
        wait = FIRST_WAIT * 2**attempt * random.uniform(0.75, 1.25)
        try:
            reply = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": request}], temperature=0
            )
            verdict, failure = parse_verdict(reply), "unreadable reply"
            if verdict is not None:
                return verdict
        except openai.APITimeoutError:
            failure = "timeout"
        except openai.APIStatusError as error:
            if error.status_code in REFUSED:
                raise
            failure = f"HTTP {error.status_code}"
            if error.status_code not in PASSING and error.status_code < 500:
                return failure
            wait = max(wait, _retry_after(error))
        except openai.APIConnectionError:
            failure = "no connection"
        except (openai.OpenAIError, ValueError):
            failure = "unreadable reply"
        if attempt < retries:
            time.sleep(min(wait, LONGEST_WAIT))
    return failure


def parse_verdict(reply: object) -> bool | None:
    """True for yes, False for no, None for any other content or a reply that is no chat completion."""
    try:
        content = reply.choices[0].message.content
    except (AttributeError, IndexError, TypeError):
        return None
    word = content.strip().strip("*.!\"'").lower() if isinstance(content, str) else ""
    return {"yes": True, "no": False}.get(word)


def _retry_after(error: openai.APIStatusError) -> float:
    """The seconds that the endpoint asks to wait, 0 if it does not say."""
    seconds = error.response.headers.get("retry-after", "")
    return float(seconds) if seconds.replace(".", "", 1).isdigit() else 0.0
