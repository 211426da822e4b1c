"""A patient client of any OpenAI-compatible endpoint: for the judge that grades there, and for the teacher that writes.

What cannot be had is `Missing` and says why; it never ends the run. Only an endpoint that refuses the key, or does not
know the model, does. The key and the endpoint's own messages (which may quote the key) are in no error and no log.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import openai

from seal_jax.errors import UserError

FIRST_WAIT = 1.0  # seconds before the first retry; doubled for each further one
LONGEST_WAIT = 60.0
REFUSED = {
    401: "it refuses the key; set the right one",
    403: "it denies access; check what the key may do",
    404: "it knows no such model or address; check model and base_url",
}
PASSING = (408, 409, 429)  # as well as everything from 500: worth asking again
UNREADABLE = "unreadable reply"


class Missing(str):
    """Why there is no answer, in a word or two."""


class Reply(NamedTuple):
    """What the model wrote; finished: it ended by itself, not at the limit on its length."""

    text: str
    finished: bool


class Patience(NamedTuple):
    """concurrency: requests under way at once; retries: of one that failed; timeout: of each, in seconds."""

    concurrency: int = 8
    retries: int = 4
    timeout: float = 60.0


@dataclass(frozen=True)
class Endpoint:
    """A model behind an endpoint. role: what it is here ('judge', 'teacher'), for errors. See `connect`."""

    role: str
    model: str
    client: openai.OpenAI
    key_variable: str
    patience: Patience

    def ask(self, requests: Sequence[str], read: Callable[[Reply], Any], **options) -> list[Any]:
        """What `read` makes of the reply to each request, or Missing.

        A reply of which `read` makes None, or that failed, is asked for again. options: of the chat completion, such as
        temperature. Raises UserError where the endpoint refuses the key or does not know the model.
        """
        pool = ThreadPoolExecutor(self.patience.concurrency)
        try:
            return list(pool.map(lambda request: self._ask(request, read, options), requests))
        except openai.APIStatusError as error:
            source = f"key from {self.key_variable}" if self.key_variable else "no key"
            raise UserError(
                f"The {self.role} {self.model} ({source}) answers HTTP {error.status_code}: "
                f"{REFUSED[error.status_code]}."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, request: str, read: Callable[[Reply], Any], options: dict) -> Any:
        """What was read, or Missing. Raises APIStatusError for the statuses in REFUSED."""
        for attempt in range(self.patience.retries + 1):
            wait = FIRST_WAIT * 2**attempt * random.uniform(0.75, 1.25)
            try:
                found = reply_of(
                    self.client.chat.completions.create(
                        model=self.model, messages=[{"role": "user", "content": request}], **options
                    )
                )
                value, failure = None if found is None else read(found), UNREADABLE
                if value is not None:
                    return value
            except openai.APITimeoutError:
                failure = "timeout"
            except openai.APIStatusError as error:
                if error.status_code in REFUSED:
                    raise
                failure = f"HTTP {error.status_code}"
                if error.status_code not in PASSING and error.status_code < 500:
                    return Missing(failure)
                wait = max(wait, _retry_after(error))
            except openai.APIConnectionError:
                failure = "no connection"
            except (openai.OpenAIError, ValueError):
                failure = UNREADABLE
            if attempt < self.patience.retries:
                time.sleep(min(wait, LONGEST_WAIT))
        return Missing(failure)


def connect(role: str, base_url: str, model: str, api_key_env: str, patience: Patience) -> Endpoint:
    """The endpoint, before anything is asked of it.

    The key is read here from the environment variable `api_key_env`; '' means that the endpoint needs none. Raises
    UserError for a missing key and for settings with which nothing can be asked.
    """
    if not base_url.startswith(("http://", "https://")):
        raise UserError(f"The {role}'s base_url must be an http:// or https:// address, such as https://host/v1.")
    if patience.concurrency < 1 or patience.retries < 0 or patience.timeout <= 0:
        raise UserError(f"The {role} needs concurrency >= 1, retries >= 0 and timeout > 0 (seconds).")
    key = _key(role, api_key_env)
    client = openai.OpenAI(base_url=base_url, api_key=key, timeout=patience.timeout, max_retries=0)
    return Endpoint(role, model, client, api_key_env, patience)


def reply_of(completion: object) -> Reply | None:
    """The text of a chat completion; None for anything else."""
    try:
        choice = completion.choices[0]
        text = choice.message.content
    except (AttributeError, IndexError, TypeError):
        return None
    return Reply(text, getattr(choice, "finish_reason", None) != "length") if isinstance(text, str) else None


def reasons(found: Iterable[Any]) -> str:
    """What is missing, counted by reason: 'HTTP 500: 3, timeout: 1'; '' where nothing is."""
    counts = Counter(str(one) for one in found if isinstance(one, Missing))
    return ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())


def _key(role: str, variable: str) -> str:
    if not variable:
        return "none"  # the client insists on one, and would otherwise look for another key in the environment
    key = os.environ.get(variable, "").strip()
    if not key:
        other = ", or use the lexical judge" if role == "judge" else ""
        raise UserError(f"Set the environment variable {variable} to the remote {role}'s key{other}.")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The environment variable {variable} holds characters that no key has; set it again.")
    return key


def _retry_after(error: openai.APIStatusError) -> float:
    """The seconds that the endpoint asks to wait, 0 if it does not say."""
    seconds = error.response.headers.get("retry-after", "")
    return float(seconds) if seconds.replace(".", "", 1).isdigit() else 0.0
