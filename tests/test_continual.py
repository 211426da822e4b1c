"""Continual self-edits: the matrix against explicit merges, what each control of forgetting does, and resuming."""


import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run
from etils import epath
from tiny_checkpoint import tiny_config
from tiny_run import pick

from seal_jax import config as config_lib
from seal_jax import seeds
from seal_jax.engine.engine import Engine
from seal_jax.engine.recipe import recipe
from seal_jax.errors import UserError
from seal_jax.experiments import assemble
from seal_jax.model.hf_config import model_config
from seal_jax.model.transformer import Transformer
from seal_jax.report import compared, forgetting, html, terminal
from seal_jax.report.compare import compare
from seal_jax.report.estimates import Estimate
from seal_jax.report.recorded import load
from seal_jax.runs import checkpoint, keys
from seal_jax.runs.records import read
from seal_jax.student import update
from seal_jax.student.ask import ask
from seal_jax.student.past import Students, nothing
from seal_jax.student.train import Loop, adapter_of, candidate, train

PASSAGES, SEQUENCES = 3, 2
CONTROLS = {"merge_scale": 0.5, "replay": 1, "replay_objective": "kl", "gate": 0.05}
TEXTS = ("The ferry to Du0.", "It's pier 12; def add.", "Étude, naïve, 日本.", "1999, 2024. Übung!")


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
    """The folder `home` with four passages to learn from, so different that to learn one is to forget another."""
    folder = tiny_run.share(home, tmp_path_factory.mktemp("den"))
    items = json.loads(Path(tiny_run.make_passages(folder / "evaluation.json", "Du", 4)).read_text())
    apart = [item | {"context": text} for item, text in zip(items, TEXTS, strict=True)]
    (folder / "evaluation.json").write_text(json.dumps(apart))
    return folder


@pytest.fixture(scope="module")
def itself(den, actors, tmp_path_factory):
    """A run whose model writes the self-edits as it stands, without any control."""
    return tiny_run.finished(tiny_values(den), actors, tmp_path_factory.mktemp("runs") / "itself")


@pytest.fixture(scope="module")
def controlled(den, actors, tmp_path_factory):
    """A run on the passages' sentences, without and with all controls."""
    values = tiny_values(den, continual={"author": "sentences", **CONTROLS})
    return tiny_run.finished(values, actors, tmp_path_factory.mktemp("runs") / "controlled")


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
                np.testing.assert_allclose(trial["log_likelihood"], now[one.id][1], atol=1e-3)
            moved = max(np.abs(np.subtract(now[one.id][1], base[one.id][1])).max() for one in seen)
            assert moved > 0.02  # it did learn
    assert len(trials) == len(items) + SEQUENCES * (1 + 2 + 3) and len(order) == SEQUENCES * PASSAGES


@jax.jit
def logits_of(params, tokens):
    return Transformer(model_config(tiny_config("llama"), "")).apply({"params": params}, tokens, method="full")


def log_probs(actor, row):
    """Logits and log-probabilities [T - 1, V] of all tokens but the first, of a model without adapters."""
    tokens = np.zeros((1, 48), np.int32)
    tokens[0, : len(row.tokens)] = row.tokens
    logits = np.asarray(logits_of(actor.base, tokens))[0, : len(row.tokens) - 1]
    return logits, logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def plain_loss(actor, lessons):
    """Mean loss of a model without adapters on all sequences of some lessons, row by row, in nats per token."""
    total = count = 0.0
    for row in (actor.row(example) for lesson in lessons for example in lesson.examples):
        found = np.take_along_axis(log_probs(actor, row)[1], np.array(row.tokens[1:])[:, None], 1)[:, 0]
        total -= (found * row.weights[1:]).sum()
        count += sum(row.weights)
    return total / count


