"""The whole loop on a tiny random model: what is recorded, what is chosen, and which policy did what."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from chat_server import completion, error, servers
from etils import epath
from test_remote_judge import answer_in
from tiny_run import pick

from seal_jax import main, seeds
from seal_jax.config import from_dict
from seal_jax.domains.domain import Example
from seal_jax.engine.engine import Engine
from seal_jax.engine.packing import Row
from seal_jax.engine.weights import Weights
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, judging, rounds
from seal_jax.judges import endpoint
from seal_jax.report import tables
from seal_jax.report.recorded import load
from seal_jax.report.watch import Watch
from seal_jax.runs import checkpoint
from seal_jax.runs.keys import ANSWER, EVALUATION, REWARD, TEACH, TRAIN, UNTRAINED, Stage
from seal_jax.runs.records import read
from seal_jax.student.train import teach
from seal_jax.student.trials import Plan, Trial, run_trials

ROWS = {
    ("base", 0): "base", ("passage in context", 0): "passage in context", ("passage only", 0): "passage only",
    ("sentences", 0): "sentences", ("SEAL", 0): "self-edits, no RL", ("SEAL", 1): "SEAL, round 1",
    ("SEAL", 2): "SEAL, round 2", ("random", 1): "random, round 1", ("random", 2): "random, round 2",
}  # fmt: skip


def lines_of(json_file: Path) -> list[dict]:
    """Records without the reader that is under test."""
    return [json.loads(line) for line in json_file.read_text().splitlines()]


def found_in(workdir: Path) -> dict[str, list[dict]]:
    return {name: lines_of(workdir / f"{name}.jsonl") for name in (*tiny_run.KEYS, "phases")}


def table_of(workdir: Path) -> dict[tuple[str, int], tables.Line]:
    return {(line.arm, line.round): line for line in tables.lines(load(epath.Path(workdir)))}


def log_likelihoods(workdir: Path) -> dict[tuple[str, int], float]:
    return {key: line.measures["log_likelihood"].mean for key, line in table_of(workdir).items()}


def answered(trials: list[dict], arm: str, number: int) -> list[dict]:
    return pick(trials, split=EVALUATION, arm=arm, round=number, purpose=ANSWER)


# ---------------------------------------------------------------- what a run leaves


def test_the_table_is_what_the_records_say(whole):
    _, workdir = whole
    trials, table = found_in(workdir)["trials"], table_of(workdir)
    assert {key: line.name for key, line in table.items()} == ROWS
    means = {}
    for key, line in table.items():
        values: dict[str, list[float]] = {}
        for trial in answered(trials, *key):
            values.setdefault(trial["item"], []).append(sum(trial["log_likelihood"]) / 3)
        means[key] = {item: sum(v) / len(v) for item, v in values.items()}
        found = line.measures["log_likelihood"]
        assert found.mean == pytest.approx(sum(means[key].values()) / 2) and found.count == 2
        gains = [means[key][item] - means["base", 0][item] for item in means["base", 0]]
        assert key == ("base", 0) or line.over["over untrained"]["log_likelihood"].mean == pytest.approx(sum(gains) / 2)
    assert [len(answered(trials, *key)) for key in ROWS] == [2, 2, 2, 2, 4, 4, 4, 4, 4]
    values = [line.measures["log_likelihood"].mean for line in table.values()]
    assert len(set(values)) == len(values)  # every row trained on something else


def test_everything_is_recorded(whole):
    _, workdir = whole
    found = found_in(workdir)
    edits, trials = found["self_edits"], found["trials"]
    for stage in ((TRAIN, "SEAL", 1), (TRAIN, "SEAL", 2), (TRAIN, "random", 2), (EVALUATION, "random", 2)):
        assert len(pick(edits, **dict(zip(("split", "arm", "round"), stage, strict=True)))) == 4
    assert not pick(edits, split=TRAIN, arm="random", round=1)  # round 1 has the same self-edits in both arms
    assert not pick(trials, split=TRAIN, arm="random")  # the control needs no rewards
    asked, rewarded = answered(trials, "base", 0)[0], pick(trials, split=TRAIN, round=1, purpose=REWARD)[0]
    assert len(asked["answers"]) == len(asked["correct"]) == len(asked["log_likelihood"]) == len(asked["cut"]) == 3
    assert rewarded["answers"] is None and rewarded["judge"] is None  # a likelihood reward generates nothing
    assert sum(rewarded["heldout"]) == 1 and not any(asked["heldout"])
    assert {trial["item"] for trial in trials} == {item["item"] for item in found["items"]}
    assert {(row["arm"], row["round"]): row["name"] for row in found["rows"]} == ROWS
    taught = pick(found["phases"], purpose=TEACH)
    assert [phase["lessons"] for phase in taught] == [2, 2, 2, 2] and all(phase["loss"] > 0 for phase in taught)
    assert (workdir / "report.html").stat().st_size > 50_000 and list((workdir / "metrics").glob("events.*"))
    points = {(point["name"], point["step"]) for point in read(workdir / "metrics.jsonl")}
    assert {("reward/SEAL/best", 2), ("log_likelihood/random", 1), ("real_token_fraction/SEAL", 2)} <= points


def test_rewards_are_gains_on_the_questions_that_count(whole):
    _, workdir = whole
    trials = found_in(workdir)["trials"]
    base = {t["item"]: t for t in pick(trials, split=TRAIN, arm="SEAL", round=1, purpose=UNTRAINED)}
    found = {(t["item"], t["sample"]): t for t in pick(trials, split=TRAIN, arm="SEAL", round=1, purpose=REWARD)}

    def mean(trial, heldout):
        kept = [v for v, h in zip(trial["log_likelihood"], trial["heldout"], strict=True) if h == heldout]
        return sum(kept) / len(kept)

    rollouts = pick(found_in(workdir)["rollouts"], arm="SEAL", round=1)
    assert len(rollouts) == 2
    for record in rollouts:
        for name, heldout in (("rewards", False), ("heldout_rewards", True)):
            start = mean(base[record["item"]], heldout)
            gains = [mean(found[record["item"], k], heldout) - start for k in (0, 1)]
            assert record[name] == pytest.approx(gains)
        assert record["chosen"] == [int(np.argmax(record["rewards"]))] and record["base"] == 0.0


# ---------------------------------------------------------------- which policy did what


@pytest.fixture(scope="module")
def setup(whole, actors, tmp_path_factory):
    """What the uninterrupted run is made of, with records of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_actor", actors)
        return assemble.prepare(from_dict(whole[0]), epath.Path(tmp_path_factory.mktemp("setup")))


