"""A model in a role, and the judges that are made from one: what is loaded, how, and what it is asked."""

import copy
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_run
from plain_engine import TOKENIZER, PlainEngine, likelihood, plain_actor

from seal_jax import config as config_lib
from seal_jax.config import Judge
from seal_jax.domains.domain import Answered, Example, Prompt
from seal_jax.engine.packing import Row
from seal_jax.experiments import export, judging
from seal_jax.judges import lexical
from seal_jax.model import quantized
from seal_jax.model.lora import LoraConfig
from seal_jax.runs import checkpoint
from seal_jax.student import actor as actors_module
from seal_jax.student.actor import load_actor

# ---------------------------------------------------------------- what an actor does


def test_an_example_as_tokens_and_weights():
    found = plain_actor().row(Example(Prompt("Who?", False), " Arlo", closing=True))
    tokens, weights = TOKENIZER.encode_example(Example(Prompt("Who?", False), " Arlo", closing=True))
    assert found == Row(tuple(tokens), tuple(weights)) and 0 < sum(found.weights) < len(found.tokens)


def test_likelihoods_are_asked_by_length_and_come_back_in_order():
    texts = ("a long line of it", "a", "some words", "b", "the longest line of them all")
    rows = [plain_actor().row(Example(Prompt("Who?", False), text, closing=True)) for text in texts]
    actor = plain_actor(PlainEngine(decode_rows=2), weight=4.0)
    together = []
    ask = actor.engine.log_likelihood
    actor.engine.log_likelihood = lambda weights, lanes: together.append(lanes[0]) or ask(weights, lanes)
    assert actor.log_likelihoods(rows) == [likelihood(4.0, row) for row in rows]
    assert [[rows.index(row) for row in some] for some in together] == [[1, 3], [2, 0], [4]]
    assert actor.log_likelihoods([]) == []


def test_a_row_is_stopped_by_any_of_the_texts():
    stopped = plain_actor().stopper(("END", "STOP"))
    assert [stopped(TOKENIZER.encode(text)) for text in ("the END", "a STOP b", "the EN D")] == [True, True, False]
    assert plain_actor().stopper(()) is None


def test_sampling_stops_at_every_end_token():
    tokenizer = copy.copy(TOKENIZER)
    tokenizer.stop_ids = frozenset({9, 2, 300})
    rules = replace(plain_actor(), tokenizer=tokenizer).rules(0.5, 0.9, 7)
    assert (rules.temperature, rules.top_p, rules.top_k, rules.stop_ids) == (0.5, 0.9, 7, (2, 9, 300))


def test_other_weights_leave_the_rest(monkeypatch):
    monkeypatch.setattr(actors_module, "fetch", float)
    actor = plain_actor()
    other = actor.with_base({"w": np.array(4.0)})
    assert other.base == {"w": np.array(4.0)} and other.engine is actor.engine and actor.base["w"] == 1.0
    merged = actor.with_adapter({"w": np.array(3.0)}, LoraConfig(2, 4.0, ("q_proj",)))
    assert merged.base["w"] == 7.0 and actor.weights() == {"w": 1.0}


