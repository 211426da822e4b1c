"""Continual self-edits over an engine in plain Python, against the same sequences written out one by one: who writes
what, what is learned, kept and undone, what is asked, and every field of the records. No model is loaded."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from etils import epath
from layered_engine import LayeredEngine, Ruled, Twice, expectations, layered_actor, learned, number_of
from plain_engine import TOKENIZER, Shelf, Thing, likelihood, number, speaks
from tiny_run import pick, same

from seal_jax import config, seeds
from seal_jax.domains.domain import Example
from seal_jax.engine.packing import Candidate, Row
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, continual
from seal_jax.experiments.world import World
from seal_jax.runs.keys import CONTINUAL, CONTROLLED
from seal_jax.runs.ledger import Ledger

ITEMS = tuple(
    Thing(name, title, completions=(f"{title} by a file", "more"))
    for name, title in zip("abcdef", ("One", "Two", "Three", "Four", "Five", "Six"), strict=True)
)
ACTOR = layered_actor(LayeredEngine())
START = {"policy": (1.0, 0.5), "student": (3.0, 0.5)}  # kernels of the models' layers


def writes(weight, prompt, seed):
    """Self-edits of two lines, whose lessons depend on their seed; answers are those of `speaks`."""
    said = speaks(weight, prompt, seed)
    return f"seeded {said}more" if prompt.startswith("Write") else said


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(fields of config.continual, **others) -> (setup, rows in order); a second call continues the first."""
    monkeypatch.setattr(continual, "checkpoint", Shelf())

    def start(says=writes, items=ITEMS, student="", candidates=2, after=None, inner=(), seed=0, texts=(), **how):
        engine = LayeredEngine(says, candidates=candidates)
        values = config.defaults("knowledge", "continual") | {"seed": seed}
        values["model"] |= {"policy": "policy", "student": student}
        values["inner"] |= {"rank": 2, "alpha": 4.0, "targets": ("q_proj",), **dict(inner)}
        values["sampling"] |= {"max_new_tokens": 40}
        values["evaluation"] |= {"answer_tokens": 8}
        values["continual"] |= {"passages": 3, "sequences": 2, "past_rank": 6} | how
        monkeypatch.setattr(assemble, "load_actor", lambda name, setting: layered_actor(engine, START[name]))
        world = World((), items, lambda judge: Ruled(), neutral=texts)
        setup, rows = assemble.assemble(config.from_dict(values), epath.Path(tmp_path), world), []
        continual.run(setup, after or rows.extend)
        setup.recorder.close()
        return setup, rows

    return start


def mean_loss(weight, rows):
    return -sum(likelihood(weight, row) for row in rows) / sum(sum(row.weights) for row in rows)


def as_expected(row, weight):
    """A row of plain text as it is learned from what the model expects at every token but the first."""
    read = Row(row.tokens, (0.0, *row.weights[1:]), row.tokens[:1])
    return replace(read, teacher=(), targets=expectations(weight, read))


def by_hand(setup, arm, texts=None, student="policy", domain=None):
    """An arm, sequence by sequence with weights of its own, replaying what its records say
    -> {(number, sequence): (text, update, weight)}."""
    setting, found = setup.config, {}
    how = replace(setting.continual, **config.FREE) if arm == CONTINUAL else setting.continual
    layers = how.layers or setting.inner.layers or (0, 1)
    scale, domain = setting.inner.alpha / setting.inner.rank, domain or setup.domain
    for s, items in enumerate(continual.draw(setup.evaluation, setting.continual, setting.seed)):
        weight, lessons = float(number_of(layered_actor(None, START[student]).base)), {}
        for n, item in enumerate(items, 1):
            seed = seeds.sample(setting.seed, n, item, 0)
            text = texts(item) if texts else writes(weight, f"Write about {item.title}:", seed)
            lesson = domain.lesson(item, text, seeds.lesson(setting.seed, n, item, s), ACTOR.length)
            rows = [ACTOR.row(example) for example in lesson.examples]
            [record] = pick(setup.recorder.updates.all(), arm=arm, round=n, sequence=s)
            again = [row for name in record["replayed"] for row in lessons[name]]
            if how.replay_objective == "kl":
                again = [as_expected(row, weight) for row in again]
            beside = [Example(None, setup.neutral[k], closing=False) for k in record["neutral"]]
            again += [as_expected(ACTOR.row(example), weight) for example in beside]
            loop = Candidate((*rows, *again), lesson.learning_rate, lesson.epochs, setting.inner.warmup_steps,
                             seeds.adapter(setting.seed, n, item, s), seeds.order(setting.seed, n, 0))  # fmt: skip
            adapter = sum((layer + 1) * learned(loop, weight, layer) for layer in layers)
            after, rise = round(weight + scale * how.merge_scale * adapter, 2), None
            if how.gate and n > 1:
                before = [row for old in lessons.values() for row in old]
                rise = mean_loss(after, before) - mean_loss(weight, before)
            undone = rise is not None and rise > how.gate
            steps = loop.epochs * len(loop.rows)
            update = {
                "arm": arm, "round": n, "sequence": s, "item": item.id, "replayed": record["replayed"],
                "neutral": record["neutral"], "lessons": len(loop.rows),
                "tokens": sum(len(row.tokens) for row in loop.rows), "steps": steps,
                "loss": float(number(loop.seed) + np.arange(steps)[-len(loop.rows) :].mean()), "failure": None,
                "rise": rise, "undone": undone,
            }  # fmt: skip
            weight = weight if undone else after
            lessons[item.id] = rows
            found[n, s] = text, update, weight
    return found


