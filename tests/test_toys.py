"""What the interfaces promise: a new domain, reward, author or improver is one small file, and no other file changes.

Each of the toys in toys/ runs through the whole loop on a tiny model, and its records show what it did.
"""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from etils import epath
from toys.author import Turned
from toys.domain import Sum, Sums
from toys.improver import Soup
from toys.reward import Variety, variety

from seal_jax import config, seeds
from seal_jax.domains.domain import Example, Prompt
from seal_jax.engine.programs import enable_cache
from seal_jax.experiments import assemble, rounds
from seal_jax.experiments.rounds import Arm
from seal_jax.experiments.world import World
from seal_jax.runs import checkpoint
from seal_jax.student.train import teach

TRAIN, EVALUATION = (Sum(12, 30), Sum(25, 16)), (Sum(31, 18), Sum(44, 27))


@pytest.fixture
def made(fast, home, tmp_path):
    """The setup of a short run of sums, whose policy, reward and improver are the package's own."""
    values = tiny_run.tiny_values(home, outer={"random_control": False})
    enable_cache(values["engine"]["cache"])
    setting = config.from_dict(values)
    world = World(TRAIN, EVALUATION, lambda judge: Sums(3e-2, 4))
    setup = assemble.assemble(setting, epath.Path(tmp_path), world)
    yield setup
    setup.recorder.close()


def run(setup):
    """(last policy, rows as they were finished)."""
    rows = []
    policy = rounds.run(setup, rows.extend)
    assert rows == [(row["arm"], row["round"]) for row in setup.recorder.rows.all()]
    return policy, rows


def trials(setup, **fields):
    found = setup.recorder.trials.all()
    return [trial for trial in found if all(trial[name] == value for name, value in fields.items())]


@pytest.mark.parametrize("toy", ["domain", "reward", "author", "improver"])
def test_a_toy_is_under_60_lines(toy):
    assert len((Path(__file__).parent / "toys" / f"{toy}.py").read_text().splitlines()) < 60


def test_a_toy_domain(made):
    policy, rows = run(made)
    assert rows == [("base", 0), ("told", 0), ("SEAL", 0), ("SEAL", 1)]
    items = made.recorder.items.all()
    assert [(item["split"], item["title"], item["total"]) for item in items] == [
        ("train", "12+30", "42"), ("train", "25+16", "41"),
        ("evaluation", "31+18", "49"), ("evaluation", "44+27", "71"),
    ]  # fmt: skip
    base = {trial["item"]: trial["log_likelihood"][0] for trial in trials(made, arm="base")}
    told = {trial["item"]: trial["log_likelihood"][0] for trial in trials(made, arm="told")}
    assert all(told[item] > base[item] + 1 for item in base)  # who was told the sum knows it better
    assert {trial["judge"] for trial in trials(made, arm="base")} == {"arithmetic"}
    edits = made.recorder.edits.all()
    assert len(edits) == 16 and all((edit["problem"] is not None) == ("o" in edit["text"]) for edit in edits)
    assert made.recorder.rollouts.all()[0]["base"] == 0.0  # the gain of the untrained student
    assert policy.base is not made.policy.base


def test_a_toy_reward(made):
    run(replace(made, reward=Variety()))
    edits = made.recorder.edits.all()
    for record in made.recorder.rollouts.all():
        own = [edit for edit in edits if edit["item"] == record["item"]]
        earned = [variety(edit["text"]) for edit in own]
        assert record["rewards"] == earned and record["base"] == 0.0
        valid = [k for k, edit in enumerate(own) if edit["problem"] is None and edit["text"].strip()]
        assert record["chosen"] == sorted(valid, key=lambda k: -earned[k])[:1]
    assert trials(made, split="train") == []  # no student was trained for it


def test_a_toy_author(made):
    run(replace(made, writes=lambda policy: Turned(), teaches=lambda policy: Turned(reverse=False)))
    texts = {(edit["split"], edit["item"], edit["sample"]): edit["text"] for edit in made.recorder.edits.all()}
    assert texts["train", "12+30", 1] == "2+301" and texts["evaluation", "31+18", 1] == "1+138"
    phases = made.recorder.phases.all()
    assert [phase["lessons"] for phase in phases if phase["purpose"] == "finetuning"] == [2]
    found = trials(made, item="31+18", sample=0)
    rows = {f"{trial['arm']}{trial['round']}": trial["log_likelihood"] for trial in found}
    assert rows["SEAL0"] != rows["base0"] and rows["SEAL0"] != rows["SEAL1"]  # the same text, another policy


def test_a_toy_improver(made):
    sft = made.config.outer.sft
    policy, _ = run(replace(made, arms=[Arm("SEAL", Soup(sft))]))
    edits = {(edit["item"], edit["sample"]): edit for edit in made.recorder.edits.all() if edit["split"] == "train"}
    apart = []
    for item in TRAIN:
        prompt = Prompt(f"Of {item.id}:", False)
        lessons = [Example(prompt, edits[item.id, k]["text"], edits[item.id, k]["finished"]) for k in (0, 1)]
        apart.append(teach(made.policy, lessons, sft, seeds.teach(0, 1))[0])
    learned = checkpoint.load(f"{made.recorder.checkpoints}/SEAL", 1)
    jax.tree.map(lambda mean, a, b: np.testing.assert_allclose(mean, (a + b) / 2, atol=1e-5), learned, *apart)
    record = made.recorder.rollouts.all()[0]
    assert record["chosen"] == [0, 1] and record["rewards"] is None and trials(made, split="train") == []
    [phase] = [phase for phase in made.recorder.phases.all() if phase["purpose"] == "finetuning"]
    assert len(phase["losses"]) == 2
    kernel, before = policy.base["layers"]["q_proj"]["kernel"], made.policy.base["layers"]["q_proj"]["kernel"]
    factors = learned["layers"]["q_proj"]
    effect = np.einsum("LDR,LRF->LDF", factors["A"], factors["B"]) * sft.alpha / sft.rank
    np.testing.assert_allclose(kernel, before + effect, atol=1e-5)
