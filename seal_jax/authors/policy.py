"""The policy reads items and writes self-edits. What cannot be read as one is sampled again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seal_jax import config, seeds
from seal_jax.authors.author import SelfEdit, cut_at
from seal_jax.domains.domain import Domain, Prompt
from seal_jax.engine.generation import Generation, Sample
from seal_jax.engine.weights import Weights
from seal_jax.student.actor import Actor


@dataclass(frozen=True)
class Policy:
    """A model that writes. attempts: how often at most one self-edit is sampled; grammar: what decoding keeps to."""

    actor: Actor
    domain: Domain
    sampling: config.Sampling
    attempts: int = 1
    grammar: Any = None

    def write(self, items: Sequence[Any], samples: int, seed: tuple[int, int]) -> Iterator[dict[str, list[SelfEdit]]]:
        """Items with prompts of like length are decoded together, as many as `engine.decode_rows` has room for."""
        asked = [self.domain.edit_prompt(item, self.actor.chat) for item in items]
        encode, stops = self.actor.tokenizer.encode_prompt, self._stops(asked)
        prompts = {item.id: encode(prompt) for item, prompt in zip(items, asked, strict=True)}
        ordered = sorted(items, key=lambda item: (len(prompts[item.id]), item.id))
        at_once = max(1, self.actor.engine.settings.decode_rows // samples)
        for begin in range(0, len(ordered), at_once):
            chunk = ordered[begin : begin + at_once]
            keys = [[seeds.sample(*seed, item, k) for k in range(samples)] for item in chunk]
            written = self._sample([prompts[item.id] for item in chunk], keys, stops)
            found = {item.id: lane for item, lane in zip(chunk, written, strict=True)}
            for attempt in range(1, self.attempts):
                again = [(item, k) for item in chunk for k in range(samples) if self._unreadable(found[item.id][k])]
                if not again:
                    break
                keys = [[seeds.sample(*seed, item, k, attempt)] for item, k in again]
                written = self._sample([prompts[item.id] for item, _ in again], keys, stops)
                for (item, k), [edit] in zip(again, written, strict=True):
                    found[item.id][k] = replace(edit, attempts=attempt + 1)
            yield found

    def complete(self, prompts: Sequence[Prompt], keys: Sequence[Sequence[seeds.Seed]]) -> list[list[SelfEdit]]:
        """Texts after any prompts, one for each key, not kept to a grammar; prompts of like length together."""
        tokens = [self.actor.tokenizer.encode_prompt(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda place: (len(tokens[place]), place))
        rows, found = self.actor.engine.settings.decode_rows, {}
        free = replace(self, grammar=None)
        while order:
            count = max(1, rows // max(len(keys[place]) for place in order[:rows]))
            chunk, order = order[:count], order[count:]
            written = free._sample([tokens[i] for i in chunk], [keys[i] for i in chunk], self._stops(prompts))
            found |= zip(chunk, written, strict=True)
        return [found[place] for place in range(len(prompts))]

    def prompt(self, item: Any) -> list[int]:
        """What the model is asked, in tokens."""
        return self.actor.tokenizer.encode_prompt(self.domain.edit_prompt(item, self.actor.chat))

    def _unreadable(self, edit: SelfEdit) -> bool:
        problem = self.domain.problem(edit.text)
        return problem is not None and problem.again

    def _stops(self, prompts: Sequence[Prompt]) -> tuple[str, ...]:
        """Texts that end what is written: those of the config, and those of the prompts, which are of one kind."""
        return tuple(dict.fromkeys([*self.sampling.stop_strings, *(stop for one in prompts[:1] for stop in one.stops)]))

    def _sample(
        self, prompts: list[list[int]], keys: Sequence[Sequence[seeds.Seed]], stops: tuple[str, ...]
    ) -> list[list[SelfEdit]]:
        """Self-edits of each prompt, one for each of its keys."""
        sampling, actor = self.sampling, self.actor
        rules = actor.rules(sampling.temperature, sampling.top_p, sampling.top_k)
        stopped = actor.stopper(stops)
        generation = Generation(rules, sampling.max_new_tokens, stopped, self.grammar)
        out = actor.engine.generate(Weights(actor.base), [prompts], [keys], generation)[0]
        return [[self._edit(sample, stops) for sample in lane] for lane in out]

    def _edit(self, sample: Sample, stops: tuple[str, ...]) -> SelfEdit:
        text = cut_at(self.actor.tokenizer.decode(sample.tokens), stops)
        tokens = (*sample.tokens, *([] if sample.stop is None else [sample.stop]))
        problem = self.domain.problem(text)
        log_probs = tuple(round(value, 5) for value in sample.log_probs)
        return SelfEdit(text, tokens, log_probs, sample.finished, problem and problem.reason)
