"""Who writes what an experiment learns from, in each of the experiments, and how a teacher and EntiGraph go about it,
with an endpoint that is a function. No model is loaded."""

import json
import logging
from dataclasses import replace

import pytest
from etils import epath
from layered_engine import LayeredEngine, layered_actor
from plain_engine import PlainEngine, Shelf, Thing, Things, plain_actor, speaks
from tiny_run import pick

from seal_jax import config, seeds
from seal_jax.authors.author import SelfEdit
from seal_jax.authors.endpoint import Teacher
from seal_jax.authors.entigraph import EntiGraph, joined
from seal_jax.config import roles
from seal_jax.domains.domain import Prompt
from seal_jax.domains.knowledge.corpus import Passage
from seal_jax.errors import UserError
from seal_jax.experiments import assemble, continual, pretraining, writing
from seal_jax.experiments.world import World
from seal_jax.judges.endpoint import Missing, Patience, Reply
from seal_jax.report.recorded import load
from seal_jax.report.tables import unwritten

ITEMS = tuple(Thing(name, name) for name in ("One", "Two", "Three", "Four", "Five"))
PASSAGES = tuple(Passage(name, name, f"Torvald built {name} of stone.", ()) for name in ("Weir", "Mill", "Dam"))
SAMPLING = config.Sampling(max_new_tokens=20, temperature=0.7, top_p=0.9, stop_strings=("END",))
SEED = 7, 2


class Requests:
    """An endpoint that answers with reply(request) -> (text, finished) or why there is none, and keeps what it saw."""

    model, key_variable = "big", "KEY"

    def __init__(self, reply, concurrency=1):
        self.reply, self.groups, self.options = reply, [], None
        self.patience = Patience(concurrency)

    def ask(self, requests, read, **options):
        self.groups.append(list(requests))
        self.options = options
        found = map(self.reply, requests)
        return [Missing(one) if isinstance(one, str) else read(Reply(*one)) or Missing("empty") for one in found]


def written(author, items=ITEMS, samples=2):
    groups = list(author.write(items, samples, SEED))
    return {item: edits for group in groups for item, edits in group.items()}, [list(group) for group in groups]


# ---------------------------------------------------------------- a teacher


@pytest.mark.parametrize(
    ("concurrency", "samples", "groups"),
    [(1, 2, [2, 2, 1]), (1, 5, [1] * 5), (2, 2, [4, 1]), (1, 1, [4, 1]), (1, 4, [1] * 5)],
)
def test_a_teacher_writes_some_items_at_a_time(concurrency, samples, groups):
    endpoint = Requests(lambda request: (f"{request}!", True), concurrency)
    found, parts = written(Teacher(endpoint, Things(), SAMPLING), samples=samples)
    assert [len(part) for part in parts] == groups and list(found) == [item.id for item in ITEMS]
    assert [len(group) for group in endpoint.groups] == [count * samples for count in groups]
    assert found == {item.id: [SelfEdit(f"Write about {item.title}:!")] * samples for item in ITEMS}
    assert endpoint.options == {"temperature": 0.7, "top_p": 0.9, "max_tokens": 20}


def test_what_a_teacher_writes_is_cut_judged_and_known_to_be_finished(caplog):
    replies = {"One": ("It is. END more", False), "Two": ("It is lo", False), "Three": ("invalid", True),
               "Four": "timeout", "Five": (" \n", True)}  # fmt: skip
    endpoint = Requests(lambda request: replies[request.split()[-1].rstrip(":")])
    with caplog.at_level(logging.WARNING):
        found, _ = written(Teacher(endpoint, Things(), SAMPLING), samples=1)
    assert found["One"] == [SelfEdit("It is. ")] and found["Two"] == [SelfEdit("It is lo", finished=False)]
    assert found["Three"] == [SelfEdit("invalid", problem="not allowed")]
    assert found["Four"] == [SelfEdit(None, problem="no answer: timeout")]
    assert found["Five"] == [SelfEdit(None, problem="no answer: empty")]
    assert caplog.messages == ["teacher big: 1 of 4 texts not written (timeout: 1)",
                               "teacher big: 1 of 1 texts not written (empty: 1)"]  # fmt: skip


def test_a_teacher_that_writes_nothing_of_the_first_items_ends_the_run_and_later_gaps_do_not():
    nothing = Teacher(Requests(lambda request: "timeout"), Things(), SAMPLING)
    with pytest.raises(UserError, match=r"the teacher big wrote none of 4 self-edits \(no answer: timeout\); see"):
        written(nothing)
    first = Teacher(Requests(lambda request: ("It is.", True) if "One" in request else "timeout"), Things(), SAMPLING)
    found, _ = written(first)
    assert [edit.missing for edits in found.values() for edit in edits] == [False] * 2 + [True] * 8