@pytest.fixture(scope="module")
def policies(whole, setup):
    """{arm: the policies after 0, 1 and 2 rounds}, merged from the checkpoints with NumPy."""
    how, found = setup.config.outer.sft, {}
    for arm in ("SEAL", "random"):
        found[arm] = [setup.policy]
        for number in checkpoint.steps(whole[1] / "checkpoints" / arm):
            learned = checkpoint.load(whole[1] / "checkpoints" / arm, number)["layers"]
            params = found[arm][-1].weights()
            layers = {name: dict(value) for name, value in params["layers"].items()}
            for name, factors in learned.items():
                assert np.abs(factors["B"]).max() > 0
                change = np.einsum("LDR,LRF->LDF", factors["A"], factors["B"]) * how.alpha / how.rank
                layers[name]["kernel"] = layers[name]["kernel"] + change.astype(np.float32)
            found[arm].append(setup.policy.with_base(setup.policy.engine.put_base(params | {"layers": layers})))
    assert [len(each) for each in found.values()] == [3, 3]
    return found


def test_the_run_gives_the_base_with_all_lessons_merged(whole, fast, policies):
    setup = assemble.prepare(from_dict(whole[0]), epath.Path(whole[1]))
    policy = rounds.run(setup, lambda rows: None)
    for name in ("q_proj", "down_proj"):
        ours, expected = (actor.base["layers"][name]["kernel"] for actor in (policy, policies["SEAL"][2]))
        np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("arm", ["SEAL", "random"])
@pytest.mark.parametrize("number", [1, 2])
def test_the_policy_of_a_round_wrote_its_self_edits(whole, setup, policies, arm, number):
    """Log-probabilities that were recorded at sampling are those under the policy that should have written."""
    edits = found_in(whole[1])["self_edits"]
    source = "SEAL" if number == 1 else arm
    for split, items, teacher, writer in (
        (TRAIN, setup.train, source, policies[arm][number - 1]),
        (EVALUATION, setup.evaluation, arm, policies[arm][number]),
    ):
        found = pick(edits, split=split, arm=teacher, round=number)
        assert len(found) == 4
        for actor, right in ((writer, True), (policies[arm][(number + 1) % 3], False)):
            prompts = {item.id: setup.writes(actor).prompt(item) for item in items}
            rows = [
                Row((*prompts[e["item"]], *e["tokens"]), (0.0,) * len(prompts[e["item"]]) + (1.0,) * len(e["tokens"]))
                for e in found
            ]
            totals = actor.engine.log_likelihood(Weights(actor.base), [rows])[0]
            expected = [sum(edit["log_probs"]) for edit in found]
            assert np.allclose(totals, expected, atol=1e-3) == right