def test_controls_are_measured_against_the_same_sequences_without_them(controlled):
    found = records(controlled[1])
    free, held = (pick(found["updates"], arm=arm) for arm in (keys.CONTINUAL, keys.CONTROLLED))
    assert [(one["round"], one["sequence"], one["item"]) for one in free] == [
        (one["round"], one["sequence"], one["item"]) for one in held
    ]
    assert not any(one["replayed"] or one["undone"] or one["rise"] for one in free)
    assert all(len(one["replayed"]) == (one["round"] > 1) for one in held)
    for one in held:
        others = pick(held, sequence=one["sequence"])
        earlier = {other["item"] for other in others if other["round"] < one["round"]}
        assert set(one["replayed"]) <= earlier and one["item"] not in earlier
        assert one["lessons"] == 2 * (1 + len(one["replayed"]))  # of each self-edit its one sentence, and the passage


def test_what_is_learned_is_scaled_when_it_is_merged(controlled):
    folder = controlled[1] / "checkpoints"
    for sequence in range(SEQUENCES):
        free, held = (checkpoint.load(folder / arm / str(sequence), 1)["layers"] for arm in ("continual", "controlled"))
        for name in free:
            np.testing.assert_array_equal(free[name]["A"], held[name]["A"])
            np.testing.assert_allclose(free[name]["B"] * 0.5, held[name]["B"], rtol=1e-6)
            assert np.abs(free[name]["B"]).max() > 0


def test_the_gate_undoes_what_raises_the_loss_on_earlier_passages(controlled, actors, tmp_path):
    setup, found = prepared(controlled, actors, tmp_path), records(controlled[1])
    lora, items = recipe(setup.config.inner).lora, {item.id: item for item in setup.evaluation}
    gated = [one for one in pick(found["updates"], arm=keys.CONTROLLED) if one["round"] > 1]
    assert {one["undone"] for one in gated} == {True, False}, [one["rise"] for one in gated]
    for sequence in range(SEQUENCES):
        actor, lessons, answers = setup.policy, [], {}
        folder = controlled[1] / "checkpoints" / "controlled" / str(sequence)
        for number in range(1, PASSAGES + 1):
            [one] = pick(found["updates"], arm=keys.CONTROLLED, round=number, sequence=sequence)
            saved = checkpoint.load(folder, number)
            after = actor.with_adapter(saved, lora)
            assert one["undone"] == (number > 1 and one["rise"] > CONTROLS["gate"])
            assert one["undone"] == (max(np.abs(pair["B"]).max() for pair in saved["layers"].values()) == 0)
            if number > 1 and not one["undone"]:
                assert one["rise"] == pytest.approx(plain_loss(after, lessons) - plain_loss(actor, lessons), abs=1e-3)
            [edit] = pick(found["self_edits"], item=one["item"])
            lessons.append(setup.domain.lesson(items[one["item"]], edit["text"], (), len))
            trials = pick(found["trials"], arm=keys.CONTROLLED, round=number, sample=sequence)
            now = {trial["item"]: trial["log_likelihood"] for trial in trials}
            for item, before in answers.items() if one["undone"] else ():
                np.testing.assert_allclose(now[item], before, atol=1e-5)
            actor, answers = after, now


@pytest.mark.parametrize("neutral", [False, True])
def test_replayed_and_neutral_rows_are_learned_from_what_the_model_expected_before(
    controlled, actors, tmp_path, neutral
):
    setup = prepared(controlled, actors, tmp_path)
    actor, lora, inner = setup.policy, recipe(setup.config.inner).lora, setup.config.inner
    old, new = (setup.domain.lesson(item, item.context, (), len) for item in setup.evaluation[:2])
    random = np.random.default_rng(0)
    before = jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype(np.float32), nothing(actor, lora))
    task = update.Task(new, old.examples, (1,), (2,), expected=True)
    if neutral:
        task = update.Task(new, (), (1,), (2,), neutral=old.examples)
    loop = update._loop(Students((0,), actor, [before], lora), 0, task, replace(inner, objective="distill"))
    own, replayed = loop.rows[: len(new.examples)], loop.rows[len(new.examples) :]
    assert len(replayed) == len(old.examples) and all(row.targets is None for row in own)
    merged = actor.with_adapter(before, lora)
    for row in replayed:
        ids, probs = row.targets
        begin = len(row.tokens) - len(ids)
        assert begin == 1 and row.weights[0] == 0 and not row.teacher  # plain text: the teacher reads the first token
        wanted = log_probs(merged, row)[0][begin - 1 :] / inner.distill.temperature
        best = np.sort(wanted, -1)[:, ::-1][:, : inner.distill.top_k]
        np.testing.assert_allclose(probs, np.exp(best) / np.exp(best).sum(-1, keepdims=True), atol=1e-4)
        np.testing.assert_allclose(np.take_along_axis(wanted, ids, -1), best, atol=1e-3)


