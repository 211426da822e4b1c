"""Every bad input of tests/bad_inputs.py gets its sentence and status 2; whatever else is fed in gets no traceback."""

import dataclasses
import errno
import json

import bad_inputs
import pytest
from bad_inputs import CASES, sentence, workshop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seal_jax import config as config_lib
from seal_jax import fit, lab, main
from seal_jax.adapt import __main__ as adapt
from seal_jax.adapt.ask import passages_of
from seal_jax.adapt.documents import READERS, read_documents
from seal_jax.adapt.learn import read_questions
from seal_jax.domains.arc.grids import load_tasks
from seal_jax.domains.knowledge.corpus import load_passages
from seal_jax.errors import UserError, disk_error
from seal_jax.model import gguf_file
from seal_jax.model.adapter_file import read_adapter
from seal_jax.model.hf_config import model_config
from seal_jax.runs.directory import open_run
from seal_jax.runs.records import read

FUZZ = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    workshop(folder)
    return folder


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    monkeypatch.setitem(lab.SETTINGS, "engine", {"cache": ""})


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.entry} {case.given}")
def test_it_gets_its_sentence(case, place):
    said = sentence(case, place)
    assert case.says in said
    assert not (place / "new" / "trials.jsonl").exists() and not (place / "out").exists()


def test_there_are_many_and_the_document_has_them_all():
    assert len(CASES) >= 60 and len({(case.entry, case.given) for case in CASES}) == len(CASES)
    rows = (bad_inputs.ROOT / "docs" / "errors.md").read_text().splitlines()
    shown = {" ".join(row.split("`")[:2]) for row in rows if row.startswith("| ")}
    for case in CASES:
        given = case.given.replace("{tmp}", "FOLDER").replace("--config=FOLDER/config.py --workdir=FOLDER/new ", "")
        assert f"| {case.entry} |  {given}" in shown, f"make docs/errors.md anew: it lacks {case}"
        (row,) = [row for row in rows if row.startswith(f"| {case.entry} | `{given}` |")]
        assert case.says.replace("<", "&lt;").replace("|", "\\|")[:150] in row


def test_a_second_process_cannot_write_the_folder_of_a_run(place):
    case = bad_inputs.Bad("main", "--config={tmp}/config.py --workdir={tmp}/busy", "")
    with open_run(place / "busy", {}):
        assert "busy is in use by process" in sentence(case, place)


@pytest.mark.parametrize(
    ("command", "raised", "status", "says"),
    [
        ("learn", KeyboardInterrupt(), 130, "stopped; nothing was saved, start the same command again."),
        ("ask", KeyboardInterrupt(), 130, "stopped."),
        ("export", OSError(errno.ENOSPC, "No space left on device", "m"), 2, "m cannot be written (No space left on"),
        ("main", OSError(errno.EROFS, "Read-only file system", "x"), 2, "x cannot be written (Read-only file system)"),
        ("main", KeyboardInterrupt(), 130, "stopped; start the same command again to continue."),
        ("fit", KeyboardInterrupt(), 130, "stopped; start the same command again."),
    ],
)
def test_ctrl_c_and_a_full_disk_end_with_one_line(monkeypatch, place, capsys, command, raised, status, says):
    def stopped(*_):
        raise raised

    entry = {"main": main, "fit": fit}.get(command, adapt)
    name = "run" if command in ("main", "fit") else f"run_{command}"
    stopped.__name__ = name
    monkeypatch.setattr(entry, name, stopped)
    given = {"learn": "--out {tmp}/out x.md", "ask": "--adapter x", "export": "--adapter x", "main": bad_inputs.CONFIG,
             "fit": "--config={tmp}/config.py --topology=v5e-16"}[command]  # fmt: skip
    assert bad_inputs.run(bad_inputs.Bad(command, given, ""), place) == status
    assert f"seal_jax: {says}" in capsys.readouterr().err


def test_another_kind_of_system_error_is_shown_whole():
    with pytest.raises(ConnectionError):
        disk_error(ConnectionResetError(errno.ECONNRESET, "reset"))