def check(setup, arm, wanted):
    """Updates and answers of an arm are as wanted."""
    recorder, sequences = setup.recorder, continual.draw(setup.evaluation, setup.config.continual, setup.config.seed)
    assert len(pick(recorder.updates.all(), arm=arm)) == len(wanted)
    for (n, s), (_, update, weight) in wanted.items():
        [record] = pick(recorder.updates.all(), arm=arm, round=n, sequence=s)
        assert list(record) == list(update)
        same(record, update)
        trials = pick(recorder.trials.all(), arm=arm, round=n, sample=s)
        assert [trial["item"] for trial in trials] == [item.id for item in sequences[s][:n]]
        for trial, item in zip(trials, sequences[s], strict=False):
            check_answers(setup, trial, item, weight)


def check_answers(setup, trial, item, weight):
    quiz = setup.domain.quiz(item, False)
    rows = [ACTOR.row(example) for example in quiz.gold]
    assert trial["log_likelihood"] == pytest.approx([likelihood(weight, row) / sum(row.weights) for row in rows])
    said = [TOKENIZER.encode(speaks(weight, prompt.text, (0,)))[:8] for prompt in quiz.prompts]
    assert trial["answers"] == [TOKENIZER.decode(tokens).strip() for tokens in said]
    assert (trial["purpose"], trial["judge"], trial["retrain"], trial["loss"]) == ("answers", "plain", 0, None)


def texts_of(setup, **fields):
    return {(e["round"], e["sample"]): e["text"] for e in pick(setup.recorder.edits.all(), **fields)}


# ---------------------------------------------------------------- the plain matrix


@pytest.mark.parametrize(
    ("past_rank", "candidates", "together"),
    [(6, 2, [2, 1] * 3), (6, 5, [3] * 3), (4, 2, [2, 1] * 3), (2, 2, [2, 1, 2, 1, 1, 1, 1]), (3, 4, [3, 3, 1, 1, 1])],
)
def test_the_matrix_is_that_of_plain_loops(run, past_rank, candidates, together):
    setup, rows = run(sequences=3, past_rank=past_rank, candidates=candidates, seed=5)
    assert rows == [("base", 0), (CONTINUAL, 1), (CONTINUAL, 2), (CONTINUAL, 3)]
    wanted = by_hand(setup, CONTINUAL)
    check(setup, CONTINUAL, wanted)
    assert texts_of(setup, arm=CONTINUAL) == {key: text for key, (text, _, _) in wanted.items()}
    assert [call[1] for call in setup.policy.engine.calls if call[0] == "finetune"] == together


def test_rows_and_the_untrained_student_on_what_is_used(run, capsys):
    setup, _ = run(passages=2, sequences=2)
    fields = [(row["arm"], row["round"], row["name"], row["kind"]) for row in setup.recorder.rows.all()]
    assert fields == [
        ("base", 0, "base", "untrained"), (CONTINUAL, 1, "continual, after 1 passage", "continual"),
        (CONTINUAL, 2, "continual, after 2 passages", "continual"),
    ]  # fmt: skip
    used = {item.id for items in continual.draw(ITEMS, setup.config.continual, 0) for item in items}
    base = pick(setup.recorder.trials.all(), arm="base")
    assert {trial["item"] for trial in base} == used and len(base) == len(used) == 4
    for trial in base:
        check_answers(setup, trial, next(item for item in ITEMS if item.id == trial["item"]), 2.0)
    phases = [(p["arm"], p["round"], p["purpose"]) for p in setup.recorder.phases.all() if p["arm"] != "base"]
    assert phases == [(CONTINUAL, n, what) for n in (1, 2) for what in ("self-edits", "finetuning", "answers")]
    assert all(p["split"] == "evaluation" for p in setup.recorder.phases.all())
    assert "continual, passage 2: learning: 2/2" in capsys.readouterr().err


