"""ReST^EM (Singh et al. 2023) as SEAL uses it (arXiv 2506.10943, section 3.1).

The self-edits that earned most are selected, the policy is finetuned on them as on any text, and the result is merged
into its weights. No gradient flows through the reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seal_jax import seeds
from seal_jax.config import Training
from seal_jax.domains.domain import Example
from seal_jax.outer import select
from seal_jax.outer.improver import Update
from seal_jax.outer.rollouts import Rollout, by_item
from seal_jax.runs.ledger import Ledger
from seal_jax.student.actor import Actor
from seal_jax.student.merge import merge
from seal_jax.student.train import teach


class MStep:
    """What the improvers share: how to train, what becomes of self-edits that were cut off (see config.Outer), and that
    what is learned is merged into the policy."""

    training: Training
    unfinished: str

    def apply(self, policy: Actor, learned: dict) -> Actor:
        return merge(policy, learned, self.training)


@dataclass(frozen=True)
class RestEM(MStep):
    """Selects by reward. rule: one of select.RULES; unfinished: see config.Outer."""

    rule: str
    training: Training
    unfinished: str
    needs_rewards: bool = True

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        chosen = {item: select.RULES[self.rule](found) for item, found in teachable(rollouts, self.unfinished).items()}
        return finetune(policy, rollouts, chosen, self, seed)


@dataclass(frozen=True)
class RandomSelection(MStep):
    """The control: as many self-edits of each item as another arm's rule chose in the same round, at random.

    like: the rollouts of the run, and the arm to be compared with; None: one of each item.
    """

    training: Training
    unfinished: str
    like: tuple[Ledger, str] | None = None
    needs_rewards: bool = False

    def improve(self, policy: Actor, rollouts: Sequence[Rollout], seed: tuple[int, int]) -> Update:
        chosen = {}
        for item, found in teachable(rollouts, self.unfinished).items():
            count = 1 if self.like is None else len(self.like[0][self.like[1], seed[1], item]["chosen"])
            chosen[item] = select.at_random(found, count, f"{seed[0]}/{seed[1]}/{item}")
        return finetune(policy, rollouts, chosen, self, seed)


def finetune(
    policy: Actor,
    rollouts: Sequence[Rollout],
    chosen: Mapping[str, list[int]],
    how: MStep,
    seed: tuple[int, int],
    weights: Mapping[tuple[str, int], float] | None = None,
) -> Update:
    """M-step: SFT on the chosen self-edits after their prompts, loss on the self-edit and its end only.

    weights: {(item id, sample): how much it counts, compared with the others}; alike without them.
    """
    picked = [rollout for rollout in rollouts if rollout.sample in chosen[rollout.item.id]]
    lessons = [example(rollout, how.unfinished) for rollout in picked]
    if not lessons:
        return Update(None, dict(chosen), {"lessons": 0})
    counts = None
    if weights is not None:
        each = [weights[rollout.item.id, rollout.sample] for rollout in picked]
        counts = [weight * len(each) / sum(each) for weight in each]  # 1 on average, so that losses are per token
    learned, loss = teach(policy, lessons, how.training, seeds.teach(*seed), counts)
    return Update(learned, dict(chosen), {"lessons": len(lessons), "loss": loss})


def teachable(rollouts: Sequence[Rollout], unfinished: str) -> dict[str, list[Rollout]]:
    """{item id: those of its rollouts from which the policy can be taught}."""
    return {
        item: [rollout for rollout in found if example(rollout, unfinished) is not None]
        for item, found in by_item(rollouts).items()
    }


def example(rollout: Rollout, unfinished: str) -> Example | None:
    """What the policy is taught of a self-edit; None where it is invalid or empty.

    One that was cut off is taught by its whole lines ('cut'), without an end ('open'), or not at all ('drop').
    """
    text = rollout.edit.text
    if rollout.edit.problem is not None or not text.strip():
        return None
    if rollout.edit.finished:
        return Example(rollout.prompt, text, closing=True)
    if unfinished == "open":
        return Example(rollout.prompt, text, closing=False)
    whole = text[: text.rfind("\n") + 1].rstrip()
    return Example(rollout.prompt, whole, closing=True) if unfinished == "cut" and whole.strip() else None
