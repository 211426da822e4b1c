"""The tokenizer inside a GGUF file, rebuilt with the `tokenizers` library.

Of byte-level BPE ('gpt2') GGUF keeps the vocabulary, the merges, the special tokens and the chat template, but only the
*name* of the rule that cuts text into words before merging (`tokenizer.ggml.pre`). The rules of the supported families
stand here. Of SentencePiece's BPE ('llama', which Gemma and Mistral have) it keeps no merges: they follow from the
vocabulary. What GGUF keeps of a tokenizer is also written here, where one of these rules cuts as it does.
"""

import json
from types import SimpleNamespace
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast

from seal_jax.errors import UserError
from seal_jax.model.gguf_file import Metadata
from seal_jax.model.tokenizer import Tokenizer

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # values of tokenizer.ggml.token_type
_SPACE = "\u2581"  # SentencePiece's

# Words as the tokenizers of Llama 3 and Qwen2 cut them: contractions, letters with what leads them, digits,
# punctuation, line ends, blanks. They differ in how many digits stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FAMILIES = {
    "smollm": "smollm",
    "gpt-2": "gpt2",
    "gpt2": "gpt2",
    "llama-bpe": "llama3",
    "llama3": "llama3",
    "llama-v3": "llama3",
    "qwen2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
}
# Texts that the rules cut differently: contractions, digits, line ends, blanks, a letter in two characters, scripts.
_PROBES = (
    "They'LL say it's 12 or 123456 of 3.14, I'm sure!",
    "  two  blanks\n\n   def add(a, b):\n\treturn a+b  # (x_1)\r\n \n",
    "e\u0301tude na\u00efve \u65e5\u672c\u8a9e \u0420\u0443\u0441 \u2167 \u00bd \U0001f60a!?...\n",
)


def tokenizer_from_gguf(metadata: Metadata, place: str) -> Tokenizer:
    """The tokenizer with chat template and special tokens. UserError if the file's kind is not supported."""
    kind = metadata.need("tokenizer.ggml.model")
    tokens = metadata.need("tokenizer.ggml.tokens")
    if kind == "gpt2":
        pre = metadata.need("tokenizer.ggml.pre")
        if pre not in _FAMILIES:
            raise UserError(f"{place}: tokenizer.ggml.pre is {pre!r}; supported are {', '.join(_FAMILIES)}.")
        family = _FAMILIES[pre]
        backend = _byte_level(tokens, metadata, family, place)
    elif kind == "llama":
        family = "sentencepiece"
        tokens = [_SPACE * len(token) if not token.strip(" ") else token for token in tokens]  # runs of spaces
        backend = _sentencepiece(tokens, metadata, place)
    else:
        raise UserError(
            f"{place}: tokenizer.ggml.model is {kind!r}; only byte-level BPE ('gpt2') and SentencePiece's BPE ('llama')"
            " are supported."
        )
    _add_whole(backend, tokens, metadata)

    special = {}
    for name in ("bos", "eos", "unknown", "padding"):
        number = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is not None:
            special[f"{name[:3]}_token"] = _token(tokens, number, f"{name}_token_id", place)
    # llama.cpp puts BOS before a text of these families even if the file does not say so.
    has_bos = metadata.get("tokenizer.ggml.add_bos_token", family in ("llama3", "sentencepiece"))
    if has_bos and "bos_token" in special:
        bos = special["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokens.index(bos))]
        )
    hf = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **special,
    )
    hf.chat_template = metadata.get("tokenizer.chat_template")
    turn_end = metadata.get("tokenizer.ggml.eot_token_id")
    return Tokenizer(hf, place, () if turn_end is None else (turn_end,))


def _byte_level(tokens: list[str], metadata: Metadata, family: str, place: str) -> Backend:
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.need("tokenizer.ggml.merges")]
    vocab = {token: number for number, token in enumerate(tokens)}
    try:
        backend = Backend(models.BPE(vocab, merges, ignore_merges=family == "llama3"))
    except Exception as error:  # plain Exception is what the library raises
        raise UserError(
            f"{place}: tokenizer.ggml.merges do not fit the tokens ({error}): get the file again."
        ) from error
    backend.normalizer = normalizers.NFC() if family == "qwen2" else None
    backend.pre_tokenizer = _word_rule(family)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def _sentencepiece(tokens: list[str], metadata: Metadata, place: str) -> Backend:
    """SentencePiece's BPE joins the two neighbours that make the best token; the best stands first in the vocabulary.
    What no token spells falls apart into bytes."""
    kinds = metadata.need("tokenizer.ggml.token_type")
    joinable = [token for token, kind in zip(tokens, kinds, strict=False) if kind in (_NORMAL, _USER_DEFINED)]
    known = set(joinable)
    merges = [
        (token[:cut], token[cut:])
        for token in joinable
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in known and token[cut:] in known
    ]
    vocab = {token: number for number, token in enumerate(tokens)}
    unknown = _token(tokens, metadata.get("tokenizer.ggml.unknown_token_id", 0), "unknown_token_id", place)
    backend = Backend(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", _SPACE)
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces])
        parts.append(decoders.Strip(" ", 1, 0))
    backend.normalizer, backend.decoder = spaces, decoders.Sequence(parts)
    return backend


