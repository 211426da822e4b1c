"""Text <-> token ids, for prompts and for training examples, so that training sees the ids that generation sees."""

import copy
import json
from pathlib import Path
from typing import Protocol

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from seal_jax.errors import UserError
from seal_jax.model.hf_config import read_json

# Values that chat templates ask for. Those of Llama 3.2 and SmolLM3 would otherwise write today's date into every
# prompt (and a run continued tomorrow would differ), and Qwen3's would have the model think at length first.
_TEMPLATE_VALUES = {"date_string": "26 Jul 2024", "enable_thinking": False}
_CLOCK = "{% macro strftime_now(form) %}26 July 2024{% endmacro %}"  # a function cannot be given like a value
_MARK = "ASSISTANT-TEXT"


class PromptLike(Protocol):
    """tasks.task.Prompt, without importing what stands above the model."""

    @property
    def text(self) -> str: ...
    @property
    def chat(self) -> bool: ...
    @property
    def system(self) -> str | None: ...


class ExampleLike(Protocol):
    """tasks.task.Example."""

    @property
    def prompt(self) -> PromptLike | None: ...
    @property
    def text(self) -> str: ...
    @property
    def closing(self) -> bool: ...
    @property
    def whole(self) -> bool: ...


class Tokenizer:
    """A thin wrapper over a fast tokenizer of transformers, kept as `hf`.

    eos_id, pad_id, vocab_size: ints. stop_ids: EOS, end of turn and whatever else the checkpoint says ends a text.
    """

    def __init__(self, hf: PreTrainedTokenizerFast, place: str, stop_ids: tuple[int, ...] = ()):
        if hf.eos_token_id is None:
            raise UserError(f"{place}: the tokenizer names no eos_token: set it in tokenizer_config.json.")
        self.hf = hf
        self.place = place
        self.eos_id: int = hf.eos_token_id
        self.pad_id: int = self.eos_id if hf.pad_token_id is None else hf.pad_token_id
        self.vocab_size: int = len(hf)
        self.has_chat_template: bool = bool(hf.chat_template)
        self.system: str | None = None
        self._bos = self._bos_ids()
        self._puts_space = "".join(hf.convert_ids_to_tokens(self.encode("a"))).startswith("\u2581")
        self.turn_end_id: int = self._turn_end() if self.has_chat_template else self.eos_id
        self.stop_ids = frozenset({self.eos_id, self.turn_end_id, *stop_ids})

    @property
    def puts_bos(self) -> bool:
        """Whether plain texts begin with a BOS token."""
        return bool(self._bos)

    def with_system(self, text: str) -> "Tokenizer":
        """The same tokenizer whose chats begin with this system message (may be empty) and not the template's own."""
        other = copy.copy(self)
        other.system = text
        return other

    def encode(self, text: str) -> list[int]:
        """Ids of text; the names of special tokens in it become those tokens, and no BOS is put before it."""
        return self.hf(text, add_special_tokens=False, verbose=False)["input_ids"]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.hf.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def encode_prompt(self, prompt: PromptLike) -> list[int]:
        """Ids to continue: a chat prompt up to where the assistant's text begins, a plain one after BOS if used."""
        if not prompt.chat:
            return self._bos + self.encode(prompt.text)
        return self.encode_chat([prompt.text], prompt.system)

    def encode_chat(self, turns: list[str], system: str | None = None) -> list[int]:
        """Ids up to where the assistant's next text begins; turns: the user's and the assistant's in turn."""
        system = self.system if system is None else system
        before = [] if system is None else [{"role": "system", "content": system}]
        said = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
        return self.encode(self._render([*before, *said], generate=True))

    def encode_example(self, example: ExampleLike) -> tuple[list[int], list[float]]:
        """Ids and as many loss weights: 1 on the text and the closing token, 0 on BOS and (unless whole) the prompt.

        The prompt is encoded apart from the text: its ids are those that generation starts from.
        """
        head = self._bos if example.prompt is None else self.encode_prompt(example.prompt)
        chat = example.prompt is not None and example.prompt.chat
        # Where SentencePiece puts a space before every text, one that is there already is not doubled.
        tail = self.encode(example.text.removeprefix(" ") if self._puts_space else example.text)
        if example.closing:
            tail = [*tail, self.turn_end_id if chat else self.eos_id]
        before = [float(example.whole and i > 0) for i in range(len(head))]  # nothing predicts the first token
        return head + tail, before + [1.0] * len(tail)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, chat template included, as transformers reads them."""
        self.hf.save_pretrained(folder)
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        if (
            config["tokenizer_class"] == "TokenizersBackend"
        ):  # the name of transformers 5; 4 and 5 both know the older one
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
            path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _render(self, messages: list[dict], generate: bool) -> str:
        if not self.has_chat_template:
            raise UserError(f"{self.place} has no chat template: use plain prompts, or an instruct model.")
        try:
            return self.hf.apply_chat_template(
                messages,
                chat_template=_CLOCK + self.hf.get_chat_template(),
                tokenize=False,
                add_generation_prompt=generate,
                **_TEMPLATE_VALUES,
            )
        except jinja2.TemplateError as error:
            raise UserError(
                f"{self.place}: its chat template fails ({error}): mend it, or use plain prompts."
            ) from error

    def _bos_ids(self) -> list[int]:
        bos = self.hf.bos_token_id
        return [bos] if bos is not None and self.hf("a", verbose=False)["input_ids"][0] == bos else []

    def _turn_end(self) -> int:
        """The first special token that the template writes after the assistant's text; EOS if it writes none."""
        turns = [{"role": "user", "content": "-"}, {"role": "assistant", "content": _MARK}]
        after = self._render(turns, generate=False).rpartition(_MARK)[2]
        added = self.hf.added_tokens_decoder
        return next((i for i in self.encode(after) if i in added and added[i].special), self.eos_id)


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder. UserError if there is none, or none of the fast kind.

    tokenizer.json is taken as it stands where there is one: AutoTokenizer of transformers 5 may rebuild it by the rules
    of the class that tokenizer_config.json names, and for SmolLM2 those are not the rules in the file.
    """
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        raise UserError(f"{folder} holds no tokenizer.json: copy the tokenizer's files beside the weights.")
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").exists() else AutoTokenizer
    try:
        hf = kind.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # the loaders below it raise every kind; each means that the files cannot be read
        raise UserError(f"{folder}: its tokenizer cannot be read ({type(error).__name__}: {error}).") from error
    if not isinstance(hf, PreTrainedTokenizerFast):
        raise UserError(f"{folder}: its tokenizer has no fast form; save it with a tokenizer.json first.")
    return Tokenizer(hf, str(folder), _generation_stops(folder / "generation_config.json"))


def _generation_stops(path: Path) -> tuple[int, ...]:
    """End tokens that generation_config.json names beside the tokenizer's own."""
    ends = read_json(path).get("eos_token_id") if path.exists() else None
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if not all(isinstance(end, int) for end in ends):
        raise UserError(f"{path}: eos_token_id must be a number or a list of numbers, not {ends!r}.")
    return tuple(ends)