def test_a_teacher_completes_as_many_texts_as_there_are_seeds():
    counts = iter(range(9))
    teacher = Teacher(Requests(lambda request: (f"{request} {next(counts)}", True)), Things(), SAMPLING)
    found = teacher.complete([Prompt("a", True, stops=("1",)), Prompt("b", True)], [[(1,), (2,)], [(3,)]])
    assert [[edit.text for edit in lane] for lane in found] == [["a 0", "a "], ["b 2"]]


# ---------------------------------------------------------------- EntiGraph


class Scribe:
    """A writer that names three things, and writes of what it is asked; `calls` has the size of each request."""

    def __init__(self, names="Ann, Bob, Cid", without=(), short=()):
        self.names, self.without, self.short, self.calls, self.prompts = names, without, short, [], []

    def complete(self, prompts, keys):
        self.calls.append([len(some) for some in keys])
        self.prompts += prompts
        return [[self._one(prompt, key) for key in some] for prompt, some in zip(prompts, keys, strict=True)]

    def _one(self, prompt, key):
        if "name up to" in prompt.text:
            return SelfEdit(self.names) if self.names else SelfEdit(None, problem="no answer: timeout")
        if any(word in prompt.text for word in self.without):
            return SelfEdit(None, problem="no answer: HTTP 500")
        short = any(word in prompt.text for word in self.short)
        return SelfEdit(f" {prompt.text.partition('how ')[2].partition(' are')[0]} {key} \n", finished=not short)


HOW = config.EntiGraph(entities=4, pairs=2, triples=1)


@pytest.mark.parametrize("chat", [True, False])
def test_entigraph_writes_of_pairs_and_triples_with_a_seed_each(chat):
    scribe = Scribe()
    found, parts = written(EntiGraph(scribe, HOW, chat), PASSAGES, 2)
    assert parts == [["Weir", "Mill", "Dam"]] and scribe.calls == [[2] * 3, [1] * 18]
    assert all(prompt.chat is chat and prompt.text.endswith(":\n") is not chat for prompt in scribe.prompts)
    for passage in PASSAGES:
        for k, edit in enumerate(found[passage.id]):
            texts = edit.text.split("\n---\n")
            assert [text[text.index("(") :] for text in texts] == [
                f"{seeds.sample(*SEED, passage, k, number)}" for number in (1, 2, 3)
            ]
            assert [text.count(" and ") + text.count(",") - text[text.index("(") :].count(",") for text in texts] == [
                1, 1, 2,
            ]  # fmt: skip
            assert edit.finished and not edit.missing


def test_entigraph_works_on_eight_passages_at_a_time():
    many = [replace(PASSAGES[0], id=f"{k}") for k in range(17)]
    scribe = Scribe()
    found, parts = written(EntiGraph(scribe, replace(HOW, triples=0), True), many, 1)
    assert [len(part) for part in parts] == [8, 8, 1] and list(found) == [passage.id for passage in many]
    assert [len(call) for call in scribe.calls] == [8, 16, 8, 16, 1, 2]


def test_what_entigraph_lacks_is_missing_with_the_first_reason():
    few, _ = written(EntiGraph(Scribe(names="Ann"), HOW, True), PASSAGES, 1)
    assert {edit.problem for [edit] in few.values()} == {
        "fewer than two entities were named, or nothing was written about them"
    }
    none, _ = written(EntiGraph(Scribe(names=None), HOW, True), PASSAGES, 1)
    assert {edit.problem for [edit] in none.values()} == {"no answer: timeout"}
    broken, _ = written(EntiGraph(Scribe(without=("Weir",)), HOW, True), PASSAGES, 1)
    assert {item: edits[0].problem for item, edits in broken.items()} == {
        "Weir": "no answer: HTTP 500", "Mill": None, "Dam": None
    }  # fmt: skip
    scribe = Scribe(without=("Ann and",), short=("Mill",))
    part, _ = written(EntiGraph(scribe, replace(HOW, pairs=3), True), PASSAGES, 1)
    assert all(edit.text.count("---") < 3 and not edit.missing for [edit] in part.values())
    assert {item: edits[0].finished for item, edits in part.items()} == {"Weir": True, "Mill": False, "Dam": True}
    assert joined([SelfEdit(" a "), SelfEdit(" "), SelfEdit("b")], SelfEdit("x")) == SelfEdit("a\n---\nb")


# ---------------------------------------------------------------- in every experiment