def _add_whole(backend: Backend, tokens: list[str], metadata: Metadata) -> None:
    """Tokens that are found in a text before it is cut: the special ones, and those that the model's makers chose.
    Runs of spaces are among the latter; they are joined like other tokens."""
    kinds = dict(zip(tokens, metadata.get("tokenizer.ggml.token_type", []), strict=False))
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in kinds.items() if kind == _CONTROL]
    )
    backend.add_tokens(
        [
            AddedToken(t, special=False, normalized=False)
            for t, kind in kinds.items()
            if kind == _USER_DEFINED and t.strip(_SPACE)
        ]
    )


def _word_rule(family: str) -> pre_tokenizers.PreTokenizer:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if family == "gpt2":
        return gpt2
    if family == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    words = _WORDS.format(digits=r"\p{N}{1,3}" if family == "llama3" else r"\p{N}")
    split = pre_tokenizers.Split(Regex(words), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _token(tokens: list[str], number: int, field: str, place: str) -> str:
    if not 0 <= number < len(tokens):
        raise UserError(f"{place}: tokenizer.ggml.{field} is {number}, but there are only {len(tokens)} tokens.")
    return tokens[number]


def metadata_of(tokenizer: Tokenizer, size: int) -> dict[str, Any]:
    """What tokenizer_from_gguf reads, for a vocabulary of `size` tokens, of which the last may have no text.

    Raises UserError for a tokenizer that is no byte-level BPE, or cuts words by a rule that has no name here.
    """
    content = json.loads(tokenizer.hf.backend_tokenizer.to_str())
    if content["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(content["decoder"]):
        raise UserError(f"{tokenizer.place}: only byte-level BPE can be written as GGUF; export with --merged instead")
    known = {number: token for token, number in tokenizer.hf.get_vocab().items()}
    added = tokenizer.hf.added_tokens_decoder
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    hf, ggml = tokenizer.hf, "tokenizer.ggml"
    template = hf.chat_template.get("default") if isinstance(hf.chat_template, dict) else hf.chat_template
    turn_end = tokenizer.turn_end_id if tokenizer.has_chat_template else None
    values = {
        f"{ggml}.model": "gpt2",
        f"{ggml}.tokens": [known.get(number, f"[PAD{number}]") for number in range(size)],
        f"{ggml}.token_type": [
            _UNUSED if number not in known
            else _NORMAL if number not in added
            else _CONTROL if added[number].special
            else _USER_DEFINED
            for number in range(size)
        ],
        f"{ggml}.merges": merges,
        f"{ggml}.bos_token_id": hf.bos_token_id,
        f"{ggml}.eos_token_id": tokenizer.eos_id,
        f"{ggml}.eot_token_id": turn_end,
        f"{ggml}.unknown_token_id": hf.unk_token_id,
        f"{ggml}.padding_token_id": tokenizer.pad_id,
        f"{ggml}.add_bos_token": tokenizer.puts_bos,
        "tokenizer.chat_template": template,
    }  # fmt: skip
    values = {key: value for key, value in values.items() if value is not None}
    return values | {f"{ggml}.pre": _rule_name(tokenizer, values)}


def _rule_name(tokenizer: Tokenizer, values: dict[str, Any]) -> str:
    """The first of the families whose rule gives this tokenizer's ids."""
    for name in ("smollm", "qwen2", "llama-bpe", "gpt-2"):
        fields = {
            key: SimpleNamespace(contents=lambda value=value: value)
            for key, value in (values | {"tokenizer.ggml.pre": name}).items()
        }
        again = tokenizer_from_gguf(Metadata(fields, tokenizer.place), tokenizer.place)
        if all(again.encode(text) == tokenizer.encode(text) for text in _PROBES):
            return name
    raise UserError(
        f"{tokenizer.place}: its tokenizer cuts words by a rule that is none of smollm, qwen2, llama-bpe and gpt-2, so "
        "no GGUF file of it would read text as the model does; export with --merged instead"
    )
