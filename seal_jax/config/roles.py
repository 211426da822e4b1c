"""Fields that contradict each other in who writes self-edits and in what they are worth; one line for each mistake."""

from typing import Any

from seal_jax.config.science import Authors, EntiGraph, Reward, Teacher

OF_ANSWERS = ("accuracy_weight", "likelihood_weight", "retrains", "allocation", "answer_tokens")
REMOTE_OR_LOCAL = ("local", "remote")


def author_of_lessons(config: Any) -> str:
    """Who writes what a config's experiment learns from."""
    named = {"rounds": config.outer, "pretraining": config.pretraining, "continual": config.continual,
             "grid": config.grid}  # fmt: skip
    return named[config.experiment].author


def asked_authors(config: Any) -> set[str]:
    """Everybody who writes self-edits in a config's experiment, under the names that the config gives them."""
    return {author_of_lessons(config), *config.evaluation.authors}


def teacher_is_asked(config: Any) -> bool:
    """Whether anything is written by the model behind `authors.endpoint`."""
    asked = asked_authors(config)
    return "endpoint" in asked or ("entigraph" in asked and config.authors.entigraph.writer == "endpoint")


def policy_writes(config: Any) -> bool:
    """Whether what is learned from is written by the policy, be it through EntiGraph."""
    author = author_of_lessons(config)
    return author == "policy" or (author == "entigraph" and config.authors.entigraph.writer == "policy")


def reward_asks(config: Any) -> bool:
    """Whether the reward's inner loops are asked questions, beside what they make of the gold answers."""
    return config.reward.accuracy_weight > 0 or config.outer.selection == "correct"


def of_authors(config: Any) -> list[str]:
    """Authors that nobody asks for, or that lack what they need."""
    authors, outer, found = config.authors, config.outer, []
    asked, teacher = asked_authors(config), teacher_is_asked(config)
    graph = "entigraph" in asked
    if not teacher and authors.endpoint != Teacher():
        found.append(_unasked("endpoint", config))
    if not graph and authors.entigraph != EntiGraph():
        found.append(_unasked("entigraph", config))
    if "file" not in asked and authors.file != Authors().file:
        found.append(_unasked("file", config))
    if teacher and not authors.endpoint.model:
        found.append("config.authors.endpoint.model: is empty; name the model that the endpoint is to run")
    if graph and not authors.entigraph.pairs + authors.entigraph.triples:
        found.append("config.authors.entigraph: pairs and triples are both 0; set one of them above 0")
    if outer.improver == "policy_gradient" and outer.author != "policy":
        found.append(
            "config.outer.improver: is 'policy_gradient', which learns from what the policy itself sampled, but "
            f"outer.author is {outer.author!r}; set that to 'policy', or the improver to 'rest_em'"
        )
    return found


def of_reward(config: Any) -> list[str]:
    """Fields that the chosen reward does not read, and choices that it cannot serve."""
    reward, usual, found = config.reward, Reward(), []
    if reward.kind == "rubric":
        found += [
            f"config.reward.{name}: is {getattr(reward, name)!r}, but reward.kind is 'rubric', which does not read it; "
            f"leave it at {getattr(usual, name)!r}"
            for name in OF_ANSWERS
            if getattr(reward, name) != getattr(usual, name)
        ]
        if reward.judge.kind not in REMOTE_OR_LOCAL:
            found.append(
                f"config.reward.judge.kind: is {reward.judge.kind!r}, which cannot rate texts, but reward.kind is "
                "'rubric'; set it to 'local' or 'remote'"
            )
        if config.outer.improver == "rest_em" and config.outer.selection in ("above_base", "correct"):
            found.append(
                f"config.outer.selection: is {config.outer.selection!r}, but reward.kind is 'rubric', by which nothing "
                "is known of an untrained student's answers; set it to 'best'"
            )
    if reward.kind == "own_questions" and config.data.heldout_fraction:
        found.append(
            "config.data.heldout_fraction: is above 0, but reward.kind is 'own_questions', which holds out all gold "
            "questions; leave it at 0"
        )
    return found


def _unasked(author: str, config: Any) -> str:
    place = f"config.authors.{author}: is set, but"
    if config.experiment == "rounds":
        return (
            f"{place} neither outer.author nor evaluation.authors asks for {author!r}; take it out, or name that "
            "author in one of them"
        )
    field = f"{config.experiment}.author"
    return f"{place} {field} does not ask for {author!r}; take it out, or set {field} to {author!r}"