@pytest.mark.parametrize("number", [1, 2])
def test_the_policy_of_a_round_is_trained_and_asked(whole, setup, policies, number):
    found, config = found_in(whole[1]), setup.config
    cases = [
        (TRAIN, UNTRAINED, setup.train, policies["SEAL"][number - 1], 0),
        (TRAIN, REWARD, setup.train, policies["SEAL"][number - 1], 0),
        (EVALUATION, ANSWER, setup.evaluation, policies["SEAL"][number], config.evaluation.answer_tokens),
    ]
    for split, purpose, items, student, answer_tokens in cases:
        texts = {(e["item"], e["sample"]): e["text"] for e in pick(found["self_edits"], split=split, round=number)
                 if e["arm"] == "SEAL"}  # fmt: skip
        trials = [Trial(i, None if purpose == UNTRAINED else texts[i.id, k], k) for i in items for k in (0, 1)]
        trials = [trial for trial in trials if trial.text is not None or trial.sample == 0]
        seed = (config.seed, number if split == TRAIN else 0)
        plan = Plan(Stage(split, "SEAL", number, purpose), config.inner, answer_tokens, seed)
        ours = [record for group in run_trials(student, trials, setup.domain, plan) for record in group]
        theirs = pick(found["trials"], split=split, arm="SEAL", round=number, purpose=purpose)
        tiny_run.same(*(tiny_run.by_key({"trials": each}) for each in (ours, without_groups(theirs))))


def without_groups(found: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name != "_group"} for record in found]


def lessons_of(setup, found: dict[str, list[dict]], arm: str, number: int, source: str) -> list[Example]:
    """What the records say that a round taught; whole self-edits with their end, the others without."""
    chosen = {record["item"]: record["chosen"] for record in pick(found["rollouts"], arm=arm, round=number)}
    edits = {(e["item"], e["sample"]): e for e in pick(found["self_edits"], split=TRAIN, arm=source, round=number)}
    prompts = {item.id: setup.domain.edit_prompt(item, setup.policy.chat) for item in setup.train}
    return [
        Example(prompts[item.id], edits[item.id, k]["text"], edits[item.id, k]["finished"])
        for item in setup.train
        for k in chosen[item.id]
    ]  # fmt: skip


def same_adapter(ours, theirs) -> None:
    for name in ("q_proj", "down_proj"):
        for factor in ("A", "B"):
            np.testing.assert_allclose(ours["layers"][name][factor], theirs["layers"][name][factor], atol=1e-5)


@pytest.mark.parametrize("arm", ["SEAL", "random"])
def test_each_round_teaches_the_policy_of_the_round_before(whole, setup, policies, arm):
    found = found_in(whole[1])
    for number in (1, 2):
        lessons = lessons_of(setup, found, arm, number, "SEAL" if number == 1 else arm)
        learned, loss = teach(policies[arm][number - 1], lessons, setup.config.outer.sft, seeds.teach(0, number))
        same_adapter(learned, checkpoint.load(whole[1] / "checkpoints" / arm, number))
        [phase] = pick(found["phases"], arm=arm, round=number, purpose=TEACH)
        assert phase["loss"] == pytest.approx(loss, abs=1e-4)


# ---------------------------------------------------------------- one run in which much is different


LENGTH = "length"


def by_length(items):
    return [len(item.answer) % 3 == 0 for item in items]


by_length.name = LENGTH


@pytest.fixture
def own_judge(monkeypatch):
    """The judge of the reward, of kind 'remote', goes by the length of answers."""
    make = judging.make
    monkeypatch.setattr(
        judging, "make", lambda judge, *rest: by_length if judge.kind == "remote" else make(judge, *rest)
    )  # fmt: skip


def with_completions(home: Path, file: Path) -> str:
    """The passages to learn from with three completions each, of which the first two are the same."""
    items = json.loads((home / "train.json").read_text())
    for number, item in enumerate(items):
        item["completions"] = [f"The {number} leaves."] * 2 + ["It's the only one."]
    file.write_text(json.dumps(items))
    return str(file)


