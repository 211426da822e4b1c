"""A teacher: a model behind an OpenAI-compatible endpoint that answers the policy's prompts, or any others."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seal_jax import config
from seal_jax.authors.author import SelfEdit, cut_at
from seal_jax.domains.domain import Domain, Prompt
from seal_jax.errors import UserError
from seal_jax.judges.endpoint import Endpoint, Missing, Reply, reasons
from seal_jax.parallel import from_first, is_first

log = logging.getLogger(__name__)

ROUNDS = 4  # of requests under way at once, after which what was written is recorded


@dataclass(frozen=True)
class Teacher:
    """Writes one self-edit for each request. What it did not write after all retries is missing, with the reason.

    It is asked by the first host alone, and all get what it wrote. Texts are cut at the stop strings of the config and
    of the prompt here, because endpoints know only a few.
    """

    endpoint: Endpoint
    domain: Domain
    sampling: config.Sampling

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        """Raises UserError where nothing at all was written of the first items, so that no run goes on without it."""
        at_once = max(1, ROUNDS * self.endpoint.patience.concurrency // samples)
        written = False
        for begin in range(0, len(items), at_once):
            chunk = items[begin : begin + at_once]
            prompts = [self.domain.edit_prompt(item, chat=True) for item in chunk]
            found = self.complete(prompts, [[()] * samples] * len(chunk))
            written = written or any(not edit.missing for edits in found for edit in edits)
            if not written:
                raise UserError(
                    f"the teacher {self.endpoint.model} wrote none of {len(chunk) * samples} self-edits "
                    f"({found[0][0].problem}); see that it works, then start the same command again to continue"
                )
            yield {item.id: edits for item, edits in zip(chunk, found, strict=True)}

    def complete(self, prompts: Sequence[Prompt], seeds: Sequence[Sequence[tuple]]) -> list[list[SelfEdit]]:
        """Replies to each prompt, as many as it has seeds, which are not used: endpoints differ in what they do."""
        asked = [prompt for prompt, some in zip(prompts, seeds, strict=True) for _ in some]
        replies = iter(json.loads(from_first(json.dumps(self._ask(asked) if is_first() else None).encode())))
        return [[self._edit(prompt, *next(replies)) for _ in some] for prompt, some in zip(prompts, seeds, strict=True)]

    def _ask(self, prompts: Sequence[Prompt]) -> list[tuple[str | None, bool, str | None]]:
        """(text, whether it came to its end, why there is none) for each prompt."""
        how = self.sampling
        replies = self.endpoint.ask(
            [prompt.text for prompt in prompts], _read, temperature=how.temperature, top_p=how.top_p,
            max_tokens=how.max_new_tokens,
        )  # fmt: skip
        missing = sum(isinstance(reply, Missing) for reply in replies)
        if missing:
            why = f"{missing} of {len(replies)} texts not written ({reasons(replies)})"
            log.warning("teacher %s: %s", self.endpoint.model, why)
        return [(None, True, str(reply)) if isinstance(reply, Missing) else (*reply, None) for reply in replies]

    def _edit(self, prompt: Prompt, text: str | None, finished: bool, why: str | None) -> SelfEdit:
        if text is None:
            return SelfEdit(None, problem=f"no answer: {why}")
        kept = cut_at(text, (*self.sampling.stop_strings, *prompt.stops))
        problem = self.domain.problem(kept)
        return SelfEdit(kept, finished=finished or kept != text, problem=problem and problem.reason)


def _read(reply: Reply) -> Reply | None:
    """Any text; an empty reply is asked for again."""
    return reply if reply.text.strip() else None
