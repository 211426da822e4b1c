"""The proxy reward: a judge rates each self-edit by a rubric, and no student is trained (arXiv 2506.10943).

It costs a request instead of inner loops. In the authors' released files its rank correlation with the true reward is
only about .09 within a passage: it is there to compare with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seal_jax.authors.author import SelfEdit
from seal_jax.errors import UserError
from seal_jax.judges.rubric import rating_request, total
from seal_jax.rewards.reward import Scores, rounded
from seal_jax.runs.keys import RATE, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student.actor import Actor

AT_ONCE = 32  # requests, after which their ratings are recorded

Rating = tuple[dict[str, float] | None, str | None]  # by criterion; or why there is none


@dataclass(frozen=True)
class Rubric:
    """rate(requests) -> a rating each; name: of the judge, for records. See judges/rubric.py for what is rated.

    What could not be rated has no reward; it is recorded with the reason, and the report lists it.
    """

    rate: Callable[[Sequence[str]], list[Rating]]
    name: str
    recorder: Recorder

    def score(
        self, student: Actor, items: Sequence[Any], edits: Mapping[str, Sequence[SelfEdit]], stage: Stage
    ) -> dict[str, Scores]:
        """Raises UserError where the judge rates nothing at all, so that a run does not go on without rewards."""
        stage, ledger = replace(stage, purpose=RATE), self.recorder.ratings
        found = [(item, k, edit) for item in items for k, edit in enumerate(edits[item.id])]
        wanted = [stage.edit(item.id, k) for item, k, _ in found]
        left = [one for one, key in zip(found, wanted, strict=True) if not ledger.has_all([key])]
        self.recorder.fill(stage, ledger, wanted, self._groups(left, stage), lambda record: record["total"])
        return {
            item.id: Scores([ledger[stage.edit(item.id, k)]["total"] for k in range(len(edits[item.id]))])
            for item in items
        }

    def _groups(self, left: Sequence[tuple[Any, int, SelfEdit]], stage: Stage) -> Iterator[list[dict]]:
        for begin in range(0, len(left), AT_ONCE):
            chunk = left[begin : begin + AT_ONCE]
            asked = [one for one in chunk if (one[2].text or "").strip()]
            rated = self.rate([rating_request(item.title, item.context, edit.text) for item, _, edit in asked])
            if asked and all(ratings is None for ratings, _ in rated):
                raise UserError(
                    f"the judge {self.name} rated none of {len(asked)} self-edits ({rated[0][1]}); see that it works, "
                    "then start the same command again to continue"
                )
            given = {(item.id, k): rating for (item, k, _), rating in zip(asked, rated, strict=True)}
            yield [
                self._record(stage, item, k, *given.get((item.id, k), (None, edit.problem or "it holds no text")))
                for item, k, edit in chunk
            ]

    def _record(self, stage: Stage, item: Any, k: int, ratings: dict[str, float] | None, problem: str | None) -> dict:
        fields = {"split": stage.split, "arm": stage.arm, "round": stage.round, "item": item.id, "sample": k}
        value = None if ratings is None else rounded(total(ratings))
        return fields | {"judge": self.name, "ratings": ratings, "total": value, "problem": problem}
