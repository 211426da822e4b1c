"""What a person with a document does: learn it, ask, take it elsewhere. And what goes wrong is one sentence."""

import contextlib
import io
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny_checkpoint import random_params, tiny_config, tiny_tokenizer, write_gguf

from seal_jax import lab
from seal_jax.adapt import ask as asking
from seal_jax.adapt import questions
from seal_jax.adapt.__main__ import main
from seal_jax.adapt.export import export
from seal_jax.errors import UserError
from seal_jax.model.adapter_file import read_adapter
from seal_jax.model.hf_config import model_config
from seal_jax.model.layout import to_tensors
from seal_jax.model.pretrained import load, save_merged
from seal_jax.text import printable

TEXT = "# The ferry\n\nThe ferry to Bo is blue. It leaves at noon.\n\n- Its captain is Arlo\n"


@pytest.fixture(scope="module", autouse=True)
def patched(home):
    """The tiny model reads short texts quickly; the cache is that of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lab.SETTINGS, "evaluation", {"answer_tokens": 6})
        patch.setitem(lab.SETTINGS, "sampling", {"max_new_tokens": 12})
        patch.setitem(lab.SETTINGS, "engine", {"cache": str((home / "cache").resolve())})
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    (folder / "ferry.md").write_text(TEXT)
    (folder / "q.txt").write_text("What leaves?\tferry\n\nWho is the captain?\n")
    return folder


@pytest.fixture(scope="module")
def learned(home, files, tmp_path_factory):
    """The folder of an adapter, and what was printed while it was made."""
    out = tmp_path_factory.mktemp("adapters") / "x"
    arguments = ["learn", "--model", str(home / "policy"), "--out", str(out), "--questions", str(files / "q.txt"),
                 "--rank", "2", "--epochs", "4", "--learning-rate", "0.03", str(files / "ferry.md")]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(io.StringIO()) as progress:
        assert main(arguments) == 0
    assert "asking before anything is learned: 2/2" in progress.getvalue()
    assert "writing questions: 1/1" in progress.getvalue() and " lessons: took" in progress.getvalue()
    return out, shown.getvalue()


def safe(text):
    """As it is printed: line by line, without what would move the cursor."""
    return "\n".join(map(printable, text.split("\n")))


def test_learning_shows_and_keeps_what_was_answered(learned):
    out, shown = learned
    record = json.loads((out / "seal_jax.json").read_text())
    alone, asked = [p["self_edit"] for p in record["passages"]]
    assert alone == "The ferry to Bo is blue.\nIt leaves at noon.\nIts captain is Arlo"
    assert asked.endswith(f"Question {asked.count('Question')}: Arlo?\nAnswer: Its captain is Arlo")
    assert {p["title"] for p in record["passages"]} == {"The ferry"}
    assert [(q["question"], q["gold"]) for q in record["questions"]] == [
        ("What leaves?", "ferry"), ("Who is the captain?", None)
    ]  # fmt: skip
    assert any(q["before"] != q["after"] for q in record["questions"])
    assert f"{4 * (3 + asked.count('Answer'))} steps" in shown  # 4 epochs of the sentences and of the questions
    for one in record["questions"]:
        assert f"{one['question']}" in shown
    assert "of 1 before" in shown and "of 1 after" in shown
    assert read_adapter(out)[1].rank == 2


def test_a_sentence_answers_its_cues_and_what_the_model_asks(home):
    """Light words are no cue; a question ends where its mark stands, and a text without a word is none."""
    assert questions.cues("The ferry to Bo was built by Ada Orrel in 1768.") == ["ferry Bo built", "Ada Orrel 1768"]
    assert questions.cues("Noon.") == ["Noon"] and questions.cues("It was they.") == []
    model = lab.load(str(home / "policy"))
    texts = ["The ferry to Bo is blue.", "It leaves at noon."]
    found = list(questions.asked_about(model, texts))
    assert all(text in texts and any(map(str.isalpha, asked)) and "?" not in asked for text, asked in found)
    lesson = model.domain.lesson(lab.passage("Ferry", TEXT), questions.edit(model, texts), (), len)
    assert [one.text for one in lesson.examples] == [text for text, _ in found] + [texts[0]] * 2 + [texts[1]] * 2
    assert lesson.examples[-1].prompt.text.endswith("Topic: Ferry\nnoon?")


def test_asking_later_gives_the_answers_of_then(learned, capsys):
    out, _ = learned
    record = json.loads((out / "seal_jax.json").read_text())
    loaded = asking.load(str(out), "")
    asking.answer(loaded, [one["question"] for one in record["questions"]])
    shown = capsys.readouterr().out
    for one in record["questions"]:
        assert safe(f"  without: {one['before']}\n  with:    {one['after']}\n") in shown
    asking.chat(loaded, ["What leaves?\n", "/base\n", "And when?\n", "/new\n", "/base\n"])
    talk, first = capsys.readouterr().out, record["questions"][0]
    assert talk.startswith(safe(f"{asking.HELP}\n{first['after']}\n{first['before']}\n"))
    assert talk.endswith("there is no question yet\n\n")


def test_the_merged_folder_answers_as_the_adapter(learned, home, tmp_path, capsys):
    out, _ = learned
    assert main(["export", "--adapter", str(out), "--merged", str(tmp_path / "merged")]) == 0
    loaded = asking.load(str(out), str(tmp_path / "merged"))  # the adapter's weights are in the model now
    capsys.readouterr()
    asking.answer(loaded, ["What leaves?"])
    after = json.loads((out / "seal_jax.json").read_text())["questions"][0]["after"]
    assert safe(f"without: {after}\n") in capsys.readouterr().out


def test_the_gguf_file_holds_the_merged_model(learned, tmp_path):
    """The adapter's model as a GGUF file, whose tokenizer's fields are copied: into it, and out again."""
    hf = tiny_config("llama", max_position_embeddings=512)
    tensors = dict(to_tensors(model_config(hf, "config"), random_params(hf, 0)))
    write_gguf(tmp_path / "base.gguf", hf, tensors, tiny_tokenizer())
    assert main(["export", "--adapter", str(learned[0]), "--model", str(tmp_path / "base.gguf"), "--merged",
                 str(tmp_path / "merged"), "--gguf", str(tmp_path / "x.gguf"), "--gguf-type", "f32"]) == 0  # fmt: skip
    base, merged, ours = (load(str(tmp_path / name), "float32") for name in ("base.gguf", "merged", "x.gguf"))
    assert ours.config == merged.config
    jax.tree.map(np.testing.assert_array_equal, ours.params, merged.params)
    text = "What leaves at 7:45?<|im_end|>"
    assert ours.tokenizer.encode(text) == merged.tokenizer.encode(text) == base.tokenizer.encode(text)
    kernels = [one.params["layers"]["q_proj"]["kernel"] for one in (ours, base)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3  # the adapter is in it


def test_the_model_writes_self_edits_and_questions_where_it_is_asked_to(home, files, tmp_path):
    out = tmp_path / "own"
    assert main(["learn", "--model", str(home / "policy"), "--out", str(out), "--edits", "2", "--rank", "2",
                 "--epochs", "1", str(files / "ferry.md")]) == 0  # fmt: skip
    record = json.loads((out / "seal_jax.json").read_text())
    assert len(record["passages"]) == 2 and record["passages"][0]["self_edit"] != record["passages"][1]["self_edit"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["learn", "--out", "{tmp}/a", "{tmp}/gone.txt"], "gone.txt cannot be read"),
        (["learn", "--out", "{tmp}", "{doc}"], "exists and is not empty"),
        (["learn", "--out", "{tmp}/a", "--edits", "-1", "{doc}"], "--edits is -1"),
        (["learn", "--out", "{tmp}/a", "--epochs", "0", "{doc}"], "--epochs is 0"),
        (["learn", "--out", "{tmp}/a", "--model", "{tmp}/gone", "{doc}"], "gone"),
        (["learn", "--out", "{tmp}/a", "--questions", "{tmp}/gone.txt", "{doc}"], "gone.txt cannot be read"),
        (["learn", "--out", "{tmp}/a", "--questions", "{tmp}/empty.txt", "{doc}"], "holds no question"),
        (["ask", "--adapter", "{tmp}", "x?"], "holds no adapter_config.json"),
        (["export", "--adapter", "{tmp}", "--merged", "{tmp}/m"], "holds no adapter_config.json"),
    ],
)
def test_what_goes_wrong_is_one_sentence(arguments, says, files, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n")
    places = {"tmp": tmp_path, "doc": files / "ferry.md"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("seal_jax: ") and says in error and len(error.strip().splitlines()) == 1


def test_an_adapter_of_another_model_is_refused(learned, tmp_path):
    hf = tiny_config("llama", intermediate_size=160)
    save_merged(tmp_path / "other", random_params(hf, 0), model_config(hf, "config"), tiny_tokenizer(), hf)
    with pytest.raises(UserError, match="does not fit"):
        asking.load(str(learned[0]), str(tmp_path / "other"))
    with pytest.raises(UserError, match="does not fit"):
        export(str(learned[0]), str(tmp_path / "other"), str(tmp_path / "merged"))
    assert not (tmp_path / "merged").exists()


def test_help_names_the_commands():
    done = subprocess.run([sys.executable, "-m", "seal_jax.adapt", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "learn | ask | export" in done.stdout