def test_another_student_learns_from_self_edits_that_are_written_once(run):
    setup, _ = run(student="student")
    assert set(texts_of(setup)) == {(0, 0)} and len(setup.recorder.edits.all()) == 6
    text = {edit["item"]: edit["text"] for edit in setup.recorder.edits.all()}
    assert text == {item.id: writes(2.0, f"Write about {item.title}:", seeds.sample(0, 0, item, 0)) for item in ITEMS}
    check(setup, CONTINUAL, by_hand(setup, CONTINUAL, lambda item: text[item.id], "student"))


@pytest.mark.parametrize(
    ("author", "text", "domain"),
    [
        ("file", "{} by a file", None), ("sentences", "{} is said.", None), ("passage", "{}", Twice()),
    ],
)  # fmt: skip
def test_a_file_or_a_rule_writes_and_the_rule_s_domain_makes_the_lessons(run, author, text, domain):
    setup, _ = run(author=author)
    assert {edit["text"] for edit in setup.recorder.edits.all()} == {text.format(item.title) for item in ITEMS}
    check(setup, CONTINUAL, by_hand(setup, CONTINUAL, lambda item: text.format(item.title), domain=domain))


# ---------------------------------------------------------------- controls of forgetting


@pytest.mark.parametrize(
    "controls",
    [
        {"merge_scale": 0.5}, {"replay": 1}, {"replay": 2}, {"replay": 2, "replay_objective": "kl"}, {"gate": 0.5},
        {"layers": (1,)}, {"neutral": "x.txt"}, {"neutral": "x.txt", "neutral_texts": 1, "replay": 1},
        {"merge_scale": 0.5, "replay": 1, "replay_objective": "kl", "gate": 0.2, "neutral": "x.txt", "layers": (0,)},
    ],
    ids=str,
)  # fmt: skip
def test_a_control_goes_through_the_same_sequences_after_the_free_arm(run, controls):
    setup, rows = run(sequences=4, passages=3, candidates=4, texts=("It rains.", "Snow falls.", "Fog."), **controls)
    arms = [(arm, n) for arm in (CONTINUAL, CONTROLLED) for n in (1, 2, 3)]
    assert rows == [("base", 0), *arms]
    for arm in (CONTINUAL, CONTROLLED):
        check(setup, arm, by_hand(setup, arm))
    held = pick(setup.recorder.updates.all(), arm=CONTROLLED)
    assert all(len(set(one["replayed"])) == min(one["round"] - 1, controls.get("replay", 0)) for one in held)
    assert all((one["rise"] is None) == (one["round"] == 1 or "gate" not in controls) for one in held)
    texts = controls.get("neutral_texts", 2) if "neutral" in controls else 0
    assert all(len(set(one["neutral"])) == texts and set(one["neutral"]) <= {0, 1, 2} for one in held)
    assert not texts or len({tuple(one["neutral"]) for one in held}) == 3
    if "gate" in controls:
        assert {one["undone"] for one in held if one["round"] > 1} == {True, False}
    other = pick(setup.recorder.updates.all(), arm=CONTINUAL)
    assert [(one["round"], one["sequence"], one["item"]) for one in other] == [
        (one["round"], one["sequence"], one["item"]) for one in held
    ]


@pytest.mark.parametrize(
    ("uncontrolled", "replay", "arms"),
    [(False, 1, {CONTROLLED}), (False, 0, {CONTINUAL}), (True, 0, {CONTINUAL}), (True, 1, {CONTINUAL, CONTROLLED})],
)
def test_which_arms_there_are(run, uncontrolled, replay, arms):
    setup, _ = run(passages=1, uncontrolled=uncontrolled, replay=replay)
    assert {one["arm"] for one in setup.recorder.updates.all()} == arms


def test_layers_of_the_inner_loop_are_those_of_both_arms_unless_others_are_the_control(run):
    setup, _ = run(inner={"layers": (1,)}, merge_scale=0.5, passages=2)
    for arm in (CONTINUAL, CONTROLLED):
        check(setup, arm, by_hand(setup, arm))
    assert {call[2][1].lora.layers for call in setup.policy.engine.calls if call[0] == "finetune"} == {(1,)}


@pytest.mark.parametrize(("group", "how"), [("inner", {"inner": {"layers": (0, 2)}}), ("continual", {"layers": (2,)})])
def test_layers_that_the_model_does_not_have_are_named(run, group, how):
    said = f"config.{group}.layers: names layer 2, but the student has 2, counted from 0; name layers up to 1"
    with pytest.raises(UserError, match=said):
        run(**how)


def test_neutral_texts_must_fit_the_context(run):
    with pytest.raises(UserError, match="config.continual.neutral: the text that begins with 'It rains. It") as caught:
        run(neutral="x.txt", texts=("Fog.", "It rains. " * 200))
    assert "more than the 512 of the model's context; split it" in str(caught.value)


