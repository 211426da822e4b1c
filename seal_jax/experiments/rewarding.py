"""From a config to a reward."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from seal_jax.authors.policy import Policy
from seal_jax.config import Config, Sampling
from seal_jax.config.roles import reward_asks
from seal_jax.domains.domain import Domain, Prompt
from seal_jax.experiments import judging
from seal_jax.experiments.world import World
from seal_jax.judges.endpoint import Missing, Patience, connect
from seal_jax.judges.rubric import parse_ratings
from seal_jax.outer.rollouts import write
from seal_jax.rewards.adapted import Adapted
from seal_jax.rewards.own_questions import PROMPT, OwnQuestions
from seal_jax.rewards.reward import Reward
from seal_jax.rewards.rubric import Rating, Rubric
from seal_jax.runs.keys import TRAIN, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import Actor, load_actor

RATING_TOKENS = 128  # of a reply with four ratings
QUESTIONS = "own questions"  # the arm under which they are recorded


def make(config: Config, world: World, policy: Actor) -> Callable[[Recorder], Reward]:
    """From the records of a run to the reward that `config.reward` describes.

    Judges are made here, so that one that cannot be asked is refused before there are any records.
    """
    how = config.reward
    if how.kind == "rubric":
        rate, name = raters(config, policy, world.domain(None))
        return lambda recorder: Rubric(rate, name, recorder)
    asks = reward_asks(config)
    rewarded = world.domain(judging.make(how.judge, config, policy))

    def by_answers(recorder: Recorder) -> Adapted:
        return Adapted(rewarded, how, config.inner, config.seed, asks, recorder)

    if how.kind == "answers":
        return by_answers
    author = Policy(policy, replace(rewarded, prompt=PROMPT), config.sampling)

    def by_own_questions(recorder: Recorder) -> OwnQuestions:
        def questions(items: Sequence[Any]) -> Mapping[str, str]:
            found = write(author, items, 1, Stage(TRAIN, QUESTIONS, 0), (config.seed, 0), recorder)
            # The prompt ends with 'Question 1:', which the text goes on from.
            return {item: f"Question 1:{edit.text or ''}" for item, [edit] in found.items()}

        return OwnQuestions(by_answers(recorder), questions)

    return by_own_questions


def raters(config: Config, policy: Actor, domain: Domain) -> tuple[Callable[[Sequence[str]], list[Rating]], str]:
    """(what rates requests, its name): a model here, or one behind an endpoint."""
    judge = config.reward.judge
    if judge.kind == "remote":
        endpoint = connect("judge", judge.url, judge.model, judge.key, Patience())

        def ask(requests: Sequence[str]) -> list[Rating]:
            replies = endpoint.ask(requests, lambda reply: parse_ratings(reply.text), temperature=0)
            return [(None, str(reply)) if isinstance(reply, Missing) else (reply, None) for reply in replies]

        return judging.from_first_host(ask), f"remote:{judge.model}"
    actor = load_actor(judge.model, config) if judge.model else policy
    writer = Policy(actor, domain, Sampling(temperature=0.0, top_p=1.0, max_new_tokens=RATING_TOKENS))

    def rate(requests: Sequence[str]) -> list[Rating]:
        prompts = [Prompt(request + ("" if actor.chat else "\n\nlength:"), actor.chat) for request in requests]
        found = writer.complete(prompts, [[(0,)]] * len(prompts)) if prompts else []
        ratings = [parse_ratings(edit.text if actor.chat else f"length:{edit.text}") for [edit] in found]
        return [(rating, None if rating else "unreadable reply") for rating in ratings]

    return rate, f"local:{judge.model or config.model.policy}"
