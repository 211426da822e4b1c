"""examples/seal_in_one_file.py computes what the driver computes: the same texts, rewards, choices and weights."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_checkpoint import random_params, tiny_config, tiny_tokenizer

from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.inner.sampling import Sampling, sample_token
from seal_jax.model.hf_config import model_config
from seal_jax.model.lora import LoraConfig, merge
from seal_jax.model.pretrained import load, save_merged
from seal_jax.runs import checkpoint
from seal_jax.runs.records import read

FILE = Path(__file__).resolve().parents[1] / "examples" / "seal_in_one_file.py"
LORA = LoraConfig(2, 4.0, tiny_run.ALL)
ROUNDS, RETRAINS, TOLERANCE = 2, 2, 1e-4


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("seal_in_one_file", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Passages to learn from and to evaluate on, and a model that often ends a line and sometimes a text."""
    folder = tmp_path_factory.mktemp("one_file")
    hf, tokenizer = tiny_config("llama"), tiny_tokenizer()
    params = random_params(hf)
    likely = [token for token in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([token])]
    params["lm_head"]["kernel"][:, [*likely, *tokenizer.stop_ids]] *= 3
    save_merged(folder / "policy", params, model_config(hf, "config"), tokenizer, hf)
    return {
        "policy": str(folder / "policy"),
        "train": tiny_run.make_passages(folder / "train.json", "Bo", 3),
        "evaluation": tiny_run.make_passages(folder / "evaluation.json", "Cu", 2),
    }


@pytest.fixture(scope="module")
def both(example, files, home, actors, tmp_path_factory):
    """(table and rounds as the example returns them, folder of the driver's run) with the same settings."""
    settings = example.Settings(
        model=files["policy"], chat=False, rounds=ROUNDS, samples=3, retrains=RETRAINS, seed=8, temperature=0.9,
        top_p=0.9, edit_tokens=8, answer_tokens=4, likelihood_weight=1.0, lora=LORA, inner=(1e-2, 2, 1),
        outer=(3e-2, 2, 2),
    )  # fmt: skip
    items = (json.loads(Path(files[part]).read_text()) for part in ("train", "evaluation"))
    rows = list(example.seal(settings, *items))
    table = {name: results for name, results, _, _ in rows}
    rounds = [(policy, tried) for _, _, policy, tried in rows[2:]]
    values = tiny_run.tiny_values(
        home,
        seed=8,
        model={"policy": files["policy"]},
        data={"train": files["train"], "evaluation": files["evaluation"], "train_items": 3, "heldout_fraction": 0.0,
              "shuffle_seed": -1},
        knowledge={"max_sequences": 30},
        sampling={"temperature": 0.9, "top_p": 0.9},
        reward={"accuracy_weight": 1.0, "retrains": RETRAINS},
        outer={"rounds": ROUNDS, "samples": 3, "random_control": False, "unfinished": "cut"},
        evaluation={"samples": 1, "retrains": 1},
    )  # fmt: skip
    workdir = tmp_path_factory.mktemp("runs") / "one_file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seal_jax.experiments.assemble.load_actor", actors)
        patch.setattr("seal_jax.report.watch.Watch.after_rows", lambda self, rows: None)
        tiny_run.run(values, workdir)
    return table, rounds, workdir


def test_the_driver_writes_the_same_self_edits(both):
    _, rounds, workdir = both
    records = [record for record in read(workdir / "self_edits.jsonl") if record["split"] == "train"]
    theirs = [(record["round"], record["text"], record["finished"]) for record in records]
    ours = [
        (number, text, finished)
        for number, (_, tried) in enumerate(rounds, 1)
        for item in tried
        for text, finished in item["edits"]
    ]
    assert sorted(ours) == sorted(theirs)
    assert len(set(ours)) > len(ours) // 2
    assert {finished for _, _, finished in ours} == {True, False}


def test_the_driver_gives_the_same_rewards_and_chooses_the_same(both):
    _, rounds, workdir = both
    theirs = read(workdir / "rollouts.jsonl")
    ours = [item for _, tried in rounds for item in tried]
    assert [record["round"] for record in theirs] == [1, 1, 1, 2, 2, 2]
    rewards = [item["rewards"] for item in ours]
    np.testing.assert_allclose(rewards, [record["rewards"] for record in theirs], rtol=0, atol=TOLERANCE)
    between = [np.diff(sorted(values)).min() for values in rewards]
    assert min(between) > 3 * TOLERANCE  # so that choices do not depend on the tolerance
    assert [item["chosen"] for item in ours] == [record["chosen"] for record in theirs]
    assert len({k for item in ours for k in item["chosen"]}) > 1


