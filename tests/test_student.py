"""The student: trained in chunks, asked in parts, merged; and trials, which are both and a record."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from plain_engine import TOKENIZER, PlainEngine, Thing, Things, likelihood, losses_of, plain_actor, speaks, trained
from tiny_training import steps_by_hand

from seal_jax import config, seeds
from seal_jax.config import Training
from seal_jax.domains.domain import Example, Lesson, Prompt, Quiz
from seal_jax.engine.packing import Candidate, bucket
from seal_jax.engine.programs import enable_cache
from seal_jax.engine.recipe import recipe
from seal_jax.errors import UserError
from seal_jax.inner import sft
from seal_jax.model.lora import init_adapter
from seal_jax.model.transformer import Transformer
from seal_jax.runs.keys import REWARD, TRAIN, Stage
from seal_jax.runs.recorder import Recorder
from seal_jax.student import train as train_module
from seal_jax.student.ask import Answers, ask, parts
from seal_jax.student.measure import measure
from seal_jax.student.merge import merge
from seal_jax.student.train import Adapters, Loop, adapter_of, candidate, chunks, placed, teach, train
from seal_jax.student.trials import Plan, Trial, ask_items, groups, last_epoch, run_trials

TRAINING = Training(rank=2, alpha=4.0, learning_rate=5e-3, epochs=2, batch_size=1, accumulation=2, warmup_steps=1)


def example(text, prompt=None, closing=False):
    return Example(None if prompt is None else Prompt(prompt, False), text, closing)


def loop(*texts, order=1, seed=0, rate=0.1, epochs=2):
    return Loop(Lesson(tuple(map(example, texts)), rate, epochs), (2, seed), (3, order))


# Lengths, orders and step counts that no chunk leaves in the order of the list.
LOOPS = [
    loop("a long line of text that goes on and on", "b", "c", order=2, seed=0),
    loop("short", seed=1),
    loop("another line that is long", "and one more", seed=2),
    loop("tiny", order=2, seed=3),
    loop("x", seed=4, epochs=3),
]


def candidates(student, loops=LOOPS):
    return [candidate(student, one, TRAINING) for one in loops]


# ---------------------------------------------------------------- train


def test_an_inner_loop_in_tokens():
    student = plain_actor()
    found = candidate(student, LOOPS[2], TRAINING)
    rows = tuple(student.row(one) for one in LOOPS[2].lesson.examples)
    assert found == Candidate(rows, 0.1, 2, 1, (2, 2), (3, 1))
    assert rows[0].tokens == tuple(TOKENIZER.encode("another line that is long")) and len(rows) == 2


def test_losses_stand_in_the_order_of_the_loops_and_adapters_tell_theirs():
    for limit in (1, 2, 3, 8):
        student = plain_actor(PlainEngine(candidates=limit))
        found = train(student, some := candidates(student), TRAINING)
        assert [len(chunk) for chunk in chunks(student, some, TRAINING)] == [
            call[1] for call in student.engine.calls if call[0] == "finetune"
        ]
        assert all(len(chunk) <= limit for chunk in chunks(student, some, TRAINING))
        assert sorted(found.order) == list(range(5)) and found.lora == recipe(TRAINING).lora
        for place, index in enumerate(found.order):
            assert float(found.tree["w"][place]) == trained(some[index], 1.0)
        for one, losses in zip(some, found.losses, strict=True):
            np.testing.assert_array_equal(losses, losses_of(one, 2))
    assert found.order != tuple(range(5))


@pytest.mark.parametrize("devices", [1, 2])
def test_an_adapter_of_many_is_that_of_its_loop(devices, monkeypatch):
    monkeypatch.setattr(train_module, "fetch", np.asarray)
    student = plain_actor()
    student.engine.layout.devices = devices
    lanes = np.array([[10.0], [11.0], [12.0], [13.0]])
    adapters = Adapters({"w": lanes}, recipe(TRAINING).lora, (2, 0, 1), [])
    places = {1: {2: 10.0, 0: 11.0, 1: 12.0}, 2: {2: 10.0, 0: 12.0, 1: 11.0}}[devices]  # devices take turns
    for loop, value in places.items():
        assert adapter_of(student, adapters, loop)["w"].tolist() == [value]


def test_adapters_from_the_host_are_as_if_trained():
    student = plain_actor()
    student.engine.layout.put_weights = lambda tree, candidates: tree if candidates else None  # an axis of lanes
    found = placed(student, [{"w": np.array(2.0)}, {"w": np.array(5.0)}], recipe(TRAINING).lora)
    assert found.tree["w"].tolist() == [2.0, 5.0] and found.order == (0, 1) and found.lora == recipe(TRAINING).lora
    assert [losses.shape for losses in found.losses] == [(0,), (0,)]
    assert [one.log_likelihood for one in ask(student, found, QUIZZES[1:3], 0)] == [
        by_hand(1.0 + 2.0 * w, q).log_likelihood for w, q in zip((2.0, 5.0), QUIZZES[1:3], strict=True)
    ]


def test_examples_count_by_their_weights_and_the_loss_is_that_of_the_last_epoch():
    student = plain_actor()
    examples = [example("one", "Say:"), example("two words", "Say:")]
    learned, loss = teach(student, examples, TRAINING, (4, 4), (0.25, 1.0))
    [(learner, how)] = [call[2:] for call in student.engine.calls]
    rows = [student.row(one) for one in examples]
    assert how == recipe(TRAINING) and [row.tokens for row in learner.rows] == [row.tokens for row in rows]
    assert learner.rows[0].weights == tuple(0.25 * w for w in rows[0].weights) and learner.rows[1] == rows[1]
    assert learner == Candidate(learner.rows, 5e-3, 2, 1, (4, 4), (4, 4))
    assert float(learned["w"]) == trained(learner, 1.0) and loss == pytest.approx(losses_of(learner, 2)[1:].mean())


# ---------------------------------------------------------------- ask

MANY = tuple(f"question {i}?" for i in range(15))


def quiz(title, questions):
    prompts = tuple(Prompt(f"{title}: {question}", False) for question in questions)
    gold = tuple(Example(prompt, f" answer {title} {i}", False) for i, prompt in enumerate(prompts))
    return Quiz(prompts, gold, (False,) * len(prompts))


QUIZZES = [quiz(f"item {i}", MANY[:count]) for i, count in enumerate((15, 1, 4, 2, 7))]


def by_hand(weight, asked: Quiz, answer_tokens=64):
    """One question after the other."""
    student, said = plain_actor(), []
    for prompt in asked.prompts:
        tokens = TOKENIZER.encode(speaks(weight, prompt.text, (0,)))
        said.append((TOKENIZER.decode(tokens[:answer_tokens]).strip(), len(tokens) >= answer_tokens))
    rows = [student.row(gold) for gold in asked.gold]
    each = [likelihood(weight, row) / sum(row.weights) for row in rows]
    return Answers([text for text, _ in said], [cut for _, cut in said], [pytest.approx(value) for value in each])


@pytest.mark.parametrize("settings", [{"decode_rows": rows} for rows in (1, 4, 6, 11, 1000)] + [{"answer_rows": 7}])
def test_adapters_in_the_order_of_their_chunks_get_their_own_quizzes_and_rows_are_bounded(settings):
    student, rows = plain_actor(PlainEngine(**settings)), max(settings.values())
    some = candidates(student)
    adapters = train(student, some, TRAINING)
    assert adapters.order != tuple(range(5))
    found = ask(student, adapters, QUIZZES, 64)
    assert found == [by_hand(1.0 + 2.0 * trained(one, 1.0), q) for one, q in zip(some, QUIZZES, strict=True)]
    for name in ("log_likelihood", "generate"):
        counts = [call[1] for call in student.engine.calls if call[0] == name]
        assert sum(counts) == 29 and max(counts) <= max(rows, 5)


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_the_bare_student_is_asked_all_quizzes(rows):
    student = plain_actor(PlainEngine(decode_rows=rows), weight=3.0)
    assert ask(student, None, QUIZZES, 64) == [by_hand(3.0, one) for one in QUIZZES]
    assert max(call[1] for call in student.engine.calls) == min(rows, 29)


def test_answers_that_the_limit_cut_off_are_marked():
    engine = PlainEngine(lambda weight, prompt, seed: "yes" if "question 0" in prompt else "a word and another word")
    [found] = ask(plain_actor(engine), None, [quiz("x", MANY[:3])], 5)
    assert found.cut == [False, True, True] and found.texts[0] == "yes"
    assert found.texts[1] == TOKENIZER.decode(TOKENIZER.encode("a word and another word")[:5]).strip()


def test_answers_are_greedy_and_end_at_the_stops():
    engine = PlainEngine(lambda weight, prompt, seed: "  yes. END of it")
    [found] = ask(plain_actor(engine), None, [quiz("x", MANY[:1])], 30, ("END",))
    generation = next(call[2] for call in engine.calls if call[0] == "generate")
    rules = generation.rules
    assert (rules.temperature, rules.top_p, rules.top_k, generation.max_new) == (0.0, 1.0, 0, 30)
    assert set(rules.stop_ids) == TOKENIZER.stop_ids
    assert found.cut == [False] and found.texts == ["yes. END of it"]


def test_likelihoods_alone_generate_nothing():
    student = plain_actor()
    [found] = ask(student, None, [QUIZZES[2]], 0)
    assert (found.texts, found.cut) == (None, None)
    assert found.log_likelihood == by_hand(1.0, QUIZZES[2]).log_likelihood
    assert student.engine.count("generate") == 0


def test_a_likelihood_that_is_not_a_number_is_none(monkeypatch):
    student = plain_actor()
    values = iter([[[-4.0, float("nan"), float("-inf"), -1.0]]])
    monkeypatch.setattr(student.engine, "log_likelihood", lambda weights, rows: next(values))
    [found] = ask(student, None, [QUIZZES[2]], 0)
    counts = [sum(student.row(gold).weights) for gold in QUIZZES[2].gold]
    assert found.log_likelihood == [-4.0 / counts[0], None, None, -1.0 / counts[3]]


def test_an_empty_gold_answer_has_likelihood_zero():
    prompt = Prompt("x?", False)
    [found] = ask(plain_actor(), None, [Quiz((prompt,), (Example(prompt, "", False),), (False,))], 0)
    assert found.log_likelihood == [0.0]


def test_a_likelihood_is_that_of_a_token_on_average():
    prompt, student = Prompt("x?", False), plain_actor()
    gold = tuple(Example(prompt, text, False) for text in ("y", "yy", "yyy"))
    [found] = ask(student, None, [Quiz((prompt,), gold, (False,) * 3)], 0)
    rows = [student.row(one) for one in gold]
    assert [sum(row.weights) for row in rows] == [1, 2, 3]
    assert found.log_likelihood == pytest.approx([likelihood(1.0, row) / k for k, row in enumerate(rows, 1)])


def test_parts_take_equally_many_of_each_lane():
    assert list(parts(["abc", "d", "ef"], 6)) == [[["a", "b"], ["d"], ["e", "f"]], [["c"], [], []]]
    assert list(parts(["abc", "d"], 1)) == [[["a"], ["d"]], [["b"], []], [["c"], []]]
    assert list(parts(["abc"], 3)) == [[["a", "b", "c"]]] and list(parts([""], 3)) == []


# ---------------------------------------------------------------- groups


def test_whole_chunks_are_grouped_while_their_questions_fit_and_idle_ones_stand_first():
    student = plain_actor(PlainEngine(decode_rows=6))
    idle = Loop(Lesson(), (2, 9), (3, 1))
    some = candidates(student, [LOOPS[1], idle, LOOPS[2], LOOPS[4], idle, LOOPS[3], LOOPS[0]])
    order = chunks(student, [one for one in some if one.rows], TRAINING)
    busy = [i for i, one in enumerate(some) if one.rows]
    order = [[busy[i] for i in chunk] for chunk in order]
    assert [len(chunk) for chunk in order] == [2, 1, 2]
    one_each = groups(student, some, TRAINING, [1] * 7)
    assert one_each == [[1, 4], order[0] + order[1] + order[2]]
    assert groups(student, some, TRAINING, [2] * 7) == [[1, 4], order[0] + order[1], order[2]]
    assert groups(student, some, TRAINING, [3] * 7) == [[1, 4], order[0], order[1], order[2]]
    assert groups(student, some, TRAINING, [4] * 7) == [[1], [4], *order]
    wider = plain_actor(PlainEngine(decode_rows=1, answer_rows=6))
    assert groups(wider, some, TRAINING, [2] * 7) == groups(student, some, TRAINING, [2] * 7)
    assert groups(student, some[1:2], TRAINING, [9]) == [[0]] and groups(student, [], TRAINING, []) == []


def test_what_is_left_of_a_list_is_grouped_as_in_the_whole():
    student = plain_actor(PlainEngine(decode_rows=5))
    idle = [Loop(Lesson(), (2, 9), (3, 1))] * 3
    some = candidates(student, LOOPS + idle + [replace(one, order=(3, 7)) for one in LOOPS])
    asked = [1 + i % 3 for i in range(len(some))]
    whole = groups(student, some, TRAINING, asked)
    assert len(whole) > 4
    for done in range(1, len(whole)):
        left = sorted(i for group in whole[done:] for i in group)
        found = groups(student, [some[i] for i in left], TRAINING, [asked[i] for i in left])
        assert [[left[i] for i in group] for group in found] == whole[done:]


# ---------------------------------------------------------------- trials

ITEMS = (Thing("x", "One", (("a", "yes", False), ("b", "no", True))), Thing("y", "Two", (("c", "yes", False),)))
STAGE, SEED = Stage(TRAIN, "SEAL", 2, REWARD), (7, 2)
PLAN = Plan(STAGE, TRAINING, 8, SEED)


def run(trials, domain=None, plan=PLAN, says=speaks, **settings):
    """({(item, sample, retrain): record}, the engine)."""
    engine = PlainEngine(says, **settings)
    found = list(run_trials(plain_actor(engine), trials, domain or Things(), plan))
    return {(r["item"], r["sample"], r["retrain"]): r for group in found for r in group}, engine


def test_a_record_holds_the_training_the_likelihoods_and_the_answers():
    records, engine = run([Trial(ITEMS[0], "one\ntwo three\n4", 3, 1)], says=lambda *_: "yes")
    student = plain_actor()
    lesson = Things().lesson(ITEMS[0], "one\ntwo three\n4", (), len)
    loop = Loop(lesson, seeds.adapter(*SEED, ITEMS[0], 1), seeds.order(*SEED, 1))
    wanted = candidate(student, loop, TRAINING)
    assert [call[2] for call in engine.calls if call[0] == "finetune"] == [[wanted]]
    [values] = [by_hand(1.0 + 2.0 * trained(wanted, 1.0), Things().quiz(ITEMS[0], False)).log_likelihood]
    assert records["x", 3, 1] == {
        **STAGE.fields, "item": "x", "sample": 3, "retrain": 1, "sequences": 3,
        "tokens": sum(len(row.tokens) for row in wanted.rows), "steps": 4,
        "loss": pytest.approx(np.mean(losses_of(wanted, 2)[2:])), "failure": None, "log_likelihood": values,
        "losses": pytest.approx([np.mean(losses_of(wanted, 2)[:2]), np.mean(losses_of(wanted, 2)[2:])], abs=1e-4),
        "answers": ["yes", "yes"], "correct": [True, False], "probability": None, "cut": [False, False],
        "heldout": [False, True],
        "judge": "plain",
    }  # fmt: skip


def test_likelihoods_alone_have_no_answers_and_no_judge():
    records, engine = run([Trial(ITEMS[0], "one")], plan=replace(PLAN, answer_tokens=0))
    assert all(records["x", 0, 0][name] is None for name in ("answers", "correct", "cut", "judge", "probability"))
    assert engine.count("generate") == 0


def test_nothing_is_trained_where_there_is_no_self_edit():
    records, engine = run([Trial(ITEMS[0], None), Trial(ITEMS[1], None)])
    record = records["x", 0, 0]
    assert (record["sequences"], record["tokens"], record["steps"]) == (0, 0, 0)
    assert record["loss"] is None and record["failure"] is None and engine.count("finetune") == 0
    assert record["log_likelihood"] == by_hand(1.0, Things().quiz(ITEMS[0], False)).log_likelihood


def test_a_failure_says_why_and_its_answers_are_wrong():
    records, engine = run([Trial(ITEMS[0], "fail", 0), Trial(ITEMS[0], "good", 1)], says=lambda *_: "yes")
    failed, good = records["x", 0, 0], records["x", 1, 0]
    assert failed["failure"] == "nothing to train on" and failed["loss"] is None and failed["sequences"] == 0
    assert failed["correct"] == [False, False] and failed["answers"] == ["yes", "yes"]
    assert good["failure"] is None and good["correct"] == [True, False]


def test_the_chance_that_an_answer_is_right_is_recorded_and_none_after_a_failure():
    class Chances(Things):
        def grade(self, answered):
            return [replace(one, probabilities=[0.25] * len(one.answers)) for one in super().grade(answered)]

    records, _ = run([Trial(ITEMS[0], "fail", 0), Trial(ITEMS[0], "good", 1)], Chances())
    assert [records["x", k, 0]["probability"] for k in (0, 1)] == [[0.0, 0.0], [0.25, 0.25]]


def test_a_training_that_diverged_says_where_and_leaves_its_siblings_alone():
    trials = [Trial(ITEMS[0], text, k) for k, text in enumerate(("explode", "good", "other"))]
    records, _ = run(trials, candidates=3)
    assert records["x", 0, 0]["failure"] == "diverged: the loss of step 2 of 2 is not a number"
    assert records["x", 0, 0]["loss"] is None
    alone, _ = run(trials[1:], candidates=3)
    assert all(records["x", k, 0] == alone["x", k, 0] and alone["x", k, 0]["failure"] is None for k in (1, 2))


def test_a_student_that_gives_no_likelihood_has_diverged(monkeypatch):
    nan = float("nan")
    monkeypatch.setattr(PlainEngine, "log_likelihood", lambda self, weights, rows: [[nan] * len(lane) for lane in rows])
    records, _ = run([Trial(ITEMS[0], "good")])
    assert records["x", 0, 0]["failure"] == "diverged: a log-likelihood is not a number"
    assert records["x", 0, 0]["log_likelihood"] == [None, None] and records["x", 0, 0]["loss"] is not None


@pytest.mark.parametrize("likelihood_too", [True, False])
def test_adapters_are_asked_about_several_items_each_without_training(likelihood_too):
    student = plain_actor(PlainEngine(lambda weight, prompt, seed: "yes" if weight < 6 or "a" in prompt else "no"))
    adapters = Adapters({"w": np.array([2.0, 5.0])}, recipe(TRAINING).lora, (0, 1), [])
    plan = replace(PLAN, likelihood=likelihood_too)
    found = ask_items(student, adapters, [[ITEMS[0], ITEMS[1]], [ITEMS[1]]], Things(), plan)
    assert [[record["item"] for record in records] for records in found] == [["x", "y"], ["y"]]
    likelihoods = [by_hand(w, Things().quiz(item, False)).log_likelihood if likelihood_too else []
                   for w, item in ((5.0, ITEMS[0]), (5.0, ITEMS[1]), (11.0, ITEMS[1]))]  # fmt: skip
    said = [(["yes", "yes"], [True, False], [False, True]), (["yes"], [True], [False]), (["no"], [False], [False])]
    for record, values, (answers, correct, heldout) in zip(sum(found, []), likelihoods, said, strict=True):
        assert record == {
            **STAGE.fields, "item": record["item"], "sample": 0, "retrain": 0, "sequences": 0, "tokens": 0, "steps": 0,
            "loss": None, "losses": [], "failure": None, "log_likelihood": values, "answers": answers,
            "correct": correct,
            "probability": None, "cut": [False] * len(answers), "heldout": heldout, "judge": "plain",
        }  # fmt: skip
    [[bare]] = ask_items(student, replace(adapters, tree={"w": np.array([2.0])}, order=(0,)), [[ITEMS[1]]], Things(),
                         replace(plan, answer_tokens=0))  # fmt: skip
    assert bare["judge"] is None and bare["answers"] is None
    assert student.engine.count("finetune") == 0


def starts(trials):
    """{(item, text, retrain): (adapter's seed, data order)} as the engine was given them."""
    _, engine = run(trials, candidates=8)
    given = [one for call in engine.calls if call[0] == "finetune" for one in call[2]]
    found = {}
    for trial in trials:
        texts = {tuple(TOKENIZER.encode(f"{trial.item.title} {trial.text}"))}
        [match] = [one for one in given if {row.tokens for row in one.rows} == texts and one.seed[-1] == trial.retrain]
        found[trial.item.id, trial.text, trial.retrain] = match.seed, match.order
    return found


def test_siblings_share_start_and_order_and_retrains_do_not():
    trials = [Trial(item, text, k, r) for item in ITEMS for k, text in enumerate(("good", "other")) for r in (0, 1)]
    found = starts(trials)
    for item in "xy":
        for retrain in (0, 1):
            assert found[item, "good", retrain] == found[item, "other", retrain]
        assert found[item, "good", 0][0] != found[item, "good", 1][0]
        assert found[item, "good", 0][1] != found[item, "good", 1][1]
    assert found["x", "good", 0][0] != found["y", "good", 0][0]
    assert found["x", "good", 0][1] == found["y", "good", 0][1]  # so that they can be trained together


def test_what_is_drawn_for_a_lesson_has_its_own_key_and_can_count_tokens():
    _, engine = run([Trial(ITEMS[0], "seeded", 1, 1)])
    rows = engine.calls[0][2][0].rows
    key = seeds.lesson(*SEED, ITEMS[0], 1)
    assert rows[1].tokens == tuple(TOKENIZER.encode(f"{key} {len(rows[0].tokens)}"))


def test_questions_of_a_group_are_bounded_by_decode_rows():
    big = Thing("z", "Big", tuple((f"q{i}", "yes", False) for i in range(15)))
    trials = [Trial(item, f"text {k}", k) for item in (*ITEMS, big) for k in range(3)]
    records, engine = run(trials, decode_rows=8)
    assert max(call[1] for call in engine.calls if call[0] in ("generate", "log_likelihood")) <= 8
    assert records == run(trials, decode_rows=1000)[0]
    assert len(records["z", 0, 0]["answers"]) == 15


def test_likelihoods_alone_put_more_trials_into_a_group():
    trials = [Trial(ITEMS[0], f"text {k}", k) for k in range(4)]

    def sizes(tokens):
        plan = replace(PLAN, answer_tokens=tokens)
        return [len(g) for g in run_trials(plain_actor(PlainEngine(decode_rows=4)), trials, Things(), plan)]

    assert sizes(8) == [2, 2] and sizes(0) == [4]


def test_answers_end_at_the_domain_s_stops():
    _, engine = run([Trial(ITEMS[0], "one")], domain=Things(answer_stops=("END",)))
    [generation] = [call[2] for call in engine.calls if call[0] == "generate"]
    assert generation.stopped(TOKENIZER.encode("an END")) and not generation.stopped(TOKENIZER.encode("an en"))


def test_a_judge_without_any_verdict_ends_the_run():
    trials = [Trial(ITEMS[0], "one"), Trial(ITEMS[1], "two")]
    with pytest.raises(UserError, match="the judge plain gave no verdict on any of 3 answers"):
        run(trials, Things(lambda gold, answer: None))
    records, _ = run(trials, Things(lambda gold, answer: None if gold == "no" else True))
    assert records["x", 0, 0]["correct"] == [True, None]
    nothing_asked = [Trial(Thing("n", "None", ()), "one")]
    assert run(nothing_asked, Things(lambda gold, answer: None))[0]["n", 0, 0]["correct"] == []


def test_measured_trials_are_recorded_and_not_run_again(tmp_path):
    recorder, engine = Recorder(tmp_path, dict), PlainEngine()
    trials = [Trial(item, text, k) for item in ITEMS for k, text in enumerate(("good", "other"))]
    first = measure(plain_actor(engine), trials[:3], Things(), PLAN, recorder)
    assert list(first) == [STAGE.trial("x", 0, 0), STAGE.trial("x", 1, 0), STAGE.trial("y", 0, 0)]
    assert all(first[key] == recorder.trials[key] for key in first) and len(recorder.phases.all()) == 1
    count = engine.count("finetune")
    assert measure(plain_actor(engine), trials[:3], Things(), PLAN, recorder) == first
    assert engine.count("finetune") == count
    both = measure(plain_actor(engine), trials, Things(), PLAN, recorder)
    assert len(both) == 4 and engine.calls[-1] and [c[1] for c in engine.calls if c[0] == "finetune"][count:] == [1]
    recorder.close()


def test_the_loss_is_that_of_the_last_epoch():
    losses = np.array([9.0, 8.0, 3.0, 1.0, 5.0, 7.0])
    assert last_epoch(losses, 3) == 6.0 and last_epoch(losses, 2) == pytest.approx(13 / 3)
    assert last_epoch(losses, 1) == pytest.approx(33 / 6)
    assert last_epoch(np.array([]), 3) is None and last_epoch(np.array([1.0, np.nan]), 1) is None


# ---------------------------------------------------------------- on the real engine


@pytest.fixture(scope="module")
def tiny(home, actors):
    """(actor of a tiny model, its config's inner training)."""
    settings = config.from_dict(tiny_run.tiny_values(home))
    enable_cache(settings.engine.cache)
    return actors(settings.model.policy, settings), settings


def test_asked_together_each_adapter_answers_as_it_does_alone_and_one_may_have_diverged(tiny):
    actor, settings = tiny
    loops = [loop("a ferry", order=2, seed=0), loop("to Arlo", seed=1), loop("at seven", order=2, seed=2, rate=1e30)]
    some = [candidate(actor, one, settings.inner) for one in [*loops, loop("or eight", seed=3)]]
    adapters = train(actor, some, settings.inner)
    assert adapters.order == (1, 3, 0, 2)
    quizzes = [quiz(f"item {i}", MANY[:count]) for i, count in enumerate((1, 2, 1, 1))]
    together = [found.log_likelihood for found in ask(actor, adapters, quizzes, 0)]
    for lane, index in enumerate(adapters.order):
        tree = jax.tree.map(lambda leaf, lane=lane: leaf[lane : lane + 1], adapters.tree)
        [alone] = ask(actor, replace(adapters, tree=tree, order=(0,)), [quizzes[index]], 0)
        if index == 2:
            assert alone.log_likelihood == together[2] == [None] and np.isnan(adapters.losses[2][-1])
        else:
            assert alone.log_likelihood == pytest.approx(together[index], abs=1e-4)
            assert np.isfinite(adapters.losses[index]).all()
    assert len({round(value, 3) for index in (0, 1, 3) for value in together[index]}) == 4


def test_teaching_is_a_plain_loop_of_steps_and_merging_adds_its_effect(tiny):
    """By sft_step, from an adapter and batches put together here."""
    actor, settings = tiny
    training = replace(settings.outer.sft, accumulation=2, epochs=2, warmup_steps=1, weight_decay=0.1)
    lessons = [example("the ferry", "Go?"), example("to Arlo", "Where?", closing=True), example("at seven", "When?")]
    learned, loss = teach(actor, lessons, training, (5, 1, 2))
    rows = tuple(actor.row(one) for one in lessons)
    how = recipe(training)
    steps = steps_by_hand(Candidate(rows, training.learning_rate, 2, 1, (5, 1, 2), (5, 1, 2)), 2)
    assert len(steps) == 4
    key = jax.random.key(0)
    for part in (5, 1, 2):
        key = jax.random.fold_in(key, part)
    adapter, length = init_adapter(key, actor.base, how.lora), bucket(max(len(row.tokens) for row in rows))
    program = sft.Program(Transformer(actor.source.config, how.lora.scale), how.optimizer, 64)
    state = sft.init_state(how.optimizer, {"lora": adapter})
    hyper = sft.Hyper(jnp.float32(training.learning_rate), jnp.int32(4), jnp.int32(1))
    step, losses = jax.jit(sft.sft_step, static_argnums=0), []
    for batch in steps:
        tokens, weights = np.zeros((2, length), np.int32), np.zeros((2, length), np.float32)
        for place, row in enumerate(batch):
            tokens[place, : len(row.tokens)], weights[place, : len(row.tokens)] = row.tokens, row.weights
        given = sft.Batch(tokens[None], weights[None], np.array(True))
        state, value = step(program, {"params": actor.base}, state, given, hyper)
        losses.append(float(value))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), learned, state.trainable["lora"])
    assert loss == pytest.approx(np.mean(losses[2:]), rel=1e-4)
    merged = merge(actor, learned, training)
    factors = learned["layers"]["q_proj"]
    effect = np.einsum("LDR,LRF->LDF", factors["A"], factors["B"]) * training.alpha / training.rank
    kernel = actor.base["layers"]["q_proj"]["kernel"]
    np.testing.assert_allclose(merged.base["layers"]["q_proj"]["kernel"], kernel + effect, atol=1e-5)
    assert np.abs(effect).max() > 1e-3 and merged.engine is actor.engine


def test_the_weights_themselves_take_the_place_of_the_old_ones():
    actor = plain_actor(weight=2.0)
    assert merge(actor, {"w": np.array(5.0)}, replace(TRAINING, rank=0)).base["w"] == 5.0
    assert merge(actor, {"w": np.array(5.0)}, TRAINING).base["w"] == 12.0 and actor.base["w"] == 2.0
