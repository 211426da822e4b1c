"""An engine in plain Python and a domain of things, for the tests of everything above the engine.

Weights and adapters are single numbers, {"w": …}. What a model says depends on its number, the prompt and the seed, and
can be computed by hand. Nothing is compiled.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from tiny_checkpoint import tiny_tokenizer

from seal_jax.config import EngineConfig
from seal_jax.domains.domain import Control, Example, Graded, Lesson, Problem, Prompt, Quiz, Words
from seal_jax.engine.generation import Sample
from seal_jax.engine.packing import steps_of
from seal_jax.student.actor import Actor

TOKENIZER = tiny_tokenizer()


def number(*what) -> float:
    """Between 0 and 10, decided by `what`."""
    return zlib.crc32(repr(what).encode()) % 100_000 / 10_000


def trained(candidate, start: float) -> float:
    """The number of an adapter after its training, or of weights."""
    how = candidate.seed, candidate.order, candidate.learning_rate, candidate.epochs
    return number([row.tokens for row in candidate.rows], *how, start)


def losses_of(candidate, batch: int) -> np.ndarray:
    """Rising losses; a learning rate beyond 1e6 diverges at the second step."""
    values = np.arange(steps_of(candidate, batch)) + number(candidate.seed)
    return np.where((candidate.learning_rate > 1e6) & (np.arange(len(values)) > 0), np.nan, values)


def likelihood(weight: float, row) -> float:
    """In nats, of the whole row."""
    return -number(round(weight, 6), row.tokens, row.weights) * sum(row.weights)


def token_likelihoods(weight: float, row) -> np.ndarray:
    """In nats, of each weighted token of a row."""
    places = [place for place, weighs in enumerate(row.weights) if weighs]
    return np.array([-number(round(weight, 6), row.tokens, place) / 10 for place in places], np.float32)


def speaks(weight: float, prompt: str, seed: tuple) -> str:
    """What a model says unless a test says otherwise."""
    return f"{number(round(weight, 6), prompt, tuple(seed))}\n"


class PlainEngine:
    """`calls` lists what was asked for: (name, number of rows or candidates, the rest that tests look at)."""

    def __init__(self, says: Callable[[float, str, tuple], str] = speaks, **settings):
        self.settings = EngineConfig(**{"candidates": 2, "decode_rows": 6, "cache": "", **settings})
        self.layout = SimpleNamespace(devices=1, put_weights=lambda tree, candidates: tree)
        self.usage = SimpleNamespace(real=0, slots=0, generated=0)
        self.programs = SimpleNamespace(count=0, seconds=0.0, activity=str)
        self.says, self.calls = says, []

    def count(self, name: str) -> int:
        return sum(call[0] == name for call in self.calls)

    def put_base(self, params):
        return params

    def numbers(self, weights) -> list[float]:
        """The number of each candidate: base and adapter together."""
        adapters = [0.0] if weights.adapters is None else weights.adapters["w"] * weights.lora.scale
        return [float(weights.base["w"] + w) for w in adapters]

    def finetune(self, base, candidates, recipe):
        assert len({candidate.order for candidate in candidates}) == 1 and all(one.rows for one in candidates)
        self.calls.append(("finetune", len(candidates), list(candidates)))
        tree = {"w": np.array([trained(one, float(base["w"])) for one in candidates])}
        return tree, [losses_of(one, recipe.batch) for one in candidates]

    def join(self, parts):
        return {"w": np.concatenate([tree["w"][:count] for tree, count in parts])}

    def teach(self, base, candidate, recipe):
        self.calls.append(("teach", len(candidate.rows), candidate, recipe))
        return {"w": np.array(trained(candidate, float(base["w"])))}, losses_of(candidate, recipe.batch)

    def prefer(self, base, pairs, recipe, beta):
        self.calls.append(("prefer", len(pairs.rejected), pairs, recipe, beta))
        learned = number(trained(pairs.learner, float(base["w"])), pairs.rejected, beta)
        return {"w": np.array(learned)}, losses_of(pairs.learner, recipe.batch)

    def reinforce(self, base, sampled, recipe, objective):
        self.calls.append(("reinforce", len(sampled.advantages), sampled, recipe, objective))
        learned = number(trained(sampled.learner, float(base["w"])), sampled.advantages, objective)
        return {"w": np.array(learned)}, losses_of(sampled.learner, recipe.batch)

    def token_log_probs(self, weights, rows):
        self.calls.append(("token_log_probs", len(rows)))
        [weight] = self.numbers(weights)
        return [token_likelihoods(weight, row) for row in rows]

    def merge(self, base, adapter, lora):
        return {"w": base["w"] + lora.scale * adapter["w"]}

    def log_likelihood(self, weights, rows):
        self.calls.append(("log_likelihood", sum(map(len, rows))))
        return [[likelihood(w, row) for row in lane] for w, lane in zip(self.numbers(weights), rows, strict=True)]

    def generate(self, weights, prompts, seeds, generation):
        self.calls.append(("generate", sum(len(samples) for lane in seeds for samples in lane), generation))
        out = []
        for w, lane, lane_seeds in zip(self.numbers(weights), prompts, seeds, strict=True):
            pairs = zip(lane, lane_seeds, strict=True)
            out.append([[self._sample(w, prompt, seed, generation) for seed in some] for prompt, some in pairs])
        return out

    def _sample(self, weight, prompt, seed, generation) -> Sample:
        tokens = TOKENIZER.encode(self.says(weight, TOKENIZER.decode(prompt), tuple(seed)))
        ended = len(tokens) < generation.max_new
        tokens = tokens[: generation.max_new]
        stopped = generation.stopped is not None and generation.stopped(tokens)
        stop = generation.rules.stop_ids[0] if ended and not stopped else None
        log_probs = [-(1 + place) / 3 for place in range(len(tokens) + (stop is not None))]
        return Sample(tokens, log_probs, stop, stopped)


def plain_actor(engine: PlainEngine | None = None, chat: bool = False, weight: float = 1.0) -> Actor:
    source = SimpleNamespace(config=SimpleNamespace(max_position=512, num_layers=1), params={"w": np.array(weight)})
    return Actor(engine or PlainEngine(), {"w": np.array(weight)}, TOKENIZER, chat, source)


@dataclass(frozen=True)
class Thing:
    """questions: (question, answer, held out)."""

    id: str
    title: str
    questions: tuple[tuple[str, str, bool], ...] = (("Is it?", "yes", False), ("Was it?", "no", False))
    completions: tuple[str, ...] = ()
    prompt: str | None = None


@dataclass(frozen=True)
class Things:
    """A domain whose texts say what becomes of them: 'again', 'invalid', 'fail', 'explode', 'seeded'."""

    verdict: Callable[[str, str], bool | None] = lambda gold, answer: gold == answer
    answer_stops: tuple[str, ...] = ()
    grader: str = "plain"
    words: Words = Words("thing", "things")

    def edit_prompt(self, item, chat):
        return Prompt(f"Write about {item.title}:", chat)

    def problem(self, text):
        if "again" in text:
            return Problem("cannot be read", again=True)
        return Problem("not allowed") if "invalid" in text else None

    def lesson(self, item, text, seed, length):
        if "fail" in text:
            return Lesson(failure="nothing to train on")
        examples = [Example(None, f"{item.title} {line}", closing=False) for line in text.split("\n") if line]
        if "seeded" in text:
            examples.append(Example(None, f"{seed} {length(examples[0])}", closing=False))
        return Lesson(tuple(examples), 1e30 if "explode" in text else 0.1, 2)

    def quiz(self, item, chat):
        prompts = tuple(Prompt(f"{item.title}: {question}", chat) for question, _, _ in item.questions)
        gold = tuple(
            Example(prompt, f" {answer}", closing=False)
            for prompt, (_, answer, _) in zip(prompts, item.questions, strict=True)
        )
        return Quiz(prompts, gold, tuple(heldout for _, _, heldout in item.questions))

    def grade(self, answered):
        def graded(item, said):
            pairs = zip(item.questions, said, strict=True)
            return Graded(list(said), [self.verdict(gold, one) for (_, gold, _), one in pairs])

        return [graded(item, said) for item, said in answered]

    def controls(self):
        return [
            Control("base", None, kind="untrained"),
            Control("title only", lambda item, sample: item.title, samples=2),
        ]

    def shown(self, item):
        return {"title": item.title}


class Shelf:
    """Checkpoints in memory, as runs/checkpoint.py has them on disk."""

    def __init__(self):
        self.kept = {}

    def save(self, folder, step, tree):
        self.kept.setdefault(folder, {})[step] = tree

    def load(self, folder, step):
        return self.kept[folder][step]

    def steps(self, folder):
        return sorted(self.kept.get(folder, ()))
