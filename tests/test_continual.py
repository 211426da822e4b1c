"""Continual self-edits: the matrix against explicit merges, what each control of forgetting does, and resuming."""


import numpy as np
import pytest
import tiny_run
from etils import epath
from tiny_run import pick

from seal_jax import config as config_lib
from seal_jax import seeds
from seal_jax.engine.recipe import recipe
from seal_jax.experiments import assemble
from seal_jax.runs import keys
from seal_jax.runs.records import read
from seal_jax.student.ask import ask
from seal_jax.student.train import Loop, adapter_of, candidate, train

PASSAGES, SEQUENCES = 3, 2
CONTROLS = {"merge_scale": 0.5, "replay": 1, "replay_objective": "kl", "gate": 0.02}


def tiny_values(home, **changes):
    values = config_lib.defaults("knowledge", "continual")
    usual = tiny_run.tiny_values(home)
    for group in ("model", "sampling", "inner", "engine"):
        values[group] = usual[group]
    values["knowledge"] |= {"max_sequences": 2}
    values["data"] |= {"evaluation": str(home / "evaluation.json"), "evaluation_items": 4}
    values["continual"] |= {"passages": PASSAGES, "sequences": SEQUENCES, "past_rank": 4}
    values["evaluation"] |= {"answer_tokens": 4}
    for group, fields in changes.items():
        values[group] = values[group] | fields
    return values


@pytest.fixture(scope="module")
def den(home, tmp_path_factory):
    """The folder `home` with four passages to learn from."""
    folder = tmp_path_factory.mktemp("den")
    for name in ("policy", "cache"):
        (folder / name).symlink_to((home / name).resolve())
    tiny_run.make_passages(folder / "evaluation.json", "Du", 4)
    return folder


def finished(values, actors, workdir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_actor", actors)
        tiny_run.run(values, workdir)
    return values, workdir


@pytest.fixture(scope="module")
def itself(den, actors, tmp_path_factory):
    """A run whose model writes the self-edits as it stands, without any control."""
    return finished(tiny_values(den), actors, tmp_path_factory.mktemp("runs") / "itself")


@pytest.fixture(scope="module")
def controlled(den, actors, tmp_path_factory):
    """A run on the passages' sentences, without and with all controls."""
    values = tiny_values(den, continual={"author": "sentences", **CONTROLS})
    return finished(values, actors, tmp_path_factory.mktemp("runs") / "controlled")


def records(workdir):
    return tiny_run.records(workdir) | {"updates": read(workdir / "updates.jsonl")}


def prepared(run, actors, folder):
    """The setup of a run, with records of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_actor", actors)
        return assemble.prepare(config_lib.from_dict(run[0]), epath.Path(folder))


def asked(actor, domain, items):
    """{item: (answers, log-likelihoods)} of a model without adapters."""
    said = ask(actor, None, [domain.quiz(item, actor.chat) for item in items], 4)
    return {item.id: (one.texts, one.log_likelihood) for item, one in zip(items, said, strict=True)}


def test_the_matrix_is_that_of_explicit_merges(itself, actors, tmp_path):
    """Sequence by sequence, each update merged into weights of the sequence's own before the next one."""
    setup, found = prepared(itself, actors, tmp_path), records(itself[1])
    inner, lora = setup.config.inner, recipe(setup.config.inner).lora
    trials = {tuple(trial[field] for field in keys.TRIAL): trial for trial in found["trials"]}
    texts = {(edit["round"], edit["sample"]): edit for edit in found["self_edits"]}
    order = {(one["round"], one["sequence"]): one["item"] for one in found["updates"]}
    items = {item.id: item for item in setup.evaluation}
    base = asked(setup.policy, setup.domain, list(items.values()))
    for trial in pick(found["trials"], arm="base"):
        np.testing.assert_allclose(trial["log_likelihood"], base[trial["item"]][1], atol=1e-4)
    for sequence in range(SEQUENCES):
        actor, seen = setup.policy, []
        for number in range(1, PASSAGES + 1):
            item = items[order[number, sequence]]
            seen.append(item)
            edit = texts[number, sequence]
            assert edit["item"] == item.id
            [written] = setup.writes(actor).write([item], 1, (0, number))
            assert written[item.id][0].text == edit["text"]
            lesson = setup.domain.lesson(item, edit["text"], (), len)
            loop = Loop(lesson, seeds.adapter(0, number, item, sequence), seeds.order(0, number, 0))
            adapters = train(actor, [candidate(actor, loop, inner)], inner)
            actor = actor.with_adapter(adapter_of(actor, adapters, 0), lora)
            now = asked(actor, setup.domain, seen)
            stage = keys.Stage(keys.EVALUATION, keys.CONTINUAL, number, keys.ANSWER)
            for one in seen:
                trial = trials[stage.trial(one.id, sequence, 0)]
                assert trial["answers"] == now[one.id][0]
                np.testing.assert_allclose(trial["log_likelihood"], now[one.id][1], atol=2e-3)
            assert abs(now[seen[0].id][1][0] - base[seen[0].id][1][0]) > 0.01  # it did learn
    assert len(trials) == len(items) + SEQUENCES * (1 + 2 + 3) and len(order) == SEQUENCES * PASSAGES
