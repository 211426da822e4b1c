"""From configs to worlds: that every field of the domain's group arrives where it is read."""

import json

import pytest
import tiny_run
from plain_engine import plain_actor
from tiny_checkpoint import tiny_tokenizer

from seal_jax import config
from seal_jax.domains.arc.grammar import Grammar
from seal_jax.domains.knowledge import prompts
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.errors import UserError
from seal_jax.experiments import arc, assemble, knowledge


def test_knowledge(home):
    values = tiny_run.tiny_values(home, knowledge={
        "prompt": "rewrite", "form": "chat", "split_newlines": False, "max_sequences": 7, "include_passage": False,
        "closing": True, "chain_of_thought": False, "split_sentences": True,
    })  # fmt: skip
    world = knowledge.world(config.from_dict(values))
    assert [passage.context for passage in world.train] != [passage.context for passage in world.evaluation]
    assert {passage.context for passage in world.train} == {"The ferry to Bo0.", "The ferry to Bo1."}
    assert (world.chat_only, world.attempts, world.grammar(None), world.note) == (True, 1, None, "")
    domain = world.domain("a judge")
    assert domain.rules == Rules("chat", False, 7, False, True, False, True) and domain.judge == "a judge"
    assert domain.prompt == prompts.resolve("rewrite")
    assert (domain.learning_rate, domain.epochs) == (1e-2, 2)
    plain = knowledge.world(config.from_dict(tiny_run.tiny_values(home, knowledge={"chain_of_thought": True})))
    assert not plain.chat_only and plain.domain(None).rules.chain_of_thought


def test_questions_are_held_out_by_the_seed_of_the_run(home):
    def held(seed):
        values = tiny_run.tiny_values(home, seed=seed)
        return [[q.heldout for q in p.questions] for p in knowledge.world(config.from_dict(values)).train]

    assert len({str(held(seed)) for seed in range(6)}) > 1


def other_values(home, experiment, **changes):
    values = config.defaults("knowledge", experiment)
    values["data"] |= {"evaluation": tiny_run.make_passages(home / "five.json", "Du", 5), "evaluation_items": 4}
    values[experiment] |= changes
    return values


def test_other_experiments_ask_about_the_evaluation_alone(tmp_path):
    world = knowledge.world(config.from_dict(other_values(tmp_path, "grid")))
    assert (len(world.train), len(world.evaluation), world.note, world.neutral) == (0, 4, "", ())
    world = knowledge.world(config.from_dict(other_values(tmp_path, "continual", passages=4)))
    assert (len(world.train), len(world.evaluation), world.note) == (0, 4, "")
    with pytest.raises(UserError, match="config.continual.passages: is 5, but config.data.evaluation gives 4"):
        knowledge.world(config.from_dict(other_values(tmp_path, "continual", passages=5)))


def test_passages_without_a_question_are_learned_and_not_asked_about(tmp_path):
    world = knowledge.world(config.from_dict(other_values(tmp_path, "pretraining", questions=2)))
    assert world.note == "" and sum(len(passage.questions) for passage in world.evaluation) == 2
    assert all(passage.questions for passage in world.evaluation) and not any(p.questions for p in world.train)
    contexts = {passage.context for passage in (*world.train, *world.evaluation)}
    assert len(contexts) == len(world.train) + len(world.evaluation) == 4 and len(world.train) >= 2


@pytest.fixture
def tasks(tmp_path):
    """A file of ARC tasks: sides 2, 3 and 5."""
    grids = {side: [[(row + column) % 3 for column in range(side)] for row in range(side)] for side in (2, 3, 5)}
    pair = {side: {"input": grid, "output": grid} for side, grid in grids.items()}
    made = {f"side{side}": {"train": [one] * 2, "test": [one]} for side, one in pair.items()}
    (tmp_path / "tasks.json").write_text(json.dumps(made))
    return str(tmp_path / "tasks.json")


def arc_values(tasks, **changes):
    values = config.defaults("arc")
    values["data"] |= {"train": tasks, "evaluation": tasks, "train_items": 1, "evaluation_items": 2}
    values["arc"] |= {"train_ids": ("side2",), "evaluation_ids": ("side5", "side3", "side2")} | changes
    return values


def test_arc(tasks):
    values = arc_values(tasks, blanks=False, examples=9, example_tokens=99, most_steps=19, attempts=3, most_epochs=4,
                        least_rate=2e-5, most_rate=2e-3, oracle_rate=3e-4, oracle_epochs=6, largest_side=4,
                        vote="reference")  # fmt: skip
    values["seed"], values["evaluation"]["samples"] = 3, 8
    values["inner"] |= {"batch_size": 2, "accumulation": 5}
    world = arc.world(config.from_dict(values))
    chosen = [[task.id for task in tasks] for tasks in (world.train, world.evaluation)]
    assert chosen == [["side2"], ["side3", "side2"]]
    assert world.attempts == 3 and world.chat_only and world.grammar("a policy") is None
    domain = world.domain(None)
    assert (domain.form.separator, domain.form.closing, domain.batch, domain.seed) == ("", True, 10, 3)
    assert (domain.limits.examples, domain.limits.tokens, domain.limits.steps) == (9, 99, 19)
    settings = domain.settings
    assert (settings.rates, settings.epochs, settings.samples) == ((2e-5, 2e-3), (1, 4), 8)
    assert (settings.oracle_rate, settings.oracle_epochs, domain.vote) == (3e-4, 6, "reference")
    assert arc.world(config.from_dict(arc_values(tasks))).domain(None).form.separator == " "


@pytest.mark.parametrize("role", ["train", "evaluation"])
def test_tasks_that_are_not_there_are_named_with_their_field(tasks, role):
    values = arc_values(tasks)
    values["data"][role] = tasks + ".none"
    with pytest.raises(UserError, match=f"config.data.{role}"):
        arc.world(config.from_dict(values))
    with pytest.raises(UserError, match=f"config.*{role}_ids"):
        arc.world(config.from_dict(arc_values(tasks, **{f"{role}_ids": ("unknown",)})))


def test_a_grammar_where_decoding_is_constrained(tasks):
    values = arc_values(tasks, constrained=True, most_epochs=4)
    values["sampling"]["max_new_tokens"] = 250
    policy = plain_actor()
    policy.source.config.vocab_size = tiny_tokenizer().vocab_size
    world = arc.world(config.from_dict(values))
    found = world.grammar(policy)
    assert isinstance(found, Grammar)
    values["sampling"]["max_new_tokens"] = 5
    with pytest.raises(UserError, match="max_new_tokens|tokens"):
        arc.world(config.from_dict(values)).grammar(policy)


@pytest.mark.parametrize("domain", ["knowledge", "arc"])
def test_prepare_takes_the_world_of_the_domain(home, tasks, tmp_path, monkeypatch, domain):
    monkeypatch.setattr(assemble, "assemble", lambda setting, path, world: (path, world))
    values = tiny_run.tiny_values(home) if domain == "knowledge" else arc_values(tasks)
    path, world = assemble.prepare(config.from_dict(values), tmp_path)
    assert path == tmp_path and type(world.train[0]).__name__ == {"knowledge": "Passage", "arc": "ArcTask"}[domain]
