"""From a config to a reward: which judge, model, prompt and limits it gets. No model is loaded."""

from types import SimpleNamespace

import pytest
from etils import epath
from plain_engine import PlainEngine, plain_actor

from seal_jax import config, seeds
from seal_jax.authors.policy import Policy
from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge.corpus import Passage, Question
from seal_jax.domains.knowledge.knowledge import Knowledge
from seal_jax.domains.knowledge.sequences import Rules
from seal_jax.experiments import judging, rewarding
from seal_jax.experiments.world import World
from seal_jax.judges.endpoint import Missing, Patience, Reply
from seal_jax.judges.rubric import CRITERIA
from seal_jax.rewards.adapted import Adapted
from seal_jax.rewards.own_questions import OwnQuestions
from seal_jax.rewards.rubric import Rubric
from seal_jax.runs.recorder import Recorder

WEIR = Passage("w", "Weir", "Torvald built it.", (Question("Who?", "Torvald", False),))
MILL = Passage("m", "Mill", "Bruna built it.", ())
FOUR = dict.fromkeys(CRITERIA, 3.0)


def graded(answered):
    return [True for _ in answered]


graded.name = "all right"


def made(actor=None, **changes):
    """(config, what `make` gives, policy)."""
    values = config.defaults()
    values["model"]["policy"] = "the policy"
    for group, fields in changes.items():
        values[group] |= fields
    setting, policy = config.from_dict(values), actor or plain_actor()
    world = World((), (), lambda judge: Knowledge("rewrite", Rules(), 1e-3, 1, judge))
    return setting, rewarding.make(setting, world, policy), policy


@pytest.fixture
def recorder(tmp_path):
    found = Recorder(epath.Path(tmp_path), dict)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("reward", "outer", "asks"),
    [
        ({}, {}, True), ({"accuracy_weight": 0.0, "likelihood_weight": 1.0}, {}, False),
        ({"accuracy_weight": 0.0, "likelihood_weight": 1.0}, {"selection": "correct"}, True),
        ({"accuracy_weight": 0.5}, {"selection": "above_base"}, True),
    ],
)  # fmt: skip
def test_a_reward_by_answers_has_a_judge_of_its_own(recorder, monkeypatch, reward, outer, asks):
    asked = []
    monkeypatch.setattr(judging, "make", lambda *rest: asked.append(rest) or graded)
    setting, make, policy = made(reward=reward, outer=outer)
    assert asked == [(setting.reward.judge, setting, policy)]  # before there are records
    found = make(recorder)
    assert isinstance(found, Adapted) and found.domain.judge is graded
    assert (found.weights, found.training, found.seed) == (setting.reward, setting.inner, setting.seed)
    assert found.asks is asks and found.recorder is recorder


def test_own_questions_are_asked_of_the_first_policy_once(recorder, monkeypatch):
    monkeypatch.setattr(judging, "make", lambda *rest: graded)
    prompts = []

    def says(weight, prompt, seed):
        prompts.append((prompt, seed))
        return " Who built it?\nAnswer: Torvald" if "\nWeir\n" in prompt else ""

    actor = plain_actor(PlainEngine(says))
    setting, make, _ = made(actor, reward={"kind": "own_questions"}, sampling={"max_new_tokens": 40}, data={
        "heldout_fraction": 0.0})  # fmt: skip
    found = make(recorder)
    assert isinstance(found, OwnQuestions) and isinstance(found.reward, Adapted) and found.reward.asks
    wanted = {"w": "Question 1: Who built it?\nAnswer: Torvald", "m": "Question 1:"}
    assert dict(found.write([WEIR, MILL])) == wanted
    assert all(prompt.endswith("Question 1:") for prompt, _ in prompts)
    assert {seed for _, seed in prompts} == {seeds.sample(0, 0, item, 0) for item in (WEIR, MILL)}
    keys = {(e["split"], e["arm"], e["round"], e["sample"]) for e in recorder.edits.all()}
    assert keys == {("train", "own questions", 0, 0)}
    before = len(prompts)
    assert dict(found.write([WEIR, MILL])) == wanted and len(prompts) == before


@pytest.mark.parametrize("chat", [False, True])
def test_a_local_judge_rates_greedily_what_it_is_asked(recorder, monkeypatch, chat):
    calls = []

    def complete(self, prompts, keys):
        calls.append((self, prompts, keys))
        replies = ["length: 3\ndiversity: 3\nquality: 3\ncorrectness: 3", "good"]
        text = [reply if chat else reply.removeprefix("length:") for reply in replies]
        return [[SimpleNamespace(text=one)] for one in text[: len(prompts)]]

    monkeypatch.setattr(Policy, "complete", complete)
    setting, make, policy = made(plain_actor(chat=chat), reward=RUBRIC | {"judge": {"kind": "local"}})
    found = make(recorder)
    assert isinstance(found, Rubric) and found.name == "local:the policy" and found.recorder is recorder
    assert found.rate(["a", "b"]) == [(FOUR, None), (None, "unreadable reply")]
    [(writer, prompts, keys)] = calls
    assert writer.actor is policy and writer.attempts == 1 and writer.domain.judge is None
    assert writer.sampling == config.Sampling(temperature=0.0, top_p=1.0, max_new_tokens=128)
    end = "" if chat else "\n\nlength:"
    assert prompts == [Prompt(f"a{end}", chat), Prompt(f"b{end}", chat)] and keys == [[(0,)], [(0,)]]
    assert found.rate([]) == [] and len(calls) == 1


RUBRIC = {"kind": "rubric", "accuracy_weight": 1.0, "likelihood_weight": 0.0, "retrains": 3, "answer_tokens": 64}


def test_a_local_judge_may_be_another_model(recorder, monkeypatch):
    other, loaded = plain_actor(), []
    monkeypatch.setattr(rewarding, "load_actor", lambda *rest: loaded.append(rest) or other)
    setting, make, policy = made(reward=RUBRIC | {"judge": {"kind": "local", "model": "another"}})
    assert loaded == [("another", setting)] and make(recorder).name == "local:another"
    used = []
    monkeypatch.setattr(Policy, "complete", lambda self, *rest: used.append(self.actor) or [[SimpleNamespace(text="")]])
    make(recorder).rate(["a"])
    assert used == [other]


def test_a_remote_judge_is_asked_on_the_first_host_and_what_it_did_not_say_is_missing(recorder, monkeypatch):
    asked = []

    class Endpoint:
        def ask(self, requests, read, **options):
            asked.append((list(requests), options))
            assert read(Reply("4 4 4 4", True)) == dict.fromkeys(CRITERIA, 4.0) and read(Reply("well", True)) is None
            return [FOUR, Missing("timeout")]

    def connect(*rest):
        asked.append(rest)
        return Endpoint()

    monkeypatch.setattr(rewarding, "connect", connect)
    judge = {"kind": "remote", "model": "big", "url": "http://host/v1", "key": "K"}
    _, make, _ = made(reward=RUBRIC | {"judge": judge})
    assert asked == [("judge", "http://host/v1", "big", "K", Patience())]
    found = make(recorder)
    assert found.name == "remote:big" and found.rate(["a", "b"]) == [[FOUR, None], [None, "timeout"]]  # as JSON has it
    assert asked[1:] == [(["a", "b"], {"temperature": 0})]
    monkeypatch.setattr(judging, "is_first", lambda: False)
    monkeypatch.setattr(judging, "from_first", lambda data: b"[]")
    assert found.rate(["a"]) == [] and len(asked) == 2
