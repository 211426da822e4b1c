"""Constrained decoding of ARC self-edits: which tokens may come next, as a table over the states of an automaton.

The grammar has finitely many texts, so the automaton over their bytes is built from the end of the texts to their
start. A state stands for all that may still follow; equal states are merged, so the automaton is minimal; every edge
leads to a state with a lower number, so it has no cycle. Then every token is followed through the automaton byte by
byte, which allows every way to cut a text into tokens (Willard and Louf 2023).
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from seal_jax.domains.arc.edit import STRATEGIES, DataGeneration
from seal_jax.errors import UserError

# A string is itself, a tuple is its expressions one after the other, a list is any one of its expressions.
Expression = str | tuple | list

MAX_EPOCHS = 99
_NEVER = np.iinfo(np.int32).max // 2


class Automaton(NamedTuple):
    """A deterministic automaton over bytes. The last state is the start.

    edges: for each state, the next state by byte, with a lower number. accepting: for each state, whether a text may
    end there.
    """

    edges: list[dict[int, int]]
    accepting: list[bool]


class Grammar(NamedTuple):
    """What constrained decoding looks up, for S states and V tokens.

    next_state int16 [S, V]: the state after a token, -1 where the token is not allowed. distance int32 [S]: the fewest
    tokens from a state to the end of a text, with the stop token. start: the first state.
    """

    next_state: np.ndarray
    distance: np.ndarray
    start: int

    def deadlines(self, max_new: int) -> np.ndarray:
        """int32 [S]: the token at position p (from 0) may lead to state s only if p < deadlines[s].

        If every token keeps to this, every text ends with its stop token within max_new tokens. Raises UserError if no
        text is that short.
        """
        least = int(self.distance[self.start])
        if least > max_new:
            raise UserError(
                f"max_new_tokens is {max_new}, but the shortest text that the grammar allows takes {least} tokens: "
                f"set max_new_tokens to {least} or more."
            )
        return (max_new - self.distance).astype(np.int32)


def self_edit_automaton(max_epochs: int = MAX_EPOCHS) -> Automaton:
    """The automaton of valid self-edits as JSON (see `edit`).

    Keys are in the order of the schema, on one line or on several indented by 2 or 4. learning_rate is from 1e-9 to
    1.0, as a decimal with at most nine places or with an exponent; num_train_epochs is from 1 to `max_epochs`.
    """
    if max_epochs < 1:
        raise UserError(f"the largest num_train_epochs that the grammar may allow is {max_epochs}: make it 1 or more.")
    augmentations = {field.name: ["true", "false"] for field in fields(DataGeneration)}
    training = {
        "strategy": [f'"{name}"' for name in STRATEGIES],
        "learning_rate": _learning_rate(),
        "num_train_epochs": [str(number) for number in range(1, max_epochs + 1)],
    }
    parts = {"data_generation": _object(augmentations, 2), "training": _object(training, 2)}
    return compile_expression(_object(parts, 1))


def _learning_rate() -> Expression:
    digit, nonzero = list("0123456789"), list("123456789")
    decimal = ("0.", _up_to(5, "0"), nonzero, _up_to(3, digit))
    exponent = (nonzero, ["", (".", digit, _up_to(1, digit))], ["e-", "E-"], ["", "0"], nonzero)
    return [decimal, exponent, "1.0"]


def _up_to(count: int, expression: Expression) -> Expression:
    """The expression at most `count` times."""
    return ["", (expression, _up_to(count - 1, expression))] if count else ""


def _object(values: dict[str, Expression], level: int) -> Expression:
    """A JSON object whose keys stand at indentation `level`."""
    pairs = [(_gap(level), f'"{key}":', ["", " "], value) for key, value in values.items()]
    rest = [(",", pair) for pair in pairs[1:]]
    return ("{", pairs[0], *rest, _gap(level - 1), "}")


def _gap(level: int) -> Expression:
    return ["", " ", *("\n" + " " * width * level for width in (2, 4))]


def compile_expression(expression: Expression) -> Automaton:
    """The minimal automaton of an expression. Raises UserError if it has more states than int16 can number."""
    states: list[tuple[bool, dict[int, int]]] = []
    known: dict[tuple, int] = {}

    def state(accepting: bool, edges: dict[int, int]) -> int:
        key = accepting, tuple(sorted(edges.items()))
        if key not in known:
            known[key] = len(states)
            states.append((accepting, edges))
        return known[key]

    def either(left: int, right: int) -> int:
        if left == right:
            return left
        (left_accepts, left_edges), (right_accepts, right_edges) = states[left], states[right]
        both = {byte: either(left_edges[byte], right_edges[byte]) for byte in left_edges.keys() & right_edges.keys()}
        return state(left_accepts or right_accepts, left_edges | right_edges | both)

    def before(expression: Expression, rest: int) -> int:
        """The state from which the expression, then what follows from `rest`, is accepted."""
        if isinstance(expression, str):
            for byte in reversed(expression.encode()):
                rest = state(False, {byte: rest})
            return rest
        if isinstance(expression, tuple):
            for part in reversed(expression):
                rest = before(part, rest)
            return rest
        first, *others = (before(part, rest) for part in expression)
        for other in others:
            first = either(first, other)
        return first

    start = before(expression, state(True, {}))
    used = {start}
    for number in range(start, -1, -1):
        if number in used:
            used.update(states[number][1].values())
    if len(used) >= np.iinfo(np.int16).max:
        raise UserError(f"the grammar has {len(used)} states, too many for a table of tokens: bound it more tightly.")
    place = {number: index for index, number in enumerate(sorted(used))}
    kept = [states[number] for number in place]
    edges = [{byte: place[target] for byte, target in edges.items()} for _, edges in kept]
    return Automaton(edges, [accepting for accepting, _ in kept])


def token_bytes(tokenizer, vocab_size: int) -> list[bytes]:
    """The bytes of each token id below vocab_size, b"" for added tokens and unused ids.

    tokenizer: a `model.tokenizer.Tokenizer`. Raises UserError unless its vocabulary is byte-level BPE, as those of
    SmolLM2, Llama 3 and Qwen are.
    """
    decoder = tokenizer.hf.backend_tokenizer.decoder
    if decoder is None or decoder.decode(["\u0120"]) != " ":
        raise UserError(f"{tokenizer.place}: its tokens are not bytes (byte-level BPE): turn constrained decoding off.")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    added = tokenizer.hf.added_tokens_decoder
    out = [b""] * vocab_size
    for text, number in tokenizer.hf.get_vocab().items():
        if number not in added and all(char in byte_of for char in text):
            out[number] = bytes(byte_of[char] for char in text)
    return out


def token_table(automaton: Automaton, tokens: Sequence[bytes], stop_ids: Sequence[int]) -> Grammar:
    """The grammar of an automaton in tokens: `tokens` are the bytes of each id.

    A stop token is allowed where a text may end; it leads to one more state, the last, which allows stop tokens only.
    A token after which no further tokens can complete a text is not allowed. Raises UserError if no text can be
    written with these tokens.
    """
    ids: dict[bytes, list[int]] = {}
    for number, token in enumerate(tokens):
        if token and number not in stop_ids:
            ids.setdefault(token, []).append(number)
    prefixes = {token[:end] for token in ids for end in range(1, len(token) + 1)}
    ended, stops = len(automaton.edges), sorted(stop_ids)
    next_state = np.full((ended + 1, len(tokens)), -1, np.int16)
    distance = np.full(ended + 1, _NEVER, np.int32)
    distance[ended] = 0
    next_state[ended, stops] = ended
    for state in range(ended):  # lower states first: their distances are final
        if automaton.accepting[state] and stops:
            next_state[state, stops], distance[state] = ended, 1
        for token, target in _walk(automaton, state, prefixes):
            if token in ids and distance[target] < _NEVER:
                next_state[state, ids[token]] = target
                distance[state] = min(distance[state], distance[target] + 1)
    if distance[ended - 1] == _NEVER:
        raise UserError("no text of the grammar can be written with this vocabulary: turn constrained decoding off.")
    return Grammar(next_state, distance, ended - 1)


def _walk(automaton: Automaton, state: int, prefixes: set[bytes]) -> Iterator[tuple[bytes, int]]:
    """Every prefix of a token that the automaton allows from a state, and the state after it."""
    stack = [(b"", state)]
    while stack:
        text, at = stack.pop()
        for byte, target in automaton.edges[at].items():
            longer = text + bytes([byte])
            if longer in prefixes:
                yield longer, target
                stack.append((longer, target))