@pytest.fixture(scope="module")
def varied(home, actors, tmp_path_factory):
    """(config, folder, setup) of a run with self-edits from a file, another student, two retrains and two judges."""
    folder = tmp_path_factory.mktemp("varied")
    values = tiny_run.tiny_values(
        home,
        model={"student": str(home / "student")},
        data={"train": with_completions(home, folder / "train.json"), "heldout_fraction": 0.0},
        outer={"author": "file", "samples": 3, "selection": "above_base"},
        reward={"accuracy_weight": 0.5, "retrains": 2, "answer_tokens": 2, "judge": {"kind": "remote"}},
        evaluation={"samples": 1, "answer_tokens": 4, "judge": {"kind": "local"}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "load_actor", actors)
        patch.setattr(judging, "load_actor", actors)
        patch.setattr(Watch, "after_rows", lambda self, rows: None)
        own_judge.__wrapped__(patch)
        tiny_run.run(values, folder / "run")
        return values, folder / "run", assemble.prepare(from_dict(values), epath.Path(folder / "setup"))


def test_reward_and_evaluation_have_their_own_judges_and_lengths(varied, home):
    values, workdir, _ = varied
    found = found_in(workdir)
    tokens = {TRAIN: 2, EVALUATION: 4}
    for split, judge in ((TRAIN, LENGTH), (EVALUATION, f"local:{home / 'policy'}")):
        trials = pick(found["trials"], split=split)
        assert trials and {trial["judge"] for trial in trials} == {judge}
        asked = REWARD, UNTRAINED, ANSWER
        phases = [phase for phase in pick(found["phases"], split=split) if phase["purpose"] in asked]
        answers = sum(len(trial["answers"]) for trial in trials)
        generated = sum(phase["generated"] for phase in phases)
        assert (tokens[split] - 1) * answers < generated <= tokens[split] * answers
        assert any(any(trial["cut"]) for trial in trials)


def test_accuracy_and_likelihood_make_the_reward_over_retrains(varied):
    found = found_in(varied[1])
    worth: dict[tuple, list[float]] = {}
    base = {}
    for trial in pick(found["trials"], split=TRAIN):
        assert trial["correct"] == [len(answer) % 3 == 0 for answer in trial["answers"]]
        right, likely = sum(trial["correct"]) / 3, sum(trial["log_likelihood"]) / 3
        if trial["purpose"] == UNTRAINED:
            base[trial["item"]] = right, likely
        else:
            worth.setdefault((trial["item"], trial["sample"]), []).append(
                0.5 * right + likely - base[trial["item"]][1]
            )
    assert len(worth) == 6 and all(len(each) == 2 for each in worth.values())
    assert len({round(value, 6) for each in worth.values() for value in each}) > 4
    records = pick(found["rollouts"], arm="SEAL")
    for record in records:
        assert record["rewards"] == pytest.approx([sum(worth[record["item"], k]) / 2 for k in (0, 1, 2)])
        assert record["base"] == pytest.approx(0.5 * base[record["item"]][0])
        assert record["heldout_rewards"] == [None] * 3 and record["heldout_base"] is None
        assert record["chosen"] == [k for k in (0, 1, 2) if record["rewards"][k] > record["base"]]


def test_siblings_share_their_random_numbers_and_retrains_do_not(varied):
    trials = {
        (t["item"], t["sample"], t["retrain"]): t
        for t in pick(found_in(varied[1])["trials"], split=TRAIN, purpose=REWARD)
    }
    compared = ("loss", "log_likelihood", "answers")
    for item, sample, retrain in trials:
        ours = [trials[item, sample, retrain][name] for name in compared]
        if sample == 0:  # samples 0 and 1 have the same text
            tiny_run.same(ours, [trials[item, 1, retrain][name] for name in compared])
        if retrain == 0:
            assert abs(ours[0] - trials[item, sample, 1]["loss"]) > 1e-4


def test_the_control_learns_from_as_many_as_the_rule_chose(varied):
    counts = {
        arm: {record["item"]: len(record["chosen"]) for record in pick(found_in(varied[1])["rollouts"], arm=arm)}
        for arm in ("SEAL", "random")
    }
    assert counts["SEAL"] == counts["random"] and any(count > 1 for count in counts["SEAL"].values())
    assert all(record["rewards"] is None for record in pick(found_in(varied[1])["rollouts"], arm="random"))


def test_a_file_teaches_whole_self_edits(varied):
    values, workdir, setup = varied
    found = found_in(workdir)
    texts = {p["title"] + p["context"]: p["completions"] for p in json.loads(Path(values["data"]["train"]).read_text())}
    shown = {item["item"]: item["title"] + item["context"] for item in pick(found["items"], split=TRAIN)}
    edits = pick(found["self_edits"], split=TRAIN)
    assert len(edits) == 6 and all(edit["text"] == texts[shown[edit["item"]]][edit["sample"]] for edit in edits)
    for arm in ("SEAL", "random"):
        lessons = lessons_of(setup, found, arm, 1, "SEAL")
        assert all(lesson.closing for lesson in lessons)
        learned, _ = teach(setup.policy, lessons, setup.config.outer.sft, seeds.teach(0, 1))
        same_adapter(learned, checkpoint.load(workdir / "checkpoints" / arm, 1))


def test_too_few_completions_in_the_file_are_one_sentence(fast, home, tmp_path):
    train = with_completions(home, tmp_path / "train.json")
    values = tiny_run.tiny_values(home, data={"train": train}, outer={"author": "file", "samples": 4})
    with pytest.raises(UserError, match=r"train\.json: 'Arlo' has 3 completions and 4 are asked for; .*outer\.samples"):
        tiny_run.run(values, tmp_path / "run")


# ---------------------------------------------------------------- other roles and rules


def one_round(home, workdir, **changes) -> dict[str, list[dict]]:
    outer = {"rounds": 1, "random_control": False} | changes.pop("outer", {})
    tiny_run.run(tiny_run.tiny_values(home, outer=outer, **changes), workdir)
    return found_in(workdir)


def test_random_selection_measures_no_rewards(fast, home, tmp_path):
    found = one_round(home, tmp_path, outer={"selection": "random"})
    assert not pick(found["trials"], split=TRAIN)
    assert [len(record["chosen"]) for record in found["rollouts"]] == [1, 1]


def test_the_student_may_be_another_model(fast, home, tmp_path, whole):
    found = one_round(home, tmp_path, model={"student": str(home / "student")})
    own = found_in(whole[1])
    assert (
        answered(found["trials"], "base", 0)[0]["log_likelihood"]
        != answered(own["trials"], "base", 0)[0]["log_likelihood"]
    )
    ours, theirs = (pick(each["self_edits"], split=TRAIN, arm="SEAL", round=1) for each in (found, own))
    assert [edit["text"] for edit in ours] == [edit["text"] for edit in theirs]  # the policy's
    means = log_likelihoods(tmp_path)
    assert means["SEAL", 1] != means["SEAL", 0]
    learned = checkpoint.load(tmp_path / "checkpoints" / "SEAL", 1)
    assert np.abs(learned["layers"]["q_proj"]["B"]).max() > 0


def test_the_student_may_be_the_policy_before_round_1(fast, home, tmp_path, whole):
    found = one_round(home, tmp_path, model={"student": "initial"}, outer={"rounds": 2})
    for records, same in ((found, True), (found_in(whole[1]), False)):
        first, second = (
            {
                trial["item"]: trial["log_likelihood"]
                for trial in pick(records["trials"], split=TRAIN, arm="SEAL", round=number, purpose=UNTRAINED)
            }
            for number in (1, 2)
        )
        assert (first == second) == same


# ---------------------------------------------------------------- rounds that teach nothing, judges that fail


def test_a_round_that_selects_nothing_says_so_and_the_next_goes_on(fast, home, tmp_path, monkeypatch, capsys):
    calls, at = [], {}
    for name in ("finetune", "teach", "generate", "log_likelihood"):
        function = getattr(Engine, name)
        monkeypatch.setattr(Engine, name, lambda *args, do=function: calls.append(0) or do(*args))
    record = rounds.record_rollouts

    def noting(setup, arm, number, *rest):
        record(setup, arm, number, *rest)
        at["over", arm.name, number] = len(calls)

    monkeypatch.setattr(rounds, "record_rollouts", noting)
    after = "seal_jax.report.watch.Watch.after_rows"
    monkeypatch.setattr(after, lambda self, rows: at.update({("measured", *row): len(calls) for row in rows}))
    reward = "seal_jax.rewards.adapted.trial_reward"
    monkeypatch.setattr(reward, lambda trial, *_: float(trial["round"] == 2 and trial["purpose"] == REWARD))
    values = tiny_run.tiny_values(home, outer={"selection": "above_base", "rounds": 2})
    tiny_run.run(values, tmp_path)
    found, out = found_in(tmp_path), capsys.readouterr().out
    assert "\nto come (about " in out and "\nto come: about " in out and "to come\n" not in out
    for arm in ("SEAL", "random"):
        assert at["over", arm, 1] == at["measured", arm, 1] and at["over", arm, 2] < at["measured", arm, 2]
        assert f"{arm}, round 1: nothing was selected, so the policy stays as it was and is not measured again" in out
        assert [record["chosen"] for record in pick(found["rollouts"], arm=arm, round=1)] == [[], []]
        assert [record["chosen"] for record in pick(found["rollouts"], arm=arm, round=2)] == [[0, 1], [0, 1]]
        assert [row["same_as"] for row in pick(found["rows"], arm=arm)] == [["SEAL", 0], None][-2:] or arm == "SEAL"
        assert pick(found["rows"], arm=arm, round=1)[0]["same_as"] == ["SEAL", 0]
        assert checkpoint.steps(tmp_path / "checkpoints" / arm) == [2]
        assert not answered(found["trials"], arm, 1)
        assert not pick(found["self_edits"], split=EVALUATION, arm=arm, round=1)
    assert at["measured", "SEAL", 1] < at["over", "SEAL", 2]  # the next round writes self-edits of its own
    means = log_likelihoods(tmp_path)
    assert means["SEAL", 1] == means["SEAL", 0] == means["random", 1] and means["SEAL", 2] != means["SEAL", 1]
    assert table_of(tmp_path)["SEAL", 1].same_as == "self-edits, no RL"
    total = len(calls)
    tiny_run.run(values, tmp_path)
    assert len(calls) == total and tiny_run.records(tmp_path) == {
        name: without_groups(found[name]) for name in tiny_run.KEYS
    }


def test_a_judge_that_grades_nothing_ends_the_run_which_goes_on_with_another(fast, home, tmp_path, monkeypatch, capsys):
    asked = []

    def judge(items):
        asked.append(len(items))
        return [None] * len(items) if silent and len(asked) > 6 else by_length(items)

    judge.name = "moody"
    monkeypatch.setattr(judging, "make", lambda *_: judge)
    reward = {"accuracy_weight": 1.0, "likelihood_weight": 0.0}
    values = tiny_run.tiny_values(home, outer={"random_control": False}, reward=reward)
    silent = False
    tiny_run.run(values, tmp_path / "well")
    monkeypatch.setattr(main, "quiet", lambda: None)
    monkeypatch.setattr("sys.unraisablehook", None)  # main sets it; this restores it
    monkeypatch.setattr(main, "read_flags", lambda argv: (values, str(tmp_path / "run")))
    silent = True
    asked.clear()
    capsys.readouterr()
    assert main.main([]) == 2
    [*progress, sentence] = capsys.readouterr().err.splitlines()
    assert sentence.startswith("seal_jax: the judge moody gave no verdict on any of ") and "continue" in sentence
    assert not any("seal_jax:" in line or "Traceback" in line for line in progress)
    well, kept = (tiny_run.records(tmp_path / name) for name in ("well", "run"))
    assert kept["trials"] and kept["trials"] == well["trials"][: len(kept["trials"])] and not kept["rollouts"]
    silent = False
    assert main.main([]) == 0
    assert tiny_run.records(tmp_path / "run") == well


def test_verdicts_that_the_judge_did_not_give_are_reported(fast, home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("TINY_KEY", "not-a-secret")
    replies = error(503), completion("yes"), completion("no")
    with servers() as start:
        server = start(lambda answer, before: replies[len(answer) % 3], answer_in)
        judge = {"kind": "remote", "url": server.url, "model": "m", "key": "TINY_KEY"}
        found = one_round(home, tmp_path, reward={"judge": judge, "accuracy_weight": 1.0}, evaluation={"judge": judge})
    expected = {0: None, 1: True, 2: False}
    for trial in found["trials"]:
        assert trial["judge"] == "remote:m"
        for answer, verdict in zip(trial["answers"], trial["correct"], strict=True):
            assert verdict is (expected[len(answer) % 3] if answer.strip() else False)
    table = table_of(tmp_path)
    missing = sum(v is None for t in pick(found["trials"], split=EVALUATION) for v in t["correct"])
    assert missing and sum(line.counts.ungraded for line in table.values()) == missing
    out = capsys.readouterr().out
    assert "Answers without a verdict, left out of every mean" in " ".join(out.split()) and "judge remote:m" in out
    assert "not-a-secret" not in out + "".join(f.read_text() for f in tmp_path.glob("*.json*"))
    for key, line in table.items():
        known = tables.per_item(answered(found["trials"], *key), "accuracy")
        assert line.measures["accuracy"].count == len(known)
