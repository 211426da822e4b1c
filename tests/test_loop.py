"""The whole outer loop over an engine in plain Python, against the same loop written out: which model writes, learns,
is asked and is taught in every round, and what becomes of a run that was stopped."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_run
from etils import epath
from plain_engine import PlainEngine, Thing, Things, likelihood, plain_actor, speaks, trained

from seal_jax import config, seeds
from seal_jax.domains.domain import Control, Example
from seal_jax.engine.packing import Candidate
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, rounds
from seal_jax.experiments.world import World
from seal_jax.runs import checkpoint
from seal_jax.runs.keys import EVALUATION, Stage
from seal_jax.student.train import Loop, candidate

TRAIN = (Thing("x", "One", completions=("first", "second", "third")), Thing("y", "Two", completions=("a", "b", "c")))
EVALUATED = (Thing("e", "Three"), Thing("f", "Four"))
WEIGHTS = {"policy": 1.0, "student": 5.0, "judge": 9.0}


class Rig:
    """Assembles runs in one folder; `engines` are those of the models, which run after run share."""

    def __init__(self, home, folder, monkeypatch):
        self.home, self.folder = home, epath.Path(folder)
        self.engines = {name: PlainEngine() for name in WEIGHTS}
        self.world = World(TRAIN, EVALUATED, lambda judge: Things())
        self.loaded = []
        monkeypatch.setattr(assemble, "load_actor", self._load)

    def _load(self, source, setting):
        self.loaded.append(source)
        return plain_actor(self.engines[source], weight=WEIGHTS[source])

    def setup(self, **changes):
        changes["model"] = {"policy": "policy"} | changes.get("model", {})
        changes["outer"] = {"rounds": 2, "unfinished": "open"} | changes.get("outer", {})
        self.values = tiny_run.tiny_values(self.home, **changes)
        return assemble.assemble(config.from_dict(self.values), self.folder, self.world)

    def run(self, **changes):
        """(setup, last policy, rows in order)."""
        setup, rows = self.setup(**changes), []
        policy = rounds.run(setup, rows.extend)
        setup.recorder.close()
        return setup, policy, rows

    def calls(self):
        return sum(len(engine.calls) for engine in self.engines.values())


@pytest.fixture
def rig(home, tmp_path, monkeypatch):
    return Rig(home, tmp_path / "run", monkeypatch)


def said(weight, item, number, k, limit=8):
    """A self-edit: (text, whether it was finished)."""
    actor = plain_actor()
    tokens = actor.tokenizer.encode(speaks(weight, f"Write about {item.title}:", seeds.sample(0, number, item, k)))
    return actor.tokenizer.decode(tokens[:limit]), len(tokens) < limit


def adapted(student, item, text, number, retrain, training):
    """The number of a student after an inner loop."""
    loop = Loop(Things().lesson(item, text, (), len), seeds.adapter(0, number, item, retrain),
                seeds.order(0, number, retrain))  # fmt: skip
    return student + training.alpha / training.rank * trained(candidate(plain_actor(), loop, training), student)


def mean_likelihood(weight, item):
    rows = [plain_actor().row(gold) for gold in Things().quiz(item, False).gold]
    return float(np.mean([likelihood(weight, row) / sum(row.weights) for row in rows]))


def learned(policy, picked, number, training):
    """The policy after an M-step on [(item, sample)]."""
    examples = []
    for item, k in picked:
        text, finished = said(policy, item, number, k)
        examples.append(Example(Things().edit_prompt(item, False), text, closing=finished))
    rows = tuple(plain_actor().row(one) for one in examples)
    seed = seeds.teach(0, number)
    loop = Candidate(rows, training.learning_rate, training.epochs, training.warmup_steps, seed, seed)
    return policy + training.alpha / training.rank * trained(loop, policy)


def by_hand(setting, student=None):
    """Plain ReST^EM -> [(rewards {item: …}, chosen {item: sample}, policy)] of every round."""
    policy, found = 1.0, []
    for number in range(1, setting.outer.rounds + 1):
        reads = policy if student is None else student
        rewards = {}
        for item in TRAIN:
            start = mean_likelihood(reads, item)
            rewards[item.id] = []
            for k in range(setting.outer.samples):
                text, _ = said(policy, item, number, k)
                after = [adapted(reads, item, text, number, r, setting.inner) for r in range(setting.reward.retrains)]
                rewards[item.id].append(float(np.mean([mean_likelihood(w, item) - start for w in after])))
        chosen = {item.id: int(np.argmax(rewards[item.id])) for item in TRAIN}
        policy = learned(policy, [(item, chosen[item.id]) for item in TRAIN], number, setting.outer.sft)
        found.append((rewards, chosen, policy))
    return found


def test_two_rounds_are_those_of_plain_loops(rig):
    setup, policy, rows = rig.run(reward={"retrains": 2}, outer={"samples": 3})
    assert rows == [("base", 0), ("title only", 0), ("SEAL", 0), ("SEAL", 1), ("SEAL", 2), ("random", 1), ("random", 2)]
    wanted = by_hand(setup.config)
    for number, (rewards, chosen, _) in enumerate(wanted, 1):
        for item in TRAIN:
            record = setup.recorder.rollouts["SEAL", number, item.id]
            assert record["rewards"] == pytest.approx(rewards[item.id], abs=1e-8) and record["base"] == 0.0
            assert record["chosen"] == [chosen[item.id]]
    assert float(policy.base["w"]) == pytest.approx(wanted[-1][2])
    policies = [1.0, *(policy for _, _, policy in wanted)]
    for number, weight in enumerate(policies):  # every row: written and learned by the policy of its round
        for item in EVALUATED:
            for k in (0, 1):
                edit = setup.recorder.edits[Stage(EVALUATION, "SEAL", number).edit(item.id, k)]
                assert (edit["text"], edit["finished"]) == said(weight, item, 0, k)
                trial = setup.recorder.trials[Stage(EVALUATION, "SEAL", number, "answers").trial(item.id, k, 0)]
                after = adapted(weight, item, edit["text"], 0, 0, setup.config.inner)
                assert np.mean(trial["log_likelihood"]) == pytest.approx(mean_likelihood(after, item))


def test_the_random_arm_begins_with_the_same_self_edits_and_goes_its_own_way(rig):
    setup, _, _ = rig.run()
    recorder, policy = setup.recorder, 1.0
    edits = {(edit["split"], edit["arm"], edit["round"]) for edit in recorder.edits.all()}
    assert ("train", "random", 1) not in edits and ("train", "random", 2) in edits
    assert {trial["arm"] for trial in recorder.trials.all() if trial["split"] == "train"} == {"SEAL"}
    for number in (1, 2):
        found = {item: recorder.rollouts["random", number, item.id] for item in TRAIN}
        assert all(one["rewards"] is None and one["base"] is None for one in found.values())
        picked = [(item, k) for item, one in found.items() for k in one["chosen"]]
        assert len(picked) == 2
        policy = learned(policy, picked, number, setup.config.outer.sft)
        for item in EVALUATED:
            edit = recorder.edits[Stage(EVALUATION, "random", number).edit(item.id, 1)]
            assert edit["text"] == said(policy, item, 0, 1)[0]


@pytest.mark.parametrize("name, weight", [("initial", 1.0), ("student", 5.0)])
def test_a_student_of_its_own_learns_and_is_asked_in_every_row(rig, name, weight):
    setup, policy, _ = rig.run(model={"student": name}, outer={"random_control": False})
    wanted = by_hand(setup.config, student=weight)
    assert float(policy.base["w"]) == pytest.approx(wanted[-1][2])
    assert setup.recorder.rollouts["SEAL", 2, "x"]["rewards"] == pytest.approx(wanted[1][0]["x"], abs=1e-8)
    trial = setup.recorder.trials[Stage(EVALUATION, "base", 0, "answers").trial("e", 0, 0)]
    assert np.mean(trial["log_likelihood"]) == pytest.approx(mean_likelihood(weight, EVALUATED[0]))
    for number, writer in enumerate([1.0, *(policy for _, _, policy in wanted)]):
        trial = setup.recorder.trials[Stage(EVALUATION, "SEAL", number, "answers").trial("f", 1, 0)]
        after = adapted(weight, EVALUATED[1], said(writer, EVALUATED[1], 0, 1)[0], 0, 0, setup.config.inner)
        assert np.mean(trial["log_likelihood"]) == pytest.approx(mean_likelihood(after, EVALUATED[1]))
    assert rig.loaded == ["policy"] + ["student"] * (name == "student")


def test_rows_that_need_no_policy(rig):
    setup, _, _ = rig.run(outer={"rounds": 0}, evaluation={"retrains": 2, "answer_tokens": 5, "samples": 3})
    trials = setup.recorder.trials
    keys = [Stage(EVALUATION, "title only", 0, "answers").trial(item.id, k, r)
            for item in EVALUATED for k in (0, 1) for r in (0, 1)]  # fmt: skip
    for key in keys:
        item = next(item for item in EVALUATED if item.id == key[4])
        after = adapted(1.0, item, item.title, 0, key[6], setup.config.inner)
        assert np.mean(trials[key]["log_likelihood"]) == pytest.approx(mean_likelihood(after, item))
    counts = {}
    for trial in trials.all():
        counts[trial["arm"]] = counts.get(trial["arm"], 0) + 1
    assert counts == {"base": 2, "title only": 8, "SEAL": 12}
    assert [edit for edit in setup.recorder.edits.all() if edit["arm"] == "base"] == []
    assert {call[2].max_new for call in rig.engines["policy"].calls if call[0] == "generate"} == {5, 8}


def test_rows_say_what_they_are(rig):
    setup, _, _ = rig.run(outer={"rounds": 1})
    fields = [(row["arm"], row["round"], row["name"], row["kind"], row["same_as"]) for row in setup.recorder.rows.all()]
    assert fields == [
        ("base", 0, "base", "untrained", None), ("title only", 0, "title only", "control", None),
        ("SEAL", 0, "self-edits, no RL", "policy", None), ("SEAL", 1, "SEAL, round 1", "policy", None),
        ("random", 1, "random, round 1", "policy", None),
    ]  # fmt: skip
    phases = [p for p in setup.recorder.phases.all() if p["purpose"] == "finetuning"]
    assert [(p["split"], p["arm"], p["round"], p["lessons"]) for p in phases] == [
        ("train", "SEAL", 1, 2), ("train", "random", 1, 2),
    ]  # fmt: skip
    assert all(p["loss"] > 0 for p in phases)
    items = [(item["split"], item["item"], item["title"]) for item in setup.recorder.items.all()]
    assert items[:2] == [("train", "x", "One"), ("train", "y", "Two")]
    assert items[2:] == [("evaluation", "e", "Three"), ("evaluation", "f", "Four")]


# ---------------------------------------------------------------- continued


def test_a_finished_run_computes_nothing_again_and_gives_the_same_policy(rig):
    setup, policy, rows = rig.run()
    before, records = rig.calls(), {file.name: file.read_bytes() for file in rig.folder.glob("*.jsonl")}
    _, again, rows_again = rig.run()
    assert rig.calls() == before and rows_again == rows and again.base["w"] == policy.base["w"]
    assert records == {file.name: file.read_bytes() for file in rig.folder.glob("*.jsonl")}


def test_one_more_round_is_that_of_a_run_that_had_it_from_the_start(rig, home, tmp_path, monkeypatch):
    rig.run(outer={"rounds": 1})
    setup, policy, rows = rig.run(outer={"rounds": 2})
    other = Rig(home, tmp_path / "other", monkeypatch)
    whole, at_once, same_rows = other.run(outer={"rounds": 2})
    assert rows == same_rows and policy.base["w"] == at_once.base["w"]
    for name in ("rollouts", "trials", "edits"):
        ours, theirs = (getattr(one.recorder, name).all() for one in (setup, whole))
        assert sorted(map(repr, ours)) == sorted(map(repr, theirs))


def test_a_round_that_selects_nothing_is_said_and_measured_no_more(rig, capsys):
    changes = {"outer": {"rounds": 2, "selection": "correct"}, "reward": {"accuracy_weight": 1.0}}
    setup, policy, rows = rig.run(**changes)
    assert policy.base["w"] == 1.0 and rows[-4:] == [("SEAL", 1), ("SEAL", 2), ("random", 1), ("random", 2)]
    same = {(row["arm"], row["round"]): row["same_as"] for row in setup.recorder.rows.all()}
    assert same["SEAL", 0] is None and all(same[row] == ["SEAL", 0] for row in rows[-4:])
    assert not any(t["round"] and t["split"] == "evaluation" for t in setup.recorder.trials.all())
    out = capsys.readouterr().out
    said_so = "SEAL, round 2: nothing was selected, so the policy stays as it was and is not measured again\n"
    assert out.count(said_so) == 1
    assert not checkpoint.steps(f"{rig.folder}/checkpoints/SEAL") and rig.engines["policy"].count("teach") == 0
    before = rig.calls()
    rig.run(**changes)
    assert rig.calls() == before


def test_after_a_round_without_lessons_the_next_one_goes_on_with_the_policy_so_far(rig, monkeypatch):
    setup = rig.setup()
    inner = setup.arms[0].improver

    class Picky:
        needs_rewards = True

        def improve(self, policy, rollouts, seed):
            return inner.improve(policy, [] if seed[1] == 2 else rollouts, seed)

        def apply(self, policy, learned):
            return inner.apply(policy, learned)

    values = {"outer": {"rounds": 3, "random_control": False}}
    setup = replace(rig.setup(**values), arms=[rounds.Arm("SEAL", Picky())])
    policy = rounds.run(setup, lambda rows: None)
    first, _, third = (setup.recorder.rollouts["SEAL", number, "x"]["chosen"] for number in (1, 2, 3))
    assert setup.recorder.rollouts["SEAL", 2, "x"]["chosen"] == [] and first and third
    assert setup.recorder.rows["SEAL", 2]["same_as"] == ["SEAL", 1]
    assert setup.recorder.rows["SEAL", 3]["same_as"] is None
    assert checkpoint.steps(f"{rig.folder}/checkpoints/SEAL") == [1, 3]
    before = rig.calls()
    assert rounds.run(setup, lambda rows: None).base["w"] == policy.base["w"] and rig.calls() == before


def test_a_run_that_died_while_it_was_taught_teaches_again(rig, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rig.run()
    setup, policy, _ = rig.run(outer={"random_control": False})
    assert float(policy.base["w"]) == pytest.approx(by_hand(setup.config)[-1][2])
    phases = [(phase["split"], phase["round"], phase["purpose"]) for phase in setup.recorder.phases.all()]
    assert phases.count(("train", 1, "self-edits")) == 1 and phases.count(("train", 1, "finetuning")) == 2


# ---------------------------------------------------------------- from a config to a setup


def test_self_edits_of_a_file_teach_and_the_policy_writes_the_rows(rig):
    setup, _, _ = rig.run(outer={"author": "file", "rounds": 1, "samples": 3, "random_control": False})
    texts = {(e["item"], e["sample"]): e["text"] for e in setup.recorder.edits.all() if e["split"] == "train"}
    assert texts == {(item.id, k): text for item in TRAIN for k, text in enumerate(item.completions)}
    edit = setup.recorder.edits[Stage(EVALUATION, "SEAL", 0).edit("e", 0)]
    assert edit["text"] == said(1.0, EVALUATED[0], 0, 0)[0]
    with pytest.raises(UserError, match=f"{rig.values['data']['train']}: 'One' has 3 completions and 4"):
        rig.run(outer={"author": "file", "rounds": 2, "samples": 4, "random_control": False})


@pytest.mark.parametrize(
    "reward, outer, asks",
    [
        ({}, {}, False),
        ({"accuracy_weight": 0.5}, {}, True),
        ({}, {"selection": "correct"}, True),
        ({}, {"selection": "above_base"}, False),
    ],
)
def test_the_reward_asks_where_answers_count(rig, reward, outer, asks):
    setup = rig.setup(reward=reward, outer=outer, model={"student": "student"})
    found = setup.reward
    assert found.asks is asks and found.weights == setup.config.reward and found.training == setup.config.inner
    assert found.seed == 0 and found.recorder is setup.recorder
    assert setup.arms[0].improver.rule == outer.get("selection", "best")


def test_selection_at_random_needs_no_rewards(rig):
    setup, _, rows = rig.run(outer={"selection": "random", "random_control": False})
    assert rows[-1] == ("SEAL", 2) and not any(t["split"] == "train" for t in setup.recorder.trials.all())
    assert all(len(record["chosen"]) == 1 for record in setup.recorder.rollouts.all())
    sft = setup.config.outer.sft
    assert setup.arms[0].improver.training == sft and setup.arms[0].improver.unfinished == "open"


def test_judges_of_reward_and_evaluation_are_made_apart(rig, monkeypatch):
    made = []
    monkeypatch.setattr(assemble.judging, "make", lambda judge, setting, policy: made.append(policy) or judge)
    rig.world = replace(rig.world, domain=lambda judge: Things(grader=judge.kind))
    judge = {"kind": "local", "model": "", "url": "", "key": ""}
    setup = rig.setup(model={"student": "student"}, reward={"judge": judge})
    assert setup.domain.grader == "lexical" and setup.reward.domain.grader == "local"
    assert all(actor.base["w"] == 1.0 for actor in made) and setup.writes(setup.policy).domain.grader == "lexical"


def test_how_the_policy_writes_is_the_world_s_and_the_config_s(rig):
    rig.world = replace(rig.world, attempts=4, grammar=lambda policy: ("grammar", float(policy.base["w"])))
    setup = rig.setup()
    for author in (setup.writes(setup.policy), setup.teaches(setup.policy)):
        assert author.attempts == 4 and author.grammar == ("grammar", 1.0) and author.actor is setup.policy
        assert author.sampling == setup.config.sampling


def test_a_note_about_the_items_is_printed(rig, capsys):
    rig.setup()
    assert capsys.readouterr().out == ""
    rig.world = replace(rig.world, note="Two things are held out.")
    rig.setup()
    assert capsys.readouterr().out == "Two things are held out.\n"


def test_items_to_learn_from_and_to_evaluate_on_are_different(rig):
    many = tuple(Thing(name, name.upper()) for name in "pqrs")
    rig.world = replace(rig.world, evaluation=(*EVALUATED, TRAIN[1]))
    with pytest.raises(UserError, match=r"config.data.evaluation: 1 of its items .* \('Two'\)"):
        rig.setup()
    rig.world = replace(rig.world, train=many, evaluation=many)
    with pytest.raises(UserError, match=r"4 of its items .*\('P', 'Q', 'R', …\)"):
        rig.setup()
    rig.world = replace(rig.world, train=many[:3], evaluation=many[:3])
    with pytest.raises(UserError, match=r"\('P', 'Q', 'R'\)"):
        rig.setup()


def test_a_chat_is_refused_where_a_model_has_none(rig, monkeypatch):
    rig.world = replace(rig.world, chat_only=True)
    with pytest.raises(UserError, match="turns of a chat"):
        rig.setup()
    chats = {"policy": True, "student": False}
    monkeypatch.setattr(assemble, "load_actor", lambda source, setting: plain_actor(chat=chats[source]))
    with pytest.raises(UserError, match="turns of a chat"):
        rig.setup(model={"student": "student"})
    chats["student"] = True
    rig.setup(model={"student": "student"})


def tokens(prompt):
    return len(plain_actor().tokenizer.encode_prompt(prompt))


def test_prompts_and_what_follows_them_must_fit_the_context(rig):
    longest = Thing("l", "Long " * 20, (("short?", "yes", False), ("longer " * 30, "yes", False)))
    rig.world = replace(rig.world, train=(*TRAIN, longest))
    room = 512 - tokens(Things().edit_prompt(longest, False))
    asked = 512 - tokens(Things().quiz(longest, False).prompts[1])
    evaluation = {"answer_tokens": asked + 9}  # whose questions are shorter
    rig.setup(sampling={"max_new_tokens": room}, reward={"answer_tokens": asked}, evaluation=evaluation)
    title = f"of {longest.title!r}, has {512 - room} tokens, which with {room + 1} new ones are more than the 512 of"
    with pytest.raises(UserError, match="config.sampling.max_new_tokens: .*lower it to at most") as caught:
        rig.setup(sampling={"max_new_tokens": room + 1})
    assert title in str(caught.value) and f"at most {room}" in str(caught.value)
    with pytest.raises(UserError, match=f"config.reward.answer_tokens: .*lower it to at most {asked}"):
        rig.setup(reward={"answer_tokens": asked + 1})
    rig.setup(sampling={"max_new_tokens": room + 1}, outer={"rounds": 0})  # nothing is written about it
    rig.world = replace(rig.world, train=TRAIN, evaluation=(*EVALUATED, longest))
    with pytest.raises(UserError, match=f"config.evaluation.answer_tokens: .*lower it to at most {asked}"):
        rig.setup(evaluation={"answer_tokens": asked + 1})
    endless = Thing("l", "Long " * 400)
    rig.world = replace(rig.world, evaluation=(endless,))
    with pytest.raises(UserError, match="leave that item out, or take a model with a longer context"):
        rig.setup()


@pytest.mark.parametrize(
    "length, mend", [(511, "at most 1"), (512, "leave that item out"), (600, "leave that item out")]
)
def test_no_one_is_told_to_write_nothing(length, mend):
    with pytest.raises(UserError, match=mend):
        assemble._check_room("config.x", 8, {"short": 3, "long": length}, plain_actor())


def test_usage_counts_each_engine_once(rig):
    setup = rig.setup(model={"student": "student"})
    one, two = rig.engines["policy"], rig.engines["student"]
    one.usage.real, two.usage.real, one.usage.slots, two.usage.slots = 1, 20, 3, 40
    one.usage.generated, two.usage.generated, one.programs.count, two.programs.count = 5, 60, 7, 80
    one.programs.seconds, two.programs.seconds = 0.5, 9.0
    wanted = {"real_tokens": 21, "token_slots": 43, "generated": 65, "programs": 87, "compile_seconds": 9.5}
    assert assemble.usage([setup.policy, setup.student]) == wanted
    assert assemble.usage([setup.policy, setup.policy])["real_tokens"] == 1
    with setup.recorder.phase(Stage(EVALUATION, "base", 0)):
        one.usage.real, two.usage.generated = 2, 61
    [phase] = setup.recorder.phases.all()
    assert (phase["real_tokens"], phase["generated"], phase["programs"]) == (1, 1, 0)


def test_the_heading_says_what_is_about_to_run(rig):
    wanted = "policy policy; 2 things to learn from, 2 to evaluate on; judge plain"
    assert assemble.heading(rig.setup()) == wanted
    named = assemble.heading(rig.setup(model={"student": "student"}))
    assert named == wanted.replace("policy policy", "policy policy, student student")


def test_a_control_with_samples_of_its_own(rig):
    class Three(Things):
        def controls(self):
            return [Control("three", lambda item, k: f"{item.title} {k}", samples=3)]

    rig.world = replace(rig.world, domain=lambda judge: Three())
    setup, _, rows = rig.run(outer={"rounds": 0})
    assert rows == [("three", 0), ("SEAL", 0)]
    assert len([t for t in setup.recorder.trials.all() if t["arm"] == "three"]) == 6