# ---------------------------------------------------------------- whatever else is fed in

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 10**400, 1e308, -0.0])
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("title", "context", "questions", "question", "answer", "completions", "data", "paragraphs", "qas", "answers",
          "text", "train", "test", "input", "output", "passages")  # fmt: skip
shaped = st.recursive(  # JSON with the names that readers look for
    st.none() | st.integers(-2, 11) | st.text(max_size=5) | st.sampled_from(["\ud800", "\x00", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


def leaves(tree, path=()):
    for name, value in tree.items():
        yield from leaves(value, (*path, name)) if isinstance(value, dict) else [(*path, name)]


def refused(action):
    """Run it; what is wrong must be a UserError, and a sentence of one paragraph."""
    try:
        return action()
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)


@FUZZ
@given(st.sampled_from(["knowledge", "arc"]).flatmap(
    lambda domain: st.lists(st.tuples(st.sampled_from(sorted(leaves(config_lib.defaults(domain)))), values), max_size=3)
    .map(lambda changes: (domain, changes))))  # fmt: skip
def test_any_value_in_any_field_of_a_config(drawn):
    domain, changes = drawn
    config = config_lib.defaults(domain)
    for (*groups, last), value in changes:
        node = config
        for group in groups:
            node = node[group]
        node[last] = value
    built = refused(lambda: config_lib.from_dict(config))
    if built is not None:
        json.dumps(dataclasses.asdict(built), allow_nan=False)  # what passes can be recorded


@FUZZ
@given(values)
def test_any_group_of_a_config(value):
    for group in config_lib.defaults("knowledge"):
        refused(lambda group=group: config_lib.from_dict(config_lib.defaults("knowledge") | {group: value}))


@FUZZ
@given(shaped)
def test_any_json_as_passages_tasks_documents_and_what_was_taught(tmp_path, content):
    file = tmp_path / "data.json"
    file.write_text(json.dumps(content))
    refused(lambda: load_passages(str(file)))
    refused(lambda: load_tasks(str(file)))
    lines = tmp_path / "data.jsonl"
    lines.write_text(json.dumps(content) + "\n")
    refused(lambda: read_documents([str(lines)]))
    refused(lambda: read(lines))
    (tmp_path / "seal_jax.json").write_text(json.dumps(content))
    refused(lambda: passages_of(tmp_path))


@FUZZ
@given(st.binary(max_size=60), st.sampled_from(sorted(READERS)))
def test_any_bytes_as_a_document(tmp_path, content, kind):
    file = tmp_path / f"document{kind}"
    file.write_bytes(content)
    refused(lambda: read_documents([str(file)]))
    refused(lambda: read_questions(str(file)))
    refused(lambda: load_passages(str(file)))
    refused(lambda: read(file))


@FUZZ
@given(st.dictionaries(st.sampled_from(["peft_type", "r", "lora_alpha", "use_dora", "bias"]), values, max_size=3))
def test_any_adapter_config(place, changes):
    file = place / "adapter" / "adapter_config.json"
    kept = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(kept) | changes))
        refused(lambda: read_adapter(place / "adapter"))
    finally:
        file.write_text(kept)


@FUZZ
@given(st.dictionaries(st.sampled_from([*bad_inputs.tiny_config("llama"), "rope_parameters"]), values, max_size=3))
def test_any_config_json_of_a_model(changes):
    refused(lambda: model_config(bad_inputs.tiny_config("llama") | changes, "config.json"))


@FUZZ
@given(st.data())
def test_a_gguf_file_with_any_bytes_changed(place, tmp_path, data):
    content = bytearray((place / "model.gguf").read_bytes())
    for where in data.draw(st.lists(st.integers(0, 6000), min_size=1, max_size=3)):
        content[where] = data.draw(st.integers(0, 255))
    file = tmp_path / "changed.gguf"
    file.write_bytes(content[: data.draw(st.sampled_from([None, 40, 4000, -9]))])
    refused(lambda: gguf_file.read(file))
