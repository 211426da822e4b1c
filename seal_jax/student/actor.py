"""A model in a role: the policy that writes self-edits, the student that learns from them, or a judge."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax

from seal_jax.config import Config
from seal_jax.domains.domain import Example
from seal_jax.engine.budget import other_bases
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Row
from seal_jax.engine.weights import Weights
from seal_jax.inner.sampling import Sampling
from seal_jax.model import memory, quantized
from seal_jax.model.lora import LoraConfig
from seal_jax.model.pretrained import Pretrained, load
from seal_jax.model.tokenizer import Tokenizer
from seal_jax.parallel import fetch, make_layout


@dataclass(frozen=True)
class Actor:
    """Weights on the device, the engine that runs them, and the tokenizer; `chat`: prompts use the chat template."""

    engine: Engine
    base: dict
    tokenizer: Tokenizer
    chat: bool
    source: Pretrained
    quantization: str = "none"

    def with_base(self, base: dict) -> "Actor":
        """The same model with other weights: nothing is compiled again."""
        return replace(self, base=base)

    def with_adapter(self, adapter: dict, lora: LoraConfig) -> "Actor":
        """The same model with an adapter merged into its weights; quantized ones are merged where they are whole."""
        if self.quantization == "none":
            return self.with_base(self.engine.merge(self.base, adapter, lora))
        params = quantized.merge_on_host(self.source.params, adapter, lora)
        base = self.engine.put_base(quantized.quantize(params, self.quantization))
        return replace(self, base=base, source=replace(self.source, params=params))

    def weights(self) -> dict:
        """Its weights on the host, not quantized. In a run of several hosts all of them must call this."""
        return jax.tree.map(fetch, self.base) if self.quantization == "none" else self.source.params

    def length(self, example: Example) -> int:
        """How many tokens an example has."""
        return len(self.tokenizer.encode_example(example)[0])

    def row(self, example: Example) -> Row:
        """An example as tokens and loss weights, and what its teacher reads before them."""
        tokens, weights = self.tokenizer.encode_example(example)
        teacher = [] if example.teacher is None else self.tokenizer.encode_prompt(example.teacher)
        return Row(tuple(tokens), tuple(weights), tuple(teacher))

    def log_likelihoods(self, rows: Sequence[Row]) -> list[float]:
        """Of the weighted tokens of each row, in nats, without an adapter; `engine.decode_rows` of them, of like
        length, at a time."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place].tokens))
        each, found = self.engine.settings.decode_rows, [0.0] * len(rows)
        for begin in range(0, len(rows), each):
            part = order[begin : begin + each]
            values = self.engine.log_likelihood(Weights(self.base), [[rows[place] for place in part]])[0]
            for place, value in zip(part, values, strict=True):
                found[place] = value
        return found

    def stopper(self, texts: Sequence[str]) -> Callable[[list[int]], bool] | None:
        """Whether tokens hold one of the texts that end a row, for Engine.generate; None where there are none."""

        def stopped(tokens: list[int]) -> bool:
            written = self.tokenizer.decode(tokens)
            return any(text in written for text in texts)

        return stopped if texts else None

    def rules(self, temperature: float, top_p: float, top_k: int) -> Sampling:
        """Sampling rules that stop at this model's end tokens."""
        return Sampling(temperature, top_p, top_k, tuple(sorted(self.tokenizer.stop_ids)))


def load_actor(source: str, config: Config) -> Actor:
    """Load a model onto the device. dtype 'auto' is float32 on a CPU; chat 'auto' asks the tokenizer.

    Raises UserError where this machine cannot hold it, before anything is downloaded.
    """
    dtype, chat = config.model.dtype, config.model.chat
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    memory.check(source, dtype, config.parallel.model, config.model.quantization)
    loaded = load(source, dtype)
    layout = make_layout(config.parallel.model, config.parallel.backend)
    engine = Engine(loaded.config, config.engine, layout, other_bases=other_bases(config))
    tokenizer = loaded.tokenizer
    if config.model.system == "empty":
        tokenizer = tokenizer.with_system("")
    use_chat = tokenizer.has_chat_template if chat == "auto" else chat == "yes"
    base = engine.put_base(quantized.quantize(loaded.params, config.model.quantization))
    return Actor(engine, base, tokenizer, use_chat, loaded, config.model.quantization)
