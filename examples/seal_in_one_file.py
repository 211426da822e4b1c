"""SEAL, "Self-Adapting Language Models" (arXiv 2506.10943): the whole method in one file of plain Python loops.

    python examples/seal_in_one_file.py     # some minutes on a CPU

A language model reads a passage and writes its own training data, a self-edit. An inner loop trains an adapter on it;
how well the adapted model then answers questions about the passage, without seeing it, is the reward. An outer loop
finetunes the model on the self-edits that earned most. The passages are invented: no model can know what they say.
Only the network, the tokenizer and one optimizer step come from seal_jax; its driver trains many adapters at once.
"""

import argparse
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce
from importlib import resources
from itertools import count, takewhile
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seal_jax.inner.sft import Batch, Hyper, Optimizer, Program, init_state, sft_step
from seal_jax.model.lora import PROJECTIONS, LoraConfig, init_adapter, merge
from seal_jax.model.pretrained import load
from seal_jax.model.tokenizer import Tokenizer
from seal_jax.model.transformer import Transformer, make_room


@dataclass(frozen=True)
class Settings:
    model: str = "smollm2-135m-instruct"
    chat: bool = True  # prompts and training data are turns of a chat; False: plain text
    passages: int = 2  # that the policy practises on
    evaluation: int = 3  # others, for the table
    rounds: int = 1  # of the outer loop
    samples: int = 2  # self-edits of each passage, of which the best one is kept
    retrains: int = 1  # adapters trained on each self-edit; their mean is its reward
    seed: int = 0
    temperature: float = 0.7
    top_p: float = 0.95
    edit_tokens: int = 64  # of a self-edit, at most
    answer_tokens: int = 16
    accuracy_weight: float = 1.0  # in the reward: share of right answers
    likelihood_weight: float = 0.1  # in the reward: gain in log-likelihood of the right answers, in nats per token
    lora: LoraConfig = LoraConfig(rank=16, alpha=32.0, targets=PROJECTIONS)
    inner: tuple[float, int, int] = (3e-3, 6, 1)  # learning rate, epochs, sequences of an optimizer step
    outer: tuple[float, int, int] = (5e-4, 4, 2)


# ---- Text. A passage is a dict with a title, a context, and questions with their answers.
def edit_prompt(passage: dict, chat: bool) -> str:
    request = "Read the passage below and list, one per line, the facts that it states and what follows from them."
    cue = "" if chat else "\n\nImplications:\n"
    return f"{request}\n\nPassage:\n{passage['title']}\n{passage['context']}{cue}"


def question_prompt(passage: dict, question: str, chat: bool) -> str:
    request, cue = ("", "") if chat else (" to the question below", "\n\nAnswer:")
    return f"Give a direct, concise answer{request}.\n\nTopic: {passage['title']}\n{question}{cue}"


def training_data(passage: dict, edit: str, chat: bool) -> list[tuple[str | None, str]]:
    """A self-edit as (prompt or None, text to learn): each line is a sequence, and the passage itself the last one."""
    lines = [line.strip() for line in re.split(r"---|\n", edit) if line.strip()]
    lines = lines[len(lines) > 1 and lines[1].startswith("1.") :][:30]  # without the heading of a numbered list
    if not chat:
        return [(None, f"{passage['title']}\n{text}") for text in [*lines, passage["context"]]]
    facts = [re.sub(r"^(\d{1,3}[.)]|[-*•])[ \t]+", "", line) for line in lines]  # without the marker of a list
    data = [(f"Topic: {passage['title']}", fact) for fact in facts if any(map(str.isalnum, fact))]
    return [*data, (f"Tell me everything you know about this topic: {passage['title']}", passage["context"])]


# ---- The model: tokens, sampling, log-likelihood.
class Model(NamedTuple):
    network: Transformer
    tokenizer: Tokenizer
    variables: dict  # {"params": weights}, and with an adapter {"params": weights, "lora": adapter}
    chat: bool

    def prompt(self, text: str, chat: bool) -> list[int]:
        """Tokens to continue; a chat has an empty system message."""
        return self.tokenizer.encode_prompt(SimpleNamespace(text=text, chat=chat, system=""))

    def example(self, prompt: str | None, text: str, end: bool) -> tuple[list[int], list[float]]:
        """Tokens and loss weights: the loss is on `text` and, with `end`, on the token that ends it."""
        head = self.prompt(prompt or "", self.chat and prompt is not None)
        closing = self.tokenizer.turn_end_id if self.chat else self.tokenizer.eos_id
        tail = self.tokenizer.encode(text) + [closing] * end
        return head + tail, [0.0] * len(head) + [1.0] * len(tail)


