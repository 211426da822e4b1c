"""Bad input, a line each: what a person gives, and the sentence it gets. tests/test_bad_inputs.py holds every entry
point to them, and

    PYTHONPATH=tests python tests/bad_inputs.py > docs/errors.md

writes the table that docs/errors.md shows, by running them.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tiny_run
from absl import flags
from ml_collections import config_flags
from tiny_checkpoint import random_params, tiny_config, tiny_tokenizer, write_gguf

from seal_jax import config as config_lib
from seal_jax import fit, lab, main
from seal_jax.adapt import __main__ as adapt
from seal_jax.errors import UserError
from seal_jax.model.hf_config import model_config
from seal_jax.model.layout import to_tensors
from seal_jax.model.lora import LoraConfig
from seal_jax.model.pretrained import save_adapter, save_merged
from seal_jax.report import html
from seal_jax.report.compare import compare
from seal_jax.runs.directory import open_run

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Bad:
    """entry: main, learn, ask, export, fit, report or lab; given: what follows it, with {tmp} for the workshop;
    says: what its sentence must hold."""

    entry: str
    given: str
    says: str


def passages(**changes) -> list[dict]:
    return [{"title": "Bo", "context": "The ferry.", "questions": [{"question": "What?", "answer": "ferry"}]} | changes]


def workshop(folder: Path) -> None:
    """Everything that the cases name: models, adapters, documents, data and runs, sound ones and damaged ones."""
    models(folder)
    adapters(folder)
    documents(folder)
    data(folder)
    runs(folder)


def models(folder: Path) -> None:
    hf, tokenizer = tiny_config("llama", max_position_embeddings=512), tiny_tokenizer()
    config, params = model_config(hf, "config"), random_params(hf)
    save_merged(folder / "model", params, config, tokenizer, hf)
    write_gguf(folder / "model.gguf", hf, dict(to_tensors(config, params)), tokenizer)
    wide = tiny_config("llama", intermediate_size=160)
    save_merged(folder / "wide", random_params(wide), model_config(wide, "config"), tokenizer, wide)
    tokenizer.hf.chat_template = None
    save_merged(folder / "no_chat", params, config, type(tokenizer)(tokenizer.hf, "plain"), hf)

    def damaged(name: str, **changes) -> Path:
        copy = folder / name
        shutil.copytree(folder / "model", copy)
        if changes:
            content = json.loads((copy / "config.json").read_text()) | changes
            (copy / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v != "gone"}))
        return copy

    damaged("unknown", model_type="mamba")
    damaged("quantized", quantization_config={"bits": 4})
    damaged("no_layers", num_hidden_layers="gone")
    damaged("odd_heads", num_attention_heads=3)
    damaged("more_layers", num_hidden_layers=3)
    damaged("wider", hidden_size=128)
    damaged("longrope", rope_scaling={"rope_type": "longrope", "factor": 2.0})
    (damaged("config_not_json") / "config.json").write_text("{")
    (damaged("config_list") / "config.json").write_text("[]")
    (damaged("no_config") / "config.json").unlink()
    (damaged("no_tokenizer") / "tokenizer.json").unlink()
    (folder / "no_tokenizer" / "tokenizer_config.json").unlink()
    (damaged("bad_tokenizer") / "tokenizer.json").write_text("{}")
    weights = (folder / "model" / "model.safetensors").read_bytes()
    (damaged("truncated") / "model.safetensors").write_bytes(weights[:5000])
    (damaged("no_weights") / "model.safetensors").rename(folder / "no_weights" / "pytorch_model.bin")
    (damaged("bad_index") / "model.safetensors.index.json").write_text("{}")
    (folder / "truncated.gguf").write_bytes((folder / "model.gguf").read_bytes()[:3000])
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "model.bin").write_bytes(b"x")


def adapters(folder: Path) -> None:
    import jax

    from seal_jax.model.lora import init_adapter

    lora = LoraConfig(2, 4.0, ("q_proj", "v_proj"))
    adapter = init_adapter(jax.random.key(0), random_params(tiny_config("llama")), lora)
    save_adapter(folder / "adapter", adapter, lora, str(folder / "model"))
    save_adapter(folder / "of_gone", adapter, lora, str(folder / "gone"))
    save_adapter(folder / "of_nobody", adapter, lora, "")
    every = LoraConfig(2, 4.0, ("down_proj",))
    wide = init_adapter(jax.random.key(0), random_params(tiny_config("llama", intermediate_size=160)), every)
    save_adapter(folder / "of_wide", wide, every, str(folder / "model"))

    def damaged(name: str, **changes) -> Path:
        shutil.copytree(folder / "adapter", folder / name)
        file = folder / name / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))
        return folder / name

    damaged("dora", use_dora=True)
    damaged("ia3", peft_type="IA3")
    damaged("other_rank", r=8)
    (damaged("adapter_not_json") / "adapter_config.json").write_text("]")
    (damaged("adapter_list") / "adapter_config.json").write_text("[]")
    file = damaged("adapter_cut") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    (damaged("adapter_gone") / "adapter_model.safetensors").unlink()
    (damaged("taught_wrong") / "seal_jax.json").write_text('{"passages": [{"title": 3}]}')


def documents(folder: Path) -> None:
    (folder / "notes.md").write_text("# Ferry\n\nThe ferry to Bo is blue.\n")
    (folder / "blank.txt").write_text(" \n\n")
    (folder / "marks.md").write_text("---\n***\n")
    (folder / "notes.docx").write_text("x")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    (folder / "bad.pdf").write_text("no PDF")
    (folder / "page.html").write_text("<html><script>1</script></html>")
    (folder / "bad.jsonl").write_text('{"text": "x"}\n{')
    (folder / "number.jsonl").write_text('{"text": 3}')
    (folder / "one_word.txt").write_text("a b " * 450)
    (folder / "no_questions.txt").write_text("\n \n")
    (folder / "long_question.txt").write_text("word " * 600)
    (folder / "taken").mkdir()
    (folder / "taken" / "x").write_text("")


def data(folder: Path) -> None:
    def save(name: str, content) -> None:
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    tiny_run.make_passages(folder / "train.json", "Bo")
    tiny_run.make_passages(folder / "evaluation.json", "Cu")
    save("not_json.json", "[{")
    save("object.json", {"a": 1})
    save("empty_list.json", [])
    save("no_context.json", [{"title": "Bo", "questions": []}])
    save("blank_context.json", passages(context="  "))
    save("no_title.json", passages(title=""))
    save("no_questions.json", passages(questions=[]))
    save("no_answer.json", passages(questions=[{"question": "What?"}]))
    save("number.json", passages(context=3))
    save("texts.json", ["a", "b"])
    save("completions.json", passages(completions=[1]))
    save("half_letter.json", passages(context="\ud800"))
    save("squad.json", {"data": 3})
    save("squad_v2.json", {"data": [{"title": "B", "paragraphs": [
        {"context": "x", "qas": [{"question": "q", "answers": []}]}]}]})  # fmt: skip
    save("long.json", passages(context="word " * 900))
    save("prompt.txt", "Write about it.")
    (folder / "broken.py").write_text("def get_config():\n    return 1 / 0\n")
    (folder / "syntax.py").write_text("def get_config(:\n")
    (folder / "other.py").write_text("def get_config():\n    return 5\n")


def runs(folder: Path) -> None:
    values = tiny_run.tiny_values(folder, outer={"rounds": 0}, engine={"cache": ""})
    values["model"]["policy"] = str(folder / "model")
    arc = tiny_run.tiny_values(folder, domain="arc", engine={"cache": ""})
    others = {}
    for name in ("continual", "grid"):
        others[name] = config_lib.defaults("knowledge", name)
        others[name] |= {group: values[group] for group in ("model", "engine")}
        others[name]["data"] |= {"evaluation": str(folder / "evaluation.json"), "evaluation_items": 2}
        others[name]["sampling"] |= {"max_new_tokens": 8}
    others["continual"]["continual"] |= {"passages": 2, "sequences": 1}
    for name, content in (("config", values), ("arc", arc), *others.items()):
        lines = ["from ml_collections import ConfigDict", "from seal_jax.config import at_size", "",
                 "def get_config(size=''):", f"    return at_size(ConfigDict({content!r}), size)"]  # fmt: skip
        (folder / f"{name}.py").write_text("\n".join(lines) + "\n")
    (folder / "a_file").write_text("")
    for name, file, text in (
        ("run_no_config", "trials.jsonl", "{}\n"), ("run_bad_config", "config.json", "{"),
        ("run_list_config", "config.json", "[]"), ("run_environment", "environment.json", "["),
    ):  # fmt: skip
        (folder / name).mkdir()
        (folder / name / file).write_text(text)
    for name in ("run_bad_records", "run_other"):
        open_run(folder / name, values | ({"seed": 5} if name == "run_other" else {})).close()
    for name in ("trials", "items", "rows"):
        (folder / "run_bad_records" / f"{name}.jsonl").write_text('{"x": 1}\n')


CONFIG = "--config={tmp}/config.py --workdir={tmp}/new"
FIELDS = [  # --config.FIELD=VALUE, what its sentence holds
    ("seed=-1", "config.seed: is -1 and must be at least 0"),
    ("seed=99999999999", "config.seed: is 99999999999 and must be at most"),
    ("inner.rank=-3", "config.inner.rank: is -3 and must be at least 0"),
    ("inner.rank=0", "config.inner.rank: is 0 and must be at least 1"),
    ("inner.alpha=0", "config.inner.alpha: is 0.0 and must be greater than 0"),
    ("inner.learning_rate=nan", "config.inner.learning_rate: is nan and must be a finite number"),
    ("inner.learning_rate=inf", "config.inner.learning_rate: is inf and must be a finite number"),
    ("inner.epochs=0", "config.inner.epochs: is 0 and must be at least 1"),
    ("inner.targets=('query',)", "config.inner.targets: is ('query',) and must name some of q_proj"),
    ("inner.targets=()", "config.inner.targets: is () and must name some of q_proj"),
    ("inner.schedule=steps", "config.inner.schedule: is 'steps' and must be one of linear, cosine, constant"),
    ("inner.objective=dpo", "config.inner.objective: is 'dpo' and must be one of sft, distill"),
    ("outer.rounds=-1", "config.outer.rounds: is -1 and must be at least 0"),
    ("outer.samples=0", "config.outer.samples: is 0 and must be at least 1"),
    ("outer.selection=worst", "config.outer.selection: is 'worst' and must be one of best"),
    ("outer.improver=ppo", "config.outer.improver: is 'ppo' and must be one of rest_em"),
    ("outer.dpo.beta=0.5", "config.outer.dpo: is set, but outer.improver is 'rest_em', which does not read it"),
    ("sampling.top_p=0", "config.sampling.top_p: is 0.0 and must be greater than 0"),
    ("sampling.temperature=-1", "config.sampling.temperature: is -1.0 and must be at least 0"),
    ("sampling.max_new_tokens=0", "config.sampling.max_new_tokens: is 0 and must be at least 1"),
    ("sampling.max_new_tokens=600", "config.sampling.max_new_tokens: the longest prompt, of 'Arlo', has"),
    ("evaluation.answer_tokens=0", "config.evaluation.answer_tokens: is 0 and must be at least 1"),
    ("knowledge.least_words=4", "config.knowledge.least_words: is of sentences, but config.knowledge.split_sent"),
    ("reward.likelihood_weight=0", "config.reward: accuracy_weight and likelihood_weight are both 0; set one"),
    ("reward.judge.kind=oracle", "config.reward.judge.kind: is 'oracle' and must be one of lexical"),
    ("reward.judge.kind=remote", "OPENAI_API_KEY"),
    ("data.heldout_fraction=2", "config.data.heldout_fraction: is 2.0 and must be at most 0.9"),
    ("data.train_items=9", "train.json has 2 passages and --config.data.train_items=9 asks for more"),
    ("data.evaluation=shipped:tset", "the shipped corpus has no split 'tset'; use one of shipped:train"),
    ("data.evaluation={tmp}/train.json", "2 of the 2 passages to evaluate on are also learned from ('Arlo', 'Arlo')"),
    ("data.evaluation={tmp}/long.json --config.data.evaluation_items=1", "the longest prompt, of 'Bo', has"),
    ("model.dtype=int4", "config.model.dtype: is 'int4' and must be one of auto"),
    ("model.chat=maybe", "config.model.chat: is 'maybe' and must be one of auto"),
    ("knowledge.form=xml", "config.knowledge.form: is 'xml' and must be one of plain, chat"),
    ("knowledge.form=chat", "name an instruct model, or use plain text"),
    ("knowledge.prompt=improvise", "improvise"),
    ("knowledge.prompt={tmp}/prompt.txt", "prompt.txt"),
    ("parallel.backend=threads", "config.parallel.backend: is 'threads' and must be one of"),
    ("parallel.model=3", "parallel.model"),
    ("engine.candidates=-1", "config.engine.candidates: is -1 and must be at least 0"),
    ("export.policy=yes_please", "--config.export.policy=yes_please"),
    ("inner.rnak=3", "config.inner has no field 'rnak'; there are accumulation, alpha"),
    ("iner.rank=3", "config has no field 'iner'; there are"),
    ("inner.rank=many", "--config.inner.rank=many"),
    ("reward.judge=remote", "config.reward.judge is a group of fields; set one of them"),
    ("arc.attempts=2", "config.arc.attempts is read by the domain 'arc' alone"),
]
FILES = [  # --config.data.train=FILE
    ("gone.json", "gone.json cannot be read (No such file or directory); give a JSON file"),
    ("not_json.json", "not_json.json is not a JSON file in UTF-8"),
    ("binary.txt", "binary.txt is not a JSON file in UTF-8"),
    ("object.json", "object.json is neither a list of passages nor a SQuAD file"),
    ("empty_list.json", "empty_list.json holds no passage with questions"),
    ("no_context.json", "no_context.json, item 0: 'questions' is empty; give at least one"),
    ("blank_context.json", "blank_context.json, item 0: 'context' is empty"),
    ("no_title.json", "no_title.json, item 0: 'title' is empty"),
    ("no_questions.json", "no_questions.json, item 0: 'questions' is empty"),
    ("no_answer.json", "no_answer.json, item 0, question 0 lacks the field 'answer'"),
    ("number.json", "number.json, item 0: 'context' must be a text, and is 3"),
    ("texts.json", "texts.json, item 0 must be an object with 'questions', and is 'a'"),
    ("completions.json", "completions.json, item 0: 'completions' must be a list of texts"),
    ("half_letter.json", "half_letter.json, item 0: 'context' holds half a letter"),
    ("squad.json", "squad.json: 'data' must be a list of articles"),
    ("squad_v2.json", "squad_v2.json, item 0, paragraph 0, question 0: 'answers' is empty"),
]
MODELS = [  # --config.model.policy=MODEL
    ("gone", "gone does not exist, and is no hub id either"),
    ("unknown", "config.json: model_type is 'mamba'; supported are llama"),
    ("quantized", "config.json: quantization_config is {'bits': 4}, but only None is supported"),
    ("no_layers", "config.json: field num_hidden_layers must be a positive whole number, not None"),
    ("odd_heads", "config.json: num_attention_heads 3 is no multiple of num_key_value_heads 2"),
    ("more_layers", "has no tensor model.layers.2"),
    ("wider", "has shape (400, 64) where the configuration calls for (400, 128)"),
    ("longrope", "config.json: rope type 'longrope' is not supported"),
    ("config_not_json", "config.json is not valid JSON"),
    ("config_list", "config.json must hold a JSON object"),
    ("no_config", "config.json does not exist"),
    ("no_tokenizer", "holds no tokenizer.json: copy the tokenizer's files beside the weights"),
    ("bad_tokenizer", "its tokenizer cannot be read"),
    ("truncated", "model.safetensors is missing, incomplete or no safetensors file"),
    ("no_weights", "holds no model.safetensors: convert the checkpoint to safetensors first"),
    ("bad_index", "model.safetensors.index.json has no weight_map"),
    ("truncated.gguf", "truncated.gguf is not a complete GGUF file"),
    ("empty.gguf", "empty.gguf is not a complete GGUF file"),
    ("model.bin", "model.bin is a file but not a .gguf"),
]
EXPERIMENTS = [  # experiment, --config.FIELD=VALUE
    ("continual", "continual.layers=(7,)", "config.continual.layers: names layer 7, but the student has 2, counted"),
    ("continual", "continual.neutral={tmp}/blank.txt", "blank.txt holds no text; write some into it"),
    ("continual", "continual.neutral={tmp}/gone.txt", "gone.txt cannot be read (No such file or directory)"),
    ("continual", "continual.neutral={tmp}/evaluation.json", "config.continual.neutral: 2 of its texts are also"),
    ("continual", "continual.neutral_texts=3", "config.continual.neutral_texts: is set, but config.continual.neutral"),
    ("continual", "continual.author=endpoint", "config.authors.endpoint.model: is empty; name the model"),
    ("continual", "authors.file=x.json", "config.authors.file: is set, but continual.author does not ask for 'file'"),
    ("continual", "continual.author=file", "evaluation.json has no completions of any of the 2 items"),
    ("grid", "grid.rates=()", "config.grid.rates: is empty and must hold at least one number"),
    ("grid", "grid.rates=(0.0,)", "config.grid.rates: is (0.0,) and must be greater than 0"),
    ("grid", "inner.epochs=3", "config.inner has no field 'epochs'; there are accumulation, alpha"),
]
LEARN = "--model {tmp}/model --out {tmp}/out {tmp}/notes.md"
OTHERS = [
    Bad("main", "", "give --config=FILE, such as configs/quickstart.py"),
    Bad("main", "--config={tmp}/config.py", "give --workdir=FOLDER for the run"),
    Bad("main", "--config={tmp}/gone.py --workdir={tmp}/new", "gone.py' cannot be read; name one, such as"),
    Bad("main", "--config={tmp}/broken.py --workdir={tmp}/new", "does not work (ZeroDivisionError: division by zero"),
    Bad("main", "--config={tmp}/syntax.py --workdir={tmp}/new", "does not work (SyntaxError"),
    Bad("main", "--config={tmp}/other.py --workdir={tmp}/new", "get_config of the config file must return a Config"),
    Bad("main", "--config={tmp}/config.py:large --workdir={tmp}/new", "no version 'large'; there is :smoke"),
    Bad("main", f"{CONFIG} --speed=9", "speed"),
    Bad("main", f"{CONFIG} more", "'more' is not a flag; a flag has the form --NAME=VALUE"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/a_file", "a_file cannot be a run directory"),
    Bad("main", "--config={tmp}/config.py --workdir=/proc/run", "/proc/run cannot be a run directory"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/run_no_config", "holds records but no config.json"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/run_bad_config", "run_bad_config/config.json is not JSON"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/run_list_config", "config.json holds no config"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/run_environment", "environment.json is not JSON"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/run_bad_records", ".jsonl, line 1: not the record that must"),
    Bad("main", "--config={tmp}/config.py --workdir={tmp}/run_other", "has another config; choose another --workdir"),
    *[Bad("main", f"{CONFIG} --config.{field}", says) for field, says in FIELDS],
    *[Bad("main", f"{CONFIG} --config.data.train={{tmp}}/{file}", says) for file, says in FILES],
    *[Bad("main", f"{CONFIG} --config.model.policy={{tmp}}/{model}", says) for model, says in MODELS],
    Bad("main", f"{CONFIG} --config.model.policy=", "config.model.policy: is empty; name a model"),
    Bad("learn", "", "the following arguments are required: FILE, --out"),
    Bad("learn", "--out {tmp}/out {tmp}/notes.md --epochs many", "argument --epochs: invalid int value: 'many'"),
    Bad("learn", "--out {tmp}/out {tmp}/gone.md", "gone.md cannot be read (No such file or directory)"),
    Bad("learn", "--out {tmp}/out {tmp}", "a file without an ending cannot be read"),
    Bad("learn", "--out {tmp}/out {tmp}/notes.docx", "notes.docx: .docx cannot be read; give one of"),
    Bad("learn", "--out {tmp}/out {tmp}/blank.txt", "blank.txt: no text was found to learn"),
    Bad("learn", "--out {tmp}/out {tmp}/marks.md", "marks.md: no text was found to learn"),
    Bad("learn", "--out {tmp}/out {tmp}/binary.txt", "binary.txt is not text in UTF-8"),
    Bad("learn", "--out {tmp}/out {tmp}/bad.pdf", "bad.pdf cannot be read as a PDF"),
    Bad("learn", "--out {tmp}/out {tmp}/page.html", "page.html: no text was found to learn"),
    Bad("learn", "--out {tmp}/out {tmp}/bad.jsonl", "bad.jsonl, line 2 is not JSON"),
    Bad("learn", "--out {tmp}/out {tmp}/number.jsonl", "number.jsonl, line 1 has no text 'text'"),
    Bad("learn", "--model {tmp}/model --out {tmp}/out {tmp}/one_word.txt", "the passage 'one word' has"),
    Bad("learn", "--model {tmp}/model --out {tmp}/taken {tmp}/notes.md", "taken exists and is not empty"),
    Bad("learn", "--model {tmp}/model --out {tmp}/a_file {tmp}/notes.md", "a_file exists and is not empty"),
    Bad("learn", "--model {tmp}/model --out {tmp}/a_file/out {tmp}/notes.md", "out cannot be made"),
    Bad("learn", "--model {tmp}/model --out /proc/out {tmp}/notes.md", "/proc/out cannot be made"),
    Bad("learn", f"{LEARN} --edits -1", "--edits is -1; give the self-edits of each passage"),
    Bad("learn", f"{LEARN} --epochs 0", "--epochs is 0; give a number above 0"),
    Bad("learn", f"{LEARN} --rank 0", "--rank is 0; give a number above 0"),
    Bad("learn", f"{LEARN} --learning-rate nan", "--learning-rate is nan; give a number above 0"),
    Bad("learn", f"{LEARN} --learning-rate inf", "--learning-rate is inf; give a number above 0"),
    Bad("learn", f"{LEARN} --seed -1", "--seed is -1; give a number from 0 to 4294967295"),
    Bad("learn", f"{LEARN} --questions {{tmp}}/gone.txt", "gone.txt cannot be read"),
    Bad("learn", f"{LEARN} --questions {{tmp}}/no_questions.txt", "no_questions.txt holds no question; write one"),
    Bad("learn", f"{LEARN} --questions {{tmp}}/long_question.txt", "the question 'word word"),
    Bad("learn", "--model {tmp}/gone --out {tmp}/out {tmp}/notes.md", "gone does not exist, and is no hub id either"),
    Bad("learn", "--model {tmp}/unknown --out {tmp}/out {tmp}/notes.md", "model_type is 'mamba'"),
    Bad("learn", "--model {tmp}/no_chat --out {tmp}/out {tmp}/notes.md", "has no chat template"),
    Bad("ask", "", "the following arguments are required: --adapter"),
    Bad("ask", "--adapter {tmp}/gone Why?", "gone holds no adapter_config.json; name the folder of an adapter"),
    Bad("ask", "--adapter {tmp}/adapter_not_json Why?", "adapter_config.json is not valid JSON"),
    Bad("ask", "--adapter {tmp}/adapter_list Why?", "adapter_config.json must hold a JSON object"),
    Bad("ask", "--adapter {tmp}/adapter_cut Why?", "adapter_model.safetensors is missing, incomplete or no"),
    Bad("ask", "--adapter {tmp}/adapter_gone Why?", "adapter_model.safetensors is missing, incomplete or no"),
    Bad("ask", "--adapter {tmp}/dora Why?", "adapter_config.json: use_dora is True, which is not known here"),
    Bad("ask", "--adapter {tmp}/ia3 Why?", "describes no LoRA with numbers 'r' and 'lora_alpha'"),
    Bad("ask", "--adapter {tmp}/other_rank Why?", "has rank 2, but adapter_config.json says 8"),
    Bad("ask", "--adapter {tmp}/of_gone Why?", "gone does not exist, and is no hub id either"),
    Bad("ask", "--adapter {tmp}/of_nobody Why?", "does not name its model; give it with --model"),
    Bad("ask", "--adapter {tmp}/of_wide Why?", "does not fit"),
    Bad("ask", "--adapter {tmp}/taught_wrong Why?", "seal_jax.json is not what `adapt learn` writes"),
    Bad("ask", "--adapter {tmp}/adapter --model {tmp}/truncated Why?", "model.safetensors is missing, incomplete"),
    Bad("export", "--adapter {tmp}/adapter", "name what to write: --merged FOLDER"),
    Bad("export", "--adapter {tmp}/gone --merged {tmp}/m", "gone holds no adapter_config.json"),
    Bad("export", "--adapter {tmp}/adapter --merged {tmp}/taken", "taken exists and is not empty"),
    Bad("export", "--adapter {tmp}/adapter --merged {tmp}/a_file", "a_file exists: choose another name"),
    Bad("export", "--adapter {tmp}/adapter --merged /proc/m", "/proc/m cannot be made"),
    Bad("export", "--adapter {tmp}/adapter --gguf {tmp}/model.gguf", "model.gguf exists: choose another name"),
    Bad("export", "--adapter {tmp}/adapter --gguf {tmp}/x.bin", "x.bin; give it a name that ends in .gguf"),
    Bad("export", "--adapter {tmp}/adapter --gguf /proc/x.gguf --model {tmp}/model.gguf", "x.gguf cannot be made"),
    Bad("export", "--adapter {tmp}/adapter --gguf {tmp}/x.gguf --gguf-type q4", "--gguf-type is 'q4'; choose one of"),
    Bad("export", "--adapter {tmp}/adapter --gguf {tmp}/x.gguf", "cuts words by a rule that is none of smollm"),
    Bad("export", "--adapter {tmp}/of_wide --merged {tmp}/m", "does not fit"),
    Bad("fit", "--config={tmp}/config.py", "give --topology=SLICE, such as --topology=v5e-16"),
    Bad("fit", "--config={tmp}/config.py --topology=v9-16", "v9"),
    Bad("fit", "--config={tmp}/arc.py --topology=v5e-16", "fit knows the programs of config.domain 'knowledge'"),
    Bad("fit", "--config={tmp}/config.py --topology=v5e-16 --config.data.train_items=0", "config.data.train_items is"),
    Bad("fit", "--config={tmp}/config.py --topology=v5e-16 --config.engine.candidates=0", "give a number, or find one"),
    *[Bad("main", f"--config={{tmp}}/{kind}.py --workdir={{tmp}}/new --config.{field}", says)
      for kind, field, says in EXPERIMENTS],
    Bad("report", "--compare {tmp}/gone", "gone holds no run with a table; name the folder of a run"),
    Bad("report", "--compare {tmp}/not_json.json", "not_json.json is no JSON"),
    Bad("report", "--compare {tmp}/object.json", "object.json is no result file: it must be a list of articles"),
    Bad("report", "--compare {tmp}/train.json", "train.json holds no accuracies; name a result file"),
    Bad("report", "--compare SEAL={tmp}/train.json", "no run has a row 'SEAL'; there are none"),
    Bad("report", "{tmp}/run_bad_config", "config.json is not JSON"),
    Bad("report", "{tmp}/run_bad_records", ".jsonl, line 1: not the record that must stand here"),
    Bad("lab", "lab.load('{tmp}/model', iner=dict())", "lab.load knows no settings 'iner'; the groups are"),
    Bad("lab", "lab.load('{tmp}/model', inner=dict(rnak=3))", "config.inner.rnak: no such field"),
    Bad("lab", "lab.load('{tmp}/model', inner=dict(epochs=0.5))", "config.inner.epochs: is 0.5 and must be of type"),
    Bad("lab", "lab.load('{tmp}/model', inner=3)", "lab.load got 3 as settings of 'inner'; give them by name"),
    Bad("lab", "lab.load('{tmp}/gone')", "gone does not exist, and is no hub id either"),
    Bad("lab", "lab.passage('', 'x')", "a passage needs a title and a text; one of them is empty"),
    Bad("lab", "lab.passage('x', ' ')", "a passage needs a title and a text; one of them is empty"),
    Bad("lab", "lab.write(model, about, 0)", "lab.write was asked for 0 self-edits; ask for at least 1"),
    Bad("lab", "lab.write(model, lab.passage('Long', 'word ' * 900), 1)", "Long has"),
    Bad("lab", "lab.train(model, about, [])", "there is nothing to train on; give at least one self-edit"),
    Bad("lab", "lab.train(model, about, ['One.', ' '])", "self-edit 2 of 2 holds no text to train on"),
    Bad("lab", "lab.train(model, about, ['word ' * 900])", "a line of self-edit 1 has"),
    Bad("lab", "lab.ask(model, None, about, ['word ' * 900])", "the question 'word word"),
    Bad("lab", "lab.score(['What?'], [], [['x']])", "lab.score got 1 questions; give as many gold answers"),
    Bad("lab", "lab.teach(model, [])", "there is nothing to teach; give at least one (passage, self-edit)"),
]
CASES = OTHERS


def sentence(case: Bad, folder: Path) -> str:
    """What the case's entry point says about it. AssertionError unless it ends as bad input does, with status 2."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(case, folder)
    assert status == 2, f"status {status}: {out.getvalue()[-500:]}{err.getvalue()[-500:]}"
    lines = [line for line in err.getvalue().splitlines() if line.startswith("seal_jax: ")]
    assert len(lines) == 1 and "Traceback" not in err.getvalue(), err.getvalue()
    rest = err.getvalue().split(lines[0])[1].strip("\n")
    return lines[0].removeprefix("seal_jax: ") + "".join(f" {line.strip()}" for line in rest.splitlines())