def test_quantized_weights_are_merged_where_they_are_whole(monkeypatch):
    monkeypatch.setattr(quantized, "merge_on_host", lambda params, adapter, lora: {"w": 2 * params["w"] + adapter["w"]})
    monkeypatch.setattr(quantized, "quantize", lambda params, kind: {"w": params["w"] // 1, "kind": kind})
    source = SimpleNamespace(params={"w": 1.5})
    monkeypatch.setattr(actors_module, "replace", lambda one, **new: SimpleNamespace(**(vars(one) | new)))
    actor = replace(plain_actor(), quantization="int8", source=source)
    merged = type(actor).with_adapter(actor, {"w": 3.25}, None)
    assert merged.base == {"w": 6.0, "kind": "int8"} and merged.source.params == {"w": 6.25}
    assert actor.weights() == {"w": 1.5}


# ---------------------------------------------------------------- loading


@pytest.fixture
def loads(monkeypatch):
    """Calls of what loads, in order; load_actor then needs no files."""
    calls = []

    def load(source, dtype):
        calls.append(("load", source, dtype))
        return SimpleNamespace(config="its config", params={"w": 1.0}, tokenizer=TOKENIZER)

    monkeypatch.setattr(actors_module.memory, "check", lambda *names: calls.append(("check", *names)))
    monkeypatch.setattr(actors_module, "load", load)
    monkeypatch.setattr(actors_module, "make_layout", lambda *names: calls.append(("layout", *names)) or "a layout")
    monkeypatch.setattr(actors_module, "Engine", lambda *args, **more: calls.append((args, more)) or PlainEngine())
    monkeypatch.setattr(quantized, "quantize", lambda params, kind: params | {"kind": kind})
    return calls


def loaded(**changes):
    values = config_lib.defaults()
    values["model"] |= {"policy": "somewhere"} | changes
    values["parallel"] |= {"model": 3, "backend": "pmap"}
    return load_actor("a model", config_lib.from_dict(values))


def test_memory_is_checked_before_anything_is_loaded(loads):
    actor = loaded(dtype="bfloat16")
    assert [call[:3] for call in loads[:3]] == [
        ("check", "a model", "bfloat16"), ("load", "a model", "bfloat16"), ("layout", 3, "pmap"),
    ]  # fmt: skip
    assert loads[3] == (("its config", config_lib.Config().engine, "a layout"), {"other_bases": 1})
    assert loads[0][3] == 3 and actor.base == {"w": 1.0, "kind": "none"} and actor.quantization == "none"


@pytest.mark.parametrize(
    "dtype, backend, wanted",
    [
        ("auto", "cpu", "float32"),
        ("auto", "tpu", "bfloat16"),
        ("bfloat16", "cpu", "bfloat16"),
        ("float32", "gpu", "float32"),
    ],
)
def test_the_dtype_follows_the_machine_where_it_is_auto(loads, monkeypatch, dtype, backend, wanted):
    monkeypatch.setattr(actors_module.jax, "default_backend", lambda: backend)
    loaded(dtype=dtype)
    assert [call[2] for call in loads[:2]] == [wanted, wanted]


def test_quantization_is_that_of_the_config(loads):
    actor = loaded(quantization="int8")
    assert actor.base["kind"] == actor.quantization == "int8"


@pytest.mark.parametrize(
    "chat, template, wanted",
    [("auto", True, True), ("auto", False, False), ("yes", False, True), ("no", True, False)],
)
def test_the_chat_follows_the_tokenizer_where_it_is_auto(loads, monkeypatch, chat, template, wanted):
    monkeypatch.setattr(TOKENIZER, "has_chat_template", template)
    assert loaded(chat=chat).chat is wanted


def test_a_chat_s_system_message_may_be_empty(loads):
    assert loaded().tokenizer.system is None and loaded(system="empty").tokenizer.system == ""


# ---------------------------------------------------------------- judges


def yes_no_by_hand(actor, prompt, word):
    head, tail = TOKENIZER.encode_prompt(prompt), TOKENIZER.encode(word)
    row = Row((*head, *tail), (0.0,) * len(head) + (1.0,) * len(tail))
    return likelihood(float(actor.base["w"]), row)


@pytest.mark.parametrize("chat, words", [(True, ("Yes", "No")), (False, (" Yes", " No"))])
@pytest.mark.parametrize("rows", [1, 3, 4, 100])
def test_a_local_judge_weighs_yes_against_no_in_parts(chat, words, rows):
    actor = plain_actor(PlainEngine(decode_rows=rows), chat=chat)
    prompts = [Prompt(f"Is it {i}?", chat) for i in range(5)]
    found = judging.yes_no(actor)(prompts)
    assert found == [tuple(yes_no_by_hand(actor, prompt, word) for word in words) for prompt in prompts]
    assert max(call[1] for call in actor.engine.calls) == min(rows, 10)


def made(judge, monkeypatch, policy=None):
    loaded = []
    monkeypatch.setattr(judging, "load_actor", lambda source, config: loaded.append(source) or plain_actor(weight=7.0))
    config = config_lib.from_dict(config_lib.defaults() | {"model": {"policy": "the policy"}})
    return judging.make(judge, config, policy or plain_actor()), loaded


def test_the_local_judge_is_the_policy_or_a_model_of_its_own(monkeypatch):
    monkeypatch.setattr(judging.local, "make", lambda ask, name, chat: (ask, name, chat))
    monkeypatch.setattr(judging, "yes_no", lambda actor: float(actor.base["w"]))
    assert made(Judge("local"), monkeypatch) == ((1.0, "the policy", False), [])
    assert made(Judge("local"), monkeypatch, plain_actor(chat=True))[0] == (1.0, "the policy", True)
    assert made(Judge("local", "another"), monkeypatch) == ((7.0, "another", False), ["another"])


def test_a_local_judge_says_right_where_yes_is_likelier(monkeypatch):
    said = []
    monkeypatch.setattr(judging, "yes_no", lambda actor: lambda prompts: [(-1.0, -2.0), (-3.0, -2.5)][: len(prompts)])
    judge, _ = made(Judge("local"), monkeypatch)
    said = judge([Answered("What?", "Arlo", "Arlo"), Answered("What?", "Arlo", "Bo"), Answered("What?", "Arlo", " ")])
    assert said == [True, False, False] and judge.name == "local:the policy"


def test_the_lexical_judge_is_asked_as_it_is(monkeypatch):
    judge, _ = made(Judge("lexical"), monkeypatch)
    answered = [Answered("What?", "Arlo", "Arlo"), Answered("What?", "Arlo", "Bo")]
    assert judge.name == lexical.grade.name and judge(answered) == lexical.grade(answered) == [True, False]


def test_the_remote_judge_is_reached_as_the_config_says(monkeypatch):
    def remote(url, model, key):
        def grade(answered):
            return [None, True]

        grade.name = json.dumps([url, model, key])
        return grade

    monkeypatch.setattr(judging.remote, "make", remote)
    judge, _ = made(Judge("remote", "gpt", "https://x", "KEY"), monkeypatch)
    assert json.loads(judge.name) == ["https://x", "gpt", "KEY"] and judge([1, 2]) == [None, True]


def test_only_the_first_host_asks(monkeypatch):
    asked = []

    def judge(answered):
        asked.append(answered)
        return [True]

    judge.name = "a judge"
    monkeypatch.setattr(judging, "from_first", lambda data: b"[false, null]")
    monkeypatch.setattr(judging, "is_first", lambda: False)
    assert judging.once(judge)(["x"]) == [False, None] and asked == []
    monkeypatch.setattr(judging, "is_first", lambda: True)
    assert judging.once(judge)(["x"]) == [False, None] and asked == [["x"]]


# ---------------------------------------------------------------- export


@pytest.fixture
def exported(home, tmp_path, monkeypatch):
    """export(rounds, rank) -> what was written, in a folder that keeps it."""
    monkeypatch.setattr(export, "save_adapter", lambda path, *rest: (path.mkdir(), written.append(("adapter", *rest))))
    monkeypatch.setattr(export, "save_merged", lambda path, *rest: (path.mkdir(), written.append(("policy", *rest))))
    monkeypatch.setattr(actors_module, "fetch", float)
    written = []
    checkpoint.save(tmp_path / "checkpoints" / "SEAL", 1, {"w": np.array(3.0)})
    policy = plain_actor()
    policy.source.tokenizer, policy.source.hf_config = TOKENIZER, {"is": "it"}

    def run(rounds=1, rank=2, checkpoints="checkpoints"):
        values = tiny_run.tiny_values(home, outer={"rounds": rounds})
        values["outer"]["sft"]["rank"] = rank
        recorder = SimpleNamespace(checkpoints=str(tmp_path / checkpoints))
        setup = SimpleNamespace(config=config_lib.from_dict(values), recorder=recorder)
        del written[:]
        export.export(setup, policy, tmp_path)
        return list(written)

    return run


def test_one_round_exports_an_adapter_and_a_model_once(exported, home):
    adapter, policy = exported()
    assert adapter[0] == "adapter" and adapter[1] == {"w": 3.0} and adapter[3] == str(home / "policy")
    assert adapter[2].rank == 2 and adapter[2].alpha == 4.0
    assert policy[0] == "policy" and policy[1] == {"w": 1.0} and policy[3:] == (TOKENIZER, {"is": "it"})
    assert exported() == []


@pytest.mark.parametrize("changes", [{"rounds": 2}, {"rank": 0}, {"checkpoints": "elsewhere"}, {"rounds": 0}])
def test_only_an_adapter_that_is_the_whole_change_is_exported(exported, changes):
    assert [one[0] for one in exported(**changes)] == ["policy"]


def test_other_hosts_gather_and_write_nothing(exported, monkeypatch):
    monkeypatch.setattr(export, "is_first", lambda: False)
    gathered = []
    monkeypatch.setattr(actors_module, "fetch", gathered.append)
    assert exported() == [] and len(gathered) == 1