def padded(rows, left: bool = False) -> np.ndarray:
    """Rows as an array [B, T], with zeros up to a multiple of 32, so that few programs are compiled."""
    length = -(-max(map(len, rows)) // 32) * 32
    return np.array([[0] * (length - len(row)) * left + row + [0] * (length - len(row)) * (not left) for row in rows])


@partial(jax.jit, static_argnums=0)
def forward(network: Transformer, variables: dict, tokens, start=None, cache=None):
    """Logits [B, T, V] of what follows each of tokens [B, T], and the keys and values to go on from."""
    hidden, memory = network.apply(variables, tokens, cache, start)
    return network.apply(variables, hidden, method="logits"), memory


def generate(model: Model, prompts: list[str], keys: list, limit: int, choose) -> list[list[int]]:
    """Tokens that continue the prompts, a row for each key; rows that share a prompt lie side by side."""
    rows = [model.prompt(text, model.chat) for text in prompts]
    tokens = padded(rows, left=True)
    start = np.array([tokens.shape[1] - len(row) for row in rows])
    logits, read = forward(model.network, model.variables, tokens, start)
    logits = np.repeat(logits[:, -1:], len(keys) // len(prompts), axis=0)
    cache, written = make_room(read, len(keys), limit), [[] for _ in keys]
    for position in range(limit):
        for row, key, scores in zip(written, keys, np.asarray(logits[:, 0]), strict=True):
            row.append(choose(scores, jax.random.fold_in(key, position)))
        if all(model.tokenizer.stop_ids.intersection(row) for row in written):
            break
        logits, cache = forward(model.network, model.variables, np.array([row[-1:] for row in written]), None, cache)
    return [list(takewhile(lambda token: token not in model.tokenizer.stop_ids, row)) for row in written]


def nucleus(logits: np.ndarray, key: jax.Array, temperature: float, top_p: float) -> int:
    """Draw a token, again and again until its more probable rivals hold less than top_p together."""
    weights = np.exp((logits - logits.max()) / temperature, dtype=np.float64)
    ends = weights.cumsum()
    for attempt in count():
        point = float(jax.random.uniform(jax.random.fold_in(key, attempt))) * ends[-1]
        token = int(np.searchsorted(ends, point, side="right"))
        if weights[weights > weights[token]].sum() < top_p * ends[-1]:
            return token


# ---- The inner loop: train an adapter on a self-edit, then ask about the passage.
SAMPLE, ADAPTER, ORDER, TEACH = 1, 2, 3, 5  # what is drawn: the first number of a seed
train_step = jax.jit(sft_step, static_argnums=0)


def key_of(*seed: int) -> jax.Array:
    return reduce(jax.random.fold_in, map(np.uint32, seed), jax.random.key(0))


def number_of(passage: dict) -> int:
    return zlib.crc32(hashlib.sha256(f"{passage['title']}\n{passage['context']}".encode()).hexdigest()[:12].encode())


def finetune(model: Model, examples: list, how: tuple, lora: LoraConfig, seeds: tuple) -> Model:
    """The model with an adapter trained from scratch. `seeds`: of where it starts, and of the order of the data."""
    rate, epochs, size = how
    program = Program(model.network, Optimizer("linear"), loss_chunk=64)
    state = init_state(program.optimizer, {"lora": init_adapter(key_of(*seeds[0]), model.variables["params"], lora)})
    longest_first = sorted(examples, key=lambda row: -len(row[0]))
    starts = range(0, len(examples), size)
    hyper = Hyper(rate, total_steps=epochs * len(starts), warmup_steps=0)
    for epoch in range(epochs):
        order = np.argsort(np.random.default_rng([*seeds[1], epoch]).random(len(examples)), kind="stable")
        for start in starts:
            tokens, weights = zip(*[longest_first[i] for i in order[start : start + size]], strict=True)
            batch = Batch(padded(tokens)[None], padded(weights)[None], valid=True)
            state, _ = train_step(program, model.variables, state, batch, hyper)
    return model._replace(variables=model.variables | state.trainable)


def ask(model: Model, passage: dict, limit: int) -> np.ndarray:
    """Ask about a passage without showing it -> [share of right answers, log-likelihood of the gold answers]."""
    golds = [question["answer"] for question in passage["questions"]]
    prompts = [question_prompt(passage, question["question"], model.chat) for question in passage["questions"]]
    space = "" if model.chat else " "
    rows = [model.example(prompt, space + gold, end=False) for prompt, gold in zip(prompts, golds, strict=True)]
    tokens, weights = map(padded, zip(*rows, strict=True))
    log_probs = jax.nn.log_softmax(forward(model.network, model.variables, tokens)[0][:, :-1])
    log_probs = jnp.take_along_axis(log_probs, tokens[:, 1:, None], axis=-1)[..., 0] * weights[:, 1:]
    written = generate(model, prompts, [key_of()] * len(prompts), limit, lambda logits, key: int(logits.argmax()))
    # A simple judge: an answer is right if it has all words of the gold answer.
    said = [set(re.findall(r"\w+", model.tokenizer.decode(row).lower())) for row in written]
    right = [set(re.findall(r"\w+", gold.lower())) <= has for gold, has in zip(golds, said, strict=True)]
    return np.array([np.mean(right), (log_probs.sum(axis=1) / weights.sum(axis=1)).mean()])


def learn_and_ask(model: Model, passage: dict, edit: str, turn: tuple[int, int], settings: Settings) -> np.ndarray:
    """`turn` is (round, retrain). Self-edits of a passage share the adapter's start and the order of the data."""
    seeds = (ADAPTER, settings.seed, turn[0], number_of(passage), turn[1]), (ORDER, settings.seed, *turn)
    rows = [model.example(*pair, end=model.chat) for pair in training_data(passage, edit, model.chat)]
    return ask(finetune(model, rows, settings.inner, settings.lora, seeds), passage, settings.answer_tokens)


# ---- The outer loop: ReST^EM (section 3.1 of the paper).
def write_edits(policy: Model, passage: dict, round_: int, samples: int, settings: Settings) -> list[tuple[str, bool]]:
    """Self-edits of a passage: (text, whether the model came to an end)."""
    keys = [key_of(SAMPLE, settings.seed, round_, number_of(passage), k, 0) for k in range(samples)]
    choose, limit = partial(nucleus, temperature=settings.temperature, top_p=settings.top_p), settings.edit_tokens
    written = generate(policy, [edit_prompt(passage, policy.chat)], keys, limit, choose)
    return [(policy.tokenizer.decode(tokens), len(tokens) < limit) for tokens in written]


def em_round(policy: Model, passages: list[dict], round_: int, settings: Settings) -> tuple[Model, list[dict]]:
    """E-step: sample self-edits, reward each. M-step: finetune on the best of each passage. Rounds count from 1."""
    tried, lessons = [], []
    for passage in passages:
        edits = write_edits(policy, passage, round_, settings.samples, settings)
        before, rewards = ask(policy, passage, settings.answer_tokens), []
        for text, _ in edits:
            turns = [(round_, retrain) for retrain in range(settings.retrains)]
            after = np.mean([learn_and_ask(policy, passage, text, turn, settings) for turn in turns], axis=0)
            gain = settings.likelihood_weight * (after[1] - before[1])
            rewards.append(round(float(settings.accuracy_weight * after[0] + gain), 9))
        texts = [text if finished else text[: text.rfind("\n") + 1].rstrip() for text, finished in edits]  # whole lines
        teachable = [k for k, text in enumerate(texts) if text.strip() and np.isfinite(rewards[k])]
        chosen = sorted(teachable, key=lambda k: -rewards[k])[:1]
        lessons += [policy.example(edit_prompt(passage, policy.chat), texts[k], end=True) for k in chosen]
        tried.append({"edits": edits, "rewards": rewards, "chosen": chosen})
        print(f"  {passage['title']}: rewards {np.round(rewards, 3)}, chosen {chosen}", flush=True)
    if lessons:
        seeds = [(TEACH, settings.seed, round_)] * 2
        taught = finetune(policy, lessons, settings.outer, settings.lora, seeds).variables
        policy = policy._replace(variables={"params": merge(taught["params"], taught["lora"], settings.lora)})
    return policy, tried


def seal(settings: Settings, train: list[dict], others: list[dict]) -> Iterator[tuple[str, list, Model, list[dict]]]:
    """The whole method, row by row of the table: (name, results on `others`, policy, what its round tried)."""
    loaded = load(settings.model, "float32")
    network, weights = Transformer(loaded.config, settings.lora.scale), jax.tree.map(jnp.asarray, loaded.params)
    policy = Model(network, loaded.tokenizer, {"params": weights}, settings.chat)
    yield "base", [ask(policy, passage, settings.answer_tokens) for passage in others], policy, []
    for round_ in range(settings.rounds + 1):
        name, tried = "self-edits, no RL", []
        if round_ > 0:
            name, (policy, tried) = f"SEAL, round {round_}", em_round(policy, train, round_, settings)
        edits = [write_edits(policy, passage, 0, 1, settings)[0][0] for passage in others]
        pairs = zip(others, edits, strict=True)
        yield name, [learn_and_ask(policy, *pair, (0, 0), settings) for pair in pairs], policy, tried


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "passages", "evaluation", "rounds", "samples", "seed"):
        parser.add_argument(f"--{name}", type=type(getattr(Settings, name)), default=getattr(Settings, name))
    chosen = Settings(**vars(parser.parse_args()))
    text = (resources.files("seal_jax") / "data" / "invented.json").read_text(encoding="utf-8")
    train, test = [[p for p in json.loads(text)["passages"] if p["split"] == split] for split in ("train", "test")]
    for name, results, *_ in seal(chosen, train[: chosen.passages], test[: chosen.evaluation]):
        accuracy, nats = np.mean(results, axis=0)
        print(f"{name:18} accuracy {accuracy:4.0%}, log-likelihood of the answers {nats:6.2f} nats a token", flush=True)