def run(case: Bad, folder: Path) -> int:
    """Give the case to its entry point, in this process -> exit status."""
    words = [word.format(tmp=folder) for word in case.given.split()]
    if case.entry in ("learn", "ask", "export"):
        return adapt.main([case.entry, *words])
    if case.entry in ("main", "fit"):
        return with_flags({"main": main, "fit": fit}[case.entry], ["seal_jax", *words])
    try:
        if case.entry == "report" and words[0] == "--compare":
            compare(words[1:])
        elif case.entry == "report":
            html.write(Path(words[0]))
        else:
            eval(case.given.format(tmp=folder), names(folder))
    except UserError as error:
        print(f"seal_jax: {error}", file=sys.stderr)
        return 2
    return 0


def with_flags(module, argv: list[str]) -> int:
    """module.main(argv) with flags that no other call has parsed."""
    fresh = flags.FlagValues()
    changed = {"FLAGS": fresh, "CONFIG": config_flags.DEFINE_config_file("config", flag_values=fresh, sys_argv=argv)}
    if module is main:
        changed["WORKDIR"] = flags.DEFINE_string("workdir", None, "", flag_values=fresh)
    else:
        changed["TOPOLOGY"] = flags.DEFINE_string("topology", None, "", flag_values=fresh)
        changed["LARGEST"] = flags.DEFINE_bool("largest", False, "", flag_values=fresh)
    sys.modules.pop("config_config", None)  # ml_collections loads every config file as this one module
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    hook = sys.unraisablehook
    try:
        with mock.patch.multiple(module, **changed), mock.patch.dict(os.environ, environment, clear=True):
            return module.main(argv)
    finally:
        sys.unraisablehook = hook


