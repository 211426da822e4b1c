"""Self-edits by a teacher behind an endpoint, and EntiGraph by any writer, against a server on this machine."""

import time
from dataclasses import replace

import pytest
from chat_server import completion, error, servers
from plain_engine import PlainEngine, Thing, Things, plain_actor

from seal_jax import config, seeds
from seal_jax.authors.author import SelfEdit
from seal_jax.authors.endpoint import Teacher
from seal_jax.authors.entigraph import EntiGraph
from seal_jax.authors.policy import Policy
from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge import entigraph
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.errors import UserError
from seal_jax.judges import endpoint
from seal_jax.judges.endpoint import Patience, connect

KEY = "sk-very-secret-0123456789"
SEED = 7, 2
SAMPLING = config.Sampling(max_new_tokens=20, temperature=0.7, top_p=0.9, stop_strings=("END",))
ITEMS = [Thing(name, name) for name in ("good", "slow", "broken", "nonsense", "cut", "stopped", "half")]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)
    with servers() as start:
        yield start


def teacher(server, domain=None, retries=1, **sampling):
    found = connect("teacher", server.url, "big-model", "TEACHER_KEY", Patience(4, retries, 0.3))
    return Teacher(found, domain or Things(), replace(SAMPLING, **sampling))


def collected(author, items=ITEMS, samples=2):
    return {item: edits for group in author.write(items, samples, SEED) for item, edits in group.items()}


def a_bad_day(request, before):
    name = request.removeprefix("Write about ").rstrip(":")
    if name == "slow":
        time.sleep(1.0)
    if name == "cut":
        return completion("It is lo", "length")
    if name == "half":  # the connection breaks before the reply is whole
        return completion("It")[0], completion("It is whole.")[1], {"content-length": "100000"}
    return {
        "broken": error(500, f"key {KEY}"), "nonsense": (200, "<html>maintenance</html>"),
        "stopped": completion("It is old. END It is new."), "good": completion(f"It is good, {before}."),
    }.get(name, completion("-"))  # fmt: skip


def test_what_the_teacher_did_not_write_is_missing_with_the_reason(serve, caplog):
    server = serve(a_bad_day)
    found = collected(teacher(server))
    assert {edit.text for edit in found["good"]} == {"It is good, 0.", "It is good, 1."}
    assert found["cut"] == [SelfEdit("It is lo", finished=False)] * 2
    assert found["stopped"] == [SelfEdit("It is old. ")] * 2
    why = {name: {edit.problem for edit in found[name]} for name in ("slow", "broken", "nonsense", "half")}
    assert why["slow"] == {"no answer: timeout"} and why["broken"] == {"no answer: HTTP 500"}
    assert why["nonsense"] == {"no answer: unreadable reply"} and len(why["half"]) == 1
    assert all(edit.missing and edit.text is None for name in why for edit in found[name])
    assert not any(edit.missing for name in ("good", "cut", "stopped") for edit in found[name])
    assert server.asked["Write about broken:"] == 4  # two self-edits, each asked for twice
    path, authorization, body = server.requests[0]
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    expected = {"model": "big-model", "temperature": 0.7, "top_p": 0.9, "max_tokens": 20}
    assert {name: body[name] for name in expected} == expected
    assert "8 of 14 texts not written" in caplog.text and KEY not in caplog.text
    assert KEY not in str(found)


def test_a_teacher_that_writes_nothing_ends_the_run_with_a_sentence(serve):
    with pytest.raises(UserError, match=r"the teacher big-model wrote none of 4 self-edits \(no answer: HTTP 503\)"):
        collected(teacher(serve(lambda *_: error(503)), retries=0), ITEMS[:2])
    with pytest.raises(UserError, match="The teacher big-model .*TEACHER_KEY.* 401") as caught:
        collected(teacher(serve(lambda *_: error(401, KEY))), ITEMS[:2])
    assert KEY not in str(caught.value)


def test_an_empty_reply_is_asked_for_again(serve):
    server = serve(lambda request, before: completion("It is." if before else " "))
    assert collected(teacher(server), ITEMS[:1], 1) == {"good": [SelfEdit("It is.")]}
    assert server.asked.total() == 2


class FewShot(Things):
    def edit_prompt(self, item, chat):
        return Prompt(f"Examples, then {item.title}", False, stops=("\n\n",))


def test_the_stops_of_a_prompt_end_what_the_policy_writes():
    policy = Policy(plain_actor(PlainEngine(lambda *_: "One.\nTwo.\n\nPassage:")), FewShot(), SAMPLING)
    [again] = policy.complete([FewShot().edit_prompt(ITEMS[0], chat=False)], [[(0,)]])
    written = collected(policy, ITEMS[:1], 1)["good"] + again
    assert [(edit.text, edit.finished) for edit in written] == [("One.\nTwo.", True)] * 2
    assert all(call[2].stopped is not None for call in policy.actor.engine.calls)