def says(weight, prompt, seed):
    if prompt.endswith("Names:\n"):
        return "Torvald, stone, water"
    return f"{seed} {weight}" if "are related" in prompt else speaks(weight, prompt, seed)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(experiment, fields of its group, **others) -> (setup, endpoints that were connected to)."""
    connected = []

    def connect(role, url, model, key, patience):
        connected.append((role, url, model, key, patience))
        return Requests(lambda request: "timeout" if "Mill" in request else (f"{len(request)} letters", True))

    for module in (pretraining, continual):
        monkeypatch.setattr(module, "checkpoint", Shelf())
    monkeypatch.setattr(writing, "connect", connect)

    def start(experiment, how, **changes):
        make = {"pretraining": lambda: plain_actor(PlainEngine(says)),
                "continual": lambda: layered_actor(LayeredEngine(says))}[experiment]  # fmt: skip
        actor = make()
        monkeypatch.setattr(assemble, "load_actor", lambda name, setting: actor)
        values = config.defaults("knowledge", experiment)
        values["model"] |= {"policy": "policy"}
        values["sampling"] |= {"max_new_tokens": 64}
        if experiment == "continual":
            values["inner"] |= {"rank": 2, "targets": ("q_proj",)}
            how = {"passages": 3, "sequences": 1, "past_rank": 6} | how
        values[experiment] |= how
        for group, fields in changes.items():
            values[group] = values[group] | fields
        world = World((), PASSAGES, lambda judge: Readable())
        setup = assemble.assemble(config.from_dict(values), epath.Path(tmp_path), world)
        {"pretraining": pretraining, "continual": continual}[experiment].run(setup, lambda *row: None)
        setup.recorder.close()
        (tmp_path / "config.json").write_text(json.dumps(values))
        return setup, connected

    return start


class Readable(Things):
    """Passages as things: what they are asked is nothing."""

    def quiz(self, item, chat):
        return super().quiz(Thing(item.id, item.title), chat)

    def grade(self, answered):
        return super().grade([(Thing(item.id, item.title), said) for item, said in answered])


TEACHER = {"endpoint": {"model": "big", "url": "http://host/v1", "key": "K", "timeout": 3.0, "retries": 2,
                        "concurrency": 5}}  # fmt: skip


@pytest.mark.parametrize("experiment", ["pretraining", "continual"])
def test_a_teacher_writes_what_is_learned_and_what_it_did_not_is_listed(run, experiment, tmp_path):
    setup, connected = run(experiment, {"author": "endpoint"}, authors=TEACHER)
    assert connected == [("teacher", "http://host/v1", "big", "K", Patience(5, 2, 3.0))]
    texts = {edit["item"]: (edit["text"], edit["problem"]) for edit in setup.recorder.edits.all()}
    for passage in PASSAGES:
        letters = len(Things().edit_prompt(passage, True).text)
        wanted = (None, "no answer: timeout") if passage.id == "Mill" else (f"{letters} letters", None)
        assert texts[passage.id] == wanted
    count, each = (15, 5) if experiment == "pretraining" else (3, 1)
    assert unwritten(load(epath.Path(tmp_path))) == {"the lessons": f"{each} of {count} (no answer: timeout: {each})"}


@pytest.mark.parametrize("experiment", ["pretraining", "continual"])
def test_entigraph_by_the_policy_or_the_teacher(run, experiment, tmp_path):
    setup, connected = run(experiment, {"author": "entigraph"}, authors={"entigraph": {"pairs": 1, "triples": 0}})
    assert connected == []
    edits = setup.recorder.edits.all()
    assert all(edit["text"].startswith("(") and "---" not in edit["text"] for edit in edits)
    weights = {edit["text"].rpartition(" ")[2] for edit in edits}
    if experiment == "continual":  # by the model as it stands in each sequence
        assert len(weights) == 3 and {(edit["round"], edit["sample"]) for edit in edits} == {(1, 0), (2, 0), (3, 0)}
    else:
        assert len(edits) == 15 and weights == {"1.0"}


def test_entigraph_by_a_teacher_is_written_once_for_all_sequences(run):
    graph = {"entigraph": {"writer": "endpoint"}}
    setup, connected = run("continual", {"author": "entigraph"}, authors=TEACHER | graph)
    assert len(connected) == 1 and {edit["round"] for edit in setup.recorder.edits.all()} == {0}
    assert {edit["problem"] for edit in pick(setup.recorder.edits.all(), item="Mill")} == {"no answer: timeout"}


@pytest.mark.parametrize("experiment", ["pretraining", "continual"])
def test_a_file_of_completions_beside_the_passages(run, experiment, tmp_path):
    file = tmp_path / "written.json"
    file.write_text(json.dumps({"articles": [
        {"title": one.title, "context": one.context, "completions": [f"{one.title} {k}" for k in range(5)]}
        for one in PASSAGES[:2]]}))  # fmt: skip
    setup, _ = run(experiment, {"author": "file"}, authors={"file": str(file)})
    found = {(edit["item"], edit["sample"]): edit["text"] for edit in setup.recorder.edits.all()}
    each = 5 if experiment == "pretraining" else 1
    assert found == {(one.id, k): f"{one.title} {k}" for one in PASSAGES[:2] for k in range(each)} | {
        ("Dam", k): None for k in range(each)
    }


def test_too_few_completions_are_found_before_anything_is_computed(run, tmp_path):
    file = tmp_path / "written.json"
    file.write_text(json.dumps([{"title": "Weir", "context": PASSAGES[0].context, "completions": ["a", "b"]}]))
    with pytest.raises(UserError, match=f"{file}: 'Weir' has 2 completions and 5 .*lower --config.pretraining.samples"):
        run("pretraining", {"author": "file"}, authors={"file": str(file)})
    file.write_text(json.dumps([{"title": "Bridge", "context": "x", "completions": ["a", "b"]}]))
    with pytest.raises(UserError, match="has no completions of any of the 3 items, such as 'Weir'"):
        run("continual", {"author": "file"}, authors={"file": str(file)})
    assert not (tmp_path / "rows.jsonl").exists()


# ---------------------------------------------------------------- mistakes in the config


def mistake(experiment, how=(), **authors):
    values = config.defaults("knowledge", experiment)
    values[experiment] |= dict(how)
    values["authors"] |= authors
    with pytest.raises(UserError) as caught:
        config.from_dict(values)
    return str(caught.value)


@pytest.mark.parametrize("experiment", ["pretraining", "continual"])
def test_authors_that_nobody_asks_for_are_named_with_the_experiment_s_field(experiment):
    for author, fields in (("file", "x"), ("endpoint", {"model": "m"}), ("entigraph", {"pairs": 1})):
        assert mistake(experiment, **{author: fields}) == (
            f"config.authors.{author}: is set, but {experiment}.author does not ask for {author!r}; take it out, or "
            f"set {experiment}.author to {author!r}"
        )
    assert "config.authors.endpoint.model: is empty" in mistake(experiment, {"author": "endpoint"})
    assert "endpoint.model: is empty" in mistake(experiment, {"author": "entigraph"}, entigraph={"writer": "endpoint"})
    nothing = {"pairs": 0, "triples": 0}
    assert "pairs and triples are both 0" in mistake(experiment, {"author": "entigraph"}, entigraph=nothing)
    values = config.defaults("knowledge", experiment)
    values[experiment] |= {"author": "entigraph"}
    assert config.from_dict(values).authors.entigraph.pairs == 5


def test_who_is_asked_and_whether_the_policy_writes():
    made = config.from_dict(config.defaults())
    rows = replace(made, evaluation=replace(made.evaluation, authors=("entigraph",)))
    assert roles.asked_authors(rows) == {"policy", "entigraph"} and not roles.teacher_is_asked(rows)
    graph = replace(rows.authors, entigraph=config.EntiGraph(writer="endpoint"))
    assert roles.teacher_is_asked(replace(rows, authors=graph)) and roles.policy_writes(replace(rows, authors=graph))
    learned = replace(rows, outer=replace(rows.outer, author="entigraph"))
    assert roles.policy_writes(learned) and not roles.policy_writes(replace(learned, authors=graph))
    assert not roles.policy_writes(replace(made, outer=replace(made.outer, author="file")))
    assert roles.author_of_lessons(made) == "policy"


def test_what_is_needed_of_each_item():
    made = config.from_dict(config.defaults())
    assert writing.of_lessons(made) == (made.data.train, "outer.samples", made.outer.samples)
    assert writing.of_rows(made) == (made.data.evaluation, "evaluation.samples", made.evaluation.samples)
    many = config.from_dict(config.defaults("knowledge", "pretraining") | {"pretraining": {"samples": (2, 7, 3)}})
    assert writing.of_lessons(many) == (many.data.evaluation, "pretraining.samples", 7)
    one = config.from_dict(config.defaults("knowledge", "continual"))
    assert writing.of_lessons(one) == (one.data.evaluation, "continual.author", 1)
    cells = config.from_dict(config.defaults("knowledge", "grid") | {"grid": {"samples": 3}})
    assert writing.of_lessons(cells) == (cells.data.evaluation, "grid.samples", 3)
    named = config.from_dict(config.defaults("knowledge", "pretraining")
                             | {"authors": {"endpoint": {"model": "big"}, "entigraph": {"writer": "endpoint"}},
                                "pretraining": {"author": "entigraph"}})  # fmt: skip
    names = {who: writing.row_name(who, named) for who in ("file", "endpoint", "entigraph")}
    assert names == {"file": "self-edits of a file", "endpoint": "self-edits by big", "entigraph": "EntiGraph by big"}