def names(folder: Path) -> dict:
    """What a line of Python in a case may use."""
    if folder not in _MODELS:
        _MODELS[folder] = lab.load(str(folder / "model"), engine={"cache": ""})
    return {"lab": lab, "model": _MODELS[folder], "about": lab.passage("Bo", "The ferry to Bo is blue.")}


_MODELS: dict = {}
HEAD = """# Bad input

What is wrong with the input is one sentence that names the file and the field and says what to do; the program then
ends with status 2, and nothing that was computed is lost. This table is made by running every line of it:
`PYTHONPATH=tests python tests/bad_inputs.py > docs/errors.md`. `tests/test_bad_inputs.py` holds the entry points to it.
FOLDER holds the inputs, which the script makes.

| entry | given | what it says |
|---|---|---|"""


def table(folder: Path) -> str:
    """docs/errors.md: every case with its sentence."""
    lines = [HEAD]
    for case in CASES:
        said = sentence(case, folder).replace(str(folder), "FOLDER").replace("|", "\\|").replace("<", "&lt;")
        given = case.given.replace("{tmp}", "FOLDER").replace("--config=FOLDER/config.py --workdir=FOLDER/new ", "")
        lines.append(f"| {case.entry} | `{given}` | {said if len(said) < 300 else said[:297] + '...'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        (place / "cache").mkdir()
        workshop(place)
        print(table(place), end="")