def test_a_few_shot_prompt_is_sent_as_it_is_and_its_stop_counts(serve):
    server = serve(lambda *_: completion("One.\nTwo.\n\nPassage:\nmore"))
    assert collected(teacher(server, FewShot()), ITEMS[:1], 1)["good"] == [SelfEdit("One.\nTwo.")]
    assert server.asked == {"Examples, then good": 1}


def test_no_key_and_no_address_are_sentences(monkeypatch):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(UserError, match="TEACHER_KEY to the remote teacher's key"):
        connect("teacher", "http://127.0.0.1:9/v1", "m", "TEACHER_KEY", Patience())
    with pytest.raises(UserError, match="The teacher's base_url"):
        connect("teacher", "host/v1", "m", "", Patience())


# ---------------------------------------------------------------- EntiGraph


WEIR = Passage("w", "Dunmar {weir}", "Torvald built the weir at Dunmar of stone from Hale.", ())
MILL = Passage("m", "Mill", "A mill.", ())
HOW = config.EntiGraph(entities=4, pairs=3, triples=2)


def test_names_are_read_however_they_are_listed():
    lists = ("1. Torvald\n2. Dunmar\n3. Hale", "- Torvald\n- **Dunmar**: a place\n- Hale – stone\n- torvald",
             '["Torvald", "Dunmar", "Hale"]', "Torvald, Dunmar, Hale.", "Torvald\n\n\n“Dunmar”\nHale\n" + "x" * 99)
    for text in lists:
        assert entigraph.entities(text, 10) == ["Torvald", "Dunmar", "Hale"], text
    assert entigraph.entities("a\nb\nc", 2) == ["a", "b"] and entigraph.entities(" \n--\n", 9) == []


def test_pairs_and_triples_differ_and_are_the_same_for_a_seed():
    names = list("abcde")
    found = entigraph.groups(names, 3, 2, "s")
    assert [len(group) for group in found] == [2, 2, 2, 3, 3] and len(set(found)) == 5
    assert found == entigraph.groups(names, 3, 2, "s") != entigraph.groups(names, 3, 2, "t")
    assert entigraph.groups(["a", "b"], 5, 5, "s") == [("a", "b")] and entigraph.groups(["a"], 5, 5, "s") == []


def test_entigraph_by_a_teacher(serve):
    def script(request, before):
        if "name up to 4" in request:
            return completion("Just one" if "A mill." in request else "1. Torvald\n2. Dunmar\n3. Hale")
        if "Torvald and Hale" in request:
            return error(400)
        return completion(f"About {request.partition('how ')[2].partition(' are related')[0]}.")

    author = EntiGraph(teacher(serve(script)), HOW, chat=True)
    found = collected(author, [WEIR, MILL], 2)
    for edit in found["w"]:
        assert sorted(edit.text.split("\n---\n")) == [
            "About Dunmar and Hale.", "About Torvald and Dunmar.", "About Torvald, Dunmar and Hale.",
        ]  # fmt: skip
        assert not edit.missing and edit.finished
    assert all(edit.missing and "fewer than two entities" in edit.problem for edit in found["m"])


def test_entigraph_by_the_policy_does_not_depend_on_what_is_written_together():
    def says(weight, prompt, seed):
        if prompt.rstrip().endswith("Names:"):
            return "Torvald, Dunmar, Hale, stone"
        return f"{prompt.partition('how ')[2][:30]} {seed}"

    def author(rows):
        actor = plain_actor(PlainEngine(says, decode_rows=rows))
        return EntiGraph(Policy(actor, Things(), replace(SAMPLING, max_new_tokens=200)), HOW, chat=False)

    whole = collected(author(5), [WEIR, MILL], 2)
    assert whole == {**collected(author(64), [MILL], 2), **collected(author(2), [WEIR], 2)}
    texts = [edit.text for edits in whole.values() for edit in edits]
    assert len(set(texts)) == 4 and all(text.count("\n---\n") == 4 for text in texts)
    expected = [f"{seeds.sample(*SEED, WEIR, 0, number)}" for number in range(1, 6)]
    assert [part[part.index("(") :] for part in whole["w"][0].text.split("\n---\n")] == expected


def test_the_policy_completes_any_prompts_in_their_order_and_within_decode_rows():
    policy = Policy(plain_actor(PlainEngine(lambda weight, prompt, seed: f"{prompt}|{seed}", decode_rows=3)), Things(),
                    replace(SAMPLING, max_new_tokens=99))  # fmt: skip
    prompts = [Prompt("a" * size, False) for size in (9, 2, 5, 2)]
    found = policy.complete(prompts, [[(k,), (k, 1)] for k in range(4)])
    assert [[edit.text for edit in lane] for lane in found] == [
        [f"{prompt.text}|{(k,)}", f"{prompt.text}|{(k, 1)}"] for k, prompt in enumerate(prompts)
    ]
    assert [call[1] for call in policy.actor.engine.calls] == [2, 2, 2, 2]
    assert policy.complete([], []) == []