def test_what_is_replayed_are_earlier_updates_each_as_often():
    how, counts = config.Continual(replay=2), Counter()
    for sequence in range(300):
        assert continual.drawn(how, 0, 1, sequence) == [] and continual.drawn(how, 0, 2, sequence) == [1]
        found = continual.drawn(how, 0, 5, sequence)
        assert len(set(found)) == 2 and found == sorted(found) and set(found) <= {1, 2, 3, 4}
        assert found == continual.drawn(how, 0, 5, sequence)
        counts.update(found)
    assert set(counts) == {1, 2, 3, 4} and all(110 < count < 190 for count in counts.values())  # 150 are expected
    assert len({tuple(continual.drawn(how, seed, 9, s)) for seed in range(3) for s in range(3)}) > 4
    assert continual.drawn(config.Continual(replay=0), 0, 5, 0) == []


def test_sequences_are_drawn_without_repetition_as_long_as_there_are_items():
    how = config.Continual(passages=3, sequences=5)
    found = continual.draw(list("abcdefg"), how, 1)
    assert len(found) == 5 and all(len(set(items)) == 3 for items in found)
    assert len(set(found[0] + found[1])) == 6 and len(set(found[2] + found[3])) == 6
    assert continual.draw(list("abcdefg"), how, 2) != found


# ---------------------------------------------------------------- what goes wrong, and goes on


def test_a_self_edit_of_no_use_and_a_training_that_diverges_teach_nothing(run):
    def says(weight, prompt, seed):
        if not prompt.startswith("Write"):
            return speaks(weight, prompt, seed)
        return {"Two": "fail", "Three": "explode\nit"}.get(prompt.removeprefix("Write about ")[:-1], "it is")

    setup, _ = run(says, passages=6, sequences=1, past_rank=12, replay=5, gate=9.0, uncontrolled=False)
    updates = {one["item"]: one for one in setup.recorder.updates.all()}
    for name, failure in (("b", "nothing to train on"), ("c", "diverged: the loss of step 2 of")):
        one = updates[name]
        assert one["failure"].startswith(failure) and one["loss"] is None
        [before, after] = [
            {trial["item"]: trial["answers"] for trial in pick(setup.recorder.trials.all(), round=n, arm=CONTROLLED)}
            for n in (one["round"] - 1, one["round"])
        ] if one["round"] > 1 else [{}, {}]  # fmt: skip
        assert all(after[item] == answers for item, answers in before.items())
    assert (updates["b"]["lessons"], updates["b"]["tokens"], updates["b"]["steps"]) == (0, 0, 0)
    assert updates["c"]["lessons"] > 1
    others = [one for name, one in updates.items() if name not in "bc"]
    assert all(one["failure"] is None and one["loss"] is not None for one in others)


def test_a_passage_without_a_self_edit_is_not_learned_and_is_still_asked(run):
    bare = (replace(ITEMS[0], completions=()), *ITEMS[1:])
    setup, _ = run(items=bare, author="file", passages=3)
    failures = {one["item"]: one["failure"] for one in setup.recorder.updates.all()}
    assert failures.pop("a") == "its self-edit was not written" and set(failures.values()) == {None}
    assert len(pick(setup.recorder.trials.all(), arm=CONTINUAL)) == 2 * (1 + 2 + 3)


def test_the_gate_looks_at_nothing_where_nothing_was_learned_before(run):
    def says(weight, prompt, seed):
        return "fail" if prompt.startswith("Write") else speaks(weight, prompt, seed)

    setup, _ = run(says, passages=2, sequences=1, gate=1e-9)
    assert all(one["rise"] is None and not one["undone"] for one in setup.recorder.updates.all())


def test_a_finished_run_computes_nothing_again_and_a_stopped_one_goes_on(run):
    def stop(rows):
        if rows == [(CONTROLLED, 2)]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(after=stop, replay=1, gate=0.5)
    setup, rows = run(replay=1, gate=0.5)
    assert rows[-1] == (CONTROLLED, 3)
    assert [call[0] for call in setup.policy.engine.calls].count("finetune") == 1  # of the last passage alone
    for arm in (CONTINUAL, CONTROLLED):
        check(setup, arm, by_hand(setup, arm))
    again, _ = run(replay=1, gate=0.5)
    assert again.policy.engine.calls == []


def test_a_run_that_died_between_a_checkpoint_and_its_record_learns_again(run, monkeypatch):
    append = Ledger.append

    def dying(self, records):
        if any("undone" in record for record in records):
            raise KeyboardInterrupt
        append(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            run()
    setup, _ = run()
    check(setup, CONTINUAL, by_hand(setup, CONTINUAL))
