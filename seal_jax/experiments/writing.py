"""From a config to the authors beside the policy: a file, a teacher behind an endpoint, EntiGraph."""

from collections.abc import Callable
from typing import Any, NamedTuple

from seal_jax.authors.author import Author, Writer
from seal_jax.authors.endpoint import Teacher
from seal_jax.authors.entigraph import EntiGraph
from seal_jax.authors.file import Completions, File, with_the_item
from seal_jax.authors.policy import Policy
from seal_jax.config import Config
from seal_jax.config.roles import asked_authors, teacher_is_asked
from seal_jax.domains.domain import Control, Domain
from seal_jax.domains.knowledge.released import Index, load_written
from seal_jax.judges.endpoint import Patience, connect
from seal_jax.student.actor import Actor


class Need(NamedTuple):
    """Self-edits that an author is to write: `count` of each item of `source`, as `field` of the config says."""

    source: str
    field: str
    count: int


Make = Callable[[str, Actor, Need], Author]  # (who, the policy of the round, what is needed) -> author


def of_rows(config: Config) -> Need:
    """What a row of the table is measured by."""
    return Need(config.data.evaluation, "evaluation.samples", config.evaluation.samples)


def of_lessons(config: Config) -> Need:
    """What the experiment learns from."""
    return {
        "rounds": Need(config.data.train, "outer.samples", config.outer.samples),
        "pretraining": Need(config.data.evaluation, "pretraining.samples", max(config.pretraining.samples)),
        "continual": Need(config.data.evaluation, "continual.author", 1),
        "grid": Need(config.data.evaluation, "grid.samples", config.grid.samples),
    }[config.experiment]


def maker(config: Config, domain: Domain, writes: Callable[[Actor], Policy]) -> Make:
    """What makes the author that a config calls 'policy', 'file', 'endpoint' or 'entigraph'.

    Files are read, and keys looked for, here, where the config asks for them. Raises UserError for what is wrong.
    """
    how = config.authors
    find = _finder(how.file) if "file" in asked_authors(config) and how.file else None
    teacher = None
    if teacher_is_asked(config):
        patience = Patience(how.endpoint.concurrency, how.endpoint.retries, how.endpoint.timeout)
        endpoint = connect("teacher", how.endpoint.url, how.endpoint.model, how.endpoint.key, patience)
        teacher = Teacher(endpoint, domain, config.sampling)

    def make(who: str, policy: Actor, need: Need) -> Author:
        if who == "file":
            return File(how.file if find else need.source, find or with_the_item, need.field)
        if who == "endpoint":
            return teacher
        if who == "entigraph":
            own = how.entigraph.writer == "policy"
            writer: Writer = writes(policy) if own else teacher
            return EntiGraph(writer, how.entigraph, chat=policy.chat if own else True)
        return writes(policy)

    return make


def rule(who: str, domain: Domain) -> Control | None:
    """The control of the domain that writes as 'sentences' or 'passage'; None for all others."""
    named = {"sentences": "sentences", "passage": "passage only"}.get(who)
    return next((control for control in domain.controls() if control.name == named), None)


def row_name(who: str, config: Config) -> str:
    """What the row of an author beside the policy is called in the table."""
    how = config.authors
    by = f" by {how.endpoint.model}" if how.entigraph.writer == "endpoint" else ""
    return {"file": "self-edits of a file", "endpoint": f"self-edits by {how.endpoint.model}",
            "entigraph": f"EntiGraph{by}"}[who]  # fmt: skip


def _finder(path: str) -> Callable[[Any], Completions]:
    index = Index(load_written(path))

    def find(item: Any) -> Completions:
        entry = index.find(item.title, item.context)
        return Completions() if entry is None else Completions(entry.texts, entry.prompt)

    return find