def test_the_driver_learns_the_same_weights(both, files):
    _, rounds, workdir = both
    weights = load(files["policy"], "float32").params
    for number, (policy, _) in enumerate(rounds, 1):
        before, weights = weights, merge(weights, checkpoint.load(workdir / "checkpoints" / "SEAL", number), LORA)
        jax.tree.map(
            lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE),
            policy.variables["params"],
            weights,
        )
        moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), weights, before)
        assert max(jax.tree.leaves(moved)) > 100 * TOLERANCE


def test_the_driver_has_the_same_table(both):
    table, _, workdir = both
    rows = {row["name"]: (row["arm"], row["round"]) for row in read(workdir / "rows.jsonl")}
    items = [record["item"] for record in read(workdir / "items.jsonl") if record["split"] == "evaluation"]
    trials = read(workdir / "trials.jsonl")
    assert list(table) == ["base", "self-edits, no RL", "SEAL, round 1", "SEAL, round 2"]
    for name, results in table.items():
        theirs = {
            trial["item"]: (np.mean(trial["correct"]), np.mean(trial["log_likelihood"]))
            for trial in trials
            if trial["split"] == "evaluation" and (trial["arm"], trial["round"]) == rows[name]
        }
        np.testing.assert_allclose(results, [theirs[item] for item in items], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("chat", [False, True])
def test_texts_become_the_same_tokens_as_in_the_driver(example, chat, tmp_path):
    passage = {
        "title": "Arlo {x}",
        "context": "The ferry to Arlo leaves at 7:45.",
        "questions": [{"question": "When?", "answer": "at 7:45"}, {"question": "Where to?", "answer": "Arlo"}],
    }
    tokenizer = tiny_tokenizer()
    model = example.Model(None, tokenizer, {}, chat)
    domain = Knowledge("implications", Rules("chat" if chat else "plain", closing=chat), 1e-3, 1, lambda items: [])
    theirs = tokenizer.with_system("")
    (tmp_path / "passages.json").write_text(json.dumps([passage]))
    [item] = load_passages(str(tmp_path / "passages.json"))
    assert model.prompt(example.edit_prompt(passage, chat), chat) == theirs.encode_prompt(
        domain.edit_prompt(item, chat)
    )
    quiz = domain.quiz(item, chat)
    for question, asked in zip(passage["questions"], quiz.prompts, strict=True):
        ours = model.prompt(example.question_prompt(passage, question["question"], chat), chat)
        assert ours == theirs.encode_prompt(asked)
    for edit in ("", "Facts:\n1. One.\n\n2) Two.\n---\n- Three.\n***", "One---two\n\nthree\n" * 20):
        ours = [model.example(*pair, end=chat) for pair in example.training_data(passage, edit, chat)]
        lesson = domain.lesson(item, edit, (0,), len)
        assert ours == [theirs.encode_example(one) for one in lesson.examples]


def test_answers_are_right_that_have_all_words_of_the_gold_ones(example, files, monkeypatch):
    loaded = load(files["policy"], "float32")
    model = example.Model(example.Transformer(loaded.config, 2.0), loaded.tokenizer, {"params": loaded.params}, False)
    golds = ["at 7:45", "pier 12", "7:450", "The Ferry"]
    passage = {"title": "Arlo", "context": "-", "questions": [{"question": "What?", "answer": gold} for gold in golds]}
    said = loaded.tokenizer.encode("The ferry, at 7:45. It has a pier!")
    monkeypatch.setattr(example, "generate", lambda model, prompts, *rest: [said] * len(prompts))
    assert example.ask(model, passage, 6)[0] == 0.5


@pytest.mark.parametrize("top_p", [0.6, 0.95, 1.0])
def test_a_token_is_drawn_as_the_engine_draws_it(example, top_p):
    logits = jax.random.normal(jax.random.key(3), (700,)) * 2
    keys = jax.random.split(jax.random.key(4), 100)
    theirs = jax.jit(jax.vmap(lambda key: sample_token(key, logits, Sampling(0.9, top_p, 0, ()))))(keys)
    ours = [example.nucleus(np.asarray(logits), key, 0.9, top_p) for key in keys]
    assert ours == theirs.tolist()
    assert len(set(ours)) > 5


def test_it_is_short_and_stands_alone():
    lines = FILE.read_text().splitlines()
    assert len(lines) <= 250
    used = {line.split()[1] for line in lines if line.startswith(("from seal_jax", "import seal_jax"))}
    models = ("lora", "pretrained", "tokenizer", "transformer")
    assert used == {"seal_jax.inner.sft", *(f"seal_jax.model.{name}" for name in models)}
