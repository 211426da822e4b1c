"""One arm of continual self-edits: its sequences of items, the self-edits about them, and the models that learn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seal_jax import seeds
from seal_jax.authors.fixed import Fixed
from seal_jax.config import Continual
from seal_jax.config.roles import policy_writes
from seal_jax.domains.domain import Control, Domain, Lesson
from seal_jax.engine.recipe import recipe
from seal_jax.experiments import writing
from seal_jax.experiments.rounds import Setup
from seal_jax.model.lora import LoraConfig
from seal_jax.outer.rollouts import edit_record, write
from seal_jax.runs.keys import CONTINUAL, EVALUATION, Stage
from seal_jax.student.past import Students, mean_losses, together


@dataclass(frozen=True)
class Course:
    """One arm: sequences of items, and how they are learned. learned: of each sequence, the adapters of its updates so
    far, as they were merged."""

    setup: Setup
    arm: str
    how: Continual
    sequences: Sequence[Sequence[Any]]
    learned: list[list[dict]]

    @property
    def lora(self) -> LoraConfig:
        return recipe(self.setup.config.inner).lora

    @property
    def rule(self) -> Control | None:
        """The control of the domain that writes the self-edits, where no model or file does."""
        return writing.rule(self.how.author, self.setup.domain)

    @property
    def domain(self) -> Domain:
        """As the author of the self-edits sees it."""
        return (self.rule and self.rule.domain) or self.setup.domain

    @property
    def writes_itself(self) -> bool:
        """Whether the self-edits are those of the model as it stands in each sequence."""
        return policy_writes(self.setup.config) and self.setup.student is None

    def students(self, members: Sequence[int], learned: Sequence[Sequence[dict]]) -> Iterator[Students]:
        """The models of some sequences by what they have learned, those together that can be."""
        actor = self.setup.student_of(self.setup.policy)
        room = min(self.how.past_rank // self.lora.rank, self.how.passages)
        for part in together(actor, learned, self.lora, room):
            yield replace(part, numbers=tuple(members[i] for i in part.numbers))

    def checkpoints(self, sequence: int) -> str:
        return f"{self.setup.recorder.checkpoints}/{self.arm}/{sequence}"


def write_next(course: Course, number: int) -> None:
    """See that the self-edits of every sequence's next passage are in the records."""
    setup, seed = course.setup, (course.setup.config.seed, number)
    if not course.writes_itself:
        author = Fixed(course.rule.text) if course.rule else setup.teaches(setup.policy)
        used = {item.id: item for items in course.sequences for item in items}
        write(author, list(used.values()), 1, Stage(EVALUATION, CONTINUAL, 0), (seed[0], 0), setup.recorder)
        return
    stage, ledger = Stage(EVALUATION, course.arm, number), setup.recorder.edits
    wanted = [stage.edit(items[number - 1].id, s) for s, items in enumerate(course.sequences)]

    def groups() -> Iterator[list[dict]]:
        for s, key in enumerate(wanted):
            if ledger.has_all([key]):
                continue
            item = course.sequences[s][number - 1]
            for part in course.students([s], [course.learned[s]]):
                author = setup.teaches(part.actor.with_adapter(part.past[0], part.lora))
                [written] = author.write([item], 1, seed)
                yield [edit_record(stage, item.id, s, written[item.id][0])]

    setup.recorder.fill(stage, ledger, wanted, groups())


def lesson(course: Course, sequence: int, number: int) -> Lesson:
    """What the self-edit of a sequence's passage `number`, counted from 1, teaches."""
    setup, item = course.setup, course.sequences[sequence][number - 1]
    own = Stage(EVALUATION, course.arm, number).edit(item.id, sequence)
    key = own if course.writes_itself else Stage(EVALUATION, CONTINUAL, 0).edit(item.id, 0)
    actor = setup.student_of(setup.policy)
    text, seed = setup.recorder.edits[key]["text"], setup.config.seed
    if text is None:
        return Lesson(failure="its self-edit was not written")
    return course.domain.lesson(item, text, seeds.lesson(seed, number, item, sequence), actor.length)


def rise(course: Course, adapters: Mapping[int, dict], number: int) -> dict[int, float]:
    """By how much an update raises each sequence's loss on its earlier self-edits, in nats per token (STABLE, arXiv
    2510.16089, gates by such measures)."""
    members, actor = list(adapters), course.setup.student_of(course.setup.policy)
    rows = {
        s: [actor.row(example) for k in range(1, number) for example in lesson(course, s, k).examples] for s in members
    }
    members = [s for s in members if rows[s]]
    before, after = {}, {}
    for found, new in ((before, []), (after, [adapters])):
        learned = [course.learned[s] + [adapter[s] for adapter in new] for s in members]
        for part in course.students(members, learned) if members else ():
            found |= zip(part.numbers, mean_losses(part, [rows[s] for s in part.numbers]), strict=True)
    return {s: after[s] - before[s] for s in members}