def test_killed_and_started_again_it_is_the_run_that_was_not(controlled, fast, tmp_path, monkeypatch):
    values, workdir = controlled
    lost, trained, finetune = [], [], Engine.finetune

    def counted(self, base, candidates, *rest):
        trained.append(len(candidates))
        return finetune(self, base, candidates, *rest)

    monkeypatch.setattr(Engine, "finetune", counted)
    for count, half in ((2, True), (4, False), (4, True), (3, False), (6, True), (5, False), (10_000, False)):
        with monkeypatch.context() as patch:
            tiny_run.kill_at(patch, count, half, lost)
            try:
                tiny_run.run(values, tmp_path / "run")
            except tiny_run.Killed:
                continue
    assert len(lost) == 6 and records(tmp_path / "run") == records(workdir)
    again = sum(group.count(b'"undone"') for group in lost)
    assert sum(trained) == 2 * SEQUENCES * PASSAGES + again
    for name in ("finetune", "generate", "log_likelihood"):
        monkeypatch.setattr(Engine, name, None)
    tiny_run.run(values, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"continual": {"passages": 5}}, "config.continual.passages: is 5, but config.data.evaluation gives 4"),
        ({"continual": {"past_rank": 1}}, "config.continual.past_rank: is 1"),
        ({"continual": {"replay_objective": "kl"}}, "config.continual.replay is 0"),
        ({"continual": {"neutral_texts": 3}}, "config.continual.neutral_texts: is set, but"),
        ({"continual": {"neutral": "no.txt"}}, "no.txt cannot be read"),
        ({"continual": {"layers": (1, 2)}}, "config.continual.layers: names layer 2, but the student has 2"),
        ({"continual": {"author": "file"}}, "evaluation.json has no completions of any of the 4 items"),
        ({"export": {"policy": True}}, "config.export.policy"),
        ({"outer": config_lib.defaults()["outer"] | {"rounds": 1}}, "config.outer: is set, but the experiment"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(den, fast, tmp_path, changes, expected):
    values = tiny_values(den)
    for group, fields in changes.items():
        values[group] = values.get(group, {}) | fields
    with pytest.raises(UserError, match=expected):
        tiny_run.run(values, tmp_path / "run")


def test_the_report_has_the_matrix_of_each_arm(controlled):
    found = records(controlled[1])
    recorded = load(epath.Path(controlled[1]))
    matrices = forgetting.matrices(recorded)
    assert [matrix.arm for matrix in matrices] == [keys.CONTINUAL, keys.CONTROLLED]
    for matrix in matrices:
        for one in pick(found["updates"], arm=matrix.arm):
            sequence, k = one["sequence"], one["round"] - 1
            [base] = pick(found["trials"], arm="base", item=one["item"])
            assert matrix.values[sequence, 0, k] == np.mean(base["correct"])
            for n in range(1, PASSAGES + 1):
                trials = pick(found["trials"], arm=matrix.arm, round=n, item=one["item"], sample=sequence)
                value = matrix.values[sequence, n, k]
                assert value == np.mean(trials[0]["correct"]) if trials else np.isnan(value) and n <= k
    text, page = terminal.summary(epath.Path(controlled[1])), html.render(epath.Path(controlled[1]))
    for part in ("Accuracy, %, passage by passage: controlled", "What was learned and forgotten"):
        assert part in text and part in page
    assert "Controlled: accuracy, %, on each passage" in page and "The run is not complete" not in page
    assert "one after another" in page


def test_runs_side_by_side_say_what_each_arm_learned_and_kept(controlled, tmp_path):
    """With the differences from the first arm, which within one run are those of its own table."""
    recorded = load(epath.Path(controlled[1]))
    [table] = forgetting.side_by_side([("one", [recorded]), ("two", [recorded, recorded])])
    *_, own = forgetting.tables(recorded)
    free, held, difference = own.rows
    assert table.header == ["run", *own.header, "learned more", "kept more"]
    assert table.rows[0] == ["one", *free, "–", "–"]
    assert table.rows[1] == ["one", *held, *difference[2:4]]
    assert [row[:2] for row in table.rows] == [[run, arm[0]] for run in ("one", "two") for arm in (free, held)]
    assert table.rows[3][-3] == str(2 * int(held[-1])) and "from one, continual" in table.note
    text = compared.as_text(compare([str(controlled[1])]))
    assert table.title in text and "learned more" in text


def test_differences_between_runs_are_of_sequences_of_the_same_passages():
    rng = np.random.default_rng(0)
    free = forgetting.Matrix("free", [("a", "b"), ("c", "a")], rng.random((2, 3, 2)), 0, 0)
    held = forgetting.Matrix("held", [("c", "a"), ("b", "a")], rng.random((2, 3, 2)), 0, 0)
    [(learned, kept)] = forgetting._gained(free, held)
    assert learned == held.learned[0] - free.learned[1] and kept == held.last[0] - free.last[1]


def test_how_far_the_gates_measure_agrees_with_what_is_forgotten():
    """Against the falls by hand: 0.8 and 0.1 in the first sequence, 0 and 0.5 in the second; one more was undone."""
    nan = np.nan
    values = np.full((2, 5, 4), nan)
    values[0, 1:, :3] = [[0.9, nan, nan], [0.1, 0.6, nan], [0.2, 0.3, 1.0], [0.0, 0.0, 0.0]]
    values[1, 1:, :3] = [[0.4, nan, nan], [0.4, 0.8, nan], [0.1, 0.1, 1.0], [0.0, 0.0, 0.0]]
    matrix = forgetting.Matrix("controlled", [("a", "b", "c", "d"), ("c", "a", "b", "d")], values, 2, 0)

    def updates(*rises):
        return [
            {"arm": "controlled", "sequence": s, "round": n, "rise": rise, "undone": n == 4}
            for s, given in enumerate(rises)
            for n, rise in enumerate(given, 1)
        ]

    def agreed(*rises):
        return forgetting.gate_agreement([matrix], updates(*rises))

    assert agreed((None, 0.3, 0.1, 0.0), (None, 0.1, 0.2, 9.0)).mean == pytest.approx(1.0)
    one, other = (None, 0.1, 0.3, 0.0), (None, 0.1, 0.2, 9.0)
    assert agreed(one, other).mean == pytest.approx(0.0) and agreed(one, other).count == 2
    assert agreed(one, (None,) * 4).mean == pytest.approx(-1.0)
    assert agreed((None,) * 4, (None,) * 4) is None


def test_the_report_says_how_far_the_gate_agrees(controlled, monkeypatch):
    monkeypatch.setattr(forgetting, "gate_agreement", lambda *_: Estimate(0.5, 0.25, 0.75, 2))
    assert "mean over sequences: +0.50 ± 0.25." in html.render(epath.Path(controlled[1]))


def test_numbers_of_a_matrix():
    nan = np.nan
    values = np.array([
        [[0.0, 0.2], [0.8, nan], [0.4, 0.6]],
        [[0.2, 0.4], [0.4, nan], [0.0, 1.0]],
    ])  # fmt: skip
    matrix = forgetting.Matrix("continual", [("a", "b"), ("c", "a")], values, 1, 0)
    np.testing.assert_allclose(matrix.mean, [[0.1, 0.3], [0.6, nan], [0.2, 0.8]])
    np.testing.assert_allclose(matrix.error, [[0.1, 0.1], [0.2, nan], [0.2, 0.2]])
    np.testing.assert_allclose(matrix.learned, [0.7, 0.7])
    np.testing.assert_allclose(matrix.last, [0.5, 0.5])
    np.testing.assert_allclose(matrix.untrained, [0.1, 0.3])
    assert matrix.complete
    header, rows = forgetting._cells(matrix)
    assert header == ["after", "1", "2", "seen"]
    assert rows == [["0", "10 ± 10", "30 ± 10", "20 ± 10"], ["1", "60 ± 20", "", "60 ± 20"],
                    ["2", "20 ± 20", "80 ± 20", "50 ± 0"]]  # fmt: skip
